"""Values for the slots of a phrasing: pools of words, and values made of other values.

A draw gives what the user says and the argument that it stands for. The second follows from the first
by a plain rule: copied as it stands, what an entry's `say` and `value` agree on, or a rule of
`callwright.data.toolset.generators`.
"""

import datetime
import random
import re
from collections.abc import Callable
from typing import Any

from callwright.data.toolset import generators
from callwright.data.toolset.generators import Draw, ValueSpecError, numbers

BRACES = re.compile(r"\{(\w+)\}")
LOWER = 0.25  # of spliced texts, those in small letters


class Pool:
    """Where a slot's values come from; `name` tells pools apart, so that two slots of one pool can differ."""

    def __init__(self, name: str, draw: Callable[[random.Random], Draw], entries: list[Draw] | None = None):
        self.name, self.draw, self.entries = name, draw, entries


def spliced(entries: list[Draw], rng: random.Random) -> Draw | None:
    """A text of the first words of one entry and the last of another, now and then in small letters.

    A list in a file is short, and a small model soon knows its entries by heart; a text that stands nowhere it can but
    copy. None where fewer than three entries are texts of several words, said as they are.
    """
    texts = [said.split() for said, value in entries if said == value and " " in said]
    if len(texts) < 3:
        return None
    one, other = rng.sample(texts, 2)
    words = " ".join([*one[: rng.randint(1, len(one) - 1)], *other[rng.randrange(1, len(other)) :]])
    text = words.lower() if rng.random() < LOWER else words
    return text, text


def pool(name: str, spec: Any, named: dict[str, Pool]) -> Pool:
    """Read one specification: a name of another pool, a list of entries, or a generator.

    [Rome, Oslo]                                          entries, copied
    [{say: in Celsius, value: celsius}]                   an entry said otherwise (`say` may be a list)
    {integer: {from: 2, to: 12, step: 1, words: true}}    with `words`, small ones are often written out
    {number: {from: 5, to: 90, decimals: 2, say: ["${}", "{} dollars"]}}   `say`: how a number is put
    {date: {from: 2026-01-01, to: 2027-12-31}}            `year: false` leaves the year out: "03-14"
    {day: {on: true}}                                     tomorrow, on Monday, in three days; as said
    {time: {from: "06:00", to: "22:00", step: 15}}        step in minutes
    {datetime: {from: 2026-01-01, to: 2027-12-31}}        a day with a time; `seconds: false` leaves the last ":00" out
    {duration: {from: 5, to: 180, step: 5}}               "half an hour", "20 minutes": 30, 20
    {pattern: "INV-####"}                                 # is a digit, @ a capital letter
    {join: "{first_name} {last_name}"}                    text made of other pools
    {list: grocery, from: 2, to: 3}                       several different values of another pool
    {object: {min: …, max: …}, say: "{min} to {max}"}     an object of the keys that are said (`say` may be a list)

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
        kind = next((key for key in KINDS if key in spec), None)
        if kind is not None:
            beside = spec.keys() - {kind} - BESIDE.get(kind, set())
            if beside:
                raise ValueSpecError(f"{min(beside, key=str)!r} stands beside `{kind}`, which does not take it there")
            return Pool(name, KINDS[kind](spec, named))
    raise ValueSpecError(f"found {spec!r:.60}, expected a list of values, a pool's name, or one of {', '.join(KINDS)}")


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


def _join(spec: dict[str, Any], named: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    text = spec["join"]
    parts = {name: pool(name, name, named) for name in _names("join", text, "the names of pools")}

    def draw(rng: random.Random) -> Draw:
        made = BRACES.sub(lambda match: parts[match.group(1)].draw(rng)[0], text)
        return made, made

    return draw


def _names(kind: str, text: Any, what: str) -> list[str]:
    names = BRACES.findall(text) if isinstance(text, str) else []
    if not names or re.search(r"[{}]", BRACES.sub("", text)):
        raise ValueSpecError(f"`{kind}` is {text!r:.60}, expected text with {what} in braces")
    return names


def _list(spec: dict[str, Any], named: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    low, high = numbers({"from": 2, "to": 3, **spec}, "list", int)
    if low < 1:
        raise ValueSpecError(f"`list` goes from {low} to {high}, expected 1 at least")
    source = pool("list", spec["list"], named)
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


def _object(spec: dict[str, Any], named: dict[str, Pool]) -> Callable[[random.Random], Draw]:
    if not isinstance(spec["object"], dict) or not spec["object"]:
        raise ValueSpecError(f"`object` is {spec['object']!r:.60}, expected keys with the values of each")
    parts = {key: pool(str(key), part, named) for key, part in spec["object"].items()}
    says = spec.get("say", " ".join(f"{{{key}}}" for key in parts))
    says = says if isinstance(says, list) else [says]
    for text in says:
        for name in _names("say", text, "keys of the object"):
            if name not in parts:
                raise ValueSpecError(f"`say` names {name!r}, but the object has {', '.join(map(str, parts))}")

    def draw(rng: random.Random) -> Draw:
        text = rng.choice(says)
        drawn = {name: parts[name].draw(rng) for name in BRACES.findall(text)}
        said = BRACES.sub(lambda match: drawn[match.group(1)][0], text)
        return said, {key: drawn[key][1] for key in parts if key in drawn}

    return draw


KINDS: dict[str, Callable[[dict[str, Any], dict[str, Pool]], Callable[[random.Random], Draw]]] = {
    **{kind: lambda spec, _, read=read: read(spec) for kind, read in generators.GENERATORS.items()},
    "join": _join,
    "list": _list,
    "object": _object,
}
BESIDE = {"list": {"from", "to"}, "object": {"say"}}
