"""The retrieval baseline against ridge regression done by hand, pair by pair."""

from types import SimpleNamespace

import numpy as np
import pytest

from tools import retrieval
from tools.retrieval import retrieve

PADDING = 4
TABLE = np.array([[1.0, 0], [0, 2], [3, 1], [-1, 1]])
CELLS = {5: np.array([1.0, 2, 0]), 7: np.array([0, 1.0, 1]), 9: np.array([2.0, 0, 0])}


def question(tokens, image, label):
    tokens = (*tokens, *[PADDING] * (5 - len(tokens)))
    return SimpleNamespace(tokens=tokens, image=image, label=label)


TRAINING = [
    question((0, 1), 5, 0),
    question((0, 2, 2), 7, 1),
    question((3,), 9, 2),
    question((1, 3), 5, 0),
    question((0, 3), 7, -1),  # an answer that training lacks
]
ASKED = [question((0, 2), 7, 1), question((), 9, 0)]


def by_hand(first, second):
    """The kernel of two questions, from its formula."""
    known = TRAINING[:4]
    idf = [max(0, np.log(4 / (1 + sum(t in q.tokens for q in known)))) for t in range(4)]
    mean = sum(CELLS.values()) / 3

    def unit(vector):
        return vector / max(np.linalg.norm(vector), 1e-9)

    def near(a, b, width):
        return np.exp(-(2 - 2 * float(unit(a) @ unit(b))) / width)

    bags = [np.array([q.tokens.count(t) * idf[t] for t in range(4)]) for q in (first, second)]
    words = 0.6 * near(*bags, 1.0) + 0.4 * near(*(bag @ TABLE for bag in bags), 0.2)
    pictures = [CELLS[q.image] - mean for q in (first, second)]
    return words * (1 + 3 * near(*pictures, 0.4)) / 4


def test_scores_by_hand():
    known = TRAINING[:4]
    within = np.array([[by_hand(a, b) for b in known] for a in known]) + 0.03 * np.eye(4)
    across = np.array([[by_hand(a, b) for b in known] for a in ASKED])
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    scores, seconds = retrieve(ASKED, TRAINING, CELLS, TABLE, 3)
    np.testing.assert_allclose(scores, across @ np.linalg.inv(within) @ targets, atol=1e-9)
    assert scores[0].argmax() == 1 and seconds > 0


def test_the_same_question_gets_its_answer(monkeypatch):
    """Also where only a part of the training questions counts, the same part each time."""
    scores, _ = retrieve(TRAINING[:4], TRAINING, CELLS, TABLE, 3)
    assert scores.argmax(1).tolist() == [0, 1, 2, 0]
    monkeypatch.setattr(retrieval, "MOST", 2)
    few = [retrieve(TRAINING[:4], TRAINING, CELLS, TABLE, 3)[0] for _ in range(2)]
    assert (few[0] == few[1]).all() and not np.allclose(few[0], scores)


@pytest.mark.parametrize("table", [np.zeros((4, 1)), TABLE])
def test_without_word_vectors_words_remain(table):
    scores, _ = retrieve(TRAINING[:3], TRAINING, CELLS, table, 3)
    assert scores.argmax(1).tolist() == [0, 1, 2]
