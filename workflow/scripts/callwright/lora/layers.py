"""Which layers of a model are adapted, and adapters on disk in mlx-lm's layout.

`mlx_lm.load(model, adapter_path=...)` opens our adapters and `load_adapter` opens theirs. What
mlx-lm 0.32.2 could not load is refused before training: DoRA on a quantized embedding, whose width
it takes from the packed words, and DoRA on layers of 3, 5 or 6 bits, likewise.
"""

import logging
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from callwright.lora.lowrank import Adaptable, Embedding, LowRank, Quantized, wrap
from callwright.lora.lowrank import LoRALinear as LoRALinear
from callwright.models.marker_rows import put_rows
from callwright.models.weights import check_file
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import atomic_write, read_json, write_json

log = logging.getLogger(__name__)

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"
KINDS = ("lora", "dora")  # as in `fine_tune_type`


def attach(model: nn.Module, settings: dict[str, Any]) -> list[str]:
    """Freeze `model` and put low-rank layers on it, in place; returns the adapted layers' names.

    `settings` is the config's `training.lora`: kind, rank, scale, rslora, dropout, layers (the last
    so many blocks; -1 for all) and projections: last parts of names as in `q_proj`, or paths as in
    `self_attn.q_proj`. A projection that the model has outside of its blocks (`embed_tokens`,
    `lm_head`) is adapted there whatever `layers` says. Names in a block are relative to it, as
    mlx-lm writes them. A is drawn from `mx.random`, in the order of the blocks.

    Raises CallwrightError for a projection that the model does not have, naming those it has, for
    more layers than there are, and for what mlx-lm could not load.
    """
    blocks = model.layers
    count = settings["layers"]
    if count > len(blocks) or count == 0 or count < -1:
        raise CallwrightError(
            f"config key training.lora.layers is {count}, but the model has {len(blocks)} blocks: "
            f"expected 1 to {len(blocks)}, or -1 for all"
        )
    adapted = blocks if count == -1 else blocks[-count:]
    keys = projection_paths(model, adapted, settings["projections"])
    kind = settings.get("kind", "lora")
    if kind == "dora":
        _check_dora(model, adapted, keys)
    model.freeze()
    _wrap(model, adapted, keys, kind, settings["rank"], effective_scale(settings), settings["dropout"])
    return keys


def effective_scale(settings: dict[str, Any]) -> float:
    """The factor of the update A B, mlx-lm's `scale`: the config's, divided by sqrt(rank) with `rslora`.

    Rank-stabilized LoRA (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732) has alpha / sqrt(rank)
    in place of alpha / rank, so that one learning rate fits all ranks; alpha is the config's `scale`.
    """
    scale = float(settings["scale"])
    return scale / math.sqrt(settings["rank"]) if settings.get("rslora") else scale


def projection_paths(model: nn.Module, blocks: Iterable[nn.Module], projections: Iterable[str]) -> list[str]:
    """What `projections` names: paths in a block, as `self_attn.q_proj`, or in the model, as `model.embed_tokens`.

    In alphabetical order. Raises CallwrightError for a name that the model does not have.
    """
    found = dict.fromkeys(path for block in blocks for path, _ in adaptable(block))
    found |= dict.fromkeys(path for path, _ in outside_blocks(model))
    wanted = list(projections)
    for name in wanted:
        if not any(_names(name, path) for path in found):
            raise CallwrightError(
                f"config key training.lora.projections names {name!r}, which the model's blocks do not have; "
                f"the model has: {', '.join(sorted(path.rsplit('.', 1)[-1] for path in found))}"
            )
    return sorted(path for path in found if any(_names(name, path) for name in wanted))


def adaptable(module: nn.Module) -> Iterator[tuple[str, Adaptable]]:
    """(path, layer) of the linear layers and embeddings in `module`."""
    return ((path, layer) for path, layer in module.named_modules() if isinstance(layer, Adaptable))


def outside_blocks(model: nn.Module) -> Iterator[tuple[str, Adaptable]]:
    """(path, layer) of the linear layers and embeddings that stand before and after the model's blocks."""
    inside = {id(layer) for block in model.layers for layer in block.modules()}
    return ((path, layer) for path, layer in adaptable(model) if id(layer) not in inside)


def _names(name: str, path: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _check_dora(model: nn.Module, blocks: Iterable[nn.Module], keys: Iterable[str]) -> None:
    keys = set(keys)
    for path, layer in [*outside_blocks(model), *(item for block in blocks for item in adaptable(block))]:
        # On the CPU a layer is dequantized when it is loaded, see `models.load`; the model's folder is not.
        bits = layer.bits if isinstance(layer, Quantized) else getattr(layer, "quantized_bits", None)
        if path not in keys or bits is None:
            continue
        remedy = "take `training.lora.kind: lora`, or leave it out of training.lora.projections"
        if isinstance(layer, Embedding):
            raise CallwrightError(f"DoRA on the quantized embedding {path}: mlx-lm 0.32.2 cannot load it; {remedy}")
        if 32 % bits:
            raise CallwrightError(f"DoRA on {path}, quantized to {bits} bits: mlx-lm 0.32.2 cannot load it; {remedy}")


def _wrap(
    model: nn.Module,
    blocks: Iterable[nn.Module],
    keys: Iterable[str],
    kind: str,
    rank: int,
    scale: float,
    dropout: float,
) -> None:
    keys = set(keys)
    for place, layers in [*((block, adaptable(block)) for block in blocks), (model, outside_blocks(model))]:
        named = sorted((item for item in layers if item[0] in keys), key=lambda item: item[0])
        wrapped = [(path, wrap(layer, kind, rank, scale, dropout)) for path, layer in named]
        if wrapped:
            place.update_modules(tree_unflatten(wrapped))


def lowrank_layers(model: nn.Module) -> list[tuple[str, LowRank]]:
    """(path, layer) of all adapted layers."""
    return [(path, module) for path, module in model.named_modules() if isinstance(module, LowRank)]


def trains_entry(model: nn.Module) -> bool:
    """Whether an adapted layer stands where the tokens enter, so that no block's input is fixed."""
    outside = {id(layer) for _, layer in lowrank_layers(model)}
    outside -= {id(layer) for block in model.layers for layer in block.modules()}
    return any(id(layer) in outside and not path.endswith("lm_head") for path, layer in lowrank_layers(model))


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
    """The content of `adapter_config.json` for `settings` (config key `training.lora`) on the paths `keys`.

    `num_layers` is written out, since mlx-lm reads both 0 and -1 as all blocks; `scale` is the
    effective one, since mlx-lm knows nothing of rsLoRA.
    """
    blocks = len(model.layers)
    return {
        "fine_tune_type": settings.get("kind", "lora"),
        "num_layers": blocks if settings["layers"] == -1 else settings["layers"],
        "lora_parameters": {
            "rank": settings["rank"],
            "scale": effective_scale(settings),
            "dropout": settings["dropout"],
            "keys": keys,
        },
    }


def load_adapter(model: nn.Module, folder: str | Path) -> None:
    """Put the adapter in `folder` (mlx-lm's layout, ours or theirs) on `model`, in place and unfused.

    Raises CallwrightError when a file or a setting is missing, the kind is neither LoRA nor DoRA, or
    names and shapes do not fit the model.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        theirs = (folder / "adapter_model.safetensors").is_file()
        hint = ": it is one of PEFT's; train it here, or convert it to mlx-lm's layout" if theirs else ""
        raise CallwrightError(f"{folder} is not an adapter: it has no {WEIGHTS}{hint}")
    names = check_file(folder / WEIGHTS)
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise CallwrightError(f"{folder / CONFIG} is no object: it is not an adapter in mlx-lm's layout")
    kind = config.get("fine_tune_type", "lora")
    if kind not in KINDS:
        hint = "; `mlx_lm.fuse` makes a model folder of it, which is a model source" if kind == "full" else ""
        raise CallwrightError(
            f"{folder / CONFIG}: fine_tune_type is {kind!r}; only 'lora' and 'dora' can be loaded{hint}"
        )
    try:
        settings = config["lora_parameters"]
        count, rank, scale = config["num_layers"], settings["rank"], settings["scale"]
    except (KeyError, TypeError) as error:
        what = error if isinstance(error, KeyError) else "`lora_parameters` with rank and scale"
        raise CallwrightError(f"{folder / CONFIG} has no {what}: it is not an adapter in mlx-lm's layout") from error
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (count, rank, scale)):
        raise CallwrightError(
            f"{folder / CONFIG}: num_layers, rank and scale are {count!r}, {rank!r}, {scale!r}; expected numbers"
        )
    keys, named = settings.get("keys"), True
    if keys is None:  # mlx-lm's default changed over time: the weights themselves say which layers they are for
        keys, named = adapted_paths(names), False
    blocks = model.layers if count <= 0 else model.layers[-count:]
    put_rows(model, folder)
    _wrap(model, blocks, keys, kind, rank, scale, settings.get("dropout", 0.0))
    weights = mx.load(str(folder / WEIGHTS))
    expected = {
        f"{path}.{name}": layer[name].shape
        for path, layer in lowrank_layers(model)
        for name in ("lora_a", "lora_b", "m")
        if name in layer
    }
    for name in sorted(expected.keys() | weights.keys()):
        found = weights[name].shape if name in weights else "nothing"
        wanted = expected.get(name, "nothing")
        if found == "nothing" and not named:
            continue  # a block that the file leaves out: B is zero, so it is not adapted, as in mlx-lm
        if found != wanted:
            raise CallwrightError(
                f"{folder / WEIGHTS} does not fit the model: {name} is {found}, the model expects {wanted}"
            )
    model.load_weights(list(weights.items()), strict=False)


def adapted_paths(names: Iterable[str]) -> set[str]:
    """The paths of the layers that an adapter's weights are for, within their block, or in the model outside of it."""
    found = set()
    for name in names:
        path, _, kind = name.rpartition(".")
        if kind in ("lora_a", "lora_b", "m"):
            found.add(re.sub(r"^.*?\blayers\.\d+\.", "", path))
    return found


def merge(model: nn.Module) -> None:
    """Fold each adapter on a plain linear layer or embedding into its weight, in place.

    The same function to rounding, without the adapter's own products at every token. Adapters on
    quantized layers stay as they are: fusing into 4 bits can round an update away.
    """
    plain = [(path, layer) for path, layer in lowrank_layers(model) if isinstance(layer.base, nn.Linear | nn.Embedding)]
    model.update_modules(tree_unflatten([(path, layer.merged()) for path, layer in plain]))
    mx.eval(model.parameters())
