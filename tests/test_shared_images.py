"""readers/shared_images.py: images that two prepared sets share, by content alone."""

import io
import tracemalloc

import numpy as np
from PIL import Image

from readers.h5_files import write_rows
from readers.images import resize
from readers.shared_images import find_shared


def scene(seed):
    """A smooth picture of random shapes in colour, 300 x 260 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(pixels).resize((300, 260), Image.Resampling.BICUBIC)


def jpeg(image, quality):
    """The image written as JPEG and read again."""
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return Image.open(written).convert("RGB")


def prepared(path, images):
    """A prepared file of these images, as of a data set."""
    write_rows(path, "images", map(resize, images), len(images), "digest")
    return path


def test_copies_are_found_whatever_their_form(tmp_path):
    """Not another image, a crop, a darker or a mirrored one, nor flat ones."""
    own = prepared(tmp_path / "own.h5", [scene(i) for i in range(6)] + [Image.new("RGB", (9, 9))])
    others = [
        scene(4),
        scene(10),
        jpeg(scene(0), 60),
        scene(1).resize((150, 130)),
        scene(2).crop((15, 13, 285, 247)),
        scene(3).point(lambda grey: grey * 0.9),
        scene(5).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        jpeg(scene(5).convert("L").resize((500, 433)), 75),
        Image.new("RGB", (9, 9)),
    ]
    other = prepared(tmp_path / "other.h5", others)
    assert find_shared(other, own) == {0, 2, 3, 7}
    assert find_shared(own, other) == {0, 1, 4, 5}
    assert find_shared(own, own) == set(range(6))


def test_large_sets_are_not_held_in_memory(tmp_path):
    """Each file has 15 MB of pixels; small grey images and what is made of them take a few."""
    images = [scene(i) for i in range(100)]
    first = prepared(tmp_path / "first.h5", images)
    second = prepared(tmp_path / "second.h5", images[99:] + images[:99])
    tracemalloc.start()
    try:
        assert len(find_shared(first, second)) == 100
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()
