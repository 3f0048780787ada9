"""The form rule from end to end: probabilities, validation, ask.py, settings, older runs."""

import json

import numpy as np
import pytest
import torch
from saved_runs import save_run, small_model

import ask
import settings
from base_model import VQAModel
from engine import predict
from features import Inputs
from readers.checkpoints import read_checkpoint
from readers.images import read_image
from text_rules import allowed_answers
from tools.ask_show import answer_maps
from tools.report_gallery import maps_for
from train import validation_scores
from utils import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """make(settings) -> the folder of an untrained run with these settings."""
    folder = tmp_path_factory.mktemp("runs")
    model, made_with = small_model(data.ntoken, data.num_answers, fusion="SAN", softmax=True)
    about = {"dictionary": data.dictionary, "answers": data.answers, "about": data.about()}

    def make(name, **given):
        return save_run(folder / name, model, made_with, **about, settings=given)

    return make


@pytest.mark.parametrize("softmax", [True, False])
def test_probabilities_of_answers_that_are_not_allowed(softmax):
    """They are 0. Those of a softmax add up to 1 again, those of sigmoids stay."""
    sizes = dict(ntoken=5, num_answers=3, word_dim=4, hidden=8, encoder=None, softmax=softmax)
    model, logits = VQAModel("CMSA", **sizes), torch.tensor([[0.5, 2, -1], [0.5, 2, -1]])
    plain = model.probabilities(logits)
    masked = model.probabilities(logits, [[True, False, True], [True, True, True]])
    kept = plain[0] * torch.tensor([1, 0, 1])
    assert torch.allclose(masked[0], kept / kept.sum() if softmax else kept)
    assert torch.equal(masked[1], plain[1])


def test_predictions_and_validation(runs, data):
    model, _ = ask.load(runs("plain"))
    asked = [q for q in data.test if q.words[0] in ("is", "what") and "or" not in q.words][:24]
    assert {q.words[0] for q in asked} == {"is", "what"}
    wanted = Inputs(data, CPU)
    plain = predict(model, asked, wanted, CPU)
    ruled = predict(model, asked, wanted, CPU, batch_size=5, answers=data.answers)
    yes_no = torch.tensor([answer in ("yes", "no") for answer in data.answers])
    right = 0
    for question, before, after in zip(asked, plain, ruled):
        allowed = yes_no if question.words[0] == "is" else ~yes_no
        expected = before * allowed / (before * allowed).sum()
        assert torch.allclose(after, expected, atol=1e-5)
        right += expected.argmax() == question.label
    score, _ = validation_scores(model, asked, wanted, CPU, "float32", data.answers)
    assert score == pytest.approx(float(right) / len(asked))


def test_ask(runs, data, monkeypatch, capsys):
    """The run's setting, and the option that overrides it. Fewer answers than --top may be left."""
    old, new = runs("old"), runs("new", form_rule=True)
    question = next(q for q in data.test if q.words[:2] == ("is", "there"))
    file = next(data.folder.glob(f"*/{question.image_name}"))
    for run, options, ruled in (
        (old, [], False),
        (old, ["--form_rule"], True),
        (new, [], True),
        (new, ["--no-form_rule"], False),
    ):
        words = ["ask.py", file, question.question, "--input", run, "--json", "--gpu", -1]
        monkeypatch.setattr("sys.argv", list(map(str, [*words, *options])))
        ask.main()
        result = json.loads(capsys.readouterr().out)
        assert result["form_rule"] is ruled
        answers = [answer for answer, _ in result["answers"]]
        assert (set(answers) == {"yes", "no"}) == ruled and len(answers) == (2 if ruled else 5)
    blind = runs("blind", image_only=True)
    words = ["ask.py", file, question.question, "--input", blind, "--json", "--form_rule"]
    monkeypatch.setattr("sys.argv", list(map(str, [*words, "--gpu", -1])))
    ask.main()
    result = json.loads(capsys.readouterr().out)
    assert not result["form_rule"] and result["unknown_words"] == []
    model, kept = ask.load(new)
    result = ask.answer(model, kept, read_image(file), question.question)
    (_, first), (_, second) = result["answers"]
    assert first >= second and first + second == pytest.approx(1, abs=1e-5)


def test_maps_are_those_of_the_answer_given(runs, data, monkeypatch):
    """Of ask.py --show and of the report."""
    seen = []

    def blank(model, tokens, labels, maps, organs):
        seen.extend(labels.tolist())
        return np.zeros((len(tokens), 7, 7)), np.zeros(len(tokens))

    monkeypatch.setattr("tools.ask_show.occlusion_maps", blank)
    monkeypatch.setattr("tools.report_gallery.occlusion_maps", blank)
    model, kept = ask.load(runs("shown", form_rule=True))
    some = [q for q in data.test if q.words[0] in ("is", "what")][:12]
    best = predict(model, some, Inputs(data, CPU), CPU).argmax(1)  # without the rule
    allowed = [allowed_answers(q.question, data.answers)[i] for q, i in zip(some, best)]
    question = some[allowed.index(False)]
    image = read_image(next(data.folder.glob(f"*/{question.image_name}")))
    encoded = ask.encode_picture(model, kept, image)
    answer_maps(model, kept, encoded, question.question)
    maps_for(model, [question], Inputs(data, CPU), data.answers)
    given, _ = ask.answer(model, kept, image, question.question)["answers"][0]
    assert [data.answers[label] for label in seen] == [given, given]


def test_a_damaged_setting(runs):
    with pytest.raises(UserError, match="its setting form_rule is not of type bool"):
        read_checkpoint(runs("damaged", form_rule="perhaps"))


def test_settings(runs, tmp_path):
    def given(*words):
        return settings.parse_args([*words, "--output", str(tmp_path)])[0].form_rule

    assert not given() and given("--recipe", "tuned") and given("--form_rule")
    assert not given("--form_rule", "--image_only")  # such a model reads no question
