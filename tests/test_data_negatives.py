"""Examples without a call: made where that is sure, answered in one way."""

import random
from collections import Counter

import pytest

from callwright.chat.formats import NO_CALL, answer_text
from callwright.data.curate import curate
from callwright.data.negatives import gold_removed, make, missing, other_domain
from callwright.data.records import Example
from callwright.data.sources import read_records
from callwright.data.split import split
from callwright.data.toolset.toolset import load_toolset

from fixtures_records import configured  # isort: skip
from fixtures_records import FORECAST, POEM, STOCK, WEATHER, asking, tool


def test_the_tools_that_are_needed_are_taken_out():
    made = gold_removed(asking("Is it wet in Rome?", WEATHER, STOCK, city="Rome"))
    assert (made.tool_names, made.calls, made.answer) == (["stock_price"], [], None)
    assert made.tags == ("calls:0", "abstain:no_tool", "negative:gold_removed")
    assert answer_text(made) == NO_CALL


def test_not_where_no_tool_is_left_or_one_that_may_serve():
    assert gold_removed(asking("Is it wet in Rome?", WEATHER, city="Rome")) is None
    assert gold_removed(asking("Is it wet in Rome?", WEATHER, FORECAST, STOCK, city="Rome")) is None


def test_tools_of_another_domain_have_no_word_in_common():
    example = asking("Is it wet in Rome?", WEATHER, city="Rome")
    others = [asking("?", found, name=found["function"]["name"], **{key: "x"})
              for found, key in ((FORECAST, "city"), (POEM, "topic"))]  # fmt: skip
    made = other_domain(example, others, random.Random(1))
    assert (made.tool_names, made.calls) == (["write_poem"], [])
    assert other_domain(example, others[:1], random.Random(1)) is None
    assert other_domain(asking("Verses on Rome", WEATHER, city="Rome"), others, random.Random(1)) is None


@pytest.mark.parametrize(
    ("query", "shorter"),
    [
        ("What is the weather like in Rome?", "What is the weather like?"),
        ("Please check the weather for 'Rome'.", "Please check the weather."),
        ("Check the weather in Rome, please", None),
        ("Weather in Rome", None),
        ("Rome: what is the weather like in Rome?", None),
        ("I love Rome. What is the weather like there?", None),
        ("What is the weather like in New Rome?", None),
    ],
)
def test_a_value_is_taken_out_where_the_sentence_stays_whole(query, shorter):
    made = missing(asking(query, WEATHER, city="Rome"), random.Random(1))
    assert (made.query if made else None) == shorter
    if made:
        assert made.answer == "I need one more detail. Which city should I use?"
        assert made.tags == ("calls:0", "abstain:missing", "negative:missing")


def test_not_an_argument_that_may_be_left_out_or_follows_from_the_schema():
    for spec in ({"type": "string", "default": "Oslo"}, {"type": "string", "enum": ["Rome"]}):
        example = asking("What is the weather like in Rome?", tool("get_weather", "Weather.", city=spec), city="Rome")
        assert missing(example, random.Random(1)) is None
    short = tool("get_weather", "Weather.", c={"type": "string"})
    assert missing(asking("What is the weather like in Rome?", short, c="Rome"), random.Random(1)) is None


def test_as_in_the_toolset_there_is_one_way_to_say_no_and_one_to_ask_back(root):
    toolset = load_toolset(root / "config" / "toolsets" / "everyday.yaml")
    assert set(toolset.no_tool) == {NO_CALL}
    made = missing(asking("What is the weather like in Rome?", WEATHER, city="Rome"), random.Random(1))
    opening = "I need one more detail."
    assert made.answer.startswith(opening)
    assert all(text.startswith(opening) for found in toolset.tools for text in found.ask.values())


@pytest.mark.slow
def test_the_real_sample_gets_its_share_and_stays_sound(xlam_sample):
    settings = configured(examples=300, negatives=0.1, source="xlam")
    kept, rejections, ledger = curate(read_records(xlam_sample), settings)
    assert ledger["records_in"] == len(kept) + len(rejections) == 400
    quiet = [e for e in kept if not e.calls]
    assert sum(ledger["negatives"].values()) == len(quiet)
    assert 0.08 * len(kept) < len(quiet) <= 0.1 * len(kept) + 1
    assert Counter(tag for e in quiet for tag in e.tags if tag.startswith("negative:")) == {
        f"negative:{kind}": count for kind, count in ledger["negatives"].items()
    }
    assert all(Example.from_row(e.to_row()) == e for e in kept)
    sets, manifest = split(kept, settings)  # the audit passes: no tool went from one pool to another
    assert manifest["kinds"]["test_unseen_tools"]["none"] > 0
    again, _, _ = curate(read_records(xlam_sample), settings)
    assert again == kept


def test_enough_examples_without_a_call_are_left_alone_and_too_long_ones_not_made():
    asked = [asking(f"Is it wet in {place} this week?", WEATHER, STOCK, city=place)
             for place in ("Abcdefgh", "Ijklmnop", "Qrstuvwx", "Yzabdfhj")]  # fmt: skip
    made, kinds = make(asked, 0.5, 1, lambda e: True)
    assert sum(kinds.values()) == sum(not e.calls for e in made) == 2
    assert make(made, 0.5, 1, lambda e: True) == (made, {})
    assert make(asked, 0.5, 1, lambda e: False) == (asked, {})
