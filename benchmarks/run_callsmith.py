"""callsmith's trainer on a job of `work.py`, in a process of its own: python run_callsmith.py JOB RESULT."""

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path


def main(job: dict, out: Path) -> None:
    from callsmith.runtime import device

    device.configure(os.cpu_count() or 1, "cpu")
    import mlx.core as mx

    from callsmith.lora.loop import train
    from callsmith.runtime import blas
    from callsmith.runtime.files import read_jsonl, write_json

    settings = {**job["training"], "iterations": job["steps"], **job["changes"]}
    rows = list(read_jsonl(job["rows"]))
    state = out.with_suffix("")
    shutil.rmtree(state, ignore_errors=True)
    rate = blas.measure_gflops()
    mx.reset_peak_memory()
    start = time.perf_counter()
    summary = train(job["model"], rows, rows[:1], settings, state / "state", state / "adapter", "benchmark")
    seconds = time.perf_counter() - start
    history = list(read_jsonl(state / "state" / "history.jsonl"))
    steps = [row for row in history if row["event"] == "step"]
    write_json(
        out,
        {
            "steps": [{key: row[key] for key in ("loss", "seconds", "peak_gb", "tokens")} for row in steps],
            "seconds": seconds,
            "sgemm_gflops": rate,
            "peak_gb": summary["peak_memory_gb"],
            "process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            "summary": summary,
        },
    )
    shutil.rmtree(state)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
