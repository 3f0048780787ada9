"""Where the phantom sets lie, and when they are drawn anew: one rule for all of them."""

import shutil
import tempfile
from pathlib import Path

from readers.digests import digest_files
from utils import PHANTOM_MARK, UserError, writable


def find_or_draw(home, draw, mark, sources, parts=(".",)):
    """The folder `home`/phantom, drawn when it is missing, not whole, or another version's.

    draw(folder) draws it, and the files `sources` are the version of the drawing. Each of its
    `parts` has a file PHANTOM_MARK, which begins with `mark`. A set drawn by hand, perhaps of
    another seed or size, stays. Raises UserError when `home` can't be written.
    """
    folder, current = home / "phantom", f"{mark} {digest_files(sources)}\n"
    marks = [folder / part / PHANTOM_MARK for part in parts]
    by_hand = f"{mark}\n"
    if all(
        path.is_file() and path.read_text(encoding="utf-8") in (current, by_hand) for path in marks
    ):
        return folder
    if not writable(home):
        raise UserError(
            f"{home} can't be written; set the environment variable CMSA_CACHE to a folder that can"
        )
    # an interrupted drawing leaves nothing behind
    with tempfile.TemporaryDirectory(prefix=".phantom-", dir=home) as temporary:
        new = Path(temporary) / "phantom"
        draw(new)
        for part in parts:
            (new / part / PHANTOM_MARK).write_text(current, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return folder
