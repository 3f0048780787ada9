"""The answer classifier (DESIGN section 4)."""

from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class AnswerClassifier(nn.Module):
    """MLP over the answers: (B, size_in) -> (B, answers) logits. Each matrix has one weight-norm scale g for all of it."""

    def __init__(self, size_in, hidden, answers, dropout=0.5):
        super().__init__()
        self.main = nn.Sequential(
            weight_norm(nn.Linear(size_in, hidden), dim=None),
            nn.ReLU(),
            nn.Dropout(dropout),
            weight_norm(nn.Linear(hidden, answers), dim=None),
        )

    def forward(self, features):
        return self.main(features)
