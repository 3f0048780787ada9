"""language_model.py: the word tables, and the question encoder's precision."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

import language_model
from base_model import VQAModel


def test_the_second_word_table_and_padding_stay():
    words = language_model.WordEmbedding(ntoken=5, dim=4)
    words.initialise(torch.ones(5, 4))
    assert not words.emb_.weight.requires_grad and words.emb.weight.requires_grad
    found = words(torch.tensor([[0, 5]]))  # a word and padding
    assert found[0, 0].tolist() == [1.0] * 8 and found[0, 1].tolist() == [0.0] * 8
    found.sum().backward()
    assert words.emb_.weight.grad is None and not words.emb.weight.grad[5].any()
    assert words.emb.weight.grad[0].tolist() == [1.0] * 4


@pytest.mark.parametrize("rnn", ["LSTM", "GRU"])
def test_bf16_without_a_processor_for_it(rnn, monkeypatch):
    """The whole model runs; its question encoder gives the very numbers of float32."""
    monkeypatch.setattr(language_model, "has_bf16", lambda device: False)
    torch.manual_seed(0)
    sizes = dict(ntoken=20, num_answers=7, word_dim=10, hidden=64, rnn=rnn)
    model = VQAModel("CMSA", **sizes, encoder="efficientnet_lite0", shared=True).eval()
    images, questions = torch.randn(2, 3, 224, 224), torch.randint(0, 21, (2, 12))
    states = []
    model.q_emb.register_forward_hook(lambda module, inputs, output: states.append(output))
    with torch.no_grad():
        expected = model(images, questions)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(images, questions)
    assert [state.dtype for state in states] == [torch.float32] * 2
    assert torch.equal(*states)
    difference = (output.features.float() - expected.features).norm()
    assert 0 < difference < 0.05 * expected.features.norm()  # the rest is bf16's
    # a bf16 input, as under autocast behind a layer, is read in float32
    words = torch.randn(2, 12, 20)
    rounded = words.bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.q_emb(rounded), model.q_emb(rounded.float()))


def test_bf16_where_onednn_has_none():
    """A process whose oneDNN may use AVX2 at most, as on an old processor: a step of training."""
    code = "import torch, language_model, utils\nassert not utils.has_bf16('cpu')\n"
    code += "encoder = language_model.QuestionEncoder(8, 16)\n"
    code += "with torch.autocast('cpu', torch.bfloat16):\n"
    code += "    states = encoder(torch.randn(2, 3, 8))\nstates.sum().backward()\n"
    code += "print(states.dtype)"
    environment = os.environ | {"DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], **options, timeout=60)
    assert done.stdout == "torch.float32\n", done.stderr


def test_bf16_on_a_processor_with_it(monkeypatch):
    """There the question encoder runs in what autocast says."""
    monkeypatch.setattr(language_model, "has_bf16", lambda device: True)
    encoder, seen = language_model.QuestionEncoder(4, 8), []

    def run(words):
        seen.append(torch.is_autocast_enabled("cpu"))
        return words, None

    monkeypatch.setattr(encoder.rnn, "forward", run)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(1, 2, 4))
    monkeypatch.setattr(language_model, "has_bf16", lambda device: False)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(1, 2, 4))
    assert seen == [True, False]
