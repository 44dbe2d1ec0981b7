"""The head's rows of marker tokens as one more array to train, on the written-out CPU path, and a model that has them.

The rows are the head's alone. Where the head is tied to the embedding, the embedding keeps its own, so that nothing
below the first trained block changes, and what a prompt says with these tokens stays what it was.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from callwright.lora.batches import Batch
from callwright.lora.cpu.head import Head, Part
from callwright.lora.cpu.path import CpuBackend
from callwright.lora.cpu.storage import Scratch
from callwright.models import blockwise

ROWS = "head_rows"  # the array's name among the adapter's: [markers, D] float32
Arrays = dict[str, mx.array]


class MarkerHead(Head):
    """The head of the CPU path on a matrix of its own, with the gradient for its rows of the tokens `ids` [markers].

    A row's gradient needs no more than its column of the logits: sum over tokens of (softmax - one-hot) x, for the
    normed hidden states x [n, D]. `gradient` [markers, D] adds it up until somebody sets it to zero.
    """

    def __init__(self, head: Head, ids: np.ndarray):
        super().__init__(head.weight.copy(), head.gain, head.eps, head.chunk, head.workers)
        self.ids, self.gradient = ids, np.zeros((ids.size, self.weight.shape[1]), np.float32)

    def _chunk(self, hidden: np.ndarray, targets: np.ndarray, gradient: bool, scratch: list[Scratch]) -> float:
        self.parts_lse: list[np.ndarray] = []
        loss = super()._chunk(hidden, targets, gradient, scratch)
        if gradient:
            lse = np.logaddexp.reduce(self.parts_lse)  # [n, 1]
            slope = np.exp(self.normed @ self.weight[self.ids].T - lse) - (targets[:, None] == self.ids)
            self.gradient += slope.astype(np.float32).T @ self.normed
        return loss

    def _part(self, hidden: np.ndarray, targets: np.ndarray, span: slice, gradient: bool, scratch: Scratch) -> Part:
        part = super()._part(hidden, targets, span, gradient, scratch)
        self.parts_lse.append(part.highest + np.log(part.sums))  # of this part of the vocabulary; threads may append
        self.normed = hidden  # the same for every part
        return part


class MarkerBackend:
    """`backend` for an adapter that holds ROWS too: the head's rows of the tokens `ids` [markers]."""

    def __init__(self, backend: CpuBackend, ids: mx.array):
        self.backend, self.head = backend, MarkerHead(backend.head, np.array(ids))
        backend.head = self.head

    def loss_and_gradients(self, adapter: Arrays, batches: list[Batch], prefix: Any) -> tuple[float, Arrays]:
        """As `CpuBackend.loss_and_gradients`, with the gradient for ROWS among the others."""
        self.head.weight[self.head.ids] = np.asarray(adapter[ROWS])
        self.head.gradient[:] = 0
        total, gradients = self.backend.loss_and_gradients(adapter, batches, prefix)
        return total, {**gradients, ROWS: mx.array(self.head.gradient)}

    def close(self) -> None:
        """End the threads."""
        self.backend.close()


class MarkedEmbedding(nn.Embedding):
    """`embedding` that, as the head, has `rows` [markers, D] for the tokens `ids` [markers]; these can be trained."""

    def __init__(self, embedding: nn.Embedding, ids: mx.array, rows: mx.array):
        super().__init__(1, 1)
        self.weight, self.rows, self._ids = embedding.weight, rows, ids
        self.freeze(keys=["weight"])

    def as_linear(self, x: mx.array) -> mx.array:
        """Logits [..., vocabulary] of `x` [..., D]."""
        logits = super().as_linear(x)
        logits[..., self._ids] = x @ self.rows.T
        return logits


def put_head_rows(model: nn.Module, ids: mx.array, rows: mx.array) -> None:
    """Give the head of `model`, in place, `rows` [markers, D] for the tokens `ids` [markers]."""
    path = blockwise.matrices(model)[-1]
    head = dict(model.named_modules())[path]
    if isinstance(head, nn.Embedding):
        model.update_modules(tree_unflatten([(path, MarkedEmbedding(head, ids, rows))]))
    else:
        head.weight[ids] = rows
