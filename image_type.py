"""The image-type classifier (MCNet): the organ that an image shows (docs/METHOD.md section 2)."""

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from utils import ORGANS, log


class ImageTypeClassifier(nn.Module):
    """MCNet, the organ that an image shows: (B, 3, 224, 224) -> (B, 3) logits in organ order."""

    def __init__(self, dropout=0.5):
        super().__init__()
        layers = []
        for index, size_in in enumerate((3, 64, 64)):
            layers += [nn.Conv2d(size_in, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64)]
            layers.append(nn.ReLU())
            layers += [nn.MaxPool2d(3, stride=2, padding=1)] if index < 2 else []
        self.conv = nn.Sequential(*layers)  # (B, 64, 7, 7)
        self.fc = nn.Sequential(
            nn.Linear(64 * 49, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, len(ORGANS)),
        )

    def forward(self, images):
        return self.fc(self.conv(images).flatten(1))


def image_organs(questions):
    """{row of an image: its organ} over the images of some questions, in order."""
    return dict(sorted((q.image, q.organ) for q in questions))


def image_reader(data, device):
    """read(rows) -> normalised images (B, 3, 224, 224) of a prepared data set, on the device."""
    from features import ImageStore, to_float  # above this file: base_model imports it

    store = ImageStore(data.images_path)
    return lambda rows: to_float(store[list(rows)].to(device))


def train_image_type(classifier, read, labels, device, seed, epochs=8):
    """Train the image-type classifier alone, in place; it ends in eval mode.

    labels: {key of an image: its organ}; read(keys) -> images (B, 3, 224, 224) on the device.
    An epoch has as many images of every organ, at most 300: organs with fewer images
    repeat them.
    """
    by_organ = [[key for key in labels if labels[key] == organ] for organ in range(len(ORGANS))]
    each = min(300, max(map(len, by_organ)))
    optimizer = torch.optim.Adamax(classifier.parameters(), lr=0.002)
    generator = torch.Generator().manual_seed(seed)
    # on a CPU pooling and batch norm take two thirds of the time in this layout
    classifier.train().to(memory_format=torch.channels_last)
    log("training the image-type classifier")
    for _ in tqdm(range(epochs), desc="image types", unit="epoch", leave=False, disable=None):
        keys = []
        for one in filter(None, by_organ):
            order = torch.randperm(max(each, len(one)), generator=generator)[:each]
            keys += [one[i % len(one)] for i in order.tolist()]
        own_seed = int(torch.randint(2**30, (), generator=generator)) * 100_003
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(own_seed))
        for rows in order.split(32):
            if len(rows) < 2:  # batch norm can't take one
                continue
            batch = [keys[row] for row in rows.tolist()]
            target = torch.tensor([labels[key] for key in batch], device=device)
            images = read(batch).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(classifier(images), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    classifier.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def image_type_accuracy(classifier, read, labels, device, batch_size=64):
    """The share of images whose organ the classifier names, in eval mode.

    `read` and `labels` as in `train_image_type`.
    """
    classifier.eval()
    keys, right = list(labels), 0
    for start in range(0, len(keys), batch_size):
        batch = keys[start : start + batch_size]
        target = torch.tensor([labels[key] for key in batch], device=device)
        right += (classifier(read(batch)).argmax(1) == target).sum().item()
    return right / len(keys)


def train_on_questions(classifier, questions, data, device, seed):
    """Train the classifier on the images of some questions, in place, and log its accuracy there.

    data: their RadData.
    """
    labels, read = image_organs(questions), image_reader(data, device)
    train_image_type(classifier, read, labels, device, seed)
    right = 100 * image_type_accuracy(classifier, read, labels, device)
    log(f"image-type classifier: trained, right on {right:.1f}% of the training images")
