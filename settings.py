"""The settings of train.py: its arguments, the recipes that set their defaults, a run's name."""

import argparse
import datetime
from pathlib import Path

import engine
import utils
from base_model import CHANNELS
from dataset_RAD import NO_ORGANS
from readers import checkpoints, sentences, vectors, weights
from readers.sets import add_options
from text_rules import QUESTION_LEN
from utils import UserError, log

DEFAULTS = {  # of the recipes paper and tuned (docs/TUNED.md); arguments of these names override
    "blocks": (2, 1),
    "loss": ("bce", "ce"),
    "label_smoothing": (0.0, 0.1),
    "schedule": ("steps", "cosine"),
    "batch_size": (32, 64),
    "val_fraction": (0.1, 0.0),
    "freeze_encoders": (None, True),  # None: on a CPU, where training them takes days
    "word_dropout": (0.0, 0.3),
    "idf": (False, True),
    "gate": (False, True),
    "prior": (False, True),
    "form_rule": (False, True),
}
RECIPES = {
    recipe: {name: values[column] for name, values in DEFAULTS.items()}
    for column, recipe in enumerate(("paper", "tuned"))
}
USAGE = "%(prog)s [options], which --help lists"  # all of them would hide an error's line
EPOCHS = {"real": {"steps": 30, "cosine": 15}, "phantom": {"steps": 4, "cosine": 12}}  # frozen
# arguments that are no changes of a recipe
APART = {"output", "resume", "gpu", "seeds", "save_every", "compile", "RAD_dir", "calibrate"}
APART |= {"keep_optimizer"}
FREE = APART | {"epochs", "organ_map", "extra_data"}  # what a run that goes on may change


def parse_args(arguments=None, description=None):
    """(settings, the checkpoint to go on from or None). description: the first line of --help.

    A setting is the command line's, else the resumed run's, else the recipe's.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=USAGE)
    add = first.add_argument
    add("--recipe", choices=list(RECIPES), default="paper", help="the set of defaults")
    add("--resume", action="store_true", help="go on with the run in --output, as it began")
    add("--output", type=Path, help="folder to write (None: saved_models/ and a name of its own)")
    add("--seeds", type=int, default=1, help="train and evaluate with so many seeds")
    known, _ = first.parse_known_args(arguments)
    if known.resume and not known.output:
        raise UserError("--resume needs --output, the folder of the run that is to go on")
    # several seeds have folders of their own
    last = known.output / "last.pth" if known.resume and known.seeds == 1 else None
    if last and not last.is_file():
        raise UserError(f"--resume: {last.parent} has no last.pth yet: train without --resume")
    kept = checkpoints.read_checkpoint(last) if last else None
    parser = make_parser(first, description)
    parser.set_defaults(**RECIPES[known.recipe])
    if kept:
        settings = {k: v for k, v in kept["settings"].items() if k not in ("output", "resume")}
        checkpoints.use_settings(parser, settings, last, check)
    args = parser.parse_args(arguments)
    needs = {"label_smoothing": "--loss ce", "prior": "--loss ce", "sentences": "--prior"}
    named = parser.parse_args(arguments, argparse.Namespace(organ_map=None, **dict.fromkeys(needs)))
    args.extra_data = [*dict.fromkeys(folder.resolve() for folder in args.extra_data)]
    if named.organ_map:
        args.organ_map = named.organ_map.resolve()
    if args.loss == "bce":
        args.label_smoothing, args.prior = 0.0, False  # recipes have them for --loss ce
    for name, need in needs.items():
        on = args.prior if name == "sentences" else getattr(args, name)
        if getattr(named, name) and not on:
            raise UserError(f"--{name} is for {need}: name that too, or leave --{name} out")
    if args.image_only:
        args.form_rule = False  # it reads the question
    check(args)
    if kept:
        checkpoints.check_same(args, kept["settings"], set(kept["settings"]) - FREE, args.output)
        if "optimizer" not in kept and args.epochs > kept["epoch"] + 1:
            raise UserError(
                f"{args.output} has ended and kept no optimizer: --input {last} with another "
                "--output trains on from its weights (--keep_optimizer would have kept it)"
            )
    else:
        args.sentences = args.prior and sentences.choose(args.sentences, args.language)
    return args, kept


def check(args):
    """Raise UserError for a number out of range, or settings that exclude each other."""
    sizes = [(name, 1) for name in ("question_len", "num_hid", "num_stacks", "gamma", "seeds")]
    sizes += [("batch_size", 2), ("epochs", 1), ("save_every", 0)]
    utils.check_arguments(args, ("lr", "clip_norm", "extra_weight"), ("output",), sizes)
    for name in ("label_smoothing", "word_dropout", "val_fraction"):
        if not 0 <= getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: a share from 0 to below 1 is wanted")
    if args.question_only and args.image_only:
        raise UserError("--question_only and --image_only leave nothing to answer from: name one")


def make_parser(first, description=None):
    """All arguments, those of the parser `first` included."""
    style, flag = argparse.ArgumentDefaultsHelpFormatter, argparse.BooleanOptionalAction
    options = {"description": description, "formatter_class": style}
    parser = argparse.ArgumentParser(parents=[first], allow_abbrev=False, usage=USAGE, **options)
    add = parser.add_argument_group("data").add_argument
    add("--RAD_dir", "--data_dir", type=Path, help="VQA-RAD, SLAKE, VQA-Med, PathVQA or own")
    add_options(add)
    text = "other sets, in English, three categories: untested questions train too (docs/TUNED.md)"
    add("--extra_data", type=Path, nargs="+", default=[], metavar="DIR", help=text)
    add("--extra_weight", type=float, default=1.0, help="of their losses, beside 1 of one's own")
    add("--split", choices=["official", "clean"], default="official", help="clean: no leak")
    text = "share of questions held out to choose the epoch, where the set has no part for it"
    add("--val_fraction", type=float, help=text)
    add("--question_len", type=int, default=QUESTION_LEN, help="words kept of a question")
    add = parser.add_argument_group("model").add_argument
    add("--model", choices=["CMSA", "BAN", "SAN"], default="CMSA", help="fusion")
    add("--rnn", choices=["LSTM", "GRU"], default="LSTM", help="question encoder")
    add("--num_hid", type=int, default=1024, help="width of question encoder and joint feature")
    add("--blocks", type=int, choices=[1, 2], help="CMSA's non-local blocks")
    add("--use_spatial", action=flag, default=True, help="CMSA's tokens carry their cell's place")
    add("--num_stacks", type=int, default=2, help="SAN's attention stacks")
    add("--gamma", type=int, default=2, help="BAN's glimpses")
    add("--emb_init", choices=list(vectors.EMBEDDING_DIMS), default="glove", help="word vectors")
    add("--op", choices=["c"], default="c", help="two word tables, concatenated")
    add("--question_only", action="store_true", help="blank the images: a baseline")
    add("--image_only", action="store_true", help="blank the questions: another baseline")
    add("--idf", action=flag, help="word vectors times inverse document frequency")
    add("--gate", action=flag, help="add a product of image and question to CMSA's feature")
    add("--form_rule", action=flag, help="let the question's form restrict the answers given")
    add("--prior", action=flag, help="add retrieval's scores to the answers'; of --loss ce")
    text = "the prior compares questions by sentence embeddings (None: where they are installed)"
    add("--sentences", action=flag, help=text)
    add = parser.add_argument_group("image encoders").add_argument
    text = "auto: those of MTPT, else ResNet-34 where its ImageNet weights can be had"
    add("--encoder", choices=["auto", *CHANNELS], default="auto", help=text)
    add("--distmodal", action=flag, default=True, help="one encoder per organ, mixed by image type")
    add("--freeze_encoders", action=flag, help="compute feature maps once (None: on a CPU)")
    add("--random_encoders", action="store_true", help="start from random weights")
    add("--mtpt", action=flag, default=True, help="use what pretrain.py left in saved_models/MTPT")
    for name, file in weights.MTPT_FILES.items():
        add(f"--{name}", type=Path, help=f"pretrain.py's {file} (None: saved_models/MTPT's)")
    text = "pretrain.py's vqa.pth, of --VQA_dir: one encoder for all organs"
    add("--encoder_path", type=Path, help=text)
    add("--vqa_init", type=Path, help="pretrain.py's file for question encoder and CMSA")
    add = parser.add_argument_group("training").add_argument
    add("--loss", choices=["bce", "ce"], help="sigmoid (the paper's) or softmax")
    add("--label_smoothing", type=float, help="in [0, 1), of --loss ce")
    add("--word_dropout", type=float, help="share of word-vector numbers left out, in [0, 1)")
    add("--schedule", choices=list(engine.RATES), help="steps: the paper's; cosine: down to 0")
    text = "run of any data set, or checkpoint, that the weights start from"
    add("--input", "--init", type=Path, help=text)
    text = "None: 80; frozen encoders 30, or 15 with the cosine schedule; phantom set 4 or 12"
    add("--epochs", "--epoch", type=int, help=text)
    add("--batch_size", type=int, help="questions a step")
    add("--lr", type=float, default=0.005, help="base rate of Adamax; the peak is twice this")
    add("--clip_norm", type=float, default=0.25, help="gradient norm, over all parameters")
    add("--seed", type=int, default=0, help="random seed")
    add("--gpu", type=int, help="CUDA device, -1 for the CPU (None: the first GPU if any)")
    text = "auto: bf16 where it is native"
    add("--precision", choices=["auto", "float32", "bf16"], default="auto", help=text)
    add("--compile", action="store_true", help="torch.compile the step: minutes to begin with")
    add("--save_every", type=int, default=0, help="keep epoch_N.pth every so many epochs")
    text = "fit a temperature; without validation questions by a second run, at 0.8 of the time"
    add("--calibrate", action=flag, default=True, help=text)
    text = "leave it in last.pth at the end, for --resume with more --epochs"
    add("--keep_optimizer", action="store_true", help=text)
    return parser


def data_options(args, kept=None):
    """The options of dataset_RAD.find_data: a run that goes on has those of its checkpoint `kept`.

    They hold what its --organ_map held, wherever that file is now. Another --organ_map is read.
    """
    if kept and str(args.organ_map) == str(kept["settings"].get("organ_map")):
        return kept["data"].get("options", {})
    return vars(args)


def settle(args, data, on_cpu, kept=None):
    """Settle what a command line leaves to data and machine: {setting: value} of what is changed.

    These settings differ from the recipe's, or from the choice of data and machine, and are not
    in a run's name. data: RadData; on_cpu: True where no GPU trains; kept: the checkpoint of a
    run that goes on, whose changes stay.
    """
    if args.distmodal and not data.organs:
        args.distmodal = False
        log(f"NOTE: one encoder, as by --no-distmodal: {NO_ORGANS}")
    usual = vars(make_parser(argparse.ArgumentParser(add_help=False)).parse_args([]))
    usual |= RECIPES[args.recipe] | {"distmodal": data.organs}
    usual["sentences"] = args.prior and sentences.installed(args.language)
    usual["form_rule"] = usual["form_rule"] and not args.image_only
    usual["freeze_encoders"] = usual["freeze_encoders"] or on_cpu
    if args.freeze_encoders is None:
        args.freeze_encoders = on_cpu
    frozen = EPOCHS["phantom" if data.phantom else "real"][args.schedule]
    usual["epochs"] = frozen if args.freeze_encoders or data.phantom else 80
    args.epochs = args.epochs or usual["epochs"]
    if kept:
        changed, planned = kept.get("changed", {}), kept["settings"]["epochs"]
        if planned == args.epochs:
            return changed
        log(f"NOTE: the run was planned for {planned} epochs; those to come have other rates")
        return changed | {"epochs": args.epochs}
    apart = APART | {"seed", "split", "model", "question_only", "image_only", "precision"}
    now = checkpoints.settings_of(args)
    changed = {k: now[k] for k in usual if k not in apart and now[k] != usual[k]}
    if args.extra_data:
        changed["extra_data"] = " ".join(now["extra_data"])
    return changed


def run_name(args, changed, data):
    """The default name of a run's folder: <model>_<recipe>_<split>_<time>.

    changed: what `settle` gives. A set without two splits has none in the name.
    """
    only = "_question_only" if args.question_only else "_image_only" if args.image_only else ""
    recipe = args.recipe + ("-changed" if changed else "")
    split = f"_{args.split}" if data.frames else ""
    return f"{args.model}{only}_{recipe}{split}_{datetime.datetime.now():%Y%m%d-%H%M%S}"
