"""The report of an evaluated run: results/<run>/report.html, one file that needs no network.

    python -m tools.report results/RUN                  make it anew from the files alone
    python -m tools.report results/RUN --RAD_dir DIR    when the data have moved since

Where the run's folder, the data or the checkpoint are gone, a sentence stands in place of the
part that needs them.
"""

import argparse
import base64
import contextlib
import datetime
import hashlib
from pathlib import Path

import torch

from dataset_RAD import find_data, set_question_len, training_questions
from features import model_inputs
from journal import duration
from readers.checkpoints import check_vocabulary, make_model, read_checkpoint
from readers.json_files import read_json
from readers.results import read_results, read_run
from scores import protocols_of
from tools import report_tables as tables
from tools.compare import recipe_line, split_of
from tools.equivalent import LENGTH, equal_pairs
from tools.maps import OCCLUSION
from tools.report_charts import calibration_chart, training_charts
from tools.report_gallery import choose_gallery, make_cards
from utils import HERE, PHANTOM_SET, UserError, atomic_path, log, optional, run_main

BLANK_RUNS = {  # runs that were trained without one input; `neighbours` finds them
    "question_only": "This run saw blank images.",
    "image_only": "This run read no questions.",
}
LOG_COLUMNS = {  # of log.jsonl
    "rate": "rate",
    "loss": "training loss",
    "val_loss": "validation loss",
    "train_score": "training score",
    "val_score": "validation score",
}
NO_NEIGHBOURS = (
    "There are no results of the same model trained with --question_only or --image_only beside "
    "this folder to compare with: train with this run's options and one of the two, then evaluate."
)


def make_report(folder, data=None, model=None, inputs=None, rad_dir=None, rows=None, results=None):
    """Write <folder>/report.html and return its path. Raises UserError for no results folder.

    test.py gives what it has at hand: data, RadData; model and inputs, features.Inputs; rows and
    results, the contents of predictions.json and results.json. Whatever is None is read: the last
    two from `folder`, the others from the places that results.json names, the data from `rad_dir`
    if given.
    """
    folder, missing = Path(folder), {}
    if rows is None:
        rows, results = read_results(folder)
    if data is None:
        data = attempt(missing, "data", read_data, results, rad_dir)
    shown = attempt(missing, "maps", find_maps, results, data, model, inputs)
    model, inputs, data = shown or (None, None, data)
    run, settings, history, companion = read_history(results, missing)
    # people count epochs from 1, and files from 0
    history = [row | {"epoch": row["epoch"] + 1} for row in history]
    epoch = None if results["epoch"] is None else results["epoch"] + 1
    baselines = {}
    if data is not None:
        training = training_questions(data, results["split"])
        baselines["majority"] = tables.majority_baseline(training, rows)
    baselines |= tables.blanked_baselines(rows)
    beside = neighbours(folder, rows, results)
    if not beside and not any(results[kind] for kind in BLANK_RUNS):
        missing["baselines"] = NO_NEIGHBOURS
    baselines |= beside
    rule = results.get("form_rule", False)
    cards, looks = make_cards(choose_gallery(rows), data, model, inputs, missing, rule)
    calibrated = tables.calibration(rows) | tables.uncalibrated(rows, results)
    page = {
        "run": folder.resolve().name,
        "results": results,
        "recipe": recipe_line(results),
        "split": split_of(results),
        "epoch": epoch,
        "epochs": part_of(run, "settings").get("epochs"),
        "softmax": model.softmax if model else part_of(run, "model_arguments").get("softmax"),
        "when": {"Trained": told(run, "began"), "Evaluated": told(results, "evaluated")},
        "phantom": results["data"]["name"] == PHANTOM_SET,
        "total": len(rows),
        "scores": tables.score_rows(rows, baselines),
        "tables": tables.group_tables(rows, baselines),
        "equal_pairs": equal_pairs(rows),
        "table_length": LENGTH,
        "baselines": list(baselines),
        "few": tables.FEW,
        "protocols": list(protocols_of(rows).values()),
        "log": history,
        "log_columns": {
            key: title for key, title in LOG_COLUMNS.items() if any(key in row for row in history)
        },
        "charts": training_charts(history, epoch) if len(history) > 1 else [],
        "gap": tables.overfitting(history, epoch),
        "companion": companion,
        "settings": settings,
        "calibration": calibrated,
        "calibration_chart": calibration_chart(calibrated),
        "confusion": tables.yes_no_confusion(rows),
        "cards": cards,
        "looks": looks,
        "occlusion": OCCLUSION,
        "organ_names": tables.ORGAN_NAMES,
        "type_names": tables.TYPES,
        "organs": sorted({card["row"]["organ"] for card in cards} - {""}),
        "types": sorted({kind for card in cards for kind in card["row"]["question_types"]}),
        "missing": missing,
    }
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(render(page), encoding="utf-8", errors="replace")
    return folder / "report.html"


def render(page):
    """The page's HTML. page: the names that report.html.jinja uses. All text is escaped."""
    jinja2 = optional("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "tools"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )

    def sha256(text):
        return base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()

    environment.filters["sha256"] = sha256
    return environment.get_template("report.html.jinja").render(page)


def attempt(missing, part, read, *arguments):
    """read(*arguments); where it raises a UserError None, and missing[part] says why."""
    try:
        return read(*arguments)
    except UserError as error:
        text = str(error).rstrip(".") + "."
        missing[part] = text[0].upper() + text[1:]
        return None


def read_data(results, rad_dir=None):
    """The data that were evaluated, RadData. Raises UserError saying why they can't be shown."""
    about = results["data"]
    folder = Path(rad_dir or about["folder"])
    if not folder.is_dir():
        raise UserError(
            f"the data are no longer in {folder}: python -m tools.report --RAD_dir DIR names "
            "another folder"
        )
    data = find_data(folder, about.get("options"), log=lambda _: None)
    if data.digest != about["digest"]:
        raise UserError(f"the data in {folder} have changed since the evaluation")
    return data


def checkpoint_path(results):
    """The path of the evaluated checkpoint, which need not be there any more."""
    path = Path(results["checkpoint"])
    return HERE / path if not path.exists() and (HERE / path).exists() else path


def find_maps(results, data, model, inputs):
    """(model, inputs, data) that give maps of the answers. Raises UserError saying why none do.

    model and inputs are given back if they are at hand. Else the model is read from the
    checkpoint, and the data get its question length.
    """
    for kind, sentence in BLANK_RUNS.items():
        if results[kind]:
            raise UserError(sentence)
    if data is None:
        raise UserError("the data are not at hand")
    if model is not None:
        return model, inputs, data
    path = checkpoint_path(results)
    kept = read_checkpoint(path)
    if kept["epoch"] != results["epoch"]:
        raise UserError(
            f"{path} now holds epoch {kept['epoch'] + 1}, and another one was evaluated"
        )
    check_vocabulary(kept, data, path)
    model, settings = make_model(kept, path), kept["settings"]
    data = set_question_len(data, settings["question_len"])
    device = torch.device("cpu")
    return model, model_inputs(model.image, data, device, settings["freeze_encoders"]), data


def read_history(results, missing):
    """(run.json or {}, its `grouped_settings`, rows of log.jsonl, whose they are) of the run.

    A run without validation scores gives the rows of its companion, and then the last is True.
    `missing` says why there are none.
    """
    folder = checkpoint_path(results).parent
    history, run = attempt(missing, "settings", read_run, folder) or ([], None)
    settings = grouped_settings(run or {}, results)
    if not history:
        missing["curves"] = f"There is no log.jsonl in {folder}."
    if not settings["others"]:
        missing.setdefault("settings", f"There is no run.json in {folder}.")
    if any("val_score" in row for row in history):
        return run or {}, settings, history, False
    beside, _ = attempt({}, "curves", read_run, folder / "companion") or ([], None)
    return run or {}, settings, beside or history, bool(beside)


def told(facts, when):
    """ "2026-11-26 23:46, took 1 min 52 s, commit 590c345, on host", or "" where nothing is known.

    facts: run.json or results.json; when: the key of its time. What is absent is left out.
    """
    parts = []
    with contextlib.suppress(TypeError, ValueError):
        parts.append(
            f"{datetime.datetime.fromisoformat(facts.get(when)):%Y-%m-%d %H:%M %Z}".strip()
        )
    seconds = facts.get("seconds")
    if type(seconds) in (int, float) and 0 <= seconds < 1e9:
        parts.append(f"took {duration(seconds)}")
    for key, before in (("commit", "commit "), ("host", "on ")):
        if isinstance(facts.get(key), str) and facts[key]:
            parts.append(before + facts[key])
    return ", ".join(parts)


def neighbours(folder, rows, results):
    """{name: rows} of the newest question-only and image-only results beside `folder`.

    They are of the same model, recipe, changed settings, data, split and questions.
    """
    found, qids = {}, {row["qid"] for row in rows}
    files = folder.resolve().parent.glob("*/results.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        try:
            other = read_json(file)
            same = ("model", "recipe", "changed", "split", "data")
            alike = isinstance(other, dict) and all(other.get(k) == results[k] for k in same)
            kinds = [kind for kind in BLANK_RUNS if alike and other.get(kind)]
            if not kinds or file.parent == folder.resolve():
                continue
            beside, _ = read_results(file.parent)
        except UserError:
            continue
        if {row["qid"] for row in beside} == qids:
            found |= {kind.replace("_", " "): beside for kind in kinds}
    return found


def part_of(run, name):
    """A dictionary in run.json; {} where there is none."""
    return part if isinstance(part := run.get(name), dict) else {}


def grouped_settings(run, results):
    """The settings for the page: {"changed": lines, "others": {title: lines}} of (name, text).

    run: run.json; results: content of results.json, which names those that differ from the recipe.
    """
    changed = results["changed"]
    names = {"Settings": "settings", "Model": "model_arguments", "Prior": "prior_arguments"}
    parts = {title: part_of(run, name) for title, name in names.items()}
    shown = {"settings", "model_arguments", "prior_arguments", "recipe", "changed"}
    shown |= {"began", "seconds", "commit", "host"}  # in the page's head
    parts["Run"] = {key: value for key, value in run.items() if key not in shown}
    if isinstance(resumed := run.get("resumed"), list):
        parts["Run"]["resumed"] = "; ".join(
            f"{told(one, 'time')}, with epoch {one['epoch'] + 1}"
            for one in resumed
            if isinstance(one, dict) and type(one.get("epoch")) is int
        )
    out = {"recipe", *changed} | ({"split"} if split_of(results) is None else set())
    parts["Settings"] = {key: value for key, value in parts["Settings"].items() if key not in out}
    others = {title: lines for title, part in parts.items() if (lines := flat(part))}
    return {"changed": [(key, str(value)) for key, value in changed.items()], "others": others}


def flat(settings, before="", depth=0):
    """A part of run.json as (name, text) lines, without what is not set."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, dict) and depth < 9:
            lines += flat(value, f"{before}{key}: ", depth + 1)
        elif value is not None and value != []:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append((f"{before}{key}", text))
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results folder, as test.py writes it")
    parser.add_argument("--RAD_dir", type=Path, help="the data (default: those evaluated)")
    args = parser.parse_args(arguments)
    log(f"written: {make_report(args.results, rad_dir=args.RAD_dir)}")


if __name__ == "__main__":
    run_main(main)
