"""A transformer block with its gradient written out, for what Llama, Qwen 2 and 3 and Gemma 3 have in common.

Each pass is two stages, between which all workers wait for each other: one on a worker's rows
(norm, keys and values) and one on its queries (queries, attention, MLP), which sees all keys. In
the last block the queries are those at the trained positions alone. Kept for the backward pass is
what products gave; what is elementwise is computed again from it.

Shapes: n rows of a worker; D model width, F feed-forward width, H query heads, G key and value
heads, d head width, R ranks of the adapters on a group of projections.
"""

from dataclasses import dataclass

import numpy as np

from callwright.lora.cpu import fast_math
from callwright.lora.cpu.architectures import Spec
from callwright.lora.cpu.attention import Attention, Rotated
from callwright.lora.cpu.layout import Layout
from callwright.lora.cpu.projection import Gradients, Group, Output, Projection
from callwright.lora.cpu.storage import Scratch, Shapes


@dataclass
class SavedActivations:
    """A block's arrays during a step."""

    inputs: dict[str, np.ndarray]  # x: [rows, D]
    keys: dict[str, np.ndarray] | None = None  # as `Block.key_shapes`
    rest: dict[str, np.ndarray] | None = None  # as `Block.query_shapes`

    @property
    def x(self) -> np.ndarray:
        """The block's inputs [rows, D]."""
        return self.inputs["x"]


class Block:
    """One block: `keys_forward`, `queries_forward`, `queries_backward` and `keys_backward`, for one worker each."""

    def __init__(self, spec: Spec, last: bool, lowest: bool):
        """`last`: only trained positions are asked for; `lowest`: nobody asks for its inputs' gradient."""
        attention, mlp, name = spec.attention, spec.mlp, spec.name
        self.name, self.last, self.lowest, self.eps = name, last, lowest, spec.eps
        self.activation = spec.activation
        # The halves of each head interleaved: 0, d/2, 1, d/2 + 1, ...
        pairs = np.arange(spec.head_dim).reshape(2, -1).T.ravel()
        q_order, k_order = (
            (np.arange(heads)[:, None] * spec.head_dim + pairs).ravel() for heads in (spec.heads, spec.kv_heads)
        )
        normed = spec.qk[0] is not None  # then the scale goes into that norm's weight
        turns = [
            Rotated(None if gain is None else np.array(gain)[pairs] * np.float32(factor), spec.eps)
            for gain, factor in zip(spec.qk, (spec.scale, 1), strict=True)
        ]
        self.attention = Attention(spec.heads, spec.kv_heads, spec.head_dim, spec.window, *turns)
        q = Projection("self_attn.q_proj", attention.q_proj, q_order, 1 if normed else spec.scale)
        k = Projection("self_attn.k_proj", attention.k_proj, k_order)
        v = Projection("self_attn.v_proj", attention.v_proj)
        gate, up = Projection("mlp.gate_proj", mlp.gate_proj), Projection("mlp.up_proj", mlp.up_proj)
        self.q, self.kv = Group(name, [q], spec.before[0]), Group(name, [k, v], spec.before[0])
        self.o = Group(name, [Projection("self_attn.o_proj", attention.o_proj)])
        self.gate_up = Group(name, [gate, up], spec.before[1])
        self.down = Group(name, [Projection("mlp.down_proj", mlp.down_proj)])
        self.attended = Output(self.o, spec.after[0], spec.eps)
        self.fed = Output(self.down, spec.after[1], spec.eps)
        self.groups = [self.q, self.kv, self.o, self.gate_up, self.down]
        self.width, self.hidden = self.q.width, self.down.width
        # What the lowest block's adapters ask for.
        self.needs_inputs = not lowest
        self.needs_kv = not lowest or self.kv.rank > 0
        self.needs_q = not lowest or self.q.rank > 0
        self.needs_attention = self.needs_kv or self.needs_q
        self.needs_middle = self.needs_attention or self.o.rank > 0
        self.needs_mlp = self.needs_middle or self.gate_up.rank > 0

    def key_shapes(self, rows: int) -> Shapes:
        """What `keys_forward` leaves for all queries: keys (turned) and values, and the keys before their norm."""
        shapes = {"kv": (rows, self.kv.columns)}
        if self.attention.turn_k.gain is not None:
            shapes["k"] = (rows, self.kv.columns // 2)
        return shapes

    def query_shapes(self, queries: int) -> Shapes:
        """What `queries_forward` leaves for the backward pass."""
        shapes = {
            "q": (queries, self.q.columns),  # as projected
            "o": (queries, self.o.extended),  # attention's outputs, and o A
            "lse": (self.attention.heads, queries),
            "middle": (queries, self.width),  # after attention; if there is a norm, that norm's input
            "gate_up": (queries, self.gate_up.columns),
        }
        if self.fed.gain is not None:
            shapes["fed"] = (queries, self.width)  # the last norm's input
        return shapes

    # -- forward --------------------------------------------------------------------------------

    def keys_forward(
        self, worker: int, layout: Layout, table: np.ndarray, tape: SavedActivations, scratch: Scratch
    ) -> None:
        """The worker's rows as keys and values."""
        rows = layout.row_parts[worker]
        if rows.start == rows.stop:
            return
        n = self._normed(tape.x[rows], self.kv, scratch)[0]
        kv = tape.keys["kv"][rows]
        self.kv.forward(n, kv)
        k = kv[:, : kv.shape[1] // 2]
        if "k" in tape.keys:
            np.copyto(tape.keys["k"][rows], k)
        k = self._by_kv_head(k)
        self.attention.turn_k.forward(k, table[layout.places[rows]], k)

    def queries_forward(
        self,
        worker: int,
        layout: Layout,
        table: np.ndarray,
        tape: SavedActivations,
        out: np.ndarray | None,
        scratch: Scratch,
    ) -> None:
        """The worker's queries through attention and MLP, to its part of `out` [queries, D] (may be `tape.x`).

        With None for `out`, just as far as is needed to fill `tape.rest`.
        """
        rest, queries = tape.rest, layout.queries(worker, self.last)
        if queries.start == queries.stop:
            return
        x = tape.x[layout.rows_of(queries, self.last)]
        self.q.forward(self._normed(x, self.q, scratch)[0], rest["q"][queries])
        o = rest["o"][:, : self.o.width]
        chunks = layout.chunks(worker, self.last, self.attention.window)
        self.attention.forward(chunks, table, rest["q"], tape.keys["kv"], o, rest["lse"], scratch)
        middle = self._middle(x, rest, queries, scratch)
        self.attended.forward(rest["o"][queries], x, middle, rest["middle"][queries], scratch)
        gate_up = rest["gate_up"][queries]
        self.gate_up.forward(self._normed(middle, self.gate_up, scratch)[0], gate_up)
        if out is None and self.fed.gain is None:
            return
        hidden = scratch.get("hidden", len(x), self.down.extended)
        fast_math.gated(gate_up, hidden[:, : self.hidden], self.activation)
        if out is None:
            self.down.forward(hidden, rest["fed"][queries])
        else:
            self.fed.forward(hidden, middle, out[queries], rest["fed"][queries] if "fed" in rest else None, scratch)

    # -- backward -------------------------------------------------------------------------------

    def queries_backward(
        self,
        worker: int,
        layout: Layout,
        table: np.ndarray,
        tape: SavedActivations,
        d: np.ndarray,
        dn: np.ndarray,
        parts: list[np.ndarray] | None,
        found: list[list[Gradients | None]],
        scratch: Scratch,
    ) -> None:
        """From the outputs' gradient `d` [queries, D] back to the queries' projection, for the worker's part.

        Leaves in `d` what goes past attention to the inputs, in `dn` [queries, D] what goes through the
        queries to the first norm, and in its one of `parts` [rows, 2 G d] what goes to keys and values (None:
        nobody asks for it). `found` are the groups' gradients, by worker. Overwrites `tape.rest["gate_up"]`.
        """
        rest, queries = tape.rest, layout.queries(worker, self.last)
        if queries.start == queries.stop:
            return
        g_q, _, g_o, g_gate_up, g_down = found[worker]
        dkv = None if parts is None else parts[worker]
        x, d = tape.x[layout.rows_of(queries, self.last)], d[queries]
        slope = self.fed.backward(d, rest["fed"][queries] if "fed" in rest else None, scratch)
        self._mlp_backward(x, rest, queries, d, slope, g_gate_up, g_down, scratch)
        if not self.needs_middle:
            return
        slope = self.attended.backward(d, rest["middle"][queries], scratch)
        do = scratch.get("do", len(x), self.o.extended)
        self.o.inputs_backward(slope, do, self.needs_attention)
        self.o.adapters_backward(rest["o"][queries], slope, do, g_o)
        if not self.needs_attention:
            return
        if dkv is not None:
            dkv[layout.keys(worker, self.last)] = 0
        dq = scratch.get("dq", len(x), self.q.columns) if self.needs_q else None
        chunks = layout.chunks(worker, self.last, self.attention.window)
        o = rest["o"][:, : self.o.width]
        do = do[:, : self.o.width]
        kv = tape.keys["kv"]
        self.attention.backward(chunks, table, rest["q"], kv, o, rest["lse"], do, dq, dkv, scratch, queries.start)
        if dq is None:
            return
        dx = scratch.get("dx", len(x), self.q.extended)
        self.q.inputs_backward(dq, dx, self.needs_inputs)
        if self.q.rank:
            n, _ = self._normed(x, self.q, scratch)
            self.q.extend(n)
            self.q.adapters_backward(n, dq, dx, g_q)
        if self.needs_inputs:
            np.copyto(dn[queries], dx[:, : self.width])

    def _mlp_backward(
        self,
        x: np.ndarray,
        rest: dict[str, np.ndarray],
        queries: slice,
        d: np.ndarray,
        slope: np.ndarray,
        g_gate_up: Gradients | None,
        g_down: Gradients | None,
        scratch: Scratch,
    ) -> None:
        """From `slope`, the gradient of the down projection, back to the MLP's input; added to `d`."""
        gate_up = rest["gate_up"][queries]
        d_hidden = scratch.get("d_hidden", len(d), self.down.extended)
        self.down.inputs_backward(slope, d_hidden, self.needs_mlp)
        hidden = scratch.get("hidden", len(d), self.down.extended) if self.down.rank else None
        if self.needs_mlp:
            again = hidden if hidden is None else hidden[:, : self.hidden]
            fast_math.gated_backward_(d_hidden[:, : self.hidden], gate_up, self.activation, again)
        elif hidden is not None:
            fast_math.gated(gate_up, hidden[:, : self.hidden], self.activation)
        if hidden is not None:
            self.down.extend(hidden)
            self.down.adapters_backward(hidden, slope, d_hidden, g_down)
        if not self.needs_mlp:
            return
        dx = scratch.get("dx", len(d), self.gate_up.extended)
        self.gate_up.inputs_backward(gate_up, dx, self.needs_middle)
        middle = self._middle(x, rest, queries, scratch, fill=True)
        n, inverse = self._normed(middle, self.gate_up, scratch)
        self.gate_up.extend(n)
        self.gate_up.adapters_backward(n, gate_up, dx, g_gate_up)
        if self.needs_middle:
            dx = dx[:, : self.width]
            fast_math.rms_normalize_backward_(dx, n[:, : self.width], inverse)
            d += dx

    def keys_backward(
        self,
        worker: int,
        layout: Layout,
        table: np.ndarray,
        tape: SavedActivations,
        d: np.ndarray,
        dn: np.ndarray,
        parts: list[np.ndarray] | None,
        out: np.ndarray,
        found: list[list[Gradients | None]],
        scratch: Scratch,
    ) -> None:
        """From the workers' sums `parts` for keys and values, and `d` and `dn`, to the inputs' gradient.

        Fills the worker's rows of `out` [rows, D], which may be `d` unless the block is the last.
        """
        rows = layout.row_parts[worker]
        if not self.needs_kv or rows.start == rows.stop:
            return
        x = tape.x[rows]
        dkv = scratch.get("dkv", len(x), self.kv.columns)
        dkv.fill(0)
        for other, part in enumerate(parts):
            keys = layout.keys(other, self.last)
            begin, end = max(rows.start, keys.start), min(rows.stop, keys.stop)
            if begin < end:
                dkv[begin - rows.start : end - rows.start] += part[begin:end]
        dk = self._by_kv_head(dkv[:, : self.kv.columns // 2])
        k = self._by_kv_head(tape.keys["k"][rows]) if "k" in tape.keys else None
        self.attention.turn_k.backward(dk, table[layout.places[rows]], k, dk)
        n, inverse = self._normed(x, self.kv, scratch)
        self.kv.extend(n)
        dx = scratch.get("dx", len(x), self.kv.extended)
        self.kv.inputs_backward(dkv, dx, self.needs_inputs)
        self.kv.adapters_backward(n, dkv, dx, found[worker][1])
        if not self.needs_inputs:
            return
        dx = dx[:, : self.width]
        trained = layout.trained_within(rows) if self.last else rows
        here = layout.trained[trained] - rows.start if self.last else slice(None)
        dx[here] += dn[trained]
        fast_math.rms_normalize_backward_(dx, n[:, : self.width], inverse)
        dx[here] += d[trained]
        np.copyto(out[rows], dx)

    def _normed(self, x: np.ndarray, group: Group, scratch: Scratch) -> tuple[np.ndarray, np.ndarray]:
        """(x / rms(x), with columns left for the group's adapters, [n, D + R]; 1 / rms [n, 1])."""
        n = scratch.get("n", len(x), group.extended)
        return n, fast_math.rms_normalize(x, n[:, : self.width], self.eps)

    def _middle(
        self, x: np.ndarray, rest: dict[str, np.ndarray], queries: slice, scratch: Scratch, fill: bool = False
    ) -> np.ndarray:
        """Where the rows after attention stand [n, D]; with `fill`, they are there."""
        raw = rest["middle"][queries]
        if self.attended.gain is None:
            return raw
        middle = scratch.get("middle", *raw.shape)
        if fill:
            self.attended.add(x, raw, middle, scratch)
        return middle

    def _by_kv_head(self, x: np.ndarray) -> np.ndarray:
        """[n, G d] as [n, G, d], the same memory."""
        return x.reshape(x.shape[0], self.attention.kv_heads, -1)
