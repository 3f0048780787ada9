"""The prepared files of a data set: their place, whether they are current, how they are made.

docs/FORMATS.md section 2 lists them. They can be deleted at any time.
"""

import contextlib
import json

from readers.digests import digest_bytes, digest_files
from readers.h5_files import is_current, write_rows
from readers.json_files import read_json
from utils import SIZE, UserError, cache_base, first_writable, write_json

H5_NAME = "images224x224.h5"
PREPARED_VERSION = "3"  # raise it when prepared files must be made anew


def source_digest(sources, options):
    """Digest of the names and contents of lists and images, and of the options. Raises UserError.

    options: {name: value} of those that are not the usual ones.
    """
    texts = [json.dumps(options, sort_keys=True)] if options else []
    try:
        return digest_bytes(PREPARED_VERSION, digest_files(sources), *texts)
    except OSError as error:
        raise UserError(
            f"{error.filename} can't be read ({error.strerror}); mend that or get the file again"
        ) from None


def cache_folder(folder):
    """The cache's folder for the data set in `folder`."""
    return cache_base() / digest_bytes(str(folder.resolve()))


def prepare_files(folder, found, options, dictionary, answers, log):
    """(folder of the prepared files of a DataSet, its digest); makes them if need be.

    found: the DataSet in `folder`, as readers/sets.py reads it with `options`. Raises UserError.
    """
    digest, count = source_digest(found.sources, options), len(found.names)
    home, current = choose_prepared(folder, digest, count, dictionary, answers, options)
    if not current:
        questions = len(found.train) + len(found.validation) + len(found.test)
        size = count * SIZE * SIZE * 3 / 1e6  # of the images, which are not packed
        log(
            f"Preparing {questions:,} questions and {count} images of {folder}: "
            f"{size:.0f} MB are written to {home}"
        )
        write_prepared(home, found.images, found.names, digest, dictionary, answers)
    return home, digest


def choose_prepared(folder, digest, count, dictionary, answers, options):
    """(folder for the prepared files of `folder`, whether they are there, current and whole).

    count: number of images. Each choice of `options` (see `source_digest`) has a folder of its
    own, so that a run in one language stays when another one begins. Raises UserError when they
    must be made and no folder can be written.
    """
    part = digest_bytes(json.dumps(options, sort_keys=True))[:8] if options else ""
    folders = [folder / "prepared" / part, cache_folder(folder) / part]
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
