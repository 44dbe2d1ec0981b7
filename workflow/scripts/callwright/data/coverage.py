"""A sample that shows as much as it can: many tools, numbers of calls and of tools, types of arguments.

Each example has features (`features`), and a sample is worth the sum of the harmonic numbers of its features'
counts: the first example of a tool counts 1, the second 1/2, the third 1/3. Taking the most valuable example
again and again comes within 1 - 1/e of the best sample there is (Nemhauser, Wolsey and Fisher 1978), since the
worth of an example can only fall; for that reason, too, few worths have to be computed again (Minoux 1978).
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from callwright.data.records import Example

TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
MANY = 5  # calls or tools from which on they are counted together


def features(example: Example) -> tuple[str, ...]:
    """What a sample should have of everything: `tool:<called>`, `calls:<n>`, `tools:<n>`, `type:<of an argument>`."""
    called = {f"tool:{call['name']}" for call in example.calls}
    types = {f"type:{type_of(value)}" for call in example.calls for value in call["arguments"].values()}
    numbers = [f"calls:{several(len(example.calls))}", f"tools:{several(len(example.tools))}"]
    return (*sorted(called), *numbers, *sorted(types))


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    return TYPES.get(type(value), "null")


def several(number: int) -> str:
    """A small number as it is, a larger one as `5+`."""
    return str(number) if number < MANY else f"{MANY}+"


def choose(found: Sequence[tuple[int, Sequence[str]]], count: int, rng: random.Random) -> list[int]:
    """The numbers of `count` of the `(number, features)`, chosen for coverage; `rng` decides among equals."""
    order = list(range(len(found)))
    rng.shuffle(order)
    counts: Counter[str] = Counter()
    heap = [(-float(len(found[at][1])), rank, at) for rank, at in enumerate(order)]
    heapq.heapify(heap)
    chosen = []
    while heap and len(chosen) < count:
        _, rank, at = heapq.heappop(heap)
        worth = sum(1.0 / (1 + counts[feature]) for feature in found[at][1])
        if heap and (-worth, rank) > heap[0][:2]:  # it has fallen behind another
            heapq.heappush(heap, (-worth, rank, at))
            continue
        chosen.append(found[at][0])
        counts.update(found[at][1])
    return chosen


class Distribution:
    """Counts of examples by what they are like, for the ledger."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.counts: dict[str, Counter[str]] = {
            "kinds": Counter(), "calls": Counter(), "tools": Counter(), "argument_types": Counter(), "flags": Counter()
        }  # fmt: skip
        self.called: Counter[str] = Counter()
        for example in examples:
            self.add(example)

    def add(self, example: Example, flags: Iterable[str] = ()) -> None:
        """Count an example, with flags beside those of its tags."""
        self.counts["flags"].update(flags)
        self.counts["kinds"][example.stratum] += 1
        self.counts["calls"][several(len(example.calls))] += 1
        self.counts["tools"][several(len(example.tools))] += 1
        for call in example.calls:
            self.called[call["name"]] += 1
            self.counts["argument_types"].update(type_of(value) for value in call["arguments"].values())
        self.counts["flags"].update(tag.removeprefix("flag:") for tag in example.tags if tag.startswith("flag:"))

    def to_row(self) -> dict[str, dict[str, int]]:
        """The counts by name, and how many different tools are called."""
        rows = {name: dict(sorted(found.items())) for name, found in self.counts.items()}
        most = max(self.called.values(), default=0)
        return rows | {"tools_called": {"distinct": len(self.called), "most_often": most}}
