"""The organ sets of multi-task pre-training: the user's folders -> images with masks or classes, and questions (DESIGN section 7).

    python dataset_MTPT.py [--MTPT_dir DIR]    check the sets and print what they hold

A folder per organ, `abdomen`, `brain`, `chest`, each in one of two forms:
  classes: train/CLASS/*.png and val/CLASS/*.png, torchvision's ImageFolder;
  lists: train.txt and val.txt with a line `image mask` a pair, relative to the folder; or train.json and val.json, the same as
  [[image, mask], ...], [{"image": ..., "mask": ...}, ...], {image: mask} or {"image": [...], "mask": [...]}, with a class's name or
  number in place of a mask for classes.
Without a validation part every fifth image is held out. Class names of masks may stand in classes.txt, one a line, in order of value.
Held-out images that are copies of training images are found and named where there are classes.
"""

import argparse
import os
import random
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

from dataset_RAD import (
    MAX_PIXELS,
    PHANTOM_MARK,
    SIZE,
    cache_base,
    read_image,
    split_validation,
    tokenize,
    training_questions,
    writable,
)
from utils import UserError, digest_bytes, digest_files, read_json, run_main, say

NAMES = ("abdomen", "brain", "chest")  # index = organ: ABD 0, HEAD 1, CHEST 2
DATA_MTPT = Path(__file__).resolve().parent / "data_MTPT"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
MAX_CLASSES = 64  # of masks without a classes.txt: beyond it a mask of 0 and 255, or of greys, is the likelier reading
MARGIN = 8  # pixels that an image is larger than its crop
DEGREES = 15
SMALL = 32  # sides of the grey images that copies are looked for in
CORRELATION, DIFFERENCE = (
    0.999,
    3,
)  # from here on, and below this mean difference of greys (of 255), two images are copies


class Sample(NamedTuple):
    """One image: its file and its mask's file (segmentation) or its class (classification)."""

    image: Path
    target: object


@dataclass
class OrganSet:
    """One organ's images. `classes` are names in order of index; `task` is "segmentation" or "classification".

    copies: {row of `val`: row of `train`}, held-out images that are copies of training images; looked for in classification only.
    """

    organ: str
    task: str
    classes: list
    train: list
    val: list
    folder: Path
    phantom: bool
    digest: str
    copies: dict = field(default_factory=dict)

    def about(self):
        """What checkpoints and results say of their data."""
        return {
            "organ": self.organ,
            "task": self.task,
            "classes": self.classes,
            "training images": len(self.train),
            "held-out images": len(self.val),
            "folder": str(self.folder),
            "digest": self.digest,
            "phantom": self.phantom,
        }


# ---------------------------------------------------------------- finding and reading the sets


def find_organ_sets(folder=None, organs=NAMES, say=say):
    """The organ sets {name: OrganSet} in `folder`, checked. Without a folder: data_MTPT/, or when that has none, the phantom sets.

    Raises UserError for a set that lacks or can't be used.
    """
    base = Path(folder) if folder else DATA_MTPT
    if folder is None and not any((base / name).is_dir() for name in NAMES):
        base = _phantom()
    if folder is not None and not base.is_dir():
        raise UserError(
            f"no such folder: {base}; name the one with abdomen/, brain/ and chest/ by --MTPT_dir"
        )
    if missing := [name for name in organs if not (base / name).is_dir()]:
        there = [name for name in NAMES if (base / name).is_dir()]
        raise UserError(
            f"{base} has no folder {' and no folder '.join(missing)}: put the images there, "
            f"or {'name one of what is there by --organ: ' + ', '.join(there) if there else 'name another folder by --MTPT_dir'}"
        )
    sets = {name: load_organ_set(base / name, name, say) for name in organs}
    if any(one.phantom for one in sets.values()):
        say(_BANNER.format(folder=base, home=DATA_MTPT))
    return sets


def load_organ_set(folder, organ, say=say):
    """The set in one folder, every file checked. Raises UserError for the first file that can't be used, naming it.

    Says what files are left out for their suffix, and how many held-out images are copies of training images.
    """
    folder, left_out = Path(folder), Counter()
    lists = {
        part: next(
            (path for path in (folder / f"{part}.txt", folder / f"{part}.json") if path.is_file()),
            None,
        )
        for part in ("train", "val")
    }
    if not lists["val"] and lists["train"] and (folder / "val").is_dir():
        raise UserError(
            f"{folder} holds {lists['train'].name} and a folder val/, which it does not list: list the held-out images in "
            f"{lists['train'].name.replace('train', 'val')}, or take val/ away and a fifth of the training images is held out"
        )
    if lists["val"] and not lists["train"] and (folder / "train").is_dir():
        raise UserError(
            f"{folder} holds {lists['val'].name} and a folder train/: make both parts lists, or both folders"
        )
    if lists["train"]:
        parts = {part: _read_list(path, folder) if path else [] for part, path in lists.items()}
        names = (
            _class_names(parts["train"], folder)
            if not isinstance(parts["train"][0].target, Path)
            else None
        )
    elif (folder / "train").is_dir():
        names = _subfolders(folder / "train")
        parts = {
            part: _read_folders(folder / part, names, left_out) if (folder / part).is_dir() else []
            for part in ("train", "val")
        }
    elif lists["val"]:
        raise UserError(
            f"{folder} holds {lists['val'].name} and no {lists['val'].name.replace('val', 'train')}: put it beside"
        )
    else:
        raise UserError(
            f"{folder} holds no organ set: neither train/ with a folder a class, nor train.txt or train.json was found"
        )
    if names is not None:
        index = (
            {str(i): i for i in range(len(names))}
            if (folder / "classes.txt").is_file() and lists["train"]
            else {}
        )  # by number
        index |= {name: i for i, name in enumerate(names)}
        for part, samples in parts.items():
            for sample in samples:
                if isinstance(sample.target, Path) or sample.target not in index:
                    lacks = (
                        f"which {folder / 'classes.txt'} does not name: add it there"
                        if (folder / "classes.txt").is_file()
                        else "which no training image has"
                    )
                    raise UserError(
                        f"{lists[part]}: {sample.image.name} has the class {str(sample.target)!r}, {lacks}"
                    )
            parts[part] = [Sample(sample.image, index[sample.target]) for sample in samples]
        if len(names) < 2:
            raise UserError(f"{folder} has one class only, {names[0]}: at least two are needed")
    elif odd := [sample for sample in parts["val"] if not isinstance(sample.target, Path)]:
        raise UserError(
            f"{lists['val']}: {odd[0].image.name} has a class and the training images have masks"
        )
    _check_once(parts)
    train, val = (parts["train"], parts["val"]) if parts["val"] else _hold_out(parts["train"])
    beside = "" if parts["val"] else " beside those held out"
    counts = Counter(sample.target if names else 0 for sample in train)
    for i, name in enumerate(names or [""]):
        if counts[i] < 2:
            raise UserError(
                f"{lists['train'] or folder / 'train' / name}: {f'class {name} has ' if names else ''}{counts[i]} training "
                f"image{'' if counts[i] == 1 else 's'}{beside}, at least 2 are needed: add some{', or take the class out' if names else ''}"
            )
    if left_out:
        kinds = ", ".join(
            f"{count} {(suffix if suffix.isprintable() else ascii(suffix))[:20] or 'with none'}"
            for suffix, count in left_out.most_common(5)
        )
        say(
            f"WARNING: {folder}: {left_out.total()} files left out for their suffix ({kinds}{', ...' if len(left_out) > 5 else ''}): only "
            f"{', '.join(sorted(SUFFIXES))} are read"
        )
    classes, copies = _check_files(folder, train, val, names)
    if copies:
        held, trained = next(iter(copies.items()))
        say(
            f"WARNING: {folder}: {len(copies)} of {len(val)} held-out images are copies of training images, as {val[held].image.relative_to(folder)} "
            f"of {train[trained].image.relative_to(folder)}: accuracy is given without them too"
        )
    files = list(
        dict.fromkeys(path for sample in train + val for path in sample if isinstance(path, Path))
    )
    listing = [
        f"{part} {sample.image.relative_to(folder)} {sample.target if names else sample.target.relative_to(folder)}"
        for part, samples in (("train", train), ("val", val))
        for sample in samples
    ]
    return OrganSet(
        organ,
        "segmentation" if names is None else "classification",
        classes,
        train,
        val,
        folder.resolve(),
        (folder / PHANTOM_MARK).is_file(),
        digest_bytes(digest_files(files), *classes, *listing),
        copies,
    )


def _check_once(parts):
    """Raise UserError for an image that is listed twice, or both for training and held out."""
    seen = {}
    for part, samples in parts.items():
        for sample in samples:
            if (
                path := os.path.realpath(sample.image)
            ) in seen:  # Path.resolve fails on a link to itself
                where = "twice" if seen[path] == part else "both for training and held out"
                raise UserError(
                    f"{sample.image} is listed {where}: held-out figures would be worth nothing, take one out"
                )
            seen[path] = part


def _subfolders(folder):
    names = sorted(
        _plain(path.name, folder)
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    for name in names:
        if (
            os.path.commonpath(
                [os.path.realpath(folder), inside := os.path.realpath(folder / name)]
            )
            == inside
        ):
            raise UserError(
                f"{folder / name} is a link to a folder that holds the data itself: take it out"
            )
    if not names:
        raise UserError(
            f"{folder} has no class folders: put each class's images in a folder with the class's name"
        )
    return names


def _read_folders(folder, names, left_out):
    """ImageFolder's reading: [Sample(path, class name)]; counts in `left_out` the suffixes that are no image's.

    Raises UserError for an empty class folder.
    """
    samples = []
    for name in _subfolders(folder):
        if name not in names:
            raise UserError(
                f"{folder / name}: a class that {folder.parent / 'train'} has not; add it there or take it out"
            )
        paths = [path for path in (folder / name).rglob("*") if not path.name.startswith(".")]
        found = sorted(path for path in paths if path.suffix.lower() in SUFFIXES)
        left_out.update(
            path.suffix.lower()
            for path in paths
            if path.suffix.lower() not in SUFFIXES and os.path.isfile(path)
        )
        if not found:
            raise UserError(
                f"{folder / name} is an empty class folder: put images in it ({', '.join(sorted(SUFFIXES))}) or take it out"
            )
        samples += [
            Sample(folder / _plain(str(path.relative_to(folder)), folder), name) for path in found
        ]
    return samples


def _plain(name, where):
    """`name`, if it is text that can be written again. Raises UserError."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: the name {name[:200]!r} is not valid UTF-8; rename it") from None
    return name


def _read_list(path, folder):
    """A list file: [Sample(image path, mask path or class name)]. Raises UserError naming file and line."""
    if path.suffix == ".json":
        rows = [(f"{path}, entry {number}", row) for number, row in enumerate(_json_rows(path), 1)]
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} can't be read as text ({error}); lines `image mask` are wanted"
            ) from None
        rows = [
            (f"{path}, line {number}", line.split("\t") if "\t" in line else line.split())
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    samples = []
    for where, row in rows:
        if len(row) != 2 or not isinstance(row[0], str) or not isinstance(row[1], (str, int)):
            raise UserError(
                f"{where}: an image and a mask are wanted (a tab between them where a name has spaces)"
            )
        image, target = row[0].strip(), row[1].strip() if isinstance(row[1], str) else str(row[1])
        is_mask = Path(_plain(target, where)).suffix.lower() in SUFFIXES
        if not is_mask and "\0" not in target and os.path.isfile(folder / target):
            raise UserError(
                f"{where}: {target} can't be read as a mask: PNG, BMP, GIF, TIFF or PPM files are wanted"
            )
        for name in (image, target) if is_mask else (image,):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise UserError(
                    f"{where}: {name} leaves the data's folder; name files relative to {folder}"
                )
            if "\0" in _plain(name, where) or not os.path.isfile(folder / name):
                raise UserError(
                    f"{where}: {name[:200]!r} is not there; it is looked for in {folder}"
                )
        if samples and is_mask != isinstance(samples[0].target, Path):
            raise UserError(f"{where}: either all entries have masks or all have classes")
        samples.append(Sample(folder / image, folder / target if is_mask else target))
    if not samples:
        raise UserError(f"{path} lists no image")
    return samples


def _json_rows(path):
    """The rows of a JSON list file, each a pair. Raises UserError for another form."""
    value = read_json(path)
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), list):
        value = next(iter(value.values()))  # {"train": [...]}
    if isinstance(value, dict):
        columns = list(value.values())
        if (
            len(columns) == 2
            and all(isinstance(column, list) for column in columns)
            and len(columns[0]) == len(columns[1])
        ):
            return [list(pair) for pair in zip(*columns)]  # {"image": [...], "mask": [...]}
        return [list(pair) for pair in value.items()]
    if not isinstance(value, list):
        raise UserError(
            f"{path} must hold a list of pairs, of objects with image and mask, or one object of image: mask"
        )
    rows = []
    for number, row in enumerate(value, 1):
        if isinstance(row, dict):
            image = next(
                (
                    row[key]
                    for key in ("image", "img", "image_path", "img_path", "image_name", "name")
                    if key in row
                ),
                None,
            )
            target = next(
                (
                    row[key]
                    for key in (
                        "mask",
                        "mask_path",
                        "label",
                        "label_path",
                        "seg",
                        "class",
                        "target",
                    )
                    if key in row
                ),
                None,
            )
            row = [image, target]
        if not isinstance(row, list):
            raise UserError(
                f"{path}, entry {number}: an image and a mask or class are wanted, as a pair or as an object with image and mask"
            )
        rows.append(row)
    return rows


def _class_names(samples, folder):
    """Class names of a list with classes: those of classes.txt, else those that occur, numbers in numeric order."""
    if (folder / "classes.txt").is_file():
        return _read_class_file(folder)
    names = {sample.target for sample in samples}
    return sorted(
        names,
        key=lambda name: (
            not name.isdecimal() or len(name) > 4000,
            int(name) if name.isdecimal() and len(name) <= 4000 else 0,
            name,
        ),
    )


def _read_class_file(folder):
    names = [
        line.strip()
        for line in (folder / "classes.txt")
        .read_text(encoding="utf-8-sig", errors="replace")
        .splitlines()
        if line.strip()
    ]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f"{folder / 'classes.txt'}: at least two different names are wanted, one a line"
        )
    return names


def _hold_out(samples):
    """(training, held out): every fifth image of a class, or of all with masks, in a fixed shuffled order; at least one stays on each side."""
    groups = {}
    for sample in samples:
        groups.setdefault(sample.target if isinstance(sample.target, int) else 0, []).append(sample)
    train, val = [], []
    for group in groups.values():
        group = random.Random(0).sample(group, len(group))
        count = max(1, len(group) // 5)
        val, train = val + group[:count], train + group[count:]
    return train, val


def _check_files(folder, train, val, names):
    """Decode every file once. Returns (class names, copies as in OrganSet). Raises UserError for the first that can't be used."""
    given = names or (_read_class_file(folder) if (folder / "classes.txt").is_file() else None)
    highest = [0, 0]  # of the training masks, of the held-out ones
    greys = np.zeros((len(train) + len(val) if names else 0, SMALL**2), np.float32)
    for i, sample in enumerate(
        tqdm(train + val, desc=f"checking {folder.name}", unit="image", leave=False, disable=None)
    ):
        image = read_checked(sample.image)
        if names:
            greys[i] = np.asarray(Image.fromarray(image).convert("L").reduce(SIZE // SMALL)).ravel()
            continue
        mask = read_mask(sample.target)
        value = int(mask.max())
        with Image.open(sample.image) as image:
            width, height = image.size
        if mask.shape != (height, width):
            raise UserError(
                f"{sample.target} is {mask.shape[1]} x {mask.shape[0]} pixels and its image {sample.image} {width} x {height}: "
                "they must be of one size"
            )
        if given and value >= len(given):
            raise UserError(
                f"{sample.target} has the value {value}, and {folder / 'classes.txt'} names {len(given)} classes, 0 to {len(given) - 1}"
            )
        if not given and value >= MAX_CLASSES:
            raise UserError(
                f"{sample.target} has the value {value}: a mask's values are classes, 0, 1, 2 and so on; where {value + 1} "
                "classes are meant, name them in classes.txt, one a line"
            )
        if not given and i >= len(train) and value > highest[0]:
            raise UserError(
                f"{sample.target} has the value {value}, and the training masks have none above {highest[0]}; mend it, or name the "
                f"classes in {folder / 'classes.txt'}, one a line"
            )
        highest[i >= len(train)] = max(value, highest[i >= len(train)])
    if names is None and not all(highest):
        raise UserError(
            f"{folder}: all {'training' if not highest[0] else 'held-out'} masks are 0 everywhere, background: there is nothing to learn "
            "or to measure"
        )
    return given or ["background", *(f"class {i}" for i in range(1, highest[0] + 1))], _copies(
        greys, len(train)
    )


def _copies(greys, count):
    """{held-out row: training row} of copies, re-encoded or resized ones too, among small grey images (N, pixels), the first `count` for training."""
    shapes = greys - greys.mean(1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True).clip(
        1e-3
    )  # a flat image is like no other
    copies = {}
    for start in range(count, len(greys), 256):  # large sets: not all pairs at once
        for held, trained in np.argwhere(
            shapes[start : start + 256] @ shapes[:count].T > CORRELATION
        ).tolist():
            if abs(greys[start + held] - greys[trained]).mean() < DIFFERENCE:
                copies.setdefault(start + held - count, trained)
    return copies


def read_checked(path, size=SIZE):
    """`dataset_RAD.read_image`, with a UserError for what can't be read."""
    try:
        return read_image(path, size)
    except Exception as error:  # PIL raises many types for damaged files
        reason = (
            "missing"
            if isinstance(error, FileNotFoundError)
            else "damaged, too large or not an image"
        )
        raise UserError(
            f"{path} can't be used ({reason}): put a good copy there or take it out"
        ) from None


def read_mask(path):
    """A mask file as uint8 (height, width), its values classes. Raises UserError for what is no mask."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device never ends
            raise ValueError("not a file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(
                path, formats=("PNG", "BMP", "GIF", "TIFF", "PPM")
            ) as image:  # no JPEG: it does not keep values
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError("too large")
                mode, mask = image.mode, np.asarray(image)
    except Exception as error:
        reason = (
            "missing"
            if isinstance(error, FileNotFoundError)
            else "damaged, too large, or not a PNG, BMP, GIF, TIFF or PPM image"
        )
        raise UserError(
            f"{path} can't be used as a mask ({reason}): put a good copy there or take it out"
        ) from None
    if mask.ndim == 3 and mask.shape[2] >= 3 and (mask[..., :1] == mask[..., :3]).all():
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise UserError(
            f"{path} is a colour picture or has fractions ({mode}): a mask has one channel, and its values are classes"
        )
    if mask.max() > 255 or mask.min() < 0:
        raise UserError(
            f"{path} has the value {mask.max() if mask.max() > 255 else mask.min()}: a mask's values are classes, 0 to 255 at most"
        )
    return mask.astype(np.uint8)


def _phantom():
    """The folder with the phantom organ sets, drawn when it is not there."""
    import phantom_MTPT

    for base in (DATA_MTPT, cache_base() / "MTPT"):
        if all((base / "phantom" / name / PHANTOM_MARK).is_file() for name in NAMES):
            return base / "phantom"
    home = DATA_MTPT if writable(DATA_MTPT) else cache_base() / "MTPT"
    if (home / "phantom").exists():
        raise UserError(f"{home / 'phantom'} is not whole: remove it, and it is drawn again")
    phantom_MTPT.draw_organs(home / "phantom")
    return home / "phantom"


_BANNER = """
+------------------------------------------------------------------------------------------------------------+
  THE PHANTOM ORGAN SETS ARE IN USE: simple drawings, in {folder}
  They show that pre-training works. What it learns from them means nothing for radiology.
  For real pre-training put abdomen/, brain/ and chest/ into {home}
  (its README.md says in which form), or name their folder by --MTPT_dir.
+------------------------------------------------------------------------------------------------------------+"""


# ---------------------------------------------------------------- questions


class Entry(NamedTuple):
    """A distinct question and the organs of whose images it was asked in VQA training."""

    tokens: tuple
    organs: frozenset
    question: str


def compatibility_entries(data, fraction=0.1, seed=0):
    """The distinct training questions of VQA data with their organs (DESIGN section 7): (for training, held out), lists of Entry.

    Two questions are one when their words are. The "clean" training part is used, so that one pre-training serves both splits. Held
    out are the questions of a validation part (`split_validation`, which keeps rewordings together) that training has not.
    """
    questions = training_questions(data, "clean")
    parts = [
        {" ".join(tokenize(q.question)): q for q in reversed(part)}
        for part in split_validation(questions, fraction, "clean", seed)
    ]
    organs = {}
    for question in questions:
        organs.setdefault(" ".join(tokenize(question.question)), set()).add(question.organ)
    return tuple(
        [
            Entry(part[words].tokens, frozenset(organs[words]), part[words].question)
            for words in organs
            if words in part and words not in other
        ]
        for part, other in zip(parts, ({}, parts[0]))
    )


# ---------------------------------------------------------------- tensors


class OrganImages(Dataset):
    """Images, targets and questions: item -> (image uint8 (224, 224, 3), target, tokens (T,) int64, compatible 0 or 1).

    target: mask int64 (224, 224) or class. A key is (epoch, index): what is drawn for it (crop, rotation, question) depends on
    (seed, epoch, index) alone, not on the worker. With `augment`: resize to 232, random crop 224, rotation within 15 degrees, the mask
    along with its image; no flips, because left and right are answers. Without: resize to 224. `entries` empty: no question, one 0 as tokens.
    """

    def __init__(self, samples, organ, entries, seed=0, augment=True):
        self.samples, self.entries, self.seed, self.augment = samples, entries, seed, augment
        self.organ = NAMES.index(organ)
        self.transform = v2.Compose(
            [v2.RandomCrop(SIZE), v2.RandomRotation(DEGREES, v2.InterpolationMode.BILINEAR)]
        )

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        epoch, index = key
        image, target = self.samples[index]
        size = SIZE + MARGIN if self.augment else SIZE
        image = tv_tensors.Image(
            torch.from_numpy(np.array(read_checked(image, size))).permute(2, 0, 1)
        )  # (3, size, size)
        if isinstance(target, Path):
            mask = Image.fromarray(read_mask(target)).resize((size, size), Image.Resampling.NEAREST)
            target = tv_tensors.Mask(torch.from_numpy(np.array(mask)))  # (size, size)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
            )  # not the GPU's
            if self.augment:
                image, target = self.transform(image, target)
            entry = (
                self.entries[int(torch.randint(len(self.entries), ()))] if self.entries else None
            )
        if isinstance(target, torch.Tensor):
            target = target.as_subclass(torch.Tensor).long()
        tokens = torch.tensor(entry.tokens) if entry else torch.zeros(1, dtype=torch.long)
        return (
            image.as_subclass(torch.Tensor).permute(1, 2, 0),
            target,
            tokens,
            int(entry is not None and self.organ in entry.organs),
        )


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Check the organ sets and print what they hold.")
    parser.add_argument(
        "--MTPT_dir",
        metavar="DIR",
        help="folder with abdomen/, brain/ and chest/ (default: data_MTPT)",
    )
    folder = parser.parse_args(arguments).MTPT_dir
    there = [name for name in NAMES if (Path(folder or DATA_MTPT) / name).is_dir()]
    for one in find_organ_sets(folder, there or NAMES).values():
        print(
            f"{one.organ}: {one.task}, {len(one.train):,} training and {len(one.val):,} held-out images, {len(one.classes)} classes "
            f"({', '.join(one.classes)}); {one.folder} ({one.digest})"
        )


if __name__ == "__main__":
    run_main(main)
