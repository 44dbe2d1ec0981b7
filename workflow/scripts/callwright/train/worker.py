"""One process of a shared training, started by `trainer.run`: `python -m callwright.train.worker <job.json>`."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from callwright.runtime import device, logs, processes
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, write_json

log = logging.getLogger(__name__)


def threads(job: dict[str, Any], count: int) -> list[int]:
    """How many threads each worker gives its BLAS: those of `device.cpu_threads`, dealt evenly, and at least one."""
    total = job["device"].get("cpu_threads") or os.cpu_count() or 1
    return [max(1, total // count + (rank < total % count)) for rank in range(count)]


def main() -> int:
    """Train as one of `training.workers`; returns the exit status. `processes.run` says which files are written."""
    processes.follow_parent()
    job, rank = read_json(sys.argv[1]), int(os.environ["MLX_RANK"])
    folder, count = Path(sys.argv[1]).parent, job["settings"]["workers"]
    logs.setup(None if rank else job["log"], append=True)
    try:
        device.configure(**{**job["device"], "cpu_threads": threads(job, count)[rank]})
        # These import MLX, which must find its BLAS in place.
        from callwright.lora.distributed import LostPeer, join
        from callwright.train import trainer

        try:
            workers = join(job["token"])
        except LostPeer as error:
            log.warning("%s", error)
            return processes.NOT_CONNECTED
        try:
            write_json(folder / f"result-{rank}.json", trainer.work(job, workers))
        except LostPeer as error:
            (folder / f"error-{rank}.txt").write_text(str(error))
            return processes.LOST
        return 0
    except CallwrightError as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
        return 1
    except Exception:
        log.exception("worker %d of %d failed", rank, count)
        return 1


if __name__ == "__main__":
    sys.exit(main())
