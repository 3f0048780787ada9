"""readers/official.py: missing or impossible tensors are one clear line, and fill no memory."""

import pytest
import torch
from helpers import load

from base_model import load_official, load_official_pretraining
from utils import UserError


def tensors(shapes):
    """A state dict without memory."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def error_of(loader, state):
    """The one-line message of a checkpoint that can't be loaded."""
    with pytest.raises(UserError) as caught:
        loader(state)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "key, shape, words",
    [
        ("classifier.main.3.bias", None, "lacks classifier.main.3.bias"),
        ("classifier.main.3.bias", (), "classifier.main.3.bias has fewer than 1 dimensions"),
        ("classifier.main.3.bias", (7,), "classifier.main.3.weight_v"),  # which has 458 rows
        ("cmsa0.g.weight", (772,), "cmsa0.g.weight has fewer than 2 dimensions"),
        ("q_emb.rnn.weight_hh_l0", (0, 2**40), "sizes"),  # such a model would fill the memory
        ("w_emb.emb_.weight", None, "w_emb.emb_.weight"),
        ("w_emb.emb_.weight", (1178, 2**40), "w_emb.emb_.weight"),
    ],
)
def test_an_official_checkpoint_with_a_wrong_tensor(key, shape, words):
    state = tensors(load("parity", "official_keys_CMSA_200d.json"))
    if shape is None:
        del state[key]
    else:
        state[key] = torch.empty(shape, device="meta")
    assert words in error_of(load_official, {"model_state": state})


def test_a_pretraining_checkpoint_with_a_wrong_tensor():
    parts = load("parity", "official_keys_MTPT_300d.json")
    parts = {part: tensors(parts[part]) for part in ("backbone", "cls_decoder", "cmsa")}
    del parts["cls_decoder"]["fc.8.bias"]
    assert "lacks cls_decoder.fc.8.bias" in error_of(load_official_pretraining, parts)
    parts["cls_decoder"]["fc.8.bias"] = torch.empty(3, device="meta")
    parts["cmsa"]["cmsa.g.weight"] = torch.empty(2, device="meta")
    message = error_of(load_official_pretraining, parts)
    assert "cmsa.cmsa.g.weight has fewer than 2 dimensions" in message
    assert "state dict" in error_of(load_official_pretraining, parts | {"cmsa": {1: 2}})
