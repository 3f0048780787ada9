"""The phantom's questions, in the form of the public VQA-RAD release.

Every wording has each of its answers equally often. So a model that looks at the pictures beats
one that only reads the questions.
"""

import itertools
import uuid
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RECORDS_PER_WEIGHT = 0.097  # records per image that a template of weight 1 asks for
NAMES = {
    "lesion": "mass",
    "hydrocephalus": "hydrocephalus",
    "effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "cardiomegaly": "cardiomegaly",
    "ascites": "ascites",
}
DIAGNOSES = {  # but for lesions: one is a tumor, several are metastases
    "normal": "healthy",
    "hydrocephalus": "raised pressure",
    "effusion": "pleurisy",
    "pneumothorax": "collapsed lung",
    "cardiomegaly": "heart failure",
    "ascites": "cirrhosis",
}
ORGAN_NAMES = {"HEAD": "brain", "CHEST": "chest", "ABD": "abdomen"}


class Template(NamedTuple):
    """One kind of question.

    answer: a function of a Scene, None where the question can't be asked of it. weight: the
    template's part of all questions. frame: the text of frame records.
    """

    question_type: str
    answer_type: str
    weight: int
    answer: Callable
    wordings: list
    frame: str


def yes(truth, when=True):
    """ "Yes" or "No", or None when the question can't be asked."""
    return None if not when else "Yes" if truth else "No"


TEMPLATES = [
    Template(
        "PRES",
        "CLOSED",
        3,
        lambda s: yes(s.count),
        ["Is there a mass?", "Is a mass present?", "Does the image show a mass?"],
        "Is/Are there a mass in the image?",
    ),
    *[
        Template(
            "PRES",
            "CLOSED",
            1,
            lambda s, name=name: yes(NAMES.get(s.finding) == name, s.plane == "PA"),
            [f"Is there a {name}?", f"Is a {name} present?"],
            f"Is/Are there a {name}?",
        )
        for name in ("pleural effusion", "pneumothorax")
    ],
    Template(
        "POS",
        "CLOSED",
        3,
        lambda s: s.laterality if s.count else None,
        ["Is the lesion on the left or right side?", "Is the lesion left or right sided?"],
        "Is/Are the lesion on the left or right?",
    ),
    Template(
        "POS",
        "CLOSED",
        2,
        lambda s: yes(s.laterality == "left", s.laterality and s.count),
        ["Is the lesion on the patient's left?", "Is the lesion left sided?"],
        "Is/Are the lesion on the left?",
    ),
    Template(
        "POS",
        "OPEN",
        2,
        lambda s: s.laterality,
        ["Which side is abnormal?", "On which side is the abnormality?"],
        "Which side is the abnormality on?",
    ),
    Template(
        "POS",
        "OPEN",
        3,
        lambda s: f"{s.half} {s.laterality}" if s.half and s.laterality else None,
        [
            "Where is the lesion?",
            "Where is the lesion located?",
            "In which quadrant is the lesion?",
        ],
        "Where is/are the lesion?",
    ),
    Template(
        "POS",
        "CLOSED",
        2,
        lambda s: s.half,
        ["Is the lesion in the upper or lower half?", "Is the lesion upper or lower?"],
        "Is/Are the lesion in the upper or lower half?",
    ),
    Template(
        "ABN",
        "CLOSED",
        3,
        lambda s: yes(s.finding == "normal"),
        ["Is this image normal?", "Is this a normal image?"],
        "Is/Are the image normal?",
    ),
    Template(
        "ABN",
        "CLOSED",
        2,
        lambda s: yes(s.finding != "normal"),
        ["Is there an abnormality?", "Is anything abnormal in this image?"],
        "Is/Are there an abnormality?",
    ),
    Template(
        "ABN",
        "OPEN",
        3,
        lambda s: NAMES.get(s.finding),
        ["What is the abnormality?", "What abnormality is shown?"],
        "What is/are the abnormality?",
    ),
    Template(
        "SIZE",
        "CLOSED",
        3,
        lambda s: s.size,
        ["Is the lesion large or small?", "Is this a large or small lesion?"],
        "Is/Are the lesion large or small?",
    ),
    Template(
        "SIZE",
        "CLOSED",
        1,
        lambda s: yes(s.finding == "cardiomegaly", s.plane == "PA"),
        ["Is the heart enlarged?", "Is the heart too wide?"],
        "Is/Are the heart enlarged?",
    ),
    Template(
        "SIZE",
        "CLOSED",
        1,
        lambda s: yes(s.finding == "hydrocephalus", s.organ == "HEAD" and s.plane != "sagittal"),
        ["Are the ventricles enlarged?", "Are the ventricles too wide?"],
        "Is/Are the ventricles enlarged?",
    ),
    Template(
        "SIZE",
        "OPEN",
        2,
        lambda s: s.size,
        ["How big is the lesion?", "What is the size of the lesion?"],
        "How big is/are the lesion?",
    ),
    Template(
        "ATTRIB",
        "CLOSED",
        2,
        lambda s: ("cystic" if s.cystic else "solid") if s.size == "large" else None,
        ["Is the lesion solid or cystic?", "Is this a solid or cystic lesion?"],
        "Is/Are the lesion solid or cystic?",
    ),
    Template(
        "ATTRIB",
        "CLOSED",
        2,
        # liver and spleen are never symmetric
        lambda s: yes(s.side is None, s.plane != "sagittal" and s.organ != "ABD"),
        ["Are both sides symmetric?", "Is the image symmetric?"],
        "Is/Are the two sides symmetric?",
    ),
    Template(
        "OTHER",
        "CLOSED",
        3,
        lambda s: yes(s.contrast, s.organ == "ABD"),
        ["Was contrast given?", "Was oral contrast given to the patient?"],
        "Is/Are there contrast in the bowel?",
    ),
    Template(
        "OTHER",
        "OPEN",
        4,
        lambda s: DIAGNOSES.get(s.finding) or ("tumor" if s.count == 1 else "metastases"),
        ["What is the diagnosis?", "What is the most likely diagnosis?"],
        "What is/are the diagnosis?",
    ),
    Template(
        "MODALITY",
        "OPEN",
        4,
        lambda s: s.modality,
        ["What imaging modality was used?", "How was this image taken?", "What modality is this?"],
        "What is the modality?",
    ),
    *[
        Template(
            "MODALITY",
            "CLOSED",
            2,
            lambda s, name=name: yes(s.modality == name),
            [f"Is this {a} {name}?", f"Was {a} {name} taken?"],
            f"Is/Are the image {a} {name}?",
        )
        for a, name in (("a", "CT"), ("an", "MRI"))
    ],
    Template(
        "MODALITY",
        "CLOSED",
        3,
        lambda s: s.weighting,
        ["Is this T1 or T2 weighted?", "Is this a T1 or T2 image?"],
        "Is/Are the image T1 or T2 weighted?",
    ),
    Template(
        "PLANE",
        "OPEN",
        4,
        lambda s: s.plane,
        ["What plane is this?", "In what plane is this image?"],
        "What is the plane?",
    ),
    *[
        Template(
            "PLANE",
            "CLOSED",
            2,
            lambda s, name=name: yes(s.plane == name, s.plane != "PA"),
            [f"Is this {a} {name} image?", f"Is the plane {name}?"],
            f"Is/Are the image {name}?",
        )
        for a, name in (("an", "axial"), ("a", "coronal"))
    ],
    Template(
        "COLOR",
        "CLOSED",
        3,
        lambda s: s.tone if s.organ != "CHEST" else None,
        ["Is the lesion bright or dark?", "Is this a bright or dark lesion?"],
        "Is/Are the lesion bright or dark?",
    ),
    Template(
        "COLOR",
        "OPEN",
        2,
        lambda s: s.ventricles,
        ["What color are the ventricles?", "What is the color of the ventricles?"],
        "What color is/are the ventricles?",
    ),
    Template(
        "ORGAN",
        "OPEN",
        3,
        lambda s: ORGAN_NAMES[s.organ],
        ["What organ is shown?", "What part of the body is shown?"],
        "What organ is/are shown?",
    ),
    *[
        Template(
            "ORGAN",
            "CLOSED",
            1,
            lambda s, organ=organ: yes(s.organ == organ),
            [f"Is this the {word}?", f"Is the {word} shown?"],
            f"Is/Are the {word} shown?",
        )
        for organ, word in ORGAN_NAMES.items()
    ],
    Template(
        "COUNT",
        "OPEN",
        4,
        lambda s: s.count or None,
        ["How many lesions are there?", "How many lesions are shown?"],
        "How many lesions is/are there?",
    ),
    Template(
        "COUNT",
        "CLOSED",
        2,
        lambda s: yes(s.count > 1, s.count),
        ["Is there more than one lesion?", "Are there multiple lesions?"],
        "Is/Are there more than one lesion?",
    ),
]


def records(pictures, seed=0):
    """The records of a list of Scenes: a list of dicts with the release's 14 fields.

    A para directly follows its freeform. Only training records have a frame text: a reworded
    test question in training would be a leak (docs/SPLIT.md).
    """
    rng = np.random.default_rng([seed, 2])
    asked = dict.fromkeys((scene.number for scene in pictures), 0)
    train, test = ([s for s in pictures if s.test == part] for part in (False, True))
    groups = []
    for template in TEMPLATES:
        new, answers, wordings = ask(template, train, asked, rng)
        groups += new
        known = template._replace(wordings=wordings)
        groups += ask(known, test, asked, rng, answers)[0]
    flat = itertools.chain.from_iterable(groups[i] for i in rng.permutation(len(groups)))
    return [{"qid": qid, **record} for qid, record in enumerate(flat)]


def ask(template, pictures, asked, rng, known=None):
    """One template's records of one split, each wording with each of its answers equally often.

    asked: {picture: number of its questions}, counted on in place; known: the only answers that
    may be given, None for all. Returns lists: groups of records, answers and wordings used.
    """
    by_answer = {}
    for scene in pictures:
        answer = template.answer(scene)
        if answer is not None and (known is None or answer in known):
            by_answer.setdefault(answer, []).append(scene)
    if len(by_answer) < 2:
        return [], [], []  # a single possible answer would give itself away
    # 1.5: every second question has a para
    quota = template.weight * RECORDS_PER_WEIGHT * len(pictures) / 1.5 / len(by_answer)
    each = min(max(round(quota), len(template.wordings)), *map(len, by_answer.values()))
    wordings, groups = template.wordings[:each], []
    for answer, group in by_answer.items():
        rng.shuffle(group)
        # the least asked about first
        chosen = sorted(group, key=lambda scene: asked[scene.number])[:each]
        for turn, scene in enumerate(chosen):
            count = 2 if turn % 2 == 0 and len(wordings) > 1 else 1
            texts = [wordings[(turn + i) % len(wordings)] for i in range(count)]
            asked[scene.number] += len(texts)
            pair = make_records(template, scene, answer, texts, rng)
            if turn % 4 == 0 and not scene.test:
                pair[0]["question_frame"] = template.frame
            groups.append(pair)
    return groups, list(by_answer), wordings


def make_records(template, scene, answer, texts, rng):
    """A freeform record and, with a second text, its para: a list of dicts without qid."""
    paired = len(texts) == 2
    shared = {
        "qid_linked_id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
        "image_case_url": f"https://phantom.invalid/case?id={scene.name[:-4]}",
        "image_name": scene.name,
        "image_organ": scene.organ,
        "evaluation": "evaluated" if paired else "not evaluated",
    }
    tail = {
        "question_relation": "strict agreement" if paired else "NULL",
        "question_frame": "NULL",
        "question_type": template.question_type,
        "answer": answer,
        "answer_type": template.answer_type,
    }
    phrases = ["test_freeform", "test_para"] if scene.test else ["freeform", "para"]
    return [
        {
            "phrase_type": phrase,
            **shared,
            "question": text,
            "question_rephrase": texts[1 - i] if paired else "NULL",
            **tail,
        }
        for i, (phrase, text) in enumerate(zip(phrases, texts))
    ]
