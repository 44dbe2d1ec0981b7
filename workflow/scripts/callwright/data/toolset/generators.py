"""Numbers, dates, times and codes: drawn from a range, said as people say them, written as tools want them.

| said | argument |
|---|---|
| `March 14, 2026`, `14 March 2026`, `2026-03-14` | `"2026-03-14"` |
| `March 14`, `14 March` (`year: false`) | `"03-14"` |
| `March 14, 2026 at 7 am`, `2026-03-14 at 19:30` | `"2026-03-14T07:00:00"`, `"2026-03-14T19:30:00"` |
| `tomorrow`, `next Friday`, `in three days` | as said |
| `Monday`, `on Monday` | `"Monday"` |
| `7 am`, `7:30 pm`, `19:30`, `7 in the morning`, `noon` | `"07:00"`, `"19:30"`, `"19:30"`, `"07:00"`, `"12:00"` |
| `20 minutes`, `half an hour`, `two hours` | `20`, `30`, `120` |
| `three`, `3`, `$12.50` (`say: "${}"`) | `3`, `3`, `12.5` |
"""

import datetime
import random
import re
from collections.abc import Callable
from typing import Any

from callwright.data.toolset.agreement import agree

# What the user says, and the argument's value.
Draw = tuple[str, Any]
MAX_NUMBER = 2**53  # up to here JSON's readers agree on a number, and the steps between numbers stay exact
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DURATIONS = {15: "a quarter of an hour", 30: "half an hour", 60: "an hour", 90: "an hour and a half"}


class ValueSpecError(ValueError):
    """A pool or generator that cannot be read."""


def options_of(spec: dict[str, Any], kind: str, *required: str, **defaults: Any) -> dict[str, Any]:
    """The options of a generator, defaults filled in; raises ValueSpecError for a missing or unknown one."""
    options = spec[kind]
    if not isinstance(options, dict):
        raise ValueSpecError(f"`{kind}` is {options!r:.60}, expected {', '.join([*required, *defaults])}")
    unknown = options.keys() - {*required, *defaults}
    missing = set(required) - options.keys()
    if unknown or missing:
        raise ValueSpecError(
            f"`{kind}` has {'no ' + min(missing) if missing else 'the unknown key ' + str(min(unknown, key=str))}; "
            f"it takes {', '.join([*required, *defaults])}"
        )
    return {**defaults, **options}


def numbers(options: dict[str, Any], kind: str, types: Any) -> tuple[Any, Any]:
    """`from` and `to`, checked: numbers of these types in ascending order."""
    low, high = options["from"], options["to"]
    if not all(isinstance(x, types) and not isinstance(x, bool) for x in (low, high)) or low > high:
        raise ValueSpecError(f"`{kind}` goes from {low!r} to {high!r}, expected two numbers in ascending order")
    if low < -MAX_NUMBER or high > MAX_NUMBER:
        raise ValueSpecError(f"`{kind}` goes from {low!r} to {high!r}, expected numbers of at most 2**53")
    return low, high


def _flag(options: dict[str, Any], key: str) -> bool:
    if not isinstance(options[key], bool):
        raise ValueSpecError(f"`{key}` is {options[key]!r:.60}, expected true or false")
    return options[key]


def _step(options: dict[str, Any]) -> int:
    step = options["step"]
    if type(step) is not int or step < 1:
        raise ValueSpecError(f"the step is {step!r}, expected a whole number from 1 on")
    return step


def _ways(options: dict[str, Any]) -> list[str]:
    """How a number is put: texts with `{}` where it stands."""
    says = options["say"] if isinstance(options["say"], list) else [options["say"]]
    for text in says:
        if not isinstance(text, str) or text.count("{}") != 1 or re.search(r"[{}]", text.replace("{}", "")):
            raise ValueSpecError(f"`say` is {text!r:.60}, expected text with {{}} where the number stands")
    return says or ["{}"]


def _integer(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    options = options_of(spec, "integer", "from", "to", step=1, words=False, say="{}")
    low, high = numbers(options, "integer", int)
    step, words, ways = _step(options), _flag(options, "words"), _ways(options)

    def draw(rng: random.Random) -> Draw:
        value = rng.randrange(low, high + 1, step)
        spelled = words and 0 <= value < len(WORDS) and rng.random() < 0.5
        return agree(rng.choice(ways).format(WORDS[value] if spelled else value)), value

    return draw


def _number(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    options = options_of(spec, "number", "from", "to", decimals=2, say="{}")
    low, high = numbers(options, "number", (int, float))
    decimals, ways = options["decimals"], _ways(options)
    if type(decimals) is not int or decimals not in range(10):
        raise ValueSpecError(f"decimals is {decimals!r}, expected 0 to 9")

    def draw(rng: random.Random) -> Draw:
        scale = 10**decimals
        units = rng.randint(round(low * scale), round(high * scale))
        whole = units // scale * scale
        if decimals and rng.random() < 0.4 and whole >= low * scale:  # people name round numbers more often
            units = whole
        if units % scale == 0:
            return agree(rng.choice(ways).format(units // scale)), units // scale
        text = f"{units / scale:.{decimals}f}"
        return rng.choice(ways).format(text), float(text)

    return draw


def _date(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    options = options_of(spec, "date", "from", "to", year=True)
    first, last = (_parse(datetime.date.fromisoformat, options[key], "a date as 2026-01-31") for key in ("from", "to"))
    year = _flag(options, "year")
    if first > last:
        raise ValueSpecError(f"`date` goes from {first} to {last}, expected ascending order")

    def draw(rng: random.Random) -> Draw:
        day = first + datetime.timedelta(days=rng.randint(0, (last - first).days))
        month = MONTHS[day.month - 1]
        if not year:
            return rng.choice((f"{month} {day.day}", f"{day.day} {month}")), f"{day.month:02d}-{day.day:02d}"
        said = (f"{month} {day.day}, {day.year}", f"{day.day} {month} {day.year}", day.isoformat())
        return rng.choice(said), day.isoformat()

    return draw


def _day(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    """A day as seen from now, copied as it was said; with `on` as an adverb ("on Monday"), else as a noun."""
    adverb = _flag(options_of(spec, "day", on=True), "on")

    def draw(rng: random.Random) -> Draw:
        kind = rng.random()
        weekday = rng.choice(WEEKDAYS)
        if kind < 0.3:
            return (f"on {weekday}" if adverb else weekday), weekday
        if kind < 0.5:
            said = f"next {weekday}"
        elif kind < 0.65 and adverb:
            said = f"in {rng.choice(WORDS[2:7])} {rng.choice(('days', 'weeks'))}"
        else:
            said = rng.choice(("tomorrow", "tomorrow", "today", "the day after tomorrow"))
        return said, said

    return draw


def _time(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    options = options_of(spec, "time", "from", "to", step=15)
    first, last = (_parse(datetime.time.fromisoformat, options[key], "a time as 06:30") for key in ("from", "to"))
    low, high, step = first.hour * 60 + first.minute, last.hour * 60 + last.minute, options["step"]
    if low > high or type(step) is not int or step < 1:
        raise ValueSpecError(f"`time` goes from {first} to {last} by {step!r}, expected ascending order and minutes")

    def draw(rng: random.Random) -> Draw:
        hour, minute = divmod(rng.randrange(low, high + 1, step), 60)
        value = f"{hour:02d}:{minute:02d}"
        half = "am" if hour < 12 else "pm"
        clock = f"{(hour - 1) % 12 + 1}{f':{minute:02d}' if minute else ''} {half}"
        words = clock
        if value == "12:00":
            words = "noon"
        elif not minute and 5 <= hour <= 22 and hour != 12:
            part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
            words = f"{(hour - 1) % 12 + 1} {part}"
        return rng.choice((clock, clock, value, words)), value

    return draw


def _datetime(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    """A day with a time, written as ISO 8601 has it; `seconds: false` leaves ":00" at its end out."""
    options = options_of(spec, "datetime", "from", "to", step=15, seconds=True)
    day = _date({"date": {"from": options["from"], "to": options["to"]}})
    clock = _time({"time": {"from": "06:00", "to": "22:00", "step": options["step"]}})
    end = ":00" if _flag(options, "seconds") else ""

    def draw(rng: random.Random) -> Draw:
        (said_day, date), (said_time, time) = day(rng), clock(rng)
        said = f"{said_time} on {said_day}" if rng.random() < 0.4 else f"{said_day} at {said_time}"
        return said, f"{date}T{time}{end}"

    return draw


def _duration(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    """A length of time in minutes, said in minutes or hours."""
    options = options_of(spec, "duration", "from", "to", step=5)
    low, high = numbers(options, "duration", int)
    step = _step(options)
    if low < 2:
        raise ValueSpecError(f"`duration` goes from {low} to {high} minutes, expected 2 at least")

    def draw(rng: random.Random) -> Draw:
        minutes = rng.randrange(low, high + 1, step)
        hours = minutes // 60
        said = [f"{minutes} minutes"]
        if minutes in DURATIONS:
            said.append(DURATIONS[minutes])
        if minutes % 60 == 0 and hours > 1:
            said = [f"{hours} hours", f"{WORDS[hours] if hours < len(WORDS) else hours} hours"]
        return rng.choice(said), minutes

    return draw


def _parse(read: Callable[[str], Any], text: Any, expected: str) -> Any:
    try:
        return read(str(text))
    except ValueError as error:
        raise ValueSpecError(f"found {text!r:.60}, expected {expected}") from error


def _pattern(spec: dict[str, Any]) -> Callable[[random.Random], Draw]:
    pattern = spec["pattern"]
    if not isinstance(pattern, str) or not re.search("[#@]", pattern):
        raise ValueSpecError(f"the pattern is {pattern!r:.60}, expected text with # for a digit or @ for a letter")

    def draw(rng: random.Random) -> Draw:
        made = {"#": lambda: rng.choice("0123456789"), "@": lambda: rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ")}
        text = "".join(made[c]() if c in made else c for c in pattern)
        return text, text

    return draw


GENERATORS = {
    "integer": _integer,
    "number": _number,
    "date": _date,
    "day": _day,
    "time": _time,
    "datetime": _datetime,
    "duration": _duration,
    "pattern": _pattern,
}
