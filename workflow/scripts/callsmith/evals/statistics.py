"""How sure a measured share is, and whether one condition really beats another on the same items."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


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
    base: Sequence[bool],
    tuned: Sequence[bool],
    clusters: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 42,
) -> dict[str, Any]:
    """The gain tuned - base on the same items, with a 95 % bootstrap interval and McNemar's p-value.

    base, tuned: outcome per item, in the same order. clusters: items that share a label are drawn
    together (items about the same tools are not independent); None draws item by item.
    Returns `{"n", "base", "tuned", "difference", "ci95": [lo, hi], "won", "lost", "p_value"}`, rates
    from 0 to 1; `won` items are right only with tuned, `lost` ones only with base. Same input and
    seed, same numbers. Raises ValueError for sequences of unequal length or without items.
    """
    if not len(base) == len(tuned) > 0:
        raise ValueError(f"paired outcomes need the same items on both sides: {len(base)} and {len(tuned)}")
    if clusters is not None and len(clusters) != len(base):
        raise ValueError(f"{len(clusters)} cluster labels for {len(base)} items")
    before, after = np.asarray(base, dtype=np.int64), np.asarray(tuned, dtype=np.int64)
    gains = after - before
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
        "base": float(before.mean()),
        "tuned": float(after.mean()),
        "difference": float(gains.mean()),
        "ci95": [float(low), float(high)],
        "won": won,
        "lost": lost,
        "p_value": mcnemar_exact(won, lost),
    }
