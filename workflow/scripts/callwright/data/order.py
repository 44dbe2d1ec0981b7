"""Test items in an order of which any first so many are a stratified sample."""

import random
from collections import defaultdict
from collections.abc import Sequence

from callwright.data.records import Example

ORDER = 42  # seed of the order; a constant, so that samples are the same everywhere


def in_order(examples: Sequence[Example]) -> list[Example]:
    """All examples, so ordered that any first so many hold each stratum in its share, to within one item or so.

    A stratum is the kind of answer (one call, several, why there is none) and how many tools are on offer.
    """
    strata = defaultdict(list)
    for example in sorted(examples, key=lambda example: example.id):
        strata[example.stratum, len(example.tools).bit_length()].append(example)
    rng = random.Random(ORDER)
    placed = []
    for key in sorted(strata):
        members = strata[key]
        rng.shuffle(members)
        placed += [((rank + 0.5) / len(members), key, example) for rank, example in enumerate(members)]
    return [example for *_, example in sorted(placed, key=lambda entry: entry[:2])]
