"""extras.py: the tuned recipe's parts by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from base_model import VQAModel
from engine import vqa_loss
from extras import PriorOutput, QuestionPrior, WithPrior, idf_weights

SIZES = {"ntoken": 5, "num_answers": 3, "word_dim": 4}


def test_idf_weights_by_hand():
    """Word 0 is in all of three questions, 1 in two, 2 in one (twice), 3 in none."""
    tokens = ((0, 1, 4), (0, 1, 4), (0, 2, 2))
    questions = [SimpleNamespace(tokens=ids) for ids in tokens]
    logs = np.array([0, math.log(1.5), math.log(3), math.log(3)])
    np.testing.assert_allclose(idf_weights(questions, 4), logs / logs.mean(), rtol=1e-6)
    # every word is in every question: all count alike
    assert (idf_weights(questions[:1] * 2, 2) == 1).all()


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


def test_the_components_are_the_directions_of_largest_variance():
    """Against the eigenvectors of the correlation matrix.

    A constant channel and blank images have none.
    """
    torch.manual_seed(0)
    cells = torch.randn(50, 6) @ torch.randn(6, 6) + 3
    cells[:, 5] = 2
    prior = QuestionPrior(5, 3, 4, 0.1, components=4, channels=6)
    prior.find_components(cells)
    found = ((cells - prior.center) @ prior.directions).double()  # (50, 4)
    standard = ((cells - cells.mean(0)) / cells.std(0, correction=0)).double()[:, :5]
    vectors = torch.linalg.eigh(standard.T @ standard)[1].flip(1)[:, :4]
    expected = standard @ vectors
    agreement = (found * expected / expected.std(0, correction=0)).mean(0).abs()  # up to the sign
    torch.testing.assert_close(agreement, torch.ones(4).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.T @ found / 50, torch.eye(4).double(), atol=1e-4, rtol=0)
    for blank in (torch.zeros(7, 6), torch.ones(1, 6)):
        prior.find_components(blank)
        assert not prior.directions.any()


@pytest.fixture(params=[True, False], ids=["distmodal", "single"])
def wrapped(request, monkeypatch):
    """(model with a prior, maps, organ logits or None, questions) of a batch of 4."""
    distmodal = request.param
    # the maps are given: an encoder is never run
    monkeypatch.setattr("base_model.make_encoder", lambda name: torch.nn.Identity())
    torch.manual_seed(0)
    model = VQAModel("SAN", **SIZES, hidden=8, softmax=True, distmodal=distmodal)
    organs = 3 if distmodal else 0
    prior = QuestionPrior(**SIZES, word_dropout=0.1, organs=organs, components=2, channels=512)
    prior.find_components(torch.randn(9, 512))
    maps = torch.randn(4, 3 if distmodal else 1, 512, 7, 7)
    organ_logits = torch.randn(4, 3, requires_grad=True) if distmodal else None
    return WithPrior(model, prior), maps, organ_logits, torch.randint(0, 6, (4, 12))


def seen_by_prior(maps, organ_logits):
    """What the prior gets to see of the images: organs (B, 3) or None, mean cells (B, 512)."""
    organs = None if organ_logits is None else organ_logits.detach().softmax(-1)
    return organs, maps.flatten(3).mean(3).mean(1)


def test_a_prior_multiplies_in_evaluation(wrapped):
    """Probabilities are p * sqrt(q), normalised; organ and components have a say in q."""
    model, maps, organ_logits, questions = wrapped
    model.eval()
    organs, cells = seen_by_prior(maps, organ_logits)
    with torch.no_grad():
        output = model(None, questions, maps, organ_logits)
        alone = model.model(None, questions, maps, organ_logits).logits
        prior = model.prior(questions, organs, cells)
        assert not torch.allclose(prior, model.prior(questions, organs, -cells))
        if organs is not None:
            assert not torch.allclose(prior, model.prior(questions, organs.flip(-1), cells))
    assert not isinstance(output, PriorOutput)
    product = alone.softmax(-1) * prior.softmax(-1).sqrt()
    expected = product / product.sum(-1, keepdim=True)
    torch.testing.assert_close(model.probabilities(output.logits), expected)


def test_a_prior_learns_apart_in_training(wrapped):
    """The losses of model and prior do not reach each other's weights, nor q the image types."""
    model, maps, organ_logits, questions = wrapped
    model.train()
    output = model(None, questions, maps, organ_logits)
    assert isinstance(output, PriorOutput) and output.prior_logits.shape == (4, 3)

    def reached(loss):
        model.zero_grad()
        loss.backward(retain_graph=True)
        found = [p for p in model.named_parameters() if p[1].grad is not None]
        return {name.partition(".")[0] for name, p in found if p.grad.any()}

    labels, organs = torch.tensor([0, 1, 2, -1]), torch.zeros(4, dtype=torch.int64)
    assert reached(vqa_loss(output, labels, organs, "ce", 0.1)) == {"model"}
    if organ_logits is not None:
        organ_logits.grad = None
    assert reached(output.prior_logits.log_softmax(-1)[0, 0]) == {"prior"}
    assert organ_logits is None or organ_logits.grad is None


def test_components_are_noisy_in_training_alone(wrapped):
    model, maps, organ_logits, questions = wrapped
    organs, cells = seen_by_prior(maps, organ_logits)
    prior = model.prior.train()
    prior.w_emb.eval(), prior.classifier.eval()  # their dropout is random too
    with torch.no_grad():
        first, second = (prior(questions, organs, cells) for _ in range(2))
        assert not torch.equal(first, second)
        prior.eval()
        first, second = (prior(questions, organs, cells) for _ in range(2))
    assert torch.equal(first, second)


def test_a_wrapper_has_the_models_parts(wrapped):
    model = wrapped[0]
    assert model.image is model.model.image and model.fusion == "SAN"
    with pytest.raises(AttributeError, match="nothing"):
        model.nothing
