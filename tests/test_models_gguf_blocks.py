"""Every type of block that the gguf package decodes, as MLX's groups, against its own decoder."""

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.models.gguf import blocks

KINDS = sorted(
    kind.name
    for kind in GGMLQuantizationType
    if kind in gguf.quants._type_traits and kind.name not in blocks.PLAIN  # all that `dequantize` knows
)
# Where each type keeps its float16 scales: random bits there might be infinite.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
    "Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64], "IQ4_NL": [0], "IQ4_XS": [0],
    "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0],
}  # fmt: skip


def random_rows(kind: GGMLQuantizationType, rows: int = 6, seed: int = 0) -> np.ndarray:
    """Rows of two or eight blocks of random bits, with scales as a model has them."""
    draw = np.random.default_rng(seed)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = draw.integers(0, 256, (rows * (512 // block), size), dtype=np.uint8)
    for at in SCALES.get(kind.name, []):
        raw[:, at : at + 2] = draw.normal(0, 0.01, (len(raw), 1)).astype(np.float16).view(np.uint8)
    if kind.name == "MXFP4":
        raw[:, 0] = draw.integers(115, 125, len(raw))
    if kind.name == "IQ1_M":  # its scale's 16 bits are the high four of each of four words
        raw[:, 49::2] = raw[:, 49::2] & 15
        raw[:, 53] |= 0x20
    if kind.name == "NVFP4":
        raw[:, :4] = draw.integers(8, 60, (len(raw), 4))
    return raw.reshape(rows, -1)


def through_mlx(groups: blocks.Groups, bits: int, dtype: mx.Dtype) -> np.ndarray:
    scale, bias = (mx.array(values).astype(dtype).astype(mx.float32) for values in (groups.scale, groups.bias))
    packed = mx.array(blocks.pack(groups.q, bits))
    return np.array(mx.dequantize(packed, scale, bias, group_size=blocks.GROUP, bits=bits))


@pytest.mark.parametrize("kind", sorted(blocks.FORMATS))
def test_formats_that_fit_are_the_very_numbers(kind):
    raw = random_rows(GGMLQuantizationType[kind])
    exact = gguf.quants.dequantize(raw, GGMLQuantizationType[kind])
    assert np.isfinite(exact).all()
    groups = blocks.unpack(raw, GGMLQuantizationType[kind])
    bits = blocks.FORMATS[kind][0]
    assert groups.q.max() < 2**bits
    assert np.array_equal(through_mlx(groups, bits, mx.float32), exact)
    half = through_mlx(groups, bits, mx.float16)
    assert np.array_equal(half, blocks.restore(groups, "F16"))
    if kind in blocks.PRODUCTS:  # rounded to 11 bits, each of scale and minimum
        step = np.repeat(np.abs(groups.scale) * 2**bits + np.abs(groups.bias), blocks.GROUP, axis=1)
        assert np.abs(half - exact).max() > 0
        assert (np.abs(half - exact) <= step * 2**-11 + 1e-7).all()
    else:
        assert np.array_equal(half, exact)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in blocks.FORMATS])
def test_the_others_become_eight_bits_within_half_a_step(kind):
    exact = gguf.quants.dequantize(random_rows(GGMLQuantizationType[kind]), GGMLQuantizationType[kind])
    assert np.isfinite(exact).all()
    groups = blocks.quantize(exact, "F16")
    found = through_mlx(groups, 8, mx.float16)
    spread = np.ptp(exact.reshape(-1, blocks.GROUP), axis=1)
    largest = np.abs(exact).reshape(-1, blocks.GROUP).max(axis=1)
    error = np.abs(found - exact).reshape(-1, blocks.GROUP).max(axis=1)
    # Half a step, and what 16 bits round away of the least value and, 255 times, of the step.
    assert (error <= spread / 255 * 0.5 + (spread + 2 * largest) * 2**-10 + 1e-6).all()
    loss = blocks.Loss()
    loss.add(exact, found)
    assert loss.worst == error.max()
    assert loss.relative == pytest.approx(np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()), rel=1e-4)


def test_every_type_that_the_package_decodes_was_tried():
    assert len(KINDS) >= 20
    assert set(blocks.FORMATS) <= set(KINDS)


@pytest.mark.parametrize("bits", [2, 4, 5, 8])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_packing_is_mlxs(bits, seed):
    q = np.random.default_rng(seed).integers(0, 2**bits, (3, 64), dtype=np.uint8)
    one, zero = mx.ones((3, 2)), mx.zeros((3, 2))
    assert np.array_equal(np.array(mx.dequantize(mx.array(blocks.pack(q, bits)), one, zero, 32, bits)), q)


def test_equal_weights_and_zeros_are_kept():
    exact = np.concatenate([np.full((1, 64), 0.25), np.zeros((1, 64))]).astype(np.float32)
    assert np.array_equal(blocks.restore(blocks.quantize(exact, "F16"), "F16"), exact)
