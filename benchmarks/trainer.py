"""callwright's trainer beside mlx-lm's on the same work, in turn: ratios to the terminal and to results/bench.json.

    python benchmarks/trainer.py                                    both models
    python benchmarks/trainer.py --work smollm2 --records FILE      records in xLAM's format instead of the toolset's
    python benchmarks/trainer.py --work own-tools                   requests that all have the same ten tools, in eights
    python benchmarks/trainer.py --work lists                       four requests of the toolset under each list
    python benchmarks/trainer.py --work lists --records FILE        xLAM's records, put together by `data.lists`

The last three compare shared beginnings with each record computed whole, the very same records.

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
PEER, WHOLE, SHARED = "mlx-lm", "callwright, each record whole", "callwright, shared beginnings"
WORK = {
    "smollm2": lambda given: work.smollm2(given.records, given.count, given.epochs),
    "gemma": lambda given: work.gemma(given.blocks, 4, given.epochs),
    "own-tools": lambda given: work.own_tools(max(64, given.count), given.epochs),
    "lists": lambda given: work.lists(given.records, max(64, given.count), given.epochs),
}


def variants(name: str, steps: int, as_installed: bool) -> dict[str, dict[str, Any]]:
    """The runs to compare, by name; `steps` of the job. mlx-lm's pace does not change with the epoch: one is enough."""
    epoch = min(steps, 3) if name == "gemma" else max(3, steps // 3)
    if name == "lists":
        changes = {"prefix_cache": "on"}
        return {
            WHOLE: {"script": "run_callwright.py", "steps": steps, "changes": {**changes, "share_prefix": "off"}},
            SHARED: {"script": "run_callwright.py", "steps": steps, "changes": changes},
        }
    if name == "own-tools":
        return {
            PEER: {"script": "run_mlx_lm.py", "as_installed": False, "checkpoint": False, "steps": min(steps, 3)},
            **variants("lists", steps, as_installed),
        }
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
    # Where beginnings are shared, batches are put together in another way, and the run itself says what it trained.
    tokens = job["trained"][1 : len(found["steps"])] if peer else [step["tokens"] for step in timed]
    seconds = found.get("prefix_seconds", 0) + sum(step["seconds"] for step in timed)
    found["tokens_per_second"] = sum(tokens) / seconds
    found["examples_per_second"] = job["training"]["batch_size"] * len(timed) / seconds
    found["above_weights_gb"] = found["peak_gb"] - job["weights_gb"]
    pace = statistics.median(step["seconds"] for step in timed)
    print(
        f"  {found['tokens_per_second']:.1f} trained tokens/s, {found['examples_per_second']:.2f} examples/s, "
        f"{pace:.2f} s/step, peak {found['above_weights_gb']:.2f} GB above the weights, "
        f"process {found['process_gb']:.2f} GB",
        flush=True,
    )
    return found


def compare(job: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the turns, ratios to the first of `runs`, and how far the losses of the same steps are apart.

    That is None where the steps are of other batches.
    """
    rows = {}
    first = next(iter(runs))
    reference = runs[first][0]["steps"]
    for name, results in runs.items():
        rows[name] = {
            key: statistics.median(result[key] for result in results)
            for key in ("tokens_per_second", "examples_per_second", "above_weights_gb", "peak_gb", "process_gb")
        }
        same = list(zip(results[0]["steps"], reference, strict=False))
        others = any(a["tokens"] != b.get("tokens", a["tokens"]) for a, b in same if "tokens" in a)
        apart = (abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in same)
        rows[name]["loss_difference"] = None if others else max(apart)
        rows[name]["turns"] = [result["tokens_per_second"] for result in results]
        share = results[0].get("summary", {}).get("sgemm_share")
        if share is not None:
            rows[name]["sgemm_share"] = share
    for row in rows.values():
        row["speed"] = row["tokens_per_second"] / rows[first]["tokens_per_second"]
        row["memory"] = row["above_weights_gb"] / rows[first]["above_weights_gb"]
    return {"training": job["training"], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=["smollm2", "gemma"])
    parser.add_argument("--records", type=Path, help="a file in xLAM's format; without it, the built-in toolset")
    parser.add_argument("--count", type=int, default=24, help="records of SmolLM2's work; 64 at least in lists")
    parser.add_argument("--epochs", type=int, default=3, help="passes over them")
    parser.add_argument("--blocks", type=int, default=26, help="blocks of the Gemma-shaped model")
    parser.add_argument("--turns", type=int, default=3, help="runs of each trainer")
    parser.add_argument("--without", nargs="+", default=[], help="runs to leave out, by name, as in `--without mlx-lm`")
    parser.add_argument("--as-installed", action="store_true", help="also mlx-lm with the BLAS that pip installs: slow")
    arguments = parser.parse_args()
    results = read_json(OUT)["work"] if OUT.exists() else {}
    for name in arguments.work:
        job = WORK[name](arguments)
        runs: dict[str, list] = {}
        for turn in range(arguments.turns):
            chosen = variants(name, job["training"]["iterations"], arguments.as_installed and turn == 0)
            for label, variant in chosen.items():
                if label in arguments.without:
                    continue
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
            f"  {'':30}{'tokens/s':>10}{'examples/s':>12}{'speed':>8}"
            f"{'GB above weights':>18}{'memory':>8}{'loss apart':>12}",
        ]
        for label, row in result["rows"].items():
            apart = "" if row["loss_difference"] is None else f"{row['loss_difference']:.1e}"
            lines.append(
                f"  {label:30}{row['tokens_per_second']:10.1f}{row.get('examples_per_second', 0):12.2f}"
                f"{row['speed']:7.2f}x{row['above_weights_gb']:18.2f}{row['memory']:7.2f}x{apart:>12}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
