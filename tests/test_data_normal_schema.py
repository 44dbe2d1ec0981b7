"""The normal form of a schema accepts what the schema accepts, whatever its draft; what has one meaning is read."""

import json

import jsonschema
import pytest
import referencing
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from callwright.data.arguments import too_deep
from callwright.data.formats.xlam import tool_definition
from callwright.data.normal_schema import SchemaError, is_schema, normal_parameters, normal_schema
from callwright.data.records import RecordError
from callwright.data.schema import problem

VALIDATORS = {
    "http://json-schema.org/draft-03/schema#": jsonschema.Draft3Validator,
    "http://json-schema.org/draft-04/schema#": jsonschema.Draft4Validator,
    "http://json-schema.org/draft-06/schema#": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
}
KEYS = ("a", "b", "c")
# A failing schema is large, and making it smaller takes minutes.
NO_LONG_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
# No whole floats: until draft 6 these are no integers.
scalars = st.sampled_from([None, True, False, 0, 1, 2, 7, 0.5, 2.5, "", "a", "bb", "1"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])


def schemas(draft):
    """Schemas of one draft, with references into `definitions` (or `$defs`), also in a circle."""
    number = draft.rpartition("draft-0")[2][:1]
    old = int(number) if number.isdigit() else 2019 if "2019" in draft else 2020
    home = "definitions" if old < 2019 else "$defs"
    reference = st.sampled_from([f"#/{home}/x", f"#/{home}/y", "#"])

    def keywords(inner):
        lists = st.lists(inner, min_size=1, max_size=2)
        named = st.dictionaries(st.sampled_from(KEYS), inner, max_size=2)
        found = {
            "type": kinds | st.lists(kinds, min_size=1, max_size=2, unique=True),
            "enum": st.lists(scalars, min_size=1, max_size=3),
            "minimum": st.integers(0, 2),
            "maximum": st.integers(0, 7),
            "minLength": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
            "pattern": st.sampled_from(["^a", "b$", "."]),
            "properties": named,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=1),
            "additionalProperties": st.booleans() | inner,
            "description": st.just("words"),
            "items": inner,
        }
        if old >= 4:
            found |= {
                "required": st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True),
                "allOf": lists,
                "anyOf": lists,
                "oneOf": lists,
                "not": inner,
                "minProperties": st.integers(0, 2),
                "multipleOf": st.sampled_from([2, 0.5]),
            }
        else:
            found |= {
                "divisibleBy": st.sampled_from([2, 0.5]),
                "disallow": kinds,
                "extends": inner | lists,
                "type": kinds | st.just("any") | st.lists(kinds | inner, min_size=1, max_size=2),
            }
        if old <= 4:
            found |= {"exclusiveMinimum": st.booleans(), "exclusiveMaximum": st.booleans()}
        else:
            found |= {
                "exclusiveMinimum": st.integers(0, 2),
                "const": scalars.filter(lambda value: value is not None),  # null beside a type: see below
                "contains": inner,
                "propertyNames": inner,
            }
        if old < 2019:
            needs = (
                st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True)
                if old > 3
                else st.sampled_from(KEYS)
            )
            found |= {
                "dependencies": st.dictionaries(st.sampled_from(KEYS), needs | inner, max_size=2),
            }
        if old < 2020:
            found |= {"items": inner | lists, "additionalItems": st.booleans() | inner}
        else:
            found |= {"prefixItems": lists}
        if old >= 7:
            found |= {"if": inner, "then": inner, "else": inner}
        if old >= 2019:
            found |= {
                "dependentRequired": st.dictionaries(st.sampled_from(KEYS), st.just(["a"]), max_size=1),
                "dependentSchemas": st.dictionaries(st.sampled_from(KEYS), inner, max_size=1),
                "unevaluatedProperties": st.booleans() | inner,
                "minContains": st.integers(0, 2),
            }
        chosen = st.lists(st.sampled_from(sorted(found)), max_size=4, unique=True)
        plain = chosen.flatmap(lambda names: st.fixed_dictionaries({name: found[name] for name in names}))
        referring = plain.flatmap(lambda schema: reference.map(lambda to: {"$ref": to, **schema}))
        return plain | plain | referring

    leaves = kinds.map(lambda kind: {"type": kind}) | st.just({}) | (st.booleans() if old >= 6 else st.nothing())
    inner = st.recursive(leaves, keywords, max_leaves=6)
    whole = st.fixed_dictionaries({"root": keywords(inner), "x": inner, "y": inner})
    return whole.map(lambda found: {**found["root"], "$schema": draft, home: {"x": found["x"], "y": found["y"]}})


def accepts(validator, schema, value):
    """Whether a validator accepts; None where the schema refers to itself without end."""
    try:
        return validator(schema, registry=referencing.Registry()).is_valid(value)
    except TypeError:  # jsonschema 4 counts `items`, which may be false, where `additionalItems` stands beside it
        return None
    except BaseException as error:
        if not too_deep(error):
            raise
        return None


@pytest.mark.parametrize("draft", VALIDATORS, ids=lambda draft: draft.split("/")[-2].removeprefix("draft-"))
def test_the_normal_form_accepts_and_refuses_the_same_values(draft):
    seen = {True: 0, False: 0}

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_LONG_SHRINKING)
    @given(schemas(draft), st.lists(values, min_size=4, max_size=8))
    def check(schema, some):
        try:
            VALIDATORS[draft].check_schema(schema)
        except jsonschema.SchemaError:  # one keyword that this draft allows beside another one only
            reject()
        try:
            found = normal_schema(schema)
        except SchemaError as error:
            if "refers to itself" not in str(error):
                raise
            return
        assert problem(found) is None if isinstance(found, dict) else isinstance(found, bool)
        assert json.dumps(found).count("$ref") == json.dumps(found).count('"$ref": "#/$defs/')
        for value in some:
            wanted = accepts(VALIDATORS[draft], schema, value)
            read = accepts(jsonschema.Draft202012Validator, found, value)
            if wanted is not None and read is not None:
                assert read == wanted
                seen[wanted] += 1
        if isinstance(found, bool) or "$defs" not in found:  # names for the same circle may differ
            assert normal_schema(found) == found

    check()
    assert min(seen.values()) > 10  # both occur; how often is chance


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (CITY, CITY),
        ({"properties": {"city": {"type": "string"}}, "required": ["city"]}, CITY),
        ({"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}, CITY),
        ({"type": "dict", "properties": {"city": {"type": "str"}}, "required": ["city"]}, CITY),
        ({"type": ["object"], "properties": {"city": "string"}, "required": ["city"]}, CITY),
        ({"type": "object", "properties": {"city": {"type": "string", "required": True}}}, CITY),
        ({"type": "object", "properties": [{"name": "city", "type": "string", "required": True}]}, CITY),
        ({**CITY, "$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.org/x"}, CITY),
        ({"$ref": "#/definitions/City", "definitions": {"City": CITY}}, CITY),
        ({"allOf": [{"$ref": "#/$defs/City"}], "$defs": {"City": CITY}}, CITY),
        ({"allOf": [CITY, {"properties": {"city": {"type": "string"}}}]}, CITY),
        ({"type": "object", "properties": {"city": {"$ref": "#/$defs/C"}}, "required": ["city"],
          "$defs": {"C": {"$ref": "#/$defs/D"}, "D": {"type": "string"}}}, CITY),
        (None, {"type": "object", "properties": {}}),
        ([], {"type": "object", "properties": {}}),
        ({"type": "object", "properties": [], "required": {}}, {"type": "object", "properties": {}}),
        ({"type": "object", "properties": None, "required": None, "items": None}, {"type": "object", "properties": {}}),
    ],
)  # fmt: skip
def test_what_stands_for_a_tools_parameters(schema, expected):
    assert normal_parameters(schema) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "STRING", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"nullable": True, "allOf": [{"type": "string"}], "description": "d"},
         {"type": ["string", "null"], "description": "d"}),
        ({"nullable": True, "oneOf": [{"type": "string"}, {"minimum": 3}], "description": "d"},
         {"anyOf": [{"oneOf": [{"type": "string"}, {"minimum": 3}]}, {"type": "null"}], "description": "d"}),
        ({"type": "integer", "nullable": False, "format": "int64"}, {"type": "integer", "format": "int64"}),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, {"type": "number", "exclusiveMinimum": 0}),
        ({"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2"},
         {"type": "array", "items": {"type": "integer"}, "minItems": 2}),
        ({"type": "TYPE_UNSPECIFIED", "enum": []}, {}),
        ({"type": "string", "const": None, "enum": None, "default": None}, {"type": "string", "default": None}),
        ({"const": None}, {"const": None}),
        ({"type": "List[int]"}, {"type": "array", "items": {"type": "integer"}}),
        ({"type": "array", "items": []}, {"type": "array"}),
        ({"type": "object", "additionalProperties": []}, {"type": "object", "additionalProperties": {}}),
        ({"type": "string", "pattern": "(?<year>[0-9]{4})"}, {"type": "string", "pattern": "(?P<year>[0-9]{4})"}),
        ({"type": "string", "pattern": r"\p{L}+"}, {"type": "string"}),
    ],
)  # fmt: skip
def test_words_of_other_languages(schema, expected):
    assert normal_schema(schema) == expected


def test_a_merged_schema_is_described_by_the_outer_words_and_keeps_what_cannot_be_merged():
    base = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "description": "base"}
    own = {"properties": {"a": {"maximum": 5}, "b": {}}, "required": ["b"]}
    assert normal_schema({"allOf": [base, own], "description": "own"}) == {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 5}, "b": {}},
        "description": "own",
        "required": ["b"],
    }
    closed = {"allOf": [{**base, "additionalProperties": False}, own]}
    assert normal_schema(closed)["allOf"][1]["required"] == ["b"]


def test_what_contains_itself_keeps_references_to_the_whole():
    tree = {"type": "object", "properties": {"left": {"$ref": "#/components/schemas/Tree"}, "n": {"type": "integer"}}}
    whole = {"type": "object", "properties": {"tree": {"$ref": "#/components/schemas/Tree"}},
             "components": {"schemas": {"Tree": tree}}}  # fmt: skip
    found = normal_parameters(whole)
    assert found["properties"] == {"tree": {"$ref": "#/$defs/Tree"}}
    assert found["$defs"]["Tree"]["properties"]["left"] == {"$ref": "#/$defs/Tree"}
    check = jsonschema.Draft202012Validator(found)
    assert check.is_valid({"tree": {"left": {"left": {"n": 1}}}})
    assert not check.is_valid({"tree": {"left": {"left": {"n": "1"}}}})


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"a": {"type": "strange thing"}}}, "properties.a.type"),
        ({"properties": {"a": {"items": {"properties": 5}}}}, "properties.a.items.properties"),
        ({"properties": {"a": {"anyOf": [{"type": 5}]}}}, "properties.a.anyOf.0.type"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "properties.a"),
        ({"properties": {"a": {"$ref": "https://example.org/x.json"}}}, "properties.a"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"$ref": "#/$defs/b"}}}, "properties.a"),
        ({"required": 7}, "required"),
        ({"type": "string"}, "type"),
    ],
)
def test_what_has_no_normal_form_is_named_with_its_place(schema, place):
    with pytest.raises(SchemaError) as caught:
        normal_parameters(schema)
    assert str(caught.value).startswith(f"{place}: ")
    with pytest.raises(RecordError, match=rf"the parameters of 'f': {place}: "):
        tool_definition({"name": "f", "parameters": {"type": "object", **schema}})


def test_references_that_double_at_every_step_are_refused():
    laughs = {f"l{n}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/l{n - 1}"}] * 8} for n in range(1, 12)}
    with pytest.raises(SchemaError, match="more than 20000 parts"):
        normal_parameters({"properties": {"a": {"$ref": "#/$defs/l11"}}, "$defs": {"l0": {}, **laughs}})


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ({"type": {"type": "str", "description": "which"}}, False),
        ({"properties": {"type": "str"}, "query": {"type": "str"}}, False),
        ({"properties": {"type": {"type": "string"}}}, True),
        ({"city": {"type": "str"}}, False),
        ({"type": "object"}, True),
        ({"type": "OBJECT", "properties": []}, True),
        ({"$ref": "#/$defs/a", "$defs": {}}, True),
        ({"anyOf": [{}]}, True),
        ({}, True),
    ],
)
def test_a_schema_is_told_from_a_map_of_parameters(parameters, answer):
    assert is_schema(parameters) == answer


json_like = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "properties", "items", "required", "$ref", "allOf", "anyOf", "enum", "const", "nullable",
             "pattern", "dependencies", "additionalProperties", "patternProperties", "$id", "extends", "disallow",
             "minItems", "a", "$schema", "$defs", "prefixItems", "exclusiveMinimum", "minimum", "if", "default"]
        ),
        inner | st.sampled_from(["object", "#", "#/$defs/a", "#/properties/a"]),
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(json_like)
def test_any_value_has_a_normal_form_or_one_clear_error(value):
    try:
        found = normal_parameters(value)
    except SchemaError:
        return
    assert found["type"] == "object"
    json.dumps(found)
