"""The prepared files of a VQA-RAD folder: their place, whether they are current, how they are made.

docs/FORMATS.md section 2 lists them. They can be deleted at any time.
"""

import contextlib

from readers.digests import digest_bytes, digest_files
from readers.h5_files import is_current, write_rows
from readers.json_files import read_json
from utils import SIZE, UserError, cache_base, first_writable, write_json

H5_NAME = "images224x224.h5"
PREPARED_VERSION = "3"  # raise it when prepared files must be made anew


def source_digest(sources):
    """Digest of the names and contents of the JSON files, pickles and images. Raises UserError."""
    try:
        return digest_bytes(PREPARED_VERSION, digest_files(sources))
    except OSError as error:
        raise UserError(
            f"{error.filename} can't be read ({error.strerror}); mend that or get the file again"
        ) from None


def cache_folder(folder):
    """The cache's folder for the data set in `folder`."""
    return cache_base() / digest_bytes(str(folder.resolve()))


def choose_prepared(folder, digest, count, dictionary, answers):
    """(folder for the prepared files of `folder`, whether they are there, current and whole).

    count: number of images. Raises UserError when they must be made and no folder can be written.
    """
    folders = [folder / "prepared", cache_folder(folder)]
    for prepared in folders:
        with contextlib.suppress(UserError):  # a missing or damaged file is made anew
            if (
                is_current(prepared / H5_NAME, "images", count, digest)
                and read_json(prepared / "dictionary.json") == dictionary
                and read_json(prepared / "answers.json") == answers
            ):
                return prepared, True
    return first_writable(folders), False


def write_prepared(prepared, images, names, digest, dictionary, answers):
    """Write the prepared files to the folder `prepared`. An error leaves no empty folder behind.

    images: an iterable of uint8 (224, 224, 3), in the order of `names`.
    """
    try:
        path, size = prepared / H5_NAME, {"size": SIZE}
        write_rows(path, "images", images, len(names), digest, names, size)
        write_json(prepared / "dictionary.json", dictionary)
        write_json(prepared / "answers.json", answers)
    except BaseException:
        with contextlib.suppress(OSError):
            prepared.rmdir()  # it stays if it holds a file
        raise
