"""Draws the embedded default data set, in the form of the public VQA-RAD release.

    python -m tools.phantom_RAD [--output DIR] [--seed 0] [--images 320]

Nothing in it comes from a patient. It lets the whole program run without data and without a
network. A model that looks at the pictures beats one that only reads the questions.
"""

import argparse

from readers.records import IMAGE_FOLDER, PUBLIC_JSON, find_form
from tools import phantom_draw, phantom_find, phantom_questions, phantom_scenes
from tools.phantom_draw import draw_picture, whole_folder
from tools.phantom_questions import records
from tools.phantom_scenes import scenes
from utils import HERE, PHANTOM_MARK, run_main, write_json

MARK = "Drawings, not radiology: made by phantom_RAD.py"
SOURCES = [__file__, *(m.__file__ for m in (phantom_draw, phantom_questions, phantom_scenes))]
BANNER = """
+----------------------------------------------------------------------------------------------+
  THE PHANTOM SET IS IN USE: simple drawings with made-up questions, in {folder}
  It shows that the program works. Scores on it mean nothing for radiology, and no published
  number compares with them. For real results put VQA-RAD (https://osf.io/89kps/) into
  {home}:
    'VQA_RAD Dataset Public.json' and 'VQA_RAD Image Folder/' (the public release), or
    trainset.json, testset.json and images/ (the processed split); or name its folder by --RAD_dir.
+----------------------------------------------------------------------------------------------+"""


def draw(folder, seed=0, images=320):
    """Write the data set into `folder`: the JSON file and the folder of JPEG pictures.

    `folder` must not exist or be empty; it is written whole or not at all. The same seed gives
    the same bytes. Raises UserError when the folder or the numbers can't be used.
    """
    pictures = scenes(seed, images)
    with whole_folder(folder) as whole:
        (whole / IMAGE_FOLDER).mkdir()
        for scene in pictures:
            draw_picture(scene, seed).save(whole / IMAGE_FOLDER / scene.name, quality=90)
        write_json(whole / PUBLIC_JSON, records(pictures, seed))
        # its presence tells dataset_RAD.py that the pictures are drawings
        (whole / PHANTOM_MARK).write_text(f"{MARK}\n")


def find_or_draw(home):
    """The folder of the phantom set in `home`; drawn when it is missing or another version's.

    Raises UserError when `home` can't be written.
    """
    folder = home / "phantom"
    if not find_form(folder):  # it is not whole
        (folder / PHANTOM_MARK).unlink(missing_ok=True)
    return phantom_find.find_or_draw(home, draw, MARK, SOURCES)


def main():
    parser = argparse.ArgumentParser(
        description="Draw the embedded default data set (not patient data) in VQA-RAD's form."
    )
    add = parser.add_argument
    default = HERE / "data_RAD" / "phantom"
    add("--output", default=default, help="folder to make (default: %(default)s)")
    add("--seed", type=int, default=0, help="0 or more (default: %(default)s)")
    help_images = f"at least {phantom_scenes.FEWEST_IMAGES} (default: %(default)s)"
    add("--images", type=int, default=320, help=help_images)
    args = parser.parse_args()
    draw(args.output, args.seed, args.images)
    print(f"drew {args.images} images and their questions into {args.output}")


if __name__ == "__main__":
    run_main(main)
