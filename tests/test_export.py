"""An exported model answers as the model does, and carries its answers and dictionary."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from saved_runs import save_run, small_model

import ask
import export
from readers.images import read_image
from utils import HERE, UserError

WORDS, ANSWERS = ["is", "there", "a", "mass", "left"], ["yes", "no", "left lung"]
ABOUT = {"name": "test", "digest": "0", "folder": "/"}
KINDS = {
    "CMSA": {},
    "BAN": {"fusion": "BAN"},
    "SAN": {"fusion": "SAN"},
    "CMSA, tuned": {"softmax": True, "gate": True, "prior": True, "blocks": 1},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def run(request, tmp_path):
    """A run's folder with an untrained model whose BN layers have statistics, and the model."""
    model, made_with = small_model(len(WORDS), len(ANSWERS), **request.param)
    for name, value in model.state_dict().items():
        # CMSA's start at 0 and would hide its work
        if ("bn" in name or "norm" in name) and value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
    save_run(tmp_path, model, made_with, dictionary=WORDS, answers=ANSWERS, about=ABOUT)
    return tmp_path, model


def inputs_and_answers(model, batch):
    """Random inputs of a batch size, and the probabilities that the model gives them."""
    images = torch.randn(batch, 3, 224, 224)
    questions = torch.randint(0, len(WORDS) + 1, (batch, 12))
    with torch.inference_mode():
        logits = model(images, questions).logits
    return images, questions, logits.softmax(-1) if model.softmax else logits.sigmoid()


def test_the_file_answers_as_the_model(run, capsys):
    folder, model = run
    export.main(["--input", str(folder)])
    assert "3 answers" in capsys.readouterr().out
    names = ("answers", "dictionary", "mean", "padding", "question_len", "recipe")
    extra = dict.fromkeys(names, "")
    program = torch.export.load(str(folder / "model.pt2"), extra_files=extra).module()
    facts = {name: json.loads(text) for name, text in extra.items()}
    assert facts["answers"] == ANSWERS and facts["dictionary"] == WORDS
    assert facts["padding"] == len(WORDS) and facts["mean"] == [0.485, 0.456, 0.406]
    assert facts["question_len"] == 12 and facts["recipe"] == "paper"
    images, questions, expected = inputs_and_answers(model, 5)
    assert torch.allclose(program(images, questions), expected, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("run", [{"softmax": True}], ids=["CMSA"], indirect=True)
def test_the_client_of_the_documents(run, tmp_path, monkeypatch, capsys):
    """Its text as it stands there prints ask.py's answer and probability."""
    folder, _ = run
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((301, 200)).save(folder / "image.jpg")
    export.main(["--input", str(folder)])
    section = (HERE / "docs" / "FORMATS.md").read_text("utf-8").split("## 7 Exported models")[1]
    client = section.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder)
    capsys.readouterr()
    exec(client, {})
    answer, probability = capsys.readouterr().out.rsplit(maxsplit=1)
    model, kept = ask.load(folder / "best.pth")
    result = ask.answer(model, kept, read_image(folder / "image.jpg"), "Is there a mass?")
    assert [answer, pytest.approx(float(probability), abs=2e-6)] == result["answers"][0]
    other = ask.answer(model, kept, read_image(folder / "image.jpg"), "a left")
    assert other["answers"][0][1] != pytest.approx(float(probability), abs=1e-5)


@pytest.mark.parametrize("run", [{}], ids=["CMSA"], indirect=True)
def test_a_file_that_answers_otherwise_is_not_written(run, monkeypatch):
    folder, _ = run
    (folder / "model.pt2").write_bytes(b"the one before")

    def another(served, inputs, facts, path):
        path.write_bytes(b"another")
        return lambda images, questions: served(images, questions) + 0.01

    monkeypatch.setattr(export, "export_program", another)
    with pytest.raises(UserError, match="would answer otherwise"):
        export.main(["--input", str(folder)])
    assert (folder / "model.pt2").read_bytes() == b"the one before"
    assert len(list(folder.iterdir())) == 2


def test_onnx(run):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name}, an optional package, is not installed")
    folder, model = run
    export.main(["--input", str(folder), "--output", str(folder / "model.onnx")])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["answers"]) == ANSWERS
    images, questions, expected = inputs_and_answers(model, 4)
    found = session.run(None, {"images": images.numpy(), "questions": questions.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


def test_onnx_needs_packages(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        export.export_onnx(None, None, {}, None)


@pytest.mark.parametrize("run", [{}], ids=["CMSA"], indirect=True)
def test_errors(run):
    folder, _ = run
    with pytest.raises(UserError, match="ends in .pt2"):
        export.main(["--input", str(folder), "--output", str(folder / "model.bin")])
    state = torch.load(folder / "best.pth", weights_only=True)
    for only in ("question_only", "image_only"):
        settings = state["settings"] | {only: True}
        torch.save(state | {"settings": settings}, folder / "best.pth")
        with pytest.raises(UserError, match=f"--{only}"):
            export.main(["--input", str(folder)])
    torch.save(state | {"version": 4}, folder / "best.pth")
    with pytest.raises(UserError, match="is of version 4"):
        export.main(["--input", str(folder)])
    with pytest.raises(UserError, match="no such"):
        export.main(["--input", str(folder / "none")])
