"""The fuzzer's targets among readers of data: VQA-RAD, organ sets, word vectors.

Each has whole files, {path: content}, and a function that reads a folder with them.
"""

import itertools
import pickle
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import dataset_RAD
from features import ImageStore, model_inputs
from readers import vectors
from readers.archive import IMAGE_INDEX, IMAGE_PICKLE
from readers.records import ARCHIVE_PICKLES, PUBLIC_JSON, TEST_JSON, TRAIN_JSON
from tests.fuzz.attempt import FOLDER, PIPE, check, write
from tests.fuzz.contents import as_json, made, png
from text_rules import build_answers, build_dictionary
from utils import SIZE

RECORD = {
    "qid": 1,
    "image_name": "pic0.png",
    "image_organ": "CHEST",
    "answer": "yes",
    "answer_type": "OPEN",
    "question_type": "PRES, ATTRIB",
    "question": "is there a mass?",
    "phrase_type": "freeform",
}
COUNTED = {"answer": 4, "answer_type": "CLOSED ", "question": "how many", "phrase_type": "para"}
TRAIN = [
    RECORD,
    RECORD | {"qid": 4, "question": "is a mass there", "phrase_type": "frame"},
    RECORD | {"qid": 2, "image_name": "pic1.png", "image_organ": "HEAD"} | COUNTED,
]
TEST = [
    RECORD | {"qid": 3, "question": "where is it?", "answer": "left"},
    RECORD | {"qid": 5, "image_name": "pic1.png", "phrase_type": "para"},
]
PHRASES = ("freeform", "para", "test_freeform", "test_para")
FRAMES = ("is a mass there", "NULL", None, " ")
PUBLIC = [
    record
    | {"phrase_type": phrase, "question_frame": frame}
    | {"question_rephrase": None, "evaluation": "evaluated"}
    for record, phrase, frame in zip(TRAIN[::2] + TEST, PHRASES, FRAMES)
]
PICTURE_FILES = {f"images/pic{i}.png": png(np.full((4, 2), 90 * i)) for i in range(2)}
PUBLIC_FILES = {PUBLIC_JSON: as_json(PUBLIC)} | PICTURE_FILES
PROCESSED_FILES = {TRAIN_JSON: as_json(TRAIN), TEST_JSON: as_json(TEST)} | PICTURE_FILES
LINES_FILES = {f"{TRAIN_JSON}l": b"\n".join(map(as_json, TRAIN)), TEST_JSON: as_json(TEST)}
LINES_FILES |= PICTURE_FILES


def make_archive():
    """The files of an authors' archive with one image."""
    lists = {TRAIN_JSON: TRAIN, TEST_JSON: TEST}
    files = {name: as_json(rows).replace(b"pic1", b"pic0") for name, rows in lists.items()}
    words, answers = build_dictionary(TRAIN), build_answers(TRAIN)
    word_index, answer_index = (
        {text: i for i, text in enumerate(texts)} for texts in (words, answers)
    )
    pixels = np.linspace(-2, 2, 3 * SIZE**2, dtype=np.float32).reshape(1, 3, SIZE, SIZE)
    values = ([word_index, words], answer_index, answers, pixels)
    for name, value in zip((*ARCHIVE_PICKLES, IMAGE_PICKLE), values):
        files[name] = pickle.dumps(value, 2)
    return files | {IMAGE_INDEX: as_json({"pic0.png": 0})}


ARCHIVE_FILES = make_archive()


class MeanCells(torch.nn.Module):
    """Stands for a base_model.ImageSide: its maps are means of an image's pixels."""

    def __init__(self):
        super().__init__()
        self.encoders, self.image_type = torch.nn.BatchNorm1d(1), None

    def maps(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 7)[:, None]  # (B, 1, 3, 7, 7)


def prepare(folder):
    """What training reads of a data set, as plain values: texts, images, frozen maps.

    The prepared files are made, or read where they were made before.
    """
    data = dataset_RAD.prepare(folder, log=lambda _: None)
    rows = list(range(len(data.image_names)))
    images = ImageStore(data.images_path)[rows]
    maps = model_inputs(MeanCells(), data, torch.device("cpu"), frozen=True)(rows)["maps"]
    arrays = [(one.dtype, one.shape, one.numpy().tobytes()) for one in (images, maps)]
    return [data.dictionary, data.answers, data.image_names, data.train, data.test, *arrays]


@cache
def prepared():
    """(what `prepare` gives for a data set, its files with the prepared ones)."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        write(folder, PROCESSED_FILES)
        content = prepare(folder)
        files = [path for path in folder.rglob("*") if path.is_file()]
        return content, {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run_prepared(folder):
    """Damage to a prepared file must be repaired."""
    check(prepare(folder) == prepared()[0], "damaged files were used")


GLOVE_TEXT = "".join(
    f"{word} {' '.join(f'{n / 50:.3f}' for n in range(50))}\n"
    for word in ("is", "it", "caf\u00e9", "not")
).encode()
BINARY_ROWS = [word + b" " + np.ones(3, "<f4").tobytes() for word in (b"</s>", b"is", b"not")]
TABLES = {
    "glove.6B.50d.txt": GLOVE_TEXT,
    "glove.840B.50d.txt": b"\xef\xbb\xbf"
    + GLOVE_TEXT.replace(b" ", b" \t").replace(b"\n", b"\r\n"),
    "glove.6B.zip": made(
        lambda file: zipfile.ZipFile(file, "w").writestr("glove.6B.50d.txt", GLOVE_TEXT)
    ),
    "BioWordVec_d3.vec.bin": b"\n".join([b"3 3", *BINARY_ROWS, b""]),
    "glove6b_init_300d.npy": made(np.save, np.ones((3, 300))),
    "biowordvec_init_200d.npy": made(np.save, np.ones((3, 200), np.float32)),
    # it will stand in place of the prepared file
    "cached.npy": made(np.save, np.zeros((3, 50), np.float32)),
}
TABLE_FILES = [
    {name: content, "cached.npy": TABLES["cached.npy"]} for name, content in TABLES.items()
]


def run_embedding(folder):
    """Both kinds of table. A prepared file that was changed may not be used."""
    (folder / "prepared").mkdir(exist_ok=True)
    words = ["is", "it", "caf\u00e9"]
    places = {"prepared": folder / "prepared", "folder": folder}
    data = SimpleNamespace(dictionary=words, ntoken=len(words), **places)

    def load(name):
        return vectors.load_embedding(data, name, None, [folder], log=lambda _: None)

    found = [load(name) for name in ("glove", "biowordvec")]
    for table, _ in filter(None, found):
        good = table.dtype == np.float32 and table.ndim == 2 and len(table) == len(words)
        check(good and np.isfinite(table).all(), "word vectors that are none")
    if found[0] and (folder / "cached.npy").is_file():
        shutil.copyfile(folder / "cached.npy", folder / "prepared" / "embedding_glove_50d.npy")
        again = load("glove")
        same = np.array_equal(again[0], found[0][0])
        check(same, "damaged prepared files were used: other word vectors")


MASKED = [[f"image{i}.png", f"mask{i}.png"] for i in range(6)]
CLASSED = [[f"image{i}.png", str(i % 2)] for i in range(6)]
BOTH = [[f"image{i}.png", f"mask{i}.png", str(i % 2)] for i in range(6)]
QUESTIONS = [{"question": "is it?", "label": 1}, {"question": "is it not?", "label": 0}]
ORGAN_FILES = {f"set/image{i}.png": png(np.full((4, 2), i)) for i in range(6)}
ORGAN_FILES |= {f"set/mask{i}.png": png([[0, 1]] * 4) for i in range(6)}
ORGAN_FILES |= {"set/loop.png": "loop.png", "set/away": "/etc", "set/pipe.png": PIPE}
ORGAN_FILES |= {"set/folder.png": FOLDER, "set/x/y.png": b"", "image.png": png([[1]])}


def make_lists():
    """Whole organ sets with list files, in every form."""
    sets = []
    named, asked = {"set/classes.txt": b"a\nb"}, {"set/questions.json": as_json(QUESTIONS)}
    for pairs, more in itertools.product((MASKED, CLASSED, BOTH), ({}, named, asked)):
        train = "\n".join(" ".join(pair) for pair in pairs[:4]).encode()
        text = {"set/train.txt": train, "set/val.txt": " ".join(pairs[4]).encode()}
        sets += [ORGAN_FILES | more | text] * 4
        objects = [dict(zip(("image", "mask", "class"), row)) for row in pairs]
        columns = dict(zip("xyz", map(list, zip(*pairs))))
        for form in (pairs, objects, {row[0]: row[-1] for row in pairs}, columns):
            sets.append(ORGAN_FILES | more | {"set/train.json": as_json(form)})
    return sets


LIST_FILES = make_lists()
FOLDER_FILES = {
    f"set/{part}{i}.png": png([[i, len(part)]])
    for part in ("train/a/", "train/b c/")
    for i in range(3)
}
FOLDER_FILES |= {"set/val/a/x.png": png([[9]])}
