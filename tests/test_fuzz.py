"""Hostile input: some cases of fuzz.py for each loader (`python fuzz.py` runs thousands), and that it sees a loader that is broken."""

import itertools
import sys

import pytest

for name in ("hypothesis", "pydicom"):
    pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")

import fuzz  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", fuzz.LOADERS)
def test_whole_files_load_and_hostile_ones_load_or_are_refused(name, tmp_path):
    """The fixed cases, but for the heavy ones, and some drawn ones."""
    counts, found = fuzz.fuzz(
        name,
        90
        if name in ("checkpoint", "part", "dicom")
        else 3
        if name in ("model", "pretraining")
        else 25,
        0,
        tmp_path,
    )
    assert not found and counts["UserError"] + counts["accepted"] == counts.total()


def test_what_is_a_violation(tmp_path):
    """Another exception, a slow loader, code that ran, and a message that does not help."""
    with pytest.raises(fuzz.Violation, match="over 1.0 s"):
        fuzz.attempt(
            lambda _: next(i for i in itertools.count() if i < 0), {}, tmp_path, seconds=0.5
        )
    for code, what in (
        (fuzz.CODE, "code in a file"),
        ("raise UserError('elsewhere')", "names no file"),
    ):
        with pytest.raises(fuzz.Violation, match=what):
            fuzz.attempt(lambda _, code=code: exec(code, vars(fuzz)), {}, tmp_path)
    with pytest.raises(KeyError):
        fuzz.attempt(lambda _: {}["key"], {}, tmp_path)


@pytest.mark.parametrize(
    "loader, place, broken, kind",
    [
        ("processed", "rad.check_records", lambda *_: [][0], "IndexError"),
        ("lists", "mtpt.read_mask", lambda _: int("x"), "ValueError"),
        ("archive", "rad.read_pickle", lambda _: exec(fuzz.CODE), "code in a file was run"),
        ("prepared", "engine.is_whole", lambda path: path.is_file(), "OSError at engine.py"),
        ("json", "read_json", lambda _: None, "UserError is wanted"),
    ],
)
def test_a_broken_loader_is_seen(loader, place, broken, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(f"fuzz.{place}", broken)
    _, found = fuzz.fuzz(loader, 99, 0, tmp_path, go_on=True)
    assert any(kind in one for one in found) and all(
        folder.is_dir() for _, _, folder in found.values()
    )


def test_command(tmp_path, monkeypatch, capsys):
    """A table of counts by loader; exit code 1 and the case for a broken one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CMSA_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--loader", "json", "--cases", "20"])
    assert fuzz.main() == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["loader", "cases"],
        ["json", "20"],
        ["all", "20"],
    ]
    monkeypatch.setattr(fuzz, "read_json", lambda _: int("x"))
    assert fuzz.main() == 1
    assert "ValueError at " in (out := capsys.readouterr().out) and "--loader json --again /" in out
