"""Is a call's argument something that the conversation says? What cannot be found there is flagged, not rejected.

A value is grounded when the messages before the call (the system's, the user's, and results of tools) hold it:

- text: its words stand there, in any order, whatever the case, punctuation, accents and plural; or they do as a part
  of longer words
- a number: the same number stands there, in digits (1,500; 1.5k; 20 %; 3rd) or in words (two hundred, half, a dozen),
  or in another unit of time (an hour and a half: 90)
- a date or time: its day, month or hour stands there in some form (May 4, 04.05., next Friday, today, 7pm)
- a list or object: each of its parts is grounded

Some values are derived by the nature of their parameter, and count as grounded: truth values, null, empty values,
the default of the parameter, one of its enumerated values, short codes (USD, en, ETH). What is left may be known
to the world (the coordinates of a city) or invented: a person has to look, and the ledger counts it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from callwright.data.records import Example, text_of

_UP_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SMALL = {
    **{word: float(value) for value, word in enumerate(_UP_TO_NINETEEN.split())},
    **{word: 10.0 * value for value, word in enumerate(_TENS, 2)},
    "a": 1.0, "an": 1.0, "once": 1.0, "twice": 2.0, "pair": 2.0, "couple": 2.0, "dozen": 12.0, "half": 0.5,
    "quarter": 0.25, "first": 1.0, "second": 2.0, "third": 3.0, "fourth": 4.0, "fifth": 5.0, "sixth": 6.0,
    "seventh": 7.0, "eighth": 8.0, "ninth": 9.0, "tenth": 10.0, "twelfth": 12.0, "fifteenth": 15.0, "twentieth": 20.0,
    "thirtieth": 30.0, "single": 1.0, "double": 2.0, "both": 2.0, "fiver": 5.0, "tenner": 10.0,
    "triple": 3.0, "no": 0.0, "noon": 12.0, "midnight": 0.0,
}  # fmt: skip
NUMBER_WORDS = frozenset({*_SMALL, *_SCALES})
_SUFFIX = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "billion": 1e9, "%": 0.01, "percent": 0.01}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
# What a number of these is in smaller units: of time, then of weight, volume, length and storage.
_SMALLER = {
    r"\bhours?\b|\bhrs?\b|\dh": (60, 3600), r"\bminutes?\b|\bmins?\b": (60,), r"\bweeks?\b": (7,),
    r"\bdays?\b": (24,), r"\byears?\b": (12,), r"\bseconds?\b|\bsecs?\b": (1000,),
    r"\bkilo|\btonnes?\b|\blit(?:re|er)s?\b|\bmet(?:re|er)s?\b|(?:\d|\b)(?:kg|km|gb|l)\b": (1000,),
}  # fmt: skip
_WORDS = "|".join(_SMALL)
_COUNT = rf"(\d+|(?:{_WORDS})(?:-(?:{_WORDS}))?)"  # a number in digits or words, as `_value` reads it
_TWO_UNITS = re.compile(  # 3 hours 20; 2 minutes and 30 seconds; but not 3 hours 20 people
    rf"\b{_COUNT}[\s-]*(?:hours?|hrs?|h|minutes?|mins?)[\s,]*(?:and\s+)?{_COUNT}(?!\d|\s+(?!min|sec)[a-z])"
)
_ONE = re.compile(  # one, without the word
    r"\banother\b|\balone\b|\b(?:just|only) me\b|\bon (?:my|his|her) own\b|\bby (?:my|him|her)self\b"
)
_TO_THE_HOUR = re.compile(r"\b(?:quarter|five|ten|twenty|\d+|minutes) to\b")  # a quarter to twelve: 11:45
_RELATIVE = re.compile(
    r"\b(today|tonight|tomorrow|yesterday|now|current|currently|latest|upcoming|next|last|past|previous|this|coming|"
    r"ago|noon|midday|(?:mon|tues|wednes|thurs|fri|satur|sun)day|mon|tues?|wed|thurs?|fri|sat|sun|tmrw|weekend|"
    r"new year|christmas|end of|in \w+ (?:days?|weeks?|months?|years?))\b"
)
# A day alone says no time of day, nor does a number that belongs to a word (flat 3E).
_PRESENT = re.compile(
    r"\b(now|midday|current|currently|tonight|morning|evening|afternoon|lunch|breakfast|dinner|ago|in an?)\b"
)
_HOUR = re.compile(r"(?<![\w.,])(\d{1,2})(?=(?:[:.h]?\d\d|h|\s?[ap]\.?m)?(?!\w))")
_DATE = re.compile(r"(\d{4})-(\d{1,2})(?:-(\d{1,2}))?(?:[T ](\d{1,2}):(\d{2})(?::\d{2})?(?:Z|[+-]\d\d:?\d\d)?)?")
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::\d{2})?")
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|-?\.\d+")


class Context:
    """What is said in a conversation before a call, prepared for look-ups."""

    def __init__(self, text: str):
        folded = fold(text)
        self.text = text.casefold()
        words = _WORD.findall(folded)
        self.words = frozenset(map(stem, words))
        self.squeezed = "".join(words)
        self.numbers = frozenset(_numbers(self.text))
        said = (factors for unit, factors in _SMALLER.items() if re.search(unit, self.text))
        self.factors = [1, *(factor for factors in said for factor in factors)]

    @cached_property
    def numbers_in_words(self) -> frozenset[float]:
        """The numbers that are said in words."""
        return frozenset(_numbers(re.sub(r"\d", " ", self.text)))

    def holds(self, value: Any, schema: dict[str, Any]) -> bool:
        """True when a value of this JSON Schema is grounded."""
        if value is None or isinstance(value, bool) or value in ("", [], {}):
            return True
        if "default" in schema and value == schema["default"]:
            return True
        if "enum" in schema or "const" in schema:
            return True
        if isinstance(value, int | float):
            return self.holds_number(value)
        if isinstance(value, str):
            return self.holds_text(value)
        if isinstance(value, dict):
            parts = schema.get("properties") if isinstance(schema.get("properties"), dict) else {}
            return all(self.holds(inner, _schema(parts.get(name))) for name, inner in value.items())
        items = _schema(schema.get("items"))
        return all(self.holds(inner, items) for inner in value)

    def holds_number(self, value: float) -> bool:
        """True when the number is said, or what a minus sign, a percentage, cents or a smaller unit makes of it."""
        if abs(value) >= 1e300:
            return False
        said = [number * factor for number in self.numbers for factor in self.factors]
        said += [100 * number for number in self.numbers if number < 1 or "cent" in self.text]
        return any(_close(number, abs(value)) or _close(number, value) for number in said)

    def holds_text(self, value: str) -> bool:
        """True when the text is said, as it is or in another form of the same."""
        text = value.strip()
        if re.fullmatch(r"\d{2}-\d{2}", text):  # a date of no year
            text = f"0000-{text}"
        if _DATE.fullmatch(text) or _TIME.fullmatch(text):
            return self.holds_time(text)
        folded = fold(text)
        plain = _WORD.findall(folded)
        words = list(map(stem, plain))
        if not words:  # signs alone
            return text.casefold() in self.text
        if all(word in self.words for word in words) or "".join(plain) in self.squeezed:
            return True
        if text.isascii() and text.isalpha() and len(text) <= 3:  # a code, or initials
            return True
        try:
            return self.holds_number(float(text.replace(",", "")))
        except ValueError:
            return False

    def holds_time(self, text: str) -> bool:
        """True when some part of a date or time is said, or a word that it follows from."""
        if text.casefold() in self.text:
            return True
        if match := _TIME.fullmatch(text):
            hour, said = int(match.group(1)), {*map(int, _HOUR.findall(self.text)), *self.numbers_in_words}
            if int(match.group(2)) and _TO_THE_HOUR.search(self.text):
                said |= {hour - 1 for hour in said} | ({12} if 1 in said else set())
            return bool({hour, hour % 12, hour % 12 or 12} & said or _PRESENT.search(self.text))
        if _RELATIVE.search(self.text):
            return True
        digits = {*map(int, re.findall(r"\d{1,4}", self.text)), *self.numbers}
        _, month, day, hour, _ = _DATE.fullmatch(text).groups()
        month_said = 1 <= int(month) <= 12 and re.search(rf"\b{_MONTHS[int(month) - 1]}", self.text)
        said = [part for part in (month, day, hour) if part is not None and int(part) in digits]
        return bool(month_said or said)


def ungrounded(example: Example) -> list[str]:
    """Paths `tool.argument` of the arguments that the conversation does not hold."""
    if not example.calls:
        return []
    context = context_of(example.messages)
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
    return [
        f"{call['name']}.{name}"
        for call in example.calls
        for name in unsaid(context, call["arguments"], schemas.get(call["name"], {}))
    ]


def context_of(messages: Sequence[dict[str, Any]]) -> Context:
    """What a conversation says."""
    return Context("\n".join(text_of(message) for message in messages))


def unsaid(context: Context, arguments: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """The arguments of a call, by the schema of its parameters, that were not said."""
    properties = _schema(schema.get("properties"))
    return [name for name, value in arguments.items() if not context.holds(value, _schema(properties.get(name)))]


def to_ask_for(context: Context, arguments: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What a call is to be asked for: required values that it lacks, then arguments that nobody said, or not twice."""
    lacking = [name for name in schema.get("required") or [] if name not in arguments]
    return [*lacking, *dict.fromkeys([*unsaid(context, arguments, schema), *_again(context, arguments, schema)])]


def _again(context: Context, arguments: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Arguments that hold the text of another one before them, though it was said once: a card's number as a title."""
    held: set[str] = set()
    again = []
    for name, part in _schema(schema.get("properties")).items():
        value = arguments.get(name)
        if isinstance(value, str) and len(value) > 3 and "enum" not in _schema(part):
            text = value.casefold()
            if text in held and context.text.count(text) == 1:
                again.append(name)
            held.add(text)
    return again


def fold(text: str) -> str:
    """A text without case and accents."""
    if text.isascii():
        return text.casefold()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in parts if not unicodedata.combining(character))


def stem(word: str) -> str:
    """A word without the ending of a plural."""
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word[:-1]
    return word


def _numbers(text: str) -> Iterator[float]:
    """All numbers that a text says, in digits, words or names of months beside a digit or behind in, by, from …"""
    before = r"(?:\d(?:st|nd|rd|th)? (?:of )?|\b(?:in|by|since|until|of|from|on) )"
    yield from (at for at, name in enumerate(_MONTHS, 1) if re.search(rf"{before}{name}|\b{name}[a-z]* \d", text))
    for match in re.finditer(rf"({_NUMBER.pattern})\s*(k|m|thousand|million|billion|%|percent)?(?![a-z])", text):
        yield from _read(match.group(1), match.group(2))
    for match in _NUMBER.finditer(text):
        yield from _read(match.group(), None)
    for match in re.finditer(rf"\b{_COUNT}(?:\s+[a-z]+)?\s+and\s+a\s+half\b", text):
        yield 0.5 + _value(match.group(1), 0.0)
    for match in re.finditer(rf"\b{_COUNT}\s+dozen\b", text):  # two dozen eggs
        yield 12 * _value(match.group(1), 1.0)
    for match in _TWO_UNITS.finditer(text):
        yield 60 * _value(match.group(1), 0.0) + _value(match.group(2), 0.0)
    for match in re.finditer(rf"\b{_COUNT}[\s-]+quarters\b", text):
        yield _value(match.group(1), 0.0) / 4
    for match in re.finditer(rf"\b(half|quarter)(?:\s+of)?(?:\s+an?)?\s+({'|'.join(_SCALES)}|dozen)\b", text):
        yield _SMALL[match.group(1)] * _SCALES.get(match.group(2), 12)
    for match in re.finditer(r"(?:\b(\d+)[ -])?(?<![\d/])([1-9])/([2-9])(?![\d/])", text):  # 1 1/2
        yield int(match.group(1) or 0) + int(match.group(2)) / int(match.group(3))
    for match in re.finditer(r"(\d*) ?([½¼¾⅓⅔])", text):
        yield int(match.group(1) or 0) + unicodedata.numeric(match.group(2))
    for match in re.finditer(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})*|\d+),(\d{1,2})(?![\d,])", text):  # 1.249,90
        yield float(match.group(1).replace(".", "") + "." + match.group(2))
    for match in re.finditer(rf"\b{_COUNT}\s+(?:dollars?|euros?|pounds?)\s+(?:and\s+)?{_COUNT}(?![\w-])", text):
        yield _value(match.group(1), 0.0) + _value(match.group(2), 0.0) / 100  # 12 dollars 50
    if _ONE.search(text):
        yield 1.0
    if "fortnight" in text:
        yield from (2.0, 14.0)
    total, current, last, open_ = 0.0, 0.0, 0.0, False
    for word in [*re.findall(r"[a-z]+", text), "."]:
        if word in _SMALL:
            yield _SMALL[word]
            if open_ and (word in ("a", "an", "no") or _SMALL[word] >= last > 0):  # another number: thirty, thirty-one
                yield total + current
                total, current = 0.0, 0.0
            current, last, open_ = current + _SMALL[word], _SMALL[word], True
        elif word in _SCALES:
            current, last, open_ = (current if open_ else 1.0) * _SCALES[word], _SCALES[word], True
            if word != "hundred":
                total, current = total + current, 0.0
        elif not (word == "and" and open_):
            if open_:
                yield total + current
            total, current, last, open_ = 0.0, 0.0, 0.0, False


def _value(word: str, otherwise: float) -> float:
    """A number in digits, or in one or two words (twenty-one)."""
    if word.isdecimal() and word.isascii():
        return float(word)
    parts = [_SMALL.get(part) for part in word.split("-")]
    return otherwise if None in parts else sum(parts)


def _read(digits: str, suffix: str | None) -> Iterator[float]:
    plain = digits.replace(",", "")
    for text in {plain, plain.lstrip("-"), *digits.split(",")}:
        try:
            yield float(text) * _SUFFIX.get(suffix or "", 1.0)
        except ValueError:
            continue


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-9 * max(abs(one), abs(other))


def _schema(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
