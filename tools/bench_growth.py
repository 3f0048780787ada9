"""What the benchmark measures in a fresh process of its own: peak memory, and larger data sets."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch.nn.functional import adaptive_avg_pool2d

from base_model import CHANNELS
from dataset_RAD import prepare
from features import model_inputs
from readers.json_files import MAX_JSON
from readers.record_fields import FIELDS
from readers.records import PUBLIC_JSON
from tools import bench_cases
from tools.bench_rows import row
from tools.phantom_RAD import draw
from utils import HERE, UserError, write_json

PARTS = ("dense", "ours", "frozen", "trained", "encode", "epoch")  # of --memory_of


def resident(field):
    """This process's resident size in MiB: now ("VmRSS") or its peak ("VmHWM").

    Without /proc the peak stands for both; it also counts the process that this one came from.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
    # bytes on macOS, which alone has no /proc
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fresh(part, *options):
    """What `measure_alone` finds in a fresh process with our arguments, --memory_of and options.

    Raises UserError when the process fails.
    """
    command = ["-m", "tools.bench", *sys.argv[1:], "--memory_of", part, *map(str, options)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=HERE)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise UserError(
            f"measuring {part} ended with code {done.returncode} ({last}): a lower --batch_size "
            "or --growth takes less memory"
        )
    return json.loads(done.stdout)


def measure_alone(args):
    """Print as JSON what `args.memory_of` takes: one of PARTS, in a process that did nothing else.

    above: MiB at most above the size before; host: of the whole process; gpu: allocated there, or
    null. For --growth also the seconds of preparing and encoding, or the numbers of `run_epoch`.
    """
    found = {}
    if args.memory_of in ("dense", "ours"):
        step = bench_cases.cmsa_case(args, args.dtype[0], args.memory_of == "dense")
    elif args.memory_of in ("frozen", "trained"):
        sizes = bench_cases.real_sizes(args.folder)
        made = bench_cases.make_model(args, args.memory_of == "frozen", sizes)
        once = bench_cases.step_case(args, made, args.dtype[0])

        def step():
            once()  # makes the optimizer's state
            once()
    else:

        def step():
            found.update(growth_case(args))

    torch.ones(64, 64) @ torch.ones(64, 64)  # let the libraries load first
    before, gpu = resident("VmRSS"), None
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    with contextlib.redirect_stdout(sys.stderr):  # what is logged is no JSON
        step()
    if args.device == "cuda":
        gpu = torch.cuda.max_memory_allocated() / 2**20
    host = resident("VmHWM")
    above = (host if gpu is None else gpu) - before
    print(json.dumps(found | {"above": above, "host": host, "gpu": gpu}))


def growth_case(args):
    """Prepare and encode the data in `args.folder`, and train an epoch for the part "epoch"."""
    times = [bench_cases.clock(args.device)]
    data = prepare(args.folder, log=lambda _: None)
    times.append(bench_cases.clock(args.device))
    made = bench_cases.make_model(args, True, data)
    if args.pooled:
        channels = CHANNELS[args.encoder]
        made[0].image.maps = lambda images: pooled_maps(images, channels)
    inputs = model_inputs(made[0].image, data, torch.device(args.device), frozen=True)
    times.append(bench_cases.clock(args.device))
    found = {"images": len(data.image_names), "questions": len(data.train) + len(data.test)}
    found |= {"prepare": times[1] - times[0], "encode": times[2] - times[1]}
    if args.memory_of == "epoch":
        dtype, folder = args.dtype[-1], args.folder
        found |= bench_cases.run_epoch(args, data, inputs, made, dtype, folder, args.steps)
    return found


def pooled_maps(images, channels):
    """Means of pixels (B, 3, 224, 224) in place of an encoder's maps (B, 1, channels, 7, 7)."""
    cells = adaptive_avg_pool2d(images, 7)  # (B, 3, 7, 7)
    return cells.repeat(1, -(-channels // 3), 1, 1)[:, None, :channels]


def memory_rows(args, folder):
    """Peak memory: CMSA's above the size before, whole steps' in all."""
    rows = []
    for dtype in args.dtype[:1] if args.quick else args.dtype:
        parts = PARTS[:2] if dtype == "float64" or args.quick else PARTS[:4]
        peak = {part: fresh(part, "--dtype", dtype, "--folder", folder) for part in parts}
        name, ours, dense = "CMSA forward+backward", peak["ours"]["above"], peak["dense"]["above"]
        rows.append(
            peak_row(f"{name}, {dtype}", ours, "dense CMSA", dense, "above the size before")
        )
        if "frozen" in peak:
            on = "host" if args.device == "cpu" else "gpu"
            frozen, trained = (peak[part][on] for part in ("frozen", "trained"))
            name, against = f"frozen steps, {dtype}", "fine-tuning steps"
            rows.append(peak_row(name, frozen, against, trained, f"all, {args.device}"))
    return rows


def peak_row(name, value, against, reference, remark):
    """A row of the table for peak memory, in MiB."""
    return row(f"peak memory, {name}", value, against, reference, "MiB", remark=remark)


def shorten_list(path):
    """Leave out the fields that no reader reads, where a list is too large to be read."""
    if path.stat().st_size > MAX_JSON:
        wanted = {*FIELDS, "question_frame"}
        records = json.loads(path.read_text(encoding="utf-8"))
        short = [{key: one[key] for key in one if key in wanted} for one in records]
        write_json(path, short, indent=None)


def growth_rows(args, folder):
    """Preparing, encoding and an epoch on phantom sets with so many times the images.

    Each part runs in a fresh process. Returns dictionaries, one a size.
    """
    rows = []
    for times in args.growth:
        place = folder / str(times)
        draw(place, images=times * args.images)
        shorten_list(place / PUBLIC_JSON)
        encode, epoch = (fresh(part, "--folder", place) for part in PARTS[4:])
        encoding = {"prepare": encode["prepare"], "encode": encode["encode"]}
        rows.append({"times": times} | epoch | encoding | {"encode_host": encode["host"]})
        print(f"{times} times: an epoch takes {rows[-1]['epoch']:.0f} s", file=sys.stderr)
        shutil.rmtree(place)  # gigabytes
    return rows
