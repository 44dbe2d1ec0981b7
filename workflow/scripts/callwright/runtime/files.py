"""JSON and JSON Lines on disk: written to a temporary name, synced, renamed.

A reader therefore sees the old file or the new one, never half of one, whatever happens
to the process or the disk.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from callwright.runtime.errors import FULL_DISK, CallwrightError


def listed(paths: str | list[str] | None) -> list[str]:
    """The paths that a configuration's key names, which takes one, a list of them, or none."""
    return paths if isinstance(paths, list) else [paths] if paths else []


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `path` for binary writing; rename it to `path` on success.

    On any error the temporary file is removed and `path` keeps what it held. A full disk
    becomes a CallwrightError that names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise CallwrightError(
                f"no space left on the disk while writing {path}: free some and run again; the old file is untouched"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys; numpy scalars and arrays are accepted."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    with atomic_write(path) as stream:
        stream.write(orjson.dumps(value, option=options))


def read_json(path: str | Path) -> Any:
    """Read one JSON file; raises CallwrightError that names the file when it is missing or broken."""
    try:
        return orjson.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise CallwrightError(f"{path} does not exist") from error
    except orjson.JSONDecodeError as error:
        raise CallwrightError(f"{path} is not valid JSON: {error}") from error


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write one JSON value a line, in order, as they come; returns the number of rows."""
    count = 0
    with atomic_write(path) as stream:
        for row in rows:
            stream.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def read_jsonl(path: str | Path) -> Iterator[Any]:
    """Yield the rows of a JSON Lines file that this project wrote; blank lines are skipped.

    Raises CallwrightError with file and line number for a broken row. Files of others go
    through `callwright.data.sources`, which rejects a broken row and goes on.
    """
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    try:
                        yield orjson.loads(line)
                    except orjson.JSONDecodeError as error:
                        raise CallwrightError(f"{path}, line {number}: not valid JSON: {error}") from error
    except FileNotFoundError as error:
        raise CallwrightError(f"{path} does not exist") from error


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces), in hexadecimal."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)).hexdigest()
