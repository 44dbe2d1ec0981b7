"""What corrections taught: how many there are, those kept back before and after, and what else changed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from callwright.data.own_suites import CORRECTIONS
from callwright.report.comparisons import compare
from callwright.report.html import percent
from callwright.report.tables import Table, p_value

Rows = Sequence[dict[str, Any]]


def taught(
    ledger: Mapping[str, Any],
    examples: Mapping[str, Sequence[Any]],
    after: Mapping[str, Rows],
    before: Mapping[str, Rows],
) -> dict[str, Any]:
    """The numbers of the report's section.

    ledger: `corrections.json`. examples: by suite, its items. after: score rows of the fine-tuned model, by suite.
    before: those of the adapter that training went on from; none where it began anew.

    `days` counts the corrections by day and use, `rejected` the lines left out by rule, `kept_back` those answered
    correctly now (`right` of `n`), `before` as many of them as the last adapter did, and `others` the paired
    differences (`evals.statistics.paired_difference`) on every other suite that both adapters answered.
    """
    days: dict[str, Counter[str]] = {}
    for row in ledger["corrections"]:
        days.setdefault(row["time"][:10] or "undated", Counter())[row["used"]] += 1
    now = {row["id"]: bool(row["ast"]) for row in after.get(CORRECTIONS, ())}
    then = {row["id"]: bool(row["ast"]) for row in before.get(CORRECTIONS, ()) if row["id"] in now}
    others = []
    for suite, rows in after.items():
        if suite != CORRECTIONS and suite in before and (made := compare(before[suite], rows, examples[suite])):
            others.append({"suite": suite, **made})
    return {
        "file": ledger["file"],
        "repeat": ledger["repeat"],
        "trained": ledger["trained"],
        "held_back": ledger["kept_back"],
        "days": [{"day": day, **counts} for day, counts in sorted(days.items())],
        "rejected": dict(Counter(row["rule"] for row in ledger["rejected"])),
        "kept_back": {"n": len(now), "right": sum(now.values())},
        "before": {"n": len(then), "right": sum(then.values()), "right_now": sum(now[key] for key in then)},
        "others": others,
    }


def tables(found: Mapping[str, Any] | None) -> list[Table]:
    """The tables of the section; none without corrections."""
    if not found or not (found["days"] or found["rejected"]):
        return []
    uses = ("trained", "test", "left out")
    rows = [[row["day"], *(str(row.get(use, 0)) for use in uses)] for row in found["days"]]
    made = [Table(["corrections of", "trained", "kept back as a test", "left out"], rows,
                  caption=f"Each trained one stands {found['repeat']} times among the training examples.")]  # fmt: skip
    if found["rejected"]:
        lines = [[rule.replace("_", " "), str(count)] for rule, count in found["rejected"].items()]
        made.append(Table(["lines that do not count", "lines"], lines))
    kept, then = found["kept_back"], found["before"]
    if kept["n"]:
        lines = []
        if then["n"]:
            lines.append([f"by the adapter before ({then['n']} of them were there)", f"{then['right']} of {then['n']}"])
            lines.append(["the same ones now", f"{then['right_now']} of {then['n']}"])
        lines.append(["now", f"{kept['right']} of {kept['n']}"])
        made.append(Table(["corrections that were never trained", "answered correctly"], lines,
                          caption="When they were made each was answered wrongly, as who made it said; "
                                  "that was not measured."))  # fmt: skip
    if found["others"]:
        made.append(Table(
            ["everything else", "items", "before", "after", "difference (95 % interval)", "p"],
            [[row["suite"], str(row["n"]), percent(row["before"]), percent(row["after"]),
              f"{100 * row['difference']:+.1f} [{100 * row['ci95'][0]:+.1f}, {100 * row['ci95'][1]:+.1f}]",
              p_value(row["p_value"])] for row in found["others"]],
            caption="The same items, answered by the adapter before and by this one; exact McNemar.",
        ))  # fmt: skip
    return made
