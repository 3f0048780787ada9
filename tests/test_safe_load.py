"""readers/safe_load.py: numbers of numpy get a way out, and code in a file is named, never run."""

import argparse
import shlex
import subprocess

import numpy as np
import pytest
import torch

from readers.safe_load import load_checkpoint
from utils import UserError


def test_numbers_of_numpy_get_a_way_out(tmp_path):
    """The command in the message makes a file that can be loaded, with the same values."""
    path = tmp_path / "it's a model.pth"
    numbers = [np.float32(0.5), (np.int64(2), np.bool_(True)), "text", None]
    state = {"model_state": {"w": torch.ones(2)}, "epoch": np.int64(3), "kept": numbers}
    torch.save(state | {"array": np.arange(3.0)}, path)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path} holds numbers as numpy keeps them (numpy.")
    assert "Only if you trust the file" in message
    new = tmp_path / "it's a model_plain.pth"
    assert f"name {new} instead: " in message and not new.exists()
    subprocess.run(shlex.split(message.split(" instead: ")[1]), check=True, timeout=60)
    plain = load_checkpoint(new)
    assert plain["epoch"] == 3 and plain["kept"] == [0.5, (2, True), "text", None]
    assert [type(value) for value in (plain["epoch"], plain["kept"][0])] == [int, float]
    assert plain["array"].tolist() == [0, 1, 2]
    assert torch.equal(plain["model_state"]["w"], torch.ones(2))


def test_another_type_is_named(tmp_path):
    torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="it holds argparse.Namespace, .* never run here"):
        load_checkpoint(tmp_path / "model.pth")
