"""Organ sets as the user has them: list files and class folders (docs/FORMATS.md section 1)."""

import os
from collections import Counter
from pathlib import Path

from readers.list_files import SUFFIXES, Sample, plain, read_list
from readers.names import listing, shown
from utils import UserError, log

CLASSES_FILE = "classes.txt"  # names of the classes, one a line, in order of value


def read_parts(folder, log=log):
    """({"train": [Sample], "val": [Sample]}, class names) of an organ set; val may be empty.

    A target is a mask's path, and then there are no names (None), or the position of its class
    among the names. Files that are no images are left out with a warning. Raises UserError for
    the first thing that can't be used, naming it.
    """
    lists = {part: _find_list(folder, part) for part in ("train", "val")}
    _check_forms(folder, lists)
    if lists["train"]:
        parts = {part: read_list(path, folder, log) if path else [] for part, path in lists.items()}
        masks = isinstance(parts["train"][0].target, Path)
        names = None if masks else _class_names(parts["train"], folder)
    else:
        names = _subfolders(folder / "train")
        parts = _read_folders(folder, names, log)
    if names:
        index = {name: position for position, name in enumerate(names)}
        if lists["train"] and (folder / CLASSES_FILE).is_file():
            index = _numbers(parts, names) | index
        parts = {part: _index(parts[part], index, lists[part], folder) for part in parts}
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
            f"train.json was found; it holds {shown(listing(folder))}"
        )


def _numbers(parts, names):
    """{number in a list, as text: position} of the classes in classes.txt.

    They count from 1 where the lists have the last such number and no 0, else from 0.
    """
    listed = {sample.target for samples in parts.values() for sample in samples}
    first = int("0" not in listed and str(len(names)) in listed)
    return {str(first + position): position for position in range(len(names))}


def _index(samples, index, path, folder):
    """The samples with class positions for class names. `path`: the list they come from."""
    for sample in samples:
        if isinstance(sample.target, Path) or sample.target not in index:
            lacks = "which no training image has"
            if (folder / CLASSES_FILE).is_file():
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
        plain(path.name, folder)
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
                plain(str(path.relative_to(folder)), place)
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


def _class_names(samples, folder):
    """The class names of a list: those of classes.txt, else those that occur.

    Numbers are in numeric order and stand before other names.
    """

    def order(name):  # Python reads no number of more than 4,300 digits
        number = name.isdecimal() and len(name) <= 4000
        return not number, int(name) if number else 0, name

    return read_class_file(folder) or sorted({sample.target for sample in samples}, key=order)
