"""A model with its adapter, as every answer is given: evaluation, server, agent."""

from pathlib import Path
from typing import Any

import mlx.nn as nn

from callwright.lora import layers
from callwright.models.load import load
from callwright.runtime import device


def open_model(folder: str | Path, adapter: str | Path | None = None) -> tuple[nn.Module, Any]:
    """Open the model in `folder` for generation, with the adapter in `adapter` on it; (model, tokenizer wrapper).

    On the CPU, where weights are float32, the adapter is folded into them: the same function to rounding. Elsewhere
    weights keep their bits, and the adapter stays beside them. Raises CallwrightError when a folder is not what it
    should be.
    """
    model, tokenizer = load(folder)
    if adapter is not None:
        layers.load_adapter(model, adapter)
        if device.on_cpu():
            layers.merge(model)
    return model.eval(), tokenizer
