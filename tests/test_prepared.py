"""Prepared files: made anew when they or their source changed, and in the cache when need be."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from helpers import flipped, prepare, processed, quiet, record
from PIL import Image

import dataset_RAD as rad
import utils
from features import ImageStore
from readers.prepared import H5_NAME
from utils import UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")


def test_made_anew_only_when_the_source_changed(tmp_path):
    folder, lines = processed(tmp_path / "d"), []
    first = rad.prepare(folder, log=lines.append)
    again = rad.prepare(folder, log=lines.append)
    assert len(lines) == 1 and again == first
    Image.new("RGB", (9, 9), (200, 0, 0)).save(folder / "images" / "i1.jpg", quality=95)
    changed = rad.prepare(folder, log=lines.append)
    assert len(lines) == 2 and changed.digest != first.digest
    assert abs(int(ImageStore(changed.images_path)[[1]][0, 5, 5, 0]) - 200) < 4
    (folder / "trainset.json").write_text(json.dumps([record(1, question="why")]))
    words = rad.prepare(folder, log=lines.append).dictionary
    assert words == json.loads((folder / "prepared" / "dictionary.json").read_text()) == ["why"]
    for name in (H5_NAME, "dictionary.json", "answers.json"):
        path = folder / "prepared" / name
        good = path.read_bytes()
        path.write_bytes(good[:-5])
        rad.prepare(folder, log=lines.append)
        assert path.read_bytes() == good
    assert len(lines) == 6
    before = (folder / "prepared" / H5_NAME).read_bytes()
    (folder / "images" / "i1.jpg").write_text("no image")
    with pytest.raises(UserError, match="i1.jpg"):
        rad.prepare(folder, log=quiet)
    assert (folder / "prepared" / H5_NAME).read_bytes() == before


def test_a_flipped_bit_is_mended_or_does_no_harm(tmp_path):
    """Whatever bit of the prepared images changes on the disk, training gets the right images."""
    folder, lines, draw = processed(tmp_path / "d"), [], random.Random(0)
    path = prepare(folder).images_path
    good, content = ImageStore(path)[[0, 1, 2]], path.read_bytes()
    some = [draw.randrange(8 * len(content)) for _ in range(40)]  # mostly in the images
    some += [draw.randrange(8 * 4000) for _ in range(20)]  # mostly in the tables
    for position in some:
        path.write_bytes(flipped(content, position))
        before = len(lines)
        data = rad.prepare(folder, log=lines.append)
        assert np.array_equal(ImageStore(data.images_path)[[0, 1, 2]], good), position
        assert len(lines) == before or path.read_bytes() == content, position
    assert len(lines) >= 40  # nearly all were noticed


def test_read_only_folder_uses_the_cache(tmp_path, monkeypatch):
    folder, cache = processed(tmp_path / "d"), tmp_path / "cache"
    real = utils.writable
    monkeypatch.setattr(
        utils, "writable", lambda path: folder not in Path(path).parents and real(path)
    )
    data = prepare(folder)
    assert data.prepared.parent == cache and data.images_path.is_file()
    assert not (folder / "prepared").exists()
    lines = []
    assert rad.prepare(folder, log=lines.append) == data and not lines
    monkeypatch.setattr(utils, "writable", lambda path: False)
    assert rad.prepare(folder, log=lines.append) == data
    (folder / "trainset.json").write_text(json.dumps([record(1)]))
    with pytest.raises(UserError, match="CMSA_CACHE"):
        prepare(folder)


def test_folder_marked_read_only_is_left_alone(tmp_path):
    folder = processed(tmp_path / "d")
    folder.chmod(0o555)
    data = prepare(folder)
    assert data.prepared.parent == tmp_path / "cache" and not (folder / "prepared").exists()
    folder.chmod(0o755)
