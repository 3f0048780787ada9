"""Pictures and masks: one opener for the data set, pre-training and ask.py."""

import contextlib
import os
import struct
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, features
from tqdm import tqdm

from utils import MAX_PIXELS, SIZE, UserError, log, reason, shorten

# the formats are named because Pillow would start other programs for some
MASKS = ("PNG", "BMP", "GIF", "TIFF", "PPM")  # no JPEG: it does not keep values
PICTURES = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
for _form, _codec in (("JPEG2000", "jpg_2000"), ("AVIF", "avif")):  # not in every Pillow
    if _codec in features.codecs | features.modules and features.check(_codec):
        PICTURES += (_form,)

# the kinds of notes on a picture
ONE_FRAME = "one of several frames or pages is read"
SCALED = "grey values of another depth than 8 bits are scaled by their range"
NO_WINDOW = "the header names no window, so the grey values are scaled by the range of nearly all"
DARK = "the picture is nearly black"
DEEP = 65535  # the largest value of 16 bits
DARK_BELOW = 64  # of 255: the largest value of such a picture; 12 bits of 16 give 15
SHOWN = 3  # images that a note on many of them names
PIECE = 1 << 20  # values that are scaled at once
FIRST_ELEMENT = 1024  # bytes: that of a DICOM file is shorter
# tags of TIFF files: 0 for white; 1 for unsigned numbers, 2 for signed ones
WHITE, SIGN = 262, 339
# what Pillow does not tell of a TIFF file's numbers, {(mode, sign): type}
NUMBERS = {("L", 2): np.int8, ("I", 1): np.uint32}


class Picture(NamedTuple):
    """A decoded picture.

    image: a Pillow image, RGB, in its own size. notes: pairs (kind, detail), texts on how it was
    read. frame, frames: it is frame (or page) `frame` of `frames`, counted from 1.
    """

    image: Image.Image
    notes: list
    frame: int
    frames: int


class PictureError(Exception):
    """A file can't be used as a picture. The message is the reason."""


class ColourError(UserError):
    """A mask is a colour picture, or has fractions."""


@contextlib.contextmanager
def open_picture(path, formats=PICTURES):
    """Give a Pillow image, not yet decoded. Any error in the block becomes a PictureError."""
    try:
        if os.path.isdir(path):
            raise PictureError("a folder")
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device never ends
            raise PictureError("not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # by its name Pillow would map a TIFF file into memory, and turn such files wrongly
            with open(path, "rb") as file, Image.open(file, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except FileNotFoundError:
        raise PictureError("missing") from None
    except PermissionError as error:
        raise PictureError(error.strerror) from None
    except Image.DecompressionBombError:
        raise PictureError(f"more than {MAX_PIXELS:,} pixels: make it smaller first") from None
    except (PictureError, UserError):
        raise
    except Exception:  # Pillow raises many types for damaged files
        known = ", ".join(formats if formats is MASKS else (*formats, "DICOM"))
        raise PictureError(f"damaged, or none of {known}; 64-bit TIFF is not read") from None


def decode_picture(path, frame=None):
    """A picture or DICOM file as a Picture, as every viewer shows it (docs/FORMATS.md section 1).

    frame: which of several, from 1; by default the first, and of DICOM the middle one. Raises
    PictureError, and UserError for a frame that the file does not have.
    """
    if is_dicom(path):
        image, notes, frame, frames = _decode_dicom(path, frame)
        unit = "frame"
    else:
        with open_picture(path) as opened:
            if frame is not None:
                check_frame(path, frame, _count_frames(opened))
                opened.seek(frame - 1)
            image, notes = _to_rgb(_upright(opened))
            frame, frames = frame or 1, _count_frames(opened)
            unit = "page" if opened.format == "TIFF" else "frame"
    if frames > 1:
        notes = [(ONE_FRAME, f"{unit} {frame} of {frames}"), *notes]
    if (top := max(high for _, high in image.getextrema())) < DARK_BELOW:
        notes = [*notes, (DARK, f"its largest value is {top} of 255")]
    return Picture(image, notes, frame, frames)


def _decode_dicom(path, frame):
    """(RGB image, notes, frame, number of frames) of a DICOM file. Raises as `decode_picture`."""
    from readers.dicom import read_dicom

    try:
        values, *rest = read_dicom(path, frame)
    except (PictureError, UserError):
        raise
    except Exception as error:  # pydicom raises many types for damaged files
        raise PictureError(f"damaged DICOM: {reason(error, 120)}") from None
    pixels = np.rint(values * 255).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB"), *rest


def check_frame(path, frame, frames):
    """Raise UserError for a `frame` (None, or a number from 1) that a file does not have."""
    if frame is not None and frames == 1:
        raise UserError(f"--frame {frame}: {path} holds one picture, no frames: leave --frame out")
    if frame is not None and not 1 <= frame <= frames:
        raise UserError(f"--frame {frame}: {path} has frames 1 to {frames}")


def _count_frames(image):
    """The number of frames or pages of an open picture; 1 where that can't be told."""
    with contextlib.suppress(Exception):  # a damaged page further on does no harm to this one
        return image.n_frames
    return 1


def _upright(image):
    """A Pillow image, loaded and turned as its EXIF orientation tells."""
    if image.width * image.height > MAX_PIXELS:  # a page may be larger than the first one
        raise Image.DecompressionBombError
    image.load()
    with contextlib.suppress(Exception):  # viewers ignore a damaged EXIF block
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image):
    """A loaded Pillow image as (RGB, notes); what is transparent lies over black."""
    tags = getattr(image, "tag_v2", {})
    sign = (tags.get(SIGN) or (1,))[0]
    if image.mode[0] in "IF" or (image.mode, sign) in NUMBERS:
        values = np.asarray(image)
        values = values.view(NUMBERS.get((image.mode, sign), values.dtype))
        # before Pillow 10.3 PNG had the mode I
        full = DEEP if image.mode.startswith("I;16") or image.format in ("PNG", "PPM") else np.inf
        return _scale(values, full, tags.get(WHITE) == 0, image.info.get("transparency"))
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image)
        return black, []
    return image.convert("RGB"), []


def _scale(values, full, white_is_zero, transparent):
    """Numbers (H, W) of any type -> (RGB image, notes): the smallest is black, the largest white.

    full: the largest number of the file's kind; where the numbers fill half of its range or are
    all the same, black is 0 and white is `full`. white_is_zero: black and white change places.
    transparent: a number that is black, or None. NaN is black, and infinite numbers are ends.
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high - low > full / 2 or high == low:
        low, high = 0.0, float(min(full, DEEP))
    ends = ("white", "black") if white_is_zero else ("black", "white")
    note = SCALED, f"{low:g} becomes {ends[0]}, {high:g} {ends[1]}"
    grey, flat = np.empty(values.size, np.uint8), values.ravel()
    for start in range(0, values.size, PIECE):  # all as float64 would fill the memory
        piece = flat[start : start + PIECE]
        shares = np.clip((piece.astype(np.float64) - low) / (high - low), 0, 1)
        shares = np.nan_to_num(1 - shares if white_is_zero else shares)
        if transparent is not None:
            shares[piece == transparent] = 0
        grey[start : start + PIECE] = np.rint(255 * shares)
    return Image.fromarray(grey.reshape(values.shape)).convert("RGB"), [note]


def is_dicom(path):
    """True for a file with DICOM's mark behind its preamble of 128 bytes, or without both.

    Such a file begins with an element of group 2 or 8, whose length or type makes sense.
    """
    with contextlib.suppress(OSError):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                start = file.read(132)
            if start[128:] == b"DICM":
                return True
            if len(start) < 132:
                return False
            group, _, kind, length = struct.unpack("<HH2sH", start[:8])
            (implicit_length,) = struct.unpack("<I", start[4:8])
            explicit = kind.isalpha() and kind.isupper() and length < FIRST_ELEMENT
            return group in (2, 8) and (explicit or implicit_length < FIRST_ELEMENT)
    return False


def open_image(path, frame=None):
    """`decode_picture` whose every error is a UserError that names the file."""
    try:
        return decode_picture(path, frame)
    except PictureError as error:
        raise UserError(f"{path} can't be used ({error}): put a good picture there") from None


def resize(image, size=SIZE):
    """All of a Pillow image, RGB, as uint8 (size, size, 3), resized (bilinear, antialiased)."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def read_image(path, size=SIZE):
    """A picture or DICOM file as uint8 (size, size, 3). Raises UserError if it can't be used."""
    return resize(open_image(path).image, size)


def log_notes(noted, total):
    """Log one line for each kind of note. noted: {name of an image: its notes}, of `total`."""
    kinds = {}
    for name, notes in noted.items():
        for kind, detail in notes:
            kinds.setdefault(kind, []).append(f"{name[:60]} ({detail})")
    for kind, named in kinds.items():
        listed = shorten(named, SHOWN)
        listed = listed if listed.isprintable() else ascii(listed)
        log(f"NOTE: {len(named)} of {total} images: {kind}: {listed}")


def read_images(images, opened=None):
    """Yield the images of a data set, uint8 (224, 224, 3) each.

    images: the ImageFiles of readers/image_names.py. opened: an iterable of their (name, path)
    for images that are not files of their own. At the end, or at the first that can't be read,
    raises a UserError that lists every bad one, those with faults first.
    """
    bad = [f"{name[:60]} ({fault})" for name, fault in images.faults.items()]
    noted = {}
    count, options = len(images.paths) + len(bad), {"unit": "image", "leave": False}
    options |= {"desc": "Preparing images", "disable": None, "total": len(images.paths)}
    for name, path in tqdm(opened or images.paths.items(), **options):
        try:
            picture = decode_picture(path)
        except PictureError as error:
            bad.append(f"{name[:60]} ({error})")
            continue
        noted[name] = picture.notes
        if not bad:
            yield resize(picture.image)
    if bad:
        raise UserError(
            f"{len(bad)} of {count} images can't be used: {shorten(bad)}; looked in {images.where}"
        )
    log_notes(noted, count)


def read_mask(path):
    """A mask file as uint8 (height, width); its values are classes.

    A colour mask with three equal channels counts as grey. Raises UserError for a file that is
    no mask, ColourError among them.
    """
    try:
        with open_picture(path, MASKS) as image:
            mode, mask = image.mode, np.asarray(_upright(image))
            if (pages := _count_frames(image)) > 1:
                raise PictureError(f"it has {pages} pages or frames, and a mask is one")
    except PictureError as error:
        raise UserError(
            f"{path} can't be used as a mask ({error}): put a good copy there or take it out"
        ) from None
    if mask.ndim == 3 and mask.shape[2] >= 3 and (mask[..., :1] == mask[..., :3]).all():
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise ColourError(
            f"{path} is a colour picture or has fractions ({mode}): a mask has one channel, and "
            "its values are classes"
        )
    if mask.max() > 255 or mask.min() < 0:
        value = mask.max() if mask.max() > 255 else mask.min()
        raise UserError(
            f"{path} has the value {value}: a mask's values are classes, 0 to 255 at most"
        )
    return mask.astype(np.uint8)
