"""LoRA layers, where they go, and adapters that mlx-lm and this project exchange."""

import json

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters
from test_lora_blocks import PROJECTIONS, make_llama, tiny_gemma, tiny_llama, training_settings

from callsmith.lora import layers
from callsmith.models.load import load
from callsmith.runtime.errors import CallsmithError

TOKENS = mx.array([[5, 17, 300, 42, 9, 77, 123]])


def load_with(folder, adapter, **options):
    """The model in `folder` with an adapter on it, unfused, and its tokenizer."""
    model, tokenizer = load(folder, **options)
    layers.load_adapter(model, adapter)
    return model, tokenizer


def lora(**changes):
    return training_settings(changes)["lora"]


def drawn_adapter(model: nn.Module) -> dict[str, mx.array]:
    """Random values for every array of the attached adapter, put into the model."""
    drawn = {name: 0.1 * mx.random.normal(a.shape) for name, a in layers.adapter_parameters(model).items()}
    model.load_weights(list(drawn.items()), strict=False)
    return drawn


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_adds_its_scaled_low_rank_product(quantized, bias):
    mx.random.seed(0)
    linear = nn.Linear(64, 96, bias=bias)
    if quantized:
        linear = nn.QuantizedLinear.from_linear(linear, 32, 8)
    assert layers.linear_shape(linear) == (96, 64)
    layer = layers.LoRALinear(linear, rank=4, scale=3.0)
    x = mx.random.normal((2, 5, 64))
    assert mx.array_equal(layer(x), linear(x))  # B is zero at first
    layer.lora_b = mx.random.normal((4, 96))
    a, b, x_, y = (np.array(v, np.float64) for v in (layer.lora_a, layer.lora_b, x, linear(x)))
    assert np.array(layer(x)) == pytest.approx(y + 3 * (x_ @ a @ b), rel=1e-4, abs=1e-4)
    assert np.abs(a).max() <= 1 / 8
    assert np.std(a) == pytest.approx(1 / 8 / np.sqrt(3), rel=0.1)


def test_the_output_keeps_the_frozen_layers_dtype():
    layer = layers.LoRALinear(nn.Linear(8, 8), rank=2, scale=1.0)
    layer.linear.set_dtype(mx.bfloat16)
    layer.lora_b = mx.ones((2, 8))
    assert layer.lora_a.dtype == mx.float32
    assert layer(mx.ones((1, 8), mx.bfloat16)).dtype == mx.bfloat16


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("count", [1, 3, -1])
def test_the_last_blocks_are_adapted_at_the_named_projection_and_nowhere_else(projection, count):
    model = tiny_llama()
    [key] = layers.attach(model, lora(layers=count, projections=[projection]))
    assert key.endswith(f".{projection}")
    first = 0 if count == -1 else 4 - count
    expected = {f"model.layers.{i}.{key}.lora_{part}" for i in range(first, 4) for part in "ab"}
    assert layers.adapter_parameters(model).keys() == expected


def test_projections_can_be_named_by_their_path_and_their_order_does_not_matter():
    named = layers.attach(tiny_llama(), lora(projections=["mlp.down_proj", "self_attn.q_proj"]))
    assert named == layers.attach(tiny_llama(), lora(projections=["q_proj", "down_proj"]))
    assert named == ["mlp.down_proj", "self_attn.q_proj"]


def test_the_same_seed_draws_the_same_adapter():
    def drawn(seed):
        model = tiny_llama()
        mx.random.seed(seed)
        layers.attach(model, lora())
        return layers.adapter_parameters(model)

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(mx.array_equal(first[name], again[name]) for name in first)
    assert any(not mx.array_equal(first[name], other[name]) for name in first)


def test_only_the_adapter_is_trainable_in_a_quantized_model(tmp_path):
    model = tiny_gemma(tmp_path, quantize=True, dtype=mx.bfloat16)
    layers.attach(model, lora(projections=["q_proj", "v_proj"]))
    assert {name.rsplit(".", 1)[-1] for name in layers.adapter_parameters(model)} == {"lora_a", "lora_b"}
    assert len(layers.adapter_parameters(model)) == 2 * 2 * 2


def test_an_unknown_projection_is_refused_with_those_there_are():
    with pytest.raises(CallsmithError) as caught:
        layers.attach(tiny_llama(), lora(projections=["q_proj", "query"]))
    assert "training.lora.projections names 'query'" in str(caught.value)
    assert all(name in str(caught.value) for name in PROJECTIONS)


@pytest.mark.parametrize("count", [5, 0, -2])
def test_more_layers_than_there_are_are_refused(count):
    with pytest.raises(CallsmithError, match=rf"training\.lora\.layers is {count}, but the model has 4 blocks"):
        layers.attach(tiny_llama(), lora(layers=count))


# -- adapters on disk ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "settings",
    [lora(), lora(layers=-1, projections=["q_proj", "down_proj"]), lora(layers=1, rank=3, scale=20.0)],
    ids=["last two", "all", "one"],
)
def test_mlx_lm_opens_our_adapter_with_equal_outputs(folder, tmp_path, settings):
    model, _ = load(folder)
    keys = layers.attach(model, settings)
    layers.save_adapter(tmp_path, drawn_adapter(model), layers.adapter_config(model, settings, keys))
    expected = model(TOKENS)
    theirs, _ = mlx_lm.load(str(folder), adapter_path=str(tmp_path))
    assert mx.array_equal(theirs(TOKENS), expected)
    assert mx.array_equal(load_with(folder, tmp_path)[0](TOKENS), expected)
    assert not mx.array_equal(load(folder)[0](TOKENS), expected)


@pytest.mark.parametrize("quantize", [False, True], ids=["plain", "quantized"])
def test_merging_keeps_the_outputs_and_leaves_quantized_layers_alone(quantize):
    model = tiny_llama()
    if quantize:
        nn.quantize(model, group_size=32, bits=4)
    layers.attach(model, lora(projections=["q_proj", "down_proj"]))
    drawn_adapter(model)
    expected = model(TOKENS)
    layers.merge(model)
    left = [module for module in model.modules() if isinstance(module, layers.LoRALinear)]
    assert len(left) == (4 if quantize else 0)
    assert mx.allclose(model(TOKENS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [2, 4, 0, -1])
@pytest.mark.parametrize("keys", [["self_attn.q_proj", "mlp.up_proj"], None])
def test_we_open_mlx_lms_adapter_with_equal_outputs(folder, tmp_path, count, keys):
    model, _ = load(folder)
    parameters = {"rank": 5, "scale": 10.0, "dropout": 0.0, **({"keys": keys} if keys else {})}
    model.freeze()
    linear_to_lora_layers(model, count, parameters)
    drawn = {name: 0.1 * mx.random.normal(a.shape) for name, a in tree_flatten(model.trainable_parameters())}
    model.load_weights(list(drawn.items()), strict=False)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"fine_tune_type": "lora", "num_layers": count, "lora_parameters": parameters, "iters": 3})
    )
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), drawn)
    assert mx.array_equal(load_with(folder, tmp_path)[0](TOKENS), model(TOKENS))


def test_an_adapter_of_a_quantized_gemma_goes_both_ways(tmp_path):
    settings = lora(projections=["q_proj", "v_proj", "gate_proj"])
    model = tiny_gemma(tmp_path / "gemma", quantize=True)
    keys = layers.attach(model, settings)
    layers.save_adapter(tmp_path / "adapter", drawn_adapter(model), layers.adapter_config(model, settings, keys))
    theirs = load_adapters(tiny_gemma(tmp_path / "gemma", quantize=True), str(tmp_path / "adapter"))
    ours, _ = load_with(tmp_path / "gemma", tmp_path / "adapter", dequantize=False)
    assert mx.array_equal(theirs(TOKENS), model(TOKENS))
    assert mx.array_equal(ours(TOKENS), model(TOKENS))


def saved(folder, tmp_path, **changes):
    """An adapter for two blocks' q_proj, its config changed."""
    model, _ = load(folder)
    settings = lora(projections=["q_proj"])
    keys = layers.attach(model, settings)
    config = layers.adapter_config(model, settings, keys)
    layers.save_adapter(tmp_path, layers.adapter_parameters(model), {**config, **changes})
    return tmp_path


def test_an_adapter_that_does_not_fit_is_refused_with_the_array_and_both_shapes(folder, tmp_path):
    parameters = {"rank": 5, "scale": 1.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    path = saved(folder, tmp_path, lora_parameters=parameters)
    with pytest.raises(CallsmithError, match=r"q_proj\.lora_a is \(64, 4\), the model expects \(64, 5\)"):
        load_with(folder, path)


def test_an_adapter_of_more_or_fewer_blocks_than_its_config_says_is_refused(folder, tmp_path):
    path = saved(folder, tmp_path, num_layers=3)
    with pytest.raises(CallsmithError, match=r"layers\.1\.self_attn\.q_proj\.lora_a is nothing"):
        load_with(folder, path)
    path = saved(folder, tmp_path, num_layers=1)
    with pytest.raises(CallsmithError, match=r"layers\.2\.self_attn\.q_proj\.lora_a is \(64, 4\).* expects nothing"):
        load_with(folder, path)


def test_other_kinds_and_missing_files_are_refused(folder, tmp_path):
    with pytest.raises(CallsmithError, match=r"is not an adapter: it has no adapters\.safetensors"):
        load_with(folder, tmp_path)
    path = saved(folder, tmp_path, fine_tune_type="dora")
    with pytest.raises(CallsmithError, match="fine_tune_type is 'dora'"):
        load_with(folder, path)
    (path / "adapter_config.json").unlink()
    with pytest.raises(CallsmithError, match=r"adapter_config\.json does not exist"):
        load_with(folder, path)
