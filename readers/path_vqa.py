"""PathVQA in its own layout: pathology, images/<part>/ and a list of questions for each part.

docs/FORMATS.md section 1 describes it. Its records have an image, a question and an answer.
"""

from readers.archive import read_pickle
from readers.data_set import DataSet, checked_parts, file_images, image_names, log_skipped
from readers.image_names import by_stem, with_ending
from readers.json_files import read_json
from readers.names import find_file, find_folders
from readers.records import OPTIONAL, check_records, find_json
from utils import UserError

MARKS = {"train": "train", "validation": "val", "test": "test"}  # of the parts, in names
FIELDS = ("question", "answer")


def holds(folder):
    """True for a folder with images/train/ and a list of training questions."""
    return bool(_image_folders(folder, "train") and _find_list(folder, "train"))


def _image_folders(folder, mark):
    """The folders images/<mark> in a folder: none or one, or several that are called alike."""
    found = [find_folders(above, [mark]) for above in find_folders(folder, ["images"])]
    return sum(found, [])


def _find_list(folder, mark):
    """The path of a part's list, in qas/<mark>/, in qas/ or in the folder itself, or None."""
    lists = find_folders(folder, ["qas"])
    places = sum((find_folders(above, [mark]) for above in lists), [*lists, folder])
    for place in places:
        found = find_json(place, f"{mark}_qa.json") or find_json(place, f"{mark}.json")
        if found := found or find_file(place, f"{mark}_qa.pkl"):
            return found
    return None


def read(folder, options, log):
    """PathVQA in `folder`, as a DataSet. Raises UserError.

    Nothing in a pickle is run. Records with an empty answer are left out and logged.
    """
    lists, parts = {}, {}
    for part, mark in MARKS.items():
        if path := _find_list(folder, mark):
            places = _image_folders(folder, mark)
            if not places:
                raise UserError(f"{folder} has no folder images/{mark}/: put it there")
            within, stems = places[0].relative_to(folder).as_posix(), by_stem(places[0])
            records = read_pickle(path) if path.suffix == ".pkl" else read_json(path, lines=True)
            lists[path], parts[part] = _named(records, within, stems), path
    skipped = {}
    checked = dict(zip(lists, check_records(lists, OPTIONAL, options, {}, skipped)))
    train, val, test = checked_parts(folder, {part: checked[path] for part, path in parts.items()})
    log_skipped(skipped, log)
    names = image_names(train, val, test)
    images, files = file_images(folder, names)
    return DataSet("PathVQA", train, val, test, names, images, [*lists, *files])


def _named(records, within, stems):
    """Our fields of records whose images lie in `within`; what is no record stays as it is."""
    if not isinstance(records, list):
        return records
    named = []
    for record in records:
        if isinstance(record, dict):
            name = record.get("image")
            name = f"{within}/{with_ending(name, stems)}" if isinstance(name, str) else name
            record = {field: record.get(field) for field in FIELDS} | {"image_name": name}
        named.append(record)
    return named
