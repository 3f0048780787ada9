"""engine.py: rates, batches and losses by hand; a killed training ends with the same bits."""

import json
import math
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.nn.functional import softplus

import engine
from base_model import VQAOutput
from readers.checkpoints import load_checkpoint
from utils import Stopped, UserError, lock

EPOCHS, STEPS = 4, 5

# Trains a small model in forked children, until one of them ends. Each child is killed after its
# first or second step and a random time; each second one not before it writes a file. A child waits
# before it moves a file to its place, so that the parent sees the temporary one in time.
KILLER = """
import os, random, signal, sys, time
import torch, torch._dynamo  # the optimizer would import it in each child
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
torch.set_num_threads(1)
from pathlib import Path
from test_engine import train_once, without_tensorboard
folder, chance = Path(sys.argv[1]), random.Random(5)
kills = torn = 0
without_tensorboard()
while True:
    steps, begun = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1), os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        move = os.replace
        os.replace = lambda *paths: (time.sleep(0.02), move(*paths))
        train_once(folder, save_seconds=0, after=lambda batch: os.write(begun, b"."))
        os._exit(0)
    os.close(begun)
    for _ in range(chance.choice([1, 2])):
        os.read(steps, 1)
    os.close(steps)
    end, done = time.time() + chance.uniform(0, 0.04), 0
    while not done and (time.time() < end or kills % 2 and not any(folder.glob(".*.tmp"))):
        time.sleep(0.001)
        done, status = os.waitpid(child, os.WNOHANG)
    if done:
        if status:
            raise SystemExit("the training failed")
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    torn += any(folder.glob(".*.tmp"))
print(kills, torn)
"""


def without_tensorboard():
    """From here on TensorBoard can't be imported: its writer is slow to start."""
    sys.modules["torch.utils.tensorboard"] = None


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def train_once(folder, save_seconds=1e9, after=None, on_gpu=False, steps=STEPS):
    """Train a small model to the end, or on from what the folder holds: the model.

    It has dropout and BN. after(batch) is called before each step.
    """
    torch.manual_seed(3)
    layers = nn.Linear(4, 600), nn.BatchNorm1d(600), nn.ReLU(), nn.Dropout(0.5), nn.Linear(600, 1)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adamax(model.parameters(), lr=0.01)
    held = lock(folder)
    trainer = engine.Trainer(model, optimizer, folder, {}, clip_norm=0.25)
    trainer.describe = lambda batch: "; questions 7, 8"
    trainer.on_gpu = on_gpu
    if (folder / "last.pth").exists():
        state = load_checkpoint(folder / "last.pth")
        model.load_state_dict(state["model"])
        trainer.restore(state, folder / "last.pth")

    def loss_of(batch):
        if after:
            after(batch)
        return model(batch).square().mean(), torch.tensor(1), 2

    def validate():
        model.eval()
        with torch.no_grad():
            score = -model(torch.ones(2, 4)).square().mean().item()
        return score, {"val_score": score}

    before, engine.SAVE_SECONDS = engine.SAVE_SECONDS, save_seconds
    try:
        with trainer.running():
            for epoch in range(trainer.epoch, EPOCHS):
                generator = torch.Generator().manual_seed(epoch)
                batches = [torch.randn(8, 4, generator=generator) for _ in range(steps)]
                trainer.train_epoch(batches, loss_of, rate=0.01)
                trainer.end_epoch(EPOCHS, validate)
    finally:
        engine.SAVE_SECONDS = before
        held.close()
    return model


def same_weights(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def log_of(folder):
    """The rows of log.jsonl without their times."""
    return [json.loads(line) | {"seconds": 0} for line in (folder / "log.jsonl").open()]


def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path):
    """SIGKILL at random moments, also while a checkpoint is written."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the children: sums over other numbers of threads differ
    whole = train_once(tmp_path / "whole")
    torch.set_num_threads(threads)
    command = [sys.executable, "-c", KILLER.format(root=str(ROOT)), tmp_path / "killed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    kills, torn = map(int, done.stdout.split())
    print(f"{kills} kills, {torn} of them while writing")
    assert kills >= 20 and torn >= 5
    last, expected = (load_checkpoint(tmp_path / name / "last.pth") for name in ("killed", "whole"))
    assert same_weights(last["model"], whole.state_dict())
    assert same_weights(expected["model"], whole.state_dict())
    ours, theirs = (load_checkpoint(tmp_path / name / "best.pth") for name in ("killed", "whole"))
    assert ours["epoch"] == theirs["epoch"] and same_weights(ours["model"], theirs["model"])
    rows = log_of(tmp_path / "killed")
    assert rows == log_of(tmp_path / "whole") and len(rows) == EPOCHS
    assert not list((tmp_path / "killed").glob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_within_the_epoch(tmp_path, number, heeded):
    steps = []

    def after(batch):
        steps.append(batch)
        if len(steps) == 8:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="holds epoch 2 up to step 3; --resume") as stopped:
        train_once(tmp_path, after=after)
    assert stopped.value.number == number
    assert signal.getsignal(number) == heeded[number]  # put back
    resumed = train_once(tmp_path, after=steps.append)
    assert len(steps) == EPOCHS * STEPS  # no step twice, none left out
    whole = train_once(tmp_path / "whole")
    assert same_weights(resumed.state_dict(), whole.state_dict())


def test_not_finite_names_the_batch_and_keeps_what_was_saved(tmp_path):
    count = []

    def after(batch):
        count.append(1)
        if len(count) == STEPS + 3:
            batch.fill_(float("nan"))

    words = r"epoch 2, step 3: .* not finite \(nan\); questions 7, 8: .*last.pth holds epoch 1"
    with pytest.raises(UserError, match=words):
        train_once(tmp_path, after=after)
    assert len(count) == STEPS + 3
    kept = load_checkpoint(tmp_path / "last.pth")
    assert kept["epoch"] == 0
    assert all(v.isfinite().all() for v in kept["model"].values() if v.is_floating_point())


def test_losses_read_now_and_then_are_the_same(tmp_path, monkeypatch):
    """As on a GPU, where 25 losses are read at a time: the log and the errors are the same.

    Steps after one that is not finite are lost.
    """
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: None)
    for on_gpu in (False, True):
        train_once(tmp_path / str(on_gpu), on_gpu=on_gpu, steps=30)
    logs = [log_of(tmp_path / str(on_gpu)) for on_gpu in (False, True)]
    assert logs[0] == logs[1] and len(logs[0]) == EPOCHS
    count = []

    def after(batch):
        count.append(1)
        if len(count) == 30 + 2:
            batch.fill_(float("nan"))

    with pytest.raises(UserError, match=r"epoch 2, step 2: .*last.pth holds epoch 1"):
        train_once(tmp_path / "nan", after=after, on_gpu=True, steps=30)
    assert len(count) == 30 + 25
    kept = load_checkpoint(tmp_path / "nan" / "last.pth")
    assert kept["epoch"] == 0
    assert all(v.isfinite().all() for v in kept["model"].values() if v.is_floating_point())


def printed(losses, folder, capsys, restart=()):
    """(stdout, stderr) of a run with these losses of steps, [[of an epoch], ...].

    restart: epochs before which a new Trainer goes on from last.pth.
    """
    model, losses = nn.Linear(1, 1), [list(map(float, row)) for row in losses]
    capsys.readouterr()

    def trainer():
        optimizer = torch.optim.SGD(model.parameters(), lr=0)
        return engine.Trainer(model, optimizer, folder, {}, clip_norm=1.0)

    def loss_of(loss):
        return 0 * model.weight.sum() + loss, torch.tensor(0), 1

    one = trainer()
    for epoch, row in enumerate(losses):
        if epoch in restart:
            one = trainer()
            one.restore(load_checkpoint(folder / "last.pth"), folder / "last.pth")
        one.train_epoch(row, loss_of, 0, "a title")
        one.end_epoch(len(losses))
    return capsys.readouterr()


def warnings_of(*arguments):
    return [line for line in printed(*arguments).out.splitlines() if "WARNING" in line]


def test_a_loss_that_explodes_is_told_once(tmp_path, capsys):
    """A thousand times the first epoch's mean, and in that epoch the first step's loss."""
    assert not warnings_of([[2, 1999], [1_000_000, 500]], tmp_path, capsys)
    found = warnings_of([[2, 2001], [9e6, 9e6]], tmp_path, capsys)
    assert (
        len(found) == 1 and "epoch 1, step 2 of 2: the loss explodes, from 2 to 2e+03" in found[0]
    )
    assert "--lr" in found[0] and "warm up" in found[0] and "goes on" in found[0]
    # the mean of the first epoch is 3, and a run that goes on knows it
    falling = [[4, 2], [0.01, 0.01], [2999, 1], [0.01, 3001]]
    for restart in ((), (1, 2, 3), (3,)):
        found = warnings_of(falling, tmp_path, capsys, restart)
        assert (
            len(found) == 1
            and "epoch 4, step 2 of 2: the loss explodes, from 3 to 3e+03" in found[0]
        )
    again = [[1, 1], [5000, 1], [5000, 1]]
    assert len(warnings_of(again, tmp_path, capsys, (2,))) == 1  # once a run


def test_a_bar_on_a_terminal_alone(tmp_path, capsys, monkeypatch):
    """A file gets a line an epoch and no carriage return, which a terminal's bar is made of."""
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        out, err = printed([[1, 1], [1, 1]], tmp_path, capsys)
        assert [line[:12] for line in out.splitlines()] == ["epoch 1 of 2", "epoch 2 of 2"]
        assert "\r" not in out and ("\r" in err) == ("a title" in err) == terminal
        assert terminal or not err


def test_a_folder_whose_name_is_no_text(tmp_path, monkeypatch):
    """A name in Latin-1 on a UTF-8 system, which TensorBoard can't take: everything else works."""
    folder = tmp_path / os.fsdecode(b"l\xe4uft")
    folder.mkdir()

    def can_not(path):
        str(path).encode()

    module = SimpleNamespace(SummaryWriter=can_not)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train_once(folder)
    assert load_checkpoint(folder / "last.pth")["epoch"] == EPOCHS - 1
    assert len(log_of(folder)) == EPOCHS


def test_rate_and_saving_reach_the_optimizer(tmp_path):
    """A group's share of the rate, warm-up by step, `every` and `save_every`."""
    model = nn.Linear(2, 1)
    groups = [{"params": [model.weight], "scale": 0.1}, {"params": [model.bias]}]
    trainer = engine.Trainer(
        model, torch.optim.Adamax(groups, lr=1), tmp_path, {}, clip_norm=1.0, warmup=6
    )
    rates, validated = [], []

    def loss_of(batch):
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        return model(batch).sum() * 1e-6, torch.tensor(0), 1

    def validate():
        validated.append(len(rates))
        return None, {}

    with trainer.running():
        for epoch in range(5):
            trainer.train_epoch([torch.ones(1, 2)] * 3, loss_of, 2 / (1 + epoch))
            trainer.end_epoch(5, validate, every=3, save_every=2)
    expected = [2 / (1 + step // 3) * min(1, (step + 1) / 6) for step in range(15)]
    assert [rate for _, rate in rates] == pytest.approx(expected)
    assert [rate for rate, _ in rates] == pytest.approx([0.1 * rate for rate in expected])
    # after epochs 1 and 3 (save_every), 2 (every) and 4 (the last)
    assert validated == [6, 9, 12, 15]
    # no score, no best
    files = {path.name for path in tmp_path.glob("*.pth")}
    assert files == {"last.pth", "epoch_1.pth", "epoch_3.pth"}


def test_schedule():
    """docs/METHOD.md section 3 at 80 epochs: warm-up, twice the base rate, then x 0.75."""
    rates = [engine.step_rate(epoch, 80, 0.005) for epoch in range(80)]
    assert rates[:5] == [0.0025, 0.005, 0.0075, 0.01, 0.01] and rates[9] == 0.01
    assert rates[10] == pytest.approx(0.0075) == rates[23]
    falls = [epoch for epoch in range(5, 80) if rates[epoch] < rates[epoch - 1]]
    assert falls == [10, 24, 38, 52, 66]
    assert rates[79] == pytest.approx(0.01 * 0.75**5)


def test_cosine_schedule():
    """The other's warm-up, its peak in epoch 3, half of that half-way, almost 0 at the end."""
    rates = [engine.cosine_rate(epoch, 83, 0.005) for epoch in range(83)]
    assert rates[:4] == [0.0025, 0.005, 0.0075, 0.01]
    assert rates[43] == pytest.approx(0.005) and 0 < rates[82] < 1e-5
    assert all(a > b for a, b in zip(rates[3:], rates[4:]))
    assert engine.cosine_rate(0, 1, 0.005) == 0.01
    short = [engine.cosine_rate(epoch, 7, 0.005) for epoch in range(7)]
    # the warm-up takes a third of a short run
    assert short[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01]) and short[6] < 0.001


def test_short_runs_warm_up_by_steps():
    """Over all steps of fewer than four epochs; longer runs keep their bits."""
    assert [engine.warmup_steps(epochs, 50) for epochs in (1, 2, 3)] == [50, 100, 150]
    assert {engine.warmup_steps(epochs, 50) for epochs in (4, 12, 15, 30)} == {0}


def test_batches_hold_every_question_once():
    lists = engine.batches(list(range(65)), 32, seed=3, epoch=1)
    assert [len(batch) for batch in lists] == [32, 32]  # a last batch of one is left out
    assert len({x for batch in lists for x in batch}) == 64
    assert lists == engine.batches(list(range(65)), 32, seed=3, epoch=1)
    assert lists != engine.batches(list(range(65)), 32, seed=3, epoch=2)


def test_a_batch_as_tensors():
    """Tokens, labels and organs, in the order of the questions."""
    questions = [
        SimpleNamespace(tokens=(4, 5), label=-1, organ=2),
        SimpleNamespace(tokens=(6, 7), label=3, organ=0),
    ]
    columns = engine.collate(questions, "cpu")
    assert [column.tolist() for column in columns] == [[[4, 5], [6, 7]], [-1, 3], [2, 0]]
    assert {column.dtype for column in columns} == {torch.int64}


def test_loss_by_hand():
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    organ_logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    output = VQAOutput(logits, organ_logits, None)
    loss = engine.vqa_loss(output, torch.tensor([0, -1]), torch.tensor([0, 2]))
    # the first sample's target is its answer 0; the second one's is all zero
    bce = softplus(torch.tensor([-1.0, -2.0, 0.5, 3.0])).sum()
    ce = (math.log(math.e + 2) - 1) + math.log(math.e**2 + 2)
    assert loss.item() == pytest.approx((bce.item() + 0.5 * ce) / 2, rel=1e-6)
    alone = engine.vqa_loss(VQAOutput(logits, None, None), torch.tensor([0, -1]), None)
    assert alone.item() == pytest.approx(bce.item() / 2, rel=1e-6)


def test_cross_entropy_with_smoothing_by_hand():
    """The target has 1 - s + s/3 at the answer and s/3 elsewhere.

    An answer that is no class adds nothing but its image type.
    """
    logits, organ_logits = torch.tensor([[1.0, -2.0, 0.5], [0.5, 3.0, 1.0]]), torch.zeros(2, 3)
    output = VQAOutput(logits, organ_logits, None)
    labels, organs = torch.tensor([0, -1]), torch.tensor([0, 2])
    loss = engine.vqa_loss(output, labels, organs, "ce", smoothing=0.3)
    total = math.log(math.exp(1) + math.exp(-2) + math.exp(0.5))
    ce = 0.8 * (total - 1) + 0.1 * (total + 2) + 0.1 * (total - 0.5)
    assert loss.item() == pytest.approx((ce + 0.5 * 2 * math.log(3)) / 2, rel=1e-6)


def test_the_gradient_is_clipped_over_all_parameters():
    """Two weights with gradients 3 and 4: the norm 5 is cut to 1, and a plain step of rate 1."""
    model = nn.ParameterList([torch.zeros(1), torch.zeros(1)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    norm = engine.train_step(model, optimizer, 3 * model[0].sum() + 4 * model[1].sum(), 1.0)
    assert norm.item() == 5.0
    assert [p.item() for p in model] == pytest.approx([-0.6, -0.8], rel=1e-5)
