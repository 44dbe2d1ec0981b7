"""Records in tables of text (CSV) and in one object that holds them all; and what a file is that holds none."""

import csv
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from callwright.data.records import RecordError

MAX_FIELD = 4 * 2**20  # characters of one field
DELIMITERS = (",", "\t", ";", "|")
# Columns by which a table of records is told; the formats' own fields.
COLUMNS = {
    "query", "tools", "answers", "messages", "conversations", "conversation", "contents", "functions", "function",
    "question", "ground_truth", "chat", "system", "calls", "prompt", "completion",
}  # fmt: skip
TOLD = COLUMNS - {"function", "question", "system", "prompt", "completion"}  # these alone tell nothing
# Under these names the one object of a file holds its records.
LISTS = (
    "data", "rows", "records", "examples", "items", "instances", "samples",
    "train", "validation", "valid", "dev", "test",
)  # fmt: skip
MAGIC = {
    b"PK\x03\x04": "a ZIP archive, or a workbook (xlsx): unpack it, or save the sheet as CSV",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database: export its rows as JSON Lines",
    b"GGUF": "a GGUF model",
    b"\x89HDF": "an HDF5 file: export its rows as JSON Lines",
    b"Obj\x01": "an Avro file: export its rows as JSON Lines",
    b"\x80": "a Python pickle: save its rows as JSON Lines",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run `git lfs pull`",
    b"<": "HTML or XML: is it the page about the file?",
}


def holds_records(value: Any) -> dict[str, list[Any]]:
    """The lists of records, by their names, in an object that is no record itself; nothing where there are none.

    A list beside them whose name is not known is one RecordError.
    """
    if not isinstance(value, dict) or value.keys() & TOLD:
        return {}
    found = {}
    for name in LISTS:
        rows = value.get(name)
        if isinstance(rows, list) and any(isinstance(row, dict) for row in rows):
            found[name] = [_unwrapped(row) for row in rows]
    for name, rows in value.items() if found else ():
        if name not in LISTS and isinstance(rows, list) and any(isinstance(row, dict) and row for row in rows):
            what = f"the list {name!r} of {len(rows)} is not read: its name is none of {', '.join(LISTS)}"
            found[name] = [RecordError("unknown_format", what)]
    return found


def _unwrapped(row: Any) -> Any:
    """A row; Hugging Face's viewer puts each into an object with its number."""
    return row["row"] if isinstance(row, dict) and isinstance(row.get("row"), dict) and "row_idx" in row else row


def delimiter(line: bytes) -> str | None:
    """What separates the columns that the first line of a table names; None when it names none that records have."""
    head = line.decode("utf-8", "replace").removeprefix("\ufeff")
    return next((mark for mark in DELIMITERS if TOLD & {name.strip() for name in _cells(head, mark)}), None)


def _cells(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:
        return []


def rows(stream: BinaryIO, mark: str, name: str) -> Iterator[tuple[str, Any]]:
    """The rows of a table of text as `(record id, {column: text} or RecordError)`; empty cells are left out."""
    csv.field_size_limit(MAX_FIELD)
    with stream:
        lines = iter(lambda: stream.readline(8 * MAX_FIELD), b"")
        texts = (line.decode("utf-8", "surrogateescape").replace("\0", "") for line in lines)
        reader = csv.reader(texts, delimiter=mark)
        head = [cell.strip().removeprefix("\ufeff") for cell in next(reader)]
        number = 0
        while True:
            number += 1
            try:
                cells = next(reader, None)
            except (csv.Error, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                yield f"{name}:{number}", RecordError("unreadable", f"the table is damaged from here on: {error}")
                return
            if cells is None:
                return
            if not cells:
                number -= 1
            elif len(cells) != len(head):
                what = f"the row has {len(cells)} cells, the table has {len(head)} columns"
                yield f"{name}:{number}", RecordError("unreadable", what)
            elif byte := next((c for cell in cells for c in cell if "\udc80" <= c <= "\udcff"), None):
                what = f"byte 0x{ord(byte) - 0xDC00:02x} is not UTF-8; save the table as UTF-8"
                yield f"{name}:{number}", RecordError("invalid_utf8", what)
            else:
                yield f"{name}:{number}", {key: cell for key, cell in zip(head, cells, strict=True) if cell != ""}


def what_it_is(start: list[bytes]) -> str | None:
    """What a file is whose first lines are neither JSON nor a table of records; None where only the first is broken."""
    first = start[0].lstrip(b"\xef\xbb\xbf")
    for magic, what in MAGIC.items():
        if first.startswith(magic):
            return f"the file is {what}"
    if first.lstrip()[:1] in (b"{", b"["):
        return None
    shown = first.strip()[:60].decode("utf-8", "replace")
    cells = max((_cells(shown, mark) for mark in DELIMITERS), key=len)
    if len(cells) > 1 and all(cell.strip().replace("_", "").isalnum() for cell in cells):
        wanted = ", ".join(sorted(COLUMNS))
        return f"the file is a table of text with the columns {', '.join(cells)}; expected some of {wanted}"
    if len(start) > 1 and start[1].lstrip()[:1] in (b"{", b"["):
        return None
    return f"the file holds no JSON: it begins with {shown!r}"
