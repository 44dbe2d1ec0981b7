"""A model with its adapter beside the same model without it."""

import mlx.core as mx
import pytest
from fixtures_gemma import make_gemma
from fixtures_lora import training_settings
from mlx.utils import tree_flatten

from callwright.lora import layers
from callwright.lora.adapted import open_model
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


def test_the_adapter_is_folded_into_the_layers_that_it_is_for(folders):
    (model, _), (base, _) = open_model(*folders), open_model(folders[0])
    assert mx.array_equal(base(TOKENS), load(folders[0])[0](TOKENS))
    assert not mx.allclose(model(TOKENS), base(TOKENS))
    mine, its = (dict(tree_flatten(one.parameters())) for one in (model, base))
    changed = {name for name in its if not mx.array_equal(mine[name], its[name])}
    assert {name.rsplit(".", 2)[-2] for name in changed} == {"q_proj", "down_proj"}
