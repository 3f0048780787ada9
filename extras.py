"""What is not in the paper: the tuned recipe's gate, prior and idf weights (docs/TUNED.md).

VQAModel knows the gate as one of its parts. It knows nothing of the prior, which wraps it.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from classifier import AnswerClassifier
from language_model import QuestionEncoder, WordEmbedding

# chosen on validation questions (docs/TUNED.md)
PRIOR_WEIGHT, PRIOR_COMPONENTS, PRIOR_NOISE = 0.5, 16, 0.5
PRIOR_WIDTH, PRIOR_CLASSIFIER = 512, 1024


def idf_weights(questions, ntoken):
    """Inverse document frequency of each word: float32 (ntoken,), scaled to a mean of 1.

    log(questions / questions with the word). Word vectors times these weights let "ascites"
    count for more than "is there".
    """
    found = Counter(token for question in questions for token in set(question.tokens))
    weights = np.log([len(questions) / max(found[token], 1) for token in range(ntoken)])
    if not weights.any():
        return np.ones(ntoken, np.float32)
    return (weights / weights.mean()).astype(np.float32)


class Gate(nn.Module):
    """tanh(MLP(mean over cells of v)) * tanh(U sum over words of l).

    visual (B, 49, width), words (B, T, hidden) -> (B, hidden). CMSA's feature is a sum of image
    terms and word terms, and the two interact only through attention weights; the gate adds a
    product.
    """

    def __init__(self, width, hidden):
        super().__init__()
        self.image_mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.word_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())

    def forward(self, visual, words):
        return self.image_mlp(visual.mean(1)) * self.word_mlp(words.sum(1))


class QuestionPrior(nn.Module):
    """Answer logits (B, answers) from the question and a coarse description of the image.

    It has word vectors, an LSTM and a classifier of its own, and a product of both sides as in
    `Gate`. The description is the probabilities of the image types (B, organs) where `organs`
    is above 0, and the first `components` principal components of the image's mean cell. In
    training the components carry noise of PRIOR_NOISE deviations. They tell modality and plane,
    but hardly one image from another.
    channels: width of a mean cell.
    """

    def __init__(
        self, ntoken, num_answers, word_dim, word_dropout, organs=0, components=0, channels=0
    ):
        super().__init__()
        width = PRIOR_WIDTH
        self.w_emb = WordEmbedding(ntoken, word_dim, word_dropout)
        self.q_emb = QuestionEncoder(2 * word_dim, width)
        seen = organs + components
        self.image_mlp = nn.Sequential(nn.Linear(seen, width), nn.Tanh()) if seen else None
        self.word_mlp = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if seen else None
        self.classifier = AnswerClassifier(width, PRIOR_CLASSIFIER, num_answers)
        self.organs, self.components = organs, components
        if components:
            self.register_buffer("center", torch.zeros(channels))
            self.register_buffer("directions", torch.zeros(channels, components))

    @torch.no_grad()
    def find_components(self, cells):
        """Principal components of mean cells (N, channels), each channel over its deviation.

        Missing components (fewer images than components) stay zero.
        """
        deviation = cells.std(0, correction=0)
        standard = (cells - cells.mean(0)) / deviation.clamp_min(1e-6)  # (N, channels)
        # R = min(N, channels) sizes (R,) and directions (R, channels)
        _, sizes, directions = torch.linalg.svd(standard, full_matrices=False)
        count = min(self.components, int((sizes > 1e-4 * sizes[0]).sum()))
        scale = sizes[:count] / len(cells) ** 0.5  # the deviation of each component
        self.center.copy_(cells.mean(0))
        self.directions.zero_()
        per_channel = directions[:count].T / deviation.clamp_min(1e-6)[:, None]
        self.directions[:, :count] = per_channel / scale

    def forward(self, questions, organs=None, cells=None):
        """questions (B, T), organs (B, organs), cells (B, channels) -> (B, answers)."""
        words = self.q_emb(self.w_emb(questions)).sum(1)  # (B, width)
        seen = [organs] if self.organs else []
        if self.components:
            components = (cells - self.center) @ self.directions  # (B, components)
            if self.training:
                components = components + PRIOR_NOISE * torch.randn_like(components)
            seen.append(components)
        if seen:
            words = words + self.image_mlp(torch.cat(seen, 1)) * self.word_mlp(words)
        return self.classifier(words)


@torch.no_grad()
def mean_cells(image_side, inputs, rows, batch_size=32):
    """The mean over encoders and cells of some images' maps, encoders in eval mode: (rows, width).

    The tuned recipe's prior finds its components in them (QuestionPrior).
    """
    was_training = image_side.training
    image_side.eval()
    cells = []
    for start in range(0, len(rows), batch_size):
        seen = inputs(rows[start : start + batch_size])
        maps = image_side.maps(seen["images"]) if seen["maps"] is None else seen["maps"]
        cells.append(maps.float().mean((1, 3, 4)))  # of (B, E, width, 7, 7)
    image_side.train(was_training)
    return torch.cat(cells)


class PriorOutput(NamedTuple):
    """VQAOutput with the prior's logits (B, answers), which have a loss of their own."""

    logits: torch.Tensor
    organ_logits: torch.Tensor
    features: torch.Tensor
    prior_logits: torch.Tensor


class WithPrior(nn.Module):
    """A VQAModel whose answers are multiplied by those of a QuestionPrior.

    log p = log p(model) + PRIOR_WEIGHT * log p(prior): a product of experts. It stops answers
    memorised for an image from being given to the wrong kind of question. The two are trained
    apart: in training mode forward gives a PriorOutput.
    """

    def __init__(self, model, prior):
        super().__init__()
        self.model, self.prior = model, prior

    def __getattr__(self, name):
        """The wrapper has the model's parts (`image`, `fusion`, `probabilities`, ...)."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, images, questions, maps=None, organ_logits=None):
        """As VQAModel.forward."""
        maps, organ_logits = self.model.image.encode(images, maps, organ_logits)
        output = self.model(None, questions, maps, organ_logits)
        organs = None if organ_logits is None else organ_logits.detach().softmax(-1)
        cells = maps.detach().float().mean((1, 3, 4))  # (B, channels)
        prior = self.prior(questions, organs, cells)  # (B, answers)
        if self.training:
            return PriorOutput(*output, prior)
        answers = output.logits.float().log_softmax(-1)
        return output._replace(logits=answers + PRIOR_WEIGHT * prior.float().log_softmax(-1))
