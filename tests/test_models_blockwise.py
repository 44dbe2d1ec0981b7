"""A model asked a block at a time says what it says in one piece, and is never in memory as a whole."""

import mlx.core as mx
import pytest
from fixtures_gemma import make_gemma
from fixtures_package import make_model
from mlx.utils import tree_flatten

from callwright.models import blockwise
from callwright.models.load import load

ROWS = [[2, 27, 30, 42, 9, 17, 23], [2, 35, 41, 31]]
PLACES = [(0, 3), (0, 6), (1, 0), (1, 3)]


def untied(folder):
    """A Llama with a head of its own, with a bias."""
    source = make_model("llama", folder)
    model, _ = load(source, dequantize=False)
    weights = dict(tree_flatten(model.parameters()))
    for part in ("weight", "scales", "biases"):
        weights[f"lm_head.{part}"] = weights[f"model.embed_tokens.{part}"][::-1]
    mx.save_safetensors(str(source / "model.safetensors"), weights, {"format": "mlx"})
    config = (source / "config.json").read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
    (source / "config.json").write_text(config)
    return source


@pytest.mark.parametrize(
    "kind", ["gemma", "plain gemma", "llama", "untied llama", pytest.param("needle", marks=pytest.mark.slow)]
)
def test_the_logits_are_those_of_the_whole_model(kind, tmp_path, monkeypatch):
    if kind == "untied llama":
        source = untied(tmp_path)
    else:
        source = make_model(kind.split()[-1], tmp_path, quantize=not kind.startswith("plain"))
    model, _ = load(source, dequantize=True)
    expected = [model(mx.array([row]))[0] for row in ROWS]
    monkeypatch.setattr(blockwise, "PIECE", 64 * 100)  # the head in several pieces
    found = blockwise.logits(source, ROWS, PLACES)
    for (row, position), line in zip(PLACES, found, strict=True):
        assert mx.allclose(line, expected[row][position], atol=1e-4)


def test_norms_are_those_of_the_rows(tmp_path, monkeypatch):
    source = make_gemma(tmp_path, quantize=True)
    monkeypatch.setattr(blockwise, "PIECE", 64 * 100)
    expected = mx.linalg.norm(load(source)[0].model.embed_tokens.weight, axis=1)
    found = blockwise.row_norms(load(source, dequantize=False)[0].model.embed_tokens)
    assert mx.allclose(found, expected)


@pytest.mark.slow
def test_one_block_is_in_memory_at_a_time(tmp_path):
    source = make_gemma(tmp_path, quantize=True, layers=12, width=256)
    whole = sum(array.size * 4 for _, array in tree_flatten(load(source, dequantize=True)[0].parameters()))
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    blockwise.logits(source, ROWS, PLACES)
    assert mx.get_peak_memory() - before < whole / 4
