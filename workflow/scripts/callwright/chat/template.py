"""Chat templates: which one a model gets, and the one way in which prompts are rendered."""

import json
import logging
import re
from collections.abc import Container
from pathlib import Path
from typing import Any

from callwright.chat.formats import encode_calls
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).with_name("templates")
# Which of our templates speaks a model's turns: the token that opens a turn -> file.
BY_TURN_TOKEN = {
    "<|im_start|>": "chatml_hermes.jinja",
    "<start_of_turn>": "gemma_hermes.jinja",
    "<|start_header_id|>": "llama3_hermes.jinja",
    "[INST]": "mistral_hermes.jinja",
    "<|assistant|>": "phi_hermes.jinja",
}
ENDED_BY = {"<|assistant|>": "<|end|>"}  # which other token such a model must have: several families open turns so
# A model whose vocabulary has no turns gets these, written out, each turn ended by its end-of-text token.
PLAIN_BASE = "chatml_hermes.jinja"
CHATML_END = "<|im_end|>"
SEPARATOR = "<|im_sep|>"
# Tokens that end a turn in the models' families; those a model has belong in its stop ids. Two open what a tool says:
# with them the models that have them end a turn with calls.
END_OF_TURN = (
    "<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<turn|>", "<|end|>", "<|end_of_msg|>",
    "<|tool_response>", "<start_function_response>",
)  # fmt: skip
HARMONY = "<|message|>"
# `{{"name": …}}` in a template's words: a mistake of escaping, which small models copy.
_DOUBLED = re.compile(r"\{(\{(?:\\?\"|')name(?:\\?\"|'): [^{}]{0,200}\})\}")

PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "probe_weather",
        "description": "Probe of the template.",
        "parameters": {"type": "object", "properties": {"probe_city": {"type": "string"}}, "required": ["probe_city"]},
    },
}
PROBE_CALLS = [
    {"name": "probe_weather", "arguments": {"probe_city": "Zürich", "days": [1, 2]}},
    {"name": "probe_weather", "arguments": {}},
]


def choose_template(tokenizer: Any) -> str | None:
    """The chat template text that `tokenizer` needs, or None when its own already does tools in the Hermes form.

    A base model that knows no turns gets ChatML, which a warning says. Raises CallwrightError when a model has turns
    that none of ours speaks, or no token to end them.
    """
    if tokenizer.chat_template is not None and renders_hermes(tokenizer):
        return None
    vocabulary = tokenizer.get_vocab()
    for token, name in BY_TURN_TOKEN.items():
        if token in vocabulary and ENDED_BY.get(token, token) in vocabulary:
            return with_separator(text_of(name)) if SEPARATOR in vocabulary else text_of(name)
    if tokenizer.chat_template is None and tokenizer.eos_token:
        log.warning(
            "THIS IS A BASE MODEL: it has no chat template and no token of turns. It gets ChatML, written out in "
            "ordinary tokens and ended by %s. It has never seen a conversation: without training its answers mean "
            "little, and turns cost more tokens than in a model that was made for them.", tokenizer.eos_token,
        )  # fmt: skip
        return text_of(PLAIN_BASE).replace(CHATML_END, tokenizer.eos_token)
    raise CallwrightError(
        "the model's chat template does not render tools in the Hermes form (<tool_call> blocks), and its vocabulary "
        f"has none of the turn tokens {', '.join(BY_TURN_TOKEN)} that have templates here; choose another model, or "
        "see why its own form is not taken with `model.call_format: own`"
    )


def text_of(name: str) -> str:
    """The text of one of our templates, after the macros that it uses: a model's template is one file."""
    return "".join((TEMPLATES / part).read_text(encoding="utf-8") for part in ("signatures.jinja", name))


def with_separator(template: str) -> str:
    """Our ChatML template for Phi-4 (14B), whose roles end with a token of their own and turns without a line break."""
    template = re.sub(r"(<\|im_start\|>(?:system|user|assistant))\\n", rf"\1{SEPARATOR}", template)
    return template.replace("message.role + '\\n'", f"message.role + '{SEPARATOR}'").replace(
        "<|im_end|>\\n", "<|im_end|>"
    )


def turn_ends(vocabulary: Container[str]) -> list[str]:
    """Those tokens of a vocabulary that end turns. In Harmony's, `<|end|>` ends a message and not the turn."""
    return [token for token in END_OF_TURN if token in vocabulary and (token != "<|end|>" or HARMONY not in vocabulary)]


def quiet(template: str) -> str:
    """A template with thinking aloud left out, where it asks `enable_thinking` whether it should be."""
    return "{% set enable_thinking = false %}" + template if "enable_thinking" in template else template


def mended(template: str) -> str:
    """A template whose words show a call in doubled braces, as older files of Qwen2.5 do, with single ones."""
    return _DOUBLED.sub(r"\1", template)


def renders_hermes(tokenizer: Any) -> bool:
    """True when the tokenizer's own template shows the tools and writes calls exactly as `encode_calls` does.

    Found by rendering a probe: reading the template's source says little about what it does.
    """
    messages = [{"role": "user", "content": "Probe?"}]
    calls = [{"type": "function", "function": call} for call in PROBE_CALLS]
    try:
        prompt = render_prompt(tokenizer, messages, [PROBE_TOOL])
        whole = render(tokenizer, [*messages, {"role": "assistant", "content": "", "tool_calls": calls}], [PROBE_TOOL])
    except Exception:  # a template may raise whatever it likes about roles or fields that it does not know
        return False
    shown = all(text in prompt for text in ("probe_weather", "Probe of the template.", "probe_city", "<tool_call>"))
    return shown and whole.startswith(prompt + encode_calls(PROBE_CALLS))


def render_prompt(tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
    """The prompt text: the conversation so far and the opening of the assistant's turn.

    The same bytes as `mlx_lm.server` makes of the same request; used for training and evaluation alike.
    """
    return render(tokenizer, messages, tools, add_generation_prompt=True)


def render(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    add_generation_prompt: bool = False,
) -> str:
    """Render through the tokenizer's chat template, after the clean-up that the server does (`plain_message`)."""
    return tokenizer.apply_chat_template(
        [plain_message(message) for message in messages],
        tools=tools or None,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )


def plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """A copy with content as a string and arguments of tool calls as an object, as in `mlx_lm.server`."""
    message = dict(message)
    content = message.get("content")
    if content is None:
        message["content"] = ""
    elif isinstance(content, list):
        message["content"] = "".join(part["text"] for part in content if part.get("type") == "text")
    if message.get("tool_calls"):
        message["tool_calls"] = [plain_call(call) for call in message["tool_calls"]]
    return message


def plain_call(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call (OpenAI form or bare) whose `arguments` are an object where they were the text of one."""
    if "function" in call:
        return {**call, "function": plain_call(call["function"])}
    arguments = call.get("arguments")
    return {**call, "arguments": json.loads(arguments)} if isinstance(arguments, str) and arguments else dict(call)
