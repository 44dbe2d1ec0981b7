"""What a tool encoder learns from, read off examples."""

from dataclasses import replace

import pytest
from fixtures_encoder import Words

from callwright.data.formats.requests import HELD_BACK
from callwright.data.records import Example
from callwright.runtime.errors import CallwrightError
from callwright.train import tool_lists
from callwright.train.tool_lists import NONE, ValueChoice, lists_of


def example(number, asked, called, names, *tags):
    tools = [
        {"type": "function", "function": {"name": name, "description": f"{name} things", "parameters": {}}}
        for name in names
    ]
    calls = [{"name": name, "arguments": {}} for name in called]
    return Example(
        id=f"e:{number}",
        tools=tools,
        messages=[{"role": "user", "content": asked}],
        calls=calls,
        source="test",
        tags=("calls:0", *tags) if tags else (),
    )


def test_requests_are_read_under_their_own_list(monkeypatch):
    examples = [
        example(1, "hi there", ["b"], ["a", "b"]), example(2, "more", ["a"], ["a", "b"]),
        example(3, "two things", ["a", "b"], ["a", "b"]), example(4, "a value lacks", [], ["a", "b"]),
        example(5, "other", ["d"], ["c", "d", "e"]), example(6, "one tool", ["x"], ["x"]),
        example(7, "a tool that is not there", ["z"], ["a", "b"]),
        example(8, "nothing fits", [], ["a", "b"], "abstain:no_tool"),
        example(9, "nothing fits here either", [], ["f", "g"], "abstain:no_tool"),
    ]  # fmt: skip
    monkeypatch.setattr(tool_lists, "FEW", 2)
    first, second = lists_of(Words(), examples)
    assert (first.calls, second.calls) == ([[1], [0], [0, 1], []], [[1]])
    assert (len(first.tools), len(first.requests), len(second.tools)) == (2, 4, 3)
    assert [len(ids) for ids in first.requests] == [2, 1, 2, 2]
    assert not first.held_back
    held = [replace(one, tags=(*one.tags, HELD_BACK)) for one in examples[:4]]
    assert [one.held_back for one in lists_of(Words(), [*held, *examples[4:]])] == [True, False]
    with pytest.raises(CallwrightError, match="2 lists of tools or more: found 1"):
        lists_of(Words(), examples[:4])


def test_what_a_call_says_of_enumerations_is_chosen_and_what_it_leaves_out_is_none(monkeypatch):
    monkeypatch.setattr(tool_lists, "FEW", 1)
    schema = {"type": "object", "properties": {"area": {"enum": ["box", "stalls"]}, "day": {"enum": ["sat", "sun"]}}}
    tools = [{"type": "function", "function": {"name": name, "description": "", "parameters": schema}} for name in "ab"]
    examples = [
        Example(id=f"e:{number}", tools=tools, messages=[{"role": "user", "content": "hi"}], source="test",
                calls=[{"name": "b", "arguments": arguments}])
        for number, arguments in enumerate([{"area": "stalls"}, {"day": "sun", "area": "balcony"}])
    ]  # fmt: skip
    (found,) = lists_of(Words(), examples)
    assert [len(ids) for ids in found.values] == [2, 2, 2, 2]  # as in "area: box"
    asked = [choice.asked for choice in found.choices]
    assert [len(ids) for ids in asked] == [3, 3, 3]  # as in "b: area: hi"
    assert found.choices == [
        ValueChoice(0, asked[0], [0, 1], 1), ValueChoice(0, asked[1], [2, 3], NONE), ValueChoice(1, asked[2], [2, 3], 3)
    ]  # fmt: skip


def test_each_value_of_a_list_of_them_is_chosen(monkeypatch):
    monkeypatch.setattr(tool_lists, "FEW", 1)
    schema = {"properties": {"avoid": {"type": "array", "items": {"enum": ["ferries", "tolls", "tracks"]}}}}
    tools = [{"type": "function", "function": {"name": name, "description": "", "parameters": schema}} for name in "ab"]
    examples = [
        Example(id=f"e:{number}", tools=tools, messages=[{"role": "user", "content": "hi"}], source="test",
                calls=[{"name": "b", "arguments": arguments}])
        for number, arguments in enumerate([{"avoid": ["tracks", "ferries"]}, {}])
    ]  # fmt: skip
    (found,) = lists_of(Words(), examples)
    assert [(choice.request, choice.chosen) for choice in found.choices] == [(0, 0), (0, 2), (1, NONE)]


CAKE = {
    "type": "object",
    "properties": {
        "icing": {"type": "string"}, "guests": {"type": "integer"}, "time": {"type": "string", "description": "HH:MM"},
        "fast": {"type": "boolean"}, "size": {"enum": ["small", "large"]},
    },
    "required": ["icing"],
}  # fmt: skip
OTHER = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_words_that_say_a_value_are_found_and_what_nobody_said_is_none(monkeypatch):
    monkeypatch.setattr(tool_lists, "FEW", 1)
    tools = [
        {"type": "function", "function": {"name": name, "description": "", "parameters": schema}}
        for name, schema in (("cake", CAKE), ("other", OTHER))
    ]

    def asked(number, text, *calls, tags=(), possible=None):
        calls = [{"name": name, "arguments": arguments} for name, arguments in calls]
        messages = [{"role": "user", "content": text}]
        more = {} if possible is None else {"possible": possible}
        return Example(id=f"e:{number}", tools=tools, messages=messages, calls=calls, source="test", tags=tags, **more)

    (found,) = lists_of(
        Words(),
        [
            asked(1, "Happy birthday on it, 12 guests at 6 pm", ("cake", {"icing": "happy birthday", "guests": 12,
                                                                        "time": "18:00"})),
            asked(2, "With flowers", ("cake", {"icing": "something lovely"})),
            asked(3, "Ann is there, and a cake for Ann", ("other", {"name": "Ann"}), ("cake", {"icing": "Ann"})),
            asked(4, "Two of them", ("cake", {"icing": "a"}), ("cake", {"icing": "b"})),
            asked(5, "A cake, please", tags=("calls:0", "needs:icing")),
            asked(6, "the fox or a fox", ("other", {"name": "fox"}), possible=[{"name": ["fox", "the fox", ""]}]),
        ],
    )  # fmt: skip
    said = [([choice.asked.words(*tokens) for tokens in choice.spans], choice.right) for choice in found.spans]
    assert said == [
        (["Happy birthday"], ["happy birthday"]), (["12"], [12]), (["6 pm"], ["18:00"]),
        ([], []), ([], []),  # of the second, whose icing is in other words: guests and time
        (["Ann", "Ann"], ["Ann"]), (["Ann", "Ann"], ["Ann"]), ([], []), ([], []),
        ([], []),  # the icing that the fifth is to be asked for
        (["fox", "fox", "the fox"], ["fox", "the fox"]),
    ]  # fmt: skip
    assert len(found.requests) == 5, "of what is to be asked for, the tool is not known"
