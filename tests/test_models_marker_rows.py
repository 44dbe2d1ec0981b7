"""Marker tokens that a base was never taught: found, given borrowed rows, and carried to where they are needed."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from fixtures_gemma import make_gemma
from fixtures_markers import MARKERS, NAME, convert_borrowing, make_base
from fixtures_package import SETTINGS, make_adapter, make_examples

from callwright.lora import layers
from callwright.models import marker_rows
from callwright.models.convert import convert
from callwright.models.gguf.convert import convert_gguf
from callwright.models.load import load
from callwright.package.fuse import fuse
from callwright.package.gguf_file import write_gguf
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json


@pytest.fixture(scope="module", params=[False, True], ids=["bfloat16", "8-bit"])
def base(request, tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "source", request.param)


@pytest.fixture(scope="module")
def borrowed(base, tmp_path_factory) -> Path:
    return convert_borrowing(base, tmp_path_factory.mktemp("borrowed") / "model")


def test_untrained_rows_are_found_and_borrowed(base, borrowed):
    facts = read_json(borrowed / "model.json")["marker_rows"]
    assert facts["choice"] == "auto"
    assert facts["median_norm"] == pytest.approx(1, abs=0.01)
    assert set(MARKERS) <= set(facts["tokens"])  # beside the end of the turn
    for marker in MARKERS:
        fact = facts["tokens"][marker]
        assert fact["untrained"]
        assert fact["norm"] == pytest.approx(0.021, abs=0.002)
        assert fact["lender"] not in MARKERS
        assert fact["loss_after"] < fact["loss"]
    assert not facts["tokens"]["<end_of_turn>"]["untrained"]


def test_a_borrowed_row_is_the_lenders_with_noise(base, borrowed):
    before, _ = load(base)
    after, _ = load(borrowed)
    facts = read_json(borrowed / "model.json")["marker_rows"]["tokens"]
    old, new = (np.array(model.model.embed_tokens.weight) for model in (before, after))
    changed = np.flatnonzero((old != new).any(axis=1)).tolist()
    assert changed == sorted(facts[marker]["id"] for marker in MARKERS)
    rows = []
    for marker in MARKERS:
        lender, row = old[facts[marker]["lender_id"]], new[facts[marker]["id"]]
        noise = row - lender
        assert noise @ lender == pytest.approx(0, abs=0.02)
        assert np.linalg.norm(noise) == pytest.approx(0.4 * np.linalg.norm(lender), rel=0.05)
        rows.append(row)
    assert not np.allclose(rows[0], rows[1], atol=0.05)


def test_the_source_is_not_touched_and_mlx_lm_opens_the_result(base, borrowed):
    weights = mx.load(str(base / "model.safetensors"))
    row = weights[f"{NAME}.weight"][-1]
    assert mx.linalg.norm(row.astype(mx.float32)).item() < 0.03 or row.dtype == mx.uint32
    model, _ = mlx_lm.load(str(borrowed))
    ours, _ = load(borrowed)
    tokens = mx.array([[2, 270, 300, 42]])
    assert mx.allclose(model(tokens).astype(mx.float32), ours(tokens), atol=0.3)  # one computes in bfloat16


def test_keep_only_tells(base, tmp_path):
    convert(base, {}, tmp_path / "model", call_format="hermes", rows="keep")
    facts = read_json(tmp_path / "model" / "model.json")["marker_rows"]
    assert facts["choice"] == "keep"
    assert not any("lender" in fact for fact in facts["tokens"].values())
    assert not (tmp_path / "model" / marker_rows.FILE).exists()
    kept, source = (load(folder)[0].model.embed_tokens.weight for folder in (tmp_path / "model", base))
    assert mx.array_equal(kept, source)


def test_own_rows_can_be_put_back(base, borrowed):
    before, _ = load(base)
    model, _ = load(borrowed)
    assert marker_rows.put_rows(model, borrowed, "original")
    assert mx.array_equal(model.model.embed_tokens.weight, before.model.embed_tokens.weight)
    assert not marker_rows.put_rows(model, base)


def test_an_adapter_brings_the_rows_to_a_base_without_them(base, borrowed, tmp_path):
    settings = {"rank": 2, "scale": 2.0, "dropout": 0.0, "layers": 1, "projections": ["q_proj"]}
    model, _ = load(borrowed)
    keys = layers.attach(model, settings)
    layers.save_adapter(tmp_path, layers.adapter_parameters(model), layers.adapter_config(model, settings, keys))
    marker_rows.share_rows(borrowed, tmp_path)
    other, _ = load(base)
    layers.load_adapter(other, tmp_path)
    assert mx.array_equal(other.model.embed_tokens.weight, model.model.embed_tokens.weight)
    quantized, _ = load(base, dequantize=False)
    layers.load_adapter(quantized, tmp_path)
    embedding = quantized.model.embed_tokens
    if isinstance(embedding, nn.QuantizedEmbedding):
        parts = (part.astype(mx.float32) for part in (embedding.scales, embedding.biases))
        found = mx.dequantize(embedding.weight, *parts, 32, 8)
        assert mx.allclose(found, model.model.embed_tokens.weight, atol=0.01)


@pytest.mark.slow
def test_a_fused_model_and_its_gguf_file_have_the_rows(tmp_path):
    base = make_base(tmp_path / "base", quantize=True, layers=7)
    config = read_json(base / "config.json") | {"sliding_window_pattern": 6}  # GGUF knows no other
    (base / "config.json").write_text(json.dumps(config))
    borrowed = convert_borrowing(base, tmp_path / "model")
    make_adapter(borrowed, tmp_path / "adapter")
    settings = SETTINGS | {"margin": 1.0}
    fuse(borrowed, tmp_path / "adapter", make_examples(), settings, "hermes", tmp_path / "fused")
    write_gguf(tmp_path / "fused", tmp_path / "fused.gguf", "F32")
    convert_gguf(tmp_path / "fused.gguf", tmp_path / "back")
    facts = read_json(borrowed / "model.json")["marker_rows"]["tokens"]
    numbers = mx.array([facts[marker]["id"] for marker in MARKERS])
    expected = load(borrowed)[0].model.embed_tokens.weight[numbers]
    for folder in ("fused", "back"):
        model, tokenizer = load(tmp_path / folder)
        assert mx.array_equal(model.model.embed_tokens.weight[numbers], expected)
        assert [tokenizer.encode(marker, add_special_tokens=False) for marker in MARKERS] == [
            [number] for number in numbers.tolist()
        ]


def test_rows_of_another_model_are_refused(borrowed, tmp_path):
    make_gemma(tmp_path / "wide", width=96)
    model, _ = load(tmp_path / "wide")
    with pytest.raises(
        CallwrightError, match="does not fit the model: it has no rows for model.embed_tokens of width 96"
    ):
        marker_rows.put_rows(model, borrowed)
