"""The shell scripts: from any folder, through links, with CDPATH, in a folder that is read-only."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = {  # and what their Python is to run, below the repository
    "train.sh": "train.py",
    "test.sh": "test.py",
    "pretrain.sh": "pretrain.py",
    "tests/run.sh": "-m",
    "environment.sh": None,
    ".ci/run": "-m",
}
# stands in for Python: prints its arguments; pip finds all packages where HAS_PACKAGES is set
PYTHON = """#!/bin/sh
case "$*" in
    *"pip install"*"--no-index"*) [ -n "$HAS_PACKAGES" ] ;;
    -c*) exit 0 ;;
    *) printf '<%s>' "$PWD" "$@"; echo ;;
esac
"""


@pytest.fixture
def clone():
    """A copy of the scripts in a folder whose name has spaces, with a stand-in for Python.

    Every user may read it, unlike pytest's own folders.
    """
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o755)
        root = Path(base) / "a clone of it"
        for name in (*SCRIPTS, "requirements.txt", "requirements-dev.txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        python = root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)
        for name in ("requirements.txt", "requirements-dev.txt"):
            shutil.copy(root / name, root / ".venv" / f".{name}")
        yield root
        subprocess.run(["chmod", "-R", "u+w", base], check=True)


def shell(command, cwd, *arguments, user=None, **environment):
    environment = os.environ | environment
    environment.pop("BASH_ENV", None)
    options = {"user": user, "group": user, "extra_groups": []} if user else {}
    command = [command, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize("script, runs", SCRIPTS.items())
def test_from_anywhere(script, runs, clone):
    """CDPATH leads to a folder with the same names, which is not to be entered."""
    elsewhere = clone.parent / "else where"
    for folder in (elsewhere / "tests", elsewhere / ".ci", elsewhere / clone.name):
        folder.mkdir(parents=True)
    path, name = clone / script, Path(script).name
    absolute, relative = elsewhere / "absolute", elsewhere / "relative link"
    absolute.symlink_to(path)
    relative.symlink_to(f"../{clone.name}/{script}")
    (elsewhere / "chain").symlink_to("relative link")
    calls = [(f"./{script}", clone), (script, clone), (f"./{name}", path.parent)]
    calls += [(f"../{clone.name}/{script}", elsewhere), (str(path), "/")]
    calls += [(str(absolute), "/"), ("./relative link", elsewhere), ("./chain", elsewhere)]
    calls += [(f"{elsewhere.name}/chain", clone.parent)]
    arguments = ["--an option"] if runs else []
    for command, cwd in calls:
        for cdpath in ("", f".:{elsewhere}:{clone.parent}", str(elsewhere)):
            # subprocess looks names without a slash up in PATH, as a shell does
            command = command if "/" in command else f"./{command}"
            done = shell(command, cwd, *arguments, CDPATH=cdpath)
            assert (done.returncode, done.stderr) == (0, ""), (command, cwd, cdpath)
            if runs is None:
                assert done.stdout == f"{clone}/.venv/bin/python\n"
            elif runs == "-m":
                lines = done.stdout.splitlines()
                assert all(line.startswith(f"<{clone}><-m>") for line in lines) and lines
                assert "<pytest>" in lines[-1]
            else:
                where = Path(cwd).resolve()
                assert done.stdout == f"<{where}><{clone}/{runs}><--an option>\n"


@pytest.fixture
def locked(clone):
    """locked(): make the clone read-only; gives a user who can't write it, None for oneself."""

    def lock():
        subprocess.run(["chmod", "-R", "a-w", clone], check=True)
        if not os.access(clone, os.W_OK):
            return None
        if os.getuid():
            pytest.skip("this file system has no permissions")
        return 65534  # root may write everything

    return lock


def test_a_read_only_clone_with_its_environment(clone, locked):
    """A .venv that was made there, or one of the user's own, without stamps."""
    for script, packages in (("train.sh", ""), ("train.sh", "1")):
        user = locked()
        done = shell(clone / script, "/", "--output", "x", user=user, HAS_PACKAGES=packages)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"</><{clone}/train.py><--output><x>\n"
        subprocess.run(["chmod", "-R", "u+w", clone], check=True)
        (clone / ".venv" / ".requirements.txt").unlink(missing_ok=True)


def test_a_read_only_clone_without_an_environment(clone, locked):
    other = clone.parent / "own python"
    shutil.move(clone / ".venv" / "bin" / "python", other)
    shutil.rmtree(clone / ".venv")
    user = locked()
    done = shell(clone / "train.sh", "/", user=user, PYTHON=str(other), HAS_PACKAGES="")
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    for word in ("can't be written", ".venv", "saved_models/", "PYTHON=", "--output", "Copy"):
        assert word in done.stderr
    assert "apt" not in done.stderr and not (clone / ".venv").exists()
    done = shell(clone / "train.sh", "/", user=user, PYTHON=str(other), HAS_PACKAGES="1")
    assert done.stdout == f"</><{clone}/train.py>\n"
