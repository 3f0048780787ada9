"""tools/plots.py: pictures of any number of classes, whatever their names."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tools.plots import draw_confusion, draw_masks


def organ_set(task, count):
    """A set of so many classes, one of whose names would be a formula."""
    names = ["background", "$x_{", *(f"class {i}" for i in range(2, count))]
    return SimpleNamespace(organ="abdomen", task=task, classes=names[:count], phantom=True)


def test_masks(tmp_path):
    one = organ_set("segmentation", 4)
    pairs = [
        (torch.zeros(224, 224, 3, dtype=torch.uint8), torch.randint(4, (224, 224)))
        for _ in range(2)
    ]
    results = {"iou": dict(zip(one.classes, (0.9, 0.25, None, 0.0))), "mean_iou": 0.38}
    draw_masks(tmp_path / "masks.png", one, pairs, [mask for _, mask in pairs], results)
    with Image.open(tmp_path / "masks.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
        # the background is black, the classes have colours
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
        assert {(0, 0, 0), (31, 119, 180), (174, 199, 232)} <= colours
    assert [path.name for path in tmp_path.iterdir()] == ["masks.png"]


@pytest.mark.parametrize("task, count", [("classification", 2), ("segmentation", 14), ("x", 60)])
def test_confusion(task, count, tmp_path):
    table = torch.randint(1000, (count, count))
    table[0] = 0  # a class that does not occur
    draw_confusion(tmp_path / "confusion.png", organ_set(task, count), table)
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
