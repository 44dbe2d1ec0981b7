"""Test items changed so that the right answer stays the same: how much of a score rests on their form?

    shuffled         the tools in another order
    opaque           meaningless names of tools and parameters; what these names said stands in the descriptions
    distractors_4    four more tools, at any place among those of the item; none of them can serve the request
    distractors_16   sixteen more, the four among them
    similar_4        four more tools that speak of what the request or its tools speak of, and yet cannot serve it
    rephrased        the request in other words, every value to the letter (`rephrase`)

Each change is made of one example and its id alone, so the same items give the same suite. A changed item is named
`<id>@<change>` and carries the tags `robust:<change>` and `clean:<id>`. What cannot be changed is left out: it would
hide a drop, not show one.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from callwright.data.augment import with_masked_names
from callwright.data.negatives import about, content_words
from callwright.data.records import Example
from callwright.data.similarity import jaccard
from callwright.evals.robustness.rephrase import rephrase
from callwright.runtime.errors import CallwrightError

PREFIX = "robust_"
SEED = 42  # a constant, so that a suite is the same everywhere
ALIKE = 0.6  # Jaccard similarity of two descriptions from which on they may mean the same
WHY = {
    "shuffled": "they list a single tool",
    "opaque": "the request names a tool or a parameter, or a tool's schema refers to its parameters by name",
    "distractors_4": "there are no other tools that can surely not serve them",
    "distractors_16": "there are no other tools that can surely not serve them",
    "similar_4": "there are no other tools that are like theirs and cannot serve them",
    "rephrased": "they are in another language than English",
}

Tool = dict[str, Any]


def shuffled(example: Example, rng: random.Random) -> Example | None:
    """The tools in an order that is another one; None where there is a single tool."""
    if len(example.tools) < 2:
        return None
    tools = example.tools
    while tools == example.tools:
        tools = rng.sample(example.tools, len(example.tools))
    return replace(example, tools=tools)


def opaque(example: Example, rng: random.Random) -> Example | None:
    """Meaningless names of all tools and parameters; None where the request or a schema needs the old ones."""
    names = {name for tool in example.tools for name in (tool["function"]["name"], *_properties(tool))}
    if any(_is_identifier(name) and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", example.asked) for name in names):
        return None
    described = replace(example, tools=list(map(with_descriptions, example.tools)))
    masked = with_masked_names(described, rng)
    kept = {name for tool in masked.tools for name in _properties(tool)} & names if masked else names
    return None if kept else replace(masked, tags=example.tags)


def with_descriptions(tool: Tool) -> Tool:
    """The tool with the words of its name and of its parameters' names in their descriptions, where these lack them."""
    function = tool["function"]
    schema = function["parameters"]
    said = Counter(part.get("description") for part in _properties(tool).values() if isinstance(part, dict))
    parts = {
        name: {**part, "description": _speaking(name, part.get("description"), said[part.get("description")] == 1)}
        if isinstance(part, dict)
        else part
        for name, part in _properties(tool).items()
    }
    description = (function.get("description") or "").strip() or _speaking(function["name"], None, True)
    changed = {**schema, "properties": parts} if parts else schema
    return {**tool, "function": {**function, "description": description, "parameters": changed}}


def distractors(example: Example, pool: Sequence[Tool], count: int, rng: random.Random) -> Example | None:
    """Up to `count` more tools of `pool` that cannot serve the request; None where there is none that surely cannot.

    A tool may be added when it speaks of nothing that the request or the tools that it is about speak of, and its
    definition is like none of the item's. Which tools a request is about, is known by its calls, by the phrasings of a
    toolset that it is written by, and where an argument is missing: then it is about a tool of the item. Otherwise an
    item without a call is left as it is. The item's own tools keep their order.
    """
    listed = {tool["function"]["name"]: tool for tool in (*pool, *example.tools)}
    phrasings = {tag.split(":", 1)[1].split("/")[0] for tag in example.tags if tag.startswith("phrasing:")}
    names = {call["name"] for call in example.calls} or phrasings
    if not names and "abstain:missing" not in example.tags:
        return None
    concerned = [listed[name] for name in names or example.tool_names if name in listed]
    taken = content_words(example.asked).union(*(content_words(about(tool)) for tool in concerned))
    candidates = {
        tool["function"]["name"]: tool
        for tool in pool
        if tool["function"]["name"] not in {*names, *example.tool_names}
        and not taken & content_words(about(tool))
        and not any(alike(tool, own) for own in example.tools)
    }
    order = [candidates[name] for name in sorted(candidates)]
    rng.shuffle(order)  # so that four are among the sixteen
    if not order:
        return None
    tools = list(example.tools)
    for tool in order[:count]:
        tools.insert(rng.randint(0, len(tools)), tool)
    return replace(example, tools=tools, tags=(*example.tags, f"added:{len(order[:count])}"))


def similar(example: Example, pool: Sequence[Tool], count: int, rng: random.Random) -> Example | None:
    """Up to `count` more tools that share words with the request or the tools called; None where there is none.

    One that needs nothing but what the expected calls give might serve the request, and is left out, as is one that is
    described nearly as an item's tool. Items without a call are left out: what is like the tool that they lack might be
    it.
    """
    called = [tool for tool in example.tools if tool["function"]["name"] in {call["name"] for call in example.calls}]
    if not called:
        return None
    given = {name for call in example.calls for name in call["arguments"]}
    theirs = content_words(example.asked).union(*(content_words(about(tool)) for tool in called))
    candidates = {
        tool["function"]["name"]: tool
        for tool in pool
        if tool["function"]["name"] not in example.tool_names
        and theirs & content_words(about(tool))
        and set(tool["function"]["parameters"].get("required", [])) - given
        and not any(alike(tool, own) for own in example.tools)
    }
    order = [candidates[name] for name in sorted(candidates)]
    rng.shuffle(order)
    if not order:
        return None
    tools = list(example.tools)
    for tool in order[:count]:
        tools.insert(rng.randint(0, len(tools)), tool)
    return replace(example, tools=tools, tags=(*example.tags, f"added:{len(order[:count])}"))


def alike(one: Tool, other: Tool) -> bool:
    """True when two tools have the same description, nearly, or the same parameters and much of it in common."""
    first, second = ((tool["function"].get("description") or "").strip() for tool in (one, other))
    return bool(first and second) and jaccard(first, second) >= ALIKE


def rephrased(example: Example, rng: random.Random) -> Example | None:
    """The user's last message in other words; None where the rules do not know the language."""
    found = rephrase(example, rng)
    if found is None or found[0] == example.query:
        return None
    text, rules = found
    at = max(number for number, message in enumerate(example.messages) if message["role"] == "user")
    messages = [*example.messages]
    messages[at] = {**messages[at], "content": text}
    return replace(example, messages=messages, tags=(*example.tags, *(f"rephrased:{rule}" for rule in rules)))


def change_of(suite: str) -> str | None:
    """The change that a suite is named after; None for another suite."""
    change = suite.removeprefix(PREFIX)
    return change if change in WHY and suite != change else None


def change(example: Example, name: str, pool: Sequence[Tool] = ()) -> Example | None:
    """The example changed, with its new id and tags; None where it cannot be. pool: tools for distractors."""
    kind, _, count = name.rpartition("_") if name.startswith(("distractors", "similar")) else (name, "", "")
    rng = random.Random(f"{SEED}/robust/{kind}/{example.id}")
    makers: dict[str, Callable[[], Example | None]] = {
        "shuffled": lambda: shuffled(example, rng),
        "opaque": lambda: opaque(example, rng),
        "distractors": lambda: distractors(example, pool, int(count), rng),
        "similar": lambda: similar(example, pool, int(count), rng),
        "rephrased": lambda: rephrased(example, rng),
    }
    found = makers[kind]()
    if found is None:
        return None
    return replace(found, id=f"{example.id}@{name}", tags=(*found.tags, f"robust:{name}", f"clean:{example.id}"))


def clean_id(example: Example) -> str | None:
    """The id of the item that a changed one was made from; None for one that is not changed."""
    return next((tag.removeprefix("clean:") for tag in reversed(example.tags) if tag.startswith("clean:")), None)


def pool_of(sets: Mapping[str, Sequence[Example]]) -> list[Tool]:
    """The tools that some sets list, each name once, the first definition of it."""
    found: dict[str, Tool] = {}
    for examples in sets.values():
        for example in examples:
            for tool in example.tools:
                found.setdefault(tool["function"]["name"], tool)
    return list(found.values())


def build(suite: str, examples: Sequence[Example], pool: Sequence[Tool]) -> tuple[list[Example], dict[str, Any]]:
    """The changed items of a suite, in order, and what is to be said of them.

    The latter is `{"suite", "change", "items", "left_out": [ids], "why", "tags": {tag: count}}`; for distractors
    `tags` counts how many were added, for rephrased items the rules.

    Raises CallwrightError when no item can be changed.
    """
    name = change_of(suite)
    changed = [change(example, name, pool) for example in examples]
    items = [found for found in changed if found is not None]
    left_out = [example.id for example, found in zip(examples, changed, strict=True) if found is None]
    if not items:
        raise CallwrightError(
            f"suite {suite!r}: none of the {len(examples)} items of test_seen can be changed, since {WHY[name]}: "
            "leave it out of config key evaluation.suites"
        )
    tags = Counter(tag for item in items for tag in item.tags if tag.startswith(("added:", "rephrased:")))
    about = {"suite": suite, "change": name, "items": len(items), "left_out": left_out, "why": WHY[name]}
    return items, {**about, "tags": dict(sorted(tags.items()))}


def _properties(tool: Tool) -> dict[str, Any]:
    return tool["function"]["parameters"].get("properties") or {}


def _is_identifier(name: str) -> bool:
    """True for a name that nobody uses as a word: with an underscore, a figure, or capital letters inside."""
    return re.search(r"[_\d.]|[a-z][A-Z]", name) is not None


def _speaking(name: str, description: str | None, alone: bool) -> str:
    """A description that says what the name says; `alone`: no other parameter of the tool is described so."""
    words = re.sub(r"[_\-.]+|(?<=[a-z])(?=[A-Z])", " ", name).strip().lower()
    description = (description or "").strip()
    if not description:
        return f"{words[:1].upper()}{words[1:]}."
    if alone and content_words(words) <= content_words(description):
        return description
    return f"{words[:1].upper()}{words[1:]}: {description}"
