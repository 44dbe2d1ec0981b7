"""Writes requests and their calls: picks the tools, the wording and the values, and what is offered beside them."""

import random
from collections.abc import Sequence
from typing import Any

from callwright.data.records import POOL_TEST, POOL_TRAIN, POOL_UNSEEN, POOL_VALID, Example, normalize, skeleton
from callwright.data.similarity import Index
from callwright.data.toolset import serving_order, wording
from callwright.data.toolset.constraints import hold
from callwright.data.toolset.definitions import Shown, as_it_is
from callwright.data.toolset.generators import Draw
from callwright.data.toolset.phrasing import Phrasing, Tool, Toolset, slots_of

# A request, the tools on offer, the calls that answer it (by the toolset's names), tags, and what is said without one.
Made = tuple[str, list[Any], list[dict[str, Any]], tuple[str, ...], str | None]

TEST_PHRASINGS = 0.15  # share of each tool's phrasings that only tests use
VALID_PHRASINGS = 0.10  # share of all phrasings that only validation uses
TOOLS_OFFERED = {1: 0.15, 2: 0.55, 3: 0.2, 4: 0.07, 5: 0.03}  # how many tools a request comes with
IN_GROUP = {3: 0.4, 4: 0.4, 5: 0.2}  # the same where several requests share a list of tools
# Where the tools beside the right ones come from: their domain (hard), the others (easy), or as it falls (None).
NEIGHBOURS = [("same", 40), ("other", 40), ("", 20)]
SAME_DOMAIN = 0.6  # chance that the second tool of a request for two is of the first one's domain
SMALL_TALK = 0.45  # share of small talk among the requests that no tool serves
ATTEMPTS = 60  # draws before a request that would repeat an earlier one is given up
DRY = 15  # requests given up in a row, after which the wordings count as used up
TWIN = "twin:absent"  # the tag of a request that is asked again, without its tools
NEW = 40  # of these, draws that must not be a near copy of an earlier request either


class Wordings:
    """Which phrasings belong to which pool."""

    def __init__(self, toolset: Toolset, seed: int, valid: bool = False):
        rng = random.Random(f"{seed}/wordings")
        self.for_tests: set[str] = set()
        for tool in toolset.tools:
            for group in (tool.phrasings, tool.twice, tool.missing):
                self.for_tests |= {phrasing.id for phrasing in _share(group, rng)}
        talk = list(toolset.small_talk)
        rng.shuffle(talk)
        cut = max(1, round(TEST_PHRASINGS * len(talk))) if len(talk) >= 3 else 0
        kept = cut if valid else 0
        self.talk = {
            POOL_TEST: talk[:cut],
            POOL_UNSEEN: talk[cut : 2 * cut],
            POOL_VALID: talk[2 * cut : 2 * cut + kept],
            POOL_TRAIN: talk[2 * cut + kept :],
        }
        # These by random numbers of their own: they leave the wordings of tests as they are.
        rng, checks = random.Random(f"{seed}/wordings/indirect"), random.Random(f"{seed}/wordings/valid")
        for tool in toolset.tools:
            self.for_tests |= {phrasing.id for phrasing in _share(tool.indirect, rng)}
        self.for_valid: set[str] = set()
        for tool in toolset.tools if valid else ():
            for group in (tool.phrasings, tool.indirect, tool.twice, tool.missing):
                rest = [phrasing for phrasing in group if phrasing.id not in self.for_tests]
                count = min(int(VALID_PHRASINGS * len(group) + checks.random()), len(rest) - 1)
                self.for_valid |= {phrasing.id for phrasing in checks.sample(rest, max(count, 0))}

    def own(self, group: Sequence[Phrasing], pool: str) -> list[Phrasing]:
        """The phrasings of `group` that belong to `pool`."""
        return [p for p in group if pool in (POOL_UNSEEN, self.pool_of(p))]

    def pool_of(self, phrasing: Phrasing) -> str:
        """The pool that a phrasing belongs to."""
        if phrasing.id in self.for_tests:
            return POOL_TEST
        return POOL_VALID if phrasing.id in self.for_valid else POOL_TRAIN


def _share(group: Sequence[Phrasing], rng: random.Random) -> list[Phrasing]:
    """The phrasings of a group that only tests use. A single one is trained; of two, one in every third group."""
    count = max(1, round(TEST_PHRASINGS * len(group)))
    if len(group) < 3:
        count = int(len(group) == 2 and rng.random() < 2 * TEST_PHRASINGS)
    return rng.sample(group, count)


class Used:
    """The requests so far."""

    def __init__(self) -> None:
        self.same: set[str] = set()
        self.skeletons: set[str] = set()
        self.index = Index()

    def take(self, query: str, new: bool) -> bool:
        """Remember the request; False when there was one like it: the same, or with `new` a near copy."""
        key, bare = normalize(query), skeleton(query)
        if not key or key in self.same:
            return False
        if new and (bare in self.skeletons or next(self.index.near(query), None)):
            return False
        self.same.add(key)
        self.skeletons.add(bare)
        self.index.add(query, key)
        return True


class Deck:
    """Deals its cards in shuffled rounds, so that each comes up equally often."""

    def __init__(self, cards: Sequence[Any], rng: random.Random):
        self.cards, self.rng, self.left = list(cards), rng, []

    def deal(self) -> Any:
        if not self.left:
            self.left = self.rng.sample(self.cards, len(self.cards))
        return self.left.pop()


class Repeat(Exception):
    """This draw cannot become an example; draw again."""


def _nothing() -> list[Tool]:
    raise Repeat


class Writer:
    """Writes the examples of one pool."""

    def __init__(
        self,
        toolset: Toolset,
        tools: list[Tool],
        pool: str,
        wordings: Wordings,
        used: Used,
        rng: random.Random,
    ):
        self.toolset, self.tools, self.pool, self.wordings, self.used, self.rng = (
            toolset, tools, pool, wordings, used, rng,
        )  # fmt: skip
        self.shared: list[Tool] | None = None  # the tools of a group of requests
        self.deck = Deck(tools, rng)
        self.able = {group: self._able(group) for group in ("twice", "missing")}
        self.decks_of = {group: Deck(able, rng) for group, able in self.able.items()}
        self.talk = Deck(wordings.talk[pool], rng)
        self.decks: dict[tuple[str, str], Deck] = {}
        self.strict = False  # whether a tool without wordings of this pool is passed over
        self.optional = 0.5  # of the parts of phrasings that may be left out: those that are said
        self.makers = {"one": self.one, "several": self.several, "no_tool": self.no_tool, "missing": self.lacking}

    def _able(self, group: str) -> list[Tool]:
        """The tools that have phrasings of this group for this pool; failing that, those that have any."""
        own = [tool for tool in self.tools if self.wordings.own(getattr(tool, group), self.pool)]
        return own or [tool for tool in self.tools if getattr(tool, group)]

    def feasible(self, mixture: dict[str, float]) -> dict[str, float]:
        """The mixture without the kinds of request that these tools cannot make; one call takes their share."""
        shares = dict(mixture)
        if not self.able["missing"]:
            shares["one"] += shares.pop("missing")
        if len(self.tools) < 2 and not self.talk.cards:
            shares["one"] += shares.pop("no_tool")
        return shares

    def write(self, kinds: list[str], requests_per_tool_list: int = 1) -> list[Example]:
        """An example of each of these kinds of request, in their order; fewer when the wordings are used up."""
        written: list[Example] = []
        given_up, patience = 0, NEW
        for kind in kinds:
            if given_up >= DRY:
                break
            given_up += 1
            if requests_per_tool_list > 1 and len(written) % requests_per_tool_list == 0:
                self.begin_group()
            # Where a kind is used up (few phrasings, few values), another takes its place.
            for attempt, maker in enumerate([self.makers[kind]] * ATTEMPTS + [self.one, self.several] * ATTEMPTS):
                try:
                    query, tools, calls, tags, answer = maker()
                except Repeat:
                    continue
                if TWIN in tags or self.used.take(query, new=attempt < patience):
                    # Where near copies are all that is left, looking for others would take long.
                    patience = min(NEW, 2 * patience) if attempt < patience else max(1, patience // 2)
                    written.append(self.example(f"{self.pool}/{len(written)}", query, tools, calls, tags, answer))
                    given_up = 0
                    break
        return written

    def begin_group(self) -> None:
        """A list of tools for the next requests."""
        self.shared = self.offer([self.deck.deal()], IN_GROUP)

    def example(
        self, name: str, query: str, tools: Sequence[Tool | Shown], calls: list[dict[str, Any]], tags: Any, answer: Any
    ) -> Example:
        """The example of a request, its tools and calls under the names that the list gives them."""
        listed = [tool if isinstance(tool, Shown) else as_it_is(tool) for tool in tools]
        shown = {entry.tool.name: entry for entry in listed if entry.tool is not None}
        return Example(
            id=name,
            messages=[{"role": "user", "content": query}],
            tools=[entry.definition for entry in listed],
            calls=[shown[call["name"]].call(call) for call in calls],
            source=f"toolset:{self.toolset.name}",
            tags=(*tags, self.pool),
            answer=answer,
        )

    def draw(self, group: str | None = None) -> Tool:
        """The next tool to ask for: in a group of requests one of theirs, else each as often as the others."""
        if self.shared is None:
            return (self.decks_of[group] if group else self.deck).deal()
        able = [tool for tool in self.shared if group is None or tool in self.able[group]]
        if not able:
            raise Repeat
        return self.rng.choice(able)

    def one(self) -> Made:
        tool = self.draw()
        query, calls, phrasing = self.single(tool, "phrasings")
        return query, self.offer([tool]), calls, self.tags([tool], "calls:1", [phrasing]), None

    def several(self) -> Made:
        kind = self.rng.random()
        if self.able["twice"] and kind < 0.4:
            tool = self.draw("twice")
            query, calls, phrasing = self.single(tool, "twice")
            return query, self.offer([tool]), calls, self.tags([tool], "calls:2+", [phrasing]), None
        tools = [self.draw()] * 2 if kind < 0.5 else self.different(3 if kind > 0.9 else 2)
        drawn: dict[str, list[str]] = {}
        parts = [self.ask(tool, drawn) for tool in tools]
        calls = [call for _, call, _ in parts]
        if any(call == other for at, call in enumerate(calls) for other in calls[:at]):
            raise Repeat
        query = wording.joined([(text, phrasing) for text, _, phrasing in parts], self.rng)
        unique = list({tool.name: tool for tool in tools}.values())
        return query, self.offer(unique), calls, self.tags(unique, "calls:2+", [p for _, _, p in parts]), None

    def different(self, count: int) -> list[Tool]:
        """So many tools to be asked for in one request, none of which could stand for another."""
        tools = [self.draw()]
        siblings = [tool for tool in self.tools if tool.domain == tools[0].domain]
        while len(tools) < count:
            near = self.shared is None and self.rng.random() < SAME_DOMAIN
            tools.append(self.rng.choice(siblings) if near else self.draw())
        if any(a.could_serve(b) for at, a in enumerate(tools) for b in tools[:at]):
            raise Repeat
        return tools

    def no_tool(self) -> Made:
        answer = self.rng.choice(self.toolset.no_tool)
        if self.talk.cards and (self.rng.random() < SMALL_TALK or len(self.tools) < 2):
            query, tags, said = self.talked()
            return query, self.offer([]), [], tags, said or answer
        tool = self.deck.deal()
        if any(tool.could_serve(other) for other in self.shared or []):
            raise Repeat
        query, _, phrasing = self.single(tool, "phrasings")
        tags = self.tags([tool], "calls:0", [phrasing])
        return query, self.offer([], around=tool), [], (*tags, "abstain:no_tool"), answer

    def talked(self) -> tuple[str, tuple[str, ...], str | None]:
        """Small talk: the request, its tags, and what to say where it has an answer of its own."""
        phrasing, own = self.talk.deal()
        text = phrasing.plain(self.rng)
        said = {f"{{{name}}}": self.toolset.pools[name].draw(self.rng)[0] for name, _ in slots_of(text)}
        tags = ("domain:small_talk", "calls:0", "abstain:no_tool", f"phrasing:{phrasing.id}")
        return wording.fill(text, said), tags, own

    def lacking(self) -> Made:
        tool = self.draw("missing")
        query, calls, phrasing = self.single(tool, "missing")
        answer = tool.ask[tool.lacks(calls[0]["arguments"])[0]]
        return query, self.offer([tool]), [], (*self.tags([tool], "calls:0", [phrasing]), "abstain:missing"), answer

    def tags(self, tools: list[Tool], calls: str, phrasings: list[Phrasing]) -> tuple[str, ...]:
        domains = dict.fromkeys(f"domain:{tool.domain}" for tool in tools)
        return (*domains, calls, *dict.fromkeys(f"phrasing:{phrasing.id}" for phrasing in phrasings))

    def pick(self, tool: Tool, group: str) -> Phrasing:
        """The next phrasing of the tool that this pool may use."""
        key = (tool.name, group)
        if key not in self.decks:
            phrasings = getattr(tool, group)
            own = self.wordings.own(phrasings, self.pool)
            if not own and self.strict:
                raise Repeat
            self.decks[key] = Deck(own or phrasings, self.rng)
        return self.decks[key].deal()

    def single(self, tool: Tool, group: str) -> tuple[str, list[dict[str, Any]], Phrasing]:
        """A whole request of one phrasing of the tool."""
        phrasing = self.pick(tool, group)
        text, short = self.said(phrasing.plain(self.rng, self.optional)), self.rng.random() < wording.SHORT
        text = wording.small(text) if short else text
        text, calls = self.fill(tool, phrasing, text, {}, 1 + (group == "twice"))
        query = (wording.in_short if short else wording.alone)(text, phrasing, self.rng)
        return query, calls, phrasing

    def said(self, text: str) -> str:
        """The phrasing as it is typed."""
        return text

    def value(self, tool: Tool, name: str) -> Draw:
        """A value of a parameter: how it is said, and what it is."""
        return tool.pools[name].draw(self.rng)

    def ask(
        self, tool: Tool, drawn: dict[str, list[str]], again: dict[str, Draw] | None = None
    ) -> tuple[str, dict[str, Any], Phrasing]:
        """A part of a request for several things; see `fill`."""
        phrasing = self.pick(tool, "phrasings")
        text, calls = self.fill(tool, phrasing, self.said(phrasing.plain(self.rng, self.optional)), drawn, 1, again)
        return text, calls[0], phrasing

    def fill(
        self,
        tool: Tool,
        phrasing: Phrasing,
        text: str,
        drawn: dict[str, list[str]],
        calls: int = 1,
        again: dict[str, Draw] | None = None,
    ) -> tuple[str, list[dict[str, Any]]]:
        """The text with values in its slots, and the calls that it asks for.

        `drawn` collects what each pool gave to this request: no value comes twice, so that two
        arguments cannot be mistaken for each other. With `again`, what an earlier part of the request has said (by
        pool) is said once more, and what is said here is added.
        """
        arguments = [dict(phrasing.arguments) for _ in range(calls)]
        said: dict[str, str] = {}
        fresh: dict[str, Draw] | None = None if again is None else {}
        for name, number in slots_of(text):
            slot = f"{{{name}.{number}}}" if number else f"{{{name}}}"
            if slot in said:
                continue
            pool = tool.pools[name]
            known = again is not None and not number and pool.name in again
            if known and all(hold(tool.constraints, {**call, name: again[pool.name][1]}) for call in arguments):
                said[slot], value = again.pop(pool.name)
                for call in arguments:
                    call[name] = value
                continue
            earlier = drawn.setdefault(pool.name, [])
            for _ in range(20):
                spoken, value = self.value(tool, name)
                asked = [call for at, call in enumerate(arguments, 1) if number in (0, at)]
                if spoken not in earlier and all(hold(tool.constraints, {**call, name: value}) for call in asked):
                    break
            else:
                raise Repeat
            earlier.append(spoken)
            if text.startswith(slot) and isinstance(value, int | float):  # "four of us": no name, so it takes a capital
                spoken = spoken[:1].upper() + spoken[1:]
            said[slot] = spoken
            if fresh is not None and not number and isinstance(value, str):
                fresh[pool.name] = (spoken, value)
            for at, call in enumerate(arguments, 1):
                if number in (0, at):
                    call[name] = value
        if again is not None:
            again |= fresh
        order = tool.parameters["properties"]
        return wording.fill(text, said), [
            {"name": tool.name, "arguments": {name: call[name] for name in order if name in call}} for call in arguments
        ]

    def offer(
        self, right: list[Tool], sizes: dict[int, float] = TOOLS_OFFERED, around: Tool | None = None
    ) -> list[Tool]:  # fmt: skip
        """The tools that the request comes with: the right ones and others that cannot serve it, shuffled.

        With `around`, a tool that is not offered, the others lie near it, and it and its like are left out.
        In a group of requests, the tools of the group. A small toolset is mostly offered whole (`serving_order`).
        """
        if self.shared is not None and sizes is TOOLS_OFFERED:
            return self.shared
        near = right or ([around] if around else [])
        if serving_order.whole(self.toolset, self.rng):
            return serving_order.offered(self.toolset, self.tools, right, around) or _nothing()
        wanted = self.rng.choices(list(sizes), list(sizes.values()))[0]
        neighbours = wording.pick(NEIGHBOURS, self.rng)
        offered = list(right)
        candidates = [tool for tool in self.tools if not any(tool.could_serve(other) for other in near)]
        domains = {tool.domain for tool in near}
        while candidates and (len(offered) < wanted or not offered):
            siblings = [tool for tool in candidates if tool.domain in domains]
            others = [tool for tool in candidates if tool.domain not in domains]
            tool = self.rng.choice({"same": siblings, "other": others, "": candidates}[neighbours] or candidates)
            offered.append(tool)
            candidates = [other for other in candidates if not other.could_serve(tool)]
        if not offered:
            raise Repeat
        self.rng.shuffle(offered)
        return offered
