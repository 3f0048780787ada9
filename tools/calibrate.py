"""Calibration: one temperature, so that of answers given at 80% about 80% are right.

The temperature T divides a model's logits before its softmax or its sigmoids. It is fitted on
questions that training has not seen, and is kept in best.pth and last.pth. docs/METHOD.md section 3
says how.
"""

import argparse
import sys

import numpy as np
import torch
from torch.nn import functional as F

import engine
import parallel
from dataset_RAD import own_parts
from journal import duration
from readers.checkpoints import read_checkpoint, save_checkpoint
from readers.safe_load import load_checkpoint
from tools.report_tables import calibration
from tools.seeds import run_process
from utils import HERE, UserError, log, write_json

GRID = np.geomspace(0.2, 20, 463)  # temperatures that are tried, 1% apart
FEWEST = 50  # validation questions; of fewer the temperature would be chance
HELD_OUT = 0.2  # share of the questions that a companion run holds out


def with_temperature(probabilities, temperature, softmax):
    """Probabilities (N, answers) of temperature 1 -> of another one, float64.

    For a softmax p ** (1 / T), normalised. For sigmoids sigmoid(logit(p) / T).
    """
    if softmax:
        return (probabilities.double().log() / temperature).softmax(-1)  # 0 stays 0
    return (probabilities.double().clamp(1e-30, 1 - 1e-7).logit() / temperature).sigmoid()


def fit_temperature(probabilities, right, softmax):
    """The temperature under which it is most likely that just these first answers are right.

    probabilities: (N, answers) of temperature 1; right: (N,) of 0 and 1.
    """

    def loss(temperature):
        first = with_temperature(probabilities, temperature, softmax).amax(1)  # (N,)
        return F.binary_cross_entropy(first.clamp(1e-7, 1 - 1e-7), right.double()).item()

    return float(min(GRID, key=loss))


def enough(questions, whose="validation questions"):
    """True where these validation questions can give a temperature; else a line says why not."""
    if len(questions) < FEWEST:
        log(f"not calibrated: {len(questions)} {whose}, at least {FEWEST} are wanted")
    return len(questions) >= FEWEST


def of_validation(model, questions, inputs, device, precision, state, answers=None):
    """The temperature of a run's checkpoint `state`, fitted on its validation questions.

    model: gets the checkpoint's weights; answers: see engine.predict.
    """
    model.load_state_dict(state["model"])
    options = {"precision": precision, "answers": answers}
    probabilities = engine.predict(model, questions, inputs, device, **options)
    labels = torch.tensor([q.label for q in questions])
    return fit_temperature(probabilities, probabilities.argmax(1) == labels, model.softmax)


def finish(args, output, temperature_of=None):
    """End a run: a temperature in best.pth and last.pth, and no optimizer in last.pth.

    temperature_of(state): of a checkpoint's content, or None for no temperature.
    """
    for name in ("best.pth", "last.pth"):
        state = load_checkpoint(output / name)
        before = set(state)
        if temperature_of and "temperature" not in state:
            if (found := temperature_of(state)) is not None:
                state["temperature"] = found
                log(f"{name}: temperature {found:.2f}")
        if name == "last.pth" and not args.keep_optimizer:
            state.pop("optimizer", None)
        if set(state) != before:
            save_checkpoint(output / name, state)


def options_of(args, parser, names=None):
    """The arguments of `parser` that give the settings `args`, whatever its defaults are.

    names: of the settings that are wanted, or None for all.
    """
    options = []
    for action in parser._actions:
        if names is not None and action.dest not in names:
            continue
        value, flag = getattr(args, action.dest, None), action.option_strings[0]
        if isinstance(action, argparse.BooleanOptionalAction):
            options += [flag if value else flag.replace("--", "--no-", 1)]
        elif action.nargs == 0:  # store_true
            options += [flag] if value else []
        elif action.nargs == "+":
            options += [flag, *map(str, value)] if value else []
        elif value is not None:
            options += [flag, str(value)]
    return options


def companion(args, parser, output, data):
    """Calibrate a run that trained on all questions, by a run beside it that holds a fifth out.

    It has the same settings, goes on where it was stopped, and leaves its log in `companion/`.
    data: the run's RadData; too few questions of it train no companion. Raises Stopped, and
    UserError where the companion fails.
    """
    own, kept = output / "companion", read_checkpoint(output / "last.pth")
    held_out = own_parts(data, HELD_OUT, args.split, args.seed)[1]
    if "temperature" in kept or not enough(held_out, "questions for a companion to hold out"):
        return
    if args.input:
        log("not calibrated: the checkpoint of --input may know the questions to be held out")
        return
    if parallel.environment_number("WORLD_SIZE") > 1:
        log(f"not calibrated: train.py --resume --output {output}, without torchrun, does it")
        return
    about = duration((1 - HELD_OUT) * kept.get("seconds", 0))
    log(
        f"calibration: a companion run trains with a fifth of the questions held out, about "
        f"{about}; --no-calibrate leaves it out"
    )
    if (own / "last.pth").exists():
        moved = options_of(args, parser, ("gpu", "RAD_dir", "extra_data"))  # may be others now
        options = ["--resume", "--output", str(own), *moved]
    else:
        changes = {"output": own, "val_fraction": HELD_OUT, "resume": False, "save_every": 0}
        if data.options.get("organ_map"):  # its file may be gone
            changes["organ_map"] = own / "organ_map.json"
            write_json(changes["organ_map"], data.options["organ_map"])
        options = options_of(argparse.Namespace(**vars(args) | changes), parser)
        options += ["--recipe", args.recipe, "--output", str(own)]
    if code := run_process([sys.executable, str(HERE / "train.py"), *options]):
        raise UserError(
            f"the companion run in {own} ended with exit code {code}: --resume goes on with it, "
            "--no-calibrate leaves it out"
        )
    temperature = read_checkpoint(own / "last.pth").get("temperature")
    finish(args, output, lambda state: temperature)
    for path in own.glob("*.pth"):  # its log is its use from here on
        path.unlink()


def add_uncalibrated(rows, probabilities, model):
    """Give rows of predictions.json `uncalibrated`: the given answer's at temperature 1."""
    before = with_temperature(probabilities, 1 / model.temperature, model.softmax).amax(1)
    for row, value in zip(rows, before.tolist()):
        row["uncalibrated"] = round(value, 6)


def errors(rows, temperature):
    """{"temperature", "ece_percent", "ece_percent_before"} of rows with `uncalibrated`."""
    before = [row | {"probability": row["uncalibrated"]} for row in rows]
    percent = [round(100 * calibration(some)["ece"], 2) for some in (rows, before)]
    return {"temperature": temperature, "ece_percent": percent[0], "ece_percent_before": percent[1]}
