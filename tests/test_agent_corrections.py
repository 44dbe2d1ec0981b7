"""Corrections at the terminal: three forms, nothing executed, everything else told what to write."""

import json

import pytest

from callwright.agent.corrections import Corrector, NotUnderstood, read
from callwright.commands import agent as command
from callwright.data import corrections
from callwright.data.corrections import CorrectionStore

TOOL = {"type": "function", "function": {"name": "book", "description": "", "parameters": {
    "type": "object", "properties": {"people": {"type": "integer"}, "quiet": {"type": "boolean"}},
    "required": ["people"]}}}  # fmt: skip


def call(**arguments):
    return {"name": "book", "arguments": arguments}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("book(people=4)", {"kind": "call", "calls": [call(people=4)]}),
        (" book(people=4, quiet=true) ; book(people=2)",
         {"kind": "call", "calls": [call(people=4, quiet=True), call(people=2)]}),
        ("book(x=[1, {'a': None}])", {"kind": "call", "calls": [call(x=[1, {"a": None}])]}),
        ("ask: For how many?", {"kind": "ask", "calls": [], "answer": "For how many?"}),
        ("Decline", {"kind": "decline", "calls": []}),
        ("decline: Not here.", {"kind": "decline", "calls": [], "answer": "Not here."}),
    ],
)  # fmt: skip
def test_the_forms(text, found):
    assert read(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "ask:", "book", "book(4)", "book(**{})", "book(people=exit())", "a.b(c=1)", "x = 1", "book(people=", "no"],
)
def test_anything_else_is_told_what_to_write(text):
    with pytest.raises(NotUnderstood, match="is no correction .*`decline`"):
        read(text)


def messages(*more):
    return [{"role": "user", "content": "A table"}, *more]


def test_a_correction_is_of_the_last_request_with_what_was_answered(tmp_path):
    corrector = Corrector(CorrectionStore(tmp_path / "c.jsonl"), [TOOL], "m")
    called = {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "book", "arguments": json.dumps({"people": 1})}}]}  # fmt: skip
    made = corrector.add(messages(called, {"role": "tool", "content": "ok"}), "book(people=4)")
    assert made.example.messages == messages()
    assert made.answered == {"calls": [{"name": "book", "arguments": {"people": 1}}], "content": ""}
    assert corrections.read(tmp_path / "c.jsonl").corrections[0].row["via"] == "agent"
    with pytest.raises(NotUnderstood, match="lacks 'people'"):
        corrector.add(messages(), "book()")
    with pytest.raises(NotUnderstood, match="no request yet"):
        corrector.add([], "decline")


def test_w_is_a_no_with_what_would_have_been_right(monkeypatch, capsys):
    given, tried = iter(["w", "nonsense", "book(people=4)"]), []
    monkeypatch.setattr("builtins.input", lambda _: next(given))
    assert command.confirm(lambda text: tried.append(text) or text.startswith("book")) == "n"
    assert tried == ["nonsense", "book(people=4)"]
    given = iter(["w: decline"])
    assert command.confirm(lambda text: tried.append(text) or True) == "n"
    assert tried[-1] == "decline"
    given = iter(["w", ""])  # nothing to teach: a plain no
    assert command.confirm(lambda text: pytest.fail("nothing was written")) == "n"
    given = iter(["maybe", "Y"])
    assert command.confirm(None) == "y"
