"""Scores against cases counted by hand."""
from scores import breakdown, entry, format_table, near_identical, protocol, table


def prediction(correct, answer_type="OPEN", phrase="freeform", known=1, types=("PRES",), organ="HEAD", twin=0):
    return {"correct": correct, "answer_type": answer_type, "phrase_type": phrase, "known_answer": known, "question_types": list(types),
            "organ": organ, "twin": twin, "near_identical_in_training": 0}


FIVE = [prediction(1), prediction(0, known=0, types=("PRES", "POS")), prediction(1, "CLOSED", twin=1), prediction(0, "CLOSED", "para"),
        prediction(1, "CLOSED", "para", organ="CHEST", types=("POS", "POS"))]


def test_table_in_the_official_schema():
    assert table(protocol(FIVE, "freeform")) == {
        "CLOSED": {"count": 1, "real": 1, "true": 1, "real_percent": 100.0, "score": 1.0, "score_percent": 100.0},
        "OPEN": {"count": 2, "real": 1, "true": 1, "real_percent": 50.0, "score": 0.5, "score_percent": 50.0},
        "ALL": {"count": 3, "real": 2, "true": 2, "real_percent": 66.7, "score": 2 / 3, "score_percent": 66.7}}
    assert table(protocol(FIVE, "all"))["ALL"] == {"count": 5, "real": 4, "true": 3, "real_percent": 80.0, "score": 0.6, "score_percent": 60.0}


def test_no_questions_score_zero():
    assert entry([]) == {"count": 0, "real": 0, "true": 0, "real_percent": 0.0, "score": 0.0, "score_percent": 0.0}


def test_breakdown():
    groups = breakdown(FIVE)
    assert groups["question_type"]["PRES"]["count"] == 4 and groups["question_type"]["POS"]["count"] == 2  # two types count in both
    assert groups["question_type"]["POS"]["true"] == 1
    assert groups["organ"]["CHEST"]["true"] == 1 and groups["organ"]["HEAD"]["count"] == 4
    assert groups["twin"]["with"]["count"] == 1 and groups["twin"]["without"]["true"] == 2


def test_near_identical_words():
    training = [("is", "there", "a", "mass"), ("where", "is", "it")]
    assert near_identical(("is", "there", "a", "mass"), training)
    assert near_identical(("is", "there", "a", "mass", "here"), training)  # 4 of 5
    assert not near_identical(("is", "there", "a", "fracture"), training)  # 3 of 5
    assert not near_identical(("is",), [])


def test_printed_table():
    text = format_table({"freeform": table(protocol(FIVE, "freeform"))})
    assert text.splitlines()[1].split() == ["freeform", "50.0", "100.0", "66.7", "66.7", "3", "(2,", "1)"]
