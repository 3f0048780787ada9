"""The fields of one record, checked and cleaned (docs/FORMATS.md section 1)."""

import json
import math
import re

from readers.names import fold, slashed
from text_rules import normalise_answer, tokenize
from utils import ORGAN_CODES, UserError

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


def is_text(value):
    """True for a string that can be written as UTF-8 (JSON can hold halves of a character)."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def check_record(record, known, strict):
    """A clean copy of one record that has all fields. Raises UserError that names the fault.

    known: {folded name of an organ: code}; strict: another name is refused.
    """
    new = dict(record)
    for field in FIELDS[1:]:
        value = record[field]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if field == "answer" and number or value is None:  # None: the set has no such field
            continue
        _check_text(value, field)
        new[field] = value if field == "answer" else value.strip()
    check_answer(new["answer"])
    for field in ("question_frame", "modality"):  # other sets may call other things so
        value = record.get(field)
        new[field] = value if is_text(value) and len(value) <= MAX_TEXT else None
    new["modality"] = (new["modality"] or "").strip().upper()
    new["qid"] = _check_qid(record["qid"])
    new["image_name"] = _check_name(new["image_name"])
    new["image_organ"] = _check_organ(new["image_organ"], known, strict)
    new["answer_type"] = new["answer_type"].upper()
    if new["answer_type"] not in ("OPEN", "CLOSED"):
        raise UserError(f"answer_type {record['answer_type'][:60]!r} must be OPEN or CLOSED")
    if not tokenize(new["question"]):
        raise UserError("the question is empty")
    phrase = new["phrase_type"] and new["phrase_type"].lower()
    if phrase is not None and phrase.removeprefix("test_") not in ("freeform", "para", "frame"):
        raise UserError(
            f"unknown phrase_type {record['phrase_type'][:60]!r}, it must be freeform, para, "
            "frame, test_freeform or test_para"
        )
    new["phrase_type"] = phrase or ""
    return new


def _check_name(name):
    """An image's name, with `/` for Windows's `\\`. Raises UserError if it may leave a folder."""
    plain = slashed(name).removeprefix("./")
    parts = plain.split("/")
    if not plain or "\0" in plain or {"", ".", ".."} & set(parts) or plain[1:3] == ":/":
        raise UserError(
            f"image_name {name[:60]!r} must be a plain file name, or folders of the data and a "
            "file name with '/' between; '..' and a '/' at the ends are refused"
        )
    return plain


def _check_organ(name, known, strict):
    """The code of an organ's name, the name itself in upper case, or None. Raises UserError."""
    if name is None:
        return None
    code = known.get(fold(name))
    if code is None and name and strict:
        raise UserError(
            f"unknown image_organ {name[:60]!r}, it must be one of {', '.join(ORGAN_CODES)}; "
            "--organ_map FILE maps other names to these"
        )
    return code or name.upper() or None


def check_answer(answer):
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
