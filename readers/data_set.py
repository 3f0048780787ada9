"""What every reader of a data set returns, and what several of them do alike."""

from typing import Iterable, NamedTuple

from readers.image_names import find_images
from readers.images import read_images
from readers.records import IMAGE_FOLDER
from utils import UserError, shorten

PARTS = ("train", "validation", "test")


class DataSet(NamedTuple):
    """A data set as its reader found it; nothing behind the reader knows which set it was.

    train, validation, test: clean records (docs/FORMATS.md section 1); there may be no
    validation. names: of the images, in the order of `images`, uint8 (224, 224, 3) each.
    sources: the paths of all files that these come from. dictionary, answers: the set's own, or
    None where they are to be built from the training records.
    """

    title: str
    train: list
    validation: list
    test: list
    names: list
    images: Iterable
    sources: list
    dictionary: list | None = None
    answers: list | None = None


def image_names(*parts):
    """The sorted names of the images in some lists of records."""
    return sorted({record["image_name"] for part in parts for record in part})


def file_images(folder, names, places=()):
    """(an iterable of the images `names`, their paths). Raises UserError for missing ones.

    places: folders to look in before the usual ones.
    """
    files = find_images(folder, names, places)
    usual = f"images/, '{IMAGE_FOLDER}/' and {folder} itself are possible"
    images = read_images(files._replace(where=f"{files.where} ({usual}): put good copies there"))
    if files.faults:
        list(images)  # it raises, listing the damaged ones too
    return images, list(files.paths.values())


def checked_parts(folder, parts):
    """[training, validation, test] records of {part: records}. Raises UserError without one.

    Only the validation part may be absent.
    """
    if lacking := [part for part in ("train", "test") if not parts.get(part)]:
        raise UserError(
            f"{folder}: there are no {' and no '.join(lacking)} questions; get it again"
        )
    return [parts.get(part, []) for part in PARTS]


def log_skipped(skipped, log):
    """Log one line on the records without an answer that were left out, if there are any.

    skipped: {path: labels}.
    """
    for path, labels in skipped.items():
        log(f"NOTE: {path}: left out for want of an answer: {shorten(labels)}")
