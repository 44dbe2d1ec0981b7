"""Train, validation and two test sets that share nothing with training.

    test_seen          tools that training knows, requests that it does not
    test_unseen_tools  tools that no other set lists; comes on top of the shares

Requests that are the same but for case, punctuation, numbers and quoted parts (`records.skeleton`), near copies
(`similarity`) and the turns of one conversation form a group, and a group is never divided. Of generated examples
the tags of `data.generate` decide the pool, so that the wordings of test_seen are not trained either.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import orjson

from callwright.data.audit import audit
from callwright.data.augment import augment
from callwright.data.grouped_lists import put_together, tool_counter
from callwright.data.records import POOL_TEST, POOL_UNSEEN, POOL_VALID, Example, normalize, skeleton
from callwright.data.similarity import components, near_groups
from callwright.data.toolset.generate import apportion
from callwright.runtime.errors import CallwrightError

NAMES = ("train", "valid", "test_seen", "test_unseen_tools")
RULES = {
    "groups": "requests that differ only in case, punctuation, numbers and quoted parts, near copies (5-grams with a "
    "Jaccard similarity of 0.8) and the turns of one conversation are in one set",
    "strata": "one call, several calls and each kind of none have the same shares in all sets",
    "wordings": "examples tagged pool:test and pool:valid (wordings that no training example uses) are test_seen and "
    "valid, if there are any",
    "unseen_tools": "no record of another set lists a tool that test_unseen_tools lists",
}
MIXED = "mixed:"  # a tag of examples that another source adds to the training set (`mix`)
MAX_MIXED = 0.2  # share of the records that holding tools out may cost


def split(
    examples: Sequence[Example], settings: dict[str, Any], count_tokens: Callable[[Example], int] | None = None
) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    """Divide examples by split.{valid, test, seed}; returns the sets by name and the manifest.

    The training set alone is changed as data.augment says, where that key is there, and training and validation set
    as data.lists says; `count_tokens` keeps them within data.max_tokens then. The manifest has the seed, sizes, the
    SHA-256 of each set's JSON Lines, the held-out tools, the rules, the counts of the augmentation, of the lists that
    requests were put under (`grouped_lists`), and those of the audit. The same examples in the same order
    give the same sets. Raises CallwrightError when too few examples are left to train and validate.
    """
    shares = settings["split"]
    unseen = [example for example in examples if POOL_UNSEEN in example.tags]
    mixed = [example for example in examples if _is_mixed(example)]
    seen = [example for example in examples if POOL_UNSEEN not in example.tags and not _is_mixed(example)]
    test = [example for example in seen if POOL_TEST in example.tags]
    valid = [example for example in seen if POOL_VALID in example.tags]
    rest = [example for example in seen if not {POOL_TEST, POOL_VALID} & set(example.tags)]
    rng = random.Random(f"{shares['seed']}/split")
    wanted = {} if valid else {"valid": round(len(seen) * shares["valid"])}
    if not test:
        wanted["test_seen"] = round(len(seen) * shares["test"])
    sets = _divide(rest, wanted, rng)
    if mixed:  # what other sources add is trained, and nothing else
        sets["train"] += mixed
        rng.shuffle(sets["train"])
    sets.setdefault("test_seen", test)
    sets.setdefault("valid", valid)
    sets["test_unseen_tools"] = unseen
    for name in ("valid", "test_seen", "test_unseen_tools"):  # an evaluation may take only the first so many
        rng.shuffle(sets[name])
    for name in ("train", "valid"):
        if not sets[name]:
            raise CallwrightError(
                f"the split has no example for {name}: {len(examples)} examples came from curation; raise "
                "data.examples, or give it more records"
            )
    sets["train"], augmented = _augmented(sets["train"], settings, count_tokens)
    lists = {}
    if wanted := settings["data"].get("lists"):
        measure = tool_counter(count_tokens)
        for name in ("train", "valid"):  # the test sets stay as they are
            sets[name], lists[name] = put_together(
                sets[name], wanted, shares["seed"], measure, count_tokens, settings["data"]["max_tokens"]
            )
    sets = {name: sets[name] for name in NAMES}
    manifest = {
        "seed": shares["seed"],
        "sizes": {name: len(found) for name, found in sets.items()},
        "kinds": {name: {kind: sum(e.kind == kind for e in found) for kind in ("one", "several", "none")}
                  for name, found in sets.items()},
        "sha256": {name: content_sha256(found) for name, found in sets.items()},
        "held_out_tools": sorted({tool for example in unseen for tool in example.tool_names}),
        "rules": RULES,
        "augmented": augmented,
        "lists": lists,
        "audit": audit(sets),
    }  # fmt: skip
    return sets, manifest


def _is_mixed(example: Example) -> bool:
    return any(tag.startswith(MIXED) for tag in example.tags)


def _augmented(
    examples: list[Example], settings: dict[str, Any], count_tokens: Callable[[Example], int] | None
) -> tuple[list[Example], dict[str, int]]:
    wanted = settings["data"].get("augment") or {}
    if not any(wanted.values()):
        return examples, {}

    def fits(example: Example) -> bool:
        return count_tokens is None or count_tokens(example) <= settings["data"]["max_tokens"]

    return augment(examples, wanted, settings["split"]["seed"], fits)


def content_sha256(examples: Sequence[Example]) -> str:
    """SHA-256 of the examples as `runtime.files.write_jsonl` writes them."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(orjson.dumps(example.to_row(), option=orjson.OPT_APPEND_NEWLINE))
    return digest.hexdigest()


def _divide(examples: Sequence[Example], wanted: dict[str, int], rng: random.Random) -> dict[str, list[Example]]:
    """Whole groups of examples for each wanted set, balanced by stratum; `train` takes the rest."""
    strata: dict[str, list[list[Example]]] = defaultdict(list)
    for indices in components(keys(examples)):
        group = [examples[index] for index in indices]
        strata[group[0].stratum].append(group)
    sizes = {stratum: float(sum(map(len, found))) for stratum, found in sorted(strata.items())}
    for stratum in sizes:
        rng.shuffle(strata[stratum])
    sets: dict[str, list[Example]] = {"train": []}
    for name, count in wanted.items():
        sets[name] = []
        for stratum, share in apportion(sizes, count).items():
            taken, kept = 0, []
            for group in strata[stratum]:
                if taken + len(group) <= share:
                    taken += len(group)
                    sets[name] += group
                else:
                    kept.append(group)
            strata[stratum] = kept
        for stratum in sizes:  # groups that fit into no stratum's share leave places open
            for group in list(strata[stratum]):
                if len(sets[name]) + len(group) <= count:
                    sets[name] += group
                    strata[stratum].remove(group)
        rng.shuffle(sets[name])
    sets["train"] = [example for stratum in sizes for group in strata[stratum] for example in group]
    rng.shuffle(sets["train"])
    return sets


def keys(examples: Sequence[Example], groups: Sequence[Hashable] | None = None) -> list[list[Hashable]]:
    """For each example what it has in common with those that it must stay together with.

    `groups`: the groups of near copies and of conversations, one for each example; None finds them.
    """
    if groups is None:
        near = near_groups([example.asked for example in examples])
        groups = [("group", group) for group in near]
        conversations = [[("turn", example.conversation)] if example.conversation else [] for example in examples]
    else:
        conversations = [[] for _ in examples]
    return [
        [("same", normalize(example.asked)), ("near", skeleton(example.asked)), group, *turns]
        for example, group, turns in zip(examples, groups, conversations, strict=True)
    ]


def hold_out(
    examples: Sequence[Any], unseen: int, needed: int, seed: int, groups: Sequence[Hashable] | None = None
) -> tuple[set[int], set[int], set[str]]:
    """Choose tools to hold out, so that about `unseen` records list only them and none of the others lists one.

    Records whose tools occur nowhere else go first; then, record by record, its tools are held out too, as
    long as `needed` records stay for the other sets and at most a fifth of all has to be given up because
    it lists both kinds. `examples` have `tool_names`, `asked` and, unless `groups` are given (`keys`), what an
    Example has. Returns the indices of the unseen records, of the mixed ones, and the held-out tools.
    """
    listing: dict[str, list[int]] = defaultdict(list)  # tool -> records that list it
    for index, example in enumerate(examples):
        for tool in example.tool_names:
            listing[tool].append(index)
    parts = components([example.tool_names for example in examples])
    rng = random.Random(f"{seed}/hold out")
    small = [component for component in parts if len(component) <= max(1, unseen // 5)]
    rng.shuffle(small)
    held: set[str] = set()
    chosen: set[int] = set()
    for component in small:
        if len(chosen) + len(component) <= unseen:
            chosen |= set(component)
    for index in chosen:
        held |= set(examples[index].tool_names)
    if len(chosen) < unseen:
        chosen, held = _hold_out_more(examples, listing, chosen, held, unseen, needed, rng)
    mixed = {index for tool in held for index in listing[tool]} - chosen
    # A request that occurs in both kinds of records would be known from training.
    apart = chosen | mixed
    known = keys(examples, groups)
    elsewhere = {key for index, own in enumerate(known) if index not in apart for key in own}
    repeated = {index for index in chosen if not elsewhere.isdisjoint(known[index])}
    return chosen - repeated, mixed | repeated, held


def _hold_out_more(
    examples: Sequence[Example],
    listing: dict[str, list[int]],
    chosen: set[int],
    held: set[str],
    unseen: int,
    needed: int,
    rng: random.Random,
) -> tuple[set[int], set[str]]:
    missing = [len(set(example.tool_names) - held) for example in examples]  # tools not held out, by record
    mixed = 0
    order = [index for index in range(len(examples)) if missing[index]]
    rng.shuffle(order)
    # Records that share their tools with few others cost least; the shuffle decides among equals.
    order.sort(key=lambda index: max(len(listing[tool]) for tool in examples[index].tool_names))
    for index in order:
        if len(chosen) >= unseen:
            break
        new = set(examples[index].tool_names) - held
        touched = {other for tool in new for other in listing[tool]} - chosen
        left = {other: missing[other] - len(new & set(examples[other].tool_names)) for other in touched}
        complete = {other for other in touched if left[other] == 0}
        was_mixed = {other for other in touched if missing[other] < len(set(examples[other].tool_names))}
        now_mixed = mixed - len(was_mixed) + len(touched - complete)
        size = len(chosen) + len(complete)
        too_costly = now_mixed > MAX_MIXED * len(examples) or len(examples) - size - now_mixed < needed
        if not complete or size > unseen * 1.2 + 1 or too_costly:
            continue
        for other in touched:
            missing[other] = left[other]
        chosen, held, mixed = chosen | complete, held | new, now_mixed
    return chosen, held
