"""extra_data.py: other sets' questions in training, counted by hand, weighed, and never needed."""

import json
from argparse import ArgumentParser, Namespace
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import SMALL, run_script
from helpers import prepare, record
from PIL import Image
from set_folders import slake, vqa_med
from torch.nn import functional as F

import engine
import extra_data
import train
from base_model import VQAOutput
from features import ImageStore, Inputs, to_float
from settings import make_parser, parse_args, settle
from tools.calibrate import options_of
from utils import UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")
CPU = torch.device("cpu")


def scene(seed):
    """A smooth picture of random shapes, 60 x 50 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(pixels).resize((60, 50), Image.Resampling.BICUBIC)


def a_set(folder, images, **lists):
    """A set in the processed form. images: {name: picture}; lists: records of a list's file."""
    (folder / "images").mkdir(parents=True)
    for name, picture in images.items():
        picture.save(folder / "images" / name, quality=90)
    for name, records in lists.items():
        (folder / f"{name}.json").write_text(json.dumps(records))
    return folder


def own_set(folder, count=24):
    """A run's own set: training questions on i0 to i2, one test question on i3."""
    answers = ["Yes", "no", "an MRI"]
    asked = ["Is the lung normal?", "Is it a CT?", "What modality is used?"]
    records = [
        record(4 * i, image_name=f"i{i // 3 % 3}.png", question=asked[i % 3], answer=answers[i % 3])
        for i in range(count)
    ]
    test = [record(99, image_name="i3.png")]
    images = {f"i{i}.png": scene(i) for i in range(4)}
    return a_set(folder, images, trainset=records, testset=test)


OTHERS = [  # of another set: which of them train is said beside each
    record(1, image_name="a.png", question="Is the liver normal?", answer="Yes."),  # yes
    record(2, image_name="a.png", answer="MRI"),  # yes
    record(3, image_name="a.png", answer="ultrasound"),  # no class
    record(4, image_name="copy.jpg", answer="no"),  # the picture is own test image i3
    record(5, image_name="copy.jpg", answer="ultrasound"),
    record(6, image_name="b.png", answer="No"),  # yes
]


def other_set(folder, train=OTHERS):
    """Another set: two new images, a resized and re-encoded one, and all three parts."""
    copy = scene(3).resize((120, 90))
    images = {"a.png": scene(11), "b.png": scene(12), "c.png": scene(13), "copy.jpg": copy}
    held = [record(7, image_name="c.png", answer="yes")]  # of validation: it trains too
    test = [record(8, image_name="b.png", answer="yes")]  # never used
    return a_set(folder, images, trainset=train, valset=held, testset=test)


def options(folders, **changes):
    """Settings as of a command line."""
    given = {"extra_data": folders, "extra_weight": 0.5, "question_len": 5, "image_only": False}
    return Namespace(**given | changes)


def test_what_fits_trains_and_the_run_s_own_images_do_not(tmp_path, capsys):
    data = prepare(own_set(tmp_path / "own"))
    other = other_set(tmp_path / "other")
    args = options([other, slake(tmp_path / "slake")])
    sets, questions = extra_data.read(args, data)
    first, second = questions[:4], questions[4:]
    assert [q.qid for q in first] == [1, 2, 6, 7] and {q.weight for q in questions} == {0.5}
    assert data.answers == ["yes", "no", "mri"] and [q.label for q in first] == [0, 2, 1, 0]
    # is, the, lung, normal are the words 0 to 3 of 10; liver is none and reads as padding
    assert data.dictionary[:4] == ["is", "the", "lung", "normal"] and data.ntoken == 10
    assert first[0].tokens == (0, 1, 10, 3, 10) and first[0].unknown_words == ("liver",)
    assert first[1].tokens == (0, 1, 2, 3, 10) and first[1].unknown_words == ()
    # rows go on after the 4 images of the own set, and then after the 4 of the first one
    names = [sets[0].image_names[q.image - 4] for q in first]
    assert names == ["a.png", "a.png", "b.png", "c.png"]
    assert [sets[1].image_names[q.image - 8] for q in second] == [q.image_name for q in second]
    out = capsys.readouterr().out
    counts = "5 of 7 questions have an answer that is a class, 1 of 4 images are in"
    assert f"{counts} {data.name} too; 4 questions train" in out
    assert [q.qid for q in second] == [1, 2, 4]  # in English, of train and validation
    blank = extra_data.read(options([other], image_only=True), data)[1]
    assert {q.tokens for q in blank} == {(10,) * 5}
    assert extra_data.read(options([]), data) == ([], [])


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda folder: folder, "no such folder"),
        (lambda folder: folder.mkdir() or folder, "no VQA-RAD data in"),
        (lambda folder: other_set(folder, OTHERS[2:5]), "no question is left"),
        (own_set, "no question is left"),
    ],
)
def test_folders_that_give_nothing(make, words, tmp_path, fails):
    held = record(7, image_name="i3.png", answer="yes")
    own = own_set(tmp_path / "own")
    folder = make(tmp_path / "other")
    if (folder / "valset.json").exists():
        (folder / "valset.json").write_text(json.dumps([held | {"image_name": "copy.jpg"}]))
    named = ["--RAD_dir", own, "--output", tmp_path / "run", "--extra_data", folder]
    line = fails("train.py", *named, *SMALL)
    assert words in line and "--extra_data" in line and "--RAD_dir" not in line
    assert str(folder) in line and not (tmp_path / "run").exists()


def test_a_weight_is_above_zero(tmp_path, fails):
    line = fails("train.py", "--RAD_dir", tmp_path, "--extra_weight", "0")
    assert "--extra_weight 0.0: a positive number" in line


def today(logits, organ_logits, labels, organs, kind):
    """The loss of questions that weigh alike."""
    if kind == "ce":
        loss = F.cross_entropy(
            logits, labels, reduction="sum", ignore_index=-1, label_smoothing=0.1
        )
    else:
        targets = torch.zeros_like(logits)
        for row, label in enumerate(labels.tolist()):
            if label >= 0:
                targets[row, label] = 1
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return (loss + 0.5 * F.cross_entropy(organ_logits, organs, reduction="sum")) / len(labels)


@pytest.mark.parametrize("kind", ["bce", "ce"])
def test_weights_of_one_change_no_bit_and_others_scale_each_loss(kind):
    generator = torch.Generator().manual_seed(0)
    weights = [1.0, 0.25, 1.0, 3.0, 0.25, 1.0, 1.0]
    for _ in range(20):
        logits, organ_logits = (5 * torch.randn(7, n, generator=generator) for n in (405, 3))
        labels = torch.randint(-1, 405, (7,), generator=generator)
        organs = torch.randint(0, 3, (7,), generator=generator)
        output, smoothing = VQAOutput(logits, organ_logits, None), 0.1 * (kind == "ce")
        given = output, labels, organs, kind, smoothing
        expected = today(logits, organ_logits, labels, organs, kind)
        assert torch.equal(engine.vqa_loss(*given), expected)
        assert torch.equal(engine.vqa_loss(*given, [1.0] * 7), expected)
        alone = [
            today(logits[i : i + 1], organ_logits[i : i + 1], labels[[i]], organs[[i]], kind)
            for i in range(7)
        ]
        expected = sum(weight * one for weight, one in zip(weights, alone)) / 7
        assert engine.vqa_loss(*given, weights).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_image_of_another_organ_has_no_loss_of_its_type():
    logits, organ_logits = torch.zeros(2, 4), torch.zeros(2, 3)
    for kind, answer in (("bce", 4 * np.log(2)), ("ce", np.log(4))):
        for weights in ([], [2.0, 0.5]):
            output = VQAOutput(logits, organ_logits, None)
            loss = engine.vqa_loss(
                output, torch.tensor([0, 1]), torch.tensor([-1, 2]), kind, 0.0, weights
            )
            first, second = weights or (1, 1)
            expected = (first * answer + second * (answer + 0.5 * np.log(3))) / 2
            assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_a_step_has_the_questions_weights(tmp_path):
    """A model that gives each image the same logits: its loss is a sum by hand."""
    data = prepare(own_set(tmp_path / "own"))
    args = options([other_set(tmp_path / "other")], extra_weight=0.3, question_len=12)
    _, extra = extra_data.read(args, data)

    def model(questions):
        return VQAOutput(torch.zeros(len(questions), 3), None, None)

    args = Namespace(loss="bce", label_smoothing=0.0)
    loss_of = train.loss_function(model, lambda rows: {}, args, CPU, "float32")
    loss, _, count = loss_of([data.train[0], extra[0], extra[1]])
    assert count == 3 and loss.item() == pytest.approx(3 * np.log(2) * (1 + 0.3 + 0.3) / 3)


def test_joined_inputs_look_each_row_up_in_its_set(tmp_path):
    sets = [prepare(own_set(tmp_path / "own")), prepare(other_set(tmp_path / "other"))]
    pixels = torch.cat([to_float(ImageStore(one.images_path)[range(4)]) for one in sets])
    maps = torch.rand(8, 1, 4, 7, 7)
    counts = [4, 4]
    inputs = extra_data.JoinedInputs([Inputs(one, CPU) for one in sets], counts)
    frozen = [
        Inputs(one, CPU, maps[i : i + 4], pixels[i : i + 4, 0, 0, :3])
        for one, i in zip(sets, (0, 4))
    ]
    frozen = extra_data.JoinedInputs(frozen, counts)
    for rows in ([6, 0, 7, 3, 6, 2], [4, 5], [1], range(7, 0, -2)):
        assert torch.equal(inputs(rows)["images"], pixels[list(rows)])
        assert inputs(rows)["maps"] is None
        seen = frozen(rows)
        assert torch.equal(seen["maps"], maps[list(rows)]) and seen["images"] is None
        assert torch.equal(seen["organ_logits"], pixels[list(rows), 0, 0, :3])


def test_the_command_line_of_a_companion_has_the_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = make_parser(ArgumentParser(add_help=False))
    for line in ([], ["--extra_data", "a b", "../c", "--extra_weight", "0.2"]):
        args, _ = parse_args(["--freeze_encoders", "--gpu", "-1", *line])
        assert args.extra_data == ([tmp_path / "a b", tmp_path.parent / "c"] if line else [])
        assert vars(parse_args(options_of(args, parser))[0]) == vars(args)
    text = f"{tmp_path / 'a b'} {tmp_path.parent / 'c'}"
    data = Namespace(organs=True, phantom=False)
    assert settle(args, data, True) == {"extra_data": text, "extra_weight": 0.2}


@pytest.fixture
def seen(monkeypatch):
    """Counter of the weights in the losses of runs."""
    found, vqa_loss = Counter(), engine.vqa_loss

    def spy(*arguments):
        found.update(arguments[5])
        return vqa_loss(*arguments)

    monkeypatch.setattr(engine, "vqa_loss", spy)
    return found


def folders(tmp_path, count=24):
    """A run's own set of so many questions and two others, of which 3 and 1 questions train."""
    return own_set(tmp_path / "own", count), slake(tmp_path / "slake"), vqa_med(tmp_path / "med")


def test_a_frozen_run_from_start_to_scores(tmp_path, fails, seen):
    own, *others = folders(tmp_path)
    run = tmp_path / "run"
    line = ["--RAD_dir", own, "--extra_data", *others, others[0], "--output", run]
    line += ["--extra_weight", "0.5", "--recipe", "tuned", "--val_fraction", "0.2"]
    line += ["--epochs", 1, "--no-calibrate"]
    run_script("train.py", *line, *SMALL)
    about = json.loads((run / "run.json").read_text())
    training = about["training_questions"]
    assert about["extra_questions"] == 4 and training + about["validation_questions"] == 24
    assert seen == {1.0: training, 0.5: 4}
    # the prior reads the run's own questions, on three images
    assert [about["prior_arguments"][key] for key in ("questions", "images")] == [training, 3]
    digests = {str(folder): prepare(folder).digest for folder in others}
    assert about["data"]["extra"] == digests
    for folder in others:
        assert len(list((folder / "prepared").glob("maps_*.h5"))) == 1
    again = ["--resume", "--output", run]
    run_script("train.py", *again)
    line = fails("train.py", *again, "--extra_data", others[0])
    assert "other content of --extra_data" in line
    state = torch.load(run / "last.pth", weights_only=True)
    for bad in (str(own), [3], None, ["\0"]):
        torch.save(
            state | {"settings": state["settings"] | {"extra_data": bad}}, tmp_path / "last.pth"
        )
        line = fails("train.py", "--resume", "--output", tmp_path)
        assert "last.pth is damaged" in line
    path = others[1] / "ImageClef-2019-VQA-Med-Training" / "QAPairsByCategory"
    path = path / "C1_Modality_train.txt"
    kept = path.read_text()
    path.write_text(kept.replace("mri - t1", "mri"))
    assert "other content of --extra_data" in fails("train.py", *again)
    path.write_text(kept)
    for folder in others:
        folder.rename(folder.with_name(f"{folder.name} moved"))
    run_script("test.py", "--input", run, "--output", tmp_path / "out", "--gpu", -1)
    results = json.loads((tmp_path / "out" / "results_all.json").read_text())
    assert results["ALL"]["count"] == 1 and results["training_questions"] == training
    assert results["changed"]["extra_data"] == " ".join(map(str, others))
    assert str(others[0]) in (tmp_path / "out" / "report.html").read_text()
    assert "no such folder" in fails("train.py", *again)
    moved = [folder.with_name(f"{folder.name} moved") for folder in others]
    assert "other content" in fails("train.py", *again, "--extra_data", *reversed(moved))
    run_script("train.py", *again, "--extra_data", *moved)


@pytest.mark.parametrize(
    "options", [["--question_only"], ["--no-freeze_encoders", "--recipe", "tuned"]]
)
def test_other_ways_to_see_images(options, tmp_path, seen):
    """Blanked ones, and through encoders that learn; test.py takes the run."""
    own, *others = folders(tmp_path, 6)
    run = tmp_path / "run"
    line = ["--RAD_dir", own, "--extra_data", *others, "--extra_weight", "2", "--output", run]
    line += ["--epochs", 1, "--val_fraction", "0", "--no-calibrate", "--no-distmodal", *options]
    run_script("train.py", *line, *SMALL)
    assert seen == {1.0: 6, 2.0: 4} and (run / "best.pth").exists()
    stored = [len(list((one / "prepared").glob("maps_*"))) for one in (own, *others)]
    assert stored == [int("--question_only" in options)] * 3
    run_script("test.py", "--input", run, "--output", tmp_path / "out", "--gpu", -1)


def test_a_damaged_note_of_the_data_is_one_line():
    now = {"digest": "0", "folder": "/"}
    with pytest.raises(UserError, match="other content of --extra_data"):
        extra_data.check_same(now | {"extra": 3}, now, "run")
