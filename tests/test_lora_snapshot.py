"""A run that is killed and started again ends with the same adapter, byte for byte, as one that was not."""

import itertools
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
from test_lora_blocks import make_llama, token_rows, training_settings

from callsmith.lora import layers, loop, random_state, snapshot
from callsmith.lora.snapshot import Counters
from callsmith.runtime.errors import CallsmithError
from callsmith.runtime.files import read_jsonl

# Longer than an epoch, with snapshots between validations and the other way round.
SETTINGS = {"iterations": 24, "accumulation": 2, "snapshot_every": 4, "validate_every": 6, "weight_decay": 0.01}
ROWS = {"train_rows": token_rows([20, 33, 41, 58, 70, 64, 52]), "valid_rows": token_rows([25, 44], seed=1)}

# Trains as rule `train` does. With argument n it kills itself when half of the n-th safetensors file is written.
TRAIN = """
import io, json, os, signal, sys
from callsmith.runtime import device, logs
logs.setup()
device.configure(kind="cpu")
from callsmith.lora import layers, loop
plan, die_at = json.load(open(sys.argv[1])), int(sys.argv[2])
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

    def run(name="run", fingerprint="a", **changes):
        folder, settings = tmp_path / name, training_settings(**{**SETTINGS, **changes})
        loop.train(
            model_folder, **ROWS, settings=settings, state_folder=folder / "state", out_folder=folder / "adapter",
            fingerprint=fingerprint, history_path=folder / "history.jsonl",
        )  # fmt: skip
        return (folder / "adapter" / layers.WEIGHTS).read_bytes()

    return run


@pytest.fixture
def log_text(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("callsmith"), "propagate", True)
    return lambda: caplog.text


def lines(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture
def start(root, model_folder, tmp_path):
    """Start the same run in a process of its own."""
    running = []

    def popen(name, die_at=0):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        plan = {
            "model_folder": str(model_folder), **ROWS, "settings": training_settings(**SETTINGS),
            "state_folder": str(folder / "state"), "out_folder": str(folder / "adapter"), "fingerprint": "a",
            "history_path": str(folder / "history.jsonl"),
        }  # fmt: skip
        (folder / "plan.json").write_text(json.dumps(plan))
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(folder / "plan.json"), str(die_at)],
            env={**os.environ, "PYTHONPATH": str(root / "workflow" / "scripts")},
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield popen
    for process in running:
        process.kill()
        process.communicate()


def kill_at(process, history, rows) -> None:
    """SIGKILL it as soon as its history has so many rows."""
    deadline = time.monotonic() + 60
    while lines(history) < rows and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read()


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(train, start, tmp_path):
    expected = train("whole")
    state = tmp_path / "killed" / "state"
    history = state / loop.HISTORY
    moments = np.random.default_rng(0).integers([6, 14], [10, 22]).tolist()

    kill_at(start("killed"), history, moments[0])
    assert start("killed", die_at=2).wait(60) == -signal.SIGKILL
    assert list(state.glob(".*.tmp"))  # it was killed while it wrote
    stopped = start("killed")
    kill_at(stopped, history, moments[1])
    last = start("killed")
    _, said = last.communicate(timeout=60)
    assert last.returncode == 0, said
    assert "continuing from the snapshot of step" in said

    assert (tmp_path / "killed" / "adapter" / layers.WEIGHTS).read_bytes() == expected
    rows = [list(read_jsonl(tmp_path / name / "history.jsonl")) for name in ("whole", "killed")]
    whole, killed = ([(row["event"], row["step"], row["loss"]) for row in found] for found in rows)
    assert killed == whole
    assert sorted(path.name for path in state.iterdir()) == ["history.jsonl", "lock", "snapshot.safetensors"]


def test_a_second_process_is_told_which_one_holds_the_state_folder(root, tmp_path):
    code = "import pathlib, sys, time; from callsmith.lora import snapshot\n"
    code += "with snapshot.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root / "workflow" / "scripts")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout.readline() == "held\n"
    with pytest.raises(CallsmithError, match=rf"in use by another training \(process {first.pid}\)"):
        loop.train("no-model", [], [], training_settings(), tmp_path, tmp_path / "adapter", "a")
    first.kill()
    first.communicate()
    with snapshot.locked(tmp_path):  # the lock went with the process
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_second_run_from_scratch_gives_the_same_bytes_and_another_seed_gives_others(train):
    one = train("one")
    assert train("two") == one
    assert train("three", seed=8) != one


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    "changes",
    [{}, {"select": "last", "clip_norm": 0}, {"lora": {"dropout": 0.3, "layers": 1}, "accumulation": 1}],
    ids=str,
)
def test_every_part_of_the_state_is_continued(train, monkeypatch, changes):
    """Stopped after steps 1, 7 and 13 of 24; with dropout, the random state counts too."""
    expected = train("whole", **changes)
    plain = loop.Run._step
    done = itertools.count(1)
    stops = {1, 1 + 7, 1 + 7 + 9}  # the snapshots are of steps 4 and 12

    def step(self, micro_batches):
        row = plain(self, micro_batches)
        if next(done) in stops:
            raise Interrupted
        return row

    monkeypatch.setattr(loop.Run, "_step", step)
    for _ in stops:
        with pytest.raises(Interrupted):
            train("run", **changes)
    assert train("run", **changes) == expected


def test_a_finished_run_is_not_trained_again(train, monkeypatch):
    expected = train()
    monkeypatch.setattr(loop.Run, "_step", None)
    assert train() == expected


def test_a_snapshot_of_another_fingerprint_is_refused_with_a_line_in_the_log(train, tmp_path, log_text):
    train("run", "other settings", learning_rate=0.5)
    assert train("run", "a") == train("fresh", "a")
    assert "snapshot.safetensors is of other settings, data or model: starting afresh" in log_text()
    steps = [row["step"] for row in read_jsonl(tmp_path / "run" / "history.jsonl") if row["event"] == "step"]
    assert steps == list(range(1, 25))


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
    assert "is of another version of callsmith" in log_text()


def test_a_failed_write_leaves_the_snapshot_before(tmp_path, monkeypatch):
    counters, _ = saved(tmp_path)

    def full(stream, *_):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(CallsmithError, match="no space left on the disk"):
        snapshot.save(tmp_path, "a", Counters(step=9), {})
    assert snapshot.load(tmp_path, "a")[0] == counters
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.FILE]
