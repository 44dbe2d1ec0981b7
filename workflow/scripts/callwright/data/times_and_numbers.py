"""Times of day, dates and numbers as people write them, and what they are."""

import datetime
import math
import re
from collections.abc import Mapping

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(MONTHS)})[a-z]*\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
DATES = (
    r"\b(?P<year>\d{4})-(?P<number>\d\d)-(?P<day>\d\d)\b",
    rf"\b{_MONTH} {_DAY},? (?P<year>\d{{4}})\b",
    rf"\b{_DAY} (?:of )?{_MONTH},? (?P<year>\d{{4}})\b",
)
_MONTH_IN_WORDS = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
MONTHS_OF_A_YEAR = (
    r"\b(?P<year>\d{4})-(?P<number>\d\d)(?!-?\d)", r"(?<![\d/])(?P<number>\d\d?)/(?P<year>\d{4})\b",
    rf"\b{_MONTH_IN_WORDS},? (?:of )?(?P<year>\d{{4}})\b",
)  # fmt: skip
DAYS = (  # of no year, and years
    rf"\b{_MONTH} {_DAY}\b", rf"\b{_DAY} (?:of )?{_MONTH}(?!\w)", r"\b\d+(?:st|nd|rd|th)\b",
    rf"\b(?:in|since|from|until|by|of|year|{_MONTH}) (?:19|20)\d\d\b",
)  # fmt: skip
SMALL = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
IN_WORDS = {word: value for value, word in enumerate(SMALL + _TEENS, 1)} | {
    word: 10 * n for n, word in enumerate(_TENS, 2)
}
HOUR = rf"(?P<hour>\d{{1,2}}|{'|'.join(SMALL)})"
_OF_DAY = r"[ap]\.?m\b\.?|in the (?:morning|afternoon|evening)|at night"
_HALF = rf"(?P<half>{_OF_DAY})"
_MINUTES = r"(?:five|ten|twenty|twenty[- ]five)(?: minutes)?|\d{1,2} minutes|\d{1,2}(?= past)"
_ALONE = r"(?<![\w.,:$€£/-])"  # neither a part of a word or number, nor of a sum of money
TIMES = (  # "from ten to twelve" says two
    rf"\b(?!(?<=from )(?:five|ten) to )(?P<part>half|quarter|{_MINUTES}) (?P<side>past|to) {HOUR}\b(?: {_HALF})?",
    rf"(?<!half ){_ALONE}{HOUR}(?:[:.](?P<minute>\d\d))?(?: ?o'clock)? ?{_HALF}",
    rf"{_ALONE}{HOUR} o'clock",
    rf"{_ALONE}(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?![\w:])",
    r"\b(?P<word>noon|midnight)\b",
)
HALVES = (  # of which nobody said whether it is in the morning; where only the hour is meant, `said`
    rf"\b(?P<part>half) {HOUR}\b(?![:.]\d)(?! ?(?:{_OF_DAY}))",
    rf"\b(?:at|by|from|until|till|to|around|before|after|between|and) (?P<said>{HOUR})\b(?![:.,]\d|-)"
    rf"(?! ?(?:{_OF_DAY}|o'clock))",
)
LATE = re.compile(r"\b(evening|afternoon|tonight|night|dinner|supper)\b")
LONGEST = 300  # digits of a number
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000}
_TO_99 = rf"(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(SMALL[:9])})\b)?|{'|'.join(SMALL + _TEENS)}"
_HUNDREDS = rf"(?:an?|{_TO_99})[ -]hundred(?: (?:and )?(?:{_TO_99})\b)?"
_THOUSANDS = rf"(?:{_HUNDREDS}|an?|{_TO_99})[ -]thousand(?: (?:and )?(?:{_HUNDREDS}|{_TO_99})\b)?"
_SCALED = rf"half a dozen|(?<!half )(?:{_THOUSANDS}|{_HUNDREDS}|(?:an?|{_TO_99})[ -]dozen)"
_SCALE = r"(?:dozen|hundred|thousand|million|billion)s?\b"  # two million is no two
_ORDINAL = r"(?:first|third|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|[a-z]+teen|[a-z]+tie)th)\b"
_GOES_ON = rf"(?: and)? (?:(?:an?|{_TO_99})[ -])?{_SCALE}|(?: and)? \d| and (?:[a-z]+ty-)?{_ORDINAL}"
_MONEY = r"(?:dollars?|euros?|bucks|pounds|cents)\b"
NUMBER = re.compile(
    r"(?P<before>[$€£] ?)?(?<![\w.,:/-])(?P<digits>\d{1,3}(?:,\d{3})+|\d+)(?P<rest>\.\d+)?(?![\w/:]|[-.,]\d)"
    rf"(?P<behind> ?{_MONEY})?"
    rf"|\b(?P<words>(?:{_SCALED})\b(?!{_GOES_ON})|(?!one\b)(?:{_TO_99})\b(?![ -]{_SCALE}))(?!-{_ORDINAL})"
    rf"(?P<after> {_MONEY})?"
)  # "one" alone says too little: one more, that one


def date_of(match: re.Match[str]) -> str | None:
    """The date of a match of DATES as YYYY-MM-DD; None where there is no such day."""
    part = match.groupdict()
    try:
        return datetime.date(int(part["year"]), _month(part), int(part["day"])).isoformat()
    except ValueError:
        return None


def month_of(match: re.Match[str]) -> str | None:
    """The month of a match of MONTHS_OF_A_YEAR as YYYY-MM; None where there is no such month."""
    part = match.groupdict()
    month = _month(part)
    return f"{part['year']}-{month:02d}" if month in range(1, 13) else None


def _month(part: Mapping[str, str | None]) -> int:
    """The number of the month that a match says, in digits or by its name."""
    return int(part["number"]) if part.get("number") else MONTHS.index(part["month"][:3]) + 1


def time_of(match: re.Match[str], late: bool) -> str | None:
    """The time of a match of TIMES as HH:MM; None where it may be one of two.

    late: the text speaks of an evening somewhere.
    """
    part = match.groupdict()
    if word := part.get("word"):
        return "12:00" if word == "noon" else "00:00"
    hour, minute = _clock(part)
    half = (part.get("half") or "").removeprefix("in the ")
    if (
        hour not in range(24)
        or minute not in range(60)
        or not (half or part.get("minute") and not part.get("part") or hour > 12)
    ):
        return None  # "at 4", "half past nine": in the morning or in the evening
    if not half and 0 < hour <= 12 and late:
        return None  # "tonight at 7:30"
    if half == "at night":
        half = "am" if hour % 12 < 5 else "pm"
    if half and hour <= 12:
        hour = hour % 12 + (0 if half in ("morning", "am", "am.", "a.m", "a.m.") else 12)
    return f"{hour:02d}:{minute:02d}"


def halves_of(match: re.Match[str], late: bool = False) -> list[str]:
    """The two times that a match of TIMES or HALVES may mean, that of waking hours first; none where it is no time.

    late: the text speaks of an evening somewhere.
    """
    part = match.groupdict()
    hour, minute = _clock(part)
    if hour not in range(0 if part.get("part") else 1, 13) or minute not in range(60):
        return []
    morning, evening = (f"{hour % 12 + half:02d}:{minute:02d}" for half in (0, 12))
    return [morning, evening] if hour in range(7, 12) and not late else [evening, morning]


def _clock(part: Mapping[str, str | None]) -> tuple[int, int]:
    """Hour and minute that a match says, of whichever half of the day."""
    hour = int(part["hour"]) if part["hour"].isdecimal() else IN_WORDS[part["hour"]]
    if not part.get("part"):
        return hour, int(part.get("minute") or 0)
    minute = _minutes(part["part"])
    return (hour - 1, 60 - minute) if part.get("side") == "to" else (hour, minute)


def number_of(match: re.Match[str]) -> int | float:
    """The number of a match of NUMBER; infinity for one that no float holds."""
    if match["words"]:
        return _in_words(match["words"])
    digits = match["digits"].replace(",", "")
    if len(digits) > LONGEST:
        return math.inf
    value = float(digits + match["rest"]) if match["rest"] else int(digits)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_words(said: str) -> int:
    """The number that words say: sixty-five, half a dozen, two thousand one hundred and twenty."""
    if said == "half a dozen":
        return SCALES["dozen"] // 2
    thousands = found = 0
    for word in re.split("[- ]", said):
        found = max(found, 1) * SCALES[word] if word in SCALES else found + IN_WORDS.get(word, 0)
        if word == "thousand":
            thousands, found = found, 0
    return thousands + found


def _minutes(said: str) -> int:
    """The minutes before or after an hour: half, quarter, ten, 20 minutes."""
    word = said.removesuffix(" minutes")
    if word in ("half", "quarter"):
        return 30 if word == "half" else 15
    return int(word) if word.isdecimal() else sum(IN_WORDS[one] for one in re.split("[- ]", word))
