"""The records of VQA-RAD and of one's own questions: finding, reading, checking, converting.

docs/FORMATS.md section 1 describes the three forms, the eight fields and the known blemishes.
`check_records` checks those of every other set too.
"""

import re
from collections import Counter

from readers.json_files import read_json
from readers.names import find_file, fold, listing, shown
from readers.record_fields import FIELDS, MAX_TEXT, check_answer, check_record, is_text
from text_rules import normalise_answer, tokenize
from utils import HERE, ORGANS, UserError, shorten

DATA_RAD = HERE / "data_RAD"  # where users put their data
PUBLIC_JSON, IMAGE_FOLDER = "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"
TRAIN_JSON, TEST_JSON, VAL_JSON = "trainset.json", "testset.json", "valset.json"
ARCHIVE_PICKLES = ("dictionary.pkl", "cache/trainval_ans2label.pkl", "cache/trainval_label2ans.pkl")
KINDS = 8  # of faults in one message
# fields that no record of a set need have
OPTIONAL = ("qid", "image_organ", "answer_type", "question_type", "phrase_type")
# names of the three organs, {folded name: code}
ORGAN_NAMES = {fold(name): organ.code for organ in ORGANS for name in organ}
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


def read_records(folder, kind, options):
    """VQA-RAD or one's own set in `folder`: (training, validation, test) records, JSON files.

    The records are in the processed form, whatever the kind. options: see readers/sets.py.
    Raises UserError.
    """
    names = [PUBLIC_JSON] if kind == "public" else [TRAIN_JSON, TEST_JSON]
    paths = [find_json(folder, name) for name in names]
    if kind == "processed" and (own := find_json(folder, VAL_JSON)):
        paths.append(own)
    optional = () if kind == "public" else OPTIONAL
    parts = check_records(read_lists(paths), optional, options)
    if kind == "public":
        check_unique(parts[0], paths[0])
        train, test = convert_public(parts[0])
        val = []
    else:
        train, test, val = [*parts, []][:3]
        check_unique(sum(parts, []), f"{folder} ({' and '.join(path.name for path in paths)})")
        for record in train + test + val:
            record["phrase_type"] = record["phrase_type"].removeprefix("test_")
    if not train or not test:
        part, path = ("test", paths[1 % len(paths)]) if train else ("training", paths[0])
        raise UserError(f"{folder}: there are no {part} questions in {path.name}; get it again")
    if any(record["phrase_type"] == "frame" for record in test + val):
        raise UserError(
            f"{folder}: a test question has the phrase_type 'frame', which no protocol scores; "
            f"move it to {TRAIN_JSON}"
        )
    return train, val, test, paths


def read_lists(paths):
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


def check_records(files, optional=(), options=None, organs=None, skipped=None):
    """Clean copies of the records of `files`, {path: content of the JSON}: a list a file.

    qid is a whole number, texts are stripped, organ and answer type are in upper case and the
    phrase type in lower case. Fields of `optional` that no record has are made: the qid is the
    record's number from 1, a yes or no is CLOSED, the question type is OTHER, there is no organ
    (None) and no phrase type (""). Frame records need a qid.
    organs: {folded name: code} that the set has beside the three; `options["organ_map"]` has
    further ones, and a name that it lacks is then a fault. skipped: a dictionary for {path: labels
    of records with an empty answer}, which are left out; None refuses them. Raises one UserError
    that names every fault of all records.
    """
    lists, faults = {}, []
    for path, records in files.items():
        if isinstance(records, dict) and isinstance(records.get("question"), str):
            records = [records]  # JSON Lines of one line
        if not isinstance(records, list):
            raise UserError(f"{path} must hold a list of records, not {_about(records)}")
        lists[path] = records
    objects = [one for records in lists.values() for one in records if isinstance(one, dict)]
    if "image_name" not in (found := {key for one in objects for key in one}) and optional:
        for one in objects:
            if "image" in found:  # as most people call it
                one["image_name"] = one.pop("image", None)
    if skipped is not None:
        for one in objects:
            if one.get("answer", "") is None:  # null in place of a text
                one["answer"] = ""
    absent = [field for field in optional if all(one.get(field) is None for one in objects)]
    if "qid" in absent and any(
        fold(str(one.get("phrase_type")).strip()) == "frame" for one in objects
    ):
        absent.remove("qid")  # it tells which question a frame record rewords
    wanted = [field for field in FIELDS if field not in absent]
    # in VQA-RAD's own form a name beside the three is a slip
    named = [one.get("image_organ") for one in objects if "phrase_type" not in absent]
    known, mapped = ORGAN_NAMES | (organs or {}), (options or {}).get("organ_map")
    strict = mapped is not None or any(
        isinstance(name, str) and fold(name.strip()) in known for name in named
    )
    known |= {fold(name.strip()): code for name, code in (mapped or {}).items()}
    parts, number, skipping = [], 0, skipped is not None
    for path, records in lists.items():
        if missing := _missing_fields(records, wanted):
            faults.append(f"{path}: {missing}")
        made = []
        for record in records:
            number += 1
            if isinstance(record, dict) and absent:
                record = record | _made(record, absent, number)
            made.append(record)
        empty = []
        clean, found = _clean_copies(made, known, strict, wanted, empty if skipping else None)
        if empty:
            skipped[path] = empty
        parts.append(clean)
        faults += [f"{path}, {where}: {fault}" for fault, where in found.items()]
    if faults:
        more = f"; and {len(faults) - KINDS} other faults" if len(faults) > KINDS else ""
        raise UserError(
            f"{'; '.join(faults[:KINDS])}{more} (records are counted from 0). data_RAD/README.md "
            "has a table of the fields: correct the records, or take them out"
        )
    return parts


def _made(record, absent, number):
    """The fields `absent` of a record that is the `number`th of its set."""
    answer = record.get("answer")
    closed = is_text(answer) and normalise_answer(answer[:MAX_TEXT]) in ("yes", "no")
    values = {"qid": number, "image_organ": None, "question_type": "OTHER", "phrase_type": None}
    values["answer_type"] = "CLOSED" if closed else "OPEN"
    return {field: values[field] for field in absent}


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


def _missing_fields(records, wanted):
    """Which records lack which fields of `wanted`, and what they have instead, or ""."""
    records = {i: record for i, record in enumerate(records) if isinstance(record, dict)}
    lacking = {}  # {labels of records: the fields that all these lack}
    for field in wanted:
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


def _clean_copies(records, known, strict, wanted, skipped):
    """(clean copies of the good records, {fault: "record 3 (qid 7), record 5 (qid 9)"})."""
    clean, bad = [], {}
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            fault = f"it is not an object but {type(record).__name__}"
            bad.setdefault(fault, []).append(f"record {index}")
        elif all(record.get(field) is not None for field in wanted):
            if skipped is not None and _is_empty(record["answer"]):
                skipped.append(_label(index, record))
                continue
            try:
                clean.append(check_record(record, known, strict))
            except UserError as error:
                bad.setdefault(str(error), []).append(_label(index, record))
    return clean, {fault: shorten(names) for fault, names in bad.items()}


def _is_empty(answer):
    """True for a text or a number that `check_answer` refuses as an answer."""
    if not isinstance(answer, (str, int, float)):
        return False
    try:
        check_answer(answer)
    except UserError:
        return True
    return False


def check_unique(records, source):
    """Raise UserError when two records have one qid."""
    count = Counter(record["qid"] for record in records)
    twice = [str(qid)[:40] for qid, n in count.items() if n > 1]
    if twice:
        raise UserError(
            f"{source}: qid {shorten(twice)} occurs more than once; every record needs a qid of "
            "its own"
        )
