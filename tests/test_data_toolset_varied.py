"""Varied requests: what training shows, in the shares that were asked for, and no tool that could serve instead."""

import random
from collections import Counter, defaultdict

import pytest

from callwright.data.records import Example, normalize
from callwright.data.toolset import definitions, foreign, wording
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.variety import STANDARD, read_sizes, read_variety
from callwright.runtime.errors import CallwrightError


@pytest.fixture(scope="module")
def toolset(root):
    return load_toolset(root / "config" / "toolsets" / "everyday.yaml")


@pytest.fixture(scope="module", params=[1, 6], ids=["alone", "grouped"])
def examples(toolset, request):
    return generate(toolset, examples=1500, variety=STANDARD, requests_per_tool_list=request.param)


def of_pool(examples, name):
    return [example for example in examples if f"pool:{name}" in example.tags]


def wordings_of(examples):
    ids = {tag.removeprefix("phrasing:") for example in examples for tag in example.tags if tag.startswith("phrasing:")}
    return {key for key in ids if not key.startswith("small_talk")}


def asked_tools(toolset, example):
    tools = {tool.name: tool for tool in toolset.tools}
    return [tools[key.split("/")[0]] for key in sorted(wordings_of([example]))]


def test_every_example_passes_the_check_of_records(examples):
    for example in examples:
        assert Example.from_row(example.to_row()) == example


def test_the_kinds_come_in_their_shares(examples):
    train = of_pool(examples, "train")
    found = Counter(example.stratum for example in train)
    shares = STANDARD.mixture
    assert found["one"] / len(train) == pytest.approx(shares["one"], abs=0.02)
    assert found["several"] / len(train) == pytest.approx(shares["several"], abs=0.02)
    assert found["abstain:missing"] / len(train) == pytest.approx(shares["missing"], abs=0.02)
    quiet = shares["no_tool"] + shares["small_talk"]
    assert found["abstain:no_tool"] / len(train) == pytest.approx(quiet, abs=0.02)
    calls = Counter(len(example.calls) for example in train if len(example.calls) > 1)
    assert calls[3] > 0.2 * calls.total()
    assert calls[4] + calls[5] > 0.08 * calls.total()


def test_lists_have_one_to_sixteen_tools_and_the_right_one_stands_anywhere(toolset):
    train = of_pool(generate(toolset, examples=1500, variety=STANDARD), "train")
    lengths = Counter(len(example.tools) for example in train if example.kind == "one")
    assert set(range(1, 17)) <= set(lengths) <= set(range(1, 18))
    places = defaultdict(Counter)
    for example in train:
        if example.kind == "one" and "twin:present" not in example.tags:
            places[len(example.tools)][example.tool_names.index(example.calls[0]["name"])] += 1
    for length in (2, 3, 4):
        counts = [places[length][at] for at in range(length)]
        assert max(counts) - min(counts) <= 0.35 * sum(counts) / length + 3, (length, counts)


def test_neither_validation_nor_tests_are_asked_in_the_words_of_training(examples):
    pools = {name: wordings_of(of_pool(examples, name)) for name in ("train", "valid", "test")}
    assert all(len(found) > 60 for found in pools.values())
    assert not pools["train"] & (pools["valid"] | pools["test"])
    assert not pools["valid"] & pools["test"]
    texts = {name: {normalize(e.query) for e in of_pool(examples, name)} for name in pools}
    assert not texts["train"] & (texts["valid"] | texts["test"])


def test_tests_list_the_tools_as_the_toolset_defines_them(toolset, examples):
    known = {tool.name: tool.definition for tool in toolset.tools}
    for example in (*of_pool(examples, "test"), *of_pool(examples, "unseen_tools")):
        assert all(known[tool["function"]["name"]] == tool for tool in example.tools)


def test_the_tests_do_not_depend_on_the_training(toolset):
    plain, other = (
        generate(toolset, examples=300, variety=variety)
        for variety in (STANDARD, read_variety({"definitions": 0, "mixture": {"one": 0.9}}))
    )
    for pool in ("test", "unseen_tools"):
        assert of_pool(plain, pool) == of_pool(other, pool)
    assert of_pool(plain, "train") != of_pool(other, "train")


def test_nothing_on_offer_serves_a_request_that_nothing_fits(toolset, examples):
    shown = defaultdict(set)  # names under which a tool is listed -> tools, by the examples that call it
    for example in examples:
        if example.kind == "one":
            shown[example.calls[0]["name"]].add(asked_tools(toolset, example)[0].name)
    count = 0
    for example in examples:
        if "abstain:no_tool" in example.tags and "domain:small_talk" not in example.tags:
            (asked,) = asked_tools(toolset, example)
            able = {asked.name, *asked.similar} | {t.name for t in toolset.tools if asked.name in t.similar}
            names = [name for name in example.tool_names if len(shown[name]) == 1]
            assert not able & {tool for name in names for tool in shown[name]}, (example.query, example.tool_names)
            count += 1
    assert count > 100


def test_twins_differ_in_the_tool_or_in_the_value(toolset, examples):
    train = of_pool(examples, "train")
    with_calls = {example.query: example for example in train if example.calls}
    absent = [example for example in train if "twin:absent" in example.tags]
    known = [example for example in absent if example.query in with_calls]
    assert len(known) > 0.9 * len(absent) > 40
    lacking = [example for example in train if "twin:lacking" in example.tags]
    assert len(lacking) > 30
    for example in lacking:
        needs = [tag.removeprefix("needs:") for tag in example.tags if tag.startswith("needs:")]
        (tool,) = asked_tools(toolset, example)
        assert example.answer == tool.ask[needs[0]]
        assert "{" not in example.query


def test_requests_in_groups_share_one_list(toolset):
    train = of_pool(generate(toolset, examples=400, variety=STANDARD, requests_per_tool_list=5), "train")
    lists = [example.tools for example in train]
    assert all(lists[at] == lists[at + step] for at in range(0, len(lists) - 5, 5) for step in range(5))


def test_a_tool_comes_under_many_names_and_descriptions(toolset, examples):
    train = of_pool(examples, "train")
    names, about = defaultdict(set), defaultdict(set)
    described = total = 0
    for example in train:
        if example.kind == "one" and not any(tool.startswith("f_") for tool in example.tool_names):
            tool = asked_tools(toolset, example)[0].name
            definition = example.tools[example.tool_names.index(example.calls[0]["name"])]["function"]
            names[tool].add(definition["name"])
            about[tool].add(definition["description"])
            for part in definition["parameters"]["properties"].values():
                described, total = described + ("description" in part), total + 1
    often = [tool for tool, found in names.items() if len(found) > 3]
    assert len(often) > 8
    assert sum(len(about[tool]) > 3 for tool in often) > 4
    assert described > 0.7 * total
    masked = [example for example in train if any(name.startswith("f_") for name in example.tool_names)]
    assert 0.12 < len(masked) / len(train) < 0.3


def test_a_renamed_call_fits_its_definition(toolset):
    rng = random.Random(3)
    for tool in toolset.tools:
        shown = definitions.redefined(tool, STANDARD, rng, masked=rng.random() < 0.3)
        parameters = shown.definition["function"]["parameters"]
        assert set(shown.names.values()) == set(parameters["properties"])
        assert set(shown.names) == set(tool.parameters["properties"])
        assert set(parameters["required"]) == {shown.names[name] for name in tool.required}
        call = shown.call({"name": tool.name, "arguments": dict.fromkeys(tool.required, 1)})
        assert call["name"] == shown.name
        assert set(call["arguments"]) == set(parameters["required"])


def test_foreign_tools_are_many_different_and_valid():
    tools = foreign.foreign_tools()
    assert 300 <= len(tools) <= 500
    assert len({tool["function"]["name"] for tool in tools}) == len(tools)
    row = {"id": "x", "messages": [{"role": "user", "content": "Hi"}], "tools": tools, "calls": [], "source": "x"}
    assert Example.from_row(row).tools == tools


@pytest.mark.parametrize(
    ("text", "three"),
    [
        ("How is it in {city.1} and in {city.2} now?", "How is it in {city.1}, in {city.2} and in {city.3} now?"),
        (
            "Set a/an {x.1} timer for {m.1} and a/an {x.2} timer for {m.2}",
            "Set a/an {x.1} timer for {m.1}, a/an {x.2} timer for {m.2} and a/an {x.3} timer for {m.3}",
        ),
        ("Compare {a.1} and {a.2}", None),
        ("Start one of {m.1} minutes and another of {m.2}", None),
        ("Send {a.1} to {b} and {a.2} too, and {a.1} again", None),
    ],
)  # fmt: skip
def test_a_phrasing_for_two_is_drawn_out(text, three):
    assert wording.drawn_out(text, 3) == three
    assert wording.drawn_out(text, 2) == text


def test_a_slip_changes_one_word_and_no_slot():
    rng = random.Random(1)
    text = "Please remind {person} about the meeting in {whatever}"
    changed = {wording.slip(text, rng) for _ in range(200)}
    for found in changed:
        words = [(a, b) for a, b in zip(text.split(), found.split(), strict=True) if a != b]
        assert len(words) <= 1
        assert {"{person}", "{whatever}"} <= set(found.split())
    assert len(changed) > 10
    assert wording.slip("Go {seconds}", rng) == "Go {seconds}"


def test_sizes_are_read_and_checked():
    assert read_sizes({"1": 0.2, "2-4": 0.8}) == ((1, 1, 0.2), (2, 4, 0.8))
    assert read_sizes("all") is None
    for wrong in ({"0": 1}, {"4-2": 1}, {"many": 1}, {"3": 0}):
        with pytest.raises(CallwrightError, match="tools_on_offer"):
            read_sizes(wrong)


def test_all_tools_may_be_on_offer(root):
    own = load_toolset(root / "config" / "toolsets" / "flats.yaml")
    shown_as_served = read_variety({"tools_on_offer": "all", "foreign": 0, "definitions": 0})
    made = generate(own, examples=200, unseen_tools=0, variety=shown_as_served)
    called = [example for example in of_pool(made, "train") if example.calls]
    assert sum(len(example.tools) == 10 for example in called) > 0.95 * len(called)


def test_free_texts_are_spliced_and_only_in_training(root):
    own = load_toolset(root / "config" / "toolsets" / "library.yaml")
    listed = {text for tool in own.tools if "title" in tool.pools for text, _ in tool.pools["title"].entries}
    how = {"tools_on_offer": "all", "foreign": 0, "definitions": 0, "slips": 0}

    def titles(made, pool):
        calls = [call for example in of_pool(made, pool) for call in example.calls]
        return [call["arguments"]["title"] for call in calls if "title" in call["arguments"]]

    made = generate(own, examples=300, unseen_tools=0, variety=read_variety({**how, "spliced": 0.5}))
    new = [title for title in titles(made, "train") if title not in listed]
    assert 0.3 < len(new) / len(titles(made, "train")) < 0.7
    assert len(set(new)) > 20
    assert any(title.islower() for title in new)
    assert set(titles(made, "test")) <= listed
    plain = generate(own, examples=300, unseen_tools=0, variety=read_variety(how))
    assert set(titles(plain, "train")) <= listed
    branches = {call["arguments"].get("branch") for example in made for call in example.calls}
    assert branches <= {None, "central", "harbor", "millfield"}
