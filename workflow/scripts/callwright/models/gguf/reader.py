"""A GGUF file's header: its metadata, and where each tensor's bytes lie. No tensor is read here.

The `gguf` package's own reader makes two NumPy arrays of each token, half a gigabyte for Gemma's vocabulary, and
raises whatever NumPy raises on a damaged file; the tests hold the two against each other. What decodes blocks is
that package's `dequantize` (`blocks`).

Layout (little-endian): magic, version, tensor count, number of keys; the keys, each with type and value; for each
tensor its name, dimensions (innermost first), type and offset; from the next multiple of the alignment on, the data.
"""

import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from callwright.runtime.errors import CallwrightError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
POINTER = b"version https://git-lfs"
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf$")
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
FLOAT32, STRING, ARRAY = 6, 8, 9
DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class Tensor:
    """One tensor: `shape` with the innermost dimension last, as in NumPy; its bytes from `offset` on in `path`."""

    name: str
    path: Path
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int

    @property
    def columns(self) -> int:
        """Weights in a row."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """Rows of all outer dimensions; a vector is one row."""
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        block, size = GGML_QUANT_SIZES[self.type]
        return self.columns // block * size

    def read(self, first: int, last: int) -> np.ndarray:
        """The rows from `first` to `last` - 1 as bytes [rows, row_bytes], read from the disk now."""
        with open(self.path, "rb") as stream:
            stream.seek(self.offset + first * self.row_bytes)
            raw = np.fromfile(stream, np.uint8, (last - first) * self.row_bytes)
        return raw.reshape(last - first, self.row_bytes)


@dataclass(frozen=True)
class GgufFile:
    """`metadata` by key, arrays of numbers as NumPy arrays; `tensors` by name, of all shards."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        """`general.architecture`, as in `llama`."""
        return self.metadata.get("general.architecture", "")

    def of(self, key: str, default: Any = None) -> Any:
        """The value of the architecture's own `key`, as in `block_count`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def need(self, key: str) -> Any:
        """The value of the architecture's own `key`; raises CallwrightError when the file does not have it."""
        value = self.of(key)
        if value is None:
            raise CallwrightError(f"{self.path} has no key {self.architecture}.{key}: it cannot be converted")
        return value


def read_gguf(path: str | Path) -> GgufFile:
    """Read the header of the GGUF file at `path`, and of the other shards where it is the first of several.

    Raises CallwrightError of one line for what is not a GGUF file, a Git LFS pointer, an unknown version, a file that
    is cut (in its header or in its data), a shard that is missing, and a type of tensor that nobody knows.
    """
    path = Path(path)
    found = [_read_one(shard) for shard in _shards(path)]
    metadata, tensors = found[0].metadata, {}
    for one in found:
        tensors |= one.tensors
    expected = metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise CallwrightError(f"{path}: its shards hold {len(tensors)} tensors, not {expected}: download all again")
    return GgufFile(path, metadata, tensors)


def _shards(path: Path) -> list[Path]:
    """`path`, or all files `<name>-0000i-of-0000n.gguf` if it is named like the first of them."""
    found = SHARD.match(path.name)
    if not found:
        return [path]
    stem, _, count = found.groups()
    shards = [path.with_name(f"{stem}-{number:05d}-of-{count}.gguf") for number in range(1, int(count) + 1)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise CallwrightError(f"{path.parent}: shard {missing[0]} of a GGUF in {int(count)} files is missing: fetch it")
    return shards


def _read_one(path: Path) -> GgufFile:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        begin = stream.read(len(POINTER))
        if begin == POINTER:
            raise CallwrightError(
                f"{path} is a Git LFS pointer of {size} bytes, not the model: run `git lfs pull` where it came from"
            )
        if begin[:4] != MAGIC:
            raise CallwrightError(f"{path} is not a GGUF file: it begins with {begin[:4]!r}, expected {MAGIC!r}")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            try:
                return _Header(path, memory).read()
            except (struct.error, IndexError, OverflowError, MemoryError, UnicodeDecodeError, ValueError) as error:
                raise CallwrightError(
                    f"{path} ends, or is damaged, within its header ({size:,} bytes in all): download it again"
                ) from error


class _Header:
    """A position in a file's bytes, and what stands there."""

    def __init__(self, path: Path, memory: mmap.mmap):
        self.path, self.memory, self.size, self.at = path, memory, len(memory), 0

    def read(self) -> GgufFile:
        """All of it. Raises what `struct` raises at the file's end."""
        _, version, tensors, keys = self._take("<4sIQQ")
        if version not in VERSIONS:
            raise CallwrightError(
                f"{self.path}: GGUF version {version}, expected {' or '.join(map(str, VERSIONS))} (little-endian); "
                "convert the model again with a current llama.cpp"
            )
        metadata = {}
        for _ in range(self._within(keys)):
            key = self._string()
            metadata[key] = self._value(*self._take("<I"))
        infos = []
        for _ in range(self._within(tensors)):
            name = self._string()
            (count,) = self._take("<I")
            dimensions = self._take(f"<{count}Q")
            infos.append((name, dimensions, *self._take("<IQ")))
        alignment = int(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
        start = -(-self.at // alignment) * alignment
        found = {name: self._tensor(name, *rest, start) for name, *rest in infos}
        end = max((t.offset + t.rows * t.row_bytes for t in found.values()), default=start)
        if end > self.size:
            raise CallwrightError(
                f"{self.path} is cut: it has {self.size:,} bytes, its tensors need {end:,}; download it again"
            )
        return GgufFile(self.path, metadata, found)

    def _tensor(self, name: str, dimensions: tuple[int, ...], kind: int, offset: int, start: int) -> Tensor:
        try:
            known = GGMLQuantizationType(kind)
        except ValueError:
            raise CallwrightError(
                f"{self.path}: tensor {name} is of type {kind}, which the gguf package does not know"
            ) from None
        if dimensions[0] % GGML_QUANT_SIZES[known][0]:
            raise CallwrightError(
                f"{self.path}: tensor {name} has rows of {dimensions[0]} weights, which {known.name} blocks do not fill"
            )
        return Tensor(name, self.path, tuple(reversed(dimensions)), known, start + offset)

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.memory, self.at)
        self.at += struct.calcsize(layout)
        return values

    def _within(self, count: int) -> int:
        """`count` of things that take at least a byte each; a damaged file may say more than it has bytes."""
        if count > self.size - self.at:
            raise ValueError(count)
        return count

    def _string(self) -> str:
        (length,) = self._take("<Q")
        begin, self.at = self.at, self.at + self._within(length)
        return self.memory[begin : self.at].decode("utf-8", errors="surrogateescape")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            of, count = self._take("<IQ")
            self._within(count)
            if of in (STRING, ARRAY):
                return [self._value(of) for _ in range(count)]
            dtype = np.dtype(SCALARS[of]).newbyteorder("<")
            values = np.frombuffer(self.memory[self.at : self.at + count * dtype.itemsize], dtype, count)
            self.at += values.nbytes
            return values
        if kind not in SCALARS:
            raise ValueError(kind)
        (value,) = self._take(f"<{SCALARS[kind]}")
        # A float32's own digits: 1e-05, not 9.99…e-06.
        return float(str(np.float32(value))) if kind == FLOAT32 else value
