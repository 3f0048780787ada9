"""Image tasks from VQA sets: the labels that a set's own answers give its images.

docs/PRETRAINING.md says which answers count, and which images are left out.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from dataset_MTPT import MARGIN, OrganImages, OrganSet
from extra_data import find_other
from features import ImageStore
from readers.data_folder import find_form
from readers.digests import digest_bytes
from readers.names import fold
from readers.pretraining import LABELS
from readers.shared_images import find_shared
from readers.slake import read_structures
from utils import ORGAN_CODES, SIZE, UserError, log

FEWEST = 8  # training images that a label needs
# VQA-Med's organ systems that lie within one of the three organs
ORGAN_SYSTEMS = {
    "skull and contents": "HEAD",
    "face, sinuses, and neck": "HEAD",
    "lung, mediastinum, pleura": "CHEST",
    "heart and great vessels": "CHEST",
    "gastrointestinal": "ABD",
    "genitourinary": "ABD",
}


class LabelledImage(NamedTuple):
    """An image: row `image` of the prepared file `path`, and its organ's place in ORGANS, or -1.

    target: float32 (labels,); the labels of each task that the image has add up to 1.
    """

    path: Path
    image: int
    target: np.ndarray
    organ: int


@dataclass
class LabelSet(OrganSet):
    """VQA sets as one organ set with the task "labels"; `classes` is {task: its labels}.

    left_out: number of images that the data set in use has too.
    """

    left_out: int = 0

    def sizes(self):
        return [len(labels) for labels in self.classes.values()]

    def images(self, samples, entries, seed=0, augment=True):
        return LabelledImages(samples, entries, seed, augment)

    def about(self):
        return super().about() | {"images left out": self.left_out}

    def describe(self):
        return (
            f"{len(self.classes)} image tasks with {sum(self.sizes())} labels, "
            f"{len(self.train):,} training and {len(self.val):,} held-out images, {self.left_out} "
            f"left out, for --RAD_dir has them too; {self.folder} ({self.digest})"
        )


def find_label_set(folders, target):
    """The LabelSet of the VQA sets in some folders, for encoders that `target` (RadData) will use.

    Training questions label the training images. Held out are the images of a set's validation
    part, else of its test part. Images that `target` shows too are left out, in whatever copy; of
    `target`'s own folder those that it validates or tests on. Raises UserError.
    """
    found, left_out, digests, places, phantom = {"train": [], "val": []}, 0, [], [], False
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        options = {"categories": "all"} if find_form(folder) == "vqa_med" else {}
        data, shared = find_other(folder, "--VQA_dir", options), set()
        tested = {question.image for question in data.validation + data.test}
        if data.folder == target.folder:  # in another language its split is another
            names = {question.image_name for question in target.validation + target.test}
            shared = {row for row, name in enumerate(data.image_names) if name in names} - tested
        elif data.digest != target.digest:
            shared = find_shared(data.images_path, target.images_path)
        trained, held = (label_images(data, q) for q in (data.train, data.validation or data.test))
        for part, images, barred in (("train", trained, tested | shared), ("val", held, shared)):
            found[part] += [(data, row, *images[row]) for row in sorted(set(images) - barred)]
        gone = (set(trained) | set(held)) & shared
        left_out += len(gone)
        counts = f"{len(trained):,} training and {len(held):,} held-out images have labels"
        log(f"--VQA_dir {data.folder}: {counts}; {len(gone):,} of these are left out")
        digests.append(data.digest)
        places.append(str(data.folder))
        phantom = phantom or data.phantom
    classes = choose_labels(tasks for *_, tasks in found["train"])
    parts = {part: _samples(images, classes) for part, images in found.items()}
    if not all(parts.values()):
        raise UserError(
            f"--VQA_dir {' '.join(places)}: a task needs two labels on {FEWEST} training images "
            f"each, and one of them on a held-out image, and no task has them ({left_out} images "
            "of --RAD_dir are left out); name another set"
        )
    targets = [image.target.tobytes() for image in parts["train"] + parts["val"]]  # masks too
    digest, where = digest_bytes(*digests, *targets), " ".join(places)
    about = LABELS, "labels", classes, parts["train"], parts["val"], where, phantom, digest
    return LabelSet(*about, left_out=left_out)


def label_images(data, questions):
    """{row of an image: (its organ's place in ORGANS or -1, {task: Counter of labels})}.

    A task is a question type, whose labels are the answers. Others are the organ and modality of
    the records, and the structures of SLAKE's masks. Yes and no are no labels.
    """
    organs, found = {}, defaultdict(lambda: defaultdict(Counter))
    for question in questions:
        tasks = found[question.image]
        for kind in question.question_types:
            if question.answer not in ("yes", "no"):
                tasks[kind][question.answer] += 1
        if question.modality:
            tasks["modality of the record"][fold(question.modality)] = 1
        code = ORGAN_SYSTEMS.get(fold(question.organ_name))
        organs[question.image] = ORGAN_CODES.index(code) if code else question.organ
        if question.organ >= 0:
            tasks["organ of the record"][ORGAN_CODES[question.organ]] = 1
    names, title = {data.image_names[row]: row for row in found}, data.name.split(",")[0]
    for name, structures in read_structures(data.folder, names, log).items():
        found[names[name]]["structures of the mask"].update(structures)
    return {
        row: (organs[row], {f"{title}: {task}": labels for task, labels in tasks.items()})
        for row, tasks in found.items()
    }


def choose_labels(images):
    """{task: its labels} of {task: Counter} of all training images; a task has at least two.

    A label stands on at least FEWEST images. A rarer one counts by its words of three letters or
    more, where these stand on so many.
    """
    images, counts = list(images), defaultdict(Counter)
    for tasks in images:
        for task, labels in tasks.items():
            counts[task].update(labels.keys())
    names = defaultdict(Counter)
    for tasks in images:
        for task, labels in tasks.items():
            rare = [label.split() for label in labels if counts[task][label] < FEWEST]
            words = {word for some in rare for word in some if len(word) > 2}
            names[task].update(words | set(labels))
    chosen = {
        task: sorted(name for name, count in some.items() if count >= FEWEST)
        for task, some in names.items()
    }
    return {task: labels for task, labels in chosen.items() if len(labels) > 1}


def _samples(images, classes):
    """LabelledImages of (RadData, row, organ, {task: Counter}); those without a label go."""
    samples = []
    for data, row, organ, tasks in images:
        targets = []
        for task, labels in classes.items():
            shares = dict.fromkeys(labels, 0)
            for label, count in tasks.get(task, {}).items():
                for name in [label] if label in shares else label.split():
                    if name in shares:
                        shares[name] += count
            targets.append(np.array(list(shares.values())) / max(1, sum(shares.values())))
        target = np.concatenate([*targets, []]).astype(np.float32)
        if target.any():
            samples.append(LabelledImage(data.images_path, row, target, organ))
    return samples


class LabelledImages(OrganImages):
    """As OrganImages, of LabelledImage: targets are float32 (labels,).

    `compatible` is -100, which the loss leaves aside, for an image of no known organ.
    """

    def __init__(self, samples, entries, seed=0, augment=True):
        organs = [sample.organ for sample in samples]
        super().__init__(samples, organs, entries, seed, augment)
        self.stores = {path: ImageStore(path) for path in {sample.path for sample in samples}}

    def read(self, sample):
        image = self.stores[sample.path][[sample.image]][0].permute(2, 0, 1)  # (3, 224, 224)
        size = SIZE + MARGIN if self.augment else SIZE
        image = functional.resize(image, [size, size], antialias=True)
        return image, torch.from_numpy(sample.target)
