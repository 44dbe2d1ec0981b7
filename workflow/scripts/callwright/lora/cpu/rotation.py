"""RoPE's rotations as complex numbers, from the model's own modules."""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.lora.cpu.fast_math import host

PROBE = 64  # positions by which two modules are told apart


class Tables:
    """The rotations of each block; blocks that rotate alike share a table.

    `ropes` are the blocks' modules, whose rotation of a position depends on that position alone.
    """

    def __init__(self, ropes: Sequence[nn.Module], head_dim: int):
        self.half = head_dim // 2
        kinds: dict[bytes, int] = {}
        self.ropes, self.kind = [], []
        for rope in ropes:
            key = self._table(rope, PROBE).tobytes()
            if key not in kinds:
                kinds[key] = len(self.ropes)
                self.ropes.append(rope)
            self.kind.append(kinds[key])
        self.tables = [np.empty((0, self.half), np.complex64) for _ in self.ropes]

    def of(self, length: int) -> list[np.ndarray]:
        """For each block, the rotations of at least `length` positions [positions, d/2] complex."""
        tables = self.tables
        if tables[0].shape[0] < length:
            tables = [self._table(rope, length) for rope in self.ropes]
            self.tables = tables  # a longer one that another thread sets now is only made again
        return [tables[kind] for kind in self.kind]

    def _table(self, rope: nn.Module, length: int) -> np.ndarray:
        """What `rope` makes of 1 + 0i in each pair of channels."""
        unit = mx.concatenate([mx.ones((1, 1, length, self.half)), mx.zeros((1, 1, length, self.half))], axis=-1)
        (rotated,) = host(rope(unit))
        return (rotated[0, 0, :, : self.half] + 1j * rotated[0, 0, :, self.half :]).astype(np.complex64)
