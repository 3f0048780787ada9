"""attention.py: CMSA's factored form against the definition, the definition against plain loops."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from attention import CMSA, BilinearAttention, StackedAttention, spatial_features

SHAPES = [
    (3, 6, 4, 10, 13, 3),
    (2, 49, 12, 30, 40, 8),
    (1, 5, 1, 8, 8, 0),
    (5, 1, 7, 3, 6, 1),
    (2, 9, 3, 4, 5, 8),
]


def make(shape, blocks, dtype, seed=0):
    """A CMSA away from its start at 0, a copy, and inputs (visual, question, spatial)."""
    torch.manual_seed(seed)
    batch, cells, words, visual, question, spatial = shape
    model = CMSA(visual, question, spatial, blocks).to(dtype)
    for block in model.blocks:
        for tensor in (block.bn.weight, block.bn.bias, block.bn.running_mean):
            torch.nn.init.normal_(tensor)
        torch.nn.init.uniform_(block.bn.running_var, 0.5, 2)
    inputs = (
        torch.randn(batch, cells, visual, dtype=dtype),
        torch.randn(batch, words, question, dtype=dtype),
        torch.randn(cells, spatial, dtype=dtype),
    )
    return model, copy.deepcopy(model), inputs


def run(forward, model, inputs, weight):
    """Output, gradients of inputs and parameters, and buffers after one forward and backward."""
    visual, question = inputs[0].clone().requires_grad_(), inputs[1].clone().requires_grad_()
    output = forward(visual, question, inputs[2])
    (output * weight).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    gradients |= {"visual": visual.grad, "question": question.grad}
    return output, gradients, dict(model.named_buffers())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_factored_equals_dense(shape, blocks, training, dtype, tolerance):
    model, dense, inputs = make(shape, blocks, dtype)
    model.train(training)
    dense.train(training)
    weight = torch.randn(shape[0], shape[2], sum(shape[3:]), dtype=dtype)
    ours = run(model.forward, model, inputs, weight)
    theirs = run(dense.forward_dense, dense, inputs, weight)
    scale = 1 if dtype == torch.float64 else max(g.abs().max().item() for g in theirs[1].values())
    assert (ours[0] - theirs[0]).abs().max() <= tolerance * max(1, theirs[0].abs().max())
    for name, gradient in theirs[1].items():
        assert (ours[1][name] - gradient).abs().max() <= tolerance * max(1, scale), name
    for name, buffer in theirs[2].items():
        assert (ours[2][name] - buffer).abs().max() <= tolerance * max(1, buffer.abs().max()), name


@pytest.mark.parametrize("seed", range(8))
def test_factored_equals_dense_at_random_shapes(seed):
    shape = [
        int(torch.randint(low, high, (), generator=torch.Generator().manual_seed(10 * seed + i)))
        for i, (low, high) in enumerate([(1, 5), (1, 20), (1, 9), (2, 20), (2, 20), (0, 9)])
    ]
    if sum(shape[3:]) % 2:
        shape[3] += 1
    test_factored_equals_dense(tuple(shape), 2, True, torch.float64, 1e-10)


def test_the_papers_size_in_float32():
    test_factored_equals_dense((2, 49, 12, 512, 1024, 8), 2, True, torch.float32, 1e-4)


def test_definition_by_hand():
    """One block, one sample, eval mode, against plain loops over tokens."""
    model, _, (visual, question, spatial) = make((1, 3, 2, 2, 3, 1), 1, torch.float64)
    model.eval()
    block = model.blocks[0]
    tokens = [
        torch.cat([visual[0, i], question[0, t], spatial[i]]) for t in range(2) for i in range(3)
    ]
    z = []
    for x in tokens:
        scores = torch.stack([block.theta(x) @ block.phi(other) for other in tokens])
        weights = scores.exp() / scores.exp().sum()
        y = block.W(sum(w * block.g(other) for w, other in zip(weights, tokens)))
        normed = (y - block.bn.running_mean) / (block.bn.running_var + block.bn.eps).sqrt()
        z.append(normed * block.bn.weight + block.bn.bias + x)
    expected = torch.stack([torch.stack(z[:3]).mean(0), torch.stack(z[3:]).mean(0)])
    assert torch.allclose(model(visual, question, spatial)[0], expected, atol=1e-12)
    assert torch.allclose(model.forward_dense(visual, question, spatial)[0], expected, atol=1e-12)


def test_a_new_block_is_the_identity():
    model = CMSA(4, 6, 2, blocks=2)
    visual, question, spatial = torch.randn(2, 5, 4), torch.randn(2, 3, 6), torch.randn(5, 2)
    output = model(visual, question, spatial)  # twice the input, averaged over the cells
    assert torch.allclose(output[..., 4:10], 2 * question, atol=1e-6)
    assert torch.allclose(output[:, 1, :4], 2 * visual.mean(1), atol=1e-6)


def test_gradients_numerically():
    model, _, (visual, question, spatial) = make((2, 3, 2, 2, 3, 1), 2, torch.float64)
    model.train()
    assert torch.autograd.gradcheck(
        lambda v, q: model(v, q, spatial), (visual.requires_grad_(), question.requires_grad_())
    )


def test_bf16_autocast_is_close():
    model, _, inputs = make((4, 49, 12, 64, 128, 8), 2, torch.float32)
    reference = model.eval()(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*inputs).float()
    assert (output - reference).norm() < 0.05 * reference.norm()
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(*inputs).float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_bf16_keeps_the_statistics():
    """Running statistics of a training step under bf16 autocast against float64's."""
    model, _, inputs = make((8, 49, 12, 64, 128, 8), 2, torch.float32)
    exact = copy.deepcopy(model).double()
    for bn in [block.bn for each in (model, exact) for block in each.blocks]:
        bn.momentum = 1.0
    exact.train()(*(value.double() for value in inputs))
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(*inputs)
    for ours, theirs in zip(model.blocks, exact.blocks):
        variance, mean = ours.bn.running_var.double(), ours.bn.running_mean
        assert torch.allclose(variance, theirs.bn.running_var, rtol=0.05, atol=0)
        exactly = theirs.bn.running_mean
        assert (mean - exactly).norm() < 0.02 * exactly.norm()


def test_nearly_uniform_attention_keeps_its_variance():
    """Where attention is nearly uniform, E[x^2] - E[x]^2 in float32 would lose all digits."""
    model, dense, inputs = make((3, 49, 12, 30, 40, 8), 1, torch.float32)
    for each in (model, dense):
        with torch.no_grad():
            each.blocks[0].theta.weight *= 1e-3
            each.blocks[0].g.bias += 100
    dense.double()
    model(*inputs)
    dense.forward_dense(*(x.double() for x in inputs))
    ours, theirs = model.blocks[0].bn.running_var, dense.blocks[0].bn.running_var
    assert (ours - theirs).abs().max() < 1e-4 * theirs.max()


def test_attention_maps():
    model, _, inputs = make((2, 6, 4, 10, 13, 3), 2, torch.float64)
    look, read = model.attention(*inputs)
    assert look.shape == (2, 4, 6, 6) and read.shape == (2, 4, 6, 4)
    assert torch.allclose(look.sum(-1), torch.ones(2, 4, 6, dtype=torch.float64))
    assert torch.allclose(read.sum(-1), torch.ones(2, 4, 6, dtype=torch.float64))
    parts = [
        inputs[0][0].expand(4, -1, -1),
        inputs[1][0][:, None].expand(-1, 6, -1),
        inputs[2].expand(4, -1, -1),
    ]
    x = torch.cat(parts, -1).flatten(0, 1)  # the first sample's 24 tokens
    block = model.blocks[0]
    # over all pairs: the product of the two maps
    whole = torch.softmax(block.theta(x) @ block.phi(x).T, -1).view(4, 6, 4, 6)
    assert torch.allclose(whole, read[0][..., None] * look[0][:, :, None], atol=1e-12)


def test_spatial_features():
    features = spatial_features(2, 4)
    assert features.shape == (8, 8)
    assert features[0].tolist() == [-1, -1, -0.5, 0, -0.75, -0.5, 0.25, 0.5]
    assert features[7].tolist() == [0.5, 0, 1, 1, 0.75, 0.5, 0.25, 0.5]


def test_stacked_attention_by_hand():
    torch.manual_seed(0)
    model = StackedAttention(visual_dim=3, hidden=4, stacks=1).eval()
    visual, question = torch.randn(1, 5, 3), torch.randn(1, 4)
    v = torch.tanh(model.project(visual))[0]
    h = torch.tanh(model.visual_layers[0](v) + model.query_layers[0](question))
    p = model.score[0](h).softmax(0)
    assert torch.allclose(model(visual, question)[0], (p * v).sum(0) + question[0], atol=1e-6)


def test_bilinear_attention_shapes_and_gradients():
    model = BilinearAttention(hidden=8, glimpses=2)
    output = model(torch.randn(3, 4, 8), torch.randn(3, 5, 8))
    assert output.shape == (3, 8)
    output.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


COPIED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch, torch.distributed, torch.nn.utils.parametrizations
before = set(sys.modules)
from attention import CMSA
torch.manual_seed(0)
model = CMSA(4, 6, 2, blocks=2)
output = model(torch.randn(2, 5, 4), torch.randn(2, 3, 6), torch.randn(5, 2))
assert output.shape == (2, 3, 12)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_cmsa_needs_torch_alone(tmp_path):
    """The file copied out into an empty folder: it imports nothing that torch has not."""
    shutil.copy(ROOT / "attention.py", tmp_path)
    command = [sys.executable, "-I", "-c", COPIED, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert imported <= {"attention", "torch", *sys.stdlib_module_names}
