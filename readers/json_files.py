"""JSON files that may be missing, damaged or hostile."""

import contextlib
import json
import re
from pathlib import Path

from utils import VERSION, UserError, reason

MAX_JSON = 64 << 20  # bytes of a list: bounds the memory; no file of VQA-RAD has 4 MB
SPACE = re.compile(r"[ \t\r\n]*")
KINDS = {  # what other files begin with
    b"PK\3\4": "it is a zip file or a spreadsheet; unpack it, or get the JSON file",
    b"\x1f\x8b": "it is packed by gzip; unpack it first",
    b"PAR1": "it is a parquet file; get the JSON file",
    b"<": "it is a web page or XML; get the file itself",
    b"version https://git-lfs": "it is a pointer of Git LFS; get the file by git lfs pull",
}


def read_bytes(path, then=""):
    """The bytes of a file that may be missing or huge, a Path. Raises UserError.

    then: the end of the message on a file that is too large.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device never ends
            raise UserError(f"{path} is not a file")
        if (size := path.stat().st_size) > MAX_JSON:
            most = f"at most {MAX_JSON >> 20} MiB are read{then}"
            raise UserError(f"{path} has {size >> 20} MiB: {most}")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None


def read_json(path, lines=False):
    """Read a JSON file. Raises UserError when it is missing, unreadable or not JSON.

    lines: of several objects, one behind the other as in JSON Lines, a list is made.
    """
    path = Path(path)
    data = read_bytes(path, " as JSON")
    try:
        return _values(_decode(data), lines)
    except json.JSONDecodeError as error:
        end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        todo = "it ends early, get it again" if end else "correct it there"
        raise UserError(f"{path} is not valid JSON ({error}); {todo}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        # ValueError: no text, a number of 5,000 digits
        raise UserError(f"{path} is not valid JSON: {reason(error, 400)}") from None


def _decode(data):
    """The text of a JSON file's bytes. Raises ValueError that names any other form."""
    encoding = json.detect_encoding(data)
    if kind := next((kind for start, kind in KINDS.items() if data.startswith(start)), None):
        raise ValueError(kind)
    with contextlib.suppress(UnicodeError):
        text = data.decode(encoding)
        if encoding.startswith("utf-8"):
            return text
        if text.lstrip("\ufeff \t\r\n")[:1] in ("[", "{"):
            raise _other(encoding.upper().replace("-SIG", ""), "")
    if re.search(rb"[\0-\x08\x0e-\x1f]", data) or data.lstrip()[:1] not in (b"[", b"{"):
        raise ValueError("it is not text; get it again")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end == len(data) and error.reason.startswith("unexpected end"):
            raise ValueError("it ends within a character; get it again") from None
        line = data.count(b"\n", 0, error.start) + 1
        place = f", as byte 0x{data[error.start]:x} in line {line} shows"
    if re.search(rb"[\x80-\xff]{4}", data):  # letters with accents stand alone
        raise _other("GBK", f", CP1251 or another that is not for Latin letters{place}")
    if re.search(rb"[\x80-\x9f]", data):
        raise _other("CP1252", f" (Windows-1252){place}")
    raise _other("CP1252", f" (Windows-1252) or Latin-1 (ISO-8859-1){place}")


def _other(encoding, more):
    """A ValueError for a text in another encoding."""
    return ValueError(
        f"its encoding is {encoding}{more}, not UTF-8; convert it, for example by "
        f"iconv -f {encoding} -t UTF-8 OLD > NEW"
    )


def _values(text, lines):
    """The value of a JSON text; with `lines` the list of several objects. Raises ValueError."""
    decoder, values, at = json.JSONDecoder(), [], 0
    while (at := SPACE.match(text, at).end()) < len(text):
        if values and not (lines and isinstance(values[-1], dict)):
            raise json.JSONDecodeError("Extra data", text, at)
        value, at = decoder.raw_decode(text, at)
        values.append(value)
    if not values:
        raise ValueError("it is empty; get it again")
    return values[0] if len(values) == 1 else values


def check_version(version, path):
    """Raise UserError for a file of another version of this program, or of no version."""
    if type(version) is not int or version != VERSION:  # a checkpoint may hold a tensor
        raise UserError(
            f"{path} is of version {str(version)[:40]}, and this program reads version {VERSION}: "
            "make it anew, or use the program that wrote it"
        )
