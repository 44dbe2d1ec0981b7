"""A GGUF file as an MLX model folder, with the quantization that the file has where MLX can hold it.

Weights are read, regrouped and written a few million at a time, so memory does not grow with the file.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from callwright.models.gguf import architectures, blocks, tokenizer
from callwright.models.gguf.blocks import GROUP, Loss
from callwright.models.gguf.reader import GgufFile, Tensor, read_gguf
from callwright.models.safetensors_stream import SafetensorsStream, decode, encode
from callwright.runtime.files import write_json
from callwright.runtime.logs import Progress

log = logging.getLogger(__name__)

PIECE = 2**21  # weights that are converted at once
INEXACT = ("8-bit", "16-bit")
# Two roundings of one matrix differ by a few per cent of its weights, two matrices by 141 %.
SAME = 0.2


@dataclass
class TensorPart:
    """One tensor's place in the new file: `bits` of its groups, or None for plain numbers of type `dtype`.

    For groups `dtype` is that of their scales.
    """

    tensor: Tensor
    name: str  # mlx-lm's, without `.weight` or `.bias`
    kind: str  # `weight` or `bias`
    bits: int | None
    dtype: str

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The arrays that it becomes, with type and shape."""
        shape = self.tensor.shape
        if self.bits is None:
            return {f"{self.name}.{self.kind}": (self.dtype, shape)}
        groups = (*shape[:-1], shape[-1] // GROUP)
        return {
            f"{self.name}.weight": ("U32", (*shape[:-1], shape[-1] * self.bits // 32)),
            f"{self.name}.scales": (self.dtype, groups),
            f"{self.name}.biases": (self.dtype, groups),
        }


def convert_gguf(path: str | Path, folder: str | Path, inexact: str = "8-bit") -> dict[str, Any]:
    """Write `folder` with config, generation config, weights and tokenizer of the GGUF file at `path`.

    `mlx_lm.load(folder)` opens it. The chat template is the file's own, if it has one. inexact: what becomes of
    blocks that MLX's groups do not hold exactly: "8-bit" (of the formats that come close to it: the bits that they
    have), or "16-bit", which does not round them any further than 16 bits do.

    Returns `license` (as the file names it, or None), `blocks` (for each type of block: tensors, bits, and the
    relative and largest error of its weights) and `tied_head` (None, or which of two roundings was kept).

    Raises CallwrightError of one line for each thing that `read_gguf` refuses, another architecture than those of
    `architectures`, an unknown tokenizer or rotation, a tensor that is missing or foreign, and too small a disk.
    """
    path, folder = Path(path), Path(folder)
    file = read_gguf(path)
    architectures.architecture(file)
    chosen, tied, head = choose_tensors(file)
    parts = plan(file, chosen, inexact)
    config = architectures.model_config(file, chosen["model.embed_tokens.weight"].shape[0], tied)
    ends = tokenizer.end_ids(file)
    config |= {"bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"), "eos_token_id": ends[0]}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.write_tokenizer(folder, file)
    losses = write_weights(file, parts, folder / "model.safetensors")
    write_json(folder / "config.json", config | quantization(parts))
    write_json(folder / "generation_config.json", {"eos_token_id": ends if len(ends) > 1 else ends[0]})
    found = {"license": file.metadata.get("general.license"), "blocks": facts(parts, losses), "tied_head": head}
    for kind, fact in found["blocks"].items():
        log.info(
            "%s: %d tensors as %s bits, relative error %.2g",
            kind,
            fact["tensors"],
            fact["bits"],
            fact["relative_error"],
        )
    return found


def choose_tensors(file: GgufFile) -> tuple[dict[str, Tensor], bool, dict[str, Any] | None]:
    """(tensors by mlx-lm's names, whether the head is the embedding, which rounding was kept if there were two).

    A file may hold the tied matrix twice, rounded differently, once as embedding and once as head. The one with more
    bits stands for both then.
    """
    named = {
        architectures.mlx_name(file, name): tensor
        for name, tensor in file.tensors.items()
        if name != architectures.ROPE_FACTORS
    }
    expected = ["model.embed_tokens.weight", "model.norm.weight"]
    names = [name for name in architectures.architecture(file).layer_names.values()]
    expected += [f"model.layers.{n}.{name}.weight" for n in range(file.need("block_count")) for name in names]
    missing = [name for name in expected if name not in named]
    if missing:
        raise architectures.CallwrightError(f"{file.path} has no tensor for {missing[0]}: it is not a whole model")
    embedding, head = named["model.embed_tokens.weight"], named.get("lm_head.weight")
    if head is None:
        return named, True, None
    difference = relative_difference(embedding, head)
    if difference > SAME:
        return named, False, None
    kept, dropped = sorted((head, embedding), key=lambda tensor: tensor.row_bytes, reverse=True)
    named["model.embed_tokens.weight"] = kept
    del named["lm_head.weight"]
    return named, True, {
        "kept": f"{kept.name} ({kept.type.name})",
        "dropped": f"{dropped.name} ({dropped.type.name})",
        "relative_difference": difference,
    }  # fmt: skip


def relative_difference(one: Tensor, other: Tensor, rows: int = 256) -> float:
    """Root mean square of the difference on `rows` rows, as a share of that of `one`; infinite for other shapes."""
    if one.shape != other.shape:
        return float("inf")
    loss = Loss()
    for row in np.unique(np.linspace(0, one.rows - 1, rows).astype(int)).tolist():
        loss.add(*(blocks.weights(tensor.read(row, row + 1), tensor.type) for tensor in (one, other)))
    return loss.relative


def plan(file: GgufFile, chosen: dict[str, Tensor], inexact: str) -> list[TensorPart]:
    """What each tensor becomes."""
    dtype = compute_dtype(file, chosen)
    half = dtype if dtype in ("F16", "BF16") else "BF16"
    parts = []
    for target, tensor in chosen.items():
        name, _, kind = target.rpartition(".")
        block = tensor.type.name
        if len(tensor.shape) == 1:
            parts.append(TensorPart(tensor, name, kind, None, vector_dtype(file, tensor, dtype)))
        elif block in blocks.PLAIN:
            parts.append(TensorPart(tensor, name, kind, None, block))
        elif block in blocks.FORMATS and (inexact == "8-bit" or block not in blocks.PRODUCTS):
            parts.append(TensorPart(tensor, name, kind, blocks.FORMATS[block][0], dtype))
        else:
            parts.append(TensorPart(tensor, name, kind, *((8, dtype) if inexact == "8-bit" else (None, half))))
    return parts


def compute_dtype(file: GgufFile, chosen: dict[str, Tensor]) -> str:
    """What mlx-lm is to compute in: the architecture's, or the matrices' own where these are plain numbers."""
    kinds = Counter(tensor.type.name for tensor in chosen.values() if len(tensor.shape) > 1)
    own = kinds.most_common(1)[0][0]
    return own if own in blocks.PLAIN else architectures.architecture(file).dtype


def vector_dtype(file: GgufFile, tensor: Tensor, dtype: str) -> str:
    """`dtype` where it holds the norm or bias `tensor`, else float32."""
    values = vector(file, tensor)
    lost = np.abs(decode(encode(values, dtype), dtype) - values).max(initial=0)
    # Adding one to a small weight has rounded it to multiples of 2^-24 already.
    return dtype if lost <= (2**-24 if is_offset(file, tensor) else 0) else "F32"


def is_offset(file: GgufFile, tensor: Tensor) -> bool:
    """Whether the norm `tensor` is stored larger than mlx-lm has it."""
    return architectures.architecture(file).norm_offset != 0 and tensor.name.split(".")[-2].endswith("norm")


def vector(file: GgufFile, tensor: Tensor) -> np.ndarray:
    """A norm or bias, float32, as mlx-lm has it."""
    values = blocks.weights(tensor.read(0, 1), tensor.type).ravel()
    if is_offset(file, tensor):
        values = values - np.float32(architectures.architecture(file).norm_offset)
    heads = architectures.rotary_heads(file, tensor.name)
    return values if heads is None else architectures.restore_rotary_rows(values, values.size // heads)


def write_weights(file: GgufFile, parts: list[TensorPart], path: Path) -> dict[str, Loss]:
    """Write all arrays, piece by piece; returns what was lost in each type of block."""
    arrays = {name: array for part in parts for name, array in part.arrays().items()}
    losses = {part.tensor.type.name: Loss() for part in parts}
    total = sum(part.tensor.rows * part.tensor.columns for part in parts)
    progress, done = Progress("converting weights", total / 1e6, "M weights"), 0
    with SafetensorsStream(path, arrays) as stream:
        for part in parts:
            tensor = part.tensor
            if len(tensor.shape) == 1:
                stream.write(f"{part.name}.{part.kind}", encode(vector(file, tensor), part.dtype))
                continue
            heads = architectures.rotary_heads(file, tensor.name)
            width = tensor.rows // heads if heads else 1
            step = max(1, PIECE // (tensor.columns * width)) * width
            for row in range(0, tensor.rows, step):
                raw = tensor.read(row, min(row + step, tensor.rows))
                if heads:
                    raw = architectures.restore_rotary_rows(raw, width)
                write_rows(stream, part, raw, row, losses[tensor.type.name])
                done += len(raw) * tensor.columns
                progress.reach(done / 1e6)
    return losses


def write_rows(stream: SafetensorsStream, part: TensorPart, raw: np.ndarray, row: int, loss: Loss) -> None:
    """Write the rows `raw` of one tensor from row `row` on, and count what rounding loses."""
    kind = part.tensor.type
    if part.bits is None:
        exact = blocks.weights(raw, kind)
        found = encode(exact, part.dtype)
        if part.dtype != kind.name:
            loss.add(exact, decode(found, part.dtype))
        stream.write(f"{part.name}.{part.kind}", found, row)
        return
    if kind.name in blocks.FORMATS:
        groups = blocks.unpack(raw, kind)
        if kind.name in blocks.PRODUCTS:
            loss.add(blocks.restore(groups, "F32"), blocks.restore(groups, part.dtype))
    else:
        exact = blocks.weights(raw, kind)
        groups = blocks.quantize(exact, part.dtype)
        loss.add(exact, blocks.restore(groups, part.dtype))
    stream.write(f"{part.name}.weight", blocks.pack(groups.q, part.bits), row)
    stream.write(f"{part.name}.scales", encode(groups.scale, part.dtype), row)
    stream.write(f"{part.name}.biases", encode(groups.bias, part.dtype), row)


def quantization(parts: list[TensorPart]) -> dict[str, Any]:
    """config.json's `quantization`: the bits of most modules, and those of each that differs; nothing if none has."""
    bits = {part.name: part.bits for part in parts if part.bits is not None}
    if not bits:
        return {}
    usual = Counter(bits.values()).most_common(1)[0][0]
    others = {name: {"group_size": GROUP, "bits": own} for name, own in sorted(bits.items()) if own != usual}
    return {"quantization": {"group_size": GROUP, "bits": usual, **others}}


def facts(parts: list[TensorPart], losses: dict[str, Loss]) -> dict[str, Any]:
    """For each type of block: `tensors`, `bits` that its weights have now, `relative_error` and `largest_error`."""
    found = {}
    for kind, loss in sorted(losses.items()):
        mine = [part for part in parts if part.tensor.type.name == kind]
        bits = sorted({part.bits or (32 if part.dtype == "F32" else 16) for part in mine})
        found[kind] = {
            "tensors": len(mine),
            "bits": bits[0] if len(bits) == 1 else bits,
            "relative_error": loss.relative,
            "largest_error": loss.worst,
        }
    return found
