"""VQA-Med 2019 (ImageCLEF) in its own layout: four categories of questions on MedPix images.

docs/FORMATS.md section 1 describes it.
"""

import re

from readers.data_set import DataSet, checked_parts, file_images, image_names, log_skipped
from readers.image_names import by_stem, with_ending
from readers.json_files import read_bytes
from readers.names import find_folders, fold, listing, loose, places, shown
from readers.records import check_records
from text_rules import normalise_answer
from utils import UserError, shorten

BY_CATEGORY = "QAPairsByCategory"
TYPES = {"C1": "MODALITY", "C2": "PLANE", "C3": "ORGAN", "C4": "ABN"}  # of the questions
CATEGORIES = {"three": ("C1", "C2", "C3"), "all": tuple(TYPES)}
# how the test file calls the categories
NAMES = {"modality": "C1", "plane": "C2", "organ": "C3", "abnormality": "C4"}
MARKS = {"train": "train", "validation": "val", "test": "test"}  # of the parts, in names
LIST = re.compile(r"(c[1-4])[^a-z0-9].*(train|val|test)[^/]*\.txt")
ANSWERS = re.compile(r".*test.*answers?.*\.txt")


def holds(folder):
    """True for a folder with a part that has QAPairsByCategory/."""
    return any(find_folders(place, [BY_CATEGORY]) for place in places(folder))


def read(folder, options, log):
    """VQA-Med 2019 in `folder`, as a DataSet. Raises UserError.

    options: see readers/sets.py; "categories" is three (without abnormality) or all. Where no test
    part with answers is there, the validation part is the test part.
    """
    wanted = CATEGORIES[options.get("categories", "three")]
    lists, parts = {}, {}  # {path: records}, {part: its paths}
    for part, files in _find_lists(folder).items():
        images = _image_folder(folder, part)
        if part == "test":
            rows = {files[0]: _read_lines(files[0], 4)}
        else:
            if lacking := [name for name in wanted if name not in files]:
                raise UserError(
                    f"{folder}: the {part} part has no {' and no '.join(lacking)}_..._"
                    f"{MARKS[part]}.txt in {BY_CATEGORY}/: put it there"
                )
            rows = {
                files[name]: [
                    (image, name, *texts) for image, *texts in _read_lines(files[name], 3)
                ]
                for name in TYPES
                if name in files
            }
        everything = [row for of_file in rows.values() for row in of_file]
        organs = {row[0]: row[3] for row in everything if _category(row) == "C3"}
        for path, of_file in rows.items():
            chosen = [row for row in of_file if _category(row) in wanted]
            if chosen:
                lists[path] = [_record(row, images, organs) for row in chosen]
                parts.setdefault(part, []).append(path)
            elif part == "test" and not any(_category(row) in TYPES for row in of_file):
                raise UserError(
                    f"{path}: no line has one of the categories {shown(NAMES)}: get it again"
                )
    skipped, optional = {}, ("qid", "answer_type", "phrase_type")
    checked = dict(zip(lists, check_records(lists, optional, options, {}, skipped)))
    log_skipped(skipped, log)
    parts = {part: sum((checked[path] for path in paths), []) for part, paths in parts.items()}
    title = "VQA-Med 2019"
    if "test" in parts:
        _choose_alternatives(parts.get("train", []), parts["test"])
    elif "validation" in parts:
        parts["test"] = parts.pop("validation")
        title += ", tested on its validation part"
    train, val, test = checked_parts(folder, parts)
    names = image_names(train, val, test)
    pixels, files = file_images(folder, names)
    return DataSet(title, train, val, test, names, pixels, [*lists, *files])


def _find_lists(folder):
    """{"train" or "validation": {category: path}, "test": [path]} of what is there."""
    found = {}
    for place in places(folder):
        for lists in find_folders(place, [BY_CATEGORY]):
            for name in listing(lists):
                if match := LIST.fullmatch(fold(name)):
                    part = next(part for part, mark in MARKS.items() if mark == match[2])
                    if part != "test":  # it has a list of its own form
                        found.setdefault(part, {})[match[1].upper()] = lists / name
        tests = [name for name in listing(place) if ANSWERS.fullmatch(fold(name))]
        if tests:
            found["test"] = [place / tests[0]]
    return {part: found[part] for part in MARKS if part in found}


def _category(row):
    """The category, C1 to C4, of a row (image, category, question, answer)."""
    return NAMES.get(fold(row[1].strip()), row[1].strip().upper())


def _image_folder(folder, part):
    """(name below `folder` of the folder with a part's images, {folded stem: names in it}).

    Raises UserError where there is none.
    """
    for place in places(folder):
        for name in listing(place):
            plain = loose(name)
            named = MARKS[part] in plain and plain.endswith(("images", "image"))
            if named and (place / name).is_dir():
                return (place / name).relative_to(folder).as_posix(), by_stem(place / name)
    names = [name for place in places(folder) for name in listing(place)]
    packed = shown([name for name in names if name.lower().endswith(".zip")])
    raise UserError(
        f"{folder} has no folder with the images of the {part} part, as "
        f"{MARKS[part].title()}_images/: put it there (packed files: {packed})"
    )


def _record(row, images, organs):
    """A record of a row; the organ is what the part's third category says of the image."""
    image, _, question, answer = row
    within, stems = images
    return {
        "image_name": f"{within}/{with_ending(image, stems)}",
        "image_organ": organs.get(image, ""),
        "question": question,
        "answer": answer,
        "question_type": TYPES.get(_category(row), "OTHER"),
    }


def _choose_alternatives(train, test):
    """Of the answers `one#another` of test records keep the first that training has."""
    known = {normalise_answer(record["answer"]) for record in train}
    for record in test:
        several = [text for text in record["answer"].split("#") if normalise_answer(text)]
        several.append(record["answer"])  # "#" itself may be the answer
        record["answer"] = next((t for t in several if normalise_answer(t) in known), several[0])


def _read_lines(path, columns):
    """The rows of a list with `|` between columns; the last one may hold `|`. Raises UserError.

    The encoding is UTF-8 or, as for some of the set's files, Windows-1252.
    """
    data = read_bytes(path)
    if b"\0" in data:
        raise UserError(f"{path} is not text in UTF-8: get it again")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    rows = {number: line.split("|", columns - 1) for number, line in lines.items()}
    if bad := [f"line {number}" for number, row in rows.items() if len(row) < columns]:
        form = "image|category|question|answer" if columns == 4 else "image|question|answer"
        raise UserError(f"{path}: {form} is wanted in {shorten(bad)}: get the file again")
    return [[text.strip() for text in row] for row in rows.values()]
