"""Which layers are adapted, and adapters that mlx-lm and this project exchange."""

import itertools
import json
import re

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import pytest
from fixtures_gemma import make_gemma
from fixtures_lora import PROJECTIONS, make_llama, tiny_gemma, tiny_llama, tiny_model, training_settings
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

from callwright.lora import layers
from callwright.models.load import load
from callwright.runtime.errors import CallwrightError

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
    drawn = {
        name: a * mx.random.uniform(0.7, 1.3, a.shape) if name.endswith(".m") else 0.1 * mx.random.normal(a.shape)
        for name, a in tree_flatten(model.trainable_parameters())
    }
    model.load_weights(list(drawn.items()), strict=False)
    return drawn


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
    with pytest.raises(CallwrightError) as caught:
        layers.attach(tiny_llama(), lora(projections=["q_proj", "query"]))
    assert "training.lora.projections names 'query'" in str(caught.value)
    assert all(name in str(caught.value) for name in PROJECTIONS)


@pytest.mark.parametrize("count", [5, 0, -2])
def test_more_layers_than_there_are_are_refused(count):
    with pytest.raises(CallwrightError, match=rf"training\.lora\.layers is {count}, but the model has 4 blocks"):
        layers.attach(tiny_llama(), lora(layers=count))


def test_the_embedding_and_an_untied_head_are_adapted_whatever_the_number_of_blocks():
    model = tiny_llama(tie_word_embeddings=False)
    keys = layers.attach(model, lora(layers=1, projections=["q_proj", "embed_tokens", "lm_head"]))
    assert keys == ["lm_head", "model.embed_tokens", "self_attn.q_proj"]
    adapted = {name for name, _ in layers.lowrank_layers(model)}
    assert adapted == {"lm_head", "model.embed_tokens", "model.layers.3.self_attn.q_proj"}
    assert layers.trains_entry(model)


def test_a_tied_head_is_no_layer_of_its_own():
    with pytest.raises(CallwrightError, match=r"names 'lm_head'.* the model has: .*embed_tokens"):
        layers.attach(tiny_llama(), lora(projections=["lm_head"]))


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


@pytest.mark.parametrize(
    ("lora", "kept"),
    [
        ({"rank": 8, "scale": 20.0, "dropout": 0.0}, r"self_attn\.[qv]_proj"),  # 2024 and 2025: q and v, no keys
        ({"rank": 8, "scale": 20.0, "dropout": 0.0, "alpha": 16}, r"self_attn\.[qv]_proj"),  # with an unused alpha
        ({"rank": 8, "scale": 20.0, "dropout": 0.0}, r"layers\.3\.self_attn\.q_proj|layers\.2\.mlp\.up_proj"),
    ],
    ids=["q and v", "alpha", "not in every block"],
)
def test_adapters_of_older_mlx_lms_are_what_its_own_loader_makes_of_them(folder, tmp_path, lora, kept):
    """Without `keys` in the configuration, and with weights for some of what is adapted by default now."""
    model, _ = load(folder)
    model.freeze()
    linear_to_lora_layers(model, 2, lora)
    drawn = {
        name: 0.1 * mx.random.normal(array.shape)
        for name, array in tree_flatten(model.trainable_parameters())
        if re.search(kept, name)
    }
    assert drawn
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": lora, "model": "somewhere", "iters": 500}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), drawn)
    theirs, _ = mlx_lm.load(str(folder), adapter_path=str(tmp_path))
    found = load_with(folder, tmp_path)[0](TOKENS)
    assert mx.array_equal(found, theirs(TOKENS))
    assert not mx.array_equal(found, load(folder)[0](TOKENS))


MODELS = ["llama", "llama untied", "llama quantized", "gemma", "gemma quantized"]
PLACES = {
    "blocks": ["q_proj", "v_proj", "gate_proj", "down_proj"],
    "blocks and embedding": ["q_proj", "embed_tokens"],
    "embedding": ["embed_tokens"],
    "blocks and head": ["o_proj", "lm_head"],
}


def exchanged(model: str, kind: str, place: str) -> bool:
    """What there is, and what mlx-lm 0.32.2 can load; the rest is refused, see below."""
    if "head" in place:
        return "untied" in model
    return not (kind == "dora" and "quantized" in model and "embedding" in place)


COMBINATIONS = [
    combination for combination in itertools.product(MODELS, layers.KINDS, PLACES) if exchanged(*combination)
]


def fresh_model(model: str, folder) -> nn.Module:
    """The same weights each time."""
    return tiny_llama(tie_word_embeddings=False) if "untied" in model else tiny_model(model, folder)


def equal(found: mx.array, expected: mx.array, kind: str) -> bool:
    """Bit for bit, but for DoRA: the rows' lengths are summed in another order than mlx-lm's."""
    if kind == "lora":
        return mx.array_equal(found, expected).item()
    return (mx.abs(found - expected).max() < 1e-5 * mx.abs(expected).max()).item()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "place"), COMBINATIONS)
def test_adapters_of_every_kind_go_both_ways_with_equal_outputs(name, kind, place, tmp_path):
    settings = lora(kind=kind, projections=PLACES[place], rslora=True)
    ours = fresh_model(name, tmp_path)
    keys = layers.attach(ours, settings)
    drawn, config = drawn_adapter(ours), layers.adapter_config(ours, settings, keys)
    layers.save_adapter(tmp_path / "ours", drawn, config)
    theirs = load_adapters(fresh_model(name, tmp_path), str(tmp_path / "ours"))
    assert equal(theirs(TOKENS), ours(TOKENS), kind)
    assert not mx.allclose(theirs(TOKENS), fresh_model(name, tmp_path)(TOKENS), rtol=1e-2)

    theirs = fresh_model(name, tmp_path)
    theirs.freeze()
    linear_to_lora_layers(theirs, 2, config["lora_parameters"], use_dora=kind == "dora")
    layers.save_adapter(tmp_path / "theirs", drawn_adapter(theirs), {**config, "iters": 100})
    ours = fresh_model(name, tmp_path)
    layers.load_adapter(ours, tmp_path / "theirs")
    assert equal(ours(TOKENS), theirs(TOKENS), kind)


@pytest.mark.parametrize(("name", "kind", "place"), COMBINATIONS)
def test_merging_keeps_the_outputs_and_leaves_quantized_layers_alone(name, kind, place, tmp_path):
    model = fresh_model(name, tmp_path)
    layers.attach(model, lora(kind=kind, projections=PLACES[place]))
    drawn_adapter(model)
    before, expected = len(layers.lowrank_layers(model)), model(TOKENS)
    layers.merge(model)
    assert len(layers.lowrank_layers(model)) == (before if "quantized" in name else 0)
    assert mx.abs(model(TOKENS) - expected).max() < 1e-4 * mx.abs(expected).max()


def test_the_scale_of_rslora_is_divided_by_the_root_of_the_rank_and_written_out():
    settings = lora(rank=16, scale=8.0, rslora=True, projections=["q_proj"])
    model = tiny_llama()
    keys = layers.attach(model, settings)
    assert {layer.scale for _, layer in layers.lowrank_layers(model)} == {2.0}
    assert layers.adapter_config(model, settings, keys)["lora_parameters"]["scale"] == 2.0
    assert layers.effective_scale({**settings, "rslora": False}) == 8.0


@pytest.mark.parametrize("dequantize", [False, True])
def test_dora_that_mlx_lm_cannot_load_is_refused_on_every_device(dequantize, tmp_path):
    """On the CPU the model is dequantized when it is loaded; the adapter is for the folder all the same."""
    make_gemma(tmp_path, quantize=True)
    model, _ = load(tmp_path, dequantize=dequantize)
    with pytest.raises(
        CallwrightError, match=r"quantized embedding model\.embed_tokens: mlx-lm 0\.32\.2 cannot load it"
    ):
        layers.attach(model, lora(kind="dora", projections=["q_proj", "embed_tokens"]))
    layers.attach(model, lora(kind="dora", projections=["q_proj"]))


def test_dora_on_layers_of_six_bits_is_refused_since_mlx_lm_gets_their_width_wrong(tmp_path):
    model = tiny_llama()
    nn.quantize(model, group_size=32, bits=6)
    with pytest.raises(CallwrightError, match=r"DoRA on self_attn\.q_proj, quantized to 6 bits: mlx-lm 0\.32\.2"):
        layers.attach(model, lora(kind="dora", projections=["q_proj"]))
    linear_to_lora_layers(model, 2, {"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}, True)
    with pytest.raises(ValueError, match="matmul"):
        model(TOKENS)


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
    with pytest.raises(CallwrightError, match=r"q_proj\.lora_a is \(64, 4\), the model expects \(64, 5\)"):
        load_with(folder, path)


def test_an_adapter_of_more_or_fewer_blocks_than_its_config_says_is_refused(folder, tmp_path):
    path = saved(folder, tmp_path, num_layers=3)
    with pytest.raises(CallwrightError, match=r"layers\.1\.self_attn\.q_proj\.lora_a is nothing"):
        load_with(folder, path)
    path = saved(folder, tmp_path, num_layers=1)
    with pytest.raises(CallwrightError, match=r"layers\.2\.self_attn\.q_proj\.lora_a is \(64, 4\).* expects nothing"):
        load_with(folder, path)


def test_other_kinds_and_missing_files_are_refused(folder, tmp_path):
    with pytest.raises(CallwrightError, match=r"is not an adapter: it has no adapters\.safetensors"):
        load_with(folder, tmp_path)
    path = saved(folder, tmp_path, fine_tune_type="full")
    with pytest.raises(CallwrightError, match="fine_tune_type is 'full'; .* `mlx_lm.fuse` makes a model folder of it"):
        load_with(folder, path)
    path = saved(folder, tmp_path, lora_parameters={"rank": 4, "alpha": 8})
    with pytest.raises(CallwrightError, match=r"adapter_config\.json has no 'scale'"):
        load_with(folder, path)
    (path / "adapter_config.json").unlink()
    with pytest.raises(CallwrightError, match=r"adapter_config\.json does not exist"):
        load_with(folder, path)
