"""Files are written whole or not at all, and a broken one is named."""

import errno
import os

import pytest

from callwright.runtime import files
from callwright.runtime.errors import CallwrightError


def test_rows_come_back_in_order(tmp_path):
    rows = [{"text": "Zürich\u2028😀", "n": i} for i in range(3)]
    assert files.write_jsonl(tmp_path / "a" / "rows.jsonl", rows) == 3
    assert list(files.read_jsonl(tmp_path / "a" / "rows.jsonl")) == rows


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [1])

    def broken():
        yield 2
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        files.write_jsonl(path, broken())
    assert path.read_bytes() == b"1\n"
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_full_disk_is_one_clear_message(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "value.json"
    files.write_json(path, {"old": 1})
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(CallwrightError, match=r"no space left on the disk while writing .*value\.json"):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_a_broken_row_is_named_by_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n')
    with pytest.raises(CallwrightError, match=r"rows\.jsonl, line 3: not valid JSON"):
        list(files.read_jsonl(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CallwrightError, match="none.json does not exist"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(CallwrightError, match="none.jsonl does not exist"):
        list(files.read_jsonl(tmp_path / "none.jsonl"))


def test_the_hash_of_a_value_ignores_the_order_of_its_keys():
    assert files.sha256_json({"a": 1, "b": [2.5]}) == files.sha256_json({"b": [2.5], "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})
