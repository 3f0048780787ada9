"""Hugging Face's parquet: columns, parts, pictures within the files, and what is refused."""

import io
import sys
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from helpers import error_of, load, prepare, quiet, shared
from PIL import Image

import dataset_RAD as rad
from utils import ORGAN_CODES, PIP, UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")
needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="pyarrow is not installed")


def png(level):
    """The bytes of a small grey PNG."""
    file = io.BytesIO()
    Image.fromarray(np.full((5, 4), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def row(level, question="Is it dark?", answer="yes", path=None, **fields):
    return {"image": {"bytes": png(level), "path": path}, "question": question} | {
        "answer": answer,
        **fields,
    }


def write(folder, place="data", **parts):
    """A parquet file for each part, named as on Hugging Face."""
    import pyarrow
    import pyarrow.parquet

    (folder / place).mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        path = folder / place / f"{part}-00000-of-00001-0123456789abcdef.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return folder


@needs_pyarrow
@pytest.mark.parametrize("place", ["data", "."])
def test_three_columns(tmp_path, place):
    train = [row(90), row(180, "What is it?", "Liver", "x/a.png "), row(90, answer="no")]
    data = prepare(write(tmp_path / "d", place, train=train, test=[row(180, answer="No")]))
    assert [q.qid for q in data.train + data.test] == [1, 2, 3, 4]
    assert [q.answer_type for q in data.train + data.test] == ["CLOSED", "OPEN", "CLOSED", "CLOSED"]
    assert data.test[0].phrase_type == "" and not data.organs and data.validation == []
    # the same picture is one image, whatever its name and part
    first, second, third = (q.image for q in data.train)
    assert first == third != second == data.test[0].image
    assert data.train[1].image_name == "a.png" and len(data.image_names) == 2
    with h5py.File(data.images_path) as file:
        assert (file["images"][first] == 90).all() and (file["images"][second] == 180).all()


@needs_pyarrow
def test_a_validation_part_and_further_columns(tmp_path):
    more = {"content_type": "Organ", "location": "Head", "modality": "CT", "qid": 0}
    parts = {
        name: [row(100 + number, **more | {"qid": number})]
        for number, name in enumerate(("train", "validation", "test"))
    }
    data = prepare(write(tmp_path / "d", **parts))
    (kept,) = data.validation
    assert (kept.qid, kept.organ, kept.modality, kept.question_types) == (1, 1, "CT", ("ORGAN",))
    assert data.organs and [q.qid for q in data.train + data.test] == [0, 2]


@needs_pyarrow
def test_a_column_with_gaps_is_not_used_and_languages_are_told_apart(tmp_path):
    train = [row(90, location="Head", q_lang="en"), row(91, location=None, q_lang="en")]
    train.append(row(92, "图片", q_lang="zh", location=None))
    test = [row(90, location="Head", q_lang=lang) for lang in (None, "zh")]
    folder = write(tmp_path / "d", train=train, test=test)
    data = rad.prepare(folder, log=(lines := []).append)
    assert not data.organs and len(data.train) == 2 and len(data.image_names) == 2
    assert lines[0] == f"NOTE: {folder}: image_organ is not used: 1 of 3 records lack it"
    assert rad.prepare(folder, {"language": "zh"}, log=quiet).train[0].words == ("图", "片")


@needs_pyarrow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_question_keeps_its_picture(tmp_path, language):
    """The languages name the pictures in different orders, and one picture is empty."""
    levels = {"train": [(100, "zh"), (110, "en"), (100, "en"), (120, "en"), (120, "zh")]}
    levels["test"] = [(150, "zh"), (160, "en"), (150, "en")]
    parts = {
        part: [row(level, path=f"i{level}.png", q_lang=one) for level, one in rows]
        for part, rows in levels.items()
    }
    data = rad.prepare(write(tmp_path / "d", **parts), {"language": language}, log=quiet)
    asked = data.train + data.test
    assert len(asked) == {"en": 5, "zh": 3}[language]
    with h5py.File(data.images_path) as file:
        for question in asked:
            level = int(question.image_name[1:-4])
            assert (file["images"][question.image] == level).all()

    # Hugging Face's own conversion has a folder for each part
    for part in ("train", "test"):
        write(tmp_path / "c", f"default/{part}", x=parts[part])
        path = next((tmp_path / "c" / "default" / part).iterdir())
        path.rename(path.with_name("0000.parquet"))
    converted = rad.prepare(tmp_path / "c", {"language": language}, log=quiet)
    assert converted.train == data.train

    parts["train"][1]["image"]["bytes"] = b""
    if language == "en":
        assert "'image_name' (1 of 3 records: record 0)" in error_of(write(tmp_path / "e", **parts))


@needs_pyarrow
def test_locations_and_the_language_of_slake(tmp_path):
    train = [row(90, location="Lung"), row(180, location="Brain_Tissue")]
    folder = write(tmp_path / "d", train=train, test=[row(70, location="Pelvic Cavity")])
    data = prepare(folder)
    assert [ORGAN_CODES[q.organ] for q in data.train + data.test] == ["CHEST", "HEAD", "ABD"]
    # no column says that a question is Chinese
    with pytest.raises(UserError, match="in Chinese.*no train and no test questions"):
        rad.prepare(folder, {"language": "zh"}, log=quiet)
    (folder / "data" / "._train-0.parquet").write_bytes(b"Mac OS X")
    assert prepare(folder).digest == data.digest


@needs_pyarrow
def test_names_of_files_in_place_of_pictures(tmp_path):
    rows = [{"image": "a/x.png", "question": "is it?", "answer": "yes"}]
    folder = write(tmp_path / "d", train=rows, test=rows)
    assert "a/x.png (missing)" in error_of(folder)
    (folder / "images" / "a").mkdir(parents=True)
    (folder / "images" / "a" / "x.png").write_bytes(png(70))
    assert prepare(folder).image_names == ["a/x.png"]


@needs_pyarrow
def test_vqa_rad_gives_the_answers_of_its_own_form(tmp_path, development):
    """The records of the development split, as flaviagiammarino/vqa-rad has them."""
    folder, wanted = shared("vqa_rad", "images"), {}
    parts = {"train": load("vqa_rad", "trainset.json"), "test": load("vqa_rad", "testset.json")}
    rows = {}
    for part, records in parts.items():
        chosen = [one for one in records if one["phrase_type"] != "frame"][:60]
        rows[part] = [
            {
                "image": {"bytes": (folder / one["image_name"]).read_bytes(), "path": None},
                "question": one["question"],
                "answer": str(one["answer"]),
            }
            for one in chosen
        ]
        wanted[part] = [one["qid"] for one in chosen]
    data = prepare(write(tmp_path / "d", **rows))
    for part, qids in wanted.items():
        ours = {q.qid: q for q in getattr(development, part)}
        theirs = getattr(data, part)
        assert len(theirs) == len(qids) == 60
        for qid, q in zip(qids, theirs):
            assert (q.answer, q.words) == (ours[qid].answer, ours[qid].words)
            assert q.answer_type == ("CLOSED" if q.answer in ("yes", "no") else "OPEN")
    one, other = data.train[0], {q.qid: q for q in development.train}[wanted["train"][0]]
    with h5py.File(data.images_path) as a, h5py.File(development.images_path) as b:
        assert (a["images"][one.image] == b["images"][other.image]).all()


@needs_pyarrow
def test_bad_files_and_rows(tmp_path):
    good = {"train": [row(90)], "test": [row(91)]}
    folder = write(tmp_path / "a", train=good["train"])
    assert "there are no test questions" in error_of(folder)
    folder = write(tmp_path / "b", **good)
    path = next((folder / "data").glob("train*"))
    path.write_bytes(path.read_bytes()[:-40])
    assert f"{path} can't be read as parquet" in error_of(folder)
    path.rename(path.with_name("part-0.parquet"))
    assert "part-0.parquet: train, validation or test is wanted" in error_of(folder)
    rows = [{"picture": 1, "question": "is it?", "reply": "no"}]
    folder = write(tmp_path / "c", train=rows, test=rows)
    assert "has no column image, answer; it has picture, question, reply" in error_of(folder)
    damaged = row(90) | {"image": {"bytes": b"no picture", "path": "x.png"}}
    folder = write(tmp_path / "d", train=[row(90), damaged], test=[row(91)])
    assert "1 of 3 images can't be used: x.png (damaged" in error_of(folder)
    none = row(90) | {"image": {"bytes": None, "path": None}}
    folder = write(tmp_path / "e", train=[row(90), none], test=[row(91)])
    assert "fields are missing: 'image_name' (1 of 2 records: record 1" in error_of(folder)
    none = row(90) | {"image": {"bytes": None, "path": "1.png"}}
    folder = write(tmp_path / "f", train=[row(90), none], test=[row(91)])
    assert "fields are missing: 'image_name' (1 of 2 records: record 1" in error_of(folder)


@needs_pyarrow
@pytest.mark.parametrize("answer", ["", None])
def test_an_empty_answer_is_left_out_and_said(tmp_path, answer):
    lines = []
    train = [row(90), row(91, answer=answer)]
    data = rad.prepare(write(tmp_path / "d", train=train, test=[row(92)]), log=lines.append)
    assert len(data.train) == 1 and len(data.image_names) == 2
    assert "left out for want of an answer: record 1 (qid 2)" in lines[0]


def test_without_pyarrow_one_line_says_so(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert error_of(tmp_path) == f"this needs pyarrow, which is missing: {PIP} pyarrow"
