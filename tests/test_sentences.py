"""Sentence embeddings: by the optional package, and what stands where it is absent."""

from types import SimpleNamespace

import pytest
import torch

import settings
from readers import sentences
from utils import UserError


def test_like_questions_are_near():
    """Unit vectors; a rewording is nearer than another question; batches change nothing."""
    if not sentences.installed():
        pytest.skip(
            f"sentence embeddings, which are optional, are not installed: {sentences.INSTALL}"
        )
    texts = ["is the heart enlarged?", "is there cardiomegaly?", "in which plane is this slice?"]
    vectors = sentences.embed(texts)
    assert vectors.shape == (3, 384) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    alone = torch.cat([sentences.embed([text]) for text in texts])
    torch.testing.assert_close(alone, vectors, atol=1e-5, rtol=0)


@pytest.mark.parametrize("there", [True, False])
def test_they_are_taken_where_they_are(there, monkeypatch):
    """Of the tuned recipe, and not where the command says no or no prior is wanted."""
    monkeypatch.setattr(sentences, "find_spec", lambda _: there or None)
    for options, wanted in (
        (["--recipe", "tuned"], there),
        (["--recipe", "tuned", "--no-sentences"], False),
        (["--recipe", "tuned", "--no-prior"], False),
        (["--recipe", "paper"], False),
        (["--recipe", "tuned", "--language", "zh"], False),  # the package knows English
        (["--recipe", "tuned", "--language", "en"], there),
    ):
        args, _ = settings.parse_args(options)
        assert args.sentences is wanted
        data = SimpleNamespace(organs=True, phantom=False)
        changed = settings.settle(args, data, True)
        assert ("sentences" in changed) == (there and "--no-sentences" in options)
    asked = ["--recipe", "tuned", "--sentences"]
    if there:
        assert settings.parse_args(asked)[0].sentences
    else:
        with pytest.raises(UserError, match=sentences.INSTALL):
            settings.parse_args(asked)
