"""Score answers that are stored in a file: each through the funnel, shares with 95 % Wilson intervals.

EXAMPLES holds the items, in example, xLAM, OpenAI, ShareGPT or BFCL format. GENERATIONS holds one JSON
object a line: `id` and `text`, and if known `condition`, `suite` and `finish_reason`. No model is needed.
"""

import argparse
from pathlib import Path
from typing import Any

from callwright.commands import shared

EXAMPLES = """examples:
  callwright score --examples test.jsonl --generations answers.jsonl
  callwright score --examples results/default/data/test_seen.jsonl \\
      --generations results/default/evaluation/test_seen/tuned/generations.jsonl --out scored

With --out, DIR gets <suite>/<condition>/scores.jsonl (a row per item: stage reached, error) and scores.json.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--examples", metavar="FILE", required=True, help="the items, with their expected calls")
    parser.add_argument("--generations", metavar="FILE", required=True, nargs="+", help="answers; one file or several")
    parser.add_argument(
        "--condition", metavar="NAME", action="append", default=[], help="only this condition's answers"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at an example whose expected calls break its tools; else it is left out",
    )
    parser.add_argument("--out", metavar="DIR", help="write the scores there, item by item")


def run(options: argparse.Namespace) -> int:
    """Score, print a table for each suite, and write the rows if asked to."""
    from callwright.commands.answers import by_suite, read_generations, read_items
    from callwright.evals.scoring.score import score_all, summarize
    from callwright.runtime.files import write_json, write_jsonl

    shared.quiet_logs()
    items = read_items(options.examples, options.strict)
    examples, ids = items.examples, items.ids
    suite = shared.name_of(options.examples)
    rows = read_generations(options.generations, suite, items)
    blocks = []
    for suite, by_condition in by_suite(rows, options.condition).items():
        summaries = {}
        for condition, answers in by_condition.items():
            scores = score_all(examples, answers)
            summaries[condition] = summarize(scores)
            if options.out:
                folder = Path(options.out, suite, condition)
                write_jsonl(folder / "scores.jsonl", scores)
                write_json(folder / "scores.json", summaries[condition])
            if len(answers) < len(ids):
                missing = sorted(ids - {row["id"] for row in answers})
                shared.note(f"{suite}, {condition}: {len(missing)} of {len(ids)} items are not answered and left out "
                            f"of all shares: {shared.some(missing)}")  # fmt: skip
        blocks.append(f"{suite}\n\n{funnel_text(summaries)}")
    print("\n\n\n".join(blocks))
    if options.out:
        print(f"\nwritten: {options.out}/<suite>/<condition>/scores.jsonl and scores.json")
    return 0


def funnel_text(summaries: dict[str, dict[str, Any]]) -> str:
    """Stages, kinds of items and errors as aligned tables, a column for each condition."""
    from callwright.evals.scoring.failure_labels import LABELS
    from callwright.evals.scoring.score import STAGES

    conditions = list(summaries)
    right = range(1, len(conditions) + 1)
    stages = [[name, *(cell(s["counts"][name], s["n"]) for s in summaries.values())] for name in STAGES]
    stages.append(["(lenient_ast)", *(cell(s["counts"]["lenient_ast"], s["n"]) for s in summaries.values())])
    parts = [shared.table(["stage", *conditions], stages, right)]
    kinds = [
        [kind, *(cell(s["kinds"][kind]["counts"]["ast"], s["kinds"][kind]["n"]) for s in summaries.values())]
        for kind in next(iter(summaries.values()))["kinds"]
    ]
    parts.append(shared.table(["ast by calls", *conditions], kinds, right))
    labels = [label for label in LABELS if any(label in s["errors"] for s in summaries.values())]
    if labels:
        rows = [[label, *(s["errors"].get(label, 0) for s in summaries.values())] for label in labels]
        parts.append(shared.table(["first error", *conditions], rows, right))
    return "\n\n".join(parts)


def cell(k: int, n: int) -> str:
    """`49 of 100, 49.0 % [39.4, 58.7]`."""
    from callwright.evals.statistics import wilson

    if not n:
        return "–"
    low, high = wilson(k, n)
    return f"{k} of {n}, {100 * k / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
