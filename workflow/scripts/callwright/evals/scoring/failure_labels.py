"""Why an item failed: one label each, the first thing that went wrong on its way through the funnel."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from callwright.data.arguments import LABELS as BY_GRAVITY
from callwright.data.arguments import UnusableSchema, violations
from callwright.data.schema import parameters_by_name
from callwright.evals.scoring.match import Call, Possible, call_difference, pair_calls
from callwright.runtime.errors import CallwrightError

LABELS = (
    "truncated",  # the answer ran into the token limit
    "prompt_too_long",  # not answered: the prompt has more tokens than the model or the configuration takes
    "unparseable",  # a malformed call, JSON that looks like one, or nothing at all
    "hallucinated_tool",  # a call to a tool that was not offered
    "hallucinated_argument",  # an argument that the tool does not have
    "missing_argument",  # an expected argument is absent
    "wrong_type",  # a value of another type than the schema or the expected value
    "wrong_value",  # a value that is not the expected one, or an optional argument nobody asked for
    "missing_call",  # an expected call was not made; also: another known tool was called in its place
    "extra_call",  # more calls than expected
    "called_when_should_abstain",
    "abstained_when_should_call",
)


def schema_error(call: Call, schema: dict[str, Any]) -> str | None:
    """None when the call's arguments satisfy the tool's schema (`data.arguments`), else the gravest label.

    Raises CallwrightError for a schema that cannot be used.
    """
    try:
        found = {label for label, _ in violations(call["arguments"], schema)}
    except UnusableSchema as error:
        raise CallwrightError(f"tool {call['name']!r}: its parameters are not a usable JSON Schema: {error}") from error
    return next((label for label in BY_GRAVITY if label in found), None)


def name_error(expected: Sequence[Call], got: Sequence[Call]) -> str:
    """The label for known tools that were not called as often as expected."""
    wanted, made = (Counter(call["name"] for call in calls) for calls in (expected, got))
    return "missing_call" if wanted - made else "extra_call"


def value_error(
    expected: Sequence[Call],
    got: Sequence[Call],
    tools: Sequence[dict[str, Any]],
    possible: Sequence[Possible] | None = None,
) -> str:
    """The label for the right tools with arguments that do not match: that of the first unpaired call."""
    schemas = parameters_by_name(tools)
    partners = pair_calls(expected, got, tools, possible)
    free = [call for j, call in enumerate(got) if j not in partners]
    for i, (call, partner) in enumerate(zip(expected, partners, strict=True)):
        if partner is None:
            rival = next(other for other in free if other["name"] == call["name"])
            return call_difference(call, rival, schemas, possible[i] if possible else None) or "wrong_value"
    raise ValueError("the calls match: there is no error to label")


def is_prose(text: str) -> bool:
    """True for words meant to be read: not empty, not punctuation, not JSON (whole or begun), not code."""
    text = text.strip()
    if not re.search(r"[^\W\d_].*?[^\W\d_]", text, re.DOTALL) or text.startswith(("{", "[", "```")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False
