"""What memory a run uses and may use: MLX's own counters, the process as the system sees it, the machine's limits."""

import logging
import time
from pathlib import Path

import mlx.core as mx
import psutil

from callwright.runtime import device

log = logging.getLogger(__name__)

GB = 1e9
# What is left to other programs, and to what MLX does not count, when no budget is set.
MARGIN = 0.1
CACHE_GB = 0.5
CGROUP = Path("/sys/fs/cgroup")


class Probe:
    """Reads MLX's counters: peaks since the last `reset`, of each phase between, and over all.

    MLX's peak leaves out the buffers that it keeps for reuse, and knows nothing of what other
    libraries allocate: `cache_gb` and `process_gb` say the rest.
    """

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.highest = self.highest_process = 0.0
        self.reset()

    def read(self) -> dict[str, float]:
        """GB now: `active_gb` (arrays alive), `peak_gb` (most since the last reset), `cache_gb`, `process_gb`."""
        found = {
            "active_gb": mx.get_active_memory() / GB,
            "peak_gb": max(self.before, _peak()),
            "cache_gb": mx.get_cache_memory() / GB,
            "process_gb": self.process.memory_info().rss / GB,
        }
        self.highest = max(self.highest, found["peak_gb"])
        self.highest_process = max(self.highest_process, found["process_gb"])
        return {name: round(value, 4) for name, value in found.items()}

    def reset(self) -> None:
        """Begin a new peak, and new phases; `highest` keeps the old one."""
        self.highest = max(self.highest, _peak())
        self.before = 0.0  # the peak of the phases since the reset
        self.phases: dict[str, dict[str, float]] = {}
        self.mark = time.monotonic()
        mx.reset_peak_memory()

    def phase(self, name: str) -> None:
        """Note that the phase `name` ends now: `read` with its own peak, and `seconds`, into `phases`.

        A phase that comes several times has its seconds added up and its highest peak.
        """
        now, peak = time.monotonic(), _peak()
        earlier = self.phases.get(name, {"seconds": 0.0, "peak_gb": 0.0})
        row = {**self.read(), "seconds": earlier["seconds"] + now - self.mark}
        row["peak_gb"] = max(earlier["peak_gb"], round(peak, 4))
        self.phases[name] = row
        self.before = max(self.before, peak)
        self.mark = now
        mx.reset_peak_memory()

    def rows(self, step: int) -> list[dict[str, float | str | int]]:
        """The phases since the reset as rows of the history, each with its line in the log."""
        for name, row in self.phases.items():
            log.info(
                "memory, step %d, %s: %.3f GB in arrays, %.3f at most, %.3f kept for reuse, process %.3f (%.2f s)",
                step, name, row["active_gb"], row["peak_gb"], row["cache_gb"], row["process_gb"], row["seconds"],
            )  # fmt: skip
        return [{"event": "memory", "step": step, "phase": name, **row} for name, row in self.phases.items()]


def _peak() -> float:
    """GB; MLX's counter stays at 0 until something is allocated after its reset."""
    return max(mx.get_peak_memory(), mx.get_active_memory()) / GB


def limit(budget_gb: float | None, cache_gb: float = CACHE_GB) -> None:
    """Bound what MLX keeps for reuse and, with a budget (GB), what it allocates, for this whole process.

    MLX takes the budget for a guideline: it goes beyond it while the machine still has memory.
    """
    cache = cache_gb if budget_gb is None else min(cache_gb, budget_gb / 4)
    mx.set_cache_limit(int(cache * GB))
    if budget_gb is not None:
        mx.set_memory_limit(int(budget_gb * GB))
        log.info("memory: MLX is asked to stay within %.1f GB, %.2f of them its cache", budget_gb, cache)


def available() -> float:
    """The GB that arrays may take when no budget is set: what the device has now, less a margin and MLX's cache.

    On the CPU, what the system and the process's control group leave; on Metal, the working set that it
    recommends; on CUDA, the card's memory.
    """
    if device.on_cpu():
        found = min(psutil.virtual_memory().available, _cgroup_left())
    else:
        info = mx.device_info()
        keys = ("max_recommended_working_set_size", "free_memory", "total_memory", "memory_size")
        found = next((info[key] for key in keys if info.get(key)), psutil.virtual_memory().available)
    return max(0.0, found * (1 - MARGIN) / GB - CACHE_GB)


def _cgroup_left() -> float:
    try:
        most, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return float("inf") if most == "max" else int(most) - int(used)
    except (OSError, ValueError):
        return float("inf")
