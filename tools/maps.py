"""CMSA's attention as maps per word: computed for ask.py and the report, drawn for ask.py."""

import math
import textwrap
import warnings

import numpy as np
import torch
from torch.nn import functional as F

from utils import SIZE

CAPTION = (
    "The left side shows for each word how its tokens spread their attention over the 7 x 7 cells "
    "of the image (P of CMSA's first block, the mean over the 49 query cells). The value 1 is an "
    "even spread. The right side shows for each word (row) how they spread it over the words (R, "
    "the same mean). A row sums to 1 with the padding behind the question. A word in [brackets] "
    "is unknown to the model. Attention shows what the model mixed, not why it answered."
)


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


def draw_maps(image, words, over_cells, over_words, title, note):
    """A picture, uint8 (820, 1600, 3): where each word looks, and at which words.

    image: uint8 (H, W, 3); words: a question's; over_cells, over_words: `word_maps`'s for it;
    title: a line above; note: a sentence behind the caption.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    words = [
        textwrap.shorten(word, 16, placeholder="…") if " " in word else word[:16] for word in words
    ]
    with rc_context({"text.parse_math": False}):  # a "$" in a question is no formula
        figure = Figure(figsize=(16, 8.2), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)  # pyplot works in the main thread only, and the page has others
        figure.suptitle(title)
        left, right = figure.subfigures(1, 2, width_ratios=(1.55, 1))
        _draw_cells(left, image, words, over_cells)
        _draw_words(right, words, over_words)
        figure.supxlabel(textwrap.fill(f"{CAPTION} {note}", 190), fontsize=9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks
            figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def _draw_cells(figure, image, words, over_cells):
    """The image once, and once a word with the word's map (7, 7) over it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    columns = math.ceil(math.sqrt(1.3 * (len(words) + 1)))
    rows = -(-(len(words) + 1) // columns)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    relative = torch.from_numpy(over_cells * over_cells[0].size)[:, None]  # 1: an even spread
    heat = F.interpolate(relative, (SIZE, SIZE), mode="bilinear", align_corners=False)
    # one scale for all words: a word that looks nowhere in particular stays dark
    top = max(2.0, float(relative.max()))
    for panel in panels:
        panel.axis("off")
    for panel, title in zip(panels, ["(the image)", *words]):
        panel.imshow(image)
        panel.set_title(title, fontsize=11)
    for panel, one in zip(panels[1:], heat[:, 0].numpy()):
        # where there is little attention the image stays visible
        panel.imshow(one, cmap="inferno", vmin=0, vmax=top, alpha=0.2 + 0.6 * one / top)
    figure.colorbar(
        ScalarMappable(Normalize(0, top), "inferno"),
        ax=list(panels),
        location="bottom",
        shrink=0.5,
        aspect=40,
        label="attention, times an even spread",
    )


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
