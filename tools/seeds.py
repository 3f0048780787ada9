"""Several seeds: a run and its evaluation for each, in processes of their own."""

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np

from readers.json_files import read_json
from scores import GROUPS, PROTOCOLS
from utils import HERE, VERSION, Stopped, log, stop_signals, write_json


def run_process(command):
    """Run a command to its end: its exit code.

    Ctrl-C and SIGTERM are passed on to it, so that it saves, and then raise Stopped.
    """
    with stop_signals() as caught:
        # a session of its own: a terminal's Ctrl-C comes to it from here alone, once
        process, passed = subprocess.Popen(command, start_new_session=True), 0
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                if caught and not passed:
                    process.send_signal(passed := caught[0])
        except Stopped as stopped:  # a second signal
            process.send_signal(stopped.number)
            process.wait()
            raise
    if caught:
        raise Stopped(caught[0], "stopped: the same command with --resume goes on")
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def mean_and_spread(tables):
    """Over several seeds' tables: {group: {"mean", "spread", "scores"}} in percent.

    The spread is a sample standard deviation.
    """
    out = {}
    for group in GROUPS:
        values = [100 * one[group]["score"] for one in tables]
        mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
        out[group] = {"mean": round(mean, 2), "spread": round(spread, 2)}
        out[group]["scores"] = [round(value, 2) for value in values]
    return out


def train_seeds(args, name):
    """`train.py --seeds`: train and evaluate each seed, then write results/<run>/seeds.json.

    name: of the runs without --output. Returns the exit code of the first command that fails,
    else 0. With --resume finished seeds stay and an interrupted one goes on.
    """
    own = argparse.ArgumentParser(add_help=False)
    for argument in ("--seeds", "--seed", "--output"):
        own.add_argument(argument)
    _, rest = own.parse_known_args(sys.argv[1:])
    base = args.output or HERE / "saved_models" / name
    results = HERE / "results" / base.resolve().name
    gpu = ["--gpu", args.gpu] if args.gpu is not None else []
    seeds = list(range(args.seed, args.seed + args.seeds))
    tables = {title: [] for title in PROTOCOLS.values()}
    for seed in seeds:
        output, evaluated = Path(f"{base}_seed{seed}"), Path(f"{results}_seed{seed}")
        begun = (output / "last.pth").exists()
        options = [argument for argument in rest if argument != "--resume" or begun]
        commands = (
            ["train.py", *options, "--seed", seed, "--output", output],
            ["test.py", "--input", output, "--output", evaluated, *gpu],
        )
        for script, *arguments in commands:
            command = [script, *map(str, arguments)]
            log(f"--- {' '.join(command)}")
            if code := run_process([sys.executable, HERE / script, *command[1:]]):
                return code
        for file, title in zip(("results.json", "results_all.json"), PROTOCOLS.values()):
            tables[title].append(read_json(evaluated / file))
    summary = {title: mean_and_spread(found) for title, found in tables.items()}
    about = {"version": VERSION, "seeds": seeds, "arguments": list(map(str, rest))}
    write_json(results / "seeds.json", about | summary)
    log(f"{args.seeds} seeds, mean and standard deviation in %:")
    for title, groups in summary.items():
        cells = [f"{g.lower()} {v['mean']:.1f} ± {v['spread']:.1f}" for g, v in groups.items()]
        log(f"  {title}: {', '.join(cells)}")
    log(f"written: {results / 'seeds.json'}")
    return 0
