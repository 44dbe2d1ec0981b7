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
from callwright.data.spans import enumeration_of, is_date, is_month, is_read, is_time, plain, said_in, spans_of

LONGEST = 4000  # characters of a request that are looked at: the last ones
# How likely a time or number must be, so that another is not taken for worked out; and
CLEAR = 0.7  # a value of an enumeration that is said in other words, so as to be given,
LIKELY = 3.0  # or, in the place of another that is required, so many times as likely as that
OWN = 2.5  # nats that a text or number counts more for being what the model wrote,
HALF = 1.5  # and a time for being of the same half of a day
CLASH = 6.0  # nats that a text counts less that was said once and that another argument has
MOST_READ = 50  # arguments of a call
FEW, STEPS = 6, 2000  # values of an argument that are weighed with those of the others; how long that may take
LEAST = 1e-3  # how likely a value is at least that no words say
CODE = 3  # letters of a code: USD for dollars, fr for French
SURELY_NONE = 0.95  # so that a number which may be left out is, though it stands there: "a card", "at five"
NONE = 0.5  # how likely it must be that none is said, so that one is taken away: in other words it may be, next Friday
# How times (by `format` with seconds), dates and months are written.
FORMS = ((is_time, r"\d\d:\d\d(?::\d\d)?"), (is_date, r"\d{4}-\d\d-\d\d"), (is_month, r"\d{4}-\d\d"))
UNWANTED = re.compile(r"\bwithout (?:the |an? |its |leading )*([#@$€£%])(?!\w)")  # a sign, by a parameter's description


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
    return {**call, "arguments": _unsigned(found, schema) | kept}


def _unsigned(found: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, a text without the sign that its description does not want: "Name without the #"."""
    found = dict(found)
    for name, part in (schema.get("properties") or {}).items():
        unwanted = UNWANTED.search(str(part.get("description"))) if isinstance(part, dict) else None
        if unwanted and isinstance(found.get(name), str):
            found[name] = found[name].strip(f" {unwanted[1]}") or found[name]
    return found


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
    """The arguments that are text or numbers, all as the request most likely says them: what a call holds counts, too.

    A value counts OWN nats more where the call holds it, and none where it holds none. What no words say is taken away,
    so that it is asked for where the tool requires it. Words that were said once are hardly given to two arguments, so
    that two values that a call holds in each other's place change over.
    """
    found, folded = dict(found), fold(text)
    parts, required = schema.get("properties") or {}, required_of(schema)
    scores = {}
    for name in [name for name, part in parts.items() if is_read(part)][:MOST_READ]:
        held = found.get(name)
        if not isinstance(held, str | int | float | None) or (said := likely(name)) is None:
            continue
        if "type" not in plain(parts[name]) and not isinstance(held, str | None):
            continue
        if is_time(parts[name]) and isinstance(held, str):
            held = found[name] = _in_form(held, parts[name])
        scores[name] = _nats(held, parts[name], name in required, said, text, folded)
    kept = [value for name, value in found.items() if name not in scores]
    formed = [name for name in scores if any(has(parts[name]) for has, _ in FORMS)]
    mentions = {name: [said for _, said in said_in(folded, parts[name])] for name in formed}
    for name, value in _shared_out(scores, found, kept, folded, mentions).items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return ordered(found, parts)


def _nats(held: Any, part: Mapping[str, Any], required: bool, said: Said, text: str, folded: str) -> dict[Any, float]:
    """How much is to be said for each value of an argument, in nats; of None, for none. folded: the text, by `fold`.

    What a call holds and nothing reads off the words stays where it follows from them: 120 minutes from two hours.
    """
    shares = {value: share for value, share in said.values.items() if share > LEAST}
    if held is not None:
        shares[held] = sum(shares.pop(value) for value in list(shares) if _alike(value, held))
        follows = not any(_alike(value, held) for value in said.values) and _follows(held, part, said, text, folded)
        idle = not required and said.unsaid >= SURELY_NONE and (held == 1 or spans_of(held, part, text))
        if follows and not idle:
            return {held: 0.0}  # worked out
    nats = {
        value: math.log(max(share, LEAST)) + (HALF if is_time(part) and _same_half(value, held) else 0.0)
        for value, share in shares.items()
        if value == held or (_fits(value, part) and not _crosses(value, held, folded))
        if held is not None or not (is_time(part) and _half_a_day_on(value) in said.values)  # it is asked for
    }
    unsaid = math.log(max(said.unsaid, LEAST))
    if held is None:
        return {**nats, None: unsaid + OWN}
    nats[held] += OWN
    if said.unsaid >= NONE and held != part.get("default"):
        return {**nats, None: unsaid}
    return {**nats, held: max(nats[held], unsaid)}  # perhaps in other words


def _shared_out(
    nats: Mapping[str, Mapping[Any, float]],
    held: Mapping[str, Any],
    kept: Sequence[Any],
    text: str,
    mentions: Mapping[str, Sequence[list[Any]]],
) -> dict[str, Any]:
    """The likeliest values of arguments together, each of FEW; held: by a call; kept: by its other arguments.

    mentions: of an argument that is a time or date, what the text says of such, the values that each mention may mean.
    Branch and bound, which takes what it has found after STEPS.
    """
    names = list(nats)
    options = [_likeliest(nats[name], held.get(name)) for name in names]
    ahead = [sum(listed[0][1] for listed in options[place:]) for place in range(len(options) + 1)]
    best: tuple[float, list[Any]] = (-math.inf, [])
    steps = 0

    def go_on(taken: list[Any], so_far: float) -> None:
        nonlocal best, steps
        place, steps = len(taken), steps + 1
        if so_far + ahead[place] <= best[0] or (steps > STEPS and best[1]):
            return
        if place == len(names):
            best = so_far, taken
            return
        worth = {}
        for value, score in options[place]:
            own = value == held.get(names[place])  # two arguments may have what a call gave to both
            others = [other for other, name in zip(taken, names, strict=False) if not own or other != held.get(name)]
            others += [] if own else kept
            clashes = sum(_is_said_once(value, other, text, mentions.get(names[place])) for other in others)
            worth[value] = score - CLASH * clashes
        for value in sorted(worth, key=worth.__getitem__, reverse=True):
            go_on([*taken, value], so_far + worth[value])

    go_on([], 0.0)
    return dict(zip(names, best[1], strict=True))


def _likeliest(nats: Mapping[Any, float], held: Any) -> list[tuple[Any, float]]:
    """The FEW values of an argument for which there is most to be said, what is held, and none, the best first."""
    found = sorted(nats.items(), key=lambda one: -one[1])
    return [*found[:FEW], *(one for one in found[FEW:] if one[0] in (None, held))]


def _is_said_once(value: Any, other: Any, text: str, mentions: Sequence[list[Any]] | None) -> bool:
    """Whether two values are one text, or what one time may mean, and were said no more than once.

    mentions: of times or dates, which hardly stand there in the form of their value; None for other texts.
    """
    if not (isinstance(value, str) and isinstance(other, str)):
        return False
    if mentions is None:
        return _alike(value, other) and text.count(_bare(value)) <= 1
    said = [values for values in mentions if value in values or other in values]
    return len(said) <= 1 and (_alike(value, other) or any(value in values and other in values for values in said))


def _in_form(time: str, part: Mapping[str, Any]) -> str:
    """A time as HH:MM, as what is read is written; its seconds stay where `format` wants a time with them."""
    match = re.fullmatch(r"(\d?\d:\d\d)(:\d\d)?", time)
    if match is None:
        return time
    return match[1].zfill(5) + (match[2] or "" if plain(part).get("format") == "time" else "")


def _half_a_day_on(time: str) -> str:
    return f"{(int(time[:2]) + 12) % 24:02d}{time[2:]}"


def _same_half(time: Any, other: Any) -> bool:
    """Whether two times lie in the same half of a day."""
    return isinstance(time, str) and isinstance(other, str) and (time < "12:00") == (other < "12:00")


def _follows(held: Any, part: Mapping[str, Any], said: Said, text: str, folded: str) -> bool:
    """Whether a number, date, time or code follows from what is said: a date only where its year does.

    Where another one is clearly said, no time follows but that of the other half of the day, and no number that stands
    there as it is.
    """
    clear = said.value if said.values and said.values[said.value] >= CLEAR else None
    form = next((form for has, form in FORMS if has(part)), None)
    if form is not None:
        if not re.fullmatch(form, str(held)):
            return False
        if SHIFTED.search(folded):
            return True  # counted from another
        if is_time(part):
            if clear is not None and held[:5] not in (clear, _half_a_day_on(clear)):
                return False
        elif str(held)[:4] not in folded and not RELATIVE.search(folded):
            return False
    elif isinstance(held, str):
        return len(held) <= CODE and held.isascii() and held.isalpha() and not _stands_in(held, folded)
    elif clear is not None and spans_of(held, part, text):
        return False
    return held is not None and Context(text).holds(held, dict(part))


def _crosses(one: Any, other: Any, text: str) -> bool:
    """Whether two texts stand in a third so that each holds a part of the other: the Rose home, Name of the Rose."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return False
    (start, end), (begin, behind) = ((text.find(part), text.find(part) + len(part)) for part in map(fold, (one, other)))
    return min(start, begin) >= 0 and (start < begin < end < behind or begin < start < behind < end)


def _fits(value: Any, part: Mapping[str, Any]) -> bool:
    """Whether a parameter's schema allows a value."""
    return not validate({"value": value}, {"type": "object", "properties": {"value": part}})


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same but for case, accents and an article."""
    if isinstance(one, str) and isinstance(other, str):
        return _bare(one) == _bare(other)
    return type(one) is not str and type(other) is not str and one == other


def _bare(text: str) -> str:
    return re.sub(r"^(?:the|an?) ", "", fold(text).strip(" .,;:!?\"'").lstrip("#@"))


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
    requires is not taken away. Of a list that may hold several values, the only one is changed.
    """
    required, found, folded = required_of(schema), dict(found), fold(text)
    parts = {name: part for name, part in (schema.get("properties") or {}).items() if isinstance(part, dict)}
    for name, part in parts.items():
        held, several = found.get(name), plain(part).get("type") == "array"
        listed = held if several and held is not None else [held] if held is not None else []
        if not enumeration_of(part) or not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            continue
        if held == []:
            continue  # without any of them
        if choices({"enum": listed}, folded, text) or choices({"enum": listed}, earlier, ""):
            continue
        if (said := likely(name)) is None:
            continue
        value, sure = said.value, said.values[said.value]
        if said.unsaid >= (sum(said.values.get(one, 0.0) for one in listed) if len(listed) > 1 else sure):
            if name not in required:
                found.pop(name, None)
            continue
        if value in chosen_elsewhere(found, parts, name) or choices({"enum": [value]}, folded, text):
            continue
        likelier = name in required and len(listed) == 1 and sure >= LIKELY * said.values.get(listed[0], 0.0)
        new = [value] if several else value
        if len(listed) < 2 and (sure >= CLEAR or likelier) and _fits(new, part):
            found[name] = new
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
