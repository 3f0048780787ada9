"""The content of a prepared data set, in lines of text."""

from collections import Counter

from text_rules import QUESTION_LEN


def summary(data, clean):
    """Lines of text on a RadData. `clean`: the training questions of its clean split."""
    splits = {"official": data.train, "clean": clean}
    parts = {f"training ({split})": part for split, part in splits.items()} | {"test": data.test}
    return [
        f"{data.name}: {data.folder}",
        f"prepared files: {data.prepared} (digest {data.digest})",
        f"{len(data.image_names)} images, {data.ntoken:,} words, {data.num_answers:,} answers",
        "",
        f"{'':24}{'questions':>10}{'freeform':>10}{'para':>7}{'frame':>7}{'open':>7}{'closed':>8}",
        *(_counts(title, part) for title, part in parts.items()),
        "",
        *_test_facts(data),
        *(_ceiling(split, part, data.test) for split, part in splits.items()),
    ]


def _counts(title, questions):
    """One row of the table: the questions of a part, by phrase type and answer type."""
    phrases = Counter(q.phrase_type for q in questions)
    kinds = Counter(q.answer_type for q in questions)
    return (
        f"{title:24}{len(questions):10,}{phrases['freeform']:10,}{phrases['para']:7,}"
        f"{phrases['frame']:7,}{kinds['OPEN']:7,}{kinds['CLOSED']:8,}"
    )


def _test_facts(data):
    """Lines on unknown words and answers, twins and long questions."""
    words = {word for q in data.test for word in q.unknown_words}
    unknown = sum(bool(q.unknown_words) for q in data.test)
    long = sum(len(q.words) > QUESTION_LEN for q in data.train + data.test)
    return [
        f"test questions with words that training lacks: {unknown} ({len(words)} words)",
        f"test questions with an answer that training lacks: {sum(q.label < 0 for q in data.test)}",
        "test questions that are twins (their frame record is in official training): "
        f"{sum(q.twin for q in data.test)}",
        f"questions longer than {QUESTION_LEN} words, cut: {long}",
    ]


def _ceiling(split, training, test):
    """A line on the share of test questions whose answer occurs in a split's training part."""
    known = {q.label for q in training}
    freeform = [q for q in test if q.phrase_type == "freeform"]
    shares = [
        f"{100 * sum(q.label in known for q in part) / len(part):.1f} ({title})"
        for title, part in (("freeform", freeform), ("freeform + para", test))
        if part
    ]
    return f"highest possible score, {split} split: {', '.join(shares)}"
