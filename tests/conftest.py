"""What tests share: the real data beside the repository where there are some, and a small made-up data set."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT))


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
    """A phantom set of 60 images, prepared, in a folder of its own: its path. For whole runs that take seconds."""
    import phantom_RAD

    folder = tmp_path_factory.mktemp("tiny") / "phantom"
    phantom_RAD.draw(folder, seed=1, images=60)
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_strays(tmp_path_factory):
    """Whatever a test prepares beside read-only data goes to a temporary cache."""
    os.environ["CMSA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
