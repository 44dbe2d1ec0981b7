"""What a grammar allows: every right answer as training writes it, words, and nothing that cannot be read or run."""

import itertools
import json
import random

import mlx.core as mx
import numpy as np
import pytest
from bfcl_official import fetched
from jsonschema import Draft202012Validator

from callwright.chat.formats import STYLES, answer_text, encode_calls, to_json
from callwright.chat.parse import parse_lenient, parse_native
from callwright.data import schema
from callwright.data.records import RecordError
from callwright.data.sources import read_records
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.decoding.constrain import Constraint, grammar, json_grammar, masked, special_markers, vocabulary
from callwright.evals.suites import bfcl_records
from callwright.models.load import load_tokenizer
from callwright.runtime.errors import CallwrightError


def tool(name, properties=None, required=(), **more):
    parameters = {"type": "object", "properties": properties or {}, "required": list(required), **more}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


WEATHER = tool("get_weather", {"city": {"type": "string"}, "days": {"type": "integer"}}, ["city"])
NOW = tool("now")
TOOLS = [WEATHER, NOW]
CALLS = [call("get_weather", city='Zürich "West"', days=3), call("now")]


@pytest.fixture(scope="module")
def tokenizer(gemma_folder):
    return load_tokenizer(gemma_folder)


@pytest.fixture(scope="module")
def words(tokenizer):
    return vocabulary(tokenizer)


@pytest.fixture
def reads(tokenizer, words):
    """`reads(grammar, text)`: may this be an answer, from its first token to its end?"""

    def run(rules, text):
        constraint = Constraint(words, rules)
        ids = tokenizer.encode(text, add_special_tokens=False)
        return all(map(constraint.accept, ids)) and constraint.complete

    return run


# -- modes and styles ------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_calls_are_written_as_training_writes_them(reads, style):
    rules = grammar(TOOLS, style=style)
    for calls in (CALLS[:1], CALLS[1:], CALLS, CALLS * 3):
        text = encode_calls(calls, style)
        assert reads(rules, text)
        assert reads(rules, f"Let me look. {text}")
        assert not reads(rules, text + "\n")
        assert not reads(rules, text.replace('": ', '":'))
        assert not reads(rules, text.replace("{", "{ "))
        assert not reads(rules, text[:-1])
        assert not reads(grammar(TOOLS, style=style, words_first=False), f"Let me look. {text}")
        assert reads(grammar(TOOLS, style=style, parallel=False), text) == (len(calls) == 1)


@pytest.mark.parametrize("style", STYLES)
def test_words_are_an_answer_and_half_a_call_is_none(reads, style):
    rules = grammar(TOOLS, style=style)
    for text in ("I can't do that with the tools I have.", "Zürich?\nOr [Bern] {or} Basel, a < b", "名"):
        assert reads(rules, text)
    opening = encode_calls(CALLS, style)[:12]
    for text in ("", " ", "\n", opening, f"So: {opening}", '{"name": "now", "arguments": {}}', 'A: {"name": "now"}',
                 "```json\n{}\n```", "<function=now>{}", '[{"name": "now"}]', '[ {"name": "now"}]'):  # fmt: skip
        assert not reads(rules, text), text


@pytest.mark.parametrize("style", STYLES)
def test_the_choice_of_a_tool(reads, style):
    both, one = encode_calls(CALLS, style), encode_calls(CALLS[1:], style)
    assert [reads(grammar(TOOLS, "required", style), text) for text in (both, one, "No.")] == [True, True, False]
    assert [reads(grammar(TOOLS, "none", style), text) for text in (both, one, "No.")] == [False, False, True]
    assert [reads(grammar(TOOLS, "now", style), text) for text in (both, one, "No.")] == [False, True, False]
    weather = encode_calls(CALLS[:1], style)
    assert [reads(grammar(TOOLS, "get_weather", style), text) for text in (weather, one)] == [True, False]
    assert [reads(grammar([], "auto", style), text) for text in (one, "No.")] == [False, True]


def test_a_server_allows_any_words_but_the_opening_of_a_call(reads):
    rules = grammar(TOOLS, free_words=True)
    for text in ('```json\n{"name": 1}\n```', "<b>Hi</b>", " Hi", '[{"a": 1}]', encode_calls(CALLS)):
        assert reads(rules, text), text
    for text in ("", "<tool_call>", "Hi <tool_call>\n"):
        assert not reads(rules, text), text


def test_what_cannot_be_asked_for(words):
    with pytest.raises(CallwrightError, match="no tool 'nwo' to call; the tools are get_weather, now"):
        grammar(TOOLS, "nwo")
    with pytest.raises(CallwrightError, match="a call is required, and no tool is listed"):
        grammar([], "required")
    with pytest.raises(ValueError, match="unknown style 'xml'"):
        grammar(TOOLS, style="xml")
    with pytest.raises(CallwrightError, match="llguidance refuses a grammar"):
        Constraint(words, "start: (")


# -- arguments -------------------------------------------------------------------------------------


def test_arguments_come_in_any_order_each_once_and_the_required_ones_all(reads):
    names = ["a", "b", "c", "d"]
    rules = grammar([tool("f", {name: {"type": "integer"} for name in names}, ["c", "a"])], "required")
    for size in range(5):
        for order in itertools.permutations(names, size):
            allowed = {"a", "c"} <= set(order)
            assert reads(rules, encode_calls([call("f", **dict.fromkeys(order, 1))])) == allowed
    body = '<tool_call>\n{"name": "f", "arguments": {%s}}\n</tool_call>'
    assert reads(rules, body % '"a": 1, "c": 2')
    for text in ('"a": 1, "c": 2, "a": 3', '"a": 1, "c": 2, ', '"a": 1, "c": 2, "e": 3', '"a": 1,"c": 2', ""):
        assert not reads(rules, body % text), text


VALUES = [
    0, -7, 2**63 - 1, 1.5, -0.25, 1e-05, 6.674e-11, 0.1 + 0.2, 1.5e-300, "", "a", 'q"\\/\b\n\t\x01',
    "日本 🙂", "</tool", True, False, None, [], [1], [1, 2, 3], ["a", None], [[1.5], []], {}, {"x": 1},
    {"x": {"y": [1]}}, {"x": "s", "y": 2}, "2024-01-01", "red",
]  # fmt: skip
SCHEMAS = [
    {}, True, {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "null"},
    {"type": ["integer", "null"]}, {"type": ["string", "number"], "description": "d"}, {"type": "array"},
    {"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": ["string", "null"]}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1}, {"type": "array", "maxItems": 2},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, {"type": "array", "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "minItems": 2, "maxItems": 2},
    {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, {"type": "object"},
    {"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "object", "additionalProperties": False},
    {"type": "object", "properties": {"x": {"type": "integer"}}},
    {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": False},
    {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x", "y"]},
    {"type": "object", "properties": {"x": True}, "additionalProperties": {"type": "integer"}},
    {"properties": {"x": {"type": "object", "properties": {"y": {"type": "array"}}, "required": ["y"]}}},
    {"enum": ["red", 0, None, [1]]}, {"type": "string", "enum": ["red", 0, "日本 🙂"]}, {"const": "red"},
    {"const": {"x": 1}}, {"anyOf": [{"type": "integer"}, {"type": "string", "enum": ["red"]}]},
    {"oneOf": [{"type": "null"}, {"const": 1.5}]},
    {"type": "string", "minLength": 1}, {"type": "string", "maxLength": 1}, {"type": "string", "pattern": "^[a-z]+$"},
    {"type": "string", "format": "date"}, {"type": "integer", "minimum": 0}, {"type": "integer", "maximum": -1},
    {"allOf": [{"type": "integer"}]}, {"type": "string", "default": "a", "nullable": True, "title": "t"},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("wanted", SCHEMAS, ids=json.dumps)
def test_a_value_is_allowed_exactly_when_its_schema_allows_it(reads, wanted):
    rules = json_grammar(wanted)
    # A schema that lists properties and has no type is taken to mean an object.
    typed = {**wanted, "type": "object"} if wanted is not True and "properties" in wanted else wanted
    validator = Draft202012Validator(typed)
    for value in VALUES:
        assert reads(rules, to_json(value)) == validator.is_valid(value), value


def test_numbers_end_and_strings_end_before_the_call_does(reads):
    rules = grammar([tool("f", {"x": {"type": "number"}, "n": {"type": "integer"}, "s": {"type": "string"}})])
    body = '<tool_call>\n{"name": "f", "arguments": {%s}}\n</tool_call>'
    for text in ('"x": ' + "1" * 20, '"x": 0.' + "1" * 21, '"n": ' + "1" * 20, '"x": 1e1000', '"x": 01', '"x": 1.',
                 '"s": "</tool_call>"', '"s": "a\nb"', r'"s": "\ud83d"', r'"s": "\x"'):  # fmt: skip
        assert not reads(rules, body % text), text
    assert reads(rules, body % '"x": 1234567890123456789.12345678901234567890e-308')


def test_references_and_what_llguidance_refuses(reads, caplog):
    point = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    parameters = {"type": "object", "properties": {"at": {"$ref": "#/$defs/point"}}, "$defs": {"point": point}}
    rules = grammar([{"type": "function", "function": {"name": "go", "parameters": parameters}}])
    assert reads(rules, encode_calls([call("go", at={"x": 1.5})]))
    assert not reads(rules, encode_calls([call("go", at={"x": "1.5"})]))
    caplog.clear()
    odd = tool("odd", {"a": {"type": "array", "uniqueItems": True}, "b": {"type": "integer"}}, ["b"])
    rules = grammar([odd])
    assert "tool odd: no grammar for its arguments, any are allowed there" in caplog.text
    assert reads(rules, encode_calls([call("odd", a=[1, "x"], b=2)]))
    assert not reads(rules, encode_calls([call("odd", a=[1], b="x")]))


def test_a_tool_with_more_parameters_than_a_rule_has_bits(reads):
    names = [f"p{number}" for number in range(70)]
    rules = grammar([tool("wide", {name: {"type": "integer"} for name in names}, names[:2])])
    assert reads(rules, encode_calls([call("wide", **dict.fromkeys(names, 1))]))
    assert not reads(rules, encode_calls([call("wide", p0=1)]))


def test_names_that_need_care(reads):
    odd = tool('say "hi"\\now', {"été": {"type": "string"}, 'a"b': {"type": "integer"}, "x: y": {"enum": ['"', "\\"]}})
    for calls in ([call('say "hi"\\now', **{"été": "è", 'a"b': 1, "x: y": '"'})], [call('say "hi"\\now')]):
        assert reads(grammar([odd]), encode_calls(calls))


# -- one sequence ----------------------------------------------------------------------------------


def bits(words):
    return np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)


def test_the_mask_says_what_is_accepted(tokenizer, words):
    for text in (encode_calls(CALLS), "No. " + encode_calls(CALLS[:1])):
        constraint = Constraint(words, grammar(TOOLS))
        for token in tokenizer.encode(text, add_special_tokens=False):
            allowed = bits(constraint.mask())
            assert allowed[token]
            refused = random.Random(token).choices(np.flatnonzero(~allowed[: words.vocab_size]), k=3)
            assert not any(constraint.accept(int(other)) for other in refused)
            assert constraint.accept(token)
        ends = set(np.flatnonzero(bits(constraint.mask()))) & tokenizer.eos_token_ids
        assert ends == tokenizer.eos_token_ids
        assert not constraint.finished
        assert constraint.accept(min(ends))
        assert constraint.finished


def test_a_walk_that_any_model_might_take_ends_in_calls_that_can_be_read(tokenizer, words):
    """Random tokens of those allowed, but the end as soon as it is: what is said then always reads back."""
    rng = random.Random(5)
    tools = [
        tool("f", {"n": {"type": ["integer", "null"]}, "k": {"enum": ["a", 2]}, "t": {"type": "boolean"}}, ["k"]),
        NOW,
    ]
    for _ in range(15):
        constraint = Constraint(words, grammar(tools, "required"))
        ids = []
        while not constraint.complete:
            assert len(ids) < 400
            ids.append(int(rng.choice(np.flatnonzero(bits(constraint.mask())))))
            assert constraint.accept(ids[-1])
        text = tokenizer.decode(ids)
        parsed = parse_native(text)
        assert not parsed.errors
        assert not parsed.content.strip()
        [made] = parsed.calls
        parameters = {t["function"]["name"]: t["function"]["parameters"] for t in tools}[made["name"]]
        assert schema.validate(made["arguments"], parameters) is None


def test_masked_logits(words):
    logits = mx.random.normal((2, words.vocab_size + 5))
    rows = np.stack([Constraint(words, grammar(TOOLS, mode)).mask() for mode in ("required", "none")])
    found = np.array(masked(logits, rows))
    for row in range(2):
        allowed = bits(rows[row])[: words.vocab_size]
        assert np.array_equal(found[row, : words.vocab_size] > -np.inf, allowed)
        assert np.array_equal(
            found[row][: words.vocab_size][allowed], np.array(logits)[row][: words.vocab_size][allowed]
        )
        assert np.all(found[row, words.vocab_size :] == -np.inf)


def test_markers_that_are_special_tokens_are_named_as_tokens(tokenizer, words):
    assert special_markers(words) == {}
    assert '"<tool_call>"' in grammar(TOOLS, special={"<end_of_turn>": "<[6]>"})
    named = grammar(TOOLS, special={"<tool_call>": "<tool_call>"})
    assert '"<tool_call>"' not in named
    assert "WORDS <tool_call> calls" in named


def test_a_grammar_that_breaks_down_lets_everything_pass_and_says_so(words, caplog):
    constraint = Constraint(words, grammar(TOOLS))
    constraint.matcher.consume_token(int(np.flatnonzero(~bits(constraint.mask())[: words.vocab_size])[0]))
    caplog.clear()
    assert constraint.mask().min() == 0xFFFFFFFF
    assert constraint.problem
    assert constraint.accept(5)
    assert constraint.complete
    assert not constraint.finished
    assert "goes on without its grammar" in caplog.text


# -- right answers ---------------------------------------------------------------------------------


def refused(reads, examples, style="hermes"):
    """The ids of those whose own answer the grammar does not allow."""
    return [e.id for e in examples if not reads(grammar(e.tools, style=style), answer_text(e, style))]


def test_every_answer_of_the_built_in_toolset_is_allowed(reads, root):
    examples = generate(load_toolset(root / "config" / "toolsets" / "everyday.yaml"), 60, 7)
    assert {example.kind for example in examples} == {"one", "several", "none"}
    assert refused(reads, examples) == []


@pytest.mark.parametrize("style", STYLES)
def test_every_answer_of_xlams_sample_is_allowed(reads, xlam_sample, style):
    records = [example for _, example in read_records(str(xlam_sample)) if not isinstance(example, RecordError)]
    assert len(records) > 350
    start = 10 * STYLES.index(style)
    assert refused(reads, records[start : start + 60], style) == []


# Answers of BFCL that break their own tools' schemas, and that a grammar of these can therefore not allow.
BREAK_THEIR_SCHEMA = {
    "live_simple": {"live_simple_71-35-0", "live_simple_106-63-0", "live_simple_112-68-0"},
    "parallel_multiple": {"parallel_multiple_21", "parallel_multiple_26", "parallel_multiple_94"},
    "live_parallel": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("category", BREAK_THEIR_SCHEMA)
def test_every_answer_of_bfcl_that_keeps_to_its_schema_is_allowed(reads, root, category):
    try:
        folder = fetched(root / ".cache" / "bfcl")
    except CallwrightError as error:
        pytest.skip(str(error))
    examples = [e for _, e in bfcl_records(folder / "data", category) if not isinstance(e, RecordError)]
    odd = BREAK_THEIR_SCHEMA[category]
    chosen = [e for e in examples if e.id in odd] + [e for e in examples if e.id not in odd][:40]
    assert set(refused(reads, chosen)) == odd
    for example in chosen:
        assert (parse_lenient(answer_text(example)) == example.calls) is True


def test_a_tool_whose_parameters_are_alternatives_can_be_called_with_each(reads):
    def case(name):
        return {"properties": {name: {"type": "string"}}, "required": [name], "additionalProperties": False}

    either = tool("find", anyOf=[case("city"), case("place")])
    del either["function"]["parameters"]["required"]
    rules = grammar([either])
    for arguments, right in (({"city": "a"}, True), ({"place": "a"}, True), ({"street": "a"}, False), ({}, False)):
        parameters = either["function"]["parameters"]
        assert (schema.validate(arguments, parameters) is None) == right
        assert reads(rules, encode_calls([call("find", **arguments)])) == right
