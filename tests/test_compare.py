"""tools/compare.py: two runs on the same questions, against numbers computed by hand."""

import json
import math
import os

import numpy as np
import pytest
from saved_runs import prediction, save_results, save_scored

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


def rows_of(closed, opened, phrase="freeform", first=0):
    """Predictions that are right or wrong as the two lists say."""
    kinds = [("CLOSED", right) for right in closed] + [("OPEN", right) for right in opened]
    return [
        prediction(qid, right, answer_type=kind, phrase_type=phrase, truth="yes")
        for qid, (kind, right) in enumerate(kinds, first)
    ]


def test_several_runs_are_compared_with_the_first(tmp_path, capsys):
    closed = [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]
    paths = [
        str(save_results(tmp_path / name, rows_of(right, [1, 0]) + rows_of([], [1], "para", 9)))
        for name, right in zip("abc", closed)
    ]
    scores.main(paths)
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert lines[:3] == [["A:", paths[0]], ["B:", paths[1]], ["C:", paths[2]]]
    found = [(line[0], line[1], line[2], line[3], line[7]) for line in lines[5:8]]
    assert found == [
        ("freeform", "A", "6", "50.0", "75.0"),
        ("freeform", "B", "6", "50.0", "50.0"),
        ("freeform", "C", "6", "50.0", "25.0"),
    ]
    differences = [line[:6] for line in lines if line[:2] == ["freeform", "closed"]]
    assert differences == [
        ["freeform", "closed", "4", "75.0", "50.0", "+25.0"],
        ["freeform", "closed", "4", "75.0", "25.0", "+50.0"],
    ]
    scores.main([*paths, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [run["path"] for run in found["runs"]] == paths
    every = found["runs"][1]["scores"]["freeform + para"]["ALL"]
    assert every["count"] == 7 and every["score_percent"] == pytest.approx(400 / 7, abs=0.05)
    assert [(one["first"], one["second"]) for one in found["differences"]] == [
        (paths[0], paths[1]),
        (paths[0], paths[2]),
    ]
    row = found["differences"][1]["freeform"]["CLOSED"]
    assert (row["only first right"], row["only second right"]) == (3, 1)
    assert row["mcnemar p"] == pytest.approx(10 / 16)


def test_one_run_alone_has_its_scores(tmp_path, capsys):
    scores.main([str(save_results(tmp_path / "a", rows_of([1, 0], [])))])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[3].split()[:4] == ["freeform", "A", "2", "-"]


def test_the_runs_that_differ_are_named(tmp_path):
    paths = [
        save_results(tmp_path / name, rows_of(right, []))
        for name, right in (("a", [1]), ("b", [1]), ("c", [1, 1]))
    ]
    with pytest.raises(UserError, match=r"/a and .*/c: the two runs did not answer the same"):
        scores.main(list(map(str, paths)))


def test_a_list_of_all_runs(tmp_path, capsys, monkeypatch):
    """The newest evaluation stands last; other folders and damaged runs do not stop the list."""
    rows = rows_of([1, 1, 1, 0], [1, 0]) + rows_of([], [0, 0], "para", 9)
    results = tmp_path / "results"
    about = {"changed": {"blocks": 1}, "recipe": "tuned", "epoch": None, "question_only": True}
    times = {"x": 3000, "below/y": 2000, "old": 500}  # of the files
    save_scored(results / "x", rows, evaluated="1970-01-01T00:20:00+00:00", **about)
    save_scored(results / "below" / "y", rows, evaluated=7)
    save_scored(results / "old", rows, version=4)
    save_scored(tmp_path / "elsewhere", rows, epoch=12, image_only=True)
    (results / "link").symlink_to(tmp_path / "elsewhere")
    for name, time in (times | {"link": 1000}).items():
        os.utime(results / name / "results.json", (time, time))
    (results / "MTPT").mkdir()
    (results / "MTPT" / "results.json").write_text("{}")
    scores.main([str(results)])
    _, head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split()[:7] == ["run", *2 * ["open", "closed", "all,", "95%"]][:7]
    assert [line.split()[0] for line in lines] == [
        str(results / name) for name in ("link", "x", "below/y")
    ]
    assert last.startswith("left out: ") and "old/results.json is of version 4" in last
    cells = lines[1].split()
    assert cells[1:4] == ["50.0", "75.0", "66.7"] and cells[5:8] == ["25.0", "75.0", "50.0"]
    assert cells[9] == "-" and cells[-4:] == ["tuned,", "changed:", "blocks", "1"]
    assert "CMSA, question only" in lines[1] and "CMSA, image only" in lines[0]
    assert "  epoch, from 1  " in head and "  13  " in lines[0]
    scores.main([str(results), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [run["epoch"] for run in found["runs"]] == [12, None, 3]
    assert list(found["left out"]) == [str(results / "old")]
    assert found["runs"][1]["scores"]["freeform"]["CLOSED"]["count"] == 4
    # without an argument: those of the repository
    monkeypatch.setattr("tools.compare.HERE", tmp_path)
    monkeypatch.chdir(tmp_path)
    scores.main([])
    assert "\nresults/below/y " in capsys.readouterr().out


def test_no_run_to_list(tmp_path):
    with pytest.raises(UserError, match="no run below"):
        scores.main([str(tmp_path)])
    with pytest.raises(UserError, match="no such file: .*none"):
        scores.main([str(tmp_path / "none")])
    save_results(tmp_path / "a", rows_of([1], []))  # results_all.json and the scores are missing
    with pytest.raises(UserError, match="its CLOSED is missing"):
        scores.main([str(tmp_path)])
