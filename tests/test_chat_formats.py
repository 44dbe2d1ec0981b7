"""How calls are written."""

import json

import pytest

from callwright.chat.formats import NO_CALL, answer_text, encode_calls

CALLS = [
    {"name": "f", "arguments": {"x": 1, "city": "Zürich"}},
    {"name": "g", "arguments": {}},
]


def test_hermes_is_one_block_per_call():
    assert encode_calls(CALLS) == (
        '<tool_call>\n{"name": "f", "arguments": {"x": 1, "city": "Zürich"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    )


def test_fenced_is_one_list():
    text = encode_calls(CALLS, style="fenced")
    assert text.startswith("```json\n[")
    assert text.endswith("]\n```")
    assert json.loads(text.removeprefix("```json\n").removesuffix("\n```")) == CALLS


def test_fenced_with_ids_is_one_list_of_numbered_openai_calls():
    text = encode_calls(CALLS, style="fenced_ids")
    assert text.startswith('```json\n[{"id": "call_0", "type": "function", "function": {"name": "f", "arguments": {')
    listed = json.loads(text.removeprefix("```json\n").removesuffix("\n```"))
    assert [entry["function"] for entry in listed] == CALLS
    assert [entry["id"] for entry in listed] == ["call_0", "call_1"]


def test_name_comes_first_and_nothing_else_is_written():
    call = {"arguments": {"b": 1, "a": 2}, "id": "call_1", "name": "f"}
    assert encode_calls([call]) == '<tool_call>\n{"name": "f", "arguments": {"b": 1, "a": 2}}\n</tool_call>'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        encode_calls([{"name": "f", "arguments": {"x": value}}])


def test_unknown_style():
    with pytest.raises(ValueError, match="unknown style 'xml'"):
        encode_calls(CALLS, style="xml")


class Row:
    calls = ()
    answer = " Which city? \n"


@pytest.mark.parametrize(
    ("example", "text"),
    [
        ({"calls": CALLS, "answer": "ignored"}, encode_calls(CALLS)),
        ({"calls": [], "answer": "Which city?"}, "Which city?"),
        ({"calls": [], "answer": None}, NO_CALL),
        ({"calls": []}, NO_CALL),
        (Row(), "Which city?"),
    ],
)
def test_answer_of_an_example(example, text):
    assert answer_text(example) == text
