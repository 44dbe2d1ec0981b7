"""Snapshots of a training run in its state folder: exact, atomic, one file.

A snapshot holds all that the next step depends on, so a run that is killed and started again
ends with the same adapter, bit for bit (on the CPU, where MLX computes reproducibly). It is
taken between optimizer steps: what a killed step had accumulated is computed again.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import orjson

from callwright.lora import random_state
from callwright.lora.layers import save_arrays
from callwright.runtime import provenance
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file

log = logging.getLogger(__name__)

FILE = "snapshot.safetensors"
# Raised when the content changes, so that an older snapshot is refused rather than misread.
VERSION = 3

# What must be equal for a run to be continued, as a JSON value; see `fingerprint`.
Fingerprint = Mapping[str, Any] | str


@dataclass
class Counters:
    """The numbers of a run so far; everything in it survives in the snapshot."""

    step: int = 0  # optimizer steps done
    batches: int = 0  # micro-batches done: the cursor in the stream of batches
    trained_tokens: int = 0
    processed_tokens: int = 0
    shared_tokens: int = 0  # of these, computed once with those of another record
    padding: int = 0  # positions computed for nothing
    train_seconds: float = 0.0
    seconds: float = 0.0  # with validation
    best_loss: float | None = None
    best_step: int = 0
    initial_validation: float | None = None
    final_validation: float | None = None
    peak_gb: float = 0.0
    process_gb: float = 0.0
    # The adapter that is kept, and since when validations have brought nothing better: see `selection`.
    kept_step: int = 0
    kept_loss: float | None = None
    kept_correct: int | None = None
    mark_step: int = 0
    mark_loss: float | None = None
    mark_correct: int | None = None
    waited: int = 0  # validations
    asked: int = 0  # requests for each count of correct answers
    stopped: str = ""  # why training ended before its last step


def fingerprint(
    settings: dict[str, Any], data: Mapping[str, str | Path], model: str | Path, code: str = ""
) -> dict[str, Any]:
    """All that decides a run's result: `settings` (the config's `training`), the bytes of files, and versions.

    `data` are the token files by what they are for, `model` a file that changes with the model, `code`
    the digest of the source files that compute. The parts stay apart so that `load` can say which one differs.
    """
    versions = provenance.versions()
    return {
        "training": settings,
        "data": {name: sha256_file(path) for name, path in data.items()},
        "model": sha256_file(model),
        "code": code,
        "version": {name: versions[name] for name in ("python", "mlx", "mlx-lm", "numpy")},
    }


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two fingerprints, each as `training.learning_rate was 0.1, is 0.2`, or as changed bytes."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*then, *now])
        parts = ((then.get(key), now.get(key), f"{name}.{key}" if name else key) for key in keys)
        return [line for old, new, path in parts for line in differences(old, new, path)]
    if then == now:
        return []
    if name == "code":
        return ["the code has changed"]
    if all(isinstance(value, str | None) and len(value or " " * 64) == 64 for value in (then, now)):  # hashes
        return [f"{name} has changed" if then and now else f"{name} is {'new' if now else 'gone'}"]
    return [f"{name or 'it'} was {then}, is {now}"]


def save(folder: Path, fingerprint: Fingerprint, counters: Counters, groups: dict[str, dict[str, mx.array]]) -> None:
    """Write the snapshot; until the last byte is on the disk, the one before stays."""
    arrays = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    metadata = {
        "format": "mlx",
        "version": str(VERSION),
        "fingerprint": orjson.dumps(fingerprint, option=orjson.OPT_SERIALIZE_NUMPY).decode(),
        "random_state": str(random_state.get()),
        "counters": orjson.dumps(asdict(counters)).decode(),
    }
    save_arrays(folder / FILE, arrays, metadata)


def load(folder: Path, fingerprint: Fingerprint) -> tuple[Counters, dict[str, dict[str, mx.array]]] | None:
    """The snapshot in `folder` with `mx.random` set as it was, or None when there is none of this very run.

    A snapshot of other settings, data, model or code (another fingerprint), or one that cannot be
    read, is not used, and the log says why: the run starts afresh.
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
        log.warning("%s is of another version of callwright: starting afresh", path)
        return None
    # Through JSON, as the stored one went: tuples are lists there.
    now = orjson.loads(orjson.dumps(fingerprint, option=orjson.OPT_SERIALIZE_NUMPY))
    if changed := differences(orjson.loads(metadata["fingerprint"]), now):
        more = f" and {len(changed) - 8} more" if len(changed) > 8 else ""
        log.warning("%s is of another run (%s%s): starting afresh", path, "; ".join(changed[:8]), more)
        return None
    random_state.put(int(metadata["random_state"]))
    groups: dict[str, dict[str, mx.array]] = {}
    for key, value in arrays.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = value
    counters = Counters(**orjson.loads(metadata["counters"]))
    return counters, {group: dict(sorted(values.items())) for group, values in groups.items()}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the state folder for this process, while the block runs; yields the lock's file descriptor.

    A process that inherits the descriptor holds the folder too, until it ends.

    A training that outlives its Snakemake (killed with -9) still writes there. Raises CallwrightError
    that names the process when another one holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CallwrightError(
                f"{folder} is in use by another training (process {lock.read().strip() or 'unknown'}): "
                "wait for it or end it, then run again; it continues from the last snapshot"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        for left in folder.glob(f".{FILE}.*.tmp"):  # by a process that was killed while it wrote
            left.unlink()
        yield lock.fileno()
