"""CMSA's maps per word against the model's own attention, and their picture."""

import numpy as np
import pytest
import torch
from saved_runs import small_model

from tools.maps import draw_maps, word_maps

TOKENS = torch.tensor([[0, 1, 2, 9, 9], [3, 4, 9, 9, 9]])  # 9: padding
COUNTS = [3, 2]


@pytest.fixture(scope="module")
def found():
    """(maps, P, R) of an untrained model on noise for two questions."""
    model, _ = small_model(9, 4)
    torch.manual_seed(1)
    with torch.inference_mode():
        maps, organs = model.image.encode(torch.randn(2, 3, 224, 224))
        visual, states = model.image.mix(maps, organs), model.q_emb(model.w_emb(TOKENS))
        p, r = model.cmsa.attention(visual, states, model.spatial)  # (B, T, N, N), (B, T, N, T)
    return word_maps(model, TOKENS, COUNTS, maps, organs), p, r


def test_they_are_means_of_the_first_block(found):
    maps, p, r = found
    for index, (cells, words) in enumerate(maps):
        count = COUNTS[index]
        assert cells.shape == (count, 7, 7) and words.shape == (count, count + 1)
        np.testing.assert_allclose(cells.sum((1, 2)), 1, atol=1e-5)
        np.testing.assert_allclose(words.sum(1), 1, atol=1e-5)
    cells, words = maps[0]
    # row 1, column 3 of the map is cell 10
    np.testing.assert_allclose(cells[2, 1, 3], p[0, 2, :, 10].mean(), rtol=1e-4)
    np.testing.assert_allclose(words[1, 2], r[0, 1, :, 2].mean(), rtol=1e-4)
    np.testing.assert_allclose(words[0, 3], r[0, 0, :, 3:].sum(-1).mean(), rtol=1e-4)


def test_picture(found):
    """Each word has a panel of its own: other maps give another picture."""
    cells, words = found[0][0]
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    names = ["is", "[$x^]", "a very long word of a question"]
    drawn = draw_maps(image, names, cells, words, "a title", "A note.")
    assert drawn.shape == (820, 1600, 3) and drawn.dtype == np.uint8
    other = draw_maps(image, names, cells[[0, 0, 0]], words, "a title", "A note.")
    assert (drawn != other).any() and (drawn[:, 1000:] == other[:, 1000:]).all()
