"""The fuzzer's targets among readers of other sets: SLAKE, VQA-Med, PathVQA, parquet, own."""

import pickle
from functools import cache
from importlib.util import find_spec

import numpy as np

from readers.slake import read_structures
from tests.fuzz.contents import as_json, as_parquet, png

PICTURES = [png(np.full((4, 2), 90 * number)) for number in range(3)]
OWN = [{"image": f"a/pic{i}.png", "question": "is it a mass?", "answer": "yes"} for i in range(3)]
OWN_FILES = {"trainset.json": as_json(OWN[:2]), "testset.json": as_json(OWN[2:])}
OWN_FILES |= {"valset.json": as_json(OWN[:1])}
OWN_FILES |= {f"images/a/pic{i}.png": content for i, content in enumerate(PICTURES)}

SLAKE = [
    {
        "img_id": number,
        "img_name": f"xmlab{number % 3}/source.png",
        "question": "is it normal?",
        "answer": "" if number == 1 else "Yes",
        "q_lang": "zh" if number == 2 else "en",
        "location": "Lung",
        "modality": "CT",
        "answer_type": "CLOSED",
        "content_type": "Organ",
        "triple": ["vhead", "_", "_"],
        "qid": number,
    }
    for number in range(6)
]
SLAKE_FILES = {"train.json": as_json(SLAKE[:4]), "validate.json": as_json(SLAKE[4:5])}
SLAKE_FILES |= {"test.json": as_json(SLAKE[5:])}
SLAKE_FILES |= {f"imgs/xmlab{i}/source.png": content for i, content in enumerate(PICTURES)}
STRUCTURE_FILES = {"mask.txt": "70:Liver\n155: Right Kidney\n".encode()}
STRUCTURE_FILES |= {f"imgs/xmlab{i}/mask.png": png([[0, 70], [155, i]]) for i in range(2)}


def run_structures(folder):
    """The masks' structures; each image has a list of names, or none."""
    names = [record["img_name"] for record in SLAKE]
    for name, structures in read_structures(folder, names, lambda _: None).items():
        if name not in names or not all(isinstance(one, str) for one in structures):
            raise TypeError(f"{name} has {structures}")


def _vqa_med(part, title, number):
    """The files of a part of VQA-Med with one image."""
    place, name = f"VQA-Med-{title}", f"synpic{number}"
    lists = {"C1_Modality": "is it ct?|no", "C2_Plane": "which?|axial", "C3_Organ": "which?|lung"}
    files = {
        f"{place}/QAPairsByCategory/{key}_{part}.txt": f"{name}|{text}\n".encode()
        for key, text in lists.items()
    }
    return files | {f"{place}/{part}_images/{name}.png": PICTURES[number]}


VQA_MED_FILES = _vqa_med("train", "Training", 1) | _vqa_med("val", "Validation", 2)
TEST_LIST = b"synpic0|modality|is it ct?|maybe#no\nsynpic0|organ|which?|caf\xe9"
TESTED_FILES = VQA_MED_FILES | {"Test/VQAMed_Test_Questions_w_Ref_Answers.txt": TEST_LIST}
TESTED_FILES |= {"Test/Test_Images/synpic0.png": PICTURES[0]}


ASKED = {"image": "pic", "question": "is it a nerve?", "answer": "yes"}
PATH_VQA_FILES = {f"images/{part}/pic.png": PICTURES[1] for part in ("train", "val", "test")}
PICKLED_FILES = PATH_VQA_FILES | {
    f"qas/{part}_qa.pkl": pickle.dumps([ASKED, ASKED]) for part in ("train", "test")
}
PATH_VQA_FILES |= {f"qas/{part}/{part}_qa.json": as_json([ASKED]) for part in ("train", "val")}
PATH_VQA_FILES |= {"qas/test/test_qa.json": as_json([ASKED, ASKED | {"answer": ""}])}


@cache
def parquet_files():
    """Whole cases of parquet; none where pyarrow is not installed."""
    if not find_spec("pyarrow"):
        return []
    rows = [
        {"image": {"bytes": content, "path": f"{i}.png"}, "question": "is it?", "answer": "no"}
        for i, content in enumerate(PICTURES)
    ]
    named = [{"image": "pic.png", "question": "is it?", "answer": "no", "location": "Head"}]
    return [
        {"data/train-0.parquet": as_parquet(rows[:2]), "data/test-0.parquet": as_parquet(rows[2:])},
        {"train.parquet": as_parquet(named), "test.parquet": as_parquet(named)}
        | {"images/pic.png": PICTURES[0]},
    ]
