"""PathVQA in its own layout: where its lists lie, names without an ending, what is refused."""

import json
import os
import pickle

import h5py
import pytest
from helpers import error_of, prepare
from set_folders import path_vqa

import dataset_RAD as rad

pytestmark = pytest.mark.usefixtures("no_real_folders")
PLACES = ("qas/{}/{}_qa.json", "qas/{}_qa.json", "{1}.json", "qas/{}/{}_qa.pkl", "QAs/{}_QA.jsonl")


@pytest.mark.parametrize("place", PLACES)
def test_lists_wherever_they_lie(tmp_path, place):
    data = prepare(path_vqa(tmp_path / "d", place))
    assert data.name == "PathVQA" and not data.organs and not data.frames
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [3, 2, 1]
    assert [q.answer for q in data.train] == ["yes", "liver", "in lobe"]
    assert [q.answer_type for q in data.train] == ["CLOSED", "OPEN", "OPEN"]
    first = data.test[0]
    assert first.image_name == "images/test/test_0000.jpg"
    with h5py.File(data.images_path) as file:
        assert (file["images"][first.image] == 120).all()


def test_a_name_with_its_ending_or_another_one(tmp_path):
    """The exact name is taken, and one with another ending where no .jpg is there."""
    asked = {"question": "is it?", "answer": "no"}
    names = [{"image": name} | asked for name in ("train_0000.jpg", "slide", "TRAIN_0001")]
    folder = path_vqa(tmp_path / "d", train=names)
    (folder / "images/train/train_0001.jpg").rename(folder / "images/train/slide.png")
    os.link(folder / "images/train/train_0000.jpg", folder / "images/train/train_0001.bmp")
    assert {q.image_name for q in prepare(folder).train} == {
        *("images/train/train_0000.jpg", "images/train/slide.png", "images/train/train_0001.bmp")
    }


def test_what_is_refused_or_left_out(tmp_path):
    asked = {"image": "train_0000", "question": "is it?", "answer": "no"}

    def message(name, **parts):
        return error_of(path_vqa(tmp_path / name, **parts))

    assert "record 1: it is not an object but list" in message("a", train=[asked, []])
    assert "images/train/gone.jpg (missing" in message("b", train=[asked | {"image": "gone"}])
    assert "'..' and a '/' at the ends" in message("c", train=[asked | {"image": "../../x.jpg"}])
    assert "'image_name' must be text" in message("d", train=[asked, asked | {"image": 3.5}])
    assert "there are no test questions" in message("e", test=[])
    assert "must hold a list of records" in message("f", train={"a": 1})
    lines = []
    folder = path_vqa(tmp_path / "g", train=[asked, asked | {"answer": ""}])
    data = rad.prepare(folder, log=lines.append)
    assert len(data.train) == 1 and any("left out for want of an answer" in line for line in lines)
    (folder / "qas/val/val_qa.json").unlink()
    assert prepare(folder).validation == []


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = path_vqa(tmp_path / "d", "qas/{}_qa.pkl", train=json.dumps("x"))
    (folder / "qas/train_qa.pkl").write_bytes(pickle.dumps([Hostile()]))
    assert "train_qa.pkl" in error_of(folder) and not (tmp_path / "ran").exists()
