"""DICOM images as grey or colour values in [0, 1]."""

import warnings
import zlib

import numpy as np

from utils import MAX_PIXELS, UserError, optional

TOO_LARGE = f"more than {MAX_PIXELS:,} pixels: make it smaller first"
HEADER = 132 + 12  # bytes before a DICOM file's meta group: preamble, mark, the group's length


def read_dicom(path):
    """The image of a DICOM file as its author would see it, its middle frame of several.

    Returns float (H, W) or (H, W, 3) in [0, 1]. Grey values are rescaled. Then the first VOI LUT
    or window of the header maps them; without one their range does. MONOCHROME1 is inverted.
    Colour is RGB, from YBR and palettes too. Raises UserError, its message a reason without the
    path, for a file without an image, too large, or in a compression that can't be decoded here.
    """
    pixels = optional("pydicom.pixels")
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.TransferSyntaxUID.is_deflated:
            _check_inflated(path, HEADER + meta.FileMetaInformationGroupLength)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if "Rows" not in header or "PhotometricInterpretation" not in header:
            modality = header.get("Modality") or "no modality"
            raise UserError(f"DICOM without an image: {modality}")
        if header.Rows * header.Columns > MAX_PIXELS:
            raise UserError(TOO_LARGE)
        frame = (int(header.get("NumberOfFrames") or 1) - 1) // 2
        stored = _stored_values(path, header.file_meta.TransferSyntaxUID, frame)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            stored = pixels.apply_color_lut(stored, header)  # (H, W, 3)
            return stored / np.iinfo(stored.dtype).max
        if stored.ndim == 3:
            return np.clip(stored / (2**header.BitsStored - 1), 0, 1)  # (H, W, 3)
        _lift_frame_header(header, frame)
        # 80 million float64 values take 3 GB
        kind = np.float64 if stored.size < MAX_PIXELS // 4 else np.float32
        values = np.asarray(pixels.apply_modality_lut(stored, header), kind)  # (H, W)
        grey = _to_grey(values, header, pixels, stored != header.get("PixelPaddingValue"))
    return 1 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey


def _check_inflated(path, start):
    """Raise UserError for a deflated file that would fill the memory."""
    with open(path, "rb") as file:
        file.seek(start)
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        if len(inflate.decompress(file.read(), 4 * MAX_PIXELS)) == 4 * MAX_PIXELS:
            raise UserError(TOO_LARGE)


def _stored_values(path, syntax, frame):
    """The stored values of one frame, (H, W) or (H, W, 3); YBR is converted to RGB."""
    import pydicom
    import pydicom.pixels

    try:
        source = pydicom.dcmread(path) if syntax.is_deflated else path
        return pydicom.pixels.pixel_array(source, index=frame)
    except (RuntimeError, NotImplementedError):
        if not syntax.is_compressed:
            raise
        raise UserError(
            f"compressed as {syntax.name}, which can't be decoded here: save it uncompressed, or "
            "install decoders with pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        ) from None


def _lift_frame_header(header, frame):
    """Copy rescaling and window of one frame of an enhanced file to the top of its header."""
    for groups in (
        header.get("SharedFunctionalGroupsSequence"),
        (header.get("PerFrameFunctionalGroupsSequence") or [])[frame:],
    ):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            if groups and groups[0].get(name):
                header.update(groups[0][name].value[0])


def _to_grey(values, header, pixels, inside):
    """Rescaled values (H, W) -> [0, 1] by the header's VOI LUT or window (DICOM PS3.3 C.11.2).

    Without either the range of the values `inside` (H, W, bool), the padding left out, counts.
    """
    if header.get("VOILUTSequence"):
        top = 2 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
        return np.clip(pixels.apply_voi(np.rint(values).astype(np.int64), header) / top, 0, 1)
    centres, widths = (
        np.atleast_1d(np.asarray(header.get(name) or [], np.float64))
        for name in ("WindowCenter", "WindowWidth")
    )
    if centres.size and widths.size and widths[0] > 0:
        centre, width = float(centres[0]), float(widths[0])
        kind = header.get("VOILUTFunction", "LINEAR")
        if kind == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        if kind == "LINEAR":  # in the standard both ends of the window are pixel values
            centre, width = centre - 0.5, max(width - 1, 1e-9)
        return np.clip((values - centre) / width + 0.5, 0, 1)
    seen = values[inside] if inside.any() else values
    return np.clip((values - seen.min()) / max(seen.max() - seen.min(), 1e-9), 0, 1)
