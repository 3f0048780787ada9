"""The gallery of the report: the choice of its questions, its maps, its cards."""

from collections import Counter
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from saved_runs import MANY, save_results, small_model

from dataset_RAD import find_data
from engine import predict
from features import Inputs
from scores import prediction_rows
from tools import report, report_gallery
from utils import ORGAN_CODES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shown(tiny):
    """(model, data, inputs, probabilities) of an untrained model, for 20 test questions."""
    data = find_data(tiny, log=lambda _: None)
    data.test = data.test[:20]
    model, _ = small_model(data.ntoken, data.num_answers, softmax=True, gate=True, prior=True)
    with torch.no_grad():
        model.prior.weights *= 30  # so that it decides on the answers
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
    assert [label for label, *_ in found] == probabilities[:3].argmax(1).tolist()
    sure = torch.tensor([odds for _, _, odds, _ in found]).sigmoid()
    np.testing.assert_allclose(sure, probabilities[:3].max(1).values, atol=1e-4)
    for question, (_, falls, _, (cells, words)) in zip(some, found):
        assert falls.shape == (7, 7)
        read = report_gallery.read_words(question)
        assert question.question.lower().startswith(read[0])
        assert cells.shape == (len(read), 7, 7) and words.shape == (len(read), len(read) + 1)
        assert np.allclose(cells.sum((1, 2)), 1, atol=1e-5)
        assert np.allclose(words.sum(1), 1, atol=1e-5)


def test_cards(shown, rows):
    model, data, inputs, _ = shown
    missing = {}
    cards, looks = report_gallery.make_cards(rows, data, model, inputs, missing)
    assert not missing and [card["row"] for card in cards] == rows
    count = sum(len(card["maps"]) for card in cards)
    assert f" of {count} word maps look most at one and the same cell (" in looks
    for card, question in zip(cards, data.test):
        words = report_gallery.read_words(question)
        assert card["image"].startswith("data:image/jpeg;base64,")
        assert [one["word"] for one in card["maps"]] == list(words)
        assert card["answer"]["picture"].startswith("data:image/jpeg;base64,")
        sentence = card["answer"]["sentence"]
        assert f"({card['answer']['place']})" in sentence or "hardly changes" in sentence
        assert len(card["which"]) == len(words) == len(card["which"][0]) - 1
        # one scale for all words: the largest difference, or four times an even share
        peak = max(one["more"] for one in card["maps"])
        assert card["full"] == pytest.approx(100 * max(peak, 4 / 49))


def test_words_are_shown_less_the_mean_map(shown, rows):
    """A word that looks as all words do stays pale, wherever that is."""
    _, data, _, _ = shown
    question, image = data.test[0], np.full((224, 224, 3), 90, np.uint8)
    mean = np.zeros((7, 7))
    mean[0, 6] = 0.9
    count = len(report_gallery.read_words(question))
    cells = np.repeat(mean[None], count, 0)
    cells[0] = np.eye(7)[::-1] / 7  # from lower left to upper right
    look = cells, np.full((count, count + 1), 1 / (count + 1))
    card = report_gallery.word_cards(rows[0], question, image, look, mean)
    pictures = [one["picture"] for one in card["maps"]]
    assert len(set(pictures[1:])) == 1 and pictures[0] != pictures[1]
    assert pictures[1] == report_gallery.jpeg(np.full((88, 88, 3), 90, np.uint8), 65, 999)
    assert card["maps"][0]["more"] == pytest.approx(1 / 7) and card["full"] == pytest.approx(
        100 / 7
    )


def test_a_page_of_many_questions_stays_small(shown, rows, tmp_path, monkeypatch):
    """As many test questions as PathVQA has, each on a picture without any even part."""
    model, data, _, _ = shown
    random, number = np.random.default_rng(0), 6700
    with h5py.File(tmp_path / "noise.h5", "w") as file:
        file["images"] = random.integers(0, 256, (60, 224, 224, 3), dtype=np.uint8)
    words = tuple(f"word{i}" for i in range(12))
    like, text = data.test[0], " ".join(words)
    questions = [
        like._replace(qid=qid, image=qid % 60, question=text, words=words, tokens=words)
        for qid in range(number)
    ]
    many = [
        rows[0]
        | {"qid": qid, "question": text, "image": f"{qid % 858}.jpg", "correct": int(qid % 3 > 0)}
        for qid in range(number)
    ]
    label = data.answers.index(rows[0]["answer"])

    def maps(model, some, *_):
        look = random.random((12, 7, 7)), random.random((12, 13))
        return [(label, random.normal(size=(7, 7)), 1.0, look) for _ in some]

    monkeypatch.setattr(report_gallery, "maps_for", maps)
    monkeypatch.setattr("scores.BOOTSTRAP", 100)  # intervals are as long
    folder = save_results(tmp_path / "many", many, split="official", data=data.about())
    data = replace(data, test=questions, images_path=tmp_path / "noise.h5")
    path = report.make_report(folder, data=data, model=model, inputs="any")
    assert path.read_text("utf-8").count("data:image/jpeg") == 48 * 14
    assert 2e6 < path.stat().st_size < 3e6


def test_answers_of_a_model_without_word_maps(shown, rows):
    _, data, inputs, _ = shown
    model, _ = small_model(data.ntoken, data.num_answers, fusion="BAN")
    answers = predict(model, data.test[:3], inputs, CPU)
    three = prediction_rows(data.test[:3], answers, data, "official", data.train)
    cards, looks = report_gallery.make_cards(three, data, model, inputs, {})
    assert looks == "" and all(card["answer"] and not card["maps"] for card in cards)


def test_parts_that_are_missing(shown, rows):
    model, data, inputs, _ = shown

    def parts(changed, *arguments):
        missing = {}
        cards, _ = report_gallery.make_cards(changed, *arguments, missing)
        have = {(bool(card["image"]), bool(card["maps"])) for card in cards}
        assert all(bool(card["maps"]) == bool(card["answer"]) for card in cards)
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
