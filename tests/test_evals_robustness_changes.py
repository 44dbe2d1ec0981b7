"""Changed items keep their answer: gold stays valid, values stay, and the same item gives the same change."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.chat.formats import answer_text
from callwright.data.negatives import about, content_words
from callwright.data.records import Example
from callwright.data.sources import read_records
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.evals.robustness import changes
from callwright.evals.robustness.changes import WHY, build, change, change_of, clean_id, pool_of
from callwright.evals.robustness.rephrase import Rephrasing, rephrase, said_values
from callwright.evals.scoring.score import score_item
from callwright.runtime.errors import CallwrightError


@pytest.fixture(scope="module")
def items(root):
    """Generated examples of the built-in toolset, of every kind."""
    return generate(load_toolset(root / "config/toolsets/everyday.yaml"), examples=120, seed=7)


@pytest.fixture(scope="module")
def pool(items):
    return pool_of({"all": items})


def tool(name, description="", **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def asking(query, *tools, calls=(), **more):
    row = {"id": "x", "messages": [{"role": "user", "content": query}], "tools": list(tools), "calls": list(calls)}
    return Example.from_row({**row, **more})


def right(example):
    """Whether the example's own answer is scored as right."""
    row = {"id": example.id, "suite": "", "condition": "", "finish_reason": "stop", "text": answer_text(example)}
    return score_item(example, row)["exact"]


@pytest.mark.slow
@pytest.mark.parametrize("name", WHY)
def test_the_answer_stays_right_and_the_change_is_repeatable(items, pool, name):
    changed, said = build(f"robust_{name}", items, pool)
    assert len(changed) + len(said["left_out"]) == len(items)
    assert len(changed) > len(items) // 2
    clean = {example.id: example for example in items}
    for example in changed:
        assert Example.from_row(example.to_row()) == example
        assert right(example)
        original = clean[clean_id(example)]
        assert example.id == f"{original.id}@{name}"
        assert f"robust:{name}" in example.tags
        values = [list(call["arguments"].values()) for call in example.calls]
        assert values == [list(call["arguments"].values()) for call in original.calls]
        assert change(original, name, pool) == example
        assert (example.messages, example.tools) != (original.messages, original.tools)
    alone, _ = build(f"robust_{name}", items[:20], pool)
    assert alone == changed[: len(alone)], "an item's change does not depend on the others"


def test_tools_are_really_shuffled_wherever_there_is_more_than_one(items):
    for example in items:
        found = change(example, "shuffled")
        if len(example.tools) == 1:
            assert found is None
        else:
            assert found.tools != example.tools
            assert sorted(found.tool_names) == sorted(example.tool_names)
            assert found.calls == example.calls


def test_opaque_names_are_the_same_in_tools_and_calls_and_nothing_else_says_the_old_ones(items):
    changed, _ = build("robust_opaque", items, [])
    clean = {example.id: example for example in items}
    for example in changed:
        original = clean[clean_id(example)]
        old = {name for tool in original.tools for name in (tool["function"]["name"], *properties(tool))}
        new = {name for tool in example.tools for name in (tool["function"]["name"], *properties(tool))}
        assert not old & new
        assert {name for call in example.calls for name in (call["name"], *call["arguments"])} <= new
        assert all(spec["description"].strip() for tool in example.tools for spec in properties(tool).values())
        assert example.messages == original.messages


def properties(tool):
    return tool["function"]["parameters"].get("properties") or {}


def test_what_names_said_stands_in_the_descriptions():
    text = {"type": "string"}
    day = {"type": "string", "description": "HH:MM"}
    example = asking("From 7 to 8, please.", tool("bookRoom", from_time=day, to_time=day, room=text),
                     calls=[{"name": "bookRoom", "arguments": {"from_time": "07:00", "to_time": "08:00", "room": "1"}}],
                     possible=[{"from_time": ["07:00"], "to_time": ["08:00"], "room": ["1", ""]}])  # fmt: skip
    found = change(example, "opaque")
    (function,) = (tool["function"] for tool in found.tools)
    described = {spec["description"]: name for name, spec in function["parameters"]["properties"].items()}
    assert function["description"] == "Book room."
    assert set(described) == {"From time: HH:MM", "To time: HH:MM", "Room."}
    assert found.possible == [{described["From time: HH:MM"]: ["07:00"], described["To time: HH:MM"]: ["08:00"],
                               described["Room."]: ["1", ""]}]  # fmt: skip
    assert right(found)


def test_a_request_that_names_a_tool_keeps_the_names():
    example = asking("Run get_time now", tool("get_time", "The time."), calls=[{"name": "get_time", "arguments": {}}])
    assert change(example, "opaque") is None
    told = asking("ping them", tool("ping", "Call somebody."), calls=[{"name": "ping", "arguments": {}}])
    assert change(told, "opaque") is not None, "a plain word is no mention of a tool"


def test_distractors_cannot_serve_and_four_are_among_the_sixteen(items, pool):
    for example in items:
        four, sixteen = (change(example, f"distractors_{count}", pool) for count in (4, 16))
        assert (four is None) == (sixteen is None)
        if four is None:
            continue
        added = [tool for tool in four.tools if tool not in example.tools]
        assert len(added) == 4
        assert [tool for tool in four.tools if tool in example.tools] == example.tools
        more = [tool for tool in sixteen.tools if tool not in example.tools]
        assert len(more) == 16
        assert all(tool in more for tool in added)
        assert "added:16" in sixteen.tags
        called = {call["name"] for call in example.calls}
        ours = content_words(example.asked)
        ours |= {word for tool in example.tools if tool["function"]["name"] in called for word in words(tool)}
        assert not any(ours & words(tool) for tool in more)


def words(tool):
    return content_words(about(tool))


def test_what_could_serve_as_well_is_no_distractor_and_few_tools_are_few_distractors():
    weather = tool("weather", "Weather of a city.")
    pool = [
        weather, tool("forecast", "Weather in days to come."), tool("umbrella_finder", "Lost things."),
        tool("rain", "Whether it rains."), tool("play", "Starts a song."),
    ]  # fmt: skip
    example = asking("Do I need an umbrella?", weather, calls=[{"name": "weather", "arguments": {}}])
    found = change(example, "distractors_4", pool)
    assert sorted(found.tool_names) == ["play", "rain", "weather"]
    assert "added:2" in found.tags
    assert change(example, "distractors_4", pool[:2]) is None
    twin = tool("other", "Reads one song aloud, slowly.")
    own = tool("weather", "Reads one song aloud, slow.")
    assert change(asking("Go", own, calls=[{"name": "weather", "arguments": {}}]), "distractors_4", [twin]) is None


def test_an_item_without_a_call_gets_distractors_only_where_its_tool_is_known():
    spending = tool("get_spending", "Spending by category.")
    other = tool("play", "Starts a song.")
    query = "Where did all my money go?"
    assert change(asking(query, tool("mow", "Cuts the lawn.")), "distractors_4", [spending, other]) is None
    tagged = asking(query, tool("mow", "Cuts the lawn."), tags=["abstain:no_tool", "phrasing:get_spending/phrasings/1"])
    assert set(change(tagged, "distractors_4", [spending, other]).tool_names) == {"mow", "play"}


def test_a_suite_of_which_nothing_can_be_changed_says_what_to_do():
    example = asking("Time?", tool("get_time", "The time."))
    with pytest.raises(CallwrightError, match=r"'robust_shuffled'.*list a single tool.*evaluation\.suites"):
        build("robust_shuffled", [example], [])


def test_names_of_suites(root):
    assert [change_of(name) for name in ("robust_opaque", "robust_distractors_16", "test_seen", "robust_x")] == [
        "opaque", "distractors_16", None, None,
    ]  # fmt: skip
    schema = (root / "workflow/schemas/config.schema.yaml").read_text()
    assert all(f"{changes.PREFIX}{name}," in schema for name in WHY)


# -- rephrased -------------------------------------------------------------------------------------


def in_order(parts, text):
    """Whether the texts stand in another one, each after the one before."""
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def kept_parts(example):
    request = Rephrasing(example.query, example)
    parts, before = [], False
    for letter, kept in zip(request.text, request.kept, strict=True):
        if kept and before:
            parts[-1] += letter
        elif kept:
            parts.append(letter)
        before = kept
    return parts


def test_every_value_is_said_as_before(items):
    rules = set()
    for example in items:
        text, applied = rephrase(example, random.Random(example.id))
        rules |= set(applied)
        assert text != example.query
        # An order's verb may be a word of a parameter's description, and gets another case within a sentence.
        assert in_order([part.lower() for part in kept_parts(example)], text.lower()), (example.query, text)
        for value in said_values(example):
            assert text.count(value) >= example.query.count(value)
    assert rules == {"frame", "politeness", "contractions", "punctuation", "small", "typo"}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(
        ["Find {} in {}.", "Can you book {} for {}?", "what's {} and {}", "Tell Ann that {}, {}!", "{} {}"]
    ),
    st.text(max_size=25),
    st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=25),
    st.integers(),
)
def test_no_value_is_touched_whatever_it_is(frame, one, other, seed):
    calls = [{"name": "f", "arguments": {"x": one, "y": other}}]
    query = frame.format(json.dumps(one, ensure_ascii=False), f'"{other}"' if '"' not in other else other)
    example = Example("x", [{"role": "user", "content": query}], [tool("f")], calls, "")
    found = rephrase(example, random.Random(seed))
    if found is None:
        return
    for value in said_values(example):
        for surrounded in (f" {value} ", f'"{value}"'):
            assert found[0].count(surrounded) >= query.strip().count(surrounded)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("Send Bob the message dinner is ready", "dinner is ready"),
        ("Tell Ann that i'm late.", "i'm late"),
        ("Write what's new on the board.", "what's new"),
        ("Find Dr. Who episodes by Dr.", "Dr."),
        ("Search files for Please Hold.", "Please Hold"),
    ],
)
def test_free_text_stays_even_where_it_looks_like_a_request(query, value):
    example = asking(query, tool("f", "", text={"type": "string"}), calls=[{"name": "f", "arguments": {"text": value}}])
    for seed in range(40):
        text, _ = rephrase(example, random.Random(seed))
        assert value in text
        if query.rstrip(".").endswith(value.rstrip(".")):
            assert text.rstrip(".?!").endswith(value.rstrip(".")), "what follows could be read as a part of the value"


def test_the_users_last_message_is_rephrased_and_nothing_else():
    messages = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "Find the museum."}]},
    ]  # fmt: skip
    found = change(asking("", tool("f"), messages=messages), "rephrased")
    assert found.messages[:3] == messages[:3]
    assert "museum" in found.query.lower()
    assert found.query != "Find the museum."


def test_other_languages_are_left_as_they_are():
    assert change(asking("Wie ist das Wetter in der Stadt und auf dem Land?", tool("f")), "rephrased") is None


def test_real_records_can_be_changed_too(xlam_sample):
    examples = [record for _, record in read_records(xlam_sample) if isinstance(record, Example)][:40]
    examples = [example for example in examples if right(example)]
    for name in WHY:
        changed, _ = build(f"robust_{name}", examples, pool_of({"all": examples}))
        # Few real records have four like tools of others that no request of theirs asks for.
        assert len(changed) > (10 if name == "similar_4" else 20)
        assert all(right(Example.from_row(example.to_row())) for example in changed)
