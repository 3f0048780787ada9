"""Whole runs of train.py, killed (SIGKILL) at random moments and resumed, against one that was never stopped: do they end with the same bits?

Each second kill comes while a checkpoint is written.

    python tests/kill_train.py [--kills 20] [--seed 0]

A phantom set of 60 images, in a temporary folder. Runs are repeated until there were so many kills; pytest does not collect this file (some minutes).
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
import phantom_RAD  # noqa: E402


def command(data, output, *more):
    """A train.py run of some seconds."""
    return [
        sys.executable,
        str(ROOT / "train.py"),
        "--RAD_dir",
        str(data),
        "--output",
        str(output),
        "--epochs",
        "12",
        "--num_hid",
        "128",
        "--val_fraction",
        "0.1",
        "--no-mtpt",
        "--encoder",
        "efficientnet_lite0",
        "--gpu",
        "-1",
        *more,
    ]


def kill_at(process, after, writing=None):
    """Kill a process after some seconds, then not before it writes a checkpoint in the folder `writing` if one is given. False when it ended before."""
    end = time.monotonic() + after
    while process.poll() is None:
        if time.monotonic() > end and (writing is None or any(writing.glob(".*.pth.*.tmp"))):
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.0005)
    return False


def log(output):
    """log.jsonl without the seconds."""
    return [json.loads(line) | {"seconds": 0} for line in (output / "log.jsonl").open()]


def content(path):
    """Everything in a checkpoint that has to be equal: all but the seconds that epochs took."""
    state = torch.load(path, weights_only=True)
    return state | {
        "history": [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in state["history"]
        ]
    }


def first_difference(one, other, where=""):
    """Where two nested values differ, bit by bit, or None."""
    if type(one) is not type(other):
        return f"{where}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(
            one.contiguous().flatten().view(torch.uint8),
            other.contiguous().flatten().view(torch.uint8),
        )
        return None if same else where
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return f"{where}: {len(one)} and {len(other)} entries"
        return next(
            (
                found
                for index, pair in enumerate(zip(one, other))
                if (found := first_difference(*pair, f"{where}/{index}"))
            ),
            None,
        )
    return None if one == other else f"{where}: {one} and {other}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        os.environ["CMSA_CACHE"] = str(folder / "cache")
        data = folder / "phantom"
        phantom_RAD.draw(data, seed=1, images=60)
        for name in ("prepares", "whole"):  # the first one prepares the data and encodes the images
            began = time.perf_counter()
            subprocess.run(command(data, folder / name), check=True, capture_output=True)
            seconds = time.perf_counter() - began
        print(f"a run takes {seconds:.1f} s", flush=True)
        kills = torn = before = runs = 0
        while kills < args.kills:
            runs += 1
            output = folder / f"killed{runs}"
            for _ in range(100):
                begun = (output / "last.pth").exists()
                with open(folder / "out", "w") as out:
                    process = subprocess.Popen(
                        command(data, output, *(["--resume"] if begun else [])),
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                    killed = kill_at(
                        process, moments.uniform(0.1, 1) * seconds, output if kills % 2 else None
                    )
                if killed:
                    kills, before = kills + 1, before + (not (output / "last.pth").exists())
                    torn += any(output.glob(".*.pth.*.tmp"))
                    continue
                if process.returncode:
                    raise SystemExit(
                        f"exit code {process.returncode} after {kills} kills:\n{(folder / 'out').read_text()}"
                    )
                break
            else:
                raise SystemExit(f"{kills} kills and the run never ended")
            for name in ("last.pth", "best.pth"):
                if found := first_difference(
                    content(folder / "whole" / name), content(output / name)
                ):
                    raise SystemExit(f"{name} differs after {kills} kills: {found}")
            if log(folder / "whole") != log(output):
                raise SystemExit(f"log.jsonl differs after {kills} kills")
            print(
                f"run {runs}: the same bits; {kills} kills so far, {before} of them before the first checkpoint, {torn} while one was written",
                flush=True,
            )


if __name__ == "__main__":
    main()
