"""tools/organ_results.py: figures against their definitions, results.json, the next step."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import train
from dataset_MTPT import Entry, OrganImages, in_order
from readers.organ_lists import Sample
from readers.weights import MTPT_FILES
from tools import organ_results
from utils import ORGAN_ENCODERS, UserError

CPU = torch.device("cpu")


class FixedModel(torch.nn.Module):
    """Gives `predictions` of so many classes, one an image, in place of a model's."""

    def __init__(self, predictions, classes):
        super().__init__()
        self.predictions, self.classes = list(predictions), classes

    def maps(self, images):
        return [torch.zeros(len(images), 512, 7, 7)]

    def decoder(self, maps):
        given = torch.stack([torch.as_tensor(self.predictions.pop(0)) for _ in maps[0]])
        return F.one_hot(given, self.classes).movedim(-1, 1).float()

    def compatible(self, visual, tokens):
        """A question fits when its first token is even."""
        return F.one_hot((tokens[:, 0] % 2 == 0).long(), 2).float()


def evaluate(predictions, samples, classes, copies=()):
    """`organ_results.evaluate` of fixed predictions."""
    task = "classification" if isinstance(samples[0].target, int) else "segmentation"
    about = {"organ": "chest", "task": task, "classes": classes, "val": samples, "copies": copies}
    held_out = in_order(OrganImages(samples, [2] * len(samples), [], augment=False), CPU)
    model = FixedModel(predictions, len(classes))
    return organ_results.evaluate(model, SimpleNamespace(**about), held_out, {}, "float32")


def save_masks(folder, masks):
    """Samples whose images are their masks."""
    for row, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / f"{row}.png")
    return [Sample(folder / f"{row}.png", folder / f"{row}.png") for row in range(len(masks))]


def test_iou_is_its_definition(tmp_path):
    """Over all held-out pixels; a class that no held-out mask has does not count in the mean."""
    rng = np.random.default_rng(0)
    # class 3 does not occur
    masks = [rng.integers(0, 3, (224, 224)).astype(np.uint8) for _ in range(3)]
    predictions = [
        np.where(rng.random(mask.shape) < 0.7, mask, rng.integers(0, 4, mask.shape))
        for mask in masks
    ]
    names = ["background", "a", "b", "c"]
    results, confusion, predicted = evaluate(predictions, save_masks(tmp_path, masks), names)
    truth, guess = np.stack(masks), np.stack(predictions)
    iou = []
    for c in range(3):
        both, either = (truth == c) & (guess == c), (truth == c) | (guess == c)
        iou.append(both.sum() / either.sum())
    assert results["mean_iou"] == pytest.approx(np.mean(iou), abs=1e-4)
    assert list(results["iou"].values())[:3] == pytest.approx(iou, abs=1e-4)
    assert results["iou"]["c"] is None
    assert results["mean_iou_without_background"] == pytest.approx(np.mean(iou[1:]), abs=1e-4)
    assert results["pixel_accuracy"] == pytest.approx((truth == guess).mean(), abs=1e-4)
    assert np.array_equal(torch.stack(predicted), guess)
    pairs = [[((truth == t) & (guess == g)).sum() for g in range(4)] for t in range(4)]
    assert confusion.tolist() == pairs == results["confusion"]


def test_a_mean_of_no_class_is_null(tmp_path):
    """Held-out masks may lose small organs when they are resized; results stay JSON."""
    samples = save_masks(tmp_path, [np.zeros((224, 224), np.uint8)])
    empty = torch.zeros(224, 224, dtype=torch.long)
    results = evaluate([empty], samples, ["background", "a", "b", "c"])[0]
    assert results["mean_iou"] == 1 and results["mean_iou_without_background"] is None
    assert results["iou"] == {"background": 1, "a": None, "b": None, "c": None}
    organ_results.save_results(tmp_path, "abdomen", {"results": results})
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["abdomen"]["results"] == results
    organ_results.save_results(tmp_path, "brain", {})
    assert set(organ_results.read_results(tmp_path)) == {"version", "abdomen", "brain"}
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(UserError, match="not a file of this program"):
        organ_results.read_results(tmp_path)


@pytest.mark.parametrize(
    "copies, without, words",
    [
        ({}, 0.5, "accuracy 50.0% on 4 held-out images"),
        ({1: 0, 2: 0}, 0.0, "50.0% on 4 held-out images (0.0% without the 2 that are copies"),
        ({0: 3}, 0.6667, "50.0% on 4 held-out images (66.7% without the 1 that are copies"),
        (dict.fromkeys(range(4), 0), None, "(nothing is left without the 4"),
    ],
)
def test_accuracy_without_copies(tmp_path, copies, without, words):
    Image.new("L", (30, 30)).save(tmp_path / "0.png")
    samples = [Sample(tmp_path / "0.png", target) for target in (0, 1, 1, 0)]
    results, confusion, _ = evaluate([1, 1, 1, 1], samples, ["a", "b"], copies)
    assert results["accuracy"] == 0.5 and results["copies"] == len(copies)
    assert results["accuracy_without_copies"] == without
    assert confusion.tolist() == [[0, 2], [0, 2]]
    assert words in organ_results.describe("chest", results)


def test_compatibility_by_hand():
    # asked of brain images (organ 1): yes yes no yes no; the model says yes no yes no yes
    organs = [{1}, {0, 1}, {2}, {1}, {0}]
    entries = [Entry((i,) * 12, frozenset(asked), "") for i, asked in enumerate(organs)]
    results = organ_results.evaluate_compatibility(
        FixedModel([], 2), torch.zeros(2, 512, 7, 7), entries, [1, 1], "float32", batch_size=2
    )
    assert results == {"accuracy": 0.2, "majority": 0.6, "pairs": 5}
    line = organ_results.describe(
        "brain", {"mean_iou": 0.5, "images": 2, "compatibility_new_questions": results}
    )
    assert line == (
        "brain: mean IoU 0.500 on 2 held-out images; compatibility, new questions: 20.0% "
        "(majority 60.0%)"
    )


def test_what_to_do_next(tmp_path, monkeypatch):
    """train.sh alone finds the default folder only, and takes three organs or none."""
    home, other = tmp_path / "saved_models" / "MTPT", tmp_path / "my folder"
    monkeypatch.setattr(organ_results, "HERE", tmp_path)
    for folder in (home, other):
        folder.mkdir(parents=True)
        (folder / "brain.pth").touch()
        words = "three organs or none, and abdomen and chest are not made yet"
        assert words in organ_results.next_step(folder)
        for organ in ORGAN_ENCODERS:
            (folder / f"{organ}.pth").touch()
    assert organ_results.next_step(home) == f"Next: {tmp_path / 'train.sh'}"
    words = shlex.split(organ_results.next_step(other))[2:]
    args, _ = train.parse_args(words)
    named = {name: getattr(args, name) for name in MTPT_FILES}
    organs = {name: other / file for name, file in list(MTPT_FILES.items())[:3]}
    assert named == organs | {"modal_classifier_path": None}
    # an encoder of VQA sets goes with the data that it was made for
    chosen = {"RAD_dir": other, "language": "zh", "organ_map": None}
    args, _ = train.parse_args(shlex.split(organ_results.next_step(other, ["vqa"], chosen))[2:])
    assert (args.encoder_path, args.RAD_dir) == (other / "vqa.pth", other)
    assert (args.language, args.organ_map) == ("zh", None)
