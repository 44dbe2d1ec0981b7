"""A tool in other words: its names, descriptions and defaults as other people would have written them.

A model that sees one definition of each tool learns its name by heart, and does not read the list. Here a tool of
the toolset is shown under other names (synonyms; snake, camel, dotted), with other descriptions (4 to 18 words),
with its parameters renamed, described, given defaults, or with names that say nothing.
"""

# ruff: noqa: E501

import random
import re
from dataclasses import dataclass, field
from typing import Any

from callwright.data.augment import ALPHABET
from callwright.data.toolset.phrasing import Tool
from callwright.data.toolset.variety import Variety

SYNONYMS = {
    "get": ("fetch", "find", "show", "retrieve", "read", "check"), "find": ("search", "look_up", "get", "locate"),
    "search": ("find", "look_up", "query"), "set": ("adjust", "change", "configure"), "create": ("add", "make", "new"),
    "add": ("put", "insert", "append"), "cancel": ("drop", "call_off", "revoke"), "send": ("deliver", "write", "post"),
    "book": ("reserve", "arrange"), "order": ("buy", "purchase", "request"), "play": ("start", "put_on"),
    "start": ("run", "begin", "launch"), "log": ("record", "track", "note"), "convert": ("change", "transform"),
    "calculate": ("compute", "work_out"), "report": ("announce", "notify_of"), "pay": ("settle",), "buy": ("purchase", "get"),
    "share": ("give_access_to", "pass_on"), "open": ("launch", "start"), "switch": ("turn", "toggle"), "rate": ("score", "judge"),
    "make": ("create", "build"), "record": ("save", "tape", "store"), "print": ("output", "make_printout_of"),
    "call": ("phone", "dial", "ring"), "track": ("follow", "trace"), "apply": ("use", "redeem"), "translate": ("interpret",),
    "renew": ("extend", "prolong"), "reserve": ("hold", "set_aside"), "split": ("divide", "share_out"), "plan": ("organize", "prepare"),
    "restart": ("reboot", "reload"), "deploy": ("roll_out", "release"), "check": ("inspect", "read"), "rename": ("retitle",),
    "edit": ("modify", "retouch"), "resize": ("scale",), "compare": ("diff",), "summarize": ("sum_up", "digest"), "lock": ("secure",),
    "rent": ("hire",), "invite": ("ask_along",), "transfer": ("send", "wire"), "define": ("explain",), "complete": ("finish", "tick_off"),
}  # fmt: skip
NAMES = {
    "city": ("location", "town", "place", "city_name"), "date": ("day", "on_date", "when", "calendar_date"),
    "day": ("date", "on_day", "when"), "time": ("at", "at_time", "clock_time"), "minutes": ("duration", "duration_minutes", "length_minutes"),
    "title": ("name", "headline", "label"), "contact": ("person", "recipient", "who"), "text": ("message", "content", "body"),
    "amount": ("sum", "value", "total_amount"), "file": ("filename", "document", "path"), "room": ("area", "place", "room_name"),
    "email": ("email_address", "mail"), "name": ("title", "label"), "quantity": ("count", "number", "how_many"),
    "origin": ("from", "departure", "start"), "destination": ("to", "target", "arrival_place"), "restaurant": ("place", "venue", "restaurant_name"),
    "event": ("occasion", "event_name"), "movie": ("film", "movie_title"), "service": ("system", "service_name"),
    "reason": ("why", "purpose"), "limit": ("max_results", "count", "top"), "query": ("search_text", "keywords", "q"),
    "task": ("todo", "item", "what"), "degrees": ("temperature", "target_temperature"), "language": ("target_language", "lang"),
    "device": ("gadget", "device_name"), "topic": ("subject", "category", "about"), "hours": ("duration_hours", "time_spent"),
    "people": ("guests", "party_size", "persons"), "product": ("article", "item", "product_name"), "items": ("things", "entries", "list"),
    "level": ("strength", "degree"), "kind": ("type", "sort"), "team": ("club", "team_name"), "song": ("track",), "artist": ("singer", "by"),
    "station": ("stop", "station_name"), "street": ("address", "street_address"), "phone": ("phone_number", "number"),
    "order_id": ("order", "order_number"), "number": ("value",), "company": ("payee", "firm"), "pet": ("animal_name", "pet_name"),
}  # fmt: skip
ABOUT = {
    "city": ("Name of the city", "City to look up", "Which city"), "date": ("The date",), "contact": ("Who it is for", "Name of the person"),
    "title": ("What it is called", "Title, as said"), "text": ("What it should say", "The exact words"), "file": ("Name of the file", "Which file"),
    "room": ("Which room", "Name of the room"), "quantity": ("How many", "Number of pieces"), "minutes": ("How many minutes", "Length in minutes"),
    "amount": ("How much", "Amount as a number"), "limit": ("How many at most", "Largest number of results"), "restaurant": ("Name of the restaurant",),
    "movie": ("Title of the film",), "people": ("How many people", "Who"), "query": ("What to look for",), "name": ("What it is called",),
}  # fmt: skip
# How a description that begins with a verb is put, and one that names a thing.
DO = ("{D}.", "Use this to {d}.", "Lets the user {d}.", "{D}, as the user asks.", "Call this when someone wants to {d}.", "Can {d}.", "Will {d} for the user.")  # fmt: skip
THING = ("{D}.", "Returns this: {d}.", "Tells the user about {d}.", "Look up {d}.", "Gives {d}.", "Information on {d}.")
VERBS = set(
    [
        "add",
        "remove",
        "find",
        "invite",
        "start",
        "set",
        "convert",
        "switch",
        "lock",
        "vacuum",
        "play",
        "tune",
        "send",
        "call",
        "read",
        "search",
        "book",
        "get",
        "order",
        "track",
        "apply",
        "transfer",
        "calculate",
        "translate",
        "define",
        "detect",
        "log",
        "share",
        "create",
        "rename",
        "rate",
        "mark",
        "turn",
        "open",
        "connect",
        "make",
        "water",
        "schedule",
        "mow",
        "record",
        "report",
        "buy",
        "print",
        "resize",
        "edit",
        "rent",
        "pay",
        "charge",
        "reserve",
        "renew",
        "quiz",
        "begin",
        "jump",
        "limit",
        "like",
        "put",
        "give",
        "save",
        "show",
        "split",
        "write",
        "cancel",
        "reset",
        "preheat",
        "change",
        "reply",
        "plan",
        "deploy",
        "restart",
        "scale",
        "summarize",
        "compare",
        "warm",
        "heat",
        "look",
        "move",
        "take",
        "enter",
        "have",
        "tell",
        "remind",
        "list",
        "sign",
        "deliver",
        "redeem",
        "ring",
        "let",
        "keep",
        "check",
        "answer",
        "say",
        "arrange",
        "complain",
        "adjust",
        "round",
        "wake",
        "draw",
        "pick",
    ]
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A tool as one list of tools shows it.

    tool: whose it is, None for a foreign one; definition: the OpenAI tool object; names: its parameters' names there.
    """

    tool: Tool | None
    definition: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name under which it is listed."""
        return self.definition["function"]["name"]

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        """A call to the tool of the toolset as a call to this one."""
        arguments = {self.names.get(key, key): value for key, value in call["arguments"].items()}
        return {"name": self.name, "arguments": arguments}


def as_it_is(tool: Tool) -> Shown:
    """The tool as the toolset defines it."""
    return Shown(tool, tool.definition)


def show(tools: list[Tool], variety: Variety, rng: random.Random) -> list[Shown]:
    """The tools of one list, each in some definition; no two have one name."""
    masked = rng.random() < variety.masked
    shown: list[Shown] = []
    used: set[str] = {tool.name for tool in tools}
    for tool in tools:
        found = redefined(tool, variety, rng, masked)
        if found.name != tool.name and found.name in used:
            found = as_it_is(tool)
        used.add(found.name)
        shown.append(found)
    return shown


def redefined(tool: Tool, variety: Variety, rng: random.Random, masked: bool = False) -> Shown:
    """The tool in another definition, as often as `variety` says; with `masked` under names that say nothing."""
    function = tool.definition["function"]
    anew = masked or rng.random() < variety.definitions
    properties = tool.parameters["properties"]
    parts, names, used = {}, {}, set(properties)
    for name, schema in properties.items():
        part = dict(schema)
        if masked or (not part.get("description") and rng.random() < variety.described):
            part["description"] = described(name, part, rng)
        if name not in tool.required and "default" not in part and rng.random() < variety.defaults:
            part |= default_of(tool, name, part, rng)
        new = masked_name("p", rng) if masked else renamed(name, rng) if anew and rng.random() < 0.4 else name
        if new != name and new in used:
            new = name
        used.add(new)
        names[name] = new
        parts[new] = part
    parameters = {
        **tool.parameters,
        "properties": parts,
        "required": [names[name] for name in tool.required],
    }
    name, description = function["name"], function["description"]
    if anew:
        name = masked_name("f", rng) if masked else other_name(tool, rng)
        description = other_description(description, names, tool, rng) if description else description
    definition = {"name": name, "description": description, "parameters": parameters}
    return Shown(tool, {"type": "function", "function": definition}, names)


def other_name(tool: Tool, rng: random.Random) -> str:
    """The tool's name with another verb, maybe, in one of the usual styles."""
    first, *rest = tool.name.split("_")
    if first in SYNONYMS and rng.random() < 0.5:
        first = rng.choice(SYNONYMS[first])
    words = [*first.split("_"), *rest]
    style = rng.random()
    if style < 0.4:
        return "_".join(words)
    if style < 0.7:
        return words[0] + "".join(word.capitalize() for word in words[1:])
    if style < 0.8:
        return "".join(word.capitalize() for word in words)
    if style < 0.92:
        return f"{tool.domain}.{'_'.join(words)}"
    return "-".join(words)


def renamed(name: str, rng: random.Random) -> str:
    """Another name of a parameter, or the same in another style."""
    if name in NAMES and rng.random() < 0.7:
        name = rng.choice(NAMES[name])
    if "_" in name and rng.random() < 0.4:
        first, *rest = name.split("_")
        return first + "".join(word.capitalize() for word in rest)
    return name


def masked_name(start: str, rng: random.Random) -> str:
    """A name that says nothing."""
    return f"{start}_{''.join(rng.choices(ALPHABET, k=5))}"


def described(name: str, part: dict[str, Any], rng: random.Random) -> str:
    """What a parameter is, from its name and type; a description that is there stays in it."""
    words = re.sub(r"[_\-.]+|(?<=[a-z])(?=[A-Z])", " ", name).strip().lower()
    if part.get("description"):
        text = part["description"]
        return (
            text
            if words in text.lower()
            else f"{words.capitalize()}: {text[:1].lower() if text[1:2].islower() else text[:1]}{text[1:]}"
        )
    kind = part.get("type")
    if name in ABOUT and rng.random() < 0.7:
        return rng.choice(ABOUT[name])
    if kind == "boolean":
        return rng.choice((f"True for {words}", f"Whether it is {words}", f"{words.capitalize()}, yes or no"))
    if kind == "integer":
        return rng.choice(
            (f"Number of {words}", f"{words.capitalize()}, a whole number", f"How many {words}")
            if words.endswith("s")
            else (f"{words.capitalize()}, a whole number", f"The {words}")
        )
    if kind == "number":
        return rng.choice((f"{words.capitalize()}, a number", f"The {words}"))
    if kind == "array":
        return rng.choice((f"All {words}", f"List of {words}", f"The {words}"))
    if "enum" in part:
        return rng.choice((f"Which {words}", f"The {words}", f"One of the {words} that there are"))
    return rng.choice((f"The {words}", f"{words.capitalize()}, as said", f"Which {words}"))


def default_of(tool: Tool, name: str, part: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """`{"default": value}` for a parameter of few values; nothing for others."""
    if isinstance(part.get("enum"), list):
        return {"default": rng.choice(part["enum"])}
    if part.get("type") == "boolean":
        return {"default": False}
    if part.get("type") == "integer" and name in tool.pools:
        return {"default": tool.pools[name].draw(rng)[1]}
    return {}


def other_description(text: str, names: dict[str, str], tool: Tool, rng: random.Random) -> str:
    """The description put otherwise, maybe with what the tool takes."""
    text = text.strip().rstrip(".")
    if rng.random() < 0.25:
        return f"{text}."
    first = text.split(" ", 1)[0].lower()
    small = text if text[1:2].isupper() else text[:1].lower() + text[1:]
    frame = rng.choice(DO if first in VERBS else THING)
    said = frame.replace("{D}", text).replace("{d}", small)
    if rng.random() < 0.25 and tool.required:
        needs = [re.sub(r"_", " ", name) for name in tool.required]
        said += (
            f" Needs the {' and the '.join([', the '.join(needs[:-1]), needs[-1]]) if len(needs) > 1 else needs[0]}."
        )
    return said
