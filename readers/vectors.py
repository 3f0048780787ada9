"""Tables of word vectors: GloVe as text or zip, BioWordVec's binary form, the authors' arrays.

docs/FORMATS.md section 1 says which files are looked for, and where.
"""

import codecs
import contextlib
import io
import os
import re
import shlex
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from readers.digests import digest_bytes, digest_files
from readers.json_files import read_json
from readers.names import fold, listing, shown
from readers.prepared import PREPARED_VERSION
from readers.records import DATA_RAD
from utils import HERE, UserError, atomic_path, cache_base, reason, write_json

EMBEDDING_DIMS = {"glove": 300, "biowordvec": 200}  # the paper's
GLOVE_DIMS, GLOVE_TEXT, GLOVE_ZIP = (300, 200, 100, 50), "glove.6B.{}d.txt", "glove.6B.zip"
# of one width the table of the first corpus is taken, and of one corpus the first form
GLOVE_CORPORA, FORMS = ("6b", "840b", "42b"), (".npy", ".txt", ".zip", ".bin")
GLOVE_NAME = re.compile(
    rf"glove\.({'|'.join(GLOVE_CORPORA)})(?:\.({'|'.join(map(str, GLOVE_DIMS))})d)?(\.txt|\.zip)?"
)
# works in any folder
DOWNLOAD_GLOVE = shlex.join([sys.executable, str(HERE / "dataset_RAD.py"), "--download_glove"])
LONGEST, BLOCK = 1 << 20, 1 << 22  # bytes: of a line of text, and read at once of a binary table


class Source(NamedTuple):
    """One kind of word vectors: its title, the authors' array, and the public files."""

    title: str
    array: str
    files: str


SOURCES = {
    "glove": Source(
        "GloVe",
        "glove6b_init_300d.npy",
        "glove.6B.300d.txt, 200d or 100d, glove.6B.zip or glove.840B.300d.zip",
    ),
    "biowordvec": Source(
        "BioWordVec",
        "biowordvec_init_200d.npy",
        "BioWordVec_PubMed_MIMICIII_d200.vec.bin",
    ),
}


def find_embedding(data, name, log=print, dim=None):
    """`load_embedding` of the widest table that is found, or None with a warning.

    dim: the width that is wanted, if only one will do. Looks in the data's folder, in data_RAD,
    for each in folders called `name` or as GloVe's files (glove.6B/) in it or beside it, and in
    the cache.
    """
    folders = [
        place
        for base in (data.folder, DATA_RAD)
        for place in (base, *_table_folders(base, name), *_table_folders(base.parent, name))
    ]
    vectors = load_embedding(data, name, dim, [*folders, cache_base()], log)
    if vectors is None:
        files = [place / entry for place in folders for entry in listing(place)]
        other = [p.name for p in files if fold(p.name).startswith(name) and p.is_file()]
        there = f"; {shown(other)} can't be used" if other else ""
        todo = f"; to get the first zip: {DOWNLOAD_GLOVE}" if name == "glove" else ""
        log(
            f"WARNING: no {name} vectors found ({DATA_RAD}/{SOURCES[name].files}){there}: word "
            f"embeddings start random{todo}"
        )
    return vectors


def table_or_zeros(data, name):
    """Word vectors (ntoken, dim) as find_embedding finds them, zeros (ntoken, 1) without any."""
    found = find_embedding(data, name, lambda _: None)
    return found[0] if found else np.zeros((data.ntoken, 1), np.float32)


def _table_folders(base, name, depth=1):
    """The folders in `base` that are called `name` or as GloVe's files, and such in them."""
    folders = []
    for entry in listing(base):
        glove = name == "glove" and GLOVE_NAME.fullmatch(fold(entry))
        if (glove or fold(entry) == name) and (base / entry).is_dir():
            folders.append(base / entry)
            folders += _table_folders(base / entry, name, depth - 1) if depth else []
    return folders


def load_embedding(data, name, dim, folders, log=print):
    """(float32 (ntoken, dim) in dictionary order, description), or None without a table.

    name: "glove" or "biowordvec". dim: None takes the widest table in `folders`. The authors'
    array is used if it has ntoken rows. Words that a table lacks get small random rows, the same
    each time. The rows are kept among the prepared files. Raises UserError for a table that
    can't be read.
    """
    title = SOURCES[name].title
    for width, path in _tables(name, folders):
        if dim is not None and width != dim:
            continue
        if path.suffix != ".npy":
            table, found = _cached_embedding(data, name, width, path)
            log(f"{title} {width}d: {found:,} of {data.ntoken:,} words found")
            return table, f"{title} {width}d from {path}, {found:,} of {data.ntoken:,} words"
        if (table := _authors_embedding(path, data.ntoken, width, log)) is not None:
            description = f"{title} {width}d, the authors' table {path}"
            log(description)
            return table, description
    return None


def _tables(name, folders):
    """[(dim, path)] of the tables in `folders`, the widest first. Raises UserError.

    Of one width the authors' array comes first, then the order of GLOVE_CORPORA and of FORMS.
    """
    tables = []
    for folder in dict.fromkeys(Path(folder) for folder in folders if folder):
        tables.append((EMBEDDING_DIMS[name], 0, folder / SOURCES[name].array))
        files = [folder / entry for entry in listing(folder)]
        for path in files if name == "glove" else ():
            match = GLOVE_NAME.fullmatch(fold(path.name))
            if not match or not match[3] or not path.is_file():
                continue
            rank = 1 + GLOVE_CORPORA.index(match[1])
            if match[3] == ".zip":
                with open_glove_zip(path) as (_, members):
                    tables += [(dim, rank, path) for dim in members]
            elif match[2]:
                tables.append((int(match[2]), rank, path))
        for path in files if name == "biowordvec" else ():
            if re.search(r"bio.*\.bin$", path.name.lower()) and path.is_file():
                with _open_table(path) as file:
                    tables.append((_binary_header(file, path)[1], 0, path))
    tables = [table for table in tables if table[2].is_file()]
    tables.sort(key=lambda table: (-table[0], table[1], FORMS.index(table[2].suffix.lower())))
    return [(dim, path) for dim, _, path in tables]


def _authors_embedding(path, ntoken, dim, log):
    """The authors' array, or None when it belongs to another dictionary. Raises UserError."""
    try:
        # mapped: a shape larger than the file takes no memory
        table = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # numpy raises many types for damaged files
        raise UserError(
            f"{path} can't be read as a numpy array ({reason(error)}); get it again or take it out"
        ) from None
    if isinstance(table, np.ndarray) and table.dtype.kind == "f" and table.ndim == 2:
        table = np.array(table, np.float32)  # read into memory
    else:
        table = None
    if table is None or not np.isfinite(table).all():
        raise UserError(f"{path} must hold a table of finite numbers; get it again or take it out")
    if table.shape != (ntoken, dim):
        log(
            f"{path} is for another dictionary (it has shape {table.shape}, not "
            f"{(ntoken, dim)}): not used"
        )
        return None
    return table


def _cached_embedding(data, name, dim, path):
    """(table, number of words found) from a text, zip or binary table.

    The prepared .npy stands in for it while the table, the dictionary and the .npy itself are
    unchanged. A JSON file beside the .npy holds the digests that tell.
    """
    kept = data.prepared / f"embedding_{name}_{dim}d.npy"
    beside, stat = kept.with_name(f"{kept.name}.json"), path.stat()
    source = digest_bytes(
        PREPARED_VERSION,
        str(path.resolve()),
        f"{stat.st_size} {stat.st_mtime_ns}",
        "\n".join(data.dictionary),
    )

    def about(found):  # the digest of the content guards the number of words too
        content = digest_bytes(f"{found}", digest_files([kept]))
        return {"source digest": source, "content digest": content, "words found": found}

    with contextlib.suppress(OSError, UserError, TypeError, KeyError):
        known = read_json(beside)
        if known == about(known["words found"]):
            return np.load(kept, allow_pickle=False), known["words found"]
    table, found = _read_embedding(path, data.dictionary, dim)
    with contextlib.suppress(OSError):  # a read-only folder only costs the time of reading again
        with atomic_path(kept) as temporary, open(temporary, "wb") as file:
            np.save(file, table)
        write_json(beside, about(found))
    return table, found


def _read_embedding(path, words, dim):
    """(float32 (len(words), dim), number of words found): the rows of `words`, in one pass."""
    rows = {word.encode(): i for i, word in enumerate(words)}
    table = np.random.default_rng(0).normal(0, 0.1, (len(words), dim)).astype(np.float32)
    read, found = _binary_rows if path.suffix.lower() == ".bin" else _text_rows, set()
    with _open_table(path, dim) as file:
        for row, values in read(file, path, rows, dim):
            table[row] = values
            found.add(row)
    return table, len(found)


@contextlib.contextmanager
def _open_table(path, dim=None):
    """Give a table's bytes; of a zip those of the member of width `dim`, unpacked on the way.

    Raises UserError.
    """
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix.lower() == ".zip":
                archive, members = stack.enter_context(open_glove_zip(path))
                yield stack.enter_context(io.BufferedReader(archive.open(members[dim]), LONGEST))
            else:
                yield stack.enter_context(open(path, "rb"))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None


@contextlib.contextmanager
def open_glove_zip(path):
    """Give (the open archive, {dim: member}). Any error of zipfile becomes a UserError."""
    damage = (zipfile.BadZipFile, zlib.error, struct.error, EOFError)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {
                int(match[2]): member
                for member in archive.infolist()
                if (match := GLOVE_NAME.fullmatch(fold(Path(member.filename).name)))
                and match[2]
                and match[3] == ".txt"
                # zipfile bounds the memory of these two methods alone
                and member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            }
            if not members:
                raise zipfile.BadZipFile(
                    f"no {GLOVE_TEXT.format(300)}, 200d, 100d or 50d in it, nor that of "
                    "glove.840B, stored or deflated"
                )
            yield archive, members
    except (*damage, RuntimeError, ValueError, OSError) as error:
        why = "it ends early" if isinstance(error, EOFError) else reason(error, 120)
        raise UserError(
            f"{path} can't be read ({why}); get it again ({DOWNLOAD_GLOVE}) or take it out"
        ) from None


def _text_rows(file, path, rows, dim):
    """Yield (row, (dim,) numbers) of the lines "word v1 ... vd" whose word is in `rows`.

    White space of any length is between the numbers, and a word may hold some too. No more than
    one line is in memory. Raises UserError.
    """
    number = 0
    for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
        if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(f"{path} is in UTF-16, not UTF-8: get it again, or convert it")
        parts = line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").rsplit(None, dim)
        if number == 1 and len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit():
            continue  # word2vec's header: number of words, dimension
        if len(parts) == dim and line[:1].isspace():
            continue  # white space is the word
        try:
            if len(parts) != dim + 1 or len(line) > LONGEST:
                raise ValueError
            if (word := parts[0].lstrip()) in rows:
                yield rows[word], _finite(np.array(parts[1:], np.float32))
        except ValueError:
            raise UserError(
                f"{path}, line {number}: not a word and {dim} numbers; the file may be truncated, "
                "get it again"
            ) from None
    if not number:
        raise UserError(f"{path} is empty; get it again")


def _binary_header(file, path):
    """(number of words, dim) from the first line of word2vec's binary form. Raises UserError."""
    line = file.readline(64)
    parts = line.split()
    numbers = len(parts) == 2 and all(part.isdigit() and int(part) for part in parts)
    if not line.endswith(b"\n") or not numbers or int(parts[1]) > 10_000:
        raise UserError(
            f"{path} is not word vectors in word2vec's binary form (the public file is "
            f"{SOURCES['biowordvec'].files}); get that or take this out"
        )
    return int(parts[0]), int(parts[1])


def _binary_rows(file, path, rows, dim):
    """Yield (row, (dim,) numbers) of the words in `rows`, from word2vec's binary form.

    It holds each word, a space, dim float32 and perhaps a line feed. At most two blocks are in
    memory. All announced words are read, so a truncated file is noticed. Raises UserError.
    """
    (count, _), width, data, at = _binary_header(file, path), 4 * dim, b"", 0
    damaged = "the file is truncated or damaged, get it again"
    size = os.fstat(file.fileno()).st_size
    units = {"unit": "B", "unit_scale": True, "leave": False, "disable": None}
    with tqdm(total=size, desc=path.name, **units) as bar:
        for number in range(1, count + 1):
            space = data.find(b" ", at)
            if space < 0 or space + width >= len(data):
                bar.update(at)
                data, at = data[at:] + file.read(BLOCK), 0
                space = data.find(b" ")
                if space < 0 or space + width >= len(data):
                    raise UserError(f"{path} ends within word {number:,} of {count:,}: {damaged}")
            word, at = data[at:space].lstrip(b"\n"), space + 1 + width
            if word in rows:
                try:
                    yield rows[word], _finite(np.frombuffer(data, "<f4", dim, space + 1))
                except ValueError:
                    raise UserError(
                        f"{path}, word {number:,}: not {dim} finite numbers; {damaged}"
                    ) from None


def _finite(values):
    """`values`. Raises ValueError when they are not all finite."""
    if not np.isfinite(values).all():
        raise ValueError
    return values
