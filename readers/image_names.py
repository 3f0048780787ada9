"""Where the images of a data set lie, and which file a record's image name means.

docs/FORMATS.md section 1 says which names count as the same.
"""

from pathlib import Path
from typing import NamedTuple

from readers.names import find_folders, fold, listing, loose, matching, shown
from readers.records import IMAGE_FOLDER

IMAGE_FOLDERS = ("images", IMAGE_FOLDER)
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class ImageFiles(NamedTuple):
    """The images of a data set.

    paths: {name: path} of those that are there. faults: {name: reason} of the others.
    where: the end of a message: the folder, what it holds if images are missing, what to do.
    """

    paths: dict
    faults: dict
    where: str


def find_images(folder, names, places=()):
    """The files of the images `names`, as ImageFiles.

    They lie in the one folder that has most of them: images/, VQA_RAD Image Folder/ or `folder`
    itself, or one of `places` before these. A name may have `/` for folders below. A name that
    several files fit is a fault, as a missing one is.
    """
    folder = Path(folder)
    places = [*places, *find_folders(folder, IMAGE_FOLDERS), folder]
    fits = {place: _fitting(place, names) for place in places}
    place = max(places, key=lambda place: sum(map(bool, fits[place].values())))
    paths, faults = {}, {}
    for name, found in fits[place].items():
        path = place / found[0] if found else None
        if len(found) == 1 and path.is_file():
            paths[name] = path
        elif len(found) > 1:
            faults[name] = f"either of {shown(found)} may be meant"
        else:
            faults[name] = "missing" if path is None else "a folder, or not a file"
    missing = [name for name, fault in faults.items() if fault == "missing"]
    where = _where(folder, place, missing) if missing else str(place)
    alike = _fitting(place, missing, _stem)
    faults |= {name: f"missing; {shown(alike[name])} is there" for name in missing if alike[name]}
    return ImageFiles(paths, faults, where)


def by_stem(folder):
    """{folded name without its ending: names} of what is in a folder."""
    stems = {}
    for name in listing(folder):
        stems.setdefault(fold(name.rpartition(".")[0]), []).append(name)
    return stems


def with_ending(name, stems):
    """The file of an image that a list calls without its ending, .jpg where there is none.

    stems: those of `by_stem`.
    """
    usual = name if "." in name else f"{name}.jpg"
    there = stems.get(fold(name), [])
    return usual if usual in there or not there else there[0]


def _fitting(place, names, same=fold):
    """{name: paths below `place` that it may mean}, whose last parts are alike by `same`.

    The folders in a name are found apart from case and Unicode normalisation.
    """
    by_folder = {}
    for name in names:
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    out = {name: [] for name in names}
    for within, members in by_folder.items():
        folders = [""]
        for part in filter(None, within.split("/")):
            folders = [
                f"{above}{fit}/"
                for above in folders
                for fit in matching([part], listing(place / above), fold)[part]
            ]
        for above in folders:
            lasts = {name: name.rpartition("/")[2] for name in members}
            fits = matching(lasts.values(), listing(place / above), same)
            for name, last in lasts.items():
                out[name] += [above + fit for fit in fits[last]]
    return out


def _stem(name):
    """A name without its ending, loosely."""
    return loose(name.rpartition(".")[0] or name)


def _where(folder, place, missing):
    """The end of a message on missing images: what `place` holds, and what to do."""
    text = f"{place}, which holds {shown(listing(place))}"
    near = [child / name for child in {place, folder} for name in listing(child)]
    near += [child / name for child in near for name in listing(child)]
    near += find_folders(folder.parent, IMAGE_FOLDERS)
    count = {
        other: sum(map(bool, _fitting(other, missing).values()))
        for other in near
        if other != place and other.is_dir()
    }
    if best := max(count.values(), default=0):
        other = max(count, key=count.get)
        return f"{text}; {best:,} of the missing images lie in {other}: move or copy them"
    packed = [name for name in listing(folder) if name.lower().endswith(PACKED)]
    packed = [name for name in packed if "glove" not in name.lower()]
    return f"{text}; {shown(packed)}: unpack it first" if packed else text
