"""readers/json_files.py: what is no JSON, or of another version, is named in one line."""

import json
import os

import pytest

from readers import json_files
from readers.json_files import check_version, read_json
from utils import VERSION, UserError


@pytest.mark.parametrize("content", [b"[1, 2", b"", b"\x00", b"[" * 100_000, b"\xff\xfe\x00["])
def test_bad_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="a.json is not valid JSON"):
        read_json(tmp_path / "a.json")


TEXTS = {
    "utf-16": ("is it?", "UTF-16"),
    "utf-16-le": ("is it?", "UTF-16-LE"),
    "utf-16-be": ("is it?", "UTF-16-BE"),
    "utf-32": ("is it?", "UTF-32"),
    "cp1252": ("the café’s “mass”", "CP1252"),
    "latin-1": ("naïve Ödem", "CP1252 (Windows-1252) or Latin-1 (ISO-8859-1)"),
    "gbk": ("图像中有肿块吗", "GBK"),
    "cp1251": ("Какой орган", "CP1251"),
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_another_encoding_is_named_as_such(tmp_path, encoding):
    text, named = TEXTS[encoding]
    path = tmp_path / "a.json"
    content = json.dumps([{"question": text}], ensure_ascii=False)
    path.write_text(content, encoding=encoding)
    with pytest.raises(UserError, match="a.json is not valid JSON: its encoding is") as caught:
        read_json(path)
    message = str(caught.value)
    assert named in message and "-t UTF-8" in message and "truncated" not in message
    if text.isascii():
        return
    assert "in line 1" in message
    path.write_text(content, encoding="utf-8")
    assert read_json(path) == [{"question": text}]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"PK\3\4xx", "zip file or a spreadsheet"),
        (b"\x1f\x8bxx", "gzip"),
        (b"PAR1", "parquet"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"  \n", "it is empty"),
        (b"\x80\x02", "not text"),
        (b'["caf\xc3', "ends within a character; get it again"),
        (b'[{"a": 1}, {"b', "ends early, get it again"),
        (b'[{"a": 1},', "ends early, get it again"),
        (b'[{"a": 1,}]', "correct it there"),
        (b"[{'a': 1}]\n", "line 1 column 3"),
        (b'{"a": 1}\n{"a": 2}', "Extra data: line 2 column 1"),
    ],
)
def test_what_else_a_file_is_is_named(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="a.json is not valid JSON") as caught:
        read_json(tmp_path / "a.json")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}\n{"a": 2}', '{"a": 1}\r\n\r\n{"a": 2}\r\n', '\ufeff{"a":\n1}{"a": 2}\n\n'],
)
def test_json_lines(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode())
    assert read_json(path, lines=True) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}')
    assert read_json(path, lines=True) == {"a": 1}
    for text, words in (('{"a": 1}\n{"a"', "ends early"), ("[1]\n[2]", "Extra data"), ("1 2", "")):
        path.write_text(text)
        with pytest.raises(UserError, match=f"not valid JSON.*{words}"):
            read_json(path, lines=True)


def test_what_is_no_file_or_too_large(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such file: .*none.json"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match="null is not a file"):  # a device may never end
        read_json(os.devnull)
    (tmp_path / "a.json").write_text("\ufeff[1]", encoding="utf-8")
    assert read_json(tmp_path / "a.json") == [1]  # Windows puts a mark before the text
    monkeypatch.setattr(json_files, "MAX_JSON", 5)
    with pytest.raises(UserError, match="at most 0 MiB"):
        read_json(tmp_path / "a.json")


def test_another_version_is_refused():
    check_version(VERSION, "a.json")
    for version in (VERSION - 1, VERSION + 1, None, "x" * 1000):
        with pytest.raises(UserError, match="a.json is of version") as caught:
            check_version(version, "a.json")
        assert len(str(caught.value)) < 200
