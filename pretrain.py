"""Pre-train the image encoders, one an organ, each on two tasks (docs/METHOD.md section 5).

    python pretrain.py                  abdomen, brain, chest, then the image-type classifier
    python pretrain.py --organ brain    one of them
    python pretrain.py --MTPT_dir DIR   your organ sets, not data_MTPT/ or the phantom sets
    python pretrain.py --VQA_dir DIR    one encoder from the answers of VQA sets, beyond the paper

Writes saved_models/MTPT/, where train.py finds the encoders, and results/MTPT/.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import torch

import parallel
import utils
from base_model import CHANNELS
from dataset_labels import find_label_set
from dataset_MTPT import Loader, compatibility_entries, find_organ_sets, in_order, to_device
from dataset_RAD import NO_ORGANS, find_data
from decoders import PretrainingModel, pretraining_loss
from engine import Trainer, batches
from features import to_float
from image_type import (
    ImageTypeClassifier,
    image_organs,
    image_reader,
    image_type_accuracy,
    train_image_type,
)
from journal import write_run
from readers import checkpoints, pretraining
from readers.images import read_image
from readers.pretraining import LABELS
from readers.sets import add_options
from readers.vectors import EMBEDDING_DIMS, find_embedding
from readers.weights import imagenet_start
from settings import USAGE
from tools import organ_results
from utils import HERE, ORGAN_ENCODERS, VERSION, UserError, log

STEPS, PHANTOM_STEPS = 2000, 200  # of a run on a CPU, about; on a GPU at least STEPS
SAVE_STEPS = 100  # between two validations, about
LABEL_RATE = 0.015  # of the encoder with --VQA_dir: it stays near its start
# settings that a run which goes on may change
FREE = {"organ", "output", "results", "resume", "MTPT_dir", "RAD_dir", "VQA_dir"}
FREE |= {"gpu", "workers", "save_every", "organ_map"}


def parse_args(arguments=None, earlier=None):
    """The settings: the command line's, else `earlier` ones, else the defaults.

    earlier: (settings, file) of a run that goes on; with --resume of the newest in --output.
    """
    options = {"allow_abbrev": False, "usage": USAGE}
    first = argparse.ArgumentParser(add_help=False, **options)
    add = first.add_argument
    add("--resume", action="store_true", help="go on with the runs in --output; finished ones stay")
    folder = HERE / "saved_models" / "MTPT"
    add("--output", type=Path, default=folder, help="folder for the weights")
    organs = [*ORGAN_ENCODERS, "image_type", "all"]
    add("--organ", choices=organs, default="all", help="image_type: the classifier alone")
    add("--MTPT_dir", type=Path, help="folder with abdomen/, brain/, chest/ (None: data_MTPT)")
    known, _ = first.parse_known_args(arguments)
    if known.resume and earlier is None:
        any_run = known.organ == "all" and known.MTPT_dir is None
        earlier = pretraining.newest_settings(known.output, any_run)

    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        parents=[first],
        **options,
    )
    flag = argparse.BooleanOptionalAction
    add = parser.add_argument_group("data").add_argument
    text = "VQA-RAD or another set, whose questions are used (None: as in train.py)"
    add("--RAD_dir", "--data_dir", type=Path, help=text)
    add_options(add)
    text = "VQA sets, in English and of all categories, whose answers label their images: one "
    text += "encoder, vqa.pth, in place of organ sets"
    add("--VQA_dir", type=Path, nargs="+", help=text)
    add = parser.add_argument_group("model").add_argument
    add("--encoder", choices=["auto", *CHANNELS], default="auto", help="auto: the paper's "
        "ResNet-34 where its ImageNet weights can be had")  # fmt: skip
    add("--random_encoders", action="store_true", help="start from random weights")
    add("--compatibility", action=flag, default=True, help="learn whether a question fits, too")
    add("--rnn", choices=["LSTM", "GRU"], default="LSTM", help="question encoder")
    add("--num_hid", type=int, default=1024, help="width of question encoder and joint feature")
    add("--use_spatial", action=flag, default=True, help="CMSA's tokens carry their cell's place")
    add("--emb_init", choices=list(EMBEDDING_DIMS), default="glove", help="word vectors")
    add = parser.add_argument_group("training").add_argument
    add("--results", type=Path, help="folder for results.json and pictures (None: results/ and "
        "the name of --output)")  # fmt: skip
    add("--epochs", type=int, help=f"None: on a CPU about {STEPS:,} steps, on a GPU 100 epochs and "
        f"at least {STEPS:,} steps, phantom sets {PHANTOM_STEPS} steps")  # fmt: skip
    add("--batch_size", type=int, default=10, help="images a step")
    add("--lr", type=float, default=0.01, help="base rate of Adamax")
    add("--encoder_rate", type=float, help="share of --lr for the encoder (None: 0.1, from random "
        f"weights 1, with --VQA_dir {LABEL_RATE})")  # fmt: skip
    add("--warmup", type=int, default=100, help="steps over which the rate rises to its value")
    add("--clip_norm", type=float, default=0.25, help="gradient norm, over all parameters")
    add("--seed", type=int, default=0, help="of everything random")
    add("--gpu", type=int, help="CUDA device, -1 for the CPU (None: the first GPU if any)")
    add("--precision", choices=["auto", "float32", "bf16"], default="auto", help="auto: bf16 "
        "where it is native")  # fmt: skip
    add("--workers", type=int, help="processes that read images (None: 0 on a CPU, else 4)")
    add("--save_every", type=int, default=0, help="keep epoch_N.pth every so many epochs")
    if earlier:
        (settings, path), own = earlier, ("organ", "output", "resume")  # own: of each call
        settings = {name: value for name, value in settings.items() if name not in own}
        checkpoints.use_settings(parser, settings, path, check)
    args = parser.parse_args(arguments)
    check(args)
    return args


def check(args):
    """Raise UserError for a number out of range, or a file in place of a folder."""
    least = [("batch_size", 2), ("num_hid", 1), ("epochs", 1)]
    least += [(name, 0) for name in ("workers", "save_every", "warmup")]
    utils.check_arguments(args, ("lr", "clip_norm", "encoder_rate"), ("output", "results"), least)
    if args.VQA_dir and args.organ != "all":
        raise UserError("--organ goes with organ sets: --VQA_dir makes one encoder; name one")


def settings_of_run(args, kept, path, arguments=None):
    """The settings of a run that goes on: the command line's (`arguments`), else its own.

    Raises UserError for a setting that can't change.
    """
    own = parse_args(arguments, earlier=(kept["settings"], path))
    vars(own).update({name: getattr(args, name) for name in FREE})
    pretraining.check_same_settings(own, kept, FREE, path)
    return own


def model_arguments(args, organ_set, data, encoder, word_dim):
    """The arguments of an organ's PretrainingModel."""
    return dict(
        task=organ_set.task,
        classes=organ_set.sizes(),
        ntoken=data.ntoken,
        hidden=args.num_hid,
        rnn=args.rnn,
        encoder=encoder,
        word_dim=word_dim,
        use_spatial=args.use_spatial,
        compatibility=args.compatibility,
    )


def new_model(args, organ_set, data, start):
    """(model, its arguments, description of its start). `start`: of `imagenet_start`."""
    name, state, description = start
    found = find_embedding(data, args.emb_init, log) if args.compatibility else None
    word_dim = found[0].shape[1] if found else EMBEDDING_DIMS[args.emb_init]
    arguments = model_arguments(args, organ_set, data, name, word_dim)
    model = PretrainingModel(**arguments)
    if state:
        checkpoints.load_part(model.encoder, state, description)
    if found:
        model.compatibility.w_emb.initialise(torch.from_numpy(found[0]))
        description += f"; {found[1]}"
    return model, arguments, description


def default_epochs(organ_set, batch_size, device):
    """So many epochs as make STEPS steps; on a GPU at least 100."""
    steps = len(batches(organ_set.train, batch_size, 0, 0))
    if organ_set.phantom:
        return max(1, round(PHANTOM_STEPS / steps))
    return max(1 if device.type == "cpu" else 100, round(STEPS / steps))


def polynomial_rate(epoch, epochs, base):
    """Pre-training's rate in five stages: base * (1 - stage / 5)^0.9 (docs/METHOD.md 5.3)."""
    return base * (1 - 5 * epoch // epochs / 5) ** 0.9


def make_optimizer(model, lr, encoder_rate):
    """Adamax (docs/METHOD.md section 5.3). The encoder's rate is `encoder_rate` times others'."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if name.startswith("encoder.") == own], "scale": rate}
        for own, rate in ((True, encoder_rate), (False, 1.0))
    ]
    return torch.optim.Adamax(groups, lr=lr)


def pretrain_organ(organ_set, data, args, device, results_dir, start_of):
    """Pre-train one organ's encoder, or finish its run; write its results, pictures and file.

    start_of: `imagenet_start`, or a function like it. Raises UserError.
    """
    organ, folder = organ_set.organ, args.output / organ_set.organ
    file = args.output / f"{organ}.pth"
    kept, path = pretraining.read_run(args.output, organ)  # main refused one without --resume
    if kept:
        args = settings_of_run(args, kept, path)
        pretraining.check_same_data(kept, organ_set, data, path)
    if path == file:
        log(f"{organ}: {file} is there and stays")
        return

    # the model
    start = None
    if not kept:
        with parallel.first_alone():
            start = start_of(args.encoder, args.random_encoders)
    utils.set_seed(args.seed)
    if kept:
        wanted = functools.partial(model_arguments, args, organ_set, data)
        model, arguments = pretraining.old_model(kept, wanted, path)
        description = kept["start"]
        epochs, encoder_rate = kept["epochs"], kept["encoder_rate"]
    else:
        model, arguments, description = new_model(args, organ_set, data, start)
        epochs = args.epochs or default_epochs(organ_set, args.batch_size, device)
        usual = LABEL_RATE if organ_set.task == "labels" else 0.1
        encoder_rate = args.encoder_rate or (1.0 if start[1] is None else usual)
    model.near_start = organ_set.task == "labels" and "random weights" not in description
    model.to(device, memory_format=torch.channels_last)
    if parallel.world()[1] > 1:
        parallel.synchronise_norms(model)
        parallel.own_random_numbers(args.seed)
    trained = parallel.wrap(model)
    precision = utils.choose_precision(args.precision, device, kept and kept.get("precision"))

    # images and questions
    entries, new_entries = [], []
    if args.compatibility:
        entries, new_entries = compatibility_entries(data, seed=args.seed, organ_set=organ_set)
    images = organ_set.images(organ_set.train, entries, args.seed)
    held_out = in_order(organ_set.images(organ_set.val, [], augment=False), device, args.workers)

    def load(epoch):
        keys = [(epoch, index) for index in range(len(images))]
        lists = parallel.shard(batches(keys, args.batch_size, args.seed, epoch))
        return Loader(images, lists, device, args.workers)

    def loss_of(batch):
        pixels, targets, tokens, compatible = to_device(batch, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = trained(pixels, tokens if args.compatibility else None)
        right, count = organ_results.count_right(model, output.task_logits, targets)
        return pretraining_loss(output, targets, compatible), right, count

    def validate():
        questions = {"compatibility": new_entries or entries}
        results = organ_results.evaluate(model, organ_set, held_out, questions, precision)[0]
        row = {k: results[k] for k in ("accuracy", "mean_iou") if k in results}
        if "compatibility" in results:
            row["compatibility"] = results["compatibility"]["accuracy"]
        # no score: held-out figures choose nothing, the last epoch is taken
        return None, {f"held_out_{name}": value for name, value in row.items()}

    steps = len(load(0))
    log(f"{organ_set.describe()}; {len(entries):,} questions and {len(new_entries):,} held out")
    log(
        f"encoder: {description}; epochs: {epochs} of {steps} steps; {device}, {precision}; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )
    about = {
        "version": VERSION,
        "organ": organ,
        "data": organ_set.about(),
        "questions": data.about(),
        "start": description,
        "encoder": arguments["encoder"],
        "epochs": epochs,
        "encoder_rate": encoder_rate,
        "settings": checkpoints.settings_of(args),
        "model_arguments": arguments,
        "phantom": organ_set.phantom or args.compatibility and data.phantom,
        "precision": precision,
    }
    held = None
    if parallel.is_first():
        held = utils.lock(folder)
        at = kept and kept["epoch"] + 1
        write_run(folder, about, device, precision, parallel.world()[1], at)
    optimizer = make_optimizer(model, args.lr, encoder_rate)
    checkpoint = about | {"dictionary": data.dictionary}
    trainer = Trainer(model, optimizer, folder, checkpoint, args.clip_norm, args.warmup)
    if kept:
        trainer.restore(kept, path)
    every = max(1, SAVE_STEPS // steps)
    with trainer.running():
        for epoch in range(trainer.epoch, epochs):
            title = f"epoch {epoch + 1} of {epochs}"
            rate = polynomial_rate(epoch, epochs, args.lr)
            trainer.train_epoch(load(epoch), loss_of, rate, title)
            trainer.end_epoch(epochs, validate, every, args.save_every)
    if not parallel.is_first():
        return

    questions = {"compatibility": entries, "compatibility_new_questions": new_entries}
    found = organ_results.evaluate(model, organ_set, held_out, questions, precision)
    organ_results.save_organ(
        results_dir, organ_set, held_out, found, about | {"weights": str(file)}
    )
    # the last file: where it is, everything is done
    states = {"state": model.encoder.state_dict(), "adapter": model.adapter.state_dict() or None}
    states["decoder"] = model.decoder.state_dict()
    states["compatibility"] = model.compatibility.state_dict() if args.compatibility else None
    checkpoints.save_checkpoint(file, checkpoint | states | {"results": found[0]})
    held.close()
    log(organ_results.describe(organ, found[0]))


def pretrain_image_type(sets, data, args, device, results_dir):
    """Train the image-type classifier on the images of all three sets; write image_type.pth.

    An image's label is its set's organ. Raises UserError.
    """
    file, digests = args.output / "image_type.pth", {n: one.digest for n, one in sets.items()}
    if file.exists():  # main refused it without --resume
        if checkpoints.read_checkpoint(file, "image_type")["digests"] != digests:
            raise UserError(f"{file} was made from other images: remove it to start anew")
        log(f"image type: {file} is there and stays")
        return
    utils.set_seed(args.seed)
    classifier = ImageTypeClassifier().to(device)
    train, held_out = {}, {}
    for organ, name in enumerate(ORGAN_ENCODERS):
        train |= {sample.image: organ for sample in sets[name].train}
        held_out |= {sample.image: organ for sample in sets[name].val}

    def read(paths):
        return to_float(torch.from_numpy(np.stack([read_image(path) for path in paths])).to(device))

    train_image_type(classifier, read, train, device, args.seed)
    rad = image_organs(data.train)
    right = image_type_accuracy(classifier, read, held_out, device)
    right_rad = image_type_accuracy(classifier, image_reader(data, device), rad, device)
    results = {"accuracy": round(right, 4), "images": len(held_out)}
    vqa = {"accuracy": round(right_rad, 4), "images": len(rad), "data": data.about()}
    about = {
        "data": {name: one.about() for name, one in sets.items()},
        "phantom": any(one.phantom for one in sets.values()),
        "results": results | {"VQA images": vqa},
    }
    organ_results.save_results(results_dir, "image_type", about | {"weights": str(file)})
    about |= {"version": VERSION, "encoder": "image_type", "digests": digests}
    checkpoints.save_checkpoint(file, about | {"state": classifier.state_dict()})
    log(
        f"image type: right on {100 * right:.1f}% of {len(held_out)} held-out images, and on "
        f"{100 * right_rad:.1f}% of {len(rad)} images of {data.name}, which it was not trained on"
    )


def main():
    args = parse_args()
    device = utils.choose_device(parallel.begin(args.gpu))
    utils.choose_precision(args.precision, device)  # on a GPU it sets TF32, for all that follows
    results_dir = args.results or HERE / "results" / args.output.resolve().name
    single = args.organ in ORGAN_ENCODERS or bool(args.VQA_dir)
    organs = (args.organ,) if single else ORGAN_ENCODERS
    trained = () if args.organ == "image_type" else organs
    if args.VQA_dir:
        trained = (LABELS,)
    for name in (*trained, *(() if single else ("image_type",))):
        if pretraining.begun(args.output, name) and not args.resume:
            raise UserError(
                f"{args.output} holds {name} already: --resume goes on with it; to start anew, "
                "move it away or name another --output"
            )
    # before anything takes time
    utils.check_writable(args.output, "--output")
    utils.check_writable(results_dir, "--results")
    organ_results.read_results(results_dir)
    with parallel.first_alone():
        sets = None if args.VQA_dir else find_organ_sets(args.MTPT_dir, organs)
        data = find_data(args.RAD_dir, vars(args), log=log)
    if not data.organs and (args.compatibility or not args.VQA_dir):
        way = "; --no-compatibility needs no organs" * bool(args.VQA_dir)
        raise UserError(f"--RAD_dir {data.folder} can't serve pre-training: {NO_ORGANS}{way}")
    if args.VQA_dir:
        with parallel.first_alone():
            sets = {LABELS: find_label_set(args.VQA_dir, data)}
    start_of = functools.cache(imagenet_start)
    for name in trained:
        pretrain_organ(sets[name], data, args, device, results_dir, start_of)
    if not single and parallel.is_first():
        pretrain_image_type(sets, data, args, device, results_dir)
    parallel.end()
    log(f"done: weights in {args.output}, results in {results_dir}")
    named = {"RAD_dir": args.RAD_dir} | data.options | {"organ_map": args.organ_map}
    log(organ_results.next_step(args.output, trained or organs, named))


if __name__ == "__main__":
    utils.run_main(main)
