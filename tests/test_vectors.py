"""Word vectors: which table is taken, what is kept, and damage of every kind in one line."""

import os
import random
import shlex
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    flipped,
    glove_line,
    glove_zip,
    peak_memory,
    prepare,
    processed,
    quiet,
    record,
    shared,
)

import readers.vectors
from dataset_RAD import prepare as prepare_aloud
from readers.vectors import find_embedding, load_embedding
from utils import HERE, UserError


@pytest.fixture
def data(tmp_path, no_real_folders):
    """A small data set whose dictionary is: is, the, lung, normal."""
    return prepare(processed(tmp_path / "d"))


def glove(folder, text):
    """A folder with a table of 50 numbers a word."""
    (folder / "glove.6B.50d.txt").write_text(text)
    return folder


def table_of(data, name, folder, dim=None):
    """The table that is found in one folder."""
    return load_embedding(data, name, dim, [folder], quiet)[0]


def error_of_table(data, name, folder):
    """The one-line message of a word table that can't be used; nothing of it may be kept."""
    with pytest.raises(UserError) as caught:
        load_embedding(data, name, None, [folder], quiet)
    assert "\n" not in str(caught.value) and not list(data.prepared.glob("embedding*"))
    return str(caught.value)


def test_glove_of_the_development_split(development):
    lines, folder = [], shared("glove")
    table, description = load_embedding(
        development, "glove", None, [None, "/none", folder], lines.append
    )
    assert table.shape == (1055, 100) and table.dtype == np.float32
    assert "100d" in lines[0] and "100d" in description
    with open(folder / "glove.6B.100d.txt", encoding="utf-8") as file:
        lungs = next(line for line in file if line.startswith("lungs ")).split()[1:]
    assert np.allclose(table[development.dictionary.index("lungs")], np.array(lungs, float))
    again, _ = load_embedding(development, "glove", 100, [folder], lines.append)
    assert np.array_equal(again, table) and lines[0] == lines[1]
    assert load_embedding(development, "glove", 300, [folder]) is None
    assert load_embedding(development, "biowordvec", None, [folder]) is None


# ---------------------------------------------------------------- what is kept of a table


def test_glove_rows_header_and_cache(tmp_path, data):
    lines = []
    glove(
        tmp_path,
        f"2 50\n{glove_line('lung', 0.5)}\n{glove_line('other', 1)}\n{glove_line('is', 0.25)} \n",
    )
    table, _ = load_embedding(data, "glove", None, [tmp_path], lines.append)
    assert lines == ["GloVe 50d: 2 of 4 words found"]
    assert (table[2] == 0.5).all() and (table[0] == 0.25).all()
    assert 0 < np.abs(table[1]).mean() < 0.3
    assert np.array_equal(np.load(data.prepared / "embedding_glove_50d.npy"), table)
    glove(tmp_path, f"{glove_line('lung', 0.75)}\n")
    changed, _ = load_embedding(data, "glove", 50, [tmp_path], lines.append)
    assert (changed[2] == 0.75).all() and np.array_equal(changed[1], table[1])
    (data.prepared / "embedding_glove_50d.npy").write_bytes(b"damaged")
    again, _ = load_embedding(data, "glove", 50, [tmp_path], lines.append)
    assert np.array_equal(again, changed) and len(lines) == 3
    assert prepare_aloud(data.folder, log=lines.append) == data
    assert len(lines) == 3  # the other prepared files stay current


def test_a_flipped_bit_in_what_is_kept_means_reading_anew(tmp_path, data, monkeypatch):
    """Bits of the array and of the JSON file beside it, its number of words included."""
    glove(tmp_path, f"{glove_line('lung', 0.5)}\n{glove_line('is', 0.25)}\n")
    result = load_embedding(data, "glove", None, [tmp_path], quiet)
    reads, real = [], readers.vectors._read_embedding

    def read(*arguments):
        reads.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(readers.vectors, "_read_embedding", read)
    draw, tries = random.Random(0), 0
    for name in ("embedding_glove_50d.npy", "embedding_glove_50d.npy.json"):
        path = data.prepared / name
        content = path.read_bytes()
        some = draw.sample(range(8 * len(content)), 80)
        if path.suffix == ".json":  # all bits of the number of words
            some += [8 * content.rindex(b"2") + bit for bit in range(8)]
        for position in some:
            path.write_bytes(flipped(content, position))
            table, description = load_embedding(data, "glove", None, [tmp_path], quiet)
            tries += 1
            assert len(reads) == tries, position
            assert np.array_equal(table, result[0]) and description == result[1]
            assert path.read_bytes() == content
    load_embedding(data, "glove", None, [tmp_path], quiet)
    assert len(reads) == tries


def test_kept_rows_are_of_one_source_and_one_dictionary(tmp_path, data):
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        glove(tmp_path / name, glove_line("lung", value))
        os.utime(tmp_path / name / "glove.6B.50d.txt", (1e9, 1e9))
    assert (table_of(data, "glove", tmp_path / "a")[2] == 1).all()
    assert (table_of(data, "glove", tmp_path / "b")[2] == 2).all()
    other = prepare(processed(data.folder, [record(1, question="lung the is normal")]))
    assert (table_of(other, "glove", tmp_path / "b")[0] == 2).all()


def test_zip_is_read_anew_only_when_it_changed(tmp_path, data, monkeypatch):
    path = glove_zip(tmp_path / "glove.6B.zip", d50=glove_line("lung", 1))
    first = table_of(data, "glove", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(readers.vectors, "_read_embedding", None)
        assert np.array_equal(table_of(data, "glove", tmp_path), first)
    glove_zip(path, d50=glove_line("lung", 2) + "\n")
    assert (table_of(data, "glove", tmp_path)[2] == 2).all()


# ---------------------------------------------------------------- text and the authors' arrays


@pytest.mark.parametrize(
    "text",
    [
        glove_line("is", 1) + "\nword 1 2\n",
        glove_line("is", 1) + "\n" + glove_line("lung", "x") + "\n",
        glove_line("is", 1) + "\n" + glove_line("lung", "nan") + "\n",
        glove_line("is", 1) + "\n\n",
    ],
)
def test_bad_glove_line_is_named(tmp_path, data, text):
    assert "line 2" in error_of_table(data, "glove", glove(tmp_path, text))


def test_authors_tables(tmp_path, data):
    lines, path = [], tmp_path / "biowordvec_init_200d.npy"
    np.save(path, np.ones((data.ntoken, 200)))
    table, _ = load_embedding(data, "biowordvec", None, [tmp_path], lines.append)
    assert table.shape == (4, 200) and table.dtype == np.float32
    np.save(path, np.ones((7, 200)))
    assert load_embedding(data, "biowordvec", 200, [tmp_path], lines.append) is None
    assert "another dictionary" in lines[-1]
    for content in (np.array([{}], object), np.full((4, 200), np.nan), np.ones(4), None):
        if content is None:
            path.write_bytes(b"junk")
        else:
            np.save(path, content, allow_pickle=True)
        with pytest.raises(UserError, match="biowordvec_init"):
            load_embedding(data, "biowordvec", 200, [tmp_path], quiet)


# ---------------------------------------------------------------- GloVe's zip


def test_glove_zip_and_the_widest_of_all_forms(tmp_path, data):
    lines = []
    path = glove_zip(
        tmp_path / "d" / "glove" / "glove.6B.zip",
        d50=glove_line("lung", 1),
        d100=f"{glove_line('is', 2, 100)}\n{glove_line('lung', 3, 100)}\n",
        d20="other",
    )
    table, description = find_embedding(data, "glove", lines.append)
    assert lines == ["GloVe 100d: 2 of 4 words found"] and str(path) in description
    assert table.shape == (4, 100) and (table[0] == 2).all() and (table[2] == 3).all()
    assert sorted(os.listdir(path.parent)) == ["glove.6B.zip"]  # nothing is unpacked
    # a member without a last line feed
    assert (table_of(data, "glove", path.parent, 50)[2] == 1).all()
    (tmp_path / "data_RAD").mkdir()
    # a narrower table loses, of one width plain text is taken, a wider one wins
    for dim, value, expected in ((50, 4, 3), (100, 5, 5), (200, 6, 6)):
        text = glove_line("lung", value, dim)
        (tmp_path / "data_RAD" / f"glove.6B.{dim}d.txt").write_text(text)
        assert (find_embedding(data, "glove", quiet)[0][2] == expected).all()
    # the cache is where --download_glove may have to put it
    glove_zip(
        tmp_path / "cache" / "glove.6B.zip", zipfile.ZIP_STORED, d300=glove_line("lung", 7, 300)
    )
    assert find_embedding(data, "glove", quiet)[0].shape == (4, 300)


def test_without_a_table_a_warning_says_where_it_goes(data):
    lines = []
    assert find_embedding(data, "glove", lines.append) is None
    assert len(lines) == 1 and lines[0].startswith("WARNING: no glove vectors found")
    assert "data_RAD/glove.6B.300d.txt" in lines[0]
    # the command works in any folder
    python, script, option = shlex.split(lines[0].rsplit("zip: ", 1)[1])
    assert Path(python).is_absolute() and os.access(python, os.X_OK)
    assert Path(script) == HERE / "dataset_RAD.py" and option == "--download_glove"
    lines.clear()
    assert find_embedding(data, "biowordvec", lines.append) is None
    assert "--download_glove" not in lines[0]  # it gets another table


def test_damaged_zips(tmp_path, data):
    text = "".join(glove_line(word, i, 50) + "\n" for i, word in enumerate(("is", "lung", "the")))
    path = glove_zip(tmp_path / "glove.6B.zip", zipfile.ZIP_STORED, d50=text)
    whole = path.read_bytes()
    at = whole.index(b"the 2 2")  # a word that is not wanted: only the checksum can tell
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    for content in (
        b"",
        b"not a zip",
        whole[:-30],
        whole[len(whole) // 2 :],
        whole[:at] + b"thx" + whole[at + 3 :],
        bytes(encrypted),
    ):
        path.write_bytes(content)
        message = error_of_table(data, "glove", tmp_path)
        assert str(path) in message and "get it again" in message and "--download_glove" in message
    for method, members in (
        (zipfile.ZIP_DEFLATED, {"d60": text}),
        (zipfile.ZIP_LZMA, {"d50": text}),
    ):
        glove_zip(path, method, **members)
        assert "no glove.6B.300d.txt" in error_of_table(data, "glove", tmp_path)
    glove_zip(path, d50=text + "word 1 2\n")
    assert f"{path}, line 4" in error_of_table(data, "glove", tmp_path)
    draw = np.random.default_rng(0)
    for _ in range(300):  # whatever is damaged, it reads right or is one clear line
        content = bytearray(whole)
        for position in draw.integers(0, len(whole), 3):
            content[position] = draw.integers(256)
        path.write_bytes(content)
        try:
            dim = readers.vectors._tables("glove", [tmp_path])[0][0]
            readers.vectors._read_embedding(path, data.dictionary, dim)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_zip_bombs_need_little_memory(tmp_path, data):
    path, most = tmp_path / "glove.6B.zip", 8 << 20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("glove.6B.50d.txt", "w") as member:
            for _ in range(100):  # one line of 100 MB
                member.write(b"0 " * (1 << 19))
    assert path.stat().st_size < 1 << 20
    assert peak_memory(lambda: error_of_table(data, "glove", tmp_path)) < most
    with pytest.raises(UserError, match=f"{path}, line 1"):
        table_of(data, "glove", tmp_path)
    lines = (glove_line("other", 1) + "\n") * 150_000  # 15 MB
    glove_zip(path, d50=lines + glove_line("lung", 2))
    tables = []
    assert peak_memory(lambda: tables.append(table_of(data, "glove", tmp_path))) < most
    assert (tables[0][2] == 2).all()


# ---------------------------------------------------------------- word2vec's binary form


def binary(path, words, dim=8, between=b"", header=None, after=b""):
    """A table in word2vec's binary form; the numbers of word i are i + 0.5."""
    rows = [
        word.encode() + b" " + struct.pack(f"<{dim}f", *[i + 0.5] * dim)
        for i, word in enumerate(words)
    ]
    header = f"{len(words)} {dim}\n".encode() if header is None else header
    path.write_bytes(header + between.join(rows) + between + after)
    return path


@pytest.mark.parametrize("between", [b"", b"\n"])
@pytest.mark.parametrize("block", [48, 50, 100, 1 << 22])
def test_binary_table(tmp_path, no_real_folders, monkeypatch, between, block):
    data = prepare(processed(tmp_path / "d", [record(1, question="Is the lung naïve?")]))
    monkeypatch.setattr(readers.vectors, "BLOCK", block)
    words, lines = ["</s>", "lung", "", "lungs", "a" * 15, "naïve", "the", "zz"], []
    path = binary(tmp_path / "myBIOvec.BIN", words, between=between)
    (tmp_path / "other.bin").write_bytes(b"junk")  # its name lacks "bio"
    (tmp_path / "bio.bin").mkdir()
    table, description = load_embedding(data, "biowordvec", None, [tmp_path], lines.append)
    assert lines == ["BioWordVec 8d: 3 of 4 words found"] and str(path) in description
    assert table.shape == (4, 8) and table.dtype == np.float32
    assert [float(table[i, 7]) for i in (1, 2, 3)] == [6.5, 1.5, 5.5]
    assert (table[1:] == table[1:, :1]).all()
    assert 0 < np.abs(table[0]).mean() < 0.3  # "is" is not in it
    assert load_embedding(data, "glove", None, [tmp_path], quiet) is None
    monkeypatch.setattr(readers.vectors, "_read_embedding", None)  # kept
    again, _ = load_embedding(data, "biowordvec", 8, [tmp_path], lines.append)
    assert np.array_equal(again, table) and lines[0] == lines[1]


def test_damaged_binary_tables(tmp_path, data):
    path, words = tmp_path / "bio.bin", ["is", "lung", "other"]
    whole = binary(path, words).read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        message = error_of_table(data, "biowordvec", tmp_path)
        assert str(path) in message
        expected = "get it again" if end > 3 else "BioWordVec_PubMed_MIMICIII_d200.vec.bin"
        assert expected in message
    headers = [b"", b"3\n", b"3 8 1\n", b"3 x\n", b"-3 8\n", b"0 8\n", b"3 0\n"]
    headers += [b"3 99999999999\n", b"9" * 100 + b" 8\n", b"\xba\x16O/\n"]
    for header in headers:
        binary(path, words, header=header)
        message = error_of_table(data, "biowordvec", tmp_path)
        assert "not word vectors in word2vec's binary form" in message
    for change in ({"header": b"4 8\n"}, {"header": b"3 9\n"}):
        binary(path, words, **change)
        assert "get it again" in error_of_table(data, "biowordvec", tmp_path)
    last = len(whole) - 4 * 8 - 6  # where the third word begins
    path.write_bytes(whole[: last - 4] + struct.pack("<f", float("nan")) + whole[last:])
    assert "word 2" in error_of_table(data, "biowordvec", tmp_path)
    path.write_bytes(b"5 8\n" + bytes(20 << 20))  # no space anywhere
    assert "ends within word 1 of 5" in error_of_table(data, "biowordvec", tmp_path)
    binary(path, words, after=b"more")  # bytes behind the announced words do no harm
    assert load_embedding(data, "biowordvec", None, [tmp_path], quiet) is not None


def test_binary_table_needs_little_memory(tmp_path, data):
    path = tmp_path / "BioWordVec_PubMed_MIMICIII_d200.vec.bin"
    with open(path, "wb") as file:
        file.write(b"50000 200\n")
        for i in range(50_000):
            word = b"lung " if i == 49_999 else b"word%d " % i
            file.write(word + struct.pack("<f", 0.25) * 200)
    tables = []
    assert peak_memory(lambda: tables.append(table_of(data, "biowordvec", tmp_path))) < 20 << 20
    assert path.stat().st_size > 36 << 20 and (tables[0][2] == 0.25).all()
