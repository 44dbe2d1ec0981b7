"""Other people's formats: told by their fields, turned into examples, one for each turn that calls."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.chat.tokens import prompt_ids, tokenize_example
from callwright.data.formats.detect import FORMATS, detect, to_records
from callwright.data.records import Example, RecordError
from callwright.data.sources import read_records
from callwright.models.load import load_tokenizer

from fixtures_records import ROW, json_values, mutated  # isort: skip

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL = {"type": "function", "function": WEATHER}
ROME, OSLO = ({"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo"))


def called(*calls, as_text=False):
    """OpenAI's tool_calls."""
    return [
        {"id": f"c{number}", "type": "function", "function": {
            **call, "arguments": json.dumps(call["arguments"]) if as_text else call["arguments"]}}
        for number, call in enumerate(calls)
    ]  # fmt: skip


XLAM = {
    "query": "Weather in Rome?",
    "tools": [{"name": "get_weather", "description": "Weather of a city.", "parameters": {"city": {"type": "str"}}}],
    "answers": [ROME],
}
OPENAI = {
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in Rome, then Oslo?"}]},
        {"role": "assistant", "content": None, "tool_calls": called(ROME, as_text=True)},
        {"role": "tool", "tool_call_id": "c0", "content": "Sunny"},
        {"role": "assistant", "content": "Now Oslo.", "tool_calls": called(OSLO)},
        {"role": "tool", "tool_call_id": "c0", "content": "Rain"},
        {"role": "assistant", "content": "Rome is sunny, Oslo is not."},
    ],
    "tools": [TOOL],
}
LEGACY = {
    "messages": [
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "function_call": {"name": "get_weather", "arguments": '{"city": "Rome"}'}},
        {"role": "function", "name": "get_weather", "content": "Sunny"},
        {"role": "assistant", "content": "Sunny."},
    ],
    "functions": [WEATHER],
}
HERMES = {
    "conversations": [
        {"from": "system", "value": f"You call functions. <tools>\n[{json.dumps(TOOL)}]\n</tools> Go."},
        {"from": "human", "value": "Weather in Rome and Oslo?"},
        {"from": "gpt", "value": "<think>hm</think><tool_call>\n{'arguments': {'city': 'Rome'}, 'name': 'get_weather'}"
         '\n</tool_call>\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'},
        {"from": "tool", "value": "<tool_response>\nSunny\n</tool_response>\n<tool_response>\nRain\n</tool_response>"},
        {"from": "gpt", "value": "Sunny and rain."},
    ],
}  # fmt: skip
SHAREGPT = {
    "system": "Be brief.",
    "tools": json.dumps([WEATHER]),
    "conversations": [
        {"from": "human", "value": "Weather in Rome?"},
        {"from": "function_call", "value": json.dumps(ROME)},
        {"from": "observation", "value": "Sunny"},
        {"from": "gpt", "value": "Sunny."},
    ],
}
BFCL = {
    "id": "simple_0",
    "question": [[{"role": "user", "content": "Weather in Rome?"}]],
    "function": [{**WEATHER, "parameters": {**WEATHER["parameters"], "type": "dict"}}],
    "ground_truth": [{"get_weather": {"city": ["Rome", "Rome, Italy"]}}],
}
GLAIVE = {
    "system": f"SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    f"{json.dumps(WEATHER, indent=4)}\n",
    "chat": "USER: Weather in Rome?\n\n\nASSISTANT: <functioncall> "
    '{"name": "get_weather", "arguments": \'{"city": "Rome"}\'} <|endoftext|>\n\n\n'
    'FUNCTION RESPONSE: {"sky": "clear"}\n\n\nASSISTANT: It is sunny. <|endoftext|>\n\n\n',
}
ROWS = {"xlam": XLAM, "openai": OPENAI, "sharegpt": HERMES, "glaive": GLAIVE, "bfcl": BFCL, "examples": ROW}


def examples(row, **options):
    found = list(to_records("f:1", row, **options))
    assert all(isinstance(record, Example) for _, record in found), found
    assert all(record_id == record.id for record_id, record in found if record.source != "test")
    return [record for _, record in found]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_told_by_its_fields(name):
    assert detect(ROWS[name]) == name
    assert examples(ROWS[name]) == examples(ROWS[name], format=name)


def test_formats_that_say_the_same_give_the_same_example():
    found = [examples(row)[0] for row in (XLAM, LEGACY, BFCL, GLAIVE)]
    assert all(example.tools == [TOOL] for example in found)
    assert all(example.calls == [ROME] for example in found)
    assert all(example.messages == [{"role": "user", "content": "Weather in Rome?"}] for example in found)
    assert [example.source for example in found] == ["xlam", "openai", "bfcl", "glaive"]
    assert all(example.tags == ("calls:1",) for example in found)


def test_every_turn_that_calls_is_an_example():
    first, second = examples(OPENAI)
    assert (first.id, second.id) == ("f:1/1", "f:1/2")
    assert (first.calls, second.calls) == ([ROME], [OSLO])
    assert first.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome, then Oslo?"},
    ]
    assert second.messages == [
        *first.messages,
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": ROME}]},
        {"role": "tool", "content": "Sunny"},
    ]
    assert first.tags == second.tags == ("calls:1", "conversation:f:1")
    assert second.asked == "Weather in Rome, then Oslo?\nSunny"
    assert Example.from_row(second.to_row()) == second


def test_tools_calls_and_results_out_of_hermes_turns():
    [example] = examples(HERMES)
    assert example.messages == [{"role": "user", "content": "Weather in Rome and Oslo?"}]
    assert example.calls == [ROME, OSLO]
    assert example.tags == ("calls:2+",)
    more = [{"from": "human", "value": "And Rome again?"}, {"from": "gpt", "value": f"<tool_call>{ROME}</tool_call>"}]
    again = {**HERMES, "conversations": [*HERMES["conversations"], *more]}
    last = examples(again)[1]
    assert [message["role"] for message in last.messages] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert last.messages[2]["content"] == "Sunny"


def test_calls_as_turns_of_their_own():
    [example] = examples(SHAREGPT)
    assert [message["role"] for message in example.messages] == ["system", "user"]
    assert (example.tools, example.calls) == ([TOOL], [ROME])


def test_a_conversation_without_a_call_abstains_with_its_answer():
    row = {
        "messages": [{"role": "user", "content": "Thanks"}, {"role": "assistant", "content": "Welcome!"}],
        "tools": [TOOL],
    }
    [example] = examples(row)
    assert (example.calls, example.answer, example.tags) == ([], "Welcome!", ("calls:0", "abstain:answer"))


@pytest.mark.parametrize("model", ["chatml", "gemma"])
def test_the_prompt_of_a_later_turn_is_what_a_server_renders(model, model_folder: Path, tmp_path):
    if model == "gemma":
        from fixtures_gemma import make_gemma

        from callwright.models.convert import convert

        convert(make_gemma(tmp_path / "source"), {}, tmp_path / "model")
    tokenizer = load_tokenizer(model_folder if model == "chatml" else tmp_path / "model")
    second = examples(OPENAI)[1]
    row = tokenize_example(tokenizer, second)
    [[start, _]] = row["spans"]
    # A client sends its history as OpenAI has it: arguments as text, ids, no content beside calls.
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome, then Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": called(ROME, as_text=True)},
        {"role": "tool", "tool_call_id": "c0", "content": "Sunny"},
    ]
    assert row["input_ids"][:start] == prompt_ids(tokenizer, history, second.tools)
    assert '"city": "Rome"' in tokenizer.decode(row["input_ids"][:start])


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        ("unknown_format", {"text": "hello"}),
        ("wrong_type", [1]),
        ("wrong_type", {**OPENAI, "messages": [1]}),
        ("wrong_type", {**OPENAI, "messages": [{"role": "wizard", "content": "x"}]}),
        ("wrong_type", {**OPENAI, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("no_answer", {**OPENAI, "messages": OPENAI["messages"][:2]}),
        ("no_tools", {**LEGACY, "functions": []}),
        ("unknown_tool", {**LEGACY, "functions": [{**WEATHER, "name": "other"}]}),
        ("invalid_json", {"messages": [LEGACY["messages"][0], {"role": "assistant", "tool_calls": [
            {"function": {"name": "get_weather", "arguments": "{oops"}}]}], "tools": [TOOL]}),
        ("wrong_type", {"conversations": [{"from": "alien", "value": "x"}]}),
        ("call_in_text", {"conversations": [*HERMES["conversations"][:2], {"from": "gpt", "value": "<tool_call>{"}]}),
        ("missing_field", {**BFCL, "ground_truth": None}),
        ("wrong_type", {**BFCL, "ground_truth": ["f(x)"]}),
        ("wrong_type", {**BFCL, "question": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]}),
        ("missing_argument", {**BFCL, "ground_truth": [{"get_weather": {"city": ["", "Rome"]}}]}),
    ],
)  # fmt: skip
def test_what_cannot_be_used_keeps_its_reason(rule, row):
    [(record_id, error)] = list(to_records("f:1", row))
    assert (record_id, error.rule) == ("f:1", rule)


def test_one_bad_turn_does_not_take_the_others_with_it():
    messages = [*OPENAI["messages"]]
    messages[4] = {"role": "assistant", "tool_calls": called({"name": "get_weather", "arguments": {"city": 5}})}
    found = dict(to_records("f:1", {**OPENAI, "messages": messages}))
    assert found["f:1/1"].calls == [ROME]
    assert found["f:1/2"].rule == "schema"


def test_bfcl_answers_come_from_the_file_beside(tmp_path):
    (tmp_path / "possible_answer").mkdir()
    questions = [
        {key: value for key, value in BFCL.items() if key != "ground_truth"},
        {**BFCL, "id": "irrelevance_1", "ground_truth": None},
        {**BFCL, "id": "simple_2", "ground_truth": None},
    ]
    name = "BFCL_v4_simple.json"
    (tmp_path / name).write_text("\n".join(map(json.dumps, questions)))
    truth = [{"id": "simple_0", "ground_truth": BFCL["ground_truth"]}]
    (tmp_path / "possible_answer" / name).write_text("\n".join(map(json.dumps, truth)))
    for path in (tmp_path / name, tmp_path):  # the answers are no records of their own
        found = [record for _, record in read_records(path)]
        assert found[0].calls == [ROME]
        assert (found[1].calls, found[1].tags) == ([], ("calls:0", "abstain:no_tool"))
        assert found[2].rule == "missing_field"
        assert len(found) == 3


def test_bfcl_types_and_nested_answers():
    parameters = {
        "type": "dict",
        "properties": {
            "box": {"type": "dict", "properties": {"w": {"type": "float"}, "h": {"type": "float"}}},
            "tags": {"type": "tuple", "items": {"type": "String"}},
            "extra": {"type": "any"},
        },
        "required": ["box"],
    }
    row = {
        **BFCL,
        "function": {"name": "pack", "description": "Pack.", "parameters": parameters},
        "ground_truth": [{"pack": {"box": [{"w": [1.5, 2], "h": ["", 3]}], "tags": [["a"]], "extra": ["", 1]}}],
    }
    [example] = examples(row)
    properties = example.tools[0]["function"]["parameters"]["properties"]
    assert properties["box"]["properties"]["w"] == {"type": "number"}
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}}
    assert properties["extra"] == {}
    assert example.calls == [{"name": "pack", "arguments": {"box": {"w": 1.5}, "tags": ["a"]}}]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of([mutated(row) for row in (*ROWS.values(), LEGACY, SHAREGPT)] + [json_values]),
    st.sampled_from([None, *FORMATS]),
)
def test_any_row_gives_examples_or_reasons(row, format):
    found = list(to_records("f:1", row, format))
    assert found
    assert len({record_id for record_id, _ in found}) == len(found)
    for _, record in found:
        assert isinstance(record, Example | RecordError)
        if isinstance(record, Example):
            assert Example.from_row(json.loads(json.dumps(record.to_row()))) == record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tools": "nope"}, "the field 'tools': "),
        ({"messages": None}, "the field 'messages' is null, expected a list of turns"),
        ({"messages": "[{"}, "the field 'messages' is text that is not the JSON of a list"),
        ({"messages": ["nope"]}, "a turn: "),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": ["x"]}]}, "a call: "),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [
            {"function": {"name": "look", "arguments": "{bad"}}]}]}, "the arguments of the call to 'look': "),
    ],
)  # fmt: skip
def test_the_key_that_is_wrong_is_named(change, said):
    row = {"tools": [{"name": "look", "parameters": {}}], "messages": [{"role": "user", "content": "x"}], **change}
    ((_, found),) = to_records("r", row)
    assert found.reason.startswith(said)


def test_a_record_without_fields_says_so():
    ((_, found),) = to_records("r", {})
    assert found.reason.startswith("the record has no field; expected")
