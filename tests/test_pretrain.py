"""pretrain.py from start to the files that train.py finds, bad arguments, settings."""

import json
import sys

import pytest
import torch
from PIL import Image
from pretraining_runs import SMALL, call
from set_folders import own

import pretrain
from base_model import make_encoder
from readers.checkpoints import read_checkpoint
from readers.weights import MTPT_FILES
from utils import ORGAN_ENCODERS, VERSION, UserError, run_main


def test_what_a_run_leaves(pretrained):
    weights, results = pretrained
    files = {path.name for path in weights.iterdir()}
    assert set(MTPT_FILES.values()) <= files
    assert not any(name.endswith(".tmp") for name in files)
    about = json.loads((results / "results.json").read_text())
    assert set(about) == {"version", *ORGAN_ENCODERS, "image_type"}
    abdomen, brain = about["abdomen"], about["brain"]
    assert brain["phantom"] and brain["model_arguments"]["task"] == "classification"
    assert abdomen["model_arguments"]["task"] == "segmentation"
    assert 0 <= abdomen["results"]["mean_iou"] <= 1
    assert brain["results"]["copies"] == 0
    assert brain["results"]["accuracy_without_copies"] == brain["results"]["accuracy"]
    compatibility = brain["results"]["compatibility"]
    assert 0.5 <= compatibility["majority"] <= 1 and compatibility["pairs"] > 50
    # every question of the phantom set recurs
    assert "compatibility_new_questions" not in brain["results"]
    held_out = [about[organ]["data"]["held-out images"] for organ in ORGAN_ENCODERS]
    assert about["image_type"]["results"]["images"] == sum(held_out) == 7
    for name in ("abdomen_masks", "abdomen_confusion", "brain_confusion", "chest_confusion"):
        with Image.open(results / f"{name}.png") as image:
            assert min(image.size) > 300
    for organ in ORGAN_ENCODERS:
        lines = (weights / organ / "log.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        assert last["epoch"] == 1 and "held_out_compatibility" in last
        files = {path.name for path in (weights / organ).iterdir()}
        assert {"run.json", "last.pth", "tensorboard"} <= files


def test_what_the_files_hold(pretrained):
    """The kinds of readers.checkpoints, with the settings as they were asked for."""
    weights, _ = pretrained
    for organ in ORGAN_ENCODERS:
        part = read_checkpoint(weights / f"{organ}.pth", "encoder")
        last = read_checkpoint(weights / organ / "last.pth", "pretraining")
        run = json.loads((weights / organ / "run.json").read_text())
        assert part["version"] == run["version"] == VERSION
        assert part["settings"] == last["settings"] == run["settings"]
        assert part["settings"]["precision"] == "float32" and part["settings"]["epochs"] == 2
        assert part["settings"]["encoder_rate"] is None and part["encoder_rate"] == 0.1
        assert part["data"]["organ"] == organ and part["questions"]["name"] == "phantom set"
        assert (
            part["results"]
            == json.loads((pretrained[1] / "results.json").read_text())[organ]["results"]
        )
    image_type = read_checkpoint(weights / "image_type.pth", "image_type")
    assert image_type["phantom"] and set(image_type["digests"]) == set(ORGAN_ENCODERS)


def test_the_image_task_alone_from_random_resnet(organ_sets, tiny, tmp_path):
    options = ["--organ", "abdomen", "--MTPT_dir", organ_sets, "--RAD_dir", tiny, *SMALL]
    options += ["--output", tmp_path, "--results", tmp_path / "r", "--epochs", 1]
    call(*options, "--encoder", "resnet34", "--random_encoders", "--no-compatibility")
    part = read_checkpoint(tmp_path / "abdomen.pth", "encoder")
    assert part["encoder"] == "resnet34" and part["adapter"] is None
    assert part["compatibility"] is None and part["encoder_rate"] == 1
    make_encoder("resnet34").load_state_dict(part["state"])
    results = json.loads((tmp_path / "r" / "results.json").read_text())
    assert "compatibility" not in results["abdomen"]["results"]
    assert list(results) == ["version", "abdomen"]


def test_a_learnable_task_is_learnt(organ_sets, tiny, tmp_path):
    """The loss falls, and the image task is better than chance after a short run on drawings."""
    options = ["--organ", "chest", "--MTPT_dir", organ_sets, "--RAD_dir", tiny, *SMALL]
    options += ["--output", tmp_path, "--results", tmp_path / "r"]
    call(*options, "--epochs", 12, "--lr", 0.003)
    rows = [
        json.loads(line) for line in (tmp_path / "chest" / "log.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["train_score"] > 0.8


def test_folders_that_are_read_only_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "find_organ_sets", lambda *_: pytest.fail("it read images"))
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    sealed.chmod(0o555)
    with pytest.raises(UserError, match=f"{sealed}/w can't be written: .* with --output"):
        call("--gpu", -1, "--output", sealed / "w", "--results", tmp_path / "r")
    with pytest.raises(UserError, match=f"{sealed}/r can't be written: .* with --results"):
        call("--gpu", -1, "--output", tmp_path / "w", "--results", sealed / "r")


def test_questions_of_another_set(organ_sets, tmp_path, monkeypatch):
    """Its records are chosen as in train.py; a set without the organs can't be used."""
    wanted = pretrain.parse_args(["--language", "zh", "--organ_map", "a.json"])
    assert (wanted.language, str(wanted.organ_map)) == ("zh", "a.json")
    options = ["--MTPT_dir", organ_sets, "--output", tmp_path / "w", "--results", tmp_path / "r"]
    with pytest.raises(UserError, match="own can't serve pre-training: .*--organ_map"):
        call(*options, "--gpu", -1, "--RAD_dir", own(tmp_path / "own", 10, 5))
    # said before the labels are sought
    options += ["--RAD_dir", tmp_path / "own", "--VQA_dir", tmp_path / "none"]
    with pytest.raises(UserError, match="can't serve pre-training: .*--no-compatibility"):
        call(*options, "--gpu", -1)
    options = options[:-4]
    seen = {}
    monkeypatch.setattr(pretrain, "find_data", lambda folder, options, **_: seen.update(options))
    with pytest.raises(AttributeError):  # no data
        call(*options, "--gpu", -1, "--categories", "all")
    assert seen["categories"] == "all"


def test_polynomial_rate():
    """docs/METHOD.md section 5.3: power 0.9, every 20 of 100 epochs; a short run has 5 stages."""

    def rates(epochs):
        return [pretrain.polynomial_rate(epoch, epochs, 0.01) for epoch in range(epochs)]

    assert all(len(set(rates(epochs))) == 5 for epochs in (5, 7, 10, 14, 100, 333))
    assert rates(100)[0] == rates(100)[19] == 0.01
    assert rates(100)[20] == rates(100)[39] == pytest.approx(0.01 * 0.8**0.9)
    assert rates(100)[99] == pytest.approx(0.01 * 0.2**0.9)
    assert rates(1) == [0.01]


def test_the_encoder_has_a_rate_of_its_own():
    model = torch.nn.ModuleDict({n: torch.nn.Linear(2, 1) for n in ("encoder", "decoder")})
    model["decoder"].bias.requires_grad_(False)
    first, second = pretrain.make_optimizer(model, 1.0, 0.1).param_groups
    assert first["scale"] == 0.1 and first["params"] == list(model["encoder"].parameters())
    assert second["scale"] == 1 and second["params"] == [model["decoder"].weight]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--batch_size", "1"], "--batch_size 1"),
        (["--epochs", "0"], "--epochs 0"),
        (["--lr", "0"], "--lr"),
        (["--seed", "-1"], "--seed"),
        (["--encoder_rate", "-2"], "--encoder_rate"),
        (["--MTPT_dir", "/nonexistent"], "/nonexistent"),
        (["--gpu", "99"], "--gpu 99"),
    ],
)
def test_bad_arguments(arguments, words, tiny, tmp_path, monkeypatch, capfd):
    output = tmp_path / "out"
    options = ["pretrain.py", "--RAD_dir", str(tiny), "--output", str(output), *arguments]
    monkeypatch.setattr(sys, "argv", options)
    with pytest.raises(SystemExit) as stop:
        run_main(pretrain.main)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert stop.value.code == 2 and len(lines) == 1 and words in lines[0]
    assert not output.exists()
