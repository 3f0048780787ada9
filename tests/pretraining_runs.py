"""Small organ sets, and one whole pre-training on them for all tests that want one."""

import functools
import sys

import pytest

SMALL = "--num_hid 32 --gpu -1 --encoder efficientnet_lite0 --precision float32".split()
SMALL += "--warmup 2 --batch_size 4 --epochs 2".split()


def call(*arguments):
    """pretrain.py in this process; raises what it raises."""
    import pretrain

    before, sys.argv = sys.argv, ["pretrain.py", *map(str, arguments)]
    try:
        pretrain.main()
    finally:
        sys.argv = before


@pytest.fixture(scope="session")
def organ_sets(tmp_path_factory):
    """Phantom organ sets of 4, 6 and 4 training and 2, 3 and 2 held-out images: their folder."""
    from tools.phantom_MTPT import draw_organs

    folder = tmp_path_factory.mktemp("organs") / "phantom"
    draw_organs(folder, seed=1, images=15)
    for part, count in (("train", 2), ("val", 1)):
        path = folder / "abdomen" / f"{part}.txt"
        path.write_text("\n".join(path.read_text().splitlines()[: 2 * count]))
        for organ in ("brain", "chest"):
            for place in (folder / organ / part).iterdir():
                for image in sorted(place.iterdir())[count:]:
                    image.unlink()
    return folder


@pytest.fixture(scope="session")
def pretrained(organ_sets, tiny, tmp_path_factory):
    """A whole run of two epochs: (weights' folder, results' folder)."""
    import pretrain

    folder = tmp_path_factory.mktemp("MTPT")
    options = ["--MTPT_dir", organ_sets, "--RAD_dir", tiny, *SMALL]
    options += ["--output", folder / "weights", "--results", folder / "results"]
    with pytest.MonkeyPatch.context() as patch:
        # the classifier's epochs take most of the time and are tested elsewhere
        one_epoch = functools.partial(pretrain.train_image_type, epochs=1)
        patch.setattr(pretrain, "train_image_type", one_epoch)
        call(*options)
    return folder / "weights", folder / "results"
