"""Runs of train.py, killed at random moments and resumed, against one that was never stopped.

    python tests/kill_train.py [--kills 20] [--seed 0] [--recipe paper]

Both must end with the same bits. The signal is SIGKILL; each second kill comes while a checkpoint
is written. The data are a phantom set of 60 images in a temporary folder. Runs are repeated until
there were so many kills, which takes some minutes: pytest does not collect this file.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from settings import RECIPES  # noqa: E402
from tools import phantom_RAD  # noqa: E402

# a run of some seconds
OPTIONS = "--epochs 10 --num_hid 32 --question_len 5 --batch_size 64 --val_fraction 0.1".split()
OPTIONS += "--encoder efficientnet_lite0 --no-mtpt --no-distmodal --gpu -1".split()


def command(output, *options):
    """The command line of train.py for a run in `output`."""
    return [sys.executable, str(ROOT / "train.py"), "--output", str(output), *options]


def kill_at(process, after, writing=None):
    """Kill a process after some seconds; False when it ended before.

    With a folder `writing` not before it writes a checkpoint there.
    """
    end = time.monotonic() + after
    while process.poll() is None:
        if time.monotonic() > end and (writing is None or torn(writing)):
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.0005)
    return False


def torn(output):
    """True where a half-written checkpoint lies in a run's folder."""
    return any(output.glob(".*.pth.*.tmp"))


def read_log(output):
    """log.jsonl without the seconds."""
    return [json.loads(line) | {"seconds": 0} for line in (output / "log.jsonl").open()]


def read_content(path):
    """Everything in a checkpoint that must be equal.

    Its folder, whether it was resumed, and the seconds that epochs took may differ.
    """
    state = torch.load(path, weights_only=True)
    history = [row | {"seconds": 0} for row in state["history"]]
    settings = state["settings"] | {"output": None, "resume": None}
    return state | {"history": history, "settings": settings, "seconds": None}


def first_difference(one, other, where=""):
    """The place where two nested values differ, bit by bit, or None."""
    if type(one) is not type(other):
        return f"{where}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, torch.Tensor):
        bits = (value.contiguous().flatten().view(torch.uint8) for value in (one, other))
        return None if one.dtype == other.dtype and torch.equal(*bits) else where
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if not isinstance(one, (list, tuple)):
        return None if one == other else f"{where}: {one} and {other}"
    if len(one) != len(other):
        return f"{where}: {len(one)} and {len(other)} entries"
    found = (first_difference(*pair, f"{where}/{i}") for i, pair in enumerate(zip(one, other)))
    return next(filter(None, found), None)


def run_and_kill(output, begin, seconds, moments, kills):
    """One run to its end, killed and resumed on the way.

    begin: the options of its first command. kills: those of former runs, for every second comes
    while a checkpoint is written. Returns counts: (kills, before the first checkpoint, torn).
    """
    counts = [0, 0, 0]
    for _ in range(100):
        begun = (output / "last.pth").exists()
        with tempfile.TemporaryFile("w+") as out:
            options = ["--resume"] if begun else begin
            streams = {"stdout": out, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command(output, *options), **streams)
            writing = output if (kills + counts[0]) % 2 else None
            if kill_at(process, moments.uniform(0.1, 1) * seconds, writing):
                before = not (output / "last.pth").exists()
                counts = [a + b for a, b in zip(counts, (1, before, torn(output)))]
                continue
            if process.returncode:
                out.seek(0)
                raise SystemExit(f"exit code {process.returncode}:\n{out.read()}")
        return counts
    raise SystemExit("100 kills and the run never ended")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--kills", type=int, default=20)
    add("--seed", type=int, default=0, help="of the moments")
    add("--recipe", choices=list(RECIPES), default="paper")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.environ["CMSA_CACHE"] = str(folder / "cache")
        phantom_RAD.draw(folder / "phantom", seed=1, images=60)
        begin = ["--RAD_dir", str(folder / "phantom"), "--recipe", args.recipe, *OPTIONS]
        for name in ("prepares", "whole"):  # the first one prepares the data and encodes the images
            began = time.perf_counter()
            subprocess.run(command(folder / name, *begin), check=True, capture_output=True)
            seconds = time.perf_counter() - began
        print(f"a run takes {seconds:.1f} s", flush=True)
        total, runs = [0, 0, 0], 0
        while total[0] < args.kills:
            runs += 1
            output, began = folder / f"killed{runs}", time.perf_counter()
            counts = run_and_kill(output, begin, seconds, moments, total[0])
            if not counts[0]:  # the machine is less busy than before
                seconds = time.perf_counter() - began
            total = [a + b for a, b in zip(total, counts)]
            for name in ("last.pth", "best.pth"):
                contents = (read_content(one / name) for one in (folder / "whole", output))
                if found := first_difference(*contents):
                    raise SystemExit(f"{name} differs after {total[0]} kills: {found}")
            if read_log(folder / "whole") != read_log(output):
                raise SystemExit(f"log.jsonl differs after {total[0]} kills")
            print(
                f"run {runs}: the same bits; {total[0]} kills so far, {total[1]} of them before "
                f"the first checkpoint, {total[2]} while one was written",
                flush=True,
            )


if __name__ == "__main__":
    main()
