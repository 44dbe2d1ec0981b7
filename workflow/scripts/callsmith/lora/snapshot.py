"""Snapshots of a training run in its state folder: exact, atomic, one file.

A snapshot holds all that the next step depends on, so a run that is killed and started again
ends with the same adapter, bit for bit (on the CPU, where MLX computes reproducibly). It is
taken between optimizer steps: what a killed step had accumulated is computed again.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import orjson

from callsmith.lora import random_state
from callsmith.lora.layers import save_arrays
from callsmith.runtime.errors import CallsmithError

log = logging.getLogger(__name__)

FILE = "snapshot.safetensors"
# Raised when the content changes, so that an older snapshot is refused rather than misread.
VERSION = 2


@dataclass
class Counters:
    """The numbers of a run so far; everything in it survives in the snapshot."""

    step: int = 0  # optimizer steps done
    batches: int = 0  # micro-batches done: the cursor in the stream of batches
    trained_tokens: int = 0
    processed_tokens: int = 0
    train_seconds: float = 0.0
    seconds: float = 0.0  # with validation
    best_loss: float | None = None
    best_step: int = 0
    initial_validation: float | None = None
    final_validation: float | None = None
    peak_gb: float = 0.0
    process_gb: float = 0.0


def save(folder: Path, fingerprint: str, counters: Counters, groups: dict[str, dict[str, mx.array]]) -> None:
    """Write the snapshot; until the last byte is on the disk, the one before stays."""
    arrays = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    metadata = {
        "format": "mlx",
        "version": str(VERSION),
        "fingerprint": fingerprint,
        "random_state": str(random_state.get()),
        "counters": orjson.dumps(asdict(counters)).decode(),
    }
    save_arrays(folder / FILE, arrays, metadata)


def load(folder: Path, fingerprint: str) -> tuple[Counters, dict[str, dict[str, mx.array]]] | None:
    """The snapshot in `folder` with `mx.random` set as it was, or None when there is none of this very run.

    A snapshot of other settings, data, model or code (another fingerprint), or one that cannot be
    read, is not used, and the log says so: the run starts afresh.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        arrays, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
        mx.eval(arrays)
    except (RuntimeError, ValueError) as error:
        log.warning("%s cannot be read (%s): starting afresh", path, error)
        return None
    if metadata.get("version") != str(VERSION):
        log.warning("%s is of another version of callsmith: starting afresh", path)
        return None
    if metadata.get("fingerprint") != fingerprint:
        log.warning("%s is of other settings, data or model: starting afresh", path)
        return None
    random_state.put(int(metadata["random_state"]))
    groups: dict[str, dict[str, mx.array]] = {}
    for key, value in arrays.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = value
    counters = Counters(**orjson.loads(metadata["counters"]))
    return counters, {group: dict(sorted(values.items())) for group, values in groups.items()}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the state folder for this process, while the block runs.

    A training that outlives its Snakemake (killed with -9) still writes there. Raises CallsmithError
    that names the process when another one holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CallsmithError(
                f"{folder} is in use by another training (process {lock.read().strip() or 'unknown'}): "
                "wait for it or end it, then run again; it continues from the last snapshot"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        for left in folder.glob(f".{FILE}.*.tmp"):  # by a process that was killed while it wrote
            left.unlink()
        yield
