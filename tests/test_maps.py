"""CMSA's maps per word against the model's own attention, and their picture."""

import numpy as np
import pytest
import torch
from saved_runs import small_model

from tools.maps import (
    cover,
    draw_maps,
    occlusion_maps,
    place_in_words,
    say_falls,
    say_looks,
    word_maps,
)

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
    names, falls = ["is", "[$x^]", "a very long word of a question"], np.eye(7, dtype=np.float32)
    drawn = draw_maps(image, falls, names, cells, words, "a title", "A note.")
    assert drawn.shape == (820, 1600, 3) and drawn.dtype == np.uint8
    other = draw_maps(image, falls, names, cells[[0, 0, 0]], words, "a title", "A note.")
    assert (drawn != other).any() and (drawn[:, :300] == other[:, :300]).all()
    other = draw_maps(image, -falls, names, cells, words, "a title", "A note.")
    assert (drawn[:, :300] != other[:, :300]).any()
    assert (drawn != draw_maps(image, falls, names, None, None, "a title", "A note.")).any()


@pytest.mark.parametrize("fusion, prior", [("CMSA", True), ("CMSA", False), ("BAN", False)])
def test_blanked_cells(fusion, prior):
    """The fall of a cell against the model's own probabilities with that cell blanked by hand."""
    model, _ = small_model(9, 4, fusion=fusion, prior=prior)
    torch.manual_seed(1)
    with torch.inference_mode():
        maps, organs = model.image.encode(torch.randn(2, 3, 224, 224))
        maps = torch.randn_like(maps)  # those of random encoders are almost 0
        labels = torch.tensor([3, 1])
        falls, before = occlusion_maps(model, TOKENS, labels, maps, organs)
        blanked = maps.clone()
        blanked[1, :, :, 4, 2] = maps[1].sum((2, 3)) / 49
        odds = []
        for cells in (maps, blanked):
            p = model.probabilities(model(None, TOKENS, cells, organs).logits)[1, 1].item()
            odds.append(np.log(p / (1 - p)))
    # the probability that people read has it; the wrapper of the prior takes the model's
    (model.model if prior else model).temperature = 2.0
    calibrated = occlusion_maps(model, TOKENS, labels, maps, organs)[1][1]
    with torch.inference_mode():
        p = model.probabilities(model(None, TOKENS, maps, organs).logits)[1, 1].item()
    np.testing.assert_allclose(calibrated, np.log(p / (1 - p)), rtol=1e-4)
    assert falls.shape == (2, 7, 7) and falls.std() > 0
    np.testing.assert_allclose(before[1], odds[0], rtol=1e-4)
    np.testing.assert_allclose(falls[1, 4, 2], odds[0] - odds[1], atol=1e-4)


def test_colour_and_words():
    """Full colour at the top, none at zero; the sentence's numbers by hand."""
    image, heat = np.full((20, 20, 3), 100, np.uint8), np.zeros((7, 7))
    assert (cover(image, heat, 1.0, 20) == 100).all()
    full = cover(image, heat + 3, 2.0, 20)
    assert (abs(full - np.array([28 + 183.6, 28 + 108, 28])) <= 1).all()
    assert "hardly changes" in say_falls(heat, 2.0)
    heat[6, 0] = np.log(3)
    assert "(lower left)" in say_falls(heat, 0.0) and "0.500 to 0.250" in say_falls(heat, 0.0)
    heat[3, 3] = 9
    assert place_in_words(heat) == "middle"


def test_how_alike_the_words_look():
    """Of three words two look most at the upper left; half and a quarter lie on padding."""
    cells = np.zeros((3, 7, 7))
    cells[:2, 0, 0] = cells[2, 5, 5] = 1
    words = np.array([[0.5, 0.0, 0.5], [0.5, 0.25, 0.25]])
    said = say_looks([(cells[:2], words), (cells[2:], np.array([[0.4, 0.6]]))])
    assert "2 of 3 word maps look most at one and the same cell (upper left)" in said
    assert "and 45% of the words' weight" in said and say_looks([]) == ""
