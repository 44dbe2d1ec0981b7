"""What is an Example, and by which rule something else is refused."""

import pytest
from fixtures_records import ROW, TOOL, changed, deep, json_values, paths
from hypothesis import given, settings

from callwright.data.records import Example, RecordError, normalize, skeleton


def test_a_row_survives_the_round_trip():
    assert Example.from_row(ROW).to_row() == ROW
    abstaining = {**ROW, "calls": [], "answer": "No tool fits.", "tags": ["calls:0", "abstain:no_tool"]}
    assert Example.from_row(abstaining).to_row() == abstaining


def test_derived_fields():
    example = Example.from_row(ROW)
    assert (example.query, example.tool_names, example.kind) == ("Weather in Rome?", ["get_weather"], "one")
    parts = changed(
        ["messages", 0, "content"], [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in Rome?"}]
    )
    assert Example.from_row(parts).query == "Weather in Rome?"


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        ("missing_field", ["messages"], ...),
        ("missing_field", ["calls"], None),
        ("missing_field", ["id"], ...),
        ("wrong_type", ["id"], 7),
        ("wrong_type", ["tools"], "[]"),
        ("wrong_type", ["tags"], [1]),
        ("wrong_type", ["messages", 0], "hello"),
        ("wrong_type", ["messages", 0, "role"], "boss"),
        ("wrong_type", ["messages", 0, "content"], 5),
        ("wrong_type", ["messages", 0, "content"], [{"type": "text", "text": 5}]),
        ("empty_query", ["messages"], []),
        ("empty_query", ["messages", 0, "content"], " \n"),
        ("empty_query", ["messages", 0, "content"], None),
        ("empty_query", ["messages", 0, "role"], "assistant"),
        ("no_tools", ["tools"], []),
        ("bad_tool", ["tools", 0], "get_weather"),
        ("bad_tool", ["tools", 0, "function", "name"], ""),
        ("bad_tool", ["tools", 0, "function", "description"], 1),
        ("bad_tool", ["tools", 0, "function", "parameters"], {"type": "array"}),
        ("bad_tool", ["tools", 0, "function", "parameters", "properties", "city"], {"type": "town"}),
        ("duplicate_tool", ["tools"], [TOOL, TOOL]),
        ("unknown_tool", ["calls", 0, "name"], "get_wether"),
        ("wrong_type", ["calls", 0], "get_weather"),
        ("wrong_type", ["calls", 0, "name"], ["get_weather"]),
        ("wrong_type", ["calls", 0, "arguments"], "{}"),
        ("missing_argument", ["calls", 0, "arguments"], {}),
        ("schema", ["calls", 0, "arguments", "city"], 5),
        ("schema", ["calls", 0, "arguments", "town"], "Rome"),
        ("not_finite", ["calls", 0, "arguments", "city"], float("nan")),
        ("not_finite", ["calls", 0, "arguments", "city"], float("inf")),
        ("too_large", ["messages", 0, "content"], "x" * 10_000_000),
        ("too_deep", ["calls", 0, "arguments", "city"], deep(1000)),
        ("invalid_utf8", ["messages", 0, "content"], "half \ud800"),
        ("wrong_type", ["calls", 0, "arguments", "city"], 2**70),
        ("wrong_type", ["calls", 0, "arguments", "city"], {1: 2}),
        ("wrong_type", ["calls", 0, "arguments", "city"], b"Rome"),
    ],
)
def test_each_fault_has_its_rule(rule, path, value):
    with pytest.raises(RecordError) as caught:
        Example.from_row(changed(path, value))
    assert caught.value.rule == rule
    assert 0 < len(caught.value.reason) < 400


@pytest.mark.parametrize("row", [None, 1, "text", [], [ROW]])
def test_a_record_must_be_an_object(row):
    with pytest.raises(RecordError, match="expected an object"):
        Example.from_row(row)


@settings(max_examples=300, deadline=None)
@given(paths, json_values)
def test_no_value_anywhere_crashes_the_check(path, value):
    outcome = read_row(changed(path, value))
    if isinstance(outcome, RecordError):
        assert outcome.rule
        assert outcome.reason
    else:
        assert Example.from_row(outcome.to_row()) == outcome


def read_row(row):
    try:
        return Example.from_row(row)
    except RecordError as error:
        return error


def test_requests_are_compared_by_their_words():
    assert normalize("What's the  weather in Rome?") == normalize("what s the weather, in ROME")
    assert normalize("Rome") != normalize("Romes")
    assert normalize("🙂") != normalize("🙃")
    assert skeleton("Add 3 'apples' to my cart") == skeleton('add 12 "ripe pears" to my cart.')
    assert skeleton("Add 3 apples") != skeleton("Add 3 pears")


def test_apostrophes_are_no_quotation_marks():
    assert skeleton("What's my BMI? I'm 183 cm tall.") == "what s my bmi i m 0 cm tall"
    assert skeleton("Say 'it's late' in Luigi's kitchen, 'now'") == "say q in luigi s kitchen q"
    assert skeleton("What's hot in Rome? It's cold here.") != skeleton("What's up? It's cold here.")
