"""How a training's loss is smoothed, and when it counts as converged; the figures draw what this computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LONGEST = 20  # steps of a window
BAND = 0.1  # of the total reduction: how near to its final value a converged loss stays


def window(steps: int) -> int:
    """How many steps the moving mean takes: a tenth of all, at least 1 and at most `LONGEST`."""
    return max(1, min(LONGEST, steps // 10))


def smoothed(losses: Sequence[float], tokens: Sequence[int], size: int) -> np.ndarray:
    """The mean loss over the trained tokens of `size` steps, carried by the last of them: [steps - size + 1].

    losses: nats per trained token of each step. tokens: how many tokens each step trained.
    """
    each = np.ones(size)
    weights = np.asarray(tokens)
    return np.convolve(np.asarray(losses) * weights, each, "valid") / np.convolve(weights, each, "valid")


def threshold(initial: float, final: float) -> float:
    """The smoothed loss below which a training has converged: `BAND` of the total reduction above the final value."""
    return final + BAND * (initial - final)


def measure(losses: Sequence[float], tokens: Sequence[int], steps: Sequence[int]) -> dict[str, Any]:
    """Losses at both ends, the convergence iteration and the coefficient of variation.

    Let s be the smoothed loss (`smoothed` over `window` steps).

    - `initial_loss` and `final_loss` are the first and the last value of s: the means over the first and the
      last `window` steps.
    - `convergence_iteration` is the first step from which on s stays at or below `threshold`; None when it does
      not settle before the last window begins, or when the loss rose.
    - `coefficient_of_variation` is the standard deviation of the raw losses over the steps from there on (over
      all steps when that is None), as a share of their mean.
    """
    losses = np.asarray(losses)
    size = window(len(losses))
    smooth = smoothed(losses, tokens, size)
    initial, final = float(smooth[0]), float(smooth[-1])
    outside = np.flatnonzero(smooth > threshold(initial, final))
    settled = int(outside[-1]) + size if outside.size else size - 1  # index of the first step that settled
    converged = settled < len(losses) - size
    rest = losses[settled:] if converged else losses
    return {
        "window": size,
        "initial_loss": initial,
        "final_loss": final,
        "loss_reduction": 1 - final / initial,
        "convergence_iteration": steps[settled] if converged else None,
        "coefficient_of_variation": float(rest.std() / rest.mean()),
    }
