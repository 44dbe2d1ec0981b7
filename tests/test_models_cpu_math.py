"""The fast attention and activation of CPU inference against MLX's own, in float32."""

import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import activations, base, gemma3_text, llama

from callwright.models import cpu_math
from callwright.models.cpu_math import attend, attention_or, fast_inference, swiglu_or
from callwright.runtime import device

BATCH, LENGTH, COUNT, WIDTH = 2, 5, 9, 8
SCALE = WIDTH**-0.5


def normal(*shape: int, seed: int = 0, spread: float = 1.0) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(scale=spread, size=shape).astype(np.float32))


def queries_keys_values(heads: int, kv_heads: int, length: int = LENGTH, value_width: int = WIDTH):
    return (
        normal(BATCH, heads, length, WIDTH, seed=1),
        normal(BATCH, kv_heads, COUNT, WIDTH, seed=2),
        normal(BATCH, kv_heads, COUNT, value_width, seed=3),
    )


def seen(*shape: int) -> mx.array:
    """A random boolean mask in which every query sees at least the first key."""
    mask = np.random.default_rng(4).random(shape) < 0.6
    mask[..., 0] = True
    return mx.array(mask)


def close(one: mx.array, other: mx.array) -> bool:
    return np.allclose(np.array(one), np.array(other), rtol=1e-5, atol=2e-6)


def masks(heads: int) -> dict[str, mx.array | str | None]:
    return {
        "none": None,
        "causal": "causal",
        "boolean for all": seen(LENGTH, COUNT),
        "boolean per row": seen(BATCH, 1, LENGTH, COUNT),
        "boolean per head": seen(BATCH, heads, LENGTH, COUNT),
        "boolean per head for all rows": seen(1, heads, LENGTH, COUNT),
        "boolean per head without a batch axis": seen(heads, LENGTH, COUNT),
        "boolean per key": seen(BATCH, 1, 1, COUNT),
        "added for all": normal(LENGTH, COUNT, seed=5),
        "added per row": normal(BATCH, 1, LENGTH, COUNT, seed=5),
        "added per head": normal(BATCH, heads, LENGTH, COUNT, seed=5),
        "added, with keys that are hidden": mx.where(seen(LENGTH, COUNT), mx.array(0.0), mx.array(-mx.inf)),
    }


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("name", masks(1))
def test_attention_is_mlxs_own_for_every_mask_and_grouping(heads, kv_heads, name):
    queries, keys, values = queries_keys_values(heads, kv_heads)
    mask = masks(heads)[name]
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=SCALE, mask=mask)
    assert close(attend(queries, keys, values, SCALE, mask), expected)


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_a_causal_mask_may_be_computed_in_blocks(block, monkeypatch):
    monkeypatch.setattr(cpu_math, "CAUSAL_BLOCK", block)
    queries, keys, values = queries_keys_values(6, 2)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=SCALE, mask="causal")
    assert close(attend(queries, keys, values, SCALE, "causal"), expected)


def test_one_query_over_cached_keys_and_values_of_another_width():
    queries, keys, values = queries_keys_values(6, 2, length=1, value_width=12)
    for mask in (None, "causal", seen(BATCH, 1, 1, COUNT)):
        found = attend(queries, keys, values, SCALE, mask)
        assert found.shape == (BATCH, 6, 1, 12)
        weights = (queries * SCALE) @ mx.repeat(keys, 3, axis=1).swapaxes(-1, -2)
        if isinstance(mask, mx.array):
            weights = mx.where(mask, weights, -mx.inf)
        assert close(found, mx.softmax(weights, axis=-1) @ mx.repeat(values, 3, axis=1))


def test_scores_of_any_size_stay_finite():
    queries, keys, values = queries_keys_values(2, 2)
    found = attend(queries * 1e4, keys, values, SCALE, "causal")
    expected = mx.fast.scaled_dot_product_attention(queries * 1e4, keys, values, scale=SCALE, mask="causal")
    assert np.isfinite(np.array(found)).all()
    assert close(found, expected)


def test_a_row_that_sees_nothing_is_finite():
    """The padding in front of a short prompt sees no key; a NaN there would spread through the cache."""
    queries, keys, values = queries_keys_values(2, 1)
    mask = mx.concatenate([mx.zeros((BATCH, 1, 2, COUNT), mx.bool_), seen(BATCH, 1, LENGTH - 2, COUNT)], axis=2)
    found = attend(queries, keys, values, SCALE, mask)
    assert np.isfinite(np.array(found)).all()
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=SCALE, mask=mask)
    assert close(found[:, :, 2:], expected[:, :, 2:])


def test_inputs_are_left_as_they_were():
    queries, keys, values = queries_keys_values(2, 1)
    gate, up = normal(3, 7, seed=6), normal(3, 7, seed=7)
    before = [np.array(array) for array in (queries, keys, values, gate, up)]
    attend(queries, keys, values, SCALE, "causal")
    swiglu_or(activations.swiglu)(gate, up)
    for array, copy in zip((queries, keys, values, gate, up), before, strict=True):
        assert np.array_equal(np.array(array), copy)


@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_swiglu_is_silu_of_the_gate_times_the_other(spread):
    gate, up = normal(2, 5, 33, seed=8, spread=spread), normal(2, 5, 33, seed=9)
    assert close(swiglu_or(activations.swiglu)(gate, up), nn.silu(gate) * up)


def test_swiglu_at_the_ends_of_float32():
    gate = mx.array([[-3e38, -1000.0, -88.8, -0.0, 0.0, 88.8, 1000.0, 3e38]])
    found = np.array(swiglu_or(activations.swiglu)(gate, mx.ones(gate.shape)))
    with np.errstate(over="ignore"):
        wide = np.array(gate).astype(np.float64)
        expected = wide / (1 + np.exp(-wide))
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-30)


def test_swiglu_takes_arrays_that_are_not_contiguous():
    gate, up = normal(7, 4, seed=10).T, normal(8, 7, seed=11)[::2]
    assert close(swiglu_or(activations.swiglu)(gate, up), nn.silu(gate) * up)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_other_types_are_left_to_mlx_lm(dtype):
    queries, keys, values = (array.astype(dtype) for array in queries_keys_values(4, 2))
    expected = base.scaled_dot_product_attention(queries, keys, values, None, SCALE, "causal")
    found = attention_or(base.scaled_dot_product_attention)(queries, keys, values, None, SCALE, "causal")
    assert found.dtype == dtype
    assert mx.array_equal(found, expected)
    gate, up = queries[0], queries[1]
    assert mx.array_equal(swiglu_or(activations.swiglu)(gate, up), activations.swiglu(gate, up))


def test_sinks_and_quantized_caches_are_left_to_mlx_lm():
    queries, keys, values = queries_keys_values(2, 2)
    asked = []

    def plain(queries, keys, values, cache, scale, mask, sinks=None):
        asked.append((cache, sinks is not None))
        return queries

    class Quantized:
        bits = 4

    attention = attention_or(plain)
    attention(queries, keys, values, None, SCALE, None, sinks=mx.zeros(2))
    attention(queries, keys, values, (cache := Quantized()), SCALE, None)
    attention(queries, keys, values, cache=None, scale=SCALE, mask=None)
    assert asked == [(None, True), (cache, False)]


@pytest.fixture
def tiny_llama() -> nn.Module:
    mx.random.seed(1)
    return llama.Model(
        llama.ModelArgs(
            model_type="llama", hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=64,
        )
    )  # fmt: skip


@pytest.mark.skipif(not device.on_cpu(), reason="the functions are replaced on the CPU only")
def test_the_model_computes_the_same_and_gets_its_functions_back(tiny_llama):
    before = llama.scaled_dot_product_attention, llama.swiglu
    tokens = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
    expected = tiny_llama(tokens)
    with fast_inference(tiny_llama):
        assert llama.scaled_dot_product_attention is not before[0]
        assert llama.swiglu is not before[1]
        assert gemma3_text.scaled_dot_product_attention is before[0]  # another architecture's is its own
        assert np.allclose(np.array(tiny_llama(tokens)), np.array(expected), rtol=1e-4, atol=1e-5)
    assert (llama.scaled_dot_product_attention, llama.swiglu) == before


def test_the_functions_come_back_after_an_error(tiny_llama):
    before = llama.scaled_dot_product_attention, llama.swiglu
    with pytest.raises(ZeroDivisionError), fast_inference(tiny_llama):
        raise ZeroDivisionError
    assert (llama.scaled_dot_product_attention, llama.swiglu) == before


def test_nothing_is_replaced_off_the_cpu(tiny_llama, monkeypatch):
    monkeypatch.setattr(device, "on_cpu", lambda: False)
    before = llama.scaled_dot_product_attention, llama.swiglu
    with fast_inference(tiny_llama):
        assert (llama.scaled_dot_product_attention, llama.swiglu) == before


def test_a_model_without_such_functions_runs_as_it_is():
    with fast_inference(nn.Linear(2, 2)):
        assert not hasattr(sys.modules["mlx.nn.layers.linear"], "swiglu")
