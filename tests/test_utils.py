"""utils.py: atomic files, signals, locks, exit codes and devices."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

import utils
from readers.json_files import read_json
from utils import Stopped, UserError, lock, run_main, stop_signals, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(RuntimeError), utils.atomic_path(tmp_path / "a.json") as path:
        path.write_text("half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == [1] and len(list(tmp_path.iterdir())) == 1


def test_an_error_is_one_printable_line():
    error = UserError("a\nb\x1b[31m \u202e" + "x" * 3000)
    assert str(error).startswith("a b [31m x") and str(error).isprintable()
    assert len(str(error)) < 2000 and " ... " in str(error)
    assert utils.reason(ValueError(" two\nlines ")) == "two lines"
    assert utils.reason(ValueError()) == "ValueError" and utils.reason(KeyError("abc"), 2) == "'a"
    names = [str(number) for number in range(23)]
    assert utils.shorten(names[:2]) == "0, 1" and utils.shorten(names).endswith("19 and 3 more")


def outcome(main, capsys):
    """(exit code, stderr) of an entry point."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    return stop.value.code, capsys.readouterr().err


def raises(error):
    def main():
        raise error

    return main


def test_exit_codes(capsys):
    assert outcome(lambda: None, capsys) == (0, "")
    assert outcome(lambda: 3, capsys) == (3, "")
    assert outcome(raises(UserError("what,\nwhere")), capsys) == (2, "error: what, where\n")
    assert outcome(raises(KeyboardInterrupt()), capsys)[0] == 130
    full = OSError(errno.ENOSPC, "No space left on device", "x/last.pth")
    code, line = outcome(raises(full), capsys)
    assert code == 2 and "x/last.pth" in line and line.count("\n") == 1
    code, line = outcome(raises(MemoryError()), capsys)
    assert code == 2 and "--batch_size" in line and line.count("\n") == 1
    code, line = outcome(raises(RuntimeError("operator torchvision::nms does not exist")), capsys)
    assert code == 2 and "-m pip install --force-reinstall torch torchvision" in line
    for fault in (ZeroDivisionError(), RuntimeError("a fault")):
        with pytest.raises(type(fault)):
            run_main(raises(fault))
    with pytest.raises(OSError, match="socket"):  # a fault of the program keeps its traceback
        run_main(raises(OSError(errno.ENOTSOCK, "no socket")))


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes_of_signals(number, code, capsys, heeded):
    def main():
        os.kill(os.getpid(), number)
        time.sleep(5)

    found, lines = outcome(main, capsys)
    assert found == code and lines == "interrupted\n"
    assert signal.getsignal(number) == heeded[number]  # put back


def test_a_second_signal_ends_at_once(heeded):
    with pytest.raises(Stopped), stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stopped == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_an_ignored_signal_stays_ignored(heeded):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert not stopped


def test_two_runs_in_one_folder(tmp_path, capsys):
    """A lock belongs to an open file: a second one in this process is as one of another."""
    held = lock(tmp_path / "run")
    code, line = outcome(lambda: lock(tmp_path / "run") and None, capsys)
    assert code == 2 and "in use by another run" in line
    held.close()
    (tmp_path / "run" / ".last.pth.x.tmp").write_text("of a run that was killed")
    lock(tmp_path / "run").close()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def from_a_shell(code, **environment):
    """Python code in a process of its own in the repository: the finished process, in bytes."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, timeout=60
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_terminal_that_is_not_utf_8(environment):
    """What it can't show is replaced, in results and in errors."""
    code = (
        "import utils\ndef main():\n    utils.log('\\u0394 60 \\u00b1 1')\n    print('\\u0394')\n"
    )
    code += "    raise utils.UserError('no \\u0394')\nutils.run_main(main)"
    done = from_a_shell(code, **environment)
    shown = b"? 60 \xb1 1" if "latin-1" in environment.values() else b"? 60 ? 1"
    assert (done.returncode, done.stdout) == (2, shown + b"\n?\n")
    assert done.stderr == b"error: no ?\n"


def test_streams_that_are_closed():
    code = "import sys, utils\nsys.stdout = sys.stderr = None\n"
    done = from_a_shell(code + "utils.run_main(lambda: utils.log('a'))")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_system_without_locks():
    """Windows has no fcntl: one line, whatever is asked."""
    code = "import runpy, sys\nsys.modules['fcntl'] = None\nsys.argv = ['train.py', '--nothing']\n"
    done = from_a_shell(code + "runpy.run_path('train.py', run_name='__main__')")
    line = b"error: this program runs on Linux and macOS; on Windows it runs within WSL\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", line)


def test_json_of_a_name_that_is_no_text(tmp_path):
    """A folder's name in Latin-1 on a UTF-8 system, as Python reads it: valid JSON, read back."""
    name = os.fsdecode(b"Schl\xfcssel \xce\x94")
    write_json(tmp_path / "a.json", {"folder": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"folder": name}


def test_devices():
    assert utils.choose_device(-1).type == "cpu"
    with pytest.raises(UserError, match="--gpu 77"):
        utils.choose_device(77)
    cpu = torch.device("cpu")
    assert utils.choose_precision("bf16", cpu) == "bf16"
    assert utils.choose_precision("auto", cpu) in ("bf16", "float32")


@pytest.mark.parametrize(
    "native, asked, before, precision, note",
    [
        (True, "auto", None, "bf16", ""),
        (True, "auto", "bf16", "bf16", ""),
        (False, "auto", None, "float32", ""),
        (False, "auto", "bf16", "float32", "was in bf16 so far; on this cpu it goes on in float32"),
        (True, "auto", "float32", "bf16", "was in float32 so far; on this cpu it goes on in bf16"),
        (False, "bf16", "bf16", "bf16", "bf16 is slow on this cpu"),
        (True, "float32", "float32", "float32", ""),
    ],
)
def test_precision(native, asked, before, precision, note, monkeypatch, capsys):
    """A run that was not told its precision takes the machine's, and says that it changes."""
    monkeypatch.setattr(utils, "has_bf16", lambda device: native)
    assert utils.choose_precision(asked, torch.device("cpu"), before) == precision
    shown = capsys.readouterr().out
    assert note in shown and shown.count("NOTE") == bool(note)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"lr": 0.0}, "--lr 0.0: a positive number"),
        ({"lr": float("nan")}, "--lr nan: a positive number"),
        ({"size": 1}, "--size 1 is too small: at least 2"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296"),
        ({"output": "file/x"}, "a file stands where a folder is wanted"),
    ],
)
def test_numbers_out_of_range_and_files_for_folders(change, words, tmp_path):
    (tmp_path / "file").touch()
    good = {"lr": 1e-9, "size": 2, "seed": 2**32 - 1, "output": "x/y", "epochs": None}

    def check(settings):
        args = SimpleNamespace(**settings)
        args.output = tmp_path / args.output
        utils.check_arguments(args, ("lr", "epochs"), ("output",), [("size", 2), ("epochs", 1)])

    check(good)
    with pytest.raises(UserError, match=words):
        check(good | change)


def test_a_folder_that_will_be_written(tmp_path):
    """Refused before anything is computed, and not made before it is needed."""
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    sealed.chmod(0o555)
    (tmp_path / "unplugged").symlink_to(tmp_path / "nowhere")
    utils.check_writable(tmp_path / "a" / "b", "--output")
    assert not (tmp_path / "a").exists()
    for folder in (sealed, sealed / "a" / "b", tmp_path / "unplugged"):
        with pytest.raises(UserError, match=f"{folder} can't be written: .* with --show"):
            utils.check_writable(folder, "--show")


def test_the_first_folder_that_can_be_written(tmp_path):
    """A folder marked read-only is left alone, also by root."""
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    sealed.chmod(0o555)
    assert utils.first_writable((sealed / "a", tmp_path / "b")) == tmp_path / "b"
    assert utils.first_writable((tmp_path / "c", tmp_path / "b")) == tmp_path / "c"
    with pytest.raises(UserError, match="neither .*sealed.* can be written; .*CMSA_CACHE"):
        utils.first_writable((sealed, sealed / "a"))
    assert not list(sealed.iterdir())
