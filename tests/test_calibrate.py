"""tools/calibrate.py: temperatures by hand and fitted, and runs that end with one."""

import argparse
import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, SMALL, run_script
from saved_runs import small_model
from set_folders import own

import settings
from base_model import VQAModel
from dataset_RAD import find_data
from readers.checkpoints import build, check_checkpoint, make_model, read_checkpoint
from tools import calibrate
from utils import UserError

TUNED = ["--recipe", "tuned", "--no-distmodal", *SMALL]


def test_a_temperature_by_hand():
    """Softmax: p ** (1/2) normalised. Sigmoid: sigmoid(logit(p) / 2). The model does the same."""
    p = torch.tensor([[0.64, 0.32, 0.04]])
    roots = [0.8, math.sqrt(0.32), 0.2]
    expected = [root / sum(roots) for root in roots]
    assert calibrate.with_temperature(p, 2, True)[0].tolist() == pytest.approx(expected)
    odds = [math.sqrt(x / (1 - x)) for x in (0.64, 0.32, 0.04)]
    expected = [x / (1 + x) for x in odds]
    assert calibrate.with_temperature(p, 2, False)[0].tolist() == pytest.approx(expected)
    for softmax in (True, False):
        model = SimpleNamespace(temperature=1.0, softmax=softmax)
        logits = 3 * torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
        plain = VQAModel.probabilities(model, logits)
        assert torch.equal(plain, logits.softmax(-1) if softmax else logits.sigmoid())
        model.temperature = 1.7
        warm = VQAModel.probabilities(model, logits)
        again = calibrate.with_temperature(plain, 1.7, softmax).float()
        assert torch.allclose(warm, again, atol=1e-6)
        assert torch.equal(warm.argsort(1), plain.argsort(1))
        before = calibrate.with_temperature(warm, 1 / 1.7, softmax).float()
        assert torch.allclose(before, plain, atol=1e-6)


@pytest.mark.parametrize("softmax", [True, False])
def test_the_temperature_that_made_the_answers_is_found(softmax):
    """Answers drawn with the probabilities of temperature 1, the model is three times as sure."""
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(8000, 5, generator=generator)
    true = logits.softmax(-1) if softmax else logits.sigmoid()
    right = torch.rand(8000, generator=generator) < true.amax(1)
    told = (3 * logits).softmax(-1) if softmax else (3 * logits.double()).sigmoid()
    assert calibrate.fit_temperature(told, right, softmax) == pytest.approx(3, rel=0.1)
    rows = [
        {"probability": p, "uncalibrated": q, "correct": int(r)}
        for p, q, r in zip(true.amax(1).tolist(), told.amax(1).tolist(), right.tolist())
    ]
    found = calibrate.errors(rows, 3.0)
    assert found["temperature"] == 3.0
    assert found["ece_percent"] < 2 < 5 < found["ece_percent_before"]


def test_a_temperature_of_a_checkpoint_reaches_the_model_within_a_prior(run):
    made_with = list(small_model(5, 3, prior=True, softmax=True)[1].values())
    assert all(build(made_with[0], prior, 2.5).temperature == 2.5 for prior in (None, made_with[1]))
    kept = read_checkpoint(run / "best.pth")
    for bad in (0, -1.0, float("nan"), "1", True, torch.tensor(1.0)):
        with pytest.raises(UserError, match="temperature"):
            check_checkpoint(kept | {"temperature": bad}, run)
    assert make_model(kept | {"temperature": 2.0}, run).temperature == 2.0
    kept.pop("temperature", None)
    assert make_model(kept, run).temperature == 1.0


def test_the_command_line_of_a_companion_gives_the_same_settings(tmp_path):
    line = "--recipe tuned --no-gate --freeze_encoders --lr 0.01 --epochs 3 --gpu -1 --loss ce"
    args, _ = settings.parse_args([*line.split(), "--RAD_dir", str(tmp_path)])
    parser = settings.make_parser(argparse.ArgumentParser(add_help=False))
    options = calibrate.options_of(args, parser)
    again, _ = settings.parse_args(["--recipe", "tuned", *options])
    assert vars(again) == vars(args)


def last(folder):
    return torch.load(folder / "last.pth", weights_only=True)


def test_a_run_ends_with_a_temperature_and_without_its_optimizer(
    tiny, tmp_path, monkeypatch, fails
):
    """Of its validation questions, and of each checkpoint's own weights."""
    monkeypatch.setattr(calibrate, "FEWEST", 10)
    options = ["--RAD_dir", tiny, "--epochs", 2, "--output", tmp_path, "--val_fraction", "0.3"]
    run_script("train.py", *options, *TUNED)
    state, best = last(tmp_path), torch.load(tmp_path / "best.pth", weights_only=True)
    assert "optimizer" not in state and state["epoch"] == 1
    assert 0.2 <= state["temperature"] <= 20 and 0.2 <= best["temperature"] <= 20
    before = (tmp_path / "last.pth").read_bytes()
    run_script("train.py", "--resume", "--output", tmp_path)  # nothing is left to do
    assert (tmp_path / "last.pth").read_bytes() == before
    line = fails("train.py", "--resume", "--output", tmp_path, "--epochs", 3)
    assert "has ended" in line and "--input" in line and "--keep_optimizer" in line
    run_script("test.py", "--input", tmp_path, "--output", tmp_path / "out", "--gpu", -1)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["calibration"]["temperature"] == best["temperature"]
    assert set(results["calibration"]) == {"temperature", "ece_percent", "ece_percent_before"}
    for key in ("evaluated", "seconds", "commit", "host"):
        assert key in results


def test_too_few_validation_questions_give_no_temperature(run, capsys):
    assert "temperature" not in last(run)
    assert not calibrate.enough([None] * 49)
    assert "not calibrated: 49 validation questions" in capsys.readouterr().out
    assert calibrate.enough([None] * 50) and not capsys.readouterr().out


def test_too_few_questions_train_no_companion(tmp_path, monkeypatch, capsys):
    """A fifth of 80 questions is too few: no second run, one line, and no temperature."""
    monkeypatch.setattr(calibrate, "run_process", lambda _: pytest.fail("it trained a companion"))
    options = ["--RAD_dir", own(tmp_path / "set"), "--epochs", 1, "--output", tmp_path / "run"]
    run_script("train.py", *options, *TUNED)
    out = capsys.readouterr().out
    assert out.count("not calibrated: ") == 1
    assert "questions for a companion to hold out, at least 50" in out
    assert "temperature" not in out and "temperature" not in last(tmp_path / "run")
    assert not (tmp_path / "run" / "companion").exists()


def test_a_companion_without_a_temperature_gives_none(run, tiny, tmp_path, monkeypatch, capsys):
    """Its last.pth is as any run's that had too few validation questions.

    It goes on with the folders that the run named, which may have moved.
    """
    for folder in (tmp_path, tmp_path / "companion"):
        folder.mkdir(exist_ok=True)
        for name in ("last.pth", "best.pth"):
            (folder / name).write_bytes((run / name).read_bytes())
    line = ["--recipe", "tuned", "--output", tmp_path, "--gpu", 0, "--extra_data", tmp_path, run]
    args, _ = settings.parse_args([str(word) for word in line])
    commands = []
    monkeypatch.setattr(calibrate, "run_process", commands.append)
    data = find_data(tiny, log=lambda _: None)
    parser = settings.make_parser(argparse.ArgumentParser(add_help=False))
    calibrate.companion(args, parser, tmp_path, data)
    companion = str(tmp_path / "companion")
    moved = ["--extra_data", str(tmp_path), str(run), "--gpu", "0"]
    assert [line[2:] for line in commands] == [["--resume", "--output", companion, *moved]]
    # one that begins has the organ map, whose file may be gone
    data = dataclasses.replace(data, options={"organ_map": {"knee": "CHEST"}})
    args.organ_map, args.extra_data = tmp_path / "gone.json", []
    monkeypatch.setattr(calibrate, "run_process", lambda line: commands.append(line) or 2)
    with pytest.raises(UserError, match="ended with exit code 2"):
        calibrate.companion(args, parser, tmp_path, data)
    place = commands[1].index("--organ_map") + 1
    assert json.loads(Path(commands[1][place]).read_text()) == {"knee": "CHEST"}
    assert "temperature" not in last(tmp_path)
    assert "temperature" not in capsys.readouterr().out


def test_a_run_without_validation_has_a_companion_that_can_be_stopped(tiny, tmp_path, heeded):
    """SIGTERM while it trains: both leave; --resume goes on with it and takes its temperature."""
    output = tmp_path / "run"
    command = [sys.executable, ROOT / "train.py", "--output", output]
    begin = ["--RAD_dir", tiny, "--epochs", "2", *TUNED]
    companion = output / "companion"
    with subprocess.Popen([*command, *map(str, begin)], stderr=subprocess.PIPE) as process:
        while not (companion / "run.json").exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143 and "--resume goes on" in error
    assert "temperature" not in last(output)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    about = json.loads((companion / "run.json").read_text())
    assert about["settings"]["val_fraction"] == 0.2 and about["validation_questions"] > 0
    assert not list(companion.glob("*.pth"))
    rows = [json.loads(line) for line in (companion / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and "val_score" in rows[1]
    assert last(output)["temperature"] == read_checkpoint(output)["temperature"]
