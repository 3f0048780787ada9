"""Digests of files, texts and weights: two things with one digest are the same."""

import errno
import hashlib
from pathlib import Path

import torch


def digest_bytes(*parts):
    """SHA-256 (hex, 16 characters) of byte strings and strings, in order."""
    sha = hashlib.sha256()
    for part in parts:
        part = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.hexdigest()[:16]


def digest_files(paths):
    """SHA-256 (hex, 16 characters) of the names and contents of files, in order, in pieces."""
    sha = hashlib.sha256()
    for path in map(Path, paths):
        sha.update(path.name.encode("utf-8", "surrogatepass") + b"\0")
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
