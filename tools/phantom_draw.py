"""Draws a Scene as a picture: shapes in grey, then tilt, texture, contrast and noise.

Left and right are the patient's, as a radiologist reads a picture: the patient's left is at the
right edge.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from utils import UserError

CANVAS = 320  # pixels; a picture is drawn at this size, then resized
PLACES = {  # of lesions: centre of the organ, distance from it across and down, as fractions
    ("HEAD", "axial"): (0.5, 0.5, 0.18, 0.20),
    ("HEAD", "coronal"): (0.5, 0.41, 0.18, 0.16),
    ("HEAD", "sagittal"): (0.53, 0.39, 0.19, 0.14),
    ("CHEST", "PA"): (0.5, 0.46, 0.22, 0.17),
    ("CHEST", "axial"): (0.5, 0.5, 0.23, 0.13),
    ("ABD", "axial"): (0.5, 0.5, 0.23, 0.14),
    ("ABD", "coronal"): (0.5, 0.47, 0.2, 0.2),
}
GREYS = {  # 0..255 by weighting: bone, fat, soft tissue, a second soft tissue, fluid
    None: (255, 60, 120, 140, 35),
    "T1": (25, 235, 130, 165, 15),
    "T2": (15, 150, 85, 65, 240),
}


@contextlib.contextmanager
def whole_folder(folder):
    """Give a new folder to fill; a block that ends well renames it to `folder`.

    It lies in a temporary folder beside `folder`, which goes when the block raises. Raises
    UserError when `folder` isn't empty or can't be written.
    """
    folder = Path(folder).resolve()
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder} exists and isn't empty: name another folder (--output) or remove it"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        options = {"prefix": f".{folder.name}.", "suffix": ".tmp", "dir": folder.parent}
        with tempfile.TemporaryDirectory(**options) as temporary:
            whole = Path(temporary) / "whole"
            whole.mkdir()
            yield whole
            os.replace(whole, folder)
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error.strerror or error}): name another folder (--output)"
        ) from error


def bounds(x, y, rx, ry):
    """Corners in canvas pixels of a box, by its centre and half sides (fractions)."""
    return [(x - rx) * CANVAS, (y - ry) * CANVAS, (x + rx) * CANVAS, (y + ry) * CANVAS]


def oval(pen, x, y, rx, ry, grey):
    """A filled ellipse; the numbers of `bounds`, and a grey 0..255."""
    pen.ellipse(bounds(x, y, rx, ry), fill=grey)


def box(pen, x, y, rx, ry, grey):
    """A filled rounded rectangle; as `oval`."""
    pen.rounded_rectangle(bounds(x, y, rx, ry), radius=min(rx, ry) * 0.6 * CANVAS, fill=grey)


def rays(pen, ellipse, angles, start, grey, width):
    """Lines from the centre of an ellipse (x, y, rx, ry) to its edge.

    They begin at the fraction `start` of the way; `width` is in canvas pixels.
    """
    x, y, rx, ry = ellipse
    for angle in angles:
        ends = [(x + r * rx * np.cos(angle), y + r * ry * np.sin(angle)) for r in (start, 1)]
        pen.line([(CANVAS * a, CANVAS * b) for a, b in ends], fill=grey, width=width)


def direction(scene):
    """The direction of the scene's side in the picture: 1 is right, the patient's left."""
    return 1 if scene.side == "left" else -1


def draw_head(pen, scene, rng):
    """Head, axial or coronal: scalp, skull, brain with furrows, ventricles.

    A coronal one has neck, cerebellum and brain stem too.
    """
    bone, fat, soft, soft2, fluid = GREYS[scene.weighting]
    coronal, wide = scene.plane == "coronal", scene.finding == "hydrocephalus"
    y, ry = (0.41, 0.34) if coronal else (0.5, 0.44)
    if coronal:
        box(pen, 0.5, 0.86, 0.2, 0.2, soft2)
        oval(pen, 0.5, 0.72, 0.30, 0.16, fat)
    layers = [(0.405, -0.025, fat), (0.38, 0, bone), (0.345, 0.035, fluid)]
    layers += [(0.335, 0.045, soft), (0.27, 0.11, soft2)]
    for rx, rim, grey in layers:
        oval(pen, 0.5, y, rx, ry - rim, grey)
    brain = (0.5, y, 0.335, ry - 0.045)
    rays(pen, brain, np.arange(0, 6.2, 0.28) + rng.uniform(0, 0.28), 0.84, fluid, 3)
    rays(pen, brain, (np.pi / 2, -np.pi / 2), 0, fluid, 2)
    if coronal:
        oval(pen, 0.5, 0.71, 0.2, 0.09, soft)
        box(pen, 0.5, 0.88, 0.05, 0.14, soft)
    for s in (-1, 1):
        front, back = ((0.1, 0.15), (0.08, 0.12)) if wide else ((0.028, 0.075), (0.025, 0.06))
        oval(pen, 0.5 + s * (0.095 if wide else 0.04), y - 0.06, *front, fluid)
        oval(pen, 0.5 + s * (0.1 if wide else 0.055), y + 0.09, *back, fluid)


def draw_head_sagittal(pen, scene, rng):
    """Head from the side, face to the left: skull, brain, corpus callosum, cerebellum, spine."""
    bone, fat, soft, soft2, fluid = GREYS[scene.weighting]
    box(pen, 0.56, 0.85, 0.14, 0.2, fat)
    face = [(0.14, 0.42), (0.05, 0.6), (0.12, 0.64), (0.1, 0.72), (0.17, 0.9), (0.36, 0.9)]
    face += [(0.5, 0.78), (0.5, 0.5)]
    pen.polygon([(CANVAS * x, CANVAS * y) for x, y in face], fill=fat)
    layers = [(0.4, 0.43, 0.37, fat), (0.4, 0.405, 0.345, bone)]
    layers += [(0.39, 0.37, 0.31, fluid), (0.385, 0.36, 0.295, soft)]
    for y, rx, ry, grey in layers:
        oval(pen, 0.53, y, rx, ry, grey)
    angles = np.arange(2.98, 6.44, 0.2) + rng.uniform(-0.1, 0.1)
    rays(pen, (0.53, 0.385, 0.36, 0.295), angles, 0.72, fluid, 3)
    pen.arc(bounds(0.53, 0.43, 0.17, 0.12), 180, 360, fill=soft2 + 60, width=9)
    oval(pen, 0.75, 0.66, 0.12, 0.09, soft2)
    box(pen, 0.58, 0.78, 0.045, 0.24, soft)
    for k in range(4):
        box(pen, 0.49, 0.76 + 0.065 * k, 0.035, 0.026, 180)
    oval(pen, 0.26, 0.68, 0.09, 0.06, bone)


def draw_xray(pen, scene, rng):
    """Chest X-ray, PA: shoulders, lungs with vessels and ribs, spine, heart.

    The finding adds fluid in the pleura, free air or a wide heart.
    """
    box(pen, 0.5, 0.62, 0.47, 0.6, 120)
    box(pen, 0.5, 0.06, 0.11, 0.14, 135)
    for s in (-1, 1):
        x = 0.5 + s * 0.215
        collapsed = scene.finding == "pneumothorax" and s == direction(scene)
        oval(pen, x, 0.46, 0.175, 0.36, 0 if collapsed else 45)
        if collapsed:  # no vessels or ribs over the free air, and a dense lung at its root
            oval(pen, x - s * 0.09, 0.56, 0.075, 0.13, 125)
            continue
        rays(pen, (0.5 + s * 0.06, 0.47, s * 0.24, 0.27), rng.uniform(-1.2, 1.2, 9), 0, 75, 2)
        for k in range(7):
            pen.arc(bounds(0.5 + s * 0.15, 0.24 + 0.095 * k, 0.27, 0.1), 200, 340, fill=88, width=5)
    box(pen, 0.5, 0.5, 0.045, 0.5, 190)
    oval(pen, 0.53, 0.64, *((0.29, 0.19) if scene.finding == "cardiomegaly" else (0.11, 0.14)), 185)
    for s in (-1, 1):
        pen.arc(bounds(0.5 + s * 0.22, 0.17, 0.24, 0.07), 190, 350, fill=200, width=8)
        oval(pen, 0.5 + s * 0.215, 0.9, 0.22, 0.11, 150)
    if scene.finding == "effusion":
        pen.chord(bounds(0.5 + direction(scene) * 0.215, 0.5, 0.19, 0.4), 5, 175, fill=235)
    # the marker L at the patient's left
    pen.line([(288, 16), (288, 35), (301, 35)], fill=255, width=4)


def draw_chest_ct(pen, scene, rng):
    """Chest CT, axial: body, two lungs with vessels, ribs, heart, aorta, vertebra."""
    oval(pen, 0.5, 0.5, 0.47, 0.37, 60)
    oval(pen, 0.5, 0.5, 0.44, 0.34, 125)
    for s in (-1, 1):
        oval(pen, 0.5 + s * 0.23, 0.5, 0.165, 0.26, 12)
        rays(pen, (0.5 + s * 0.1, 0.5, s * 0.2, 0.2), rng.uniform(-1.3, 1.3, 8), 0, 60, 2)
        for angle in range(30 - 90 * s, 151 - 90 * s, 30):
            pen.arc(bounds(0.5, 0.5, 0.42, 0.32), angle, angle + 14, fill=255, width=8)
    oval(pen, 0.51, 0.42, 0.11, 0.12, 150)
    oval(pen, 0.53, 0.6, 0.04, 0.04, 165)
    oval(pen, 0.5, 0.72, 0.055, 0.06, 255)


def draw_abdomen(pen, scene, rng):
    """Abdomen, axial or coronal: liver, spleen, kidneys, spine.

    With ascites fluid surrounds the organs; with contrast the bowel is bright.
    """
    bone, fat, soft, soft2, fluid = GREYS[scene.weighting]
    ascites, coronal = scene.finding == "ascites", scene.plane == "coronal"
    shape, ry = (box, 0.49) if coronal else (oval, 0.37)
    for rim, grey in ((0, fat), (0.04, soft - 30), (0.065, fluid if ascites else soft - 10)):
        shape(pen, 0.5, 0.5, 0.47 - rim, ry - rim, grey)
    if coronal:  # liver, spleen, kidneys, hips: distance from the centre, radii, grey
        organs = [
            (-0.2, -0.25, 0.18, 0.16, soft2),
            (0.24, -0.26, 0.11, 0.14, soft2),
            (-0.17, 0.03, 0.06, 0.11, soft2 + 15),
            (0.17, 0.03, 0.06, 0.11, soft2 + 15),
            (-0.22, 0.36, 0.14, 0.08, bone),
            (0.22, 0.36, 0.14, 0.08, bone),
        ]
    else:
        organs = [
            (-0.2, -0.06, 0.19, 0.2, soft2),
            (0.27, 0, 0.1, 0.16, soft2),
            (-0.17, 0.17, 0.065, 0.07, soft2 + 15),
            (0.17, 0.17, 0.065, 0.07, soft2 + 15),
        ]
    squeeze = 0.62 if ascites else 1  # the fluid pushes the organs to the middle
    for dx, dy, rx, ry, grey in organs:
        oval(pen, 0.5 + squeeze * dx, 0.5 + squeeze * dy, squeeze * rx, squeeze * ry, grey)
    if coronal:
        for k in range(8):
            box(pen, 0.5, 0.08 + 0.12 * k, 0.05, 0.047, max(bone, 60))
    else:
        oval(pen, 0.5, 0.7, 0.07, 0.075, max(bone, 60))
        oval(pen, 0.5, 0.71, 0.025, 0.025, fluid)
    for k in range(4 if scene.contrast else 0):
        x = 0.5 + 0.05 * (-1) ** k + rng.uniform(-0.01, 0.01)
        oval(pen, x, 0.28 + 0.09 * k, 0.05, 0.05, 255)


def lesion_places(scene):
    """Centre and radius of each lesion of the scene: a list of (x, y, radius), fractions."""
    x, y, dx, dy = PLACES[scene.organ, scene.plane]
    if scene.count == 1:
        spots = [(1, -1 if scene.half == "upper" else 1, 0.12 if scene.size == "large" else 0.05)]
    else:
        spots = [(1, -1.15, 0.068), (1, 1.15, 0.068), (1.3, 0, 0.068)][: scene.count]
    return [(x + direction(scene) * dx * a, y + dy * b, radius) for a, b, radius in spots]


def draw_lesions(pen, scene, rng):
    """The lesions over everything else: uneven discs, a cystic one with another inside."""
    grey, inside = (252, 0) if scene.tone == "bright" else (0, 252)
    for x, y, radius in lesion_places(scene):
        x, y = (x, y) + rng.uniform(-0.015, 0.015, 2)
        rx, ry = radius * rng.uniform(0.92, 1.08, 2)
        oval(pen, x, y, rx, ry, grey)
        if scene.cystic:
            oval(pen, x, y, rx * 0.62, ry * 0.62, inside)


def blur(image, scene):
    """The picture a little out of focus, an X-ray more than the others."""
    return image.filter(ImageFilter.GaussianBlur(2.2 if scene.modality == "X-ray" else 1.2))


def draw_picture(scene, seed=0):
    """The picture of a Scene: a grey or RGB PIL image of 220 to 605 pixels a side.

    The same seed gives the same picture.
    """
    rng = np.random.default_rng([seed, 1, scene.number])
    image = Image.new("L", (CANVAS, CANVAS), 0)
    pen = ImageDraw.Draw(image)
    by_plane = {"PA": draw_xray, "sagittal": draw_head_sagittal}
    by_organ = {"HEAD": draw_head, "CHEST": draw_chest_ct, "ABD": draw_abdomen}
    by_plane.get(scene.plane, by_organ[scene.organ])(pen, scene, rng)
    draw_lesions(pen, scene, rng)
    image = tilt(blur(image, scene), rng)
    width = int(rng.integers(240, 561))
    size = width, int(width * rng.uniform(0.92, 1.08))
    image = develop(image.resize(size, Image.Resampling.BILINEAR), rng)
    return image.convert("RGB") if rng.random() < 0.35 else image


def tilt(image, rng, resample=Image.Resampling.BILINEAR):
    """Rotate up to 4 degrees and zoom a little about the centre."""
    angle, zoom, half = np.deg2rad(rng.uniform(-4, 4)), rng.uniform(0.97, 1.06), CANVAS / 2
    a, b = zoom * np.cos(angle), zoom * np.sin(angle)
    matrix = (a, b, half - a * half - b * half, -b, a, half + b * half - a * half)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample)


def develop(image, rng):
    """Cloudy texture, contrast, brightness and noise."""
    cloud = Image.fromarray(rng.random((24, 24), dtype=np.float32))
    cloud = np.asarray(cloud.resize(image.size, Image.Resampling.BICUBIC))
    pixels = np.asarray(image, dtype=np.float32) / 255 * (0.88 + 0.24 * cloud)  # (H, W)
    contrast, brightness = rng.uniform(0.85, 1.15), rng.uniform(0.9, 1.0)
    pixels = np.clip(pixels, 0, 1) ** contrast * brightness + rng.uniform(0, 0.03)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    pixels += noise * np.float32(rng.uniform(0.01, 0.035))
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
