"""What makes tools hard to call for a small model, and what to write instead.

A small model reads a tool's name, description and parameters, and little between their lines. Each hint names the tool,
the parameter if it is about one, what was found, and what helps.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from callwright.data.tool_texts import words
from callwright.data.toolset.parameter_values import guesses

LONG = 300  # characters of a description: it is read with every request
MANY_PARAMETERS, MANY_TOOLS, MANY_VALUES = 8, 16, 12
ALIKE = 0.6  # share of two tools' words in common, from which on they overlap
EMPTY_NAMES = {
    "action", "api", "call", "do", "endpoint", "exec", "execute", "f", "fn", "foo", "func", "function", "get", "handle",
    "handler", "helper", "invoke", "main", "make", "method", "op", "operation", "perform", "post", "process", "query",
    "request", "run", "set", "task", "test", "tool", "util", "work",
}  # fmt: skip
_EMPTY_PARAMETERS = (
    "a arg args b body config content data id info input item key kwargs mode name obj object opt option options param "
    "params payload ref type val value x y z"
)
EMPTY_PARAMETERS = frozenset(_EMPTY_PARAMETERS.split())
STOP = {"a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "this", "to", "with", "given",
        "get", "all", "its", "it", "be", "can", "that", "your"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hint:
    """One finding: `rule` names it, `found` says what is there, `instead` what to write."""

    tool: str
    parameter: str | None
    rule: str
    found: str
    instead: str

    def __str__(self) -> str:
        place = f"{self.tool}.{self.parameter}" if self.parameter else self.tool
        return f"{place}: {self.found}; {self.instead}"

    def to_row(self) -> dict[str, Any]:
        """The hint as a JSON-able dict."""
        return asdict(self)


def lint(tools: Sequence[dict[str, Any]]) -> list[Hint]:
    """The hints on OpenAI tool objects: on their number, then tool by tool, then on tools that overlap."""
    found: list[Hint] = []
    functions = [tool["function"] for tool in tools]
    if len(tools) > MANY_TOOLS:
        found.append(Hint(
            functions[0]["name"], None, "many_tools", f"it is one of {len(tools)} tools",
            f"a model of this size chooses best among up to {MANY_TOOLS}: offer fewer with each request",
        ))  # fmt: skip
    for function in functions:
        found += _tool(function)
        for name, part in (function["parameters"].get("properties") or {}).items():
            if isinstance(part, dict):
                found += _parameter(function, name, part)
    return found + overlaps(functions)


def _tool(function: dict[str, Any]) -> list[Hint]:
    name, about = function["name"], (function.get("description") or "").strip()
    parameters = function["parameters"].get("properties") or {}
    found = []
    said = words(name)
    if said in EMPTY_NAMES or len(said) < 3 or re.fullmatch(r"[a-z]{1,8} ?\d+", said):
        found.append(("name", f"the name {name!r} says nothing", "name what it does and to what, as `book_table`"))
    if not about:
        found.append(("no_description", "there is no description",
                      "write one short sentence that begins with a verb, as \"Book a table at a time.\""))  # fmt: skip
    elif _content(about) <= _content(said) and len(about.split()) <= len(said.split()) + 1:
        found.append(("same_description", f"the description {about[:60]!r} only repeats the name",
                      "say what it does, for whom, and when it is the right tool"))  # fmt: skip
    elif len(about) > LONG:
        found.append(("long_description", f"the description has {len(about)} characters",
                      "keep the first sentence or two: it is read with every request"))  # fmt: skip
    if len(parameters) > MANY_PARAMETERS:
        found.append(("many_parameters", f"it has {len(parameters)} parameters",
                      "leave out what nobody says, or make two tools of it"))  # fmt: skip
    return [Hint(name, None, *row) for row in found]


def _parameter(function: dict[str, Any], name: str, part: dict[str, Any]) -> list[Hint]:
    about, said = (part.get("description") or "").strip(), words(name)
    values = part.get("enum") if isinstance(part.get("enum"), list) else []
    found = []
    vague = said in EMPTY_PARAMETERS or len(said) < 3 or re.fullmatch(r"[a-z]{1,5} ?\d+", said)
    if not about and vague and not values:
        found.append(("undescribed", "neither its name nor a description says what it is",
                      "describe it in a few words, with an example of a value"))  # fmt: skip
    elif (
        not about
        and not values
        and part.get("type") != "boolean"
        and guesses(name, part)[:1]
        and guesses(name, part)[0].source == "stand-in"
    ):
        found.append(
            ("undescribed", "it has no description", "say in a few words what it is, with an example of a value")
        )
    if (
        part.get("type") == "string"
        and not values
        and re.search(r"\b(date|time|deadline|day)\b", said)
        and not (part.get("format") or re.search(r"yyyy|hh|iso|e\.g\.|such as|\d|weekday|as said", about, re.I))
    ):
        found.append(("form", "how a date or time is to be written is not said",
                      "add the form to its description: `YYYY-MM-DD`, `HH:MM`"))  # fmt: skip
    odd = [value for value in values if isinstance(value, str) and not speakable(value)]
    if odd:
        found.append(("unsayable", f"nobody says {', '.join(map(repr, odd[:3]))}",
                      "take words as values, or say in the description what each means"))  # fmt: skip
    if len(values) > MANY_VALUES:
        found.append(("many_values", f"it has {len(values)} values to choose from",
                      "take free text, and look the value up in your function"))  # fmt: skip
    if part.get("type") == "object" and not part.get("properties"):
        found.append(
            ("free_object", "it is an object of any keys", "list its keys under `properties`, or make them parameters")
        )
    if not part.keys() & {"type", "enum", "anyOf", "oneOf", "$ref", "const", "allOf"}:
        found.append(("no_type", "it has no type", "give it one: a model writes text where nothing is said"))
    if re.match(r"(no|not|disable|dont|without|skip) ", said) and part.get("type") == "boolean":
        found.append(("negative", "a truth value that says no twice when it is false",
                      "turn its name round, as `notify` in the place of `no_notify`"))  # fmt: skip
    return [Hint(function["name"], name, *row) for row in found]


def speakable(value: str) -> bool:
    """Whether a person could say an enumeration's value: a few words, each with a vowel and no digits inside."""
    said = words(value)
    if not said or len(said.split()) > 5:
        return False
    known = re.fullmatch(r"[A-Z]{3}|[a-z]{2}(?:-[A-Z]{2})?|\d{1,4}", value)  # a currency, a language, a number
    return bool(known) or all(re.search(r"[aeiouy]", word) and not re.search(r"\d", word) for word in said.split())


def overlaps(functions: Sequence[dict[str, Any]]) -> list[Hint]:
    """Tools that say nearly the same of themselves as one before them, each with the one it is most like."""
    bags = [_content(f"{words(f['name'])} {f.get('description') or ''}") for f in functions]
    found = []
    for at, first in enumerate(functions):
        shares = [len(bags[at] & other) / max(1, len(bags[at] | other)) for other in bags[:at]]
        if not shares or max(shares) < ALIKE:
            continue
        number = shares.index(max(shares))
        more = sum(share >= ALIKE for share in shares) - 1
        both = ", ".join(sorted(bags[at] & bags[number])[:5])
        found.append(Hint(
            first["name"], None, "overlap",
            f"it reads like {functions[number]['name']!r}{f' and {more} more' * bool(more)} ({both})",
            "say in both descriptions what only this one does; or list the other under `similar`",
        ))  # fmt: skip
    return found


def _content(text: str) -> set[str]:
    """The words of a text that carry meaning, roughly stemmed."""
    found = {
        re.sub(r"(ies|es|s|ing|ed)$", "", word) for word in re.findall(r"[a-z]+", text.lower()) if word not in STOP
    }
    return {word for word in found if len(word) > 1}
