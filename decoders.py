"""Pre-training's decoders, model and loss (docs/METHOD.md sections 5 and 5.1).

One organ's encoder learns an image task, and beside it whether a question fits the image.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from base_model import HIDDEN, SKIP_CHANNELS, VISUAL_DIM, VQAModel, make_adapter, make_encoder

DECODER_CHANNELS = SKIP_CHANNELS["resnet34"]  # of the decoder's maps of 56, 28 and 14 px


class PretrainingOutput(NamedTuple):
    """The two heads' logits.

    task_logits: (B, classes), for segmentation (B, classes, 224, 224), for labels
    LabelDecoder's log-probabilities (B, labels).
    compatibility_logits: (B, 2), or None without questions.
    """

    task_logits: torch.Tensor
    compatibility_logits: torch.Tensor


class DeconvolutionBlock(nn.Sequential):
    """(B, size_in, H, W) -> (B, size_out, 2H, 2W).

    A 1x1 convolution to a quarter of the channels, a 3x3 transposed one of stride 2, a 1x1 one;
    BN and ReLU follow each.
    """

    def __init__(self, size_in, size_out):
        super().__init__()
        quarter = size_in // 4
        layers = (
            ("conv1", "norm1", "relu1", nn.Conv2d(size_in, quarter, 1)),
            (
                "deconv2",
                "norm2",
                "relu2",
                nn.ConvTranspose2d(quarter, quarter, 3, stride=2, padding=1, output_padding=1),
            ),
            ("conv3", "norm3", "relu3", nn.Conv2d(quarter, size_out, 1)),
        )
        for convolution, norm, relu, layer in layers:
            self.add_module(convolution, layer)
            self.add_module(norm, nn.BatchNorm2d(layer.out_channels))
            self.add_module(relu, nn.ReLU())


class SegmentationDecoder(nn.Module):
    """An encoder's four maps, the last of 512 channels, to class logits (B, classes, 224, 224).

    skips: channels of the encoder's maps of 56, 28 and 14 px. A 1x1 convolution brings a map of
    another width than ResNet-34's to the decoder's.
    """

    def __init__(self, classes, skips=DECODER_CHANNELS):
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1)
            for ours, theirs in zip(skips, DECODER_CHANNELS)
        )
        self.decoder4 = DeconvolutionBlock(512, 256)
        self.decoder3 = DeconvolutionBlock(256, 128)
        self.decoder2 = DeconvolutionBlock(128, 64)
        self.decoder1 = DeconvolutionBlock(64, 64)
        self.final_deconv1 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.final_conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.final_conv3 = nn.Conv2d(32, classes, 3, padding=1)

    def forward(self, maps):
        # (B, 64, 56, 56), (B, 128, 28, 28), (B, 256, 14, 14)
        first, second, third = (lateral(skip) for lateral, skip in zip(self.lateral, maps))
        x = self.decoder4(maps[-1]) + third  # (B, 256, 14, 14)
        x = self.decoder3(x) + second  # (B, 128, 28, 28)
        x = self.decoder2(x) + first  # (B, 64, 56, 56)
        x = self.decoder1(x)  # (B, 64, 112, 112)
        x = torch.relu(self.final_deconv1(x))  # (B, 32, 224, 224)
        return self.final_conv3(torch.relu(self.final_conv2(x)))


class ClassificationDecoder(nn.Module):
    """An encoder's maps, the last (B, 512, 7, 7), to class logits (B, classes).

    Global average pooling, then 512-1024-512-classes with BN, ReLU and dropout.
    """

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


class LabelDecoder(nn.Module):
    """An encoder's maps, the last (B, 512, 7, 7), to log-probabilities (B, labels) of all tasks.

    sizes: the number of each task's labels, which exclude each other. Global average pooling and
    one linear layer leave the work to the encoder.
    """

    def __init__(self, sizes):
        super().__init__()
        self.sizes = list(sizes)
        self.fc = nn.Linear(VISUAL_DIM, sum(sizes))

    def forward(self, maps):
        logits = self.fc(maps[-1].mean((2, 3))).float()  # (B, labels)
        return torch.cat([one.log_softmax(1) for one in logits.split(self.sizes, 1)], 1)


class PretrainingModel(nn.Module):
    """An encoder with two heads: its image task and question-image compatibility.

    task: "segmentation" or "classification", or "labels", whose `classes` is LabelDecoder's list.
    The compatibility head is the question side, CMSA
    and the classifier of VQAModel, whose arguments have the same names here. Without
    `compatibility` there is the image task alone (an ablation).
    """

    near_start = False  # set where labels train an encoder that starts from ImageNet

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
        if task == "segmentation":
            self.decoder = SegmentationDecoder(classes, SKIP_CHANNELS[encoder])
        elif task == "labels":
            self.decoder = LabelDecoder(classes)
        else:
            self.decoder = ClassificationDecoder(classes)
        self.compatibility = None
        if compatibility:
            self.compatibility = VQAModel(
                fusion="CMSA",
                ntoken=ntoken,
                num_answers=2,
                word_dim=word_dim,
                hidden=hidden,
                rnn=rnn,
                encoder=None,
                use_spatial=use_spatial,
                blocks=blocks,
            )

    def train(self, mode=True):
        """As nn.Module.train; with `near_start` the encoder's batch norms keep their statistics."""
        super().train(mode)
        if self.near_start:
            self.encoder.eval()
        return self

    def forward(self, images, questions=None):
        """images (B, 3, 224, 224), questions (B, 12) or None -> PretrainingOutput."""
        maps = self.maps(images)
        task_logits = self.decoder(maps)
        fits = None if questions is None else self.compatible(maps[-1], questions)
        return PretrainingOutput(task_logits, fits)

    def maps(self, images):
        """The encoder's four maps, finest first; the last one behind the adapter.

        (B, _, 56, 56), (B, _, 28, 28), (B, _, 14, 14), (B, 512, 7, 7).
        """
        maps = self.encoder.skips(images)
        return [*maps[:-1], self.adapter(maps[-1])]

    def compatible(self, visual, questions):
        """The last map (B, 512, 7, 7) and questions (B, 12) -> logits (B, 2).

        They stand for "asked of another organ" and "asked of this organ".
        """
        return self.compatibility.fuse(visual.flatten(2).transpose(1, 2), questions)[0]


def pretraining_loss(output, targets, compatible):
    """Cross-entropy of the image task + cross-entropy of compatibility, means over the batch.

    targets: classes (B,), or masks (B, 224, 224) whose mean runs over the pixels too, int64; or
    shares of labels (B, labels), float32, whose cross-entropies are added up over the tasks.
    compatible: 0 or 1 (B,), int64, or -100, which adds nothing, for an image of no known organ.
    """
    if targets.is_floating_point():
        loss = -(targets * output.task_logits).sum(1).mean()
    else:
        loss = F.cross_entropy(output.task_logits.float(), targets)
    if output.compatibility_logits is not None:
        logits = output.compatibility_logits.float()
        loss = loss + F.cross_entropy(logits, compatible, reduction="sum") / len(compatible)
    return loss
