"""What the weights of each architecture are called in GGUF and in mlx-lm, and how the two differ.

- llama: the rows of `attn_q` and `attn_k` are stored with the two halves of each rotary head interleaved; MLX, like
  transformers, wants one after the other. Llama 3's stretched rotation lies in the tensor `rope_freqs`.
- gemma3: norms multiply by 1 + weight; the file has the sum, MLX the weight.
- qwen2, qwen3: nothing but names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from callwright.models.gguf.blocks import weights
from callwright.models.gguf.reader import GgufFile, Tensor
from callwright.runtime.errors import CallwrightError

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
SANDWICH_NORMS = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Architecture:
    """`model_type` and `class_name` of config.json; `layer_names` from GGUF to mlx-lm, in a block."""

    model_type: str
    class_name: str
    layer_names: Mapping[str, str]
    interleaved: bool = False  # the rows of q and k
    norm_offset: float = 0.0  # what the file's norm weights are larger by
    # What mlx-lm computes in: Gemma 3's hidden states outgrow float16, so its scales and norms are float32.
    dtype: str = "F16"


ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", LAYER_NAMES, interleaved=True),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", LAYER_NAMES),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", LAYER_NAMES | HEAD_NORMS),
    "gemma3": Architecture(
        "gemma3_text", "Gemma3ForCausalLM", LAYER_NAMES | HEAD_NORMS | SANDWICH_NORMS, norm_offset=1.0, dtype="F32"
    ),
}


def architecture(file: GgufFile) -> Architecture:
    """That of `file`. Raises CallwrightError for one that is not converted."""
    if file.architecture not in ARCHITECTURES:
        raise CallwrightError(
            f"{file.path}: general.architecture is {file.architecture!r}, expected one of {', '.join(ARCHITECTURES)}; "
            "convert the original safetensors with `mlx_lm.convert` and use that folder as the model source"
        )
    return ARCHITECTURES[file.architecture]


def mlx_name(file: GgufFile, name: str) -> str:
    """The tensor `name` in mlx-lm's model: `blk.0.attn_q.bias` is `model.layers.0.self_attn.q_proj.bias`.

    Raises CallwrightError for a tensor that the architecture does not have.
    """
    *prefix, module, kind = name.split(".")
    names = architecture(file).layer_names
    if len(prefix) == 2 and prefix[0] == "blk" and module in names:
        return f"model.layers.{prefix[1]}.{names[module]}.{kind}"
    if not prefix and module in TOP_NAMES:
        return f"{TOP_NAMES[module]}.{kind}"
    raise CallwrightError(
        f"{file.path}: tensor {name} is not one of a {file.architecture} model; the file cannot be converted"
    )


def rotary_heads(file: GgufFile, name: str) -> int | None:
    """How many heads' rows are to be put back in order in the tensor `name`; None if it is to be left as it is."""
    module = name.split(".")[-2]
    if not architecture(file).interleaved or module not in ("attn_q", "attn_k"):
        return None
    return file.need("attention.head_count") if module == "attn_q" else kv_heads(file)


def restore_rotary_rows(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Whole heads [n * head_dim, ...] whose rows are (0, h/2, 1, h/2 + 1, …), as (0, 1, …, h - 1)."""
    split = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(rows.shape)


def kv_heads(file: GgufFile) -> int:
    """Heads of keys and values."""
    return file.of("attention.head_count_kv", file.need("attention.head_count"))


def head_dim(file: GgufFile) -> int:
    """Width of a head."""
    plain = file.need("embedding_length") // file.need("attention.head_count")
    return file.of("attention.key_length") or file.of("rope.dimension_count") or plain


def model_config(file: GgufFile, vocabulary: int, tied: bool) -> dict[str, Any]:
    """`config.json` without its quantization. Raises CallwrightError for what mlx-lm's model does not have."""
    kind = architecture(file)
    heads = file.need("attention.head_count")
    if not isinstance(heads, int) or not isinstance(kv_heads(file), int):
        raise CallwrightError(f"{file.path}: its layers differ in their number of heads, which cannot be converted")
    config = {
        "architectures": [kind.class_name],
        "model_type": kind.model_type,
        "hidden_size": file.need("embedding_length"),
        "intermediate_size": file.need("feed_forward_length"),
        "num_hidden_layers": file.need("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads(file),
        "head_dim": head_dim(file),
        "max_position_embeddings": file.need("context_length"),
        "rms_norm_eps": file.need("attention.layer_norm_rms_epsilon"),
        "rope_theta": file.of("rope.freq_base", 10000.0),
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }
    if kind.model_type == "qwen2" and config["head_dim"] * heads != config["hidden_size"]:
        raise CallwrightError(f"{file.path}: heads of width {config['head_dim']}, which mlx-lm's qwen2 does not have")
    scaling = rope_scaling(file)
    if scaling:
        config["rope_scaling"] = scaling
    if kind.model_type == "gemma3_text":
        # The largest one alone has a scale of the scores that its width does not give; the file does not name it.
        scale = config["hidden_size"] // heads if config["num_hidden_layers"] == 62 else config["head_dim"]
        config |= {
            "query_pre_attn_scalar": scale,
            "sliding_window": file.need("attention.sliding_window"),
            "sliding_window_pattern": 6,
            "rope_local_base_freq": file.of("rope.freq_base_swa", 10000.0),
        }
    return config


def rope_scaling(file: GgufFile) -> dict[str, Any] | None:
    """`rope_scaling` as mlx-lm reads it, from the file's keys or its tensor of factors."""
    kind, factor = file.of("rope.scaling.type"), file.of("rope.scaling.factor")
    if ROPE_FACTORS in file.tensors:
        return llama3_scaling(file, file.tensors[ROPE_FACTORS])
    if kind in (None, "none") or factor in (None, 0, 1):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "type": "linear", "factor": factor}
    if kind == "yarn":
        original = file.need("rope.scaling.original_context_length")
        return {"rope_type": "yarn", "type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise CallwrightError(f"{file.path}: rope.scaling.type is {kind!r}, expected none, linear or yarn")


def llama3_scaling(file: GgufFile, tensor: Tensor) -> dict[str, Any]:
    """Llama 3's four settings from the factors by which each frequency is divided, `tensor` [head_dim / 2].

    High frequencies are left alone, low ones divided by the largest factor, and between them 1 / factor grows as a
    straight line of the original context's number of turns. What was published for all of Llama 3 is tried first.

    Raises CallwrightError for factors that are not of this kind.
    """
    found = weights(tensor.read(0, tensor.rows), tensor.type).ravel().astype(np.float64)
    largest = float(found.max())
    waves = 2 * np.pi * file.of("rope.freq_base", 10000.0) ** (np.arange(found.size) / found.size)
    candidates = [(1.0, 4.0, 8192.0)]
    between = (found > 1 + 1e-4) & (found < largest - 1e-4)
    if between.sum() >= 2 and largest > 1:
        smooth = (1 / found[between] - 1 / largest) / (1 - 1 / largest)
        slope, start = np.polyfit(1 / waves[between], smooth, 1)
        if start < 0:  # smooth = (context / wave - low) / (high - low), here with low = 1
            high = 1 - 1 / start
            candidates.append((1.0, high, float(slope * (high - 1))))
    for low, high, context in candidates:
        smooth = np.clip((context / waves - low) / (high - low), 0, 1)
        if np.allclose(1 / ((1 - smooth) / largest + smooth), found, rtol=1e-3):
            return {
                "rope_type": "llama3",
                "factor": largest,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": int(context) if context == int(context) else context,
            }
    raise CallwrightError(f"{file.path}: the factors in {tensor.name} are not Llama 3's; the file cannot be converted")
