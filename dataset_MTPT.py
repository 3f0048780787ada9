"""The organ sets of multi-task pre-training: images, masks or classes, and questions.

    python dataset_MTPT.py [--MTPT_dir DIR]    check the sets and print their content

docs/METHOD.md section 5 says how they are used, docs/FORMATS.md section 1 in which form they are.
"""

import argparse
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from dataset_RAD import split_validation, training_questions
from features import to_float
from readers.digests import digest_bytes, digest_files
from readers.images import read_image, read_mask
from readers.organ_images import check_images, check_masks
from readers.organ_lists import read_parts, training_source
from readers.organ_questions import find_questions, read_questions
from text_rules import encode, tokenize
from utils import (
    HERE,
    ORGAN_ENCODERS,
    PHANTOM_MARK,
    SIZE,
    UserError,
    cache_base,
    log,
    run_main,
    writable,
)

DATA_MTPT = HERE / "data_MTPT"
MARGIN = 8  # pixels by which an image is larger than its crop
DEGREES = 15


@dataclass
class OrganSet:
    """One organ's images.

    task: "segmentation" or "classification". classes: their names, in order of index.
    train, val: lists of readers.organ_lists.Sample. copies: {row of val: row of train} of
    held-out images that are copies of training images; looked for in classification only.
    questions: {"train", "val": [(question, label)]} of the set's own question lists, if any.
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
    questions: dict = field(default_factory=dict)

    def sizes(self):
        """What PretrainingModel wants as `classes`."""
        return len(self.classes)

    def images(self, samples, entries, seed=0, augment=True):
        """The dataset of some of its samples (see OrganImages)."""
        organs = [ORGAN_ENCODERS.index(self.organ)] * len(samples)
        return OrganImages(samples, organs, entries, seed, augment)

    def about(self):
        """The set's description in checkpoints and results."""
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

    def describe(self):
        """The set in one line."""
        own = sum(map(len, self.questions.values()))
        return (
            f"{self.organ}: {self.task}, {len(self.train):,} training and {len(self.val):,} "
            f"held-out images, {len(self.classes)} classes"
            f"{f', {own:,} questions of its own' if own else ''}; {self.folder} ({self.digest})"
        )


def find_organ_sets(folder=None, organs=ORGAN_ENCODERS, log=log):
    """The organ sets {name: OrganSet} in `folder`, checked.

    Without a folder those in data_MTPT/, and when it has none, the phantom sets, with a banner.
    Raises UserError for a set that is missing or can't be used.
    """
    base = Path(folder) if folder else DATA_MTPT
    if folder and not base.is_dir():
        raise UserError(
            f"no such folder: {base}; name the one with abdomen/, brain/ and chest/ by --MTPT_dir"
        )
    there = [name for name in ORGAN_ENCODERS if (base / name).is_dir()]
    if not folder and not there:
        from tools import phantom_MTPT  # drawings, which nobody with data needs

        base = phantom_MTPT.find_or_draw(data_home())
        there = ORGAN_ENCODERS
    if missing := [name for name in organs if name not in there]:
        remedy = "name another folder by --MTPT_dir"
        if there:
            remedy = f"name a set that is there by --organ: {', '.join(there)}"
        raise UserError(
            f"{base} has no folder {' and no folder '.join(missing)}: put the images there, or "
            f"{remedy}"
        )
    sets = {name: load_organ_set(base / name, name, log) for name in organs}
    if any(one.phantom for one in sets.values()):
        from tools import phantom_MTPT

        log(phantom_MTPT.BANNER.format(folder=base, home=DATA_MTPT))
    return sets


def data_home():
    """data_MTPT, or the cache when data_MTPT can't be written."""
    return DATA_MTPT if writable(DATA_MTPT) else cache_base() / "MTPT"


def load_organ_set(folder, organ, log=log):
    """The set in one folder, every file checked.

    Files that are left out for their suffix, and held-out copies of training images, are logged.
    Raises UserError for the first file that can't be used, naming it.
    """
    folder = Path(folder)
    parts, names = read_parts(folder, log)
    train, val = (parts["train"], parts["val"]) if parts["val"] else hold_out(parts["train"])
    counts = Counter(sample.target if names else 0 for sample in train)
    for index, name in enumerate(names or [""]):
        if counts[index] < 2:
            has = f"class {name} has {counts[index]}" if names else str(counts[index])
            raise UserError(
                f"{training_source(folder, name)}: {has} training "
                f"image{'' if counts[index] == 1 else 's'}"
                f"{'' if parts['val'] else ' beside those held out'}, at least 2 are needed: add "
                f"some{', or take the class out' if names else ''}"
            )
    classes, copies = names, {}
    tested = {sample.target for sample in val}
    if names and (lacking := [name for index, name in enumerate(names) if index not in tested]):
        log(f"NOTE: {folder}: no held-out image shows {', '.join(lacking)}")
    if names:
        copies = check_images(folder, train, val)
    else:
        classes = check_masks(folder, train, val)
    if copies:
        held, trained = next(iter(copies.items()))
        log(
            f"WARNING: {folder}: {len(copies)} of {len(val)} held-out images are copies of "
            f"training images, as {val[held].image.relative_to(folder)} of "
            f"{train[trained].image.relative_to(folder)}: accuracy is given without them too"
        )
    lists = find_questions(folder)
    return OrganSet(
        organ,
        "classification" if names else "segmentation",
        classes,
        train,
        val,
        folder.resolve(),
        (folder / PHANTOM_MARK).is_file(),
        _digest(folder, classes, train, val, lists),
        copies,
        {part: read_questions(path) for part, path in lists.items()},
    )


def _digest(folder, classes, train, val, lists):
    """Digest of the files' names and contents, the classes, and who is in which part.

    lists: the paths of the question lists.
    """
    files = dict.fromkeys(
        path for sample in train + val for path in sample if isinstance(path, Path)
    )
    files |= dict.fromkeys(lists.values())
    listing = []
    for part, samples in (("train", train), ("val", val)):
        for image, target in samples:
            target = target.relative_to(folder) if isinstance(target, Path) else target
            listing.append(f"{part} {image.relative_to(folder)} {target}")
    return digest_bytes(digest_files(files), *classes, *listing)


def hold_out(samples):
    """(training, held out): every fifth image of a class, or of all with masks.

    The order is shuffled and always the same. A class of two images keeps both for training,
    unless nothing would then be held out.
    """
    groups = {}
    for sample in samples:
        groups.setdefault(sample.target if isinstance(sample.target, int) else 0, []).append(sample)
    for kept in (2, 1):
        train, val = [], []
        for group in groups.values():
            group = random.Random(0).sample(group, len(group))
            count = max(0, min(max(1, len(group) // 5), len(group) - kept))
            val, train = val + group[:count], train + group[count:]
        if val:
            break
    return train, val


class Entry(NamedTuple):
    """A distinct question and the organs (indices) of whose images VQA training asks it."""

    tokens: tuple
    organs: frozenset
    question: str


def compatibility_entries(data, fraction=0.1, seed=0, organ_set=None):
    """The distinct training questions of VQA data (docs/METHOD.md section 5.2).

    Returns (for training, held out), tuples of lists of Entry. Two questions are one when their
    words are. They come from the clean training part, so one pre-training serves both splits.
    Held out are a validation part's questions (`split_validation`) that training lacks.
    An organ set's own question lists come in place of all these.
    """
    if organ_set and organ_set.questions:
        return _own_entries(data, organ_set)
    questions = training_questions(data, "clean" if data.frames else "official")
    parts = [
        {q.words: q for q in reversed(part)}
        for part in split_validation(questions, fraction, "clean", seed)
    ]
    organs = {}
    for question in questions:
        organs.setdefault(question.words, set()).add(question.organ)
    return tuple(
        [
            Entry(part[words].tokens, frozenset(organs[words]), part[words].question)
            for words in organs
            if words in part and words not in other
        ]
        for part, other in zip(parts, ({}, parts[0]))
    )


def _own_entries(data, organ_set):
    """What `compatibility_entries` gives, from the organ set's own question lists.

    A question fits if one of its labels is 1. Held-out questions that training has are left out.
    """
    word2idx = {word: index for index, word in enumerate(data.dictionary)}
    organ, parts, known = ORGAN_ENCODERS.index(organ_set.organ), [], set()
    for part in ("train", "val"):
        texts, fits = {}, Counter()
        for question, label in organ_set.questions.get(part, ()):
            words = tuple(tokenize(question))
            texts.setdefault(words, question)
            fits[words] += label
        parts.append(
            [
                Entry(encode(words, word2idx)[0], frozenset({organ} if fits[words] else ()), text)
                for words, text in texts.items()
                if words not in known
            ]
        )
        known.update(texts)
    return tuple(parts)


class OrganImages(Dataset):
    """Images, targets and questions: item -> (image, target, tokens, compatible).

    image: uint8 (224, 224, 3); target: mask int64 (224, 224), or class; tokens: (12,) int64;
    compatible: 1 if the question is asked of this organ, else 0. A key is (epoch, index). Crop,
    rotation and question depend on seed, epoch and index alone, not on the worker. Held-out
    images are resized only (`augment` False). Without entries the tokens are one 0. organs: the
    place in ORGANS of each sample's organ, or -1, of which `compatible` is -100.
    """

    def __init__(self, samples, organs, entries, seed=0, augment=True):
        self.samples, self.organs, self.entries = samples, organs, entries
        self.seed, self.augment = seed, augment
        # no flips: left and right are answers
        self.transform = v2.Compose(
            [v2.RandomCrop(SIZE), v2.RandomRotation(DEGREES, v2.InterpolationMode.BILINEAR)]
        )

    def __len__(self):
        return len(self.samples)

    def read(self, sample):
        """(image uint8 (3, size, size), target) of a sample."""
        image, target = sample
        size = SIZE + MARGIN if self.augment else SIZE
        pixels = torch.from_numpy(np.array(read_image(image, size)))
        if isinstance(target, Path):
            mask = Image.fromarray(read_mask(target)).resize((size, size), Image.Resampling.NEAREST)
            target = tv_tensors.Mask(torch.from_numpy(np.array(mask)))  # (size, size)
        return pixels.permute(2, 0, 1), target

    def __getitem__(self, key):
        epoch, index = key
        image, target = self.read(self.samples[index])
        image, organ = tv_tensors.Image(image), self.organs[index]
        entry = None
        with torch.random.fork_rng(devices=[]):
            own = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
            torch.default_generator.manual_seed(int(own))  # torch.manual_seed: the GPU's too
            if self.augment:
                image, target = self.transform(image, target)
            if self.entries:
                entry = self.entries[int(torch.randint(len(self.entries), ()))]
        if isinstance(target, tv_tensors.Mask):
            target = target.as_subclass(torch.Tensor).long()
        tokens = torch.tensor(entry.tokens if entry else [0])
        compatible = int(entry is not None and organ in entry.organs) if organ >= 0 else -100
        return image.as_subclass(torch.Tensor).permute(1, 2, 0), target, tokens, compatible


class Loader:
    """Batches of OrganImages: a sequence with a length and slices, read when it is gone through.

    keys: the batches, lists of (epoch, index). A batch is images uint8 (B, 224, 224, 3), targets,
    tokens (B, 12) and compatible (B,), on the CPU. workers: processes that read; None: 4 for a
    GPU, none for a CPU.
    """

    def __init__(self, images, keys, device, workers=None):
        self.images, self.keys, self.device = images, keys, device
        self.workers = workers
        if workers is None:
            self.workers = 0 if device.type == "cpu" else 4

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, part):
        return Loader(self.images, self.keys[part], self.device, self.workers)

    def __iter__(self):
        # without a generator of its own a DataLoader draws from the global random state, and
        # validation would change the training
        loader = DataLoader(
            self.images,
            batch_sampler=self.keys,
            num_workers=self.workers,
            generator=torch.Generator(),
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_signals,
        )
        return iter(loader)


def to_device(batch, device):
    """A Loader's batch on the device, its images normalised float32 (B, 3, 224, 224)."""
    images, *rest = (part.to(device, non_blocking=True) for part in batch)
    return to_float(images).contiguous(memory_format=torch.channels_last), *rest


def _leave_signals(_):
    """A worker leaves Ctrl-C to the main process, which still wants its batches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def in_order(images, device, workers=None, size=32):
    """A Loader that goes once through all images, in order."""
    keys = [(0, index) for index in range(len(images))]
    batches = [keys[start : start + size] for start in range(0, len(keys), size)]
    return Loader(images, batches, device, workers)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Check the organ sets and print their content.")
    text = "folder with abdomen/, brain/ and chest/ (default: data_MTPT)"
    parser.add_argument("--MTPT_dir", metavar="DIR", help=text)
    folder = parser.parse_args(arguments).MTPT_dir
    base = Path(folder or DATA_MTPT)
    there = [name for name in ORGAN_ENCODERS if (base / name).is_dir()]
    for one in find_organ_sets(folder, there or ORGAN_ENCODERS).values():
        print(f"{one.describe()}; classes: {', '.join(one.classes)}")


if __name__ == "__main__":
    run_main(main)
