"""Loss and gradients of a micro-batch by MLX's autograd, for every architecture and device."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from callsmith.lora import layers, recompute
from callsmith.lora.batches import Batch
from callsmith.lora.blocks import Blocks
from callsmith.lora.loss import completion_loss, loss_sum
from callsmith.lora.trunk import Trunk


class Autograd:
    """The training step's arithmetic on `model`, whose adapter is attached already.

    `settings` is the config's `training`; `cut` the number of frozen blocks below the first
    adapter. The adapter's arrays are passed in by name with each call.
    """

    def __init__(self, model: nn.Module, settings: dict[str, Any], cut: int):
        self.model, self.blocks, self.cut = model, Blocks(model), cut
        self.chunk = settings["loss_chunk"]
        self.recompute = recompute.chosen(settings["recompute"], len(self.blocks) - cut)
        entry, _ = self.blocks.enter(mx.zeros((1, 1), mx.int32))
        self.width, self.dtype = entry.shape[-1], entry.dtype
        self.value_and_grad = mx.value_and_grad(self._loss)

    def loss_and_gradients(
        self, adapter: dict[str, mx.array], micro_batches: list[Batch], trunk: Trunk | None
    ) -> tuple[float, dict[str, mx.array]]:
        """(summed cross-entropy over the batches' trained tokens, its gradient for each array of `adapter`)."""
        self.model.train()
        total, gradients = 0.0, None
        for batch in micro_batches:
            h, calls = self._below(batch, trunk)
            loss, found = self.value_and_grad(adapter, mx.stop_gradient(h), calls, batch)
            gradients = found if gradients is None else {name: gradients[name] + found[name] for name in found}
            mx.eval(loss, gradients)
            total += loss.item()
        self.model.update(tree_unflatten(list(adapter.items())))  # the trace left its own arrays there
        return total, gradients

    def loss(self, adapter: dict[str, mx.array], batches: list[Batch], trunk: Trunk | None) -> float:
        """The summed cross-entropy over the batches' trained tokens, without dropout."""
        self.model.update(tree_unflatten(list(adapter.items())))
        self.model.eval()
        total = 0.0
        for batch in batches:
            h, calls = self._below(batch, trunk)
            h = self.blocks.run(h, calls, self.cut, len(self.blocks))
            total += loss_sum(self.blocks.head, _gather(h, batch), batch.targets, self.chunk).item()
        return total

    def trunk(self, tokens: np.ndarray) -> mx.array:
        """The frozen blocks' output [length, width] for one record's tokens [length]."""
        h, calls = self.blocks.enter(mx.array(tokens)[None])
        return self.blocks.run(h, calls, 0, self.cut)[0]

    def close(self) -> None:
        """Nothing to end here; `LlamaCPU` has threads."""

    def _below(self, batch: Batch, trunk: Trunk | None) -> tuple[mx.array, list]:
        h, calls = self.blocks.enter(batch.tokens)
        if trunk is None:
            return self.blocks.run(h, calls, 0, self.cut), calls
        rows = [trunk.get(index) for index in batch.indices]
        return mx.stack([mx.pad(row, ((0, batch.width - row.shape[0]), (0, 0))) for row in rows]), calls

    def _loss(self, adapter: dict[str, mx.array], h: mx.array, calls: list, batch: Batch) -> mx.array:
        self.model.update(tree_unflatten(list(adapter.items())))
        for block, call, again in zip(self.blocks.blocks[self.cut :], calls[self.cut :], self.recompute, strict=True):
            h = recompute.checkpointed(block, call)(h) if again else block(h, *call[0], **call[1])
        return completion_loss(self.blocks.head, _gather(h, batch), batch.targets, self.chunk)


def _gather(h: mx.array, batch: Batch) -> mx.array:
    return h.reshape(-1, h.shape[-1])[batch.positions]


def frozen_blocks(model: nn.Module) -> int:
    """How many of the model's first blocks hold no adapter."""
    for index, block in enumerate(model.layers):
        if any(isinstance(module, layers.LoRALinear) for module in block.modules()):
            return index
    return len(model.layers)
