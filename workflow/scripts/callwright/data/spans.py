"""Which words of a request say a value, and which value words say: for arguments that are text or numbers."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from callwright.data.times_and_numbers import DATES, NUMBER, TIMES, date_of, number_of, time_of

Span = tuple[int, int]  # of characters, the end behind the last
EDGES = ' ,;:"“”'  # of words that are none of them


def plain(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema that null fits, too, as what else fits it: `type: [string, null]`, or `anyOf` with one other branch."""
    branches = schema.get("anyOf")
    if isinstance(branches, list):
        others = [one for one in branches if isinstance(one, Mapping) and one.get("type") != "null"]
        return {**schema, **others[0], "anyOf": None} if len(others) == 1 else schema
    if isinstance(kinds := schema.get("type"), list):
        others = [kind for kind in kinds if kind != "null"]
        return {**schema, "type": others[0]} if len(others) == 1 else schema
    return schema


def is_read(schema: Any) -> bool:
    """Whether the words of a parameter's value can stand in a request: text and numbers, but no enumerations."""
    if not isinstance(schema, Mapping):
        return False
    schema = plain(schema)
    if any(schema.get(key) is not None for key in ("enum", "const", "anyOf", "oneOf", "allOf", "$ref")):
        return False
    return schema.get("type", "string") in ("string", "integer", "number")


def is_date(schema: Mapping[str, Any]) -> bool:
    """Whether a parameter is text of the form YYYY-MM-DD, by its description or format."""
    return _has_form(schema, "YYYY-MM-DD", "date")


def is_time(schema: Mapping[str, Any]) -> bool:
    """Whether a parameter is text of the form HH:MM, by its description or format."""
    return _has_form(schema, "HH:MM", "time")


def _has_form(schema: Mapping[str, Any], form: str, kind: str) -> bool:
    schema, described = plain(schema), str(schema.get("description"))
    if schema.get("type", "string") != "string" or "enum" in schema:
        return False
    alone = rf"(?<!DD[T ])\b{form}\b(?![T:]|\s*[Hh][Hh])"  # no part of a date with its time, or of one with seconds
    return schema.get("format") == kind or re.search(alone, described) is not None


def spans_of(value: Any, schema: Mapping[str, Any], text: str) -> list[Span]:
    """The places of a text that say a value, be it in words or digits; none for what no words say as they are."""
    schema = plain(schema)
    lowered = text.lower()  # of the same length, where it has no capital like İ
    if len(lowered) != len(text) or isinstance(value, bool):
        return []
    found = [match.span() for match, said in _read(schema, lowered) if said == value]
    if found or not isinstance(value, str) or not value.strip():
        return found
    return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(value.strip().lower())}(?!\w)", lowered)]


def value_of(words: str, schema: Mapping[str, Any]) -> Any:
    """The value of a parameter that words say; None where they say none of its kind, or one of two (at seven)."""
    schema = plain(schema)
    lowered = words.lower()
    exact = [said for match, said in _read(schema, lowered) if match.span() == (0, len(lowered))]
    if exact:
        return exact[0]
    as_said = schema.get("type", "string") == "string" and not is_date(schema) and not is_time(schema)
    return (words.strip(EDGES) or None) if as_said else None


def _read(schema: Mapping[str, Any], text: str) -> Iterator[tuple[re.Match[str], Any]]:
    """What a text says of a parameter's kind, each with its place: times, dates or numbers."""
    if is_time(schema):
        found = ((match, time_of(match, False)) for pattern in TIMES for match in re.finditer(pattern, text))
    elif is_date(schema):
        found = ((match, date_of(match)) for pattern in DATES for match in re.finditer(pattern, text))
    elif schema.get("type") in ("integer", "number"):
        whole = schema["type"] == "integer"
        found = ((match, number_of(match)) for match in NUMBER.finditer(text))
        found = ((match, said) for match, said in found if math.isfinite(said) and not (whole and type(said) is float))
    else:
        return
    yield from ((match, said) for match, said in found if said is not None)
