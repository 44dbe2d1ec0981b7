"""The predicted memory and operations of a step on the CPU against what a step takes."""

import gc
from collections import Counter

import mlx.core as mx
import pytest
from fixtures_lora import one_batch, records_of, training_settings, with_adapter
from fixtures_shapes import MAKE

from callwright.lora.autograd import frozen_blocks
from callwright.lora.batches import epoch_batches, neighbours
from callwright.lora.cpu import attention, head, projection, sgemm
from callwright.lora.cpu.path import CpuBackend
from callwright.runtime import device

pytestmark = pytest.mark.skipif(not device.on_cpu(), reason="this path is for the CPU alone")


def opened(kind, lora, shape=None, **changes):
    settings = training_settings(lora, **changes)
    model = MAKE[kind](**(shape or {}))
    adapter = with_adapter(model, settings)
    gc.collect()  # what other tests left would be freed while memory is measured
    return CpuBackend(model, settings, frozen_blocks(model)), adapter


@pytest.mark.parametrize("checkpointing", ["off", "all", 2])
@pytest.mark.parametrize("lengths", [[12], [300, 40], [200, 150, 300]], ids=str)
@pytest.mark.parametrize("kind", MAKE)
def test_the_predicted_peak_is_that_of_mlx(kind, lengths, checkpointing):
    path, adapter = opened(kind, {"layers": 3}, gradient_checkpointing=checkpointing)
    batch = one_batch(records_of(lengths))
    mx.clear_cache()  # MLX lends buffers of up to two pages more from there
    predicted, before = path.activation_bytes(batch), mx.get_active_memory()
    mx.reset_peak_memory()
    path.loss_and_gradients(adapter, [batch], None)
    measured = mx.get_peak_memory() - before
    path.close()
    assert predicted == pytest.approx(measured, rel=0.1)


def test_a_step_after_a_smaller_one_takes_no_more_and_closing_frees_it():
    path, adapter = opened("llama", {"layers": 3})
    small, large = (one_batch(records_of(lengths)) for lengths in ([150, 100], [300, 290]))
    predicted, before = path.activation_bytes(large), mx.get_active_memory()
    mx.reset_peak_memory()
    for batch in (small, large, small, large):
        path.loss_and_gradients(adapter, [batch], None)
    assert mx.get_peak_memory() - before == pytest.approx(predicted, rel=0.1)
    path.close()
    assert mx.get_active_memory() == before


def test_no_batch_of_an_epoch_takes_more_than_the_one_that_the_plan_looks_at():
    path, _ = opened("llama", {"layers": 3})
    records = records_of([20, 90, 200, 260, 350, 370, 372, 380, 410, 460, 500])
    largest = max(neighbours(records, 2), key=path.rows)
    assert [record.length for record in largest.records] == [380, 410], "together, and not one by one like the longest"
    found = [path.activation_bytes(batch) for epoch in range(3) for batch in epoch_batches(records, 2, 7, epoch)]
    assert max(found) <= path.activation_bytes(largest)
    path.close()


def test_recomputing_every_block_holds_less_the_more_blocks_there_are():
    batch, found = one_batch(records_of([300, 290])), {}
    for checkpointing in ("off", 2, "all"):
        path, _ = opened("llama", {"layers": 4}, gradient_checkpointing=checkpointing)
        found[checkpointing] = path.activation_bytes(batch)
        path.close()
    assert found["all"] < found[2] < found["off"]


@pytest.fixture
def counted(monkeypatch):
    """The operations of all products, by phase."""
    totals = Counter()
    real = sgemm.product

    def product(a, b, out, add=False):
        totals["now"] += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        real(a, b, out, add)

    for module in (attention, head, projection):
        monkeypatch.setattr(module, "product", product)

    def phase(name):
        totals[name] += totals.pop("now")

    return totals, phase


@pytest.mark.parametrize(
    "lora",
    [
        {"layers": 3},
        {"layers": 3, "projections": ["q_proj", "v_proj"]},
        {"layers": 2, "projections": ["down_proj"]},
        {"layers": 2, "projections": ["v_proj"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", MAKE)
def test_a_step_multiplies_little_more_than_it_has_to(kind, lora, counted):
    """Beyond: scores twice, a chunk's masked scores, zeros beside joint projections' adapters, keys beside values."""
    totals, phase = counted
    shape = {"sliding_window": 150} if kind == "gemma" else None  # for chunks of queries to be much shorter
    path, adapter = opened(kind, {**lora, "rank": 2}, shape)
    path.workers.count = 1  # one worker after the other: the count is kept without a lock
    path.scratch, path.head.parts = path.scratch[:1], [slice(0, path.head.weight.shape[0])]
    batch = one_batch(records_of([200, 190]))
    needed = path.flops(batch)
    path.loss_and_gradients(adapter, [batch], None, phase)
    path.close()
    assert needed.keys() == totals.keys()
    assert totals["head"] == needed["head"]
    for name in ("frozen_prefix", "forward", "backward"):
        assert needed[name] <= totals[name] < 2 * needed[name]


def test_operations_by_hand():
    """One block of Llama, one record of 3 tokens of which 1 is trained (from row 1), adapters of rank 2 on q."""
    path, _ = opened("llama", {"layers": 1, "projections": ["q_proj"], "rank": 2})
    [record] = records_of([3])
    assert record.positions.tolist() == [0, 1]
    found = path.flops(one_batch([record]))
    path.close()
    d, hidden, kv, vocabulary, frozen = 64, 96, 32, 500, 3
    block = d * d + 2 * d * kv + d * d + 3 * d * hidden
    assert found["frozen_prefix"] == frozen * 2 * (3 * block + 2 * d * 6)
    last = 3 * 2 * d * kv + 2 * (2 * d * d + 3 * d * hidden) + 2 * 2 * (d + d)
    assert found["forward"] == 2 * (last + 2 * d * 3)
    assert found["head"] == 2 * 2 * 2 * d * vocabulary
    back = 2 * (3 * d * hidden + d * d) + 2 * (2 * d + 2 * d + 2 * d - 2 * d + 2 * d)
    assert found["backward"] == 2 * (back + 2 * d * 3)
