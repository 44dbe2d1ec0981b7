"""ShareGPT's format, and Hermes's way to put tools, calls and results into it.

    {"conversations": [{"from": "system", "value": "… <tools>[…]</tools> …"},
                       {"from": "human", "value": …},
                       {"from": "gpt", "value": "<tool_call>\\n{…}\\n</tool_call>"},
                       {"from": "tool", "value": "<tool_response>\\n{…}\\n</tool_response>"}],
     "tools": …, "system": …}

The tools stand in a field of the record or in the system prompt. A system prompt with `<tools>` explains one
model's way of calling, and is left out: the chat template of the model that is trained says that in its own
words. Calls may also be turns of their own (`function_call`, with `observation` for the result).
"""

import re
from collections.abc import Iterator
from typing import Any

from callwright.data.formats.conversations import Record, call_of, examples_of, list_of, parse_loose
from callwright.data.records import RecordError, kind, short

_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "model": "assistant", "bot": "assistant", "chatgpt": "assistant", "function_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool", "ipython": "tool",
}  # fmt: skip
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.S)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.S)
_TOOLS = re.compile(r"<tools>(.*?)</tools>", re.S)
_THOUGHT = re.compile(r"<(think|scratch_pad)>.*?</\1>", re.S)


def fits(row: dict[str, Any]) -> bool:
    """True when a record looks like one of this format."""
    return isinstance(row.get("conversations", row.get("conversation")), list)


def examples(record_id: str, row: dict[str, Any]) -> Iterator[Record]:
    """The examples of one record; raises RecordError when it cannot be used as a whole."""
    turns = row.get("conversations", row.get("conversation"))
    if turns is None:
        raise RecordError("missing_field", "the field 'conversations' is missing")
    if not isinstance(turns, list):
        raise RecordError("wrong_type", f"the field 'conversations' is {kind(turns)}, expected a list")
    tools, messages = list_of(row, "tools"), []
    if isinstance(row.get("system"), str) and row["system"].strip():
        turns = [{"from": "system", "value": row["system"]}, *turns]
    for turn in turns:
        role, text = _turn(turn)
        if role == "system" and (found := _TOOLS.search(text)):
            tools = tools or _listed(found.group(1))
            continue
        messages += _messages(role, text, turn)
    return examples_of(record_id, messages, tools, "sharegpt")


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise RecordError("wrong_type", f"a turn is {kind(turn)}, expected an object")
    speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise RecordError("wrong_type", f"a turn is from {short(speaker)}")
    if not isinstance(text, str):
        raise RecordError("wrong_type", f"the value of a turn is {kind(text)}, expected text")
    return _ROLES[speaker], text


def _messages(role: str, text: str, turn: dict[str, Any]) -> list[dict[str, Any]]:
    if role == "tool":
        results = _RESULT.findall(text) or [text.strip()]
        return [{"role": "tool", "content": result} for result in results]
    if role != "assistant":
        return [{"role": role, "content": text}]
    if turn.get("from") == "function_call":
        return [{"role": role, "tool_calls": _calls(text)}]
    text = _THOUGHT.sub("", text)
    calls = [call for block in _CALL.findall(text) for call in _calls(block)]
    spoken = _CALL.sub("", text).strip()
    if "<tool_call>" in spoken or "</tool_call>" in spoken:
        raise RecordError("wrong_type", "a <tool_call> is not closed")
    return [{"role": role, "content": spoken, "tool_calls": calls}]


def _calls(text: str) -> list[dict[str, Any]]:
    value = parse_loose(text)
    return [call_of(call) for call in (value if isinstance(value, list) else [value])]


def _listed(text: str) -> list[Any]:
    """The tools between `<tools>` and `</tools>`: one list, or one object after the other."""
    try:
        value = parse_loose(text)
    except RecordError:
        return [parse_loose(line) for line in text.strip().splitlines() if line.strip()]
    return value if isinstance(value, list) else [value]
