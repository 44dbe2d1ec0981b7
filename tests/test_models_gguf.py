"""Converted models against independent readers of the GGUF files they came from."""

from pathlib import Path
from types import SimpleNamespace

import gguf
import mlx.core as mx
import numpy as np
import pytest
from fixtures_tokenizers import PIECES, SAMPLE, ReferenceTokenizer, SentencePieceReference
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from callwright.models import safetensors_stream
from callwright.models.gguf.architectures import restore_rotary_rows
from callwright.models.gguf.convert import convert_gguf
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json


@pytest.fixture(scope="module")
def reader(source_folder: Path) -> gguf.GGUFReader:
    """The `gguf` package's reader, by the authors of the format."""
    return gguf.GGUFReader(next(source_folder.glob("*.gguf")))


@pytest.fixture(scope="module")
def weights(model_folder: Path) -> dict[str, mx.array]:
    return mx.load(str(model_folder / "model.safetensors"))


# -- weights ---------------------------------------------------------------------------------------

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        number, module = name.removeprefix("model.layers.").split(".", 1)
        return f"blk.{number}.{GGUF_NAMES[module]}.weight"
    return {"model.embed_tokens": "token_embd.weight", "model.norm": "output_norm.weight"}[name]


def llama_cpp_permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's `convert_hf_to_gguf.py` does to the rows of q and k (its `LlamaModel.permute`)."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def test_every_weight_equals_the_block_in_the_file(reader, weights, model_folder):
    config = read_json(model_folder / "config.json")
    quantization = config["quantization"]
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    stored = {tensor.name: tensor for tensor in reader.tensors}
    seen = set()
    for key in weights:
        if not key.endswith(".weight"):
            continue
        name = key.removesuffix(".weight")
        ours = weights[key]
        if f"{name}.scales" in weights:
            own = quantization.get(name, quantization)
            ours = mx.dequantize(
                ours,
                weights[f"{name}.scales"].astype(mx.float32),
                weights[f"{name}.biases"].astype(mx.float32),
                group_size=own["group_size"],
                bits=own["bits"],
            )
        ours = np.array(ours.astype(mx.float32))
        module = name.rpartition(".")[2]
        if module in heads:
            ours = llama_cpp_permute(ours, heads[module])
        tensor = stored[gguf_name(name)]
        theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours, theirs), f"{name} differs from {tensor.name} ({tensor.tensor_type.name})"
        seen.add(tensor.name)
    assert seen == set(stored)


def test_quantization_of_the_file_is_kept(reader, weights, model_folder):
    quantization = read_json(model_folder / "config.json")["quantization"]
    assert quantization == {
        "group_size": 32,
        "bits": 4,
        "model.embed_tokens": {"group_size": 32, "bits": 8},
    }
    assert {t.tensor_type.name for t in reader.tensors if t.name.startswith("blk.") and "norm" not in t.name} == {
        "Q4_1"
    }
    assert weights["model.layers.0.self_attn.q_proj.weight"].dtype == mx.uint32


def test_rotary_rows_are_put_back():
    head = np.arange(8)
    rows = np.stack([head, head + 100]).reshape(16, 1)  # two heads of 8
    stored = llama_cpp_permute(rows, 2)
    assert stored[:4, 0].tolist() == [0, 4, 1, 5]
    assert restore_rotary_rows(stored, 8).tolist() == rows.tolist()


def test_config_says_what_the_file_says(reader, model_folder):
    def field(name):
        return reader.get_field(name).contents()

    config = read_json(model_folder / "config.json")
    assert config["num_hidden_layers"] == field("llama.block_count") == 30
    assert config["hidden_size"] == field("llama.embedding_length")
    assert config["rope_theta"] == field("llama.rope.freq_base")
    assert config["rms_norm_eps"] == 1e-5
    assert config["tie_word_embeddings"] is True
    assert read_json(model_folder / "generation_config.json")["eos_token_id"] == [field("tokenizer.ggml.eos_token_id")]


# -- tokenizer -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path):
    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture(scope="module")
def reference(reader) -> ReferenceTokenizer:
    return ReferenceTokenizer(reader)


@pytest.mark.parametrize("text", SAMPLE, ids=range(len(SAMPLE)))
def test_token_ids_equal_the_reference(tokenizer, reference, text):
    assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_token_ids_equal_the_reference_on_any_mixture(tokenizer, reference, text):
    assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)


def test_text_survives_encoding_and_decoding(tokenizer):
    for text in SAMPLE[:18]:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_no_token_is_added_at_the_ends(tokenizer):
    assert tokenizer.encode("hi") == tokenizer.encode("hi", add_special_tokens=False)


# -- real files, converted with few layers' worth of time: they are read where rule fetch_model puts them -----


REAL = {
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf": ReferenceTokenizer,
    "gemma-3-270m-q4_k_m.gguf": SentencePieceReference,
}


@pytest.fixture(scope="module", params=REAL)
def real(request, root, tmp_path_factory) -> tuple[gguf.GGUFReader, Path, dict]:
    """A real file, its model folder, and what `convert_gguf` said of it."""
    path = next(root.glob(f"results/models/*/source/{request.param}"), None)
    if path is None:
        pytest.skip(f"{request.param} is not in results/models; rule fetch_model of its configuration fetches it")
    folder = tmp_path_factory.mktemp("real")
    return gguf.GGUFReader(path), folder, convert_gguf(path, folder)


def test_ids_of_a_real_tokenizer_equal_the_reference(real):
    reader, folder, _ = real
    reference = REAL[Path(reader.data.filename).name](reader)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in SAMPLE:
        assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text), text
    drawn = np.random.default_rng(0)
    for _ in range(60):
        text = "".join(drawn.choice(PIECES, drawn.integers(1, 12)))
        assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text), text
    for text in SAMPLE[:19]:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_weights_of_a_real_file_equal_its_blocks_or_differ_by_what_is_stated(real):
    """One tensor of each type of block and kind, by the gguf package's reader and decoder."""
    reader, folder, found = real
    weights, config = mx.load(str(folder / "model.safetensors")), read_json(folder / "config.json")
    kept = (found["tied_head"] or {"kept": "token_embd.weight"})["kept"].split()[0]
    names = {"token_embd.weight": "model.embed_tokens", "output.weight": "model.embed_tokens"}
    seen = set()
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        block = tensor.name.split(".")
        if (kind, block[-2]) in seen or (tensor.name in names and tensor.name != kept) or block[0] == "output_norm":
            continue
        seen.add((kind, block[-2]))
        theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        name = names.get(tensor.name) or f"model.layers.{block[1]}.{OURS[config['model_type']][block[2]]}"
        if block[-1] == "weight" and f"{name}.scales" in weights:
            own = config["quantization"].get(name, config["quantization"])
            parts = [weights[f"{name}.{part}"].astype(mx.float32) for part in ("scales", "biases")]
            ours = mx.dequantize(weights[f"{name}.weight"], *parts, group_size=32, bits=own["bits"])
        else:
            ours = weights[f"{name}.{block[-1]}"].astype(mx.float32)
            theirs = theirs - (config["model_type"] == "gemma3_text" and "norm" in block[2])
        difference = np.abs(np.array(ours) - theirs)
        stated = found["blocks"][kind]
        assert difference.max() <= stated["largest_error"], tensor.name
        assert np.sqrt((difference**2).mean() / (theirs**2).mean()) < 0.01
    assert {kind for kind, _ in seen} == set(found["blocks"])
    exact = {kind for kind, fact in found["blocks"].items() if fact["largest_error"] == 0}
    assert {"F32", "Q5_0", "Q8_0"} <= exact


OURS = {
    "qwen2": {theirs: ours for ours, theirs in GGUF_NAMES.items()},
    "gemma3_text": {theirs: ours for ours, theirs in GGUF_NAMES.items()}
    | {
        "ffn_norm": "pre_feedforward_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
    },
}


def test_of_two_roundings_of_a_tied_head_the_finer_is_kept(real):
    reader, folder, found = real
    assert read_json(folder / "config.json")["tie_word_embeddings"]
    if len([tensor for tensor in reader.tensors if tensor.name == "output.weight"]):
        assert found["tied_head"]["kept"] == "output.weight (Q8_0)"
        assert found["tied_head"]["dropped"] == "token_embd.weight (Q5_0)"
        assert found["tied_head"]["relative_difference"] == pytest.approx(0.0443, abs=1e-3)


# -- what cannot be converted ----------------------------------------------------------------------


def write_gguf(path: Path, architecture: str = "llama", pre: str = "smollm", tensor: str = "token_embd.weight") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["a"] * 4)
    writer.add_token_merges(["a a"])
    writer.add_eos_token_id(0)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_block_count(0)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    writer.add_tensor(tensor, np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refusal(path: Path, folder: Path) -> str:
    with pytest.raises(CallwrightError) as caught:
        convert_gguf(path, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_architecture_is_refused(tmp_path):
    message = refusal(write_gguf(tmp_path / "m.gguf", architecture="gpt-j"), tmp_path / "out")
    assert "m.gguf: general.architecture is 'gpt-j', expected one of llama, qwen2, qwen3, gemma3" in message


def test_another_pre_tokenizer_is_refused(tmp_path):
    message = refusal(write_gguf(tmp_path / "m.gguf", pre="deepseek-llm"), tmp_path / "out")
    assert "tokenizer.ggml.pre is 'deepseek-llm'" in message


def test_an_unknown_tensor_is_refused(tmp_path):
    message = refusal(write_gguf(tmp_path / "m.gguf", tensor="blk.0.ffn_gate_exps.weight"), tmp_path / "out")
    assert "tensor blk.0.ffn_gate_exps.weight is not one of a llama model" in message


def test_a_missing_tensor_is_named(tmp_path):
    message = refusal(write_gguf(tmp_path / "m.gguf", tensor="output.weight"), tmp_path / "out")
    assert "has no tensor for model.embed_tokens.weight" in message


def test_the_smallest_file_is_converted(tmp_path):
    convert_gguf(write_gguf(tmp_path / "m.gguf"), tmp_path / "out")
    assert mx.load(str(tmp_path / "out" / "model.safetensors"))["model.embed_tokens.weight"].shape == (4, 32)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"not a model at all" * 9])
def test_a_broken_file_is_refused(tmp_path, content):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert "m.gguf" in refusal(path, tmp_path / "out")


def test_a_file_that_is_cut_is_refused_wherever_it_ends(tmp_path):
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "m.gguf"
    for size in range(4, len(whole) - 32, 7):  # the last bytes pad the data
        path.write_bytes(whole[:size])
        assert "download it again" in refusal(path, tmp_path / "out")


def test_a_pointer_is_named(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert "Git LFS pointer" in refusal(path, tmp_path / "out")


def test_a_missing_shard_is_named(tmp_path):
    path = write_gguf(tmp_path / "m-00001-of-00003.gguf")
    assert "shard m-00002-of-00003.gguf of a GGUF in 3 files is missing" in refusal(path, tmp_path / "out")


def test_too_small_a_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_stream.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    message = refusal(write_gguf(tmp_path / "m.gguf"), tmp_path / "out")
    assert message.startswith("too little space on the disk of ")
    assert not (tmp_path / "out" / "model.safetensors").exists()
