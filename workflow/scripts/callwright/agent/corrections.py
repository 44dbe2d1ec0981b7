"""Corrections at the terminal: what a model should have answered, written as a call, a question or a refusal.

book_table(people=4, time="16:00")      the right call; several are joined by `;`
ask: For how many people?               it should have asked
decline                                 no tool fits; `decline: I only know about tables` says it in own words
"""

import ast
import json
from typing import Any

from callwright.data.corrections import Correction, CorrectionStore
from callwright.data.records import RecordError, short


class NotUnderstood(Exception):
    """What was written is none of the three forms; the text says why."""


class Corrector:
    """Writes corrections of an agent's answers to `store`. `tools`: the tools that were on offer."""

    def __init__(self, store: CorrectionStore, tools: list[dict[str, Any]], model: str):
        self.store, self.tools, self.model = store, tools, model

    def add(self, messages: list[dict[str, Any]], written: str) -> Correction:
        """Append a correction of the answer to the last request in `messages`.

        Raises NotUnderstood for text of another form, and for calls that the tools do not allow.
        """
        last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last is None:
            raise NotUnderstood("there is no request yet that could be corrected")
        answered = next((message for message in messages[last + 1 :] if message["role"] == "assistant"), {})
        row = {
            **read(written),
            "messages": messages[: last + 1],
            "tools": self.tools,
            "answered": {"calls": calls_of(answered), "content": answered.get("content") or ""},
            "model": self.model,
            "via": "agent",
        }
        try:
            return self.store.add(row)
        except RecordError as error:
            raise NotUnderstood(error.reason) from error


def calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of an assistant's message, as `{name, arguments}`."""
    made = (call["function"] for call in message.get("tool_calls") or ())
    return [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in made]


def read(written: str) -> dict[str, Any]:
    """`kind`, `calls` and `answer` of a correction as it was typed."""
    text = written.strip()
    word, colon, rest = text.partition(":")
    if word.strip().casefold() == "ask" and rest.strip():
        return {"kind": "ask", "calls": [], "answer": rest.strip()}
    if word.strip().casefold() == "decline" and (not colon or rest.strip()):
        return {"kind": "decline", "calls": [], **({"answer": rest.strip()} if colon else {})}
    try:
        parts = ast.parse(text).body
        calls = [call_of(part.value) for part in parts if isinstance(part, ast.Expr)]
        if not parts or len(calls) != len(parts):
            raise ValueError("no call")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotUnderstood(
            f'{short(text)} is no correction ({error}): write the right call, as tool(name="value"), or `ask: …`, or '
            "`decline`"
        ) from error
    return {"kind": "call", "calls": calls}


def call_of(node: ast.expr) -> dict[str, Any]:
    """A call with literal arguments; nothing of it is executed. JSON's words for truth and null are taken too."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("expected name(argument=value, …)")
    words = {"true": True, "false": False, "null": None}
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("expected name(argument=value, …)")
        value = keyword.value
        named = isinstance(value, ast.Name) and value.id in words
        arguments[keyword.arg] = words[value.id] if named else ast.literal_eval(value)
    return {"name": node.func.id, "arguments": arguments}
