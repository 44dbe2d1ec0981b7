"""Python-like types become JSON Schema, and arguments are checked against it."""

import pytest

from callsmith.data.schema import TypeSyntaxError, json_schema, problem, validate


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
