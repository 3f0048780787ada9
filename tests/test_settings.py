"""settings.py: recipes, what differs from them, the name of a run, settings that need others."""

import json
import re
from types import SimpleNamespace

import pytest
from set_folders import own

import train
from readers import sentences
from settings import parse_args, run_name, settle
from utils import UserError

RAD = SimpleNamespace(organs=True, phantom=False, frames=True)
OWN = SimpleNamespace(organs=False, phantom=False, frames=False)


def settings(*arguments):
    return parse_args(list(arguments))[0]


def changed(*arguments, data=RAD, on_cpu=True):
    return settle(settings(*arguments), data, on_cpu)


def test_a_recipe_is_a_set_of_defaults():
    paper, tuned = settings(), settings("--recipe", "tuned")
    assert settings("--recipe", "paper") == paper
    loss = ("loss", "label_smoothing", "schedule", "val_fraction", "blocks", "batch_size")
    assert [getattr(paper, name) for name in loss] == ["bce", 0, "steps", 0.1, 2, 32]
    assert [getattr(tuned, name) for name in loss] == ["ce", 0.1, "cosine", 0, 1, 64]
    for name in ("idf", "gate", "prior"):
        assert (getattr(paper, name), getattr(tuned, name)) == (False, True)
    own = settings("--loss", "ce", "--val_fraction", "0.2")
    assert (own.loss, own.schedule, own.val_fraction) == ("ce", "steps", 0.2)
    differ = [settle(one, RAD, True) for one in (paper, tuned, own)]
    assert differ == [{}, {}, {"loss": "ce", "val_fraction": 0.2}]
    assert changed("--lr", "0.1", "--no-distmodal") == {"lr": 0.1, "distmodal": False}
    assert changed("--recipe", "tuned", "--image_only") == {}  # the form rule reads questions
    names = [run_name(*one, RAD) for one in zip((paper, tuned, own), differ)]
    prefixes = ("CMSA_paper_official_", "CMSA_tuned_official_", "CMSA_paper-changed_official_")
    assert all(name.startswith(prefix) for name, prefix in zip(names, prefixes))


@pytest.mark.parametrize("on_cpu", [True, False])
def test_settings_without_a_default_are_changed_where_they_are_named(on_cpu):
    files = "encoder_path vqa_init input organ_map modal_classifier_path abd_model_path".split()
    for name in files:
        found = changed(f"--{name}", "/a/file", on_cpu=on_cpu)
        assert json.loads(json.dumps(found)) == {name: "/a/file"}
    of_machine = {True: "--freeze_encoders", False: "--no-freeze_encoders"}
    for frozen, flag in of_machine.items():
        expected = {} if frozen == on_cpu else {"freeze_encoders": frozen}
        assert changed(flag, on_cpu=on_cpu) == expected
        expected = {} if frozen else {"freeze_encoders": False}
        assert changed(flag, "--recipe", "tuned", on_cpu=on_cpu) == expected
    usual = "30" if on_cpu else "80"
    assert changed("--epochs", usual, on_cpu=on_cpu) == {}
    assert changed("--epochs", "7", on_cpu=on_cpu) == {"epochs": 7}


def test_what_the_data_choose_is_no_change(tmp_path, monkeypatch):
    """One encoder for a set without organs, and no split in the name of a set with one split."""
    args = settings("--distmodal")
    assert settle(args, OWN, True) == {} and args.distmodal is False
    assert changed("--no-distmodal", data=OWN) == {}

    def stop(folder):
        raise InterruptedError(folder)

    monkeypatch.setattr(train, "HERE", tmp_path)
    monkeypatch.setattr(train.utils, "lock", stop)
    command = ["train.py", "--RAD_dir", str(own(tmp_path / "set")), "--gpu", "-1", "--no-mtpt"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(InterruptedError) as stopped:
        train.main()
    (folder,) = stopped.value.args
    assert folder.parent == tmp_path / "saved_models"
    assert re.fullmatch(r"CMSA_paper-changed_\d{8}-\d{6}", folder.name)


def test_a_run_that_goes_on_keeps_its_changes():
    """On another machine too; a run of before, which did not count epochs, gets the new number."""
    args = settings("--epochs", "9", "--no-freeze_encoders")
    kept = {"changed": {"blocks": 1}, "settings": {"epochs": 9}}
    assert settle(args, RAD, True, kept) == {"blocks": 1}
    kept["settings"]["epochs"] = 3
    assert settle(args, RAD, True, kept) == {"blocks": 1, "epochs": 9}


def test_a_setting_that_needs_another_is_refused_where_it_is_named(monkeypatch):
    """A recipe's is off without a word."""
    monkeypatch.setattr(sentences, "installed", lambda *_: True)
    sigmoid = settings("--recipe", "tuned", "--loss", "bce", "--no-sentences")
    assert (sigmoid.label_smoothing, sigmoid.prior, sigmoid.sentences) == (0, False, False)
    assert not settings("--label_smoothing", "0", "--no-prior").prior
    assert settings("--loss", "ce", "--prior", "--sentences").sentences
    for line, wanted in (
        ("--prior", "--prior is for --loss ce"),
        ("--label_smoothing 0.2", "--label_smoothing is for --loss ce"),
        ("--recipe tuned --loss bce --prior", "--prior is for --loss ce"),
        ("--sentences", "--sentences is for --prior"),
        ("--recipe tuned --no-prior --sentences", "--sentences is for --prior"),
    ):
        with pytest.raises(UserError, match=wanted):
            settings(*line.split())


@pytest.mark.parametrize("wrong", [("--epochs", "one"), ("--recipe", "tune"), ("--modle", "BAN")])
def test_a_wrong_argument_gives_no_list_of_all(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args(list(wrong))
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 2 and wrong[0] in lines[1]
