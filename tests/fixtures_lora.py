"""Tiny random models, records and settings for the tests of training."""

import inspect
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from fixtures_gemma import make_gemma, make_tokenizer
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from callwright.lora import layers, loop
from callwright.lora.backend import TrainingBackend
from callwright.lora.batches import Batch, Record, epoch_batches, to_records
from callwright.models.load import load

VOCABULARY = 500  # no more than `fixtures_gemma.make_gemma` has


PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llama_config(**changes: Any) -> dict[str, Any]:
    """Four blocks of width 64; four query heads share two key heads."""
    return {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": VOCABULARY,
        "tie_word_embeddings": True, **changes,
    }  # fmt: skip


def tiny_llama(seed: int = 0, **changes: Any) -> llama.Model:
    """Random weights; the norms' are drawn too, so that a forgotten one shows."""
    mx.random.seed(seed)
    model = llama.Model(llama.ModelArgs.from_dict(llama_config(**changes)))
    norms = [
        (name, 1 + 0.3 * mx.random.normal(value.shape))
        for name, value in tree_flatten(model.parameters())
        if "norm" in name
    ]
    model.load_weights(norms, strict=False)
    mx.eval(model.parameters())
    return model


def make_llama(folder: Path, **changes: Any) -> Path:
    """`tiny_llama` as a model folder that mlx-lm opens."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    weights = dict(tree_flatten(tiny_llama(**changes).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(llama_config(**changes)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "pad_token": "<pad>"}))
    return folder


def tiny_model(kind: str, folder: Path) -> nn.Module:
    """`llama` or `gemma`, plain or ` quantized`."""
    architecture, _, quantized = kind.partition(" ")
    if architecture == "gemma":
        return tiny_gemma(folder / "gemma", bool(quantized))
    model = tiny_llama()
    if quantized:
        nn.quantize(model, group_size=32, bits=4)
    return model


class Interrupted(Exception):
    pass


def interrupt(monkeypatch, *stops):
    """Let `_step` raise after the steps numbered `stops`, counted over all runs."""
    plain, done = loop.Run._step, itertools.count(1)

    def step(self, micro_batches):
        row = plain(self, micro_batches)
        if next(done) in stops:
            raise Interrupted
        return row

    monkeypatch.setattr(loop.Run, "_step", step)


def training_settings(lora: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The config's `training` for a run of a second, with `changes` of keys that it has."""
    settings = {
        "iterations": 30, "batch_size": 2, "accumulation": 1, "learning_rate": 0.01, "schedule": "cosine",
        "warmup": 2, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8, "clip_norm": 1.0,
        "lora": {"kind": "lora", "rank": 4, "scale": 2.0, "rslora": False, "plus": 1.0, "dropout": 0.0, "layers": 2,
                 "projections": PROJECTIONS, **(lora or {})},
        "gradient_checkpointing": "off",
        "loss_chunk": 16, "prefix_cache": "auto", "share_prefix": "auto", "validate_every": 10,
        "validation_batches": -1,
        "examples": None, "snapshot_every": 5, "select": "validation_loss", "selection_items": 4, "patience": None,
        "min_delta": 0.0, "workers": 1, "memory_budget_gb": None, "seed": 7,
    }  # fmt: skip
    assert changes.keys() <= settings.keys(), changes.keys() - settings.keys()
    return {**settings, **changes}


def token_rows(lengths: list[int], seed: int = 0, vocabulary: int = VOCABULARY) -> list[dict[str, Any]]:
    """Random tokens; two spans are trained in each row, one of them up to the end."""
    generator = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        middle = max(1, length // 2)
        spans = [[max(1, length // 4), middle], [middle, length]] if length >= 8 else [[middle, length]]
        spans[0][1] -= length >= 12  # a gap between them
        tokens = generator.integers(1, vocabulary, length).tolist()
        rows.append({"id": f"row-{number}", "input_ids": tokens, "spans": spans})
    return rows


def records_of(lengths: list[int], **kwargs: Any) -> list[Record]:
    return to_records(token_rows(lengths, **kwargs), "training")


def one_batch(records: list[Record]) -> Batch:
    """All records in one batch, in an order that is not theirs."""
    [batch] = epoch_batches(records, len(records), seed=1, epoch=0)
    return batch


def with_adapter(model: nn.Module, settings: dict[str, Any], seed: int = 3) -> dict[str, mx.array]:
    """Attach LoRA or DoRA and return its arrays, B and m drawn at random so that every gradient is there."""
    mx.random.seed(seed)
    layers.attach(model, settings["lora"])
    adapter = layers.adapter_parameters(model)
    drawn = {name: 0.1 * mx.random.normal(a.shape) if name.endswith("lora_b") else a for name, a in adapter.items()}
    drawn |= {name: a * mx.random.uniform(0.7, 1.3, a.shape) for name, a in adapter.items() if name.endswith(".m")}
    mx.eval(drawn)
    return drawn


def tiny_gemma(folder: Path, quantize: bool = False, dtype: mx.Dtype = mx.float32) -> nn.Module:
    """Gemma 3 with blocks of both kinds: attention within a window of 64 tokens, and to all before."""
    model, _ = load(make_gemma(folder, quantize=quantize, dtype=dtype), dequantize=False)
    return model


def worst_error(found: dict[str, mx.array], expected: dict[str, mx.array]) -> float:
    """The largest relative error, by the 2-norm, of an array in `found`; a tiny one counts by the size of all."""
    assert found.keys() == expected.keys()
    errors, whole = [], np.sqrt(sum(mx.sum(mx.square(array.astype(mx.float32))).item() for array in expected.values()))
    for name, array in expected.items():
        a, b = (np.array(x.astype(mx.float32), np.float64) for x in (found[name], array))
        assert a.shape == b.shape
        errors.append(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3 * whole))
    return max(errors)


ATTRIBUTES = set(TrainingBackend.__annotations__)


METHODS = {name for name, value in vars(TrainingBackend).items() if inspect.isfunction(value) and name[0] != "_"}


def with_members(**given: Any) -> Any:
    """An object with all members of the contract, those that are not given as None."""
    return SimpleNamespace(**{**dict.fromkeys(ATTRIBUTES | METHODS), **given})
