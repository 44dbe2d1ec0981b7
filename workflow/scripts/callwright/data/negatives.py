"""Examples without a call, made from examples with calls: a model that never saw one calls whatever is asked.

    gold_removed   the tools that the request needs are taken out of its list
    other_domain   the tools are those of another request, which have no word in common with this one
    missing        the value of a required argument is taken out of the request, with the words that led to it

The first two are answered by the sentence for requests that no tool serves (`chat.formats.NO_CALL`), the last
one by a question that begins as all such questions begin: one way to say no and one way to ask back, since a small
model decides between a call and an answer at the first word. A kind is made only where it is sure: not where a
tool that stays may serve as well, nor where the value still stands in the request, or leaves a broken sentence.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from callwright.data.grounding import Context, stem
from callwright.data.records import POOL_TEST, POOL_UNSEEN, POOL_VALID, Example
from callwright.data.similarity import THRESHOLD, Index

ASK = "I need one more detail. Which {name} should I use?"


def question(name: str, own: Mapping[str, str] | None = None) -> str:
    """The question for a parameter: of its tool's `own` questions, or as training on records asks it."""
    if own and name in own:
        return own[name]
    label = re.sub(r"[_\-.]+|(?<=[a-z])(?=[A-Z])", " ", name).strip().lower()
    return ASK.format(name=label)


TRIES = 40  # lists of other requests that are looked at for one that fits
_COMMON_WORDS = (
    "the of to and is in for what can you my me please how this that with on are do from at it i need which a an by "
    "get find list fetch return retrieve given based using use name data information details specified all api about "
    "id number string type value search specific provide number show tell provides fetches gets or as be not if will "
    "calculate check user from its your does did has have had was were been into more most than then when where who"
)
_COMMON = frozenset(_COMMON_WORDS.split())
# What stands before a value and goes with it; and after which the sentence may end or go on.
_LEAD = r"\s+(?:in|for|at|on|from|named|called|about|until|near)(?:\s+(?:the|a|an))?\s+"
_END = r"(?=\s*[.?!]?\s*$)"


def make(
    examples: Sequence[Example], share: float, seed: int, fits: Callable[[Example], bool]
) -> tuple[list[Example], dict[str, int]]:
    """The examples in their order, some of them made examples without a call; and how many of each kind.

    As many are made as are lacking of `share` of the examples without a call, in each pool by itself; a tool is
    never brought from one pool to another. `fits` is asked whether a made example may be used (its length).
    Fewer are made where fewer are sure.
    """
    result, made = list(examples), Counter[str]()
    index = Index(THRESHOLD)
    for number, example in enumerate(examples):
        index.add(example.asked, str(number))
    for pool in (None, POOL_VALID, POOL_TEST, POOL_UNSEEN):
        rng = random.Random(f"{seed}/negatives/{pool}")
        own = [number for number, example in enumerate(examples) if _pool(example) == pool]
        left = round(share * len(own)) - sum(not examples[number].calls for number in own)
        order = [number for number in own if examples[number].calls and not examples[number].conversation]
        rng.shuffle(order)
        # A third of each kind; the tools of another domain take what the others leave, and then the first again.
        for kind, part in (("missing", 3), ("gold_removed", 2), ("other_domain", 1), ("gold_removed", 1)):
            quota = -(-left // part)
            for number in list(order):
                if quota <= 0:
                    break
                example = _made(kind, examples[number], [examples[at] for at in own], rng)
                if example is not None and fits(example) and _new(index, example, number):
                    result[number] = example
                    index.add(example.asked, str(number))
                    order.remove(number)
                    made[kind] += 1
                    quota, left = quota - 1, left - 1
    return result, dict(sorted(made.items()))


def _made(kind: str, example: Example, others: Sequence[Example], rng: random.Random) -> Example | None:
    if kind == "missing":
        return missing(example, rng)
    return gold_removed(example) if kind == "gold_removed" else other_domain(example, others, rng)


def gold_removed(example: Example) -> Example | None:
    """The example without the tools that it calls; None when no tool would be left, or one that may serve as well."""
    called = {call["name"] for call in example.calls}
    gold = [tool for tool in example.tools if tool["function"]["name"] in called]
    rest = [tool for tool in example.tools if tool["function"]["name"] not in called]
    if not rest or any(content_words(about(tool)) & content_words(about(other)) for tool in rest for other in gold):
        return None
    return _abstaining(example, "gold_removed", tools=rest)


def other_domain(example: Example, others: Sequence[Example], rng: random.Random) -> Example | None:
    """The example with the tools of another one, none of which shares a word with its request or its tools."""
    for _ in range(TRIES):
        tools = rng.choice(others).tools
        if not any(may_serve(tool, example) for tool in tools):
            return _abstaining(example, "other_domain", tools=tools)
    return None


def missing(example: Example, rng: random.Random) -> Example | None:
    """The example without the value of a required argument in its request; None where that cannot be done cleanly."""
    if len(example.calls) != 1 or len(example.messages) != 1 or not isinstance(example.messages[0]["content"], str):
        return None
    call, query = example.calls[0], example.query
    parameters = next(t["function"]["parameters"] for t in example.tools if t["function"]["name"] == call["name"])
    arguments = call["arguments"]
    names = [name for name in parameters.get("required", []) if isinstance(arguments.get(name), str | int | float)]
    rng.shuffle(names)
    for name in names:
        value, spec = arguments[name], parameters.get("properties", {}).get(name, {})
        label = re.sub(r"[_\-.]+|(?<=[a-z])(?=[A-Z])", " ", name).strip().lower()
        said = re.escape(str(value))
        derived = not isinstance(spec, dict) or {"default", "enum", "const"} & spec.keys()
        if isinstance(value, bool) or not str(value).strip() or derived or len(label) < 3:
            continue
        pattern = rf"{_LEAD}(['\"]?){said}\1{_END}"
        if len(re.findall(rf"(?<!\w){said}(?!\w)", query, re.I)) != 1:
            continue
        shorter, count = re.subn(pattern, "", query, flags=re.I)
        if count != 1 or len(shorter.split()) < 3 or _says(shorter, value):
            continue
        return _abstaining(example, "missing", messages=[{"role": "user", "content": shorter}], answer=question(name))
    return None


def _says(text: str, value: Any) -> bool:
    """True when a text still says a value, or part of one."""
    context = Context(text)
    if isinstance(value, int | float):
        return context.holds_number(float(value))
    return any(stem(word) in context.words for word in re.findall(r"\w{3,}", value.casefold()))


def _abstaining(example: Example, kind: str, **changes: Any) -> Example:
    reason = "abstain:missing" if kind == "missing" else "abstain:no_tool"
    return without_calls(example, reason, f"negative:{kind}", **changes)


def without_calls(example: Example, *tags: str, **changes: Any) -> Example:
    """The example as one that wants no call, with `tags` that say why, and other changes."""
    kept = [tag for tag in example.tags if not tag.startswith(("calls:", "flag:"))]
    return replace(example, calls=[], tags=("calls:0", *tags, *kept), **changes)


def _new(index: Index, example: Example, number: int) -> bool:
    """True when the request is a near copy of no other example's."""
    return all(int(index.names[found]) == number for found, _ in index.near(example.asked))


def _pool(example: Example) -> str | None:
    return next((tag for tag in example.tags if tag in (POOL_VALID, POOL_TEST, POOL_UNSEEN)), None)


def may_serve(tool: dict[str, Any], example: Example) -> bool:
    """True when a tool speaks of something that the request or its own tools speak of: it may serve as well."""
    ours = {word for own in example.tools for word in content_words(about(own))} | content_words(example.asked)
    return bool(ours & content_words(about(tool)))


def about(tool: dict[str, Any]) -> str:
    """What a tool says of itself: its name and its description."""
    return f"{tool['function']['name']} {tool['function'].get('description') or ''}"


def content_words(text: str) -> set[str]:
    """What a text speaks of: its words, without the commonest and without endings of plurals."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("_", " ").casefold()
    return {stem(word) for word in re.findall(r"[^\W\d_]{3,}", split)} - _COMMON
