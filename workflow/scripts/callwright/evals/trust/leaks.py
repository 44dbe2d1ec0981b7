"""Does a prompt give its own answer away, and does it show the tools that the answer needs?"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from callwright.chat.parse import WORK, parse_lenient
from callwright.chat.pythonic import Work, python_calls
from callwright.data.records import text_of
from callwright.evals.scoring.match import canonical, pair_calls

SHORT = 8  # characters of squeezed arguments; shorter ones stand anywhere by chance

Row = dict[str, Any]


def leaks(example: Any, prompt: str) -> bool:
    """True when a prompt holds one of its own expected calls, more often than tools and conversation do."""
    allowed = "\n".join([*_said(example), *(shown for shown in _signed(example) if shown in prompt)])
    squeezed, allowed_squeezed = squeeze(prompt), squeeze(allowed)
    calls, allowed_calls = (Counter(map(canonical, calls_anywhere(text))) for text in (prompt, allowed))
    return any(
        calls[canonical(call)] > allowed_calls[canonical(call)]
        or any(squeezed.count(text) > allowed_squeezed.count(text) for text in serialisations(call))
        for call in example.calls
    )


def _said(example: Any) -> Iterator[str]:
    """What may hold an expected call: the conversation (but no instructions) and the tools."""
    for message in example.messages:
        if message["role"] != "system":
            yield text_of(message)
            yield from (json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls") or [])
    yield from (json.dumps(tool, ensure_ascii=False) for tool in example.tools)


def _signed(example: Any) -> Iterator[str]:
    for tool in example.tools:
        yield from _enumerations(tool["function"].get("parameters"))


def _enumerations(schema: Any) -> Iterator[str]:
    """How a list of tools as signatures shows enumerated parameters: `account: "checking"|"savings"`, like a value."""
    if not isinstance(schema, dict):
        return
    for name, part in (schema.get("properties") or {}).items():
        for kind in [part, *(part.get("anyOf") or [])] if isinstance(part, dict) else []:
            if isinstance(kind, dict) and isinstance(kind.get("enum"), list) and name in (schema.get("required") or []):
                yield f"{name}: {'|'.join(json.dumps(value, ensure_ascii=False) for value in kind['enum'])}"
        yield from _enumerations(part)
    yield from _enumerations(schema.get("items"))


def squeeze(text: str) -> str:
    """A text without blanks, quotation marks and backslashes: JSON in JSON, indented or not, comes to the same."""
    return re.sub(r"\\+[nrt]|[\s\"'\\]+", "", text)


def serialisations(call: Row) -> set[str]:
    """The ways in which a call may be written, squeezed: JSON, Python, XML and YAML, its arguments in two orders."""
    found = set()
    name, given = call["name"], call["arguments"]
    for arguments in (given, dict(sorted(given.items()))):
        for plain in (True, False):
            as_json = json.dumps(arguments, ensure_ascii=plain)
            found |= {f"name:{name},{key}:{as_json}" for key in ("arguments", "parameters")}
            found |= {f"{key}:{as_json},name:{name}" for key in ("arguments", "parameters")}
            parts = [(key, json.dumps(value, ensure_ascii=plain)) for key, value in arguments.items()]
            found.add(f"{name}({','.join(f'{key}={value}' for key, value in parts)})")
            lone = [as_json, "".join(f"<{key}>{value}</{key}>" for key, value in parts)]
            lone += ["".join(f"<parameter={key}>{value}</parameter>" for key, value in parts)]
            lone += ["".join(f"{key}:{value}" for key, value in parts)]
            found |= {text for text in lone if len(squeeze(text)) >= SHORT}
        found.add(f"{name}({','.join(f'{key}={value!r}' for key, value in arguments.items())})")
        if len(squeeze(repr(arguments))) >= SHORT:
            found.add(repr(arguments))
    return set(map(squeeze, found))


def calls_anywhere(text: str) -> list[Row]:
    """The calls that can be read in a text, in whatever wrapper and whatever else stands there."""
    found = parse_lenient(text)
    return found + [call for call in python_calls(text, Work(WORK)) if call not in found]


def copied(example: Any, prompt: str) -> bool:
    """True when the prompt holds every expected call, for whoever knows which of its calls to copy."""
    possible = getattr(example, "possible", None)
    return None not in pair_calls(example.calls, calls_anywhere(prompt), example.tools, possible)


def hidden(example: Any, prompt: str) -> list[str]:
    """The tools and parameters of an example that its prompt does not name, beside the request itself."""
    shown = set(re.findall(r"[\w.\-]+", prompt.replace(example.query, " ", 1)))
    shown |= {part.strip(".-") for part in shown}
    return [name for name in _names(example.tools) if name not in shown and not _is_shown(name, prompt)]


def _names(tools: Sequence[Row]) -> Iterator[str]:
    for tool in tools:
        yield tool["function"]["name"]
        yield from (tool["function"].get("parameters") or {}).get("properties") or {}


def _is_shown(name: str, prompt: str) -> bool:
    """True for a name of unusual characters that stands in the prompt as it is, or as JSON writes it."""
    unusual = not re.fullmatch(r"[\w.\-]+", name)
    return unusual and (name in prompt or json.dumps(name)[1:-1] in prompt)
