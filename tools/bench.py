"""Time and memory of every part beside another one: a Markdown table (docs/SPEED.md).

    python -m tools.bench               the table: about a quarter of an hour on two CPU cores
    python -m tools.bench --growth      an epoch at 1, 4 and 16 times the phantom set's size
    python -m tools.bench --quick       a small model, one round: whether it runs, not how fast
    python -m tools.bench --device cuda --compile --json FILE

Weights are those of ImageNet or random, inputs are random or the phantom set's.
"""

import argparse
import contextlib
import importlib.util
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from base_model import CHANNELS, HIDDEN
from tools import bench_cases, bench_growth, bench_rows
from tools.bench_rows import shown
from tools.phantom_scenes import FEWEST_IMAGES
from utils import UserError, has_bf16, run_main, writable, write_json

GROWTH_REMARK = (
    "Phantom sets of so many times {images} images, drawn with seed 0; frozen encoders, {dtype}. "
    "An epoch is reckoned from the steps run, and has its whole validation and its checkpoints. A "
    "peak is that of a whole process."
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--batch_size", type=int, help="default: 32")
    add("--repeats", type=int, help="rounds for CMSA (default: 7); start-up takes at most 5 of "
        "them, whole steps 3, epochs and evaluation 2")  # fmt: skip
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--dtype", nargs="+", default=["float32", "bfloat16"],
        choices=["float32", "float64", "bfloat16"],
        help="default: float32 bfloat16. bfloat16 is autocast, and is left out where it is not "
        "native; float64 is for CMSA alone")  # fmt: skip
    add("--blocks", type=int, default=2, choices=[1, 2], help="of CMSA")
    add("--encoder", choices=list(CHANNELS), help="default: efficientnet_lite0 where it is "
        "installed, else resnet34")  # fmt: skip
    add("--compile", action="store_true", help="measure torch.compile too: minutes on a CPU")
    add("--quick", action="store_true", help="a small model and one round; whole models in the "
        "last --dtype only")  # fmt: skip
    add("--growth", type=int, nargs="*", metavar="TIMES", help="the growth table, at so many "
        "times the phantom set's size (default: 1 4 16)")  # fmt: skip
    add("--pooled", action="store_true", help="for --growth: means of pixels in place of encoders, "
        "where encoding would take hours")  # fmt: skip
    add("--steps", type=int, help="of an epoch, for --growth; the others are taken to be as fast "
        "(default: 40)")  # fmt: skip
    add("--processor", action="store_true", help="seconds of the processor in place of the "
        "clock's, where other work runs on the same CPU")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write the seconds of every round there too")
    add("--memory_of", choices=bench_growth.PARTS, help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, usual, quick in (("batch_size", 32, 2), ("repeats", 7, 1), ("steps", 40, 2)):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else usual)
    args.images = FEWEST_IMAGES if args.quick else 320  # of the phantom set
    args.hidden = 64 if args.quick else HIDDEN
    args.growth = [1, 4, 16] if args.growth == [] else args.growth
    if args.batch_size < 2 or min(args.repeats, args.steps, *(args.growth or [1])) < 1:
        raise UserError(
            "--batch_size: at least 2 is wanted; --repeats, --steps and --growth: at least 1"
        )
    if args.growth and "float64" in args.dtype:
        raise UserError("--growth: --dtype float64 is for CMSA alone, name another")
    # now, not a quarter of an hour later
    if args.json and (args.json.is_dir() or not writable(args.json.absolute().parent)):
        raise UserError(f"--json {args.json}: no file can be written there")
    check_machine(args)
    return args


def check_machine(args):
    """Choose encoder and precisions for this machine. Raises UserError for what it lacks."""
    has_lite = importlib.util.find_spec("efficientnet_lite_pytorch") is not None
    if args.encoder == "efficientnet_lite0" and not has_lite:
        raise UserError(
            "--encoder efficientnet_lite0: the package efficientnet-lite-pytorch is not "
            "installed; use --encoder resnet34"
        )
    args.encoder = args.encoder or ("efficientnet_lite0" if has_lite else "resnet34")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda: this machine has no CUDA GPU that PyTorch can use; leave --device out"
        )
    args.skipped = {}
    if "bfloat16" in args.dtype and not has_bf16(args.device):
        args.skipped["bfloat16"] = f"this {args.device} has no native bf16"
        args.dtype = [dtype for dtype in args.dtype if dtype != "bfloat16"]
        if not args.dtype:
            raise UserError(f"--dtype bfloat16: {args.skipped['bfloat16']}; name another")


def about(args):
    """The machine and the settings, for the head of the table."""
    where = platform.processor() or platform.machine()
    if args.device == "cuda":
        where = torch.cuda.get_device_name()
    elif Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        where = next(names, where)
    facts = {"machine": where, "threads": torch.get_num_threads()}
    facts |= {"load_before": round(os.getloadavg()[0], 2), "torch": torch.__version__}
    facts |= {"date": time.strftime("%Y-%m-%d %H:%M")}
    settings = "device dtype batch_size blocks encoder quick processor pooled".split()
    return facts | {key: getattr(args, key) for key in settings}


def markdown(rows):
    """Rows, dictionaries of texts with the same keys, as a Markdown table."""
    lines = [rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main_table(rows):
    """The Markdown table of the rows of tools/bench_rows.py."""
    return markdown(
        [
            {
                "what": row["what"],
                "result": shown(row["value"], row["unit"]),
                "against": row["against"],
                "its result": shown(row["reference"], row["unit"]),
                "ratio": shown(row["ratio"], ""),
                "rounds": str(row["rounds"]),
                "remark": row["remark"],
            }
            for row in rows
        ]
    )


def growth_table(rows):
    """The Markdown table of what `growth_rows` gives."""
    return markdown(
        [
            {
                "times": str(row["times"]),
                "images": f"{row['images']:,}",
                "questions": f"{row['questions']:,}",
                "preparing": shown(row["prepare"], "s"),
                "encoding": shown(row["encode"], "s"),
                "peak of both": shown(row["encode_host"], "MiB"),
                "epoch": shown(row["epoch"], "s"),
                "a training question": shown(row["epoch"] / row["training"], "s"),
                "epoch against the first": f"{row['epoch'] / rows[0]['epoch']:.2f}",
                "steps run": f"{row['steps']} of {row['of_steps']}",
                "peak": shown(row["host"], "MiB"),
                "peak on the GPU": shown(row["gpu"], "MiB"),
                "peak against the first": f"{row['host'] / rows[0]['host']:.2f}",
            }
            for row in rows
        ]
    )


def main():
    args = parse_args()
    if args.memory_of:
        return bench_growth.measure_alone(args)
    head, skipped = about(args), args.skipped
    print(", ".join(f"{key} {value}" for key, value in head.items()), end="\n\n", flush=True)
    rows, growth = [], []
    bench_cases.SECONDS.clear()
    whole = [dtype for dtype in args.dtype if dtype != "float64"][-1 if args.quick else 0 :]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        folder = Path(folder)
        if args.growth:
            growth = bench_growth.growth_rows(args, folder)
            remark = GROWTH_REMARK.format(images=args.images, dtype=args.dtype[-1])
            print(f"{growth_table(growth)}\n\n{remark}")
        else:
            rows = bench_rows.cmsa_rows(args, skipped)
            if whole:
                models = SimpleNamespace(**vars(args) | {"dtype": whole})
                with contextlib.redirect_stdout(sys.stderr):  # what is logged is no table
                    rows += bench_rows.model_rows(models, folder)
            else:
                skipped["steps, epoch, evaluation"] = "--dtype float64 is for CMSA alone"
            rows += bench_growth.memory_rows(args, folder) + bench_rows.start_rows(args)
            print(main_table(rows))
    for name, why in skipped.items():
        print(f"\nNot measured: {name} ({why}).")
    if args.json:
        found = {"rows": rows, "growth": growth, "not_measured": skipped}
        write_json(args.json, head | found | {"seconds": bench_cases.SECONDS})


if __name__ == "__main__":
    run_main(main)
