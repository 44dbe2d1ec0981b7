"""Faster attention and activation for float32 inference on a CPU.

MLX computes `exp` there one number at a time (12 to 18 ns each), NumPy with vector instructions (below
1 ns), and MLX multiplies each query head with its keys apart where heads that share keys can be one
matrix product. The functions below replace the two that mlx-lm's architectures import by name; they
compute the same to float32 rounding, need no gradient, and are used on the CPU only.
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


@contextlib.contextmanager
def fast_inference(model: nn.Module) -> Iterator[None]:
    """Let `model`'s architecture use the functions below; does nothing off the CPU."""
    module = sys.modules[type(model).__module__]
    replaced = {
        name: getattr(module, name) for name in ("scaled_dot_product_attention", "swiglu") if hasattr(module, name)
    }
    if device.on_cpu():
        if plain := replaced.get("scaled_dot_product_attention"):
            module.scaled_dot_product_attention = attention_or(plain)
        if plain := replaced.get("swiglu"):
            module.swiglu = swiglu_or(plain)
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
    mx.eval(scores)  # here, not in NumPy's conversion: this lets other threads run meanwhile
    weights = np.asarray(scores)  # the same memory, which nothing else reads
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
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
