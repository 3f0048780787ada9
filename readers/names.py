"""Names of files and folders, found apart from case, Unicode normalisation and `_` for a space.

docs/FORMATS.md section 1 says which names count as the same.
"""

import contextlib
import os
import unicodedata

from utils import UserError, shorten

SHOWN = 5  # names of a folder's content in a message
FOLDERS = 1000  # in a folder that are looked at


def fold(name):
    """The name without differences of case and Unicode normalisation."""
    return unicodedata.normalize("NFC", name.casefold())


def loose(name):
    """The same as `fold`, with `_` for a space."""
    return fold(name).replace("%20", "_").replace(" ", "_")


def slashed(name, folder=None):
    """A file's name with `/` for Windows's `\\`.

    With `folder` the name of a file that is there stays: on other systems names may have a `\\`.
    """
    there = folder and "\\" in name and os.path.isfile(folder / name)
    return name if there else name.replace("\\", "/")


def listing(folder):
    """The sorted names in a folder. A folder that can't be read has none.

    The "._" files that macOS puts beside others are left out.
    """
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(folder) if name[:2] != "._")
    return []


def shown(names):
    """Up to SHOWN names for a message, hidden ones left out, or "nothing"."""
    names = [name[:60] for name in names if name[:1] != "." and name != "__MACOSX"]
    return shorten(names, SHOWN) or "nothing"


def matching(names, present, same):
    """{name: those of `present` that it may mean}.

    That is the name itself if it is present, or else all for which `same` gives the same.
    """
    exact, alike = set(present), {}
    for other in present:
        alike.setdefault(same(other), []).append(other)
    return {name: [name] if name in exact else alike.get(same(name), []) for name in names}


def find_file(folder, name):
    """The path of the file `name` in `folder`, or of one that is called so loosely, or None.

    Raises UserError when two files fit.
    """
    fits = matching([name], listing(folder), loose)[name]
    paths = [folder / fit for fit in fits if (folder / fit).is_file()]
    if len(paths) > 1:
        found = " and ".join(path.name for path in paths)
        raise UserError(f"{folder} holds {found}: either may be {name}; take one of them out")
    return paths[0] if paths else None


def find_folders(folder, names):
    """The folders in `folder` that are called as `names`, exactly or loosely; exact ones first."""
    wanted = {loose(name) for name in names}
    found = [name for name in listing(folder) if loose(name) in wanted]
    found.sort(key=lambda name: name not in names)
    return [folder / name for name in found if (folder / name).is_dir()]


def places(folder):
    """The folder and those in it, hidden ones left out: a part of a set may be in each."""
    names = [name for name in listing(folder)[:FOLDERS] if name[:1] != "."]
    return [folder, *(folder / name for name in names if (folder / name).is_dir())]
