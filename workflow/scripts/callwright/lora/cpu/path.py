"""A training step's losses and gradients on the CPU, written out so that little but matrix products remains.

The same backend as `autograd.AutogradBackend`, which is its plain twin in the tests:

- Records stand one below the other, unpadded; each core takes a part of the rows.
- Products go straight into memory that is used again, on one thread per core.
- Adapters ride in the product of their layer; norm weights and scales are folded into weights.
- In the last block, queries and MLP are computed at the trained positions only.
- Frozen weights get no gradient, and nothing below the lowest adapter is computed for one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.lora import gradient_checkpointing
from callwright.lora.batches import Batch, Record
from callwright.lora.cpu import architectures, cost, fast_math
from callwright.lora.cpu.block import Block, SavedActivations
from callwright.lora.cpu.head import Head
from callwright.lora.cpu.layout import Layout, Segment, group, rows_of
from callwright.lora.cpu.passes import Passes
from callwright.lora.cpu.projection import Gradients
from callwright.lora.cpu.rotation import Tables
from callwright.lora.cpu.storage import BufferPool, Loan, Scratch
from callwright.lora.frozen_prefix import Begun, FrozenPrefix
from callwright.runtime import device, threads

Phase = Callable[[str], None]


def supports(model: nn.Module, settings: dict[str, Any]) -> bool:
    """Whether this path computes `model` (adapter attached) with `settings` (config key `training`)."""
    return device.on_cpu() and settings["lora"]["dropout"] == 0 and architectures.parts(model) is not None


class CpuBackend:
    """The training step's backend (see `backend.TrainingBackend`) for what `supports` accepts.

    Takes the weights out of `model`, which cannot be called any more.
    """

    padded = False
    counts_flops = True
    shares = True
    product_threads = 1  # each worker thread has products of its own

    def __init__(self, model: nn.Module, settings: dict[str, Any], first_trained_block: int):
        """`settings` is the config's `training`; `first_trained_block` the number of frozen blocks below it."""
        parts = architectures.parts(model)
        self.first_trained_block, self.width, self.dtype = first_trained_block, parts.gain.shape[0], mx.float32
        self.embedding, self.factor = np.asarray(parts.embedding.weight), np.float32(parts.factor)
        self.workers = threads.ThreadPool()
        self.tables = Tables([spec.rope for spec in parts.blocks], parts.blocks[0].head_dim)
        count = len(parts.blocks)
        self.blocks = [
            Block(spec, last=index == count - 1, lowest=index == first_trained_block)
            for index, spec in enumerate(parts.blocks)
        ]
        self.scratch = [Scratch() for _ in range(self.workers.count)]
        self.passes = Passes(self.blocks, first_trained_block, [], BufferPool(), self._together)
        self.head = Head(parts.head.weight, parts.gain, parts.eps, settings["loss_chunk"], self.workers)
        self.configure(settings["gradient_checkpointing"], settings["loss_chunk"])

    # -- what the training loop calls -------------------------------------------------------------

    def configure(self, policy: str | int, chunk: int) -> None:
        """Change which blocks are recomputed, and how many tokens' logits may be held at once; frees the memory."""
        self.passes.recomputed = [False] * self.first_trained_block + gradient_checkpointing.chosen(
            policy, len(self.blocks) - self.first_trained_block
        )
        self.head.chunk = chunk
        self._free()

    def loss_and_gradients(
        self,
        adapter: dict[str, mx.array],
        micro_batches: list[Batch],
        prefix: FrozenPrefix | None,
        phase: Phase | None = None,
    ) -> tuple[float, dict[str, mx.array]]:
        """(summed cross-entropy over the batches' trained tokens, its gradient for each array of `adapter`).

        `phase` is called with `frozen_prefix`, `forward`, `head` and `backward` when each of these has ended, for
        each group of records that is computed together.
        """
        note = phase or (lambda name: None)
        self._set(adapter)
        trained = self.blocks[self.first_trained_block :]
        found = [
            [[Gradients(part) if part.rank else None for part in block.groups] for block in trained]
            for _ in self.scratch
        ]
        total = 0.0
        with threads.blas_threads(1):
            for layout, inputs in self._groups(micro_batches, prefix, note):
                tables = self.tables.of(layout.longest)
                out, tapes = self.passes.forward(layout, inputs, tables, keep=True)
                note("forward")
                total += self.head.loss(out["x"], layout.targets, gradient=True, scratch=self.scratch)
                note("head")
                self.passes.backward(layout, out, tapes, tables, found)
                note("backward")
        named = {}
        for index, block in enumerate(trained):
            for which, part in enumerate(block.groups):
                named |= part.unfold([of[index][which] for of in found])
        mx.eval(named)
        return total, dict(sorted(named.items()))

    def loss(self, adapter: dict[str, mx.array], batches: list[Batch], prefix: FrozenPrefix | None) -> float:
        """The summed cross-entropy over the batches' trained tokens."""
        self._set(adapter)
        total = 0.0
        with threads.blas_threads(1):
            for layout, inputs in self._groups(batches, prefix, lambda name: None):
                out, _ = self.passes.forward(layout, inputs, self.tables.of(layout.longest), keep=False)
                total += self.head.loss(out["x"], layout.targets, gradient=False, scratch=self.scratch)
                self.passes.pool.give(out)
        return total

    def begin(self, tokens: np.ndarray) -> Begun:
        """What the frozen blocks make of a beginning's tokens [T], with their keys and values; threads as `prefix`."""
        states: list[np.ndarray] = []
        return Begun(self._prefix(tokens, None, states), states)

    def prefix(self, tokens: np.ndarray, begun: Begun | None = None) -> mx.array:
        """The frozen blocks' output [T, D] for one record's tokens [T], or for those behind `begun`.

        On the calling thread alone; several threads may do so at the same time.
        """
        return self._prefix(tokens, begun, None)

    def _prefix(self, tokens: np.ndarray, begun: Begun | None, states: list[np.ndarray] | None) -> mx.array:
        """`states`, if given, gets a copy of each frozen block's keys and values [T, 2 G d]."""
        done = 0 if begun is None else begun.length
        x = mx.zeros((tokens.size, self.width))
        tape = SavedActivations({"x": fast_math.host(x)[0]})
        self._embed(tokens[done:], tape.x[done:])
        record = Record("", tokens, np.zeros(1, np.int32))
        layout, scratch, pool = Layout([record], 1, *cost.of_row(self.blocks[0]), done), Scratch(), BufferPool()
        tables = self.tables.of(tokens.size)
        with threads.blas_threads(1):
            for index, block in enumerate(self.blocks[: self.first_trained_block]):
                tape.keys = pool.take("keys", block.key_shapes(tokens.size))
                tape.rest = pool.take("rest", block.query_shapes(tokens.size))
                if begun is not None:
                    tape.keys["kv"][:done] = begun.states[index]
                block.keys_forward(0, layout, tables[index], tape, scratch)
                block.queries_forward(0, layout, tables[index], tape, tape.x, scratch)
                if states is not None:
                    states.append(tape.keys["kv"].copy())
                pool.give(tape.keys, tape.rest)
        return x if begun is None else mx.array(tape.x[done:])

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """`function` of each job; each worker does jobs of its own."""
        return self.workers.map(function, jobs)

    def activation_bytes(self, batch: Batch) -> int:
        """The most bytes in a step on `batch` beyond weights, adapter and optimizer; nothing is computed."""
        return cost.activation_bytes(self, batch)

    def rows(self, batch: Batch) -> int:
        """The rows of the batch's largest group of records that are computed together.

        Two records just too short to be computed alone have more than one long one.
        """
        return max(rows_of(together) for together, _ in group(batch.records, batch.indices))

    def flops(self, batch: Batch) -> dict[str, int]:
        """The floating-point operations in matrix products that a step on `batch` needs, by phase; see `cost`."""
        return cost.flops(self, batch)

    def close(self) -> None:
        """End the worker threads and free the memory between steps."""
        self.workers.close()
        self._free()

    # -- the passes -------------------------------------------------------------------------------

    def _groups(self, batches: list[Batch], prefix: FrozenPrefix | None, note: Phase) -> Iterator[tuple[Layout, Loan]]:
        """(layout, inputs of the first trained block) of the records that are computed together, group by group."""
        for batch in batches:
            for records, indices in group(batch.records, batch.indices):
                layout = Layout(records, self.workers.count, *cost.of_row(self.blocks[0]))
                loan = self.passes.take("x", layout.count)
                x = loan["x"]
                if prefix is None:
                    self._embed(np.concatenate([segment.tokens for segment in layout.segments]), x)
                    self.passes.frozen(layout, loan, self.tables.of(layout.longest))
                else:
                    for segment in layout.segments:
                        rows = slice(segment.start, segment.start + segment.tokens.size)
                        (x[rows],) = fast_math.host(_stored(prefix, segment, indices))
                note("frozen_prefix")
                yield layout, loan

    def _embed(self, tokens: np.ndarray, out: np.ndarray) -> None:
        np.take(self.embedding, tokens, axis=0, out=out)
        if self.factor != 1:
            out *= self.factor

    def _together(self, *calls: tuple) -> None:
        """Each worker does its part of all `calls` (function, arguments), one after the other."""

        def work(worker: int) -> None:
            for function, *arguments in calls:
                function(worker, *arguments, self.scratch[worker])

        self.workers.map(work, range(self.workers.count))

    def _free(self) -> None:
        self.passes.pool = BufferPool()
        for scratch in self.scratch:
            scratch.arrays.clear()

    def _set(self, adapter: dict[str, mx.array]) -> None:
        mx.eval(adapter)
        for block in self.blocks[self.first_trained_block :]:
            for part in block.groups:
                part.set(adapter)


def _stored(prefix: FrozenPrefix, segment: Segment, indices: Sequence[int]) -> mx.array:
    """What the prefix cache has for a segment's rows [rows, D]; `indices` are those of the layout's records."""
    if segment.record is None:
        return prefix.beginning(segment.beginning)
    index = indices[segment.record]
    return prefix.get(index) if segment.beginning is None else prefix.branch(index)
