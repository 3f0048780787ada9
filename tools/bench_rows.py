"""The rows of the benchmark's table: each compares a case with another one.

The two took turns, after a round that does not count unless the remark says so. Times are medians.
"""

import functools
import itertools
import statistics
import subprocess
import sys
from collections import Counter

import h5py
import torch

from dataset_RAD import prepare
from engine import batches, collate
from features import Inputs, model_inputs
from settings import RECIPES
from tools import bench_cases
from tools.bench_cases import SECONDS, interleave, make_model, step_case
from tools.phantom_RAD import draw
from utils import HERE, UserError, reason

TEST_QUESTIONS, TEST_IMAGES = 451, 203  # of the real test split


def row(what, value, against="", reference=None, unit="s", rounds=1, remark=""):
    """A row of the table. Its ratio is how many times better than the reference.

    Better is less time or memory, or a higher rate or share.
    """
    ratio = reference and (reference / value if unit in ("s", "MiB") else value / reference)
    numbers = {"value": value, "unit": unit, "against": against, "reference": reference}
    return {"what": what} | numbers | {"ratio": ratio, "rounds": rounds, "remark": remark}


def median(case):
    """The median of a timed case, in seconds."""
    return statistics.median(SECONDS[case])


def pair(case, against, remark=""):
    """Rows that compare two timed cases: one, or none where either was not measured."""
    if case not in SECONDS or against not in SECONDS:
        return []
    rounds = len(SECONDS[case])
    return [row(case, median(case), against, median(against), rounds=rounds, remark=remark)]


def shown(value, unit):
    """A number of the table as text."""
    if value is None:
        return "-"
    value, unit = (value * 1000, "ms") if unit == "s" and value < 1 else (value, unit)
    return (f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}").strip()


def multiply_adds(
    batch, cells=49, words=12, visual=512, question=1024, spatial=8, blocks=2, dense=False
):
    """Multiply-adds in the matrix products of one CMSA pass over a batch: (forward, backward).

    In training mode, line by line those of attention.CMSA.forward, or of forward_dense. Backward
    takes twice as many, but for the products in `affine` that need the gradient of one factor
    only. Elementwise work, softmax, sums and recomputation in flash attention are not counted.
    """
    channels, parts, tokens = visual + question + spatial, cells + words, cells * words
    inner = channels // 2  # D of docs/METHOD.md section 4; channels C, tokens L, parts r
    if dense:  # theta, phi and g; scores, and their product with g; W
        a_sample = 3 * channels * inner + 2 * tokens * inner + inner * channels
        total = blocks * batch * tokens * a_sample
        return total, 2 * total

    def affine(rank):
        a_sample = tokens * rank**2 + rank * inner  # Gram matrix, means
        a_sample += rank**2 * inner + rank * inner**2  # Gram times values, covariance within
        a_sample += inner**2 + words * inner * (rank + channels)  # between; then y and W y
        return batch * a_sample + channels * inner**2 + channels * inner  # W cov, W mean

    # cells and words have their own channels only
    project = batch * (cells * (visual + spatial) + words * question) * 3 * inner
    total = project + batch * parts**2 * inner + affine(parts)
    if blocks == 2:
        # c and W through the projections; values through both
        folded = 3 * inner * channels * (1 + inner) + batch * parts * inner * 3 * inner
        scores = batch * ((2 * parts) ** 2 * (inner + tokens) + 2 * tokens**2 * 2 * parts)
        total += project + folded + scores + affine(2 * parts)
    ranks = (parts, 2 * parts)[:blocks]
    halved = sum(batch * rank * inner**2 + channels * inner**2 for rank in ranks)
    return total, 2 * total - halved


def cmsa_rows(args, skipped):
    """CMSA against the dense definition, compiled against eager, its rate against a product's."""
    cases, size = {}, 512 if args.quick else 2048 if args.device == "cpu" else 8192
    for dtype in args.dtype:
        cases[f"matrix product, {dtype}"] = bench_cases.product_case(args, dtype, size)
        for part, backward in (("forward", False), ("forward+backward", True)):
            for name, dense in (("dense CMSA", True), ("CMSA", False)):
                case = bench_cases.cmsa_case(args, dtype, dense, backward)
                cases[f"{name} {part}, {dtype}"] = case
        name = f"compiled CMSA forward+backward, {dtype}"
        try:
            if not args.compile:
                raise UserError("--compile was not given")
            cases[name] = bench_cases.cmsa_case(args, dtype, compiled=True)
            cases[name]()
        except Exception as error:  # no compiler here, or it fails: of many types
            cases.pop(name, None)
            skipped[f"torch.compile, {dtype}"] = reason(error)
    interleave(cases, args.repeats, args.device, warm=not args.quick)
    count = functools.partial(
        multiply_adds, args.batch_size, question=args.hidden, blocks=args.blocks
    )
    ours, dense = count(), count(dense=True)
    giga = [f"{number / args.batch_size / 1e9:.3f}" for number in (*ours, *dense)]
    remark = f"{giga[0]} G multiply-adds a sample forward, {giga[1]} G backward "
    remark += f"(dense: {giga[2]} and {giga[3]} G); target: 0.6"
    rows = []
    for dtype in args.dtype:
        target = "target: 9" if dtype == "float32" else ""
        both, limit = f"CMSA forward+backward, {dtype}", f"matrix product, {dtype}"
        rows += pair(f"CMSA forward, {dtype}", f"dense CMSA forward, {dtype}")
        rows += pair(both, f"dense {both}", target) + pair(f"compiled {both}", both)
        rate, best = 2e-9 * sum(ours) / median(both), 2e-9 * size**3 / median(limit)
        against = f"matrix product of size {size}, {dtype}"
        name = f"rate of {both}"
        rows.append(row(name, rate, against, best, "GFLOP/s", args.repeats, remark))
    return rows + pair("CMSA forward+backward, bfloat16", "CMSA forward+backward, float32")


def model_rows(args, folder):
    """Whole training steps, their inputs, an epoch with frozen encoders, and evaluation."""
    draw(folder / "phantom", images=args.images)
    data = prepare(folder / "phantom", log=lambda _: None)
    sizes = bench_cases.real_sizes(folder)
    frozen, trained = (make_model(args, which, sizes) for which in (True, False))
    inputs = model_inputs(frozen[0].image, data, torch.device(args.device), frozen=True)
    rows = step_rows(args, folder, data, inputs, (frozen, trained))
    rows += epoch_rows(args, folder, data, inputs, frozen)
    return rows + evaluation_rows(args, data, trained[0])


def input_cases(args, folder, data, inputs):
    """{name: function} that makes the inputs of a frozen step, from one or three maps an image."""
    device = torch.device(args.device)
    # three as after pre-training, when every organ has an encoder of its own
    maps = torch.as_tensor(inputs.maps[:]).cpu().numpy()[:, :1].repeat(3, axis=1)
    with h5py.File(folder / "three.h5", "w") as file:
        file.create_dataset("maps", data=maps, chunks=(1, *maps.shape[1:]))
    three = h5py.File(folder / "three.h5", "r")["maps"]
    three_inputs = Inputs(data, device, three, inputs.organ_logits)

    def case(some):
        drawn = itertools.cycle(batches(data.train, args.batch_size, 0, 0))

        def run():
            batch = next(drawn)
            return collate(batch, device), some([q.image for q in batch])

        return run

    name = "inputs of a frozen step"
    return {name: case(inputs), f"{name}, three maps an image": case(three_inputs)}


def step_rows(args, folder, data, inputs, models):
    """Whole steps on random input. models: what `make_model` gives, frozen and trained."""
    last, (frozen, trained) = args.dtype[-1], models
    reading = input_cases(args, folder, data, inputs)
    cases = dict(reading)
    for dtype in args.dtype:
        cases[f"frozen step, {dtype}"] = step_case(args, frozen, dtype)
        dense = step_case(args, frozen, dtype, dense=True)
        cases[f"frozen step with dense CMSA, {dtype}"] = dense
        cases[f"fine-tuning step, {dtype}"] = step_case(args, trained, dtype)
    larger = args.batch_size * RECIPES["tuned"]["batch_size"] // RECIPES["paper"]["batch_size"]
    tuned = f"a question of a frozen step, --recipe tuned, {last}"
    model = make_model(args, True, bench_cases.real_sizes(folder), "tuned")
    cases[tuned] = step_case(args, model, last, larger)
    interleave(cases, min(args.repeats, 3), args.device, warm=not args.quick)
    SECONDS[tuned] = [seconds / larger for seconds in SECONDS[tuned]]
    rows = []
    for dtype in args.dtype:
        step, remark = f"frozen step, {dtype}", f"fine-tuning: three {args.encoder}"
        rows += pair(step, f"frozen step with dense CMSA, {dtype}")
        rows += pair(step, f"fine-tuning step, {dtype}", remark)
    rows += pair("frozen step, bfloat16", "frozen step, float32")
    rows += pair("fine-tuning step, bfloat16", "fine-tuning step, float32")
    remark = f"in steps of {larger} and {args.batch_size} questions"
    paper = median(f"frozen step, {last}") / args.batch_size
    rounds = len(SECONDS[tuned])
    rows.append(row(tuned, median(tuned), "--recipe paper", paper, rounds=rounds, remark=remark))
    for case in reading:
        rows += pair(case, f"frozen step, {last}", "target: 6, where 85% of both is in the model")
    return rows


def epoch_rows(args, folder, data, inputs, frozen):
    """An epoch with frozen encoders on the phantom set, and what of a step the model takes."""
    took = {f"epoch, {dtype}": [] for dtype in args.dtype}
    steps = args.steps if args.quick else None

    def run(name, dtype):
        took[name].append(bench_cases.run_epoch(args, data, inputs, frozen, dtype, folder, steps))

    cases = {name: functools.partial(run, name, dtype) for name, dtype in zip(took, args.dtype)}
    interleave(cases, min(args.repeats, 2), args.device, warm=0)
    rows, first = [], f"epoch, {args.dtype[0]}"
    for name, runs in took.items():
        SECONDS[name] = [one["epoch"] for one in runs]  # of all steps, those not run too
        step, used, read = (
            statistics.median(one[key] for one in runs) for key in ("loop", "model", "data")
        )
        remark = (
            "frozen encoders; {training} training, {validation} validation questions; "
            "{steps} of {of_steps} steps run; no round before"
        ).format(**runs[0])
        if args.device == "cuda":
            remark += "; timed with a wait for the GPU twice a step, which train.py has not"
        alone = [row(name, median(name), rounds=len(runs), remark=remark)]
        rows += alone if name == first else pair(name, first, remark)
        parts = f"inputs {read / step:.1%}, loop {1 - (used + read) / step:.1%}"
        remark = f"{parts} of {shown(step, 's')}; target: 0.85"
        name = f"share of a step in the model, {name}"
        rows.append(row(name, used / step, "all of it", 1.0, "", len(runs), remark))
    return rows


def evaluation_rows(args, data, model):
    """engine.predict on as many questions and images as the real test split has."""
    asked, last = Counter(), args.dtype[-1]

    def turn(question):  # so that the images have about as many questions each
        asked[question.image] += 1
        return asked[question.image]

    questions = sorted((q for q in data.train + data.test if q.image < TEST_IMAGES), key=turn)
    questions = questions[: 4 if args.quick else TEST_QUESTIONS]
    inputs = model_inputs(model.image, data, torch.device(args.device), frozen=False)
    case = functools.partial(bench_cases.evaluation_case, args, model, questions, inputs)
    cases = {f"evaluation, {dtype}": case(dtype) for dtype in args.dtype}
    each = f"evaluation, an image encoded for each question, {last}"
    cases[each] = case(last, bench_cases.encode_each)
    interleave(cases, min(args.repeats, 2), args.device, warm=0)
    images = len({q.image for q in questions})
    remark = f"{len(questions)} questions on {images} images, three {args.encoder}; no round before"
    rows = pair(f"evaluation, {last}", each, remark)
    return rows + pair("evaluation, bfloat16", "evaluation, float32")


def start_rows(args):
    """The time in which a fresh Python brings up train.py."""
    commands = {
        "start-up: python train.py --help": [HERE / "train.py", "--help"],
        "start-up: import torch": ["-c", "import torch"],
    }
    run = functools.partial(subprocess.run, check=True, capture_output=True)
    cases = {
        name: functools.partial(run, [sys.executable, *command])
        for name, command in commands.items()
    }
    interleave(cases, min(args.repeats, 5), "cpu", warm=not args.quick)
    return pair(*cases)
