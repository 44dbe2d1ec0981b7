"""Recall and precision: counts by hand, and those of a plain search over all ways to fill the places."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.evals.scoring.match import match_calls
from callwright.evals.scoring.overlap import overlap, slots_of

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "default": 1},
        "unit": {"type": "string"},
    },
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Forecast.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "clock", "description": "Time.", "parameters": {"type": "object"}}},
]


def weather(**arguments):
    return {"name": "weather", "arguments": arguments}


ROME, OSLO, CLOCK = weather(city="Rome"), weather(city="Oslo"), {"name": "clock", "arguments": {}}


def counts(expected, got, possible=None):
    found = overlap(expected, got, TOOLS, possible)
    calls, arguments = found["calls"], found["arguments"]
    return (
        (calls["expected"], calls["made"], calls["right"]),
        (arguments["expected"], arguments["given"], arguments["right"], arguments["found"]),
    )


@pytest.mark.parametrize(
    ("expected", "got", "calls", "arguments"),
    [
        ([ROME], [ROME], (1, 1, 1), (1, 1, 1, 1)),
        ([ROME], [weather(city="rome.")], (1, 1, 1), (1, 1, 1, 1)),
        ([ROME], [OSLO], (1, 1, 0), (1, 1, 0, 0)),
        ([ROME], [], (1, 0, 0), (1, 0, 0, 0)),
        ([], [ROME], (0, 1, 0), (0, 1, 0, 0)),
        ([], [], (0, 0, 0), (0, 0, 0, 0)),
        ([CLOCK], [CLOCK], (1, 1, 1), (0, 0, 0, 0)),
        ([ROME], [ROME, ROME], (1, 2, 1), (1, 2, 1, 1)),
        ([ROME, OSLO], [OSLO], (2, 1, 1), (2, 1, 1, 1)),
        ([ROME, OSLO], [OSLO, ROME], (2, 2, 2), (2, 2, 2, 2)),
        # A wrong call with a right argument in it.
        ([weather(city="Rome", days=3)], [weather(city="Rome", days=4)], (1, 1, 0), (2, 2, 1, 1)),
        ([weather(city="Rome", days=3)], [ROME], (1, 1, 0), (2, 1, 1, 1)),
        ([ROME], [weather(city="Rome", unit="K")], (1, 1, 0), (1, 2, 1, 1)),
        ([ROME], [weather(city="Rome", planet="Mars")], (1, 1, 0), (1, 2, 1, 1)),
        # The same values under another tool, or another name.
        ([ROME], [{"name": "clock", "arguments": {"city": "Rome"}}], (1, 1, 0), (1, 1, 0, 0)),
        ([ROME], [weather(unit="Rome")], (1, 1, 0), (1, 1, 0, 0)),
        # A default may be given or left out: right if given, not missed if not.
        ([ROME], [weather(city="Rome", days=1)], (1, 1, 1), (1, 2, 2, 1)),
        ([weather(city="Rome", days=1)], [ROME], (1, 1, 1), (1, 1, 1, 1)),
        ([weather(city="Rome", days=1)], [weather(city="Rome", days=1)], (1, 1, 1), (1, 2, 2, 1)),
        # Which of two calls of a tool an argument stands in does not matter for it.
        (
            [weather(city="Rome", unit="K"), weather(city="Oslo", unit="C")],
            [weather(city="Rome", unit="C"), weather(city="Oslo", unit="K")],
            (2, 2, 0),
            (4, 4, 4, 4),
        ),
        ([weather(city="Rome", days=2), OSLO], [weather(city="Oslo", days=2)], (2, 1, 0), (3, 1 + 1, 2, 2)),
    ],
)
def test_counts_by_hand(expected, got, calls, arguments):
    assert counts(expected, got) == (calls, arguments)


def test_lists_of_right_values_decide_where_an_item_has_them():
    expected, possible = [weather(city="Rome", unit="C")], [{"city": ["Rome", "Roma"], "unit": ["C", ""]}]
    assert counts(expected, [weather(city="Roma")], possible) == ((1, 1, 1), (1, 1, 1, 1))
    assert counts(expected, [weather(city="Roma", unit="C")], possible) == ((1, 1, 1), (1, 2, 2, 1))
    assert counts(expected, [weather(city="Rome", unit="F")], possible) == ((1, 1, 0), (1, 2, 1, 1))
    # Defaults mean nothing there.
    assert counts(expected, [weather(city="Rome", days=1)], possible) == ((1, 1, 0), (1, 2, 1, 1))


def best_filling(slots, given_arguments):
    """(right, found) of the best way to give each place at most one argument, by trying all."""
    best = (0, 0)
    for chosen in itertools.product([None, *range(len(slots))], repeat=len(given_arguments)):
        used = [place for place in chosen if place is not None]
        if len(used) == len(set(used)) and all(
            place is None or slots[place].takes(*argument)
            for place, argument in zip(chosen, given_arguments, strict=True)
        ):
            best = max(best, (len(used), sum(slots[place].required for place in used)))
    return best


CALLS = st.lists(
    st.builds(
        weather,
        city=st.sampled_from(["Rome", "Oslo"]),
        days=st.sampled_from([1, 2]),
    )
    | st.builds(weather, city=st.sampled_from(["Rome", "Oslo"]))
    | st.just(CLOCK),
    max_size=2,
)


@settings(deadline=None, max_examples=60)
@given(CALLS, CALLS)
def test_as_many_places_are_filled_as_can_be(expected, got):
    calls, (wanted, count, right, found) = counts(expected, got)
    slots = slots_of(expected, TOOLS)
    given_arguments = [(call["name"], *item) for call in got for item in call["arguments"].items()]
    assert (right, found) == best_filling(slots, given_arguments)
    assert (wanted, count) == (sum(slot.required for slot in slots), len(given_arguments))
    if match_calls(expected, got, TOOLS):
        assert calls == (len(expected), len(expected), len(expected))
        assert (found, right) == (wanted, count), "a right answer has full recall and precision"


def test_schemas_without_properties_and_unknown_tools_are_no_obstacle():
    odd = [{"type": "function", "function": {"name": "weather", "parameters": {"properties": {"city": True}}}}]
    assert overlap([ROME], [ROME], odd)["arguments"] == {"expected": 1, "given": 1, "right": 1, "found": 1}
    assert overlap([ROME], [ROME], [])["calls"]["right"] == 1
