"""Tiny random models with a random adapter, for the tests of the package: Llama as SmolLM2 is, Gemma 3, Needle."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from fixtures_gemma import make_gemma, make_tokenizer
from fixtures_lora import tiny_llama
from fixtures_needle import write_cact
from mlx.utils import tree_flatten

from callwright.data.records import Example
from callwright.lora import layers
from callwright.models.convert import convert
from callwright.models.load import load

SETTINGS = {"bits": "auto", "items": 2, "tolerance": 0.02, "agreement": 0.0, "margin": 0.02}
PROJECTIONS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gemma": ["k_proj", "o_proj", "gate_proj"],
    "needle": ["q_proj", "self_attn.v_proj", "out_proj"],
}


def make_model(kind: str, folder: Path, quantize: bool = True) -> Path:
    """A model folder as `convert` makes it: `llama` in float16, 4 bits, the embedding 8; `gemma` in bfloat16.

    `needle`: of codes that MLX does not know, with a head for its confidence; `quantize` says nothing there.
    """
    source = folder / "source"
    if kind == "needle":
        source.mkdir(parents=True)
        write_cact(source / "small.cact", heads=True)
    elif kind == "gemma":
        make_gemma(source, quantize=quantize)
    else:
        source.mkdir(parents=True)
        tokenizer = make_tokenizer()
        tokenizer.save(str(source / "tokenizer.json"))
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4,
            "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
            "head_dim": 16, "max_position_embeddings": 2048, "rope_theta": 10000.0, "tie_word_embeddings": True,
            "vocab_size": tokenizer.get_vocab_size(), "bos_token_id": 2, "eos_token_id": 1,
        }  # fmt: skip
        model = tiny_llama(vocab_size=config["vocab_size"])
        model.set_dtype(mx.float16)
        if quantize:
            own = {"group_size": 32, "bits": 8}
            nn.quantize(model, 32, 4, class_predicate=lambda path, m: hasattr(m, "to_quantized") and (
                own if path == "model.embed_tokens" else True))  # fmt: skip
            config["quantization"] = {"group_size": 32, "bits": 4, "model.embed_tokens": own}
        weights = dict(tree_flatten(model.parameters()))
        mx.save_safetensors(str(source / "model.safetensors"), weights, metadata={"format": "mlx"})
        (source / "config.json").write_text(json.dumps(config))
        special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
        (source / "tokenizer_config.json").write_text(json.dumps(special))
    convert(source, {"kind": "folder", "id": f"tiny-{kind}"}, folder / "mlx")
    return folder / "mlx"


def make_adapter(model: Path, folder: Path, kind: str = "lora", size: float = 0.05, more: tuple[str, ...] = ()) -> Path:
    """A random adapter of this `size` on the last two blocks, and on the layers `more`."""
    loaded, _ = load(model, dequantize=True)
    known = next(name for name in PROJECTIONS if name in loaded.model_type)
    projections = [*PROJECTIONS[known], *more]
    settings = {"kind": kind, "rank": 4, "scale": 4.0, "dropout": 0.0, "layers": 2, "projections": projections}
    keys = layers.attach(loaded, settings)
    mx.random.seed(3)
    drawn = {
        name: a * mx.random.uniform(0.9, 1.1, a.shape) if name.endswith(".m") else size * mx.random.normal(a.shape)
        for name, a in layers.adapter_parameters(loaded).items()
    }
    layers.save_adapter(folder, drawn, layers.adapter_config(loaded, settings, keys))
    return folder


def make_examples() -> list[Example]:
    """Three requests with a call, one without."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "description": "now", "parameters": parameters}}]
    cities = ["Paris", "Zurich", "London", None]
    return [
        Example(
            f"e{n}",
            [{"role": "user", "content": f"Weather in {city}?"}],
            tools,
            [{"name": "weather", "arguments": {"city": city}}] if city else [],
            "test",
        )
        for n, city in enumerate(cities)
    ]
