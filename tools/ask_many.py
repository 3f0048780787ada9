"""Answers to the questions of a file: `ask.py --batch` (docs/FORMATS.md section 8)."""

import csv
import io
import json
import sys

from tqdm import tqdm

import ask
from readers.images import open_image, resize
from readers.names import slashed
from utils import UserError, atomic_path, log


def answer_file(model, kept, rows, args):
    """Answer `rows` of readers.question_lists and write them, whole or not at all.

    args: of ask.py. Raises UserError at the end where some rows have an error.
    """
    answered = answer_rows(model, kept, rows, args.batch.parent, args.top)
    kind = args.output.suffix.lower() if args.output else ""
    as_json = kind == ".jsonl" or not kind and (args.json or args.batch.suffix.lower() != ".csv")
    text = json_lines(answered) if as_json else csv_text(answered)
    failed = sum(row["error"] is not None for row in answered)
    if args.output:
        with atomic_path(args.output) as temporary:
            # a name that is no text has surrogates
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        log(ask.describe_run(kept, model))
        log(f"written: {args.output} ({len(rows) - failed} answers). {ask.NOT_FOR_DIAGNOSIS}")
    else:
        print(ask.describe_run(kept, model), ask.NOT_FOR_DIAGNOSIS, file=sys.stderr, sep="\n")
        sys.stdout.write(text)
    if failed:
        raise UserError(
            f"{failed} of {len(rows)} questions of {args.batch} have no answer: the column error "
            "says why"
        )


def answer_rows(model, kept, rows, folder, top=5):
    """The rows with what the model says of them: `columns`. Each image is read and encoded once.

    rows: dictionaries with "image", a path relative to `folder`, and "question".
    """
    on_image, answered = {}, [None] * len(rows)
    for index, row in enumerate(rows):
        on_image.setdefault(str(row["image"]).strip(), []).append(index)
    with tqdm(total=len(rows), desc="Answering", unit="question", leave=False, disable=None) as bar:
        for name, indices in on_image.items():
            encoded, fault = None, None
            try:
                picture = open_image(find_image(name, folder))
                encoded = ask.encode_picture(model, kept, resize(picture.image))
            except UserError as error:
                fault = error
            for index in indices:
                row = rows[index]
                try:
                    if fault:
                        raise fault
                    result = ask.answer_encoded(model, kept, encoded, str(row["question"]), top)
                    result |= ask.picture_facts(picture)
                    answered[index] = row | columns(result)
                except UserError as error:
                    answered[index] = row | columns(None, str(error))
                bar.update()
    return answered


def find_image(name, folder):
    """The path of a row's image. Raises UserError where none is named."""
    if not name:
        raise UserError("no image is named")
    return folder / slashed(name, folder)


def columns(result, error=None):
    """What a row gets beside its own columns. result: `ask.answer`'s, or None for an error."""
    if result is None:
        result = {"answers": [[None, None]], "image_type": None, "checkpoint": None}
        result |= {"image_notes": [], "warnings": []}
    types = result["image_type"]
    return {
        "model_answer": result["answers"][0][0],
        "model_probability": result["answers"][0][1],
        "model_top": None if error else result["answers"],
        "model_image_type": max(types, key=types.get) if types else None,
        "model_notes": [*result["image_notes"], *result["warnings"]],
        "model_checkpoint": result["checkpoint"],
        "error": error,
    }


def json_lines(rows):
    """The rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv_text(rows):
    """The rows as CSV. Lists of texts are joined by "; ", other values are JSON, None is empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = [list(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    return "".join(map(_csv_line, table))


def _csv_line(cells):
    """A line of CSV. The usual writer's line end makes it quote cells with "\\r" too."""
    csv.writer(text := io.StringIO(newline="")).writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _cell(value):
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "; ".join(value)
    return json.dumps(value, ensure_ascii=False)
