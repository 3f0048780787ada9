"""Pictures: modes and depths, and every bad image of a data set listed at once."""

import numpy as np
import pytest
from helpers import error_of, processed, record
from PIL import Image

from readers.images import MAX_PIXELS, read_image
from utils import UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")


def test_sixteen_bit_and_transparent_images(tmp_path):
    Image.fromarray(np.full((20, 20), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (20, 20), (10, 20, 30, 128)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "deep.png") == 100).all()
    assert (read_image(tmp_path / "clear.png") == (10, 20, 30)).all()
    assert read_image(tmp_path / "clear.png", 16).shape == (16, 16, 3)


def bomb(path):
    """A small file that holds a very large image; Pillow itself would only warn."""
    Image.new("1", (10000, 10000)).save(path, "PNG")


def test_unusable_pictures_are_one_clear_line(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("not an image")
    bomb(tmp_path / "bomb.png")
    faults = {
        "none.png": "missing",
        "folder.png": "a folder",
        "text.png": "damaged, or none of JPEG, PNG",
        "bomb.png": f"more than {MAX_PIXELS:,} pixels",
    }
    for name, fault in faults.items():
        with pytest.raises(UserError) as caught:
            read_image(tmp_path / name)
        message = str(caught.value)
        assert str(tmp_path / name) in message and fault in message


def test_all_bad_images_are_listed_at_once(tmp_path):
    train = [record(i, image_name=f"j{i}.jpg") for i in range(10, 40)]
    folder = processed(tmp_path / "d", train=train)
    images = folder / "images"
    good = (images / "i0.jpg").read_bytes()
    for i in range(10, 40):
        (images / f"j{i}.jpg").write_bytes(good)
    (images / "j10.jpg").write_bytes(good[: len(good) // 2])
    (images / "j11.jpg").write_text("not an image")
    bomb(images / "j12.jpg")
    message = error_of(folder)
    assert "3 of 31" in message and "j12.jpg (more than 80,000,000 pixels" in message
    assert "j10.jpg (damaged" in message and "j11.jpg (damaged" in message
    (images / "j13.jpg").unlink()
    message = error_of(folder)
    assert "4 of 31" in message and "j13.jpg (missing)" in message and "j12.jpg" in message
    for i in range(13, 40):
        (images / f"j{i}.jpg").unlink(missing_ok=True)
    message = error_of(folder)
    assert "30 of 31" in message and "and 10 more" in message
