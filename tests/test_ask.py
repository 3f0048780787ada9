"""ask.py on a tiny untrained model: answers against engine.predict, DICOM against pictures computed by hand, errors, picture, page."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, SecondaryCaptureImageStorage

import ask
import engine
from base_model import VQAModel
from dataset_RAD import find_data
from utils import UserError, run_main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tiny):
    return find_data(tiny, say=lambda _: None)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """make(fusion, **what the checkpoint says otherwise) -> a run folder whose best.pth is as fit() writes it."""

    def make(fusion="CMSA", name=None, **other):
        folder = tmp_path_factory.mktemp("runs") / (name or fusion)
        torch.manual_seed(1)
        arguments = dict(
            fusion=fusion,
            ntoken=data.ntoken,
            num_answers=data.num_answers,
            hidden=32,
            word_dim=20,
            encoder="efficientnet_lite0",
            shared=True,
            softmax=other.pop("softmax", False),
        )
        model = VQAModel(**arguments)
        for module in model.image.encoders.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(
                    module.bias
                )  # as after training: a black image does not give empty maps
        folder.mkdir()
        torch.save(
            {
                "version": engine.VERSION,
                "epoch": 1,
                "best": 0.5,
                "model": model.state_dict(),
                "random": torch.get_rng_state(),
                "model_arguments": arguments,
                "dictionary": data.dictionary,
                "answers": data.answers,
                "question_len": 12,
                "data": data.about(),
                "identity": {},
                "split": "official",
                "frozen": True,
                "question_only": False,
                "val_fraction": 0.1,
                "seed": 0,
            }
            | other,
            folder / "best.pth",
        )
        return folder

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
        monkeypatch.setattr(
            sys,
            "argv",
            ["ask.py", *map(str, arguments), *([] if "--gpu" in arguments else ["--gpu", "-1"])],
        )
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main(ask.main)
        out, err = capfd.readouterr()
        return (
            stop.value.code,
            out,
            [line for line in err.splitlines() if line.startswith("error:")],
        )

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


@pytest.mark.parametrize(
    "fusion, other",
    [
        ("CMSA", {}),
        ("BAN", {"frozen": False}),
        ("SAN", {"frozen": False}),
        ("CMSA", {"question_only": True}),
        ("CMSA", {"question_only": True, "frozen": False}),
        ("CMSA", {"softmax": True}),
    ],
)
def test_answers_are_those_of_predict(fusion, other, runs, data, picture):
    question, file = picture
    model, kept = ask.load(runs(fusion, **other) / "best.pth")
    device, blank = torch.device("cpu"), kept["question_only"]
    maps = engine.encode_images(model.image, data, device) if kept["frozen"] else None
    organs = engine.organ_logits(model.image.image_type, data, device) if maps else None
    row = engine.predict(
        model, [question], engine.Inputs(data, device, maps, organs, blank=blank), device
    )[0]
    result = ask.answer(model, kept, ask.read_any_image(file), question.question, top=10**6)
    assert len(result["answers"]) == data.num_answers
    assert [text for text, _ in result["answers"][:3]] == [
        data.answers[i] for i in row.topk(3).indices
    ]
    np.testing.assert_allclose(
        [p for _, p in result["answers"]], row.sort(descending=True).values, atol=2e-6
    )
    assert (sum(p for _, p in result["answers"]) == pytest.approx(1, abs=1e-3)) == model.softmax
    if blank:
        assert result["image_type"] is None and any(
            "without images" in note for note in result["warnings"]
        )
    else:
        assert list(result["image_type"]) == ["abdomen", "head", "chest"] and sum(
            result["image_type"].values()
        ) == pytest.approx(1, abs=1e-5)


def test_what_is_printed(run, picture, call):
    question, file = picture
    code, out, errors = call(file, question.question, "--input", run, "--top", 3)
    lines = out.splitlines()
    assert (
        code == 0
        and not errors
        and lines[3].startswith("image type: ")
        and "trained on phantom set" in lines[4]
    )
    probabilities = [float(line.split()[-1]) for line in lines[:3]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert (
        any("PHANTOM SET" in line for line in lines[5:])
        and lines[-1] == "This is research software. It is not for diagnosis."
    )


def test_json_from_a_shell(run, picture):
    """One object and nothing else on stdout, whatever the words."""
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "ask.py",
            picture[1],
            b"is the \xff liver grey",
            "--input",
            run,
            "--json",
            "--gpu",
            "-1",
        ],
        capture_output=True,
        timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (
        len(result["answers"]) == 5
        and result["not_for_diagnosis"] is True
        and result["checkpoint"] == str(run / "best.pth")
    )
    assert (
        result["data"] == "phantom set"
        and result["unknown_words"]
        and set(result["image_type"]) == {"abdomen", "head", "chest"}
    )


def test_warnings(runs, data, picture):
    model, kept = ask.load(
        runs(data=data.about() | {"name": "VQA-RAD, processed split"}) / "best.pth"
    )
    image, word = ask.read_any_image(picture[1]), data.dictionary[0]
    last = model.image.image_type.fc[-1]
    with torch.no_grad():
        last.weight.zero_()
        model.classifier.main[-1].bias.fill_(9)
        last.bias.copy_(torch.tensor([0, 9.0, 0]))
        assert ask.answer(model, kept, image, word)["warnings"] == []
        last.bias.copy_(torch.tensor([0, 0.5, 0]))  # softmax 0.27, 0.45, 0.27
        assert (
            "uncertain (most likely head, 0.45)"
            in ask.answer(model, kept, image, word)["warnings"][0]
        )
        last.bias.copy_(torch.tensor([0, 9.0, 0]))
        result = ask.answer(model, kept, image, f"{word} Zyx, qwv? zyx")
        assert (
            result["unknown_words"] == ["zyx", "qwv"]
            and "zyx, qwv" in result["warnings"][0]
            and len(result["warnings"]) == 1
        )
        result = ask.answer(model, kept, image, " ".join([word] * 12 + ["left", "out"]))
        assert "12 words" in result["warnings"][0] and result["warnings"][0].endswith("left out")
        model.classifier.main[-1].bias.fill_(-9)
        assert "no answer is likely" in ask.answer(model, kept, image, word)["warnings"][0]


def test_the_newest_run_is_asked(run, runs, picture, call, fails, tmp_path, monkeypatch):
    monkeypatch.setattr(ask, "HERE", tmp_path)
    (tmp_path / "saved_models").mkdir()
    assert "train.sh" in fails(picture[1], "is it?")
    (tmp_path / "saved_models" / "mine").symlink_to(run)
    assert "saved_models/mine/best.pth" in call(picture[1], picture[0].question)[1]


# ---------------------------------------------------------------- DICOM


def write_dicom(path, stored, photometric="MONOCHROME2", frames=None, bits=16, **header):
    """A DICOM file of the stored values (H, W), (frames, H, W) or (H, W, 3), unsigned."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
        ExplicitVRLittleEndian,
        SecondaryCaptureImageStorage,
    )
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta, dataset.PhotometricInterpretation = meta, photometric
    colour = stored.shape[-1] == 3
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 3 if colour else 1, 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    if colour:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = frames
    for name, value in header.items():
        setattr(dataset, name, value)
    dataset.PixelData = stored.astype({8: "<u1", 16: "<u2"}[bits]).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def sequence(**header):
    item = pydicom.Dataset()
    for name, value in header.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


RAMP = np.tile(np.arange(224), (224, 1))  # stored values; at this size the resize changes nothing


def grey(values):
    """[0, 1] (224, 224) -> the expected picture."""
    return np.repeat(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None], 3, -1)


def test_a_ct_that_pydicom_ships():
    """128 x 128, no window: from the smallest to the largest value, rescaled or not, without the padding value."""
    path = get_testdata_file("CT_small.dcm", download=False)
    stored = pydicom.dcmread(path).pixel_array.astype(float)
    inside = stored[stored != pydicom.dcmread(path).get("PixelPaddingValue")]
    expected = np.rint(
        np.clip((stored - inside.min()) / (inside.max() - inside.min()), 0, 1) * 255
    ).astype(np.uint8)
    expected = np.asarray(Image.fromarray(expected).resize((224, 224), Image.Resampling.BILINEAR))
    image = ask.read_any_image(path)
    assert image.shape == (224, 224, 3) and image.dtype == np.uint8
    assert (image == expected[..., None]).all()


WINDOW = {
    "RescaleSlope": 2,
    "RescaleIntercept": -10,
    "WindowCenter": [50.5, 7],
    "WindowWidth": [101, 9],
}  # of value v: v / 100


@pytest.mark.parametrize(
    "photometric, header, expected",
    [
        ("MONOCHROME1", WINDOW, 1 - np.clip((2 * RAMP - 10) / 100, 0, 1)),
        ("MONOCHROME2", WINDOW, (2 * RAMP - 10) / 100),
        (
            "MONOCHROME2",
            WINDOW | {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 50, "WindowWidth": 100},
            (2 * RAMP - 10) / 100,
        ),
        (
            "MONOCHROME2",
            {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"},
            1 / (1 + np.exp(-4 * (RAMP - 100) / 50)),
        ),
        ("MONOCHROME1", {}, 1 - RAMP / 223),
        ("MONOCHROME2", {"PixelPaddingValue": 223}, RAMP / 222),
        (
            "MONOCHROME2",
            {
                "VOILUTSequence": sequence(
                    LUTDescriptor=[200, 10, 12],
                    LUTData=np.arange(4095, 95, -20).astype("<u2").tobytes(),
                )
            },
            (4095 - 20 * np.clip(RAMP - 10, 0, 199)) / 4095,
        ),
        (
            "MONOCHROME2",
            {
                "SharedFunctionalGroupsSequence": sequence(
                    FrameVOILUTSequence=sequence(WindowCenter=50.5, WindowWidth=101)
                )
            },
            RAMP / 100,
        ),
    ],
)
def test_grey_dicom_by_hand(photometric, header, expected, tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, photometric, **header)
    assert np.abs(ask.read_any_image(path).astype(int) - grey(expected)).max() <= 1


def test_frames_and_colours(tmp_path):
    stack = np.stack([RAMP * 0, RAMP, RAMP * 0])
    assert (
        ask.read_any_image(write_dicom(tmp_path / "stack", stack, frames=3)) == grey(RAMP / 223)
    ).all()
    colours = np.random.default_rng(0).integers(0, 256, (224, 224, 3))
    assert (
        ask.read_any_image(write_dicom(tmp_path / "rgb", colours, "RGB", bits=8)) == colours
    ).all()
    ybr = np.asarray(Image.fromarray(colours.astype(np.uint8)).convert("YCbCr"))
    assert (
        np.abs(
            ask.read_any_image(write_dicom(tmp_path / "ybr", ybr, "YBR_FULL", bits=8)).astype(int)
            - colours
        ).max()
        <= 3
    )


# ---------------------------------------------------------------- errors


def test_bad_images(run, picture, fails, tmp_path, monkeypatch):
    def line(path):
        return fails(path, "is it?", "--input", run)

    assert "not there" in line(tmp_path / "none.png") and "a folder" in line(tmp_path)
    (tmp_path / "cut.jpg").write_bytes(picture[1].read_bytes()[:500])
    (tmp_path / "text.dcm").write_text("a text")
    (tmp_path / "empty.png").touch()
    assert all("damaged" in line(tmp_path / name) for name in ("cut.jpg", "text.dcm", "empty.png"))
    Image.new("1", (10_000, 8_001)).save(tmp_path / "large.png")
    assert "80,000,000 pixels" in line(tmp_path / "large.png")

    good = write_dicom(tmp_path / "good", RAMP)
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-1000])
    assert "damaged" in line(tmp_path / "cut")
    dataset = pydicom.dcmread(good)
    dataset.Rows = dataset.Columns = 60_000
    dataset.save_as(tmp_path / "large")
    assert "80,000,000 pixels" in line(tmp_path / "large")
    dataset = pydicom.dcmread(good)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 100])
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.save_as(tmp_path / "compressed")
    assert "compressed (JPEG-LS" in line(tmp_path / "compressed")
    dataset = pydicom.dcmread(good)
    del dataset.Rows, dataset.PixelData
    dataset.Modality = "SR"
    dataset.save_as(tmp_path / "report")
    assert "without an image (SR)" in line(tmp_path / "report")
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    assert line(good).endswith("pip install pydicom")


def test_bad_questions_and_arguments(run, picture, fails, tmp_path):
    file = picture[1]
    for question in ("", "  ", "?"):
        assert "question is empty" in fails(file, question, "--input", run)
    assert "none of the question's words (zyx, qwv)" in fails(file, "Zyx qwv?", "--input", run)
    assert "wanted" in fails() and "wanted" in fails(file)
    assert "--top 0" in fails(file, "is it?", "--top", 0) and "--port 0" in fails(
        "--web", "--port", 0
    )
    assert "--web" in fails(file, "is it?", "--web")
    assert ".png" in fails(file, "is it?", "--show", "a.jpg") and "--gpu 99" in fails(
        file, "is it?", "--gpu", 99
    )


def test_bad_checkpoints(run, runs, picture, fails, tmp_path):
    file = picture[1]
    assert "no such" in fails(file, "is it?", "--input", tmp_path / "none")
    torch.save(
        {"model_state": {"w_emb.emb.weight": torch.zeros(3, 2)}, "epoch": 1},
        tmp_path / "official.pth",
    )
    assert "test.py --input can evaluate it" in fails(
        file, "is it?", "--input", tmp_path / "official.pth"
    )
    torch.save({"version": 1}, tmp_path / "other.pth")
    assert "not a checkpoint of this program" in fails(
        file, "is it?", "--input", tmp_path / "other.pth"
    )
    broken = runs(name="broken", model={})
    assert "other sizes" in fails(file, "is it?", "--input", broken)


# ---------------------------------------------------------------- the picture and the page


def test_the_maps_are_distributions_of_the_first_block(run, data, picture):
    model, kept = ask.load(run / "best.pth")
    word, image = data.dictionary[0], ask.read_any_image(picture[1])
    words, cells, others = ask.attention_maps(model, kept, image, f"{word} zyx {word}?")
    assert words == [word, "[zyx]", word] and cells.shape == (3, 7, 7) and others.shape == (3, 4)
    np.testing.assert_allclose(cells.sum((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(others.sum(1), 1, atol=1e-5)
    tokens, maps, organs = (
        torch.tensor([ask.read_question(kept, f"{word} zyx {word}")[0]]),
        *ask.see(model, kept, image),
    )
    with torch.inference_mode():
        states = model.q_emb(model.w_emb(tokens))
        p, r = model.cmsa.attention(model.image.mix(maps, organs), states, model.spatial)
    np.testing.assert_allclose(
        cells[2, 1, 3], p[0, 2, :, 10].mean(), rtol=1e-4
    )  # row 1, column 3 of the map is cell 10
    np.testing.assert_allclose(others[0, 3], r[0, 0, :, 3:].sum(-1).mean(), rtol=1e-4)


def test_show(run, runs, data, picture, call, fails, tmp_path):
    file, question = (
        picture[1],
        f"{data.dictionary[0]} $x^ \u75c5 {'long' * 9}",
    )  # no formula, a letter no font has, a long word
    code, out, _ = call(file, question, "--input", run, "--show", tmp_path / "new" / "where.png")
    assert code == 0 and f"written: {tmp_path}/new/where.png" in out
    with Image.open(tmp_path / "new" / "where.png") as drawn:
        assert (
            drawn.format == "PNG"
            and drawn.size == (1600, 820)
            and len(drawn.convert("RGB").getcolors(2**24)) > 500
        )
    assert [name.name for name in (tmp_path / "new").iterdir()] == ["where.png"]
    assert "needs a CMSA model" in fails(
        file, question, "--input", runs("SAN"), "--show", tmp_path / "san.png"
    )
    assert not (tmp_path / "san.png").exists()


def test_the_page_needs_gradio(run, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install gradio" in fails("--web", "--input", run)


@pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="Gradio, an optional package, is not installed: pip install gradio",
)
def test_the_page(run, runs, data, picture, tmp_path, monkeypatch):
    """Built, not launched: what its button gives; and with which settings it would be launched."""
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/etc")
    for fusion in ("CMSA", "SAN"):
        model, kept = ask.load((run if fusion == "CMSA" else runs(fusion)) / "best.pth")
        page = ask.build_page(model, kept, 3)
        reply = next(iter(page.fns.values())).fn
        answers, shown, notes = reply(str(picture[1]), picture[0].question)
        assert (
            len(answers) == 3
            and shown.shape == ((820, 1600, 3) if fusion == "CMSA" else (224, 224, 3))
            and "not for diagnosis" in notes
        )
        assert (
            reply(None, "is it?")[2].startswith("error:")
            and "is empty" in reply(str(picture[1]), None)[2]
        )
        (tmp_path / "bad.dcm").write_text("x")
        assert reply(str(tmp_path / "bad.dcm"), "is it?")[2].startswith(
            "error: bad.dcm can't be read"
        )

    launched = {}

    def launch(self, **settings):
        launched.update(settings | {"environment": dict(os.environ)})
        raise OSError("Cannot find empty port")

    monkeypatch.setattr("gradio.Blocks.launch", launch)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="--port 7000"):
        patch.setattr(os, "environ", dict(os.environ))
        patch.setattr("signal.signal", lambda *_: None)
        ask.serve(model, kept, 3, 7000)
    assert (
        launched["server_name"] == "127.0.0.1"
        and launched["share"] is False
        and launched["allowed_paths"] == []
    )
    assert (
        launched["max_file_size"] == 20 * 2**20
        and launched["environment"]["GRADIO_ANALYTICS_ENABLED"] == "False"
    )
    assert (
        "GRADIO_ALLOWED_PATHS" not in launched["environment"]
        and not Path(launched["environment"]["GRADIO_TEMP_DIR"]).exists()
    )
