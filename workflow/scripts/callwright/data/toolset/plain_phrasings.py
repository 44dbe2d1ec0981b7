"""Phrasings for a tool that comes without any: made from its description, plain but true to the tool.

A description is read as an order ("Get the weather in a city.") or as a thing ("Weather in a city"). A
parameter that it names after a preposition gets its slot there ("Get the weather in {city}"); the others
are named with their values ("…, with days 3"). Who wants better requests writes phrasings.
"""

import re
from typing import Any

from callwright.data.toolset import constraints
from callwright.data.toolset.parameter_values import words

_VERBS = (
    "add adjust answer apply approve archive assign ask book build buy calculate call cancel change charge check clean "
    "close compare complete compute convert copy count create decrease define delete deploy detect disable download "
    "edit email enable estimate export fetch file find fix forward generate get give import increase inform insert "
    "invite join list load lock log look make mark measure merge monitor move mute notify open order pause pay play "
    "post predict print publish purchase put query read rebook record refund register reject remind remove rename "
    "reopen reply report request reschedule reserve reset restart retrieve return run save say schedule search select "
    "send set share show sort split start stop store submit subscribe summarize switch take tell test track transfer "
    "translate turn unlock unsubscribe update upload validate verify view withdraw write"
)
VERBS = frozenset(_VERBS.split())
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
# The same in few words, from the tool's name: {v} is its verb, {n} what follows, {said} the values alone.
SHORT = ["{v} {n}, {parts}", "{N}, {parts}", "{n}: {said}", "Can you {v} {n} with {parts}?"]
SHORT_BARE = ["{v} {n}", "{N}, please.", "Can you {v} {n}?", "{n}"]
# How a value is linked to what is asked for, by the last word of its parameter's name; others stand alone.
LINKS = {
    **dict.fromkeys(("date", "day", "weekday", "deadline"), "on"), **dict.fromkeys(("time", "start", "hour"), "at"),
    **dict.fromkeys(("city", "town", "country", "place", "location", "room", "language", "currency", "color"), "in"),
    **dict.fromkeys(("recipient", "contact", "person", "customer", "guest", "attendee", "assignee", "name"), "for"),
    **dict.fromkeys(("topic", "subject"), "about"), **dict.fromkeys(("amount", "price", "budget"), "for"),
    "destination": "to", "origin": "from", "source": "from", "target": "to", "until": "until", "end": "until",
}  # fmt: skip
NATURAL = ["{A}: {natural}", "Can you {v} {n}, {natural}?", "{N}: {natural}, please", "I need {n}, {natural}."]
TEXTS = {"text", "message", "content", "body", "note", "title", "subject", "comment", "caption", "question"}


def phrasings(name: str, function: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """`phrasings`, `missing` and `ask` of a tool in the words of a toolset file.

    `known` are the parameters that have values; each required one must be among them.
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
    made = [_write(frame, placed, rest, counted) for frame in (WITH if rest else WITHOUT)]
    verb, noun = _name(name)
    more = {"v": verb, "n": noun or "it", "N": (noun or "it").capitalize()}
    more["natural"] = _natural(required, properties, counted)
    if noun:
        made += [_write(frame, order, required, counted, more) for frame in (SHORT if required else SHORT_BARE)]
    if required:
        made += [_write(frame, order, required, counted, more) for frame in NATURAL]
    if optional:
        made += [_write("{A}, with {parts}", placed, [*rest, key], counted) for key in optional[:3]]
    missing = []
    for key in required:
        others = [other for other in rest if other != key]
        bare = order
        for other in required:
            if other not in rest and other != key:
                bare = _place(bare, other)
        missing += [_write(frame, bare, others, counted) for frame in (WITH if others else WITHOUT)[:4]]
    ask = {
        key: f"I need one more detail. {'How many' if key in counted else 'What is the'} {words(key)}?"
        for key in required
    }
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


def _name(name: str) -> tuple[str, str]:
    """The verb of a tool's name and what follows it; `get` where it has none."""
    verb, _, rest = words(name).partition(" ")
    return (verb, rest) if verb in VERBS else ("get", words(name))


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


def _write(frame: str, order: str, keys: list[str], counted: set[str], more: dict[str, str] | None = None) -> str:
    """The frame with the order and the named values; what is counted comes after its number: "4 people".

    All places of the frame are filled at once: a slot of the toolset may be called `{a}` or `{parts}` too.
    """
    parts = [f"{{{key}}} {words(key)}" if key in counted else f"{words(key)} {_slot(key)}" for key in keys]
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
    wish = re.sub(r"^tell me (?=wh|how\b|if\b)", "find out ", _small(order))  # nobody needs to tell me whether
    found = {"A": order, "a": wish, "parts": listed, "said": ", ".join(map(_slot, keys)), **(more or {})}
    return re.sub(r"\{(\w+)\}", lambda match: found[match.group(1)], frame)
