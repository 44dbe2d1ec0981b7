"""The frozen trunk's outputs, computed once per record.

With LoRA on the last K of L blocks, the L - K blocks below never change: what they make of a
record is the same in every epoch and validation. A record's trunk is computed from that record
alone, so it does not depend on the batch that first asked for it, and a run resumed with an
empty cache computes the same bits again.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from callsmith.lora.batches import Record
from callsmith.runtime.errors import CallsmithError

log = logging.getLogger(__name__)

# Above this, the cache lies in a memory-mapped file, whose pages the system can take back.
IN_MEMORY_BYTES = 512 * 10**6
# Of the free disk space, the cache takes no more than this share.
DISK_SHARE = 0.5


class Trunk:
    """The outputs [length, width] of the frozen blocks for some records, filled as they are asked for.

        trunk = Trunk(compute, records, width=576, dtype=mx.float32, path=state / "trunk.bin")
        hidden = trunk.get(3)

    `compute` maps tokens [length] to outputs [length, width]. `path` None keeps them in memory.
    """

    def __init__(
        self,
        compute: Callable[[np.ndarray], mx.array],
        records: Sequence[Record],
        width: int,
        dtype: mx.Dtype,
        path: Path | None = None,
    ):
        self.compute, self.records, self.dtype = compute, records, dtype
        self.known: dict[int, mx.array] = {}
        self.filled = np.zeros(len(records), bool)
        self.file: np.memmap | None = None
        if path is not None:
            self.starts = np.concatenate([[0], np.cumsum([record.length for record in records])])
            path.unlink(missing_ok=True)  # what another run left is not trusted
            self.file = np.memmap(path, np.uint8, "w+", shape=(int(self.starts[-1]), width * dtype.size))

    def get(self, index: int) -> mx.array:
        """The trunk [length, width] of record `index`."""
        if self.file is None:
            if index not in self.known:
                self.known[index] = self.compute(self.records[index].tokens)
                mx.eval(self.known[index])
            return self.known[index]
        rows = slice(int(self.starts[index]), int(self.starts[index + 1]))
        if not self.filled[index]:
            hidden = self.compute(self.records[index].tokens)
            self.file[rows] = np.array(hidden.view(mx.uint8))
            self.filled[index] = True
            return hidden
        return mx.array(self.file[rows]).view(self.dtype)

    def close(self) -> None:
        """Drop the cache and delete its file; a second time does nothing."""
        self.known.clear()
        if self.file is not None:
            path = Path(self.file.filename)
            self.file = None
            path.unlink(missing_ok=True)


def size(records: Sequence[Record], width: int, dtype: mx.Dtype) -> int:
    """The bytes that the trunks of all `records` take."""
    return sum(record.length for record in records) * width * dtype.size


def plan(
    what: str,
    records: Sequence[Record],
    visits: float,
    cut: int,
    width: int,
    dtype: mx.Dtype,
    setting: str,
    folder: Path,
) -> tuple[bool, Path | None]:
    """(whether to cache the trunk of the `what` records, the file for it or None for memory), and logs why.

    `visits` is how often each record is seen in the run, `cut` the number of frozen blocks,
    `setting` the config key `training.trunk_cache`: `auto` caches what is seen more than once, if it
    fits half of the free disk; `on` insists, and raises CallsmithError when it does not fit.
    """
    if setting == "off" or cut == 0:
        return False, None
    if setting == "auto" and visits <= 1:
        log.info("trunk cache: not for the %s records, each is seen at most once", what)
        return False, None
    need = size(records, width, dtype)
    if need <= IN_MEMORY_BYTES:
        log.info("trunk cache: %s records, %.0f MB in memory, each seen %.1f times", what, need / 1e6, visits)
        return True, None
    free = shutil.disk_usage(folder).free
    if need > free * DISK_SHARE:
        message = (
            f"the trunk cache of the {what} records needs {need / 1e9:.1f} GB, more than half of the "
            f"{free / 1e9:.1f} GB free on the disk of {folder}"
        )
        if setting == "on":
            raise CallsmithError(f"{message}: free some, or set config key training.trunk_cache to `off`")
        log.warning("%s: training without it", message)
        return False, None
    path = folder / f"trunk-{what}.bin"
    log.info("trunk cache: %s records, %.1f GB in %s, each seen %.1f times", what, need / 1e9, path, visits)
    return True, path
