"""A tiny random Llama, and what mlx-lm's own loop says with a model, one prompt at a time."""

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import generate_step
from mlx_lm.models import llama

from callwright.decoding.decode import Answer, drive
from callwright.decoding.engine import Request
from callwright.decoding.engines import MlxLmEngine

VOCABULARY = 97


class Letters:
    """A tokenizer of single characters."""

    def encode(self, text, add_special_tokens=False):
        return [ord(letter) % (VOCABULARY - 3) + 1 for letter in text]


def make_tiny() -> nn.Module:
    """A random Llama whose logits are far apart, so that rounding never decides which is the largest."""
    mx.random.seed(7)
    model = llama.Model(
        llama.ModelArgs(
            model_type="llama", hidden_size=48, num_hidden_layers=2, intermediate_size=64, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=VOCABULARY, tie_word_embeddings=False,
        )
    )  # fmt: skip
    model.set_dtype(mx.float32)
    for layer in model.layers:
        layer.self_attn.q_proj.weight *= 3
        layer.self_attn.o_proj.weight *= 8
        layer.mlp.down_proj.weight *= 8
    mx.eval(model.parameters())
    return model


def one_by_one(model: nn.Module, prompts, max_tokens: int) -> list[list[int]]:
    """The ids that mlx-lm's own loop gives for each prompt alone, whatever they say."""
    return [[int(token) for token, _ in generate_step(mx.array(p), model, max_tokens=max_tokens)] for p in prompts]


def greedy_by_mlx_lm(
    model: nn.Module, prompts, max_tokens: int, stop_ids: set[int], *stopped, constraints=None
) -> list[Answer]:
    """What `decode.greedy` gives, through mlx-lm's own batch generator."""
    fresh = constraints or [None] * len(prompts)
    requests = [Request(p, max_tokens, constraint=constraint) for p, constraint in zip(prompts, fresh, strict=True)]
    return drive(MlxLmEngine(model, stop_ids, len(prompts)), requests, *stopped)
