"""decoders.py: shapes, gradients, and the loss by hand."""

import numpy as np
import pytest
import torch

from base_model import make_encoder
from decoders import LabelDecoder, PretrainingModel, PretrainingOutput, pretraining_loss


@pytest.mark.parametrize(
    "task, classes", [("segmentation", 6), ("classification", 4), ("labels", [2, 3])]
)
@pytest.mark.parametrize("encoder", ["resnet34", "efficientnet_lite0"])
def test_every_pretraining_model_trains(task, classes, encoder):
    torch.manual_seed(0)
    model = PretrainingModel(task, classes, ntoken=20, word_dim=10, hidden=32, encoder=encoder)
    images, questions = torch.randn(2, 3, 224, 224), torch.randint(0, 21, (2, 12))
    output = model(images, questions)
    size = (224, 224) if task == "segmentation" else ()
    assert output.task_logits.shape == (2, np.sum(classes), *size)
    assert output.compatibility_logits.shape == (2, 2)
    (output.task_logits.square().mean() + output.compatibility_logits.square().mean()).backward()
    for name, parameter in model.named_parameters():
        # a bias before a batch norm cancels
        ignored = not parameter.requires_grad or name.endswith("W.bias")
        assert ignored or parameter.grad is not None, name


def test_efficientnet_maps_have_their_sizes_and_end_in_its_features():
    encoder = make_encoder("efficientnet_lite0").eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        maps = encoder.skips(images)
        shapes = [tuple(one.shape[1:]) for one in maps]
        assert shapes == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (1280, 7, 7)]
        assert torch.equal(maps[-1], encoder(images))


def test_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    output = PretrainingOutput(logits, torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    classes, compatible = torch.tensor([2, 0]), torch.tensor([0, 0])
    task = (-np.log(np.e / (np.e**2 + 1 + np.e)) - np.log(1 / 3)) / 2
    compatibility = (np.log(1 + np.exp(-1)) + np.log(1 + np.exp(3))) / 2
    loss = pretraining_loss(output, classes, compatible)
    assert loss.item() == pytest.approx(task + compatibility, rel=1e-6)
    alone = pretraining_loss(PretrainingOutput(logits, None), classes, compatible)
    assert alone.item() == pytest.approx(task, rel=1e-6)


def test_loss_of_labels_by_hand():
    """Two tasks of 2 and 3 labels; the second image has the second task alone, and no organ."""
    decoder = LabelDecoder([2, 3])
    torch.nn.init.zeros_(decoder.fc.weight)
    decoder.fc.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0, 2.0])
    output = PretrainingOutput(decoder([torch.ones(2, 512, 7, 7)]), torch.tensor([[1.0, 0.0]] * 2))
    targets = torch.tensor([[1.0, 0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0, 0.0]])
    first, rare, likely = np.log(1 + np.e), np.log(2 + np.e**2), np.log(2 + np.e**2) - 2
    labels = (first + (rare + likely) / 2 + rare) / 2
    fits = np.log(1 + np.e) / 2  # a mean over both images
    loss = pretraining_loss(output, targets, torch.tensor([1, -100]))
    assert loss.item() == pytest.approx(labels + fits, rel=1e-6)
    alone = pretraining_loss(output, targets, torch.tensor([-100, -100]))
    assert alone.item() == pytest.approx(labels, rel=1e-6)
