"""readers/list_files.py: the official list forms, separators, names and what a list may hold."""

import json

import pytest
from helpers import shared
from organ_folders import mask, picture

from dataset_MTPT import load_organ_set
from readers.list_files import read_list
from readers.organ_lists import read_parts
from utils import UserError


@pytest.fixture
def folder(tmp_path):
    """Eight pictures images/i0.png to i7.png, and a picture with spaces in its name."""
    for i in range(8):
        picture(tmp_path / "brain" / "images" / f"i{i}.png", 20 * i)
    picture(tmp_path / "brain" / "images" / "my scan 1.png", 200)
    return tmp_path / "brain"


def read(folder, text, name="train.txt"):
    """({image's name: target}, what was logged) of a list."""
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(content)
    logged = []
    samples = read_list(folder / name, folder, logged.append)
    return {str(one.image.relative_to(folder)): one.target for one in samples}, logged


def error_of(folder, text, name="train.txt"):
    with pytest.raises(UserError) as caught:
        read(folder, text, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_official_brain_list():
    """image, mask and class: eight slices of three classes, numbered as they are."""
    folder = shared("faults", "official_brain_list") / "brain"
    parts, names = read_parts(folder, log=lambda _: None)
    assert names == ["0", "1", "2"] and parts["val"] == []
    found = [(sample.image.name, sample.target) for sample in parts["train"]]
    assert found == [(f"i{i}.png", i % 3) for i in range(8)]
    one = load_organ_set(folder, "brain", log=lambda _: None)
    assert one.task == "classification" and (len(one.train), len(one.val)) == (6, 2)


def test_a_class_counts_and_its_mask_need_not_be_there(folder):
    """Class numbers from 1, held out without a list: four and one of each class remain."""
    lines = [f"images/i{i}.png masks/i{i}.png {1 + i // 4}\n" for i in range(8)]
    (folder / "train.txt").write_text("".join(lines))
    one = load_organ_set(folder, "brain")
    assert one.task == "classification" and one.classes == ["1", "2"]
    assert len(one.train) == 6 and len(one.val) == 2
    for sample in one.train + one.val:
        assert sample.target == int(sample.image.stem[1:]) // 4
    # the names in classes.txt are those of the numbers 1 and 2
    (folder / "classes.txt").write_text("glioma\nmeningioma\n")
    named = load_organ_set(folder, "brain")
    assert named.classes == ["glioma", "meningioma"] and named.train == one.train


@pytest.mark.parametrize("name, first", [("train", 0), ("train", 1), ("val", 1)])
def test_numbers_of_named_classes_count_from_0_or_1(folder, name, first):
    """Whichever part holds the last number says so for both parts."""
    (folder / "classes.txt").write_text("a\nb\nc\n")
    numbers = {"train": [0, 0, 1, 1], "val": [1]}
    numbers[name] = [*numbers[name], 2]
    images = iter(range(8))
    for part, rows in numbers.items():
        lines = [f"images/i{next(images)}.png {first + row}\n" for row in rows]
        (folder / f"{part}.txt").write_text("".join(lines))
    parts, names = read_parts(folder)
    assert names == ["a", "b", "c"]
    assert {part: [one.target for one in parts[part]] for part in parts} == numbers
    # neither the first nor the last of both counts: then they count from 0
    (folder / "train.txt").write_text("images/i0.png 1\nimages/i1.png 2\n")
    (folder / "val.txt").write_text("images/i2.png 1\n")
    assert [one.target for one in read_parts(folder)[0]["train"]] == [1, 2]


PLAIN = {f"images/i{i}.png": str(i % 2) for i in range(3)}


@pytest.mark.parametrize(
    "text",
    [
        "images/i0.png 0\nimages/i1.png 1\nimages/i2.png 0\n",
        "images/i0.png\t0\nimages/i1.png  1\n  images/i2.png \t 0 \n",
        "images/i0.png m0.png 0\nimages/i1.png\tm1.png\t1\nimages/i2.png\t\t0",
        "images/i0.png\tm0.png 0\nimages/i1.png m1.png\t1\nimages/i2.png\t \t0",
        "\ufeff# chest\r\n\r\nimages/i0.png 0\r\nimages/i1.png 1\r\n \r\nimages/i2.png 0\r\n",
        "images/i0.png 0\r#images/i7.png 1\rimages/i1.png 1\rimages/i2.png 0",
        "./images/i0.png 0\nimages//i1.png 1\nimages/../images/i2.png 0\n",
        "images\\i0.png 0\nimages\\i1.png 1\nimages\\i2.png 0\n",
    ],
)
def test_separators_ends_of_lines_and_comments(folder, text):
    assert read(folder, text) == (PLAIN, [])


@pytest.mark.parametrize("header", ["image mask class", "image\tlabel", "filename, class"])
def test_a_header_is_passed_over_and_said(folder, header):
    lines = [f"{image} {target}" for image, target in PLAIN.items()]
    found, logged = read(folder, "\n".join([header, *lines]))
    assert found == PLAIN and len(logged) == 1
    assert "line 1 is taken for a header" in logged[0]


@pytest.mark.parametrize(
    "prefix", ["brain/", "data/BraTS/", "../brain/", "/home/us/data/brain/", "C:\\data\\brain\\"]
)
def test_a_part_that_all_names_share_may_be_missing(folder, prefix):
    """Names from the folder's parent, of the official code's folders, of another machine."""
    found, logged = read(folder, "".join(f"{prefix}{i} {c}\n" for i, c in PLAIN.items()))
    assert found == PLAIN
    if prefix == "../brain/":  # that is the folder itself
        assert logged == []
    else:
        assert len(logged) == 1 and f"{prefix}images/i0.png is read as {folder}" in logged[0]


def test_images_and_masks_have_prefixes_of_their_own(folder):
    (folder / "masks").mkdir()
    for i in range(3):
        mask(folder, f"i{i}.png", i)
    lines = [f"A/images/i{i}.png B/C/masks/i{i}.png\n" for i in range(3)]
    found, logged = read(folder, "".join(lines))
    assert found == {f"images/i{i}.png": folder / "masks" / f"i{i}.png" for i in range(3)}
    assert len(logged) == 2


def test_no_name_leaves_the_folder(folder):
    """An absolute path may name a file within, one outside is refused though it is there."""
    lines = [f"{folder / image} {target}\n" for image, target in PLAIN.items()]
    assert read(folder, "".join(lines)) == (PLAIN, [])
    assert read(folder, "".join([lines[0], "images/i1.png 1\n", lines[2]])) == (PLAIN, [])
    picture(folder.parent / "secret.png")
    for name in ("../secret.png", str(folder.parent / "secret.png"), "images/../../secret.png"):
        message = error_of(folder, f"images/i0.png 0\n{name} 1\n")
        assert f"train.txt, line 2: {name} leaves the data's folder" in message


def test_names_with_spaces(folder):
    expected = {"images/my scan 1.png": "0", "images/i1.png": "1"}
    for text in (
        "images/my scan 1.png 0\nimages/i1.png 1",
        "images/my scan 1.png a mask.png 0\nimages/i1.png m.png 1",
        "images/my scan 1.png\t0\nimages/i1.png\t1",
    ):
        assert read(folder, text) == (expected, [])
    tabs = read(folder, "images/my scan 1.png\tno tumour\nimages/i1.png\tpituitary tumour")[0]
    assert list(tabs.values()) == ["no tumour", "pituitary tumour"]
    message = error_of(folder, "images/i0.png no tumour\n")
    assert "train.txt, line 1" in message and "a tab where a name has spaces" in message


@pytest.mark.parametrize(
    "line", ["images/i0.png", "images/i0.png,0", "images/i0.png 0 1", "images/i0.png m.png 0 1"]
)
def test_a_line_of_another_form(folder, line):
    message = error_of(folder, f"images/i1.png 1\n{line}\n")
    assert "train.txt, line 2: `image mask`, `image class` or `image mask class`" in message


def test_a_class_is_wanted_behind_the_mask(folder):
    assert "line 1: `image mask`" in error_of(folder, "images/i0.png\t0\tm.png\n")
    assert "masks/m.nii can't be read as a mask" in error_of(folder, "images/i0.png masks/m.nii\n")


def test_all_missing_images_are_named_at_once(folder):
    lines = [f"images/{name}.png 0\n" for name in ("i0", "no", "i1", "none")]
    message = error_of(folder, "".join(lines))
    wanted = "2 files are not there, line 2: 'images/no.png', line 4: 'images/none.png'; names are"
    assert wanted in message and str(folder) in message
    many = [f"images/x{i}.png 0\n" for i in range(500)]
    message = error_of(folder, lines[0] + "".join(many))
    assert "500 files" in message and "and 480 more" in message and len(message) < 1500


def test_a_list_that_is_no_text(folder):
    message = error_of(folder, "images/i0.png 0".encode("utf-16"))
    assert "can't be read as UTF-8 text" in message
    assert "lists no image" in error_of(folder, "\n# nothing\n")


ROWS = [("images/i0.png", "m0.png", 1), ("images/i1.png", "m1.png", 2)]
JSON_FORMS = {
    "rows": ROWS,
    "objects": [dict(zip(("image", "mask", "class"), row)) for row in ROWS],
    "labels": [{"label": row[2], "mask": None, "image": row[0]} for row in ROWS],
    "columns": dict(zip(("image", "mask", "label"), zip(*ROWS))),
    "other order": {"label": [1, 2], "image": [row[0] for row in ROWS]},
}


@pytest.mark.parametrize("form", JSON_FORMS)
def test_json_lists_with_masks_and_classes(folder, form):
    found, logged = read(folder, json.dumps(JSON_FORMS[form]), "train.json")
    assert found == {"images/i0.png": "1", "images/i1.png": "2"} and logged == []


def test_a_json_label_may_be_a_mask(folder):
    """As in the lists of segmentation sets that call the mask a label."""
    (folder / "masks").mkdir()
    mask(folder, "m.png", 1)
    value = {"training": [{"image": "./images/i0.png", "label": "./masks/m.png"}]}
    found, _ = read(folder, json.dumps(value), "train.json")
    assert found == {"images/i0.png": folder / "masks" / "m.png"}


def test_a_json_object_of_other_keys(folder):
    message = error_of(folder, json.dumps([{"img": "images/i0.png", "seg": "m.png"}]), "train.json")
    assert "entry 1" in message and "image" in message and "mask" in message
