"""From records to the examples worth learning from; every record left out is counted under one rule.

The rules, in the order in which they are asked:

| rule | the record |
|---|---|
| invalid_utf8, invalid_json, not_finite, too_large, too_deep | cannot be read as JSON |
| wrong_type, missing_field, empty_query, no_tools, bad_tool, duplicate_tool, unknown_type | is no example |
| unknown_tool, missing_argument, schema | makes a call that its own tools do not allow |
| duplicate_id | has the id of an earlier one |
| duplicate | has the request, tools and calls of an earlier one |
| near_duplicate | differs from an earlier one only in numbers and quoted parts, with the same tools and calls |
| too_long, turn_token ... | has too many tokens, or text that the model's format reserves |
| mixed_tools | lists tools held out for test_unseen_tools beside others |
| not_sampled | was not needed |
"""

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from callsmith.data.generate import apportion
from callsmith.data.records import (
    POOL_TEST,
    POOL_TRAIN,
    POOL_UNSEEN,
    Example,
    RecordError,
    normalize,
    skeleton,
)
from callsmith.data.split import hold_out
from callsmith.runtime.errors import CallsmithError
from callsmith.runtime.files import sha256_json

log = logging.getLogger(__name__)


def curate(
    records: Iterable[tuple[str, Example | RecordError]],
    settings: dict[str, Any],
    count_tokens: Callable[[Example], int] | None = None,
) -> tuple[list[Example], list[dict[str, str]], dict[str, Any]]:
    """Apply the rules and sample data.examples of what is left, plus a share of split.unseen_tools on top.

    Returns the examples in the order of the records, the rejections (`{"id", "rule", "reason"}`), and the
    ledger (`{"records_in", "kept", "rejected": {rule: count}}`): records in = kept + rejected, always.
    `count_tokens` gives the length of prompt and answer; what it raises with a `rule` and `reason` of its
    own is a rejection too. Reads the keys data.{examples, max_tokens, seed, source, path}, toolset and
    split.{test, unseen_tools}. Raises CallsmithError when nothing is left.
    """
    data, shares = settings["data"], settings["split"]
    rejections: list[dict[str, str]] = []
    kept: list[tuple[str, Example]] = []
    seen = _Seen()
    records_in = 0
    for record_id, record in records:
        records_in += 1
        try:
            if isinstance(record, RecordError):
                raise record
            seen.check(record_id, record)
            if count_tokens is not None:
                _check_length(record, count_tokens, data["max_tokens"])
        except RecordError as error:
            rejections.append(_rejection(record_id, error.rule, error.reason))
        else:
            kept.append((record_id, record))
    if not kept:
        raise CallsmithError(_nothing_left(settings, records_in, rejections))

    # Of too few records, the unseen tools get their share too, not all that was meant for a thousand.
    seen_records = min(data["examples"], round(len(kept) / (1 + shares["unseen_tools"])))
    tests, unseen = round(data["examples"] * shares["test"]), round(seen_records * shares["unseen_tools"])
    examples, dropped = _held_out([example for _, example in kept], data, unseen)
    wanted = {POOL_TRAIN: data["examples"] - tests, POOL_TEST: tests, POOL_UNSEEN: unseen}
    if not any(POOL_TEST in example.tags for example in examples):
        wanted = {POOL_TRAIN: data["examples"], POOL_UNSEEN: unseen}
    chosen = _sample(examples, set(range(len(examples))) - dropped, wanted, data["seed"])
    for index, (record_id, _) in enumerate(kept):
        if index in dropped:
            rejections.append(
                _rejection(record_id, "mixed_tools", "lists held-out tools beside others, or repeats a request")
            )
        elif index not in chosen:
            rejections.append(_rejection(record_id, "not_sampled", "enough examples without it"))
    result = [example for index, example in enumerate(examples) if index in chosen]
    ledger = {
        "records_in": records_in,
        "kept": len(result),
        "rejected": dict(Counter(row["rule"] for row in rejections)),
    }
    log.info("curated: %d records in, %d kept, rejected: %s", records_in, len(result), ledger["rejected"] or "none")
    expected = data["examples"] + round(data["examples"] * shares["unseen_tools"])
    if len(result) < expected:
        log.warning("%d examples are fewer than the %d that were asked for", len(result), expected)
    return result, rejections, ledger


class _Seen:
    """What earlier records were like."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.exact: dict[str, str] = {}
        self.near: dict[str, str] = {}

    def check(self, record_id: str, example: Example) -> None:
        """Remember the record; raises RecordError when an earlier one was the same."""
        tools = sorted(sha256_json(tool) for tool in example.tools)
        exact = sha256_json([normalize(example.query), example.messages[:-1], tools, example.calls])
        near = sha256_json([skeleton(example.query), example.messages[:-1], tools, example.calls])
        for rule, known, key in (
            ("duplicate", self.exact, exact),
            ("near_duplicate", self.near, near),
            ("duplicate_id", self.ids, example.id),
        ):
            if key in known:
                raise RecordError(rule, f"as in {known[key]}")
        self.exact[exact] = self.near[near] = self.ids[example.id] = record_id


def _check_length(example: Example, count_tokens: Callable[[Example], int], limit: int) -> None:
    try:
        tokens = count_tokens(example)
    except Exception as error:
        if not isinstance(getattr(error, "rule", None), str):
            raise
        raise RecordError(error.rule, str(getattr(error, "reason", error))) from error
    if tokens > limit:
        raise RecordError("too_long", f"{tokens} tokens, at most {limit} (data.max_tokens)")


def _held_out(examples: list[Example], data: dict[str, Any], unseen: int) -> tuple[list[Example], set[int]]:
    """The examples with their pools tagged, and the indices of those that cannot be used for mixing tools."""
    if not unseen or any(tag in (POOL_TRAIN, POOL_UNSEEN) for example in examples for tag in example.tags):
        return examples, set()
    chosen, mixed, held = hold_out(examples, unseen, data["examples"], data["seed"])
    log.info("held out %d tools: %d records list only them, %d are mixed", len(held), len(chosen), len(mixed))
    tagged = [
        replace(example, tags=(*example.tags, POOL_UNSEEN)) if index in chosen else example
        for index, example in enumerate(examples)
    ]
    return tagged, mixed


def _sample(examples: Sequence[Example], allowed: set[int], wanted: dict[str, int], seed: int) -> set[int]:
    """Indices of a sample: so many of each pool, its strata in proportion, and in each as many tools as can be."""
    rng = random.Random(f"{seed}/sample")
    strata: dict[str, dict[str, list[int]]] = {pool: defaultdict(list) for pool in wanted}
    for index, example in enumerate(examples):
        if index in allowed:
            pool = next((tag for tag in example.tags if tag in wanted), POOL_TRAIN)
            strata[pool][example.stratum].append(index)
    chosen: set[int] = set()
    for pool, count in wanted.items():
        sizes = {stratum: float(len(found)) for stratum, found in sorted(strata[pool].items())}
        quotas = apportion(sizes, min(count, round(sum(sizes.values()))))
        for stratum, quota in quotas.items():
            order = strata[pool][stratum]
            rng.shuffle(order)
            before: Counter[str] = Counter()
            rank = {}
            for index in order:  # the first example of each tool comes before the second of any
                tool = examples[index].calls[0]["name"] if examples[index].calls else ""
                rank[index] = before[tool]
                before[tool] += 1
            chosen |= set(sorted(order, key=rank.__getitem__)[:quota])
    return chosen


def _rejection(record_id: str, rule: str, reason: str) -> dict[str, str]:
    return {"id": record_id, "rule": rule, "reason": reason}


def _nothing_left(settings: dict[str, Any], records_in: int, rejections: list[dict[str, str]]) -> str:
    data = settings["data"]
    source = settings.get("toolset") if data["source"] == "toolset" else data.get("path") or "the Hugging Face data set"
    if not records_in:
        return f"{source} holds no record: there is nothing to learn from"
    rules = Counter(row["rule"] for row in rejections).most_common(3)
    first = {rule: next(row for row in rejections if row["rule"] == rule) for rule, _ in rules}
    reasons = "; ".join(f"{rule} {count} times ({first[rule]['id']}: {first[rule]['reason']})" for rule, count in rules)
    return (
        f"{source}: none of its {records_in} records is usable. Most often: {reasons}. Check data.source and data.path"
    )
