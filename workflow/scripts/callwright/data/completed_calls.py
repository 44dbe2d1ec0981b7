"""An answer's calls, completed with what the request says: by code, and by what can tell it in other words.

What the code of `said_values` does not see, a sentence encoder may (`evals.tool_encoder`): which words of the request
are a title, that "listen to it in the car" asks for the audiobook.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callwright.data.grounding import Context, fold
from callwright.data.records import text_of
from callwright.data.said_values import (
    RELATIVE,
    SHIFTED,
    choices,
    chosen_elsewhere,
    completed,
    ordered,
    required_of,
)
from callwright.data.schema import validate
from callwright.data.spans import is_date, is_read, is_time, plain

LONGEST = 4000  # characters of a request that are looked at: the last ones
CLEAR = 0.7  # a value of an enumeration that is said in other words must be so likely, so as to be given,
LIKELY = 3.0  # or, in the place of another that is required, so many times as likely as that
OWN = 3.0  # nats that a text or number counts more for being what the model wrote
LEAST = 1e-3  # how likely a value is at least that no words say
CODE = 3  # letters of a code: USD for dollars, fr for French
NONE = 0.5  # how likely it must be that none is said, so that one is taken away: in other words it may be, next Friday


@dataclass(frozen=True, slots=True)
class Said:
    """What a request says of an argument in its own words: how likely each value, and that none is said."""

    values: Mapping[Any, float]
    unsaid: float

    @property
    def value(self) -> Any:
        """The likeliest value."""
        return max(self.values, key=self.values.__getitem__)


Likely = Callable[[str, str], Said | None]  # of a tool's parameter, by their names; None: it is not read


def completed_calls(
    calls: Sequence[dict[str, Any]],
    schemas: Mapping[str, Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    likely: Likely | None = None,
) -> list[dict[str, Any]]:
    """An answer's calls, each as `completed_call` has it."""
    names = [call["name"] for call in calls]
    behind = names[1] if len(names) > 1 else None
    return [
        completed_call(call, names[:place], None if place else behind, schemas, messages, likely)
        for place, call in enumerate(calls)
    ]


def completed_call(
    call: dict[str, Any],
    before: Sequence[str],
    behind: str | None,
    schemas: Mapping[str, Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    likely: Likely | None = None,
) -> dict[str, Any]:
    """A call to a known tool with its arguments as what a user just said has them.

    Of several calls to one tool nobody knows which one a value is meant for; by code, a value is read off for an
    answer's only call. before: the tools that calls before it name; behind: that of a second one, behind the first.
    schemas: of the tools' parameters, by name. likely: what a request says of an argument in its own words, where
    something can tell (`evals.tool_encoder`).
    """
    name, alone = call["name"], not before and behind is None
    if name not in schemas or name in (*before, behind) or not messages or messages[-1].get("role") != "user":
        return call
    schema, request, found = schemas[name], _request(messages), call["arguments"]
    earlier = fold("\n".join(map(text_of, messages))).removesuffix(fold(request))
    if alone:
        found = completed(found, schema, request)
    if likely is not None:
        found = _agreed(found, call["arguments"], schema, lambda key: likely(name, key))
        called = "\n".join([earlier, *(fold(str(message.get("tool_calls") or "")) for message in messages)])
        found = _weighed(found, schema, request, lambda key: likely(name, key))
        found = _chosen(found, schema, request, called, lambda key: likely(name, key))
    kept = {key: value for key, value in call["arguments"].items() if _stands_in(value, earlier)}
    return {**call, "arguments": found | kept}


def _agreed(
    found: Mapping[str, Any],
    held: Mapping[str, Any],
    schema: Mapping[str, Any],
    likely: Callable[[str], Said | None],
) -> dict[str, Any]:
    """The arguments without another value of an enumeration, found by code, that is less likely than what a call held.

    "I'm in the kitchen, switch off the lamp in my study" names the kitchen, and means the office.
    """
    found = dict(found)
    for name, part in (schema.get("properties") or {}).items():
        old, new = held.get(name), found.get(name)
        if isinstance(part, dict) and "enum" in part and old != new and type(old) is type(new) is str:
            said = likely(name)
            if said is not None and said.values.get(old, 0.0) > said.values.get(new, 0.0):
                found[name] = old
    return found


def _weighed(
    found: Mapping[str, Any], schema: Mapping[str, Any], text: str, likely: Callable[[str], Said | None]
) -> dict[str, Any]:
    """The arguments that are text or numbers, each as the request most likely says it: what a call holds counts, too.

    A value counts OWN nats more where the call holds it, and none where it holds none. What no words say is taken away,
    so that it is asked for where the tool requires it. A text that was said once is not given to two arguments. What a
    call holds and nothing reads off the words stays where it follows from them: 120 minutes from two hours.
    """
    found, folded = dict(found), fold(text)
    parts = schema.get("properties") or {}
    for name in [name for name, part in parts.items() if is_read(part)]:
        held = found.get(name)
        if not isinstance(held, str | int | float | None) or (said := likely(name)) is None:
            continue
        if "type" not in plain(parts[name]) and not isinstance(held, str | None):
            continue
        shares = {value: share for value, share in said.values.items() if share > LEAST}
        if held is not None:
            shares[held] = sum(shares.pop(value) for value in list(shares) if _alike(value, held))
        alone = {"type": "object", "properties": {name: parts[name]}}
        scores = {
            value: math.log(max(share, LEAST))
            for value, share in shares.items()
            if value == held or not validate({name: value}, alone)
        }
        scores[None] = math.log(max(said.unsaid, LEAST))
        scores[held] += OWN
        best = max(scores, key=scores.__getitem__)
        if best == held:
            continue
        if not any(_alike(value, held) for value in said.values) and _follows(held, parts[name], text, folded):
            continue  # worked out
        if best is None:
            if said.unsaid >= NONE and held != parts[name].get("default"):
                found.pop(name, None)
        elif not _is_taken(best, name, found, folded) and not _crosses(best, held, folded):
            found[name] = best
    return ordered(found, parts)


def _follows(held: Any, part: Mapping[str, Any], text: str, folded: str) -> bool:
    """Whether a number, date, time or code follows from what is said: a date only where its year does."""
    if is_time(part) or is_date(part):
        if SHIFTED.search(folded):
            return True  # counted from another
        if is_date(part) and str(held)[:4] not in folded and not RELATIVE.search(folded):
            return False
    elif isinstance(held, str):
        return len(held) <= CODE and held.isascii() and held.isalpha() and not _stands_in(held, folded)
    return held is not None and Context(text).holds(held, dict(part))


def _crosses(one: Any, other: Any, text: str) -> bool:
    """Whether two texts stand in a third so that each holds a part of the other: the Rose home, Name of the Rose."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return False
    (start, end), (begin, behind) = ((text.find(part), text.find(part) + len(part)) for part in map(fold, (one, other)))
    return min(start, begin) >= 0 and (start < begin < end < behind or begin < start < behind < end)


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same but for case, accents and an article."""
    if isinstance(one, str) and isinstance(other, str):
        return _bare(one) == _bare(other)
    return type(one) is not str and type(other) is not str and one == other


def _bare(text: str) -> str:
    return re.sub(r"^(?:the|an?) ", "", fold(text).strip(" .,;:!?\"'"))


def _is_taken(value: Any, name: str, found: Mapping[str, Any], text: str) -> bool:
    """Whether a text was said once and another argument has it."""
    if not isinstance(value, str):
        return False
    others = [other for key, other in found.items() if key != name and isinstance(other, str)]
    return any(_alike(value, other) for other in others) and text.count(fold(value)) == 1


def _chosen(
    found: Mapping[str, Any],
    schema: Mapping[str, Any],
    text: str,
    earlier: str,
    likely: Callable[[str], Said | None],
) -> dict[str, Any]:
    """The arguments with those values of enumerations that a request most likely says, and without what it does not.

    A value that was said word by word, or stands in an earlier call, stays; one that the request says word by word is
    not given here either (`completed` knows whether it is meant), nor one that another argument has; and what a tool
    requires is not taken away.
    """
    required, found, folded = required_of(schema), dict(found), fold(text)
    parts = {name: part for name, part in (schema.get("properties") or {}).items() if isinstance(part, dict)}
    for name, part in parts.items():
        held = found.get(name)
        there = {"enum": [held]}
        if not isinstance(part.get("enum"), list) or isinstance(held, list | dict):
            continue
        if choices(there, folded, text) or choices(there, earlier, ""):
            continue
        if (said := likely(name)) is None:
            continue
        value, sure = said.value, said.values[said.value]
        if said.unsaid >= sure:
            if name not in required:
                found.pop(name, None)
            continue
        if value in chosen_elsewhere(found, parts, name) or choices({"enum": [value]}, folded, text):
            continue
        if sure >= CLEAR or (name in required and held is not None and sure >= LIKELY * said.values.get(held, 0.0)):
            found[name] = value
    return ordered(found, parts)


def _stands_in(value: Any, text: str) -> bool:
    """Whether a text or number stands there as it is: what tools returned or the system says is not read off again."""
    if type(value) not in (str, int, float) or not str(value).strip():
        return False
    return re.search(rf"(?<!\w){re.escape(fold(str(value)))}(?!\w)", text) is not None


def _request(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user has said since the last call: the request, and answers to questions about it."""
    said: list[str] = []
    for message in reversed(messages):
        if message.get("tool_calls") or message.get("role") == "tool":
            break
        if message.get("role") == "user":
            said.append(text_of(message))
    return "\n".join(reversed(said))[-LONGEST:]
