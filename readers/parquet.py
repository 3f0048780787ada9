"""Hugging Face's parquet: VQA-RAD, SLAKE, PathVQA and others, with the images in the files.

docs/FORMATS.md section 1 lists the columns. pyarrow is imported when such a set is read.
"""

import re
import tempfile
from pathlib import Path, PurePosixPath

from readers import slake
from readers.data_set import PARTS, DataSet, checked_parts, file_images, image_names, log_skipped
from readers.digests import digest_bytes
from readers.image_names import ImageFiles
from readers.images import read_images
from readers.names import find_folders, listing, places, shown, slashed
from readers.record_fields import FIELDS, is_text
from readers.records import LIKELY, OPTIONAL, check_records, check_unique
from utils import UserError, optional, reason

SUFFIX = ".parquet"
MARKS = {"train": "train", "val": "validation", "dev": "validation", "test": "test"}
# the fields whose columns may have one of LIKELY's names; those of others mean other things
LOOSE = ("question", "answer", "image_organ", "question_type")
ROWS = 64  # that are read at once: each may hold a picture


def holds(folder):
    """True for a folder with parquet files, in the places of `_files`."""
    return bool(_files(folder))


def _files(folder):
    """The parquet files in a folder, else in its folder data/, else in a folder for each part.

    Hugging Face's own conversion has the last, in default/ or a folder with another name.
    """
    for group in _groups(folder):
        paths = [place / name for place in group for name in listing(place)]
        if files := [path for path in paths if path.name.lower().endswith(SUFFIX)]:
            return files
    return []


def _groups(folder):
    """Yield the folders that may hold a set's files together, the likeliest first."""
    yield [folder]
    yield find_folders(folder, ["data"])
    yield [part for place in places(folder) for part in find_folders(place, MARKS)]


def read(folder, options, log):
    """The set in `folder`, as a DataSet. Raises UserError.

    options: see readers/sets.py; "language" chooses among records with a q_lang. Records with an
    empty answer are left out and logged.
    """
    parts, skipped, pictures = {part: [] for part in PARTS}, {}, _Pictures()
    for path in _files(folder):
        mark = re.search("|".join(MARKS), f"{path.name} {path.parent.name}".lower())
        if not mark:
            raise UserError(f"{path}: train, validation or test is wanted in its name: rename it")
        parts[MARKS[mark[0]]].append(path)
    language = options.get("language", "en")
    lists = {path: _records(path, pictures, language) for paths in parts.values() for path in paths}
    everything = [record for records in lists.values() for record in records]
    _drop_gaps(folder, everything, log)
    for record in everything:
        if pictures.names and record["image_name"] not in pictures.taken:
            record["image_name"] = None  # the only ones without a picture in the file
    checked = dict(zip(lists, check_records(lists, OPTIONAL, options, slake.ORGAN_MAP, skipped)))
    check_unique(sum(checked.values(), []), folder)
    parts = {part: sum((checked[path] for path in paths), []) for part, paths in parts.items()}
    where = f"{folder} (questions in {slake.LANGUAGES[language]})"
    train, val, test = checked_parts(where, parts)
    log_skipped(skipped, log)
    title, names = f"{folder.name} (parquet)", image_names(train, val, test)
    if not pictures.names:
        images, files = file_images(folder, names, find_folders(folder, slake.IMAGES))
        return DataSet(title, train, val, test, names, images, [*lists, *files])
    wanted = set(names)
    names = [name for name in pictures.names.values() if name in wanted]
    files = ImageFiles(dict.fromkeys(names), {}, f"{folder}; get the files again")
    images = read_images(files, _opened(list(lists), pictures.names, wanted, language))
    return DataSet(title, train, val, test, names, images, list(lists))


class _Pictures:
    """The distinct pictures in the files: `names`, {digest: name}, in order of occurrence."""

    def __init__(self):
        self.names, self.taken = {}, set()

    def name(self, value):
        """The name of the picture in a cell, its own where no other has it, or None without one."""
        data, path = _content(value)
        if data is None:
            return path
        digest = digest_bytes(data)
        if digest not in self.names:
            name = PurePosixPath(slashed(path or "")).name[:200].strip()  # as of a record
            if name in ("", "..") or name in self.taken or not is_text(name):
                name = digest
            self.names[digest] = name
            self.taken.add(name)
        return self.names[digest]


def _content(value):
    """(bytes or None, path or None) of the cell of an image's column."""
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
    else:
        data, path = value, value
    data = data if isinstance(data, bytes) and data else None
    return data, path if isinstance(path, str) else None


def _rows(path, language, fields=None):
    """Yield the rows of a file in one language, {field: value}, with some fields or all known.

    A row without q_lang is in English. Raises UserError for a file that can't be read, or lacks a
    column that is needed.
    """
    parquet = optional("pyarrow.parquet")
    try:
        if not path.is_file():  # a pipe or a device never ends
            raise UserError(f"{path} is not a file")
        file = parquet.ParquetFile(path)
        columns = _columns(path, file.schema_arrow.names)
        columns = {field: columns[field] for field in fields or columns if field in columns}
        for batch in file.iter_batches(ROWS, columns=list(columns.values())):
            for row in batch.to_pylist():
                found = {field: row[column] for field, column in columns.items()}
                if (found.pop("q_lang", None) or "en") == language:
                    yield found
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many types for damaged files
        raise UserError(
            f"{path} can't be read as parquet ({reason(error)}); get it again"
        ) from None


def _columns(path, names):
    """{our field, or q_lang: the column that holds it}. Raises UserError without one needed."""
    plain = {re.sub(r"[\s_-]", "", name).casefold(): name for name in reversed(names)}
    columns = {}
    for field in (*FIELDS, "modality", "q_lang"):
        likely = [*LIKELY[field].split()] if field in LOOSE else []
        likely = ["image", "img", "imgname"] if field == "image_name" else likely
        found = [plain[name] for name in likely if name in plain]
        if field in names or found:
            columns[field] = field if field in names else found[0]
    if "image" in names:  # the pictures themselves rather than their names
        columns["image_name"] = "image"
    if lacking := [name for name in ("image_name", "question", "answer") if name not in columns]:
        lacking = ", ".join(lacking).replace("image_name", "image")
        raise UserError(f"{path} has no column {lacking}; it has {shown(names)}")
    return columns


def _records(path, pictures, language):
    """The records of a file in one language, with the names of their pictures."""
    return [row | {"image_name": pictures.name(row["image_name"])} for row in _rows(path, language)]


def _drop_gaps(folder, records, log):
    """Take the optional fields that some records have and others lack from all, and log them."""
    for field in OPTIONAL:
        gaps = sum(record.get(field) is None for record in records)
        if 0 < gaps < len(records):
            log(f"NOTE: {folder}: {field} is not used: {gaps} of {len(records)} records lack it")
        if gaps:
            for record in records:
                record.pop(field, None)


def _opened(paths, names, wanted, language):
    """Yield (name, path of a temporary file) of each picture, in the order of `names`.

    The order is that of the rows in one language, as `names` has it.
    """
    done = set()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture"
        for path in paths:
            for row in _rows(path, language, ["image_name", "q_lang"]):
                data, _ = _content(row["image_name"])
                digest = data and digest_bytes(data)
                if digest in names and names[digest] in wanted and digest not in done:
                    done.add(digest)
                    file.write_bytes(data)
                    yield names[digest], file
