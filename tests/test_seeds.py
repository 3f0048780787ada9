"""tools/seeds.py: the commands of each seed, signals, and mean and spread by hand."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from set_folders import own

import train
from tools import seeds


def test_seeds_are_trained_evaluated_and_summed_up(tmp_path, monkeypatch, capsys):
    """The runs themselves are stood in for."""
    commands = []

    def stand_in(command):
        commands.append([str(part) for part in command[1:]])
        if "test.py" in commands[-1][0]:
            folder = Path(commands[-1][commands[-1].index("--output") + 1])
            folder.mkdir(parents=True)
            score = {"seed3": 0.5, "seed4": 0.6, "seed5": 0.7}[folder.name[-5:]]
            for file, less in (("results.json", 0), ("results_all.json", 0.25)):
                groups = {"OPEN": 0.1, "CLOSED": 0.9, "ALL": score - less}
                groups = {group: {"score": value} for group, value in groups.items()}
                (folder / file).write_text(json.dumps(groups))
        return 0

    monkeypatch.setattr(seeds, "run_process", stand_in)
    monkeypatch.setattr(seeds, "HERE", tmp_path)
    output = str(tmp_path / "mine")
    arguments = ["--seeds", "3", "--seed=3", "--output", output, "--model", "SAN"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert train.main() == 0
    assert [command[1:] for command in commands[::2]] == [
        ["--model", "SAN", "--seed", str(seed), "--output", f"{output}_seed{seed}"]
        for seed in (3, 4, 5)
    ]
    summary = json.loads((tmp_path / "results" / "mine" / "seeds.json").read_text())
    by_hand = {"mean": 60.0, "spread": 10.0, "scores": [50.0, 60.0, 70.0]}
    assert summary["freeform"]["ALL"] == by_hand and summary["seeds"] == [3, 4, 5]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()][-7:]
    assert lines[:2] == [
        ["freeform", "freeform", "+", "para"],
        ["seed", *2 * ["open", "closed", "all"]],
    ]
    assert lines[2:] == [
        ["3", "10.0", "90.0", "50.0", "10.0", "90.0", "25.0"],
        ["4", "10.0", "90.0", "60.0", "10.0", "90.0", "35.0"],
        ["5", "10.0", "90.0", "70.0", "10.0", "90.0", "45.0"],
        ["mean", "10.0", "90.0", "60.0", "10.0", "90.0", "35.0"],
        ["standard", "deviation", "0.0", "0.0", "10.0", "0.0", "0.0", "10.0"],
    ]
    monkeypatch.setattr(seeds, "run_process", lambda command: 2)
    assert train.main() == 2


def test_seeds_without_output_are_named_as_their_data_are(tmp_path, monkeypatch):
    """A set with one split and without organs, in the unchanged recipe."""
    outputs = []

    def stand_in(command):
        outputs.append(Path(command[-1]).name)
        return 2

    monkeypatch.setattr(seeds, "run_process", stand_in)
    folder = own(tmp_path / "set")
    monkeypatch.setattr(sys, "argv", ["train.py", "--seeds", "2", "--RAD_dir", str(folder)])
    assert train.main() == 2
    assert re.fullmatch(r"CMSA_paper_\d{8}-\d{6}_seed0", *outputs)


CHILD = """
import signal, sys, time
from pathlib import Path
def save(number, _):
    time.sleep(1)
    Path(sys.argv[1]).write_text("saved")
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
Path(sys.argv[1]).write_text("began")
time.sleep(60)
"""
PARENT = """
import signal, sys
sys.path.insert(0, {root!r})
import utils
from tools import seeds
signal.signal(signal.SIGINT, signal.default_int_handler)
utils.run_main(lambda: seeds.run_process([sys.executable, *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_run_of_a_seed_which_saves(number, tmp_path):
    """The child takes a second to save, as train.py may; both leave with the signal's code."""
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "parent.py").write_text(PARENT.format(root=str(ROOT)))
    state = tmp_path / "state"
    command = [sys.executable, tmp_path / "parent.py", tmp_path / "child.py", state]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not state.exists():
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(number)
    assert "--resume goes on" in process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number and state.read_text() == "saved"


def test_the_exit_code_of_a_run():
    ends = ("os._exit(0)", "os._exit(2)", "os.kill(os.getpid(), 9)")
    commands = [[sys.executable, "-c", f"import os; {end}"] for end in ends]
    assert [seeds.run_process(command) for command in commands] == [0, 2, 137]
