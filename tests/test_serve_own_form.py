"""A streamed answer of a model with a form of its own: calls as its parser reads them, thinking left out."""

import json

import pytest
from fixtures_forms import FORMS

from callwright.chat.call_format import named
from callwright.chat.formats import encode_calls
from callwright.serve.answer import Assembler, Delta
from callwright.serve.wire import Header, chunks, completion, usage

SCHEMAS = {
    "book_table": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "people": {"type": "integer"}},
        "required": ["place"],
    },
    "now": {"type": "object", "properties": {}},
}
# One call, as each parser reads it.
BOOKED = {
    "mistral": '[TOOL_CALLS]book_table[ARGS]{"place": "x", "people": 4}',
    "pythonic": "<|tool_call_start|>[book_table(place='x', people=4)]<|tool_call_end|>",
    "json_tools": '<tool_call>\n{"name": "book_table", "arguments": {"place": "x", "people": 4}}\n</tool_call>',
    "qwen3_coder": "<tool_call>\n<function=book_table>\n<parameter=place>\nx\n</parameter>\n<parameter=people>\n4\n"
    "</parameter>\n</function>\n</tool_call>",
    "glm47": "<tool_call>book_table<arg_key>place</arg_key><arg_value>x</arg_value><arg_key>people</arg_key>"
    "<arg_value>4</arg_value></tool_call>",
    "longcat": "<longcat_tool_call>book_table<longcat_arg_key>place</longcat_arg_key><longcat_arg_value>x"
    "</longcat_arg_value><longcat_arg_key>people</longcat_arg_key><longcat_arg_value>4</longcat_arg_value>"
    "</longcat_tool_call>",
    "minimax_m2": '<minimax:tool_call><invoke name="book_table"><parameter name="place">x</parameter>'
    '<parameter name="people">4</parameter></invoke></minimax:tool_call>',
    "minicpm5": '<function name="book_table"><param name="place">x</param><param name="people">4</param></function>',
    "muse_spark": '<atem:function_calls><atem:invoke name="book_table"><atem:parameter name="place">"x"'
    '</atem:parameter><atem:parameter name="people">4</atem:parameter></atem:invoke></atem:function_calls>',
    "gemma4": '<|tool_call>call:book_table{place:<|"|>x<|"|>,people:4}<tool_call|>',
    "function_gemma": "<start_function_call>call:book_table{place:<escape>x<escape>,people:4}<end_function_call>",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.book_table:0<|tool_call_argument_begin|>"
    '{"place": "x", "people": 4}<|tool_call_end|><|tool_calls_section_end|>',
    "kimi_k3": '<|open|>tools<|sep|><|open|>call tool="book_table" index="1"<|sep|><|open|>argument key="place" '
    'type="string"<|sep|>x<|close|>argument<|sep|><|open|>argument key="people" type="number"<|sep|>4'
    "<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>",
}


def stream(name, text, size, reason="stop", **options):
    """The assembler at its end, the words and the calls that it passed on, the text fed in pieces of a size."""
    answer = Assembler(**{"schemas": SCHEMAS, "form": named(name), **options})
    deltas = [delta for at in range(0, len(text), size) for delta in answer.feed(text[at : at + size])]
    deltas += answer.end(reason, 99)
    words = "".join(delta.content for delta in deltas)
    calls = [delta.call["function"] for delta in deltas if delta.call]
    return answer, words, [(call["name"], json.loads(call["arguments"])) for call in calls]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("style", ["fenced", "fenced_ids"])
def test_fenced_lists_are_passed_on_as_calls(style, size):
    """The forms that no stock server reads."""
    booked = {"name": "book_table", "arguments": {"place": "x", "people": 4}}
    now = {"name": "now", "arguments": {}}
    answer, words, calls = stream(style, "Yes. " + encode_calls([booked, now], style), size)
    assert calls == [("book_table", {"place": "x", "people": 4}), ("now", {})]
    assert words == "Yes."
    assert answer.problems == []
    answer, words, calls = stream(style, encode_calls([{"name": "then", "arguments": {}}, now], style), size)
    assert [name for name, _ in calls] == ["now"]
    assert "not among the tools" in answer.problems[0].message
    answer, words, calls = stream(style, "```json\n[1, {}]\n```", size)
    assert calls == []
    assert "a call must be an object" in answer.problems[0].message


def test_all_parsers_are_here():
    assert set(BOOKED) == {parser for _, _, parser in FORMS.values()}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("parser", BOOKED)
def test_calls_are_passed_on_and_no_mark_of_them(parser, size):
    answer, words, calls = stream(parser, "I book it. " + BOOKED[parser], size)
    assert calls == [("book_table", {"place": "x", "people": 4})]
    assert words == "I book it."
    assert answer.problems == []
    assert answer.finish_reason == "tool_calls"


@pytest.mark.parametrize("parser", BOOKED)
def test_cut_and_wrong_calls_are_left_out_and_named(parser):
    text = BOOKED[parser]
    for cut in (len(named(parser).opening), len(text) // 2):
        answer, words, calls = stream(parser, text[:cut], 5, "length")
        assert (words, calls) == ("", [])
        assert [problem.code for problem in answer.problems] == ["cut_call"]
        assert answer.finish_reason == "length"
    answer, words, calls = stream(parser, text.replace("book_table", "buy_table"), 5)
    assert (words, calls) == ("", [])
    assert "not among the tools" in answer.problems[0].message
    answer, words, calls = stream(parser, text.replace("people", "peoples"), 5)
    assert (words, calls) == ("", [])
    assert "break its schema" in answer.problems[0].message


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("name", "text", "words", "thought", "calls"),
    [
        ("qwen3_coder+think", f"\n</think>\n\n{BOOKED['qwen3_coder']}", "", "", 1),
        ("qwen3_coder+think", f"A: {BOOKED['qwen3_coder']}</think>\n\nNo.", "No.", "A: " + BOOKED["qwen3_coder"], 0),
        ("qwen3_coder+think", "Hm, hm", "", "Hm, hm", 0),
        ("qwen3_coder+think", f"Hm. {BOOKED['qwen3_coder']}", "", "Hm.", 1),
        ("json_tools", f"<think>\n\n</think>\n\n{BOOKED['json_tools']}", "", "", 1),
        ("json_tools", "<think>Hm.</think>Yes.", "Yes.", "Hm.", 0),
        ("json_tools", "<thin", "<thin", "", 0),
        ("json_tools", "<b>Yes</b>", "<b>Yes</b>", "", 0),
        ("gemma4", "<|channel>thought\nHm.\n<channel|>Yes.", "Yes.", "Hm.", 0),
    ],
)
def test_thinking_is_passed_on_as_such(name, text, words, thought, calls, size):
    answer, said, made = stream(name, text, size)
    assert said == words
    assert answer.reasoning == thought
    message = completion(Header("id", 0, "m"), answer, usage(1, 1))["choices"][0]["message"]
    assert message.get("reasoning_content") == (thought or None)
    sent = chunks(Header("id", 0, "m"), [Delta(reasoning=thought)] if thought else [])
    assert (json.dumps(thought) in sent.decode()) == bool(thought)
    assert len(made) == calls


def test_mistral_s_calls_end_with_the_answer():
    text = BOOKED["mistral"] + "[TOOL_CALLS]now[ARGS]{}"
    answer, _, calls = stream("mistral", text, 4)
    assert [name for name, _ in calls] == ["book_table", "now"]
    _, _, calls = stream("mistral", text, 4, most=1)
    assert [name for name, _ in calls] == ["book_table"]
    answer, words, calls = stream("mistral", text, 4, schemas=None)
    assert (words, calls, answer.finish_reason) == (text, [], "stop")
