"""Gradient checkpointing: keep a block's input, compute the rest again in the backward pass.

Chen et al. 2016, https://arxiv.org/abs/1604.06174. It trades one more forward pass through a
block for all that the block would hold in between. Frozen blocks below the first adapter
never need it: no gradient flows there.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from callwright.lora import random_state
from callwright.lora.flow import Step
from callwright.runtime.errors import CallwrightError


def chosen(policy: str | int | bool, blocks: int) -> list[bool]:
    """Which of `blocks` trained blocks to recompute: `off`, `all`, or every n-th from the lowest.

    Raises CallwrightError for anything else.
    """
    if policy in ("off", False):
        return [False] * blocks
    every = 1 if policy in ("all", True) else policy
    if not isinstance(every, int) or every < 1:
        raise CallwrightError(
            f"config key training.gradient_checkpointing is {policy!r}: expected `off`, `all` or a number n for every "
            "n-th block"
        )
    return [index % every == 0 for index in range(blocks)]


def checkpointed(block: nn.Module, step: Step) -> Callable[..., tuple[mx.array, ...]]:
    """`block`, called as `step` says, as a function of its inputs that stores the inputs alone.

    The trainable parameters are passed through `mx.checkpoint` as arguments: it differentiates
    with respect to its arguments only, so parameters caught in a closure would get no gradient.
    Dropout draws the same masks the second time, and what is drawn after it stays what it was.
    """

    def run(*states: mx.array) -> tuple[mx.array, ...]:
        parameters = block.trainable_parameters()
        drawn = random_state.get()
        again = False

        def forward(parameters: dict[str, Any], *states: mx.array) -> tuple[mx.array, ...]:
            nonlocal again
            later = random_state.get()
            random_state.put(drawn)
            block.update(parameters)
            out = step(block, *states)
            if again:
                random_state.put(later)
            again = True
            return out

        out = mx.checkpoint(forward)(parameters, *states)
        block.update(parameters)  # `forward` left its own tracers in the block
        return out

    return run
