"""Open a model folder for training or generation."""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
import numpy as np
from mlx.utils import tree_unflatten
from mlx_lm.utils import load_config

from callwright.models import needle
from callwright.models.folders import UNREADABLE, first_line
from callwright.models.weights import check_folder
from callwright.runtime import device
from callwright.runtime.errors import CallwrightError

# Architectures that mlx-lm does not have, by `model_type`.
OWN = {needle.MODEL_TYPE: needle}
# What transformers says of them whenever it opens their tokenizer, for which it needs no class of the model.
STRANGE_TYPES = tuple(f"You are using a model of type `{name}` to instantiate a model of type " for name in OWN)


def load(folder: str | Path, dequantize: bool | None = None) -> tuple[nn.Module, Any]:
    """Open the MLX model in `folder`; returns (model, mlx-lm's tokenizer wrapper).

    `dequantize` None means: on the CPU, where a quantized matrix product is a hundred times slower
    than a float32 one, and nowhere else. It changes no weight. An adapter is
    put on the model by `lora.layers.load_adapter`.

    Raises CallwrightError when the folder is not a model that mlx-lm opens.
    """
    tokenizer = load_tokenizer(folder)
    check_folder(folder)
    try:
        model = open_model(folder)
    except UNREADABLE as error:
        raise CallwrightError(f"{folder} is not a model that mlx-lm opens: {first_line(error)}") from error
    if device.on_cpu() if dequantize is None else dequantize:
        to_float32(model)
    mx.eval(model.parameters())
    return model, tokenizer


def open_model(folder: str | Path) -> nn.Module:
    """The model in `folder` as mlx-lm opens it, its weights not yet read.

    A folder of an architecture of our own names a Python file in it, for mlx-lm; here our own module is used, and no
    code of a folder is ever run. Raises what mlx-lm raises (`folders.UNREADABLE`).
    """
    own = load_config(Path(folder)).get("model_type") in OWN
    settings = {"model_file": None} if own else None
    model, _ = mlx_lm.utils.load_model(Path(folder), lazy=True, model_config=settings, get_model_classes=classes)
    return model


def classes(config: dict[str, Any]) -> tuple[type[nn.Module], type]:
    """The classes of the model and of its settings for a `config.json`: ours, or mlx-lm's."""
    module = OWN.get(config["model_type"])
    return (module.Model, module.ModelArgs) if module else mlx_lm.utils._get_classes(config)


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of the model in `folder` alone, with the stop ids that `load` gives it; quick, no weight is read.

    Raises CallwrightError when the folder is not a model that mlx-lm opens.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        what = "is not a model folder: it has no config.json" if folder.is_dir() else "is not there"
        raise CallwrightError(
            f"{folder} {what}. The workflow makes the default model's, results/models/smollm2-135m-instruct/mlx: "
            "`snakemake --cores 1 --until convert_model` (with --configfile, another one's)"
        )
    try:
        stop_ids = load_config(folder).get("eos_token_id")
        with own_types_are_no_surprise():
            return mlx_lm.utils.load_tokenizer(folder, eos_token_ids=stop_ids)
    except UNREADABLE as error:
        raise CallwrightError(f"{folder} is not a model that mlx-lm opens: {first_line(error)}") from error


@contextlib.contextmanager
def own_types_are_no_surprise() -> Iterator[None]:
    """Within it, transformers does not warn that it has no class for an architecture of our own; all else it says."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(STRANGE_TYPES)

    logger = logging.getLogger("transformers.configuration_utils")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def to_float32(model: nn.Module) -> None:
    """Replace quantized linears and embeddings by float32 ones, in place, and cast the rest to float32.

    Exact: a weight is q * scale + bias with q of at most 8 bits and scale and bias of at most 16;
    computed from float32 scales it is what the quantized layer stands for, before that layer's own
    rounding to half precision.
    """
    plain = []
    for name, module in model.named_modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            weight = dequantized(module)
            mx.eval(weight)
            plain.append((name, as_plain(module, weight)))
    model.update_modules(tree_unflatten(plain))
    model.set_dtype(mx.float32)


def dequantized(module: nn.QuantizedLinear | nn.QuantizedEmbedding, rows: Any = None) -> mx.array:
    """The weight [out, in] (or [vocabulary, width]) that `module` stands for, from its scales in float32.

    rows: those that are wanted (a slice or their numbers); None means all.
    """
    weight, scales, biases = module.weight, module.scales, module.get("biases")
    if rows is not None:
        weight, scales, biases = weight[rows], scales[rows], None if biases is None else biases[rows]
    if module.mode == "affine":  # in the other modes the scales are packed exponents, without biases
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        if device.on_cpu() and module.bits in (5, 6):
            return unpacked(weight, scales, biases, module.group_size, module.bits)
    return mx.dequantize(weight, scales, biases, group_size=module.group_size, bits=module.bits, mode=module.mode)


def float_rows(module: nn.Module, rows: Any) -> mx.array:
    """Rows (a slice or their numbers) of the weight of a linear layer or embedding, quantized or not, in float32."""
    if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return dequantized(module, rows).astype(mx.float32)
    return module.weight[rows].astype(mx.float32)


def unpacked(weight: mx.array, scales: mx.array, biases: mx.array, group_size: int, bits: int) -> mx.array:
    """`mx.dequantize` of affine groups on a CPU, bit for bit the same and three times as fast for 5 and 6 bits.

    weight: packed, lowest bits first, [out, words] uint32; scales and biases: [out, groups] float32. Returns [out, in].
    """
    packed = np.asarray(weight).view(np.uint8)
    width = math.lcm(bits, 8) // 8  # bytes in which a whole number of codes lies
    packs = packed.reshape(len(packed), -1, width)
    word = packs[..., 0].astype(np.uint64)
    for place in range(1, width):
        word |= packs[..., place].astype(np.uint64) << np.uint64(8 * place)
    codes = np.empty((*word.shape, 8 * width // bits), np.float32)
    for place in range(codes.shape[-1]):
        codes[..., place] = (word >> np.uint64(bits * place)) & np.uint64(2**bits - 1)
    groups = codes.reshape(len(packed), -1, group_size)
    groups *= np.asarray(scales)[..., None]
    groups += np.asarray(biases)[..., None]
    return mx.array(groups.reshape(len(packed), -1))


def as_plain(module: nn.QuantizedLinear | nn.QuantizedEmbedding, weight: mx.array) -> nn.Linear | nn.Embedding:
    """The unquantized twin of `module` around `weight` [out, in] (or [vocabulary, width]), which remembers its bits."""
    if isinstance(module, nn.QuantizedEmbedding):
        twin = nn.Embedding(1, 1)
    else:
        twin = nn.Linear(1, 1, bias="bias" in module)
        if "bias" in module:
            twin.bias = module.bias
    twin.weight, twin.quantized_bits = weight, module.bits
    return twin
