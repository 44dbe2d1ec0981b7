"""Which records of an epoch go into a batch together, where some of them share a beginning."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np


def together(count: int, everything: int, batch_size: int) -> int:
    """How many records of one beginning go into a batch, of `count` that have it and `everything` that there is.

    All where there is no other record; a family that is smaller than a batch stays whole; else half a batch.
    """
    if count == everything:
        return batch_size
    return count if count < batch_size else -(-batch_size // 2)


def mixed(
    order: Sequence[int], beginnings: Sequence[Hashable], batch_size: int, generator: np.random.Generator
) -> list[list[int]] | None:
    """`order`, the indices of records, cut into batches in which those of the same beginning stand together.

    `beginnings` has what records of the same beginning have in common, by index; None for a record without.

    Each batch but the last holds `batch_size` records, and at least two different beginnings, or a record without,
    as long as there are two. Records of one beginning keep their order. None where a batch needs no such care: no
    record shares its beginning with another, or all share one.
    """
    families: dict[Hashable, list[int]] = defaultdict(list)
    for index in order:
        families[beginnings[index]].append(index)
    alone = families.pop(None, [])
    if not families or (len(families) == 1 and not alone):
        return None
    waiting = _Waiting([families[key] for key in families], generator)
    batches = []
    while waiting.count or alone:
        if not waiting.count:  # neighbours in length, as without sharing
            batches.append(alone[:batch_size])
            alone = alone[batch_size:]
            continue
        chosen = waiting.largest()
        chosen.move(together(len(chosen.left), len(chosen.left) + 1, batch_size))
        members = [chosen]
        while (room := batch_size - sum(len(member.taken) for member in members)) and (
            waiting.count or alone or any(member.left for member in members)
        ):
            started = max(members, key=lambda member: len(member.left))
            if len(members) > 1 and started.left:
                started.move(room)
            elif (fits := waiting.largest(room)) is not None:
                fits.move(room)
                members.append(fits)
            elif alone and (room == 1 or not waiting.count):
                members.append(_Family([], [alone.pop(int(generator.integers(len(alone))))]))
            elif waiting.count:
                cut = waiting.largest()
                cut.move(room)
                members.append(cut)
            else:
                started.move(room)
        batches.append([index for member in members for index in member.taken])
        for member in members:
            waiting.put(member.left)
    return batches


@dataclass
class _Family:
    """Records of one beginning: those left, and those taken into the batch that is being filled."""

    left: list[int]
    taken: list[int] = field(default_factory=list)

    def move(self, count: int) -> None:
        """Take so many of those left, or all."""
        self.taken += self.left[:count]
        self.left = self.left[count:]


class _Waiting:
    """Families by how many records they have left; of equal ones, one drawn at random."""

    def __init__(self, families: Sequence[list[int]], generator: np.random.Generator):
        self.by_size: dict[int, list[list[int]]] = defaultdict(list)
        self.generator, self.count = generator, 0
        for family in families:
            self.put(family)

    def put(self, family: list[int]) -> None:
        """Wait again; a family without a record does not."""
        if family:
            self.by_size[len(family)].append(family)
            self.count += 1

    def largest(self, most: int | None = None) -> _Family | None:
        """The one with most records left, `most` at most; it does not wait any more."""
        size = max((size for size in self.by_size if most is None or size <= most), default=0)
        if not size:
            return None
        same = self.by_size[size]
        place = int(self.generator.integers(len(same)))
        same[place], same[-1] = same[-1], same[place]
        family = same.pop()
        if not same:
            del self.by_size[size]
        self.count -= 1
        return _Family(family)
