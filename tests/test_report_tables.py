"""The numbers of the report against cases counted by hand."""

from typing import NamedTuple

import pytest
from saved_runs import MANY, prediction

from scores import breakdown
from tools import report_tables
from utils import ORGAN_CODES


class Asked(NamedTuple):
    """A training question, as far as the majority baseline looks."""

    answer: str
    question_types: tuple
    answer_type: str = "CLOSED"


def test_calibration():
    cases = ((1, 1, 0.05), (2, 1, 0.95), (3, 0, 0.91), (4, 1, 1.0))
    rows = [prediction(qid, correct, probability=p) for qid, correct, p in cases]
    table = report_tables.calibration(rows)
    assert [row["count"] for row in table["bins"]] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    last, empty = table["bins"][9], table["bins"][3]
    assert last["confidence"] == pytest.approx(2.86 / 3)
    assert last["accuracy"] == pytest.approx(2 / 3)
    assert table["ece"] == pytest.approx(0.25 * 0.95 + 0.75 * (2.86 - 2) / 3)
    assert empty["accuracy"] is None and (empty["low"], empty["high"]) == (0.3, 0.4)


def test_yes_no_confusion():
    rows = [
        prediction(1),
        prediction(2),
        prediction(3, 0, "no"),
        prediction(4, 0, "left", "yes"),
        prediction(5, 0, "yes", "no"),
        prediction(6, 1, "right lung"),
    ]
    assert report_tables.yes_no_confusion(rows) == {
        "yes": {"yes": 2, "no": 1, "other": 1},
        "no": {"yes": 1, "no": 0, "other": 0},
    }


def test_a_truth_that_no_question_has():
    rows = [prediction(1), prediction(2, 0, "left", "right")]
    assert report_tables.yes_no_confusion(rows) == {"yes": {"yes": 1, "no": 0, "other": 0}}
    assert report_tables.yes_no_confusion(rows[1:]) == {}


def test_overfitting():
    scores = ((0.25, 0.5), (0.5, 0.625), (0.75, 0.5), (0.875, None))
    log = [
        {"epoch": epoch, "train_score": training} | ({"val_score": val} if val else {})
        for epoch, (training, val) in enumerate(scores)
    ]
    best = {"best": 62.5, "best_epoch": 1}
    late = {"epoch": 2, "training": 75.0, "validation": 50.0, "ahead": 25.0}
    first = {"epoch": 0, "training": 25.0, "validation": 50.0, "ahead": -25.0}
    assert report_tables.overfitting(log, 0) == first | best
    for epoch in (2, 3, None):  # of an epoch without validation, or an unknown one: the last
        assert report_tables.overfitting(log, epoch) == late | best
    assert report_tables.overfitting(log[3:], 3) is None


def test_every_type_is_explained_in_a_sentence():
    assert sorted(report_tables.TYPES) == (
        "ABN ATTRIB COLOR COUNT MODALITY ORGAN OTHER PLANE POS PRES SIZE".split()
    )
    assert all(sentence[-1] in "?." for _, sentence in report_tables.TYPES.values())


def test_majority_baseline():
    training = [
        Asked("no", ("PRES",)),
        Asked("yes", ("PRES",)),
        Asked("yes", ("PRES",)),
        Asked("left", ("POS",), "OPEN"),
        Asked("no", ("POS", "PRES")),
        Asked("big", ("SIZE",), "OPEN"),
        Asked("big", ("SIZE",), "OPEN"),
    ]
    rows = [
        prediction(1, 0, "no", "yes"),  # PRES, closed: yes
        prediction(2, 0, "x", "y", question_types=["PRES", "POS"]),  # exactly these two types: no
        prediction(3, 0, "x", "left", "OPEN", question_types=["POS"]),
        # not seen together: one of them
        prediction(4, 0, "x", "y", "OPEN", question_types=["SIZE", "POS"]),
        # not seen: any open question
        prediction(5, 0, "x", "y", "OPEN", question_types=["COLOR"]),
    ]
    guessed = report_tables.majority_baseline(training, rows)
    assert [row["answer"] for row in guessed] == ["yes", "no", "left", "big", "big"]
    assert [row["correct"] for row in guessed] == [1, 0, 1, 0, 0] and rows[0]["answer"] == "no"
    # equally frequent: the first
    assert report_tables.majority_baseline(training[:2], rows[:1])[0]["answer"] == "no"


def test_groups_are_those_of_the_scores():
    theirs = [{key: one["count"] for key, one in part.items()} for part in breakdown(MANY).values()]
    found = report_tables.groups(MANY)
    ours = [{key: len(rows) for key, rows in group.items()} for group in found.values()]
    assert [sorted(part.values()) for part in ours] == [sorted(part.values()) for part in theirs]
    assert ours[0] == theirs[0] and set(found["Organ"]) == {"abdomen", "head", "chest"}


def test_tables():
    """Each protocol's lines, few questions without interval, and the baselines beside them."""
    baselines = {"wrong": [row | {"correct": 0} for row in MANY]}
    lines = report_tables.score_rows(MANY, baselines)
    freeform = [row for row in MANY if row["phrase_type"] == "freeform"]
    assert [line["count"] for line in lines] == [0, len(freeform), len(freeform), 0, 200, 200]
    assert lines[0]["interval"] is None and lines[2]["baselines"] == [0.0]
    assert lines[0]["equivalent"] is None
    assert lines[2]["equivalent"] == lines[2]["score_percent"]  # yes and no are equal to nothing
    low, high = lines[5]["interval"]
    assert low < lines[5]["score_percent"] < high
    tables = report_tables.group_tables(MANY, baselines)
    organs = {line["group"]: line for line in tables["Organ"]}
    for index, title in enumerate(("abdomen", "head", "chest")):
        count = sum(row["organ"] == ORGAN_CODES[index] for row in MANY)
        assert organs[title]["protocols"][1]["count"] == count
        assert organs[title]["baselines"] == [0.0]
