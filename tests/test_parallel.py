"""parallel.py: two processes (gloo) do what one does with the same batch; the first one writes.

Under torchrun this file is the script of the processes.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SMALL, run_script
from torch import nn

import parallel
from base_model import VQAModel
from decoders import PretrainingModel, pretraining_loss
from engine import train_step, vqa_loss


class SmallEncoder(nn.Sequential):
    """(B, 3, 224, 224) -> (B, 1280, 7, 7), as EfficientNet-Lite0, with a BN deep within."""

    def __init__(self):
        norm = nn.BatchNorm2d(8, eps=0.01, momentum=0.3)
        inner = nn.Sequential(nn.Conv2d(3, 8, 32, stride=32), norm, nn.ReLU())
        super().__init__(inner, nn.Conv2d(8, 1280, 1))

    def skips(self, images):
        return [self(images)]


def small_model(kind):
    """A VQA or pre-training model in float64, without dropout."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("base_model", "decoders"):
            patch.setattr(f"{module}.make_encoder", lambda name: SmallEncoder())
        if kind == "pretraining":
            model = PretrainingModel("classification", 3, 20, 8, 32, encoder="efficientnet_lite0")
        else:
            model = VQAModel("CMSA", 20, 5, 8, 32, encoder="efficientnet_lite0", shared=True)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1)  # CMSA's start at 0
    return model.double().train()


def train_part(kind):
    """This process's part of one batch of 5, by a small model.

    {"loss", "gradients", "buffers", "curve"}; the curve is the loss of six steps of VQA with
    frozen encoders.
    """
    torch.manual_seed(0)
    model = small_model(kind)
    images = torch.randn(5, 3, 224, 224, dtype=torch.float64)
    questions = torch.randint(0, 20, (5, 12))
    labels, organs = torch.tensor([0, 3, -1, 4, 1]), torch.tensor([0, 1, 2, 0, 1])
    maps = torch.randn(5, 1, 1280, 7, 7, dtype=torch.float64)
    organ_logits = torch.randn(5, 3, dtype=torch.float64)
    if parallel.world()[1] > 1:
        parallel.synchronise_norms(model)
    rows = parallel.shard([[0, 1, 2, 3, 4]])[0]
    part = len(rows) / 5

    def scaled(loss):
        """The loss whose gradient, averaged over the processes, is the batch's; it is noted."""
        found["curve"].append(sum(parallel.all_gather(loss.item() * part)))
        return loss * part * parallel.world()[1]

    found = {"curve": []}
    trained = parallel.wrap(model)
    output = trained(images[rows], questions[rows])
    if kind == "pretraining":
        loss = pretraining_loss(output, organs[rows], labels[rows].clamp(0, 1))
    else:
        loss = vqa_loss(output, labels[rows], organs[rows])
    scaled(loss).backward()
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found["gradients"] = {name: gradient.clone() for name, gradient in named.items()}
    found["buffers"] = {name: value.clone() for name, value in model.named_buffers()}
    if kind == "vqa":
        model.image.freeze()
        trained = parallel.wrap(model)
        optimizer = torch.optim.Adamax([p for p in model.parameters() if p.requires_grad], lr=0.002)
        seen = {"maps": maps[rows], "organ_logits": organ_logits[rows]}
        for _ in range(6):
            output = trained(images=None, questions=questions[rows], **seen)
            loss = vqa_loss(output, labels[rows], organs[rows])
            train_step(model, optimizer, scaled(loss), 0.25)
    return found


def torchrun(*command):
    """A script in two processes: the finished command, which must have ended well."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*start, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """{kind: what `train_part` finds} of two processes."""
    path = tmp_path_factory.mktemp("parallel") / "found.pth"
    torchrun(__file__, path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("kind", ["vqa", "pretraining"])
def test_gradients_and_statistics_are_those_of_one_process(kind, two_processes):
    """A batch of 5 in shards of 3 and 2: losses, every gradient and every running statistic."""
    one, two = train_part(kind), two_processes[kind]
    assert two["curve"] == pytest.approx(one["curve"], rel=1e-5)
    if kind == "vqa":
        assert len(one["curve"]) == 7 and one["curve"][-1] < one["curve"][1]
    assert one["gradients"].keys() <= two["gradients"].keys()
    largest = max(value.abs().max() for value in one["gradients"].values())
    for name, value in one["gradients"].items():
        bound = 1e-5 * max(value.abs().max(), 1e-3 * largest)
        assert (two["gradients"][name] - value).abs().max() <= bound, name
    for name, value in one["buffers"].items():
        assert torch.allclose(two["buffers"][name], value, rtol=1e-5, atol=1e-7), name


def test_training_with_two_processes(tiny, tmp_path):
    """train.py under torchrun: the first epoch's loss is that of one process, with one log."""
    options = ["--RAD_dir", tiny, "--epochs", 1, *SMALL, "--blocks", 1, "--no-distmodal"]
    run_script("train.py", *options, "--output", tmp_path / "1")
    done = torchrun(ROOT / "train.py", *options, "--output", tmp_path / "2")
    assert done.stdout.count("epoch 1 of 1 ") == 1
    one, two = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in "12")
    assert len(one) == len(two) == 1
    loss = json.loads(one[0])["loss"]
    assert json.loads(two[0])["loss"] == pytest.approx(loss, rel=0.05)  # dropout draws differ
    assert json.loads((tmp_path / "2" / "run.json").read_text())["processes"] == 2
    one, two = (torch.load(tmp_path / n / "best.pth", weights_only=True)["model"] for n in "12")
    assert one.keys() == two.keys()  # no "module." in front


def test_one_process_alone():
    assert parallel.shard([[1, 2, 3], [4]]) == [[1, 2, 3], [4]]
    assert parallel.all_gather(7) == [7] and parallel.is_first()
    module = nn.Linear(2, 2)
    assert parallel.wrap(module) is module and parallel.begin(None) is None
    with parallel.first_alone():
        pass
    parallel.end()


def test_synchronised_norm_alone_is_batch_norm():
    """In one process: outputs, gradients and statistics of nn.BatchNorm2d."""
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.BatchNorm2d(3)).double()
    ours = nn.Sequential(nn.BatchNorm2d(3)).double()
    parallel.synchronise_norms(ours)
    assert isinstance(ours[0], parallel.SyncedBatchNorm)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [norm(one) for norm, one in zip((ours, theirs), inputs)]
    assert torch.allclose(*outputs)
    for output in outputs:
        (output * torch.arange(300).view(4, 3, 5, 5)).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad)
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values())
    assert all(torch.allclose(a, b) for a, b in pairs)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x))


if __name__ == "__main__":
    parallel.begin(-1)
    found = {kind: train_part(kind) for kind in ("vqa", "pretraining")}
    if parallel.is_first():
        torch.save(found, sys.argv[1])
    parallel.end()
