"""What a slot's pool draws: the words that the user says, and the argument that they stand for."""

import datetime
import random
import re

import pytest

from callwright.data.toolset.values import ValueSpecError, pool, spliced

CITY = pool("city", ["Oslo", "Rome", "Lima", "Cape Town"], {})
COLOR = pool("color", [{"say": ["in red", "red"], "value": "red"}, {"say": "blue", "value": "blue"}], {})
NAMED = {"city": CITY, "color": COLOR}


def draws(spec, count=400):
    made, rng = pool("slot", spec, NAMED), random.Random(1)
    return [made.draw(rng) for _ in range(count)]


def test_entries_are_copied_or_said_otherwise():
    assert set(draws(["Oslo", 7, 1.5])) == {("Oslo", "Oslo"), ("7", 7), ("1.5", 1.5)}
    assert set(draws([{"say": "in Celsius", "value": "celsius"}])) == {("in Celsius", "celsius")}
    assert set(draws([{"say": ["on foot", "walking"], "value": True}])) == {("on foot", True), ("walking", True)}
    assert set(draws([datetime.date(2026, 1, 31)])) == {("2026-01-31", "2026-01-31")}


def test_a_name_gives_the_shared_pool_itself():
    assert pool("origin", "city", NAMED) is CITY


def test_integers_keep_their_range_and_step_and_small_ones_may_be_spelled():
    assert {value for _, value in draws({"integer": {"from": 2, "to": 13, "step": 5}})} == {2, 7, 12}
    assert all(said == str(value) for said, value in draws({"integer": {"from": 2, "to": 12}}))
    said = {}
    for text, value in draws({"integer": {"from": 9, "to": 11, "words": True}}):
        said.setdefault(value, set()).add(text)
    assert said == {9: {"9", "nine"}, 10: {"10", "ten"}, 11: {"11"}}


def test_numbers_keep_their_range_and_are_said_as_they_stand():
    found = draws({"number": {"from": 5, "to": 9, "decimals": 2}})
    assert all(5 <= value <= 9 and float(said) == value for said, value in found)
    assert all(re.fullmatch(r"\d|\d\.\d\d", said) for said, _ in found)
    whole = [value for said, value in found if "." not in said]
    assert 0.3 < len(whole) / len(found) < 0.5
    assert all(isinstance(value, int) for value in whole)
    assert all(isinstance(value, int) for _, value in draws({"number": {"from": 1, "to": 3, "decimals": 0}}))


def test_round_numbers_do_not_leave_the_range():
    assert all(0.5 <= value <= 1.2 for _, value in draws({"number": {"from": 0.5, "to": 1.2, "decimals": 1}}))
    assert all(-2.5 <= value <= -1.5 for _, value in draws({"number": {"from": -2.5, "to": -1.5, "decimals": 1}}))


def test_each_way_to_say_a_date_stands_for_the_same_day():
    ways = ("%B %d, %Y", "%d %B %Y", "%Y-%m-%d")
    used = set()
    for said, value in draws({"date": {"from": "2027-12-25", "to": datetime.date(2028, 1, 5)}}):
        day = datetime.date.fromisoformat(value)
        assert datetime.date(2027, 12, 25) <= day <= datetime.date(2028, 1, 5)
        way = next(way for way in ways if (parsed := _strptime(said, way)) and parsed.date() == day)
        assert not re.search(r"\b0\d\D*$|^0", said) or way == "%Y-%m-%d"  # January 5, not January 05
        used.add(way)
    assert used == set(ways)


def test_each_way_to_say_a_time_stands_for_the_same_minute():
    used, words = set(), {}
    for said, value in draws({"time": {"from": "00:00", "to": "23:50", "step": 10}}, 3000):
        if said == "noon" or " in the " in said:
            words[said] = value
            continue
        expected = datetime.datetime.strptime(value, "%H:%M")
        assert len(value) == 5
        ways = [way for way in ("%I:%M %p", "%I %p", "%H:%M") if _strptime(said, way) == expected]
        assert ways, (said, value)
        used |= set(ways)
    assert used == {"%I:%M %p", "%I %p", "%H:%M"}
    assert words["noon"] == "12:00"
    assert words["7 in the morning"] == "07:00"
    assert words["5 in the afternoon"] == "17:00"
    assert words["8 in the evening"] == "20:00"
    assert len(words) == 1 + 7 + 5 + 5
    assert {value for _, value in draws({"time": {"from": "06:00", "to": "06:40"}})} == {"06:00", "06:15", "06:30"}
    assert {value for _, value in draws({"time": {"from": "06:45", "to": "07:00"}})} == {"06:45", "07:00"}


def _strptime(text, way):
    try:
        return datetime.datetime.strptime(text, way)
    except ValueError:
        return None


def test_dates_may_leave_out_the_year():
    found = draws({"date": {"from": "2027-12-25", "to": "2028-01-05", "year": False}})
    assert {("December 31", "12-31"), ("5 January", "01-05")} <= set(found)
    assert all(re.fullmatch(r"\d\d-\d\d", value) and "20" not in said[:2] for said, value in found)


def test_days_are_kept_as_said_but_for_the_preposition():
    found = set(draws({"day": {}}, 1000))
    assert {("on Monday", "Monday"), ("tomorrow", "tomorrow"), ("next Friday", "next Friday")} <= found
    assert ("in three weeks", "in three weeks") in found
    assert all(said == value or said == f"on {value}" for said, value in found)
    assert all(said == value and not said.startswith(("in ", "on ")) for said, value in draws({"day": {"on": False}}))


def test_durations_are_minutes_however_they_are_said():
    said = {}
    for text, minutes in draws({"duration": {"from": 15, "to": 180, "step": 15}}, 2000):
        said.setdefault(minutes, set()).add(text)
    assert said[30] == {"30 minutes", "half an hour"}
    assert said[60] == {"60 minutes", "an hour"}
    assert said[90] == {"90 minutes", "an hour and a half"}
    assert said[120] == {"2 hours", "two hours"}
    assert said[75] == {"75 minutes"}


def test_numbers_take_units_and_signs():
    prices = draws({"number": {"from": 3, "to": 9, "say": ["${}", "{} dollars"]}})
    assert {re.sub(r"[\d.]+", "#", said) for said, _ in prices} == {"$#", "# dollars"}
    assert all(float(re.search(r"[\d.]+", said).group()) == value for said, value in prices)
    assert ("three km", 3) in draws({"integer": {"from": 3, "to": 4, "words": True, "say": "{} km"}})


def test_objects_hold_the_keys_that_are_said():
    spec = {
        "object": {"amount": {"integer": {"from": 2, "to": 3}}, "place": "city"},
        "say": ["{amount} in {place}", "{amount}"],
    }
    found = draws(spec)
    assert ("2 in Oslo", {"amount": 2, "place": "Oslo"}) in found
    assert ("3", {"amount": 3}) in found
    assert all(said.split(" ")[0] == str(value["amount"]) for said, value in found)
    assert draws({"object": {"x": ["a"], "y": ["b"]}}, 1) == [("a b", {"x": "a", "y": "b"})]
    pairs = pool("slot", {"list": "pair", "from": 2, "to": 2}, {"pair": pool("pair", spec, NAMED)})
    said, value = pairs.draw(random.Random(1))
    assert " and " in said
    assert all(item.keys() <= {"amount", "place"} for item in value)


def test_patterns_fill_in_digits_and_letters():
    found = draws({"pattern": "INV-##@@"})
    assert all(said == value and re.fullmatch(r"INV-\d\d[A-Z]{2}", value) for said, value in found)
    assert len(set(found)) > 300
    assert not {"I", "O"} & {letter for _, value in found for letter in value[4:]}  # taken for 1 and 0


def test_joins_are_made_of_other_pools():
    assert ("Rome to Lima", "Rome to Lima") in draws({"join": "{city} to {city}"})
    assert {said for said, _ in draws({"join": "{color} wall"})} == {"in red wall", "red wall", "blue wall"}


def test_lists_are_said_in_english_and_hold_different_values():
    found = draws({"list": "city", "from": 1, "to": 3})
    assert {len(value) for _, value in found} == {1, 2, 3}
    for said, value in found:
        assert len(set(value)) == len(value)
        assert re.split(", | and ", said) == value
        assert said.count(" and ") == (len(value) > 1)
    assert {len(value) for _, value in draws({"list": ["a", "b", "c"]})} == {2, 3}


def test_a_list_never_holds_one_value_in_two_wordings():
    assert {tuple(sorted(value)) for _, value in draws({"list": "color", "from": 2, "to": 2})} == {("blue", "red")}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("town", "no pool 'town' under `values`"),
        ([], "the list of values is empty"),
        ([{"say": [], "value": 1}], "the list of values is empty"),
        (5, "found 5, expected a list of values, a pool's name, or one of integer, number"),
        ({"integr": {}}, "expected a list of values"),
        ([True], "the entry True is neither text nor a number"),
        ([None], "the entry None is neither text nor a number"),
        ([["a"]], "neither text nor a number; write {say: …, value: …}"),
        ([{"say": "a"}], "an entry has the keys say; expected `say` and `value`"),
        ([{"say": "a", "value": 1, "note": 2}], "an entry has the keys say, value, note"),
        ([{"say": " ", "value": 1}], "the entry ' ' says nothing"),
        ({"integer": 5}, "`integer` is 5, expected from, to, step, words, say"),
        ({"integer": {"from": 1}}, "`integer` has no to; it takes from, to, step, words, say"),
        ({"integer": {"from": 1, "to": 2, "by": 3}}, "`integer` has the unknown key by; it takes"),
        ({"integer": {"from": 1, "to": 2}, "step": 3}, "'step' stands beside `integer`"),
        ({"integer": {"from": 1, "to": 2}, "number": {"from": 1, "to": 2}}, "'number' stands beside `integer`"),
        ({"integer": {"from": 3, "to": 2}}, "`integer` goes from 3 to 2, expected two numbers in ascending order"),
        ({"integer": {"from": 1.5, "to": 2}}, "goes from 1.5 to 2"),
        ({"integer": {"from": True, "to": 2}}, "goes from True to 2"),
        ({"integer": {"from": 1, "to": 2, "step": 0}}, "the step is 0, expected a whole number from 1 on"),
        ({"integer": {"from": 1, "to": 2, "step": True}}, "the step is True"),
        ({"integer": {"from": 1, "to": 2**70}}, "`integer` goes from 1 to 11"),
        ({"number": {"from": 1, "to": "2"}}, "`number` goes from 1 to '2'"),
        ({"number": {"from": 1, "to": float("inf")}}, "`number` goes from 1 to inf"),
        ({"number": {"from": 1, "to": 2, "decimals": 10}}, "decimals is 10, expected 0 to 9"),
        ({"number": {"from": 1, "to": 2, "decimals": True}}, "decimals is True, expected 0 to 9"),
        ({"number": {"from": 1, "to": 2, "decimals": 2.0}}, "decimals is 2.0, expected 0 to 9"),
        ({"date": {"from": "2026-02-30", "to": "2026-03-01"}}, "found '2026-02-30', expected a date as 2026-01-31"),
        ({"date": {"from": "2026-03-01", "to": "2026-02-01"}}, "goes from 2026-03-01 to 2026-02-01, expected"),
        ({"time": {"from": "6:00", "to": "07:00"}}, "found '6:00', expected a time as 06:30"),
        ({"time": {"from": "08:00", "to": "07:00"}}, "`time` goes from 08:00:00 to 07:00:00 by 15, expected ascending"),
        ({"time": {"from": "06:00", "to": "07:00", "step": "5"}}, "by '5', expected ascending order and minutes"),
        ({"integer": {"from": 1, "to": 2, "words": "yes"}}, "`words` is 'yes', expected true or false"),
        ({"integer": {"from": 1, "to": 2, "say": "km"}}, "`say` is 'km', expected text with {} where the number"),
        ({"number": {"from": 1, "to": 2, "say": ["{} of {}"]}}, "`say` is '{} of {}', expected text with {}"),
        ({"date": {"from": "2026-01-01", "to": "2026-02-01", "year": 0}}, "`year` is 0, expected true or false"),
        ({"day": {"at": True}}, "`day` has the unknown key at; it takes on"),
        ({"day": 1}, "`day` is 1, expected on"),
        ({"duration": {"from": 1, "to": 9}}, "`duration` goes from 1 to 9 minutes, expected 2 at least"),
        ({"object": []}, "`object` is [], expected keys with the values of each"),
        ({"object": {"a": ["x"]}, "say": "{b}"}, "`say` names 'b', but the object has a"),
        ({"object": {"a": "town"}}, "no pool 'town' under `values`"),
        ({"object": {"a": ["x"]}, "say": "nothing"}, "`say` is 'nothing', expected text with keys of the object"),
        ({"pattern": "INV"}, "the pattern is 'INV', expected text with # for a digit or @ for a letter"),
        ({"pattern": 7}, "the pattern is 7"),
        ({"join": "no pool"}, "`join` is 'no pool', expected text with the names of pools in braces"),
        ({"join": "{town}"}, "no pool 'town' under `values`"),
        ({"join": "{city} {last-name}"}, "`join` is '{city} {last-name}', expected text with the names of pools"),
        ({"list": "town"}, "no pool 'town' under `values`"),
        ({"list": "city", "from": 3, "to": 2}, "`list` goes from 3 to 2"),
        ({"list": "city", "from": 0, "to": 2}, "`list` goes from 0 to 2, expected 1 at least"),
        ({"list": "city", "to": 5}, "`list` takes up to 5 different values, but its pool has 4"),
        ({"list": "color", "to": 3}, "up to 3 different values, but its pool has 2"),
        ({"list": "city", "form": 2}, "'form' stands beside `list`"),
    ],
)  # fmt: skip
def test_each_fault_of_a_specification_is_named(spec, message):
    with pytest.raises(ValueSpecError) as caught:
        pool("slot", spec, NAMED)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_text_is_spliced_of_two_entries():
    entries = [(text, text) for text in ("The Salt Road", "Nine Lanterns", "A House in Winter", "Dune")]
    found = {spliced(entries, random.Random(seed))[0] for seed in range(2000)}
    assert {"Nine Road", "the salt winter"} <= found
    assert not found & {text for text, _ in entries}
    assert spliced([("Dune", "Dune"), ("at the harbor", "harbor"), ("a b", "a b")], random.Random(0)) is None
