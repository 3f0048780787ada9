"""The page of ask.py --web: what its parts give, its examples, the settings of a launch."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from saved_runs import save_run, small_model

import ask
from tools import ask_page
from utils import UserError

WORDS, ANSWERS = ["is", "normal", "there"], ["yes", "no", "left lung"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two runs."""
    folder = tmp_path_factory.mktemp("runs")
    about = {"name": "phantom set", "digest": "0", "folder": "/nonexistent"}
    for fusion in ("CMSA", "SAN"):
        model, made_with = small_model(len(WORDS), len(ANSWERS), fusion=fusion)
        names = {"dictionary": WORDS, "answers": ANSWERS, "about": about}
        save_run(folder / fusion, model, made_with, **names)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return path


def test_pictures():
    """The map lies beside the image, not over it; all words have one scale."""
    image, falls = Image.new("RGB", (10, 10), (100, 100, 100)), np.zeros((7, 7), np.float32)
    falls[0, 0] = 1
    shown = ask_page.beside(image, falls)
    assert shown.shape == (448, 904, 3) and (shown[:, :448] == 100).all()
    assert (shown[:, 448:456] == 0).all() and shown[0, 456, 0] > 150 > shown[-1, -1, 0]
    cells = np.full((2, 7, 7), 1 / 49)
    cells[0] = np.eye(7) / 7  # seven times an even spread
    (first, word), (second, _) = ask_page.word_pictures(np.asarray(image), ["a", "b"], cells)
    assert word == "a" and first[0, 0, 0] > 200 and second.max() < 130


def test_examples_are_of_the_data_set(tiny):
    """None where its folder is gone."""
    found = ask_page.examples({"data": {"folder": str(tiny)}})
    assert len(found) == 4 and all(Path(path).is_file() and text for path, text in found)
    assert ask_page.examples({"data": {"folder": "/nonexistent"}}) == []


@pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="Gradio, an optional package, is not installed: pip install gradio",
)
def test_the_page(runs, picture, tmp_path, monkeypatch):
    """Built, not launched: what its button gives, and the settings of a launch."""
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/etc")
    (tmp_path / "bad.dcm").write_text("x")
    gradio = importlib.import_module("gradio")
    for fusion in ("CMSA", "SAN"):
        model, kept = ask.load(runs / fusion)
        page = ask_page.build_page(model, kept, 3)
        # no button sends a picture away, and none vanishes while the page is open
        buttons = [one.buttons for one in page.blocks.values() if getattr(one, "buttons", None)]
        assert ["fullscreen", "download"] in buttons
        assert all("share" not in some for some in buttons)
        assert page.delete_cache is None
        preview, reply = (one.fn for one in list(page.fns.values())[-3:-1])
        assert preview(str(picture)).shape == (448, 448, 3) and preview(None) is None
        encode, encoded = ask.encode_picture, []
        with monkeypatch.context() as patch:
            patch.setattr(ask, "encode_picture", lambda *a: encoded.append(1) or encode(*a))
            warnings, answers, notes, shown, sentence, *look = reply(str(picture), "is it normal?")
        assert len(encoded) == 1
        assert len(answers) == 3 and shown.shape == (448, 904, 3) and "not for diagnosis" in notes
        assert warnings["visible"] and "PHANTOM SET" in warnings["value"]
        assert "PHANTOM SET" not in notes and sentence.startswith("Blanking ")
        assert len(look) == (2 if fusion == "CMSA" else 0)
        if look:
            assert [word for _, word in look[0]] == ["is", "[it]", "normal"]
            assert "of 3 word maps" in look[1]
        paged = tmp_path / "paged.tif"
        with Image.open(picture) as image:
            image.save(paged, save_all=True, append_images=[image])
        assert "NOTE: one of several frames" in reply(str(paged), "is it?")[2]
        bad = str(tmp_path / "bad.dcm")
        for file, question, said in (
            (None, "is it?", "an image is wanted"),
            (str(picture), None, "is empty"),
            (bad, "is it?", "bad.dcm can't be used"),
        ):
            with pytest.raises(gradio.Error, match=f"^.?{said}" if file == bad else said):
                reply(file, question)
        with pytest.raises(gradio.Error, match="can't be used"):
            preview(bad)

    monkeypatch.setattr(gradio, "__version__", "5.9.1")
    with pytest.raises(UserError, match="Gradio 6 is wanted, not 5.9.1"):
        ask_page.build_page(model, kept, 3)
    monkeypatch.undo()
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/etc")

    launched = {}

    def launch(self, **settings):
        launched.update(settings | {"environment": dict(os.environ)})
        raise OSError("Cannot find empty port")

    monkeypatch.setattr("gradio.Blocks.launch", launch)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="--port 7000"):
        patch.setattr(os, "environ", dict(os.environ))
        patch.setattr("signal.signal", lambda *_: None)
        ask_page.serve(model, kept, 3, 7000)
    environment = launched["environment"]
    assert launched["server_name"] == "127.0.0.1" and launched["share"] is False
    assert launched["allowed_paths"] == [] and launched["max_file_size"] == 20 * 2**20
    assert environment["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert "GRADIO_ALLOWED_PATHS" not in environment
    assert not Path(environment["GRADIO_TEMP_DIR"]).exists()
