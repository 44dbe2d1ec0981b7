"""The tables of what was answered: the matrix, comparisons, the funnel, robustness, judge, cost and audit.

Each function takes a part of `summary.json` and returns None where the run has no such numbers, so that the page
leaves the section out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from callwright.evals.conditions import CONDITIONS
from callwright.evals.statistics import wilson
from callwright.report.html import percent
from callwright.report.result_figures import conditions_of
from callwright.report.summary import SUITE_TITLES
from callwright.report.tables import Cell, Table, interval, number, p_value, words
from callwright.runtime.logs import duration
from callwright.runtime.peers import about, peer_of

STAGE_MEANINGS = {
    "terminated": "the model ended its answer itself",
    "native_parse": "well-formed calls as a server reads them, none malformed",
    "known_tools": "only tools that were offered",
    "schema_valid": "arguments satisfy the tools' JSON Schema",
    "names": "the right tools, each as often as expected",
    "ast": "the right tools with the right arguments, in any order: correct",
    "exact": "equal to the letter",
    "lenient_ast": "beside the funnel: correct in whatever wrapper",
}

OUTCOMES = {"abstained": "abstained", "malformed": "malformed attempt", "called": "called"}

Found = Mapping[str, Mapping[str, dict[str, Any]]]
Entries = Sequence[Mapping[str, Any]]


def suite_cell(suite: str) -> Cell:
    """A suite's name with what it holds."""
    return Cell(suite, SUITE_TITLES.get(suite, "" if suite.startswith("robust_") else "a file"))


def with_bounds(share: float | None, bounds: Sequence[float]) -> Cell:
    """A share, its interval below it."""
    low, high = (100 * bound for bound in bounds)
    return Cell(percent(share), "" if share is None else f"[{low:.1f}, {high:.1f}]")


def gain(found: Mapping[str, Any], more: str = "") -> Cell:
    """A difference in points, its 95 % interval below it."""
    low, high = (100 * bound for bound in found["ci95"])
    return Cell(f"{100 * found['difference']:+.1f}", f"[{low:+.1f}, {high:+.1f}]{more}")


def conditions(found: Found, peers: Mapping[str, Any] | None = None) -> Table:
    """What each condition is. peers: the config's `evaluation.peers`."""
    rows = [[name, about_condition(name, peers or {})] for name in conditions_of(found)]
    return Table(["condition", "what answers"], rows, (0, 1))


def about_condition(name: str, peers: Mapping[str, Any]) -> str:
    """One line about a condition."""
    if peer_of(name):
        return about(name, peers)
    return CONDITIONS[name].about if name in CONDITIONS else ""


def by_suite(found: Found, cell: Callable[[dict[str, Any]], str | Cell], caption: str) -> Table:
    """Suites down, conditions across: `cell` of each result, a dash where a condition did not answer a suite."""
    conditions = conditions_of(found)
    rows = [
        [suite_cell(suite), str(max(result["n"] for result in of.values()))]
        + [cell(of[condition]) if condition in of else "–" for condition in conditions]
        for suite, of in found.items()
    ]
    return Table(["suite", "n", *conditions], rows, caption=caption)


def matrix(found: Found) -> Table | None:
    """The share of correct answers of each condition on each suite."""
    caption = "Correct answers (AST match) with 95 % Wilson intervals."
    return by_suite(found, lambda result: with_bounds(result["ast"], result["ast_ci95"]), caption) if found else None


def comparisons(found: Entries | None, planned: bool, peers: bool = False) -> Table | None:
    """The comparisons that were planned before the run; or of the others those with peers, or those without."""
    rows, chosen = [], [entry for entry in found or () if entry["planned"] == planned]
    for entry in chosen:
        if not planned and peers != any(peer_of(entry[end]) for end in ("from", "to")):
            continue
        clean = entry.get("clean")
        rows.append(
            [
                entry["suite"],
                f"{entry['from']} → {entry['to']}",
                str(entry["n"]),
                percent(entry["before"]),
                percent(entry["after"]),
                gain(entry),
                f"{entry['won']} : {entry['lost']}",
                p_value(entry["p_value"]),
                *([p_value(entry["p_holm"])] if planned else []),
                gain(clean, f", n = {clean['n']}") if clean else "–",
            ]
        )
    head = ["suite", "conditions", "n", "before", "after", "difference (points)", "won : lost", "p"]
    head += [*(["p, Holm"] if planned else []), "clean items alone"]
    caption = "Differences of the share of correct answers, over the items that both conditions answered."
    return Table(head, rows, words=(0, 1), caption=caption) if rows else None


def funnel(by_condition: Mapping[str, dict[str, Any]]) -> Table:
    """How many items of one suite pass each stage, by condition."""
    rows = []
    for stage, meaning in STAGE_MEANINGS.items():
        cells = []
        for result in by_condition.values():
            k, n = result["counts"][stage], result["n"]
            cells.append(Cell(f"{k} of {n}", interval(result[stage], wilson(k, n))))
        rows.append([Cell(words(stage), meaning), *cells])
    return Table(["stage", *by_condition], rows, key=[list(STAGE_MEANINGS).index("ast")])


def by_kind(by_condition: Mapping[str, dict[str, Any]]) -> Table:
    """Correct answers of one suite by what an item expects."""
    results = by_condition.values()
    kinds = dict.fromkeys(kind for result in results for kind, part in result["kinds"].items() if part["n"])
    names = {"one": "one call", "several": "several calls", "none": "no call", "any": "some call, whichever"}
    rows = []
    for kind in kinds:
        parts = [result["kinds"].get(kind) or {"n": 0} for result in results]
        counts = [f"{part['counts']['ast']} of {part['n']}" if part["n"] else "" for part in parts]
        shares = [interval(part["ast"], part["ast_ci95"]) if part["n"] else "–" for part in parts]
        rows.append([names.get(kind, kind), *map(Cell, counts, shares)])
    return Table(["the item expects", *by_condition], rows)


def wrappers(found: Found) -> Table | None:
    """Correct as a server reads the answer, and in whatever wrapper: the format apart from the task."""
    caption = "Correct as a server reads the answer / in whatever wrapper the calls stand, and the gap in points."

    def cell(result: dict[str, Any]) -> Cell:
        native, lenient = result["ast"], result["lenient_ast"]
        return Cell(f"{100 * native:.1f} / {percent(lenient)}", f"gap {100 * (lenient - native):.1f}")

    return by_suite(found, cell, caption) if found else None


def calls_and_arguments(found: Found) -> Table | None:
    """Recall and precision of calls and of arguments, where the scores have them."""
    rows = []
    for suite, by_condition in found.items():
        for condition, result in by_condition.items():
            if result.get("calls"):
                parts = [result[what].get(key) for what in ("calls", "arguments") for key in ("recall", "precision")]
                rows.append([suite, condition, *map(percent, parts)])
    head = ["suite", "condition", "calls: recall", "calls: precision", "arguments: recall", "arguments: precision"]
    caption = "Recall: the share of what was expected. Precision: the share of what was given."
    return Table(head, rows, words=(0, 1), caption=caption) if rows else None


def abstention(found: Found) -> Table | None:
    """What became of the items that expect no call, where the scores say it."""
    rows = []
    for suite, by_condition in found.items():
        for condition, result in by_condition.items():
            outcomes = result.get("abstention") or {"n": 0}
            if n := outcomes["n"]:
                cells = [f"{outcomes[key]} ({percent(outcomes[key] / n, 0)})" for key in OUTCOMES]
                rows.append([suite, condition, str(n), *cells])
    caption = "Items that expect no call. A malformed attempt at a call, a cut answer and silence are no abstaining."
    return Table(["suite", "condition", "n", *OUTCOMES.values()], rows, words=(0, 1), caption=caption) if rows else None


def decision(found: dict[str, Any] | None) -> Table | None:
    """The threshold that validation items gave (`evals.threshold.fit`), and what it does to them."""
    if not found or not found["curve"]:
        return None
    shares = ("calls_kept", "false_calls", "balanced_accuracy", "at_half", "best")
    share = {key: percent(found[key], 0) for key in shares}
    error, raw = percent(found["calibration_error"], 1), percent(found["raw_calibration_error"], 1)
    rows = [
        ["validation items, of which want a call", f"{found['items']}, {found['calls']}"],
        ["threshold; temperature", f"{found['threshold']:.2f}; {found['temperature']:.2f}"],
        ["calls kept; false calls", f"{share['calls_kept']}; {share['false_calls']}"],
        ["balanced accuracy; with 0.5; at best", f"{share['balanced_accuracy']}; {share['at_half']}; {share['best']}"],
        ["calibration error; without the temperature", f"{error}; {raw}"],
    ]
    if encoder := found.get("tool_encoder"):
        rows.append(["tool encoder: weight", f"{encoder['weight']:g}"])
    caption = "As `tuned_threshold` and `tuned_served` answer, and the server. Fitted on validation items alone."
    return Table(["", "value"], rows, caption=caption)


def errors(found: Found) -> Table | None:
    """The first thing that went wrong with an item, counted over all suites, by condition."""
    conditions = conditions_of(found)
    counts: dict[str, dict[str, int]] = {}
    for by_condition in found.values():
        for condition, result in by_condition.items():
            for label, count in result["errors"].items():
                of = counts.setdefault(label, dict.fromkeys(conditions, 0))
                of[condition] += count
    ordered = sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    rows = [[words(label), *map(str, of.values())] for label, of in ordered]
    return Table(["first error of an item", *conditions], rows) if rows else None


def robustness(found: Entries | None) -> Table | None:
    """What changing the items costs."""
    rows = [
        [
            words(entry["change"]), entry["condition"], str(entry["n"]), percent(entry["clean"]),
            percent(entry["changed"]), gain({**entry, "difference": entry["drop"]}), percent(entry["consistency"]),
            p_value(entry["p_value"]), p_value(entry.get("p_holm")),
        ]
        for entry in found or ()
    ]  # fmt: skip
    head = ["change", "condition", "n", "clean", "changed", "drop (points)", "consistent", "p", "p, Holm"]
    caption = "Each changed item is paired with its clean one. Consistent: both right or both wrong."
    return Table(head, rows, words=(0, 1), caption=caption) if rows else None


def judge(found: Mapping[str, Any] | None) -> Table | None:
    """What a language model says of differing text values, by suite and condition."""
    rows = []
    for suite, by_condition in (found or {}).get("suites", {}).items():
        for condition, of in by_condition.items():
            counts = [str(of[key]) for key in ("asked", "same", "different", "undecided")]
            rows.append([suite, condition, str(of["n"]), percent(of["ast"] / of["n"] if of["n"] else None)]
                        + [*counts, percent(of["with_judge"])])  # fmt: skip
    head = ["suite", "condition", "n", "correct", "asked", "same", "different", "undecided", "if the judge counted"]
    return Table(head, rows, words=(0, 1)) if rows else None


def executed(found: Mapping[str, Any] | None) -> list[Table]:
    """How many tasks were solved when the calls were carried out, by condition, and why the others were not."""
    by_condition = {condition: of for condition, of in (found or {}).items() if condition != "comparison"}
    if not by_condition:
        return []
    results = by_condition.values()
    rows = [[Cell("all tasks", style="key"), *(solved(of) for of in results)]]
    for part, title in (("by_tools", "tools: "), ("by_wants", "wanted: "), ("by_domain", "")):
        for name in dict.fromkeys(name for of in results for name in of.get(part) or ()):
            parts = [(of.get(part) or {}).get(name) for of in results]
            rows.append([title + words(name), *(solved(share) if share else "–" for share in parts)])
    tables = [Table(["tasks", *by_condition], rows, caption="Tasks that left the world as it should be.")]
    labels = dict.fromkeys(label for of in results for label in of.get("failures") or ())
    if labels:
        counts = [[words(label), *(str(of["failures"].get(label, 0)) for of in results)] for label in labels]
        tables.append(Table(["why not", *by_condition], counts))
    return tables


def solved(share: Mapping[str, Any]) -> Cell:
    """How many of the tasks, with the interval."""
    return Cell(f"{share['count']} of {share['n']}", interval(share["success"], share["ci95"]) if share["n"] else "")


def answer_cost(found: Found | None) -> Table | None:
    """What answers cost, by suite and condition."""
    rows = []
    for suite, by_condition in (found or {}).items():
        for condition, of in by_condition.items():
            cut, n = of.get("length_stops"), of["n"]
            rows.append(
                [
                    suite, condition, str(n), number(of.get("prompt_tokens_per_item"), 0),
                    number(of.get("output_tokens_per_item")), number(of.get("output_tokens_per_call")),
                    number(of.get("latency_p50"), 1, "s"), number(of.get("latency_p95"), 1, "s"),
                    number(of.get("tokens_per_second")), "–" if not of.get("seconds") else duration(of["seconds"]),
                    "–" if cut is None or not n else f"{cut} ({percent(cut / n, 0)})",
                    number(of.get("peak_memory_gb"), 2, "GB"), str(of.get("batch_size") or "–"),
                ]
            )  # fmt: skip
    head = ["suite", "condition", "items", "prompt tokens", "output tokens", "… per call", "latency p50", "p95",
            "tokens/s", "time", "cut by length", "peak memory", "batch"]  # fmt: skip
    caption = "Tokens are means per item. Latency is from the start of an item's batch to its answer's end. "
    caption += "Peers are asked one by one, and count tokens in their own way."
    return Table(head, rows, words=(0, 1), caption=caption) if rows else None


def audit(found: Mapping[str, Mapping[str, Any]] | None) -> Table | None:
    """Each check of each suite with its verdict."""
    style = {"ok": "right", "failed": "wrong"}
    rows = [
        [suite, words(finding["check"]), Cell(finding["verdict"], style=style.get(finding["verdict"], "")),
         Cell(finding["about"], ", ".join(finding["items"][:10]) + (" …" if len(finding["items"]) > 10 else ""))]
        for suite, of in (found or {}).items()
        for finding in of["findings"]
    ]  # fmt: skip
    return Table(["suite", "check", "verdict", "what was found"], rows, words=(0, 1, 2, 3)) if rows else None
