"""How calls and other answers are written as text."""

import json
from typing import Any

STYLES = ("hermes", "fenced", "fenced_ids")
NO_CALL = "I can't do that with the tools I have."  # as the built-in toolset says it


def encode_calls(calls: list[dict[str, Any]], style: str = "hermes") -> str:
    """The text of `calls` (`{"name", "arguments"}` each) in one of three styles.

    hermes: one block per call, what stock servers parse:
        <tool_call>
        {"name": "f", "arguments": {"x": 1}}
        </tool_call>
    fenced: one JSON list in a Markdown fence:
        ```json
        [{"name": "f", "arguments": {"x": 1}}]
        ```
    fenced_ids: the same list, its calls in OpenAI's form and numbered, as the study that this project starts from has:
        [{"id": "call_0", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]

    Raises ValueError for another style or a value that JSON does not have (NaN).
    """
    plain = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
    if style == "hermes":
        return "\n".join(f"<tool_call>\n{to_json(call)}\n</tool_call>" for call in plain)
    if style == "fenced":
        return f"```json\n{to_json(plain)}\n```"
    if style == "fenced_ids":
        numbered = [{"id": f"call_{n}", "type": "function", "function": call} for n, call in enumerate(plain)]
        return f"```json\n{to_json(numbered)}\n```"
    raise ValueError(f"unknown style {style!r}, expected one of {STYLES}")


def answer_text(example: Any, style: str = "hermes") -> str:
    """What the assistant should say to `example` (a row or an object with `calls` and `answer`).

    Its calls in `style`, else its `answer`, else a sentence that no tool fits.
    """
    calls, answer = fields(example, "calls", "answer")
    return encode_calls(calls, style) if calls else (answer or NO_CALL).strip()


def fields(example: Any, *names: str) -> tuple[Any, ...]:
    """The named fields of an example, be it a row (dict) or an object; None where absent."""
    if isinstance(example, dict):
        return tuple(example.get(name) for name in names)
    return tuple(getattr(example, name, None) for name in names)


def to_json(value: Any) -> str:
    """JSON on one line with ", " and ": ", non-ASCII characters as they are: what chat templates' `tojson` writes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
