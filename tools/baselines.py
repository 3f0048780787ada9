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


def add_baselines(rows, data, training, model, inputs, answer, rule):
    """Put what baselines answer into the rows of predictions.json; returns retrieval's seconds.

    training: the questions that retrieval looks up in. answer(questions, inputs, what, rule) gives
    probabilities (questions, answers) of the model. rule: True where the form rule holds. It
    reads questions, so it does not hold for blanked ones.
    """
    blank = copy.copy(inputs)  # shares the maps, which may be on the GPU
    blank.blank = True
    unread = answer(without_questions(data).test, inputs, ", questions blanked", False)
    images = sorted({question.image for question in training + data.test})
    cells = dict(zip(images, mean_cells(model.image, inputs, images).cpu()))
    scores, seconds = retrieve(data, training, cells)
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
    return seconds


def retrieve(data, training, cells, size=64):
    """(scores of the test questions (questions, answers) by fit_prior, the seconds that it took).

    cells: {row of an image: its mean cell (channels,)}. Questions are compared by sentence
    embeddings where these are installed.
    """
    began = time.perf_counter()
    table = table_or_zeros(data, "glove")
    embed = sentences.embed if sentences.installed() else None
    prior, _ = fit_prior(training, cells, table, data.num_answers, embed)
    parts = [data.test[start : start + size] for start in range(0, len(data.test), size)]
    scores = [
        prior(torch.tensor([q.tokens for q in part]), torch.stack([cells[q.image] for q in part]))
        for part in parts
    ]
    return torch.cat(scores), time.perf_counter() - began


def retrieval_scores(predictions, seconds):
    """{"CLOSED" | "OPEN" | "ALL": percent or None, "seconds", ...} of its answers.

    "sentences" is true where it compares questions by sentence embeddings. docs/FORMATS.md
    section 5 lists the rest.
    """
    field = "answer_by_retrieval"
    out = {"seconds": round(seconds, 1), "equivalent": equivalent_scores(predictions, field)}
    out["sentences"] = sentences.installed()
    return out | percents(predictions, lambda p: p[field] == p["truth"])
