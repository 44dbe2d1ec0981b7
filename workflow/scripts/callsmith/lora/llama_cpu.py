"""Llama's blocks on the CPU: forward and backward written out, one record at a time.

The same arithmetic as `autograd.Autograd`, which is its plain twin in the tests, arranged so
that little but matrix products remains:

- Each record runs by itself, unpadded, on one core, while other cores run other records.
- Adapters are merged into their weights once a step, W + scale * A B, so the forward and the
  backward pass through a projection is one product; their gradients come from products of
  width `rank`.
- Norm weights and the softmax scale are folded into the weights that follow or precede them.
- Query and key channels are reordered so that the two halves which RoPE rotates lie side by
  side, as one complex number; attention scores do not notice.
- Attention runs in blocks of queries and skips the keys that are masked for the whole block.
- In the last block, queries and MLP are computed at the trained positions only.
- Frozen weights get no gradient.

Shapes: T tokens of a record, P query positions (T, or the trained ones in the last block),
D model width, F feed-forward width, H query heads, G key and value heads, d head width.
Weights are [in, out]. NumPy arrays whose names end in `_` are views of MLX arrays.
"""

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models import llama

from callsmith.lora.batches import Batch, Record
from callsmith.lora.layers import LoRALinear
from callsmith.lora.trunk import Trunk
from callsmith.runtime import device, fast_math
from callsmith.runtime.fast_math import host

QUERY_ROWS = 96  # queries per attention block


def supports(model: nn.Module, settings: dict[str, Any]) -> bool:
    """Whether this path computes `model` (adapter attached) with `settings` (config key `training`)."""
    return (
        device.on_cpu()
        and settings["recompute"] in ("off", False)
        and settings["lora"]["dropout"] == 0
        and type(model) is llama.Model
        and all(_plain_block(block) for block in model.layers)
        and isinstance(_head(model), nn.Embedding | nn.Linear)
        and "bias" not in _head(model)
    )


def _plain_block(block: nn.Module) -> bool:
    linears = [_frozen(getattr(block.self_attn, f"{name}_proj")) for name in "qkvo"]
    linears += [_frozen(getattr(block.mlp, f"{name}_proj")) for name in ("gate", "up", "down")]
    return (
        type(block) is llama.TransformerBlock
        and not block.use_sliding
        and not getattr(block.self_attn.rope, "traditional", False)
        and block.self_attn.head_dim % 2 == 0
        and all(type(linear) is nn.Linear and "bias" not in linear for linear in linears)
        and all(linear.weight.dtype == mx.float32 for linear in linears)
    )


def _frozen(module: nn.Module) -> nn.Module:
    return module.linear if isinstance(module, LoRALinear) else module


def _head(model: nn.Module) -> nn.Module:
    return model.lm_head if "lm_head" in model else model.model.embed_tokens


@dataclass
class Member:
    """One projection inside a `Group`: its columns there, and how its outputs were rearranged."""

    name: str  # as in the adapter: model.layers.29.self_attn.q_proj
    columns: slice
    order: np.ndarray | None  # column i of the group is output order[i] of the projection
    factor: float  # by which the group's outputs are larger
    scale: float  # of the LoRA update
    ranks: slice = field(default_factory=lambda: slice(0, 0))


class Group:
    """Projections of the same input, side by side in one weight [in, out], with the adapters that ride on them."""

    def __init__(self, name: str, projections: dict[str, nn.Module], gain: mx.array | None, order=None, factor=1.0):
        """`projections` by path; `gain` [in] is the norm weight to fold in; `order` and `factor` as in `Member`."""
        weights, self.members = [], []
        begin, self.rank = 0, 0
        for path, module in projections.items():
            linear = _frozen(module)
            weight = linear.weight.T
            if order is not None:
                weight = weight[:, mx.array(order)]
            weights.append(weight if factor == 1 else weight * factor)
            columns = slice(begin, begin + weight.shape[1])
            begin = columns.stop
            if isinstance(module, LoRALinear):
                member = Member(f"{name}.{path}", columns, order, factor, module.scale)
                member.ranks = slice(self.rank, self.rank + module.lora_a.shape[1])
                self.rank = member.ranks.stop
                self.members.append(member)
            linear.weight = mx.zeros((1, 1))  # the model's own copy is not needed any more
        base = mx.concatenate(weights, axis=1)
        self.gain = gain
        self.base = mx.contiguous(base if gain is None else base * gain[:, None])
        self.weight = self.base
        self.a = self.b = None
        mx.eval(self.base)

    def merge(self, adapter: dict[str, mx.array]) -> None:
        """Add the adapters to the weight; lazy."""
        if not self.members:
            return
        downs, ups = [], []
        for member in self.members:
            downs.append(adapter[f"{member.name}.lora_a"])
            b = adapter[f"{member.name}.lora_b"]
            b = b if member.order is None else b[:, mx.array(member.order)]
            left, right = member.columns.start, self.base.shape[1] - member.columns.stop
            ups.append(mx.pad(b * (member.scale * member.factor), ((0, 0), (left, right))))
        a = mx.concatenate(downs, axis=1)
        self.a = mx.contiguous(a if self.gain is None else a * self.gain[:, None])  # [in, ranks]
        self.b = mx.concatenate(ups)  # [ranks, out], scaled, zero outside of each member's columns
        self.weight = mx.addmm(self.base, self.a, self.b)

    def gradients(self, x: mx.array, dy: mx.array) -> tuple[mx.array, mx.array] | None:
        """The gradients for `a` and `b` from the group's input [n, in] and its output's gradient [n, out]; lazy."""
        if not self.members:
            return None
        return x.T @ (dy @ self.b.T), (x @ self.a).T @ dy

    def unfold(self, da: mx.array, db: mx.array) -> dict[str, mx.array]:
        """Gradients for the group's `a` and `b` as those of the adapter's arrays, by name."""
        found = {}
        if self.gain is not None:
            da = da * self.gain[:, None]
        for member in self.members:
            b = db[member.ranks, member.columns] * (member.scale * member.factor)
            if member.order is not None:
                b = b[:, mx.array(np.argsort(member.order))]
            found[f"{member.name}.lora_a"] = da[:, member.ranks]
            found[f"{member.name}.lora_b"] = b
        return found


class Block:
    """One Llama block; `forward` returns what `backward` needs."""

    def __init__(self, name: str, block: llama.TransformerBlock):
        attention, mlp = block.self_attn, block.mlp
        self.heads, self.kv_heads, self.head_dim = attention.n_heads, attention.n_kv_heads, attention.head_dim
        self.hidden = _frozen(mlp.down_proj).weight.shape[1]
        self.eps = block.input_layernorm.eps, block.post_attention_layernorm.eps
        gain, gain2 = block.input_layernorm.weight, block.post_attention_layernorm.weight
        # the halves of each head interleaved: 0, d/2, 1, d/2 + 1, ...
        pairs = np.arange(self.head_dim).reshape(2, -1).T.ravel()
        q_order = (np.arange(self.heads)[:, None] * self.head_dim + pairs).ravel()
        k_order = (np.arange(self.kv_heads)[:, None] * self.head_dim + pairs).ravel()
        self.q = Group(name, {"self_attn.q_proj": attention.q_proj}, gain, q_order, attention.scale)
        self.k = Group(name, {"self_attn.k_proj": attention.k_proj}, gain, k_order)
        self.v = Group(name, {"self_attn.v_proj": attention.v_proj}, gain)
        self.o = Group(name, {"self_attn.o_proj": attention.o_proj}, None)
        self.gate_up = Group(name, {"mlp.gate_proj": mlp.gate_proj, "mlp.up_proj": mlp.up_proj}, gain2)
        self.down = Group(name, {"mlp.down_proj": mlp.down_proj}, None)

    @property
    def groups(self) -> list[Group]:
        return [self.q, self.k, self.v, self.o, self.gate_up, self.down]

    def forward(
        self, x: mx.array, turn: np.ndarray, positions: np.ndarray | None = None, keep: bool = False
    ) -> tuple[mx.array, dict[str, Any]]:
        """Outputs [P, D] for inputs `x` [T, D], and, with `keep`, what `backward` needs.

        `turn` [T, d/2] complex are RoPE's rotations; `positions` [P] the queries wanted, None for all.
        """
        heads, groups, d = self.heads, self.kv_heads, self.head_dim
        length = x.shape[0]
        count = length if positions is None else positions.size
        n1 = mx.zeros(x.shape)
        n1_, x_ = host(n1, x)
        inverse1 = fast_math.rms_normalize(x_, n1_, self.eps[0])
        nq = n1 if positions is None else n1[mx.array(positions)]
        xq = x if positions is None else x[mx.array(positions)]
        chunks = self._chunks(length, positions)
        qs = [mx.zeros((heads, rows.stop - rows.start, d)) for rows, _, _ in chunks]
        k, v, o = mx.zeros((groups, length, d)), mx.zeros((groups, length, d)), mx.zeros((count, heads * d))
        yq, yk, yv, k_, v_, o_, *qs_ = host(nq @ self.q.weight, n1 @ self.k.weight, n1 @ self.v.weight, k, v, o, *qs)
        turn_q = turn[:length] if positions is None else turn[positions]
        for (rows, _, _), q_ in zip(chunks, qs_, strict=True):
            np.multiply(_by_head(yq[rows], heads), turn_q[rows], out=_complex(q_))
        np.multiply(_by_head(yk, groups), turn[:length], out=_complex(k_))
        np.copyto(v_, yv.reshape(length, groups, d).transpose(1, 0, 2))

        scores = [
            q.reshape(groups, -1, d) @ k[:, :keys].swapaxes(1, 2) for q, (_, keys, _) in zip(qs, chunks, strict=True)
        ]
        sums = []
        for s_, (rows, _, mask) in zip(host(*scores), chunks, strict=True):
            s_ = s_.reshape(heads, rows.stop - rows.start, -1)
            s_[:, :, -mask.shape[1] :] += mask
            sums.append(fast_math.softmax_(s_)[:, :, None])
        outs = [s @ v[:, :keys] for s, (_, keys, _) in zip(scores, chunks, strict=True)]
        for out_, total, (rows, _, _) in zip(host(*outs), sums, chunks, strict=True):
            out_ = out_.reshape(heads, -1, d)
            out_ /= total
            np.copyto(o_[rows].reshape(-1, heads, d), out_.transpose(1, 0, 2))

        middle = mx.addmm(xq, o, self.o.weight)
        n2 = mx.zeros(middle.shape)
        middle_, n2_ = host(middle, n2)
        inverse2 = fast_math.rms_normalize(middle_, n2_, self.eps[1])
        gate_up = n2 @ self.gate_up.weight
        hidden = mx.zeros((count, self.hidden))
        sigmoid = mx.zeros((count, self.hidden)) if keep else None
        if keep:
            gate_up_, hidden_, sigmoid_ = host(gate_up, hidden, sigmoid)
        else:
            (gate_up_, hidden_), sigmoid_ = host(gate_up, hidden), None
        fast_math.swiglu(gate_up_, hidden_, sigmoid_)
        out = mx.addmm(middle, hidden, self.down.weight)
        mx.eval(out)
        if not keep:
            return out, {}
        return out, {
            "n1": n1, "nq": nq, "inverse1": inverse1, "qs": qs, "k": k, "v": v, "scores": scores, "sums": sums, "o": o,
            "outs": outs, "n2": n2, "inverse2": inverse2, "gate_up": gate_up, "sigmoid": sigmoid, "chunks": chunks,
            "turn_q": turn_q, "positions": positions, "length": length,
        }  # fmt: skip

    def backward(
        self, dout: mx.array, saved: dict[str, Any], turn: np.ndarray, lowest: bool
    ) -> tuple[mx.array | None, list[tuple[mx.array, mx.array] | None]]:
        """From the outputs' gradient [P, D] to that of the inputs [T, D] (None with `lowest`) and those of `groups`."""
        heads, groups, d = self.heads, self.kv_heads, self.head_dim
        chunks, positions, length = saved["chunks"], saved["positions"], saved["length"]
        count = dout.shape[0]
        dh = dout @ self.down.weight.T
        dgate_up, hidden = mx.zeros((count, 2 * self.hidden)), mx.zeros((count, self.hidden))
        dh_, dgate_up_, hidden_ = host(dh, dgate_up, hidden)
        fast_math.swiglu_backward(dh_, np.asarray(saved["gate_up"]), np.asarray(saved["sigmoid"]), dgate_up_, hidden_)
        g_down = self.down.gradients(hidden, dout)
        g_gate_up = self.gate_up.gradients(saved["n2"], dgate_up)

        dn2 = dgate_up @ self.gate_up.weight.T
        (dmiddle_,) = host(dn2)
        mx.eval(g_down or [], g_gate_up or [])
        fast_math.rms_normalize_backward_(dmiddle_, np.asarray(saved["n2"]), saved["inverse2"])
        dmiddle_ += np.asarray(dout)
        dmiddle = dn2

        do = dmiddle @ self.o.weight.T
        g_o = self.o.gradients(saved["o"], dmiddle)
        dos = [mx.zeros(q.shape) for q in saved["qs"]]
        do_, *dos_ = host(do, *dos)
        mx.eval(g_o or [])
        along = []  # [H, rows, 1]: sum of the output's gradient times the output, by softmax's sum
        for dc_, out, total, (rows, _, _) in zip(dos_, saved["outs"], saved["sums"], chunks, strict=True):
            np.divide(do_[rows].reshape(-1, heads, d).transpose(1, 0, 2), total, out=dc_)
            out_ = np.asarray(out).reshape(heads, -1, d)
            along.append(np.einsum("hij,hij->hi", dc_, out_)[:, :, None])
        k, v = saved["k"], saved["v"]
        dscores = [
            dc.reshape(groups, -1, d) @ v[:, :keys].swapaxes(1, 2) for dc, (_, keys, _) in zip(dos, chunks, strict=True)
        ]
        for ds_, s, a in zip(host(*dscores), saved["scores"], along, strict=True):
            ds_ = ds_.reshape(heads, a.shape[1], -1)
            ds_ -= a
            ds_ *= np.asarray(s).reshape(ds_.shape)
        dqs = [ds @ k[:, :keys] for ds, (_, keys, _) in zip(dscores, chunks, strict=True)]
        dks = [ds.swapaxes(1, 2) @ q.reshape(groups, -1, d) for ds, q in zip(dscores, saved["qs"], strict=True)]
        dvs = [s.swapaxes(1, 2) @ dc.reshape(groups, -1, d) for s, dc in zip(saved["scores"], dos, strict=True)]
        dyq, dyk, dyv = mx.zeros((count, heads * d)), mx.zeros((length, groups * d)), mx.zeros((length, groups * d))
        arrays = host(dyq, dyk, dyv, *dqs, *dks, *dvs)
        dyq_, dyk_, dyv_ = arrays[:3]
        n = len(chunks)
        dqs_, dks_, dvs_ = arrays[3 : 3 + n], arrays[3 + n : 3 + 2 * n], arrays[3 + 2 * n :]
        back = np.conj(turn[:length])
        back_q = back if positions is None else back[positions]
        for dq_, (rows, _, _) in zip(dqs_, chunks, strict=True):
            np.multiply(
                _complex(dq_.reshape(heads, -1, d)).transpose(1, 0, 2),
                back_q[rows, None],
                out=_by_position(dyq_[rows], heads),
            )
        dk_, dv_ = _sum_prefixes(dks_), _sum_prefixes(dvs_)
        np.multiply(
            _complex(dk_).transpose(1, 0, 2), back[: dk_.shape[1], None], out=_by_position(dyk_[: dk_.shape[1]], groups)
        )
        np.copyto(dyv_[: dv_.shape[1]].reshape(-1, groups, d), dv_.transpose(1, 0, 2))

        found = [
            self.q.gradients(saved["nq"], dyq),
            self.k.gradients(saved["n1"], dyk),
            self.v.gradients(saved["n1"], dyv),
            g_o,
            g_gate_up,
            g_down,
        ]
        if lowest:
            mx.eval([pair for pair in found if pair])
            return None, found
        dn1 = mx.addmm(dyk @ self.k.weight.T, dyv, self.v.weight.T)
        dnq = dyq @ self.q.weight.T
        if positions is None:
            dn1 = dn1 + dnq
            (dn1_,) = host(dn1)
        else:
            dn1_, dnq_ = host(dn1, dnq)
            dn1_[positions] += dnq_
        mx.eval([pair for pair in found if pair])
        fast_math.rms_normalize_backward_(dn1_, np.asarray(saved["n1"]), saved["inverse1"])
        if positions is None:
            dn1_ += dmiddle_
        else:
            dn1_[positions] += dmiddle_
        return dn1, found

    def _chunks(self, length: int, positions: np.ndarray | None) -> list[tuple[slice, int, np.ndarray]]:
        """Blocks of queries: (rows among the queries, how many keys they see, mask to add to the last of these)."""
        if positions is not None:
            keys = int(positions.max()) + 1
            mask = np.where(np.arange(keys) <= positions[:, None], np.float32(0), np.float32(-np.inf))
            return [(slice(0, positions.size), keys, mask)]
        count = -(-length // QUERY_ROWS)
        edges = np.linspace(0, length, count + 1).round().astype(int)
        return [
            (slice(int(a), int(b)), int(b), np.triu(np.full((b - a, b - a), -np.inf, np.float32), 1))
            for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]


def _complex(x: np.ndarray) -> np.ndarray:
    return x.view(np.complex64)


def _by_position(y: np.ndarray, heads: int) -> np.ndarray:
    """[n, heads * d] as complex [n, heads, d/2], the same memory."""
    return _complex(y).reshape(y.shape[0], heads, -1)


def _by_head(y: np.ndarray, heads: int) -> np.ndarray:
    """[n, heads * d] as complex [heads, n, d/2], the same memory."""
    return _by_position(y, heads).transpose(1, 0, 2)


def _sum_prefixes(parts: list[np.ndarray]) -> np.ndarray:
    """The sum of arrays [G, keys, d] over their common keys; the last one has all."""
    total = parts[-1]
    for part in parts[:-1]:
        total[:, : part.shape[1]] += part
    return total


class LlamaCPU:
    """The training step's arithmetic, as `Autograd` offers it, for the models that `supports` accepts.

    Takes the weights out of `model`, which cannot be called any more.
    """

    def __init__(self, model: llama.Model, settings: dict[str, Any], cut: int):
        self.cut, self.chunk = cut, settings["loss_chunk"]
        self.embedding = model.model.embed_tokens
        self.rope = model.layers[0].self_attn.rope
        self.head_dim = model.layers[0].self_attn.head_dim
        self.gain, self.eps = model.model.norm.weight, model.model.norm.eps
        self.head = np.asarray(_head(model).weight)  # [vocabulary, D]
        self.head_mx = _head(model).weight
        self.blocks = [Block(f"model.layers.{index}", block) for index, block in enumerate(model.layers)]
        self.width, self.dtype = self.embedding.weight.shape[1], mx.float32
        self.turn = np.empty((0, self.head_dim // 2), np.complex64)
        self.workers = fast_math.Workers()

    def loss_and_gradients(
        self, adapter: dict[str, mx.array], micro_batches: list[Batch], trunk: Trunk | None
    ) -> tuple[float, dict[str, mx.array]]:
        """(summed cross-entropy over the batches' trained tokens, its gradient for each array of `adapter`)."""
        self._merge(adapter)
        total, gradients = 0.0, None
        for batch in micro_batches:
            jobs = list(zip(batch.indices, batch.records, strict=True))
            forward = self.workers.map(lambda job: self._forward(*job, trunk, keep=True), jobs, _length)
            targets = np.concatenate([record.targets for record in batch.records])
            loss, slopes = self._head_loss(mx.concatenate([out for out, _ in forward]), targets, gradient=True)
            total += loss
            ends = np.cumsum([record.positions.size for record in batch.records])
            parts = np.split(slopes, ends[:-1])
            found = self.workers.map(
                lambda job: self._backward(*job),
                [(mx.array(part), saved) for part, (_, saved) in zip(parts, forward, strict=True)],
                lambda job: job[1][-1]["length"],
            )
            del forward
            for record in found:
                gradients = (
                    record if gradients is None else [_add(a, b) for a, b in zip(gradients, record, strict=True)]
                )
            mx.eval(gradients)
        named = {}
        groups = [group for block in self.blocks[self.cut :] for group in block.groups]
        for group, pair in zip(groups, gradients, strict=True):
            if pair is not None:
                named.update(group.unfold(*pair))
        return total, dict(sorted(named.items()))

    def loss(self, adapter: dict[str, mx.array], batches: list[Batch], trunk: Trunk | None) -> float:
        """The summed cross-entropy over the batches' trained tokens."""
        self._merge(adapter)
        total = 0.0
        for batch in batches:
            jobs = list(zip(batch.indices, batch.records, strict=True))
            forward = self.workers.map(lambda job: self._forward(*job, trunk, keep=False), jobs, _length)
            targets = np.concatenate([record.targets for record in batch.records])
            total += self._head_loss(mx.concatenate([out for out, _ in forward]), targets, gradient=False)[0]
        return total

    def trunk(self, tokens: np.ndarray) -> mx.array:
        """The frozen blocks' output [T, D] for one record's tokens [T]."""
        h = self.embedding(mx.array(tokens))
        turn = self._turn(tokens.size)
        for block in self.blocks[: self.cut]:
            h, _ = block.forward(h, turn)
        return h

    def close(self) -> None:
        """End the worker threads."""
        self.workers.close()

    def _merge(self, adapter: dict[str, mx.array]) -> None:
        mx.eval(adapter)  # by this thread, whose stream it belongs to

        def merge(block: Block) -> None:
            for group in block.groups:
                group.merge(adapter)
            mx.eval([(group.weight, group.a, group.b) for group in block.groups if group.members])

        self.workers.map(merge, self.blocks[self.cut :], lambda _: 0)

    def _forward(self, index: int, record: Record, trunk: Trunk | None, keep: bool) -> tuple[mx.array, list]:
        """The last block's outputs [trained, D] at the trained positions, and what the blocks kept."""
        h = self.trunk(record.tokens) if trunk is None else trunk.get(index)
        turn = self._turn(record.length)
        kept = []
        for block in self.blocks[self.cut :]:
            h, saved = block.forward(h, turn, record.positions if block is self.blocks[-1] else None, keep)
            kept.append(saved)
        return h, kept

    def _backward(self, dout: mx.array, kept: list) -> list[tuple[mx.array, mx.array] | None]:
        """The gradients of all trained blocks' groups, lowest block first."""
        found: list[list] = []
        while kept:
            saved = kept.pop()  # frees it when this block is done
            block = self.blocks[self.cut + len(kept)]
            dout, gradients = block.backward(dout, saved, self._turn(saved["length"]), lowest=not kept)
            found.insert(0, gradients)
        return [pair for gradients in found for pair in gradients]

    def _head_loss(self, hidden: mx.array, targets: np.ndarray, gradient: bool) -> tuple[float, np.ndarray | None]:
        """(summed cross-entropy, gradient [n, D] for `hidden` [n, D]): final norm, head and loss, chunk by chunk.

        Each worker takes a part of the vocabulary; softmax's sums are put together afterwards.
        """
        n = mx.zeros(hidden.shape)
        hidden_, n_ = host(hidden, n)
        inverse = fast_math.rms_normalize(hidden_, n_, self.eps)
        edges = np.linspace(0, self.head.shape[0], self.workers.count + 1).astype(int)
        parts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        total, slopes = 0.0, np.empty_like(n_) if gradient else None
        for begin in range(0, targets.size, self.chunk):
            rows = slice(begin, begin + self.chunk)
            scaled = n[rows] * self.gain
            mx.eval(scaled)
            jobs = [(scaled, targets[rows], *part, gradient) for part in parts]
            found = self.workers.map(lambda job: self._head_part(*job), jobs, lambda _: 0)
            highest = np.max([part[0] for part in found], axis=0)
            shares = [np.exp(part[0] - highest) for part in found]
            sums = sum(share * part[1] for share, part in zip(shares, found, strict=True))
            picked = sum(part[2] for part in found)
            total += float(np.sum(np.log(sums) + highest - picked, dtype=np.float64))
            if gradient:
                slope = sum(part[3] * (share / sums)[:, None] for share, part in zip(shares, found, strict=True))
                slopes[rows] = slope - self.head[targets[rows]]
        if gradient:
            slopes *= np.asarray(self.gain)
            fast_math.rms_normalize_backward_(slopes, n_, inverse)
        return total, slopes

    def _head_part(self, hidden: mx.array, targets: np.ndarray, begin: int, end: int, gradient: bool) -> tuple:
        """For a part of the vocabulary: maximum, sum of exp, target's logit or 0 ([n] each), exp @ head [n, D]."""
        weight = self.head_mx[begin:end]
        logits = hidden @ weight.T
        (logits_,) = host(logits)
        inside = (targets >= begin) & (targets < end)
        picked = np.where(inside, logits_[np.arange(targets.size), np.clip(targets - begin, 0, end - begin - 1)], 0)
        highest, sums = np.empty(targets.size, np.float32), np.empty(targets.size, np.float32)
        for row, line in enumerate(logits_):  # row by row: a row fits the cache
            highest[row] = line.max()
            line -= highest[row]
            np.exp(line, out=line)
            sums[row] = line.sum()
        return highest, sums, picked, host(logits @ weight)[0] if gradient else None

    def _turn(self, length: int) -> np.ndarray:
        """The model's own rotary embedding for positions 0 to `length` - 1, as complex numbers [length, d/2]."""
        turn = self.turn
        if length > turn.shape[0]:
            half = self.head_dim // 2
            unit = mx.concatenate([mx.ones((1, 1, length, half)), mx.zeros((1, 1, length, half))], axis=-1)
            (rotated,) = host(self.rope(unit))
            turn = (rotated[0, 0, :, :half] + 1j * rotated[0, 0, :, half:]).astype(np.complex64)
            self.turn = turn  # a longer one that another worker sets now is only made again
        return turn[:length]


def _length(job: tuple[int, Record]) -> int:
    return job[1].length


def _add(a: tuple | None, b: tuple | None) -> tuple | None:
    return None if a is None else (a[0] + b[0], a[1] + b[1])
