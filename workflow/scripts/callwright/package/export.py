"""The fused model for other programs in Hugging Face's layout; `gguf_file` has the other form."""

import logging
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
from mlx.utils import tree_flatten

from callwright.lora.lowrank import Quantized
from callwright.models.folders import UNREADABLE, first_line, fresh_folder, share_model_files
from callwright.models.load import open_model, to_float32
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

log = logging.getLogger(__name__)

# Architectures whose weights mlx-lm keeps under transformers' names, row for row: the export only unpacks them.
SAME_NAMES = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}
OURS = ("quantization", "quantization_config", "torch_dtype")


def to_huggingface(model_folder: str | Path, folder: str | Path, dtype: str = "auto") -> None:
    """Write the model in `model_folder` (mlx-lm's) as transformers loads it, not quantized.

    dtype: `float16`, `bfloat16`, `float32`, or `auto`, the one that the model computes in. Rotary rows need no
    reordering: mlx-lm and transformers both keep the halves of a head one after the other.

    Raises CallwrightError for an architecture whose weights mlx-lm names or shapes differently.
    """
    model_folder = Path(model_folder)
    config = read_json(model_folder / "config.json")
    if config.get("model_type") not in SAME_NAMES:
        raise CallwrightError(
            f"{model_folder}: a model of type {config.get('model_type')!r} cannot be exported to transformers' layout; "
            f"take `safetensors` out of package.exports (known types: {', '.join(SAME_NAMES)})"
        )
    try:
        model = open_model(model_folder)
    except UNREADABLE as error:
        raise CallwrightError(f"{model_folder} is not a model that mlx-lm opens: {first_line(error)}") from error
    if dtype == "auto":
        dtype = own_dtype(model)
    to_float32(model)
    weights = {name: array.astype(DTYPES[dtype]) for name, array in tree_flatten(model.parameters())}
    tied = config.get("tie_word_embeddings", "lm_head.weight" not in weights or config["model_type"] == "gemma3_text")
    if tied:
        weights.pop("lm_head.weight", None)
    with fresh_folder(folder) as filling:
        share_model_files(model_folder, filling)
        for old in (*filling.glob("*.safetensors"), *filling.glob("*.safetensors.index.json")):
            old.unlink()
        for name in ("config.json", "model.json"):
            (filling / name).unlink(missing_ok=True)  # shared with the model's folder: a new file, not an edit
        config = {key: value for key, value in config.items() if key not in OURS}
        write_json(filling / "config.json", {**config, "tie_word_embeddings": bool(tied), "dtype": dtype})
        save(weights, filling)
    log.info("exported for transformers, %s: %d arrays", dtype, len(weights))


def save(weights: dict[str, mx.array], folder: Path) -> None:
    """Write `weights` as safetensors, in several files with an index where one would be larger than 5 GB."""
    shards = mlx_lm.utils.make_shards(weights)
    index = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        mx.save_safetensors(str(folder / name), shard, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        size = sum(array.nbytes for array in weights.values())
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def own_dtype(model: nn.Module) -> str:
    """The name of the dtype that most of the model's layers compute in."""
    found = [
        layer.scales.dtype if isinstance(layer, Quantized) else layer.weight.dtype
        for _, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Embedding | Quantized)
    ]
    names = [name for dtype in found for name, known in DTYPES.items() if known == dtype] or ["bfloat16"]
    return max(DTYPES, key=names.count)
