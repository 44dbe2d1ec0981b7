"""Keys and values of answers that grow together: a place for each, taken and given up at any time.

mlx-lm's batch caches pad prompts on the left, so that all rows end in the same column; a row that joins or leaves then
costs a copy of everything. Here a row begins in the first column of its place and has a length of its own: to join
copies this one row, to leave at most one other. Layers with a sliding window (Gemma's) keep all keys as well, and the
mask hides those outside the window; what is kept can then be cut anywhere, which a rotated buffer cannot.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

# Columns are added so many at a time: each time copies what is there.
STEP = 64


class Prompt(KVCache):
    """Keys and values of one prompt in one layer. window: how many keys a query sees, None for all."""

    def __init__(self, window: int | None = None):
        super().__init__()
        self.window = window

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:  # noqa: N803
        """The mask for N more tokens, as mlx-lm's models ask for it."""
        window = window_size or self.window
        if window is not None and self.offset + N <= window:
            window = None  # nothing is outside yet
        return super().make_mask(N, return_array=return_array, window_size=window)


def windows(model: nn.Module) -> list[int | None] | None:
    """Each layer's sliding window (None: it sees everything); None for a model that keeps another kind of state."""
    caches = make_prompt_cache(model)
    if not all(type(c) is KVCache or (type(c) is RotatingKVCache and c.keep == 0) for c in caches):
        return None
    return [cache.max_size if type(cache) is RotatingKVCache else None for cache in caches]


class Places:
    """Keys and values [rows, heads, columns, width] of all layers; the first `len(lengths)` places are taken.

    `layers` is what a model of mlx-lm takes as its cache to read one more token of each row.
    """

    def __init__(self, windows: Sequence[int | None]):
        self.layers = [Layer(self, window) for window in windows]
        self.lengths: list[int] = []
        self.rows = self.columns = 0  # that there is memory for
        self.width = 0  # columns in use, those of the tokens that are read now among them
        self.offset: mx.array  # tokens in each row before these [rows]
        self.index: mx.array  # 0 … rows - 1
        self._masks: dict[int | None, mx.array] = {}  # of this step, by window

    def __len__(self) -> int:
        return len(self.lengths)

    def add(self, prompt: Sequence[Prompt]) -> None:
        """Take the next place for a prompt that was read."""
        row, length = len(self), prompt[0].offset
        self._reserve(row + 1, length + 1)
        self.lengths.append(length)
        for layer, one in zip(self.layers, prompt, strict=True):
            if length:
                layer.keys = copied(layer.keys, row, one.keys[:, :, :length], self.rows, self.columns)
                layer.values = copied(layer.values, row, one.values[:, :, :length], self.rows, self.columns)
            mx.eval([part for part in (layer.keys, layer.values) if part is not None])

    def leave(self, row: int) -> None:
        """Give up a place; the last row moves there."""
        last, length = len(self) - 1, self.lengths[-1]
        if row != last:
            for layer in self.layers:
                layer.keys[row : row + 1, :, :length] = layer.keys[last : last + 1, :, :length]
                layer.values[row : row + 1, :, :length] = layer.values[last : last + 1, :, :length]
                mx.eval(layer.keys, layer.values)
            self.lengths[row] = length
        self.lengths.pop()

    def begin(self) -> None:
        """Before each step: make room for a token in every row, and note where it goes."""
        self.width = max(self.lengths) + 1
        self._reserve(len(self), self.width)
        self.offset, self.index = mx.array(self.lengths), mx.arange(len(self))
        self._masks = {}

    def end(self) -> None:
        """After each step: every row has a token more."""
        self.lengths = [length + 1 for length in self.lengths]

    def mask(self, window: int | None) -> mx.array:
        """Which columns a row's next token sees, its own among them: [rows, 1, 1, columns]."""
        if window not in self._masks:
            columns, offset = mx.arange(self.width), self.offset[:, None, None, None]
            mask = columns <= offset
            self._masks[window] = mask if window is None else mask & (columns > offset - window)
        return self._masks[window]

    def _reserve(self, rows: int, columns: int) -> None:
        if rows <= self.rows and columns <= self.columns:
            return
        if rows > self.rows:
            self.rows = max(rows, min(2 * self.rows, rows + 8))
        if columns > self.columns:
            self.columns = -(-columns // STEP) * STEP
        for layer in self.layers:  # one by one, so that only one layer is there twice
            if layer.keys is not None:
                layer.keys = enlarged(layer.keys, self.rows, self.columns)
                layer.values = enlarged(layer.values, self.rows, self.columns)
                mx.eval(layer.keys, layer.values)
        mx.clear_cache()


class Layer:
    """One layer of `Places`, with the attributes that mlx-lm's attention and masks ask a cache for."""

    def __init__(self, places: Places, window: int | None):
        self.places, self.window = places, window
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    @property
    def offset(self) -> mx.array:
        """The positions of the tokens that are read now [rows]."""
        return self.places.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add one token's keys and values [rows, heads, 1, width]; returns those of all columns in use."""
        rows = keys.shape[0]
        if self.keys is None:  # no prompt had more than one token
            self.keys, self.values = (empty(part, self.places.rows, self.places.columns) for part in (keys, values))
        self.keys[self.places.index, :, self.offset] = keys[:, :, 0]
        self.values[self.places.index, :, self.offset] = values[:, :, 0]
        width = self.places.width
        return self.keys[:rows, :, :width], self.values[:rows, :, :width]

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:  # noqa: N803
        """[rows, 1, 1, columns], True where a key is seen."""
        return self.places.mask(window_size or self.window)


def empty(like: mx.array, rows: int, columns: int) -> mx.array:
    """Zeros [rows, heads, columns, width] for arrays like this [_, heads, _, width]."""
    return mx.zeros((rows, like.shape[1], columns, like.shape[3]), like.dtype)


def enlarged(part: mx.array, rows: int, columns: int) -> mx.array:
    """The same with zeros around it."""
    more_rows, more_columns = rows - part.shape[0], columns - part.shape[2]
    return mx.pad(part, [(0, more_rows), (0, 0), (0, more_columns), (0, 0)])


def copied(part: mx.array | None, row: int, one: mx.array, rows: int, columns: int) -> mx.array:
    """`part`, made where it is None, with `one` [1, heads, length, width] at the beginning of a row."""
    if part is None:
        part = empty(one, rows, columns)
    part[row : row + 1, :, : one.shape[2]] = one
    return part
