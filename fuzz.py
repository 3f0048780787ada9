"""Hostile input for every loader: each case must load or raise UserError with one line that names the file or field, and nothing else.

    python fuzz.py [--cases 10000] [--loader NAME] [--seed 0]    all loaders, or one; prints counts, exits 1 at the first violation
    python fuzz.py --loader NAME --again FOLDER                  run a case that was found once more, where it lies
    python fuzz.py --go_on                                       count violations by kind, show an example of each, stop at none

A violation: another exception, a crash, over 10 s (20 s with waiting), over 2 GB more memory, code run from a file, a message of several lines or
one that names nothing, damaged prepared files used as if they were whole, a file loaded that must be refused. A loader (LOADERS) is a function and
whole files that it reads; a case damages one or two of them. Each loader has a process of its own. Needs hypothesis, pydicom, 100 MB in TMPDIR.
"""

import argparse
import contextlib
import copy
import faulthandler
import io
import itertools
import json
import math
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter, namedtuple
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom.pixels  # here, so that no case waits for it
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import ask
import dataset_MTPT as mtpt
import dataset_RAD as rad
import engine
import export
import pretrain
import report
import scores
import test as evaluate
import train
from base_model import PretrainingModel, VQAModel
from utils import UserError, is_disk_error, read_json

HERE = Path(__file__).resolve().parent
SECONDS, GROWTH = 10, 2 * 2**30  # of computing, bytes: what a case may take
FOLDER, PIPE = (
    "folder:",
    "pipe:",
)  # what is no file; any other text in place of a content is the target of a symbolic link


class Violation(BaseException):
    """What a loader must not do. No `except Exception` of a loader catches it."""


def check(good, what):
    """Raise Violation(what) unless `good`."""
    if not good:
        raise Violation(what)


# ---------------------------------------------------------------- a case: files, and one call


def write(folder, files):
    """Make {relative path: bytes, FOLDER, PIPE, or a link's target} in `folder`. What can't be made (a name that is too long) is left out."""
    for name, content in files.items():
        path = folder / name
        with contextlib.suppress(OSError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.parent.resolve().is_relative_to(folder.resolve()):
                continue  # never through one of our own links
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content in (FOLDER, PIPE):
                path.mkdir() if content == FOLDER else os.mkfifo(path)
            else:
                path.symlink_to(content)


def memory(what):
    """VmRSS or VmSize of this process in bytes, or VmHWM, the most since `attempt` began; 0 where the system does not tell."""
    with contextlib.suppress(OSError, StopIteration):
        return next(
            int(line.split()[1]) * 1024
            for line in open("/proc/self/status")
            if line.startswith(what)
        )
    return 0


def attempt(run, files, folder, seconds=SECONDS):
    """Write a case into the new folder `folder` and call run(folder): "accepted" or "UserError". Raises for any violation."""
    write(folder, files)
    sys.__dict__.pop("fuzz_ran", None)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of memory
    outcome, before, began = "UserError", memory("VmRSS"), time.process_time()
    old = signal.signal(signal.SIGALRM, lambda *_: check(False, f"over {2 * seconds} s"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
        run(folder)
        outcome = "accepted"
    except UserError as error:
        message, names = str(error), [str(folder), *(Path(path).name for path in files)]
        check(
            len(message.splitlines()) == 1 and len(message) <= 5000,
            f"a message of several lines, or endless: {message[:300]!r}",
        )
        check(
            any(name in message for name in names),
            f"a message that names no file: {message[:300]!r}",
        )
    except OSError as error:
        if (
            not is_disk_error(error) or not error.filename
        ):  # run_main tells these: a folder where a file is written, and the like
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    check((taken := time.process_time() - began) <= seconds, f"over {seconds} s: {taken:.1f}")
    check((growth := memory("VmHWM") - before) <= GROWTH, f"{growth / 2**30:.1f} GB more memory")
    check(not hasattr(sys, "fuzz_ran"), "code in a file was run")
    return outcome


# ---------------------------------------------------------------- hostile values, files and cases

BIG, CODE = (
    1 << 20,
    "import sys; sys.fuzz_ran = True",
)  # characters of a long text; what must not run
NASTY = [
    "",
    " ",
    "\0",
    "a\nb",
    "\u2028\x1b[2J\r",
    "\ud800",
    "../x.png",
    "..",
    ".",
    "NULL",
    "nan",
    "-1",
    "1e999",
    "x" * 300,
    "9" * 5000,
    "\uff11",
    "a\tb",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "$\\frac{",
    "caf\u00e9",
    "\U0001f600" * 9,
    "0",
    "1",
    "true",
    "-0.5",
    "1_0",
    "/dev/zero",
    "/etc/passwd",
    "away/passwd",
    "./image0.png",
    "image0.png/",
    "image1.png",
    "mask1.png",
    "loop.png",
    "pipe.png",
    "folder.png",
    "pic0.png",
    "freeform",
    "para",
    "frame",
    "test_para",
    "ABD",
    "OPEN",
    "closed ",
    "CMSA",
    "BAN",
    "LSTM",
    "resnet34",
]  # the last ones mean something
NUMBERS = [
    0,
    1,
    2,
    -1,
    4,
    0.5,
    -0.0,
    255,
    10**6,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    1e308,
    -1e308,
    5e-324,
    math.nan,
    math.inf,
    -math.inf,
]
SCALARS = st.one_of(
    st.sampled_from([None, True, False, *NUMBERS]),
    st.sampled_from(NASTY),
    st.sampled_from(NASTY),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=12),
)  # halves of characters too
VALUES = SCALARS | st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NASTY[:8], "a", "b"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ODD = [
    b"",
    bytes(999),
    b"\xff\xfe[\0]\0",
    b"\xef\xbb\xbf[]",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" + b"9" * 5000 + b"]",
    b"1e999",
    b"NaN",
    b"null",
    b'"\\ud800"',
    b'{"a": 1, "a": 2}',
    b"[1,]",
    b'"\xc3"',
    b"[[1, 2], [3]]",
    b'"' + b"x" * BIG + b'"',
    b"[" + b"0," * (BIG // 8) + b"0]",
    b"a\na",
    b"0\n1\n2",
    b"x" * BIG + b"\ny",
    b"\xff\n\0",
    b"b\r\x1b[2J\n" * 3,
    b"\0 \0",
    b"a b c",
    b"image4.png mask4.png",
    b"4 999\n",
    b"4 0\n",
    b"\xef\xbb\xbfloop.png 1",
    "image0.png 1".encode("utf-16"),
    b"is " + b"9" * 5000,
    b"is" + b" 1e999" * 50,
    b"999999999999999999 3\nis ",
    b"PK\3\4junk",
    b"PK\5\6" + bytes(18),
    b"P3\n2 1\n255\n1 2 3 4 5 6\n",
]


@st.composite
def edited(draw, value, values=VALUES):
    """`value`, lists and dictionaries in each other, with a part or some replaced, removed, doubled, or put in another's place."""
    if not isinstance(value, (dict, list)) or not value or not draw(st.integers(0, 19)):
        return draw(values)
    value, keys = copy.copy(value), list(value) if isinstance(value, dict) else range(len(value))
    key, how = draw(st.sampled_from(keys)), draw(st.integers(0, 14))
    if how == 0:
        del value[key]
    elif how == 1 and isinstance(value, list):
        value.append(value[key])
    else:
        value[key] = (
            value[draw(st.sampled_from(keys))] if how == 2 else draw(edited(value[key], values))
        )
    return value if draw(st.integers(0, 7)) else draw(edited(value, values))


@st.composite
def mutated(draw, content):
    """Bytes with one to four pieces of them changed, cut out, doubled, or zeroed; the start is hit more often than the rest."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(content), 1000)) | st.integers(0, len(content)))
        piece = content[
            at : at + draw(st.sampled_from([0, 1, 1, 2, 4, 8, 64, len(content) // 2, len(content)]))
        ]
        size = min(len(piece), 8) or 4  # of the same length: such damage is the least seen
        new = draw(
            st.sampled_from(
                [
                    b"",
                    piece * 2,
                    bytes(len(piece)),
                    b"\xff" * len(piece),
                    b"\x7f\xff\xff\xff",
                    b"\xff\xff\xff\x7f",
                    b"\0\1\0\0",
                ]
            )
            | st.binary(min_size=size, max_size=size)
        )
        content = content[:at] + new + content[at + len(piece) :]
    return content


CALLS = [
    type("Call", (), {"__reduce__": lambda self, call=call: call})()
    for call in (  # pickled, they run when the pickle is loaded as usual
        (exec, (CODE,)),
        (eval, (f"exec({CODE!r})",)),
        (getattr, ("x", "upper")),
        (bytearray, (2**40,)),
    )
]
PICKLES = [
    pickle.dumps(call, protocol) for call in CALLS for protocol in (0, 2, 4)
] + [  # all to be refused
    b"cbuiltins\nexec\n(S'" + CODE.encode() + b"'\ntR.",
    b"c_codecs\nencode\n(N}S'__defaults__'\n(tstb.",
    b"c_codecs\nencode\nS'globals'\nb.",
    b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".",
    b"\x80\x04]\x94h\0a.",
    b"I" + b"9" * 5000 + b"\n.",
    b"\x80\x02U\x01x" * 1000 + b".",
    b"P0\n.",
    b"cnumpy.core.multiarray\n_reconstruct\n(K\1tb.",
    b"\x80\x05\x97.",
    b"\x80\x04]" + b"2\x94]\x94(h\0h\0e0" * 40 + b".",
    *(
        b"\x80\x04]r" + struct.pack("<I", size) + b"." for size in (2**28, 2**31)
    ),  # claim much memory
    *(b"\x80\x04\x8e" + struct.pack("<Q", size) + b"x." for size in (2**33, 2**40)),
]
ARRAYS = st.one_of(
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=3)),
    st.builds(
        np.full,
        st.sampled_from(
            [(3, 50), (3, 200), (3, 300), (1, 3, rad.SIZE, rad.SIZE), (2, 3, rad.SIZE, rad.SIZE)]
        ),
        st.sampled_from([0, 6e4, math.nan, math.inf]),
        st.sampled_from(["f2", "f4", "f8", ">f4", "c8"]),
    ),
)
HEADS = [
    f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    for shape, kind in (
        ("(10**12,)", "<f4"),
        ("(1000000000000, 300)", "<f4"),
        ("(900000000, 2)", "<f4"),
        ("(" * 300, "<f4"),
        ("(-1, 300)", "<f4"),
        ("(3, 300)", "|O"),
    )
]
NPYS = [
    b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + pickle.dumps(CALLS[0]) + bytes(64)
    for head in HEADS
]  # the last one with code
TENSORS = [
    torch.zeros(()),
    torch.full((2, 3), math.nan),
    torch.zeros(0),
    torch.ones(2, 3, dtype=torch.bool),
    torch.zeros(1, dtype=torch.uint8),
    torch.zeros(1, dtype=torch.float64).expand(30_000, 30_000),
    torch.zeros(2**20, 2**20, device="meta"),
    torch.eye(3).to_sparse(),
    torch.zeros(2, 3, dtype=torch.complex64),
    torch.zeros(2, dtype=torch.bfloat16),
    torch.nn.Parameter(torch.zeros(2)),
    torch.float32,
]
CODES = [*CALLS, Path("x"), object]  # what no checkpoint may hold


def as_json(value):
    """The bytes of a JSON file."""
    return json.dumps(value).encode()


def made(save, *arguments, **options):
    """The bytes that save(file, ...) writes."""
    save(buffer := io.BytesIO(), *arguments, **options)
    return buffer.getvalue()


def saved(state):
    """The bytes of a checkpoint; it is empty where torch.save can't hold the state."""
    with contextlib.suppress(Exception):
        return made(lambda file: torch.save(state, file))
    return made(lambda file: torch.save({}, file))


def png(pixels):
    """The bytes of a small grey picture."""
    return made(Image.fromarray(np.asarray(pixels, np.uint8)).save, "PNG")


SIDES = {
    "PNG": ">I",
    "JPEG": ">H",
    "BMP": "<I",
    "GIF": "<H",
    "TIFF": "<I",
    "WEBP": "<H",
    "PPM": "",
}  # width and height in a header
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8))
PICTURES = {made(RGB.save, "TIFF", compression="jpeg"): "TIFF"}  # {bytes: format}
for form, mode, way in itertools.product(
    SIDES,
    ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    (
        {},
        {"save_all": True, "append_images": [RGB, RGB]},
        {"progressive": True},
        {"lossless": True},
        {"transparency": 3},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
    ),
):
    with contextlib.suppress(OSError, KeyError, ValueError):  # what this Pillow can't write
        PICTURES[
            made(RGB.convert("I" if mode == "I;16" else mode).convert(mode).save, form, **way)
        ] = form


def resized(content, width, height):
    """One of the pictures, whose header tells another size."""
    form = PICTURES[content]
    for sides in zip(RGB.size, (width, height)):
        old, new = (
            struct.pack(SIDES[form], side % 256 ** struct.calcsize(SIDES[form]))
            if SIDES[form]
            else b"%d" % side
            for side in sides
        )
        content = content.replace(old, new, 2)
    return (
        content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]
        if form == "PNG"
        else content
    )  # the header's check sum


DICOMS = {
    path.name: path.read_bytes()
    for path in sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm"))
    if path.stat().st_size < 40_000 or "palette" in path.name
}
ITEM, SHARED = pydicom.Dataset(), pydicom.Dataset()
ITEM.RescaleSlope, ITEM.RescaleIntercept, SHARED.PixelValueTransformationSequence = "3", "1", [ITEM]
(
    ITEM.add_new("LUTDescriptor", "US", [256, 0, 16]),
    ITEM.add_new("LUTData", "OW", bytes(range(256)) * 2),
)
FIELDS = st.sampled_from(
    [
        ("VOILUTSequence", [ITEM]),
        ("SharedFunctionalGroupsSequence", [SHARED]),
        ("VOILUTFunction", "SIGMOID"),
    ]
) | st.tuples(
    st.sampled_from(
        [
            "Rows",
            "Columns",
            "SamplesPerPixel",
            "BitsAllocated",
            "BitsStored",
            "HighBit",
            "PixelRepresentation",
            "PixelPaddingValue",
            "PixelData",
            "PhotometricInterpretation",
            "RescaleSlope",
            "RescaleIntercept",
            "WindowCenter",
            "WindowWidth",
            "NumberOfFrames",
        ]
    ),
    st.sampled_from(
        [
            None,
            0,
            1,
            5,
            7,
            255,
            8944,
            65535,
            2**31 - 1,
            -1,
            "0",
            "-1e308",
            "nan",
            "1e400",
            ["1", "0"],
            [0, 0],
            "RGB",
            "YBR_FULL_422",
            "MONOCHROME1",
            "PALETTE COLOR",
            "a\\b",
            b"",
            bytes(31),
            "9" * 400,
        ]
    ),
)


def dicom(content, fields):
    """A DICOM file with these fields, [(name, value)], as far as pydicom reads, holds and writes it."""
    with contextlib.suppress(Exception):
        file = pydicom.dcmread(io.BytesIO(content))
        for name, value in fields:
            with contextlib.suppress(Exception):
                setattr(file, name, value)
        return made(lambda buffer: pydicom.dcmwrite(buffer, file))
    return content


PACKER = zlib.compressobj(9, zlib.DEFLATED, -15)
BOMB = (
    PACKER.compress(bytes(1 << 24)) + PACKER.flush(zlib.Z_FULL_FLUSH)
) * 192 + PACKER.flush()  # 3 GB of zeros: such a piece may be repeated


def repacked(content, part, new):
    """A zip file with `new` in place of the entry whose name ends in `part`."""
    with (
        zipfile.ZipFile(io.BytesIO(content)) as good,
        zipfile.ZipFile(buffer := io.BytesIO(), "w") as file,
    ):
        for name in good.namelist():
            file.writestr(name, new if name.endswith(part) else good.read(name))
            if new is BOMB and name.endswith(part):
                file.getinfo(name).compress_type, file.getinfo(name).file_size = (
                    zipfile.ZIP_DEFLATED,
                    192 << 24,
                )
    return buffer.getvalue()


def damaged(name, content):
    """What may stand in a file's place: hostile values in its own form, which its suffix tells, damaged bytes, or something odd."""

    def lines(read, write):
        rows = edited([*map(read, content.decode().splitlines())]).map(
            lambda rows: rows if isinstance(rows, list) else [rows]
        )
        return rows.map(lambda rows: "\n".join(map(write, rows)).encode("utf-8", "surrogatepass"))

    side, picture = (
        st.sampled_from(
            [0, 1, 9, 800, 8944, 65535, 65536, 100_000, 10**6, 2**31 - 1, 2**31, 2**32 - 1]
        ),
        st.sampled_from(list(PICTURES)),
    )
    kinds = {
        ".json": lambda: edited(json.loads(content)).map(as_json),
        ".jsonl": lambda: lines(json.loads, json.dumps),
        ".txt": lambda: lines(
            str.split, lambda row: "\t".join(map(str, row if isinstance(row, list) else [row]))
        ),
        ".png": lambda: (
            picture | st.builds(resized, picture, side, side) | picture.flatmap(mutated)
        ),
        ".dcm": lambda: (
            st.builds(dicom, st.just(content), st.lists(FIELDS, min_size=1, max_size=3))
            | mutated(content)
        ),
        ".npy": lambda: (
            st.sampled_from(NPYS)
            | ARRAYS.map(lambda array: made(np.save, array))
            | mutated(content)
        ),
        ".pkl": lambda: (
            st.sampled_from(PICKLES)
            | VALUES.map(pickle.dumps)
            | ARRAYS.map(pickle.dumps)
            | mutated(content)
        ),
        ".pth": lambda: edited(
            torch.load(io.BytesIO(content), weights_only=True),
            st.sampled_from([*TENSORS, *CODES]) | VALUES,
        ).map(saved),
    }
    own = mutated(content)
    with contextlib.suppress(Exception):  # of what was damaged before
        own = kinds[Path(name).suffix]()
    return st.integers(0, 9).flatmap(
        lambda i: own if i < 7 else mutated(content) if i < 9 else st.sampled_from(ODD)
    )


ODD_NAMES = [
    "x.png",
    "\udcff.png",
    "n\nl.png",
    "x" * 250 + ".png",
    "a\nb",
    "\udcff",
    "..x",
    ".x",
    "c",
    "val",
    "val.txt",
    "classes.txt",
    "d/x.png",
]


@st.composite
def cases(draw, variants, only):
    """A case: whole files, one or two of them (`only`: paths that begin so) damaged, gone, renamed, doubled, or no files; folders too."""
    files = dict(draw(st.sampled_from(variants)))
    for _ in range(draw(st.integers(1, 2))):
        if not (
            names := sorted(
                name
                for name, content in files.items()
                if name.startswith(only) and isinstance(content, bytes)
            )
        ):
            break
        ends = {Path(name).suffix for name in names}
        suffix = draw(
            st.sampled_from(sorted(ends - {".png"}) * 3 + sorted(ends & {".png"}))
        )  # a list more often than the many images
        name = draw(st.sampled_from([name for name in names if Path(name).suffix == suffix]))
        if draw(st.integers(0, 7 if len(names) < 6 else 2)):
            files[name] = draw(damaged(name, files[name]))
            continue
        spot = str(
            draw(
                st.sampled_from(
                    [
                        place
                        for place in (Path(name), *Path(name).parents[:-1])
                        if str(place).startswith(only)
                    ]
                )
            )
        )
        new = draw(
            st.just(spot) | st.sampled_from(ODD_NAMES).map(lambda odd: str(Path(spot).parent / odd))
        )
        old = {name: files[name] for name in files if f"{name}/".startswith(f"{spot}/")}
        put = draw(
            st.sampled_from(["old", "nothing", FOLDER, PIPE])
            | st.sampled_from(
                [
                    b"",
                    "nowhere",
                    "/dev/zero",
                    "/",
                    "..",
                    ".",
                    "x.png",
                    "/etc/passwd",
                    Path(new).name,
                ]
            )
        )
        if new == spot or draw(st.booleans()):
            files = {name: content for name, content in files.items() if name not in old}
        if put != "nothing":
            files |= (
                {new + name[len(spot) :]: content for name, content in old.items()}
                if put == "old"
                else {new: put}
            )
    return files


# ---------------------------------------------------------------- VQA-RAD: records, the authors' archive, prepared files

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
TRAIN = [
    RECORD,
    RECORD | {"qid": 4, "question": "is a mass there", "phrase_type": "frame"},
    RECORD
    | {
        "qid": 2,
        "image_name": "pic1.png",
        "image_organ": "HEAD",
        "answer": 4,
        "answer_type": "CLOSED ",
        "question": "how many",
        "phrase_type": "para",
    },
]
TEST = [
    RECORD | {"qid": 3, "question": "where is it?", "answer": "left"},
    RECORD | {"qid": 5, "image_name": "pic1.png", "phrase_type": "para"},
]
PUBLIC = [
    one
    | {
        "phrase_type": phrase,
        "question_frame": frame,
        "question_rephrase": None,
        "evaluation": "evaluated",
    }
    for one, phrase, frame in zip(
        TRAIN[::2] + TEST,
        ("freeform", "para", "test_freeform", "test_para"),
        ("is a mass there", "NULL", None, " "),
    )
]
PICS = {f"images/pic{i}.png": png(np.full((4, 2), 90 * i)) for i in range(2)}
PROCESSED = {rad.TRAIN_JSON: as_json(TRAIN), rad.TEST_JSON: as_json(TEST)} | PICS
INDEX = [
    {text: i for i, text in enumerate(texts)}
    for texts in (rad.build_dictionary(TRAIN), rad.build_answers(TRAIN))
]
ARCHIVE = (
    {name: PROCESSED[name].replace(b"pic1", b"pic0") for name in (rad.TRAIN_JSON, rad.TEST_JSON)}
    | {
        name: pickle.dumps(value, 2)
        for name, value in zip(
            (*rad.ARCHIVE_PICKLES, rad.IMAGE_PICKLE),
            (
                [INDEX[0], [*INDEX[0]]],
                INDEX[1],
                [*INDEX[1]],
                np.linspace(-2, 2, 3 * rad.SIZE**2, dtype=np.float32).reshape(
                    1, 3, rad.SIZE, rad.SIZE
                ),
            ),
        )
    }
    | {rad.IMAGE_INDEX: as_json({"pic0.png": 0})}
)


def prepare(folder):
    """What training sees of a data set, as plain values: texts, images, frozen maps. They are prepared, or read where that was done before."""
    data, cpu = rad.prepare(folder, say=lambda _: None), torch.device("cpu")
    side = SimpleNamespace(
        encoders=torch.nn.BatchNorm1d(1),
        training=False,
        eval=lambda: None,
        train=lambda _: None,  # as base_model.ImageSide
        maps=lambda images: torch.nn.functional.adaptive_avg_pool2d(images, 7)[:, None],
    )  # (B, 1, 3, 7, 7)
    path, rows = engine.encode_images(side, data, cpu), list(range(len(data.image_names)))
    arrays = (
        rad.load_images(data.images_path, rows),
        engine.Inputs(data, cpu, path, torch.zeros(len(rows), 3))(rows)["maps"],
    )
    return [
        data.dictionary,
        data.answers,
        data.image_names,
        data.train,
        data.test,
        *((array.dtype, array.shape, array.numpy().tobytes()) for array in arrays),
    ]


@cache
def prepared():
    """What a data set holds, and its files with the prepared ones."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        write(folder, PROCESSED)
        return prepare(folder), {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }


# ---------------------------------------------------------------- word vectors, organ sets, checkpoints, results

TEXT = "".join(
    f"{word} {' '.join(f'{n / 50:.3f}' for n in range(50))}\n"
    for word in ("is", "it", "caf\u00e9", "not")
).encode()
TABLES = {
    "glove.6B.50d.txt": TEXT,
    "glove.6B.zip": made(
        lambda file: zipfile.ZipFile(file, "w").writestr("glove.6B.50d.txt", TEXT)
    ),
    "BioWordVec_d3.vec.bin": b"3 3\n"
    + b"".join(
        word + b" " + np.ones(3, "<f4").tobytes() + b"\n" for word in (b"</s>", b"is", b"not")
    ),
    "glove6b_init_300d.npy": made(np.save, np.ones((3, 300))),
    "biowordvec_init_200d.npy": made(np.save, np.ones((3, 200), np.float32)),
    "cached.npy": made(np.save, np.zeros((3, 50), np.float32)),
}  # will stand in place of the prepared file


def run_embedding(folder):
    """Both kinds of table; what is kept of one may not come back changed."""
    (folder / "prepared").mkdir(exist_ok=True)
    data = SimpleNamespace(
        dictionary=["is", "it", "caf\u00e9"], ntoken=3, prepared=folder / "prepared", folder=folder
    )
    found = [
        rad.load_embedding(data, name, None, [folder], say=lambda _: None)
        for name in ("glove", "biowordvec")
    ]
    for table, _ in filter(None, found):
        check(
            table.dtype == np.float32
            and table.ndim == 2
            and len(table) == 3
            and np.isfinite(table).all(),
            "word vectors that are none",
        )
    if found[0] and (folder / "cached.npy").is_file():
        shutil.copyfile(folder / "cached.npy", folder / "prepared" / "embedding_glove_50d.npy")
        again = rad.load_embedding(data, "glove", None, [folder], say=lambda _: None)
        check(
            np.array_equal(again[0], found[0][0]),
            "damaged prepared files were used: other word vectors",
        )


MASKED, CLASSED = (
    [[f"image{i}.png", target.format(i, i % 2)] for i in range(6)]
    for target in ("mask{}.png", "{1}")
)
ORGAN = (
    {f"set/image{i}.png": png(np.full((4, 2), i)) for i in range(6)}
    | {f"set/mask{i}.png": png([[0, 1]] * 4) for i in range(6)}
    | {
        "set/loop.png": "loop.png",
        "set/away": "/etc",
        "set/pipe.png": PIPE,
        "set/folder.png": FOLDER,
        "set/x/y.png": b"",
        "image.png": png([[1]]),
    }
)
LISTS = []
for pairs, more in itertools.product((MASKED, CLASSED), ({}, {"set/classes.txt": b"a\nb"})):
    LISTS += [
        ORGAN
        | more
        | {
            "set/train.txt": "\n".join(map(" ".join, pairs[:4])).encode(),
            "set/val.txt": " ".join(pairs[4]).encode(),
        }
    ] * 4
    LISTS += [
        ORGAN | more | {"set/train.json": as_json(one)}
        for one in (
            pairs,
            [{"image": image, "mask": target} for image, target in pairs],
            dict(pairs),
            dict(zip("xy", map(list, zip(*pairs)))),
        )
    ]
FOLDERS = [
    {
        f"set/{part}{i}.png": png([[i, len(part)]])
        for part in ("train/a/", "train/b c/")
        for i in range(3)
    }
    | {"set/val/a/x.png": png([[9]])}
]
MODEL = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
OPTIMIZER = torch.optim.Adamax(MODEL.parameters())
MODEL(torch.ones(4, 3)).sum().backward(), OPTIMIZER.step()
STATE = {
    "version": 1,
    "epoch": 1,
    "best": 0.5,
    "history": [{"epoch": 0, "loss": 1.0}],
    "sums": [0.0, 0, 0, 0],
    "model": dict(MODEL.state_dict()),
    "optimizer": OPTIMIZER.state_dict(),
    "random": [[torch.get_rng_state(), None]],
    "answers": ["yes", "no"],
    "dictionary": ["is", "it"],
    "model_arguments": {"fusion": "CMSA", "hidden": 8, "shared": True},
    "question_len": 12,
    "frozen": True,
    "question_only": False,
    "seed": 0,
    "val_fraction": 0.1,
    "data": {"name": "n", "digest": "d", "folder": "f"},
    "identity": {"seed": 0, "lr": 0.005},
    "split": "official",
}  # as `fit` keeps it
SMALL = dict(
    fusion="SAN",
    ntoken=2,
    num_answers=2,
    hidden=4,
    rnn="LSTM",
    word_dim=2,
    use_spatial=True,
    blocks=2,
    glimpses=2,
    encoder="efficientnet_lite0",
    distmodal=False,
    shared=False,
    num_stacks=1,
)
TRAINING = train.parse_args(
    "--recipe paper --model SAN --num_hid 4 --num_stacks 1 --no-distmodal --encoder efficientnet_lite0 --no-mtpt".split()
)
LANGUAGE = torch.nn.ModuleDict(
    {  # stands for a VQAModel
        "w_emb": torch.nn.ModuleDict({name: torch.nn.Embedding(3, 4) for name in ("emb", "emb_")}),
        "q_emb": torch.nn.Linear(2, 2),
    }
)
LANGUAGE.fusion = "CMSA"
PART = {
    "version": 1,
    "encoder": "resnet34",
    "state": dict(torch.nn.Linear(2, 2).state_dict()),
    "adapter": {"weight": torch.zeros(1)},
    "phantom": False,
    "dictionary": ["is", "it"],
    "compatibility": dict(LANGUAGE.state_dict()),
    "epoch": 3,
}  # as pretrain.py keeps it


def run_checkpoint(folder):
    """What train.py --resume and --epoch do with a checkpoint before the first step."""
    path, model = folder / "best.pth", copy.deepcopy(MODEL)
    state = train.unshare(engine.read_checkpoint(path))
    train.check_same(
        state,
        SimpleNamespace(**STATE | {"name": "n", "folder": "f"}),
        STATE["model_arguments"] | {"shared": False},
        path,
    )
    train.check_resumable(state, STATE["identity"], path)
    engine.restore(state, model, torch.optim.Adamax(model.parameters()), path)
    engine.find_checkpoint(folder, 1, folder)


def run_model(folder):
    """What ask.py, test.py and export.py do with a checkpoint, and train.py --input with its weights."""
    path = folder / "best.pth"
    ask.answer(*ask.load(path), np.zeros((224, 224, 3), np.uint8), "is it")
    _, kept = evaluate.load_model(path, SimpleNamespace(model=None, rnn=None, split=None))
    export.about(kept)
    kept = engine.read_checkpoint(path)
    engine.check_sizes(kept, path)
    data = SimpleNamespace(
        ntoken=2,
        num_answers=2,
        dictionary=["is", "it"],
        answers=["yes", "no"],
        name="n",
        folder="f",
    )
    model, arguments, _ = train.build_model(TRAINING, data, True, kept)
    train.check_same(kept, data, arguments, path)
    engine.load_part(model, kept["model"], str(path))


def run_part(folder):
    """What train.py does with a file of pretrain.py's."""
    path = folder / "best.pth"
    args = SimpleNamespace(
        **dict.fromkeys(train.MTPT_FILES, path),
        named=[*train.MTPT_FILES],
        distmodal=True,
        random_encoders=False,
        encoder="auto",
    )
    _, parts, image_type, what = train.choose_encoders(args, SimpleNamespace(phantom=True))
    for state in [*(part["state"] for part in parts), image_type]:
        engine.load_part(torch.nn.Linear(2, 2), state, what)
    train.start_language(copy.deepcopy(LANGUAGE), path, SimpleNamespace(dictionary=["it", "was"]))


def pretraining():
    """last.pth of pretrain.py, before its first step."""
    args, organ_set, data = PRETRAINING
    arguments = dict(
        task="classification",
        classes=2,
        ntoken=2,
        hidden=4,
        rnn="LSTM",
        encoder=args.encoder,
        word_dim=2,
        use_spatial=True,
        compatibility=True,
    )
    model = PretrainingModel(**arguments)
    state = {
        key: STATE[key]
        for key in ("version", "epoch", "best", "history", "sums", "random", "dictionary")
    }
    return state | {
        "identity": pretrain.settings_of(args, organ_set, data, torch.device("cpu")),
        "model_arguments": arguments,
        "encoder": args.encoder,
        "start": "random weights",
        "model": model.state_dict(),
        "optimizer": pretrain.make_optimizer(model, args.lr, 0.1).state_dict(),
    }


def run_pretraining(folder):
    """What pretrain.py --resume does with last.pth before the first step."""
    args, organ_set, data = PRETRAINING
    path, unnamed = (
        folder / "last.pth",
        SimpleNamespace(**vars(args) | {"encoder": "auto", "epochs": None, "encoder_rate": None}),
    )
    kept = pretrain.read_kept(path, unnamed, organ_set, data, torch.device("cpu"))
    model, _, _ = pretrain.build_model(args, organ_set, data, None, kept, path)
    engine.restore(
        kept, model, pretrain.make_optimizer(model, args.lr, kept["identity"]["encoder_rate"]), path
    )
    range(kept["identity"]["epochs"])


PRETRAINING = (
    pretrain.parse_args(
        [
            "--epochs",
            "2",
            "--encoder_rate",
            "0.5",
            "--encoder",
            "efficientnet_lite0",
            "--num_hid",
            "4",
        ]
    ),
    mtpt.OrganSet("brain", "classification", ["a", "b"], [], [], HERE, False, "digest"),
    SimpleNamespace(ntoken=2, digest="digest"),
)
PREDICTIONS = [
    {
        "qid": qid,
        "image": f"pic{qid % 2}.png",
        "organ": "CHEST",
        "question": "is it?",
        "phrase_type": "freeform",
        "answer_type": kind,
        "truth": "yes",
        "question_types": ["PRES"],
        "answer": answer,
        "probability": 0.75,
        "top5": [["yes", 0.75], ["no", 0.25]],
        "twin": 0,
        "correct": int(answer == "yes"),
        "known_answer": 1,
        "image_in_training": 1,
        "near_identical_in_training": 0,
        "unknown_words": [],
    }
    for qid, answer, kind in ((1, "yes", "CLOSED"), (2, "no", "CLOSED"), (3, "yes", "OPEN"))
]
RESULTS = scores.table(PREDICTIONS) | {
    "version": 1,
    "data": {"name": "n", "digest": "d", "folder": "/nowhere"},
    "split": "official",
    "model": "CMSA",
    "checkpoint": "run/best.pth",
    "epoch": 1,
    "question_only": False,
    "training_questions": 3,
}
SCORED = {"run/predictions.json": as_json(PREDICTIONS), "run/results.json": as_json(RESULTS)}
RUN = {
    "run/run.json": as_json(
        {
            "arguments": {"lr": 0.005, "seed": 0},
            "command": ["train.py"],
            "data": {"name": "n"},
            "versions": {"torch": "2"},
        }
    ),
    "run/log.jsonl": b"".join(
        as_json({"epoch": i, "loss": 1.0, "train_score": 0.5, "val_score": 0.25, "seconds": 1.0})
        + b"\n"
        for i in range(2)
    ),
}
BESIDE = {
    "beside/predictions.json": as_json(PREDICTIONS),
    "beside/results.json": as_json(RESULTS | {"question_only": True}),
}


def run_predictions(folder):
    """What scores.py does with a results folder, and the tables of the report."""
    rows = scores.read_predictions(folder / "run")
    for name in scores.PROTOCOLS:
        scores.compare(scores.protocol(rows, name), scores.protocol(rows, name))
    rows, _ = report.read_results(folder / "run")
    (
        scores.breakdown(rows),
        scores.intervals(rows),
        report.calibration(rows),
        report.choose_gallery(rows),
    )
    report.score_rows(rows, {}), report.group_tables(rows, {})


def run_report(folder):
    """The whole page."""
    page = report.make_report(folder / "run").read_text(encoding="utf-8")
    check("<script>alert(1)" not in page, "text of the data is in the page as it is")


Loader = namedtuple(
    "Loader", "files run weight only", defaults=[""]
)  # files(): some whole cases; `weight`: share of the cases; `only`: see `cases`
LOADERS = {
    "json": Loader(
        lambda: [{"x.json": as_json(TRAIN)}], lambda folder: read_json(folder / "x.json"), 1
    ),
    "public": Loader(lambda: [{rad.PUBLIC_JSON: as_json(PUBLIC)} | PICS], prepare, 1.5),
    "processed": Loader(lambda: [PROCESSED], prepare, 1.5),
    "archive": Loader(lambda: [ARCHIVE], prepare, 1.5),
    "prepared": Loader(
        lambda: [prepared()[1]],
        lambda folder: check(prepare(folder) == prepared()[0], "damaged files were used"),
        1,
        "prepared/",
    ),
    "images": Loader(
        lambda: [{"x.png": png([[1]])}], lambda folder: ask.read_any_image(folder / "x.png"), 1.5
    ),
    "masks": Loader(
        lambda: [{"x.png": png([[1]])}], lambda folder: mtpt.read_mask(folder / "x.png"), 1
    ),
    "dicom": Loader(
        lambda: [{"x.dcm": content} for content in DICOMS.values()],
        lambda folder: ask.read_any_image(folder / "x.dcm"),
        1.5,
    ),
    "lists": Loader(
        lambda: LISTS, lambda folder: mtpt.load_organ_set(folder / "set", "brain"), 1.5
    ),
    "folders": Loader(
        lambda: FOLDERS, lambda folder: mtpt.load_organ_set(folder / "set", "brain"), 1
    ),
    "embedding": Loader(
        lambda: [
            {name: content, "cached.npy": TABLES["cached.npy"]} for name, content in TABLES.items()
        ],
        run_embedding,
        1.5,
    ),
    "checkpoint": Loader(lambda: [{"best.pth": saved(STATE)}], run_checkpoint, 1.5),
    "part": Loader(lambda: [{"best.pth": saved(PART)}], run_part, 1),
    "pretraining": Loader(lambda: [{"last.pth": saved(pretraining())}], run_pretraining, 0.3),
    "model": Loader(
        lambda: [
            {
                "best.pth": saved(
                    STATE | {"model": VQAModel(**SMALL).state_dict(), "model_arguments": SMALL}
                )
            }
        ],
        run_model,
        0.3,
    ),
    "predictions": Loader(lambda: [SCORED], run_predictions, 1),
    "run": Loader(lambda: [RUN], lambda folder: report.read_run(folder / "run"), 1),
    "report": Loader(lambda: [SCORED | BESIDE | RUN], run_report, 0.1),
}


def fixed(name, variants, heavy):
    """The fixed cases of a loader: (files, the outcome that they must have or None, title). The heavy ones, which may load, take some seconds."""
    yield from (
        (files, "accepted" if name != "dicom" else None, "whole files") for files in variants
    )  # some of pydicom's have no image
    if name == "json":
        for text in (
            b"",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" + b"9" * 5000 + b"]",
            b"[1,]",
            b'"\xc3"',
            b"[" * 50 * BIG,
            b'"' + b"x" * 50 * BIG,
        ):
            yield {"x.json": text}, "UserError", repr(text[:9])
        for text in (
            (b'"' + b"x" * 50 * BIG + b'"', b"[" + b"{}," * 17 * BIG + b"1]") if heavy else ()
        ):
            yield {"x.json": text}, None, f"{len(text):,} characters"
    if name == "processed":
        for field, value in [
            ("image_name", path)
            for path in (
                "../pic0.png",
                "x/../pic0.png",
                "images/pic0.png",
                "/dev/zero",
                "..\\pic0.png",
            )
        ] + [
            ("question", "is it " * 6 * BIG),
            ("answer", "a, b." * 12 * BIG),
        ]:  # a picture is where some of the names lead
            files = PROCESSED | {
                "pic0.png": png([[1]]),
                "images/x/y.png": b"",
                rad.TRAIN_JSON: as_json([TRAIN[0] | {field: value}, *TRAIN[1:]]),
            }
            yield files, "UserError", f"{field} {value[:20]}"
    for content in PICKLES if name == "archive" else ():
        yield ARCHIVE | {"dictionary.pkl": content}, "UserError", repr(content[:40])
    if name in ("images", "masks"):
        yield (
            {
                "x.png": resized(
                    next(one for one in PICTURES if PICTURES[one] == "PNG"), 100_000, 100_000
                )
            },
            "UserError",
            "100,000 x 100,000",
        )
        for mode, *size in (
            ("RGB", 100_000, 799),
            ("I;16", 100_000, 799),
            ("RGBA", 100_000, 799),
            ("RGBA", 13_000, 13_000),
            ("1", 100_000, 1_700),
        ):
            if heavy:
                files = {"x.png": made(Image.new(mode, size).save, "PNG", compress_level=1)}
                yield files, "UserError" if math.prod(size) > 10**8 else None, f"{mode}, {size}"
    if name == "dicom":
        deflated, side = DICOMS["image_dfl.dcm"], 8_900
        start = (
            132
            + 12
            + pydicom.dcmread(io.BytesIO(deflated)).file_meta.FileMetaInformationGroupLength
        )
        runs = pydicom.encaps.encapsulate(
            [struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * (side * side // 128 + 1)]
        )
        fields = dict(
            Rows=side,
            Columns=side,
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            PixelData=runs,
        )
        yield {"x.dcm": deflated[:start] + BOMB}, "UserError", "deflated 3 GB"
        yield {"x.dcm": dicom(DICOMS["SC_rgb_rle.dcm"], fields.items())}, None, "run lengths"
    for path in (
        ("../image.png", "x/../../image.png", "/dev/zero", str(Path(__file__).resolve()))
        if name == "lists"
        else ()
    ):
        yield (
            ORGAN | {"set/train.json": as_json([*MASKED[:4], [path, "mask4.png"]])},
            "UserError",
            path,
        )
    if name == "embedding":
        yield {"glove6b_init_300d.npy": NPYS[-1]}, "UserError", "code"
        yield (
            {"glove.6B.zip": repacked(TABLES["glove.6B.zip"], ".txt", BOMB)},
            "UserError",
            "deflated 3 GB",
        )
    if state := {"checkpoint": STATE, "part": PART}.get(name):
        for content in [
            *PICKLES,
            *(saved(state | {"epoch": code}) for code in CODES),
            repacked(saved(state), "/data/0", BOMB),
            *(repacked(saved(state), "data.pkl", code) for code in PICKLES),
        ]:
            yield {"best.pth": content}, "UserError", "code, or deflated 3 GB"


# ---------------------------------------------------------------- the command


def fuzz(name, wanted, number, base, go_on=False):
    """Run a loader's fixed cases, the heavy ones too if at least 100 are wanted, and as many drawn ones as make `wanted`.

    Stops at the first violation, or with `go_on` at none: ({outcome: count}, {kind of violation: [count, text, folder to run it again]}).
    """
    loader, counts, found, work = LOADERS[name], Counter(), {}, base / name / "case"
    variants = loader.files()

    def one(files, must=None, title="drawn"):
        if found and not go_on:
            return
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        faulthandler.dump_traceback_later(
            6 * SECONDS, exit=True, file=sys.__stderr__
        )  # for what hangs and hears no signal
        try:
            outcome = attempt(loader.run, files, work)
            check(must in (None, outcome), f"{outcome}, and {must} is wanted")
        except (Exception, Violation) as error:
            places = [
                f"{Path(at.filename).name}:{at.lineno}"
                for at in traceback.extract_tb(error.__traceback__)
                if Path(at.filename).parent == HERE
            ]
            place = next(
                (place for place in reversed(places) if not place.startswith("fuzz.py")), "fuzz.py"
            )
            outcome, text = (
                "VIOLATION",
                f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            )
            kind = (
                f"{text[:60] if isinstance(error, Violation) else type(error).__name__} at {place}"
            )
            if kind not in found:
                found[kind] = [0, f"{title}: {text}", base / name / f"violation_{len(found)}"]
                write(found[kind][2], files)
            found[kind][0] += 1
        finally:
            faulthandler.cancel_dump_traceback_later()
        counts[outcome] += 1

    for case in fixed(name, variants, wanted >= 100):
        one(*case)
    for again in itertools.count(number, 1_000_003):  # hypothesis may end a round early
        if (left := wanted - counts.total()) <= 0 or (found and not go_on):
            return counts, found

        @seed(again)
        @settings(
            max_examples=left,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(cases(variants, loader.only))
        def examples(files):
            one(files)

        examples()


def child(*arguments):
    """`fuzz` in a process of its own, without a word."""
    torch.set_num_threads(1)
    resource.setrlimit(
        resource.RLIMIT_AS,
        (memory("VmSize") + 4 * GROWTH, resource.getrlimit(resource.RLIMIT_AS)[1]),
    )  # the machine has no more
    os.dup2(os.dup2(os.open(os.devnull, os.O_WRONLY), 1), 2)  # libraries in C write there
    return fuzz(*arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases",
        type=int,
        default=10_000,
        help="over all loaders (default: 10000), or of the one that --loader names",
    )
    parser.add_argument("--loader", choices=LOADERS, help="this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--again",
        type=Path,
        metavar="FOLDER",
        help="run the case in this folder once more (copy it first: loaders may write in it)",
    )
    parser.add_argument(
        "--go_on", action="store_true", help="do not stop at a violation; count them by kind"
    )
    args = parser.parse_args()
    if args.again and not args.loader:
        parser.error("--again needs --loader")
    os.environ["CMSA_CACHE"] = tempfile.mkdtemp(prefix="fuzz-cache-")
    if args.again:
        print(attempt(LOADERS[args.loader].run, {}, args.again.resolve()))
        return 0
    names = [args.loader] if args.loader else list(LOADERS)
    total, sums, bad, base = (
        sum(LOADERS[name].weight for name in names),
        Counter(),
        False,
        Path(tempfile.mkdtemp(prefix="fuzz-")).resolve(),
    )
    print(
        f"{'loader':12} {'cases':>7} {'accepted':>9} {'UserError':>10} {'violation':>10} {'seconds':>8}",
        flush=True,
    )
    for name in names:
        began, wanted = time.monotonic(), math.ceil(args.cases * LOADERS[name].weight / total)
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            try:
                counts, found = pool.submit(
                    child, name, wanted, args.seed, base, args.go_on
                ).result()
            except BrokenExecutor:
                counts, found = (
                    Counter(VIOLATION=1),
                    {"crash": [1, "the process died, or did not end", base / name / "case"]},
                )
        sums, bad = sums + counts, bad or bool(found)
        shown = f"{counts.total():7,} {counts['accepted']:9,} {counts['UserError']:10,} {counts['VIOLATION']:10,}"
        print(f"{name:12} {shown} {time.monotonic() - began:8.0f}", flush=True)
        for kind, (times, text, folder) in found.items():
            print(
                f"  {kind} ({times})\n    {text}\n    again: {sys.executable} {Path(__file__).resolve()} --loader {name} --again {folder}"
            )
        if bad and not args.go_on:
            break
    print(
        f"{'all':12} {sums.total():7,} {sums['accepted']:9,} {sums['UserError']:10,} {sums['VIOLATION']:10,}"
    )
    for folder in [os.environ["CMSA_CACHE"]] + [base] * (not bad):
        shutil.rmtree(folder, ignore_errors=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
