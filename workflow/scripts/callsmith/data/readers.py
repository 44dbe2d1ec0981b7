"""JSON out of files of other people: whatever the bytes are, a value or a reason, and reading goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from callsmith.data.records import RecordError, check_json
from callsmith.runtime.errors import CallsmithError

MAX_RECORD_BYTES = 4 * 2**20  # a longer line is rejected unread
BOM = b"\xef\xbb\xbf"


def read_values(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file, JSON Lines or one JSON array: `(record id, value or RecordError)` each.

    The id is `<file name>:<line>`, in an array `<file name>:<number of the item>`. Blank lines are no
    records. JSON Lines are streamed. Raises CallsmithError, at once, when the file cannot be opened.
    """
    path = Path(path)
    try:
        stream = open(path, "rb")  # noqa: SIM115 (the iterator closes it)
        start = [line for line in (_next_line(stream), _next_line(stream)) if line]
        stream.seek(0)
    except FileNotFoundError as error:
        raise CallsmithError(f"the data file {path} does not exist: check config key data.path") from error
    except OSError as error:
        raise CallsmithError(f"the data file {path} cannot be read: {error.strerror}") from error
    if start and start[0].removeprefix(BOM).lstrip().startswith(b"["):
        data = stream.read().removeprefix(BOM)
        try:
            items = orjson.loads(data)
        except orjson.JSONDecodeError:
            # Lines that begin with a list, or an array with something broken in it? The second line tells.
            if len(start) == 1 or isinstance(_parsed(start[1]), RecordError):
                stream.close()
                return _items_one_by_one(data, path.name)
            stream.seek(0)
        else:
            stream.close()
            return ((f"{path.name}:{number}", item) for number, item in enumerate(items, 1))
    return _lines(stream, path.name)


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
        while line := stream.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(BOM)
            if len(line) > MAX_RECORD_BYTES and not line.endswith(b"\n"):
                size = len(line)
                while (rest := stream.readline(MAX_RECORD_BYTES)) and not rest.endswith(b"\n"):
                    size += len(rest)
                reason = f"the line has {size + len(rest)} bytes, at most {MAX_RECORD_BYTES} are read"
                yield f"{name}:{number}", RecordError("too_large", reason)
            elif line.strip():
                yield f"{name}:{number}", _parsed(line)


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
