"""The gallery of the report: some questions with their image, answers and maps."""

import base64
import hashlib
import io

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from engine import collate
from features import ImageStore
from text_rules import allowed_answers
from tools.maps import (
    cover,
    cover_falls,
    occlusion_maps,
    place_in_words,
    say_falls,
    say_looks,
    word_maps,
)

CARDS = 48  # questions shown
SIDE, WORD_SIDE = 192, 88  # pixels of an answer's map, and of a word's
# the most bytes of a card's pictures, so that 48 of any images are 2.4 MB of base64
IMAGE_BYTES, ANSWER_BYTES, WORDS_BYTES = 12_000, 8_000, 18_000
LEAST_PEAK = 4 / 49  # share of a word's look that gets the full colour: an even map stays pale
ALIKE = 0.9  # share of the model's answers that must be those of predictions.json; bf16 turns few


def choose_gallery(rows, n=CARDS):
    """About n rows, half right and half wrong, the same each time, in order of qid.

    Where one half has too few the other has more. The rows are taken in turn from each (organ,
    question type), in an order that depends on the qid alone.
    """
    by_digest = sorted(rows, key=lambda row: hashlib.sha256(str(row["qid"]).encode()).digest())
    right, wrong = (_in_turn([r for r in by_digest if r["correct"] == flag]) for flag in (1, 0))
    half = max(min(len(right), n // 2), n - len(wrong))
    return sorted(right[:half] + wrong[: n - min(half, len(right))], key=lambda row: row["qid"])


def _in_turn(rows):
    """The first rows of each (organ, question type), then the second ones, and so on."""
    piles = {}
    for row in rows:
        piles.setdefault((row["organ"], *row["question_types"][:1]), []).append(row)
    turns = [(turn, key, row) for key, pile in piles.items() for turn, row in enumerate(pile)]
    return [row for _, _, row in sorted(turns, key=lambda item: item[:2])]


@torch.inference_mode()
def maps_for(model, questions, inputs, classes=None, batch_size=16):
    """[(label, falls, odds, looks)] of some questions: the class answered, and its maps.

    falls (7, 7) and odds, a number, are `tools.maps.occlusion_maps`'s; looks is `word_maps`'s
    (P, R), or None for BAN and SAN. inputs: what the model sees (features.Inputs). classes: the
    answers, where the form rule chose the class answered; else None.
    """
    model.eval()
    device, found = next(model.parameters()).device, []
    starts = range(0, len(questions), batch_size)
    for start in tqdm(starts, desc="Drawing maps", leave=False, disable=None):
        batch = questions[start : start + batch_size]
        maps, organs = model.image.encode(**inputs([q.image for q in batch]))
        tokens = collate(batch, device)[0]  # (B, T)
        logits = model(None, tokens, maps, organs).logits
        allowed = classes and [allowed_answers(q.question, classes) for q in batch]
        labels = model.probabilities(logits, allowed).argmax(1)
        falls, odds = occlusion_maps(model, tokens, labels, maps, organs)
        looks = [None] * len(batch)
        if model.fusion == "CMSA":
            counts = [len(read_words(q)) for q in batch]
            looks = word_maps(model, tokens, counts, maps, organs)
        found += zip(labels.tolist(), falls, odds, looks)
    return found


def read_words(question):
    """The words of a Question that the model reads."""
    return question.words[: len(question.tokens)]


def jpeg(pixels, quality, most):
    """A JPEG data URI of uint8 (H, W, 3), of lower quality where it has over `most` bytes."""
    while True:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= most or quality <= 10:
            return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        quality = quality * 2 // 3


def make_cards(rows, data, model, inputs, missing, rule=False):
    """(cards of some rows, a sentence on CMSA's maps or "").

    A card is {"row", "image", "answer", "maps", "which", "full"}. "answer" is the map of what the
    answer depends on: its picture, place and sentence, or None. "maps" are CMSA's for each word,
    less the mean map of all words of all cards; `full` is the part of a word's look, in percent,
    that has the full colour in them. "which" are the words that each word looks at.

    data, model and inputs may be None; then pictures or maps are left out. `missing`, {part:
    sentence}, gets the reason where the data lack the rows' questions, or where the model
    answers them otherwise. rule: True where the form rule held.
    """
    by_qid = {q.qid: q for q in data.test} if data else {}
    nothing = {"image": None, "answer": None, "maps": [], "which": []}
    cards = [{"row": row} | nothing for row in rows]
    # [(card, Question)] of those that are still in the data
    found = [(card, q) for card in cards if (q := by_qid.get(card["row"]["qid"]))]
    found = [(card, q) for card, q in found if q.question == card["row"]["question"]]
    if not found:
        if data:
            missing["data"] = missing["maps"] = "The data hold none of these questions."
        return cards, ""
    store = ImageStore(data.images_path)
    pixels = [store[[q.image]][0].numpy() for _, q in found]
    for (card, _), image in zip(found, pixels):
        card["image"] = jpeg(image, 82, IMAGE_BYTES)
    if model is None:
        return cards, ""
    maps = maps_for(model, [q for _, q in found], inputs, data.answers if rule else None)
    answers = [data.answers[label] for label, *_ in maps]
    alike = sum(answer == card["row"]["answer"] for answer, (card, _) in zip(answers, found))
    if alike < ALIKE * len(found):
        missing["maps"] = (
            f"The model answers {len(found) - alike} of these {len(found)} questions otherwise "
            "than predictions.json says: it is another one."
        )
        return cards, ""
    for (card, _), image, (_, falls, odds, _) in zip(found, pixels, maps):
        card["answer"] = {
            "picture": jpeg(cover_falls(image, falls, SIDE), 75, ANSWER_BYTES),
            "place": place_in_words(falls),
            "sentence": say_falls(falls, odds),
        }
    looks = [look for *_, look in maps if look]
    if looks:
        mean = np.concatenate([over_cells for over_cells, _ in looks]).mean(0)  # (7, 7)
        for (card, question), image, look in zip(found, pixels, looks):
            card |= word_cards(card["row"], question, image, look, mean)
    return cards, say_looks(looks)


def word_cards(row, question, image, look, mean):
    """What a card says of CMSA's maps: {"maps", "which", "full"} (`make_cards`).

    image: uint8 (224, 224, 3); look: (P, R); mean: (7, 7), the mean map of all words.
    """
    over_cells, over_words = look
    more = over_cells - mean  # (words, 7, 7)
    top = max(LEAST_PEAK, float(more.max()))
    words = [
        {
            "word": word,
            "unknown": word in row["unknown_words"],
            "picture": jpeg(cover(image, heat, top, WORD_SIDE), 65, WORDS_BYTES // len(more)),
            "more": float(heat.max()),
            "place": place_in_words(heat),
        }
        for word, heat in zip(read_words(question), more)
    ]
    return {"maps": words, "which": over_words.tolist(), "full": 100 * top}
