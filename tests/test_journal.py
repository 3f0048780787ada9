"""journal.py: run.json over resumptions, the commit, curves, and lines without a terminal."""

import datetime
import json
import subprocess
import sys
import time

import pytest

import journal
from utils import UserError


def written(folder, monkeypatch, *command, epoch=None):
    monkeypatch.setattr(sys, "argv", list(command))
    journal.write_run(folder, {"settings": {"lr": 1}}, "cpu", "float32", 1, epoch)
    return json.loads((folder / "run.json").read_text())


def test_run_json_keeps_the_first_command_and_adds_resumptions(tmp_path, monkeypatch):
    first = written(tmp_path, monkeypatch, "train.py", "--epochs", "9")
    began = datetime.datetime.fromisoformat(first["began"])
    assert began.utcoffset() is not None and abs(time.time() - began.timestamp()) < 60
    assert first["seconds"] == 0 and first["host"] and "resumed" not in first
    journal.Journal(tmp_path).write_seconds(12.34)
    written(tmp_path, monkeypatch, "train.py", "--resume", epoch=3)
    run = written(tmp_path, monkeypatch, "train.py", "--resume", "--gpu", "-1", epoch=5)
    assert run["command"] == ["train.py", "--epochs", "9"] and run["began"] == first["began"]
    assert run["seconds"] == 12.3
    assert [one["epoch"] for one in run["resumed"]] == [3, 5]
    assert run["resumed"][1]["command"] == ["train.py", "--resume", "--gpu", "-1"]
    assert set(run["resumed"][0]) == {"command", "time", "host", "commit", "epoch"}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="run.json is not valid JSON"):
        written(tmp_path, monkeypatch, "train.py", "--resume", epoch=6)


def test_the_commit_is_that_of_the_code_s_own_folder(tmp_path, monkeypatch):
    assert journal.commit(tmp_path) is None
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    log = subprocess.run(["git", "-C", tmp_path, "log", "--format=%h"], capture_output=True)
    assert journal.commit(tmp_path) == log.stdout.decode().strip()
    (tmp_path / "within").mkdir()
    assert journal.commit(tmp_path / "within") is None  # another project's history
    monkeypatch.setenv("PATH", "/nonexistent")
    assert journal.commit(tmp_path) is None


def test_lines_within_an_epoch_come_once_a_minute_and_on_no_terminal(tmp_path, monkeypatch, capsys):
    clock, one = [0.0], journal.Journal(tmp_path)
    one.told = 0.0
    monkeypatch.setattr(journal.time, "monotonic", lambda: clock[0])
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        for second in range(0, 200, 5):
            clock[0] = float(second)
            one.step(second, 1.0, f"at {second}")
        assert capsys.readouterr().out.split() == (
            [] if terminal else ["at", "65", "at", "130", "at", "195"]
        )


def test_the_line_of_an_epoch_counts_from_one_and_tells_what_is_left(tmp_path, capsys):
    rows = [{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 1.0}]
    one = journal.Journal(tmp_path)
    one.epoch(rows[:1], 2, True, 111.5)
    one.epoch(rows, 2, False, 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 1 of 2  loss 2  best  about 1 min 52 s to go"
    assert lines[1] == "epoch 2 of 2  loss 1"
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").open()] == rows


def test_the_curves_have_losses_by_step_scores_and_settings(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    one = journal.Journal(tmp_path)
    rows = []
    with one.open(rows, {"lr": 0.1, "model": "SAN", "gpu": None, "frozen": True}):
        for step in range(3):
            one.step(step, 3.0 - step, "")
        rows.append({"epoch": 0, "loss": 2.0, "val_score": 0.5})
        one.epoch(rows, 1, True, 0)
    scores = {group: {"score": 0.25} for group in ("OPEN", "CLOSED", "ALL")}
    journal.write_test_scores(tmp_path, 0, {"freeform + para": scores})
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    values = {tag: [event.value for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert values["loss by step"] == [3.0, 2.0, 1.0]
    assert values["val_score"] == [0.5] and values["last val_score"] == [0.5]
    assert values["test freeform and para/all"] == [0.25]
    # counted from 1, unlike the rows
    assert [found.Scalars(tag)[0].step for tag in ("val_score", "test freeform and para/all")] == [
        1,
        1,
    ]
    assert values["last epoch"] == [1.0] and "epoch" not in values
    assert "_hparams_/session_start_info" in found.summary_metadata
    journal.write_test_scores(tmp_path / "none", 0, {})
    assert not (tmp_path / "none").exists()
