"""A fused Needle as the file of its makers' engine: read back, it is the fused model in 4 bits, all else as it was."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from fixtures_needle import SIZES, write_cact
from fixtures_package import make_adapter, make_examples, make_model

from callwright.models.cact import read_cact
from callwright.models.load import load
from callwright.models.needle_folder import convert_cact
from callwright.package.cact_file import write_cact as export
from callwright.package.fuse import Fusion
from callwright.runtime.errors import CallwrightError


def fused(folder, more=()):
    """A small Needle in `folder`: `source`, `mlx`, `adapter`, and `fused` in it."""
    make_adapter(make_model("needle", folder), folder / "adapter", size=0.1, more=more)
    fusion = Fusion(folder / "mlx", folder / "adapter", make_examples()[:1], "hermes")
    bits = dict.fromkeys(fusion.touched, 16)
    fusion.install_all(bits)
    fusion.write(bits, folder / "fused")
    return fusion.touched


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with the models and `tuned.cact`, paths of the touched layers, the errors that the export told)."""
    folder = tmp_path_factory.mktemp("cact")
    touched = fused(folder, ("embed_tokens", "memory.key_proj"))
    return folder, touched, export(folder / "fused", folder / "source", folder / "tuned.cact")


@pytest.mark.slow
def test_what_was_tuned_is_there_in_4_bits_and_all_else_is_the_published_file(made):
    folder, touched, errors = made
    before, after = read_cact(folder / "source/small.cact"), read_cact(folder / "tuned.cact")
    weights = mx.load(str(folder / "fused/model.safetensors"))
    assert errors.keys() == {
        "embedding", "memory0.key_proj", *(f"layer{n}.{p}" for n in (1, 2) for p in ("q_proj", "v_proj", "out_proj"))
    }  # fmt: skip
    assert len(errors) == len(touched)
    names = {"embedding": "model.embed_tokens", "memory0.key_proj": "model.layers.1.memory.key_proj"}
    for name, told in errors.items():
        layer, _, kind = name.partition(".")
        path = names.get(name, f"model.layers.{layer[5:]}.self_attn.{kind}")
        expected = np.array(weights[f"{path}.weight"].astype(mx.float32))
        found = after.tensors[name]
        assert found.bits == 4
        error = np.linalg.norm(found.weights(after.codebooks) - expected) / np.linalg.norm(expected)
        assert 0 < error < 0.15
        assert told == pytest.approx(error)
        published = before.tensors[name].weights(before.codebooks)
        update, written = expected - published, found.weights(after.codebooks) - published
        assert (update * written).sum() == pytest.approx((update * update).sum(), rel=0.1)
    for name, tensor in before.tensors.items():
        if name in errors or name.startswith(("heads", "confidence_head")):
            continue
        other = after.tensors[name]
        if isinstance(tensor, np.ndarray):
            np.testing.assert_array_equal(tensor, other)
        else:
            assert (tensor.bits, tensor.group) == (other.bits, other.group)
            np.testing.assert_array_equal(tensor.codes, other.codes)
            np.testing.assert_array_equal(tensor.norms, other.norms)
    assert "heads" in before.tensors
    assert "heads" not in after.tensors
    assert after.tokenizer == before.tokenizer


def test_the_file_converts_to_the_fused_model_with_rounded_weights(made, tmp_path):
    folder, _, errors = made
    convert_cact(folder / "tuned.cact", tmp_path)
    assert not (tmp_path / "heads.safetensors").exists()
    rounded, tuned = load(tmp_path)[0], load(folder / "fused")[0]
    written = read_cact(folder / "tuned.cact")
    tokens = mx.array([np.random.default_rng(3).integers(4, SIZES["vocab"], 23).tolist()])
    apart = mx.abs(rounded(tokens) - tuned(tokens)).max().item()
    tuned.model.embed_tokens.weight = mx.array(written.tensors["embedding"].weights(written.codebooks))
    tuned.layers[1].memory.key_proj.weight = mx.array(written.tensors["memory0.key_proj"].weights(written.codebooks))
    for n in (1, 2):
        for name in ("q_proj", "v_proj", "out_proj"):
            array = written.tensors[f"layer{n}.{name}"].weights(written.codebooks)
            tuned.layers[n].self_attn[name].weight = mx.array(array)
    same = mx.abs(rounded(tokens) - tuned(tokens)).max().item()
    assert same < 0.01 * apart


def test_an_untuned_folder_gives_the_published_file_without_its_head(made, tmp_path):
    folder, _, _ = made
    assert export(folder / "mlx", folder / "source", tmp_path / "same.cact") == {}
    data, found = (folder / "source/small.cact").read_bytes(), read_cact(tmp_path / "same.cact")
    assert len(found.tensors) == len(read_cact(folder / "source/small.cact").tensors) - 7
    assert (tmp_path / "same.cact").read_bytes()[8:196] == data[8:196]


def test_a_layer_that_the_file_has_with_others_is_refused(tmp_path):
    fused(tmp_path, ("lanes.proj",))
    with pytest.raises(CallwrightError, match=r"layers\.\d\.lanes\.proj were tuned.*leave that layer out"):
        export(tmp_path / "fused", tmp_path / "source", tmp_path / "tuned.cact")
    assert not (tmp_path / "tuned.cact").exists()


def test_other_models_and_other_sources_are_refused_in_one_line(made, tmp_path, monkeypatch):
    folder, _, _ = made
    shutil.copytree(folder / "fused", tmp_path / "llama")
    config = json.loads((tmp_path / "llama/config.json").read_text())
    (tmp_path / "llama/config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    monkeypatch.setitem(SIZES, "key", 32)
    (tmp_path / "other").mkdir()
    write_cact(tmp_path / "other/small.cact")
    for model, source, words in (
        (tmp_path / "llama", folder / "source", "a model of type 'llama' cannot be exported as a .cact file"),
        (folder / "fused", folder / "mlx", "has no .cact file, but `cact` in package.exports"),
        (folder / "fused", None, "has no .cact file"),
        (folder / "fused", tmp_path / "other", "was not converted from .*no coded matrix layer1.q_proj of the shape"),
    ):
        with pytest.raises(CallwrightError, match=words) as caught:
            export(model, source, tmp_path / "tuned.cact")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "tuned.cact").exists()
