"""List files of organ sets: rows of text or JSON, and the files that they name.

docs/FORMATS.md section 1 lists the forms.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from readers.json_files import read_json
from readers.names import slashed
from utils import UserError, shorten

SUFFIXES = set(".png .jpg .jpeg .bmp .tif .tiff .webp .gif .ppm .pgm .dcm .jp2 .avif".split())
# of an object in a JSON list, beside "image"; as in text, a class counts more than a mask
TARGET_KEYS = ("class", "label", "mask")
NAME_END = re.compile(r"\.[a-z][a-z0-9]{2,3}$", re.IGNORECASE)  # a file's name ends there
FORMS = (
    "`image mask`, `image class` or `image mask class` is wanted, with spaces or tabs between "
    "(a tab where a name has spaces)"
)


class Sample(NamedTuple):
    """One image: its file, and its mask's file (segmentation) or its class (classification)."""

    image: Path
    target: object


def read_list(path, folder, log):
    """A list file: [Sample(image path, mask path or class name)].

    A header and a part of all names that the folder lacks are passed over and logged.
    Raises UserError naming file and line; files that are not there are named together.
    """
    found = _json_rows(path) if path.suffix == ".json" else _text_rows(path, log)
    if not found:
        raise UserError(f"{path} lists no image")
    places, rows = zip(*found)
    images, targets = zip(
        *(_read_row(row, f"{path}, {place}", folder) for place, row in zip(places, rows))
    )
    columns, masks = [images], isinstance(targets[0], Path)
    for place, target in zip(places, targets):
        if isinstance(target, Path) != masks:
            raise UserError(f"{path}, {place}: either all entries have masks or all have classes")
    if masks:
        columns.append([str(target) for target in targets])
    missing, files = [], []
    for names in columns:
        files.append(_find_files(names, places, path, folder, log))
        missing += [
            f"{place}: {name[:200]!r}"
            for name, place, file in zip(names, places, files[-1])
            if not os.path.isfile(file)
        ]
    if missing:
        number = "a file is" if len(missing) == 1 else f"{len(missing)} files are"
        raise UserError(
            f"{path}: {number} not there, {shorten(missing)}; names are looked for in {folder}"
        )
    return [Sample(*row) for row in zip(files[0], files[1] if masks else targets)]


def plain(name, where):
    """`name`, if it is text that can be written again. Raises UserError."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: the name {name[:200]!r} is not valid UTF-8; rename it") from None
    return name


def _is_mask(name):
    return Path(name).suffix.lower() in SUFFIXES


def _read_row(row, where, folder):
    """One row of a list as (image's name, mask's name as a Path, or class). Raises UserError.

    Of [image, mask, class] the mask is left aside. It need not be there.
    """
    good = 2 <= len(row) <= 3 and isinstance(row[0], str) and isinstance(row[-1], (str, int))
    if good and len(row) == 3:
        good = not (row[1] and not Path(str(row[1])).suffix) and not _is_mask(str(row[2]))
    if not good:
        raise UserError(f"{where}: {FORMS}")
    image, target = (plain(str(value).strip(), where) for value in (row[0], row[-1]))
    if _is_mask(target):
        return image, Path(target)
    if "/" in target and NAME_END.search(target) or os.path.isfile(folder / target):
        raise UserError(
            f"{where}: {target} can't be read as a mask: PNG, BMP, GIF, TIFF or PPM files are "
            "wanted"
        )
    return image, target


def _find_files(names, places, path, folder, log):
    """The paths in `folder` of the files that a column names; they need not be there.

    Names are relative to the folder, or begin with a part that all share and the folder lacks: a
    list of another folder, machine or operating system. That part is left out and logged.
    Raises UserError for a file outside the folder.
    """
    parts = [_parts(name, folder) for name in names]
    shared = len(os.path.commonprefix([some[:-1] for some in parts]))

    def find(some, dropped):
        return None if ".." in some[dropped:] else folder.joinpath(*some[dropped:])

    def fits(dropped):
        return any((file := find(some, dropped)) and os.path.isfile(file) for some in parts)

    dropped = next(filter(fits, range(shared + 1)), 0)
    if dropped:
        log(f"NOTE: {path}: {names[0]} is read as {find(parts[0], dropped)}, and so on")
    files = [find(some, dropped) for some in parts]
    if None in files:
        row = files.index(None)
        raise UserError(
            f"{path}, {places[row]}: {names[row]} leaves the data's folder; name files relative "
            f"to {folder}"
        )
    return files


def _parts(name, folder):
    """The parts of a file's name relative to `folder`; those above it are ".."."""
    if "\0" in name:  # no file has it
        return (name,)
    return Path(os.path.relpath(folder / slashed(name, folder), folder)).parts


def _text_rows(path, log):
    """[(place, columns)] of a text list without its comments and its header."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} can't be read as UTF-8 text ({error}); lines `image mask`, `image class` or "
            "`image mask class` are wanted"
        ) from None
    rows = [
        (f"line {number}", _columns(line))
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if [bool(Path(columns[0]).suffix) for _, columns in rows[:2]] == [False, True]:
        log(f"NOTE: {path}, {rows[0][0]} is taken for a header: {' '.join(rows[0][1])}")
        rows = rows[1:]
    return rows


def _columns(line):
    """The columns of a line, between tabs, else spaces. A file's name may have spaces."""
    columns = []
    for part in line.split("\t"):
        words = []
        for word in part.split():
            words.append(word)
            if NAME_END.search(word):
                columns.append(" ".join(words))
                words = []
        columns += [" ".join(words)] if words and "\t" in line else words
    return columns


def _json_rows(path):
    """[(place, row)] of a JSON list in one of its forms. Raises UserError for another form."""
    value = read_json(path)
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), list):
        value = next(iter(value.values()))  # {"train": [...]}
    if isinstance(value, dict):
        columns = list(value.values())
        lists = 2 <= len(columns) <= 3 and all(isinstance(column, list) for column in columns)
        if lists and len(set(map(len, columns))) == 1:
            # {"image": [...], "mask": [...]}, or columns of other names in the usual order
            rows = [list(row) for row in zip(*columns)]
            value = [dict(zip(value, row)) for row in rows] if "image" in value else rows
        else:
            value = [list(pair) for pair in value.items()]  # {image: mask}
    if not isinstance(value, list):
        raise UserError(
            f"{path} must hold a list of pairs, of objects with image and mask, or one object of "
            "image: mask"
        )
    rows = []
    for number, row in enumerate(value, 1):
        place = f"entry {number}"
        if isinstance(row, dict):
            targets = [row[key] for key in TARGET_KEYS if row.get(key) is not None]
            row = [row.get("image"), targets[0] if targets else None]
        if not isinstance(row, list):
            raise UserError(
                f"{path}, {place}: an image and a mask or class are wanted, as a list or as an "
                "object with image and mask, class or label"
            )
        rows.append((place, row))
    return rows
