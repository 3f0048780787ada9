"""Hostile values for the fuzzer: texts, numbers, pickles, arrays and tensors."""

import math
import pickle
import struct
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.fuzz.attempt import CODE
from utils import SIZE

BIG = 1 << 20  # characters of a long text
NASTY = ["", " ", "\0", "a\nb", "\u2028\x1b[2J\r", "\ud800", "a\tb", "\uff11", "\U0001f600" * 9]
NASTY += ["../x.png", "..", ".", "/dev/zero", "/etc/passwd", "away/passwd", "./image0.png"]
NASTY += ["NULL", "nan", "-1", "1e999", "0", "1", "true", "-0.5", "1_0", "x" * 300, "9" * 5000]
NASTY += ["<script>alert(1)</script>", "{{ 7 * 7 }}", "$\\frac{", "caf\u00e9"]
# these mean something
NASTY += ["image0.png/", "image1.png", "mask1.png", "loop.png", "pipe.png", "folder.png"]
NASTY += ["pic0.png", "freeform", "para", "frame", "test_para", "ABD", "OPEN", "closed "]
NASTY += ["CMSA", "BAN", "LSTM", "resnet34", "paper", "tuned", "clean"]
NUMBERS = [0, 1, 2, -1, 4, 5, 0.5, -0.0, 255, 10**6, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400]
NUMBERS += [1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf]
SCALARS = st.one_of(
    st.sampled_from([None, True, False, *NUMBERS]),
    st.sampled_from(NASTY),
    st.sampled_from(NASTY),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=12),  # halves of characters too
)
KEYS = st.sampled_from([*NASTY[:8], "a", "b"])
VALUES = SCALARS | st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)

ODD = [  # contents of a file of any kind
    b"",
    bytes(999),
    b"\xff\xfe[\0]\0",
    b"\xef\xbb\xbf[]",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" + b"9" * 5000 + b"]",
    b"1e999",
    b"NaN",
    b"null",
    b'"\\ud800"',
    b'{"a": 1, "a": 2}',
    b"[1,]",
    b'"\xc3"',
    b"[[1, 2], [3]]",
    b'"' + b"x" * BIG + b'"',
    b"[" + b"0," * (BIG // 8) + b"0]",
    b"a\na",
    b"0\n1\n2",
    b"x" * BIG + b"\ny",
    b"\xff\n\0",
    b"b\r\x1b[2J\n" * 3,
    b"\0 \0",
    b"a b c",
    b"image4.png mask4.png",
    b"4 999\n",
    b"4 0\n",
    b"\xef\xbb\xbfloop.png 1",
    "image0.png 1".encode("utf-16"),
    b"is " + b"9" * 5000,
    b"is" + b" 1e999" * 50,
    b"999999999999999999 3\nis ",
    b"PK\3\4junk",
    b"PK\5\6" + bytes(18),
    b"P3\n2 1\n255\n1 2 3 4 5 6\n",
]

CALLS = [  # pickled, they run when the pickle is loaded as usual
    type("Call", (), {"__reduce__": lambda self, call=call: call})()
    for call in (
        (exec, (CODE,)),
        (eval, (f"exec({CODE!r})",)),
        (getattr, ("x", "upper")),
        (bytearray, (2**40,)),
    )
]
PICKLES = [pickle.dumps(call, protocol) for call in CALLS for protocol in (0, 2, 4)]
PICKLES += [  # to be refused too
    b"cbuiltins\nexec\n(S'" + CODE.encode() + b"'\ntR.",
    b"c_codecs\nencode\n(N}S'__defaults__'\n(tstb.",
    b"c_codecs\nencode\nS'globals'\nb.",
    b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".",
    b"\x80\x04]\x94h\0a.",
    b"I" + b"9" * 5000 + b"\n.",
    b"\x80\x02U\x01x" * 1000 + b".",
    b"P0\n.",
    b"cnumpy.core.multiarray\n_reconstruct\n(K\1tb.",
    b"\x80\x05\x97.",
    b"\x80\x04]" + b"2\x94]\x94(h\0h\0e0" * 40 + b".",
]
# these claim much memory
PICKLES += [b"\x80\x04]r" + struct.pack("<I", size) + b"." for size in (2**28, 2**31)]
PICKLES += [b"\x80\x04\x8e" + struct.pack("<Q", size) + b"x." for size in (2**33, 2**40)]

SHAPES = [(3, 50), (3, 200), (3, 300), (1, 3, SIZE, SIZE), (2, 3, SIZE, SIZE)]
ARRAYS = st.one_of(
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=3)),
    st.builds(
        np.full,
        st.sampled_from(SHAPES),
        st.sampled_from([0, 6e4, math.nan, math.inf]),
        st.sampled_from(["f2", "f4", "f8", ">f4", "c8"]),
    ),
)
HEADS = [
    f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    for shape, kind in (
        ("(10**12,)", "<f4"),
        ("(1000000000000, 300)", "<f4"),
        ("(900000000, 2)", "<f4"),
        ("(" * 300, "<f4"),
        ("(-1, 300)", "<f4"),
        ("(3, 300)", "|O"),  # with code
    )
]
NPYS = [
    b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + pickle.dumps(CALLS[0]) + bytes(64)
    for head in HEADS
]

TENSORS = [
    torch.zeros(()),
    torch.full((2, 3), math.nan),
    torch.zeros(0),
    torch.ones(2, 3, dtype=torch.bool),
    torch.zeros(1, dtype=torch.uint8),
    torch.zeros(1, dtype=torch.float64).expand(30_000, 30_000),
    torch.zeros(2**20, 2**20, device="meta"),
    torch.eye(3).to_sparse(),
    torch.zeros(2, 3, dtype=torch.complex64),
    torch.zeros(2, dtype=torch.bfloat16),
    torch.nn.Parameter(torch.zeros(2)),
    torch.float32,
]
CODES = [*CALLS, Path("x"), object]  # what no checkpoint may hold
