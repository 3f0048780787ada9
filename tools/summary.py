"""dataset_RAD.py's command line: downloads, and the content of a data set in lines of text."""

import argparse
from collections import Counter

from dataset_RAD import find_data, training_questions
from readers.download import GLOVE_URL, NoNetwork, download_glove, download_public
from readers.find import data_home
from readers.sets import add_options
from scores import ONE_PROTOCOL, PROTOCOLS
from text_rules import QUESTION_LEN
from utils import UserError


def summary(data, clean):
    """Lines of text on a RadData.

    clean: the training questions of its clean split; None for a set that has no splits.
    """
    splits = {"official": data.train, "clean": clean} if clean else {"": data.train}
    parts = {f"training{split and f' ({split})'}": part for split, part in splits.items()}
    parts |= ({"validation": data.validation} if data.validation else {}) | {"test": data.test}
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
    """A line on the share of test questions whose answer occurs in a split's training part.

    split: its name, or "" for the only one.
    """
    known = {q.label for q in training}
    typed = any(q.phrase_type for q in test)
    parts = {
        title: [q for q in test if name == "all" or q.phrase_type == name]
        for name, title in (PROTOCOLS if typed else ONE_PROTOCOL).items()
    }
    shares = [
        f"{100 * sum(q.label in known for q in part) / len(part):.1f} ({title})"
        for title, part in parts.items()
        if part
    ]
    return f"highest possible score{split and f', {split} split'}: {', '.join(shares)}"


def main(arguments=None):
    """Command line: prepare the data set and print its content, or only download."""
    style = argparse.ArgumentDefaultsHelpFormatter
    text = "Prepare a data set and print its content."
    parser = argparse.ArgumentParser(description=text, formatter_class=style)
    add = parser.add_argument
    text = "folder with the data (None: data_RAD, or a download)"
    add("--RAD_dir", "--data_dir", metavar="DIR", help=text)
    add_options(add)
    add("--download", action="store_true", help="only fetch the public release")
    add("--download_glove", action="store_true", help="only fetch GloVe (glove.6B.zip, 0.8 GB)")
    options = parser.parse_args(arguments)
    try:
        if options.download:
            print(f"VQA-RAD, public release: {download_public(data_home() / 'public')}")
        if options.download_glove:
            print(f"GloVe 6B: {download_glove(data_home())}")
    except NoNetwork as error:
        raise UserError(
            f"nothing was downloaded ({error}); try again with a network, or get VQA-RAD from "
            f"https://osf.io/89kps/ and GloVe from {GLOVE_URL}"
        ) from None
    if not (options.download or options.download_glove):
        data = find_data(options.RAD_dir, vars(options))
        clean = training_questions(data, "clean") if data.frames else None
        print("\n".join(summary(data, clean)))
