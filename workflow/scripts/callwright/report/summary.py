"""`summary.json`: everything that a run measured, in one file, from the files that its rules wrote."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from callwright.evals.scoring import score
from callwright.report import comparisons
from callwright.report.cost import cost
from callwright.report.html import percent
from callwright.runtime import provenance
from callwright.runtime.peers import peer_of

LEVEL = 0.05  # of a p-value that counts as a difference
SUITE_TITLES = {
    "test_seen": "known tools, new requests",
    "test_unseen_tools": "tools never seen in training",
    "test_examples": "requests of your own that were kept back",
    "test_corrections": "corrections that were never trained",
    "executed": "tools whose functions run in a small world",
    "abstain": "pairs of which one wants a call and its twin none",
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
    generations: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]] | None = None,
    about: Mapping[str, Mapping[str, dict[str, Any]]] | None = None,
    audits: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The summary of one run.

    config: the run's resolved configuration. model: `model.json`. split: the split's manifest. ledger: the
    curation's. training: `training.json`. scores and rows: by suite and condition, what `evals.score.summarize`
    returned and the score rows behind it. examples: by suite, its examples. benchmarks: Snakemake's
    benchmark files, named after their rules. generations and about: by suite and condition, the answers and what
    `generate.json` says of them. audits: by suite, its `audit.json`. What an older run lacks is left out.

    `primary` is the comparison that the configuration declares; `comparisons` and `robustness` are those of
    `report.comparisons`, `cost[suite][condition]` that of `report.cost`. `first_items` (see there) is what config key
    `evaluation.also_first` asks for.
    """
    generations, about, audits = generations or {}, about or {}, audits or {}
    measured = {Path(path).stem: read_benchmark(path) for path in benchmarks}
    evaluation = config.get("evaluation", {})
    aim = comparisons.primary(evaluation)
    contaminated = {suite: audit.get("contaminated", []) for suite, audit in audits.items()}
    training = dict(training)
    device = training.pop("device")
    # The architecture's code that lies in the model's folder, because mlx-lm has none.
    own_code = [name for name in model.get("files", ()) if name.endswith(".py")]
    return {
        "run": config["runs"][0],
        "model": {
            key: model.get(key)
            for key in ("name", "license", "parameters", "parameters_by_bits", "layers", "chat_template", "call_format")
        }
        | {"source": model.get("source")}
        | {key: model[key] for key in ("marker_rows", "blocks", "tied_head") if key in model}
        | ({"model_file": own_code[0]} if own_code else {}),
        "device": device,
        "versions": provenance.versions(),
        "seconds": {name: found["s"] for name, found in measured.items()},
        "process_memory_gb": {name: round(found["max_rss"] * 2**20 / 1e9, 3) for name, found in measured.items()},
        "data": {"sizes": split["sizes"], "kinds": split["kinds"], "held_out_tools": split["held_out_tools"]}
        | {"ledger": ledger, "audit": split["audit"]},
        "training": training,
        "evaluation": {suite: dict(by_condition) for suite, by_condition in scores.items()},
        "primary": aim,
        "comparisons": comparisons.compare_all(evaluation, rows, examples, contaminated),
        "robustness": comparisons.robustness(rows, examples, aim["metric"]),
        "audit": dict(audits),
        "cost": {
            suite: {
                condition: cost(
                    answers,
                    rows.get(suite, {}).get(condition, ()),
                    {"batch_size": evaluation.get("batch_size"), **about.get(suite, {}).get(condition, {})},
                    measured.get(f"generate_{suite}_{condition}", {}).get("s"),
                )
                for condition, answers in by_condition.items()
            }
            for suite, by_condition in generations.items()
        },
        **first_items(evaluation.get("also_first"), rows),
        "config": config,
    }


def first_items(count: int | None, rows: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]) -> dict[str, Any]:
    """`{"first_items": {suite: {condition: as in evaluation}}}` of the first `count` items of each suite; {} for None.

    Rows come in the order of the suite's items, so that conditions are compared on the same ones.
    """
    if count is None:
        return {}
    return {
        "first_items": {
            suite: {condition: score.summarize(found[:count]) for condition, found in by_condition.items()}
            for suite, by_condition in rows.items()
        }
    }


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


def answer(summary: dict[str, Any]) -> str:
    """The research question answered: one computed sentence about the primary comparison, and what grammar alone does.

    "Raised" and "lowered" are said only where the 95 % interval leaves out 0 and the p-value, adjusted by Holm for
    all planned comparisons of the run, is below 0.05.
    """
    aim, made = summary["primary"], summary["comparisons"]
    pairs = {(entry["from"], entry["to"]): entry for entry in made if entry["suite"] == aim["suite"]}
    found = pairs.get((aim["from"], aim["to"]))
    if found is None:
        return (
            f"The primary comparison, {aim['from']} against {aim['to']} on {aim['suite']}, was not made: this run did "
            "not answer all of it."
        )
    planned = sum(entry["planned"] for entry in made)
    text = sentence(found, planned)
    grammar, learned = pairs.get((aim["from"], "base_grammar")), pairs.get(("base_grammar", aim["to"]))
    if grammar and learned:
        text += (
            f"; the grammar alone, without training, gets {percent(grammar['after'])}, {points(grammar)}, "
            f"and leaves {points(learned, planned)} to what was learned"
        )
    clean = found["clean"]
    if clean and clean["n"] < found["n"]:
        text += f"; on the {clean['n']} items that nothing in training resembles, the difference is {points(clean)}"
    return f"{text}."


def as_served(summary: dict[str, Any]) -> str:
    """What a user gets: a sentence about the answers of a server, on each suite that has them; "" where none has."""
    shares = [
        f"{percent(of['tuned_served']['ast'])} on {suite}"
        for suite, of in summary["evaluation"].items()
        if "tuned_served" in of
    ]
    if not shares:
        return ""
    return (
        "Served, under a grammar and the fitted threshold, with what a request says filled in by code and the rest "
        f"asked for, the fine-tuned model's answers are correct for {', '.join(shares)}."
    )


def sentences(summary: dict[str, Any]) -> list[str]:
    """A sentence of the same form for each suite that the primary comparison's conditions both answered."""
    aim, made = summary["primary"], summary["comparisons"]
    planned = sum(entry["planned"] for entry in made)
    return [
        f"{sentence(entry, planned if entry['planned'] else 0)}."
        for entry in made
        if (entry["from"], entry["to"]) == (aim["from"], aim["to"])
    ]


def against_peers(summary: dict[str, Any]) -> list[str]:
    """A sentence for each peer that answered the primary comparison's suite too: what the run's own model does there.

    That of a peer which is the primary comparison's is left out: it is the `answer`.
    """
    aim, made = summary["primary"], summary["comparisons"]
    planned = sum(entry["planned"] for entry in made)
    return [
        f"{sentence(entry, planned if entry['planned'] else 0)}."
        for entry in made
        if entry["suite"] == aim["suite"] and (entry["from"] != aim["from"] and entry["to"] == aim["to"])
        if peer_of(entry["from"])
    ]


def sentence(found: Mapping[str, Any], planned: int) -> str:
    """A comparison in words, without the full stop; `planned` is the number of p-values adjusted together, if any."""
    low, high = found["ci95"]
    p = found["p_value"] if found["p_holm"] is None else found["p_holm"]
    sure = p < LEVEL and not low <= 0 <= high
    verdict = "did not measurably change" if not sure else "raised" if low > 0 else "lowered"
    pair = found["from"], found["to"]
    what = "fine-tuning" if pair == ("base", "tuned") else f"going from {pair[0]} to {pair[1]}"
    first, then = "before", "after"
    if any(map(peer_of, pair)):
        what, first, then = f"asking {pair[1]} instead of {pair[0]}", f"of {pair[0]}", f"of {pair[1]}"
    share = "correct answers" if found["metric"] == "ast" else f"answers that pass `{found['metric']}`"
    return (
        f"On {found['n']} items of {found['suite']} ({SUITE_TITLES.get(found['suite'], 'a file')}), {what} {verdict} "
        f"the share of {share}: {percent(found['before'])} {first}, {percent(found['after'])} {then}, a difference of "
        f"{points(found, planned)}"
    )


def points(found: Mapping[str, Any], planned: int = 0) -> str:
    """`+32.0 points (95 % interval +20.4 to +43.9, exact McNemar p < 0.001)`, with Holm's p-value if `planned`."""
    low, high = (100 * bound for bound in found["ci95"])
    p = f"exact McNemar {p_text(found['p_value'])}"
    if planned > 1 and found["p_holm"] is not None:
        p += f", by Holm for {planned} planned comparisons {p_text(found['p_holm'])}"
    return f"{100 * found['difference']:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, {p})"


def p_text(p: float) -> str:
    """`p = 0.012`; `p < 0.001` for what is smaller."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
