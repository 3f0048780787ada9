"""Hostile input for every reader: a case must load, or raise UserError with one line.

    python -m tests.fuzz [--cases 10000] [--loader NAME] [--seed 0]    all loaders, or one
    python -m tests.fuzz --loader NAME --again FOLDER                  a case that was found before
    python -m tests.fuzz --go_on                                       stop at no violation

It prints counts, and exits with 1 at the first violation; with --go_on it counts violations by
kind and shows an example of each. Violations are: another exception, a crash, over 10 s of
computing, over 60 s of waiting, over 2 GB more memory, code run from a file, a message of several
lines or without the name of a file, damaged prepared files in use, and a file loaded that must be
refused. A loader (tests/fuzz/loaders.py) is a function and whole files that it reads; a case
damages one or two of them. Each loader has a process of its own. Needs hypothesis, pydicom and
100 MB in TMPDIR.
"""

import argparse
import faulthandler
import itertools
import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.attempt import GROWTH, SECONDS, Violation, attempt, check, memory, write
from tests.fuzz.cases import cases
from tests.fuzz.fixed import fixed
from tests.fuzz.loaders import LOADERS
from utils import HERE

FUZZ = Path(__file__).resolve().parent
WIDTHS = (12, 7, 9, 10, 10, 8)  # of the columns that are printed


class Run:
    """The cases of one loader: `counts` of outcomes, and `found` violations.

    found: {kind: [count, text, folder to run it again]}. Without `go_on` it stops at the first.
    """

    def __init__(self, name, base, go_on=False):
        self.loader, self.folder, self.go_on = LOADERS[name], base / name, go_on
        self.counts, self.found = Counter(), {}

    @property
    def stopped(self):
        return bool(self.found) and not self.go_on

    def one(self, files, must=None, title="drawn"):
        """Run one case. must: the outcome that it must have, if any."""
        if self.stopped:
            return
        work = self.folder / "case"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        # for a case that hangs and hears no signal
        faulthandler.dump_traceback_later(9 * SECONDS, exit=True, file=sys.__stderr__)
        try:
            outcome = attempt(self.loader.run, files, work)
            check(must in (None, outcome), f"{outcome}, and {must} is wanted")
        except (Exception, SystemExit, Violation) as error:
            outcome = "VIOLATION"
            self.keep(error, files, title)
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.counts[outcome] += 1

    def keep(self, error, files, title):
        """Count a violation, and keep the files of the first of its kind."""
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        what = text[:60] if isinstance(error, Violation) else type(error).__name__
        kind = f"{what} at {place_of(error)}"
        if kind not in self.found:
            folder = self.folder / f"violation_{len(self.found)}"
            self.found[kind] = [0, f"{title}: {text}", folder]
            write(folder, files)
        self.found[kind][0] += 1


def place_of(error):
    """File and line of the program where an error was raised; "tests/fuzz" when in none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(HERE) and FUZZ not in path.parents and ".venv" not in path.parts:
            return f"{path.relative_to(HERE)}:{frame.lineno}"
    return "tests/fuzz"


def fuzz(name, wanted, number, base, go_on=False):
    """Run a loader's fixed cases, and as many drawn ones as make `wanted`.

    The heavy fixed cases run where at least 100 are wanted. number: seeds the draw; base: a
    folder to work in. Returns a Run's counts and found violations.
    """
    run = Run(name, base, go_on)
    variants = run.loader.files()
    for case in fixed(name, variants, wanted >= 100):
        run.one(*case)
    for again in itertools.count(number, 1_000_003):  # hypothesis may end a round early
        left = wanted - run.counts.total()
        if left <= 0 or run.stopped:
            return run.counts, run.found

        @seed(again)
        @settings(
            max_examples=left,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(cases(variants, run.loader.only))
        def examples(files):
            run.one(files)

        examples()


def child(*arguments):
    """`fuzz` in a process of its own, which prints nothing."""
    torch.set_num_threads(1)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    # the machine has no more
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 4 * GROWTH, hard))
    # libraries in C write there
    os.dup2(os.dup2(os.open(os.devnull, os.O_WRONLY), 1), 2)
    return fuzz(*arguments)


def print_row(*cells):
    """Print a line of the table."""
    cells = [f"{cell:,}" if isinstance(cell, int) else cell for cell in cells]
    first, *rest = cells
    line = [f"{first:{WIDTHS[0]}}", *(f"{cell:>{width}}" for cell, width in zip(rest, WIDTHS[1:]))]
    print(" ".join(line).rstrip(), flush=True)


def counted(counts):
    """The numbers of a line of the table."""
    outcomes = ("accepted", "UserError", "VIOLATION")
    return counts.total(), *(counts[outcome] for outcome in outcomes)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cases", type=int, default=10_000, help="over all loaders, or of the one that --loader "
        "names (default: 10000)")  # fmt: skip
    add("--loader", choices=LOADERS, help="this one alone")
    add("--seed", type=int, default=0)
    add("--again", type=Path, metavar="FOLDER", help="run the case in this folder once more (copy "
        "it first: loaders may write in it)")  # fmt: skip
    add("--go_on", action="store_true", help="do not stop at a violation; count them by kind")
    args = parser.parse_args()
    if args.again and not args.loader:
        parser.error("--again needs --loader")
    return args


def main():
    args = parse_args()
    os.environ["CMSA_CACHE"] = tempfile.mkdtemp(prefix="fuzz-cache-")
    if args.again:
        print(attempt(LOADERS[args.loader].run, {}, args.again.resolve()))
        return 0
    names = [args.loader] if args.loader else list(LOADERS)
    weight = sum(LOADERS[name].weight for name in names)
    sums, bad = Counter(), False
    base = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
    print_row("loader", "cases", "accepted", "UserError", "violation", "seconds")
    for name in names:
        began, wanted = time.monotonic(), math.ceil(args.cases * LOADERS[name].weight / weight)
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            try:
                options = (name, wanted, args.seed, base, args.go_on)
                counts, found = pool.submit(child, *options).result()
            except BrokenExecutor:
                text = "the process died, or did not end"
                counts, found = Counter(VIOLATION=1), {"crash": [1, text, base / name / "case"]}
        sums, bad = sums + counts, bad or bool(found)
        print_row(name, *counted(counts), round(time.monotonic() - began))
        for kind, (times, text, folder) in found.items():
            again = f"{sys.executable} -m tests.fuzz --loader {name} --again {folder}"
            print(f"  {kind} ({times})\n    {text}\n    again: {again}")
        if bad and not args.go_on:
            break
    print_row("all", *counted(sums))
    for folder in [os.environ["CMSA_CACHE"]] + [base] * (not bad):
        shutil.rmtree(folder, ignore_errors=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
