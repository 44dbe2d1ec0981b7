"""Hidden states on their way through a model's blocks: of a batch, or of a beginning and the rows that follow it.

A beginning runs through a block once. Its keys and values are the cache that the rows' pass through the same block
sees, and stay differentiable, so gradients flow from all rows back through the one beginning. What a model's own
code asks a cache for is all that is needed, so this works for every architecture whose state is keys and values, and
beside them (in a `CacheList`) what a convolution must see of the last positions (an `ArraysCache`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import ArraysCache, CacheList

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

    def arrays(self) -> list[mx.array]:
        """What was noted."""
        return [self.keys, self.values]

    def forget(self) -> None:
        """Let go of it: it belongs to one pass."""
        self.keys = self.values = None

    def branch(self, offset: int) -> "BranchCache":
        """The cache of the rows behind it, `offset` its tokens."""
        return BranchCache(self, offset)

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


class BeginningState(ArraysCache):
    """Likewise for an `ArraysCache`: notes the arrays [1, …] that a block leaves for what follows."""

    def arrays(self) -> list[mx.array]:
        """What was noted."""
        return [array for array in self.cache if array is not None]

    def forget(self) -> None:
        """Let go of it."""
        self.cache = [None] * len(self.cache)

    def branch(self, offset: int) -> "BranchState":
        """What each of the rows behind it finds there."""
        return BranchState(self)


class BranchState:
    """Gives the rows behind a beginning what it left [1, …]; what they leave themselves, nobody reads."""

    lengths = None

    def __init__(self, beginning: BeginningState):
        self.beginning = beginning

    def __getitem__(self, slot: int) -> mx.array | None:
        return self.beginning[slot]

    def __setitem__(self, slot: int, value: mx.array) -> None:
        pass

    def make_mask(self, length: int) -> None:
        """All rows are whole."""

    def advance(self, length: int) -> None:
        """Nothing to count."""


class BeginningCaches:
    """A block's several caches in a beginning's pass, in the order of its `CacheList`."""

    def __init__(self, parts: Sequence[Any]):
        self.parts = parts

    def __getitem__(self, number: int) -> Any:
        return self.parts[number]

    def arrays(self) -> list[mx.array]:
        """What was noted in all of them."""
        return [array for part in self.parts for array in part.arrays()]

    def forget(self) -> None:
        """Let go of it."""
        for part in self.parts:
            part.forget()

    def branch(self, offset: int) -> tuple[Any, ...]:
        """Those of the rows behind it."""
        return tuple(part.branch(offset) for part in self.parts)


def beginning_caches(model: nn.Module) -> list[Any]:
    """For each block what stands in place of its cache in a beginning's pass."""
    made = model.make_cache() if hasattr(model, "make_cache") else [None] * len(model.layers)
    return [_beginning_cache(cache) for cache in made]


def _beginning_cache(cache: Any) -> Any:
    if isinstance(cache, CacheList):
        return BeginningCaches([_beginning_cache(part) for part in cache.caches])
    return BeginningState(len(cache.cache)) if isinstance(cache, ArraysCache) else BeginningCache()


@dataclass(frozen=True)
class Step:
    """How one block is called with the states that pass it together: a batch, or a beginning and its branches."""

    calls: Sequence[Call]  # one for each of the states
    cache: Any = None  # of `beginning_caches`, between the calls

    def __call__(self, block: nn.Module, *states: mx.array) -> tuple[mx.array, ...]:
        """The block's outputs for `states`, each [rows, length, width]."""
        out = tuple(block(h, *args, **kwargs) for h, (args, kwargs) in zip(states, self.calls, strict=True))
        if self.cache is not None:
            self.cache.forget()
        return out
