"""Shared beginnings: which records begin with the same tokens, and which of them go into a batch together.

K requests under one list of tools are K records that begin alike for most of their length. In a causal model what is
computed for these tokens does not depend on what follows, so a batch computes them once and its records' own tokens
K times: P + K R tokens in place of K (P + R).

Beginnings are found by the records' tokens, whatever made them alike: a list of tools, examples in the prompt, a
long system prompt. All records form a trie; each of its nodes is a beginning that the records below it have in
common, and of all choices of disjoint nodes the one that saves most is taken. What a node saves depends on how many
of its records can stand in a batch, since a batch holds at least two different lists where there are two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from callwright.lora.batches import Beginning, Record
from callwright.lora.mixing import together

# A beginning is taken when it saves at least this share of its records' tokens; less is not worth another order.
LEAST_SAVED = 0.1


def with_beginnings(sets: Sequence[Sequence[Record]], batch_size: int) -> list[list[Record]]:
    """The records of each of `sets`, with the beginnings that they share, within a set and between sets.

    `batch_size` is the number of records in a batch. A beginning ends before the first trained token is predicted.
    """
    records = [record for part in sets for record in part]
    found = [replace(record, beginning=None) for record in records]
    for members, length in _families(records, batch_size):
        beginning = Beginning(records[members[0]].tokens[:length])
        for index in members:
            found[index] = replace(found[index], beginning=beginning)
    edges = np.cumsum([0, *map(len, sets)]).tolist()
    return [found[begin:end] for begin, end in zip(edges[:-1], edges[1:], strict=True)]


def shared(sets: Sequence[Sequence[Record]], settings: dict[str, Any]) -> list[list[Record]]:
    """The records of each of `sets`, with the beginnings that `settings` (config key `training`) let them share."""
    if settings["share_prefix"] == "off":
        return [without_beginnings(part) for part in sets]
    return with_beginnings(sets, settings["batch_size"])


def without_beginnings(records: Sequence[Record]) -> list[Record]:
    """The records, each on its own again."""
    return [replace(record, beginning=None) for record in records]


# -- the trie --------------------------------------------------------------------------------------


@dataclass
class _Node:
    """Neighbours in the order of their tokens, `first` to `last`, whose first `length` tokens are the same."""

    length: int
    first: int
    last: int = -1
    children: list["_Node"] = field(default_factory=list)
    saved: int = 0  # tokens in an epoch, by this node or by those below it
    own: bool = False  # it is a beginning itself


def _families(records: Sequence[Record], batch_size: int) -> list[tuple[list[int], int]]:
    """(indices of its records, length) of each beginning; a record has one at most."""
    heads = [record.tokens[: record.positions.min()] for record in records]
    keys = [head.astype(">i4").tobytes() for head in heads]  # in this form bytes are ordered as tokens are
    order = sorted(range(len(records)), key=keys.__getitem__)
    lengths = np.cumsum([0, *(records[index].length for index in order)])

    def close(node: _Node, last: int) -> None:
        node.last, count = last, last + 1 - node.first
        units = -(-count // together(count, len(records), batch_size))
        own = (count - units) * node.length
        if own < LEAST_SAVED * (lengths[last + 1] - lengths[node.first]):
            own = 0
        below = sum(child.saved for child in node.children)
        node.own, node.saved = own > 0 and own >= below, max(own, below)

    # Intervals of equal beginnings, the innermost first (Abouelhoda et al. 2004, on suffix arrays).
    stack = [_Node(0, 0)]
    for index in range(1, len(order)):
        common, first, inner = _common(heads[order[index - 1]], heads[order[index]]), index - 1, None
        while common < stack[-1].length:
            inner = stack.pop()
            close(inner, index - 1)
            first = inner.first
            if common <= stack[-1].length:
                stack[-1].children.append(inner)
                inner = None
        if common > stack[-1].length:
            stack.append(_Node(common, first, children=[inner] if inner else []))
    while stack:
        node = stack.pop()
        close(node, len(order) - 1)
        if stack:
            stack[-1].children.append(node)
    found, left = [], [node]
    while left:
        node = left.pop()
        if node.own:
            found.append((sorted(order[node.first : node.last + 1]), node.length))
        else:
            left += node.children
    return found


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many of their first tokens are the same."""
    count = min(a.size, b.size)
    differ = np.flatnonzero(a[:count] != b[:count])
    return int(differ[0]) if differ.size else count
