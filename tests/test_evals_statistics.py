"""Intervals and p-values against values from the literature and from plain enumeration."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callsmith.evals.statistics import mcnemar_exact, paired_difference, wilson


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
    assert found["base"] == pytest.approx(0.2)
    assert found["tuned"] == pytest.approx(0.75)
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


@pytest.mark.parametrize(
    ("base", "tuned", "clusters"), [([], [], None), ([True], [True, False], None), ([True], [True], ["a", "b"])]
)
def test_unpaired_input_is_refused(base, tuned, clusters):
    with pytest.raises(ValueError, match="item"):
        paired_difference(base, tuned, clusters)
