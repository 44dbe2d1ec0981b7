"""Which condition beats which, and how sure that is: the planned comparisons of a run, and its robustness."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from callwright.evals.robustness.changes import change_of, clean_id
from callwright.evals.statistics import holm, paired_difference, tool_clusters
from callwright.runtime.peers import peer_of

# What `evaluation.primary` and `evaluation.comparisons` are in configurations that were stored without them.
PRIMARY = {"suite": "test_seen", "metric": "ast", "from": "base", "to": "tuned"}
PLANNED = (
    ("base", "tuned"),
    ("base_grammar", "tuned"),
    ("base_grammar", "tuned_grammar"),
    ("base_fewshot", "tuned"),
    ("tuned", "tuned_served"),
    ("tuned", "fused"),
)
CLEAN = "test_seen"  # the suite whose items the changed ones were made from

Rows = Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]


def primary(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """The comparison that answers the research question, as declared in the configuration before the run."""
    return {**PRIMARY, **evaluation.get("primary", {})}


def compare_all(
    evaluation: Mapping[str, Any],
    rows: Rows,
    examples: Mapping[str, Sequence[Any]],
    contaminated: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """All comparisons of a run's conditions on the same items, by suite; those of changed items have `robustness`.

    evaluation: the configuration's section (`primary`, `comparisons`). rows: score rows by suite and condition.
    examples: by suite. contaminated: by suite, the ids of items that training may have given away; a suite that was
    not audited is absent.

    An entry has `suite`, `from`, `to`, `metric` (that of the primary one), `planned`, and what `paired_difference`
    says of the items that both answered; `clustered_by` is what it resampled, and `p_holm` the p-value adjusted for
    all planned comparisons of the run (None for the others, from the primary one's `from` to each further condition,
    and from each peer to its `to`: they were not asked before the run, so their p-values prove nothing).
    `clean` has the same numbers without contaminated items; it is None for a suite that was not audited, and where no
    item is left.
    """
    aim = primary(evaluation)
    found = []
    for suite, by_condition in rows.items():
        if change_of(suite) is not None:
            continue
        for pair, planned in _pairs(evaluation, aim, suite, by_condition):
            before, after = (by_condition[condition] for condition in pair)
            made = compare(before, after, examples[suite], aim["metric"])
            if made is None:
                continue
            clean = None
            if suite in contaminated:
                clean = compare(before, after, examples[suite], aim["metric"], without=contaminated[suite])
            head = {"suite": suite, "from": pair[0], "to": pair[1], "metric": aim["metric"], "planned": planned}
            found.append({**head, **made, "p_holm": None, "clean": clean and {**clean, "p_holm": None}})
    wanted = [entry for entry in found if entry["planned"]]
    for group in (wanted, [entry["clean"] for entry in wanted if entry["clean"]]):
        for entry, adjusted in zip(group, holm([entry["p_value"] for entry in group]), strict=True):
            entry["p_holm"] = adjusted
    return found


def _pairs(
    evaluation: Mapping[str, Any], aim: Mapping[str, str], suite: str, answered: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, str], bool]]:
    """The pairs of answered conditions that are compared on a suite, each with whether it was planned."""
    planned = [tuple(pair) for pair in evaluation.get("comparisons", PLANNED)]
    first = [(aim["from"], aim["to"])] if suite == aim["suite"] else []
    planned = list(dict.fromkeys(first + planned))
    others = [
        (condition, aim["to"]) if peer_of(condition) and condition != aim["to"] else (aim["from"], condition)
        for condition in answered
        if condition != aim["from"]
    ]
    for pair in [*planned, *(pair for pair in others if pair not in planned)]:
        if pair[0] in answered and pair[1] in answered:
            yield pair, pair in planned


def compare(
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    examples: Sequence[Any],
    metric: str = "ast",
    without: Sequence[str] = (),
) -> dict[str, Any] | None:
    """`paired_difference` of a stage over the items that both conditions answered, resampled by tool component.

    without: ids of items that are left out. None where no item is left.
    """
    left_out, later = set(without), {row["id"]: row[metric] for row in after}
    earlier = {row["id"]: row[metric] for row in before if row["id"] in later and row["id"] not in left_out}
    items = [example for example in examples if example.id in earlier]
    if not items:
        return None
    clusters, by = tool_clusters(items)
    ids = [example.id for example in items]
    made = paired_difference([earlier[name] for name in ids], [later[name] for name in ids], clusters)
    return {**made, "clustered_by": by}


def robustness(rows: Rows, examples: Mapping[str, Sequence[Any]], metric: str = "ast") -> list[dict[str, Any]]:
    """What changing the items costs: each suite of changed items against its clean ones in test_seen, by condition.

    An entry has `change`, `suite`, `condition`, `n` (pairs that were both answered), `clean` and `changed` (shares of
    correct answers), `drop` (clean - changed) with `ci95` and `p_value` as of `paired_difference`, `p_holm` (adjusted
    for all entries), `consistency` (the share of pairs that are both right or both wrong), and `kept` (of the items
    right when clean, the share still right when changed; None where none was right).
    """
    found = []
    for suite, by_condition in rows.items():
        if change_of(suite) is None:
            continue
        origin = {example.id: clean_id(example) for example in examples[suite]}
        for condition, scored in by_condition.items():
            # Under the names of the clean items, whose tools say which of them belong together.
            changed = [{**row, "id": origin[row["id"]]} for row in scored]
            clean = rows.get(CLEAN, {}).get(condition, ())
            made = compare(changed, clean, examples.get(CLEAN, ()), metric)
            if made is None:
                continue
            right = round(made["n"] * made["after"])
            found.append(
                {
                    "change": change_of(suite), "suite": suite, "condition": condition, "n": made["n"],
                    "clean": made["after"], "changed": made["before"], "drop": made["difference"],
                    "ci95": made["ci95"], "consistency": 1 - (made["won"] + made["lost"]) / made["n"],
                    "kept": 1 - made["won"] / right if right else None,
                    "p_value": made["p_value"], "clustered_by": made["clustered_by"],
                }
            )  # fmt: skip
    for entry, adjusted in zip(found, holm([entry["p_value"] for entry in found]), strict=True):
        entry["p_holm"] = adjusted
    return found
