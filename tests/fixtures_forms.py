"""Small chat templates, written here, that call tools as the models of fourteen families do; and tokenizers for them.

They keep what matters of a family's form: its marks, how values are written, what ends a turn, whether the prompt
opens the model's thinking. Turns are ChatML's where the family's own do not matter.
"""

import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from callwright.models.convert import convert
from callwright.runtime.files import read_json

OPEN, CLOSE = "<|im_start|>", "<|im_end|>"


def chatml(calls: str, lead: str = "", opens: str = "", closes: str = CLOSE) -> str:
    """A template with ChatML's turns, `calls` for an assistant's calls, `lead` before each answer."""
    return (
        "{%- if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}"
        "{{ '<|im_end|>\\n' }}{% endif %}"
        "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
        "{%- if message.role == 'assistant' %}"
        f"{{{{- '{lead}' }}}}{{{{- message.content or '' }}}}"
        f"{{%- if message.tool_calls %}}{calls}{{% endif %}}"
        f"{{{{- '{closes}' + '\\n' }}}}"
        "{%- else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        f"{{%- if add_generation_prompt %}}{{{{ '<|im_start|>assistant\\n{opens}' }}}}{{% endif %}}"
    )


EACH = "{%- for item in message.tool_calls %}{%- set call = item.function %}"
ITEMS = "{%- for key, value in call.arguments.items() %}"
RAW = "{{- value if value is string else value | tojson }}"
QUOTED = "{%- macro show(value, q) %}{%- if value is string %}{{ q + value + q }}{%- elif value is mapping %}{{ '{' }}"
QUOTED += (
    "{%- for k, v in value.items() %}{{ k + ':' + show(v, q) }}{{ '' if loop.last else ',' }}{% endfor %}{{ '}' }}"
)
QUOTED += "{%- elif value is boolean or value is none or value is number %}{{ value | tojson }}{%- else %}{{ '[' }}"
QUOTED += (
    "{%- for v in value %}{{ show(v, q) }}{{ '' if loop.last else ',' }}{% endfor %}{{ ']' }}{% endif %}{% endmacro %}"
)
BRACES = EACH + "{{- 'START' + call.name + '{' }}" + ITEMS
BRACES += "{{- key + ':' + show(value, 'MARK') }}{{- '' if loop.last else ',' }}{%- endfor %}{{- '}END' }}{%- endfor %}"


def braces(start: str, end: str, mark: str) -> str:
    return BRACES.replace("START", start).replace("END", end).replace("MARK", mark)


def tagged(call: str, key: str, end: str) -> str:
    """Calls as elements: what opens a call around its name, an argument around key and value, what closes a call."""
    opened, closed = call.split("NAME")
    before, between, after = key.split("|")
    return (
        f"{EACH}{{{{- '{opened}' + call.name + '{closed}' }}}}{ITEMS}{{{{- '{before}' + key + '{between}' }}}}{RAW}"
        f"{{{{- '{after}' }}}}{{%- endfor %}}{{{{- '{end}' }}}}{{%- endfor %}}"
    )


# Family: its template, its special tokens beside ChatML's, the parser of mlx-lm that reads it.
FORMS: dict[str, tuple[str, list[str], str]] = {
    "mistral list": (
        "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'user' %}"
        "{%- if tools and loop.last or tools and loop.nextitem.role == 'assistant' %}"
        "{{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}"
        "{{- '[INST]' + message.content + '[/INST]' }}"
        "{%- elif message.tool_calls %}{{- '[TOOL_CALLS] [' }}"
        "{%- for call in message.tool_calls %}"
        "{%- if call.id | length != 9 %}{{ raise_exception('9 letters') }}{% endif %}"
        "{{- (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}{{- '' if loop.last else ', ' }}"
        "{%- endfor %}{{- ']' + eos_token }}"
        "{%- else %}{{- message.content + eos_token }}{% endif %}{% endfor %}",
        ["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"],
        "mistral",
    ),
    "mistral header": (
        chatml(EACH + "{{- '[TOOL_CALLS]' + call.name + '[ARGS]' + call.arguments | tojson }}{%- endfor %}"),
        ["[TOOL_CALLS]", "[ARGS]"],
        "mistral",
    ),
    "lfm2": (
        chatml(
            "{{- '<|tool_call_start|>[' }}" + EACH + "{{- call.name + '(' }}" + ITEMS + "{{- key + '=' }}"
            "{%- if value is string %}{{- \"'\" + value + \"'\" }}{%- elif value is mapping %}{{- value | tojson }}"
            "{%- else %}{{- value | string }}{% endif %}{{- '' if loop.last else ', ' }}{%- endfor %}{{- ')' }}"
            "{{- '' if loop.last else ', ' }}{%- endfor %}{{- ']<|tool_call_end|>' }}"
        ),
        ["<|tool_call_start|>", "<|tool_call_end|>"],
        "pythonic",
    ),
    "qwen3": (
        chatml(
            EACH + "{{- '' if loop.first else '\\n' }}"
            "{{- '<tool_call>\\n{\"name\": \"' + call.name + '\", \"arguments\": ' }}"
            "{{- call.arguments | tojson + '}\\n</tool_call>' }}{%- endfor %}",
            lead="<think>\\n\\n</think>\\n\\n",
        ),
        ["<think>", "</think>", "<tool_call>", "</tool_call>"],
        "json_tools",
    ),
    "one list without blanks": (
        chatml(
            "{{- '<tool_call>[' }}" + EACH + "{{- '{\"name\":\"' + call.name + '\",\"arguments\":' }}"
            "{{- call.arguments | tojson(separators=(',', ':')) + '}' }}{{- '' if loop.last else ',' }}{%- endfor %}"
            "{{- ']</tool_call>' }}"
        ),
        [],
        "json_tools",
    ),
    "qwen3.5": (
        chatml(
            tagged(
                "<tool_call>\\n<function=NAME>\\n",
                "<parameter=|>\\n|\\n</parameter>\\n",
                "</function>\\n</tool_call>\\n",
            ),
            lead="<think>\\n\\n</think>\\n\\n",
            opens="<think>\\n",
        ),
        ["<think>", "</think>", "<tool_call>", "</tool_call>"],
        "qwen3_coder",
    ),
    "glm": (
        chatml(tagged("<tool_call>NAME", "<arg_key>|</arg_key><arg_value>|</arg_value>", "</tool_call>")),
        ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        "glm47",
    ),
    "longcat": (
        chatml(
            tagged(
                "<longcat_tool_call>NAME\\n",
                "<longcat_arg_key>|</longcat_arg_key>\\n<longcat_arg_value>|</longcat_arg_value>\\n",
                "</longcat_tool_call>",
            )
        ),
        ["<longcat_tool_call>", "</longcat_tool_call>"],
        "longcat",
    ),
    "minimax": (
        chatml(
            "{{- '<minimax:tool_call>\\n' }}"
            + tagged('<invoke name="NAME">\\n', '<parameter name="|">|</parameter>\\n', "</invoke>\\n")
            + "{{- '</minimax:tool_call>' }}"
        ),
        ["<minimax:tool_call>", "</minimax:tool_call>"],
        "minimax_m2",
    ),
    "minicpm": (
        chatml(tagged('<function name="NAME">', '<param name="|">|</param>', "</function>")),
        [],
        "minicpm5",
    ),
    "muse": (
        chatml(
            "{{- '<atem:function_calls>' }}"
            + tagged(
                '<atem:invoke name="NAME">', '<atem:parameter name="|">|</atem:parameter>', "</atem:invoke>"
            ).replace(RAW, "{{- value | tojson }}")
            + "{{- '</atem:function_calls>' }}"
        ),
        [],
        "muse_spark",
    ),
    "gemma 4": (
        QUOTED + chatml(braces("<|tool_call>call:", "<tool_call|>", '<|"|>')),
        ["<|tool_call>", "<tool_call|>", '<|"|>'],
        "gemma4",
    ),
    "function gemma": (
        QUOTED
        + chatml(
            braces("<start_function_call>call:", "<end_function_call>", "<escape>"), closes="<start_function_response>"
        ).replace(
            "'<start_function_response>' + '\\n'",
            "('<start_function_response>' if message.tool_calls else '<|im_end|>')",
        ),
        ["<start_function_call>", "<end_function_call>", "<escape>", "<start_function_response>"],
        "function_gemma",
    ),
    "kimi k2": (
        chatml(
            "{{- '<|tool_calls_section_begin|>' }}" + EACH + "{{- '<|tool_call_begin|>functions.' + call.name + ':' }}"
            "{{- loop.index0 | string + '<|tool_call_argument_begin|>' + call.arguments | tojson }}"
            "{{- '<|tool_call_end|>' }}"
            "{%- endfor %}{{- '<|tool_calls_section_end|>' }}"
        ),
        ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>",
         "<|tool_call_argument_begin|>", "<|tool_call_end|>"],
        "kimi_k2",
    ),
    "kimi k3": (
        chatml(
            "{{- '<|open|>tools<|sep|>' }}" + EACH + "{{- '<|open|>call tool=\"' + call.name + '\" index=\"' }}"
            "{{- loop.index | string + '\"<|sep|><|open|>json type=\"object\"<|sep|>' + call.arguments | tojson }}"
            "{{- '<|close|>json<|sep|><|close|>call<|sep|>' }}{%- endfor %}{{- '<|close|>tools<|sep|>' }}"
        ),
        ["<|open|>", "<|close|>", "<|sep|>"],
        "kimi_k3",
    ),
}  # fmt: skip


def write_tokenizer(folder: Path, template: str | None, special: list[str], turns: bool = True) -> Path:
    """A folder with a byte-level tokenizer of 256 letters and some special tokens, and a chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<s>", "</s>", *([OPEN, CLOSE] if turns else []), *special]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    stops = ["</s>", *([CLOSE] if turns else [])]
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [tokenizer.token_to_id(name) for name in stops]})
    )
    return folder


def make_own(place, form):
    """The folder of a tiny random Llama with a tokenizer and template of `FORMS`, converted."""
    template, special, _ = form
    source = write_tokenizer(place / "source", template, special)
    vocabulary = len(read_json(source / "tokenizer.json")["model"]["vocab"]) + 4 + len(special)
    config = {
        "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "vocab_size": vocabulary,
        "tie_word_embeddings": True, "max_position_embeddings": 4096,
    }  # fmt: skip
    mx.random.seed(1)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    mx.save_safetensors(str(source / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (source / "config.json").write_text(json.dumps(config))
    convert(source, {}, place / "model", "own")
    return place / "model"
