"""The fuzzer's targets by name: whole files, and the function that reads them."""

from collections import namedtuple
from importlib.util import find_spec

from dataset_MTPT import load_organ_set
from readers.images import read_image, read_mask
from readers.json_files import read_json
from readers.results import read_run
from tests.fuzz import data_targets as data
from tests.fuzz import model_targets as models
from tests.fuzz import result_targets as results
from tests.fuzz import set_targets as sets
from tests.fuzz.contents import DICOMS, as_json, png, saved

# files(): a list of whole cases; run(folder); weight: of the cases; only: see cases.cases
Loader = namedtuple("Loader", "files run weight only", defaults=[""])
PNG = {"x.png": png([[1]])}


def run_organ_set(folder):
    """An organ set's files, each checked."""
    load_organ_set(folder / "set", "brain")


LOADERS = {
    "json": Loader(
        lambda: [{"x.json": as_json(data.TRAIN)}], lambda folder: read_json(folder / "x.json"), 1
    ),
    "public": Loader(lambda: [data.PUBLIC_FILES], data.prepare, 1.5),
    "processed": Loader(lambda: [data.PROCESSED_FILES, data.LINES_FILES], data.prepare, 1.5),
    "own": Loader(lambda: [sets.OWN_FILES], data.prepare, 1),
    "slake": Loader(lambda: [sets.SLAKE_FILES], data.prepare, 1),
    "structures": Loader(lambda: [sets.STRUCTURE_FILES], sets.run_structures, 0.5),
    "vqa_med": Loader(lambda: [sets.VQA_MED_FILES, sets.TESTED_FILES], data.prepare, 1),
    "path_vqa": Loader(lambda: [sets.PATH_VQA_FILES, sets.PICKLED_FILES], data.prepare, 1),
    **({"parquet": Loader(sets.parquet_files, data.prepare, 1)} if find_spec("pyarrow") else {}),
    "archive": Loader(lambda: [data.ARCHIVE_FILES], data.prepare, 1.5),
    "prepared": Loader(lambda: [data.prepared()[1]], data.run_prepared, 1, "prepared/"),
    "images": Loader(lambda: [PNG], lambda folder: read_image(folder / "x.png"), 1.5),
    "masks": Loader(lambda: [PNG], lambda folder: read_mask(folder / "x.png"), 1),
    "dicom": Loader(
        lambda: [{"x.dcm": content} for content in DICOMS.values()],
        lambda folder: read_image(folder / "x.dcm"),
        1.5,
    ),
    "lists": Loader(lambda: data.LIST_FILES, run_organ_set, 1.5),
    "folders": Loader(lambda: [data.FOLDER_FILES], run_organ_set, 1),
    "embedding": Loader(lambda: data.TABLE_FILES, data.run_embedding, 1.5),
    "checkpoint": Loader(lambda: [{"last.pth": saved(models.STATE)}], models.run_checkpoint, 1.5),
    "part": Loader(lambda: [{"best.pth": saved(models.PART)}], models.run_part, 1),
    "pretraining": Loader(lambda: [models.pretraining_files()], models.run_pretraining, 0.3),
    "model": Loader(lambda: [models.whole_model()], models.run_model, 0.3),
    "batch": Loader(models.batch_files, models.run_batch, 1),
    "predictions": Loader(lambda: [results.SCORED_FILES], results.run_predictions, 1),
    "run": Loader(lambda: [results.RUN_FILES], lambda folder: read_run(folder / "run"), 1),
    "report": Loader(
        lambda: [results.SCORED_FILES | results.NEIGHBOUR_FILES | results.RUN_FILES],
        results.run_report,
        0.1,
    ),
}
