"""Organ sets as the user has them: list files and class folders (docs/FORMATS.md section 1)."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from readers.json_files import read_json
from utils import UserError, log

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
CLASSES_FILE = "classes.txt"  # names of the classes, one a line, in order of value
TARGET_KEYS = ("mask", "class", "label")  # of an object in a JSON list, beside "image"


class Sample(NamedTuple):
    """One image: its file, and its mask's file (segmentation) or its class (classification)."""

    image: Path
    target: object


def read_parts(folder, log=log):
    """({"train": [Sample], "val": [Sample]}, class names) of an organ set; val may be empty.

    A target is a mask's path, and then there are no names (None), or the position of its class
    among the names. Files that are no images are left out with a warning. Raises UserError for
    the first thing that can't be used, naming it.
    """
    lists = {part: _find_list(folder, part) for part in ("train", "val")}
    _check_forms(folder, lists)
    if lists["train"]:
        parts = {part: _read_list(path, folder) if path else [] for part, path in lists.items()}
        masks = isinstance(parts["train"][0].target, Path)
        names = None if masks else _class_names(parts["train"], folder)
    else:
        names = _subfolders(folder / "train")
        parts = _read_folders(folder, names, log)
    if names:
        parts = {part: _index(parts[part], names, lists[part], folder) for part in parts}
        if len(names) < 2:
            raise UserError(f"{folder} has one class only, {names[0]}: at least two are needed")
    elif odd := [sample for sample in parts["val"] if not isinstance(sample.target, Path)]:
        raise UserError(
            f"{lists['val']}: {odd[0].image.name} has a class and the training images have masks"
        )
    _check_once(parts)
    return parts, names


def training_source(folder, name):
    """The list file, or the class folder `name`, that holds training images: for messages."""
    return _find_list(folder, "train") or folder / "train" / name


def read_class_file(folder):
    """The names in classes.txt, or None without that file. Raises UserError for a bad one."""
    path = folder / CLASSES_FILE
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{path}: at least two different names are wanted, one a line")
    return names


def _find_list(folder, part):
    """The list file of a part, or None."""
    paths = folder / f"{part}.txt", folder / f"{part}.json"
    return next((path for path in paths if path.is_file()), None)


def _check_forms(folder, lists):
    """Raise UserError for a folder without a set, or one that mixes lists and class folders."""
    train, val = lists["train"], lists["val"]
    if train and not val and (folder / "val").is_dir():
        raise UserError(
            f"{folder} holds {train.name} and a folder val/, which it does not list: list the "
            f"held-out images in {train.name.replace('train', 'val')}, or take val/ away and a "
            "fifth of the training images is held out"
        )
    if val and not train and (folder / "train").is_dir():
        raise UserError(
            f"{folder} holds {val.name} and a folder train/: make both parts lists, or both folders"
        )
    if val and not train:
        raise UserError(
            f"{folder} holds {val.name} and no {val.name.replace('val', 'train')}: put it beside"
        )
    if not train and not (folder / "train").is_dir():
        raise UserError(
            f"{folder} holds no organ set: neither train/ with a folder a class, nor train.txt or "
            "train.json was found"
        )


def _index(samples, names, path, folder):
    """The samples with class positions for class names. `path`: the list they come from."""
    index = {name: position for position, name in enumerate(names)}
    has_file = (folder / CLASSES_FILE).is_file()
    if has_file and path:  # classes may stand in a list by their number
        index = {str(position): position for position in range(len(names))} | index
    for sample in samples:
        if isinstance(sample.target, Path) or sample.target not in index:
            lacks = "which no training image has"
            if has_file:
                lacks = f"which {folder / CLASSES_FILE} does not name: add it there"
            raise UserError(
                f"{path}: {sample.image.name} has the class {str(sample.target)!r}, {lacks}"
            )
    return [Sample(sample.image, index[sample.target]) for sample in samples]


def _check_once(parts):
    """Raise UserError for an image that is listed twice, or both for training and held out."""
    seen = {}
    for part, samples in parts.items():
        for sample in samples:
            path = os.path.realpath(sample.image)  # Path.resolve fails on a link to itself
            if path in seen:
                where = "twice" if seen[path] == part else "both for training and held out"
                raise UserError(
                    f"{sample.image} is listed {where}: held-out figures would be worth nothing, "
                    "take one out"
                )
            seen[path] = part


def _subfolders(folder):
    """The names of the class folders in `folder`, sorted. Raises UserError when it has none."""
    names = sorted(
        _plain(path.name, folder)
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    for name in names:
        inside = os.path.realpath(folder / name)
        if os.path.commonpath([os.path.realpath(folder), inside]) == inside:
            raise UserError(
                f"{folder / name} is a link to a folder that holds the data itself: take it out"
            )
    if not names:
        raise UserError(
            f"{folder} has no class folders: put each class's images in a folder with its name"
        )
    return names


def _read_folders(folder, names, log):
    """Class folders, read as torchvision's ImageFolder does: parts as in `read_parts`, by name.

    Raises UserError for an empty class folder and for one that training lacks.
    """
    parts, left_out = {"train": [], "val": []}, Counter()
    for part, samples in parts.items():
        for name in _subfolders(folder / part) if (folder / part).is_dir() else ():
            place = folder / part / name
            if name not in names:
                raise UserError(
                    f"{place}: a class that {folder / 'train'} has not; add it there or take it out"
                )
            paths = [path for path in place.rglob("*") if not path.name.startswith(".")]
            found = sorted(path for path in paths if path.suffix.lower() in SUFFIXES)
            others = [path for path in paths if path.suffix.lower() not in SUFFIXES]
            left_out.update(path.suffix.lower() for path in others if os.path.isfile(path))
            if not found:
                raise UserError(
                    f"{place} is an empty class folder: put images in it "
                    f"({', '.join(sorted(SUFFIXES))}) or take it out"
                )
            for path in found:
                _plain(str(path.relative_to(folder)), place)
                samples.append(Sample(path, name))
    if left_out:
        kinds = ", ".join(
            f"{count} {(suffix if suffix.isprintable() else ascii(suffix))[:20] or 'with none'}"
            for suffix, count in left_out.most_common(5)
        )
        log(
            f"WARNING: {folder}: {left_out.total()} files left out for their suffix "
            f"({kinds}{', ...' if len(left_out) > 5 else ''}): only "
            f"{', '.join(sorted(SUFFIXES))} are read"
        )
    return parts


def _plain(name, where):
    """`name`, if it is text that can be written again. Raises UserError."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: the name {name[:200]!r} is not valid UTF-8; rename it") from None
    return name


def _read_list(path, folder):
    """A list file: [Sample(image path, mask path or class name)].

    Raises UserError naming file and line.
    """
    samples = []
    for where, row in _json_rows(path) if path.suffix == ".json" else _text_rows(path):
        sample = _read_row(row, where, folder)
        if samples and isinstance(sample.target, Path) != isinstance(samples[0].target, Path):
            raise UserError(f"{where}: either all entries have masks or all have classes")
        samples.append(sample)
    if not samples:
        raise UserError(f"{path} lists no image")
    return samples


def _read_row(row, where, folder):
    """One row of a list, [image, mask or class], as a Sample. Raises UserError."""
    if len(row) != 2 or not isinstance(row[0], str) or not isinstance(row[1], (str, int)):
        raise UserError(
            f"{where}: an image and a mask are wanted (a tab between them where a name has spaces)"
        )
    image, target = row[0].strip(), str(row[1]).strip()
    is_mask = Path(_plain(target, where)).suffix.lower() in SUFFIXES
    if not is_mask and "\0" not in target and os.path.isfile(folder / target):
        raise UserError(
            f"{where}: {target} can't be read as a mask: PNG, BMP, GIF, TIFF or PPM files are "
            "wanted"
        )
    for name in (image, target) if is_mask else (image,):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(
                f"{where}: {name} leaves the data's folder; name files relative to {folder}"
            )
        if "\0" in _plain(name, where) or not os.path.isfile(folder / name):
            raise UserError(f"{where}: {name[:200]!r} is not there; it is looked for in {folder}")
    return Sample(folder / image, folder / target if is_mask else target)


def _text_rows(path):
    """[(where, row)] of a text list; a row is its words, or its parts between tabs."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} can't be read as text ({error}); lines `image mask` are wanted"
        ) from None
    return [
        (f"{path}, line {number}", line.split("\t") if "\t" in line else line.split())
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _json_rows(path):
    """[(where, row)] of a JSON list in one of its forms. Raises UserError for another form."""
    value = read_json(path)
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), list):
        value = next(iter(value.values()))  # {"train": [...]}
    if isinstance(value, dict):
        columns = list(value.values())
        lists = len(columns) == 2 and all(isinstance(column, list) for column in columns)
        if lists and len(columns[0]) == len(columns[1]):
            value = [list(pair) for pair in zip(*columns)]  # {"image": [...], "mask": [...]}
        else:
            value = [list(pair) for pair in value.items()]  # {image: mask}
    if not isinstance(value, list):
        raise UserError(
            f"{path} must hold a list of pairs, of objects with image and mask, or one object of "
            "image: mask"
        )
    rows = []
    for number, row in enumerate(value, 1):
        where = f"{path}, entry {number}"
        if isinstance(row, dict):
            targets = [row[key] for key in TARGET_KEYS if key in row]
            row = [row.get("image"), targets[0] if targets else None]
        if not isinstance(row, list):
            raise UserError(
                f"{where}: an image and a mask or class are wanted, as a pair or as an object "
                "with image and mask"
            )
        rows.append((where, row))
    return rows


def _class_names(samples, folder):
    """The class names of a list: those of classes.txt, else those that occur.

    Numbers are in numeric order and stand before other names.
    """

    def order(name):  # Python reads no number of more than 4,300 digits
        number = name.isdecimal() and len(name) <= 4000
        return not number, int(name) if number else 0, name

    return read_class_file(folder) or sorted({sample.target for sample in samples}, key=order)
