"""Records: the public form's conversion, and every fault in one clear line."""

import json
from collections import Counter

import pytest
from helpers import error_of, load, prepare, processed, record

from readers.records import FIELDS, PUBLIC_JSON, convert_public, question_types

pytestmark = pytest.mark.usefixtures("no_real_folders")


def content(record):
    """A record without its qid."""
    return tuple(str(record[field]) for field in FIELDS[1:])


def test_public_form_converts_to_the_processed_one():
    train, test = convert_public(load("vqa_rad_public", PUBLIC_JSON))
    assert len(train) == 2329 and len(test) == 451
    assert sum(r["phrase_type"] == "frame" for r in train) == 983
    assert Counter(map(content, test)) == Counter(map(content, load("vqa_rad", "testset.json")))
    known = load("vqa_rad", "trainset.json")
    ours, theirs = (
        Counter(content(r) for r in records if r["phrase_type"] != "frame")
        for records in (train, known)
    )
    assert ours == theirs
    # the frame records of the absent official test records are there in the processed form alone
    assert not Counter(map(content, train)) - Counter(map(content, known))
    for records in (train, test):
        assert [r["qid"] for r in records] == sorted(r["qid"] for r in records)


@pytest.mark.parametrize(
    "text, types",
    [
        ("PRES", ("PRES",)),
        ("PRES, ATTRIB", ("PRES", "ATTRIB")),
        ("PRSE, Atrib, Other", ("PRES", "ATTRIB", "OTHER")),
        ("ATRIB, ATTRIB", ("ATTRIB",)),
        (" , ", ("OTHER",)),
        ("new", ("NEW",)),
    ],
)
def test_question_types(text, types):
    assert question_types(text) == types


BAD_RECORDS = [
    ({"answer": None}, ["record 1 ", "qid 4", "'answer'"]),
    ({"image_name": "../x.jpg"}, ["record 1 ", "../x.jpg"]),
    ({"image_name": "a/b.jpg"}, ["a/b.jpg"]),
    ({"image_name": "a\\b.jpg"}, ["a/b.jpg (missing)"]),
    ({"image_name": "C:\\b.jpg"}, ["file name"]),
    ({"image_name": ""}, ["file name"]),
    ({"image_organ": "FOOT"}, ["FOOT", "ABD, HEAD, CHEST"]),
    ({"answer_type": "MAYBE"}, ["MAYBE", "OPEN or CLOSED"]),
    ({"question": "  "}, ["question is empty"]),
    ({"question": "??"}, ["question is empty"]),
    ({"question": "a" * 10_001}, ["'question'", "10,001 characters"]),
    ({"qid": 1}, ["qid 1 ", "more than once"]),
    ({"qid": 3}, ["qid 3 ", "more than once"]),
    ({"qid": "x"}, ["whole number"]),
    ({"qid": True}, ["whole number"]),
    ({"qid": 1.5}, ["whole number"]),
    ({"qid": [1]}, ["whole number"]),
    ({"phrase_type": "other"}, ["phrase_type"]),
    ({"answer": ["a"]}, ["'answer'", "list"]),
    ({"answer": True}, ["'answer'", "bool"]),
    ({"question": 3}, ["'question'", "int"]),
    ({"question": "\ud800 a"}, ["'question'"]),
    ({"image_name": "n" * 300 + ".jpg"}, ["nnn", "missing"]),
]


@pytest.mark.parametrize("change, words", BAD_RECORDS)
def test_bad_records(tmp_path, change, words):
    message = error_of(processed(tmp_path / "d", train=[record(1), record(4) | change]))
    for word in words:
        assert word in message


def test_all_missing_fields_of_all_records_are_named_at_once(tmp_path):
    bad, worse = record(4), record(5, answer=None)
    del bad["question_type"], worse["question_type"]
    bad["Question Type"] = "PRES"
    test = [{"question_id": 7, "image": "i0.jpg", "question": "is it?", "answer": "no"}] * 30
    message = error_of(processed(tmp_path / "d", [record(1), bad, worse], test))
    train, test = message.split("testset.json")
    assert "trainset.json: fields are missing: " in train
    assert "'answer' (1 of 3 records: record 2 (qid 5))" in train
    assert "'question_type' (2 of 3 records: record 1 (qid 4), record 2 (qid 5))" in train
    assert "'Question Type' may be 'question_type'" in train
    missing = "'qid', 'image_name', 'image_organ', 'answer_type', 'question_type', 'phrase_type'"
    assert f"{missing} (all 30 records)" in test
    assert "'question_id' may be 'qid'" in test and "'image' may be 'image_name'" in test
    assert "data_RAD/README.md has a table" in test


def test_all_bad_records_are_named_at_once(tmp_path):
    train = [record(i, answer="") for i in range(10, 40)] + [record(1), record(2, answer=" \t")]
    train += [record(3, image_organ="FOOT"), 5]
    message = error_of(processed(tmp_path / "d", train, [record(50, answer_type="MAYBE")]))
    assert "record 0 (qid 10), record 1 (qid 11)" in message and "record 19 (qid 29)" in message
    assert "and 11 more: the answer is empty" in message and "record 20" not in message
    assert "record 32 (qid 3): unknown image_organ 'FOOT'" in message
    assert "record 33: it is not an object but int" in message
    assert "testset.json, record 0 (qid 50): answer_type 'MAYBE'" in message
    organs = [record(i, image_organ=f"part{i}") for i in range(1000)]
    message = error_of(processed(tmp_path / "e", organs))
    assert "'part7'" in message and "and 992 other faults" in message


@pytest.mark.parametrize(
    "answer, words",
    [
        (float("nan"), "'answer' is NaN"),
        (float("inf"), "'answer' is Infinity"),
        ("nan", "missing value"),
        (" NaN ", "missing value"),
        ("\u3000\u200b", "leave nothing of the answer"),
        ("?", "leave nothing of the answer '?'"),
        ("The", "leave nothing of the answer 'The'"),
    ],
)
def test_what_is_no_answer_is_refused(tmp_path, answer, words):
    message = error_of(processed(tmp_path / "d", test=[record(3), record(5, answer=answer)]))
    assert words in message and "testset.json, record 1 (qid 5)" in message


@pytest.mark.parametrize("answer", [0, 4.5, "0", "none", "null", "n/a", "Nantes"])
def test_answers_that_only_look_empty_are_taken(tmp_path, answer):
    data = prepare(processed(tmp_path / "d", test=[record(3, answer=answer)]))
    assert data.test[0].raw_answer == str(answer)


def test_nan_in_another_field_is_named(tmp_path):
    train = [record(1, question_type=float("nan")), record(2)]
    message = error_of(processed(tmp_path / "d", train))
    assert "record 0 (qid 1): the field 'question_type' is NaN" in message


def test_json_lines_load_as_the_list_does(tmp_path):
    listed = prepare(processed(tmp_path / "a"))
    folder = processed(tmp_path / "b")
    rows = json.loads((folder / "trainset.json").read_text())
    text = "\r\n".join(json.dumps(row) for row in rows)
    (folder / "trainset.json").write_text(f"\ufeff{text}\r\n\n", encoding="utf-8")
    test = json.loads((folder / "testset.json").read_text())[0]  # one line, and another ending
    (folder / "testset.json").unlink()
    (folder / "testset.jsonl").write_text(json.dumps(test))
    lines = prepare(folder)
    assert lines.train == listed.train and lines.test == listed.test


def test_both_files_in_another_encoding_are_named_at_once(tmp_path):
    folder = processed(tmp_path / "d")
    for name in ("trainset.json", "testset.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text, encoding="utf-16")
    message = error_of(folder)
    assert message.count("its encoding is UTF-16") == 2


def test_a_list_within_an_object_is_named(tmp_path):
    folder = processed(tmp_path / "d")
    (folder / "trainset.json").write_text('{"version": 1, "questions": [1]}')
    message = error_of(folder)
    assert "list of records, not an object with the keys version, questions" in message


@pytest.mark.parametrize(
    "text, words",
    [
        ('[{"qid": 1,', "not valid JSON"),
        ("{}", "list of records"),
        ("[3]", "record 0"),
        ("[]", "no training"),
        ("", "not valid JSON"),
        ("\xff", "not valid JSON"),
    ],
)
def test_bad_json(tmp_path, text, words):
    folder = processed(tmp_path / "d")
    (folder / "trainset.json").write_text(text, encoding="latin1")
    assert words in error_of(folder)


def test_empty_test_part_and_missing_pieces(tmp_path):
    assert "no test questions" in error_of(processed(tmp_path / "a", test=[]))
    frame = [record(3, phrase_type="frame")]
    assert "frame" in error_of(processed(tmp_path / "b", test=frame))
    folder = processed(tmp_path / "c")
    (folder / "testset.json").unlink()
    assert "testset.json" in error_of(folder)
