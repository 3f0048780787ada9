"""What the model sees of the images: prepared pixels, frozen feature maps, image types.

`model_inputs` serves training, evaluation, the report and the benchmark alike.
"""

import functools
import os
from pathlib import Path

import h5py
import numpy as np
import torch
from tqdm import tqdm

from parallel import first_alone
from readers.digests import digest_bytes, digest_state
from readers.h5_files import is_current, write_rows
from utils import MEAN, SIZE, STD, first_writable, log


@functools.cache
def _mean_and_std(device):
    """ImageNet's, times 255, float32 (1, 3, 1, 1) each; kept, as a copy to a GPU makes it wait."""
    with torch.inference_mode(False):  # training may use what evaluation made first
        both = [torch.tensor(values, device=device).mul_(255) for values in (MEAN, STD)]
        return [values.view(1, 3, 1, 1) for values in both]


def to_float(images):
    """uint8 (B, 224, 224, 3) -> float32 (B, 3, 224, 224), ImageNet-normalised, same device."""
    mean, std = _mean_and_std(images.device)
    images = images.permute(0, 3, 1, 2)
    return images.to(torch.float32, memory_format=torch.contiguous_format).sub_(mean).div_(std)


def send(tensor, device):
    """A tensor of the CPU on `device`; to a GPU from pinned memory, so the copy does not block."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class ImageStore:
    """Images of a prepared HDF5 file: `store[rows]` -> uint8 tensor (len(rows), 224, 224, 3).

    The file is opened at first use, in each process anew, so that DataLoader workers may inherit
    or unpickle the store.
    """

    def __init__(self, path):
        self.path, self._file, self._pid = Path(path), None, None

    def __getitem__(self, rows):
        if self._pid != os.getpid():
            self._file, self._pid = h5py.File(self.path, "r", locking=False), os.getpid()
        images = self._file["images"]
        out = np.empty((len(rows), *images.shape[1:]), np.uint8)
        for i, row in enumerate(rows):  # h5py takes only sorted lists without repetition
            out[i] = images[int(row)]
        return torch.from_numpy(out)

    def __getstate__(self):
        return {"path": self.path, "_file": None, "_pid": None}


class Inputs:
    """The model's inputs for rows of images: `inputs(rows)` -> keyword arguments of its forward.

    {"images": (B, 3, 224, 224), "maps": (B, E, width, 7, 7), "organ_logits": (B, 3)}.
    maps: HDF5 dataset of frozen encoders' maps, in place of the encoders.
    organ_logits: (N, 3) of all images, in place of a frozen image-type classifier.
    Images are read if either is not cached. A GPU with enough room holds all of them at once.
    With `blank` every input is zero: the question-only baseline.
    """

    def __init__(self, data, device, maps=None, organ_logits=None, distmodal=True, blank=False):
        self.store, self.device, self.blank = ImageStore(data.images_path), device, blank
        self.maps, self.organ_logits = maps, organ_logits
        self.want_images = maps is None or (distmodal and organ_logits is None)
        if device.type == "cuda":
            room = torch.cuda.mem_get_info(device)[0] // 4  # bytes
            count = len(data.image_names)
            if maps is not None and maps.size * 2 < room:
                self.maps = torch.from_numpy(maps[:]).to(device)
            elif self.want_images and count * SIZE * SIZE * 3 < room:
                self.store = self.store[range(count)].to(device)

    def __call__(self, rows):
        out = {"images": None, "maps": None, "organ_logits": None}
        at = send(torch.tensor(list(map(int, rows))), self.device)
        if self.want_images:
            cached = isinstance(self.store, torch.Tensor)
            out["images"] = to_float(
                self.store[at] if cached else send(self.store[rows], self.device)
            )
        if isinstance(self.maps, torch.Tensor):
            out["maps"] = self.maps[at].float()
        elif self.maps is not None:
            # h5py takes a hundred times as long for a list of rows
            maps = np.stack([self.maps[int(row)] for row in rows])
            out["maps"] = send(torch.from_numpy(maps), self.device).float()
        if self.organ_logits is not None:
            out["organ_logits"] = self.organ_logits[at]
        if self.blank:
            out = {k: None if v is None else torch.zeros_like(v) for k, v in out.items()}
        return out


def model_inputs(image_side, data, device, frozen, blank=False):
    """The Inputs of a model with this ImageSide. Frozen maps and image types are computed once."""
    distmodal = image_side.image_type is not None
    if not frozen:
        return Inputs(data, device, distmodal=distmodal, blank=blank)
    with first_alone():
        path = encode_images(image_side, data, device)
    organs = organ_logits(image_side.image_type, data, device) if distmodal else None
    maps = h5py.File(path, "r", locking=False)["maps"]
    return Inputs(data, device, maps, organs, distmodal, blank)


def image_batches(data, device, batch_size, title):
    """All images in order, behind a progress bar: images (B, 3, 224, 224) on the device."""
    count, store = len(data.image_names), ImageStore(data.images_path)
    for start in tqdm(range(0, count, batch_size), title, leave=False, unit="batch", disable=None):
        yield to_float(store[range(start, min(start + batch_size, count))].to(device))


def encode_images(image_side, data, device, batch_size=16):
    """The frozen encoders' maps of all images, computed once.

    Returns the path of an HDF5 file with `maps` float16 (N, E, width, 7, 7). It lies among the
    prepared files, or in the cache when those can't be written. The encoders' weights and the
    data's digest make its name.
    """
    count = len(data.image_names)
    key = digest_bytes("float16", digest_state(image_side.encoders.state_dict()), data.digest)
    for folder in data.folders:
        if is_current(path := folder / f"maps_{key}.h5", "maps", count, key):
            return path
    path = first_writable(data.folders) / path.name
    log(f"Encoding {count} images once, into {path}")
    was_training = image_side.training
    image_side.eval()
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # for later float32 runs
    with torch.inference_mode(), exact:
        maps = (
            one
            for images in image_batches(data, device, batch_size, "encoding images once")
            for one in image_side.maps(images).half().cpu().numpy()  # (E, width, 7, 7)
        )
        write_rows(path, "maps", maps, count, key)
    image_side.train(was_training)
    return path


@torch.no_grad()
def organ_logits(classifier, data, device, batch_size=32):
    """A frozen image-type classifier's logits (N, 3) for all images, in eval mode."""
    classifier.eval()
    batches = image_batches(data, device, batch_size, "image types")
    return torch.cat([classifier(images) for images in batches])
