"""The frozen blocks' cache: whether it pays, what it computes, and that training never notices it."""

import logging
import shutil
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from fixtures_lora import make_llama, records_of, token_rows, training_settings

from callwright.lora import frozen_prefix, layers, loop
from callwright.lora.backend import backend
from callwright.lora.frozen_prefix import FrozenPrefix, needed, pays, prepare
from callwright.lora.prefix_store import Piece
from callwright.models.load import load
from callwright.runtime import provenance
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, read_jsonl

TRAIN, VALID = token_rows([20, 33, 41, 58, 70]), token_rows([25, 44, 31], seed=1)
ROW = 64 * 4  # bytes of a position of `make_llama`


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def prepared(model_folder, tmp_path):
    """The rule's work in `tmp_path`/frozen_prefix; `opened` counts how often the model was loaded."""
    opened = []

    def run(rows=TRAIN, shared=False, **changes):
        settings = training_settings(**changes)

        def open_backend():
            opened.append(1)
            model, _ = load(model_folder)
            layers.attach(model, settings["lora"])
            return backend(model, settings)

        index = prepare(model_folder, rows, VALID, settings, tmp_path / "frozen_prefix", open_backend, shared)
        return SimpleNamespace(index=index, opened=len(opened), settings=settings)

    return run


@pytest.fixture
def train(model_folder, tmp_path):
    """A training in `tmp_path`/`name`; returns its losses and the adapter's bytes."""

    def run(name, index=None, **changes):
        folder = tmp_path / name
        loop.train(
            model_folder, TRAIN, VALID, training_settings(**changes), folder / "state", folder / "adapter", "a",
            folder / "history.jsonl", index,
        )  # fmt: skip
        losses = [(row["event"], row["loss"]) for row in read_jsonl(folder / "history.jsonl") if "loss" in row]
        return losses, (folder / "adapter" / layers.WEIGHTS).read_bytes()

    return run


@pytest.fixture
def log_text(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("callwright"), "propagate", True)
    return lambda: caplog.text


# -- whether ---------------------------------------------------------------------------------------


def decision(visits=4.0, first_trained_block=2, setting="auto", shared=False):
    return pays(records_of([5, 9, 14]), visits, first_trained_block, 24, setting, shared)["use"]


def test_it_pays_where_records_are_seen_again_and_blocks_are_frozen():
    assert decision()
    assert not decision(visits=1.0)
    assert decision(visits=1.0, setting="on")
    assert not decision(first_trained_block=0, setting="on")
    assert not decision(setting="off")
    assert decision(visits=0.6, shared=True)
    assert not decision(visits=0.4, shared=True)
    assert pays(records_of([5, 9, 14]), 4, 2, 24, "auto", False)["bytes"] == 28 * 24


def test_visits_are_what_the_run_will_see():
    train, valid = records_of([10] * 8), records_of([12] * 6)
    settings = training_settings(iterations=10, accumulation=2, batch_size=2, validate_every=4, validation_batches=2)
    found = needed(train, valid, settings)
    assert found["train"] == (train, 5.0)
    records, visits = found["validation"]
    assert len(records) == 4  # two batches of two are validated on, not all six records
    assert visits == 4  # before the first step, after steps 4, 8 and 10


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prefix_cache": "off"}, "training.prefix_cache is `off`"),
        ({"lora": {"layers": -1}}, "no block is frozen"),
        ({"iterations": 1, "validation_batches": 1, "validate_every": 1, "batch_size": 1}, "seen 0.2 times"),
    ],
)
def test_no_model_is_loaded_where_the_answer_is_no(prepared, tmp_path, monkeypatch, changes, reason):
    monkeypatch.setattr(frozen_prefix, "needed", lambda train, valid, s: {"train": needed(train, valid, s)["train"]})
    found = prepared(**changes)
    assert found.opened == 0
    assert found.index["store"] is None
    assert not found.index["train"]["use"]
    assert reason in found.index["train"]["reason"]
    assert not (tmp_path / "frozen_prefix").exists()


def test_a_disk_too_small_is_a_no_or_one_clear_line(prepared, monkeypatch, log_text):
    need = sum(len(row["input_ids"]) for row in TRAIN) * ROW
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * need - 1))
    with pytest.raises(CallwrightError, match=r"more than half of .* set config key training\.prefix_cache to `off`"):
        prepared(prefix_cache="on")
    found = prepared()
    assert not found.index["train"]["use"]
    assert "more than half" in log_text()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * need))
    assert prepared().index["train"]["use"]


# -- the store that the rule fills -----------------------------------------------------------------


def test_each_record_is_computed_once_for_runs_seeds_and_subsets(prepared):
    found = prepared()
    assert (found.index["train"]["computed"], found.index["validation"]["computed"]) == (5, 3)
    assert found.index["train"]["bytes"] == sum(len(row["input_ids"]) for row in TRAIN) * ROW
    for changes in ({"seed": 8}, {"lora": {"rank": 2}}, {"examples": 3}, {"learning_rate": 0.1}):
        again = prepared(**changes)
        assert again.index["store"] == found.index["store"]
        assert (again.index["train"]["computed"], again.index["validation"]["computed"]) == (0, 0)
    assert prepared(lora={"layers": 1}).index["store"] != found.index["store"]
    assert prepared(rows=[*TRAIN, *token_rows([30], seed=9)]).index["train"]["computed"] == 1


@pytest.mark.parametrize("kind", ["lora", "dora"], ids=["cpu", "autograd"])
def test_the_store_holds_what_the_backend_computes(prepared, model_folder, tmp_path, kind):
    found = prepared(lora={"kind": kind})
    model, _ = load(model_folder)
    layers.attach(model, found.settings["lora"])
    computed = backend(model, found.settings)
    store = frozen_prefix.open_store(tmp_path / "frozen_prefix", model_folder, computed)
    assert str(store.folder) == found.index["store"]
    for row in [*TRAIN, *VALID]:
        tokens = np.asarray(row["input_ids"], np.int32)
        assert mx.array_equal(store.read(Piece(tokens)), computed.prefix(tokens))
    computed.close()


def test_another_model_code_version_or_place_is_another_store(prepared, model_folder, monkeypatch, tmp_path):
    found = prepared()
    header = read_json(f"{found.index['store']}/store.json")
    assert header["first_trained_block"] == 2
    assert header["backend"] == "CpuBackend"
    assert set(header["versions"]) == {"mlx", "mlx-lm", "numpy"}
    real = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: real | {"mlx": "0.0.1"})
    other = prepared()
    assert other.index["store"] != found.index["store"]
    assert other.index["train"]["computed"] == 5
    assert [str(path) for path in (tmp_path / "frozen_prefix").iterdir()] == [other.index["store"]], (
        "the old one is deleted"
    )
    (model_folder / "README.md").write_text("another file")
    assert prepared().index["store"] != other.index["store"]
    (model_folder / "README.md").unlink()


# -- training with it ------------------------------------------------------------------------------


def test_fifty_steps_from_a_store_or_from_memory_are_the_same_bits_and_agree_with_none(prepared, train):
    """On the CPU path, with validation; the store is read by two runs, the second of another seed.

    Without a cache the frozen blocks compute a batch's records together, which rounds otherwise.
    """
    settings = {"iterations": 50, "validate_every": 10}
    plain, _ = train("plain", prefix_cache="off", **settings)
    found = prepared(**settings)
    assert found.index["train"]["use"]
    assert found.index["validation"]["use"]
    stored = train("stored", found.index, **settings)
    assert stored == train("memory", None, **settings)
    assert [loss for _, loss in stored[0]] == pytest.approx([loss for _, loss in plain], rel=1e-4)
    other = {"iterations": 6, "seed": 8}
    assert train("seed", found.index, **other) == train("seed-memory", None, prefix_cache="on", **other)


def test_autograds_losses_agree_over_fifty_steps(prepared, train):
    """There a batch is padded and computed as a whole without the cache, record by record with it."""
    settings = {"iterations": 50, "validate_every": 10, "gradient_checkpointing": "all", "learning_rate": 0.002}
    plain, _ = train("plain", prefix_cache="off", **settings)
    stored, _ = train("stored", prepared(**settings).index, **settings)
    assert [loss for _, loss in stored] == pytest.approx([loss for _, loss in plain], rel=1e-4)


def test_a_missing_or_damaged_store_changes_nothing(prepared, train, log_text):
    settings = {"iterations": 8}
    found = prepared(**settings)
    plain = train("plain", found.index, **settings)
    data = frozen_prefix.Path(found.index["store"]) / "frozen_prefix.bin"
    content = bytearray(data.read_bytes())
    content[len(content) // 3] ^= 1
    data.write_bytes(content)
    assert train("damaged", found.index, **settings) == plain
    assert "lacks 1 records" in log_text()
    assert prepared(**settings).index["train"]["computed"] == 0, "training has put the record back"
    data.write_bytes(content[: len(content) // 2])
    assert train("cut", found.index, **settings) == plain
    shutil.rmtree(data.parent)
    assert train("missing", found.index, **settings) == plain


def test_training_that_the_index_tells_no_computes_as_it_goes(prepared, train, tmp_path):
    found = prepared(prefix_cache="off")
    assert train("a", found.index) == train("b", prefix_cache="off")
    assert not (tmp_path / "frozen_prefix").exists()


def test_without_a_store_outputs_stay_in_memory_up_to_a_size(model_folder, monkeypatch):
    settings = training_settings()
    model, _ = load(model_folder)
    layers.attach(model, settings["lora"])
    computed = backend(model, settings)
    records, valid = records_of([20, 33]), records_of([25], seed=1)

    def used(**changes):
        return set(frozen_prefix.caches(None, model_folder, computed, records, valid, settings | changes))

    assert used() == {"train", "validation"}
    assert used(prefix_cache="off") == set()
    monkeypatch.setattr(frozen_prefix, "IN_MEMORY_BYTES", (20 + 33 + 25) * ROW - 1)
    assert used() == set()
    assert used(prefix_cache="on") == {"train", "validation"}
    computed.close()


def test_in_memory_each_record_is_computed_once():
    calls = []

    def compute(tokens, begun):
        assert begun is None
        calls.append(tokens.size)
        return mx.array(tokens)[:, None] * mx.ones(6)

    cache = FrozenPrefix(SimpleNamespace(prefix=compute), records_of([5, 9, 14]))
    for index in (1, 0, 1, 2, 2, 0):
        assert cache.get(index).shape == ([5, 9, 14][index], 6)
    assert calls == [9, 5, 14]
