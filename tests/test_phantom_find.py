"""tools/phantom_find.py: a set is drawn once a version; one that was drawn by hand stays."""

import pytest

from tools import phantom_MTPT
from tools.phantom_find import find_or_draw
from utils import PHANTOM_MARK, UserError

MARK = "Drawings: made by a test"


@pytest.fixture
def find(tmp_path):
    """find(version): the folder of a set of two parts and how often it was drawn."""
    source, drawn = tmp_path / "source.py", []

    def draw(folder):
        drawn.append(folder)
        for part in "ab":
            (folder / part).mkdir(parents=True)

    def find(version):
        source.write_text(version)
        return find_or_draw(tmp_path / "home", draw, MARK, [source], "ab"), len(drawn)

    return find


def test_each_version_is_drawn_once(find, tmp_path):
    folder = tmp_path / "home" / "phantom"
    assert find("1") == (folder, 1) == find("1")
    (folder / "stray").touch()
    assert find("2") == (folder, 2) == find("2")
    assert {path.name for path in folder.iterdir()} == {"a", "b"}
    # a set that is not whole
    (folder / "b" / PHANTOM_MARK).unlink()
    assert find("2") == (folder, 3)
    # a set of another seed, drawn by hand
    for part in "ab":
        (folder / part / PHANTOM_MARK).write_text(f"{MARK}\n")
    assert find("3") == (folder, 3)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["phantom"]


def test_an_interrupted_drawing_leaves_nothing(tmp_path):
    def draw(folder):
        folder.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_draw(tmp_path, draw, MARK, [__file__])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match="CMSA_CACHE"):
        phantom_MTPT.find_or_draw(tmp_path)
    tmp_path.chmod(0o755)
