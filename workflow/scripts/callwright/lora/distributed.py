"""Data parallel training: the records of each batch shared among processes, their sums put together.

Every worker holds the whole model, reads the same stream of global batches and computes on its share of each.
Losses and gradients are sums over trained tokens, so the sum over the workers is that of the whole batch, and what
is divided by is the whole batch's count: every token weighs the same, however the records were dealt. All workers
then take the same step. The result is that of one worker but for the order of float32 additions.

MLX's ring backend moves the numbers (`MLX_RANK` and `MLX_HOSTFILE` in the environment say who is who); it adds in a
fixed order and gives all workers the same bits. When a peer is gone, it raises.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from callwright.lora import random_state
from callwright.lora.batches import Batch, Beginning
from callwright.runtime.errors import CallwrightError

if TYPE_CHECKING:
    from callwright.lora.backend import TrainingBackend
    from callwright.lora.frozen_prefix import Begun, FrozenPrefix

Arrays = dict[str, mx.array]


class LostPeer(CallwrightError):
    """Another worker of this training is gone."""


class ProcessGroup:
    """The processes that train together, seen from one of them; the plain `ProcessGroup()` is this process alone."""

    def __init__(self, group: Any = None):
        """`group`: of `mx.distributed`; None for a training in one process."""
        self.group = group
        self.rank, self.size = (group.rank(), group.size()) if group is not None else (0, 1)

    @property
    def first(self) -> bool:
        """True for the one that writes snapshots, history and adapter."""
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """The sum of each value over the workers (float64)."""
        if self.size == 1:
            return list(values)
        with mx.stream(mx.cpu):  # float64 exists there alone
            return self._sum(mx.array(values, mx.float64)).tolist()

    def total_arrays(self, arrays: Arrays) -> Arrays:
        """The sum of each array over the workers, added in float32; all must have the same names and shapes."""
        if self.size == 1:
            return arrays
        names = sorted(arrays)
        flat = mx.concatenate([arrays[name].astype(mx.float32).reshape(-1) for name in names])
        mx.eval(flat)
        flat = self._sum(flat)
        parts = mx.split(flat, np.cumsum([arrays[name].size for name in names])[:-1].tolist())
        return {
            name: part.reshape(arrays[name].shape).astype(arrays[name].dtype)
            for name, part in zip(names, parts, strict=True)
        }

    def agree(self, what: str, value: int) -> None:
        """Raise CallwrightError unless all workers have the same `value` (0 to 2^53)."""
        if self.size == 1:
            return
        with mx.stream(mx.cpu):
            found = mx.distributed.all_gather(mx.array([value], mx.float64), group=self.group)
            values = [int(number) for number in self._evaluated(found).tolist()]
        if len(set(values)) > 1:
            raise CallwrightError(
                f"the training workers do not agree on {what}: {values}; do all of them see the same files?"
            )

    def share(self, batches: list[Batch]) -> list[Batch]:
        """This worker's records of each batch, at the batch's width; batches without one for it are left out.

        The longest first, each record goes to the worker that has the fewest tokens then, in all `batches`
        together: their work is even although a batch of one record, say, is one worker's alone. A shared beginning
        counts once for each worker that has records of it. A worker that gets more than its part of a batch computes
        it in several, since the memory plan counts on that part.
        """
        if self.size == 1:
            return batches
        load = [0] * self.size
        places = [(b, r) for b, batch in enumerate(batches) for r in range(len(batch.records))]
        mine: list[list[int]] = [[] for _ in batches]
        begun: list[set[tuple[int, Beginning]]] = [set() for _ in load]
        for b, r in sorted(places, key=lambda place: -batches[place[0]].records[place[1]].length):
            record = batches[b].records[r]
            costs = [
                record.length - (record.beginning.length if (b, record.beginning) in known else 0) for known in begun
            ]
            worker = min(range(self.size), key=lambda rank: load[rank] + costs[rank])
            load[worker] += costs[worker]
            if record.beginning is not None:
                begun[worker].add((b, record.beginning))
            if worker == self.rank:
                mine[b].append(r)
        found = []
        for batch, rows in zip(batches, map(sorted, mine), strict=True):
            most = -(-len(batch.records) // self.size)
            for part in (rows[begin : begin + most] for begin in range(0, len(rows), most)):
                indices, records = [batch.indices[r] for r in part], [batch.records[r] for r in part]
                found.append(dataclasses.replace(batch, indices=indices, records=records))
        return found

    def _sum(self, array: mx.array) -> mx.array:
        return self._evaluated(mx.distributed.all_sum(array, group=self.group, stream=mx.cpu))

    def _evaluated(self, array: mx.array) -> mx.array:
        try:
            mx.eval(array)
        except RuntimeError as error:
            raise LostPeer(f"worker {self.rank} of {self.size}: {error}") from error
        return array


class DataParallelBackend:
    """A backend (see `backend.TrainingBackend`) whose batches are shared: the same results on every worker.

    Frozen prefixes, memory and operations are this worker's own affair.
    """

    def __init__(self, backend: "TrainingBackend", workers: ProcessGroup):
        self.backend, self.workers = backend, workers
        self.first_trained_block, self.width, self.dtype = backend.first_trained_block, backend.width, backend.dtype
        self.padded, self.counts_flops = backend.padded, backend.counts_flops
        self.product_threads, self.shares = backend.product_threads, backend.shares

    def configure(self, policy: str | int, chunk: int) -> None:
        """As the backend's own."""
        self.backend.configure(policy, chunk)

    def loss_and_gradients(
        self,
        adapter: Arrays,
        micro_batches: list[Batch],
        prefix: "FrozenPrefix | None",
        phase: Callable[[str], None] | None = None,
    ) -> tuple[float, Arrays]:
        """As the backend's own, over all workers' records.

        Each worker drops out by random numbers of its own; afterwards all have the same random state again.
        """
        state = random_state.get()
        random_state.put((state + self.workers.rank * 0x9E3779B97F4A7C15) % 2**64)
        mine = self.workers.share(micro_batches)
        if mine:
            total, gradients = self.backend.loss_and_gradients(adapter, mine, prefix, phase)
        else:
            total, gradients = 0.0, {name: mx.zeros(array.shape, array.dtype) for name, array in adapter.items()}
        random_state.put((state + 1) % 2**64)
        return self.workers.total(total)[0], self.workers.total_arrays(gradients)

    def loss(self, adapter: Arrays, batches: list[Batch], prefix: "FrozenPrefix | None") -> float:
        """As the backend's own, over all workers' records."""
        mine = self.workers.share(batches)
        return self.workers.total(self.backend.loss(adapter, mine, prefix) if mine else 0.0)[0]

    def begin(self, tokens: np.ndarray) -> "Begun":
        """As the backend's own, on this worker alone."""
        return self.backend.begin(tokens)

    def prefix(self, tokens: np.ndarray, begun: "Begun | None" = None) -> mx.array:
        """As the backend's own, on this worker alone."""
        return self.backend.prefix(tokens, begun)

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """As the backend's own, on this worker alone."""
        return self.backend.map(function, jobs)

    def activation_bytes(self, batch: Batch) -> int:
        """As the backend's own, for what one worker computes alone."""
        return self.backend.activation_bytes(batch)

    def rows(self, batch: Batch) -> int:
        """As the backend's own, for what one worker computes alone."""
        return self.backend.rows(batch)

    def flops(self, batch: Batch) -> dict[str, int]:
        """As the backend's own, for what one worker computes alone."""
        return self.backend.flops(batch)

    def close(self) -> None:
        """As the backend's own."""
        self.backend.close()


def join(token: int) -> ProcessGroup:
    """Meet the other workers that the environment names; `token` (below 2^53) is the same in all of one training.

    Raises LostPeer when they cannot be met, or when those at the given ports belong to another training.
    """
    try:
        workers = ProcessGroup(mx.distributed.init(strict=True, backend="ring"))
    except RuntimeError as error:
        raise LostPeer(f"the training workers cannot connect: {error}") from error
    try:
        workers.agree("which training this is", token)
    except LostPeer:
        raise
    except CallwrightError as error:
        raise LostPeer("the workers of another training answered") from error
    return workers
