"""Scores, their uncertainty, and the results files' schema (DESIGN section 5).

    python scores.py A B     compare two runs: results folders or their predictions.json, on the same questions

A prediction is a dictionary as in predictions.json. A score is 1 if the arg-max answer equals the normalised ground truth.
"""

import argparse
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np

from utils import UserError, check_version, read_json, run_main

GROUPS = ("CLOSED", "OPEN", "ALL")
PROTOCOLS = {"freeform": "freeform", "all": "freeform + para"}
BOOTSTRAP = 10_000  # resamplings


def entry(predictions):
    """The official schema's entry for some predictions: counts, and the share that is right, as fraction and percent.

    `real` counts the questions whose answer is a known class: real_percent is the ceiling of score_percent.
    """
    count = len(predictions)
    real = sum(p["known_answer"] for p in predictions)
    true = sum(p["correct"] for p in predictions)
    score = true / count if count else 0.0
    return {
        "count": count,
        "real": real,
        "true": true,
        "real_percent": round(100 * real / count, 1) if count else 0.0,
        "score": score,
        "score_percent": round(100 * score, 1),
    }


def in_group(predictions, group):
    """The predictions of one of GROUPS."""
    return [p for p in predictions if group in ("ALL", p["answer_type"])]


def table(predictions):
    """{"CLOSED" | "OPEN" | "ALL": entry} in the official schema."""
    return {group: entry(in_group(predictions, group)) for group in GROUPS}


def resample(values, images, seed=0):
    """Means of `values` over BOOTSTRAP resamplings of whole images with replacement: float64 (BOOTSTRAP,).

    Questions on one image are not independent, so images are drawn, not questions; with an image come all its questions.
    """
    names, of = np.unique(images, return_inverse=True)
    sums, counts = np.bincount(of, values), np.bincount(of)  # per image
    times = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), BOOTSTRAP
    )  # (BOOTSTRAP, images)
    return times @ sums / (times @ counts)


def interval(values, images):
    """[low, high] in percent, not rounded: the 95% percentile interval of the mean of `values` by bootstrap over images."""
    return [100 * float(value) for value in np.quantile(resample(values, images), (0.025, 0.975))]


def intervals(predictions):
    """{group: [low, high]} in percent, the 95% percentile interval of each group's score by bootstrap over images; None for no questions."""
    out = {}
    for group in GROUPS:
        chosen = in_group(predictions, group)
        span = (
            interval([p["correct"] for p in chosen], [p["image"] for p in chosen])
            if chosen
            else None
        )
        out[group] = [round(value, 1) for value in span] if span else None
    return out


def mcnemar(only_a, only_b):
    """Exact two-sided McNemar test: how probable so uneven a split of the questions that only one of two runs gets right is by chance."""
    n, k = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def compare(ours, theirs):
    """Two lists of predictions on the same questions, per group: both scores, their difference with its 95% interval by paired
    bootstrap over images, and the exact McNemar test. Differences are ours - theirs, in percent points. Raises UserError.
    """
    other = {p["qid"]: p for p in theirs}
    if (
        len(other) != len(theirs)
        or {p["qid"] for p in ours} != set(other)
        or len(ours) != len(theirs)
        or any(p["truth"] != other[p["qid"]]["truth"] for p in ours)
    ):
        raise UserError(
            f"the two runs did not answer the same questions ({len(ours)} and {len(theirs)}): evaluate both on the same data"
        )
    out = {}
    for group in GROUPS:
        if not (chosen := in_group(ours, group)):
            continue
        a = np.array([p["correct"] for p in chosen])
        b = np.array([other[p["qid"]]["correct"] for p in chosen])
        low, high = interval(a - b, [p["image"] for p in chosen])
        only_a, only_b = int((a > b).sum()), int((b > a).sum())
        out[group] = {
            "count": len(chosen),
            "scores": [round(100 * float(x.mean()), 1) for x in (a, b)],
            "difference": round(100 * float((a - b).mean()), 1),
            "interval": [round(low, 1), round(high, 1)],
            "only first right": only_a,
            "only second right": only_b,
            "mcnemar p": round(mcnemar(only_a, only_b), 4),
        }
    return out


def protocol(predictions, name):
    """The questions that a protocol scores: "freeform" alone, or "all" for freeform + para (DESIGN section 1)."""
    return [p for p in predictions if name == "all" or p["phrase_type"] == "freeform"]


def grouped(predictions):
    """{name: {group: predictions}} by question type (a question with two types is in both), by organ, and by what training has seen.

    `twin`: with a twin, that is, with its own rewording among the official split's "frame" training records (DESIGN section 1:
    the split leaks), against without. `near_identical_in_training`: the same image, answer and nearly the same words in
    the training part that was used. Empty groups are left out.
    """

    def by(keys_of):
        groups = {}
        for prediction in predictions:
            for key in keys_of(prediction):
                groups.setdefault(key, []).append(prediction)
        return dict(sorted(groups.items()))

    return {
        "question_type": by(lambda p: dict.fromkeys(p["question_types"])),
        "organ": by(lambda p: [p["organ"]]),
        "twin": by(lambda p: ["with" if p["twin"] else "without"]),
        "near_identical_in_training": by(
            lambda p: ["yes" if p["near_identical_in_training"] else "no"]
        ),
        "known_answer": by(lambda p: ["yes" if p["known_answer"] else "no"]),
    }


def breakdown(predictions):
    """{name: {group: entry}} of the groups of `grouped`."""
    return {
        name: {key: entry(group) for key, group in groups.items()}
        for name, groups in grouped(predictions).items()
    }


def near_identical(question, training):
    """True if a training question on the same image has the same answer and nearly the same words.

    Nearly the same: the two multisets of words share at least 80% (intersection over union). `question` is a list of words,
    `training` the lists of words of the training questions on the same image with the same answer.
    """
    words = Counter(question)
    for other in training:
        other = Counter(other)
        if sum((words & other).values()) >= 0.8 * sum((words | other).values()):
            return True
    return False


def format_table(results, uncertain):
    """The table that test.py prints: open, closed, all in percent for both protocols, each with its interval, ceiling and counts.

    `results` maps protocol name to `table(...)`, `uncertain` to `intervals(...)`.
    """
    lines = [
        f"{'':18} {'open':>7} {'closed':>7} {'all':>7} {'ceiling':>8}   questions (open, closed)"
    ]
    for name, scores in results.items():
        cells = [f"{scores[group]['score_percent']:>7.1f}" for group in ("OPEN", "CLOSED", "ALL")]
        lines.append(
            f"{name:18} {' '.join(cells)} {scores['ALL']['real_percent']:>8.1f}   {scores['ALL']['count']} "
            f"({scores['OPEN']['count']}, {scores['CLOSED']['count']})"
        )
        spans = [
            f"{span[0]:.0f}-{span[1]:.0f}" if (span := uncertain[name][group]) else ""
            for group in ("OPEN", "CLOSED", "ALL")
        ]
        lines.append(f"{'  95% interval':18} {' '.join(f'{span:>7}' for span in spans)}")
    return "\n".join(lines)


def mean_and_spread(tables):
    """Over the tables of several seeds: {group: {"mean", "spread", "scores"}} in percent, the spread a sample standard deviation."""
    out = {}
    for group in GROUPS:
        values = [100 * one[group]["score"] for one in tables]
        out[group] = {
            "mean": round(float(np.mean(values)), 2),
            "spread": round(float(np.std(values, ddof=1)), 2),
            "scores": [round(value, 2) for value in values],
        }
    return out


def _is_text(value):
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_share(value):
    return type(value) in (int, float) and 0 <= value <= 1


def _is_flag(value):
    return type(value) in (int, bool) and value in (0, 1)


def _are_texts(value):
    return isinstance(value, list) and all(map(_is_text, value))


# What each field of a prediction must be, where it is there.
_FIELDS = {
    "qid": lambda value: type(value) is int,
    "answer_type": lambda value: value in ("OPEN", "CLOSED"),
    "probability": _is_share,
    "top5": lambda value: (
        isinstance(value, list)
        and all(
            isinstance(one, list) and len(one) == 2 and _is_text(one[0]) and _is_share(one[1])
            for one in value
        )
    ),
    **dict.fromkeys(
        (
            "image",
            "truth",
            "phrase_type",
            "question",
            "answer",
            "organ",
            "answer_without_image",
            "answer_without_question",
        ),
        _is_text,
    ),
    **dict.fromkeys(("question_types", "unknown_words"), _are_texts),
    **dict.fromkeys(
        ("correct", "known_answer", "twin", "near_identical_in_training", "image_in_training"),
        _is_flag,
    ),
}


def read_predictions(path):
    """The predictions of a results folder or of a predictions.json. Raises UserError for anything else, and for a newer version's."""
    path = Path(path)
    path = path / "predictions.json" if path.is_dir() else path
    about = read_json(beside) if (beside := path.with_name("results.json")).is_file() else None
    if isinstance(about, dict):
        check_version(about.get("version") or 0, beside)
    rows = read_json(path)
    wanted = {"qid", "image", "truth", "correct", "answer_type", "phrase_type"}
    if (
        not isinstance(rows, list)
        or not rows
        or not all(
            isinstance(row, dict) and wanted <= set(row) and row["correct"] in (0, 1)
            for row in rows
        )
    ):
        raise UserError(
            f"{path} holds no predictions: name a folder that test.py wrote, or its predictions.json"
        )
    for number, row in enumerate(rows):
        if field := next(
            (field for field, good in _FIELDS.items() if field in row and not good(row[field])),
            None,
        ):
            raise UserError(
                f"{path}, prediction {number} (counting from 0): its {field} is not what test.py writes, it is damaged; run ./test.sh again"
            )
    if len({row["qid"] for row in rows}) < len(rows):
        raise UserError(f"{path} has two predictions of one qid; run ./test.sh again")
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Compare two runs on the same questions: paired bootstrap over images, McNemar's test."
    )
    parser.add_argument("A", type=Path, help="results folder, or predictions.json")
    parser.add_argument("B", type=Path, help="the other one")
    args = parser.parse_args(arguments)
    runs = [read_predictions(path) for path in (args.A, args.B)]
    print(
        f"A: {args.A}\nB: {args.B}\n{'':25} {'questions':>9} {'A':>6} {'B':>6} {'A - B':>6}  {'95% interval':>14}  only A, only B right  McNemar p"
    )
    for name, title in PROTOCOLS.items():
        for group, row in compare(*(protocol(rows, name) for rows in runs)).items():
            low, high = row["interval"]
            print(
                f"{title:16} {group.lower():8} {row['count']:>9} {row['scores'][0]:>6.1f} {row['scores'][1]:>6.1f} {row['difference']:>+6.1f}  "
                f"{f'{low:+.1f} to {high:+.1f}':>14}  {row['only first right']:>10}, {row['only second right']:<8} {row['mcnemar p']:>9.4f}"
            )


if __name__ == "__main__":
    run_main(main)
