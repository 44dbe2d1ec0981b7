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

import datetime
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callwright.data.grounding import Context, fold, stem
from callwright.data.records import text_of

LONGEST = 4000  # characters of a request that are looked at: the last ones
LONGEST_VALUE = 100  # characters of a text that is looked for word by word
NEARLY = 0.8  # of difflib's ratio: how like a text must be to words that were said, a letter or two apart
DIGITS = 3  # of a text that is a code; it has a letter, too
CLEAR = 0.7  # a value that is said in other words must be so likely, so as to be given,
LIKELY = 3.0  # or, in the place of another that is required, so many times as likely as that
ONE_WORD = 0.9  # the same without spaces, for a text of a word more or less
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DATES = (
    r"\b(?P<year>\d{4})-(?P<number>\d\d)-(?P<day>\d\d)\b",
    rf"\b{_MONTH} {_DAY},? (?P<year>\d{{4}})\b",
    rf"\b{_DAY} (?:of )?{_MONTH},? (?P<year>\d{{4}})\b",
)
_DAYS = (  # of no year, and years
    rf"\b{_MONTH} {_DAY}\b", rf"\b{_DAY} (?:of )?{_MONTH}(?!\w)", r"\b\d+(?:st|nd|rd|th)\b",
    rf"\b(?:in|since|from|until|by|of|year|{_MONTH}) (?:19|20)\d\d\b",
)  # fmt: skip
_SMALL = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_IN_WORDS = {word: value for value, word in enumerate(_SMALL + _TEENS, 1)} | {
    word: 10 * n for n, word in enumerate(_TENS, 2)
}
_HOUR = rf"(?P<hour>\d{{1,2}}|{'|'.join(_SMALL)})"
_HALF = r"(?P<half>[ap]\.?m\b\.?|in the (?:morning|afternoon|evening)|at night)"
_MINUTES = r"(?:five|ten|twenty|twenty[- ]five)(?: minutes)?|\d{1,2} minutes|\d{1,2}(?= past)"
_ALONE = r"(?<![\w.,:$€£/-])"  # neither a part of a word or number, nor of a sum of money
_TIMES = (
    rf"\b(?P<part>half|quarter|{_MINUTES}) (?P<side>past|to) {_HOUR}\b(?: {_HALF})?",
    rf"(?<!half ){_ALONE}{_HOUR}(?:[:.](?P<minute>\d\d))?(?: ?o'clock)? ?{_HALF}",
    rf"{_ALONE}{_HOUR} o'clock",
    rf"{_ALONE}(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?![\w:])",
    r"\b(?P<word>noon|midnight)\b",
)
# An hour without its half of the day, a day without its year: with one of them left, the clear one may not be meant.
_BARE_HOUR = re.compile(
    rf"\b(?:at|by|from|until|till|between|half|past|around) {_HOUR}\b(?![.,]\d)"
    rf"|\b(?:\d{{1,2}}|{'|'.join(_SMALL)}) ?(?:to|and|until|till|-) +\|"
)
_BARE_DAY = re.compile(r"\b\d{1,2}(?:st|nd|rd|th)? ?(?:to|until|till|through|and|-) +\|")
_MONEY = r"(?:dollars?|euros?|bucks|pounds|cents)\b"
_NUMBER = re.compile(
    r"(?P<before>[$€£] ?)?(?<![\w.,:/-])(?P<digits>\d{1,3}(?:,\d{3})+|\d+)(?P<rest>\.\d+)?(?![\w/:]|[-.,]\d)"
    rf"(?P<behind> ?{_MONEY})?"
    rf"|\b(?P<words>(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_SMALL[:9])})\b)?|{'|'.join(_SMALL[1:] + _TEENS)})\b"
    rf"(?P<after> {_MONEY})?"
)  # "one" alone says too little: one more, that one
# A time or day is then not the one that is meant, but what it is counted from; or some other one is meant.
_SHIFTED = re.compile(
    r"\b(hours?|minutes?|mins?|days?|weeks?|months?|years?|later|earlier|sooner) (before|after|than|from|prior|past)\b"
)
_RELATIVE = re.compile(
    r"\b(today|tonight|tomorrow|yesterday|(?:next|this|last|coming) (?:week|month|year)"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b"
)
_LATE = re.compile(r"\b(evening|afternoon|tonight|night|dinner|supper)\b")
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
    r"[ -](?:tonnes?|kilos?|dozen|hundred|thousand|million|quarters?|and a half)\b| (?:to|and|until|till) +\|"
)
# Three hundred and fifty is no 50, at seven no count (but at five per cent), minus 5 no 5, not twenty no 20.
_BEGAN = re.compile(r"\b(?:hundred|thousand|million)(?: and)? $|\b(?:minus|not) $")
_AT = re.compile(r"\b(?:at|by|until|till|around) $")
_OF_SOMETHING = re.compile(r" ?(?:%|per ?cent\b|degrees?\b|°)")
_CENTS = re.compile(rf"(?: and)? (?:\d{{1,2}}|{'|'.join(_IN_WORDS)})\b")  # 12 dollars 50
_SHARE = re.compile(r"\b(?:half|third|quarter|share|rest) (?:of|from)\b|\b(?:each|apiece|split|per person|half the)\b")
_FOLLOWS = re.compile(r"[ -](?:more )?(of (?:us|you|them)\b|[a-z]+)")
_PEOPLE = re.compile(r"people|person|guest|seat|attendee|visitor|player|participant|how many")
_OF_MONEY = re.compile(r"amount|price|cost|fee|budget|dollar|euro|pay|sum|total|money|salary|fare|\bmax|\bmin(?!ut)")
_NO_NOUNS = frozenset(
    ["a", "an", "the", "of", "in", "for", "to", "and", "or", "at", "on", "per", "with", "by", "is", "from", "as"]
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a request says of an enumeration in its own words: how likely each value, and that none is said."""

    values: Mapping[str, float]
    unsaid: float

    @property
    def value(self) -> str:
        """The likeliest value."""
        return max(self.values, key=self.values.__getitem__)


Likely = Callable[[str, str], Said | None]  # of a tool's parameter, by their names; None: no enumeration


def completed_calls(
    calls: list[dict[str, Any]],
    schemas: Mapping[str, Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    likely: Likely | None = None,
) -> list[dict[str, Any]]:
    """An answer's calls, the arguments completed where it makes one call, to a known tool, for what a user just said.

    Of several calls nobody knows which one a value is meant for. schemas: of the tools' parameters, by name. likely:
    what a request says of an enumeration in other words, where something can tell (`evals.tool_encoder`).
    """
    if len(calls) != 1 or calls[0]["name"] not in schemas or not messages or messages[-1].get("role") != "user":
        return calls
    (call,), request = calls, _request(messages)
    earlier = fold("\n".join(map(text_of, messages))).removesuffix(fold(request))
    found = completed(call["arguments"], schemas[call["name"]], request)
    if likely is not None:
        before = "\n".join([earlier, *(fold(str(message.get("tool_calls") or "")) for message in messages)])
        found = _chosen(found, schemas[call["name"]], request, before, lambda name: likely(call["name"], name))
    kept = {name: value for name, value in call["arguments"].items() if _stands_in(value, earlier)}
    return [{**call, "arguments": found | kept}]


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
    required, found, folded = _required(schema), dict(found), fold(text)
    parts = {name: part for name, part in (schema.get("properties") or {}).items() if isinstance(part, dict)}
    for name, part in parts.items():
        held = found.get(name)
        there = {"enum": [held]}
        if not isinstance(part.get("enum"), list) or _choices(there, folded, text) or _choices(there, earlier, ""):
            continue
        if (said := likely(name)) is None:
            continue
        value, sure = said.value, said.values[said.value]
        if said.unsaid >= sure:
            if name not in required:
                found.pop(name, None)
            continue
        if value in _chosen_elsewhere(found, parts, name) or _choices({"enum": [value]}, folded, text):
            continue
        if sure >= CLEAR or (name in required and held is not None and sure >= LIKELY * said.values.get(held, 0.0)):
            found[name] = value
    return _ordered(found, parts)


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
        if isinstance(value, str) and value.strip() and _is_free(part) and not (_is_date(part) or _is_time(part)):
            rest = rest.replace(fold(value.strip()), " | ")
    for name, part in parts.items():
        said = _choices(part, rest, text)
        others = _chosen_elsewhere(found, parts, name)
        if len(said) == 1 and said[0] not in others and _is_meant(said[0], found.get(name), rest):
            found[name] = said[0]
    if _CORRECTED.search(rest):
        return _ordered(found, parts)
    late, shifted, relative = (pattern.search(rest) for pattern in (_LATE, _SHIFTED, _RELATIVE))
    dates, rest = _taken(rest, _DATES, _date)
    days, rest = _taken(rest, _DAYS, lambda match: match.group())
    times, rest = _taken(rest, _TIMES, lambda match: _time(match, bool(late)) or "")
    if shifted or relative or _BARE_DAY.search(rest) or any(not re.search(r"\d{4}", day) for day in days):
        dates = []
    if shifted or "" in times or _BARE_HOUR.search(rest):
        times = []
    _fill(found, [name for name, part in parts.items() if _is_date(part)], dates)
    _fill(found, [name for name, part in parts.items() if _is_time(part)], times)
    required = _required(schema)
    counted = {
        name: part
        for name, part in parts.items()
        if part.get("type") in ("integer", "number")
        and (name in found or name in required or _counts(rest, name, part))
    }
    unset = [name for name, part in counted.items() if "default" not in part or found.get(name) != part["default"]]
    if not _SHARE.search(rest):
        _fill(found, unset, _numbers(rest, counted), context)
    return _ordered(found, parts)


def _required(schema: Mapping[str, Any]) -> list[str]:
    """The names of the arguments that a tool requires."""
    required = schema.get("required")
    return required if isinstance(required, list) else []


def _chosen_elsewhere(found: Mapping[str, Any], parts: Mapping[str, Any], name: str) -> list[Any]:
    """What the arguments hold of other enumerations."""
    return [found.get(other) for other in parts if other != name and "enum" in parts[other]]


def _ordered(found: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
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


def _choices(part: Mapping[str, Any], text: str, written: str) -> list[str]:
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


def _date(match: re.Match[str]) -> str | None:
    part = match.groupdict()
    month = int(part["number"]) if part.get("number") else _MONTHS.index(part["month"]) + 1
    try:
        return datetime.date(int(part["year"]), month, int(part["day"])).isoformat()
    except ValueError:
        return None


def _time(match: re.Match[str], late: bool) -> str | None:
    """The time of a match as HH:MM; None where it may be one of two. late: the text speaks of an evening somewhere."""
    part = match.groupdict()
    if word := part.get("word"):
        return "12:00" if word == "noon" else "00:00"
    hour = int(part["hour"]) if part["hour"].isdecimal() else _IN_WORDS[part["hour"]]
    minute = int(part.get("minute") or 0)
    half = (part.get("half") or "").removeprefix("in the ")
    if part.get("part"):
        minute = _minutes(part["part"])
        minute, hour = (60 - minute, hour - 1) if part["side"] == "to" else (minute, hour)
    if (
        hour not in range(24)
        or minute not in range(60)
        or not (half or part.get("minute") and not part.get("part") or hour > 12)
    ):
        return None  # "at 4", "half past nine": in the morning or in the evening
    if not half and hour <= 12 and late:
        return None  # "tonight at 7:30"
    if half == "at night":
        half = "am" if hour % 12 < 5 else "pm"
    if half and hour <= 12:
        hour = hour % 12 + (0 if half in ("morning", "am", "am.", "a.m", "a.m.") else 12)
    return f"{hour:02d}:{minute:02d}"


def _minutes(said: str) -> int:
    """The minutes before or after an hour: half, quarter, ten, 20 minutes."""
    word = said.removesuffix(" minutes")
    if word in ("half", "quarter"):
        return 30 if word == "half" else 15
    return int(word) if word.isdecimal() else sum(_IN_WORDS[one] for one in re.split("[- ]", word))


def _is_free(part: Mapping[str, Any]) -> bool:
    """Whether a parameter is text of any form."""
    return part.get("type", "string") == "string" and "enum" not in part


def _is_date(part: Mapping[str, Any]) -> bool:
    return _is_text(part, "YYYY-MM-DD", "date")


def _is_time(part: Mapping[str, Any]) -> bool:
    return _is_text(part, "HH:MM", "time")


def _is_text(part: Mapping[str, Any], form: str, kind: str) -> bool:
    """Whether a parameter is text of a form, by its description or format."""
    if not _is_free(part):
        return False
    return part.get("format") == kind or re.search(rf"\b{form}\b(?![T: ])", str(part.get("description"))) is not None


def _counts(text: str, name: str, part: Mapping[str, Any]) -> bool:
    """Whether a number of the text counts what a parameter speaks of: six people, four of us, twelve dollars."""
    about = f"{name} {part.get('description')}".casefold()
    words = {stem(word) for word in re.findall("[a-z]+", about)} - _NO_NOUNS
    for match in _NUMBER.finditer(text):
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
    for match in _NUMBER.finditer(text):
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
        if any(start - 12 <= match.start() < end for start, end in spans):
            continue
        if match["words"]:
            value, money = sum(_IN_WORDS[word] for word in re.split("[- ]", match["words"])), match["after"]
        else:
            value = float(match["digits"].replace(",", "") + (match["rest"] or ""))
            value, money = int(value) if value.is_integer() else value, match["before"] or match["behind"]
        if not math.isfinite(value):
            continue
        unit = _UNIT.match(behind)
        if not (money and not of_money or unit and stem(unit[1]) not in named or whole and isinstance(value, float)):
            (paid if money else found).append(value)
    return paid or found  # where money is meant, what is said to be money
