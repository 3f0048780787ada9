"""Export a trained model for serving: one file with the network, its answers and its dictionary, checked to answer as the model does.

    python export.py                                  the newest run in saved_models/ -> saved_models/<run>/model.pt2 (torch.export)
    python export.py --input RUN --output model.onnx  ONNX instead (needs: pip install onnx onnxscript onnxruntime)

The exported network takes images (B, 3, 224, 224) float32, normalised with ImageNet's mean and standard deviation, and questions (B, T)
int64 token ids, and gives the answers' probabilities (B, answers). What turns pictures and text into these is in the file too, as JSON:
`answers`, `dictionary`, `question_len`, `mean`, `std`. README.md shows how to read it.
"""

import argparse
import importlib.util
import json
import warnings
from pathlib import Path

import torch
from torch import nn

from base_model import is_official
from dataset_RAD import MEAN, STD
from engine import USED_KEYS, check_checkpoint, find_checkpoint, make_model
from utils import UserError, atomic_path, load_checkpoint, run_main, say

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-4  # of a probability


class Served(nn.Module):
    """What is exported: a VQAModel from images and questions to probabilities."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, questions):
        return self.model.probabilities(self.model(images, questions).logits)  # (B, answers)


def about(kept):
    """What the file holds beside the network: {name: JSON text}."""
    return {
        name: json.dumps(value)
        for name, value in {
            "answers": kept["answers"],
            "dictionary": kept["dictionary"],
            "question_len": kept["question_len"],
            "padding": len(kept["dictionary"]),
            "mean": MEAN,
            "std": STD,
            "data": kept["data"]["name"],
            "model": kept["model_arguments"]["fusion"],
            "note": "Research software, not for diagnosis. An unknown word is the padding id.",
        }.items()
    }


def export_program(served, inputs, kept, path):
    """Write a torch.export program with any batch size, and give back a function that runs the file. Raises UserError."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        served, inputs, dynamic_shapes={"images": {0: batch}, "questions": {0: batch}}
    )
    with open(path, "wb") as file:  # a file, not its name: torch wants the suffix .pt2
        torch.export.save(program, file, extra_files=about(kept))
    extra = dict.fromkeys(about(kept), "")
    with open(path, "rb") as file:
        loaded = torch.export.load(file, extra_files=extra)
    if json.loads(extra["answers"]) != kept["answers"]:
        raise UserError(f"{path}: what was written does not read back; try again")
    return loaded.module()


def export_onnx(served, inputs, kept, path):
    """Write ONNX with any batch size and the JSON texts as metadata; gives back a function that runs it. Raises UserError."""
    if missing := [
        name
        for name in ("onnx", "onnxscript", "onnxruntime")
        if importlib.util.find_spec(name) is None
    ]:
        raise UserError(
            f"ONNX needs packages that are not installed: pip install {' '.join(missing)}"
        )
    import onnx
    import onnxruntime

    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        served,
        inputs,
        input_names=["images", "questions"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
        dynamic_shapes={"images": {0: batch}, "questions": {0: batch}},
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, about(kept))
    path.write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images, questions: torch.from_numpy(
        session.run(None, {"images": images.numpy(), "questions": questions.numpy()})[0]
    )


@torch.inference_mode()
def largest_difference(served, run, words, length, sizes=(1, 3)):
    """Between the model and the file, over random inputs of other batch sizes than the exported one: the largest difference of a probability."""
    generator = torch.Generator().manual_seed(1)
    differences = []
    for size in sizes:
        images = torch.randn(size, 3, 224, 224, generator=generator)
        questions = torch.randint(0, words + 1, (size, length), generator=generator)
        differences.append((served(images, questions) - run(images, questions)).abs().max().item())
    return max(differences)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--input",
        type=Path,
        help="run folder or checkpoint file (default: the newest run in saved_models/)",
    )
    parser.add_argument(
        "--epoch", type=int, help="the checkpoint of this epoch (default: the best one)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write, .pt2 or .onnx (default: model.pt2 beside the checkpoint)",
    )
    args = parser.parse_args(arguments)
    path, _ = find_checkpoint(args.input, args.epoch, HERE / "saved_models")
    output = args.output or path.parent / "model.pt2"
    if output.suffix not in (".pt2", ".onnx"):
        raise UserError(
            f"--output {output}: a name that ends in .pt2 (torch.export) or .onnx is wanted"
        )
    state = load_checkpoint(path)
    if is_official(state):
        raise UserError(
            f"{path} is a checkpoint of the official code, which holds neither its words nor its answers: export one of train.py's"
        )
    kept = check_checkpoint(state, path, USED_KEYS)
    if only := [name for name in ("question_only", "image_only") if kept.get(name)]:
        raise UserError(
            f"{path} was trained with --{only[0]}: export a model that sees both image and question"
        )
    served = Served(make_model(kept, path)).eval()
    inputs = torch.zeros(2, 3, 224, 224), torch.zeros(2, kept["question_len"], dtype=torch.int64)
    with atomic_path(output) as temporary:  # what does not answer alike never takes the name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = (export_program if output.suffix == ".pt2" else export_onnx)(
                served, inputs, kept, temporary
            )
        difference = largest_difference(served, run, len(kept["dictionary"]), kept["question_len"])
        if not difference <= TOLERANCE:
            raise UserError(
                f"{output} would answer otherwise than {path} (by up to {difference:.2g}) and was not written: try another version of PyTorch"
            )
    say(
        f"written: {output} ({output.stat().st_size / 2**20:.0f} MB), {len(kept['answers'])} answers; on random inputs its probabilities differ from the "
        f"model's by {difference:.1g} at most"
    )


if __name__ == "__main__":
    run_main(main)
