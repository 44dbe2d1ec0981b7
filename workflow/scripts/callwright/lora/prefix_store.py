"""The frozen prefix's outputs on disk: a store that runs share, safe from crashes and from each other.

A store is a folder for one model, cut, type and backend, whose name is a hash of these:

- `frozen_prefix.bin`: the outputs of records, shared beginnings, and records behind them (`Piece`), one after
  another, read through a memory map;
- `index.jsonl`: a line for each of these: a hash of its token ids, where its outputs lie, and their checksum;
- `store.json`: what the outputs were computed by, for people;
- `append.lock`, `fill.lock`: held while a process writes.

Outputs are synced to the disk before their line is written, and only whole lines whose checksum fits are read.
Whatever a crash, a full disk or another program leaves, a record is there and right, or it is missing.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import orjson

from callwright.runtime.errors import FULL_DISK, CallwrightError
from callwright.runtime.files import sha256_json, write_json

log = logging.getLogger(__name__)

DATA, INDEX, HEADER = "frozen_prefix.bin", "index.jsonl", "store.json"


def digest(content: bytes | np.ndarray) -> str:
    """A hash of some bytes, in hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Piece:
    """What is stored in one: the outputs at a record's tokens, from the place `begin` on."""

    tokens: np.ndarray  # [length] int32, all of the record's
    begin: int = 0

    @property
    def length(self) -> int:
        """How many positions it has."""
        return self.tokens.size - self.begin

    @property
    def key(self) -> str:
        """What tells it from others: the tokens, which decide about every output, and where it begins."""
        content = np.ascontiguousarray(self.tokens)
        return digest(content if not self.begin else content.tobytes() + b"/%d" % self.begin)


@dataclass(frozen=True)
class Entry:
    """Where a piece's outputs lie."""

    offset: int  # bytes
    size: int  # bytes
    checksum: str


class Store:
    """The store in `parent` of what `header` describes; `width` and `dtype` are those of the outputs.

    store = Store(Path("results/models/gemma/frozen_prefix"), header, width=1152, dtype=mx.bfloat16)
    store.append([(Piece(tokens), hidden)])
    store.read(Piece(tokens))   # [length, width], or None where it is missing or damaged
    """

    def __init__(self, parent: str | Path, header: dict[str, Any], width: int, dtype: mx.Dtype):
        self.header, self.width, self.dtype = header, width, dtype
        self.folder = Path(parent) / sha256_json(header)[:16]
        self.path, self.index = self.folder / DATA, self.folder / INDEX
        self.entries: dict[str, Entry] = {}
        self.end = 0  # where the next record goes, in bytes
        self.seen, self.indexed = 0, -1  # bytes of the index that were read, and its inode
        self.checked: set[str] = set()
        self.map, self.mapped = np.empty(0, np.uint8), -1  # and the inode of the file that it shows
        self.lock = threading.RLock()
        self._refresh()

    def read(self, piece: Piece) -> mx.array | None:
        """The piece's outputs [length, width]; None where missing or damaged."""
        content = self._content(piece.key, piece.length)
        return None if content is None else mx.array(content).view(self.dtype)

    def missing(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Those of the pieces that the store does not have whole, each once; reads the others' bytes."""
        self._refresh()
        found = {}
        for piece in pieces:
            key = piece.key
            if key not in found and self._content(key, piece.length) is None:
                found[key] = piece
        return list(found.values())

    def append(self, pairs: Sequence[tuple[Piece, mx.array | np.ndarray]]) -> None:
        """Add pieces, as (piece, outputs [length, width] or their bytes), durably and each whole.

        Raises CallwrightError when the disk is full; what was there before is untouched.
        """
        with self._writing():
            end = self._repair()
            lines = []
            with open(self.path, "r+b" if self.path.exists() else "w+b") as stream:
                stream.seek(end)
                for piece, hidden in pairs:
                    content = hidden if isinstance(hidden, np.ndarray) else as_bytes(hidden)
                    key = piece.key
                    if self._content(key, piece.length) is not None:
                        continue  # another process was faster
                    stream.write(content)
                    row = {"tokens": key, "offset": end, "size": content.nbytes, "checksum": digest(content)}
                    lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                    end += content.nbytes
                stream.flush()
                os.fsync(stream.fileno())
            with open(self.index, "ab") as stream:
                stream.write(b"".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
            self._refresh()

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the store for one process that computes many records; others wait, and find them there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "fill.lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another process computes the frozen prefix in %s: waiting for it", self.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """Take `size` bytes of the disk now, for what the block appends; what it leaves unused is given back.

        Raises CallwrightError when they are not there.
        """
        try:
            with self._writing():
                end = self._repair()
                with open(self.path, "ab") as stream:
                    _allocate(stream.fileno(), end, size)
            yield
        finally:
            with self._writing():
                end = self._repair()
                with open(self.path, "ab") as stream:
                    stream.truncate(end)

    def _content(self, key: str, length: int) -> np.ndarray | None:
        """The bytes [length, row] of a piece, verified once; None where they are missing or damaged."""
        content = self._verified(key, length)
        if content is None:
            self._refresh()  # another process may have stored it since
            content = self._verified(key, length)
        return content

    def _verified(self, key: str, length: int) -> np.ndarray | None:
        entry, row = self.entries.get(key), self.width * self.dtype.size
        if entry is None or entry.size != length * row:
            return None
        with self.lock:
            content = self._mapped(entry)
            if content is None or (key not in self.checked and digest(content) != entry.checksum):
                return None
            self.checked.add(key)
        return content.reshape(length, row)

    def _mapped(self, entry: Entry) -> np.ndarray | None:
        end = entry.offset + entry.size
        try:
            found = os.stat(self.path)
            if found.st_size < end:  # touching the map beyond the file's end would kill the process
                return None
            if self.map.size < end or self.mapped != found.st_ino:
                self.map, self.mapped = np.memmap(self.path, np.uint8, "r"), found.st_ino
                self.checked.clear()
        except OSError:
            return None
        return self.map[entry.offset : end]

    def _refresh(self) -> None:
        """Read the index's new lines; half a line, or one that is none, is no record."""
        with self.lock:
            try:
                with open(self.index, "rb") as stream:
                    found = os.fstat(stream.fileno())
                    if found.st_size < self.seen or found.st_ino != self.indexed:  # not the file that it was
                        self.entries, self.end, self.seen, self.indexed = {}, 0, 0, found.st_ino
                    stream.seek(self.seen)
                    new = stream.read()
            except OSError:
                return
            whole = new.rfind(b"\n") + 1
            self.seen += whole
            for line in new[:whole].splitlines():
                with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                    row = orjson.loads(line)
                    entry = Entry(int(row["offset"]), int(row["size"]), str(row["checksum"]))
                    if entry.offset >= 0 and entry.size > 0:
                        self.entries[str(row["tokens"])] = entry
                        self.end = max(self.end, entry.offset + entry.size)
                        self.checked.discard(str(row["tokens"]))

    def _repair(self) -> int:
        """Cut off half a line that a killed writer left; returns where the next record goes. For the lock's holder."""
        if not self.index.exists():  # outputs without an index are nobody's, but may still be mapped: a new file
            self.path.unlink(missing_ok=True)
            self.index.touch()
        self._refresh()
        if self.index.exists() and self.index.stat().st_size > self.seen:
            os.truncate(self.index, self.seen)
        return self.end

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the store for one writer among all processes and threads."""
        with self.lock, _full_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "append.lock", "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (self.folder / HEADER).exists():
                    write_json(self.folder / HEADER, self.header)
                yield


def as_bytes(hidden: mx.array) -> np.ndarray:
    """The bytes of `hidden` [length, width], as [length, width * bytes per element]."""
    return np.array(hidden.view(mx.uint8))


def _allocate(descriptor: int, offset: int, size: int) -> None:
    """Real blocks of the disk where the system can give them; elsewhere the writes themselves will find out."""
    if size > 0 and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, offset, size)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise


@contextlib.contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        free = shutil.disk_usage(folder.parent if folder.parent.exists() else ".").free
        raise CallwrightError(
            f"no space left on the disk while writing the frozen prefix to {folder} ({free / 1e9:.2f} GB free): free "
            f"some (what other folders in {folder.parent} hold can be computed again), or set config key "
            "training.prefix_cache to `off`"
        ) from error


def prune(store: Store) -> None:
    """Delete the stores beside this one that the same machine computed by another model, code or version."""
    for path in store.folder.parent.glob(f"*/{HEADER}"):
        try:
            other = orjson.loads(path.read_bytes())
            superseded = other["place"] == store.header["place"] and any(
                other[key] != store.header[key] for key in ("model", "code", "versions")
            )
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            continue
        if superseded:
            log.info("%s was computed by another model or version, and is deleted", path.parent)
            shutil.rmtree(path.parent, ignore_errors=True)
