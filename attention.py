"""Cross-modal self-attention (CMSA), exact at a fraction of its cost; bilinear attention (BAN) and stacked attention (SAN).

CMSA is the paper's fusion module: two non-local blocks over all pairs (word, image cell). `CMSA.forward_dense` is that
definition, word for word. `CMSA.forward` gives the same numbers, gradients and running statistics without ever building
the (B, 588, 1544) tensor: DESIGN section 6 derives how, and the comments below follow its letters.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from parallel import count_over_all, sum_over_all


def spatial_features(height, width, dtype=torch.float32, device=None):
    """Where each cell of a feature map lies (DESIGN section 4): (height * width, 8), row by row.

    Columns: xmin, ymin, xmax, ymax, xcentre, ycentre in [-1, 1], then 1/width and 1/height.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = x.flatten().double(), y.flatten().double()
    xmin, xmax = 2 * x / width - 1, 2 * (x + 1) / width - 1
    ymin, ymax = 2 * y / height - 1, 2 * (y + 1) / height - 1
    columns = [
        xmin,
        ymin,
        xmax,
        ymax,
        (xmin + xmax) / 2,
        (ymin + ymax) / 2,
        torch.full_like(x, 1 / width),
        torch.full_like(x, 1 / height),
    ]
    return torch.stack(columns, 1).to(dtype=dtype, device=device)


def twice_the_gradient(tensor):
    """The same values, and twice the gradient."""
    return 2 * tensor - tensor.detach()


class NonLocalBlock(nn.Module):
    """The weights of one non-local block (embedded Gaussian): z = BN(W y) + x, y = softmax(theta(x) phi(x)^T) g(x).

    `channels` is C, half of it is D. The 1x1x1 convolutions of the paper act on each token alone, so they are Linear layers.
    BN's weight and bias start at 0: a new block is the identity.
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
        """The definition: x (B, L, C) -> (B, L, C), softmax over all L tokens, no scaling, BN over batch and tokens."""
        attention = torch.softmax(self.theta(x) @ self.phi(x).transpose(1, 2), dim=-1)  # (B, L, L)
        y = self.W(attention @ self.g(x))  # (B, L, C)
        return self.bn(y.flatten(0, 1)).view_as(x) + x

    def projections(self):
        """theta, phi and g as one layer: weight (3D, C) and bias (3D,)."""
        return (
            torch.cat([self.theta.weight, self.phi.weight, self.g.weight]),
            torch.cat([self.theta.bias, self.phi.bias, self.g.bias]),
        )

    def affine(self, mixing, values):
        """BN(W y) as y @ W^T * a + c for y = mixing @ values: returns a (C,) and c (C,), and keeps the running statistics.

        mixing (B, L, r) and values (B, r, D). The statistics of the (B * L, C) tensor W y come from the D x D covariance of
        y, and that from the r x r Gram matrix of `mixing` (DESIGN 6.2): within the samples plus between them, both centred,
        so that no precision is lost where attention is nearly uniform. With several processes B is the batch of all of them.
        Sums over tokens are in full precision; under bf16 autocast the D x D products, and in them the sum over samples, are bf16 ones.
        """
        bn, bias = self.bn, self.W.bias
        if not bn.training:
            mean, variance = bn.running_mean, bn.running_var
        else:
            with torch.autocast(
                mixing.device.type, enabled=False
            ):  # sums of squares: in bf16 only where it is said
                weight, of_low, low = (
                    self.W.weight,
                    values,
                    values.dtype,
                )  # low: bf16 under autocast, else the weights' own
                mixing, values = mixing.to(weight.dtype), values.to(weight.dtype)
                samples, tokens = count_over_all(mixing.shape[0], mixing.device), mixing.shape[1]
                centre = mixing.mean(1, keepdim=True)  # (B, 1, r)
                centred = mixing - centre
                gram = centred.transpose(1, 2) @ centred / (samples * tokens)  # (B, r, r)
                sample_means = (centre @ values).squeeze(1)  # (B, D)
                mean_y = sum_over_all(sample_means.sum(0)) / samples  # (D,)
                between = sample_means - mean_y
                # values^T G values and diag(W cov W^T) are quadratic forms of symmetric matrices: the gradient of both factors is twice that of one
                within = of_low.detach().flatten(0, 1).T @ (
                    gram @ twice_the_gradient(values)
                ).flatten(0, 1).to(low)  # (D, D)
                covariance = sum_over_all(
                    within.to(weight.dtype) + between.T @ between / samples
                )  # (D, D)
                variance = (
                    ((weight.detach().to(low) @ covariance.to(low)) * twice_the_gradient(weight))
                    .sum(1)
                    .clamp_min(0)
                )  # (C,)
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
    """Cross-modal self-attention over all (word, cell) pairs (paper section 3.3, DESIGN section 6).

    Tokens are x_(t,i) = [v_i ; l_t ; s_i], C = visual_dim + question_dim + spatial_dim. With two blocks the first one's output
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
        """The definition, for reference and tests: visual (B, N, Dv), question (B, T, Dq), spatial (N, Ds) -> (B, T, C)."""
        batch, cells = visual.shape[:2]
        words = question.shape[1]
        x = torch.cat(
            [
                visual[:, None].expand(-1, words, -1, -1),
                question[:, :, None].expand(-1, -1, cells, -1),
                spatial.to(visual.dtype).expand(batch, words, -1, -1),
            ],
            dim=-1,
        ).flatten(1, 2)  # (B, T*N, C)
        z = self.blocks[0](x)
        if len(self.blocks) == 2:
            z = self.blocks[1](z + x)
        return z.view(batch, words, cells, -1).mean(2)  # (B, T, C)

    def forward(self, visual, question, spatial):
        """The same as `forward_dense`, factored: visual (B, N, Dv), question (B, T, Dq), spatial (N, Ds) -> (B, T, C).

        About a tenth of the multiply-adds of the definition; works in float64, float32 and under bf16 autocast.
        """
        batch, cells = visual.shape[:2]
        words = question.shape[1]
        image = torch.cat(
            [visual, spatial.to(visual.dtype).expand(batch, -1, -1)], dim=-1
        )  # (B, N, Dv+Ds)

        # First block. theta, phi and g of a token are a part of the cell plus a part of the word.
        first = self.blocks[0]
        theta, phi, values = self._project(*first.projections(), image, question).chunk(
            3, dim=-1
        )  # (B, N+T, D) each
        mixing = self._first_attention(
            theta @ phi.transpose(1, 2), cells, words
        )  # M = [P R]: (B, T*N, N+T)
        a, c = first.affine(mixing, values)
        over_cells = mixing.view(batch, words, cells, -1).mean(2)  # (B, T, N+T)
        output = (
            F.linear(over_cells @ values, a[:, None] * first.W.weight) + c
        )  # (B, T, C), mean over cells of BN(W y)
        scale = len(
            self.blocks
        )  # x itself comes once into the output of one block, twice into that of two

        if scale == 2:
            # Second block, on x' = 2x + M (a U) + c = E Z. Z's rows: 2[v;0;s], 2[0;l;0] + c and a U, with U = values W^T.
            second = self.blocks[1]
            weight, bias = second.projections()
            from_input = self._project(
                weight, bias + F.linear(c, weight), 2 * image, 2 * question
            )  # (B, N+T, 3D)
            folded = F.linear(
                weight, (a[:, None] * first.W.weight).T
            )  # (3D, D): W, the scale a and the projections in one
            theta, phi, values2 = torch.cat([from_input, F.linear(values, folded)], 1).chunk(
                3, dim=-1
            )  # (B, 2(N+T), D) each
            expansion = torch.cat(
                [self._pairs(cells, words, mixing).expand(batch, -1, -1), mixing], -1
            )  # E: (B, T*N, 2(N+T))
            scores = theta @ phi.transpose(1, 2)  # (B, 2(N+T), 2(N+T))
            # softmax(E scores E^T) E: every token attends to every token, but only through the columns of E.
            query = expansion @ scores.to(expansion.dtype)  # (B, T*N, 2(N+T))
            if (
                query.device.type == "cpu" and query.dtype == torch.bfloat16
            ):  # three times as fast as PyTorch's flash attention there
                with torch.autocast(
                    "cpu", enabled=False
                ):  # the softmax sums in float32 and rounds to bf16 once
                    mixing2 = (query @ expansion.transpose(1, 2)).softmax(
                        -1
                    ) @ expansion  # (B, T*N, 2(N+T))
            else:  # one head, which ONNX wants to see
                mixing2 = F.scaled_dot_product_attention(
                    query[:, None], expansion[:, None], expansion[:, None], scale=1.0
                )[:, 0]
            a2, c2 = second.affine(mixing2, values2)
            over_cells2 = mixing2.view(batch, words, cells, -1).mean(2)  # (B, T, 2(N+T))
            output = (
                output
                + F.linear(over_cells2 @ values2.to(mixing2.dtype), a2[:, None] * second.W.weight)
                + c2
            )

        mean_image = image.mean(1, keepdim=True).expand(-1, words, -1)  # (B, T, Dv+Ds)
        x = torch.cat(
            [mean_image[..., : self.visual_dim], question, mean_image[..., self.visual_dim :]], -1
        )  # (B, T, C)
        return output + scale * x

    def attention(self, visual, question, spatial):
        """The first block's maps: P (B, T, N, N), where a token looks in the image, and R (B, T, N, T), at which words.

        Entry (t, i) of each is the distribution of the token of word t and cell i; its mean over i is the map of the word.
        """
        batch, cells = visual.shape[:2]
        words = question.shape[1]
        image = torch.cat([visual, spatial.to(visual.dtype).expand(batch, -1, -1)], dim=-1)
        theta, phi, _ = self._project(*self.blocks[0].projections(), image, question).chunk(
            3, dim=-1
        )
        mixing = self._first_attention(theta @ phi.transpose(1, 2), cells, words).view(
            batch, words, cells, -1
        )
        return mixing[..., :cells], mixing[..., cells:]

    def _project(self, weight, bias, image, question):
        """theta, phi and g of the cells (their part) and of the words (their part, with the bias): (B, N+T, 3D)."""
        visual, of_question, spatial = weight.split(
            [self.visual_dim, self.question_dim, self.spatial_dim], 1
        )
        return torch.cat(
            [
                F.linear(image, torch.cat([visual, spatial], 1)),
                F.linear(question, of_question, bias),
            ],
            1,
        )

    @staticmethod
    def _first_attention(scores, cells, words):
        """From the scores of cell and word parts (B, N+T, N+T) to M = [P R] (B, T*N, N+T), two softmaxes for one (DESIGN 6.1)."""
        of_pairs = scores[:, None, :cells] + scores[:, cells:, None]  # (B, T, N, N+T)
        mixing = torch.cat(
            [of_pairs[..., :cells].softmax(-1), of_pairs[..., cells:].softmax(-1)], -1
        )
        return mixing.flatten(1, 2)

    @staticmethod
    def _pairs(cells, words, like):
        """Which cell and which word a token is made of, as one-hot columns: (T*N, N+T)."""
        cell = torch.eye(cells, dtype=like.dtype, device=like.device).repeat(words, 1)
        word = torch.eye(words, dtype=like.dtype, device=like.device).repeat_interleave(cells, 0)
        return torch.cat([cell, word], -1)


class NormedLinear(nn.Sequential):
    """Dropout, a Linear layer with one weight-norm scale for the whole matrix, and ReLU (BAN's building block).

    `dropout` 0 and `relu` False leave out their layer, not their place.
    """

    def __init__(self, size_in, size_out, dropout=0.0, relu=True):
        super().__init__(
            nn.Dropout(dropout),
            weight_norm(nn.Linear(size_in, size_out), dim=None),
            nn.ReLU() if relu else nn.Identity(),
        )


class BilinearAttention(nn.Module):
    """BAN (Kim et al., 2018; DESIGN section 4): `glimpses` bilinear attention maps, low rank k = 3, and their joint vectors.

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
        self.joint_visual = nn.ModuleList(
            NormedLinear(hidden, hidden, dropout=0.2) for _ in range(glimpses)
        )
        self.joint_question = nn.ModuleList(
            NormedLinear(hidden, hidden, dropout=0.2) for _ in range(glimpses)
        )
        self.project = nn.ModuleList(
            NormedLinear(hidden, hidden, dropout=0.2, relu=False) for _ in range(glimpses)
        )

    def forward(self, visual, question):
        v = self.dropout(self.visual(visual))  # (B, N, 3*hidden)
        q = self.question(question)  # (B, T, 3*hidden)
        logits = (v[:, None] * self.map) @ q[:, None].transpose(
            2, 3
        ) + self.map_bias  # (B, glimpses, N, T)
        attention = logits.flatten(2).softmax(-1).view_as(logits)
        for glimpse, project in enumerate(self.project):
            joint = torch.einsum(
                "bvk,bvq,bqk->bk",
                self.joint_visual[glimpse](visual),
                attention[:, glimpse],
                self.joint_question[glimpse](question),
            )  # (B, hidden)
            question = question + project(joint)[:, None]  # the joint vector is added to every word
        return question.sum(1)


class StackedAttention(nn.Module):
    """SAN (Yang et al., 2016): `stacks` rounds of attention over the cells, the query refined by each.

    forward: visual (B, N, visual_dim), question (B, hidden), the last state of the question encoder -> (B, hidden).
    """

    def __init__(self, visual_dim=512, hidden=1024, stacks=2, dropout=0.5):
        super().__init__()
        self.project = nn.Linear(visual_dim, hidden)
        self.of_visual = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(stacks))
        self.of_query = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(stacks))
        self.score = nn.ModuleList(nn.Linear(hidden, 1) for _ in range(stacks))
        self.dropout = nn.Dropout(dropout)

    def forward(self, visual, question):
        visual, query = torch.tanh(self.project(visual)), question  # (B, N, hidden), (B, hidden)
        for of_visual, of_query, score in zip(self.of_visual, self.of_query, self.score):
            hidden = self.dropout(
                torch.tanh(of_visual(visual) + of_query(query)[:, None])
            )  # (B, N, hidden)
            attention = score(hidden).softmax(1)  # (B, N, 1)
            query = query + (attention * visual).sum(1)
        return query
