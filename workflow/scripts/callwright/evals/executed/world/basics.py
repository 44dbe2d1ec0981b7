"""What the world's functions share: how names, texts, days and times are read, and the error of an impossible call."""

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

# The world's clock stands still, so that the same calls reach the same state in every run: a Monday, at noon.
TODAY = datetime.date(2026, 3, 2)
NOW = "12:00"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

State = dict[str, Any]


class ToolError(Exception):
    """A call that cannot be done: what is named is not there, or a value cannot be meant."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the world.

    run      called with the state and the arguments of the call: alters the state, returns what the caller is told
    reads    True when it only looks: the state stays, what it returns is what counts
    arrange  called with the state and the arguments before a task begins: puts there what the call needs, and sees
             to it that the call has something to do
    """

    run: Callable[..., Any]
    reads: bool = False
    arrange: Callable[..., None] | None = None


def plain(text: str) -> str:
    """A text without the quotes around it, superfluous blanks and marks at its end."""
    if not isinstance(text, str):
        raise ToolError(f"{text!r} is no text")
    return " ".join(text.split()).strip("\"'“”").rstrip(".!").strip()


def key(text: str) -> str:
    """What names are compared by: no case, no article."""
    return re.sub(r"^(the|my) ", "", plain(text).casefold())


def lookup(names: Iterable[str], wanted: str) -> str | None:
    """The name among `names` that `wanted` means, or None."""
    return next((name for name in names if key(name) == key(wanted)), None)


def find(names: Iterable[str], wanted: str, what: str) -> str:
    """The name among `names` that `wanted` means; raises ToolError when there is none."""
    found = lookup(names, wanted)
    if found is None:
        raise ToolError(f"there is no {what} {wanted!r}")
    return found


def named(text: str, what: str) -> str:
    """A new name; raises ToolError when it is empty."""
    if not plain(text):
        raise ToolError(f"a {what} needs a name")
    return plain(text)


def as_time(text: str) -> str:
    """A time of day as HH:MM; raises ToolError for anything else."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})(?::00)?", plain(text))
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise ToolError(f"{text!r} is no time of day (HH:MM)")
    return f"{int(match[1]):02}:{match[2]}"


def minutes_of(time: str) -> int:
    """Minutes since midnight of a time HH:MM."""
    hours, minutes = time.split(":")
    return 60 * int(hours) + int(minutes)


def clock(minutes: int) -> str:
    """HH:MM of minutes since midnight, of whichever day."""
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def as_date(text: str) -> str:
    """A date as YYYY-MM-DD, from that, from MM-DD (the next such day) or from words; ToolError for anything else.

    `Friday` is the next one after today, `next Friday` the one of next week.
    """
    word = re.sub(r"^on ", "", plain(text).casefold())
    if match := re.fullmatch(r"(?:(\d{4})-)?(\d{1,2})-(\d{1,2})", word):
        year, month, day = match[1], int(match[2]), int(match[3])
        try:
            found = datetime.date(int(year or TODAY.year), month, day)
            if not year and found < TODAY:
                found = datetime.date(TODAY.year + 1, month, day)
        except ValueError as error:
            raise ToolError(f"{text!r} is no date") from error
        return found.isoformat()
    ahead = {"today": 0, "tonight": 0, "tomorrow": 1, "the day after tomorrow": 2, "day after tomorrow": 2}.get(word)
    if match := re.fullmatch(r"in (\w+) (day|week)s?", word):
        number = NUMBERS.index(match[1]) if match[1] in NUMBERS else int(match[1]) if match[1].isdecimal() else None
        ahead = None if number is None else number * (7 if match[2] == "week" else 1)
    elif (match := re.fullmatch(r"(next |this |coming )?(\w+)", word)) and match[2] in WEEKDAYS:
        weekday = WEEKDAYS.index(match[2]) - TODAY.weekday()
        ahead = weekday + 7 if match[1] == "next " else (weekday - 1) % 7 + 1
    if ahead is None:
        raise ToolError(f"{text!r} is no date (YYYY-MM-DD)")
    return (TODAY + datetime.timedelta(days=ahead)).isoformat()


def as_day(text: str) -> str:
    """A day as a date where it can be told, else in the words that were said."""
    try:
        return as_date(text)
    except ToolError:
        return key(text)
