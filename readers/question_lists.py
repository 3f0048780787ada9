"""Lists of questions for ask.py --batch: CSV, JSON and JSON Lines (docs/FORMATS.md section 8)."""

import csv
import io
from pathlib import Path

from readers.json_files import read_bytes, read_json
from utils import UserError, reason, shorten

WANTED = ("image", "question")
MARKS = (",", ";", "\t")  # between the columns; spreadsheets write all three


def read_questions(path):
    """A file of questions -> dictionaries with "image", "question" and all further columns.

    The two names may be in capitals or among spaces. A row may lack either: its value is then "".
    Raises UserError for a file that is none of the three kinds.
    """
    path = Path(path)
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        rows = read_json(path, lines=True)
        rows = [rows] if isinstance(rows, dict) else rows
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise UserError(f"{path} is not a list of objects with the keys image and question")
    else:
        rows = _read_csv(path)
    if not rows:
        raise UserError(f"{path} holds no question: write one a line, below a line image,question")
    return [_named(row, path) for row in rows]


def _named(row, path):
    """A row whose two wanted columns have their names, first. Raises UserError."""
    plain = {name: name.strip().lower() for name in row}
    found = {name: key for key, name in reversed(plain.items()) if name in WANTED}
    if not found:
        listed = shorten([name[:40] for name in row]) or "none"
        raise UserError(f"{path} has no columns image and question; it has: {listed}")
    texts = {name: row.get(found.get(name)) for name in WANTED}
    texts = {name: "" if value is None else value for name, value in texts.items()}
    return texts | {name: row[name] for name in row if plain[name] not in WANTED}


def _read_csv(path):
    """The rows of a CSV file; the first line names the columns. Raises UserError."""
    data = read_bytes(path, ": split it")
    try:
        # spreadsheets save "Unicode text" as UTF-16 with a byte order mark
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError:
        raise UserError(f"{path} is not UTF-8: save it as CSV in UTF-8") from None
    if "\0" in text:
        raise UserError(f"{path} is no CSV file: it has bytes of zero")
    head = text.lstrip().partition("\n")[0]
    mark = max(MARKS, key=head.count)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        lines = [line for line in lines if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise UserError(f"{path} is no CSV file ({reason(error)}): check its quotes") from None
    names = [name.strip() for name in lines[0]] if lines else []
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns of its first line have the same name")
    long = [number for number, line in enumerate(lines, 1) if len(line) > len(names)]
    if long:
        raise UserError(
            f"{path}: row {long[0]} has more cells than the first line: put texts with "
            f"{'a tab' if mark == chr(9) else repr(mark)} in double quotes"
        )
    return [dict(zip(names, line + [""] * (len(names) - len(line)))) for line in lines[1:]]
