"""Images that two prepared sets share, found by content (docs/METHOD.md section 5.4)."""

import h5py
import numpy as np

from readers.organ_images import SMALL, find_copies, small_grey


def find_shared(images_path, other_path):
    """The rows of `images_path` whose image is a copy of one in `other_path`, a set.

    Both are HDF5 files with `images` uint8 (N, 224, 224, 3), read image by image. Copies are what
    `find_copies` takes for them: resized or re-encoded images too.
    """
    others = _small_greys(other_path)
    return set(find_copies(np.concatenate([others, _small_greys(images_path)]), len(others)))


def _small_greys(path):
    """The small grey image of each row of a prepared file: float32 (N, 1024)."""
    with h5py.File(path, "r", locking=False) as file:
        greys = np.empty((len(file["images"]), SMALL**2), np.float32)
        for row, pixels in enumerate(file["images"]):
            greys[row] = small_grey(pixels)
    return greys
