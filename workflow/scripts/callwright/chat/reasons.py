"""A line of reasons for the calls that answer a request, by rule: where in the request each value comes from.

Needle writes such a line before its calls; these are like its own. Each tool is named first: which one is meant is
decided there, with the whole request in view, and what follows only has to agree. What was said as it stands in the
call is named with its argument; what has another form there is named beside it:

    add_task with task 'pay the fine' from query, '31 December 2026' -> due '2026-12-31'.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

NOTHING_FITS = "No tool available for this request."
_MONTH = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec"
)
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = re.compile(
    rf"\b(?:{_ORDINAL}(?: of)? (?:{_MONTH})\b\.?(?:,? \d{{4}})?|(?:{_MONTH})\b\.? {_ORDINAL}\b(?:,? \d{{4}})?"
    r"|\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./](?:\d{4}|\d\d)?)",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r"\b(?:(?:the )?day after tomorrow|today|tonight|tomorrow|(?:(?:next|this|on) )?"
    r"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)|next week)\b",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\b(?:\d{1,2}(?:[:.]\d\d)? ?[ap]\.?m\b\.?|\d{1,2}[:.]\d\d|(?:half past|quarter past|quarter to) \w+|noon|midnight"
    r"|\d{1,2} o'clock)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\d])")
_UP_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS = {
    **{word: number for number, word in enumerate(_UP_TO_TWENTY.split())},
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "ninety": 90, "hundred": 100, "half": 0.5, "dozen": 12,
    "once": 1, "twice": 2, "first": 1, "second": 2, "third": 3,
}  # fmt: skip


def line_of_reasons(messages: list[dict[str, Any]], calls: list[dict[str, Any]]) -> str:
    """One line that says where in the last request the values of `calls` come from; without calls that no tool fits."""
    if not calls:
        return NOTHING_FITS
    text = next((str(m.get("content") or "") for m in reversed(messages) if m.get("role") == "user"), "")
    parts = []
    for call in calls:
        found = [explained(name, value, text) for name, value in call["arguments"].items()]
        parts.append(f"{call['name']} with {', '.join(found)}" if found else f"{call['name']} without arguments")
    return "; ".join(parts) + "."


def explained(name: str, value: Any, text: str) -> str:
    """Where one argument's value comes from."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        said = [span(item, text) for item in value]
        return f"{name} {written(value)}" + (" from query" if all(said) else "")
    found = span(value, text)
    if found is None:
        return f"{name} {written(value)}"
    if found == str(value):
        return f"{name} {written(value)} from query"
    return f"'{found}' -> {name} {written(value)}"


def written(value: Any) -> str:
    """A value in a line of reasons: text in single quotes, all else as JSON without spaces."""
    if isinstance(value, str):
        return f"'{' '.join(value.split())}'"
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace('"', "'") if isinstance(value, list) else text


def span(value: Any, text: str) -> str | None:
    """The part of `text` that says `value`; None where nothing does that can be told by rule."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return next((said for said, number in numbers(text) if abs(number - value) <= 1e-9 * max(1, abs(value))), None)
    if not isinstance(value, str) or not value.strip():
        return None
    at = re.search(rf"(?<!\w){re.escape(value.strip())}(?!\w)", text, re.IGNORECASE)
    if at:
        return at[0]
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return _dated(value, text)
    clock = re.fullmatch(r"(\d\d?):(\d\d)(?::\d\d)?", value)
    if clock:
        return _timed(int(clock[1]), int(clock[2]), text)
    return None


def numbers(text: str) -> Iterator[tuple[str, float]]:
    """(what is said, the number) of the numbers in digits, then of those in words."""
    for match in _NUMBER.finditer(text):
        yield match[0], float(match[0].replace(",", ""))
    for match in re.finditer(r"[a-z]+", text, re.IGNORECASE):
        if match[0].lower() in NUMBER_WORDS:
            yield match[0], float(NUMBER_WORDS[match[0].lower()])


def _dated(value: str, text: str) -> str | None:
    day = int(value[8:])
    for match in _DATE.finditer(text):
        if day in (int(digits) for digits in re.findall(r"\d+", match[0])):
            return match[0].strip()
    found = _RELATIVE.search(text)
    return found[0] if found else None


def _timed(hour: int, minute: int, text: str) -> str | None:
    for match in _TIME.finditer(text):
        digits = [int(number) for number in re.findall(r"\d+", match[0])]
        if not digits or (digits[0] % 12 == hour % 12 and (len(digits) == 1 or digits[1] == minute)):
            return match[0].strip()
    for word, number in NUMBER_WORDS.items():
        if minute == 0 and number == hour % 12 and (found := re.search(rf"\b{word}\b", text, re.IGNORECASE)):
            return found[0]
    return None
