"""tests/fuzz: some cases of each loader, and that a broken reader is found.

`python -m tests.fuzz` runs thousands of cases.
"""

import itertools
import sys

import pytest

for name in ("hypothesis", "pydicom"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")

from tests.fuzz import __main__ as runner  # noqa: E402
from tests.fuzz import attempt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = {"checkpoint": 90, "part": 90, "dicom": 90, "model": 3, "pretraining": 3}


@pytest.mark.parametrize("name", runner.LOADERS)
def test_whole_files_load_and_hostile_ones_load_or_are_refused(name, tmp_path):
    """The fixed cases, but for the heavy ones, and some drawn ones."""
    counts, found = runner.fuzz(name, CASES.get(name, 25), 0, tmp_path)
    assert not found and counts["UserError"] + counts["accepted"] == counts.total()


def test_what_is_a_violation(tmp_path):
    """Another exception, a slow loader, code that ran, and a message that does not help."""

    def endless(_):
        next(i for i in itertools.count() if i < 0)

    with pytest.raises(attempt.Violation, match="over 1.0 s"):
        attempt.attempt(endless, {}, tmp_path, seconds=0.5)
    names = {"UserError": attempt.UserError}
    for code, what in (
        (attempt.CODE, "code in a file"),
        ("raise UserError('elsewhere')", "names no file"),
    ):
        with pytest.raises(attempt.Violation, match=what):
            attempt.attempt(lambda _, code=code: exec(code, names), {}, tmp_path)
    with pytest.raises(KeyError):
        attempt.attempt(lambda _: {}["key"], {}, tmp_path)


@pytest.mark.parametrize(
    "loader, name, broken, kind",
    [
        ("processed", "readers.records.check_records", lambda *_: [][0], "IndexError"),
        ("lists", "readers.organ_images.read_mask", lambda _: int("x"), "ValueError"),
        ("archive", "readers.archive.read_pickle", lambda _: exec(attempt.CODE), "code in a file"),
        ("prepared", "features.is_current", lambda path, *_: path.is_file(), "OSError at"),
        ("prepared", "readers.prepared.is_current", lambda path, *_: path.is_file(), "OSError at"),
        ("json", "tests.fuzz.loaders.read_json", lambda _: None, "UserError is wanted"),
    ],
)
def test_a_broken_reader_is_found(loader, name, broken, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(name, broken)
    _, found = runner.fuzz(loader, 99, 0, tmp_path, go_on=True)
    assert any(kind in one for one in found), found
    assert all(folder.is_dir() for _, _, folder in found.values())


def test_command(tmp_path, monkeypatch, capsys):
    """A table of counts by loader; exit code 1 and the case for a broken reader."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CMSA_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["fuzz", "--loader", "json", "--cases", "20"])
    assert runner.main() == 0
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [["loader", "cases"], ["json", "20"], ["all", "20"]]
    monkeypatch.setattr("tests.fuzz.loaders.read_json", lambda _: int("x"))
    assert runner.main() == 1
    printed = capsys.readouterr().out
    assert "ValueError at " in printed and "--loader json --again /" in printed
    # what was found can be run again
    folder = printed.split("--again ")[1].split()[0]
    monkeypatch.setattr(sys, "argv", ["fuzz", "--loader", "json", "--again", folder])
    with pytest.raises(ValueError):
        runner.main()
