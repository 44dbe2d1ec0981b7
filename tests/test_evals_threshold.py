"""The fitted threshold is as good as the best there is, and the temperature makes confidences honest."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from callwright.evals.threshold import ENOUGH, calibration_error, confidence, decide, fit, stored
from callwright.models.load import load
from callwright.runtime.errors import CallwrightError


def drawn(count, shift, scale, seed=0):
    """Probabilities whose log-odds are `scale` times those that would be honest, and what is wanted."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0.5, 2.0, count)
    wanted = rng.random(count) < 1 / (1 + np.exp(-honest))
    return 1 / (1 + np.exp(-(scale * honest + shift))), wanted


def balanced(p, y, threshold):
    return ((p[y] >= threshold).mean() + (p[~y] < threshold).mean()) / 2


@pytest.mark.parametrize("shift", [-3.0, 0.0, 4.0])
def test_no_threshold_nearer_to_a_half_is_as_good_as_the_best_within_an_error(shift):
    p, y = drawn(300, shift, 1.0)
    found = fit(p, y)
    thresholds = [*p, *np.linspace(0, 1, 999)]
    best = max(balanced(p, y, t) for t in thresholds)
    assert found["best"] == pytest.approx(best)
    assert balanced(p, y, found["threshold"]) == pytest.approx(found["balanced_accuracy"], abs=1e-9)
    error = np.sqrt(0.25 / y.sum() + 0.25 / (~y).sum()) / 2  # at most
    assert best - error <= found["balanced_accuracy"] <= best
    side = np.sign(found["threshold"] - 0.5)
    nearer = [t for t in thresholds if 0 <= side * (t - 0.5) < side * (found["threshold"] - 0.5) - 0.01]
    assert all(balanced(p, y, t) < best - error / 2 for t in nearer)
    assert found["at_half"] == pytest.approx(balanced(p, y, 0.5))
    assert found["calls_kept"] == pytest.approx((p[y] >= found["threshold"]).mean())
    assert found["false_calls"] == pytest.approx((p[~y] >= found["threshold"]).mean())


def test_where_all_can_be_told_apart_it_is_a_half():
    found = fit([0.1, 0.2, 0.9, 0.95], [False, False, True, True])
    assert found["balanced_accuracy"] == 1.0
    assert found["threshold"] == 0.5
    assert [point["calls_kept"] for point in found["curve"]] == sorted(
        (point["calls_kept"] for point in found["curve"]), reverse=True
    )


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_was_too_sure_or_not_sure_enough(scale):
    p, y = drawn(6000, 0.0, scale)
    found = fit(p, y)
    assert found["temperature"] == pytest.approx(scale, rel=0.15)
    assert found["calibration_error"] < 0.03
    assert found["calibration_error"] <= found["raw_calibration_error"] + 0.01
    assert confidence(0.5, found["temperature"]) == pytest.approx(0.5)
    assert confidence(1.0, 1.0) < 1.0


def test_the_calibration_error_of_what_is_always_sure():
    assert calibration_error(np.ones(10), np.array([True] * 7 + [False] * 3)) == pytest.approx(0.3)
    assert calibration_error(np.array([0.05] * 20), np.array([True] + [False] * 19)) == pytest.approx(0.0, abs=1e-9)


def test_items_of_one_kind_say_nothing():
    with pytest.raises(CallwrightError, match="all 2 are the same"):
        fit([0.1, 0.9], [True, True])


def test_a_line_that_is_given_is_measured():
    p, y = [0.2, 0.6, 0.7, 0.97, 0.98, 0.99], [False, False, True, False, True, True]
    given = {"threshold": 0.65, "temperature": 2.0}
    found = fit(p, y, given)
    assert (found["threshold"], found["temperature"]) == (0.65, 2.0)
    assert (found["calls_kept"], found["false_calls"]) == (1.0, 1 / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["best"] == fit(p, y)["best"]


def test_few_items_keep_the_line_of_the_adapter_that_training_began_with(gemma_folder, caplog):
    model, tokenizer = load(gemma_folder)
    begun = {"threshold": 0.523, "temperature": 2.52, "grounding": "ask"}
    calls = [{"name": "f", "arguments": {}}]
    asked = [
        SimpleNamespace(messages=[{"role": "user", "content": f"{n}?"}], tools=[], calls=calls * (n % 2))
        for n in range(ENOUGH)
    ]
    for few in (asked[:6], asked[:30]):  # too few to measure anything, and too few to draw a line
        found = decide(model, tokenizer, few, begun=begun)
        assert (found["threshold"], found["temperature"], found["items"]) == (0.523, 2.52, len(few))
    assert decide(model, tokenizer, asked, begun=begun)["temperature"] != 2.52


def test_without_both_kinds_the_models_own_decision_is_left(gemma_folder, caplog):
    model, tokenizer = load(gemma_folder)
    asked = [SimpleNamespace(messages=[], tools=[], calls=[{"name": "f", "arguments": {}}])] * 3
    found = decide(model, tokenizer, asked)
    assert (found["threshold"], found["temperature"], found["items"], found["calls"]) == (0.5, 1.0, 3, 3)
    assert "3 validation items: all are of one kind" in caplog.text


def test_a_few_items_draw_no_line(gemma_folder, caplog):
    model, tokenizer = load(gemma_folder)
    asked = [
        SimpleNamespace(messages=[], tools=[], calls=[{"name": "f", "arguments": {}}] * (n > 3)) for n in range(18)
    ]
    found = decide(model, tokenizer, asked)
    assert (found["threshold"], found["temperature"], found["items"], found["calls"]) == (0.5, 1.0, 18, 14)
    assert "18 validation items: only 4 of a kind, want 8" in caplog.text


GOOD = {"threshold": 0.6, "temperature": 1.2, "grounding": "ask", "questions": {"f": {"city": "Where?"}},
        "tool_encoder": {"weight": 1.0}}  # fmt: skip


def test_a_stored_decision_is_found_beside_the_weights_or_in_the_run(tmp_path):
    assert stored(tmp_path) is None
    (tmp_path / "decision.json").write_text(json.dumps(GOOD))
    assert stored(tmp_path) == GOOD
    assert stored("elsewhere", tmp_path / "adapter") == GOOD


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ([], "the file"), ({**GOOD, "threshold": "0.5"}, "threshold"), ({**GOOD, "threshold": 2}, "threshold"),
        ({**GOOD, "temperature": 0}, "temperature"), ({"threshold": 0.5}, "the file"),
        ({**GOOD, "grounding": "yes"}, "grounding"), ({**GOOD, "questions": {"f": "Where?"}}, "questions.f"),
        ({**GOOD, "tool_encoder": True}, "tool_encoder"), ({**GOOD, "tool_encoder": {}}, "tool_encoder"),
        ({**GOOD, "tool_encoder": {"weight": -5}}, "tool_encoder.weight"),
    ],
)  # fmt: skip
def test_a_damaged_decision_is_refused_with_its_place(tmp_path, damage, where):
    (tmp_path / "decision.json").write_text(json.dumps(damage))
    with pytest.raises(CallwrightError, match=rf"decision\.json: {re.escape(where)}: "):
        stored(tmp_path)
