"""Where the tokens of some records lie when they are computed together, and which worker does which.

The records stand one below the other as rows, without padding. Where neighbours share a beginning, its rows come
once, and then what is each record's own, its branch: a branch's queries see the beginning's keys and those of the
branch. All but attention treats each row by itself, so each worker takes one contiguous part of the rows, of about
the same work: a batch of one record, or of a long and a short one, keeps all cores as busy as a batch of equal
ones. The parts depend on the lengths alone, never on time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from callwright.lora.batches import Beginning, Record, families_of

QUERY_ROWS = 96  # queries per attention chunk
# Records are computed together until they have so many rows; more would cost memory and gain no speed.
GROUP_ROWS = 384


@dataclass(frozen=True)
class Chunk:
    """Some queries of one record and the keys that they see."""

    queries: slice  # among the group's queries
    keys: tuple[slice, ...]  # among the group's rows, in the record's order: of a branch, its beginning's first
    positions: np.ndarray  # [queries] in the record
    mask: np.ndarray  # [queries, m], 0 or -inf, to be added to the scores of the last m keys

    @property
    def columns(self) -> list[tuple[slice, slice]]:
        """Each part of the keys, with its columns among the scores."""
        found, begin = [], 0
        for keys in self.keys:
            end = begin + keys.stop - keys.start
            found.append((keys, slice(begin, end)))
            begin = end
        return found

    @property
    def seen(self) -> int:
        """How many keys there are."""
        return sum(keys.stop - keys.start for keys in self.keys)


@dataclass(frozen=True)
class Segment:
    """Rows that follow each other in a record: all of it, its beginning, or its branch."""

    tokens: np.ndarray  # [rows] int32
    start: int  # the first row
    place: int  # of the first row's token in its record
    record: int | None  # which of the records; None: a beginning, of the segments that follow
    beginning: Beginning | None  # the beginning that it is, or that it is a branch of
    before: int  # where the rows begin of what precedes it in the record


def group(records: Sequence[Record], indices: Sequence[int]) -> list[tuple[list[Record], list[int]]]:
    """The records, with their indices, in groups of at least `GROUP_ROWS` rows (the last may have fewer).

    Those that share a beginning stand together in one.
    """
    shared = [(beginning, places) for beginning, places in families_of(records) if beginning is not None]
    family = {place: found for found in shared for place in found[1]}
    groups: list[tuple[list[Record], list[int]]] = []
    rows = GROUP_ROWS
    for place in range(len(records)):
        beginning, places = family.get(place, (None, [place]))
        if place != places[0]:
            continue  # it stands with the first of its family
        if rows >= GROUP_ROWS:
            groups.append(([], []))
            rows = 0
        groups[-1][0].extend(records[other] for other in places)
        groups[-1][1].extend(indices[other] for other in places)
        rows += sum(records[other].length for other in places) - _saved(beginning, len(places))
    return groups


def rows_of(records: Sequence[Record]) -> int:
    """The rows of a layout of `records`."""
    found = families_of(records)
    return sum(record.length for record in records) - sum(_saved(beginning, len(rows)) for beginning, rows in found)


def _saved(beginning: Beginning | None, count: int) -> int:
    return 0 if beginning is None else (count - 1) * beginning.length


def segments_of(records: Sequence[Record]) -> list[Segment]:
    """The rows of `records`, which stand as `group` puts them, in the order in which they stand."""
    shared = {place: beginning for beginning, places in families_of(records) for place in places}
    found: list[Segment] = []
    begun, start, before = None, 0, 0
    for place, record in enumerate(records):
        beginning = shared[place]
        if beginning is not None and beginning is not begun:
            before = start
            found.append(Segment(beginning.tokens, start, 0, None, beginning, start))
            start += beginning.length
        begun = beginning
        skipped = 0 if beginning is None else beginning.length
        own = record.tokens[skipped:]
        found.append(Segment(own, start, skipped, place, beginning, start if beginning is None else before))
        start += own.size
    return found


class Layout:
    """The rows of `records`, and their parts for `workers` workers.

    `row_cost` is the work on a row beside attention, `key_cost` that of a query on one key, in the same unit. The
    first `done` rows have keys and values already, and are nobody's part.
    """

    def __init__(self, records: Sequence[Record], workers: int, row_cost: float, key_cost: float, done: int = 0):
        self.segments = segments_of(records)
        self.longest = max(record.length for record in records)
        self.starts = np.cumsum([0, *(segment.tokens.size for segment in self.segments)])
        self.count = int(self.starts[-1])
        # [rows] in the record
        self.places = np.concatenate([s.place + np.arange(s.tokens.size) for s in self.segments])
        own = [(segment, records[segment.record]) for segment in self.segments if segment.record is not None]
        positions = [np.sort(record.positions) for _, record in own]
        # [trained] the rows that predict a trained token, in order, and what they predict
        self.trained = np.concatenate([s.start - s.place + p for (s, _), p in zip(own, positions, strict=True)])
        self.targets = np.concatenate([record.tokens[p + 1] for (_, record), p in zip(own, positions, strict=True)])
        cost = row_cost + key_cost * self.places
        self.workers = range(workers)
        self.row_parts = [slice(part.start + done, part.stop + done) for part in _parts(cost[done:], workers)]
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
        segment = self.segments[np.searchsorted(self.starts, rows[0], side="right") - 1]
        return slice(segment.before, int(rows[-1]) + 1)

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
        for segment, begin, end in zip(self.segments, edges[:-1], edges[1:], strict=True):
            parts = np.array_split(np.arange(begin, end), -(-(end - begin) // QUERY_ROWS)) if end > begin else []
            first = segment.start - segment.place  # where the record's first row would stand
            for part in parts:
                positions = rows[part] - first
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
                        _seen(segment, low, int(positions[-1]) + 1),
                        positions,
                        np.where(seen, np.float32(0), np.float32(-np.inf)),
                    )
                )
        return chunks


def _seen(segment: Segment, low: int, high: int) -> tuple[slice, ...]:
    """The rows of the tokens `low` to `high` - 1 of the record of which `segment` is the last part that is seen."""
    start, place = segment.start, segment.place
    own = slice(start + max(low, place) - place, start + high - place)
    return (own,) if low >= place else (slice(segment.before + low, segment.before + place), own)


def _parts(cost: np.ndarray, count: int) -> list[slice]:
    """`count` contiguous parts of about equal cost; a part may be empty."""
    total = np.cumsum(cost)
    edges = np.searchsorted(total, total[-1] * np.arange(1, count) / count) + 1
    edges = [0, *np.minimum(edges, cost.size).tolist(), cost.size]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
