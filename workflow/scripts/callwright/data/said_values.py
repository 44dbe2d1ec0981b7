"""Values that a request says, read off it by code: for arguments of a call that are lacking, or that nobody said.

A small model names the right tool and forgets that the harbor was said, or writes 18:00 for 2 pm. Where a request holds
exactly one value that fits a parameter, and no other argument has it, that value is what is meant:

| parameter | what is read |
|---|---|
| an enumeration | one of its values, word by word |
| text whose description or format says HH:MM | times of day: 2 pm, 14:30, noon, half past nine in the evening |
| text whose description or format says YYYY-MM-DD | dates with their year: May 20, 2026; 3 June 2026 |
| any other text | the words that it is nearly: Perfect Days for Perfekt Day, C90147S for N90147S; the only code |
|                | of its form: C93302E for C00000A |
| a number | digits and words, but for those in dates, times and codes; money only where the parameter is of money |

Where two values fit one parameter, or one value two parameters, the call stays as it is. A number that may be left out
is filled in only where the parameter speaks of what is counted. What a call holds is not touched where the words may
mean something else: behind a negation, counted from another time (an hour before 9 am), of two units (an hour and 5
minutes), beside the name of what they number (room 12).
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from callwright.data.grounding import Context, fold, stem
from callwright.data.spans import is_date, is_time
from callwright.data.times_and_numbers import (
    DATES,
    DAYS,
    HOUR,
    IN_WORDS,
    LATE,
    NUMBER,
    SMALL,
    TIMES,
    date_of,
    number_of,
    time_of,
)

LONGEST_VALUE = 100  # characters of a text that is looked for word by word
NEARLY = 0.8  # of difflib's ratio: how like a text must be to words that were said, a letter or two apart
DIGITS = 3  # of a text that is a code; it has a letter, too
ONE_WORD = 0.9  # the same without spaces, for a text of a word more or less
# An hour without its half of the day, a day without its year: with one of them left, the clear one may not be meant.
_BARE_HOUR = re.compile(
    rf"\b(?:at|by|from|until|till|between|half|past|around) {HOUR}\b(?![.,]\d)"
    rf"|\b(?:\d{{1,2}}|{'|'.join(SMALL)}) ?(?:to|and|until|till|-) +\|"
)
_BARE_DAY = re.compile(r"\b\d{1,2}(?:st|nd|rd|th)? ?(?:to|until|till|through|and|-) +\|")
# A time or day is then not the one that is meant, but what it is counted from; or some other one is meant.
SHIFTED = re.compile(
    r"\b(hours?|minutes?|mins?|days?|weeks?|months?|years?|later|earlier|sooner) (before|after|than|from|prior|past)\b"
)
RELATIVE = re.compile(
    r"\b(today|tonight|tomorrow|yesterday|(?:next|this|last|coming) (?:week|month|year)"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b"
)
_SPAN = r"(?:hours?|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|years?)"
_TWO_UNITS = re.compile(rf"\b{_SPAN},? (?:and )?(?:an? |a half|[\w.]+[ -]){_SPAN}\b|\b{_SPAN} and a half\b")
_NEGATED = re.compile(
    r"\b(?:not|no|never|without|isn't|don't|doesn't|won't|can't|cannot|shouldn't|nor|except|rather than|instead of)"
    r"(?: \w+){0,2} $"
)
# Behind such words a time or number may be taken back: at eleven, no, half past eleven.
_CORRECTED = re.compile(
    r"[,.;-] (?:no|wait|sorry)\b|\b(?:no wait|i mean|make (?:it|that)|rather|actually|scratch that)\b"
)
# Words of an enumeration that are mostly something else in a sentence: they complete a call, and change none.
_FILLERS = frozenset(["all", "any", "no", "yes", "may", "first", "new", "other", "right"])  # not even that
_PARTICLES = _FILLERS.union(
    ["on", "off", "in", "out", "up", "down", "over", "now", "second", "light", "open", "left", "single", "low", "high"]
)
# What a number is the name of, and not the count.
_NUMBERED = re.compile(
    r"\b(room|flat|apartment|unit|gate|platform|line|order|invoice|ticket|floor|chapter|page|bus|train|terminal|seat"
    r"|track|step|level|number|no\.|table|lane|zone|channel|door|locker|desk|box|bay) $"
)
_BESIDE = re.compile(r"\b(?:and|plus|with|&)(?: (?:my|our|his|her|their|the|another))? $")  # me and two friends: three
_UNIT = re.compile(
    r"[ -]?(minutes?|mins?|hours?|hrs?|days?|nights?|weeks?|months?|years?|inch|cm|mm|km|kg|gb|tb|mb|ml|watts?)\b"
)  # two hours: no 2 minutes
# 52 thousand is no 52, and in "from 9 to 5 pm" the 9 is an hour.
_GOES_ON = re.compile(
    r"[ -](?:tonnes?|kilos?|dozen|hundred|thousand|million|quarters?|and a half|thanks|apologies)\b"
    r"| (?:to|and|until|till) +\|"
)
# 5 hundred and fifty is no 50, at seven no count (but at five per cent), minus 5 no 5, not twenty no 20.
_BEGAN = re.compile(r"\b(?:hundred|thousand|million)(?: and)? $|\b(?:minus|not) $")
_AT = re.compile(r"\b(?:at|by|until|till|around) $")
_OF_SOMETHING = re.compile(r" ?(?:%|per ?cent\b|degrees?\b|°)")
_CENTS = re.compile(rf"(?: and)? (?:\d{{1,2}}|{'|'.join(IN_WORDS)})\b")  # 12 dollars 50
_SHARE = re.compile(
    r"\b(?:half|thirds?|quarters?|share|rest) (?:of|from)\b|\b(?:each|apiece|split|per person|half the)\b"
)
_FOLLOWS = re.compile(r"[ -](?:more )?(of (?:us|you|them)\b|[a-z]+)")
_PEOPLE = re.compile(r"people|person|guest|seat|attendee|visitor|player|participant|how many")
_OF_MONEY = re.compile(r"amount|price|cost|fee|budget|dollar|euro|pay|sum|total|money|salary|fare|\bmax|\bmin(?!ut)")
_NO_NOUNS = frozenset(
    ["a", "an", "the", "of", "in", "for", "to", "and", "or", "at", "on", "per", "with", "by", "is", "from", "as"]
)


def completed(arguments: Mapping[str, Any], schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The arguments of a request's only call, with what the request says in the place of what lacks or was not said.

    schema: of the tool's parameters; text: the request.
    """
    properties = schema.get("properties")
    parts = {name: part for name, part in (properties or {}).items() if isinstance(part, dict)}
    context = Context(text)
    given = [value for value in arguments.values() if isinstance(value, str)]
    found = {name: _copied(value, parts.get(name, {}), context, text, given) for name, value in arguments.items()}
    rest = fold(text)
    for name, value in found.items():  # what stands in a title is no branch and no number
        part = parts.get(name, {})
        if isinstance(value, str) and value.strip() and _is_free(part) and not (is_date(part) or is_time(part)):
            rest = rest.replace(fold(value.strip()), " | ")
    for name, part in parts.items():
        said = choices(part, rest, text)
        others = chosen_elsewhere(found, parts, name)
        if len(said) == 1 and said[0] not in others and _is_meant(said[0], found.get(name), rest):
            found[name] = said[0]
    if _CORRECTED.search(rest):
        return ordered(found, parts)
    late, shifted, relative = (pattern.search(rest) for pattern in (LATE, SHIFTED, RELATIVE))
    dates, rest = _taken(rest, DATES, date_of)
    days, rest = _taken(rest, DAYS, lambda match: match.group())
    times, rest = _taken(rest, TIMES, lambda match: _in_its_half(match, time_of(match, bool(late)) or "", given))
    if shifted or relative or _BARE_DAY.search(rest) or any(not re.search(r"\d{4}", day) for day in days):
        dates = []
    if shifted or "" in times or _BARE_HOUR.search(rest):
        times = []
    _fill(found, [name for name, part in parts.items() if is_date(part)], dates)
    _fill(found, [name for name, part in parts.items() if is_time(part)], times)
    required = required_of(schema)
    counted = {
        name: part
        for name, part in parts.items()
        if part.get("type") in ("integer", "number")
        and (name in found or name in required or _counts(rest, name, part))
    }
    unset = [name for name, part in counted.items() if "default" not in part or found.get(name) != part["default"]]
    if not _SHARE.search(rest):
        _fill(found, unset, _numbers(rest, counted), context)
    return ordered(found, parts)


def required_of(schema: Mapping[str, Any]) -> list[str]:
    """The names of the arguments that a tool requires."""
    required = schema.get("required")
    return required if isinstance(required, list) else []


def chosen_elsewhere(found: Mapping[str, Any], parts: Mapping[str, Any], name: str) -> list[Any]:
    """What the arguments hold of other enumerations."""
    return [found.get(other) for other in parts if other != name and "enum" in parts[other]]


def ordered(found: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in the order in which the schema names them."""
    return {name: found[name] for name in dict.fromkeys((*parts, *found)) if name in found}


def _fill(found: dict[str, Any], names: list[str], said: list[Any], context: Context | None = None) -> None:
    """Give the only value that no argument has to the only one of `names` whose value lacks or was not said.

    context: by which a number may be said in another way (an hour and a half: 90).
    """

    def is_said(value: Any) -> bool:
        other = context is not None and type(value) in (int, float) and context.holds_number(value)
        return other or (value in said and type(value) is not bool)

    held = [found.get(name) for name in names]
    if context is not None:
        held += [round(100 * value, 9) for value in held if type(value) is float]  # 7 %, held as 0.07
    left = [value for value in dict.fromkeys(said) if value not in held]
    lacking = [name for name in names if not is_said(found.get(name))]
    if len(left) == len(lacking) == 1:
        found[lacking[0]] = left[0]


def _copied(value: Any, part: Mapping[str, Any], context: Context, text: str, given: Sequence[str]) -> Any:
    """A text that nobody said as the words of the request that are meant, where it is clear which.

    given: what the call's arguments hold.
    """
    if not (isinstance(value, str) and _is_free(part) and len(value) <= LONGEST_VALUE):
        return value
    if context.holds(value, dict(part)):
        return value
    words, count = [match.span() for match in re.finditer(r"[^\s,;:!?()\"]+", text)], len(value.split())
    runs = [
        text[words[at][0] : words[at + size - 1][1]].rstrip(".")
        for size in range(max(count - 1, 1), count + 2)
        for at in range(len(words) - size + 1)
    ]
    runs = [run for run in runs if run.count('"') % 2 == 0]  # no part of what is quoted with something before it
    near = difflib.get_close_matches(fold(value), map(fold, runs), n=1, cutoff=NEARLY)
    run = next((run for run in runs if near and fold(run) == near[0]), value)
    if run != value and _same_letters(fold(value), fold(run)):
        return run
    if not re.search(r"[^\W\d_]", value) or len(re.findall(r"\d", value)) < DIGITS:
        return value
    codes = {
        text[start:end].rstrip("."): text[:start]
        for start, end in words
        if _shape(text[start:end].rstrip(".")) == _shape(value) and text[start:end].rstrip(".") not in given
    }
    if len(codes) != 1:
        return value
    ((code, before),) = codes.items()
    return value if _NEGATED.search(fold(before).rstrip() + " ") else code


def _in_its_half(match: re.Match[str], time: str, given: Sequence[str]) -> str:
    """The time that was said; where a call holds it half a day later and nothing says which half is meant, that one."""
    part = match.groupdict()
    if not time or part.get("half") or part.get("word") or str(part["hour"]).startswith("0") or time >= "13:00":
        return time
    later = f"{int(time[:2]) % 12 + 12}{time[2:]}"
    return later if later in given else time


def _shape(code: str) -> str:
    """Which places of a code are letters, and which digits: A99 for c20 or R73."""
    return re.sub(r"[^\W\d_]", "A", re.sub(r"\d", "9", code))


def _same_letters(value: str, run: str) -> bool:
    """Whether two texts that are alike differ within their words: in a letter or a space, in no word of its own."""
    if len(one := value.split()) == len(other := run.split()):
        return all(difflib.SequenceMatcher(None, *pair).ratio() >= 0.5 for pair in zip(one, other, strict=True))
    joined, said = "".join(one), "".join(other)
    return abs(len(joined) - len(said)) <= 2 and difflib.SequenceMatcher(None, joined, said).ratio() >= ONE_WORD


def _is_meant(said: str, held: Any, text: str) -> bool:
    """Whether the only value of an enumeration that a text says is to be taken, in the place of what a call holds."""
    word = fold(said.replace("_", " "))
    at = re.search(rf"(?<!\w){re.escape(word)}", text)
    before = text[: at.start()] if at else ""
    if _NEGATED.search(before):
        return False
    if held is None:
        return word not in _FILLERS
    words = [word for word in re.findall(r"[^\W_]+", text) if len(word) > 3]
    if isinstance(held, str) and any(fold(held).startswith(one) or one.startswith(fold(held)) for one in words):
        return False  # from cool to heating
    return word not in _PARTICLES and not re.search(r"\b(before|after|than|too|from|but|is|was|my) $", before)


def choices(part: Mapping[str, Any], text: str, written: str) -> list[str]:
    """The values of an enumeration that a text says: a code of one or two letters where it is `written` in capitals."""
    values = part.get("enum")
    words = [stem(word) for word in re.findall(r"[^\W_]+(?:-[^\W_]+)*|\|", text)]  # an e-book is no book
    said = []
    for value in values if isinstance(values, list) else []:
        wanted = [stem(word) for word in re.findall(r"[^\W_]+", fold(value))] if isinstance(value, str) else []
        code = re.escape(value.upper()) if isinstance(value, str) and len(value) <= 2 else ""
        if code and not re.search(rf"(?<![\w'’]){code}(?![\w'’])", written):
            continue
        runs = (words[at : at + len(wanted)] for at in range(len(words)))
        if wanted and ("-".join(wanted) in words or wanted in runs):
            said.append(value)
    return said


def _taken(text: str, patterns: tuple[str, ...], read: Callable[[re.Match[str]], Any]) -> tuple[list[Any], str]:
    """What the patterns find in a text, and the text without it."""
    found = []

    def take(match: re.Match[str]) -> str:
        found.append(read(match))
        return " | "

    for pattern in patterns:
        text = re.sub(pattern, take, text)
    return [value for value in found if value is not None], text


def _is_free(part: Mapping[str, Any]) -> bool:
    """Whether a parameter is text of any form."""
    return part.get("type", "string") == "string" and "enum" not in part


def _counts(text: str, name: str, part: Mapping[str, Any]) -> bool:
    """Whether a number of the text counts what a parameter speaks of: six people, four of us, twelve dollars."""
    about = f"{name} {part.get('description')}".casefold()
    words = {stem(word) for word in re.findall("[a-z]+", about)} - _NO_NOUNS
    for match in NUMBER.finditer(text):
        if (match["before"] or match["behind"] or match["after"]) and _OF_MONEY.search(about):
            return True
        follows = _FOLLOWS.match(text, match.end())
        if follows and (_PEOPLE.search(about) if follows[1].startswith("of") else stem(follows[1]) in words):
            return True
    return False


def _numbers(text: str, counted: Mapping[str, Any]) -> list[int | float]:
    """The numbers of a text that some parameter can take, by the parameters' names."""
    about = " ".join(f"{name} {part.get('description')}" for name, part in counted.items()).casefold()
    of_money, named = _OF_MONEY.search(about), {stem(word) for word in re.findall("[a-z]+", about)}
    whole = all(part["type"] == "integer" for part in counted.values())
    people, spans = _PEOPLE.search(about), [match.span() for match in _TWO_UNITS.finditer(text)]
    found, paid = [], []
    for match in NUMBER.finditer(text):
        before = text[max(match.start() - 20, 0) : match.start()]
        if (noun := _NUMBERED.search(before)) and stem(noun[1]) not in named:
            continue
        behind = text[match.end() :]
        if _BEGAN.search(before) or _GOES_ON.match(behind):
            continue
        if _AT.search(before) and not _OF_SOMETHING.match(behind):
            continue
        if ((match["behind"] or match["after"]) and _CENTS.match(behind)) or (people and _BESIDE.search(before)):
            continue
        if any(match.start() < end and start <= match.end() + 10 for start, end in spans):
            continue
        value, money = number_of(match), match["after"] or match["before"] or match["behind"]
        if not math.isfinite(value):
            continue
        unit = _UNIT.match(behind)
        if not (money and not of_money or unit and stem(unit[1]) not in named or whole and isinstance(value, float)):
            (paid if money else found).append(value)
    return paid or found  # where money is meant, what is said to be money
