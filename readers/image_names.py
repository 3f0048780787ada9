"""Names of files: found apart from case and Unicode normalisation, and where the images lie.

docs/FORMATS.md section 1 says which names count as the same.
"""

import contextlib
import os
import unicodedata
from pathlib import Path
from typing import NamedTuple

IMAGE_FOLDER = "VQA_RAD Image Folder"  # the public release's
SHOWN = 5  # names of a folder's content in a message
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class ImageFiles(NamedTuple):
    """Where the images of a data set lie.

    paths: {name: path} of those that are there. faults: {name: reason} of the others.
    where: the folder, what it holds if images are missing, and what to do, for messages.
    """

    paths: dict
    faults: dict
    where: str


def fold(name):
    """The name without differences of case and Unicode normalisation."""
    return unicodedata.normalize("NFC", name.casefold())


def listing(folder):
    """The sorted names in a folder, hidden ones left out; none for a folder that can't be read."""
    with contextlib.suppress(OSError):
        return sorted(n for n in os.listdir(folder) if n[:1] != "." and n != "__MACOSX")
    return []


def shown(names):
    """Up to SHOWN names for a message, or "nothing"."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:60] for name in names[:SHOWN]) + rest or "nothing"


def matching(names, present, same=fold):
    """{name: those of `present` that it may mean}: itself alone, or all that are `same`."""
    exact, alike = set(present), {}
    for other in present:
        alike.setdefault(same(other), []).append(other)
    return {name: [name] if name in exact else alike.get(same(name), []) for name in names}


def find_images(folder, names):
    """The files of the images `names`, as ImageFiles.

    They lie in the one folder that has most of them: images/, VQA_RAD Image Folder/ or `folder`
    itself. A file that several names of the folder could mean is a fault, as a missing one is.
    """
    folder, fits = Path(folder), {}
    for place in _image_folders(folder):
        fits[place] = matching(names, listing(place))
    image_folder = max(fits, key=lambda place: sum(map(bool, fits[place].values())))
    paths, faults, present = {}, {}, listing(image_folder)
    for name, found in fits[image_folder].items():
        if len(found) == 1:
            paths[name] = image_folder / found[0]
        else:
            faults[name] = f"{' and '.join(found[:SHOWN])} may be meant" if found else "missing"
    missing = [name for name, fault in faults.items() if fault == "missing"]
    if not missing:
        return ImageFiles(paths, faults, str(image_folder))
    stems = matching(missing, present, same=lambda name: fold(name.rpartition(".")[0] or name))
    faults |= {n: f"missing; {shown(stems[n])} is there" for n in missing if stems[n]}
    return ImageFiles(paths, faults, _where(folder, image_folder, present, missing))


def _image_folders(folder):
    """Where the images may lie, the best place first."""
    wanted = {_loose(name): name for name in ("images", IMAGE_FOLDER)}
    named = [n for n in listing(folder) if _loose(n) in wanted and (folder / n).is_dir()]
    # a name that is written as it should be comes first
    named.sort(key=lambda name: name not in wanted.values())
    return [*(folder / name for name in named), folder]


def _loose(name):
    """`fold`, with `_` for a space."""
    return fold(name).replace("%20", "_").replace(" ", "_")


def _where(folder, image_folder, present, missing):
    """The end of a message about missing images: the folder's content, and what to do."""
    text = f"{image_folder}, which holds {shown(present)}"
    near = [place / name for place in {image_folder, folder} for name in listing(place)]
    near += [place / name for place in near for name in listing(place)]
    near += _image_folders(folder.parent)[:-1]
    near = [place for place in near if place != image_folder and place.is_dir()]
    found = {place: sum(map(bool, matching(missing, listing(place)).values())) for place in near}
    if best := max(found.values(), default=0):
        place = max(found, key=found.get)
        return f"{text}; {best:,} of the missing ones lie in {place}: move them"
    packed = [n for n in listing(folder) if n.lower().endswith(PACKED) and "glove" not in n.lower()]
    return f"{text}; {shown(packed)}: unpack it first" if packed else text
