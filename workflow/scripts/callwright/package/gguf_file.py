"""A model folder as one GGUF file, which llama.cpp, Ollama and LM Studio run: by the `gguf` package's own writer.

The way back from `models.gguf`: names, the rows of rotary heads, Gemma's norms, Llama 3's rotation, the tokenizer.
One tensor at a time is dequantized and written.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
import numpy as np
from gguf import GGMLQuantizationType, TokenType

from callwright.lora.lowrank import Quantized
from callwright.models.folders import UNREADABLE, first_line
from callwright.models.gguf.architectures import ARCHITECTURES, ROPE_FACTORS, TOP_NAMES, Architecture
from callwright.models.gguf.tokenizer import LLAMA3, PRE_TOKENIZERS
from callwright.models.load import dequantized
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import atomic_write, read_json

log = logging.getLogger(__name__)

# The package also writes TQ1_0 and TQ2_0, for weights of three values; of others they lose 80 % (root mean square).
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4")
FILE_TYPES = {  # llama.cpp's numbers for "mostly" such weights
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32, "MXFP4": 38,
}  # fmt: skip
# llama.cpp keeps embedding and head at 8 bits or more in its files of 4 and 5 bits, as these suffer most.
ENDS = {"Q5_1": "Q8_0", "Q5_0": "Q8_0", "Q4_1": "Q8_0", "Q4_0": "Q8_0", "MXFP4": "Q8_0"}


def write_gguf(model_folder: str | Path, path: str | Path, kind: str = "F16", name: str = "") -> None:
    """Write the model in `model_folder` as the GGUF file `path`, its matrices as `kind` (of `TYPES`).

    Norms and biases are float32; embedding and head have 8 bits at least. name: what `general.name` says. The file
    appears whole or not at all.

    Raises CallwrightError for an architecture, a tokenizer or a width that GGUF has no place for.
    """
    folder, path = Path(model_folder), Path(path)
    config = read_json(folder / "config.json")
    architecture, about = _architecture(folder, config)
    try:
        model, _ = mlx_lm.utils.load_model(folder, lazy=True)
    except UNREADABLE as error:
        raise CallwrightError(f"{folder} is not a model that mlx-lm opens: {first_line(error)}") from error
    with atomic_write(path) as stream:
        writer = gguf.GGUFWriter(stream.name, architecture)
        try:
            _metadata(writer, folder, config, about, name or folder.name, kind)
            write_vocabulary(writer, folder, config)
            tensors = list(_tensors(model, config, about, kind))
            for target, shape, stored, _ in tensors:
                writer.add_tensor_info(target, *_stored(shape, stored))
            writer.write_header_to_file(Path(stream.name))
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for _, _, stored, values in tensors:
                writer.write_tensor_data(gguf.quantize(values(), stored))
        finally:
            writer.close()
        stream.seek(0, 2)
    log.info("written as GGUF, %s: %d tensors, %.1f MB", kind, len(tensors), path.stat().st_size / 1e6)


def _architecture(folder: Path, config: dict[str, Any]) -> tuple[str, Architecture]:
    for name, about in ARCHITECTURES.items():
        if about.model_type == config.get("model_type"):
            return name, about
    known = ", ".join(about.model_type for about in ARCHITECTURES.values())
    raise CallwrightError(
        f"{folder}: a model of type {config.get('model_type')!r} cannot be exported as GGUF (known types: {known}); "
        "take `gguf` out of package.exports"
    )


def _metadata(
    writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any], about: Architecture, name: str, kind: str
) -> None:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_type("model")
    writer.add_name(name)
    model = read_json(folder / "model.json") if (folder / "model.json").is_file() else {}
    if model.get("license"):
        writer.add_license(model["license"])
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config.get("max_position_embeddings", 32768))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(config.get("rope_theta", 1e6 if about.model_type == "gemma3_text" else 1e4))
    if about.model_type == "gemma3_text":
        if config.get("sliding_window_pattern", 6) != 6:
            raise CallwrightError(
                f"{folder}: every {config['sliding_window_pattern']}th layer sees all keys; GGUF knows 6"
            )
        writer.add_sliding_window(config.get("sliding_window", 512))
        writer.add_rope_freq_base_swa(config.get("rope_local_base_freq", 1e4))
    scaling = config.get("rope_scaling") or {}
    method = scaling.get("rope_type", scaling.get("type", "default"))
    if method in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(method))
        writer.add_rope_scaling_factor(scaling["factor"])
        if method == "yarn":
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    elif method not in ("default", "llama3"):
        raise CallwrightError(f"{folder}: a rotation of type {method!r} has no place in GGUF")


# One tensor: GGUF's name, its shape, how it is stored, and a function that gives its values in float32.
Entry = tuple[str, tuple[int, ...], GGMLQuantizationType, Any]


def _tensors(model: nn.Module, config: dict[str, Any], about: Architecture, kind: str) -> Iterator[Entry]:
    blocks = {ours: theirs for theirs, ours in about.layer_names.items()}
    ends = {ours: theirs for theirs, ours in TOP_NAMES.items()}
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | Quantized) or "weight" in module
    }
    for name, module in sorted(modules.items()):
        if name in ends:
            target = ends[name]
        else:
            _, _, number, inner = name.split(".", 3)
            target = f"blk.{number}.{blocks[inner]}"
        for part in ("weight", "bias"):
            if part in module:
                shape = _shape(module, part)
                stored = _type_of(name, shape, kind)
                yield (
                    f"{target}.{part}",
                    shape,
                    stored,
                    lambda m=module, p=part, t=target: _values(m, p, t, config, about),
                )
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type")) == "llama3":
        factors = llama3_factors(config)
        yield ROPE_FACTORS, factors.shape, GGMLQuantizationType.F32, lambda: factors


def _shape(module: nn.Module, part: str) -> tuple[int, ...]:
    if part == "weight" and isinstance(module, Quantized):
        return (module.weight.shape[0], module.weight.shape[1] * 32 // module.bits)
    return tuple(module[part].shape)


def _type_of(name: str, shape: tuple[int, ...], kind: str) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    stored = ENDS.get(kind, kind) if name in TOP_NAMES.values() else kind
    known = GGMLQuantizationType[stored]
    if shape[-1] % gguf.GGML_QUANT_SIZES[known][0]:
        raise CallwrightError(
            f"{name} has rows of {shape[-1]} weights, which {stored} blocks of 32 do not fill: take F16"
        )
    return known


def _values(module: nn.Module, part: str, target: str, config: dict[str, Any], about: Architecture) -> np.ndarray:
    """The weight or bias as GGUF has it, float32."""
    values = dequantized(module) if part == "weight" and isinstance(module, Quantized) else module[part]
    found = np.array(values.astype(mx.float32))
    last = target.rpartition(".")[2]
    if about.norm_offset and last.endswith("norm"):
        return found + np.float32(about.norm_offset)
    if about.interleaved and last in ("attn_q", "attn_k"):
        heads = config["num_attention_heads"] if last == "attn_q" else config["num_key_value_heads"]
        width = found.shape[0] // heads
        split = found.reshape(heads, 2, width // 2, *found.shape[1:])
        return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(found.shape)
    return found


def _stored(shape: tuple[int, ...], kind: GGMLQuantizationType) -> tuple[Any, ...]:
    """What `GGUFWriter.add_tensor_info` wants of a tensor: shape, NumPy type, bytes and type."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    nbytes = int(np.prod(shape)) // block * size
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        return shape, np.dtype(np.float32 if kind == GGMLQuantizationType.F32 else np.float16), nbytes
    return gguf.quant_shape_to_byte_shape(shape, kind), np.dtype(np.uint8), nbytes, kind


def llama3_factors(config: dict[str, Any]) -> np.ndarray:
    """By what Llama 3 divides each frequency [head_dim / 2], float32."""
    scaling = config["rope_scaling"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    waves = 2 * np.pi * config["rope_theta"] ** (np.arange(0, width, 2) / width)
    smooth = np.clip((scaling["original_max_position_embeddings"] / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32)


# -- the tokenizer ---------------------------------------------------------------------------------


def write_vocabulary(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Tokens, their types, merges or scores, special tokens and the chat template, from the tokenizer's files.

    Raises CallwrightError for another tokenizer than byte-level BPE with a known cut, and SentencePiece's BPE.
    """
    tokenizer, settings = read_json(folder / "tokenizer.json"), read_json(folder / "tokenizer_config.json")
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    if model["type"] != "BPE":
        raise CallwrightError(f"{folder}: a tokenizer of type {model['type']} cannot be exported as GGUF")
    ids = model["vocab"] | {token["content"]: token["id"] for token in added}
    size = max(config["vocab_size"], len(ids))
    tokens, types = [f"[PAD{number}]" for number in range(size)], [TokenType.UNUSED] * size
    for token, number in ids.items():
        tokens[number], types[number] = token, TokenType.NORMAL
    for token in added:
        types[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        for number in range(256):
            types[ids[f"<0x{number:02X}>"]] = TokenType.BYTE
        if model.get("unk_token"):
            types[ids[model["unk_token"]]] = TokenType.UNKNOWN
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(scores_of_merges(ids, model["merges"], size))
        writer.add_add_space_prefix('"Prepend"' in str(tokenizer.get("normalizer")).replace("'", '"'))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(cut_of(folder, tokenizer))
        writer.add_token_merges(merges)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = {key: _content(settings.get(f"{key}_token")) for key in ("bos", "eos", "pad", "unk")}
    numbers = {key: ids[token] for key, token in special.items() if token in ids}
    for key, number in numbers.items():
        getattr(writer, f"add_{key}_token_id")(number)
    # A model has one end of text for GGUF and one end of turn; ours may stop at several tokens.
    generation = folder / "generation_config.json"
    stops = (read_json(generation) if generation.is_file() else config).get("eos_token_id")
    others = [
        stop for stop in (stops if isinstance(stops, list) else [stops]) if stop not in (None, numbers.get("eos"))
    ]
    if others:
        writer.add_eot_token_id(others[-1])
    writer.add_add_bos_token("TemplateProcessing" in str(tokenizer.get("post_processor")))
    template = settings.get("chat_template")
    if template is None and (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if template:
        writer.add_chat_template(template)


def _content(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) else token


def cut_of(folder: Path, tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how `tokenizer` cuts text into words, found by the regular expression alone."""
    wanted = _cut(tokenizer["pre_tokenizer"])
    for name, known in PRE_TOKENIZERS.items():
        if _cut(known) == wanted:
            return "llama-bpe" if known is LLAMA3 else name
    raise CallwrightError(
        f"{folder}: its tokenizer cuts text in a way that has no name here; known are {', '.join(PRE_TOKENIZERS)}"
    )


def _cut(part: dict[str, Any]) -> list[Any]:
    """What decides where text is cut: the kinds of steps, with their expressions."""
    if part["type"] == "Sequence":
        return [step for inner in part["pretokenizers"] for step in _cut(inner)]
    if part["type"] == "Split":
        return [("Split", part["pattern"].get("Regex"), part["behavior"])]
    if part["type"] == "ByteLevel":
        return [("ByteLevel", part.get("use_regex", True))]
    return [(part["type"], part.get("individual_digits"))]


def scores_of_merges(ids: dict[str, int], merges: list[Any], size: int) -> list[float]:
    """A score for each token with which SentencePiece merges in the order of `merges`: the earlier, the higher."""
    scores = [0.0] * size
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        number = ids[left + right]
        if scores[number] == 0:
            scores[number] = -1.0 - rank
    return scores
