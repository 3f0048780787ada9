"""The answer classifier (docs/METHOD.md section 2)."""

from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class AnswerClassifier(nn.Module):
    """MLP: (B, size_in) -> (B, answers) logits; each matrix has one weight-norm scale g."""

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
