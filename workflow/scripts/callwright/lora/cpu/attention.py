"""Causal attention in chunks of queries, forward and backward, with the gradient written out.

A chunk's scores are formed, used and dropped; the backward pass forms them again from the log of
each query's sum of exponentials (as FlashAttention does, Dao et al. 2022,
https://arxiv.org/abs/2205.14135). Keys that are masked for a whole chunk are never touched.

Shapes: H query heads, G key and value heads, d head width; n rows. Channels of queries and keys
are ordered so that the two halves which RoPE rotates lie side by side, as one complex number;
scores do not notice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from callwright.lora.cpu import fast_math
from callwright.lora.cpu.layout import Chunk
from callwright.lora.cpu.sgemm import product
from callwright.lora.cpu.storage import Scratch


@dataclass
class Rotated:
    """What is done to each head of the queries or keys: a norm with weight `gain` [d], if there is one, and RoPE."""

    gain: np.ndarray | None
    eps: float

    def forward(self, x: np.ndarray, turn: np.ndarray, out: np.ndarray) -> None:
        """From `x` [n, heads, d] to `out` of the same shape (it may be `x`); `turn` [n, d/2] complex."""
        if self.gain is not None:
            normalized = np.empty(x.shape, np.float32)
            fast_math.rms_normalize(x, normalized, self.eps)
            normalized *= self.gain
            x = normalized
        np.multiply(x.view(np.complex64), turn[:, None], out=out.view(np.complex64))

    def backward(self, gradient: np.ndarray, turn: np.ndarray, x: np.ndarray | None, out: np.ndarray) -> None:
        """From the gradient of `forward`'s output to that of its input `x` (not needed without a norm), in `out`."""
        np.multiply(gradient.view(np.complex64), np.conj(turn)[:, None], out=out.view(np.complex64))
        if self.gain is not None:
            normalized = np.empty(x.shape, np.float32)
            inverse = fast_math.rms_normalize(x, normalized, self.eps)
            out *= self.gain
            fast_math.rms_normalize_backward_(out, normalized, inverse)


@dataclass
class Attention:
    """The attention of one block. The scores' scale is in the queries already."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None  # how many keys a query sees, itself included; None: all before it
    turn_q: Rotated
    turn_k: Rotated

    def forward(
        self,
        chunks: Sequence[Chunk],
        table: np.ndarray,
        q: np.ndarray,
        kv: np.ndarray,
        o: np.ndarray,
        lse: np.ndarray,
        scratch: Scratch,
    ) -> None:
        """Attention's outputs `o` [queries, H d], and the log of each query's sum of exponentials, `lse` [H, queries].

        `q` [queries, H d] as projected, `kv` [rows, 2 G d] keys (turned) and values; `table` [positions, d/2].
        """
        for chunk in chunks:
            turned = self._turned(q, chunk, table, scratch)
            scores = self._scores(turned, kv, chunk, scratch)
            sums, logs = fast_math.softmax_(scores)
            out = scratch.get("attended", *turned.shape)
            for g, (weights, sums_of) in enumerate(self._by_kv_head(scores, out)):
                for keys, columns in chunk.columns:
                    product(weights[:, columns], self._values(kv, keys, g), sums_of, add=columns.start > 0)
            np.divide(out, sums, out=_by_head(o[chunk.queries], self.heads))
            lse[:, chunk.queries] = logs[:, :, 0]

    def backward(
        self,
        chunks: Sequence[Chunk],
        table: np.ndarray,
        q: np.ndarray,
        kv: np.ndarray,
        o: np.ndarray,
        lse: np.ndarray,
        do: np.ndarray,
        dq: np.ndarray | None,
        dkv: np.ndarray | None,
        scratch: Scratch,
        first: int,
    ) -> None:
        """From `do`, the gradient of `o`, to `dq` (that of `q`), and added to `dkv` (that of `kv`, keys turned).

        `do` and `dq` [n, H d] begin at the query `first`. None for `dq` or `dkv` if it is not wanted.
        """
        for chunk in chunks:
            here = slice(chunk.queries.start - first, chunk.queries.stop - first)
            turned = self._turned(q, chunk, table, scratch)
            scores = self._scores(turned, kv, chunk, scratch)
            scores -= lse[:, chunk.queries, None]
            np.exp(scores, out=scores)
            out_gradient = scratch.get("attended", *turned.shape)
            np.copyto(out_gradient, _by_head(do[here], self.heads))
            along = np.einsum("hnd,hnd->hn", out_gradient, _by_head(o[chunk.queries], self.heads))
            slopes = scratch.get("slopes", *scores.shape)
            for g, (d_out, slope) in enumerate(self._by_kv_head(out_gradient, slopes)):
                for keys, columns in chunk.columns:
                    product(d_out, self._values(kv, keys, g).T, slope[:, columns])
            slopes -= along[:, :, None]
            slopes *= scores
            if dkv is not None:
                parts = zip(
                    self._by_kv_head(scores, out_gradient), self._by_kv_head(slopes, turned), strict=True
                )  # what comes next overwrites `turned`
                for g, ((weights, d_out), (slope, query)) in enumerate(parts):
                    for keys, columns in chunk.columns:
                        product(weights[:, columns].T, d_out, self._values(dkv, keys, g), add=True)
                        product(slope[:, columns].T, query, self._keys(dkv, keys, g), add=True)
            if dq is not None:
                for g, (slope, d_query) in enumerate(self._by_kv_head(slopes, turned)):
                    for keys, columns in chunk.columns:
                        product(slope[:, columns], self._keys(kv, keys, g), d_query, add=columns.start > 0)
                by_position = (chunk.positions.size, self.heads, self.head_dim)
                self.turn_q.backward(
                    turned.transpose(1, 0, 2),
                    table[chunk.positions],
                    q[chunk.queries].reshape(by_position),
                    dq[here].reshape(by_position),
                )

    def _turned(self, q: np.ndarray, chunk: Chunk, table: np.ndarray, scratch: Scratch) -> np.ndarray:
        """The chunk's queries [H, n, d], turned."""
        count = chunk.positions.size
        turned = scratch.get("turned", self.heads, count, self.head_dim)
        x = q[chunk.queries].reshape(count, self.heads, self.head_dim)
        self.turn_q.forward(x, table[chunk.positions], turned.transpose(1, 0, 2))
        return turned

    def _scores(self, turned: np.ndarray, kv: np.ndarray, chunk: Chunk, scratch: Scratch) -> np.ndarray:
        """The chunk's scores [H, n, keys], masked."""
        scores = scratch.get("scores", self.heads, chunk.positions.size, chunk.seen)
        for g, (rows, into) in enumerate(self._by_kv_head(turned, scores)):
            for keys, columns in chunk.columns:
                product(rows, self._keys(kv, keys, g).T, into[:, columns])
        if chunk.mask.size:
            scores[:, :, -chunk.mask.shape[1] :] += chunk.mask
        return scores

    def _by_kv_head(self, *arrays: np.ndarray) -> zip:
        """For each key head: the rows [H/G n, width] of each of `arrays` [H, n, width] that share it."""
        return zip(*(array.reshape(self.kv_heads, -1, array.shape[-1]) for array in arrays), strict=True)

    def _keys(self, kv: np.ndarray, keys: slice, g: int) -> np.ndarray:
        return kv[keys, g * self.head_dim : (g + 1) * self.head_dim]

    def _values(self, kv: np.ndarray, keys: slice, g: int) -> np.ndarray:
        return self._keys(kv, keys, self.kv_heads + g)


def _by_head(x: np.ndarray, heads: int) -> np.ndarray:
    """[n, H d] as [H, n, d], the same memory; columns beyond H d have been cut off."""
    return x.reshape(x.shape[0], heads, -1).transpose(1, 0, 2)
