"""Two processes (gloo) do what one does with the same batch: gradients, statistics, losses, scores; only the first one writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# Each process takes its share of one batch through a small VQA model; process 0 writes gradients and statistics.
GRADIENTS = """
import sys
sys.path.insert(0, {root!r})
import torch
from torch import nn
torch.set_num_threads(1)
import parallel
from base_model import VQAModel, PretrainingModel
from engine import train_step, vqa_loss
from pretrain import pretraining_loss
parallel.begin(-1)
torch.manual_seed(0)
kind = sys.argv[2]
if kind == "pretraining":
    model = PretrainingModel("classification", 3, 20, 8, 32, encoder="efficientnet_lite0")
else:
    model = VQAModel("CMSA", 20, 5, 8, 32, encoder="efficientnet_lite0", shared=True, blocks=2)
model.double().train()
for module in model.modules():
    if isinstance(module, nn.Dropout):
        module.p = 0.0
    if isinstance(module, nn.BatchNorm1d):
        nn.init.uniform_(module.weight, 0.5, 1)  # CMSA's start at 0
for encoder in [model.encoder] if kind == "pretraining" else model.image.encoders:
    encoder.net._global_params = encoder.net._global_params._replace(drop_connect_rate=0.0)
if parallel.world()[1] > 1:
    parallel.synchronise_norms(model)
images, questions = torch.randn(5, 3, 224, 224, dtype=torch.float64), torch.randint(0, 20, (5, 12))
labels, organs = torch.tensor([0, 3, -1, 4, 1]), torch.tensor([0, 1, 2, 0, 1])
rows = parallel.share([[0, 1, 2, 3, 4]])[0]
trained = parallel.parallel(model)
output = trained(images[rows], questions[rows])
loss = pretraining_loss(output, organs[rows], labels[rows].clamp(0, 1)) if kind == "pretraining" else vqa_loss(output, labels[rows], organs[rows])
part = len(rows) / 5
(loss * part * parallel.world()[1]).backward()
total = sum(parallel.everyones(loss.item() * part))
found = {{"loss": total, "gradients": {{name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}},
         "buffers": {{name: value.clone() for name, value in model.named_buffers()}}, "curve": []}}
if kind == "vqa":  # on from here with frozen encoders
    model.image.freeze()
    maps, organ_logits = torch.randn(5, 1, 1280, 7, 7, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    trained = parallel.parallel(model)
    optimizer = torch.optim.Adamax([p for p in model.parameters() if p.requires_grad], lr=0.002)
    for _ in range(6):
        output = trained(images=None, questions=questions[rows], maps=maps[rows], organ_logits=organ_logits[rows])
        loss = vqa_loss(output, labels[rows], organs[rows])
        found["curve"].append(sum(parallel.everyones(loss.item() * part)))
        train_step(model, optimizer, loss * part * parallel.world()[1], 0.25)
if parallel.is_first():
    torch.save(found, sys.argv[1])
parallel.end()
"""


def run(count, *command, timeout=400):
    """A script in one process, or under torchrun in several."""
    start = [
        sys.executable,
        *(
            ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
            if count > 1
            else []
        ),
    ]
    return subprocess.run(
        [*start, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("kind", ["vqa", "pretraining"])
def test_gradients_and_statistics_are_those_of_one_process(kind, tmp_path):
    """A batch of 5 in shares of 3 and 2, in float64: every gradient and running statistic; of VQA the losses of six steps."""
    (tmp_path / "script.py").write_text(GRADIENTS.format(root=str(ROOT)))
    states = []
    for count in (1, 2):
        done = run(count, tmp_path / "script.py", tmp_path / f"{count}.pth", kind)
        assert done.returncode == 0, done.stderr[-2000:]
        states.append(torch.load(tmp_path / f"{count}.pth", weights_only=True))
    one, two = states
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5) and two["curve"] == pytest.approx(
        one["curve"], rel=1e-5
    )
    assert kind != "vqa" or len(one["curve"]) == 6 and one["curve"][-1] < one["curve"][0]
    assert set(one["gradients"]) <= set(two["gradients"])
    largest = max(value.abs().max() for value in one["gradients"].values())
    for name, value in one["gradients"].items():
        assert (two["gradients"][name] - value).abs().max() <= 1e-5 * max(
            value.abs().max(), 1e-3 * largest
        ), name
    for name, value in one["buffers"].items():
        assert torch.allclose(two["buffers"][name], value, rtol=1e-5, atol=1e-7), name


def test_training_with_two_processes(tiny, tmp_path):
    """train.py under torchrun: the loss of the first epoch of one process at the same batch size, one log, each question scored once."""
    logs = []
    for count in (1, 2):
        done = run(
            count,
            ROOT / "train.py",
            "--RAD_dir",
            tiny,
            "--epochs",
            1,
            "--num_hid",
            32,
            "--gpu",
            -1,
            "--encoder",
            "efficientnet_lite0",
            "--no-mtpt",
            "--precision",
            "float32",
            "--recipe",
            "paper",
            "--blocks",
            1,
            "--no-distmodal",
            "--output",
            tmp_path / str(count),
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("epoch 0 of 0-0") == 1
        logs.append(
            [
                json.loads(line)
                for line in (tmp_path / str(count) / "log.jsonl").read_text().splitlines()
            ]
        )
    assert (
        len(logs[1]) == 1
        and json.loads((tmp_path / "2" / "run.json").read_text())["processes"] == 2
    )
    assert logs[1][0]["loss"] == pytest.approx(logs[0][0]["loss"], rel=0.05)  # dropout draws differ
    model = torch.load(tmp_path / "2" / "best.pth", weights_only=True)["model"]
    assert set(model) == set(
        torch.load(tmp_path / "1" / "best.pth", weights_only=True)["model"]
    )  # no "module." in it


def test_one_process_alone():
    import parallel

    assert (
        parallel.shard([[1, 2, 3], [4]]) == [[1, 2, 3], [4]]
        and parallel.all_gather(7) == [7]
        and parallel.is_first()
    )
    module = torch.nn.Linear(2, 2)
    assert parallel.parallel(module) is module and parallel.begin(None) is None
    with parallel.first_alone():
        pass
    parallel.end()


def test_synchronised_norm_alone_is_batch_norm():
    """In one process: outputs, gradients and statistics of nn.BatchNorm2d."""
    import parallel

    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    ours = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    parallel.synchronise_norms(ours)
    assert (
        type(ours[0]).__name__ == "SyncedBatchNorm"
        and ours.state_dict().keys() == theirs.state_dict().keys()
    )
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [norm(one) for norm, one in zip((ours, theirs), inputs)]
    assert torch.allclose(*outputs)
    for output in outputs:
        (output * torch.arange(300).view(4, 3, 5, 5)).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad)
    assert all(
        torch.allclose(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values())
    )
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs(x))
