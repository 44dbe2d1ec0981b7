"""A causal language model of mlx_lm taken apart: entry, blocks, head.

Training wants the blocks one by one (to cache the frozen ones, to recompute the others) and
the head on chosen positions alone. mlx_lm's architectures differ in what stands around the
blocks: scaled embeddings, sliding-window masks, tied heads, soft caps. None of that is
repeated here: the model's own code runs, with stand-ins in place of its blocks that note what
they are called with, or that return hidden states computed elsewhere. MLX is lazy, so what a
stand-in makes superfluous is never computed.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from callwright.lora.flow import Call, Step, beginning_caches
from callwright.models.blockwise import StandIn, owner
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)


class Blocks:
    """The parts of `model`, sharing its arrays.

    Raises CallwrightError when the parts, put together, do not give the model's own logits; `verify` False leaves
    that out, and computes nothing.
    """

    def __init__(self, model: nn.Module, verify: bool = True):
        self.model = model
        self.owner = _owner(model)
        self.blocks: list[nn.Module] = list(self.owner.layers)
        if verify:
            self._verify()

    def __len__(self) -> int:
        return len(self.blocks)

    def enter(self, tokens: mx.array, caches: Sequence[Any] | None = None) -> tuple[mx.array, list[Call]]:
        """What the blocks see of `tokens` [batch, length], with a cache for each block if there are `caches`.

        Returns the first one's input [batch, length, width], and each one's other arguments.
        """
        calls: list[Call] = []
        inputs: list[mx.array] = []

        def note(h: mx.array, *args: Any, **kwargs: Any) -> mx.array:
            inputs.append(h)
            calls.append((args, kwargs))
            return h

        with self._stand_ins(note):
            self.owner(tokens) if caches is None else self.owner(tokens, cache=list(caches))
        return inputs[0], calls

    def enter_flow(
        self, tokens: mx.array, beginning: mx.array | None = None
    ) -> tuple[tuple[mx.array, ...], list[Step]]:
        """The states that pass the blocks together, and how each block is called with them.

        One state for `tokens` [batch, length]; where they follow a `beginning` [P], its own [1, P, width] before.
        """
        if beginning is None:
            h, calls = self.enter(tokens)
            return (h,), [Step([call]) for call in calls]
        caches = beginning_caches(self.model)
        first, calls = self.enter(beginning[None], caches)
        h, others = self.enter(tokens, [cache.branch(beginning.size) for cache in caches])
        steps = [Step(both, cache) for *both, cache in zip(calls, others, caches, strict=True)]
        return (first, h), steps

    def head(self, hidden: mx.array) -> mx.array:
        """Logits [n, vocabulary] of the last block's outputs `hidden` [n, width], final norm included."""
        with self._stand_ins(lambda h, *args, **kwargs: hidden[None]):
            return self.model(mx.zeros((1, hidden.shape[0]), mx.int32)).squeeze(0)  # `[0]` would copy the logits

    def run(self, h: mx.array, calls: list[Call], first: int, last: int) -> mx.array:
        """`h` [batch, length, width] through the blocks `first` to `last` - 1."""
        for block, (args, kwargs) in zip(self.blocks[first:last], calls[first:last], strict=True):
            h = block(h, *args, **kwargs)
        return h

    def run_flow(self, states: tuple[mx.array, ...], steps: list[Step], first: int, last: int) -> tuple[mx.array, ...]:
        """`states` of `enter_flow` through the blocks `first` to `last` - 1."""
        for block, step in zip(self.blocks[first:last], steps[first:last], strict=True):
            states = step(block, *states)
        return states

    def shares(self) -> bool:
        """Whether tokens behind a beginning give the logits that they give in one piece with it, caches and all.

        Not so where a block has another state than `flow` knows of, or asks another thing of its cache.
        """
        tokens = mx.arange(1, 13)
        try:
            states, steps = self.enter_flow(mx.stack([tokens[5:], tokens[5:] + 1]), tokens[:5])
            found = self.head(self.run_flow(states, steps, 0, len(self))[1][0])
            expected = self.model(tokens[None])[0, 5:]
            difference, scale = mx.abs(found - expected).max().item(), mx.abs(expected).max().item()
        except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            log.info("%s: a beginning cannot be shared: %s", _kind(self.model), error)
            return False
        tolerance = 1e-2 if states[0].dtype == mx.float32 else 5e-2  # in 16 bits, another mask rounds otherwise
        return difference <= tolerance * max(scale, 1e-6)

    @contextlib.contextmanager
    def _stand_ins(self, function: Callable[..., mx.array]) -> Iterator[None]:
        self.owner.layers = [StandIn(block, function) for block in self.blocks]
        try:
            yield
        finally:
            self.owner.layers = self.blocks

    def _verify(self) -> None:
        tokens = mx.arange(1, 9)[None]
        try:
            h, calls = self.enter(tokens)
            difference = mx.abs(self.head(self.run(h, calls, 0, len(self))[0]) - self.model(tokens)[0]).max().item()
            scale = mx.abs(self.model(tokens)).max().item()
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CallwrightError(f"{_kind(self.model)}: its blocks cannot be run one by one: {error}") from error
        if not difference <= 1e-2 * max(scale, 1e-6):
            raise CallwrightError(
                f"{_kind(self.model)}: its blocks, run one by one, give other logits than the model "
                f"(they differ by {difference:.3g}); training this architecture is not supported"
            )


def _owner(model: nn.Module) -> nn.Module:
    """The module in `model` that holds the blocks; raises CallwrightError where none does."""
    if (found := owner(model)) is None:
        raise CallwrightError(f"{_kind(model)}: no list of blocks found; training this architecture is not supported")
    return found


def _kind(model: nn.Module) -> str:
    return f"model type {getattr(model, 'model_type', type(model).__module__)!r}"
