"""Tiny random models of each shape that the written-out CPU backend computes."""

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from fixtures_lora import VOCABULARY, tiny_llama
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3, gemma3_text, qwen2, qwen3

WINDOW = 24


def gemma_config(**changes: Any) -> dict[str, Any]:
    """Five blocks, of which every third sees all keys and the others `WINDOW`."""
    return {
        "model_type": "gemma3_text", "hidden_size": 40, "num_hidden_layers": 5, "intermediate_size": 72,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 20,
        "rms_norm_eps": 1e-6, "vocab_size": VOCABULARY, "sliding_window": WINDOW, "sliding_window_pattern": 3,
        "rope_theta": 5000.0, "rope_local_base_freq": 100.0, "rope_scaling": {"type": "linear", "factor": 8.0},
        **changes,
    }  # fmt: skip


def tiny_gemma(wrapped: bool = False, tied: bool = True, **changes: Any) -> nn.Module:
    """Random weights, norms too; `wrapped` as in the multimodal model."""
    mx.random.seed(0)
    if wrapped:
        model = gemma3.Model(gemma3.ModelArgs("gemma3", gemma_config(**changes), VOCABULARY))
    else:
        model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(gemma_config(**changes)))
    if tied:
        (model.language_model if wrapped else model).sanitize({})
    norms = [
        (name, 0.3 * mx.random.normal(value.shape))
        for name, value in tree_flatten(model.parameters())
        if "norm" in name
    ]
    model.load_weights(norms, strict=False)
    mx.eval(model.parameters())
    return model


def tiny_qwen(module: Any, **changes: Any) -> nn.Module:
    """Random weights, biases and norms too."""
    mx.random.seed(0)
    config = {
        "model_type": "qwen", "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-6,
        "vocab_size": VOCABULARY, "rope_theta": 5000.0, "max_position_embeddings": 512, "tie_word_embeddings": True,
    } | changes  # fmt: skip
    model = module.Model(module.ModelArgs.from_dict(config))
    drawn = [
        (name, ("norm" in name) + 0.3 * mx.random.normal(value.shape))
        for name, value in tree_flatten(model.parameters())
        if "norm" in name or name.endswith(".bias")
    ]
    model.load_weights(drawn, strict=False)
    mx.eval(model.parameters())
    return model


MAKE = {
    "llama": tiny_llama,
    "gemma": tiny_gemma,
    "qwen2": partial(tiny_qwen, qwen2),
    "qwen3": partial(tiny_qwen, qwen3),
}
