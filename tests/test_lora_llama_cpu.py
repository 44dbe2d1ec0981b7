"""The written-out CPU path against autograd, its plain twin."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from test_lora_blocks import (
    one_batch,
    records_of,
    tiny_gemma,
    tiny_llama,
    training_settings,
    with_adapter,
    worst_error,
)

from callsmith.lora import layers, loop
from callsmith.lora.autograd import Autograd, frozen_blocks
from callsmith.lora.batches import to_records
from callsmith.lora.llama_cpu import QUERY_ROWS, LlamaCPU, supports
from callsmith.lora.trunk import Trunk
from callsmith.models.load import load
from callsmith.runtime import device

pytestmark = pytest.mark.skipif(not device.on_cpu(), reason="this path is for the CPU alone")


def both(settings, **changes):
    """(autograd, the written-out path, the adapter) on the same random model."""
    found = []
    for kind in (Autograd, LlamaCPU):
        model = tiny_llama(**changes)
        adapter = with_adapter(model, settings)
        assert supports(model, settings)
        found.append(kind(model, settings, frozen_blocks(model)))
    return *found, adapter


def compare(plain, fast, adapter, records, cached=False, tolerance=1e-4):
    batch = one_batch(records)
    expected, expected_gradients = plain.loss_and_gradients(adapter, [batch], None)
    trunk = Trunk(fast.trunk, records, fast.width, fast.dtype) if cached else None
    for _ in range(2):  # nothing is left behind in the weights or in the cache
        loss, gradients = fast.loss_and_gradients(adapter, [batch], trunk)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert list(gradients) == list(adapter)
        assert worst_error(gradients, expected_gradients) < tolerance
        assert fast.loss(adapter, [batch], trunk) == pytest.approx(expected, rel=1e-5)
    fast.close()


@pytest.mark.parametrize("count", [-1, 1])
@pytest.mark.parametrize(
    "lengths",
    [
        [2],
        [3, 2, 17],
        [QUERY_ROWS - 1, QUERY_ROWS, QUERY_ROWS + 1],
        [2 * QUERY_ROWS, 30, 2 * QUERY_ROWS + 1],
    ],
    ids=str,
)
def test_loss_and_every_gradient_are_autograds(lengths, count):
    compare(*both(training_settings({"layers": count})), records_of(lengths))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": False},
        {"head_dim": 24},
        {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10, "vocab_size": 501},
        {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    ],
    ids=str,
)
def test_every_shape_of_attention_and_head_is_computed(changes):
    compare(*both(training_settings({"layers": 2}), **changes), records_of([120, 33]))


@pytest.mark.parametrize(
    "projections", [["q_proj"], ["k_proj", "down_proj"], ["v_proj", "up_proj"], ["o_proj"]], ids=str
)
def test_any_choice_of_projections_is_trained(projections):
    compare(*both(training_settings({"projections": projections})), records_of([40, 25]))


def test_the_trunk_cache_changes_nothing():
    compare(*both(training_settings({"layers": 2})), records_of([120, 33, 8]), cached=True)


def test_micro_batches_add_up():
    plain, fast, adapter = both(training_settings({"layers": 2}))
    batches = [one_batch(records_of(lengths)) for lengths in ([30, 12], [55], [9, 9])]
    expected, expected_gradients = plain.loss_and_gradients(adapter, batches, None)
    loss, gradients = fast.loss_and_gradients(adapter, batches, None)
    fast.close()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert worst_error(gradients, expected_gradients) < 1e-4


def test_the_adapter_is_that_of_the_call_not_of_an_earlier_one():
    plain, fast, adapter = both(training_settings({"layers": 2}))
    batch = one_batch(records_of([30, 12]))
    fast.loss(adapter, [batch], None)
    other = {name: -2 * array for name, array in adapter.items()}
    assert fast.loss(other, [batch], None) == pytest.approx(plain.loss(other, [batch], None), rel=1e-5)
    fast.close()


def test_two_calls_give_the_same_bits():
    _, fast, adapter = both(training_settings({"layers": -1}))
    batch = one_batch(records_of([150, 80, 41, 12]))
    (loss, first), (again, second) = (fast.loss_and_gradients(adapter, [batch], None) for _ in range(2))
    fast.close()
    assert loss == again
    assert all(mx.array_equal(first[name], second[name]) for name in first)


def test_spans_may_come_in_any_order():
    tokens = np.random.default_rng(0).integers(1, 500, 40).tolist()
    records = to_records([{"id": "a", "input_ids": tokens, "spans": [[30, 35], [5, 9]]}], "training")
    compare(*both(training_settings({"layers": 2})), records)


def test_the_default_model_is_computed_as_by_autograd(model_folder):
    settings = training_settings({"layers": 1})
    model, _ = load(model_folder)
    adapter = with_adapter(model, settings)
    batch = one_batch(records_of([30, 12]))
    plain = Autograd(model, settings, frozen_blocks(model))
    expected, expected_gradients = plain.loss_and_gradients(adapter, [batch], None)
    assert supports(model, settings)
    fast = LlamaCPU(model, settings, frozen_blocks(model))
    loss, gradients = fast.loss_and_gradients(adapter, [batch], None)
    fast.close()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert worst_error(gradients, expected_gradients) < 1e-3  # 30 blocks, and logits of 49,152 tokens


# -- what it leaves to autograd --------------------------------------------------------------------


def attached(model, settings):
    layers.attach(model, settings["lora"])
    return model


def test_it_takes_a_plain_float32_llama():
    settings = training_settings()
    assert supports(attached(tiny_llama(), settings), settings)
    computed = loop.arithmetic(attached(tiny_llama(), settings), settings)
    assert isinstance(computed, LlamaCPU)
    computed.close()


@pytest.mark.parametrize("changes", [{"recompute": "all"}, {"recompute": 2}, {"lora": {"dropout": 0.1}}], ids=str)
def test_it_refuses_settings_it_does_not_compute(changes):
    settings = training_settings(**changes)
    model = attached(tiny_llama(), settings)
    assert not supports(model, settings)
    assert isinstance(loop.arithmetic(model, settings), Autograd)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"rope_traditional": True},
        {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8},
    ],
    ids=str,
)
def test_it_refuses_llamas_it_does_not_compute(changes):
    settings = training_settings()
    assert not supports(attached(tiny_llama(**changes), settings), settings)


def test_it_refuses_other_weights_architectures_and_devices(tmp_path, monkeypatch):
    settings = training_settings()
    quantized = tiny_llama()
    nn.quantize(quantized, group_size=32, bits=4)
    assert not supports(attached(quantized, settings), settings)
    half = tiny_llama()
    half.set_dtype(mx.bfloat16)
    assert not supports(attached(half, settings), settings)
    assert not supports(attached(tiny_gemma(tmp_path), settings), settings)
    model = attached(tiny_llama(), settings)
    monkeypatch.setattr(device, "on_cpu", lambda: False)
    assert not supports(model, settings)
