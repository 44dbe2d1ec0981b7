"""JSON out of files of other people: whatever the bytes are, a value or a reason, and reading goes on."""

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from callwright.data.records import RecordError, check_json
from callwright.runtime.errors import CallwrightError

MAX_RECORD_BYTES = 4 * 2**20  # a longer line is rejected unread
MAX_DOCUMENT_BYTES = 64 * 2**20  # of one object over many lines
GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
DAMAGED = (OSError, EOFError, zlib.error)  # what reading of compressed bytes raises; pyarrow's errors are OSErrors
BOM = b"\xef\xbb\xbf"


def read_values(path: str | Path, name: str | None = None) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file, JSON Lines or one JSON array: `(record id, value or RecordError)` each.

    The id is `<name>:<line>`, in an array `<name>:<number of the item>`; the name is the file's unless given.
    Blank lines are no records. JSON Lines are streamed. Files compressed by gzip or Zstandard are read too; a
    damaged one gives what can be read, and one rejection for the rest. Raises CallwrightError, at once, when the
    file cannot be opened.
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
    if start and start[0].removeprefix(BOM).lstrip().startswith(b"["):
        stream.seek(0)
        try:
            data = stream.read().removeprefix(BOM)
        except DAMAGED as error:
            return iter([(f"{name}:1", _damaged(error))])
        try:
            items = orjson.loads(data)
        except orjson.JSONDecodeError:
            # Lines that begin with a list, or an array with something broken in it? The second line tells.
            if len(start) == 1 or isinstance(_parsed(start[1]), RecordError):
                stream.close()
                return _items_one_by_one(data, name)
        else:
            stream.close()
            return _items(items, name)
    elif len(start) > 1 and start[0].removeprefix(BOM).strip() == b"{" and path.stat().st_size <= MAX_DOCUMENT_BYTES:
        stream.seek(0)
        with contextlib.suppress(orjson.JSONDecodeError, *DAMAGED):  # one object over many lines
            value = orjson.loads(stream.read().removeprefix(BOM))
            stream.close()
            return iter([(f"{name}:1", value)])
    stream.seek(0)
    return _lines(stream, name)


def open_stream(path: Path) -> BinaryIO:
    """A file for reading; the contents of a compressed one. Raises OSError, and for a damaged one any of DAMAGED."""
    with open(path, "rb") as stream:
        magic = stream.read(4)
    if magic.startswith(GZIP):
        return gzip.open(path, "rb")
    if magic == ZSTANDARD:
        import pyarrow

        return _Rewindable(lambda: io.BufferedReader(pyarrow.input_stream(path, compression="zstd")))
    return open(path, "rb")


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
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
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


def _items_one_by_one(data: bytes, name: str) -> Iterator[tuple[str, Any]]:
    """The items of a broken array; where one is no JSON, the rest of the file is one rejection."""
    text = data.decode("utf-8", errors="surrogateescape")  # bytes that are not UTF-8 become half surrogates
    decoder = json.JSONDecoder()
    at, number = text.index("[") + 1, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        number += 1
        if at >= len(text):
            yield f"{name}:{number}", RecordError("invalid_json", "the file ends within the array")
            return
        if text[at] == "]":
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
            yield f"{name}:{number}", RecordError("invalid_json", f"the array cannot be read from here on: {what}")
            return
        yield f"{name}:{number}", item
