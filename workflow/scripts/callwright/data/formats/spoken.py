"""Calls that an assistant writes as text in what it says: whose they are, or that they cannot be told.

Every wrapper that the lenient parser knows is asked for. A text in which a call is, but cannot be read with
certainty, is never taken for words: whoever learns from it that no call is right learns not to call.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from callwright.chat.parse import parse_lenient
from callwright.data.formats.turns import THOUGHT, calls_of
from callwright.data.records import RecordError

# What begins a call in some family's own words; in ordinary words none of it stands.
MARKS = re.compile(
    r"</?(?:tool_call|tool_code|functions?\b|function_calls?|functioncall|invoke\b|longcat_tool_call|"
    r"minimax:tool_call|arg_key|start_function_call|end_function_call)|<\|?/?(?:tool_call|tool▁call|python_tag|open\|>call)|"
    r"<｜(?:tool|DSML)|\[/?TOOL_CALLS?\]|\[ARGS\]|\bAction Input:|```tool_code|\bto=functions\.|functools\[|"
    r"<\|start_function_call|tool_calls_section|(?<![\w.])call:[\w.\-]+\{",
    re.I,
)
_KEYS = re.compile(r"""(["'])(?:name|function|tool|tool_name|function_name|action)\1\s*:""")
_BLOCK = re.compile(r"<tool_call>(.*?)</tool_call>", re.S)
_TAGS = re.compile(r"<[^<>]{0,200}>|\[/?[A-Z_]+\]|```\w*")
_OPENING = re.compile(r"[\[{]")
_WORD = re.compile(r"[^\W\d_]{2,}")
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.\-]*")
CALL = "\0"
FEW = 2  # words beside a call that say nothing


@dataclass(slots=True)
class Spoken:
    """What a text is: `calls`, with the `words` beside them; or `unclear`, why its calls cannot be told; or words."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    words: str = ""
    unclear: str | None = None


def read_spoken(text: str, tools: Sequence[dict[str, Any]]) -> Spoken:
    """What an assistant's text is; `tools` are those on offer. Never raises."""
    answer = THOUGHT.sub("", text)
    if not any(mark in answer for mark in "([{<"):
        return Spoken(words=answer.strip())
    names = {tool["function"]["name"] for tool in tools}
    calls = _blocks(answer) or _calls(answer, tools)
    marked = MARKS.search(answer) is not None
    if not calls:
        if marked:
            return Spoken(words=text, unclear="the answer begins a call that cannot be read")
        return Spoken(words=answer.strip())
    rest = _rest(answer, calls)
    wordy = len(_WORD.findall(rest)) > FEW
    keyed = _KEYS.search(answer) is not None
    listed = [call["name"] in names for call in calls]
    if _is_cut(answer, rest) or len(_BLOCK.findall(answer)) > len(calls):
        return Spoken(words=text, unclear="a call in the answer is not complete")
    apart = not any(CALL in line and _WORD.search(line) for line in rest.splitlines())
    if marked or not wordy or (all(listed) and (keyed or apart)):
        return Spoken(calls, _BLOCK.sub("", answer).strip() if "<tool_call>" in answer else "")
    if any(listed) or keyed:
        return Spoken(words=text, unclear=f"the answer writes {calls[0]['name']!r} as a call among other words")
    return Spoken(words=answer.strip())  # a program, or a function that is no tool, in words


def _blocks(text: str) -> list[dict[str, Any]]:
    """The calls of Hermes blocks, each in JSON or Python's way to write it; none where a block is something else."""
    try:
        return [call for block in _BLOCK.findall(text) for call in calls_of(block.strip())]
    except RecordError:
        return []


def _calls(text: str, tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls in a text, also to tools whose names are none in Python ("Market Trends API(x=1)")."""
    odd = [name for tool in tools if not _PLAIN_NAME.fullmatch(name := tool["function"]["name"])]
    aliases = {f"odd_name_{n}_of_a_tool": name for n, name in enumerate(sorted(odd, key=len, reverse=True))}
    for alias, name in aliases.items():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?=\s*\()", alias, text)
    if aliases:
        back = {name: alias for alias, name in aliases.items()}
        tools = [*tools, *({"function": {**tool["function"], "name": back[tool["function"]["name"]]}}
                           for tool in tools if tool["function"]["name"] in back)]  # fmt: skip
    calls = parse_lenient(text, tools)
    return [{"name": aliases.get(call["name"], call["name"]), "arguments": _plain(call["arguments"], aliases)}
            for call in calls]  # fmt: skip


def _plain(value: Any, aliases: dict[str, str]) -> Any:
    """Arguments in which a name was replaced, as they were."""
    if isinstance(value, dict):
        return {key: _plain(inner, aliases) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, aliases) for inner in value]
    if isinstance(value, str):
        for alias, name in aliases.items():
            value = value.replace(alias, name)
    return value


def _rest(text: str, calls: Sequence[dict[str, Any]]) -> str:
    """What stands beside calls in a text: without fences and tags, CALL for JSON, and for calls written as Python."""
    text, kept, at = _BLOCK.sub(CALL, text), [], 0
    while found := _OPENING.search(text, at):
        end = _closed(text, found.end())
        if end is None:
            break
        kept += text[at : found.start()], CALL
        at = end
    rest = _TAGS.sub(" ", "".join([*kept, text[at:]]))
    for name in {call["name"] for call in calls}:
        while found := re.search(rf"(?<!\w){re.escape(name)}\s*\(", rest):
            rest = rest[: found.start()] + CALL + rest[_closed(rest, found.end()) or len(rest) :]
        rest = rest.replace(name, " ")
    return rest


def _closed(text: str, at: int) -> int | None:
    """Where the bracket that was opened before `at` is closed, in JSON or Python; None where it is not."""
    depth, quote = 1, ""
    while at < len(text) and depth:
        character = text[at]
        if quote:
            if character == "\\":
                at += 1
            elif character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        at += 1
    return None if depth else at


def _is_cut(text: str, rest: str) -> bool:
    """Whether a call is begun that does not end."""
    opened, closed = text.count("<tool_call>"), text.count("</tool_call>")
    if (opened and opened != closed) or (_KEYS.search(rest) is not None and "{" in rest):
        return True
    return text.lstrip().startswith("[") and rest.count("[") > rest.count("]")
