"""The authors' archive: pickles of plain data and numbers, read without running code in them.

docs/FORMATS.md section 1 lists its files.
"""

import pickle
import re

import numpy as np

from readers.json_files import read_json
from readers.records import ARCHIVE_PICKLES
from utils import MEAN, SIZE, STD, UserError, reason, shorten

IMAGE_PICKLE, IMAGE_INDEX = "images224x224.pkl", "imgid2idx.json"


class _PickledDtype:
    """Stands for numpy.dtype while a pickle is read: plain numbers only.

    A pickle could set a real dtype's flags and so corrupt the memory.
    """

    def __init__(self, spec, *_):
        if not re.fullmatch(r"[biufc]\d{1,2}", str(spec)):
            raise UserError(f"an array of type {str(spec)[:20]!r} is not plain numbers")
        self.dtype = np.dtype(spec)

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(state[1] if state[1] in ("<", ">") else "=")


class _PickledArray:
    """Stands for numpy.ndarray while a pickle is read. `array` is the result."""

    def __init__(self, *_):
        self.array = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


def _pickled_buffer(data, dtype, shape, order, axes=None):
    """Stands for numpy's _frombuffer, which pickles of protocol 5 name."""
    array = _PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", data))
    if order == "K" and axes is not None:
        array.array = array.array.transpose(axes)
    return array


def _pickled_scalar(dtype, data):
    """Stands for numpy's scalar: a plain number."""
    return np.frombuffer(data, dtype.dtype, 1)[0].item()


def _pickled_bytes(text, _="latin1"):
    """Stands for _codecs.encode, by which protocols below 3 hold bytes."""
    return text.encode("latin1")


# The names in pickled arrays of numbers, each replaced by one of ours that can do no more.
_PICKLE_NAMES = {
    ("numpy", "dtype"): _PickledDtype,
    # an argument of _reconstruct, which ignores it; a text can't be called
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): _pickled_bytes,
}
for _core in ("numpy.core.", "numpy._core."):
    _PICKLE_NAMES[_core + "multiarray", "_reconstruct"] = _PickledArray
    _PICKLE_NAMES[_core + "multiarray", "scalar"] = _pickled_scalar
    _PICKLE_NAMES[_core + "numeric", "_frombuffer"] = _pickled_buffer


class RestrictedUnpickler(pickle._Unpickler):
    """Reads plain data and numeric arrays. It refuses any other class or function unrun.

    It is built on Python's unpickler. The one in C fills the memory if a pickle numbers an
    object 2**31.
    """

    def load_build(self):
        # other objects could change attributes of the functions in _PICKLE_NAMES
        if not isinstance(self.stack[-2], (_PickledArray, _PickledDtype)):
            raise UserError("it sets attributes, and only plain numbers and text are read here")
        super().load_build()

    dispatch = pickle._Unpickler.dispatch | {pickle.BUILD[0]: load_build}

    def find_class(self, module, name):
        if (module, name) not in _PICKLE_NAMES:
            raise UserError(
                f"it asks for {module}.{name}, and only plain numbers and text are read here"
            )
        return _PICKLE_NAMES[module, name]


def read_pickle(path):
    """Plain data or a numeric array from a pickle; nothing in it is run. Raises UserError."""
    try:
        with open(path, "rb") as file:
            # latin1: Python 2 wrote some of them
            value = RestrictedUnpickler(file, encoding="latin1").load()
        return value.array if isinstance(value, _PickledArray) else value
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path} can't be read ({reason(error)}); get it again, or take it out to have it "
            "made anew"
        ) from None


def read_archive(folder):
    """The archive's own [dictionary, answers], in its index order, so official checkpoints fit.

    Raises UserError.
    """
    dictionary, *answers = ARCHIVE_PICKLES
    pairs = {
        dictionary: read_pickle(folder / dictionary),
        " and ".join(answers): [read_pickle(folder / name) for name in answers],
    }
    for names, pair in pairs.items():
        if not _is_index(pair):
            raise UserError(
                f"{folder}: {names} must hold a dictionary of texts to numbers and the list of the "
                "same texts; get it again"
            )
    return [words for _, words in pairs.values()]


def _is_index(pair):
    """True for (a dictionary of words to their numbers, the list of these words)."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        return False
    index, words = pair
    if type(index) is not dict or type(words) is not list or not words:
        return False
    if not all(type(word) is str for word in words):
        return False
    return index == {word: i for i, word in enumerate(words)} and len(index) == len(words)


def archive_images(folder, names):
    """Yield the archive's images of `names`, uint8 (224, 224, 3) each. Raises UserError."""
    index, images = read_json(folder / IMAGE_INDEX), read_pickle(folder / IMAGE_PICKLE)
    array = isinstance(images, np.ndarray) and images.dtype.kind == "f"
    if not array or images.shape[1:] != (3, SIZE, SIZE):
        raise UserError(
            f"{folder / IMAGE_PICKLE} must hold a float array of (images, 3, {SIZE}, {SIZE}); "
            "get it again"
        )
    rows = {name: index.get(name) if isinstance(index, dict) else None for name in names}
    bad = [n for n, row in rows.items() if type(row) is not int or not 0 <= row < len(images)]
    if bad:
        raise UserError(
            f"{folder / IMAGE_INDEX} gives no row of {IMAGE_PICKLE} for {shorten(bad)}; get both "
            "again"
        )
    for name, row in rows.items():
        image = images[row].transpose(1, 2, 0)  # (224, 224, 3), normalised
        image = image * np.float32(STD) + np.float32(MEAN)
        if not np.isfinite(image).all():
            raise UserError(
                f"{folder / IMAGE_PICKLE}, row {row} ({name}) holds numbers that are not finite; "
                "get it again"
            )
        yield np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
