"""Does a text that holds no well-formed call still try to make one?"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from callwright.chat.parse import json_spans
from callwright.chat.strict_json import read_json

_CALL_MARKUP = re.compile(
    r"""</?tool_call|<function\b|```tool_code|(["'])(?:name|arguments|parameters|function)\1\s*:"""
)


def attempts_call(text: str, tools: Sequence[dict[str, Any]]) -> bool:
    """True when text that holds no well-formed call still tries to make one.

    Such are markup, the keys of a call, `tool(x=1)`, a tool's name with no word beside it or `tool x=1`, and a JSON
    object of arguments that a tool has.
    """
    if _CALL_MARKUP.search(text):
        return True
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    names = "|".join(map(re.escape, schemas))
    called = rf"(?<!\w)(?:{names})\((?:\s*\w+\s*=|\s*[\"'{{\[])"
    bare = rf"\W*(?:{names})(?:\W*|\s+\w+=.*)"
    if names and (re.search(called, text) or re.fullmatch(bare, text, re.DOTALL)):
        return True
    known = [set(schema.get("properties") or ()) for schema in schemas.values()]
    return any(keys <= arguments for keys in _object_keys(text) for arguments in known)


def _object_keys(text: str) -> Iterator[set[str]]:
    """The keys of each JSON object in `text` that has any."""
    for start, end in json_spans(text):
        if text[start] == "{" and text.find('"', start, end) >= 0:
            try:
                value = read_json(text[start:end])
            except ValueError:
                continue
            yield set(value)
