"""One answer to whether arguments fit: curation, scorer, server and agent say the same of any schema and arguments."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.agent.toolbox import AgentTool, Toolbox
from callwright.chat.formats import encode_calls
from callwright.data import arguments as argument_rules
from callwright.data.arguments import LABELS, UnusableSchema, unlisted, validator, violations
from callwright.data.records import RecordError, check_calls
from callwright.data.schema import problem, validate
from callwright.evals.scoring.failure_labels import schema_error
from callwright.runtime.errors import CallwrightError
from callwright.serve.answer import Assembler

names = st.sampled_from(["a", "b", "x_c"])
values = st.sampled_from([None, True, 0, 2, 3.5, "", "a", [], ["a"], [1, "a"], {}, {"a": 1}, {"b": {"a": "a"}}])
leaves = st.sampled_from(
    [{}, True, False, {"type": "string"}, {"type": "integer"}, {"type": ["number", "null"]}, {"enum": ["a", 2]},
     {"type": "array", "items": {"type": "string"}}, {"type": "array", "prefixItems": [{"type": "integer"}]},
     {"type": "object"}, {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
     {"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"pattern": "("}, {"$ref": "#/$defs/none"},
     {"$ref": "#/$defs/n"}]
)  # fmt: skip
rules = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(names, leaves, max_size=3),
        "required": st.lists(names, max_size=2, unique=True),
        "additionalProperties": leaves,
        "patternProperties": st.dictionaries(st.just("^x_"), leaves, max_size=1),
        "unevaluatedProperties": leaves,
        "minProperties": st.integers(0, 2),
    },
)
some_rules = st.lists(rules, min_size=1, max_size=2)
NESTED = {"n": {"type": "object", "additionalProperties": {"$ref": "#/$defs/n"}}}
schemas = st.builds(
    lambda own, more: {"type": "object", **own, **more, "$defs": NESTED},
    rules,
    st.fixed_dictionaries(
        {}, optional={**dict.fromkeys(("allOf", "anyOf", "oneOf"), some_rules), "then": rules, "if": rules}
    ),
)


def curation(arguments, parameters):
    try:
        check_calls([{"name": "f", "arguments": arguments}], {"f": parameters})
    except RecordError as error:
        return error.rule not in ("schema", "missing_argument")
    return True


def scorer(arguments, parameters):
    try:
        label = schema_error({"name": "f", "arguments": arguments}, parameters)
    except CallwrightError:
        return False
    assert label is None or label in LABELS
    return label is None


def server(arguments, parameters):
    answer = Assembler({"f": parameters})
    answer.feed(encode_calls([{"name": "f", "arguments": arguments}]))
    answer.end("stop", 100)
    assert bool(answer.calls) != bool(answer.problems)
    return bool(answer.calls)


def agent(arguments, parameters):
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": parameters}}
    return Toolbox([AgentTool(tool, str, "")]).problem({"name": "f", "arguments": arguments}) is None


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(schemas, st.dictionaries(names, values, max_size=3))
def test_all_who_ask_get_the_same_answer(parameters, arguments):
    if problem(parameters) is not None:
        return
    answers = {ask.__name__: ask(arguments, parameters) for ask in (curation, scorer, server, agent)}
    assert len(set(answers.values())) == 1, answers


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({"type": "object"}, ["a", "x_b"]),
        ({"type": "object", "properties": None}, ["a", "x_b"]),
        ({"properties": {"a": {}}}, ["x_b"]),
        ({"properties": {"a": {}}, "additionalProperties": {}}, []),
        ({"properties": {"a": {}}, "patternProperties": {"^x_": {}}}, []),
        ({"patternProperties": {"^y_": {}}}, ["a", "x_b"]),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"x_b": {}}}]}, []),
        ({"anyOf": [{"properties": {"a": {}}}, {"properties": {"x_b": {}}}]}, []),
        ({"oneOf": [{"$ref": "#/$defs/n"}], "$defs": {"n": {"properties": {"a": {}}}}}, ["x_b"]),
        ({"unevaluatedProperties": True}, []),
        ({"unevaluatedProperties": False, "properties": {"a": {}}}, ["x_b"]),
    ],
)
def test_names_that_no_rule_admits(parameters, wrong):
    assert unlisted({"a": 1, "x_b": 2}, parameters) == wrong
    assert (validate({"a": 1, "x_b": 2}, parameters) is None) == (not wrong)


def test_what_is_wrong_comes_with_its_label_and_a_sentence():
    parameters = {"properties": {"a": {"type": "integer"}, "b": {"enum": [1]}}, "required": ["c"]}
    found = dict(violations({"a": "1", "b": 2, "d": 3}, parameters))
    assert set(found) == set(LABELS)
    assert found["hallucinated_argument"] == "the argument 'd' is not a parameter"
    assert found["wrong_type"] == "a: '1' is not of type 'integer'"


def test_a_schema_that_cannot_be_applied_is_refused_by_all():
    for broken in ({"$ref": "https://example.org/x.json"}, {"pattern": "("}, {"type": "str"}):
        parameters = {"type": "object", "properties": {"a": broken}}
        with pytest.raises(UnusableSchema):
            list(violations({"a": "1"}, parameters))
        assert "cannot be applied" in validate({"a": "1"}, parameters)
        assert not scorer({"a": "1"}, parameters)


def test_a_schema_with_integers_beyond_64_bits_has_a_validator():
    assert json.loads(json.dumps(validator({"maximum": 2**70}).schema)) == {"maximum": 2**70}
    assert validate({"a": 2**71}, {"type": "object", "properties": {"a": {"maximum": 2**70}}})


def test_a_panic_at_the_limit_of_the_stack_is_an_error_of_the_value(monkeypatch):
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    class Exhausted:
        def __init__(self, text):
            self.text = text

        def iter_errors(self, arguments):
            raise panic(self.text)

    unprintable = "__eq__ failed!: PyErr { value: <unprintable RecursionError object> }"
    monkeypatch.setattr(argument_rules, "validator", lambda parameters: Exhausted(unprintable))
    assert list(violations({}, {})) == [("wrong_value", "the schema cannot be applied (RecursionError)")]
    monkeypatch.setattr(argument_rules, "validator", lambda parameters: Exhausted("another defect"))
    with pytest.raises(panic):
        list(violations({}, {}))


@pytest.mark.slow
def test_a_pattern_that_never_ends_is_given_up():
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a|aa)+$"}}}
    ((label, said),) = violations({"x": "a" * 200 + "b"}, schema)
    assert label == "wrong_value"
    assert "write it without a repetition within a repetition" in said
    assert list(violations({"x": "aaa"}, schema)) == []
    ((label, said),) = violations({"x": "ab"}, schema)
    assert (label, said) == ("wrong_value", "x: 'ab' does not match '^(a|aa)+$'")


@pytest.mark.slow
def test_a_pattern_of_names_that_would_be_tried_for_hours_is_given_up():
    parameters = {"type": "object", "patternProperties": {"(a|aa)+$": {}}}
    with pytest.raises(UnusableSchema, match="without a repetition"):
        unlisted({"a" * 60 + "b": 1}, parameters)
