"""Python-like types become JSON Schema, and arguments are checked against it."""

import pytest

from callwright.data.schema import TypeSyntaxError, coerce, json_schema, problem, validate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("str", {"type": "string"}),
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("list", {"type": "array"}),
        ("List", {"type": "array"}),
        ("set", {"type": "array"}),
        ("Dict", {"type": "object"}),
        ("Any", {}),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("list[str]", {"type": "array", "items": {"type": "string"}}),
        ("typing.List[Any]", {"type": "array"}),
        ("List[List[float]]", {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
        ("List[Union[int, float]]", {"type": "array", "items": {"type": "number"}}),
        ("Tuple[float, float]", {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
        ("Tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        (
            "Tuple[str, int]",
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2},
        ),
        ("Dict[str, Any]", {"type": "object"}),
        ("Dict[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
        ("Callable[[float], float]", {"type": "string"}),
        ("Callable[..., Any]", {"type": "string"}),
        ("Optional[int]", {"type": ["integer", "null"]}),
        ("Union[int, str]", {"type": ["integer", "string"]}),
        ("int | None", {"type": ["integer", "null"]}),
        ("str or int", {"type": ["string", "integer"]}),
        ("Union[List[int], str]", {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}]}),
        ("Union[Any, int]", {}),
        ("Literal['a', 'b']", {"enum": ["a", "b"]}),
    ],
)
def test_types_map(text, expected):
    schema, optional, default = json_schema(text)
    assert (schema, optional, default) == (expected, False, {})
    assert problem({"type": "object", "properties": {"x": schema}}) is None


@pytest.mark.parametrize(
    ("text", "optional", "default"),
    [
        ("str, optional", True, {}),
        ("str, optional, default 'London'", True, {"default": "London"}),
        ("int, default=10", False, {"default": 10}),
        ("float, optional, defaults to 0.5", True, {"default": 0.5}),
        ("Tuple[int, int], optional", True, {}),
        ("str, optional, default 'a, b'", True, {"default": "a, b"}),
    ],
)
def test_what_follows_the_type(text, optional, default):
    assert json_schema(text)[1:] == (optional, default)


@pytest.mark.parametrize(
    "text", ["", "Spool[km]", "List[int", "int]", "Union[]", "List[" * 1000 + "]" * 1000, "@", "Dict[str]"]
)
def test_other_types_are_refused(text):
    with pytest.raises(TypeSyntaxError):
        json_schema(text)


PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"city": "Rome"}, None),
        ({"city": "Rome", "days": 2}, None),
        ({"city": 3}, "city: 3 is not of type 'string'"),
        ({"city": "Rome", "days": True}, "days: True is not of type 'integer'"),
        ({}, "'city' is a required property"),
        ({"city": "Rome", "hours": 2}, "'hours' is not a parameter"),
    ],
)
def test_arguments_are_checked(arguments, complaint):
    found = validate(arguments, PARAMETERS)
    assert found is complaint is None or complaint in found


def test_a_reference_to_the_web_is_not_fetched(monkeypatch):
    import urllib.request

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("a schema was fetched"))
    found = validate({"x": 1}, {"type": "object", "properties": {"x": {"$ref": "http://example.com/schema.json"}}})
    assert "cannot be applied" in found


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ("10", {"type": "integer"}, 10),
        (3.0, {"type": "integer"}, 3),
        ("0.5", {"type": "number"}, 0.5),
        ("True", {"type": "boolean"}, True),
        ("[1, 2]", {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        (5, {"type": "string"}, "5"),
        ("true", {"type": "string"}, "true"),
        ("b", {"enum": ["a", "b"]}, "b"),
        (7, {}, 7),
    ],
)
def test_a_value_is_brought_into_the_type_where_it_means_the_same(value, schema, expected):
    fits, found = coerce(value, schema)
    assert fits
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "schema"),
    [("", {"type": "integer"}), (0.7, {"type": "integer"}), ("x", {"type": "boolean"}), (True, {"type": "integer"}),
     ("[1]", {"type": "array", "items": {"type": "string"}}), ("c", {"enum": ["a", "b"]})],
)  # fmt: skip
def test_a_value_that_would_mean_something_else_is_left(value, schema):
    assert coerce(value, schema) == (False, None)
