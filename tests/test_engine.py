"""The training loop: what is killed and resumed ends with the bits of what was never stopped; signals, locks, numbers that are not finite."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import engine
from utils import Stopped, UserError, lock, stop_signals

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, STEPS = 6, 5

# Trains a small model with dropout and BN in forked children, which are killed after random times until one of them ends; each second time not before
# a file is being written. A child waits before it moves a file to its place, so that the parent sees the temporary one in time.
KILLER = """
import os, random, signal, sys, time
import torch
sys.path[:0] = [{root!r}, {tests!r}]
torch.set_num_threads(1)
from pathlib import Path
from test_engine import train_once
folder, chance = Path(sys.argv[1]), random.Random(5)
kills = torn = 0
while True:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1), os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        move = os.replace
        os.replace = lambda *paths: (time.sleep(0.02), move(*paths))
        train_once(folder, pause=0.02)
        os._exit(0)
    end, done = time.time() + chance.uniform(0.02, 0.17), 0
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


def build():
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(4, 600), nn.BatchNorm1d(600), nn.ReLU(), nn.Dropout(0.5), nn.Linear(600, 1)
    )
    return model, torch.optim.Adamax(model.parameters(), lr=0.01)


def train_once(folder, pause=0.0, save_seconds=0.0, after=None, read_every=None):
    """Train to the end, or on from what the folder holds. Its model."""
    model, optimizer = build()
    progress = None
    held = lock(folder)
    if (folder / "last.pth").exists():
        progress = engine.restore(
            torch.load(folder / "last.pth", weights_only=True),
            model,
            optimizer,
            folder / "last.pth",
        )

    def batch_loss(batch):
        time.sleep(pause)
        if after:
            after(batch)
        return model(batch[0]).square().mean() * batch[1], torch.tensor(1), 2

    def train_batches(epoch):
        generator = torch.Generator().manual_seed(epoch)
        return [(torch.randn(8, 4, generator=generator), 1.0) for _ in range(STEPS)]

    def validate():
        model.eval()
        with torch.no_grad():
            score = -model(torch.ones(2, 4)).square().mean().item()
        return score, {"val_score": score}

    try:
        engine.fit(
            model,
            optimizer,
            SimpleNamespace(epochs=EPOCHS, lr=0.01, clip_norm=0.25, save_every=0),
            train_batches,
            batch_loss,
            validate,
            {},
            folder,
            progress,
            save_seconds=save_seconds,
            names=lambda batch: "; questions 7, 8",
            read_every=read_every,
        )
    finally:
        held.close()
    return model


def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path):
    """SIGKILL at random moments, also while a checkpoint is written (a torn temporary file is left then)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # as in the children: sums over other numbers of threads differ in the last bit
    whole = train_once(tmp_path / "whole", save_seconds=1e9)
    torch.set_num_threads(threads)
    script = KILLER.format(root=str(ROOT), tests=str(ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "killed"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    kills, torn = map(int, done.stdout.split())
    print(f"{kills} kills, {torn} of them while writing")
    assert kills >= 20 and torn >= 5
    last = torch.load(tmp_path / "killed" / "last.pth", weights_only=True)
    expected = torch.load(tmp_path / "whole" / "last.pth", weights_only=True)
    assert all(
        torch.equal(value, last["model"][key]) and torch.equal(value, expected["model"][key])
        for key, value in whole.state_dict().items()
    )
    best = [
        torch.load(tmp_path / name / "best.pth", weights_only=True) for name in ("killed", "whole")
    ]
    assert best[0]["epoch"] == best[1]["epoch"] and all(
        torch.equal(best[0]["model"][key], best[1]["model"][key]) for key in best[0]["model"]
    )
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in (tmp_path / name / "log.jsonl").open()
        ]
        for name in ("killed", "whole")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == EPOCHS
    assert not list((tmp_path / "killed").glob(".*.tmp"))


@pytest.fixture
def heeded():
    """Both signals as in a terminal: a test run in the background inherits an ignored SIGINT."""
    before = [
        (number, signal.signal(number, handler))
        for number, handler in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        )
    ]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_within_the_epoch(tmp_path, number, heeded):
    steps = []

    def after(batch):
        steps.append(batch)
        if len(steps) == 8:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="holds epoch 1 up to step 3; --resume") as stopped:
        train_once(tmp_path, save_seconds=1e9, after=after)
    assert stopped.value.number == number and signal.getsignal(number) in (
        signal.default_int_handler,
        signal.SIG_DFL,
    )  # put back
    resumed = train_once(tmp_path, save_seconds=1e9, after=steps.append)
    assert len(steps) == EPOCHS * STEPS  # no step twice, none left out
    whole = train_once(tmp_path / "whole", save_seconds=1e9)
    assert all(
        torch.equal(a, b)
        for a, b in zip(resumed.state_dict().values(), whole.state_dict().values())
    )


def test_a_second_signal_ends_at_once(heeded):
    with pytest.raises(Stopped), stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stopped == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_an_ignored_signal_stays_ignored(heeded):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert not stopped


def test_not_finite_names_the_batch_and_keeps_what_was_saved(tmp_path):
    count = []

    def after(batch):
        count.append(1)
        if len(count) == STEPS + 3:
            batch[0].fill_(float("nan"))

    with pytest.raises(
        UserError,
        match=r"epoch 1, step 2: .* not finite \(nan\); questions 7, 8: .*last.pth holds epoch 0",
    ):
        train_once(tmp_path, save_seconds=1e9, after=after)
    kept = torch.load(tmp_path / "last.pth", weights_only=True)
    assert kept["epoch"] == 0 and all(
        torch.isfinite(value).all() for value in kept["model"].values() if value.is_floating_point()
    )


def test_losses_read_now_and_then_are_the_same(tmp_path):
    """As on a GPU: the log is that of a run which reads each step's loss, a step that is not finite is named, and nothing of what came after it is kept."""
    logs = []
    for read_every in (1, 3):
        train_once(tmp_path / str(read_every), save_seconds=1e9, read_every=read_every)
        logs.append(
            [
                json.loads(line) | {"seconds": 0}
                for line in (tmp_path / str(read_every) / "log.jsonl").open()
            ]
        )
    assert logs[0] == logs[1] and len(logs[0]) == EPOCHS
    count = []

    def after(batch):
        count.append(1)
        if len(count) == STEPS + 2:
            batch[0].fill_(float("nan"))

    with pytest.raises(UserError, match=r"epoch 1, step 1: .*last.pth holds epoch 0"):
        train_once(tmp_path / "nan", save_seconds=1e9, after=after, read_every=4)
    assert len(count) == STEPS + 4
    kept = torch.load(tmp_path / "nan" / "last.pth", weights_only=True)
    assert kept["epoch"] == 0 and all(
        torch.isfinite(value).all() for value in kept["model"].values() if value.is_floating_point()
    )


def test_two_runs_in_one_folder(tmp_path):
    held = lock(tmp_path / "run")
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nimport utils\n"
            f"utils.run_main(lambda: utils.lock(Path({str(tmp_path / 'run')!r})) and None)",
        ],
        capture_output=True,
        text=True,
    )
    assert other.returncode == 2 and "in use by another run" in other.stderr
    held.close()
    lock(tmp_path / "run").close()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes_of_signals(number, code):
    script = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
import utils
signal.signal(signal.SIGINT, signal.default_int_handler)

def main():
    os.kill(os.getpid(), {int(number)})
    time.sleep(5)
utils.run_main(main)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code and len(done.stderr.splitlines()) == 1
