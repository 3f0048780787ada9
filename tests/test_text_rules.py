"""Text rules against the official code's fixtures, and by hand."""

import numpy as np
import pytest
from helpers import load

from readers.plain_text import plain_text
from text_rules import (
    allowed_answers,
    build_answers,
    build_dictionary,
    encode,
    normalise_answer,
    tokenize,
)


def test_questions_match_the_official_code():
    for question, words in load("parity", "questions.json"):
        assert tokenize(question) == words, question


def test_answers_match_the_official_code():
    for answer, normal in load("parity", "answers.json"):
        assert normalise_answer(answer) == normal, answer


@pytest.mark.parametrize(
    "answer, normal",
    [
        (4, "4"),
        ("A/P", "p"),
        ("1,000 mL.", "1000 ml"),
        ("3.4 cm.", "3.4 cm"),
        ("couldnt've", "couldn't've"),
        ("dont", "don't"),
        ("lets", "lets"),
        ("Ten ribs", "10 ribs"),
        ("The x-ray", "xray"),
        ("right-sided", "right sided"),
        ("MRI - T1", "mri t1"),
        ("", ""),
    ],
)
def test_answer_rules(answer, normal):
    assert normalise_answer(answer) == normal


@pytest.mark.parametrize(
    "typeset, plain",
    [
        ("Is the patient\u2019s lung normal?", "Is the patient's lung normal?"),
        ("Is the patient\u2018s\u02bcs\u2032s\u00b4s lung", "Is the patient's's's's lung"),
        ("Is the patient`s lung normal?", "Is the patient's lung normal?"),
        ("\u201cmass\u201d or \u00abmass\u00bb", '"mass" or "mass"'),
        ("Ｉｓ　ｔｈｅ　ｌｕｎｇ　ｎｏｒｍａｌ？", "Is the lung normal?"),
        ("Is it，a．mass？ －yes／no", "Is it,a.mass? -yes/no"),
        ("x\u00a0ray or x\u202fray or x\u2011ray", "x ray or x ray or x-ray"),
        ("right\u2010sided, T1\u2013T2 \u2014 or \u22122", "right-sided, T1-T2 - or -2"),
        ("mass\u2026", "mass..."),
        ("\ufefflu\u00adng\u200b", "lung"),
        ("ro\u0308ntgen", "r\u00f6ntgen"),
    ],
)
def test_typeset_marks_are_read_as_the_plain_ones(typeset, plain):
    assert tokenize(typeset) == tokenize(plain)
    assert normalise_answer(typeset) == normalise_answer(plain)


def test_typeset_answers():
    assert normalise_answer("don\u2019t know") == "don't know" == normalise_answer("don`t know")
    assert normalise_answer("right\u2010sided") == "right sided"
    assert normalise_answer("Ｙｅｓ．") == "yes" and normalise_answer("x\u00a0ray") == "xray"
    assert tokenize("it\ufffds µm²") == ["it\ufffds", "µm²"]  # no other mark is changed


def test_no_real_record_holds_such_marks():
    rows = load("vqa_rad", "trainset.json") + load("vqa_rad", "testset.json")
    texts = [str(row[field]) for row in rows for field in ("question", "answer")]
    assert len(texts) == 2 * 3064 and all(plain_text(text) == text for text in texts)


def test_encode_pads_cuts_and_reports_unknown_words():
    word2idx = {"is": 0, "it": 1}
    tokens, unknown = encode(tokenize("Is it, LARGE?"), word2idx)
    assert tokens == (0, 1) + (2,) * 10 and unknown == ("large",)
    assert encode(["is"] * 20, word2idx, 5) == ((0,) * 5, ())
    # words that are cut are not unknown
    assert encode(["is", "large", "small"], word2idx, 2) == ((0, 2), ("large",))


def test_vocabulary_of_the_development_split():
    facts, train = load("parity", "vocabulary.json"), load("vqa_rad", "trainset.json")
    words, answers = build_dictionary(train), build_answers(train)
    assert (len(words), len(answers)) == (facts["ntoken"], facts["num_answers"])
    for values, what in ((words, "words"), (answers, "answers")):
        first, last = facts["first_" + what], facts["last_" + what]
        assert values[: len(first)] == first and values[-len(last) :] == last
    coverage, known = facts["test_answer_coverage"], set(answers)
    test = load("vqa_rad", "testset.json")
    parts = {
        "all": test,
        "freeform": [r for r in test if r["phrase_type"] == "freeform"],
        "open": [r for r in test if r["answer_type"] == "OPEN"],
        "closed": [r for r in test if r["answer_type"] != "OPEN"],
    }
    for part, records in parts.items():
        share = np.mean([normalise_answer(r["answer"]) in known for r in records])
        assert round(100 * share, 2) == coverage[part]


CLASSES = ["ct", "mri", "yes", "no", "xray", "2", "left", "right side", "hypodense"]
NEITHER = ["ct", "mri", "xray", "2", "left", "right side", "hypodense"]


@pytest.mark.parametrize(
    "question, expected",
    [
        ("is this a CT or MRI image?", ["ct", "mri"]),
        ("Is there a mass?", ["yes", "no"]),
        ("Is/Are there a mass in the liver?", ["yes", "no"]),
        ("WAS the x-ray taken today", ["yes", "no"]),
        ("What kind of scan is this?", NEITHER),
        ("how many masses", NEITHER),
        ("is the mass on the left or right?", ["left"]),
        ("Is the mass left- or right-sided, or is this x-ray/CT normal?", ["ct", "xray", "left"]),
        ("Is the mass on the left or the right side?", ["left", "right side"]),
        ("Was it a CT or no CT?", ["ct"]),
        ("Is this a CT, yes or no?", ["yes", "no"]),
        ("Yes or no: is it on the left or right?", ["left"]),
        ("Which is it,x ray or CT?", ["ct", "xray"]),
        ("Are there one or two masses?", CLASSES),  # may ask for yes or no
        ("Is it round or oval?", CLASSES),  # no class is offered
        ("Which is larger, spleen or liver?", NEITHER),
        ("Describe the lesion.", CLASSES),
        ("There is a mass, isn't it?", CLASSES),
        ("这张图是什么模态?", CLASSES),
        ("?", CLASSES),
    ],
)
def test_the_form_rule(question, expected):
    allowed = allowed_answers(question, CLASSES)
    assert [answer for answer, one in zip(CLASSES, allowed) if one] == expected


def test_the_form_rule_allows_what_it_can():
    assert allowed_answers("Is there a mass?", ["left", "no"]) == [False, True]
    assert allowed_answers("Is there a mass?", ["left", "right"]) == [True, True]
    assert allowed_answers("What is it?", ["yes", "no"]) == [True, True]


def test_few_real_training_answers_break_the_form_rule():
    records = load("vqa_rad", "trainset.json")
    answers, broken, closed = build_answers(records), 0, 0
    place = {answer: index for index, answer in enumerate(answers)}
    for record in records:
        allowed = allowed_answers(record["question"], answers)
        broken += not allowed[place[normalise_answer(record["answer"])]]
        closed += sum(allowed) == 2
    assert broken == 16 and closed > 800  # of 2,613
