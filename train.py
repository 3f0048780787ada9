"""Train a medical VQA model (CMSA, BAN or SAN) on VQA-RAD.

    python train.py                                  what ./train.sh runs: the paper's model
    python train.py --recipe tuned                   frozen encoders, other loss, faster
    python train.py --RAD_dir DIR --split clean      your data, without the leaking records

Writes saved_models/<run>/: checkpoints, log, settings. docs/METHOD.md says what is trained.
"""

import argparse
import datetime
import shlex
from functools import partial
from pathlib import Path

import torch

import dataset_RAD as rad
import engine
import parallel
import utils
from base_model import CHANNELS
from extras import PRIOR_COMPONENTS, PriorOutput, idf_weights, mean_cells
from features import model_inputs
from image_type import train_on_questions
from journal import write_run
from readers import checkpoints, vectors, weights
from text_rules import QUESTION_LEN
from utils import HERE, ORGANS, UserError, log

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
}
RECIPES = {
    recipe: {name: values[column] for name, values in DEFAULTS.items()}
    for column, recipe in enumerate(("paper", "tuned"))
}
EPOCHS = {"real": {"steps": 30, "cosine": 15}, "phantom": {"steps": 4, "cosine": 12}}  # frozen
# arguments that a run which goes on may change
FREE = {"output", "resume", "gpu", "seeds", "save_every", "compile", "RAD_dir", "epochs"}
# arguments that must match the checkpoint of --input
MODEL = "model rnn num_hid blocks use_spatial num_stacks gamma distmodal gate prior".split()


def parse_args(arguments=None):
    """(settings, the checkpoint to go on from or None).

    A setting is the command line's, else the resumed run's, else the recipe's.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
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
    kept = checkpoints.read_checkpoint(last) if last else None
    parser = make_parser(first)
    parser.set_defaults(**RECIPES[known.recipe])
    if kept:
        settings = {k: v for k, v in kept["settings"].items() if k not in ("output", "resume")}
        checkpoints.use_settings(parser, settings, last, check)
    args = parser.parse_args(arguments)
    if args.loss == "bce":
        args.label_smoothing, args.prior = 0.0, False  # they are for --loss ce
    check(args)
    if kept:
        checkpoints.check_same(args, kept["settings"], set(kept["settings"]) - FREE, args.output)
    return args, kept


def check(args):
    """Raise UserError for a number out of range, or settings that exclude each other."""
    sizes = [(name, 1) for name in ("question_len", "num_hid", "num_stacks", "gamma", "seeds")]
    sizes += [("batch_size", 2), ("epochs", 1), ("save_every", 0)]
    utils.check_arguments(args, ("lr", "clip_norm"), ("output",), sizes)
    for name in ("label_smoothing", "word_dropout", "val_fraction"):
        if not 0 <= getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: a share from 0 to below 1 is wanted")
    if args.question_only and args.image_only:
        raise UserError("--question_only and --image_only leave nothing to answer from: name one")


def make_parser(first):
    """All arguments, those of the parser `first` included."""
    style, flag = argparse.ArgumentDefaultsHelpFormatter, argparse.BooleanOptionalAction
    options = {"description": __doc__.splitlines()[0], "formatter_class": style}
    parser = argparse.ArgumentParser(parents=[first], allow_abbrev=False, **options)
    add = parser.add_argument_group("data").add_argument
    add("--RAD_dir", "--data_dir", type=Path, help="VQA-RAD, in one of its three forms")
    add("--split", choices=["official", "clean"], default="official", help="clean: no leak")
    add("--val_fraction", type=float, help="share of questions held out to choose the epoch")
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
    add("--prior", action=flag, help="multiply answers by a small model's; of --loss ce")
    add = parser.add_argument_group("image encoders").add_argument
    text = "auto: those of MTPT, else ResNet-34 where its ImageNet weights can be had"
    add("--encoder", choices=["auto", *CHANNELS], default="auto", help=text)
    add("--distmodal", action=flag, default=True, help="one encoder per organ, mixed by image type")
    add("--freeze_encoders", action=flag, help="compute feature maps once (None: on a CPU)")
    add("--random_encoders", action="store_true", help="start from random weights")
    add("--mtpt", action=flag, default=True, help="use what pretrain.py left in saved_models/MTPT")
    for name, file in weights.MTPT_FILES.items():
        add(f"--{name}", type=Path, help=f"pretrain.py's {file} (None: saved_models/MTPT's)")
    add("--vqa_init", type=Path, help="pretrain.py's file for question encoder and CMSA")
    add = parser.add_argument_group("training").add_argument
    add("--loss", choices=["bce", "ce"], help="sigmoid (the paper's) or softmax")
    add("--label_smoothing", type=float, help="in [0, 1), of --loss ce")
    add("--word_dropout", type=float, help="share of word-vector numbers left out, in [0, 1)")
    add("--schedule", choices=list(engine.RATES), help="steps: the paper's; cosine: down to 0")
    add("--input", type=Path, help="checkpoint that the weights start from")
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
    return parser


def recipe_of(args):
    """(the recipe's name, {setting: value} of what differs from it and is not in a run's name)."""
    parser = make_parser(argparse.ArgumentParser(add_help=False))
    usual = vars(parser.parse_args([])) | RECIPES[args.recipe]
    apart = FREE | {"seed", "split", "model", "question_only", "image_only", "precision"}
    names = [name for name in usual if name not in apart and usual[name] is not None]
    return args.recipe, {k: getattr(args, k) for k in names if getattr(args, k) != usual[k]}


def run_name(args):
    """The default name of a run's folder: <model>_<recipe>_<split>_<time>."""
    only = "_question_only" if args.question_only else "_image_only" if args.image_only else ""
    recipe, changed = recipe_of(args)
    recipe += "-changed" if changed else ""
    return f"{args.model}{only}_{recipe}_{args.split}_{datetime.datetime.now():%Y%m%d-%H%M%S}"


def new_model(args, data, frozen):
    """A new model with its start weights, its arguments, and a description of the start.

    The arguments are {"model_arguments", "prior_arguments"}, for readers.checkpoints.build.
    """
    named = {name: path for name in weights.MTPT_FILES if (path := getattr(args, name))}
    folder = HERE / "saved_models" / "MTPT" if args.mtpt else None
    parts = weights.find_parts(named, folder, data.phantom)
    encoder, start, description = weights.choose_encoders(
        parts, args.encoder, named, args.distmodal, args.random_encoders, args.recipe == "tuned"
    )
    found = vectors.find_embedding(data, args.emb_init, log)
    word_dim = found[0].shape[1] if found else vectors.EMBEDDING_DIMS[args.emb_init]
    alike = start is not None and all(part is start[0] for part in start)
    sizes = {"ntoken": data.ntoken, "num_answers": data.num_answers, "word_dim": word_dim}
    sizes["word_dropout"] = args.word_dropout
    model_arguments = sizes | {"fusion": args.model, "hidden": args.num_hid, "rnn": args.rnn}
    model_arguments |= {"encoder": encoder, "distmodal": args.distmodal}
    model_arguments |= {"shared": frozen and args.distmodal and alike, "blocks": args.blocks}
    model_arguments |= {"use_spatial": args.use_spatial, "num_stacks": args.num_stacks}
    model_arguments |= {"glimpses": args.gamma, "softmax": args.loss == "ce"}
    model_arguments["gate"] = args.gate and args.model == "CMSA"  # BAN and SAN have their own
    organs, components = args.distmodal * len(ORGANS), frozen * PRIOR_COMPONENTS
    prior_arguments = {"organs": organs, "components": components, "channels": CHANNELS[encoder]}
    prior_arguments = sizes | prior_arguments if args.prior else None
    model = checkpoints.build(model_arguments, prior_arguments)
    if found:
        table, description = torch.from_numpy(found[0]), f"{description}; {found[1]}"
        if args.idf:
            idf = idf_weights(rad.training_questions(data, args.split), data.ntoken)
            table, description = table * idf[:, None], f"{description} times idf"
        model.w_emb.initialise(table)
        if args.prior:
            model.prior.w_emb.initialise(table)
    if start:
        weights.start_encoders(model.image, start, description)
    if args.distmodal and (part := parts.get(weights.IMAGE_TYPE_ARGUMENT)):
        checkpoints.load_part(model.image.image_type, part["state"], str(part["path"]))
        description += f"; image type from {part['path']}"
    if args.vqa_init:
        vqa_model = model.model if args.prior else model
        description += f"; {weights.start_language(vqa_model, args.vqa_init, data.dictionary)}"
    arguments = {"model_arguments": model_arguments, "prior_arguments": prior_arguments}
    return model, arguments, description


def old_model(args, kept, path, data, frozen):
    """The model of a checkpoint that training starts from; returns what `new_model` does."""
    checkpoints.check_sizes(kept, path)
    checkpoints.check_vocabulary(kept, data, path)
    kept = kept if frozen else checkpoints.copy_shared_encoder(kept)
    arguments = {name: kept[name] for name in ("model_arguments", "prior_arguments")}
    if not args.resume:  # loss and dropout are this run's, all other things the checkpoint's
        checkpoints.check_same(args, kept["settings"], MODEL, path)
        encoder, dropout = arguments["model_arguments"]["encoder"], args.word_dropout
        if args.encoder not in ("auto", encoder):
            raise UserError(f"--encoder {args.encoder}: {path} has {encoder}; leave it out")
        arguments = {k: v and v | {"word_dropout": dropout} for k, v in arguments.items()}
        arguments["model_arguments"]["softmax"] = args.loss == "ce"
    model = checkpoints.build(**arguments)
    checkpoints.load_part(model, kept["model"], str(path))
    return model, arguments, kept["start"]


def loss_function(model, inputs, args, device, precision):
    """The loss of a step: loss_of(batch), as engine.Trainer wants it, of a list of Question."""

    def loss_of(batch):
        tokens, labels, organs = engine.collate(batch, device)  # (B, 12), (B,), (B,)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            result = model(questions=tokens, **inputs([q.image for q in batch]))
        loss = engine.vqa_loss(result, labels, organs, args.loss, args.label_smoothing)
        if isinstance(result, PriorOutput):
            extra = engine.answer_loss(result.prior_logits, labels, args.loss, args.label_smoothing)
            loss = loss + extra / len(labels)
        return loss, (result.logits.argmax(1) == labels).sum(), len(batch)

    return loss_of


def validation_scores(model, questions, inputs, device, precision):
    """(score, {"val_score", "val_open", "val_closed"}): shares of right answers."""
    probabilities = engine.predict(model, questions, inputs, device, precision)
    labels = torch.tensor([q.label for q in questions])
    correct = (probabilities.argmax(1) == labels).float()
    scores = {"val_score": correct.mean().item()}
    for group in ("OPEN", "CLOSED"):
        if these := [i for i, q in enumerate(questions) if q.answer_type == group]:
            scores[f"val_{group.lower()}"] = correct[these].mean().item()
    return scores["val_score"], scores


def main():
    args, kept = parse_args()
    if args.seeds > 1:
        from tools.seeds import train_seeds

        return train_seeds(args, run_name(args))
    device = utils.choose_device(parallel.begin(args.gpu))
    output = args.output or HERE / "saved_models" / run_name(args)
    utils.check_writable(output, "--output")
    recipe, changed = recipe_of(args)
    log(f"{args.model}, recipe {recipe}{f', changed: {changed}' if changed else ''}; {output}")

    # the data, and the settings that depend on them and on the machine
    with parallel.first_alone():
        data = rad.find_data(args.RAD_dir, log=log)
    data = rad.set_question_len(data, args.question_len)
    data = rad.without_questions(data) if args.image_only else data
    questions = rad.training_questions(data, args.split)
    train, val = rad.split_validation(questions, args.val_fraction, args.split, args.seed)
    if len(train) < 2:
        raise UserError(f"{len(train)} training questions are left: lower --val_fraction")
    frozen = device.type == "cpu" if args.freeze_encoders is None else args.freeze_encoders
    args.freeze_encoders = frozen
    precision = utils.choose_precision(args.precision, device, kept and kept.get("precision"))
    usual = EPOCHS["phantom" if data.phantom else "real"][args.schedule]
    args.epochs = args.epochs or (usual if frozen or data.phantom else 80)
    if kept and (planned := kept["settings"]["epochs"]) != args.epochs:
        log(f"NOTE: the run was planned for {planned} epochs; those to come have other rates")
    if kept and kept["data"]["digest"] != data.digest:
        raise UserError(f"{output} began with other data: name {kept['data']['folder']}")

    # the model
    held = utils.lock(output) if parallel.is_first() else None
    if (output / "last.pth").exists() and not kept:
        raise UserError(f"{output} holds a run already: name another --output, or --resume")
    utils.set_seed(args.seed)
    start = kept or (args.input and checkpoints.read_checkpoint(args.input))
    with parallel.first_alone():
        if start:
            path = output / "last.pth" if kept else args.input
            model, arguments, description = old_model(args, start, path, data, frozen)
        else:
            model, arguments, description = new_model(args, data, frozen)
    model.to(device)
    if device.type == "cuda":
        model.image.to(memory_format=torch.channels_last)
    if frozen:
        if args.distmodal and not start:
            train_on_questions(model.image.image_type, train, data, device, args.seed)
        model.image.freeze()
    inputs = model_inputs(model.image, data, device, frozen, args.question_only)
    if not start and args.prior and frozen:
        rows = sorted({q.image for q in train})
        model.prior.find_components(mean_cells(model.image, inputs, rows))
    if parallel.world()[1] > 1:
        parallel.synchronise_norms(model)
        parallel.own_random_numbers(args.seed)
    trained = parallel.wrap(model, args.compile)
    optimizer = torch.optim.Adamax([p for p in model.parameters() if p.requires_grad], lr=args.lr)
    loss_of = loss_function(trained, inputs, args, device, precision)

    # the run's folder
    checkpoint = arguments | {"settings": checkpoints.settings_of(args), "data": data.about()}
    checkpoint |= {"recipe": recipe, "changed": changed, "start": description}
    if parallel.is_first():
        about = {"training_questions": len(train), "validation_questions": len(val)}
        at = kept and kept["epoch"] + 1
        write_run(output, checkpoint | about, device, precision, parallel.world()[1], at)
    checkpoint |= {"dictionary": data.dictionary, "answers": data.answers, "precision": precision}
    trainer = engine.Trainer(model, optimizer, output, checkpoint, args.clip_norm)
    trainer.describe = lambda batch: f"; questions {', '.join(str(q.qid) for q in batch)}"
    if kept:
        trainer.restore(kept, output / "last.pth")
    numbers = f"{len(train)} training and {len(val)} validation questions, {data.ntoken} words"
    log(f"{data.name} ({data.digest}), {args.split} split: {numbers}, {data.num_answers} answers")
    how, size = "frozen" if frozen else "trained", sum(p.numel() for p in model.parameters())
    log(f"encoders: {description}, {how}; {device}, {precision}; {size:,} parameters")

    validate = partial(validation_scores, model, val, inputs, device, precision)
    with trainer.running():
        for epoch in range(trainer.epoch, args.epochs):
            lists = parallel.shard(engine.batches(train, args.batch_size, args.seed, epoch))
            rate = engine.RATES[args.schedule](epoch, args.epochs, args.lr)
            trainer.train_epoch(lists, loss_of, rate, f"epoch {epoch + 1} of {args.epochs}")
            trainer.end_epoch(args.epochs, validate if val else None, save_every=args.save_every)
    if held:
        held.close()
    parallel.end()
    log(f"done. Next: {shlex.join([str(HERE / 'test.sh'), '--input', str(output.resolve())])}")


if __name__ == "__main__":
    utils.run_main(main)
