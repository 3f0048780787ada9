"""Which form of data a folder holds, and what to do about a folder that holds none."""

import shlex
from itertools import groupby

from readers import parquet, path_vqa, records, slake, vqa_med
from readers.image_names import IMAGE_FOLDERS, PACKED
from readers.names import find_folders, listing, shown
from readers.records import ARCHIVE_PICKLES, PUBLIC_JSON, TEST_JSON, TRAIN_JSON
from utils import PHANTOM_MARK, UserError

PAGE, JSON = "osf.io/89kps", (".json", ".jsonl", ".ndjson")
ADVICE = {  # endings of names, and what to do about such a file
    (".xlsx", ".xls", ".ods"): f"a spreadsheet: the .json file beside it at {PAGE} is wanted",
    (".arrow",): "a cache of Hugging Face's: the .parquet files of the data set are wanted",
    PACKED: "a packed file: unpack it first",
    (".csv", ".tsv"): "a table: make JSON of it, with the fields of data_RAD/README.md",
    (".part", ".crdownload", ".download", ".partial"): "a begun download: get it again",
    JSON: f"JSON of another name: call it {TRAIN_JSON} and {TEST_JSON}, or '{PUBLIC_JSON}'",
}
# forms with a module of their own, in the order in which they are looked for
OTHERS = {"slake": slake, "vqa_med": vqa_med, "path_vqa": path_vqa, "parquet": parquet}
OURS = ("prepared", "dictionary.json", "answers.json", "imgid2idx.json")
MANY = 1000  # names of a folder that are looked at for a message


def find_form(folder):
    """The form of the data in `folder`, or None without data. Raises UserError for a part.

    It is "public", "processed", "archive", "slake", "vqa_med", "path_vqa" or "parquet".
    """
    if form := records.find_form(folder):
        return form
    return next((name for name, reader in OTHERS.items() if reader.holds(folder)), None)


def form_or_error(folder):
    """The form of the data in `folder`. Raises UserError when there are none."""
    if not folder.is_dir():
        there = next(parent for parent in folder.parents if parent.is_dir())
        if folder.exists():
            kind = "a file" if _is_json(folder) else _advice_on(folder) or "a file"
            raise UserError(f"{folder} is {kind}; --RAD_dir wants the folder that holds the data")
        raise UserError(
            f"no such folder: {folder} ({there} holds {shown(listing(there))}); name the one with "
            "VQA-RAD by --RAD_dir"
        )
    kind = find_form(folder)
    if kind is None:
        raise UserError(
            f"no VQA-RAD data in {folder}: it holds {shown(listing(folder))}"
            f"{'; ' if (found := advice(folder)) else ''}{found}; looked for '{PUBLIC_JSON}' "
            f"(public release), {TRAIN_JSON} and {TEST_JSON} (processed split), "
            f"{ARCHIVE_PICKLES[0]} beside these two (authors' archive), "
            "train.json and imgs/ (SLAKE), QAPairsByCategory/ (VQA-Med), images/train/ and "
            "train_qa.json (PathVQA), .parquet files; put one of these there, name another folder "
            "by --RAD_dir, or leave --RAD_dir out"
        )
    return kind


def advice(folder):
    """What to do about a folder without data: on data near it, or on files of other kinds.

    It is "" where nothing looks like data.
    """
    files, folders = _below(folder)
    places = [place for place in folders if _holds_data(place)]
    if places:
        lower = "one folder" if places[0].parent == folder else "two folders"
        if len(places) == 1 and not find_folders(places[0], IMAGE_FOLDERS):
            if images := find_folders(folder, IMAGE_FOLDERS):
                return f"the data lie in {places[0]}, the images in {images[0]}: put them together"
        named = " or ".join(f"--RAD_dir {shlex.quote(str(place))}" for place in places[:3])
        return f"the data lie {lower} lower: {named}"
    if _holds_data(folder.parent):
        return f"the data lie one folder higher: --RAD_dir {shlex.quote(str(folder.parent))}"
    kinds = [(_advice_on(path), str(path.relative_to(folder))) for path in files]
    kinds = sorted((text, name) for text, name in kinds if text)
    found = groupby(kinds, key=lambda kind: kind[0])
    return "; ".join(f"{shown([name for _, name in group])}: {text}" for text, group in found)


def _below(folder, depth=2):
    """(files, folders) in `folder` and `depth` folders lower; none of the program's own."""
    files, folders = [], []
    for name in listing(folder)[:MANY]:
        path = folder / name
        if name[:1] == "." or name in (*OURS, "__MACOSX") or (path / PHANTOM_MARK).exists():
            continue
        if not path.is_dir():
            files.append(path)
            continue
        folders.append(path)
        if depth:
            lower = _below(path, depth - 1)
            files, folders = files + lower[0], folders + lower[1]
    return files, sorted(folders, key=lambda path: len(path.parts))


def _holds_data(folder):
    """True for a folder with VQA-RAD, or a part of it."""
    try:
        return find_form(folder) is not None
    except UserError:
        return True


def _is_json(path):
    """True for a name that ends as JSON does."""
    return path.name.lower().endswith(JSON)


def _advice_on(path):
    """What to do about a file, or ""."""
    if path.name.lower().startswith("glove"):
        return ""
    return next((text for ends, text in ADVICE.items() if path.name.lower().endswith(ends)), "")
