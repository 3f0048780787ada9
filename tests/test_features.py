"""features.py: cached maps and images are the ones that the encoders would give."""

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from engine import predict
from features import ImageStore, Inputs, encode_images, model_inputs, to_float
from readers.checkpoints import make_model, read_checkpoint
from utils import MEAN, STD

CPU = torch.device("cpu")


def test_maps_come_in_the_order_asked_for(data, tmp_path):
    """Rows of any order and kind, some of them twice, against the whole array."""
    whole = torch.rand(5, 1, 4, 7, 7)
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["maps"] = whole.numpy()
    maps = h5py.File(tmp_path / "maps.h5", "r")["maps"]
    inputs = Inputs(data, CPU, maps, torch.rand(5, 3))
    for rows in ([3, 0, 3, 4], torch.tensor([1, 1]).numpy(), range(4, 0, -1)):
        assert torch.equal(inputs(rows)["maps"], whole[list(map(int, rows))])
    inputs.want_images, asked = True, ([3, 0, 3, 4], range(4, 0, -1))
    from_disk = [inputs(rows) for rows in asked]
    # as where a GPU has room for all
    inputs.maps, inputs.store = torch.from_numpy(inputs.maps[:]), inputs.store[range(5)]
    for rows, expected in zip(asked, from_disk):
        for name, value in inputs(rows).items():
            assert torch.equal(value, expected[name])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_gpu_sees_what_the_cpu_sees(data):
    devices = (CPU, torch.device("cuda"))
    seen = [Inputs(data, device)([3, 0, 3, 4])["images"].cpu() for device in devices]
    assert torch.allclose(*seen, atol=1e-5)


def test_blank_images_make_every_image_the_same(data):
    seen = Inputs(data, CPU, blank=True)([0, 3])
    assert seen["images"].shape == (2, 3, 224, 224) and not seen["images"].any()


def test_predictions_do_not_depend_on_the_batch_or_the_cache(run, data):
    """Grouped by image and from cached maps, against one question at a time through encoders."""
    model = make_model(read_checkpoint(run / "best.pth"), run / "best.pth")
    some = [q._replace(tokens=q.tokens[:5]) for q in data.test[::17][::-1] + data.test[:2]]
    inputs = model_inputs(model.image, data, CPU, frozen=True)
    grouped = predict(model, some, inputs, CPU, batch_size=2)
    plain = model_inputs(model.image, data, CPU, frozen=False)
    with torch.inference_mode():
        for question, row in zip(some, grouped):
            tokens = torch.tensor([question.tokens])
            single = model(questions=tokens, **plain([question.image])).logits.sigmoid()[0]
            assert torch.allclose(single, row, atol=1e-5)


def test_maps_are_computed_once_and_anew_for_other_weights(run, data):
    model = make_model(read_checkpoint(run / "best.pth"), run / "best.pth")
    path = encode_images(model.image, data, CPU)
    written = path.stat().st_mtime_ns
    assert encode_images(model.image, data, CPU) == path and path.stat().st_mtime_ns == written
    kept = path.read_bytes()
    path.write_bytes(kept[:-2000] + bytes(2000))  # damaged: made anew, with the same content
    assert encode_images(model.image, data, CPU) == path and path.read_bytes() == kept


def test_images_are_read_by_row(development):
    rows = [7, 0, 7, 313]
    images = ImageStore(development.images_path)[rows]
    assert images.dtype == torch.uint8 and images.shape == (4, 224, 224, 3)
    for image, row in zip(images, rows):
        with Image.open(development.folder / "images" / development.image_names[row]) as picture:
            expected = picture.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        assert np.array_equal(image.numpy(), np.asarray(expected))
    floats = to_float(images)
    assert floats.shape == (4, 3, 224, 224) and floats.dtype == torch.float32
    assert floats.is_contiguous()
    expected = (images[1, 5, 9].double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.allclose(floats[1, :, 5, 9].double(), expected, atol=1e-5)


class Rows(torch.utils.data.Dataset):
    """The first eight images of a store, for a DataLoader's workers."""

    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.store[[i]][0]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_image_store_in_workers(development, context):
    store = ImageStore(development.images_path)
    expected = store[range(8)]  # opened here first, then inherited
    options = {"batch_size": 4, "num_workers": 2, "multiprocessing_context": context}
    loader = torch.utils.data.DataLoader(Rows(store), **options)
    assert torch.equal(torch.cat(list(loader)), expected)
