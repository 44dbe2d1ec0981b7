"""What a training would take of a machine's memory, from a model's config.json alone: no weight is read or computed.

    python -m callwright.lora.memory.forecast config.json --tokens 540 --trained 130 --layers 8

On Metal and CUDA a model keeps its bits and its activations' type; `--cpu` counts float32 in their place, by
autograd (the written-out CPU path takes less, and says so itself, see `cpu.cost`). The graph is counted as MLX
runs it on this machine; on another kind of device the attention may be another, and nothing was measured there.
"""

import argparse
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from callwright.lora import layers
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.backend import vocabulary
from callwright.lora.batches import Batch, Record
from callwright.lora.loss import chunk_tokens
from callwright.lora.memory import footprint, usage
from callwright.lora.memory.plan import POLICIES, nbytes
from callwright.models.load import classes
from callwright.runtime.files import read_json


def model_of(config: dict[str, Any], float32: bool) -> nn.Module:
    """The model that `config` describes, with arrays that have shapes but are never computed."""
    kind, arguments = classes(config)
    model = kind(arguments.from_dict(config))
    if hasattr(model, "sanitize"):
        model.sanitize({})  # ties the head to the embedding where the checkpoint does
    bits = None if float32 else config.get("quantization")
    model.set_dtype(mx.float32 if float32 else mx.bfloat16)
    if bits:

        def chosen(path: str, module: nn.Module) -> bool | dict[str, int]:
            return bits.get(path, hasattr(module, "to_quantized"))

        nn.quantize(model, bits["group_size"], bits["bits"], class_predicate=chosen)
    model.update(tree_map(lambda a: mx.zeros(a.shape, a.dtype), model.parameters()))
    return model


def forecast(
    config: dict[str, Any], settings: dict[str, Any], records: int, tokens: int, trained: int, float32: bool = False
) -> dict[str, int]:
    """Bytes for a step on `records` records of `tokens` tokens, of which `trained` are the answer.

    `settings` are `lora`, `gradient_checkpointing` and `loss_chunk` of the config's `training`. The keys: `weights`,
    `adapter`, `optimizer`, those of `footprint.step_bytes`, and `together`.
    """
    model = model_of(config, float32)
    weights = nbytes(model.parameters())
    layers.attach(model, settings["lora"])
    adapter = nbytes(layers.adapter_parameters(model))
    settings = {**settings, "loss_chunk": chunk_tokens(settings["loss_chunk"], vocabulary(model))}
    step = AutogradBackend(model, settings, frozen_blocks(model), verify=False)
    positions = np.arange(tokens - trained - 1, tokens - 1, dtype=np.int32)
    rows = [Record("", np.zeros(tokens, np.int32), positions) for _ in range(records)]
    phases = footprint.step_bytes(step, Batch(list(range(records)), rows, tokens))
    together = weights + 3 * adapter + max(phases.values())
    return {"weights": weights, "adapter": adapter, "optimizer": 2 * adapter, **phases, "together": together}


def main() -> None:
    """Print the forecast for the command line's shape, gradient checkpointing off and on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="a model's config.json, or its folder")
    parser.add_argument("--batch", type=int, default=2, help="records at once")
    parser.add_argument("--tokens", type=int, default=512, help="length of each")
    parser.add_argument("--trained", type=int, default=128, help="of these the answer's")
    parser.add_argument("--layers", type=int, default=8, help="blocks with an adapter; -1: all")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--projections", nargs="+", default=["q_proj", "v_proj"])
    parser.add_argument("--cpu", action="store_true", help="float32 weights, as on a CPU")
    given = parser.parse_args()
    config = read_json(given.config / "config.json" if given.config.is_dir() else given.config)
    lora = {"rank": given.rank, "scale": 1.0, "dropout": 0.0, "layers": given.layers, "projections": given.projections}
    for policy in POLICIES:
        settings = {"lora": lora, "gradient_checkpointing": policy, "loss_chunk": "auto"}
        found = forecast(config, settings, given.batch, given.tokens, given.trained, given.cpu)
        print(
            f"gradient checkpointing {policy}:",
            ", ".join(f"{name} {size / usage.GB:.3f}" for name, size in found.items()),
            "GB",
        )


if __name__ == "__main__":
    main()
