"""How a request is put: orders and questions, polite and short, with a word before or after, and several joined."""

import random
import re

from callwright.data.toolset.agreement import agree
from callwright.data.toolset.phrasing import SLOT, Phrasing

# How an order ("Set an alarm …") is said: {A} with a capital letter, {a} without. Weights in percent.
ORDERS = [
    ("{A}.", 30), ("{A}", 12), ("Please {a}.", 11), ("{A}, please.", 6), ("Can you {a}?", 11), ("Could you {a}?", 7),
    ("Could you please {a}?", 4), ("I need you to {a}.", 4), ("Hey, {a}.", 3), ("I'd like you to {a}.", 3),
    ("Would you {a}?", 3), ("Can you please {a}?", 3), ("Go ahead and {a}.", 3),
]  # fmt: skip
SHORT_ORDERS = [
    ("{a}", 45), ("please {a}", 15), ("{a} please", 10), ("can you {a}", 15), ("hey {a}", 5), ("{a} thanks", 5),
    ("need you to {a}", 5),
]  # fmt: skip
TWO_ORDERS = [
    ("{A} and {b}.", 32), ("{A}, then {b}.", 12), ("Please {a} and {b}.", 11), ("Can you {a} and {b}?", 12),
    ("{A}. Also, {b}.", 12), ("{A}, and also {b}.", 6), ("{A}. Then {b}.", 6), ("I need you to {a} and {b}.", 3),
    ("Could you {a}, and after that {b}?", 3), ("Two things: {a}, and {b}.", 3),
]  # fmt: skip
THREE_ORDERS = [
    ("{A}, {b}, and {c}.", 55), ("{A}, then {b}, and finally {c}.", 20), ("{A}. {B}. And {c}.", 15),
    ("Three things: {a}, {b}, and {c}.", 10),
]  # fmt: skip
NEXT_SENTENCE = [(" Also, {b}", 50), (" And {b}", 25), (" {B}", 15), (" Oh, and {b}", 10)]
# What people say around a request; it says nothing of the task, so it stands before calls and refusals alike.
BEFORE = [
    "Hi! ", "Hello. ", "Sorry to bother you. ", "I'm in a hurry. ", "My hands are full right now. ",
    "I'm in the middle of something. ", "One more thing. ", "Quick one. ", "I keep putting this off. ",
    "Before I forget. ", "I'm on the phone, so be quick. ", "Good morning. ", "Okay. ", "Right. ", "I need your help. ",
]  # fmt: skip
AFTER = [" Thanks!", " Thank you.", " Thanks a lot.", " That's all.", " I'd appreciate it."]
SHORT = 0.08  # share of requests in small letters, without a mark at the end
WITH_BEFORE, WITH_AFTER = 0.07, 0.05


def pick(choices: list[tuple[str, int]], rng: random.Random) -> str:
    """One of the texts, by weight."""
    return rng.choices([text for text, _ in choices], [weight for _, weight in choices])[0]


def alone(text: str, phrasing: Phrasing, rng: random.Random) -> str:
    """A request of one phrasing, whose slots are filled in `text`."""
    whole = _compose(ORDERS, [text], rng) if phrasing.order else text
    return around(whole, rng)


def in_short(text: str, phrasing: Phrasing, rng: random.Random) -> str:
    """The same in small letters (see `small`) and without a mark at the end."""
    if phrasing.order:
        return pick(SHORT_ORDERS, rng).replace("{a}", text)
    return text[:-1] if text[-1] in ".?!" else text


def joined(parts: list[tuple[str, Phrasing]], rng: random.Random) -> str:
    """A request of several phrasings."""
    texts = [text for text, _ in parts]
    if all(phrasing.order for _, phrasing in parts):
        return around(_compose(TWO_ORDERS if len(parts) == 2 else THREE_ORDERS, texts, rng), rng)
    whole = texts[0] + ("." if parts[0][1].order else "")
    links = list(NEXT_SENTENCE)
    for text, phrasing in parts[1:]:
        text += "." if phrasing.order else ""
        link = pick(links, rng)
        links = [other for other in links if other[0] != link]
        whole += link.replace("{b}", lower(text, phrasing)).replace("{B}", text)
    return around(whole, rng)


def around(whole: str, rng: random.Random) -> str:
    """The request, now and then with a sentence before or after it."""
    if rng.random() < WITH_BEFORE:
        whole = rng.choice(BEFORE) + whole
    if rng.random() < WITH_AFTER and whole[-1] in ".?!" and "please" not in whole.lower():
        whole += rng.choice(AFTER)
    return whole


def _compose(frames: list[tuple[str, int]], orders: list[str], rng: random.Random) -> str:
    frame = pick(frames, rng)
    words = dict(zip("ABC", orders, strict=False)) | dict(zip("abc", map(lower, orders), strict=False))
    return re.sub(r"\{([A-Ca-c])\}", lambda match: words[match.group(1)], frame)


def lower(text: str, phrasing: Phrasing | None = None) -> str:
    """The text with a small first letter, unless it begins with a slot's value, `I`, or capitals."""
    first = re.split(r"[ ',]", text, maxsplit=1)[0]
    if (
        (phrasing and phrasing.text.startswith("{"))
        or first == "I"
        or (len(first) > 1 and first[1:] != first[1:].lower())
    ):
        return text
    return text[:1].lower() + text[1:]


def small(text: str) -> str:
    """A phrasing in small letters but for its slots."""
    parts = re.split(r"(\{[\w.]+\})", text)
    return "".join(part if part.startswith("{") else part.lower() for part in parts)


def fill(text: str, said: dict[str, str]) -> str:
    """A phrasing with the values of its slots; `a/an {item}` takes the article that fits the value.

    A noun after a slot that says one is singular: `{days} days` is "1 day".
    """

    def article(match: re.Match[str]) -> str:
        value = said[match.group(3)].lower()
        vowel = value[:1] in "aeiou" or value[:1] == "8" or re.match(r"(hour|honest|11\b|18\b)", value) is not None
        vowel = vowel and not re.match(r"(uni[^nm]|ura|uro|use|usual|eu|one\b|once\b|u[a-z]?-)", value)
        return f"{'An' if match.group(1) == 'A' and vowel else 'an' if vowel else match.group(1)} {match.group(3)}"

    text = re.sub(r"\b([aA])/(an) (\{\w+(?:\.[12])?\})", article, text)
    return agree(SLOT.sub(lambda match: said[match.group()], text))
