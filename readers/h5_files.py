"""HDF5 files of prepared images and feature maps: written whole or not at all, then checked."""

import contextlib
import hashlib
import io
from pathlib import Path

import h5py
import numpy as np

from utils import atomic_path


class Disk(io.FileIO):
    """A file for HDF5 to write to, which keeps the first error in place of raising it.

    HDF5 can't close a file whose writing fails: at its end the process would crash. So after
    an error nothing more is written, and `check` raises it.
    """

    error = None

    def write(self, data):
        rest = memoryview(data).cast("B")
        count = len(rest)
        try:
            while rest and not self.error:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return count

    def truncate(self, size=None):
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size

    def check(self):
        """Raise the error that was kept, an OSError, if any."""
        if self.error:
            raise self.error


@contextlib.contextmanager
def atomic_h5(path):
    """Give (an HDF5 file to fill, its Disk); a block that ends well puts it at `path` atomically.

    The block calls the Disk's `check` after what it writes. The memory does not grow with the
    file.
    """
    with atomic_path(path) as temporary, Disk(temporary, "w+b") as disk:
        with h5py.File(disk, "w", libver="latest") as file:  # latest: tables with checksums
            yield file, disk
        disk.check()


def write_rows(path, name, rows, count, digest, names=(), attributes=None):
    """Write arrays of one shape and type as the rows of an HDF5 dataset, atomically.

    rows: an iterable of `count` arrays. names: texts for a second dataset, "names".
    Every chunk (a row, or all names) and the file's own tables carry checksums. The attribute
    "source digest" holds `digest`, and "content digest" that of the rows; `attributes` are
    further ones, numbers (docs/FORMATS.md section 2). Texts have a fixed length: HDF5 keeps
    others in a heap, which has no checksum, and a flipped bit there can make it read forever.
    """
    with atomic_h5(path) as (file, disk):
        data = None
        for row, array in enumerate(rows):
            if data is None:
                shape, chunks = (count, *array.shape), (1, *array.shape)
                data = file.create_dataset(name, shape, array.dtype, chunks=chunks, fletcher32=True)
            data[row] = array
            disk.check()
        if names:
            texts = [text.encode() for text in names]
            kind = h5py.string_dtype("utf-8", max(map(len, texts)))
            texts = np.array(texts, kind)
            file.create_dataset("names", data=texts, chunks=True, fletcher32=True)
        file.attrs.update({"source digest": np.bytes_(digest)} | (attributes or {}))
        file.flush()
        disk.check()  # before the rows are read again
        file.attrs["content digest"] = np.bytes_(content_digest(file))


def content_digest(file):
    """SHA-256 (hex, 16 characters) of all rows. Raises OSError for a chunk with another checksum.

    Fletcher-32 takes zeros for 0xFFFF: a lost sector in a white part of an image is no damage
    to it.
    """
    sha = hashlib.sha256()
    for name in sorted(file):
        for row in range(len(file[name])):
            sha.update(np.asarray(file[name][row]).tobytes())
    return sha.hexdigest()[:16]


def is_current(path, name, count, digest):
    """True when `write_rows` wrote the file from this digest and its content is unchanged."""
    if not Path(path).is_file():  # it may be a pipe, which never ends
        return False
    # what h5py raises for damaged files, and for files with other things in them
    errors = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)
    with contextlib.suppress(*errors):
        with h5py.File(path, "r", locking=False) as file:  # locks fail on some network disks
            if file.attrs["source digest"] != np.bytes_(digest) or name not in file:
                return False
            for data in file.values():
                if len(data) != count or not data.fletcher32:
                    return False
            return file.attrs["content digest"] == np.bytes_(content_digest(file))
    return False
