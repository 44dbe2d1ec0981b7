"""A GGUF file as an MLX model folder, with the quantization that the file has.

GGUF's Q4_0, Q4_1 and Q8_0 blocks (32 weights that share a scale and a minimum) are MLX's affine
quantization with group size 32, so nothing is dequantized or rounded on the way. Two things differ:

- names: `blk.0.attn_q` is `model.layers.0.self_attn.q_proj`;
- the rows of `attn_q` and `attn_k`: llama.cpp stores the two halves of each rotary head
  interleaved, MLX (like transformers) one after the other.
"""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import write_json

log = logging.getLogger(__name__)

GROUP_SIZE = 32
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
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
# llama.cpp's token types (gguf.TokenType): a control token never comes out of ordinary text.
CONTROL, USER_DEFINED = 3, 4


def convert_gguf(path: str | Path, folder: str | Path) -> str | None:
    """Write `folder` with config, generation config, weights and tokenizer of the GGUF file at `path`.

    `mlx_lm.load(folder)` opens it. The chat template is the file's own; `convert` replaces it
    where it cannot render tools. Returns the license that the file names, if it does.

    Raises CallwrightError for a file that is not GGUF, another architecture than llama, a scaled
    rotary embedding or another tokenizer than byte-level BPE.
    """
    path, folder = Path(path), Path(folder)
    try:
        tensors, metadata = mx.load(str(path), format="gguf", return_metadata=True)
    except Exception as error:  # MLX raises RuntimeError or ValueError, whatever was wrong
        raise CallwrightError(f"{path} cannot be read as a GGUF file: {error}") from error
    metadata = {key: plain(value) for key, value in metadata.items()}
    check_supported(path, metadata)
    folder.mkdir(parents=True, exist_ok=True)

    weights = rename(path, tensors, metadata)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    write_json(folder / "config.json", model_config(metadata, weights))
    write_json(folder / "generation_config.json", {"eos_token_id": metadata["tokenizer.ggml.eos_token_id"]})
    write_tokenizer(folder, metadata)

    return metadata.get("general.license")


def plain(value: Any) -> Any:
    """MLX's metadata arrays as Python scalars or lists; a float keeps its float32 digits (1e-05, not 9.99…e-06)."""
    if not isinstance(value, mx.array):
        return value
    array = np.array(value)
    if array.dtype == np.float32 and array.ndim == 0:
        return float(str(array))
    return array.tolist()


def check_supported(path: Path, metadata: dict[str, Any]) -> None:
    """Raise CallwrightError for a GGUF that this module would convert wrongly."""
    expected = {
        "general.architecture": ("llama",),
        "tokenizer.ggml.model": ("gpt2",),
        "tokenizer.ggml.pre": tuple(PRE_TOKENIZERS),
        "llama.rope.scaling.type": (None, "none"),
    }
    for key, values in expected.items():
        if metadata.get(key) not in values:
            raise CallwrightError(
                f"{path}: {key} is {metadata.get(key)!r}, expected one of {values}; "
                "convert the original safetensors with `mlx_lm.convert` and use that folder as the model source"
            )


def rename(path: Path, tensors: dict[str, mx.array], metadata: dict[str, Any]) -> dict[str, mx.array]:
    """The tensors under MLX's names, rotary rows put back, norms in half precision where that is exact."""
    heads = {
        "attn_q": metadata["llama.attention.head_count"],
        "attn_k": metadata["llama.attention.head_count_kv"],
    }
    weights = {}
    for name in sorted(tensors):
        array = tensors[name]
        *prefix, module, kind = name.split(".")
        if prefix and prefix[0] == "blk" and module in LAYER_NAMES:
            target = f"model.layers.{prefix[1]}.{LAYER_NAMES[module]}"
        elif not prefix and module in TOP_NAMES:
            target = TOP_NAMES[module]
        else:
            raise CallwrightError(f"{path}: tensor {name} is not one of a llama model; the file cannot be converted")
        if module in heads:
            array = restore_rotary_rows(array, heads[module])
        if array.dtype == mx.float32:
            half = array.astype(mx.float16)
            array = half if mx.array_equal(half.astype(mx.float32), array).item() else array
        weights[f"{target}.{kind}"] = array
    return weights


def restore_rotary_rows(array: mx.array, heads: int) -> mx.array:
    """Undo llama.cpp's row order. `array` [heads * head_dim, ...]: rows (0, h/2, 1, h/2+1, …) become (0, 1, …, h-1)."""
    rows = array.shape[0]
    split = array.reshape(heads, rows // heads // 2, 2, -1)
    return mx.contiguous(split.swapaxes(1, 2).reshape(array.shape))


def bits_by_module(weights: dict[str, mx.array]) -> dict[str, int]:
    """Bits per weight of each quantized module: packed uint32 columns over scale columns."""
    found = {}
    for name, scales in weights.items():
        if name.endswith(".scales"):
            module = name.removesuffix(".scales")
            columns = scales.shape[-1] * GROUP_SIZE
            found[module] = weights[f"{module}.weight"].shape[-1] * 32 // columns
    return found


def model_config(metadata: dict[str, Any], weights: dict[str, mx.array]) -> dict[str, Any]:
    """`config.json`: what `mlx_lm.models.llama` needs, with the bits of each module that differs from most."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.rope.dimension_count"],
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": metadata["llama.rope.freq_base"],
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
    }
    bits = bits_by_module(weights)
    if bits:
        usual = Counter(bits.values()).most_common(1)[0][0]
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": usual}
        config["quantization"] |= {
            module: {"group_size": GROUP_SIZE, "bits": own} for module, own in bits.items() if own != usual
        }
    return config


# How text is cut before byte-level BPE, by `tokenizer.ggml.pre`. GPT-2's own cut is part of ByteLevel.
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE_TOKENIZERS = {
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]},
    "gpt-2": BYTE_LEVEL,
}


def write_tokenizer(folder: Path, metadata: dict[str, Any]) -> None:
    """`tokenizer.json` and `tokenizer_config.json` from the GGUF's tokens, merges and token types."""
    tokens = metadata["tokenizer.ggml.tokens"]
    added = [
        {
            "id": number, "content": tokens[number], "special": kind == CONTROL,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for number, kind in enumerate(metadata["tokenizer.ggml.token_type"])
        if kind in (CONTROL, USER_DEFINED)
    ]  # fmt: skip
    write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": PRE_TOKENIZERS[metadata["tokenizer.ggml.pre"]],
            "post_processor": None,
            "decoder": BYTE_LEVEL,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
            },
        },
    )
    special = {
        name: tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        )
        if f"tokenizer.ggml.{key}_token_id" in metadata
    }
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": metadata["llama.context_length"],
            "chat_template": metadata.get("tokenizer.chat_template"),
            **special,
        },
    )
