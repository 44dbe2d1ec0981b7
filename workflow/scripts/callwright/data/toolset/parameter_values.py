"""What values a parameter may take in requests: guessed from its schema, its name and its description.

| what the parameter says of itself | values |
|---|---|
| `enum`, `const`, `examples`, a default | these |
| `format: date`, "as YYYY-MM-DD" | dates, said in words |
| "HH:MM"; "ISO 8601 date and time", `format: date-time` | times; both together |
| "an e-mail address", "a phone number", "URL", "in percent" | the pools of `callwright.data.toolset.pools` |
| "such as ORD-10234", `pattern: ^ORD-[0-9]{5}$` | codes of that form |
| "one of: small, medium, large", "e.g. pizza, sushi" | what is listed |
| "from 1 to 5", `minimum`, `maximum` | numbers of that range |
| a name that ends in `city`, `amount`, `note` … | the pool of that word |
| a whole number called `id`, `number`, `year` | numbers of four digits |
| a truth value | its name, and that with "no" or "not" |
| text of which nothing is known | stand-ins, to be replaced by real ones |
"""

import re
from dataclasses import dataclass
from typing import Any

from callwright.data.tool_texts import words
from callwright.data.toolset import pools
from callwright.data.toolset.verbs import VERBS

# Which of the values that every toolset has (`pools.SPECS`) fit a parameter, by the last word of its name.
POOL_OF = {
    "city": "city", "town": "city", "location": "city", "place": "city", "origin": "city", "destination": "city",
    "country": "country", "name": "person", "person": "person", "recipient": "person", "contact": "contact",
    **dict.fromkeys(
        ("author", "artist", "reader", "member", "patient", "owner", "tenant", "driver", "employee", "student",
         "teacher", "sender", "doctor", "client", "host", "candidate", "passenger", "manager", "visitor", "reporter"),
        "person",
    ),
    **dict.fromkeys(
        ("card", "reference", "booking", "account", "ticket", "invoice", "policy", "serial", "tracking", "order",
         "reservation", "plate", "sku"),
        "code",
    ),
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
# The same by what a description says, the more certain first.
SAID = [
    (r"\be-?mail\b", "email"), (r"\b(phone|telephone|mobile) number\b", "phone"), 
    (r"\b(url|web address|link)\b", "url"),
    (r"\byyyy-mm-ddthh|\bdate and time\b|\biso[ -]?8601 (date-?time|timestamp)|\btimestamp\b", "datetime"),
    (r"\byyyy-mm-dd\b|\biso[ -]?8601 date\b|\biso date\b", "date"), (r"\bhh:mm\b|\b24-hour\b", "time"),
    (r"(\be\.g\.,?|\bsuch as|\blike|\bexample:?) \d{4}-\d\d-\d\d\b", "date"),
    (r"(\be\.g\.,?|\bsuch as|\blike|\bexample:?) \d\d:\d\d\b", "time"),
    (r"\bday of the week\b|\bweekday\b", "weekday"), (r"\bmonth\b", "month"), (r"\bin minutes\b", "minutes"),
    (r"\bper ?cent(age)?\b|%", "percent"), (r"\bcurrency\b", "currency"), (r"\blanguage\b", "language"),
    (r"\bfile ?name\b|\bpath of\b", "file"), (r"\bfirst name\b", "first_name"), 
    (r"\blast name\b|\bsurname\b", "last_name"),
    (r"\b(full )?name of (the|a) (person|customer|guest|user|patient|employee)", "person"),
    (r"\bnumber of (the|a|an|your) (\w+ )?\w+$|\b(order|card|account|customer|reference) number\b", "code"),
    (r"\bcity\b|\btown\b", "city"), (r"\bcountry\b", "country"), (r"\b(date|deadline)\b", "date"),
    (r"\btime (of day|at which|when)\b", "time"), (r"\bcolou?r\b", "color"),
    (r"\b(amount|price|sum) (in|of money)\b|\bin (euros?|dollars|pounds)\b", "amount"),
    (r"\b(text|message|content|body) (of|to|that)\b|\bfree text\b", "message"),
]  # fmt: skip
# Text of which nothing is known: short and varied, so that a model learns to copy what was said.
STAND_INS = [
    "maple", "north wing", "blue folder", "Project Atlas", "the spring edition", "granite", "Harbor View", "lot 27",
    "silver fern", "second draft", "Route 9", "Echo", "morning shift", "the long version", "Orchard Lane", "basalt",
    "team Falcon", "box 14", "amber", "winter plan", "the red one", "Juniper", "section C", "old mill",
]  # fmt: skip
_CODE = re.compile(r"\b(?=[A-Z0-9_/-]*\d)(?=[A-Z0-9_/-]*[A-Z_/-])[A-Z0-9]+(?:[-_/][A-Z0-9]+)*\b")
_LISTED = re.compile(
    r"(?:\be\.g\.,?|\bfor example,?|\bsuch as|\blike|\bone of:?|\beither|\bamong:?|\bexamples?:|\boptions?:|\bvalues?:)"
    r"\s+(.+)", re.I
)  # fmt: skip
_RANGE = re.compile(r"(?:from|between)?\s*\b(\d{1,6})\s*(?:-|–|to|and|through)\s*(\d{1,6})\b")
NUMBER_KINDS = {"integer", "number"}
_ABBREVIATED = re.compile(r"\b(Dr|Mr|Mrs|Ms|Prof|St|No)\.")
_PERSONS = {
    "buyer",
    "caller",
    "contractor",
    "family",
    "first",
    "full",
    "last",
    "legal",
    "seller",
    "staff",
    "supplier",
} | {word for word, pool in POOL_OF.items() if pool in ("person", "contact")}
_ADJECTIVE = re.compile(
    r"(ed|ent|ant|ic|al|able|ible|ive|ful|ous|ing|less|ary)$|^(urgent|public|private|open|dry|new|own)$"
)


@dataclass(frozen=True, slots=True)
class Guess:
    """Values that may fit: `spec` in the words of a toolset file (`values.pool`), and what they were taken from.

    `source` is schema, description, name, type or stand-in; the last two fit the type and say nothing of what people
    say.
    """

    spec: Any
    source: str


def values_for(name: str, part: dict[str, Any], stand_ins: bool = False) -> list[Any]:
    """Specifications of values (`values.pool`) that may fit a parameter, best first; empty: nothing is known of it."""
    return [guess.spec for guess in guesses(name, part) if stand_ins or guess.source != "stand-in"]


def guesses(name: str, part: dict[str, Any]) -> list[Guess]:
    """What may fit a parameter, best first; the last of a text is a stand-in."""
    part = _one_type(part)
    kinds = part["type"] if isinstance(part.get("type"), list) else [part.get("type")]
    about = str(part.get("description") or "")
    found = _by_schema(name, part, kinds)
    if "string" in kinds or kinds == [None]:
        found += _text_described(about, part)
    if NUMBER_KINDS & set(kinds):
        found += _numbers_described(about, kinds)
    if not part.keys() & {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}:
        found += _numbered(name, about, kinds)
    found += _by_words(name, about)
    found += _numbers(part, kinds)
    if "array" in kinds and isinstance(part.get("items"), dict):
        found += _lists(name, about, part)
    if "object" in kinds and isinstance(part.get("properties"), dict) and part["properties"]:
        found += _objects(part)
    if (shown := part.get("example")) is not None:  # OpenAPI's; more values are better where there are any
        found.append(Guess([{"say": str(shown), "value": shown}], "schema"))
    if "string" in kinds or (kinds == [None] and not found):
        found.append(Guess(list(STAND_INS), "stand-in"))
    return found


def recursive(part: Any) -> bool:
    """Whether a schema in the normal form contains itself: no other has a reference left."""
    if isinstance(part, list):
        return any(map(recursive, part))
    if not isinstance(part, dict):
        return False
    return isinstance(part.get("$ref"), str) or any(map(recursive, part.values()))


def _one_type(part: dict[str, Any]) -> dict[str, Any]:
    """The schema without null beside another type, and with the first choice of an `anyOf` or `oneOf`."""
    for key in ("anyOf", "oneOf"):
        if isinstance(part.get(key), list) and "type" not in part:
            choices = [choice for choice in part[key] if isinstance(choice, dict) and choice.get("type") != "null"]
            if all("const" in choice for choice in choices) and choices:
                return {**part, "enum": [choice["const"] for choice in choices]}
            rest = {k: v for k, v in part.items() if k != key}
            return {**(choices[0] if choices else {}), **rest}
    if isinstance(part.get("type"), list):
        kinds = [kind for kind in part["type"] if kind != "null"]
        return {**part, "type": kinds[0] if len(kinds) == 1 else kinds}
    return part


def _by_schema(name: str, part: dict[str, Any], kinds: list[Any]) -> list[Guess]:
    found: list[Any] = []
    if "const" in part:
        found.append([{"say": str(part["const"]), "value": part["const"]}])
    if isinstance(part.get("enum"), list):
        found.append([{"say": words(str(v)) if isinstance(v, str) else str(v), "value": v}
                      for v in part["enum"] if v is not None])  # fmt: skip
    shown = part["examples"] if isinstance(part.get("examples"), list) else [part.get("example")]
    if shown and isinstance(shown[0], str) and _CODE.fullmatch(shown[0]):
        found.append({"pattern": of_code(shown[0])})
    elif shown and "examples" in part:
        found.append([{"say": str(value), "value": value} for value in shown])
    if "boolean" in kinds:
        found.append(_yes_and_no(name))
    if part.get("format") in ("date", "time", "email"):
        found.append(part["format"])
    if part.get("format") == "date-time":
        found.append("datetime")
    if part.get("format") in ("uri", "url"):
        found.append("url")
    if isinstance(part.get("pattern"), str) and (pattern := of_regex(part["pattern"])):
        found.append({"pattern": pattern})
    return [Guess(spec, "schema") for spec in found]


def _yes_and_no(name: str) -> list[dict[str, Any]]:
    """How people say a truth value: "urgent" and "not urgent", "oat milk" and "no oat milk"."""
    said = words(name)
    first, _, rest = said.partition(" ")
    if rest and first in ("is", "are", "be", "has", "have", "with", "include", "includes"):
        said = rest
    before = "don't" if first in VERBS and rest else "not" if _ADJECTIVE.search(said) else "no"
    return [{"say": said, "value": True}, {"say": f"{before} {said}", "value": False}]


def _text_described(about: str, part: dict[str, Any]) -> list[Guess]:
    """What the description shows: a code's form, or a list of values."""
    found: list[Any] = []
    shown = [
        match.group()
        for match in _CODE.finditer(about)
        if not re.fullmatch(r"ISO[-_]?\d+|UTF-\d+|[A-Z]+\d?", match.group())
    ]
    dates = re.search(r"yyyy|hh:mm|iso", about, re.I)
    if shown and not dates:
        found.append({"pattern": of_code(shown[0])})
    listed = listed_values(about)
    if listed:
        found.append(listed)
    if isinstance(part.get("default"), str) and part["default"].strip() and len(listed) > 1:
        found[-1] = list(dict.fromkeys([*listed, part["default"]]))
    return [Guess(spec, "description") for spec in found]


def _numbers_described(about: str, kinds: list[Any]) -> list[Guess]:
    match = _RANGE.search(re.sub(r"\d{4}-\d\d-\d\d", "", about))
    if match is None or not int(match.group(1)) < int(match.group(2)):
        return []
    low, high = int(match.group(1)), int(match.group(2))
    if "integer" in kinds:
        return [Guess({"integer": {"from": low, "to": high}}, "description")]
    return [Guess({"number": {"from": low, "to": high, "decimals": 1}}, "description")]


def _by_words(name: str, about: str) -> list[Guess]:
    """The pool that the description names, and that of the name's last word; the name counts more."""
    *first, last = words(name).split(" ") if words(name) else [""]
    if last == "name" and not _is_of_a_person(first, about):
        return [Guess(pool, "description") for pattern, pool in SAID if re.search(pattern, about, re.I)][:1]
    forms = (last, last.removesuffix("s"), last.removesuffix("es"), re.sub("ies$", "y", last))
    named = [Guess(POOL_OF[form], "name") for form in dict.fromkeys(forms) if form in POOL_OF][:1]
    said = [Guess(pool, "description") for pattern, pool in SAID if re.search(pattern, about, re.I)][:1]
    # "name", "id", "number", "time" and "day" say little; what the description says of their form says more.
    vague = last in ("name", "id", "code", "number", "time", "day", "date", "text", "query", "item", "category", "user")
    return [*said, *named] if vague else [*named, *said]


def _is_of_a_person(before: list[str], about: str) -> bool:
    """Whether a parameter called `name`, or `pet_name`, is that of a person, as far as is said."""
    of = re.search(r"\bname of (?:the |a |an |your )?(\w+)|\b(\w+)['’]s (?:\w+ )?name\b", about, re.I)
    whose = before[-1:] or [next(filter(None, of.groups())).lower()] if before or of else []
    return not whose or whose[0] in _PERSONS


def _numbered(name: str, about: str, kinds: list[Any]) -> list[Guess]:
    """Whole numbers that name something, and years."""
    last = words(name).split(" ")[-1]
    if "integer" not in kinds:
        return []
    if last == "year":
        return [Guess({"integer": {"from": 1995, "to": 2026}}, "name")]
    if last in ("id", "number", "no", "nr") or re.search(r"\bid of (the|a|an)\b", about, re.I):
        return [Guess({"integer": {"from": 1001, "to": 9999}}, "name")]
    return []


def _numbers(part: dict[str, Any], kinds: list[Any]) -> list[Guess]:
    low, high = (part.get(key) for key in ("minimum", "maximum"))
    if isinstance(part.get("exclusiveMinimum"), int | float) and low is None:
        low = part["exclusiveMinimum"] + 1
    found: list[Any] = []
    if "integer" in kinds:
        start = int(low) if isinstance(low, int | float) else min(2, high) if isinstance(high, int) else 2
        found.append({"integer": {"from": start, "to": int(high) if isinstance(high, int | float) else start + 10}})
    if "number" in kinds:
        start = low if isinstance(low, int | float) else 1
        found.append(
            {"number": {"from": start, "to": high if isinstance(high, int | float) else start + 99, "decimals": 1}}
        )
    return [Guess(spec, "type" if low is None and high is None else "schema") for spec in found]


def _lists(name: str, about: str, part: dict[str, Any]) -> list[Guess]:
    inner = guesses(name, {"type": "string", "description": about, **part["items"]})
    most = part.get("maxItems") if isinstance(part.get("maxItems"), int) else 3
    least = part.get("minItems") if isinstance(part.get("minItems"), int) else 1
    found = []
    for guess in inner:
        count = len(guess.spec) if isinstance(guess.spec, list) else most
        if isinstance(guess.spec, str | list | dict) and min(most, count) >= least:
            found.append(
                Guess({"list": guess.spec, "from": max(1, least), "to": max(1, min(3, most, count))}, guess.source)
            )
    return found


def _objects(part: dict[str, Any]) -> list[Guess]:
    """An object of the values of its required keys, or of all where none is required."""
    keys = [key for key in part.get("required", []) if key in part["properties"]] or list(part["properties"])
    inner = {key: guesses(key, part["properties"][key]) for key in keys}
    if not all(inner.values()):
        return []
    say = ", ".join(f"{words(key)} {{{key}}}" for key in keys)
    source = "stand-in" if any(found[0].source == "stand-in" for found in inner.values()) else "schema"
    return [Guess({"object": {key: found[0].spec for key, found in inner.items()}, "say": say}, source)]


def listed_values(about: str) -> list[str]:
    """The values that a description lists: "one of: small, medium or large", "e.g. 'pizza', 'sushi'"."""
    match = _LISTED.search(_ABBREVIATED.sub("\\1\u2024", about))  # "Dr. Hartmann" ends no sentence
    quoted = re.findall(r"['\"“‘`]([^'\"”’`]{1,40})['\"”’`]", match.group(1) if match else about)
    if quoted and (match or len(quoted) > 1):
        return list(dict.fromkeys(quoted))
    if match is None:
        return []
    text = re.split(r"[.;:()\n]|\betc\b|\band so on\b", match.group(1))[0]
    parts = [re.sub(r"^(?:(?:and|or|a|an|the)\s+)+", "", part.strip(), flags=re.I).strip()
             for part in re.split(r",|\bor\b|\band\b|\|", text)]  # fmt: skip
    values = [part.replace("\u2024", ".") for part in parts if part and len(part.split()) <= 3]
    if (
        len(values) == 2
        and "," in text
        and (re.fullmatch("[A-Z]{2,3}", values[1]) or values[1] in pools.SPECS["country"])
    ):
        return []  # one place: San Francisco, CA
    plain = not any(_CODE.fullmatch(value) or re.search(r"\d|yyyy|hh:mm", value, re.I) for value in values)
    return list(dict.fromkeys(values)) if plain and len(values) > 1 else []


def of_code(code: str) -> str:
    """A pattern of `values` for codes like this one: `ORD-10234` is `ORD-#####`; letters after digits are `@`."""
    made, seen_digit = [], False
    for character in code:
        seen_digit |= character.isdigit()
        made.append("#" if character.isdigit() else "@" if character.isalpha() and seen_digit else character)
    return "".join(made)


def of_regex(pattern: str) -> str | None:
    """A pattern of `values` for a simple regular expression (`^ORD-[0-9]{5}$`, `\\d{3}`); None for another one."""
    text, made = pattern.removeprefix("^").removesuffix("$"), []
    for token in re.finditer(
        r"(\\d|\[0-9\]|\[A-Z\]|\[A-Za-z\]|\[a-zA-Z\]|\\-|[A-Za-z0-9_/ -])(?:\{(\d+)(?:,\d*)?\})?|(.)", text
    ):
        unit, count, other = token.groups()
        if other is not None:
            return None
        sign = "#" if unit in (r"\d", "[0-9]") else "@" if unit.startswith("[") else unit.removeprefix("\\")
        made.append(sign * int(count or 1))
    found = "".join(made)
    return found if re.search("[#@]", found) else None
