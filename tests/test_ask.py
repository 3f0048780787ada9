"""ask.py on a tiny untrained model: answers against engine.predict, errors, picture, page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from saved_runs import save_run, small_model

import ask
import engine
from features import model_inputs
from readers.images import read_image
from tools.ask_show import answer_maps
from utils import run_main

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """make(fusion, **what differs) -> a run folder whose best.pth is as train.py writes it."""

    def make(fusion="CMSA", name=None, settings=None, softmax=False, **other):
        folder = tmp_path_factory.mktemp("runs") / (name or fusion)
        model, made_with = small_model(
            data.ntoken, data.num_answers, fusion=fusion, softmax=softmax
        )
        # as after training: a black image does not give empty maps
        for module in model.image.encoders.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.bias)
        about = {"dictionary": data.dictionary, "answers": data.answers, "about": data.about()}
        return save_run(folder, model, made_with, **about, settings=settings, **other)

    return make


@pytest.fixture(scope="module")
def run(runs):
    return runs()


@pytest.fixture(scope="module")
def picture(data):
    """A test question and its image file."""
    question = data.test[0]
    return question, next(data.folder.glob(f"*/{question.image_name}"))


@pytest.fixture
def call(monkeypatch, capfd):
    """ask.py in this process: (exit code, stdout, lines of stderr that say error)."""

    def call_in_process(*arguments):
        device = [] if "--gpu" in arguments else ["--gpu", "-1"]
        monkeypatch.setattr(sys, "argv", ["ask.py", *map(str, arguments), *device])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main(ask.main)
        out, err = capfd.readouterr()
        errors = [line for line in err.splitlines() if line.startswith("error:")]
        return stop.value.code, out, errors

    return call_in_process


@pytest.fixture
def fails(call):
    """The one line of a call that must exit with 2 and print nothing else."""

    def failing(*arguments):
        code, out, errors = call(*arguments)
        assert code == 2 and len(errors) == 1 and not out
        return errors[0]

    return failing


# ---------------------------------------------------------------- answers

BLANK, TRAINED = {"question_only": True}, {"freeze_encoders": False}


@pytest.mark.parametrize(
    "fusion, settings, softmax",
    [
        ("CMSA", {}, False),
        ("BAN", TRAINED, False),
        ("SAN", TRAINED, False),
        ("CMSA", BLANK, False),
        ("CMSA", BLANK | TRAINED, False),
        ("CMSA", {}, True),
    ],
)
def test_answers_are_those_of_predict(fusion, settings, softmax, runs, data, picture):
    question, file = picture
    model, kept = ask.load(runs(fusion, settings=settings, softmax=softmax) / "best.pth")
    frozen, blank = (kept["settings"][name] for name in ("freeze_encoders", "question_only"))
    inputs = model_inputs(model.image, data, CPU, frozen, blank)
    row = engine.predict(model, [question], inputs, CPU)[0]
    result = ask.answer(model, kept, read_image(file), question.question, top=10**6)
    answers, probabilities = zip(*result["answers"])
    assert len(answers) == data.num_answers
    assert list(answers[:3]) == [data.answers[i] for i in row.topk(3).indices]
    near = 1e-4 if frozen else 2e-6  # frozen maps are kept in float16
    np.testing.assert_allclose(probabilities, row.sort(descending=True).values, atol=near)
    assert (sum(probabilities) == pytest.approx(1, abs=1e-3)) == model.softmax == softmax
    if blank:
        assert result["image_type"] is None
        assert any("without images" in note for note in result["warnings"])
    else:
        assert list(result["image_type"]) == ["abdomen", "head", "chest"]
        assert sum(result["image_type"].values()) == pytest.approx(1, abs=1e-5)


def test_a_model_that_read_no_questions(runs, data, picture):
    """All questions get one answer, that of padding alone."""
    model, kept = ask.load(runs(settings={"image_only": True}) / "best.pth")
    image, (one, other) = read_image(picture[1]), data.dictionary[:2]
    result = ask.answer(model, kept, image, one)
    assert result["answers"] == ask.answer(model, kept, image, f"{one} {other}")["answers"]
    assert any("without questions" in note for note in result["warnings"])


def test_what_is_printed(run, runs, picture, call):
    question, file = picture
    code, out, errors = call(file, question.question, "--input", run, "--top", 3)
    lines = out.splitlines()
    assert code == 0 and not errors
    assert lines[0] == f"model: CMSA, {run / 'best.pth'}, epoch 2, trained on phantom set"
    probabilities = [float(line.split()[-1]) for line in lines[1:4]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert lines[4] == ask.SIGMOIDS and lines[5].startswith("image type: ")
    assert any("PHANTOM SET" in line for line in lines[6:])
    assert "has not ended" not in out
    assert lines[-1] == "This is research software. It is not for diagnosis."
    out = call(file, question.question, "--input", runs(name="softmax", softmax=True))[1]
    assert "image type: " in out and "sigmoid" not in out
    assert "sigmoid" not in call(file, question.question, "--input", run, "--json")[1]


def test_json_from_a_shell(run, picture):
    """One object and nothing else on stdout, whatever the words."""
    words = b"is the \xff liver grey"
    done = subprocess.run(
        [sys.executable, "ask.py", picture[1], words, "--input", run, "--json", "--gpu", "-1"],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["answers"]) == 5 and result["not_for_diagnosis"] is True
    assert result["checkpoint"] == str(run / "best.pth")
    assert result["data"] == "phantom set" and result["epoch"] == 1 and result["unknown_words"]
    assert set(result["image_type"]) == {"abdomen", "head", "chest"}


def test_packages_that_a_plain_answer_does_not_need_are_not_imported():
    """And none that takes seconds before an image is looked at."""
    wanted = "matplotlib pydicom gradio jinja2 onnx".split()
    for modules, others in (("ask, export, tools.report", []), ("ask", ["torch", "h5py"])):
        script = f"import {modules}, sys; print(set({wanted + others}) & set(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == "set()", done.stderr


def test_three_lines_of_python(run, picture):
    """Those that README.md shows; a run is named by its folder or file, as text too."""
    model, kept = ask.load(str(run))
    result = ask.answer(model, kept, read_image(picture[1]), picture[0].question)
    assert len(result["answers"]) == 5 and kept["path"] == str(run / "best.pth")
    assert ask.load(run / "best.pth")[1]["path"] == kept["path"]


def test_a_run_that_has_not_ended(runs, data, picture):
    """Its log says how far it is; without one only last.pth does."""
    image, word = read_image(picture[1]), data.dictionary[0]
    folder = runs(name="begun", epoch=0, settings={"epochs": 7})

    def note(file="best.pth"):
        result = ask.answer(*ask.load(folder / file), image, word)
        return [line for line in result["warnings"] if "has not ended" in line]

    about = data.about() | {"name": "own set phantom limb"}
    warnings = ask.answer(*ask.load(runs(name="own", data=about)), image, word)["warnings"]
    assert not any("PHANTOM" in line for line in warnings)
    assert note() == []  # the best epoch of a run that ended may be the first
    (folder / "last.pth").write_bytes((folder / "best.pth").read_bytes())
    assert "1 of 7 epochs" in note("last.pth")[0]
    row = '{"epoch": %d, "loss": 1, "train_score": 0}\n'
    (folder / "log.jsonl").write_text(row % 0 + row % 3)
    [line] = note()
    assert "4 of 7 epochs" in line and f"--resume --output {folder}" in line
    (folder / "run.json").write_text('{"settings": {"epochs": 4}}')  # of a later command
    assert note() == []
    (folder / "run.json").write_text("{")
    assert note() == []  # nothing is known of it


def test_questions_in_turn(run, picture, call, fails, monkeypatch):
    """In a terminal: each is answered, a bad one is named, and an empty line ends it."""
    typed = iter([picture[0].question, "zyx?", picture[0].question, ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    assert "image and a question are wanted" in fails(picture[1], "--input", run)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    code, out, errors = call(picture[1], "--input", run, "--top", 2)
    lines = out.splitlines()
    assert code == 0 and not errors and lines[0].startswith("model: CMSA")
    assert lines[1:3] == lines[-2:] != []  # both times the same answers
    assert sum("knows none of the question's words" in line for line in lines) == 1
    assert out.count("PHANTOM SET") == out.count("image type:") == out.count("sigmoid") == 1
    assert "wanted" in fails(picture[1], "--input", run, "--json")

    def end(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    assert call(picture[1], "--input", run)[0] == 0


def test_warnings(runs, data, picture):
    about = data.about() | {"name": "VQA-RAD, processed split"}
    model, kept = ask.load(runs(data=about) / "best.pth")
    image, word = read_image(picture[1]), data.dictionary[0]
    last = model.image.image_type.fc[-1]

    def warnings(question):
        return ask.answer(model, kept, image, question)["warnings"]

    with torch.no_grad():
        last.weight.zero_()
        model.classifier.main[-1].bias.fill_(9)
        last.bias.copy_(torch.tensor([0, 9.0, 0]))
        assert warnings(word) == []
        last.bias.copy_(torch.tensor([0, 0.5, 0]))  # softmax 0.27, 0.45, 0.27
        assert "uncertain (most likely head, 0.45)" in warnings(word)[0]
        last.bias.copy_(torch.tensor([0, 9.0, 0]))
        result = ask.answer(model, kept, image, f"{word} Zyx, qwv? zyx")
        assert result["unknown_words"] == ["zyx", "qwv"]
        assert "zyx, qwv" in result["warnings"][0] and len(result["warnings"]) == 1
        [note] = warnings(" ".join([word] * 12 + ["left", "out"]))
        assert "12 words" in note and note.endswith("left out")
        model.classifier.main[-1].bias.fill_(-9)
        assert "no answer is likely" in warnings(word)[0]


def test_frames_and_notes(run, picture, call, fails, tmp_path):
    """Printed, in the object of --json and in the page; --frame chooses, and is checked."""
    word, path, input_ = picture[0].question, tmp_path / "pages.tif", ("--input", run)
    with Image.open(picture[1]) as image:
        Image.new("L", (9, 9)).save(path, save_all=True, append_images=[image.convert("L")] * 4)
    lines = call(path, word, *input_)[1].splitlines()
    notes = [line for line in lines if line.startswith("NOTE: ") and line != ask.SIGMOIDS]
    assert notes[0] == "NOTE: one of several frames or pages is read: page 1 of 5"
    assert "nearly black" in notes[1] and len(notes) == 2
    result = json.loads(call(path, word, *input_, "--frame", 4, "--json")[1])
    assert result["image_notes"] == ["one of several frames or pages is read: page 4 of 5"]
    assert (result["frame"], result["frames"]) == (4, 5)
    alone = json.loads(call(picture[1], word, *input_, "--json")[1])
    assert alone["image_notes"] == [] and not {"frame", "frames"} & set(alone)
    assert result["answers"] != json.loads(call(path, word, *input_, "--json")[1])["answers"]
    assert "--frame 6: " in fails(path, word, *input_, "--frame", 6)
    assert "has frames 1 to 5" in fails(path, word, *input_, "--frame", 0)
    assert "leave --frame out" in fails(picture[1], word, *input_, "--frame", 1)
    assert "or --frame" in fails("--web", "--frame", 2)


def test_the_newest_run_is_asked(run, picture, call, fails, tmp_path, monkeypatch):
    monkeypatch.setattr(ask, "HERE", tmp_path)
    (tmp_path / "saved_models").mkdir()
    assert "train.sh" in fails(picture[1], "is it?")
    (tmp_path / "saved_models" / "mine").symlink_to(run)
    assert "saved_models/mine/best.pth" in call(picture[1], picture[0].question)[1]


# ---------------------------------------------------------------- errors


def test_bad_images(run, picture, fails, tmp_path):
    def line(path):
        return fails(path, "is it?", "--input", run)

    assert "none.png can't be used (missing)" in line(tmp_path / "none.png")
    assert "(a folder)" in line(tmp_path)
    (tmp_path / "cut.jpg").write_bytes(picture[1].read_bytes()[:500])
    (tmp_path / "text.dcm").write_text("a text")
    (tmp_path / "empty.png").touch()
    for name in ("cut.jpg", "text.dcm", "empty.png"):
        assert "(damaged, or none of JPEG, PNG, " in line(tmp_path / name)
    (tmp_path / "marked.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 9)
    assert "(DICOM that holds no picture" in line(tmp_path / "marked.dcm")
    Image.new("1", (10_000, 8_001)).save(tmp_path / "large.png")
    assert "(more than 80,000,000 pixels" in line(tmp_path / "large.png")


def test_bad_questions_and_arguments(run, picture, fails):
    file = picture[1]
    for question in ("", "  ", "?"):
        assert "question is empty" in fails(file, question, "--input", run)
    assert "none of the question's words (zyx, qwv)" in fails(file, "Zyx qwv?", "--input", run)
    assert "wanted" in fails() and "wanted" in fails(file)
    assert "--top 0" in fails(file, "is it?", "--top", 0)
    assert "--port 0" in fails("--web", "--port", 0)
    assert "--web" in fails(file, "is it?", "--web")
    assert ".png" in fails(file, "is it?", "--show", "a.jpg")
    assert "--gpu 99" in fails(file, "is it?", "--gpu", 99)


def test_a_folder_that_is_read_only_is_refused_at_once(picture, fails, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "readers.checkpoints.find_checkpoint", lambda *_: pytest.fail("it looked for a model")
    )
    tmp_path.chmod(0o555)
    line = fails(picture[1], "is it?", "--show", tmp_path / "where.png")
    assert f"{tmp_path} can't be written: name another place with --show" in line


def test_bad_checkpoints(run, runs, picture, fails, tmp_path):
    def line(path):
        return fails(picture[1], "is it?", "--input", path)

    assert "no such" in line(tmp_path / "none")
    official = {"model_state": {"w_emb.emb.weight": torch.zeros(3, 2)}, "epoch": 1}
    torch.save(official, tmp_path / "official.pth")
    assert "test.py --input can evaluate it" in line(tmp_path / "official.pth")
    torch.save({"model": {}}, tmp_path / "other.pth")
    assert "not a checkpoint of this program" in line(tmp_path / "other.pth")
    torch.save({"version": 4}, tmp_path / "old.pth")
    assert "old.pth is of version 4" in line(tmp_path / "old.pth")
    assert "other sizes" in line(runs(name="broken", model=dict.fromkeys("abc", torch.zeros(1))))


# ---------------------------------------------------------------- the picture


def test_the_maps_are_those_of_the_question(run, data, picture):
    """Their words in brackets where unknown; the values are of the first block (test_maps.py)."""
    model, kept = ask.load(run / "best.pth")
    word, image = data.dictionary[0], read_image(picture[1])
    encoded = ask.encode_picture(model, kept, image)
    falls, _, words, cells, others = answer_maps(model, kept, encoded, f"{word} zyx {word}?")
    assert falls.shape == (7, 7)
    assert words == [word, "[zyx]", word] and cells.shape == (3, 7, 7) and others.shape == (3, 4)
    tokens = torch.tensor([ask.read_question(kept, f"{word} zyx {word}").tokens])
    with torch.inference_mode():
        visual = model.image.mix(*encoded)
        states = model.q_emb(model.w_emb(tokens))
        p, r = model.cmsa.attention(visual, states, model.spatial)
    np.testing.assert_allclose(cells.reshape(3, 49), p[0, :3].mean(1), rtol=1e-4)
    np.testing.assert_allclose(others[0, 3], r[0, 0, :, 3:].sum(-1).mean(), rtol=1e-4)


def test_show(run, runs, data, picture, call, tmp_path, monkeypatch):
    """A picture, for which the image is encoded once."""
    encode, encoded = ask.encode_picture, []
    monkeypatch.setattr(ask, "encode_picture", lambda *a: encoded.append(1) or encode(*a))
    # no formula, a letter that no font has, a long word
    file, question = picture[1], f"{data.dictionary[0]} $x^ \u75c5 {'long' * 9}"
    shown = tmp_path / "new" / "where.png"
    code, out, _ = call(file, question, "--input", run, "--show", shown)
    assert code == 0 and f"written: {shown}" in out and len(encoded) == 1
    with Image.open(shown) as drawn:
        assert drawn.format == "PNG" and drawn.size == (1600, 820)
        assert len(drawn.convert("RGB").getcolors(2**24)) > 500
    assert [name.name for name in (tmp_path / "new").iterdir()] == ["where.png"]
    shown = tmp_path / "san.png"
    assert call(file, question, "--input", runs("SAN"), "--show", shown)[0] == 0
    assert shown.exists()  # without CMSA's maps


def test_the_page_needs_gradio(run, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install gradio" in fails("--web", "--input", run)
