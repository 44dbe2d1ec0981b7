"""Places: rows that are added and leave keep their keys, and masks show each its own."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache, RotatingKVCache

from callwright.decoding.places import STEP, Places, Prompt, windows

HEADS, WIDTH = 2, 4


def keys_of(row: int, start: int, count: int) -> mx.array:
    """Keys [1, heads, count, width] that tell their row and column."""
    columns = 1000.0 * row + mx.arange(start, start + count)
    return mx.broadcast_to(columns[None, None, :, None], (1, HEADS, count, WIDTH))


def prompt(row: int, length: int, layers: int = 2) -> list[Prompt]:
    made = [Prompt() for _ in range(layers)]
    for layer in made:
        if length:
            layer.update_and_fetch(keys_of(row, 0, length), -keys_of(row, 0, length))
    return made


def step(places: Places, rows: list[int]) -> None:
    """Give each row one more token, and look at what is seen."""
    before = list(places.lengths)
    places.begin()
    new = mx.concatenate([keys_of(row, length, 1) for row, length in zip(rows, before, strict=True)])
    for layer in places.layers:
        keys, values = layer.update_and_fetch(new, -new)
        mask = np.array(layer.make_mask(1))[:, 0, 0]
        assert keys.shape == (len(rows), HEADS, max(before) + 1, WIDTH)
        for place, (row, length) in enumerate(zip(rows, before, strict=True)):
            seen = np.flatnonzero(mask[place])
            assert seen.tolist() == list(range(length + 1))
            assert np.array_equal(np.array(keys)[place][:, seen], np.array(keys_of(row, 0, length + 1))[0])
            assert np.array_equal(np.array(values)[place][:, seen], -np.array(keys_of(row, 0, length + 1))[0])
    places.end()
    assert places.lengths == [length + 1 for length in before]


def test_rows_of_any_length_come_and_go():
    places, rows = Places([None, None]), []
    for row, length in enumerate((5, 0, STEP + 3, 2)):
        places.add(prompt(row, length))
        rows.append(row)
        step(places, rows)
    for leaving in (1, 0, 1):
        places.leave(leaving)
        rows[leaving] = rows[-1]
        rows.pop()
        step(places, rows)
    places.add(prompt(9, 3))
    rows.append(9)
    for _ in range(STEP):  # beyond what there was memory for
        step(places, rows)
    assert len(places) == len(rows) == 2


def test_rows_without_a_prompt_of_their_own():
    places = Places([None])
    places.add(prompt(0, 0, 1))
    places.add(prompt(1, 0, 1))
    step(places, [0, 1])
    step(places, [0, 1])


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_window_hides_what_is_behind_it(window):
    places = Places([window, None])
    for row, length in enumerate((6, 2)):
        places.add(prompt(row, length))
    places.begin()
    narrow, wide = (np.array(layer.make_mask(1))[:, 0, 0] for layer in places.layers)
    for place, length in enumerate((6, 2)):
        assert np.flatnonzero(wide[place]).tolist() == list(range(length + 1))
        assert np.flatnonzero(narrow[place]).tolist() == list(range(max(length + 1 - window, 0), length + 1))
    asked = np.array(places.layers[1].make_mask(1, window_size=2))[0, 0, 0]  # some models say it with each call
    assert np.flatnonzero(asked).tolist() == [5, 6]


def test_a_prompts_mask_is_that_of_its_window():
    for count in (1, 4):
        layer = Prompt(window=3)
        layer.update_and_fetch(keys_of(0, 0, 5), keys_of(0, 0, 5))
        mask = np.array(layer.make_mask(count))
        for query in range(count):
            assert np.flatnonzero(mask[query]).tolist() == list(range(5 + query - 2, 5 + query + 1))
    assert Prompt(window=30).make_mask(4) == "causal"


def test_only_models_with_keys_and_values_alone_have_windows():
    class Model:
        layers = [None] * 2

        def __init__(self, caches):
            self.make_cache = lambda: caches

    assert windows(Model([KVCache(), RotatingKVCache(max_size=8)])) == [None, 8]
    assert windows(Model([KVCache(), RotatingKVCache(max_size=8, keep=4)])) is None

    class Other(KVCache):
        pass

    assert windows(Model([Other()])) is None
