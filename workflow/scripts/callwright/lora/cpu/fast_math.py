"""Elementwise mathematics on the CPU, in place on MLX's own buffers.

MLX's CPU backend computes `exp` one number at a time: 12 to 40 ns each, so that softmax and
SiLU take as long as all matrix products of a small model. NumPy's vectorized `exp` needs 1 to
2 ns. An evaluated MLX array lends its memory to NumPy without a copy, so the functions here
work in place on what MLX allocated, and MLX goes on with the result. Everything is float32.
"""

import math
from collections.abc import Iterator

import mlx.core as mx
import numpy as np

# Numbers handled at once, so that what one pass writes is still in the cache for the next.
TILE = 32768

# gelu by tanh, as x * sigmoid(2 u): u = sqrt(2 / pi) * (x + 0.044715 x^3); Hendrycks and Gimpel 2016,
# https://arxiv.org/abs/1606.08415
GELU_SLOPE = 2 * math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715

SAFE = 40.0  # of an exponent: exp(40) = 2e17


def host(*arrays: mx.array) -> tuple[np.ndarray, ...]:
    """Evaluate and return NumPy views of the same memory; writing to a view changes the array.

    Only for arrays that nothing else refers to: MLX takes values for immutable.
    """
    mx.eval(*arrays)
    return tuple(np.asarray(array) for array in arrays)


def softmax_(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn `scores` [..., n] into exp(scores - c) in place, c near each row's maximum.

    Returns the sums [..., 1] of what stands there then, and the logs of the sums of exp(scores).

    Dividing by the sums later, by what is multiplied with it, is cheaper than dividing [..., n]. Where no row's
    maximum could carry exp out of float32's range, 0 stands for all of them, which saves a pass.
    """
    highest = scores.max(axis=-1, keepdims=True)
    if np.abs(highest).max(initial=0) < SAFE:
        highest.fill(0)
    else:
        scores -= highest
    np.exp(scores, out=scores)
    sums = scores.sum(axis=-1, keepdims=True)
    highest += np.log(sums)
    return sums, highest


def gated(gate_up: np.ndarray, out: np.ndarray, activation: str) -> None:
    """out = activation(gate) * up, for `gate_up` [n, 2 * width] and `out` [n, width]; `silu` or `gelu` (by tanh)."""
    width = out.shape[-1]
    with np.errstate(over="ignore"):  # see `_exp_negative`
        for rows in _tiles(out.shape[0], width):
            gate, up, s = gate_up[rows, :width], gate_up[rows, width:], out[rows]
            _exp_negative(gate, s, activation)
            s += 1
            np.divide(gate, s, out=s)
            s *= up


def gated_backward_(
    gradient: np.ndarray, gate_up: np.ndarray, activation: str, again: np.ndarray | None = None
) -> None:
    """Turn `gate_up` [n, 2 * width] into the gradient for it, from that of `gated`'s output [n, width].

    `again` [n, width], if given, receives that output once more.
    """
    width = gradient.shape[-1]
    sigmoid, act = (np.empty((_tile_rows(width), width), np.float32) for _ in range(2))
    with np.errstate(over="ignore"):
        for rows in _tiles(gradient.shape[0], width):
            gate, up, dh = gate_up[rows, :width], gate_up[rows, width:], gradient[rows]
            s, a = sigmoid[: dh.shape[0]], act[: dh.shape[0]]
            _exp_negative(gate, s, activation)
            s += 1
            np.reciprocal(s, out=s)
            np.multiply(gate, s, out=a)
            if again is not None:
                np.multiply(a, up, out=again[rows])
            # the slope is s + a * (1 - s) * p', where activation(x) = x * sigmoid(p(x))
            if activation == "silu":
                np.subtract(1, s, out=gate)
            else:
                gate *= gate
                gate *= 3 * GELU_CUBE * GELU_SLOPE
                gate += GELU_SLOPE
                gate -= gate * s
            gate *= a
            gate += s
            gate *= up
            gate *= dh
            np.multiply(dh, a, out=up)


def _exp_negative(x: np.ndarray, out: np.ndarray, activation: str) -> None:
    """out = exp(-p(x)): the activation is x / (1 + out). Infinity where the sigmoid is 0: what is wanted."""
    if activation == "silu":
        np.negative(x, out=out)
    else:
        np.multiply(x, x, out=out)
        out *= -GELU_SLOPE * GELU_CUBE
        out -= GELU_SLOPE
        out *= x
    np.exp(out, out=out)


def rms_normalize(x: np.ndarray, out: np.ndarray, eps: float) -> np.ndarray:
    """out = x / rms(x) for `x` [..., width]; returns 1 / rms [..., 1]."""
    inverse = np.einsum("...j,...j->...", x, x)
    inverse /= x.shape[-1]
    inverse += eps
    np.sqrt(inverse, out=inverse)
    np.reciprocal(inverse, out=inverse)
    inverse = inverse[..., None]
    np.multiply(x, inverse, out=out)
    return inverse


def rms_normalize_backward_(gradient: np.ndarray, normalized: np.ndarray, inverse: np.ndarray) -> None:
    """Turn the gradient [..., width] of `rms_normalize`'s output into that of its input, in place."""
    for rows in _tiles(gradient.shape[0], math.prod(gradient.shape[1:])):
        along = np.einsum("...j,...j->...", gradient[rows], normalized[rows])
        along /= gradient.shape[-1]
        gradient[rows] -= normalized[rows] * along[..., None]
        gradient[rows] *= inverse[rows]


def _tile_rows(width: int) -> int:
    return max(1, TILE // width)


def _tiles(count: int, width: int) -> Iterator[slice]:
    """All of `count` rows, so many at a time that they fit the cache."""
    for begin in range(0, count, _tile_rows(width)):
        yield slice(begin, min(count, begin + _tile_rows(width)))
