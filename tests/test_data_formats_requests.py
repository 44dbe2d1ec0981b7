"""Requests written by hand: read with their tools, checked against them, and the project's own three files."""

from collections import Counter
from pathlib import Path

import pytest

from callwright.data.formats.requests import HELD_BACK, read_requests, tool_sources
from callwright.data.grounding import ungrounded
from callwright.data.similarity import Index
from callwright.data.sources import read_records
from callwright.data.toolset.toolset import load_toolset
from callwright.evals.suites import is_answerable
from callwright.runtime.errors import CallwrightError

SUITES = Path(__file__).parents[1] / "config" / "suites"
TOOLSET = """
domains:
  home:
    set_light:
      description: Switch a light.
      parameters: {room: {type: string}, on: {type: boolean}}
      values: {room: [hall], on: [{say: "on", value: true}]}
      phrasings: ["Switch the {room} light {on}"]
"""


def written(tmp_path, requests):
    (tmp_path / "home.yaml").write_text(TOOLSET, encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(f"toolset: home.yaml\nrequests:\n{requests}", encoding="utf-8")
    return path


def test_calls_alternatives_and_questions(tmp_path):
    path = written(
        tmp_path,
        '  - say: It is dark in the hall\n    calls: [{set_light: {room: {or: [hall, the hall, ~]}, "on": true}}]\n'
        "  - say: It is dark here\n    ask: [room]\n  - say: Hello\n",
    )
    call, asking, talk = (example for _, example in read_records(path))
    assert call.calls == [{"name": "set_light", "arguments": {"room": "hall", "on": True}}]
    assert call.possible == [{"room": ["hall", "the hall", ""], "on": [True]}]
    assert (call.tool_names, call.stratum) == (["set_light"], "one")
    assert asking.stratum == "abstain:missing"
    assert "needs:room" in asking.tags
    assert talk.stratum == "abstain:no_tool"
    assert not talk.calls
    assert tool_sources(path) == [str(tmp_path / "home.yaml")]


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("  - say: Hi\n    calls: [{sing: {}}]", "there is no tool 'sing'"),
        ("  - say: Hi\n    calls: [{set_light: {room: hall}}]", "lacks"),
        ("  - say: Hi\n    calls: [{set_light: {room: hall, 'on': 3}}]", "line 3"),
        ("  - say: Hi\n    calls: [{set_light: {place: hall}}]", "no parameter 'place'"),
        ("  - calls: []", "`say`"),
        ("  - ask: Hi", "it stands under `say`"),
        ("  - say: Hi\n    tool: x", "tool"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path, entry, found):
    with pytest.raises(CallwrightError, match="mine.yaml") as error:
        list(read_requests(written(tmp_path, entry)))
    assert found in str(error.value)


def test_tools_in_the_file_itself_and_what_is_said_where_nothing_is_called(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "tools:\n  - name: set_light\n    parameters: {type: object, properties: {room: {type: string}}, "
        "required: [room]}\n"
        "requests:\n  - say: It is dark here\n    ask: [room]\n  - say: Ta!\n    answer: You're welcome.\n"
        "  - say: Sing\n",
        encoding="utf-8",
    )
    asking, talk, sing = (example for _, example in read_records(tmp_path))  # a folder of such files
    assert asking.tool_names == ["set_light"]
    assert asking.answer == "I need one more detail. Which room should I use?"
    assert talk.answer == "You're welcome."
    assert sing.answer is None
    assert tool_sources(path) == []


@pytest.mark.parametrize(
    ("tools", "found"),
    [
        ("[]", "list of tools"),
        ("nonsense", "list of tools"),
        ("[{name: 5}]", "name is 5"),
        ("[{name: f, parameters: {type: object}}, {name: f}]", "twice"),
    ],
)
def test_tools_in_the_file_that_cannot_be_used(tmp_path, tools, found):
    (tmp_path / "mine.yaml").write_text(f"tools: {tools}\nrequests:\n  - say: Hi\n", encoding="utf-8")
    with pytest.raises(CallwrightError, match=found):
        read_requests(tmp_path / "mine.yaml")


def test_requests_of_the_training_set():
    """What `config/requests` promises: 288 lists of tools, each tool asked for, and no domain that is tested."""
    files = sorted((SUITES.parent / "requests").glob("*.yaml"))
    tested = {path.stem for path in SUITES.glob("*.yaml")}
    seen, held_back = {}, 0
    for path in files:
        examples = [example for _, example in read_requests(path)]
        called = {call["name"] for example in examples for call in example.calls}
        assert called == set(examples[0].tool_names), path
        assert all(is_answerable(example) for example in examples if example.calls), path
        assert len({HELD_BACK in example.tags for example in examples}) == 1, path
        held_back += HELD_BACK in examples[0].tags
        seen |= {example.query: path.stem for example in examples}
    assert len(files) == 288
    assert held_back == 32
    assert len(seen) == 16191
    assert not tested & {path.stem for path in files}
    known = Index()
    for query in seen:
        known.add(query, query)
    for path in SUITES.glob("*.yaml"):
        assert not [near for _, example in read_requests(path) for near in known.near(example.query)]


def test_a_hundred_test_requests_in_other_words(root):
    """Of the default run's test_seen: every argument is still said, and no request is."""
    examples = [example for _, example in read_records(SUITES / "rephrased.jsonl")]
    assert len({example.query for example in examples}) == 100
    assert not [example.query for example in examples if ungrounded(example)]
    assert Counter(example.kind for example in examples) == {"one": 59, "several": 23, "none": 18}


@pytest.mark.parametrize("name", ["dental", "garden_shop", "flats"])
def test_the_projects_own_requests(name):
    examples = [example for _, example in read_requests(SUITES / f"{name}.yaml")]
    assert len(examples) == 60
    assert sum(not example.calls for example in examples) == 12
    assert {len(example.tools) for example in examples} == {10}
    assert all(is_answerable(example) for example in examples if example.calls)
    called = {call["name"] for example in examples for call in example.calls}
    assert called == set(examples[0].tool_names)  # each tool is asked for
    toolset = load_toolset(SUITES.parent / "toolsets" / f"{name}.yaml")
    assert all(len(tool.phrasings) == 4 for tool in toolset.tools)
