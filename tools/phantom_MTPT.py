"""Draws three small organ sets for the multi-task pre-training (docs/PRETRAINING.md).

    python -m tools.phantom_MTPT [--output DIR] [--seed 0] [--images 60]

The abdomen is a set for segmentation, brain and chest are sets for classification. Nothing in
them comes from a patient. They let pre-training run without data and without a network. Left and
right are the patient's: the spleen and the left kidney are at the picture's right.
"""

import argparse

import numpy as np
from PIL import Image, ImageDraw

from tools import phantom_draw, phantom_find, phantom_scenes
from tools.phantom_draw import (
    CANVAS,
    blur,
    develop,
    draw_abdomen,
    draw_head,
    draw_lesions,
    draw_xray,
    tilt,
    whole_folder,
)
from tools.phantom_scenes import Scene, deal
from utils import HERE, PHANTOM_MARK, UserError, run_main

MARK = "Drawings, not radiology: made by phantom_MTPT.py"
SOURCES = [__file__, phantom_draw.__file__, phantom_scenes.__file__]
BANNER = """
+----------------------------------------------------------------------------------------------+
  THE PHANTOM ORGAN SETS ARE IN USE: simple drawings, in {folder}
  They show that pre-training works. The weights that come of it mean nothing for radiology.
  For real pre-training put abdomen/, brain/ and chest/ into {home}
  (its README.md says in which form), or name their folder by --MTPT_dir.
+----------------------------------------------------------------------------------------------+"""
# of the abdomen; a class's position is its value in the masks
CLASSES = ["background", "liver", "spleen", "left kidney", "right kidney", "spine"]
FEWEST_IMAGES = 15  # with fewer, a class is missing from the validation part
SECTIONS = [("CT", None), ("MRI", "T1"), ("MRI", "T2")]
SETS = {  # a Scene's organ and plane, modality and weighting, findings
    "abdomen": ("ABD", "axial", SECTIONS, ["normal", "normal", "ascites"]),
    # of these two a finding is a class
    "brain": ("HEAD", "axial", SECTIONS, ["normal", "lesion", "hydrocephalus"]),
    "chest": ("CHEST", "PA", [("X-ray", None)], ["NORMAL", "EFFUSION"]),
}
# draw_abdomen's shapes in its order: the body's three layers, the organs, the spinal canal;
# bowel follows
SHAPES = ["background"] * 3 + ["liver", "spleen", "right kidney", "left kidney", "spine", "spine"]
SHADES = {  # added to draw_abdomen's greys, by weighting: there the organs hardly differ
    None: {"spleen": 12, "left kidney": 30, "right kidney": 30},
    "T1": {"liver": 15, "spleen": -20},
    "T2": {"liver": -20, "spleen": 45, "left kidney": 90, "right kidney": 90, "spine": -30},
}


class OrganPen:
    """An ImageDraw pen for draw_abdomen (axial) that draws into a picture and its mask.

    Place, size and grey of each organ vary a little. A shape drawn over an organ takes its
    pixels in the mask too.
    """

    def __init__(self, image, mask, weighting, rng):
        self.pens = ImageDraw.Draw(image), ImageDraw.Draw(mask)
        self.shapes, organs = iter(SHAPES), CLASSES[1:]
        self.shifts = {name: rng.uniform(-0.015, 0.015, 2) * CANVAS for name in organs}
        # a larger liver would leave the body
        self.scales = {name: rng.uniform(0.85, 1.08, 2) for name in organs}
        shades = SHADES[weighting]
        self.shades = {name: rng.uniform(-6, 6) + shades.get(name, 0) for name in organs}

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
    """The pictures of one set: a list of (class, Scene).

    `images` for training come first, then a fifth as many for validation. The classes take
    turns; within a class each look and each side comes equally often.
    """
    findings = SETS[organ_set][-1]
    rng = np.random.default_rng([seed, 2, list(SETS).index(organ_set)])
    made = []
    for val, start, count in ((False, 0, images), (True, images, images // 5)):
        decks = {finding: {} for finding in findings}
        for i in range(count):
            finding = findings[i % len(findings)]
            scene = make_scene(organ_set, finding, start + i + 1, decks[finding], rng)
            scene.test = val
            made.append((finding, scene))
    return made


def make_scene(organ_set, finding, number, decks, rng):
    """One Scene for training, drawn by lot."""
    organ, plane, looks, _ = SETS[organ_set]
    scene = Scene(number, False, organ, *deal(decks, "look", looks, rng), plane, finding.lower())
    if finding in ("lesion", "EFFUSION"):
        scene.side = deal(decks, "side", ["left", "right"], rng)
    if finding == "lesion":
        # neither dark, small nor cystic: 20 pictures don't teach a small network every kind
        scene.count, scene.tone = deal(decks, "count", [1, 1, 2, 3], rng), "bright"
    if scene.count == 1:
        scene.half, scene.size = deal(decks, "half", ["upper", "lower"], rng), "large"
    if organ == "ABD":
        scene.contrast = deal(decks, "contrast", [True, False], rng)
    return scene


def draw_pair(scene, rng):
    """The picture of a Scene and its mask: two grey PIL images of one size.

    A side has 220 to 300 pixels. The mask of another organ than the abdomen is 0 everywhere.
    """
    image, mask = (Image.new("L", (CANVAS, CANVAS), 0) for _ in range(2))
    pen = ImageDraw.Draw(image)
    if scene.organ == "ABD":
        pen = OrganPen(image, mask, scene.weighting, rng)
    {"HEAD": draw_head, "CHEST": draw_xray, "ABD": draw_abdomen}[scene.organ](pen, scene, rng)
    draw_lesions(pen, scene, rng)
    image = blur(image, scene)
    slant = int(rng.integers(2**32))  # the same for both
    image = tilt(image, np.random.default_rng(slant))
    mask = tilt(mask, np.random.default_rng(slant), Image.Resampling.NEAREST)
    width = int(rng.integers(236, 290))
    size = width, int(width * rng.uniform(0.94, 1.03))
    image = develop(image.resize(size, Image.Resampling.BILINEAR), rng)
    return image, mask.resize(size, Image.Resampling.NEAREST)


def draw_set(folder, organ_set, seed, images):
    """Write one organ set into the new folder `folder`.

    The abdomen has pictures, masks and their lists, the others a folder a class.
    """
    folder.mkdir()
    pairs = {"train": [], "val": []}
    for finding, scene in organ_scenes(organ_set, seed, images):
        numbers = [seed, 3, list(SETS).index(organ_set), scene.number]
        pair = draw_pair(scene, np.random.default_rng(numbers))
        part, name = "val" if scene.test else "train", f"{scene.number:04d}.png"
        names = [f"{part}/{finding}/{name}"]
        if scene.organ == "ABD":
            names = [f"images/{name}", f"masks/{name}"]
        pairs[part].append(" ".join(names))
        for file, picture in zip(names, pair):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / file)
    if organ_set == "abdomen":
        for file, lines in (*pairs.items(), ("classes", CLASSES)):
            (folder / f"{file}.txt").write_text("\n".join(lines) + "\n")
    (folder / PHANTOM_MARK).write_text(f"{MARK}\n")


def draw_organs(folder, seed=0, images=60):
    """Write the three organ sets abdomen, brain and chest into `folder`.

    `folder` must not exist or be empty; it is written whole or not at all. Each set has `images`
    pictures for training and a fifth as many more for validation, in the forms of
    docs/FORMATS.md section 1. The same seed gives the same bytes. Raises UserError when the
    folder or the numbers can't be used.
    """
    if seed < 0 or images < FEWEST_IMAGES:
        raise UserError(
            f"the organ sets need --seed 0 or more and --images {FEWEST_IMAGES} or more; got "
            f"--seed {seed} --images {images}"
        )
    with whole_folder(folder) as whole:
        for organ_set in SETS:
            draw_set(whole / organ_set, organ_set, seed, images)


def find_or_draw(home):
    """The folder of the phantom organ sets in `home`, drawn when they are missing.

    Raises UserError when `home` can't be written.
    """
    return phantom_find.find_or_draw(home, draw_organs, MARK, SOURCES, SETS)


def main():
    parser = argparse.ArgumentParser(
        description="Draw the organ sets (not patient data) for multi-task pre-training."
    )
    add = parser.add_argument
    default = HERE / "data_MTPT" / "phantom"
    add("--output", default=default, help="folder to make (default: %(default)s)")
    add("--seed", type=int, default=0, help="0 or more (default: %(default)s)")
    help_images = f"training pictures a set, at least {FEWEST_IMAGES} (default: %(default)s)"
    add("--images", type=int, default=60, help=help_images)
    args = parser.parse_args()
    draw_organs(args.output, args.seed, args.images)
    count = f"{args.images} pictures and {args.images // 5} for validation"
    print(f"drew {', '.join(SETS)}, each {count}, into {args.output}")


if __name__ == "__main__":
    run_main(main)
