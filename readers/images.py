"""Pictures and masks: one opener for the data set, pre-training and ask.py."""

import contextlib
import os
import warnings

import numpy as np
from PIL import Image
from tqdm import tqdm

from readers.image_names import IMAGE_FOLDER
from utils import MAX_PIXELS, SIZE, UserError, reason, shorten

# the formats are named because Pillow would start other programs for some
PICTURES = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MASKS = ("PNG", "BMP", "GIF", "TIFF", "PPM")  # no JPEG: it does not keep values


class PictureError(Exception):
    """A file can't be used as a picture. The message is the reason."""


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
            with Image.open(path, formats=formats) as image:
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
        raise PictureError(f"damaged, or none of {', '.join(formats)}") from None


def decode_picture(path):
    """A picture or DICOM file as a Pillow image, RGB, in its own size. Raises PictureError."""
    if is_dicom(path):
        from readers.dicom import read_dicom

        try:
            pixels = np.rint(read_dicom(path) * 255).astype(np.uint8)
        except UserError as error:
            raise PictureError(str(error)) from None
        except Exception as error:  # pydicom raises many types for damaged files
            raise PictureError(f"damaged DICOM: {reason(error, 120)}") from None
        return Image.fromarray(pixels).convert("RGB")
    with open_picture(path) as image:
        image.load()
        if image.mode.startswith("I;16"):  # Pillow clips 16 bits where it should scale
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        return image.convert("RGB")


def is_dicom(path):
    """True for a file with DICOM's mark behind its preamble of 128 bytes."""
    with contextlib.suppress(OSError):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read(132)[128:] == b"DICM"
    return False


def read_image(path, size=SIZE):
    """A picture or DICOM file as uint8 (size, size, 3), all of it resized (bilinear, antialiased).

    Raises UserError for a file that can't be used.
    """
    try:
        image = decode_picture(path)
    except PictureError as error:
        raise UserError(f"{path} can't be used ({error}): put a good picture there") from None
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def read_images(folder, images):
    """Yield the images of the data set `folder`, uint8 (224, 224, 3) each.

    images: the ImageFiles of readers/image_names.py. At the end, or at the first that can't be
    read, raises a UserError that lists every bad one, those with faults first.
    """
    bad = [f"{name[:60]} ({fault})" for name, fault in images.faults.items()]
    count, options = len(images.paths) + len(bad), {"unit": "image", "leave": False}
    paths = tqdm(images.paths.items(), desc="Preparing images", disable=None, **options)
    for name, path in paths:
        try:
            image = decode_picture(path)
        except PictureError as error:
            bad.append(f"{name[:60]} ({error})")
            continue
        if not bad:
            yield np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    if bad:
        raise UserError(
            f"{len(bad)} of {count} images can't be used: {shorten(bad)}; looked in "
            f"{images.where} (images/, '{IMAGE_FOLDER}/' and {folder} itself are possible): put "
            "good copies there"
        )


def read_mask(path):
    """A mask file as uint8 (height, width); its values are classes.

    A colour mask with three equal channels counts as grey. Raises UserError for a file that is
    no mask.
    """
    try:
        with open_picture(path, MASKS) as image:
            mode, mask = image.mode, np.asarray(image)
    except PictureError as error:
        raise UserError(
            f"{path} can't be used as a mask ({error}): put a good copy there or take it out"
        ) from None
    if mask.ndim == 3 and mask.shape[2] >= 3 and (mask[..., :1] == mask[..., :3]).all():
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise UserError(
            f"{path} is a colour picture or has fractions ({mode}): a mask has one channel, and "
            "its values are classes"
        )
    if mask.max() > 255 or mask.min() < 0:
        value = mask.max() if mask.max() > 255 else mask.min()
        raise UserError(
            f"{path} has the value {value}: a mask's values are classes, 0 to 255 at most"
        )
    return mask.astype(np.uint8)
