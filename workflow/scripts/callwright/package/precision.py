"""One layer at one precision: packed as mlx-lm stores it, and the float32 layer that it stands for."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from callwright.lora.lowrank import Adaptable, Embedding, Quantized
from callwright.models.load import dequantized

GROUP_SIZE = 64  # of a layer that was not quantized before: mlx-lm's default
AFFINE_GROUPS = (32, 64, 128)


@dataclass(frozen=True)
class Precision:
    """`bits` of a weight; `group_size` weights share a scale in `mode`, or None where the layer is not quantized."""

    bits: int
    group_size: int | None = None
    mode: str = "affine"

    def entry(self) -> dict[str, int | str] | bool:
        """What `config.json` says of a layer in its table `quantization`."""
        if self.group_size is None:
            return False
        found = {"group_size": self.group_size, "bits": self.bits}
        return found if self.mode == "affine" else {**found, "mode": self.mode}


def own_precision(layer: Adaptable) -> Precision:
    """The precision in which the base model has `layer`."""
    if isinstance(layer, Quantized):
        return Precision(layer.bits, layer.group_size, layer.mode)
    return Precision(8 * layer.weight.dtype.size)


def at_bits(layer: Adaptable, bits: int) -> Precision:
    """`layer` at `bits`: its own precision where that has so many bits; not quantized from 16 on."""
    own = own_precision(layer)
    if bits == own.bits or (bits >= 16 and own.group_size is None):
        return own
    if bits >= 16:
        return Precision(8 * dtype_of(layer).size)
    columns = layer.weight.shape[-1] if own.group_size is None else layer.scales.shape[-1] * own.group_size
    wanted = own.group_size if own.group_size in AFFINE_GROUPS else GROUP_SIZE
    fitting = [size for size in (wanted, *AFFINE_GROUPS) if columns % size == 0]
    return Precision(bits, fitting[0]) if fitting else Precision(8 * dtype_of(layer).size)


def dtype_of(layer: Adaptable) -> mx.Dtype:
    """The dtype that `layer` computes in, as far as its arrays tell."""
    if not isinstance(layer, Quantized):
        return layer.weight.dtype
    return layer.scales.dtype if layer.mode == "affine" else mx.bfloat16  # other modes pack their scales in bytes


def packed(layer: Adaptable, weight: mx.array, precision: Precision) -> Adaptable:
    """`layer` with `weight` [rows, columns] float32 at `precision`: what the fused model's folder holds.

    The bias stays as it is. Scales and offsets have the dtype that the base layer has.
    """
    dtype, rows, columns = dtype_of(layer), *weight.shape
    embedding = isinstance(layer, Embedding)
    if precision.group_size is None:
        found = nn.Embedding(1, 1) if embedding else nn.Linear(1, 1, bias="bias" in layer)
        found.weight = weight.astype(dtype if 8 * dtype.size == precision.bits else mx.float16)
    else:
        how = {"group_size": precision.group_size, "bits": precision.bits, "mode": precision.mode}
        found = (  # MLX is lazy: the random weights that these begin with are never computed
            nn.QuantizedEmbedding(rows, columns, **how)
            if embedding
            else nn.QuantizedLinear(columns, rows, bias="bias" in layer, **how)
        )
        found.weight, scales, *biases = mx.quantize(weight, **how)
        found.scales = scales.astype(dtype) if precision.mode == "affine" else scales
        if biases:
            found.biases = biases[0].astype(dtype)
    if "bias" in layer:
        found.bias = layer.bias
    mx.eval(found.parameters())
    return found


def unpacked(layer: Adaptable) -> mx.array:
    """The weight [rows, columns] in float32, exactly what `models.load` makes of the stored layer."""
    weight = dequantized(layer) if isinstance(layer, Quantized) else layer.weight
    return weight.astype(mx.float32)
