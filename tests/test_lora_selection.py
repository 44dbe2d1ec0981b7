"""Which adapter is kept and when training ends early; both survive an interruption."""

import mlx.core as mx
import pytest
from fixtures_lora import (
    Interrupted,
    interrupt,
    make_llama,
    tiny_model,
    token_rows,
    training_settings,
    with_adapter,
)
from mlx.utils import tree_flatten, tree_unflatten

from callwright.lora import layers, loop, selection
from callwright.lora.snapshot import Counters
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_jsonl

TRAIN, VALID = token_rows([20, 33, 41, 58, 70]), token_rows([25, 44, 31], seed=1)
# The records are random, so the validation loss falls at first and then rises.
EARLY = {"iterations": 24, "validate_every": 3, "snapshot_every": 2, "patience": 2, "learning_rate": 0.02}


def noted(validations, **changes):
    """The counters after validations (loss, correct answers), 10 steps apart, up to where patience ends."""
    settings, counters = training_settings(**changes), Counters()
    for number, (loss, correct) in enumerate(validations):
        counters.step = 10 * number
        selection.note(counters, settings, loss, correct)
        if counters.stopped:
            break
    return counters


# -- the rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "validations", "kept"),
    [
        ("validation_loss", [(5, None), (3, None), (4, None)], 10),
        ("validation_loss", [(5, None), (3, None), (3, None), (4, None)], 10),
        ("tool_calls", [(5, 0), (3, 2), (4, 3), (2, 1)], 20),
        ("tool_calls", [(5, 0), (4, 2), (3, 2), (2, 1)], 20),
        ("tool_calls", [(5, 2), (4, 1), (5, 2), (6, 2)], 0),
        ("tool_calls", [(5, 0), (4, 0), (3, 0), (4, 0)], 20),
        ("last", [(5, None), (3, None), (4, None)], 20),
    ],
    ids=str,
)
def test_the_kept_adapter_is_the_best_and_among_equals_the_earliest(select, validations, kept):
    counters = noted(validations, select=select)
    assert counters.kept_step == kept
    assert (counters.kept_loss, counters.kept_correct) == validations[kept // 10]
    assert counters.best_loss == min(loss for loss, _ in validations)
    assert not counters.stopped


@pytest.mark.parametrize(
    ("changes", "validations", "stop"),
    [
        ({"patience": 2}, [(5, None), (4, None), (4.5, None), (4.2, None), (1, None)], 30),
        ({"patience": 2}, [(5, None), (4, None), (4.5, None), (3, None), (4, None)], None),
        ({"patience": 2, "min_delta": 0.5}, [(5, None), (4.8, None), (4.6, None), (1, None)], 20),
        ({"patience": 3, "min_delta": 0.5}, [(5, None), (4.8, None), (4.6, None), (4.4, None), (4.2, None)], None),
        ({"patience": 2, "select": "last"}, [(5, None), (4, None), (4.5, None), (4.2, None)], 30),
        ({"patience": 1, "select": "tool_calls"}, [(5, 0), (4, 0), (6, 1), (3, 0)], 30),
        ({"patience": 1, "select": "tool_calls"}, [(5, 1), (6, 1)], 10),
        ({"patience": None}, [(5, None)] * 50, None),
    ],
    ids=str,
)
def test_patience_ends_training_when_nothing_gets_better(changes, validations, stop):
    counters = noted(validations, **changes)
    assert (counters.step if counters.stopped else None) == stop


def test_what_is_kept_needs_no_min_delta():
    counters = noted([(5, None), (4.9, None), (4.8, None)], min_delta=1.0, patience=2)
    assert counters.kept_step == 20
    assert counters.stopped == "no lower validation loss since step 0 (training.patience is 2)"


def test_the_summary_says_what_is_kept_and_why_it_stopped():
    settings = training_settings(select="tool_calls", patience=1)
    counters = noted([(5, 0), (4, 3), (3, 2)], select="tool_calls", patience=1)
    counters.asked = 16
    assert selection.summary(counters, settings) == {
        "kept": {"step": 10, "by": "tool_calls", "validation_loss": 4, "correct": 3, "asked": 16},
        "stopped_early": {
            "step": 20,
            "reason": "no more correct tool calls, nor as many at a lower validation loss since step 10 "
            "(training.patience is 1)",
        },
    }
    assert selection.summary(noted([(5, None)]), training_settings())["stopped_early"] is None


# -- an adapter on a model and off it --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "llama quantized", "gemma"])
def test_an_adapter_is_put_on_and_leaves_no_trace(kind, tmp_path):
    model = tiny_model(kind, tmp_path)
    tokens = mx.arange(1, 20)[None]
    plain = model(tokens)
    settings = training_settings()
    arrays = with_adapter(model, settings)
    other = {name: array * 2 for name, array in arrays.items()}
    bases = {name: array for name, array in tree_flatten(model.parameters()) if "lora" not in name}
    with selection.adapted(model, arrays):
        first = model(tokens)
        mx.eval(first)
    with selection.adapted(model, other):
        assert not mx.allclose(model(tokens), first, rtol=1e-3, atol=1e-3).item()
    with pytest.raises(KeyboardInterrupt), selection.adapted(model, other):
        raise KeyboardInterrupt
    after = {name: array for name, array in tree_flatten(model.parameters()) if "lora" not in name}
    assert after.keys() == bases.keys()
    assert all(after[name] is bases[name] for name in bases)
    with selection.adapted(model, arrays):
        assert mx.array_equal(model(tokens), first).item()
    # The twin: the low-rank layers themselves, with nothing folded in.
    model.update(tree_unflatten(list(arrays.items())))
    assert mx.allclose(model(tokens), first, rtol=1e-3, atol=1e-3).item()
    assert not mx.allclose(plain, first, rtol=1e-3, atol=1e-3).item()


# -- in the loop -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def train(model_folder, tmp_path):
    """(summary, bytes of the adapter, history) of a run in the folder `name`."""

    def run(name="run", score=None, **changes):
        folder = tmp_path / name
        summary = loop.train(
            model_folder, TRAIN, VALID, training_settings(**changes), folder / "state", folder / "adapter",
            "a", folder / "history.jsonl", score=score,
        )  # fmt: skip
        rows = [
            {key: row.get(key) for key in ("event", "step", "loss", "lr", "correct", "asked")}
            for row in read_jsonl(folder / "history.jsonl")
            if row["event"] != "memory"
        ]
        return summary, (folder / "adapter" / layers.WEIGHTS).read_bytes(), rows

    return run


def score_of(adapter):
    """Some pure function of an adapter in place of correct answers, which rises and falls."""
    found = sum(mx.abs(array).sum().item() for name, array in adapter.items() if name.endswith("lora_b"))
    mx.random.normal((7,))  # loading a model draws numbers too
    return int(1000 * found) % 5, 8


def test_training_ends_early_and_its_schedule_stays(train):
    whole, _, rows = train("whole", **{**EARLY, "patience": None})
    summary, _, early = train("early", **EARLY)
    stop = summary["iterations"]
    losses = {row["step"]: row["loss"] for row in rows if row["event"] == "validation"}
    best = min((step for step in losses if step <= stop), key=losses.get)
    assert summary["stopped_early"]["step"] == stop == best + 2 * EARLY["validate_every"] < 24
    assert f"since step {best}" in summary["stopped_early"]["reason"]
    assert summary["kept"] == {
        "step": best, "by": "validation_loss", "validation_loss": losses[best], "correct": None, "asked": None
    }  # fmt: skip
    assert whole["stopped_early"] is None
    assert whole["iterations"] == 24
    assert early == [row for row in rows if row["step"] <= stop]  # learning rates and all


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"select": "last", "min_delta": 0.01},
        {"select": "tool_calls", "patience": 2, "lora": {"dropout": 0.3, "layers": 1}},
    ],
    ids=str,
)
def test_an_interrupted_run_stops_at_the_same_step_with_the_same_bytes(train, monkeypatch, changes):
    settings = {**EARLY, **changes}
    score = score_of if "tool_calls" in changes.values() else None
    expected = train("whole", score, **settings)
    assert expected[0]["stopped_early"]
    stop = expected[0]["stopped_early"]["step"]
    with monkeypatch.context() as patch:
        interrupt(patch, 2, stop + 1)  # before the first snapshot, and in the last step but one
        for _ in range(2):
            with pytest.raises(Interrupted):
                train("run", score, **settings)
    summary, adapter, rows = train("run", score, **settings)
    assert adapter == expected[1]
    assert rows == expected[2]
    for key in ("kept", "stopped_early", "iterations", "final_loss"):
        assert summary[key] == expected[0][key]


def test_a_run_that_stopped_early_does_not_go_on(train, monkeypatch):
    expected = train(**EARLY)
    monkeypatch.setattr(loop.Run, "_step", None)
    monkeypatch.setattr(loop.Run, "_validate", None)
    summary, *rest = train(**EARLY)
    assert rest == list(expected[1:])
    for key in ("kept", "stopped_early", "iterations"):
        assert summary[key] == expected[0][key]


def test_the_adapter_of_most_correct_answers_is_kept(train, tmp_path):
    seen = []

    def score(adapter):
        seen.append(adapter)
        return [0, 2, 3, 3, 1][len(seen) - 1], 8

    summary, _, rows = train(score=score, select="tool_calls", iterations=16, validate_every=4)
    checks = [row for row in rows if row["event"] == "validation"]
    assert [(row["correct"], row["asked"]) for row in checks] == [(0, 8), (2, 8), (3, 8), (3, 8), (1, 8)]
    kept = min((2, 3), key=lambda number: checks[number]["loss"])
    assert summary["kept"]["step"] == 4 * kept
    assert summary["kept"]["correct"] == 3
    assert summary["kept"]["asked"] == 8
    weights = mx.load(str(tmp_path / "run" / "adapter" / layers.WEIGHTS))
    assert all(mx.array_equal(weights[name], seen[kept][name]) for name in weights)
    assert summary["best_validation_loss"] == min(row["loss"] for row in checks)


def test_scoring_does_not_change_what_is_learned(train):
    """With dropout: the numbers that loading the second model draws are given back."""
    settings = {"iterations": 4, "validate_every": 2, "lora": {"dropout": 0.3, "layers": 1}}
    _, _, plain = train("plain", **settings)
    _, _, scored = train("scored", score_of, select="tool_calls", **settings)
    assert [row["loss"] for row in scored] == [row["loss"] for row in plain]


def test_tool_calls_without_a_scorer_are_refused(train):
    with pytest.raises(CallwrightError, match=r"training\.select is `tool_calls`"):
        train(select="tool_calls")
