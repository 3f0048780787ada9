"""Image encoders and the whole models: CMSA, BAN and SAN (docs/METHOD.md section 2).

Every model is an image side, a question side, a fusion and a classifier, and takes plain numbers.
forward: images (B, 3, 224, 224) float32, ImageNet-normalised, and questions (B, 12) int64
-> VQAOutput.
"""

from typing import NamedTuple

import torch
from torch import nn

from attention import CMSA, BilinearAttention, StackedAttention, spatial_features
from classifier import AnswerClassifier
from extras import Gate
from image_type import ImageTypeClassifier
from language_model import QuestionEncoder, WordEmbedding
from utils import ORGANS

CHANNELS = {"resnet34": 512, "efficientnet_lite0": 1280}  # of an encoder's last map
# channels of an encoder's maps of 56, 28 and 14 px
SKIP_CHANNELS = {"resnet34": (64, 128, 256), "efficientnet_lite0": (24, 40, 112)}
VISUAL_DIM, CELLS, HIDDEN = 512, 49, 1024


class VQAOutput(NamedTuple):
    """logits (B, answers), organ_logits (B, 3) or None, features (B, 1024)."""

    logits: torch.Tensor
    organ_logits: torch.Tensor
    features: torch.Tensor


class ResNetEncoder(nn.Module):
    """torchvision's ResNet-34 without pooling and fc: (B, 3, 224, 224) -> (B, 512, 7, 7)."""

    def __init__(self):
        super().__init__()
        from torchvision.models import resnet34

        net = resnet34(weights=None)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(net, name))

    def forward(self, images):
        return self.skips(images)[-1]

    def skips(self, images):
        """The maps of all four stages, finest first; the last is `forward`'s.

        (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14), (B, 512, 7, 7).
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (B, 64, 56, 56)
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class EfficientNetEncoder(nn.Module):
    """EfficientNet-Lite0 without its head: (B, 3, 224, 224) -> (B, 1280, 7, 7).

    The network is that of the PyPI package efficientnet-lite-pytorch.
    """

    def __init__(self):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.net = EfficientNet.from_name("efficientnet-lite0")
        del self.net._fc
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                # PyTorch's; the package's 0.01 lags behind in a short pre-training
                module.momentum = 0.1

    def forward(self, images):
        return self.net.extract_features(images)

    def skips(self, images):
        """Four maps, finest first; the last is `forward`'s.

        (B, 24, 56, 56), (B, 40, 28, 28), (B, 112, 14, 14), (B, 1280, 7, 7). The first three are
        the inputs of the blocks that halve the map; hooks pick them up on the way.
        """
        maps = []
        halving = [b for b in self.net._blocks if b._block_args.stride in (2, [2])]
        hooks = [
            block.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
            for block in halving[1:]  # the first one halves 112 px
        ]
        try:
            last = self.net.extract_features(images)
        finally:
            for hook in hooks:
                hook.remove()
        return [*maps, last]


def make_encoder(name):
    """An image encoder with random weights, by name: "resnet34" or "efficientnet_lite0"."""
    return {"resnet34": ResNetEncoder, "efficientnet_lite0": EfficientNetEncoder}[name]()


def make_adapter(name):
    """A 1x1 convolution, BN, ReLU from an encoder's map to 512 channels, which ResNet-34 has."""
    if CHANNELS[name] == VISUAL_DIM:
        return nn.Identity()
    convolution = nn.Conv2d(CHANNELS[name], VISUAL_DIM, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(VISUAL_DIM), nn.ReLU())


class ImageSide(nn.Module):
    """Images to one map of 49 cells.

    With `distmodal`, the paper's way, each organ has an encoder, and the softmax of the
    image-type classifier mixes their maps. Without it there is a single encoder. An encoder of
    another width than 512 has an adapter behind it (`make_adapter`). Encoders that hold the
    same weights may be one shared module: `shared`. With `flatten` each map is flattened and
    projected to `flatten` channels, one "object" (BAN).
    """

    def __init__(self, encoder="resnet34", distmodal=True, shared=False, flatten=0):
        super().__init__()
        count = len(ORGANS) if distmodal else 1
        adapted = count if CHANNELS[encoder] != VISUAL_DIM else 0
        self.encoders = nn.ModuleList(make_encoder(encoder) for _ in range(1 if shared else count))
        self.image_type = ImageTypeClassifier() if distmodal else None
        self.adapters = nn.ModuleList(make_adapter(encoder) for _ in range(adapted))
        self.convert = nn.ModuleList(
            nn.Linear(VISUAL_DIM * CELLS, flatten) for _ in range(count if flatten else 0)
        )
        self.count = count

    def maps(self, images):
        """The maps of each distinct encoder: (B, E, width, 7, 7). Frozen training keeps them."""
        return torch.stack([encoder(images) for encoder in self.encoders], 1)

    def encode(self, images=None, maps=None, organ_logits=None):
        """Maps (B, E, width, 7, 7) and organ logits (B, 3), or None without a classifier.

        Images (B, 3, 224, 224) are needed for whichever of the two is not given.
        """
        if organ_logits is None and self.image_type is not None:
            organ_logits = self.image_type(images)
        return self.maps(images) if maps is None else maps, organ_logits

    def freeze(self):
        """Take encoders and image-type classifier out of training; the adapters stay in."""
        self.encoders.requires_grad_(False)
        if self.image_type is not None:
            self.image_type.requires_grad_(False)

    def mix(self, maps, organ_logits):
        """The fused image feature (B, 49, 512), or (B, 1, flatten) for BAN."""
        features = []
        for index in range(self.count):
            feature = maps[:, min(index, maps.shape[1] - 1)]  # (B, width, 7, 7)
            if self.adapters:
                feature = self.adapters[index](feature)  # (B, 512, 7, 7)
            if self.convert:
                features.append(self.convert[index](feature.flatten(1))[:, None])  # (B, 1, flatten)
            else:
                features.append(feature.flatten(2).transpose(1, 2))  # (B, 49, 512)
        if organ_logits is None:
            return features[0]
        weights = organ_logits.softmax(-1)  # (B, 3)
        return sum(weights[:, index, None, None] * one for index, one in enumerate(features))


class VQAModel(nn.Module):
    """The whole model (docs/METHOD.md section 2). `fusion` is "CMSA", "BAN" or "SAN".

    ntoken: words in the dictionary; num_answers: classes; word_dim: width of one word table;
    rnn: "LSTM" or "GRU"; blocks: of CMSA; use_spatial: CMSA's tokens carry the cells' place;
    num_stacks: of SAN; glimpses: of BAN; encoder, distmodal, shared: see ImageSide.
    Without an encoder (None) only `fuse` can be used: pre-training's compatibility head.
    word_dropout: share of the word embeddings' numbers that training leaves out.
    gate: add a product of image and question to CMSA's feature (extras.Gate).
    softmax: the answers exclude each other; else each has a probability of its own (the paper).
    """

    temperature = 1.0  # divides the logits; readers.checkpoints.make_model sets a run's own

    def __init__(
        self,
        fusion,
        ntoken,
        num_answers,
        word_dim=300,
        hidden=HIDDEN,
        rnn="LSTM",
        encoder="resnet34",
        distmodal=True,
        shared=False,
        use_spatial=True,
        blocks=2,
        num_stacks=2,
        glimpses=2,
        softmax=False,
        word_dropout=0.0,
        gate=False,
    ):
        super().__init__()
        self.fusion, self.softmax = fusion, softmax
        self.w_emb = WordEmbedding(ntoken, word_dim, word_dropout)
        self.q_emb = QuestionEncoder(2 * word_dim, hidden, rnn)
        flatten = hidden if fusion == "BAN" else 0
        self.image = ImageSide(encoder, distmodal, shared, flatten) if encoder else None
        if fusion == "CMSA":
            spatial = spatial_features(7, 7)[:, : 8 if use_spatial else 0]
            self.register_buffer("spatial", spatial, persistent=False)  # (49, 8) or (49, 0)
            self.cmsa = CMSA(VISUAL_DIM, hidden, spatial.shape[1], blocks)
            self.fc = nn.Linear(self.cmsa.channels, hidden)
            self.gate = Gate(VISUAL_DIM, hidden) if gate else None
        elif fusion == "BAN":
            self.ban = BilinearAttention(hidden, glimpses)
        else:
            self.san = StackedAttention(VISUAL_DIM, hidden, num_stacks)
        self.classifier = AnswerClassifier(hidden, 2 * HIDDEN, num_answers)

    def forward(self, images, questions, maps=None, organ_logits=None):
        """images (B, 3, 224, 224), questions (B, 12) -> VQAOutput.

        `maps` (B, E, width, 7, 7) stand in for the encoders, `organ_logits` (B, 3) for the
        image-type classifier. With both, `images` may be None.
        """
        maps, organ_logits = self.image.encode(images, maps, organ_logits)
        logits, features = self.fuse(self.image.mix(maps, organ_logits), questions)
        return VQAOutput(logits, organ_logits, features)

    def probabilities(self, logits, allowed=None):
        """Logits (B, answers) of any type -> probabilities, float32 of the same shape.

        allowed: B lists of bool, which answers the form rule allows; the others get 0.
        """
        logits = logits.float() / self.temperature
        if allowed is not None:
            allowed = torch.tensor(allowed, device=logits.device)  # (B, answers)
            logits = logits.masked_fill(~allowed, -torch.inf)
        return logits.softmax(-1) if self.softmax else logits.sigmoid()

    def fuse(self, visual, questions):
        """The fused image feature and questions (B, 12) -> logits (B, answers), features.

        visual: (B, 49, 512), or (B, 1, hidden) for BAN. features: (B, hidden).
        """
        # all states (B, 12, hidden); padding is read like any word
        words = self.q_emb(self.w_emb(questions))
        if self.fusion == "CMSA":
            features = (words + self.fc(self.cmsa(visual, words, self.spatial))).sum(1)
            if self.gate is not None:
                features = features + self.gate(visual, words)
        elif self.fusion == "BAN":
            features = self.ban(visual, words)
        else:
            features = self.san(visual, words[:, -1])
        return self.classifier(features), features  # (B, answers), (B, hidden)


def load_official(state_dict):
    """An official checkpoint as a VQAModel in eval mode; see readers/official.py."""
    from readers import official  # it imports this file

    return official.load_official(state_dict)


def load_official_pretraining(parts):
    """An official pre-training checkpoint as a PretrainingModel; see readers/official.py."""
    from readers import official

    return official.load_official_pretraining(parts)
