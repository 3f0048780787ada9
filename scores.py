"""Scores and the results files' schema (DESIGN section 5).

A prediction is a dictionary as in predictions.json. A score is 1 if the arg-max answer equals the normalised ground truth.
"""
from collections import Counter

GROUPS = ("CLOSED", "OPEN", "ALL")


def entry(predictions):
    """The official schema's entry for some predictions: counts, and the share that is right, as fraction and percent.

    `real` counts the questions whose answer is a known class: real_percent is the ceiling of score_percent.
    """
    count = len(predictions)
    real = sum(p["known_answer"] for p in predictions)
    true = sum(p["correct"] for p in predictions)
    score = true / count if count else 0.0
    return {"count": count, "real": real, "true": true, "real_percent": round(100 * real / count, 1) if count else 0.0,
            "score": score, "score_percent": round(100 * score, 1)}


def table(predictions):
    """{"CLOSED" | "OPEN" | "ALL": entry} in the official schema."""
    return {group: entry([p for p in predictions if group in ("ALL", p["answer_type"])]) for group in GROUPS}


def protocol(predictions, name):
    """The questions that a protocol scores: "freeform" alone, or "all" for freeform + para (DESIGN section 1)."""
    return [p for p in predictions if name == "all" or p["phrase_type"] == "freeform"]


def breakdown(predictions):
    """Entries per question type (a question with two types counts in both), per organ, and by what training has seen.

    `twin`: with a twin, that is, with its own rewording among the official split's "frame" training records (DESIGN section 1:
    the split leaks), against without. `near_identical_in_training`: the same image, answer and nearly the same words in
    the training part that was used. Empty groups are left out.
    """
    def by(keys_of):
        groups = {}
        for prediction in predictions:
            for key in keys_of(prediction):
                groups.setdefault(key, []).append(prediction)
        return {key: entry(group) for key, group in sorted(groups.items())}
    return {
        "question_type": by(lambda p: dict.fromkeys(p["question_types"])),
        "organ": by(lambda p: [p["organ"]]),
        "twin": by(lambda p: ["with" if p["twin"] else "without"]),
        "near_identical_in_training": by(lambda p: ["yes" if p["near_identical_in_training"] else "no"]),
        "known_answer": by(lambda p: ["yes" if p["known_answer"] else "no"]),
    }


def near_identical(question, training):
    """True if a training question on the same image has the same answer and nearly the same words.

    Nearly the same: the two multisets of words share at least 80% (intersection over union). `question` is a list of words,
    `training` the lists of words of the training questions on the same image with the same answer.
    """
    words = Counter(question)
    for other in training:
        other = Counter(other)
        if sum((words & other).values()) >= 0.8 * sum((words | other).values()):
            return True
    return False


def format_table(results):
    """The table that test.py prints: open, closed, all in percent for both protocols, each with its ceiling and counts.

    `results` maps protocol name to `table(...)`.
    """
    lines = [f"{'':18} {'open':>7} {'closed':>7} {'all':>7} {'ceiling':>8}   questions (open, closed)"]
    for name, scores in results.items():
        cells = [f"{scores[group]['score_percent']:>7.1f}" for group in ("OPEN", "CLOSED", "ALL")]
        lines.append(f"{name:18} {' '.join(cells)} {scores['ALL']['real_percent']:>8.1f}   {scores['ALL']['count']} "
                     f"({scores['OPEN']['count']}, {scores['CLOSED']['count']})")
    return "\n".join(lines)
