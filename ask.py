"""Ask a trained model about an image: ranked answers, and what they depend on.

python ask.py IMAGE "question"                 JPEG, PNG or DICOM; the newest run
python ask.py IMAGE                            one question after the other, in a terminal
python ask.py IMAGE "question" --input saved_models/RUN --show where.png
python ask.py IMAGE "question" --frame 7       of a file with several frames or pages
python ask.py --batch FILE --output answers.csv
                                               many: CSV or JSON with image and question
python ask.py --web                            a page on this machine (needs Gradio)
"""

import argparse
import contextlib
import json
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np

# PyTorch takes seconds to import: functions import it, so that a missing image is named at once
from readers.images import open_image, resize
from readers.question_lists import read_questions
from text_rules import allowed_answers, encode, tokenize
from utils import (
    HERE,
    ORGAN_TITLES,
    PHANTOM_SET,
    UserError,
    check_writable,
    choose_device,
    log,
    optional,
    run_main,
)

# an image type or an answer that is less probable gets a warning
SURE_TYPE, LIKELY_ANSWER = 0.6, 0.1
KINDS = (".csv", ".jsonl")  # of --output
SIGMOIDS = "NOTE: the numbers are sigmoids, one for each answer, and need not sum to 1"
NOT_FOR_DIAGNOSIS = "This is research software. It is not for diagnosis."


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=NOT_FOR_DIAGNOSIS)
    add = parser.add_argument
    add("image", type=Path, nargs="?", metavar="IMAGE", help="JPEG, PNG, ... or DICOM")
    add("question", nargs="?", help="in quotes, in the run's language (default: asked for)")
    help_frame = (
        "frame or page of a file with several, from 1 (default: the first; DICOM: the middle)"
    )
    add("--frame", type=int, metavar="N", help=help_frame)
    add("--input", type=Path, help="run folder or checkpoint file (default: the newest run)")
    add("--top", type=int, default=5, help="answers to print (default: 5)")
    help_form = (
        "answer by the form of the question, such as yes or no to “Is ...?” (default: the run's)"
    )
    add("--form_rule", action=argparse.BooleanOptionalAction, help=help_form)
    add("--show", type=Path, metavar="PNG", help="write a picture of where the model looked")
    help_batch = "answer all questions of a file: CSV with the columns image and question, or JSON"
    add("--batch", type=Path, metavar="FILE", help=help_batch)
    add("--output", type=Path, metavar="FILE", help="of --batch: .csv or .jsonl (default: stdout)")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--gpu", type=int, help="CUDA device, -1 for the CPU (default: the first GPU if any)")
    add("--web", action="store_true", help="serve a page on 127.0.0.1 instead (needs Gradio)")
    add("--port", type=int, default=7860, help="of --web (default: 7860)")
    args = parser.parse_args(arguments)
    if args.top < 1:
        raise UserError(f"--top {args.top} is too small: at least 1 is wanted")
    if not 0 < args.port < 65536:
        raise UserError(f"--port {args.port}: a number from 1 to 65535 is wanted")
    alone = args.image or args.show or args.frame is not None  # what belongs to one image
    if args.batch and (alone or args.web):
        raise UserError(
            "--batch reads images and questions from its file: it takes no image, no question, no "
            "--show, --frame or --web"
        )
    if args.output and not args.batch:
        raise UserError("--output is for the answers of --batch: name its file too")
    if args.web and (alone or args.json):
        raise UserError(
            "--web asks on its page: it takes no image, no question, no --show, --json or --frame"
        )
    in_turn = args.image and sys.stdin and sys.stdin.isatty() and not (args.show or args.json)
    if not (args.web or args.batch or in_turn) and args.question is None:
        raise UserError(
            'an image and a question are wanted: ask.py IMAGE "question"; or --web for a page'
        )
    if args.show and (args.show.suffix.lower() != ".png" or args.show.is_dir()):
        raise UserError(f"--show {args.show}: the name of a .png file is wanted")
    if args.output and (args.output.suffix.lower() not in KINDS or args.output.is_dir()):
        raise UserError(f"--output {args.output}: the name of a .csv or .jsonl file is wanted")
    for option in ("show", "output"):
        if path := getattr(args, option):
            check_writable(path.parent, f"--{option}")
    return args


def load(path, device="cpu"):
    """A run's folder or checkpoint file -> (model in eval mode on the device, the rest).

    The second has no weights, its own path as `path`, and as `epochs` the number of epochs that
    the run has done and wants. Raises UserError.
    """
    from readers.checkpoints import make_model, read_checkpoint

    path = Path(path)
    path = path / "best.pth" if path.is_dir() else path
    kept = read_checkpoint(path)
    model = make_model(kept, path).to(device)
    weights = ("model", "optimizer", "random")
    kept = {k: v for k, v in kept.items() if k not in weights} | {"path": str(path)}
    return model, kept | {"epochs": epochs_of(path, kept)}


def epochs_of(path, kept):
    """(epochs done, epochs wanted) of the run whose checkpoint lies at `path`.

    Without a log only last.pth tells the first: a best epoch may be any.
    """
    from readers.results import read_run

    history, run = [], None
    with contextlib.suppress(UserError, OSError):
        history, run = read_run(path.parent)
    settings = (run or {}).get("settings")
    wanted = settings.get("epochs") if isinstance(settings, dict) else None
    wanted = wanted if type(wanted) is int else kept["settings"]["epochs"]
    if history:
        return history[-1]["epoch"] + 1, wanted
    return kept["epoch"] + 1 if path.name == "last.pth" else wanted, wanted


class Asked(NamedTuple):
    """A question as the model reads it: token ids, the words read, unknown ones, those cut."""

    tokens: tuple
    words: list
    unknown: list
    cut: list


def read_question(kept, question):
    """A question -> Asked. Raises UserError for a question without a word that the model knows."""
    known = {word: index for index, word in enumerate(kept["dictionary"])}
    length = kept["settings"]["question_len"]
    words = tokenize(question)
    tokens, unknown = encode(words, known, length)
    words, cut = words[:length], words[length:]
    if not words:
        raise UserError("the question is empty: ask something")
    if len(unknown) == len(words):
        listed = textwrap.shorten(", ".join(words), 200)
        raise UserError(
            f"the model knows none of the question's words ({listed}): ask in the "
            "language and the words of its training questions"
        )
    if kept["settings"]["image_only"]:  # all padding, as in training
        tokens, unknown = (len(known),) * len(tokens), []
    return Asked(tokens, words, list(dict.fromkeys(unknown)), cut)


def allowed_by_form(kept, question):
    """[for each answer whether the form rule allows it], or None for a run without the rule."""
    return [allowed_answers(question, kept["answers"])] if kept["settings"]["form_rule"] else None


def encode_picture(model, kept, image):
    """An image uint8 (224, 224, 3) -> maps (1, E, width, 7, 7) and organ logits (1, 3) or None.

    A model that was trained without images gets the zeros of its training (features.Inputs).
    """
    import torch

    from features import to_float

    device, settings = next(model.parameters()).device, kept["settings"]
    with torch.inference_mode():
        images = to_float(torch.from_numpy(np.array(image))[None].to(device))  # (1, 3, 224, 224)
        if settings["question_only"]:
            images = torch.zeros_like(images)
        maps, organs = model.image.encode(images)
        if settings["question_only"] and settings["freeze_encoders"]:
            maps = torch.zeros_like(maps)
            organs = None if organs is None else torch.zeros_like(organs)
    return maps, organs


def answer(model, kept, image, question, top=5):
    """The object that `--json` prints: ranked answers, image type, unknown words, warnings.

    image: uint8 (224, 224, 3). After a sigmoid loss the probabilities of the answers need not sum
    to 1. Raises UserError.
    """
    return answer_encoded(model, kept, encode_picture(model, kept, image), question, top)


def answer_encoded(model, kept, encoded, question, top=5):
    """`answer` for what `encode_picture` gives of an image."""
    import torch

    asked, settings = read_question(kept, question), kept["settings"]
    maps, organs = encoded
    allowed = allowed_by_form(kept, question)
    with torch.inference_mode():
        output = model(None, torch.tensor([asked.tokens], device=maps.device), maps, organs)
    probabilities = model.probabilities(output.logits, allowed)[0].cpu()
    best = probabilities.topk(min(top, sum(allowed[0]) if allowed else len(probabilities)))
    ranked = [
        [kept["answers"][i], round(p, 6)]
        for p, i in zip(best.values.tolist(), best.indices.tolist())
    ]
    types = None
    if organs is not None and not settings["question_only"]:
        shares = organs[0].float().softmax(-1).tolist()
        types = {title: round(p, 6) for title, p in zip(ORGAN_TITLES, shares)}
    return {
        "answers": ranked,
        "image_type": types,
        "unknown_words": asked.unknown,
        "warnings": find_warnings(kept, asked, ranked, types),
        "model": model.fusion,
        "checkpoint": kept["path"],
        "epoch": kept["epoch"],
        "form_rule": settings["form_rule"],
        "data": kept["data"]["name"],
        "not_for_diagnosis": True,
    }


def picture_facts(picture):
    """What the object of `--json` says of a readers.images.Picture.

    `image_notes`: sentences on how it was read; `frame` and `frames` if the file has several.
    """
    several = {"frame": picture.frame, "frames": picture.frames} if picture.frames > 1 else {}
    return {"image_notes": [f"{kind}: {detail}" for kind, detail in picture.notes]} | several


def find_warnings(kept, asked, ranked, types):
    """Sentences on what makes an answer doubtful.

    ranked: [answer, probability] pairs, the best first; types: {image type: probability} or None.
    """
    notes = []
    if kept["data"]["name"] == PHANTOM_SET:
        notes.append(
            "this model was trained on the PHANTOM SET, drawings with made-up questions: its "
            "answers say nothing about radiology"
        )
    done, wanted = kept["epochs"]
    if done < wanted:
        notes.append(
            f"the run has not ended: {done} of {wanted} epochs are done; ./train.sh --resume "
            f"--output {Path(kept['path']).parent} goes on with it"
        )
    if kept["settings"]["image_only"]:
        notes.append("this model was trained without questions: it answers from the image alone")
    if kept["settings"]["question_only"]:
        notes.append("this model was trained without images: it answers from the question alone")
    if types and types[likely := max(types, key=types.get)] < SURE_TYPE:
        notes.append(
            f"the image type is uncertain (most likely {likely}, {types[likely]:.2f}): the model "
            "knows abdomen, head and chest"
        )
    if ranked[0][1] < LIKELY_ANSWER:
        notes.append("no answer is likely: the question may be of a kind that the model never saw")
    if asked.unknown:
        notes.append(f"unknown to the model, and read as padding: {', '.join(asked.unknown)}")
    if asked.cut:
        notes.append(
            f"the model reads {len(asked.words)} words of a question, and not these: "
            f"{' '.join(asked.cut)}"
        )
    return notes


def describe_run(kept, model):
    """A line on which run answers, with its epoch counted from 1."""
    return (
        f"model: {model.fusion}, {kept['path']}, epoch {kept['epoch'] + 1}, trained on "
        f"{kept['data']['name']}"
    )


def describe(result):
    """The lines below the answers: image type, notes, warnings, what this is not for."""
    types = result["image_type"] or {}
    ranked = sorted(types.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {p:.2f}" for name, p in ranked) or "not told by this model"
    return [
        f"image type: {listed}",
        *(f"NOTE: {note}" for note in result["image_notes"]),
        *(f"WARNING: {note}" for note in result["warnings"]),
        NOT_FOR_DIAGNOSIS,
    ]


def log_answers(model, result, said=()):
    """Print the ranked answers, and below them the lines that are not in `said`.

    Returns all these lines, those of `describe` and one on sigmoids.
    """
    width = max(len(text) for text, _ in result["answers"])
    for text, probability in result["answers"]:
        log(f"{text:{width}}  {probability:.3f}")
    lines = [SIGMOIDS] * (not model.softmax) + describe(result)
    for line in lines:
        if line not in said:
            log(line)
    return lines


def ask_in_turn(model, kept, picture, top):
    """Ask for questions about a readers.images.Picture, until an empty line or the input's end."""
    log(describe_run(kept, model))
    encoded, said = encode_picture(model, kept, resize(picture.image)), []
    with contextlib.suppress(EOFError):
        while question := input("question: ").strip():
            try:
                result = answer_encoded(model, kept, encoded, question, top)
            except UserError as error:  # the next question may be a better one
                log(f"error: {error}")
                continue
            result |= picture_facts(picture)
            said = log_answers(model, result, said)


def main():
    args = parse_args()
    if args.batch:
        rows = read_questions(args.batch)
    elif args.web:
        optional("gradio")  # before the model is read
    else:
        picture = open_image(args.image, args.frame)
    from readers.checkpoints import find_checkpoint

    device = choose_device(args.gpu)
    path, _ = find_checkpoint(args.input, None, HERE / "saved_models")
    model, kept = load(path, device)
    if args.form_rule is not None:
        kept["settings"]["form_rule"] = args.form_rule and not kept["settings"]["image_only"]
    if args.web:
        from tools.ask_page import serve

        return serve(model, kept, args.top, args.port)
    if args.batch:
        from tools.ask_many import answer_file

        return answer_file(model, kept, rows, args)
    if args.question is None:
        return ask_in_turn(model, kept, picture, args.top)
    # a shell's bytes that are no text
    question = args.question.encode("utf-8", "replace").decode()
    image = resize(picture.image)
    encoded = encode_picture(model, kept, image)
    result = answer_encoded(model, kept, encoded, question, args.top) | picture_facts(picture)
    if args.show:
        from tools.ask_show import draw_answer, save_picture

        save_picture(draw_answer(model, kept, image, encoded, question, result), args.show)
    if args.json:
        log(json.dumps(result))
        return
    log(describe_run(kept, model))
    log_answers(model, result)
    if args.show:
        log(f"written: {args.show}")


if __name__ == "__main__":
    run_main(main)
