"""callwright's trainer on a job of `work.py`, in a process of its own: python run_callwright.py JOB RESULT."""

import json
import os
import resource
import shutil
import sys
from pathlib import Path


def main(job: dict, out: Path) -> None:
    from callwright.runtime import device

    device.configure(os.cpu_count() or 1, "cpu")
    import mlx.core as mx

    from callwright.lora import backend as backends
    from callwright.lora import frozen_prefix, layers
    from callwright.lora.backend import backend
    from callwright.lora.loop import train
    from callwright.models.load import load
    from callwright.runtime import blas
    from callwright.runtime.files import read_jsonl, write_json

    if job.get("autograd"):
        backends.supports = lambda model, settings: False
    settings = {**job["training"], "iterations": job["steps"], **job["changes"]}
    rows = list(read_jsonl(job["rows"]))
    state = out.with_suffix("")
    shutil.rmtree(state, ignore_errors=True)
    rate = blas.measure_gflops()

    def opened():
        model, _ = load(job["model"])
        layers.attach(model, settings["lora"])
        return backend(model, settings)

    # As rule `frozen_prefix` does, into a store that is deleted afterwards.
    index = frozen_prefix.prepare(job["model"], rows, rows[:1], settings, state / "frozen_prefix", opened)
    mx.reset_peak_memory()
    summary = train(
        job["model"], rows, rows[:1], settings, state / "state", state / "adapter", "benchmark", prefix_index=index
    )
    history = list(read_jsonl(state / "state" / "history.jsonl"))
    steps = [row for row in history if row["event"] == "step"]
    write_json(
        out,
        {
            "steps": [{key: row[key] for key in ("loss", "seconds", "peak_gb", "tokens")} for row in steps],
            "prefix_seconds": sum(index[what].get("seconds", 0) for what in ("train", "validation")),
            "sgemm_gflops": rate,
            "peak_gb": max(row["peak_gb"] for row in steps),  # as mlx-lm's: while it trains, not while it loads
            "load_peak_gb": max(row["peak_gb"] for row in history if row.get("phase") == "load"),
            "process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            "summary": summary,
        },
    )
    shutil.rmtree(state)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
