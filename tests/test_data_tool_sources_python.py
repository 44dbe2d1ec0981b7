"""Python functions of all sorts as tools: pydantic's schemas, and calls with what the functions expect."""

import asyncio
import textwrap
import typing
from typing import Annotated, Any, Literal, Optional

import jsonschema
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.data.tool_sources.python import describe, python_tools
from callwright.data.tool_sources.sources import tools_from
from callwright.runtime.errors import CallwrightError


def tools_of(tmp_path, text, name="mine.py"):
    """The tools of a file, by name, and what is said of those that are left out."""
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    problems: list[str] = []
    return {tool.name: tool for tool in python_tools(path, problems)}, problems


def properties(tool):
    return tool.definition["function"]["parameters"]["properties"]


# -- schemas are pydantic's -------------------------------------------------------------------------

plain = st.sampled_from(
    [int, float, str, bool, bytes, None, list, dict, tuple, set, typing.List, typing.Dict, typing.Tuple,  # noqa: UP006
     Any, Literal["a", 2], Annotated[int, pydantic.Field(ge=1, le=5)], Annotated[str, pydantic.Field(pattern="^a")]]
)  # fmt: skip
hints = st.recursive(
    plain,
    lambda inner: st.one_of(
        inner.map(lambda hint: list[hint]),
        inner.map(lambda hint: dict[str, hint]),
        inner.map(lambda hint: Optional[hint]),  # noqa: UP045
        st.tuples(inner, inner).map(lambda pair: tuple[pair[0], pair[1]]),
        st.tuples(inner, inner).map(
            lambda pair: pair[0] | pair[1] if None not in pair else Optional[pair[0] or pair[1]]  # noqa: UP045
        ),
        inner.map(lambda hint: typing.Sequence[hint]),
        st.dictionaries(st.sampled_from(["a", "b"]), inner, min_size=1).map(
            lambda fields: pydantic.create_model("Model", **{name: (hint, ...) for name, hint in fields.items()})
        ),
    ),
    max_leaves=4,
)
values = st.recursive(
    st.sampled_from([None, True, 0, 3, 9, 2.5, "", "abc", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=2),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(hints, st.lists(values, min_size=3, max_size=6))
def test_a_parameter_accepts_what_pydantics_schema_accepts(hint, some):
    def function(x): ...

    function.__annotations__ = {"x": hint}
    tool = describe("function", function)
    whole = tool.definition["function"]["parameters"]
    jsonschema.Draft202012Validator.check_schema(whole)
    theirs = pydantic.TypeAdapter(function).json_schema()
    for value in some:
        wanted = jsonschema.Draft202012Validator(theirs).is_valid({"x": value})
        assert jsonschema.Draft202012Validator(whole).is_valid({"x": value}) == wanted


SAME = '''
{future}
import dataclasses, enum
from datetime import date
from typing import Annotated, Dict, List, Literal, Optional, Tuple, TypedDict, Union
import pydantic
from pydantic import BaseModel, Field

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

@dataclasses.dataclass
class Address:
    street: str
    floor: Optional[int] = None
    tags: List[str] = dataclasses.field(default_factory=list)

class Point(TypedDict, total=False):
    x: float
    at: Address

class Node(BaseModel):
    value: int = Field(ge=0)
    next: Optional["Node"] = None

def deliver(drink: str, to: Address, at: Point, colour: Colour, node: Node, day: date = date(2026, 1, 2)) -> str:
    """Deliver."""
    assert isinstance(to, Address) and isinstance(colour, Colour) and isinstance(node, Node) and isinstance(day, date)
    return f"{{drink}} to {{to.street}} {{to.floor}}, {{at}}, {{colour.name}}, {{node.next.value}}, {{day.year}}"
'''


def test_annotations_that_are_postponed_give_the_same_schema_and_the_same_values(tmp_path):
    given = {
        "drink": "tea",
        "to": {"street": "A"},
        "at": {"x": 1},
        "colour": "red",
        "node": {"value": 1, "next": {"value": 2}},
    }
    found = []
    for number, future in enumerate(("", "from __future__ import annotations")):
        tools, problems = tools_of(tmp_path, SAME.format(future=future), f"same{number}.py")
        assert problems == []
        found.append(tools["deliver"].definition)
        assert tools["deliver"].call(given) == "tea to A None, {'x': 1.0}, RED, 2, 2026"
        with pytest.raises(pydantic.ValidationError):
            tools["deliver"].call({**given, "node": {"value": -1}})
    assert found[0] == found[1]
    parameters = found[0]["function"]["parameters"]
    assert parameters["required"] == ["drink", "to", "at", "colour", "node"]
    assert parameters["properties"]["day"] == {"type": "string", "format": "date", "default": "2026-01-02"}
    assert parameters["properties"]["node"] == {"$ref": "#/$defs/Node"}
    assert parameters["$defs"]["Node"]["properties"]["value"] == {"type": "integer", "minimum": 0}
    assert parameters["properties"]["to"] == {
        "type": "object",
        "properties": {
            "street": {"type": "string"},
            "floor": {"type": ["integer", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["street"],
    }


FIELDS = """
from typing import Annotated
from pydantic import Field
def heat(degrees: Annotated[int, Field(ge=5, le=30, description="target")],
         room: Annotated[str, Field(min_length=1, pattern=r"^[a-z ]+$")]) -> str:
    "Heat a room."
    return f"{room}: {degrees}"
def light(level: int = Field(50, ge=0, le=100, description="per cent"), room: str = Field(..., description="which"),
          tags: list[str] = Field(default_factory=list), mode: Annotated[str, Field(description="how")] = "dim") -> str:
    "Light a room."
    return f"{room}: {level} {tags} {mode}"
"""


def test_constraints_and_defaults_of_fields(tmp_path):
    tools, _ = tools_of(tmp_path, FIELDS)
    assert properties(tools["heat"]) == {
        "degrees": {"type": "integer", "minimum": 5, "maximum": 30, "description": "target"},
        "room": {"type": "string", "minLength": 1, "pattern": "^[a-z ]+$"},
    }
    light = tools["light"]
    assert properties(light)["level"] == {
        "type": "integer", "minimum": 0, "maximum": 100, "description": "per cent", "default": 50,
    }  # fmt: skip
    assert properties(light)["mode"] == {"type": "string", "description": "how", "default": "dim"}
    assert light.definition["function"]["parameters"]["required"] == ["room"]
    assert light.call({"room": "hall"}) == "hall: 50 [] dim"
    with pytest.raises(pydantic.ValidationError):
        light.call({"room": "hall", "level": 101})


# -- functions of all sorts -------------------------------------------------------------------------

SORTS = '''
import functools, logging, time
from functools import partial
from wrapping_helper import logged_elsewhere, not_mine

def logged(function):
    def wrapper(*args, **kwargs):
        return ("logged", function(*args, **kwargs))
    return wrapper

def kept(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@functools.lru_cache
def cached(drink: str) -> float:
    """Price of a drink."""
    return 2.5

@functools.cache
def cached_too(drink: str, size: int = 1) -> float:
    return 2.5 * size

@logged
def order(drink: str) -> str:
    """Order a drink."""
    return drink

@logged_elsewhere
def cancel(number: int) -> str:
    """Cancel an order."""
    return str(number)

@kept
def keep(number: int) -> int:
    """Keep."""
    return number

def add(a: int, b: int, /, c: int = 1, *, d: int = 0) -> int:
    """Add numbers."""
    return a + b * 10 + c * 100 + d * 1000

add_to_five = partial(add, 5)

class Counter:
    def __init__(self):
        self.count = 0
    def up(self, by: int = 1) -> int:
        """Count up."""
        self.count += by
        return self.count

counter = Counter()
count_up = counter.up

async def later(word: str) -> str:
    """Later."""
    return word * 2

def anything(*args, **kwargs):
    """Nobody knows what."""

same = order
say = logging.getLogger("x").info
'''


@pytest.fixture
def sorts(tmp_path):
    (tmp_path / "wrapping_helper.py").write_text(
        "def logged_elsewhere(function):\n    def wrapper(*args, **kwargs):\n        return function(*args, **kwargs)\n"
        "    return wrapper\ndef not_mine(): ...\n"
    )
    return tools_of(tmp_path, SORTS)


def test_wrappers_caches_partials_methods_and_coroutines(sorts):
    tools, problems = sorts
    assert list(tools) == ["cached", "cached_too", "order", "cancel", "keep", "add", "add_to_five", "count_up", "later"]
    assert properties(tools["order"]) == {"drink": {"type": "string"}}
    assert tools["order"].definition["function"]["description"] == "Order a drink."
    assert tools["order"].call({"drink": "tea"}) == ("logged", "tea")
    assert properties(tools["cancel"]) == {"number": {"type": "integer"}}
    assert tools["cancel"].call({"number": "3"}) == "3"
    assert properties(tools["cached_too"])["size"] == {"type": "integer", "default": 1}
    assert tools["cached_too"].call({"drink": "tea", "size": 2}) == 5.0
    assert tools["keep"].call({"number": 3}) == 3
    assert list(properties(tools["add"])) == ["a", "b", "c", "d"]
    assert tools["add"].call({"d": 4, "b": 2, "a": 1}) == 4121
    assert list(properties(tools["add_to_five"])) == ["b", "c", "d"]
    assert tools["add_to_five"].call({"b": 2}) == 125
    assert tools["add_to_five"].definition["function"]["description"] == "Add numbers."
    assert [tools["count_up"].call({"by": 2}), tools["count_up"].call({})] == [2, 3]
    assert asyncio.run(tools["later"].call({"word": "a"})) == "aa"
    assert [problem.rpartition("function ")[2].partition(":")[0] for problem in problems] == ["anything", "say"]
    assert "functools.wraps" in problems[0]
    assert "it comes from logging" in problems[1]


def test_a_bad_function_does_not_stop_the_others(tmp_path, caplog):
    path = tmp_path / "two.py"
    path.write_text("class K: ...\ndef bad(x: K): ...\ndef good(x: int): ...\n")
    [tool] = tools_from(path)
    assert tool["function"]["name"] == "good"
    assert "two.py, line 2, function bad: the parameter x has the type K" in caplog.text


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ("['f', 'missing']", "'missing', which the file does not have"),
        ("['f', 'K']", "'K', which gives no tool: it is a class"),
        ("['f', 'n']", "'n', which gives no tool: it is int"),
        ("['f', 'any']", "'any', which gives no tool: it takes any arguments"),
        ("['bad']", "'bad', which gives no tool: the parameter x has the type K"),
    ],
)
def test_a_name_in_all_that_gives_no_tool_is_an_error(tmp_path, listed, reason):
    text = f"__all__ = {listed}\nn = 1\nclass K: ...\ndef f(x: int): ...\ndef any(*a): ...\ndef bad(x: K): ...\n"
    with pytest.raises(CallwrightError, match=r"mine\.py.*__all__ lists ") as caught:
        tools_of(tmp_path, text)
    assert reason in str(caught.value)


def test_all_takes_what_it_names(tmp_path):
    tools, problems = tools_of(tmp_path, "import logging\n__all__ = ['_f', 'say']\ndef _f(x: int): ...\ndef g(): ...\n"
                                         "say = logging.getLogger('x').info\n")  # fmt: skip
    assert list(tools) == ["_f", "say"]
    assert problems == []


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        ("typing.Dict", {"type": "object"}),
        ("typing.List[typing.Dict]", {"type": "array", "items": {"type": "object"}}),
        ("typing.Optional[typing.Dict]", {"type": ["object", "null"]}),
        ("typing.List", {"type": "array"}),
        ("typing.Tuple", {"type": "array"}),
        ("list[dict[str, typing.Any]]", {"type": "array", "items": {"type": "object"}}),
        ("typing.Literal['a']", {"enum": ["a"]}),
        ("int | str", {"type": ["integer", "string"]}),
        ("int | float", {"type": "number"}),
    ],
)
def test_short_schemas(tmp_path, hint, schema):
    tools, _ = tools_of(tmp_path, f"import typing\ndef f(x: {hint}): ...\n")
    assert properties(tools["f"]) == {"x": schema}
