"""Batches: each record once an epoch, no padding trained, an order that depends on seed and epoch alone."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from fixtures_lora import records_of, token_rows

from callwright.lora.batches import bucket_widths, epoch_batches, in_order, padding_share, stream, subset, to_records
from callwright.runtime.errors import CallwrightError

LENGTHS = np.random.default_rng(5).integers(4, 300, 53).tolist()


@pytest.fixture(scope="module")
def records():
    return records_of(LENGTHS)


@pytest.mark.parametrize("size", [1, 2, 4, 53, 60])
def test_an_epoch_has_every_record_once_and_at_most_one_smaller_batch(records, size):
    """mlx-lm drops the last rows of an epoch when they do not fill a batch."""
    batches = epoch_batches(records, size, seed=0, epoch=3)
    assert sorted(index for batch in batches for index in batch.indices) == list(range(53))
    assert all(batch.records == [records[index] for index in batch.indices] for batch in batches)
    assert sum(len(batch.records) != size for batch in batches) == (53 % size != 0)


def test_padding_is_never_trained_and_targets_are_the_tokens_of_the_spans():
    """Spans are half-open. mlx-lm's mask includes the position at a row's length: it trains one pad token a row."""
    rows = token_rows(LENGTHS)
    for batch in epoch_batches(to_records(rows, "training"), 4, seed=0, epoch=0):
        tokens, positions, targets = (np.array(a) for a in (batch.tokens, batch.positions, batch.targets))
        assert tokens.shape == (len(batch.records), batch.width)
        expected = []
        for row, index in enumerate(batch.indices):
            ids, spans = rows[index]["input_ids"], rows[index]["spans"]
            assert tokens[row, : len(ids)].tolist() == ids
            assert not tokens[row, len(ids) :].any()
            expected += [(row, place, ids[place]) for begin, end in spans for place in range(begin, end)]
        rows_, columns = np.divmod(positions, batch.width)
        assert list(zip(rows_, columns + 1, targets, strict=True)) == expected
        assert batch.trained == len(expected)
        assert batch.processed == sum(LENGTHS[index] for index in batch.indices)


def test_the_same_seed_gives_the_same_order_and_another_epoch_or_seed_another(records):
    def order(seed, epoch):
        return [batch.indices for batch in epoch_batches(records, 2, seed, epoch)]

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
    assert order(1, 2) != order(2, 1)
    # other neighbours too, not the same batches in another order
    assert {frozenset(pair) for pair in order(1, 2)} != {frozenset(pair) for pair in order(1, 3)}


@pytest.mark.parametrize("start", [0, 1, 26, 27, 28, 100])
def test_a_stream_from_batch_n_is_the_stream_without_its_first_n(records, start):
    whole = itertools.islice(stream(records, 2, seed=4), start, start + 60)
    resumed = itertools.islice(stream(records, 2, seed=4, start=start), 60)
    assert [(e, b.indices) for e, b in resumed] == [(e, b.indices) for e, b in whole]


def test_a_stream_goes_on_epoch_after_epoch(records):
    found = list(itertools.islice(stream(records, 2, seed=4), 54))
    assert Counter(epoch for epoch, _ in found) == {0: 27, 1: 27}
    assert Counter(index for _, batch in found for index in batch.indices) == dict.fromkeys(range(53), 2)


def test_lengths_that_are_alike_go_together(records):
    """mlx-lm's cached data set gives the number of a record's keys for its length, so that its sort does nothing."""
    batches = epoch_batches(records, 4, seed=0, epoch=0)
    assert len({batch.width for batch in batches}) <= 16
    assert all(batch.width % 16 == 0 for batch in batches)
    alone = [max(batch.records, key=lambda r: r.length).length for batch in batches]
    assert all(0 <= batch.width - longest < 64 for batch, longest in zip(batches, alone, strict=True))
    assert padding_share(batches) < 0.2
    shuffled = np.random.default_rng(0).permutation(LENGTHS)
    blind = sum(4 * max(shuffled[i : i + 4]) for i in range(0, 53, 4))
    assert padding_share(batches) < 0.5 * (1 - sum(LENGTHS) / blind)


@pytest.fixture(scope="module")
def xlam_lengths(root):
    """Of 378 records of xLAM (curated, SmolLM2's tokenizer, hermes format), 177 to 987 tokens."""
    return json.loads((root / "tests" / "fixtures" / "xlam_lengths.json").read_text())


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_at_most_five_percent_of_an_epoch_of_xlam_is_padding(xlam_lengths, size):
    records = records_of(xlam_lengths)
    for batches in [*(epoch_batches(records, size, 42, epoch) for epoch in range(3)), in_order(records, size)]:
        assert padding_share(batches) <= 0.05
        assert len({batch.width for batch in batches}) <= 24


def test_few_widths_do_where_lengths_are_alike():
    assert bucket_widths([100] * 50 + [101] * 50) == [112]
    assert len(bucket_widths(list(range(500, 600)))) <= 4
    assert len(bucket_widths(list(range(1, 2000)), most=5)) == 5


def test_padding_share_is_that_of_the_padded_arrays(records):
    batches = epoch_batches(records, 4, seed=0, epoch=0)
    total = sum(np.array(batch.tokens).size for batch in batches)
    assert padding_share(batches) == pytest.approx(1 - sum(LENGTHS) / total)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_widths_pad_as_little_as_any_choice_of_so_many_does(most):
    lengths = [3, 17, 18, 40, 41, 64, 65, 70, 129, 200]
    candidates = sorted({-(-n // 16) * 16 for n in lengths})

    def padded(widths):
        return sum(min(w for w in widths if w >= n) for n in lengths)

    choices = [chosen for chosen in itertools.combinations(candidates, most) if chosen[-1] == candidates[-1]]
    best = min(map(padded, choices))
    widths = bucket_widths(lengths, most)
    assert len(widths) <= most
    assert padded(widths) == best


def test_validation_is_by_length_and_the_same_each_time(records):
    batches = in_order(records, 4)
    assert sorted(index for batch in batches for index in batch.indices) == list(range(53))
    lengths = [record.length for batch in batches for record in batch.records]
    assert lengths == sorted(LENGTHS)
    assert [b.indices for b in in_order(records, 4)] == [b.indices for b in batches]


@pytest.mark.parametrize("limit", [1, 2, 5, 13])
def test_a_part_of_the_validation_is_spread_over_the_lengths(records, limit):
    whole = in_order(records, 4)
    part = in_order(records, 4, limit)
    places = [[b.indices for b in whole].index(batch.indices) for batch in part]
    assert len(set(places)) == limit
    assert places == sorted(places)
    middle = (len(whole) - 1) / 2
    assert np.mean(places) == pytest.approx(middle, abs=0.6)  # neither the shortest nor the longest ones


def test_no_validation_batch_at_all_is_refused(records):
    assert len(in_order(records, 4, 99)) == 14
    with pytest.raises(CallwrightError, match=r"training\.validation_batches is 0"):
        in_order(records, 4, 0)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([], "validation record row-7 has no trained token"),
        ([[0, 3]], r"row-7: span \[0, 3\) is not within its 5 tokens"),
        ([[3, 6]], r"row-7: span \[3, 6\)"),
        ([[3, 3]], r"row-7: span \[3, 3\)"),
        ([[1, 4], [3, 5]], "row-7: its spans overlap"),
    ],
)
def test_a_record_that_cannot_be_trained_is_named(spans, message):
    """mlx-lm divides the sum of such a row by its 0 tokens and trains on NaN."""
    rows = [*token_rows([8]), {"id": "row-7", "input_ids": [1, 2, 3, 4, 5], "spans": spans}]
    with pytest.raises(CallwrightError, match=message):
        to_records(rows, "validation")


def test_no_record_at_all_is_refused():
    with pytest.raises(CallwrightError, match="there is no training record"):
        to_records([], "training")


# -- subsets ---------------------------------------------------------------------------------------


def test_smaller_subsets_lie_within_larger_ones_of_the_same_seed():
    rows = token_rows([20] * 40)
    assert subset(rows, None, seed=1) == rows
    ids = {count: [row["id"] for row in subset(rows, count, seed=1)] for count in (5, 20, 40)}
    assert [len(found) for found in ids.values()] == [5, 20, 40]
    assert set(ids[5]) < set(ids[20]) < set(ids[40]) == {row["id"] for row in rows}
    assert ids[20] == [row["id"] for row in rows if row["id"] in ids[20]], "in the rows' own order"
    assert {row["id"] for row in subset(rows, 20, seed=2)} != set(ids[20])


def test_more_records_than_there_are_cannot_be_asked_for():
    with pytest.raises(CallwrightError, match=r"training\.examples is 41, but there are 40 training records"):
        subset(token_rows([20] * 40), 41, seed=1)
