"""readers/organ_lists.py: every form is read, every bad file gets one line that names it."""

import json
import shutil

import numpy as np
import pytest
from organ_folders import mask, picture, write_list
from PIL import Image
from torchvision.datasets import ImageFolder

from dataset_MTPT import load_organ_set
from utils import UserError

NAMES = ("tumour", "normal")


def error_of(folder):
    """The one-line message of a set that can't be used."""
    with pytest.raises(UserError) as error:
        load_organ_set(folder, folder.name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_lists_with_masks(abdomen):
    one = load_organ_set(abdomen, "abdomen")
    assert one.task == "segmentation" and not one.phantom
    assert one.classes == ["background", "class 1", "class 2"]
    assert [len(one.train), len(one.val)] == [4, 2]
    assert one.val[0].target == abdomen / "masks" / "4.png"
    (abdomen / "classes.txt").write_text("background\nliver\nspleen\nkidney\n")
    classes = load_organ_set(abdomen, "abdomen").classes
    assert classes == ["background", "liver", "spleen", "kidney"]


@pytest.mark.parametrize("form", ["pairs", "objects", "mapping", "wrapped", "columns"])
def test_json_lists_are_the_same(abdomen, form):
    expected = load_organ_set(abdomen, "abdomen")
    for part in ("train", "val"):
        pairs = [line.split() for line in (abdomen / f"{part}.txt").read_text().splitlines()]
        images, masks = zip(*pairs)
        value = {
            "pairs": pairs,
            "objects": [{"image": image, "mask": target} for image, target in pairs],
            "mapping": dict(pairs),
            "wrapped": {part: pairs},
            "columns": {"image": images, "mask": masks},
        }[form]
        (abdomen / f"{part}.json").write_text(json.dumps(value))
        (abdomen / f"{part}.txt").unlink()
    assert load_organ_set(abdomen, "abdomen") == expected


def test_class_folders_are_read_as_torchvision_reads_them(brain):
    one, theirs = load_organ_set(brain, "brain"), ImageFolder(brain / "train")
    assert one.task == "classification" and one.classes == theirs.classes
    assert [(str(sample.image), sample.target) for sample in one.train] == theirs.samples
    assert len(one.val) == 4


@pytest.mark.parametrize("key", [None, "class", "label"])
def test_a_list_of_classes(brain, key):
    shutil.rmtree(brain / "val")
    rows = {
        f"train/{name}/{i}.png": number for name, number in zip(NAMES, (10, 2)) for i in range(3)
    }
    if key:
        rows = [{"image": image, key: number} for image, number in rows.items()]
    (brain / "train.json").write_text(json.dumps(rows))
    one = load_organ_set(brain, "brain")
    assert one.classes == ["2", "10"]  # in numeric order
    # without a validation list one of three images of a class is held out
    assert len(one.val) == 2 and len(one.train) == 4
    held_out = {sample.image for sample in one.val}
    assert held_out.isdisjoint(sample.image for sample in one.train)
    for sample in one.train + one.val:
        assert (sample.target == 1) == ("tumour" in str(sample.image))


def test_classes_by_number(brain):
    """classes.txt names the classes of a list that has numbers."""
    shutil.rmtree(brain / "val")
    rows = [f"train/{name}/{i}.png {NAMES.index(name)}" for name in NAMES for i in range(3)]
    (brain / "train.txt").write_text("\n".join(rows))
    (brain / "classes.txt").write_text("tumour\nnormal\n")
    one = load_organ_set(brain, "brain")
    assert one.classes == ["tumour", "normal"]
    assert all((sample.target == 0) == ("tumour" in str(sample.image)) for sample in one.train)


def write_train(*lines):
    return lambda folder: (folder / "train.txt").write_text("\n".join(lines))


def write_train_json(text):
    def spoil(folder):
        (folder / "train.txt").unlink()
        (folder / "train.json").write_text(text)

    return spoil


def spoil_mask_size(folder):
    mask(folder, "2.png", np.zeros((30, 41), np.uint8))


def spoil_named_value(folder):
    (folder / "classes.txt").write_text("background\nliver\n")


def spoil_colour(folder):
    mask(folder, "1.png", np.random.default_rng(0).integers(0, 3, (30, 40, 3), np.uint8))


def spoil_image(folder):
    path = folder / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:60])


def spoil_all_background(folder):
    for i in range(6):
        mask(folder, f"{i}.png", 0)


def spoil_new_class_in_val(folder):
    for i in range(4):
        mask(folder, f"{i}.png", 0)


def spoil_two_slices(folder):
    (folder / "val.txt").unlink()
    write_list(folder / "train.txt", (1, 2))


def spoil_form(folder):
    np.save(folder / "masks" / "1.npy", np.zeros(3))
    write_train("images/1.png masks/1.npy", "images/2.png masks/2.png")(folder)


def spoil_fractions(folder):
    mask(folder, "1.tiff", np.full((30, 40), 0.5, np.float32))
    write_train("images/1.png masks/1.tiff", "images/2.png masks/2.png")(folder)


def spoil_jpeg(folder):
    mask(folder, "1.jpg", 0)
    write_train("images/1.png masks/1.jpg", "images/2.png masks/2.png")(folder)


LONG = f"images/{'x' * 400}.png masks/1.png"


@pytest.mark.parametrize(
    "spoil, file, words",
    [
        (spoil_mask_size, "masks/2.png", "41 x 30"),
        (lambda folder: mask(folder, "5.png", 3), "masks/5.png", "value 3"),
        (spoil_named_value, "masks/0.png", "value 2"),
        (lambda folder: mask(folder, "1.png", 255), "masks/1.png", "value 255"),
        (spoil_colour, "masks/1.png", "colour"),
        (spoil_image, "images/3.png", "damaged"),
        (
            lambda folder: (folder / "images/3.png").unlink(),
            "train.txt: a file is not there, line 4",
            "'images/3.png'",
        ),
        (write_train("../secret.png masks/1.png", "images/1.png masks/1.png"), "line 1", "leaves"),
        (write_train("images/1.png masks/1.png", "images/2.png"), "train.txt, line 2", "mask"),
        (write_train("images/1.png masks/1.png"), "train.txt", "at least 2"),
        (write_train_json('[["images/1.png", {"a": 1}]]'), "train.json, entry 1", "mask"),
        (spoil_jpeg, "masks/1.jpg", "mask"),
        (lambda folder: write_list(folder / "val.txt", [1]), "images/1.png", "both"),
        (lambda folder: write_list(folder / "train.txt", [1, 2, 1]), "images/1.png", "twice"),
        (spoil_all_background, "abdomen", "background"),
        (spoil_new_class_in_val, "masks/4.png", "value 2"),
        (spoil_two_slices, "train.txt", "at least 2"),
        (spoil_form, "train.txt, line 1", "PNG"),
        (lambda folder: (folder / "train.txt").unlink(), "val.txt", "no train.txt"),
        (write_train(LONG), "train.txt", "not there, line 1"),
        (write_train_json('[["images/\\ud800.png", "masks/1.png"]]'), "entry 1", "UTF-8"),
        (write_train_json('"images"'), "train.json", "must hold a list"),
        (spoil_fractions, "masks/1.tiff", "fractions"),
    ],
)
def test_bad_masks_and_lists(abdomen, spoil, file, words):
    spoil(abdomen)
    message = error_of(abdomen)
    assert file in message and words in message


def test_a_mask_set_with_a_class_held_out(abdomen):
    (abdomen / "val.txt").write_text("images/4.png liver\n")
    assert "4.png has a class and the training images have masks" in error_of(abdomen)


def test_bad_class_folders(brain):
    (brain / "train" / "empty").mkdir()
    assert "train/empty is an empty class folder" in error_of(brain)
    picture(brain / "train" / "empty" / "0.png")
    assert "class empty has 1 training image," in error_of(brain)
    picture(brain / "train" / "empty" / "1.png")
    assert len(load_organ_set(brain, "brain").classes) == 3
    picture(brain / "val" / "strange" / "1.png")
    assert "val/strange: a class that" in error_of(brain)
    shutil.rmtree(brain / "val")
    (brain / "train" / "empty" / "all").symlink_to(brain)
    (brain / "train" / "all").symlink_to(brain)
    assert "is a link to a folder that holds the data itself" in error_of(brain)


def test_a_class_needs_two_training_images_beside_those_held_out(brain):
    """A class of two keeps both, if others have images to hold out."""
    shutil.rmtree(brain / "val")
    (brain / "train" / "normal" / "2.png").unlink()
    logged = []
    one = load_organ_set(brain, "brain", logged.append)
    assert [sample.target for sample in one.train] == [0, 0, 1, 1]
    assert [sample.target for sample in one.val] == [1]
    assert logged == [f"NOTE: {brain}: no held-out image shows normal"]
    (brain / "train" / "tumour" / "2.png").unlink()
    assert "class normal has 1 training image beside those held out" in error_of(brain)
    picture(brain / "train" / "tumour" / "2.png")
    (brain / "train" / "normal" / "1.png").unlink()
    assert "class normal has 1 training image beside those held out" in error_of(brain)
    rows = [f"train/tumour/{i}.png a\n" for i in range(3)]
    rows += ["train/normal/0.png b\n"]
    (brain / "train.txt").write_text("".join(rows))
    assert "train.txt: class b has 1 training image beside" in error_of(brain)
    (brain / "train.txt").write_text("".join(rows[:3]))
    assert "has one class only, a" in error_of(brain)


def test_a_class_that_classes_txt_lacks(brain):
    shutil.rmtree(brain / "val")
    rows = [f"train/{name}/{i}.png {name}\n" for name in NAMES for i in range(3)]
    (brain / "train.txt").write_text("".join(rows))
    (brain / "classes.txt").write_text("normal\nlesion\n")
    message = error_of(brain)
    assert "train.txt: 0.png has the class 'tumour', which" in message
    assert "classes.txt does not name: add it there" in message
    (brain / "classes.txt").write_text("normal\n")
    assert "classes.txt: at least two different names" in error_of(brain)
    (brain / "classes.txt").unlink()
    picture(brain / "more" / "0.png")
    (brain / "val.txt").write_text("more/0.png strange\n")
    words = "val.txt: 0.png has the class 'strange', which no training image has"
    assert words in error_of(brain)


def test_a_list_and_a_folder_are_not_mixed(brain):
    parts = [
        [[f"{part}/{name}/{i}.png", name] for name in NAMES for i in range(2)]
        for part in ("train", "val")
    ]
    (brain / "val.json").write_text(json.dumps(parts[1]))
    assert "holds val.json and a folder train/" in error_of(brain)
    (brain / "train.json").write_text(json.dumps(parts[0]))
    assert len(load_organ_set(brain, "brain").val) == 4
    (brain / "val.json").unlink()
    message = error_of(brain)
    assert "holds train.json and a folder val/, which it does not list" in message
    assert "list the held-out images in val.json" in message


def test_files_left_out_are_counted_by_suffix(brain):
    names = "train/tumour/a.NII train/tumour/b.nii val/normal/notes train/normal/.hidden".split()
    for name in [*names, "train/normal/x.b\udc80"]:
        (brain / name).write_text(name, errors="replace")
    logged = []
    assert len(load_organ_set(brain, "brain", logged.append).train) == 6
    assert len(logged) == 1 and "4 files left out for their suffix (2 .nii, 1 " in logged[0]
    assert "1 with none" in logged[0] and r"1 '.b\udc80'" in logged[0]


def test_an_image_of_another_kind_under_a_good_name(abdomen):
    """A DICOM file in a mask set is read like any picture, or refused in one line."""
    Image.new("L", (40, 30)).save(abdomen / "images" / "0.png", format="PPM")
    assert len(load_organ_set(abdomen, "abdomen").train) == 4
    (abdomen / "images" / "0.png").write_bytes(bytes(128) + b"DICM")
    assert "images/0.png can't be used" in error_of(abdomen)
