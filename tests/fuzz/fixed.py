"""The fuzzer's fixed cases: those that a random draw would hardly find."""

import io
import math
import struct
from pathlib import Path

import pydicom
from PIL import Image

from readers.records import TRAIN_JSON
from tests.fuzz import data_targets as data
from tests.fuzz import model_targets as models
from tests.fuzz.contents import (
    BOMB,
    DICOMS,
    PICTURES,
    as_json,
    dicom,
    made,
    png,
    repacked,
    resized,
    saved,
)
from tests.fuzz.values import BIG, CODES, NPYS, PICKLES
from utils import VERSION


def fixed(name, variants, heavy):
    """Yield the fixed cases of a loader: (files, the outcome that they must have or None, title).

    Heavy ones, which may load, take some seconds.
    """
    for files in variants:  # some of pydicom's have no image
        yield files, "accepted" if name != "dicom" else None, "whole files"
    if name in CASES:
        yield from CASES[name](heavy)


def json_cases(heavy):
    texts = [b"", b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"9" * 5000 + b"]", b"[1,]", b'"\xc3"']
    for text in (*texts, b"[" * 50 * BIG, b'"' + b"x" * 50 * BIG):
        yield {"x.json": text}, "UserError", repr(text[:9])
    large = [b'"' + b"x" * 50 * BIG + b'"', b"[" + b"{}," * 17 * BIG + b"1]"]
    for text in large if heavy else ():
        yield {"x.json": text}, None, f"{len(text):,} characters"


def processed_cases(_):
    paths = ("../pic0.png", "x/../pic0.png", "images/pic0.png", "/dev/zero", "..\\pic0.png")
    changes = [("image_name", path) for path in paths]
    changes += [("question", "is it " * 6 * BIG), ("answer", "a, b." * 12 * BIG)]
    changes += [("answer", text) for text in ("", " \t", "nan", "?", "\u3000")]
    # some of the names lead to a picture
    more = {"pic0.png": png([[1]]), "images/x/y.png": b""}
    for field, value in changes:
        records = [data.TRAIN[0] | {field: value}, *data.TRAIN[1:]]
        files = data.PROCESSED_FILES | more | {TRAIN_JSON: as_json(records)}
        yield files, "UserError", f"{field} {value[:20]}"


def archive_cases(_):
    for content in PICKLES:
        files = data.ARCHIVE_FILES | {"dictionary.pkl": content}
        yield files, "UserError", repr(content[:40])


def picture_cases(heavy):
    side = 100_000
    picture = next(content for content, form in PICTURES.items() if form == "PNG")
    yield {"x.png": resized(picture, side, side)}, "UserError", f"{side:,} x {side:,}"
    kinds = [("RGB", side, 799), ("I;16", side, 799), ("RGBA", side, 799)]
    kinds += [("RGBA", 13_000, 13_000), ("1", side, 1_700)]
    for mode, *size in kinds if heavy else ():
        files = {"x.png": made(Image.new(mode, size).save, "PNG", compress_level=1)}
        yield files, "UserError" if math.prod(size) > 10**8 else None, f"{mode}, {size}"


def dicom_cases(heavy):
    deflated, side = DICOMS["image_dfl.dcm"], 8_900
    meta = pydicom.dcmread(io.BytesIO(deflated)).file_meta
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    yield {"x.dcm": deflated[:start] + BOMB}, "UserError", "deflated 3 GB"
    if not heavy:
        return
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    runs = header + b"\x81\0" * (side * side // 128 + 1)
    fields = {"Rows": side, "Columns": side, "SamplesPerPixel": 1}
    fields |= {"PhotometricInterpretation": "MONOCHROME2"}
    fields |= {"PixelData": pydicom.encaps.encapsulate([runs])}
    yield {"x.dcm": dicom(DICOMS["SC_rgb_rle.dcm"], fields.items())}, None, "run lengths"


def list_cases(_):
    paths = ("../image.png", "x/../../image.png", "/dev/zero", str(Path(__file__).resolve()))
    for path in paths:
        pairs = [*data.MASKED[:4], [path, "mask4.png"]]
        yield data.ORGAN_FILES | {"set/train.json": as_json(pairs)}, "UserError", path


def batch_cases(_):
    for name in ("", " ", "..", "/dev/zero", "none.png", "a\0.png", "x" * 300, "q.json", "\ud800"):
        rows = [{"image": name, "question": "is it"}, {"image": "a.png", "question": "is it"}]
        yield models.PICTURES | {"q.json": as_json(rows)}, "UserError", f"image {name[:20]!a}"
    for text in ("zyx", "", None, [], {"is": "it"}, 7, "x" * 100_000):
        rows = [{"image": "a.png", "question": text}]
        yield models.PICTURES | {"q.json": as_json(rows)}, None, f"question {str(text)[:20]}"


def embedding_cases(_):
    yield {"glove6b_init_300d.npy": NPYS[-1]}, "UserError", "code"
    zipped = repacked(data.TABLES["glove.6B.zip"], ".txt", BOMB)
    yield {"glove.6B.zip": zipped}, "UserError", "deflated 3 GB"


def run_cases(_):
    yield from checkpoint_cases("last.pth", models.STATE)
    settings = models.STATE["settings"]
    changes = [("lr", -1.0), ("lr", math.nan), ("lr", "x"), ("batch_size", 1), ("epochs", 0)]
    changes += [("seed", -1), ("num_hid", 0), ("schedule", "x"), ("image_only", 1)]
    changes += [("RAD_dir", "a\0b"), ("val_fraction", 1), ("freeze_encoders", None)]
    for name, value in changes:
        state = models.STATE | {"settings": settings | {name: value}}
        yield {"last.pth": saved(state)}, "UserError", f"{name} {value!r}"


def checkpoint_cases(file, state):
    contents = [*PICKLES, *(saved(state | {"epoch": code}) for code in CODES)]
    contents.append(repacked(saved(state), "/data/0", BOMB))
    contents += [repacked(saved(state), "data.pkl", code) for code in PICKLES]
    for content in contents:
        yield {file: content}, "UserError", "code, or deflated 3 GB"
    for version in (1, VERSION - 1, VERSION + 1, None, str(VERSION)):
        yield {file: saved(state | {"version": version})}, "UserError", f"version {version}"


CASES = {
    "json": json_cases,
    "processed": processed_cases,
    "archive": archive_cases,
    "images": picture_cases,
    "masks": picture_cases,
    "dicom": dicom_cases,
    "lists": list_cases,
    "batch": batch_cases,
    "embedding": embedding_cases,
    "checkpoint": run_cases,
    "part": lambda _: checkpoint_cases("best.pth", models.PART),
}
