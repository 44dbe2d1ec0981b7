"""LoRA and DoRA layers against their formulas in float64, and against mlx-lm's layers."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from fixtures_lora import worst_error
from mlx_lm.tuner.dora import DoRAEmbedding as TheirDoRAEmbedding
from mlx_lm.tuner.dora import DoRALinear as TheirDoRALinear

from callwright.lora import lowrank

SCALE = 3.0
BASES = ["linear", "linear bias", "linear quantized", "linear bias quantized", "embedding", "embedding quantized"]


def base_of(name: str) -> lowrank.Adaptable:
    mx.random.seed(0)
    base = nn.Embedding(96, 64) if "embedding" in name else nn.Linear(64, 96, bias="bias" in name)
    return base.to_quantized(group_size=32, bits=8) if "quantized" in name else base


def layer_of(kind: str, base: lowrank.Adaptable, dropout: float = 0.0) -> lowrank.LowRank:
    """A layer with B and m drawn, so that nothing is at its start."""
    layer = lowrank.wrap(base, kind, rank=4, scale=SCALE, dropout=dropout)
    layer.lora_b = 0.3 * mx.random.normal(layer.lora_b.shape)
    if kind == "dora":
        layer.m = layer.m * mx.random.uniform(0.5, 1.5, layer.m.shape)
    mx.eval(layer.parameters())
    return layer


def wide(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32), np.float64)


def frozen_weight(base: lowrank.Adaptable) -> np.ndarray:
    if isinstance(base, lowrank.Quantized):
        return wide(mx.dequantize(base.weight, base.scales, base.biases, group_size=base.group_size, bits=base.bits))
    return wide(base.weight)


def adapted_weight(layer: lowrank.LowRank) -> np.ndarray:
    """The whole layer as one weight [rows, columns]."""
    update = SCALE * wide(layer.lora_a) @ wide(layer.lora_b)
    weight = frozen_weight(layer.base) + (update if "embedding" in layer else update.T)
    return wide(layer.m)[:, None] * weight / np.linalg.norm(weight, axis=1, keepdims=True) if "m" in layer else weight


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", BASES)
def test_a_layer_is_its_formula_and_starts_as_the_frozen_one(name, kind):
    base = base_of(name)
    assert lowrank.shape(base) == (96, 64)
    x, tokens = mx.random.normal((2, 5, 64)), mx.array([[0, 95, 7], [7, 7, 50]])
    fresh = lowrank.wrap(base, kind, rank=4, scale=SCALE)
    inputs = 96 if "embedding" in name else 64
    assert np.abs(np.array(fresh.lora_a)).max() <= 1 / np.sqrt(inputs)
    assert np.std(np.array(fresh.lora_a)) == pytest.approx(1 / np.sqrt(3 * inputs), rel=0.1)
    layer = layer_of(kind, base)
    weight = adapted_weight(layer)
    if "embedding" in name:
        found = [(fresh(tokens), base(tokens)), (fresh.as_linear(x), base.as_linear(x))]
        assert np.array(layer(tokens)) == pytest.approx(weight[np.array(tokens)], rel=1e-5, abs=1e-5)
        assert np.array(layer.as_linear(x)) == pytest.approx(wide(x) @ weight.T, rel=1e-4, abs=1e-5)
    else:
        found = [(fresh(x), base(x))]
        bias = wide(base.bias) if "bias" in base else 0
        assert np.array(layer(x)) == pytest.approx(wide(x) @ weight.T + bias, rel=1e-4, abs=1e-5)
    assert all(mx.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in found)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", [name for name in BASES if "quantized" not in name])
def test_merging_gives_the_frozen_layer_the_adapted_weight(name, kind):
    layer = layer_of(kind, base_of(name))
    expected = adapted_weight(layer)
    merged = layer.merged()
    assert type(merged) in (nn.Linear, nn.Embedding)
    assert np.array(merged.weight) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_lengths_of_rows_are_those_of_the_adapted_weight(name):
    layer = layer_of("dora", base_of(name))
    update = SCALE * wide(layer.lora_a) @ wide(layer.lora_b)
    weight = frozen_weight(layer.base) + (update if "embedding" in name else update.T)
    assert np.array(layer.lengths()) == pytest.approx(np.linalg.norm(weight, axis=1), rel=1e-6)


@pytest.mark.parametrize("name", ["linear", "linear bias", "linear quantized", "embedding"])
def test_gradients_of_dora_are_those_of_mlx_lms_layer(name):
    """mlx-lm forms the adapted weight and takes its norms; the norms are constants for the gradient in both."""
    base = base_of(name)
    ours = layer_of("dora", base)
    theirs = (TheirDoRAEmbedding if "embedding" in name else TheirDoRALinear).from_base(base, r=4, scale=SCALE)
    x, tokens = mx.random.normal((7, 64)), mx.array([3, 3, 95, 0])

    def loss(layer, parameters, x):
        layer.update(parameters)
        if "embedding" in name:
            return mx.sum(mx.square(layer(tokens))) + mx.sum(mx.square(layer.as_linear(x)))
        return mx.sum(mx.square(layer(x) - 1))

    parameters = {key: ours[key] for key in ("lora_a", "lora_b", "m")}
    found = [
        mx.grad(lambda p, x, layer=layer: loss(layer, p, x), argnums=(0, 1))(parameters, x) for layer in (ours, theirs)
    ]
    (mine, dx), (other, dx2) = found
    assert worst_error({**mine, "x": dx}, {**other, "x": dx2}) < 1e-5


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", BASES)
def test_the_output_keeps_the_frozen_layers_dtype(name, kind):
    base = base_of(name.replace(" quantized", ""))
    base.set_dtype(mx.bfloat16)
    layer = layer_of(kind, base.to_quantized(group_size=32, bits=4) if "quantized" in name else base)
    x = mx.ones((1, 64), mx.bfloat16)
    outputs = [layer(mx.array([1])), layer.as_linear(x)] if "embedding" in name else [layer(x)]
    assert {output.dtype for output in outputs} == {mx.bfloat16}
    assert {layer.lora_a.dtype, layer.lora_b.dtype, layer.get("m", layer.lora_a).dtype} == {mx.float32}


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_dropout_touches_the_update_alone_and_keeps_its_mean(kind):
    layer = layer_of(kind, base_of("linear"), dropout=0.5)
    plain = layer_of(kind, base_of("linear"))
    layer.update({name: plain[name] for name in ("lora_a", "lora_b", "m") if name in plain})
    x = mx.random.normal((64,))
    mx.random.seed(1)
    drawn = layer(mx.broadcast_to(x, (4000, 64)))
    spread = drawn.std(axis=0)
    assert spread.min().item() > 0.01
    assert (mx.abs(drawn.mean(axis=0) - plain(x)) < 5 * spread / 4000**0.5).all().item()
    layer.eval()
    assert mx.array_equal(layer(x), plain(x))


def test_a_row_of_zeros_stays_one():
    embedding = nn.Embedding(4, 8)
    embedding.weight = mx.concatenate([mx.zeros((1, 8)), embedding.weight[1:]])
    layer = lowrank.wrap(embedding, "dora", rank=2, scale=1.0)
    assert layer(mx.array([0])).tolist() == [[0] * 8]
    assert layer.as_linear(mx.ones((1, 8)))[0, 0].item() == 0
