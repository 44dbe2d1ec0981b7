"""Which adapter is kept, and when a training ends early.

Both are decided at the validations. `training.select` says what makes an adapter better:

- `validation_loss`: a lower validation loss;
- `tool_calls`: more correct tool calls among the greedy answers to a few validation examples; among equals, a
  lower validation loss;
- `last`: nothing. The last adapter is kept, and the validation loss alone decides when to stop.

Among adapters that are equal in all that counts, the earliest stays. All state is in the run's `Counters`, so
that a resumed run decides as an uninterrupted one.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from callwright.lora import layers
from callwright.lora.snapshot import Counters
from callwright.runtime import device

# Of an adapter (arrays by name): correct answers, and requests asked. Made by whoever has a generator and a scorer.
Score = Callable[[dict[str, mx.array]], tuple[int, int]]


def note(counters: Counters, settings: dict[str, Any], loss: float, correct: int | None) -> bool:
    """Count a validation; returns whether its adapter is better than the one kept so far.

    `settings` is the config's `training`, `loss` the validation loss, `correct` the correctly answered requests
    (None unless `select` is `tool_calls`). Sets `counters.stopped` to the reason when patience is at its end.
    """
    if counters.best_loss is None or loss < counters.best_loss:
        counters.best_loss, counters.best_step = loss, counters.step
    better = settings["select"] == "last" or _better(correct, loss, counters.kept_correct, counters.kept_loss)
    if better:
        counters.kept_step, counters.kept_loss, counters.kept_correct = counters.step, loss, correct
    if _better(correct, loss, counters.mark_correct, counters.mark_loss, settings["min_delta"]):
        counters.mark_step, counters.mark_loss, counters.mark_correct = counters.step, loss, correct
        counters.waited = 0
    else:
        counters.waited += 1
    if settings["patience"] is not None and counters.waited >= settings["patience"]:
        what = "no lower validation loss"
        if settings["select"] == "tool_calls":
            what = "no more correct tool calls, nor as many at a lower validation loss"
        counters.stopped = f"{what} since step {counters.mark_step} (training.patience is {settings['patience']})"
    return better


def summary(counters: Counters, settings: dict[str, Any]) -> dict[str, Any]:
    """`kept`: step, validation loss and score of the adapter that is written; `stopped_early`: None or step, reason."""
    asked = settings["select"] == "tool_calls"
    return {
        "kept": {
            "step": counters.kept_step,
            "by": settings["select"],
            "validation_loss": counters.kept_loss,
            "correct": counters.kept_correct if asked else None,
            "asked": counters.asked if asked else None,
        },
        "stopped_early": {"step": counters.step, "reason": counters.stopped} if counters.stopped else None,
    }


@contextlib.contextmanager
def adapted(model: nn.Module, adapter: dict[str, mx.array]) -> Iterator[None]:
    """`model` (low-rank layers attached, in no training) with `adapter` on it while the block runs.

    On the CPU the adapter is folded into the plain weights, as rule `generate` does. Afterwards the model has its
    own weights again, the very arrays, so that nothing is rounded away however many adapters are tried.
    """
    model.update(tree_unflatten(list(adapter.items())))
    model.eval()
    plain = [
        (path, layer, layer.base.weight)
        for path, layer in layers.lowrank_layers(model)
        if device.on_cpu() and isinstance(layer.base, nn.Linear | nn.Embedding)
    ]
    try:
        if plain:
            layers.merge(model)
        yield
    finally:
        for _, layer, weight in plain:
            layer.base.weight = weight
        model.update_modules(tree_unflatten([(path, layer) for path, layer, _ in plain]))


def _better(
    correct: int | None, loss: float, old_correct: int | None, old_loss: float | None, min_delta: float = 0.0
) -> bool:
    if old_loss is None:
        return True
    if correct != old_correct:
        return correct > old_correct
    return loss < old_loss - min_delta
