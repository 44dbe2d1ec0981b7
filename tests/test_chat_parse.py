"""Calls read back from text: natively as the stock server reads them, leniently as a person would."""

import ast
import io
import itertools
import json
import time
import tokenize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.generate import TextStateMachine
from mlx_lm.tool_parsers import json_tools

from callwright.chat import parse
from callwright.chat.formats import encode_calls
from callwright.chat.parse import parse_lenient, parse_native
from callwright.chat.pythonic import Work, python_calls, python_literals
from callwright.chat.strict_json import MAX_DEPTH

CALL = {"name": "f", "arguments": {"x": 1}}


def block(text: str) -> str:
    return f"<tool_call>\n{text}\n</tool_call>"


# -- native ----------------------------------------------------------------------------------------


def serve(text: str) -> tuple[list, str]:
    """Calls and content as `mlx_lm.server` makes them: its own state machine and parser, a character at a time."""
    machine = TextStateMachine(
        {
            "normal": [(json_tools.tool_call_start, "tool")],
            "tool": [(json_tools.tool_call_end, "normal")],
        }
    )
    state, content, tool, calls, before = machine.make_state("normal"), "", "", [], "normal"
    for character in text:
        state, segments = TextStateMachine.split(state, character)
        for name, piece in segments:
            if name == "tool":
                tool += piece
            else:
                if before == "tool":
                    calls.append(tool)
                    tool = ""
                content += piece
            before = name
    _, rest, name = TextStateMachine.flush(state)
    content += rest if name == "normal" else ""
    parsed = []
    for call in calls:
        try:
            value = json_tools.parse_tool_call(call)
        except ValueError:
            continue
        parsed += value if isinstance(value, list) else [value]
    return parsed, content


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
calls = st.fixed_dictionaries(
    {"name": st.text(min_size=1), "arguments": st.dictionaries(st.text(), values, max_size=4)}
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(calls, max_size=4))
def test_what_is_written_is_read(written):
    text = encode_calls(written)
    if "</tool_call>" in json.dumps(written):
        return
    parsed = parse_native(text)
    assert parsed.calls == written
    assert parsed.errors == []
    assert parsed.content.strip() == ""
    assert parse_lenient(text) == written
    for style in ("fenced", "fenced_ids"):
        assert parse_lenient(encode_calls(written, style=style)) == written


PIECES = [
    "<tool_call>",
    "</tool_call>",
    "<tool",
    "_call>",
    "</",
    "<",
    "\n",
    "text ",
    json.dumps(CALL),
    '{"name"',
    "[",
    "]",
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_closed_blocks_are_read_as_the_server_reads_them(text):
    parsed = parse_native(text)
    served, content = serve(text)
    assert parsed.calls == [call for call in served if isinstance(call, dict)]
    assert parsed.content == content


@pytest.mark.parametrize(
    ("text", "calls", "content", "error"),
    [
        ("Just words.", 0, "Just words.", None),
        ("", 0, "", None),
        ("Let me see. " + block(json.dumps(CALL)) + " Done.", 1, "Let me see.  Done.", None),
        (block(json.dumps([CALL, CALL])), 2, "", None),
        ("<tool_call>" + json.dumps(CALL) + "</tool_call>", 1, "", None),
        ("<tool_call>\n" + json.dumps(CALL), 0, "", "<tool_call> is not closed"),
        ("<tool_call>\n" + json.dumps(CALL) + "\n</tool_cal", 0, "", "<tool_call> is not closed"),
        (json.dumps(CALL), 0, json.dumps(CALL), None),
        (block("{'name': 'f', 'arguments': {}}"), 0, "", "not valid JSON"),
        (block('{"name": "f", "arguments": {}} {}'), 0, "", "not valid JSON"),
        (block(""), 0, "", "not valid JSON"),
        (block("7"), 0, "", "a call must be an object, found int"),
        (block('{"arguments": {}}'), 0, "", "must have a `name`"),
        (block('{"name": 7, "arguments": {}}'), 0, "", "must have a `name`"),
        (block('{"name": "f"}'), 0, "", "must have `arguments`"),
        (block('{"name": "f", "arguments": "{}"}'), 0, "", "must have `arguments`"),
        (block('{"name": "f", "arguments": {"x": NaN}}'), 0, "", "not valid JSON"),
        (block('{"name": "f", "arguments": {"x": -Infinity}}'), 0, "", "not valid JSON"),
        (block('{"name": "f", "arguments": {"x": 1e999}}'), 0, "", "number is infinity"),
        (block('{"name": "f", "arguments": {"x": ["\\ud800"]}}'), 0, "", "no low surrogate"),
        (block('{"name": "f", "arguments": {"x": ' + "9" * 5000 + "}}"), 0, "", "not valid JSON"),
        (block('{"name": "\\ud83d\\ude00", "arguments": {}}'), 1, "", None),
        (block('{"name": "f", "arguments": {"x": 123456789012345678901234567890}}'), 1, "", None),
    ],
)
def test_native_cases(text, calls, content, error):
    parsed = parse_native(text)
    assert len(parsed.calls) == calls
    assert parsed.content == content
    if error is None:
        assert parsed.errors == []
    else:
        assert len(parsed.errors) == 1
        assert error in parsed.errors[0]


def test_a_bad_block_does_not_spoil_a_good_one():
    parsed = parse_native(block("{") + "\n" + block(json.dumps(CALL)))
    assert parsed.calls == [CALL]
    assert len(parsed.errors) == 1


def test_of_duplicate_keys_the_last_counts():
    assert parse_native(block('{"name": "a", "name": "f", "arguments": {"x": 0, "x": 1}}')).calls == [CALL]


@pytest.mark.parametrize("depth", [MAX_DEPTH - 4, MAX_DEPTH + 2, 500, 5_000, 50_000])
def test_depth_is_bounded(depth):
    text = block('{"name": "f", "arguments": {"x": ' + "[" * depth + "]" * depth + "}}")
    parsed = parse_native(text)
    assert len(parsed.calls) == (1 if depth < MAX_DEPTH else 0)
    assert len(parsed.errors) == (0 if depth < MAX_DEPTH else 1)
    assert len(parse_lenient(text)) == len(parsed.calls)


# -- lenient ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (block(json.dumps(CALL)), ["f"]),
        ("```json\n[" + json.dumps(CALL) + ",\n " + json.dumps(CALL) + "]\n```", ["f", "f"]),
        ("Sure! Here it is: " + json.dumps(CALL) + " (that's all)", ["f"]),
        ('He said "no. \n' + json.dumps(CALL), ["f"]),
        ('[He said "no. \n' + json.dumps(CALL), ["f"]),
        (json.dumps({"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]}), ["f"]),
        (json.dumps({"name": "f", "parameters": {"x": 1}}), ["f"]),
        ("[" + json.dumps(CALL) + ", " + json.dumps(CALL) + ', {"name": "f", "argu', ["f", "f"]),
        ("<tool_call>\n" + json.dumps(CALL), ["f"]),
        ("list[0] } and [x} then " + json.dumps(CALL), ["f"]),
        (json.dumps({"name": "f", "arguments": {"x": 'a"]}\\'}}), ["f"]),
        (json.dumps({"name": "f", "arguments": "not json"}), []),
        (json.dumps({"name": 7, "arguments": {}}), []),
        (json.dumps({"name": "Paris", "size": 3}), []),
        ('[{"name": "f", "arguments": {"x": 1},},]', ["f"]),
        ("[{'name': 'f', 'arguments': {'x': True, 'y': None}}]", ["f"]),
        ('{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}', ["f"]),
        ('{"function_call": {"name": "f", "arguments": "{}"}}', ["f"]),
        ('{"tool": "f", "tool_input": {"x": 1}}', ["f"]),
        ('{"type": "tool_use", "name": "f", "input": {"x": 1}}', ["f"]),
        ('<|python_tag|>{"name": "f", "parameters": {"x": 1}}<|eom_id|>', ["f"]),
        ('[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}]', ["f"]),
        ('[TOOL_CALLS]f[ARGS]{"x": 1}', ["f"]),
        ('<function=f>{"x": 1}</function><function=g>{}</function>', ["f", "g"]),
        ('Thought: hm\nAction: f\nAction Input: {"x": 1}\nObservation:', ["f"]),
        ('<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"x": 1}\n```<｜tool▁call▁end｜>', ["f"]),
        ("[f(x=1), g(y='a', z=[1, {'b': 2.5}],)]", ["f", "g"]),
        ("```tool_code\nprint(default_api.f(x=1))\n```", ["f"]),
        ("```python\nresult = f(x=-1.5e3, y=True)\n```", ["f"]),
        ("```tool_code\nget_time()\n```", ["get_time"]),
        ("[get_time()]", ["get_time"]),
        ("get_time()", ["get_time"]),
        ("```tool_code\nget_time()\nget_date()\n```", ["get_time", "get_date"]),
        ("```tool_code\nprint(get_time())\n```", ["get_time"]),
        ("Use the `time()` function.\n```python\nimport time\n\ndef main():\n    time.sleep(1)\n\nmain()\n```", []),
        ("x" * 50 + "\nmain()", []),
        ("You could use get_time() for that, or f(x) or f(1).", []),
        ("f(x=open('a'), y=2)", []),
        ("f(x=1, x=2)", []),
        ("See f(x=1", []),
        ('{"name":"","arguments":{}} {"name":"","parameters":{}}', ["", ""]),
        ('{"n\\u0061me": "f", "\\u0061rguments": {}}', ["f"]),
        ("No tool fits.", []),
        ("", []),
    ],
)
def test_lenient_cases(text, names):
    assert [call["name"] for call in parse_lenient(text)] == names


def test_arguments_survive_each_wrapper():
    arguments = {"city": "Zürich", "days": 5, "note": 'he said "no" {', "list": [1, 2.5, None, True]}
    as_json = json.dumps(arguments, ensure_ascii=False)
    call = {"name": "f", "arguments": arguments}
    openai = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": as_json}}
    python = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    for text in [
        block(json.dumps(call)),
        f"```json\n[{json.dumps(call, indent=2)}]\n```",
        json.dumps(openai),
        json.dumps({"tool_calls": [openai]}),
        repr([call]),
        f"<function=f>{as_json}</function>",
        f"f({python})",
        f"```tool_code\nprint(default_api.f({python}))\n```",
    ]:
        assert parse_lenient(text) == [call], text


identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(identifiers, st.dictionaries(identifiers, literals, min_size=1, max_size=4))
def test_calls_written_as_python_are_read_as_python_reads_them(name, arguments):
    text = f"{name}({', '.join(f'{key} = {value!r}' for key, value in arguments.items())})"
    assert python_calls(text, Work(10**6)) == [{"name": name, "arguments": arguments}]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="[](){}'\"\\,:123.eTrue None-+xu\n", max_size=40) | literals.map(repr))
def test_a_literal_is_what_ast_says_or_nothing(text):
    found = list(python_literals(f"[{text}]", Work(10**6)))
    try:
        expected = ast.literal_eval(f"[{text}]")
        as_json = json.dumps(expected)
    except (SyntaxError, ValueError, TypeError):  # JSON's words; sets, bytes and keys that JSON does not have
        return
    if len(found) == 1 and "{" not in text and not joined(text):  # of what is no literal to us, parts may be
        assert json.dumps(found[0]) == as_json


def joined(text):
    """Whether two strings stand side by side, which Python makes one."""
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(f"[{text}]").readline)]
    kinds = [kind for kind in kinds if kind != tokenize.NL]
    return any(pair == (tokenize.STRING, tokenize.STRING) for pair in itertools.pairwise(kinds))


def test_strings_side_by_side_are_no_literal_to_us():
    assert joined("'['']'")
    assert not joined("'[', ']'")


# -- neither raises, both are linear ---------------------------------------------------------------

BOMBS = {
    "openings": "<tool_call>" * 10_000,
    "openings and a close": "<tool_call>" * 10_000 + "</tool_call>",
    "empty blocks": "<tool_call></tool_call>" * 5_000,
    "half markers": "<tool_" * 17_000,
    "brackets": "[" * 100_000,
    "braces": '{"a":' * 20_000,
    "balanced brackets": "[" * 50_000 + "]" * 50_000,
    "empty objects": "{}" * 50_000,
    "closing brackets": "]}" * 50_000,
    "mixed brackets": "[}" * 50_000,
    "quotes": '{"' * 50_000,
    "backslashes": '{"' + "\\" * 100_000,
    "digits": block('{"name": "f", "arguments": {"x": ' + "1" * 100_000 + "}}"),
    "fences": "```json\n" * 12_000,
    "calls in calls": '{"name": "f", "arguments": ' * 4_000 + "{}" + "}" * 4_000,
    "lone surrogates": block('{"name": "f", "arguments": {"x": "' + "\\ud800" * 16_000 + '"}}'),
    "raw lone surrogates": block('{"name": "\ud800"}') + "\udfff" * 50_000,
    "zeros": "\x00" * 100_000,
    "closes": "</tool_call>" * 8_500,
    "blank block": "<tool_call>" + " " * 100_000 + "</tool_call>",
    "lines in a block": "<tool_call>{" + "\n" * 100_000 + "</tool_call>",
    "plain quotes": '"' * 100_000,
    "escaped quotes": '{"' + '\\"' * 50_000,
    "lists in an open list": "[[]" * 33_000,
    "objects in lists": "[{}]" * 25_000,
    "broken objects": '{"a":1,}\n' * 11_000,
    "names": '{"name":1}' * 10_000,
    "broken names": '{"name"}' * 12_000,
    "broken calls": '{"name":"","arguments":{};}' * 3_700,
    "digits of a fraction": '{"name":"arguments","x":1.' + "3" * 100_000 + "}",
    "digits of an exponent": '{"name":"arguments","x":1e' + "3" * 100_000 + "}",
    "arguments as text": '{"name":"f","arguments":"' + "[1," * 33_000 + '"}',
    "Python calls": "f(x='\\n' * 2)" * 8_000,
    "nested Python calls": "f(x=" * 25_000,
    "open lists in Python": "f(x=" + "[" * 99_000,
    "open strings in Python": "f(x='" * 20_000,
    "triple quotes": "f(x='''" * 12_000,
    "words before brackets": "abc (" * 20_000,
    "long name": "a" * 100_000 + "(",
    "dotted name": "a." * 50_000 + "(",
    "labels": "Action: f Action Input: {" * 4_000,
    "labels and names": ("Action:" + "a" * 200 + "{};") * 480 + "[ARGS]",
    "Python objects": "{'name': f}" * 9_000,
    "comma lists": "[{'a':[1,2,}]" * 7_500,
    "keys": "{" + ",".join(f'"{number}":0' for number in range(10_000)) + "}",
}


# Seconds for 100 kB. It takes 0.02 to 0.05; a quadratic reading takes seconds to minutes, a busy machine some more.
ENOUGH = 0.5


def best_of_3(function, text) -> float:
    """Seconds of this process, so that other programs hardly matter."""
    times = []
    for _ in range(3):
        start = time.process_time()
        function(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_text_is_read_quickly(name):
    text = BOMBS[name]
    assert parse_native(text).calls == []
    assert parse_lenient(text) == []
    for parser in (parse_native, parse_lenient):
        assert best_of_3(parser, text) < ENOUGH


MANY = [json.dumps(CALL), json.dumps({"function": {"name": "f", "arguments": '{"x": 1}'}}), "{'name': 'f', 'args': {}}",
        "f(x=1)\n", '<function=f>{"x": 1}', '{"tool":"f","args":{}}', block(json.dumps([CALL] * 3)),
        'Action: f\nAction Input: {"x": 1}\n']  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(MANY), min_size=1, max_size=4), st.sampled_from(["", ",", "\n", " or ", "```\n", '"'])
       , st.booleans(), st.integers(1, 60))  # fmt: skip
def test_a_text_full_of_calls_of_any_form_is_read_quickly(forms, between, listed, nested):
    text = between.join(forms * (100_000 // len("".join(forms))))[:100_000]
    text = f"[{text}]" if listed else "[" * nested + text + "]" * nested
    for parser in (parse_native, parse_lenient):
        assert best_of_3(parser, text) < ENOUGH


def changed(text, places, pieces):
    """A text with pieces put in, or letters taken out (an empty piece), at some places."""
    for place, piece in zip(places, pieces, strict=False):
        at = place % (len(text) + 1)
        text = text[:at] + piece + text[at + (piece == "") :]
    return text


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(calls, min_size=1, max_size=3), st.sampled_from(["hermes", "fenced", "fenced_ids"]),
       st.lists(st.integers(0, 10**6), max_size=6), st.lists(st.sampled_from(["", *"[]{}\"\\,:<\n\ud800"]), max_size=6),
       st.integers(1, 70))  # fmt: skip
def test_answers_that_are_broken_or_nested_at_any_place_never_raise(written, style, places, pieces, depth):
    text = changed(encode_calls(written, style=style), places, pieces)
    for nested in (text, "[" * depth + text + "]" * depth, block(text), json.dumps({"tool_calls": text})):
        for call in [*parse_native(nested).calls, *parse_lenient(nested)]:
            assert isinstance(call["name"], str)
            assert isinstance(call["arguments"], dict)
            json.dumps(call, allow_nan=False).encode()
            json.dumps(call, ensure_ascii=False).encode()


def test_many_calls_are_read_quickly_too():
    text = block(json.dumps(CALL)) * 1_500
    for parser in (parse_native, parse_lenient):
        assert best_of_3(parser, text) < ENOUGH
    assert parse_native(text).calls == parse_lenient(text) == [CALL] * 1_500


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet=st.sampled_from('{}[]",:\\\n <>/_tolcaer"1-.eNaInfy'), max_size=200) | st.text())
def test_nothing_raises(text):
    parse_native(text)
    parse_lenient(text)
    parse_native(block(text))


HOSTILE = [
    *PIECES,
    "f(x=",
    "'",
    '"',
    "\\",
    "{",
    "}",
    "[TOOL_CALLS]",
    "Action: f",
    "```tool_code\n",
    "(",
    ")",
    "1e9",
    "x",
    ",",
]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=12).map("".join), st.integers(0, 3))
def test_any_pattern_repeated_to_100_kb_is_read_quickly(pattern, cut):
    text = (pattern * (100_000 // len(pattern) + 1))[cut : 100_000 + cut]
    for parser in (parse_native, parse_lenient):
        assert best_of_3(parser, text) < ENOUGH


def test_the_work_for_one_text_is_bounded(monkeypatch):
    """The bound is in units of work, not of time: the same answer on a slow machine."""
    many = ", ".join(f"f(x={number})" for number in range(20_000))
    found = parse_lenient(many)
    assert found == [{"name": "f", "arguments": {"x": number}} for number in range(len(found))]
    assert 300 < len(found) < 2_000
    monkeypatch.setattr(parse, "WORK", 10**7)
    assert len(parse_lenient(many)) == 20_000
