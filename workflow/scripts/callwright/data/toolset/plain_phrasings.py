"""Phrasings for a tool that comes without any: made from its description, plain but true to the tool.

A description is read as an order ("Get the weather in a city.") or as a thing ("Weather in a city"). A
parameter that it names after a preposition gets its slot there ("Get the weather in {city}"); the others
are named with their values ("…, with days 3"). What a tool is about is named alone ("Bike, 17, please") only where
that can mean no other tool, and nothing is ended by it. Who wants better requests writes phrasings.
"""

import re
from collections.abc import Collection
from typing import Any

from callwright.data.toolset import constraints
from callwright.data.toolset.parameter_values import words
from callwright.data.toolset.verbs import CHANGES, NO_ORDER, VERBS

BEFORE_PLACE = r"\b(in|for|to|from|of|at|on|by|with|about|between|under|into) "
ARTICLE = r"(?:(?:a|an|the|this|that|your|their|its|some|given|specified|certain|particular) )*"
WITH = [
    "{A} with {parts}", "{A}, {parts}", "{A}, with {parts}.", "I need to {a}, with {parts}.",
    "I'd like to {a} with {parts}.", "With {parts}, {a}.", "{A}. Take {parts}.", "Is it possible to {a} with {parts}?",
    "I want to {a}, {parts}.", "Time to {a} with {parts}.",
]  # fmt: skip
WITHOUT = [
    "{A}", "I need to {a}.", "I'd like to {a}.", "Is it possible to {a}?", "I want to {a}.", "Time to {a}.",
    "It's time to {a}, please.", "{A} for me",
]  # fmt: skip
# The same in few words, from the tool's name: {v} is its verb, {n} what follows, {said} the values alone; and by what
# follows alone.
SHORT, SHORT_NOUN = ["{v} {n}, {parts}", "Can you {v} {n} with {parts}?"], ["{N}, {parts}", "{n}: {said}"]
SHORT_BARE, BARE_NOUN = ["{v} {n}", "Can you {v} {n}?"], ["{N}, please.", "{n}"]
# How a value is linked to what is asked for, by the last word of its parameter's name; others stand alone.
LINKS = {
    **dict.fromkeys(("date", "day", "weekday", "deadline"), "on"), **dict.fromkeys(("time", "start", "hour"), "at"),
    **dict.fromkeys(("city", "town", "country", "place", "location", "room", "language", "currency", "color"), "in"),
    **dict.fromkeys(("recipient", "contact", "person", "customer", "guest", "attendee", "assignee", "name"), "for"),
    **dict.fromkeys(("topic", "subject"), "about"), **dict.fromkeys(("amount", "price", "budget"), "for"),
    "destination": "to", "origin": "from", "source": "from", "target": "to", "until": "until", "end": "until",
}  # fmt: skip
NATURAL, NATURAL_NAMED = "{A}: {natural}", "Can you {v} {n}, {natural}?"
NATURAL_NOUN = ["{N}: {natural}, please", "I need {n}, {natural}."]
UNITS = {
    "cm", "eur", "euros", "g", "hours", "kg", "km", "l", "m", "mb", "meters", "miles", "min", "minutes", "mm", "ml",
    "percent", "seconds", "usd",
}  # fmt: skip
TEXTS = {"text", "message", "content", "body", "note", "title", "subject", "comment", "caption", "question"}


def phrasings(name: str, function: dict[str, Any], known: set[str], others: Collection[str] = ()) -> dict[str, Any]:
    """`phrasings`, `missing` and `ask` of a tool in the words of a toolset file.

    `known` are the parameters that have values; each required one must be among them. `others` are the names of the
    tools that it stands beside.
    """
    parameters = function["parameters"]
    required, properties = list(parameters.get("required", [])), parameters["properties"]
    optional = [key for key in properties if key in known and key not in required]
    order = _order(name, function.get("description") or "")
    counted = {
        key for key, part in properties.items()
        if part.get("type") == "integer" and re.search(r"(?<!s)s$|people$", words(key))
    }  # fmt: skip
    placed, rest = order, []
    for key in required:
        with_slot = _place(placed, key)
        if with_slot == placed:
            rest.append(key)
        placed = with_slot
    named = {key: _named(key, properties[key], key in counted) for key in properties}
    made = [_write(frame, placed, rest, named) for frame in (WITH if rest else WITHOUT)]
    verb, noun = _name(name, order)
    more = {"v": verb, "n": noun or "it", "N": (noun or "it").capitalize()}
    more["natural"] = _natural(required, properties, counted)
    alone = bool(noun) and verb not in CHANGES and not any(_alike(noun, _name(other)[1]) for other in others)
    if noun:
        frames = [*SHORT, *SHORT_NOUN * alone] if required else [*SHORT_BARE, *BARE_NOUN * alone]
        made += [_write(frame, order, required, named, more) for frame in frames]
    if required:
        frames = [NATURAL, *[NATURAL_NAMED] * bool(noun), *NATURAL_NOUN * alone]
        made += [_write(frame, order, required, named, more) for frame in frames]
    if optional:
        made += [_write("{A}, with {parts}", placed, [*rest, key], named) for key in optional[:3]]
    missing = []
    for key in required:
        left = [other for other in rest if other != key]
        bare = order
        for other in required:
            if other not in rest and other != key:
                bare = _place(bare, other)
        missing += [_write(frame, bare, left, named) for frame in (WITH if left else WITHOUT)[:4]]
    ask = {key: f"I need one more detail. {_question(key, properties[key], key in counted)}" for key in required}
    return {"phrasings": made, "missing": missing, "ask": ask}


def _order(name: str, description: str) -> str:
    """The description as an order with a capital letter and no mark: "Get the weather in a city"."""
    first = re.split(r"(?<=[.!?])\s|\n|;| \(", description.strip(), maxsplit=1)[0].strip(" .!?:")
    first = re.sub(r"[{}\[\]]", "", first)
    text = first or words(name)
    verb, _, more = text.partition(" ")
    for ending, base in (("", ""), ("s", ""), ("es", ""), ("ies", "y")):
        stem = verb.lower().removesuffix(ending) + base if verb.lower().endswith(ending) else ""
        named = words(name).split()[:1] == [stem] and re.match(r"(the|a|an|all|my|your)\b", more)  # "Ping the server"
        if stem in VERBS or named:
            return f"{stem.capitalize()} {more}".strip()
    before_an_article = re.match(r"(the|a|an|all|my|your)\b", more) and verb.isalpha() and not verb.endswith("ing")
    if before_an_article and verb.lower() not in NO_ORDER | {"what", "who", "whose", "why", "how"}:
        stem = verb.lower() if verb.lower().endswith("ss") else verb.lower().removesuffix("s")
        return f"{stem.capitalize()} {more}"  # "Inflate the tyres", an order by its form
    if re.match(r"(what|which|who|whose|when|where|why|how|whether|if)\b", text.lower()):
        return f"Tell me {_small(text)}"
    return f"Get {_small(text)}" if re.match(r"(the|a|an|all|my|your)\b", text.lower()) else f"Get the {_small(text)}"


def _natural(keys: list[str], properties: dict[str, Any], counted: set[str]) -> str:
    """The values as people string them together: "lasagne on {date} from {start} to {end}"."""
    pairs = {c.left: c.right for c in constraints.guess({key: properties[key] for key in keys}) if c.sign != "!="}
    alone, linked = [], []
    for key in keys:
        last = words(key).split(" ")[-1]
        if key in pairs:
            linked.append(f"from {{{key}}} to {{{pairs[key]}}}")
        elif key in pairs.values():
            continue
        elif key in counted:
            alone.append(f"{{{key}}} {words(key)}")
        elif last in LINKS and properties[key].get("type") == "string":
            linked.append(f"{LINKS[last]} {{{key}}}")
        elif properties[key].get("type") in ("integer", "number"):
            linked.append(f"{words(key)} {{{key}}}")
        else:
            alone.append(_slot(key))
    return " ".join(filter(None, [", ".join(alone), " ".join(linked)]))


def _name(name: str, order: str = "Get it") -> tuple[str, str]:
    """The verb of a tool's name and what follows it; `get` where it has none, nothing where the order has another."""
    verb, _, rest = words(name).partition(" ")
    asked = order.split()[0].lower()
    if verb in VERBS or verb == asked:
        return verb, rest
    return ("get", words(name)) if asked in ("get", "tell") else ("", "")


def _alike(one: str, other: str) -> bool:
    """Whether two tools are about the same: bike, bikes."""
    return one.removesuffix("s") == other.removesuffix("s")


def _named(key: str, part: dict[str, Any], counted: bool) -> str:
    """A parameter's slot with its name; what is counted comes after its number, and a truth value says its name."""
    if part.get("type") == "boolean":
        return f"{{{key}}}"
    return f"{{{key}}} {words(key)}" if counted else f"{words(key)} {_slot(key)}"


def _question(key: str, part: dict[str, Any], counted: bool) -> str:
    said = words(key)
    *first, last = said.split()
    if counted:
        return f"How many {said}?"
    if said in NO_ORDER or (not first and last.removesuffix("s") in ("open", "close", "start", "end", "begin")):
        return f'What should "{said}" be?'
    if first and last in UNITS:
        return f"What is the {' '.join(first)} in {last}?"
    if part.get("type") == "array" or re.search(r"[^isu]s$", said):
        return f"Which {said}?"
    return f"What is the {said}?"


def _small(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _place(text: str, key: str) -> str:
    """The order with the parameter's slot where the text names it after a preposition."""
    said = words(key)
    for phrase in dict.fromkeys((said, said.split(" ")[-1], said.split(" ")[0])):
        pattern = BEFORE_PLACE + ARTICLE + rf"{re.escape(phrase)}\b(?! \w+ing\b)"
        new, count = re.subn(pattern, lambda match: f"{match.group(1)} {_slot(key)}", text, count=1, flags=re.I)
        if count:
            return new
    return text


def _slot(key: str) -> str:
    return f'"{{{key}}}"' if words(key).split(" ")[-1] in TEXTS else f"{{{key}}}"


def _write(frame: str, order: str, keys: list[str], named: dict[str, str], more: dict[str, str] | None = None) -> str:
    """The frame with the order and the named values.

    All places of the frame are filled at once: a slot of the toolset may be called `{a}` or `{parts}` too.
    """
    parts = [named[key] for key in keys]
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
    wish = re.sub(r"^tell me (?=wh|how\b|if\b)", "find out ", _small(order))  # nobody needs to tell me whether
    found = {"A": order, "a": wish, "parts": listed, "said": ", ".join(map(_slot, keys)), **(more or {})}
    return re.sub(r"\{(\w+)\}", lambda match: found[match.group(1)], frame)
