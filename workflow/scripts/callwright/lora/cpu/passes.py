"""Forward and backward through the blocks: who computes what, when, and in which memory.

Workers wait for each other once a block and direction: for all keys and values to be there before
queries see them, and for all queries' shares of their gradients. Memory is borrowed from a pool;
with a pool that only counts, and nobody to compute, the same code predicts a step's memory.
"""

from collections.abc import Callable, Sequence

import numpy as np

from callwright.lora.cpu.block import Block, SavedActivations
from callwright.lora.cpu.layout import Layout
from callwright.lora.cpu.projection import Gradients
from callwright.lora.cpu.storage import BufferPool, Loan

# Runs (function, arguments) in turn as each worker, and returns when all workers are done.
Together = Callable[..., None]
Found = list[list[list[Gradients | None]]]  # [worker][trained block][group]


class Passes:
    """The passes of one model's `blocks`, of which the first `cut` are frozen.

    `recomputed` says for each block whether it keeps its inputs alone for the backward pass.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        first_trained_block: int,
        recomputed: Sequence[bool],
        pool: BufferPool,
        together: Together,
    ):
        self.blocks, self.first_trained_block, self.recomputed = blocks, first_trained_block, recomputed
        self.pool, self.together = pool, together
        self.width = blocks[0].width

    def frozen(self, layout: Layout, inputs: Loan, tables: Sequence[np.ndarray]) -> None:
        """The frozen blocks, in place."""
        self._sweep(
            layout,
            [SavedActivations(inputs) for _ in range(self.first_trained_block)],
            0,
            [inputs["x"]] * self.first_trained_block,
            tables,
        )

    def forward(
        self, layout: Layout, inputs: Loan, tables: Sequence[np.ndarray], keep: bool
    ) -> tuple[Loan, list[SavedActivations]]:
        """(The last block's outputs at the trained positions, what the blocks keep)."""
        tapes = [SavedActivations(inputs)]
        for _ in self.blocks[self.first_trained_block + 1 :]:
            tapes.append(SavedActivations(self.take("x", layout.count) if keep else inputs))
        out = self.take("x_last", layout.trained.size)
        keeps = [keep and not again for again in self.recomputed[self.first_trained_block :]]
        self._sweep(layout, tapes, self.first_trained_block, [*(tape.x for tape in tapes[1:]), out["x"]], tables, keeps)
        if not keep:
            self.pool.give(inputs)
        return out, tapes

    def _sweep(
        self,
        layout: Layout,
        tapes: list[SavedActivations],
        first: int,
        outs: list[np.ndarray],
        tables: Sequence[np.ndarray],
        keeps: list[bool] | None = None,
    ) -> None:
        """Forward through the blocks from `first` on, one for each of `tapes`, to `outs`; all is kept where `keeps`."""
        blocks, tables = self.blocks[first : first + len(tapes)], tables[first:]
        calls = []
        for index, (block, tape) in enumerate(zip(blocks, tapes, strict=True)):
            tape.keys = self.pool.take("keys", block.key_shapes(layout.count))
            self.together(*calls, (block.keys_forward, layout, tables[index], tape))
            if index and not (keeps and keeps[index - 1]):
                self._give(tapes[index - 1])
            tape.rest = self._take_rest(block, layout)
            calls = [(block.queries_forward, layout, tables[index], tape, outs[index])]
        self.together(*calls)
        if tapes and not (keeps and keeps[-1]):
            self._give(tapes[-1])

    def backward(
        self, layout: Layout, out: Loan, tapes: list[SavedActivations], tables: Sequence[np.ndarray], found: Found
    ) -> None:
        """From the gradient in `out` down to the lowest adapter; adds to `found` [worker][block][group].

        What a stage of one block leaves to be done by each worker alone is done with the next stage, so that
        workers wait for each other once a block.
        """
        tables = tables[self.first_trained_block :]
        d, calls, over = out, [], []
        for index in reversed(range(len(tapes))):
            block, tape, table = self.blocks[self.first_trained_block + index], tapes[index], tables[index]
            if tape.rest is None:
                tape.keys = self.pool.take("keys", block.key_shapes(layout.count))
                self.together(*calls, (block.keys_forward, layout, table, tape))
                self.pool.give(*over)
                tape.rest = self._take_rest(block, layout)
                calls, over = [(block.queries_forward, layout, table, tape, None)], []
            gradients = [of[index] for of in found]
            parts = None
            if block.needs_kv:
                shape = (layout.count, block.kv.columns)
                parts = self.pool.take("dkv", {str(worker): shape for worker in layout.workers})
            if block.last:
                dn = self.take("dn_last", layout.trained.size)
            elif self.blocks[self.first_trained_block + index + 1].last:
                dn = self.take("dn", layout.count)
            sums = None if parts is None else list(parts.values())
            calls.append((block.queries_backward, layout, table, tape, d["x"], dn["x"], sums, gradients))
            self.together(*calls)
            self.pool.give(*over)
            to = self.take("d", layout.count) if block.last else d
            calls = [(block.keys_backward, layout, table, tape, d["x"], dn["x"], sums, to["x"], gradients)]
            over = [tape.inputs, tape.keys, tape.rest, parts, *((d, dn) if block.last else ())]
            d = to
        self.together(*calls)
        self.pool.give(*over, d)
        if len(tapes) > 1:
            self.pool.give(dn)

    def take(self, kind: str, rows: int) -> Loan:
        """Memory for hidden states or their gradients, as `x` [rows, D]."""
        return self.pool.take(kind, {"x": (rows, self.width)})

    def _take_rest(self, block: Block, layout: Layout) -> Loan:
        queries = layout.trained.size if block.last else layout.count
        return self.pool.take("rest_last" if block.last else "rest", block.query_shapes(queries))

    def _give(self, tape: SavedActivations) -> None:
        self.pool.give(tape.keys, tape.rest)
        tape.keys = tape.rest = None
