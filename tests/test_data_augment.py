"""Training examples with other tools, another order, other names: each still answers its request."""

import dataclasses
import random

import pytest

from callwright.data.augment import augment, with_distractors, with_masked_names
from callwright.data.records import Example
from callwright.data.sources import read_records

from fixtures_records import POEM, STOCK, WEATHER, asking, tool  # isort: skip

CITY = {"type": "string", "description": "Name of the city"}
CHECK = tool("check", "Looks it up.", city=CITY, unit={"type": "string"})


@pytest.fixture(scope="module")
def real(xlam_sample):
    return [record for _, record in read_records(xlam_sample) if isinstance(record, Example)]


@pytest.mark.slow
def test_every_change_leaves_valid_examples(real):
    wanted = {"shuffle_tools": True, "distractors": 4, "mask_names": 0.5}
    made, counts = augment(real, wanted, seed=1)
    assert [e.id for e in made] == [e.id for e in real]
    assert all(Example.from_row(e.to_row()) == e for e in made)
    assert [len(e.calls) for e in made] == [len(e.calls) for e in real]
    assert [e.query for e in made] == [e.query for e in real]
    assert counts["shuffle_tools"] == len(real)
    assert 0.3 * len(real) < counts["mask_names"] < 0.7 * len(real)
    assert counts["distractors"] > 0.6 * len(real)
    assert augment(real, wanted, seed=1) == (made, counts)
    assert augment(real, wanted, seed=2)[0] != made
    assert augment(real, {"distractors": 0, "mask_names": 0.0, "shuffle_tools": False}, seed=1) == (real, {})


def test_masked_names_are_those_of_the_calls_and_the_history_too():
    made = {"type": "function", "function": {"name": "check", "arguments": {"city": "Oslo", "unit": "c"}}}
    history = [{"role": "user", "content": "Oslo?"}, {"role": "assistant", "content": "", "tool_calls": [made]}]
    example = asking("And in Rome?", CHECK, name="check", city="Rome", unit="c")
    example = dataclasses.replace(example, messages=[*history, {"role": "tool", "content": "7"}, *example.messages])
    masked = with_masked_names(example, random.Random(3))
    [function] = [found["function"] for found in masked.tools]
    name, [city, unit] = function["name"], function["parameters"]["properties"]
    assert name != "check"
    assert city != "city"
    assert unit == "unit"  # without a description nothing else would say what it is
    assert function["description"] == "Looks it up."
    assert function["parameters"]["required"] == [city, "unit"]
    assert function["parameters"]["properties"][city] == CITY
    assert masked.calls == [{"name": name, "arguments": {city: "Rome", "unit": "c"}}]
    assert masked.messages[1]["tool_calls"][0]["function"] == {"name": name, "arguments": {city: "Oslo", "unit": "c"}}
    assert "augmented:mask_names" in masked.tags
    assert Example.from_row(masked.to_row()) == masked


def test_names_stay_where_nothing_else_says_what_a_tool_does():
    assert (
        with_masked_names(asking("Rome?", tool("check", "", city=CITY), name="check", city="Rome"), random.Random(1))
        is None
    )
    referring = tool("check", "Looks it up.", city=CITY)
    referring["function"]["parameters"]["anyOf"] = [{"required": ["city"]}]
    masked = with_masked_names(asking("Rome?", referring, name="check", city="Rome"), random.Random(1))
    assert list(masked.calls[0]["arguments"]) == ["city"]


def test_a_distractor_cannot_serve_the_request():
    example = asking("Is it wet in Rome?", WEATHER, city="Rome")
    also = tool("forecast", "The weather of the next days.", city={"type": "string"})
    assert with_distractors(example, [also, WEATHER], 2, random.Random(1)) is example
    wider = with_distractors(example, [also, WEATHER, STOCK, POEM], 2, random.Random(1))
    assert wider.tool_names[0] == "get_weather"
    assert set(wider.tool_names[1:]) == {"stock_price", "write_poem"}


def test_distractors_stop_at_the_length(real):
    made, _ = augment(real, {"distractors": 8}, seed=1, fits=lambda e: len(e.tools) <= 5)
    assert all(len(e.tools) <= max(5, len(old.tools)) for e, old in zip(made, real, strict=True))
    assert sum(len(e.tools) == 5 for e in made) > 50
