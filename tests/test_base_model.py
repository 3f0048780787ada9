"""Official checkpoints give the official numbers (DESIGN section 8), and every kind of model is built and trains."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from base_model import VQAModel, make_encoder
from engine import vqa_loss
from extras import QuestionPrior
from readers.official import is_official, load_official, load_official_pretraining
from utils import UserError

FORWARD = ["CMSA_300d", "CMSA_200d", "BAN_200d"]


def official(parity, deterministic, kind, seed):
    return deterministic.fill_state_dict(
        json.loads((parity / f"official_keys_{kind}.json").read_text()), seed
    )


def close(ours, theirs, tolerance=1e-4):
    """Relative to the largest entry, as DESIGN section 8 wants it."""
    theirs = torch.as_tensor(np.asarray(theirs))
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("kind", FORWARD)
def test_forward_of_the_official_code(parity, deterministic, kind):
    model = load_official({"model_state": official(parity, deterministic, kind, 1), "epoch": 3})
    assert not model.training
    with torch.inference_mode():
        output = model(*deterministic.inputs(1, 3, 1177))
    expected = np.load(parity / f"forward_{kind}_seed1.npz")
    assert close(output.features, expected["features"])
    assert close(output.organ_logits, expected["modal"])
    assert close(output.logits, expected["logits"])


def test_training_step_of_the_official_code(parity, deterministic):
    """Loss, gradient norms per module and parameter norms after one step.

    The fixture was computed in float32. Its own distance from the same step in float64 is up to 7.9e-4 of a module's norm
    (measured with this model, CMSA in either form), so gradient norms are held to 1e-3 of each and 2e-4 of the largest, and the
    rest to 1e-4. Its "grad_norm" (55.965) is not the root of the sum of squares of its own modules (56.648), which ours meets.
    """
    expected = json.loads((parity / "train_step_CMSA_200d_seed3.json").read_text())
    model = load_official(official(parity, deterministic, "CMSA_200d", 3)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images, questions = deterministic.inputs(3, 4, 1177)
    loss = vqa_loss(
        model(images, questions),
        torch.tensor(expected["answers"]),
        torch.tensor(expected["organs"]),
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-4)

    encoders = model.image.encoders
    modules = {
        "w_emb": model.w_emb.emb,
        "q_emb": model.q_emb,
        "cmsa0": model.cmsa.blocks[0],
        "cmsa1": model.cmsa.blocks[1],
        "fc": model.fc,
        "classifier": model.classifier,
        "modal_classifier": model.image.image_type,
        "abd_v_emb": encoders[0],
        "brain_v_emb": encoders[1],
        "chest_v_emb": encoders[2],
    }
    norms = {
        name: torch.stack([p.grad.norm() for p in module.parameters()]).norm().item()
        for name, module in modules.items()
    }
    largest = max(expected["grad_norm_by_module"].values())
    for name, norm in expected["grad_norm_by_module"].items():
        assert norms[name] == pytest.approx(norm, rel=1e-3), name
        assert abs(norms[name] - norm) <= 2e-4 * largest, name
    total = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25).item()
    assert total == pytest.approx(
        sum(norm**2 for norm in expected["grad_norm_by_module"].values()) ** 0.5, rel=1e-3
    )

    torch.optim.Adamax(model.parameters(), lr=0.0025).step()
    names = {
        "w_emb.emb.weight": model.w_emb.emb.weight,
        "q_emb.rnn.weight_hh_l0": model.q_emb.rnn.weight_hh_l0,
        "cmsa0.theta.weight": model.cmsa.blocks[0].theta.weight,
        "cmsa1.W.1.running_var": model.cmsa.blocks[1].bn.running_var,
        "fc.weight": model.fc.weight,
        "classifier.main.3.weight_v": model.classifier.main[3].parametrizations.weight.original1,
        "modal_classifier.fc.4.weight": model.image.image_type.fc[4].weight,
        "chest_v_emb.layer4.2.conv2.weight": encoders[2].layer4[2].conv2.weight,
    }
    for name, norm in expected["param_norm_after_step"].items():
        assert names[name].norm().item() == pytest.approx(norm, rel=1e-4), name


def test_an_official_checkpoint_that_does_not_fit(parity, deterministic):
    state = official(parity, deterministic, "CMSA_200d", 1)
    with pytest.raises(UserError, match="fc.bias"):
        load_official(
            {key: value[:3] if key == "fc.bias" else value for key, value in state.items()}
        )
    with pytest.raises(UserError, match="cmsa.blocks.0.phi.bias"):
        load_official({key: value for key, value in state.items() if key != "cmsa0.phi.bias"})
    with pytest.raises(UserError, match="strange.weight"):
        load_official(state | {"strange.weight": torch.zeros(1)})
    with_prefix = {"module." + key: value for key, value in state.items()}
    assert is_official(with_prefix) and load_official(with_prefix).fusion == "CMSA"


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"a": torch.zeros(1)},
        {"model_state": 3},
        [1, 2],
        {"w_emb.emb.weight": torch.zeros(3, 2)},
    ],
)
def test_not_an_official_checkpoint(nonsense):
    with pytest.raises(UserError):
        load_official(nonsense)


@pytest.mark.parametrize(
    "fusion, options",
    [
        ("CMSA", {}),
        ("CMSA", {"blocks": 1}),
        ("CMSA", {"use_spatial": False}),
        ("CMSA", {"distmodal": False}),
        ("CMSA", {"rnn": "GRU"}),
        ("CMSA", {"encoder": "efficientnet_lite0", "shared": True}),
        ("CMSA", {"encoder": "efficientnet_lite0", "distmodal": False}),
        ("BAN", {}),
        ("BAN", {"glimpses": 3, "distmodal": False}),
        ("SAN", {}),
        ("SAN", {"num_stacks": 1, "rnn": "GRU"}),
    ],
)
def test_every_model_trains(fusion, options):
    torch.manual_seed(0)
    model = VQAModel(fusion, ntoken=20, num_answers=7, word_dim=10, hidden=64, **options)
    images, questions = torch.randn(2, 3, 224, 224), torch.randint(0, 21, (2, 12))
    output = model(images, questions)
    assert output.logits.shape == (2, 7) and output.features.shape == (2, 64)
    assert (output.organ_logits is None) == (options.get("distmodal") is False)
    vqa_loss(output, torch.tensor([3, -1]), torch.tensor([0, 2])).backward()
    for name, parameter in model.named_parameters():
        assert (
            parameter.grad is not None or not parameter.requires_grad or name.endswith("W.bias")
        ), name
    model.eval()
    maps = model.image.maps(images)
    again = model(
        None if output.organ_logits is not None else images,
        questions,
        maps,
        None if output.organ_logits is None else model.image.image_type(images),
    )
    assert torch.allclose(again.logits, model(images, questions).logits, atol=1e-5)


def test_loss_by_hand():
    from base_model import VQAOutput

    logits, organ_logits = (
        torch.tensor([[1.0, -2.0], [0.5, 3.0]]),
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]),
    )
    loss = vqa_loss(
        VQAOutput(logits, organ_logits, None), torch.tensor([0, -1]), torch.tensor([0, 2])
    )
    softplus = F.softplus
    bce = (
        softplus(torch.tensor(-1.0))
        + softplus(torch.tensor(-2.0))
        + softplus(torch.tensor(0.5))
        + softplus(torch.tensor(3.0))
    )
    ce = -(1 - torch.tensor([1.0, 0, 0]).logsumexp(0)) - (
        0 - torch.tensor([0, 2.0, 0]).logsumexp(0)
    )
    assert loss.item() == pytest.approx(((bce + 0.5 * ce) / 2).item(), rel=1e-6)


def test_cross_entropy_with_smoothing_by_hand():
    """The target has 1 - s + s/3 at the answer and s/3 elsewhere; the answer that is no class adds nothing but its image type."""
    from base_model import VQAOutput

    logits, organ_logits = torch.tensor([[1.0, -2.0, 0.5], [0.5, 3.0, 1.0]]), torch.zeros(2, 3)
    loss = vqa_loss(
        VQAOutput(logits, organ_logits, None),
        torch.tensor([0, -1]),
        torch.tensor([0, 2]),
        "ce",
        smoothing=0.3,
    )
    total = math.log(math.exp(1) + math.exp(-2) + math.exp(0.5))
    ce = 0.8 * (total - 1) + 0.1 * (total + 2) + 0.1 * (total - 0.5)
    assert loss.item() == pytest.approx((ce + 0.5 * 2 * math.log(3)) / 2, rel=1e-6)


def test_probabilities_of_both_losses():
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    sigmoid, softmax = (
        VQAModel("CMSA", ntoken=5, num_answers=3, word_dim=4, hidden=8, encoder=None, softmax=kind)
        .probabilities(logits)[0]
        .tolist()
        for kind in (False, True)
    )
    assert sigmoid == pytest.approx([1 / (1 + math.exp(-x)) for x in (0, 2, -1)])
    total = 1 + math.exp(2) + math.exp(-1)
    assert softmax == pytest.approx([1 / total, math.exp(2) / total, math.exp(-1) / total])


def test_the_second_word_table_and_padding_stay():
    model = VQAModel("CMSA", ntoken=5, num_answers=3, word_dim=4, hidden=8, distmodal=False)
    model.w_emb.initialise(torch.ones(5, 4))
    assert not model.w_emb.emb_.weight.requires_grad
    words = model.w_emb(torch.tensor([[0, 5]]))
    assert words[0, 0].tolist() == [1.0] * 8 and words[0, 1].tolist() == [0.0] * 8


def test_encoders_give_7_by_7():
    for name, width in (("resnet34", 512), ("efficientnet_lite0", 1280)):
        with torch.inference_mode():
            assert make_encoder(name).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, width, 7, 7)


@pytest.mark.parametrize("task", ["seg", "cls"])
def test_pretraining_forward_of_the_official_code(parity, deterministic, task):
    keys = json.loads((parity / "official_keys_MTPT_300d.json").read_text())
    parts = {
        part: deterministic.fill_state_dict(keys[part], 1)
        for part in ("backbone", f"{task}_decoder", "cmsa")
    }
    with torch.inference_mode():
        output = load_official_pretraining(parts)(*deterministic.inputs(1, 2, 1177))
    expected = np.load(parity / "forward_MTPT_300d_seed1.npz")
    assert close(output.compatibility_logits, expected["compat"])
    if task == "cls":
        assert close(output.task_logits, expected["cls"])
    else:
        assert close(output.task_logits[:, :, ::8, ::8], expected["seg"])
        assert close(output.task_logits.mean((2, 3)), expected["seg_mean"])
    with pytest.raises(UserError, match="backbone"):
        load_official_pretraining(
            {"cmsa": parts["cmsa"], f"{task}_decoder": parts[f"{task}_decoder"]}
        )


def test_the_gate_adds_a_product_of_image_and_question():
    """Against its formula, from the gate's own weights; and without a gate there is neither its weights nor its share of the feature."""
    torch.manual_seed(0)
    model = VQAModel(
        "CMSA", ntoken=5, num_answers=3, word_dim=4, hidden=8, encoder=None, gate=True
    ).eval()
    visual, questions = torch.randn(2, 49, 512), torch.randint(0, 6, (2, 12))
    first, second, product = model.gate.of_image[0], model.gate.of_image[2], model.gate.of_words[0]
    with torch.no_grad():
        image = torch.tanh(second(torch.relu(first(visual.sum(1) / 49))))
        question = torch.tanh(product(model.q_emb(model.w_emb(questions)).sum(1)))
        whole = model.fuse(visual, questions)[1]
        plain = VQAModel("CMSA", ntoken=5, num_answers=3, word_dim=4, hidden=8, encoder=None).eval()
        plain.load_state_dict(
            {key: value for key, value in model.state_dict().items() if not key.startswith("gate.")}
        )
        torch.testing.assert_close(
            whole - plain.fuse(visual, questions)[1], image * question, rtol=1e-4, atol=1e-5
        )


def test_the_components_are_the_directions_of_largest_variance():
    """Against the eigenvectors of the correlation matrix; a constant channel and blank images have none."""
    torch.manual_seed(0)
    cells = torch.randn(50, 6) @ torch.randn(6, 6) + 3
    cells[:, 5] = 2
    prior = QuestionPrior(5, 3, 4, 0.1, True, components=4, channels=6)
    prior.find_components(cells)
    found = ((cells - prior.center) @ prior.directions).double()  # (50, 4)
    standard = ((cells - cells.mean(0)) / cells.std(0, correction=0)).double()[:, :5]
    expected = standard @ torch.linalg.eigh(standard.T @ standard)[1].flip(1)[:, :4]
    torch.testing.assert_close(
        (found * expected / expected.std(0, correction=0)).mean(0).abs(),
        torch.ones(4).double(),
        atol=1e-4,
        rtol=0,
    )  # up to the sign
    torch.testing.assert_close(found.T @ found / 50, torch.eye(4).double(), atol=1e-4, rtol=0)
    for blank in (torch.zeros(7, 6), torch.ones(1, 6)):
        prior.find_components(blank)
        assert not prior.directions.any()


@pytest.mark.parametrize("distmodal", [False, True])
def test_the_prior_multiplies_in_evaluation_and_learns_apart_in_training(distmodal):
    """Probabilities p * sqrt(q), normalised; in training the two have losses of their own, which do not reach each other's weights."""
    torch.manual_seed(0)
    model = VQAModel(
        "SAN",
        ntoken=5,
        num_answers=3,
        word_dim=4,
        hidden=8,
        softmax=True,
        prior=True,
        word_dropout=0.1,
        distmodal=distmodal,
        components=2,
    )
    model.prior.find_components(torch.randn(9, 512))
    questions, maps = torch.randint(0, 6, (4, 12)), torch.randn(4, 3 if distmodal else 1, 512, 7, 7)
    organs = torch.randn(4, 3, requires_grad=True) if distmodal else None
    probabilities = organs.softmax(-1).detach() if distmodal else None
    cells = maps.mean((1, 3, 4))  # (4, 512)
    model.train()
    output = model(None, questions, maps, organs)
    assert len(output) == 4 and output.prior_logits.shape == (4, 3)
    vqa_loss(
        output, torch.tensor([0, 1, 2, -1]), torch.zeros(4, dtype=torch.int64), "ce", 0.1
    ).backward()
    alone = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.manual_seed(1)
    model.prior.eval()(questions, probabilities, cells).log_softmax(-1)[0, 0].backward()
    reached = {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert (
        reached
        and all(name.startswith("prior.") for name in reached)
        and any(not name.startswith("prior.") for name in alone)
        and reached <= set(alone)
    )
    model.eval()
    with torch.no_grad():
        output = model(None, questions, maps, organs)
        alone, expert = (
            model.fuse(model.image.mix(maps, organs), questions)[0],
            model.prior(questions, probabilities, cells),
        )
        product = alone.softmax(-1) * expert.softmax(-1).sqrt()
        other = None if not distmodal else model.prior(questions, probabilities.flip(-1), cells)
    assert len(output) == 3 and (
        other is None or not torch.allclose(expert, other)
    )  # the organ counts, where there is one
    with torch.no_grad():
        assert not torch.allclose(expert, model.prior(questions, probabilities, -cells))
    torch.testing.assert_close(
        model.probabilities(output.logits), product / product.sum(-1, keepdim=True)
    )
