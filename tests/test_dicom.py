"""DICOM files against pictures computed by hand, and the errors of files that can't be read."""

import io
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
)

from readers.dicom import read_dicom
from readers.images import is_dicom, open_image, read_image
from utils import UserError

RAMP = np.tile(np.arange(224), (224, 1))  # stored values; at this size resizing changes nothing
# of the value v: v / 100
WINDOW = {
    "RescaleSlope": 2,
    "RescaleIntercept": -10,
    "WindowCenter": [50.5, 7],
    "WindowWidth": [101, 9],
}


def write_dicom(path, stored, photometric="MONOCHROME2", frames=None, bits=16, **header):
    """A DICOM file of the stored values (H, W), (frames, H, W) or (H, W, 3)."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta, dataset.PhotometricInterpretation = meta, photometric
    colour = stored.shape[-1] == 3
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 3 if colour else 1, int(stored.min() < 0)
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    if colour:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = frames
    for name, value in header.items():
        setattr(dataset, name, value)
    dataset.PixelData = stored.astype({8: "<u1", 16: "<u2"}[bits]).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def sequence(**header):
    item = pydicom.Dataset()
    for name, value in header.items():
        setattr(item, name, value)
    return pydicom.Sequence([item])


def grey(values):
    """[0, 1] (224, 224) -> the expected picture."""
    return np.repeat(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)[..., None], 3, -1)


def notes(path, frame=None):
    """What is said of a file's image, as one text."""
    return "; ".join(f"{kind}: {detail}" for kind, detail in open_image(path, frame).notes)


def test_a_ct_that_pydicom_ships():
    """128 x 128, no window: from the 0.5% smallest to the 0.5% largest, the padding left out."""
    path = get_testdata_file("CT_small.dcm", download=False)
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array.astype(float)
    inside = np.sort(stored[stored != dataset.get("PixelPaddingValue")])
    low, high = inside[len(inside) // 200], inside[-len(inside) // 200 - 1]
    values = np.clip((stored - low) / (high - low), 0, 1)
    found, said, frame, frames = read_dicom(path)
    np.testing.assert_allclose(found, values, atol=3e-3)
    assert (frame, frames) == (1, 1) and "names no window" in said[0][0]
    expected = Image.fromarray(np.rint(found * 255).astype(np.uint8))
    expected = np.asarray(expected.resize((224, 224), Image.Resampling.BILINEAR))
    image = read_image(path)
    assert image.shape == (224, 224, 3) and image.dtype == np.uint8
    assert (image == expected[..., None]).all()


# photometric interpretation, header, expected values
CASES = {
    "inverted window": ("MONOCHROME1", WINDOW, 1 - np.clip((2 * RAMP - 10) / 100, 0, 1)),
    "window": ("MONOCHROME2", WINDOW, (2 * RAMP - 10) / 100),
    "exact window": (
        "MONOCHROME2",
        WINDOW | {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 50, "WindowWidth": 100},
        (2 * RAMP - 10) / 100,
    ),
    "sigmoid window": (
        "MONOCHROME2",
        {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"},
        1 / (1 + np.exp(-4 * (RAMP - 100) / 50)),
    ),
    # each value fills 0.45% of the picture
    "inverted range": ("MONOCHROME1", {}, 1 - (RAMP - 1) / 221),
    "range without padding": ("MONOCHROME2", {"PixelPaddingValue": 223}, (RAMP - 1) / 220),
    "padding from a value on": (
        "MONOCHROME2",
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 99},
        (RAMP - 100) / 123,
    ),
    "padding down to a value": (
        "MONOCHROME2",
        {"PixelPaddingValue": 223, "PixelPaddingRangeLimit": 200},
        (RAMP - 1) / 197,
    ),
    "presentation shape": (
        "MONOCHROME2",
        WINDOW | {"PresentationLUTShape": "INVERSE"},
        1 - np.clip((2 * RAMP - 10) / 100, 0, 1),
    ),
    "inverted, but not twice": (
        "MONOCHROME1",
        WINDOW | {"PresentationLUTShape": "INVERSE"},
        1 - np.clip((2 * RAMP - 10) / 100, 0, 1),
    ),
    "as it is": (
        "MONOCHROME2",
        WINDOW | {"PresentationLUTShape": "IDENTITY"},
        (2 * RAMP - 10) / 100,
    ),
    "VOI LUT": (
        "MONOCHROME2",
        {
            "VOILUTSequence": sequence(
                LUTDescriptor=[200, 10, 12],
                LUTData=np.arange(4095, 95, -20).astype("<u2").tobytes(),
            )
        },
        (4095 - 20 * np.clip(RAMP - 10, 0, 199)) / 4095,
    ),
    "window of an enhanced file": (
        "MONOCHROME2",
        {
            "SharedFunctionalGroupsSequence": sequence(
                FrameVOILUTSequence=sequence(WindowCenter=50.5, WindowWidth=101)
            )
        },
        RAMP / 100,
    ),
}


@pytest.mark.parametrize("photometric, header, expected", CASES.values(), ids=CASES)
def test_grey_by_hand(photometric, header, expected, tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, photometric, **header)
    assert np.abs(read_image(path).astype(int) - grey(expected)).max() <= 1


@pytest.mark.parametrize("value, limit", [(-2000, -1900), (-1900, -2000), (63536, 63636)])
def test_signed_padding(value, limit, tmp_path):
    """In stored values, before rescaling; a negative value may stand there as a large one."""
    stored = RAMP - 100
    plain = read_image(write_dicom(tmp_path / "plain", stored))
    padded = stored.copy()
    padded[:30] = np.linspace(-2000, -1900, 30)[:, None]
    ends = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
    rescaled = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    path = write_dicom(tmp_path / "a", padded, **rescaled)
    dataset = pydicom.dcmread(path)
    for name, number in ends.items():
        dataset.add_new(name, "SS" if number < 0 else "US", number)
    dataset.save_as(path)
    image = read_image(path)
    assert (image[30:] == plain[30:]).all() and image[:30].max() == 0


def test_without_a_window_a_few_pixels_do_not_count(tmp_path):
    even = np.zeros((224, 224), int)
    even[100:104, 100:102], even[100:104, 102:104] = 900, 300  # nearly all have one value
    image = read_image(write_dicom(tmp_path / "even", even))
    assert image[102, 99:104, 0].tolist() == [0, 255, 255, 85, 85]
    hot = RAMP.copy()
    hot[5, 5] = 60_000
    for name, stored in {"plain": RAMP, "hot": hot}.items():
        write_dicom(tmp_path / name, stored)
    difference = read_image(tmp_path / "plain").astype(int) - read_image(tmp_path / "hot")
    assert (np.abs(difference).max(-1) > 1).sum() == 1
    assert "names no window, so" in notes(tmp_path / "hot")
    assert not notes(write_dicom(tmp_path / "window", RAMP, **WINDOW))


@pytest.mark.filterwarnings("error")
def test_floats(tmp_path):
    values = RAMP.astype("<f4") / 100
    values[0, :3] = np.nan, np.inf, -np.inf
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", RAMP))
    del dataset.PixelData
    dataset.BitsAllocated, dataset.FloatPixelData = 32, values.tobytes()
    dataset.save_as(tmp_path / "a")
    image = read_image(tmp_path / "a")[..., 0].astype(int)
    assert image[0, :3].tolist() == [0, 255, 0]
    assert np.abs(image[1:] - grey((RAMP - 1) / 221)[1:, :, 0]).max() <= 1


def test_frames(tmp_path):
    """The middle one, or the one that is named."""
    path = write_dicom(tmp_path / "a", np.stack([RAMP * i // 4 for i in range(5)]), frames=5)
    for frame in (None, 2, 5):
        picture, number = open_image(path, frame), frame or 3
        values = RAMP * (number - 1) // 4
        low, high = np.percentile(values, (0.5, 99.5))
        assert np.abs(np.asarray(picture.image) - grey((values - low) / (high - low))).max() <= 1
        assert (picture.frame, picture.frames) == (number, 5)
        assert f"frame {number} of 5" in notes(path, frame)
    for wrong in (0, 6, -1):
        with pytest.raises(UserError, match=f"--frame {wrong}: .* has frames 1 to 5"):
            open_image(path, wrong)
    with pytest.raises(UserError, match="one picture, no frames"):
        open_image(write_dicom(tmp_path / "one", RAMP), 1)


def test_colours(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (224, 224, 3))
    image = read_image(write_dicom(tmp_path / "rgb", colours, "RGB", bits=8))
    assert (image == colours).all()
    ybr = np.asarray(Image.fromarray(colours.astype(np.uint8)).convert("YCbCr"))
    image = read_image(write_dicom(tmp_path / "ybr", ybr, "YBR_FULL", bits=8))
    assert np.abs(image.astype(int) - colours).max() <= 3


def test_files_without_preamble_or_file_meta(tmp_path):
    whole = write_dicom(tmp_path / "whole", RAMP - 9, PixelPaddingValue=-9, Modality="CT")
    content, dataset = whole.read_bytes(), pydicom.dcmread(whole)
    contents = {"no preamble": content[132:]}
    for implicit in (False, True):
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
        pydicom.filewriter.write_dataset(buffer, dataset)
        contents[f"bare, implicit {implicit}"] = buffer.getvalue()
        contents[f"no meta, implicit {implicit}"] = content[:132] + buffer.getvalue()
    for name, bare in contents.items():
        (tmp_path / name).write_bytes(bare)
        assert is_dicom(tmp_path / name)
        assert (read_image(tmp_path / name) == read_image(whole)).all(), name


def test_bad_files(tmp_path, monkeypatch):
    def line(path):
        with pytest.raises(UserError) as error:
            read_image(path)
        text = str(error.value)
        assert text.startswith(f"{path} can't be used (") and text.count(str(path)) == 1
        return text

    good = write_dicom(tmp_path / "good", RAMP)
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-1000])
    assert "damaged DICOM, its pixels cut short" in line(tmp_path / "cut")
    dataset = pydicom.dcmread(good)
    dataset.Rows = dataset.Columns = 60_000
    dataset.save_as(tmp_path / "large")
    assert "more than 80,000,000 pixels" in line(tmp_path / "large")
    jpeg = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint8)).save(jpeg, "JPEG")
    for stream, syntax, bits, fault in (
        (b"\0" * 100, JPEGLSLossless, 16, "compressed as JPEG-LS"),
        (jpeg.getvalue(), JPEGExtended12Bit, 12, "install decoders"),
        (jpeg.getvalue()[:900], JPEGBaseline8Bit, 8, "cut short or broken"),
        (b"\0" * 100, JPEGBaseline8Bit, 8, "cut short or broken"),
        (jpeg.getvalue()[:900], JPEGExtended12Bit, 8, "cut short or broken"),
        (b"\0" * 100, "1.2.840.10008.1.2.4.102", 8, "compressed as MPEG-4"),
    ):
        dataset = pydicom.dcmread(write_dicom(tmp_path / "a", RAMP, bits=8 if bits == 8 else 16))
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        dataset.PixelData = pydicom.encaps.encapsulate([stream])
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(tmp_path / "compressed")
        message = line(tmp_path / "compressed")
        assert fault in message
        assert ("pip install" in message) == (
            fault in ("install decoders", "compressed as JPEG-LS")
        )
    bare = pydicom.filebase.DicomBytesIO()
    bare.is_implicit_VR, bare.is_little_endian = False, True
    dataset.Modality, dataset["PixelData"].VR = "CT", "OB"
    dataset["PixelData"].is_undefined_length = True
    pydicom.filewriter.write_dataset(bare, dataset)
    (tmp_path / "bare").write_bytes(bare.getvalue())
    assert "compressed DICOM, and the file meta" in line(tmp_path / "bare")
    dataset = pydicom.dcmread(good)
    del dataset.PixelData
    dataset.save_as(tmp_path / "empty")
    assert "holds no picture" in line(tmp_path / "empty")
    del dataset.Rows
    dataset.Modality = "SR"
    dataset.save_as(tmp_path / "report")
    assert "holds no picture" in line(tmp_path / "report") and "SR" in line(tmp_path / "report")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    dataset.save_as(tmp_path / "pdf")
    assert "Encapsulated PDF Storage" in line(tmp_path / "pdf")
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    assert "pip install pydicom" in line(good)
