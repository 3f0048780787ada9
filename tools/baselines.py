"""Baselines beside each score: the same model with an input blanked, and retrieval."""

import copy

import numpy as np

from dataset_RAD import without_questions
from extras import mean_cells
from readers.vectors import find_embedding
from scores import GROUPS, in_group
from text_rules import allowed_answers
from tools.equivalent import equivalent_scores
from tools.retrieval import retrieve


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
    cells = mean_cells(model.image, inputs, images).cpu().numpy()  # (images, width)
    found = find_embedding(data, "glove", lambda _: None)
    table = found[0] if found else np.zeros((data.ntoken, 1))
    scores, seconds = retrieve(
        data.test, training, dict(zip(images, cells)), table, data.num_answers
    )
    if rule:
        allowed = [allowed_answers(question.question, data.answers) for question in data.test]
        scores = np.where(allowed, scores, -np.inf)
    best = {
        "answer_without_image": answer(data.test, blank, ", images blanked").argmax(1).tolist(),
        "answer_without_question": unread.argmax(1).tolist(),
        "answer_by_retrieval": scores.argmax(1).tolist(),
    }
    for name, labels in best.items():
        for row, label in zip(rows, labels):
            row[name] = data.answers[label]
    return seconds


def retrieval_scores(predictions, seconds):
    """{"CLOSED" | "OPEN" | "ALL": percent or None, "seconds", "equivalent"} of its answers."""
    equivalent = equivalent_scores(predictions, "answer_by_retrieval")
    out = {"seconds": round(seconds, 1), "equivalent": equivalent}
    for group in GROUPS:
        right = [p["answer_by_retrieval"] == p["truth"] for p in in_group(predictions, group)]
        out[group] = round(100 * sum(right) / len(right), 1) if right else None
    return out
