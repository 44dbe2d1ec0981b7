"""The frozen prefix's outputs, computed once per record.

With LoRA on the last K of L blocks, the L - K blocks below never change: what they make of a record is the same
in every epoch, validation, run, seed and point of a sweep. A record's row is computed from that record alone,
so it does not depend on the batch that first asked for it. What records share at their beginning (`sharing`) is
computed once, from its own tokens, and kept once; each of them adds what comes behind it.

`prepare` decides whether that pays, and fills a store on disk (`prefix_store`) before training; `FrozenPrefix` reads
it, and computes what it lacks.
"""

import inspect
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from callwright.lora import batches, sharing
from callwright.lora.batches import Beginning, Record
from callwright.lora.prefix_store import Piece, Store, as_bytes, prune
from callwright.models.folders import hashes
from callwright.runtime import blas, device, provenance
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, sha256_file, sha256_json
from callwright.runtime.logs import Progress

if TYPE_CHECKING:
    from callwright.lora.backend import TrainingBackend

log = logging.getLogger(__name__)

# Without a store, the outputs are kept in memory up to this size.
IN_MEMORY_BYTES = 512 * 10**6
# Of the free disk space, a store takes no more than this share.
DISK_SHARE = 0.5
# Records that are computed side by side, then written.
GROUP = 16
# Beginnings whose keys and values are kept for the next record that needs them.
LAST_BEGUN = 2


@dataclass(frozen=True)
class Begun:
    """The frozen blocks' work on a beginning: what they make of it, and what the records behind it see of it."""

    hidden: mx.array  # [length, width]
    states: list[Any]  # keys and values of each frozen block, in the backend's own form

    @property
    def length(self) -> int:
        """The beginning's tokens."""
        return self.hidden.shape[0]


class FrozenPrefix:
    """The outputs of the frozen blocks for some records.

        prefix = FrozenPrefix(backend, records, store)
        hidden = prefix.get(3)   # [length, width]

    What the store lacks or has damaged is computed by `backend` and added. Without a store all is kept in memory.
    """

    def __init__(self, backend: "TrainingBackend", records: Sequence[Record], store: Store | None = None):
        self.backend, self.records, self.store = backend, records, store
        self.known: dict[str, mx.array] = {}
        self.begun: list[tuple[Beginning, Begun]] = []  # the last ones that were needed

    def get(self, index: int) -> mx.array:
        """The output [length, width] for record `index`."""
        beginning = self.records[index].beginning
        if beginning is None:
            return self.branch(index)
        return mx.concatenate([self.beginning(beginning), self.branch(index)])

    def branch(self, index: int) -> mx.array:
        """The same without that at the beginning which record `index` shares, if it shares one."""
        record = self.records[index]
        piece, beginning = piece_of(record), record.beginning

        def compute() -> mx.array:
            return self.backend.prefix(record.tokens, None if beginning is None else self._begun(beginning))

        return self._kept(piece, compute)

    def beginning(self, beginning: Beginning) -> mx.array:
        """The output [length, width] for a beginning that some of the records share."""
        return self._kept(Piece(beginning.tokens), lambda: self._begun(beginning).hidden)

    def _kept(self, piece: Piece, compute: Callable[[], mx.array]) -> mx.array:
        if self.store is None:
            key = piece.key
            if key not in self.known:
                self.known[key] = compute()
                mx.eval(self.known[key])
            return self.known[key]
        hidden = self.store.read(piece)
        if hidden is None:
            hidden = compute()
            self.store.append([(piece, hidden)])
        return hidden

    def _begun(self, beginning: Beginning) -> Begun:
        for known, begun in self.begun:
            if known is beginning:
                return begun
        self.begun = [*self.begun[1 - LAST_BEGUN :], (beginning, self.backend.begin(beginning.tokens))]
        return self.begun[-1][1]


def piece_of(record: Record) -> Piece:
    """The record without the beginning that it shares."""
    return Piece(record.tokens, 0 if record.beginning is None else record.beginning.length)


def pieces(records: Sequence[Record]) -> list[Piece]:
    """All that is kept for `records`, each once: the beginnings that they share, and the rest of each of them."""
    beginnings = dict.fromkeys(record.beginning for record in records if record.beginning is not None)
    found = [*(Piece(beginning.tokens) for beginning in beginnings), *map(piece_of, records)]
    return list({piece.key: piece for piece in found}.values())


def needed(
    train: Sequence[Record], valid: Sequence[Record], settings: dict[str, Any]
) -> dict[str, tuple[list[Record], float]]:
    """(records, how often each is seen in the run) of the sets `train` and `validation`."""
    seen = settings["iterations"] * settings["accumulation"] * settings["batch_size"]
    checks = 1 + math.ceil(settings["iterations"] / settings["validate_every"])
    checked = batches.in_order(valid, settings["batch_size"], settings["validation_batches"])
    return {
        "train": (list(train), seen / len(train)),
        "validation": ([record for batch in checked for record in batch.records], float(checks)),
    }


def pays(
    records: Sequence[Record], visits: float, first_trained_block: int, row: int, setting: str, shared: bool
) -> dict[str, Any]:
    """Whether to keep the frozen prefix of `records`: `use`, `reason`, `records`, `visits`, `bytes` (predicted).

    `visits` is how often each is seen in the run, `cut` the number of frozen blocks, `row` the bytes of a position's
    output, `setting` the config key `training.prefix_cache`: `auto` keeps what is seen more than once, `on` all.
    `shared` says that other runs see the same records with the same frozen prefix: at least as many visits again.
    """
    visits = visits * 2 if shared else visits
    seen = f"each of {len(records)} records is seen {visits:.1f} times" + (", by several runs" if shared else "")
    if setting == "off":
        use, reason = False, "config key training.prefix_cache is `off`"
    elif first_trained_block == 0:
        use, reason = False, "no block is frozen"
    elif setting == "auto" and visits <= 1:
        use, reason = False, seen
    else:
        use, reason = True, seen
    size = sum(piece.length for piece in pieces(records)) * row
    return {"use": use, "reason": reason, "records": len(records), "visits": round(visits, 3), "bytes": size}


def refuse_for_disk(found: dict[str, Any], need: int, folder: Path, setting: str) -> None:
    """Turn the decision `found` into a no when `need` bytes are more than half of the free disk.

    Raises CallwrightError instead when `setting` is `on`.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if found["use"] and need > free * DISK_SHARE:
        reason = f"it needs {need / 1e9:.2f} GB, more than half of the {free / 1e9:.2f} GB free on the disk of {folder}"
        if setting == "on":
            raise CallwrightError(
                f"the prefix cache: {reason}: free some, or set config key training.prefix_cache to `off`"
            )
        found |= {"use": False, "reason": reason}


def prepare(
    model_folder: str | Path,
    train_rows: Sequence[dict[str, Any]],
    valid_rows: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    parent: str | Path,
    open_backend: "Callable[[], TrainingBackend]",
    shared: bool = False,
) -> dict[str, Any]:
    """Decide whether the prefix cache pays for a training, and fill the store when it does; returns the index.

    `settings` is the config's `training`, `parent` the folder of the model's stores. `open_backend` loads the model
    and returns its backend; it is not called when the decision is no. The index has `parent`, `store` (a folder, or
    None), and for `train` and `validation` what `pays` returns with `computed` (records) and `seconds`.

    Raises CallwrightError when the disk is full, or too small and `training.prefix_cache` is `on`.
    """
    parent, setting = Path(parent), settings["prefix_cache"]
    train = batches.to_records(batches.subset(train_rows, settings["examples"], settings["seed"]), "training")
    train, valid = sharing.shared([train, batches.to_records(valid_rows, "validation")], settings)
    sets = needed(train, valid, settings)
    first_trained_block, row = expected(model_folder, settings["lora"]["layers"])
    found = {what: pays(*of, first_trained_block, row, setting, shared) for what, of in sets.items()}
    held = sum(path.stat().st_size for path in parent.glob("*/frozen_prefix.bin"))
    for decision in found.values():
        refuse_for_disk(decision, decision["bytes"] - held, parent, setting)
    index = {"parent": str(parent), "store": None, **found}
    if any(decision["use"] for decision in found.values()):
        index["store"] = str(_fill_store(model_folder, sets, found, setting, parent, open_backend, shared))
    for what, decision in found.items():
        use = f"{decision['bytes'] / 1e6:.0f} MB in {index['store']}" if decision["use"] else "no"
        log.info("prefix cache, %s records: %s (%s)", what, use, decision["reason"])
    return index


def _fill_store(model_folder, sets, found, setting, parent, open_backend, shared) -> Path:
    """The second half of `prepare`, with the model loaded: `found` is corrected and completed in place."""
    backend = open_backend()
    try:
        store = open_store(parent, model_folder, backend)
        row = backend.width * backend.dtype.size
        for what, (records, visits) in sets.items():
            if not backend.shares:
                records = sharing.without_beginnings(records)
            found[what].update(pays(records, visits, backend.first_trained_block, row, setting, shared))
            missing = store.missing(pieces(records))
            refuse_for_disk(found[what], sum(piece.length for piece in missing) * row, parent, setting)
            if found[what]["use"]:
                start = time.monotonic()
                computed = fill(store, backend, records, what)
                found[what] |= {"computed": computed, "seconds": round(time.monotonic() - start, 2)}
        prune(store)
        return store.folder
    finally:
        backend.close()


def fill(store: Store, backend: "TrainingBackend", records: Sequence[Record], what: str) -> int:
    """Compute the frozen prefixes that `store` lacks of `records`; returns how many records it computed.

    The records of one beginning are one job, and are cut into several where they are many.
    """
    with store.filling():
        missing = {piece.key: piece for piece in store.missing(pieces(records))}
        if not missing:
            return 0
        todo: dict[Beginning | None, list[Piece]] = {}
        for record in records:
            if (piece := missing.pop(piece_of(record).key, None)) is not None:
                todo.setdefault(record.beginning, []).append(piece)
            elif record.beginning is not None and Piece(record.beginning.tokens).key in missing:
                todo.setdefault(record.beginning, [])
        lacking = sum(len(found) for found in todo.values())
        progress = Progress(f"frozen prefix of the {what} records", lacking, "records")
        size = sum(piece.length for found in todo.values() for piece in found)
        size += sum(piece.length for piece in missing.values())  # beginnings
        with store.room_for(size * store.width * store.dtype.size):
            for group in _groups(backend, todo):
                found = [pair for pairs in backend.map(lambda job: job(), group) for pair in pairs]
                store.append(found)
                progress.advance(sum(piece.key not in missing for piece, _ in found))
        progress.done()
        return lacking


Job = Callable[[], list[tuple[Piece, np.ndarray]]]


def _groups(backend: "TrainingBackend", todo: dict[Beginning | None, list[Piece]]) -> Iterator[list[Job]]:
    """Jobs of about equal work, so many that every thread has some, the longest first.

    A job is some records of one beginning: it begins by itself, unless that was done once for several jobs.
    """

    def job(beginning: Beginning | None, part: list[Piece], begun: Begun | None) -> Job:
        def compute() -> list[tuple[Piece, np.ndarray]]:
            start, found = begun, []
            if start is None and beginning is not None:
                start = backend.begin(beginning.tokens)
                found.append((Piece(beginning.tokens), as_bytes(start.hidden)))
            return found + [(piece, as_bytes(backend.prefix(piece.tokens, start))) for piece in part]

        return compute

    jobs: list[tuple[int, Job]] = []
    for beginning, members in todo.items():
        if beginning is None:
            jobs += [(piece.length, job(None, [piece], None)) for piece in members]
        elif len(members) <= GROUP:
            size = beginning.length + sum(piece.length for piece in members)
            jobs.append((size, job(beginning, members, None)))
        else:
            begun = backend.begin(beginning.tokens)
            yield [lambda beginning=beginning, begun=begun: [(Piece(beginning.tokens), as_bytes(begun.hidden))]]
            parts = [members[begin : begin + GROUP] for begin in range(0, len(members), GROUP)]
            yield [job(beginning, part, begun) for part in parts]
    jobs.sort(key=lambda pair: -pair[0])
    for begin in range(0, len(jobs), GROUP):
        yield [made for _, made in jobs[begin : begin + GROUP]]


def caches(
    index: dict[str, Any] | None,
    model_folder: str | Path,
    backend: "TrainingBackend",
    train: Sequence[Record],
    valid: Sequence[Record],
    settings: dict[str, Any],
) -> dict[str, FrozenPrefix]:
    """What training reads: a `FrozenPrefix` for each of `train` and `validation` that `index` (by `prepare`) keeps.

    Without an index the same decision is made here, and the outputs stay in memory.
    """
    records, store = {"train": train, "validation": valid}, None
    if index is None:
        row = backend.width * backend.dtype.size
        found = {
            what: pays(*of, backend.first_trained_block, row, settings["prefix_cache"], shared=False)
            for what, of in needed(train, valid, settings).items()
        }
        fits = sum(decision["bytes"] for decision in found.values() if decision["use"]) <= IN_MEMORY_BYTES
        used = [what for what in found if found[what]["use"] and (fits or settings["prefix_cache"] == "on")]
    else:
        used = [what for what in records if index[what]["use"] and backend.first_trained_block > 0]
        if used:
            store = open_store(Path(index["parent"]), model_folder, backend)
            read = needed(train, valid, settings)
            lacking = len(store.missing(pieces([record for what in used for record in read[what][0]])))
            if lacking:
                log.info(
                    "the frozen prefix store %s lacks %d records or beginnings: each is computed when it is due",
                    store.folder,
                    lacking,
                )
    return {what: FrozenPrefix(backend, records[what], store) for what in used}


def open_store(parent: Path, model_folder: str | Path, backend: "TrainingBackend") -> Store:
    """The store of what `backend` makes of records with the model in `model_folder`."""
    return Store(parent, header(model_folder, backend), backend.width, backend.dtype)


def header(model_folder: str | Path, backend: "TrainingBackend") -> dict[str, Any]:
    """All that the bits of a frozen prefix depend on beside the record: the model, the backend, and where it runs."""
    folder = Path(model_folder)
    path = folder / "model.json"
    files = read_json(path)["files"] if path.is_file() else hashes(folder)
    kind = type(backend)
    library = Path(__file__).parents[2]
    code = provenance.code_files(Path(inspect.getfile(kind)), library)
    versions = provenance.versions()
    return {
        "model": sha256_json(files),
        "first_trained_block": backend.first_trained_block,
        "width": backend.width,
        "dtype": str(backend.dtype),
        "backend": kind.__name__,
        "code": sha256_json([[path.name, sha256_file(path)] for path in code]),
        "versions": {name: versions[name] for name in ("mlx", "mlx-lm", "numpy")},
        "place": {
            **{key: device.describe()[key] for key in ("device", "machine")},
            "blas": f"{blas.name()} {blas.kernels()}".strip(),
            "threads": backend.product_threads,
        },
    }


def expected(model_folder: str | Path, layers: int) -> tuple[int, int]:
    """(frozen blocks, bytes of a position's output) as the model's configuration lets expect; no weight is read."""
    config = read_json(Path(model_folder) / "config.json")
    config = {**config, **(config.get("text_config") or {})}
    size = 4 if device.on_cpu() or config.get("torch_dtype", config.get("dtype")) == "float32" else 2
    first_trained_block = 0 if layers == -1 else max(0, config["num_hidden_layers"] - layers)
    return first_trained_block, config["hidden_size"] * size
