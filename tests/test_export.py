"""An exported model answers as the model does, and carries its answers and dictionary."""

import json

import pytest
import torch

import export
from base_model import VQAModel
from utils import UserError

WORDS, ANSWERS = ["is", "there", "a", "mass", "left"], ["yes", "no", "left lung"]


@pytest.fixture(params=["CMSA", "BAN", "SAN", "CMSA with softmax"])
def run(request, tmp_path):
    """A run's folder with an untrained checkpoint whose BN layers have statistics, and its model."""
    torch.manual_seed(0)
    fusion, *more = request.param.split()
    best = bool(more)
    arguments = dict(
        fusion=fusion,
        softmax=best,
        gate=best,
        prior=best,
        components=3 * best,
        ntoken=len(WORDS),
        num_answers=len(ANSWERS),
        word_dim=8,
        hidden=32,
        encoder="efficientnet_lite0",
        shared=True,
    )
    model = VQAModel(**arguments)
    if model.prior:
        model.prior.find_components(torch.randn(9, 1280))
    for name, value in model.state_dict().items():
        if "bn" in name or "norm" in name:
            value.copy_(
                torch.rand_like(value) + 0.5 if value.is_floating_point() else value
            )  # CMSA's start at 0 and would hide its work
    torch.save(
        {
            "version": 1,
            "epoch": 3,
            "model": model.state_dict(),
            "model_arguments": arguments,
            "dictionary": WORDS,
            "answers": ANSWERS,
            "question_len": 12,
            "data": {"name": "test", "digest": "0", "folder": "/"},
            "split": "official",
        },
        tmp_path / "best.pth",
    )
    return tmp_path, model.eval()


def test_the_file_answers_as_the_model(run, capsys):
    folder, model = run
    export.main(["--input", str(folder)])
    assert "3 answers" in capsys.readouterr().out
    extra = {"answers": "", "dictionary": "", "mean": "", "padding": ""}
    program = torch.export.load(str(folder / "model.pt2"), extra_files=extra).module()
    assert (
        json.loads(extra["answers"]) == ANSWERS
        and json.loads(extra["dictionary"]) == WORDS
        and json.loads(extra["padding"]) == len(WORDS)
    )
    assert json.loads(extra["mean"]) == [0.485, 0.456, 0.406]
    images, questions = torch.randn(5, 3, 224, 224), torch.randint(0, len(WORDS) + 1, (5, 12))
    with torch.inference_mode():
        expected = model(images, questions).logits
        expected = expected.softmax(-1) if model.softmax else expected.sigmoid()
    assert torch.allclose(program(images, questions), expected, atol=1e-5) and expected.std() > 1e-3


def test_what_answers_otherwise_is_not_written(run, monkeypatch):
    folder, _ = run
    (folder / "model.pt2").write_bytes(b"the one before")
    whole = export.export_program
    monkeypatch.setattr(
        export,
        "export_program",
        lambda *arguments: lambda images, questions: whole(*arguments)(images, questions) + 0.01,
    )
    with pytest.raises(UserError, match="would answer otherwise"):
        export.main(["--input", str(folder)])
    assert (folder / "model.pt2").read_bytes() == b"the one before" and len(
        list(folder.iterdir())
    ) == 2


def test_onnx(run):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name}, an optional package, is not installed")
    folder, model = run
    export.main(["--input", str(folder), "--output", str(folder / "model.onnx")])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["answers"]) == ANSWERS
    images, questions = torch.randn(4, 3, 224, 224), torch.randint(0, len(WORDS) + 1, (4, 12))
    with torch.inference_mode():
        expected = model(images, questions).logits
        expected = expected.softmax(-1) if model.softmax else expected.sigmoid()
    assert torch.allclose(
        torch.from_numpy(
            session.run(None, {"images": images.numpy(), "questions": questions.numpy()})[0]
        ),
        expected,
        atol=1e-4,
    )


def test_errors(tmp_path, run):
    folder, _ = run
    with pytest.raises(UserError, match="ends in .pt2"):
        export.main(["--input", str(folder), "--output", str(folder / "model.bin")])
    state = torch.load(folder / "best.pth", weights_only=True)
    torch.save(state | {"question_only": True}, folder / "best.pth")
    with pytest.raises(UserError, match="--question_only"):
        export.main(["--input", str(folder)])
    with pytest.raises(UserError, match="no such"):
        export.main(["--input", str(folder / "none")])
