"""Where the tokens of some records lie when they are computed together, and which worker does which.

The records stand one below the other as rows, without padding. All but attention treats each row
by itself, so each worker takes one contiguous part of the rows, of about the same work: a batch of
one record, or of a long and a short one, keeps all cores as busy as a batch of equal ones. The
parts depend on the lengths alone, never on time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from callwright.lora.batches import Record

QUERY_ROWS = 96  # queries per attention chunk
# Records are computed together until they have so many rows; more would cost memory and gain no speed.
GROUP_ROWS = 384


@dataclass(frozen=True)
class Chunk:
    """Some queries of one record and the keys that they see."""

    queries: slice  # among the group's queries
    keys: slice  # among the group's rows
    positions: np.ndarray  # [queries] in the record
    mask: np.ndarray  # [queries, m], 0 or -inf, to be added to the scores of the last m keys


def group(records: Sequence[Record], indices: Sequence[int]) -> list[tuple[list[Record], list[int]]]:
    """The records, with their indices, in groups of at least `GROUP_ROWS` rows (the last may have fewer)."""
    groups: list[tuple[list[Record], list[int]]] = []
    rows = GROUP_ROWS
    for record, index in zip(records, indices, strict=True):
        if rows >= GROUP_ROWS:
            groups.append(([], []))
            rows = 0
        groups[-1][0].append(record)
        groups[-1][1].append(index)
        rows += record.length
    return groups


class Layout:
    """The rows of `records`, and their parts for `workers` workers.

    `row_cost` is the work on a row beside attention, `key_cost` that of a query on one key, in the same unit.
    """

    def __init__(self, records: Sequence[Record], workers: int, row_cost: float, key_cost: float):
        self.lengths = [record.length for record in records]
        self.starts = np.cumsum([0, *self.lengths])
        self.count = int(self.starts[-1])
        self.places = np.concatenate([np.arange(length) for length in self.lengths])  # [rows] in the record
        positions = [np.sort(record.positions) for record in records]
        # [trained] the rows that predict a trained token, in order, and what they predict
        self.trained = np.concatenate([start + p for start, p in zip(self.starts[:-1], positions, strict=True)])
        self.targets = np.concatenate([r.tokens[p + 1] for r, p in zip(records, positions, strict=True)])
        cost = row_cost + key_cost * self.places
        self.workers = range(workers)
        self.row_parts = _parts(cost, workers)
        self.trained_parts = _parts(cost[self.trained], workers)
        self._chunks: dict[tuple[int, bool, int | None], list[Chunk]] = {}

    def queries(self, worker: int, last: bool) -> slice:
        """The worker's part of the queries: of all rows, or in the last block of the trained ones."""
        return self.trained_parts[worker] if last else self.row_parts[worker]

    def rows_of(self, queries: slice, last: bool) -> slice | np.ndarray:
        """Where `queries` stand among the rows."""
        return self.trained[queries] if last else queries

    def trained_within(self, rows: slice) -> slice:
        """Which of the trained rows lie in `rows`."""
        begin, end = np.searchsorted(self.trained, [rows.start, rows.stop])
        return slice(int(begin), int(end))

    def keys(self, worker: int, last: bool) -> slice:
        """The rows that the worker's queries may see."""
        rows = np.arange(self.count)[self.rows_of(self.queries(worker, last), last)]
        if rows.size == 0:
            return slice(0, 0)
        record = np.searchsorted(self.starts, rows[0], side="right") - 1
        return slice(int(self.starts[record]), int(rows[-1]) + 1)

    def chunks(self, worker: int, last: bool, window: int | None) -> list[Chunk]:
        """The worker's queries in chunks; with `window`, a query sees so many keys, itself included."""
        key = worker, last, window
        if key not in self._chunks:
            self._chunks[key] = self._make_chunks(*key)
        return self._chunks[key]

    def _make_chunks(self, worker: int, last: bool, window: int | None) -> list[Chunk]:
        queries = self.queries(worker, last)
        rows = np.arange(self.count)[self.rows_of(queries, last)]
        edges = np.searchsorted(rows, self.starts)
        chunks = []
        for start, begin, end in zip(self.starts[:-1].tolist(), edges[:-1], edges[1:], strict=True):
            parts = np.array_split(np.arange(begin, end), -(-(end - begin) // QUERY_ROWS)) if end > begin else []
            for part in parts:
                positions = rows[part] - start
                low = 0 if window is None else max(0, int(positions[0]) - window + 1)
                # Up to the first query's own key, all see all, unless the window cuts.
                first_trained_block = window is not None and positions[-1] >= window
                keys = np.arange(low if first_trained_block else positions[0] + 1, positions[-1] + 1)
                seen = keys <= positions[:, None]
                if first_trained_block:
                    seen &= keys > positions[:, None] - window
                chunks.append(
                    Chunk(
                        slice(queries.start + int(part[0]), queries.start + int(part[-1]) + 1),
                        slice(start + low, start + int(positions[-1]) + 1),
                        positions,
                        np.where(seen, np.float32(0), np.float32(-np.inf)),
                    )
                )
        return chunks


def _parts(cost: np.ndarray, count: int) -> list[slice]:
    """`count` contiguous parts of about equal cost; a part may be empty."""
    total = np.cumsum(cost)
    edges = np.searchsorted(total, total[-1] * np.arange(1, count) / count) + 1
    edges = [0, *np.minimum(edges, cost.size).tolist(), cost.size]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
