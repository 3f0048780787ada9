"""Errors, signals, atomic files, devices and printing. Nothing of the method is here."""

import contextlib
import errno
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: `run_main` refuses
    fcntl = None

HERE = Path(__file__).resolve().parent
VERSION = 6  # of checkpoints and result files; files of another version are refused
SIZE = 224  # pixels: side of the images that models see
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
MAX_PIXELS = 80_000_000  # of one picture: a small file can hold one that fills the memory
PHANTOM_MARK = "PHANTOM.txt"  # a folder with this file holds drawings, whatever its JSON says
PHANTOM_SET = "phantom set"  # name of such a data set
LISTED = 20  # names in an error message before "and N more"
PIP = f"{sys.executable} -m pip install"  # into the environment that runs this


class Organ(NamedTuple):
    """One organ: VQA-RAD's code, the name of its encoder and set, and how messages call it."""

    code: str
    encoder: str
    title: str


ORGANS = (  # organ order everywhere
    Organ("ABD", "abdomen", "abdomen"),
    Organ("HEAD", "brain", "head"),
    Organ("CHEST", "chest", "chest"),
)
ORGAN_CODES, ORGAN_ENCODERS, ORGAN_TITLES = zip(*ORGANS)


class UserError(Exception):
    """A fault that the user can mend. One line: what, which file or argument, what to do."""

    def __init__(self, message=""):
        # names in data may hold any character
        text = "".join(mark if mark.isprintable() else " " for mark in str(message)[:20_000])
        text = " ".join(text.split())
        super().__init__(text if len(text) <= 2000 else f"{text[:1500]} ... {text[-400:]}")


class Stopped(BaseException):
    """Ctrl-C or SIGTERM (`number`), after everything was put in order; says how to go on."""

    def __init__(self, number, message="interrupted"):
        super().__init__(message)
        self.number = number


def reason(error, length=160):
    """A short reason, one line, from any exception."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def shorten(names, most=LISTED):
    """Up to `most` names, then "and N more"."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def optional(name):
    """Import a package that need not be installed. Raises UserError with the command to install."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"this needs {package}, which is missing: {PIP} {package}") from None


@contextlib.contextmanager
def stop_signals():
    """Keep SIGINT and SIGTERM for later: gives a list that is empty until one comes.

    The list then holds the signal's number. A second signal raises Stopped.
    """
    caught = []

    def keep(number, _):
        if caught:
            raise Stopped(number)
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():  # no other can have handlers
        yield caught
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    # a shell's "&" makes a process ignore Ctrl-C
    heeded = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, keep) for number in heeded}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def lock(folder):
    """Make `folder` and hold it for this process: gives a file to keep open.

    Raises UserError when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / ".lock", "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder} is in use by another run: wait for it, or name another --output"
        ) from None
    except OSError:  # some network disks have no locks
        pass
    for kind in ("pth", "json", "jsonl"):  # temporary files of a run that was killed
        for stray in folder.glob(f".*.{kind}.*.tmp"):
            stray.unlink(missing_ok=True)
    return file


def run_main(main):
    """Run an entry point's `main()` and leave with an exit code (docs/FORMATS.md section 6).

    0: done. 2: the user can mend it (one line on stderr). 130, 143: Ctrl-C, SIGTERM.
    A full disk or a forbidden folder counts as the user's to mend.
    Any other OSError is a fault of the program and keeps its traceback.
    """

    def terminate(number, _):
        raise Stopped(number)  # so that temporary files are removed

    prepare_streams()
    if fcntl is None:
        sys.exit(fail("this program runs on Linux and macOS; on Windows it runs within WSL"))
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if in_main else None
    try:
        code = main() or 0
    except UserError as error:  # a DataLoader worker's comes with its traceback
        code = fail(" ".join(str(error).rsplit("UserError: ", 1)[-1].split()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Stopped as stopped:
        print(f"{stopped}", file=sys.stderr)
        code = 128 + stopped.number
    except BrokenPipeError:  # the reader of our output left, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (MemoryError, getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)):
        code = fail("the memory is full: lower --batch_size, freeze the encoders, or name --gpu -1")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        code = fail(
            f"torch and torchvision don't fit each other: {PIP} --force-reinstall torch torchvision"
        )
    except OSError as error:
        if not is_disk_error(error):
            raise
        where = f" ({error.filename})" if error.filename else ""
        code = fail(
            f"{' '.join(str(error.strerror or error).split())}{where}: free some space there or "
            "name another folder (--output, --RAD_dir)"
        )
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
    sys.stdout.flush()
    sys.exit(code)


def prepare_streams():
    """Let stdout and stderr replace characters that their encoding lacks; a closed one is none."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):  # a notebook's can't be
            stream.reconfigure(errors="replace")


def fail(message):
    """Print one line on stderr and return the exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def is_disk_error(error):
    """True for a full disk, a quota, a read-only or forbidden folder, a file for a folder.

    h5py gives some of these as text only.
    """
    names = "ENOSPC EDQUOT EROFS EACCES EPERM EFBIG ENOTDIR EISDIR EEXIST ENAMETOOLONG"
    codes = [getattr(errno, name) for name in names.split()]
    return error.errno in codes or any(os.strerror(code) in str(error) for code in codes)


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path beside `path`; a block that ends well renames it to `path`.

    The file is flushed to disk first. When the block raises, `path` stays as it was and the
    temporary file is removed. The error of a full disk names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp gives 0600, an ordinary file is wanted
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        # torch.save says in this way that it could not write
        if isinstance(error, RuntimeError) and "enforce fail at inline_container" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        ours = isinstance(error, OSError) and error.filename in (None, name)
        if ours and is_disk_error(error):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def write_json(path, value, indent=1):
    """Write `value` as JSON (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=indent, ensure_ascii=False)
        # a name that is no text has surrogates, which stay escaped as JSON does it
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def cache_base():
    """The folder that stands in for a data folder that can't be written."""
    home = os.path.expanduser("~")
    home = tempfile.gettempdir() if home == "~" else home  # a user without a home folder
    return Path(os.environ.get("CMSA_CACHE") or Path(home) / ".cache" / "cmsa-mtpt")


def writable(folder):
    """True when files can be made in `folder`, which is made where it is missing.

    A folder marked read-only is left alone, by root too.
    """
    try:
        nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        if not nearest.stat().st_mode & 0o222:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_writable(folder, option):
    """Raise UserError, before anything takes time, when files can't be made in `folder`.

    It is not made yet. option: the argument that names another one.
    """
    above = (folder.absolute(), *folder.absolute().parents)
    if not writable(next(path for path in above if os.path.lexists(path))):
        raise UserError(f"{folder} can't be written: name another place with {option}")


def first_writable(folders):
    """The first of two folders that can be written. Raises UserError when none can."""
    for folder in folders:
        if writable(folder):
            return folder
    raise UserError(
        f"neither {folders[0]} nor {folders[1]} can be written; set the environment variable "
        "CMSA_CACHE to a folder that can"
    )


def check_arguments(args, positive, folders, least=()):
    """Raise UserError for a number out of range or a file where a folder is wanted.

    positive: names of numbers above 0; least: pairs of a name and its smallest value;
    folders: names of folders. An argument that is None was not given and is not checked.
    """
    for name in positive:
        if getattr(args, name) is not None and not getattr(args, name) > 0:
            raise UserError(f"--{name} {getattr(args, name)}: a positive number is wanted")
    for name, smallest in least:
        if getattr(args, name) is not None and getattr(args, name) < smallest:
            raise UserError(
                f"--{name} {getattr(args, name)} is too small: at least {smallest} is wanted"
            )
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: a number from 0 to 4294967295 is wanted")
    for name in folders:
        path = getattr(args, name)
        above = (path, *path.absolute().parents) if path else ()
        if any(folder.exists() and not folder.is_dir() for folder in above):
            raise UserError(f"--{name} {path}: a file stands where a folder is wanted")


def set_seed(seed):
    """Seed Python, numpy and PyTorch (all devices)."""
    import torch  # it takes seconds, and a wrong argument is named before

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def choose_device(gpu):
    """The device of --gpu: a CUDA device number, -1 for the CPU, None for the first GPU if any.

    A GPU becomes the current one. Raises UserError when it does not exist.
    """
    import torch

    if gpu is None:
        gpu = 0 if torch.cuda.is_available() else -1
    if gpu < 0:
        return torch.device("cpu")
    if gpu >= (count := torch.cuda.device_count()):
        raise UserError(f"--gpu {gpu}: this machine has {count} CUDA GPUs; --gpu -1 is the CPU")
    torch.cuda.set_device(gpu)  # random states are saved of the current one
    return torch.device("cuda", gpu)


@cache
def has_bf16(device_type):
    """True where the processor or the GPU multiplies bf16 natively."""
    import torch

    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().split()
        native = "avx512_bf16" in flags or "amx_bf16" in flags
        # oneDNN can be told to use less than the processor has
        return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return False


def choose_precision(precision, device, before=None):
    """ "float32" or "bf16" as asked; "auto" is bf16 where it is native, else float32.

    before: the precision so far of a run that goes on; another one now is logged.
    On a GPU TF32 multiplies whatever bf16's autocast leaves in float32, but not with "float32".
    """
    import torch

    if device.type == "cuda":
        tf32 = precision != "float32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    if precision == "auto":
        precision = "bf16" if has_bf16(device.type) else "float32"
    if precision == "bf16" and not has_bf16(device.type):
        log(f"NOTE: bf16 is slow on this {device.type}, which lacks it: float32 would be faster")
    if before not in (None, precision):
        log(
            f"NOTE: the run was in {before} so far; on this {device.type} it goes on in {precision}"
        )
    return precision


_log_lock = threading.Lock()


def log(message):
    """Print one line at once, without breaking a progress bar.

    Of several processes (torchrun) only the first one prints.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    from tqdm import tqdm

    with _log_lock:
        tqdm.write(str(message), file=sys.stdout)
        sys.stdout.flush()
