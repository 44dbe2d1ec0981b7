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
MORE_ORDERS = [("{A}, {b}, {c} and {d}.", 40), ("First {a}, then {b}, then {c}, and finally {d}.", 25),
    ("{A}. {B}. {C}. And {d}.", 20), ("A few things: {a}, {b}, {c}, and {d}.", 15)]  # fmt: skip
NEXT_SENTENCE = [(" Also, {b}", 50), (" And {b}", 25), (" {B}", 15), (" Oh, and {b}", 10)]
# What people say around a request; it says nothing of the task, so it stands before calls and refusals alike.
BEFORE = [
    "Hi! ", "Hello. ", "Sorry to bother you. ", "I'm in a hurry. ", "My hands are full right now. ",
    "I'm in the middle of something. ", "One more thing. ", "Quick one. ", "I keep putting this off. ",
    "Before I forget. ", "I'm on the phone, so be quick. ", "Good morning. ", "Okay. ", "Right. ", "I need your help. ",
]  # fmt: skip
AFTER = [" Thanks!", " Thank you.", " Thanks a lot.", " That's all.", " I'd appreciate it."]
# What people tell before they ask: long, and of no use.
STORIES = [
    "What a day! First the car wouldn't start, then it rained on the way to the office, and now this.",
    "My brother is visiting and keeps telling me how well his assistant does everything, so let's see.",
    "I've just come home from a long trip and I'm still half asleep, so bear with me.",
    "The kids are shouting in the background and the soup is boiling over, I hope you can understand me.",
    "I tried to do this myself, clicked around for ten minutes and gave up.",
    "My colleague usually takes care of such things, but she is on holiday until next month.",
    "Don't laugh, I know that I asked for something like it only the other day.",
    "We talked about this at breakfast, and of course nobody wanted to do it.",
    "I never thought I'd talk to a machine about it, but here we are.",
    "It's late, I'm tired, and this is the last thing on my list before I go to bed.",
    "Sorry for the long message, I like to explain things properly before I get to the point.",
    "My old phone used to do that with one button, and I'm still looking for it on this one.",
    "There's so much going on at the moment that I can't keep it all in my head.",
    "I'm standing in a queue with a bag in each hand, so I'll keep it simple.",
    "You were a great help last time, so I'm back with another one.",
    "My neighbor says this can't be done by voice. I bet him a coffee that it can.",
]
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
    if len(parts) < 5 and all(phrasing.order for _, phrasing in parts):
        return around(_compose({2: TWO_ORDERS, 3: THREE_ORDERS, 4: MORE_ORDERS}[len(parts)], texts, rng), rng)
    whole = ended(texts[0])
    links = list(NEXT_SENTENCE)
    for text, phrasing in parts[1:]:
        text = ended(text)
        link = pick(links or NEXT_SENTENCE, rng)
        links = [other for other in links if other[0] != link]
        whole += link.replace("{b}", lower(text, phrasing)).replace("{B}", text)
    return around(whole, rng)


def ended(text: str) -> str:
    """A sentence with a mark at its end."""
    return text if text[-1] in ".?!" else f"{text}."


def around(whole: str, rng: random.Random) -> str:
    """The request, now and then with a sentence before or after it."""
    if rng.random() < WITH_BEFORE:
        whole = rng.choice(BEFORE) + whole
    if rng.random() < WITH_AFTER and whole[-1] in ".?!" and "please" not in whole.lower():
        whole += rng.choice(AFTER)
    return whole


def _compose(frames: list[tuple[str, int]], orders: list[str], rng: random.Random) -> str:
    frame = pick(frames, rng)
    words = dict(zip("ABCD", orders, strict=False)) | dict(zip("abcd", map(lower, orders), strict=False))
    return re.sub(r"\{([A-Da-d])\}", lambda match: words[match.group(1)], frame)


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


def drawn_out(text: str, count: int) -> str | None:
    """A phrasing for two calls as one for `count`: "in {x.1} and in {x.2}" -> "in {x.1}, in {x.2} and in {x.3}".

    None where the two are not put alike, or the text speaks of two.
    """
    if count == 2:
        return text
    if re.search(r"\b(two|both|either|compare|than|better|other|another|between|second)\b", text, re.I):
        return None
    for link in re.finditer(r" (and|or) ", text):
        left, right = text[: link.start()], text[link.end() :]
        for end in (match.end() for match in re.finditer(r"\S+", right)):
            part = right[:end].rstrip(".?!,")
            rest = right[len(part) :]
            first = part.replace(".2}", ".1}")
            if ".2}" in part and left.endswith(first) and not re.search(r"\.[12]\}", rest + left[: -len(first)]):
                parts = [part.replace(".2}", f".{number}}}") for number in range(1, count + 1)]
                return f"{left[: -len(first)]}{', '.join(parts[:-1])} {link.group(1)} {parts[-1]}{rest}"
    return None


def slip(text: str, rng: random.Random) -> str:
    """A phrasing with one word mistyped: two letters swapped, one left out or doubled. Slots stay as they are."""
    words = [m for m in re.finditer(r"(?<![\w{.\[/'])[a-z]{5,}(?![\w}.\]/'])", text)]
    if not words:
        return text
    found = rng.choice(words)
    word, at = found.group(), rng.randrange(1, len(found.group()) - 1)
    kinds = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    return text[: found.start()] + rng.choice(kinds) + text[found.end() :]


def fill(text: str, said: dict[str, str]) -> str:
    """A phrasing with the values of its slots; `a/an {item}` takes the article that fits the value.

    A noun after a slot that says one is singular: `{days} days` is "1 day".
    """

    def article(match: re.Match[str]) -> str:
        value = said[match.group(3)].lower()
        vowel = value[:1] in "aeiou" or value[:1] == "8" or re.match(r"(hour|honest|11\b|18\b)", value) is not None
        vowel = vowel and not re.match(r"(uni[^nm]|ura|uro|use|usual|eu|one\b|once\b|u[a-z]?-)", value)
        return f"{'An' if match.group(1) == 'A' and vowel else 'an' if vowel else match.group(1)} {match.group(3)}"

    text = re.sub(r"\b([aA])/(an) (\{\w+(?:\.[1-9])?\})", article, text)
    return agree(SLOT.sub(lambda match: said[match.group()], text))
