"""Conversations of anybody's: who speaks, whose result is whose, what is trained."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.data.formats.detect import detect, to_records
from callwright.data.records import Example, RecordError

from fixtures_records import mutated  # isort: skip

PARAMETERS = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
STOCK = {"name": "stock", "description": "How many", "parameters": PARAMETERS}
ORDER = {"name": "order", "description": "Order more", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": function} for function in (STOCK, ORDER)]


def call(item, name="stock"):
    return {"name": name, "arguments": {"item": item}}


def made(identifier, item, name="stock"):
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": json.dumps({"item": item})}}


def read(row):
    return dict(to_records("f:1", row))


def kept(row):
    found = read(row)
    assert all(isinstance(record, Example) for record in found.values()), found
    return list(found.values())


def rules(row):
    return [getattr(record, "rule", "kept") for record in read(row).values()]


USER = {"role": "user", "content": "Are there bolts and nuts?"}
ANSWER = {"role": "assistant", "content": "Twelve bolts, no nuts."}
OPENAI = {
    "messages": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [made("b", "bolts"), made("n", "nuts")]},
        {"role": "tool", "tool_call_id": "b", "content": "12"},
        {"role": "tool", "tool_call_id": "n", "content": "0"},
        {"role": "assistant", "content": "", "tool_calls": [made("o", "nuts", "order")]},
        {"role": "tool", "tool_call_id": "o", "content": "ok"},
        ANSWER,
    ],
    "tools": TOOLS,
}
ANTHROPIC = {
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": USER["content"]}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "b", "name": "stock", "input": {"item": "bolts"}},
            {"type": "tool_use", "id": "n", "name": "stock", "input": {"item": "nuts"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "n", "content": "0"},
            {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "12"}]},
        ]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "o", "name": "order", "input": {"item": "nuts"}}]},
    ],
    "tools": [{"name": f["name"], "description": f["description"], "input_schema": PARAMETERS} for f in (STOCK, ORDER)],
}  # fmt: skip
GEMINI = {
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {"role": "user", "parts": [{"text": USER["content"]}]},
        {"role": "model", "parts": [{"text": "I look."}, {"functionCall": {"name": "stock", "args": {"item": "bolts"}}},
                                    {"functionCall": {"name": "stock", "args": {"item": "nuts"}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "stock", "response": {"left": 12}}},
                                   {"functionResponse": {"name": "stock", "response": {"left": 0}}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "order", "args": {"item": "nuts"}}}]},
    ],
    "tools": [{"functionDeclarations": [
        {**function, "parameters": {"type": "OBJECT", "properties": {"item": {"type": "STRING"}}, "required": ["item"]}}
        for function in (STOCK, ORDER)]}],
}  # fmt: skip
RESPONSES = {
    "messages": [
        USER,
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "b", "name": "stock", "arguments": '{"item": "bolts"}'},
        {"type": "function_call", "call_id": "n", "name": "stock", "arguments": '{"item": "nuts"}'},
        {"type": "function_call_output", "call_id": "n", "output": "0"},
        {"type": "function_call_output", "call_id": "b", "output": "12"},
        {"type": "function_call", "call_id": "o", "name": "order", "arguments": '{"item": "nuts"}'},
    ],
    "tools": [{"type": "function", **function} for function in (STOCK, ORDER)],
}
SWIFT = {
    "messages": [
        USER,
        {"role": "tool_call", "content": json.dumps(call("bolts"))},
        {"role": "tool_call", "content": json.dumps(call("nuts"))},
        {"role": "tool_response", "content": "12"},
        {"role": "tool_response", "content": "0"},
        {"role": "tool_call", "content": json.dumps(call("nuts", "order"))},
    ],
    "tools": json.dumps(TOOLS),
}
LLAMAFACTORY = {
    "conversations": [
        {"from": "human", "value": USER["content"]},
        {"from": "function_call", "value": json.dumps([call("bolts"), call("nuts")])},
        {"from": "observation", "value": json.dumps(["12", "0"])},
        {"from": "function_call", "value": json.dumps(call("nuts", "order"))},
        {"from": "observation", "value": "ok"},
        {"from": "gpt", "value": "Ordered."},
    ],
    "tools": json.dumps(TOOLS),
}
ROLE_CONTENT = {
    **LLAMAFACTORY,
    "conversations": [{"role": turn["from"], "content": turn["value"]} for turn in LLAMAFACTORY["conversations"]],
}
TOOLACE = {
    "system": "You are an expert in composing functions. Here is a list of functions in JSON format:\n"
    + json.dumps([{**function, "parameters": {**PARAMETERS, "type": "dict"}} for function in (STOCK, ORDER)])
    + "\nShould you decide to return the function call(s), put it in the format of [func1(params_name=params_value)].",
    "conversations": [
        {"from": "user", "value": USER["content"]},
        {"from": "assistant", "value": '[stock(item="bolts"), stock(item="nuts")]'},
        {"from": "tool", "value": '[{"name": "stock", "results": 12}, {"name": "stock", "results": 0}]'},
        {"from": "assistant", "value": '[order(item="nuts")]'},
    ],
}
FORMS = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI, "responses": RESPONSES, "swift": SWIFT,
         "llamafactory": LLAMAFACTORY, "role_content": ROLE_CONTENT, "toolace": TOOLACE}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_same_conversation_in_many_forms(form):
    first, second = kept(FORMS[form])
    assert (first.calls, second.calls) == ([call("bolts"), call("nuts")], [call("nuts", "order")])
    assert [tool["function"]["parameters"] for tool in first.tools] == [PARAMETERS] * 2
    said = [message for message in first.messages if message["role"] != "system"]
    assert said == [USER]
    results = [message["content"] for message in second.messages if message["role"] == "tool"]
    assert len(results) == 2
    assert "12" in results[0]
    assert "12" not in results[1]
    assert [message["role"] for message in second.messages][-4:] == ["user", "assistant", "tool", "tool"]


@pytest.mark.parametrize("form", FORMS)
def test_json_text_in_place_of_values(form):
    row = FORMS[form]
    expected = [(record.messages, record.tools, record.calls) for record in kept(row)]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()}
    lists = [key for key in ("messages", "conversations", "contents", "tools") if isinstance(row.get(key), list)]
    inner = {**row, **{key: [json.dumps(item) for item in row[key]] for key in lists}}
    for written in (texts, inner):
        assert detect(written) == detect(row)
        assert [(record.messages, record.tools, record.calls) for record in kept(written)] == expected


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.randoms(), st.sampled_from(["openai", "anthropic"]))
def test_permuted_results_read_as_ordered_ones(count, rng: random.Random, form):
    calls = [(f"c{number}", f"item {number}", f"{number} left") for number in range(count)]

    def row(order):
        if form == "openai":
            turn = {"role": "assistant", "tool_calls": [made(one, item) for one, item, _ in calls]}
            results = [{"role": "tool", "tool_call_id": one, "content": text} for one, _, text in order]
        else:
            turn = {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": one, "name": "stock", "input": {"item": item}} for one, item, _ in calls
                ],
            }
            results = [{"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": one, "content": text} for one, _, text in order]}]  # fmt: skip
        last = {"role": "assistant", "tool_calls": [made("o", "x", "order")]}
        return {"messages": [USER, turn, *results, last], "tools": TOOLS}

    ordered = read(row(calls))
    assert [message["content"] for message in ordered["f:1/2"].messages[2:]] == [text for *_, text in calls]
    assert read(row(rng.sample(calls, count))) == ordered


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([], "2 calls have 0 results"),
        (["b"], "'n' has no result"),
        (["n"], "'b' has no result"),
        (["b", "n", "x"], "'x', which is no call"),
        (["b", "x"], "'x', which is no call"),
        (["b", "b"], "two results"),
        ([None, None, None], "2 calls have 3 results"),
        ([None], "2 calls have 1 results"),
    ],
)
def test_a_turn_after_results_that_do_not_fit_is_rejected_alone(results, reason):
    told = [{"role": "tool", "content": "1", **({"tool_call_id": one} if one else {})} for one in results]
    row = {**OPENAI, "messages": [*OPENAI["messages"][:2], *told, *OPENAI["messages"][4:]]}
    first, second = read(row).values()
    assert first.calls == [call("bolts"), call("nuts")]
    assert second.rule == "unpaired_result"
    assert reason in second.reason


def test_a_result_that_no_call_asked_for_is_rejected():
    row = {**OPENAI, "messages": [USER, {"role": "tool", "content": "12"}, *OPENAI["messages"][4:]]}
    assert rules(row) == ["unpaired_result"]


def test_results_of_two_tools_are_told_by_their_names():
    turns = [
        {"role": "user", "parts": [{"text": "Go"}]},
        {"role": "model", "parts": [{"functionCall": call("a")}, {"functionCall": call("b", "order")}]},
        {"role": "function", "parts": [{"functionResponse": {"name": "order", "response": {"ok": 1}}},
                                       {"functionResponse": {"name": "stock", "response": {"left": 2}}}]},
        {"role": "model", "parts": [{"functionCall": call("c")}]},
    ]  # fmt: skip
    _, second = kept({**GEMINI, "contents": turns})
    assert [message["content"] for message in second.messages[-2:]] == ['{"left": 2}', '{"ok": 1}']


FLAGS = [("weight", 0), ("weight", 0.0), ("train", False), ("loss", False), ("loss", 0), ("trainable", "false"),
         ("train_on_turn", False)]  # fmt: skip


@pytest.mark.parametrize(("flag", "off"), FLAGS)
@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_a_turn_that_is_not_to_be_trained_is_shown_not_learnt(flag, off, name):
    messages = [dict(message) for message in OPENAI["messages"]]
    messages[1][flag] = off
    row = {name: messages, "tools": TOOLS}
    [example] = kept(row)
    assert example.calls == [call("nuts", "order")]
    assert example.messages[1]["tool_calls"][0]["function"] == call("bolts")
    messages[4][flag] = off
    assert rules(row) == ["not_trained"]
    messages[4][flag] = messages[1][flag] = 1
    assert len(kept(row)) == 2


@pytest.mark.parametrize(("flag", "value"), [
    ("weight", "abc"), ("weight", [0]), ("weight", {"a": 1}), ("weight", "nan"), ("train", "maybe"),
    ("loss_mask", [0, 1]),
])  # fmt: skip
def test_a_flag_that_cannot_be_read_is_rejected(flag, value):
    messages = [dict(message) for message in OPENAI["messages"]]
    messages[0][flag] = value
    assert len(kept({"messages": messages, "tools": TOOLS})) == 2, "who asks is never trained"
    messages[4][flag] = value
    [found] = read({"messages": messages, "tools": TOOLS}).values()
    assert (found.rule, f"a turn has the `{flag}` {value!r}, expected a number" in found.reason) == ("wrong_type", True)
    messages[4][flag] = messages[0][flag] = None
    assert len(kept({"messages": messages, "tools": TOOLS})) == 2


@pytest.mark.parametrize("value", [True, False, 0, [1, 0], "all"])
def test_a_mask_is_rejected_for_libraries_mean_opposite_things_by_it(value):
    messages = [dict(message) for message in OPENAI["messages"]]
    for row in ({**OPENAI, "mask": value}, {**OPENAI, "messages": [*messages[:-1], {**ANSWER, "mask": value}]}):
        [found] = read(row).values()
        assert found.rule == "wrong_type"
        assert "`mask`" in found.reason
        assert "`train: false`, or a `weight` of 1 or 0" in found.reason
    assert len(kept({**OPENAI, "mask": None})) == 2


OWN = {"id": "1", "messages": [USER], "tools": TOOLS, "calls": [call("nuts")]}
XLAM = {"query": "Nuts?", "tools": [STOCK], "answers": [call("nuts")]}


@pytest.mark.parametrize("row", [OPENAI, {"conversations": OPENAI["messages"], "tools": TOOLS}, OWN, XLAM])
def test_a_record_may_say_of_itself_that_it_is_not_to_be_trained(row):
    before = kept(row)
    for flag, value in [("weight", 0), ("weight", " 0.0 "), ("train", False), ("train", "No")]:
        assert rules({**row, flag: value}) == ["not_trained"]
    for flag, value in [
        ("weight", 1),
        ("weight", 0.5),
        ("weight", None),
        ("weight", ""),
        ("train", "yes"),
        ("train", 1),
    ]:
        assert kept({**row, flag: value}) == before
    for flag, value in [("weight", "abc"), ("weight", []), ("train", "test")]:
        [found] = read({**row, flag: value}).values()
        assert found.rule == "wrong_type"
        assert f"the record has the `{flag}` {value!r}, expected a number, true or false" in found.reason
    assert kept({**row, "loss": 0.0}) == before, "a loss that somebody measured"


@pytest.mark.parametrize(("flag", "off"), FLAGS)
def test_an_answer_that_is_not_to_be_trained_is_no_abstention(flag, off):
    turns = [
        USER,
        {**ANSWER, flag: off},
        {"role": "user", "content": "Politely?"},
        {"role": "assistant", "content": "No."},
    ]
    [example] = kept({"messages": turns, "tools": TOOLS})
    assert (example.answer, [message["role"] for message in example.messages]) == ("No.", ["user", "assistant", "user"])
    assert rules({"messages": turns[:2], "tools": TOOLS}) == ["not_trained"]


def test_words_and_a_call_in_turns_of_their_own_are_one_turn():
    turns = [
        USER,
        {"role": "assistant", "content": "I look."},
        {"role": "tool_call", "content": json.dumps(call("nuts"))},
    ]
    [example] = kept({"messages": turns, "tools": TOOLS})
    assert (example.calls, example.messages) == ([call("nuts")], [USER])


def test_maps_of_tables_and_other_ways_to_give_arguments():
    pairs = [{"key": "item", "value": "nuts"}]
    text = '{"item": "nuts"}'
    for arguments in ({"item": "nuts"}, text, json.dumps(text), pairs, "{'item': 'nuts'}"):
        for key in ("arguments", "parameters", "args", "input"):
            turns = [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "stock", key: arguments}}]}]
            [example] = kept({"messages": turns, "tools": TOOLS})
            assert example.calls == [call("nuts")]


def test_nulls_that_a_table_made_of_other_tools_arguments_are_none():
    number = {"type": "number"}
    tools = [
        {"name": "move", "parameters": {"type": "object", "required": ["x", "city"], "properties": {
            "x": number, "fast": {"type": "boolean"}, "to": {"type": ["string", "null"]}, "city": None}}},
        {"name": "weather", "parameters": {"type": "object", "required": ["city"], "properties": {
            "x": None, "city": {"type": "string"}}}},
    ]  # fmt: skip
    arguments = {"x": 1, "fast": None, "to": None, "city": None}
    turns = [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "move", "arguments": arguments}}]}]
    [example] = kept({"messages": turns, "tools": tools})
    assert example.calls == [{"name": "move", "arguments": {"x": 1, "to": None}}]
    assert [list(tool["function"]["parameters"]["properties"]) for tool in example.tools] == [
        ["x", "fast", "to"],
        ["city"],
    ]
    assert example.tools[0]["function"]["parameters"]["required"] == ["x"]


def test_prompt_and_completion_are_one_conversation():
    [example] = kept(
        {"prompt": [USER], "completion": [{"role": "assistant", "tool_calls": [made("a", "x")]}], "tools": TOOLS}
    )
    assert example.calls == [call("x")]


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        ("wrong_type", {"messages": [USER, {"role": "wizard", "content": "x"}], "tools": TOOLS}),
        ("wrong_type", {"messages": [USER, {"role": "assistant", "content": [{"type": "image_url"}]}], "tools": TOOLS}),
        ("unknown_format", {"messages": "no list", "tools": TOOLS}),
        ("wrong_type", {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "a"}]}], "tools": TOOLS}),
        ("no_answer", {"messages": [USER], "tools": TOOLS}),
        ("wrong_type", {"conversations": [{"from": "human"}, {"from": "gpt", "value": {"a": 1}}], "tools": TOOLS}),
    ],
)  # fmt: skip
def test_what_cannot_be_read_has_its_rule(rule, row):
    [(_, error)] = read(row).items()
    assert isinstance(error, RecordError)
    assert error.rule == rule


@settings(max_examples=300, deadline=None)
@given(st.one_of([mutated(row) for row in FORMS.values()]))
def test_any_conversation_gives_examples_or_reasons(row):
    found = list(to_records("f:1", row))
    assert found
    assert len({record_id for record_id, _ in found}) == len(found)
    for _, record in found:
        assert isinstance(record, Example | RecordError)
        if isinstance(record, Example):
            assert Example.from_row(json.loads(json.dumps(record.to_row()))) == record


def test_ids_that_are_numbers_tell_whose_result_it_is():
    def asked(number, item):
        return {"id": number, "type": "function", "function": call(item)}

    turns = [
        {"role": "user", "content": "How many nuts and bolts?"},
        {"role": "assistant", "tool_calls": [asked(0, "nuts"), asked(1, "bolts")]},
        {"role": "tool", "tool_call_id": 1, "content": "bolts: 5"},
        {"role": "tool", "tool_call_id": 0, "content": "nuts: 2"},
        {"role": "assistant", "tool_calls": [{"id": 2, "type": "function", "function": call("nuts", "order")}]},
    ]
    _, (_, found) = to_records("r", {"tools": TOOLS, "messages": turns})
    assert [turn["content"] for turn in found.messages if turn["role"] == "tool"] == ["nuts: 2", "bolts: 5"]
