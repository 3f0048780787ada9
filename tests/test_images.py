"""Pictures: modes, depths, frames and orientation, what is said of them, and every bad one."""

import struct
import zlib

import numpy as np
import pytest
from helpers import error_of, prepare, processed, record
from PIL import Image, features
from test_dicom import write_dicom

from features import ImageStore
from readers.images import (
    MAX_PIXELS,
    PICTURES,
    is_dicom,
    log_notes,
    open_image,
    read_image,
    read_mask,
)
from utils import HERE, UserError

pytestmark = pytest.mark.usefixtures("no_real_folders")
GREYS = np.random.default_rng(0).integers(0, 256, (6, 5)).astype(np.uint8)
GREYS[0, :2] = 0, 255
FAULTS = HERE.parent / "shared" / "faults"


def pixels(path, frame=None):
    """A picture's own pixels, uint8 (height, width, 3)."""
    return np.asarray(open_image(path, frame).image)


def notes(path, frame=None):
    """What is said of a picture, as one text."""
    return "; ".join(f"{kind}: {detail}" for kind, detail in open_image(path, frame).notes)


def is_grey(path, expected, atol=0):
    """Whether the picture is `expected` (height, width) in all three channels."""
    return np.abs(pixels(path).astype(float) - np.asarray(expected)[..., None]).max() <= atol


def write_tiff(path, values, order="<", **tags):
    """A grey TIFF file of any type of number, byte by byte; `tags`: t262=0 and so on."""
    values = np.asarray(values)
    kinds = {"u": 1, "i": 2, "f": 3}
    fields = {256: values.shape[1], 257: values.shape[0], 258: values.dtype.itemsize * 8}
    fields |= {259: 1, 262: 1, 277: 1, 278: values.shape[0], 279: values.nbytes}
    fields |= {273: 0, 339: kinds[values.dtype.kind]} | {int(k[1:]): v for k, v in tags.items()}
    fields[273] = 14 + 12 * len(fields)
    entries = [struct.pack(order + "HHII", tag, 4, 1, fields[tag]) for tag in sorted(fields)]
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, len(fields))
    values = values.astype(values.dtype.newbyteorder(order))
    path.write_bytes(head + b"".join(entries) + bytes(4) + values.tobytes())
    return path


# ---------------------------------------------------------------- what every viewer shows


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_orientation(suffix, tmp_path):
    """All eight: the corners, named by their greys, end where the EXIF standard says."""
    corners = {1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "cadb", 7: "dbca"}
    corners[8] = "bdac"  # top left, top right, bottom left, bottom right
    stored = np.kron([[0, 80], [160, 240]], np.ones((16, 24))).astype(np.uint8)
    for orientation, names in corners.items():
        exif = Image.Exif()
        exif[274] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        quality = {"lossless": True} if suffix == "webp" else {"quality": 95}
        Image.fromarray(stored).save(path, exif=exif, **quality)
        found = pixels(path)[..., 0]
        assert found.shape == ((32, 48) if orientation < 5 else (48, 32))
        shown = "".join("abcd"[round(found[y, x] / 80)] for y in (2, -3) for x in (2, -3))
        assert shown == names, orientation


def test_a_damaged_exif_block_turns_nothing(tmp_path):
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\1" * 9):
        Image.fromarray(GREYS).save(tmp_path / "a.png", exif=exif)
        assert is_grey(tmp_path / "a.png", GREYS)


def test_transparent_parts_are_black(tmp_path):
    """Half of a value is half as bright, whatever the mode, and what is hidden stays hidden."""
    alpha = np.full((6, 5), 255, np.uint8)
    alpha[:2], alpha[2:4] = 0, 51
    want = np.rint(GREYS * (alpha / 255.0))
    grey, mask = Image.fromarray(GREYS), Image.fromarray(alpha)
    both = {"LA": Image.merge("LA", (grey, mask)), "RGBA": grey.convert("RGB")}
    both["RGBA"].putalpha(mask)
    for mode, image in both.items():
        for suffix in ("png", "tif"):
            image.save(tmp_path / f"{mode}.{suffix}")
            assert is_grey(tmp_path / f"{mode}.{suffix}", want, 1), (mode, suffix)
    both["RGBA"].save(tmp_path / "a.webp", lossless=True, exact=True)
    assert is_grey(tmp_path / "a.webp", want, 1)
    palette = Image.fromarray(np.repeat([[0, 1, 2]], 3, 0).astype(np.uint8), "P")
    palette.putpalette([255] * 3 + [90] * 3 + [200] * 3)
    palette.save(tmp_path / "a.gif", transparency=0)
    palette.save(tmp_path / "one.png", transparency=0)
    palette.save(tmp_path / "all.png", transparency=bytes([0, 51, 255]))
    grey.save(tmp_path / "key.png", transparency=int(GREYS[5, 4]))
    for name, row in {
        "a.gif": (0, 90, 200),
        "one.png": (0, 90, 200),
        "all.png": (0, 18, 200),
    }.items():
        assert is_grey(tmp_path / name, [row] * 3, 1), name
    assert is_grey(tmp_path / "key.png", np.where(GREYS == GREYS[5, 4], 0, GREYS))


def test_other_colours(tmp_path):
    """1 bit, CMYK of JPEG, and CIE L*a*b*, whose values here are those of sRGB primaries."""
    Image.fromarray(GREYS > 99).save(tmp_path / "one.png")
    assert is_grey(tmp_path / "one.png", np.where(GREYS > 99, 255, 0))
    inks = np.broadcast_to(np.uint8([255, 0, 0, 51]), (16, 16, 4))  # cyan, one fifth black
    Image.fromarray(inks, "CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(pixels(tmp_path / "cmyk.jpg").astype(int) - [0, 204, 204]).max() <= 2
    lab = np.int16([[[53.24, 80.09, 67.2], [87.73, -86.18, 83.18], [100, 0, 0]]])
    lab = np.rint(lab * [2.55, 1, 1]).astype(int).astype(np.uint8)  # a and b are signed
    path = tmp_path / "lab.tif"
    Image.frombytes("LAB", (3, 1), lab.tobytes()).save(path)
    want = [[[255, 0, 0], [0, 255, 0], [255, 255, 255]]]
    assert np.abs(pixels(path).astype(int) - want).max() <= 12


# ---------------------------------------------------------------- deep greys


def test_sixteen_bits(tmp_path):
    """All of them as every viewer shows them, a part of them by its own range; both are said."""
    full, part = tmp_path / "full.png", tmp_path / "part.png"
    Image.fromarray(GREYS.astype(np.uint16) * 257).save(full)
    assert is_grey(full, GREYS) and "0 becomes black, 65535 white" in notes(full)
    for factor, shift in ((4, 0), (16, 0), (64, 0), (16, 31744)):
        Image.fromarray(GREYS.astype(np.uint16) * factor + shift).save(part)
        assert is_grey(part, GREYS), (factor, shift)
        assert f"{shift} becomes black, {255 * factor + shift} white" in notes(part)
    Image.fromarray(np.full((20, 20), 257 * 100, np.uint16)).save(part)
    assert is_grey(part, np.full((20, 20), 100))
    assert read_image(part, 16).shape == (16, 16, 3)
    clear = b"tRNS\xff\xff"  # white is transparent; the chunk follows the header
    chunk, content = struct.pack(">I6sI", 2, clear, zlib.crc32(clear)), full.read_bytes()
    full.write_bytes(content[:33] + chunk + content[33:])
    assert is_grey(full, np.where(GREYS == 255, 0, GREYS))
    (tmp_path / "a.pgm").write_bytes(b"P5 5 6 4095\n" + (GREYS * 16.0).astype(">u2").tobytes())
    assert is_grey(tmp_path / "a.pgm", GREYS * (16 * 255 / 4095), 1)


TYPES = {
    "12 of 16 bits": (np.uint16, 16, 0, {}),
    "big-endian": (np.uint16, 16, 0, {"order": ">"}),
    "signed 16 bits": (np.int16, 16, -1024, {}),
    "signed, big-endian": (np.int16, 16, -1024, {"order": ">"}),
    "signed 8 bits": (np.int8, 1, -128, {}),
    "signed 32 bits": (np.int32, 10**7, -(2**31), {}),
    "32 bits": (np.uint32, 2**24, 0, {}),
    "floats": (np.float32, 1 / 255, 0, {}),
    "negative floats": (np.float32, 0.5, -60, {"order": ">"}),
    "large floats": (np.float32, 2.6e36, -3.4e38, {}),
}


@pytest.mark.parametrize("kind, factor, shift, options", TYPES.values(), ids=TYPES)
def test_other_numbers_are_scaled_by_their_range(kind, factor, shift, options, tmp_path):
    path = write_tiff(tmp_path / "a.tif", (GREYS * float(factor) + shift).astype(kind), **options)
    assert is_grey(path, GREYS, 1) and "scaled by their range" in notes(path)
    exif = write_tiff(tmp_path / "b.tif", (GREYS * float(factor) + shift).astype(kind), t274=6)
    assert is_grey(exif, np.rot90(GREYS, -1), 1)


def test_white_may_be_zero(tmp_path):
    for values in (GREYS.astype(np.uint16) * 16, GREYS.astype(np.float32), GREYS):
        path = write_tiff(tmp_path / "a.tif", values, t262=0)
        assert is_grey(path, 255 - GREYS, 1)


def test_numbers_that_are_none(tmp_path):
    values = GREYS.astype(np.float32) / 255
    values[1, :3] = np.nan, np.inf, -np.inf
    want = GREYS.copy()
    want[1, :3] = 0, 255, 0
    assert is_grey(write_tiff(tmp_path / "a.tif", values), want)
    for value in (np.nan, np.inf, 0.5):
        path = write_tiff(tmp_path / "a.tif", np.full((6, 5), value, np.float32))
        assert len(np.unique(pixels(path))) == 1


def test_nearly_black_is_said(tmp_path):
    """12 bits in a colour picture of 16, of which Pillow keeps the upper 8."""
    for high in (15, 200):
        Image.new("RGB", (5, 6), (high, 0, 3)).save(tmp_path / "a.png")
        assert ("nearly black: its largest value is 15" in notes(tmp_path / "a.png")) == (high < 64)


# ---------------------------------------------------------------- frames, formats


def test_frames(tmp_path):
    """The first is read unless another is named, and said."""
    frames = [Image.fromarray(np.roll(GREYS, i, 0)) for i in range(3)]
    more = {"save_all": True, "append_images": frames[1:]}
    frames[0].save(tmp_path / "a.tif", **more)
    frames[0].save(tmp_path / "a.gif", **more)
    frames[0].save(tmp_path / "a.png", **more)
    for name, unit in {"a.tif": "page", "a.gif": "frame", "a.png": "frame"}.items():
        path = tmp_path / name
        assert is_grey(path, GREYS) and f"{unit} 1 of 3" in notes(path)
        picture = open_image(path, 3)
        assert (np.asarray(picture.image)[..., 0] == np.roll(GREYS, 2, 0)).all(), name
        assert (picture.frame, picture.frames) == (3, 3) and "3 of 3" in notes(path, 3)
        for wrong in (0, 4, -1):
            with pytest.raises(UserError, match=f"--frame {wrong}: {path} has frames 1 to 3"):
                open_image(path, wrong)
    # the first page is whole
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) - 60])
    assert is_grey(tmp_path / "cut.tif", GREYS)
    frames[0].save(tmp_path / "one.png")
    assert not open_image(tmp_path / "one.png").notes
    with pytest.raises(UserError, match="--frame 1: .*one picture, no frames"):
        open_image(tmp_path / "one.png", 1)


@pytest.mark.parametrize(
    "name, codec, quality", [("a.jp2", "jpg_2000", 0), ("a.avif", "avif", 100)]
)
def test_newer_formats(name, codec, quality, tmp_path):
    if codec not in features.codecs | features.modules or not features.check(codec):
        pytest.skip(f"this Pillow has no {codec}")
    smooth = np.tile(np.arange(0, 256, 4, np.uint8), (64, 1))
    Image.fromarray(smooth).convert("RGB").save(tmp_path / name, quality=quality)
    assert is_grey(tmp_path / name, smooth, 4)


def test_a_mask_is_turned_and_has_one_page(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    labels = Image.fromarray((GREYS > 99).astype(np.uint8))
    labels.save(tmp_path / "a.png", exif=exif)
    assert (read_mask(tmp_path / "a.png") == np.rot90(GREYS > 99, -1)).all()
    labels.save(tmp_path / "a.tif", save_all=True, append_images=[labels])
    with pytest.raises(UserError, match="2 pages or frames, and a mask is one"):
        read_mask(tmp_path / "a.tif")


def test_what_is_no_dicom(tmp_path):
    """A text, and a picture with the suffix, are not taken for a DICOM file without preamble."""
    Image.fromarray(GREYS).save(tmp_path / "a.dcm", "JPEG")
    assert not is_dicom(tmp_path / "a.dcm") and pixels(tmp_path / "a.dcm").shape == (6, 5, 3)
    texts = ["a text\n" * 50, "\b\0\5\0ab\n" * 50, "\b\0\5\0" + "\xff" * 200, "\0" * 999]
    for text in texts:
        (tmp_path / "b.dcm").write_bytes(text.encode("latin1"))
        assert not is_dicom(tmp_path / "b.dcm"), text


# ---------------------------------------------------------------- data sets


def test_notes_of_a_data_set(tmp_path, capsys):
    """One line for each kind, with the number of images and three names; the images are right."""
    train = [record(i, image_name=f"j{i}.png") for i in range(10, 15)]
    train += [record(20, image_name="scan.dcm"), record(21, image_name="turned.jpg")]
    folder = processed(tmp_path / "d", train=train)
    for i in range(10, 15):
        Image.fromarray(GREYS.astype(np.uint16) * 16).save(folder / "images" / f"j{i}.png")
    values = np.arange(224 * 224).reshape(224, 224) // 200
    write_dicom(folder / "images" / "scan.dcm", np.stack([values] * 5), frames=5)
    exif = Image.Exif()
    exif[274] = 6
    half = Image.fromarray(np.repeat(np.uint8([[0], [255]]), 112, 0).repeat(224, 1))
    half.save(folder / "images" / "turned.jpg", exif=exif, quality=95)
    data = prepare(folder)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NOTE")]
    assert len(lines) == 3
    scaled, frames, window = lines
    assert scaled.startswith("NOTE: 5 of 8 images: grey values of another depth")
    assert "j12.png (0 becomes black, 4080 white) and 2 more" in scaled and "j13" not in scaled
    assert "1 of 8 images: one of several frames" in frames and "scan.dcm (frame 3 of 5)" in frames
    assert "names no window" in window
    names, stored = data.image_names, ImageStore(data.images_path)
    assert (
        stored[[names.index("scan.dcm")]][0].numpy() == read_image(folder / "images/scan.dcm")
    ).all()
    turned = stored[[names.index("turned.jpg")]][0, 112, :, 0]
    assert turned[:100].min() > 250 and turned[-100:].max() < 5
    prepare(folder)
    assert "NOTE" not in capsys.readouterr().out


def test_names_in_notes_can_be_printed(capsys):
    log_notes({"a\udcff\n.png": [("a kind", "so")]}, 3)
    assert capsys.readouterr().out == r"NOTE: 1 of 3 images: a kind: 'a\udcff\n.png (so)'" + "\n"


def test_shared_faults():
    """The pictures of bug reports: mean difference from the right picture in grey levels."""
    if not FAULTS.is_dir():
        pytest.skip(f"{FAULTS} is absent")
    right = read_image(FAULTS / "images" / "plain.png").astype(float)
    limits = {"images/exif6.jpg": 0.5, "images/rgba_hidden_white.png": 1, "images/gray32.tif": 2}
    limits |= {"images/gray16_full.png": 0.1, "images/gray16_of_12bit.png": 2}
    limits |= {"images/float01.tif": 2, "images/jpeg2000.jp2": 0.5, "images/picture.avif": 1}
    limits |= {"dicom/five_frames.dcm": 1, "dicom/no_preamble_explicit.dcm": 1}
    limits |= {"dicom/no_window.dcm": 10, "dicom/no_window_hot_pixel.dcm": 10}
    limits |= {"dicom/ct_padding_range.dcm": 15}
    for name, limit in limits.items():
        path = FAULTS / name
        if path.suffix != ".avif" or "AVIF" in PICTURES:
            assert np.abs(read_image(path) - right).mean() < limit, name
    without, hot = (read_image(FAULTS / f"dicom/no_window{n}.dcm") for n in ("", "_hot_pixel"))
    assert np.abs(without.astype(int) - hot).mean() < 0.1
    said = {"images/gray16_of_12bit.png": "4016 white", "images/pages.tif": "page 1 of 3"}
    said |= {"images/float01.tif": "scaled", "images/gray32.tif": "scaled"}
    said |= {"dicom/five_frames.dcm": "frame 3 of 5", "dicom/no_window.dcm": "no window"}
    for name, words in said.items():
        assert words in notes(FAULTS / name), name
    with pytest.raises(UserError, match="holds no picture"):
        read_image(FAULTS / "dicom" / "no_pixels.dcm")


# ---------------------------------------------------------------- files that can't be used


def bomb(path):
    """A small file that holds a very large image; Pillow itself would only warn."""
    Image.new("1", (10000, 10000)).save(path, "PNG")


def test_unusable_pictures_are_one_clear_line(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("not an image")
    bomb(tmp_path / "bomb.png")
    faults = {
        "none.png": "missing",
        "folder.png": "a folder",
        "text.png": "damaged, or none of JPEG, PNG, BMP, GIF, TIFF, WEBP, PPM, JPEG2000, ",
        "bomb.png": f"more than {MAX_PIXELS:,} pixels",
    }
    for name, fault in faults.items():
        with pytest.raises(UserError) as caught:
            read_image(tmp_path / name)
        message = str(caught.value)
        assert str(tmp_path / name) in message and fault in message


def test_all_bad_images_are_listed_at_once(tmp_path):
    train = [record(i, image_name=f"j{i}.jpg") for i in range(10, 40)]
    folder = processed(tmp_path / "d", train=train)
    images = folder / "images"
    good = (images / "i0.jpg").read_bytes()
    for i in range(10, 40):
        (images / f"j{i}.jpg").write_bytes(good)
    (images / "j10.jpg").write_bytes(good[: len(good) // 2])
    (images / "j11.jpg").write_text("not an image")
    bomb(images / "j12.jpg")
    message = error_of(folder)
    assert "3 of 31" in message and "j12.jpg (more than 80,000,000 pixels" in message
    assert "j10.jpg (damaged" in message and "j11.jpg (damaged" in message
    (images / "j13.jpg").unlink()
    message = error_of(folder)
    assert "4 of 31" in message and "j13.jpg (missing)" in message and "j12.jpg" in message
    for i in range(13, 40):
        (images / f"j{i}.jpg").unlink(missing_ok=True)
    message = error_of(folder)
    assert "30 of 31" in message and "and 10 more" in message
