"""Runs of pre-training that go on: their settings, their checkpoints, and whether they fit."""

from decoders import PretrainingModel
from readers.checkpoints import check_same, load_part, read_checkpoint, sizes_of
from readers.json_files import read_json
from utils import ORGAN_ENCODERS, UserError, reason

LABELS = "vqa"  # a run's name with --VQA_dir, as "abdomen" is an organ's


def begun(output, organ):
    """True where an organ's run, or the image-type classifier's, can go on or is done."""
    return (output / f"{organ}.pth").exists() or (output / organ / "last.pth").exists()


def newest_settings(output, any_run=True):
    """(settings, run.json) of the newest run in the folder `output`; ({}, None) without a run.

    Organs that are not begun take them. Their "encoder" is the run's, for train.py wants three
    of one kind. any_run: False leaves a run of VQA sets aside. Raises UserError for a damaged
    run.json.
    """
    names = (*ORGAN_ENCODERS, *((LABELS,) if any_run else ()))
    runs = [path for name in names if (path := output / name / "run.json").is_file()]
    if not runs:
        return {}, None
    run = read_json(path := max(runs, key=lambda path: path.stat().st_mtime))
    if not isinstance(run, dict) or not isinstance(run.get("settings"), dict):
        raise UserError(
            f"{path} is not a file of this program: remove it, or name another --output"
        )
    return run["settings"] | {"encoder": run.get("encoder")}, path


def read_run(output, organ):
    """(an organ's checkpoint, its path), or (None, path of last.pth) where none is begun.

    The finished organ's file comes before last.pth. Raises UserError for a damaged one.
    """
    path, last = output / f"{organ}.pth", output / organ / "last.pth"
    if path.exists():
        return read_checkpoint(path, "encoder"), path
    return (read_checkpoint(last, "pretraining") if last.exists() else None), last


def old_model(kept, wanted, path):
    """(PretrainingModel of a checkpoint that goes on, its arguments).

    wanted(encoder, word_dim): the arguments that it must have. Raises UserError.
    """
    try:
        arguments = wanted(kept["encoder"], kept["model_arguments"]["word_dim"])
        sizes = sizes_of(lambda: PretrainingModel(**arguments))
        ours = {key: value.shape for key, value in kept["model"].items()}
        if arguments != kept["model_arguments"] or sizes != ours:
            raise ValueError("its weights or model_arguments are others")
    except Exception as error:
        raise UserError(
            f"{path} does not fit this run ({reason(error)}): it is damaged; start anew with "
            "another --output"
        ) from None
    model = PretrainingModel(**arguments)
    load_part(model, kept["model"], str(path))
    return model, arguments


def check_same_settings(args, kept, free, path):
    """Raise UserError when a run would go on with other settings than it has, naming them.

    kept: its checkpoint; free: the settings that may change. A default of then may be named now.
    """
    then = dict(kept["settings"])
    for name in ("encoder", "epochs", "encoder_rate"):
        if getattr(args, name) == kept.get(name):
            then[name] = kept.get(name)
    check_same(args, then, set(then) - free, path)


def check_same_data(kept, organ_set, data, path):
    """Raise UserError when a run would go on with other images or other questions."""
    images = "--VQA_dir" if organ_set.task == "labels" else "--MTPT_dir"
    ours = {"data": (images, organ_set.digest), "questions": ("--RAD_dir", data.digest)}
    for key, (argument, digest) in ours.items():
        about = kept.get(key) if isinstance(kept.get(key), dict) else {}
        if about.get("digest") != digest:
            raise UserError(
                f"{path} began with other {key} ({about.get('folder')}): name them by {argument}"
            )
