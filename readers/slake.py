"""SLAKE 1.0 in its own layout: questions in English and Chinese on CT, MRI and X-ray images.

docs/FORMATS.md section 1 describes it. The names of its files are the official ones or Hugging
Face's.
"""

import re

import numpy as np

from readers.data_set import DataSet, checked_parts, file_images, image_names, log_skipped
from readers.images import ColourError, read_mask
from readers.json_files import read_bytes
from readers.names import find_file, find_folders, fold, listing, shown
from readers.records import check_records, check_unique, find_json, read_lists
from utils import UserError

IMAGES = ("imgs", "images")
FILES = {  # the names of each part's file
    "train": ("train.json",),
    "validation": ("validate.json", "validation.json", "val.json"),
    "test": ("test.json",),
}
MASK_NAMES = "mask.txt"
VALUE = re.compile(r"\s*([0-9]{1,3})\s*:(.*)")  # a line of it: a mask's value and its name
LANGUAGES = {"en": "English", "zh": "Chinese"}
FIELDS = {  # SLAKE's: ours
    "img_name": "image_name",
    "location": "image_organ",
    "content_type": "question_type",
}
ORGANS = {
    "CHEST": ("Lung", "Chest", "Chest_lung", "Chest_heart", "Chest_mediastinal"),
    "HEAD": ("Brain", "Brain_Tissue", "Brain_Face", "Neck"),
    "ABD": ("Abdomen", "Pelvic Cavity"),
}
ORGAN_MAP = {fold(name): code for code, names in ORGANS.items() for name in names}


def holds(folder):
    """True for a folder with a train.json that names `img_name`, or stands beside imgs/."""
    if (path := find_json(folder, FILES["train"][0])) is None:
        return False
    try:
        with open(path, "rb") as file:
            return b'"img_name"' in file.read(1 << 16) or bool(find_folders(folder, IMAGES[:1]))
    except OSError:
        return False


def read(folder, options, log):
    """SLAKE in `folder`, as a DataSet. Raises UserError.

    options: see readers/sets.py; "language" is en or zh. Records with an empty answer are left
    out and logged.
    """
    language, paths = options.get("language", "en"), {}
    for part, names in FILES.items():
        found = [path for name in names if (path := find_json(folder, name))]
        if len(found) > 1:
            both = " and ".join(path.name for path in found)
            raise UserError(f"{folder} holds {both}: take one of them out")
        if not found and part != "validation":
            raise UserError(
                f"{folder} holds SLAKE without {names[0]}: put it there (now it holds "
                f"{shown(listing(folder))})"
            )
        paths |= {part: path for path in found}
    lists, skipped = read_lists(list(paths.values())), {}
    for path, records in lists.items():
        lists[path] = _in_language(records, language)
    parts = check_records(lists, ("phrase_type",), options, ORGAN_MAP, skipped)
    check_unique(sum(parts, []), folder)
    where = f"{folder} (questions in {LANGUAGES[language]})"
    train, val, test = checked_parts(where, dict(zip(paths, parts)))
    log_skipped(skipped, log)
    names = image_names(train, val, test)
    images, files = file_images(folder, names, find_folders(folder, IMAGES))
    sources = [*paths.values(), *files]
    return DataSet(f"SLAKE, {LANGUAGES[language]}", train, val, test, names, images, sources)


def read_structures(folder, names, log):
    """{image's name: names of the structures in its mask}, of those `names` that have a mask.png.

    A folder without mask.txt, which names a mask's values, has none. Colour pictures are left out
    and counted in the log: their values name nothing. Raises UserError for a damaged mask.
    """
    path = find_file(folder, MASK_NAMES)
    if path is None:
        return {}
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    pairs = [match for line in lines if (match := VALUE.fullmatch(line))]
    values = {int(match[1]): fold(match[2].strip()) for match in pairs}
    found, coloured, places = {}, 0, find_folders(folder, IMAGES)
    for name in names:
        for place in places:
            mask = (place / name).with_name("mask.png")
            if mask.is_file():
                try:
                    shown = np.unique(read_mask(mask)).tolist()
                except ColourError:
                    coloured += 1
                    continue
                found[name] = [values[value] for value in shown if value in values]
    if coloured:
        log(f"NOTE: {folder}: masks left out for being colour pictures: {coloured}")
    return found


def _in_language(records, language):
    """The records of one language with our names of fields; what is no record stays as it is.

    A record without q_lang is in English.
    """
    if not isinstance(records, list):
        return records
    return [
        {FIELDS.get(key, key): value for key, value in record.items()}
        if isinstance(record, dict)
        else record
        for record in records
        if not isinstance(record, dict) or (record.get("q_lang") or "en") == language
    ]
