"""Evaluate a trained model on the test questions: scores of both protocols, and a report.

    python test.py                                   the newest run in saved_models/
    python test.py --input saved_models/RUN --epoch N
    python test.py --input OFFICIAL.pth --RAD_dir ARCHIVE

Writes results/<run>/: results.json, results_all.json, predictions.json, report.html.
"""

import argparse
import time
from pathlib import Path

import utils
from base_model import load_official
from dataset_RAD import find_data, own_parts, set_question_len, without_questions
from engine import predict
from features import model_inputs
from journal import now, place, tell_scores, write_test_scores
from readers import checkpoints, official
from scores import breakdown, intervals, prediction_rows, protocol, protocols_of, table
from tools import calibrate
from tools.baselines import add_baselines, retrieval_scores
from tools.equivalent import LENGTH, add_equivalent, equivalent_scores
from utils import HERE, VERSION, UserError, log

# options of the official command lines; the checkpoint knows their values
OFFICIAL = "seed question_len num_hid gamma num_stacks emb_init op epochs lr clip_norm"
OFFICIAL += " abd_model_path brain_model_path chest_model_path modal_classifier_path"


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--input", type=Path, help="run folder or checkpoint file (default: the newest run)")
    add("--epoch", type=int, help="the checkpoint of this epoch, from 0 (default: the best)")
    add("--RAD_dir", "--data_dir", type=Path, help="the data (default: the run's own)")
    add("--output", type=Path, help="folder to write (default: results/<run>)")
    add("--split", choices=["official", "clean", "test"], help="refuse the other; test: take any")
    add("--model", choices=["CMSA", "BAN", "SAN"], help="refuse a checkpoint of another model")
    add("--rnn", choices=["LSTM", "GRU"], help="refuse another question encoder")
    add("--batch_size", type=int, default=64, help="questions at once (default: 64)")
    add("--gpu", type=int, help="CUDA device, -1 for the CPU (default: the first GPU if any)")
    text = "let the question's form restrict the answers (default: the run's choice)"
    add("--form_rule", action=argparse.BooleanOptionalAction, help=text)
    add("--precision", choices=["float32", "bf16"], default="float32", help="default: float32")
    for name in ("use_spatial", "distmodal"):
        add(f"--{name}", action="store_true", help=argparse.SUPPRESS)
    for name in OFFICIAL.split():
        add(f"--{name}", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size} is too small")
    return args


def load_model(path, args):
    """(model in eval mode, its checkpoint or None for an official one, epoch)."""
    state, kept = checkpoints.load_checkpoint(path), None
    if checkpoints.is_official(state):
        model, split = load_official(state), "official"
    else:
        kept = checkpoints.check_checkpoint(state, path)
        model, split = checkpoints.make_model(kept, path), kept["settings"]["split"]
    has = {"model": model.fusion, "rnn": type(model.q_emb.rnn).__name__, "split": split}
    for name, value in has.items():
        given = getattr(args, name)
        if given not in (None, value, "test"):
            raise UserError(f"{path} was trained with --{name} {value}, not {given}: leave it out")
    return model, kept, state.get("epoch", args.epoch)


def find_run_data(args, kept, path, model):
    """(data, training questions, settings) of a run, or of an official checkpoint (kept None)."""
    if args.RAD_dir is None and kept:
        args.RAD_dir = Path(kept["data"]["folder"])
        if not args.RAD_dir.is_dir():
            raise UserError(f"{path} was trained on {args.RAD_dir}, which is gone: name --RAD_dir")
    data = find_data(args.RAD_dir, kept and kept["data"].get("options"), log=log)
    if not kept:
        official.check_vocabulary_size(model, data, path)
        return data, data.train, {"split": "official", "recipe": "official code"}
    checkpoints.check_vocabulary(kept, data, path)
    if kept["data"]["digest"] != data.digest:
        theirs = f"{kept['data']['name']} ({kept['data']['digest']})"
        log(f"NOTE: trained on {theirs}, evaluated on {data.name} ({data.digest})")
    settings = kept["settings"]
    data = set_question_len(data, settings["question_len"])
    data = without_questions(data) if settings["image_only"] else data
    chosen = (settings[name] for name in ("val_fraction", "split", "seed"))
    return data, own_parts(data, *chosen)[0], settings


def main():
    args, began = parse_args(), time.perf_counter()
    device = utils.choose_device(args.gpu)
    utils.choose_precision(args.precision, device)
    path, run = checkpoints.find_checkpoint(args.input, args.epoch, HERE / "saved_models")
    output = args.output or HERE / "results" / run
    utils.check_writable(output, "--output")
    model, kept, epoch = load_model(path, args)
    data, training, settings = find_run_data(args, kept, path, model)
    model.to(device)
    only = {name: settings.get(name, False) for name in ("question_only", "image_only")}
    frozen = settings.get("freeze_encoders", False)
    inputs = model_inputs(model.image, data, device, frozen, only["question_only"])
    rule = settings.get("form_rule", False) if args.form_rule is None else args.form_rule
    rule = rule and not only["image_only"]  # a blanked question has no form

    def answer(questions, inputs, what="", rule=rule):  # -> probabilities (questions, answers)
        log(f"predicting the answers to {len(questions)} questions{what}")
        classes = data.answers if rule else None
        return predict(model, questions, inputs, device, args.precision, args.batch_size, classes)

    probabilities = answer(data.test, inputs)
    rows = prediction_rows(data.test, probabilities, data, settings["split"], training)
    calibrate.add_uncalibrated(rows, probabilities, model)
    add_equivalent(rows)
    taken = None  # a model without images or questions is a baseline itself
    if not any(only.values()):
        taken = add_baselines(rows, data, training, model, inputs, answer, rule)

    about = {"version": VERSION, "model": model.fusion, "recipe": settings["recipe"]}
    about |= {"changed": kept.get("changed", {}) if kept else {}, "split": settings["split"]}
    about |= {"epoch": epoch, "checkpoint": str(path), "evaluated": now(), **place()}
    about["seconds"] = round(time.perf_counter() - began, 1)
    about |= {"data": data.about(), "training_questions": len(training), **only}
    about |= {"frame_records": data.frames, "form_rule": rule}
    results = {}  # of each protocol: the content of its file
    protocols = protocols_of(rows)
    (output / "results_all.json").unlink(missing_ok=True)  # of other data that were there before
    for file, (name, title) in zip(("results.json", "results_all.json"), protocols.items()):
        scored = protocol(rows, name)
        results[title] = table(scored) | about | {"protocol": title}
        results[title] |= {"interval95_percent": intervals(scored), "groups": breakdown(scored)}
        results[title]["equivalent"] = equivalent_scores(scored) | {"table": LENGTH}
        if taken:
            results[title]["retrieval"] = retrieval_scores(scored, taken)
        results[title]["calibration"] = calibrate.errors(scored, model.temperature)
        utils.write_json(output / file, results[title])
    utils.write_json(output / "predictions.json", rows)
    write_test_scores(path.parent, epoch, results)
    tell_scores(results, rows, data)
    log("writing the report")
    from tools.report import make_report  # needs jinja2

    make_report(output, data, model, inputs, rows=rows, results=results[next(iter(results))])
    files = ["report.html", "results.json", "results_all.json"][: 1 + len(results)]
    log(f"written: {output}/ ({', '.join(files)}, predictions.json)")


if __name__ == "__main__":
    utils.run_main(main)
