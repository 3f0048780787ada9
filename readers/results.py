"""Result folders: predictions.json and results.json, and a run's log.jsonl and run.json.

docs/FORMATS.md sections 4 and 5 list what is in them.
"""

import json
from pathlib import Path

from readers.json_files import check_version, read_json
from readers.record_fields import is_text
from scores import GROUPS
from utils import UserError


def _is_fraction(value):
    return type(value) in (int, float) and 0 <= value <= 1


def _is_flag(value):
    return type(value) in (int, bool) and value in (0, 1)


def _is_count(value):
    return type(value) is int and 0 <= value < 1e12


def _are_texts(value):
    return isinstance(value, list) and all(map(is_text, value))


def _are_answers(value):
    """True for the list of (answer, probability) pairs in `top5`."""
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and is_text(pair[0]) and _is_fraction(pair[1])
        for pair in value
    )


def _is_path(value):
    return is_text(value) and "\0" not in value


def _is_entry(value):
    """True for the scores of a group of questions, as far as tables show them."""
    return (
        isinstance(value, dict)
        and _is_count(value.get("count"))
        and type(score := value.get("score_percent")) in (int, float)
        and 0 <= score <= 100
    )


def _are_intervals(value):
    """True for {group: [low, high] in percent, or None for a group without questions}."""
    return (
        isinstance(value, dict)
        and set(GROUPS) <= value.keys()
        and all(
            span is None
            or isinstance(span, list)
            and len(span) == 2
            and all(type(end) in (int, float) and 0 <= end <= 100 for end in span)
            for span in map(value.get, GROUPS)
        )
    )


# fields of a prediction and what each of them must be
PREDICTION = {
    "qid": lambda value: type(value) is int,
    "image": is_text,
    "truth": is_text,
    "correct": _is_flag,
    "answer_type": lambda value: value in ("OPEN", "CLOSED"),
    "phrase_type": is_text,
    "question": is_text,
    "answer": is_text,
    "organ": is_text,
    "modality": is_text,
    "question_types": _are_texts,
    "probability": _is_fraction,
    "top5": _are_answers,
    "known_answer": _is_flag,
    "twin": _is_flag,
    "near_identical_in_training": _is_flag,
    "image_in_training": _is_flag,
    "unknown_words": _are_texts,
    "answer_without_image": is_text,
    "answer_without_question": is_text,
    "answer_by_retrieval": is_text,
}
# the fields that a comparison of two runs needs, and those that the report needs; a run that was
# trained without image or question has none of LATER's answers, and some sets no modality
COMPARED = ("qid", "image", "truth", "correct", "answer_type", "phrase_type")
LATER = ("answer_without_image", "answer_without_question", "answer_by_retrieval", "modality")
REPORTED = tuple(field for field in PREDICTION if field not in LATER)
# fields of results.json beside the scores; `epoch` is None for an official checkpoint
ABOUT = {
    "model": is_text,
    "recipe": is_text,
    "changed": lambda value: isinstance(value, dict),
    "split": lambda value: value in ("official", "clean"),
    "data": lambda value: (
        isinstance(value, dict)
        and all(_is_path(value.get(key)) for key in ("name", "digest", "folder"))
    ),
    "checkpoint": _is_path,
    "epoch": lambda value: value is None or _is_count(value),
    "question_only": _is_flag,
    "image_only": _is_flag,
    "training_questions": _is_count,
}
# further fields, which a table of scores shows
SCORES = dict.fromkeys(GROUPS, _is_entry) | {"interval95_percent": _are_intervals}


def read_predictions(path, wanted=COMPARED):
    """The rows of a results folder or of a predictions.json, a dictionary a question.

    Every row has the fields `wanted`. Raises UserError for a file that is none, is damaged, or
    has a results.json of another version beside it.
    """
    path = Path(path)
    path = path / "predictions.json" if path.is_dir() else path
    if (about := path.with_name("results.json")).is_file():
        _read_version(about)
    rows = read_json(path)
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise UserError(
            f"{path} holds no predictions: name a folder that test.py wrote, or its "
            "predictions.json"
        )
    for number, row in enumerate(rows):
        if lacking := [field for field in wanted if field not in row]:
            raise UserError(
                f"{path}: prediction {number}, counted from 0, lacks {', '.join(lacking)}; run "
                "./test.sh again"
            )
        bad = [field for field, good in PREDICTION.items() if field in row and not good(row[field])]
        if bad:
            raise UserError(
                f"{path} is damaged: prediction {number}, counted from 0, has a {bad[0]} that "
                "test.py does not write; run ./test.sh again"
            )
    if len({row["qid"] for row in rows}) < len(rows):
        raise UserError(f"{path} has two predictions of one qid; run ./test.sh again")
    return rows


def _read_version(path):
    """A results.json of this version, not checked any further. Raises UserError."""
    results = read_json(path)
    if not isinstance(results, dict):
        raise UserError(f"{path} is not one that test.py wrote: run ./test.sh again")
    check_version(results.get("version"), path)
    return results


def _check_fields(results, path, fields):
    """Raise UserError naming the first of `fields` that a results.json lacks or has wrongly."""
    if bad := [field for field, good in fields.items() if not good(results.get(field))]:
        raise UserError(
            f"{path} is damaged: its {bad[0]} is missing, or is not what test.py writes; run "
            "./test.sh again"
        )


def read_scores(path):
    """The content of a results.json or results_all.json, for a table. Raises UserError."""
    results = _read_version(path)
    _check_fields(results, path, ABOUT | SCORES)
    return results


def read_results(folder):
    """(rows, content of results.json) of a folder that test.py wrote. Raises UserError."""
    folder = Path(folder)
    for name in ("predictions.json", "results.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not a results folder: it holds no {name}; ./test.sh writes one"
            )
    results = _read_version(folder / "results.json")
    _check_fields(results, folder / "results.json", ABOUT)
    return read_predictions(folder, REPORTED), results


def read_run(folder):
    """(rows of log.jsonl in order of epoch, run.json or None) of a run's folder.

    A line that is no row is left out: a killed run's last line may be cut. Of an epoch that was
    done twice the later row counts. Raises UserError for a run.json that can't be read.
    """
    rows, log = {}, folder / "log.jsonl"
    for line in log.read_bytes().splitlines() if log.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_log_row(row):
            rows[row["epoch"]] = row
    path = folder / "run.json"
    settings = read_json(path) if path.is_file() else None
    if not isinstance(settings, (dict, type(None))):
        raise UserError(f"{path} is not one that train.py wrote")
    return [rows[epoch] for epoch in sorted(rows)], settings


def _is_log_row(row):
    """True for a row of plain finite numbers that can be drawn."""
    return (
        isinstance(row, dict)
        and all(type(value) in (int, float) and abs(value) < 1e12 for value in row.values())
        and type(row.get("epoch")) is int
        and {"loss", "train_score"} <= set(row)
    )
