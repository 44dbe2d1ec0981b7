"""A run that is killed and started again ends with the same adapter, byte for byte, as one that was not."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from fixtures_lists import rows_of
from fixtures_lora import Interrupted, interrupt, make_llama, token_rows, training_settings

from callwright.lora import layers, loop, random_state, snapshot
from callwright.lora.snapshot import Counters
from callwright.runtime import threads
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_jsonl

# Longer than an epoch, with snapshots between validations and the other way round.
# Plain LoRA takes the written-out CPU path, anything else MLX's autograd; both in micro-batches.
SETTINGS = {"iterations": 24, "accumulation": 2, "snapshot_every": 4, "validate_every": 6, "weight_decay": 0.01}
ROWS = {"train_rows": token_rows([20, 33, 41, 58, 70, 64, 52]), "valid_rows": token_rows([25, 44], seed=1)}
# Lists of five requests in batches of three: every list is cut off in its middle, wherever a run is.
LISTS = {"train_rows": rows_of([(40, [9, 30, 15, 12, 22])] * 4), "valid_rows": rows_of([(30, [10, 12])], seed=1)}
SHARED = {"rows": LISTS, "batch_size": 3, "accumulation": 2}

AUTOGRAD = {
    "iterations": 12, "accumulation": 3, "batch_size": 1, "snapshot_every": 2, "validate_every": 3,
    "lora": {"kind": "dora", "dropout": 0.2, "plus": 4.0, "projections": ["q_proj", "embed_tokens"], "layers": 1},
}  # fmt: skip

# Trains as rule `train` does. It kills itself when half of the file number `file` is written, or in its step number
# `step` between two micro-batches, if these are not 0.
TRAIN = """
import io, itertools, json, os, signal, sys
from callwright.runtime import device, logs
logs.setup()
device.configure(int(os.environ["TEST_THREADS"]), "cpu")
plan, die_at, last = json.load(open(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
from callwright.lora import layers, loop
class Deadly(list):
    def __iter__(self):
        for number, batch in enumerate(list.__iter__(self)):
            if number:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch
steps, plain_step = itertools.count(1), loop.Run._step
loop.Run._step = lambda self, found: plain_step(self, Deadly(found) if next(steps) == last else found)
plain, written = layers.mx.save_safetensors, []
def save(stream, arrays, metadata):
    written.append(1)
    if len(written) == die_at:
        whole = io.BytesIO()
        plain(whole, arrays, metadata)
        stream.write(whole.getvalue()[: whole.tell() // 2])
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    plain(stream, arrays, metadata)
layers.mx.save_safetensors = save
loop.train(**plan)
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def train(model_folder, tmp_path):
    """A run in this process, in the folder `name`; returns the bytes of its adapter."""

    def run(name="run", fingerprint="a", rows=ROWS, **changes):
        folder, settings = tmp_path / name, training_settings(**{**SETTINGS, **changes})
        loop.train(
            model_folder, **rows, settings=settings, state_folder=folder / "state", out_folder=folder / "adapter",
            fingerprint=fingerprint, history_path=folder / "history.jsonl",
        )  # fmt: skip
        return (folder / "adapter" / layers.WEIGHTS).read_bytes()

    return run


@pytest.fixture
def log_text(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("callwright"), "propagate", True)
    return lambda: caplog.text


def steps_in(history) -> int:
    return history.read_bytes().count(b'"event":"step"') if history.exists() else 0


@pytest.fixture
def start(root, model_folder, tmp_path):
    """Start the same run in a process of its own."""
    running = []

    def popen(name, file=0, step=0, rows=ROWS, **changes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        plan = {
            "model_folder": str(model_folder), **rows, "settings": training_settings(**{**SETTINGS, **changes}),
            "state_folder": str(folder / "state"), "out_folder": str(folder / "adapter"), "fingerprint": "a",
            "history_path": str(folder / "history.jsonl"),
        }  # fmt: skip
        (folder / "plan.json").write_text(json.dumps(plan))
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(folder / "plan.json"), str(file), str(step)],
            env={
                **os.environ,
                "PYTHONPATH": str(root / "workflow" / "scripts"),
                "TEST_THREADS": str(threads.cores()),  # other sums with others
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield popen
    for process in running:
        process.kill()
        process.communicate()


def kill_at(process, history, steps) -> None:
    """SIGKILL it as soon as its history has so many steps."""
    deadline = time.monotonic() + 60
    while steps_in(history) < steps and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read()


@pytest.mark.parametrize(
    "changes",
    [{}, AUTOGRAD, SHARED, {**AUTOGRAD, **SHARED}],
    ids=["written out", "autograd", "written out, shared beginnings", "autograd, shared beginnings"],
)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(train, start, tmp_path, changes):
    """At a random step, while a snapshot is written, and within a random micro-batch. mlx-lm restores weights alone."""
    expected = train("whole", **changes)
    state = tmp_path / "killed" / "state"
    generator = np.random.default_rng(len(changes))

    kill_at(start("killed", **changes), state / loop.HISTORY, int(generator.integers(4, 7)))
    assert start("killed", file=2, **changes).wait(60) == -signal.SIGKILL
    assert list(state.glob(".*.tmp"))  # it was killed while it wrote
    assert start("killed", step=int(generator.integers(2, 5)), **changes).wait(60) == -signal.SIGKILL
    last = start("killed", **changes)
    _, said = last.communicate(timeout=60)
    assert last.returncode == 0, said
    assert "continuing from the snapshot of step" in said

    assert (tmp_path / "killed" / "adapter" / layers.WEIGHTS).read_bytes() == expected
    rows = [list(read_jsonl(tmp_path / name / "history.jsonl")) for name in ("whole", "killed")]
    whole, killed = ([(row["event"], row["step"], row["loss"]) for row in found if "loss" in row] for found in rows)
    assert killed == whole
    assert {"history.jsonl", "snapshot.safetensors"} <= {path.name for path in state.iterdir()}
    assert not list(state.glob(".*"))


def test_a_second_process_is_told_which_one_holds_the_state_folder(root, tmp_path):
    code = "import pathlib, sys, time; from callwright.lora import snapshot\n"
    code += "with snapshot.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root / "workflow" / "scripts")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout.readline() == "held\n"
    with pytest.raises(CallwrightError, match=rf"in use by another training \(process {first.pid}\)"):
        loop.train("no-model", [], [], training_settings(), tmp_path, tmp_path / "adapter", "a")
    first.kill()
    first.communicate()
    with snapshot.locked(tmp_path):  # the lock went with the process
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_second_run_from_scratch_gives_the_same_bytes_and_another_seed_gives_others(train):
    one = train("one")
    assert train("two") == one
    assert train("three", seed=8) != one


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"select": "last", "clip_norm": 0},
        {"lora": {"dropout": 0.3, "layers": 1}, "accumulation": 1},
    ],
    ids=str,
)
def test_every_part_of_the_state_is_continued(train, monkeypatch, changes):
    """Stopped after steps 1, 7 and 13 of 24; with dropout, the random state counts too."""
    expected = train("whole", **changes)
    stops = {1, 1 + 7, 1 + 7 + 9}  # the snapshots are of steps 4 and 12
    interrupt(monkeypatch, *stops)
    for _ in stops:
        with pytest.raises(Interrupted):
            train("run", **changes)
    assert train("run", **changes) == expected


def test_a_finished_run_is_not_trained_again(train, monkeypatch):
    expected = train()
    monkeypatch.setattr(loop.Run, "_step", None)
    assert train() == expected


def steps_of(folder):
    return [row["step"] for row in read_jsonl(folder / "history.jsonl") if row["event"] == "step"]


def test_a_snapshot_of_another_run_is_refused_with_the_reason_and_training_starts_afresh(train, tmp_path, log_text):
    train("run", {"training": {"learning_rate": 0.5}}, learning_rate=0.5)
    assert train("run", {"training": {"learning_rate": 0.01}}) == train("fresh", "a")
    line = "snapshot.safetensors is of another run (training.learning_rate was 0.5, is 0.01): starting afresh"
    assert line in log_text()
    assert steps_of(tmp_path / "run") == list(range(1, 25))


def test_a_history_that_lacks_steps_of_the_snapshot_starts_the_run_afresh(train, tmp_path, log_text):
    """With dropout, so that the random state must be as new too."""
    expected = train("whole", lora={"dropout": 0.3}, iterations=4)
    assert train("part", lora={"dropout": 0.3}, iterations=4) == expected
    history = tmp_path / "part" / "state" / loop.HISTORY
    whole = history.read_bytes()
    history.write_bytes(whole[: len(whole) // 2])
    assert train("part", lora={"dropout": 0.3}, iterations=4) == expected
    assert "history.jsonl lacks steps that the snapshot has: starting afresh" in log_text()
    assert steps_of(tmp_path / "part") == [1, 2, 3, 4]


def test_the_history_is_on_the_disk_before_each_snapshot(train, tmp_path, monkeypatch):
    events = []
    plain_sync, plain_save = os.fsync, snapshot.save

    def fsync(number):
        history = tmp_path / "run" / "state" / loop.HISTORY
        if history.exists() and os.fstat(number).st_ino == history.stat().st_ino:
            events.append(("history", steps_in(history)))
        plain_sync(number)

    def save(folder, fingerprint, counters, groups):
        events.append(("snapshot", counters.step))
        plain_save(folder, fingerprint, counters, groups)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(snapshot, "save", save)
    train()
    assert events == [(what, step) for step in (4, 8, 12, 16, 20, 24) for what in ("history", "snapshot")]


# -- what makes it the same run --------------------------------------------------------------------


@pytest.fixture
def fingerprint(tmp_path):
    for name in ("train", "valid", "model"):
        (tmp_path / name).write_text(name)

    def make(settings=None, code="0123456789abcdef"):
        settings = settings or training_settings()
        data = {name: tmp_path / name for name in ("train", "valid")}
        return snapshot.fingerprint(settings, data, tmp_path / "model", code)

    return make


def test_equal_runs_have_no_difference(fingerprint):
    assert snapshot.differences(fingerprint(), fingerprint()) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [("train", "data.train has changed"), ("valid", "data.valid has changed"), ("model", "model has changed")],
)
def test_changed_files_are_named(fingerprint, tmp_path, file, line):
    before = fingerprint()
    (tmp_path / file).write_text("other")
    assert snapshot.differences(before, fingerprint()) == [line]


def test_changed_code_is_a_difference_also_where_older_snapshots_listed_files(fingerprint):
    before = fingerprint()
    assert snapshot.differences(before, fingerprint(code="fedcba9876543210")) == ["the code has changed"]
    older = {**before, "code": {"loop.py": "0" * 64}}
    assert snapshot.differences(older, before) == ["the code has changed"]


def test_changed_settings_and_versions_are_named_with_both_values(fingerprint, monkeypatch):
    before = fingerprint()
    assert snapshot.differences(before, fingerprint(training_settings({"rank": 9}, betas=[0.9, 0.95]))) == [
        "training.betas was [0.9, 0.999], is [0.9, 0.95]",
        "training.lora.rank was 4, is 9",
    ]
    before["version"]["mlx"] = "0.1"
    [line] = snapshot.differences(before, fingerprint())
    assert line.startswith("version.mlx was 0.1, is ")


def test_a_long_list_of_differences_is_cut(tmp_path, log_text):
    snapshot.save(tmp_path, {str(n): n for n in range(20)}, Counters(), {})
    assert snapshot.load(tmp_path, {str(n): n + 1 for n in range(20)}) is None
    assert "7 was 7, is 8 and 12 more): starting afresh" in log_text()


# -- the file --------------------------------------------------------------------------------------


def saved(folder, **changes):
    counters = Counters(step=3, batches=6, best_loss=1.5, **changes)
    groups = {"adapter": {"b": mx.ones((2, 3)), "a.x": mx.zeros(4)}, "best": {"a.x": mx.arange(4.0)}}
    snapshot.save(folder, "a", counters, groups)
    return counters, groups


def test_what_is_saved_is_loaded_and_the_random_numbers_go_on(tmp_path):
    mx.random.seed(5)
    mx.random.normal((2,))
    counters, groups = saved(tmp_path, initial_validation=None, peak_gb=0.25)
    state, following = random_state.get(), mx.random.normal((4,)).tolist()
    mx.random.seed(0)
    found, arrays = snapshot.load(tmp_path, "a")
    assert found == counters
    assert arrays.keys() == groups.keys()
    assert all(mx.array_equal(arrays[group][name], groups[group][name]) for group in groups for name in groups[group])
    assert list(arrays["adapter"]) == ["a.x", "b"]
    assert random_state.get() == state
    assert mx.random.normal((4,)).tolist() == following


def test_there_is_nothing_to_load_in_a_new_folder(tmp_path):
    assert snapshot.load(tmp_path, "a") is None


@pytest.mark.parametrize("content", [b"", b"not a snapshot", None])
def test_a_file_that_cannot_be_read_is_refused_with_a_line_in_the_log(tmp_path, log_text, content):
    saved(tmp_path)
    path = tmp_path / snapshot.FILE
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    assert snapshot.load(tmp_path, "a") is None
    assert "cannot be read" in log_text()


def test_a_snapshot_of_another_version_is_refused_with_a_line_in_the_log(tmp_path, log_text, monkeypatch):
    saved(tmp_path)
    monkeypatch.setattr(snapshot, "VERSION", snapshot.VERSION + 1)
    assert snapshot.load(tmp_path, "a") is None
    assert "is of another version of callwright" in log_text()


def test_a_failed_write_leaves_the_snapshot_before(tmp_path, monkeypatch):
    counters, _ = saved(tmp_path)

    def full(stream, *_):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(CallwrightError, match="no space left on the disk"):
        snapshot.save(tmp_path, "a", Counters(step=9), {})
    assert snapshot.load(tmp_path, "a")[0] == counters
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.FILE]
