"""What the phantom's pictures show: organ, modality, plane and finding of each, dealt evenly."""

from dataclasses import dataclass

import numpy as np

from utils import UserError

TEST_SHARE = 0.2  # of the images; a test image never occurs in training
FEWEST_IMAGES = 60  # with fewer, some question types are missing from the test part

HEAD = ["normal", "lesion", "lesion", "hydrocephalus", "lesion"]
XRAY = ["normal", "lesion", "effusion", "lesion", "pneumothorax", "lesion", "cardiomegaly"]
ABDOMEN = ["normal", "lesion", "lesion", "ascites", "lesion"]
PLAIN = ["normal", "lesion", "lesion"]
KINDS = [  # organ, modality, weighting, plane, findings, number among 20 images
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


@dataclass
class Scene:
    """The content of one picture.

    number: place in the data set, from 1; it seeds the drawing. organ: HEAD, CHEST, ABD.
    modality: CT, MRI, X-ray. weighting: T1, T2, or None unless MRI. plane: axial, coronal,
    sagittal, PA. finding: normal, lesion, hydrocephalus, effusion, pneumothorax, cardiomegaly,
    ascites. side: the patient's left or right, or None. count: number of lesions, all on one
    side. half (upper, lower) and size (large, small): of a single lesion, else None. cystic: a
    large lesion with an inside of the opposite tone. tone: bright, dark, or None without a
    lesion. contrast: the bowel holds contrast medium.
    """

    number: int
    test: bool
    organ: str
    modality: str
    weighting: str
    plane: str
    finding: str
    side: str = None
    count: int = 0
    half: str = None
    size: str = None
    cystic: bool = False
    tone: str = None
    contrast: bool = False

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
        """The colour of the ventricles, None where the picture lacks them."""
        if self.organ != "HEAD" or self.plane == "sagittal":
            return None
        return "white" if self.weighting == "T2" else "black"


def scenes(seed=0, images=320):
    """A list of `images` Scenes. Raises UserError for a seed or a number that can't be used."""
    if seed < 0 or images < FEWEST_IMAGES:
        raise UserError(
            f"the phantom needs --seed 0 or more and --images {FEWEST_IMAGES} or more; got "
            f"--seed {seed} --images {images}"
        )
    rng = np.random.default_rng([seed, 0])
    tests = round(images * TEST_SHARE)
    split = rng.permutation([True] * tests + [False] * (images - tests)).tolist()
    decks = {True: {}, False: {}}
    return [make_scene(number, test, decks[test], rng) for number, test in enumerate(split, 1)]


def deal(decks, name, values, rng):
    """The next card of the shuffled deck `name`, so that each of `values` comes equally often.

    A deck that is used up is shuffled anew. decks: {name: cards left}, changed in place.
    """
    if not decks.get(name):
        decks[name] = [values[i] for i in rng.permutation(len(values))]
    return decks[name].pop()


def make_scene(number, test, decks, rng):
    """One Scene, drawn by lot."""
    kinds = [kind for kind in KINDS for _ in range(kind[-1])]
    organ, modality, weighting, plane, findings, _ = deal(decks, "kind", kinds, rng)
    finding = deal(decks, tuple(findings), findings, rng)
    scene = Scene(number, test, organ, modality, weighting, plane, finding)
    if finding in ("lesion", "effusion", "pneumothorax"):
        scene.side = deal(decks, f"side {finding}", ["left", "right"], rng)
    if finding == "lesion":
        scene.count = deal(decks, "count", [1, 1, 1, 2, 3], rng)
        # lungs are dark: a dark lesion would be invisible
        tones = ["bright", "dark"]
        scene.tone = deal(decks, "tone", tones, rng) if organ != "CHEST" else "bright"
    if scene.count == 1:
        scene.half = deal(decks, "half", ["upper", "lower"], rng)
        sizes = [("large", True), ("large", False), ("small", False), ("small", False)]
        scene.size, scene.cystic = deal(decks, "size", sizes, rng)
    if organ == "ABD":
        scene.contrast = deal(decks, "contrast", [True, False], rng)
    return scene
