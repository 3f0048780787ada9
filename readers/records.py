"""The records of VQA-RAD: finding, reading, checking and converting them.

docs/FORMATS.md section 1 describes the three forms, the eight fields and the known blemishes.
"""

import json
import math
import re
from collections import Counter

from readers.json_files import read_json
from readers.names import find_file, listing, shown
from text_rules import normalise_answer, tokenize
from utils import HERE, ORGAN_CODES, UserError, shorten

DATA_RAD = HERE / "data_RAD"  # where users put their data
PUBLIC_JSON, IMAGE_FOLDER = "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"
TRAIN_JSON, TEST_JSON = "trainset.json", "testset.json"
ARCHIVE_PICKLES = ("dictionary.pkl", "cache/trainval_ans2label.pkl", "cache/trainval_label2ans.pkl")
MAX_TEXT = 10_000  # characters of a record's field: its words take 30 times the memory
KINDS = 8  # of faults in one message
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
LIKELY = {  # names that other layouts have for the fields, without underscores
    "qid": "questionid id index",
    "image_name": "image img imagename imgname imageid imgid imagepath imgpath filename path",
    "image_organ": "organ location bodypart region",
    "answer": "answers ans gtanswer label target",
    "answer_type": "anstype type",
    "question_type": "contenttype category qtype",
    "question": "query text sent",
    "phrase_type": "phrase split",
}
MISSPELT_TYPES = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def find_form(folder):
    """ "archive", "processed" or "public", or None without data. Raises UserError for a part."""
    have = [name for name in (TRAIN_JSON, TEST_JSON) if find_json(folder, name)]
    if len(have) == 2:
        pickles = [name for name in ARCHIVE_PICKLES if (folder / name).is_file()]
        if len(pickles) in (0, 3):
            return "archive" if pickles else "processed"
        missing = [name for name in ARCHIVE_PICKLES if name not in pickles]
        raise UserError(
            f"{folder} holds {', '.join(pickles)} but not {', '.join(missing)}: add the missing "
            "ones, or take the pickles out"
        )
    if find_json(folder, PUBLIC_JSON):
        return "public"
    if have:
        other = TEST_JSON if have[0] == TRAIN_JSON else TRAIN_JSON
        raise UserError(
            f"{folder} holds {have[0]} only: put {other} beside it (now it holds "
            f"{shown(listing(folder))})"
        )
    return None


def find_json(folder, name):
    """The path of the JSON file `name` in `folder`, or of JSON Lines (.jsonl), or None."""
    return find_file(folder, name) or find_file(folder, f"{name}l")


def read_records(folder, kind):
    """The data set in `folder`: clean (training, test) records, and the JSON files read.

    The records are in the processed form, whatever the kind. Raises UserError.
    """
    names = [PUBLIC_JSON] if kind == "public" else [TRAIN_JSON, TEST_JSON]
    paths = [find_json(folder, name) for name in names]
    parts = check_records(_read_all(paths))
    if kind == "public":
        _check_unique(parts[0], paths[0])
        train, test = convert_public(parts[0])
    else:
        train, test = parts
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


def _read_all(paths):
    """{path: content} of JSON files. Raises one UserError for all that can't be read."""
    files, faults = {}, []
    for path in paths:
        try:
            files[path] = read_json(path, lines=True)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))
    return files


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


def check_records(files):
    """Clean copies of the records of `files`, {path: content of the JSON}: a list a file.

    qid is a whole number, texts are stripped, organ and answer type are in upper case and the
    phrase type in lower case. Raises one UserError that names every fault of all records.
    """
    parts, faults = [], []
    for path, records in files.items():
        if isinstance(records, dict) and isinstance(records.get("question"), str):
            records = [records]  # JSON Lines of one line
        if not isinstance(records, list):
            raise UserError(f"{path} must hold a list of records, not {_about(records)}")
        if missing := _missing_fields(records):
            faults.append(f"{path}: {missing}")
        clean, found = _clean_copies(records)
        parts.append(clean)
        faults += [f"{path}, {where}: {fault}" for fault, where in found.items()]
    if faults:
        more = f"; and {len(faults) - KINDS} other faults" if len(faults) > KINDS else ""
        raise UserError(
            f"{'; '.join(faults[:KINDS])}{more} (records are counted from 0). data_RAD/README.md "
            "has a table of the eight fields: correct the records, or take them out"
        )
    return parts


def is_text(value):
    """True for a string that can be written as UTF-8 (JSON can hold halves of a character)."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def question_types(text):
    """("PRES", "ATTRIB") of "PRES, ATTRIB".

    The two known misspellings are mended, unknown types are kept, no type at all is OTHER.
    """
    types = [part.strip().upper() for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys(MISSPELT_TYPES.get(name, name) for name in types)) or ("OTHER",)


def _about(value):
    """What stands in place of a list of records, for a message."""
    if not isinstance(value, dict):
        return type(value).__name__
    return (
        f"an object with the keys {shown(list(value))}: take the list out of it; pandas writes "
        "one by to_json(orient='records')"
    )


def _missing_fields(records):
    """Which records lack which fields, and what they have instead, or ""."""
    records = {i: record for i, record in enumerate(records) if isinstance(record, dict)}
    lacking = {}  # {labels of records: the fields that all these lack}
    for field in FIELDS:
        lack = [_label(i, record) for i, record in records.items() if record.get(field) is None]
        lacking.setdefault(tuple(lack), []).append(repr(field))
    lacking.pop((), None)
    if not lacking:
        return ""
    texts = []
    for labels, fields in lacking.items():
        few, total = len(labels) < len(records), f"{len(records):,} records"
        which = f"{len(labels):,} of {total}: {shorten(labels)}" if few else f"all {total}"
        texts.append(f"{', '.join(fields)} ({which})")
    lacking = [field for field in FIELDS if any(repr(field) in f for f in lacking.values())]
    others = dict.fromkeys(key for record in records.values() for key in record)
    others = [key for key in others if key not in FIELDS]
    pairs = [
        f"{other[:60]!r} may be {field!r}"
        for other in others
        for field in lacking
        if _plain(other) in (_plain(field), *LIKELY[field].split())
    ]
    instead = f"; other fields are {shown(others)}" if others else ""
    return f"fields are missing: {', '.join(texts)}{instead}" + "".join(f"; {p}" for p in pairs)


def _label(index, record):
    """How messages call a record."""
    qid = record.get("qid")
    return f"record {index}" + ("" if qid is None else f" (qid {str(qid)[:40]})")


def _plain(key):
    """A field's name without case, spaces and underscores."""
    return re.sub(r"[\s_-]", "", key).casefold()


def _clean_copies(records):
    """(clean copies of the good records, {fault: "record 3 (qid 7), record 5 (qid 9)"})."""
    clean, bad = [], {}
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            fault = f"it is not an object but {type(record).__name__}"
            bad.setdefault(fault, []).append(f"record {index}")
        elif all(record.get(field) is not None for field in FIELDS):
            try:
                clean.append(_check_record(record))
            except UserError as error:
                bad.setdefault(str(error), []).append(_label(index, record))
    return clean, {fault: shorten(names) for fault, names in bad.items()}


def _check_record(record):
    """A clean copy of one record that has all fields. Raises UserError that names the fault."""
    new = dict(record)
    for field in FIELDS[1:]:
        value = record[field]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if field == "answer" and number:
            continue
        _check_text(value, field)
        new[field] = value if field == "answer" else value.strip()
    _check_answer(new["answer"])
    frame = record.get("question_frame")
    new["question_frame"] = frame if is_text(frame) and len(frame) <= MAX_TEXT else None
    new["qid"] = _check_qid(record["qid"])
    name = new["image_name"]
    if not name or ".." in name or any(mark in name for mark in "/\\\0"):
        raise UserError(
            f"image_name {name[:60]!r} must be a plain file name, without folders or '..'"
        )
    new["image_organ"] = new["image_organ"].upper()
    if new["image_organ"] not in ORGAN_CODES:
        raise UserError(
            f"unknown image_organ {record['image_organ'][:60]!r}, it must be one of "
            f"{', '.join(ORGAN_CODES)}"
        )
    new["answer_type"] = new["answer_type"].upper()
    if new["answer_type"] not in ("OPEN", "CLOSED"):
        raise UserError(f"answer_type {record['answer_type'][:60]!r} must be OPEN or CLOSED")
    if not tokenize(new["question"]):
        raise UserError("the question is empty")
    new["phrase_type"] = new["phrase_type"].lower()
    if new["phrase_type"].removeprefix("test_") not in ("freeform", "para", "frame"):
        raise UserError(
            f"unknown phrase_type {record['phrase_type'][:60]!r}, it must be freeform, para, "
            "frame, test_freeform or test_para"
        )
    return new


def _check_answer(answer):
    """Raise UserError for an answer that names nothing, which would still become a class."""
    if isinstance(answer, float) and not math.isfinite(answer):
        raise UserError(f"the field 'answer' is {json.dumps(answer)}, not an answer")
    if not str(answer).strip():
        raise UserError("the answer is empty")
    if str(answer).strip().casefold() == "nan":  # a missing value that became text
        raise UserError(f"the field 'answer' is {answer!r}, which stands for a missing value")
    if not normalise_answer(answer):
        raise UserError(
            f"the text rules of docs/FORMATS.md leave nothing of the answer {answer[:60]!r}"
        )


def _check_text(value, field):
    """Raise UserError when a field is not text, or text that can't be used."""
    fault = None
    if isinstance(value, float) and math.isnan(value):
        fault = "is NaN, a missing value"
    elif not isinstance(value, str):
        fault = f"must be text, not {type(value).__name__}"
    elif len(value) > MAX_TEXT:
        fault = f"has {len(value):,} characters, more than {MAX_TEXT:,}"
    elif not is_text(value):
        fault = "holds half a character (a lone surrogate)"
    if fault:
        raise UserError(f"the field {field!r} {fault}")


def _check_qid(qid):
    """A qid, a number or its text, as a whole number. Raises UserError."""
    try:
        number = int(qid)
        if isinstance(qid, bool) or number != float(qid):
            raise ValueError
        return number
    except (ValueError, TypeError, OverflowError):
        raise UserError("the qid must be a whole number") from None


def _check_unique(records, source):
    """Raise UserError when two records have one qid."""
    count = Counter(record["qid"] for record in records)
    twice = [str(qid)[:40] for qid, n in count.items() if n > 1]
    if twice:
        raise UserError(
            f"{source}: qid {shorten(twice)} occurs more than once; every record needs a qid of "
            "its own"
        )
