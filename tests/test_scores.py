"""Scores, intervals and comparisons against cases counted or computed by hand."""

import json
import math

import numpy as np
import pytest

import scores
from scores import breakdown, entry, format_table, near_identical, protocol, table
from utils import UserError


def prediction(
    correct, answer_type="OPEN", phrase="freeform", known=1, types=("PRES",), organ="HEAD", twin=0
):
    return {
        "correct": correct,
        "answer_type": answer_type,
        "phrase_type": phrase,
        "known_answer": known,
        "question_types": list(types),
        "organ": organ,
        "twin": twin,
        "near_identical_in_training": 0,
    }


FIVE = [
    prediction(1),
    prediction(0, known=0, types=("PRES", "POS")),
    prediction(1, "CLOSED", twin=1),
    prediction(0, "CLOSED", "para"),
    prediction(1, "CLOSED", "para", organ="CHEST", types=("POS", "POS")),
]


def test_table_in_the_official_schema():
    assert table(protocol(FIVE, "freeform")) == {
        "CLOSED": {
            "count": 1,
            "real": 1,
            "true": 1,
            "real_percent": 100.0,
            "score": 1.0,
            "score_percent": 100.0,
        },
        "OPEN": {
            "count": 2,
            "real": 1,
            "true": 1,
            "real_percent": 50.0,
            "score": 0.5,
            "score_percent": 50.0,
        },
        "ALL": {
            "count": 3,
            "real": 2,
            "true": 2,
            "real_percent": 66.7,
            "score": 2 / 3,
            "score_percent": 66.7,
        },
    }
    assert table(protocol(FIVE, "all"))["ALL"] == {
        "count": 5,
        "real": 4,
        "true": 3,
        "real_percent": 80.0,
        "score": 0.6,
        "score_percent": 60.0,
    }


def test_no_questions_score_zero():
    assert entry([]) == {
        "count": 0,
        "real": 0,
        "true": 0,
        "real_percent": 0.0,
        "score": 0.0,
        "score_percent": 0.0,
    }


def test_breakdown():
    groups = breakdown(FIVE)
    assert (
        groups["question_type"]["PRES"]["count"] == 4
        and groups["question_type"]["POS"]["count"] == 2
    )  # two types count in both
    assert groups["question_type"]["POS"]["true"] == 1
    assert groups["organ"]["CHEST"]["true"] == 1 and groups["organ"]["HEAD"]["count"] == 4
    assert groups["twin"]["with"]["count"] == 1 and groups["twin"]["without"]["true"] == 2


def test_near_identical_words():
    training = [("is", "there", "a", "mass"), ("where", "is", "it")]
    assert near_identical(("is", "there", "a", "mass"), training)
    assert near_identical(("is", "there", "a", "mass", "here"), training)  # 4 of 5
    assert not near_identical(("is", "there", "a", "fracture"), training)  # 3 of 5
    assert not near_identical(("is",), [])


def test_printed_table():
    text = format_table(
        {"freeform": table(protocol(FIVE, "freeform"))},
        {"freeform": {"OPEN": [0.0, 100.0], "CLOSED": None, "ALL": [20.4, 99.6]}},
    )
    assert text.splitlines()[1].split() == [
        "freeform",
        "50.0",
        "100.0",
        "66.7",
        "66.7",
        "3",
        "(2,",
        "1)",
    ]
    assert text.splitlines()[2].split() == ["95%", "interval", "0-100", "20-100"]


def questions(correct, per_image, phrase="freeform"):
    """One prediction per entry of `correct`, `per_image` questions on each image."""
    return [
        prediction(int(right), phrase=phrase)
        | {"qid": i, "image": f"{i // per_image}.jpg", "truth": "yes"}
        for i, right in enumerate(correct)
    ]


def test_interval_of_independent_questions_is_the_binomial_one():
    """With one question an image the bootstrap's spread is sqrt(p(1-p)/n)."""
    low, high = scores.intervals(questions([1] * 300 + [0] * 100, 1))["ALL"]
    expected = 196 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(75 - expected, abs=0.6) and high == pytest.approx(
        75 + expected, abs=0.6
    )


def test_interval_draws_images_not_questions():
    """Four questions an image, all right or all wrong: as uncertain as one question an image, twice as wide as if independent."""
    correct = np.repeat([1] * 60 + [0] * 40, 4)
    low, high = scores.intervals(questions(correct, 4))["ALL"]
    assert high - low == pytest.approx(2 * 196 * math.sqrt(0.6 * 0.4 / 100), abs=1.2)
    assert scores.intervals(questions(correct, 4))["CLOSED"] is None


def test_mcnemar_by_hand():
    assert (
        scores.mcnemar(0, 5) == 2 / 32
        and scores.mcnemar(3, 3) == 1.0
        and scores.mcnemar(0, 0) == 1.0
    )
    assert scores.mcnemar(1, 9) == pytest.approx(2 * 11 / 1024) == scores.mcnemar(9, 1)


def test_comparison_is_paired():
    """Two runs that differ on 10 questions only: the interval of the difference is far narrower than either's own."""
    a, b = np.array([1, 0] * 200), np.array([1, 0] * 200)
    b[:20:2] = 0
    row = scores.compare(questions(a, 1), questions(b, 1))["ALL"]
    assert (
        row["difference"] == 2.5 and row["only first right"] == 10 and row["only second right"] == 0
    )
    assert row["mcnemar p"] == pytest.approx(2 / 1024, abs=1e-4)
    spread = 196 * math.sqrt(0.025 * 0.975 / 400)
    assert row["interval"] == pytest.approx([2.5 - spread, 2.5 + spread], abs=0.4)
    assert scores.compare(questions(b, 1), questions(a, 1))["ALL"]["difference"] == -2.5


def test_comparison_wants_the_same_questions():
    with pytest.raises(UserError, match="same questions"):
        scores.compare(questions([1, 0], 1), questions([1, 0, 1], 1))
    with pytest.raises(UserError, match="same questions"):
        scores.compare(
            questions([1, 0], 1), [row | {"truth": "no"} for row in questions([1, 0], 1)]
        )


def test_command_line(tmp_path, capsys):
    for name, correct in (("a", [1, 1, 0, 1]), ("b", [1, 0, 0, 0])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.json").write_text(
            json.dumps(
                questions(correct, 2)
                + [row | {"qid": row["qid"] + 10} for row in questions(correct[:1], 1, "para")]
            )
        )
    scores.main([str(tmp_path / "a"), str(tmp_path / "b" / "predictions.json")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:6] for line in lines if " all " in line] == [
        ["freeform", "all", "4", "75.0", "25.0", "+50.0"],
        ["freeform", "+", "para", "all", "5", "80.0"],
    ]
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="x.json holds no predictions"):
        scores.main([str(tmp_path / "a"), str(tmp_path / "x.json")])
