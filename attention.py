"""Cross-modal self-attention (CMSA), exact at a fraction of its cost; BAN and SAN.

`CMSA.forward_dense` is the paper's definition. `CMSA.forward` gives the same numbers, gradients
and running statistics without building the (B, 588, 1544) tensor. The comments follow the letters
of docs/METHOD.md section 4, which derives it. This file needs torch alone.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


class _Sum(torch.autograd.Function):
    """A sum over processes. Every process's loss depends on it, so its gradient is their sum."""

    @staticmethod
    def forward(ctx, tensor):
        total = tensor.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return _Sum.forward(ctx, gradient)


def sum_over_all(tensor):
    """The tensor summed over all processes; gradients flow back to each one's part."""
    return _Sum.apply(tensor) if dist.is_initialized() else tensor


def count_over_all(number, device):
    """A number summed over all processes: itself, or a float64 tensor without dimensions."""
    if not dist.is_initialized():
        return number
    return _Sum.apply(torch.tensor(float(number), dtype=torch.float64, device=device))


def spatial_features(height, width, dtype=torch.float32, device=None):
    """The place of each cell of a feature map, row by row: (height * width, 8).

    Columns: xmin, ymin, xmax, ymax, xcentre, ycentre in [-1, 1], then 1/width and 1/height.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = x.flatten().double(), y.flatten().double()
    xmin, xmax = 2 * x / width - 1, 2 * (x + 1) / width - 1
    ymin, ymax = 2 * y / height - 1, 2 * (y + 1) / height - 1
    columns = [xmin, ymin, xmax, ymax, (xmin + xmax) / 2, (ymin + ymax) / 2]
    columns += [torch.full_like(x, 1 / width), torch.full_like(x, 1 / height)]
    return torch.stack(columns, 1).to(dtype=dtype, device=device)


def twice_the_gradient(tensor):
    """The same values, and twice the gradient."""
    return 2 * tensor - tensor.detach()


class NonLocalBlock(nn.Module):
    """One non-local block (embedded Gaussian): z = BN(W y) + x, y = softmax(theta phi^T) g.

    `channels` is C, half of it is D. The paper's 1x1x1 convolutions act on each token alone, so
    they are Linear layers. BN's weight and bias start at 0: a new block is the identity.
    """

    def __init__(self, channels):
        super().__init__()
        inner = channels // 2
        self.theta = nn.Linear(channels, inner)
        self.phi = nn.Linear(channels, inner)
        self.g = nn.Linear(channels, inner)
        self.W = nn.Linear(inner, channels)
        self.bn = nn.BatchNorm1d(channels)
        nn.init.zeros_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)

    def forward(self, x):
        """The definition: x (B, L, C) -> (B, L, C), no scaling, BN over batch and tokens."""
        attention = torch.softmax(self.theta(x) @ self.phi(x).transpose(1, 2), dim=-1)  # (B, L, L)
        y = self.W(attention @ self.g(x))  # (B, L, C)
        return self.bn(y.flatten(0, 1)).view_as(x) + x

    def projections(self):
        """theta, phi and g as one layer: weight (3D, C) and bias (3D,)."""
        layers = (self.theta, self.phi, self.g)
        return torch.cat([one.weight for one in layers]), torch.cat([one.bias for one in layers])

    def affine(self, mixing, values):
        """BN(W y) as y @ W^T * a + c for y = mixing @ values: returns a (C,) and c (C,).

        mixing (B, L, r), values (B, r, D); keeps the running statistics. The statistics of W y
        come from the D x D covariance of y, and that from the r x r Gram matrix of `mixing`
        (docs/METHOD.md section 4.2): within the samples plus between them, both centred, which
        keeps precision where attention is nearly uniform. B is the batch of all processes.
        """
        bn, bias = self.bn, self.W.bias
        if not bn.training:
            mean, variance = bn.running_mean, bn.running_var
        else:
            # Sums of squares need full precision; the `.to(low)` products are the exceptions.
            with torch.autocast(mixing.device.type, enabled=False):
                weight, low_values = self.W.weight, values
                low = values.dtype  # bf16 under autocast, else the weights' own
                mixing, values = mixing.to(weight.dtype), values.to(weight.dtype)
                samples, tokens = count_over_all(len(mixing), mixing.device), mixing.shape[1]
                centre = mixing.mean(1, keepdim=True)  # (B, 1, r)
                centred = mixing - centre
                gram = centred.transpose(1, 2) @ centred / (samples * tokens)  # G: (B, r, r)
                sample_means = (centre @ values).squeeze(1)  # (B, D)
                mean_y = sum_over_all(sample_means.sum(0)) / samples  # (D,)
                between = sample_means - mean_y
                # For symmetric S, d(x^T S x) = 2 (S x) dx:
                # differentiate one factor and double it, instead of both.
                weighted = (gram @ twice_the_gradient(values)).flatten(0, 1).to(low)
                within = low_values.detach().flatten(0, 1).T @ weighted  # (D, D)
                covariance = within.to(weight.dtype) + between.T @ between / samples
                covariance = sum_over_all(covariance)  # (D, D)
                scaled = weight.detach().to(low) @ covariance.to(low)  # (C, D)
                variance = (scaled * twice_the_gradient(weight)).sum(1).clamp_min(0)  # (C,)
                mean = weight @ mean_y + bias
                self._track(mean.detach(), variance.detach(), samples * tokens)
        a = bn.weight * torch.rsqrt(variance + bn.eps)
        return a, bn.bias + a * (bias - mean)

    @torch.no_grad()
    def _track(self, mean, variance, count):
        """Running statistics as nn.BatchNorm1d keeps them (the unbiased variance)."""
        bn = self.bn
        bn.num_batches_tracked += 1
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(variance * (count / max(count - 1, 1)), bn.momentum)


class CMSA(nn.Module):
    """Cross-modal self-attention over all (word, cell) pairs (paper section 3.3).

    Tokens are x_(t,i) = [v_i ; l_t ; s_i] of C channels. With two blocks the first one's output
    plus x again enters the second. The output is the mean over the cells.
    """

    def __init__(self, visual_dim=512, question_dim=1024, spatial_dim=8, blocks=2):
        super().__init__()
        if blocks not in (1, 2):
            raise ValueError(f"blocks must be 1 or 2, not {blocks}")
        self.visual_dim, self.question_dim, self.spatial_dim = visual_dim, question_dim, spatial_dim
        self.channels = visual_dim + question_dim + spatial_dim
        self.blocks = nn.ModuleList(NonLocalBlock(self.channels) for _ in range(blocks))

    def forward_dense(self, visual, question, spatial):
        """The definition, for reference and tests.

        visual (B, N, Dv), question (B, T, Dq), spatial (N, Ds) -> (B, T, C).
        """
        batch, cells = visual.shape[:2]
        words = question.shape[1]
        parts = [
            visual[:, None].expand(-1, words, -1, -1),
            question[:, :, None].expand(-1, -1, cells, -1),
            spatial.to(visual.dtype).expand(batch, words, -1, -1),
        ]
        x = torch.cat(parts, dim=-1).flatten(1, 2)  # (B, T*N, C)
        z = self.blocks[0](x)
        if len(self.blocks) == 2:
            z = self.blocks[1](z + x)
        return z.view(batch, words, cells, -1).mean(2)  # (B, T, C)

    def forward(self, visual, question, spatial):
        """The same as `forward_dense`, factored (docs/METHOD.md section 4).

        visual (B, N, Dv), question (B, T, Dq), spatial (N, Ds) -> (B, T, C). It takes about a
        tenth of the multiply-adds, and works in float64, float32 and under bf16 autocast.
        """
        batch, cells = visual.shape[:2]
        words = question.shape[1]
        image = self._image(visual, spatial)  # (B, N, Dv+Ds)

        # 4.1, first block. theta, phi and g of a token are a part of its cell plus one of its word.
        first = self.blocks[0]
        projected = self._project(*first.projections(), image, question)  # (B, N+T, 3D)
        theta, phi, values = projected.chunk(3, dim=-1)  # (B, N+T, D) each
        mixing = self._first_attention(
            theta @ phi.transpose(1, 2), cells, words
        )  # M: (B, T*N, N+T)
        a, c = first.affine(mixing, values)
        over_cells = mixing.view(batch, words, cells, -1).mean(2)  # (B, T, N+T)
        # the mean over cells of BN(W y): (B, T, C)
        output = F.linear(over_cells @ values, a[:, None] * first.W.weight) + c
        scale = len(self.blocks)  # x comes once into the output of one block, twice of two

        if scale == 2:
            # 4.3, second block, on x' = 2x + M (a U) + c = E Z with U = values W^T.
            # Z's rows: 2[v;0;s], 2[0;l;0] + c and a U.
            second = self.blocks[1]
            weight, bias = second.projections()
            bias = bias + F.linear(c, weight)
            from_input = self._project(weight, bias, 2 * image, 2 * question)  # (B, N+T, 3D)
            # W, the scale a and the projections in one: (3D, D)
            folded = F.linear(weight, (a[:, None] * first.W.weight).T)
            projected = torch.cat([from_input, F.linear(values, folded)], 1)
            theta, phi, values2 = projected.chunk(3, dim=-1)  # (B, 2(N+T), D) each
            pairs = self._pairs(cells, words, mixing).expand(batch, -1, -1)
            expansion = torch.cat([pairs, mixing], -1)  # E: (B, T*N, 2(N+T))
            scores = theta @ phi.transpose(1, 2)  # (B, 2(N+T), 2(N+T))
            mixing2 = self._second_attention(scores, expansion)  # (B, T*N, 2(N+T))
            a2, c2 = second.affine(mixing2, values2)
            over_cells2 = mixing2.view(batch, words, cells, -1).mean(2)  # (B, T, 2(N+T))
            y2 = over_cells2 @ values2.to(mixing2.dtype)  # (B, T, D)
            output = output + F.linear(y2, a2[:, None] * second.W.weight) + c2

        mean_image = image.mean(1, keepdim=True).expand(-1, words, -1)  # (B, T, Dv+Ds)
        v, s = mean_image.split([self.visual_dim, self.spatial_dim], -1)
        return output + scale * torch.cat([v, question, s], -1)  # (B, T, C)

    def attention(self, visual, question, spatial):
        """The first block's maps: P (B, T, N, N) over the cells, and R (B, T, N, T) over the words.

        Entry (t, i) of each is the distribution of the token of word t and cell i; its mean over
        i is the map of the word.
        """
        cells, words = visual.shape[1], question.shape[1]
        image = self._image(visual, spatial)
        projected = self._project(*self.blocks[0].projections(), image, question)
        theta, phi, _ = projected.chunk(3, dim=-1)
        mixing = self._first_attention(theta @ phi.transpose(1, 2), cells, words)
        return mixing.view(visual.shape[0], words, cells, -1).split([cells, words], -1)

    @staticmethod
    def _image(visual, spatial):
        """The parts of the tokens that come from cells: (B, N, Dv+Ds)."""
        # not len(visual), with which torch.export would fix the batch size
        spatial = spatial.to(visual.dtype).expand(visual.shape[0], -1, -1)
        return torch.cat([visual, spatial], dim=-1)

    def _project(self, weight, bias, image, question):
        """theta, phi, g: the part of each cell, that of each word with the bias: (B, N+T, 3D)."""
        sizes = [self.visual_dim, self.question_dim, self.spatial_dim]
        visual, words, spatial = weight.split(sizes, 1)
        cell_weight = torch.cat([visual, spatial], 1)
        return torch.cat([F.linear(image, cell_weight), F.linear(question, words, bias)], 1)

    @staticmethod
    def _first_attention(scores, cells, words):
        """Scores of cell and word parts (B, N+T, N+T) -> M = [P R] (B, T*N, N+T).

        Two softmaxes stand for one (docs/METHOD.md section 4.1).
        """
        pairs = scores[:, None, :cells] + scores[:, cells:, None]  # (B, T, N, N+T)
        over_cells, over_words = pairs.split([cells, words], -1)
        return torch.cat([over_cells.softmax(-1), over_words.softmax(-1)], -1).flatten(1, 2)

    @staticmethod
    def _second_attention(scores, expansion):
        """softmax(E scores E^T) E: every token attends to every token, through E's columns only."""
        query = expansion @ scores.to(expansion.dtype)  # (B, T*N, 2(N+T))
        if query.device.type == "cpu" and query.dtype == torch.bfloat16:
            # three times as fast as PyTorch's flash attention there;
            # the softmax sums in float32 and rounds to bf16 once
            with torch.autocast("cpu", enabled=False):
                return (query @ expansion.transpose(1, 2)).softmax(-1) @ expansion
        query, key = query[:, None], expansion[:, None]  # one head, which ONNX wants to see
        return F.scaled_dot_product_attention(query, key, key, scale=1.0)[:, 0]

    @staticmethod
    def _pairs(cells, words, like):
        """The cell and the word that a token is made of, as one-hot columns: (T*N, N+T)."""
        cell = torch.eye(cells, dtype=like.dtype, device=like.device).repeat(words, 1)
        word = torch.eye(words, dtype=like.dtype, device=like.device).repeat_interleave(cells, 0)
        return torch.cat([cell, word], -1)


class NormedLinear(nn.Sequential):
    """Dropout, a Linear layer with one weight-norm scale for its matrix, ReLU (BAN's block)."""

    def __init__(self, size_in, size_out, dropout=0.0, relu=True):
        linear = weight_norm(nn.Linear(size_in, size_out), dim=None)
        super().__init__(nn.Dropout(dropout), linear, nn.ReLU() if relu else nn.Identity())


class BilinearAttention(nn.Module):
    """BAN (Kim et al., 2018): `glimpses` bilinear attention maps of low rank and their vectors.

    forward: visual (B, N, hidden), question (B, T, hidden) -> (B, hidden), summed over the words.
    """

    def __init__(self, hidden=1024, glimpses=2, rank=3):
        super().__init__()
        self.visual = NormedLinear(hidden, hidden * rank, dropout=0.2)
        self.question = NormedLinear(hidden, hidden * rank, dropout=0.2)
        self.dropout = nn.Dropout(0.5)
        self.map = nn.Parameter(torch.randn(1, glimpses, 1, hidden * rank))
        weight_norm(self, "map", dim=None)
        self.map_bias = nn.Parameter(torch.randn(1, glimpses, 1, 1))

        def layers(**options):
            return nn.ModuleList(
                NormedLinear(hidden, hidden, 0.2, **options) for _ in range(glimpses)
            )

        self.joint_visual = layers()
        self.joint_question = layers()
        self.project = layers(relu=False)

    def forward(self, visual, question):
        v = self.dropout(self.visual(visual))  # (B, N, rank*hidden)
        q = self.question(question)  # (B, T, rank*hidden)
        logits = (v[:, None] * self.map) @ q[:, None].transpose(2, 3) + self.map_bias
        attention = logits.flatten(2).softmax(-1).view_as(logits)  # (B, glimpses, N, T)
        for glimpse, project in enumerate(self.project):
            v, q = self.joint_visual[glimpse](visual), self.joint_question[glimpse](question)
            joint = torch.einsum("bvk,bvq,bqk->bk", v, attention[:, glimpse], q)  # (B, hidden)
            question = question + project(joint)[:, None]  # added to every word
        return question.sum(1)


class StackedAttention(nn.Module):
    """SAN (Yang et al., 2016): rounds of attention over the cells, the query refined by each.

    forward: visual (B, N, visual_dim), question (B, hidden), the last state of the question
    encoder -> (B, hidden).
    """

    def __init__(self, visual_dim=512, hidden=1024, stacks=2, dropout=0.5):
        super().__init__()
        self.project = nn.Linear(visual_dim, hidden)
        rounds = range(stacks)
        self.visual_layers = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in rounds)
        self.query_layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in rounds)
        self.score = nn.ModuleList(nn.Linear(hidden, 1) for _ in rounds)
        self.dropout = nn.Dropout(dropout)

    def forward(self, visual, question):
        visual, query = torch.tanh(self.project(visual)), question  # (B, N, hidden), (B, hidden)
        for on_visual, on_query, score in zip(self.visual_layers, self.query_layers, self.score):
            hidden = torch.tanh(on_visual(visual) + on_query(query)[:, None])  # (B, N, hidden)
            attention = score(self.dropout(hidden)).softmax(1)  # (B, N, 1)
            query = query + (attention * visual).sum(1)
        return query
