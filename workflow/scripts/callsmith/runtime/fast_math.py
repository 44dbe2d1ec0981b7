"""Elementwise mathematics on the CPU, in place on MLX's own buffers.

MLX's CPU backend computes `exp` one number at a time: 12 to 40 ns each, so that softmax and
SiLU take as long as all matrix products of a small model. NumPy's vectorized `exp` needs 1 to
2 ns. An evaluated MLX array lends its memory to NumPy without a copy, so the functions here
work in place on what MLX allocated, and MLX goes on with the result. Everything is float32.

A second waste is that only matrix products use more than one core. `Workers` runs whole jobs
side by side, each with a BLAS of one thread, which keeps all cores busy in between as well.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from callsmith.runtime import blas

Job = TypeVar("Job")
Result = TypeVar("Result")

# Rows handled at once, so that what one pass writes is still in the cache for the next.
ROWS = 32


def host(*arrays: mx.array) -> tuple[np.ndarray, ...]:
    """Evaluate and return NumPy views of the same memory; writing to a view changes the array.

    Only for arrays that nothing else refers to: MLX takes values for immutable.
    """
    mx.eval(*arrays)
    return tuple(np.asarray(array) for array in arrays)


def softmax_(scores: np.ndarray) -> np.ndarray:
    """Turn `scores` [..., n] into exp(scores - maximum) in place; returns the sums [...] left to divide by.

    Dividing later, by what is multiplied with it, is cheaper than dividing [..., n].
    """
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    return scores.sum(axis=-1)


def swiglu(gate_up: np.ndarray, hidden: np.ndarray, sigmoid: np.ndarray | None = None) -> None:
    """hidden = silu(gate) * up, for `gate_up` [n, 2 * width] and `hidden` [n, width].

    `sigmoid` [n, width], if given, receives sigmoid(gate), for `swiglu_backward`.
    """
    width = hidden.shape[-1]
    for begin in range(0, hidden.shape[0], ROWS):
        rows = slice(begin, begin + ROWS)
        gate, up, out = gate_up[rows, :width], gate_up[rows, width:], hidden[rows]
        s = out if sigmoid is None else sigmoid[rows]
        np.negative(gate, out=s)
        with np.errstate(over="ignore"):  # infinity below -88, where the sigmoid is 0: what is wanted
            np.exp(s, out=s)
        s += 1
        if sigmoid is None:
            np.divide(gate, s, out=out)
        else:
            np.reciprocal(s, out=s)
            np.multiply(gate, s, out=out)
        out *= up


def swiglu_backward(
    gradient: np.ndarray, gate_up: np.ndarray, sigmoid: np.ndarray, out: np.ndarray, hidden: np.ndarray
) -> None:
    """The gradient of `swiglu` for gate and up, into `out` [n, 2 * width]; `gradient` [n, width] is that of its output.

    `hidden` [n, width] receives the forward result once more.
    """
    width = gradient.shape[-1]
    t = np.empty((ROWS, width), np.float32)
    for begin in range(0, gradient.shape[0], ROWS):
        rows = slice(begin, begin + ROWS)
        gate, up, s, dh, a = gate_up[rows, :width], gate_up[rows, width:], sigmoid[rows], gradient[rows], hidden[rows]
        slope = t[: dh.shape[0]]
        np.multiply(gate, s, out=a)  # silu
        np.subtract(1, s, out=slope)
        slope *= a
        slope += s  # silu' = s + silu * (1 - s)
        slope *= up
        np.multiply(slope, dh, out=out[rows, :width])
        np.multiply(dh, a, out=out[rows, width:])
        a *= up


def rms_normalize(x: np.ndarray, out: np.ndarray, eps: float) -> np.ndarray:
    """out = x / rms(x) for `x` [n, width]; returns 1 / rms [n, 1]."""
    inverse = np.einsum("ij,ij->i", x, x)
    inverse /= x.shape[-1]
    inverse += eps
    np.sqrt(inverse, out=inverse)
    np.reciprocal(inverse, out=inverse)
    np.multiply(x, inverse[:, None], out=out)
    return inverse[:, None]


def rms_normalize_backward_(gradient: np.ndarray, normalized: np.ndarray, inverse: np.ndarray) -> None:
    """Turn the gradient [n, width] of `rms_normalize`'s output into that of its input, in place."""
    along = np.einsum("ij,ij->i", gradient, normalized)
    along /= gradient.shape[-1]
    gradient -= normalized * along[:, None]
    gradient *= inverse


@contextlib.contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Give MLX's BLAS so many threads while the block runs; no effect where it is not an OpenBLAS of ours."""
    before = _blas_call("get_num_threads", [])
    if before is not None:
        _blas_call("set_num_threads", [ctypes.c_int(threads)])
    try:
        yield
    finally:
        if before is not None:
            _blas_call("set_num_threads", [ctypes.c_int(before)])


def cores() -> int:
    """The threads that the BLAS was given (config key `device.cpu_threads`), or else the machine's cores."""
    return _blas_call("get_num_threads", []) or os.cpu_count() or 1


def _blas_call(name: str, arguments: Sequence[Any]) -> int | None:
    if blas._loaded is None:
        return None
    for prefix in ("openblas_", "scipy_openblas_"):
        function = getattr(blas._loaded[1], prefix + name, None)
        if function is not None:
            return function(*arguments)
    return None


class Workers:
    """As many threads as cores; each runs one job at a time, with a BLAS of one thread.

    Python's lock is no hindrance: MLX and NumPy release it while they compute.
    """

    def __init__(self, count: int | None = None):
        self.count = count or cores()
        self.pool = ThreadPoolExecutor(self.count, thread_name_prefix="callsmith")

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job], cost: Callable[[Job], int]) -> list[Result]:
        """`function` of each job, in the jobs' order; the most costly are begun first.

        Raises what a job raised, once no other job is running any more.
        """
        with blas_threads(1):
            order = sorted(range(len(jobs)), key=lambda index: -cost(jobs[index]))
            running = {index: self.pool.submit(function, jobs[index]) for index in order}
            wait(running.values())
            return [running[index].result() for index in range(len(jobs))]

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()
