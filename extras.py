"""What is not in the paper: the tuned recipe's gate, prior and idf weights (docs/TUNED.md).

VQAModel knows the gate as one of its parts. It knows nothing of the prior, which wraps it.
"""

import math
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

# chosen on validation questions (docs/TUNED.md)
WORD_KERNELS = ((0.8, 1.0), (0.2, 0.2))  # share and width: of words, of their vectors
SENTENCE_KERNELS, SENTENCE_RIDGE = ((0.0, 1.0), (1.0, 1.0)), 0.1  # of vectors from sentences
IMAGE_WEIGHT, IMAGE_WIDTH = 10.0, 1.5  # of the image's kernel, beside 1 for any image
RIDGE, PRIOR_WEIGHT = 0.03, 8.0
MOST = 10_000  # training questions of the prior: the time to solve grows with their cube


def idf_weights(questions, ntoken):
    """Inverse document frequency of each word: float32 (ntoken,), scaled to a mean of 1.

    log(questions / questions with the word). Word vectors times these weights let "ascites"
    count for more than "is there".
    """
    found = _count_questions(questions)
    weights = np.log([len(questions) / max(found[token], 1) for token in range(ntoken)])
    if not weights.any():
        return np.ones(ntoken, np.float32)
    return (weights / weights.mean()).astype(np.float32)


def _count_questions(questions):
    """Counter: how many questions have each token."""
    return Counter(token for question in questions for token in set(question.tokens))


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


class RetrievalPrior(nn.Module):
    """Scores (B, answers) by kernel ridge regression: what like questions on like images had.

    The kernel of two questions is k(words) * (1 + IMAGE_WEIGHT * k(images)) over its largest
    value, with Gaussian kernels k (docs/TUNED.md). A word counts by its rarity in training.
    wordings, words: count and length of distinct training questions; images: that of distinct
    images, 0 where encoders learn too; questions: that of training questions. sentences: whether
    its word vectors are learnt from sentence embeddings (`fit_prior`).
    """

    def __init__(
        self,
        ntoken,
        num_answers,
        word_dim,
        channels,
        wordings,
        words,
        images,
        questions,
        sentences=False,
    ):
        super().__init__()
        self.kernels = SENTENCE_KERNELS if sentences else WORD_KERNELS
        shapes = {"idf": (ntoken + 1,), "table": (ntoken + 1, word_dim)}  # the last is padding
        shapes |= {"center": (channels,), "known_images": (images, channels)}
        shapes |= {"weights": (questions, num_answers)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        for name, shape in {"known_words": (wordings, words), "pairs": (2, questions)}.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64))
        for name in ("known_counts", "known_vectors"):
            self.register_buffer(name, None, persistent=False)
        self.register_load_state_dict_post_hook(RetrievalPrior.remember)

    def remember(self, *_):
        """Keep what `read` finds of the training questions; after solving and loading."""
        self.known_counts, self.known_vectors = self.read(self.known_words)

    def count(self, questions):
        """Token ids (B, T) -> how often each word occurs, times its rarity: (B, ntoken + 1)."""
        counts = questions.new_zeros((questions.shape[0], len(self.idf)), dtype=self.idf.dtype)
        counts = counts.scatter_add(1, questions, torch.ones_like(questions, dtype=counts.dtype))
        return counts * self.idf

    def read(self, questions):
        """Token ids (B, T) -> unit vectors of counts (B, ntoken + 1), of word vectors (B, dim).

        A vector of zeros stays zero. Counts are None where their kernel has no share.
        """
        counts = self.count(questions)
        vectors = F.normalize(counts @ self.table)
        return F.normalize(counts) if self.kernels[0][0] else None, vectors

    def compare_words(self, questions):
        """Kernel values (B, wordings) of token ids (B, T) and the training questions."""
        kernel = 0.0
        learnt = self.known_counts, self.known_vectors
        for asked, known, (share, width) in zip(self.read(questions), learnt, self.kernels):
            if share:
                kernel = kernel + share * _gaussian(asked, known, width)
        return kernel

    def compare_images(self, cells):
        """Kernel values (B, images) of mean cells (B, channels) and the training images."""
        alike = _gaussian(F.normalize(cells - self.center), self.known_images, IMAGE_WIDTH)
        return (1 + IMAGE_WEIGHT * alike) / (1 + IMAGE_WEIGHT)

    def forward(self, questions, cells):
        """questions (B, T), cells (B, channels) -> (B, answers), about 1 for a sure answer."""
        wording, image = self.pairs
        kernel = self.compare_words(questions)[:, wording]  # (B, questions)
        if len(self.known_images):
            kernel = kernel * self.compare_images(cells)[:, image]
        return kernel @ self.weights


@torch.no_grad()
def mean_cells(image_side, inputs, rows, batch_size=32):
    """The mean over encoders and cells of some images' maps, encoders in eval mode: (rows, width).

    The tuned recipe's prior compares images by them (RetrievalPrior).
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


def _gaussian(first, second, width):
    """exp(-d^2 / width) of all pairs of unit vectors: (n, d), (m, d) -> (n, m)."""
    return torch.exp((2 * first @ second.T - 2) / width)


@torch.no_grad()
def fit_prior(questions, cells, ntoken, num_answers, table=None, embed=None):
    """(RetrievalPrior of some training questions, its arguments).

    cells: {row of an image: its mean cell (channels,)}, or None to compare no images. table:
    (ntoken, dim) word vectors, or else embed(texts) gives sentence embeddings (texts, dim). Then
    the word vectors are those whose weighted sums come closest to the embeddings of the training
    questions, by ridge regression. Of more than MOST questions a random part counts, the same
    each time.
    """
    questions = [question for question in questions if question.label >= 0]
    if len(questions) > MOST:
        kept = np.random.default_rng(0).permutation(len(questions))[:MOST]
        questions = [questions[i] for i in sorted(kept)]
    worded = {q.tokens: q for q in questions}  # one question of each wording
    wordings = {tokens: i for i, tokens in enumerate(worded)}
    learnt = embed([q.question for q in worded.values()]) if embed else None  # (wordings, dim)
    rows = {row: i for i, row in enumerate(sorted({q.image for q in questions}))}
    seen = torch.stack([cells[row] for row in rows]) if cells else torch.zeros(0, 1)
    word_dim = table.shape[1] if learnt is None else learnt.shape[1]
    sizes = {"ntoken": ntoken, "num_answers": num_answers, "word_dim": word_dim}
    sizes |= {"channels": seen.shape[1], "wordings": len(wordings)}
    sizes |= {"words": len(questions[0].tokens), "images": len(seen), "questions": len(questions)}
    sizes["sentences"] = bool(embed)
    prior = RetrievalPrior(**sizes)
    prior.known_words.copy_(torch.tensor(list(wordings)))
    places = [[wordings[q.tokens] for q in questions]]
    places += [[rows[q.image] if cells else 0 for q in questions]]
    prior.pairs.copy_(torch.tensor(places))
    found = _count_questions(questions)
    rarity = [math.log(len(questions) / (1 + found[token])) for token in range(ntoken)]
    prior.idf[:-1] = torch.tensor(rarity).clamp_min(0)
    if learnt is None:
        prior.table[:-1] = torch.as_tensor(table)
    else:
        bags = F.normalize(prior.count(prior.known_words))  # (wordings, ntoken + 1)
        gram = bags.T @ bags + SENTENCE_RIDGE * torch.eye(bags.shape[1])
        prior.table.copy_(torch.linalg.solve(gram, bags.T @ learnt))
    prior.remember()
    if cells:
        prior.center.copy_(seen.mean(0))
        prior.known_images.copy_(F.normalize(seen - prior.center))
    wording, image = prior.pairs
    kernel = prior.compare_words(prior.known_words)[wording][:, wording]
    if cells:
        kernel *= prior.compare_images(seen)[image][:, image]
    kernel.diagonal().add_(RIDGE)
    targets = F.one_hot(torch.tensor([q.label for q in questions]), num_answers).float()
    prior.weights.copy_(torch.cholesky_solve(targets, torch.linalg.cholesky(kernel)))
    return prior, sizes


class WithPrior(nn.Module):
    """A VQAModel whose answers are multiplied by those of a RetrievalPrior.

    log p = log p(model) + PRIOR_WEIGHT * score, and a constant: a product of experts. The prior is
    solved before training, which steps the model alone.
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
        with torch.autocast(maps.device.type, enabled=False):
            scores = self.prior(questions, maps.float().mean((1, 3, 4)))  # (B, answers)
        answers = output.logits.float().log_softmax(-1)
        return output._replace(logits=answers + PRIOR_WEIGHT * scores)
