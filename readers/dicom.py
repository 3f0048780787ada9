"""DICOM images as grey or colour values in [0, 1]."""

import textwrap
import warnings
import zlib

import numpy as np

from readers.images import NO_WINDOW, PictureError, check_frame
from utils import MAX_PIXELS, PIP, UserError, optional

TOO_LARGE = f"more than {MAX_PIXELS:,} pixels: make it smaller first"
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # tags of float, double and whole pixel data
UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data
NEARLY_ALL = (0.5, 99.5)  # percentiles: a few hot pixels do not count


def read_dicom(path, frame=None):
    """The image of a DICOM file as its author would see it: (values, notes, frame, frames).

    values: float (H, W) or (H, W, 3) in [0, 1]. The rest is as in `readers.images.Picture`.
    frame: counted from 1; the middle one by default. Grey values are rescaled. Then the first VOI
    LUT or window of the header maps them; without one the range of nearly all does. MONOCHROME1
    and the presentation shape INVERSE are inverted. Colour is RGB, from YBR and palettes too.
    Raises PictureError for a file without a picture, too large, damaged, or in a compression that
    can't be decoded here, and UserError for a frame that it does not have.
    """
    try:
        pixels = optional("pydicom.pixels")
    except UserError as error:
        raise PictureError(str(error)) from None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header, syntax = _read_header(path)
        frames = int(header.get("NumberOfFrames") or 1)
        check_frame(path, frame, frames)
        frame = frame or (frames + 1) // 2
        stored = _stored_values(path, header, syntax, frame - 1)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            stored = pixels.apply_color_lut(stored, header)  # (H, W, 3)
            return stored / np.iinfo(stored.dtype).max, [], frame, frames
        if stored.ndim == 3:
            values = np.clip(stored / (2**header.BitsStored - 1), 0, 1)  # (H, W, 3)
            return values, [], frame, frames
        _lift_frame_header(header, frame - 1)
        # 80 million float64 values take 3 GB
        kind = np.float64 if stored.size < MAX_PIXELS // 4 else np.float32
        values = np.asarray(pixels.apply_modality_lut(stored, header), kind)  # (H, W)
        grey, notes = _to_grey(values, header, pixels, ~_padding(stored, header))
    low_is_white = header.PhotometricInterpretation == "MONOCHROME1"
    if low_is_white or header.get("PresentationLUTShape") == "INVERSE":
        grey = 1 - grey
    return np.nan_to_num(grey), notes, frame, frames


def _read_header(path):
    """(the header, the transfer syntax) of a file, which may lack preamble and file meta.

    Raises PictureError for a file without a picture or too large.
    """
    from pydicom import filereader, uid

    with open(path, "rb") as file:
        filereader.read_preamble(file, force=True)
        meta = filereader.read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
        syntax = meta.get("TransferSyntaxUID")
        if syntax and syntax.is_deflated:
            _check_inflated(file)
        file.seek(0)
        lengths = []

        def at_pixels(tag, _, length):
            if tag in PIXELS:
                lengths.append(length)
            return tag in PIXELS

        header = filereader.read_partial(file, at_pixels, force=True)
    if "Rows" not in header or not any(lengths):
        kind = uid.UID(header.get("SOPClassUID") or "").name or header.get("Modality", "unknown")
        raise PictureError(
            "DICOM that holds no picture, as a report, a structure set, a PDF or a file cut "
            f"short: {kind}"
        )
    if header.Rows * header.Columns > MAX_PIXELS:
        raise PictureError(TOO_LARGE)
    if not syntax:
        if lengths[0] == UNDEFINED:
            raise PictureError("compressed DICOM, and the file meta that would say how is missing")
        implicit, little = header.original_encoding
        plain = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        syntax = uid.ImplicitVRLittleEndian if implicit else plain
    return header, syntax


def _check_inflated(file):
    """Raise PictureError for a deflated rest of a file that would fill the memory."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(inflate.decompress(file.read(), 4 * MAX_PIXELS)) == 4 * MAX_PIXELS:
        raise PictureError(TOO_LARGE)


def _stored_values(path, header, syntax, index):
    """The stored values of one frame, (H, W) or (H, W, 3); YBR is converted to RGB."""
    import pydicom
    from pydicom import pixels

    try:
        source = pydicom.dcmread(path, force=True) if syntax.is_deflated else path
        return pixels.pixel_array(source, index=index, transfer_syntax_uid=syntax)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if syntax.is_compressed:
            _check_decoder(header, syntax, pixels)
        why = textwrap.shorten(str(error), 120, placeholder=" ...")
        raise PictureError(f"damaged DICOM, its pixels cut short or broken: {why}") from None


def _check_decoder(header, syntax, pixels):
    """Raise PictureError where no decoder for a compression is there, or none for deep pixels."""
    from pydicom import uid

    fault = f"compressed as {syntax.name}, which can't be decoded here: save it uncompressed"
    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:  # films
        raise PictureError(fault) from None
    # what Pillow can't do
    deep = header.BitsStored > 8 and (syntax == uid.JPEGExtended12Bit or header.SamplesPerPixel > 1)
    if not decoder.is_available or deep and decoder.available_plugins == ("pillow",):
        raise PictureError(
            f"{fault}, or install decoders: {PIP} pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        )


def _lift_frame_header(header, frame):
    """Copy rescaling and window of one frame of an enhanced file to the top of its header."""
    for groups in (
        header.get("SharedFunctionalGroupsSequence"),
        (header.get("PerFrameFunctionalGroupsSequence") or [])[frame:],
    ):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            if groups and groups[0].get(name):
                header.update(groups[0][name].value[0])


def _padding(stored, header):
    """Which stored values (H, W) are padding: the value of the header, or a range from it on."""
    if header.get("PixelPaddingValue") is None or stored.dtype.kind == "f":
        return np.zeros(stored.shape, bool)
    ends = [header.PixelPaddingValue, header.get("PixelPaddingRangeLimit")]
    # some headers hold a negative value as a large one
    ends = np.array([end for end in ends if end is not None], np.int64).astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def _to_grey(values, header, pixels, inside):
    """Rescaled values (H, W) -> ([0, 1], notes) by the header's VOI LUT or window.

    DICOM PS3.3 C.11.2 defines both. Without either the range of nearly all values `inside`
    (H, W, bool), the padding left out, counts.
    """
    if header.get("VOILUTSequence"):
        top = 2 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
        grey = pixels.apply_voi(np.rint(values).astype(np.int64), header) / top
        return np.clip(grey, 0, 1), []
    centres, widths = (
        np.atleast_1d(np.asarray(header.get(name) or [], np.float64))
        for name in ("WindowCenter", "WindowWidth")
    )
    if centres.size and widths.size and widths[0] > 0:
        centre, width = float(centres[0]), float(widths[0])
        kind = header.get("VOILUTFunction", "LINEAR")
        if kind == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), []
        if kind == "LINEAR":  # in the standard both ends of the window are pixel values
            centre, width = centre - 0.5, max(width - 1, 1e-9)
        return np.clip((values - centre) / width + 0.5, 0, 1), []
    finite = np.isfinite(values)
    seen = values[inside & finite] if (inside & finite).any() else values[finite]
    low, high = np.percentile(seen, NEARLY_ALL) if seen.size else (0, 0)
    if low == high and seen.size:  # a few spots on an even ground
        low, high = seen.min(), seen.max()
    grey = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return grey, [(NO_WINDOW, f"{low:g} to {high:g}")]
