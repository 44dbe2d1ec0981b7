"""How much of what was expected an answer holds: calls, and arguments by themselves, for recall and precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from callwright.data.schema import parameters_by_name
from callwright.evals.scoring import possible_answers
from callwright.evals.scoring.match import (
    Call,
    Possible,
    compare_values,
    maximum_matching,
    pair_calls,
)


@dataclass(frozen=True)
class Slot:
    """A place for one argument of an expected call: which values are right there, and whether it may stay empty."""

    tool: str
    name: str
    required: bool
    schema: Any
    value: Any = None
    choices: Sequence[Any] | None = None

    def takes(self, tool: str, name: str, value: Any) -> bool:
        """Whether a given argument is the one that belongs here."""
        if (tool, name) != (self.tool, self.name):
            return False
        if self.choices is not None:
            return possible_answers.compare(value, self.choices, self.schema) is None
        return compare_values(self.value, value, self.schema) is None


def overlap(
    expected: Sequence[Call],
    got: Sequence[Call],
    tools: Sequence[dict[str, Any]],
    possible: Sequence[Possible] | None = None,
) -> dict[str, dict[str, int]]:
    """Counts of one answer: `{"calls": {"expected", "made", "right"}, "arguments": {"expected", "given", "right",
    "found"}}`.

    A call is right when it is paired with an expected one that it matches (`match.pair_calls`). An argument is right
    when an expected call of the same tool has such a value for it (`match`'s comparison of values), each place of an
    argument filled at most once, as many as possible: whether the rest of the call is right does not matter, nor in
    which of several calls of one tool it stands. `found` are the right ones among those `expected`, which are the
    arguments that may not be left out; the others may be right, but are not missed.
    """
    pairs = pair_calls(expected, got, tools, possible)
    # Those that are needed first: a place that is filled stays filled while the matching grows.
    slots = sorted(slots_of(expected, tools, possible), key=lambda slot: not slot.required)
    given = [(call["name"], name, value) for call in got for name, value in call["arguments"].items()]
    filled = maximum_matching(len(slots), len(given), lambda i, j: slots[i].takes(*given[j]))
    return {
        "calls": {
            "expected": len(expected),
            "made": len(got),
            "right": sum(partner is not None for partner in pairs),
        },
        "arguments": {
            "expected": sum(slot.required for slot in slots),
            "given": len(given),
            "right": sum(partner is not None for partner in filled),
            "found": sum(slot.required and partner is not None for slot, partner in zip(slots, filled, strict=True)),
        },
    }


def slots_of(
    expected: Sequence[Call], tools: Sequence[dict[str, Any]], possible: Sequence[Possible] | None = None
) -> list[Slot]:
    """The places for arguments of the expected calls, call by call; `possible` as of `match.match_calls`."""
    schemas = parameters_by_name(tools)
    slots = []
    for number, call in enumerate(expected):
        schema = schemas.get(call["name"], {})
        properties = schema.get("properties") or {}
        if possible is not None:
            slots += [
                Slot(call["name"], name, "" not in choices, properties[name], choices=choices)
                for name, choices in possible[number].items()
                if name in properties
            ]
            continue
        required = set(schema.get("required") or ())
        defaults = {
            name: part["default"]
            for name, part in properties.items()
            if isinstance(part, dict) and "default" in part and name not in required
        }
        for name, value in call["arguments"].items():
            part = properties.get(name, {})
            may_lack = name in defaults and compare_values(defaults[name], value, part) is None
            slots.append(Slot(call["name"], name, not may_lack, part, value))
        for name, value in defaults.items():
            if name not in call["arguments"]:
                slots.append(Slot(call["name"], name, False, properties[name], value))
    return slots
