"""A request in other words, by rule: the same meaning, and every argument's value left to the letter.

    frame         an order becomes a question or a statement, or the other way round (Please find … / Could you find …?)
    politeness    words of greeting or of courtesy before or after the request
    contractions  What's / What is, I'd like / I would like
    punctuation   the mark at the end is left out
    small         small letters
    typo          two letters of a word are swapped, or a double letter is written once

One of the first two, contractions where there are some, and one of the last three where there is room for it. What
a value may be read from is left as it is: what the calls say, figures, numbers, dates, units, quoted parts, names,
anything with unusual characters, and the words that the called tools' parameters and their descriptions use.
"""

import random
import re
from collections.abc import Iterator
from typing import Any

from callwright.data.grounding import NUMBER_WORDS, stem
from callwright.data.records import Example
from callwright.data.text import languages

RULES = ("frame", "politeness", "contractions", "punctuation", "small", "typo")

# An order's other forms; {a} is the order with a small letter, {A} with a capital one. None ends the sentence itself.
FRAMES = {
    "order": ("{A}.", "Please {a}."),
    "question": ("Could you {a}?", "Would you please {a}?", "Can you {a} for me?"),
    "statement": ("I need you to {a}.", "I want you to {a}.", "I'd like you to {a}."),
}
_FRAMED = re.compile(
    r"(?:(?P<question>(?:hey,? )?(?:can|could|would) you (?:please )?)"
    r"|(?P<statement>i (?:need|want) you to |i'd like you to |need you to )"
    r"|(?P<order>(?:hey,? )?(?:please |go ahead and )?))(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)
_SAID_VERBS = (
    "activate add adjust analyze apply arrange ask assign block book brew buy calculate call cancel change charge "
    "check clear close compare compose compress compute connect convert copy count create decline delete deliver "
    "deposit detect determine disable dim display download draft email enable estimate evaluate extract fetch filter "
    "find forward generate get give hire hold identify increase join let list locate lock log look lower make mark "
    "measure message move mute open order pause pay pick place play plan post predict print provide put raise read "
    "rearrange recommend record reduce remind remove rename repeat replace reply report request reschedule reserve "
    "reset resize restart resume retrieve return ring run save scan schedule search send set share shorten show "
    "simulate skip sort split start stop subscribe suggest sum switch take tell text track transfer translate turn "
    "unlock unmute unsubscribe update upload validate verify view wake watch water wire write"
)
VERBS = frozenset(_SAID_VERBS.split())
# What may follow an order's verb: "Book a table" is an order, "Book prices" may be none.
_SAID_OBJECT = (
    "a an the my me our us your his her their this that these those it all any some every each another up on off in "
    "out for to at about from with into down through back over whether if how what when where which who"
)
_OBJECT = frozenset(_SAID_OBJECT.split())
BEFORE = ("Hi there! ", "Hello! ", "Excuse me. ", "I hope you can help me. ", "Good day. ")
AFTER = (" Thanks in advance!", " Thank you very much.", " Many thanks.")
EXPANDED = [
    (r"\b(what|who|where|when|how|that|it|there)'s\b(?! (?:got|been|gone|happened))", r"\1 is"),
    (r"\bI'm\b", "I am"),
    (r"\bI'd (?=(?:like|love|prefer|need|rather|appreciate|be)\b)", "I would "),
    (r"\bI've\b", "I have"),
    (r"\bI'll\b", "I will"),
    (r"\b(do|does|did|is|are|was|were|have|has|could|would|should)n't\b(?! (?:I|you|we|they|he|she|it)\b)", r"\1 not"),
    (r"\bcan't\b(?! (?:I|you|we|they|he|she|it)\b)", "cannot"),
]
CONTRACTED = [
    (r"\b(what|who|where|how) is\b(?= (?:the|a|an|my|it|this|that)\b)", r"\1's"),
    (r"\bI am\b(?= \w)", "I'm"),
    (r"\bI would (?=(?:like|love|prefer)\b)", "I'd "),
    (r"\bdo not\b", "don't"),
]
# Words that say a value, or a unit of one; and the months and days, which grounding knows by their beginnings.
_SAID_VALUES = (
    "today tonight tomorrow yesterday now morning afternoon evening night noon midnight week weekend month year hour "
    "minute second day percent degree celsius fahrenheit kilometer mile meter pound kilogram gram liter dollar euro "
    "left right north south east west high low true false yes no not never none on off hot cold first last next "
    "previous latest most least more less than before after until between"
)
_VALUES = frozenset(_SAID_VALUES.split())
_CALENDAR = re.compile(
    r"(jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)|(january|february|march|april|june|july|august|september|"
    r"october|november|december)|(mon|tues|wednes|thurs|fri|satur|sun)days?"
)
# Words that two swapped letters turn into another word.
_SAID_OTHER_WORDS = (
    "trail trial quite quiet angle angel dairy diary united untied casual causal sacred scared "
    "reserve reverse bread beard barely barley signed singed"
)
_OTHER_WORDS = frozenset(_SAID_OTHER_WORDS.split())
_ADDED = frozenset(re.findall(r"[a-z]{5,}", " ".join([*BEFORE, *AFTER, *sum(FRAMES.values(), ())]).casefold()))
_WORD = re.compile(r"\S+")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|‘[^’]*’|`[^`]*`|(?<!\w)'[^']+'(?!\w)")
_EDGES = ".,;:!?()[]"


class Rephrasing:
    """A request's text, and which of its characters stay as they are."""

    def __init__(self, text: str, example: Example):
        self.text = text
        self._values = [value for value in said_values(example) if len(value) > 1 or not value.isalpha()]
        self._words = frozenset(map(stem, _spoken(" ".join(self._values)))) | parameter_words(example)
        self.kept = self._kept()

    def replaced(self, text: str) -> None:
        """The request with another text."""
        self.text = text
        self.kept = self._kept()

    def holds_value(self, start: int, end: int) -> bool:
        """True when a character of text[start:end] stays as it is."""
        return any(self.kept[start:end])

    def _kept(self) -> list[bool]:
        text, folded = self.text, self.text.casefold()
        kept = [False] * len(text)

        def keep(start: int, end: int) -> None:
            kept[start:end] = [True] * (end - start)

        for match in _QUOTED.finditer(text):
            keep(*match.span())
        if len(folded) == len(text):
            for value in self._values:
                for match in re.finditer(rf"(?<!\w){re.escape(value.casefold())}(?!\w)", folded):
                    keep(*match.span())
        for match in _WORD.finditer(text):
            bare = match.group().strip(_EDGES)
            start = match.start() + match.group().find(bare)
            if bare and self._is_value(bare, _begins_sentence(text, match.start())):
                keep(start, start + len(bare))
        return kept

    def _is_value(self, word: str, first: bool) -> bool:
        plain = re.sub(r"['’](?:s|m|d|re|ve|ll|t)$", "", word).casefold()
        if not re.fullmatch(r"[^\W\d_]+(?:-[^\W\d_]+)*", plain) or not plain.isascii():
            return True
        if (word[0].isupper() and not first and plain != "i") or word[1:] != word[1:].lower():
            return True
        parts = {stem(part) for part in plain.split("-")}
        known = self._words | _VALUES | NUMBER_WORDS
        return bool(parts & known) or _CALENDAR.fullmatch(plain) is not None


def rephrase(example: Example, rng: random.Random) -> tuple[str, list[str]] | None:
    """The request (the user's last message) in other words, and the rules that changed it.

    None for a request that is clearly in another language than English.
    """
    found = languages(example.query)
    if found and "en" not in found:
        return None
    request, applied = Rephrasing(example.query.strip(), example), []
    order = [_frame, _politeness] if rng.random() < 0.7 else [_politeness, _frame]
    changes = [order, [_contractions], rng.sample([_punctuation, _small, _typo], 3)]
    for alternatives in changes:
        for change in alternatives:
            text = change(request, rng)
            if text is not None and text != request.text:
                request.replaced(text)
                applied.append(change.__name__.lstrip("_"))
                break
    return request.text, applied


def _frame(request: Rephrasing, rng: random.Random) -> str | None:
    """The first sentence in another form, where it is an order for sure."""
    first = re.match(r".+?(?:[.?!](?=\s|$)|$)", request.text, re.DOTALL)
    if first is None or "\n" in first.group():
        return None
    sentence, rest = first.group(), request.text[first.end() :]
    framed = _FRAMED.fullmatch(sentence)
    core = framed["rest"].strip()
    mark = core[-1] if core[-1] in ".?!" else ""
    # A mark that a value ends with ("Dr.") is no mark of the sentence's.
    if mark and request.holds_value(first.end() - 1, first.end()):
        return None
    core = core.rstrip(".?!").rstrip()
    core = re.sub(r",? please$", "", core)
    words = core.split()
    if len(words) < 2 or words[0].casefold() not in VERBS:
        return None
    if _holds(request, sentence, re.compile(re.escape(words[0])).search(sentence, framed.start("rest"))):
        return None
    form = next(name for name in ("question", "statement", "order") if framed[name] is not None)
    start = sentence.find(words[1], sentence.find(words[0]) + len(words[0]))
    bare = form == "order" and not framed["order"]
    follows = words[1].casefold().strip(_EDGES)
    if bare and (mark == "?" or (follows not in _OBJECT and not request.holds_value(start, start + len(words[1])))):
        return None
    frame = rng.choice(FRAMES[rng.choice([name for name in FRAMES if name != form])])
    # "Tell Ann that … for me", "Give me … for me", "Find … and … for me": nothing is added behind what may be a value.
    if frame.endswith("{a} for me?") and (words[1].casefold() == "me" or _ends_with_value(request, core)):
        frame = "Could you {a}?"
    lower = core if core[:2] == "I " else core[:1].lower() + core[1:]
    return frame.replace("{a}", lower).replace("{A}", core[:1].upper() + core[1:]) + rest


def _politeness(request: Rephrasing, rng: random.Random) -> str | None:
    """A greeting before the request, or thanks behind it where it does not end with a value."""
    text = request.text
    before, after = rng.choice(BEFORE), rng.choice(AFTER)
    at_end = text[-1] in ".?!" and not _ends_with_value(request, text) and not re.search(r"\bthank", text, re.I)
    if at_end and rng.random() < 0.5:
        return text + after
    greeted = re.match(r"(?:hi|hello|hey|good (?:morning|day|evening)|okay|right)\b", text, re.IGNORECASE)
    return None if greeted else before + text


def _contractions(request: Rephrasing, rng: random.Random) -> str | None:
    """Every contraction written out; where there is none, those made that can be."""
    for pairs in (EXPANDED, CONTRACTED):
        text = request.text
        for pattern, new in pairs:
            for match in reversed(list(re.finditer(pattern, text, re.IGNORECASE))):
                if not _holds(request, text, match):
                    text = text[: match.start()] + _like(match.group(), match.expand(new)) + text[match.end() :]
        if text != request.text:
            return text
    return None


def _punctuation(request: Rephrasing, rng: random.Random) -> str | None:
    """The request without the mark at its end."""
    text = request.text
    ends = len(text) > 1 and text[-1] in ".?!" and not request.kept[-1] and text[-2] not in ".?!"
    return text[:-1] if ends else None


def _small(request: Rephrasing, rng: random.Random) -> str | None:
    """The request in small letters, but for I."""
    letters = [c if kept else c.lower() for c, kept in zip(request.text, request.kept, strict=True)]
    for match in re.finditer(r"\bI\b", request.text):
        letters[match.start()] = "I"
    return "".join(letters)


def _typo(request: Rephrasing, rng: random.Random) -> str | None:
    """One word with a slip of the pen: of five letters or more, its first and last letter right."""
    words = [
        match
        for match in re.finditer(r"(?<![\w'’\-])[A-Za-z]{5,}(?![\w'’\-])", request.text)
        if not request.holds_value(*match.span()) and match.group().casefold() not in _ADDED
    ]
    rng.shuffle(words)
    for match in words:
        word = match.group()
        at = rng.choice([number for number in range(1, len(word) - 2) if word[number] != word[number + 1]] or [0])
        slipped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        double = re.search(r"([a-z])\1", word[1:-1])
        if double and rng.random() < 0.5:
            slipped = word[: 1 + double.start()] + word[2 + double.start() :]
        if at and word.casefold() not in _OTHER_WORDS and slipped.casefold() not in _OTHER_WORDS:
            return request.text[: match.start()] + slipped + request.text[match.end() :]
    return None


def said_values(example: Example) -> Iterator[str]:
    """The values of all expected calls, as texts; those that are right too, where an item lists them."""

    def flat(value: Any) -> Iterator[str]:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from flat(inner)
        elif not isinstance(value, bool) and value is not None and str(value).strip():
            yield str(value).strip()

    for call in example.calls:
        yield from flat(call["arguments"])
    for values in example.possible or []:
        yield from flat(values)


def parameter_words(example: Example) -> frozenset[str]:
    """What the parameters of the called tools are about (of all tools, where none is called): names, texts, enums."""
    called = {call["name"] for call in example.calls}
    found: set[str] = set()
    for tool in example.tools:
        if not called or tool["function"]["name"] in called:
            for name, part in (tool["function"]["parameters"].get("properties") or {}).items():
                part = part if isinstance(part, dict) else {}
                said = [name, str(part.get("description") or ""), *map(str, part.get("enum") or [])]
                found |= {stem(word) for word in _spoken(" ".join(said)) if len(word) > 2}
    return frozenset(found)


def _spoken(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).casefold())


def _begins_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip()
    return not before or before[-1] in ".?!:\n"


def _ends_with_value(request: Rephrasing, text: str) -> bool:
    """True when the last word of a part of the request is one that stays as it is."""
    bare = text.rstrip(_EDGES + " ")
    at = request.text.find(bare)
    return at < 0 or request.kept[at + len(bare) - 1]


def _holds(request: Rephrasing, text: str, match: re.Match[str]) -> bool:
    """True when a match in a text that is being changed from its end on touches what stays as it is."""
    quoted = any(part.start() < match.end() and match.start() < part.end() for part in _QUOTED.finditer(text))
    inside = any(
        found.start() < match.end() and match.start() < found.end()
        for value in request._values
        for found in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE)
    )
    return quoted or inside


def _like(old: str, new: str) -> str:
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
