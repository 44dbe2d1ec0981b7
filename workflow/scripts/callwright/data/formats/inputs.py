"""Which files hold the records, and the values in them: JSON, CSV, Parquet or Arrow, compressed or not, one or many.

What a file is, its first bytes say, not its name. A folder stands for the files in it, in the order of their
paths; a data set saved by the `datasets` library for the files that its `state.json` names. All is read in small
pieces, so that memory does not grow with the file.
"""

import datetime
import decimal
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from callwright.data.formats.readers import read_values
from callwright.data.records import RecordError
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
ENDINGS = (".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".csv", ".tsv")
REQUESTS = (".yaml", ".yml")  # files of `formats.requests`
COMPRESSED = (".gz", ".zst", ".zstd", ".bz2", ".xz")
ROWS = 256  # rows of a table that are in memory at once
# Files of the `datasets` library beside its tables, and answers that belong to questions (`bfcl`).
BESIDE = {"dataset_info.json", "state.json", "dataset_dict.json"}


def list_files(paths: str | Path | Iterable[str | Path]) -> list[tuple[str, Path]]:
    """The files that paths of files and folders stand for: `(name, path)` each, with names that differ.

    The order is that of the paths; within a folder that of the names, by their bytes. Raises CallwrightError when
    there is no such file, or a folder without a file of records.
    """
    found: list[tuple[str, Path]] = []
    for given in [paths] if isinstance(paths, str | Path) else list(paths):
        path = Path(given).expanduser()
        if path.is_dir():
            inside = _in_folder(path)
            if not inside:
                raise CallwrightError(
                    f"the folder {path} holds no file of records (a name that ends in {', '.join(ENDINGS)}, with or "
                    f"without {' or '.join(COMPRESSED[:2])}): check config key data.path"
                )
            found += [(inner.relative_to(path).as_posix(), inner) for inner in inside]
        elif path.exists():
            found.append((path.name, path))
        else:
            raise CallwrightError(f"the data file {path} does not exist: check config key data.path")
    times: Counter[str] = Counter()
    names = []
    for name, path in found:
        times[name] += 1
        names.append((name if times[name] == 1 else f"{name}#{times[name]}", path))
    return names


def _in_folder(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = sorted(files, key=lambda path: path.relative_to(folder).as_posix().encode())
    found, left_out = [], []
    for path in files:
        parts = path.relative_to(folder).parts
        name = path.name.casefold()
        plain = next((name.removesuffix(ending) for ending in COMPRESSED if name.endswith(ending)), name)
        if name in BESIDE or any(part.startswith(".") for part in parts) or "possible_answer" in parts[:-1]:
            continue
        (found if plain.endswith(ENDINGS) else left_out).append(path)
    if not found:  # requests written by hand: a folder of them holds nothing else
        found = [path for path in left_out if path.suffix in REQUESTS]
        left_out = [path for path in left_out if path.suffix not in REQUESTS]
    if left_out and found:
        log.warning("%s: %d files are not read, %s among them", folder, len(left_out), left_out[0].name)
    return found


def read_rows(path: str | Path, name: str | None = None) -> Iterator[tuple[str, Any]]:
    """The rows of one file: `(record id, value or RecordError)` each; the id is `<name>:<number>`.

    Raises CallwrightError, at once, when the file cannot be opened.
    """
    path = Path(path)
    name = name or path.name
    try:
        with open(path, "rb") as stream:
            magic = stream.read(8)
    except FileNotFoundError as error:
        raise CallwrightError(f"the data file {path} does not exist: check config key data.path") from error
    except OSError as error:
        raise CallwrightError(f"the data file {path} cannot be read: {error.strerror}") from error
    if magic.startswith(PARQUET):
        return _table_rows(_parquet(path), name)
    if magic.startswith((ARROW_FILE, ARROW_STREAM)):
        return _table_rows(_arrow(path, magic.startswith(ARROW_FILE)), name)
    return read_values(path, name)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        yield from table.iter_batches(batch_size=ROWS)


def _arrow(path: Path, random_access: bool) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        if random_access:
            with pyarrow.ipc.open_file(source) as table:
                for number in range(table.num_record_batches):
                    yield table.get_batch(number)
        else:
            with pyarrow.ipc.open_stream(source) as table:
                yield from table


def _table_rows(batches: Iterator[Any], name: str) -> Iterator[tuple[str, Any]]:
    """The rows of a table's batches; a damaged table gives what can be read, and one rejection for the rest."""
    import pyarrow

    number = 0
    try:
        for batch in batches:
            for start in range(0, batch.num_rows, ROWS):
                for row in batch.slice(start, ROWS).to_pylist():
                    number += 1
                    yield f"{name}:{number}", without_gaps(without_null(row))
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        what = (str(error).splitlines() or [""])[0][:160]
        yield f"{name}:{number + 1}", RecordError("unreadable", f"the file is damaged from here on: {what}")


def without_null(value: Any) -> Any:
    """A row of a table without the fields that are null, its other values as JSON has them.

    A column of a table has one set of fields for all rows, so that an object comes back with the fields of all
    other rows' objects too, as null; a null that was meant cannot be told from these. Maps come as pairs of key and
    value; times, decimal numbers and bytes become texts and numbers.
    """
    if isinstance(value, dict):
        return {key: without_null(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        if value and all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value):
            return {key: without_null(inner) for key, inner in value if inner is not None}
        return [without_null(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, datetime.timedelta) else value


def without_gaps(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table without the columns that are NaN, which is how pandas writes that there is nothing."""
    return {key: value for key, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
