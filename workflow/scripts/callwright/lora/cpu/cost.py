"""What a training step on the CPU costs: the bytes that it holds, and its products' operations."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from callwright.lora.batches import Batch
from callwright.lora.cpu import head
from callwright.lora.cpu.block import Block
from callwright.lora.cpu.layout import Layout, group
from callwright.lora.cpu.passes import Passes
from callwright.lora.cpu.projection import Group
from callwright.lora.cpu.storage import BufferPool, Loan, Shapes, size_of

if TYPE_CHECKING:
    from callwright.lora.cpu.path import CpuBackend

# A multiplication in attention's small products and elementwise passes costs as much as so many in a large product.
ATTENTION = 3


def of_row(block: Block) -> tuple[float, float]:
    """(multiplications for a row in the block's projections, and, by `ATTENTION`, for a query on one key)."""
    return sum(g.width * g.columns for g in block.groups), ATTENTION * 2 * _per_pair(block)


def _per_pair(block: Block) -> int:
    """Multiplications of one product of attention for a query and a key that it sees."""
    return block.attention.heads * block.attention.head_dim


def layouts(path: "CpuBackend", batch: Batch) -> list[Layout]:
    """The layouts in which the batch's records are computed."""
    return [
        Layout(records, path.workers.count, *of_row(path.blocks[0]))
        for records, _ in group(batch.records, batch.indices)
    ]


# -- memory ------------------------------------------------------------------------------------------


class Counted(BufferPool):
    """A pool whose memory is never touched; `sizes` are the numbers in all its pieces, by kind."""

    def take(self, kind: str, shapes: Shapes) -> Loan:
        self.free[kind].sort(key=len)
        if not self.free[kind] or self.free[kind][-1].size < size_of(shapes):
            if self.free[kind]:
                self.sizes[kind] -= self.free[kind].pop().size
            self.sizes[kind] += size_of(shapes)
            return Loan(kind, np.empty(size_of(shapes), np.float32), shapes)
        return super().take(kind, shapes)

    def __init__(self) -> None:
        super().__init__()
        self.sizes: Counter[str] = Counter()


def activation_bytes(path: "CpuBackend", batch: Batch) -> int:
    """The most bytes in a step on `batch` beyond weights, adapter and optimizer, if no larger step came before it.

    The gradients are counted: each worker's sums, and what is made of them in the end.
    """
    pool, scratch = Counted(), [Counter() for _ in range(path.workers.count)]
    passes = Passes(path.blocks, path.first_trained_block, path.passes.recomputed, pool, lambda *calls: None)
    trained = path.blocks[path.first_trained_block :]
    tables = [np.empty((0, 0))] * len(path.blocks)
    found = [[[]] * len(trained)] * path.workers.count
    for layout in layouts(path, batch):
        inputs = passes.take("x", layout.count)
        passes.frozen(layout, inputs, tables)
        passes.backward(layout, *passes.forward(layout, inputs, tables, keep=True), tables, found)
        for worker, sizes in enumerate(scratch):
            for block in path.blocks:
                sizes |= _scratch(block, layout, worker, backward=block in trained)
            sizes |= _head_scratch(path, layout, worker)
    groups = [g for block in trained for g in block.groups]
    adapter = sum(g.rank * g.width + sum(_size(m.ranks) * _size(m.columns) for m in g.members) for g in groups)
    numbers = pool.sizes.total() + sum(sizes.total() for sizes in scratch) + adapter * (path.workers.count + 1)
    return 4 * numbers


def _scratch(block: Block, layout: Layout, worker: int, backward: bool) -> Counter[str]:
    """The numbers in what `block` takes from a worker's scratch, by name."""
    rows, queries = _size(layout.row_parts[worker]), _size(layout.queries(worker, block.last))
    chunks = layout.chunks(worker, block.last, block.attention.window)
    per_query = _per_pair(block) * max((chunk.positions.size for chunk in chunks), default=0)
    scores = block.attention.heads * max((c.positions.size * c.seen for c in chunks), default=0)
    extended = max(queries * block.q.extended, queries * block.gate_up.extended, rows * block.kv.extended)
    normed = block.attended.gain is not None
    sizes = {
        "n": extended,
        "turned": per_query,
        "attended": per_query,
        "scores": scores,
        "hidden": queries * block.down.extended,
        "middle": normed * queries * block.width,
        "raw": normed * queries * block.width,
    }
    if backward:
        sizes |= {
            "slope": normed * queries * block.width,
            "slopes": scores,
            "d_hidden": queries * block.down.extended,
            "dx": extended,
            "do": queries * block.o.extended,
            "dq": queries * block.q.columns,
            "dkv": rows * block.kv.columns,
        }
    return Counter(sizes)


def _head_scratch(path: "CpuBackend", layout: Layout, worker: int) -> Counter[str]:
    tokens = min(path.head.tokens, layout.trained.size)
    sizes = {"logits": tokens * min(head.TILE, _size(path.head.parts[worker])), "head_slopes": tokens * path.width}
    if worker == 0:
        sizes |= {"normalized": tokens * path.width, "scaled": tokens * path.width}
    return Counter(sizes)


# -- operations --------------------------------------------------------------------------------------


def flops(path: "CpuBackend", batch: Batch) -> dict[str, int]:
    """The floating-point operations of the products that an exact step on `batch` needs, by phase.

    `frozen_prefix`, `forward`, `head` (its gradient included) and `backward`: only what the adapters'
    gradients ask for, attention over the keys that are seen; what this path computes twice to save
    memory is counted once, low-rank products by their own shape.
    """
    total: Counter[str] = Counter()
    for layout in layouts(path, batch):
        for block in path.blocks[: path.first_trained_block]:
            total["frozen_prefix"] += _forward(block, layout)
        for block in path.blocks[path.first_trained_block :]:
            total["forward"] += _forward(block, layout)
            total["backward"] += _backward(block, layout)
        total["head"] += 2 * 2 * layout.trained.size * path.head.weight.size
    return {phase: int(total[phase]) for phase in ("frozen_prefix", "forward", "head", "backward")}


def _forward(block: Block, layout: Layout) -> int:
    queries = layout.trained.size if block.last else layout.count
    products = sum(
        (layout.count if g is block.kv else queries) * (g.width * g.columns + _low_rank(g)) for g in block.groups
    )
    return 2 * (products + 2 * _per_pair(block) * _pairs(block, layout))


def _backward(block: Block, layout: Layout) -> int:
    queries = layout.trained.size if block.last else layout.count
    products = 0
    for g, inputs in (
        (block.down, block.needs_mlp),
        (block.gate_up, block.needs_middle),
        (block.o, block.needs_attention),
        (block.q, block.needs_inputs),
        (block.kv, block.needs_inputs),
    ):
        rows = layout.count if g is block.kv else queries
        # dy B^T and x^T (dy B^T), (x A)^T dy, and for the inputs (dy B^T) A^T
        low = _low_rank(g) + sum(_size(m.ranks) * _size(m.columns) for m in g.members)
        products += rows * (low + inputs * (g.width * g.columns + g.rank * g.width))
    keys, values = block.needs_inputs or _adapts(block, "k_proj"), block.needs_inputs or _adapts(block, "v_proj")
    slopes = keys or block.needs_q  # the scores' gradient, from that of the outputs
    return 2 * (products + (keys + values + slopes + block.needs_q) * _per_pair(block) * _pairs(block, layout))


def _pairs(block: Block, layout: Layout) -> int:
    """How many pairs of a query and a key that it sees there are."""
    places = layout.places[layout.trained] if block.last else layout.places
    seen = places + 1
    return int(np.sum(seen if block.attention.window is None else np.minimum(seen, block.attention.window)))


def _low_rank(g: Group) -> int:
    """Multiplications of x A and (x A) B for a row."""
    return sum(_size(m.ranks) * (g.width + _size(m.columns)) for m in g.members)


def _adapts(block: Block, projection: str) -> bool:
    return any(member.name.endswith(f".{projection}") for member in block.kv.members)


def _size(part: slice) -> int:
    return part.stop - part.start
