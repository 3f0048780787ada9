"""base_model.py: every kind of model is built, trains, and takes maps in place of images."""

import math

import pytest
import torch

from base_model import CHANNELS, VQAModel, make_encoder
from engine import vqa_loss


@pytest.fixture
def small_resnet(monkeypatch):
    """One convolution stands for ResNet-34: the models around it are what is tested."""

    def make(name):
        if name != "resnet34":
            return make_encoder(name)
        return torch.nn.Conv2d(3, CHANNELS[name], 32, stride=32)  # (B, 512, 7, 7)

    monkeypatch.setattr("base_model.make_encoder", make)


def check_training(fusion, **options):
    """A model's shapes, that all of its parts are trained, and that maps stand for images."""
    torch.manual_seed(0)
    sizes = dict(ntoken=20, num_answers=7, word_dim=10, hidden=64)
    model = VQAModel(fusion, **sizes, **options)
    images, questions = torch.randn(2, 3, 224, 224), torch.randint(0, 21, (2, 12))
    output = model(images, questions)
    assert output.logits.shape == (2, 7) and output.features.shape == (2, 64)
    distmodal = options.get("distmodal", True)
    assert (output.organ_logits is None) == (not distmodal)
    vqa_loss(output, torch.tensor([3, -1]), torch.tensor([0, 2])).backward()
    # a BN takes out what the bias before it adds
    wanted = [p for p in model.named_parameters() if p[1].requires_grad]
    missing = {name for name, p in wanted if p.grad is None}
    assert all(name.endswith("W.bias") for name in missing)
    model.eval()
    with torch.no_grad():
        maps, organ_logits = model.image.encode(images)
        whole = model(images, questions)
        for again in (
            model(None, questions, maps, organ_logits),
            model(images, questions, maps),
            model(None if not distmodal else images, questions, maps=maps),
        ):
            torch.testing.assert_close(again.logits, whole.logits, atol=1e-5, rtol=1e-5)
    return model


@pytest.mark.parametrize(
    "fusion, options",
    [
        ("CMSA", {}),
        ("CMSA", {"blocks": 1}),
        ("CMSA", {"use_spatial": False}),
        ("CMSA", {"distmodal": False}),
        ("CMSA", {"rnn": "GRU"}),
        ("CMSA", {"encoder": "efficientnet_lite0", "shared": True}),
        ("BAN", {}),
        ("BAN", {"glimpses": 3, "distmodal": False}),
        ("SAN", {}),
        ("SAN", {"num_stacks": 1, "rnn": "GRU"}),
    ],
)
def test_every_model_trains(fusion, options, small_resnet):
    model = check_training(fusion, **options)
    single = "shared" in options or options.get("distmodal") is False
    assert len(model.image.encoders) == (1 if single else 3)
    assert len(model.image.adapters) == (3 if "encoder" in options else 0)


@pytest.mark.parametrize("encoder", CHANNELS)
def test_every_encoder_trains(encoder):
    check_training("CMSA", encoder=encoder, distmodal=False)


def test_encoders_give_7_by_7():
    for name, width in CHANNELS.items():
        with torch.inference_mode():
            assert make_encoder(name).eval()(torch.zeros(1, 3, 224, 224)).shape == (1, width, 7, 7)


def test_the_image_type_mixes_the_organs_maps(small_resnet):
    """Against a weighted sum written out; organ logits that are sure leave one encoder's map."""
    torch.manual_seed(0)
    image = VQAModel("SAN", ntoken=5, num_answers=3, word_dim=4, hidden=8).image.eval()
    maps, logits = torch.randn(2, 3, 512, 7, 7), torch.randn(2, 3)
    mixed = image.mix(maps, logits)
    weights = logits.exp() / logits.exp().sum(1, keepdim=True)
    for sample, row, column in ((0, 0, 0), (1, 2, 5)):
        by_hand = sum(weights[sample, i] * maps[sample, i, :, row, column] for i in range(3))
        torch.testing.assert_close(mixed[sample, 7 * row + column], by_hand)
    sure = torch.tensor([[0.0, 100.0, 0.0]] * 2)
    expected = maps[:, 1].flatten(2).transpose(1, 2)  # (B, 49, 512)
    torch.testing.assert_close(image.mix(maps, sure), expected)


def test_frozen_image_sides_keep_their_adapters_in_training():
    model = VQAModel(
        "SAN", ntoken=5, num_answers=3, word_dim=4, hidden=8, encoder="efficientnet_lite0"
    )
    model.image.freeze()
    frozen = {name for name, p in model.image.named_parameters() if not p.requires_grad}
    trained = {name for name, p in model.image.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in frozen} == {"encoders", "image_type"}
    assert {name.partition(".")[0] for name in trained} == {"adapters"}


def test_probabilities_of_both_losses():
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    sizes = dict(ntoken=5, num_answers=3, word_dim=4, hidden=8, encoder=None)
    sigmoid, softmax = (
        VQAModel("CMSA", **sizes, softmax=kind).probabilities(logits)[0].tolist()
        for kind in (False, True)
    )
    assert sigmoid == pytest.approx([1 / (1 + math.exp(-x)) for x in (0, 2, -1)])
    total = 1 + math.exp(2) + math.exp(-1)
    assert softmax == pytest.approx([1 / total, math.exp(2) / total, math.exp(-1) / total])
