"""Calls in the marks of model families: a sample of each, values typed by schema, cut ones, hostile texts."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.chat.marked import READERS, Tools, marked_calls, typed
from callwright.chat.parse import WORK, parse_lenient
from callwright.chat.pythonic import Work

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "book_table",
            "description": "",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string"},
                    "people": {"type": "integer"},
                    "outside": {"type": "boolean"},
                    "wishes": {"type": "array", "items": {"type": "string"}},
                    "code": {"type": "string"},
                    "until": {"type": ["string", "null"]},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object"}}},
]
BOOK = {
    "name": "book_table",
    "arguments": {
        "place": "Chez Zoë",
        "people": 4,
        "outside": True,
        "wishes": ["quiet", "near, a window"],
        "code": "007",
        "until": None,
    },
}
NOW = {"name": "now", "arguments": {}}
WISHES = '["quiet", "near, a window"]'

# Two calls, the second without arguments, as each family writes them.
SAMPLES = {
    "qwen3-xml": (
        "<tool_call>\n<function=book_table>\n<parameter=place>\nChez Zoë\n</parameter>\n<parameter=people>\n4\n"
        "</parameter>\n<parameter=outside>\ntrue\n</parameter>\n<parameter=wishes>\n" + WISHES + "\n</parameter>\n"
        "<parameter=code>\n007\n</parameter>\n<parameter=until>\nnull\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=now>\n</function>\n</tool_call>"
    ),
    "deepseek 3.2": (
        'Let me see.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="book_table">\n'
        '<｜DSML｜parameter name="place" string="true">Chez Zoë</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="people" string="false">4</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="outside" string="false">true</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="wishes" string="false">' + WISHES + "</｜DSML｜parameter>\n"
        '<｜DSML｜parameter name="code" string="true">007</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="until" string="false">null</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="now"/>\n</｜DSML｜function_calls>'
    ),
    "minimax": (
        '<minimax:tool_call>\n<invoke name="book_table">\n<parameter name="place">Chez Zoë</parameter>\n'
        '<parameter name="people">4</parameter>\n<parameter name="outside">true</parameter>\n'
        '<parameter name="wishes">' + WISHES + '</parameter>\n<parameter name="code">007</parameter>\n'
        '<parameter name="until">null</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>'
    ),
    "minicpm": (
        '<function name="book_table"><param name="place"><![CDATA[Chez Zoë]]></param><param name="people">4</param>'
        '<param name="outside">True</param><param name="wishes">' + WISHES + '</param><param name="code">007</param>'
        '<param name="until">null</param></function><function name="now"></function>'
    ),
    "glm 4.5": (
        "\n<think>A table, then the time.</think>\n<tool_call>book_table\n<arg_key>place</arg_key>\n<arg_value>Chez Zoë"
        "</arg_value>\n<arg_key>people</arg_key>\n<arg_value>4</arg_value>\n<arg_key>outside</arg_key>\n"
        "<arg_value>true</arg_value>\n<arg_key>wishes</arg_key>\n<arg_value>" + WISHES + "</arg_value>\n"
        "<arg_key>code</arg_key>\n<arg_value>007</arg_value>\n<arg_key>until</arg_key>\n<arg_value>null</arg_value>\n"
        "</tool_call>\n<tool_call>now\n</tool_call>"
    ),
    "longcat": (
        "<longcat_tool_call>book_table\n<longcat_arg_key>place</longcat_arg_key>\n<longcat_arg_value>Chez Zoë"
        "</longcat_arg_value>\n<longcat_arg_key>people</longcat_arg_key>\n<longcat_arg_value>4</longcat_arg_value>\n"
        "<longcat_arg_key>outside</longcat_arg_key>\n<longcat_arg_value>true</longcat_arg_value>\n<longcat_arg_key>"
        "wishes</longcat_arg_key>\n<longcat_arg_value>" + WISHES + "</longcat_arg_value>\n<longcat_arg_key>code"
        "</longcat_arg_key>\n<longcat_arg_value>007</longcat_arg_value>\n<longcat_arg_key>until</longcat_arg_key>\n"
        "<longcat_arg_value>null</longcat_arg_value>\n</longcat_tool_call>\n<longcat_tool_call>now\n"
        "</longcat_tool_call>"
    ),
    "gemma 4": (
        '<|channel>thought\nHm.\n<channel|><|tool_call>call:book_table{place:<|"|>Chez Zoë<|"|>,people:4,outside:true,'
        'wishes:[<|"|>quiet<|"|>,<|"|>near, a window<|"|>],code:<|"|>007<|"|>,until:null}<tool_call|>'
        "<|tool_call>call:now{}<tool_call|>"
    ),
    "function gemma": (
        "<start_function_call>call:book_table{place:<escape>Chez Zoë<escape>,people:4,outside:true,wishes:["
        "<escape>quiet<escape>,<escape>near, a window<escape>],code:<escape>007<escape>,until:null}"
        "<end_function_call><start_function_call>call:now{}<end_function_call>"
    ),
    "kimi k3": (
        'Booking.<|close|>think<|sep|><|open|>tools<|sep|><|open|>call tool="book_table" index="1"<|sep|>'
        '<|open|>argument key="place" type="string"<|sep|>Chez Zoë<|close|>argument<|sep|>'
        '<|open|>argument key="people" type="number"<|sep|>4<|close|>argument<|sep|>'
        '<|open|>argument key="outside" type="boolean"<|sep|>true<|close|>argument<|sep|>'
        '<|open|>argument key="wishes" type="array"<|sep|>' + WISHES + "<|close|>argument<|sep|>"
        '<|open|>argument key="code" type="string"<|sep|>007<|close|>argument<|sep|>'
        '<|open|>argument key="until" type="null"<|sep|>null<|close|>argument<|sep|><|close|>call<|sep|>'
        '<|open|>call tool="now" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
    ),
}
AS_JSON = json.dumps(BOOK["arguments"], ensure_ascii=False)
# Families that put a label before JSON: `chat.parse` itself reads them.
LABELLED = {
    "deepseek 3.1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>book_table<｜tool▁sep｜>{AS_JSON}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "kimi k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.book_table:0<|tool_call_argument_begin|>"
    f"{AS_JSON}<|tool_call_end|><|tool_call_begin|>functions.now:1 <|tool_call_argument_begin|>{{}}<|tool_call_end|>"
    "<|tool_calls_section_end|>",
    "gpt-oss": "<|channel|>analysis<|message|>{a plan}<|end|><|start|>assistant to=functions.book_table<|channel|>"
    f"commentary <|constrain|>json<|message|>{AS_JSON}<|call|><|start|>assistant<|channel|>commentary "
    "to=functions.now<|constrain|>json<|message|>{}<|call|>",
    "mistral": f"[THINK]First [TOOL_CALLS]now[ARGS]{{}}?[/THINK][TOOL_CALLS]book_table[CALL_ID]a1b2c3d4e[ARGS]{AS_JSON}"
    "[TOOL_CALLS]now[ARGS]{}",
    "llama": '<|python_tag|>{"name": "book_table", "parameters": ' + AS_JSON + '}; {"name": "now", "parameters": {}}',
}


@pytest.mark.parametrize("family", [*SAMPLES, *LABELLED])
def test_each_family_is_read(family):
    assert parse_lenient({**SAMPLES, **LABELLED}[family], TOOLS) == [BOOK, NOW]


@pytest.mark.parametrize("family", SAMPLES)
def test_what_is_cut_is_no_call(family):
    """At whatever place an answer ends, each call in it is whole: a value that was cut is never handed over."""
    text = SAMPLES[family]
    for cut in range(len(text)):
        assert parse_lenient(text[:cut], TOOLS) in ([], [BOOK], [BOOK, NOW]), text[:cut]


def test_without_schemas_values_are_json_where_they_are_json():
    read = parse_lenient(SAMPLES["qwen3-xml"])
    assert read == [BOOK, NOW]  # 007 is no JSON
    text = '<function=f>\n<parameter=x>\n7\n</parameter>\n<parameter=y>\n"a"\n</parameter>\n</function>'
    assert parse_lenient(text) == [{"name": "f", "arguments": {"x": 7, "y": '"a"'}}]


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ("3", {"type": "string"}, "3"),
        ("null", {"type": "string"}, "null"),
        ("null", {"type": ["string", "null"]}, None),
        ("3", {"type": "integer"}, 3),
        ("3.0", {"type": "integer"}, 3),
        ("3.5", {"type": "integer"}, 3.5),
        ("3", {"anyOf": [{"type": "integer"}, {"type": "string"}]}, 3),
        ("three", {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "three"),
        ("[1]", {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "[1]"),
        ("True", {"type": "boolean"}, True),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("NaN", {"type": "number"}, "NaN"),
        ("1e999", {"type": "number"}, "1e999"),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("x", True, "x"),
        ("x", {"anyOf": [None, {"type": 7}]}, "x"),
    ],
)
def test_values_are_what_their_schema_says(value, schema, expected):
    found = typed(value, schema)
    assert found == expected
    assert type(found) is type(expected)


def test_marks_within_values():
    inline = "Close with </parameter> and </function>, open with <parameter=x> or <tool_call>."
    text = f"<tool_call>\n<function=f>\n<parameter=x>\n{inline}\n</parameter>\n</function>\n</tool_call>"
    assert parse_lenient(text) == [{"name": "f", "arguments": {"x": inline}}]
    text = (
        '<|open|>call tool="f"<|sep|><|open|>argument key="a&amp;b" type="string"<|sep|><|close|>argument<|sep|> ends'
    )
    text += "<|close|>argument<|sep|><|close|>call<|sep|>"
    assert parse_lenient(text) == [{"name": "f", "arguments": {"a&b": "<|close|>argument<|sep|> ends"}}]
    text = '<|tool_call>call:f{x:<|"|>{"name": "g", "arguments": {}} <tool_call|><|"|>}<tool_call|>'
    assert parse_lenient(text) == [{"name": "f", "arguments": {"x": '{"name": "g", "arguments": {}} <tool_call|>'}}]


def test_forgotten_closing_tags():
    text = "<tool_call>\n<function=f>\n<parameter=x>\n1\n<parameter=y>\nb\n</function>\n</tool_call>"
    assert parse_lenient(text) == [{"name": "f", "arguments": {"x": 1, "y": "b"}}]
    text = "<tool_call>f<arg_key>x</arg_key><arg_value>1</tool_call>"
    assert parse_lenient(text) == [{"name": "f", "arguments": {"x": 1}}]


@pytest.mark.parametrize("opening", ["<think>", ""])
def test_calls_that_are_only_thought_of(opening):
    thought = '{"name": "now", "arguments": {"zone": "a draft"}}'
    assert parse_lenient(f'{opening}I write {thought}</think>{{"name": "now", "arguments": {{}}}}') == [NOW]
    drafted = [{"name": "now", "arguments": {"zone": "a draft"}}]
    assert parse_lenient(f"{opening}{thought}</think>Done.") == drafted  # better than no call
    say = '{"name": "say", "arguments": {"text": "</think> closes"}}'
    assert parse_lenient(say) == [json.loads(say)]


@pytest.mark.parametrize(
    "text",
    [
        "Call it like this: call:f or call: {x:1}.",
        "An element <function=f> opens a call and </function> closes it.",
        "<tool_call>not valid json</tool_call>",
        "<tool_call>...</tool_call>",
        "<|tool_call>call:f no brace<tool_call|>",
        '<svg><function name=""></function></svg>',
        "def invoke(name): ...\ncall:f(x)",
    ],
)
def test_prose_about_marks_is_no_call(text):
    assert parse_lenient(text, TOOLS) == []


PIECES = [
    "<function=f>",
    "<parameter=x>",
    "\n",
    "</parameter>",
    "</function>",
    "<tool_call>",
    "</tool_call>",
    "f",
    " ",
    "<arg_key>k</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "call:f{",
    "call:f{x:1}",
    "x:",
    '<|"|>',
    "<escape>",
    "1",
    ",",
    "}",
    "[",
    "]",
    "{",
    "{}",
    '"',
    '<|open|>call tool="f"<|sep|>',
    '<|open|>argument key="x"<|sep|>',
    "aaaaaaaaaaaaaaaa",
    "<|close|>argument<|sep|>",
    "<|close|>call<|sep|>",
    '<｜DSML｜invoke name="f">',
    "</｜DSML｜invoke>",
    "<think>",
    "</think>",
    "<|message|>",
    " to=f",
    "<|tool_call_begin|>f:0<|tool_call_argument_begin|>",
    '<param name="x">',
    "<![CDATA[",
    "]]>",
]


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join))
def test_any_pattern_of_marks_repeated_to_100_kb_is_read_quickly(pattern):
    text = (pattern * (100_000 // len(pattern) + 1))[:100_000]
    times = []
    for _ in range(3):
        start = time.process_time()
        parse_lenient(text, TOOLS)
        times.append(time.process_time() - start)
    assert min(times) < 0.5  # it takes 0.01 to 0.02; a quadratic reading takes seconds


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_what_is_read_is_calls_and_nothing_raises(text):
    for call in parse_lenient(text, TOOLS):
        assert isinstance(call["name"], str)
        assert isinstance(call["arguments"], dict)
        json.dumps(call, allow_nan=False, ensure_ascii=False).encode()


def test_the_work_is_shared_and_what_was_found_is_kept():
    text = "<|tool_call>call:f{x:1}<tool_call|>" * 5_000
    found = parse_lenient(text)
    assert 100 < len(found) < 5_000
    assert found == [{"name": "f", "arguments": {"x": 1}}] * len(found)
    assert len(marked_calls(text, None, Work(100 * WORK))) == 5_000


def test_schemas_are_looked_up_by_tool_and_argument():
    assert Tools(TOOLS).schema("book_table", "people") == {"type": "integer"}
    assert Tools(TOOLS).schema("book_table", "nothing") is None
    assert Tools(None).schema("now", "x") is None
    assert {reader.__name__ for _, reader in READERS} == {"xtml_calls", "element_calls", "pair_calls", "brace_calls"}
