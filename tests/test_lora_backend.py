"""The contract of the training backends: each implementation has all of it, by the same names and arguments."""

import inspect
from typing import Any

import mlx.core as mx
import pytest
from fixtures_lora import (
    ATTRIBUTES,
    METHODS,
    one_batch,
    records_of,
    tiny_llama,
    training_settings,
    with_adapter,
)

from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.backend import TrainingBackend
from callwright.lora.cpu.path import CpuBackend
from callwright.lora.distributed import DataParallelBackend, ProcessGroup
from callwright.runtime import device


def opened(kind: type) -> Any:
    settings = training_settings()
    model = tiny_llama()
    with_adapter(model, settings)
    if kind is DataParallelBackend:
        return kind(AutogradBackend(model, settings, frozen_blocks(model)), ProcessGroup())
    return kind(model, settings, frozen_blocks(model))


KINDS = [
    AutogradBackend,
    pytest.param(CpuBackend, marks=pytest.mark.skipif(not device.on_cpu(), reason="for the CPU alone")),
    DataParallelBackend,
]


def test_the_contract_has_members():
    assert {"first_trained_block", "width", "dtype", "padded"} <= ATTRIBUTES
    assert {"configure", "loss_and_gradients", "loss", "prefix", "activation_bytes", "close"} <= METHODS


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_is_there_with_the_contracts_arguments(kind):
    made = opened(kind)
    assert isinstance(made, TrainingBackend)
    assert not hasattr(kind, "__getattr__")
    for name in METHODS:
        assert name in vars(kind), f"{kind.__name__} does not have {name} itself"
        expected = list(inspect.signature(getattr(TrainingBackend, name)).parameters.values())
        found = list(inspect.signature(getattr(kind, name)).parameters.values())
        assert [(p.name, p.default) for p in found] == [(p.name, p.default) for p in expected], name
    for name in ATTRIBUTES:
        assert getattr(made, name) is not None
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_members_say_what_they_should(kind):
    made = opened(kind)
    assert (made.first_trained_block, made.width, made.dtype) == (2, 64, mx.float32)
    batch = one_batch(records_of([30, 50]))
    assert made.rows(batch) == (2 * batch.width if made.padded else 80)
    assert bool(made.flops(batch)) == made.counts_flops
    assert made.activation_bytes(batch) > 0
    records = [record.tokens for record in records_of([9, 30, 12])]
    for tokens, hidden in zip(records, made.map(made.prefix, records), strict=True):
        assert hidden.shape == (tokens.size, 64)
        assert mx.array_equal(hidden, made.prefix(tokens))
    begun = made.begin(records[1][:20])
    assert (begun.length, begun.hidden.shape, made.shares) == (20, (20, 64), True)
    assert mx.array_equal(begun.hidden, made.prefix(records[1][:20]))
    assert mx.allclose(made.prefix(records[1], begun), made.prefix(records[1])[20:], rtol=1e-4, atol=1e-5)
    made.close()
