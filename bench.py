"""Time and memory of every part beside what it should be compared with: a Markdown table, and the same as JSON with --json FILE.

    python bench.py                     the table: about a quarter of an hour on two CPU cores
    python bench.py --growth            an epoch at 1, 4 and 16 times the phantom set's size: about as long
    python bench.py --quick             small sizes, one round: whether everything runs, not how fast
    python bench.py --device cuda --compile

What a row compares ran in turns, after a round that does not count unless the remark says so; times are medians, peak memory is a fresh
process's. Weights are random, inputs random or the phantom set's: neither changes the time.
"""

import argparse
import contextlib
import functools
import importlib.util
import io
import itertools
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import torch

import phantom_RAD
from attention import CMSA, spatial_features
from base_model import CHANNELS, PRIOR_COMPONENTS, VQAModel
from dataset_RAD import prepare, split_validation, training_questions, writable
from engine import (
    RECIPES,
    Inputs,
    batches,
    collate,
    encode_images,
    fit,
    organ_logits,
    predict,
    train_step,
    vqa_loss,
)
from utils import UserError, choose_precision, run_main, write_json

HERE = Path(__file__).resolve().parent
WORDS, ANSWERS, QUESTION = (
    1177,
    458,
    12,
)  # of the real training split: words, answers, tokens a question
TEST_QUESTIONS, TEST_IMAGES = 451, 203  # of the real test split
PRECISION = {"float32": "float32", "bfloat16": "bf16"}  # engine's name of a --dtype
SECONDS = {}  # {case: [seconds of each round]} of all that was timed


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--batch_size", type=int, help="default: 32")
    add(
        "--repeats",
        type=int,
        help="rounds for CMSA (default: 7); start-up takes at most 5 of them, whole steps 3, epochs and evaluation 2",
    )
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add(
        "--dtype",
        nargs="+",
        default=["float32", "bfloat16"],
        choices=["float32", "float64", "bfloat16"],
        help="default: float32 bfloat16. bfloat16 is autocast; float64 is for CMSA alone",
    )
    add("--blocks", type=int, default=2, choices=[1, 2], help="of CMSA")
    add(
        "--encoder",
        choices=list(CHANNELS),
        help="default: efficientnet_lite0 where it is installed, else resnet34",
    )
    add("--compile", action="store_true", help="measure torch.compile too: takes minutes on a CPU")
    add(
        "--quick",
        action="store_true",
        help="small sizes and one round; whole models in the last --dtype only",
    )
    add(
        "--growth",
        type=int,
        nargs="*",
        metavar="TIMES",
        help="the growth table, at so many times the phantom set's size (default: 1 4 16)",
    )
    add(
        "--steps",
        type=int,
        help="of an epoch, for --growth; the others are taken to be as fast (default: 40)",
    )
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all of it there too, with the seconds of every round",
    )
    add(
        "--memory_of",
        choices=["dense", "ours", "frozen", "trained", "encode", "epoch"],
        help=argparse.SUPPRESS,
    )
    add("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, usual, quick in (("batch_size", 32, 2), ("repeats", 7, 1), ("steps", 40, 2)):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else usual)
    args.images = phantom_RAD.FEWEST_IMAGES if args.quick else 320  # of the phantom set
    args.growth = [1, 4, 16] if args.growth == [] else args.growth
    has_lite = importlib.util.find_spec("efficientnet_lite_pytorch") is not None
    if args.encoder == "efficientnet_lite0" and not has_lite:
        raise UserError(
            "--encoder efficientnet_lite0: the package efficientnet-lite-pytorch is not installed; use --encoder resnet34"
        )
    args.encoder = args.encoder or ("efficientnet_lite0" if has_lite else "resnet34")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda: this machine has no CUDA GPU that PyTorch can use; leave --device out"
        )
    if args.batch_size < 2 or min(args.repeats, args.steps, *(args.growth or [1])) < 1:
        raise UserError(
            "--batch_size: at least 2 is wanted; --repeats, --steps and --growth: at least 1"
        )
    if args.growth and "float64" in args.dtype:
        raise UserError("--growth: --dtype float64 is for CMSA alone, name another")
    if args.json and (
        args.json.is_dir() or not writable(args.json.absolute().parent)
    ):  # now, not a quarter of an hour later
        raise UserError(f"--json {args.json}: no file can be written there")
    return args


# ---------------------------------------------------------------- time, memory and arithmetic


def clock(device):
    """Seconds, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def interleave(cases, rounds, device, warm=1):
    """Run {name: function} in turns, `rounds` times after `warm` that don't count, into SECONDS."""
    for number in range(-warm, rounds):
        for name, case in cases.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            start = clock(device)
            case()
            if number >= 0:
                SECONDS.setdefault(name, []).append(clock(device) - start)


def row(what, value, against="", reference=None, unit="s", rounds=1, remark=""):
    """A row of the table. Its ratio is how many times better than the reference: less time or memory, a higher rate or share."""
    ratio = reference and (reference / value if unit in ("s", "MiB") else value / reference)
    return {
        "what": what,
        "value": value,
        "unit": unit,
        "against": against,
        "reference": reference,
        "ratio": ratio,
        "rounds": rounds,
        "remark": remark,
    }


def pair(case, against, remark=""):
    """Rows that compare two timed cases: one, or none where either was not measured."""
    if case not in SECONDS or against not in SECONDS:
        return []
    return [
        row(
            case,
            statistics.median(SECONDS[case]),
            against,
            statistics.median(SECONDS[against]),
            "s",
            len(SECONDS[case]),
            remark,
        )
    ]


def multiply_adds(
    batch, cells=49, words=12, visual=512, question=1024, spatial=8, blocks=2, dense=False
):
    """Multiply-adds in the matrix products of one CMSA pass over a batch, training mode: (forward, backward).

    Line by line those of attention.CMSA.forward, or of forward_dense. Backward takes twice as many, but for the products in `affine` whose
    gradient is needed for one factor only. Elementwise work, softmax and sums are not counted, nor what flash attention computes again
    in its backward pass.
    """
    channels, parts, tokens = (
        visual + question + spatial,
        cells + words,
        cells * words,
    )  # C, r = N + T, L = T * N
    inner = channels // 2  # D
    if dense:  # theta, phi and g; scores, and their product with g; W
        total = (
            blocks * batch * tokens * (3 * channels * inner + 2 * tokens * inner + inner * channels)
        )
        return total, 2 * total

    def behind(
        rank,
    ):  # `affine`: Gram matrix, means, Gram times values, the covariance within and between, W cov, W mean; then y and W y
        a_sample = (
            tokens * rank**2
            + rank * inner
            + rank**2 * inner
            + rank * inner**2
            + inner**2
            + words * inner * (rank + channels)
        )
        return batch * a_sample + channels * inner**2 + channels * inner

    project = (
        batch * (cells * (visual + spatial) + words * question) * 3 * inner
    )  # cells and words have their own channels only
    total = project + batch * parts**2 * inner + behind(parts)
    if blocks == 2:
        folded = (
            3 * inner * channels * (1 + inner) + batch * parts * inner * 3 * inner
        )  # c and W through the projections; values through both
        total += (
            project
            + folded
            + batch * ((2 * parts) ** 2 * (inner + tokens) + 2 * tokens**2 * 2 * parts)
            + behind(2 * parts)
        )
    halved = sum(
        batch * rank * inner**2 + channels * inner**2 for rank in (parts, 2 * parts)[:blocks]
    )
    return total, 2 * total - halved


def resident(field):
    """This process's resident size, MiB: now ("VmRSS") or its peak ("VmHWM"; ru_maxrss also counts the process it came from)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    except (OSError, StopIteration):
        return (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        )  # the peak so far; bytes on macOS


def fresh(*options):
    """What a fresh process finds with our arguments and `--memory_of ...` (`measure_alone`). Raises UserError when it fails."""
    done = subprocess.run(
        [sys.executable, HERE / "bench.py", *sys.argv[1:], "--memory_of", *map(str, options)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise UserError(
            f"measuring {options[0]} ended with code {done.returncode} ({last}): a lower --batch_size or --growth takes less memory"
        )
    return json.loads(done.stdout)


def measure_alone(args):
    """`--memory_of`: prints JSON. "above": MiB at most above what stood before; "host": of the whole process; "gpu": allocated there, or null.

    For --growth also the seconds of preparing and encoding, or what `run_epoch` gives.
    """
    found = {}

    def prepared():
        times = [time.perf_counter()]
        data = prepare(args.folder, say=lambda _: None)
        times.append(time.perf_counter())
        model, optimizer = make_model(args, True, data.ntoken, data.num_answers)
        inputs = frozen_inputs(args, data, model)
        found.update(
            images=len(data.image_names),
            questions=len(data.train) + len(data.test),
            prepare=times[1] - times[0],
            encode=time.perf_counter() - times[1],
        )
        return data, inputs, model, optimizer

    if args.memory_of in ("dense", "ours"):
        step = cmsa_case(args, args.dtype[0], args.memory_of == "dense")
    elif args.memory_of in ("frozen", "trained"):
        once = step_case(args, *make_model(args, args.memory_of == "frozen"), args.dtype[0])

        def step():
            once()  # makes the optimizer's state
            once()
    else:

        def step():
            ready = prepared()
            if args.memory_of == "epoch":
                found.update(run_epoch(args, *ready, args.dtype[-1], args.folder, args.steps))

    torch.ones(64, 64) @ torch.ones(64, 64)  # let the libraries load first
    before, gpu = resident("VmRSS"), None
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    step()
    if args.device == "cuda":
        gpu = torch.cuda.max_memory_allocated() / 2**20
    print(
        json.dumps(
            found
            | {
                "above": (resident("VmHWM") if gpu is None else gpu) - before,
                "host": resident("VmHWM"),
                "gpu": gpu,
            }
        )
    )


# ---------------------------------------------------------------- what is measured


def precision_of(args, dtype):
    """Autocast for a --dtype, and on a GPU TF32 as train.py has it at that precision. Cases of several take turns, so each sets its own."""
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
    """A function: CMSA of the paper's size on random input, training mode, forward and backward or forward alone."""
    torch.manual_seed(0)
    kind = torch.float64 if dtype == "float64" else torch.float32
    model = CMSA(blocks=args.blocks).to(args.device, kind)
    for block in model.blocks:  # away from their start at 0, so that every gradient flows
        torch.nn.init.normal_(block.bn.weight, std=0.1)
    visual = torch.randn(
        args.batch_size, 49, 512, device=args.device, dtype=kind, requires_grad=True
    )
    question = torch.randn(
        args.batch_size, QUESTION, 1024, device=args.device, dtype=kind, requires_grad=True
    )
    spatial = spatial_features(7, 7, kind, args.device)
    forward = (
        torch.compile(model.forward)
        if compiled
        else model.forward_dense
        if dense
        else model.forward
    )

    def run():
        model.zero_grad(set_to_none=True)
        visual.grad = question.grad = None
        with precision_of(args, dtype), torch.set_grad_enabled(backward):
            output = forward(visual, question, spatial)
        if backward:
            output.float().square().mean().backward()

    return run


def make_model(args, frozen, words=WORDS, answers=ANSWERS, best=False):
    """The whole model and its optimizer as train.py makes them: frozen, the organs share one encoder (ImageNet's); else three are trained.

    With the paper's recipe and --blocks, or `best`: with `--recipe best`.
    """
    torch.manual_seed(0)
    of_recipe = (
        {"blocks": args.blocks}
        if not best
        else {"softmax": True, "components": PRIOR_COMPONENTS}
        | {key: RECIPES["best"][key] for key in ("blocks", "gate", "prior", "word_dropout")}
    )
    model = VQAModel("CMSA", words, answers, encoder=args.encoder, shared=frozen, **of_recipe).to(
        args.device
    )
    if frozen:
        model.image.freeze()
    if args.device == "cuda":
        model.image.to(memory_format=torch.channels_last)
    return model, torch.optim.Adamax([p for p in model.parameters() if p.requires_grad], lr=0.005)


def step_case(args, model, optimizer, dtype, dense=False):
    """A function: a whole training step on random input that lies on the device already. Frozen encoders get feature maps, others images."""

    def whole(high, *size):
        return torch.randint(high, size, device=args.device)

    def real(*size):
        return torch.randn(args.batch_size, *size, device=args.device)

    if next(model.image.encoders.parameters()).requires_grad:
        seen = {"images": real(3, 224, 224)}
    else:
        seen = {
            "images": None,
            "maps": real(1, CHANNELS[args.encoder], 7, 7),
            "organ_logits": real(3),
        }
    questions, labels, organs = (
        whole(WORDS, args.batch_size, QUESTION),
        whole(ANSWERS, args.batch_size),
        whole(3, args.batch_size),
    )

    def run():
        model.train()
        if dense:
            model.cmsa.forward = model.cmsa.forward_dense
        with precision_of(args, dtype):
            output = model(questions=questions, **seen)
        vars(model.cmsa).pop("forward", None)  # others use this model too
        train_step(
            model,
            optimizer,
            vqa_loss(output, labels, organs, "ce" if model.softmax else "bce"),
            0.25,
        )

    return run


def run_epoch(args, data, inputs, model, optimizer, dtype, folder, steps=None):
    """An epoch of engine.fit, with validation and checkpoints, or the first `steps` of its steps: a dictionary, times in seconds.

    epoch: all of it, reckoned from the steps that ran; loop, model, data: a step, what of it forward, loss, backward and update take, and
    what its inputs take; then the numbers of steps run and in an epoch, and of questions.
    """
    train, val = split_validation(training_questions(data, "official"), 0.1, "official", 0)
    device, every, spent = (
        torch.device(args.device),
        batches(train, args.batch_size, 0, 0),
        Counter(),
    )

    def batch_loss(batch):  # train.py's, with the paper's recipe
        start = clock(args.device)
        spent["begin"] = spent["begin"] or start
        tokens, labels, organs = collate(batch, device)
        seen = inputs([q.image for q in batch])
        spent["ready"] = clock(args.device)
        spent["data"] += spent["ready"] - start
        with precision_of(args, dtype):
            result = model(questions=tokens, **seen)
        right = (result.logits.argmax(1) == labels).sum()
        return vqa_loss(result, labels, organs), right, len(batch)

    def updated(*_):
        spent["end"] = clock(args.device)
        spent["model"] += spent["end"] - spent["ready"]

    def validate():
        answers = predict(model, val, inputs, device, PRECISION[dtype]).argmax(1).tolist()
        return sum(answer == q.label for answer, q in zip(answers, val)) / len(val), {}

    hook = optimizer.register_step_post_hook(updated)
    start = clock(args.device)
    with contextlib.redirect_stdout(io.StringIO()):  # fit tells of its epoch
        fit(
            model,
            optimizer,
            SimpleNamespace(epochs=1, lr=0.005, clip_norm=0.25, save_every=0),
            lambda _: every[:steps],
            batch_loss,
            validate,
            {},
            folder,
        )
    whole, loop, ran = clock(args.device) - start, spent["end"] - spent["begin"], len(every[:steps])
    hook.remove()
    return {
        "epoch": whole - loop + loop / ran * len(every),
        "loop": loop / ran,
        "model": spent["model"] / ran,
        "data": spent["data"] / ran,
        "steps": ran,
        "of_steps": len(every),
        "training": len(train),
        "validation": len(val),
    }


def frozen_inputs(args, data, model):
    """Inputs as train.py makes them for frozen encoders: feature maps and image types, computed once."""
    device = torch.device(args.device)
    return Inputs(
        data,
        device,
        encode_images(model.image, data, device),
        organ_logits(model.image.image_type, data, device),
    )


def encode_each(model, questions, inputs, device, precision):
    """What engine.predict gives, but with an image encoded anew for each of its questions."""
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        return [
            model.probabilities(
                model.eval()(
                    questions=collate(batch, device)[0], **inputs([q.image for q in batch])
                ).logits
            ).cpu()
            for batch in (questions[start : start + 64] for start in range(0, len(questions), 64))
        ]


def evaluation_case(args, how, model, questions, inputs, dtype):
    """A function: evaluation of some questions, `how` engine.predict or `encode_each`."""

    def run():
        precision_of(args, dtype)
        how(model, questions, inputs, torch.device(args.device), PRECISION[dtype])

    return run


# ---------------------------------------------------------------- the tables


def cmsa_rows(args, skipped):
    """CMSA against the dense definition, compiled CMSA against eager, and its rate against a plain matrix product's."""
    cases, size = {}, 512 if args.quick else 2048 if args.device == "cpu" else 8192
    for dtype in args.dtype:
        cases[f"matrix product, {dtype}"] = product_case(args, dtype, size)
        for part, backward in (("forward", False), ("forward+backward", True)):
            cases[f"dense CMSA {part}, {dtype}"] = cmsa_case(args, dtype, True, backward)
            cases[f"CMSA {part}, {dtype}"] = cmsa_case(args, dtype, False, backward)
        try:
            if not args.compile:
                raise UserError("--compile was not given")
            cases[f"compiled CMSA forward+backward, {dtype}"] = cmsa_case(
                args, dtype, compiled=True
            )
            cases[f"compiled CMSA forward+backward, {dtype}"]()
        except Exception as error:  # no compiler here, or it fails: of many types
            cases.pop(f"compiled CMSA forward+backward, {dtype}", None)
            skipped[f"torch.compile, {dtype}"] = (
                str(error).strip().splitlines() or [type(error).__name__]
            )[0][:160]
    interleave(cases, args.repeats, args.device, warm=not args.quick)
    rows, (ours, dense) = (
        [],
        (
            multiply_adds(args.batch_size, blocks=args.blocks, dense=dense)
            for dense in (False, True)
        ),
    )
    ahead, back, dense_ahead, dense_back = (
        number / args.batch_size / 1e9 for number in (*ours, *dense)
    )
    for dtype in args.dtype:
        for part in ("forward", "forward+backward"):
            rows += pair(
                f"CMSA {part}, {dtype}",
                f"dense CMSA {part}, {dtype}",
                "target: 9" * ((part, dtype) == ("forward+backward", "float32")),
            )
        rows += pair(f"compiled CMSA forward+backward, {dtype}", f"CMSA forward+backward, {dtype}")
        rate, limit = (
            2e-9 * number / statistics.median(SECONDS[case])
            for number, case in (
                (sum(ours), f"CMSA forward+backward, {dtype}"),
                (size**3, f"matrix product, {dtype}"),
            )
        )
        rows.append(
            row(
                f"rate of CMSA forward+backward, {dtype}",
                rate,
                f"matrix product of size {size}, {dtype}",
                limit,
                "GFLOP/s",
                args.repeats,
                f"{ahead:.3f} G multiply-adds a sample forward, {back:.3f} G backward (dense: {dense_ahead:.3f} and {dense_back:.3f} G); "
                "target: 0.6",
            )
        )
    return rows + pair("CMSA forward+backward, bfloat16", "CMSA forward+backward, float32")


def model_rows(args, folder):
    """Whole training steps on random input and what their inputs take; on the phantom set an epoch with frozen encoders, and evaluation."""
    phantom_RAD.draw(folder / "phantom", images=args.images)
    data, device, last = (
        prepare(folder / "phantom", say=lambda _: None),
        torch.device(args.device),
        args.dtype[-1],
    )
    (frozen, frozen_optimizer), (trained, trained_optimizer) = (
        make_model(args, True),
        make_model(args, False),
    )
    inputs = frozen_inputs(args, data, frozen)
    with h5py.File(
        folder / "three.h5", "w"
    ) as file:  # as after pre-training, when every organ has its own encoder
        file.create_dataset(
            "maps",
            data=np.repeat(torch.as_tensor(inputs.maps[:]).cpu().numpy(), 3, axis=1),
            chunks=(1, 3, *inputs.maps.shape[2:]),
        )
    of_three = Inputs(data, device, folder / "three.h5", inputs.organ_logits)

    def load(some, drawn):
        batch = next(drawn)
        return collate(batch, device), some([q.image for q in batch])

    cases = {
        name: functools.partial(
            load, some, itertools.cycle(batches(data.train, args.batch_size, 0, 0))
        )
        for name, some in (
            ("inputs of a frozen step", inputs),
            ("inputs of a frozen step, three maps an image", of_three),
        )
    }
    for dtype in args.dtype:
        cases[f"frozen step, {dtype}"] = step_case(args, frozen, frozen_optimizer, dtype)
        cases[f"frozen step with dense CMSA, {dtype}"] = step_case(
            args, frozen, frozen_optimizer, dtype, dense=True
        )
        cases[f"fine-tuning step, {dtype}"] = step_case(args, trained, trained_optimizer, dtype)
    larger = SimpleNamespace(
        **vars(args) | {"batch_size": 2 * args.batch_size}
    )  # as the recipe has it
    cases[best := f"a question of a frozen step, --recipe best, {last}"] = step_case(
        larger, *make_model(args, True, best=True), last
    )
    interleave(cases, min(args.repeats, 3), args.device, warm=not args.quick)
    rows = []
    for dtype in args.dtype:
        rows += pair(f"frozen step, {dtype}", f"frozen step with dense CMSA, {dtype}")
        rows += pair(
            f"frozen step, {dtype}",
            f"fine-tuning step, {dtype}",
            f"fine-tuning: three {args.encoder}",
        )
    rows += pair("frozen step, bfloat16", "frozen step, float32") + pair(
        "fine-tuning step, bfloat16", "fine-tuning step, float32"
    )
    each = [
        statistics.median(SECONDS[case]) / size
        for case, size in ((best, larger.batch_size), (f"frozen step, {last}", args.batch_size))
    ]
    SECONDS[best] = [seconds / larger.batch_size for seconds in SECONDS[best]]
    rows.append(
        row(
            best,
            each[0],
            "--recipe paper",
            each[1],
            rounds=len(SECONDS[best]),
            remark=f"in steps of {larger.batch_size} and {args.batch_size} questions",
        )
    )
    for case in list(cases)[:2]:
        rows += pair(case, f"frozen step, {last}", "target: 6, where 85% of both is in the model")

    took = {f"epoch, {dtype}": [] for dtype in args.dtype}

    def run(name, dtype):
        took[name].append(
            run_epoch(
                args,
                data,
                inputs,
                frozen,
                frozen_optimizer,
                dtype,
                folder,
                args.steps if args.quick else None,
            )
        )

    interleave(
        {name: functools.partial(run, name, dtype) for name, dtype in zip(took, args.dtype)},
        min(args.repeats, 2),
        args.device,
        warm=0,
    )
    for name, runs in took.items():
        SECONDS[name] = [one["epoch"] for one in runs]  # what a whole one takes
        epoch, step, used, read = (
            statistics.median(one[key] for one in runs)
            for key in ("epoch", "loop", "model", "data")
        )
        remark = "frozen encoders; {training} training, {validation} validation questions; {steps} of {of_steps} steps run; no round before"
        first = f"epoch, {args.dtype[0]}"
        remark = remark.format(
            **runs[0]
        ) + "; timed with a wait for the GPU twice a step, which train.py has not" * (
            args.device == "cuda"
        )
        rows += (
            [row(name, epoch, rounds=len(runs), remark=remark)]
            if name == first
            else pair(name, first, remark)
        )
        rows.append(
            row(
                f"share of a step in the model, {name}",
                used / step,
                "all of it",
                1.0,
                "",
                len(runs),
                f"inputs {read / step:.1%}, loop {1 - (used + read) / step:.1%} of {shown(step, 's')}; target: 0.85",
            )
        )

    asked, inputs, cases = Counter(), Inputs(data, device), {}

    def turn(question):  # so that the images have about as many questions each
        asked[question.image] += 1
        return asked[question.image]

    questions = sorted((q for q in data.train + data.test if q.image < TEST_IMAGES), key=turn)[
        : 4 if args.quick else TEST_QUESTIONS
    ]
    for dtype in args.dtype:
        cases[f"evaluation, {dtype}"] = evaluation_case(
            args, predict, trained, questions, inputs, dtype
        )
    each = f"evaluation, an image encoded for each question, {last}"
    cases[each] = evaluation_case(args, encode_each, trained, questions, inputs, last)
    interleave(cases, min(args.repeats, 2), args.device, warm=0)
    remark = f"{len(questions)} questions on {len({q.image for q in questions})} images, three {args.encoder}; no round before"
    rows += pair(f"evaluation, {last}", each, remark)
    return rows + pair("evaluation, bfloat16", "evaluation, float32")


def memory_rows(args):
    """Peak memory, each in a fresh process: CMSA's above what stood before, whole steps' in all."""
    rows = []
    for dtype in args.dtype[:1] if args.quick else args.dtype:
        kinds = (
            ("ours", "dense")
            if dtype == "float64" or args.quick
            else ("ours", "dense", "frozen", "trained")
        )
        peak = {kind: fresh(kind, "--dtype", dtype) for kind in kinds}
        rows.append(
            row(
                f"peak memory, CMSA forward+backward, {dtype}",
                peak["ours"]["above"],
                "dense CMSA",
                peak["dense"]["above"],
                "MiB",
                remark="above what stood before",
            )
        )
        if "frozen" in peak:
            frozen, trained = (
                peak[kind]["host"] if peak[kind]["gpu"] is None else peak[kind]["gpu"]
                for kind in ("frozen", "trained")
            )
            rows.append(
                row(
                    f"peak memory, frozen steps, {dtype}",
                    frozen,
                    "fine-tuning steps",
                    trained,
                    "MiB",
                    remark=f"all, {args.device}",
                )
            )
    return rows


def start_rows(args):
    """How long a fresh Python takes to bring up train.py."""
    cases = {
        "start-up: python train.py --help": [HERE / "train.py", "--help"],
        "start-up: import torch": ["-c", "import torch"],
    }
    interleave(
        {
            name: functools.partial(
                subprocess.run, [sys.executable, *command], check=True, capture_output=True
            )
            for name, command in cases.items()
        },
        min(args.repeats, 5),
        "cpu",
        warm=not args.quick,
    )
    return pair(*cases)


def growth_rows(args, folder):
    """Dictionaries: preparing and encoding, then an epoch, on phantom sets with so many times the images, each part in a fresh process."""
    rows = []
    for times in args.growth:
        phantom_RAD.draw(folder / str(times), images=times * args.images)
        encode, epoch = (
            fresh(part, "--folder", folder / str(times)) for part in ("encode", "epoch")
        )
        rows.append(
            {"times": times}
            | epoch
            | {key: encode[key] for key in ("prepare", "encode")}
            | {"encode_host": encode["host"]}
        )
        print(f"{times} times: an epoch takes {rows[-1]['epoch']:.0f} s", file=sys.stderr)
        shutil.rmtree(folder / str(times))  # gigabytes
    return rows


def shown(value, unit):
    if value is None:
        return "-"
    value, unit = (value * 1000, "ms") if unit == "s" and value < 1 else (value, unit)
    return (f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}").strip()


def markdown(rows):
    """Rows, dictionaries of texts with the same keys, as a Markdown table."""
    return "\n".join(
        "| " + " | ".join(line) + " |"
        for line in [rows[0], ["---"] * len(rows[0]), *(one.values() for one in rows)]
    )


def main_table(rows):
    return markdown(
        [
            {
                "what": one["what"],
                "result": shown(one["value"], one["unit"]),
                "against": one["against"],
                "its result": shown(one["reference"], one["unit"]),
                "ratio": shown(one["ratio"], ""),
                "rounds": str(one["rounds"]),
                "remark": one["remark"],
            }
            for one in rows
        ]
    )


def growth_table(rows):
    return markdown(
        [
            {
                "times": str(one["times"]),
                "images": f"{one['images']:,}",
                "questions": f"{one['questions']:,}",
                "preparing": shown(one["prepare"], "s"),
                "encoding": shown(one["encode"], "s"),
                "peak of both": shown(one["encode_host"], "MiB"),
                "epoch": shown(one["epoch"], "s"),
                "a training question": shown(one["epoch"] / one["training"], "s"),
                "epoch against the first": f"{one['epoch'] / rows[0]['epoch']:.2f}",
                "steps run": f"{one['steps']} of {one['of_steps']}",
                "peak": shown(one["host"], "MiB"),
                "peak on the GPU": shown(one["gpu"], "MiB"),
                "peak against the first": f"{one['host'] / rows[0]['host']:.2f}",
            }
            for one in rows
        ]
    )


def main():
    args = parse_args()
    if args.memory_of:
        return measure_alone(args)
    where = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else platform.processor() or platform.machine()
    )
    if args.device == "cpu" and Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        where = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
            where,
        )
    about = {
        "machine": where,
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    about |= {
        key: getattr(args, key)
        for key in ("device", "dtype", "batch_size", "blocks", "encoder", "quick")
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()), end="\n\n", flush=True)
    rows, growth, skipped = [], [], {}
    models = SimpleNamespace(
        **vars(args)
        | {
            "dtype": [dtype for dtype in args.dtype if dtype != "float64"][
                -1 if args.quick else 0 :
            ]
        }
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if not models.dtype:
            skipped["steps, epoch, evaluation"] = "--dtype float64 is for CMSA alone"
        if args.growth:
            growth = growth_rows(args, Path(folder))
            print(growth_table(growth))
            print(
                f"\nPhantom sets of so many times {args.images} images, drawn with seed 0; frozen encoders, {args.dtype[-1]}. An epoch is reckoned "
                "from the steps run, and has its whole validation and its checkpoints. A peak is that of a whole process."
            )
        else:
            rows = cmsa_rows(args, skipped) + (
                model_rows(models, Path(folder)) if models.dtype else []
            )
            rows += memory_rows(args) + start_rows(args)
            print(main_table(rows))
    for name, reason in skipped.items():
        print(f"\nNot measured: {name} ({reason}).")
    if args.json:
        write_json(
            args.json,
            about | {"rows": rows, "growth": growth, "not_measured": skipped, "seconds": SECONDS},
        )


if __name__ == "__main__":
    run_main(main)
