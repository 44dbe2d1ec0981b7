"""Needle 3's weight file as a model folder: safetensors, tokenizer, configuration and the architecture's own module."""

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from callwright.chat.template import TEMPLATES
from callwright.models.cact import HEADS, Cact, Coded, read_cact
from callwright.models.needle import MODEL_TYPE
from callwright.models.needle_tokenizer import write_tokenizer
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

MODULE, HEADS_FILE = "needle.py", "heads.safetensors"
# A layer's tensors in the file -> its parameters in `needle.Block`. Taps, permutations and lanes are put together.
LAYER_NAMES = {
    "norm_in": "input_layernorm.weight",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "gate_proj": "self_attn.gate_proj",
    "out_proj": "self_attn.out_proj",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "post_norm": "post_attention_layernorm.weight",
    "attn_gate": "attn_gate",
    "pre_hada": "pre_mlp_layernorm.weight",
    **{name: f"mlp.{name}" for name in (
        "d1", "d2", "b2", "d3", "d4", "w1a", "w1b", "w2a", "w2b", "w3a", "w3b", "cond_v", "cond_u",
    )},
}  # fmt: skip
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "gate_proj", "out_proj")
Weights = dict[str, np.ndarray]


def convert_cact(path: str | Path, folder: str | Path) -> None:
    """Write the model in the `.cact` file at `path` into `folder`, which exists.

    The codes stay what they are, as `….codes` (uint32, the lowest bits first) and `….norms` (float16); all else
    is float32, and exact. The heads that the answers do not need (confidence, embedding) go into `heads.safetensors`.

    Raises CallwrightError for a file that is not one of Needle 3, or has what `models.needle` does not compute.
    """
    folder = Path(folder)
    found = read_cact(path)
    check(found, path)
    weights = {name: mx.array(array) for name, array in model_weights(found).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    heads = {
        name: array
        for head in HEADS.values()
        for key, tensor in found.tensors.items()
        if key.startswith(f"{head}.")
        for name, array in as_arrays(key, tensor).items()
    }
    if heads:
        heads = {name: mx.array(array) for name, array in heads.items()}
        mx.save_safetensors(str(folder / HEADS_FILE), heads, {"format": "mlx"})
    write_json(folder / "config.json", model_config(found))
    template = (TEMPLATES / "needle.jinja").read_text(
        encoding="utf-8"
    )  # by which `convert` finds the form of its calls
    write_tokenizer(folder, found.tokenizer, found.sizes["context"], template)
    put_module(folder)


def put_module(folder: str | Path) -> None:
    """Put the module that mlx-lm opens the model with into `folder`, if it is one of Needle: ours, not another's."""
    if is_needle(folder):
        shutil.copyfile(Path(__file__).with_name(MODULE), Path(folder) / MODULE)


def is_needle(folder: str | Path) -> bool:
    """Whether the model in `folder` is a Needle 3."""
    return read_json(Path(folder) / "config.json").get("model_type") == MODEL_TYPE


def arrays(folder: str | Path) -> dict[str, mx.array]:
    """The arrays of the model in `folder` by the names that they have there; they are read when they are used."""
    found: dict[str, mx.array] = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        found |= mx.load(str(path))
    return found


def with_weights(folder: str | Path, weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """`arrays` with plain weights [rows, columns] for some modules, by their paths; codes of these are left out."""
    found = arrays(folder)
    for path, weight in weights.items():
        for kind in ("codes", "norms"):
            found.pop(f"{path}.{kind}", None)
        found[f"{path}.weight"] = weight
    return found


def file_names(config: dict[str, Any]) -> dict[str, str]:
    """The modules that are a coded matrix of their own in the `.cact` file, by their paths, and the names it has there.

    `lanes.proj` is none: the file has those of all layers together.
    """
    names = {"model.embed_tokens": "embedding"}
    for n in range(config["num_hidden_layers"]):
        names |= {f"model.layers.{n}.{LAYER_NAMES[name]}": f"layer{n}.{name}" for name in PROJECTIONS}
    for site, n in enumerate(config["memory_layers"]):
        names |= {f"model.layers.{n}.memory.{name}": f"memory{site}.{name}" for name in ("key_proj", "value_proj")}
    return names


def check(found: Cact, path: str | Path) -> None:
    """Raise CallwrightError for a setting of the architecture that the published model does not use."""
    sizes = found.sizes
    used = {"memory_seed_heads": (0, sizes["memory_tables"] // max(len(sizes["memory_orders"]), 1))}
    used |= {"out_vocab": (0, sizes["vocab_size"])}
    for key, accepted in used.items():
        if sizes[key] not in accepted:
            raise CallwrightError(f"{path}: {key} is {sizes[key]}; only {accepted[-1]} is supported")
    if not sizes["conv_taps"]:
        raise CallwrightError(f"{path}: a model without convolutions in its attention is not supported")


def model_weights(found: Cact) -> Weights:
    """All parameters of `needle.Model` by name."""
    tensors, sizes = found.tensors, found.sizes
    weights = as_arrays("model.embed_tokens", tensors["embedding"])
    weights["model.norm.weight"] = tensors["final_norm"]
    orders = {f"order{n}": tensors[f"mlp_order{n}"].astype(np.uint32) for n in (1, 2)}
    for n in range(sizes["layers"]):
        prefix = f"model.layers.{n}"
        for name, target in LAYER_NAMES.items():
            weights |= as_arrays(f"{prefix}.{target}", tensors[f"layer{n}.{name}"])
        taps = [tensors[f"layer{n}.{name}"] for name in ("q_taps", "k_taps", "v_taps")]
        weights[f"{prefix}.self_attn.conv"] = np.concatenate(taps, axis=1)
        weights |= {f"{prefix}.mlp.{name}": order for name, order in orders.items()}
        weights |= lane_weights(f"{prefix}.lanes", tensors, n, sizes["lanes"])
    for site, n in enumerate(sizes["memory_layers"]):
        prefix, tables = f"model.layers.{n}.memory", tensors[f"memory{site}.tables"]
        weights |= as_arrays(prefix, tables)
        weights[f"{prefix}.conv"] = tensors[f"memory{site}.taps"]
        for name in ("key_proj", "value_proj"):
            weights |= as_arrays(f"{prefix}.{name}", tensors[f"memory{site}.{name}"])
    return weights


def lane_weights(prefix: str, tensors: dict[str, Any], n: int, lanes: int) -> Weights:
    """The lanes' parameters of layer `n`, of which the file has those of all layers together."""
    rows = {"pre": lanes, "post": lanes, "res": lanes * lanes}
    parts = {kind: tensors[f"lanes.phi_{kind}"] for kind in rows}
    cut = {kind: slice(n * count, (n + 1) * count) for kind, count in rows.items()}
    projection = Coded(
        np.concatenate([parts[kind].codes[cut[kind]] for kind in rows]),
        np.concatenate([parts[kind].norms[cut[kind]] for kind in rows]),
        parts["pre"].bits,
        parts["pre"].group,
    )
    return {
        **as_arrays(f"{prefix}.proj", projection),
        f"{prefix}.gain": np.array([tensors[f"lanes.a_{kind}"][n] for kind in rows], np.float32),
        f"{prefix}.bias": np.concatenate([tensors[f"lanes.b_{kind}"][n].reshape(-1) for kind in rows]),
    }


def as_arrays(name: str, tensor: np.ndarray | Coded) -> Weights:
    """A tensor under its name, or a coded one as its two arrays."""
    if isinstance(tensor, Coded):
        return {f"{name}.codes": tensor.codes, f"{name}.norms": tensor.norms}
    return {name: tensor}


def model_config(found: Cact) -> dict[str, Any]:
    """`config.json`: the fields of `needle.ModelArgs`, the tokens that end an answer, and where the module lies."""
    sizes = found.sizes
    orders = len(sizes["memory_orders"])
    return {
        "architectures": ["NeedleForCausalLM"],
        "model_type": MODEL_TYPE,
        "model_file": MODULE,
        "vocab_size": sizes["vocab_size"],
        "hidden_size": sizes["width"] * sizes["lanes"],
        "num_lanes": sizes["lanes"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "key_width": sizes["key_width"],
        "value_width": sizes["value_width"],
        "conv_taps": sizes["conv_taps"],
        "sliding_window": sizes["window"],
        "global_layers": sizes["global_layers"],
        "mlp_width": sizes["mlp_width"],
        "mlp_block": found.tensors["layer0.w1a"].shape[0],
        "mlp_condition": found.tensors["layer0.cond_u"].shape[0],
        "memory_layers": sizes["memory_layers"],
        "memory_orders": sizes["memory_orders"],
        "memory_heads": sizes["memory_tables"] // max(orders, 1),
        "memory_slots": sizes["memory_slots"],
        "memory_width": sizes["memory_width"],
        "memory_taps": sizes["memory_taps"],
        "memory_dilation": sizes["memory_dilation"],
        "rope_theta": sizes["rope_theta"],
        "max_position_embeddings": sizes["context"],
        "memory_bits": found.tensors["memory0.tables"].bits if sizes["memory_layers"] else 4,
        "codebooks": {str(bits): book.tolist() for bits, book in found.codebooks.items()},
        "torch_dtype": "float32",
        "tie_word_embeddings": True,
        "bos_token_id": found.tokenizer["bos"],
        "eos_token_id": found.tokenizer["eos"],
        "pad_token_id": found.tokenizer["pad"],
    }
