"""Small made-up data sets in all three forms, and how tests get at the shared real data."""

import json
import pickle
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dataset_RAD as rad
from readers.images import read_image
from readers.records import IMAGE_FOLDER, PUBLIC_JSON
from utils import HERE, MEAN, ORGAN_CODES, STD, UserError

SHARED = HERE.parent / "shared"
WORDS, ANSWERS = ["normal", "is", "lung", "the", "extra"], ["no", "yes", "maybe"]  # the archive's


def shared(*parts):
    """A path among the real data; skips the test where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def load(*parts):
    """A JSON file among the real data."""
    return json.loads(shared(*parts).read_text(encoding="utf-8"))


def quiet(line):
    """For `log`."""


def prepare(folder):
    """The data set in a folder, without a word."""
    return rad.prepare(folder, log=quiet)


def record(qid, **changes):
    """A good record."""
    number = int(qid) if str(qid).isdigit() else 0
    return {
        "qid": qid,
        "image_name": f"i{number % 3}.jpg",
        "image_organ": ORGAN_CODES[number % 3],
        "answer": "Yes",
        "answer_type": "CLOSED",
        "question_type": "PRES",
        "question": "Is the lung normal?",
        "phrase_type": "freeform",
    } | changes


def draw_images(folder, count=3):
    """Images of three sizes: colour, grey, colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        shape = [(40, 30, 3), (250, 300), (224, 224, 3)][i % 3]
        pixels = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"i{i}.jpg", quality=95)


def processed(folder, train=None, test=None, images="images"):
    """A data set in the processed form."""
    folder.mkdir(parents=True, exist_ok=True)
    if train is None:
        train = [record(1), record(2, phrase_type="frame"), record(4, answer="No")]
    (folder / "trainset.json").write_text(json.dumps(train))
    (folder / "testset.json").write_text(json.dumps([record(3)] if test is None else test))
    draw_images(folder / images)
    return folder


def public(folder):
    """A data set in the public form."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        record("0", phrase_type="test_freeform", question_frame="Is/Are the lung normal?"),
        record(6, question_frame=None),
        record(3, phrase_type="para", question_frame="NULL"),
        record(9, question_frame=" ? "),
    ]
    (folder / PUBLIC_JSON).write_text(json.dumps(records))
    draw_images(folder / IMAGE_FOLDER, 1)
    return folder


def archive(folder, protocol=2, images=False):
    """A data set in the archive's form, and its pixels (3, 224, 224, 3).

    Its images are in the pickle only, unless `images`.
    """
    processed(folder)
    (folder / "cache").mkdir(exist_ok=True)
    pixels = np.stack([read_image(folder / "images" / f"i{i}.jpg") for i in (2, 0, 1)])
    floats = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    pickles = {
        "dictionary.pkl": [{word: i for i, word in enumerate(WORDS)}, WORDS],
        "cache/trainval_ans2label.pkl": {answer: i for i, answer in enumerate(ANSWERS)},
        "cache/trainval_label2ans.pkl": ANSWERS,
        "images224x224.pkl": floats,
    }
    for name, value in pickles.items():
        (folder / name).write_bytes(pickle.dumps(value, protocol))
    (folder / "imgid2idx.json").write_text(json.dumps({"i2.jpg": 0, "i0.jpg": 1, "i1.jpg": 2}))
    if not images:
        for path in (folder / "images").iterdir():
            path.unlink()
    return folder, pixels[[1, 2, 0]]


def glove_line(word, value, dim=50):
    """A line of GloVe's text without a line feed."""
    return " ".join([word] + [str(value)] * dim)


def glove_zip(path, method=zipfile.ZIP_DEFLATED, **members):
    """glove.6B.zip with members such as glove.6B.50d.txt from d50="text"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for dim, text in members.items():
            archive.writestr(f"glove.6B.{dim[1:]}d.txt", text)
    return path


def error_of(folder):
    """The one-line message of a folder that can't be used; nothing may be left behind in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            prepare(folder)
    assert "\n" not in str(caught.value)
    assert not (Path(folder) / "prepared").exists()
    return str(caught.value)


def flipped(content, position):
    """The bytes with one bit changed; `position` counts bits."""
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def peak_memory(work):
    """The most bytes that Python held at once during `work()`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
