"""Downloads from a stand-in server: whole, continued, damaged, cut off, and no server at all."""

import hashlib
import http.server
import json
import os
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from helpers import draw_images, glove_line, glove_zip, prepare, processed, public, quiet

import dataset_RAD as rad
import readers.download
import readers.find
from readers.download import GLOVE_ZIP, NoNetwork, download_glove, download_public
from readers.records import IMAGE_FOLDER, PUBLIC_JSON
from readers.vectors import find_embedding
from tools.summary import main as summary_main
from utils import UserError, run_main, writable

pytestmark = pytest.mark.usefixtures("no_real_folders")


class Release(http.server.BaseHTTPRequestHandler):
    """Speaks as much of OSF's API as is needed: two pages, a folder, downloads with ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        state, path = self.server, unquote(self.path.partition("?")[0])
        state.log.append((path, self.headers.get("Range")))
        pages = self.pages()
        if path in pages and state.mode != "away":
            items, following = pages[path]
            body = json.dumps({"data": items, "links": {"next": following}})
            self.answer(200, body.encode())
        elif path == f"/data/{GLOVE_ZIP}":
            self.redirect()
        elif path.startswith("/get/") and state.mode != "away":
            self.send_file(path[5:])
        else:
            self.answer(503, b"")

    def do_HEAD(self):
        path, state = unquote(self.path), self.server
        state.log.append(("HEAD " + path, None))
        if path == f"/data/{GLOVE_ZIP}":
            self.redirect()
            return
        self.send_response(503 if state.mode == "away" else 200)
        if state.mode != "no length":
            self.send_header("Content-Length", str(len(state.files[path[5:]])))
        self.end_headers()

    def pages(self):
        """{path: (items, URL of the next page)}."""
        base = f"http://127.0.0.1:{self.server.server_port}"
        related = {"files": {"links": {"related": {"href": f"{base}/list/folder"}}}}
        folder = {
            "attributes": {"kind": "folder", "name": IMAGE_FOLDER},
            "links": {},
            "relationships": related,
        }

        def entry(path):
            body = self.server.files[path]
            hashes = {"sha256": hashlib.sha256(body).hexdigest()}
            about = {"kind": "file", "name": Path(path).name, "size": len(body)}
            return {
                "attributes": about | {"extra": {"hashes": hashes}},
                "links": {"download": f"{base}/get/{path}"},
            }

        pictures = [entry(path) for path in sorted(self.server.files) if "/" in path]
        return {
            "/list/": ([entry("Readme.docx")], f"{base}/list/2"),
            "/list/2": ([folder, entry(PUBLIC_JSON)], None),
            "/list/folder": (pictures[:2], f"{base}/list/folder2"),
            "/list/folder2": (pictures[2:], None),
        }

    def redirect(self):
        """As at Stanford: the zip lies on another host."""
        self.send_response(302)
        self.send_header("Location", f"/get/{GLOVE_ZIP}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_file(self, name):
        state = self.server
        body, status = state.files[name], 200
        if name in state.damage:  # once
            state.damage.remove(name)
            body = bytes(len(body))
        if (start := self.headers.get("Range")) and state.mode != "no ranges":
            body, status = body[int(start[6:-1]) :], 206
        if name in state.cut:  # the connection breaks half-way
            self.answer(status, body, body[: len(body) // 2])
            self.close_connection = True
        else:
            self.answer(status, body)

    def answer(self, status, body, sent=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if sent is None else sent)


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The server with a small public release."""
    folder = public(tmp_path / "release")
    draw_images(folder / IMAGE_FOLDER, 3)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Release)
    server.files = files_in(folder) | {"Readme.docx": b"not wanted"}
    server.log, server.damage, server.cut, server.mode = [], set(), set(), ""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(readers.download, "OSF_API", f"http://127.0.0.1:{server.server_port}/list/")
    monkeypatch.setattr(readers.download.time, "sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def files_in(folder):
    """{path below the folder: content}."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def wanted(release):
    """The files that a download must bring."""
    return {name: body for name, body in release.files.items() if name != "Readme.docx"}


def test_download_and_use(tmp_path, release):
    data = rad.find_data(log=quiet)
    assert data.name == "VQA-RAD, public release" and not data.phantom
    assert data.folder == tmp_path / "data_RAD" / "public"
    files = files_in(data.folder)
    files = {name: body for name, body in files.items() if not name.startswith("prepared")}
    assert files == wanted(release)
    asked = len(release.log)
    assert rad.find_data(log=quiet) == data and len(release.log) == asked


@pytest.mark.parametrize("mode", ["", "no ranges"])
def test_download_resumes(tmp_path, release, mode):
    folder, name = tmp_path / "p", IMAGE_FOLDER + "/i1.jpg"
    (folder / IMAGE_FOLDER).mkdir(parents=True)
    whole = IMAGE_FOLDER + "/i0.jpg"
    (folder / whole).write_bytes(release.files[whole])
    (folder / (name + ".part")).write_bytes(release.files[name][:100])
    release.mode = mode
    download_public(folder, log=quiet)
    assert files_in(folder) == wanted(release)
    fetched = [entry for entry in release.log if entry[0].startswith("/get/")]
    assert len(fetched) == 3 and ("/get/" + name, "bytes=100-") in fetched


def test_damaged_file_is_fetched_again(tmp_path, release):
    release.damage = {PUBLIC_JSON, IMAGE_FOLDER + "/i1.jpg"}
    download_public(tmp_path / "p", log=quiet)
    assert files_in(tmp_path / "p") == wanted(release)


def test_broken_connection_stops_and_goes_on_later(tmp_path, release):
    name, folder = IMAGE_FOLDER + "/i1.jpg", tmp_path / "data_RAD" / "public"
    release.cut = {name}
    with pytest.raises(UserError, match="i1.jpg.*run the same command again"):
        rad.find_data(log=quiet)
    part = (folder / (name + ".part")).stat().st_size
    assert part > len(release.files[name]) * 0.6  # each of the three tries went on
    assert not (folder / PUBLIC_JSON).exists()
    release.cut = set()
    assert rad.find_data(log=quiet).name == "VQA-RAD, public release"


def test_listing_without_images(tmp_path, release):
    release.files = {name: body for name, body in release.files.items() if "/" not in name}
    with pytest.raises(UserError, match="by hand"):
        rad.find_data(log=quiet)
    assert not (tmp_path / "data_RAD" / "public").exists()


def test_a_service_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(readers.download, "CONNECT_SECONDS", 0.2)
    with pytest.raises(NoNetwork):
        download_public(tmp_path / "p", api="http://10.255.255.1/list/", log=quiet)


def test_a_broken_name_server_is_bound_too(monkeypatch):
    """A request's own limits do not hold for looking up the host."""
    asked, end = [], threading.Event()

    def look_up(*arguments):
        asked.append(arguments)
        end.wait(20)
        raise ValueError

    monkeypatch.setattr(readers.download, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(readers.download, "_request", look_up)
    start = time.monotonic()
    with pytest.raises(NoNetwork, match="did not answer in 0.2 s"):
        download_public("unused", api="http://example.org/list/", log=quiet)
    assert len(asked) == 1 and time.monotonic() - start < 10
    end.set()


def test_no_public_release_to_be_had(release):
    release.mode = "away"
    with pytest.raises(NoNetwork, match="answered 503"):
        download_public("unused", log=quiet)
    with pytest.raises(UserError, match="answered 503.*https://osf.io/89kps/"):
        summary_main(["--download"])


# ---------------------------------------------------------------- GloVe


@pytest.fixture
def stanford(tmp_path, release, monkeypatch):
    """The stand-in server with a glove.6B.zip of some 150 kB."""
    numbers = np.random.default_rng(0).normal(size=(1000, 50))
    lines = [f"w{i} " + " ".join(f"{v:.3f}" for v in values) for i, values in enumerate(numbers)]
    path = glove_zip(tmp_path / "made" / GLOVE_ZIP, d50="\n".join([*lines, glove_line("lung", 1)]))
    release.files[GLOVE_ZIP] = path.read_bytes()
    url = f"http://127.0.0.1:{release.server_port}/data/{GLOVE_ZIP}"
    monkeypatch.setattr(readers.download, "GLOVE_URL", url)
    return release


def ranges(server):
    """The ranges for which the zip was asked."""
    return [asked for path, asked in server.log if path == f"/get/{GLOVE_ZIP}"]


def test_glove_is_downloaded_and_used(tmp_path, stanford, capsys):
    summary_main(["--download_glove"])
    path = tmp_path / "data_RAD" / GLOVE_ZIP
    assert str(path) in capsys.readouterr().out
    assert path.read_bytes() == stanford.files[GLOVE_ZIP]
    assert os.listdir(path.parent) == [GLOVE_ZIP] and ranges(stanford) == [None]
    summary_main(["--download_glove"])  # whole: not fetched again
    assert ranges(stanford) == [None]
    lines, data = [], prepare(processed(tmp_path / "d"))
    assert (find_embedding(data, "glove", lines.append)[0][2] == 1).all()
    assert lines == ["GloVe 50d: 1 of 4 words found"]


def test_glove_goes_to_the_cache_when_data_RAD_is_read_only(tmp_path, stanford, monkeypatch):
    monkeypatch.setattr(
        readers.find, "writable", lambda path: "data_RAD" not in Path(path).parts and writable(path)
    )
    summary_main(["--download_glove"])
    assert (tmp_path / "cache" / GLOVE_ZIP).is_file()
    data = prepare(processed(tmp_path / "d"))
    assert find_embedding(data, "glove", quiet)[0].shape == (4, 50)


@pytest.mark.parametrize("mode", ["", "no ranges"])
def test_glove_download_resumes(tmp_path, stanford, monkeypatch, mode):
    body, bars, real = stanford.files[GLOVE_ZIP], [], readers.download.tqdm
    (tmp_path / f"{GLOVE_ZIP}.part").write_bytes(body[:1000])
    stanford.mode = mode

    def tqdm(*args, **kwargs):
        options = kwargs | {"file": open(os.devnull, "w"), "disable": False}
        bars.append(real(*args, **options))
        return bars[-1]

    monkeypatch.setattr(readers.download, "tqdm", tqdm)
    assert download_glove(tmp_path, log=quiet).read_bytes() == body
    assert ranges(stanford) == ["bytes=1000-"]
    assert not (tmp_path / f"{GLOVE_ZIP}.part").exists()
    assert bars[0].n == bars[0].total == len(body)  # a partial file counts once


def test_glove_download_stops_and_goes_on_later(tmp_path, stanford):
    body, stanford.cut = stanford.files[GLOVE_ZIP], {GLOVE_ZIP}
    with pytest.raises(UserError, match="stopped at glove.6B.zip.*run the same command again"):
        summary_main(["--download_glove"])
    folder = tmp_path / "data_RAD"
    assert os.listdir(folder) == [f"{GLOVE_ZIP}.part"]
    assert (folder / f"{GLOVE_ZIP}.part").stat().st_size > len(body) * 0.6
    stanford.cut = set()
    summary_main(["--download_glove"])
    assert (folder / GLOVE_ZIP).read_bytes() == body


def test_damaged_glove_is_fetched_again(tmp_path, stanford):
    body, stanford.damage = stanford.files[GLOVE_ZIP], {GLOVE_ZIP}
    # damage that only the checksum shows, in a finished and in a partial file
    at = body.index(b"PK\x01\x02") - 100
    damaged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    (tmp_path / GLOVE_ZIP).write_bytes(damaged)
    (tmp_path / f"{GLOVE_ZIP}.part").write_bytes(damaged[:-50])
    assert download_glove(tmp_path, log=quiet).read_bytes() == body
    assert ranges(stanford) == [f"bytes={len(body) - 50}-", None]
    stanford.files[GLOVE_ZIP] = damaged  # the server's own is damaged
    with pytest.raises(UserError, match="checksum"):
        download_glove(tmp_path / "new", log=quiet)
    assert not os.listdir(tmp_path / "new")


def test_no_glove_to_be_had(tmp_path, stanford, capsys, monkeypatch):
    stanford.mode = "no length"
    with pytest.raises(UserError, match="how large"):
        download_glove(tmp_path / "new", log=quiet)
    stanford.mode = "away"
    with pytest.raises(UserError, match="answered 503.*get.*GloVe from"):
        summary_main(["--download_glove"])
    monkeypatch.setattr(readers.download, "GLOVE_URL", f"http://127.0.0.1:9/{GLOVE_ZIP}")
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run_main(lambda: summary_main(["--download_glove"]))
    output = capsys.readouterr()
    assert left.value.code == 2 and not output.out
    assert output.err.count("\n") == 1 and "nothing was downloaded" in output.err
    assert "GloVe" in output.err
    assert not (tmp_path / "data_RAD" / f"{GLOVE_ZIP}.part").exists()
