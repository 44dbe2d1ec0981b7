"""Calls out of a model's text: as a stock server would read it, and as leniently as can be."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
# Deeper than any real call; bounds the recursion of everything that later walks the arguments.
MAX_DEPTH = 64
# Nothing shorter can hold a call, and a text may have thousands of `{}`.
SHORTEST = len('{"name":"","arguments":{}}')


@dataclass(slots=True)
class Parsed:
    """`calls` ({"name", "arguments"} each, in order), `content` (text outside blocks), `errors` (one per bad block)."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    content: str = ""
    errors: list[str] = field(default_factory=list)


def parse_native(text: str) -> Parsed:
    """Read `text` as `mlx_lm.server` does with its "json_tools" parser (mlx-lm 0.32.2).

    Text from `<tool_call>` to the next `</tool_call>` is one block and holds JSON: a call or a list
    of calls. Stricter than the server in what would break its client: a block must be closed, a
    call must have a string `name` and an object `arguments`, and its values must be JSON proper
    (no NaN, no lone surrogate, at most 64 levels). Never raises; time is linear in the text.
    """
    parsed = Parsed()
    content = []
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        content.append(text[at:start])
        start += len(OPEN)
        end = text.find(CLOSE, start)
        if end < 0:
            parsed.errors.append(f"{OPEN} is not closed")
            at = len(text)
            break
        at = end + len(CLOSE)
        try:
            parsed.calls += read_block(text[start:end])
        except ValueError as error:
            parsed.errors.append(str(error))
    content.append(text[at:])
    parsed.content = "".join(content)
    return parsed


def read_block(block: str) -> list[dict[str, Any]]:
    """The calls of one block; raises ValueError that says what is wrong with it."""
    value = read_json(block.strip())
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, dict):
            raise ValueError(f"a call must be an object, found {type(item).__name__}")
        if not isinstance(item.get("name"), str):
            raise ValueError("a call must have a `name` that is a string")
        if not isinstance(item.get("arguments"), dict):
            raise ValueError("a call must have `arguments` that are an object")
    return [{"name": item["name"], "arguments": item["arguments"]} for item in items]


def read_json(text: str) -> Any:
    """`json.loads` whose only exception is ValueError, and whose values can be written as JSON again."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.keys()
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f"{item} is not a JSON number")
            elif isinstance(item, str) and not item.isascii() and re.search("[\ud800-\udfff]", item):
                raise ValueError("a string has half a surrogate pair")
        if not inner:
            return value
        level = inner
    raise ValueError(f"the JSON is nested more than {MAX_DEPTH} levels deep")


def parse_lenient(text: str) -> list[dict[str, Any]]:
    """The calls that a reader would see in `text`, whatever they are wrapped in.

    Tool-call blocks, Markdown fences, a bare object or list, prose around them, the OpenAI form
    (`function`, `tool_calls`), `parameters` for `arguments`, arguments as JSON text. A list cut off
    at its end yields its complete calls. Never raises; time is linear in the text.
    """
    calls: list[dict[str, Any]] = []
    for start, end in json_spans(text):
        if end - start < SHORTEST:
            continue
        try:
            value = read_json(text[start:end])
        except ValueError:
            continue
        calls += calls_in(value)
    return calls


def calls_in(value: Any) -> list[dict[str, Any]]:
    """The calls in a JSON value: itself, its items, or what `tool_calls` holds."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    found = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and isinstance(item.get("function"), dict):
            item = item["function"]
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            continue
        arguments = item.get("arguments", item.get("parameters"))
        if isinstance(arguments, str):
            try:
                arguments = read_json(arguments)
            except ValueError:
                continue
        if isinstance(arguments, dict):
            found.append({"name": item["name"], "arguments": arguments})
    return found


def json_spans(text: str) -> list[tuple[int, int]]:
    """The widest balanced `{…}` and `[…]` ranges of `text`, in order, found in one pass.

    Brackets inside JSON strings do not count. A line break ends a string (JSON has none inside),
    so a quotation mark in prose spoils its own line at most.
    """
    spans: list[tuple[int, int]] = []
    open_at: list[int] = []
    in_string, skip = False, -1
    for match in re.finditer(r'[\[\]{}"\\\n]', text):
        at = match.start()
        character = text[at]
        if in_string:
            if at == skip:  # escaped by the backslash before it
                continue
            if character == "\\":
                skip = at + 1
            elif character in '"\n':
                in_string = False
        elif character in "[{":
            open_at.append(at)
        elif not open_at:
            continue
        elif character == '"':
            in_string = True
        elif character in "]}":
            start = open_at.pop()
            if text[start] + character not in ("[]", "{}"):
                open_at.clear()
                continue
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, at + 1))
    return spans
