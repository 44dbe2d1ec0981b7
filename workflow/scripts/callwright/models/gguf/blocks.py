"""GGUF's blocks as MLX's affine groups: w = scale * q + bias for 32 weights in a row, q of a few bits.

| blocks | groups | difference |
|---|---|---|
| Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, TQ1_0, TQ2_0, MXFP4 | 4, 5, 8, 8, 2, 2 and 5 bits | none: the very numbers |
| Q4_K, Q5_K, IQ4_XS | 4, 5 and 8 bits | a group's scale is a product, which a 16-bit number rounds |
| all others (Q6_K and Q3_K, with groups of 16, …) | 8 bits | rounded to the nearest of 256 steps of a group's range |

How much is rounded away is measured as it happens. Bits of the blocks of the first two lines that hold grids are not
unpacked here: `gguf.dequantize` gives their weights, and q is found from these and the block's scale.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from callwright.models.safetensors_stream import decode, encode

GROUP = 32
PLAIN = ("F32", "F16", "BF16")


@dataclass
class Groups:
    """Rows in affine groups: q [rows, columns] uint8; scale and bias [rows, columns / 32] float32, not yet rounded."""

    q: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


@dataclass
class Loss:
    """What rounding lost: sums over weights, so that tensors add up."""

    squares: float = 0.0  # of the weights
    error: float = 0.0  # of the differences
    worst: float = 0.0  # the largest difference

    def add(self, exact: np.ndarray, found: np.ndarray) -> None:
        """Count the weights `exact` that became `found`."""
        difference = found - exact
        self.squares += float(np.vdot(exact, exact))
        self.error += float(np.vdot(difference, difference))
        self.worst = max(self.worst, float(np.abs(difference).max(initial=0)))

    @property
    def relative(self) -> float:
        """The differences' root mean square as a share of the weights'."""
        return (self.error / self.squares) ** 0.5 if self.squares else 0.0


def weights(raw: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The bytes `raw` [rows, row_bytes] as weights [rows, columns] float32."""
    if kind.name in PLAIN:
        return decode(raw.view({"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[kind.name]), kind.name)
    return dequantize(raw, kind)


# -- block formats that fit MLX's groups ------------------------------------------------------------

Unpack = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _half(raw: np.ndarray, at: int) -> np.ndarray:
    """The float16 at byte `at` of each block, as float32 [blocks, 1]."""
    return raw[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(raw: np.ndarray) -> np.ndarray:
    """Low halves of the bytes, then the high ones: [blocks, n] -> [blocks, 2 n]."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _fifth_bits(raw: np.ndarray) -> np.ndarray:
    """32 bits in 4 bytes, lowest first, as 0 or 16: [blocks, 32]."""
    return np.unpackbits(raw, axis=1, bitorder="little") << 4


def _q4_0(raw: np.ndarray):
    d = _half(raw, 0)
    return _nibbles(raw[:, 2:]), d, -8 * d


def _q4_1(raw: np.ndarray):
    return _nibbles(raw[:, 4:]), _half(raw, 0), _half(raw, 2)


def _q5_0(raw: np.ndarray):
    d = _half(raw, 0)
    return _nibbles(raw[:, 6:]) | _fifth_bits(raw[:, 2:6]), d, -16 * d


def _q5_1(raw: np.ndarray):
    return _nibbles(raw[:, 8:]) | _fifth_bits(raw[:, 4:8]), _half(raw, 0), _half(raw, 2)


def _q8_0(raw: np.ndarray):
    d = _half(raw, 0)
    return raw[:, 2:] ^ 128, d, -128 * d  # from two's complement to an offset of 128


def _k_scales(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minima of a K block's eight groups of 32 [blocks, 8]: 6 bits each, times the block's d and dmin."""
    low, middle, high = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scale = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=1)
    least = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=1)
    return _half(raw, 0) * scale, -_half(raw, 2) * least


def _k_nibbles(raw: np.ndarray) -> np.ndarray:
    """[blocks, 128] bytes as [blocks, 8, 32]: 32 bytes hold two groups, one in their low halves, one in the high."""
    pairs = raw.reshape(-1, 4, 1, GROUP)
    return np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, GROUP)


def _q4_k(raw: np.ndarray):
    return _k_nibbles(raw[:, 16:]), *_k_scales(raw)


def _q5_k(raw: np.ndarray):
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (raw[:, None, 16:48] >> shifts & 1) << 4  # bit i of the 32 bytes belongs to group i
    return _k_nibbles(raw[:, 48:]) | fifth, *_k_scales(raw)


def _grid(kind: str, scales: Callable[[np.ndarray], np.ndarray], offset: int) -> Unpack:
    """Blocks whose weights are whole multiples, from -`offset` on, of a group's `scales` [blocks, groups]."""

    def unpack(raw: np.ndarray):
        scale = scales(raw)
        groups = dequantize(raw, GGMLQuantizationType[kind]).reshape(len(raw), scale.shape[1], -1)
        steps = np.divide(groups, scale[:, :, None], out=np.zeros_like(groups), where=scale[:, :, None] != 0)
        return np.rint(steps + offset).astype(np.uint8), scale, -offset * scale

    return unpack


def _iq4_xs_scales(raw: np.ndarray) -> np.ndarray:
    """Six bits a group, less 32: two in a 16-bit number behind d, four in the bytes behind that."""
    high = raw[:, 2:4].copy().view(np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    low = np.stack([raw[:, 4:8] & 15, raw[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    return _half(raw, 0) * ((low | high << 4).astype(np.float32) - 32)


def _mxfp4_scales(raw: np.ndarray) -> np.ndarray:
    """A power of two for the block; the smallest step of its 4-bit floats is half of it."""
    return np.ldexp(np.float32(0.5), raw[:, :1].astype(np.int32) - 127)


# Block format -> (bits of its groups, how it is unpacked to q, scale and bias).
FORMATS: dict[str, tuple[int, Unpack]] = {
    "Q4_0": (4, _q4_0),
    "Q4_1": (4, _q4_1),
    "Q5_0": (5, _q5_0),
    "Q5_1": (5, _q5_1),
    "Q8_0": (8, _q8_0),
    "Q4_K": (4, _q4_k),
    "Q5_K": (5, _q5_k),
    "IQ4_NL": (8, _grid("IQ4_NL", lambda raw: _half(raw, 0), 128)),
    "IQ4_XS": (8, _grid("IQ4_XS", _iq4_xs_scales, 128)),
    "TQ1_0": (2, _grid("TQ1_0", lambda raw: np.repeat(_half(raw, 52), 8, axis=1), 1)),
    "TQ2_0": (2, _grid("TQ2_0", lambda raw: np.repeat(_half(raw, 64), 8, axis=1), 1)),
    "MXFP4": (5, _grid("MXFP4", _mxfp4_scales, 12)),
}
# Of those, the ones whose scales are products, which 16 bits do not hold.
PRODUCTS = ("Q4_K", "Q5_K", "IQ4_XS")


def unpack(raw: np.ndarray, kind: GGMLQuantizationType) -> Groups:
    """Rows of a format of `FORMATS`, `raw` [rows, row_bytes], in affine groups."""
    rows = len(raw)
    q, scale, bias = FORMATS[kind.name][1](raw.reshape(-1, GGML_QUANT_SIZES[kind][1]))
    return Groups(q.reshape(rows, -1), scale.reshape(rows, -1), bias.reshape(rows, -1))


def quantize(exact: np.ndarray, dtype: str) -> Groups:
    """Weights [rows, columns] to 8 bits: 255 steps from each group's least to its largest, as `dtype` holds these."""
    groups = exact.reshape(len(exact), -1, GROUP)
    low, high = groups.min(axis=2), groups.max(axis=2)
    bias = decode(encode(low, dtype), dtype)
    scale = decode(encode((high - bias) / 255, dtype), dtype)
    steps = groups - bias[:, :, None]
    np.divide(steps, scale[:, :, None], out=steps, where=scale[:, :, None] != 0)
    q = np.clip(np.rint(steps, out=steps), 0, 255, out=steps).astype(np.uint8)
    return Groups(q.reshape(exact.shape), scale, bias)


def restore(groups: Groups, dtype: str) -> np.ndarray:
    """The weights [rows, columns] float32 that `groups` stand for once `dtype` has rounded scale and bias."""
    scale, bias = (decode(encode(values, dtype), dtype)[:, :, None] for values in (groups.scale, groups.bias))
    values = groups.q.reshape(*groups.scale.shape, GROUP) * scale
    values += bias
    return values.reshape(groups.q.shape)


def pack(q: np.ndarray, bits: int) -> np.ndarray:
    """q [rows, columns] uint8 as MLX packs it, [rows, columns * bits / 32] uint32: a stream of bits, lowest first."""
    if bits == 8:
        packed = q
    elif bits in (2, 4):
        packed = q[:, 0 :: 8 // bits].copy()
        for place in range(1, 8 // bits):
            packed |= q[:, place :: 8 // bits] << (place * bits)
    elif bits == 5:  # eight values in five bytes
        v = [q[:, place::8] for place in range(8)]
        packed = np.empty((len(q), q.shape[1] // 8, 5), np.uint8)
        packed[..., 0] = v[0] | v[1] << 5
        packed[..., 1] = v[1] >> 3 | v[2] << 2 | v[3] << 7
        packed[..., 2] = v[3] >> 1 | v[4] << 4
        packed[..., 3] = v[4] >> 4 | v[5] << 1 | v[6] << 6
        packed[..., 4] = v[6] >> 2 | v[7] << 3
    else:
        raise ValueError(f"{bits} bits")
    return np.ascontiguousarray(packed.reshape(len(q), -1)).view(np.uint32)
