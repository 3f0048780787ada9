"""pretrain.py --resume: the same bits, the same settings, damaged files."""

import json
import shutil

import pytest
import torch
from pretraining_runs import SMALL, call

import pretrain
from utils import UserError


@pytest.fixture
def options(organ_sets, tiny, tmp_path):
    """A run of the brain's encoder in the folder w."""
    folders = ["--MTPT_dir", organ_sets, "--RAD_dir", tiny, "--output", tmp_path / "w"]
    return ["--organ", "brain", *folders, "--results", tmp_path / "r"]


def test_an_interrupted_run_resumed_ends_with_the_same_bits(
    pretrained,
    options,
    tmp_path,
    monkeypatch,
):
    train_epoch = pretrain.Trainer.train_epoch

    def interrupted(trainer, *arguments):
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(trainer, *arguments)

    monkeypatch.setattr(pretrain.Trainer, "train_epoch", interrupted)
    monkeypatch.setattr(pretrain, "SAVE_STEPS", 1)
    with pytest.raises(KeyboardInterrupt):
        call(*options, *SMALL)
    file = tmp_path / "w" / "brain.pth"
    assert not file.exists()
    monkeypatch.setattr(pretrain.Trainer, "train_epoch", train_epoch)
    with pytest.raises(UserError, match="holds brain already"):
        call(*options, *SMALL)
    with pytest.raises(UserError, match=r"settings: --lr 0.01 \(then\) and --lr 0.5 \(now\)"):
        call(*options, "--resume", "--lr", "0.5")
    # start weights are no longer needed
    monkeypatch.setattr(pretrain, "imagenet_start", lambda *_: pytest.fail("it starts anew"))
    # settings and data that are not named now are the run's
    own = options[:2] + options[6:]
    call(*own, "--resume")
    ours, theirs = (torch.load(p, weights_only=True) for p in (file, pretrained[0] / "brain.pth"))
    for part in ("state", "adapter", "decoder", "compatibility"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][key], theirs[part][key]) for key in theirs[part]), part
    assert ours["results"] == theirs["results"]
    # a finished organ stays
    stamp = file.stat().st_mtime_ns
    call(*options, "--resume", "--epochs", 2, "--encoder_rate", 0.1, "--save_every", 3)
    assert file.stat().st_mtime_ns == stamp
    changed = r"--warmup 2 \(then\) and --warmup 9 \(now\)"
    message = f"brain.pth can't go on with other settings: {changed}"
    with pytest.raises(UserError, match=message):
        call(*options, *SMALL, "--resume", "--warmup", "9")


class Stop(Exception):
    """An organ's run was interrupted before its first step."""


@pytest.fixture
def started(organ_sets, tiny, tmp_path, monkeypatch):
    """started(*arguments): the settings of the first organ of a run, which stops there."""

    def stop(trainer, *_):
        trainer.save("last.pth", -1, trainer.sums)
        names = ("organ", "epochs", "encoder_rate", "encoder")
        random = "random" in trainer.kept["start"]
        raise Stop({name: trainer.kept[name] for name in names} | {"random": random})

    monkeypatch.setattr(pretrain.Trainer, "train_epoch", stop)
    # the exception's frames would hold the lock
    monkeypatch.setattr("utils.lock", lambda folder: None)
    options = ["--MTPT_dir", organ_sets, "--RAD_dir", tiny, "--results", tmp_path / "r"]
    options += "--num_hid 32 --batch_size 4 --gpu -1 --precision float32".split()

    def start(*arguments):
        with pytest.raises(Stop) as stopped:
            call(*options, *arguments)
        return stopped.value.args[0]

    return start


def test_organs_not_begun_take_what_was_named_for_others(started, tmp_path):
    """Organs that are begun keep their own settings."""
    named = ["--output", tmp_path / "named"]
    lite = {"encoder": "efficientnet_lite0", "random": True}
    first = {"organ": "abdomen", "epochs": 2, "encoder_rate": 0.5} | lite
    options = ["--encoder", "efficientnet_lite0", "--random_encoders"]
    assert started(*named, "--epochs", 2, "--encoder_rate", 0.5, *options) == first
    for _ in range(2):  # interrupted again, nothing is forgotten
        assert started(*named, "--resume") == first
    assert started(*named, "--organ", "chest", "--resume") == first | {"organ": "chest"}
    brain = started(*named, "--organ", "brain", "--resume", "--epochs", 4)
    assert brain == first | {"organ": "brain", "epochs": 4}  # the command line counts more
    assert started(*named, "--resume") == first
    # a newer run of VQA sets beside, for --MTPT_dir names organ sets (`started`)
    run = {"encoder": "resnet34", "settings": {"VQA_dir": [str(tmp_path)], "epochs": 9}}
    (tmp_path / "named" / "vqa").mkdir()
    (tmp_path / "named" / "vqa" / "run.json").write_text(json.dumps(run))
    assert started(*named, "--resume") == first
    shutil.rmtree(tmp_path / "named" / "chest")
    # without --resume it is a run of its own, with 200 steps
    assert started(*named, "--organ", "chest", *options)["epochs"] == 200


def test_a_default_that_depends_on_the_organ_is_not_taken_along(started, tmp_path, monkeypatch):
    output = ["--output", tmp_path / "default"]
    first = started(*output, "--encoder", "efficientnet_lite0", "--organ", "brain")
    assert first["epochs"] == 100  # of 2 steps
    later = started(*output, "--organ", "chest", "--resume")
    assert later == first | {"organ": "chest", "epochs": 200}
    # the newest one
    (tmp_path / "default" / "chest" / "run.json").write_text("[]")
    with pytest.raises(UserError, match="chest/run.json is not a file of this program"):
        call(*output, "--organ", "abdomen", "--resume")
    (tmp_path / "default" / "chest" / "run.json").write_text(
        '{"encoder": "resnet34", "settings": {"lr": "fast"}}'
    )
    with pytest.raises(UserError, match="chest/run.json is damaged: its setting lr is 'fast'"):
        call(*output, "--organ", "abdomen", "--resume")


def test_a_precision_that_nobody_named_is_the_machine_s(started, tmp_path, monkeypatch, capfd):
    options = ["--output", tmp_path / "auto", "--organ", "brain", "--precision", "auto"]
    monkeypatch.setattr(pretrain.utils, "has_bf16", lambda device: True)
    started(*options, "--encoder", "efficientnet_lite0")
    assert "; cpu, bf16;" in capfd.readouterr().out
    monkeypatch.setattr(pretrain.utils, "has_bf16", lambda device: False)
    started(*options, "--resume")
    out = capfd.readouterr().out
    assert "NOTE: the run was in bf16 so far; on this cpu it goes on in float32" in out
    assert "; cpu, float32;" in out


def test_other_data_are_refused(pretrained, organ_sets, tiny, options, tmp_path):
    """A run that goes on has the images and the questions that it began with."""
    shutil.copytree(pretrained[0] / "brain", tmp_path / "w" / "brain")
    other = shutil.copytree(organ_sets, tmp_path / "other")
    path = next((other / "brain" / "train").glob("*/*.png"))
    shutil.copy(path, path.with_name("again.png"))
    with pytest.raises(UserError, match="last.pth began with other data .*brain.*by --MTPT_dir"):
        call(*options, "--resume", "--MTPT_dir", other)
    questions = shutil.copytree(tiny, tmp_path / "questions")
    next((questions / "VQA_RAD Image Folder").iterdir()).write_bytes(
        next((tiny / "VQA_RAD Image Folder").iterdir()).read_bytes() + b"x"
    )
    with pytest.raises(UserError, match="last.pth began with other questions .*by --RAD_dir"):
        call(*options, "--resume", "--RAD_dir", questions)


def test_resume_with_damaged_files(pretrained, options, tmp_path):
    (tmp_path / "w" / "brain").mkdir(parents=True)
    last = torch.load(pretrained[0] / "brain" / "last.pth", weights_only=True)
    last["optimizer"] = {}  # its numbers take a second a case
    arguments, settings = last["model_arguments"], last["settings"]

    def without(name):
        return {key: value for key, value in last.items() if key != name}

    for spoilt, words in (
        (last, "does not fit this run"),
        (last | {"model": {}}, "does not fit this run"),
        (without("random"), "does not fit this run"),
        ({"version": last["version"]}, "not a checkpoint of this kind"),
        (last | {"version": "x"}, "of version x"),
        (last | {"model_arguments": {}}, "does not fit this run"),
        (last | {"encoder": "vgg"}, "does not fit this run"),
        (last | {"encoder": ["vgg"]}, "is damaged: its encoder"),
        (without("model"), "not a checkpoint of this kind"),
        (last | {"model_arguments": arguments | {"word_dim": 10**9}}, "does not fit this run"),
        (last | {"epochs": "2"}, "is damaged: its epochs"),
        (last | {"encoder_rate": None}, "is damaged: its encoder_rate"),
        (last | {"settings": settings | {"lr": None}}, "is damaged: its setting lr"),
        (last | {"settings": settings | {"seed": 0.5}}, "is damaged: its setting seed"),
        (last | {"settings": settings | {"rnn": "QRNN"}}, "is damaged: its setting rnn"),
    ):
        torch.save(spoilt, tmp_path / "w" / "brain" / "last.pth")
        with pytest.raises(UserError, match=words):
            call(*options, "--resume")
    (tmp_path / "r").mkdir(exist_ok=True)
    (tmp_path / "r" / "results.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="results.json is not a file of this program"):
        call(*options, "--resume")
    assert not (tmp_path / "w" / "brain.pth").exists()
