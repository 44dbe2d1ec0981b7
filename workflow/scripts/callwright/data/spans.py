"""Which words of a request say a value, and which value words say: for arguments that are text or numbers."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from callwright.data.times_and_numbers import (
    DATES,
    HALVES,
    HOUR,
    LATE,
    MONTHS_OF_A_YEAR,
    NUMBER,
    TIMES,
    date_of,
    halves_of,
    month_of,
    number_of,
    time_of,
)

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


def enumeration_of(schema: Any) -> list[Any]:
    """The values of a parameter that is one of them, or a list of some of them; none of any other one."""
    if not isinstance(schema, Mapping):
        return []
    schema = plain(schema)
    if schema.get("type") == "array" and isinstance(items := schema.get("items"), Mapping):
        schema = items
    values = schema.get("enum")
    return values if isinstance(values, list) else []


def is_date(schema: Mapping[str, Any]) -> bool:
    """Whether a parameter is text of the form YYYY-MM-DD, by its description or format."""
    return _has_form(schema, "YYYY-MM-DD", "date")


def is_month(schema: Mapping[str, Any]) -> bool:
    """Whether a parameter is text of the form YYYY-MM, by its description."""
    return not is_date(schema) and _has_form(schema, r"YYYY-MM(?!-)", "month")


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
    found = [span for span, said in _read(schema, lowered) if value in said]
    if found or not isinstance(value, str) or not value.strip():
        return found
    return [match.span() for match in re.finditer(rf"(?<!\w){re.escape(value.strip().lower())}(?!\w)", lowered)]


def values_of(words: str, schema: Mapping[str, Any]) -> list[Any]:
    """The value of a parameter that words say; none where they say none of its kind; two where they may say either,
    the likelier one first: 16:00 and 04:00 for "four".
    """
    schema = plain(schema)
    lowered = words.lower()
    exact = [said for span, said in _read(schema, lowered) if span == (0, len(lowered))]
    if not exact and is_time(schema) and (match := re.fullmatch(HOUR, lowered)):
        exact = [halves_of(match)]
    if exact:
        return exact[0]
    as_said = schema.get("type", "string") == "string" and not any(has(schema) for has in (is_date, is_month, is_time))
    return [said] if as_said and (said := words.strip(EDGES)) else []


def said_in(text: str, schema: Mapping[str, Any]) -> list[tuple[Span, list[Any]]]:
    """What a text says of a parameter's kind, each with its place: no ten where it says "ten to eight"."""
    schema, lowered = plain(schema), text.lower()
    found = list(_read(schema, lowered)) if len(lowered) == len(text) else []
    outer, reached = set(), 0
    for start, end in sorted({span for span, _ in found}, key=lambda span: (span[0], -span[1])):
        if end > reached:
            outer.add((start, end))
            reached = end
    return [one for one in found if one[0] in outer]


def _read(schema: Mapping[str, Any], text: str) -> Iterator[tuple[Span, list[Any]]]:
    """What a text says of a parameter's kind, each with its place: times, dates, months or numbers."""
    if is_time(schema):
        late = LATE.search(text) is not None
        for pattern in TIMES:
            for match in re.finditer(pattern, text):
                yield match.span(), [said] if (said := time_of(match, late)) else halves_of(match, late)
        for pattern in HALVES:
            for match in re.finditer(pattern, text):
                yield match.span("said" if "said" in match.groupdict() else 0), halves_of(match, late)
        return
    if is_date(schema):
        found = ((match, date_of(match)) for pattern in DATES for match in re.finditer(pattern, text))
    elif is_month(schema):
        found = ((match, month_of(match)) for pattern in MONTHS_OF_A_YEAR for match in re.finditer(pattern, text))
    elif schema.get("type") in ("integer", "number"):
        whole = schema["type"] == "integer"
        found = ((match, number_of(match)) for match in NUMBER.finditer(text))
        found = ((match, said) for match, said in found if math.isfinite(said) and not (whole and type(said) is float))
    else:
        return
    yield from ((match.span(), [said]) for match, said in found if said is not None)
