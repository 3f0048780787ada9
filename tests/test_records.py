"""Records: the public form's conversion, and every fault in one clear line."""

from collections import Counter

import pytest
from helpers import error_of, load, processed, record

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
    ({"image_name": "a\\b.jpg"}, ["file name"]),
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


def test_missing_field_is_named(tmp_path):
    bad = record(4)
    del bad["question_type"]
    message = error_of(processed(tmp_path / "d", train=[record(1), bad]))
    where = "trainset.json, record 1 (counting from 0, qid 4)"
    assert f"{where} lacks the field 'question_type'" in message


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
    assert "no such folder" in error_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    message = error_of(tmp_path / "empty")
    for name in (PUBLIC_JSON, "trainset.json", "dictionary.pkl", "--RAD_dir"):
        assert name in message
    folder = processed(tmp_path / "c")
    (folder / "testset.json").unlink()
    assert "testset.json" in error_of(folder)
