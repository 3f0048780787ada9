"""Train a medical VQA model (CMSA, BAN or SAN) on VQA-RAD.

    python train.py                                  what ./train.sh runs: the paper's model
    python train.py --recipe tuned                   frozen encoders, other loss, faster
    python train.py --RAD_dir DIR --split clean      your data, without the leaking records

Writes saved_models/<run>/: checkpoints, log, settings. docs/METHOD.md says what is trained.
"""

import argparse
import shlex
from functools import partial

import torch

import dataset_RAD as rad
import engine
import extra_data
import parallel
import utils
from extras import WithPrior, fit_prior, idf_weights, mean_cells
from image_type import train_on_questions
from journal import write_run
from readers import checkpoints, sentences, vectors, weights
from settings import data_options, make_parser, parse_args, run_name, settle
from utils import HERE, UserError, log

# arguments that must match the checkpoint of --init
MODEL = "model rnn num_hid blocks use_spatial num_stacks gamma distmodal gate".split()


def new_model(args, data, frozen):
    """A new model with its start weights, its arguments, and a description of the start.

    The arguments are {"model_arguments", "prior_arguments": None}, for readers.checkpoints.build.
    """
    names = (*weights.MTPT_FILES, weights.ONE_ENCODER)
    named = {name: path for name in names if (path := getattr(args, name))}
    folder = HERE / "saved_models" / "MTPT" if args.mtpt else None
    parts = weights.find_parts(named, folder, data.phantom, data.digest)
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
    arguments = {"model_arguments": model_arguments, "prior_arguments": None}
    model = checkpoints.build(**arguments)
    if found:
        description += f"; {start_words(model, *found, args, data)}"
    if start:
        weights.start_encoders(model.image, start, description)
    if args.distmodal and (part := parts.get(weights.IMAGE_TYPE_ARGUMENT)):
        checkpoints.load_part(model.image.image_type, part["state"], str(part["path"]))
        description += f"; image type from {part['path']}"
    if args.vqa_init:
        description += f"; {weights.start_language(model, args.vqa_init, data.dictionary)}"
    return model, arguments, description


def add_prior(model, arguments, questions, data, inputs, args):
    """(WithPrior of a model, its arguments): a prior of the training questions, which it solves.

    It compares images where the encoders are frozen.
    """
    cells, embed = None, sentences.embed if args.sentences else None
    table = None if embed else vectors.table_or_zeros(data, args.emb_init)
    if args.freeze_encoders:
        rows = sorted({question.image for question in questions})
        cells = dict(zip(rows, mean_cells(model.image, inputs, rows).cpu()))
    prior, sizes = fit_prior(questions, cells, data.ntoken, data.num_answers, table, embed)
    how = "sentence embeddings" if embed else "words"
    if not sentences.installed() and "language" not in data.options:
        how += f"; by sentences after {sentences.INSTALL}"
    log(f"prior: retrieval from {sizes['questions']} questions, which it compares by {how}")
    return WithPrior(model, prior), arguments | {"prior_arguments": sizes}


def start_words(model, table, description, args, data):
    """Start a model's word tables from vectors (ntoken, dim); returns a description."""
    table = torch.from_numpy(table)
    if args.idf:
        train = rad.own_parts(data, args.val_fraction, args.split, args.seed)[0]
        idf = idf_weights(train, data.ntoken)
        table = table * torch.from_numpy(idf)[:, None]  # (ntoken, word_dim)
        description += " times idf"
    model.w_emb.initialise(table)
    return description


def old_model(args, kept, path, data, frozen):
    """The model of a checkpoint that training goes on with (--resume) or starts from (--init).

    Returns what `new_model` does.
    """
    checkpoints.check_sizes(kept, path)
    kept = kept if args.resume else checkpoints.without_prior(kept)
    kept = kept if frozen else checkpoints.copy_shared_encoder(kept)
    arguments = {name: kept[name] for name in ("model_arguments", "prior_arguments")}
    if args.resume:
        checkpoints.check_vocabulary(kept, data, path)
        model = checkpoints.build(**arguments)
        checkpoints.load_part(model, kept["model"], str(path))
        return model, arguments, kept["start"]
    # words, answers, loss and dropout are this run's, all other things the checkpoint's
    if kept["settings"].get("distmodal") and not data.organs:
        lack = "an encoder for each of three organs, which this set lacks"
        raise UserError(f"{path} has {lack}: name a run with --no-distmodal")
    checkpoints.check_same(args, kept["settings"], MODEL, path)
    encoder, word_dim = (arguments["model_arguments"][key] for key in ("encoder", "word_dim"))
    starts = (*weights.MTPT_FILES, weights.ONE_ENCODER, "vqa_init", "random_encoders")
    if named := [f"--{name}" for name in starts if getattr(args, name)]:
        raise UserError(f"{', '.join(named)}: --init has all start weights; leave out either")
    theirs, split = kept["data"], kept["settings"]["split"]
    if theirs["digest"] != data.digest or (args.split, split) == ("clean", "official"):
        learnt = f"{theirs['name']} ({theirs['digest']}, --split {split})"
        log(f"NOTE: {path} trained on {learnt}: it may know test questions or images of this run")
    if args.encoder not in ("auto", encoder):
        raise UserError(f"--encoder {args.encoder}: {path} has {encoder}; leave it out")
    sizes = {"ntoken": data.ntoken, "num_answers": data.num_answers}
    sizes["word_dropout"] = args.word_dropout
    arguments["model_arguments"] = arguments["model_arguments"] | sizes
    arguments["model_arguments"]["softmax"] = args.loss == "ce"
    model = checkpoints.build(**arguments)
    if set(data.dictionary) - set(kept["dictionary"]):  # the others get the checkpoint's rows
        if found := vectors.find_embedding(data, args.emb_init, log, word_dim):
            start_words(model, *found, args, data)
    return model, arguments, weights.start_from_run(model, kept, path, data)


def loss_function(model, inputs, args, device, precision):
    """The loss of a step: loss_of(batch), as engine.Trainer wants it, of a list of Question."""

    def loss_of(batch):
        tokens, labels, organs = engine.collate(batch, device)  # (B, 12), (B,), (B,)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            result = model(questions=tokens, **inputs([q.image for q in batch]))
        kind, weights = (args.loss, args.label_smoothing), [q.weight for q in batch]
        loss = engine.vqa_loss(result, labels, organs, *kind, weights)
        return loss, (result.logits.argmax(1) == labels).sum(), len(batch)

    return loss_of


def validation_scores(model, questions, inputs, device, precision, answers=None):
    """(score, {"val_score", "val_open", "val_closed"}): shares of right answers.

    answers: see engine.predict.
    """
    options = {"precision": precision, "answers": answers}
    probabilities = engine.predict(model, questions, inputs, device, **options)
    labels = torch.tensor([q.label for q in questions])
    correct = (probabilities.argmax(1) == labels).float()
    scores = {"val_score": correct.mean().item()}
    for group in ("OPEN", "CLOSED"):
        if these := [i for i, q in enumerate(questions) if q.answer_type == group]:
            scores[f"val_{group.lower()}"] = correct[these].mean().item()
    return scores["val_score"], scores


def main():
    args, kept = parse_args(description=__doc__.splitlines()[0])
    if args.seeds > 1:
        from tools.seeds import train_seeds

        return train_seeds(args)
    output, held, data, val = train_run(args, kept)
    if held:  # in the first process; the model's memory is free for the second run
        from tools import calibrate

        if args.calibrate and not val:
            parser = make_parser(argparse.ArgumentParser(add_help=False))
            calibrate.companion(args, parser, output, data)
        held.close()
        log(f"done. Next: {shlex.join([str(HERE / 'test.sh'), '--input', str(output.resolve())])}")


def train_run(args, kept):
    """Train one run, or go on with it: (its folder, its lock, its data, validation questions).

    The lock is None but in the first process. Raises UserError and Stopped.
    """
    device = utils.choose_device(parallel.begin(args.gpu))
    output = args.output or HERE / "saved_models"  # where the run gets a folder of its own
    utils.check_writable(output, "--output")
    if (output / "last.pth").exists() and not kept:
        raise UserError(f"{output} holds a run already: name another --output, or --resume")

    # the data, and the settings that depend on them and on the machine
    with parallel.first_alone():
        data = rad.find_data(args.RAD_dir, data_options(args, kept), log=log)
    changed = settle(args, data, device.type == "cpu", kept)
    output = args.output or output / run_name(args, changed, data)
    differ, frozen = f", changed: {changed}" if changed else "", args.freeze_encoders
    log(f"{args.model}, recipe {args.recipe}{differ}; {output}")
    data = rad.set_question_len(data, args.question_len)
    data = rad.without_questions(data) if args.image_only else data
    train, val = rad.own_parts(data, args.val_fraction, args.split, args.seed)
    if len(train) < 2:
        raise UserError(f"{len(train)} training questions are left: lower --val_fraction")
    with parallel.first_alone():
        others, extra = extra_data.read(args, data)
    about_data = extra_data.about(data, others)
    precision = utils.choose_precision(args.precision, device, kept and kept.get("precision"))
    if kept:
        extra_data.check_same(kept["data"], about_data, output)

    # the model
    held = utils.lock(output) if parallel.is_first() else None
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
        if args.distmodal and (not start or start["data"]["digest"] != data.digest):
            train_on_questions(model.image.image_type, train, data, device, args.seed)
        model.image.freeze()
    blank, sets = args.question_only, [data, *others]
    inputs = extra_data.joined_inputs(model.image, sets, device, frozen, blank)
    questions = train + extra
    if args.prior and not kept:
        model, arguments = add_prior(model, arguments, train, data, inputs, args)
        model.to(device)
    if parallel.world()[1] > 1:
        parallel.synchronise_norms(model)
        parallel.own_random_numbers(args.seed)
    trained = parallel.wrap(model.model if args.prior else model, args.compile)
    optimizer = torch.optim.Adamax([p for p in model.parameters() if p.requires_grad], lr=args.lr)
    loss_of = loss_function(trained, inputs, args, device, precision)

    # the run's folder
    checkpoint = arguments | {"settings": checkpoints.settings_of(args), "data": about_data}
    checkpoint |= {"recipe": args.recipe, "changed": changed, "start": description}
    if parallel.is_first():
        about = {"training_questions": len(train), "validation_questions": len(val)}
        about["extra_questions"] = len(extra)
        at = kept and kept["epoch"] + 1
        write_run(output, checkpoint | about, device, precision, parallel.world()[1], at)
    checkpoint |= {"dictionary": data.dictionary, "answers": data.answers, "precision": precision}
    steps = len(parallel.shard(engine.batches(questions, args.batch_size, args.seed, 0)))
    warmup = engine.warmup_steps(args.epochs, steps)
    trainer = engine.Trainer(model, optimizer, output, checkpoint, args.clip_norm, warmup)
    trainer.describe = lambda batch: f"; questions {', '.join(str(q.qid) for q in batch)}"
    if kept:
        trainer.restore(kept, output / "last.pth")
    numbers = f"{len(train)} training and {len(val)} validation questions, {data.ntoken} words"
    log(f"{data.titled(args.split)}: {numbers}, {data.num_answers} answers")
    how, size = "frozen" if frozen else "trained", sum(p.numel() for p in model.parameters())
    log(f"{how} encoders: {description}; {device}, {precision}; {size:,} parameters")

    asked = model, val, inputs, device, precision
    classes = data.answers if args.form_rule else None
    validate = partial(validation_scores, *asked, answers=classes)
    with trainer.running():
        for epoch in range(trainer.epoch, args.epochs):
            lists = parallel.shard(engine.batches(questions, args.batch_size, args.seed, epoch))
            rate = engine.RATES[args.schedule](epoch, args.epochs, args.lr)
            trainer.train_epoch(lists, loss_of, rate, f"epoch {epoch + 1} of {args.epochs}")
            trainer.end_epoch(args.epochs, validate if val else None, save_every=args.save_every)
    if held:
        from tools import calibrate

        fit = partial(calibrate.of_validation, *asked, answers=classes)
        fits = args.calibrate and val and calibrate.enough(val)
        calibrate.finish(args, output, fit if fits else None)
    parallel.end()
    return output, held, data, val


if __name__ == "__main__":
    utils.run_main(main)
