"""DICOM files against pictures computed by hand, and the errors of files that can't be read."""

import sys

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, SecondaryCaptureImageStorage

from readers.dicom import read_dicom
from readers.images import read_image
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
    """A DICOM file of the stored values (H, W), (frames, H, W) or (H, W, 3), unsigned."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta, dataset.PhotometricInterpretation = meta, photometric
    colour = stored.shape[-1] == 3
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 3 if colour else 1, 0
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


def test_a_ct_that_pydicom_ships():
    """128 x 128, no window: from the smallest to the largest value, without the padding value."""
    path = get_testdata_file("CT_small.dcm", download=False)
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array.astype(float)
    inside = stored[stored != dataset.get("PixelPaddingValue")]
    values = np.clip((stored - inside.min()) / (inside.max() - inside.min()), 0, 1)
    np.testing.assert_allclose(read_dicom(path), values, atol=1e-12)
    expected = Image.fromarray(np.rint(values * 255).astype(np.uint8))
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
    "inverted range": ("MONOCHROME1", {}, 1 - RAMP / 223),
    "range without padding": ("MONOCHROME2", {"PixelPaddingValue": 223}, RAMP / 222),
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


def test_frames_and_colours(tmp_path):
    stack = np.stack([RAMP * 0, RAMP, RAMP * 0])
    image = read_image(write_dicom(tmp_path / "stack", stack, frames=3))
    assert (image == grey(RAMP / 223)).all()  # the middle frame
    colours = np.random.default_rng(0).integers(0, 256, (224, 224, 3))
    image = read_image(write_dicom(tmp_path / "rgb", colours, "RGB", bits=8))
    assert (image == colours).all()
    ybr = np.asarray(Image.fromarray(colours.astype(np.uint8)).convert("YCbCr"))
    image = read_image(write_dicom(tmp_path / "ybr", ybr, "YBR_FULL", bits=8))
    assert np.abs(image.astype(int) - colours).max() <= 3


def test_bad_files(tmp_path, monkeypatch):
    def line(path):
        with pytest.raises(UserError) as error:
            read_image(path)
        text = str(error.value)
        assert text.startswith(f"{path} can't be used (") and text.count(str(path)) == 1
        return text

    good = write_dicom(tmp_path / "good", RAMP)
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-1000])
    assert "damaged DICOM" in line(tmp_path / "cut")
    dataset = pydicom.dcmread(good)
    dataset.Rows = dataset.Columns = 60_000
    dataset.save_as(tmp_path / "large")
    assert "more than 80,000,000 pixels" in line(tmp_path / "large")
    dataset = pydicom.dcmread(good)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 100])
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.save_as(tmp_path / "compressed")
    assert "compressed as JPEG-LS" in line(tmp_path / "compressed")
    dataset = pydicom.dcmread(good)
    del dataset.Rows, dataset.PixelData
    dataset.Modality = "SR"
    dataset.save_as(tmp_path / "report")
    assert "DICOM without an image: SR" in line(tmp_path / "report")
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    assert "pip install pydicom" in line(good)
