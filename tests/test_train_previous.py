"""A training goes on from the last adapter where only corrections were added, and begins anew elsewhere."""

import mlx.core as mx
import pytest

from callwright.data.corrections import PREFIX
from callwright.lora import layers
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file, write_json, write_jsonl
from callwright.train import previous

SETTINGS = {"from": "previous", "from_iterations": 5, "iterations": 50, "learning_rate": 0.1, "seed": 1}
ROWS = [{"id": f"r{n}", "input_ids": [n, 1]} for n in range(20)]


def taught(*names):
    return [{"id": f"{PREFIX}{name}{turn}", "input_ids": [7]} for name in names for turn in ("", "/2", "/3")]


@pytest.fixture
def run(tmp_path):
    """A run's folder, and a function that says what would be trained on now."""
    (tmp_path / "model.json").write_text("{}")
    write_jsonl(tmp_path / "valid.jsonl", ROWS[:2])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    mx.save_safetensors(str(adapter / layers.WEIGHTS), {"a": mx.ones((2, 3))})
    write_json(adapter / "adapter_config.json", {})

    def about(rows=ROWS, *names, **changes):
        write_jsonl(tmp_path / "train.jsonl", [*rows, *taught(*names)])
        settings = {**SETTINGS, **changes}
        return previous.about(tmp_path / "train.jsonl", tmp_path / "valid.jsonl", tmp_path / "model.json", settings)

    return tmp_path, about


def test_new_corrections_alone_go_on(run):
    folder, about = run
    assert previous.begin(folder, about(ROWS, "x"), SETTINGS) is None  # never trained
    previous.keep(folder, folder / "adapter", about(ROWS, "x"))
    start = previous.begin(folder, about(ROWS, "x", "y"), SETTINGS)
    assert sha256_file(start / layers.WEIGHTS) == sha256_file(folder / "adapter" / layers.WEIGHTS)
    assert previous.begin(folder, about(ROWS, "x", "y", iterations=99, from_iterations=7), SETTINGS) == start
    assert previous.begin(folder, about(ROWS, "x", "y"), {**SETTINGS, "from": None}) is None
    assert previous.begin(folder, about(ROWS, "x", "y"), {**SETTINGS, "from": "adapters/a"}) is None
    assert previous.begin(folder, about(ROWS, "x", "y"), {**SETTINGS, "from": ["previous", "adapters/a"]}) == start


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"names": ("x",)}, "there is no new correction"),
        ({"names": ("y", "z")}, "1 corrections are gone"),
        ({"rows": ROWS[:-1], "names": ("x", "y")}, "more than the corrections has changed"),
        ({"names": ("x", "y"), "learning_rate": 0.2}, "more than the corrections has changed"),
    ],
)
def test_anything_else_begins_anew_and_says_why(run, caplog, now, why):
    folder, about = run
    previous.keep(folder, folder / "adapter", about(ROWS, "x"))
    changes = {key: value for key, value in now.items() if key not in ("rows", "names")}
    with caplog.at_level("INFO"):
        assert previous.begin(folder, about(now.get("rows", ROWS), *now["names"], **changes), SETTINGS) is None
    assert why in caplog.text


def test_a_changed_adapter_is_not_used(run):
    folder, about = run
    previous.keep(folder, folder / "adapter", about(ROWS, "x"))
    mx.save_safetensors(str(folder / "previous" / "adapter" / layers.WEIGHTS), {"a": mx.zeros((2, 3))})
    assert previous.begin(folder, about(ROWS, "x", "y"), SETTINGS) is None


def test_scores_of_the_last_adapter_are_kept_and_older_ones_are_not(run):
    folder, about = run
    scores = folder / "evaluation" / "test_seen" / "tuned" / "scores.jsonl"
    write_jsonl(scores, [{"id": "old"}])
    import os

    os.utime(scores, (1, 1))
    previous.keep(folder, folder / "adapter", about(ROWS, "x"))
    previous.begin(folder, about(ROWS, "x", "y"), SETTINGS)
    assert not (folder / "previous" / "scores").exists()
    write_jsonl(scores, [{"id": "new"}])
    previous.begin(folder, about(ROWS, "x", "y"), SETTINGS)
    assert (folder / "previous" / "scores" / "test_seen.jsonl").read_text() == '{"id":"new"}\n'


def test_all_corrections_are_trained_beside_a_sample_of_the_rest():
    rows = [*ROWS, *taught("x", "y")]
    found = previous.rows(rows, 10, 1)
    assert [row["id"] for row in found[:6]] == [row["id"] for row in taught("x", "y")]
    assert len(found) == 12  # as many others as corrections at least
    assert len(previous.rows(rows, 18, 1)) == 18
    assert len(previous.rows(rows, 1000, 1)) == len(rows)
    assert previous.rows(rows, 18, 1) == previous.rows(rows, 18, 1) != previous.rows(rows, 18, 2)


def test_the_adapter_must_fit(run):
    folder, _ = run
    found = previous.start(folder / "adapter", {"a": mx.zeros((2, 3), dtype=mx.float16)})
    assert found["a"].dtype == mx.float16
    assert found["a"].sum().item() == 6
    with pytest.raises(CallwrightError, match=r"does not fit training.lora"):
        previous.start(folder / "adapter", {"a": mx.zeros((3, 3))})
