"""The question's side: word embedding and recurrent question encoder (docs/METHOD.md section 2)."""

import torch
from torch import nn

from utils import has_bf16


class WordEmbedding(nn.Module):
    """Two word tables side by side: (B, T) int64 in [0, ntoken] -> (B, T, 2 * dim).

    Row `ntoken` is padding and stays zero. Both tables start from the same pre-trained vectors
    (`initialise`). The second one is not trained, like the official code's (docs/FAITHFUL.md):
    it keeps the pre-trained knowledge of each word beside what training makes of it.
    """

    def __init__(self, ntoken, dim, dropout=0.0):
        super().__init__()
        self.emb = nn.Embedding(ntoken + 1, dim, padding_idx=ntoken)
        self.emb_ = nn.Embedding(ntoken + 1, dim, padding_idx=ntoken).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def initialise(self, vectors):
        """Start both tables from `vectors` (ntoken, dim) float32."""
        self.emb.weight[:-1] = self.emb_.weight[:-1] = vectors

    def forward(self, tokens):
        return self.dropout(torch.cat([self.emb(tokens), self.emb_(tokens)], -1))


class QuestionEncoder(nn.Module):
    """One LSTM or GRU layer, one direction: (B, T, size_in) -> all states (B, T, hidden)."""

    def __init__(self, size_in, hidden=1024, rnn="LSTM"):
        super().__init__()
        self.rnn = {"LSTM": nn.LSTM, "GRU": nn.GRU}[rnn](size_in, hidden, batch_first=True)

    def forward(self, words):
        device = words.device.type
        # cuDNN's autocast takes float16, whatever type was asked for;
        # a processor without bf16 has no LSTM in bf16
        if device == "cuda" or not has_bf16(device):
            with torch.autocast(device, enabled=False):
                return self.rnn(words.float() if words.dtype == torch.bfloat16 else words)[0]
        return self.rnn(words)[0]
