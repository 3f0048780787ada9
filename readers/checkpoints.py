"""Checkpoints: saving, checking, and the models that they hold.

docs/FORMATS.md section 4 lists what is in them.
"""

from pathlib import Path

import torch

from base_model import CHANNELS, VQAModel
from extras import RetrievalPrior, WithPrior
from readers.json_files import check_version
from readers.safe_load import load_checkpoint
from utils import ORGANS, UserError, atomic_path, log, reason, shorten

PLAIN = (str, int, float, type(None))
# {kind of file: (who writes it, {key: type})}; a key with None in its types may be empty
SCHEMAS = {
    "run": (
        "train.py writes last.pth and best.pth",
        {
            "model": dict,
            "model_arguments": dict,
            "prior_arguments": (dict, type(None)),
            "dictionary": list,
            "answers": list,
            "data": dict,
            "settings": dict,
            "start": str,
            "epoch": int,
        },
    ),
    "pretraining": (
        "pretrain.py writes it",
        {
            "model": dict,
            "model_arguments": dict,
            "settings": dict,
            "encoder": str,
            "epochs": int,
            "encoder_rate": float,
            "data": dict,
            "questions": dict,
            "start": str,
            "epoch": int,
        },
    ),
    "encoder": (
        "pretrain.py writes saved_models/MTPT/*.pth",
        {
            "state": dict,
            "encoder": str,
            "adapter": (dict, type(None)),
            "phantom": bool,
            "compatibility": (dict, type(None)),
            "dictionary": list,
            "settings": dict,
        },
    ),
    "image_type": (
        "pretrain.py writes saved_models/MTPT/image_type.pth",
        {"encoder": str, "state": dict, "phantom": bool, "digests": dict},
    ),
}
SETTINGS = {  # of a run: those that are used after training
    "split": str,
    "seed": int,
    "val_fraction": float,
    "question_len": int,
    "question_only": bool,
    "image_only": bool,
    "freeze_encoders": bool,
    "recipe": str,
    "epochs": int,
    "form_rule": bool,
}


def save_checkpoint(path, state):
    """Save a dictionary of tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def read_checkpoint(path, kind="run"):
    """A checkpoint of ours, checked. `kind` is one of SCHEMAS; a run's folder means best.pth.

    Raises UserError when the file is none, is damaged, or is another version's.
    """
    path = path / "best.pth" if path.is_dir() else path
    return check_checkpoint(load_checkpoint(path), path, kind)


def check_checkpoint(state, path, kind="run"):
    """`state` if it is a checkpoint of this kind. Raises UserError as `read_checkpoint` does."""
    writer, schema = SCHEMAS[kind]
    if is_official(state):
        raise UserError(
            f"{path} is a checkpoint of the official code, which holds neither its words nor "
            "its answers: test.py --input can evaluate it, here one of train.py's is wanted"
        )
    if not isinstance(state, dict) or "version" not in state:
        raise UserError(f"{path} is not a checkpoint of this program: {writer}")
    check_version(state["version"], path)
    if not set(schema) <= set(state):
        raise UserError(f"{path} is not a checkpoint of this kind: {writer}")
    for key, types in schema.items():
        if not isinstance(state[key], types):
            raise UserError(f"{path} is damaged: its {key} is a {type(state[key]).__name__}")
    for key in {"dictionary", "answers"} & set(schema):
        if not all(isinstance(word, str) for word in state[key]):
            raise UserError(f"{path} is damaged: its {key} is not a list of texts")
    for key in {"model", "state"} & set(schema):
        if not is_state_dict(state[key]):
            raise UserError(f"{path} is damaged: its {key} is not a dictionary of tensors")
    for key in {"model_arguments", "prior_arguments", "settings"} & set(schema):
        if not all(map(_is_plain, (state[key] or {}).values())):
            raise UserError(f"{path} is damaged: its {key} are not plain values")
    if kind == "run":
        _check_run(state, path)
    return state


def _is_plain(value):
    """True for a setting's value: a text, a number, None, or a list of such."""
    return isinstance(value, PLAIN) or (
        isinstance(value, list) and all(isinstance(one, PLAIN) for one in value)
    )


def _check_run(state, path):
    """Raise UserError for settings or data of a run that can't be."""
    settings = state["settings"]
    for key, wanted in SETTINGS.items():
        if not isinstance(settings.get(key), wanted):
            raise UserError(
                f"{path} is damaged: its setting {key} is not of type {wanted.__name__}"
            )
    if not 0 <= settings["val_fraction"] < 1 or not 0 < settings["question_len"] <= 10_000:
        raise UserError(f"{path} is damaged: its val_fraction or question_len is out of range")
    temperature = state.get("temperature", 1.0)
    if type(temperature) not in (int, float) or not 0.01 <= temperature <= 100:
        raise UserError(f"{path} is damaged: its temperature is not a number from 0.01 to 100")
    if not isinstance(state.get("changed", {}), dict):
        raise UserError(f"{path} is damaged: its changed settings are no dictionary")
    if not all(isinstance(state["data"].get(key), str) for key in ("name", "digest", "folder")):
        raise UserError(f"{path} is damaged: its data are not named")


def is_state_dict(value):
    """True for a dictionary of names and tensors."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    )


def is_official(state):
    """True for a checkpoint of the official code: {"model_state": ...} or its bare state dict."""
    state = state.get("model_state", state) if isinstance(state, dict) else None
    return isinstance(state, dict) and any(
        str(key).removeprefix("module.").startswith("w_emb.") for key in state
    )


def use_settings(parser, settings, path, check):
    """Make the settings in a checkpoint the defaults of a parser.

    check(args) raises UserError for a number out of range. Raises UserError, naming `path`, for
    a setting that no command line could give.
    """
    settings = dict(settings)
    for action in (action for action in parser._actions if action.dest in settings):
        value = settings[action.dest]
        values = value if action.nargs == "+" else [value]
        wrong = not isinstance(values, list) or any(_is_wrong(action, one) for one in values)
        if value is None:  # only what has no default may stay open
            wrong = parser.get_default(action.dest) is not None
        if wrong:
            raise UserError(f"{path} is damaged: its setting {action.dest} is {str(value)[:40]!r}")
        if action.nargs == "+" and value:  # argparse converts texts, and no lists
            settings[action.dest] = list(map(action.type, value))
    parser.set_defaults(**settings)
    try:
        check(parser.parse_args([]))
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _is_wrong(action, value):
    """True for a value that no command line could give an argument of a parser."""
    kinds = {int: int, float: (int, float), Path: str, None: (str, bool)}[action.type]
    wrong = not isinstance(value, kinds) or (isinstance(value, bool) and action.type)
    wrong = wrong or "\0" in str(value)  # no path may have it
    return wrong or (action.choices and value not in action.choices)


def settings_of(args):
    """The settings as plain values and lists of texts, for checkpoints and run.json."""

    def plain(value):
        value = list(map(str, value)) if isinstance(value, list) else value
        return str(value) if isinstance(value, Path) else value

    return {key: plain(value) for key, value in vars(args).items()}


def check_same(args, settings, names, where):
    """Raise UserError when settings differ from those of the checkpoint that weights come from.

    A precision that the machine chose may be another now, for nobody asked for it.
    """
    now = settings_of(args)
    names = set(names) - ({"precision"} if settings.get("precision") == "auto" else set())
    if differ := [name for name in sorted(names) if now.get(name) != settings.get(name)]:
        pairs = [(as_option(n, settings.get(n)), as_option(n, now.get(n))) for n in differ]
        listed = ", ".join(f"{then} (then) and {new} (now)" for then, new in pairs)
        raise UserError(f"{where} can't go on with other settings: {listed}; give the former")


def as_option(name, value):
    """A setting as the command line has it: "--blocks 2", "--gate", "--no-gate"."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"


def find_checkpoint(path, epoch, runs):
    """The checkpoint file and the run's name for --input and --epoch (docs/FAITHFUL.md).

    Without --input (`path` None) the newest run in the folder `runs` is taken. A name that is
    not there is looked for in `runs` too. A folder of the official code holds model_epochN.pth;
    its last epoch is taken without --epoch, and logged. Raises UserError, listing what there is.
    """
    if path is None:
        files = [*runs.glob("*/best.pth")] or [*runs.glob("*/last.pth")]
        found = sorted(files, key=lambda file: file.stat().st_mtime)
        if not found:
            raise UserError(
                f"{runs} holds no run yet: run ./train.sh first, or name a run or a checkpoint "
                "with --input"
            )
        path = found[-1].parent
    elif not path.exists() and (runs / path).exists():
        path = runs / path
    if path.is_file():
        if epoch is not None:
            raise UserError(f"--epoch is for run folders, and --input {path} is a file")
        if not (path.parent / "run.json").is_file():
            return path, path.stem
        run = path.resolve().parent.name
        return path, run if path.name == "best.pth" else f"{run}_{path.stem}"
    if not path.is_dir():
        raise UserError(f"no such run folder or checkpoint: {path}")
    official = {
        int(number): file
        for file in sorted(path.glob("model_epoch*.pth"))
        if (number := file.stem.removeprefix("model_epoch").lstrip("_")).isdecimal()
    }
    if epoch is None and (path / "best.pth").is_file():
        return path / "best.pth", path.resolve().name
    if epoch is None and official:
        epoch = max(official)
        log(f"NOTE: {official[epoch]} is taken, the last epoch there; --epoch names another")
    if epoch is None:
        there = shorten([file.name for file in sorted(path.glob("*.pth"))])
        raise UserError(
            f"{path} holds no best.pth and no model_epochN.pth of the official code: it is not a "
            "run folder, or its first epoch has not ended yet"
            + (f" (train.py --resume --output {path})" if "last.pth" in there else "")
            + (f"; name one of its files with --input: {there}" if there else "")
        )
    files = [*sorted(path.glob("epoch_*.pth")), path / "last.pth", path / "best.pth"]
    found = {read_checkpoint(file)["epoch"]: file for file in files if file.is_file()}
    found = official | found
    if epoch not in found:
        there = ", ".join(map(str, sorted(found))) or "none"
        raise UserError(f"{path} has no --epoch {epoch}; counted from 0 there are: {there}")
    return found[epoch], f"{path.resolve().name}_epoch_{epoch}"


def build(model_arguments, prior_arguments, temperature=1.0):
    """A new model: a VQAModel, within a WithPrior where `prior_arguments` is not None.

    temperature: of its probabilities, as calibration found it.
    """
    model = VQAModel(**model_arguments)
    model.temperature = temperature
    if prior_arguments is None:
        return model
    return WithPrior(model, RetrievalPrior(**prior_arguments))


def sizes_of(make):
    """{key: shape} of the state dict of the model `make()`, built without memory.

    The sizes in a damaged file may be anything.
    """
    with torch.device("meta"):
        return {key: value.shape for key, value in make().state_dict().items()}


def check_prior(weights, sizes):
    """Raise ValueError where a prior's weights point to words, questions or images it lacks."""
    places = zip(("wordings", "images"), weights["prior.pairs"])
    ranges = [(weights["prior.known_words"], sizes["ntoken"] + 1)]
    ranges += [(rows, max(sizes[name], 1)) for name, rows in places]
    if any(rows.numel() and not 0 <= rows.min() <= rows.max() < end for rows, end in ranges):
        raise ValueError("its prior points to what it lacks")


def check_sizes(kept, path):
    """Raise UserError where a run's weights, words or answers do not fit its model_arguments."""
    try:
        arguments = kept["model_arguments"]
        if arguments["encoder"] not in CHANNELS:
            raise ValueError("its encoder is unknown")
        # so many modules would be made, whatever their sizes
        if max(arguments["num_stacks"], arguments["glimpses"]) > len(kept["model"]):
            raise ValueError("more stacks or glimpses than weights")
        wanted = sizes_of(lambda: build(arguments, kept["prior_arguments"]))
        fits = wanted == {key: value.shape for key, value in kept["model"].items()}
        words, answers = len(kept["dictionary"]), len(kept["answers"])
        fits = fits and (words, answers) == (arguments["ntoken"], arguments["num_answers"])
        if fits and kept["prior_arguments"]:
            check_prior(kept["model"], kept["prior_arguments"])
    except Exception as error:
        raise UserError(
            f"{path} is damaged: no model has its model_arguments ({reason(error)})"
        ) from None
    if not fits:
        raise UserError(
            f"{path} is damaged: its weights, dictionary or answers are of other sizes than its "
            "model_arguments say"
        )


def make_model(kept, path):
    """The model of a run's checkpoint, in eval mode. Raises UserError where the two do not fit."""
    check_sizes(kept, path)
    arguments = kept["model_arguments"], kept["prior_arguments"]
    model = build(*arguments, float(kept.get("temperature", 1)))
    load_part(model, kept["model"], str(path))
    return model.eval()


def without_prior(state):
    """A run's checkpoint without its prior, which knows that run's training questions alone."""
    if state["prior_arguments"] is None:
        return state
    weights = {k.removeprefix("model."): v for k, v in state["model"].items() if k[:6] == "model."}
    return state | {"model": weights, "prior_arguments": None}


def copy_shared_encoder(state):
    """A run's checkpoint with one encoder an organ, where it has one that the organs share.

    Training that changes the encoders can start from it.
    """
    arguments, weights = state["model_arguments"], dict(state["model"])
    if arguments.get("shared"):
        for key, value in state["model"].items():
            if "image.encoders.0." in key:
                for index in range(1, len(ORGANS)):
                    weights[key.replace(".0.", f".{index}.", 1)] = value.clone()
    return state | {"model": weights, "model_arguments": arguments | {"shared": False}}


def load_part(module, state, what):
    """Load a state dict into a part of the model. Raises UserError when it does not fit."""
    try:
        module.load_state_dict(state)
    except Exception as error:  # torch raises many types for values that were tampered with
        last = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise UserError(f"{what} does not fit this model: {last}") from None


def check_vocabulary(state, data, path):
    """Raise UserError when a checkpoint's dictionary or answers are not those of the data."""
    for what, ours in (("dictionary", data.dictionary), ("answers", data.answers)):
        theirs = state[what]
        if theirs == ours:
            continue
        differ = (i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b)
        where = next(differ, min(len(theirs), len(ours)))
        raise UserError(
            f"{path} was trained with another {what} than {data.name} in {data.folder} has: "
            f"{len(theirs)} entries and {len(ours)}, the first difference at {where}; name the "
            "data it was trained on with --RAD_dir"
        )
