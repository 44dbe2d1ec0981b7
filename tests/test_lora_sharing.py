"""Beginnings that records share: found by their tokens, put into batches together, and computed once.

The plain twin of each computation is that of the same records without beginnings.
"""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from fixtures_lists import rows_of
from fixtures_lora import (
    VOCABULARY,
    Interrupted,
    interrupt,
    make_llama,
    tiny_llama,
    training_settings,
    with_adapter,
    worst_error,
)
from fixtures_shapes import MAKE
from mlx.utils import tree_unflatten

from callwright.lora import batches, layers, loop, random_state
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.batches import Batch, Record, epoch_batches, families_of, in_order, to_records
from callwright.lora.cpu import layout
from callwright.lora.cpu.layout import Layout
from callwright.lora.cpu.path import CpuBackend
from callwright.lora.distributed import DataParallelBackend, ProcessGroup
from callwright.lora.frozen_prefix import FrozenPrefix, pieces
from callwright.lora.memory import footprint
from callwright.lora.sharing import with_beginnings, without_beginnings
from callwright.runtime import device
from callwright.runtime.files import read_jsonl

on_cpu = pytest.mark.skipif(not device.on_cpu(), reason="this path is for the CPU alone")


def records_of(lists, batch_size=8, **kwargs) -> list[Record]:
    [found] = with_beginnings([to_records(rows_of(lists, **kwargs), "training")], batch_size)
    return found


def one_batch(records) -> Batch:
    [batch] = epoch_batches(records, len(records), seed=1, epoch=0)
    return batch


def alone(batch: Batch) -> Batch:
    """The plain twin: the same records, none of which shares anything."""
    return replace(batch, records=without_beginnings(batch.records))


def lengths(records) -> list[int]:
    return [0 if record.beginning is None else record.beginning.length for record in records]


# -- how beginnings are found ----------------------------------------------------------------------


def test_beginnings_are_the_tokens_that_records_have_in_common():
    records = records_of([(40, [9, 12, 15]), (60, [10, 11]), (30, [20])])
    assert lengths(records) == [40, 40, 40, 60, 60, 0]
    assert len({id(record.beginning) for record in records[:3]}) == 1
    assert records[0].beginning is not records[3].beginning
    for record in records[:5]:
        assert np.array_equal(record.tokens[: record.beginning.length], record.beginning.tokens)


def saved_by(records: list[Record], groups: list[list[int]]) -> int:
    """Tokens that disjoint groups of records save when each is one batch's."""
    total = 0
    for group in groups:
        heads = [records[index].tokens[: records[index].positions.min()] for index in group]
        common = next(
            (n for n in itertools.count() if any(n >= head.size or head[n] != heads[0][n] for head in heads)), 0
        )
        saved = (len(group) - 1) * common
        total += saved if saved >= 0.1 * sum(records[index].length for index in group) else 0
    return total


def partitions(items: list[int]):
    """All ways to divide some items into groups."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for place in range(len(rest)):
            yield [*rest[:place], [items[0], *rest[place]], *rest[place + 1 :]]


@pytest.mark.parametrize("seed", range(12))
def test_no_other_choice_of_beginnings_saves_more(seed):
    """Records of two letters, so that they have much in common at every depth; all ways to group them are tried."""
    generator = np.random.default_rng(seed)
    rows = [
        {
            "id": str(n),
            "input_ids": generator.integers(1, 3, int(generator.integers(6, 14))).tolist(),
            "spans": [[5, 6]],
        }
        for n in range(7)
    ]
    records = to_records(rows, "training")
    [found] = with_beginnings([records], batch_size=99)
    groups = [places for beginning, places in families_of(found) if beginning is not None]
    assert saved_by(records, groups) == max(saved_by(records, groups) for groups in partitions(list(range(7))))
    assert sum((len(group) - 1) * found[group[0]].beginning.length for group in groups) == saved_by(records, groups)


def test_a_beginning_ends_before_the_first_trained_token_is_predicted():
    tokens = [5] * 30
    rows = [{"id": str(n), "input_ids": [*tokens, n], "spans": [[20 + n, 25]]} for n in range(3)]
    [found] = with_beginnings([to_records(rows, "training")], 8)
    assert lengths(found) == [19, 19, 19]
    assert min(record.positions.min() for record in found) == 19


def test_a_little_in_common_is_not_worth_it():
    """Six tokens of a template before 90 others save 6 % of two records, and nothing is shared."""
    assert lengths(records_of([(6, [90, 91])])) == [0, 0]
    assert lengths(records_of([(30, [70, 71])])) == [30, 30]


def test_beginnings_are_those_of_both_sets_together():
    rows = rows_of([(40, [9, 12, 15, 10])])
    train, valid = with_beginnings([to_records(rows[:2], "training"), to_records(rows[2:], "validation")], 8)
    assert {id(record.beginning) for record in train} == {id(record.beginning) for record in valid}
    assert lengths(train + valid) == [40] * 4


def test_a_batch_of_two_of_different_lists_shares_nothing_but_one_list_alone_does():
    """With two lists, a batch of two holds one record of each."""
    assert lengths(records_of([(40, [9, 12]), (40, [9, 12])], batch_size=2)) == [0] * 4
    assert lengths(records_of([(40, [9, 12, 13, 14])], batch_size=2)) == [40] * 4


# -- which go into a batch -------------------------------------------------------------------------

SHAPES = {
    "fours": [(50, [10, 12, 14, 16])] * 24,
    "uneven": [(50, [10] * count) for count in (1, 2, 3, 3, 4, 5, 7, 8, 9, 17, 30)],
    "one large": [(50, [10] * 60), *[(30, [20])] * 9],
    "one alone": [(50, [10] * 60)],
    "none": [(30, [40])] * 41,
}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 13])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_epoch_has_every_record_once_in_full_batches_of_several_lists(shape, size):
    records = records_of(SHAPES[shape], size)
    key = {record.id: record.id.split("/")[0] for record in records}
    for epoch in range(3):
        found = epoch_batches(records, size, 7, epoch)
        assert sorted(index for batch in found for index in batch.indices) == list(range(len(records)))
        assert sum(len(batch.records) != size for batch in found) == (len(records) % size != 0)
        if shape in ("fours", "uneven", "none") and size > 2:  # in twos nothing is shared, and nothing mixed
            lists = [{key[record.id] for record in batch.records} for batch in found if len(batch.records) == size]
            assert min(map(len, lists)) >= 2
        for batch in found:  # those of one beginning stand side by side
            runs = [id(record.beginning) for record in batch.records if record.beginning is not None]
            assert len(list(itertools.groupby(runs))) == len(set(runs))


def test_four_requests_a_list_in_batches_of_eight_are_two_whole_lists():
    records = records_of(SHAPES["fours"], 8)
    for batch in epoch_batches(records, 8, 3, 0):
        assert [len(places) for _, places in families_of(batch.records)] == [4, 4]
        assert batch.shared == 2 * 3 * 50


def test_what_does_not_belong_to_the_largest_list_is_spread_over_its_batches():
    records = records_of(SHAPES["one large"], 8)
    found = epoch_batches(records, 8, 3, 0)
    assert sum(any(record.beginning is None for record in batch.records) for batch in found) == 9 == len(found)


@pytest.mark.parametrize("shape", ["none", "one alone"])
def test_where_nothing_is_to_be_mixed_batches_are_those_of_no_sharing(shape):
    records = records_of(SHAPES[shape], 4)
    for epoch in range(2):
        plain = epoch_batches(without_beginnings(records), 4, 7, epoch)
        assert [b.indices for b in epoch_batches(records, 4, 7, epoch)] == [b.indices for b in plain]


def test_order_and_composition_depend_on_seed_and_epoch_alone():
    records = records_of(SHAPES["uneven"], 8)

    def order(seed, epoch):
        return [batch.indices for batch in epoch_batches(records, 8, seed, epoch)]

    assert order(1, 2) == order(1, 2)
    assert len({str(order(*at)) for at in ((1, 2), (1, 3), (2, 2))}) == 3
    whole = itertools.islice(batches.stream(records, 8, seed=4), 7, 40)
    resumed = itertools.islice(batches.stream(records, 8, seed=4, start=7), 33)
    assert [(e, b.indices) for e, b in resumed] == [(e, b.indices) for e, b in whole]


@pytest.mark.parametrize("limit", [-1, 3])
def test_validation_is_of_the_same_records_put_together(limit):
    records = records_of(SHAPES["uneven"], 4)
    plain = in_order(without_beginnings(records), 4, limit)
    found = in_order(records, 4, limit)
    assert sorted(i for b in found for i in b.indices) == sorted(i for b in plain for i in b.indices)
    assert all(len(batch.records) <= 4 for batch in found)
    if limit == -1:
        assert sum(batch.shared for batch in found) > sum(replace(b, records=[records[i] for i in b.indices]).shared
                                                          for b in plain)  # fmt: skip


def test_the_parts_of_a_batch_are_its_records_and_count_its_positions():
    records = records_of([(40, [9, 12, 15]), (60, [10, 11]), (30, [20]), (31, [40])])
    batch = one_batch(records)
    parts = batch.parts()
    assert sorted(index for part in parts for index in part.indices) == sorted(batch.indices)
    assert sorted((part.skipped, len(part.records), part.width) for part in parts) == [
        (0, 2, batch.width), (40, 3, 16), (60, 2, 16)
    ]  # fmt: skip
    assert batch.shared == 2 * 40 + 60
    assert batch.padded == 2 * batch.width + 40 + 3 * 16 + 60 + 2 * 16
    for part in parts:
        targets = np.array(part.tokens).reshape(-1)[np.array(part.positions) + 1]
        ends = [row * part.width + record.length - part.skipped for row, record in enumerate(part.records)]
        inside = ~np.isin(np.array(part.positions) + 1, ends)
        assert np.array_equal(targets[inside], np.array(part.targets)[inside])
    assert alone(batch).parts() == [alone(batch)]


# -- the CPU path's rows ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("window", [None, 1, 7, 45, 130])
@pytest.mark.parametrize("last", [False, True])
def test_a_branchs_queries_see_its_beginning_and_itself(window, last, workers):
    records = records_of([(40, [9, 120, 15]), (30, [20]), (60, [10, 11])])
    rows = Layout(records, workers, 1.0, 0.0)
    assert rows.count == layout.rows_of(records) == 40 + 9 + 120 + 15 + 50 + 60 + 10 + 11
    # [rows] to which record each belongs, or for a beginning to all of its records
    owners = (
        [{0, 1, 2}] * 40 + [{0}] * 9 + [{1}] * 120 + [{2}] * 15 + [{3}] * 50 + [{4, 5}] * 60 + [{4}] * 10 + [{5}] * 11
    )
    places = np.concatenate([np.arange(40), *(40 + np.arange(n) for n in (9, 120, 15)), np.arange(50), np.arange(60),
                             *(60 + np.arange(n) for n in (10, 11))])  # fmt: skip
    assert np.array_equal(rows.places, places)
    where = rows.trained if last else np.arange(rows.count)
    seen = np.zeros((where.size, rows.count), bool)
    for worker in range(workers):
        for chunk in rows.chunks(worker, last, window):
            mask = np.zeros((chunk.positions.size, chunk.seen), np.float32)
            if chunk.mask.size:
                mask[:, -chunk.mask.shape[1] :] += chunk.mask
            for keys, columns in chunk.columns:
                assert not seen[chunk.queries, keys].any()
                seen[chunk.queries, keys] = mask[:, columns] == 0
            span = rows.keys(worker, last)
            assert all(span.start <= keys.start and keys.stop <= span.stop for keys in chunk.keys)
            assert np.array_equal(places[where[chunk.queries]], chunk.positions)
    for query, row in enumerate(where):
        for key in range(rows.count):
            distance = places[row] - places[key]
            expected = owners[row] <= owners[key] and 0 <= distance < (window or 10**6)
            assert seen[query, key] == expected, (query, key)


def test_groups_keep_families_whole_and_hold_all_records(monkeypatch):
    monkeypatch.setattr(layout, "GROUP_ROWS", 60)
    records = records_of([(40, [9, 12, 15]), (30, [20]), (30, [21]), (60, [10, 11])])
    scattered = [0, 3, 1, 5, 4, 2, 6]
    groups = layout.group([records[index] for index in scattered], scattered)
    assert [indices for _, indices in groups] == [[0, 1, 2], [3, 5, 6], [4]]
    for members, indices in groups:
        assert members == [records[index] for index in indices]


# -- loss and gradients ----------------------------------------------------------------------------

LISTS = [(40, [9, 30, 15]), (31, [20]), (60, [10, 11]), (33, [25])]


def opened(kind, path, settings, **changes):
    model = MAKE[kind](**changes)
    adapter = with_adapter(model, settings)
    return path(model, settings, frozen_blocks(model)), adapter


PATHS = [AutogradBackend, pytest.param(CpuBackend, marks=on_cpu)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("count", [-1, 2])
@pytest.mark.parametrize("cached", [False, True], ids=["", "cached"])
def test_loss_and_every_gradient_are_those_of_separate_records(kind, path, count, cached):
    """Gemma's window of 24 tokens ends within beginnings and branches."""
    settings = training_settings({"layers": count})
    backend, adapter = opened(kind, path, settings)
    records = records_of(LISTS)
    batch = one_batch(records)
    assert batch.shared == 2 * 40 + 60
    expected, gradients = backend.loss_and_gradients(adapter, [alone(batch)], None)
    prefix = FrozenPrefix(backend, records) if cached and count != -1 else None
    for _ in range(2):
        loss, found = backend.loss_and_gradients(adapter, [batch], prefix)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert list(found) == list(adapter)
        assert worst_error(found, gradients) < 1e-5
        assert backend.loss(adapter, [batch], prefix) == pytest.approx(expected, rel=1e-5)
    backend.close()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("policy", ["all", 2])
def test_gradient_checkpointing_computes_the_same(kind, path, policy):
    """The CPU path to the bit; by autograd, MLX adds up in another order."""
    found = []
    for checkpointing in ("off", policy):
        settings = training_settings({"layers": 3}, gradient_checkpointing=checkpointing)
        backend, adapter = opened(kind, path, settings)
        found.append(backend.loss_and_gradients(adapter, [one_batch(records_of(LISTS))], None))
        backend.close()
    (loss, first), (again, second) = found
    assert loss == again
    assert worst_error(second, first) < (1e-5 if path is AutogradBackend else 1e-30)


@pytest.mark.parametrize(
    "lora",
    [
        {"kind": "dora"},
        {"rslora": True, "projections": ["q_proj", "v_proj"]},
        {"projections": ["k_proj", "embed_tokens"]},
        {"kind": "dora", "projections": ["v_proj", "embed_tokens"]},
        {"projections": ["down_proj", "lm_head"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("policy", ["off", "all"])
def test_every_kind_of_adapter_gets_the_gradients_of_separate_records(lora, policy):
    settings = training_settings({"layers": 2, **lora}, gradient_checkpointing=policy)
    backend, adapter = opened("llama", AutogradBackend, settings, tie_word_embeddings="lm_head" not in str(lora))
    batch = one_batch(records_of(LISTS))
    expected, gradients = backend.loss_and_gradients(adapter, [alone(batch)], None)
    loss, found = backend.loss_and_gradients(adapter, [batch], None)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert worst_error(found, gradients) < 1e-5


def test_dropout_draws_the_same_masks_when_blocks_are_recomputed():
    found = []
    for checkpointing in ("off", "all"):
        settings = training_settings({"layers": 3, "dropout": 0.3}, gradient_checkpointing=checkpointing)
        backend, adapter = opened("llama", AutogradBackend, settings)
        mx.random.seed(5)
        found.append((*backend.loss_and_gradients(adapter, [one_batch(records_of(LISTS))], None), random_state.get()))
    (loss, first, state), (again, second, state2) = found
    assert (loss, state) == (again, state2)
    assert worst_error(second, first) < 1e-5
    backend, adapter = opened("llama", AutogradBackend, training_settings({"layers": 3, "dropout": 0.3}))
    plain = backend.loss(adapter, [one_batch(records_of(LISTS))], None)
    assert abs(plain - loss) > 1e-3 * loss, "it dropped something out"


@pytest.mark.parametrize("path", PATHS)
def test_parts_of_a_family_add_up(path):
    backend, adapter = opened("llama", path, training_settings({"layers": 2}))
    batch = one_batch(records_of([(40, [9, 30, 15, 12, 20])]))
    expected, gradients = backend.loss_and_gradients(adapter, [alone(batch)], None)
    for size in (1, 2, 3):
        loss, found = backend.loss_and_gradients(adapter, batches.split(batch, size), None)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert worst_error(found, gradients) < 1e-5
    backend.close()


def worker_of(rank, size):
    """Workers as seen by one that has no connection to others; sums are its own."""
    workers = ProcessGroup(SimpleNamespace(rank=lambda: rank, size=lambda: size))
    workers.total, workers.total_arrays = lambda value: [value], lambda gradients: gradients
    return workers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [2, 3])
def test_the_workers_sums_are_the_whole_batchs(path, size):
    backend, adapter = opened("llama", path, training_settings({"layers": 2}))
    records = records_of([(40, [9, 30, 15, 12]), (60, [10, 11, 12, 13]), (31, [20])])
    whole = epoch_batches(records, 9, 1, 0)
    expected, gradients = backend.loss_and_gradients(adapter, [alone(batch) for batch in whole], None)
    parts = [
        DataParallelBackend(backend, worker_of(rank, size)).loss_and_gradients(adapter, whole, None)
        for rank in range(size)
    ]
    assert sum(loss for loss, _ in parts) == pytest.approx(expected, rel=1e-5)
    summed = {name: sum(found[name] for _, found in parts) for name in gradients}
    assert worst_error(summed, gradients) < 1e-5
    backend.close()


def test_a_list_stays_with_one_worker_where_that_is_even():
    records = records_of([(200, [9, 10, 11, 12])] * 2)
    [batch] = epoch_batches(records, 8, 1, 0)
    shares = [worker_of(rank, 2).share([batch]) for rank in range(2)]
    assert [len({id(r.beginning) for r in share[0].records}) for share in shares] == [1, 1]
    assert sum(part.shared for share in shares for part in share) == batch.shared
    [lonely] = epoch_batches(records_of([(40, [90, 91, 92, 93])]), 4, 1, 0)
    assert [len(worker_of(rank, 2).share([lonely])[0].records) for rank in range(2)] == [2, 2], "else it is divided"


# -- what a branch cannot see ----------------------------------------------------------------------


def hidden_of(backend, records):
    """The CPU path's outputs of the last block at the trained rows, by record."""
    batch = one_batch(records)
    [(placed, inputs)] = list(backend._groups([batch], None, lambda name: None))
    out, _ = backend.passes.forward(placed, inputs, backend.tables.of(placed.longest), keep=False)
    ends = {segment.record: segment.start + segment.tokens.size for segment in placed.segments}
    [(_, indices)] = layout.group(batch.records, batch.indices)
    return {
        indices[record]: out["x"][(placed.trained < end) & (placed.trained >= end - 30)].copy()
        for record, end in ends.items()
        if record is not None
    }


def changed(records, index):
    """The records with other tokens in the branch of one of them."""
    found = list(records)
    tokens = found[index].tokens.copy()
    tokens[found[index].beginning.length :] = (tokens[found[index].beginning.length :] * 3 + 1) % VOCABULARY
    found[index] = replace(found[index], tokens=tokens)
    return found


@on_cpu
@pytest.mark.parametrize("kind", MAKE)
def test_changing_a_branch_leaves_its_siblings_hidden_states_bit_equal_on_the_cpu_path(kind):
    backend, adapter = opened(kind, CpuBackend, training_settings({"layers": -1}))
    backend._set(adapter)
    records = records_of([(40, [31, 30, 33])])
    before, after = hidden_of(backend, records), hidden_of(backend, changed(records, 1))
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[2], after[2])
    assert not np.array_equal(before[1], after[1])
    backend.close()


@pytest.mark.parametrize("kind", MAKE)
def test_changing_a_branch_leaves_its_siblings_logits_bit_equal_by_autograd(kind):
    backend, adapter = opened(kind, AutogradBackend, training_settings({"layers": -1}))
    backend.model.update(tree_unflatten(list(adapter.items())))
    records = records_of([(40, [31, 30, 33])])

    def logits(records):
        [part] = Batch([0, 1, 2], records, 80).parts()
        states, steps = backend.enter(part)
        _, h = backend.blocks.run_flow(states, steps, 0, len(backend.blocks))
        return [backend.blocks.head(row) for row in h]

    before, after = logits(records), logits(changed(records, 1))
    assert mx.array_equal(before[0], after[0]).item()
    assert mx.array_equal(before[2], after[2]).item()
    assert not mx.array_equal(before[1], after[1]).item()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", MAKE)
def test_a_beginning_of_one_record_is_the_record_bit_for_bit(kind, path):
    """K = 1: a record whose siblings stand in other batches is computed as if it had none."""
    backend, adapter = opened(kind, path, training_settings({"layers": 2}))
    batch = one_batch(records_of([(40, [9]), (60, [10]), (31, [20])]))
    single = records_of([(40, [9, 30]), (60, [10, 20])])
    lonely = Batch([0, 1], [single[0], single[2]], 80)
    assert all(record.beginning is not None for record in lonely.records)
    for shared, plain in ((batch, alone(batch)), (lonely, alone(lonely))):
        loss, gradients = backend.loss_and_gradients(adapter, [shared], None)
        expected, others = backend.loss_and_gradients(adapter, [plain], None)
        assert loss == expected
        assert all(mx.array_equal(gradients[name], others[name]).item() for name in others)
    backend.close()


def test_a_model_whose_blocks_keep_another_state_is_not_shared():
    class Counting(nn.Module):
        """A block that adds how many tokens it has seen: what follows a beginning sees that it was cut off."""

        def __init__(self, block):
            super().__init__()
            self.block = block
            self.self_attn, self.use_sliding = block.self_attn, block.use_sliding

        def __call__(self, x, mask=None, cache=None):
            return self.block(x, mask, cache) * (1 + 0.1 * mx.arange(x.shape[1])[:, None])

    model = tiny_llama()
    model.model.layers = [Counting(block) for block in model.model.layers]
    assert AutogradBackend(tiny_llama(), training_settings(), 4).shares
    assert not AutogradBackend(model, training_settings(), 4).shares


# -- the prefix cache and memory -------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_the_prefix_cache_keeps_a_beginning_once_and_each_branch_by_itself(kind, path):
    backend, _ = opened(kind, path, training_settings({"layers": 2}))
    records = records_of([(40, [9, 30, 15]), (31, [20])])
    plain = FrozenPrefix(backend, without_beginnings(records))
    cache = FrozenPrefix(backend, records)
    for index in (1, 0, 3, 2):
        assert np.array(cache.get(index)) == pytest.approx(np.array(plain.get(index)), rel=1e-4, abs=1e-4)
    assert sum(array.shape[0] for array in cache.known.values()) == 40 + 9 + 30 + 15 + 51
    assert sum(piece.length for piece in pieces(records)) == 40 + 9 + 30 + 15 + 51
    other = FrozenPrefix(backend, records)  # its branches in another order, some of them missing
    for index in (2, 0):
        assert mx.array_equal(other.get(index), cache.get(index)).item(), "whichever siblings were asked for before"
    backend.close()


@on_cpu
@pytest.mark.parametrize("checkpointing", ["off", "all"])
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_the_cpu_paths_predicted_peak_is_that_of_mlx(kind, checkpointing):
    backend, adapter = opened(kind, CpuBackend, training_settings({"layers": 3}, gradient_checkpointing=checkpointing))
    batch = one_batch(records_of([(340, [20, 30, 40])]))
    mx.clear_cache()
    predicted, before = backend.activation_bytes(batch), mx.get_active_memory()
    mx.reset_peak_memory()
    backend.loss_and_gradients(adapter, [batch], None)
    measured = mx.get_peak_memory() - before
    assert predicted == pytest.approx(measured, rel=0.1)
    assert predicted < 0.8 * backend.activation_bytes(alone(batch))
    assert backend.rows(batch) == 340 + 20 + 30 + 40
    backend.close()


@pytest.mark.parametrize("policy", ["off", 2, "all"])
@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_autograds_predicted_bytes_are_those_that_mlx_counts(kind, policy):
    settings = training_settings({"layers": 3}, gradient_checkpointing=policy)
    backend, adapter = opened(kind, AutogradBackend, settings)
    batch = one_batch(records_of([(240, [60, 70, 80])]))
    [part] = batch.parts()
    mx.synchronize()
    mx.clear_cache()
    found, before = {}, mx.get_active_memory()

    def phase(name):
        found[name] = mx.get_peak_memory() - before
        found["kept"] = found.get("kept", mx.get_active_memory() - before)
        mx.reset_peak_memory()

    mx.reset_peak_memory()
    backend.loss_and_gradients(adapter, [batch], None, phase)
    predicted = footprint.step_bytes(backend, part)
    hidden = 4 * 64 * (240 + 3 * part.width)
    assert predicted["kept"] == pytest.approx(found["kept"], abs=2 * hidden, rel=0.05)
    assert 0.7 < max(predicted.values()) / max(found.values()) < 1.4
    assert backend.activation_bytes(batch) == max(predicted.values()) < backend.activation_bytes(alone(batch))
    assert backend.rows(batch) == 240 + 3 * part.width


# -- in a run --------------------------------------------------------------------------------------

TRAIN, VALID = rows_of([(40, [9, 30, 15, 12])] * 5 + [(25, [20])] * 3), rows_of([(40, [9, 11])] * 2, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def train(folder, tmp_path):
    """(summary, losses, the adapter's bytes) of a run in `tmp_path`/`name`."""

    def run(name, train_rows=TRAIN, valid_rows=VALID, **changes):
        at = tmp_path / name
        settings = training_settings(**{"batch_size": 8, **changes})
        summary = loop.train(
            folder, train_rows, valid_rows, settings, at / "state", at / "adapter", "a", at / "history.jsonl"
        )
        rows = [row for row in read_jsonl(at / "history.jsonl") if "loss" in row]
        return summary, [(row["event"], row["loss"]) for row in rows], (at / "adapter" / layers.WEIGHTS).read_bytes()

    return run


BACKENDS = pytest.mark.parametrize(
    "lora", [{}, {"kind": "dora"}, {"dropout": 0.1}], ids=["cpu path", "autograd", "autograd with dropout"]
)


@BACKENDS
@pytest.mark.parametrize("cache", ["off", "on"])
def test_a_run_cut_off_in_the_middle_of_a_list_goes_on_to_the_same_bytes(train, monkeypatch, lora, cache):
    changes = {"lora": lora, "prefix_cache": cache, "iterations": 14, "snapshot_every": 3, "batch_size": 3}
    whole = train("whole", **changes)
    assert whole[0]["shared_share"] > 0.15
    interrupt(monkeypatch, 2, 7, 11)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train("cut", **changes)
    again = train("cut", **changes)
    assert again[1:] == whole[1:]


@BACKENDS
def test_one_request_a_list_trains_as_without_sharing_bit_for_bit(train, lora):
    rows, valid = (rows_of([(40, [9 + n]) for n in range(9)], seed=seed) for seed in (0, 1))
    found = [train(share, rows, valid, lora=lora, share_prefix=share, iterations=6)[1:] for share in ("auto", "off")]
    assert found[0] == found[1]


@pytest.mark.parametrize("lora", [{}, {"kind": "dora"}], ids=["cpu path", "autograd"])
def test_hundreds_of_steps_give_the_validation_loss_of_no_sharing(train, monkeypatch, lora):
    """The same batches in both runs: what is computed together differs, not what is learned from."""
    changes = {"lora": lora, "iterations": 300, "validate_every": 60, "eps": 1e-5, "learning_rate": 0.003}
    shared = train("shared", **changes)
    cut = loop.batches.epoch_batches
    [known] = with_beginnings([to_records(TRAIN, "training")], 8)

    def same(records, size, seed, epoch):
        return [replace(b, records=[records[i] for i in b.indices]) for b in cut(known, size, seed, epoch)]

    monkeypatch.setattr(loop.batches, "epoch_batches", same)
    plain = train("plain", **changes, share_prefix="off")
    assert plain[0]["shared_share"] == 0 < 0.3 < shared[0]["shared_share"]
    for key in ("tokens", "trained_tokens", "iterations"):
        assert plain[0][key] == shared[0][key]
    for (event, loss), (_, expected) in zip(shared[1], plain[1], strict=True):
        if event == "validation":
            assert loss == pytest.approx(expected, rel=1e-3)
    assert shared[0]["final_loss"] < 0.5 * shared[0]["initial_loss"], "it has learned"


def test_the_memory_plan_looks_at_the_batches_that_are_computed(train):
    shared, _, _ = train("shared", iterations=2)
    plain, _, _ = train("plain", iterations=2, share_prefix="off")
    steps = [
        next(row for row in summary["plan"]["rows"] if row["what"].startswith("step")) for summary in (shared, plain)
    ]
    assert steps[0]["predicted_gb"] < 0.8 * steps[1]["predicted_gb"]
    assert steps[0]["predicted_gb"] == pytest.approx(steps[0]["measured_gb"], rel=0.5)
