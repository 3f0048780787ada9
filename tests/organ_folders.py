"""Made-up organ sets of a few pictures, as a user has them."""

import numpy as np
import pytest
from PIL import Image


def picture(path, value=90, size=(40, 30)):
    """A grey picture of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, np.uint8)).save(path)


def mask(folder, name, values):
    """A mask of one value or of an array of values."""
    values = np.full((30, 40), values, np.uint8) if np.ndim(values) == 0 else values
    Image.fromarray(values).save(folder / "masks" / name)


def write_list(path, numbers):
    """A list of the pictures and masks with these numbers."""
    path.write_text("".join(f"images/{i}.png masks/{i}.png\n" for i in numbers))


def make_abdomen(folder):
    """Four training and two held-out slices of 40 x 30 with classes 0, 1, 2. Returns `folder`."""
    values = np.zeros((30, 40), np.uint8)
    values[5:15, 5:15], values[20:, 30:] = 1, 2
    for i in range(6):
        picture(folder / "images" / f"{i}.png")
        (folder / "masks").mkdir(exist_ok=True)
        mask(folder, f"{i}.png", values)
    write_list(folder / "train.txt", range(4))
    write_list(folder / "val.txt", (4, 5))
    return folder


def make_brain(folder):
    """Two classes with three training and two held-out images each. Returns `folder`."""
    for part, count in (("train", 3), ("val", 2)):
        for name in ("tumour", "normal"):
            for i in range(count):
                picture(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture
def abdomen(tmp_path):
    return make_abdomen(tmp_path / "abdomen")


@pytest.fixture
def brain(tmp_path):
    return make_brain(tmp_path / "brain")
