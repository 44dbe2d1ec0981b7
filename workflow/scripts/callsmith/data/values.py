"""Values for the slots of a phrasing: pools of words, and generators of numbers, dates, times and lists.

A draw gives what the user says and the argument that it stands for. The second follows from the first
by a plain rule: copied as it stands, or

| said | argument |
|---|---|
| `March 14, 2026`, `14 March 2026`, `2026-03-14` | `"2026-03-14"` |
| `7 am`, `7:30 pm`, `19:30` | `"07:00"`, `"19:30"`, `"19:30"` |
| `three`, `3` | `3` |
| `tea, rice and salt` | `["tea", "rice", "salt"]` |
| what an entry's `say` gives | its `value` |
"""

import datetime
import random
import re
from collections.abc import Callable
from typing import Any

# What the user says, and the argument's value.
Draw = tuple[str, Any]
MAX_NUMBER = 2**53  # up to here JSON's readers agree on a number, and the steps between numbers stay exact
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip


class ValueSpecError(ValueError):
    """A pool or generator that cannot be read."""


class Pool:
    """Where a slot's values come from; `name` tells pools apart, so that two slots of one pool can differ."""

    def __init__(self, name: str, draw: Callable[[random.Random], Draw], entries: list[Draw] | None = None):
        self.name, self.draw, self.entries = name, draw, entries


def pool(name: str, spec: Any, named: dict[str, Pool]) -> Pool:
    """Read one specification: a name of another pool, a list of entries, or a generator.

    [Rome, Oslo]                                          entries, copied
    [{say: in Celsius, value: celsius}]                   an entry said otherwise (`say` may be a list)
    {integer: {from: 2, to: 12, step: 1, words: true}}    with `words`, small ones are often written out
    {number: {from: 5, to: 90, decimals: 2}}
    {date: {from: 2026-01-01, to: 2027-12-31}}
    {time: {from: "06:00", to: "22:00", step: 15}}        step in minutes
    {pattern: "INV-####"}                                 # is a digit, @ a capital letter
    {join: "{first_name} {last_name}"}                    text made of other pools
    {list: groceries, from: 2, to: 3}                     several different values of another pool

    Raises ValueSpecError that says what is wrong.
    """
    if isinstance(spec, str):
        if spec not in named:
            raise ValueSpecError(f"there is no pool {spec!r} under `values`; pools stand before those that use them")
        return named[spec]
    if isinstance(spec, list):
        entries = [entry for item in spec for entry in _entries(item)]
        if not entries:
            raise ValueSpecError("the list of values is empty")
        return Pool(name, lambda rng: rng.choice(entries), entries)
    if isinstance(spec, dict):
        kind = next((key for key in GENERATORS if key in spec), None)
        if kind is not None:
            beside = spec.keys() - {kind} - ({"from", "to"} if kind == "list" else set())
            if beside:
                raise ValueSpecError(f"{min(beside, key=str)!r} stands beside `{kind}`, which does not take it there")
            return Pool(name, GENERATORS[kind](spec, named))
    raise ValueSpecError(
        f"found {spec!r:.60}, expected a list of values, a pool's name, or one of {', '.join(GENERATORS)}"
    )


def _entries(item: Any) -> list[Draw]:
    if isinstance(item, dict):
        if item.keys() != {"say", "value"}:
            raise ValueSpecError(f"an entry has the keys {', '.join(map(str, item))}; expected `say` and `value`")
        said = item["say"] if isinstance(item["say"], list) else [item["say"]]
        return [(_said(text), item["value"]) for text in said]
    if isinstance(item, bool) or not isinstance(item, str | int | float | datetime.date):
        raise ValueSpecError(f"the entry {item!r:.60} is neither text nor a number; write {{say: …, value: …}}")
    if isinstance(item, datetime.date):
        item = item.isoformat()
    return [(_said(item), item)]


def _said(item: Any) -> str:
    text = str(item)
    if not text.strip():
        raise ValueSpecError(f"the entry {text!r} says nothing")
    return text


def _options(spec: dict[str, Any], kind: str, *required: str, **defaults: Any) -> dict[str, Any]:
    options = spec[kind]
    if not isinstance(options, dict):
        raise ValueSpecError(f"`{kind}` is {options!r:.60}, expected {', '.join(required)}")
    unknown = options.keys() - {*required, *defaults}
    missing = set(required) - options.keys()
    if unknown or missing:
        raise ValueSpecError(
            f"`{kind}` has {'no ' + min(missing) if missing else 'the unknown key ' + str(min(unknown, key=str))}; "
            f"it takes {', '.join([*required, *defaults])}"
        )
    return {**defaults, **options}


def _numbers(options: dict[str, Any], kind: str, types: type) -> tuple[Any, Any]:
    low, high = options["from"], options["to"]
    if not all(isinstance(x, types) and not isinstance(x, bool) for x in (low, high)) or low > high:
        raise ValueSpecError(f"`{kind}` goes from {low!r} to {high!r}, expected two numbers in ascending order")
    if low < -MAX_NUMBER or high > MAX_NUMBER:
        raise ValueSpecError(f"`{kind}` goes from {low!r} to {high!r}, expected numbers of at most 2**53")
    return low, high


def _integer(spec: dict[str, Any], _: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    options = _options(spec, "integer", "from", "to", step=1, words=False)
    low, high = _numbers(options, "integer", int)
    step = options["step"]
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise ValueSpecError(f"the step is {step!r}, expected a whole number from 1 on")

    def draw(rng: random.Random) -> Draw:
        value = rng.randrange(low, high + 1, step)
        spelled = options["words"] and 0 <= value < len(WORDS) and rng.random() < 0.5
        return (WORDS[value] if spelled else str(value)), value

    return draw


def _number(spec: dict[str, Any], _: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    options = _options(spec, "number", "from", "to", decimals=2)
    low, high = _numbers(options, "number", (int, float))
    decimals = options["decimals"]
    if type(decimals) is not int or decimals not in range(10):
        raise ValueSpecError(f"decimals is {decimals!r}, expected 0 to 9")

    def draw(rng: random.Random) -> Draw:
        scale = 10**decimals
        units = rng.randint(round(low * scale), round(high * scale))
        whole = units // scale * scale
        if decimals and rng.random() < 0.4 and whole >= low * scale:  # people name round numbers more often
            units = whole
        if units % scale == 0:
            return str(units // scale), units // scale
        text = f"{units / scale:.{decimals}f}"
        return text, float(text)

    return draw


def _date(spec: dict[str, Any], _: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    options = _options(spec, "date", "from", "to")
    first, last = (_parse(datetime.date.fromisoformat, options[key], "a date as 2026-01-31") for key in ("from", "to"))
    if first > last:
        raise ValueSpecError(f"`date` goes from {first} to {last}, expected ascending order")

    def draw(rng: random.Random) -> Draw:
        day = first + datetime.timedelta(days=rng.randint(0, (last - first).days))
        month = MONTHS[day.month - 1]
        said = (f"{month} {day.day}, {day.year}", f"{day.day} {month} {day.year}", day.isoformat())
        return rng.choice(said), day.isoformat()

    return draw


def _time(spec: dict[str, Any], _: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    options = _options(spec, "time", "from", "to", step=15)
    first, last = (_parse(datetime.time.fromisoformat, options[key], "a time as 06:30") for key in ("from", "to"))
    low, high, step = first.hour * 60 + first.minute, last.hour * 60 + last.minute, options["step"]
    if low > high or not isinstance(step, int) or step < 1:
        raise ValueSpecError(f"`time` goes from {first} to {last} by {step!r}, expected ascending order and minutes")

    def draw(rng: random.Random) -> Draw:
        hour, minute = divmod(rng.randrange(low, high + 1, step), 60)
        value = f"{hour:02d}:{minute:02d}"
        half = "am" if hour < 12 else "pm"
        clock = f"{(hour - 1) % 12 + 1}{f':{minute:02d}' if minute else ''} {half}"
        return rng.choice((clock, clock, value)), value

    return draw


def _parse(read: Callable[[str], Any], text: Any, expected: str) -> Any:
    try:
        return read(str(text))
    except ValueError as error:
        raise ValueSpecError(f"found {text!r:.60}, expected {expected}") from error


def _pattern(spec: dict[str, Any], _: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    pattern = spec["pattern"]
    if not isinstance(pattern, str) or not re.search("[#@]", pattern):
        raise ValueSpecError(f"the pattern is {pattern!r:.60}, expected text with # for a digit or @ for a letter")

    def draw(rng: random.Random) -> Draw:
        made = {"#": lambda: rng.choice("0123456789"), "@": lambda: rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ")}
        text = "".join(made[c]() if c in made else c for c in pattern)
        return text, text

    return draw


def _join(spec: dict[str, Any], named: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    text = spec["join"]
    names = re.findall(r"\{(\w+)\}", text) if isinstance(text, str) else []
    if not names or re.search(r"[{}]", re.sub(r"\{\w+\}", "", text)):
        raise ValueSpecError(f"`join` is {text!r:.60}, expected text with the names of pools in braces")
    parts = {name: pool(name, name, named) for name in names}

    def draw(rng: random.Random) -> Draw:
        made = re.sub(r"\{(\w+)\}", lambda match: parts[match.group(1)].draw(rng)[0], text)
        return made, made

    return draw


def _list(spec: dict[str, Any], named: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    options = {"from": 2, "to": 3, **spec}
    low, high = _numbers(options, "list", int)
    if low < 1:
        raise ValueSpecError(f"`list` goes from {low} to {high}, expected 1 at least")
    source = pool("list", options["list"], named)
    if source.entries is not None:
        different = len({repr(value) for _, value in source.entries})
        if different < high:
            raise ValueSpecError(f"`list` takes up to {high} different values, but its pool has {different}")

    def draw(rng: random.Random) -> Draw:
        count = rng.randint(low, high)
        drawn: list[Draw] = []
        for _ in range(20 * count):
            if len(drawn) == count:
                break
            item = source.draw(rng)
            if all(item[1] != value for _, value in drawn):
                drawn.append(item)
        said = [text for text, _ in drawn]
        return " and ".join(filter(None, [", ".join(said[:-1]), said[-1]])), [value for _, value in drawn]

    return draw


GENERATORS = {
    "integer": _integer,
    "number": _number,
    "date": _date,
    "time": _time,
    "pattern": _pattern,
    "join": _join,
    "list": _list,
}
