"""Intervals and p-values against values from the literature, closed forms and plain enumeration."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwright.evals.statistics import cohen_kappa, holm, mcnemar_exact, paired_difference, tool_clusters, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # p = 1/2 by hand: 0.5 -+ 1.96 / (1 + 1.96^2/100) * sqrt(0.0025 + 1.96^2/40000)
        (50, 100, 0.4038, 0.5962),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_has_the_published_values(k, n, low, high):
    assert wilson(k, n) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_wilson_at_the_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0
    for k, n in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="impossible"):
            wilson(k, n)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_mirrors(kn):
    k, n = kn
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    mirrored = wilson(n - k, n)
    assert (low, high) == (pytest.approx(1 - mirrored[1]), pytest.approx(1 - mirrored[0]))


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (10, 2, 2 * 79 / 4096),
        (3, 3, 1.0),
        (1, 8, 2 * 10 / 512),
    ],
)
def test_mcnemar_by_hand(b, c, p):
    assert mcnemar_exact(b, c) == pytest.approx(p)


def test_mcnemar_survives_thousands_of_pairs():
    assert 0 < mcnemar_exact(1500, 500) < 1e-110
    # The normal approximation with continuity correction is close for a mild difference.
    z = (abs(1060 - 940) - 1) / math.sqrt(2000)
    assert mcnemar_exact(1060, 940) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.02)
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


def test_paired_difference_counts_and_is_repeatable():
    base = [False] * 80 + [True] * 20
    tuned = [True] * 60 + [False] * 20 + [True] * 15 + [False] * 5
    found = paired_difference(base, tuned)
    assert (found["n"], found["won"], found["lost"]) == (100, 60, 5)
    assert found["before"] == pytest.approx(0.2)
    assert found["after"] == pytest.approx(0.75)
    assert found["clusters"] == 100
    assert found["difference"] == pytest.approx(0.55)
    assert found["p_value"] == mcnemar_exact(60, 5)
    assert found == paired_difference(base, tuned)
    few = [paired_difference(base, tuned, draws=20, seed=seed)["ci95"] for seed in (1, 2)]
    assert few[0] != few[1]


def test_bootstrap_interval_is_near_the_normal_one():
    gains = [1] * 60 + [0] * 35 + [-1] * 5
    base = [gain == -1 for gain in gains]
    tuned = [gain == 1 for gain in gains]
    mean = sum(gains) / 100
    spread = 1.96 * math.sqrt(sum((gain - mean) ** 2 for gain in gains) / 100 / 100)
    low, high = paired_difference(base, tuned)["ci95"]
    assert low == pytest.approx(mean - spread, abs=0.015)
    assert high == pytest.approx(mean + spread, abs=0.015)


def test_clusters_that_move_together_widen_the_interval():
    base = [False] * 100
    tuned = [index < 50 for index in range(100)]
    alone = paired_difference(base, tuned)["ci95"]
    together = paired_difference(base, tuned, clusters=[index // 10 for index in range(100)])["ci95"]
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def plain_interval(gains, clusters, draws, seed):
    """The bootstrap as it is told: draw clusters, pool their items, take the mean; the same random numbers."""
    groups = [[g for g, c in zip(gains, clusters, strict=True) if c == label] for label in dict.fromkeys(clusters)]
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        pooled = [gain for index in generator.integers(len(groups), size=len(groups)) for gain in groups[index]]
        means.append(sum(pooled) / len(pooled))
    return [float(np.quantile(means, share)) for share in (0.025, 0.975)]


def test_bootstrap_is_that_of_its_plain_twin():
    rng = np.random.default_rng(3)
    before, after = (rng.random((2, 60)) < [[0.3], [0.6]]).tolist()
    clusters = [f"tool {number}" for number in rng.integers(12, size=60)]
    gains = [a - b for a, b in zip(after, before, strict=True)]
    found = paired_difference(before, after, clusters, draws=1000, seed=5)
    assert found["ci95"] == pytest.approx(plain_interval(gains, clusters, 1000, 5), abs=1e-12)
    assert found["clusters"] == len(set(clusters))


def test_bootstrap_of_few_clusters_has_the_quantiles_of_all_resamples():
    """Four clusters of unequal size have 256 resamples, all equally likely."""
    sizes, wins = (1, 2, 4, 9), (1, 0, 3, 5)
    clusters = [label for label, size in enumerate(sizes) for _ in range(size)]
    after = [index < won for size, won in zip(sizes, wins, strict=True) for index in range(size)]
    means = sorted(
        sum(wins[i] for i in drawn) / sum(sizes[i] for i in drawn) for drawn in itertools.product(range(4), repeat=4)
    )
    low, high = paired_difference([False] * len(after), after, clusters)["ci95"]
    # 95 % of the resamples, give or take what 10,000 draws leave to chance (three standard errors: 0.5 %).
    assert means[int(0.020 * 256)] <= low <= means[math.ceil(0.030 * 256)]
    assert means[int(0.970 * 256) - 1] <= high <= means[math.ceil(0.980 * 256)]
    assert means[0] < low < high < means[-1]


def asking(*names, offers=("a",)):
    return SimpleNamespace(calls=[{"name": name, "arguments": {}} for name in names], tool_names=list(offers))


def groups(labels):
    return {frozenset(i for i, other in enumerate(labels) if other == label) for label in labels}


def test_items_joined_by_tools_are_one_cluster():
    examples = [
        asking("a"), asking("a", "b"), asking("b"), asking("c"), asking("d"), asking("e"), asking("f"),
        asking(offers=("d", "x")), asking(offers=("y", "a")), asking(offers=()), asking(offers=()),
    ]  # fmt: skip
    labels, by = tool_clusters(examples)
    assert by == "tool component"
    assert groups(labels) == {frozenset(members) for members in ({0, 1, 2}, {3}, {4, 7}, {5}, {6}, {8}, {9}, {10})}
    assert tool_clusters([]) == ([], "tool component")


def test_one_component_of_nearly_everything_gives_way_to_the_first_tool():
    examples = [asking("a", "b"), asking("b", "c"), asking("c"), asking("b"), asking("z"), asking(offers=("b",))]
    labels, by = tool_clusters(examples)
    assert by == "first tool"
    assert groups(labels) == {frozenset({0}), frozenset({1, 3, 5}), frozenset({2}), frozenset({4})}
    assert tool_clusters([examples[0], examples[4]])[1] == "tool component", "half of the items is not most"


def plain_closure(examples):
    """Reachability over shared tools, by repeated merging."""
    sets = [({index}, {call["name"] for call in e.calls} or set(e.tool_names[:1])) for index, e in enumerate(examples)]
    merged = True
    while merged:
        merged = False
        for one, other in itertools.combinations(sets, 2):
            if one[1] & other[1]:
                sets.remove(one)
                sets.remove(other)
                sets.append((one[0] | other[0], one[1] | other[1]))
                merged = True
                break
    return {frozenset(members) for members, _ in sets}


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=3), min_size=1, max_size=12))
def test_clusters_are_the_connected_components(called):
    examples = [asking(*names, offers=("h",)) for names in called]
    labels, by = tool_clusters(examples)
    expected = plain_closure(examples)
    if max(map(len, expected)) > len(examples) / 2:
        assert by == "first tool"
        assert len(set(labels)) >= len(expected)
    else:
        assert groups(labels) == expected


@pytest.mark.parametrize(
    ("given_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Wikipedia's worked example of Holm's method
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm_by_hand(given_values, adjusted):
    assert holm(given_values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """A hypothesis is rejected when every set of hypotheses with it in has a smallest p-value below level / size."""
    every = range(len(p_values))
    for index, adjusted in enumerate(holm(p_values)):
        sets = (s for size in range(1, len(p_values) + 1) for s in itertools.combinations(every, size) if index in s)
        assert adjusted == pytest.approx(max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets))


def test_holm_refuses_what_is_no_probability():
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, wrong])


def raters(both, first_only, second_only, neither):
    first = ["yes"] * (both + first_only) + ["no"] * (second_only + neither)
    second = ["yes"] * both + ["no"] * first_only + ["yes"] * second_only + ["no"] * neither
    return first, second


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ((20, 5, 10, 15), 0.4),
        ((45, 15, 25, 15), 6 / 46),
        ((25, 35, 5, 35), 14 / 54),
        ((50, 0, 0, 50), 1.0),
        ((0, 50, 50, 0), -1.0),
        ((25, 25, 25, 25), 0.0),
    ],
)
def test_kappa_by_hand(table, kappa):
    """Two by two: 2 (ad - bc) / ((a + b) (b + d) + (a + c) (c + d))."""
    a, b, c, d = table
    assert cohen_kappa(*raters(*table)) == pytest.approx(kappa)
    assert kappa == pytest.approx(2 * (a * d - b * c) / ((a + b) * (b + d) + (a + c) * (c + d)))


def test_kappa_of_more_labels_and_of_one():
    first, second = list("aabbbccc"), list("aabbcccb")
    # Observed 6/8; by chance (2*2 + 3*3 + 3*3) / 64.
    assert cohen_kappa(first, second) == pytest.approx((6 / 8 - 22 / 64) / (1 - 22 / 64))
    assert cohen_kappa(second, first) == cohen_kappa(first, second)
    assert cohen_kappa(["a", "a"], ["a", "a"]) is None
    for one, other in (([], []), (["a"], [])):
        with pytest.raises(ValueError, match="same items"):
            cohen_kappa(one, other)


@pytest.mark.parametrize(
    ("base", "tuned", "clusters"), [([], [], None), ([True], [True, False], None), ([True], [True], ["a", "b"])]
)
def test_unpaired_input_is_refused(base, tuned, clusters):
    with pytest.raises(ValueError, match="item"):
        paired_difference(base, tuned, clusters)
