"""The fuzzer's mutators: hypothesis strategies that damage whole files."""

import contextlib
import copy
import functools
import io
import json
import pickle
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from tests.fuzz.attempt import FOLDER, PIPE
from tests.fuzz.contents import FIELDS, PICTURES, as_json, as_parquet, dicom, made, resized, saved
from tests.fuzz.values import ARRAYS, CODES, NPYS, ODD, PICKLES, TENSORS, VALUES

PIECES = [b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0"]
SIDE = st.sampled_from(
    [0, 1, 9, 800, 8944, 65535, 65536, 100_000, 10**6, 2**31 - 1, 2**31, 2**32 - 1]
)
PICTURE = st.sampled_from(list(PICTURES))
STATE_VALUES = st.sampled_from([*TENSORS, *CODES]) | VALUES
ODD_NAMES = ["x.png", "\udcff.png", "n\nl.png", "x" * 250 + ".png", "a\nb", "\udcff", "..x", ".x"]
ODD_NAMES += ["c", "val", "val.txt", "classes.txt", "d/x.png"]
LINKS = ["nowhere", "/dev/zero", "/", "..", ".", "x.png", "/etc/passwd"]


@st.composite
def edited(draw, value, values=VALUES):
    """Nested lists and dictionaries with some parts replaced, removed, doubled or swapped."""
    if not isinstance(value, (dict, list)) or not value or not draw(st.integers(0, 19)):
        return draw(values)
    value, keys = copy.copy(value), list(value) if isinstance(value, dict) else range(len(value))
    key, how = draw(st.sampled_from(keys)), draw(st.integers(0, 14))
    if how == 0:
        del value[key]
    elif how == 1 and isinstance(value, list):
        value.append(value[key])
    elif how == 2:
        value[key] = value[draw(st.sampled_from(keys))]
    else:
        value[key] = draw(edited(value[key], values))
    return value if draw(st.integers(0, 7)) else draw(edited(value, values))


@st.composite
def mutated(draw, content):
    """Bytes with one to four pieces changed, cut out, doubled or zeroed.

    The start is hit more often than the rest.
    """
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(content), 1000)) | st.integers(0, len(content)))
        lengths = [0, 1, 1, 2, 4, 8, 64, len(content) // 2, len(content)]
        piece = content[at : at + draw(st.sampled_from(lengths))]
        size = min(len(piece), 8) or 4  # of the same length: such damage is the least seen
        same = [b"", piece * 2, bytes(len(piece)), b"\xff" * len(piece)]
        new = draw(st.sampled_from(same + PIECES) | st.binary(min_size=size, max_size=size))
        content = content[:at] + new + content[at + len(piece) :]
    return content


def edited_lines(content, read, write):
    """A file of lines whose rows, made by read(line), are edited and written by write(row)."""
    rows = edited([read(line) for line in content.decode().splitlines()])
    rows = rows.map(lambda rows: rows if isinstance(rows, list) else [rows])
    return rows.map(lambda rows: "\n".join(map(write, rows)).encode("utf-8", "surrogatepass"))


def join_row(mark, row):
    """A row of a text list with a mark between its columns."""
    return mark.join(map(str, row if isinstance(row, list) else [row]))


def in_own_form(suffix, content):
    """Hostile content in the form that the suffix of a file tells. Raises for another form."""
    if suffix == ".json":
        return edited(json.loads(content)).map(as_json)
    if suffix == ".jsonl":
        return edited_lines(content, json.loads, json.dumps)
    if suffix == ".csv":
        return edited_lines(content, lambda line: line.split(","), functools.partial(join_row, ","))
    if suffix == ".txt":
        return edited_lines(content, str.split, functools.partial(join_row, "\t"))
    if suffix == ".png":
        return PICTURE | st.builds(resized, PICTURE, SIDE, SIDE) | PICTURE.flatmap(mutated)
    if suffix == ".dcm":
        fields = st.lists(FIELDS, min_size=1, max_size=3)
        return st.builds(dicom, st.just(content), fields) | mutated(content)
    if suffix == ".npy":
        arrays = ARRAYS.map(lambda array: made(np.save, array))
        return st.sampled_from(NPYS) | arrays | mutated(content)
    if suffix == ".pkl":
        pickled = VALUES.map(pickle.dumps) | ARRAYS.map(pickle.dumps)
        return st.sampled_from(PICKLES) | pickled | mutated(content)
    if suffix == ".pth":
        state = torch.load(io.BytesIO(content), weights_only=True)
        return edited(state, STATE_VALUES).map(saved)
    if suffix == ".parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
        return edited(rows).map(as_parquet)
    raise ValueError(suffix)


def damaged(name, content):
    """What may stand in a file's place: hostile values, damaged bytes, or something odd."""
    own = mutated(content)
    with contextlib.suppress(Exception):  # content that was damaged before has no form
        own = in_own_form(Path(name).suffix, content)
    odd = st.sampled_from(ODD)
    choices = [own] * 7 + [mutated(content)] * 2 + [odd]
    return st.integers(0, 9).flatmap(lambda i: choices[i])


@st.composite
def cases(draw, variants, only):
    """A case: whole files, one or two of them damaged or moved.

    variants: lists of whole files; only: the files that begin so may be damaged.
    """
    files = dict(draw(st.sampled_from(variants)))
    for _ in range(draw(st.integers(1, 2))):
        contents = {name: content for name, content in files.items() if name.startswith(only)}
        names = sorted(name for name in contents if isinstance(contents[name], bytes))
        if not names:
            break
        ends = {Path(name).suffix for name in names}
        # a list more often than the many images
        ends = sorted(ends - {".png"}) * 3 + sorted(ends & {".png"})
        suffix = draw(st.sampled_from(ends))
        name = draw(st.sampled_from([name for name in names if Path(name).suffix == suffix]))
        if draw(st.integers(0, 7 if len(names) < 6 else 2)):
            files[name] = draw(damaged(name, files[name]))
        else:
            files = draw(moved(files, name, only))
    return files


@st.composite
def moved(draw, files, name, only):
    """Files where one, or a folder around it, is gone, renamed, doubled, or not a file."""
    spots = [str(spot) for spot in (Path(name), *Path(name).parents[:-1])]
    spot = draw(st.sampled_from([spot for spot in spots if spot.startswith(only)]))
    odd = st.sampled_from(ODD_NAMES).map(lambda odd: str(Path(spot).parent / odd))
    new = draw(st.just(spot) | odd)
    old = {name: files[name] for name in files if f"{name}/".startswith(f"{spot}/")}
    put = draw(
        st.sampled_from(["old", "nothing", FOLDER, PIPE])
        | st.sampled_from([b"", *LINKS, Path(new).name])
    )
    if new == spot or draw(st.booleans()):
        files = {name: content for name, content in files.items() if name not in old}
    if put == "old":
        return files | {new + name[len(spot) :]: content for name, content in old.items()}
    return files if put == "nothing" else files | {new: put}
