"""What computes losses and gradients: the written-out CPU path where it fits, else MLX's autograd."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from callwright.lora import layers
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.cpu.path import CpuBackend, supports
from callwright.lora.loss import chunk_tokens


def backend(model: nn.Module, settings: dict[str, Any]) -> AutogradBackend | CpuBackend:
    """The backend of a training step on `model`, adapter attached, with `settings` (config key `training`).

    What is `auto` begins as if memory were ample; `configure` changes it, see `plan`.
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
