"""A model folder as GGUF: read back by our own converter and the package's reader; computed by llama.cpp itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
import yaml
from fixtures_gemma import make_gemma
from fixtures_lora import make_llama, tiny_llama
from fixtures_shapes import tiny_qwen
from fixtures_tokenizers import SAMPLE, ReferenceTokenizer, SentencePieceReference
from mlx.utils import tree_flatten
from mlx_lm.models import qwen2, qwen3
from transformers import AutoTokenizer

from callwright.decoding.workers import answer_all
from callwright.models.convert import convert
from callwright.models.gguf.convert import convert_gguf
from callwright.models.gguf.reader import read_gguf
from callwright.models.load import load
from callwright.package.gguf_file import FILE_TYPES, TYPES, write_gguf
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json

TOKENS = mx.array([[2, 270, 300, 42, 9, 77, 123]])
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
CASES = {
    "llama": {},
    "llama untied": {"tie_word_embeddings": False},
    "llama of llama 3's rotation": {"rope_theta": 500000.0, "rope_scaling": LLAMA3, "head_dim": 32},
    "llama of another llama 3's rotation": {
        "rope_theta": 10000.0, "head_dim": 32,
        "rope_scaling": {**LLAMA3, "factor": 32.0, "high_freq_factor": 3.0, "original_max_position_embeddings": 64},
    },
    "llama, linear rotation": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "qwen2": {"head_dim": 16},
    "qwen2 untied": {"head_dim": 16, "tie_word_embeddings": False},
    "qwen3": {},
    "gemma3": {},
}  # fmt: skip


def make(case: str, folder: Path) -> Path:
    """A tiny random model of an architecture as a folder in float32."""
    kind = case.split()[0].strip(",")
    if kind == "gemma3":
        make_gemma(folder, layers=7)
        config = read_json(folder / "config.json") | {"sliding_window_pattern": 6}
        (folder / "config.json").write_text(json.dumps(config))
        return folder
    changes = {"rope_theta": 10000.0, "max_position_embeddings": 512} | CASES[case]
    make_llama(folder, vocab_size=500, **changes)
    if kind != "llama":
        model = tiny_qwen({"qwen2": qwen2, "qwen3": qwen3}[kind], **changes)
        config = json.loads(json.dumps(model.args.__dict__)) | {"model_type": kind}
        (folder / "config.json").write_text(json.dumps(config))
    else:
        model = tiny_llama(vocab_size=500, **changes)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    return folder


def fit_vocabulary(folder: Path) -> None:
    """Give the model as many rows as its tokenizer has tokens, as GGUF wants it."""
    size = len(read_json(folder / "tokenizer.json")["model"]["vocab"])
    config = read_json(folder / "config.json")
    weights = mx.load(str(folder / "model.safetensors"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights and weights[name].shape[0] < size:
            more = mx.zeros((size - weights[name].shape[0], weights[name].shape[1]), weights[name].dtype)
            weights[name] = mx.concatenate([weights[name], more])
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    config["vocab_size"] = weights["model.embed_tokens.weight"].shape[0]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_back(case, tmp_path):
    source = make(case, tmp_path / "source")
    fit_vocabulary(source)
    write_gguf(source, tmp_path / "m.gguf", "F32")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = (dict(tree_flatten(load(folder)[0].parameters())) for folder in (source, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, array in before.items():
        tolerance = 2**-23 if case == "gemma3" and "norm" in name else 0  # stored with one added
        assert mx.abs(array - after[name]).max().item() <= tolerance, name
    one, other = (load(folder)[0](TOKENS) for folder in (source, tmp_path / "back"))
    assert mx.allclose(one, other, atol=1e-4)
    ours, theirs = (read_json(folder / "config.json") for folder in (source, tmp_path / "back"))
    for key in ("num_attention_heads", "num_key_value_heads", "rms_norm_eps", "num_hidden_layers"):
        assert ours[key] == theirs[key]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1", "BF16", "MXFP4"])
def test_each_type_is_the_gguf_packages_own_rounding(kind, tmp_path):
    source = make("llama", tmp_path / "source")
    fit_vocabulary(source)
    write_gguf(source, tmp_path / "m.gguf", kind)
    weights = dict(tree_flatten(load(source)[0].parameters()))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert stored["blk.0.ffn_up.weight"].tensor_type.name == kind
    assert stored["token_embd.weight"].tensor_type.name == (kind if kind == "BF16" else "Q8_0")
    assert stored["output_norm.weight"].tensor_type.name == "F32"
    for theirs, ours in (("token_embd", "model.embed_tokens"), ("blk.2.ffn_up", "model.layers.2.mlp.up_proj")):
        tensor = stored[f"{theirs}.weight"]
        expected = gguf.quantize(np.array(weights[f"{ours}.weight"]), tensor.tensor_type)
        assert np.array_equal(tensor.data.reshape(-1).view(np.uint8), expected.reshape(-1).view(np.uint8))


def test_the_configuration_offers_the_types_that_there_are(root):
    schema = yaml.safe_load((root / "workflow/schemas/config.schema.yaml").read_text())
    assert tuple(schema["properties"]["package"]["properties"]["gguf_type"]["enum"]) == TYPES
    assert set(TYPES) == FILE_TYPES.keys()


def test_our_reader_of_headers_and_the_packages_agree(tmp_path, model_folder):
    write_gguf(model_folder, tmp_path / "m.gguf", "Q8_0", "a name")
    ours, theirs = read_gguf(tmp_path / "m.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata.keys() == fields.keys()
    for name, value in ours.metadata.items():
        found = value.tolist() if isinstance(value, np.ndarray) else value
        assert found == (pytest.approx(fields[name]) if isinstance(found, float) else fields[name]), name
    assert {name: (t.offset, t.type, list(reversed(t.shape))) for name, t in ours.tensors.items()} == {
        t.name: (t.data_offset, t.tensor_type, t.shape.tolist()) for t in theirs.tensors
    }
    assert ours.metadata["general.name"] == "a name"
    assert ours.metadata["tokenizer.ggml.pre"] == "smollm"


def test_the_default_models_tokenizer_comes_back(tmp_path, model_folder):
    write_gguf(model_folder, tmp_path / "m.gguf", "Q8_0")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "back")
    reference = ReferenceTokenizer(gguf.GGUFReader(tmp_path / "m.gguf"))
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (model_folder, tmp_path / "back"))
    assert after.chat_template == before.chat_template
    assert after.eos_token == before.eos_token
    for text in SAMPLE:
        ids = before.encode(text, add_special_tokens=False)
        assert ids == after.encode(text, add_special_tokens=False) == reference.encode(text)


def test_a_sentence_piece_tokenizer_comes_back(tmp_path):
    source = make("gemma3", tmp_path / "source")
    write_gguf(source, tmp_path / "m.gguf", "F16")
    convert_gguf(tmp_path / "m.gguf", tmp_path / "back")
    reference = SentencePieceReference(gguf.GGUFReader(tmp_path / "m.gguf"))
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / "back"))
    for text in SAMPLE:
        ids = before.encode(text, add_special_tokens=False)
        assert ids == after.encode(text, add_special_tokens=False) == reference.encode(text), text
    assert after.encode("hi")[0] == after.bos_token_id == before.encode("hi")[0]


def test_a_gemma_of_another_pattern_and_foreign_models_are_refused(tmp_path):
    source = make_gemma(tmp_path / "gemma")
    with pytest.raises(CallwrightError, match="every 2th layer sees all keys; GGUF knows 6"):
        write_gguf(source, tmp_path / "m.gguf")
    (source / "config.json").write_text(json.dumps(read_json(source / "config.json") | {"model_type": "mamba"}))
    with pytest.raises(CallwrightError, match="'mamba' cannot be exported as GGUF"):
        write_gguf(source, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["gemma"]


# -- llama.cpp itself --------------------------------------------------------------------------------


def llama_cpp() -> str | None:
    """The Python that has `xllamacpp`: this one, or the one that CALLWRIGHT_LLAMA_CPP names."""
    for python in (os.environ.get("CALLWRIGHT_LLAMA_CPP"), sys.executable):
        if python and subprocess.run([python, "-c", "import xllamacpp"], capture_output=True).returncode == 0:
            return python
    return None


def test_llama_cpp_says_the_same(tmp_path, model_folder):
    """Greedy tokens of the exported default model, by llama.cpp and by us, on a few prompts; F16 is all but exact."""
    python = llama_cpp()
    if python is None:
        pytest.skip("xllamacpp is not installed (pip install xllamacpp): llama.cpp cannot check the export")
    write_gguf(model_folder, tmp_path / "m.gguf", "F16")
    model, tokenizer = load(model_folder)
    asked = ["What is the capital of France?", "Write one sentence about the sea.", "Name three colours."]
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in asked
    ]
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    ours = [""] * len(prompts)
    for item, answer in answer_all(model, prompts, 16, set(tokenizer.eos_token_ids), 3):
        ours[item] = tokenizer.decode(answer.ids)
    script = Path(__file__).parent / "fixtures" / "llama_cpp_answers.py"
    done = subprocess.run(
        [python, str(script)], input=json.dumps({"model": str(tmp_path / "m.gguf"), "prompts": texts, "tokens": 16}),
        capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs["tokens"] == [len(prompt) for prompt in prompts]
    assert [text.strip() for text in theirs["texts"]] == [text.strip() for text in ours]


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_converted_models_can_be_written(kind, tmp_path):
    """As packing has them: quantized, with a template of ours."""
    from fixtures_package import make_model

    source = make_model("llama", tmp_path)
    if kind == "gemma":
        convert(make("gemma3", tmp_path / "gemma"), {}, tmp_path / "mlx2")
        source = tmp_path / "mlx2"
    write_gguf(source, tmp_path / "m.gguf", "F16")
    found = read_gguf(tmp_path / "m.gguf")
    assert found.metadata["tokenizer.ggml.model"] == "llama"
    assert "tool_call" in found.metadata["tokenizer.chat_template"] if kind == "gemma" else True
