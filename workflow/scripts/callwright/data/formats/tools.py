"""The tools on offer in a record: a field of it, or a part of its system prompt, in anybody's form."""

import re
from typing import Any

from callwright.chat.parse import json_spans
from callwright.data.formats.turns import parse_loose, value_of
from callwright.data.formats.xlam import tool_definition
from callwright.data.records import RecordError, short

FIELDS = ("tools", "functions", "available_tools", "available_functions", "tool_definitions")
_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.S)
# What a system prompt says before it lists tools, in the words of ToolACE, Glaive and others.
_EXPLAINS = re.compile(r"\b(?:functions?|tools?|apis?)\b", re.I)


def tools_in(tools: list[Any]) -> list[dict[str, Any]]:
    """OpenAI tool objects of a record's tools; raises RecordError."""
    found: list[dict[str, Any]] = []
    for tool in tools:
        tool = value_of(tool, what="a tool")
        declared = (
            tool.get("functionDeclarations", tool.get("function_declarations")) if isinstance(tool, dict) else None
        )
        if isinstance(declared, list):  # Gemini's
            found += [tool_definition(each) for each in declared]
        else:
            found.append(tool_definition(tool))
    for tool in found:
        if not isinstance(name := tool["function"]["name"], str):
            raise RecordError("bad_tool", f"a tool's name is {short(name)}, expected text")
    return found


def tools_of_system(text: str, explained: bool = False) -> list[Any] | None:
    """The tools that a system prompt lists, or None when it lists none.

    explained: whether the record has its tools elsewhere; then only a prompt that marks them is one that explains.
    """
    if found := _TOOLS.search(text):
        return _listed(found.group(1))
    if explained or "{" not in text or not _EXPLAINS.search(text):
        return None
    tools: list[Any] = []
    for start, end in json_spans(text):
        try:
            value = parse_loose(text[start:end])
        except RecordError:
            continue
        tools += [item for item in (value if isinstance(value, list) else [value]) if describes_tools(item)]
    return tools or None


def _listed(text: str) -> list[Any]:
    """The tools between `<tools>` and `</tools>`: one list, or one object after the other."""
    try:
        value = parse_loose(text)
    except RecordError:
        spans = json_spans(text)
        if not spans:
            raise
        return [parse_loose(text[start:end]) for start, end in spans]
    return value if isinstance(value, list) else [value]


def describes_tools(value: Any) -> bool:
    """Whether a value is the description of a tool."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    return any(key in value for key in ("parameters", "input_schema", "inputSchema", "description"))
