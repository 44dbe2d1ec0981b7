"""Near copies: what MinHash finds is what comparing every pair finds."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwright.data.similarity import Index, bands, components, jaccard, near_groups, shingles, signature

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in ("ar", "el", "in", "om") for c in ("te", "sk", "ny")]


def sentences(count, seed):
    """Sentences and, of each third one, a copy with a few words changed."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        words = rng.choices(WORDS, k=rng.randint(4, 20)) if number % 3 or not made else rng.choice(made).split()
        for _ in range(rng.randint(0, 2)):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        made.append(" ".join(words))
    return made


def slow_groups(texts, threshold):
    """The plain twin: every pair is compared."""
    found = list(range(len(texts)))
    for a, b in itertools.combinations(range(len(texts)), 2):
        if jaccard(texts[a], texts[b]) >= threshold and found[a] != found[b]:
            low, high = sorted((found[a], found[b]))
            found = [low if group == high else group for group in found]
    return found


def test_the_similarity_is_that_of_the_sets():
    assert shingles("Hello, World!") == {"hello", "ello ", "llo w", "lo wo", "o wor", " worl", "world"}
    assert jaccard("Hello, World!", "hello world") == 1.0
    assert jaccard("Hello, World!", "Hello, Word!") == 5 / 8
    assert jaccard("abc", "xyz") == 0.0
    assert shingles("") == {""}


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_groups_are_those_of_all_pairs(threshold):
    texts = sentences(250, seed=3)
    assert near_groups(texts, threshold) == slow_groups(texts, threshold)


def test_an_index_names_what_is_near():
    texts = sentences(200, seed=5)
    index = Index(0.8)
    for number, text in enumerate(texts):
        expected = {other for other in range(number) if jaccard(text, texts[other]) >= 0.8}
        found = dict(index.near(text))
        assert found.keys() == expected
        assert all(similarity == jaccard(text, texts[other]) for other, similarity in found.items())
        index.add(text, f"t{number}")
    assert index.names[7] == "t7"


def test_an_index_grows_without_losing_anything():
    index = Index()
    texts = [" ".join(random.Random(number).choices(WORDS, k=12)) for number in range(1500)]
    for number, text in enumerate(texts):
        index.add(text, str(number))
    assert len(index._heads) > 4096
    assert all(number in dict(index.near(text)) for number, text in enumerate(texts))


def test_bands_find_a_pair_at_the_threshold():
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        count, rows = bands(threshold)
        assert count * rows <= 120
        assert 1 - (1 - threshold**rows) ** count >= 0.99
    assert bands(0.8) == (20, 6)


def test_signatures_estimate_the_similarity():
    one, other = "the quick brown fox jumps over the lazy dog today", "the quick brown fox jumped over a lazy dog today"
    estimate = (signature(one) == signature(other)).mean()
    assert abs(estimate - jaccard(one, other)) < 0.15
    assert signature("").shape == signature("x" * 999).shape == (120,)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_text_has_a_group_and_equal_ones_the_same(texts):
    groups = near_groups(texts)
    assert len(groups) == len(texts)
    for (a, first), (b, second) in itertools.combinations(enumerate(texts), 2):
        if first == second:
            assert groups[a] == groups[b]


def test_components_are_connected_by_shared_names():
    assert components([["a"], ["b", "c"], ["d"], ["c", "a"]]) == [[0, 1, 3], [2]]
