"""The one way to load a file of torch.save from outside: code in it never runs."""

import re
import shlex
import sys
import zipfile
from pathlib import Path

import torch

from utils import UserError

# a program for users who trust a file: it saves argv[1] as argv[2], with numpy's numbers made plain
RESAVE = (
    "import sys, numpy, torch; f = lambda x: x.item() if isinstance(x, numpy.generic) else "
    "torch.tensor(x) if isinstance(x, numpy.ndarray) else {f(k): f(v) for k, v in x.items()} "
    "if isinstance(x, dict) else type(x)(map(f, x)) if type(x) in (list, tuple) else x; "
    'torch.save(f(torch.load(sys.argv[1], "cpu", weights_only=False)), sys.argv[2])'
)


def load_checkpoint(path):
    """Load tensors and plain data on the CPU; code in the file is refused and never runs.

    Raises UserError when the file is missing, damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                # torch.save packs nothing: a packed file may be small here and fill the memory
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                    raise ValueError("it is compressed")
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(state)
        return state
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None
    except Exception as error:  # torch raises many types for a damaged or a hostile file
        text = str(error).strip()
        why = text.splitlines()[0][:160] if text else type(error).__name__
        if "weights_only" in text or "Unsupported" in text:
            found = re.search(r"GLOBAL ([\w.]+)", text)
            name = found[1][:80] if found else "something"
            if name.startswith("numpy."):
                raise UserError(_numpy_message(path, name)) from None
            why = f"it holds {name}, neither a tensor nor plain data, which is never run here"
        raise UserError(f"{path} is not a checkpoint that can be loaded ({why})") from None


def _numpy_message(path, name):
    """What to do about a checkpoint with numbers of numpy's type `name` in it."""
    new = path.with_name(f"{path.stem}_plain{path.suffix}")
    command = shlex.join([sys.executable, "-c", RESAVE, str(path), str(new)])
    return (
        f"{path} holds numbers as numpy keeps them ({name}); code would have to rebuild them, and "
        "code in a checkpoint is never run here. Only if you trust the file, for this runs the "
        f"code in it, save it with plain numbers and name {new} instead: {command}"
    )


def _check_tensors(state):
    """Raise ValueError for a tensor that stands for more numbers than the file holds."""
    todo = [state]
    while todo:  # no recursion: the file may be nested as deep as it likes
        value = todo.pop()
        if isinstance(value, torch.Tensor):
            plain = value.layout is torch.strided and value.device.type == "cpu"
            size = value.numel() * value.element_size()
            if not plain or size > value.untyped_storage().nbytes():
                raise ValueError("it holds a tensor that is not stored as plain numbers")
        elif isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            todo += value
