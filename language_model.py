"""The question's side: word embedding and recurrent question encoder (DESIGN section 4)."""

import torch
from torch import nn


class WordEmbedding(nn.Module):
    """Two word tables side by side: (B, T) int64 in [0, ntoken] -> (B, T, 2 * dim). Row `ntoken` is padding and stays zero.

    Both start from the same pre-trained vectors (`initialise`). The second table is not
    trained, as the official code's is not (the gradient norms of parity/train_step_CMSA_200d_seed3.json show it): it keeps
    what the pre-trained vectors know of each word beside what training makes of them.
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
    """One LSTM or GRU layer, one direction: (B, T, size_in) -> all hidden states (B, T, hidden). `rnn` is "LSTM" or "GRU"."""

    def __init__(self, size_in, hidden=1024, rnn="LSTM"):
        super().__init__()
        self.rnn = {"LSTM": nn.LSTM, "GRU": nn.GRU}[rnn](size_in, hidden, batch_first=True)

    def forward(self, words):
        if words.is_cuda:  # cuDNN's autocast takes float16 for this, whatever type was asked for
            with torch.autocast("cuda", enabled=False):
                return self.rnn(words.float())[0]
        return self.rnn(words)[0]
