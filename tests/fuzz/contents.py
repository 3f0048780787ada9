"""Contents of files for the fuzzer: pictures, DICOM, checkpoints, zip files, and their damage."""

import contextlib
import io
import itertools
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom.pixels  # here, so that no case waits for it
import torch
from hypothesis import strategies as st
from PIL import Image

# width and height in a picture's header
SIDES = {"PNG": ">I", "JPEG": ">H", "BMP": "<I", "GIF": "<H", "TIFF": "<I", "WEBP": "<H", "PPM": ""}
SIDES |= {"JPEG2000": ">I", "AVIF": ">I"}
EXIF = Image.Exif()
EXIF[274] = 6  # the picture is turned
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8))
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F")
WAYS = (
    {},
    {"save_all": True, "append_images": [RGB, RGB]},
    {"progressive": True},
    {"lossless": True},
    {"transparency": 3},
    {"compression": "tiff_lzw"},
    {"compression": "tiff_adobe_deflate"},
    {"exif": EXIF},
)


def as_json(value):
    """The bytes of a JSON file."""
    return json.dumps(value).encode()


def as_parquet(rows):
    """The bytes of a parquet file with some rows; it is empty where that can't hold them."""
    import pyarrow
    import pyarrow.parquet

    with contextlib.suppress(Exception):
        table = pyarrow.Table.from_pylist(rows)
        return made(lambda file: pyarrow.parquet.write_table(table, file))
    return b""


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


def make_pictures():
    """{bytes: format} of a small picture in every form that this Pillow can write."""
    pictures = {made(RGB.save, "TIFF", compression="jpeg"): "TIFF"}
    for form, mode, way in itertools.product(SIDES, MODES, WAYS):
        with contextlib.suppress(OSError, KeyError, ValueError, RuntimeError):
            picture = RGB.convert("I" if mode == "I;16" else mode).convert(mode)
            pictures[made(picture.save, form, **way)] = form
    return pictures


PICTURES = make_pictures()


def resized(content, width, height):
    """One of PICTURES whose header tells another size."""
    form = PICTURES[content]

    def packed(side):
        code = SIDES[form]
        return struct.pack(code, side % 256 ** struct.calcsize(code)) if code else b"%d" % side

    for old, new in zip(RGB.size, (width, height)):
        content = content.replace(packed(old), packed(new), 2)
    if form != "PNG":
        return content
    return content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]


DICOMS = {
    path.name: path.read_bytes()
    for path in sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm"))
    if path.stat().st_size < 40_000 or "palette" in path.name
}
DICOMS |= {f"bare {name}": content[132:] for name, content in list(DICOMS.items())[::4]}
ITEM, SHARED = pydicom.Dataset(), pydicom.Dataset()
ITEM.RescaleSlope, ITEM.RescaleIntercept = "3", "1"
ITEM.add_new("LUTDescriptor", "US", [256, 0, 16])
ITEM.add_new("LUTData", "OW", bytes(range(256)) * 2)
SHARED.PixelValueTransformationSequence = [ITEM]
TAGS = """Rows Columns SamplesPerPixel BitsAllocated BitsStored HighBit PixelRepresentation
    PixelPaddingValue PixelData PhotometricInterpretation RescaleSlope RescaleIntercept
    WindowCenter WindowWidth NumberOfFrames PixelPaddingRangeLimit FloatPixelData""".split()
TAG_VALUES = [None, 0, 1, 5, 7, 255, 8944, 65535, 2**31 - 1, -1, "0", "-1e308", "nan", "1e400"]
TAG_VALUES += [["1", "0"], [0, 0], "RGB", "YBR_FULL_422", "MONOCHROME1", "PALETTE COLOR", "a\\b"]
TAG_VALUES += [b"", bytes(31), "9" * 400]
FIELDS = st.tuples(st.sampled_from(TAGS), st.sampled_from(TAG_VALUES)) | st.sampled_from(
    [
        ("VOILUTSequence", [ITEM]),
        ("SharedFunctionalGroupsSequence", [SHARED]),
        ("VOILUTFunction", "SIGMOID"),
        ("PresentationLUTShape", "INVERSE"),
    ]
)


def dicom(content, fields):
    """A DICOM file with other fields, [(name, value)], as far as pydicom holds and writes them."""
    with contextlib.suppress(Exception):
        file = pydicom.dcmread(io.BytesIO(content))
        for name, value in fields:
            with contextlib.suppress(Exception):
                setattr(file, name, value)
        return made(lambda buffer: pydicom.dcmwrite(buffer, file))
    return content


def make_bomb():
    """3 GB of zeros, deflated: a piece of 16 MB may be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * 192 + packer.flush()


BOMB = make_bomb()


def repacked(content, part, new):
    """A zip file with `new` in place of the entry whose name ends in `part`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as good, zipfile.ZipFile(buffer, "w") as file:
        for name in good.namelist():
            hit = name.endswith(part)
            file.writestr(name, new if hit else good.read(name))
            if new is BOMB and hit:
                entry = file.getinfo(name)
                entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, 192 << 24
    return buffer.getvalue()
