"""The training loop on a toy model: what it weighs, keeps, reports and refuses. test_lora_snapshot.py interrupts it."""

import json
import logging
import threading

import mlx.core as mx
import numpy as np
import pytest
from fixtures_lora import make_llama, token_rows, training_settings

from callwright.lora import layers, loop
from callwright.lora.memory import usage
from callwright.lora.snapshot import Counters
from callwright.models.load import load
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_jsonl

TRAIN, VALID = token_rows([20, 33, 41, 58, 70]), token_rows([25, 44, 31], seed=1)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def train(model_folder, tmp_path):
    """A run in `tmp_path`: state/, adapter/ and history.jsonl."""

    def run(rows=TRAIN, fingerprint="a", **changes):
        return loop.train(
            model_folder, rows, VALID, training_settings(**changes), tmp_path / "state", tmp_path / "adapter",
            fingerprint, tmp_path / "history.jsonl",
        )  # fmt: skip

    return run


def weights(folder):
    return mx.load(str(folder / "adapter" / layers.WEIGHTS))


def history(folder, event="step"):
    return [row for row in read_jsonl(folder / "history.jsonl") if row["event"] == event]


@pytest.fixture
def instead(monkeypatch):
    """Wrap the run's backend: `instead(loss=...)` replaces a method by one that gets the real one first."""

    def wrap(**replacements):
        real = loop.backend

        def backend(model, settings):
            made = real(model, settings)
            for name, function in replacements.items():
                plain = getattr(made, name)
                setattr(made, name, lambda *args, function=function, plain=plain: function(plain, *args))
            return made

        monkeypatch.setattr(loop, "backend", backend)

    return wrap


# -- what it computes ------------------------------------------------------------------------------


def test_the_loss_falls_on_a_task_that_can_be_learned(train, tmp_path):
    rows = token_rows([20] * 8)
    for row in rows:  # the answer is the same token over and over
        row["input_ids"][10:], row["spans"] = [17] * 10, [[10, 20]]
    summary = train(rows, iterations=40, lora={"layers": -1})
    assert summary["final_loss"] < 0.25 * summary["initial_loss"]
    assert summary["loss_reduction"] > 0.75
    assert [row["step"] for row in history(tmp_path)] == list(range(1, 41))


@pytest.mark.parametrize("kind", ["lora", "dora"], ids=["cpu", "autograd"])
def test_two_micro_batches_of_one_are_one_batch_of_two(train, tmp_path, kind):
    """Of 6 and 75 trained tokens: each token weighs the same. A large epsilon keeps Adam from inflating rounding.

    mlx-lm divides each micro-batch by its own tokens and takes the mean: a token of a short row weighs more.
    """
    rows = token_rows([12, 100])
    steps = []
    for changes in ({"batch_size": 2}, {"batch_size": 1, "accumulation": 2}):
        train(rows, str(changes), iterations=1, eps=1.0, clip_norm=0, warmup=0, lora={"kind": kind}, **changes)
        steps.append((*history(tmp_path), weights(tmp_path)))
    (one, adapter), (two, adapter2) = steps
    assert one["tokens"] == two["tokens"] == sum(end - begin for row in rows for begin, end in row["spans"])
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    moved = 0
    for name, array in adapter.items():
        assert mx.allclose(adapter2[name], array, rtol=1e-4, atol=1e-6).item()
        moved += name.endswith("lora_b") and mx.abs(array).max().item() > 1e-5
    assert moved == 14


def test_the_summed_loss_is_divided_by_all_trained_tokens_of_a_ragged_last_batch(train, tmp_path, model_folder):
    """One pass of 3 records in batches of 2 at a rate near 0: the steps' losses are the base model's own."""
    rows = TRAIN[:3]
    train(rows, iterations=2, learning_rate=1e-9, warmup=0, prefix_cache="off")
    model, _ = load(model_folder)
    losses, counts = [], []
    for row in rows:
        tokens = mx.array(row["input_ids"])
        logits = model(tokens[None])[0]
        places = [place for begin, end in row["spans"] for place in range(begin, end)]
        picked = logits[mx.array(places) - 1, tokens[mx.array(places)]]
        losses.append(mx.sum(mx.logsumexp(logits, axis=-1)[mx.array(places) - 1] - picked).item())
        counts.append(len(places))
    found = history(tmp_path)
    assert sum(step["tokens"] for step in found) == sum(counts)
    assert sum(step["loss"] * step["tokens"] for step in found) == pytest.approx(sum(losses), rel=1e-4)
    assert sum(step["processed_tokens"] for step in found) == sum(len(row["input_ids"]) for row in rows)


@pytest.mark.parametrize("kind", ["lora", "dora"], ids=["cpu", "autograd"])
def test_padding_is_reported_where_it_is_computed(train, kind, monkeypatch, caplog):
    """Records of 20 and 41 tokens in batches of two, both padded to 48, or one by one without any padding."""
    monkeypatch.setattr(logging.getLogger("callwright"), "propagate", True)
    summary = train(token_rows([20, 41]), iterations=2, lora={"kind": kind})
    expected = 0 if kind == "lora" else 1 - 61 / (2 * 48)
    assert summary["padding_share"] == pytest.approx(expected)
    assert f"padding: {100 * expected:.1f} % of the positions computed" in caplog.text


def test_frozen_weights_stay_and_only_the_adapter_is_written(train, tmp_path, model_folder):
    before = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    train(iterations=3)
    assert {path.name: path.read_bytes() for path in model_folder.iterdir()} == before
    assert {name.rsplit(".", 1)[-1] for name in weights(tmp_path)} == {"lora_a", "lora_b"}
    assert json.loads((tmp_path / "adapter" / layers.CONFIG).read_text())["num_layers"] == 2


# -- what it keeps ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("select", "kept"), [("validation_loss", 2), ("last", 4)])
def test_the_adapter_of_the_lowest_validation_loss_is_kept_or_the_last(train, tmp_path, instead, select, kept):
    planned, seen = [5.0, 4.0, 1.0, 2.0, 3.0], []

    def loss(plain, adapter, validation, cache):
        seen.append(adapter)
        return planned[len(seen) - 1] * sum(batch.trained for batch in validation)

    instead(loss=loss)
    summary = train(iterations=20, validate_every=5, select=select)
    assert len(seen) == 5
    assert summary["best_validation_loss"] == pytest.approx(1)
    assert summary["best_iteration"] == 10
    assert summary["initial_validation_loss"] == pytest.approx(5)
    assert summary["final_validation_loss"] == pytest.approx(3)
    found = weights(tmp_path)
    assert all(mx.array_equal(found[name], seen[kept][name]) for name in found)
    assert not all(mx.array_equal(found[name], seen[3][name]) for name in found)


def test_the_validation_loss_is_that_of_the_adapter_that_was_written(train, tmp_path, model_folder):
    summary = train(iterations=12, validate_every=4)
    model, _ = load(model_folder)
    layers.load_adapter(model, tmp_path / "adapter")
    total, count = 0.0, 0
    for row in VALID:
        logits = model(mx.array([row["input_ids"]]))[0]
        for begin, end in row["spans"]:
            picked = logits[mx.arange(begin - 1, end - 1), mx.array(row["input_ids"][begin:end])]
            total += mx.sum(mx.logsumexp(logits[begin - 1 : end - 1], axis=-1) - picked).item()
            count += end - begin
    assert total / count == pytest.approx(summary["best_validation_loss"], rel=1e-4)
    assert summary["best_validation_loss"] == min(row["loss"] for row in history(tmp_path, "validation"))


def test_history_rows_have_their_keys(train, tmp_path):
    train(iterations=4, validate_every=3)
    gb = {"active_gb", "peak_gb", "cache_gb", "process_gb"}
    for row in history(tmp_path):
        assert row.keys() == gb | {
            "event", "step", "loss", "lr", "grad_norm", "tokens", "processed_tokens", "seconds"
        }  # fmt: skip
        assert row["process_gb"] > 0.05
    assert [row["step"] for row in history(tmp_path, "validation")] == [0, 3, 4]
    assert all(row.keys() == gb | {"event", "step", "loss", "seconds"} for row in history(tmp_path, "validation"))


# -- what it refuses -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_run_that_diverges_stops_with_the_remedy(train):
    with pytest.raises(CallwrightError, match=r"training step \d+: the .* is (nan|inf); lower training\.learning_rate"):
        train(iterations=20, learning_rate=1e30, clip_norm=0, warmup=0)


@pytest.mark.parametrize(
    ("what", "break_it"),
    [("loss", lambda loss, g: (float("nan"), g)), ("gradient's norm", lambda loss, g: (loss, broken(g)))],
)
def test_what_is_not_finite_stops_the_run_before_it_reaches_the_adapter(train, tmp_path, instead, what, break_it):
    def loss_and_gradients(plain, *args):
        loss, gradients = plain(*args)
        steps.append(loss)
        return break_it(loss, gradients) if len(steps) == 1 + 8 else (loss, gradients)  # the plan's probe is the first

    steps: list[float] = []
    instead(loss_and_gradients=loss_and_gradients)
    with pytest.raises(CallwrightError, match=f"training step 8: the {what} is nan"):
        train(snapshot_every=1)
    snapshot = mx.load(str(tmp_path / "state" / "snapshot.safetensors"))
    assert all(mx.isfinite(array).all().item() for array in snapshot.values())
    assert not (tmp_path / "adapter").exists()


def broken(gradients):
    name = next(iter(gradients))
    return {**gradients, name: gradients[name] * float("nan")}


def test_a_run_that_fails_leaves_no_thread(train, instead):
    def loss_and_gradients(plain, *args):
        raise CallwrightError("the disk is gone")

    instead(loss_and_gradients=loss_and_gradients)
    before = threading.active_count()
    with pytest.raises(CallwrightError, match="the disk is gone"):
        train()
    assert threading.active_count() == before


# -- the summary -----------------------------------------------------------------------------------


def summary_of(losses, tokens=None):
    tokens = [10] * len(losses) if tokens is None else tokens
    rows = [{"event": "validation", "step": 0, "loss": 99.0}]
    rows += [
        {"event": "step", "step": number, "loss": loss, "tokens": count}
        for number, (loss, count) in enumerate(zip(losses, tokens, strict=True), start=1)
    ]
    return loop.summarize(rows, Counters(step=len(losses), processed_tokens=1000, train_seconds=2.0), {})


def test_initial_and_final_loss_weigh_tokens_over_a_tenth_of_the_steps():
    losses = [4.0, 2.0] + [1.5] * 16 + [1.0, 0.5]
    summary = summary_of(losses, [30, 10] + [5] * 16 + [10, 30])
    assert summary["window"] == 2
    assert summary["initial_loss"] == pytest.approx((4 * 30 + 2 * 10) / 40)
    assert summary["final_loss"] == pytest.approx((1 * 10 + 0.5 * 30) / 40)
    assert summary["loss_reduction"] == pytest.approx(1 - 0.625 / 3.5)
    assert summary["tokens_per_second"] == 500
    assert summary_of([2.0] * 400)["window"] == 20
    assert summary_of([3.0, 2.0])["window"] == 1


def plain_convergence(losses, tokens, window):
    """The definition word by word: (convergence iteration, coefficient of variation)."""
    count = len(losses)
    smooth = {}
    for step in range(window, count + 1):
        part = range(step - window, step)
        smooth[step] = sum(losses[i] * tokens[i] for i in part) / sum(tokens[i] for i in part)
    bound = smooth[count] + 0.1 * (smooth[window] - smooth[count])
    found = [s for s in smooth if all(smooth[later] <= bound for later in range(s, count + 1))]
    step = min(found) if found and min(found) <= count - window else None
    rest = losses[(step or 1) - 1 :]
    return step, np.std(rest) / np.mean(rest)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [7, 40, 250])
def test_convergence_and_variation_are_as_defined(count, seed):
    generator = np.random.default_rng(seed)
    losses = (3 * np.exp(-np.arange(count) / (count / 8)) + 0.5 + 0.1 * generator.random(count)).tolist()
    tokens = generator.integers(5, 60, count).tolist()
    summary = summary_of(losses, tokens)
    step, variation = plain_convergence(losses, tokens, summary["window"])
    assert summary["convergence_iteration"] == step
    assert summary["coefficient_of_variation"] == pytest.approx(variation)


def test_convergence_is_the_first_step_that_is_never_left_again():
    losses = [10.0] * 3 + [1.0] * 4 + [5.0] + [1.0] * 4  # window 1: settled at step 4, left at 8, settled at 9
    summary = summary_of(losses)
    assert summary["window"] == 1
    assert summary["convergence_iteration"] == 9
    assert summary["coefficient_of_variation"] == 0


@pytest.mark.parametrize("losses", [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [2.0]], ids=str)
def test_a_loss_that_rises_or_falls_to_the_end_has_not_converged(losses):
    summary = summary_of(losses)
    assert summary["convergence_iteration"] is None
    assert summary["coefficient_of_variation"] == pytest.approx(np.std(losses) / np.mean(losses))


# -- memory ----------------------------------------------------------------------------------------


def test_a_memory_budget_is_set_and_said(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("callwright"), "propagate", True)
    found = {}
    monkeypatch.setattr(mx, "set_memory_limit", lambda n: found.update(memory=n))
    monkeypatch.setattr(mx, "set_cache_limit", lambda n: found.update(cache=n))
    usage.limit(None)
    assert found == {"cache": 5 * 10**8}
    assert not caplog.text
    usage.limit(1.0)
    assert found == {"cache": 25 * 10**7, "memory": 10**9}
    assert "1.0 GB" in caplog.text


def test_a_probes_peak_begins_anew_with_each_reset_and_its_highest_stays():
    probe = usage.Probe()
    mx.eval(mx.zeros((5_000_000,)))
    probe.reset()
    mx.eval(mx.zeros((1_000_000,)))
    assert probe.read()["peak_gb"] >= 0.004
    assert probe.highest >= 0.02
    assert probe.highest_process > 0.05
