"""The records of VQA-RAD: finding, reading, checking and converting them.

docs/FORMATS.md section 1 describes the three forms, the eight fields and the known blemishes.
"""

import re
from collections import Counter

from readers.image_names import IMAGE_FOLDER
from readers.json_files import read_json
from text_rules import tokenize
from utils import HERE, ORGAN_CODES, UserError, shorten

DATA_RAD = HERE / "data_RAD"  # where users put their data
PUBLIC_JSON = "VQA_RAD Dataset Public.json"
TRAIN_JSON, TEST_JSON = "trainset.json", "testset.json"
ARCHIVE_PICKLES = ("dictionary.pkl", "cache/trainval_ans2label.pkl", "cache/trainval_label2ans.pkl")
MAX_TEXT = 10_000  # characters of a record's field: its words take 30 times the memory
FIELDS = (
    "qid",
    "image_name",
    "image_organ",
    "answer",
    "answer_type",
    "question_type",
    "question",
    "phrase_type",
)
MISSPELT_TYPES = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def find_form(folder):
    """ "archive", "processed" or "public", or None without data. Raises UserError for a part."""
    have = [name for name in (TRAIN_JSON, TEST_JSON) if (folder / name).is_file()]
    if len(have) == 2:
        pickles = [name for name in ARCHIVE_PICKLES if (folder / name).is_file()]
        if len(pickles) in (0, 3):
            return "archive" if pickles else "processed"
        missing = [name for name in ARCHIVE_PICKLES if name not in pickles]
        raise UserError(
            f"{folder} holds {', '.join(pickles)} but not {', '.join(missing)}: add the missing "
            "ones, or take the pickles out"
        )
    if (folder / PUBLIC_JSON).is_file():
        return "public"
    if have:
        other = TEST_JSON if have[0] == TRAIN_JSON else TRAIN_JSON
        raise UserError(f"{folder} holds {have[0]} only: put {other} beside it")
    return None


def form_or_error(folder):
    """The form of the data in `folder`. Raises UserError when there are none."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; name the one with VQA-RAD by --RAD_dir")
    kind = find_form(folder)
    if kind is None:
        raise UserError(
            f"no VQA-RAD data in {folder}: looked for '{PUBLIC_JSON}' and '{IMAGE_FOLDER}/' "
            f"(public release), "
            f"{TRAIN_JSON} and {TEST_JSON} (processed split), {ARCHIVE_PICKLES[0]} beside these "
            "two (authors' archive); put one of these there, name another folder by --RAD_dir, "
            "or leave --RAD_dir out"
        )
    return kind


def read_records(folder, kind):
    """The data set in `folder`: clean (training, test) records, and the JSON files read.

    The records are in the processed form, whatever the kind. Raises UserError.
    """
    if kind == "public":
        paths = [folder / PUBLIC_JSON]
        records = check_records(read_json(paths[0]), paths[0])
        _check_unique(records, paths[0])
        train, test = convert_public(records)
    else:
        paths = [folder / TRAIN_JSON, folder / TEST_JSON]
        train, test = (check_records(read_json(path), path) for path in paths)
        _check_unique(train + test, f"{folder} ({TRAIN_JSON} and {TEST_JSON})")
        for record in train + test:
            record["phrase_type"] = record["phrase_type"].removeprefix("test_")
    if not train or not test:
        part, path = ("test", paths[-1]) if train else ("training", paths[0])
        raise UserError(f"{folder}: there are no {part} questions in {path.name}; get it again")
    if any(record["phrase_type"] == "frame" for record in test):
        raise UserError(
            f"{folder}: a test question has the phrase_type 'frame', which no protocol scores; "
            f"move it to {TRAIN_JSON}"
        )
    return train, test, paths


def convert_public(records):
    """The public release's records -> (training, test) records of the processed split.

    Records are numbered from 1 in the order of their qid, and both lists keep this order. A
    record with a `question_frame` is followed by a frame record. Frame records go to training
    even if their source is a test record: this is the leak of docs/SPLIT.md. Everything else is
    copied unchanged.
    """
    train, test, number = [], [], 0
    for record in sorted(records, key=lambda record: int(record["qid"])):
        number += 1
        phrase = record["phrase_type"]
        new = {field: record[field] for field in FIELDS}
        new |= {"qid": number, "phrase_type": phrase.removeprefix("test_")}
        (test if phrase.startswith("test_") else train).append(new)
        frame = record.get("question_frame")
        if isinstance(frame, str) and frame.strip().upper() != "NULL" and tokenize(frame):
            number += 1
            train.append(new | {"qid": number, "question": frame, "phrase_type": "frame"})
    return train, test


def check_records(records, source):
    """Clean copies of the records of `source` (a path, for messages).

    qid is a whole number, texts are stripped, organ and answer type are in upper case and the
    phrase type in lower case. Raises UserError that names the record and the field.
    """
    if not isinstance(records, list):
        raise UserError(f"{source} must hold a list of records, not {type(records).__name__}")
    clean = []
    for index, record in enumerate(records):
        where = f"{source}, record {index} (counting from 0"
        if not isinstance(record, dict):
            raise UserError(
                f"{where}): it is not an object but {type(record).__name__}; correct it"
            )
        where += f", qid {str(record.get('qid'))[:40]})"
        for field in FIELDS:
            if record.get(field) is None:
                raise UserError(f"{where} lacks the field {field!r}; add it, or get the file again")
        clean.append(_check_record(record, where))
    return clean


def is_text(value):
    """True for a string that can be written as UTF-8 (JSON can hold halves of a character)."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def question_types(text):
    """("PRES", "ATTRIB") of "PRES, ATTRIB".

    The two known misspellings are mended, unknown types are kept, no type at all is OTHER.
    """
    types = [part.strip().upper() for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys(MISSPELT_TYPES.get(name, name) for name in types)) or ("OTHER",)


def _check_record(record, where):
    """A clean copy of one record that has all fields. `where` names it. Raises UserError."""
    new = dict(record)
    for field in FIELDS[1:]:
        value = record[field]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if field == "answer" and number:
            continue
        _check_text(value, field, where)
        new[field] = value if field == "answer" else value.strip()
    frame = record.get("question_frame")
    new["question_frame"] = frame if is_text(frame) and len(frame) <= MAX_TEXT else None
    new["qid"] = _check_qid(record["qid"], where)
    name = new["image_name"]
    if not name or ".." in name or any(mark in name for mark in "/\\\0"):
        raise UserError(
            f"{where}: image_name {name[:60]!r} must be a plain file name, without folders or "
            "'..'; correct it"
        )
    new["image_organ"] = new["image_organ"].upper()
    if new["image_organ"] not in ORGAN_CODES:
        raise UserError(
            f"{where}: unknown image_organ {record['image_organ'][:60]!r}, it must be one of "
            f"{', '.join(ORGAN_CODES)}; correct it"
        )
    new["answer_type"] = new["answer_type"].upper()
    if new["answer_type"] not in ("OPEN", "CLOSED"):
        raise UserError(
            f"{where}: answer_type {record['answer_type'][:60]!r} must be OPEN or CLOSED; "
            "correct it"
        )
    if not tokenize(new["question"]):
        raise UserError(f"{where}: the question is empty; correct it or take the record out")
    new["phrase_type"] = new["phrase_type"].lower()
    if new["phrase_type"].removeprefix("test_") not in ("freeform", "para", "frame"):
        raise UserError(
            f"{where}: unknown phrase_type {record['phrase_type'][:60]!r}, it must be freeform, "
            "para, frame, test_freeform or test_para; correct it"
        )
    return new


def _check_text(value, field, where):
    """Raise UserError when a field is not text, or text that can't be used."""
    fault = None
    if not isinstance(value, str):
        fault = f"must be text, not {type(value).__name__}"
    elif len(value) > MAX_TEXT:
        fault = f"has {len(value):,} characters, more than {MAX_TEXT:,}"
    elif not is_text(value):
        fault = "holds half a character (a lone surrogate)"
    if fault:
        raise UserError(f"{where}: the field {field!r} {fault}; correct it")


def _check_qid(qid, where):
    """A qid, a number or its text, as a whole number. Raises UserError."""
    try:
        number = int(qid)
        if isinstance(qid, bool) or number != float(qid):
            raise ValueError
        return number
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{where}: the qid must be a whole number; correct it") from None


def _check_unique(records, source):
    """Raise UserError when two records have one qid."""
    count = Counter(record["qid"] for record in records)
    twice = [str(qid)[:40] for qid, n in count.items() if n > 1]
    if twice:
        raise UserError(
            f"{source}: qid {shorten(twice)} occurs more than once; every record needs a qid of "
            "its own"
        )
