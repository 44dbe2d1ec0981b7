"""JSON out of files of other people: whatever the bytes are, a value or a reason, and reading goes on."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from callwright.data.formats import tables
from callwright.data.records import RecordError, check_json
from callwright.runtime.errors import CallwrightError

MAX_RECORD_BYTES = 4 * 2**20  # a longer line is rejected unread
MAX_DOCUMENT_BYTES = 64 * 2**20  # of one object over many lines
GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
BZIP2, XZ = b"BZh", b"\xfd7zXZ"
ENCODINGS = {
    "utf-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "utf-16": (b"\xff\xfe", b"\xfe\xff"),
    "utf-16-le": (b"{\0", b"[\0"), "utf-16-be": (b"\0{", b"\0["),
}  # fmt: skip
_LONG_INTEGER = re.compile(rb"\d{19}")
DAMAGED = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)  # what reading of compressed bytes raises; pyarrow's errors are OSErrors
BOM = b"\xef\xbb\xbf"


def read_values(path: str | Path, name: str | None = None) -> Iterator[tuple[str, Any]]:
    """The values of a file: JSON Lines, one JSON array, one object that holds the records, or a table of text (CSV).

    Yields `(record id, value or RecordError)` each. The id is `<name>:<line>`, in an array or a table
    `<name>:<number of the item>`; the name is the file's unless given. Blank lines are no records. JSON Lines are
    streamed. Files compressed by gzip, Zstandard, bzip2 or xz are read too, and UTF-16 as UTF-8; a damaged one gives
    what can be read, and one rejection for the rest. A file that holds nothing of all this is one rejection that says
    what it is. Raises CallwrightError, at once, when the file cannot be opened.
    """
    path = Path(path)
    name = name or path.name
    try:
        stream = open_stream(path)
        start = [line for line in (_next_line(stream), _next_line(stream)) if line]
    except FileNotFoundError as error:
        raise CallwrightError(f"the data file {path} does not exist: check config key data.path") from error
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise CallwrightError(f"the data file {path} cannot be read: {error.strerror}") from error
        return iter([(f"{name}:1", _damaged(error))])
    first = start[0].removeprefix(BOM).strip() if start else b""
    one_line = len(start) == 1 or (bool(start) and not start[0].endswith(b"\n"))
    if first.startswith(b"["):
        stream.seek(0)
        try:
            data = stream.read().removeprefix(BOM)
        except DAMAGED as error:
            return iter([(f"{name}:1", _damaged(error))])
        try:
            items = _exact(data)
        except ValueError:
            # Lines that begin with a list, or an array with something broken in it? The second line tells.
            if len(start) == 1 or isinstance(_parsed(start[1]), RecordError):
                stream.close()
                return _one_by_one(data, name)
        else:
            stream.close()
            return _items(items, name)
    elif first.startswith(b"{") and (first == b"{" or one_line or isinstance(_parsed(start[0]), RecordError)):
        if path.stat().st_size <= MAX_DOCUMENT_BYTES:
            stream.seek(0)
            with contextlib.suppress(*DAMAGED):
                data = stream.read().removeprefix(BOM)
                with contextlib.suppress(ValueError):  # one object over many lines, or one long line
                    value = _exact(data)
                    if not one_line or tables.holds_records(value) or len(data) <= MAX_RECORD_BYTES:
                        stream.close()
                        return _items_of(value, name)
                if first == b"{" and not one_line:  # one object over many lines after the other
                    stream.close()
                    return _one_by_one(data, name)
    elif first and isinstance(_parsed(start[0]), RecordError):
        if delimiter := tables.delimiter(start[0]):
            stream.seek(0)
            return tables.rows(stream, delimiter, name)
        if why := tables.what_it_is(start):
            stream.close()
            return iter([(f"{name}:1", RecordError("unreadable", why))])
    stream.seek(0)
    return _lines(stream, name)


def open_stream(path: Path) -> BinaryIO:
    """A file for reading, as UTF-8; the contents of a compressed one. Raises any of DAMAGED."""
    stream = _decompressed(path)
    encoding = _encoding(stream.read(4))
    stream.seek(0)
    return stream if encoding is None else _Recoded(stream, encoding)


def _decompressed(path: Path) -> BinaryIO:
    with open(path, "rb") as stream:
        magic = stream.read(6)
    if magic.startswith(GZIP):
        return gzip.open(path, "rb")
    if magic.startswith(BZIP2):
        return bz2.open(path, "rb")
    if magic.startswith(XZ):
        return lzma.open(path, "rb")
    if magic.startswith(ZSTANDARD):
        import pyarrow

        return _Rewindable(lambda: io.BufferedReader(pyarrow.input_stream(path, compression="zstd")))
    return open(path, "rb")


def _encoding(head: bytes) -> str | None:
    """The encoding of a file that is not UTF-8, by its first bytes: a mark, or the zeros beside a bracket."""
    for encoding, marks in ENCODINGS.items():
        if head.startswith(marks):
            return encoding
    return None


class _Recoded:
    """A stream of UTF-16 or UTF-32 as one of UTF-8; what is not of the encoding becomes U+FFFD."""

    def __init__(self, stream: BinaryIO, encoding: str):
        if isinstance(stream, _Rewindable):
            stream = io.BytesIO(stream.read())
        self.text = io.TextIOWrapper(stream, encoding=encoding, errors="replace", newline="\n")

    def seek(self, position: int) -> None:
        self.text.seek(position)

    def read(self, size: int = -1) -> bytes:
        return self.text.read(size).encode()

    def readline(self, size: int = -1) -> bytes:
        return self.text.readline(size).encode()

    def close(self) -> None:
        self.text.close()

    def __enter__(self) -> "_Recoded":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Rewindable:
    """A stream that cannot seek: it is opened again to be read from its start."""

    def __init__(self, opened: Callable[[], BinaryIO]):
        self.opened, self.stream = opened, opened()

    def seek(self, position: int) -> None:
        if position:
            raise ValueError("only to the start")
        self.stream.close()
        self.stream = self.opened()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __enter__(self) -> "_Rewindable":
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()


def _damaged(error: Exception) -> RecordError:
    what = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return RecordError("unreadable", f"the file is damaged from here on: {what}")


def parse(text: bytes | str) -> Any:
    """A JSON value from text; raises RecordError: invalid_json, invalid_utf8, not_finite, too_deep or too_large."""
    try:
        return _exact(text)
    except ValueError as error:  # orjson's error is one, and so is Python's of an integer of thousands of digits
        reason = str(error)[:160]
    # Python's parser also takes NaN and half surrogates, which check_json then calls by their names.
    try:
        value = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise RecordError("invalid_utf8", f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise RecordError("too_deep", "nested too deeply to be read") from error
    except ValueError as error:
        raise RecordError("invalid_json", reason) from error
    check_json(value)
    raise RecordError("invalid_json", reason)


def _exact(text: bytes | str) -> Any:
    """A JSON value with its integers as they are written; orjson makes floats of those beyond 64 bits.

    Raises ValueError.
    """
    value = orjson.loads(text)
    if _LONG_INTEGER.search(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")):
        return json.loads(text)
    return value


def _parsed(line: bytes) -> Any:
    try:
        return parse(line)
    except RecordError as error:
        return error


def _next_line(stream: BinaryIO) -> bytes | None:
    """The next line that is not blank; of a longer one the first 4 MiB."""
    return next((line for line in iter(lambda: stream.readline(MAX_RECORD_BYTES), b"") if line.strip()), None)


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    number = 0
    with stream:
        while True:
            number += 1
            try:
                line = stream.readline(MAX_RECORD_BYTES + 1)
                size = len(line)
                if size > MAX_RECORD_BYTES and not line.endswith(b"\n"):
                    while (rest := stream.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
                        size += len(rest)
                    size += len(rest)
            except DAMAGED as error:
                yield f"{name}:{number}", _damaged(error)
                return
            if not line:
                return
            if number == 1:
                line = line.removeprefix(BOM)
            if size > MAX_RECORD_BYTES and not line.endswith(b"\n"):
                reason = f"the line has {size} bytes, at most {MAX_RECORD_BYTES} are read"
                yield f"{name}:{number}", RecordError("too_large", reason)
            elif line.strip():
                yield f"{name}:{number}", _parsed(line)


def _items(items: list[Any], name: str) -> Iterator[tuple[str, Any]]:
    """The items of an array; each is let go when the next is asked for, so that memory falls as reading goes on."""
    items.reverse()
    for number in range(1, len(items) + 1):
        yield f"{name}:{number}", items.pop()


def _items_of(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The records in the one value of a file: those that it holds in a list, or itself."""
    found = tables.holds_records(value)
    if not found:
        return iter([(f"{name}:1", value)])
    many = len(found) > 1
    return (
        (f"{name}:{key}/{number}" if many else f"{name}:{number}", row)
        for key, rows in found.items()
        for number, row in enumerate(rows, 1)
    )


def _one_by_one(data: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """The items of a broken array, or objects after each other; where one is no JSON, the rest is one rejection."""
    text = data.decode("utf-8", errors="surrogateescape")  # bytes that are not UTF-8 become half surrogates
    decoder = json.JSONDecoder()
    array = text.lstrip().startswith("[")
    at, number = text.index("[") + 1 if array else 0, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        number += 1
        if at >= len(text):
            if array:
                yield f"{name}:{number}", RecordError("invalid_json", "the file ends within the array")
            return
        if array and text[at] == "]":
            if text[at + 1 :].strip():
                yield f"{name}:{number}", RecordError("invalid_json", "there is more text after the array")
            return
        try:
            item, at = decoder.raw_decode(text, at)
            check_json(item)
        except RecordError as error:
            yield f"{name}:{number}", error
            continue
        except (ValueError, RecursionError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:160]
            where = "the array" if array else "the file"
            yield f"{name}:{number}", RecordError("invalid_json", f"{where} cannot be read from here on: {what}")
            return
        yield f"{name}:{number}", item
