"""Which arguments does a request hold?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.data.grounding import Context, to_ask_for, ungrounded
from callwright.data.records import Example
from callwright.data.sources import read_records

from fixtures_records import json_values  # isort: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Weather in New York?", "New York"),
        ("weather in new york?", "New York"),
        ("Weather in Zürich?", "Zurich"),
        ("Find giveaways of games", "game"),
        ("Movies by the Wachowskis, Lana and Lilly", "lana, lilly"),
        ("Exchange DAI to JPY", "dai_jpy"),
        ("Price of ETH/BTC", "ETHBTC"),
        ("It costs 1,500 dollars", 1500),
        ("It costs 1.5k dollars", 1500),
        ("Two hundred and fifty grams", 250),
        ("Three thousand two hundred", 3200),
        ("Half of it", 0.5),
        ("An increase of 20%", 0.2),
        ("An increase of 20%", 20),
        ("A dozen eggs", 12),
        ("for an hour and a half", 90),
        ("Parking for 3 hours", 180),
        ("go back two minutes", -120),
        ("a party on 28 February", "02-28"),
        ("the 3rd row", 3),
        ("minus 5 degrees", -5),
        ("f(x) = 2x at 3.0", 3),
        ("room 12", "12"),
        ("On February 28, 2024", 2),
        ("On May 4", "2026-05-04"),
        ("on 04.05.", "2026-05-04"),
        ("next Friday", "2026-05-08"),
        ("Wake me at 7pm", "19:00"),
        ("tomorrow, 4 in the afternoon", "16:00"),
        ("at half past nine", "09:30"),
        ("Sunday at noon", "12:00"),
        ("at 7:30 p.m.", "19:30"),
        ("um 9h", "09:00"),
        ("at 1930", "19:30"),
        ("quarter to twelve", "11:45"),
        ("at twenty to one", "12:40"),
        ("twenty-one and a half degrees", 21.5),
        ("seven and a half hours", 7.5),
        ("for three quarters of an hour", 45),
        ("1 hr", 60),
        ("3 hours 20", 200),
        ("half a litre", 500),
        ("two tonnes of hay", 2000),
        ("half a million", 500000),
        ("say a tenner to begin with", 10),
        ("a fiver at the door", 5),
        ("it took more than two seconds", 2000),
        ("just me for tonight", 1),
        ("he sits there on his own", 1),
        ("another night please", 1),
        ("the latest hundred and twenty lines", 120),
        ("Timer for 10 min", 600),
        ("2 minutes and 30 seconds", 150),
        ("1h30", 90),
        ("2 kg of flour", 2000),
        ("12 dollars and 50 cents", 12.5),
        ("49,90 €", 49.9),
        ("1 1/2 cups", 1.5),
        ("½ cup", 0.5),
        ("half a dozen eggs", 6),
        ("a quarter million", 250000),
        ("both of us", 2),
        ("at midday", "12:00"),
        ("on Fri at 3pm", "2026-05-15"),
        ("in two weeks", "2026-05-26"),
        ("on the twentieth", "2026-05-20"),
        ("fifty-two thousand a year", 52000),
        ("thirty, no, thirty-one", 31),
        ("from 14.30", "14:30"),
        ("tomorrow morning", "08:00"),
        ("start it now", "13:37"),
        ("anything", True),
        ("anything", None),
        ("anything", ""),
        ("anything", []),
        ("in dollars", "USD"),
        ("Rome and Oslo", ["Rome", "Oslo"]),
        ("Rome at 5", {"city": "Rome", "hour": 5}),
    ],
)
def test_what_a_request_holds(text, value):
    assert Context(text).holds(value, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Weather in New York?", "London"),
        ("VIN 1HGCM82633A102761", "1HGCM8263A102761"),
        ("the temperature there", 34),
        ("Shares of Tesla", "TSLA"),
        ("A walk in the park", 250),
        ("On May 4", "2026-06-11"),
        ("at 7pm", "08:15"),
        ("I'd like to wash tomorrow, 3E.", "18:00"),
        ("next Friday", "10:00"),
        ("Washing in 7C next Saturday", "07:00"),
        ("Rome and Oslo", ["Rome", "Lima"]),
        ("Rome at 5", {"city": "Rome", "hour": 6}),
        ("quarter past twelve", "11:15"),
        ("fifty-two thousand a year", 52001),
        ("thirty, no, thirty-one", 61),
        ("Pay a bill to Stadtwerke", 100),
        ("May I book a table?", 5),
        ("Put Mary down for a table", 3),
        ("2 tickets for Monday", 48),
        ("a table for the weekend", 7),
        ("a good thermometer", 1000),
        ("Meeting for 3 hours 20 people", 200),
        ("2 hours a day", 121),
        ("Ring me", 10**400),
    ],
)
def test_what_a_request_does_not_hold(text, value):
    assert not Context(text).holds(value, {})


def test_some_values_follow_from_the_schema():
    context = Context("What is the weather?")
    assert context.holds("celsius", {"type": "string", "enum": ["celsius", "fahrenheit"]})
    assert context.holds("London", {"type": "string", "default": "London"})
    assert not context.holds("Lisbon", {"type": "string", "default": "London"})


def test_the_whole_conversation_counts():
    row = {
        "id": "a",
        "messages": [
            {"role": "user", "content": "What is in my cart?"},
            {"role": "tool", "content": '{"order": 7711}'},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"order": {"type": "integer"}, "shop": {"type": "string"}}}}}],
        "calls": [{"name": "f", "arguments": {"order": 7711, "shop": "Bakery"}}],
    }  # fmt: skip
    assert ungrounded(Example.from_row(row)) == ["f.shop"]


def test_most_of_the_real_sample_is_grounded(xlam_sample):
    found = [record for _, record in read_records(xlam_sample, "xlam") if isinstance(record, Example)]
    flagged = [example for example in found if ungrounded(example)]
    assert 0.1 * len(found) < len(flagged) < 0.25 * len(found)
    assert any("1HGCM82633A102761" in example.query for example in flagged)  # its answer lacks a digit


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), json_values)
def test_any_value_has_an_answer(text, value):
    assert Context(text).holds(value, {}) in (True, False)


def test_dozens_and_fortnights_are_numbers():
    assert Context("We need two dozen boxes").holds_number(24)
    assert Context("a dozen eggs").holds_number(12)
    assert Context("3 dozen roses").holds_number(36)
    assert Context("We stay a fortnight").holds_number(14)
    assert not Context("We need two boxes").holds_number(24)


def test_a_text_that_was_said_once_is_meant_for_one_argument():
    schema = {"properties": {name: {"type": "string"} for name in ("card", "title")} | {"size": {"enum": ["tall"]}}}
    one, two = Context("C48139K here, keep it longer"), Context("Keep Emma of Emma")

    def asked(context, **arguments):
        return to_ask_for(context, arguments, {**schema, "type": "object"})

    assert asked(one, card="C48139K", title="c48139k") == ["title"]
    assert asked(one, title="C48139K") == []
    assert asked(two, card="Emma", title="Emma") == []
    assert asked(Context("es"), card="es", title="es") == []  # a language and a country
