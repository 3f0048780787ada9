"""Baselines beside each score: the same model with an input blanked, and retrieval."""

import copy
import time

import torch

from dataset_RAD import without_questions
from extras import fit_prior, mean_cells
from readers import sentences
from readers.vectors import table_or_zeros
from scores import percents
from text_rules import allowed_answers
from tools.equivalent import equivalent_scores
from utils import UserError, log


def add_baselines(rows, data, training, model, inputs, answer, rule):
    """Put what baselines answer into the rows of predictions.json; returns what retrieval took.

    That is {"seconds", "sentences": whether it compared questions by sentence embeddings}.

    training: the questions that retrieval looks up in. answer(questions, inputs, what, rule) gives
    probabilities (questions, answers) of the model. rule: True where the form rule holds. It
    reads questions, so it does not hold for blanked ones.
    """
    blank = copy.copy(inputs)  # shares the maps, which may be on the GPU
    blank.blank = True
    unread = answer(without_questions(data).test, inputs, ", questions blanked", False)
    images = sorted({question.image for question in training + data.test})
    cells = dict(zip(images, mean_cells(model.image, inputs, images).cpu()))
    scores, taken = retrieve(data, training, cells)
    if rule:
        allowed = [allowed_answers(question.question, data.answers) for question in data.test]
        scores = scores.masked_fill(~torch.tensor(allowed), -torch.inf)
    best = {
        "answer_without_image": answer(data.test, blank, ", images blanked").argmax(1).tolist(),
        "answer_without_question": unread.argmax(1).tolist(),
        "answer_by_retrieval": scores.argmax(1).tolist(),
    }
    for name, labels in best.items():
        for row, label in zip(rows, labels):
            row[name] = data.answers[label]
    return taken


def retrieve(data, training, cells, size=64):
    """(scores of the test questions (questions, answers) by fit_prior, what it took).

    cells: {row of an image: its mean cell (channels,)}. English questions are compared by
    sentence embeddings where these are installed and work.
    """
    began, sizes = time.perf_counter(), (data.ntoken, data.num_answers)
    by_sentences = sentences.installed(data.options.get("language"))
    if by_sentences:
        try:
            prior, _ = fit_prior(training, cells, *sizes, embed=sentences.embed)
        except UserError as error:  # predictions are made by now
            log(f"NOTE: retrieval compares words: {error}")
            by_sentences = False
    if not by_sentences:
        try:
            table = table_or_zeros(data, "glove")
        except UserError as error:
            log(f"NOTE: retrieval compares words without vectors: {error}")
            table = torch.zeros(data.ntoken, 1)
        prior, _ = fit_prior(training, cells, *sizes, table)
    parts = [data.test[start : start + size] for start in range(0, len(data.test), size)]
    scores = [
        prior(torch.tensor([q.tokens for q in part]), torch.stack([cells[q.image] for q in part]))
        for part in parts
    ]
    seconds = round(time.perf_counter() - began, 1)
    return torch.cat(scores), {"seconds": seconds, "sentences": by_sentences}


def retrieval_scores(predictions, taken):
    """{"CLOSED" | "OPEN" | "ALL": percent or None, "equivalent", ...} of retrieval's answers.

    taken: see `add_baselines`. docs/FORMATS.md section 5 lists the keys.
    """
    field = "answer_by_retrieval"
    out = taken | {"equivalent": equivalent_scores(predictions, field)}
    return out | percents(predictions, lambda p: p[field] == p["truth"])
