"""The curation rules that look at one record, and at what earlier ones were like."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from callwright.data import coverage, text
from callwright.data.grounding import ungrounded
from callwright.data.records import (
    POOL_TEST,
    POOL_TRAIN,
    POOL_UNSEEN,
    POOL_VALID,
    Example,
    RecordError,
    normalize,
    text_of,
)
from callwright.data.similarity import THRESHOLD, Index, Union
from callwright.data.toolset.own_examples import POOL_KEPT, POOL_OWN
from callwright.runtime.files import sha256_json

POOLS = (POOL_TRAIN, POOL_VALID, POOL_TEST, POOL_UNSEEN, POOL_OWN, POOL_KEPT)
UNGROUNDED = "flag:ungrounded"
CountTokens = Callable[[Example], int]


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that passed the rules, packed: an Example's dictionaries take ten times the room of their JSON."""

    record_id: str
    packed: bytes  # the example's row, orjson
    asked: str
    tool_names: tuple[str, ...]
    stratum: str
    features: tuple[str, ...]
    pool: str | None
    flagged: bool

    def example(self, pool: str | None) -> Example:
        """The example, with the tag of its flag, and of its pool where that was given by holding out."""
        row = orjson.loads(self.packed)
        found = Example(**{**row, "tags": tuple(row["tags"])})
        extra = [UNGROUNDED] * self.flagged + [POOL_UNSEEN] * (pool == POOL_UNSEEN != self.pool)
        return replace(found, tags=(*found.tags, *extra)) if extra else found


class CurationRules:
    """The rules that look at one record, and at what earlier ones were like."""

    def __init__(self, data: dict[str, Any], count_tokens: CountTokens | None):
        self.count_tokens, self.max_tokens = count_tokens, data["max_tokens"]
        self.languages = data.get("languages")
        self.near_duplicates = data.get("near_duplicates", THRESHOLD) is not None
        self.index = Index(data.get("near_duplicates") or THRESHOLD)
        self.union = Union()  # record ids of near copies
        self.called: list[tuple[tuple[str, ...], str | None]] = []  # by the index's number: tools called, and pool
        self.ids: dict[str, str] = {}
        self.exact: dict[bytes, str] = {}
        self.turns: dict[str, str] = {}  # record id -> tag of its conversation
        self.strings: dict[str, str] = {}  # names of tools and features, each kept once

    def check(self, record_id: str, example: Example) -> Kept:
        """The record, packed; raises RecordError by the first rule that it breaks."""
        _check_text(example, self.languages)
        exact = bytes.fromhex(sha256_json(_content(example)))
        for rule, known, key in (("duplicate", self.exact, exact), ("duplicate_id", self.ids, example.id)):
            if key in known:
                raise RecordError(rule, f"as in {known[key]}")
        pool = next((tag for tag in example.tags if tag in POOLS), None)
        called = tuple(sorted({call["name"] for call in example.calls}))
        near: list[Any] = []
        for number, similarity in self.index.near(example.asked):
            name, (other, other_pool) = self.index.names[number], self.called[number]
            turn_of_same = example.conversation is not None and self.turns.get(name) == example.conversation
            if self.near_duplicates and not turn_of_same and (other == called or other_pool != pool):
                raise RecordError("near_duplicate", f"as in {name}: {similarity:.0%} of their 5-grams agree")
            near.append(name)
        if self.count_tokens is not None:
            check_length(example, self.count_tokens, self.max_tokens)
        self.exact[exact] = self.ids[example.id] = record_id
        self.index.add(example.asked, record_id)
        self.called.append((called, pool))
        if example.conversation:
            self.turns[record_id] = example.conversation
            near.append(("conversation", example.conversation))
        for name in near:
            self.union.join(record_id, name)
        return Kept(
            record_id=record_id,
            packed=orjson.dumps(example.to_row() | {"answer": example.answer}),
            asked=example.asked,
            tool_names=self._once(example.tool_names),
            stratum=self.strings.setdefault(example.stratum, example.stratum),
            features=self._once(coverage.features(example)),
            pool=pool,
            flagged=bool(ungrounded(example)),
        )

    def _once(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.strings.setdefault(name, name) for name in names)


def _content(example: Example) -> list[Any]:
    tools = sorted(sha256_json(tool) for tool in example.tools)
    said = [[message["role"], normalize(text_of(message)), message.get("tool_calls")] for message in example.messages]
    return [said, tools, example.calls, None if example.calls else example.answer]


def _check_text(example: Example, languages: Sequence[str] | None) -> None:
    said = [text_of(message) for message in example.messages]
    said += [tool["function"].get("description", "") for tool in example.tools]
    for part in said:
        if found := text.damage(part):
            raise RecordError("encoding", found)
    if languages is not None:
        found = text.languages(example.query)
        if found and not set(found) & set(languages):
            raise RecordError(
                "language", f"the request seems to be {' or '.join(found)}, expected {', '.join(languages)}"
            )


def check_length(example: Example, count_tokens: CountTokens, limit: int) -> None:
    """Raise RecordError when the example is too long, or what `count_tokens` says against it."""
    try:
        tokens = count_tokens(example)
    except Exception as error:
        if not isinstance(getattr(error, "rule", None), str):
            raise
        raise RecordError(error.rule, str(getattr(error, "reason", error))) from error
    if tokens > limit:
        raise RecordError("too_long", f"{tokens} tokens, at most {limit} (data.max_tokens)")
