"""Faster attention and activations for float32 inference on a CPU.

MLX computes `exp` there one number at a time (12 to 18 ns each), NumPy with vector instructions (below
1 ns), and MLX multiplies each query head with its keys apart where heads that share keys can be one
matrix product. Most functions below replace those that architectures have by name: mlx-lm's import the first
two, `models.needle` defines the others. They compute the same to float32 rounding, need no gradient, and are
used on the CPU only. `gelu` and `softmax` are called by name, everywhere, and have gradients.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.runtime import device

# Queries of a causal mask that are computed together.
CAUSAL_BLOCK = 128
GELU_CUBE, GELU_ROOT = np.float32(0.044715), np.float32(np.sqrt(2 / np.pi))


@contextlib.contextmanager
def fast_inference(model: nn.Module) -> Iterator[None]:
    """Let `model`'s architecture use the functions below; does nothing off the CPU."""
    module = sys.modules[type(model).__module__]
    replaced = {name: getattr(module, name) for name in REPLACEMENTS if hasattr(module, name)}
    if device.on_cpu():
        for name, plain in replaced.items():
            setattr(module, name, REPLACEMENTS[name](plain))
    try:
        yield
    finally:
        for name, function in replaced.items():
            setattr(module, name, function)


def attention_or(plain: Any) -> Any:
    """mlx-lm's `scaled_dot_product_attention`, faster for float32 without sinks; `plain` computes the rest."""

    def attention(queries, keys, values, cache, scale, mask, sinks=None):  # noqa: ANN001, ANN202
        if sinks is not None or hasattr(cache, "bits") or queries.dtype != mx.float32:
            return plain(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
        return attend(queries, keys, values, scale, mask)

    return attention


def attend(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | str | None) -> mx.array:
    """Softmax attention [batch, heads, length, width] of `queries` over `keys` and `values`.

    The latter are [batch, kv heads, keys, width]. mask: None, "causal", a boolean array (True: seen)
    or one to add, broadcast over the scores [batch, heads, length, keys].
    """
    length, count = queries.shape[2], keys.shape[2]
    if isinstance(mask, str) and length > CAUSAL_BLOCK:  # keys after a block's last query are not looked at
        ends = [min(start + CAUSAL_BLOCK, length) for start in range(0, length, CAUSAL_BLOCK)]
        parts = []
        for start, end in zip([0, *ends], ends, strict=False):
            seen = count - length + end
            block = attend(queries[:, :, start:end], keys[:, :, :seen], values[:, :, :seen], scale, mask)
            parts.append(block)
        return mx.concatenate(parts, axis=2)
    batch, heads, length, width = queries.shape
    kv_heads, count = keys.shape[1:3]
    repeats = heads // kv_heads
    grouped = (queries * scale).reshape(batch, kv_heads, repeats * length, width)
    scores = grouped @ keys.swapaxes(-1, -2)
    if isinstance(mask, str):
        mask = mx.arange(count - length, count)[:, None] >= mx.arange(count)
    if mask is not None:
        # Heads in two axes: those that share keys stand together.
        apart = scores.reshape(batch, kv_heads, repeats, length, count)
        mask = mask.reshape(*[1] * (4 - mask.ndim), *mask.shape)
        shared = mask.shape[1] == 1
        mask = mask[:, :, None] if shared else mask.reshape(-1, kv_heads, repeats, *mask.shape[2:])
        apart = mx.where(mask, apart, mx.finfo(mx.float32).min) if mask.dtype == mx.bool_ else apart + mask
        scores = apart.reshape(scores.shape)
    _softmax_in_place(_numpy(scores))  # the same memory, which nothing else reads
    return (scores @ values).reshape(batch, heads, length, values.shape[-1])


def swiglu_or(plain: Any) -> Any:
    """mlx-lm's `swiglu`, faster for float32; `plain` computes the rest."""

    def swiglu(gate: mx.array, x: mx.array) -> mx.array:
        if gate.dtype != mx.float32:
            return plain(gate, x)
        mx.eval(gate, x)
        gates = np.asarray(gate)
        divisor = np.negative(gates)
        # Overflow to infinity is the right limit: gate / inf = 0.
        with np.errstate(over="ignore"):
            np.exp(divisor, out=divisor)
        divisor += 1
        np.divide(gates, divisor, out=divisor)
        divisor *= np.asarray(x)
        return mx.array(divisor)

    return swiglu


def gated_or(plain: Any) -> Any:
    """`needle.gated`, faster for float32: x times the logistic function of the gate."""

    def gated(x: mx.array, gate: mx.array) -> mx.array:
        if x.dtype != mx.float32 or gate.dtype != mx.float32:
            return plain(x, gate)
        mx.eval(x, gate)
        return mx.array(_logistic_times(np.asarray(x), np.asarray(gate)))

    return gated


def silu_or(plain: Any) -> Any:
    """`needle.silu`, faster for float32: x times its own logistic function."""

    def silu(x: mx.array) -> mx.array:
        if x.dtype != mx.float32:
            return plain(x)
        mx.eval(x)
        return mx.array(_logistic_times(np.asarray(x), np.asarray(x)))

    return silu


def gelu(x: mx.array) -> mx.array:
    """x times the normal distribution's share below it, by the formula with tanh (Hendrycks and Gimpel 2016)."""
    return _cpu_gelu(x) if device.on_cpu() and x.dtype == mx.float32 else nn.gelu_approx(x)


def softmax(scores: mx.array) -> mx.array:
    """The softmax of the last axis."""
    return _cpu_softmax(scores) if device.on_cpu() and scores.dtype == mx.float32 else mx.softmax(scores, axis=-1)


@mx.custom_function
def _cpu_gelu(x: mx.array) -> mx.array:
    values = _numpy(x)
    return mx.array(0.5 * values * (1 + _gelu_tanh(values)))


@_cpu_gelu.vjp
def _(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    values = _numpy(x)
    tanh = _gelu_tanh(values)
    slope = values * values
    slope *= 3 * GELU_CUBE * GELU_ROOT
    slope += GELU_ROOT
    slope *= 1 - tanh * tanh
    slope *= values
    slope += 1 + tanh
    slope *= 0.5
    slope *= _numpy(cotangent)
    return mx.array(slope)


def _gelu_tanh(values: np.ndarray) -> np.ndarray:
    inner = values * values
    inner *= GELU_CUBE * GELU_ROOT
    inner += GELU_ROOT
    inner *= values
    return np.tanh(inner, out=inner)


@mx.custom_function
def _cpu_softmax(scores: mx.array) -> mx.array:
    weights = _numpy(scores).copy()
    _softmax_in_place(weights)
    return mx.array(weights)


@_cpu_softmax.vjp
def _(_: mx.array, cotangent: mx.array, weights: mx.array) -> mx.array:
    return weights * (cotangent - (cotangent * weights).sum(axis=-1, keepdims=True))


def _softmax_in_place(scores: np.ndarray) -> None:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)


def _numpy(x: mx.array) -> np.ndarray:
    mx.eval(x)  # here, not in NumPy's conversion: this lets other threads run meanwhile
    return np.asarray(x)


def _logistic_times(x: np.ndarray, gate: np.ndarray) -> np.ndarray:
    divisor = np.negative(gate)
    with np.errstate(over="ignore"):  # x / inf = 0 is the right limit
        np.exp(divisor, out=divisor)
    divisor += 1
    return np.divide(x, divisor, out=divisor)


def sinkhorn_or(plain: Any) -> Any:
    """`needle.sinkhorn`, faster for float32: 80 operations on a few numbers each, which cost MLX 4 microseconds each.

    The matrices lie side by side in the last axis, so that a sum over rows or columns adds whole vectors.
    """

    def sinkhorn(logits: mx.array, steps: int) -> mx.array:
        if logits.dtype != mx.float32:
            return plain(logits, steps)
        mx.eval(logits)
        n = logits.shape[-1]
        matrix = np.ascontiguousarray(np.asarray(logits).reshape(-1, n, n).transpose(1, 2, 0))
        for axis in (1, 0):
            matrix -= matrix.max(axis, keepdims=True)
            matrix -= np.log(np.exp(matrix).sum(axis, keepdims=True))
        np.exp(matrix, out=matrix)
        for _ in range(steps - 1):
            matrix /= np.add.reduce(matrix, 1, keepdims=True)
            matrix /= np.add.reduce(matrix, 0, keepdims=True)
        return mx.array(np.ascontiguousarray(matrix.transpose(2, 0, 1))).reshape(logits.shape)

    return sinkhorn


REPLACEMENTS = {
    "scaled_dot_product_attention": attention_or,
    "swiglu": swiglu_or,
    "gated": gated_or,
    "silu": silu_or,
    "sinkhorn": sinkhorn_or,
}
