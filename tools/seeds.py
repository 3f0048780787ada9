"""Several seeds: a run and its evaluation for each, in processes of their own."""

import argparse
import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import parallel
from dataset_RAD import find_data
from readers.json_files import read_json
from scores import GROUPS
from settings import run_name, settle
from tools.compare import ORDER, columns, protocol_results
from utils import HERE, VERSION, Stopped, UserError, log, stop_signals, write_json


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


def format_seeds(seeds, summary):
    """The lines of a table: a row for each seed, their mean and standard deviation.

    summary: {protocol's title: `mean_and_spread(...)`}.
    """
    cells = [groups[group] for groups in summary.values() for group in ORDER]
    rows = [["seed", *(group.lower() for _ in summary for group in ORDER)]]
    for index, seed in enumerate(seeds):
        rows.append([str(seed), *(f"{cell['scores'][index]:.1f}" for cell in cells)])
    for title, key in (("mean", "mean"), ("standard deviation", "spread")):
        rows.append([title, *(f"{cell[key]:.1f}" for cell in cells)])
    above = {1 + len(ORDER) * index: title for index, title in enumerate(summary)}
    return columns(rows, {0}, above)


def train_seeds(args):
    """`train.py --seeds`: train and evaluate each seed, then write results/<run>/seeds.json.

    Returns the exit code of the first command that fails, else 0. With --resume finished seeds
    stay and an interrupted one goes on. Raises UserError within torchrun.
    """
    if parallel.environment_number("WORLD_SIZE") > 1:
        raise UserError("--seeds trains one run after another: call it without torchrun")
    own = argparse.ArgumentParser(add_help=False)
    for argument in ("--seeds", "--seed", "--output"):
        own.add_argument(argument)
    _, rest = own.parse_known_args(sys.argv[1:])
    base = args.output
    if not base:  # as train.py names a run
        data = find_data(args.RAD_dir, vars(args), log=log)
        on_cpu = (args.gpu or 0) < 0 or not torch.cuda.is_available()
        base = HERE / "saved_models" / run_name(args, settle(args, data, on_cpu), data)
    results = HERE / "results" / base.resolve().name
    gpu = ["--gpu", args.gpu] if args.gpu is not None else []
    seeds = list(range(args.seed, args.seed + args.seeds))
    tables = {}
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
        for title, content in protocol_results(evaluated, read_json).items():
            tables.setdefault(title, []).append(content)
    summary = {title: mean_and_spread(found) for title, found in tables.items()}
    about = {"version": VERSION, "seeds": seeds, "arguments": list(map(str, rest))}
    write_json(results / "seeds.json", about | summary)
    log(f"written: {results / 'seeds.json'}; scores in %:")
    log("\n".join(format_seeds(seeds, summary)))
    return 0
