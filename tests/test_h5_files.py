"""HDF5 files: a change of any bit is seen or does no harm, and a failed writing leaves nothing."""

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import flipped

from readers.h5_files import is_current, write_rows

DIGEST, ROOT = "0123456789abcdef", Path(__file__).parent.parent


def rows(count=3, shape=(8, 7, 3)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_rows_names_and_attributes(tmp_path):
    path, names = tmp_path / "x.h5", ["a.jpg", "ä.jpg", "日本.jpg"]
    write_rows(path, "images", iter(rows()), 3, DIGEST, names, {"size": 7})
    with h5py.File(path) as file:
        assert np.array_equal(file["images"][:], rows()) and file["images"].chunks == (1, 8, 7, 3)
        assert list(file["names"].asstr()) == names
        content = rows().tobytes() + "".join(names).encode()
        by_hand = hashlib.sha256(content).hexdigest()[:16].encode()
        digests = {"source digest": DIGEST.encode(), "content digest": by_hand}
        assert dict(file.attrs) == digests | {"size": 7}
    assert is_current(path, "images", 3, DIGEST)
    assert b"GCOL" not in path.read_bytes()  # HDF5's heap of texts has no checksum


def test_not_current(tmp_path):
    path = tmp_path / "x.h5"
    assert not is_current(path, "images", 3, DIGEST)
    write_rows(path, "images", rows(), 3, DIGEST)
    for arguments in (("maps", 3, DIGEST), ("images", 4, DIGEST), ("images", 3, "another")):
        assert not is_current(path, *arguments)
    content = path.read_bytes()
    for damaged in (b"", b"junk", content[:-5], content[: len(content) // 2]):
        path.write_bytes(damaged)
        assert not is_current(path, "images", 3, DIGEST)
    with h5py.File(path, "w") as file:  # without checksums
        file["images"], file.attrs["source digest"] = rows(), np.bytes_(DIGEST)
    assert not is_current(path, "images", 3, DIGEST)
    with h5py.File(path, "w") as file:  # neither has rows
        file.attrs["source digest"], file["images"] = np.bytes_(DIGEST), 5
        file.create_group("maps")
    assert not is_current(path, "images", 3, DIGEST) and not is_current(path, "maps", 0, DIGEST)


@pytest.mark.parametrize("there, then", [(255, b"\0"), (0, b"\xff")])
def test_a_lost_sector_is_seen(tmp_path, there, then):
    """Fletcher-32 alone takes words of zeros for words of ones."""
    path, images = tmp_path / "x.h5", rows(2, (99, 99, 3))
    images[:, 40:90] = there
    write_rows(path, "images", images, 2, DIGEST)
    content = path.read_bytes()
    at = content.index(bytes([there]) * 9000) // 2 * 2 + 2048
    path.write_bytes(content[:at] + then * 4096 + content[at + 4096 :])
    assert not is_current(path, "images", 2, DIGEST)


@pytest.mark.parametrize("count, tries", [(1, 200), (3, 300), (1100, 60)])
def test_a_flipped_bit_is_seen_or_does_no_harm(tmp_path, count, tries):
    """Bits anywhere in files of one row, of some, and of so many that HDF5's tables have pages.

    All 38,528 bits of the first two were tried once: 19,728 changes were seen, the others did no
    harm.
    """
    path, images = tmp_path / "x.h5", rows(count, (8, 7, 3) if count < 9 else (5,))
    names = [f"i{i}.jpg" for i in range(count)]
    write_rows(path, "images", images, count, DIGEST, names)
    assert is_current(path, "images", count, DIGEST)
    content, draw = path.read_bytes(), random.Random(0)
    seen = 0
    for position in draw.sample(range(8 * len(content)), tries):
        path.write_bytes(flipped(content, position))
        if not is_current(path, "images", count, DIGEST):
            seen += 1
            continue
        with h5py.File(path) as file:
            assert np.array_equal(file["images"][:], images), position
            assert list(file["names"].asstr()) == names, position
    assert seen > 0.3 * tries  # HDF5 does not use the other bytes


def test_an_error_while_writing_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "x.h5"
    write_rows(path, "images", rows(), 3, DIGEST)
    before = path.read_bytes()

    def broken():
        yield rows()[0]
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_rows(path, "images", broken(), 3, DIGEST)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_full_disk(tmp_path):
    """Limits on the size of files stand for full disks, in a process that then ends well."""
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from readers.h5_files import is_current, write_rows
path, hard = Path(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
rows, names = np.random.default_rng(0).random((40, 99, 99)), [f"i{i}.jpg" for i in range(40)]
write_rows(path, "images", rows, 40, "digest", names)
size = path.stat().st_size
path.unlink()
# room for nothing, for some rows, for all but the names or the tables at the end, and for all
for limit in (0, size // 3, size - 4000, size - 300, size - 1, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        write_rows(path, "images", rows, 40, "digest", names)
        print(is_current(path, "images", 40, "digest"))
    except OSError as error:
        print(error.strerror, Path(error.filename).name, len(list(path.parent.iterdir())))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "x.h5")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")  # HDF5 crashed at the end of the process
    assert done.stdout.splitlines() == ["File too large x.h5 0"] * 5 + ["True"]
