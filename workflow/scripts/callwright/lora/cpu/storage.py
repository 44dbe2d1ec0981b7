"""Memory for a training step's arrays: MLX's, lent to NumPy, used again from step to step.

Memory fresh from the system costs a page fault for each 4 KiB, which for the arrays that a step
keeps is as much time as a tenth of its products. What lies in an array when it is lent is
undefined.
"""

import math
from collections import defaultdict
from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from callwright.lora.cpu.fast_math import host

Shapes = Mapping[str, tuple[int, ...]]


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros in memory that MLX allocates and counts, freed with the last view of them."""
    return host(mx.zeros(shape))[0]


def size_of(shapes: Shapes) -> int:
    """The numbers in all the arrays of `shapes`."""
    return sum(math.prod(shape) for shape in shapes.values())


class Loan(dict[str, np.ndarray]):
    """Arrays by name, one after the other in one piece of memory."""

    def __init__(self, kind: str, flat: np.ndarray, shapes: Shapes):
        super().__init__()
        self.kind, self.flat = kind, flat
        begin = 0
        for name, shape in shapes.items():
            end = begin + math.prod(shape)
            self[name] = flat[begin:end].reshape(shape)
            begin = end


class BufferPool:
    """Memory by kind. Loans of one kind are of similar sizes; a free piece that is too small is replaced.

    So there are never more pieces of a kind than were lent at once, and none is larger than was asked for.
    """

    def __init__(self) -> None:
        self.free: dict[str, list[np.ndarray]] = defaultdict(list)

    def take(self, kind: str, shapes: Shapes) -> Loan:
        """Arrays of these shapes."""
        size, free = size_of(shapes), self.free[kind]
        free.sort(key=len)
        for index, flat in enumerate(free):
            if flat.size >= size:
                return Loan(kind, free.pop(index), shapes)
        if free:
            free.pop()
        return Loan(kind, zeros((size,)), shapes)

    def give(self, *loans: Loan | None) -> None:
        """Take loans back; None is passed over."""
        for loan in loans:
            if loan is not None:
                self.free[loan.kind].append(loan.flat)


class Scratch:
    """One worker's short-lived arrays, by name; each is overwritten when its name is asked for again."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def get(self, name: str, *shape: int) -> np.ndarray:
        """The array of this name, with this shape."""
        size = math.prod(shape)
        array = self.arrays.get(name)
        if array is None or array.size < size:
            self.arrays[name] = array = None  # frees the old one first
            self.arrays[name] = array = zeros((size,))
        return array[:size].reshape(shape)
