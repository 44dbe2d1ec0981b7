"""Loss and gradients of a micro-batch by MLX's autograd, for every architecture and device."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from callwright.lora import gradient_checkpointing, layers
from callwright.lora.batches import Batch
from callwright.lora.blocks import Blocks
from callwright.lora.flow import Step, beginning_caches
from callwright.lora.frozen_prefix import Begun, FrozenPrefix
from callwright.lora.loss import adapted_loss, completion_loss, loss_sum
from callwright.lora.memory import footprint
from callwright.models.cpu_math import fast_inference
from callwright.runtime import device, threads

# What passes the blocks together: a batch's hidden states, or those of a beginning and of the rows that follow it.
States = tuple[mx.array, ...]


class AutogradBackend:
    """The training step's backend (see `backend.TrainingBackend`) on `model`, whose adapter is attached already.

    `settings` is the config's `training`; `first_trained_block` the number of frozen blocks below the first
    adapter. `verify` as for `Blocks`.
    """

    padded = True
    counts_flops = False

    def __init__(self, model: nn.Module, settings: dict[str, Any], first_trained_block: int, verify: bool = True):
        self.model, self.blocks, self.first_trained_block = model, Blocks(model, verify), first_trained_block
        self.chunk = settings["loss_chunk"]
        self.checkpointing = gradient_checkpointing.chosen(
            settings["gradient_checkpointing"], len(self.blocks) - first_trained_block
        )
        entry, _ = self.blocks.enter(mx.zeros((1, 1), mx.int32))
        self.width, self.dtype = entry.shape[-1], entry.dtype
        self.enters = layers.trains_entry(model)
        in_blocks = {id(a) for block in self.blocks.blocks for _, a in tree_flatten(block.trainable_parameters())}
        outside = ((name, a) for name, a in layers.adapter_parameters(model).items() if id(a) not in in_blocks)
        self.head_names = [name for name, _ in outside]  # of arrays that logits may depend on beside hidden states
        self.shares = self.blocks.shares() if verify else True
        self.value_and_grad = mx.value_and_grad(self._loss)
        self.product_threads = threads.cores()

    def configure(self, policy: str | int, chunk: int) -> None:
        """Change which blocks are recomputed, and how many tokens' logits are held at once."""
        self.checkpointing, self.chunk = (
            gradient_checkpointing.chosen(policy, len(self.blocks) - self.first_trained_block),
            chunk,
        )

    def loss_and_gradients(
        self,
        adapter: dict[str, mx.array],
        micro_batches: list[Batch],
        prefix: FrozenPrefix | None,
        phase: Callable[[str], None] | None = None,
    ) -> tuple[float, dict[str, mx.array]]:
        """(summed cross-entropy over the batches' trained tokens, its gradient for each array of `adapter`).

        `phase` is called with `forward` and `backward` when each has ended, for each batch.
        """
        note = phase or (lambda name: None)
        self.model.train()
        total, gradients = 0.0, None
        for part in (part for batch in micro_batches for part in batch.parts()):
            states, steps = (None, []) if self.enters else self._frozen(part, prefix)
            loss, found = self.value_and_grad(adapter, states, steps, part)
            mx.eval(loss)  # before the gradients: so the forward pass ends here
            note("forward")
            gradients = found if gradients is None else {name: gradients[name] + found[name] for name in found}
            mx.eval(gradients)
            total += loss.item()
            note("backward")
        self.model.update(tree_unflatten(list(adapter.items())))  # the trace left its own arrays there
        return total, gradients

    def loss(self, adapter: dict[str, mx.array], batches: list[Batch], prefix: FrozenPrefix | None) -> float:
        """The summed cross-entropy over the batches' trained tokens, without dropout."""
        self.model.update(tree_unflatten(list(adapter.items())))
        self.model.eval()
        total = 0.0
        for part in (part for batch in batches for part in batch.parts()):
            with fast_inference(self.model):
                states, steps = self._below(part, prefix)
                *_, h = self.blocks.run_flow(states, steps, self.first_trained_block, len(self.blocks))
                total += loss_sum(self.blocks.head, _gather(h, part), part.targets, self.chunk).item()
        return total

    def begin(self, tokens: np.ndarray) -> Begun:
        """What the frozen blocks make of a beginning's tokens [length], with their keys and values."""
        caches = beginning_caches(self.model)
        with fast_inference(self.model):
            h, calls = self.blocks.enter(mx.array(tokens)[None], caches)
            hidden = self.blocks.run(h, calls, 0, self.first_trained_block)[0]
        mx.eval(hidden, *(cache.arrays() for cache in caches[: self.first_trained_block]))
        return Begun(hidden, caches)

    def prefix(self, tokens: np.ndarray, begun: Begun | None = None) -> mx.array:
        """The frozen blocks' output [length, width] for one record's tokens [length], or for those behind `begun`."""
        with fast_inference(self.model):
            if begun is None:
                h, calls = self.blocks.enter(mx.array(tokens)[None])
            else:
                caches = [cache.branch(begun.length) for cache in begun.states]
                h, calls = self.blocks.enter(mx.array(tokens[begun.length :])[None], caches)
            hidden = self.blocks.run(h, calls, 0, self.first_trained_block)[0]
        mx.eval(hidden)
        return hidden

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """`function` of each job, one after the other: MLX's own operations use all that is there."""
        return [function(job) for job in jobs]

    def activation_bytes(self, batch: Batch) -> int:
        """The most bytes in a step on `batch` beyond weights, adapter and optimizer; nothing is computed."""
        return max(max(footprint.step_bytes(self, part).values()) for part in batch.parts())

    def rows(self, batch: Batch) -> int:
        """The positions of the largest of the batch's padded parts, one of which is computed at a time."""
        return max(part.skipped + part.width * len(part.records) for part in batch.parts())

    def flops(self, batch: Batch) -> dict[str, int]:
        """Not counted here."""
        return {}

    def close(self) -> None:
        """Nothing to end here; `CpuBackend` has threads."""

    def enter(self, batch: Batch) -> tuple[States, list[Step]]:
        """The states of a part of a batch where they enter the first block, and how each block is called."""
        return self.blocks.enter_flow(
            batch.tokens, None if batch.beginning is None else mx.array(batch.beginning.tokens)
        )

    def _frozen(self, batch: Batch, prefix: FrozenPrefix | None) -> tuple[States, list[Step]]:
        """What the trained blocks get, computed by the functions that know no gradients, where none is asked for."""
        if not device.on_cpu():
            return self._below(batch, prefix)
        with fast_inference(self.model):
            states, steps = self._below(batch, prefix)
            mx.eval(states)
        return states, steps

    def _below(self, batch: Batch, prefix: FrozenPrefix | None) -> tuple[States, list[Step]]:
        states, steps = self.enter(batch)
        if prefix is None:
            return self.blocks.run_flow(states, steps, 0, self.first_trained_block), steps
        if batch.beginning is None:
            rows, first = [prefix.get(index) for index in batch.indices], ()
        else:
            rows = [prefix.branch(index) for index in batch.indices]
            first = (prefix.beginning(batch.beginning)[None],)
        h = mx.stack([mx.pad(row, ((0, batch.width - row.shape[0]), (0, 0))) for row in rows])
        return (*first, h), steps

    def _loss(self, adapter: dict[str, mx.array], states: States | None, steps: list[Step], batch: Batch) -> mx.array:
        self.model.update(tree_unflatten(list(adapter.items())))
        if states is None:
            states, steps = self.enter(batch)
        for block, step, again in zip(
            self.blocks.blocks[self.first_trained_block :],
            steps[self.first_trained_block :],
            self.checkpointing,
            strict=True,
        ):
            states = gradient_checkpointing.checkpointed(block, step)(*states) if again else step(block, *states)
        h = _gather(states[-1], batch)
        if self.head_names:
            on_head = {name: adapter[name] for name in self.head_names}
            return adapted_loss(self._head, h, on_head, batch.targets, self.chunk)
        return completion_loss(self.blocks.head, h, batch.targets, self.chunk)

    def _head(self, hidden: mx.array, parameters: dict[str, mx.array]) -> mx.array:
        self.model.update(tree_unflatten(list(parameters.items())))
        return self.blocks.head(hidden)


def _gather(h: mx.array, batch: Batch) -> mx.array:
    return h.reshape(-1, h.shape[-1])[batch.positions]


def frozen_blocks(model: nn.Module) -> int:
    """How many of the model's first blocks never change, nor what enters them: those below the first adapter."""
    if layers.trains_entry(model):
        return 0
    for index, block in enumerate(model.layers):
        if any(isinstance(module, layers.LowRank) for module in block.modules()):
            return index
    return len(model.layers)
