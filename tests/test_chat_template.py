"""Prompts and conversations as text, for both families of turns."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from callwright.chat.formats import encode_calls
from callwright.chat.template import choose_template, render, render_prompt

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city, e.g. “Zürich”.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object"}}},
]
ASK = {"role": "user", "content": "Weather in Zürich?"}
CALLS = [{"name": "get_weather", "arguments": {"city": "Zürich", "days": [1]}}, {"name": "now", "arguments": {}}]


@pytest.fixture(scope="module")
def chatml(model_folder: Path):
    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture(scope="module")
def gemma(gemma_folder):
    return AutoTokenizer.from_pretrained(gemma_folder)


@pytest.fixture(params=["chatml", "gemma"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def openai_calls(calls, as_text: bool):
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": call["name"],
                "arguments": json.dumps(call["arguments"]) if as_text else call["arguments"],
            },
        }
        for number, call in enumerate(calls)
    ]


def test_chatml_prompt(chatml):
    assert render_prompt(chatml, [ASK], TOOLS[1:]) == (
        "<|im_start|>system\n"
        "You can call these tools:\n"
        "<tools>\n"
        "now()\n"
        "</tools>\n"
        "For each call write\n"
        "<tool_call>\n"
        '{"name": ..., "arguments": {...}}\n'
        "</tool_call>\n"
        "If no tool fits or a required value is missing, answer in plain words.<|im_end|>\n"
        "<|im_start|>user\n"
        "Weather in Zürich?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_gemma_prompt(gemma):
    assert render_prompt(gemma, [{"role": "system", "content": "Be brief."}, ASK], TOOLS[1:]) == (
        "<bos><start_of_turn>user\n"
        "Be brief.\n\n"
        "You can call these tools:\n"
        "<tools>\n"
        "now()\n"
        "</tools>\n"
        "For each call write\n"
        "<tool_call>\n"
        '{"name": ..., "arguments": {...}}\n'
        "</tool_call>\n"
        "If no tool fits or a required value is missing, answer in plain words.\n\n"
        "Weather in Zürich?<end_of_turn>\n"
        "<start_of_turn>model\n"
    )


def test_every_tool_is_shown_whole_and_on_one_line(tokenizer):
    prompt = render_prompt(tokenizer, [ASK], TOOLS)
    lines = prompt.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert lines == ["get_weather(city: string): Weather of a city, e.g. “Zürich”.", "now()"]


def test_bare_tools_render_like_wrapped_ones(tokenizer):
    assert render_prompt(tokenizer, [ASK], [tool["function"] for tool in TOOLS]) == render_prompt(
        tokenizer, [ASK], TOOLS
    )


@pytest.mark.parametrize("none", [None, []])
def test_without_tools_nothing_is_said_of_them(tokenizer, none):
    prompt = render_prompt(tokenizer, [ASK], none)
    assert "tool" not in prompt
    assert prompt.endswith(("<|im_start|>assistant\n", "<start_of_turn>model\n"))


def test_the_users_system_message_comes_first_and_once(tokenizer):
    for tools in (TOOLS, None):
        prompt = render_prompt(tokenizer, [{"role": "system", "content": "Answer in French."}, ASK], tools)
        assert prompt.count("Answer in French.") == 1
        assert "helpful" not in prompt
        assert prompt.find("Answer in French.") < prompt.find("Weather in Zürich?")


@pytest.mark.parametrize("as_text", [False, True], ids=["object", "text"])
def test_calls_of_the_assistant_render_as_they_are_trained(tokenizer, as_text):
    prompt = render_prompt(tokenizer, [ASK], TOOLS)
    said = {"role": "assistant", "content": None, "tool_calls": openai_calls(CALLS, as_text)}
    written = {"role": "assistant", "content": encode_calls(CALLS)}
    text = render(tokenizer, [ASK, said], TOOLS)
    assert text == render(tokenizer, [ASK, written], TOOLS)
    assert text.startswith(prompt + encode_calls(CALLS))
    assert text[len(prompt + encode_calls(CALLS)) :] in ("<|im_end|>\n", "<end_of_turn>\n")


def test_words_before_calls_are_kept(tokenizer):
    said = {"role": "assistant", "content": "Let me look.", "tool_calls": openai_calls(CALLS, False)}
    assert "Let me look.\n" + encode_calls(CALLS) in render(tokenizer, [ASK, said], TOOLS)


def test_results_of_tools_come_back_in_one_turn(tokenizer):
    messages = [
        ASK,
        {"role": "assistant", "content": "", "tool_calls": openai_calls(CALLS, True)},
        {"role": "tool", "tool_call_id": "call_0", "content": '{"sun": true}'},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    prompt = render_prompt(tokenizer, messages, TOOLS)
    user, end = (
        ("<|im_start|>user\n", "<|im_end|>\n")
        if "<|im_end|>" in prompt
        else ("<start_of_turn>user\n", "<end_of_turn>\n")
    )
    results = '<tool_response>\n{"sun": true}\n</tool_response>\n<tool_response>\nnoon\n</tool_response>'
    assert user + results + end in prompt
    assert prompt.startswith(render_prompt(tokenizer, [ASK], TOOLS) + encode_calls(CALLS))


def test_gemma_writes_one_bos_whatever_the_conversation(gemma):
    messages = [ASK, {"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "And now?"}]
    for conversation in (messages, [{"role": "system", "content": "Be brief."}, *messages], messages[1:]):
        prompt = render_prompt(gemma, conversation, TOOLS)
        ids = gemma.encode(prompt, add_special_tokens=False)
        assert ids.count(gemma.bos_token_id) == 1
        assert ids[0] == gemma.bos_token_id
        assert prompt.count("<tools>") == 1


def test_content_parts_are_joined(tokenizer):
    parts = [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Zürich?"}]
    assert render_prompt(tokenizer, [{"role": "user", "content": parts}], TOOLS) == render_prompt(
        tokenizer, [ASK], TOOLS
    )


def test_the_callers_messages_are_not_changed(tokenizer):
    messages = [ASK, {"role": "assistant", "content": None, "tool_calls": openai_calls(CALLS, True)}]
    before = json.dumps(messages)
    render(tokenizer, messages, TOOLS)
    assert json.dumps(messages) == before


def test_our_templates_are_recognised(tokenizer):
    assert choose_template(tokenizer) is None
