"""Whatever lies in a data file: each record is an example or a rejection, none is lost, none comes twice."""

import gzip
import json
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callwright.data.formats.inputs import read_rows
from callwright.data.records import Example, RecordError
from callwright.data.sources import open_records, read_records
from callwright.runtime.errors import CallwrightError

from fixtures_records import ROW, json_values  # isort: skip

GOOD = json.dumps(ROW).encode()


def write(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def test_bad_lines_are_rejected_and_reading_goes_on(tmp_path):
    path = write(
        tmp_path,
        GOOD,
        b'{"id": "\xff"}',
        b'{"id": ',
        b"",
        b"   ",
        b'{"id": NaN}',
        b'{"id": "\\ud800"}',
        b"[" * 1000 + b"]" * 1000,
        b'{"a":' * 100_000,
        b'{"id": "' + b"x" * 10_000_000 + b'"}',
        b'{"id": "' + b"x" * 200_000 + b'"}',
        b"7",
        GOOD,
    )
    found = [(i, v.rule if isinstance(v, RecordError) else "") for i, v in read_records(path, "examples")]
    assert found == [
        ("data.jsonl:1", ""),
        ("data.jsonl:2", "invalid_utf8"),
        ("data.jsonl:3", "invalid_json"),
        ("data.jsonl:6", "not_finite"),
        ("data.jsonl:7", "invalid_utf8"),
        ("data.jsonl:8", "too_deep"),
        ("data.jsonl:9", "too_deep"),
        ("data.jsonl:10", "too_large"),
        ("data.jsonl:11", "too_large"),
        ("data.jsonl:12", "wrong_type"),
        ("data.jsonl:13", ""),
    ]


def test_line_ends_and_byte_order_marks_do_not_matter(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + GOOD)
    assert [i for i, v in read_records(path, "examples") if isinstance(v, Example)] == ["data.jsonl:1", "data.jsonl:3"]


def test_an_array_is_read_too(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([ROW, 5, ROW], indent=2))
    found = dict(read_records(path, "examples"))
    assert list(found) == ["data.json:1", "data.json:2", "data.json:3"]
    assert found["data.json:1"] == found["data.json:3"] == Example.from_row(ROW)
    assert found["data.json:2"].rule == "wrong_type"


def test_a_broken_array_gives_what_can_be_read(tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(b"[\n" + GOOD + b',\n{"id": NaN},\n' + GOOD + b',\n{"id": "\xff"},\n' + GOOD + b",\n{oh no")
    found = [(i, v.rule if isinstance(v, RecordError) else "") for i, v in read_records(path, "examples")]
    assert found == [
        ("data.json:1", ""), ("data.json:2", "not_finite"), ("data.json:3", ""), ("data.json:4", "invalid_utf8"),
        ("data.json:5", ""), ("data.json:6", "invalid_json"),
    ]  # fmt: skip


def test_lines_that_are_lists_do_not_hide_the_others(tmp_path):
    path = write(tmp_path, b"[1, 2]", GOOD, b"[oops", GOOD)
    rules = [v.rule if isinstance(v, RecordError) else "" for _, v in read_records(path, "examples")]
    assert rules == ["wrong_type", "", "invalid_json", ""]


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(GOOD))
    assert all(isinstance(value, RecordError) for _, value in read_records(path, "xlam"))
    path.write_bytes(b"")
    assert list(read_records(path, "xlam")) == []


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(CallwrightError, match=r"absent\.jsonl does not exist.*data\.path"):
        read_records(tmp_path / "absent.jsonl", "xlam")
    with pytest.raises(CallwrightError, match="holds no file of records"):
        read_records(tmp_path, "xlam")
    with pytest.raises(CallwrightError, match=r"data\.path is empty"):
        read_records(None, "examples")
    with pytest.raises(CallwrightError, match=r"data\.source is 'csv'"):
        read_records(tmp_path, "csv")


def test_the_configuration_names_the_source(tmp_path, root):
    split = {"test": 0.1, "unseen_tools": 0.1}
    data = {"source": "examples", "path": write(tmp_path, GOOD), "examples": 20, "seed": 1}
    assert [v for _, v in open_records({"data": data, "split": split})] == [Example.from_row(ROW)]
    toolset = {"toolset": root / "config" / "toolsets" / "everyday.yaml", "data": {**data, "source": "toolset"}}
    found = list(open_records({**toolset, "split": split}))
    assert len(found) >= 22
    assert all(isinstance(v, Example) and v.id == i for i, v in found)


lines = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.just(GOOD),
    st.text(alphabet='[]{}",:0a \t', max_size=20).map(str.encode),
)


def begins_with_json(path):
    """A file of JSON Lines is told by its first line; one of something else is one rejection."""
    first = next((line for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()), b"")
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return True


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(lines, max_size=6),
    st.sampled_from([b"\n", b"\r\n", b",\n"]),
    st.sampled_from([b"", b"[", b"\xef\xbb\xbf"]),
)
def test_no_bytes_crash_reading_or_repeat_an_id(tmp_path, parts, end, start):
    path: Path = tmp_path / "fuzz.jsonl"
    path.write_bytes(start + end.join(parts))
    for format in ("examples", "xlam"):
        found = list(read_records(path, format))
        ids = [record_id for record_id, _ in found]
        assert len(ids) == len(set(ids))
        assert all(isinstance(value, Example | RecordError) for _, value in found)
    assert [i for i, _ in read_rows(path)] == ids
    tables = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
    if (
        end == b"\n"
        and not start
        and not path.read_bytes().startswith(tables)
        and not any(part.lstrip().startswith(b"[") for part in parts)
        and begins_with_json(path)
    ):
        assert len(ids) == sum(
            bool(line.strip()) for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        )
