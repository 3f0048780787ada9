"""Scores, their uncertainty, and the rows of predictions.json (docs/FORMATS.md section 5).

    python scores.py [RUN ...]    a table of runs, and their differences from the first

A score is 1 if the arg-max answer equals the normalised ground truth.
"""

from collections import Counter

import numpy as np

from dataset_RAD import training_questions
from utils import ORGANS, run_main

GROUPS = ("CLOSED", "OPEN", "ALL")
PROTOCOLS = {"freeform": "freeform", "all": "freeform + para"}  # of VQA-RAD
ONE_PROTOCOL = {"all": "all questions"}  # of a set without phrase types
BOOTSTRAP = 10_000  # resamplings


def prediction_rows(questions, probabilities, data, split, training):
    """The rows of predictions.json, a dictionary a question (docs/FORMATS.md section 5).

    probabilities: (questions, answers). `training`: the questions that the model was trained on;
    they mark the images and wordings that it has seen. An answer is known when the training
    questions of `split`, validation part included, have it.
    """
    seen_images = {q.image for q in training}
    known = {q.label for q in training_questions(data, split)}
    wordings = {}
    for q in training:
        wordings.setdefault((q.image, q.answer), []).append(q.words)
    rows = []
    for q, row in zip(questions, probabilities):
        top = row.topk(min(5, len(row)))
        answers = [[data.answers[i], round(float(p), 6)] for p, i in zip(top.values, top.indices)]
        answer, probability = answers[0]
        nearly = near_identical(q.words, wordings.get((q.image, q.answer), []))
        rows.append(
            {
                "qid": q.qid,
                "image": q.image_name,
                "organ": ORGANS[q.organ].code if q.organ >= 0 else q.organ_name,
                **({"modality": q.modality} if q.modality else {}),
                "question": q.question,
                "phrase_type": q.phrase_type,
                "answer_type": q.answer_type,
                "question_types": list(q.question_types),
                "truth": q.answer,
                "answer": answer,
                "probability": probability,
                "top5": answers,
                "correct": int(answer == q.answer),
                "known_answer": int(q.label in known),
                "image_in_training": int(q.image in seen_images),
                "twin": int(q.twin),
                "near_identical_in_training": int(nearly),
                "unknown_words": list(q.unknown_words),
                "data": f"{data.name} {data.digest}",
            }
        )
    return rows


def near_identical(words, training):
    """True if a training question on the same image with the same answer has nearly these words.

    The two multisets of words then share at least 80% (intersection over union).
    training: the lists of words of those questions.
    """
    words = Counter(words)
    for other in map(Counter, training):
        if sum((words & other).values()) >= 0.8 * sum((words | other).values()):
            return True
    return False


def entry(predictions):
    """The official schema's entry for some predictions: counts, and the share that is right.

    `real` counts the questions whose answer occurs in training: no model that learnt from these
    questions alone can score above `real_percent`.
    """
    count = len(predictions)
    real = sum(p["known_answer"] for p in predictions)
    true = sum(p["correct"] for p in predictions)
    score = true / count if count else 0.0
    return {
        "count": count,
        "real": real,
        "true": true,
        "real_percent": round(100 * real / count, 1) if count else 0.0,
        "score": score,
        "score_percent": round(100 * score, 1),
    }


def protocols_of(predictions):
    """{name: title} of the protocols by which some predictions are scored."""
    typed = any(prediction["phrase_type"] for prediction in predictions)
    return PROTOCOLS if typed else ONE_PROTOCOL


def protocol(predictions, name):
    """The questions that a protocol scores: "freeform", or "all" for freeform + para."""
    return [p for p in predictions if name == "all" or p["phrase_type"] == "freeform"]


def in_group(predictions, group):
    """The predictions of one of GROUPS."""
    return [p for p in predictions if group in ("ALL", p["answer_type"])]


def percents(predictions, right):
    """{"CLOSED" | "OPEN" | "ALL": percent, or None without questions} of those with right(p)."""
    out = {}
    for group in GROUPS:
        found = [right(p) for p in in_group(predictions, group)]
        out[group] = round(100 * sum(found) / len(found), 1) if found else None
    return out


def table(predictions):
    """{"CLOSED" | "OPEN" | "ALL": entry} in the official schema."""
    return {group: entry(in_group(predictions, group)) for group in GROUPS}


def interval(values, images, seed=0):
    """[low, high] in percent: the 95% percentile interval of the mean of `values`.

    By bootstrap over whole images: questions on one image are not independent.
    """
    names, image = np.unique(images, return_inverse=True)
    sums, counts = np.bincount(image, values), np.bincount(image)  # per image
    even = np.full(len(names), 1 / len(names))
    random, means, left = np.random.default_rng(seed), [], BOOTSTRAP
    while left > 0:  # in parts of some megabytes
        # how often each image is drawn: (draws, images)
        times = random.multinomial(len(names), even, min(left, 1 + 10**6 // len(names)))
        means += (times @ sums / (times @ counts)).tolist()
        left -= len(times)
    return [100 * float(value) for value in np.quantile(means, (0.025, 0.975))]


def intervals(predictions):
    """{group: [low, high]} in percent, the 95% interval of each group's score.

    None for a group without questions.
    """
    out = {}
    for group in GROUPS:
        chosen = in_group(predictions, group)
        correct, images = [p["correct"] for p in chosen], [p["image"] for p in chosen]
        out[group] = [round(value, 1) for value in interval(correct, images)] if chosen else None
    return out


def grouped(predictions):
    """{name: {group: predictions}}; empty groups are left out.

    By question type (a question with two types is in both), by organ and modality where the set
    names them, and by what training has seen: `image_in_training`, `twin` where the set has phrase
    types, `near_identical_in_training` (see `near_identical`), `known_answer`.
    """

    def by(keys_of):
        groups = {}
        for prediction in predictions:
            for key in filter(None, keys_of(prediction)):
                groups.setdefault(key, []).append(prediction)
        return dict(sorted(groups.items()))

    def by_flag(field, yes="yes", no="no"):
        return by(lambda p: [yes if p[field] else no])

    named = {name: by(lambda p: [p.get(name)]) for name in ("organ", "modality")}
    seen = {0: "unseen", 1: "seen"}
    named["image_in_training"] = by(lambda p: [seen.get(p.get("image_in_training"))])
    twins = {"twin": by_flag("twin", "with", "without")}
    typed = any(prediction["phrase_type"] for prediction in predictions)
    return {
        "question_type": by(lambda p: dict.fromkeys(p["question_types"])),
        **{name: groups for name, groups in named.items() if groups},
        **(twins if typed else {}),
        "near_identical_in_training": by_flag("near_identical_in_training"),
        "known_answer": by_flag("known_answer"),
    }


def breakdown(predictions):
    """{name: {group: entry}} of the groups of `grouped`."""
    return {
        name: {key: entry(group) for key, group in groups.items()}
        for name, groups in grouped(predictions).items()
    }


def main(arguments=None):
    from tools import compare

    compare.main(arguments)


if __name__ == "__main__":
    run_main(main)
