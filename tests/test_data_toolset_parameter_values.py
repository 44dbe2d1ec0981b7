"""What a parameter says of itself becomes values of its form."""

import random

import pytest

from callwright.data.toolset import parameter_values, pools, values
from callwright.data.toolset.parameter_values import guesses, listed_values, of_code, of_regex, values_for

TEXT = {"type": "string"}
NAMED = pools.builtin()


def drawn(name, part, count=20):
    spec = guesses(name, part)[0].spec
    pool, rng = values.pool(name, spec, NAMED), random.Random(1)
    return [pool.draw(rng)[1] for _ in range(count)]


def said(text, **more):
    return {**TEXT, "description": text, **more}


@pytest.mark.parametrize(
    ("name", "part", "form"),
    [
        ("when", said("The day, as YYYY-MM-DD."), r"\d{4}-\d\d-\d\d"),
        ("begin", said("HH:MM"), r"\d\d:\d\d"),
        ("moment", {**TEXT, "format": "date-time"}, r"\d{4}-\d\d-\d\dT\d\d:\d\d:00"),
        ("who", said("Their e-mail address"), r"\S+@\S+\.\w+"),
        ("ticket", said("The ticket's number, like T-10234."), r"T-\d{5}"),
        ("order", said("e.g. ORD-2024-17"), r"ORD-\d{4}-\d\d"),
        ("sku", {**TEXT, "pattern": "^[A-Z]{3}-[0-9]{4}$"}, r"[A-Z]{3}-\d{4}"),
        ("stay", said("In ISO 8601 date form"), r"\d{4}-\d\d-\d\d"),
    ],
)
def test_a_form_that_is_described_is_kept(name, part, form):
    import re

    assert all(re.fullmatch(form, value) for value in drawn(name, part))


def test_lists_ranges_and_names():
    assert guesses("dish", said("The dish, such as lasagne, green curry or tomato soup."))[0].spec == [
        "lasagne", "green curry", "tomato soup",
    ]  # fmt: skip
    assert set(drawn("nights", {"type": "integer", "description": "How many nights, 1 to 5."}, 60)) == {1, 2, 3, 4, 5}
    assert set(drawn("score", {"type": "integer", "minimum": 3, "maximum": 4})) == {3, 4}
    assert guesses("home_city", TEXT)[0].spec == "city"
    # a vague name gives way to what the description says, a telling one does not
    assert guesses("name", said("Name of the city."))[0].spec == "city"
    assert guesses("color", said("The paint of the city hall"))[0].spec == "color"


def test_every_type_has_values_and_what_nothing_is_known_of_is_marked():
    unknown = guesses("flux", TEXT)
    assert [guess.source for guess in unknown] == ["stand-in"]
    assert unknown[0].spec == parameter_values.STAND_INS
    pair = {"type": "array", "items": {"type": "string", "description": "such as red, blue"}}
    assert guesses("pair", pair)[0].spec == {"list": ["red", "blue"], "from": 1, "to": 2}
    box = {"type": "object", "properties": {"width": {"type": "integer"}, "city": TEXT}, "required": ["width", "city"]}
    assert set(drawn("box", box, 1)[0]) == {"width", "city"}
    assert guesses("maybe", {"anyOf": [{"type": "integer"}, {"type": "null"}]})[0].spec == {
        "integer": {"from": 2, "to": 12}
    }
    assert drawn("flag", {"type": ["boolean", "null"]}, 30).count(True) > 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One of: small, medium, large.", ["small", "medium", "large"]),
        ("The mode, either 'fast' or 'slow'", ["fast", "slow"]),
        ("Room, e.g. Atlas, Cedar etc.", ["Atlas", "Cedar"]),
        ("Something like that", []),
        ("A date like 2026-01-31", []),
        ("The user's name", []),
        ("The café's 'best' drink", []),
    ],
)
def test_listed_values(text, found):
    assert listed_values(text) == found


def test_codes():
    assert of_code("INV-2024-AB") == "INV-####-@@"
    assert of_regex(r"^T-\d{3}$") == "T-###"
    assert of_regex("^(a|b)+$") is None
    assert of_regex("^abc$") is None


@pytest.mark.parametrize(
    ("name", "part", "spec"),
    [
        ("finish", {"type": "string", "examples": ["Alpha", "Beta"]}, ["Alpha", "Beta"]),
        ("order", {"type": "string", "example": "ORD-1234"}, {"pattern": "ORD-####"}),
        ("patient_id", {"type": "integer"}, {"integer": {"from": 1001, "to": 9999}}),
        ("year", {"type": "integer"}, {"integer": {"from": 1995, "to": 2026}}),
        ("location", {"type": "string", "description": "City and state, e.g. San Francisco, CA"}, "city"),
        ("place", {"type": "string", "description": "Place, e.g. Paris, France"}, "city"),
        ("vet", {"type": "string", "description": "such as Dr. Hartmann or Dr. Osei"}, ["Dr. Hartmann", "Dr. Osei"]),
        ("at", {"type": "string", "description": "When, such as 14:30"}, "time"),
        ("urgent", {"type": "boolean"}, ["urgent", "not urgent"]),
        ("is_electric", {"type": "boolean"}, ["electric", "not electric"]),
        ("oat_milk", {"type": "boolean"}, ["oat milk", "no oat milk"]),
        ("send_copy", {"type": "boolean"}, ["send copy", "don't send copy"]),
        ("guest_name", {"type": "string"}, "person"),
    ],
)
def test_values_are_those_that_people_say(name, part, spec):
    found = values_for(name, part)[0]
    assert (
        [entry["say"] if isinstance(entry, dict) else entry for entry in found] == spec
        if isinstance(found, list)
        else found == spec
    )


@pytest.mark.parametrize("about", ["Name of the bike", "The coupon's name"])
def test_only_a_person_has_a_person_s_name(about):
    assert "person" not in values_for("name", {"type": "string", "description": about})
    assert "person" not in values_for("pet_name", {"type": "string"})


def test_a_number_of_which_nothing_is_known_says_so():
    assert guesses("level", {"type": "integer"})[0].source == "type"
    assert guesses("level", {"type": "integer", "minimum": 3})[0].source == "schema"
