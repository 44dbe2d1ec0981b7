"""The toolset file: what it may say, and how a fault in it is answered: file, line, key and what is wrong."""

import random
import re

import pytest

from callwright.data import schema
from callwright.data.records import Example
from callwright.data.toolset import toolset as toolset_module
from callwright.data.toolset.generate import generate
from callwright.data.toolset.pools import CHIT_CHAT
from callwright.data.toolset.toolset import load_toolset
from callwright.runtime.errors import CallwrightError

HOME = """\
name: home
values:
  city: [Oslo, Rome, Lima]
domains:
  weather:
    get_weather:
      description: Current weather in a city.
      parameters:
        city: {type: string}
        unit: {type: string, enum: [celsius, fahrenheit]}
      optional: [unit]
      values:
        unit: [{say: in Celsius, value: celsius}, {say: in Fahrenheit, value: fahrenheit}]
      phrasings:
        - What's the weather in {city}?
        - Look up the weather in {city}[ {unit}]
      twice:
        - Compare the weather in {city.1} and {city.2}
      ask: {city: "Which city?"}
      missing:
        - How warm is it?
      similar: [get_forecast]
    get_forecast:
      description: Weather of the next days.
      parameters:
        city: {type: string}
        days: {type: integer}
      values: {days: {integer: {from: 2, to: 9}}}
      phrasings:
        - Forecast {city} for {days} days
small_talk:
  - [Thanks!, You're welcome!]
  - Tell me a joke about {city}
no_tool: [I have no tool for that.]
mixture: {one: 0.6, several: 0.22, no_tool: 0.09, missing: 0.09}
"""


@pytest.fixture
def load(tmp_path):
    """Load a toolset from its text."""

    def from_text(text):
        path = tmp_path / "tools.yaml"
        path.write_text(text, encoding="utf-8")
        return load_toolset(path)

    return from_text


def test_the_shipped_toolset_loads(root):
    toolset = load_toolset(root / "config" / "toolsets" / "everyday.yaml")
    assert toolset.name == "everyday"
    assert len(toolset.tools) >= 120
    assert len(toolset.domains) >= 20
    assert sum(toolset.mixture.values()) == pytest.approx(1)
    answers = [question for tool in toolset.tools for question in tool.ask.values()] + list(toolset.no_tool)
    answers += [answer for _, answer in toolset.small_talk if answer]
    assert {re.match(r"\w+", answer).group() for answer in answers} == {"I"}, "one first word for all that is no call"
    kinds = {json_type(part) for tool in toolset.tools for part in tool.parameters["properties"].values()}
    assert kinds == {"string", "enum", "integer", "number", "boolean", "array", "array of objects", "object"}
    for tool in toolset.tools:
        assert len(tool.phrasings) >= 8, tool.name
        assert len(tool.missing) >= 3, tool.name
        assert len({phrasing.text for phrasing in tool.phrasings}) == len(tool.phrasings), tool.name
        assert tool.definition["function"]["parameters"]["properties"], tool.name


def json_type(part):
    if "enum" in part:
        return "enum"
    return "array of objects" if "properties" in part.get("items", {}) else part["type"]


def test_the_example_of_the_documentation_loads(load):
    example = re.search(r"```yaml\n(.*?)```", toolset_module.__doc__, re.S).group(1)
    toolset = load(example)
    assert [tool.name for tool in toolset.tools] == ["get_weather", "get_forecast"]
    assert len(generate(toolset, examples=20)) == 20


def test_a_tool_is_read_with_its_phrasings_and_values(load):
    toolset = load(HOME)
    weather, forecast = toolset.tools
    assert weather.definition == {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city"],
            },
        },
    }
    assert [(p.id, p.order, p.slots, p.certain) for p in weather.phrasings] == [
        ("get_weather/phrasings/0", False, (("city", 0),), (("city", 0),)),
        ("get_weather/phrasings/1", True, (("city", 0), ("unit", 0)), (("city", 0),)),
    ]
    assert {weather.phrasings[1].plain(random.Random(seed)) for seed in range(9)} == {
        "Look up the weather in {city}",
        "Look up the weather in {city} {unit}",
    }
    assert weather.twice[0].slots == (("city", 1), ("city", 2))
    assert weather.pools["unit"].entries == [("in Celsius", "celsius"), ("in Fahrenheit", "fahrenheit")]
    assert weather.pools["city"] is forecast.pools["city"]
    assert weather.similar == {"get_forecast"}
    own = [(phrasing.text, answer) for phrasing, answer in toolset.small_talk if "built-in" not in phrasing.id]
    assert own == [("Thanks!", "You're welcome!"), ("Tell me a joke about {city}", None)]
    assert len(toolset.small_talk) == 2 + len(CHIT_CHAT)
    assert toolset.domains == ["weather"]


def test_the_parameters_may_be_one_json_schema_with_definitions(load):
    plain = "        city: {type: string}\n        days: {type: integer}\n"
    assert plain in HOME
    whole = (
        "        {type: object, required: [city, days], $defs: {few: {type: integer, maximum: 9}},\n"
        "         properties: {city: {type: string}, days: {$ref: '#/$defs/few'}}}\n"
    )
    tool = load(HOME.replace(plain, whole)).tools[1]
    assert tool.required == ["city", "days"]
    assert schema.validate({"city": "Rome", "days": 10}, tool.definition["function"]["parameters"])
    with pytest.raises(
        CallwrightError, match="does not fit the parameter of get_forecast: days: .* greater than the maximum of 9"
    ):
        load(HOME.replace(plain, whole).replace("to: 9", "to: 30"))


def test_a_phrasing_may_fix_arguments(load):
    cold = "- {say: 'How many degrees Celsius is it?', arguments: {unit: celsius}}"
    assert load(HOME.replace("- How warm is it?", cold)).tools[0].missing[0].arguments == {"unit": "celsius"}
    plain = "- {say: 'The {days}-day forecast for {city}'}"
    assert load(HOME.replace("- Forecast {city} for {days} days", plain)).tools[1].phrasings[0].arguments == {}


def test_words_are_those_of_yaml_1_2(load):
    texts = ["on", "off", "yes", "no", "y", "7:30", "2026-01-31", "0x1f", "1_000", "012", ".5", "=", "<<"]
    tool = load(HOME.replace("Oslo, Rome, Lima", ", ".join(texts))).tools[0]
    assert [value for _, value in tool.pools["city"].entries] == texts
    tool = load(HOME.replace("{integer: {from: 2, to: 9}}", "[12, -3]")).tools[1]
    assert [value for _, value in tool.pools["days"].entries] == [12, -3]
    tool = load(
        HOME.replace("type: integer", "type: number").replace("{integer: {from: 2, to: 9}}", "[1.5, 1e3]")
    ).tools[1]
    assert [value for _, value in tool.pools["days"].entries] == [1.5, 1000.0]
    for other in ("true", "null", "~"):
        with pytest.raises(CallwrightError, match="neither text nor a number"):
            load(HOME.replace("Lima", other))


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path):
    path = tmp_path / "tools.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + HOME.replace("\n", "\r\n").encode())
    assert load_toolset(path).name == "home"


def test_what_is_left_out_has_defaults(tmp_path, load):
    text = HOME[: HOME.index("small_talk:")].replace("name: home\n", "")
    toolset = load(text)
    assert (toolset.name, len(toolset.small_talk)) == ("tools", len(CHIT_CHAT))
    assert toolset.no_tool == ("I can't do that with the tools I have.",)
    assert toolset.mixture == pytest.approx({"one": 0.6, "several": 0.22, "no_tool": 0.09, "missing": 0.09})


def test_shares_are_scaled_to_one(load):
    mixture = load(re.sub("mixture: .*", "mixture: {one: 1, several: 1, no_tool: 0, missing: 0}", HOME)).mixture
    assert mixture == {"one": 0.5, "several": 0.5, "no_tool": 0, "missing": 0}


def test_examples_of_a_small_toolset_pass_every_check(load):
    for seed in range(5):
        for example in generate(load(HOME), examples=40, seed=seed):
            Example.from_row(example.to_row())


# What HOME says, and a line of it.
POOL = "city: [Oslo, Rome, Lima]"
FORECAST = "- Forecast {city} for {days} days"
TWICE = "- Compare the weather in {city.1} and {city.2}"
RANGE = "{integer: {from: 2, to: 9}}"
SHARES = "{one: 0.6, several: 0.22, no_tool: 0.09, missing: 0.09}"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("name: home", "name: [home", 2, "not valid YAML: expected ',' or ']'"),
        ("name: home", "name: home\n bad: x", 2, "not valid YAML: mapping values are not allowed here"),
        ("name: home", "name: !!python/name:os.system", 1, "not valid YAML: could not determine a constructor"),
        ("name: home", "name: home\nname: twice", 2, "not valid YAML: the key 'name' stands here twice"),
        ("        days:", "        city: {}\n        days:", 27, "not valid YAML: the key 'city' stands here twice"),
        ("name: home", "name: home\n---\nname: other", 2, "not valid YAML: but found another document"),
        ("name: home", "nam: home", 1, "nam: this key is not known; known are domains, examples, mixture, name"),
        ("name: home", "name: home\n5: x", 1, "the key 5 is not text; put it in quotes"),
        (POOL, "city: []", 3, "values.city: the list of values is empty"),
        (POOL, "city: {integr: 5}", 3, "values.city: found {'integr': 5}, expected a list of values"),
        (POOL, "city: [7]", 3, "values.city: the value of '7' does not fit the parameter of get_weather: city: 7 is"),
        (f"values:\n  {POOL}", "values:", 2, "values: found None, expected a mapping"),
        ("domains:", "domain:", 4, "domain: this key is not known"),
        ("  weather:", "  home: x\n  weather:", 5, "domains.home: found 'x', expected a mapping"),
        ("similar: [get_forecast]\n    get_forecast:", "similar: []\n  more:\n    get_weather:", 24,
         "domains.more.get_weather: a tool of this name stands in the domain 'weather' already"),
        ("      similar", "      similiar", 22, "domains.weather.get_weather.similiar: this key is not known"),
        ("description: Current", "about: Current", 7, "domains.weather.get_weather.about: this key is not known"),
        ("      description: Current weather in a city.\n", "", 6, "get_weather: the tool has no `description`"),
        ("optional: [unit]", "optional: [units]", 11, "get_weather.optional: there is no parameter 'units'"),
        ("optional: [unit]", "optional: unit", 11, "get_weather.optional: found 'unit', expected a list"),
        (
            "{type: integer}",
            "{type: whole}",
            27,
            "parameters.days: not a JSON Schema: properties.days.type: 'whole' is not valid",
        ),
        ("{type: integer}", "integer", 27, "get_forecast.parameters.days: found 'integer', expected a mapping"),
        ("{type: integer}", f"{{maximum: {2**70}}}", 25, "get_forecast.parameters: an integer of more than 64 bits"),
        (RANGE, "{integer: {from: 9, to: 2}}", 28, "get_forecast.values.days: `integer` goes from 9 to 2"),
        (RANGE, "{number: {from: 2, to: 9}}", 28, "is not of type 'integer'"),
        ("values: {days", "values: {hours", 28, "values.hours: this key is not known; known are city, days"),
        ("value: fahrenheit", "value: kelvin", 13, "values.unit: the value of 'in Fahrenheit' does not fit"),
        (FORECAST, "- []", 30, "get_forecast.phrasings.0: found [], expected text"),
        (f"phrasings:\n        {FORECAST}", "phrasings: []", 23, "get_forecast: the tool has no `phrasings`"),
        (f"phrasings:\n        {FORECAST}", "phrasings: Go", 29, "get_forecast.phrasings: found 'Go', expected a list"),
        (FORECAST, "- Forecast for {city}", 30,
         "phrasings.0: no value for the required parameter 'days': add {days}, or move the phrasing to `missing`"),
        (FORECAST, "- Forecast {town} {days}", 30, "get_forecast.phrasings.0: the slot {town} has no values"),
        (FORECAST, "- Forecast {my city}", 30, "has a brace that is no slot; slots are written {city}"),
        (FORECAST, "- Forecast {city.1} {days}", 30, "{city.1} is for requests under `twice`"),
        (FORECAST, "- Forecast [{city} {days}", 30, "has a square bracket without its partner"),
        (FORECAST, "- '[Forecast {city} {days}]'", 30, "has a square bracket without its partner, or nothing outside"),
        (FORECAST, "- Forecast for {city}[ and {days} days]", 30, "no value for the required parameter 'days'"),
        (FORECAST, "- Forecast: {city}", 30, "expected text; quote it if it has a colon"),
        (FORECAST, "- ''", 30, "get_forecast.phrasings.0: found '', expected text"),
        (FORECAST, "- {say: '{days}', arguments: {town: Rome}}", 30, "arguments.town: this key is not known"),
        (FORECAST, "- {say: '{days}', arguments: {city: 5}}", 30, "arguments: city: 5 is not of type 'string'"),
        (FORECAST, "- {say: '{days}', argument: {city: Rome}}", 30, "phrasings.0.argument: this key is not known"),
        (TWICE, "- Compare {city}", 18, "twice.0: expected a slot for each call, as {city.1} and {city.2}"),
        (TWICE, "- See {city.1}, {unit.1} and {unit.2}", 18, "twice.0: call 2 lacks the required 'city'"),
        ("- How warm", "- How warm in {city}", 21, "missing.0: this phrasing lacks no required parameter"),
        ('ask: {city: "Which city?"}', "ask: {}", 21, "missing.0: `ask` has no question for 'city'"),
        ("ask: {city", "ask: {town", 19, "get_weather.ask.town: this key is not known"),
        ("similar: [get_forecast]", "similar: [get_forcast]", 22, "similar.0: there is no tool 'get_forcast'"),
        ("[Thanks!, ", "[Thanks, and, ", 32, "small_talk.0: expected a request, or [request, answer]; quote commas"),
        ("- Tell me a joke about {city}", "- 5", 33, "small_talk.1: expected a request"),
        ("no_tool: [I have", "no_tool: [1, I have", 34, "no_tool.0: found 1, expected text"),
        ("one: 0.6", "one: 60", 35, "mixture.one: found 60, expected a share from 0 to 1"),
        ("one: 0.6", "one: most", 35, "mixture.one: found 'most', expected a share from 0 to 1"),
        ("one: 0.6", "single: 0.6", 35, "mixture.single: this key is not known; known are missing, no_tool, one"),
        (SHARES, "{one: 0, several: 0, no_tool: 0, missing: 0}", 35, "mixture: the shares are all 0"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_line_and_key(load, old, new, line, message):
    assert old in HOME
    with pytest.raises(CallwrightError) as caught:
        load(HOME.replace(old, new, 1))
    found = str(caught.value)
    assert re.search(rf"(tools\.yaml, |\n  )line {line}\b.*{re.escape(message)}", found), found
    assert found.count("\n") in (0, 2), "one fault, or two where the second follows from the first"


def test_all_faults_are_told_at_once_in_the_order_of_the_file(load):
    broken = (
        HOME.replace("name: home", "nam: home")
        .replace("{integer: {from: 2, to: 9}}", "{integr: {}}")
        .replace("- What's the weather in {city}?", "- What's the weather in {town}?")
        .replace("one: 0.6", "one: 60")
    )
    with pytest.raises(CallwrightError) as caught:
        load(broken)
    lines = str(caught.value).split("\n  ")
    assert re.search(r"tools\.yaml: 4 faults$", lines[0])
    assert [re.match(r"line (\d+): (\S+):", line).groups() for line in lines[1:]] == [
        ("1", "nam"),
        ("15", "domains.weather.get_weather.phrasings.0"),
        ("28", "domains.weather.get_forecast.values.days"),
        ("35", "mixture.one"),
    ]
    many = "\n".join(["values: {}", "domains:", "  d:", *(f"    t{n}: {{parameters: {{}}}}" for n in range(8))])
    with pytest.raises(CallwrightError, match="16 faults\n  line 4: .* no `description`") as caught:
        load(many)
    assert str(caught.value).endswith("\n  and 6 more")
    assert len(str(caught.value).splitlines()) == 12


def test_a_fault_of_a_shared_pool_is_told_once(load):
    with pytest.raises(CallwrightError, match=r"line 3: values.city: the list of values is empty$"):
        load(HOME.replace("[Oslo, Rome, Lima]", "[]"))
    with pytest.raises(CallwrightError, match=r"line 3: values.city: the value of '7' does not fit") as caught:
        load(HOME.replace("[Oslo, Rome, Lima]", "[7]"))
    assert "faults" not in str(caught.value)


def test_tabs_and_wrong_indentation_are_answered_with_what_to_do(load):
    with pytest.raises(CallwrightError, match=r"line 3, column 1: not valid YAML: .*indent by spaces, not tabs"):
        load(HOME.replace("  city: [", "\tcity: ["))
    with pytest.raises(CallwrightError, match=r"line 7.*not valid YAML: .*quote the text if it has a colon"):
        load(HOME.replace("description: Current weather", "description: Weather: current"))
    with pytest.raises(
        CallwrightError, match=r"line 7.*not valid YAML: .*the indentation of this line fits none above it"
    ):
        load(HOME.replace("    get_weather:\n      desc", "      get_weather:\n     desc"))


def test_common_pools_need_no_entry_and_give_way_to_those_of_the_file(load):
    tool = load(HOME.replace("values:\n  city: [Oslo, Rome, Lima]\n", "")).tools[0]
    assert ("Vienna", "Vienna") in tool.pools["city"].entries
    assert ("Vienna", "Vienna") not in load(HOME).tools[0].pools["city"].entries


@pytest.mark.parametrize(("pool", "said"), [("in degrees", "in degrees"), ("kelvin", "celsius")])
def test_a_shared_pool_of_an_enums_name_says_its_values_where_it_has_no_others(load, pool, said):
    value = "celsius" if pool == "in degrees" else pool
    text = HOME.replace("values:\n  city:", f"values:\n  unit: [{{say: {pool}, value: {value}}}]\n  city:", 1)
    text = "\n".join(line for line in text.splitlines() if "unit: [{say: in Celsius" not in line)
    text = text.replace("      values:\n      phrasings:\n        - What's", "      phrasings:\n        - What's")
    tool = next(tool for tool in load(text).tools if tool.name == "get_weather")
    drawn = {tool.pools["unit"].draw(random.Random(seed))[0] for seed in range(20)}
    assert drawn == ({said} if said == "in degrees" else {"celsius", "fahrenheit"})


def test_what_is_no_toolset_at_all_is_answered(tmp_path):
    path = tmp_path / "tools.yaml"
    with pytest.raises(CallwrightError, match=r"tools\.yaml does not exist: name a file by `toolset:`"):
        load_toolset(path)
    for content, message in [
        (b"", "found None, expected a mapping"),
        (b"# only a comment\n", "found None, expected a mapping"),
        (b"- a\n- b\n", r"line 1: found \['a', 'b'\], expected a mapping"),
        (b"name: caf\xe9\n", "not UTF-8 at byte 9; save the file as UTF-8"),
        (b"name: a\x00b\n", "not valid YAML: unacceptable character"),
        (b"name: x\n", "domains: found None, expected a mapping"),
        (b"domains: {}\n", "line 1: domains: there is no tool"),
        (b"name: " + b"[" * 5000, "not valid YAML"),
        (b"? [a, b]\n: c\n", "not valid YAML: found unhashable key"),
        (b"values: &x {a: *x}\n", "expected a list of values"),
    ]:
        path.write_bytes(content)
        with pytest.raises(CallwrightError, match=message) as caught:
            load_toolset(path)
        assert "tools.yaml" in str(caught.value)
    with pytest.raises(CallwrightError, match="cannot be read: Is a directory"):
        load_toolset(tmp_path)


def test_a_damaged_file_is_never_answered_with_a_traceback(load):
    lines, rng = HOME.splitlines(), random.Random(7)
    damaged = ["\n".join(lines[:number] + lines[number + 1 :]) for number in range(len(lines))]
    for _ in range(150):
        at, cut = rng.randrange(len(HOME)), rng.randrange(6)
        junk = rng.choice(["", "{", "]", ": ", "\n", "'", "- ", "null", "7", "&a ", "*a"])
        damaged.append(HOME[:at] + junk + HOME[at + cut :])
    answers = [complaint(load, text) for text in damaged]
    assert sum(answer is not None for answer in answers) > 100
    assert all("tools.yaml" in answer for answer in answers if answer is not None)


def complaint(load, text):
    """What is said about this toolset; None when it loads."""
    try:
        load(text)
    except CallwrightError as error:
        return str(error)
