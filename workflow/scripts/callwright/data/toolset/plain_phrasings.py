"""Phrasings for a tool that comes without any: made from its description, plain but true to the tool.

A description is read as an order ("Get the weather in a city.") or as a thing ("Weather in a city"). A
parameter that it names after a preposition gets its slot there ("Get the weather in {city}"); the others
are named with their values ("…, with days 3"). Who wants better requests writes phrasings.
"""

import re
from typing import Any

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
TEXTS = {"text", "message", "content", "body", "note", "title", "subject", "comment", "caption", "question"}
# Which of the values that every toolset has (`pools.SPECS`) fit a parameter, by the last word of its name.
POOL_OF = {
    "city": "city", "town": "city", "location": "city", "place": "city", "origin": "city", "destination": "city",
    "country": "country", "name": "person", "person": "person", "recipient": "person", "contact": "contact",
    "user": "contact", "customer": "person", "guest": "person", "attendee": "person", "assignee": "contact",
    "email": "email", "phone": "phone", "url": "url", "link": "url", "date": "date", "day": "day", "deadline": "date",
    "time": "time", "month": "month", "weekday": "weekday", "language": "language", "currency": "currency",
    "color": "color", "colour": "color", "room": "room", "product": "product", "item": "product", "food": "grocery",
    "ingredient": "grocery", "topic": "topic", "query": "topic", "keyword": "topic", "category": "topic",
    "title": "title", "subject": "title", "text": "message", "message": "message", "note": "message",
    "content": "message", "body": "message", "comment": "message", "file": "file", "filename": "file",
    "path": "file", "id": "code", "code": "code", "number": "code", "minutes": "minutes", "duration": "minutes",
    "percent": "percent", "percentage": "percent", "amount": "amount", "price": "amount",
}  # fmt: skip


def words(name: str) -> str:
    """A name in small letters and words: `dueDate` and `due_date` are `due date`."""
    return re.sub(r"[_\W]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)).strip().lower()


def values_for(name: str, part: dict[str, Any]) -> list[Any]:
    """Specifications of values (`values.pool`) that may fit a parameter, best first; empty: nothing is known of it."""
    kind, last = part.get("type"), words(name).split(" ")[-1] if words(name) else ""
    kinds = kind if isinstance(kind, list) else [kind]
    found: list[Any] = []
    if isinstance(part.get("enum"), list):
        found.append([{"say": words(str(v)) if isinstance(v, str) else str(v), "value": v} for v in part["enum"]])
    if isinstance(part.get("examples"), list) and part["examples"]:
        found.append([{"say": str(value), "value": value} for value in part["examples"]])
    if "boolean" in kinds:
        found.append([{"say": "on", "value": True}, {"say": "off", "value": False}])
    if part.get("format") in ("date", "time", "email"):
        found.append(part["format"])
    low, high = part.get("minimum"), part.get("maximum")
    if "integer" in kinds:
        start = low if isinstance(low, int) else min(2, high) if isinstance(high, int) else 2
        found.append({"integer": {"from": start, "to": high if isinstance(high, int) else start + 10}})
    forms = (last, last.removesuffix("s"), last.removesuffix("es"), re.sub("ies$", "y", last))
    found += [POOL_OF[form] for form in dict.fromkeys(forms) if form in POOL_OF][:1]
    if "number" in kinds:
        start = low if isinstance(low, int | float) else 1
        found.append(
            {"number": {"from": start, "to": high if isinstance(high, int | float) else start + 99, "decimals": 1}}
        )
    if "array" in kinds and isinstance(part.get("items"), dict):
        inner = values_for(name, {"type": "string", **part["items"]})
        found += [{"list": spec, "from": 1, "to": 3} for spec in inner if isinstance(spec, str)]
        found += [{"list": spec, "from": 1, "to": min(3, len(spec))} for spec in inner if isinstance(spec, list)]
    return found


def phrasings(name: str, function: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """`phrasings`, `missing` and `ask` of a tool in the words of a toolset file.

    `known` are the parameters that have values; each required one must be among them.
    """
    parameters = function["parameters"]
    required = list(parameters.get("required", []))
    optional = [key for key in parameters["properties"] if key in known and key not in required]
    order = _order(name, function.get("description") or "")
    counted = {
        key for key, part in parameters["properties"].items()
        if part.get("type") == "integer" and re.search(r"(?<!s)s$|people$", words(key))
    }  # fmt: skip
    placed, rest = order, []
    for key in required:
        with_slot = _place(placed, key)
        if with_slot == placed:
            rest.append(key)
        placed = with_slot
    made = [_write(frame, placed, rest, counted) for frame in (WITH if rest else WITHOUT)]
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
        if stem in VERBS:
            return f"{stem.capitalize()} {more}".strip()
    return f"Get {_small(text)}" if re.match(r"(the|a|an|all|my|your)\b", text.lower()) else f"Get the {_small(text)}"


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


def _write(frame: str, order: str, keys: list[str], counted: set[str]) -> str:
    """The frame with the order and the named values; what is counted comes after its number: "4 people"."""
    parts = [f"{{{key}}} {words(key)}" if key in counted else f"{words(key)} {_slot(key)}" for key in keys]
    listed = " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
    return frame.replace("{A}", order).replace("{a}", _small(order)).replace("{parts}", listed)
