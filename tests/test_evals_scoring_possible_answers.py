"""Arguments against lists of right values: each of BFCL's rules by hand."""

import pytest

from callwright.data.records import Example, RecordError
from callwright.evals.scoring.match import match_calls
from callwright.evals.scoring.possible_answers import compare, difference
from callwright.evals.scoring.score import score_item

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
NUMBERS, STRINGS = {"type": "array", "items": NUMBER}, {"type": "array", "items": STRING}
OBJECT, OBJECTS = {"type": "object"}, {"type": "array", "items": {"type": "object"}}


@pytest.mark.parametrize(
    ("value", "choices", "schema", "label"),
    [
        ("new york, ny", ["NYC", "New York NY"], STRING, None),
        ("Rome", ["NYC", "New York"], STRING, "wrong_value"),
        ("", ["x", ""], STRING, None),  # given as empty, it counts as left out
        (5, ["5"], STRING, "wrong_type"),
        ("5", [5], STRING, "wrong_value"),  # the right values are not of the schema's type: equal to the letter
        (5, [5], STRING, None),
        (5, [4, 5], INTEGER, None),
        (5.0, [5], INTEGER, "wrong_type"),
        (True, [1], INTEGER, "wrong_type"),
        (5, [5.0], NUMBER, None),
        (5.5, [5.0], NUMBER, "wrong_value"),
        ("5", [5.0], NUMBER, "wrong_type"),
        (True, [True], {"type": "boolean"}, None),
        ("true", [True], {"type": "boolean"}, "wrong_type"),
        (["A b"], [["x"], ["ab"]], STRINGS, None),
        (["a", "b"], [["b", "a"]], STRINGS, "wrong_value"),
        ([], [["a"], ""], STRINGS, None),
        ([], [["a"]], STRINGS, "wrong_value"),
        ([1, 2.5], [[1.0, 2.5]], NUMBERS, "wrong_type"),  # integers stand for floats at the top only
        ([1, 2], [[1, 2]], NUMBERS, None),
        ("data['x']", ["data['x']"], NUMBERS, None),
        ("data[x]", ["data['x']"], NUMBERS, "wrong_value"),
        ({"a": "X.", "b": 1}, [{"a": ["x"], "b": [1, 2]}], OBJECT, None),
        ({"a": "x"}, [{"a": ["x"], "b": [1, ""]}], OBJECT, None),
        ({"a": "x"}, [{"a": ["x"], "b": [1]}], OBJECT, "wrong_value"),
        ({"a": "x", "c": 1}, [{"a": ["x"]}], OBJECT, "wrong_value"),
        ({"a": "y"}, [{"a": ["x"]}, {"a": ["y"]}], OBJECT, None),
        ({}, [""], OBJECT, "wrong_value"),  # unlike an empty list, it does not count as left out
        ([{"a": 1}, {"a": 2}], [[{"a": [1]}, {"a": [2]}]], OBJECTS, None),
        ([{"a": 2}, {"a": 1}], [[{"a": [1]}, {"a": [2]}]], OBJECTS, "wrong_value"),
        ([{"a": 1}], [[{"a": [1]}, {"a": [2]}]], OBJECTS, "wrong_value"),
        (["a"], [[{"a": [1]}], ""], OBJECTS, "wrong_value"),
        (1.5, [1.5], {}, None),  # `any`: of the right values' type
        ("Text", ["text"], {}, None),
        ([1], [1.5], {}, "wrong_type"),
        (None, ["x"], STRING, "wrong_type"),
        (10**400, [1.0], NUMBER, "wrong_value"),
    ],
)  # fmt: skip
def test_values(value, choices, schema, label):
    assert compare(value, choices, schema) == label


def test_deep_nesting_is_a_wrong_value_and_no_crash():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    other = []
    for _ in range(100_000):
        other = [other]
    assert compare([deep], [[other]], {"type": "array"}) == "wrong_value"


def test_arguments():
    schema = {"properties": {"city": STRING, "days": INTEGER, "unit": STRING}, "required": ["city"]}
    possible = {"city": ["Rome"], "days": [1, ""], "unit": ["C"]}
    assert difference(possible, {"city": "rome", "unit": "c"}, schema) is None
    assert difference(possible, {"city": "rome", "unit": "c", "days": 1}, schema) is None
    assert difference(possible, {"city": "rome", "unit": "c", "days": 2}, schema) == "wrong_value"
    assert difference(possible, {"city": "rome"}, schema) == "missing_argument"
    assert difference(possible, {"unit": "C"}, schema) == "missing_argument"
    assert difference(possible, {"city": "rome", "unit": 1}, schema) == "wrong_type"
    assert difference(possible, {"city": "rome", "unit": "C", "alerts": True}, schema) == "wrong_value"
    assert difference({**possible, "alerts": [True]}, {"city": "rome", "unit": "C", "alerts": True}, schema) is not None


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"city": STRING, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["city"],
        },
    },
}


def example(*possible, **changes):
    calls = [
        {"name": "weather", "arguments": {name: values[0] for name, values in of.items() if values[0] != ""}}
        for of in possible
    ]
    row = {"id": "i", "messages": [{"role": "user", "content": "Weather?"}], "tools": [TOOL], "calls": calls}
    return Example.from_row({**row, "source": "bfcl", "possible": list(possible), **changes})


def call(**arguments):
    return {"name": "weather", "arguments": arguments}


def test_a_pairing_is_found_that_greed_misses():
    item = example({"city": ["Rome", "Oslo"]}, {"city": ["Rome"]})
    for answer in ([call(city="Rome"), call(city="Oslo")], [call(city="Oslo"), call(city="Rome")]):
        assert match_calls(item.calls, answer, item.tools, item.possible)
    assert not match_calls(item.calls, [call(city="Oslo")] * 2, item.tools, item.possible)
    assert not match_calls(item.calls, [call(city="Rome")], item.tools, item.possible)


def test_a_right_value_that_the_schema_forbids_passes_the_funnel_and_a_wrong_one_does_not():
    item = example({"city": ["Rome"], "unit": ["kelvin", ""]})

    def scored(**arguments):
        text = f'<tool_call>\n{{"name": "weather", "arguments": {arguments}}}\n</tool_call>'.replace("'", '"')
        row = {"id": "i", "suite": "", "condition": "", "finish_reason": "stop", "text": text}
        return score_item(item, row)

    assert scored(city="Rome", unit="kelvin")["exact"]
    assert scored(city="Rome")["ast"]
    assert not scored(city="Rome")["exact"]
    assert (scored(city="Rome", unit="K")["stage"], scored(city="Rome", unit="K")["error"]) == (
        "known_tools",
        "wrong_value",
    )
    assert (scored(city="Rome", unit="C")["stage"], scored(city="Rome", unit="C")["error"]) == ("names", "wrong_value")
    assert scored(city="Oslo", unit="kelvin")["error"] == "wrong_value"


def test_records_with_possible_values_are_checked_for_their_form():
    item = example({"city": ["Rome"]})
    assert Example.from_row(item.to_row()) == item
    for possible in ([], [{"city": "Rome"}], ["city"]):
        with pytest.raises(RecordError, match="possible"):
            example({"city": ["Rome"]}, possible=possible)
