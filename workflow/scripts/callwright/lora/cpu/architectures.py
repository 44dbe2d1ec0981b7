"""Which models the written-out CPU path computes, and what it has to know of their blocks."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import gemma3, gemma3_text, llama, qwen2, qwen3, rope_utils

from callwright.lora.cpu.projection import frozen
from callwright.lora.layers import LoRALinear

# Rotations that depend on the position alone.
ROPES = (nn.RoPE, rope_utils.Llama3RoPE, rope_utils.YarnRoPE)


@dataclass
class Spec:
    """What distinguishes one block: sizes, modules, and the weights of its norms, as they multiply."""

    name: str  # as in the adapter: model.layers.29
    attention: nn.Module  # with q_proj, k_proj, v_proj, o_proj
    mlp: nn.Module  # with gate_proj, up_proj, down_proj
    heads: int
    kv_heads: int
    head_dim: int
    scale: float  # of the scores
    eps: float
    activation: str  # as in `fast_math.gated`
    rope: nn.Module
    window: int | None  # keys that a query sees
    before: tuple[mx.array, mx.array]  # norms before attention and MLP
    after: tuple[mx.array | None, mx.array | None]  # norms of their outputs, before these are added
    qk: tuple[mx.array | None, mx.array | None]  # norms of each head of queries and keys


@dataclass
class Parts:
    """A model taken apart."""

    embedding: nn.Embedding
    factor: float  # by which embeddings are multiplied
    blocks: list[Spec]
    gain: mx.array  # of the final norm, as it multiplies
    eps: float
    head: nn.Module  # the embedding itself where it is tied


def parts(model: nn.Module) -> Parts | None:
    """`model`, adapter attached, taken apart; None if the CPU path cannot compute it.

    Llama, Qwen 2 and 3, and Gemma 3 in float32, with plain `LoRALinear` adapters.
    """
    prefix, text = "", model
    if type(model) is gemma3.Model:
        prefix, text = "language_model.", model.language_model
    if type(text) in (llama.Model, qwen2.Model, qwen3.Model):
        found = _llama(text, prefix)
    elif type(text) is gemma3_text.Model:
        found = _gemma(text, prefix)
    else:
        return None
    ends_are_plain = (
        type(found.embedding) is nn.Embedding
        and type(found.head) in (nn.Embedding, nn.Linear)
        and "bias" not in found.head
        and found.embedding.weight.dtype == found.head.weight.dtype == mx.float32
    )
    return found if ends_are_plain and all(_is_plain(spec) for spec in found.blocks) else None


def _llama(model: llama.Model | qwen2.Model | qwen3.Model, prefix: str) -> Parts:
    """Qwen 2 is a Llama with biases, which `projection.Group` takes from the modules; Qwen 3 has norms of each head."""
    inner = model.model
    blocks = [
        Spec(
            name=f"{prefix}model.layers.{index}",
            attention=block.self_attn,
            mlp=block.mlp,
            heads=block.self_attn.n_heads,
            kv_heads=block.self_attn.n_kv_heads,
            head_dim=getattr(model.args, "head_dim", None) or model.args.hidden_size // block.self_attn.n_heads,
            scale=block.self_attn.scale,
            eps=block.input_layernorm.eps,
            activation="silu",
            rope=block.self_attn.rope,
            window=inner.sliding_window if getattr(block, "use_sliding", False) else None,
            before=(block.input_layernorm.weight, block.post_attention_layernorm.weight),
            after=(None, None),
            qk=tuple(
                block.self_attn[name].weight if name in block.self_attn else None for name in ("q_norm", "k_norm")
            ),
        )
        for index, block in enumerate(inner.layers)
    ]
    head = inner.embed_tokens if model.args.tie_word_embeddings else model.lm_head
    return Parts(inner.embed_tokens, 1.0, blocks, inner.norm.weight, inner.norm.eps, head)


def _gemma(model: gemma3_text.Model, prefix: str) -> Parts:
    inner = model.model
    pattern = inner.sliding_window_pattern
    blocks = []
    for index, block in enumerate(inner.layers):
        attention = block.self_attn
        blocks.append(
            Spec(
                name=f"{prefix}model.layers.{index}",
                attention=attention,
                mlp=block.mlp,
                heads=attention.n_heads,
                kv_heads=attention.n_kv_heads,
                head_dim=attention.head_dim,
                scale=attention.scale,
                eps=block.input_layernorm.eps,
                activation="gelu",
                rope=attention.rope,
                window=None if index % pattern == pattern - 1 else inner.window_size,
                before=(1 + block.input_layernorm.weight, 1 + block.pre_feedforward_layernorm.weight),
                after=(1 + block.post_attention_layernorm.weight, 1 + block.post_feedforward_layernorm.weight),
                qk=(1 + attention.q_norm.weight, 1 + attention.k_norm.weight),
            )
        )
    factor = mx.array(inner.args.hidden_size**0.5, mx.bfloat16).astype(mx.float32).item()  # rounded, as in the model
    head = inner.embed_tokens if model.tie_word_embeddings else model.lm_head
    return Parts(inner.embed_tokens, factor, blocks, 1 + inner.norm.weight, inner.norm.eps, head)


def _is_plain(spec: Spec) -> bool:
    modules = [getattr(spec.attention, f"{name}_proj") for name in "qkvo"]
    modules += [getattr(spec.mlp, f"{name}_proj") for name in ("gate", "up", "down")]
    linears = [frozen(module) for module in modules]
    return (
        all(type(module) in (LoRALinear, nn.Linear) for module in modules)
        and all(type(linear) is nn.Linear and linear.weight.dtype == mx.float32 for linear in linears)
        and type(spec.rope) in ROPES
        and spec.rope.dims == spec.head_dim
        and not spec.rope.traditional
        and spec.head_dim % 2 == 0
    )
