"""Types of tool parameters: from the Python-like ones of xLAM to JSON Schema, and the check of arguments.

| xLAM writes | JSON Schema |
|---|---|
| `str`, `int`, `float`, `bool` | `string`, `integer`, `number`, `boolean` |
| `list`, `List[int]`, `set`, `Tuple[float, ...]` | `array`, with `items` where they are known |
| `Tuple[float, str]` | `array` of that length, by `prefixItems` |
| `dict`, `Dict[str, int]` | `object`, with `additionalProperties` where the values are known |
| `Union[int, str]`, `int or str`, `Optional[int]` | a list of types, or `anyOf` |
| `Literal['a', 'b']` | `enum` |
| `Callable[[float], float]` | `string`: a name or an expression |
| `Any` | anything |

After a comma there may follow `optional` and `default X`: an argument is required exactly when it is
neither optional nor has a default.
"""

import ast
import math
import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jsonschema
import orjson

from callwright.data.arguments import UnusableSchema, too_deep, violations

MAX_TYPE_DEPTH = 16

_SIMPLE = {
    "string": {"str", "string", "text", "bytes", "date", "datetime", "time", "uuid", "path", "enum"},
    "integer": {"int", "integer", "long"},
    "number": {"float", "number", "double", "decimal", "numeric", "complex"},
    "boolean": {"bool", "boolean"},
    "null": {"none", "nonetype", "null"},
}
SIMPLE = {name: {"type": kind} for kind, names in _SIMPLE.items() for name in names}
LISTS = {"list", "array", "set", "frozenset", "sequence", "iterable", "collection", "iterator", "ndarray", "deque"}
DICTS = {"dict", "object", "mapping", "json", "defaultdict", "ordereddict", "mutablemapping"}
_TOKEN = re.compile(r"\s*(?:([A-Za-z_][\w.]*)|('[^']*'|\"[^\"]*\"|-?\d+(?:\.\d+)?)|(\.\.\.|[\[\],|]))")


class TypeSyntaxError(ValueError):
    """A type that cannot be read."""


def json_schema(type_text: str) -> tuple[dict[str, Any], bool, dict[str, Any]]:
    """Read a type as xLAM writes it: its JSON Schema, whether it is optional, and `{"default": value}` if it has one.

        json_schema("str, optional, default 'London'") == ({"type": "string"}, True, {"default": "London"})

    Raises TypeSyntaxError for a type that is not in the table above.
    """
    head, *modifiers = _split_top_level(type_text)
    schema = _parse(head)
    optional, default = False, {}
    for modifier in modifiers:
        word = modifier.strip().casefold()
        if word.startswith("optional"):
            optional = True
        elif match := re.match(r"\s*defaults?(?:\s+to\b|\s+is\b|\s+value\b)?\s*[:=]?\s*(.*)", modifier, re.I | re.S):
            default = {"default": _literal(match.group(1))}
    return schema, optional, default


def validate(arguments: dict[str, Any], parameters: dict[str, Any]) -> str | None:
    """What is wrong with a call's arguments by the tool's schema, as one sentence; None when nothing is.

    An argument that the schema does not list is wrong unless the schema allows it by a rule, as
    `additionalProperties` (`data.arguments`).
    """
    try:
        return next((sentence for _, sentence in violations(arguments, parameters)), None)
    except UnusableSchema as error:
        return f"the schema cannot be applied ({str(error)[:120]})"


def coerce(value: Any, schema: dict[str, Any]) -> tuple[bool, Any]:
    """A value in the type that a schema wants, where it means the same: `(True, value)`; else `(False, None)`.

    Texts of numbers, truth values, lists and objects are read ("10", "true", "[1, 2]"), whole floats become
    integers, and numbers become text where text is wanted.
    """
    candidates: list[Any] = [value]
    if isinstance(value, str):
        word = value.strip()
        candidates += [{"true": True, "false": False}.get(word.casefold(), word), _literal(word)]
    elif isinstance(value, float) and value.is_integer():
        whole = [int(value), value] if schema.get("type") == "integer" else [value, int(value)]
        candidates = [*whole, str(value)]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        candidates.append(str(value))
    wanted = {"type": "object", "properties": {"value": schema}}
    return next(((True, found) for found in candidates if validate({"value": found}, wanted) is None), (False, None))


def parameters_by_name(tools: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each tool's JSON Schema of parameters by the tool's name, from OpenAI tool objects."""
    return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}


def problem(parameters: dict[str, Any]) -> str | None:
    """What makes this no JSON Schema (draft 2020-12), as one sentence; None when it is one."""
    try:
        return _problem(_key(parameters))
    except (TypeError, orjson.JSONEncodeError) as error:
        return str(error)


@lru_cache(maxsize=8192)
def _problem(key: bytes) -> str | None:
    try:
        jsonschema.Draft202012Validator.check_schema(orjson.loads(key))
    except jsonschema.SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        return f"{where}: {error.message}"[:160] if where else error.message[:160]
    except BaseException as error:
        if not too_deep(error):
            raise
        return "nested too deeply"
    return None


def _key(schema: dict[str, Any]) -> bytes:
    return orjson.dumps(schema)


def _parse(text: str) -> dict[str, Any]:
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise TypeSyntaxError(f"cannot read the type {text[:60]!r}")
        tokens.append(match.group().strip())
        at = match.end()
    reader = _TypeReader(tokens, text)
    schema = reader.union(0)
    if reader.tokens:
        raise TypeSyntaxError(f"cannot read the type {text[:60]!r} from {reader.tokens[0]!r} on")
    return schema


class _TypeReader:
    """Recursive descent over the tokens of one type."""

    def __init__(self, tokens: list[str], text: str):
        self.tokens, self.text = deque(tokens), text

    def fail(self) -> TypeSyntaxError:
        return TypeSyntaxError(f"unknown type {self.text[:60]!r}")

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, expected: str | None = None) -> str:
        if not self.tokens or (expected is not None and self.tokens[0] != expected):
            raise self.fail()
        return self.tokens.popleft()

    def union(self, depth: int) -> dict[str, Any]:
        choices = [self.one(depth)]
        while self.peek() in ("|", "or"):
            self.take()
            choices.append(self.one(depth))
        return any_of(choices)

    def one(self, depth: int) -> dict[str, Any]:
        if depth > MAX_TYPE_DEPTH:
            raise TypeSyntaxError("the type is nested too deeply")
        if self.peek() == "[":  # the argument list of a Callable
            self.arguments(depth)
            return {}
        name = self.take().rsplit(".", 1)[-1].casefold()
        if name == "literal":
            self.take("[")
            values = [_literal(self.take())]
            while self.peek() == ",":
                self.take()
                values.append(_literal(self.take()))
            self.take("]")
            return {"enum": values}
        inner = self.arguments(depth) if self.peek() == "[" else []
        if name in SIMPLE and not inner:
            return dict(SIMPLE[name])
        if name == "any" and not inner:
            return {}
        if name in LISTS and len(inner) <= 1:
            return {"type": "array", **({"items": inner[0]} if inner and inner[0] else {})}
        if name == "tuple":
            return _tuple(inner)
        if name in DICTS and len(inner) in (0, 2):
            return {"type": "object", **({"additionalProperties": inner[1]} if inner and inner[1] else {})}
        if name == "union" and inner:
            return any_of(inner)
        if name == "optional" and len(inner) == 1:
            return any_of([*inner, {"type": "null"}])
        if name in ("callable", "function"):
            return {"type": "string"}
        raise self.fail()

    def arguments(self, depth: int) -> list[Any]:
        """The types between brackets; `...` stands for itself."""
        self.take("[")
        found: list[Any] = []
        while self.peek() != "]":
            if self.peek() == "...":
                found.append(self.take())
            else:
                found.append(self.union(depth + 1))
            if self.peek() != "]":
                self.take(",")
        self.take("]")
        return found


def _tuple(inner: list[Any]) -> dict[str, Any]:
    if not inner:
        return {"type": "array"}
    if inner[-1] == "...":
        return {"type": "array", **({"items": inner[0]} if len(inner) == 2 and inner[0] else {})}
    size = {"minItems": len(inner), "maxItems": len(inner)}
    if all(item == inner[0] for item in inner):
        return {"type": "array", **({"items": inner[0]} if inner[0] else {}), **size}
    return {"type": "array", "prefixItems": inner, **size}


def any_of(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of a union: a list of plain types where that says it all, `anyOf` elsewhere."""
    if {} in choices:
        return {}
    unique = [choice for index, choice in enumerate(choices) if choice not in choices[:index]]
    if {"type": "number"} in unique:  # JSON Schema's number includes the integers
        unique = [choice for choice in unique if choice != {"type": "integer"}]
    if len(unique) == 1:
        return unique[0]
    if all(choice.keys() == {"type"} for choice in unique):
        return {"type": [choice["type"] for choice in unique]}
    return {"anyOf": unique}


def _split_top_level(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[(":
            depth += 1
        elif character in "])":
            depth -= 1
        elif character == "," and depth <= 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _literal(text: str) -> Any:
    """A Python literal's value where JSON has it; else the text itself."""
    text = text.strip()
    try:
        value = ast.literal_eval(text)
        orjson.dumps(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value
