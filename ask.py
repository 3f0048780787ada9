"""Ask a trained model one question about one image: ranked answers, and where the model looked.

python ask.py IMAGE "question"                 JPEG, PNG or DICOM; the newest run
python ask.py IMAGE "question" --input saved_models/RUN --show where.png
python ask.py IMAGE "question" --frame 7       of a file with several frames or pages
python ask.py --web                            a page on this machine (needs Gradio)
"""

import argparse
import json
import os
import signal
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from features import to_float
from readers.checkpoints import find_checkpoint, make_model, read_checkpoint
from readers.images import open_image, resize
from text_rules import encode, tokenize
from utils import (
    HERE,
    ORGAN_TITLES,
    UserError,
    atomic_path,
    check_writable,
    choose_device,
    log,
    optional,
    reason,
    run_main,
)

# an image type or an answer that is less probable gets a warning
SURE_TYPE, LIKELY_ANSWER = 0.6, 0.1
NOT_FOR_DIAGNOSIS = "This is research software. It is not for diagnosis."


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=NOT_FOR_DIAGNOSIS)
    add = parser.add_argument
    add("image", type=Path, nargs="?", metavar="IMAGE", help="JPEG, PNG, ... or DICOM")
    add("question", nargs="?", help="in English, in quotes")
    help_frame = (
        "frame or page of a file with several, from 1 (default: the first; DICOM: the middle)"
    )
    add("--frame", type=int, metavar="N", help=help_frame)
    add("--input", type=Path, help="run folder or checkpoint file (default: the newest run)")
    add("--top", type=int, default=5, help="answers to print (default: 5)")
    add("--show", type=Path, metavar="PNG", help="write a picture of where the model looked")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--gpu", type=int, help="CUDA device, -1 for the CPU (default: the first GPU if any)")
    add("--web", action="store_true", help="serve a page on 127.0.0.1 instead (needs Gradio)")
    add("--port", type=int, default=7860, help="of --web (default: 7860)")
    args = parser.parse_args(arguments)
    if args.top < 1:
        raise UserError(f"--top {args.top} is too small: at least 1 is wanted")
    if not 0 < args.port < 65536:
        raise UserError(f"--port {args.port}: a number from 1 to 65535 is wanted")
    if args.web and (args.image or args.show or args.json or args.frame is not None):
        raise UserError(
            "--web asks on its page: it takes no image, no question, no --show, --json or --frame"
        )
    if not args.web and args.question is None:
        raise UserError(
            'an image and a question are wanted: ask.py IMAGE "question"; or --web for a page'
        )
    if args.show and (args.show.suffix.lower() != ".png" or args.show.is_dir()):
        raise UserError(f"--show {args.show}: the name of a .png file is wanted")
    if args.show:
        check_writable(args.show.parent, "--show")
    return args


def load(path, device="cpu"):
    """A run's checkpoint file -> (model in eval mode on the device, the rest of the checkpoint).

    The rest has no weights, and its own path as `path`. Raises UserError.
    """
    kept = read_checkpoint(path)
    model = make_model(kept, path).to(device)
    weights = ("model", "optimizer", "random")
    return model, {k: v for k, v in kept.items() if k not in weights} | {"path": str(path)}


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
            f"the model knows none of the question's words ({listed}): ask in English, in words "
            "of its training questions"
        )
    if kept["settings"]["image_only"]:  # all padding, as in training
        tokens = (len(known),) * len(tokens)
    return Asked(tokens, words, list(dict.fromkeys(unknown)), cut)


def encode_picture(model, kept, image):
    """An image uint8 (224, 224, 3) -> maps (1, E, width, 7, 7) and organ logits (1, 3) or None.

    A model that was trained without images gets the zeros of its training (features.Inputs).
    """
    device, settings = next(model.parameters()).device, kept["settings"]
    images = to_float(torch.from_numpy(np.array(image))[None].to(device))  # (1, 3, 224, 224)
    if settings["question_only"]:
        images = torch.zeros_like(images)
    maps, organs = model.image.encode(images)
    if settings["question_only"] and settings["freeze_encoders"]:
        maps, organs = torch.zeros_like(maps), None if organs is None else torch.zeros_like(organs)
    return maps, organs


@torch.inference_mode()
def answer(model, kept, image, question, top=5):
    """The object that `--json` prints: ranked answers, image type, unknown words, warnings.

    image: uint8 (224, 224, 3). After a sigmoid loss the probabilities of the answers need not sum
    to 1. Raises UserError.
    """
    asked, settings = read_question(kept, question), kept["settings"]
    maps, organs = encode_picture(model, kept, image)
    output = model(None, torch.tensor([asked.tokens], device=maps.device), maps, organs)
    best = model.probabilities(output.logits)[0].cpu().topk(min(top, len(kept["answers"])))
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
    if "phantom" in kept["data"]["name"]:
        notes.append(
            "this model was trained on the PHANTOM SET, drawings with made-up questions: its "
            "answers say nothing about radiology"
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


def answer_maps(model, kept, image, question):
    """(falls (7, 7), its sentence, words, P (words, 7, 7), R (words, words + 1)) of one question.

    The first two are of `tools.maps.occlusion_maps`, for the answer given. The last two are of
    `word_maps`, and None for BAN and SAN. Unknown words come in brackets. Raises UserError.
    """
    from tools.maps import occlusion_maps, say_falls, word_maps

    asked = read_question(kept, question)
    with torch.inference_mode():
        maps, organs = encode_picture(model, kept, image)
        tokens = torch.tensor([asked.tokens], device=maps.device)
        label = model(None, tokens, maps, organs).logits.argmax(1)
        falls, before = occlusion_maps(model, tokens, label, maps, organs)
        cells = over = None
        if model.fusion == "CMSA":
            [(cells, over)] = word_maps(model, tokens, [len(asked.words)], maps, organs)
    words = [f"[{word}]" if word in asked.unknown else word for word in asked.words]
    return falls[0], say_falls(falls[0], before[0]), words, cells, over


def draw_attention(model, kept, image, question, result):
    """What the answer depends on, and CMSA's maps: uint8 (820, 1600, 3), and a sentence.

    `result` is `answer`'s.
    """
    from tools.maps import draw_maps

    falls, sentence, *others = answer_maps(model, kept, image, question)
    best, probability = result["answers"][0]
    question, best = (
        textwrap.shorten(text, width, placeholder=" …")
        for text, width in ((question, 110), (best, 60))
    )
    title = f"{question}    {best} ({probability:.2f})"
    return draw_maps(image, falls, *others, title, f"{sentence} {NOT_FOR_DIAGNOSIS}"), sentence


def build_page(model, kept, top):
    """The Gradio page: an image or DICOM file and a question in; answers, picture, notes out."""
    gradio = optional("gradio")

    def reply(file, question):
        """-> ({answer: probability}, a picture uint8 (H, W, 3), notes). Errors are notes too."""
        try:
            if not file:
                raise UserError("an image is wanted")
            opened = open_image(file)
            image = resize(opened.image)
            result = answer(model, kept, image, question or "", top) | picture_facts(opened)
        except UserError as error:
            # the file's folder is a temporary one that says nothing to the reader
            return None, None, f"error: {str(error).replace(str(file), Path(file or '').name)}"
        picture, sentence = draw_attention(model, kept, image, question, result)
        return dict(result["answers"]), picture, "\n".join([sentence, *describe(result)])

    label = "answers" if model.softmax else "answers (probabilities need not sum to 100%)"
    with gradio.Blocks(title="ask.py", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gradio.Markdown(
            f"# Ask about a radiology image\n**{NOT_FOR_DIAGNOSIS}** "
            "What you give here stays on this machine and is deleted at the end."
        )
        with gradio.Row():
            with gradio.Column():
                file = gradio.File(
                    label="image: JPEG, PNG or DICOM, at most 20 MB",
                    type="filepath",
                    file_count="single",
                )
                question = gradio.Textbox(label="question", max_lines=1)
                button = gradio.Button("Ask", variant="primary")
            with gradio.Column():
                answers = gradio.Label(label=label, num_top_classes=top)
                notes = gradio.Textbox(label="notes", lines=4)
        picture = gradio.Image(label="where the model looked", format="png", interactive=False)
        for event in (button.click, question.submit):
            event(
                reply,
                [file, question],
                [answers, picture, notes],
                api_name=False,
                concurrency_limit=1,
                concurrency_id="model",
            )
    return page


def serve(model, kept, top, port):
    """Serve the page on 127.0.0.1 until interrupted; nothing is shared, reported or kept.

    Raises UserError when the port is taken.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # such variables could share the page or open folders to it
    # a plain kill must not leave the uploads behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="ask-") as folder:  # of uploads and pictures
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "GRADIO_TEMP_DIR": folder,
            "HF_HUB_OFFLINE": "1",
        }
        page = build_page(model, kept, top)
        try:
            _, address, _ = page.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                allowed_paths=[],
                max_file_size=20 * 2**20,
            )
        except OSError as error:
            raise UserError(
                f"--port {port} can't be used ({reason(error, 80)}): name another one"
            ) from None
        log(f"{address}  (Ctrl-C ends it). {NOT_FOR_DIAGNOSIS}")
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def describe(result):
    """The lines below the answers: image type, model, notes, warnings, what this is not for."""
    types = result["image_type"] or {}
    ranked = sorted(types.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {p:.2f}" for name, p in ranked) or "not told by this model"
    return [
        f"image type: {listed}",
        f"model: {result['model']}, {result['checkpoint']}, trained on {result['data']}",
        *(f"NOTE: {note}" for note in result["image_notes"]),
        *(f"WARNING: {note}" for note in result["warnings"]),
        NOT_FOR_DIAGNOSIS,
    ]


def save_picture(pixels, path):
    """Write uint8 (H, W, 3) as a PNG, atomically."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")


def main():
    args = parse_args()
    device = choose_device(args.gpu)
    if args.web:
        optional("gradio")  # before the model is read
    else:
        picture = open_image(args.image, args.frame)
        image = resize(picture.image)
    path, _ = find_checkpoint(args.input, None, HERE / "saved_models")
    model, kept = load(path, device)
    if args.web:
        return serve(model, kept, args.top, args.port)
    # a shell's bytes that are no text
    question = args.question.encode("utf-8", "replace").decode()
    result = answer(model, kept, image, question, args.top) | picture_facts(picture)
    if args.show:
        save_picture(draw_attention(model, kept, image, question, result)[0], args.show)
    if args.json:
        log(json.dumps(result))
        return
    width = max(len(text) for text, _ in result["answers"])
    for text, probability in result["answers"]:
        log(f"{text:{width}}  {probability:.3f}")
    log("\n".join(describe(result)))
    if args.show:
        log(f"written: {args.show}")


if __name__ == "__main__":
    run_main(main)
