"""The phantom organ sets: their form, masks that lie on what is drawn, classes that show.

And: the same seed gives the same bytes, and the sets are written whole or not at all.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import dataset_MTPT
from tools import phantom_MTPT
from utils import HERE, UserError, run_main

CLASSES = ["background", "liver", "spleen", "left kidney", "right kidney", "spine"]
FOLDERS = {"brain": ["hydrocephalus", "lesion", "normal"], "chest": ["EFFUSION", "NORMAL"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "set"
    phantom_MTPT.draw_organs(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(folder):
    """Pictures and masks of the abdomen, both (height, width), of training and validation.

    Pictures are floats from 0 to 1, their noise smoothed; masks are uint8.
    """
    lines = [
        line.split()
        for part in ("train", "val")
        for line in (folder / "abdomen" / f"{part}.txt").read_text().splitlines()
    ]
    return [
        (
            pixels(folder / "abdomen" / image, blur=1),
            np.asarray(Image.open(folder / "abdomen" / mask)),
        )
        for image, mask in lines
    ]


def pixels(path, size=None, blur=0):
    """The picture as floats (height, width), 0 to 1."""
    with Image.open(path) as image:
        image = image.resize((size, size)) if size else image
        return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32) / 255


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_form(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["abdomen", "brain", "chest"]
    for organ in ("abdomen", *FOLDERS):
        mark = (folder / organ / "PHANTOM.txt").read_text()
        assert mark == "Drawings, not radiology: made by phantom_MTPT.py\n"
    abdomen = folder / "abdomen"
    assert (abdomen / "classes.txt").read_text().splitlines() == CLASSES
    listed = []
    for part, count in (("train", 60), ("val", 12)):
        lines = (abdomen / f"{part}.txt").read_text().splitlines()
        assert len(lines) == count
        listed += [name for line in lines for name in line.split(" ")]
        assert all(line == f"images/{Path(line).name} masks/{Path(line).name}" for line in lines)
        for organ, classes in FOLDERS.items():
            assert sorted(path.name for path in (folder / organ / part).iterdir()) == classes
            counts = [len(list((folder / organ / part / name).glob("*.png"))) for name in classes]
            assert counts == [count // len(classes)] * len(classes)
    pictures = [path.relative_to(abdomen).as_posix() for path in abdomen.rglob("*.png")]
    assert sorted(listed) == sorted(pictures) and len(set(listed)) == 144


def test_pictures(folder):
    sizes = set()
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.mode == "L" and 220 <= min(image.size) and max(image.size) <= 300
            sizes.add(image.size)
    assert len(sizes) > 80
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 12e6


def test_masks_hold_every_organ_on_its_side(pairs):
    """The patient's left is at the picture's right; the spine is in the middle and the lowest."""
    for picture, mask in pairs:
        assert mask.dtype == np.uint8 and mask.shape == picture.shape
        assert np.unique(mask).tolist() == list(range(len(CLASSES)))
        columns = np.indices(mask.shape)[1]
        # not one pixel of a mixed value at a border
        assert columns[np.isin(mask, (1, 4))].max() < columns[np.isin(mask, (2, 3))].min()
        y, x = (
            np.array([axis[mask == value].mean() for value in range(len(CLASSES))])
            for axis in np.indices(mask.shape)
        )
        _, liver, spleen, left, right, spine = x / mask.shape[1]
        assert max(liver, right) < 0.45 < spine < 0.55 < min(spleen, left)
        assert y[5] > y[3:5].mean() and y[3:5].min() > y[1:3].max()


def test_masks_vary(pairs):
    """Sizes and places are not the same in each picture, so they can't be learnt by heart."""
    shares = np.array([[(mask == value).mean() for value in range(1, 5)] for _, mask in pairs])
    assert (shares.max(0) > 2.5 * shares.min(0)).all()  # fluid squeezes the organs
    assert (shares.std(0) > 0.2 * shares.mean(0)).all()


@pytest.mark.parametrize("value", range(1, 6))
def test_the_borders_of_masks_lie_on_edges(pairs, value):
    """The grey changes most where the mask does, and less along a border shifted by 3 pixels."""
    shifts = [(0, 0), (3, 0), (-3, 0), (0, 3), (0, -3)]
    right = []
    for picture, mask in pairs:
        slope = np.hypot(*np.gradient(picture))
        organ = mask == value
        steps = ((1, 0), (-1, 0), (1, 1), (-1, 1))
        border = organ & ~np.all([np.roll(organ, *step) for step in steps], axis=0)
        slopes = [slope[np.roll(border, shift, (0, 1))].mean() for shift in shifts]
        right.append(int(np.argmax(slopes)) == 0)
    assert np.mean(right) > 0.9


def test_masks_leave_out_what_covers_an_organ(pairs):
    """Bowel with contrast medium is white, and the masks leave it out of the liver.

    In many pictures it does cover some of the liver.
    """
    covered = 0
    for picture, mask in pairs:
        white = picture > 0.9 * np.percentile(picture, 99.5)
        liver = mask == 1
        assert (white & liver).sum() < 0.02 * liver.sum()
        columns, rows = (np.flatnonzero(liver.any(axis)) for axis in (0, 1))
        ellipse = np.pi / 4 * np.ptp(rows) * np.ptp(columns)
        covered += liver.sum() < 0.97 * ellipse
    assert covered > 15


def test_the_classes_of_the_brain_show(folder):
    """A lesion makes one half differ from the other.

    Wide ventricles differ from the brain on both sides of the middle.
    """
    right = []
    for path in sorted((folder / "brain").rglob("*.png")):
        picture = pixels(path, 224, blur=3)
        brain = picture[50:174, 52:172]
        brain = (brain - np.median(brain)) / (picture.max() - picture.min())
        halves = (slice(33, 48), slice(72, 87))
        ventricles = min(abs(np.median(brain[30:80, half])) for half in halves)
        lesion = np.percentile(abs(brain - brain[:, ::-1]), 97)
        guess = "hydrocephalus" if ventricles > 0.1 else "lesion" if lesion > 0.25 else "normal"
        right.append(guess == path.parent.name)
    assert len(right) == 72 and np.mean(right) > 0.9


def test_the_classes_of_the_chest_show(folder):
    sides = []
    for path in (folder / "chest").rglob("*.png"):
        picture = pixels(path, 448)
        difference = picture[270:350, 310:370].mean() - picture[270:350, 78:138].mean()
        assert (abs(difference) > 0.2) == (path.parent.name == "EFFUSION")
        sides.append(np.sign(difference) * (abs(difference) > 0.2))
    assert sides.count(1) == sides.count(-1) == 18


def test_no_held_out_drawing_is_a_copy(folder):
    messages = []
    for organ in FOLDERS:
        organ_set = dataset_MTPT.load_organ_set(folder / organ, organ, messages.append)
        assert not organ_set.copies and not messages


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        phantom_MTPT.draw_organs(tmp_path / name, seed=seed, images=15)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b and a.keys() == c.keys() and len(a) == 4 * 18 + 6
    pictures = [name for name in a if name.endswith(".png")]
    assert all(a[name] != c[name] for name in pictures)
    assert len({a[name] for name in pictures}) == len(pictures)


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_half_written(tmp_path, monkeypatch, error, exists):
    draw_pair, calls = phantom_MTPT.draw_pair, []

    def failing(scene, rng):
        calls.append(scene)
        if len(calls) == 25:  # the abdomen is whole then, the brain is not
            raise error
        return draw_pair(scene, rng)

    monkeypatch.setattr(phantom_MTPT, "draw_pair", failing)
    if exists:
        (tmp_path / "set").mkdir()
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        phantom_MTPT.draw_organs(tmp_path / "set", images=15)
    assert len(calls) == 25
    assert [path.name for path in tmp_path.rglob("*")] == ["set"] * exists


def test_an_empty_folder_is_filled_and_a_full_one_kept(tmp_path):
    (tmp_path / "set").mkdir()
    phantom_MTPT.draw_organs(tmp_path / "set", images=15)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="isn't empty"):
        phantom_MTPT.draw_organs(tmp_path / "set", images=15)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("seed, images", [(-1, 60), (0, 0), (0, 14), (0, -60)])
def test_numbers_that_cannot_be_used(tmp_path, seed, images):
    with pytest.raises(UserError):
        phantom_MTPT.draw_organs(tmp_path / "set", seed=seed, images=images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_way_is_kept(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="can't be written"):
        phantom_MTPT.draw_organs(tmp_path / name, images=15)
    assert contents(tmp_path) == {"file": b"mine"}


def test_the_smallest_set_holds_every_class(tmp_path):
    phantom_MTPT.draw_organs(tmp_path / "set", images=phantom_MTPT.FEWEST_IMAGES)
    for organ, classes in FOLDERS.items():
        for part in ("train", "val"):
            pictures = (tmp_path / "set" / organ / part).rglob("*.png")
            assert {path.parent.name for path in pictures} == set(classes)


def test_command_line(tmp_path, monkeypatch, capsys):
    command = [sys.executable, "-m", "tools.phantom_MTPT", "--output", "made", "--images", "15"]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0
    assert len(contents(tmp_path / "made")) == 78
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["phantom_MTPT.py", *command[3:]])
    with pytest.raises(SystemExit) as left:
        run_main(phantom_MTPT.main)
    refused = capsys.readouterr().err
    assert left.value.code == 2 and refused.startswith("error: ") and refused.count("\n") == 1
    assert len(contents(tmp_path)) == 78


def test_help_names_the_smallest_set(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["phantom_MTPT.py", "--help"])
    with pytest.raises(SystemExit):
        phantom_MTPT.main()
    assert "at least 15 " in " ".join(capsys.readouterr().out.split())
