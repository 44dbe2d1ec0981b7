"""The Modelfile's Go templates, rendered by Go, against the chat templates that the models are trained with."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from callwright.chat.template import BY_TURN_TOKEN, text_of
from callwright.package.ollama import FAMILIES, family_of, go_template, modelfile

QWEN = (Path(__file__).parent / "fixtures" / "qwen_like.jinja").read_text()


def tool(name: str, about: str, required: list[str], **properties: dict) -> dict:
    """As Ollama keeps one: properties by key, fields in its order."""
    schema = {"type": "object", "required": required, "properties": dict(sorted(properties.items()))}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}


TOOLS = [
    tool(
        "get_weather", "The weather in a city.", ["city"],
        city={"type": "string", "description": "The city's name"},
        days={"type": "array", "items": {"type": "integer"}, "description": "Which days"},
        unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
    ),
    tool("ping", "Is anybody there?", []),
]  # fmt: skip
USER, AGAIN = ({"role": "user", "content": text} for text in ("Weather in Zürich & Oslo?", "Thanks. And tomorrow?"))


def calling(*cities: str, content: str = "") -> dict:
    calls = [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": c}}} for c in cities]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(text: str) -> dict:
    return {"role": "tool", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "12 degrees."}
CONVERSATIONS = {
    "a request": [USER],
    "a system text": [SYSTEM, USER],
    "an answer": [USER, ANSWER, AGAIN],
    "a call and its result": [USER, calling("Zürich"), result('{"celsius": 12}')],
    "two calls, two results": [SYSTEM, USER, calling("Oslo", "Bern"), result("1"), result("2"), ANSWER, AGAIN],
    "words before a call": [USER, calling("Oslo", content="I look."), result("3"), ANSWER, AGAIN],
}


@pytest.fixture(scope="session")
def go(tmp_path_factory):
    """A function that renders a list of inputs by Go's own text/template."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed (Debian: golang-go): its text/template cannot render the Modelfile's template")
    folder = tmp_path_factory.mktemp("go")
    source = Path(__file__).parent / "fixtures" / "ollama_template.go"
    binary = folder / "ollama_template"
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin:/usr/local/go/bin", "GOCACHE": str(folder / "cache")}
    subprocess.run(["go", "build", "-o", binary, source], check=True, env=environment | {"GO111MODULE": "off"})
    return lambda inputs: json.loads(
        subprocess.run([binary], input=json.dumps(inputs), capture_output=True, text=True, check=True).stdout
    )


def go_json(value) -> str:
    """Go's JSON: keys of maps sorted, no spaces, three characters escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def expected(family: str, messages: list[dict], tools: list[dict] | None) -> str:
    """The chat template's text, its calls' arguments as Go writes them."""
    template = _compile_jinja_template(QWEN if family == "qwen" else text_of(family))
    changed = [
        {
            **message,
            **(
                {
                    "tool_calls": [
                        {"function": {**call["function"], "arguments": go_json(call["function"]["arguments"])}}
                        for call in message["tool_calls"]
                    ]
                }
                if "tool_calls" in message
                else {}
            ),
        }
        for message in messages
    ]
    start = FAMILIES[family].start
    return template.render(
        messages=changed, tools=tools, add_generation_prompt=True, bos_token=start, eos_token="</s>",
        raise_exception=lambda text: (_ for _ in ()).throw(jinja2.TemplateError(text)),
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_go_renders_what_the_chat_template_renders(go, family):
    cases = [(name, messages, tools) for name, messages in CONVERSATIONS.items() for tools in (TOOLS, TOOLS[1:], None)]
    inputs = [
        {
            "template": go_template(family),
            "system": messages[0]["content"] if messages[0]["role"] == "system" else "",
            "messages": messages,
            "tools": tools or [],
        }
        for _, messages, tools in cases
    ]
    for (name, messages, tools), found in zip(cases, go(inputs), strict=True):
        assert "error" not in found, found
        wanted = expected(family, messages, tools)
        if family == "qwen" and tools:  # its tools are JSON, in which Go has no spaces
            for one in tools:
                written = json.dumps(one, ensure_ascii=False)
                assert written in wanted
                function = json.dumps(one["function"], separators=(",", ":"), ensure_ascii=False)
                wanted = wanted.replace(written, f'{{"type": "function", "function": {function}}}')
        assert found["text"] == wanted, (name, len(tools or []))


@pytest.mark.parametrize("family", FAMILIES)
def test_ollama_finds_tools_and_calls(go, family):
    text = go_template(family)
    assert ".Tools" in text
    assert "{{ if .ToolCalls }}" in text
    assert "{{ range" in text.split("{{ if .ToolCalls }}")[1]
    assert "json .Function.Arguments" in text
    [found] = go([{"template": text, "system": "", "messages": [USER], "tools": TOOLS}])
    assert found["tag"] == "<tool_call>"


def test_what_go_does_not_keep(go):
    """The differences that the module lists, each seen once."""
    function = {
        "name": "f", "description": "",
        "parameters": {
            "type": "object", "required": [],
            "properties": {
                "z": {"type": "integer", "default": 3, "minimum": 1},
                "a": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
            },
        },
    }  # fmt: skip
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "f", "arguments": {"z": "<", "a": 1}}}],
    }
    text = go_template("chatml_hermes.jinja")
    [found] = go(
        [
            {
                "template": text,
                "system": "",
                "messages": [USER, call],
                "tools": [{"type": "function", "function": function}],
            }
        ]
    )
    assert "f(a?: [object], z?: integer)\n" in found["text"]  # by key; neither default nor bound nor the items' fields
    assert '"arguments": {"a":1,"z":"\\u003c"}}' in found["text"]


def test_every_template_of_ours_has_a_family():
    ours = [(name, text_of(name)) for name in BY_TURN_TOKEN.values()]
    assert {family_of(text, ours) for _, text in ours} | {"qwen"} == set(FAMILIES)
    assert family_of(QWEN, ours) == "qwen"
    assert family_of("{{ messages }}", ours) is None


def test_the_modelfile_stops_is_greedy_and_names_the_file():
    text = modelfile("m.gguf", "chatml_hermes.jinja", ["<|im_end|>", "<|endoftext|>"], 4096, "Apache-2.0")
    assert text.startswith('FROM ./m.gguf\nTEMPLATE """')
    for line in ('PARAMETER stop "<|im_end|>"', 'PARAMETER stop "<|endoftext|>"', "PARAMETER temperature 0",
                 "PARAMETER num_ctx 4096", 'LICENSE """Apache-2.0"""'):  # fmt: skip
        assert f"\n{line}\n" in text
    assert text.count('"""') == 4


def test_ollama_puts_the_first_token_itself():
    assert "<bos>" not in modelfile("m.gguf", "gemma_hermes.jinja", [], 1024)
    assert SimpleNamespace(**FAMILIES["gemma_hermes.jinja"].__dict__).start == "<bos>"
