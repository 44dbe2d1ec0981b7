"""Tools from Python functions, OpenAPI documents, MCP lists and JSON Schema."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.data.records import check_tools
from callwright.data.tool_sources.docstrings import read_docstring
from callwright.data.tool_sources.sources import tools_from
from callwright.runtime.errors import CallwrightError

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
EXPECTED = [{"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": CITY}}]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "content",
    [
        EXPECTED,
        EXPECTED[0],
        [EXPECTED[0]["function"]],
        {"tools": EXPECTED},
        {"tools": [{"name": "get_weather", "description": "Weather.", "inputSchema": CITY, "annotations": {}}]},
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [
            {"name": "get_weather", "description": "Weather.", "inputSchema": CITY}]}},
        {"title": "get_weather", "description": "Weather.", **CITY},
        {"get_weather": {"description": "Weather.", **CITY}},
        [{"name": "get_weather", "description": "Weather.", "parameters": {"city": {"type": "str"}}}],
    ],
)  # fmt: skip
def test_lists_of_tools_in_many_forms(tmp_path, content):
    assert tools_from(write(tmp_path, "tools.json", content)) == EXPECTED


def test_yaml_and_references_within(tmp_path):
    text = """
tools:
  - name: get_weather
    description: Weather.
    inputSchema:
      type: object
      properties: {city: {$ref: "#/$defs/City"}}
      required: [city]
      $defs: {City: {type: string}}
"""
    assert tools_from(write(tmp_path, "tools.yaml", text)) == EXPECTED


OPENAPI = """
openapi: 3.0.3
info: {title: Shop, version: "1"}
paths:
  /orders/{id}:
    parameters:
      - {name: id, in: path, required: true, description: Number of the order, schema: {type: integer}}
    get:
      operationId: getOrder
      summary: Shows an order
      parameters:
        - {$ref: "#/components/parameters/Verbose"}
        - {name: Authorization, in: header, required: true, schema: {type: string}}
        - {name: X-Shop, in: header, required: true, schema: {type: string}}
        - {name: session, in: cookie, required: true, schema: {type: string}}
    delete:
      summary: Cancels an order.
  /orders:
    post:
      operationId: create order!
      description: |
        Makes a new
        order.
      requestBody:
        required: true
        content:
          application/xml: {schema: {type: string}}
          application/json:
            schema: {$ref: "#/components/schemas/NewOrder"}
  /notes:
    put:
      operationId: setNote
      requestBody: {content: {text/plain: {schema: {type: string}}}}
components:
  parameters:
    Verbose: {name: verbose, in: query, schema: {type: boolean, default: false}}
  schemas:
    NewOrder:
      allOf:
        - {$ref: "#/components/schemas/Base"}
        - type: object
          required: [items]
          properties:
            items: {type: array, items: {$ref: "#/components/schemas/Item"}}
            note: {type: string, nullable: true, example: Hello}
    Base:
      type: object
      properties:
        id: {type: integer, readOnly: true}
        price: {type: number, minimum: 0, exclusiveMinimum: true}
    Item:
      type: object
      properties:
        name: {type: string}
        parts: {type: array, items: {$ref: "#/components/schemas/Item"}}
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_an_openapi_document(tmp_path, as_json):
    import yaml

    content = yaml.safe_load(OPENAPI) if as_json else OPENAPI
    found = {tool["function"]["name"]: tool["function"] for tool in tools_from(write(tmp_path, "api.yaml", content))}
    assert list(found) == ["getOrder", "delete_orders_id", "create_order", "setNote"]
    assert [function["description"] for function in found.values()] == [
        "Shows an order.", "Cancels an order.", "Makes a new order.", "",
    ]  # fmt: skip
    assert found["getOrder"]["parameters"] == {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "description": "Number of the order"},
            "verbose": {"type": "boolean", "default": False},
            "X-Shop": {"type": "string"},
        },
        "required": ["id", "X-Shop"],
    }
    assert found["create_order"]["parameters"] == {
        "type": "object",
        "properties": {
            "price": {"type": "number", "exclusiveMinimum": 0},
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
            "note": {"type": ["string", "null"]},
        },
        "required": ["items"],
        "$defs": {
            "Item": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "parts": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
                },
            },
        },
    }
    assert found["setNote"]["parameters"]["properties"] == {"body": {"type": "string"}}
    assert found["setNote"]["parameters"]["required"] == []


NAMELESS = """
openapi: 3.1.0
paths:
  "/lamps/{room}":
    parameters:
      - {in: path, required: true, schema: {type: string}}
      - {name: room, in: path, required: true, schema: {type: string}}
    get:
      operationId: showLamp
      parameters: [{name: colour, in: query, schema: {type: string}}]
    put:
      operationId: setLamp
      parameters:
        - {name: 1, in: query, schema: {type: boolean}}
        - {name: " ", in: query, schema: {type: boolean}}
        - {name: {a: 1}, in: query, schema: {type: boolean}}
        - brightness
        - {$ref: "#/components/parameters/Nobody"}
components: {parameters: {Nobody: {in: query, schema: {type: string}}}}
"""


def test_openapi_parameters_without_a_name_are_left_out_with_a_word(tmp_path, caplog):
    path = write(tmp_path, "lamps.yaml", NAMELESS)
    with caplog.at_level("WARNING", "callwright"):
        found = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools_from(path)}
    assert {name: list(schema["properties"]) for name, schema in found.items()} == {
        "showLamp": ["room", "colour"], "setLamp": ["room"],
    }  # fmt: skip
    put = "of the operation setLamp (put /lamps/{room})"
    assert [record.getMessage() for record in caplog.records] == [
        f"left out: {path}: parameter 1 of the path /lamps/{{room}} has no `name`",
        f"left out: {path}: parameter 1 {put} has the `name` 1, which is a number, expected text (in quotes)",
        f"left out: {path}: parameter 2 {put} has no `name`",
        f"left out: {path}: parameter 3 {put} has the `name` {{'a': 1}}, which is an object, expected text (in quotes)",
        f"left out: {path}: parameter 4 {put} is text, expected an object with a `name`",
        f"left out: {path}: parameter 5 {put} has no `name`",
    ]


PYTHON = '''
"""Tools of a shop."""
import enum
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

from helper import Size


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    street: str
    number: int = 1
    tags: list[str] = field(default_factory=list)


class Point(TypedDict, total=False):
    x: float
    y: float


def google(city: str, days: int = 3, unit: Literal["c", "f"] = "c", to: Optional[str] = None) -> dict:
    """Forecast of a city.

    Takes its time.

    Args:
        city (str): Name of the city,
            in English.
        days: Number of days: at most 10.
        unit: Unit.

    Returns:
        dict: city: not a parameter.
    """
    raise RuntimeError("never called")


def numpy(
    a: list[int], b: "dict[str, float]", c: Union[int, float], d: tuple[int, str], *rest,
    e: set[str] | None = None, **more
):
    """
    Adds things

    Parameters
    ----------
    a : list of int
        The first.

        And more of it.
    b, c : dict
        The others.
    *rest
        Ignored.

    Returns
    -------
    a : int
        A sum.
    """


def sphinx(when: date, where: Address, at: Point, colour: Colour, size: Size, raw: Any = {"k": [1]}):
    """Ships it.

    :param when: Day of
        delivery
    :param Address where: Place.
    :type colour: Colour
    :returns: Nothing.
    """


def annotated(name: Annotated[str, "Name of the user"], untyped):
    pass


def _private(x: int): ...


class NoFunction: ...


print = len
'''


def test_python_functions(tmp_path):
    (tmp_path / "helper.py").write_text(
        "import enum\nclass Size(enum.IntEnum):\n    S = 1\n    L = 2\ndef not_mine(): ...\n"
    )
    found = {t["function"]["name"]: t["function"] for t in tools_from(write(tmp_path, "shop.py", PYTHON))}
    assert list(found) == ["google", "numpy", "sphinx", "annotated"]
    assert not (tmp_path / "__pycache__").exists()
    assert found["google"] == {
        "name": "google",
        "description": "Forecast of a city. Takes its time.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city, in English."},
                "days": {"type": "integer", "description": "Number of days: at most 10.", "default": 3},
                "unit": {"enum": ["c", "f"], "description": "Unit.", "default": "c"},
                "to": {"type": ["string", "null"]},
            },
            "required": ["city"],
        },
    }
    assert found["numpy"]["description"] == "Adds things"
    assert found["numpy"]["parameters"] == {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "integer"}, "description": "The first. And more of it."},
            "b": {"type": "object", "additionalProperties": {"type": "number"}, "description": "The others."},
            "c": {"type": "number", "description": "The others."},
            "d": {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
            "e": {"anyOf": [{"type": "array", "items": {"type": "string"}, "uniqueItems": True}, {"type": "null"}]},
        },
        "required": ["a", "b", "c", "d"],
    }
    parameters = found["sphinx"]["parameters"]["properties"]
    assert found["sphinx"]["description"] == "Ships it."
    assert parameters["when"] == {"type": "string", "format": "date", "description": "Day of delivery"}
    assert parameters["where"] == {
        "type": "object",
        "properties": {
            "street": {"type": "string"},
            "number": {"type": "integer", "default": 1},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["street"],
        "description": "Place.",
    }
    assert parameters["at"] == {
        "type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
    }  # fmt: skip
    assert parameters["colour"] == {"enum": ["red", "blue"]}
    assert parameters["size"] == {"enum": [1, 2]}
    assert parameters["raw"] == {"default": {"k": [1]}}
    assert found["annotated"]["parameters"]["properties"] == {
        "name": {"type": "string", "description": "Name of the user"},
        "untyped": {},
    }


def test_pydantic_models_and_a_list_of_what_is_public(tmp_path):
    pytest.importorskip("pydantic")
    text = (
        "from pydantic import BaseModel, Field\n__all__ = ['buy']\n"
        "class Item(BaseModel):\n    name: str = Field(description='What')\n"
        "class Cart(BaseModel):\n    items: list[Item]\n"
        "def buy(cart: Cart): 'Buys.'\ndef helper(x: int): ...\n"
    )
    [tool] = tools_from(write(tmp_path, "shop.py", text))
    item = {"type": "object", "properties": {"name": {"type": "string", "description": "What"}}, "required": ["name"]}
    assert tool["function"]["parameters"]["properties"]["cart"] == {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.py", "class K: ...\ndef f(x: K): ...", r"a\.py, line 2, function f: the parameter x has the type K, "),
        ("a.py", "\nimport nothing_like_it\n", r"a\.py, line 2: cannot be imported: ModuleNotFoundError.*pip install"),
        ("a.py", "def f(:", r"a\.py, line 1: cannot be imported: SyntaxError: invalid syntax: `def f\(:`$"),
        ("a.py", "\n\nraise ValueError('one\\n  two')", r"a\.py, line 3: .*ValueError: one two$"),
        ("a.py", "raise ValueError", r"a\.py, line 1: cannot be imported: ValueError$"),
        ("a.json", '[{"name": "f",\n "description": "do', r"a\.json, line 2: not valid JSON: it ends here, unf"),
        ("a.json", '[{"name": "f",\n "description": "do"}\n', r"a\.json, line 2: not valid JSON: it ends here, unf"),
        ("a.json", '[{"name": "f",\n "description" "do"}]', r"line 2, column 16: not valid JSON: Expecting ':' delim"),
        ("a.py", "def f(x: 'Nope'): ...", "the type hints cannot be read: name 'Nope' is not defined"),
        ("a.py", "x = 1", "describes no tool"),
        ("a.json", "[]", "describes no tool"),
        ("a.json", "null", "is empty"),
        ("a.json", "[5]", "tool 1: it is a number, expected an object"),
        ("a.json", {"tools": [{"name": "f", "inputSchema": {"type": "object", "properties": 5}}]}, "tool 1: "),
        ("a.json", {"openapi": "3.1.0", "paths": {"/a": {"get": {"parameters": 5}}}}, "is not built as"),
        ("a.json", {"swagger": "2.0"}, "convert it to OpenAPI 3"),
        ("a.json", {"openapi": "3.1.0"}, "without `paths`"),
        ("a.json", {"openapi": "3.1.0", "paths": {"/a": {"get": {"parameters": [{"$ref": "b.yaml#/x"}]}}}},
         r"the reference 'b\.yaml#/x' leads to nothing"),
        ("a.json", {"openapi": "3.1.0", "paths": {"/a": {"$ref": "#/paths/~1a"}}}, "refers to itself"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(CallwrightError, match=message) as caught:
        tools_from(path)
    assert str(path) in str(caught.value)
    with pytest.raises(CallwrightError, match="does not exist"):
        tools_from(tmp_path / "none.json")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6) | st.just({"$ref": "#/a"}),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["openapi", "paths", "/a", "get", "parameters", "name", "schema", "type", "properties", "$ref", "allOf",
             "requestBody", "content", "application/json", "tools", "inputSchema", "function", "title", "required", "a"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(json_like)
def test_any_document_gives_tools_or_one_clear_error(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    try:
        found = tools_from(path)
    except CallwrightError:
        return
    check_tools(found)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-= \n\tArgsPm()*", max_size=120))
def test_any_docstring_is_read(text):
    about, described = read_docstring(text)
    assert isinstance(about, str)
    assert all(isinstance(found, str) for found in described.values())


def test_one_bad_tool_never_stops_the_others(tmp_path, caplog):
    bad = {"name": "bad", "inputSchema": {"type": "object", "properties": {"a": {"items": {"type": "strange thing"}}}}}
    content = {"tools": [EXPECTED[0]["function"], bad, 5, EXPECTED[0]]}
    assert tools_from(write(tmp_path, "tools.json", content)) == EXPECTED
    for said in ("tool 2: the parameters of 'bad': properties.a.items.type: unknown type 'strange thing'",
                 "tool 3: it is a number", "the tool 'get_weather' is listed twice"):  # fmt: skip
        assert said in caplog.text


def test_one_bad_operation_never_stops_the_others(tmp_path, caplog):
    good = {"operationId": "good", "summary": "Good."}
    bad = {"operationId": "bad", "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/nowhere"}}}}}
    document = {"openapi": "3.0.0", "paths": {"/a": {"get": good, "post": bad}, "/b": {"$ref": "#/paths/~1b"}}}
    assert [tool["function"]["name"] for tool in tools_from(write(tmp_path, "api.json", document))] == ["good"]
    assert "the operation bad (post /a): body: the reference '#/nowhere' leads to nothing" in caplog.text
    assert "the path /b: the reference '#/paths/~1b' refers to itself" in caplog.text


def test_one_name_in_path_query_header_and_body_is_as_many_parameters(tmp_path):
    def parameter(place, kind, required=True):
        return {"name": "id", "in": place, "required": required, "schema": {"type": kind}}

    array = {"type": "array", "items": {"type": "number"}}
    operation = {
        "operationId": "put",
        "parameters": [parameter("query", "integer", False), parameter("header", "boolean"),
                       {"name": "body", "in": "query", "schema": {"type": "string"}}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": array}}},
    }  # fmt: skip
    document = {"openapi": "3.0.0", "paths": {"/{id}": {"parameters": [parameter("path", "string")], "put": operation}}}
    [tool] = tools_from(write(tmp_path, "api.json", document))
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "id": {"type": "string"}, "id_query": {"type": "integer"}, "id_header": {"type": "boolean"},
            "body": {"type": "string"}, "request_body": array,
        },
        "required": ["id", "id_header", "request_body"],
    }  # fmt: skip


def test_lists_of_other_makers(tmp_path):
    declaration = {"name": "get_weather", "description": "Weather.", "parameters": {
        "type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}}  # fmt: skip
    bedrock = {"toolSpec": {"name": "get_weather", "description": "Weather.", "inputSchema": {"json": CITY}}}
    anthropic = {"name": "get_weather", "description": "Weather.", "input_schema": CITY}
    snake = {"tools": [{"function_declarations": [declaration]}]}
    for content in ([{"functionDeclarations": [declaration]}], snake, [bedrock], [anthropic]):
        assert tools_from(write(tmp_path, "tools.json", content)) == EXPECTED


def test_a_folder_and_an_odd_list_of_names_are_said_for_what_they_are(tmp_path):
    with pytest.raises(CallwrightError, match="is a folder: name one file"):
        tools_from(tmp_path)
    path = tmp_path / "tools.py"
    for listed in ("5", "['look', 5]", "'look'"):
        path.write_text(f"__all__ = {listed}\ndef look(at: str): 'Look'\n")
        with pytest.raises(CallwrightError, match="__all__ is .*, expected a list of names"):
            tools_from(path)


def test_a_name_that_no_server_takes_is_left_out(tmp_path, caplog):
    tools = [
        {"name": "has space", "input_schema": {"type": "object"}},
        {"name": "fine", "input_schema": {"type": "object"}},
    ]
    found = tools_from(write(tmp_path, "a.json", tools))
    assert [tool["function"]["name"] for tool in found] == ["fine"]
    assert "has space" in caplog.text


@pytest.mark.parametrize(
    ("said", "needed"), [({}, ["start"]), ({"required": True}, ["start"]), ({"required": False}, [])]
)
def test_fields_that_a_body_needs_are_required_unless_it_may_be_left_out(tmp_path, said, needed):
    schema = {"type": "object", "required": ["start"], "properties": {"start": {"type": "string"}}}
    body = {**said, "content": {"application/json": {"schema": schema}}}
    document = {"openapi": "3.1.0", "paths": {"/a": {"post": {"operationId": "rent", "requestBody": body}}}}
    (tool,) = tools_from(write(tmp_path, "a.json", document))
    assert tool["function"]["parameters"].get("required", []) == needed


def test_examples_are_read_where_they_are_asked_for(tmp_path):
    part = {"type": "string", "examples": ["Alpha", "Beta"]}
    path = write(tmp_path, "a.json", [{"name": "f", "input_schema": {"type": "object", "properties": {"x": part}}}])
    assert tools_from(path, annotations=True)[0]["function"]["parameters"]["properties"]["x"] == part
    assert "examples" not in tools_from(path)[0]["function"]["parameters"]["properties"]["x"]


def test_a_syntax_error_of_another_file_is_told_with_both_places(tmp_path):
    (tmp_path / "helper_of_a.py").write_text("\ndef (\n")
    path = write(tmp_path, "a.py", "import helper_of_a")
    told = r"a\.py, line 1: .*: invalid syntax \(helper_of_a\.py, line 2\): `def \(`$"
    with pytest.raises(CallwrightError, match=told):
        tools_from(path)


def test_the_line_of_a_failed_import_is_named_for_a_path_from_here_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text("\nimport nothing_like_it\n")
    with pytest.raises(CallwrightError, match=r"^a\.py, line 2: cannot be imported: ModuleNotFoundError"):
        tools_from("a.py")
    (tmp_path / "a.py").write_text("\ndef (\n")
    with pytest.raises(CallwrightError, match=r"^a\.py, line 2: cannot be imported: SyntaxError: invalid syntax: `def"):
        tools_from("a.py")
    (tmp_path / "a.py").write_text("raise SyntaxError('of my own')\n")
    with pytest.raises(CallwrightError, match=r"^a\.py, line 1: cannot be imported: SyntaxError: of my own$"):
        tools_from("a.py")
