"""What an answer depends on, and CMSA's attention per word, for ask.py and the report."""

import math
import textwrap
import warnings

import numpy as np
import torch
from PIL import Image

from utils import SIZE

AMBER, STRENGTH = np.array([255, 150, 0]), 0.72  # of a map over its image, and its share there
LEAST_FALL = 0.1  # of log-odds, and of attention in even spreads, that get the full colour
LEAST_PEAK = 4.0
ANSWER = "what the answer depends on"

CAPTION = (
    "The middle shows for each word how its tokens spread their attention over the 7 x 7 cells (P "
    "of CMSA's first block, the mean over the 49 query cells). The table shows for each word (row) "
    "how they spread it over the words (R, the same mean). A row sums to 1 with the padding behind "
    "the question. A word in [brackets] is unknown to the model. Attention shows what the model "
    "mixed, not why it answered."
)
OCCLUSION = (
    "The amber map shows what the answer depends on. The 7 x 7 cells of the encoder's map were "
    "blanked in turn, by the mean of all cells. The colour says by how much the answer's log-odds "
    "fell, the full colour by most. Each cell has seen the parts of the image around it too."
)


def log_odds(logits, labels, softmax):
    """The log-odds (B,) of the classes labels (B,) by answer logits (B, answers)."""
    logits, columns = logits.float(), labels[:, None]
    chosen = logits.gather(1, columns)[:, 0]  # (B,)
    if not softmax:
        return chosen
    return chosen - logits.scatter(1, columns, -math.inf).logsumexp(1)


@torch.inference_mode()
def occlusion_maps(model, tokens, labels, maps, organ_logits):
    """By how much answers depend on each cell: float32 (B, 7, 7), and the log-odds (B,) before.

    An entry is the fall of the log-odds of the class labels (B,) when the cell takes the mean of
    its image's cells. tokens: (B, T); maps (B, E, width, 7, 7) and organ_logits (B, 3) or None:
    `ImageSide.encode`'s.
    """

    def odds(cells):
        logits = model(None, tokens, cells, organ_logits).logits / model.temperature
        return log_odds(logits, labels, model.softmax)

    before, mean = odds(maps), maps.mean((3, 4))  # (B,), (B, E, width)
    rows, columns = maps.shape[3:]
    falls = torch.empty(len(tokens), rows, columns)
    for row in range(rows):
        for column in range(columns):
            blanked = maps.clone()
            blanked[:, :, :, row, column] = mean
            # without another class the log-odds are infinite
            falls[:, row, column] = (before - odds(blanked)).nan_to_num(0).cpu()
    return falls.numpy(), before.cpu().numpy()


@torch.inference_mode()
def word_maps(model, tokens, counts, maps, organ_logits):
    """What CMSA's first block looks at, for each word of some questions (docs/METHOD.md 4.1).

    tokens: (B, T); counts: the number of words of each question; maps (B, E, width, 7, 7) and
    organ_logits (B, 3) or None: `ImageSide.encode`'s. Returns for each question two float32
    arrays: P (words, 7, 7), each word's distribution over the cells, and R (words, words + 1),
    its distribution over the words. R's last column is all padding together. Both are means over
    the query cells.
    """
    visual = model.image.mix(maps, organ_logits)  # (B, 49, 512)
    states = model.q_emb(model.w_emb(tokens))  # (B, T, hidden)
    # (B, T, 49, 49) and (B, T, 49, T)
    over_cells, over_words = model.cmsa.attention(visual, states, model.spatial)
    over_cells = over_cells.mean(2).float().cpu().numpy()  # (B, T, 49)
    over_words = over_words.mean(2).float().cpu().numpy()  # (B, T, T)
    side = math.isqrt(over_cells.shape[2])
    found = []
    for count, cells, words in zip(counts, over_cells, over_words):
        padding = words[:count, count:].sum(1, keepdims=True)  # (words, 1)
        words = np.concatenate([words[:count, :count], padding], 1)  # (words, words + 1)
        found.append((cells[:count].reshape(count, side, side), words))
    return found


def cover(image, heat, top, side=SIZE):
    """A map `heat` (rows, columns) in amber over uint8 (H, W, 3): uint8 (side, side, 3).

    Values of `top` and more get the full colour, those of 0 and less none.
    """
    small = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    scaled = Image.fromarray((heat / top).astype(np.float32))
    amount = np.asarray(scaled.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    amount = STRENGTH * amount[..., None]  # (side, side, 1)
    return (np.asarray(small, np.float32) * (1 - amount) + AMBER * amount).astype(np.uint8)


def cover_falls(image, falls, side=SIZE):
    """`cover` with a map of `occlusion_maps`. An answer that depends on no cell stays pale."""
    return cover(image, falls, max(float(falls.max()), LEAST_FALL), side)


def place_in_words(heat):
    """Where the largest value of a map lies: "upper left", "middle", ..."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    third, across = (int(3 * (i + 0.5) / size) for i, size in zip((row, column), heat.shape))
    names = (("upper", "middle", "lower")[third], ("left", "middle", "right")[across])
    return " ".join(dict.fromkeys(names))


def say_falls(falls, before):
    """A sentence on an answer's map of `occlusion_maps` and its log-odds before."""
    if falls.max() < 0.01:
        return "Blanking any one cell hardly changes the answer: no single place decides it."
    then, now = (1 / (1 + math.exp(-odds)) for odds in (before, before - float(falls.max())))
    return (
        f"Blanking the cell that matters most ({place_in_words(falls)}) lowers the answer's "
        f"log-odds by {falls.max():.2f}, its probability from {then:.3f} to {now:.3f}."
    )


def say_looks(found):
    """A sentence on how much CMSA's maps of some questions differ. found: what `word_maps` gives.

    "" for no word at all.
    """
    cells = [heat for over_cells, _ in found for heat in over_cells]
    if not cells:
        return ""
    peaks = np.bincount([heat.argmax() for heat in cells], minlength=cells[0].size)
    padding = np.concatenate([over_words[:, -1] for _, over_words in found]).mean()
    return (
        f"{peaks.max()} of {len(cells)} word maps look most at one and the same cell "
        f"({place_in_words(peaks.reshape(cells[0].shape))}), and {100 * padding:.0f}% of the "
        "words' weight lies on the padding behind the question."
    )


def draw_maps(image, falls, words, over_cells, over_words, title, note):
    """A picture, uint8 (820, 1600, 3): what the answer depends on, and CMSA's maps per word.

    image: uint8 (H, W, 3); falls: `occlusion_maps`'s (7, 7) for it; words: a question's;
    over_cells, over_words: `word_maps`'s for it, or None for a model without; title: a line
    above; note: a sentence behind the caption.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = [
        textwrap.shorten(word, 16, placeholder="…") if " " in word else word[:16] for word in words
    ]
    caption = OCCLUSION if over_cells is None else f"{OCCLUSION} {CAPTION}"
    with rc_context({"text.parse_math": False}):  # a "$" in a question is no formula
        figure = Figure(figsize=(16, 8.2), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)  # pyplot works in the main thread only, and the page has others
        figure.suptitle(title)
        if over_cells is None:
            _draw_panels(figure, [image, cover_falls(image, falls)], ["", ANSWER], 2)
        else:
            left, middle, right = figure.subfigures(1, 3, width_ratios=(0.62, 1.2, 0.9))
            _draw_panels(left, [image, cover_falls(image, falls)], ["", ANSWER], 1)
            relative = over_cells * over_cells[0].size  # 1: an even spread
            # one scale for all words: a word that looks nowhere in particular stays pale
            top = max(LEAST_PEAK, float(relative.max()))
            columns = math.ceil(math.sqrt(1.1 * len(words)))
            _draw_panels(middle, [cover(image, heat, top) for heat in relative], words, columns)
            middle.suptitle(f"CMSA, full colour: {top:.0f} times an even spread", fontsize=11)
            _draw_words(right, words, over_words)
        figure.supxlabel(textwrap.fill(f"{caption} {note}", 190), fontsize=9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks
            figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def _draw_panels(figure, pictures, titles, columns):
    """Pictures, each under its title, in so many columns."""
    panels = figure.subplots(-(-len(pictures) // columns), columns, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    for panel, picture, title in zip(panels, pictures, titles):
        panel.imshow(picture)
        panel.set_title(title, fontsize=11)


def _draw_words(figure, words, over_words):
    """The table of words by words and padding."""
    axes = figure.subplots()
    top = max(float(over_words.max()), 1e-9)
    drawn = axes.imshow(over_words, cmap="viridis", vmin=0, vmax=top)
    axes.set_xticks(range(len(words) + 1), [*words, "padding"], rotation=60, ha="right")
    axes.set_yticks(range(len(words)), words)
    axes.set_title("which words each word looks at", fontsize=11)
    figure.colorbar(
        drawn, ax=axes, location="bottom", shrink=0.7, aspect=40, label="share of attention"
    )
