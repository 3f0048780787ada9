"""extras.py: the tuned recipe's parts by hand."""

import math
from types import SimpleNamespace

import numpy as np

from extras import idf_weights


def test_idf_weights_by_hand():
    """Word 0 is in all of three questions, 1 in two, 2 in one (twice), 3 in none."""
    tokens = ((0, 1, 4), (0, 1, 4), (0, 2, 2))
    questions = [SimpleNamespace(tokens=ids) for ids in tokens]
    logs = np.array([0, math.log(1.5), math.log(3), math.log(3)])
    np.testing.assert_allclose(idf_weights(questions, 4), logs / logs.mean(), rtol=1e-6)
    # every word is in every question: all count alike
    assert (idf_weights(questions[:1] * 2, 2) == 1).all()
