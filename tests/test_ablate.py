"""tools/ablate.py: its settings, its stand-in model, and that it never looks at test questions."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from dataset_RAD import find_data
from tools import ablate
from utils import UserError


def test_settings():
    assert ablate.read_settings("base") == ablate.BASE
    changed = ablate.read_settings("loss=bce label_smoothing=0 epochs=3")
    differ = {"loss": "bce", "label_smoothing": 0.0, "epochs": 3}
    assert changed == ablate.BASE | differ
    for wrong in (
        "epoc=3",
        "epochs=many",
        "loss=mse",
        "schedule=none",
        "batch_size=1",
        "epochs=0",
        "epochs",
        "image=7",
        "lr=-1",
        "dropout=nan",
        "label_smoothing=2",
    ):
        with pytest.raises(UserError, match=wrong):
            ablate.read_settings(wrong)


def test_the_stand_in_sees_the_image_only_where_it_may():
    torch.manual_seed(0)
    questions, (one, other) = torch.randint(0, 6, (4, 12)), torch.randn(2, 4, 10)
    for image in (0, 1):
        settings = ablate.BASE | {"width": 8, "image": image}
        model = ablate.SmallModel((5, 3, 4), settings, channels=10).eval()
        same = torch.allclose(model(one, questions).logits, model(other, questions).logits)
        assert same == (not image) and model(one, questions).logits.shape == (4, 3)


def test_a_table_without_a_look_at_the_test_questions(tiny, tmp_path, monkeypatch, capsys):
    data = replace(find_data(tiny, log=lambda _: None), test=None)
    asked = []
    monkeypatch.setattr(
        ablate, "find_data", lambda folder, options, **_: asked.append(options) or data
    )
    rows = ["epochs=2 width=32", "epochs=2 width=32", "epochs=1 width=16 image=0"]
    options = ["--draws", "2", "--gpu", "-1", "--json", str(tmp_path / "table.json")]
    options += ["--language", "zh"]
    monkeypatch.setattr(sys, "argv", ["ablate.py", *options, *rows])
    ablate.main()
    assert asked[0]["language"] == "zh" and asked[0]["categories"] == "three"
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| epochs")]
    found = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["changes"] for row in found] == rows and len(printed) == 3
    # the seed decides everything
    assert found[0]["scores"] == found[1]["scores"] != found[2]["scores"]
    scores = [row["scores"] for row in found]
    assert all(0 <= one <= 100 for row in scores for group in row.values() for one in group)
    first, last = (sum(row["freeform"]) / 2 for row in (scores[0], scores[2]))
    assert f"| {first:.1f} |" in printed[0] and "(+0.0 ± 0.0)" in printed[1]
    assert f"| {last:.1f} ({last - first:+.1f} ±" in printed[2]


def test_a_group_without_questions():
    assert ablate.cell([float("nan")] * 2, [float("nan")] * 2, True) == "-"
