"""Files as people have them: encodings, CSV, one object that holds the records; and files of something else."""

import bz2
import csv
import io
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest

from callwright.data.curate import curate
from callwright.data.formats.inputs import read_rows
from callwright.data.records import Example, RecordError
from callwright.data.sources import read_records

ROW = {
    "query": "Wie viele Schrauben in Köln?",
    "tools": json.dumps([{"name": "stock", "description": "How many", "parameters": {"item": {"type": "str"}}}]),
    "answers": json.dumps([{"name": "stock", "arguments": {"item": "Schrauben"}}]),
}
ROWS = [ROW, {**ROW, "query": 'And nuts,\n"quoted"?'}]
LINES = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


def table(delimiter):
    text = io.StringIO()
    writer = csv.DictWriter(text, [*ROW, "extra"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


WAYS = {
    "utf-16": LINES.encode("utf-16"),
    "utf-16-le": LINES.encode("utf-16-le"),
    "utf-16-be": LINES.encode("utf-16-be"),
    "utf-16 big with a mark": b"\xfe\xff" + LINES.encode("utf-16-be"),
    "utf-32": LINES.encode("utf-32"),
    "utf-8 with a mark": b"\xef\xbb\xbf" + LINES.encode(),
    "bzip2": bz2.compress(LINES.encode()),
    "xz": lzma.compress(LINES.encode()),
    "utf-16 in bzip2": bz2.compress(LINES.encode("utf-16")),
    "csv": table(",").encode(),
    "csv with a mark": b"\xef\xbb\xbf" + table(",").encode(),
    "csv in utf-16": table(",").encode("utf-16"),
    "tsv": table("\t").encode(),
    "semicolons": table(";").encode(),
    "array in utf-16": json.dumps(ROWS).encode("utf-16"),
    "data": json.dumps({"data": ROWS}).encode(),
    "train, over many lines": json.dumps({"version": 1, "train": ROWS}, indent=2).encode(),
    "rows of a viewer": json.dumps({"rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}).encode(),
    "objects over many lines": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_records_however_they_are_written(tmp_path, way):
    path = tmp_path / "records.jsonl"
    path.write_bytes(WAYS[way])
    found = [record for _, record in read_records(path)]
    assert all(isinstance(record, Example) for record in found), found
    assert [record.query for record in found] == [row["query"] for row in ROWS]
    assert found[0].calls == [{"name": "stock", "arguments": {"item": "Schrauben"}}]
    assert len({record.id for record in found}) == 2


def test_splits_in_one_object_keep_their_names(tmp_path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"train": ROWS, "test": ROWS[:1]}))
    assert [name for name, _ in read_rows(path)] == ["all.json:train/1", "all.json:train/2", "all.json:test/1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + b"\0\n" * 50, "ZIP archive, or a workbook"),
        (b"%PDF-1.7\nabc\n", "a PDF"),
        (b"SQLite format 3\0\n\n1\n2\n", "an SQLite database"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>\n</html>\n", "HTML or XML"),
        (b"name,price\nbolts,3\nnuts,4\n", "a table of text with the columns name, price"),
        (b"Dear all,\nplease find attached\n", "the file holds no JSON: it begins with 'Dear all,'"),
    ],
)
def test_a_file_of_something_else_is_named_once(tmp_path, content, said):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    [(name, error)] = read_records(path)
    assert (name, error.rule) == ("records.jsonl:1", "unreadable")
    assert said in error.reason


def test_rows_of_a_table_that_do_not_fit_are_rejected_one_by_one(tmp_path):
    path = tmp_path / "records.csv"
    path.write_text(table(",") + "only,two\n")
    found = list(read_records(path))
    assert [isinstance(record, Example) for _, record in found] == [True, True, False]
    assert found[2][1].rule == "unreadable"


@pytest.mark.parametrize("digits", ["9223372036854775808", "18446744073709551616", "123456789012345678901234567890"])
@pytest.mark.parametrize("form", ["lines", "array", "text"])
def test_integers_of_more_than_64_bits_are_rejected_not_rounded(tmp_path, digits, form):
    answers = [{"name": "stock", "arguments": {"item": 0}}]
    row = {**ROW, "answers": json.dumps(answers) if form == "text" else answers}
    text = json.dumps(row).replace(r"\"item\": 0", rf"\"item\": {digits}").replace('"item": 0', f'"item": {digits}')
    path = tmp_path / "records.jsonl"
    path.write_text(f"[{text}]" if form == "array" else text)
    [(_, error)] = read_records(path)
    assert (error.rule, "more than 64 bits" in error.reason) == ("wrong_type", True)


def test_numbers_of_many_digits_in_texts_and_fractions_stay(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "12345678901234567890123", "x": 1234567890123456789.5, "n": 9223372036854775807}')
    [(_, row)] = read_rows(path)
    assert row == {"id": "12345678901234567890123", "x": 1234567890123456789.5, "n": 9223372036854775807}


def test_maps_times_decimals_and_gaps_of_tables(tmp_path):
    import datetime
    import decimal

    calls = pyarrow.array([[{"name": "stock", "arguments": [("item", "bolts")]}]], pyarrow.list_(pyarrow.struct(
        {"name": pyarrow.string(), "arguments": pyarrow.map_(pyarrow.string(), pyarrow.string())})))  # fmt: skip
    columns = {
        "query": ["How many bolts?"], "tools": [ROW["tools"]], "answers": calls,
        "made": [datetime.datetime(2026, 1, 2)], "score": [float("nan")], "price": [decimal.Decimal("2.50")],
        "raw": [b"bytes"],
    }  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "table.parquet")
    [(_, row)] = read_rows(tmp_path / "table.parquet")
    assert (row["made"], row["price"], row["raw"], "score" in row) == ("2026-01-02T00:00:00", 2.5, "bytes", False)
    [(_, example)] = read_records(tmp_path / "table.parquet")
    assert example.calls == [{"name": "stock", "arguments": {"item": "bolts"}}]


def test_a_messy_folder_ends_with_a_ledger_by_file(tmp_path):
    for name, content in WAYS.items():
        (tmp_path / f"{name.replace(' ', '_')}.jsonl").write_bytes(content)
    (tmp_path / "page.json").write_text("<html>\n</html>")
    (tmp_path / "strange.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    data = {"source": "files", "path": str(tmp_path), "examples": 100, "max_tokens": 512, "seed": 1, "negatives": 0}
    kept, rejections, ledger = curate(read_records(tmp_path), {"data": data, "split": {"test": 0.1, "unseen_tools": 0}})
    assert ledger["records_in"] == len(kept) + len(rejections) == 2 * len(WAYS) + 3
    files = ledger["files"]
    assert sum(of["records_in"] for of in files.values()) == ledger["records_in"]
    assert sum(of["kept"] for of in files.values()) == len(kept) == 2
    for of in files.values():
        assert of["records_in"] == of["kept"] + sum(of["rejected"].values())
    assert files["page.json"]["rejected"] == {"unreadable": 1}
    assert files["strange.jsonl"]["rejected"] == {"unknown_format": 2}


def test_rejections_are_record_errors(tmp_path):
    (tmp_path / "x.jsonl").write_text("oops\n{}\n")
    assert all(isinstance(error, RecordError) for _, error in read_records(tmp_path / "x.jsonl"))


def test_a_damaged_archive_of_a_table_is_a_rejection(tmp_path):
    path = tmp_path / "rows.csv.xz"
    text = io.StringIO()
    writer = csv.DictWriter(text, [*ROW])
    writer.writeheader()
    writer.writerows({**ROW, "query": f"How many of part {number}?"} for number in range(2000))
    data = bytearray(lzma.compress(text.getvalue().encode()))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    found = [row for _, row in read_rows(path)]
    assert found[0]["query"] == "How many of part 0?"
    assert isinstance(found[-1], RecordError)
    assert "damaged from here on" in found[-1].reason


def test_a_table_that_is_not_utf_8_says_so(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(table(",").encode("latin-1"))
    first, second = (row for _, row in read_rows(path))
    assert (first.rule, first.reason) == ("invalid_utf8", "byte 0xf6 is not UTF-8; save the table as UTF-8")
    assert second["query"] == ROWS[1]["query"]


def test_nothing_in_one_object_of_records_is_lost(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": [ROW, None, ROW]}))
    assert [row for _, row in read_rows(path)] == [ROW, None, ROW]
    path.write_text(json.dumps({"train": ROWS, "extra": ROWS, "version": [1]}))
    found = dict(read_rows(path))
    assert [found["rows.json:train/1"], found["rows.json:train/2"]] == ROWS
    assert len(found) == 3
    assert "the list 'extra' of 2 is not read" in found["rows.json:extra/1"].reason
