"""The prompt with three examples: which ones, how they stand there, and that they give nothing away."""

import logging
from dataclasses import replace

import pytest

from callwright.chat.formats import encode_calls
from callwright.chat.template import render_prompt
from callwright.data.records import POOL_TRAIN
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.evals.fewshot import Shots, after_tools, with_shots
from callwright.evals.trust.audit_run import copying, leak, tools_shown
from callwright.evals.trust.leaks import leaks
from callwright.models.load import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(gemma_folder):
    return load_tokenizer(gemma_folder)


@pytest.fixture(scope="module")
def examples(root):
    return generate(load_toolset(root / "config" / "toolsets" / "everyday.yaml"), 200, 3)


@pytest.fixture(scope="module")
def train(examples):
    return [example for example in examples if POOL_TRAIN in example.tags]


@pytest.fixture(scope="module")
def items(examples):
    return [example for example in examples if POOL_TRAIN not in example.tags]


@pytest.fixture(scope="module")
def shots(train):
    return Shots(train)


def test_three_training_examples_of_each_kind_the_same_for_all_items(shots, train, items, tokenizer):
    chosen = [[shot.id for shot in shots.of(item, tokenizer)[1]] for item in items]
    by_id = {example.id: example for example in train}
    for ids in chosen:
        assert [by_id[identifier].kind for identifier in ids] == ["none", "several", "one"]
    usual = max(chosen, key=chosen.count)
    assert chosen.count(usual) > 0.7 * len(chosen)
    again = Shots(train[::-1])  # the order of the file decides nothing
    assert [[shot.id for shot in again.of(item, tokenizer)[1]] for item in items] == chosen
    other = Shots(train, seed=1)
    assert [shot.id for shot in other.of(items[0], tokenizer)[1]] != chosen[0]


def test_no_example_shares_a_tool_with_its_item_or_gives_its_answer_away(shots, items, tokenizer):
    pairs = []
    for item in items:
        messages, chosen = shots.of(item, tokenizer)
        assert not {name for shot in chosen for name in shot.tool_names} & set(item.tool_names)
        pairs.append((item, render_prompt(tokenizer, messages, None)))
    for finding in (leak(pairs), tools_shown(pairs), copying(pairs)):
        assert finding.verdict == "ok", finding


def test_an_item_that_is_a_training_example_is_not_shown_itself(shots, train, tokenizer):
    for order in shots.orders.values():
        _, chosen = shots.of(order[0], tokenizer)
        assert order[0].id not in {shot.id for shot in chosen}


def test_a_tool_is_shared_only_where_every_example_has_it_and_never_the_answer(train, tokenizer):
    """A toolset of one tool: the examples must have it, but not the item's call."""
    one = [example for example in train if example.kind == "one"][:6]
    name, same = one[0].calls[0]["name"], []
    for n, example in enumerate(one):
        calls, messages = (
            [{"name": name, "arguments": {"x": f"value {n % 2}"}}],
            [{"role": "user", "content": f"Ask {n}"}],
        )
        same.append(replace(example, id=f"e{n}", tools=one[0].tools, calls=calls, messages=messages))
    messages, chosen = Shots(same[1:]).of(same[0], tokenizer)
    assert [shot.tool_names for shot in chosen] == [same[0].tool_names]
    assert [shot.calls[0]["arguments"] for shot in chosen] == [{"x": "value 1"}]
    assert not leaks(same[0], render_prompt(tokenizer, messages, None))
    messages, chosen = Shots(same[2::2]).of(same[0], tokenizer)  # whatever is chosen is the answer
    assert chosen == []
    assert messages == with_shots(same[0], [], "hermes")


@pytest.mark.parametrize("style", ["hermes", "fenced"])
def test_the_prompt_says_how_calls_are_written_and_shows_tools_before_each_request(train, items, tokenizer, style):
    item = next(item for item in items if item.kind == "one")
    messages, chosen = Shots(train, style).of(item, tokenizer)
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert encode_calls([{"name": "NAME", "arguments": {"PARAMETER": "VALUE"}}], style) in messages[0]["content"]
    assert "answer in plain words" in messages[0]["content"]
    for shot, asked, answered in zip(chosen, messages[1::2], messages[2::2], strict=False):
        assert asked["content"] == after_tools(shot.tools, shot.query)
        assert answered["content"] == (encode_calls(shot.calls, style) if shot.calls else shot.answer)
    assert messages[-1]["content"] == after_tools(item.tools, item.query)
    text = render_prompt(tokenizer, messages, None)
    for tool in item.tools:
        assert text.count(f'"name":"{tool["function"]["name"]}"') == 1


def test_a_conversation_keeps_its_own_turns_and_instructions(train, items):
    item = items[0]
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", item.query), ("tool", "{}")]
    earlier = [{"role": role, "content": content} for role, content in said]
    messages = with_shots(replace(item, messages=earlier), train[:1], "hermes")
    assert messages[0]["content"].endswith("\n\nBe brief.")
    assert messages[3:5] == earlier[1:3]
    assert messages[5]["content"] == after_tools(item.tools, item.query)
    assert messages[6] == earlier[-1]
    assert earlier[3] == item.messages[0], "the item itself is not changed"


def test_a_training_set_without_a_kind_shows_the_others_and_says_so(train, items, tokenizer, caplog):
    caplog.set_level(logging.WARNING)
    shots = Shots([example for example in train if example.kind != "none"])
    assert "no example of the kinds none to show" in caplog.text
    assert [shot.kind for shot in shots.of(items[0], tokenizer)[1]] == ["several", "one"]
