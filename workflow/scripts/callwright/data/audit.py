"""Do the sets of a split share anything? Asked of their content, not of how they were made."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from callwright.data.records import Example, normalize, skeleton
from callwright.data.similarity import Index
from callwright.runtime.errors import CallwrightError


def audit(sets: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Check that two sets share no id, request, near copy or conversation, and no tool of test_unseen_tools.

    Returns counts for the report:

        shared_ids, shared_requests, shared_conversations, near_copies, shared_unseen_tools
            all 0: anything else is an error
        shared_templates
            by set, how many of its examples are worded as one of train is: the same phrasing of a toolset, or
            the same request but for the values of its arguments, numbers and quoted parts. No error: with a few
            phrasings a tool, some are tested that were trained, and the score has to be read so
        tools
            by set, the number of tools that it lists

    Raises CallwrightError that names an example of what is shared.
    """
    owners: dict[str, dict[str, str]] = {"id": {}, "request": {}, "conversation": {}}
    index, owner_of = Index(), []
    for name, examples in sets.items():
        ids = Counter(example.id for example in examples)
        if double := next((key for key, count in ids.items() if count > 1), None):
            raise CallwrightError(f"the id {double!r} stands in {name} twice: ids must be unique")
        for example in examples:
            own = (("id", example.id), ("request", normalize(example.asked)), ("conversation", example.conversation))
            for what, key in own:
                if key is None:
                    continue
                owner = owners[what].setdefault(key, name)
                if owner != name:
                    raise CallwrightError(
                        f"the {what} of example {example.id!r} is in {owner} and in {name}: {key[:80]!r}"
                    )
            for number, similarity in index.near(example.asked):
                if owner_of[number] != name:
                    raise CallwrightError(
                        f"example {example.id!r} of {name} is a near copy ({similarity:.0%}) of "
                        f"{index.names[number]!r} of {owner_of[number]}: {example.query[:80]!r}"
                    )
            index.add(example.asked, example.id)
            owner_of.append(name)
    tools = {name: {tool for example in examples for tool in example.tool_names} for name, examples in sets.items()}
    unseen = tools.get("test_unseen_tools", set())
    for name, known in tools.items():
        if name != "test_unseen_tools" and (shared := sorted(unseen & known)):
            raise CallwrightError(f"{name} lists the held-out tool {shared[0]!r}")
    return {
        "shared_ids": 0,
        "shared_requests": 0,
        "shared_conversations": 0,
        "near_copies": 0,
        "shared_unseen_tools": 0,
        "shared_templates": shared_templates(sets),
        "tools": {name: len(known) for name, known in tools.items()},
    }


def shared_templates(sets: Mapping[str, Sequence[Example]]) -> dict[str, int]:
    """By set other than train, how many of its examples are worded as an example of train is."""
    trained = {key for example in sets.get("train", ()) for key in wordings(example)}
    return {
        name: sum(not trained.isdisjoint(wordings(example)) for example in examples)
        for name, examples in sets.items()
        if name != "train"
    }


def wordings(example: Example) -> set[str]:
    """The phrasings of a toolset that an example is written by; of another example the request without its values."""
    if phrasings := {tag for tag in example.tags if tag.startswith("phrasing:")}:
        return phrasings
    request = example.query
    values = {str(value) for call in example.calls for value in call["arguments"].values()}
    for value in sorted((value for value in values if value.strip()), key=lambda value: (-len(value), value)):
        request = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "0", request, flags=re.IGNORECASE)
    return {skeleton(request)}
