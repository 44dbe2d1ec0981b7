"""Beginnings of prompts: found by their tokens, bounded, the longest unused forgotten first."""

import mlx.core as mx
import pytest

from callwright.decoding.beginnings import BLOCK, Beginnings, common, shared_lengths
from callwright.decoding.places import Prompt

LAYERS = 2


def made(tokens) -> list[Prompt]:
    """A prompt whose keys and values tell which token stands where, in which layer."""
    prompt = [Prompt() for _ in range(LAYERS)]
    places = mx.arange(len(tokens)) + 1000.0 * mx.array(list(tokens))
    for number, layer in enumerate(prompt):
        keys = mx.broadcast_to((places + number / 4)[None, None, :, None], (1, 2, len(tokens), 4))
        layer.update_and_fetch(keys, -keys)
    return prompt


def found(beginnings, tokens) -> int:
    """How much is known of the beginning of `tokens`; it must be what a prompt of these tokens holds."""
    prompt, expected = [Prompt() for _ in range(LAYERS)], made(tokens)
    length = beginnings.find(tokens, prompt)
    for one, other in zip(prompt, expected, strict=True):
        assert one.offset == length
        if length:
            assert mx.array_equal(one.keys[:, :, :length], other.keys[:, :, :length])
            assert mx.array_equal(one.values[:, :, :length], other.values[:, :, :length])
    return length


def row(*parts) -> list[int]:
    return [token for start, count in parts for token in range(start, start + count)]


def test_what_prompts_have_in_common_is_found_to_the_token():
    beginnings = Beginnings()
    first = row((0, 50), (200, 30))
    assert found(beginnings, first) == 0
    beginnings.keep(first, made(first))
    assert found(beginnings, first) == 80
    assert found(beginnings, [*first, 7]) == 80
    assert found(beginnings, first[:23]) == 23
    assert found(beginnings, row((0, 50), (300, 9))) == 50
    assert found(beginnings, row((0, 3), (300, 90))) == 3
    assert found(beginnings, row((1, 50))) == 0
    assert found(beginnings, []) == 0


def test_what_two_prompts_begin_with_is_kept_once_and_both_are_found():
    beginnings = Beginnings()
    one, other = row((0, 3 * BLOCK), (200, BLOCK)), row((0, 3 * BLOCK), (300, BLOCK + 5))
    beginnings.keep(one, made(one))
    alone = beginnings.nbytes
    beginnings.keep(other, made(other))
    assert alone < beginnings.nbytes < 2 * alone
    assert (found(beginnings, one), found(beginnings, other)) == (len(one), len(other))
    before = beginnings.nbytes
    beginnings.keep(other, made(other))
    assert beginnings.nbytes == before


def test_only_a_part_may_be_kept():
    beginnings = Beginnings()
    tokens = row((0, 60))
    beginnings.keep(tokens[:37], made(tokens))
    assert found(beginnings, tokens) == 37


def test_the_longest_unused_goes_first_and_from_its_end():
    rows = [row((100 * number, 2 * BLOCK)) for number in range(4)]
    size = sum(layer.keys[:, :, : 2 * BLOCK].nbytes * 2 for layer in made(rows[0]))
    beginnings = Beginnings(3 * size)
    for tokens in rows[:3]:
        beginnings.keep(tokens, made(tokens))
    assert [found(beginnings, tokens) for tokens in rows[:3]] == [2 * BLOCK] * 3
    found(beginnings, rows[0])  # now the second is the longest unused
    beginnings.keep(rows[3], made(rows[3]))
    assert [found(beginnings, tokens) for tokens in rows] == [2 * BLOCK, 0, 2 * BLOCK, 2 * BLOCK]
    half = row((0, 2 * BLOCK), (900, BLOCK))
    beginnings.keep(half, made(half))
    assert found(beginnings, half) == 3 * BLOCK
    assert beginnings.nbytes <= 3 * size
    assert found(beginnings, rows[2]) in (0, BLOCK)


@pytest.mark.parametrize("limit", [0, 1])
def test_no_memory_keeps_nothing(limit):
    beginnings = Beginnings(limit)
    tokens = row((0, 40))
    beginnings.keep(tokens, made(tokens))
    assert (found(beginnings, tokens), beginnings.nbytes) == (0, 0)


def test_common_and_shared_lengths():
    assert common([1, 2, 3], [1, 2, 4]) == 2
    assert common([1, 2], [1, 2, 4]) == 2
    assert common([], [1]) == 0
    prompts = [[1, 2, 3], [5], [1, 2, 4, 4], [1, 9], [1, 2, 4, 4]]
    assert shared_lengths(prompts) == [2, 0, 4, 1, 4]
    assert shared_lengths([[1, 2]]) == [0]
