"""Shared fixtures: the real data beside the repository, if any, and small made-up ones."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from organ_folders import abdomen, brain  # noqa: F401
from pretraining_runs import organ_sets, pretrained  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT))


def pytest_configure(config):
    """A DeprecationWarning that our own code causes is an error; other packages' stay warnings."""
    own = {path.stem for path in [*ROOT.glob("*.py"), *ROOT.glob("tests/*.py")]}
    own = "|".join(sorted(own | {"readers", "tools", "tests"}))
    config.addinivalue_line("filterwarnings", rf"error::DeprecationWarning:({own})(\.|$)")


@pytest.fixture
def parity():
    """The folder of parity fixtures; skips where it is absent."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the original's numbers are not shipped with the program")
    return folder


@pytest.fixture
def deterministic(parity):
    """The fixtures' module deterministic.py: fill_state_dict and inputs."""
    spec = importlib.util.spec_from_file_location("deterministic", parity / "deterministic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A phantom set of 60 images in a folder of its own, for whole runs that take seconds."""
    import tools.phantom_RAD

    folder = tmp_path_factory.mktemp("tiny") / "phantom"
    tools.phantom_RAD.draw(folder, seed=1, images=60)
    return folder


@pytest.fixture(scope="module")
def data(tiny):
    """The tiny set, prepared."""
    from dataset_RAD import find_data

    return find_data(tiny, log=lambda _: None)


@pytest.fixture(scope="session")
def development(tmp_path_factory):
    """The real development split, prepared in a folder of its own; skips where it is absent."""
    from helpers import prepare, shared

    folder = tmp_path_factory.mktemp("development")
    for name in ("trainset.json", "testset.json", "images"):
        (folder / name).symlink_to(shared("vqa_rad", name))
    return prepare(folder)


@pytest.fixture
def no_real_folders(tmp_path, monkeypatch):
    """Neither the real data_RAD nor the user's cache nor the network is touched."""
    monkeypatch.setenv("CMSA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dataset_RAD.DATA_RAD", tmp_path / "data_RAD")
    monkeypatch.setattr("readers.find.DATA_RAD", tmp_path / "data_RAD")
    monkeypatch.setattr("readers.vectors.DATA_RAD", tmp_path / "data_RAD")
    monkeypatch.setattr("readers.download.OSF_API", "http://127.0.0.1:9/none/")


@pytest.fixture(scope="session", autouse=True)
def no_strays(tmp_path_factory):
    """Whatever a test prepares beside read-only data goes to a temporary cache."""
    os.environ["CMSA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def heeded():
    """Both signals as in a terminal: {signal: its handler}.

    A process that a shell starts in the background inherits an ignored SIGINT.
    """
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield handlers
    for number, handler in before.items():
        signal.signal(number, handler)


# a small model on few words of a question: whole runs that take seconds
SMALL = "--num_hid 32 --question_len 5 --batch_size 64 --gpu -1 --no-mtpt".split()
SMALL += "--encoder efficientnet_lite0 --precision float32".split()
CHANGED = {"num_hid": 32, "question_len": 5, "batch_size": 64}  # in the paper's recipe
CHANGED |= {"mtpt": False, "encoder": "efficientnet_lite0", "epochs": 2}
ENTRY_POINTS = {"train.py": "train", "test.py": "test"}


def call(script, *arguments, **environment):
    """A script in a process of its own, as from a shell: the finished process."""
    command = [sys.executable, ROOT / script, *map(str, arguments)]
    environment = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def run_script(script, *arguments):
    """An entry point's main() in this process; raises what it raises."""
    before, sys.argv = sys.argv, [script, *map(str, arguments)]
    try:
        return importlib.import_module(ENTRY_POINTS[script]).main()
    finally:
        sys.argv = before


@pytest.fixture
def fails(capfd):
    """The one line on stderr of an entry point, called in this process, that must exit with 2."""
    from utils import run_main

    def call_in_process(script, *arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main(lambda: run_script(script, *arguments))
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
        assert stop.value.code == 2 and len(lines) == 1
        return lines[0]

    return call_in_process


@pytest.fixture(scope="session")
def run(tiny, tmp_path_factory):
    """A run of the paper's recipe on the tiny set, two epochs, from a shell: its folder."""
    output = tmp_path_factory.mktemp("runs") / "first"
    options = ["--RAD_dir", tiny, "--epochs", 2, "--output", output, "--save_every", 1]
    options.append("--keep_optimizer")
    done = call("train.py", *options, *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"test.sh --input {output}")
    assert "PHANTOM SET IS IN USE" in done.stdout
    return output
