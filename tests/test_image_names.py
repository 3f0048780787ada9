"""Which file an image name means, and what a message says of images that are missing."""

import unicodedata

import pytest
from helpers import error_of, prepare, processed, record
from PIL import Image

from readers.image_names import find_images
from readers.names import find_file, fold, loose, matching, shown, slashed
from tools.ask_many import find_image
from utils import UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")
NFC, NFD = (unicodedata.normalize(form, "Röntgen Ü.jpg") for form in ("NFC", "NFD"))


def touch(folder, *names):
    """Files with their names as content."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_names_that_count_as_the_same():
    assert fold(NFD) == fold(NFC.upper()) and NFD != NFC
    assert loose("VQA_RAD%20Dataset public.JSON") == loose("VQA_RAD Dataset Public.json")
    assert fold("a b") != fold("a_b")
    found = matching(["a", "b", "c"], ["A", "a", "B", "d", "É"], fold)
    assert found == {"a": ["a"], "b": ["B"], "c": []}


def test_names_that_windows_wrote(tmp_path):
    """Each `\\` means `/`, but in the name of a file that is there."""
    touch(tmp_path, "a\\b.png")
    assert slashed("a\\b\\c.png") == slashed("a/b/c.png", tmp_path) == "a/b/c.png"
    assert slashed("a\\b.png", tmp_path) == "a\\b.png" != slashed("a\\b.png")
    assert find_image("a\\b.png", tmp_path).is_file()
    assert find_image("a\\c.png", tmp_path) == tmp_path / "a" / "c.png"
    assert shown([".x", "__MACOSX", *"abcdefg"]) == "a, b, c, d, e and 2 more"
    assert shown([]) == "nothing"


@pytest.mark.parametrize(
    "name, present, taken",
    [
        ("a.jpg", ["a.JPG"], "a.JPG"),
        ("a.jpg", ["A.Jpg", "b.jpg"], "A.Jpg"),
        ("a.jpg", ["a.JPG", "a.jpg"], "a.jpg"),
        (NFC, [NFD], NFD),
        (NFD, [NFC], NFC),
        (NFC, [NFC, NFD], NFC),
    ],
)
def test_an_image_is_found_apart_from_case_and_normalisation(tmp_path, name, present, taken):
    touch(tmp_path / "images", *present)
    found = find_images(tmp_path, [name])
    assert found.paths == {name: tmp_path / "images" / taken} and not found.faults
    assert found.paths[name].read_text() == taken


def test_two_candidates_are_not_guessed(tmp_path):
    touch(tmp_path / "images", "a.JPG", "A.jpg", "b.jpg", "é.jpg")
    (tmp_path / "images" / "folder.jpg").mkdir()
    found = find_images(tmp_path, ["a.jpg", "b.jpg", "folder.jpg"])
    assert list(found.paths) == ["b.jpg"]
    assert found.faults["a.jpg"] == "either of A.jpg, a.JPG may be meant"
    assert found.faults["folder.jpg"] == "a folder, or not a file"


@pytest.mark.parametrize(
    "place", ["images", "Images", "VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "."]
)
def test_the_folder_of_the_images(tmp_path, place):
    touch(tmp_path / place, "a.jpg", "b.jpg")
    if place != ".":
        touch(tmp_path, "a.jpg")  # a copy of one: the folder with most of them is taken
    names = ["a.jpg", "b.jpg"]
    found = find_images(tmp_path, names)
    assert found.paths == {name: tmp_path / place / name for name in names}


def test_what_is_missing_is_listed_with_what_is_there_instead(tmp_path):
    touch(tmp_path / "images", "a.png", "b c.JPEG", "x.jpg", *(f"y{i}.jpg" for i in range(9)))
    found = find_images(tmp_path, ["a.jpg", "b_c.jpg", "x.jpg", "z.jpg", "x"])
    assert found.faults["a.jpg"] == "missing; a.png is there"
    assert found.faults["b_c.jpg"] == "missing; b c.JPEG is there"
    assert found.faults["z.jpg"] == "missing"
    assert found.faults["x"] == "missing; x.jpg is there"
    assert "images, which holds a.png, b c.JPEG, x.jpg, y0.jpg, y1.jpg and 7 more" in found.where


@pytest.mark.parametrize("place", ["d/images/jpg", "d/VQA_RAD Image Folder/x", "d/other", "images"])
def test_images_elsewhere_are_named(tmp_path, place):
    folder = touch(tmp_path / "d", "trainset.json")
    touch(tmp_path / place, "a.jpg", "b.jpg")
    found = find_images(folder, ["a.jpg", "b.jpg", "c.jpg"])
    assert not found.paths
    assert found.where.endswith(
        f"2 of the missing images lie in {tmp_path / place}: move or copy them"
    )


def test_packed_images_are_named(tmp_path):
    touch(tmp_path, "VQA_RAD Image Folder.ZIP", "glove.6B.zip")
    where = find_images(tmp_path, ["a.jpg"]).where
    assert where.endswith("; VQA_RAD Image Folder.ZIP: unpack it first")


def test_a_whole_data_set_with_names_that_differ(tmp_path):
    name = unicodedata.normalize("NFC", "ö.jpg")
    folder = processed(tmp_path / "d", [record(1, image_name=name), record(2)])
    images = folder / "images"
    (images / "i2.jpg").rename(images / "I2.JPG")
    Image.new("L", (9, 9), 77).save(images / unicodedata.normalize("NFD", name), quality=100)
    data = prepare(folder)
    assert data.image_names == ["i0.jpg", "i2.jpg", name]
    (images / "i2.JPG").write_bytes(b"")
    message = error_of_again(folder)
    assert "1 of 3 images can't be used: i2.jpg (either of I2.JPG, i2.JPG may be meant)" in message


def error_of_again(folder):
    """The message of a folder that was prepared before."""
    with pytest.raises(UserError) as caught:
        prepare(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "a\\..\\b.jpg", "..", "a//b", "C:/a", "a/"]
)
def test_no_name_leaves_the_folder(tmp_path, name):
    folder = processed(tmp_path / "d", [record(1, image_name=name), record(2)])
    assert "must be a plain file name, or folders of the data" in error_of(folder)


def test_two_files_for_one_list_are_refused(tmp_path):
    touch(tmp_path, "TrainSet.json", "trainset.JSON")
    with pytest.raises(UserError, match="TrainSet.json and trainset.JSON: either may be"):
        find_file(tmp_path, "trainset.json")
    touch(tmp_path, "trainset.json")
    assert find_file(tmp_path, "trainset.json") == tmp_path / "trainset.json"
    assert find_file(tmp_path, "other") is None and find_file(tmp_path / "none", "a") is None
