"""Where records come from: a toolset, files of other people's records, or Hugging Face.

Each source yields `(record id, Example)` or `(record id, RecordError)`, one for each record that it
holds, and one for each turn of a conversation that is trained: a broken one becomes a rejection with a
reason, and reading goes on.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from callwright.data.formats import bfcl, xlam
from callwright.data.formats.conversations import Record
from callwright.data.formats.detect import FORMATS, to_records
from callwright.data.formats.inputs import REQUESTS, list_files, read_rows
from callwright.data.formats.requests import read_requests
from callwright.data.records import Example, RecordError
from callwright.data.toolset.generate import generate, hold_out_tools
from callwright.data.toolset.own_examples import own_records
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.variety import read_variety
from callwright.runtime.errors import CallwrightError

SURPLUS = 1.05  # some more generated examples than wanted, for those that curation rejects


def open_records(settings: dict[str, Any]) -> Iterator[Record]:
    """The records that the configuration names: `data.source` is toolset, files, or one of formats.FORMATS.

    Reads the keys toolset, data.{source, path, examples, seed, no_call, requests_per_tool_list} and
    split.{test, unseen_tools}. Raises CallwrightError when the source as a whole cannot be used: no such file, no
    access, no network.
    """
    data, split = settings["data"], settings["split"]
    if data["source"] == "toolset":
        toolset = load_toolset(settings["toolset"])
        examples = generate(
            toolset,
            examples=round(data["examples"] * SURPLUS),
            seed=data["seed"],
            test=split["test"],
            unseen_tools=split["unseen_tools"],
            no_call=data.get("no_call"),
            requests_per_tool_list=data.get("requests_per_tool_list", 1),
            variety=read_variety(data.get("variety")),
            valid=split.get("valid", 0.1),
        )
        held_out = hold_out_tools(toolset, data["seed"]) if toolset.examples and split["unseen_tools"] > 0 else set()
        return itertools.chain(own_records(toolset, held_out), ((example.id, example) for example in examples))
    if data["source"] == "xlam" and not data["path"]:
        return xlam.read_hub()
    return read_records(data["path"], data["source"])


def read_records(paths: str | Path | Iterable[str | Path] | None, format: str = "files") -> Iterator[Record]:
    """The records of local files and folders in a format; with `files` each record's own, found by its fields.

    YAML files hold requests written by hand (`formats.requests`).

    Raises CallwrightError, at once, when the format is not known or a file cannot be opened.
    """
    if format != "files" and format not in FORMATS:
        raise CallwrightError(f"config key data.source is {format!r}: expected toolset, files or {', '.join(FORMATS)}")
    if not paths:
        raise CallwrightError(f"config key data.path is empty: with `source: {format}` name a file of records")
    files = list_files(paths)
    for _, path in files:
        (read_requests if path.suffix in REQUESTS else read_rows)(
            path
        )  # opened, and closed again unread: a file that cannot be read stops the run at its start
    return _records(files, None if format == "files" else format)


def _records(files: list[tuple[str, Path]], format: str | None) -> Iterator[Record]:
    for record_id, record, _ in _records_and_rows(files, format):
        yield record_id, record


def records_and_rows(paths: str | Path | Iterable[str | Path]) -> Iterator[tuple[str, Example | RecordError, Any]]:
    """The records of local files as `read_records` gives them, each with the row that it comes from."""
    return _records_and_rows(list_files(paths), None)


def _records_and_rows(
    files: list[tuple[str, Path]], format: str | None
) -> Iterator[tuple[str, Example | RecordError, Any]]:
    for name, path in files:
        if path.suffix in REQUESTS:
            for record_id, record in read_requests(path):
                yield record_id, record, None
            continue
        answers = bfcl.answers_beside(path) if format in (None, "bfcl") else {}
        for record_id, row in read_rows(path, name):
            for each, record in to_records(record_id, row, format, answers):
                yield each, record, row
