"""How close a training comes to what the processor can do: its products' operations against the measured sgemm rate."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from callwright.lora.batches import Batch
from callwright.lora.distributed import ProcessGroup
from callwright.runtime import blas, device

if TYPE_CHECKING:
    from callwright.lora.backend import TrainingBackend

SIZE = 1024  # of the square matrices that are multiplied to measure the rate


class Speed:
    """Adds up operations and seconds by phase, for a backend that can count them (`flops`)."""

    def __init__(self, backend: "TrainingBackend", workers: ProcessGroup, cached: bool):
        """`cached`: the frozen blocks' outputs are read, not computed."""
        self.backend, self.workers, self.cached = backend, workers, cached
        self.operations: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.rate = blas.measure_gflops(SIZE) if backend.counts_flops else 0.0

    def note(self, batches: Sequence[Batch], phases: Mapping[str, Mapping[str, float]]) -> None:
        """Count a step on `batches`; `phases` are `memory.Probe.phases` at its end."""
        if not self.backend.counts_flops:
            return
        for batch in self.workers.share(list(batches)):
            self.operations.update({k: n for k, n in self.backend.flops(batch).items() if k in phases})
        self.seconds.update({name: row["seconds"] for name, row in phases.items()})

    def shares(self) -> dict[str, Any]:
        """`sgemm_gflops`, the better of a measurement before and one now, and `sgemm_share` by phase and of `all`.

        Empty where the operations are not known.
        """
        if not self.operations or not device.on_cpu():
            return {}
        if self.cached:
            del self.operations["frozen_prefix"]
        rate = max(self.rate, blas.measure_gflops(SIZE))
        shares = {name: n / (self.seconds[name] * rate * 1e9) for name, n in self.operations.items() if n}
        together = sum(self.operations.values()) / (sum(self.seconds[name] for name in shares) * rate * 1e9)
        return {
            "sgemm_gflops": round(rate, 1),
            "sgemm_share": {name: round(share, 3) for name, share in {**shares, "all": together}.items()},
        }
