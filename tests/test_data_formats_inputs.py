"""Files of every kind give the same rows; damaged ones give what can be read, and a reason."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callwright.data.formats.inputs import list_files, read_rows, without_null
from callwright.data.records import RecordError
from callwright.data.sources import read_records
from callwright.runtime.errors import CallwrightError

ROWS = [{"n": number, "text": f"räw {number}", "list": [number]} for number in range(600)]
LINES = "\n".join(map(json.dumps, ROWS)).encode()


def zstd(data):
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def arrow(path, stream):
    table = pyarrow.Table.from_pylist(ROWS)
    opened = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with pyarrow.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


def write_zstd(path, data):
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(data)


WRITERS = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "a.jsonl.zst": lambda path: write_zstd(path, LINES),
    "a.json.zst": lambda path: write_zstd(path, json.dumps(ROWS).encode()),
    "a.parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=100),
    "a.arrow": lambda path: arrow(path, stream=False),
    "b.arrow": lambda path: arrow(path, stream=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    WRITERS[name](tmp_path / name)
    found = list(read_rows(tmp_path / name))
    assert [row for _, row in found] == ROWS
    assert [record_id for record_id, _ in found] == [f"{name}:{number}" for number in range(1, 601)]
    (tmp_path / "unnamed").write_bytes((tmp_path / name).read_bytes())  # the content tells, not the name
    assert [row for _, row in read_rows(tmp_path / "unnamed")] == ROWS


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.97])
def test_a_file_cut_short_gives_a_reason_and_no_row_twice(tmp_path, name, kept):
    path = tmp_path / name
    WRITERS[name](path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    found = list(read_rows(path))
    rows = [row for _, row in found if not isinstance(row, RecordError)]
    assert rows == ROWS[: len(rows)]
    assert isinstance(found[-1][1], RecordError)
    assert found[-1][1].reason
    assert len({record_id for record_id, _ in found}) == len(found)


def test_one_object_over_many_lines_is_one_row(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, 2], "b": {}}, indent=2))
    assert list(read_rows(tmp_path / "a.json")) == [("a.json:1", {"a": [1, 2], "b": {}})]


def test_fields_that_a_table_fills_with_null_are_absent(tmp_path):
    calls = [{"arguments": {"city": "Rome"}}, {"arguments": {"days": 3}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"calls": calls}]), tmp_path / "a.parquet")
    assert [row for _, row in read_rows(tmp_path / "a.parquet")] == [{"calls": calls}]
    assert without_null({"a": None, "b": [None, {"c": None}]}) == {"b": [None, {}]}


def test_a_saved_data_set_is_a_folder_of_its_tables(tmp_path):
    import datasets

    saved = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:5])}
    )
    saved.save_to_disk(tmp_path / "saved", num_proc=None)
    files = list_files(tmp_path / "saved")
    assert [name for name, _ in files] == ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]
    assert [row for _, row in read_rows(files[1][1])] == ROWS


def test_the_order_is_that_of_the_paths_and_in_a_folder_of_the_names(tmp_path):
    for name in ("b.jsonl", "a.jsonl.gz", "Z.json", "sub/c.parquet", "notes.txt", ".hidden.json", "dataset_info.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    names = [name for name, _ in list_files(tmp_path)]
    assert names == ["Z.json", "a.jsonl.gz", "b.jsonl", "sub/c.parquet"]
    given_twice = [tmp_path / "sub" / "c.parquet", tmp_path / "b.jsonl", tmp_path / "b.jsonl"]
    assert [name for name, _ in list_files(given_twice)] == ["c.parquet", "b.jsonl", "b.jsonl#2"]


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(CallwrightError, match=r"none\.jsonl does not exist: check config key data\.path"):
        list_files([tmp_path / "none.jsonl"])
    with pytest.raises(CallwrightError, match="holds no file of records"):
        list_files(tmp_path)


def test_several_files_of_several_formats_are_one_source(tmp_path, xlam_sample):
    lines = xlam_sample.read_bytes().splitlines()[:6]
    (tmp_path / "one.jsonl").write_bytes(b"\n".join(lines[:3]))
    rows = [json.loads(line) for line in lines[3:]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "two.parquet")
    found = list(read_records([tmp_path / "one.jsonl", tmp_path / "two.parquet"]))
    whole = list(read_records(xlam_sample))[:6]
    assert [record.query for _, record in found] == [record.query for _, record in whole]
    assert [record_id for record_id, _ in found] == [
        f"{n}:{i}" for n in ("one.jsonl", "two.parquet") for i in (1, 2, 3)
    ]


starts = st.sampled_from(
    [b"", b"PAR1", b"ARROW1\x00\x00", b"\xff\xff\xff\xff", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"[", b"{\n"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(starts, st.binary(max_size=80), st.booleans())
def test_any_bytes_give_rows_or_reasons(tmp_path, start, data, squeeze):
    path = tmp_path / "fuzz"
    path.write_bytes(gzip.compress(start + data) if squeeze else start + data)
    found = list(read_rows(path))
    assert len({record_id for record_id, _ in found}) == len(found)
