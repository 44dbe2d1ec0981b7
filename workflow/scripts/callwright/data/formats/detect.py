"""The formats in which records come: how each is told, and how its rows become examples."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from callwright.data.formats import bfcl, glaive, openai, sharegpt, xlam
from callwright.data.formats.conversations import Record
from callwright.data.formats.tools import describes_tools
from callwright.data.formats.turns import RECORD_FLAGS, is_trained, value_of
from callwright.data.records import Example, RecordError, check_json, kind

# By the order in which they are asked whether a row is theirs.
FITS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "examples": lambda row: isinstance(value_of(row.get("messages"), loose=False), list) and "calls" in row,
    "openai": openai.fits,
    "sharegpt": sharegpt.fits,
    "glaive": glaive.fits,
    "bfcl": bfcl.fits,
    "xlam": lambda row: "query" in row and ("answers" in row or "tools" in row),
}
FORMATS = tuple(FITS)
NAMES = (
    "a `query` with `tools` and `answers` (xLAM), `messages` (OpenAI, Anthropic) or `contents` (Gemini), "
    "`conversations` (ShareGPT), `chat` (Glaive), `question` and `function` (BFCL), or `messages` with `calls` "
    "(examples)"
)
# Fields of the formats that hold lists and objects, or their JSON text.
OWN = ("messages", "tools", "calls", "tags", "possible")


def detect(row: Any) -> str | None:
    """The name of the format that a row is in, by its fields; None when it is in none."""
    if not isinstance(row, dict):
        return None
    return next((name for name, fits in FITS.items() if fits(row)), None)


def to_records(
    record_id: str, row: Any, format: str | None = None, answers: Mapping[str, Any] | None = None
) -> Iterator[Record]:
    """The examples of a row, `(id, Example or RecordError)` each, at least one. Never raises.

    `format`: one of FORMATS; None finds it by the row's fields. `answers`: BFCL's right answers by id.
    """
    if isinstance(row, RecordError):
        yield record_id, row
        return
    try:
        yield from _examples(record_id, row, format, answers)
    except RecordError as error:
        yield record_id, error


def _examples(record_id: str, row: Any, format: str | None, answers: Mapping[str, Any] | None) -> Iterator[Record]:
    check_json(row)
    if not isinstance(row, dict):
        raise RecordError("wrong_type", f"the record is {kind(row)}, expected an object")
    format = format or detect(row)
    if format is None and (describes_tools(row) or "openapi" in row):
        raise RecordError(
            "unknown_format", "the record describes tools, it is no example: name its file by `tools_from` in a toolset"
        )
    if format is None:
        name = next((name for name in ("messages", "contents", *sharegpt.NAMES) if name in row), None)
        if name is not None and not isinstance(value_of(row[name], loose=False), list):
            found = "text that is not the JSON of a list" if isinstance(row[name], str) else kind(row[name])
            raise RecordError("unknown_format", f"the field {name!r} is {found}, expected a list of turns")
        fields = f"the fields {', '.join(list(row)[:8])[:200]}" if row else "no field"
        raise RecordError("unknown_format", f"the record has {fields}; expected {NAMES}")
    if not is_trained(row, RECORD_FLAGS, "the record"):
        raise RecordError("not_trained", "the record says of itself that it is not to be trained")
    if format == "examples":
        yield (
            record_id,
            Example.from_row({**row, **{key: value_of(row[key], loose=False) for key in OWN if key in row}}),
        )
    elif format == "xlam":
        yield record_id, xlam.to_example(record_id, row)
    elif format == "openai":
        yield from openai.examples(record_id, row)
    elif format == "sharegpt":
        yield from sharegpt.examples(record_id, row)
    elif format == "glaive":
        yield from glaive.examples(record_id, row)
    else:
        yield from bfcl.examples(record_id, row, answers)
