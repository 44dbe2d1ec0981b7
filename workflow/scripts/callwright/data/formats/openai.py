"""OpenAI's fine-tuning format: `messages` and `tools`, calls as objects or as text, and the older `functions`.

    {"messages": [{"role": "user", "content": …},
                  {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name", "arguments"}}]},
                  {"role": "tool", "tool_call_id": …, "content": …}],
     "tools": [{"type": "function", "function": {"name", "description", "parameters"}}]}

Before `tools` there were `functions`, the assistant's `function_call`, and results with the role `function`.
"""

from collections.abc import Iterator
from typing import Any

from callwright.data.formats.conversations import Record, call_of, content_of, examples_of, list_of
from callwright.data.records import RecordError, kind, short

_ROLES = {"developer": "system", "function": "tool", "model": "assistant", "human": "user"}


def fits(row: dict[str, Any]) -> bool:
    """True when a record looks like one of this format."""
    return isinstance(row.get("messages"), list) and "calls" not in row


def examples(record_id: str, row: dict[str, Any]) -> Iterator[Record]:
    """The examples of one record; raises RecordError when it cannot be used as a whole."""
    messages = row.get("messages")
    if messages is None:
        raise RecordError("missing_field", "the field 'messages' is missing")
    if not isinstance(messages, list):
        raise RecordError("wrong_type", f"the field 'messages' is {kind(messages)}, expected a list")
    tools = list_of(row, "tools") or list_of(row, "functions")
    return examples_of(record_id, [_message(message) for message in messages], tools, "openai")


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RecordError("wrong_type", f"a message is {kind(message)}, expected an object")
    role = message.get("role")
    role = _ROLES.get(role, role) if isinstance(role, str) else role
    if role not in ("system", "user", "assistant", "tool"):
        raise RecordError("wrong_type", f"a message's role is {short(role)}")
    calls = message.get("tool_calls") or message.get("function_call") or []
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list):
        raise RecordError("wrong_type", f"a message's tool_calls are {kind(calls)}, expected a list")
    return {"role": role, "content": content_of(message), "tool_calls": [call_of(call) for call in calls]}
