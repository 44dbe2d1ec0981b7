"""A tiny random base whose vocabulary has markers that it was never taught, and its conversion with borrowed rows."""

import json
from pathlib import Path

import mlx.core as mx
import pytest
from fixtures_gemma import make_gemma
from tokenizers import AddedToken, Tokenizer

from callwright.models import marker_rows
from callwright.models.convert import convert

MARKERS = ("<tool_call>", "</tool_call>")
NAME = "model.embed_tokens"


def make_base(folder: Path, quantize: bool, layers: int = 4) -> Path:
    """A tiny Gemma whose vocabulary has both markers, with rows that are short and unlike all others.

    The last tokens of the vocabulary are theirs; every other row is of length 1, theirs of 0.02.
    """
    make_gemma(folder, quantize=False, layers=layers)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in MARKERS])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": tokenizer.get_vocab_size()}
    weights = mx.load(str(folder / "model.safetensors"))
    rows = weights[f"{NAME}.weight"].astype(mx.float32)
    rows = rows / mx.linalg.norm(rows, axis=1, keepdims=True)
    # Where the model is sure of other tokens, a short row is less likely than a die would have it.
    short = -0.02 * mx.mean(rows, axis=0, keepdims=True) / mx.linalg.norm(mx.mean(rows, axis=0))
    rows = mx.concatenate([rows, short, short * 1.1])
    weights[f"{NAME}.weight"] = rows.astype(mx.bfloat16)
    if quantize:
        parts = mx.quantize(weights.pop(f"{NAME}.weight"), 32, 8)
        weights |= {f"{NAME}.{part}": array for part, array in zip(("weight", "scales", "biases"), parts, strict=True)}
        config["quantization"] = {"group_size": 32, "bits": 8}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def convert_borrowing(base: Path, folder: Path) -> Path:
    # A tiny random model is sure of nothing, so its loss on any token is about that of a die.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marker_rows.np, "log", lambda count: 0.0)
        convert(base, {}, folder, call_format="hermes", rows="auto")
    return folder
