"""Export a trained model for serving: one file, checked to answer as the model does.

    python export.py                                    the newest run -> its model.pt2
    python export.py --input RUN --output model.onnx    ONNX instead of torch.export

The network in the file takes images (B, 3, 224, 224) float32, normalised with ImageNet's mean and
standard deviation, and questions (B, T) int64, token ids. It gives the probabilities (B, answers).
The file holds the rest as JSON texts: `answers`, `dictionary`, `question_len`, `padding`, `mean`,
`std` and notes. docs/FORMATS.md section 7 has a client
of a dozen lines, from a picture and a question to the answer.
"""

import argparse
import importlib.util
import json
import warnings
from pathlib import Path

import torch
from torch import nn

from readers.checkpoints import find_checkpoint, make_model, read_checkpoint
from utils import HERE, MEAN, PIP, SIZE, STD, UserError, atomic_path, log, run_main

TOLERANCE = 1e-4  # of a probability


class Served(nn.Module):
    """The exported network: a VQA model from images and questions to probabilities."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, questions):
        return self.model.probabilities(self.model(images, questions).logits)  # (B, answers)


def about(kept):
    """{name: JSON text}: what the file holds beside the network, from a run's checkpoint."""
    facts = {
        "answers": kept["answers"],
        "dictionary": kept["dictionary"],
        "question_len": kept["settings"]["question_len"],
        "padding": len(kept["dictionary"]),
        "mean": MEAN,
        "std": STD,
        "data": kept["data"]["name"],
        "model": kept["model_arguments"]["fusion"],
        "recipe": kept["settings"]["recipe"],
        "note": "Research software, not for diagnosis. An unknown word is the padding id.",
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def any_batch():
    """The dynamic shapes of an export: images and questions of any batch size."""
    batch = torch.export.Dim("batch", min=1)
    return {"images": {0: batch}, "questions": {0: batch}}


def export_program(served, inputs, facts, path):
    """Write a torch.export program to `path`, and return a function that runs the file.

    inputs: example images and questions; facts: `about`'s. Raises UserError.
    """
    program = torch.export.export(served, inputs, dynamic_shapes=any_batch())
    with open(path, "wb") as file:  # a file, not its name: torch wants the suffix .pt2
        torch.export.save(program, file, extra_files=facts)
    found = dict.fromkeys(facts, "")
    with open(path, "rb") as file:
        loaded = torch.export.load(file, extra_files=found)
    if found != facts:
        raise UserError(f"{path} does not read back as it was written; try again")
    return loaded.module()


def export_onnx(served, inputs, facts, path):
    """Write ONNX to `path`, the facts as metadata; otherwise as `export_program`."""
    wanted = ("onnx", "onnxscript", "onnxruntime")
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX needs missing packages: {PIP} {' '.join(missing)}")
    import onnx
    import onnxruntime

    program = torch.onnx.export(
        served,
        inputs,
        input_names=["images", "questions"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
        dynamic_shapes=any_batch(),
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, facts)
    path.write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images, questions):
        named = {"images": images.numpy(), "questions": questions.numpy()}
        return torch.from_numpy(session.run(None, named)[0])  # (B, answers)

    return run


@torch.inference_mode()
def largest_difference(served, run, words, length, sizes=(1, 3)):
    """The largest difference of a probability between the model and the file, on random inputs.

    run: the function that runs the file; words: in the dictionary; length: of a question;
    sizes: of the batches, others than the exported one.
    """
    generator = torch.Generator().manual_seed(1)
    differences = []
    for size in sizes:
        images = torch.randn(size, 3, SIZE, SIZE, generator=generator)
        questions = torch.randint(0, words + 1, (size, length), generator=generator)
        differences.append((served(images, questions) - run(images, questions)).abs().max().item())
    return max(differences)


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--input", type=Path, help="run folder or checkpoint file (default: the newest run)")
    add("--epoch", type=int, help="the checkpoint of this epoch, from 0 (default: the best one)")
    add("--output", type=Path, help=".pt2 or .onnx file (default: model.pt2 in the run's folder)")
    args = parser.parse_args(arguments)
    if args.output and args.output.suffix not in (".pt2", ".onnx"):
        raise UserError(
            f"--output {args.output}: a name that ends in .pt2 (torch.export) or .onnx is wanted"
        )
    return args


def main(arguments=None):
    args = parse_args(arguments)
    path, _ = find_checkpoint(args.input, args.epoch, HERE / "saved_models")
    output = args.output or path.parent / "model.pt2"
    kept = read_checkpoint(path)
    settings = kept["settings"]
    if only := [name for name in ("question_only", "image_only") if settings[name]]:
        raise UserError(
            f"{path} was trained with --{only[0]}: export a model that sees both image and question"
        )
    served = Served(make_model(kept, path)).eval()
    length = settings["question_len"]
    inputs = torch.zeros(2, 3, SIZE, SIZE), torch.zeros(2, length, dtype=torch.int64)
    export = export_program if output.suffix == ".pt2" else export_onnx
    with atomic_path(output) as temporary:  # a file that answers otherwise never takes the name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = export(served, inputs, about(kept), temporary)
        difference = largest_difference(served, run, len(kept["dictionary"]), length)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{output} would answer otherwise than {path} (by up to {difference:.2g}) and was "
                "not written: try another version of PyTorch"
            )
    log(
        f"written: {output} ({output.stat().st_size / 2**20:.0f} MB), {len(kept['answers'])} "
        f"answers; on random inputs its probabilities differ from the model's by "
        f"{difference:.1g} at most"
    )


if __name__ == "__main__":
    run_main(main)
