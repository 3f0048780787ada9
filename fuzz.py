"""Hostile input for every loader: each case must load or raise UserError with one line that names the file or field, and nothing else.

    python fuzz.py [--cases 10000] [--loader NAME] [--seed 0]    all loaders, or one; prints counts, exits 1 at the first violation
    python fuzz.py --loader NAME --again FOLDER                  run a case that was found once more, where it lies
    python fuzz.py --go_on                                       count violations by kind, show an example of each, stop at none

A violation: another exception, a crash, over 10 s (20 s with waiting), over 2 GB more memory, code run from a file, a message of several lines or one that
names nothing, damaged prepared files used as if they were whole. Each loader runs in a process of its own. Needs hypothesis, and
room for some 100 MB in the temporary folder (TMPDIR). tests/test_fuzz.py runs a few hundred of the same cases.
"""
import argparse
import contextlib
import copy
import faulthandler
import io
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
import warnings
import zipfile
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, NamedTuple

import h5py
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

import ask
import dataset_MTPT as mtpt
import dataset_RAD as rad
import engine
import report
import scores
import train
from base_model import VQAModel
from utils import UserError, is_disk_error, load_checkpoint, read_json

SECONDS, GROWTH = 10, 2 * 2**30  # of computing, bytes: what a case may take
SETTINGS = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False)


class Violation(Exception):
    """What a loader must not do."""


class TooSlow(BaseException):
    """Past the time limit; no `except Exception` of a loader catches it."""


# ---------------------------------------------------------------- a case: files, and one call

class Link(NamedTuple):
    """A symbolic link, in place of a file's content."""
    target: str


FOLDER, PIPE = "folder", "pipe"  # an empty folder or a named pipe in place of a file


def write(folder, files):
    """Make {relative path: bytes, Link, FOLDER or PIPE} in `folder`. What can't be made (a name that is too long) is left out."""
    for name, content in files.items():
        path = folder / name
        with contextlib.suppress(OSError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Link):
                path.symlink_to(content.target)
            elif content == PIPE:
                os.mkfifo(path)
            elif content == FOLDER:
                path.mkdir()
            else:
                path.write_bytes(content)


def memory(what="VmRSS"):
    """Memory of this process in bytes now, or with "VmHWM" at most since `forget_peak`; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        line = next(line for line in open("/proc/self/status") if line.startswith(what))
        return int(line.split()[1]) * 1024
    return 0


def forget_peak():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def attempt(loader, files, folder, seconds=SECONDS):
    """Write a case into the new folder `folder`, run the loader on it: "accepted" or "UserError". Raises for any violation."""
    def late(*_):
        raise TooSlow
    write(folder, files)
    sys.__dict__.pop("fuzz_ran", None)
    forget_peak()
    timers = (signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 2 * seconds)  # of computing; in all, on a busy machine
    before, began, old = memory(), time.process_time(), [signal.signal(number, late) for number, *_ in timers]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 3 * GROWTH, limits[1]))  # so that no case takes the machine's
        for _, timer, limit in timers:
            signal.setitimer(timer, limit)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            loader.run(folder)
        outcome = "accepted"
    except UserError as error:
        check_message(str(error), folder, files)
        outcome = "UserError"
    except OSError as error:
        if not is_disk_error(error) or not error.filename:  # run_main tells these: a folder where a file is written, and the like
            raise
        outcome = "UserError"
    except TooSlow as error:
        raise Violation(f"over {seconds} s at {where(error)}") from None
    finally:
        for (number, timer, _), handler in zip(timers, old):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    if (taken := time.process_time() - began) > seconds:
        raise Violation(f"{taken:.1f} s, over {seconds} s")
    if (growth := memory("VmHWM") - before) > GROWTH:
        raise Violation(f"{growth / 2**30:.1f} GB more memory")
    if hasattr(sys, "fuzz_ran"):
        raise Violation("code in a file was run")
    return outcome


def where(error):
    """The innermost place in the program, outside of this file, that an exception passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent and frame.filename != __file__] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def check_message(message, folder, files):
    """Raise Violation for a message that is not one line, is endless, or names neither a file of the case nor its folder."""
    if len(message.splitlines()) != 1:
        raise Violation(f"a message of several lines: {message.replace(str(folder), '')[:300]!r}")
    if len(message) > 5000:
        raise Violation(f"an endless message: {message.replace(str(folder), '')[:300]!r}")
    if str(folder) not in message and not any(Path(name).name in message for name in files):
        raise Violation(f"a message that names no file: {message[:300]!r}")


# ---------------------------------------------------------------- hostile values

BIG = 1 << 20  # characters of a long text; the command makes it longer for some cases
CODE = "import sys; sys.fuzz_ran = True"
NASTY = ["", " ", "\0", "a\nb", "\u2028\x1b[2J\r", "\ud800", "../x.png", "/etc/passwd", "..", ".", "NULL", "nan", "-1", "1e999", "x" * 300, "9" * 5000,
         "\uff11", "a\tb", "<script>alert(1)</script>", "{{ 7 * 7 }}", "$\\frac{", "caf\u00e9", "\U0001f600" * 9, "pic0.png", "pic1.png", "0", "1", "true", "-0.5"]
NUMBERS = [0, 1, 2, -1, 0.5, -0.0, 255, 2**31, 2**63, 2**64, -2**63 - 1, 10**400, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf]
SCALARS = st.one_of(st.sampled_from([None, True, False]), st.sampled_from(NUMBERS), st.sampled_from(NASTY), st.integers(), st.floats(),
                    st.text(st.characters(), max_size=12))  # any character, halves of one too
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NASTY[:8] + list("ab")), inner, max_size=3),
                      max_leaves=6)


def spots(value):
    """(container, key) of everything inside of a value of lists and dictionaries."""
    found = []
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += [(value, key), *spots(value[key])]
    return found


@st.composite
def edited(draw, value, values=VALUES, most=3):
    """`value` with up to `most` of its parts replaced, removed, or doubled."""
    value = [copy.deepcopy(value)]
    for _ in range(draw(st.integers(0, most))):
        where = spots(value)
        inner = [(container, key) for container, key in where if not isinstance(container[key], (dict, list))]
        container, key = draw(st.sampled_from(inner if inner and draw(st.integers(0, 3)) else where))
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "swap"]))
        if how == "remove" and container is not value:
            del container[key]
        elif how == "double" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif how == "swap":
            other, there = draw(st.sampled_from(where))
            container[key] = copy.deepcopy(other[there])
        else:
            container[key] = draw(values)
    return value[0]


@st.composite
def mutated(draw, content, most=4):
    """Bytes with up to `most` changes: bits flipped, bytes set, cut out, doubled, inserted, zeroed, the end cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 4, 8, 64, len(content) // 2]))
        how = draw(st.sampled_from(["flip", "flip", "set", "word", "cut", "double", "insert", "zero", "end"]))
        if how == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            content[at:at + 1] = bytes([draw(st.sampled_from([0, 1, 0x7f, 0x80, 0xfe, 0xff]))])
        elif how == "word":
            content[at:at + 4] = draw(st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0"]))
        elif how == "cut":
            del content[at:at + length]
        elif how == "double":
            content[at:at] = content[at:at + length]
        elif how == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        elif how == "zero":
            content[at:at + length] = bytes(len(content[at:at + length]))
        elif how == "end":
            del content[at:]
    return bytes(content)


ODD_JSON = [b"", b"\0", b"\xff\xfe[\0]\0", b"\xef\xbb\xbf[]", b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"9" * 5000 + b"]", b"-" + b"1" * 4300, b"1e999", b"NaN",
            b'"\\ud800"', b'{"a": 1, "a": 2}', b"[1,]", b"null", b'"\xc3"', b"[[1, 2], [3]]", b"// no", "[]".encode("utf-16"), b'"' + b"x" * BIG + b'"',
            b"[" + b"0," * (BIG // 8) + b"0]"]


def as_json(value):
    return json.dumps(value).encode()


def json_files(value, values=VALUES):
    """Bytes of a JSON file: a hostile edit of `value`, a damaged copy of it, something odd, or any JSON at all."""
    return st.one_of(edited(value, values).map(as_json), edited(value, values).map(as_json), mutated(as_json(value)), st.sampled_from(ODD_JSON),
                     VALUES.map(as_json))


@st.composite
def trees(draw, files, content=None, chance=5):
    """A case: `files` with one of them changed by `content(draw, name)`, and now and then one that is no file or is not there."""
    files = dict(files)
    name = draw(st.sampled_from(sorted(files)))
    files[name] = content(draw, name) if content else draw(mutated(files[name]))
    if not draw(st.integers(0, chance)):
        name = draw(st.sampled_from(sorted(files)))
        files[name] = draw(st.sampled_from([FOLDER, PIPE, b"", Link("nowhere"), Link(Path(name).name), Link("/dev/zero"), Link("/"), Link("..")]))
    return files


class Call:
    """Pickles as a call, which runs when the pickle is loaded in the ordinary way."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hostile_pickles():
    """Pickles with code or tricks in them."""
    calls = [Call(exec, CODE), Call(eval, f"exec({CODE!r})"), Call(os.system, "true"), Call(getattr, "x", "upper"), Call(bytearray, 2**40), [Call(exec, CODE)] * 2]
    found = [pickle.dumps(call, protocol) for call in calls for protocol in (0, 2, 4)]
    deep = b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b"."
    return found + [
        deep, b"cbuiltins\nexec\n(S'" + CODE.encode() + b"'\ntR.", b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", b"\x80\x04]\x94h\0a.", b"I" + b"9" * 5000 + b"\n.",
        b"c_codecs\nencode\n(N}S'__defaults__'\n(tstb.",  # sets an attribute of a function of ours
        b"c_codecs\nencode\nS'globals'\nb.", b"cnumpy.core.multiarray\n_reconstruct\n(K\1tb.", b"\x80\x02U\x01x" * 1000 + b".", b"P0\n.", b"\x80\x05\x97."]


# ---------------------------------------------------------------- small valid files

@cache
def pictures():
    """Small valid images, {name: bytes}, of every format and of many kinds."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8))
    grey, frames = rgb.convert("L"), [rgb, rgb.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    wide = Image.fromarray(rng.integers(0, 65536, (9, 7)).astype(np.uint16))
    kinds = {
        "rgb.jpg": (rgb, {}), "grey.jpg": (grey, {}), "cmyk.jpg": (rgb.convert("CMYK"), {}), "progressive.jpg": (rgb, {"progressive": True}),
        "rgb.png": (rgb, {}), "palette.png": (rgb.convert("P"), {"transparency": 3}), "grey16.png": (wide, {}), "alpha.png": (rgb.convert("LA"), {}),
        "rgba.png": (rgb.convert("RGBA"), {}), "bits.png": (rgb.convert("1"), {}), "animated.png": (rgb, {"save_all": True, "append_images": frames}),
        "rgb.bmp": (rgb, {}), "palette.bmp": (rgb.convert("P"), {}), "one.gif": (rgb, {}), "animated.gif": (rgb, {"save_all": True, "append_images": frames}),
        "rgb.tif": (rgb, {}), "lzw.tif": (rgb, {"compression": "tiff_lzw"}), "deflate.tif": (rgb, {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}), "grey16.tif": (wide, {}), "float.tif": (grey.convert("F"), {}), "int.tif": (grey.convert("I"), {}),
        "pages.tif": (rgb, {"save_all": True, "append_images": frames}), "cmyk.tif": (rgb.convert("CMYK"), {}), "lossy.webp": (rgb, {}),
        "lossless.webp": (rgb, {"lossless": True}), "animated.webp": (rgb, {"save_all": True, "append_images": frames}), "rgb.ppm": (rgb, {}),
        "grey.pgm": (grey, {}), "grey16.pgm": (wide, {}), "bits.pbm": (rgb.convert("1"), {})}
    found = {}
    for name, (image, options) in kinds.items():
        formats = {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM", "pbm": "PPM"}
        buffer = io.BytesIO()
        with contextlib.suppress(OSError, KeyError):  # what this Pillow can't write
            image.save(buffer, formats.get(name.split(".")[1], name.split(".")[1].upper()), **options)
            found[name] = buffer.getvalue()
    return found | {"plain.ppm": b"P3\n2 1\n255\n1 2 3 4 5 6\n", "plain.pbm": b"P1\n3 1\n1 0 1\n"}


def png(width, height, depth=8, colour=2, rows=None):
    """A PNG that says it has this size; its pixels are `rows` rows of zeros, by default all where that is little."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    line = bytes(1 + min((width * channels * depth + 7) // 8, 1 << 20))
    packer, rows = zlib.compressobj(9), min(height, 64) if rows is None else rows
    pixels = b"".join(packer.compress(line) for _ in range(rows)) + packer.flush()

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)) + palette + chunk(b"IDAT", pixels)
            + chunk(b"IEND", b""))


LENGTHS = st.sampled_from([0, 1, 2, 9, 800, 8944, 65535, 65536, 100_000, 1_000_000, 2**31 - 1, 2**31, 2**32 - 1])
KINDS = st.sampled_from([(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6)])


@st.composite
def headers(draw):
    """An image whose header lies about its size."""
    width, height = draw(LENGTHS), draw(LENGTHS)
    if draw(st.booleans()):
        return png(width, height, *draw(KINDS))
    how = draw(st.sampled_from(["bmp", "gif", "ppm", "plain", "tif"]))
    if how == "bmp":
        return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, min(width, 2**31 - 1), min(height, 2**31 - 1) * draw(st.sampled_from([1, -1])), 1,
                                   draw(st.sampled_from([1, 4, 8, 16, 24, 32])), draw(st.integers(0, 3)), 0, 0, 0, 0, 0) + bytes(46)
    if how == "gif":
        return b"GIF89a" + struct.pack("<HH", width & 0xffff, height & 0xffff) + b"\x80\0\0" + bytes(6) + b"," + struct.pack(
            "<HHHH", draw(st.integers(0, 9)), 0, width & 0xffff, height & 0xffff) + b"\0\2\2L\1\0;"
    if how == "tif":
        tags = [(256, width), (257, height), (258, 8), (259, draw(st.sampled_from([1, 5, 7, 8, 32773]))), (262, 1), (273, 8), (277, 1), (278, height), (279, 64)]
        return (b"II*\0" + struct.pack("<I", 80) + bytes(72) + struct.pack("<H", len(tags))
                + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4))
    return f"P{draw(st.integers(1, 7)) if how == 'plain' else 6}\n{width} {height}\n{draw(st.sampled_from([0, 1, 255, 65535, 65536]))}\n".encode() + bytes(
        draw(st.sampled_from([0, 64, 4096])))


def images(names=None):
    """Bytes of an image file: damaged, lying, or odd."""
    good = [content for name, content in pictures().items() if names is None or name.split(".")[1] in names]
    return st.one_of(st.sampled_from(good), st.sampled_from(good).flatmap(mutated), st.sampled_from(good).flatmap(mutated), headers(), st.binary(max_size=40))


@cache
def dicoms():
    """Small valid DICOM files, {name: bytes}."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.pixels import apply_modality_lut  # noqa: F401  so that the first case is not the slow one
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
    found, rng = {}, np.random.default_rng(0)

    def make(name, syntax=ExplicitVRLittleEndian, frames=1, channels=1, bits=8, photometric="MONOCHROME2", **other):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3", syntax
        file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        file.SOPClassUID, file.SOPInstanceUID, file.Modality = meta.MediaStorageSOPClassUID, "1.2.3", "CT"
        file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = 6, 5, channels, photometric
        file.BitsAllocated = file.BitsStored = bits
        file.HighBit, file.PixelRepresentation = bits - 1, 0
        if channels == 3:
            file.PlanarConfiguration = 0
        if frames > 1:
            file.NumberOfFrames = frames
        for key, value in other.items():
            setattr(file, key, value)
        pixels = rng.integers(0, 2**bits, (frames, 6, 5, channels)).astype(f"<u{bits // 8}")
        if syntax == RLELossless:
            file.compress(RLELossless, pixels.reshape([n for n in pixels.shape if n != 1]), generate_instance_uid=False)
        else:
            file.PixelData = pixels.tobytes()
            file["PixelData"].VR = "OB" if bits == 8 else "OW"
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, file, enforce_file_format=True)
        found[name] = buffer.getvalue()
    make("grey")
    make("ct", bits=16, RescaleSlope="2", RescaleIntercept="-1024", WindowCenter=["40", "80"], WindowWidth=["400", "80"], PixelPaddingValue=0)
    make("inverse", ImplicitVRLittleEndian, bits=16, photometric="MONOCHROME1", VOILUTFunction="SIGMOID", WindowCenter="300", WindowWidth="100")
    make("colour", channels=3, photometric="RGB")
    make("ybr", channels=3, photometric="YBR_FULL")
    make("frames", frames=3)
    make("deflated", DeflatedExplicitVRLittleEndian)
    make("rle", RLELossless, frames=2)
    table = {f"{name}PaletteColorLookupTable{what}": value for name in ("Red", "Green", "Blue")
             for what, value in (("Descriptor", [256, 0, 16]), ("Data", bytes(range(256)) * 2))}
    make("palette", photometric="PALETTE COLOR", **table)
    lut = pydicom.Dataset()
    lut.LUTDescriptor, lut.LUTData = [256, 0, 8], bytes(range(256)) * 2
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
    make("voi", VOILUTSequence=pydicom.Sequence([lut]))
    shared = pydicom.Dataset()
    values = pydicom.Dataset()
    values.RescaleSlope, values.RescaleIntercept = "3", "1"
    shared.PixelValueTransformationSequence = pydicom.Sequence([values])
    make("enhanced", frames=2, SharedFunctionalGroupsSequence=pydicom.Sequence([shared]))
    return found


@st.composite
def dicom_files(draw):
    """A DICOM file: damaged bytes, or a valid one with hostile values in its header."""
    import pydicom
    content = draw(st.sampled_from(sorted(dicoms().items())))[1]
    if draw(st.integers(0, 2)):
        return draw(mutated(content))
    file = pydicom.dcmread(io.BytesIO(content))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames",
                                     "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction",
                                     "PlanarConfiguration", "PixelPaddingValue", "PixelData"]))
        value = draw(st.sampled_from([None, 0, 1, 5, 7, 255, 8944, 65535, 2**31 - 1, -1, "0", "-1e308", "nan", "1e400", ["1", "0"], [0, 0], "SIGMOID", "RGB", "YBR_FULL_422",
                                      "PALETTE COLOR", "a\\b", b"", bytes(31), "9" * 400]))
        with contextlib.suppress(Exception), warnings.catch_warnings():  # what pydicom won't hold
            warnings.simplefilter("ignore")
            if value is None:
                delattr(file, name)
            else:
                setattr(file, name, value)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pydicom.dcmwrite(buffer, file, enforce_file_format=False, overwrite=True)
    except Exception:  # nor write
        return draw(mutated(content))
    return buffer.getvalue()


def record(qid, image, question, answer, phrase, organ="CHEST", kind="OPEN"):
    return {"qid": qid, "image_name": image, "image_organ": organ, "answer": answer, "answer_type": kind, "question_type": "PRES, ATTRIB", "question": question,
            "phrase_type": phrase}


TRAIN = [record(1, "pic0.png", "is there a mass?", "yes", "freeform"), record(2, "pic1.png", "how many ribs", 4, "para", "HEAD", "CLOSED "),
         record(4, "pic0.png", "is a mass there", "yes", "frame")]
TEST = [record(3, "pic0.png", "where is it?", "left", "freeform"), record(5, "pic1.png", "is there a mass?", "yes", "para", "HEAD")]
PUBLIC = [one | {"phrase_type": phrase, "question_frame": frame, "question_rephrase": None, "evaluation": "evaluated"} for one, phrase, frame in
          zip(TRAIN[:2] + TEST, ("freeform", "para", "test_freeform", "test_para"), ("is a mass there", "NULL", None, " "))]
RECORD_VALUES = st.one_of(VALUES, st.sampled_from([f"{field}" for field in ("freeform", "para", "frame", "test_para", "ABD", "OPEN", "closed ", "pic1.png", "3", "5.0")]))


def pics():
    return {f"images/pic{i}.png": pictures()[name] for i, name in enumerate(("rgb.png", "palette.png"))}


def processed():
    return {rad.TRAIN_JSON: as_json(TRAIN), rad.TEST_JSON: as_json(TEST)} | pics()


def record_change(records):
    """For `trees`: a JSON file of records changed, or an image."""
    return lambda draw, name: draw(json_files(records[name], RECORD_VALUES) if name in records else images())


@cache
def archive():
    """The authors' archive, small: {path: bytes}."""
    words, answers = rad.build_dictionary(TRAIN), rad.build_answers(TRAIN)
    numbers = [{text: i for i, text in enumerate(texts)} for texts in (words, answers)]
    shape = (1, 3, rad.SIZE, rad.SIZE)
    one = [one | {"image_name": "pic0.png"} for one in TRAIN], [one | {"image_name": "pic0.png"} for one in TEST]
    return {rad.TRAIN_JSON: as_json(one[0]), rad.TEST_JSON: as_json(one[1]), "dictionary.pkl": pickle.dumps([numbers[0], words], 2),
            "cache/trainval_ans2label.pkl": pickle.dumps(numbers[1], 2), "cache/trainval_label2ans.pkl": pickle.dumps(answers, 4),
            rad.IMAGE_INDEX: as_json({"pic0.png": 0}), rad.IMAGE_PICKLE: pickle.dumps(np.linspace(-2, 2, math.prod(shape), dtype=np.float32).reshape(shape), 2)}


@st.composite
def pickles(draw, content):
    """Bytes of a pickle: damaged, with code in it, or of other values."""
    head = content[:400]
    tail = content[len(head):]
    return draw(st.one_of(mutated(head).map(lambda start: start + tail), mutated(head).map(lambda start: start + tail), mutated(content, 2), st.sampled_from(hostile_pickles()),
                          VALUES.map(lambda value: pickle.dumps(value, 4)), arrays().map(lambda array: pickle.dumps(array, 2))))


@st.composite
def arrays(draw):
    """A numpy array of an odd shape and type, with numbers that are not finite among its values."""
    kind = draw(st.sampled_from(["f2", "f4", "f8", ">f4", "i4", "u1", "c8", "b1", "S3", "U3", "M8[s]", "f4,i4"]))
    shape = draw(st.sampled_from([(), (0,), (2,), (1, 3), (3, 1), (2, 3, 4), (1, 3, rad.SIZE, rad.SIZE), (2, 3, rad.SIZE, rad.SIZE)]))
    array = np.zeros(shape, kind)
    if array.dtype.kind == "f" and array.size:
        array.reshape(-1)[-1] = draw(st.sampled_from([0, 6e4, math.nan, math.inf]))
    return array


@cache
def prepared():
    """A data set with its prepared files and the frozen maps: ({path: bytes}, RadData, images, maps)."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        write(folder, processed())
        data = rad.prepare(folder, say=lambda _: None)
        pixels, (path, maps) = rad.load_images(data.images_path, range(2)), read_maps(data)
        os.replace(path, folder / "prepared" / "maps.h5")
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return files, data, pixels, (path.name, maps)


class FakeSide(torch.nn.Module):
    """Stands for base_model.ImageSide where only the maps' file matters."""

    def __init__(self):
        super().__init__()
        self.encoders = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.encoders.weight), torch.nn.init.zeros_(self.encoders.bias)

    def maps(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 7)[:, None]  # (B, 1, 3, 7, 7)


def read_maps(data):
    """(path of the frozen maps' file, what training reads from it)."""
    path = engine.encode_images(FakeSide(), data, torch.device("cpu"))
    return path, engine.Inputs(data, torch.device("cpu"), path, torch.zeros(2, 3))([0, 1, 1])["maps"]


@st.composite
def h5_files(draw, content, dataset):
    """A prepared HDF5 file: damaged bytes, or one of other content with the right digest in it."""
    if draw(st.integers(0, 2)):
        return draw(mutated(content))
    with h5py.File(io.BytesIO(content)) as good:
        attributes, values, names = dict(good.attrs), good[dataset][:], list(good["names"]) if "names" in good else None
    with h5py.File("x.h5", "w", driver="core", backing_store=False) as file:
        how = draw(st.sampled_from(["attribute", "shape", "type", "group", "values", "wide", "gone", "names"]))
        if how == "group":
            file.create_group(dataset)
        elif how == "wide":  # takes no room in the file
            file.create_dataset(dataset, (len(values), *draw(st.sampled_from([(100_000, 100_000, 3), (40_000, 20_000, 3), (2**40,), (2**20, 2**20)]))), values.dtype, chunks=True)
        elif how != "gone":
            values = values[..., :1] if how == "shape" else values.astype(draw(st.sampled_from(["f8", "i2", "S1"]))) if how == "type" else values[::-1] if how == "values" else values
            file.create_dataset(dataset, data=values)
        if names:
            file.create_dataset("names", data=[b"a", b"b"] if how == "names" else names, dtype=h5py.string_dtype())
        for key, value in attributes.items():
            file.attrs[key] = np.arange(3) if how == "attribute" and draw(st.booleans()) else value
        file.flush()
        return file.id.get_file_image()


def prepared_cases():
    good, _, _, (maps_name, _) = prepared()
    files = {name.replace("maps.h5", maps_name): content for name, content in good.items()}
    values = {name: json.loads(content) for name, content in files.items() if name.startswith("prepared/") and name.endswith(".json")}

    def change(draw, name):
        name = draw(st.sampled_from(sorted(path for path in files if path.startswith("prepared/"))))
        if name.endswith(".h5"):
            changed[0] = name, draw(h5_files(files[name], "maps" if "maps" in name else "images"))
        else:
            changed[0] = name, draw(json_files(values[name]))
        return None
    changed = [None]

    @st.composite
    def cases(draw):
        case = dict(files)
        change(draw, None)
        case[changed[0][0]] = changed[0][1]
        if not draw(st.integers(0, 5)):
            case[draw(st.sampled_from(sorted(values) + [f"prepared/{rad.H5_NAME}"]))] = draw(st.sampled_from([FOLDER, PIPE, Link("/dev/zero"), Link("nowhere"), Link(".")]))
        return case
    return cases()


def run_prepared(folder):
    """Prepare, then read everything: it must be as it was before the damage."""
    _, good, pixels, (_, maps) = prepared()
    data = rad.prepare(folder, say=lambda _: None)
    for field in ("dictionary", "answers", "image_names", "train", "test"):
        if getattr(data, field) != getattr(good, field):
            raise Violation(f"damaged prepared files were used: {field} is another one")
    found = rad.load_images(data.images_path, range(2))
    if found.shape != pixels.shape or not torch.equal(found, pixels):
        raise Violation("damaged prepared files were used: other images")
    found = read_maps(data)[1]
    if found.dtype != maps.dtype or found.shape != maps.shape or not torch.equal(found, maps):
        raise Violation("damaged prepared files were used: other maps")


# ---------------------------------------------------------------- organ sets

@cache
def mask_bytes(value=1):
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [value, 0]] * 2, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def grey_bytes(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 2), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def organ_files(count=5):
    return {f"{kind}{i}.png": mask_bytes() if kind == "mask" else grey_bytes(i) for kind in ("image", "mask") for i in range(count)}


LIST_NAMES = st.one_of(st.sampled_from([f"{kind}{i}.png" for kind in ("image", "mask") for i in range(5)] + [
    "loop.png", "away/passwd", "away/x.png", "./image0.png", "image0.png/", "a b.png", "x" * 300 + ".png", "/dev/zero", "/dev/stdin", "pipe.png", "folder.png", "C:\\x.png", "classes.txt"]),
    st.sampled_from(NASTY), st.text(max_size=8), st.integers(-2, 10**30))


@st.composite
def list_cases(draw):
    """An organ set with lists, txt or JSON, of masks or classes."""
    files = organ_files() | {"loop.png": Link("loop.png"), "away": Link("/etc"), "pipe.png": PIPE, "folder.png": FOLDER}
    classes = draw(st.booleans())
    rows = [[f"image{i}.png", str(i % 2) if classes else f"mask{i}.png"] for i in range(5)]
    rows = draw(edited(rows, LIST_NAMES if draw(st.integers(0, 3)) else VALUES, 2))
    form = draw(st.sampled_from(["txt", "txt", "pairs", "objects", "object", "columns", "odd", "damaged"]))
    pairs = [row for row in rows if isinstance(row, list) and len(row) == 2] if isinstance(rows, list) else []
    if form in ("txt", "damaged"):
        text = "\n".join(draw(st.sampled_from([" ", "\t"])).join(map(str, row)) for row in pairs).encode("utf-8", "surrogatepass")
        files["train.txt"] = draw(mutated(text)) if form == "damaged" else draw(st.sampled_from([text, text, text, b"\xef\xbb\xbf" + text, text.decode("utf-8", "replace").encode("utf-16")]))
    elif form == "odd":
        files["train.json"] = draw(json_files(rows))
    else:
        keys = draw(st.sampled_from([("image", "mask"), ("img", "label"), ("x", "y")]))
        files["train.json"] = as_json({"pairs": rows, "objects": [dict(zip(keys, pair)) for pair in pairs], "object": {str(a): b for a, b in pairs},
                                       "columns": dict(zip(keys, map(list, zip(*pairs))))}[form])
    if not draw(st.integers(0, 2)):
        files["val.txt"] = draw(st.sampled_from([b"image0.png 0", b"image4.png mask4.png", b"loop.png 1", b"image4.png 2", b"", b"\0 \0", b"a b c"]))
    if not draw(st.integers(0, 2)):
        files["classes.txt"] = draw(st.sampled_from([b"a\nb", b"a\na", b"", b"0\n1\n2", b"\xff\n\0", b"b\r\x1b[2J\n" * 3, b"x" * BIG + b"\ny", b"1\n0", FOLDER, PIPE, Link("classes.txt")]))
    if not draw(st.integers(0, 3)):
        files[draw(st.sampled_from(["image0.png", "mask0.png"]))] = draw(st.one_of(images(), st.sampled_from([mask_bytes(255), mask_bytes(63), grey_bytes(0)])))
    return files


@st.composite
def folder_cases(draw):
    """An organ set of class folders."""
    names = [draw(st.sampled_from(["a", "b", "c d", "0", "a\nb", "\udcff", "..x", ".hidden", "x" * 200])) for _ in range(2)]
    files = {f"train/{name}/{i}{j}.png": grey_bytes(10 * i + j) for i, name in enumerate(["a", "b", *names][:draw(st.integers(1, 4))]) for j in range(3)}
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(["train/a/", "train/b/", "train/", "val/a/", "val/c/", "train/a/deep/", "val/b/"]))
        name = draw(st.sampled_from(["x.png", "y.jpg", "00.png", "\udcff.png", "n\nl.png", "x" * 250 + ".png", ".x.png", "z.gif", "deep"]))
        odd = [FOLDER, PIPE, Link(name), Link("x.png"), Link(".."), Link("/etc/passwd"), Link("/dev/zero"), Link("../a/00.png"), Link("/"), b"", grey_bytes(99)]
        files[place + name] = draw(st.sampled_from(odd) if draw(st.booleans()) else images())
    if not draw(st.integers(0, 5)):
        files["classes.txt"] = draw(st.binary(max_size=9))
    if not draw(st.integers(0, 7)):
        files = {"train" if name.startswith("train/a") else name: Link("train") if name.startswith("train/a") else content for name, content in files.items()}
    return files


# ---------------------------------------------------------------- checkpoints

def save(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def tiny_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


@cache
def run_state():
    """What `fit` keeps, of a tiny model."""
    model = tiny_model()
    optimizer = torch.optim.Adamax(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {"version": 1, "epoch": 1, "best": 0.5, "history": [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}], "sums": [0.0, 0, 0, 0],
            "model": dict(model.state_dict()), "optimizer": optimizer.state_dict(), "random": [[torch.get_rng_state(), None]],
            "model_arguments": {"fusion": "CMSA", "hidden": 8, "shared": True}, "dictionary": ["is", "it"], "answers": ["yes", "no"], "question_len": 12,
            "data": {"name": "n", "digest": "d", "folder": "f"}, "identity": {"seed": 0, "lr": 0.005}, "split": "official", "frozen": True,
            "question_only": False, "val_fraction": 0.1, "seed": 0}


def odd_tensors():
    """Tensors and plain values in a checkpoint that are not what was saved."""
    return st.sampled_from(range(14)).map(lambda i: [
        torch.zeros(()), torch.full((2, 3), math.nan), torch.zeros(0), torch.ones(2, 3, dtype=torch.bool), torch.zeros(1, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.float64).expand(30_000, 30_000), torch.zeros(2**20, 2**20, device="meta"), torch.zeros(2, 3, dtype=torch.complex64),
        torch.eye(3).to_sparse(), torch.arange(6).reshape(2, 3), torch.nn.Parameter(torch.zeros(2)), torch.float32, torch.Size([1]), torch.zeros(2, 3, dtype=torch.bfloat16)][i])


STATE_VALUES = st.one_of(odd_tensors(), odd_tensors(), VALUES.filter(lambda value: True))


@st.composite
def checkpoints(draw, state):
    """Bytes of a checkpoint: other values, damaged, or with code in it."""
    how = draw(st.sampled_from(["values", "values", "values", "damaged", "damaged", "code", "pickle", "zip", "old"]))
    if how == "values":
        with contextlib.suppress(Exception):  # torch.save can't hold everything
            return save(draw(edited(state, STATE_VALUES)))
    if how == "code":
        return save(draw(edited(state, st.sampled_from([Call(exec, CODE), Call(os.system, "true"), Path("x"), object, SimpleNamespace(a=1)]), 2)))
    if how == "pickle":
        return draw(st.sampled_from(hostile_pickles()))
    if how == "old":  # torch's former format
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=False)
        return draw(mutated(buffer.getvalue()))
    if how == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as file, zipfile.ZipFile(io.BytesIO(save(state))) as good:
            for entry in good.infolist():
                content = good.read(entry)
                if entry.filename.endswith("data.pkl"):
                    content = draw(st.one_of(mutated(content), st.sampled_from(hostile_pickles())))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # two of one name
                    file.writestr(draw(st.sampled_from([entry.filename] * 9 + ["../x", "/x", "archive/data/999"])), content)
        return buffer.getvalue()
    return draw(mutated(save(state)))


def checkpoint_cases(state, name="best.pth"):
    return trees({name: save(state)}, lambda draw, _: draw(checkpoints(state)), 20)


def run_checkpoint(folder):
    """What train.py --resume and --epoch do with a checkpoint before the first step."""
    path = folder / "best.pth"
    good = run_state()
    state = engine.read_checkpoint(path)
    data = SimpleNamespace(dictionary=good["dictionary"], answers=good["answers"], name="n", folder="f")
    state = train.unshare(state)
    train.check_same(state, data, good["model_arguments"] | {"shared": False}, path)
    train.check_resumable(state, good["identity"], path)
    model = tiny_model()
    engine.restore(state, model, torch.optim.Adamax(model.parameters()), path)
    engine.find_checkpoint(folder, 1, folder)


@cache
def part_state():
    w_emb = {"w_emb.emb.weight": torch.zeros(3, 4), "w_emb.emb_.weight": torch.zeros(3, 4), "q_emb.rnn.weight": torch.zeros(2, 2)}
    return {"version": 1, "encoder": "resnet34", "state": {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, "adapter": {"weight": torch.zeros(1)}, "phantom": False,
            "dictionary": ["is", "it"], "compatibility": w_emb, "epoch": 3}


class FakeLanguage(torch.nn.Module):
    """Stands for a VQAModel where only word tables and question encoder matter."""
    fusion = "CMSA"

    def __init__(self):
        super().__init__()
        for key, value in part_state()["compatibility"].items():
            part = self
            *path, last = key.split(".")
            for name in path:
                part.add_module(name, getattr(part, name, torch.nn.Module()))
                part = getattr(part, name)
            part.register_buffer(last, value.clone())


def run_part(folder):
    """What train.py does with a file of pretrain.py's."""
    path = folder / "brain.pth"
    args = SimpleNamespace(**dict.fromkeys(train.MTPT_FILES, path), named=list(train.MTPT_FILES), distmodal=True, random_encoders=False, encoder="auto")
    name, parts, image_type, what = train.choose_encoders(args, SimpleNamespace(phantom=True))
    for part in parts:
        engine.load_part(torch.nn.Linear(2, 2), part["state"], what)
    engine.load_part(torch.nn.Linear(2, 2), image_type, str(path))
    train.start_language(FakeLanguage(), path, SimpleNamespace(dictionary=["it", "was"]))


@cache
def model_state():
    """A checkpoint that ask.py can use, of a small model."""
    torch.manual_seed(0)
    arguments = dict(fusion="SAN", ntoken=3, num_answers=2, hidden=4, word_dim=2, encoder="efficientnet_lite0", distmodal=False, num_stacks=1)
    model = VQAModel(**arguments)
    return {"version": 1, "epoch": 1, "model": dict(model.state_dict()), "model_arguments": arguments, "dictionary": ["is", "it", "a"], "answers": ["yes", "no"],
            "question_len": 12, "data": {"name": "phantom set", "digest": "d", "folder": "f"}, "frozen": True, "question_only": False}


@st.composite
def model_cases(draw):
    """A whole model's checkpoint with hostile values beside its weights, or one weight changed."""
    state = dict(model_state())
    weights = dict(state.pop("model"))
    state = draw(edited(state, st.one_of(VALUES, odd_tensors(), st.sampled_from([0, 1, 4, 10**6, 10**9, "CMSA", "BAN", "LSTM", "resnet34", None, True]))))
    if draw(st.booleans()):
        weights[draw(st.sampled_from(sorted(weights)))] = draw(odd_tensors())
    if isinstance(state, dict):
        state.setdefault("model", draw(st.sampled_from([weights, weights, weights, {}, [], None])))
    try:
        return {"best.pth": save(state)}
    except Exception:  # torch.save can't hold everything
        return {"best.pth": draw(mutated(save(model_state())))}


def run_model(folder):
    model, kept = ask.load(folder / "best.pth")
    ask.answer(model, kept, np.zeros((224, 224, 3), np.uint8), "is it")


# ---------------------------------------------------------------- results

def prediction(qid, answer="yes", truth="yes", kind="CLOSED"):
    return {"qid": qid, "image": f"pic{qid % 2}.png", "organ": "CHEST", "question": "is it?", "phrase_type": "freeform", "answer_type": kind,
            "question_types": ["PRES"], "truth": truth, "answer": answer, "probability": 0.75, "top5": [["yes", 0.75], ["no", 0.25]], "correct": int(answer == truth),
            "known_answer": 1, "image_in_training": 1, "twin": 0, "near_identical_in_training": 0, "unknown_words": [], "data": "n d"}


PREDICTIONS = [prediction(1), prediction(2, "no"), prediction(3, kind="OPEN")]
RESULTS = scores.table(PREDICTIONS) | {"version": 1, "data": {"name": "n", "digest": "d", "folder": "/nowhere"}, "split": "official", "checkpoint": "run/best.pth",
                                       "epoch": 1, "model": "CMSA", "question_only": False, "training_questions": 3}
RUN = {"arguments": {"lr": 0.005, "seed": 0}, "command": ["train.py"], "data": {"name": "n"}, "versions": {"torch": "2"}}
LOG = [{"epoch": 0, "loss": 1.0, "train_score": 0.5, "val_score": 0.25, "seconds": 1.0}, {"epoch": 1, "loss": 0.5, "train_score": 0.75, "val_score": 0.5, "seconds": 1.0}]
RESULT_FILES = {"run/predictions.json": as_json(PREDICTIONS), "run/results.json": as_json(RESULTS), "run/run.json": as_json(RUN),
                "run/log.jsonl": b"".join(as_json(row) + b"\n" for row in LOG)}


def log_files():
    """Bytes of a log.jsonl."""
    lines = edited(LOG).map(lambda rows: b"".join(as_json(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows])))
    return st.one_of(lines, lines, mutated(RESULT_FILES["run/log.jsonl"]), st.sampled_from(ODD_JSON), st.sampled_from(ODD_JSON).map(lambda line: line + b"\n" + as_json(LOG[0])))


def result_cases(names):
    values = {"run/predictions.json": PREDICTIONS, "run/results.json": RESULTS, "run/run.json": RUN, "beside/predictions.json": PREDICTIONS,
              "beside/results.json": RESULTS | {"question_only": True}}
    files = {name: as_json(values[name]) if name in values else RESULT_FILES[name] for name in names}
    return trees(files, lambda draw, name: draw(log_files() if name.endswith(".jsonl") else json_files(values[name])), 12)


def run_predictions(folder):
    """What scores.py does with a results folder, and the tables of the report."""
    rows = scores.read_predictions(folder / "run")
    for name in scores.PROTOCOLS:
        scores.compare(scores.protocol(rows, name), scores.protocol(rows, name))
    rows, _ = report.read_results(folder / "run")
    scores.breakdown(rows), scores.intervals(rows), report.calibration(rows), report.score_rows(rows, {}), report.group_tables(rows, {}), report.choose_gallery(rows)


def run_report(folder):
    """The whole page."""
    page = report.make_report(folder / "run").read_text(encoding="utf-8")
    if "<script>alert(1)" in page:
        raise Violation("text of the data is in the page as it is")


# ---------------------------------------------------------------- word vectors

WORDS = ["is", "it", "caf\u00e9"]


@cache
def tables():
    """Small word vectors in every form, {file name: bytes}."""
    rng = np.random.default_rng(0)
    text = b"".join(word.encode() + b" " + b" ".join(b"%.3f" % value for value in rng.normal(size=50)) + b"\n" for word in [*WORDS, "not", "it's"])
    binary = b"4 3\n" + b"".join(word.encode() + b" " + rng.normal(size=3).astype("<f4").tobytes() + b"\n" for word in ["</s>", *WORDS])
    packed, array = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("glove.6B.50d.txt", text)
    np.save(array, rng.normal(size=(3, 300)))
    found = {"glove.6B.50d.txt": text, "glove.6B.zip": packed.getvalue(), "BioWordVec_d3.vec.bin": binary, "glove6b_init_300d.npy": array.getvalue()}
    array = io.BytesIO()
    np.save(array, rng.normal(size=(3, 200)).astype(np.float32))
    return found | {"biowordvec_init_200d.npy": array.getvalue()}


def npy_header(shape, kind="<f4", version=1):
    """The start of a .npy file that says it has this shape."""
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


@st.composite
def array_files(draw, content):
    """Bytes of a .npy file: damaged, of another shape or type, or another kind of file."""
    odd = [npy_header("(10**12,)"), npy_header("(1000000000000, 300)"), npy_header("(900000000, 2)") + bytes(64), npy_header("(3, 300)", "|O") + pickle.dumps(Call(exec, CODE)),
           npy_header("(" * 300), npy_header("(-1, 300)"), npy_header("(3, 300)", version=2) + bytes(3600), b"PK\3\4junk", b"PK\5\6" + bytes(18), b"\x80\x04N.", b"", tables()["glove.6B.zip"]]
    how = draw(st.integers(0, 3))
    if how == 3:
        buffer = io.BytesIO()
        np.save(buffer, draw(arrays()))
        return buffer.getvalue()
    return draw([mutated(content), mutated(content[:128]).map(lambda start: start + content[128:]), st.sampled_from(odd)][how])


@st.composite
def embedding_cases(draw):
    """A table of word vectors, damaged; or "cached": what stands in the prepared file of an unharmed one."""
    if not draw(st.integers(0, 3)):
        array = io.BytesIO()
        np.save(array, np.zeros((3, 50), np.float32))
        return {"glove.6B.50d.txt": tables()["glove.6B.50d.txt"], "cached": draw(array_files(array.getvalue()))}
    name = draw(st.sampled_from(sorted(tables())))
    content = tables()[name]
    if name.endswith(".npy"):
        return {name: draw(array_files(content))}
    odd = [b"", b"\0" * 999, b"is " + b"9" * 5000, content.replace(b" 0.", b" nan."), b"x" * BIG, b"3 50\n" + content, b"999999999999999999 3\n" + content[4:], b"4 999\n", b"4 0\n",
           b"is" + b" 1e999" * 50 + b"\n", b"is" + b" 1_0" * 50, b"\xff" + content, content.replace(b"\n", b"\r\n"), FOLDER, PIPE, Link(name), Link("/dev/zero")]
    return {name: draw(st.sampled_from(odd) if not draw(st.integers(0, 2)) else mutated(content))}


def run_embedding(folder):
    (folder / "prepared").mkdir(exist_ok=True)
    data = SimpleNamespace(dictionary=WORDS, ntoken=len(WORDS), prepared=folder / "prepared", folder=folder)

    def load(name):
        found = rad.load_embedding(data, name, None, [folder], say=lambda _: None)
        if found and (found[0].dtype != np.float32 or found[0].ndim != 2 or len(found[0]) != len(WORDS) or not np.isfinite(found[0]).all()):
            raise Violation("word vectors of another shape or type, or not finite")
        return found
    glove = load("glove")
    load("biowordvec")
    if (folder / "cached").is_file():
        shutil.copyfile(folder / "cached", folder / "prepared" / "embedding_glove_50d.npy")
        if not np.array_equal(load("glove")[0], glove[0]):
            raise Violation("damaged prepared files were used: other word vectors")


# ---------------------------------------------------------------- the loaders

class Loader(NamedTuple):
    """`cases()` is a strategy of {path: content}; run(folder) calls the loader; `weight` is its share of the cases; heavy() gives {title: case}, the command's alone."""
    cases: Callable
    run: Callable
    weight: float
    heavy: Callable = dict


def run_archive(folder):
    try:
        rad.prepare(folder, say=lambda _: None)
    finally:
        if rad._latin1("\xe9") != b"\xe9" or rad._latin1.__defaults__ != ("latin1",):
            raise Violation("a pickle changed a function of the program")


def run_list(folder):
    mtpt.load_organ_set(folder, "brain")


READERS = {"checked.png": mtpt.read_checked, "mask.png": mtpt.read_mask, "any.png": ask.read_any_image}


def run_images(folder):
    """Each file by the reader that its name says; accepted when one accepts it."""
    errors = []
    for path in sorted(folder.iterdir()):
        try:
            READERS[path.name](path)
        except UserError as error:
            check_message(str(error), folder, {path.name: b""})
            errors.append(error)
    if len(errors) == len(list(folder.iterdir())):
        raise errors[0]


def heavy_images():
    """Small files of large images, for each reader: as many pixels as are allowed, and more."""
    sizes = {"100,000 x 100,000": png(100_000, 100_000, rows=1), "100,000 x 799": png(100_000, 799, rows=799), "16 bits, 100,000 x 799": png(100_000, 799, 16, 0, rows=799),
             "RGBA, 100,000 x 799": png(100_000, 799, 8, 6, rows=799), "RGBA, 13,000 x 13,000": png(13_000, 13_000, 8, 6, rows=13_000),
             "1 bit, 100,000 x 1,700": png(100_000, 1_700, 1, 0, rows=1_700)}
    return {f"{title}, {reader}": {reader: content} for title, content in sizes.items() for reader in READERS}


def heavy_json():
    size = 50 << 20
    return {"a string of 50 MB": {"x.json": b'"' + b"x" * size + b'"'}, "50 MB of brackets": {"x.json": b"[" * size}, "a cut string of 50 MB": {"x.json": b'["' + b"\\u0041" * (size // 6)},
            "50 MB of objects": {"x.json": b"[" + b"{}," * (size // 3) + b"1]"}}


def heavy_records():
    case = {rad.TRAIN_JSON: as_json([TRAIN[0] | {"question": "is it " * (50 << 20 >> 3)}, *TRAIN[1:]])}
    return {"a question of 37 MB": processed() | case, "an answer of 50 MB": processed() | {rad.TRAIN_JSON: as_json([TRAIN[0] | {"answer": "a, b" * (50 << 18)}, *TRAIN[1:]])},
            "50 MB of punctuation": processed() | {rad.TRAIN_JSON: as_json([TRAIN[0] | {"answer": "." * (50 << 20)}, *TRAIN[1:]])}}


def bomb(size):
    """(deflated zeros, their CRC) of `size` bytes."""
    packer, block, crc, out = zlib.compressobj(1, zlib.DEFLATED, -15), bytes(1 << 24), 0, []
    for _ in range(size >> 24):
        out.append(packer.compress(block))
        crc = zlib.crc32(block, crc)
    return b"".join(out) + packer.flush(), crc


def heavy_dicom():
    """A deflated file whose content is 3 GB, and a run-length encoded one with nearly as many pixels as are allowed."""
    import pydicom
    head = dicoms()["deflated"]
    start = 132 + 12 + pydicom.dcmread(io.BytesIO(head)).file_meta.FileMetaInformationGroupLength
    file, side = pydicom.dcmread(io.BytesIO(dicoms()["rle"])), 8_900
    file.Rows = file.Columns = side
    del file.NumberOfFrames
    file.PixelData = pydicom.encaps.encapsulate([struct.pack("<II", 1, 64) + bytes(56) + b"\x81\0" * (side * side // 128 + 1)])
    file["PixelData"].VR, buffer = "OB", io.BytesIO()
    pydicom.dcmwrite(buffer, file)
    return {"deflated 3 GB": {"x.dcm": head[:start] + bomb(3 << 30)[0]}, "run lengths, 8,900 x 8,900": {"x.dcm": buffer.getvalue()}}


def heavy_pickles():
    files = archive()
    return {title: files | {"dictionary.pkl": content} for title, content in {
        "a memo of 2**28": b"\x80\x04]r" + struct.pack("<I", 2**28) + b".", "a memo of 2**31": b"\x80\x04]r" + struct.pack("<I", 2**31) + b".",
        "8 GB of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b"x.", "doubled 40 times": b"\x80\x04]" + b"2\x94]\x94(h\0h\0e0" * 40 + b"."}.items()}


def heavy_checkpoint():
    """A checkpoint whose tensor is 3 GB of deflated zeros."""
    buffer = io.BytesIO()
    packed, crc = bomb(3 << 30)
    with zipfile.ZipFile(io.BytesIO(save(run_state()))) as good, zipfile.ZipFile(buffer, "w") as file:
        for entry in good.infolist():
            if not entry.filename.endswith("/data/0"):
                file.writestr(entry.filename, good.read(entry))
            name = entry.filename
    name = name.split("/")[0] + "/data/0"
    return {"deflated 3 GB": {"best.pth": zip_with(buffer.getvalue(), name, packed, 3 << 30, crc)}}


def zip_with(content, name, packed, size, crc):
    """A zip file's bytes with one more entry, deflated by the caller."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as file:
        info = zipfile.ZipInfo(name)
        info.compress_type, info.compress_size, info.file_size, info.CRC, info.header_offset = zipfile.ZIP_DEFLATED, len(packed), size, crc, file.start_dir
        file.fp.seek(file.start_dir)
        file.fp.write(info.FileHeader() + packed)
        file.start_dir, file._didModify = file.fp.tell(), True
        file.filelist.append(info)
        file.NameToInfo[name] = info
    return buffer.getvalue()


LOADERS = {
    "json": Loader(lambda: json_files(TRAIN).map(lambda content: {"x.json": content}), lambda folder: read_json(folder / "x.json"), 1, heavy_json),
    "public": Loader(lambda: trees({rad.PUBLIC_JSON: as_json(PUBLIC)} | pics(), record_change({rad.PUBLIC_JSON: PUBLIC})),
                     lambda folder: rad.prepare(folder, say=lambda _: None), 1.5),
    "processed": Loader(lambda: trees(processed(), record_change({rad.TRAIN_JSON: TRAIN, rad.TEST_JSON: TEST})), lambda folder: rad.prepare(folder, say=lambda _: None), 1.5,
                        heavy_records),
    "archive": Loader(lambda: trees(archive(), lambda draw, name: draw(pickles(archive()[name]) if name.endswith(".pkl") else json_files(json.loads(archive()[name])))),
                      run_archive, 1.5, heavy_pickles),
    "prepared": Loader(prepared_cases, run_prepared, 1),
    "images": Loader(lambda: images().map(lambda content: dict.fromkeys(READERS, content)), run_images, 2, heavy_images),
    "dicom": Loader(lambda: dicom_files().map(lambda content: {"x.dcm": content}), lambda folder: ask.read_any_image(folder / "x.dcm"), 1.5, heavy_dicom),
    "lists": Loader(list_cases, run_list, 1.5),
    "folders": Loader(folder_cases, run_list, 1),
    "embedding": Loader(embedding_cases, run_embedding, 1.5),
    "checkpoint": Loader(lambda: checkpoint_cases(run_state()), run_checkpoint, 1.5, heavy_checkpoint),
    "part": Loader(lambda: checkpoint_cases(part_state(), "brain.pth"), run_part, 1),
    "model": Loader(model_cases, run_model, 0.2),
    "predictions": Loader(lambda: result_cases(["run/predictions.json", "run/results.json"]), run_predictions, 1),
    "run": Loader(lambda: result_cases(["run/log.jsonl", "run/run.json"]), lambda folder: report.read_run(folder / "run"), 1),
    "report": Loader(lambda: result_cases([*RESULT_FILES, "beside/predictions.json", "beside/results.json"]), run_report, 0.1),
}


# ---------------------------------------------------------------- the command

def fuzz(name, wanted, number, base, go_on=False):
    """Run `wanted` cases of a loader, and its heavy ones: ({outcome: count}, [(kind, text, folder to reproduce)]), at most one without `go_on`."""
    loader, counts, found, rounds, work = LOADERS[name], Counter(), {}, 0, base / name / "case"

    def one(files, title=""):
        if found and not go_on:
            return
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            counts[attempt(loader, files, work)] += 1
        except Exception as error:
            kind = f"Violation: {' '.join(str(error).split())[:50]}" if isinstance(error, Violation) else f"{type(error).__name__} at {where(error)}"
            counts["VIOLATION"] += 1
            kinds[kind] += 1
            size = sum(len(content) for content in files.values() if isinstance(content, bytes))
            if kind not in found or size < found[kind][0]:
                kept = base / name / f"violation_{list(found).index(kind) if kind in found else len(found)}"
                shutil.rmtree(kept, ignore_errors=True)
                write(kept, files)
                found[kind] = size, f"{title}{': ' if title else ''}{type(error).__name__}: {' '.join(str(error).split())[:300]}", kept
    kinds = Counter()
    for title, files in loader.heavy().items() if wanted >= 100 else ():
        one(files, title)
    while (before := sum(counts.values())) < wanted and (go_on or not found):
        @seed(number + 1_000_003 * rounds)
        @settings(max_examples=wanted - before, phases=[Phase.generate], **SETTINGS)
        @given(loader.cases())
        def examples(files):
            one(files)
        examples()
        rounds += 1
        if sum(counts.values()) == before:
            break
    return counts, [(f"{kind} ({kinds[kind]})", text, folder) for kind, (_, text, folder) in found.items()]


def child(pipe, *arguments):
    """`fuzz` in a process of its own."""
    faulthandler.enable()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C write there
    try:
        pipe.send(fuzz(*arguments))
    except Exception:
        pipe.send((Counter(VIOLATION=1), [("fuzz.py itself failed", traceback.format_exc(), "")]))


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000, help="over all loaders (default: 10000), or of the one that --loader names")
    parser.add_argument("--loader", choices=LOADERS, help="this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=Path, metavar="FOLDER", help="run the case in this folder once more (copy it first: loaders may write in it)")
    parser.add_argument("--go_on", action="store_true", help="do not stop at a violation; count them by kind")
    args = parser.parse_args(arguments)
    if args.again and not args.loader:
        parser.error("--again needs --loader")
    return args


def main():
    args = parse_args()
    os.environ["CMSA_CACHE"] = tempfile.mkdtemp(prefix="fuzz-cache-")
    if args.again:
        print(attempt(LOADERS[args.loader], {}, args.again.resolve()))
        return 0
    names = [args.loader] if args.loader else list(LOADERS)
    total, sums, bad = sum(LOADERS[name].weight for name in names), Counter(), False
    base = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
    print(f"{'loader':12} {'cases':>7} {'accepted':>9} {'UserError':>10} {'violation':>10} {'seconds':>8}", flush=True)
    for name in names:
        began, (receiver, sender) = time.monotonic(), multiprocessing.Pipe(False)
        wanted = math.ceil(args.cases * LOADERS[name].weight / total)
        process = multiprocessing.get_context("fork").Process(target=child, args=(sender, name, wanted, args.seed, base, args.go_on))
        process.start()
        sender.close()
        try:
            counts, found = receiver.recv()
        except EOFError:  # the process died
            process.join()
            counts, found = Counter(VIOLATION=1), [("crash", f"the process ended with {process.exitcode}", base / name / "case")]
        process.join()
        sums += counts
        print(f"{name:12} {sum(counts.values()):7,} {counts['accepted']:9,} {counts['UserError']:10,} {counts['VIOLATION']:10,} {time.monotonic() - began:8.0f}", flush=True)
        for kind, text, folder in found:
            print(f"  {kind}\n    {text}\n    again: {sys.executable} {Path(__file__).resolve()} --loader {name} --again {folder}", flush=True)
        bad = bad or bool(found)
        if bad and not args.go_on:
            break
    print(f"{'all':12} {sum(sums.values()):7,} {sums['accepted']:9,} {sums['UserError']:10,} {sums['VIOLATION']:10,}")
    shutil.rmtree(os.environ["CMSA_CACHE"], ignore_errors=True)
    if not bad:
        shutil.rmtree(base, ignore_errors=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
