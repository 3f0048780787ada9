"""The second score: which answers count as equal, against cases judged by hand."""

import json

import pytest
from helpers import shared
from saved_runs import MANY, prediction, save_results

from text_rules import normalise_answer
from tools import equivalent
from tools.report import make_report


def asked(answer, truth, organ="HEAD", kind="PRES"):
    return equivalent.is_equivalent(
        {"truth": truth, "organ": organ, "question_types": [kind]}, answer
    )


@pytest.mark.parametrize(
    "answer, truth, organ, kind, equal",
    [
        ("yes", "yes", "HEAD", "PRES", True),
        ("mri flair", "mr flair", "HEAD", "MODALITY", True),
        ("xray", "chest xray", "CHEST", "MODALITY", True),
        ("xray", "chest xray", "ABD", "MODALITY", False),
        ("xray", "chest radiograph", "CHEST", "ORGAN", False),
        ("with contrast", "contrast", "ABD", "MODALITY", True),
        ("with contrast", "contrast", "ABD", "PRES", False),
        ("brain", "cns", "HEAD", "ORGAN", True),
        ("brain", "cns", "HEAD", "PRES", False),
        ("left side", "on left", "ABD", "POS", True),
        ("right", "right lung", "CHEST", "POS", False),
        ("right upper lobe", "upper right lobe", "CHEST", "POS", True),
        ("right upper lobe", "upper right lobe", "HEAD", "POS", False),
        ("left", "right", "HEAD", "POS", False),
        ("small bowel rectum colon", "rectum colon small bowel", "ABD", "ORGAN", True),
        ("t1", "t2", "HEAD", "MODALITY", False),
    ],
)
def test_cases(answer, truth, organ, kind, equal):
    assert asked(answer, truth, organ, kind) == asked(truth, answer, organ, kind) == equal


def test_the_table_is_well_formed():
    groups = [group for *_, group in equivalent.EQUAL]
    everywhere = [a for organ, kind, group in equivalent.EQUAL if not organ + kind for a in group]
    assert len(everywhere) == len(set(everywhere))  # else "equal" would not be transitive
    assert all(len(group) > 1 and not group & {"yes", "no"} for group in groups)
    assert equivalent.LENGTH["answers"] == len(set().union(*groups)) < 250


def test_all_answers_are_training_answers_in_normal_form():
    records = json.loads(shared("vqa_rad", "trainset.json").read_text())
    slake = json.loads(shared("slake", "train.json").read_text(encoding="utf-8"))
    records += [record for record in slake if record["q_lang"] == "en"]
    answers = {normalise_answer(record["answer"]) for record in records}
    folder = "ImageClef-2019-VQA-Med-Training"
    pairs = shared("vqa_med_2019", folder, "All_QA_Pairs_train.txt").read_text("cp1252")
    answers |= {normalise_answer(line.split("|")[2]) for line in pairs.splitlines() if line}
    table = set().union(*(group for *_, group in equivalent.EQUAL))
    assert table <= answers


def test_scores_and_pairs():
    here = {"organ": "HEAD", "question_types": ["MODALITY"], "answer_type": "OPEN"}
    rows = [prediction(i, 0, "dwi", "mri dwi", **here) for i in range(2)]
    rows += [prediction(2, 0, "t1", "t2", **here), prediction(3, 1, "t2", **here)]
    rows += [prediction(4, 0, "yes", "no")]
    assert equivalent.equivalent_scores(rows) == {"CLOSED": 0.0, "OPEN": 75.0, "ALL": 60.0}
    assert equivalent.equivalent_scores(rows[:4])["CLOSED"] is None
    assert equivalent.equal_pairs(rows) == [(("dwi", "mri dwi"), 2)]
    equivalent.add_equivalent(rows)
    assert [row["equivalent"] for row in rows] == [1, 1, 0, 1, 0]


def test_the_answers_of_equal_meaning_are_named(tmp_path):
    """Older results name none of them; a report that is made anew shows them all the same."""
    equal = {"answer": "dwi", "truth": "mri dwi", "correct": 0}
    rows = [row | (equal if row["qid"] < 2 else {}) for row in MANY]
    page = make_report(save_results(tmp_path / "one", rows)).read_text()
    assert "“dwi” for “mri dwi” (2 times)." in " ".join(page.split())
    assert f"{100 * (sum(row['correct'] for row in rows) + 2) / 200:.1f}</td>" in page
    page = make_report(save_results(tmp_path / "none", MANY)).read_text()
    assert "In this run no further answer counted." in page
