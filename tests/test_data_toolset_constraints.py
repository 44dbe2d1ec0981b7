"""What must hold between two arguments is read, guessed from names, and kept in every request."""

import pytest

from callwright.data.toolset import constraints
from callwright.data.toolset.constraints import ArgumentConstraint
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.variety import Variety
from callwright.runtime.errors import CallwrightError

TRIP = """
domains:
  trips:
    book_trip:
      description: Book a trip.
      parameters: {start: {type: string}, end: {type: string}, nights: {type: integer}}
      optional: [nights]
      values: {start: date, end: date, nights: {integer: {from: 1, to: 2}}}
      CONSTRAINTS
      phrasings: ["From {start} to {end}", "Book {start} until {end}[ for {nights} nights]", "{start}, {end}, please"]
"""


def load(tmp_path, line="constraints: [start < end]"):
    path = tmp_path / "trips.yaml"
    path.write_text(TRIP.replace("CONSTRAINTS", line))
    return load_toolset(path)


def test_no_varied_request_breaks_a_constraint_either(tmp_path):
    varied = Variety(definitions=0.0, masked=0.0, again=1.0)
    made = generate(load(tmp_path), 200, unseen_tools=0, variety=varied)
    held = [call["arguments"] for e in made for call in e.calls if "start" in call["arguments"]]
    assert len(held) > 150
    assert all(call["start"] < call["end"] for call in held)


def test_no_request_breaks_a_constraint_and_some_do_without(tmp_path):
    held = [call["arguments"] for e in generate(load(tmp_path), 200, unseen_tools=0) for call in e.calls]
    assert len(held) > 150
    assert all(call["start"] < call["end"] for call in held)
    free = [call["arguments"] for e in generate(load(tmp_path, ""), 200, unseen_tools=0) for call in e.calls]
    assert any(call["start"] > call["end"] for call in free)


def test_one_night_is_no_nights(tmp_path):
    texts = [example.query for example in generate(load(tmp_path), 200, unseen_tools=0)]
    assert any("for 1 night" in text for text in texts)
    assert not any("1 nights" in text for text in texts)
    assert any("for 2 nights" in text for text in texts)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "constraints: [start > end]",
            r"line 9.*constraints.0: found 'start > end', expected two parameters with <, <=",
        ),
        ("constraints: [start < stop]", "there is no parameter 'stop'; the parameters are end, nights, start"),
        ("constraints: start < end", "found 'start < end', expected a list"),
    ],
)
def test_a_wrong_constraint_is_named(tmp_path, line, message):
    with pytest.raises(CallwrightError, match=message):
        load(tmp_path, line)


TEXT, NUMBER = {"type": "string"}, {"type": "number"}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"start_date": TEXT, "end_date": TEXT}, ["start_date < end_date"]),
        ({"checkIn": TEXT, "checkOut": TEXT, "guests": NUMBER}, ["checkIn < checkOut"]),
        ({"min_price": NUMBER, "max_price": NUMBER}, ["min_price <= max_price"]),
        ({"from": TEXT, "to": TEXT}, ["from < to"]),
        ({"source": TEXT, "target": TEXT}, ["source != target"]),
        ({"arrival": TEXT, "departure": TEXT}, ["arrival < departure"]),
        ({"departure": TEXT, "arrival": TEXT}, ["departure < arrival"]),
        ({"start_date": TEXT, "end_time": TEXT}, []),
        ({"start": TEXT, "end": NUMBER}, []),
        ({"city": TEXT, "weekend": TEXT}, []),
    ],
)
def test_names_tell_the_order(names, found):
    assert [str(each) for each in constraints.guess(names)] == found


@pytest.mark.parametrize(
    ("left", "right", "holds"),
    [
        ("2026-03-01", "2026-03-02", True), ("2026-03-02", "2026-03-01", False), ("07:30", "07:15", False),
        ("2026-03-01T07:00", "2026-03-01T08:00", True), ("tomorrow", "2026-01-01", True), ("2026-03-01", "07:00", True),
        (3, 2, False), (2, 2.5, True), (True, 0, True),
    ],
)  # fmt: skip
def test_only_what_has_an_order_is_compared(left, right, holds):
    assert ArgumentConstraint("a", "<", "b").holds({"a": left, "b": right}) is holds
    assert ArgumentConstraint("a", "<", "b").holds({"a": left})
