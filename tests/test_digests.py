"""readers/digests.py: every change is seen."""

import os

import pytest
import torch

from readers import digests


def test_digests_see_every_change(tmp_path):
    assert digests.digest_bytes("a", "bc") != digests.digest_bytes("ab", "c")
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    files = [tmp_path / "a", tmp_path / "b"]
    assert digests.digest_files(files) != digests.digest_files(files[::-1])
    tensors = [torch.zeros(2), torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(2).double()]
    assert len({digests.digest_state({"w": tensor}) for tensor in tensors}) == 4
    assert len(digests.digest_state({"n": torch.zeros((), dtype=torch.int64)})) == 16
    with pytest.raises(OSError, match="not a file"):  # a pipe or a device may never end
        digests.digest_files([os.devnull])


def test_names_that_are_no_text(tmp_path):
    """A name in Latin-1 on a UTF-8 system, as Python reads it."""
    (tmp_path / "Schl\udcfcssel").write_bytes(b"1")
    (tmp_path / "Schl\udce4ssel").write_bytes(b"1")
    names = sorted(tmp_path.iterdir())
    assert digests.digest_files(names[:1]) != digests.digest_files(names[1:])
    assert len({digests.digest_bytes(str(name)) for name in names}) == 2
