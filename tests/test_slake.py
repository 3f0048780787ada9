"""SLAKE in its own layout: parts, languages, organs, empty answers, and what is refused."""

import shutil

import pytest
from helpers import error_of, prepare, quiet, shared
from set_folders import slake, slake_record

import dataset_RAD as rad
from readers.sets import read_set
from utils import UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")


@pytest.mark.parametrize("validation", ["validate.json", "validation.json"])
def test_english_by_default(tmp_path, validation):
    lines = []
    data = rad.prepare(slake(tmp_path / "d", validation), log=lines.append)
    assert [q.qid for q in data.train] == [1, 2, 4]
    assert [q.qid for q in data.validation] == [5] and [q.qid for q in data.test] == [7]
    assert [q.organ for q in data.train] == [0, 2, 0] and data.organs and not data.frames
    assert (data.validation[0].organ, data.test[0].organ) == (1, 1)
    # dictionary and answers are those of training alone
    assert data.dictionary == ["what", "modality", "is", "used"]
    assert data.answers == ["mri", "yes"] and data.validation[0].label == -1
    assert data.image_names == [f"xmlab{number}/source.jpg" for number in (1, 2, 3, 4, 6)]
    first, closed, knowledge = data.train
    assert first.modality == "MRI" and first.question_types == ("MODALITY",)
    assert closed.answer_type == "CLOSED" and knowledge.question_types == ("KG",)
    assert data.name == "SLAKE, English" and data.test[0].phrase_type == ""
    assert lines[0] == (
        f"NOTE: {tmp_path}/d/train.json: left out for want of an answer: record 0 (qid 0)"
    )


@pytest.mark.parametrize("answer", [" ", None])
def test_an_answer_of_nothing_is_left_out(tmp_path, answer):
    train = [slake_record(1, 1), slake_record(2, 2, answer=answer)]
    assert [q.qid for q in prepare(slake(tmp_path / "d", train=train)).train] == [1]


def test_a_record_without_a_language_is_english(tmp_path):
    train = [slake_record(1, 1), slake_record(2, 2, q_lang=None), slake_record(3, 3, q_lang="zh")]
    del train[0]["q_lang"]
    assert [q.qid for q in prepare(slake(tmp_path / "d", train=train)).train] == [1, 2]


def test_chinese_on_request(tmp_path):
    folder, english = slake(tmp_path / "d"), prepare(slake(tmp_path / "d"))
    data = rad.prepare(folder, {"language": "zh"}, log=quiet)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1, 1, 1]
    assert data.train[0].words == ("这", "张", "mri", "图", "片", "正", "常", "吗")
    assert data.test[0].label == 0 and data.answers == ["否"]
    assert data.options == data.about()["options"] == {"language": "zh"}
    # each language keeps its own prepared files
    lines = []
    assert rad.prepare(folder, log=lines.append) == english and "Preparing" not in str(lines)
    assert data.digest != english.digest and data.prepared.parent == english.prepared


def test_a_language_that_is_not_there(tmp_path):
    folder = slake(tmp_path / "d", train=[slake_record(1, 1)])
    with pytest.raises(UserError, match="questions in Chinese.: there are no train questions"):
        rad.prepare(folder, {"language": "zh"}, log=quiet)
    with pytest.raises(UserError, match="--language fr: it is one of en, zh"):
        rad.prepare(folder, {"language": "fr"}, log=quiet)


def test_without_a_validation_part_and_with_two(tmp_path):
    folder = slake(tmp_path / "d", validation=None)
    assert prepare(folder).validation == []
    (folder / "prepared").rename(tmp_path / "prepared")
    for name in ("validate.json", "validation.json"):
        (folder / name).write_text("[]")
    assert "holds validate.json and validation.json: take one" in error_of(folder)


def test_other_locations_and_organ_map(tmp_path):
    train = [slake_record(1, 1, location="Knee"), slake_record(2, 2)]
    folder = slake(tmp_path / "d", train=train)
    data = prepare(folder)
    assert not data.organs and (data.train[0].organ, data.train[0].organ_name) == (-1, "KNEE")
    mapping = tmp_path / "map.json"
    mapping.write_text('{"knee": "chest"}')
    data = rad.prepare(folder, {"organ_map": mapping}, log=quiet)
    assert data.organs and data.train[0].organ == 2 and data.test[0].organ == 1
    assert data.options == {"organ_map": {"knee": "CHEST"}}
    mapping.write_text('{"hip": "ABD"}')
    with pytest.raises(UserError, match="unknown image_organ 'Knee'.*--organ_map FILE"):
        rad.prepare(folder, {"organ_map": mapping}, log=quiet)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"img_name": "../../source.jpg"}, "must be a plain file name, or folders of the data"),
        ({"img_name": "xmlab9/source.jpg"}, "xmlab9/source.jpg (missing); looked in"),
        ({"img_name": None}, "'image_name' (1 of 2 records: record 1 (qid 2))"),
        ({"question": ""}, "record 1 (qid 2): the question is empty"),
        ({"answer_type": "MAYBE"}, "must be OPEN or CLOSED"),
        ({"qid": 1}, "qid 1 occurs more than once"),
        ({"answer": ["mri"]}, "the field 'answer' must be text, not list"),
    ],
)
def test_bad_records(tmp_path, changes, words):
    train = [slake_record(1, 1), slake_record(2, 2) | changes]
    assert words in error_of(slake(tmp_path / "d", train=train))


def test_missing_and_damaged_files(tmp_path):
    folder = slake(tmp_path / "d")
    (folder / "test.json").unlink()
    assert "holds SLAKE without test.json: put it there (now it holds imgs" in error_of(folder)
    folder = slake(tmp_path / "e")
    (folder / "train.json").write_bytes((folder / "train.json").read_bytes()[:300])
    assert "train.json is not valid JSON" in error_of(folder)
    folder = slake(tmp_path / "f")
    shutil.rmtree(folder / "imgs")
    (folder / "imgs.zip").touch()
    message = error_of(folder)
    assert "5 of 5 images can't be used: xmlab1/source.jpg (missing)" in message
    assert "imgs.zip: unpack it first" in message
    (tmp_path / "g").mkdir()
    slake(tmp_path / "g" / "Slake1.0")
    assert "the data lie one folder lower" in error_of(tmp_path / "g")


def test_the_real_set(tmp_path):
    folder = tmp_path / "slake"
    folder.mkdir()
    for path in shared("slake").iterdir():
        (folder / path.name).symlink_to(path)
    for language, counts in {"en": (4205, 1053, 713), "zh": (3630, 819, 494)}.items():
        found, _ = read_set(folder, {"language": language}, quiet)
        assert (len(found.train), len(found.validation), len(found.test)) == counts
        assert {r["image_organ"] for r in found.train} == {"ABD", "HEAD", "CHEST"}
