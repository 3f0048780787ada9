"""GloVe's files: forms of their text, names and folders, and which of several is taken."""

import zipfile

import numpy as np
import pytest
from helpers import glove_line, prepare, processed, quiet

from readers.vectors import find_embedding, load_embedding
from utils import UserError


@pytest.fixture
def data(tmp_path, no_real_folders):
    """A small data set whose dictionary is: is, the, lung, normal."""
    return prepare(processed(tmp_path / "d"))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("gap", [b" ", b"  ", b"\t", b" \t "])
@pytest.mark.parametrize("end", [b"\n", b" \n", b"\r\n", b" \t\r\n"])
def test_text_with_marks_and_gaps(tmp_path, data, mark, gap, end):
    words = (b"lung", b". . .", b"is", b"at name@domain.com", b"is lung")
    numbers = {word: [b"%.2f" % (i + n / 100) for n in range(50)] for i, word in enumerate(words)}
    lines = [gap.join([word, *row]) + end for word, row in numbers.items()]
    (tmp_path / "glove.6B.50d.txt").write_bytes(mark + b"".join(lines))
    said = []
    table, _ = load_embedding(data, "glove", None, [tmp_path], said.append)
    assert said == ["GloVe 50d: 2 of 4 words found"]
    for row, word in ((2, b"lung"), (0, b"is")):
        assert np.allclose(table[row], np.array(numbers[word], float))


def test_text_whose_word_is_white_space_or_whose_code_is_utf_16(tmp_path, data):
    text = f"{glove_line('', 3)}\n{glove_line('lung', 1)}\n {glove_line('is', 2)}\n"
    path = tmp_path / "glove.6B.50d.txt"
    path.write_text(text)
    table, _ = load_embedding(data, "glove", None, [tmp_path], quiet)
    assert (table[2] == 1).all() and (table[0] == 2).all()
    path.write_text(glove_line("lung", 1), encoding="utf-16")
    with pytest.raises(UserError, match=f"{path} is in UTF-16"):
        load_embedding(data, "glove", None, [tmp_path], quiet)


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        "glove.6B/glove.6B.50d.txt",
        "GloVe.6B/glove.6b.50d.TXT",
        "glove/glove.6B/glove.6B.50d.txt",
        "glove.840B.300d/glove.840B.300d.txt",
        "glove.840B.300d.txt/glove.840B.300d.txt",
        "glove.840B.300d/glove.840B.300d.zip",
        "glove/Glove.840B.300d.zip",
        "glove.6B/glove.6B.zip",
    ],
)
def test_names_of_glove(tmp_path, data, place, below):
    path = (data.folder if below else data.folder.parent) / place
    path.parent.mkdir(parents=True)
    dim = 300 if "840B" in place else 50
    line = glove_line("lung", 7, dim)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            corpus = "840B" if dim == 300 else "6B"
            file.writestr(f"glove.{corpus}.{dim}d.txt", line)
            file.writestr("__MACOSX/._glove.6B.300d.txt", "x")
    else:
        path.write_text(line)
    table, description = find_embedding(data, "glove", quiet)
    assert table.shape == (4, dim) and (table[2] == 7).all()
    assert description.startswith(f"GloVe {dim}d from {path}, 1 of 4")


def test_the_order_of_several_tables(tmp_path, data):
    """The widest first; of one width 6B before 840B before 42B; of one corpus text before zip."""
    files = [
        ("glove.6B/glove.6B.200d.txt", 200),
        ("glove.42B.300d/glove.42B.300d.txt", 300),
        ("glove.840B.300d.zip", 300),
        ("glove.840B.300d.txt", 300),
        ("glove.6B.zip", 300),
        ("glove/glove.6B.300d.txt", 300),
    ]
    for number, (name, dim) in enumerate(files):
        path, line = data.folder / name, glove_line("lung", number, dim)
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as file:
                file.writestr(name.replace("6B.zip", "6B.300d.txt").replace(".zip", ".txt"), line)
        else:
            path.write_text(line)
        table, description = find_embedding(data, "glove", quiet)
        assert table.shape[1] == dim and (table[2] == number).all() and name in description
    np.save(data.folder / "glove6b_init_300d.npy", np.full((4, 300), 9.0))
    assert (find_embedding(data, "glove", quiet)[0] == 9).all()


def test_files_that_are_no_table_are_named(data):
    for name in ("glove.6B.300d.txt.gz", "glove.twitter.27B.200d.txt"):
        (data.folder / name).touch()
    lines = []
    assert find_embedding(data, "glove", lines.append) is None
    assert "; glove.6B.300d.txt.gz, glove.twitter.27B.200d.txt can't be used: word" in lines[0]
