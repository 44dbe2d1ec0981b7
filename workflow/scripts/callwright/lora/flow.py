"""Hidden states on their way through a model's blocks: of a batch, or of a beginning and the rows that follow it.

A beginning runs through a block once. Its keys and values are the cache that the rows' pass through the same block
sees, and stay differentiable, so gradients flow from all rows back through the one beginning. What a model's own
code asks a cache for is all that is needed, so this works for every architecture whose only state is keys and
values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import create_causal_mask

# What a model passes to a block beside the hidden states: masks and the like, fixed by the shape.
Call = tuple[tuple[Any, ...], dict[str, Any]]


class BeginningCache:
    """Stands where a block expects its cache, in a beginning's pass: notes keys and values [1, heads, length, d]."""

    offset = 0

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The same, noted."""
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array | str:
        """The mask that a model makes without a cache."""
        if return_array or (window_size is not None and length > window_size):
            return create_causal_mask(length, window_size=window_size)
        return "causal"


class BranchCache:
    """Stands there in the pass of the rows behind a beginning of `offset` tokens: they see it, and themselves."""

    def __init__(self, beginning: BeginningCache, offset: int):
        self.beginning, self.offset = beginning, offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """The beginning's and each row's own [rows, heads, offset + length, d]."""
        return self._behind(self.beginning.keys, keys), self._behind(self.beginning.values, values)

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """[length, offset + length]: a row of the cache sees all of the beginning that lies within the window."""
        return create_causal_mask(length, self.offset, window_size=window_size)

    @staticmethod
    def _behind(first: mx.array, own: mx.array) -> mx.array:
        return mx.concatenate([mx.broadcast_to(first, (own.shape[0], *first.shape[1:])), own], axis=2)


@dataclass(frozen=True)
class Step:
    """How one block is called with the states that pass it together: a batch, or a beginning and its branches."""

    calls: Sequence[Call]  # one for each of the states
    cache: BeginningCache | None = None  # between the calls

    def __call__(self, block: nn.Module, *states: mx.array) -> tuple[mx.array, ...]:
        """The block's outputs for `states`, each [rows, length, width]."""
        out = tuple(block(h, *args, **kwargs) for h, (args, kwargs) in zip(states, self.calls, strict=True))
        if self.cache is not None:
            self.cache.keys = self.cache.values = None  # they belong to this pass
        return out
