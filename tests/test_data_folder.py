"""A folder without data: the message names what is there, and what to do."""

import shutil
from importlib.util import find_spec

import pytest
from helpers import SHARED, error_of, prepare, processed, public

from readers.data_folder import advice
from readers.find import find_folder
from readers.records import IMAGE_FOLDER, PUBLIC_JSON
from utils import PHANTOM_MARK, PIP, UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")
PUBLIC_XLSX = PUBLIC_JSON.replace(".json", ".xlsx")


def test_an_empty_folder_and_none(tmp_path):
    (tmp_path / "empty").mkdir()
    message = error_of(tmp_path / "empty")
    for name in (PUBLIC_JSON, "trainset.json", "dictionary.pkl", "--RAD_dir", "it holds nothing"):
        assert name in message
    assert "no such folder" in error_of(tmp_path / "none" / "x")
    assert f"({tmp_path} holds empty)" in error_of(tmp_path / "none" / "x")
    processed(tmp_path / "d")
    (tmp_path / "d.zip").touch()
    assert "trainset.json is a file; --RAD_dir wants" in error_of(tmp_path / "d" / "trainset.json")
    assert "d.zip is a packed file: unpack it first" in error_of(tmp_path / "d.zip")


@pytest.mark.parametrize("lower, words", [("osfstorage-archive", "one"), ("a b/c", "two")])
@pytest.mark.parametrize("make", [public, processed])
def test_data_lower_are_named(tmp_path, lower, words, make):
    make(tmp_path / "d" / lower)
    make(tmp_path / "d" / "__MACOSX")  # what macOS puts into zip files
    message = error_of(tmp_path / "d")
    folder = tmp_path / "d" / lower
    assert f"the data lie {words} folder" in message and " lower: --RAD_dir " in message
    assert (f"'{folder}'" if " " in lower else f"--RAD_dir {folder};") in message


def test_data_higher_or_apart_from_their_images(tmp_path):
    folder = public(tmp_path / "d")
    message = error_of(folder / IMAGE_FOLDER)
    assert f"the data lie one folder higher: --RAD_dir {folder}" in message
    folder = processed(tmp_path / "e")
    (folder / "data").mkdir()
    for name in ("trainset.json", "testset.json"):
        (folder / name).rename(folder / "data" / name)
    message = error_of(folder)
    assert f"the data lie in {folder}/data, the images in {folder}/images: put them" in message
    assert f"3 of the missing images lie in {folder}/images" in error_of(folder / "data")


@pytest.mark.parametrize(
    "name, words",
    [
        (PUBLIC_XLSX, "a spreadsheet: the .json file beside it at osf.io/89kps is wanted"),
        ("VQA_RAD.zip", "unpack it first"),
        ("osfstorage-archive.tar.GZ", "unpack it first"),
        ("data/vqa-rad-train.arrow", "the .parquet files of the data set are wanted"),
        ("trainset.csv", "make JSON of it"),
        (f"{PUBLIC_JSON}.part", "begun download"),
        ("train.json", "JSON of another name"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, name, words):
    path = tmp_path / "d" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    message = error_of(tmp_path / "d")
    assert f"; {name}: " in message and words in message


@pytest.mark.parametrize(
    "old, new",
    [
        (PUBLIC_JSON, "VQA_RAD_Dataset_Public.json"),
        (PUBLIC_JSON, "vqa_rad dataset public.JSON"),
        (IMAGE_FOLDER, "VQA_RAD_Image_Folder"),
        ("trainset.json", "TrainSet.json"),
        ("images", "Images"),
    ],
)
def test_names_that_differ_a_little_are_taken(tmp_path, old, new):
    folder = (public if "VQA" in old else processed)(tmp_path / "d")
    (folder / old).rename(folder / new)
    assert len(prepare(folder).train) > 1


def test_a_lone_list_is_named_with_what_is_there(tmp_path):
    folder = processed(tmp_path / "d")
    (folder / "testset.json").rename(folder / "test.json")
    message = error_of(folder)
    assert "holds trainset.json only: put testset.json beside it" in message
    assert "images, test.json, trainset.json" in message


def test_without_RAD_dir_a_warning_tells_of_data_in_data_RAD(tmp_path, monkeypatch):
    home, lines = tmp_path / "data_RAD", []
    processed(home / "osf")
    processed(home / "phantom")
    (home / "phantom" / PHANTOM_MARK).touch()
    (home / "README.md").touch()
    (home / "glove.6B.zip").touch()
    assert find_folder(False, lines.append) is None
    assert lines == [
        f"WARNING: no data in {home} yet: the data lie one folder lower: --RAD_dir {home}/osf"
    ]
    shutil.rmtree(home / "osf")
    assert advice(home) == ""


# what each input of ../shared/faults/data must give: words of the message, or that it loads
FAULTS = {
    "cp1252": "trainset.json is not valid JSON: its encoding is CP1252 (Windows-1252)",
    "dicom_image": None,
    "empty_answer": "trainset.json, record 0 (qid 15): the answer is empty",
    "exif_image": None,
    "hf": None if find_spec("pyarrow") else f"this needs pyarrow, which is missing: {PIP}",
    "hf_like": "16 of 16 images can't be used: test_0.png (missing), test_1.png (missing)",
    "jsonl": None,
    "mumc": None,
    "nan_answer": "trainset.json, record 0 (qid 15): the field 'answer' is NaN",
    "nfd": None,
    "public_nested": "public_nested/osfstorage-archive",
    "public_xlsx": f"{PUBLIC_XLSX}: a spreadsheet",
    "upper_ext": None,
    "utf16": "trainset.json is not valid JSON: its encoding is UTF-16",
}


@pytest.mark.parametrize("name", FAULTS)
def test_inputs_from_bug_reports(tmp_path, name):
    if not (SHARED / "faults" / "data").is_dir():
        pytest.skip("../shared/faults is absent")
    folder = tmp_path / name
    shutil.copytree(SHARED / "faults" / "data" / name, folder, copy_function=shutil.copyfile)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    if FAULTS[name]:
        assert FAULTS[name] in error_of(folder)
        return
    data = prepare(folder)
    assert (len(data.train), len(data.test)) == (12, 4)
    with pytest.raises(UserError, match="no such folder"):
        prepare(folder / "none")
