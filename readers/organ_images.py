"""The files of an organ set, each decoded once: unusable files, and copies among the images."""

import numpy as np
from PIL import Image
from tqdm import tqdm

from readers.images import log_notes, open_image, read_mask, resize
from readers.organ_lists import CLASSES_FILE, read_class_file
from utils import SIZE, UserError

# of masks without a classes.txt: beyond it a mask of 0 and 255, or of greys, is likelier
MAX_CLASSES = 64
SMALL = 32  # pixels: side of the grey images in which copies are looked for
# two images are copies from this correlation on, below this mean difference of greys (of 255)
CORRELATION, DIFFERENCE = 0.999, 3


def check_images(folder, train, val):
    """Decode every image of a set with classes. Returns the copies, as `find_copies` does.

    Notes on the images are logged. Raises UserError for the first that can't be used.
    """
    greys, noted = np.zeros((len(train) + len(val), SMALL**2), np.float32), {}
    for row, sample in enumerate(_bar(folder, train + val)):
        picture = open_image(sample.image)
        noted[_name(sample, folder)] = picture.notes
        greys[row] = small_grey(resize(picture.image))
    log_notes(noted, len(noted))
    return find_copies(greys, len(train))


def check_masks(folder, train, val):
    """Decode every image and mask of a set with masks. Returns the names of its classes.

    Notes on the images are logged. Raises UserError for the first file that can't be used, and
    for masks without any class.
    """
    names, highest, noted = read_class_file(folder), {"training": 0, "held-out": 0}, {}
    for row, sample in enumerate(_bar(folder, train + val)):
        picture = open_image(sample.image)
        noted[_name(sample, folder)] = picture.notes
        value = int(_read_fitting_mask(sample, picture.image.size).max())
        part = "training" if row < len(train) else "held-out"
        if names and value >= len(names):
            raise UserError(
                f"{sample.target} has the value {value}, and {folder / CLASSES_FILE} names "
                f"{len(names)} classes, 0 to {len(names) - 1}"
            )
        if not names and value >= MAX_CLASSES:
            raise UserError(
                f"{sample.target} has the value {value}: a mask's values are classes, 0, 1, 2 and "
                f"so on; where {value + 1} classes are meant, name them in {CLASSES_FILE}, one a "
                "line"
            )
        if not names and part == "held-out" and value > highest["training"]:
            raise UserError(
                f"{sample.target} has the value {value}, and the training masks have none above "
                f"{highest['training']}; mend it, or name the classes in {folder / CLASSES_FILE}, "
                "one a line"
            )
        highest[part] = max(value, highest[part])
    for part, value in highest.items():
        if not value:
            raise UserError(
                f"{folder}: all {part} masks are 0 everywhere, background: there is nothing to "
                "learn or to measure"
            )
    log_notes(noted, len(noted))
    return names or ["background", *(f"class {i}" for i in range(1, highest["training"] + 1))]


def _bar(folder, samples):
    """The samples behind a progress bar."""
    return tqdm(samples, desc=f"checking {folder.name}", unit="image", leave=False, disable=None)


def _name(sample, folder):
    """How a note names an image."""
    return str(sample.image.relative_to(folder))


def _read_fitting_mask(sample, size):
    """A sample's mask, uint8 (height, width). size: (width, height) of its image.

    Raises UserError when it can't be used, or when their sizes differ.
    """
    width, height = size
    mask = read_mask(sample.target)
    if mask.shape != (height, width):
        raise UserError(
            f"{sample.target} is {mask.shape[1]} x {mask.shape[0]} pixels and its image "
            f"{sample.image} {width} x {height}: they must be of one size"
        )
    return mask


def small_grey(pixels):
    """uint8 (224, 224, 3) -> the grey image in which copies are looked for, uint8 (1024,)."""
    image = Image.fromarray(pixels).convert("L")
    return np.asarray(image.reduce(SIZE // SMALL)).ravel()


def find_copies(greys, count):
    """{row held out: training row} of copies among small grey images (N, pixels), float32.

    The first `count` rows are for training, and held-out rows are counted from there. Images that
    were resized or written anew are copies too. Flat images are copies of nothing.
    """
    shapes = greys - greys.mean(1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True).clip(1e-3)
    copies = {}
    for start in range(count, len(greys), 256):  # not all pairs of a large set at once
        similar = shapes[start : start + 256] @ shapes[:count].T > CORRELATION
        for held, trained in np.argwhere(similar).tolist():
            if abs(greys[start + held] - greys[trained]).mean() < DIFFERENCE:
                copies.setdefault(start + held - count, trained)
    return copies
