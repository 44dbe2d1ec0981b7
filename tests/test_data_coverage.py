"""The sample shows many tools and types; the lazy choice is the plain greedy one."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.data.coverage import Distribution, choose, features

from fixtures_records import example  # isort: skip


def plain_choice(found, count, rng):
    """The twin: every worth is computed anew for each choice."""
    order = list(range(len(found)))
    rng.shuffle(order)
    rank = {at: number for number, at in enumerate(order)}
    counts, chosen, left = Counter(), [], set(order)
    while left and len(chosen) < count:
        worth = {at: sum(1.0 / (1 + counts[feature]) for feature in found[at][1]) for at in left}
        best = min(left, key=lambda at: (-worth[at], rank[at]))
        chosen.append(found[best][0])
        counts.update(found[best][1])
        left.remove(best)
    return chosen


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=4, unique=True), max_size=20),
    st.integers(0, 20),
    st.integers(0, 3),
)
def test_the_choice_is_the_greedy_one(lists, count, seed):
    found = [(10 * number, own) for number, own in enumerate(lists)]
    # Ranks are dealt in the shuffled order in one and by position in the other, so compare what was chosen by worth.
    assert choose(found, count, random.Random(seed)) == plain_choice(found, count, random.Random(seed))


def test_features_and_distributions():
    several = example(1, calls=[{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")])
    assert features(several) == ("tool:get_weather", "calls:2", "tools:1", "type:string")
    found = Distribution([several, example(2, tags=["flag:ungrounded"]), example(3, calls=[])])
    assert found.to_row() == {
        "kinds": {"none": 1, "one": 1, "several": 1},
        "calls": {"0": 1, "1": 1, "2": 1},
        "tools": {"1": 3},
        "argument_types": {"string": 3},
        "flags": {"ungrounded": 1},
        "tools_called": {"distinct": 1, "most_often": 3},
    }
