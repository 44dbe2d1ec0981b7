"""Micro-batches: which records go together, in which order, padded to which width.

Order and composition depend on seed and epoch alone, so a resumed run sees the same batches.
Each record is seen once an epoch. Padding goes to the right: a causal model never looks
there from a real token, and no pad token is trained, since a position is trained only if one
of its record's spans names it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from callwright.lora.mixing import mixed
from callwright.runtime.errors import CallwrightError

# The buckets' own share of padding. Batches that reach over two buckets add to it: 378 xLAM records get 24 widths and,
# in batches of 1 to 16, 2.9 to 4.9 % of padding.
BUCKET_PADDING = 0.03
MULTIPLE = 16  # of which widths are multiples


@dataclass(frozen=True, eq=False)
class Beginning:
    """Tokens that several records begin with: these records hold the very same object (see `sharing`)."""

    tokens: np.ndarray  # [length] int32

    @property
    def length(self) -> int:
        return self.tokens.size


@dataclass(frozen=True)
class Record:
    """One tokenized example, ready to train on."""

    id: str
    tokens: np.ndarray  # [length] int32
    positions: np.ndarray  # [trained] int32: where the trained tokens are predicted *from*, one before each
    beginning: Beginning | None = None  # its first tokens, if others have them too; it ends before `positions` begin

    @property
    def length(self) -> int:
        return self.tokens.size

    @property
    def targets(self) -> np.ndarray:
        """The trained tokens [trained]."""
        return self.tokens[self.positions + 1]


@dataclass(frozen=True)
class Batch:
    """Some records side by side, padded to one width."""

    indices: list[int]  # of its records in the data set
    records: list[Record]
    width: int
    beginning: Beginning | None = None  # computed once, ahead of all: the rows are what follows it (see `parts`)

    @property
    def skipped(self) -> int:
        """How many tokens of each record are not in its row, but in the beginning."""
        return 0 if self.beginning is None else self.beginning.length

    @property
    def tokens(self) -> mx.array:
        """[batch, width] int32, padded with 0."""
        padded = np.zeros((len(self.records), self.width), np.int32)
        for row, record in zip(padded, self.records, strict=True):
            row[: record.length - self.skipped] = record.tokens[self.skipped :]
        return mx.array(padded)

    @property
    def positions(self) -> mx.array:
        """[trained] int32: the trained positions in the flattened [batch * width], record by record."""
        begins = (row * self.width - self.skipped for row in range(len(self.records)))
        positions = [begin + record.positions for begin, record in zip(begins, self.records, strict=True)]
        return mx.array(np.concatenate(positions))

    @property
    def targets(self) -> mx.array:
        """[trained] int32: the tokens to be predicted there."""
        return mx.array(np.concatenate([record.targets for record in self.records]))

    @property
    def trained(self) -> int:
        """How many tokens carry loss."""
        return sum(record.positions.size for record in self.records)

    @property
    def processed(self) -> int:
        """How many real tokens the model reads; padding is not counted."""
        return sum(record.length for record in self.records)

    def parts(self) -> list["Batch"]:
        """The records that stand alone, padded to this batch's width, and those of each beginning, without it.

        A batch whose records share nothing is its own only part.
        """
        families = list(families_of(self.records))
        if all(beginning is None for beginning, _ in families):
            return [self]
        parts = []
        for beginning, rows in families:
            records = [self.records[row] for row in rows]
            longest = max(record.length for record in records) - (beginning.length if beginning else 0)
            width = self.width if beginning is None else -(-longest // MULTIPLE) * MULTIPLE
            parts.append(Batch([self.indices[row] for row in rows], records, width, beginning))
        return parts

    @property
    def shared(self) -> int:
        """How many of its records' tokens are not computed, since they are computed for another record."""
        return sum(
            (len(rows) - 1) * beginning.length for beginning, rows in families_of(self.records) if beginning is not None
        )

    @property
    def padded(self) -> int:
        """How many positions are computed where the parts are padded."""
        return sum(part.skipped + part.width * len(part.records) for part in self.parts())


def families_of(records: Sequence[Record]) -> Iterator[tuple[Beginning | None, list[int]]]:
    """(beginning, places of its records) for each that two or more of `records` share; first (None, all others)."""
    families: dict[int, list[int]] = {}
    for place, record in enumerate(records):
        families.setdefault(id(record.beginning), []).append(place)
    shared = [places for places in families.values() if records[places[0]].beginning is not None and len(places) > 1]
    alone = sorted(set(range(len(records))).difference(*shared))
    if alone:
        yield None, alone
    for places in shared:
        yield records[places[0]].beginning, places


def to_records(rows: Sequence[dict[str, Any]], what: str) -> list[Record]:
    """Check token rows (`id`, `input_ids`, `spans`) and turn them into records.

    Raises CallwrightError that names the record when no token of it is trained (its loss would
    be 0/0), when a span lies outside of it, or when there is no record at all.
    """
    records = []
    for row in rows:
        tokens = np.asarray(row["input_ids"], np.int32)
        for begin, end in row["spans"]:
            if not 1 <= begin < end <= tokens.size:
                raise CallwrightError(
                    f"{what} record {row['id']}: span [{begin}, {end}) is not within its {tokens.size} tokens "
                    "(the first token cannot be trained: nothing precedes it)"
                )
        trained = np.concatenate([np.arange(begin, end) for begin, end in row["spans"]] or [np.empty(0, int)])
        if trained.size == 0:
            raise CallwrightError(f"{what} record {row['id']} has no trained token: its list of spans is empty")
        if np.unique(trained).size != trained.size:
            raise CallwrightError(f"{what} record {row['id']}: its spans overlap, so tokens would count twice")
        records.append(Record(str(row["id"]), tokens, (trained - 1).astype(np.int32)))
    if not records:
        raise CallwrightError(f"there is no {what} record: nothing was left after curation and split")
    return records


def subset(rows: Sequence[dict[str, Any]], count: int | None, seed: int) -> list[dict[str, Any]]:
    """The first `count` rows of an order drawn from `seed`, None for all: smaller subsets lie within larger ones.

    Raises CallwrightError when there are fewer (`count` is config key `training.examples`).
    """
    if count is None:
        return list(rows)
    if count > len(rows):
        raise CallwrightError(
            f"config key training.examples is {count}, but there are {len(rows)} training records: expected at most "
            "that many, or null for all"
        )
    order = np.random.default_rng([seed, 0, 1]).permutation(len(rows))  # epochs have [seed, epoch]
    return [rows[index] for index in sorted(order[:count].tolist())]


def bucket_widths(
    lengths: Sequence[int], most: int = 32, multiple: int = MULTIPLE, padding: float = BUCKET_PADDING
) -> list[int]:
    """The fewest widths, multiples of `multiple`, that keep the padding of `lengths` to a share of `padding`.

    When `most` widths do not do, those that pad the least. Few widths mean few shapes, so that
    buffers are reused. Exact, by dynamic programming over the distinct rounded lengths.
    """
    rounded = -(-np.asarray(lengths) // multiple) * multiple
    widths, counts = np.unique(rounded, return_counts=True)
    n = len(widths)
    before = np.concatenate([[0], np.cumsum(counts)])
    # cost[k, j]: tokens, padding included, of the j shortest widths' records in k buckets
    cost = np.full((min(most, n) + 1, n + 1), np.inf)
    first_trained_block = np.zeros(cost.shape, int)
    cost[0, 0] = 0
    for k in range(1, cost.shape[0]):
        for j in range(1, n + 1):
            totals = cost[k - 1, :j] + (before[j] - before[:j]) * widths[j - 1]
            first_trained_block[k, j] = int(np.argmin(totals))
            cost[k, j] = totals[first_trained_block[k, j]]
    chosen, j = [], n
    enough = np.flatnonzero(cost[:, n] <= sum(lengths) / (1 - padding))
    for k in range(int(enough[0] if enough.size else np.argmin(cost[:, n])), 0, -1):
        chosen.append(int(widths[j - 1]))
        j = first_trained_block[k, j]
    return sorted(chosen)


def epoch_batches(records: Sequence[Record], batch_size: int, seed: int, epoch: int) -> list[Batch]:
    """The batches of one epoch: every record once, neighbours in length together, all in random order.

    Records are shuffled, then sorted by bucket (which keeps the shuffle within each), cut
    into batches, and the batches shuffled. Only one batch of an epoch can be smaller than the
    others: the longest records' remainder. Where records share beginnings, these decide how they are cut
    (`mixing.mixed`).
    """
    generator = np.random.default_rng([seed, epoch])
    widths = np.asarray(bucket_widths([record.length for record in records]))
    bucket = np.searchsorted(widths, [record.length for record in records])
    order = generator.permutation(len(records))
    order = order[np.argsort(bucket[order], kind="stable")].tolist()
    beginnings = [record.beginning for record in records]  # each is equal to itself alone
    cut = mixed(order, beginnings, batch_size, generator) or list(_pieces(order, batch_size))
    batches = [_batch(records, indices, widths) for indices in cut]
    return [batches[index] for index in generator.permutation(len(batches))]


def in_order(records: Sequence[Record], batch_size: int, limit: int = -1) -> list[Batch]:
    """Fixed batches for validation: by length, every record once; `limit` of the batches if that is not -1.

    These are spread evenly over the lengths. Records that share a beginning are put together; which records are
    chosen does not depend on that. Raises CallwrightError when `limit` (config key `training.validation_batches`)
    is 0.
    """
    if limit == 0:
        raise CallwrightError(
            "config key training.validation_batches is 0: expected -1 for the whole validation set, or a number of "
            "batches from 1 on"
        )
    widths = np.asarray(bucket_widths([record.length for record in records]))
    order = np.argsort([record.length for record in records], kind="stable").tolist()
    cut = list(_pieces(order, batch_size))
    if limit != -1 and limit < len(cut):
        middles = (np.arange(limit) + 0.5) * len(cut) / limit
        cut = [cut[index] for index in middles.astype(int)]
    chosen = [index for indices in cut for index in indices]
    families = list(families_of([records[index] for index in chosen]))
    if any(beginning is not None for beginning, _ in families):
        cut = [[chosen[place] for place in part] for _, places in families for part in _pieces(places, batch_size)]
    return [_batch(records, indices, widths) for indices in cut]


def _pieces(order: list[int], size: int) -> Iterator[list[int]]:
    return (order[begin : begin + size] for begin in range(0, len(order), size))


def _batch(records: Sequence[Record], indices: list[int], widths: np.ndarray) -> Batch:
    chosen = [records[index] for index in indices]
    width = int(widths[np.searchsorted(widths, max(record.length for record in chosen))])
    return Batch(indices, chosen, width)


def neighbours(records: Sequence[Record], count: int) -> list[Batch]:
    """All batches of `count` neighbours in length: none that `epoch_batches` makes is larger than the largest."""
    widths = np.asarray(bucket_widths([record.length for record in records]))
    order = np.argsort([record.length for record in records], kind="stable").tolist()
    return [_batch(records, order[begin : begin + count], widths) for begin in range(max(1, len(order) - count + 1))]


def split(batch: Batch, size: int) -> list[Batch]:
    """The batch's records in batches of at most `size` and about equal numbers, at the same width."""
    count = -(-len(batch.records) // size)
    parts = np.array_split(np.arange(len(batch.records)), count)
    return [
        Batch([batch.indices[row] for row in part], [batch.records[row] for row in part], batch.width) for part in parts
    ]


def stream(records: Sequence[Record], batch_size: int, seed: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
    """(epoch, batch) for ever, epoch after epoch, from the batch number `start` of the run on."""
    per_epoch = -(-len(records) // batch_size)
    epoch, skip = divmod(start, per_epoch)
    while True:
        for batch in epoch_batches(records, batch_size, seed, epoch)[skip:]:
            yield epoch, batch
        epoch, skip = epoch + 1, 0


def padding_share(batches: Sequence[Batch]) -> float:
    """Padding as a share of all positions."""
    positions = sum(batch.width * len(batch.records) for batch in batches)
    return 1 - sum(batch.processed for batch in batches) / positions
