"""An Ollama Modelfile whose template really offers tools.

Ollama does not read a GGUF's own template: it renders Go's text/template, offers tools only where that mentions
`.Tools`, and finds calls in an answer only by what stands before the first brace in a literal `{{ if .ToolCalls }} …
{{ range .ToolCalls }}`. So a template is written here for each of our chat formats and for Qwen's own, in the
same words. What Go cannot keep:

- the order of a schema's properties and of a call's arguments: Go's maps are sorted by key;
- JSON's spaces in arguments, and `<`, `>` and `&` in them, which Go writes as \\u003c and the like;
- of a parameter's schema, what Ollama has no field for: defaults, bounds, formats; what an array's items are, beyond
  their type.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from callwright.chat.template import BY_TURN_TOKEN, text_of
from callwright.runtime.files import read_json

log = logging.getLogger(__name__)

CONTEXT = 8192  # tokens of room at most: Ollama takes memory for all of them at once

# A parameter's type, as signatures.jinja writes it: the dot is Ollama's ToolProperty.
_TYPE = (
    '{{ define "values" }}{{ range $n, $value := . }}{{ if $n }}|{{ end }}{{ json $value }}{{ end }}{{ end }}'
    '{{ define "items" }}[{{ if .type }}{{ .type }}{{ else }}any{{ end }}]{{ end }}'
    '{{ define "type" }}{{ if .Enum }}{{ template "values" .Enum }}'
    '{{ else if and .Items (eq (printf "%v" .Type) "array") }}{{ template "items" .Items }}'
    "{{ else if .Type }}{{ .Type }}{{ else }}any{{ end }}{{ end }}"
)
_SIGNATURE = (
    "{{ range .Tools }}{{ $required := .Function.Parameters.Required }}{{ $first := true }}{{ .Function.Name }}("
    "{{ range $name, $property := .Function.Parameters.Properties }}"
    "{{ if not $first }}, {{ end }}{{ $first = false }}"
    '{{ $mark := "?" }}{{ range $required }}{{ if eq . $name }}{{ $mark = "" }}{{ end }}{{ end }}'
    '{{ $name }}{{ $mark }}: {{ template "type" $property }}'
    "{{ if $property.Description }} ({{ $property.Description }}){{ end }}"
    "{{ end }}){{ if .Function.Description }}: {{ .Function.Description }}{{ end }}\n{{ end }}"
)
_OURS = (
    "You can call these tools:\n<tools>\n"
    + _SIGNATURE
    + '</tools>\nFor each call write\n<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>\n'
    "If no tool fits or a required value is missing, answer in plain words."
)
_QWENS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>{{ range .Tools }}\n"
    '{"type": "function", "function": {{ json .Function }}}'
    "{{ end }}\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)
_CALL = '<tool_call>\n{"name": "{{ .Function.Name }}", "arguments": {{ json .Function.Arguments }}}\n</tool_call>'
_CALLS = (
    "{{ $content := .Content }}{{ if .ToolCalls }}{{ range $n, $call := .ToolCalls }}"
    "{{ if or $n $content }}\n{{ end }}" + _CALL + "{{ end }}{{ end }}"
)


@dataclass(frozen=True)
class Turns:
    """How a family writes turns; texts as they stand in a prompt.

    `start` of a text; `system` opens the system turn (None: system text and tools open the first turn of the user);
    `user`, `assistant` and `tool` open theirs, `end`, `answered` and `tool_end` end those of user and system, of the
    assistant, and of tool results. `default` is the system text where there is none and no tools.
    """

    start: str
    system: str | None
    user: str
    assistant: str
    tool: str
    end: str
    answered: str
    default: str = ""
    own: bool = False  # Qwen's own template: tools in JSON, and a default system text beside them too


FAMILIES = {
    "chatml_hermes.jinja": Turns(
        "", "<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_start|>user\n",
        "<|im_end|>\n", "<|im_end|>\n", "You are a helpful AI assistant.",
    ),
    "llama3_hermes.jinja": Turns(
        "<|begin_of_text|>", "<|start_header_id|>system<|end_header_id|>\n\n",
        "<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>", "<|eot_id|>",
    ),
    "phi_hermes.jinja": Turns(
        "", "<|system|>", "<|user|>", "<|assistant|>", "<|user|>", "<|end|>", "<|end|>"
    ),
    "gemma_hermes.jinja": Turns(
        "<bos>", None, "<start_of_turn>user\n", "<start_of_turn>model\n", "<start_of_turn>user\n", "<end_of_turn>\n",
        "<end_of_turn>\n",
    ),
    "mistral_hermes.jinja": Turns("<s>", None, "[INST]", "", "[INST]", "[/INST]", "</s>"),
    "qwen": Turns(
        "", "<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_start|>user\n",
        "<|im_end|>\n", "<|im_end|>\n", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        own=True,
    ),
}  # fmt: skip


def go_template(family: str, start: str | None = None) -> str:
    """The TEMPLATE of a family of `FAMILIES`; `start`: what a text begins with, where the model's differs.

    Ollama's llama.cpp puts the first token itself where the GGUF says so, so `start` is left out by `modelfile`.
    """
    turns = FAMILIES[family]
    begin = turns.start if start is None else start
    tools = _QWENS if turns.own else _OURS
    if turns.system is None:
        return _TYPE + begin + _without_system(turns, tools)
    if turns.own:
        system = f"{{{{ if .System }}}}{{{{ .System }}}}{{{{ else }}}}{turns.default}{{{{ end }}}}"
        opening = f"{turns.system}{system}{{{{ if .Tools }}}}\n\n{tools}{{{{ end }}}}{turns.end}"
    else:
        whole = f"{turns.system}{{{{ if .System }}}}{{{{ .System }}}}{{{{ if .Tools }}}}\n\n{{{{ end }}}}{{{{ end }}}}"
        whole += f"{{{{ if .Tools }}}}{tools}{{{{ end }}}}{turns.end}"
        opening = f"{{{{ if or .System .Tools }}}}{whole}{{{{ end }}}}"
        if turns.default:
            opening = f"{opening[:-9]}{{{{ else }}}}{turns.system}{turns.default}{turns.end}{{{{ end }}}}"
    return _TYPE + begin + opening + _messages(turns, "")


def _without_system(turns: Turns, tools: str) -> str:
    opening = (
        "{{ if not $opened }}{{ $opened = true }}{{ if $.System }}{{ $.System }}\n\n{{ end }}"
        f"{{{{ if $.Tools }}}}{{{{ with $ }}}}{tools}{{{{ end }}}}\n\n{{{{ end }}}}{{{{ end }}}}"
    )
    return "{{ $opened := false }}" + _messages(turns, opening)


def _messages(turns: Turns, opening: str) -> str:
    """All turns but the system's, and the opening of the assistant's.

    Results of tools that follow one another share a turn, so it is opened where the one before was none, and ended
    before the next that is none, or at the end.
    """
    result = "<tool_response>\n{{ .Content }}\n</tool_response>"
    close = "{{ if $results }}" + turns.end + "{{ $results = false }}{{ end }}"
    return (
        "{{ $results := false }}{{ range .Messages }}"
        '{{ if eq .Role "tool" }}'
        f"{{{{ if $results }}}}\n{{{{ else }}}}{turns.tool}{opening}{{{{ end }}}}{{{{ $results = true }}}}{result}"
        f'{{{{ else if eq .Role "assistant" }}}}{close}{turns.assistant}{{{{ .Content }}}}{_CALLS}{turns.answered}'
        f'{{{{ else if eq .Role "user" }}}}{close}{turns.user}{opening}{{{{ .Content }}}}{turns.end}'
        "{{ end }}{{ end }}" + close + turns.assistant
    )


def family_of(template: str, ours: Sequence[tuple[str, str]]) -> str | None:
    """The family that speaks like the chat template `template`; `ours`: (name, text) of our templates.

    None for a form of calling that is neither ours nor Qwen's.
    """
    for name, text in ours:
        if template.strip() == text.strip():
            return name
    if "<|im_start|>" in template and "<tool_call>" in template and "You are Qwen" in template:
        return "qwen"
    return None


def write_modelfile(model_folder: str | Path, folder: str | Path, gguf: str) -> bool:
    """Write `Modelfile` beside the file `gguf` in `folder`, for the model in `model_folder`; False, said in the log,
    where the model calls in a form for which there is no Go template here.
    """
    model_folder = Path(model_folder)
    settings, config = read_json(model_folder / "tokenizer_config.json"), read_json(model_folder / "config.json")
    ours = [(name, text_of(name)) for name in dict.fromkeys(BY_TURN_TOKEN.values())]
    family = family_of(settings.get("chat_template") or "", ours)
    if family is None:
        log.warning("no Ollama Modelfile: the model's chat template is neither ours nor Qwen's")
        return False
    facts = read_json(model_folder / "model.json") if (model_folder / "model.json").is_file() else {}
    stops, context = facts.get("stop_tokens", []), min(config.get("max_position_embeddings", 4096), CONTEXT)
    text = modelfile(gguf, family, stops, context, facts.get("license") or "")
    (Path(folder) / "Modelfile").write_text(text, encoding="utf-8")
    return True


def modelfile(gguf: str, family: str, stops: Sequence[str], context: int, license: str = "") -> str:
    """The Modelfile beside the file `gguf`: greedy, ended by `stops`, with `context` tokens of room."""
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{go_template(family, start="")}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += ["PARAMETER temperature 0", f"PARAMETER num_ctx {context}"]
    if license:
        lines.append(f'LICENSE """{license}"""')
    return "\n".join(lines) + "\n"
