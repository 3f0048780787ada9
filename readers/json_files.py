"""JSON files that may be missing, damaged or hostile."""

import json
from pathlib import Path

from utils import VERSION, UserError

MAX_JSON = 64 << 20  # bytes: bounds the memory; no file of VQA-RAD has 4 MB


def read_json(path):
    """Read a JSON file. Raises UserError when it is missing, unreadable or not JSON."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe or a device never ends
            raise UserError(f"{path} is not a file")
        if (size := path.stat().st_size) > MAX_JSON:
            raise UserError(
                f"{path} has {size >> 20} MiB: at most {MAX_JSON >> 20} MiB are read as JSON"
            )
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        # ValueError: no JSON, no text, a number of 5,000 digits
        raise UserError(
            f"{path} is not valid JSON ({error}); it may be truncated, get it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror})") from None


def check_version(version, path):
    """Raise UserError for a file of another version of this program, or of no version."""
    if type(version) is not int or version != VERSION:  # a checkpoint may hold a tensor
        raise UserError(
            f"{path} is of version {str(version)[:40]}, and this program reads version {VERSION}: "
            "make it anew, or use the program that wrote it"
        )
