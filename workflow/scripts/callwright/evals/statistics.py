"""How sure a measured share is, and whether one condition really beats another on the same items."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from callwright.data.similarity import components

# A resampling of few clusters of which one holds most items says little about these items.
LARGEST_COMPONENT = 0.5


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of the share k/n; `z` = 1.96 gives 95 %.

    Unlike p +- z*sqrt(p(1-p)/n) it stays inside [0, 1] and keeps its meaning at k = 0 and k = n.
    Nothing measured (n = 0) leaves the whole of [0, 1]. Raises ValueError unless 0 <= k <= n.
    Source: E. B. Wilson, JASA 22 (1927) 209-212.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes out of {n} are impossible")
    if n == 0:
        return 0.0, 1.0
    share = k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the bound is exactly 0 or 1; the formula leaves a rounding error there.
    return (0.0 if k == 0 else middle - half), (1.0 if k == n else middle + half)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar p-value from the discordant pairs: `b` won, `c` lost.

    Under the null hypothesis each discordant pair is a fair coin. No such pair gives 1.
    Source: Q. McNemar, Psychometrika 12 (1947) 153-157, with the exact binomial tail.
    """
    if b < 0 or c < 0:
        raise ValueError(f"numbers of pairs cannot be negative: {b}, {c}")
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1))
    # Integers all the way: 2**n has no float for large n, their quotient has one.
    return min(1.0, 2 * tail / 2**n)


def paired_difference(
    before: Sequence[bool],
    after: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 42,
) -> dict[str, Any]:
    """The gain after - before on the same items, with a 95 % bootstrap interval and McNemar's p-value.

    before, after: outcome per item, in the same order. clusters: items that share a label are drawn together
    (items about the same tools are not independent); None draws item by item. The interval is that of the
    percentiles: each draw takes as many clusters as there are, with replacement, and is the mean gain of their items.
    Returns `{"n", "before", "after", "difference", "ci95": [lo, hi], "won", "lost", "p_value", "clusters"}`, rates
    from 0 to 1; `won` items are right only after, `lost` ones only before; `clusters` is how many there are. Same
    input and seed, same numbers. Raises ValueError for sequences of unequal length or without items.
    Source: C. A. Field, A. H. Welsh, Bootstrapping clustered data, JRSS B 69 (2007) 369-390.
    """
    if not len(before) == len(after) > 0:
        raise ValueError(f"paired outcomes need the same items on both sides: {len(before)} and {len(after)}")
    if clusters is not None and len(clusters) != len(before):
        raise ValueError(f"{len(clusters)} cluster labels for {len(before)} items")
    old, new = np.asarray(before, dtype=np.int64), np.asarray(after, dtype=np.int64)
    gains = new - old
    labels = range(len(gains)) if clusters is None else clusters
    index = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    of_item = np.fromiter((index[label] for label in labels), dtype=np.int64, count=len(gains))
    sums = np.bincount(of_item, weights=gains)
    sizes = np.bincount(of_item)
    generator = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, 1000):  # in slices: draws x items need not be held at once
        stop = min(start + 1000, draws)
        chosen = generator.integers(len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    return {
        "n": len(gains),
        "before": float(old.mean()),
        "after": float(new.mean()),
        "difference": float(gains.mean()),
        "ci95": [float(low), float(high)],
        "won": won,
        "lost": lost,
        "p_value": mcnemar_exact(won, lost),
        "clusters": len(sums),
    }


def tool_clusters(examples: Sequence[Any]) -> tuple[list[Hashable], str]:
    """A label for each example, equal for those about the same tools, and what it stands for.

    Examples that call a common tool are one cluster, and so are those joined through others: the connected
    components of examples and expected tools (`tool component`). An example that expects no call counts as one about
    the first tool that it offers; it stands alone where it offers none. Where one component holds more than half of
    the examples, the label is that first tool alone (`first tool`), and tools that are called later are left out.
    """
    names = [
        [call["name"] for call in example.calls] or list(example.tool_names[:1]) or [index]
        for index, example in enumerate(examples)
    ]
    labels: list[Hashable] = [0] * len(names)
    for number, members in enumerate(components(names)):
        for index in members:
            labels[index] = number
    if labels and max(Counter(labels).values()) > LARGEST_COMPONENT * len(labels):
        return [found[0] for found in names], "first tool"
    return labels, "tool component"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p-values that keep the chance of any false discovery below the level, in order.

    The i-th smallest of m (from 0) is multiplied by m - i, made no smaller than those before it, and cut at 1. It
    asks for no independence. Raises ValueError for a value outside [0, 1].
    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie between 0 and 1: {list(p_values)}")
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters of the same items beyond chance: (observed - expected) / (1 - expected).

    1 is full agreement, 0 what raters with these frequencies of labels would reach by chance. None where both give
    one and the same label to all items, for which it is not defined. Raises ValueError for unequal numbers of
    labels, or none.
    Source: J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46.
    """
    if not len(first) == len(second) > 0:
        raise ValueError(f"two raters need the same items: {len(first)} and {len(second)} labels")
    n, one, other = len(first), Counter(first), Counter(second)
    # In whole numbers, so that full agreement is exactly 1.
    same = n * sum(a == b for a, b in zip(first, second, strict=True))
    by_chance = sum(count * other[label] for label, count in one.items())
    return None if by_chance == n * n else (same - by_chance) / (n * n - by_chance)
