"""The order-free matcher against its rules, one by one, and against brute force over all orders."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwright.evals.scoring.match import (
    compare_values,
    difference,
    exactly_equal,
    match_calls,
    maximum_matching,
    normalize,
)


def tool(name, properties, required=()):
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def call(tool_name, **arguments):
    return {"name": tool_name, "arguments": arguments}


WEATHER = tool(
    "weather",
    {
        "city": {"type": "string"},
        "days": {"type": "integer", "default": 1},
        "unit": {"type": "string", "default": "metric"},
        "height": {"type": "number"},
        "hours": {"type": "array", "items": {"type": "integer"}},
        "place": {"type": "object", "properties": {"lat": {"type": "number"}, "name": {"type": "string"}}},
        "alerts": {"type": "boolean"},
    },
    required=["city"],
)
CLOCK = tool("clock", {"zone": {"type": "string"}}, required=["zone"])


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("New York, N.Y.", "new york ny", True),
        ("2024-05-01", "2024/05/01", True),
        ("it's", 'it"s', True),
        ("STRASSE", "straße", True),
        ("Rome", "Romeo", False),
        ("a+b", "ab", False),
        ("", "-", True),
    ],
)
def test_strings_are_compared_as_bfcl_does(one, other, equal):
    assert (compare_values(one, other, {"type": "string"}) is None) == equal
    assert (normalize(one) == normalize(other)) == equal


@pytest.mark.parametrize(
    ("expected", "got", "schema", "label"),
    [
        (5.0, 5, {"type": "number"}, None),
        (5, 5.0, {"type": "number"}, None),
        (5, 5.0, {"type": "integer"}, "wrong_type"),
        (5, 5.0, {"type": ["integer", "null"]}, "wrong_type"),
        (5, 6, {"type": "integer"}, "wrong_value"),
        (1, True, {"type": "integer"}, "wrong_type"),
        (True, 1, {"type": "boolean"}, "wrong_type"),
        (True, False, {"type": "boolean"}, "wrong_value"),
        (None, None, {}, None),
        (None, "None", {}, "wrong_type"),
        ("5", 5, {"type": "string"}, "wrong_type"),
        ([1, 2], [1, 2], {"type": "array"}, None),
        ([1, 2], [2, 1], {"type": "array"}, "wrong_value"),
        ([1, 2], [1, 2, 3], {"type": "array"}, "wrong_value"),
        ([1], [1.0], {"type": "array", "items": {"type": "integer"}}, "wrong_type"),
        (["A b"], ["ab"], {}, None),
        ([1], 1, {}, "wrong_type"),
        ({"a": 1}, {"a": 1}, {}, None),
        ({"a": 1}, {"a": 1, "b": 2}, {}, "wrong_value"),
        ({"a": 1, "b": 2}, {"a": 1}, {}, "wrong_value"),
        ({"a": 1}, {"a": 1, "b": 2}, {"properties": {"b": {"default": 2}}}, None),
        ({"a": 1}, [1], {}, "wrong_type"),
        ({"a": {"b": ["x"]}}, {"a": {"b": ["X"]}}, {"properties": {"a": True}}, None),
    ],
)
def test_values(expected, got, schema, label):
    assert compare_values(expected, got, schema) == label


def test_an_omitted_optional_argument_equals_its_default_both_ways():
    for one, other in [
        ({"city": "Rome"}, {"city": "Rome", "days": 1}),
        ({"city": "Rome", "unit": "Metric"}, {"city": "Rome"}),
    ]:
        assert match_calls([call("weather", **one)], [call("weather", **other)], [WEATHER])
        assert match_calls([call("weather", **other)], [call("weather", **one)], [WEATHER])
    assert not match_calls([call("weather", city="Rome")], [call("weather", city="Rome", days=2)], [WEATHER])
    assert not match_calls([call("weather", city="Rome", days=2)], [call("weather", city="Rome")], [WEATHER])


def test_arguments_that_only_one_side_has():
    schema = WEATHER["function"]["parameters"]
    assert difference({"city": "Rome"}, {"city": "Rome", "planet": "Mars"}, schema) == "wrong_value"
    assert difference({"city": "Rome", "height": 2.5}, {"city": "Rome"}, schema) == "missing_argument"
    assert difference({"city": "Rome"}, {}, schema) == "missing_argument"
    assert difference({"city": "Rome", "days": 3}, {"city": 3}, schema) == "missing_argument"
    assert difference({"city": "Rome", "days": 3}, {"city": "Oslo", "days": "3"}, schema) == "wrong_type"


def test_a_required_argument_is_never_implied_by_its_default():
    schema = {"properties": {"x": {"type": "integer", "default": 1}}, "required": ["x"]}
    assert difference({"x": 1}, {}, schema) == "missing_argument"


def test_order_of_calls_does_not_matter_and_defaults_may_stand_or_not_in_each():
    expected = [call("weather", city="Rome"), call("weather", city="Rome", days=1, unit="metric")]
    got = [call("weather", city="Rome", unit="metric"), call("weather", city="rome")]
    assert match_calls(expected, got, [WEATHER])
    mixed = [call("clock", zone="CET"), call("weather", city="Rome")]
    assert match_calls(mixed, mixed[::-1], [WEATHER, CLOCK])
    assert not match_calls(mixed, mixed[:1], [WEATHER, CLOCK])
    assert not match_calls(mixed[:1] * 2, mixed, [WEATHER, CLOCK])


def test_a_pairing_is_found_that_greed_misses():
    """For an integer, 2.0 expected takes 2 or 2.0, but 2 expected takes only 2, which must be left for it."""
    expected = [call("weather", city="Rome", days=2.0), call("weather", city="Rome", days=2)]
    got = [call("weather", city="Rome", days=2), call("weather", city="Rome", days=2.0)]
    schema = WEATHER["function"]["parameters"]
    left = [item["arguments"] for item in got]
    greedy = []
    for item in expected:
        partner = next((other for other in left if difference(item["arguments"], other, schema) is None), None)
        greedy.append(partner)
        if partner is not None:
            left.remove(partner)
    assert None in greedy
    for order in permutations(expected):
        for answers in permutations(got):
            assert match_calls(order, answers, [WEATHER])
    assert not match_calls(expected, [got[1], got[1]], [WEATHER])


def test_a_chain_of_displaced_partners_is_followed_to_its_end():
    edges = {(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (3, 2), (3, 3)}
    for order in permutations(range(4)):
        for other in permutations(range(4)):
            agree = {(order.index(i), other.index(j)) for i, j in edges}
            assert None not in maximum_matching(4, 4, lambda i, j, agree=agree: (i, j) in agree)


def test_two_calls_of_one_tool_are_not_mistaken_for_each_other():
    rome, oslo = call("weather", city="Rome"), call("weather", city="Oslo")
    assert match_calls([rome, oslo], [oslo, rome], [WEATHER])
    assert not match_calls([rome, oslo], [rome, rome], [WEATHER])


def test_exact_equality_is_to_the_letter_but_in_any_order():
    one, two = call("weather", city="Rome", days=1), call("clock", zone="CET")
    assert exactly_equal([one, two], [two, {"arguments": {"days": 1, "city": "Rome"}, "name": "weather"}])
    for other in (
        call("weather", city="rome", days=1),
        call("weather", city="Rome", days=1.0),
        call("weather", city="Rome"),
    ):
        assert not exactly_equal([one], [other])
    assert not exactly_equal([one, one], [one])


def test_nesting_beyond_the_stack_is_a_difference_not_a_crash():
    one, other = [], []
    for _ in range(100_000):
        one, other = [one], [other]
    assert compare_values(one, other, {}) == "wrong_value"
    assert not exactly_equal([call("f", x=one)], [call("f", x=other)])


@given(st.integers(0, 4), st.integers(0, 4), st.data())
def test_maximum_matching_agrees_with_brute_force(left, right, data):
    edges = data.draw(st.sets(st.tuples(st.integers(0, max(left - 1, 0)), st.integers(0, max(right - 1, 0)))))
    partners = maximum_matching(left, right, lambda i, j: (i, j) in edges)
    chosen = [(i, j) for i, j in enumerate(partners) if j is not None]
    assert all(pair in edges for pair in chosen)
    assert len({j for _, j in chosen}) == len(chosen)
    slots = [*range(right), *[None] * left]
    assert len(chosen) == max(sum((i, j) in edges for i, j in enumerate(order)) for order in permutations(slots, left))


arguments = st.fixed_dictionaries(
    {},
    optional={
        "city": st.sampled_from(["Rome", "rome", "Oslo"]),
        "days": st.sampled_from([1, 1.0, 2, True]),
        "unit": st.sampled_from(["metric", "us"]),
    },
)
names = st.sampled_from(["weather", "clock"])
calls = st.lists(st.builds(lambda name, given: {"name": name, "arguments": given}, names, arguments), max_size=5)


@given(calls, calls)
def test_matching_agrees_with_brute_force_over_permutations(expected, got):
    tools = [WEATHER, CLOCK]

    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}

    def agree(one, other):
        same = one["name"] == other["name"]
        return same and difference(one["arguments"], other["arguments"], schemas[one["name"]]) is None

    brute = len(expected) == len(got) and any(
        all(agree(one, other) for one, other in zip(expected, order, strict=True)) for order in permutations(got)
    )
    assert match_calls(expected, got, tools) == brute


@given(calls.filter(bool), st.data())
def test_a_mutated_answer_never_matches(expected, data):
    place = data.draw(st.integers(0, len(expected) - 1))
    name, given_arguments = expected[place]["name"], expected[place]["arguments"]
    rest = [*expected[:place], *expected[place + 1 :]]
    for mutant in (
        [],
        [{"name": name + "s", "arguments": given_arguments}],
        [{"name": name, "arguments": {**given_arguments, "made_up": 0}}],
        [{"name": name, "arguments": {**given_arguments, "city": "Bonn"}}],
        [{"name": name, "arguments": {**given_arguments, "days": 3}}],
        [expected[place]] * 2,
    ):
        answers = data.draw(st.permutations([*rest, *mutant]))
        assert not match_calls(expected, answers, [WEATHER, CLOCK])
        assert not exactly_equal(expected, answers)


@given(calls, st.randoms(use_true_random=False))
def test_any_order_of_the_expected_calls_matches(expected, random):
    shuffled = random.sample(expected, len(expected))
    assert match_calls(expected, shuffled, [WEATHER, CLOCK])
    assert exactly_equal(expected, shuffled)
