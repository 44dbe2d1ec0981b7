"""A safetensors file written piece by piece, so that no more than a piece is in memory.

Layout: the header's length (8 bytes), a JSON header with type, shape and place of each array, the arrays' bytes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import orjson

from callwright.runtime.errors import CallwrightError

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}


class SafetensorsStream:
    """The file at `path`, to be filled: `arrays` says for each name its type (of `ITEM_BYTES`) and shape.

    Raises CallwrightError at once when the disk has no room for all of it.
    """

    def __init__(self, path: Path, arrays: Mapping[str, tuple[str, tuple[int, ...]]]):
        header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
        self.places, self.rows, end = {}, {}, 0
        for name, (dtype, shape) in sorted(arrays.items()):
            size = int(np.prod(shape, dtype=np.int64)) * ITEM_BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
            self.places[name], self.rows[name] = end, size // max(shape[0], 1)
            end += size
        free = shutil.disk_usage(path.parent).free
        if free < end:
            raise CallwrightError(
                f"too little space on the disk of {path.parent}: {end / 1e9:.2f} GB are needed, {free / 1e9:.2f} are "
                "free; make room and run again"
            )
        text = orjson.dumps(header)
        text += b" " * (-len(text) % 8)
        self.stream = path.open("wb")
        self.stream.write(len(text).to_bytes(8, "little") + text)
        self.start = 8 + len(text)
        self.stream.truncate(self.start + end)

    def write(self, name: str, values: np.ndarray, row: int = 0) -> None:
        """Put `values` (of the array's item size) where row `row` of the array `name` begins."""
        self.stream.seek(self.start + self.places[name] + row * self.rows[name])
        self.stream.write(np.ascontiguousarray(values).data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.stream.close()


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 `values` as `dtype`, rounded to nearest, even: float32, float16, or bfloat16's bits as uint16."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def decode(values: np.ndarray, dtype: str) -> np.ndarray:
    """What `encode` gave, as float32."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
