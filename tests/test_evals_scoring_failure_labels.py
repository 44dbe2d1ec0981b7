"""The labels of failures: each fault of a call against its schema, and what text counts as trying to call."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwright.chat.attempts import attempts_call
from callwright.data.arguments import unlisted
from callwright.evals.scoring.failure_labels import (
    LABELS,
    is_prose,
    name_error,
    schema_error,
    value_error,
)
from callwright.runtime.errors import CallwrightError


def call(tool_name, **arguments):
    return {"name": tool_name, "arguments": arguments}


def tool(name, parameters):
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


BOOKING = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "pattern": "^[A-Z]"},
        "nights": {"type": "integer", "minimum": 1, "maximum": 30},
        "price": {"type": "number", "multipleOf": 0.5},
        "board": {"type": "string", "enum": ["none", "full"]},
        "kind": {"const": "hotel"},
        "pets": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
        "guests": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        "place": {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
            "required": ["lat", "lon"],
            "additionalProperties": False,
        },
        "when": {"anyOf": [{"type": "string", "pattern": "^20"}, {"type": "integer"}]},
        "stars": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "room": {"$ref": "#/$defs/room"},
        "extra": {"not": {"type": "null"}},
    },
    "required": ["city"],
    "$defs": {"room": {"type": "object", "properties": {"beds": {"type": "integer"}}, "required": ["beds"]}},
}
ROME = {"city": "Rome"}


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        (ROME, None),
        ({**ROME, "nights": 3, "price": 80.5, "board": "full", "pets": False, "kind": "hotel"}, None),
        ({**ROME, "note": None, "guests": ["A", "B"], "place": {"lat": 1, "lon": 2.5}, "when": 7}, None),
        ({**ROME, "nights": 3.0}, None),  # JSON Schema: an integer is a number without a fraction
        # Arguments that are not there, or should not be.
        ({}, "missing_argument"),
        ({"nights": 3}, "missing_argument"),
        ({**ROME, "planet": "Mars"}, "hallucinated_argument"),
        ({**ROME, "City": "Rome"}, "hallucinated_argument"),
        ({**ROME, "place": {"lat": 1}}, "missing_argument"),
        ({**ROME, "place": {"lat": 1, "lon": 2, "alt": 3}}, "hallucinated_argument"),
        ({**ROME, "room": {}}, "missing_argument"),
        # Types.
        ({"city": 7}, "wrong_type"),
        ({"city": None}, "wrong_type"),
        ({"city": ["Rome"]}, "wrong_type"),
        ({**ROME, "nights": "3"}, "wrong_type"),
        ({**ROME, "nights": 2.5}, "wrong_type"),
        ({**ROME, "nights": True}, "wrong_type"),
        ({**ROME, "price": "80"}, "wrong_type"),
        ({**ROME, "pets": 1}, "wrong_type"),
        ({**ROME, "note": 3}, "wrong_type"),
        ({**ROME, "guests": "A"}, "wrong_type"),
        ({**ROME, "guests": ["A", 2]}, "wrong_type"),
        ({**ROME, "place": {"lat": "1", "lon": 2}}, "wrong_type"),
        ({**ROME, "when": [1]}, "wrong_type"),
        ({**ROME, "room": {"beds": "two"}}, "wrong_type"),
        # Values.
        ({"city": "R"}, "wrong_value"),
        ({"city": "rome"}, "wrong_value"),
        ({**ROME, "nights": 0}, "wrong_value"),
        ({**ROME, "nights": 31}, "wrong_value"),
        ({**ROME, "nights": 10**400}, "wrong_value"),
        ({**ROME, "price": 0.3}, "wrong_value"),
        ({**ROME, "price": 10**400}, "wrong_value"),  # beyond float64, which `multipleOf: 0.5` divides in
        ({**ROME, "board": "half"}, "wrong_value"),
        ({**ROME, "kind": "hostel"}, "wrong_value"),
        ({**ROME, "guests": []}, "wrong_value"),
        ({**ROME, "guests": ["A", "A"]}, "wrong_value"),
        ({**ROME, "when": "1999"}, "wrong_value"),  # of the right type for one alternative
        ({**ROME, "stars": 4}, "wrong_value"),  # fits both, and oneOf wants one
        ({**ROME, "extra": None}, "wrong_value"),
        # The gravest of several.
        ({"city": 7, "planet": "Mars"}, "hallucinated_argument"),
        ({"planet": "Mars"}, "hallucinated_argument"),
        ({"nights": "3"}, "missing_argument"),
        ({"city": 7, "nights": 99}, "wrong_type"),
    ],
)
def test_each_fault_against_the_schema_has_its_label(arguments, label):
    assert schema_error(call("book", **arguments), BOOKING) == label


def test_unknown_arguments_are_those_that_no_rule_admits():
    given = {"a": 1, "x_b": 2}
    for schema, unknown in (
        ({}, ["a", "x_b"]),
        ({"properties": None}, ["a", "x_b"]),
        ({"properties": {"a": {}}}, ["x_b"]),
        ({"properties": {"a": {}}, "additionalProperties": False}, ["x_b"]),
        ({"properties": {"a": {}}, "additionalProperties": True}, []),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}, []),
        ({"properties": {"a": {}}, "patternProperties": {"^x_": {}}}, []),
    ):
        assert unlisted(given, schema) == unknown


def test_a_schema_that_cannot_be_used_is_named_with_its_tool():
    for parameters in (
        {"properties": {"x": {"$ref": "https://example.org/schema.json"}}},
        {"properties": {"x": {"$ref": "#/$defs/none"}}},
        {"properties": {"x": {"type": "str"}}},
        {"properties": {"x": {"pattern": "("}}},
    ):
        with pytest.raises(CallwrightError, match="'lookup'.*not a usable JSON Schema"):
            schema_error(call("lookup", x="1"), parameters)


def test_a_schema_without_end_is_an_error_of_the_value():
    endless = {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert schema_error(call("f", x=1), endless) == "wrong_value"


@pytest.mark.parametrize(
    ("expected", "got", "label"),
    [
        (["a"], ["b"], "missing_call"),
        (["a", "b"], ["a"], "missing_call"),
        (["a", "a"], ["a", "b"], "missing_call"),
        (["a"], ["a", "b"], "extra_call"),
        (["a"], ["a", "a"], "extra_call"),
        (["a", "b"], ["b", "c", "c", "b"], "missing_call"),
    ],
)
def test_a_missing_call_is_graver_than_an_extra_one(expected, got, label):
    assert name_error([call(name) for name in expected], [call(name) for name in got]) == label


TOOLS = [
    tool("book", {"properties": {"city": {"type": "string"}, "nights": {"type": "integer", "default": 1}}}),
    tool("clock", {"properties": {}}),
]


@pytest.mark.parametrize(
    ("expected", "got", "label"),
    [
        ([call("book", city="Rome")], [call("book", city="Oslo")], "wrong_value"),
        ([call("book", city="Rome")], [call("book", city=3)], "wrong_type"),
        ([call("book", city="Rome")], [call("book")], "missing_argument"),
        ([call("book", city="Rome")], [call("book", city="Rome", nights=2)], "wrong_value"),
        # The calls that do match are set aside first, in whatever order they came.
        (
            [call("book", city="Rome"), call("clock"), call("book", city="Oslo")],
            [call("book", city=3), call("book", city="Rome"), call("clock")],
            "wrong_type",
        ),
        # Greedy pairing would set the wrong one aside.
        (
            [call("book", city="Rome", nights=1), call("book", city="Rome"), call("book", city="Oslo")],
            [call("book", city="rome"), call("book", city="Rome", nights=1), call("book", nights=1)],
            "missing_argument",
        ),
    ],
)
def test_wrong_arguments_are_labelled_by_the_first_call_without_a_partner(expected, got, label):
    assert value_error(expected, got, TOOLS) == label
    assert label in LABELS


def test_calls_that_match_have_no_error():
    with pytest.raises(ValueError, match="calls match"):
        value_error([call("clock")], [call("clock")], TOOLS)


@pytest.mark.parametrize(
    ("text", "attempt"),
    [
        ("", False),
        ("No tool fits.", False),
        ("I could book a room in Rome (if you tell me when).", False),
        ("The clock (on the wall) has stopped.", False),
        ("Use book(…) or clock() for that.", False),
        ("notebook('x') is another word", False),
        ("The name: Rome. The arguments: none.", False),
        ("Rome [1] and Oslo {2}", False),
        ('She said "name" twice.', False),
        ("```python\nprint({'a': 1})\n```", False),
        ('The result is {"kelvin": 280}.', False),  # JSON, but no tool's arguments
        ("{}", False),
        # Markup, whole or broken.
        ("<tool_call>", True),
        ("</tool_call>", True),
        ("I write <tool_call", True),
        ("<function=book>", True),
        ("```tool_code\nprint(1)\n```", True),
        # The keys of a call.
        ('{"name": "book"}', True),
        ('"arguments" :\n{', True),
        ('"parameters":', True),
        ('{"function": {}}', True),
        ("{'name': 'book', 'arguments': {}}", True),
        # A call as programs write it.
        ("book(city='Rome')", True),
        ("Let me try: book( city = Rome )", True),
        ('book("Rome")', True),
        ("book({'city': 'Rome'})", True),
        ("book(['Rome'])", True),
        # A tool's name and no word beside it.
        ("clock", True),
        ("`clock`", True),
        (" clock()\n", True),
        ("clock it", False),
        ("book city=Rome nights=2", True),
        ("To book city=Rome is needed", False),
        ("clocks", False),
        # Arguments that a tool has.
        ('Here: {"city": "Rome"}', True),
        ('book: {"city": "Rome", "nights": 2}.', True),
        ('{"city": "Rome", "planet": "Mars"}', False),
        ('{"city": "Rome"', False),
    ],
)
def test_what_counts_as_trying_to_call(text, attempt):
    assert attempts_call(text, TOOLS) == attempt


def test_names_of_tools_are_taken_literally():
    odd = [tool("a.b", {}), tool("c+", {}), tool("(", {})]
    assert attempts_call("a.b(x=1)", odd)
    assert attempts_call("c+(x=1)", odd)
    assert not attempts_call("axb(x=1)", odd)
    assert not attempts_call("f(x=1)", [])


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("No tool fits.", True),
        ("ok", True),
        ("我没有合适的工具。", True),
        ("Нет.", True),
        ("  \n I cannot do that. ", True),
        ("The answer is [1] or {2}.", True),
        ("See `x`: ```code```", True),
        ("", False),
        (" \n\t", False),
        ("...", False),
        ("42", False),
        ("x", False),
        ("_ _", False),
        ("?!", False),
        ("null", False),
        ("true", False),
        ("NaN", False),
        ('"only a JSON string"', False),
        ("[]", False),
        ("{}", False),
        ('{"a": "some words"}', False),
        ("[some words", False),
        ("{some words}", False),
        ("```\nsome words\n```", False),
    ],
)
def test_what_counts_as_prose(text, prose):
    assert is_prose(text) == prose


@pytest.mark.slow
@given(st.text())
def test_no_text_makes_them_raise(text):
    attempts_call(text, TOOLS)
    is_prose(text)
    schema_error(call("book", city=text, planet=text), BOOKING)


@pytest.mark.parametrize(
    "text",
    ["book(" * 20_000, "book(" + "a" * 100_000, "book(" + " " * 100_000, '"name"' + " " * 100_000, "(" * 100_000]
    + ["{}" * 50_000, '{"a":1}' * 14_000, "a" + "." * 100_000, "." * 100_000 + "clock", "clock" * 20_000],
)
def test_100_kb_are_judged_in_no_time(text):
    start = time.process_time()
    attempts_call(text, TOOLS)
    is_prose(text)
    assert time.process_time() - start < 0.5
