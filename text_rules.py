"""Questions to tokens, answers to classes (docs/FORMATS.md section 3)."""

import re

from readers.plain_text import plain_text, spaced

QUESTION_LEN = 12  # words kept of a question


def tokenize(question):
    """All words of a question; each Chinese character is one."""
    text = spaced(plain_text(question)).lower()
    for tail in ("? -yes/no", "? -open", "? - open"):
        text = text.replace(tail, "")
    text = text.replace(",", "").replace("?", "").replace("'s", " 's").replace("...", "")
    return text.replace("x ray", "x-ray").replace(".", "").split()


def encode(words, word2idx, length=QUESTION_LEN):
    """Two tuples: the token ids of the first `length` words, and the unknown ones among these.

    The ids are padded on the right with len(word2idx). An unknown word gets the padding id too.
    """
    padding, words = len(word2idx), words[:length]
    ids = [word2idx.get(word, padding) for word in words] + [padding] * (length - len(words))
    return tuple(ids), tuple(word for word in words if word not in word2idx)


# The VQA evaluation puts back the apostrophes that people leave out. These are its targets; each
# is looked up by the target without one of its apostrophes ("couldnt've", "couldn'tve").
# "lets", "shes" and "wed" are not in its list.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
""".split()
_CONTRACTIONS = {
    word[: mark.start()] + word[mark.end() :]: word
    for word in _CONTRACTED
    for mark in re.finditer("'", word)
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # an oddity of the evaluation's list, kept
_DIGITS = "zero one two three four five six seven eight nine ten".split()
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_DIGITS)}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def normalise_answer(answer):
    """The VQA v1/v2 evaluation's normal form of an answer, text or number.

    Then "," is removed and "x ray" becomes "xray".
    """
    raw = text = plain_text(str(answer))
    number_comma = re.search(r"\d,\d", raw) is not None
    for mark in _PUNCTUATION:
        beside_space = mark + " " in raw or " " + mark in raw
        text = text.replace(mark, "" if beside_space or number_comma else " ")
    # the evaluation passes a flag (32) where the count belongs
    text = re.sub(r"\.(?!\d)", "", text, count=32)
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    words = [_CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the")]
    return " ".join(words).replace(",", "").replace("x ray", "xray")


_CLOSED = set("is are does do was were can could has have did will should".split())
_OPEN = set("what where which how who when why".split())


def allowed_answers(question, answers):
    """The form rule: for each of some normal answers, whether the question's form allows it.

    docs/FORMATS.md section 3 has the rule. Where it knows none or would allow none, all are.
    """
    words = normalise_answer(re.sub("[,/-]", " ", question)).replace("yes or no", "").split()
    yes_no = [answer in ("yes", "no") for answer in answers]
    allowed, choice = [], "or" in words
    if choice and "there" not in words[1:3]:  # "is there A or B?" may well ask for yes or no
        offered = set(words)
        allowed = [not no and set(a.split()) <= offered for a, no in zip(answers, yes_no)]
    elif not choice and words[:1] and words[0] in _CLOSED:
        allowed = yes_no
    if not any(allowed) and words[:1] and words[0] in _OPEN:
        allowed = [not no for no in yes_no]
    return allowed if any(allowed) else [True] * len(answers)


def build_dictionary(train_records):
    """The training questions' words in order of first occurrence; the index is the token id."""
    words = (word for record in train_records for word in tokenize(record["question"]))
    return list(dict.fromkeys(words))


def build_answers(train_records):
    """The training questions' normal answers in order of first occurrence: the classes."""
    return list(dict.fromkeys(normalise_answer(record["answer"]) for record in train_records))
