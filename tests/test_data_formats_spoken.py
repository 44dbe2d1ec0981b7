"""Calls that are written as text: in any wrapper they are calls, or a counted rejection; never an abstention."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.chat.formats import STYLES, encode_calls
from callwright.data.formats.detect import to_records
from callwright.data.formats.spoken import read_spoken
from callwright.data.records import Example, RecordError


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    tool("stock_level", item={"type": "string"}, count={"type": "integer"}, fresh={"type": "boolean"}),
    tool("now"),
]


def arguments_json(call):
    return json.dumps(call["arguments"], ensure_ascii=False)


def python(call):
    return f"{call['name']}({', '.join(f'{key}={value!r}' for key, value in call['arguments'].items())})"


def each(write, joint="\n"):
    return lambda calls: joint.join(map(write, calls))


def gemma_value(value):
    return f"<escape>{value}<escape>" if isinstance(value, str) else json.dumps(value)


def words(value):
    return value if isinstance(value, str) else json.dumps(value)


WRAPPERS = {
    **{style: lambda calls, style=style: encode_calls(calls, style) for style in STYLES},
    "bare": each(lambda call: json.dumps(call)),
    "list": lambda calls: json.dumps(calls),
    "openai": lambda calls: json.dumps({"tool_calls": [{"type": "function", "function": {
        "name": call["name"], "arguments": arguments_json(call)}} for call in calls]}),
    "glaive": each(
        lambda call: f"<functioncall> {{\"name\": \"{call['name']}\", \"arguments\": {arguments_json(call)!r}}}"),
    "python": lambda calls: f"[{', '.join(map(python, calls))}]",
    "tool_code": lambda calls: "```tool_code\n" + "\n".join(map(python, calls)) + "\n```",
    "printed": lambda calls: "```tool_code\n" + "\n".join(f"print({python(call)})" for call in calls) + "\n```",
    "literals": each(lambda call: f"<tool_call>\n{call!r}\n</tool_call>"),
    "function=": each(lambda call: f"<function={call['name']}>{arguments_json(call)}</function>"),
    "mistral": lambda calls: "[TOOL_CALLS]" + json.dumps(calls),
    "mistral_args": each(lambda call: f"[TOOL_CALLS]{call['name']}[ARGS]{arguments_json(call)}", ""),
    "python_tag": lambda calls: "<|python_tag|>" + "; ".join(map(json.dumps, calls)),
    "coder": each(lambda call: f"<tool_call>\n<function={call['name']}>\n" + "".join(
        f"<parameter={key}>\n{words(value)}\n</parameter>\n" for key, value in call["arguments"].items()
    ) + "</function>\n</tool_call>"),
    "glm": each(lambda call: f"<tool_call>{call['name']}\n" + "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{words(value)}</arg_value>\n" for key, value in call["arguments"].items()
    ) + "</tool_call>"),
    "functiongemma": each(lambda call: f"<start_function_call>call:{call['name']}{{" + ",".join(
        f"{key}:{gemma_value(value)}" for key, value in call["arguments"].items()) + "}<end_function_call>", ""),
    "kimi": lambda calls: "<|tool_calls_section_begin|>" + "".join(
        f"<|tool_call_begin|>functions.{call['name']}:{n}<|tool_call_argument_begin|>{arguments_json(call)}<|tool_call_end|>"
        for n, call in enumerate(calls)) + "<|tool_calls_section_end|>",
    "deepseek": lambda calls: "<｜tool▁calls▁begin｜>" + "".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call['name']}\n```json\n{arguments_json(call)}\n```<｜tool▁call▁end｜>"
        for call in calls) + "<｜tool▁calls▁end｜>",
    "react": each(lambda call: f"Action: {call['name']}\nAction Input: {arguments_json(call)}"),
    "minimax": each(lambda call: f"<minimax:tool_call>\n<invoke name=\"{call['name']}\">\n" + "".join(
        f'<parameter name="{key}">{words(value)}</parameter>\n' for key, value in call["arguments"].items()
    ) + "</invoke>\n</minimax:tool_call>"),
}  # fmt: skip

items = st.text(alphabet="abc é7'\"{}[](),:=.-", min_size=1, max_size=12).map(str.strip).filter(bool)
calls_of = st.lists(
    st.one_of(
        st.builds(lambda item: {"name": "stock_level", "arguments": {"item": item}}, items),
        st.builds(
            lambda *given: {
                "name": "stock_level",
                "arguments": dict(zip(("item", "count", "fresh"), given, strict=True)),
            },
            items,
            st.integers(-5, 500),
            st.booleans(),
        ),
    ),
    min_size=1,
    max_size=3,
)
BEFORE = ("", "Let me look that up for you.\n", "<think>The user wants the stock of an item.</think>\n")


def record(text, tools=TOOLS, form="openai"):
    if form == "openai":
        said = [{"role": "user", "content": "How many are left?"}, {"role": "assistant", "content": text}]
        return {"messages": said, "tools": tools}
    said = [{"from": "human", "value": "How many are left?"}, {"from": "gpt", "value": text}]
    return {"conversations": said, "tools": json.dumps(tools)}


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_call_in_any_wrapper_is_no_abstention(wrapper):
    outcomes = Counter()

    @settings(max_examples=60, deadline=None)
    @given(calls_of, st.sampled_from(BEFORE), st.sampled_from(["openai", "sharegpt"]))
    def check(calls, before, form):
        for _, found in to_records("f:1", record(before + WRAPPERS[wrapper](calls), form=form)):
            if isinstance(found, RecordError):
                assert found.rule in ("call_in_text", "schema", "unknown_tool"), found
            else:
                assert found.calls == calls
            outcomes[type(found)] += 1

    check()
    assert outcomes[Example] > 9 * outcomes[RecordError]


def test_a_call_without_arguments():
    for wrapper in WRAPPERS:
        for _, found in to_records("f:1", record(WRAPPERS[wrapper]([{"name": "now", "arguments": {}}]))):
            assert isinstance(found, RecordError) or found.calls == [{"name": "now", "arguments": {}}], wrapper


@pytest.mark.parametrize(
    "text",
    [
        "I would need to know which store you mean.",
        "There are (as of today) no bolts [see the list].",
        "In Python: `sorted(values, key=len)` sorts by length.",
        "<b>None</b> of the tools does that.",
    ],
)
def test_words_are_words(text):
    [(_, found)] = to_records("f:1", record(text))
    assert (found.calls, found.answer, found.tags) == ([], text, ("calls:0", "abstain:answer"))


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "stock_level", "arguments": {"item": "bo',
        '<tool_call>\n{"name": "stock_level", "arguments": {"item": "a"}}\n</tool_call>\n<tool_call>\n{"name": "st',
        '[{"name": "stock_level", "arguments": {"item": "a"}}, {"name": "stock_level", "argu',
        '[stock_level(item="a"), stock_level(item=',
        "<function=stock_level><parameter=item>bolts",
        'You could call stock_level(item="bolts") to see how many there are in the store.',
        "[TOOL_CALLS] something",
        "stock_level",
        '{"item": "bolts", "count": 1, "fresh": true}',
    ],
)
def test_what_may_be_a_call_is_rejected_and_counted(text):
    found = [each for _, each in to_records("f:1", record(text))]
    assert [getattr(each, "rule", each) for each in found] == ["call_in_text"]


def test_a_call_to_a_tool_that_is_not_listed_is_rejected_by_its_rule():
    [(_, found)] = to_records("f:1", record('<tool_call>{"name": "order", "arguments": {}}</tool_call>'))
    assert found.rule == "unknown_tool"


def test_names_that_are_none_in_python():
    tools = [tool("Market Trends API", country={"type": "string"}), tool("get-time")]
    text = '[Market Trends API(country="us (Market Trends API)"), get-time()]'
    found = read_spoken(text, tools)
    assert found.calls == [
        {"name": "Market Trends API", "arguments": {"country": "us (Market Trends API)"}},
        {"name": "get-time", "arguments": {}},
    ]


def test_the_words_beside_blocks_stay_in_the_history():
    text = 'I look.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    said = [("human", "Time?"), ("gpt", text), ("tool", "8"), ("human", "And now?"), ("gpt", text)]
    row = {"conversations": [{"from": who, "value": what} for who, what in said], "tools": TOOLS}
    second = dict(to_records("f:1", row))["f:1/2"]
    assert second.messages[1]["content"] == "I look."


def test_recorded_outputs_of_nine_model_families_are_no_abstentions():
    fixtures = pytest.importorskip(
        "canitoolcall.fixtures", reason="CanIToolCall's recorded outputs are not here: pip install canitoolcall"
    )
    outcomes = Counter()
    for recorded in fixtures.load_fixtures():
        if recorded.expected is None or not recorded.expected.tool_calls:
            continue
        wanted = [{"name": call.name, "arguments": dict(call.arguments)} for call in recorded.expected.tool_calls]
        for _, found in to_records(recorded.id, record(recorded.raw_output, list(recorded.tools))):
            if isinstance(found, RecordError):
                outcomes[found.rule] += 1
            else:
                assert found.calls == wanted, recorded.id
                outcomes["right"] += 1
    assert outcomes["right"] >= 0.98 * outcomes.total()
    assert set(outcomes) <= {"right", "call_in_text", "schema"}
