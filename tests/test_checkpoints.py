"""readers/checkpoints.py: damaged and hostile files get one line; a full disk loses nothing."""

import json
import os
from pathlib import Path

import pytest
import torch
from conftest import SHARED, SMALL, run_script
from saved_runs import save_run, small_model

from readers.checkpoints import (
    copy_shared_encoder,
    make_model,
    read_checkpoint,
    save_checkpoint,
)
from utils import VERSION, UserError


@pytest.fixture
def state(run):
    return torch.load(run / "last.pth", weights_only=True)


def test_bad_checkpoints(run, tiny, state, tmp_path, fails):
    assert "no such" in fails("test.py", "--input", tmp_path / "none")
    assert "no best.pth" in fails("test.py", "--input", tmp_path)
    (tmp_path / "broken.pth").write_bytes((run / "best.pth").read_bytes()[:5000])
    assert "broken.pth" in fails("test.py", "--input", tmp_path / "broken.pth")
    assert "BAN" in fails("test.py", "--input", run, "--model", "BAN")
    assert "GRU" in fails("test.py", "--input", run, "--rnn", "GRU")
    torch.save(state | {"answers": [*state["answers"][:-1], "other"]}, tmp_path / "other.pth")
    line = fails("test.py", "--input", tmp_path / "other.pth", "--RAD_dir", tiny)
    assert "answers" in line and f"the first difference at {len(state['answers']) - 1}" in line
    for key in ("data", "epoch", "settings", "prior_arguments"):
        torch.save({k: value for k, value in state.items() if k != key}, tmp_path / "part.pth")
        line = fails("test.py", "--input", tmp_path / "part.pth", "--RAD_dir", tiny)
        assert "part.pth is not a checkpoint of this kind" in line
    changes = [{"val_fraction": 2.0}, {"val_fraction": "much"}, {"split": None}, {"seed": 1.5}]
    for change in changes:
        torch.save(state | {"settings": state["settings"] | change}, tmp_path / "part.pth")
        line = fails("test.py", "--input", tmp_path / "part.pth", "--RAD_dir", tiny)
        assert "part.pth is damaged" in line and next(iter(change)) in line


@pytest.mark.parametrize("version", [4, 99, None, "x"])
def test_another_version_is_refused(version, state, tmp_path, fails):
    torch.save(state | {"version": version}, tmp_path / "other.pth")
    line = fails("test.py", "--input", tmp_path / "other.pth")
    assert f"of version {version}, and this program reads version {VERSION}" in line


def test_weights_of_another_model_are_not_started_from(run, tiny, tmp_path, fails):
    options = ["--RAD_dir", tiny, "--input", run / "best.pth", "--output", tmp_path / "x"]
    line = fails("train.py", *options, *SMALL, "--num_hid", "64")
    assert "--num_hid 32 (then) and --num_hid 64 (now)" in line


def test_a_damaged_checkpoint_is_not_gone_on_with(tiny, state, tmp_path, fails):
    """Weights or arguments that lack or do not fit: one line, for --input and for --resume."""
    kept, weights, settings = state["model_arguments"], state["model"], state["settings"]
    first = next(iter(weights))
    damaged = [
        {"model_arguments": {key: value for key, value in kept.items() if key != "encoder"}},
        {"model_arguments": kept | {"hidden": 65}},
        {"model_arguments": kept | {"fusion": "BAN", "glimpses": 10**9}},
        {"model_arguments": kept | {"encoder": None}},
        {"prior_arguments": {"ntoken": "x"}},
        {"model": {key: value for key, value in weights.items() if key != first}},
        {"model": weights | {first: torch.zeros(2, 3)}},
        {"model": weights | {"more": torch.zeros(1)}},
        {"answers": state["answers"][1:]},
        {"changed": [1]},
    ]
    only_resumed = [{"settings": settings | {name: value}} for name, value in (
        ("batch_size", "many"), ("lr", True), ("model", "XYZ"), ("gate", 2.5))]  # fmt: skip
    for number, change in enumerate(damaged + only_resumed):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.save(state | change, folder / "last.pth")
        line = fails("train.py", "--output", folder, "--resume")
        assert f"{folder / 'last.pth'} is damaged" in line
        if change in damaged:
            named = ["--input", folder / "last.pth", "--output", tmp_path / "new"]
            line = fails("train.py", "--RAD_dir", tiny, *named, *SMALL)
            assert f"{folder / 'last.pth'} is damaged" in line


def test_a_shared_encoder_becomes_three(run):
    """A frozen run, taken on with encoders that are trained, gives the same answers at first."""
    shared = read_checkpoint(run / "best.pth")
    apart = copy_shared_encoder(shared)
    models = [make_model(state, run / "best.pth") for state in (shared, apart)]
    assert [len(model.image.encoders) for model in models] == [1, 3]
    torch.manual_seed(0)
    images, questions = torch.randn(2, 3, 224, 224), torch.randint(0, 20, (2, 5))
    with torch.inference_mode():
        logits = [model(images, questions).logits for model in models]
    assert torch.allclose(*logits, atol=1e-5)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_with_code_in_it_does_not_run(tmp_path, tiny, fails):
    torch.save({"model_state": Hostile(tmp_path / "ran")}, tmp_path / "hostile.pth")
    line = fails("test.py", "--input", tmp_path / "hostile.pth", "--RAD_dir", tiny)
    assert "never run" in line and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
    ],
)
def test_a_full_disk_while_saving_keeps_the_file_before(error, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last.pth", {"a": 1})

    def full(state, path):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/last.pth'"):
        save_checkpoint(tmp_path / "last.pth", {"a": 2})
    monkeypatch.undo()
    assert torch.load(tmp_path / "last.pth", weights_only=True) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_an_epoch_is_found_or_listed(run, tmp_path, fails):
    run_script("test.py", "--input", run, "--epoch", 0, "--output", tmp_path, "--gpu", -1)
    assert json.loads((tmp_path / "results.json").read_text())["epoch"] == 0
    assert "there are: 0, 1" in fails("test.py", "--input", run, "--epoch", 7)


def test_the_authors_checkpoint_of_another_vocabulary(parity, deterministic, tmp_path, fails):
    """test.py --input OFFICIAL.pth on data of another vocabulary names both sizes."""
    keys = json.loads((parity / "official_keys_CMSA_200d.json").read_text())
    official = {"model_state": deterministic.fill_state_dict(keys, 1), "epoch": 1}
    torch.save(official, tmp_path / "official.pth")
    data = SHARED / "vqa_rad"
    line = fails("test.py", "--input", tmp_path / "official.pth", "--RAD_dir", data)
    assert "1177 words and 458 answers" in line and "1055" in line and "405" in line


def test_a_prior_that_points_nowhere_is_refused(tmp_path):
    """Its places would be looked up at the first question."""
    model, made_with = small_model(4, 3, prior=True)
    about = {"name": "test", "digest": "0", "folder": "/"}
    known = {"dictionary": ["a", "b", "c", "d"], "answers": ["x", "y", "z"], "about": about}
    path = save_run(tmp_path / "run", model, made_with, **known) / "best.pth"
    kept = read_checkpoint(path)
    make_model(kept, path)
    for name, value in (("known_words", 5), ("known_words", -1), ("pairs", 9)):
        weights = dict(kept["model"])
        weights[f"prior.{name}"] = torch.full_like(weights[f"prior.{name}"], value)
        with pytest.raises(UserError, match="points to what it lacks"):
            make_model(kept | {"model": weights}, path)
