"""What memory a run uses: MLX's own counters and the process as the system sees it."""

import logging

import mlx.core as mx
import psutil

log = logging.getLogger(__name__)

GB = 1e9


class Probe:
    """Reads MLX's counters; peaks since the last `reset` and over all.

    MLX's peak leaves out the buffers that it keeps for reuse, and knows nothing of what other
    libraries allocate: `cache_gb` and `process_gb` say the rest.
    """

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.highest = self.highest_process = 0.0
        mx.reset_peak_memory()

    def read(self) -> dict[str, float]:
        """GB now: `active_gb` (arrays alive), `peak_gb` (most since the last reset), `cache_gb`, `process_gb`."""
        found = {
            "active_gb": mx.get_active_memory() / GB,
            "peak_gb": mx.get_peak_memory() / GB,
            "cache_gb": mx.get_cache_memory() / GB,
            "process_gb": self.process.memory_info().rss / GB,
        }
        self.highest = max(self.highest, found["peak_gb"])
        self.highest_process = max(self.highest_process, found["process_gb"])
        return {name: round(value, 4) for name, value in found.items()}

    def reset(self) -> None:
        """Begin a new peak; `highest` keeps the old one."""
        self.highest = max(self.highest, mx.get_peak_memory() / GB)
        mx.reset_peak_memory()


def limit(budget_gb: float | None, cache_gb: float = 0.5) -> None:
    """Bound what MLX keeps for reuse and, with a budget (GB), what it allocates, for this whole process.

    MLX takes the budget for a guideline: it goes beyond it while the machine still has memory.
    """
    cache = cache_gb if budget_gb is None else min(cache_gb, budget_gb / 4)
    mx.set_cache_limit(int(cache * GB))
    if budget_gb is not None:
        mx.set_memory_limit(int(budget_gb * GB))
        log.info("memory: MLX is asked to stay within %.1f GB, %.2f of them its cache", budget_gb, cache)
