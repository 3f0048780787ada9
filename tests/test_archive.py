"""The authors' archive: its numbers come back, its pickles can do nothing, damage is one line."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import ANSWERS, WORDS, archive, error_of, prepare

from features import ImageStore

pytestmark = pytest.mark.usefixtures("no_real_folders")


def images_of(data):
    """The prepared images, uint8 (3, 224, 224, 3)."""
    return ImageStore(data.images_path)[[0, 1, 2]].numpy()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_archive_form(tmp_path, protocol):
    folder, pixels = archive(tmp_path / "d", protocol)
    data = prepare(folder)
    assert data.name == "VQA-RAD, authors' archive"
    assert (data.dictionary, data.answers) == (WORDS, ANSWERS)
    assert np.array_equal(images_of(data), pixels)
    assert data.train[0].tokens[:4] == (1, 3, 2, 0) and data.train[0].label == 1


def test_archive_with_image_files_does_not_need_the_pickle(tmp_path):
    folder, pixels = archive(tmp_path / "d", images=True)
    (folder / "images224x224.pkl").unlink()
    assert np.array_equal(images_of(prepare(folder)), pixels)


class Hostile:
    """Pickled, it makes a folder when the pickle is loaded as usual."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_hostile_pickle_does_not_run(tmp_path):
    folder, _ = archive(tmp_path / "d")
    marker = tmp_path / "marker"
    for name in ("dictionary.pkl", "images224x224.pkl"):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps([Hostile(marker)]))
        message = error_of(folder)
        assert name in message and "mkdir" in message and not marker.exists()
        (folder / name).write_bytes(good)
    pickle.loads(pickle.dumps(Hostile(marker)))  # it would have run
    assert marker.exists()


@pytest.mark.parametrize(
    "name, value",
    [
        ("images224x224.pkl", np.zeros((3, 224, 224, 3), np.float32)),
        ("images224x224.pkl", np.array([{}, []], object)),
        ("images224x224.pkl", np.full((3, 3, 224, 224), np.nan, np.float32)),
        ("images224x224.pkl", np.zeros(3, [("a", "O")])),
        ("images224x224.pkl", np.zeros((2, 3, 224, 224), np.float32)),
        ("images224x224.pkl", 5),
        ("images224x224.pkl", {1, 2}),
        ("dictionary.pkl", [{"a": 1}, ["a"]]),
        ("dictionary.pkl", ["a"]),
        ("dictionary.pkl", [{}, []]),
        ("dictionary.pkl", None),
        ("dictionary.pkl", [{"a": 0}, ["a", "a"]]),
        ("cache/trainval_label2ans.pkl", ["yes", "no"]),
        ("cache/trainval_ans2label.pkl", [0]),
    ],
)
def test_wrong_pickles(tmp_path, name, value):
    folder, _ = archive(tmp_path / "d")
    (folder / name).write_bytes(pickle.dumps(value))
    assert Path(name).name in error_of(folder)


def test_damaged_and_missing_pickles(tmp_path):
    folder, _ = archive(tmp_path / "d")
    good = (folder / "dictionary.pkl").read_bytes()
    objects = pickle.dumps(np.ones(3), 2).replace(b"f8", b"O8")
    for bad in (b"", b"junk", good[:-9], b"\x80\x04\x95" + b"\xff" * 8, objects):
        (folder / "dictionary.pkl").write_bytes(bad)
        assert "dictionary.pkl" in error_of(folder)
    (folder / "dictionary.pkl").unlink()
    assert "but not dictionary.pkl" in error_of(folder)
