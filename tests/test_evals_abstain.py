"""The pairs of `abstain`: one of two wants a call, little else tells them apart, and no habit pays."""

from collections import defaultdict
from types import SimpleNamespace

import pytest

from callwright.data.records import Example
from callwright.data.toolset.generate import generate, hold_out_tools
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.variety import STANDARD
from callwright.evals.abstain import ITEMS, PAIR, make_pairs
from callwright.evals.scoring.asking import asks_for_it
from callwright.evals.scoring.score import balanced_accuracy, score_item


@pytest.fixture(scope="module")
def toolset(root):
    return load_toolset(root / "config" / "toolsets" / "everyday.yaml")


@pytest.fixture(scope="module")
def learned(toolset):
    made = generate(toolset, examples=400, variety=STANDARD)
    return [example for example in made if {"pool:train", "pool:valid"} & set(example.tags)]


@pytest.fixture(scope="module")
def items(toolset, learned):
    return make_pairs(toolset, 42, learned)


@pytest.mark.slow
def test_there_are_as_many_with_a_call_as_without(items):
    assert len(items) == ITEMS
    assert sum(bool(example.calls) for example in items) == ITEMS // 2
    assert all(Example.from_row(example.to_row()) == example for example in items)
    assert len({example.id for example in items}) == ITEMS
    kinds = [example.stratum for example in items if not example.calls]
    assert abs(kinds.count("abstain:no_tool") - kinds.count("abstain:missing")) <= 4


def test_the_twins_differ_in_the_tool_or_in_the_value_alone(toolset, items):
    pairs = defaultdict(list)
    for example in items:
        pairs[next(tag for tag in example.tags if tag.startswith(PAIR))].append(example)
    tools = {tool.name: tool for tool in toolset.tools}
    for call, none in pairs.values():
        (made,) = call.calls
        if "abstain:no_tool" in none.tags:
            assert call.query == none.query
            assert made["name"] not in none.tool_names
            assert not any(tools[name].could_serve(tools[made["name"]]) for name in none.tool_names)
        else:
            assert call.tools == none.tools
            assert len(none.query) < len(call.query) + 4
            assert none.answer in tools[made["name"]].ask.values()


def test_no_request_is_one_of_training_and_a_third_is_about_unseen_tools(toolset, learned, items):
    assert not {example.query for example in learned} & {example.query for example in items}
    trained = {tag for example in learned for tag in example.tags if tag.startswith("phrasing:")}
    assert not trained & {tag for example in items for tag in example.tags if tag.startswith("phrasing:")}
    held = hold_out_tools(toolset, 42)
    unseen = sum(bool(set(example.tool_names) & held) for example in items)
    assert unseen == pytest.approx(ITEMS / 3, abs=4)
    assert all(set(e.tool_names) <= held for e in items if set(e.tool_names) & held)


def answered(items, text_of):
    rows = [{"suite": "abstain", "condition": "x", "finish_reason": "stop"} for _ in items]
    return [score_item(e, {**row, "id": e.id, "text": text_of(e)}) for e, row in zip(items, rows, strict=True)]


def test_neither_always_calling_nor_never_calling_pays(items):
    call = '<tool_call>\n{"name": "x", "arguments": {}}\n</tool_call>'
    assert balanced_accuracy(answered(items, lambda example: call)) == 0.5
    assert balanced_accuracy(answered(items, lambda example: "I can't do that.")) == 0.5
    assert balanced_accuracy(answered(items, lambda e: call if e.calls else "No.")) == 1.0
    assert balanced_accuracy([row for row in answered(items, lambda e: "No.") if row["kind"] == "none"]) is None


def test_the_expected_questions_ask_for_what_is_missing_and_a_refusal_does_not(items):
    lacking = [example for example in items if "abstain:missing" in example.tags]
    assert all(asks_for_it(example, example.answer) for example in lacking)
    assert not any(asks_for_it(example, "I can't do that with the tools I have.") for example in lacking)
    assert {asks_for_it(example, "Why?") for example in items if example.calls} == {None}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("When should it ring?", True),
        ("Sure! What time?", True),
        ("Which time do you want", False),
        ("Where are you?", False),
        ("Shall I do that?", False),
        ("I can't do that.", False),
    ],
)
def test_a_question_must_name_what_is_missing(text, right):
    schema = {"type": "object", "properties": {"time": {"type": "string", "description": "HH:MM"}}}
    tool = {"type": "function", "function": {"name": "set_alarm", "parameters": schema}}
    example = SimpleNamespace(tags=("needs:time",), answer=None, tools=[tool])
    assert asks_for_it(example, text) is right
