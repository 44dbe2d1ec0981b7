"""A tiny random model of Gemma 3's architecture with a tokenizer of Gemma's kind, made in a second.

It stands for what `mlx-community/gemma-3-1b-it-4bit` brings: a chat template that drops tools without
a word, a tokenizer that adds BOS by itself, `<end_of_turn>` missing in the stop ids.
"""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
CHAT_TEMPLATE = """{{ bos_token }}
{%- set prefix, turns = '', messages %}
{%- if messages[0]['role'] == 'system' %}
  {%- set prefix, turns = messages[0]['content'] + '\\n\\n', messages[1:] %}
{%- endif %}
{%- for message in turns %}
  {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('roles must alternate') }}
  {%- endif %}
  {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
  {{- (prefix if loop.first else '') + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
CORPUS = [
    'If no tool fits or a required value is missing, answer in plain words. For each call write {"name": ..., ',
    '"arguments": {...}} You can call these tools: {"type":"object","properties":{"city":{"type":"string"}},"required"',
    "What is the weather in Paris, London and Zurich today? 0123456789 user model tool_call tool_response tools",
]


def make_tokenizer() -> Tokenizer:
    """Byte-fallback BPE over `▁` for spaces, BOS added in front: Gemma's kind, with 600 tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    letters = sorted({chr(code) for code in range(33, 127)} | {"▁", "\n"})
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)],
        initial_alphabet=letters,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The byte tokens must be ordinary tokens, not special ones: rebuild with only the real ones as special.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return tokenizer


def make_gemma(
    folder: Path, quantize: bool = False, layers: int = 4, width: int = 64, seed: int = 0, dtype: mx.Dtype = mx.bfloat16
) -> Path:
    """Write the model folder; `quantize` gives 4-bit weights in groups of 32, as MLX's converter writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * width,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": width // 2,
        "query_pre_attn_scalar": width // 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": tokenizer.get_vocab_size(),
        "sliding_window": 64,
        "sliding_window_pattern": 2,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    mx.random.seed(seed)
    model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
    model.sanitize({})  # ties the head to the embedding, as in the real one
    model.set_dtype(dtype)
    if quantize:
        config["quantization"] = {"group_size": 32, "bits": 4}
        nn.quantize(model, group_size=32, bits=4)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "GemmaTokenizer",
                "add_bos_token": True,
                "add_eos_token": False,
                "clean_up_tokenization_spaces": False,
                "bos_token": "<bos>",
                "eos_token": "<eos>",
                "pad_token": "<pad>",
                "unk_token": "<unk>",
                "chat_template": CHAT_TEMPLATE,
            }
        )
    )
    return folder
