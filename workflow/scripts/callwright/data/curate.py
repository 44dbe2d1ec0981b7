"""From records to the examples worth learning from; every record left out is counted under one rule.

The rules, in the order in which they are asked:

| rule | the record |
|---|---|
| unreadable, invalid_utf8, invalid_json, too_large, too_deep, not_finite | cannot be read as JSON |
| unknown_format, wrong_type, missing_field, no_answer, empty_query | is no example |
| not_trained | says of all that could be learnt that it is not to be (`weight: 0`, `train: false` …) |
| no_tools, bad_tool, duplicate_tool, unknown_type | has tools that cannot be offered |
| call_in_text | has a call in the assistant's words that cannot be read with certainty (`formats.spoken`) |
| unpaired_result | goes on after a call without its result, or a result without its call |
| unknown_tool, missing_argument, schema | makes a call that its own tools do not allow |
| encoding | has text that was decoded or cut wrongly (`text.damage`) |
| language | asks in another language than data.languages, as far as that can be told |
| duplicate | has the messages, tools and calls of an earlier one |
| duplicate_id | has the id of an earlier one |
| near_duplicate | asks what an earlier one asks in nearly the same words, for the same tools or in another pool |
| not_json, unreadable_answer, turn_token, template | cannot be written in the model's format |
| too_long | has more tokens than data.max_tokens |
| mixed_tools | lists tools held out for test_unseen_tools beside others, or repeats a request of theirs |
| not_sampled | was not needed |

Flags are counted, too, but reject nothing: `ungrounded` (an argument that the conversation does not hold,
`grounding`), `default_coerced` and `default_dropped` (defaults of the wrong type, `xlam`).
"""

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from callwright.data import coverage, negatives
from callwright.data.records import POOL_TEST, POOL_TRAIN, POOL_UNSEEN, POOL_VALID, Example, RecordError
from callwright.data.rules import CountTokens, CurationRules, Kept, check_length
from callwright.data.split import hold_out
from callwright.data.toolset.generate import apportion
from callwright.data.toolset.own_examples import POOL_KEPT, POOL_OWN
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import listed
from callwright.runtime.logs import Progress

log = logging.getLogger(__name__)

RULES = (
    "unreadable", "invalid_utf8", "invalid_json", "too_large", "too_deep", "not_finite",
    "unknown_format", "wrong_type", "missing_field", "no_answer", "not_trained", "empty_query",
    "no_tools", "bad_tool", "duplicate_tool", "unknown_type",
    "call_in_text", "unpaired_result", "unknown_tool", "missing_argument", "schema",
    "encoding", "language", "duplicate", "duplicate_id", "near_duplicate",
    "not_json", "unreadable_answer", "turn_token", "template", "too_long", "mixed_tools", "not_sampled",
)  # fmt: skip


def curate(
    records: Iterable[tuple[str, Example | RecordError]],
    settings: dict[str, Any],
    count_tokens: CountTokens | None = None,
) -> tuple[list[Example], list[dict[str, str]], dict[str, Any]]:
    """Apply the rules, sample data.examples of what is left, plus a share of split.unseen_tools, and make negatives.

    Returns the examples in the order of the records, the rejections (`{"id", "rule", "reason"}`), and the ledger:

        records_in, kept    numbers; records in = kept + rejected, always
        rejected            {rule: count} of the rules that rejected any
        rules               [{"rule", "rejected", "left"}] of all rules in their order; what is left after each
        files               {file: {"records_in", "kept", "rejected": {rule: count}}}, where the records are of files
        flags               {flag: count} of the kept
        negatives           {kind: count}: the kept ones that were made examples without a call (`negatives`)
        before, after       distributions of the usable records and of the kept ones (`coverage.Distribution`)

    `count_tokens` gives the length of prompt and answer; what it raises with a `rule` and `reason` of its
    own is a rejection too. Reads the keys data.{examples, max_tokens, seed, source, path}, split.{test,
    unseen_tools}, toolset, and where they are there data.{languages, near_duplicates, negatives}. Records are
    kept packed: 60,000 of them take about 200 MB. Raises CallwrightError when nothing is left.
    """
    data, shares = settings["data"], settings["split"]
    rejections: list[dict[str, str]] = []
    kept: list[Kept] = []
    rules = CurationRules(data, count_tokens)
    before = coverage.Distribution()
    records_in, of_files = 0, Counter[str]()
    progress = Progress("curate", 0, "records")  # how many a stream holds is known at its end
    for record_id, record in records:
        records_in += 1
        of_files[_file(record_id)] += 1
        progress.advance(1, f"{len(kept)} of them usable")
        try:
            if isinstance(record, RecordError):
                raise record
            kept.append(rules.check(record_id, record))
            before.add(record, ["ungrounded"] * kept[-1].flagged)
        except RecordError as error:
            rejections.append(_rejection(record_id, error.rule, error.reason))
    progress.done()
    if not kept:
        raise CallwrightError(_nothing_left(settings, records_in, rejections))

    # Of too few records, the unseen tools get their share too, not all that was meant for a thousand.
    seen_records = min(data["examples"], round(len(kept) / (1 + shares["unseen_tools"])))
    tests, unseen = round(data["examples"] * shares["test"]), round(seen_records * shares["unseen_tools"])
    pools, dropped = _pools(kept, [rules.union.root(entry.record_id) for entry in kept], data, unseen)
    wanted = {POOL_TRAIN: data["examples"] - tests, POOL_TEST: tests, POOL_UNSEEN: unseen}
    if POOL_VALID in pools:
        wanted[POOL_VALID] = round(data["examples"] * shares["valid"])
        wanted[POOL_TRAIN] -= wanted[POOL_VALID]
    if POOL_TEST not in pools:
        wanted = {POOL_TRAIN: data["examples"], POOL_UNSEEN: unseen}
    wanted |= {pool: pools.count(pool) for pool in (POOL_OWN, POOL_KEPT) if pool in pools}  # a user's own: all of them
    chosen = _sample(kept, pools, set(range(len(kept))) - dropped, wanted, data["seed"])
    for index, entry in enumerate(kept):
        if index in dropped:
            reason = "lists held-out tools beside others, or repeats a request"
            rejections.append(_rejection(entry.record_id, "mixed_tools", reason))
        elif index not in chosen:
            rejections.append(_rejection(entry.record_id, "not_sampled", "enough examples without it"))
    result = [entry.example(pools[index]) for index, entry in enumerate(kept) if index in chosen]
    result, made = _negatives(result, data, count_tokens)
    ledger = _ledger(records_in, result, rejections, before) | {"negatives": made}
    if data["source"] != "toolset":
        ledger["files"] = _by_file(of_files, rejections)
    log.info("curated: %d records in, %d kept, rejected: %s", records_in, len(result), ledger["rejected"] or "none")
    expected = data["examples"] + round(data["examples"] * shares["unseen_tools"])
    if len(result) < expected:
        log.warning("%d examples are fewer than the %d that were asked for", len(result), expected)
    return result, rejections, ledger


def _pools(
    kept: Sequence[Kept], groups: Sequence[Any], data: dict[str, Any], unseen: int
) -> tuple[list[str | None], set[int]]:
    """The pool of each record, and the indices of those that cannot be used for mixing tools."""
    pools = [entry.pool for entry in kept]
    if not unseen or POOL_TRAIN in pools or POOL_UNSEEN in pools:
        return pools, set()
    chosen, mixed, held = hold_out(kept, unseen, data["examples"], data["seed"], groups)
    log.info("held out %d tools: %d records list only them, %d are mixed", len(held), len(chosen), len(mixed))
    return [POOL_UNSEEN if index in chosen else pool for index, pool in enumerate(pools)], mixed


def _sample(
    kept: Sequence[Kept], pools: Sequence[str | None], allowed: set[int], wanted: dict[str, int], seed: int
) -> set[int]:
    """Indices of a sample: so many of each pool, its strata in proportion, each chosen for coverage."""
    rng = random.Random(f"{seed}/sample")
    strata: dict[str, dict[str, list[int]]] = {pool: defaultdict(list) for pool in wanted}
    for index, entry in enumerate(kept):
        if index in allowed:
            pool = pools[index] if pools[index] in wanted else POOL_TRAIN
            strata[pool][entry.stratum].append(index)
    chosen: set[int] = set()
    for pool, count in wanted.items():
        sizes = {stratum: float(len(found)) for stratum, found in sorted(strata[pool].items())}
        quotas = apportion(sizes, min(count, round(sum(sizes.values()))))
        for stratum, quota in quotas.items():
            found = [(index, kept[index].features) for index in strata[pool][stratum]]
            chosen |= set(coverage.choose(found, quota, rng))
    return chosen


def _negatives(
    examples: list[Example], data: dict[str, Any], count_tokens: CountTokens | None
) -> tuple[list[Example], dict[str, int]]:
    """The examples, with some made examples without a call, as data.negatives says; and how many of each kind."""
    share = data.get("negatives") or 0.0
    if not share or data["source"] == "toolset":  # a toolset has its own
        return examples, {}

    def fits(example: Example) -> bool:
        try:
            if count_tokens is not None:
                check_length(example, count_tokens, data["max_tokens"])
        except RecordError:
            return False
        return True

    return negatives.make(examples, share, data["seed"], fits)


def _ledger(
    records_in: int, kept: Sequence[Example], rejections: Sequence[dict[str, str]], before: coverage.Distribution
) -> dict[str, Any]:
    rejected = Counter(row["rule"] for row in rejections)
    steps, left = [], records_in
    for rule in [*RULES, *sorted(rejected.keys() - set(RULES))]:
        left -= rejected[rule]
        steps.append({"rule": rule, "rejected": rejected[rule], "left": left})
    after = coverage.Distribution(kept).to_row()
    return {
        "records_in": records_in,
        "kept": len(kept),
        "rejected": {step["rule"]: step["rejected"] for step in steps if step["rejected"]},
        "rules": steps,
        "flags": after["flags"],
        "before": before.to_row(),
        "after": after,
    }


def _file(record_id: str) -> str:
    """The name of the file that a record is of: what stands before the line's number in its id."""
    return record_id.rpartition(":")[0]


def _by_file(records_in: Counter[str], rejections: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What became of the records of each file; of each, records in = kept + rejected."""
    rejected: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rejections:
        rejected[_file(row["id"])][row["rule"]] += 1
    return {
        name: {"records_in": count, "kept": count - rejected[name].total(), "rejected": dict(rejected[name])}
        for name, count in records_in.items()
    }


def _rejection(record_id: str, rule: str, reason: str) -> dict[str, str]:
    return {"id": record_id, "rule": rule, "reason": reason}


def _nothing_left(settings: dict[str, Any], records_in: int, rejections: list[dict[str, str]]) -> str:
    data = settings["data"]
    paths = [settings.get("toolset")] if data["source"] == "toolset" else listed(data.get("path"))
    source = ", ".join(paths) or "the Hugging Face data set"
    if not records_in:
        return f"{source} holds no record: there is nothing to learn from"
    rules = Counter(row["rule"] for row in rejections).most_common(3)
    first = {rule: next(row for row in rejections if row["rule"] == rule) for rule, _ in rules}
    reasons = "; ".join(f"{rule} {count} times ({first[rule]['id']}: {first[rule]['reason']})" for rule, count in rules)
    return (
        f"{source}: none of its {records_in} records is usable. Most often: {reasons}. Check data.source and data.path"
    )
