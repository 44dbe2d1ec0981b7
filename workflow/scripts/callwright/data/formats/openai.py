"""Records with `messages`: OpenAI's fine-tuning format, Anthropic's, and everything written like them.

    {"messages": [{"role": "user", "content": …},
                  {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name", "arguments"}}]},
                  {"role": "tool", "tool_call_id": …, "content": …}],
     "tools": [{"type": "function", "function": {"name", "description", "parameters"}}]}

Before `tools` there were `functions`, the assistant's `function_call`, and results with the role `function`.
Gemini's records have `contents` for `messages`; TRL's may have `prompt` and `completion`, one conversation in two.
"""

from collections.abc import Iterator
from typing import Any

from callwright.data.formats.conversations import Record, examples_of, list_of
from callwright.data.formats.tools import FIELDS
from callwright.data.formats.turns import Turn, contents_of, read_turns, value_of
from callwright.data.records import RecordError

SYSTEM_FIELDS = ("system", "systemInstruction", "system_instruction", "system_prompt")


def fits(row: dict[str, Any]) -> bool:
    """True when a record looks like one of this format."""
    return "calls" not in row and _field(row) is not None


def examples(record_id: str, row: dict[str, Any]) -> Iterator[Record]:
    """The examples of one record; raises RecordError when it cannot be used as a whole."""
    name = _field(row) or "messages"
    if row.get(name) is None:
        raise RecordError("missing_field", f"the field {name!r} is missing")
    turns = read_turns(row[name], name)
    if name == "prompt":
        turns += read_turns(row["completion"], "completion")
    tools = next((found for field in FIELDS if (found := list_of(row, field))), [])
    return examples_of(record_id, [*system_of(row), *turns], tools, "openai")


def system_of(row: dict[str, Any]) -> list[Turn]:
    """The system prompt that is a field of the record, as a turn; none where there is none."""
    content = next((row[key] for key in SYSTEM_FIELDS if row.get(key)), None)
    text, _, _ = contents_of(value_of(content, loose=False), "system")
    return [Turn("system", text)] if text.strip() else []


def _field(row: dict[str, Any]) -> str | None:
    """The field that holds the conversation, as a list or its JSON text."""
    if isinstance(value_of(row.get("prompt"), loose=False), list) and isinstance(
        value_of(row.get("completion"), loose=False), list
    ):
        return "prompt"
    return next(
        (name for name in ("messages", "contents") if isinstance(value_of(row.get(name), loose=False), list)), None
    )
