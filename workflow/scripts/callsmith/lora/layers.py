"""LoRA layers, and adapters on disk in mlx-lm's layout.

A low-rank update rides on a frozen linear layer: y = W x + scale * (dropout(x) A) B, with
A [in, rank] drawn from U(-1/sqrt(in), 1/sqrt(in)) and B [rank, out] zero, so that training
starts at the base model (Hu et al. 2021, https://arxiv.org/abs/2106.09685). Parameter names,
shapes and files are those of mlx-lm, so `mlx_lm.load(model, adapter_path=...)` opens our
adapters and `load_adapter` opens theirs.
"""

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from callsmith.runtime.errors import CallsmithError
from callsmith.runtime.files import atomic_write, read_json, write_json

log = logging.getLogger(__name__)

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"


class LoRALinear(nn.Module):
    """A frozen `nn.Linear` or `nn.QuantizedLinear` with a trainable low-rank update.

    Input [..., in], output [..., out], in the dtype of the frozen layer's output.
    """

    def __init__(self, linear: nn.Linear | nn.QuantizedLinear, rank: int, scale: float, dropout: float = 0.0):
        super().__init__()
        outputs, inputs = linear_shape(linear)
        bound = 1 / math.sqrt(inputs)
        self.linear = linear
        self.dropout = nn.Dropout(p=dropout)
        self.scale = scale
        self.lora_a = mx.random.uniform(low=-bound, high=bound, shape=(inputs, rank))
        self.lora_b = mx.zeros((rank, outputs))

    def __call__(self, x: mx.array) -> mx.array:
        y = self.linear(x)
        update = (self.dropout(x) @ self.lora_a) @ self.lora_b
        return y + (self.scale * update).astype(y.dtype)


def linear_shape(linear: nn.Linear | nn.QuantizedLinear) -> tuple[int, int]:
    """(out, in) of a plain or quantized linear layer."""
    outputs, inputs = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        inputs = inputs * 32 // linear.bits  # packed in 32-bit words
    return outputs, inputs


def attach(model: nn.Module, settings: dict[str, Any]) -> list[str]:
    """Freeze `model` and put LoRA on its last blocks, in place; returns the adapted layers' names in a block.

    `settings` is the config's `training.lora`: rank, scale, dropout, layers (the last so many
    blocks; -1 for all) and projections (last name parts as in `q_proj`, or paths in the block
    as in `self_attn.q_proj`). A is drawn from `mx.random`, in the order of the blocks.

    Raises CallsmithError for a projection that the blocks do not have, naming those they have,
    and for more layers than there are.
    """
    blocks = model.layers
    count = settings["layers"]
    if count > len(blocks) or count == 0 or count < -1:
        raise CallsmithError(
            f"config key training.lora.layers is {count}, but the model has {len(blocks)} blocks: "
            f"expected 1 to {len(blocks)}, or -1 for all"
        )
    adapted = blocks if count == -1 else blocks[-count:]
    keys = projection_paths(adapted, settings["projections"])
    model.freeze()
    _wrap(adapted, keys, settings)
    return keys


def projection_paths(blocks: Iterable[nn.Module], projections: Iterable[str]) -> list[str]:
    """The paths in a block, as `self_attn.q_proj`, that `projections` names, in the blocks' own order.

    Raises CallsmithError for a name that no block has.
    """
    found: dict[str, None] = {}
    for block in blocks:
        for path, module in block.named_modules():
            if isinstance(module, nn.Linear | nn.QuantizedLinear):
                found[path] = None
    wanted = list(projections)
    for name in wanted:
        if not any(_names(name, path) for path in found):
            raise CallsmithError(
                f"config key training.lora.projections names {name!r}, which the model's blocks do not have; "
                f"they have: {', '.join(sorted(path.rsplit('.', 1)[-1] for path in found))}"
            )
    return sorted(path for path in found if any(_names(name, path) for name in wanted))


def _names(name: str, path: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _wrap(blocks: Iterable[nn.Module], keys: Iterable[str], settings: dict[str, Any]) -> None:
    keys = set(keys)
    for block in blocks:
        wrapped = []
        for path, module in sorted(block.named_modules(), key=lambda item: item[0]):
            if path in keys and isinstance(module, nn.Linear | nn.QuantizedLinear):
                layer = LoRALinear(module, settings["rank"], settings["scale"], settings["dropout"])
                layer.linear.freeze()
                wrapped.append((path, layer))
        block.update_modules(tree_unflatten(wrapped))


def adapter_parameters(model: nn.Module) -> dict[str, mx.array]:
    """The adapter's arrays by their full names, as `model.layers.29.self_attn.q_proj.lora_a`, in a fixed order."""
    return dict(sorted(tree_flatten(model.trainable_parameters())))


def save_adapter(folder: str | Path, weights: dict[str, mx.array], config: dict[str, Any]) -> None:
    """Write `adapter_config.json`, then `adapters.safetensors`, each at once or not at all."""
    folder = Path(folder)
    write_json(folder / CONFIG, config)
    save_arrays(folder / WEIGHTS, weights)


def save_arrays(path: Path, arrays: dict[str, mx.array], metadata: dict[str, str] | None = None) -> None:
    """Write arrays as safetensors through `atomic_write`; a full disk leaves the old file in place."""
    with atomic_write(path) as stream:
        mx.save_safetensors(stream, dict(arrays), metadata or {"format": "mlx"})


def adapter_config(model: nn.Module, settings: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """The content of `adapter_config.json` for LoRA `settings` (config key `training.lora`) on the paths `keys`.

    `num_layers` is written out, since mlx-lm reads both 0 and -1 as all blocks.
    """
    blocks = len(model.layers)
    return {
        "fine_tune_type": "lora",
        "num_layers": blocks if settings["layers"] == -1 else settings["layers"],
        "lora_parameters": {
            "rank": settings["rank"],
            "scale": settings["scale"],
            "dropout": settings["dropout"],
            "keys": keys,
        },
    }


def load_adapter(model: nn.Module, folder: str | Path) -> None:
    """Put the adapter in `folder` (mlx-lm's layout, ours or theirs) on `model`, in place and unfused.

    Raises CallsmithError when a file is missing, the kind is not LoRA, or names and shapes do
    not fit the model.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise CallsmithError(f"{folder} is not an adapter: it has no {WEIGHTS}")
    config = read_json(folder / CONFIG)
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise CallsmithError(f"{folder / CONFIG}: fine_tune_type is {kind!r}; only 'lora' can be loaded")
    settings = {"dropout": 0.0, **config["lora_parameters"]}
    count = config["num_layers"]
    blocks = model.layers if count <= 0 else model.layers[-count:]
    keys = settings.get("keys")
    if keys is None:  # mlx-lm's default: every linear layer of a block
        keys = {
            path
            for block in model.layers
            for path, module in block.named_modules()
            if isinstance(module, nn.Linear | nn.QuantizedLinear)
        }
    _wrap(blocks, keys, settings)
    weights = mx.load(str(folder / WEIGHTS))
    expected = {
        name: value.shape
        for name, value in tree_flatten(model.parameters())
        if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b")
    }
    for name in sorted(expected.keys() | weights.keys()):
        found = weights[name].shape if name in weights else "nothing"
        wanted = expected.get(name, "nothing")
        if found != wanted:
            raise CallsmithError(
                f"{folder / WEIGHTS} does not fit the model: {name} is {found}, the model expects {wanted}"
            )
    model.load_weights(list(weights.items()), strict=False)


def merge(model: nn.Module) -> None:
    """Fold each adapter on a plain linear layer into its weight, W + scale * (A B)^T, in place.

    The same function to rounding, without the adapter's own products at every token. Adapters on
    quantized layers stay as they are: fusing into 4 bits can round an update away.
    """
    merged = []
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear) and type(module.linear) is nn.Linear:
            linear = module.linear
            update = module.scale * (module.lora_a @ module.lora_b).T
            linear.weight = linear.weight + update.astype(linear.weight.dtype)
            merged.append((path, linear))
    model.update_modules(tree_unflatten(merged))
    mx.eval(model.parameters())
