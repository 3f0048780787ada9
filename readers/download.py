"""Downloads: VQA-RAD's public release from OSF, and GloVe from Stanford.

Finished files are kept, and partial ones (.part) are continued.
"""

import contextlib
import functools
import hashlib
import os
import threading
import time
from pathlib import Path

from tqdm import tqdm

from readers.records import IMAGE_FOLDER, PUBLIC_JSON
from readers.vectors import GLOVE_ZIP, open_glove_zip
from utils import UserError, optional

OSF_API = "https://api.osf.io/v2/nodes/89kps/files/osfstorage/"
OSF_PAGE = "https://osf.io/89kps/"
GLOVE_URL = "https://nlp.stanford.edu/data/glove.6B.zip"
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 3
PIECE = 1 << 13  # bytes written at once; small, as a broken connection loses a begun piece
PLAIN = {"Accept-Encoding": "identity"}  # packed answers would not have the announced size


class NoNetwork(Exception):
    """Nothing can be fetched: no network here, or the service is away."""


def download_public(folder, *, api=None, log=print):
    """Download the public release into `folder` and return it (docs/FORMATS.md section 1).

    Every file's size and SHA-256 are checked. Raises NoNetwork when the list of files can't be
    had, UserError when the download stops later.
    """
    folder = Path(folder)
    files = list_release(api or OSF_API)
    total = sum(size for _, _, size, _ in files)
    log(
        f"Downloading VQA-RAD, public release: {len(files)} files, {total / 2**20:.1f} MiB, "
        f"into {folder}"
    )
    with _bar(total, "VQA-RAD") as bar:
        for path, url, size, sha256 in files:
            is_whole = functools.partial(_has_digest, size=size, sha256=sha256)
            _download(url, folder / path, size, is_whole, bar)
    return folder


def download_glove(folder, *, url=None, log=print):
    """Download glove.6B.zip into `folder` and return its path.

    Its size must be the server's, and its CRCs right. Raises NoNetwork when the server does not
    answer, UserError when the download stops later.
    """
    url, target = url or GLOVE_URL, Path(folder) / GLOVE_ZIP
    answer = _first_answer(url, lambda: _request("HEAD", url, CONNECT_SECONDS))
    length = answer.headers.get("Content-Length") or ""
    if not length.isdigit() or not int(length):
        raise UserError(
            f"{_host(url)} does not say how large {GLOVE_ZIP} is; get {url} by hand and put it "
            f"into {folder}"
        )
    size = int(length)

    def is_whole(path):
        with contextlib.suppress(UserError):
            if path.is_file() and path.stat().st_size == size:
                with open_glove_zip(path) as (archive, _):
                    return archive.testzip() is None
        return False

    log(f"Downloading GloVe 6B: {size / 2**20:.1f} MiB, into {target}")
    with _bar(size, "GloVe") as bar:
        _download(url, target, size, is_whole, bar)
    return target


def list_release(api):
    """The release's files: [(path in the folder, URL, size, sha256)].

    The images come first and the JSON file last. Raises NoNetwork, UserError.
    """
    requests = optional("requests")
    files, todo, read = {}, [(api, "")], set()
    while todo:
        url, folder = todo.pop(0)
        if url in read:
            continue
        try:
            if read:
                page = _request("GET", url, (CONNECT_SECONDS, READ_SECONDS)).json()
            else:
                page = _first_answer(url, lambda: _request("GET", api, CONNECT_SECONDS).json())
            read.add(url)
            for item in page["data"]:
                about = item["attributes"]
                if about["kind"] == "folder":
                    link = item["relationships"]["files"]["links"]["related"]["href"]
                    todo.append((link, about["name"]))
                    continue
                sha256 = about["extra"]["hashes"]["sha256"]
                entry = (item["links"]["download"], int(about["size"]), sha256)
                if path := _wanted(about["name"], folder):
                    files.setdefault(path, entry)
            if page["links"].get("next"):
                todo.insert(0, (page["links"]["next"], folder))
        except (requests.RequestException, ValueError) as error:
            raise UserError(
                f"the list of files at {url} can't be read ({type(error).__name__}); run the same "
                "command again"
            ) from None
        except (KeyError, TypeError, AttributeError):
            raise UserError(
                f"the list of files at {url} has an unexpected form; download by hand from "
                f"{OSF_PAGE}"
            ) from None
    if PUBLIC_JSON not in files or len(files) == 1:
        raise UserError(
            f"'{PUBLIC_JSON}' or its images are not at {api}; download VQA-RAD by hand from "
            f"{OSF_PAGE}"
        )
    # the JSON comes last: with it the download is complete
    return [(path, *files[path]) for path in sorted(files, key=lambda p: (p == PUBLIC_JSON, p))]


def _wanted(name, folder):
    """The path under which a file of the release is stored here, or None to leave it out."""
    if name == PUBLIC_JSON:
        return name
    plain = name == Path(name).name and not name.startswith(".") and "\\" not in name
    picture = name.lower().endswith((".jpg", ".jpeg", ".png"))
    return f"{IMAGE_FOLDER}/{name}" if folder == IMAGE_FOLDER and plain and picture else None


def _request(method, url, timeout):
    """The answer to a GET or HEAD request. Raises requests.RequestException."""
    reply = optional("requests").request(method, url, headers=PLAIN, timeout=timeout)
    reply.raise_for_status()
    return reply


def _first_answer(url, ask):
    """The result of `ask()`, the first request to `url`.

    Raises NoNetwork after CONNECT_SECONDS in all.
    """
    requests = optional("requests")
    box = []

    def work():
        try:
            box.append(ask())
        except (requests.RequestException, ValueError) as error:
            box.append(error)

    # in a thread, because the request's own limits do not bound a broken name server
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not box:
        raise NoNetwork(f"{_host(url)} did not answer in {CONNECT_SECONDS} s")
    if isinstance(box[0], Exception):
        status = getattr(getattr(box[0], "response", None), "status_code", None)
        host = _host(url)
        raise NoNetwork(f"{host} answered {status}" if status else f"no connection to {host}")
    return box[0]


def _host(url):
    """The host of a URL, for messages."""
    return url.split("/")[2]


def _bar(total, title):
    """A progress bar of `total` bytes."""
    units = {"unit": "B", "unit_scale": True}
    return tqdm(total=total, desc=title, leave=False, disable=None, **units)


def _has_digest(path, size, sha256):
    """True when the file is there with this size and SHA-256."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    with open(path, "rb") as file:
        sha = hashlib.sha256()
        while piece := file.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest() == str(sha256).lower()


def _download(url, target, size, is_whole, bar):
    """Have `target` whole, as `is_whole(path)` says. A partial file (.part) is continued.

    Raises UserError after ATTEMPTS failures.
    """
    requests = optional("requests")
    part, start = target.with_name(target.name + ".part"), bar.n
    target.parent.mkdir(parents=True, exist_ok=True)

    def show(have):
        bar.update(start + have - bar.n)

    if is_whole(target):
        show(size)
        return
    for attempt in range(ATTEMPTS):
        why = "its size or checksum is wrong"
        try:
            _fetch(url, part, size, show)
        except requests.RequestException as error:
            why = type(error).__name__
        if is_whole(part):
            os.replace(part, target)
            show(size)
            return
        if part.exists() and part.stat().st_size >= size:
            part.unlink()  # damaged: from the start
        if attempt + 1 < ATTEMPTS:
            time.sleep(attempt)
    raise UserError(
        f"the download stopped at {target.name} ({why}); run the same command again, it goes on "
        "from there"
    )


def _fetch(url, part, size, show):
    """Fetch `url` to the file `part`, from where an earlier try stopped.

    `show(bytes)` gets the size so far. Raises requests.RequestException.
    """
    have = part.stat().st_size if part.exists() else 0
    if have >= size:  # whole or too long: the caller checks it
        return
    headers = PLAIN | ({"Range": f"bytes={have}-"} if have else {})
    options = {"stream": True, "timeout": (CONNECT_SECONDS, READ_SECONDS)}
    with optional("requests").get(url, headers=headers, **options) as reply:
        reply.raise_for_status()
        with open(part, "ab" if reply.status_code == 206 else "wb") as file:
            for piece in reply.iter_content(PIECE):
                file.write(piece)
                show(file.tell())
                if file.tell() > size:
                    break
