"""`data/report.html`: what a run learns from and is tested on, on one page of its own."""

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from callwright.chat.formats import to_json
from callwright.chat.view import describe
from callwright.data.records import normalize
from callwright.data.similarity import THRESHOLD, Index
from callwright.report.data_figures import draw_all, summary_of
from callwright.report.html import environment, rejection_rows
from callwright.runtime.files import listed

SHOWN = 20  # examples in full
FLAGGED_SHOWN = 3
TOOLS_SHOWN = 25

Sets = Mapping[str, Sequence[Any]]
Rows = Sequence[dict[str, Any]]


def render(
    run: str,
    settings: dict[str, Any],
    ledger: dict[str, Any],
    rejections: Rows,
    manifest: dict[str, Any],
    sets: Sets,
    tokens: Mapping[str, Rows],
    tokenizer: Any,
) -> str:
    """The page as HTML.

    settings: the run's `data` and `split`. ledger, rejections: the curation's. manifest: the split's. sets: the
    examples by set. tokens: by set, their token rows (`chat.tokens.tokenize_example`), in the same order.
    """
    lengths = {name: [len(row["input_ids"]) for row in rows] for name, rows in tokens.items()}
    trained = {name: [sum(b - a for a, b in row["spans"]) for row in rows] for name, rows in tokens.items()}
    return (
        environment()
        .get_template("data.html.jinja")
        .render(
            run=run,
            settings=settings,
            files=", ".join(listed(settings["data"]["path"])),
            ledger=ledger,
            manifest=manifest,
            sets=[set_row(name, found, lengths[name], trained[name]) for name, found in sets.items()],
            rejections=rejection_rows(ledger, rejections),
            flags=flag_rows(ledger["flags"], sets),
            figures=draw_all(lengths, trained, settings["data"]["max_tokens"], ledger["before"], ledger["after"]),
            tools=tool_rows(sets),
            tools_shown=TOOLS_SHOWN,
            tools_called=(ledger["before"]["tools_called"]["distinct"], ledger["after"]["tools_called"]["distinct"]),
            overlaps=overlap_rows(sets),
            threshold=THRESHOLD,
            audit={key: value for key, value in manifest["audit"].items() if isinstance(value, int | float)},
            shown=sample(sets, tokens, tokenizer, settings["data"]["seed"]),
        )
    )


def set_row(name: str, examples: Sequence[Any], lengths: Sequence[int], trained: Sequence[int]) -> dict[str, Any]:
    """One set in numbers: examples by kind, tools, and tokens."""
    kinds = Counter(example.kind for example in examples)
    return {
        "name": name,
        "examples": len(examples),
        "kinds": {kind: kinds[kind] for kind in ("one", "several", "none")},
        "tools": len({tool for example in examples for tool in example.tool_names}),
        "tokens": summary_of(lengths),
        "trained": summary_of(trained),
    }


def flag_rows(flags: Mapping[str, int], sets: Sets) -> list[dict[str, Any]]:
    """Each flag of the ledger with its count, and the first few examples that carry it."""
    rows = []
    for flag, count in sorted(flags.items(), key=lambda item: (-item[1], item[0])):
        carrying = (e for examples in sets.values() for e in examples if f"flag:{flag}" in e.tags)
        shown = [
            {"id": e.id, "query": e.query, "calls": [f"{c['name']} {to_json(c['arguments'])}" for c in e.calls]}
            for e in itertools.islice(carrying, FLAGGED_SHOWN)
        ]
        rows.append({"flag": flag, "count": count, "shown": shown})
    return rows


def tool_rows(sets: Sets) -> list[dict[str, Any]]:
    """Each tool, the most often called first: in how many examples of each set it is called and on offer."""
    called = {name: Counter(c["name"] for e in examples for c in e.calls) for name, examples in sets.items()}
    offered = {name: Counter(tool for e in examples for tool in e.tool_names) for name, examples in sets.items()}
    tools = {tool for found in offered.values() for tool in found}
    rows = [
        {"tool": tool, "called": {n: called[n][tool] for n in sets}, "offered": sum(offered[n][tool] for n in sets)}
        for tool in tools
    ]
    return sorted(rows, key=lambda row: (-sum(row["called"].values()), -row["offered"], row["tool"]))


def overlap_rows(sets: Sets) -> list[dict[str, Any]]:
    """For each two sets how much of the second the first has: requests, near copies of requests, tools."""
    indices: dict[str, Index] = {}
    for name, examples in sets.items():
        indices[name] = Index()
        for example in examples:
            indices[name].add(example.asked, example.id)
    requests = {name: {normalize(example.asked) for example in examples} for name, examples in sets.items()}
    tools = {name: {tool for e in examples for tool in e.tool_names} for name, examples in sets.items()}
    rows = []
    for one, other in itertools.combinations(sets, 2):
        near = [e.id for e in sets[other] if next(indices[one].near(e.asked), None) is not None]
        rows.append(
            {
                "sets": (one, other),
                "same": len(requests[one] & requests[other]),
                "near": len(near),
                "of": len(sets[other]),
                "tools": len(tools[one] & tools[other]),
                "of_tools": len(tools[other]),
            }
        )
    return rows


def sample(sets: Sets, tokens: Mapping[str, Rows], tokenizer: Any, seed: int) -> list[dict[str, Any]]:
    """Twenty examples, drawn by seed from all sets, as the model sees them."""
    places = [(name, number) for name, rows in tokens.items() for number in range(len(rows))]
    chosen = sorted(random.Random(f"{seed}/data page").sample(range(len(places)), min(SHOWN, len(places))))
    shown = []
    for name, number in (places[at] for at in chosen):
        example = sets[name][number]
        shown.append({"set": name, "tags": ", ".join(example.tags), **describe(tokenizer, tokens[name][number])})
    return shown
