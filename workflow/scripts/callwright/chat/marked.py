"""Calls in marks of a model family's own: XML-like elements, tags of keys and values, Gemma's braces, XTML.

| reader | what a call looks like | families |
|---|---|---|
| elements | `<function=f>`, `<invoke name="f">`, an element for each argument | Qwen3-Coder, DeepSeek, MiniMax |
| pairs | `<tool_call>f<arg_key>x</arg_key><arg_value>1</arg_value></tool_call>` | GLM from 4.5, LongCat |
| braces | `call:f{x:1}`, its strings between marks | Gemma 4, FunctionGemma |
| xtml | `<|open|>call tool="f"<|sep|>…<|close|>call<|sep|>` | Kimi K3 |

What is not closed is no call: a value that was cut could mean anything. Values stand there without quotation marks;
the tool's schema says what they are, and without one they are read as JSON where they are JSON.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from callwright.chat.pythonic import OutOfWork, Work
from callwright.chat.strict_json import MAX_DEPTH, read_json

Call = dict[str, Any]

_NAME = r"[^\s\"'<>/{}=|]{1,128}+"
# DeepSeek's and Muse's prefixes of element names; theirs are the same elements otherwise.
_PREFIX = r"(?:｜DSML｜ ?|atem:)?"
_CALL = re.compile(rf"<({_PREFIX})(function|invoke)(?:=|\s++name\s*+=\s*+)[\"']?({_NAME})[\"']?\s*+(/?)>\s*+")
_PARAMETER = re.compile(
    rf"<({_PREFIX})(parameter|param)(?:=|\s++name\s*+=\s*+)(?:\"([^\"<>]{{1,200}}+)\"|'([^'<>]{{1,200}}+)'|({_NAME}))"
    rf"([^<>]{{0,80}}+)>"
)
_CDATA = re.compile(r"\s*+<!\[CDATA\[(.*)\]\]>\s*+", re.DOTALL)
# A value that stands on lines of its own ends on one: with its closing tag, or where that was forgotten.
_LINE_END = re.compile(
    rf"\n(?:</{_PREFIX}param(?:eter)?>|(?=<{_PREFIX}param(?:eter)?=[^>\n]{{1,200}}+>\n)|(?=</function>))"
)

_PAIRS = re.compile(
    r"<(longcat_)?tool_call>\s*+(\w[\w.\-]{0,127}+)\s*+(?=<(?:longcat_)?arg_key>|</(?:longcat_)?tool_call>)"
)
_KEY = re.compile(
    r"\s*+<((?:longcat_)?)arg_key>([^<]{1,200}+)</(?:longcat_)?arg_key>(?:\\n|\s)*+<(?:longcat_)?arg_value>"
)

_BRACES = re.compile(r"(?<![\w.])call:([\w.\-]{1,128}+)\{")
_QUOTES = ('<|"|>', "<escape>", '"')
_BARE = re.compile(r"[^,\]}]*+")
_BARE_KEY = re.compile(r"[^:{}\[\],]{1,200}+(?=:)")
_BLANK = re.compile(r"\s*+")

_XTML_CALL = re.compile(r"<\|open\|>call((?: \w+=\"[^\"]*+\")*+)<\|sep\|>")
_XTML_ARGUMENT = re.compile(r"\s*+<\|open\|>(argument|json)((?: \w+=\"[^\"]*+\")*+)<\|sep\|>")
_ATTRIBUTE = re.compile(r" (\w+)=\"([^\"]*+)\"")
_XTML_CLOSE = "<|close|>call<|sep|>"

_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class Tools:
    """What the tools' schemas say of arguments, by tool and argument; asked only where a text has marks."""

    def __init__(self, tools: Sequence[dict[str, Any]] | None):
        self.tools = tools or ()
        self.properties: dict[str, dict[str, Any]] | None = None

    def schema(self, tool: str, argument: str) -> Any:
        """The schema of an argument, None where nothing is known of it."""
        if self.properties is None:
            self.properties = {}
            for entry in self.tools:
                function = entry.get("function", entry)
                parameters = function.get("parameters")
                properties = parameters.get("properties") if isinstance(parameters, dict) else None
                self.properties[function.get("name")] = properties if isinstance(properties, dict) else {}
        return self.properties.get(tool, {}).get(argument)


def marked_calls(text: str, tools: Sequence[dict[str, Any]] | None, work: Work) -> list[Call]:
    """The calls in `text` that carry such marks, in the order of one reader; raises OutOfWork."""
    schemas = Tools(tools)
    found: list[Call] = []
    for marks, reader in READERS:
        if any(mark in text for mark in marks):
            try:
                for call in reader(text, schemas, work):
                    found.append(call)
            except OutOfWork:
                if not found:
                    raise
            if found:
                break
    return found


def element_calls(text: str, schemas: Tools, work: Work) -> Iterator[Call]:
    """Calls that are elements, with an element for each argument."""
    at = 0
    while opened := _CALL.search(text, at):
        work.spend(12)
        at = opened.end()
        prefix, kind, name, empty = opened.groups()
        close = f"</{prefix}{kind}>"
        arguments: dict[str, Any] = {}
        complete = bool(empty)
        while not complete and (parameter := _PARAMETER.match(text, at)):
            work.spend(12)
            key = parameter[3] or parameter[4] or parameter[5]
            value, at = element_value(text, parameter, close, work)
            if value is None:
                break
            as_text = "string=" in parameter[6] and '"true"' in parameter[6]
            schema = None if prefix == "atem:" else schemas.schema(name, key)  # Muse writes JSON, texts too
            arguments[key] = value if as_text else typed(value, schema, quoted=prefix == "atem:")
            at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if complete or text.startswith((close, "</tool_call>"), at):
            yield {"name": name, "arguments": arguments}


def element_value(text: str, parameter: re.Match[str], close: str, work: Work) -> tuple[str | None, int]:
    """A parameter's value and where it ends, None where it does not. Blanks count, but for line breaks around it."""
    start = parameter.end()
    if text.startswith("\n", start):
        # The break after the tag may also be the one before the closing tag: an empty value.
        ended = _LINE_END.search(text, start)
        work.spend(3 + ((ended.end() if ended else len(text)) - start) // 64)
        if ended:
            return text[start + 1 : max(start + 1, ended.start())], ended.end()
    tag = f"</{parameter[1]}{parameter[2]}>"
    end = text.find(tag, start)
    work.spend(3 + ((end if end >= 0 else len(text)) - start) // 64)
    if end < 0:  # the last one may lack its own tag
        end = text.find(close, start)
        work.spend(3 + ((end if end >= 0 else len(text)) - start) // 64)
        return (None, start) if end < 0 else (text[start:end].strip(), end)
    value = text[start:end]
    if "<![CDATA[" in value and (inner := _CDATA.fullmatch(value)):
        value = inner[1]
    return value, end + len(tag)


def pair_calls(text: str, schemas: Tools, work: Work) -> Iterator[Call]:
    """Calls that are a name and tagged pairs of key and value."""
    at = 0
    while opened := _PAIRS.search(text, at):
        work.spend(12)
        at = opened.end()
        prefix, name = opened[1] or "", opened[2]
        arguments: dict[str, Any] = {}
        while key := _KEY.match(text, at):
            end = text.find(f"</{key[1]}arg_value>", key.end())
            after = end + len(f"</{key[1]}arg_value>")
            if end < 0:  # the last one may lack its own tag
                end = after = text.find(f"</{prefix}tool_call>", key.end())
            work.spend(12 + ((end if end >= 0 else len(text)) - at) // 32)
            if end < 0:
                break
            arguments[key[2].strip()] = typed(text[key.end() : end], schemas.schema(name, key[2].strip()))
            at = after
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith(f"</{prefix}tool_call>", at):
            yield {"name": name, "arguments": arguments}


def brace_calls(text: str, schemas: Tools, work: Work) -> Iterator[Call]:
    """Calls that are a name and an object without quotation marks."""
    at = 0
    while opened := _BRACES.search(text, at):
        work.spend(8)
        at = opened.end()
        try:
            arguments, at = brace_object(text, at, 1, work)
        except ValueError:
            continue
        yield {"name": opened[1], "arguments": arguments}


def brace_value(text: str, at: int, depth: int, work: Work) -> tuple[Any, int]:
    """The value at a position and where it ends; raises ValueError where there is none."""
    at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
    work.spend(4)
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    for quote in _QUOTES:
        if text.startswith(quote, at):
            start = at + len(quote)
            end = text.find(quote, start)
            work.spend(2 + ((end if end >= 0 else len(text)) - start) // 64)
            if end < 0:
                raise ValueError("a text is not closed")
            return text[start:end], end + len(quote)
    if text.startswith("{", at):
        return brace_object(text, at + 1, depth + 1, work)
    if text.startswith("[", at):
        return brace_list(text, at + 1, depth + 1, work)
    word = _BARE.match(text, at)
    work.spend(1 + len(word[0]) // 64)  # type: ignore[index]
    end = word.end()  # type: ignore[union-attr]
    if end == len(text) or end == at:
        raise ValueError("a value is missing or cut")
    return typed(text[at:end].strip(), None), end


def brace_object(text: str, at: int, depth: int, work: Work) -> tuple[dict[str, Any], int]:
    """The object whose brace was before `at`; its keys are bare or quoted."""
    items: dict[str, Any] = {}
    while True:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith("}", at):
            return items, at + 1
        if items:
            if not text.startswith(",", at):
                raise ValueError("no comma between the items")
            at = _BLANK.match(text, at + 1).end()  # type: ignore[union-attr]
        if text.startswith(_QUOTES, at):
            key, at = brace_value(text, at, depth, work)
        else:
            bare = _BARE_KEY.match(text, at)
            if not bare:
                raise ValueError("no key")
            key, at = bare[0].strip(), bare.end()
        if not text.startswith(":", at):
            raise ValueError("no value after the key")
        items[key], at = brace_value(text, at + 1, depth, work)


def brace_list(text: str, at: int, depth: int, work: Work) -> tuple[list[Any], int]:
    """The list whose bracket was before `at`."""
    items: list[Any] = []
    while True:
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        if text.startswith("]", at):
            return items, at + 1
        if items:
            if not text.startswith(",", at):
                raise ValueError("no comma between the items")
            at += 1
        item, at = brace_value(text, at, depth, work)
        items.append(item)


def xtml_calls(text: str, schemas: Tools, work: Work) -> Iterator[Call]:
    """Calls that are elements between `<|open|>` and `<|close|>`, with the type of each argument."""
    at = 0
    while opened := _XTML_CALL.search(text, at):
        work.spend(12)
        at = opened.end()
        name = attributes(opened[1]).get("tool")
        arguments: dict[str, Any] = {}
        while argument := _XTML_ARGUMENT.match(text, at):
            described = attributes(argument[2])
            end, at = xtml_end(text, argument, work)
            if end < 0:
                break
            value = text[argument.end() : end]
            if argument[1] == "json":
                whole = typed(value, {"type": "object"})
                arguments |= whole if isinstance(whole, dict) else {}
            else:
                as_text = described.get("type", "string") == "string"
                arguments[described.get("key", "")] = value if as_text else typed(value, None)
        if name and text.startswith(_XTML_CLOSE, _BLANK.match(text, at).end()):  # type: ignore[union-attr]
            yield {"name": name, "arguments": arguments}


def xtml_end(text: str, argument: re.Match[str], work: Work) -> tuple[int, int]:
    """Where an argument's value ends and what follows begins; (-1, …) where it does not end.

    The end is the first closing mark that another argument or the end of the call follows: a text may hold the mark.
    """
    close = f"<|close|>{argument[1]}<|sep|>"
    at = argument.end()
    while True:
        end = text.find(close, at)
        work.spend(12 + ((end if end >= 0 else len(text)) - at) // 64)
        if end < 0:
            return -1, argument.end()
        after = end + len(close)
        if text.startswith(("<|open|>argument", _XTML_CLOSE), _BLANK.match(text, after).end()):  # type: ignore[union-attr]
            return end, after
        at = after


def attributes(text: str) -> dict[str, str]:
    """The attributes of an XTML element."""
    return {key: value.replace("&quot;", '"').replace("&amp;", "&") for key, value in _ATTRIBUTE.findall(text)}


def typed(value: str, schema: Any, quoted: bool = False) -> Any:
    """The text of a value as what its schema says; without a schema as JSON (or Python's words) where it is that.

    quoted: texts stand in quotation marks, which otherwise belong to them.
    """
    kinds = set(types_of(schema, 0))
    if kinds == {"string"}:
        return value
    word = value.strip()
    try:
        found = _WORDS[word] if word in _WORDS else read_json(word)
    except ValueError:
        return value
    if not kinds:
        return value if isinstance(found, str) and not quoted else found
    if "integer" in kinds and "number" not in kinds and isinstance(found, float) and found.is_integer():
        found = int(found)
    return found if kinds & names_of(found) or "string" not in kinds else value


def types_of(schema: Any, depth: int) -> Iterator[str]:
    """The JSON types that a schema allows, those of its alternatives and of its listed values too."""
    if not isinstance(schema, dict) or depth > 4:
        return
    kind = schema.get("type")
    yield from [kind] if isinstance(kind, str) else [one for one in some(kind) if isinstance(one, str)]
    if schema.get("nullable") is True:
        yield "null"
    for listed in ("anyOf", "oneOf", "allOf"):
        for case in some(schema.get(listed)):
            yield from types_of(case, depth + 1)
    if not kind:
        for value in some(schema.get("enum")):
            yield from names_of(value)


def some(value: Any) -> Sequence[Any]:
    """The items of a list, none of anything else: nobody has checked these schemas."""
    return value if isinstance(value, list | tuple) else ()


def names_of(value: Any) -> set[str]:
    """What JSON Schema calls the type of a value."""
    if value is None or isinstance(value, bool):
        return {"null" if value is None else "boolean"}
    if isinstance(value, int):
        return {"integer", "number"}
    return {{float: "number", str: "string", list: "array"}.get(type(value), "object")}


READERS: tuple[tuple[tuple[str, ...], Callable[[str, Tools, Work], Iterator[Call]]], ...] = (
    (("<|open|>call",), xtml_calls),
    (
        (
            "<function",
            "invoke",
        ),
        element_calls,
    ),
    (("arg_key>", "tool_call>"), pair_calls),
    (("call:",), brace_calls),
)
