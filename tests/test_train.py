"""train.py: whole runs on a tiny phantom set, and the settings that they take."""

import json
import os

import pytest
import torch
from conftest import CHANGED, SMALL, call, run_script

import engine
import train
from base_model import VQAModel
from dataset_RAD import find_data
from readers.checkpoints import make_model, read_checkpoint
from utils import Stopped, UserError

ONE = ["--no-distmodal"]  # one encoder, no image-type classifier: half the time
KEEP = ["--keep_optimizer"]  # for a run that goes on after its end


def last(folder):
    return torch.load(folder / "last.pth", weights_only=True)


def same_weights(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def stop_after_an_epoch(*arguments):
    """A run of train.py that SIGTERM stops once its first epoch is saved."""
    end_epoch = engine.Trainer.end_epoch

    def stop(trainer, *others, **options):
        end_epoch(trainer, *others, **options)
        raise Stopped(15)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(engine.Trainer, "end_epoch", stop)
        run_script("train.py", *arguments)


def test_what_a_run_leaves(run):
    names = {"run.json", "log.jsonl", "last.pth", "best.pth", "epoch_0.pth", "epoch_1.pth"}
    assert names | {"tensorboard"} <= {file.name for file in run.iterdir()}
    about = json.loads((run / "run.json").read_text())
    assert about["data"]["name"] == "phantom set" and about["data"]["digest"]
    assert about["recipe"] == "paper" and about["changed"] == CHANGED
    assert about["settings"]["num_hid"] == 32 and about["settings"]["seed"] == 0
    assert about["versions"]["torch"] == torch.__version__ and about["versions"]["torchvision"]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["rate"] for row in log] == [0.0025, 0.005] and log[1]["loss"] < log[0]["loss"]
    assert all(0 <= row["val_score"] <= 1 for row in log)


def test_the_same_seed_gives_the_same_bits_and_resume_goes_on(run, tiny, tmp_path, fails, capfd):
    """A run stopped after its first epoch and resumed ends like one that was never stopped.

    --resume takes everything from the run, its data folder too.
    """
    again = tmp_path / "again"
    stop_after_an_epoch("--RAD_dir", tiny, "--epochs", 2, "--output", again, *SMALL, *KEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.rad, "find_data", lambda *_, **__: pytest.fail("it read data"))
        line = fails("train.py", "--RAD_dir", tiny, "--output", again, *SMALL)
    assert "holds a run already" in line
    run_script("train.py", "--output", again, "--resume")
    assert last(run)["epoch"] == last(again)["epoch"] == 1
    assert same_weights(last(run)["model"], last(again)["model"])
    run_script("train.py", "--output", again, "--resume", "--epochs", 3)
    assert "planned for 2 epochs" in capfd.readouterr().out and last(again)["epoch"] == 2


def test_the_tuned_recipe_goes_on_without_being_named(tiny, tmp_path, fails):
    """Softmax, word dropout, gate, prior: stopped and resumed with the bits of a whole run."""
    options = ["--RAD_dir", tiny, *SMALL, *ONE, "--recipe", "tuned", "--val_fraction", "0.2"]
    run_script("train.py", *options, "--epochs", 2, "--output", tmp_path / "whole")
    stop_after_an_epoch(*options, "--epochs", 2, "--output", tmp_path / "parts")
    run_script("train.py", "--output", tmp_path / "parts", "--resume")
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    settings = whole["settings"]
    assert settings == parts["settings"] | {name: settings[name] for name in ("output", "resume")}
    assert (settings["recipe"], settings["val_fraction"], settings["loss"]) == ("tuned", 0.2, "ce")
    assert whole["changed"]["val_fraction"] == 0.2 and whole["prior_arguments"]
    assert same_weights(whole["model"], parts["model"])
    line = fails("train.py", "--output", tmp_path / "parts", "--resume", "--loss", "bce")
    assert "--loss ce (then) and --loss bce (now)" in line
    line = fails("train.py", "--output", tmp_path / "parts", "--resume", "--recipe", "paper")
    assert "--recipe tuned (then) and --recipe paper (now)" in line


class Reached(Exception):
    """A run came to its first step."""


@pytest.fixture
def goes_on(run, tmp_path, monkeypatch, capfd):
    """goes_on(settings, precision, *arguments): what a run says that goes on until its first step.

    The run had these settings, where they differ from the fixture's, and this precision.
    """

    def stop(trainer, *_):
        raise Reached(trainer.kept["settings"], trainer.kept["precision"])

    monkeypatch.setattr(train.engine.Trainer, "train_epoch", stop)
    monkeypatch.setattr(train.utils, "lock", lambda folder: None)  # frames would hold it

    def resume(settings, precision, *arguments):
        state, folder = last(run), tmp_path / "on"
        folder.mkdir(exist_ok=True)
        state |= {"settings": state["settings"] | settings, "precision": precision, "epoch": 0}
        torch.save(state, folder / "last.pth")
        capfd.readouterr()
        with pytest.raises(Reached) as reached:
            run_script("train.py", "--resume", "--output", folder, *arguments)
        return *reached.value.args, capfd.readouterr().out

    return resume


@pytest.mark.parametrize("native, before", [(False, "bf16"), (True, "float32")])
def test_a_precision_that_nobody_named_is_the_machine_s(native, before, goes_on, monkeypatch):
    """A note and no refusal, on a machine with or without bf16; what was named stays."""
    monkeypatch.setattr(train.utils, "has_bf16", lambda device: native)
    now = {"bf16": "float32", "float32": "bf16"}[before]
    settings, precision, out = goes_on({"precision": "auto"}, before)
    assert (settings["precision"], precision) == ("auto", now)
    assert f"NOTE: the run was in {before} so far; on this cpu it goes on in {now}" in out
    settings, precision, out = goes_on({"precision": "auto"}, before, "--precision", before)
    assert (settings["precision"], precision) == (before, before) and "so far" not in out
    settings, precision, out = goes_on({"precision": "bf16"}, "bf16")
    assert precision == "bf16" and "so far" not in out and ("bf16 is slow" in out) != native


def test_a_run_of_a_gpu_goes_on_on_a_cpu(goes_on, monkeypatch):
    """Encoders that were trained there are trained here; nobody had named a device."""
    # the fixture's optimizer is one of frozen encoders
    monkeypatch.setattr(train.engine.Trainer, "restore", lambda *_: None)
    named = {"gpu": None, "freeze_encoders": False, "precision": "auto"}
    settings, _, out = goes_on(named, "bf16", "--no-freeze_encoders")
    assert settings["freeze_encoders"] is False and "trained encoders: " in out
    settings, _, out = goes_on(named, "bf16")
    assert settings["freeze_encoders"] is False and "trained encoders: " in out


def test_a_folder_that_is_read_only_is_refused_at_once(tiny, tmp_path, monkeypatch, fails):
    monkeypatch.setattr(train.rad, "find_data", lambda *_, **__: pytest.fail("it read data"))
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    sealed.chmod(0o555)
    for output in (sealed, sealed / "run"):
        line = fails("train.py", "--RAD_dir", tiny, "--output", output, *SMALL)
        assert f"{output} can't be written: name another place with --output" in line
    monkeypatch.setattr(train, "HERE", sealed)
    line = fails("train.py", "--RAD_dir", tiny, *SMALL)
    assert f"{sealed / 'saved_models'} can't be written" in line and "--output" in line


def test_resuming_with_other_settings_or_data_is_refused(run, tmp_path, fails):
    line = fails("train.py", "--output", run, "--resume", "--split", "clean")
    assert "--split official (then) and --split clean (now)" in line
    from tools.phantom_RAD import draw

    draw(tmp_path / "other", seed=2, images=60)
    line = fails("train.py", "--output", run, "--resume", "--RAD_dir", tmp_path / "other")
    assert "began with other data" in line


def test_several_seeds_go_on_without_a_run_of_their_folder_s_name(tmp_path):
    args, kept = train.parse_args(["--seeds", "2", "--resume", "--output", str(tmp_path / "a")])
    assert args.seeds == 2 and args.resume and kept is None
    with pytest.raises(UserError, match=f"{tmp_path} has no last.pth yet: train without --resume"):
        train.parse_args(["--resume", "--output", str(tmp_path)])


def test_weights_of_another_run_take_this_run_s_loss(run, tiny, capsys):
    kept, path = read_checkpoint(run / "best.pth"), run / "best.pth"
    data = find_data(tiny, log=lambda _: None)
    options = [*SMALL, "--input", str(path), "--loss", "ce", "--word_dropout", "0.3"]
    args, _ = train.parse_args(options)
    model, arguments, _ = train.old_model(args, kept, path, data, True)
    assert model.softmax and model.w_emb.dropout.p == 0.3
    assert arguments["model_arguments"]["softmax"] and not kept["model_arguments"]["softmax"]
    assert "NOTE" not in capsys.readouterr().out
    args, _ = train.parse_args([*options, "--split", "clean"])
    train.old_model(args, kept, path, data, True)
    learnt = f"phantom set ({data.digest}, --split official): it may know test questions or images"
    assert learnt in capsys.readouterr().out
    other = kept | {"data": kept["data"] | {"name": "set", "digest": "abc"}}
    train.old_model(train.parse_args(options)[0], other, path, data, True)
    assert "trained on set (abc, --split official): it may know" in capsys.readouterr().out
    starts = [[f"--{name}", "x.pth"] for name in ("abd_model_path", "encoder_path", "vqa_init")]
    starts += [["--modal_classifier_path", "x"], ["--encoder", "resnet34"], ["--random_encoders"]]
    for start in starts:
        args, _ = train.parse_args([*options, *start])
        with pytest.raises(UserError, match=start[0]):
            train.old_model(args, kept, path, data, True)


def test_help_shows_the_defaults_of_the_named_recipe(capsys):
    for recipe, default in (("paper", 32), ("tuned", 64)):
        with pytest.raises(SystemExit):
            run_script("train.py", "--recipe", recipe, "--help")
        shown = capsys.readouterr().out
        assert f"questions a step (default: {default})" in shown
        assert shown.count("Train a medical VQA model") == 1


def test_official_command_line():
    text = "--model BAN --rnn GRU --use_spatial --distmodal --epochs 3 --batch_size 16 --lr 0.01 "
    text += "--seed 5 --gpu -1 --clip_norm 1 --question_len 10 --num_hid 512 --gamma 3 "
    text += "--num_stacks 1 --emb_init biowordvec --op c"
    args, _ = train.parse_args(text.split())
    assert args.model == "BAN" and args.use_spatial and args.distmodal and args.gamma == 3
    with pytest.raises(UserError):
        train.parse_args(["--batch_size", "0"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "BAN", "--image_only", *ONE],
        ["--model", "SAN", "--rnn", "GRU", *ONE],
        "--recipe tuned --question_only --split clean --no-use_spatial --blocks 1".split(),
    ],
)
def test_other_models_from_start_to_scores(arguments, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = os.path.relpath(tiny)
    run_script(
        "train.py", "--RAD_dir", folder, "--epochs", 1, "--output", "run", *SMALL, *arguments
    )
    monkeypatch.chdir(tmp_path / "run")  # the data's folder was given relative to another place
    run_script("test.py", "--input", ".", "--output", tmp_path / "out", "--gpu", -1)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    tuned = "tuned" in arguments
    assert (about["validation_questions"] == 0) == about["model_arguments"]["softmax"] == tuned
    results = json.loads((tmp_path / "out" / "results_all.json").read_text())
    assert results["ALL"]["count"] > 50 and results["recipe"] == about["recipe"]
    assert results["question_only"] == ("--question_only" in arguments)
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    for option, seen in (("--image_only", "image"), ("--question_only", "question")):
        if option in arguments:  # whatever is blanked has no say in the answer
            assert len({(row[seen], row["answer"]) for row in rows}) == len({r[seen] for r in rows})


def test_start_weights_on_the_disk_do_not_matter_to_a_checkpoint(run, tiny, monkeypatch):
    """Resumed or continued, encoders and word vectors come from the checkpoint."""

    def found(*_):
        raise AssertionError("looked for start weights")

    monkeypatch.setattr(train.weights, "choose_encoders", found)
    monkeypatch.setattr(train.vectors, "find_embedding", found)
    kept = read_checkpoint(run / "last.pth")
    args, _ = train.parse_args([*SMALL, "--input", str(run / "last.pth")])
    data = find_data(tiny, log=lambda _: None)
    model, arguments, description = train.old_model(args, kept, run / "last.pth", data, True)
    assert arguments["model_arguments"] == kept["model_arguments"]
    assert arguments["model_arguments"]["shared"] and "ImageNet" in description
    assert same_weights(model.state_dict(), kept["model"])


def test_trained_encoders_have_a_prior_of_words_alone(run, tiny):
    """Features that change say nothing of training images; a step moves the encoders."""
    from engine import collate, train_step, vqa_loss
    from features import model_inputs

    data = find_data(tiny, log=lambda _: None)
    args, _ = train.parse_args(["--recipe", "tuned", *SMALL, "--random_encoders"])
    args.freeze_encoders = False
    model, arguments, _ = train.new_model(args, data, False)
    inputs = model_inputs(model.image, data, torch.device("cpu"), frozen=False)
    whole, arguments = train.add_prior(model, arguments, data.train, data, inputs, args)
    assert arguments["prior_arguments"]["images"] == 0
    some = [q for q in data.train if q.label >= 0][:2]
    tokens, labels, organs = collate(some, "cpu")
    before = {key: value.clone() for key, value in whole.named_parameters()}
    output = model.train()(questions=tokens, **inputs([q.image for q in some]))
    loss = vqa_loss(output, labels, organs, "ce", 0.1)
    train_step(model, torch.optim.Adamax(model.parameters(), lr=0.002), loss, 0.25)
    moved = {key for key, value in whole.named_parameters() if not torch.equal(value, before[key])}
    encoders = [f"model.image.encoders.{organ}." for organ in range(3)]
    for part in (*encoders, "model.image.image_type.", "model.classifier."):
        assert any(key.startswith(part) for key in moved), part


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--RAD_dir", "/nonexistent"], "/nonexistent"),
        (["--batch_size", "1"], "--batch_size"),
        (["--lr", "-1"], "--lr"),
        (["--epochs", "0"], "--epochs"),
        (["--resume"], "--output"),
        (["--gpu", "99"], "--gpu 99"),
        (["--val_fraction", "1.5"], "--val_fraction"),
        (["--val_fraction", "nan"], "--val_fraction"),
        (["--question_only", "--image_only"], "--image_only"),
    ],
)
def test_bad_arguments(arguments, words, tiny, tmp_path, fails):
    extra = [] if "--RAD_dir" in arguments else ["--RAD_dir", tiny]
    extra += [] if "--resume" in arguments else ["--output", tmp_path / "run"]
    assert words in fails("train.py", *arguments, *extra)
    assert not (tmp_path / "run").exists()


def test_errors_from_a_shell_have_no_traceback(tmp_path):
    done = call("train.py", "--RAD_dir", tmp_path / "none", "--gpu", "-1")
    assert done.returncode == 2 and done.stderr.startswith("error:")
    assert len(done.stderr.strip().splitlines()) == 1
    assert call("train.py", "--no_such_thing").returncode == 2


def test_torchrun_s_environment_set_in_part_only(monkeypatch, fails):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun" in fails("train.py", "--seeds", "3")
    assert "RANK is not set" in fails("train.py", "--gpu", "-1")
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert "WORLD_SIZE is 'two'" in fails("train.py", "--gpu", "-1")
    assert "WORLD_SIZE is 'two'" in fails("train.py", "--gpu", "-1", "--seeds", "2")


def test_without_a_compiler(tiny, tmp_path):
    options = ["--RAD_dir", tiny, "--compile", "--output", tmp_path / "run", *SMALL, *ONE]
    nowhere = {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    done = call("train.py", *options, **nowhere)
    assert done.returncode == 2 and "error: --compile fails on this machine" in done.stderr
    assert "\r" not in done.stdout + done.stderr  # bars are for terminals
    assert "Traceback" not in done.stderr


def test_not_finite_stops(tiny, tmp_path, fails):
    options = ["--RAD_dir", tiny, "--epochs", 3, "--lr", "1e30", "--output", tmp_path / "run"]
    assert "not finite" in fails("train.py", *options, *SMALL, *ONE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_training_on_a_gpu(tiny, tmp_path):
    """Frozen and trained encoders, both recipes: the loss falls; resumed and evaluated there."""
    usual = [argument for argument in SMALL if argument not in ("--gpu", "-1")]
    for recipe in ("paper", "tuned"):
        for encoders in ("--freeze_encoders", "--no-freeze_encoders"):
            output = tmp_path / f"{recipe}{encoders}"
            options = ["--RAD_dir", tiny, "--epochs", 1, "--output", output, *usual, encoders]
            done = call("train.py", "--recipe", recipe, *options)
            assert done.returncode == 0, done.stderr
            done = call("train.py", "--resume", "--output", output, "--epochs", 2)
            assert done.returncode == 0, done.stderr
            log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
            assert log[1]["loss"] < log[0]["loss"]
            results = tmp_path / f"{output.name}_results"
            assert call("test.py", "--input", output, "--output", results).returncode == 0


def test_the_paper_s_model_knows_nothing_of_the_tuned_recipe(run):
    kept = read_checkpoint(run / "best.pth")
    model = make_model(kept, run / "best.pth")
    assert type(model) is VQAModel and kept["prior_arguments"] is None
    assert len(model.cmsa.blocks) == 2 and model.gate is None and not model.softmax
