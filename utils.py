"""Seeds, devices, atomic files, errors that a user can mend, logging. Nothing of the method is here."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import zipfile
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import torch

VERSION = 4  # of checkpoints and result files; 2: model_arguments has softmax and word_dropout; 3: gate and prior; 4: components
MAX_JSON = (
    64 << 20
)  # bytes: what that can grow to in memory is bounded; no file of VQA-RAD has 4 MB


def check_version(version, path):
    """Raise UserError for what is no version or was written by a newer one."""
    if not isinstance(version, int) or version > VERSION:
        raise UserError(
            f"{path} was written by a newer version ({str(version)[:40]}, this is {VERSION}): update this program"
        )


class UserError(Exception):
    """Something that the user can mend. The message is one line: what, which file or argument, what to do."""

    def __init__(self, message=""):
        text = " ".join(
            "".join(mark if mark.isprintable() else " " for mark in str(message)[:20_000]).split()
        )  # names in data may hold anything
        super().__init__(text if len(text) <= 2000 else f"{text[:1500]} ... {text[-400:]}")


class Stopped(BaseException):
    """Ctrl-C or SIGTERM, after everything was put in order. `number` is the signal's; the message says how to go on."""

    def __init__(self, number, message="interrupted"):
        super().__init__(message)
        self.number = number


@contextlib.contextmanager
def stop_signals():
    """In the block SIGINT and SIGTERM are kept for later: gives a list, empty until one comes, then with its number. A second one raises Stopped."""
    caught = []

    def keep(number, _):
        if caught:
            raise Stopped(number)
        caught.append(number)

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main one can have handlers
        yield caught
        return
    heeded = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    ]  # a shell's "&" ignores Ctrl-C
    before = {number: signal.signal(number, keep) for number in heeded}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def lock(folder):
    """Make `folder` and hold it for this process: gives a file to keep open. Raises UserError when another process holds it."""
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
    for kind in (
        "pth",
        "json",
        "jsonl",
    ):  # of a run that was killed while it wrote; another program's stay
        for stray in folder.glob(f".*.{kind}.*.tmp"):
            stray.unlink(missing_ok=True)
    return file


def run_main(main):
    """Run an entry point's `main()` and leave with the exit codes of DESIGN section 11.

    0 done; 2 for what the user can mend (one line on stderr, no traceback); 130 and 143 when interrupted by Ctrl-C and SIGTERM. A full disk or a folder
    that can't be written is the user's to mend too; any other OSError is a fault of ours and keeps its traceback.
    """

    def terminate(number, _):
        raise Stopped(number)  # so that temporary files go

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if in_main else None
    try:
        code = main() or 0
    except UserError as error:
        code = fail(
            " ".join(str(error).rsplit("UserError: ", 1)[-1].split())
        )  # a DataLoader worker's comes with its traceback
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Stopped as stopped:
        print(f"{stopped}", file=sys.stderr)
        code = 128 + stopped.number
    except BrokenPipeError:  # the reader of our output left, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (torch.OutOfMemoryError, MemoryError):
        code = fail(
            "the memory is full: lower --batch_size, freeze the encoders, or on a GPU take another one or none (--gpu -1)"
        )
    except OSError as error:
        if not is_disk_error(error):
            raise
        where = f" ({error.filename})" if error.filename else ""
        code = fail(
            " ".join(
                f"{error.strerror or error}{where}: free some space there or name another folder (--output, --RAD_dir)".split()
            )
        )
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
    sys.stdout.flush()
    sys.exit(code)


def run_facts(args, device):
    """How a run was started, for its run.json: {"arguments", "command", "device", "versions"}."""
    return {
        "arguments": {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(args).items()
        },
        "command": sys.argv,
        "device": str(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
        },
    }


def fail(message):
    """Print one line on stderr and return the exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def is_disk_error(error):
    """True for a full disk, a quota, a read-only or forbidden folder, a file where a folder is wanted. h5py gives some of these as text only."""
    codes = (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EFBIG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
    )
    return error.errno in codes or any(os.strerror(code) in str(error) for code in codes)


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path beside `path`; when the block ends well it is flushed to disk and renamed to `path`.

    When the block raises, `path` stays as it was and the temporary file is removed. A full disk names `path`.
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
        if isinstance(error, RuntimeError) and "enforce fail at inline_container" in str(
            error
        ):  # how torch.save says that it could not write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        if isinstance(error, OSError) and error.filename in (None, name) and is_disk_error(error):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


@contextlib.contextmanager
def atomic_h5(path):
    """Give an HDF5 file to fill; when the block ends well it is written to `path` atomically.

    It is made in memory (up to some hundred MB here) and written by Python: on a full disk HDF5 itself ends in a segmentation fault.
    """
    with h5py.File(Path(path).name, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path, value, indent=1):
    """Write `value` as JSON (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_json(path):
    """Read a JSON file. Raises UserError when it is missing, unreadable or not JSON."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe or a device never ends
            raise UserError(f"{path} is not a file")
        if path.stat().st_size > MAX_JSON:
            raise UserError(
                f"{path} has {path.stat().st_size >> 20} MiB: more than {MAX_JSON >> 20} are not read as JSON"
            )
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # ValueError: no JSON, no text, a number of 5,000 digits
        raise UserError(
            f"{path} is not valid JSON ({error}); it may be truncated, get it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None


def save_checkpoint(path, state):
    """Save a dictionary of tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path):
    """Load a checkpoint of tensors and plain data on the CPU; code in it is refused and never runs.

    Raises UserError when the file is missing, damaged, or holds anything but tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    try:
        if zipfile.is_zipfile(path):
            with (
                zipfile.ZipFile(path) as file
            ):  # torch.save packs nothing: what is packed may be small here and fill the memory
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                    raise ValueError("it is compressed")
        state = torch.load(path, map_location="cpu", weights_only=True)
        todo = [state]
        while todo:  # no recursion: it may be nested as deep as it likes
            value = todo.pop()
            if isinstance(
                value, torch.Tensor
            ):  # others can stand for more numbers than the file holds, and copies of them fill the memory
                if (
                    value.layout is not torch.strided
                    or value.device.type != "cpu"
                    or value.numel() * value.element_size() > value.untyped_storage().nbytes()
                ):
                    raise ValueError("it holds a tensor that is not stored as plain numbers")
            elif isinstance(value, (dict, list, tuple)):
                todo += [*value, *value.values()] if isinstance(value, dict) else value
        return state
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None
    except Exception as error:  # torch raises many types for a damaged or a hostile file
        reason = (
            str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        )
        if "weights_only" in str(error) or "Unsupported" in str(error):
            reason = "it holds more than tensors and plain data, which is never run here"
        raise UserError(f"{path} is not a checkpoint that can be loaded ({reason})") from None


def digest_bytes(*parts):
    """SHA-256 (hex, 16 characters) of byte strings and strings, in order."""
    sha = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()[:16]


def digest_files(paths):
    """SHA-256 (hex, 16 characters) of the names and contents of files, in order, read in pieces."""
    sha = hashlib.sha256()
    for path in map(Path, paths):
        sha.update(path.name.encode() + b"\0")
        if path.exists() and not path.is_file():  # a pipe or a device never ends
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                sha.update(piece)
        sha.update(b"\0")
    return sha.hexdigest()[:16]


def digest_state(state):
    """SHA-256 (hex, 16 characters) of a state dict: names, types, shapes and values."""
    sha = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        sha.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return sha.hexdigest()[:16]


def check_arguments(args, positive, folders):
    """Raise UserError for a seed out of range, a number named in `positive` that is not, or a file where one of `folders` is wanted.

    An argument that is None was not given and is not checked.
    """
    for name in positive:
        if getattr(args, name) is not None and not getattr(args, name) > 0:
            raise UserError(f"--{name} {getattr(args, name)}: a positive number is wanted")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed {args.seed}: a number from 0 to 4294967295 is wanted")
    for name in folders:
        place = getattr(args, name)
        if place and any(
            folder.exists() and not folder.is_dir() for folder in (place, *place.absolute().parents)
        ):
            raise UserError(f"--{name} {place}: a file stands where a folder is wanted")


def set_seed(seed):
    """Seed Python, numpy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def choose_device(gpu):
    """`gpu` is a CUDA device number, -1 for the CPU, or None for the first GPU when there is one. That GPU becomes the current one.

    Raises UserError when that GPU does not exist.
    """
    if gpu is None:
        gpu = 0 if torch.cuda.is_available() else -1
    if gpu < 0:
        return torch.device("cpu")
    if gpu >= torch.cuda.device_count():
        raise UserError(
            f"--gpu {gpu}: this machine has {torch.cuda.device_count()} CUDA GPUs; use --gpu -1 for the CPU"
        )
    torch.cuda.set_device(gpu)  # random states are saved of the current one
    return torch.device("cuda", gpu)


def choose_precision(precision, device):
    """ "float32" or "bf16" as asked; "auto" is bf16 where the processor or the GPU multiplies bf16 natively, else float32.

    On a GPU what bf16's autocast leaves in float32 is multiplied as TF32; with "float32" nothing is.
    """
    if device.type == "cuda":
        tf32 = precision != "float32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().split()
        if "avx512_bf16" in flags or "amx_bf16" in flags:
            return "bf16"
    return "float32"


_say_lock = threading.Lock()


def say(message):
    """Print one line at once, without breaking a progress bar. Of several processes (torchrun) the first one speaks."""
    if os.environ.get("RANK", "0") != "0":
        return
    from tqdm import tqdm

    with _say_lock:
        tqdm.write(str(message), file=sys.stdout)
        sys.stdout.flush()
