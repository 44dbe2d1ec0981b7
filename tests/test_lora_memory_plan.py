"""The memory plan: what it predicts against what MLX counts, what it chooses and refuses; it changes no result."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from fixtures_lora import (
    llama_config,
    make_llama,
    one_batch,
    records_of,
    tiny_llama,
    tiny_model,
    token_rows,
    training_settings,
    with_adapter,
)
from mlx.utils import tree_flatten, tree_map

from callwright.lora import batches, layers, loop, random_state
from callwright.lora.autograd import AutogradBackend, frozen_blocks
from callwright.lora.backend import backend, vocabulary
from callwright.lora.distributed import ProcessGroup
from callwright.lora.loss import chunk_tokens
from callwright.lora.memory import footprint, forecast, plan, usage
from callwright.lora.memory.graph_trace import GraphTrace
from callwright.lora.speed import Speed
from callwright.runtime import blas
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, read_jsonl

TRAIN, VALID = token_rows([40, 80, 60, 70, 90]), token_rows([25, 44], seed=1)


# -- counting on a graph ---------------------------------------------------------------------------


def test_a_tape_counts_what_is_alive_at_once_and_not_what_is_held_or_a_view():
    tape = GraphTrace()
    x, w = tape.held([mx.zeros((100, 20)), mx.zeros((20, 30))])
    [y] = tape.add(lambda x, w: [(x @ w).T.reshape(-1)], x, w)
    assert tape.peaks([[y]], lag=0) == [(2 * 12000, 12000)]  # the product, then a copy, since it was transposed
    tape = GraphTrace()
    x = tape.held(mx.zeros((100, 20)))
    [y] = tape.add(lambda x: [mx.exp(mx.sin(x * 2)).reshape(-1)], x)
    assert tape.peaks([[y]], lag=0) == [(8000, 8000)]  # each written over the one before
    tape = GraphTrace()
    x = tape.held(mx.zeros((100, 20)))
    [y] = tape.add(lambda x: [(mx.sin(x) @ x.T) @ x @ x.T @ x], x)
    assert [tape.peaks([[y]], lag)[0][0] for lag in (0, 9)] == [48000, 8000 + 40000 + 8000 + 40000 + 8000]


def test_a_tape_of_several_functions_keeps_what_a_later_phase_reads():
    tape = GraphTrace()
    x = tape.held(mx.zeros((50, 40)))
    slope = tape.promise(x)
    value, gradient = tape.add(lambda x, s: [mx.exp(mx.sin(x)), mx.vjp(lambda x: mx.sin(x), [x], [s])[1][0]], x, slope)
    [made] = tape.add(lambda y: [y @ y.T @ y], value)
    tape.keep(slope, made)
    (_, between), (_, after) = tape.peaks([[value], [gradient]], lag=0)
    assert (between, after) == (8000, 16000)


def measured(step: AutogradBackend, adapter: dict[str, mx.array], batch: batches.Batch) -> dict[str, int]:
    """What MLX counts in a step: kept after the loss, and the most in either phase."""
    mx.synchronize()
    mx.clear_cache()  # MLX lends buffers of up to two pages more from there, and other tests fill it
    found, before = {}, mx.get_active_memory()

    def phase(name: str) -> None:
        found[name] = mx.get_peak_memory() - before
        found["kept"] = found.get("kept", mx.get_active_memory() - before)
        mx.reset_peak_memory()

    mx.reset_peak_memory()
    step.loss_and_gradients(adapter, [batch], None, phase)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "lora", "policy"),
    [
        ("llama", {"layers": -1}, "off"),
        ("llama", {"layers": -1}, "all"),
        ("llama quantized", {"projections": ["q_proj", "v_proj"], "dropout": 0.1}, 2),
        ("gemma", {"layers": 3}, "off"),
        ("gemma", {"layers": 3}, 2),
        ("gemma", {"projections": ["q_proj", "embed_tokens"]}, "all"),
    ],
    ids=str,
)
def test_the_bytes_of_a_step_are_those_that_mlx_counts(kind, lora, policy, tmp_path):
    """What is kept is counted to the two hidden states that Python's names hold on to; peaks vary a little."""
    settings = training_settings(lora, gradient_checkpointing=policy)
    model = tiny_model(kind, tmp_path)
    adapter = with_adapter(model, settings)
    step = AutogradBackend(model, settings, frozen_blocks(model))
    batch = one_batch(records_of([200, 220, 210]))
    found, predicted = measured(step, adapter, batch), footprint.step_bytes(step, batch)
    hidden = 3 * batch.width * 64 * 4
    assert predicted["kept"] == pytest.approx(found["kept"], abs=2 * hidden, rel=0.03)
    assert 0.7 < max(predicted.values()) / max(found.values()) < 1.4
    assert step.activation_bytes(batch) == max(predicted.values())


def test_counting_changes_neither_the_model_nor_the_random_numbers(tmp_path):
    settings = training_settings({"dropout": 0.3}, gradient_checkpointing=2)
    model = tiny_llama()
    adapter = with_adapter(model, settings)
    step = AutogradBackend(model, settings, frozen_blocks(model))
    batch = one_batch(records_of([30, 50]))
    before, state = dict(tree_flatten(model.parameters())), random_state.get()
    expected, _ = step.loss_and_gradients(adapter, [batch], None)
    random_state.put(state)
    step.activation_bytes(batch)
    assert random_state.get() == state
    assert all(value is before[name] or name in adapter for name, value in tree_flatten(model.parameters()))
    assert step.loss_and_gradients(adapter, [batch], None)[0] == expected


def test_a_forecast_from_the_shape_alone_is_that_of_the_real_model():
    settings = training_settings({"layers": 2}, loss_chunk="auto")
    lora, rows = settings["lora"], records_of([64, 64])
    for row in rows:
        object.__setattr__(row, "positions", np.arange(43, 63, dtype=np.int32))
    model = tiny_llama()
    weights = plan.nbytes(model.parameters())
    layers.attach(model, lora)
    step = AutogradBackend(model, {**settings, "loss_chunk": 512}, frozen_blocks(model))
    found = forecast.forecast(llama_config(), settings, records=2, tokens=64, trained=20, float32=True)
    adapter = plan.nbytes(layers.adapter_parameters(model))
    assert (found["weights"], found["adapter"], found["optimizer"]) == (weights, adapter, 2 * adapter)
    assert step.activation_bytes(batches.Batch([0, 1], rows, 64)) == max(found["forward"], found["backward"])
    halved = forecast.forecast(
        {**llama_config(), "quantization": {"group_size": 32, "bits": 4}}, settings, records=2, tokens=64, trained=20
    )
    # 4 bits and a scale and a bias of 16 for 32 weights; norms in 16 bits
    assert halved["weights"] == pytest.approx(weights * 5 / 32, rel=0.02)
    assert halved["forward"] < found["forward"]


# -- what it chooses -------------------------------------------------------------------------------


@dataclass
class Fake:
    """Needs 100 MB a record, or what is left of it by recomputation, and 1 MB for each token of a chunk."""

    width = 8
    dtype = mx.float32
    policy: Any = "off"
    chunk: int = 1

    def configure(self, policy: Any, chunk: int) -> None:
        self.policy, self.chunk = policy, chunk

    def rows(self, batch: batches.Batch) -> int:
        return len(batch.records) * batch.width

    def activation_bytes(self, batch: batches.Batch) -> int:
        share = {"off": 1, 4: 0.8, 2: 0.6, "all": 0.2}[self.policy]
        return round(len(batch.records) * batch.records[0].length * 10**6 * share) + self.chunk * 10**6


RECORDS = records_of([100, 100, 100, 100, 90])


def chosen(budget: float, stored: dict[str, Any] | None = None, **changes: Any) -> tuple[Any, ...]:
    """(micro-batch, checkpointing, loss chunk) for `budget` GB, of which weights and frozen prefix take 1."""
    settings = training_settings(**{"batch_size": 4, "gradient_checkpointing": "auto", "loss_chunk": "auto", **changes})
    made, fake = plan.MemoryPlan({**settings, "memory_budget_gb": budget}, RECORDS), Fake()
    choice = made.choose(fake, 9 * 10**8, 0, 10**8, vocabulary=10**5, stored=stored)
    assert (fake.policy, fake.chunk) == (choice.gradient_checkpointing, choice.loss_chunk)
    return choice.micro_batch, choice.gradient_checkpointing, choice.loss_chunk


def test_the_cheapest_choice_that_fits_is_taken():
    assert chunk_tokens("auto", 10**5) == 160
    assert chosen(2.0) == (4, "off", 160)
    assert chosen(1.5) == (2, "off", 160)
    assert chosen(1.3) == (1, "off", 160)
    assert chosen(1.25) == (2, "off", 16)
    assert chosen(1.12) == (1, "off", 16)
    assert chosen(1.1) == (1, 4, 16)
    assert chosen(1.04) == (1, "all", 16)
    assert chosen(1.19, gradient_checkpointing="all") == (1, "all", 160)
    assert chosen(1.25, gradient_checkpointing="all", loss_chunk=160) == (4, "all", 160)


def test_what_a_run_began_with_is_kept_even_where_more_would_fit():
    began = {"micro_batch": 1, "gradient_checkpointing": 2, "loss_chunk": 48}
    assert chosen(9.0, stored=began) == tuple(began.values())


@pytest.mark.parametrize(
    ("budget", "changes", "expected"),
    [
        (
            1.03,
            {},
            r"take 1\.04 GB .* 1 of the longest .*memory_budget_gb is 1\.03 GB.* from 1\.04 on.*max_tokens: 50",
        ),
        (
            1.1,
            {"gradient_checkpointing": "off"},
            r"take 1\.12 GB .*gradient_checkpointing: all \(1\.04 GB\).*max_tokens: 75 .*lora\.layers",
        ),
        (0.9, {}, r"weights 0\.90, prefix cache 0\.10.*a smaller model$"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_settings_that_would(budget, changes, expected):
    with pytest.raises(CallwrightError, match=expected):
        chosen(budget, **changes)


def test_without_a_budget_it_is_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(usage, "available", lambda: 3.0)
    settings = training_settings(batch_size=4)
    assert plan.MemoryPlan(settings, RECORDS).budget_gb == 3.0
    assert not plan.MemoryPlan(settings, RECORDS).is_set
    assert chosen(None, gradient_checkpointing="auto") == (4, "off", 160)
    monkeypatch.setattr(usage, "available", lambda: 1.0)
    with pytest.raises(CallwrightError, match=r"1\.00 are free GB|closing other programs"):
        chosen(None)


def test_a_machines_free_memory_leaves_a_margin_and_knows_control_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(usage, "CGROUP", tmp_path / "none")
    free = usage.available()
    assert 0 < free < usage.psutil.virtual_memory().total / 1e9
    monkeypatch.setattr(usage, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    assert usage.available() == pytest.approx(2 * 0.9 - 0.5)
    (tmp_path / "memory.max").write_text("max\n")
    assert usage.available() > 1.5


@pytest.mark.parametrize(("vocabulary", "tokens"), [(500, 512), (49152, 320), (262144, 48), (10**7, 16)])
def test_an_automatic_chunk_keeps_its_logits_small(vocabulary, tokens):
    assert chunk_tokens("auto", vocabulary) == tokens
    assert chunk_tokens(7, vocabulary) == 7


def test_parts_of_a_batch_are_its_records_at_its_width():
    records = records_of([10, 30, 50, 20, 40])
    [batch] = batches.neighbours(records, 5)
    assert [record.length for record in batch.records] == [10, 20, 30, 40, 50]
    pairs = [[record.length for record in pair.records] for pair in batches.neighbours(records, 2)]
    assert pairs == [[10, 20], [20, 30], [30, 40], [40, 50]]
    assert [len(all.records) for all in batches.neighbours(records, 9)] == [5]
    parts = batches.split(batch, 2)
    assert [len(part.records) for part in parts] == [2, 2, 1]
    assert {part.width for part in parts} == {batch.width}
    assert [index for part in parts for index in part.indices] == batch.indices
    assert batches.split(batch, 9)[0].indices == batch.indices


# -- in a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def train(model_folder, tmp_path) -> Callable[..., tuple]:
    """A run in the folder `name`: (summary, adapter, history)."""

    def run(name: str = "run", **changes: Any) -> tuple:
        folder = tmp_path / name
        settings = training_settings(**{"iterations": 3, **changes})
        summary = loop.train(
            model_folder, TRAIN, VALID, settings, folder / "state", folder / "adapter", name, folder / "history.jsonl"
        )
        return summary, mx.load(str(folder / "adapter" / layers.WEIGHTS)), list(read_jsonl(folder / "history.jsonl"))

    return run


@pytest.mark.parametrize("lora", [{}, {"dropout": 0.2}], ids=["cpu path", "autograd"])
def test_the_probe_measures_a_step_and_changes_nothing(train, monkeypatch, lora):
    summary, adapter, history = train("probed", lora=lora)
    rows = {row["what"]: (row["predicted_gb"], row["measured_gb"]) for row in summary["plan"]["rows"]}
    for what in ("weights", "adapter and optimizer", plan.STEP, plan.PROBE):
        assert all(value > 0 for value in rows[what])
    assert rows["adapter and optimizer"][0] == rows["adapter and optimizer"][1]
    assert rows[plan.STEP][0] == pytest.approx(rows[plan.STEP][1], rel=0.5)
    peaks = [row["peak_gb"] for row in history if row["event"] in ("step", "validation")]
    assert rows[plan.MOST][1] == pytest.approx(max(peaks), abs=1e-4)
    assert summary["plan"]["gradient_checkpointing"] == "off"
    monkeypatch.setattr(plan.MemoryPlan, "measure", lambda *args: None)
    _, plain, _ = train("not probed", lora=lora)
    assert all(mx.array_equal(plain[name], value) for name, value in adapter.items())


@pytest.mark.parametrize("lora", [{}, {"projections": ["q_proj", "embed_tokens"]}], ids=["cpu path", "autograd"])
def test_a_batch_in_parts_takes_the_same_step(train, model_folder, monkeypatch, caplog, lora):
    monkeypatch.setattr(logging.getLogger("callwright"), "propagate", True)
    changes = {"lora": lora, "batch_size": 4, "eps": 1.0, "clip_norm": 0, "warmup": 0}
    whole, adapter, history = train("whole", **changes)
    monkeypatch.setattr(plan.MemoryPlan, "_choices", lambda *args: iter([plan.Choice(1, "off", 16)]))
    parts, adapter2, history2 = train("parts", **changes)
    assert (whole["plan"]["micro_batch"], parts["plan"]["micro_batch"]) == (4, 1)
    assert "each batch is computed in parts of 1" in caplog.text
    for one, two in zip(history, history2, strict=True):
        if one["event"] == "step":
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
            assert (two["tokens"], two["processed_tokens"]) == (one["tokens"], one["processed_tokens"])
    assert all(mx.allclose(adapter2[name], value, rtol=1e-4, atol=1e-6).item() for name, value in adapter.items())


def test_a_budget_that_is_too_small_stops_the_run_before_it_begins(train, tmp_path):
    before = mx.set_memory_limit(10**12)
    try:
        with pytest.raises(CallwrightError, match=r"training would take .*memory_budget_gb is 0\.0001"):
            train(memory_budget_gb=0.0001)
    finally:
        mx.set_memory_limit(before)
    assert not (tmp_path / "run" / "history.jsonl").exists()


def test_a_run_that_goes_on_goes_on_with_its_choice(train, tmp_path, monkeypatch):
    train(gradient_checkpointing="auto")
    assert read_json(tmp_path / "run" / "state" / plan.FILE)["choice"]["gradient_checkpointing"] == "off"
    plan.store_choice(tmp_path / "run" / "state", "run", plan.Choice(1, "all", 16))
    summary, _, _ = train(gradient_checkpointing="auto")
    assert (summary["plan"]["gradient_checkpointing"], summary["plan"]["micro_batch"]) == ("all", 1)
    assert plan.stored_choice(tmp_path / "run" / "state", "another") is None
    assert plan.stored_choice(tmp_path, "run") is None


def test_the_history_has_a_row_of_memory_for_each_phase(train):
    _, _, history = train(lora={"dropout": 0.1}, validate_every=2)
    rows = [row for row in history if row["event"] == "memory"]
    assert [(row["step"], row["phase"]) for row in rows] == [
        (0, "load"), (0, "validation"), (1, "forward"), (1, "backward"), (1, "update"), (2, "validation"),
        (3, "validation"),
    ]  # fmt: skip
    for row in rows:
        assert row.keys() == {"event", "step", "phase", "active_gb", "peak_gb", "cache_gb", "process_gb", "seconds"}
        assert row["peak_gb"] >= row["active_gb"] > 0
        assert row["seconds"] >= 0
    [first] = [row for row in history if row["event"] == "step" and row["step"] == 1]
    assert first["peak_gb"] >= max(row["peak_gb"] for row in rows if row["step"] == 1)


def test_phases_that_come_again_add_up_their_seconds_and_keep_their_highest_peak(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(usage.time, "monotonic", lambda: next(now))
    probe = usage.Probe()
    mx.eval(mx.zeros((3_000_000,)))
    probe.phase("forward")
    probe.phase("backward")
    mx.eval(mx.zeros((1_000,)))
    probe.phase("forward")
    assert probe.phases["forward"]["seconds"] == 5.0
    assert probe.phases["backward"]["seconds"] == 2.0
    assert probe.phases["forward"]["peak_gb"] - probe.phases["backward"]["peak_gb"] >= 0.011
    assert probe.read()["peak_gb"] >= probe.phases["forward"]["peak_gb"]


# -- the share of the sgemm rate -------------------------------------------------------------------


def test_the_share_of_the_sgemm_rate_is_operations_over_seconds_times_rate(monkeypatch):
    monkeypatch.setattr(blas, "measure_gflops", lambda size: 100.0)

    class Counting:
        counts_flops = True

        def flops(self, batch: batches.Batch) -> dict[str, int]:
            return {name: len(batch.records) * 10**9 for name in ("frozen_prefix", "forward", "head", "backward")}

    phases = {
        name: {"seconds": s} for name, s in (("frozen_prefix", 1.0), ("forward", 0.1), ("head", 0.2), ("backward", 0.5))
    }
    batch = one_batch(RECORDS)
    for cached in (False, True):
        speed = Speed(Counting(), ProcessGroup(), cached)
        speed.note([batch], phases)
        speed.note([batch], phases)
        share = speed.shares()["sgemm_share"]
        assert share["forward"] == 0.5
        assert share["backward"] == 0.1
        assert share["all"] == pytest.approx(0.15 / 0.8 if cached else 0.2 / 1.8, abs=1e-3)
        assert ("frozen_prefix" in share) is not cached
    monkeypatch.setattr(Counting, "counts_flops", False)
    silent = Speed(Counting(), ProcessGroup(), False)
    silent.note([batch], phases)
    assert silent.shares() == {}


def test_a_run_on_the_cpu_reports_its_share_by_phase(train):
    summary, _, _ = train(prefix_cache="off")
    assert summary["sgemm_share"].keys() == {"frozen_prefix", "forward", "head", "backward", "all"}
    assert all(share > 0 for share in summary["sgemm_share"].values())


def test_both_backends_take_the_plans_choice():
    settings = training_settings(gradient_checkpointing="auto", loss_chunk="auto")
    batch = one_batch(records_of([200, 210]))
    for lora in ({}, {"dropout": 0.1}):
        model = tiny_llama()
        layers.attach(model, {**settings["lora"], **lora})
        assert vocabulary(model) == 500
        step = backend(model, {**settings, "lora": {**settings["lora"], **lora}})
        kept = step.activation_bytes(batch)
        step.configure("all", 16)
        assert step.activation_bytes(batch) < kept
        step.close()


def test_a_tree_of_arrays_counts_each_once():
    a, b = mx.zeros((10,)), mx.zeros((5,), mx.bfloat16)
    assert plan.nbytes({"x": a, "y": [a, b]}) == 50
    assert plan.nbytes(tree_map(lambda x: x, {"x": a})) == 40
