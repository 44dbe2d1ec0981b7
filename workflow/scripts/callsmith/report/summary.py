"""`summary.json`: everything that a run measured, in one file, from the files that its rules wrote."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from callsmith.evals.statistics import paired_difference
from callsmith.report.html import percent
from callsmith.runtime import provenance
from callsmith.runtime.files import read_jsonl

SUITE_TITLES = {
    "test_seen": "known tools, new requests",
    "test_unseen_tools": "tools never seen in training",
    "bfcl_simple_python": "BFCL v4: one function on offer, one call",
    "bfcl_multiple": "BFCL v4: several functions on offer, one call",
    "bfcl_parallel": "BFCL v4: one function on offer, several calls",
    "bfcl_parallel_multiple": "BFCL v4: several functions on offer, several calls",
    "bfcl_irrelevance": "BFCL v4: no function fits",
    "bfcl_live_simple": "BFCL v4, from users: one function on offer, one call",
    "bfcl_live_multiple": "BFCL v4, from users: several functions on offer, one call",
    "bfcl_live_parallel": "BFCL v4, from users: one function on offer, several calls",
    "bfcl_live_parallel_multiple": "BFCL v4, from users: several functions on offer, several calls",
    "bfcl_live_irrelevance": "BFCL v4, from users: no function fits",
    "bfcl_live_relevance": "BFCL v4, from users: some call is right, whichever",
}


def summarize(
    config: dict[str, Any],
    model: dict[str, Any],
    split: dict[str, Any],
    ledger: dict[str, Any],
    training: dict[str, Any],
    scores: Mapping[str, Mapping[str, dict[str, Any]]],
    rows: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]],
    examples: Mapping[str, Sequence[Any]],
    benchmarks: Iterable[str | Path],
) -> dict[str, Any]:
    """The summary of one run.

    config: the run's resolved configuration. model: `model.json`. split: the split's manifest. ledger: the
    curation's. training: `training.json`. scores and rows: by suite and condition, what `evals.score.summarize`
    returned and the score rows behind it. examples: by suite, its examples. benchmarks: Snakemake's
    benchmark files, named after their rules.

    `comparison[suite]` is `evals.statistics.paired_difference` of the AST match, base against tuned, resampled
    by the first tool that an item calls (or offers, if none is to be called); absent unless both ran.
    """
    measured = {Path(path).stem: read_benchmark(path) for path in benchmarks}
    training = dict(training)
    return {
        "run": config["runs"][0],
        "model": {key: model.get(key) for key in ("name", "licence", "parameters", "parameters_by_bits", "layers")}
        | {"source": model.get("source")},
        "device": training.pop("device"),
        "versions": provenance.versions(),
        "seconds": {name: found["s"] for name, found in measured.items()},
        "process_memory_gb": {name: round(found["max_rss"] * 2**20 / 1e9, 3) for name, found in measured.items()},
        "data": {"sizes": split["sizes"], "kinds": split["kinds"], "held_out_tools": split["held_out_tools"]}
        | {"ledger": ledger, "audit": split["audit"]},
        "training": training,
        "evaluation": {suite: dict(by_condition) for suite, by_condition in scores.items()},
        "comparison": {
            suite: compare(rows[suite]["base"], rows[suite]["tuned"], examples[suite])
            for suite in rows
            if {"base", "tuned"} <= rows[suite].keys()
        },
        "config": config,
    }


def evaluation_rows(paths: Iterable[str | Path]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The rows of files named `…/<suite>/<condition>/<name>`, by suite and condition."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for path in map(Path, paths):
        found.setdefault(path.parts[-3], {})[path.parts[-2]] = list(read_jsonl(path))
    return found


def read_benchmark(path: str | Path) -> dict[str, float]:
    """Seconds (`s`) and peak resident memory in MiB (`max_rss`) of a job; 0 for what Snakemake could not measure."""
    with open(path, encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream, delimiter="\t"))
    return {key: number(row[key]) for key in ("s", "max_rss")}


def number(text: str) -> float:
    """A number of a benchmark file; jobs of a moment have `-` or `NA` where nothing was measured."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def compare(base: Sequence[dict[str, Any]], tuned: Sequence[dict[str, Any]], examples: Sequence[Any]) -> dict[str, Any]:
    """`paired_difference` of the AST match over the items that both conditions answered."""
    after = {row["id"]: row["ast"] for row in tuned}
    tool = {e.id: e.calls[0]["name"] if e.calls else e.tool_names[0] for e in examples}
    paired = [row for row in base if row["id"] in after]
    return paired_difference(
        [row["ast"] for row in paired],
        [after[row["id"]] for row in paired],
        clusters=[tool[row["id"]] for row in paired],
    )


def answer(summary: dict[str, Any]) -> list[str]:
    """The research question answered: one computed sentence for each suite that base and tuned were compared on."""
    sentences = []
    for suite, found in summary["comparison"].items():
        low, high = found["ci95"]
        p = "p < 0.001" if found["p_value"] < 0.001 else f"p = {found['p_value']:.3f}"
        verdict = "raised" if low > 0 else "lowered" if high < 0 else "did not measurably change"
        sentences.append(
            f"On {found['n']} items of {suite} ({SUITE_TITLES.get(suite, 'a file')}), fine-tuning {verdict} the share "
            f"of correct answers: {percent(found['base'])} before, {percent(found['tuned'])} after, a difference of "
            f"{100 * found['difference']:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f}, "
            f"exact McNemar {p})."
        )
    return sentences
