"""Several sources in one training set: `data.mix` adds others to the one that a run is about.

```yaml
toolset: my-tools.yaml
data:
  source: toolset
  mix:
    - {source: toolset, path: config/toolsets/everyday.yaml, share: 0.5}
    - {source: xlam, path: xlam.jsonl, share: 0.2, refused: 0.1}
```

`refused` is the share of requests that are taken from a source and put before the run's own tools, none of which can
serve them: what to say no to. A toolset whose tools are always offered whole has no such requests of its own.

`validated` is the share of a source's files whose records are validated and not trained: requests for tools that no
training example lists, on which the best step and the threshold of the decision are chosen. Files of requests that say
`held_back: true` are these; without `validated` they are left out.

Toolsets that are mixed in are varied by the defaults of `data.variety`, whatever the run says of its own. Shares are
of the training set; the run's own source has the rest. What is mixed in is trained, or validated as said above (a few
of the refused are, too, where the decision when to call is fitted), and never tested: tests are the run's own, no mixed
example repeats a request of theirs or lists a tool that test_unseen_tools holds out, and each mixed source passes the
rules of curation, its rejections counted.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from callwright.data.curate import curate
from callwright.data.formats.conversations import Record
from callwright.data.formats.requests import HELD_BACK
from callwright.data.negatives import may_serve, without_calls
from callwright.data.records import POOL_TEST, POOL_TRAIN, POOL_UNSEEN, POOL_VALID, Example, RecordError
from callwright.data.rules import CountTokens, check_length
from callwright.data.similarity import THRESHOLD, Index
from callwright.data.sources import open_records
from callwright.data.split import MIXED
from callwright.data.toolset.toolset import NO_TOOL, load_toolset
from callwright.runtime.errors import CallwrightError

TRIES = 4  # requests that are looked at for each that an own list is to refuse: most tools' words stand in some other

log = logging.getLogger(__name__)


def curate_all(
    settings: dict[str, Any], count_tokens: CountTokens | None = None
) -> tuple[list[Example], list[dict[str, str]], dict[str, Any]]:
    """The examples of a run's source and of those mixed in, the rejections and the ledger, as `curate` returns them.

    The ledger counts all sources together; its `mix` lists `{"source", "path", "records_in", "kept", "rejected"}` of
    each one mixed in. Raises CallwrightError where `curate` does, and when the shares leave nothing for the source.
    """
    examples, rejections, ledger = curate(open_records(settings), settings, count_tokens)
    mix = settings["data"].get("mix") or []
    share = sum(entry["share"] + entry.get("refused", 0.0) for entry in mix)
    if share >= 1:
        raise CallwrightError(f"config key data.mix: its shares sum up to {share:g}, expected less than 1")
    trained = sum(not _outside_training(example) for example in examples)
    if not any(POOL_TRAIN in example.tags for example in examples):  # the split takes validation and tests from these
        trained = round(trained * (1 - settings["split"]["valid"] - settings["split"]["test"]))
    own = _Own(examples, settings)
    ledger["mix"] = []
    for number, entry in enumerate(mix, 1):
        wanted = round(trained * entry["share"] / (1 - share))
        refused = round(trained * entry.get("refused", 0.0) / (1 - share))
        theirs = _of(settings, entry, wanted + TRIES * refused)
        validated = entry.get("validated", 0.0)
        records = _some_validated(open_records(theirs), validated, settings)
        found, turned_away, counted = curate(records, theirs, count_tokens)
        kept, repeated = own.sift(found, number)
        put_before_own, left_out = own.refusals(kept[wanted:], refused, count_tokens)
        kept, repeated = [*kept[:wanted], *put_before_own], [*repeated, *left_out]
        wanted += refused
        turned_away += repeated
        examples, rejections = [*examples, *kept], [*rejections, *turned_away]
        ledger["mix"].append(
            {
                **{key: entry.get(key) for key in ("source", "path")},
                "records_in": counted["records_in"],
                "kept": len(kept),
                "rejected": dict(Counter(row["rule"] for row in turned_away)),
            }
        )
        _add(ledger, counted, repeated)
        if len(kept) < wanted:
            log.warning("data.mix %d (%s): %d examples, not the %d wanted", number, entry["path"], len(kept), wanted)
    return examples, rejections, ledger


def _of(settings: dict[str, Any], entry: dict[str, Any], wanted: int) -> dict[str, Any]:
    """The settings by which a mixed source is read: as many examples, all of them for training.

    `data.variety` is about the run's own toolset; one that is mixed in is as varied as `variety` is by default.
    """
    data = {**settings["data"], "source": entry["source"], "path": entry.get("path"), "examples": max(wanted, 1)}
    data |= {"variety": {}, "no_call": None}
    split = {**settings["split"], "valid": entry.get("validated", 0.0), "test": 0.0, "unseen_tools": 0.0}
    toolset = entry["path"] if entry["source"] == "toolset" else settings["toolset"]
    return {**settings, "toolset": toolset, "data": data, "split": split}


def _some_validated(records: Iterable[Record], share: float, settings: dict[str, Any]) -> Iterator[Record]:
    """The records, those of a share of their files marked for validation; with 0 without what is held back."""
    if not share:
        yield from (pair for pair in records if not _is_held_back(pair[1]))
        return
    records = list(records)
    held_back = any(_is_held_back(record) for _, record in records)
    files = sorted({record_id.rpartition(":")[0] for record_id, _ in records})
    chosen: set[str] = set()
    if not held_back and len(files) > 1:
        rng = random.Random(f"{settings['data']['seed']}/validated")
        chosen = set(rng.sample(files, max(1, round(share * len(files)))))
    for record_id, record in records:
        if _is_held_back(record) or (isinstance(record, Example) and record_id.rpartition(":")[0] in chosen):
            tags = (tag for tag in record.tags if not tag.startswith("pool:"))
            record = replace(record, tags=(*tags, POOL_VALID))
        yield record_id, record


def _is_held_back(record: Example | RecordError) -> bool:
    return isinstance(record, Example) and HELD_BACK in record.tags


class _Own:
    """The run's own examples: what a mixed one must not repeat."""

    def __init__(self, examples: Sequence[Example], settings: dict[str, Any]):
        self.trained = [example for example in examples if not _outside_training(example)]
        self.rng = random.Random(settings["data"]["seed"])
        pools = any(POOL_VALID in example.tags for example in examples)
        self.validated = settings["split"]["valid"] if pools else 0.0  # share of what is to be refused
        self.max_tokens = settings["data"]["max_tokens"]
        self.mixed = Index(THRESHOLD)  # what is mixed in, so that none of it is validated beside its like
        self.toolset = settings["toolset"] if settings["data"]["source"] == "toolset" else None
        self.held = {name for e in examples if POOL_UNSEEN in e.tags for name in e.tool_names}
        self.index = Index(THRESHOLD)
        for number, example in enumerate(examples):
            self.index.add(example.asked, str(number))

    def sift(self, found: Sequence[Example], number: int) -> tuple[list[Example], list[dict[str, str]]]:
        """Those that may be trained or validated, marked, and the rejections of the others."""
        kept, rejected = [], []
        for example in found:
            name = f"mix{number}:{example.id}"
            rule, reason = None, ""
            if listed := self.held & set(example.tool_names):
                rule, reason = "mixed_tools", f"lists {min(listed)!r}, which test_unseen_tools holds out"
            elif next(self.index.near(example.asked), None):
                rule, reason = "near_duplicate", "as in the run's own examples"
            if rule:
                rejected.append({"id": name, "rule": rule, "reason": reason})
                continue
            self.mixed.add(example.asked, name)
            tags = tuple(tag for tag in example.tags if not tag.startswith("pool:"))
            pool = (POOL_VALID,) if POOL_VALID in example.tags else (f"{MIXED}{number}", POOL_TRAIN)
            kept.append(replace(example, id=name, tags=(*tags, *pool)))
        return kept, rejected

    def refusals(
        self, found: Sequence[Example], wanted: int, count_tokens: CountTokens | None
    ) -> tuple[list[Example], list[dict[str, str]]]:
        """As many of the requests `found` before the run's own lists of tools, which cannot serve them; the rest.

        Some are for validation, where the decision when to call is fitted.
        """
        kept, left_out = [], []
        for example in found:
            called = {call["name"] for call in example.calls}
            alone = replace(example, tools=[tool for tool in example.tools if tool["function"]["name"] in called])
            tools = self.rng.choice(self.trained).tools if self.trained else []
            if len(kept) == wanted or not called or any(may_serve(tool, alone) for tool in tools):
                reason = "not needed, or an own tool may serve it"
                left_out.append({"id": example.id, "rule": "not_sampled", "reason": reason})
                continue
            answer = self.rng.choice(self.no_tool)
            refused = without_calls(example, "abstain:no_tool", tools=tools, possible=None, answer=answer)
            if len(kept) < self.validated * wanted and self.stands_alone(example):
                tags = (POOL_VALID if tag == POOL_TRAIN else tag for tag in refused.tags if not tag.startswith(MIXED))
                refused = replace(refused, tags=tuple(tags))
            try:
                if count_tokens is not None:
                    check_length(refused, count_tokens, self.max_tokens)
            except RecordError as error:
                left_out.append({"id": example.id, "rule": error.rule, "reason": error.reason})
                continue
            kept.append(refused)
        return kept, left_out

    @cached_property
    def no_tool(self) -> Sequence[str]:
        """How the run says that nothing fits; a toolset is read for it only where something is refused."""
        if self.toolset:
            return load_toolset(self.toolset).no_tool
        said = [example.answer for example in self.trained if "abstain:no_tool" in example.tags]
        return [answer for answer in said if answer] or NO_TOOL

    def stands_alone(self, example: Example) -> bool:
        """Whether nothing else that is mixed in belongs to it: no turn of its conversation, no twin, no near copy."""
        tied = any(tag.startswith(("conversation:", "twin:")) for tag in example.tags)
        return not tied and len(list(self.mixed.near(example.asked))) < 2


def _outside_training(example: Example) -> bool:
    return bool({POOL_TEST, POOL_UNSEEN, POOL_VALID} & set(example.tags))


def _add(ledger: dict[str, Any], counted: dict[str, Any], repeated: Sequence[dict[str, str]]) -> None:
    """Count a mixed source in the run's ledger, so that records in = kept + rejected still holds."""
    again = Counter(row["rule"] for row in repeated)
    ledger["records_in"] += counted["records_in"]
    ledger["kept"] += counted["kept"] - len(repeated)
    rejected = Counter(ledger["rejected"]) + Counter(counted["rejected"]) + again
    ledger["rejected"] = dict(rejected)
    left = ledger["records_in"]
    for step in ledger["rules"]:
        step["rejected"] = rejected[step["rule"]]
        left -= step["rejected"]
        step["left"] = left
    ledger["negatives"] = dict(Counter(ledger["negatives"]) + Counter(counted["negatives"]))
    ledger["flags"] = dict(Counter(ledger["flags"]) + Counter(counted["flags"]))
