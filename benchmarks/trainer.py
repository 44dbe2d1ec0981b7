"""callwright's trainer beside mlx-lm's on the same work, in turn: ratios to the terminal and to results/bench.json.

    python benchmarks/trainer.py                                    both models
    python benchmarks/trainer.py --work smollm2 --records FILE      records in xLAM's format instead of the toolset's

Same model, records, batches and starting adapter. Each run is a process of its own, the trainers take turns, and
medians over the turns are compared. mlx-lm's first step, in which it compiles, is left out; of callwright's time
nothing is left out, the filling of the prefix cache included. `--as-installed` adds mlx-lm as pip leaves it.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import work

from callwright.runtime import provenance
from callwright.runtime.files import read_json, write_json

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "bench.json"
PEER = "mlx-lm"


def variants(name: str, steps: int, as_installed: bool) -> dict[str, dict[str, Any]]:
    """The runs to compare, by name; `steps` of the job. mlx-lm's pace does not change with the epoch: one is enough."""
    epoch = max(3, steps // 3) if name == "smollm2" else min(steps, 3)
    found = {
        PEER: {"script": "run_mlx_lm.py", "as_installed": False, "checkpoint": False, "steps": epoch},
        "callwright, no cache": {"script": "run_callwright.py", "steps": epoch, "changes": {"prefix_cache": "off"}},
        "callwright, prefix cache": {"script": "run_callwright.py", "steps": steps, "changes": {"prefix_cache": "on"}},
    }
    if as_installed:
        found[f"{PEER}, as installed"] = {**found[PEER], "as_installed": True, "steps": 2}
    return found


def measure(job: dict[str, Any], name: str, variant: dict[str, Any]) -> dict[str, Any]:
    """One run in a process of its own; what it measured."""
    folder = work.FOLDER / job["name"]
    path, out = folder / "job.json", folder / "result.json"
    write_json(path, {**job, **variant})
    print(f"\n{job['name']}: {name}", flush=True)
    with open(folder / "log.txt", "ab") as log:
        subprocess.run([sys.executable, HERE / variant["script"], path, out], check=True, stdout=log, stderr=log)
    found = read_json(out)
    peer = variant["script"] == "run_mlx_lm.py"
    timed = found["steps"][1:] if peer else found["steps"]
    tokens = job["trained"][: len(found["steps"])][1 if peer else 0 :]
    seconds = found.get("prefix_seconds", 0) + sum(step["seconds"] for step in timed)
    found["tokens_per_second"] = sum(tokens) / seconds
    found["above_weights_gb"] = found["peak_gb"] - job["weights_gb"]
    print(
        f"  {found['tokens_per_second']:.1f} trained tokens/s, {statistics.median(s['seconds'] for s in timed):.2f} "
        f"s/step, peak {found['above_weights_gb']:.2f} GB above the weights, process {found['process_gb']:.2f} GB",
        flush=True,
    )
    return found


def compare(job: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the turns, ratios to mlx-lm, and how far the losses of the same steps are apart."""
    rows = {}
    reference = runs[PEER][0]["steps"]
    for name, results in runs.items():
        rows[name] = {
            key: statistics.median(result[key] for result in results)
            for key in ("tokens_per_second", "above_weights_gb", "peak_gb", "process_gb")
        }
        same = list(zip(results[0]["steps"], reference, strict=False))
        rows[name]["loss_difference"] = max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in same)
        rows[name]["turns"] = [result["tokens_per_second"] for result in results]
        share = results[0].get("summary", {}).get("sgemm_share")
        if share is not None:
            rows[name]["sgemm_share"] = share
    for row in rows.values():
        row["speed"] = row["tokens_per_second"] / rows[PEER]["tokens_per_second"]
        row["memory"] = row["above_weights_gb"] / rows[PEER]["above_weights_gb"]
    return {"training": job["training"], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=["smollm2", "gemma"], default=["smollm2", "gemma"])
    parser.add_argument("--records", type=Path, help="a file in xLAM's format; without it, the built-in toolset")
    parser.add_argument("--count", type=int, default=24, help="records of the SmolLM2 work")
    parser.add_argument("--epochs", type=int, default=3, help="passes over them")
    parser.add_argument("--blocks", type=int, default=26, help="blocks of the Gemma-shaped model")
    parser.add_argument("--turns", type=int, default=3, help="runs of each trainer")
    parser.add_argument("--as-installed", action="store_true", help="also mlx-lm with the BLAS that pip installs: slow")
    arguments = parser.parse_args()
    results = read_json(OUT)["work"] if OUT.exists() else {}
    for name in arguments.work:
        job = (
            work.smollm2(arguments.records, arguments.count, arguments.epochs)
            if name == "smollm2"
            else work.gemma(arguments.blocks, 4, arguments.epochs)
        )
        runs: dict[str, list] = {}
        for turn in range(arguments.turns):
            chosen = variants(name, job["training"]["iterations"], arguments.as_installed and turn == 0)
            for label, variant in chosen.items():
                runs.setdefault(label, []).append(measure(job, label, variant))
        results[job["name"]] = compare(job, runs)
        write_json(OUT, {"versions": provenance.versions(), "machine": provenance.machine(), "work": results})
    print(table(results))


def table(results: dict[str, Any]) -> str:
    """The ratios as text."""
    lines = []
    for name, result in results.items():
        lines += [
            "",
            name,
            f"  {'':28}{'tokens/s':>10}{'speed':>8}{'GB above weights':>18}{'memory':>8}{'loss differs':>14}",
        ]
        for label, row in result["rows"].items():
            lines.append(
                f"  {label:28}{row['tokens_per_second']:10.1f}{row['speed']:7.2f}x{row['above_weights_gb']:18.2f}"
                f"{row['memory']:7.2f}x{row['loss_difference']:14.1e}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
