"""One case of the fuzzer: its files are written, a loader reads them, and the outcome is judged."""

import contextlib
import itertools
import os
import signal
import sys
import time
from pathlib import Path

from utils import UserError, is_disk_error

SECONDS, GROWTH = 10, 2 * 2**30  # of computing, bytes: what a case may take
CODE = "import sys; sys.fuzz_ran = True"  # what must not run
# in place of a file's content; any other text is the target of a symbolic link
FOLDER, PIPE = "folder:", "pipe:"


class Violation(BaseException):
    """A loader did what it must not do. No `except Exception` of a loader catches it."""


def check(good, what):
    """Raise Violation(what) unless `good`."""
    if not good:
        raise Violation(what)


def write(folder, files):
    """Make {relative path: bytes, FOLDER, PIPE, or a link's target} in `folder`.

    A file that can't be made, for instance because its name is too long, is left out.
    """
    for name, content in files.items():
        path = folder / name
        with contextlib.suppress(OSError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.parent.resolve().is_relative_to(folder.resolve()):
                continue  # never through one of our own links
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content in (FOLDER, PIPE):
                path.mkdir() if content == FOLDER else os.mkfifo(path)
            else:
                path.symlink_to(content)


def memory(what):
    """VmRSS or VmSize of this process in bytes, or VmHWM, the most since `attempt` began.

    0 where the system has no /proc.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))
    return 0


@contextlib.contextmanager
def limited(computing, waiting):
    """Raise Violation within the block after so many seconds of the processor, or of the clock."""
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, computing)}
    timers[signal.SIGALRM] = signal.ITIMER_REAL, waiting

    def over(number, _):
        raise Violation(f"over {timers[number][1]} s")

    before = {number: signal.signal(number, over) for number in timers}
    try:
        for timer, seconds in timers.values():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def attempt(run, files, folder, seconds=SECONDS):
    """Write a case into the new folder `folder` and call run(folder).

    Returns "accepted" or "UserError". Raises Violation, or whatever the loader raised.
    """
    write(folder, files)
    sys.__dict__.pop("fuzz_ran", None)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of memory
    outcome, before, began = "UserError", memory("VmRSS"), time.process_time()
    try:
        with limited(2 * seconds, 6 * seconds):
            run(folder)
        outcome = "accepted"
    except UserError as error:
        there = [name for _, *names in os.walk(folder) for name in itertools.chain(*names)]
        check_message(str(error), [str(folder), *(Path(path).name for path in files), *there])
    except OSError as error:
        # run_main turns these into a line: a folder where a file is written, and the like
        if not is_disk_error(error) or not error.filename:
            raise
    check((taken := time.process_time() - began) <= seconds, f"over {seconds} s: {taken:.1f}")
    check((growth := memory("VmHWM") - before) <= GROWTH, f"{growth / 2**30:.1f} GB more memory")
    check(not hasattr(sys, "fuzz_ran"), "code in a file was run")
    return outcome


def check_message(message, names):
    """Raise Violation unless an error's message is one line that holds one of `names`."""
    one_line = len(message.splitlines()) == 1 and len(message) <= 5000
    check(one_line, f"a message of several lines, or endless: {message[:300]!r}")
    named = any(name in message for name in names)
    check(named, f"a message that names no file: {message[:300]!r}")
