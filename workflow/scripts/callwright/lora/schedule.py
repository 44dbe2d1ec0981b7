"""Learning rates over the steps of a run."""

import math


def learning_rate(step: int, iterations: int, peak: float, warmup: int, kind: str) -> float:
    """The learning rate of `step` (1 to `iterations`).

    It rises linearly to `peak` at step `warmup`, then follows `kind`: `constant`, `linear`
    (to 0 one step after the last) or `cosine` (likewise). Raises ValueError for another kind.
    """
    if step <= warmup:
        return peak * step / warmup
    # 0 at the first step after the warm-up, below 1 at the last
    done = (step - 1 - warmup) / (iterations - warmup)
    if kind == "constant":
        return peak
    if kind == "linear":
        return peak * (1 - done)
    if kind == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    raise ValueError(f"no schedule is called {kind!r}")
