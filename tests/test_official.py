"""readers/official.py: official weights give the official numbers (docs/FAITHFUL.md)."""

import copy
import json

import numpy as np
import pytest
import torch

from base_model import VQAOutput, load_official, load_official_pretraining
from engine import vqa_loss
from readers.checkpoints import is_official
from utils import UserError


@pytest.fixture(scope="module")
def official():
    """official(parity, deterministic, kind, seed): a state dict; one at a time is kept."""
    kept = {}

    def state(parity, deterministic, kind, seed):
        if (kind, seed) not in kept:
            kept.clear()
            keys = json.loads((parity / f"official_keys_{kind}.json").read_text())
            kept[kind, seed] = deterministic.fill_state_dict(keys, seed)
        return dict(kept[kind, seed])

    return state


@pytest.fixture(autouse=True)
def no_random_start(monkeypatch):
    """New models are not filled with random numbers, which takes seconds: all are loaded."""
    for name in ("uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)


def close(ours, theirs, tolerance=1e-4):
    """True where no entry differs by more than a share of the largest one."""
    theirs = torch.as_tensor(np.asarray(theirs))
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize(
    "kind, prefix", [("BAN_200d", ""), ("CMSA_300d", ""), ("CMSA_200d", "module.")]
)
def test_forward_of_the_official_code(kind, prefix, official, parity, deterministic):
    """Bare, within a checkpoint, and with the prefix that DataParallel gives to keys."""
    state = official(parity, deterministic, kind, 1)
    state = {prefix + key: value for key, value in state.items()}
    state = state if prefix else {"model_state": state, "epoch": 3}
    assert is_official(state)
    model = load_official(state)
    assert not model.training and model.fusion == kind.partition("_")[0]
    with torch.inference_mode():
        output = model(*deterministic.inputs(1, 3, 1177))
    expected = np.load(parity / f"forward_{kind}_seed1.npz")
    assert close(output.features, expected["features"])
    assert close(output.organ_logits, expected["modal"])
    assert close(output.logits, expected["logits"])


def test_an_official_checkpoint_that_does_not_fit(official, parity, deterministic):
    state = official(parity, deterministic, "CMSA_200d", 1)
    with pytest.raises(UserError, match="fc.bias"):
        load_official(state | {"fc.bias": state["fc.bias"][:3]})
    with pytest.raises(UserError, match="strange.weight"):
        load_official(state | {"strange.weight": torch.zeros(1)})
    del state["cmsa0.phi.bias"]
    with pytest.raises(UserError, match="cmsa.blocks.0.phi.bias"):
        load_official(state)


def modules(model):
    """The model's parts under the names of the fixture."""
    abdomen, brain, chest = model.image.encoders
    return {
        "w_emb": model.w_emb.emb,
        "q_emb": model.q_emb,
        "cmsa0": model.cmsa.blocks[0],
        "cmsa1": model.cmsa.blocks[1],
        "fc": model.fc,
        "classifier": model.classifier,
        "modal_classifier": model.image.image_type,
        "abd_v_emb": abdomen,
        "brain_v_emb": brain,
        "chest_v_emb": chest,
    }


def norms(model):
    """{name: norm of the gradient} of each of `modules`."""
    return {
        name: torch.stack([p.grad.norm() for p in module.parameters()]).norm().item()
        for name, module in modules(model).items()
    }


@pytest.fixture
def step(official, parity, deterministic):
    """(model without dropout in training mode, images, questions, answers, organs, numbers).

    The numbers are those of the official code's training step, in float32.
    """
    expected = json.loads((parity / "train_step_CMSA_200d_seed3.json").read_text())
    model = load_official(official(parity, deterministic, "CMSA_200d", 3)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images, questions = deterministic.inputs(3, 4, 1177)
    answers, organs = torch.tensor(expected["answers"]), torch.tensor(expected["organs"])
    return model, images, questions, answers, organs, expected


def test_training_step_of_the_official_code(step):
    """Loss, gradient norms and the weights' norms after one step, in float32.

    Rounding differs between processors and between ways to compute a convolution: up to 1.2e-2
    of a module's norm was measured. The sharp comparison is the one in float64. The fixture's
    "grad_norm" (55.965) is not the root of the sum of squares of its own modules (56.648).
    """
    model, images, questions, answers, organs, expected = step
    loss = vqa_loss(model(images, questions), answers, organs)
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-4)
    theirs = expected["grad_norm_by_module"]
    assert norms(model) == pytest.approx(theirs, rel=2e-2)
    total = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25).item()
    assert total == pytest.approx(sum(norm**2 for norm in theirs.values()) ** 0.5, rel=2e-2)

    torch.optim.Adamax(model.parameters(), lr=0.0025).step()
    classifier = model.classifier.main[3]
    weights = {
        "w_emb.emb.weight": model.w_emb.emb.weight,
        "q_emb.rnn.weight_hh_l0": model.q_emb.rnn.weight_hh_l0,
        "cmsa0.theta.weight": model.cmsa.blocks[0].theta.weight,
        "cmsa1.W.1.running_var": model.cmsa.blocks[1].bn.running_var,
        "fc.weight": model.fc.weight,
        "classifier.main.3.weight_v": classifier.parametrizations.weight.original1,
        "modal_classifier.fc.4.weight": model.image.image_type.fc[4].weight,
        "chest_v_emb.layer4.2.conv2.weight": model.image.encoders[2].layer4[2].conv2.weight,
    }
    found = {name: weight.norm().item() for name, weight in weights.items()}
    assert found == pytest.approx(expected["param_norm_after_step"], rel=1e-4)


def test_training_step_in_float64(step, monkeypatch):
    """The same step in float64, where rounding plays no part: dense CMSA, then factored CMSA.

    All gradients of the two agree to 1e-9. The norms meet the fixture's to the rounding error
    that the fixture has in float32: 7.9e-4 of a module's norm at most.
    """
    model, images, questions, answers, organs, expected = step
    model.double()
    maps, organ_logits = model.image.encode(images.double())
    visual = model.image.mix(maps, organ_logits)  # (B, 49, 512)

    def fuse():
        """(loss without the image type's, gradients, running statistics) of the fused part."""
        model.zero_grad()
        leaf = visual.detach().requires_grad_()
        loss = vqa_loss(VQAOutput(model.fuse(leaf, questions)[0], None, None), answers, organs)
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return loss.item(), gradients | {"visual": leaf.grad}, model.cmsa.state_dict()

    before = copy.deepcopy(model.cmsa.state_dict())
    with monkeypatch.context() as patch:
        patch.setattr(model.cmsa, "forward", model.cmsa.forward_dense)
        loss, gradients, statistics = copy.deepcopy(fuse())
    model.cmsa.load_state_dict(before)
    factored = fuse()
    assert factored[0] == pytest.approx(loss, rel=1e-12) and factored[1].keys() == gradients.keys()
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        # some are 0 but for rounding: a BN takes out what a bias adds
        bound = 1e-9 * max(gradient.abs().max(), 1e-3 * largest)
        assert (factored[1][name] - gradient).abs().max() <= bound, name
    for name, value in statistics.items():
        torch.testing.assert_close(factored[2][name], value, rtol=1e-9, atol=1e-9)

    # on from there through the image side
    image_type = torch.nn.functional.cross_entropy(organ_logits, organs)
    torch.autograd.backward([visual, 0.5 * image_type], [factored[1]["visual"], None])
    assert factored[0] + 0.5 * image_type.item() == pytest.approx(expected["loss"], rel=1e-6)
    assert norms(model) == pytest.approx(expected["grad_norm_by_module"], rel=8e-4)


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


def test_pretraining_forward_of_the_official_code(parity, deterministic):
    """Both tasks; a checkpoint without one of its parts is refused."""
    keys = json.loads((parity / "official_keys_MTPT_300d.json").read_text())
    parts = {part: deterministic.fill_state_dict(keys[part], 1) for part in keys}
    expected = np.load(parity / "forward_MTPT_300d_seed1.npz")
    inputs = deterministic.inputs(1, 2, 1177)
    for task in ("seg", "cls"):
        some = {part: parts[part] for part in ("backbone", f"{task}_decoder", "cmsa")}
        with torch.inference_mode():
            output = load_official_pretraining(some)(*inputs)
        assert close(output.compatibility_logits, expected["compat"])
        if task == "cls":
            assert close(output.task_logits, expected["cls"])
        else:
            assert close(output.task_logits[:, :, ::8, ::8], expected["seg"])
            assert close(output.task_logits.mean((2, 3)), expected["seg_mean"])
        del some["backbone"]
        with pytest.raises(UserError, match="backbone"):
            load_official_pretraining(some)
