"""From a conversation to the examples in it: one for each turn of the assistant that calls tools.

The formats of other people (`formats`) bring their conversations into OpenAI's form; what follows is the same for
all. An example's messages are what stood before its turn, earlier calls and their results included, so that a
prompt in training is rendered as a server renders it when it is that turn's turn.

What the assistant says beside its calls is not trained. A conversation without any call becomes one example that
abstains, with the assistant's first answer; an answer that follows a call is not trained.
"""

import ast
from collections.abc import Iterator
from typing import Any

from callwright.data.formats.readers import parse
from callwright.data.formats.xlam import tool_definition
from callwright.data.records import Example, RecordError, check_json, kind, short

Record = tuple[str, Example | RecordError]


def examples_of(record_id: str, messages: list[dict[str, Any]], tools: list[Any], source: str) -> Iterator[Record]:
    """The examples of one conversation, `(id, Example or RecordError)` each, at least one.

    `messages` have a `role`, a `content` and, where the assistant calls, `tool_calls`, a list of calls
    (`{"name", "arguments"}`, with arguments as an object). The id is the record's, with `/<number of the turn>`
    where there are several. Raises RecordError when the record as a whole cannot be used.
    """
    definitions = [tool_definition(tool) for tool in tools]
    turns = [at for at, message in enumerate(messages) if message["role"] == "assistant" and message.get("tool_calls")]
    tags = []
    if not turns:
        turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"][:1]
        tags = ["abstain:answer"]
        if not turns:
            raise RecordError("no_answer", "no message is the assistant's: there is nothing to learn")
    many = len(turns) > 1
    for number, at in enumerate(turns, 1):
        name = f"{record_id}/{number}" if many else record_id
        calls = messages[at].get("tool_calls") or []
        count = "calls:2+" if len(calls) > 1 else f"calls:{len(calls)}"
        row = {
            "id": name,
            "messages": [_plain(message) for message in messages[:at]],
            "tools": definitions,
            "calls": calls,
            "source": source,
            "tags": [count, *tags, *([f"conversation:{record_id}"] if many else [])],
        }
        if not calls:
            row["answer"] = content_of(messages[at])
        try:
            yield name, _checked(row)
        except RecordError as error:
            yield name, error


def _checked(row: dict[str, Any]) -> Example:
    example = Example.from_row(row)
    if not example.calls and not (example.answer or "").strip():
        raise RecordError("no_answer", "the assistant neither calls nor says anything")
    return example


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    plain = {"role": message["role"], "content": content_of(message)}
    if message.get("tool_calls"):
        plain["tool_calls"] = [{"type": "function", "function": call} for call in message["tool_calls"]]
    return plain


def content_of(message: dict[str, Any]) -> str:
    """A message's text; raises RecordError for pictures and the like."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise RecordError("wrong_type", "a message has a part that is no text")
        return "".join(parts)
    if not isinstance(content, str):
        raise RecordError("wrong_type", f"a message's content is {kind(content)}, expected text")
    return content


def call_of(value: Any) -> dict[str, Any]:
    """A call in any of the usual forms as `{"name", "arguments"}`; raises RecordError for anything else.

    The forms: bare, or under `function`; `parameters` for `arguments`; arguments as an object or its JSON text.
    """
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise RecordError("wrong_type", f"a call is {short(value)}, expected an object with a `name`")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = parse_loose(arguments) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise RecordError("wrong_type", f"the arguments of a call are {kind(arguments)}, expected an object")
    return {"name": value["name"], "arguments": arguments}


def parse_loose(text: str) -> Any:
    """A value from JSON, or from Python's way to write it; raises RecordError."""
    try:
        value = parse(text)
    except RecordError as error:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            raise error from None
    check_json(value)
    return value


def list_of(row: dict[str, Any], name: str) -> list[Any]:
    """A field that is a list, or the text of one; empty when it is absent."""
    value = row.get(name)
    if isinstance(value, str):
        value = parse_loose(value) if value.strip() else []
    if value is None:
        return []
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RecordError("wrong_type", f"the field {name!r} is {kind(value)}, expected a list")
    return value
