"""readers/json_files.py: what is no JSON, or of another version, is named in one line."""

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
