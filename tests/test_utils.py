"""Atomic files, checkpoints and exit codes."""

import errno

import pytest
import torch

from utils import (
    UserError,
    atomic_path,
    choose_device,
    choose_precision,
    digest_bytes,
    digest_files,
    digest_state,
    load_checkpoint,
    read_json,
    run_main,
    save_checkpoint,
    write_json,
)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.json") as path:
        path.write_text("half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == [1] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["[1, 2", "", "\x00", "[" * 100_000])
def test_bad_json(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="a.json"):
        read_json(tmp_path / "a.json")


def test_bad_json_bytes(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(UserError, match="a.json"):
        read_json(tmp_path / "a.json")


def outcome(main, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    return stop.value.code, capsys.readouterr().err


def test_exit_codes(capsys):
    def raises(error):
        def main():
            raise error

        return main

    assert outcome(lambda: None, capsys) == (0, "")
    assert outcome(raises(UserError("what,\nwhere")), capsys) == (2, "error: what, where\n")
    assert outcome(raises(KeyboardInterrupt()), capsys)[0] == 130
    code, line = outcome(
        raises(OSError(errno.ENOSPC, "No space left on device", "x/last.pth")), capsys
    )
    assert code == 2 and "x/last.pth" in line and line.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 / 0)


def test_checkpoints(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"x": torch.ones(2), "n": 3})
    state = load_checkpoint(tmp_path / "a.pth")
    assert state["n"] == 3 and state["x"].tolist() == [1, 1]
    with pytest.raises(UserError, match="no such"):
        load_checkpoint(tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UserError, match="c.pth"):
        load_checkpoint(tmp_path / "c.pth")


def test_digests_see_every_change(tmp_path):
    assert digest_bytes("a", "bc") != digest_bytes("ab", "c")
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    assert digest_files([tmp_path / "a", tmp_path / "b"]) != digest_files(
        [tmp_path / "b", tmp_path / "a"]
    )
    assert (
        digest_state({"w": torch.zeros(2)})
        != digest_state({"w": torch.zeros(1, 2)})
        != digest_state({"w": torch.ones(1, 2)})
    )
    assert len(digest_state({"n": torch.zeros((), dtype=torch.int64)})) == 16


def test_devices():
    assert choose_device(-1).type == "cpu"
    with pytest.raises(UserError, match="--gpu 77"):
        choose_device(77)
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert choose_precision("auto", torch.device("cpu")) in ("bf16", "float32")
