"""The numbers of the report: scores with intervals, baselines, calibration, confusion.

`rows` are the rows of predictions.json everywhere (docs/FORMATS.md section 5).
"""

from collections import Counter

from scores import entry, grouped, in_group, interval, protocol, protocols_of
from tools.equivalent import equivalent_scores
from utils import ORGANS

BINS = 10  # of the calibration
FEW = 10  # a group of fewer questions has no interval
ORGAN_NAMES = {organ.code: organ.title for organ in ORGANS}
TYPES = {  # of questions: a name, and what they ask; VQA-RAD's eleven
    "ABN": ("abnormality", "Is something abnormal, and what is it?"),
    "ATTRIB": ("attribute", "What else is a thing like, for example its shape?"),
    "COLOR": ("colour", "How bright or dark is a thing, or which colour does it have?"),
    "COUNT": ("number", "How many of a thing are there?"),
    "MODALITY": ("modality", "How was the image taken: X-ray, CT, MRI, and which kind of it?"),
    "ORGAN": ("organ", "Which organ or organ system does the image show?"),
    "OTHER": ("other", "The question fits none of the other types."),
    "PLANE": ("plane", "Is the image axial, coronal or sagittal, or from which side was it taken?"),
    "POS": ("position", "Where is a thing, and on which side?"),
    "PRES": ("presence", "Is a thing there?"),
    "SIZE": ("size", "How large is a thing, or is it larger or smaller than usual?"),
}
GROUP_TITLES = {
    "question_type": "Question type",
    "organ": "Organ",
    "modality": "Modality",
    "image_in_training": "Image seen in the training part, in another question",
    "twin": "Twin: its frame record is in official training",
    "near_identical_in_training": "Nearly identical question in the training part",
    "known_answer": "Answer known from training",
}
GROUP_NAMES = {
    "organ": ORGAN_NAMES,
    "twin": {"with": "twin", "without": "no twin"},
    "near_identical_in_training": {"yes": "there is one", "no": "there is none"},
    "known_answer": {"yes": "known", "no": "unknown"},
}
# the baselines in predictions.json, and the fields that hold their answers
BLANKED = {
    "image blanked": "answer_without_image",
    "question blanked": "answer_without_question",
    "retrieval": "answer_by_retrieval",
}


def with_answers(rows, answers):
    """The rows with other answers, scored anew."""
    return [
        row | {"answer": answer, "correct": int(answer == row["truth"])}
        for row, answer in zip(rows, answers)
    ]


def interval_of(rows):
    """[low, high] in percent, the 95% interval of the rows' score; None for fewer than FEW."""
    if len(rows) < FEW:
        return None
    return interval([row["correct"] for row in rows], [row["image"] for row in rows])


def calibration(rows):
    """Bins of equal width of the given answers' probabilities, and the calibration error.

    {"bins": [{"low", "high", "count", "confidence", "accuracy"}], "ece"}. An empty bin has the
    means None. The error is the mean over questions of |accuracy - confidence| of their bin.
    """
    members = [[] for _ in range(BINS)]
    for row in rows:
        members[min(int(BINS * row["probability"]), BINS - 1)].append(row)
    bins, error = [], 0.0
    for index, group in enumerate(members):
        count, confidence, accuracy = len(group), None, None
        if group:
            confidence = sum(row["probability"] for row in group) / count
            accuracy = sum(row["correct"] for row in group) / count
            error += count * abs(accuracy - confidence) / len(rows)
        one = {"low": index / BINS, "high": (index + 1) / BINS, "count": count}
        bins.append(one | {"confidence": confidence, "accuracy": accuracy})
    return {"bins": bins, "ece": error}


def uncalibrated(rows, results):
    """{"before", "temperature"}: the calibration error without the run's temperature, or None.

    results: of results.json. Files that test.py wrote before it calibrated have neither.
    """
    told = results.get("calibration")
    temperature = told.get("temperature") if isinstance(told, dict) else None
    values = [row.get("uncalibrated") for row in rows]
    fits = all(type(value) in (int, float) and 0 <= value <= 1 for value in values)
    if not fits or type(temperature) not in (int, float) or not 0 < temperature < 1e6:
        return {"before": None, "temperature": None}
    if temperature == 1:
        return {"before": None, "temperature": temperature}
    before = [row | {"probability": value} for row, value in zip(rows, values)]
    return {"before": calibration(before)["ece"], "temperature": temperature}


def yes_no_confusion(rows):
    """{truth: {answer: number}} of the questions whose true answer is yes or no.

    Any other answer counts as "other". A truth that no question has is left out.
    """
    table = {truth: {"yes": 0, "no": 0, "other": 0} for truth in ("yes", "no")}
    for row in rows:
        if row["truth"] in table:
            table[row["truth"]][row["answer"] if row["answer"] in table else "other"] += 1
    return {truth: given for truth, given in table.items() if any(given.values())}


def overfitting(log, epoch):
    """{"epoch", "training", "validation", "ahead", "best", "best_epoch"} of a run, or None.

    Scores in percent of the evaluated epoch, or of the last one where it is unknown; `ahead` is
    training - validation. log: rows of log.jsonl. None without rows that have both scores.
    """
    both = {row["epoch"]: row for row in log if "val_score" in row}
    if not both:
        return None
    row = both.get(epoch, both[max(both)])
    training, validation = 100 * row["train_score"], 100 * row["val_score"]
    best = max(both.values(), key=lambda row: row["val_score"])
    return {
        "epoch": row["epoch"],
        "training": training,
        "validation": validation,
        "ahead": training - validation,
        "best": 100 * best["val_score"],
        "best_epoch": best["epoch"],
    }


def majority_baseline(training, rows):
    """The rows with the most frequent answer of alike training questions (list of Question).

    Alike are those of the same question types and answer type. Where there are none, those that
    share a type and the answer type count; then those of the answer type; then all. Of equally
    frequent answers the first in training is taken.
    """
    counts = {}
    for q in training:
        keys = [
            ("exactly", frozenset(q.question_types), q.answer_type),
            ("answer type", q.answer_type),
            ("all",),
        ]
        keys += [("one type", kind, q.answer_type) for kind in set(q.question_types)]
        for key in keys:
            counts.setdefault(key, Counter())[q.answer] += 1

    def guess(row):
        for keys in (
            [("exactly", frozenset(row["question_types"]), row["answer_type"])],
            [("one type", kind, row["answer_type"]) for kind in row["question_types"]],
            [("answer type", row["answer_type"])],
            [("all",)],
        ):
            if found := [counts[key] for key in keys if key in counts]:
                return sum(found[1:], Counter(found[0])).most_common(1)[0][0]

    return with_answers(rows, map(guess, rows))


def blanked_baselines(rows):
    """{title: rows} of the model's answers with one input blanked, where the rows have them."""
    return {
        title: with_answers(rows, [row[field] for row in rows])
        for title, field in BLANKED.items()
        if all(field in row for row in rows)
    }


def groups(rows):
    """{title: {group: rows}}: the groups of `scores.grouped` under the page's names."""
    return {
        GROUP_TITLES[name]: {
            GROUP_NAMES.get(name, {}).get(key, key): members for key, members in parts.items()
        }
        for name, parts in grouped(rows).items()
    }


def score_rows(rows, baselines):
    """The lines of the score table: per protocol open, closed and all questions.

    Each line has its interval, its equivalent score (None without questions) and the scores of
    the baselines {name: rows}.
    """
    lines = []
    for name, title in protocols_of(rows).items():
        for group in ("OPEN", "CLOSED", "ALL"):
            chosen = in_group(protocol(rows, name), group)
            equivalent = equivalent_scores(chosen)["ALL"]
            theirs = [in_group(protocol(other, name), group) for other in baselines.values()]
            lines.append(
                {
                    "protocol": title,
                    "group": group.lower(),
                    "interval": interval_of(chosen),
                    **entry(chosen),
                    "equivalent": equivalent,
                    "baselines": [entry(other)["score_percent"] for other in theirs],
                }
            )
    return lines


def group_tables(rows, baselines):
    """{title: lines}: per group the entry and interval of each protocol.

    The scores of the baselines {name: rows} are those on all questions of the group.
    """
    parts = [groups(protocol(rows, name)) for name in protocols_of(rows)]
    theirs = [groups(other) for other in baselines.values()]

    def line(title, key):
        members = [part.get(title, {}).get(key, []) for part in parts]  # of each protocol
        return {
            "group": key,
            "baselines": [entry(other[title][key])["score_percent"] for other in theirs],
            "protocols": [{"interval": interval_of(some), **entry(some)} for some in members],
        }

    return {title: [line(title, key) for key in keys] for title, keys in groups(rows).items()}
