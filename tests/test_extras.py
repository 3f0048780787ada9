"""extras.py: the tuned recipe's parts by hand."""

import math
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from base_model import VQAModel
from dataset_RAD import split_validation
from extras import PRIOR_WEIGHT, WithPrior, fit_prior, idf_weights
from language_model import WordEmbedding
from train import start_words

Asked = namedtuple("Asked", "qid image tokens phrase_type answer twin", defaults=[False])
SIZES = {"ntoken": 5, "num_answers": 3, "word_dim": 4}


def test_idf_weights_by_hand():
    """Word 0 is in all of three questions, 1 in two, 2 in one (twice), 3 in none."""
    tokens = ((0, 1, 4), (0, 1, 4), (0, 2, 2))
    questions = [SimpleNamespace(tokens=ids) for ids in tokens]
    logs = np.array([0, math.log(1.5), math.log(3), math.log(3)])
    np.testing.assert_allclose(idf_weights(questions, 4), logs / logs.mean(), rtol=1e-6)
    # every word is in every question: all count alike
    assert (idf_weights(questions[:1] * 2, 2) == 1).all()


def test_word_tables_start_from_vectors_times_idf():
    """Both tables; padding stays zero, and questions drawn for validation do not count."""

    def ask(qid, *ids):
        return Asked(qid, qid, ids, "freeform", "yes")

    model = SimpleNamespace(w_emb=WordEmbedding(2, 3))
    asked = [ask(1, 0, 1, 2), ask(2, 0, 2, 2), ask(3, 1, 1, 1)]
    args = SimpleNamespace(idf=True, split="official", val_fraction=0.3, seed=0)
    while (drawn := split_validation(asked, 0.3, "official", args.seed)[1]) != asked[2:]:
        assert len(drawn) == 1
        args.seed += 1
    data = SimpleNamespace(train=asked, validation=[], ntoken=2)
    vectors = np.full((2, 3), 5, np.float32)
    assert start_words(model, vectors, "vectors", args, data) == "vectors times idf"
    for table in (model.w_emb.emb.weight, model.w_emb.emb_.weight):
        assert table.tolist() == [3 * [0], 3 * [10], 3 * [0]]  # idf: 0 and log(2), of mean 1


def test_the_gate_adds_a_product_of_image_and_question():
    """Against its formula; without a gate neither its weights nor its part of the feature is."""
    torch.manual_seed(0)
    model = VQAModel("CMSA", **SIZES, hidden=8, encoder=None, gate=True).eval()
    visual, questions = torch.randn(2, 49, 512), torch.randint(0, 6, (2, 12))
    first, second = model.gate.image_mlp[0], model.gate.image_mlp[2]
    plain = VQAModel("CMSA", **SIZES, hidden=8, encoder=None).eval()
    weights = model.state_dict()
    plain.load_state_dict({k: weights[k] for k in weights if not k.startswith("gate.")})
    with torch.no_grad():
        image = torch.tanh(second(torch.relu(first(visual.sum(1) / 49))))
        words = model.q_emb(model.w_emb(questions)).sum(1)
        added = image * torch.tanh(model.gate.word_mlp[0](words))
        with_gate, without = (one.fuse(visual, questions)[1] for one in (model, plain))
    torch.testing.assert_close(with_gate - without, added, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distmodal", [True, False])
def test_a_prior_multiplies(distmodal, monkeypatch):
    """Probabilities are p * exp(PRIOR_WEIGHT * score), normalised; the mean cell counts."""
    # the maps are given: an encoder is never run
    monkeypatch.setattr("base_model.make_encoder", lambda name: torch.nn.Identity())
    torch.manual_seed(0)
    model = VQAModel("SAN", **SIZES, hidden=8, softmax=True, distmodal=distmodal)
    cells = dict(enumerate(torch.randn(9, 512)))
    training = [SimpleNamespace(tokens=(i % 5, 5, 5), image=i, label=i % 3) for i in range(9)]
    prior, _ = fit_prior(training, cells, 5, 3, np.eye(5, 4, dtype=np.float32))
    whole = WithPrior(model, prior).eval()
    maps = torch.randn(4, 3 if distmodal else 1, 512, 7, 7)
    organ_logits = torch.randn(4, 3) if distmodal else None
    questions = torch.randint(0, 6, (4, 12))
    with torch.no_grad():
        output = whole(None, questions, maps, organ_logits)
        alone = model(None, questions, maps, organ_logits).logits.softmax(-1)
        scores = prior(questions, maps.flatten(3).mean(3).mean(1))
        assert not torch.allclose(scores, prior(questions, torch.zeros(4, 512)))
        product = alone * (PRIOR_WEIGHT * scores).exp()
        torch.testing.assert_close(
            whole.probabilities(output.logits), product / product.sum(-1, keepdim=True)
        )
