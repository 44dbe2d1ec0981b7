"""The conversation of a request: checked, and each tool's result put where its call stands."""

from collections.abc import Sequence
from typing import Any

from callwright.chat.strict_json import read_json
from callwright.data.records import kind, short
from callwright.serve.errors import ApiError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def read_messages(messages: Any) -> list[dict[str, Any]]:
    """The messages as a chat template takes them; raises ApiError that names the one at fault.

    Results of tools follow the order of their calls: the templates write no ids, so that order alone tells the model
    which result is whose.
    """
    if not isinstance(messages, list):
        raise ApiError(f"messages is {kind(messages)}, expected a list", param="messages", code="invalid_type")
    if not messages:
        raise ApiError("messages is empty, expected at least one", param="messages", code="empty_array")
    read: list[dict[str, Any]] = []
    open_calls: list[str] = []  # ids of the last assistant message's calls
    results: dict[str, dict[str, Any]] = {}
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        plain = read_message(message, place)
        if plain["role"] == "tool":
            identifier = plain.pop("tool_call_id")
            if identifier not in open_calls or identifier in results:
                raise ApiError(
                    f"{place}.tool_call_id is {short(identifier)}, expected the id of a call in the assistant's "
                    "message before it that has no result yet",
                    param=f"{place}.tool_call_id",
                )
            results[identifier] = plain
            continue
        read += close(open_calls, results, index - len(results) - 1)
        read.append(plain)
        open_calls, results = [call["id"] for call in plain.get("tool_calls", [])], {}
        if len(set(open_calls)) < len(open_calls):
            raise ApiError(f"{place}.tool_calls: two calls have the same id", param=f"{place}.tool_calls")
    return read + close(open_calls, results, len(messages) - len(results) - 1)


def close(open_calls: list[str], results: dict[str, dict[str, Any]], index: int) -> list[dict[str, Any]]:
    """The results of the calls of message `index`, in the calls' order; raises ApiError when one is missing."""
    if missing := [call for call in open_calls if call not in results]:
        raise ApiError(
            f"messages[{index}] has tool_calls without a result: each needs a message of the role `tool` right after "
            f"it; missing: {', '.join(map(short, missing[:3]))}",
            param=f"messages[{index}].tool_calls",
        )
    return [results[call] for call in open_calls]


def read_message(message: Any, place: str) -> dict[str, Any]:
    """One message with what templates use: role, content as text, and an assistant's calls or the id of a result."""
    if not isinstance(message, dict):
        raise ApiError(f"{place} is {kind(message)}, expected an object", param=place, code="invalid_type")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise ApiError(
            f"{place}.role is {short(role)}, expected one of {', '.join(ROLES)}",
            param=f"{place}.role",
            code="invalid_value",
        )
    if message.get("function_call") is not None:
        raise ApiError(
            f"{place}.function_call is not supported by this server; give the call in `tool_calls`, and its result "
            "with the role `tool`",
            param=f"{place}.function_call",
            code="unsupported_value",
        )
    calls = message.get("tool_calls")
    content = read_content(message.get("content"), f"{place}.content")
    if content is None and not (role == "assistant" and calls):
        content = read_content(message.get("refusal"), f"{place}.refusal") if role == "assistant" else None
        if content is None:
            raise ApiError(f"{place}.content is null, expected text", param=f"{place}.content", code="invalid_type")
    plain: dict[str, Any] = {"role": ROLES[role], "content": content or ""}
    if role == "assistant" and calls is not None:
        if not isinstance(calls, list):
            raise ApiError(
                f"{place}.tool_calls is {kind(calls)}, expected a list",
                param=f"{place}.tool_calls",
                code="invalid_type",
            )
        if calls:
            plain["tool_calls"] = [read_call(call, f"{place}.tool_calls[{n}]") for n, call in enumerate(calls)]
    if role == "tool":
        identifier = message.get("tool_call_id")
        if not isinstance(identifier, str):
            raise ApiError(
                f"{place}.tool_call_id is {short(identifier)}, expected the id of the call",
                param=f"{place}.tool_call_id",
                code="invalid_type",
            )
        plain["tool_call_id"] = identifier
    return plain


def read_content(content: Any, place: str) -> str | None:
    """Text, or a list of parts that are text, as one text; None for null."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(
            f"{place} is {kind(content)}, expected text or a list of parts", param=place, code="invalid_type"
        )
    texts = []
    for number, part in enumerate(content):
        sort = part.get("type") if isinstance(part, dict) else None
        text = part.get(sort) if sort in ("text", "refusal") else None
        if not isinstance(text, str):
            raise ApiError(
                f"{place}[{number}] is not a part with text: this model reads nothing else",
                param=f"{place}[{number}]",
                code="invalid_value",
            )
        texts.append(text)
    return "".join(texts)


def read_call(call: Any, place: str) -> dict[str, Any]:
    """A call that the assistant made earlier, its arguments as an object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ApiError(f"{place} is not a call with a `function` that has a `name`", param=place, code="invalid_type")
    if not isinstance(call.get("id"), str):
        raise ApiError(
            f"{place}.id is {short(call.get('id'))}, expected text", param=f"{place}.id", code="invalid_type"
        )
    arguments = function.get("arguments")
    try:
        value = read_json(arguments or "{}") if isinstance(arguments, str) else {} if arguments is None else arguments
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiError(
            f"{place}.function.arguments is {short(arguments)}, expected the JSON text of an object",
            param=f"{place}.function.arguments",
            code="invalid_value",
        )
    return {
        "id": call["id"],
        "type": "function",
        "function": {"name": function["name"], "arguments": value},
    }


def escaped(value: Any, markers: Sequence[str]) -> Any:
    """Messages or tools in whose texts no marker of the template stands: a blank after its first character breaks it.

    The model reads such a text as text, and not as the edge of a turn.
    """
    if isinstance(value, str):
        for marker in markers:
            if marker in value:
                value = value.replace(marker, f"{marker[0]} {marker[1:]}")
        return value
    if isinstance(value, dict):
        return {escaped(key, markers): escaped(inner, markers) for key, inner in value.items()}
    if isinstance(value, list):
        return [escaped(inner, markers) for inner in value]
    return value
