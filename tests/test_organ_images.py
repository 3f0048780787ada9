"""readers/organ_images.py: copies of training images among the held-out ones, and notes."""

import numpy as np
from PIL import Image

from dataset_MTPT import load_organ_set
from readers.organ_images import find_copies


def test_held_out_copies_of_training_images_are_found(tmp_path):
    """Written anew, resized or renamed; not another image, one in other greys, or flat ones."""
    rng = np.random.default_rng(0)
    noise = [
        Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).resize(
            (300, 260), Image.Resampling.BICUBIC
        )
        for _ in range(6)
    ]
    flat = Image.new("L", (300, 260), 90)
    dark = Image.fromarray((np.asarray(noise[1]) * 0.9).astype(np.uint8))
    train = [noise[0], noise[1], flat, noise[2], noise[3]]
    val = [noise[4], noise[1].resize((224, 200)), flat, dark, noise[3].convert("RGB"), noise[5]]
    folder = tmp_path / "chest"
    for part, suffix, images in (("train", "png", train), ("val", "jpg", val)):
        for i, image in enumerate(images):
            path = folder / part / "ab"[i > 2] / f"{part}{i}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    logged = []
    one = load_organ_set(folder, "chest", logged.append)
    pairs = {one.val[v].image.name: one.train[t].image.name for v, t in one.copies.items()}
    assert pairs == {"val1.jpg": "train1.png", "val4.jpg": "train4.png"}
    words = "2 of 6 held-out images are copies of training images, as val/a/val1.jpg of "
    assert len(logged) == 1 and f"{words}train/a/train1.png" in logged[0]
    assert one.digest == load_organ_set(folder, "chest", logged.append).digest


def test_copies_in_large_sets():
    """More held-out images than are compared at once: every copy is found in its place."""
    greys = np.random.default_rng(0).uniform(0, 255, (900, 64)).astype(np.float32)
    greys[300:][[0, 255, 256, 599]] = greys[[7, 8, 299, 0]] + 1
    assert find_copies(greys, 300) == {0: 7, 255: 8, 256: 299, 599: 0}


def test_notes_of_organ_sets(abdomen, brain, capsys):
    """One line for each kind, with classes and with masks; turned images fit turned masks."""
    exif, values = Image.Exif(), np.arange(1200, dtype=np.uint16)
    exif[274] = 6
    for i in range(3):  # as a viewer shows it: 40 wide, 30 high
        stored = Image.fromarray(values.reshape(40, 30))
        stored.save(abdomen / "images" / f"{i}.png", exif=exif)
    pages = [Image.fromarray(np.full((30, 40), i * 90, np.uint8)) for i in (1, 2)]
    name = "train/normal/0.png"
    pages[0].save(brain / name, "TIFF", save_all=True, append_images=pages[1:])
    assert load_organ_set(abdomen, "abdomen").classes == ["background", "class 1", "class 2"]
    load_organ_set(brain, "brain")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NOTE")]
    assert len(lines) == 2
    assert lines[0].startswith("NOTE: 3 of 6 images: grey values of another depth")
    assert "images/0.png (0 becomes black, 1199 white), images/1.png" in lines[0]
    assert lines[1] == (
        f"NOTE: 1 of 10 images: one of several frames or pages is read: {name} (page 1 of 2)"
    )
