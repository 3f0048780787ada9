"""readers/results.py: good folders, damaged ones, other versions, and logs of killed runs."""

import json

import pytest
from saved_runs import prediction, save_results, save_scored

from readers.results import COMPARED, read_predictions, read_results, read_run, read_scores
from utils import VERSION, UserError

ROWS = [prediction(1), prediction(2, 0)]


def refused(read, *arguments):
    with pytest.raises(UserError) as error:
        read(*arguments)
    return str(error.value)


def test_a_folder_of_test_py(tmp_path):
    folder = save_results(tmp_path, ROWS, epoch=None, changed={"blocks": 1})
    rows, results = read_results(folder)
    assert rows == ROWS == read_predictions(folder) == read_predictions(folder / "predictions.json")
    assert results["epoch"] is None and results["changed"] == {"blocks": 1}


def test_no_results_folder(tmp_path):
    assert "not a results folder: it holds no predictions.json" in refused(read_results, tmp_path)
    (tmp_path / "predictions.json").write_text(json.dumps(ROWS))
    assert "not a results folder: it holds no results.json" in refused(read_results, tmp_path)
    assert read_predictions(tmp_path) == ROWS  # these are enough to compare two runs
    assert "no such file" in refused(read_predictions, tmp_path / "none")


@pytest.mark.parametrize("content", [{"a": 1}, [], 7, [7], None])
def test_no_predictions(content, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert "x.json holds no predictions" in refused(read_predictions, tmp_path / "x.json")


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1, None, "x"])
def test_another_version(version, tmp_path):
    folder = save_results(tmp_path, ROWS, version=version)
    for read in (read_results, read_predictions):
        assert f"results.json is of version {version}, and this program reads" in refused(
            read, folder
        )


@pytest.mark.parametrize("field", COMPARED)
def test_a_field_that_lacks(field, tmp_path):
    rows = [ROWS[0], {key: value for key, value in ROWS[1].items() if key != field}]
    folder = save_results(tmp_path, rows)
    for read in (read_results, read_predictions):
        assert f"prediction 1, counted from 0, lacks {field}" in refused(read, folder)


def test_a_field_that_only_the_report_needs(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "top5"} for row in ROWS]
    folder = save_results(tmp_path, rows)
    assert read_predictions(folder) == rows and "lacks top5" in refused(read_results, folder)


@pytest.mark.parametrize(
    "field, value",
    [
        ("qid", "1"),
        ("qid", True),
        ("image", None),
        ("correct", 2),
        ("correct", "yes"),
        ("answer_type", "BOTH"),
        ("question", ["is it?"]),
        ("answer", "\ud800"),
        ("question_types", "PRES"),
        ("probability", "high"),
        ("probability", float("nan")),
        ("probability", True),
        ("top5", [["yes", 2]]),
        ("top5", [["yes"]]),
        ("top5", {}),
        ("unknown_words", [1]),
        ("answer_without_image", 1),
    ],
)
def test_a_damaged_field(field, value, tmp_path):
    folder = save_results(tmp_path, [ROWS[0], ROWS[1] | {field: value}])
    line = refused(read_results, folder)
    assert f"damaged: prediction 1, counted from 0, has a {field}" in line


def test_two_predictions_of_one_question(tmp_path):
    folder = save_results(tmp_path, [ROWS[0], ROWS[0]])
    assert "two predictions of one qid" in refused(read_predictions, folder)


@pytest.mark.parametrize(
    "field, value",
    [
        ("data", {"name": "x", "digest": "y"}),
        ("data", {"name": "x", "digest": "y", "folder": "a\0b"}),
        ("data", None),
        ("checkpoint", None),
        ("checkpoint", "a\0b"),
        ("recipe", None),
        ("changed", []),
        ("epoch", "3"),
        ("epoch", -1),
        ("model", ["CMSA"]),
        ("split", "other"),
        ("question_only", "no"),
        ("training_questions", 1.5),
    ],
)
def test_damaged_results(field, value, tmp_path):
    folder = save_results(tmp_path, ROWS, **{field: value})
    assert f"results.json is damaged: its {field} is missing" in refused(read_results, folder)


@pytest.mark.parametrize(
    "field, value",
    [
        ("OPEN", None),
        ("ALL", {"count": 2}),
        ("ALL", {"count": 2, "score_percent": 101}),
        ("CLOSED", {"count": "2", "score_percent": 50.0}),
        ("CLOSED", {"count": 2, "score_percent": float("nan")}),
        ("interval95_percent", None),
        ("interval95_percent", {"ALL": [1]}),
        ("interval95_percent", {"ALL": ["1", 2]}),
        ("interval95_percent", {"ALL": None, "CLOSED": None}),
        ("epoch", "3"),
    ],
)
def test_scores_for_a_table(field, value, tmp_path):
    path = save_scored(tmp_path, ROWS) / "results.json"
    good = read_scores(path)
    assert good["ALL"]["score_percent"] == 50.0 and good["interval95_percent"]["OPEN"] is None
    path.write_text(json.dumps(good | {field: value}))
    assert f"damaged: its {field} is missing" in refused(read_scores, path)


def test_results_that_are_no_object(tmp_path):
    save_results(tmp_path, ROWS)
    (tmp_path / "results.json").write_text("[1]")
    for read in (read_results, read_predictions):
        assert "not one that test.py wrote" in refused(read, tmp_path)


def test_the_log_of_a_killed_run(tmp_path):
    """Epochs in order, the later row of one done twice; a cut line or a hostile one is left out."""
    row = {"epoch": 1, "loss": 2.0, "train_score": 0.5}
    lines = [row, row | {"epoch": 0}, row | {"loss": 1.0}, [1], row | {"loss": "x"}]
    lines += [row | {"epoch": 1.5}, row | {"epoch": True}, {"epoch": 2, "loss": 1.0}]
    lines += [row | {"epoch": 3, "loss": value} for value in (float("nan"), 1e300)]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "log.jsonl").write_text(f'{text}\n{"[" * 100_000}\n{{"epoch": 4, "lo')
    assert read_run(tmp_path) == ([row | {"epoch": 0}, row | {"loss": 1.0}], None)
    (tmp_path / "run.json").write_text('{"recipe": "paper"}')
    assert read_run(tmp_path)[1] == {"recipe": "paper"}
    (tmp_path / "run.json").write_text("[]")
    assert "run.json is not one that train.py wrote" in refused(read_run, tmp_path)
    assert read_run(tmp_path / "none") == ([], None)
