"""VQA-Med 2019 in its own layout: categories, parts, encodings, and what is refused."""

import pytest
from helpers import error_of, prepare, quiet, shared
from set_folders import vqa_med, vqa_med_test

import dataset_RAD as rad
from readers.sets import read_set

pytestmark = pytest.mark.usefixtures("no_real_folders")
TRAIN = "ImageClef-2019-VQA-Med-Training"


def test_three_categories_and_the_validation_part_as_test(tmp_path):
    data = prepare(vqa_med(tmp_path / "d"))
    assert [q.qid for q in data.train] == [1, 2, 3, 4, 5, 6] and data.validation == []
    assert [q.question_types for q in data.train[::2]] == [("MODALITY",), ("PLANE",), ("ORGAN",)]
    assert [q.answer for q in data.train[:2]] == ["yes", "mri t1"]
    assert [q.answer_type for q in data.train[:2]] == ["CLOSED", "OPEN"]
    assert [q.answer for q in data.test] == ["no", "axial", "breast"]
    assert [q.label for q in data.test] == [-1, data.answers.index("axial"), -1]
    assert "validation part" in data.name and not data.organs
    assert data.train[1].organ_name == "SKULL AND CONTENTS"
    assert data.image_names[0] == f"{TRAIN}/Train_images/synpic1.jpg"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig"])
def test_abnormality_on_request_in_any_of_the_sets_encodings(tmp_path, encoding):
    options = {"categories": "all"}
    data = rad.prepare(vqa_med(tmp_path / "d", encoding), options, log=quiet)
    assert data.train[-1].raw_answer == "M\u00e9ni\u00e8re's disease"
    assert data.train[-1].question_types == ("ABN",) and data.train[0].words[0] == "is"
    assert (len(data.train), len(data.test)) == (7, 4) and data.options == options


def test_a_test_part_with_answers_leaves_validation_to_choose_the_epoch(tmp_path):
    data = prepare(vqa_med_test(vqa_med(tmp_path / "d")))
    assert [q.answer for q in data.validation] == ["no", "axial", "breast"]
    # of several answers the one that training has, else the first
    assert [q.answer for q in data.test] == ["yes", "sagittal"]
    assert [q.question_types for q in data.test] == [("MODALITY",), ("PLANE",)]
    assert data.test[0].image_name.endswith("VQAMed2019_Test_Images/synpic4.jpg")
    path = next(data.folder.glob("VQAMed2019Test/*.txt"))
    path.write_text(path.read_text().replace("sagittal#side", "#"))
    assert [q.answer for q in prepare(data.folder).test] == ["yes", "#"]


def test_organ_map_takes_the_third_category(tmp_path):
    content = {"Lung": "CHEST", "skull and contents": "HEAD", "breast": "CHEST"}
    data = rad.prepare(vqa_med(tmp_path / "d"), {"organ_map": content}, log=quiet)
    assert data.organs and [q.organ for q in data.train[:2]] == [2, 1]
    # an image without a question on its organ has none
    lists = {"C3_Organ_train": "synpic1|which organ?|lung"}
    data = rad.prepare(vqa_med(tmp_path / "e", changes=lists), {"organ_map": content}, log=quiet)
    assert not data.organs and [q.organ for q in data.train[:2]] == [2, -1]


@pytest.mark.parametrize(
    "text, words",
    [
        ("synpic1|is this", "image|question|answer is wanted in line 1: get the file again"),
        ("synpic1|is it?|no\nsynp", "is wanted in line 2"),
        ("../../x|is it?|no", "must be a plain file name, or folders of the data"),
        ("synpic9|is it?|no", "Train_images/synpic9.jpg (missing)"),
        ("synpic1||no", "the question is empty"),
        ("\0synpic1|is it?|no", "is not text in UTF-8"),
    ],
)
def test_bad_lines(tmp_path, text, words):
    message = error_of(vqa_med(tmp_path / "d", changes={"C1_Modality_train": text}))
    assert words in message and ("C1_Modality_train.txt" in message or "missing" in message)


def test_an_empty_answer_is_left_out_and_said(tmp_path):
    lines, changes = [], {"C1_Modality_train": "synpic1|is it?|\nsynpic1|is it?|no"}
    data = rad.prepare(vqa_med(tmp_path / "d", changes=changes), log=lines.append)
    assert len(data.train) == 5 and "left out for want of an answer: record 0" in lines[0]


def test_missing_files(tmp_path):
    folder = vqa_med(tmp_path / "d")
    (folder / TRAIN / "QAPairsByCategory" / "C2_Plane_train.txt").unlink()
    assert "the train part has no C2_..._train.txt in QAPairsByCategory/" in error_of(folder)
    folder = vqa_med(tmp_path / "e")
    (folder / TRAIN / "Train_images").rename(folder / "pictures.zip")
    message = error_of(folder)
    assert "no folder with the images of the train part, as Train_images/" in message
    assert "packed files: pictures.zip" in message
    folder = vqa_med_test(vqa_med(tmp_path / "g"))
    path = next(folder.glob("*/*Answers.txt"))
    path.write_text("synpic1|colour|is it?|no")
    assert "no line has one of the categories modality, plane" in error_of(folder)
    assert "no train questions" in error_of(
        vqa_med(tmp_path / "f") / "ImageClef-2019-VQA-Med-Validation"
    )


def test_the_real_set(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    for path in shared("vqa_med_2019").iterdir():
        (folder / path.name).symlink_to(path)
    for categories, counts in {"three": (9453, 1482), "all": (12596, 1976)}.items():
        found, _ = read_set(folder, {"categories": categories}, quiet)
        assert (len(found.train), len(found.test)) == counts and len(found.names) == 3645
