"""Evaluate a trained model on the test questions: prints the score table of both protocols, writes results/<run>/ with its report.html.

python test.py                                   the newest run in saved_models/
python test.py --input saved_models/RUN --epoch N
python test.py --input OFFICIAL.pth --RAD_dir ARCHIVE
"""

import argparse
import copy
from collections import Counter
from pathlib import Path

from base_model import is_official, load_official
from dataset_RAD import find_data, set_question_len, split_validation, training_questions
from engine import (
    USED_KEYS,
    VERSION,
    Inputs,
    check_checkpoint,
    check_vocabulary,
    describe,
    encode_images,
    find_checkpoint,
    make_model,
    organ_logits,
    predict,
    without_questions,
)
from report import make_report
from scores import PROTOCOLS, breakdown, format_table, intervals, protocol, table
from utils import (
    UserError,
    choose_device,
    choose_precision,
    load_checkpoint,
    run_main,
    say,
    write_json,
)

HERE = Path(__file__).resolve().parent


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--input",
        type=Path,
        help="run folder, or one checkpoint file, ours or official (default: the newest run in saved_models/)",
    )
    add("--epoch", type=int, help="the checkpoint of this epoch (default: the best one)")
    add("--RAD_dir", type=Path, help="the data (default: those that the run was trained on)")
    add("--output", type=Path, help="folder to write (default: results/<run>)")
    add(
        "--split",
        choices=["official", "clean"],
        help="refuse a run that was trained on the other split",
    )
    add("--model", choices=["CMSA", "BAN", "SAN"], help="refuse a checkpoint of another model")
    add("--rnn", choices=["LSTM", "GRU"], help="refuse a checkpoint with another question encoder")
    add("--batch_size", type=int, default=64)
    add("--gpu", type=int, help="CUDA device, -1 for the CPU (default: the first GPU if any)")
    add("--precision", choices=["float32", "bf16"], default="float32")
    for name in (
        "use_spatial",
        "distmodal",
    ):  # command lines of the official code; the checkpoint knows
        add(f"--{name}", action="store_true", help=argparse.SUPPRESS)
    for name in (
        "seed",
        "question_len",
        "num_hid",
        "gamma",
        "num_stacks",
        "emb_init",
        "op",
        "epochs",
        "lr",
        "clip_norm",
        "abd_model_path",
        "brain_model_path",
        "chest_model_path",
        "modal_classifier_path",
    ):
        add(f"--{name}", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size} is too small")
    return args


def load_model(path, args):
    """The model in eval mode and its checkpoint, ours or an official one (then: no dictionary, no answers in it)."""
    state = load_checkpoint(path)
    if is_official(state):
        model, kept = (
            load_official(state),
            {"official": True, "epoch": state.get("epoch"), "data": None, "split": "official"},
        )
    else:
        kept = check_checkpoint(state, path, (*USED_KEYS, "epoch", "split", "val_fraction", "seed"))
        model = make_model(kept, path)
    rnn = type(model.q_emb.rnn).__name__
    for what, asked, has in (
        ("model", args.model, model.fusion),
        ("rnn", args.rnn, rnn),
        ("split", args.split, kept["split"]),
    ):
        if asked and asked != has:
            raise UserError(
                f"{path} is a checkpoint of {what} {has}, and --{what} {asked} was asked for"
            )
    return model.eval(), kept


def check_official_sizes(model, data, path):
    """Raise UserError when an official checkpoint's numbers of words or answers are not those of the data."""
    words, answers = model.w_emb.emb.num_embeddings - 1, model.classifier.main[-1].out_features
    if (words, answers) != (data.ntoken, data.num_answers):
        raise UserError(
            f"{path} knows {words} words and {answers} answers, {data.name} in {data.folder} has {data.ntoken} and "
            f"{data.num_answers}: name the archive it was trained on with --RAD_dir"
        )


def main():
    args = parse_args()
    device = choose_device(args.gpu)
    choose_precision(args.precision, device)
    path, run = find_checkpoint(args.input, args.epoch, HERE / "saved_models")
    model, kept = load_model(path, args)
    official = kept.get("official", False)
    if args.RAD_dir is None and kept["data"]:
        args.RAD_dir = Path(kept["data"]["folder"])  # what the run was trained on
        if not args.RAD_dir.is_dir():
            raise UserError(
                f"{path} was trained on {args.RAD_dir}, which is no longer there: name the data with --RAD_dir"
            )
    data = find_data(args.RAD_dir, say=say)
    if official:
        check_official_sizes(model, data, path)
        training = data.train
    else:
        check_vocabulary(kept, data, path)
        data = set_question_len(data, kept["question_len"])
        data = without_questions(data) if kept.get("image_only") else data
        training, _ = split_validation(
            training_questions(data, kept["split"]),
            kept["val_fraction"],
            kept["split"],
            kept["seed"],
        )
        if kept["data"]["digest"] != data.digest:
            say(
                f"NOTE: trained on {kept['data']['name']} ({kept['data']['digest']}), evaluated on {data.name} ({data.digest})"
            )
    model.to(device)
    maps_path = encode_images(model.image, data, device) if kept.get("frozen") else None
    organs = (
        organ_logits(model.image.image_type, data, device)
        if maps_path and model.image.image_type is not None
        else None
    )
    inputs = Inputs(
        data,
        device,
        maps_path,
        organs,
        distmodal=model.image.image_type is not None,
        blank=kept.get("question_only", False),
    )

    def answers(questions, inputs):
        return predict(
            model, questions, inputs, device, args.precision, args.batch_size
        )  # (questions, answers)

    rows = describe(data.test, answers(data.test, inputs), data, kept["split"], training)
    if not (kept.get("question_only") or kept.get("image_only")):
        blank = copy.copy(inputs)  # shares the maps, which may be on the GPU
        blank.blank = True
        for field, blanked in (
            ("answer_without_image", answers(data.test, blank)),
            ("answer_without_question", answers(without_questions(data).test, inputs)),
        ):
            for row, best in zip(rows, blanked.argmax(1).tolist()):
                row[field] = data.answers[best]

    output = args.output or HERE / "results" / run
    about = {
        "version": VERSION,
        "data": data.about(),
        "split": kept["split"],
        "checkpoint": str(path),
        "epoch": kept["epoch"],
        "model": model.fusion,
        "question_only": kept.get("question_only", False),
        "image_only": kept.get("image_only", False),
        "training_questions": len(training),
    }
    results = {title: table(protocol(rows, name)) for name, title in PROTOCOLS.items()}
    uncertain = {title: intervals(protocol(rows, name)) for name, title in PROTOCOLS.items()}
    for file, (name, title) in zip(("results.json", "results_all.json"), PROTOCOLS.items()):
        write_json(
            output / file,
            results[title]
            | about
            | {
                "protocol": title,
                "interval95_percent": uncertain[title],
                "groups": breakdown(protocol(rows, name)),
            },
        )
    write_json(output / "predictions.json", rows)
    make_report(output, data, model, inputs)

    say(
        f"{model.fusion}, {path}, epoch {kept['epoch']}; {data.name} ({data.digest}), {kept['split']} split; accuracy in %:"
    )
    say(format_table(results, uncertain))
    twins = breakdown(rows)["twin"]
    say(
        "of all: "
        + ", ".join(
            f"{key} a twin among the official split's training records {value['score_percent']:.1f} ({value['count']})"
            for key, value in twins.items()
        )
    )
    unknown = Counter(word for row in rows for word in row["unknown_words"])
    lost = sum(not row["known_answer"] for row in rows)
    say(
        f"never seen in training: {len(unknown)} of the test questions' words, the answers of {lost} test questions"
    )
    if data.phantom:
        say("PHANTOM DATA: these scores say that the program works, and nothing about radiology.")
    shown = output.resolve()
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
    say(f"written: {shown}/ (report.html, results.json, results_all.json, predictions.json)")


if __name__ == "__main__":
    run_main(main)
