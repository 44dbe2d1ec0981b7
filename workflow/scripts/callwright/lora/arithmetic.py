"""What computes losses and gradients: the written-out CPU path where it fits, else MLX's autograd."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from callwright.lora import layers
from callwright.lora.autograd import Autograd, frozen_blocks
from callwright.lora.cpu.path import CpuPath, supports
from callwright.lora.loss import chunk_tokens


def arithmetic(model: nn.Module, settings: dict[str, Any]) -> Autograd | CpuPath:
    """The arithmetic of a training step on `model`, adapter attached, with `settings` (config key `training`).

    What is `auto` begins as if memory were ample; `configure` changes it, see `plan`.
    """
    chunk = chunk_tokens(settings["loss_chunk"], vocabulary(model))
    recompute = "off" if settings["recompute"] == "auto" else settings["recompute"]
    settings = {**settings, "loss_chunk": chunk, "recompute": recompute}
    cut = frozen_blocks(model)
    if not layers.trains_entry(model) and supports(model, settings):
        return CpuPath(model, settings, cut)
    return Autograd(model, settings, cut)


def vocabulary(model: nn.Module) -> int:
    """How many logits a token has; nothing is computed."""
    return model(mx.zeros((1, 1), mx.int32)).shape[-1]
