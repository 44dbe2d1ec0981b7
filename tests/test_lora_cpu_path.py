"""The written-out CPU path against autograd, its plain twin."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from fixtures_lora import one_batch, records_of, tiny_llama, training_settings, with_adapter, worst_error
from fixtures_shapes import MAKE, WINDOW

from callwright.lora import layers
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.backend import backend
from callwright.lora.batches import to_records
from callwright.lora.cpu import head, layout
from callwright.lora.cpu.layout import QUERY_ROWS
from callwright.lora.cpu.path import CpuBackend, supports
from callwright.lora.frozen_prefix import FrozenPrefix
from callwright.models.load import load
from callwright.runtime import device

pytestmark = pytest.mark.skipif(not device.on_cpu(), reason="this path is for the CPU alone")


def both(kind, settings, **changes):
    """(autograd, the written-out path, the adapter) on the same random model."""
    found = []
    for path in (AutogradBackend, CpuBackend):
        model = MAKE[kind](**changes)
        adapter = with_adapter(model, settings)
        assert supports(model, settings)
        found.append(path(model, settings, frozen_blocks(model)))
    return *found, adapter


def compare(plain, fast, adapter, records, cached=False, tolerance=1e-5):
    batch = one_batch(records)
    expected, expected_gradients = plain.loss_and_gradients(adapter, [batch], None)
    prefix = FrozenPrefix(fast, records) if cached else None
    for _ in range(2):  # nothing is left behind in the weights or in the cache
        loss, gradients = fast.loss_and_gradients(adapter, [batch], prefix)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert list(gradients) == list(adapter)
        assert worst_error(gradients, expected_gradients) < tolerance
        assert fast.loss(adapter, [batch], prefix) == pytest.approx(expected, rel=1e-5)
    fast.close()


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("count", [-1, 1])
@pytest.mark.parametrize(
    "lengths",
    [
        [2],
        [3, 2, 17],
        [WINDOW - 1, WINDOW, WINDOW + 1],
        [QUERY_ROWS - 1, QUERY_ROWS, QUERY_ROWS + 1],
        [2 * QUERY_ROWS, 30, 2 * QUERY_ROWS + 1],
    ],
    ids=str,
)
def test_loss_and_every_gradient_are_autograds(kind, lengths, count):
    # With one key, queries and keys have no gradient but rounding, which Qwen 3's norms of them enlarge.
    tolerance = 1e-5 if max(lengths) > 2 else 3e-4
    compare(*both(kind, training_settings({"layers": count})), records_of(lengths), tolerance=tolerance)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": False},
        {"head_dim": 24},
        {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10, "vocab_size": 501},
        {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8},
        {"attention_bias": True, "mlp_bias": True},
    ],
    ids=str,
)
def test_every_shape_of_llamas_attention_and_head_is_computed(changes):
    compare(*both("llama", training_settings({"layers": 2}), **changes), records_of([120, 33]))


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize("changes", [{"num_key_value_heads": 1}, {"tie_word_embeddings": False}], ids=str)
def test_every_shape_of_qwens_attention_and_head_is_computed(kind, changes):
    compare(*both(kind, training_settings({"layers": 2}), **changes), records_of([120, 33]))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 2},
        {"tied": False},
        {"sliding_window_pattern": 1},
        {"sliding_window": 2},
        {"rope_scaling": None, "head_dim": 10},
        {"wrapped": True},
        {"wrapped": True, "tied": False},
    ],
    ids=str,
)
def test_every_shape_of_gemmas_attention_and_head_is_computed(changes):
    compare(*both("gemma", training_settings({"layers": 3}), **changes), records_of([120, 33]))


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(
    "projections",
    [["q_proj"], ["k_proj", "down_proj"], ["v_proj", "up_proj"], ["o_proj"], ["gate_proj"], ["q_proj", "v_proj"]],
    ids=str,
)
def test_any_choice_of_projections_is_trained(kind, projections):
    compare(*both(kind, training_settings({"layers": 2, "projections": projections})), records_of([40, 25]))


@pytest.mark.parametrize("kind", MAKE)
def test_the_prefix_cache_changes_nothing(kind):
    compare(*both(kind, training_settings({"layers": 2})), records_of([120, 33, 8]), cached=True)


@pytest.mark.parametrize("policy", ["all", 2, 3])
@pytest.mark.parametrize("kind", MAKE)
def test_gradients_are_the_same_bits_when_blocks_are_recomputed(kind, policy):
    batch, found = one_batch(records_of([150, 80, 41, 12, 200])), []
    for checkpointing in ("off", policy):
        settings = training_settings({"layers": 4}, gradient_checkpointing=checkpointing)
        model = MAKE[kind]()
        adapter = with_adapter(model, settings)
        fast = backend(model, settings)
        found.append(fast.loss_and_gradients(adapter, [batch], None))
        fast.close()
    (loss, first), (again, second) = found
    assert loss == again
    assert all(mx.array_equal(first[name], second[name]) for name in first)


def test_records_are_computed_in_groups(monkeypatch):
    monkeypatch.setattr(layout, "GROUP_ROWS", 30)
    compare(*both("gemma", training_settings({"layers": 3})), records_of([31, 12, 12, 12, 40, 3]))


@pytest.mark.parametrize("kind", MAKE)
def test_it_can_be_configured_anew_between_steps(kind):
    _, fast, adapter = both(kind, training_settings({"layers": 3}))
    batch = one_batch(records_of([60, 33]))
    loss, first = fast.loss_and_gradients(adapter, [batch], None)
    held = fast.activation_bytes(batch)
    fast.configure("all", 16)
    assert fast.activation_bytes(batch) < held
    again, second = fast.loss_and_gradients(adapter, [batch], None)
    fast.close()
    assert again == pytest.approx(loss, rel=1e-6)
    assert worst_error(second, first) < 1e-6


def test_micro_batches_add_up():
    plain, fast, adapter = both("llama", training_settings({"layers": 2}))
    batches = [one_batch(records_of(lengths)) for lengths in ([30, 12], [55], [9, 9])]
    expected, expected_gradients = plain.loss_and_gradients(adapter, batches, None)
    loss, gradients = fast.loss_and_gradients(adapter, batches, None)
    fast.close()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert worst_error(gradients, expected_gradients) < 1e-5


def test_more_trained_tokens_than_the_loss_chunk_and_more_vocabulary_than_a_tile(monkeypatch):
    monkeypatch.setattr(head, "TILE", 64)
    compare(*both("llama", training_settings({"layers": 2}, loss_chunk=7)), records_of([120, 33]))


def test_the_adapter_is_that_of_the_call_not_of_an_earlier_one():
    plain, fast, adapter = both("llama", training_settings({"layers": 2}))
    batch = one_batch(records_of([30, 12]))
    fast.loss(adapter, [batch], None)
    other = {name: -2 * array for name, array in adapter.items()}
    assert fast.loss(other, [batch], None) == pytest.approx(plain.loss(other, [batch], None), rel=1e-5)
    fast.close()


@pytest.mark.parametrize("kind", MAKE)
def test_two_calls_give_the_same_bits(kind):
    """The second one uses memory again in which larger arrays lay."""
    _, fast, adapter = both(kind, training_settings({"layers": -1}))
    batch, other = one_batch(records_of([150, 80, 41, 12])), one_batch(records_of([200, 190, 21], seed=5))
    loss, first = fast.loss_and_gradients(adapter, [batch], None)
    fast.loss_and_gradients(adapter, [other], None)
    again, second = fast.loss_and_gradients(adapter, [batch], None)
    fast.close()
    assert loss == again
    assert all(mx.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", MAKE)
def test_a_frozen_prefix_is_the_same_bits_on_any_thread_and_autograds(kind):
    plain, fast, _ = both(kind, training_settings({"layers": 2}))
    records = records_of([150, 80, 41, 12])
    alone = [np.array(fast.prefix(record.tokens)) for record in records]
    together = fast.workers.map(lambda record: np.array(fast.prefix(record.tokens)), records)
    fast.close()
    for record, one, other in zip(records, alone, together, strict=True):
        assert np.array_equal(one, other)
        assert one == pytest.approx(np.array(plain.prefix(record.tokens)), rel=1e-4, abs=1e-4)


def test_spans_may_come_in_any_order():
    tokens = np.random.default_rng(0).integers(1, 500, 40).tolist()
    records = to_records([{"id": "a", "input_ids": tokens, "spans": [[30, 35], [5, 9]]}], "training")
    compare(*both("llama", training_settings({"layers": 2})), records)


def test_each_phase_is_announced_when_it_has_ended():
    _, fast, adapter = both("llama", training_settings({"layers": 2}))
    names = []
    fast.loss_and_gradients(adapter, [one_batch(records_of([30, 12]))], None, names.append)
    fast.close()
    assert names == ["frozen_prefix", "forward", "head", "backward"]


def test_the_default_model_is_computed_as_by_autograd(model_folder):
    settings = training_settings({"layers": 1})
    model, _ = load(model_folder)
    adapter = with_adapter(model, settings)
    batch = one_batch(records_of([30, 12]))
    plain = AutogradBackend(model, settings, frozen_blocks(model), verify=False)
    expected, expected_gradients = plain.loss_and_gradients(adapter, [batch], None)
    assert supports(model, settings)
    fast = CpuBackend(model, settings, frozen_blocks(model))
    loss, gradients = fast.loss_and_gradients(adapter, [batch], None)
    fast.close()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert worst_error(gradients, expected_gradients) < 1e-4  # 30 blocks, and logits of 49,152 tokens


# -- what it leaves to autograd --------------------------------------------------------------------


def attached(model, settings):
    layers.attach(model, settings["lora"])
    return model


@pytest.mark.parametrize("kind", MAKE)
def test_it_takes_a_plain_float32_model(kind):
    settings = training_settings()
    assert supports(attached(MAKE[kind](), settings), settings)
    computed = backend(attached(MAKE[kind](), settings), settings)
    assert isinstance(computed, CpuBackend)
    computed.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.1},
        {"kind": "dora"},
        {"projections": ["q_proj", "embed_tokens"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", MAKE)
def test_it_refuses_adapters_it_does_not_compute(kind, changes):
    settings = training_settings(changes)
    model = attached(MAKE[kind](), settings)
    assert not supports(model, settings)
    assert isinstance(backend(model, settings), AutogradBackend)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_traditional": True},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 64},
    ],
    ids=str,
)
def test_it_refuses_llamas_it_does_not_compute(changes):
    settings = training_settings()
    assert not supports(attached(tiny_llama(**changes), settings), settings)


@pytest.mark.parametrize("kind", MAKE)
def test_it_refuses_other_weights_and_devices(kind, monkeypatch):
    settings = training_settings()
    quantized = MAKE[kind](hidden_size=64, intermediate_size=96)
    nn.quantize(quantized, group_size=32, bits=4)
    assert not supports(attached(quantized, settings), settings)
    half = MAKE[kind]()
    half.set_dtype(mx.bfloat16)
    assert not supports(attached(half, settings), settings)
    model = attached(MAKE[kind](), settings)
    monkeypatch.setattr(device, "on_cpu", lambda: False)
    assert not supports(model, settings)
