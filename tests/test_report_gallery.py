"""The gallery of the report: the choice of its questions, its maps, its cards."""

from collections import Counter

import numpy as np
import pytest
import torch
from saved_runs import MANY, small_model

from dataset_RAD import find_data
from engine import predict
from features import Inputs
from scores import prediction_rows
from tools import report_gallery
from utils import ORGAN_CODES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shown(tiny):
    """(model, data, inputs, probabilities) of an untrained model, for 20 test questions."""
    data = find_data(tiny, log=lambda _: None)
    data.test = data.test[:20]
    model, _ = small_model(data.ntoken, data.num_answers, softmax=True, gate=True, prior=True)
    with torch.no_grad():
        for parameter in model.prior.classifier.parameters():
            parameter *= 30  # so that it decides on the answers
    inputs = Inputs(data, CPU)
    return model, data, inputs, predict(model, data.test, inputs, CPU)


@pytest.fixture
def rows(shown):
    _, data, _, probabilities = shown
    return prediction_rows(data.test, probabilities, data, "official", data.train)


def test_the_choice_is_balanced_and_the_same_each_time():
    choose = report_gallery.choose_gallery
    chosen = choose(MANY)
    assert len(chosen) == 48 == len({row["qid"] for row in chosen})
    assert sum(row["correct"] for row in chosen) == 24 and chosen == choose(MANY[::-1])
    assert [row["qid"] for row in chosen] == sorted(row["qid"] for row in chosen)
    assert {row["organ"] for row in chosen} == set(ORGAN_CODES)
    assert min(Counter(row["question_types"][0] for row in chosen).values()) > 8
    few = [row for row in MANY if not row["correct"] or row["qid"] < 10]
    assert len(choose(few)) == 48 and sum(row["correct"] for row in choose(few)) == 4
    assert len(choose(MANY[:5])) == 5


def test_maps(shown):
    model, data, inputs, probabilities = shown
    some = data.test[:3]
    found = report_gallery.maps_for(model, some, inputs, batch_size=2)
    assert [label for _, _, label in found] == probabilities[:3].argmax(1).tolist()
    for question, (cells, words, _) in zip(some, found):
        read = report_gallery.read_words(question)
        assert question.question.lower().startswith(read[0])
        assert cells.shape == (len(read), 7, 7) and words.shape == (len(read), len(read) + 1)
        assert np.allclose(cells.sum((1, 2)), 1, atol=1e-5)
        assert np.allclose(words.sum(1), 1, atol=1e-5)


def test_the_place_of_a_peak():
    heat = np.zeros((7, 7))
    heat[0, 6] = 1
    assert report_gallery.peak_in_words(heat) == "upper right"
    assert report_gallery.peak_in_words(np.eye(7) * (np.arange(7) == 3)) == "middle"


def test_cards(shown, rows):
    model, data, inputs, _ = shown
    missing = {}
    cards = report_gallery.make_cards(rows, data, model, inputs, missing)
    assert not missing and [card["row"] for card in cards] == rows
    for card, question in zip(cards, data.test):
        words = report_gallery.read_words(question)
        assert card["image"].startswith("data:image/jpeg;base64,")
        assert [one["word"] for one in card["maps"]] == list(words)
        assert len(card["which"]) == len(words) == len(card["which"][0]) - 1
        # one scale for all words: the largest share, or four times an even one
        peak = max(one["peak"] for one in card["maps"])
        assert card["full"] == pytest.approx(100 * max(peak, 4 / 49))


def test_parts_that_are_missing(shown, rows):
    model, data, inputs, _ = shown

    def parts(changed, *arguments):
        missing = {}
        cards = report_gallery.make_cards(changed, *arguments, missing)
        have = {(bool(card["image"]), bool(card["maps"])) for card in cards}
        return have, missing

    assert parts(rows, None, None, None) == ({(False, False)}, {})
    assert parts(rows, data, None, None) == ({(True, False)}, {})
    other = [row | {"answer": "nonsense"} for row in rows]
    have, missing = parts(other, data, model, inputs)
    assert have == {(True, False)} and "it is another one" in missing["maps"]
    other = [row | {"question": "is it another?"} for row in rows]
    have, missing = parts(other, data, model, inputs)
    assert have == {(False, False)} and "none of these questions" in missing["maps"]
    assert missing["data"] == missing["maps"]
    have, missing = parts([other[0], *rows[1:]], data, model, inputs)
    assert have == {(False, False), (True, True)} and not missing
