"""A fused model: what is written is what was measured, and it keeps what the adapter does."""

import itertools
import json

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from fixtures_package import SETTINGS, make_adapter, make_examples, make_model
from fixtures_tiny import greedy_by_mlx_lm
from mlx.utils import tree_flatten

from callwright.chat.template import render_prompt
from callwright.chat.tokens import prompt_ids, tokenize_example
from callwright.decoding.limits import needed_room
from callwright.lora import layers
from callwright.models.load import load
from callwright.package import fuse as module
from callwright.package.choose import choose
from callwright.package.compare import Answers, Distance
from callwright.package.fuse import Fusion, fuse
from callwright.runtime.errors import CallwrightError

EXAMPLES = make_examples()
CASES = [("llama", "lora", ("embed_tokens",)), ("gemma", "lora", ("embed_tokens",)), ("gemma", "dora", ())]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join([case[0], case[1], *case[2]]))
def fused(request, tmp_path_factory):
    """(folder, report) of a fused model: `<folder>/mlx` is the base, `adapter` and `fused` lie beside it."""
    kind, method, more = request.param
    folder = tmp_path_factory.mktemp(f"{kind}-{method}")
    make_adapter(make_model(kind, folder), folder / "adapter", method, more=more)
    report = fuse(folder / "mlx", folder / "adapter", EXAMPLES, SETTINGS, "hermes", folder / "fused")
    return folder, report


def weights_of(folder):
    return mx.load(str(folder / "model.safetensors"))


def adapted(folder):
    """The model with its adapter merged, in float32."""
    model, tokenizer = load(folder / "mlx", dequantize=True)
    layers.load_adapter(model, folder / "adapter")
    layers.merge(model)
    return model, tokenizer


def test_each_touched_layer_is_the_adapted_weight_rounded_to_its_bits_and_the_others_are_the_base_models(fused):
    folder, report = fused
    base, found = weights_of(folder / "mlx"), weights_of(folder / "fused")
    merged = dict(tree_flatten(adapted(folder)[0].parameters()))
    table = json.loads((folder / "fused/config.json").read_text())["quantization"]
    for path, bits in report["bits"].items():
        weight, dtype = merged[f"{path}.weight"], base[f"{path}.scales"].dtype
        if bits == 16:
            assert mx.array_equal(found[f"{path}.weight"], weight.astype(dtype))
            assert table[path] is False
        else:
            packed, scales, biases = mx.quantize(weight, 32, bits)
            assert mx.array_equal(found[f"{path}.weight"], packed)
            assert mx.array_equal(found[f"{path}.scales"], scales.astype(dtype))
            assert mx.array_equal(found[f"{path}.biases"], biases.astype(dtype))
            assert table.get(path, table)["bits"] == bits
    untouched = {name for name in base if name.rpartition(".")[0] not in report["bits"]}
    assert untouched
    assert all(mx.array_equal(base[name], found[name]) and base[name].dtype == found[name].dtype for name in untouched)


def test_mlx_lm_answers_with_the_written_folder_as_the_simulation_did(fused):
    folder, report = fused
    simulated = Fusion(folder / "mlx", folder / "adapter", EXAMPLES[:2], "hermes")
    for path, bits in report["bits"].items():
        simulated.install(path, bits)
    model, tokenizer = load(folder / "fused", dequantize=True)
    prompts = [prompt_ids(tokenizer, example.messages, example.tools) for example in EXAMPLES[:2]]
    limit = needed_room(tokenizer, EXAMPLES[:2], "hermes")[0]
    written = greedy_by_mlx_lm(model, prompts, limit, set(tokenizer.eos_token_ids))
    texts = [tokenizer.decode(answer.ids, clean_up_tokenization_spaces=False) for answer in written]
    assert all(texts)
    assert texts == simulated.answers().texts


def test_stock_mlx_lm_opens_it_with_tools_and_stop_tokens(fused):
    folder, _ = fused
    model, tokenizer = mlx_lm.load(str(folder / "fused"))
    _, base = mlx_lm.load(str(folder / "mlx"))
    assert tokenizer.has_tool_calling
    assert tokenizer.eos_token_ids == base.eos_token_ids
    assert "<end_of_turn>" in tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids))
    prompts = [render_prompt(t, EXAMPLES[0].messages, EXAMPLES[0].tools) for t in (tokenizer, base)]
    assert prompts[0] == prompts[1]
    assert "weather(city: string): now" in prompts[0]
    assert mlx_lm.generate(model, tokenizer, prompts[0], max_tokens=3) is not None


def test_the_report_says_what_the_choice_rests_on(fused):
    folder, report = fused
    kl = report["kl"]
    assert set(kl["all_layers_at"]) == {"4", "8", "16"}
    assert kl["all_layers_at"]["16"] < kl["all_layers_at"]["8"] < kl["all_layers_at"]["4"]
    assert 0 < kl["adapter_to_fused"] <= kl["limit"] == 0.02 * kl["adapter_to_base"]
    assert report["items"] == 2
    assert report["size_bytes"]["fused"] == (folder / "fused/model.safetensors").stat().st_size


def test_the_distance_is_the_kl_divergence_of_plain_logits(fused):
    folder, _ = fused
    model, tokenizer = adapted(folder)
    rows = [tokenize_example(tokenizer, example) for example in EXAMPLES[:2]]

    def log_probabilities():
        found = []
        for row in rows:
            [(begin, end)] = row["spans"]
            logits = np.array(model(mx.array([row["input_ids"]]))[0, begin - 1 : end - 1]).astype(np.float64)
            found.append(logits - np.log(np.exp(logits - logits.max()).sum(-1, keepdims=True)) - logits.max())
        return np.concatenate(found)

    distance, before = Distance(model, tokenizer, EXAMPLES[:2], "hermes", first=3), log_probabilities()
    assert distance.positions == len(before)
    assert distance.measure() == pytest.approx(0, abs=1e-6)
    layer = model.layers[3].mlp.down_proj
    layer.weight = layer.weight[::-1]  # not scaled: a norm after it would undo that
    after = log_probabilities()
    plain = (np.exp(before) * (before - after)).sum(-1).mean()
    assert plain > 1e-3
    assert distance.measure() == pytest.approx(plain, rel=1e-3)


def test_an_adapter_smaller_than_the_steps_of_4_bits_gets_more_bits(tmp_path):
    model = make_model("llama", tmp_path)
    make_adapter(model, tmp_path / "adapter", size=0.01)
    report = fuse(model, tmp_path / "adapter", EXAMPLES, SETTINGS, "hermes", tmp_path / "fused")
    kl = report["kl"]
    assert kl["all_layers_at"]["4"] > 0.5 * kl["adapter_to_base"]  # rounded away, or drowned
    assert min(report["bits"].values()) >= 8
    assert kl["adapter_to_fused"] <= kl["limit"]


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_bits_can_be_asked_for_but_a_layer_never_gets_fewer_than_it_had(tmp_path, bits):
    model = make_model("llama", tmp_path)
    make_adapter(model, tmp_path / "adapter", more=("embed_tokens",))
    settings = {**SETTINGS, "bits": bits, "margin": 1.0}
    report = fuse(model, tmp_path / "adapter", EXAMPLES, settings, "hermes", tmp_path / "fused")
    embedding = report["bits"].pop("model.embed_tokens")
    assert set(report["bits"].values()) == {bits}
    assert embedding == max(bits, 8)


def test_a_model_that_was_not_quantized_stays_so(tmp_path):
    model = make_model("gemma", tmp_path, quantize=False)
    make_adapter(model, tmp_path / "adapter")
    report = fuse(model, tmp_path / "adapter", EXAMPLES, SETTINGS, "hermes", tmp_path / "fused")
    assert set(report["bits"].values()) == {16}
    assert "quantization" not in json.loads((tmp_path / "fused/config.json").read_text())
    assert {array.dtype for array in weights_of(tmp_path / "fused").values()} == {mx.bfloat16}


def test_a_loss_of_accuracy_is_first_met_with_more_bits_and_then_refused(tmp_path, monkeypatch):
    make_adapter(make_model("llama", tmp_path), tmp_path / "adapter")
    right = itertools.chain([True], itertools.repeat(False))

    def answers(self):
        return Answers(["x"] * 4, [[]] * 4, [next(right)] * 4)

    monkeypatch.setattr(module.Fusion, "answers", answers)
    settings = {**SETTINGS, "tolerance": 1.0}
    where = (tmp_path / "mlx", tmp_path / "adapter", EXAMPLES, settings, "hermes", tmp_path / "fused")
    with pytest.raises(
        CallwrightError, match=r"100.0 % of 4 .* 0.0 % in the fused .*\(4, 8, 16 bits tried\).*package.margin"
    ):
        fuse(*where)
    assert not (tmp_path / "fused").exists()
    right = iter([True, False, True])  # the adapter; 4 bits; 8 bits
    report = fuse(*where)
    assert set(report["bits"].values()) == {8}
    assert [entry["accuracy"] for entry in report["tried"]] == [0, 1]


def test_answers_with_other_calls_get_more_bits_and_with_the_most_they_are_no_error(tmp_path, monkeypatch):
    make_adapter(make_model("llama", tmp_path), tmp_path / "adapter")
    call, other = [{"name": "weather", "arguments": {}}], []
    calls = iter([call, other, call, call, other, other, other])

    def answers(self):
        return Answers(["x"] * 4, [next(calls), *[call] * 3], [True] * 4)

    monkeypatch.setattr(module.Fusion, "answers", answers)
    settings = {**SETTINGS, "tolerance": 1.0, "agreement": 0.9}
    where = (tmp_path / "mlx", tmp_path / "adapter", EXAMPLES, settings, "hermes", tmp_path / "fused")
    report = fuse(*where)
    assert [entry["agreement"] for entry in report["tried"]] == [0.75, 1]
    assert set(report["bits"].values()) == {8}
    report = fuse(*where)
    assert [entry["agreement"] for entry in report["tried"]] == [0.75, 0.75, 0.75]
    assert set(report["bits"].values()) == {16}
    assert report["agreement"]["calls"] == 0.75


def test_a_folder_that_differs_from_what_was_measured_is_not_left_behind(tmp_path, monkeypatch):
    make_adapter(make_model("llama", tmp_path), tmp_path / "adapter")
    fusion = Fusion(tmp_path / "mlx", tmp_path / "adapter", EXAMPLES, "hermes")
    bits = dict.fromkeys(fusion.touched, 8)
    fusion.install_all(bits)
    fusion.plain[fusion.touched[0]].weight += 1e-6
    with pytest.raises(CallwrightError, match="not written as it was measured: model.layers"):
        fusion.write(bits, tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_no_example_is_refused(tmp_path):
    with pytest.raises(CallwrightError, match="no example"):
        Fusion(tmp_path, tmp_path, [], "hermes")


@pytest.mark.parametrize("most", [0.0, 0.05, 0.12, 0.3, 0.6, 2.0])
def test_the_choice_is_the_lightest_that_any_order_by_damage_allows(most):
    damage = {"a": 0.3, "b": 0.02, "c": 0.1, "d": 0.05}
    groups = {name: [f"{name}1", f"{name}2"] for name in damage}
    loss = {4: 1.0, 8: 0.01, 16: 0.0, None: 0.0}
    installed = dict.fromkeys([layer for names in groups.values() for layer in names])

    def measure():
        return sum(loss[bits] * damage[layer[0]] / 2 for layer, bits in installed.items())

    found = choose(groups, [4, 8, 16], installed.__setitem__, measure, most)
    kl = sum(loss[bits] * damage[layer[0]] / 2 for layer, bits in found.bits.items())
    assert found.kl == pytest.approx(kl)
    assert kl <= most
    # Every prefix of the order by damage, at 8 bits where not at 4; or at 16 where 8 bits are too few everywhere.
    order = sorted(damage, key=damage.get)
    base = 8 if sum(damage.values()) * loss[8] <= most else 16
    lower = {8: 4, 16: 8}[base]
    fitting = [
        count
        for count in range(5)
        if sum(damage[name] * loss[lower if name in order[:count] else base] for name in order) <= most
    ]
    assert sum(bits == lower for bits in found.bits.values()) == 2 * max(fitting)


@pytest.fixture(scope="module")
def needle(tmp_path_factory):
    """(folder, report) of a fused Needle, whose base has codes that MLX cannot hold and a head for its confidence."""
    folder = tmp_path_factory.mktemp("needle")
    make_adapter(make_model("needle", folder), folder / "adapter", size=0.3, more=("embed_tokens",))
    settings = {**SETTINGS, "items": 1, "bits": 4}
    return folder, fuse(folder / "mlx", folder / "adapter", EXAMPLES, settings, "hermes", folder / "fused")


def test_of_needle_what_was_touched_gets_16_bits_and_all_else_keeps_its_codes(needle):
    folder, report = needle
    base, found = weights_of(folder / "mlx"), weights_of(folder / "fused")
    merged = dict(tree_flatten(adapted(folder)[0].parameters()))
    assert len(report["bits"]) == 7
    assert set(report["bits"].values()) == {16}
    for path in report["bits"]:
        assert found[f"{path}.weight"].dtype == mx.float16
        assert mx.array_equal(found.pop(f"{path}.weight"), merged[f"{path}.weight"].astype(mx.float16))
    untouched = {name for name in base if name.rpartition(".")[0] not in report["bits"]}
    assert found.keys() == untouched
    assert {"model.layers.0.self_attn.q_proj.codes", "model.layers.1.self_attn.k_proj.norms"} < untouched
    assert all(mx.array_equal(base[name], found[name]) and base[name].dtype == found[name].dtype for name in untouched)


def test_a_fused_needle_has_the_adapters_logits_for_us_and_for_mlx_lm(needle):
    folder, _ = needle
    tokens = mx.array([np.random.default_rng(3).integers(4, 300, 23).tolist()])
    expected, without = adapted(folder)[0](tokens), load(folder / "mlx")[0](tokens)
    effect = mx.abs(expected - without).max().item()
    assert effect > 0.01 * mx.abs(expected).max().item()
    theirs, _ = mlx_lm.load(str(folder / "fused"), trust_remote_code=True)
    for model in (load(folder / "fused")[0], theirs):
        assert mx.abs(model(tokens) - expected).max().item() < 0.01 * effect


def test_a_fused_needle_says_what_it_left_out_and_has_our_module(needle):
    folder, report = needle
    facts = json.loads((folder / "fused/model.json").read_text())
    assert (folder / "mlx/heads.safetensors").is_file()
    assert not (folder / "fused/heads.safetensors").exists()
    assert facts["left_out"] == report["left_out"] == ["heads.safetensors"]
    assert "heads.safetensors" not in facts["files"]
    assert (folder / "fused/needle.py").read_text() == (folder / "mlx/needle.py").read_text()
    assert report["model_file"] == "needle.py"
    base = json.loads((folder / "mlx/model.json").read_text())
    assert facts["parameters"] == base["parameters"]
    assert int(facts["parameters_by_bits"]["16"]) == sum(
        weights_of(folder / "fused")[f"{path}.weight"].size for path in report["bits"]
    )


def test_a_fused_needle_can_be_fused_once_more(needle, tmp_path):
    folder, _ = needle
    fusion = Fusion(folder / "fused", make_adapter(folder / "fused", tmp_path / "adapter"), EXAMPLES[:1], "hermes")
    bits = dict.fromkeys(fusion.touched, 16)
    fusion.install_all(bits)
    fusion.write(bits, tmp_path / "twice")
    assert weights_of(tmp_path / "twice").keys() == weights_of(folder / "fused").keys()
