"""Tools that are hard to call are named with what to write instead; good ones are left in peace."""

import pytest
from fixtures_toolset import TOOLSET

from callwright.cli import main
from callwright.data.toolset.lint import lint, speakable
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.toolset_lint import lint_toolset


def tool(name, about="", **properties):
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


TEXT = {"type": "string"}
GOOD = tool("book_table", "Reserve seats in the restaurant for an evening.",
            people={"type": "integer"}, city={**TEXT, "description": "The restaurant's city."})  # fmt: skip


def rules(*tools):
    return {(hint.tool, hint.parameter, hint.rule) for hint in lint(tools)}


def test_a_good_tool_has_no_hints():
    assert lint([GOOD]) == []


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        (tool("do_it2", "Reserve seats."), (None, None)),
        (tool("run", "Reserve seats in the restaurant."), ("run", "name")),
        (tool("fn1", "Reserve seats in the restaurant."), ("fn1", "name")),
        (tool("book_table"), ("book_table", "no_description")),
        (tool("book_table", "Book table."), ("book_table", "same_description")),
        (tool("book_table", "Reserve " + "very good " * 40 + "seats."), ("book_table", "long_description")),
        (tool("book_table", "Reserve seats.", **{f"city{n}": {"type": "boolean"} for n in range(9)}),
         ("book_table", "many_parameters")),
    ],
)  # fmt: skip
def test_tools(found, rule):
    named = {(hint.tool, hint.rule) for hint in lint([found]) if hint.parameter is None}
    assert named == ({rule} if rule[0] else set())


@pytest.mark.parametrize(
    ("part", "name", "rule"),
    [
        (TEXT, "data", "undescribed"), (TEXT, "flux", "undescribed"),
        ({**TEXT, "description": "How strong"}, "flux", None),
        (TEXT, "deadline", "form"), ({**TEXT, "description": "YYYY-MM-DD"}, "deadline", None),
        ({**TEXT, "format": "date"}, "due_date", None), ({**TEXT, "enum": ["X_1", "fast"]}, "speed", "unsayable"),
        ({**TEXT, "enum": ["small", "extra_large"]}, "size", None), ({**TEXT, "enum": [f"kind {c}" for c in
         "abcdefghijklmnopq"]}, "kind", "many_values"), ({"type": "object"}, "settings", "free_object"),
        ({"description": "anything"}, "thing", "no_type"), ({"type": "boolean"}, "no_mail", "negative"),
        ({"type": "boolean"}, "urgent", None),
    ],
)  # fmt: skip
def test_parameters(part, name, rule):
    found = {hint.rule for hint in lint([tool("book_table", "Reserve seats for an evening.", **{name: part})])}
    assert rule in found if rule else not found


def test_tools_that_read_alike_are_named_as_a_pair():
    twins = [tool("find_order", "Find a customer's order."), tool("search_orders", "Find the orders of a customer.")]
    (hint,) = [hint for hint in lint(twins) if hint.rule == "overlap"]
    assert (hint.tool, "find_order" in hint.found) == ("search_orders", True)
    assert not [hint for hint in lint([GOOD, twins[0]]) if hint.rule == "overlap"]


def test_speakable():
    assert all(map(speakable, ["small", "extra_large", "EUR", "en", "en-GB", "80", "inProgress"]))
    assert not any(map(speakable, ["X_1", "t3hd", "", "bcdf", "a b c d e f"]))


def test_a_toolset_is_told_what_its_requests_lack(tmp_path):
    path = tmp_path / "cafe.yaml"
    path.write_text(TOOLSET)
    found = {hint.rule for hint in lint_toolset(load_toolset(path))}
    assert found == {"few_phrasings", "no_missing", "few_values", "small_talk"}


def test_the_command_ends_with_1_only_where_hints_are_errors(tmp_path, capsys):
    path = tmp_path / "cafe.yaml"
    path.write_text(TOOLSET)
    assert main(["lint", str(path)]) == 0
    assert main(["lint", str(path), "--strict"]) == 1
    assert "1 tool, 4 hints" in capsys.readouterr().out
    path.write_text(TOOLSET.replace("{drink}, please", "{drnk}, please"))
    assert main(["lint", str(path)]) == 1
    assert "line 8" in capsys.readouterr().err


def test_many_tools_that_read_alike_are_told_once_each():
    many = [tool(f"get_thing_{name}", "Get a thing from the store.") for name in "abcdefghijklmnopqrst"]
    hints = lint(many)
    assert hints[0].rule == "many_tools"
    alike = [hint for hint in hints if hint.rule == "overlap"]
    assert len(alike) == len(many) - 1
    assert "and 18 more" in alike[-1].found


def test_a_phrasing_of_two_tools_is_told(tmp_path):
    path = tmp_path / "set.yaml"
    path.write_text("""
domains:
  shop:
    sell:
      description: Sell it.
      parameters: {what: {type: string}}
      values: {what: [tea]}
      phrasings: ["{what}, please", "sell {what}"]
    buy:
      description: Buy it.
      parameters: {it: {type: string}}
      values: {it: [tea]}
      phrasings: ["{it}, Please", "buy {it}"]
""")
    (hint,) = [hint for hint in lint_toolset(load_toolset(path)) if hint.rule == "same_phrasing"]
    assert hint.tool == "buy"
    assert "sell" in hint.found
