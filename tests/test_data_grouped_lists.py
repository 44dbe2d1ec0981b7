"""Requests of several records under one list: each still answers its request, and nothing else could."""

import dataclasses

import pytest
import yaml

from callwright.chat.tokens import token_counter, tokenize_example
from callwright.data.grouped_lists import put_together, tool_counter
from callwright.data.negatives import about, content_words, make
from callwright.data.records import Example
from callwright.data.sources import read_records
from callwright.lora.batches import epoch_batches, to_records
from callwright.lora.sharing import with_beginnings
from callwright.models.load import load_tokenizer
from callwright.runtime.config import resolve
from callwright.runtime.errors import CallwrightError

from fixtures_records import FORECAST, POEM, STOCK, WEATHER, asking, tool  # isort: skip

WANTED = {"requests": 6, "tools": 16, "tokens": [350, 900]}


def words(example) -> int:
    """A stand-in for tokens: the words of what is listed, asked and answered."""
    listed = sum(len(str(tool).split()) for tool in example.tools)
    return listed + len(str(example.messages).split()) + len(str(example.calls).split())


def together(examples, seed=1, most=2000, **changes):
    return put_together(examples, {**WANTED, **changes}, seed, tool_counter(words), words, most)


@pytest.fixture(scope="module")
def real(xlam_sample):
    """Records of many kinds, a tenth of them without a call."""
    found = [record for _, record in read_records(xlam_sample) if isinstance(record, Example)]
    return make(found, 0.1, 1, lambda example: True)[0]


@pytest.fixture
def own_lists():
    """Three requests that have nothing in common, each with its tool."""
    return [
        asking("What does ACME cost?", STOCK, name="stock_price", symbol="ACME"),
        asking("Is it wet in Rome?", WEATHER, city="Rome"),
        asking("Something on spring", POEM, name="write_poem", topic="spring"),
    ]


def names(example):
    return {tool["function"]["name"] for tool in example.tools}


def test_every_request_keeps_its_answer_and_gains_only_tools_that_cannot_serve_it(real):
    made, counts = together(real)
    before = {example.id: example for example in real}
    assert [example.id for example in made] == [example.id for example in real]
    checked = 0
    for example in made:
        old = before[example.id]
        assert dataclasses.replace(example, tools=old.tools) == old, "all but the list is as it was"
        assert Example.from_row(example.to_row()) == example
        called = {call["name"] for call in example.calls}
        for listed in example.tools:
            if listed not in old.tools:
                assert listed["function"]["name"] not in names(old), "its own tool of that name is another one"
                spoken_of = content_words(old.asked).union(
                    *(content_words(about(t)) for t in old.tools if t["function"]["name"] in called)
                )
                assert not spoken_of & content_words(listed["function"]["name"])
                assert len(spoken_of & content_words(about(listed))) < 2
                checked += 1
    assert checked > 2 * counts["requests"]
    assert counts["requests"] + counts["alone"] == len(real)
    assert counts["requests"] > 0.9 * len(real)


def test_lists_are_within_what_was_asked_for(real):
    made, counts = together(real, requests=4, tools=7, tokens=[60, 300], most=400)
    lists = {}
    for example in made:
        lists.setdefault(str(example.tools), []).append(example)
    lists = {key: members for key, members in lists.items() if len(members) > 1}
    assert 20 < counts["lists"] <= len(lists)
    measure = tool_counter(words)
    for members in lists.values():
        assert 2 <= len(members) <= 4
        assert len(members[0].tools) <= 7
        called = [[t for t in e.tools if t["function"]["name"] in {c["name"] for c in e.calls}] for e in members]
        alone = max(sum(map(measure, tools)) for tools in called)  # the first record of a list may bring more by itself
        assert sum(map(measure, members[0].tools)) <= max(300, alone)
        assert all(words(example) <= 400 for example in members)


def test_the_same_seed_gives_the_same_lists(real):
    assert together(real) == together(real)
    assert together(real, seed=2)[0] != together(real)[0]


def test_a_share_keeps_its_own_lists(real):
    made, counts = together(real, alone=0.25)
    changed = [now.tools != before.tools for now, before in zip(made, real, strict=True)]
    assert counts["alone"] >= round(0.25 * len(real))
    assert sum(changed) <= counts["requests"] <= 0.75 * len(real) + 1
    assert together(real, alone=0.0) == together(real)


def test_requests_with_nothing_in_common_come_under_the_union_of_their_lists(own_lists):
    made, counts = together(own_lists)
    assert counts == {"lists": 1, "requests": 3, "alone": 0, "tools": 3}
    assert names(made[0]) == {"stock_price", "get_weather", "write_poem"}
    assert len({str(example.tools) for example in made}) == 1, "in the same order"


def test_requests_of_one_list_are_put_together_among_themselves(own_lists):
    """Ten tools of one business each: no list has tools of both."""
    shops = []
    for shop in ("bakery", "forge"):
        tools = [tool(f"{shop}_{verb}", f"{verb} {shop}", item={"type": "string"}) for verb in "abcdefghij"]
        for number in range(14):
            one = asking(
                f"{shop} wish {number}", tools[number % 10], name=f"{shop}_{'abcdefghij'[number % 10]}", item="x"
            )
            shops.append(dataclasses.replace(one, id=f"{shop}{number}", tools=tools))
    made, counts = together([*own_lists, *shops], tools=8)
    assert counts["requests"] > 20
    for before, example in zip([*own_lists, *shops], made, strict=True):
        of = {name.split("_")[0] for name in names(example)}
        assert len(of & {"bakery", "forge"}) <= 1
        if before in shops:
            assert of <= {"bakery", "forge"}
            assert names(example) <= names(before)
            assert example.calls[0]["name"] in names(example)
    assert {len(example.tools) for example in made[3:]} <= {*range(1, 9), 10}  # 10: alone, as it was


def test_names_that_clash_keep_their_records_apart(own_lists):
    other = tool("stock_price", "Tells when trains leave.", station={"type": "string"})
    train = asking("Departures of Bern", other, name="stock_price", station="Bern")
    made, _ = together([*own_lists, train])
    assert made[0].tools != made[3].tools
    assert STOCK in made[0].tools
    assert other in made[3].tools
    assert all(len(names(example)) == len(example.tools) for example in made)


def test_tools_that_may_serve_each_others_requests_stay_apart(own_lists):
    weather = own_lists[1]
    other = asking("Will there be snow in Oslo?", FORECAST, name="forecast", city="Oslo")
    assert together([weather, other])[0] == [weather, other]


def test_a_request_that_no_tool_serves_joins_without_tools_of_its_own(own_lists):
    stock, weather, poem = own_lists
    no = dataclasses.replace(poem, calls=[], tags=("calls:0", "abstain:no_tool"))
    made, counts = together([stock, weather, no])
    assert counts["requests"] == 3
    assert names(made[2]) == {"stock_price", "get_weather"}
    assert made[2].calls == []
    alone, counts = together([no, dataclasses.replace(no, id="again")])
    assert alone[0].tools == no.tools, "no list is left empty"
    assert counts["lists"] == 0


def test_a_request_that_lacks_a_value_keeps_the_tool_that_asks_for_it(own_lists):
    stock, weather, poem = own_lists
    missing = dataclasses.replace(poem, calls=[], tags=("calls:0", "abstain:missing"), answer="I need one more detail.")
    made, _ = together([stock, weather, missing])
    assert names(made[2]) == {"stock_price", "get_weather", "write_poem"}


def test_training_computes_each_list_once(real, model_folder):
    """Tokens of real records, by the default model's template: the trie finds what was put together."""
    tokenizer = load_tokenizer(model_folder)
    count = token_counter(tokenizer)
    few, saved = real[:120], []
    made, counts = put_together(few, {**WANTED, "requests": 4}, 1, tool_counter(count), count, 2000)
    for examples in (few, made):
        rows = [tokenize_example(tokenizer, example) for example in examples]
        [records] = with_beginnings([to_records(rows, "training")], 8)
        found = epoch_batches(records, 8, 1, 0)
        saved.append(sum(batch.shared for batch in found) / sum(batch.processed for batch in found))
    assert counts["requests"] > 100
    assert saved[1] > 0.4 > 0.25 > saved[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lists": {**WANTED, "tokens": [9, 3]}}, r"data\.lists\.tokens is \[9, 3\].*expected the least before"),
        (
            {"lists": WANTED, "augment": {"shuffle_tools": True}},
            r"augment\.shuffle_tools is True.*data\.lists puts",
        ),
        ({"lists": {"requests": 1, "tools": 3, "tokens": [1, 2]}}, r"data\.lists\.requests is 1: expected at least 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, expected, root):
    config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    config["data"] |= changes
    with pytest.raises(CallwrightError, match=expected):
        resolve(config, root / "workflow" / "schemas" / "config.schema.yaml")
