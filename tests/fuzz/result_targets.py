"""The fuzzer's targets among readers of results: scores, comparisons, the report."""

from readers.results import read_predictions, read_results
from scores import PROTOCOLS, breakdown, intervals, protocol, table
from tests.fuzz.attempt import check
from tests.fuzz.contents import as_json
from tools.compare import compare, format_list, list_runs
from tools.report import make_report
from tools.report_gallery import choose_gallery
from tools.report_tables import calibration, group_tables, score_rows
from utils import VERSION

PREDICTIONS = [
    {
        "qid": qid,
        "image": f"pic{qid % 2}.png",
        "organ": "CHEST",
        "question": "is it?",
        "phrase_type": "freeform",
        "answer_type": kind,
        "truth": "yes",
        "question_types": ["PRES"],
        "answer": answer,
        "probability": 0.75,
        "top5": [["yes", 0.75], ["no", 0.25]],
        "twin": 0,
        "correct": int(answer == "yes"),
        "known_answer": 1,
        "image_in_training": 1,
        "near_identical_in_training": 0,
        "unknown_words": [],
    }
    for qid, answer, kind in ((1, "yes", "CLOSED"), (2, "no", "CLOSED"), (3, "yes", "OPEN"))
]
RESULTS = table(PREDICTIONS) | {
    "version": VERSION,
    "recipe": "paper",
    "changed": {"blocks": 1},
    "data": {"name": "n", "digest": "d", "folder": "/nowhere"},
    "split": "official",
    "model": "CMSA",
    "checkpoint": "run/best.pth",
    "epoch": 1,
    "question_only": False,
    "image_only": False,
    "training_questions": 3,
    "interval95_percent": intervals(PREDICTIONS),
    "evaluated": "2026-11-27T00:05:00+00:00",
    "seconds": 7.5,
    "commit": "590c345",
    "host": "h",
}
SCORED_FILES = {
    "run/predictions.json": as_json(PREDICTIONS),
    "run/results.json": as_json(RESULTS),
    "run/results_all.json": as_json(RESULTS),
}
SETTINGS = {"settings": {"lr": 0.005, "seed": 0}, "command": ["train.py"], "data": {"name": "n"}}
SETTINGS |= {"began": "2026-11-26T23:46:32", "seconds": 60.0, "commit": None, "host": "h"}
ROW = {"loss": 1.0, "train_score": 0.5, "val_score": 0.25, "seconds": 1.0}
RUN_FILES = {
    "run/run.json": as_json(SETTINGS | {"versions": {"torch": "2"}}),
    "run/log.jsonl": b"".join(as_json({"epoch": i} | ROW) + b"\n" for i in range(2)),
}
NEIGHBOUR_FILES = {
    "beside/predictions.json": as_json(PREDICTIONS),
    "beside/results.json": as_json(RESULTS | {"question_only": True}),
}


def run_predictions(folder):
    """Scores and comparison of a results folder, its line in a list, the tables of the report."""
    rows = read_predictions(folder / "run")
    for name in PROTOCOLS:
        compare(protocol(rows, name), protocol(rows, name))
    rows, _ = read_results(folder / "run")
    breakdown(rows), intervals(rows), calibration(rows), choose_gallery(rows)
    score_rows(rows, {}), group_tables(rows, {})
    format_list(list_runs([folder]))


def run_report(folder):
    """The whole page."""
    page = make_report(folder / "run").read_text(encoding="utf-8")
    check("<script>alert(1)" not in page, "text of the data is in the page as it is")
