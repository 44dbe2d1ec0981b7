"""Examples from a toolset: requests as people write them, with the calls that answer them.

Pools, told apart by a tag:
    pool:train         training, and validation where it has no wordings of its own
    pool:valid         with a `variety`: wordings that neither training nor tests use (about 10 %)
    pool:test          wordings that the training pool never uses (about 15 % of each tool's phrasings)
    pool:unseen_tools  whole domains of tools that the other two pools never list
In each, a mixture of one call, several calls, no tool that serves, a missing argument: the toolset's own, or that of
the `variety` (`varied`).
"""

import logging
import random
from dataclasses import replace

from callwright.data.records import POOL_TEST, POOL_TRAIN, POOL_UNSEEN, POOL_VALID, Example
from callwright.data.toolset.phrasing import Toolset
from callwright.data.toolset.varied import VariedWriter
from callwright.data.toolset.variety import STANDARD, Variety
from callwright.data.toolset.writer import Used, Wordings, Writer

log = logging.getLogger(__name__)

HELD_OUT_DOMAINS = 0.15  # share of the domains whose tools only test_unseen_tools lists

FEW = 10  # with fewer tools none is held out


def generate(
    toolset: Toolset,
    examples: int = 1000,
    seed: int = 42,
    test: float = 0.1,
    unseen_tools: float = 0.1,
    no_call: float | None = None,
    requests_per_tool_list: int = 1,
    variety: Variety | None = None,
    valid: float = 0.1,
) -> list[Example]:
    """`examples` examples for training, validation and test_seen, and a share of `unseen_tools` more on top.

    `no_call` is the share of requests without a call in the training pool; None takes the toolset's mixture,
    as the test pools always do, so that runs with different shares answer the same test items. With
    `requests_per_tool_list` k, k requests in a row of the training pool come with the same tools in the same
    order: their prompts begin alike.

    With a `variety`, training and validation are as varied as it says, and a share of `valid` is in wordings that
    training does not use; the test pools are as varied as STANDARD says, whatever the training is like.

    No two requests are the same (`records.normalize`), and near copies (`similarity`) come only where the
    toolset has nothing else. The same toolset and arguments give the same list. Fewer come back, with a
    warning, when the toolset has not so many different requests.
    """
    held_out = hold_out_tools(toolset, seed) if unseen_tools > 0 else set()
    tests = round(examples * test)
    known = [tool for tool in toolset.tools if tool.name not in held_out]
    unknown = [tool for tool in toolset.tools if tool.name in held_out]
    checks = round(examples * valid) if variety else 0
    pools = [  # the test pools first: what is trained must not shift them
        (POOL_TEST, tests, known),
        (POOL_UNSEEN, round(examples * unseen_tools), unknown),
        (POOL_VALID, checks, known),
        (POOL_TRAIN, examples - tests - checks, known),
    ]
    wordings = Wordings(toolset, seed, valid=bool(checks))
    used = Used()
    made: dict[str, list[Example]] = {}
    for pool, count, tools in pools:
        if not tools or not count:
            continue
        train, rng = pool == POOL_TRAIN, random.Random(f"{seed}/{pool}")
        if variety is None:
            writer = Writer(toolset, tools, pool, wordings, used, rng)
        else:
            tested = pool in (POOL_TEST, POOL_UNSEEN)
            how = STANDARD.for_tests() if tested else variety.with_no_call(no_call if train else None)
            writer = VariedWriter(toolset, tools, pool, wordings, used, rng, how)
        shares = writer.feasible(with_no_call(toolset.mixture, no_call if train else None))
        kinds = [kind for kind, number in apportion(shares, count).items() for _ in range(number)]
        writer.rng.shuffle(kinds)
        made[pool] = writer.write(kinds, requests_per_tool_list if train else 1)
        if len(made[pool]) < count:
            log.warning(
                "the toolset %s has phrasings and values for %d different requests of %s, not %d: add some",
                toolset.name, len(made[pool]), pool, count,
            )  # fmt: skip
    found = [example for pool in (POOL_TRAIN, POOL_VALID, POOL_TEST, POOL_UNSEEN) for example in made.get(pool, [])]
    return [replace(example, id=f"{toolset.name}-{number:05d}") for number, example in enumerate(found)]


def with_no_call(mixture: dict[str, float], share: float | None) -> dict[str, float]:
    """The mixture with this share of requests without a call; their two kinds keep their proportion."""
    if share is None:
        return dict(mixture)
    quiet = {"no_tool": mixture["no_tool"], "missing": mixture["missing"]}
    calls = {"one": mixture["one"], "several": mixture["several"]}
    parts = [(quiet, share), (calls, 1 - share)]
    even = {"no_tool": 0.5, "missing": 0.5, "one": 1.0, "several": 0.0}
    scaled = {}
    for kinds, part in parts:
        total = sum(kinds.values())
        scaled |= {kind: part * (value / total if total else even[kind]) for kind, value in kinds.items()}
    return scaled


def hold_out_tools(toolset: Toolset, seed: int) -> set[str]:
    """Names of the tools that only test_unseen_tools lists: whole domains, or single tools where those are few.

    A toolset of fewer than ten tools keeps them all for training: who has three wants three taught.
    """
    by_domain = {domain: [t.name for t in toolset.tools if t.domain == domain] for domain in toolset.domains}
    units = list(by_domain.values()) if len(by_domain) >= 4 else [[tool.name] for tool in toolset.tools]
    if len(toolset.tools) < FEW:
        log.warning("the toolset %s is too small to hold tools out: test_unseen_tools stays empty", toolset.name)
        return set()
    count = min(max(1, round(HELD_OUT_DOMAINS * len(units))), len(units) - 2)
    return {name for unit in random.Random(f"{seed}/held out").sample(units, count) for name in unit}


def apportion(shares: dict[str, float], count: int) -> dict[str, int]:
    """`count` divided by `shares` into whole numbers that sum up to it (largest remainders)."""
    total = sum(shares.values()) or 1.0
    exact = {key: count * share / total for key, share in shares.items()}
    parts = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(shares, key=lambda key: (parts[key] - exact[key], key))
    for key in by_remainder[: count - sum(parts.values())]:
        parts[key] += 1
    return parts
