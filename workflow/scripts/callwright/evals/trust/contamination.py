"""What training may have given away of a test set: requests, wordings and tools that both have."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from callwright.data.audit import wordings
from callwright.data.records import Example, normalize
from callwright.data.similarity import Index
from callwright.evals.scoring.match import canonical


def shared_with(train: Sequence[Example], examples: Sequence[Example]) -> dict[str, list[str]]:
    """The ids of the examples that share something with training, each kind by itself:

    same_request    the request is a training request, but for case, punctuation and spacing
    near_request    it is nearly one (5-grams with a Jaccard similarity of 0.8, found by MinHash), but not the same
    same_template   it is worded as a training request is: by the same phrasing of a toolset, else the same but for
                    values of arguments, figures and quoted parts
    same_tools      each tool that it calls (each that it lists, where it calls none) is defined in training alike
    """
    index, requests = Index(), set()
    for example in train:
        index.add(example.asked, example.id)
        requests.add(normalize(example.asked))
    templates, tools = _wordings(train), definitions(train)
    found: dict[str, list[str]] = {"same_request": [], "near_request": [], "same_template": [], "same_tools": []}
    for example in examples:
        if normalize(example.asked) in requests:
            found["same_request"].append(example.id)
        elif next(index.near(example.asked), None) is not None:
            found["near_request"].append(example.id)
        if not templates.isdisjoint(wordings(example)):
            found["same_template"].append(example.id)
        called = {call["name"] for call in example.calls}
        concerned = [tool for tool in example.tools if not called or tool["function"]["name"] in called]
        if all(canonical(tool) in tools for tool in concerned):
            found["same_tools"].append(example.id)
    return found


def contaminated(shared: Mapping[str, Sequence[str]], suite: str) -> list[str]:
    """The ids that a headline is also given without: what `shared_with` found.

    That the tools are known counts only where they should not be: in test_unseen_tools and in BFCL's categories.
    """
    kinds = ["same_request", "near_request", "same_template"]
    if suite.startswith(("test_unseen_tools", "bfcl_")):
        kinds.append("same_tools")
    return list(dict.fromkeys(identifier for kind in kinds for identifier in shared[kind]))


def pairs(sets: Mapping[str, Sequence[Example]], audited: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What every two sets of a split have in common: `{"train, valid": {"requests", "near_requests", "templates",
    "tools"}, ...}`.

    requests, near_requests: as the split's own audit counted them over all pairs (`data.audit`, which lets none
    pass). templates: of the second set's examples, those that are worded as one of the first is. tools: definitions
    that both list.
    """
    worded = {name: _wordings(examples) for name, examples in sets.items()}
    defined = {name: definitions(examples) for name, examples in sets.items()}
    return {
        f"{one}, {other}": {
            "requests": audited["shared_requests"],
            "near_requests": audited["near_copies"],
            "templates": sum(not worded[one].isdisjoint(wordings(example)) for example in sets[other]),
            "tools": len(defined[one] & defined[other]),
        }
        for one, other in combinations(sets, 2)
    }


def definitions(examples: Sequence[Example]) -> set[str]:
    """The definitions of all tools that some examples list, each as canonical JSON."""
    return {canonical(tool) for example in examples for tool in example.tools}


def _wordings(examples: Sequence[Example]) -> set[str]:
    return {key for example in examples for key in wordings(example)}
