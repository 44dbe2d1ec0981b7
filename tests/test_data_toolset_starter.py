"""`callwright new`: what it writes runs as it stands, and says where each part came from."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from callwright.cli import main
from callwright.data.toolset import serving_order
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.writer import Wordings
from callwright.runtime.config import merge, plan, starts
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file

OFFICE = '''
from typing import Literal


def book_room(room: str, date: str, start: str, end: str) -> str:
    """Book a meeting room.

    Args:
        room: e.g. Atlas, Cedar or Delta.
        date: YYYY-MM-DD.
        start: HH:MM
        end: HH:MM
    """


def order_lunch(dish: str, count: int = 1, size: Literal["small", "large"] = "small") -> str:
    """Order lunch from the canteen."""


def get_hours(weekday: str) -> str:
    """Get the opening hours on a weekday."""
'''


@pytest.fixture
def office(tmp_path, monkeypatch):
    """The folder of `office.py`, with what `callwright new` makes of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "office.py").write_text(OFFICE)
    assert main(["new", "office.py"]) == 0
    return tmp_path


def test_the_toolset_loads_and_teaches_every_tool(office):
    toolset = load_toolset(office / "office.yaml")
    assert [tool.name for tool in toolset.tools] == ["book_room", "order_lunch", "get_hours"]
    assert [str(c) for c in toolset.tools[0].constraints] == ["start < end"]
    examples = generate(toolset, 200, unseen_tools=0)
    assert {call["name"] for e in examples for call in e.calls} == {"book_room", "order_lunch", "get_hours"}
    assert all(call["arguments"]["start"] < call["arguments"]["end"]
               for e in examples for call in e.calls if call["name"] == "book_room")  # fmt: skip


def test_it_says_where_values_came_from(office):
    text = (office / "office.yaml").read_text()
    assert re.search(r"room: \[Atlas, Cedar, Delta\] +# from the description", text)
    assert re.search(r"weekday: weekday +# after the name", text)
    assert re.search(r"dish: \[maple.*# STAND-INS", text)
    assert "phrasings:          # plain ones" in text


def test_what_one_tool_says_of_a_parameter_holds_for_all_of_that_name(tmp_path, monkeypatch):
    def tool(name, about):
        properties = {"card": {"type": "string", "description": about}, "author": {"type": "string"}}
        return {"name": name, "description": "Whether it is there.", "parameters": {
            "type": "object", "properties": properties, "required": ["card", "author"]}}  # fmt: skip

    (tmp_path / "desk.json").write_text(
        json.dumps([tool("look_up", "Number"), tool("reserve", "A card, such as C00000A")])
    )
    monkeypatch.chdir(tmp_path)
    assert main(["new", "desk.json"]) == 0
    text = (tmp_path / "desk.yaml").read_text()
    assert "card: {pattern: C#####@}  # as another tool describes it" in text
    assert "card: {pattern: C#####@}  # from the description" in text
    assert "author: person  # after the name" in text
    assert "STAND-INS: nothing" not in text
    assert "I need to find out whether it is there" in text
    assert "to tell me" not in text


def test_the_run_configuration_is_valid(office, root):
    default = yaml.safe_load((root / "config/config.yaml").read_text())
    mine = yaml.safe_load((office / "office-run.yaml").read_text())
    schema = root / "workflow/schemas/config.schema.yaml"
    merged = {**default, **{key: {**default[key], **value} if isinstance(value, dict) else value
                            for key, value in mine.items()}}  # fmt: skip
    found = plan(merged, schema, root).runs["office"]
    assert (Path(found["evaluation"]["tool_encoder"]) / "tool_encoder.safetensors").is_file()
    assert found["split"]["unseen_tools"] == 0
    assert found["data"]["max_tokens"] == "auto"
    assert found["data"]["variety"]["tools_on_offer"] == "all"
    assert Path(found["data"]["mix"][0]["path"]).exists()
    assert found["corrections"] == "office-corrections.jsonl"
    goes_on, adapter = starts(found["training"])
    assert goes_on
    begun = json.loads((Path(adapter) / "adapter_config.json").read_text())  # of the shape that is trained
    assert begun["num_layers"] == found["training"]["lora"]["layers"]
    assert begun["lora_parameters"]["rank"] == found["training"]["lora"]["rank"]


def test_files_that_are_there_are_kept(office, capsys):
    assert main(["new", "office.py"]) == 1
    assert "office.yaml is there already" in capsys.readouterr().err
    assert main(["new", "office.py", "--force"]) == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.py", "import nothing_of_this_name\n", "cannot be imported: ModuleNotFoundError"),
        ("bad.json", "[{", "bad.json"),
        ("empty.py", "x = 1\n", "describes no tool"),
        ("free.json", json.dumps([{"name": "f", "description": "F", "parameters": {
            "type": "object", "properties": {"o": {"type": "object"}}, "required": ["o"]}}]),
         "no values can be made for its required parameter 'o'"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_used_is_named(tmp_path, monkeypatch, capsys, name, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    assert main(["new", name]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bad.yaml").exists()


def test_an_openapi_document_and_a_list_of_tools_are_taken_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schema = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}
    tools = [{"name": "get_stock", "description": "Get the stock of a product.", "inputSchema": schema}]
    (tmp_path / "shop.json").write_text(json.dumps({"tools": tools}))
    assert main(["new", "shop.json", "--name", "my shop", "--out", "made"]) == 0
    assert load_toolset(tmp_path / "made/my-shop.yaml").tools[0].pools["product"].entries


SERVER = '''
import sys
from typing import Literal

from mcp.server.mcpserver import MCPServer

server = MCPServer("lamps")
print("noise", file=sys.stderr, flush=True)


@server.tool()
def set_lamp(room: str, state: Literal["on", "off"], level: int = 100) -> str:
    """Switch the lamp of a room on or off."""
    return "done"


@server.tool()
def read_meter(month: str) -> str:
    """Read the power meter of a month."""
    return "12 kWh"


open(sys.argv[1], "a").write("started\\n")
server.run()
open(sys.argv[1], "a").write("ended\\n")
'''


@pytest.mark.slow
def test_the_tools_of_an_mcp_server_are_written_down_and_taken(tmp_path, monkeypatch, capfd):
    """The server is only asked once: what it listed is kept, so that training needs no server."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lamps server.py").write_text(SERVER)
    command = shlex.join([sys.executable, "lamps server.py", "log"])
    assert main(["new", "--mcp", command, "--name", "lamps", "--out", "made"]) == 0
    out, err = capfd.readouterr()
    assert (tmp_path / "log").read_text() == "started\nended\n"
    assert err == "", "what a server writes is not ours"
    assert "made/lamps.yaml: 2 tools, set_lamp, read_meter" in out
    assert "train with: snakemake --cores 1 --configfile made/lamps-run.yaml" in out
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        "lamps.yaml", "lamps-run.yaml", "lamps-tools.json",
    }  # fmt: skip

    listed = json.loads((tmp_path / "made/lamps-tools.json").read_text())
    assert [tool["function"]["name"] for tool in listed] == ["set_lamp", "read_meter"]
    lamp = listed[0]["function"]
    assert lamp["description"] == "Switch the lamp of a room on or off."
    assert lamp["parameters"]["properties"]["state"]["enum"] == ["on", "off"]
    assert (lamp["parameters"]["required"], lamp["parameters"]["properties"]["level"]["default"]) == (
        ["room", "state"], 100,
    )  # fmt: skip

    toolset = load_toolset(tmp_path / "made/lamps.yaml")
    assert [tool.definition for tool in toolset.tools] == listed
    assert "tools_from: [lamps-tools.json]" in (tmp_path / "made/lamps.yaml").read_text()
    examples = generate(toolset, 60, unseen_tools=0)
    assert {call["name"] for e in examples for call in e.calls} == {"set_lamp", "read_meter"}
    run = yaml.safe_load((tmp_path / "made/lamps-run.yaml").read_text())
    assert (run["runs"], run["toolset"]) == (["lamps"], "made/lamps.yaml")

    assert main(["new", "--mcp", command, "--name", "lamps", "--out", "made"]) == 1
    assert "made/lamps.yaml is there already" in capfd.readouterr().err
    (tmp_path / "made/lamps.yaml").unlink()
    (tmp_path / "made/lamps-run.yaml").unlink()
    assert main(["new", "--mcp", command, "--name", "lamps", "--out", "made"]) == 1
    assert "made/lamps-tools.json is there already" in capfd.readouterr().err
    assert (tmp_path / "log").read_text() == "started\nended\n", "no server is started for nothing"


@pytest.mark.slow
def test_tools_of_a_file_and_of_a_server_stand_in_domains_of_their_own(office):
    (office / "lamps.py").write_text(SERVER)
    command = shlex.join([sys.executable, "lamps.py", "log"])
    assert main(["new", "office.py", "--mcp", command, "--name", "both"]) == 0
    toolset = load_toolset(office / "both.yaml")
    domains = {}
    for tool in toolset.tools:
        domains.setdefault(tool.domain, []).append(tool.name)
    assert domains == {
        "office": ["book_room", "order_lunch", "get_hours"], "both-tools": ["set_lamp", "read_meter"],
    }  # fmt: skip


@pytest.mark.slow
def test_a_command_that_is_no_server_writes_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    command = shlex.join([sys.executable, "-c", "import sys; sys.exit('no licence')"])
    assert main(["new", "--mcp", command]) == 1
    err = capfd.readouterr().err
    assert "cannot be used" in err
    assert "no licence" in err
    assert list(tmp_path.iterdir()) == []


def test_tools_of_other_files_keep_their_test_wordings_apart(tmp_path):
    (tmp_path / "office.py").write_text(OFFICE)
    (tmp_path / "office.yaml").write_text("tools_from: [office.py]\n")
    toolset = load_toolset(tmp_path / "office.yaml")
    ids = [p.id for tool in toolset.tools for p in tool.phrasings]
    assert len(set(ids)) == len(ids)
    examples = generate(toolset, 300, unseen_tools=0)
    held_back = Wordings(toolset, 42).for_tests
    trained = {tag.removeprefix("phrasing:") for e in examples if "pool:train" in e.tags
               for tag in e.tags if tag.startswith("phrasing:")}  # fmt: skip
    tested = {tag.removeprefix("phrasing:") for e in examples if "pool:test" in e.tags
              for tag in e.tags if tag.startswith("phrasing:")}  # fmt: skip
    assert trained & held_back == set()
    assert tested & trained == {tag for tag in tested & trained if tag.startswith("small_talk")} == set()


def test_a_small_toolset_is_mostly_offered_whole_and_in_order(office):
    toolset = load_toolset(office / "office.yaml")
    names = [tool.name for tool in toolset.tools]
    examples = [e for e in generate(toolset, 300, unseen_tools=0) if e.calls]
    whole = [e for e in examples if [tool["function"]["name"] for tool in e.tools] == names]
    assert serving_order.SHARE - 0.1 < len(whole) / len(examples) < 1.0
    for e in generate(toolset, 300, unseen_tools=0):
        if "abstain:no_tool" in e.tags and "domain:small_talk" not in e.tags:  # the tool that is asked for is not there
            asked = next(tag for tag in e.tags if tag.startswith("phrasing:")).split(":")[1].split("/")[0]
            assert asked not in e.tool_names


def named(name, *parameters, required=True):
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters) if required else []}
    return {"name": name, "description": "Sends a thing.", "parameters": schema}


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (named("send mail", "to"), "'send mail': a server takes names of up to 128 letters"),
        (named("x" * 200, "to"), "a server takes names of up to 128 letters"),
        (named("send", "to whom"), "its parameter 'to whom' cannot be a slot"),
    ],
)
def test_names_that_cannot_be_served_or_said_are_told_before_anything_is_written(
    tool, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("mail.json").write_text(json.dumps([tool]))
    assert main(["new", "mail.json"]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mail.json"]


def test_a_failure_under_force_leaves_what_was_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mail.json").write_text(json.dumps([named("send", "to")]))
    Path("mail.yaml").write_text("mine")
    Path("mail-run.yaml").write_text("mine too")
    assert main(["new", "mail.json", "--name", "suites"]) == 1
    assert "results/suites is all runs' own" in capsys.readouterr().err

    def fail(path):
        raise CallwrightError("no toolset")

    monkeypatch.setattr("callwright.data.toolset.toolset.load_toolset", fail)
    assert main(["new", "mail.json", "--force"]) == 1
    assert (Path("mail.yaml").read_text(), Path("mail-run.yaml").read_text()) == ("mine", "mine too")


def test_an_optional_parameter_that_cannot_be_said_is_left_out_of_the_phrasings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mail.json").write_text(json.dumps([named("send", "X-Trace", required=False)]))
    assert main(["new", "mail.json"]) == 0
    assert "X-Trace" not in Path("mail.yaml").read_text()


def test_small_talk_is_nothing_that_a_tool_is_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gift.json").write_text(json.dumps([{**named("buy_gift_card", "to"), "description": "Buys a gift card."}]))
    assert main(["new", "gift.json"]) == 0
    text = Path("gift.yaml").read_text()
    assert "gift cards" not in text
    assert "How far is it to the moon?" in text


def test_neither_toolsets_nor_settings_are_taken_for_tools_and_no_source_replaces_another(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("gift.json").write_text(json.dumps([named("buy", "to")]))
    assert main(["new", "gift.json"]) == 0
    assert main(["new", "gift.yaml", "--name", "two"]) == 1
    assert "gift.yaml is a toolset already" in capsys.readouterr().err
    assert main(["new", "gift-run.yaml", "--name", "two"]) == 1
    assert "gift-run.yaml holds a run's settings" in capsys.readouterr().err
    Path("other").mkdir()
    Path("other/gift.json").write_text(json.dumps([named("sell", "to")]))
    assert main(["new", "gift.json", "other/gift.json", "--name", "two"]) == 1
    assert "two sources are called gift" in capsys.readouterr().err


def test_a_mistyped_tool_is_one_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mail.json").write_text(json.dumps([named("send", "to"), named("drop", "what")]))
    assert main(["new", "mail.json"]) == 0
    path = Path("mail.yaml")
    path.write_text(path.read_text().replace("    send:", "    sent:", 1))
    with pytest.raises(CallwrightError) as told:
        load_toolset(path)
    assert "domains.mail.sent: the files of `tools_from` have no such tool, but 'send'" in str(told.value)
    assert "1 fault" in str(told.value) or "faults" not in str(told.value)


def test_a_larger_base_begins_with_the_adapter_that_comes_with_the_project(tmp_path, monkeypatch, capsys, root):
    monkeypatch.chdir(tmp_path)
    Path("mail.json").write_text(json.dumps([named("send", "to")]))
    assert main(["new", "mail.json", "--base", "qwen2.5-coder"]) == 0
    assert "--configfile config/qwen2.5-coder-0.5b.yaml mail-run.yaml" in capsys.readouterr().out
    changes = yaml.safe_load(Path("mail-run.yaml").read_text())
    whole = {}
    for part in ("config/config.yaml", "config/qwen2.5-coder-0.5b.yaml"):
        whole = merge(whole, yaml.safe_load((root / part).read_text()))
    whole = merge(whole, {**changes, "toolset": str(tmp_path / "mail.yaml")})
    monkeypatch.chdir(root)
    (found,) = plan(whole, root / "workflow/schemas/config.schema.yaml").runs.values()
    assert found["model"]["name"] == "qwen2.5-coder-0.5b-instruct"
    goes_on, adapter = starts(found["training"])
    assert goes_on
    # The adapter that it begins with has the shape that it trains.
    begun = json.loads((Path(adapter) / "adapter_config.json").read_text())
    assert begun["num_layers"] == found["training"]["lora"]["layers"]
    assert begun["lora_parameters"]["rank"] == found["training"]["lora"]["rank"]


def test_the_card_of_the_adapters_names_their_files(root):
    card = (root / "adapters/README.md").read_text()
    files = sorted((root / "adapters").glob("*/*.safetensors"))
    assert len(files) == 6
    assert all(sha256_file(path) in card for path in files)


def test_a_source_of_the_toolset_s_own_name_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    operation = {"operationId": "wash_car", "summary": "Wash a car."}
    source = json.dumps({"openapi": "3.1.0", "paths": {"/wash": {"post": operation}}})
    (tmp_path / "cars.yaml").write_text(source)
    assert main(["new", "cars.yaml"]) == 0
    assert (tmp_path / "cars.yaml").read_text() == source
    assert load_toolset(tmp_path / "cars-tools.yaml").tools[0].name == "wash_car"


def test_a_folder_with_a_blank_is_quoted_in_the_command(office, capsys):
    (office / "my dir").mkdir()
    assert main(["new", "office.py", "--out", "my dir"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("train with: ")
    assert shlex.split(command)[-1] == "my dir/office-run.yaml"


def test_a_schema_s_examples_become_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = {"type": "string", "examples": ["matte", "gloss"]}
    schema = {"type": "object", "properties": {"finish": part}, "required": ["finish"]}
    (tmp_path / "paint.json").write_text(
        json.dumps([{"name": "paint", "description": "Paint it.", "input_schema": schema}])
    )
    assert main(["new", "paint.json"]) == 0
    assert "finish: [matte, gloss]  # from the schema" in (tmp_path / "paint.yaml").read_text()


def test_an_openapi_schema_s_one_example_counts_like_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finish = {"name": "finish", "in": "query", "required": True, "schema": {"type": "string", "example": "matte"}}
    city = {"name": "city", "in": "query", "required": True, "schema": {"type": "string", "example": "Oslo"}}
    operation = {"operationId": "paint", "summary": "Paint a wall.", "parameters": [finish, city]}
    Path("paint.json").write_text(json.dumps({"openapi": "3.0.0", "paths": {"/paint": {"post": operation}}}))
    assert main(["new", "paint.json"]) == 0
    text = Path("paint.yaml").read_text()
    assert "finish: [matte]  # from the schema" in text
    assert "city: city  # after the name" in text  # which has more of them


TREES = """
from dataclasses import dataclass

@dataclass
class Node:
    name: str
    children: "list[Node]"

def plant(tree: Node):
    \"\"\"Plant a tree.\"\"\"
"""


def test_a_tool_that_requires_a_recursive_value_is_left_out_and_the_others_are_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    water = 'def water(plant: str):\n    """Water a plant such as a rose, a lily or a fern."""\n'
    Path("garden.py").write_text(f"{TREES}\n{water}")
    assert main(["new", "garden.py"]) == 0
    said = capsys.readouterr()
    assert "garden.yaml: 1 tool, water" in said.out
    warning = "left out: the tool 'plant': its required parameter 'tree' is recursive"
    assert said.err.count(warning) == said.err.count("left out") == 1
    assert [tool.name for tool in load_toolset("garden.yaml").tools] == ["water"]
    assert "plant" not in yaml.safe_load(Path("garden.yaml").read_text())["domains"]["garden"]
    Path("garden.yaml").write_text(
        "tools_from: [garden.py]\ndomains: {garden: {plant: {values: {tree: ["
        "{say: an oak, value: {name: oak, children: []}}]}}}}\n"
    )
    assert {tool.name for tool in load_toolset("garden.yaml").tools} == {"plant", "water"}


def test_where_every_tool_requires_a_recursive_value_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("trees.py").write_text(TREES)
    assert main(["new", "trees.py"]) == 1
    assert "the tool 'plant': its required parameter 'tree' is recursive" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["trees.py"]
    Path("trees.yaml").write_text("tools_from: [trees.py]\n")
    with pytest.raises(CallwrightError, match=r"'plant' needs values for its parameter 'tree', which is recursive"):
        load_toolset("trees.yaml")


def test_a_file_all_of_whose_tools_are_left_out_is_none_of_the_toolset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("trees.py").write_text(TREES)
    Path("mail.json").write_text(json.dumps([named("send", "to")]))
    assert main(["new", "trees.py", "mail.json", "--name", "both"]) == 0
    written = yaml.safe_load(Path("both.yaml").read_text())
    assert (written["tools_from"], list(written["domains"])) == (["mail.json"], ["mail"])


def test_a_file_of_tools_that_is_gone_is_the_only_fault(office):
    (office / "office.py").unlink()
    with pytest.raises(CallwrightError, match=r"office\.py does not exist") as caught:
        load_toolset(office / "office.yaml")
    assert "faults" not in str(caught.value)
