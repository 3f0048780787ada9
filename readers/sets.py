"""One function that reads a data set of any form (docs/FORMATS.md section 1)."""

from pathlib import Path

from readers import slake, vqa_med
from readers.archive import IMAGE_INDEX, IMAGE_PICKLE, archive_images, read_archive
from readers.data_folder import OTHERS, form_or_error
from readers.data_set import DataSet, file_images, image_names
from readers.json_files import read_json
from readers.names import fold, shown
from readers.records import ARCHIVE_PICKLES, ORGAN_NAMES, read_records
from utils import ORGAN_CODES, PHANTOM_MARK, PHANTOM_SET, UserError

NAMES = {
    "public": "VQA-RAD, public release",
    "processed": "VQA-RAD, processed split",
    "archive": "VQA-RAD, authors' archive",
}
CHOICES = {  # options of the command line, their values, the usual one first, and whose they are
    "language": (list(slake.LANGUAGES), ("slake", "parquet")),
    "categories": (list(vqa_med.CATEGORIES), ("vqa_med",)),
}


def add_options(add):
    """The arguments of a command line that choose among a set's records. add: a parser's method."""
    for name, (values, _) in CHOICES.items():
        add(f"--{name}", choices=values, default=values[0], help="of --RAD_dir's records alone")
    add("--organ_map", type=Path, help="JSON file: organs of --RAD_dir to ABD, HEAD or CHEST")


def read_set(folder, options, log):
    """(the data set in `folder` as a DataSet, its options as they are kept). Raises UserError.

    options: {"language", "categories", "organ_map": a path, or what such a file holds}; None and
    absent ones are the usual ones, which are not kept.
    """
    kind, kept = form_or_error(folder), {}
    if not isinstance(options, dict):  # of a damaged checkpoint
        raise UserError(f"{folder}: the run's options of the data are damaged; train anew")
    for name, (values, kinds) in CHOICES.items():
        value = options.get(name) or values[0]
        if value not in values:
            raise UserError(f"--{name} {str(value)[:40]}: it is one of {', '.join(values)}")
        if value != values[0] and kind not in kinds:
            raise UserError(
                f"--{name} {value}: {folder} holds no set that has it: name one that does, or "
                "train without it"
            )
        kept |= {name: value} if value != values[0] else {}
    if options.get("organ_map"):
        kept["organ_map"] = read_organ_map(options["organ_map"])
    if kind in OTHERS:
        return OTHERS[kind].read(folder, kept, log), kept
    return _read_rad(folder, kind, kept), kept


def _read_rad(folder, kind, options):
    """VQA-RAD in one of its three forms, or one's own set in the form of the processed split."""
    train, val, test, sources = read_records(folder, kind, options)
    names, words = image_names(train, val, test), [None, None]
    if kind == "archive":
        words = read_archive(folder)
        sources += [folder / name for name in ARCHIVE_PICKLES]
    if kind == "archive" and (folder / IMAGE_PICKLE).is_file():
        # the very pixels that official checkpoints were trained on
        images = archive_images(folder, names)
        sources += [folder / IMAGE_INDEX, folder / IMAGE_PICKLE]
    else:
        images, files = file_images(folder, names)
        sources += files
    rad = any(r["phrase_type"] for r in train) and all(
        r["image_organ"] in ORGAN_CODES for r in train
    )
    title = NAMES[kind] if rad else f"own set {folder.name}"
    if (folder / PHANTOM_MARK).is_file():
        title = PHANTOM_SET
    return DataSet(title, train, val, test, names, images, sources, *words)


def read_organ_map(source):
    """{name: code of one of the three organs} from a JSON file of --organ_map, or from its content.

    Raises UserError for anything else.
    """
    content = source if isinstance(source, dict) else read_json(Path(source))
    where = "--organ_map" if isinstance(source, dict) else f"--organ_map {source}"
    if not isinstance(content, dict) or not content:
        raise UserError(f'{where}: a JSON object is wanted, as {{"lung": "CHEST"}}')
    codes = {
        name: ORGAN_NAMES.get(fold(code)) if isinstance(code, str) else None
        for name, code in content.items()
    }
    if bad := [name for name, code in codes.items() if code is None]:
        raise UserError(f"{where}: {shown(bad)} must each be one of {', '.join(ORGAN_CODES)}")
    return codes
