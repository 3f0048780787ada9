"""What a run tells and keeps of itself: run.json, log.jsonl, TensorBoard's curves, its lines.

Nothing of the method is here. docs/FORMATS.md section 4 lists what is in the files.
"""

import contextlib
import datetime
import json
import math
import platform
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from parallel import is_first
from readers.json_files import read_json
from utils import HERE, atomic_path, log, writable, write_json

QUIET = 60  # seconds between two lines within an epoch, where no terminal shows a bar
FIRST = ("command", "began", "seconds", "commit", "host")  # of run.json: of the first command


def now():
    """The time with its zone, ISO, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def commit(folder=HERE):
    """The short hash of the code's commit. None without git, or if the code is no checkout."""
    command = ["git", "-C", str(folder), "rev-parse", "--show-toplevel", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
        top, short = done.stdout.decode(errors="surrogateescape").splitlines()
        # the code may lie, without a history of its own, within another checkout
        return short if Path(top).resolve() == Path(folder).resolve() else None
    return None


def place():
    """{"commit", "host"}: which code runs, and where."""
    return {"commit": commit(), "host": socket.gethostname()}


def duration(seconds):
    """ "52 s", "1 min 52 s" or "3 h 7 min"."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def write_run(folder, about, device, precision, processes, epoch=None):
    """Write a run's run.json: `about`, then command, machine, versions and times.

    epoch: the one that a run which goes on begins with, counted from 0. Its first command and
    what belongs to that stay, and `resumed` gets this one. Raises UserError for a damaged file.
    """
    path, here = folder / "run.json", place()
    facts = {"command": sys.argv, "device": str(device), "precision": precision}
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    facts |= {
        "processes": processes,
        "versions": versions | {"torchvision": version("torchvision")},
    }
    facts |= {"began": now(), "seconds": 0.0} | here
    earlier = read_json(path) if epoch is not None and path.is_file() else None
    if isinstance(earlier, dict):
        facts |= {key: earlier[key] for key in FIRST if key in earlier}
        resumed = earlier.get("resumed")
        one = {"command": sys.argv, "time": now()} | here | {"epoch": epoch}
        facts["resumed"] = [*(resumed if isinstance(resumed, list) else []), one]
    write_json(path, about | facts)


def open_writer(folder):
    """TensorBoard's writer into `folder`, or None where it can't be: log.jsonl has the same."""
    with contextlib.suppress(ImportError, UnicodeEncodeError):
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(folder)
    return None


def write_test_scores(folder, epoch, results):
    """Add the scores of an evaluation to the curves of its run, if the run has curves.

    epoch: the evaluated one, from 0; results: {protocol: content of results.json}.
    """
    curves = folder / "tensorboard"
    if epoch is None or not curves.is_dir() or not writable(curves):
        return
    if writer := open_writer(curves):
        for title, one in results.items():
            for group in ("OPEN", "CLOSED", "ALL"):
                name = f"test {title.replace('+', 'and')}/{group.lower()}"
                writer.add_scalar(name, one[group]["score"], epoch + 1)
        writer.close()


class Journal:
    """The records of one run of training in its folder. Process 0 alone keeps any.

    Its rows count epochs from 0, as files do. Lines and curves are for people, and count from 1.
    """

    def __init__(self, folder):
        self.folder, self.writer, self.told = folder, None, time.monotonic()

    @contextlib.contextmanager
    def open(self, history, settings):
        """Within this block TensorBoard gets what is recorded, and at a good end the settings.

        history: rows of log.jsonl, which grow; settings: plain values.
        """
        if not is_first():
            yield
            return
        self.write_log(history)
        self.writer = open_writer(self.folder / "tensorboard")
        try:
            yield
            if self.writer and history and settings:
                plain = {
                    k: v if isinstance(v, (bool, int, float)) else str(v)
                    for k, v in settings.items()
                }
                row = history[-1] | {"epoch": history[-1]["epoch"] + 1}
                last = {f"last {name}": value for name, value in row.items()}
                self.writer.add_hparams(plain, last, run_name=".")
        finally:
            if self.writer:
                self.writer.close()

    def write_log(self, history):
        """log.jsonl, written whole from a checkpoint's history, so that the two hardly differ."""
        with atomic_path(self.folder / "log.jsonl") as temporary:
            text = "".join(json.dumps(row) + "\n" for row in history)
            temporary.write_text(text, encoding="utf-8")

    def write_seconds(self, seconds):
        """Put the training time so far into run.json, if there is one."""
        path = self.folder / "run.json"
        if is_first() and path.is_file() and isinstance(run := read_json(path), dict):
            write_json(path, run | {"seconds": round(seconds, 1)})

    def step(self, number, loss, text):
        """One step: its number since the run began, its loss, and a line for long epochs.

        A bar says the same on a terminal.
        """
        if self.writer:
            self.writer.add_scalar("loss by step", loss, number)
        if time.monotonic() - self.told > QUIET and not sys.stderr.isatty():
            self.tell(text)

    def epoch(self, history, epochs, is_best, left):
        """One epoch, the last of `history`. left: seconds until the run of `epochs` ends."""
        row = history[-1]
        if is_first():
            self.write_log(history)
        if self.writer:
            for name in row.keys() - {"epoch"}:
                self.writer.add_scalar(name, row[name], row["epoch"] + 1)
            self.writer.flush()
        shown = [f"{name} {value:.4g}" for name, value in row.items() if name != "epoch"]
        shown += ["best"] * is_best
        shown += [f"about {duration(left)} to go"] * (row["epoch"] + 1 < epochs)
        self.tell("  ".join([f"epoch {row['epoch'] + 1} of {epochs}", *shown]))

    def tell(self, text):
        log(text)
        self.told = time.monotonic()


def tell_scores(results, rows, data):
    """Print the scores of an evaluation and what bounds them.

    results: {protocol: content of results.json}, the stricter protocol first; rows: of
    predictions.json; data: RadData.
    """
    from tools.compare import format_table

    first, last = next(iter(results.values())), list(results.values())[-1]
    epoch = "" if first["epoch"] is None else f", epoch {first['epoch'] + 1}"
    epoch += f" (--epoch {first['epoch']}, from 0)" if epoch else ""
    log(
        f"{first['model']}, recipe {first['recipe']}, {first['checkpoint']}{epoch}; "
        f"{data.titled(first['split'])}; accuracy in %:"
    )
    log(format_table(results, {title: one["interval95_percent"] for title, one in results.items()}))
    twins = last["groups"].get("twin", {}).items()
    twins = [f"{key} a twin {one['score_percent']:.1f} ({one['count']})" for key, one in twins]
    if twins and data.frames:
        log(f"of all: {', '.join(twins)}; a twin's frame record is in the official training split")
    seen = last["groups"]["image_in_training"].items()
    seen = [f"{key} {one['score_percent']:.1f} ({one['count']})" for key, one in seen]
    log(f"of all, by whether another question on the image is in training: {', '.join(seen)}")

    def shown(key):
        asked = {title: one[key]["ALL"] for title, one in results.items() if one["ALL"]["count"]}
        return ", ".join(f"{title} {score:.1f}" for title, score in asked.items())

    log(f"if answers of equal meaning count too (docs/RESULTS.md): {shown('equivalent')}")
    if found := last.get("retrieval"):
        how = "sentence embeddings" if found["sentences"] else "words"
        seconds = f"{found['seconds']:.1f} s (docs/RESULTS.md)"
        log(f"baseline: retrieval by {how} has {shown('retrieval')}, in {seconds}")
    unknown = {word for row in rows for word in row["unknown_words"]}
    lost = sum(not row["known_answer"] for row in rows)
    log(f"training lacks {len(unknown)} words of the test questions and {lost} answers")
    if data.phantom:
        log("PHANTOM DATA: these scores say that the program works, and nothing about radiology.")
