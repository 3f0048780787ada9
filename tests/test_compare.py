"""tools/compare.py: two runs on the same questions, against numbers computed by hand."""

import json
import math

import numpy as np
import pytest

import scores
from tools.compare import compare, mcnemar
from utils import UserError


def questions(correct, per_image, phrase="freeform"):
    """One prediction for each entry of `correct`, `per_image` of them on each image."""
    return [
        {
            "qid": i,
            "image": f"{i // per_image}.jpg",
            "truth": "yes",
            "correct": int(right),
            "answer_type": "OPEN",
            "phrase_type": phrase,
        }
        for i, right in enumerate(correct)
    ]


def test_mcnemar_by_hand():
    assert mcnemar(0, 5) == 2 / 32 and mcnemar(3, 3) == 1.0 and mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 1024) == mcnemar(9, 1)


def test_comparison_is_paired():
    """Two runs that differ on 10 questions only.

    The interval of the difference is far narrower than either run's own.
    """
    a, b = np.array([1, 0] * 200), np.array([1, 0] * 200)
    b[:20:2] = 0
    row = compare(questions(a, 1), questions(b, 1))["ALL"]
    assert row["difference"] == 2.5
    assert (row["only first right"], row["only second right"]) == (10, 0)
    assert row["mcnemar p"] == pytest.approx(2 / 1024, abs=1e-4)
    spread = 196 * math.sqrt(0.025 * 0.975 / 400)
    assert row["interval"] == pytest.approx([2.5 - spread, 2.5 + spread], abs=0.4)
    assert compare(questions(b, 1), questions(a, 1))["ALL"]["difference"] == -2.5
    # the order of the rows does not matter
    assert compare(questions(a, 1), questions(b, 1)[::-1])["ALL"] == row


def test_comparison_wants_the_same_questions():
    two = questions([1, 0], 1)
    others = (questions([1, 0, 1], 1), [row | {"truth": "no"} for row in two], [*two, two[0]])
    for other in others:
        with pytest.raises(UserError, match="same questions"):
            compare(two, other)


def test_command_line(tmp_path, capsys):
    """`python scores.py A B`: folders or files, both protocols."""
    for name, correct in (("a", [1, 1, 0, 1]), ("b", [1, 0, 0, 0])):
        paras = [row | {"qid": row["qid"] + 10} for row in questions(correct[:1], 1, "para")]
        (tmp_path / name).mkdir()
        text = json.dumps(questions(correct, 2) + paras)
        (tmp_path / name / "predictions.json").write_text(text)
    scores.main([str(tmp_path / "a"), str(tmp_path / "b" / "predictions.json")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:6] for line in lines if " all " in line] == [
        ["freeform", "all", "4", "75.0", "25.0", "+50.0"],
        ["freeform", "+", "para", "all", "5", "80.0"],
    ]
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="x.json holds no predictions"):
        scores.main([str(tmp_path / "a"), str(tmp_path / "x.json")])
