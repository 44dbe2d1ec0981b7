"""Where records come from: a toolset, a file of other people's records, or Hugging Face.

Each source yields `(record id, Example)` or `(record id, RecordError)`, one for each record that it
holds: a broken one becomes a rejection with a reason, and reading goes on.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from callsmith.data import xlam
from callsmith.data.generate import generate
from callsmith.data.readers import read_values
from callsmith.data.records import Example, RecordError
from callsmith.data.toolset import load_toolset
from callsmith.runtime.errors import CallsmithError

Record = tuple[str, Example | RecordError]
# What a file of records may hold: how a row becomes an example.
FORMATS: dict[str, Callable[[str, Any], Example]] = {
    "xlam": xlam.to_example,
    "examples": lambda record_id, row: Example.from_row(row),
}
SURPLUS = 1.05  # some more generated examples than wanted, for those that curation rejects


def open_records(settings: dict[str, Any]) -> Iterator[Record]:
    """The records that the configuration names: `data.source` is toolset, xlam or examples.

    Reads the keys toolset, data.{source, path, examples, seed} and split.{test, unseen_tools}. Raises
    CallsmithError when the source as a whole cannot be used: no such file, no access, no network.
    """
    data, split = settings["data"], settings["split"]
    if data["source"] == "toolset":
        examples = generate(
            load_toolset(settings["toolset"]),
            examples=round(data["examples"] * SURPLUS),
            seed=data["seed"],
            test=split["test"],
            unseen_tools=split["unseen_tools"],
        )
        return ((example.id, example) for example in examples)
    if data["source"] == "xlam" and not data["path"]:
        return xlam.read_hub()
    return read_records(data["path"], data["source"])


def read_records(path: str | Path | None, format: str) -> Iterator[Record]:
    """The records of a local file (JSON Lines or a JSON array) in a format: `xlam`, or `examples`."""
    if format not in FORMATS:
        raise CallsmithError(f"config key data.source is {format!r}: expected toolset, {' or '.join(FORMATS)}")
    if not path:
        raise CallsmithError(f"config key data.path is empty: with `source: {format}` name a file of records")
    return (_read(record_id, value, FORMATS[format]) for record_id, value in read_values(path))


def _read(record_id: str, value: Any, to_example: Callable[[str, Any], Example]) -> Record:
    if isinstance(value, RecordError):
        return record_id, value
    try:
        return record_id, to_example(record_id, value)
    except RecordError as error:
        return record_id, error
