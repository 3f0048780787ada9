"""VQA-RAD: the user's files -> prepared files -> tensors (DESIGN sections 1, 3 and 9).

python dataset_RAD.py [--RAD_dir DIR]    prepare the data set and print what it holds
python dataset_RAD.py --download         fetch the public release from OSF into data_RAD/public, nothing else
python dataset_RAD.py --download_glove   fetch the GloVe word vectors into data_RAD, nothing else
"""

import argparse
import contextlib
import functools
import hashlib
import io
import os
import pickle
import random
import re
import shutil
import struct
import tempfile
import threading
import time
import warnings
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from utils import (
    UserError,
    atomic_h5,
    atomic_path,
    digest_bytes,
    digest_files,
    read_json,
    run_main,
    write_json,
)

ORGANS = ("ABD", "HEAD", "CHEST")
QUESTION_LEN = 12
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet

DATA_RAD = Path(__file__).resolve().parent / "data_RAD"
PUBLIC_JSON, IMAGE_FOLDER = "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"
TRAIN_JSON, TEST_JSON = "trainset.json", "testset.json"
ARCHIVE_PICKLES = ("dictionary.pkl", "cache/trainval_ans2label.pkl", "cache/trainval_label2ans.pkl")
IMAGE_PICKLE, IMAGE_INDEX = "images224x224.pkl", "imgid2idx.json"
H5_NAME = "images224x224.h5"
NAMES = {
    "public": "VQA-RAD, public release",
    "processed": "VQA-RAD, processed split",
    "archive": "VQA-RAD, authors' archive",
}
PHANTOM_MARK = "PHANTOM.txt"  # a folder with this file holds drawings, whatever its JSON says
PREPARED_VERSION = "1"  # raise it when prepared files must be made anew
MAX_PIXELS = 80_000_000  # of one image
MAX_TEXT = 10_000  # characters of a record's field: its words take 30 times the memory
LISTED = 20  # names in an error message before "and N more"

OSF_API = "https://api.osf.io/v2/nodes/89kps/files/osfstorage/"
GLOVE_URL = "https://nlp.stanford.edu/data/glove.6B.zip"
CONNECT_SECONDS, ATTEMPTS = 10, 3


# ---------------------------------------------------------------- text rules (DESIGN 3.3)


def tokenize(question):
    """The words of a question, not cut to 12 (DESIGN 3.3)."""
    text = question.lower()
    for tail in ("? -yes/no", "? -open", "? - open"):
        text = text.replace(tail, "")
    text = text.replace(",", "").replace("?", "").replace("'s", " 's").replace("...", "")
    return text.replace("x ray", "x-ray").replace(".", "").split()


def encode(question, word2idx, length=QUESTION_LEN):
    """Token ids of the first `length` words, padded on the right with len(word2idx); and those of these words that are unknown.

    An unknown word gets the padding id too (DESIGN 3.3).
    """
    padding = len(word2idx)
    words = tokenize(question)[:length]
    ids = [word2idx.get(word, padding) for word in words]
    return ids + [padding] * (length - len(ids)), [word for word in words if word not in word2idx]


# The VQA evaluation puts back the apostrophes that people leave out. These are its targets; the key of each is the target
# without one of its apostrophes ("couldnt've", "couldn'tve"). "lets", "shes" and "wed" are not in its list.
_CONTRACTED = """ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't
'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've
'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've""".split()
_CONTRACTIONS = {
    word[: m.start()] + word[m.end() :]: word
    for word in _CONTRACTED
    for m in re.finditer("'", word)
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # an oddity of the evaluation's list, kept
_NUMBERS = {
    "none": "0",
    **{
        word: str(n)
        for n, word in enumerate("zero one two three four five six seven eight nine ten".split())
    },
}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def normalise_answer(answer):
    """The VQA v1/v2 evaluation's normal form of an answer, then "," removed and "x ray" -> "xray" (DESIGN 3.3). Ints are accepted."""
    raw = text = str(answer)
    number_comma = re.search(r"\d,\d", raw) is not None
    for mark in _PUNCTUATION:
        beside_space = mark + " " in raw or " " + mark in raw
        text = text.replace(mark, "" if beside_space or number_comma else " ")
    text = re.sub(
        r"\.(?!\d)", "", text, count=32
    )  # the evaluation passes a flag (32) where the count belongs
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    words = [_CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the")]
    return " ".join(words).replace(",", "").replace("x ray", "xray")


def build_dictionary(train_records):
    """The training questions' words in order of first occurrence; a word's index is its token id."""
    return list(
        dict.fromkeys(word for record in train_records for word in tokenize(record["question"]))
    )


def build_answers(train_records):
    """The training questions' normalised answers in order of first occurrence; an answer's index is its class."""
    return list(dict.fromkeys(normalise_answer(record["answer"]) for record in train_records))


# ---------------------------------------------------------------- records

_FIELDS = (
    "qid",
    "image_name",
    "image_organ",
    "answer",
    "answer_type",
    "question_type",
    "question",
    "phrase_type",
)


def convert_public(records):
    """The public release's records -> (training, test) records of the processed split, each sorted by qid (DESIGN 3.1).

    Records are numbered from 1 in the order of their qid. One with a `question_frame` is followed by a frame record, which goes to
    training even when its source is a test record: that is the leak of DESIGN 1. Everything else is copied unchanged.
    """
    train, test, number = [], [], 0
    for record in sorted(records, key=lambda record: int(record["qid"])):
        number += 1
        phrase = record["phrase_type"]
        new = {field: record[field] for field in _FIELDS} | {
            "qid": number,
            "phrase_type": phrase.removeprefix("test_"),
        }
        (test if phrase.startswith("test_") else train).append(new)
        frame = record.get("question_frame")
        if isinstance(frame, str) and frame.strip().upper() != "NULL" and tokenize(frame):
            number += 1
            train.append(new | {"qid": number, "question": frame, "phrase_type": "frame"})
    return train, test


def check_records(records, source):
    """Return clean copies of the records of `source` (a path, for messages): qid an int, names and types stripped, phrase type lower-case.

    Raises UserError that names the record and the field for anything that can't be used.
    """
    if not isinstance(records, list):
        raise UserError(f"{source} must hold a list of records, not {type(records).__name__}")
    clean = []
    for index, record in enumerate(records):
        where = f"{source}, record {index} (counting from 0)"
        if not isinstance(record, dict):
            raise UserError(f"{where}: it is not an object but {type(record).__name__}; correct it")
        where = where[:-1] + f", qid {str(record.get('qid'))[:40]})"
        for field in _FIELDS:
            if record.get(field) is None:
                raise UserError(f"{where} lacks the field {field!r}; add it, or get the file again")
        clean.append(_check_record(record, where))
    return clean


def _is_text(value):
    """True for a string that can be written as UTF-8 (JSON can hold halves of a character)."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _check_record(record, where):
    """One clean record; raises UserError."""
    new = dict(record)
    for field in _FIELDS[1:]:
        value = record[field]
        if field == "answer" and isinstance(value, (int, float)) and not isinstance(value, bool):
            continue
        if not isinstance(value, str):
            raise UserError(
                f"{where}: the field {field!r} must be text, not {type(value).__name__}; correct it"
            )
        if len(value) > MAX_TEXT:
            raise UserError(
                f"{where}: the field {field!r} has {len(value):,} characters, more than {MAX_TEXT:,}; correct it"
            )
        if not _is_text(value):
            raise UserError(
                f"{where}: the field {field!r} holds half a character (a lone surrogate); correct it"
            )
        new[field] = value if field == "answer" else value.strip()
    if (
        not _is_text(record.get("question_frame", ""))
        or len(record.get("question_frame", "")) > MAX_TEXT
    ):
        new["question_frame"] = None
    try:
        qid = record["qid"]
        new["qid"] = int(qid)
        if isinstance(qid, bool) or new["qid"] != float(qid):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{where}: the qid must be a whole number; correct it") from None
    name = new["image_name"]
    if not name or ".." in name or any(mark in name for mark in "/\\\0"):
        raise UserError(
            f"{where}: image_name {name[:60]!r} must be a plain file name, without folders or '..'; correct it"
        )
    new["image_organ"] = new["image_organ"].upper()
    if new["image_organ"] not in ORGANS:
        raise UserError(
            f"{where}: unknown image_organ {record['image_organ'][:60]!r}, it must be one of {', '.join(ORGANS)}; correct it"
        )
    new["answer_type"] = new["answer_type"].upper()
    if new["answer_type"] not in ("OPEN", "CLOSED"):
        raise UserError(
            f"{where}: answer_type {record['answer_type'][:60]!r} must be OPEN or CLOSED; correct it"
        )
    if not tokenize(new["question"]):
        raise UserError(f"{where}: the question is empty; correct it or take the record out")
    new["phrase_type"] = new["phrase_type"].lower()
    if new["phrase_type"].removeprefix("test_") not in ("freeform", "para", "frame"):
        raise UserError(
            f"{where}: unknown phrase_type {record['phrase_type'][:60]!r}, it must be freeform, para, frame, "
            "test_freeform or test_para; correct it"
        )
    return new


def _check_unique(records, source):
    """Raise UserError when two records have one qid."""
    count = Counter(record["qid"] for record in records)
    twice = [str(qid)[:40] for qid, n in count.items() if n > 1]
    if twice:
        raise UserError(
            f"{source}: qid {_shorten(twice)} occurs more than once; every record needs a qid of its own"
        )


def read_records(folder, kind):
    """Clean (training, test) records in the processed form, and the JSON files that they come from. Raises UserError."""
    if kind == "public":
        paths = [folder / PUBLIC_JSON]
        records = check_records(read_json(paths[0]), paths[0])
        _check_unique(records, paths[0])
        train, test = convert_public(records)
    else:
        paths = [folder / TRAIN_JSON, folder / TEST_JSON]
        train, test = (check_records(read_json(path), path) for path in paths)
        _check_unique(train + test, f"{folder} ({TRAIN_JSON} and {TEST_JSON})")
        for record in train + test:
            record["phrase_type"] = record["phrase_type"].removeprefix("test_")
    if not train or not test:
        part, path = ("test", paths[-1]) if train else ("training", paths[0])
        raise UserError(f"{folder}: there are no {part} questions in {path.name}; get it again")
    if any(record["phrase_type"] == "frame" for record in test):
        raise UserError(
            f"{folder}: a test question has the phrase_type 'frame', which no protocol scores; move it to {TRAIN_JSON}"
        )
    return train, test, paths


def _shorten(names):
    """Up to 20 names, then "and N more"."""
    return ", ".join(names[:LISTED]) + (
        f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    )


# ---------------------------------------------------------------- the authors' pickles


class _PickledDtype:
    """Stands for numpy.dtype while a pickle is read: plain numbers only. (A pickle could set a real dtype's flags and corrupt memory.)"""

    def __init__(self, spec, *_):
        if not re.fullmatch(r"[biufc]\d{1,2}", str(spec)):
            raise UserError(f"an array of type {str(spec)[:20]!r} is not plain numbers")
        self.dtype = np.dtype(spec)

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(state[1] if state[1] in ("<", ">") else "=")


class _PickledArray:
    """Stands for numpy.ndarray while a pickle is read."""

    def __init__(self, *_):
        self.array = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


def _pickled_buffer(data, dtype, shape, order, axes=None):
    array = _PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", data))
    if order == "K" and axes is not None:
        array.array = array.array.transpose(axes)
    return array


def _latin1(text, _="latin1"):
    return text.encode("latin1")


# What a pickled array of numbers names, each replaced by one of ours that can do no more than that.
_PICKLE_NAMES = {
    ("numpy", "dtype"): _PickledDtype,
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): _latin1,
}
for _core in ("numpy.core.", "numpy._core."):
    _PICKLE_NAMES[_core + "multiarray", "_reconstruct"] = _PickledArray
    _PICKLE_NAMES[_core + "multiarray", "scalar"] = lambda dtype, data: np.frombuffer(
        data, dtype.dtype, 1
    )[0].item()
    _PICKLE_NAMES[_core + "numeric", "_frombuffer"] = _pickled_buffer


class RestrictedUnpickler(pickle._Unpickler):
    """Reads plain data and numeric numpy arrays. Any other class or function is refused before anything of it runs.

    The one in Python: the one in C fills the memory where a pickle numbers an object 2**31.
    """

    def load_build(self):
        if not isinstance(
            self.stack[-2], (_PickledArray, _PickledDtype)
        ):  # else it could change attributes of what is in _PICKLE_NAMES
            raise UserError("it sets attributes, and only plain numbers and text are read here")
        super().load_build()

    dispatch = pickle._Unpickler.dispatch | {pickle.BUILD[0]: load_build}

    def find_class(self, module, name):
        if (module, name) not in _PICKLE_NAMES:
            raise UserError(
                f"it asks for {module}.{name}, and only plain numbers and text are read here"
            )
        return _PICKLE_NAMES[module, name]


def read_pickle(path):
    """Plain data or numeric arrays from a pickle of the authors' archive; nothing in it is run. Raises UserError."""
    try:
        with open(path, "rb") as file:
            value = RestrictedUnpickler(
                file, encoding="latin1"
            ).load()  # latin1: Python 2 wrote some of them
        return value.array if isinstance(value, _PickledArray) else value
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{path} is not read ({reason}); get it again, or take it out to have it made anew"
        ) from None


def read_archive(folder):
    """The archive's own [dictionary, answers], in its index order, so that official checkpoints fit (DESIGN 3.1). Raises UserError."""
    pairs = [
        read_pickle(folder / ARCHIVE_PICKLES[0]),
        [read_pickle(folder / name) for name in ARCHIVE_PICKLES[1:]],
    ]
    result = []
    for pair, what in zip(pairs, (ARCHIVE_PICKLES[0], " and ".join(ARCHIVE_PICKLES[1:]))):
        try:
            index, words = pair
            good = (
                type(words) is list
                and bool(words)
                and all(type(word) is str for word in words)
                and type(index) is dict
                and index == {word: i for i, word in enumerate(words)}
                and len(index) == len(words)
            )
        except (TypeError, ValueError):
            good = False
        if not good:
            raise UserError(
                f"{folder}: {what} must hold a dictionary of texts to numbers and the list of the same texts; get it again"
            )
        result.append(words)
    return result


def archive_images(folder, names):
    """The archive's float32 images of `names` back as uint8 (N, 224, 224, 3). Raises UserError."""
    index, images = read_json(folder / IMAGE_INDEX), read_pickle(folder / IMAGE_PICKLE)
    if (
        not isinstance(images, np.ndarray)
        or images.dtype.kind != "f"
        or images.shape[1:] != (3, SIZE, SIZE)
    ):
        raise UserError(
            f"{folder / IMAGE_PICKLE} must hold a float array of (images, 3, {SIZE}, {SIZE}); get it again"
        )
    rows = [index.get(name) if isinstance(index, dict) else None for name in names]
    bad = [
        name for name, row in zip(names, rows) if type(row) is not int or not 0 <= row < len(images)
    ]
    if bad:
        raise UserError(
            f"{folder / IMAGE_INDEX} gives no row of {IMAGE_PICKLE} for {_shorten(bad)}; get both again"
        )
    out = np.empty((len(names), SIZE, SIZE, 3), np.uint8)
    for i, row in enumerate(rows):
        image = images[row].transpose(1, 2, 0) * np.float32(STD) + np.float32(MEAN)
        if not np.isfinite(image).all():
            raise UserError(
                f"{folder / IMAGE_PICKLE}, row {row} ({names[i]}) holds numbers that are not finite; get it again"
            )
        out[i] = np.clip(np.rint(image * 255), 0, 255)
    return out


# ---------------------------------------------------------------- images


def read_image(path, size=SIZE):
    """An image file as uint8 (size, size, 3): RGB, the whole image resized (bilinear, antialiased). Raises on anything bad."""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device never ends
        raise ValueError("not a file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the formats are named because PIL would start other programs for some
        with Image.open(
            path, formats=("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
        ) as image:
            if (
                image.width * image.height > MAX_PIXELS
            ):  # a small file can hold an image that fills the memory
                raise ValueError("too large")
            image.load()
            if image.mode.startswith("I;16"):  # PIL clips 16 bits where it should scale
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def find_images(folder, names):
    """The folder among images/, VQA_RAD Image Folder/ and `folder` itself that has most of `names`."""

    def found(place):
        with contextlib.suppress(OSError):
            return len(set(os.listdir(place)).intersection(names))
        return 0

    return max([folder / "images", folder / IMAGE_FOLDER, folder], key=found)


def _write_images(path, names, read_all, digest):
    """Write the HDF5 file of DESIGN 3.2; `read_all` yields uint8 (224, 224, 3) in the order of `names`."""
    with atomic_h5(path) as file:
        images = file.create_dataset(
            "images", (len(names), SIZE, SIZE, 3), np.uint8, chunks=(1, SIZE, SIZE, 3)
        )
        for row, image in enumerate(read_all):
            images[row] = image
        file.create_dataset("names", data=names, dtype=h5py.string_dtype())
        file.attrs["size"] = SIZE
        file.attrs["source digest"] = digest


def _decode(place, names, folder):
    """Yield all images; at the end, or at the first that can't be read, raise UserError that lists every bad one."""
    bad = []
    for name in tqdm(names, desc="Preparing images", unit="image", leave=False, disable=None):
        try:
            image = read_image(place / name)
        except Exception as error:  # PIL raises many types for damaged files
            bad.append(
                f"{name[:60]} ({'missing' if isinstance(error, FileNotFoundError) else 'damaged or not an image'})"
            )
            continue
        if not bad:
            yield image
    if bad:
        raise UserError(
            f"{len(bad)} of {len(names)} images can't be used: {_shorten(bad)}; looked in {place} (images/, '{IMAGE_FOLDER}/' "
            f"and {folder} itself are possible): put good copies there"
        )


@functools.cache
def _mean_and_std(device):
    """ImageNet's, times 255, float32 (1, 3, 1, 1) each. They are kept: a copy to a GPU waits for it."""
    with torch.inference_mode(False):  # training may use what was made while evaluating
        return [
            torch.tensor(values, device=device).mul_(255).view(1, 3, 1, 1) for values in (MEAN, STD)
        ]


def to_float(images_uint8):
    """uint8 (B, 224, 224, 3) -> float32 (B, 3, 224, 224), normalised with ImageNet's mean and standard deviation, on the same device."""
    mean, std = _mean_and_std(images_uint8.device)
    return (
        images_uint8.permute(0, 3, 1, 2)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .sub_(mean)
        .div_(std)
    )


class ImageStore:
    """Images of a prepared HDF5 file: `store[rows]` -> uint8 tensor (len(rows), 224, 224, 3).

    The file is opened at first use, in each process anew, so that DataLoader workers may inherit or unpickle the store.
    """

    def __init__(self, path):
        self.path, self._file, self._pid = Path(path), None, None

    def __getitem__(self, rows):
        if self._pid != os.getpid():
            self._file, self._pid = (
                h5py.File(self.path, "r", locking=False),
                os.getpid(),
            )  # locks fail on some network disks
        images = self._file["images"]
        out = np.empty((len(rows), *images.shape[1:]), np.uint8)
        for i, row in enumerate(rows):  # h5py takes only sorted lists without repetition
            out[i] = images[int(row)]
        return torch.from_numpy(out)

    def __getstate__(self):
        return {"path": self.path, "_file": None, "_pid": None}


def load_images(path, rows):
    """The given rows of a prepared HDF5 file as a uint8 tensor (len(rows), 224, 224, 3). No other row is read."""
    store = ImageStore(path)
    images = store[rows]
    store._file.close()
    return images


# ---------------------------------------------------------------- the prepared data set


class Question(NamedTuple):
    """One question, ready for use. `label` is -1 when training has no such answer; `image` is a row of the prepared HDF5 file."""

    qid: int
    image: int
    image_name: str
    organ: int
    question: str
    tokens: tuple
    unknown_words: tuple
    answer: str
    raw_answer: str
    label: int
    answer_type: str
    question_types: tuple
    phrase_type: str
    twin: bool  # of a test or validation question: its frame form, with the answer, is in the official training split


@dataclass
class RadData:
    """A prepared data set. `train` is always the official split; see training_questions for the clean one."""

    name: str
    phantom: bool
    digest: str
    folder: Path
    prepared: Path
    dictionary: list
    answers: list
    image_names: list
    train: list
    test: list
    images_path: Path

    @property
    def ntoken(self):
        return len(self.dictionary)

    @property
    def num_answers(self):
        return len(self.answers)

    def about(self):
        """What checkpoints and results say of their data."""
        return {"name": self.name, "digest": self.digest, "folder": str(self.folder)}

    @property
    def places(self):
        """The folders where files computed from the prepared ones may lie: beside those, or in the cache."""
        return [self.prepared, cache_place(self.folder)]


def find_form(folder):
    """ "archive", "processed" or "public" (DESIGN 3.1 forms 3, 2, 1), or None. Raises UserError for an incomplete one."""
    have = [name for name in (TRAIN_JSON, TEST_JSON) if (folder / name).is_file()]
    if len(have) == 2:
        pickles = [name for name in ARCHIVE_PICKLES if (folder / name).is_file()]
        if len(pickles) in (0, 3):
            return "archive" if pickles else "processed"
        lacking = [name for name in ARCHIVE_PICKLES if name not in pickles]
        raise UserError(
            f"{folder} holds {', '.join(pickles)} but not {', '.join(lacking)}: add what lacks, or take the pickles out"
        )
    if (folder / PUBLIC_JSON).is_file():
        return "public"
    if have:
        raise UserError(
            f"{folder} holds {have[0]} only: put {TEST_JSON if have[0] == TRAIN_JSON else TRAIN_JSON} beside it"
        )
    return None


def prepare(folder, *, say=print):
    """Read the data set in `folder` (any form of DESIGN 3.1), make the prepared files (3.2) where they are not current, return RadData.

    Dictionary and answers are the archive's own (form 3), else built from the training records of the official split, for the clean
    split too, so that both have the same classes. Prepared files go to `<folder>/prepared/`, or to the cache (~/.cache/cmsa-mtpt,
    or the environment variable CMSA_CACHE) when the folder can't be written. Raises UserError for data that can't be used.
    """
    folder = Path(folder).resolve()
    kind = _form_or_error(folder)
    train, test, sources = read_records(folder, kind)
    names = sorted({record["image_name"] for record in train + test})
    if kind == "archive":
        dictionary, answers = read_archive(folder)
        sources += [folder / name for name in ARCHIVE_PICKLES]
    else:
        dictionary, answers = build_dictionary(train), build_answers(train)
    place = find_images(folder, names)
    missing = [name for name in names if not os.path.isfile(place / name)]
    from_pickle = (
        kind == "archive" and (folder / IMAGE_PICKLE).is_file()
    )  # the very pixels that official checkpoints were trained on
    if missing and not from_pickle:
        for _ in _decode(place, names, folder):  # to list the damaged ones too
            pass
    sources += (
        [folder / IMAGE_INDEX, folder / IMAGE_PICKLE]
        if from_pickle
        else [place / name for name in names]
    )
    digest = _source_digest(sources)

    prepared, current = _choose_prepared(folder, digest, dictionary, answers)
    if not current:
        say(
            f"Preparing {len(train) + len(test):,} questions and {len(names)} images of {folder} in {prepared}"
        )
        try:
            images = archive_images(folder, names) if from_pickle else _decode(place, names, folder)
            _write_images(prepared / H5_NAME, names, images, digest)
        except BaseException:
            with contextlib.suppress(OSError):
                prepared.rmdir()  # only when it is empty: leave nothing behind
            raise
        write_json(prepared / "dictionary.json", dictionary)
        write_json(prepared / "answers.json", answers)
        _write_digests(
            prepared,
            {
                "dictionary.json": digest,
                "answers.json": digest,
                H5_NAME: f"{digest} {content_digest(prepared / H5_NAME)}",
            },
        )
    questions = _make_questions(train, test, names, dictionary, answers)
    phantom = (folder / PHANTOM_MARK).is_file()
    return RadData(
        "phantom set" if phantom else NAMES[kind],
        phantom,
        digest,
        folder,
        prepared,
        dictionary,
        answers,
        names,
        *questions,
        prepared / H5_NAME,
    )


def _form_or_error(folder):
    """The form of the data in `folder`; raises UserError when there is none."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}; name the one with VQA-RAD by --RAD_dir")
    kind = find_form(folder)
    if kind is None:
        raise UserError(
            f"no VQA-RAD data in {folder}: looked for '{PUBLIC_JSON}' (public release), {TRAIN_JSON} and {TEST_JSON} "
            f"(processed split), {ARCHIVE_PICKLES[0]} beside these two (authors' archive); put one of these there, "
            "name another folder by --RAD_dir, or leave --RAD_dir out"
        )
    return kind


def _source_digest(sources):
    """Digest of what the prepared files are made from: the names and contents of the JSON files, pickles and images."""
    try:
        return digest_bytes(PREPARED_VERSION, digest_files(sources))
    except OSError as error:
        raise UserError(
            f"{error.filename} can't be read ({error.strerror}); mend that or get the file again"
        ) from None


def cache_base():
    """Where things go when the data folder can't be written."""
    home = os.path.expanduser("~")
    home = tempfile.gettempdir() if home == "~" else home  # a user without a home folder
    return Path(os.environ.get("CMSA_CACHE") or Path(home) / ".cache" / "cmsa-mtpt")


def writable(folder):
    """True when `folder` exists or can be made, and files can be made in it. A folder marked read-only is left alone, by root too."""
    try:
        nearest = next(
            place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()
        )
        if not nearest.stat().st_mode & 0o222:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_place(folder):
    """The cache's folder for the data set in `folder`."""
    return cache_base() / digest_bytes(str(folder.resolve()))


def first_writable(places):
    """The first of two folders that can be written. Raises UserError when none can."""
    for place in places:
        if writable(place):
            return place
    raise UserError(
        f"neither {places[0]} nor {places[1]} can be written; set the environment variable CMSA_CACHE to a folder that can"
    )


def _choose_prepared(folder, digest, dictionary, answers):
    """(folder for the prepared files, whether they are current there)."""
    places = [folder / "prepared", cache_place(folder)]
    for place in places:
        if _is_current(place, digest, dictionary, answers):
            return place, True
    return first_writable(places), False


def _is_current(place, digest, dictionary, answers):
    """True when all prepared files are there, whole, and made from the sources with this digest."""
    try:
        digests = _read_digests(place)
        return (
            all(digests.get(name) == digest for name in ("dictionary.json", "answers.json"))
            and digests.get(H5_NAME) == f"{digest} {content_digest(place / H5_NAME)}"
            and read_json(place / "dictionary.json") == dictionary
            and read_json(place / "answers.json") == answers
        )
    except (OSError, UserError):  # missing or damaged: made anew
        return False


def content_digest(path):
    """Digest of a prepared file's content: a flipped bit in it must not go unseen. Raises FileNotFoundError where there is no such file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(path)
    return digest_files([path])


def is_whole(path):
    """True when a file among the prepared ones is there and has the content that `keep_digest` was told of."""
    try:
        return _read_digests(path.parent).get(path.name) == content_digest(path)
    except OSError:
        return False


def keep_digest(path):
    _write_digests(path.parent, {path.name: content_digest(path)})


def _read_digests(prepared):
    """The digests of the prepared files by name; empty when there are none yet."""
    try:
        digests = read_json(prepared / "digests.json")
        return digests if isinstance(digests, dict) else {}
    except UserError:
        return {}


def _write_digests(prepared, new):
    write_json(prepared / "digests.json", _read_digests(prepared) | new)


def _question_types(text):
    """("PRES", "ATTRIB") of "PRES, ATTRIB"; the two known misspellings are mended, other types are kept as they are."""
    types = [part.strip().upper() for part in text.split(",") if part.strip()]
    return tuple(
        dict.fromkeys({"ATRIB": "ATTRIB", "PRSE": "PRES"}.get(name, name) for name in types)
    ) or ("OTHER",)


def _make_questions(train, test, names, dictionary, answers):
    """Records -> (training, test) lists of Question."""
    word2idx, label, row = (
        {key: i for i, key in enumerate(keys)} for keys in (dictionary, answers, names)
    )
    frames = {record["qid"] for record in train if record["phrase_type"] == "frame"}

    def make(record, twin):
        tokens, unknown = encode(record["question"], word2idx)
        answer = normalise_answer(record["answer"])
        return Question(
            record["qid"],
            row[record["image_name"]],
            record["image_name"],
            ORGANS.index(record["image_organ"]),
            record["question"],
            tuple(tokens),
            tuple(unknown),
            answer,
            str(record["answer"]),
            label.get(answer, -1),
            record["answer_type"],
            _question_types(record["question_type"]),
            record["phrase_type"],
            twin,
        )

    return [make(record, False) for record in train], [
        make(record, record["qid"] + 1 in frames) for record in test
    ]


def set_question_len(data, length):
    """The same data with the first `length` words of each question kept instead of QUESTION_LEN."""
    word2idx = {word: index for index, word in enumerate(data.dictionary)}

    def again(question):
        tokens, unknown = encode(question.question, word2idx, length)
        return question._replace(tokens=tuple(tokens), unknown_words=tuple(unknown))

    return replace(data, train=list(map(again, data.train)), test=list(map(again, data.test)))


def training_questions(data, split):
    """The training questions of a split: "official" has all, "clean" none that rewords a test question (DESIGN 1). Raises UserError."""
    if split not in ("official", "clean"):
        raise UserError(f"unknown split {split!r}: it is official or clean")
    tested = {question.qid for question in data.test} if split == "clean" else ()
    return [q for q in data.train if not (q.phrase_type == "frame" and q.qid - 1 in tested)]


def split_validation(questions, fraction, split, seed):
    """Draw about `fraction` (in [0, 1)) of the freeform and para training questions for validation: (training, validation).

    It mirrors the test protocol (DESIGN 1 and 5). Rewordings stay together: neighbours in qid order on one image are drawn together
    when they have the same answer or one of them is a para. Split "official" keeps the frame records of drawn questions in training,
    "clean" leaves them out. `twin` is set as for test questions. Raises UserError for a fraction out of range.
    """
    if not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:  # refuses nan too
        raise UserError(f"the validation fraction must be at least 0 and below 1, not {fraction}")
    if split not in ("official", "clean"):
        raise UserError(f"unknown split {split!r}: it is official or clean")
    if fraction == 0:
        return list(questions), []
    groups = []
    for question in sorted((q for q in questions if q.phrase_type != "frame"), key=lambda q: q.qid):
        last = groups[-1][-1] if groups else None
        if (
            last
            and last.image == question.image
            and (
                last.answer == question.answer or "para" in (last.phrase_type, question.phrase_type)
            )
        ):
            groups[-1].append(question)
        else:
            groups.append([question])
    random.Random(seed).shuffle(groups)
    wanted, drawn = max(1, round(fraction * sum(map(len, groups)))), set()
    for group in groups:
        if len(drawn) >= wanted:
            break
        drawn.update(question.qid for question in group)
    frames = {q.qid for q in questions if q.phrase_type == "frame"}
    validation = [q._replace(twin=q.qid + 1 in frames) for q in questions if q.qid in drawn]
    training = [q for q in questions if q.qid not in drawn]
    if split == "clean":
        training = [q for q in training if not (q.phrase_type == "frame" and q.qid - 1 in drawn)]
    return training, validation


# ---------------------------------------------------------------- word embeddings

EMBEDDING_DIMS = {"glove": 300, "biowordvec": 200}  # the paper's
_EMBEDDINGS = {
    "glove": (
        "GloVe",
        "glove6b_init_300d.npy",
        "glove.6B.300d.txt, 200d or 100d, or glove.6B.zip; --download_glove gets it",
    ),
    "biowordvec": (
        "BioWordVec",
        "biowordvec_init_200d.npy",
        "BioWordVec_PubMed_MIMICIII_d200.vec.bin",
    ),
}
GLOVE_DIMS, GLOVE_TEXT, GLOVE_ZIP = (300, 200, 100, 50), "glove.6B.{}d.txt", "glove.6B.zip"
_FORMS = (".npy", ".txt", ".zip", ".bin")  # of one width the first is taken
LONGEST, BLOCK = 1 << 20, 1 << 22  # bytes: of a line of text, and read at once of a binary table


def find_embedding(data, name, say=print):
    """`load_embedding` of the widest table in the data's folder, a folder called like the table in it or beside it, data_RAD, the cache.

    Says so when there is none and returns None.
    """
    places = [
        folder
        for base in (data.folder, DATA_RAD)
        for folder in (base, base / name, base.parent / name)
    ]
    vectors = load_embedding(data, name, None, [*places, cache_base()], say)
    if vectors is None:
        say(
            f"WARNING: no {name} vectors found (data_RAD/{_EMBEDDINGS[name][2]}): word embeddings start random"
        )
    return vectors


def idf_weights(questions, ntoken):
    """How telling each word is: log(questions / questions with the word), float32 (ntoken,), scaled to a mean of 1.

    "Inverse document frequency": word vectors times it let "ascites" count for more than "is there" (DESIGN section 4 names tf-idf).
    """
    found = Counter(token for question in questions for token in set(question.tokens))
    weights = np.log([len(questions) / max(found[token], 1) for token in range(ntoken)])
    return (
        (weights / weights.mean()).astype(np.float32)
        if weights.any()
        else np.ones(ntoken, np.float32)
    )


def load_embedding(data, name, dim, rad_dirs, say=print):
    """(float32 (ntoken, dim) in dictionary order, description) for "glove" or "biowordvec", or None when no table is found.

    Looks in the folders `rad_dirs` for the authors' .npy (used when it has ntoken rows), `glove.6B.<dim>d.txt`, `glove.6B.zip`, or
    BioWordVec's .bin; `dim` None takes the widest there is. Words that a table lacks get small random rows, the same each time. What
    was read is kept among the prepared files. Raises UserError for a table that can't be read.
    """
    if name not in _EMBEDDINGS:
        raise UserError(f"unknown word embedding {name!r}: it is {' or '.join(_EMBEDDINGS)}")
    title = _EMBEDDINGS[name][0]
    for d, path in _tables(name, rad_dirs):
        if dim is not None and d != dim:
            continue
        if path.suffix != ".npy":
            table, found = _cached_embedding(data, name, d, path)
            say(f"{title} {d}d: {found:,} of {data.ntoken:,} words found")
            return table, f"{title} {d}d from {path}, {found:,} of {data.ntoken:,} words"
        if (table := _authors_embedding(path, data.ntoken, d, say)) is not None:
            description = f"{title} {d}d, the authors' table {path}"
            say(description)
            return table, description
    return None


def _tables(name, folders):
    """[(dim, path)] of the tables in `folders`, the widest first. Raises UserError for one that can't be read."""
    tables = []
    for folder in dict.fromkeys(Path(folder) for folder in folders if folder):
        tables.append((EMBEDDING_DIMS[name], folder / _EMBEDDINGS[name][1]))
        if name == "glove":
            tables += [(d, folder / GLOVE_TEXT.format(d)) for d in GLOVE_DIMS]
            if (folder / GLOVE_ZIP).is_file():
                with _glove_zip(folder / GLOVE_ZIP) as (_, members):
                    tables += [(d, folder / GLOVE_ZIP) for d in members]
        else:
            for path in sorted(folder.glob("*[bB][iI][oO]*.[bB][iI][nN]")):
                if path.is_file():
                    with _open_table(path) as file:
                        tables.append((_binary_header(file, path)[1], path))
    return sorted(
        (table for table in tables if table[1].is_file()),
        key=lambda table: (-table[0], _FORMS.index(table[1].suffix.lower())),
    )


def _authors_embedding(path, ntoken, dim, say):
    """The authors' array, or None when it belongs to another dictionary. Raises UserError."""
    try:
        table = np.load(
            path, allow_pickle=False, mmap_mode="r"
        )  # mapped: a shape larger than the file takes no memory
    except Exception as error:  # numpy raises many types for damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"{path} can't be read as a numpy array ({reason}); get it again or take it out"
        ) from None
    if (
        not isinstance(table, np.ndarray)
        or table.dtype.kind != "f"
        or table.ndim != 2
        or not np.isfinite(table := np.array(table, np.float32)).all()
    ):
        raise UserError(f"{path} must hold a table of finite numbers; get it again or take it out")
    if table.shape != (ntoken, dim):
        say(
            f"{path} is for another dictionary (it has shape {table.shape}, not {(ntoken, dim)}): not used"
        )
        return None
    return table


def _cached_embedding(data, name, dim, path):
    """(table, number of words found) from a text, zip or binary table, read anew only when it or the dictionary changed."""
    kept, stat = f"embedding_{name}_{dim}d.npy", path.stat()
    digest = digest_bytes(
        PREPARED_VERSION,
        str(path.resolve()),
        f"{stat.st_size} {stat.st_mtime_ns}",
        "\n".join(data.dictionary),
    )
    with contextlib.suppress(OSError, ValueError):
        old_digest, found, content = str(_read_digests(data.prepared).get(kept)).split(" ")
        if old_digest == digest and content == content_digest(data.prepared / kept):
            return np.load(data.prepared / kept, allow_pickle=False), int(found)
    table, found = _read_embedding(path, data.dictionary, dim)
    with contextlib.suppress(
        OSError
    ):  # a folder that became read-only only costs the time of reading again
        with atomic_path(data.prepared / kept) as temporary, open(temporary, "wb") as file:
            np.save(file, table)
        _write_digests(
            data.prepared, {kept: f"{digest} {found} {content_digest(data.prepared / kept)}"}
        )
    return table, found


def _read_embedding(path, words, dim):
    """The rows of `words` from a text, zip or binary table, read as a stream: (float32 (len(words), dim), number found)."""
    rows = {word.encode(): i for i, word in enumerate(words)}
    table, found = (
        np.random.default_rng(0).normal(0, 0.1, (len(words), dim)).astype(np.float32),
        set(),
    )
    with _open_table(path, dim) as file:
        for row, values in (_binary_rows if path.suffix.lower() == ".bin" else _text_rows)(
            file, path, rows, dim
        ):
            table[row] = values
            found.add(row)
    return table, len(found)


@contextlib.contextmanager
def _open_table(path, dim=None):
    """A table's bytes, from a zip those of its member with `dim` numbers a word, as they are unpacked. Raises UserError."""
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix == ".zip":
                archive, members = stack.enter_context(_glove_zip(path))
                yield stack.enter_context(io.BufferedReader(archive.open(members[dim]), LONGEST))
            else:
                yield stack.enter_context(open(path, "rb"))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None


@contextlib.contextmanager
def _glove_zip(path):
    """(the open archive, {dim: member}). Whatever zipfile complains of in the block becomes a UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {GLOVE_TEXT.format(d): d for d in GLOVE_DIMS}
            members = {
                names[Path(member.filename).name]: member
                for member in archive.infolist()
                if Path(member.filename).name in names
                and member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            }  # zipfile bounds no other's memory
            if not members:
                raise zipfile.BadZipFile(
                    f"no {GLOVE_TEXT.format(300)}, 200d, 100d or 50d in it, stored or deflated"
                )
            yield archive, members
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        reason = " ".join(str(error).split())[:120] or "it ends early"
        raise UserError(
            f"{path} can't be read ({reason}); get it again (python dataset_RAD.py --download_glove) or take it out"
        ) from None


def _text_rows(file, path, rows, dim):
    """(row, (dim,) numbers) of the lines "word v1 ... vd" whose word is in `rows`; no more than a line is in memory. Raises UserError."""
    number = 0
    for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
        parts = line.rstrip().rsplit(b" ", dim)
        if number == 1 and len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit():
            continue  # word2vec's header: number of words, dimension
        try:
            if len(parts) != dim + 1 or len(line) > LONGEST:
                raise ValueError
            if parts[0] in rows:
                yield rows[parts[0]], _finite(np.array(parts[1:], np.float32))
        except ValueError:
            raise UserError(
                f"{path}, line {number}: not a word and {dim} numbers; the file may be truncated, get it again"
            ) from None
    if not number:
        raise UserError(f"{path} is empty; get it again")


def _binary_header(file, path):
    """(number of words, dim) from the first line of a table in word2vec's binary form. Raises UserError."""
    line = file.readline(64)
    parts = line.split()
    if (
        not line.endswith(b"\n")
        or len(parts) != 2
        or not all(part.isdigit() and int(part) for part in parts)
        or int(parts[1]) > 10_000
    ):
        raise UserError(
            f"{path} is not word vectors in word2vec's binary form (the public file is {_EMBEDDINGS['biowordvec'][2]}); "
            "get that or take this out"
        )
    return int(parts[0]), int(parts[1])


def _binary_rows(file, path, rows, dim):
    """(row, (dim,) numbers) of the words in `rows`, from word2vec's binary form: each word, a space, dim float32, perhaps a line feed.

    Two blocks at most are in memory. All announced words are read, so a truncated file is noticed. Raises UserError.
    """
    (count, _), width, data, at = _binary_header(file, path), 4 * dim, b"", 0
    damaged = "the file is truncated or damaged, get it again"
    with tqdm(
        total=os.fstat(file.fileno()).st_size,
        unit="B",
        unit_scale=True,
        desc=path.name,
        leave=False,
        disable=None,
    ) as bar:
        for number in range(1, count + 1):
            space = data.find(b" ", at)
            if space < 0 or space + width >= len(data):
                bar.update(at)
                data, at = data[at:] + file.read(BLOCK), 0
                space = data.find(b" ")
                if space < 0 or space + width >= len(data):
                    raise UserError(f"{path} ends within word {number:,} of {count:,}: {damaged}")
            word, at = data[at:space].lstrip(b"\n"), space + 1 + width
            if word in rows:
                try:
                    yield rows[word], _finite(np.frombuffer(data, "<f4", dim, space + 1))
                except ValueError:
                    raise UserError(
                        f"{path}, word {number:,}: not {dim} finite numbers; {damaged}"
                    ) from None


def _finite(values):
    """`values`. Raises ValueError when they are not all finite."""
    if not np.isfinite(values).all():
        raise ValueError
    return values


# ---------------------------------------------------------------- downloads: the public release from OSF, GloVe


class NoNetwork(Exception):
    """Nothing can be fetched: no network here, or the service is away."""


def _ask(method, url, timeout):
    """The answer to a GET or HEAD request. Raises requests.RequestException."""
    import requests

    reply = requests.request(method, url, headers={"Accept-Encoding": "identity"}, timeout=timeout)
    reply.raise_for_status()
    return reply


def _first_answer(url, ask):
    """What `ask()` brings from `url`, the first one asked. Gives up after CONNECT_SECONDS in all: raises NoNetwork."""
    import requests

    box = []

    def work():  # in a thread, because a broken name server is not bound by the request's own limits
        try:
            box.append(ask())
        except (requests.RequestException, ValueError) as error:
            box.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    host = url.split("/")[2]
    if not box:
        raise NoNetwork(f"{host} did not answer in {CONNECT_SECONDS} s")
    if isinstance(box[0], Exception):
        status = getattr(getattr(box[0], "response", None), "status_code", None)
        raise NoNetwork(f"{host} answered {status}" if status else f"no connection to {host}")
    return box[0]


def list_release(api):
    """[(path in the folder, URL, size, sha256)] of the images and, last, the JSON file. Raises NoNetwork, UserError."""
    import requests

    files, todo, seen = {}, [(api, "")], set()
    while todo:
        url, folder = todo.pop(0)
        if url in seen:
            continue
        try:
            page = (
                _ask("GET", url, (CONNECT_SECONDS, 60)).json()
                if seen
                else _first_answer(url, lambda url=url: _ask("GET", url, CONNECT_SECONDS).json())
            )
            seen.add(url)
            for item in page["data"]:
                about, name = item["attributes"], item["attributes"]["name"]
                if about["kind"] == "folder":
                    todo.append((item["relationships"]["files"]["links"]["related"]["href"], name))
                    continue
                entry = (
                    item["links"]["download"],
                    about["size"],
                    about["extra"]["hashes"]["sha256"],
                )
                plain = name == Path(name).name and not name.startswith(".") and "\\" not in name
                if name == PUBLIC_JSON:
                    files.setdefault(name, entry)
                elif (
                    folder == IMAGE_FOLDER
                    and plain
                    and name.lower().endswith((".jpg", ".jpeg", ".png"))
                ):
                    files.setdefault(f"{IMAGE_FOLDER}/{name}", entry)
            if page["links"].get("next"):
                todo.insert(0, (page["links"]["next"], folder))
        except (requests.RequestException, ValueError) as error:
            raise UserError(
                f"the list of files at {url} can't be read ({type(error).__name__}); run the same command again"
            ) from None
        except (KeyError, TypeError, AttributeError):
            raise UserError(
                f"the list of files at {url} has an unexpected form; download by hand from https://osf.io/89kps/"
            ) from None
    if PUBLIC_JSON not in files or len(files) == 1:
        raise UserError(
            f"'{PUBLIC_JSON}' or its images are not at {api}; download VQA-RAD by hand from https://osf.io/89kps/"
        )
    # the JSON comes last: where it is, the download is complete
    return [
        (path, *files[path]) for path in sorted(files, key=lambda path: (path == PUBLIC_JSON, path))
    ]


def _is_whole(path, size, sha256):
    """True when the file is there with this size and SHA-256."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    with open(path, "rb") as file:
        sha = hashlib.sha256()
        while piece := file.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest() == str(sha256).lower()


def _fetch(url, part, size, show):
    """Fetch `url` to `part`, going on where a former try stopped; `show(bytes)` is told how much there is."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    if have >= size:  # whole or too long: the caller checks it
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, 60)) as reply:
        reply.raise_for_status()
        with open(part, "ab" if reply.status_code == 206 else "wb") as file:
            for piece in reply.iter_content(
                1 << 13
            ):  # small: what a broken connection cuts off is lost
                file.write(piece)
                show(file.tell())
                if file.tell() > size:
                    break


def _download(url, target, size, is_whole, bar):
    """Have `target` whole, as `is_whole(path)` says; a partial file (.part) is continued. Raises UserError after ATTEMPTS failures."""
    import requests

    part, start = target.with_name(target.name + ".part"), bar.n
    target.parent.mkdir(parents=True, exist_ok=True)

    def show(have):
        bar.update(start + have - bar.n)

    if is_whole(target):
        show(size)
        return
    for attempt in range(ATTEMPTS):
        reason = "its size or checksum is wrong"
        try:
            _fetch(url, part, size, show)
        except requests.RequestException as error:
            reason = f"{type(error).__name__}"
        if is_whole(part):
            os.replace(part, target)
            show(size)
            return
        if part.exists() and part.stat().st_size >= size:
            part.unlink()  # damaged: from the start
        if attempt + 1 < ATTEMPTS:
            time.sleep(attempt)
    raise UserError(
        f"the download stopped at {target.name} ({reason}); run the same command again, it goes on from there"
    )


def download_public(folder, *, api=None, say=print):
    """Download the public release into `folder` (DESIGN 3.1 form 1). Finished files are kept, partial ones (.part) continued.

    Every file's size and SHA-256 is checked. Raises NoNetwork when the release can't even be listed, UserError when it stops later.
    """
    folder = Path(folder)
    files = list_release(api or OSF_API)
    say(
        f"Downloading VQA-RAD, public release: {len(files)} files, {sum(file[2] for file in files) / 2**20:.1f} MiB, into {folder}"
    )
    with tqdm(
        total=sum(file[2] for file in files),
        unit="B",
        unit_scale=True,
        desc="VQA-RAD",
        leave=False,
        disable=None,
    ) as bar:
        for path, url, size, sha256 in files:
            _download(
                url,
                folder / path,
                size,
                lambda place, size=size, sha256=sha256: _is_whole(place, size, sha256),
                bar,
            )
    return folder


def download_glove(folder, *, url=None, say=print):
    """Download glove.6B.zip into `folder` and return its path; a partial file (.part) is continued, a whole one kept.

    Its size must be the server's, and its CRCs right. Raises NoNetwork when the server does not answer, UserError when it stops later.
    """
    url = url or GLOVE_URL
    target, length = (
        Path(folder) / GLOVE_ZIP,
        _first_answer(url, lambda: _ask("HEAD", url, CONNECT_SECONDS)).headers.get(
            "Content-Length"
        ),
    )
    if not (length or "").isdigit() or not int(length):
        raise UserError(
            f"{url.split('/')[2]} does not say how large {GLOVE_ZIP} is; get {url} by hand and put it into {folder}"
        )
    size = int(length)

    def is_whole(path):
        with contextlib.suppress(UserError):
            if path.is_file() and path.stat().st_size == size:
                with _glove_zip(path) as (archive, _):
                    return archive.testzip() is None
        return False

    say(f"Downloading GloVe 6B: {size / 2**20:.1f} MiB, into {target}")
    with tqdm(
        total=size, unit="B", unit_scale=True, desc="GloVe", leave=False, disable=None
    ) as bar:
        _download(url, target, size, is_whole, bar)
    return target


# ---------------------------------------------------------------- finding the data


def find_data(rad_dir=None, *, download=True, say=print):
    """Find VQA-RAD, prepare it at first use, and return RadData.

    In this order: `rad_dir` when given; data_RAD/; data_RAD/public/, a former download, or else a download now (unless `download` is
    False or there is no network); the phantom set, drawn here, with a banner that says so. Raises UserError.
    """
    if rad_dir is not None:
        data = prepare(rad_dir, say=say)
    elif find_form(DATA_RAD):
        data = prepare(DATA_RAD, say=say)
    else:
        data = _public_data(download, say) or prepare(_draw_phantom(_home()), say=say)
    if data.phantom:
        say(
            _BANNER.format(
                folder=data.folder,
                home=DATA_RAD,
                json=PUBLIC_JSON,
                images=IMAGE_FOLDER,
                train=TRAIN_JSON,
                test=TEST_JSON,
            )
        )
    return data


def _home():
    """data_RAD, or the cache when data_RAD can't be written."""
    return DATA_RAD if writable(DATA_RAD) else cache_base()


def _public_data(download, say):
    """RadData of the downloaded public release, or None."""
    for base in (DATA_RAD, cache_base()):
        if find_form(base / "public"):
            return prepare(base / "public", say=say)
    if not download:
        return None
    try:
        return prepare(download_public(_home() / "public", say=say), say=say)
    except NoNetwork as error:
        say(f"VQA-RAD can't be downloaded here ({error}).")
        return None


def _draw_phantom(home):
    """The folder of the phantom set, drawn when it is not there or was drawn by another version of the program."""
    import phantom_RAD

    source = getattr(phantom_RAD, "__file__", None)
    mark = f"Drawings, not radiology: made by phantom_RAD.py {digest_files([source]) if source else ''}\n"
    folder = home / "phantom"
    if (folder / PHANTOM_MARK).is_file() and find_form(folder):
        made = (folder / PHANTOM_MARK).read_text(encoding="utf-8")
        if made == mark or made == getattr(
            phantom_RAD, "MARK", None
        ):  # this version's, or drawn by hand: perhaps of another seed or size
            return folder
    if not writable(home):
        raise UserError(
            f"{home} can't be written; set the environment variable CMSA_CACHE to a folder that can"
        )
    with tempfile.TemporaryDirectory(
        prefix=".phantom-", dir=home
    ) as new:  # an interrupted drawing leaves no half data set
        new = Path(new) / "phantom"
        new.mkdir()
        phantom_RAD.draw(new, seed=0)
        (new / PHANTOM_MARK).write_text(mark, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    return folder


_BANNER = """
+------------------------------------------------------------------------------------------------------------+
  THE PHANTOM SET IS IN USE: simple drawings with made-up questions, in {folder}
  It shows that the program works. Scores on it mean nothing for radiology and compare with no published number.
  For real results put VQA-RAD (https://osf.io/89kps/) into {home}:
    '{json}' and '{images}/' (the public release),
    or {train}, {test} and images/ (the processed split); or name its folder by --RAD_dir.
+------------------------------------------------------------------------------------------------------------+"""


# ---------------------------------------------------------------- command line


def summary(data):
    """What a data set holds, as lines of text."""
    lines = [
        f"{data.name}: {data.folder}",
        f"prepared files: {data.prepared} (digest {data.digest})",
        f"{len(data.image_names)} images, {data.ntoken:,} words, {data.num_answers:,} answers",
        "",
        f"{'':24}{'questions':>10}{'freeform':>10}{'para':>7}{'frame':>7}{'open':>7}{'closed':>8}",
    ]
    parts = (
        ("training (official)", data.train),
        ("training (clean)", training_questions(data, "clean")),
        ("test", data.test),
    )
    for title, part in parts:
        phrase, kind = Counter(q.phrase_type for q in part), Counter(q.answer_type for q in part)
        lines.append(
            f"{title:24}{len(part):10,}{phrase['freeform']:10,}{phrase['para']:7,}{phrase['frame']:7,}"
            f"{kind['OPEN']:7,}{kind['CLOSED']:8,}"
        )
    words = Counter(word for q in data.test for word in q.unknown_words)
    freeform = [q for q in data.test if q.phrase_type == "freeform"]
    unknown = sum(bool(q.unknown_words) for q in data.test)
    lines += [
        "",
        f"test questions with words that training never saw: {unknown} ({len(words)} words)",
        f"test questions with an answer that training never saw: {sum(q.label < 0 for q in data.test)}",
        f"test questions whose reworded form, with its answer, is in official training: {sum(q.twin for q in data.test)}",
        f"questions longer than {QUESTION_LEN} words, cut: "
        f"{sum(len(tokenize(q.question)) > QUESTION_LEN for q in data.train + data.test)}",
    ]
    for split in ("official", "clean"):
        known = {q.label for q in training_questions(data, split)}
        shares = [
            f"{100 * sum(q.label in known for q in part) / len(part):.1f} ({title})"
            for title, part in (("freeform", freeform), ("freeform + para", data.test))
            if part
        ]
        lines.append(f"highest possible score, {split} split: {', '.join(shares)}")
    return lines


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Prepare VQA-RAD and print what it holds.")
    parser.add_argument(
        "--RAD_dir",
        metavar="DIR",
        help="folder with VQA-RAD in one of its three forms (default: data_RAD, or a download)",
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="download the public release into data_RAD/public and do nothing else",
    )
    parser.add_argument(
        "--download_glove",
        action="store_true",
        help="download GloVe (glove.6B.zip, 0.8 GB) into data_RAD and do nothing else",
    )
    options = parser.parse_args(arguments)
    for wanted, title, source, download in (
        (
            options.download,
            "VQA-RAD, public release",
            "https://osf.io/89kps/",
            lambda: download_public(_home() / "public"),
        ),
        (options.download_glove, "GloVe 6B", GLOVE_URL, lambda: download_glove(_home())),
    ):
        try:
            if wanted:
                print(f"{title}: {download()}")
        except NoNetwork as error:
            raise UserError(
                f"no download of {title}: {error}; try again with a network, or get it from {source}"
            ) from None
    if not (options.download or options.download_glove):
        print("\n".join(summary(find_data(options.RAD_dir))))


if __name__ == "__main__":
    run_main(main)
