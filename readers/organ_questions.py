"""Question lists of an organ set: does a question fit the organ? (docs/FORMATS.md section 1)."""

from readers.json_files import read_json
from utils import UserError, shorten

HELD_OUT = ("val", "test")  # in the name of a list of held-out questions


def find_questions(folder):
    """{"train": path, "val": path} of the question lists in an organ set's folder, if any.

    They are the JSON files with "question" in their names. Raises UserError for two of one part,
    and for held-out questions alone.
    """
    found = {}
    for path in sorted(folder.glob("*.[jJ][sS][oO][nN]")):
        name = path.stem.lower()
        if "question" in name and path.is_file():
            part = "val" if any(word in name for word in HELD_OUT) else "train"
            if part in found:
                raise UserError(
                    f"{folder} holds two question lists of one part, {found[part].name} and "
                    f"{path.name}: take one out, or name the held-out one val_questions.json"
                )
            found[part] = path
    if "val" in found and "train" not in found:
        raise UserError(
            f"{folder} holds {found['val'].name} and no question list for training: put "
            "train_questions.json beside it"
        )
    return found


def read_questions(path):
    """[(question, label)] of a list [{"question": text, "label": 1 or 0}]; 1: it fits the organ.

    Raises UserError naming the entries that are not of this form.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f'{path} must hold a list [{{"question": ..., "label": 0 or 1}}, ...]')
    bad = [str(number) for number, row in enumerate(rows, 1) if not _is_good(row)]
    if bad:
        raise UserError(
            f'{path}: "question", a text, and "label", 0 or 1, are wanted in entry {shorten(bad)}'
        )
    return [(row["question"], int(row["label"])) for row in rows]


def _is_good(row):
    if not isinstance(row, dict) or row.get("label") not in (0, 1):
        return False
    return isinstance(row.get("question"), str) and 0 < len(row["question"].strip()) <= 10_000
