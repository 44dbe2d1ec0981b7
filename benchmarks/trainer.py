"""callwright's trainer beside mlx-lm's on the same work, in turn: ratios to the terminal and to results/bench.json.

    python benchmarks/trainer.py                                    both models
    python benchmarks/trainer.py --work smollm2 --records FILE      records in xLAM's format instead of the toolset's
    python benchmarks/trainer.py --work own-tools                   requests that all have the same ten tools, in eights
    python benchmarks/trainer.py --work lists                       four requests of the toolset under each list
    python benchmarks/trainer.py --work lists --records FILE        xLAM's records, put together by `data.lists`
    python benchmarks/trainer.py --work paths --records FILE --count 8 --epochs 1
                                                                    Qwen2.5-Coder-0.5B, or the model of `--model FOLDER`
    python benchmarks/trainer.py --work smollm2 --busy              each run alone, and with one core taken

`own-tools` and `lists` compare shared beginnings with each record computed whole, the very same records; `lists` with
--records also with the same requests under the lists that they had, which are shorter. `paths` compares the written-out
CPU path with MLX's autograd, on the same steps of two records. With --busy, each run is also timed beside another
program that computes on one core, and its time is given as a multiple of that alone.

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
from beside import busy_loop

from callwright.runtime import provenance
from callwright.runtime.files import read_json, write_json

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "bench.json"
PEER, WHOLE, SHARED = "mlx-lm", "callwright, each record whole", "callwright, shared beginnings"
ALONE = "callwright, under own lists"
BUSY = ", a core taken"
AUTOGRAD, WRITTEN_OUT = "callwright, autograd", "callwright, written out"
WORK = {
    "smollm2": lambda given: work.smollm2(given.records, given.count, given.epochs),
    "gemma": lambda given: work.gemma(given.blocks, 4, given.epochs),
    "own-tools": lambda given: work.own_tools(max(64, given.count), given.epochs),
    "lists": lambda given: work.lists(given.records, max(64, given.count), given.epochs),
    "paths": lambda given: work.paths(given.model, given.records, given.count, given.epochs),
}


def variants(name: str, job: dict[str, Any], as_installed: bool) -> dict[str, dict[str, Any]]:
    """The runs of a job to compare, by name. mlx-lm's pace does not change with the epoch: one is enough."""
    steps = job["training"]["iterations"]
    epoch = min(steps, 3) if name == "gemma" else max(3, steps // 3)
    if name == "lists":
        changes = {"prefix_cache": "on"}
        runs = {
            WHOLE: {"script": "run_callwright.py", "steps": steps, "changes": {**changes, "share_prefix": "off"}},
            SHARED: {"script": "run_callwright.py", "steps": steps, "changes": changes},
        }
        return {ALONE: {**runs[SHARED], "rows": job["alone"]}, **runs} if "alone" in job else runs
    if name == "paths":
        run = {"script": "run_callwright.py", "steps": steps, "changes": {"prefix_cache": "off", "share_prefix": "off"}}
        return {AUTOGRAD: {**run, "autograd": True}, WRITTEN_OUT: run}
    if name == "own-tools":
        return {
            PEER: {"script": "run_mlx_lm.py", "as_installed": False, "checkpoint": False, "steps": min(steps, 3)},
            **variants("lists", job, as_installed),
        }
    found = {
        PEER: {"script": "run_mlx_lm.py", "as_installed": False, "checkpoint": False, "steps": epoch},
        "callwright, no cache": {"script": "run_callwright.py", "steps": epoch, "changes": {"prefix_cache": "off"}},
        "callwright, prefix cache": {"script": "run_callwright.py", "steps": steps, "changes": {"prefix_cache": "on"}},
    }
    if as_installed:
        found[f"{PEER}, as installed"] = {**found[PEER], "as_installed": True, "steps": 2}
    return found


def beside_a_busy_program(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each run alone, and then with one core taken by another program."""
    return {name + BUSY * busy: {**variant, "busy": busy} for name, variant in runs.items() for busy in (False, True)}


def measure(job: dict[str, Any], name: str, variant: dict[str, Any]) -> dict[str, Any]:
    """One run in a process of its own; what it measured."""
    folder = work.FOLDER / job["name"]
    path, out = folder / "job.json", folder / "result.json"
    write_json(path, {**job, **variant})
    print(f"\n{job['name']}: {name}", flush=True)
    with open(folder / "log.txt", "ab") as log, busy_loop(variant.get("busy", False)):
        subprocess.run([sys.executable, HERE / variant["script"], path, out], check=True, stdout=log, stderr=log)
    found = read_json(out)
    peer = variant["script"] == "run_mlx_lm.py"
    timed = found["steps"][1:] if peer else found["steps"]
    # Where beginnings are shared, batches are put together in another way, and the run itself says what it trained.
    tokens = job["trained"][1 : len(found["steps"])] if peer else [step["tokens"] for step in timed]
    seconds = found.get("prefix_seconds", 0) + sum(step["seconds"] for step in timed)
    found["tokens_per_second"] = sum(tokens) / seconds
    found["examples_per_second"] = job["training"]["batch_size"] * len(timed) / seconds
    found["rows"] = variant.get("rows", job["rows"])
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

    That is None where the steps are of other batches. A run beside a busy program has the `time` that it takes, of that
    of the same run alone.
    """
    rows = {}
    first = next(iter(runs))
    reference = runs[first][0]
    for name, results in runs.items():
        rows[name] = {
            key: statistics.median(result[key] for result in results)
            for key in ("tokens_per_second", "examples_per_second", "above_weights_gb", "peak_gb", "process_gb")
        }
        same = list(zip(results[0]["steps"], reference["steps"], strict=False))
        others = any(a["tokens"] != b.get("tokens", a["tokens"]) for a, b in same if "tokens" in a)
        others = others or results[0]["rows"] != reference["rows"]
        apart = (abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in same)
        rows[name]["loss_difference"] = None if others else max(apart)
        rows[name]["turns"] = [result["tokens_per_second"] for result in results]
        share = results[0].get("summary", {}).get("sgemm_share")
        if share is not None:
            rows[name]["sgemm_share"] = share
    for row in rows.values():
        row["speed"] = row["tokens_per_second"] / rows[first]["tokens_per_second"]
        row["memory"] = row["above_weights_gb"] / rows[first]["above_weights_gb"]
    for name in [name for name in rows if name + BUSY in rows]:
        rows[name + BUSY]["time"] = rows[name]["tokens_per_second"] / rows[name + BUSY]["tokens_per_second"]
    return {"training": job["training"], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=["smollm2", "gemma"])
    parser.add_argument("--records", type=Path, help="a file in xLAM's format; without it, the built-in toolset")
    parser.add_argument("--model", type=Path, default=work.QWEN, help="the converted model of the work `paths`")
    parser.add_argument("--count", type=int, default=24, help="records of SmolLM2's work; 64 at least in lists")
    parser.add_argument("--epochs", type=int, default=3, help="passes over them")
    parser.add_argument("--blocks", type=int, default=26, help="blocks of the Gemma-shaped model")
    parser.add_argument("--turns", type=int, default=3, help="runs of each trainer")
    parser.add_argument("--without", nargs="+", default=[], help="runs to leave out, by name, as in `--without mlx-lm`")
    parser.add_argument("--busy", action="store_true", help="each run once more beside a busy loop, which takes a core")
    parser.add_argument("--as-installed", action="store_true", help="also mlx-lm with the BLAS that pip installs: slow")
    arguments = parser.parse_args()
    results = read_json(OUT)["work"] if OUT.exists() else {}
    if "paths" in arguments.work and not arguments.records:
        parser.error("the work `paths` needs --records")
    for name in arguments.work:
        job = WORK[name](arguments)
        runs: dict[str, list] = {}
        for turn in range(arguments.turns):
            found = variants(name, job, arguments.as_installed and turn == 0)
            chosen = {label: variant for label, variant in found.items() if label not in arguments.without}
            for label, variant in (beside_a_busy_program(chosen) if arguments.busy else chosen).items():
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
            f"  {'':44}{'tokens/s':>10}{'examples/s':>12}{'speed':>8}"
            f"{'GB above weights':>18}{'memory':>8}{'loss apart':>12}",
        ]
        for label, row in result["rows"].items():
            apart = "" if row["loss_difference"] is None else f"{row['loss_difference']:.1e}"
            lines.append(
                f"  {label:44}{row['tokens_per_second']:10.1f}{row.get('examples_per_second', 0):12.2f}"
                f"{row['speed']:7.2f}x{row['above_weights_gb']:18.2f}{row['memory']:7.2f}x{apart:>12}"
            )
        for label, row in result["rows"].items():
            if "time" in row:
                lines.append(f"  {label}: {row['time']:.2f} times the time alone")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
