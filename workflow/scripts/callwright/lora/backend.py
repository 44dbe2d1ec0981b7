"""What computes losses and gradients: the contract, and which of its implementations a training takes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.lora import layers
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.batches import Batch
from callwright.lora.cpu.path import CpuBackend, supports
from callwright.lora.frozen_prefix import Begun, FrozenPrefix
from callwright.lora.loss import chunk_tokens

Arrays = dict[str, mx.array]


@runtime_checkable
class TrainingBackend(Protocol):
    """The contract of `AutogradBackend`, `CpuBackend` and `DataParallelBackend`.

    The adapter's arrays are passed in by name with each call, so a backend has no state that a step changes.
    Losses and gradients are sums over trained tokens; whoever wants a mean divides.
    """

    first_trained_block: int  # the number of frozen blocks below it
    width: int  # of a hidden state
    dtype: mx.Dtype  # of a hidden state
    padded: bool  # whether it computes a batch's padding too
    counts_flops: bool  # whether `flops` knows
    product_threads: int  # the threads that each matrix product has
    shares: bool  # whether it computes a beginning once for the records of a batch that share it

    def configure(self, policy: str | int, chunk: int) -> None:
        """Change which blocks are recomputed, and how many tokens' logits are held at once."""

    def loss_and_gradients(
        self,
        adapter: Arrays,
        micro_batches: list[Batch],
        prefix: FrozenPrefix | None,
        phase: Callable[[str], None] | None = None,
    ) -> tuple[float, Arrays]:
        """(summed cross-entropy over the batches' trained tokens, its gradient for each array of `adapter`).

        With a `prefix`, what enters the first trained block is read there. `phase` is called with the name of each
        phase when it has ended.
        """

    def loss(self, adapter: Arrays, batches: list[Batch], prefix: FrozenPrefix | None) -> float:
        """The summed cross-entropy over the batches' trained tokens, without dropout."""

    def begin(self, tokens: np.ndarray) -> Begun:
        """What the frozen blocks make of a beginning's tokens [length], for `prefix` to go on from."""

    def prefix(self, tokens: np.ndarray, begun: Begun | None = None) -> mx.array:
        """The frozen blocks' output [length, width] for one record's tokens [length], evaluated.

        With `begun`, its beginning's, that for the tokens behind it alone.
        """

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """`function` of each job, several at a time where this backend has threads that would idle else.

        For `begin` and `prefix`, which may be called so and give the same bits.
        """

    def activation_bytes(self, batch: Batch) -> int:
        """The most bytes in a step on `batch` beyond weights, adapter and optimizer; nothing is computed."""

    def rows(self, batch: Batch) -> int:
        """How many positions of `batch` are in memory at once: of two batches, the one with more takes more."""

    def flops(self, batch: Batch) -> dict[str, int]:
        """The floating-point operations in matrix products that a step on `batch` needs, by phase; empty: unknown."""

    def close(self) -> None:
        """End what the backend started; it is not used any more."""


def backend(model: nn.Module, settings: dict[str, Any]) -> TrainingBackend:
    """The backend of a training step on `model`, adapter attached, with `settings` (config key `training`).

    The written-out CPU path where it fits, else MLX's autograd. What is `auto` begins as if memory were ample;
    `configure` changes it, see `plan`.
    """
    chunk = chunk_tokens(settings["loss_chunk"], vocabulary(model))
    checkpointing = "off" if settings["gradient_checkpointing"] == "auto" else settings["gradient_checkpointing"]
    settings = {**settings, "loss_chunk": chunk, "gradient_checkpointing": checkpointing}
    first_trained_block = frozen_blocks(model)
    if not layers.trains_entry(model) and supports(model, settings):
        return CpuBackend(model, settings, first_trained_block)
    return AutogradBackend(model, settings, first_trained_block)


def vocabulary(model: nn.Module) -> int:
    """How many logits a token has; nothing is computed."""
    return model(mx.zeros((1, 1), mx.int32)).shape[-1]
