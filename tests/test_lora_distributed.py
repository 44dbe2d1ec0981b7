"""A training shared among processes: who computes what, the same result as alone, and what happens when one is lost.

That processes end together is tested in test_runtime_processes.py; here two real trainings meet over MLX's ring.
"""

import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import mlx.core as mx
import psutil
import pytest
from fixtures_lora import make_llama, tiny_llama, token_rows, training_settings, with_adapter, with_members

from callwright.lora import batches, layers, loop, random_state, snapshot
from callwright.lora.backend import backend
from callwright.lora.distributed import DataParallelBackend, ProcessGroup
from callwright.models.load import load
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, read_jsonl, write_jsonl
from callwright.train import trainer
from callwright.train.worker import threads

# 5 records in batches of 2: the last batch of an epoch is a single record, fewer than the workers.
TRAIN, VALID = token_rows([20, 33, 41, 58, 70]), token_rows([25, 44, 31], seed=1)
# A larger epsilon keeps Adam from inflating the rounding of gradients that are all but zero: 1e-8 gave 1.4e-5.
SETTINGS = {
    "iterations": 14, "accumulation": 2, "validate_every": 5, "snapshot_every": 3, "workers": 2, "eps": 1e-5,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and token files."""
    folder = tmp_path_factory.mktemp("work")
    make_llama(folder / "model")
    write_jsonl(folder / "train.jsonl", TRAIN)
    write_jsonl(folder / "valid.jsonl", VALID)
    return folder


def job(folder, name, **changes):
    """What rule `train` passes to `trainer.run`; the run lies in `folder / name`."""
    run = folder / name
    return {
        "model_folder": str(folder / "model"), "train": str(folder / "train.jsonl"),
        "valid": str(folder / "valid.jsonl"), "examples": None, "prefix_index": None,
        "settings": training_settings(**{**SETTINGS, **changes}), "state_folder": str(run / "state"),
        "out_folder": str(run / "adapter"), "history_path": str(run / "history.jsonl"), "fingerprint": "a",
        "device": {"kind": "cpu", "cpu_threads": 2}, "log": str(run / "train.log"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def two(folder):
    """The summary of an uninterrupted training with two workers, in `folder / "two"`."""
    (folder / "two").mkdir()
    return trainer.run(job(folder, "two"))


def adapter(folder, name):
    return (folder / name / "adapter" / layers.WEIGHTS).read_bytes()


def events(folder, name):
    rows = read_jsonl(folder / name / "history.jsonl")
    return [(row["event"], row["step"], row.get("tokens"), row["loss"]) for row in rows if row["event"] != "memory"]


def worker_of(rank, size):
    """Workers as seen by one that has no connection to others."""
    return ProcessGroup(SimpleNamespace(rank=lambda: rank, size=lambda: size))


# -- sharing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("lengths", [[20, 33, 41, 58, 70, 30], [50], [100] + [10] * 9], ids=str)
def test_each_record_is_one_workers_and_the_work_is_even(lengths, size):
    records = batches.to_records(token_rows(lengths), "training")
    whole = batches.epoch_batches(records, 2, seed=0, epoch=0)
    shares = [worker_of(rank, size).share(whole) for rank in range(size)]
    assert sorted(index for share in shares for batch in share for index in batch.indices) == list(range(len(lengths)))
    for share in shares:
        for batch in share:
            assert [records[index] for index in batch.indices] == batch.records != []
            [of] = [b for b in whole if set(batch.indices) <= set(b.indices)]
            assert batch.width == of.width
            assert len(batch.records) <= -(-len(of.records) // size)
    loads = [sum(batch.processed for batch in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)
    if lengths[0] == 100 and size == 2:
        assert sorted(loads) == [90, 100]


@pytest.mark.parametrize("checkpointing", ["off", "all"], ids=["cpu path", "autograd"])
def test_the_workers_sums_are_the_whole_batchs(folder, checkpointing):
    """In one process, worker after worker; the twin is the backend alone on the whole batches."""
    settings = training_settings(gradient_checkpointing=checkpointing)
    model, _ = load(folder / "model")
    arrays = with_adapter(model, settings)
    plain = backend(model, settings)
    whole = batches.epoch_batches(batches.to_records(TRAIN, "training"), 2, seed=0, epoch=0)
    found = []
    for rank in range(3):  # more than any batch has records
        workers = worker_of(rank, 3)
        workers.total, workers.total_arrays = lambda value: [value], lambda gradients: gradients
        found.append((*DataParallelBackend(plain, workers).loss_and_gradients(arrays, whole, None),))
    total, gradients = plain.loss_and_gradients(arrays, whole, None)
    assert sum(loss for loss, _ in found) == pytest.approx(total, rel=1e-6)
    for name, gradient in gradients.items():
        summed = sum(part[name] for _, part in found)
        assert mx.abs(summed - gradient).max().item() <= 1e-5 * mx.abs(gradient).max().item()
    plain.close()


def test_a_worker_without_a_record_adds_nothing():
    workers = worker_of(1, 2)
    workers.total, workers.total_arrays = lambda value: [value], lambda gradients: gradients
    alone = batches.epoch_batches(batches.to_records(TRAIN[:1], "training"), 2, seed=0, epoch=0)
    model, settings = tiny_llama(), training_settings()
    layers.attach(model, settings["lora"])
    parallel = DataParallelBackend(backend(model, settings), workers)
    total, gradients = parallel.loss_and_gradients({"a": mx.ones((2, 3))}, alone, None)
    assert total == 0
    assert gradients["a"].shape == (2, 3)
    assert not gradients["a"].any().item()
    assert parallel.loss({}, alone, None) == 0
    parallel.close()


def test_workers_draw_other_numbers_and_have_one_random_state_afterwards():
    """Dropout must not repeat itself from worker to worker; the snapshot holds the first one's state for all."""
    whole = batches.epoch_batches(batches.to_records(TRAIN, "training"), 2, seed=0, epoch=0)
    drawn, states = [], []
    for rank in range(2):
        workers = worker_of(rank, 2)
        workers.total, workers.total_arrays = lambda value: [value], lambda gradients: gradients
        draw = with_members(loss_and_gradients=lambda *_: (mx.random.normal((4,)).tolist(), {}))
        mx.random.seed(11)
        shared = DataParallelBackend(draw, workers)
        drawn += [shared.loss_and_gradients({}, whole, None)[0] for _ in range(2)]
        states.append(random_state.get())
    assert len({tuple(numbers) for numbers in drawn}) == 4
    assert states[0] == states[1]


def test_threads_are_dealt_out():
    assert threads({"device": {"cpu_threads": 7}}, 3) == [3, 2, 2]
    assert threads({"device": {"cpu_threads": 2}}, 4) == [1, 1, 1, 1]
    assert threads({"device": {}}, 1) == [os.cpu_count()]


# -- two processes ---------------------------------------------------------------------------------


def test_two_workers_learn_what_one_learns(folder, two):
    one = trainer.run(job(folder, "one", workers=1))
    assert two["workers"] == 2
    for key in ("final_loss", "final_validation_loss", "best_validation_loss", "initial_validation_loss"):
        assert two[key] == pytest.approx(one[key], rel=1e-5)
    for key in ("trained_tokens", "tokens", "iterations", "best_iteration"):
        assert two[key] == one[key]
    assert two["kept"]["step"] == one["kept"]["step"]
    weights, weights2 = (mx.load(str(folder / n / "adapter" / layers.WEIGHTS)) for n in ("one", "two"))
    assert weights.keys() == weights2.keys()
    for name, array in weights.items():
        assert mx.abs(weights2[name] - array).max().item() < 1e-5
        assert mx.abs(array).max().item() > 1e-2  # it has learned
    assert [row[:3] for row in events(folder, "two")] == [row[:3] for row in events(folder, "one")]


def test_the_first_worker_alone_writes_and_says(folder, two):
    state = folder / "two" / "state"
    assert {path.name for path in state.iterdir()} >= {"history.jsonl", "lock", "snapshot.safetensors", "workers"}
    assert not list(state.glob(".*"))
    assert {path.name for path in (state / "workers").iterdir()} == {
        "1.log", "hosts.json", "job.json", "result-0.json", "result-1.json"
    }  # fmt: skip
    said = (folder / "two" / "train.log").read_text()
    assert said.count("step 14: validation loss") == 1
    assert "train: 14 of 14 steps" in said
    assert read_json(state / "workers" / "result-0.json")["iterations"] == 14
    steps = [row[1] for row in events(folder, "two") if row[0] == "step"]
    assert steps == list(range(1, 15))


def test_a_lost_worker_ends_the_run_and_the_snapshot_is_continued_to_the_same_bytes(folder, two):
    (folder / "killed").mkdir()
    said = []

    def run():
        try:
            trainer.run(job(folder, "killed"))
        except CallwrightError as error:
            said.append(str(error))

    running = threading.Thread(target=run)
    running.start()
    history = folder / "killed" / "state" / loop.HISTORY
    deadline = time.monotonic() + 100
    while not (history.exists() and history.read_bytes().count(b'"step","step"') >= 4):
        assert running.is_alive(), said
        assert time.monotonic() < deadline
        time.sleep(0.002)
    [second] = [child for child in children() if child.environ()["MLX_RANK"] == "1"]
    second.kill()
    running.join(60)
    assert not running.is_alive()
    [message] = said
    assert message.startswith("worker 1 of 2 was killed by SIGKILL")
    assert "last snapshot is kept" in message
    assert not children()
    assert not (folder / "killed" / "adapter").exists()

    trainer.run(job(folder, "killed"))
    assert "continuing from the snapshot of step" in (folder / "killed" / "train.log").read_text()
    assert adapter(folder, "killed") == adapter(folder, "two")
    assert events(folder, "killed") == events(folder, "two")


def children():
    found = psutil.Process().children(recursive=True)
    return [c for c in found if c.status() != psutil.STATUS_ZOMBIE and "callwright.train.worker" in c.cmdline()]


def test_a_shared_training_holds_the_state_folder(folder):
    (folder / "held").mkdir()
    with (
        snapshot.locked(folder / "held" / "state"),
        pytest.raises(CallwrightError, match=rf"in use by another training \(process {os.getpid()}\)"),
    ):
        trainer.run(job(folder, "held"))


# -- the ring --------------------------------------------------------------------------------------

RING = """
import os, sys
import mlx.core as mx
from callwright.lora.distributed import LostPeer, join
from callwright.runtime.errors import CallwrightError
rank = int(os.environ["MLX_RANK"])
try:
    workers = join(int(sys.argv[1 + rank]))
except LostPeer as error:
    sys.exit(f"lost: {error}")
assert workers.total(0.25 + rank, 1e15 + 1) == [1.5, 2e15 + 2]
arrays = {"b": mx.full((3, 5), rank + 1.0), "a": mx.arange(4) * 10.0, "h": mx.ones(2, mx.bfloat16)}
found = workers.total_arrays(arrays if rank else dict(reversed(arrays.items())))
assert found["b"].tolist() == [[3.0] * 5] * 3 and found["a"].tolist() == [0, 20, 40, 60], found
assert found["h"].dtype == mx.bfloat16 and found["h"].tolist() == [2, 2]
workers.agree("a number", 2**53 - 1)
try:
    workers.agree("a number", rank)
except CallwrightError as error:
    assert "do not agree on a number: [0, 1]" in str(error)
else:
    raise AssertionError
if rank:
    os._exit(0)
try:
    while True:
        workers.total(1.0)
except LostPeer as error:
    print("lost:", error)
"""


def ring(root, tmp_path, *tokens):
    """The program above in two processes; returns what they said."""
    from callwright.runtime.processes import free_ports

    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(2)]))
    environment = {**os.environ, "MLX_HOSTFILE": str(hosts), "PYTHONPATH": str(root / "workflow" / "scripts")}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RING, *map(str, tokens)], env={**environment, "MLX_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    return [(*process.communicate(timeout=100), process.returncode) for process in running]


def test_sums_over_the_ring_and_a_peer_that_leaves(root, tmp_path):
    (first, errors, code), (_, errors2, code2) = ring(root, tmp_path, 7, 7)
    assert (code, code2) == (0, 0), errors + errors2
    assert first.startswith("lost: worker 0 of 2: [ring] connection to a peer was lost")


def test_workers_of_another_training_are_not_taken_for_ones_own(root, tmp_path):
    for _, errors, code in ring(root, tmp_path, 7, 8):
        assert code == 1
        assert "lost: the workers of another training answered" in errors
