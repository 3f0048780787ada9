"""Draws the embedded default data set: radiology-like pictures and questions in the form of the public VQA-RAD release.

Nothing here comes from a patient. It exists so that the whole program runs without data and without a network, and so that a model
that looks at the pictures beats one that only reads the questions: every wording has each of its answers equally often.
Left and right are the patient's, as a radiologist reads a picture: the patient's left is at the right edge.
"""

import argparse
import contextlib
import itertools
import os
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from utils import UserError, run_main, write_json

JSON_NAME = "VQA_RAD Dataset Public.json"
MARK = "Drawings, not radiology: made by phantom_RAD.py\n"
IMAGE_FOLDER = "VQA_RAD Image Folder"
CANVAS = 320  # pixels; drawn at this size, then resized
TEST_SHARE = 0.2  # of the images; a test image never occurs in training
FEWEST_IMAGES = 60  # with fewer, some question types are missing from the test part
RECORDS_PER_WEIGHT = 0.097  # records per image that a template of weight 1 asks for

HEAD = ["normal", "lesion", "lesion", "hydrocephalus", "lesion"]
XRAY = ["normal", "lesion", "effusion", "lesion", "pneumothorax", "lesion", "cardiomegaly"]
ABDOMEN = ["normal", "lesion", "lesion", "ascites", "lesion"]
PLAIN = ["normal", "lesion", "lesion"]

# organ, modality, weighting, plane, findings, how many of 20 images
KINDS = [
    ("HEAD", "CT", None, "axial", HEAD, 2),
    ("HEAD", "MRI", "T1", "axial", HEAD, 1),
    ("HEAD", "MRI", "T2", "axial", HEAD, 2),
    ("HEAD", "MRI", "T1", "sagittal", PLAIN, 1),
    ("HEAD", "MRI", "T2", "sagittal", PLAIN, 1),
    ("HEAD", "MRI", "T1", "coronal", HEAD, 1),
    ("CHEST", "X-ray", None, "PA", XRAY, 5),
    ("CHEST", "CT", None, "axial", PLAIN, 1),
    ("ABD", "CT", None, "axial", ABDOMEN, 2),
    ("ABD", "MRI", "T2", "axial", ABDOMEN, 1),
    ("ABD", "MRI", "T1", "axial", ABDOMEN, 1),
    ("ABD", "CT", None, "coronal", ABDOMEN, 1),
    ("ABD", "MRI", "T1", "coronal", ABDOMEN, 1),
]

# where lesions lie: the organ's centre, and the distance from it across and down (fractions of the picture)
PLACES = {
    ("HEAD", "axial"): (0.5, 0.5, 0.18, 0.20),
    ("HEAD", "coronal"): (0.5, 0.41, 0.18, 0.16),
    ("HEAD", "sagittal"): (0.53, 0.39, 0.19, 0.14),
    ("CHEST", "PA"): (0.5, 0.46, 0.22, 0.17),
    ("CHEST", "axial"): (0.5, 0.5, 0.23, 0.13),
    ("ABD", "axial"): (0.5, 0.5, 0.23, 0.14),
    ("ABD", "coronal"): (0.5, 0.47, 0.2, 0.2),
}

# greys (0..255) by look: bone, fat, soft tissue, a second soft tissue, fluid
GREYS = {None: (255, 60, 120, 140, 35), "T1": (25, 235, 130, 165, 15), "T2": (15, 150, 85, 65, 240)}


@dataclass
class Scene:
    """What one picture shows."""

    number: int  # from 1, position in the data set; seeds the drawing
    test: bool
    organ: str  # HEAD, CHEST, ABD
    modality: str  # CT, MRI, X-ray
    weighting: str  # T1, T2; None unless MRI
    plane: str  # axial, coronal, sagittal, PA
    finding: str  # normal, lesion, hydrocephalus, effusion, pneumothorax, cardiomegaly, ascites
    side: str  # left, right (the patient's); None when the finding has no side
    count: int  # of lesions; 0 for any other finding. All lie on one side
    half: str  # upper, lower; None unless one lesion
    size: str  # large, small; None unless one lesion
    cystic: bool  # a rim with an inside of the opposite tone; only large lesions
    tone: str  # bright, dark; None without a lesion
    contrast: bool  # bowel filled with contrast medium

    @property
    def name(self):
        """The picture's file name."""
        return f"phantom{self.number:04d}.jpg"

    @property
    def laterality(self):
        """The side that can be asked for: None in a picture taken from the side."""
        return None if self.plane == "sagittal" else self.side

    @property
    def ventricles(self):
        """Colour of the ventricles, None where they aren't in the picture."""
        return (
            None
            if self.organ != "HEAD" or self.plane == "sagittal"
            else "white"
            if self.weighting == "T2"
            else "black"
        )


def scenes(seed=0, images=320):
    """What the pictures show: a list of `images` Scenes. Raises UserError for a seed or a number that can't be used."""
    if seed < 0 or images < FEWEST_IMAGES:
        raise UserError(
            f"the phantom needs --seed 0 or more and --images {FEWEST_IMAGES} or more; got --seed {seed} --images {images}"
        )
    rng = np.random.default_rng([seed, 0])
    tests = round(images * TEST_SHARE)
    split = rng.permutation([True] * tests + [False] * (images - tests)).tolist()
    decks = {True: {}, False: {}}
    return [make_scene(number, test, decks[test], rng) for number, test in enumerate(split, 1)]


def deal(decks, name, values, rng):
    """The next card of the shuffled deck `name`, a new deck of `values` when it is used up: so each value comes equally often."""
    if not decks.get(name):
        decks[name] = [values[i] for i in rng.permutation(len(values))]
    return decks[name].pop()


def make_scene(number, test, decks, rng):
    """Draw the lots for one picture."""
    organ, modality, weighting, plane, findings, _ = deal(
        decks, "kind", [kind for kind in KINDS for _ in range(kind[-1])], rng
    )
    finding = deal(decks, tuple(findings), findings, rng)
    side = (
        deal(decks, f"side {finding}", ["left", "right"], rng)
        if finding in ("lesion", "effusion", "pneumothorax")
        else None
    )
    count, half, size, cystic, tone = 0, None, None, False, None
    if finding == "lesion":
        count = deal(decks, "count", [1, 1, 1, 2, 3], rng)
        tone = (
            deal(decks, "tone", ["bright", "dark"], rng) if organ != "CHEST" else "bright"
        )  # lungs are dark: a dark one is invisible
    if count == 1:
        half = deal(decks, "half", ["upper", "lower"], rng)
        size, cystic = deal(
            decks,
            "size",
            [("large", True), ("large", False), ("small", False), ("small", False)],
            rng,
        )
    contrast = organ == "ABD" and deal(decks, "contrast", [True, False], rng)
    return Scene(
        number,
        test,
        organ,
        modality,
        weighting,
        plane,
        finding,
        side,
        count,
        half,
        size,
        cystic,
        tone,
        contrast,
    )


def bounds(x, y, rx, ry):
    """Corners in canvas pixels of the box with this centre and these half sides (fractions of the picture)."""
    return [(x - rx) * CANVAS, (y - ry) * CANVAS, (x + rx) * CANVAS, (y + ry) * CANVAS]


def oval(pen, x, y, rx, ry, grey):
    """A filled ellipse; the numbers of `bounds`, and a grey 0..255."""
    pen.ellipse(bounds(x, y, rx, ry), fill=grey)


def box(pen, x, y, rx, ry, grey):
    """A filled rounded rectangle."""
    pen.rounded_rectangle(bounds(x, y, rx, ry), radius=min(rx, ry) * 0.6 * CANVAS, fill=grey)


def rays(pen, x, y, rx, ry, angles, start, grey, width):
    """Lines from the centre of an ellipse to its edge, beginning at the fraction `start`; `width` in canvas pixels."""
    for angle in angles:
        ends = [(x + r * rx * np.cos(angle), y + r * ry * np.sin(angle)) for r in (start, 1)]
        pen.line([(CANVAS * a, CANVAS * b) for a, b in ends], fill=grey, width=width)


def direction(scene):
    """Where the scene's side lies in the picture: 1 is right. The patient's left is at the right edge."""
    return 1 if scene.side == "left" else -1


def draw_head(pen, scene, rng):
    """Head, axial or coronal: scalp, skull, brain with furrows, ventricles; coronal also neck, cerebellum and brain stem."""
    bone, fat, soft, soft2, fluid = GREYS[scene.weighting]
    coronal, wide = scene.plane == "coronal", scene.finding == "hydrocephalus"
    y, ry = (0.41, 0.34) if coronal else (0.5, 0.44)
    if coronal:
        box(pen, 0.5, 0.86, 0.2, 0.2, soft2)
        oval(pen, 0.5, 0.72, 0.30, 0.16, fat)
    for rx, rim, grey in (
        (0.405, -0.025, fat),
        (0.38, 0, bone),
        (0.345, 0.035, fluid),
        (0.335, 0.045, soft),
        (0.27, 0.11, soft2),
    ):
        oval(pen, 0.5, y, rx, ry - rim, grey)
    rays(
        pen,
        0.5,
        y,
        0.335,
        ry - 0.045,
        np.arange(0, 6.2, 0.28) + rng.uniform(0, 0.28),
        0.84,
        fluid,
        3,
    )
    rays(pen, 0.5, y, 0.335, ry - 0.045, (np.pi / 2, -np.pi / 2), 0, fluid, 2)
    if coronal:
        oval(pen, 0.5, 0.71, 0.2, 0.09, soft)
        box(pen, 0.5, 0.88, 0.05, 0.14, soft)
    for s in (-1, 1):
        oval(
            pen,
            0.5 + s * (0.095 if wide else 0.04),
            y - 0.06,
            *((0.1, 0.15) if wide else (0.028, 0.075)),
            fluid,
        )
        oval(
            pen,
            0.5 + s * (0.1 if wide else 0.055),
            y + 0.09,
            *((0.08, 0.12) if wide else (0.025, 0.06)),
            fluid,
        )


def draw_head_sagittal(pen, scene, rng):
    """Head from the side, face to the left: skull, brain, corpus callosum, cerebellum, brain stem, spine, nose and jaw."""
    bone, fat, soft, soft2, fluid = GREYS[scene.weighting]
    box(pen, 0.56, 0.85, 0.14, 0.2, fat)
    face = (
        (0.14, 0.42),
        (0.05, 0.6),
        (0.12, 0.64),
        (0.1, 0.72),
        (0.17, 0.9),
        (0.36, 0.9),
        (0.5, 0.78),
        (0.5, 0.5),
    )
    pen.polygon([(CANVAS * x, CANVAS * y) for x, y in face], fill=fat)
    for y, rx, ry, grey in (
        (0.4, 0.43, 0.37, fat),
        (0.4, 0.405, 0.345, bone),
        (0.39, 0.37, 0.31, fluid),
        (0.385, 0.36, 0.295, soft),
    ):
        oval(pen, 0.53, y, rx, ry, grey)
    rays(
        pen,
        0.53,
        0.385,
        0.36,
        0.295,
        np.arange(2.98, 6.44, 0.2) + rng.uniform(-0.1, 0.1),
        0.72,
        fluid,
        3,
    )
    pen.arc(bounds(0.53, 0.43, 0.17, 0.12), 180, 360, fill=soft2 + 60, width=9)
    oval(pen, 0.75, 0.66, 0.12, 0.09, soft2)
    box(pen, 0.58, 0.78, 0.045, 0.24, soft)
    for k in range(4):
        box(pen, 0.49, 0.76 + 0.065 * k, 0.035, 0.026, 180)
    oval(pen, 0.26, 0.68, 0.09, 0.06, bone)


def draw_xray(pen, scene, rng):
    """Chest X-ray, PA: shoulders, lungs with vessels and ribs, spine, heart; pleural fluid, free air or a wide heart by the finding."""
    box(pen, 0.5, 0.62, 0.47, 0.6, 120)
    box(pen, 0.5, 0.06, 0.11, 0.14, 135)
    for s in (-1, 1):
        x = 0.5 + s * 0.215
        collapsed = scene.finding == "pneumothorax" and s == direction(scene)
        oval(pen, x, 0.46, 0.175, 0.36, 0 if collapsed else 45)
        if collapsed:  # no vessels or ribs over the free air, and a dense lung at its root
            oval(pen, x - s * 0.09, 0.56, 0.075, 0.13, 125)
            continue
        rays(pen, 0.5 + s * 0.06, 0.47, s * 0.24, 0.27, rng.uniform(-1.2, 1.2, 9), 0, 75, 2)
        for k in range(7):
            pen.arc(bounds(0.5 + s * 0.15, 0.24 + 0.095 * k, 0.27, 0.1), 200, 340, fill=88, width=5)
    box(pen, 0.5, 0.5, 0.045, 0.5, 190)
    oval(pen, 0.53, 0.64, *((0.29, 0.19) if scene.finding == "cardiomegaly" else (0.11, 0.14)), 185)
    for s in (-1, 1):
        pen.arc(bounds(0.5 + s * 0.22, 0.17, 0.24, 0.07), 190, 350, fill=200, width=8)
        oval(pen, 0.5 + s * 0.215, 0.9, 0.22, 0.11, 150)
    if scene.finding == "effusion":
        pen.chord(bounds(0.5 + direction(scene) * 0.215, 0.5, 0.19, 0.4), 5, 175, fill=235)
    pen.line(
        [(288, 16), (288, 35), (301, 35)], fill=255, width=4
    )  # the marker L at the patient's left


def draw_chest_ct(pen, scene, rng):
    """Chest CT, axial: body, two lungs with vessels, ribs, heart, aorta, vertebra."""
    oval(pen, 0.5, 0.5, 0.47, 0.37, 60)
    oval(pen, 0.5, 0.5, 0.44, 0.34, 125)
    for s in (-1, 1):
        oval(pen, 0.5 + s * 0.23, 0.5, 0.165, 0.26, 12)
        rays(pen, 0.5 + s * 0.1, 0.5, s * 0.2, 0.2, rng.uniform(-1.3, 1.3, 8), 0, 60, 2)
        for angle in range(30 - 90 * s, 151 - 90 * s, 30):
            pen.arc(bounds(0.5, 0.5, 0.42, 0.32), angle, angle + 14, fill=255, width=8)
    oval(pen, 0.51, 0.42, 0.11, 0.12, 150)
    oval(pen, 0.53, 0.6, 0.04, 0.04, 165)
    oval(pen, 0.5, 0.72, 0.055, 0.06, 255)


def draw_abdomen(pen, scene, rng):
    """Abdomen, axial or coronal: liver, spleen, kidneys, spine; fluid around the organs for ascites; bowel bright with contrast."""
    bone, fat, soft, soft2, fluid = GREYS[scene.weighting]
    ascites, coronal = scene.finding == "ascites", scene.plane == "coronal"
    shape, ry = (box, 0.49) if coronal else (oval, 0.37)
    for rim, grey in ((0, fat), (0.04, soft - 30), (0.065, fluid if ascites else soft - 10)):
        shape(pen, 0.5, 0.5, 0.47 - rim, ry - rim, grey)
    if coronal:  # liver, spleen, kidneys, hips: place from the centre, radii, grey
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
        oval(
            pen, 0.5 + 0.05 * (-1) ** k + rng.uniform(-0.01, 0.01), 0.28 + 0.09 * k, 0.05, 0.05, 255
        )


def lesion_places(scene):
    """Centre and radius of each of the scene's lesions: a list of (x, y, radius), fractions of the picture."""
    x, y, dx, dy = PLACES[scene.organ, scene.plane]
    if scene.count == 1:
        spots = [(1, -1 if scene.half == "upper" else 1, 0.12 if scene.size == "large" else 0.05)]
    else:
        spots = [(1, -1.15, 0.068), (1, 1.15, 0.068), (1.3, 0, 0.068)][: scene.count]
    return [(x + direction(scene) * dx * a, y + dy * b, radius) for a, b, radius in spots]


def draw_lesions(pen, scene, rng):
    """The lesions over everything else: uneven discs, cystic ones with an inside of the opposite tone."""
    grey, inside = (252, 0) if scene.tone == "bright" else (0, 252)
    for x, y, radius in lesion_places(scene):
        x, y = (x, y) + rng.uniform(-0.015, 0.015, 2)
        rx, ry = radius * rng.uniform(0.92, 1.08, 2)
        oval(pen, x, y, rx, ry, grey)
        if scene.cystic:
            oval(pen, x, y, rx * 0.62, ry * 0.62, inside)


def draw_picture(scene, seed=0):
    """The picture of a Scene: a grey or RGB PIL image of 220 to 605 pixels a side, the same for the same seed."""
    rng = np.random.default_rng([seed, 1, scene.number])
    image = Image.new("L", (CANVAS, CANVAS), 0)
    pen = ImageDraw.Draw(image)
    by_plane = {"PA": draw_xray, "sagittal": draw_head_sagittal}
    by_organ = {"HEAD": draw_head, "CHEST": draw_chest_ct, "ABD": draw_abdomen}
    by_plane.get(scene.plane, by_organ[scene.organ])(pen, scene, rng)
    draw_lesions(pen, scene, rng)
    image = tilt(
        image.filter(ImageFilter.GaussianBlur(2.2 if scene.modality == "X-ray" else 1.2)), rng
    )
    width = int(rng.integers(240, 561))
    image = develop(
        image.resize((width, int(width * rng.uniform(0.92, 1.08))), Image.Resampling.BILINEAR), rng
    )
    return image.convert("RGB") if rng.random() < 0.35 else image


def tilt(image, rng, resample=Image.Resampling.BILINEAR):
    """Rotate up to 4 degrees and zoom a little about the centre."""
    angle, zoom, half = np.deg2rad(rng.uniform(-4, 4)), rng.uniform(0.97, 1.06), CANVAS / 2
    a, b = zoom * np.cos(angle), zoom * np.sin(angle)
    matrix = (a, b, half - a * half - b * half, -b, a, half + b * half - a * half)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample)


def develop(image, rng):
    """Cloudy texture, contrast, brightness and noise."""
    cloud = Image.fromarray(rng.random((24, 24), dtype=np.float32)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    pixels = np.asarray(image, dtype=np.float32) / 255 * (0.88 + 0.24 * np.asarray(cloud))
    pixels = np.clip(pixels, 0, 1) ** rng.uniform(0.85, 1.15) * rng.uniform(0.9, 1.0) + rng.uniform(
        0, 0.03
    )
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(
        rng.uniform(0.01, 0.035)
    )
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def yes(truth, when=True):
    """ "Yes" or "No", or None when the question can't be asked."""
    return None if not when else "Yes" if truth else "No"


NAMES = {
    "lesion": "mass",
    "hydrocephalus": "hydrocephalus",
    "effusion": "pleural effusion",
    "pneumothorax": "pneumothorax",
    "cardiomegaly": "cardiomegaly",
    "ascites": "ascites",
}
DIAGNOSES = {
    "normal": "healthy",
    "hydrocephalus": "raised pressure",
    "effusion": "pleurisy",
    "pneumothorax": "collapsed lung",
    "cardiomegaly": "heart failure",
    "ascites": "cirrhosis",
}  # of lesions: one is a tumor, several are metastases
ORGANS = {"HEAD": "brain", "CHEST": "chest", "ABD": "abdomen"}

# question type, answer type, weight, scene -> answer (None: can't be asked), wordings, frame text
TEMPLATES = [
    (
        "PRES",
        "CLOSED",
        3,
        lambda s: yes(s.count),
        ["Is there a mass?", "Is a mass present?", "Does the image show a mass?"],
        "Is/Are there a mass in the image?",
    ),
    *[
        (
            "PRES",
            "CLOSED",
            1,
            lambda s, name=name: yes(NAMES.get(s.finding) == name, s.plane == "PA"),
            [f"Is there a {name}?", f"Is a {name} present?"],
            f"Is/Are there a {name}?",
        )
        for name in ("pleural effusion", "pneumothorax")
    ],
    (
        "POS",
        "CLOSED",
        3,
        lambda s: s.laterality if s.count else None,
        ["Is the lesion on the left or right side?", "Is the lesion left or right sided?"],
        "Is/Are the lesion on the left or right?",
    ),
    (
        "POS",
        "CLOSED",
        2,
        lambda s: yes(s.laterality == "left", s.laterality and s.count),
        ["Is the lesion on the patient's left?", "Is the lesion left sided?"],
        "Is/Are the lesion on the left?",
    ),
    (
        "POS",
        "OPEN",
        2,
        lambda s: s.laterality,
        ["Which side is abnormal?", "On which side is the abnormality?"],
        "Which side is the abnormality on?",
    ),
    (
        "POS",
        "OPEN",
        3,
        lambda s: f"{s.half} {s.laterality}" if s.half and s.laterality else None,
        [
            "Where is the lesion?",
            "Where is the lesion located?",
            "In which quadrant is the lesion?",
        ],
        "Where is/are the lesion?",
    ),
    (
        "POS",
        "CLOSED",
        2,
        lambda s: s.half,
        ["Is the lesion in the upper or lower half?", "Is the lesion upper or lower?"],
        "Is/Are the lesion in the upper or lower half?",
    ),
    (
        "ABN",
        "CLOSED",
        3,
        lambda s: yes(s.finding == "normal"),
        ["Is this image normal?", "Is this a normal image?"],
        "Is/Are the image normal?",
    ),
    (
        "ABN",
        "CLOSED",
        2,
        lambda s: yes(s.finding != "normal"),
        ["Is there an abnormality?", "Is anything abnormal in this image?"],
        "Is/Are there an abnormality?",
    ),
    (
        "ABN",
        "OPEN",
        3,
        lambda s: NAMES.get(s.finding),
        ["What is the abnormality?", "What abnormality is shown?"],
        "What is/are the abnormality?",
    ),
    (
        "SIZE",
        "CLOSED",
        3,
        lambda s: s.size,
        ["Is the lesion large or small?", "Is this a large or small lesion?"],
        "Is/Are the lesion large or small?",
    ),
    (
        "SIZE",
        "CLOSED",
        1,
        lambda s: yes(s.finding == "cardiomegaly", s.plane == "PA"),
        ["Is the heart enlarged?", "Is the heart too wide?"],
        "Is/Are the heart enlarged?",
    ),
    (
        "SIZE",
        "CLOSED",
        1,
        lambda s: yes(s.finding == "hydrocephalus", s.organ == "HEAD" and s.plane != "sagittal"),
        ["Are the ventricles enlarged?", "Are the ventricles too wide?"],
        "Is/Are the ventricles enlarged?",
    ),
    (
        "SIZE",
        "OPEN",
        2,
        lambda s: s.size,
        ["How big is the lesion?", "What is the size of the lesion?"],
        "How big is/are the lesion?",
    ),
    (
        "ATTRIB",
        "CLOSED",
        2,
        lambda s: ("cystic" if s.cystic else "solid") if s.size == "large" else None,
        ["Is the lesion solid or cystic?", "Is this a solid or cystic lesion?"],
        "Is/Are the lesion solid or cystic?",
    ),
    (
        "ATTRIB",
        "CLOSED",
        2,
        lambda s: yes(
            s.side is None, s.plane != "sagittal" and s.organ != "ABD"
        ),  # liver and spleen never are
        ["Are both sides symmetric?", "Is the image symmetric?"],
        "Is/Are the two sides symmetric?",
    ),
    (
        "OTHER",
        "CLOSED",
        3,
        lambda s: yes(s.contrast, s.organ == "ABD"),
        ["Was contrast given?", "Was oral contrast given to the patient?"],
        "Is/Are there contrast in the bowel?",
    ),
    (
        "OTHER",
        "OPEN",
        4,
        lambda s: DIAGNOSES.get(s.finding) or ("tumor" if s.count == 1 else "metastases"),
        ["What is the diagnosis?", "What is the most likely diagnosis?"],
        "What is/are the diagnosis?",
    ),
    (
        "MODALITY",
        "OPEN",
        4,
        lambda s: s.modality,
        ["What imaging modality was used?", "How was this image taken?", "What modality is this?"],
        "What is the modality?",
    ),
    *[
        (
            "MODALITY",
            "CLOSED",
            2,
            lambda s, name=name: yes(s.modality == name),
            [f"Is this {a} {name}?", f"Was {a} {name} taken?"],
            f"Is/Are the image {a} {name}?",
        )
        for a, name in (("a", "CT"), ("an", "MRI"))
    ],
    (
        "MODALITY",
        "CLOSED",
        3,
        lambda s: s.weighting,
        ["Is this T1 or T2 weighted?", "Is this a T1 or T2 image?"],
        "Is/Are the image T1 or T2 weighted?",
    ),
    (
        "PLANE",
        "OPEN",
        4,
        lambda s: s.plane,
        ["What plane is this?", "In what plane is this image?"],
        "What is the plane?",
    ),
    *[
        (
            "PLANE",
            "CLOSED",
            2,
            lambda s, name=name: yes(s.plane == name, s.plane != "PA"),
            [f"Is this {a} {name} image?", f"Is the plane {name}?"],
            f"Is/Are the image {name}?",
        )
        for a, name in (("an", "axial"), ("a", "coronal"))
    ],
    (
        "COLOR",
        "CLOSED",
        3,
        lambda s: s.tone if s.organ != "CHEST" else None,
        ["Is the lesion bright or dark?", "Is this a bright or dark lesion?"],
        "Is/Are the lesion bright or dark?",
    ),
    (
        "COLOR",
        "OPEN",
        2,
        lambda s: s.ventricles,
        ["What color are the ventricles?", "What is the color of the ventricles?"],
        "What color is/are the ventricles?",
    ),
    (
        "ORGAN",
        "OPEN",
        3,
        lambda s: ORGANS[s.organ],
        ["What organ is shown?", "What part of the body is shown?"],
        "What organ is/are shown?",
    ),
    *[
        (
            "ORGAN",
            "CLOSED",
            1,
            lambda s, organ=organ: yes(s.organ == organ),
            [f"Is this the {word}?", f"Is the {word} shown?"],
            f"Is/Are the {word} shown?",
        )
        for organ, word in ORGANS.items()
    ],
    (
        "COUNT",
        "OPEN",
        4,
        lambda s: s.count or None,
        ["How many lesions are there?", "How many lesions are shown?"],
        "How many lesions is/are there?",
    ),
    (
        "COUNT",
        "CLOSED",
        2,
        lambda s: yes(s.count > 1, s.count),
        ["Is there more than one lesion?", "Are there multiple lesions?"],
        "Is/Are there more than one lesion?",
    ),
]


def records(pictures, seed=0):
    """The release's records for a list of Scenes: a list of dicts with its 14 fields. A para directly follows its freeform.

    Only training records have a frame text: a reworded test question in training would be a leak.
    """
    rng = np.random.default_rng([seed, 2])
    asked = dict.fromkeys((scene.number for scene in pictures), 0)
    groups = []
    for template in TEMPLATES:
        known, wordings = ask(
            groups, template, [s for s in pictures if not s.test], None, template[4], asked, rng
        )
        ask(groups, template, [s for s in pictures if s.test], known, wordings, asked, rng)
    flat = itertools.chain.from_iterable(groups[i] for i in rng.permutation(len(groups)))
    return [{"qid": qid, **record} for qid, record in enumerate(flat)]


def ask(groups, template, pictures, known, wordings, asked, rng):
    """Add one template's records of one split to `groups`, each wording with each of its answers equally often.

    Only `known` answers, unless None. Counts the questions of each picture in `asked`. Returns the answers and wordings used.
    """
    by_answer = {}
    for scene in pictures:
        answer = template[3](scene)
        if answer is not None and (known is None or answer in known):
            by_answer.setdefault(answer, []).append(scene)
    if len(by_answer) < 2:
        return [], []  # a single possible answer would give itself away
    quota = (
        template[2] * RECORDS_PER_WEIGHT * len(pictures) / 1.5 / len(by_answer)
    )  # 1.5: every second question has a para
    each = min(max(round(quota), len(wordings)), *map(len, by_answer.values()))
    wordings = wordings[:each]
    for answer, group in by_answer.items():
        rng.shuffle(group)
        chosen = sorted(group, key=lambda scene: asked[scene.number])[
            :each
        ]  # the least asked about first
        for turn, scene in enumerate(chosen):
            texts = [
                wordings[(turn + i) % len(wordings)]
                for i in range(2 if turn % 2 == 0 and len(wordings) > 1 else 1)
            ]
            asked[scene.number] += len(texts)
            groups.append(make_records(template, scene, answer, texts, turn % 4 == 0, rng))
    return list(by_answer), wordings


def make_records(template, scene, answer, texts, framed, rng):
    """A freeform record and, with a second text, its para: a list of dicts without qid. `framed`: with a frame text, if in training."""
    kind, answer_type, _, _, _, frame = template
    paired = len(texts) == 2
    shared = {
        "qid_linked_id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
        "image_case_url": f"https://phantom.invalid/case?id={scene.name[:-4]}",
        "image_name": scene.name,
        "image_organ": scene.organ,
        "evaluation": "evaluated" if paired else "not evaluated",
    }
    tail = {
        "question_relation": "strict agreement" if paired else "NULL",
        "question_frame": "NULL",
        "question_type": kind,
        "answer": answer,
        "answer_type": answer_type,
    }
    phrases = ["test_freeform", "test_para"] if scene.test else ["freeform", "para"]
    made = [
        {
            "phrase_type": phrase,
            **shared,
            "question": text,
            "question_rephrase": texts[1 - i] if paired else "NULL",
            **tail,
        }
        for i, (phrase, text) in enumerate(zip(phrases, texts))
    ]
    if framed and not scene.test:
        made[0]["question_frame"] = frame
    return made


@contextlib.contextmanager
def whole_folder(folder):
    """Give a new folder to fill; when the block ends well it is renamed to `folder`, which must not exist or be empty.

    It lies in a temporary folder beside it, which goes when the block raises: nothing half-written is ever left.
    Raises UserError when `folder` isn't empty or can't be written.
    """
    folder = Path(folder).resolve()
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder} exists and isn't empty; name another folder (--output) or remove it"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent
        ) as temporary:
            whole = Path(temporary) / "whole"
            whole.mkdir()
            yield whole
            os.replace(whole, folder)
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error.strerror or error}); name another folder (--output)"
        ) from error


def draw(folder, seed=0, images=320):
    """Write the data set into `folder`, which must not exist or be empty: the JSON file and the folder of JPEG pictures.

    All or nothing, see whole_folder. The same seed gives the same bytes.
    Raises UserError when the folder isn't empty or can't be written, or when the numbers can't be used.
    """
    pictures = scenes(seed, images)
    with whole_folder(folder) as whole:
        (whole / IMAGE_FOLDER).mkdir()
        for scene in pictures:
            draw_picture(scene, seed).save(whole / IMAGE_FOLDER / scene.name, quality=90)
        write_json(whole / JSON_NAME, records(pictures, seed))
        (whole / "PHANTOM.txt").write_text(MARK)  # how dataset_RAD.py knows drawings


def main():
    """Command line: draw the set and say what was written."""
    parser = argparse.ArgumentParser(
        description="Draw the embedded default data set (not patient data) in VQA-RAD's form."
    )
    parser.add_argument(
        "--output",
        default=Path(__file__).resolve().parent / "data_RAD" / "phantom",
        help="folder to make (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=320)
    args = parser.parse_args()
    draw(args.output, args.seed, args.images)
    print(f"drew {args.images} images and their questions into {args.output}")


if __name__ == "__main__":
    run_main(main)
