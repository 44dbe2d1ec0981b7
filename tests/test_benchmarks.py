"""What the benchmarks say of what they measured, without measuring."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import time_left
import trainer
from beside import busy_loop

from callwright.runtime import logs

JOB = {"name": "j", "rows": "rows.jsonl", "training": {"iterations": 6, "batch_size": 2}}


def run(speed: float, rows: str = "rows.jsonl", loss: float = 1.0):
    numbers = {"examples_per_second": speed, "above_weights_gb": 1.0, "peak_gb": 2.0, "process_gb": 3.0}
    return {"tokens_per_second": speed, "rows": rows, "steps": [{"loss": loss, "tokens": 7}], **numbers}


def test_a_core_is_taken_as_long_as_it_is_wanted():
    before = set(psutil.Process().children())
    with busy_loop(True):
        (other,) = set(psutil.Process().children()) - before
        assert other.is_running()
    assert not other.is_running()
    with busy_loop(False):
        assert set(psutil.Process().children()) == before


def test_each_run_is_timed_alone_and_with_a_core_taken():
    runs = trainer.beside_a_busy_program(trainer.variants("own-tools", JOB, as_installed=False))
    plain = [name for name in runs if not runs[name]["busy"]]
    assert plain == [trainer.PEER, trainer.WHOLE, trainer.SHARED]
    assert [name for name in runs if runs[name]["busy"]] == [name + trainer.BUSY for name in plain]
    found = trainer.compare(JOB, {"a": [run(10.0)], f"a{trainer.BUSY}": [run(3.0), run(4.0), run(9.0)]})
    assert found["rows"][f"a{trainer.BUSY}"]["time"] == pytest.approx(2.5)
    assert "time" not in found["rows"]["a"]
    assert f"a{trainer.BUSY}: 2.50 times the time alone" in trainer.table({"j": found})


def test_requests_under_their_own_lists_are_no_run_of_the_same_batches():
    assert trainer.ALONE not in trainer.variants("lists", JOB, as_installed=False)
    runs = trainer.variants("lists", {**JOB, "alone": "alone.jsonl"}, as_installed=False)
    assert list(runs) == [trainer.ALONE, trainer.WHOLE, trainer.SHARED]
    assert runs[trainer.ALONE] == {**runs[trainer.SHARED], "rows": "alone.jsonl"}
    found = trainer.compare(JOB, {trainer.ALONE: [run(2.0, "alone.jsonl")], trainer.SHARED: [run(5.0)]})["rows"]
    assert found[trainer.SHARED]["loss_difference"] is None
    assert found[trainer.SHARED]["speed"] == pytest.approx(2.5)
    same = trainer.compare(JOB, {"a": [run(1.0)], "b": [run(1.0, loss=1.5)]})["rows"]
    assert same["b"]["loss_difference"] == pytest.approx(0.5)


def test_the_time_left_is_held_against_the_end(monkeypatch):
    """The lines are the program's own; the job ends after midnight."""
    clock, lines = [86_300.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = logs.Progress("generate s base", 0, "tokens", first=1.0)
    told = SimpleNamespace(info=lambda form, *values: lines.append(f"{stamp()} I {form % values}"))
    monkeypatch.setattr(progress, "log", told)

    def stamp() -> str:
        return time.strftime("%H:%M:%S", time.gmtime(clock[0]))

    for after, left in ((10, 5.0), (20, 260.0), (100, 220.0)):
        clock[0] = 86_300.0 + after
        progress.reach(after, 400, "3 of 9 items", left)
    assert list(time_left.found(lines)) == []
    clock[0] = 86_300.0 + 200
    progress.done()
    ((what, total, errors),) = time_left.found(lines)
    assert (what, total) == ("generate s base", 200)
    assert errors == pytest.approx([0.4, 0.6])
