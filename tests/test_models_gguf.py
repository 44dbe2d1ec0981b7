"""The converted default model against independent readers of the GGUF file it came from."""

from functools import cache
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from callwright.models.gguf import convert_gguf, restore_rotary_rows
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
    assert np.array(restore_rotary_rows(mx.array(stored), 2)).tolist() == rows.tolist()


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


class ReferenceTokenizer:
    """Byte-level BPE from scratch, reading the GGUF's tokens and merges through the `gguf` package.

    (transformers' own GGUF tokenizer conversion needs PyTorch.) Pre-tokenization is llama.cpp's for
    `smollm`: digits one by one, then GPT-2's expression. A byte without a token is left out, as in llama.cpp.
    """

    GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    def __init__(self, reader: gguf.GGUFReader):
        tokens = reader.get_field("tokenizer.ggml.tokens").contents()
        types = reader.get_field("tokenizer.ggml.token_type").contents()
        merges = reader.get_field("tokenizer.ggml.merges").contents()
        self.ids = {token: number for number, token in enumerate(tokens)}
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
        special = [token for token, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
        self.special = regex.compile("(" + "|".join(map(regex.escape, sorted(special, key=len, reverse=True))) + ")")
        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [byte for byte in range(256) if byte not in visible]
        self.letters = {byte: chr(byte) for byte in visible}
        self.letters |= {byte: chr(256 + number) for number, byte in enumerate(hidden)}
        self.word = cache(self.word)

    def word(self, word: str) -> list[int]:
        parts = [self.letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            rank, at = min(
                (self.ranks.get(pair, len(self.ranks)), at)
                for at, pair in enumerate(zip(parts, parts[1:], strict=False))
            )
            if rank == len(self.ranks):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ids[part] for part in parts if part in self.ids]

    def encode(self, text: str) -> list[int]:
        ids = []
        for number, piece in enumerate(self.special.split(text)):
            if number % 2:
                ids.append(self.ids[piece])
                continue
            for part in regex.findall(r"\p{N}|\P{N}+", piece):
                for word in self.GPT2.findall(part):
                    ids += self.word(word)
        return ids


SAMPLE = [
    "",
    " ",
    "Hello, world!",
    "It's we're I'll they'd DON'T can't o'clock",
    "  two spaces, three   spaces, trailing  ",
    "tabs\tand\n\nnew lines\r\n \n  indented\n",
    "0 12 345 6789 3.14159 -1e-10 2024-02-29T23:59:59Z 0x1F ½ ² Ⅷ ٣٤",
    "Zürich, São Paulo, naïve café, Straße, Ελλάδα, Москва, 東京都, 서울, العربية, עברית, हिन्दी, ไทย",
    "👍🏽 👨‍👩‍👧‍👦 🇫🇷 🏳️‍🌈 ❤️ ½ ™ — “quotes” … ﬁ \u200b\u00a0\u2003\ufeff",
    '{"name": "get_weather", "arguments": {"city": "Paris", "days": [1, 2, 3], "exact": true, "note": null}}',
    '{"a":{"b":[{"c":"d\\n\\"e\\""}]},"x":-0.5}',
    "<tool_call>\n{}\n</tool_call>\n<tool_response>\n[]\n</tool_response>",
    "def f(x: int) -> str:\n    return f'{x!r:>10}'  # comment\n\nif __name__ == '__main__':\n\tprint(f(3))\n",
    "SELECT * FROM t WHERE a<>b AND c!=d; -- ok\n/* x */ #include <stdio.h> && || ++i; $PATH ~/bin",
    "https://example.org/a?b=c&d=%20e#f user@example.com C:\\Users\\x",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|><|endoftext|>",
    "text<|im_end|>text <|im_end|> <|im_end <repo_name>x<filename>y<empty_output>",
    "antidisestablishmentarianism Llanfairpwllgwyngyll aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x00\x01\x06\x7f \x85 \u2028 \U0001f9ff \U000e0041",
    "e\u0301 é A\u030a Å ﷺ",
]


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path):
    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture(scope="module")
def reference(reader) -> ReferenceTokenizer:
    return ReferenceTokenizer(reader)


@pytest.mark.parametrize("text", SAMPLE, ids=range(len(SAMPLE)))
def test_token_ids_equal_the_reference(tokenizer, reference, text):
    assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)


PIECES = [*SAMPLE, *"aZ09 \n\t.,'\"{}[]<>|_-é中😀", "  ", "\r\n", "<|im_start|>", "<|im_end|>", "Ġ", "½", "'ll"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_token_ids_equal_the_reference_on_any_mixture(tokenizer, reference, text):
    assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)


def test_text_survives_encoding_and_decoding(tokenizer):
    for text in SAMPLE[:18]:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_no_token_is_added_at_the_ends(tokenizer):
    assert tokenizer.encode("hi") == tokenizer.encode("hi", add_special_tokens=False)


# -- what cannot be converted ----------------------------------------------------------------------


def write_gguf(path: Path, architecture: str = "llama", pre: str = "smollm", tensor: str = "token_embd.weight") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_tensor(tensor, np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_another_architecture_is_refused(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", architecture="gpt-j")
    with pytest.raises(CallwrightError, match=r"m\.gguf: general\.architecture is 'gpt-j', expected .*llama"):
        convert_gguf(path, tmp_path / "out")


def test_another_pre_tokenizer_is_refused(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", pre="deepseek-llm")
    with pytest.raises(CallwrightError, match="tokenizer.ggml.pre is 'deepseek-llm'"):
        convert_gguf(path, tmp_path / "out")


def test_an_unknown_tensor_is_refused(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tensor="blk.0.ffn_gate_exps.weight")
    with pytest.raises(CallwrightError, match="tensor blk.0.ffn_gate_exps.weight is not one of a llama model"):
        convert_gguf(path, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 64, b"not a model at all" * 9])
def test_a_broken_file_is_refused(tmp_path, content):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(CallwrightError, match=r"m\.gguf"):
        convert_gguf(path, tmp_path / "out")
