"""An example's messages and tools as OpenAI's API wants them."""

import re
from collections.abc import Sequence
from typing import Any

from callwright.chat.formats import to_json
from callwright.chat.template import plain_call

# What the API takes as a tool's name; benchmarks have dots in theirs.
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")
LONGEST_NAME = 64


def openai_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An example's messages as OpenAI's API wants them: calls with ids, arguments as text, results with these ids."""
    written, waiting = [], []
    for number, message in enumerate(messages):
        message = dict(message)
        if message.get("tool_calls"):
            plain = [plain_call(call.get("function", call)) for call in message["tool_calls"]]
            waiting = [f"call_{number}_{index}" for index in range(len(plain))]
            message["tool_calls"] = [
                {"id": identifier, "type": "function", "function": {**call, "arguments": to_json(call["arguments"])}}
                for identifier, call in zip(waiting, plain, strict=True)
            ]
        elif message["role"] == "tool":
            message = {"role": "tool", "content": message["content"], "tool_call_id": waiting.pop(0) if waiting else ""}
        written.append(message)
    return written


def allowed_names(tools: Sequence[dict[str, Any]]) -> dict[str, str]:
    """For each tool's name one that the API takes, no two alike; the name itself where it is such a one."""
    names = [tool["function"]["name"] for tool in tools]
    written = {name: name for name in names if len(name) <= LONGEST_NAME and not _FORBIDDEN.search(name)}
    for name in names:
        if name not in written:
            plain = _FORBIDDEN.sub("_", name)
            ends = ("", *(f"_{number}" for number in range(len(names))))
            choices = (plain[: LONGEST_NAME - len(end)] + end for end in ends)
            written[name] = next(choice for choice in choices if choice not in written.values())
    return written


def renamed(
    messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], names: dict[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Messages of `openai_messages` and tools with these names in place of the tools' own."""

    def under(part: dict[str, Any]) -> dict[str, Any]:
        function = part["function"]
        return {**part, "function": {**function, "name": names.get(function["name"], function["name"])}}

    calls = [
        {**message, "tool_calls": list(map(under, message["tool_calls"]))} if message.get("tool_calls") else message
        for message in messages
    ]
    return calls, list(map(under, tools))
