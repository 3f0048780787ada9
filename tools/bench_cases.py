"""What the benchmark times: matrix products, CMSA, whole steps, an epoch, evaluation.

Models, losses, inputs and the loop are those of train.py. Weights and random inputs do not change
the time.
"""

import contextlib
import sys
import time
from collections import Counter
from types import SimpleNamespace

import torch

import train
from attention import CMSA, spatial_features
from base_model import CHANNELS
from dataset_RAD import split_validation, training_questions
from engine import Trainer, batches, collate, predict, train_step
from utils import choose_precision, set_seed

WORDS, ANSWERS, QUESTION = 1177, 458, 12  # of the real training split; tokens of a question
PRECISION = {"float32": "float32", "bfloat16": "bf16"}  # engine's name of a --dtype
SECONDS = {}  # {case: [seconds of each round]} of all that was timed


def clock(device):
    """Seconds, once the device has done its work.

    With --processor they are those that this process had of the processor, so that other work on
    a CPU does not count.
    """
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.process_time if "--processor" in sys.argv else time.perf_counter)()


def interleave(cases, rounds, device, warm=1):
    """Run {name: function} in turns, `rounds` times, into SECONDS; `warm` rounds don't count."""
    for number in range(-warm, rounds):
        for name, case in cases.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            start = clock(device)
            case()
            if number >= 0:
                SECONDS.setdefault(name, []).append(clock(device) - start)


def precision_of(args, dtype):
    """Autocast for a --dtype, and on a GPU the TF32 that train.py has at that precision.

    Cases of several precisions take turns, so each sets its own.
    """
    if dtype in PRECISION:
        choose_precision(PRECISION[dtype], torch.device(args.device))
    return torch.autocast(args.device, torch.bfloat16, enabled=dtype == "bfloat16")


def product_case(args, dtype, size):
    """A function: a plain matrix product of two random square matrices."""
    a, b = (torch.randn(size, size, device=args.device).to(getattr(torch, dtype)) for _ in "ab")
    out = torch.empty_like(a)

    def run():
        precision_of(args, dtype)
        torch.mm(a, b, out=out)

    return run


def cmsa_case(args, dtype, dense=False, backward=True, compiled=False):
    """A function: CMSA on random input in training mode, forward and backward or forward alone."""
    torch.manual_seed(0)
    kind = torch.float64 if dtype == "float64" else torch.float32
    model = CMSA(512, args.hidden, blocks=args.blocks).to(args.device, kind)
    for block in model.blocks:  # away from their start at 0, so that every gradient flows
        torch.nn.init.normal_(block.bn.weight, std=0.1)
    visual, question = (
        torch.randn(args.batch_size, *size, device=args.device, dtype=kind, requires_grad=True)
        for size in ((49, 512), (QUESTION, args.hidden))
    )
    spatial = spatial_features(7, 7, kind, args.device)
    forward = model.forward_dense if dense else model.forward
    forward = torch.compile(forward) if compiled else forward

    def run():
        model.zero_grad(set_to_none=True)
        visual.grad = question.grad = None
        with precision_of(args, dtype), torch.set_grad_enabled(backward):
            output = forward(visual, question, spatial)
        if backward:
            output.float().square().mean().backward()

    return run


def real_sizes(folder):
    """A stand-in for RadData, with as many words and answers as the real training split."""
    words = [f"word{number}" for number in range(WORDS)]
    sizes = {"ntoken": WORDS, "num_answers": ANSWERS, "dictionary": words}
    return SimpleNamespace(**sizes, digest="", folder=folder, prepared=folder, phantom=True)


def make_model(args, frozen, data, recipe="paper"):
    """The model of a recipe and its optimizer, as train.py makes them, and train.py's settings.

    --blocks holds for the paper's recipe.
    """
    options = ["--encoder", args.encoder, "--num_hid", str(args.hidden), "--no-mtpt", "--no-idf"]
    options += ["--blocks", str(args.blocks)] if recipe == "paper" else []
    settings, _ = train.parse_args(["--recipe", recipe, *options])
    set_seed(0)
    with contextlib.redirect_stdout(sys.stderr):  # stdout has the tables alone
        model, _, _ = train.new_model(settings, data, frozen)
    model.to(args.device)
    if args.device == "cuda":
        model.image.to(memory_format=torch.channels_last)
    if frozen:
        model.image.freeze()
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.Adamax(trained, lr=settings.lr), settings


def loss_function(args, made, inputs, dtype):
    """train.py's loss_of(batch) at a --dtype. made: what `make_model` gives."""
    model, _, settings = made
    device, precision = torch.device(args.device), PRECISION[dtype]
    loss_of = train.loss_function(model, inputs, settings, device, precision)

    def run(batch):
        choose_precision(precision, device)  # cases of other precisions took turns
        return loss_of(batch)

    return run


def random_questions(size):
    """A batch of `size` random questions."""
    tokens = torch.randint(WORDS, (size, QUESTION)).tolist()
    labels, organs = torch.randint(ANSWERS, (size,)).tolist(), torch.randint(3, (size,)).tolist()
    return [
        SimpleNamespace(tokens=tuple(words), label=label, organ=organ, image=image, weight=1.0)
        for image, (words, label, organ) in enumerate(zip(tokens, labels, organs))
    ]


def step_case(args, made, dtype, size=None, dense=False):
    """A function: a whole training step on `size` random questions (default: --batch_size).

    What the model sees of the images lies on the device already: images, or with frozen encoders
    their maps. made: what `make_model` gives.
    """
    (model, optimizer, settings), size = made, size or args.batch_size
    seen = {"images": torch.randn(size, 3, 224, 224, device=args.device)}
    if not next(model.image.encoders.parameters()).requires_grad:
        maps = torch.randn(size, 1, CHANNELS[args.encoder], 7, 7, device=args.device)
        logits = torch.randn(size, 3, device=args.device)
        seen = {"images": None, "maps": maps, "organ_logits": logits}
    batch = random_questions(size)
    loss_of = loss_function(args, made, lambda rows: seen, dtype)

    def run():
        model.train()
        if dense:
            model.cmsa.forward = model.cmsa.forward_dense
        loss, _, _ = loss_of(batch)
        vars(model.cmsa).pop("forward", None)  # other cases use this model too
        train_step(model, optimizer, loss, settings.clip_norm)

    return run


def run_epoch(args, data, inputs, made, dtype, folder, steps=None):
    """An epoch of engine.Trainer with validation and checkpoints, or its first `steps` steps.

    Returns a dictionary, times in seconds. epoch: all of it, reckoned from the steps that ran;
    loop: a step; model: forward, loss, backward and update of a step; data: its inputs; steps,
    of_steps: steps run and in an epoch; training, validation: questions.
    """
    train_part, val = split_validation(training_questions(data, "official"), 0.1, "official", 0)
    every, spent = batches(train_part, args.batch_size, 0, 0), Counter()
    (model, optimizer, settings), device = made, torch.device(args.device)

    def timed_inputs(rows):
        seen = inputs(rows)
        spent["ready"] = clock(args.device)
        spent["data"] += spent["ready"] - spent["start"]
        return seen

    def timed_loss(batch):
        spent["start"] = clock(args.device)
        spent["begin"] = spent["begin"] or spent["start"]
        return loss_of(batch)

    def updated(*_):
        spent["end"] = clock(args.device)
        spent["model"] += spent["end"] - spent["ready"]

    def validate():
        return train.validation_scores(model, val, inputs, device, PRECISION[dtype])

    loss_of = loss_function(args, made, timed_inputs, dtype)
    hook = optimizer.register_step_post_hook(updated)
    trainer = Trainer(model, optimizer, folder, {}, settings.clip_norm)
    with contextlib.redirect_stdout(sys.stderr), trainer.running():
        start = clock(args.device)
        trainer.train_epoch(every[:steps], timed_loss, settings.lr)
        trainer.end_epoch(1, validate)
        whole = clock(args.device) - start
    hook.remove()
    loop, ran = spent["end"] - spent["begin"], len(every[:steps])
    return {
        "epoch": whole - loop + loop / ran * len(every),
        "loop": loop / ran,
        "model": spent["model"] / ran,
        "data": spent["data"] / ran,
        "steps": ran,
        "of_steps": len(every),
        "training": len(train_part),
        "validation": len(val),
    }


def encode_each(model, questions, inputs, device, precision):
    """engine.predict's probabilities, but with an image encoded anew for each of its questions."""
    model.eval()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    parts = []
    with torch.inference_mode(), autocast:
        for start in range(0, len(questions), 64):
            batch = questions[start : start + 64]
            tokens, _, _ = collate(batch, device)
            output = model(questions=tokens, **inputs([q.image for q in batch]))
            parts.append(model.probabilities(output.logits).cpu())
    return torch.cat(parts)


def evaluation_case(args, model, questions, inputs, dtype, how=predict):
    """A function: evaluation of some questions; `how` is engine.predict or `encode_each`."""

    def run():
        precision_of(args, dtype)
        how(model, questions, inputs, torch.device(args.device), PRECISION[dtype])

    return run
