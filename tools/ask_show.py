"""The picture of `ask.py --show`, and the maps of one question that it and the page show."""

import textwrap

import torch
from PIL import Image

import ask
from tools.maps import draw_maps, occlusion_maps, say_falls, say_looks, word_maps
from utils import atomic_path


def answer_maps(model, kept, encoded, question):
    """(falls (7, 7), its sentence, words, P (words, 7, 7), R (words, words + 1)) of one question.

    encoded: what `ask.encode_picture` gives of its image. The first two are of
    `tools.maps.occlusion_maps`, for the answer given. The last two are of `word_maps`, and None
    for BAN and SAN. Unknown words come in brackets. Raises UserError.
    """
    asked, (maps, organs) = ask.read_question(kept, question), encoded
    with torch.inference_mode():
        tokens = torch.tensor([asked.tokens], device=maps.device)
        logits = model(None, tokens, maps, organs).logits
        label = model.probabilities(logits, ask.allowed_by_form(kept, question)).argmax(1)
        falls, before = occlusion_maps(model, tokens, label, maps, organs)
        cells = over = None
        if model.fusion == "CMSA":
            [(cells, over)] = word_maps(model, tokens, [len(asked.words)], maps, organs)
    words = [f"[{word}]" if word in asked.unknown else word for word in asked.words]
    return falls[0], say_falls(falls[0], before[0]), words, cells, over


def draw_answer(model, kept, image, encoded, question, result):
    """What the answer depends on, and CMSA's maps: uint8 (820, 1600, 3).

    image: uint8 (224, 224, 3), encoded: what `ask.encode_picture` gives of it; result: `answer`'s.
    """
    falls, sentence, *others = answer_maps(model, kept, encoded, question)
    best, probability = result["answers"][0]
    question, best = (
        textwrap.shorten(text, width, placeholder=" …")
        for text, width in ((question, 110), (best, 60))
    )
    title = f"{question}    {best} ({probability:.2f})"
    if model.fusion == "CMSA":
        sentence += f" {say_looks([others[1:]])}"
    return draw_maps(image, falls, *others, title, f"{sentence} {ask.NOT_FOR_DIAGNOSIS}")


def save_picture(pixels, path):
    """Write uint8 (H, W, 3) as a PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG")
