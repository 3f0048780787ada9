"""Draws three small organ sets for the multi-task pre-training: abdomen (segmentation), brain and chest (classification).

Nothing here comes from a patient. It exists so that pre-training runs without data and without a network. The shapes, greys and
textures are those of phantom_RAD.py. Left and right are the patient's: the spleen and the left kidney are at the picture's right.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from phantom_RAD import (
    CANVAS,
    Scene,
    deal,
    develop,
    draw_abdomen,
    draw_head,
    draw_lesions,
    draw_xray,
    tilt,
    whole_folder,
)
from utils import UserError, run_main

MARK = "Drawings, not radiology: made by phantom_MTPT.py\n"
CLASSES = [
    "background",
    "liver",
    "spleen",
    "left kidney",
    "right kidney",
    "spine",
]  # of the abdomen; the position is the mask's value
FEWEST_IMAGES = 15  # with fewer, a class is missing from the validation part

# organ set: phantom_RAD's organ and plane, modality and weighting, findings (in the sets for classification each is a class)
SETS = {
    "abdomen": (
        "ABD",
        "axial",
        [("CT", None), ("MRI", "T1"), ("MRI", "T2")],
        ["normal", "normal", "ascites"],
    ),
    "brain": (
        "HEAD",
        "axial",
        [("CT", None), ("MRI", "T1"), ("MRI", "T2")],
        ["normal", "lesion", "hydrocephalus"],
    ),
    "chest": ("CHEST", "PA", [("X-ray", None)], ["NORMAL", "EFFUSION"]),
}

# what draw_abdomen draws, in its order: the body's three layers, the organs, the spinal canal; whatever follows is bowel
SHAPES = ["background"] * 3 + ["liver", "spleen", "right kidney", "left kidney", "spine", "spine"]

# added to draw_abdomen's greys, by look: there the organs are alike and, in T2, hardly differ from what is around them
SHADES = {
    None: {"spleen": 12, "left kidney": 30, "right kidney": 30},
    "T1": {"liver": 15, "spleen": -20},
    "T2": {"liver": -20, "spleen": 45, "left kidney": 90, "right kidney": 90, "spine": -30},
}


class OrganPen:
    """Stands in for the ImageDraw pen of draw_abdomen (axial): draws each shape into the picture and its value into the mask.

    Place, size and grey of each organ vary a little. A shape drawn over an organ takes its pixels in the mask too.
    """

    def __init__(self, image, mask, weighting, rng):
        self.pens = ImageDraw.Draw(image), ImageDraw.Draw(mask)
        self.shapes = iter(SHAPES)
        self.shifts = {name: rng.uniform(-0.015, 0.015, 2) * CANVAS for name in CLASSES[1:]}
        self.scales = {
            name: rng.uniform(0.85, 1.08, 2) for name in CLASSES[1:]
        }  # a larger liver would leave the body
        self.shades = {
            name: rng.uniform(-6, 6) + SHADES[weighting].get(name, 0) for name in CLASSES[1:]
        }

    def ellipse(self, corners, fill):
        """As ImageDraw's: corners (left, top, right, bottom) in canvas pixels, grey 0..255."""
        name = next(self.shapes, "background")
        corners = np.reshape(corners, (2, 2))
        centre, half = corners.mean(0), (corners[1] - corners[0]) / 2
        if name != "background":
            centre, half = centre + self.shifts[name], half * self.scales[name]
            fill = int(np.clip(fill + self.shades[name], 0, 255))
        for pen, value in zip(self.pens, (fill, CLASSES.index(name))):
            pen.ellipse([*(centre - half), *(centre + half)], fill=value)


def organ_scenes(organ_set, seed, images):
    """What the pictures of one set show: a list of (class, Scene), `images` for training and then a fifth as many for validation.

    The classes take turns; within a class each look and each side comes equally often.
    """
    findings = SETS[organ_set][-1]
    rng = np.random.default_rng([seed, 2, list(SETS).index(organ_set)])
    made = []
    for val, start, count in ((False, 0, images), (True, images, images // 5)):
        decks = {finding: {} for finding in findings}
        for i in range(count):
            finding = findings[i % len(findings)]
            made.append(
                (finding, make_scene(organ_set, finding, start + i + 1, val, decks[finding], rng))
            )
    return made


def make_scene(organ_set, finding, number, val, decks, rng):
    """Draw the lots for one picture."""
    organ, plane, looks, _ = SETS[organ_set]
    modality, weighting = deal(decks, "look", looks, rng)
    side = (
        deal(decks, "side", ["left", "right"], rng) if finding in ("lesion", "EFFUSION") else None
    )
    count, half, size, tone = 0, None, None, None
    if (
        finding == "lesion"
    ):  # bright, and neither small nor cystic: 20 pictures don't teach a small network every kind
        count, tone = deal(decks, "count", [1, 1, 2, 3], rng), "bright"
        half, size = (
            (deal(decks, "half", ["upper", "lower"], rng), "large") if count == 1 else (None, None)
        )
    contrast = organ == "ABD" and deal(decks, "contrast", [True, False], rng)
    return Scene(
        number,
        val,
        organ,
        modality,
        weighting,
        plane,
        finding.lower(),
        side,
        count,
        half,
        size,
        False,
        tone,
        contrast,
    )


def draw_pair(scene, rng):
    """The picture of a Scene and its mask (all 0 unless of the abdomen): two grey PIL images of one size, 220 to 300 pixels a side."""
    image, mask = (Image.new("L", (CANVAS, CANVAS), 0) for _ in range(2))
    pen = (
        OrganPen(image, mask, scene.weighting, rng)
        if scene.organ == "ABD"
        else ImageDraw.Draw(image)
    )
    {"HEAD": draw_head, "CHEST": draw_xray, "ABD": draw_abdomen}[scene.organ](pen, scene, rng)
    draw_lesions(pen, scene, rng)
    image = image.filter(ImageFilter.GaussianBlur(2.2 if scene.modality == "X-ray" else 1.2))
    slant = int(rng.integers(2**32))  # the same for both
    image = tilt(image, np.random.default_rng(slant))
    mask = tilt(mask, np.random.default_rng(slant), Image.Resampling.NEAREST)
    width = int(rng.integers(236, 290))
    size = width, int(width * rng.uniform(0.94, 1.03))
    return develop(image.resize(size, Image.Resampling.BILINEAR), rng), mask.resize(
        size, Image.Resampling.NEAREST
    )


def draw_set(folder, organ_set, seed, images):
    """Write one organ set into the new folder `folder`: pictures with masks and their lists, or pictures in a folder a class."""
    folder.mkdir()
    pairs = {"train": [], "val": []}
    for finding, scene in organ_scenes(organ_set, seed, images):
        image, mask = draw_pair(
            scene, np.random.default_rng([seed, 3, list(SETS).index(organ_set), scene.number])
        )
        part, name = "val" if scene.test else "train", f"{scene.number:04d}.png"
        names = (
            [f"images/{name}", f"masks/{name}"]
            if scene.organ == "ABD"
            else [f"{part}/{finding}/{name}"]
        )
        pairs[part].append(" ".join(names))
        for file, picture in zip(names, (image, mask)):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / file)
    if organ_set == "abdomen":
        for file, lines in (("train", pairs["train"]), ("val", pairs["val"]), ("classes", CLASSES)):
            (folder / f"{file}.txt").write_text("\n".join(lines) + "\n")
    (folder / "PHANTOM.txt").write_text(MARK)


def draw_organs(folder, seed=0, images=60):
    """Write the three organ sets into `folder`, which must not exist or be empty: abdomen, brain, chest.

    Each has `images` pictures for training and a fifth as many more for validation:
    abdomen/images/*.png, abdomen/masks/*.png (mode "L", 0 background, 1.. the further lines of abdomen/classes.txt), the pairs in
    abdomen/train.txt and val.txt; {brain,chest}/{train,val}/<class>/*.png. The same seed gives the same bytes.
    All or nothing. Raises UserError when the folder isn't empty or can't be written, or when the numbers can't be used.
    """
    if seed < 0 or images < FEWEST_IMAGES:
        raise UserError(
            f"the organ sets need --seed 0 or more and --images {FEWEST_IMAGES} or more; got --seed {seed} --images {images}"
        )
    with whole_folder(folder) as whole:
        for organ_set in SETS:
            draw_set(whole / organ_set, organ_set, seed, images)


def main():
    """Command line: draw the sets and say what was written."""
    parser = argparse.ArgumentParser(
        description="Draw the organ sets (not patient data) for multi-task pre-training."
    )
    parser.add_argument(
        "--output",
        default=Path(__file__).resolve().parent / "data_MTPT" / "phantom",
        help="folder to make (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--images",
        type=int,
        default=60,
        help="training pictures in each set (default: %(default)s)",
    )
    args = parser.parse_args()
    draw_organs(args.output, args.seed, args.images)
    print(
        f"drew {', '.join(SETS)}, each {args.images} pictures and {args.images // 5} for validation, into {args.output}"
    )


if __name__ == "__main__":
    run_main(main)
