"""An answer's calls beside what was said: completed where the request says more, asked about where nobody said it.

What `callwright serve --grounding ask` does while an answer is written, for an answer that is whole: evaluation and the
agent take it from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callwright.data.completed_calls import Likely, completed_calls
from callwright.data.grounding import context_of, to_ask_for
from callwright.data.negatives import question

Questions = Mapping[str, Mapping[str, str]]  # of tools, for their parameters


@dataclass(frozen=True, slots=True)
class Grounded:
    """calls: all of them, completed; held: the places of those that are not to be made; asked: what to say instead."""

    calls: list[dict[str, Any]]
    held: list[int]
    asked: str = ""

    @property
    def made(self) -> list[dict[str, Any]]:
        """The calls that are to be made."""
        return [call for place, call in enumerate(self.calls) if place not in self.held]


def grounded(
    calls: list[dict[str, Any]],
    schemas: Mapping[str, dict[str, Any]],
    messages: Sequence[dict[str, Any]],
    questions: Questions | None = None,
    likely: Likely | None = None,
) -> Grounded:
    """Hold an answer's calls against the conversation.

    A call to a known tool that lacks a required value, or has one that the conversation does not hold, is held back.
    schemas: of the tools' parameters, by name. questions: the tools' own, for what is missing. likely: what is said of
    an enumeration in other words.
    """
    context, calls = context_of(messages), completed_calls(calls, schemas, messages, likely)
    wanted = [
        to_ask_for(context, call["arguments"], schemas[call["name"]]) if call["name"] in schemas else []
        for call in calls
    ]
    held = [place for place, names in enumerate(wanted) if names]
    if not held:
        return Grounded(calls, [])
    own = (questions or {}).get(calls[held[0]]["name"])
    return Grounded(calls, held, question(wanted[held[0]][0], own))
