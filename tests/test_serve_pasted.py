"""Pasted text becomes tools, and nothing of it is ever executed."""

import json

import pytest

from callwright.serve.pasted import PasteError, read_tools

PYTHON = '''
import os
from typing import Literal, Optional
import datetime as dt

raise SystemExit("this must not happen")


@os.system("echo no")
def book(people: int, day: "dt.date", size: Literal["small", "large"] = "small", note: str | None = None,
         tags: list[str] = open("/etc/passwd")) -> dict:
    """Book a table.

    Args:
        people: How many.
    """
    os.remove("everything")


def _helper(x): ...


async def hours(weekday: Optional[str], more: dict[str, int] = {}): "When is it open?"
'''


def read(tmp_path, text):
    return read_tools(text, tmp_path / "pasted")


def test_python_is_read_and_not_run(tmp_path, capfd):
    book, hours = read(tmp_path, PYTHON)
    assert book["function"]["name"] == "book"
    assert book["function"]["description"] == "Book a table."
    parameters = book["function"]["parameters"]
    assert parameters["required"] == ["people", "day"]
    assert parameters["properties"]["people"] == {"type": "integer", "description": "How many."}
    assert parameters["properties"]["day"] == {"type": "string", "format": "date"}
    assert parameters["properties"]["size"]["enum"] == ["small", "large"]
    assert hours["function"]["name"] == "hours"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "evil",
    [
        "def f(a: __import__('os').system('echo no')): ...",
        "def f(a: (lambda: 1)()): ...",
        "def f(a: str.__class__): ...",
        "def f(a: [x for x in (1,)]): ...",
        "def f(a: \"__import__('os')\"): ...",
        "def f(a: typing.get_type_hints): ...",
        "def f(a: list[exit()]): ...",
        "def f(a: Mine): ...",
    ],
)
def test_a_hint_that_is_no_type_is_refused_with_its_line(tmp_path, capfd, evil):
    with pytest.raises(PasteError) as caught:
        read(tmp_path, "\n\n" + evil)
    assert caught.value.line == 3
    assert capfd.readouterr().out == ""


def test_a_choice_that_is_no_literal_counts_as_none(tmp_path, capfd):
    (found,) = read(tmp_path, "def f(a: Literal[print('no')]): ...")
    assert found["function"]["parameters"]["properties"]["a"] == {"enum": [None]}
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "the text is empty"),
        ("def f(:\n", 1, "not valid Python"),
        ('[\n  {"name": "a",}}\n]', 2, "not valid JSON"),
        ("x: [{city} y]", 1, "quote a text with slots"),
        ("[]", 0, "there is no tool in it"),
        ("[7]", 0, "tool 1: it is a number"),
        ('{"swagger": "2.0"}', 0, "convert it to OpenAPI 3"),
        ("x" * 200_001, 0, "at most 200000"),
        (
            '[{"name": "a", "parameters": {"type": "object", "properties": {"b": {"type": 7}}}}]',
            0,
            r"properties\.b\.type: it is a number",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, line, message):
    with pytest.raises(PasteError, match=message) as caught:
        read(tmp_path, text)
    assert caught.value.line == line
    assert "/" not in caught.value.message.replace("and/or", "")  # no path of the server's


def test_json_and_openapi(tmp_path):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    (tool,) = read(tmp_path, json.dumps([{"name": "weather", "description": "W", "inputSchema": schema}]))
    assert tool["function"]["parameters"]["properties"] == schema["properties"]
    api = {"openapi": "3.0.0", "paths": {"/w": {"get": {"operationId": "w", "summary": "Weather", "parameters": [
        {"name": "city", "in": "query", "required": True, "schema": {"type": "string"}}]}}}}  # fmt: skip
    (tool,) = read(tmp_path, json.dumps(api))
    assert tool["function"]["name"] == "w"
    assert list(tmp_path.iterdir()) == []
