"""The frozen blocks' cache: the same values from memory and from a file, and no file that the disk cannot hold."""

import logging
import shutil
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from test_lora_blocks import records_of

from callsmith.lora import trunk
from callsmith.lora.trunk import Trunk, plan
from callsmith.runtime.errors import CallsmithError

WIDTH = 6
RECORDS = records_of([5, 9, 14])


def compute_as(dtype, calls):
    def compute(tokens: np.ndarray) -> mx.array:
        calls.append(tokens.size)
        return (mx.array(tokens)[:, None] / 7 + mx.arange(WIDTH)).astype(dtype)

    return compute


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16], ids=str)
@pytest.mark.parametrize("in_file", [False, True])
def test_values_are_those_computed_and_each_record_is_computed_once(dtype, in_file, tmp_path):
    calls: list[int] = []
    compute = compute_as(dtype, calls)
    cache = Trunk(compute, RECORDS, WIDTH, dtype, tmp_path / "trunk.bin" if in_file else None)
    for index in (1, 0, 1, 2, 2, 0):
        hidden = cache.get(index)
        assert hidden.dtype == dtype
        assert mx.array_equal(hidden, compute_as(dtype, [])(RECORDS[index].tokens))
    assert calls == [9, 5, 14]


def test_what_another_run_left_is_not_read(tmp_path):
    path = tmp_path / "trunk.bin"
    path.write_bytes(b"\xff" * 1000)
    cache = Trunk(compute_as(mx.float32, []), RECORDS, WIDTH, mx.float32, path)
    assert mx.array_equal(cache.get(0), compute_as(mx.float32, [])(RECORDS[0].tokens))
    assert path.stat().st_size == trunk.size(RECORDS, WIDTH, mx.float32) == 28 * WIDTH * 4


def test_a_closed_cache_leaves_no_file(tmp_path):
    cache = Trunk(compute_as(mx.float32, []), RECORDS, WIDTH, mx.float32, tmp_path / "trunk.bin")
    cache.get(0)
    cache.close()
    cache.close()
    assert not list(tmp_path.iterdir())


# -- whether, and where ----------------------------------------------------------------------------


def planned(folder, visits=4.0, cut=2, setting="auto"):
    return plan("training", RECORDS, visits, cut, WIDTH, mx.float32, setting, folder)


def test_it_is_used_where_records_are_seen_again_and_blocks_are_frozen(tmp_path):
    assert planned(tmp_path) == (True, None)
    assert planned(tmp_path, visits=1.0) == (False, None)
    assert planned(tmp_path, visits=1.0, setting="on") == (True, None)
    assert planned(tmp_path, cut=0, setting="on") == (False, None)
    assert planned(tmp_path, setting="off") == (False, None)


def test_a_large_one_lies_in_a_file_if_half_of_the_free_disk_holds_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("callsmith"), "propagate", True)
    need = trunk.size(RECORDS, WIDTH, mx.float32)
    monkeypatch.setattr(trunk, "IN_MEMORY_BYTES", need - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * need))
    assert planned(tmp_path) == (True, tmp_path / "trunk-training.bin")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * need - 1))
    assert planned(tmp_path) == (False, None)
    assert "training without it" in caplog.text
    with pytest.raises(CallsmithError, match=r"more than half of .* set config key training\.trunk_cache to `off`"):
        planned(tmp_path, setting="on")
