"""Tools from other files: plain phrasings from a description, values from what a parameter says of itself."""

import json
import random
import re

import pytest

from callwright.cli import main
from callwright.data.records import Example
from callwright.data.sources import read_records
from callwright.data.toolset import plain_phrasings, toolset
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.yaml_lines import tool_files
from callwright.runtime.errors import CallwrightError


def tool(name, description, properties, required=None):
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
WEATHER = tool("get_weather", "Get the weather in a city.", {"city": TEXT, "days": NUMBER}, ["city"])
MAIL = tool("send_mail", "Sends a message to a contact.\n\nMore about it.", {"contact": TEXT, "message": TEXT})
LAMP = tool(
    "switchLamp", "", {"room": TEXT, "state": {"enum": ["on", "off"]}, "bright": {"type": "boolean"}}, ["room", "state"]
)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a toolset that takes these tools from `mine.py`."""

    def load(tools, text="tools_from: [mine.py]\n"):
        monkeypatch.setattr(toolset, "tools_from", lambda path: {tmp_path / "mine.py": tools}[path])
        path = tmp_path / "set.yaml"
        path.write_text(text)
        return load_toolset(path)

    return load


@pytest.mark.parametrize(
    ("name", "description", "order"),
    [
        ("x", "Get the weather in a city.", "Get the weather in a city"),
        ("x", "Sends a message. It may fail.", "Send a message"),
        ("x", "Searches the web (slow)", "Search the web"),
        ("x", "Applies a discount\nto the cart", "Apply a discount"),
        ("x", "The price of a stock", "Get the price of a stock"),
        ("x", "Current price of a stock", "Get the current price of a stock"),
        ("x", "VAT rate of a country", "Get the VAT rate of a country"),
        ("cancel_order", "", "Cancel order"),
        ("priceList", " ", "Get the price list"),
        ("x", "Set {a} to [b].", "Set a to b"),
    ],
)
def test_a_description_becomes_an_order(name, description, order):
    assert plain_phrasings._order(name, description) == order


def test_a_parameter_takes_its_slot_where_the_description_names_it():
    assert plain_phrasings._place("Get the weather in a city", "city") == "Get the weather in {city}"
    assert plain_phrasings._place("Convert an amount to the given target currency", "target_currency") == (
        "Convert an amount to {target_currency}"
    )
    assert plain_phrasings._place("Send a message to a contact", "message") == "Send a message to a contact"
    assert plain_phrasings._place("Search for a text", "text") == 'Search for "{text}"'


def test_parameters_may_be_called_as_the_frames_places_are(load):
    odd = tool(
        "add_up", "Add two numbers.", {"a": NUMBER, "A": NUMBER, "parts": NUMBER, "n": NUMBER, "natural": NUMBER}
    )
    (found,) = load([odd]).tools
    for phrasing in found.phrasings:
        assert {name for name, _ in phrasing.certain} == {"a", "A", "parts", "n", "natural"}


def test_every_phrasing_has_its_required_slots_and_every_question_what_lacks(load):
    found = load([WEATHER, MAIL, LAMP])
    assert found.domains == ["mine"]
    weather, mail, lamp = found.tools
    assert weather.definition == WEATHER
    texts = [phrasing.text for phrasing in weather.phrasings]
    assert texts[:3] == ["Get the weather in {city}", "I need to get the weather in {city}.",
                         "I'd like to get the weather in {city}."]  # fmt: skip
    assert "Get the weather in {city}, with {days} days" in texts
    assert "Get the weather in a city" in [phrasing.text for phrasing in weather.missing]
    assert weather.ask == {"city": "I need one more detail. What is the city?"}
    seats = load([tool("book", "Book a table.", {"people": NUMBER})]).tools[0]
    assert seats.phrasings[0].text == "Book a table with {people} people"
    assert seats.ask == {"people": "I need one more detail. How many people?"}
    assert 'Send a message to {contact} with message "{message}"' in [phrasing.text for phrasing in mail.phrasings]
    assert "Switch lamp with room {room} and state {state}" in [phrasing.text for phrasing in lamp.phrasings]
    for each in found.tools:
        assert len(each.phrasings) >= 8
        assert len(each.missing) >= 3


def test_a_first_set_of_examples_comes_of_descriptions_alone(load, caplog):
    made = generate(load([WEATHER, MAIL, LAMP]), examples=100)
    assert len(made) > 90
    assert {example.stratum for example in made} == {"one", "several", "abstain:no_tool", "abstain:missing"}
    for example in made:
        Example.from_row(example.to_row())
        assert not re.search(r"[{}\[\]]", example.query)
    assert "plain phrasings are made from the descriptions of get_weather, send_mail, switchLamp" in caplog.text


def test_own_phrasings_and_values_come_before_made_ones(load):
    text = """
tools_from: [mine.py]
domains:
  weather:
    get_weather:
      values: {city: [Atlantis]}
  mail:
    send_mail:
      phrasings: ["Tell {contact} that {message}"]
      similar: [switchLamp]
"""
    weather, mail, lamp = load([WEATHER, MAIL, LAMP], text).tools
    assert (weather.domain, mail.domain, lamp.domain) == ("weather", "mail", "mine")
    assert weather.pools["city"].entries == [("Atlantis", "Atlantis")]
    assert len(weather.phrasings) >= 8
    assert [phrasing.text for phrasing in mail.phrasings] == ["Tell {contact} that {message}"]
    assert mail.similar == {"switchLamp"}
    assert mail.definition == MAIL


@pytest.mark.parametrize(
    ("name", "part", "first"),
    [
        ("unit", {"enum": ["per_day", "per_week"]}, "per day"),
        ("x", {"type": "string", "examples": ["blue"]}, "blue"),
        ("x", {"type": "boolean"}, "x"),
        ("x", {"type": "integer", "minimum": 7, "maximum": 7}, "7"),
        ("x", {"type": "number", "minimum": 2, "maximum": 2}, "2"),
        ("x", {"type": ["integer", "null"], "minimum": 3, "maximum": 3}, "3"),
        ("tags", {"type": "array", "items": {"type": "string", "enum": ["new"]}}, "new"),
    ],
)
def test_values_come_from_what_a_parameter_says_of_itself(load, name, part, first):
    pool = load([tool("t", "Do it.", {name: part})]).tools[0].pools[name]
    assert first in (pool.entries[0][0] if pool.entries else pool.draw(random.Random(1))[0])


def test_values_come_from_the_name_of_a_parameter_where_they_fit(load):
    names = ["home_city", "dueDate", "recipient_email", "cities", "minutes", "title", "startTime"]
    kinds = [TEXT, TEXT, TEXT, {"type": "array", "items": TEXT}, NUMBER, TEXT, TEXT]
    pools = load([tool("t", "Do it.", dict(zip(names, kinds, strict=True)))]).tools[0].pools
    assert pools.keys() >= {"home_city", "dueDate", "recipient_email", "minutes", "title", "startTime"}
    assert load([tool("t", "Do it.", {"city": NUMBER})]).tools[0].pools["city"].entries is None


def test_text_of_which_nothing_is_known_gets_stand_ins_and_a_warning(load, caplog):
    unknown = tool("set_flux", "Set the flux.", {"flux": TEXT})
    assert load([WEATHER, unknown]).tools[1].pools["flux"].entries
    assert "nothing is known of the values of set_flux.flux, so stand-ins are used" in caplog.text
    caplog.clear()
    text = "tools_from: [mine.py]\ndomains: {mine: {set_flux: {values: {flux: [some, values]}}}}\n"
    flux = next(tool for tool in load([WEATHER, unknown], text).tools if tool.name == "set_flux")
    assert [said for said, _ in flux.pools["flux"].entries] == ["some", "values"]
    assert "stand-ins" not in caplog.text


def test_a_parameter_that_no_value_can_be_made_of_is_named_with_what_to_write(load):
    unknown = tool("set_flux", "Set the flux.", {"flux": {"type": "object"}})
    with pytest.raises(CallwrightError) as caught:
        load([WEATHER, unknown])
    assert re.search(
        r"set.yaml, line 1: tools_from.0: the tool 'set_flux' needs values for its parameter 'flux', to make requests "
        r"of: write `domains: \{mine: \{set_flux: \{values: \{flux: \[some, values\]\}\}\}\}`$",
        str(caught.value),
    )


def test_python_functions_and_an_openapi_document_become_tools(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from typing import Literal\n\n"
        "def get_weather(city: str, unit: Literal['celsius', 'fahrenheit'] = 'celsius'):\n"
        '    """Get the current weather in a city."""\n'
    )
    order_id = {"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}
    operation = {"operationId": "cancelOrder", "summary": "Cancel an order.", "parameters": [order_id]}
    paths = {"/orders/{order_id}": {"delete": operation}}
    document = {"openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "paths": paths}
    (tmp_path / "api.json").write_text(json.dumps(document))
    (tmp_path / "set.yaml").write_text("tools_from: [mine.py, api.json]\n")
    weather, cancel = load_toolset(tmp_path / "set.yaml").tools
    assert (weather.domain, weather.required, cancel.name, cancel.domain) == ("mine", ["city"], "cancelOrder", "api")
    assert [value for _, value in weather.pools["unit"].entries] == ["celsius", "fahrenheit"]
    assert weather.phrasings[0].text == "Get the current weather in {city}"
    assert cancel.phrasings[0].text == "Cancel an order with order id {order_id}"
    (tmp_path / "set.yaml").write_text("tools_from: [none.py]\n")
    with pytest.raises(
        CallwrightError, match=r"set.yaml, line 1: tools_from.0: the file of tools .*none.py does not exist"
    ):
        load_toolset(tmp_path / "set.yaml")


def test_what_is_wrong_with_the_other_file_is_told_with_the_line(load, tmp_path, monkeypatch):
    twice = "tools_from:\n  - mine.py\n  - mine.py\n"
    with pytest.raises(
        CallwrightError, match=r"line 3: tools_from.1: mine.py: the tool 'get_weather' came from another"
    ):
        load([WEATHER], twice)
    with pytest.raises(CallwrightError, match=r"line 1: tools_from: found 'mine.py', expected a list"):
        load([WEATHER], "tools_from: mine.py\n")

    def refuse(path):
        raise CallwrightError(f"{path.name} holds no tool")

    (tmp_path / "set.yaml").write_text("tools_from: [mine.py]\n")
    monkeypatch.setattr(toolset, "tools_from", refuse)
    with pytest.raises(CallwrightError, match=r"set.yaml, line 1: tools_from.0: mine.py holds no tool"):
        load_toolset(tmp_path / "set.yaml")


def test_the_files_that_tools_come_from_are_listed_for_the_workflow(tmp_path):
    path = tmp_path / "set.yaml"
    assert tool_files(path) == []
    path.write_text("name: x\ntools_from: [a.py, sub/b.json]\n")
    assert tool_files(path) == [str(tmp_path / "a.py"), str(tmp_path / "sub" / "b.json")]
    for text in ("tools_from: a.py\n", "tools_from: [\n", "domains: {}\n", "# tools_from: [a.py]\n"):
        path.write_text(text)
        assert tool_files(path) == []


def test_the_walk_through_does_what_it_says(root, tmp_path, monkeypatch, capsys):
    page = (root / "docs" / "your-own-tools.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cafe.py").write_text(re.search(r"```python\n(.*?)```", page, re.S).group(1))
    assert main(["new", "cafe.py"]) == 0
    assert capsys.readouterr().out in page
    assert main(["lint", "cafe.yaml"]) == 0
    assert capsys.readouterr().out in page
    made = (tmp_path / "cafe.yaml").read_text()
    values, requests, corrections, examples = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert values in made
    (tmp_path / "my-requests.yaml").write_text(requests)
    assert [len(record.calls) for _, record in read_records("my-requests.yaml")] == [1, 0, 0]
    assert corrections in (tmp_path / "cafe-run.yaml").read_text()
    (tmp_path / "cafe.yaml").write_text(made.replace("examples: []\n", examples))
    found = load_toolset(tmp_path / "cafe.yaml")
    assert [tool.name for tool in found.tools] == ["order_drink", "book_table", "get_opening_hours"]
    assert len(found.examples) == 3
    assert len(generate(found, examples=100, unseen_tools=0)) == 100
    (tmp_path / "cafe.yaml").write_text("phrasings:\n  - {drink} to go\n")
    with pytest.raises(CallwrightError) as caught:
        load_toolset("cafe.yaml")
    assert str(caught.value) in page


def test_what_a_tool_is_about_is_not_said_alone_where_that_is_another_tool_or_ends_something(load):
    path = {"bike_id": {"type": "string", "description": "such as B-1234"}}
    found = load([
        tool("get_bike", "Get a bike.", path, ["bike_id"]),
        tool("delete_bike", "Delete a bike.", path, ["bike_id"]),
        tool("cancel_order", "Cancel an order.", {"order_id": {"type": "string"}}, ["order_id"]),
        tool("get_weather", "Get the weather.", {"city": {"type": "string"}}, ["city"]),
    ])  # fmt: skip
    said = {one.name: [phrasing.text.lower() for phrasing in one.phrasings] for one in found.tools}
    assert not set(said["get_bike"]) & set(said["delete_bike"])
    assert not [text for text in said["delete_bike"] if "delete" not in text]
    assert not [text for text in said["cancel_order"] if "cancel" not in text]
    assert "weather: {city}" in said["get_weather"]


@pytest.mark.parametrize(
    ("name", "about", "order"),
    [
        ("no_args", "Reboot the router.", "Reboot the router"),
        ("true_up", "Inflate the tyres of a bike.", "Inflate the tyres of a bike"),
        ("true_up", "Inflates the tyres of a bike.", "Inflate the tyres of a bike"),
        ("weather", "For the whole day.", "Get the for the whole day"),  # no order, whatever it is
    ],
)
def test_an_order_is_told_by_its_form(load, name, about, order):
    texts = [phrasing.text for phrasing in load([tool(name, about, {})]).tools[0].phrasings]
    assert order in texts
    assert not [text for text in texts if name == "true_up" and ("true up" in text or "get" in text.lower())]


@pytest.mark.parametrize(
    ("name", "part", "asked"),
    [
        ("medications", {"type": "array", "items": {"type": "string"}}, "Which medications?"),
        ("opens", {"type": "string"}, 'What should "opens" be?'),
        ("to", {"type": "string"}, 'What should "to" be?'),
        ("weight_kg", {"type": "number"}, "What is the weight in kg?"),
        ("nights", {"type": "integer"}, "How many nights?"),
        ("status", {"type": "string"}, "What is the status?"),
    ],
)
def test_what_is_missing_is_asked_for_in_plain_english(load, name, part, asked):
    found = load([tool("book_it", "Book it.", {name: part}, [name])]).tools[0]
    assert found.ask == {name: f"I need one more detail. {asked}"}
