"""What both trainers are given: a model folder, token rows, settings, and the adapter they start from."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text
from mlx_lm.utils import get_total_parameters

from callwright.lora import batches, layers
from callwright.models.load import load
from callwright.runtime.files import read_jsonl, write_json, write_jsonl

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "bench"
SMOLLM2 = ROOT / "results" / "models" / "smollm2-135m-instruct" / "mlx"
QWEN = ROOT / "results" / "models" / "qwen2.5-coder-0.5b-instruct" / "mlx"

# gemma-3-1b-it's config.json, https://huggingface.co/google/gemma-3-1b-it (the shape alone; the weights are random).
GEMMA_3_1B = {
    "model_type": "gemma3_text",
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 6912,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "max_position_embeddings": 32768,
    "vocab_size": 262_144,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
ALL_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def settings(layers: int, projections: list[str], rank: int, iterations: int, **changes: Any) -> dict[str, Any]:
    """The config's `training` for a benchmark: what mlx-lm does as well, so no clipping, warm-up or schedule."""
    return {
        "iterations": iterations,
        "batch_size": 2,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup": 0,
        "clip_norm": 0,
        "weight_decay": 0.0,
        "lora": {"rank": rank, "scale": 2.0, "layers": layers, "projections": projections},
        "validate_every": iterations,
        "validation_batches": 1,
        "snapshot_every": iterations,
        "select": "last",
        **changes,
    }


def smollm2(records: Path | None, count: int, epochs: int) -> dict[str, Any]:
    """SmolLM2-135M on `count` records (an even count) spread evenly over the lengths of a file in xLAM's format.

    Without a file, on examples of the built-in toolset. Raises subprocess.CalledProcessError when the
    workflow that makes them fails.
    """
    # Nested words of `--config` are the workflow's own way in, so the records are curated as in any run.
    data = f"source: xlam, path: {records.resolve()}, max_tokens: 1024" if records else "source: toolset"
    rows = sorted(tokens("bench", data), key=lambda row: len(row["input_ids"]))
    chosen = spread(rows, count)
    return work(
        "smollm2",
        SMOLLM2,
        chosen,
        settings(layers=10, projections=ALL_LINEARS, rank=16, iterations=epochs * len(chosen) // 2),
    )


def own_tools(count: int, epochs: int) -> dict[str, Any]:
    """SmolLM2-135M on `count` requests that all come with the same ten tools of the built-in toolset, eight at a time.

    The ten are neighbours in length that make a list of about 700 tokens.
    """
    import dataclasses

    from callwright.chat.tokens import token_counter, tokenize_example
    from callwright.data.grouped_lists import tool_counter
    from callwright.data.toolset.generate import generate
    from callwright.data.toolset.toolset import load_toolset
    from callwright.models.load import load_tokenizer

    snakemake("runs=[bench]", target=str(SMOLLM2.relative_to(ROOT)))
    tokenizer = load_tokenizer(SMOLLM2)
    examples = generate(load_toolset(ROOT / "config" / "toolsets" / "everyday.yaml"), examples=4000, unseen_tools=0)
    tools = {tool["function"]["name"]: tool for example in examples for tool in example.tools}
    measure = tool_counter(token_counter(tokenizer))
    by_length = sorted(tools.values(), key=lambda tool: (measure(tool), tool["function"]["name"]))
    windows = [by_length[begin : begin + 10] for begin in range(len(by_length) - 9)]
    listed = min(windows, key=lambda window: abs(sum(map(measure, window)) - 700))
    names = {tool["function"]["name"] for tool in listed}
    served = [e for e in examples if e.calls and {call["name"] for call in e.calls} <= names][:count]
    rows = [tokenize_example(tokenizer, dataclasses.replace(e, tools=listed)) for e in served]
    iterations = epochs * len(rows) // 8
    chosen = settings(layers=10, projections=ALL_LINEARS, rank=16, iterations=iterations, batch_size=8)
    return work("own-tools", SMOLLM2, rows[: len(rows) // 8 * 8], chosen)


def lists(records: Path | None, count: int, epochs: int) -> dict[str, Any]:
    """SmolLM2-135M on `count` requests that share their lists of tools, sixteen at a time.

    Four to a list by the built-in toolset, eight at a time; or those of a file in xLAM's format, put together by
    `data.lists`, sixteen at a time; the job's `alone` has the same requests under the lists that they had.
    """
    from callwright.lora.sharing import with_beginnings

    own = f"source: xlam, path: {records.resolve()}, max_tokens: 1600" if records else ""
    put = "lists: {requests: 8, tools: 16, tokens: [350, 1100]}"
    name, size = ("xlam-lists", 16) if records else ("toolset-lists", 8)
    rows = tokens(f"bench-{name}", f"{own}, {put}" if records else "source: toolset, requests_per_tool_list: 4")
    [found] = with_beginnings([batches.to_records(rows, name)], size)
    families: dict[Any, list[int]] = {}
    for index, record in enumerate(found):
        families.setdefault(record.beginning or record.id, []).append(index)
    whole = [index for family in families.values() for index in family][: count // size * size]  # in whole lists
    iterations = epochs * len(whole) // size
    chosen = settings(layers=10, projections=ALL_LINEARS, rank=16, iterations=iterations, batch_size=size)
    taken = [rows[index] for index in whole]
    job = work(name, SMOLLM2, taken, chosen)
    if records:  # lists are put together after the sets are divided: the same requests are in both
        alone = {row["id"]: row for row in tokens(f"bench-{name}-alone", own)}
        job["alone"] = str(FOLDER / name / "alone.jsonl")
        write_jsonl(job["alone"], [alone[row["id"]] for row in taken])
    return job


def tokens(run: str, data: str) -> list[dict[str, Any]]:
    """The training rows of a run with `data` as its config key."""
    snakemake(f"data={{{data}}}", f"runs=[{run}]", target=f"results/{run}/tokens/train.jsonl")
    return list(read_jsonl(ROOT / "results" / run / "tokens" / "train.jsonl"))


def paths(model: Path, records: Path, count: int, epochs: int) -> dict[str, Any]:
    """The converted `model` on `count` records (an even count) spread over the lengths of a file in xLAM's format.

    The settings of config/qwen2.5-coder-0.5b.yaml, two records a step; records of more than 1024 tokens are left out.
    """
    from callwright.chat.tokens import TokenizeError, tokenize_example
    from callwright.data.records import Example
    from callwright.data.sources import read_records
    from callwright.models.load import load_tokenizer

    tokenizer, rows = load_tokenizer(model), []
    for _, example in read_records(records, "xlam"):
        with contextlib.suppress(TokenizeError):
            if isinstance(example, Example):
                rows.append(tokenize_example(tokenizer, example))
    rows = sorted((row for row in rows if len(row["input_ids"]) <= 1024), key=lambda row: len(row["input_ids"]))
    chosen = spread(rows, count)
    iterations = epochs * len(chosen) // 2
    return work("paths", model, chosen, settings(layers=8, projections=ALL_LINEARS, rank=16, iterations=iterations))


def spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` of `rows`, or as large an even number as there are, evenly from the first to the last."""
    count = min(count, len(rows) // 2 * 2)
    return [rows[index] for index in np.linspace(0, len(rows) - 1, count).round().astype(int)]


def gemma(blocks: int, count: int, epochs: int) -> dict[str, Any]:
    """Gemma 3 1B's shape with random 4-bit weights and the study's LoRA; `count` records of 540 tokens, 130 trained."""
    iterations = epochs * count // 2
    folder = FOLDER / f"gemma-{blocks}"
    config = {**GEMMA_3_1B, "num_hidden_layers": blocks}
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(ROOT / "tests"))
        from fixtures_gemma import make_tokenizer

        make_tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer"}))
        mx.random.seed(0)
        model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
        model.sanitize({})  # ties the head to the embedding
        nn.quantize(model, group_size=64, bits=4)
        mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
        write_json(folder / "config.json", {**config, "quantization": {"group_size": 64, "bits": 4}})
    generator = np.random.default_rng(0)
    rows = [
        {"id": str(index), "input_ids": generator.integers(10, 262_144, 540).tolist(), "spans": [[410, 540]]}
        for index in range(count)
    ]
    chosen = settings(layers=8, projections=["q_proj", "v_proj"], rank=8, iterations=iterations)
    chosen["lora"]["scale"] = 20.0
    return work(f"gemma3-1b-shape-{blocks}-blocks", folder, rows, chosen)


def work(name: str, folder: Path, rows: list[dict[str, Any]], training: dict[str, Any]) -> dict[str, Any]:
    """Write token rows and starting adapter; returns the job that both trainers read."""
    training = complete(training)
    paths = FOLDER / name / "rows.jsonl", FOLDER / name / "initial.safetensors"
    write_jsonl(paths[0], rows)
    model, _ = load(folder, dequantize=False)
    mx.random.seed(training["seed"])  # as our loop does: its own start is this very adapter
    keys = layers.attach(model, training["lora"])
    layers.save_arrays(paths[1], layers.adapter_parameters(model))
    adapter = sum(value.size for value in layers.adapter_parameters(model).values())
    stream = batches.stream(batches.to_records(rows, name), training["batch_size"], training["seed"])
    return {
        "name": name,
        "model": str(folder),
        "rows": str(paths[0]),
        "initial": str(paths[1]),
        "keys": keys,
        "training": training,
        "trained": [next(stream)[1].trained for _ in range(training["iterations"])],
        "weights_gb": 4 * (get_total_parameters(model) - adapter) / 1e9,  # in float32, as both compute on a CPU
    }


def complete(training: dict[str, Any]) -> dict[str, Any]:
    """`training` with the schema's defaults for the keys that it leaves out."""
    import yaml

    from callwright.runtime.config import resolve

    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config["training"] = training
    return resolve(config, ROOT / "workflow" / "schemas" / "config.schema.yaml")["default"]["training"]


def snakemake(*config: str, target: str) -> None:
    """Make `target` by the workflow."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", target, "--quiet", "all", "--config", *config]
    subprocess.run(command, cwd=ROOT, check=True)
