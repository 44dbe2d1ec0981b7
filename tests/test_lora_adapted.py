"""A model with its adapter beside the same model without it."""

import gc

import mlx.core as mx
import pytest
from fixtures_gemma import make_gemma
from fixtures_lora import training_settings
from mlx.utils import tree_flatten

from callwright.lora import layers
from callwright.lora.adapted import open_model, open_with_base
from callwright.lora.memory.plan import nbytes
from callwright.models.convert import convert
from callwright.models.load import load

TOKENS = mx.array([[5, 17, 30, 42, 9]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model's folder, and that of a random adapter for it."""
    folder, adapter = tmp_path_factory.mktemp("gemma"), tmp_path_factory.mktemp("adapter")
    convert(make_gemma(folder / "source"), {}, folder / "model")
    model, _ = load(folder / "model")
    lora = training_settings({"projections": ["q_proj", "down_proj"], "layers": 1})["lora"]
    keys = layers.attach(model, lora)
    weights = {name: mx.random.normal(value.shape) for name, value in layers.adapter_parameters(model).items()}
    layers.save_adapter(adapter, weights, layers.adapter_config(model, lora, keys))
    return folder / "model", adapter


def test_both_are_what_they_are_alone_and_share_what_the_adapter_leaves_as_it_is(folders):
    model, base, _ = open_with_base(*folders)
    assert mx.array_equal(model(TOKENS), open_model(*folders)[0](TOKENS))
    assert mx.array_equal(base(TOKENS), load(folders[0])[0](TOKENS))
    assert not mx.allclose(model(TOKENS), base(TOKENS))
    mine, its = (dict(tree_flatten(one.parameters())) for one in (model, base))
    changed = {name for name in its if not mx.array_equal(mine[name], its[name])}
    assert {name.rsplit(".", 2)[-2] for name in changed} == {"q_proj", "down_proj"}


def test_weights_that_the_adapter_leaves_alone_are_in_memory_once(folders):
    open_with_base(*folders)  # what is made once and kept
    gc.collect()
    before = mx.get_active_memory()
    model, base, _ = open_with_base(*folders)
    gc.collect()
    held, whole = mx.get_active_memory() - before, nbytes([base.parameters()])
    assert whole <= held < 1.5 * whole


def test_without_an_adapter_they_are_one(folders):
    model, base, _ = open_with_base(folders[0])
    assert model is base
