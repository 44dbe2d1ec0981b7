"""Rows, parts and chunks of records that are computed together; the memory that a step borrows."""

import numpy as np
import pytest
from fixtures_lora import records_of

from callwright.lora.cpu import layout
from callwright.lora.cpu.layout import QUERY_ROWS, Layout, group
from callwright.lora.cpu.storage import BufferPool, Scratch


def test_groups_hold_all_records_in_order_and_are_closed_when_they_have_enough_rows(monkeypatch):
    monkeypatch.setattr(layout, "GROUP_ROWS", 20)
    records = records_of([9, 11, 30, 4, 4])
    groups = group(records, [7, 3, 5, 1, 2])
    assert [indices for _, indices in groups] == [[7, 3], [5], [1, 2]]
    assert [record for members, _ in groups for record in members] == records


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[2], [300, 20], [100, 100, 100]], ids=str)
def test_the_workers_parts_are_all_rows_and_of_about_the_same_work(lengths, workers):
    rows = Layout(records_of(lengths), workers, row_cost=1000.0, key_cost=1.0)
    for parts, count in ((rows.row_parts, rows.count), (rows.trained_parts, rows.trained.size)):
        assert np.concatenate([np.arange(count)[part] for part in parts]).tolist() == list(range(count))
    work = [np.sum(1000 + rows.places[part]) for part in rows.row_parts]
    if rows.count > 2:
        assert max(work) - min(work) < 3 * (1000 + max(lengths))


def test_the_trained_rows_predict_their_targets_whatever_the_order_of_the_spans():
    records = records_of([40, 33])
    rows = Layout(records, 2, 1.0, 0.0)
    expected = [
        (start + position, record.tokens[position + 1])
        for start, record in zip((0, 40), records, strict=True)
        for position in np.sort(record.positions)
    ]
    assert list(zip(rows.trained.tolist(), rows.targets.tolist(), strict=True)) == expected


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("window", [None, 1, 5, 120, 1000])
@pytest.mark.parametrize("last", [False, True])
def test_each_query_sees_the_keys_before_it_within_the_window(window, last, workers):
    records = records_of([3, 2 * QUERY_ROWS + 7, 50])
    rows = Layout(records, workers, 1.0, 0.0)
    where = rows.trained if last else np.arange(rows.count)
    seen = np.zeros((where.size, rows.count), bool)
    for worker in range(workers):
        for chunk in rows.chunks(worker, last, window):
            mask = np.zeros((chunk.positions.size, chunk.seen), np.float32)
            if chunk.mask.size:
                mask[:, -chunk.mask.shape[1] :] += chunk.mask
            assert chunk.positions.size <= QUERY_ROWS
            assert not seen[chunk.queries].any()
            for keys, columns in chunk.columns:
                seen[chunk.queries, keys] = mask[:, columns] == 0
            assert rows.places[where[chunk.queries]].tolist() == chunk.positions.tolist()
            span = rows.keys(worker, last)
            assert span.start <= chunk.keys[0].start
            assert chunk.keys[-1].stop <= span.stop
    record = np.repeat(np.arange(3), [record.length for record in records])
    distance = where[:, None] - np.arange(rows.count)
    expected = (record[where][:, None] == record) & (distance >= 0) & (distance < (window or 10**6))
    assert np.array_equal(seen, expected)


def test_a_pool_lends_memory_again_and_replaces_what_is_too_small():
    pool = BufferPool()
    loan = pool.take("x", {"a": (3, 4), "b": (5,)})
    assert {name: array.shape for name, array in loan.items()} == {"a": (3, 4), "b": (5,)}
    loan["a"][:], loan["b"][:] = 1, 2
    assert loan.flat.tolist() == [1] * 12 + [2] * 5
    pool.give(loan, None)
    smaller = pool.take("x", {"c": (2, 2)})
    assert smaller.flat is loan.flat
    other = pool.take("x", {"c": (2, 2)})
    assert other.flat.size == 4, "the first is in use"
    pool.give(smaller, other)
    larger = pool.take("x", {"d": (20,)})
    assert [flat.size for flat in pool.free["x"]] == [4], "the largest that was too small is gone"
    assert pool.take("y", {"d": (1,)}).flat.size == 1, "another kind has its own"
    assert larger.flat.size == 20


def test_scratch_is_the_same_memory_by_name():
    scratch = Scratch()
    scratch.get("a", 2, 3)[:] = 5
    assert scratch.get("a", 3, 2).tolist() == [[5, 5]] * 3
    assert scratch.get("a", 4).tolist() == [5] * 4
    assert scratch.get("b", 1).tolist() == [0]
    assert scratch.get("a", 9).shape == (9,)
