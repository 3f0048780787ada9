"""The gallery of the report: some questions with their image, answers and attention maps."""

import base64
import hashlib
import io

import numpy as np
import torch
from PIL import Image

from engine import collate
from features import ImageStore
from tools.maps import word_maps

CARDS = 48  # questions shown
MAP_SIDE = 112  # pixels of a word's map
AMBER, STRENGTH = (255, 150, 0), 0.72  # of a map over its image, and how much of it covers
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
def maps_for(model, questions, inputs, batch_size=16):
    """[(P, R, label)] of some questions: `tools.maps.word_maps`, and the class answered.

    inputs: what the model sees (features.Inputs).
    """
    model.eval()
    device, found = next(model.parameters()).device, []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        maps, organs = model.image.encode(**inputs([q.image for q in batch]))
        tokens = collate(batch, device)[0]  # (B, T)
        counts = [len(read_words(q)) for q in batch]
        labels = model(None, tokens, maps, organs).logits.argmax(1).tolist()
        pairs = word_maps(model, tokens, counts, maps, organs)
        found += [(*pair, label) for pair, label in zip(pairs, labels)]
    return found


def read_words(question):
    """The words of a Question that the model reads."""
    return question.words[: len(question.tokens)]


def jpeg(pixels, quality=82):
    """A JPEG data URI of uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def overlay(pixels, heat, top):
    """A map `heat` (7, 7), shares of 1, in amber over uint8 (H, W, 3), as a data URI.

    A share of `top` gets the full colour.
    """
    size = (MAP_SIDE, MAP_SIDE)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    scaled = Image.fromarray((heat / top).astype(np.float32))
    covered = np.asarray(scaled.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    covered = STRENGTH * covered[..., None]  # (112, 112, 1)
    mixed = np.asarray(small, np.float32) * (1 - covered) + np.array(AMBER) * covered
    return jpeg(mixed.astype(np.uint8), quality=73)


def peak_in_words(heat):
    """Where the largest share of a map (7, 7) lies: "upper left", "middle", ..."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    third, across = (int(3 * (i + 0.5) / size) for i, size in zip((row, column), heat.shape))
    names = (("upper", "middle", "lower")[third], ("left", "middle", "right")[across])
    return " ".join(dict.fromkeys(names))


def make_cards(rows, data, model, inputs, missing):
    """The cards of some rows: {"row", "image", "maps", "which", "full"}.

    `full` is the share in percent that has the full colour in all maps of a card.

    data, model and inputs may be None; then pictures or maps are left out. `missing`, {part:
    sentence}, gets the reason where the data lack the rows' questions, or where the model
    answers them otherwise.
    """
    by_qid = {q.qid: q for q in data.test} if data else {}
    cards = [{"row": row, "image": None, "maps": [], "which": []} for row in rows]
    # [(card, Question)] of those that are still in the data
    found = [(card, q) for card in cards if (q := by_qid.get(card["row"]["qid"]))]
    found = [(card, q) for card, q in found if q.question == card["row"]["question"]]
    if not found:
        if data:
            missing["data"] = missing["maps"] = "The data hold none of these questions."
        return cards
    store = ImageStore(data.images_path)
    pixels = [store[[q.image]][0].numpy() for _, q in found]
    for (card, _), image in zip(found, pixels):
        card["image"] = jpeg(image)
    if model is None:
        return cards
    maps = maps_for(model, [q for _, q in found], inputs)
    answers = [data.answers[label] for _, _, label in maps]
    alike = sum(answer == card["row"]["answer"] for answer, (card, _) in zip(answers, found))
    if alike < ALIKE * len(found):
        missing["maps"] = (
            f"The model answers {len(found) - alike} of these {len(found)} questions otherwise "
            "than predictions.json says: it is another one."
        )
        return cards
    for (card, q), image, (over_cells, over_words, _) in zip(found, pixels, maps):
        card["which"] = over_words.tolist()
        top = max(LEAST_PEAK, float(over_cells.max()))
        card["full"] = 100 * top
        card["maps"] = [
            {
                "word": word,
                "unknown": word in card["row"]["unknown_words"],
                "picture": overlay(image, heat, top),
                "peak": float(heat.max()),
                "place": peak_in_words(heat),
            }
            for word, heat in zip(read_words(q), over_cells)
        ]
    return cards
