"""Examples from a toolset: requests as people write them, with the calls that answer them.

Three pools, told apart by a tag:
    pool:train         training and validation
    pool:test          wordings that the training pool never uses (about 15 % of each tool's phrasings)
    pool:unseen_tools  whole domains of tools that the other two pools never list
In each, the mixture of the toolset: one call, several calls, no tool that serves, a missing argument.
"""

import logging
import random
import re
from collections.abc import Sequence
from typing import Any

from callsmith.data.records import POOL_TEST, POOL_TRAIN, POOL_UNSEEN, Example, normalize
from callsmith.data.toolset import SLOT, Phrasing, Tool, Toolset

log = logging.getLogger(__name__)

TEST_PHRASINGS = 0.15  # share of each tool's phrasings that only tests use
HELD_OUT_DOMAINS = 0.15  # share of the domains whose tools only test_unseen_tools lists
TOOLS_OFFERED = {1: 0.2, 2: 0.35, 3: 0.3, 4: 0.15}  # how many tools a request comes with
SAME_DOMAIN = 0.5  # chance that a tool beside the right ones is of their domain
ATTEMPTS = 60  # draws before a request that would repeat an earlier one is given up

# How an order ("Set an alarm …") is said: {A} with a capital letter, {a} without. Weights in percent.
ORDERS = [
    ("{A}.", 34), ("{A}", 12), ("{a}", 5), ("Please {a}.", 12), ("{A}, please.", 5), ("Can you {a}?", 12),
    ("Could you {a}?", 7), ("Could you please {a}?", 4), ("I need you to {a}.", 4), ("Hey, {a}.", 3),
    ("I'd like you to {a}.", 2),
]  # fmt: skip
TWO_ORDERS = [
    ("{A} and {b}.", 34), ("{A}, then {b}.", 12), ("Please {a} and {b}.", 12), ("Can you {a} and {b}?", 12),
    ("{A}. Also, {b}.", 12), ("{A}, and also {b}.", 6), ("{A}. Then {b}.", 6), ("I need you to {a} and {b}.", 3),
    ("Could you {a}, and after that {b}?", 3),
]  # fmt: skip
THREE_ORDERS = [("{A}, {b}, and {c}.", 60), ("{A}, then {b}, and finally {c}.", 20), ("{A}. {B}. And {c}.", 20)]
NEXT_SENTENCE = [(" Also, {b}", 50), (" And {b}", 25), (" {B}", 15), (" Oh, and {b}", 10)]


def generate(
    toolset: Toolset,
    examples: int = 1000,
    seed: int = 42,
    test: float = 0.1,
    unseen_tools: float = 0.1,
) -> list[Example]:
    """`examples` examples for training, validation and test_seen, and a share of `unseen_tools` more on top.

    No two requests are the same (`records.normalize`). The same toolset and arguments give the same
    list. Fewer come back, with a warning, when the toolset has not so many different requests.
    """
    held_out = hold_out_tools(toolset, seed) if unseen_tools > 0 else set()
    tests = round(examples * test)
    pools = [
        (POOL_TRAIN, examples - tests, [tool for tool in toolset.tools if tool.name not in held_out]),
        (POOL_TEST, tests, [tool for tool in toolset.tools if tool.name not in held_out]),
        (POOL_UNSEEN, round(examples * unseen_tools), [tool for tool in toolset.tools if tool.name in held_out]),
    ]
    phrasings = _Wordings(toolset, seed)
    used: set[str] = set()
    made: list[Example] = []
    for pool, count, tools in pools:
        if not tools or not count:
            continue
        writer = _Writer(toolset, tools, pool, phrasings, used, random.Random(f"{seed}/{pool}"))
        found = writer.write(count, offset=len(made))
        if len(found) < count:
            log.warning(
                "the toolset %s has phrasings and values for %d different requests of %s, not %d: add some",
                toolset.name, len(found), pool, count,
            )  # fmt: skip
        made += found
    return made


def hold_out_tools(toolset: Toolset, seed: int) -> set[str]:
    """Names of the tools that only test_unseen_tools lists: whole domains, or single tools of a small toolset.

    Two domains or tools at least must remain for training; with fewer than three nothing is held out.
    """
    by_domain = {domain: [t.name for t in toolset.tools if t.domain == domain] for domain in toolset.domains}
    units = list(by_domain.values()) if len(by_domain) >= 4 else [[tool.name] for tool in toolset.tools]
    if len(units) < 3:
        log.warning("the toolset %s is too small to hold tools out: test_unseen_tools stays empty", toolset.name)
        return set()
    count = min(max(1, round(HELD_OUT_DOMAINS * len(units))), len(units) - 2)
    return {name for unit in random.Random(f"{seed}/held out").sample(units, count) for name in unit}


class _Wordings:
    """Which phrasings belong to which pool."""

    def __init__(self, toolset: Toolset, seed: int):
        rng = random.Random(f"{seed}/wordings")
        self.for_tests: set[str] = set()
        for tool in toolset.tools:
            for group in (tool.phrasings, tool.twice, tool.missing):
                self.for_tests |= {phrasing.id for phrasing in _share(group, rng)}
        talk = list(toolset.small_talk)
        rng.shuffle(talk)
        cut = max(1, round(TEST_PHRASINGS * len(talk))) if len(talk) >= 3 else 0
        self.talk = {POOL_TEST: talk[:cut], POOL_UNSEEN: talk[cut : 2 * cut], POOL_TRAIN: talk[2 * cut :]}

    def own(self, group: Sequence[Phrasing], pool: str) -> list[Phrasing]:
        """The phrasings of `group` that belong to `pool`."""
        return [p for p in group if pool == POOL_UNSEEN or (p.id in self.for_tests) == (pool == POOL_TEST)]


def _share(group: Sequence[Phrasing], rng: random.Random) -> list[Phrasing]:
    """The phrasings of a group that only tests use. A single one is trained; of two, one in every third group."""
    count = max(1, round(TEST_PHRASINGS * len(group)))
    if len(group) < 3:
        count = int(len(group) == 2 and rng.random() < 2 * TEST_PHRASINGS)
    return rng.sample(group, count)


class _Deck:
    """Deals its cards in shuffled rounds, so that each comes up equally often."""

    def __init__(self, cards: Sequence[Any], rng: random.Random):
        self.cards, self.rng, self.left = list(cards), rng, []

    def deal(self) -> Any:
        if not self.left:
            self.left = self.rng.sample(self.cards, len(self.cards))
        return self.left.pop()


class _Repeat(Exception):
    """This draw cannot become an example; draw again."""


class _Writer:
    """Writes the examples of one pool."""

    def __init__(
        self,
        toolset: Toolset,
        tools: list[Tool],
        pool: str,
        wordings: _Wordings,
        used: set[str],
        rng: random.Random,
    ):
        self.toolset, self.tools, self.pool, self.wordings, self.used, self.rng = (
            toolset, tools, pool, wordings, used, rng,
        )  # fmt: skip
        self.deck = _Deck(tools, rng)
        self.twice = _Deck(self.able("twice"), rng)
        self.missing = _Deck(self.able("missing"), rng)
        self.talk = list(wordings.talk[pool])
        self.decks: dict[tuple[str, str], _Deck] = {}

    def able(self, group: str) -> list[Tool]:
        """The tools that have phrasings of this group for this pool; failing that, those that have any."""
        own = [tool for tool in self.tools if self.wordings.own(getattr(tool, group), self.pool)]
        return own or [tool for tool in self.tools if getattr(tool, group)]

    def write(self, count: int, offset: int) -> list[Example]:
        """`count` examples in the toolset's mixture, in shuffled order; their ids count from `offset`."""
        makers = {"one": self.one, "several": self.several, "no_tool": self.no_tool, "missing": self.lacking}
        shares = dict(self.toolset.mixture)
        if not self.missing.cards:
            shares["one"] += shares.pop("missing")
        if len(self.tools) < 2 and not self.talk:
            shares["one"] += shares.pop("no_tool")
        kinds = [kind for kind, number in apportion(shares, count).items() for _ in range(number)]
        self.rng.shuffle(kinds)
        written = []
        for kind in kinds:
            # Where a kind is used up (few phrasings, few values), another takes its place.
            for maker in [makers[kind]] * ATTEMPTS + [self.one, self.several] * ATTEMPTS:
                try:
                    query, tools, calls, tags, answer = maker()
                except _Repeat:
                    continue
                key = normalize(query)
                if key and key not in self.used:
                    self.used.add(key)
                    written.append(
                        Example(
                            id=f"{self.toolset.name}-{offset + len(written):05d}",
                            messages=[{"role": "user", "content": query}],
                            tools=[tool.definition for tool in tools],
                            calls=calls,
                            source=f"toolset:{self.toolset.name}",
                            tags=(*tags, self.pool),
                            answer=answer,
                        )
                    )
                    break
        return written

    def one(self) -> tuple[Any, ...]:
        tool = self.deck.deal()
        text, call, phrasing = self.ask(tool, {})
        query = self.alone(text, phrasing)
        return query, self.offer([tool]), [call], self.tags([tool], "calls:1", [phrasing]), None

    def several(self) -> tuple[Any, ...]:
        draw = self.rng.random()
        if self.twice.cards and draw < 0.4:
            tool = self.twice.deal()
            phrasing = self.pick(tool, "twice")
            text, calls = self.fill(tool, phrasing, {}, calls=2)
            query = self.alone(text, phrasing)
            return query, self.offer([tool]), calls, self.tags([tool], "calls:2+", [phrasing]), None
        tools = [self.deck.deal() for _ in range(3 if draw > 0.9 else 2)]
        if draw < 0.5:  # one tool, asked for twice in two ways
            tools = [tools[0]] * 2
        elif len({tool.name for tool in tools}) < len(tools) or any(a.name in b.similar for a in tools for b in tools):
            raise _Repeat
        drawn: dict[str, list[str]] = {}
        parts = [self.ask(tool, drawn) for tool in tools]
        calls = [call for _, call, _ in parts]
        if any(call == other for at, call in enumerate(calls) for other in calls[:at]):
            raise _Repeat
        query = self.joined([(text, phrasing) for text, _, phrasing in parts])
        unique = list({tool.name: tool for tool in tools}.values())
        return query, self.offer(unique), calls, self.tags(unique, "calls:2+", [p for _, _, p in parts]), None

    def no_tool(self) -> tuple[Any, ...]:
        answer = self.rng.choice(self.toolset.no_tool)
        if self.talk and (self.rng.random() < 0.4 or len(self.tools) < 2):
            query, own = self.talk.pop(self.rng.randrange(len(self.talk)))
            tags = ("domain:small_talk", "calls:0", "abstain:no_tool")
            return query, self.offer([]), [], tags, own or answer
        tool = self.deck.deal()
        text, _, phrasing = self.ask(tool, {})
        tags = self.tags([tool], "calls:0", [phrasing])
        tools = self.offer([], around=tool)
        return self.alone(text, phrasing), tools, [], (*tags, "abstain:no_tool"), answer

    def lacking(self) -> tuple[Any, ...]:
        tool = self.missing.deal()
        phrasing = self.pick(tool, "missing")
        text, _ = self.fill(tool, phrasing, {})
        given = {parameter for parameter, _ in phrasing.slots} | phrasing.arguments.keys()
        asked = next(parameter for parameter in tool.required if parameter not in given)
        tags = self.tags([tool], "calls:0", [phrasing])
        return self.alone(text, phrasing), self.offer([tool]), [], (*tags, "abstain:missing"), tool.ask[asked]

    def tags(self, tools: list[Tool], calls: str, phrasings: list[Phrasing]) -> tuple[str, ...]:
        domains = dict.fromkeys(f"domain:{tool.domain}" for tool in tools)
        return (*domains, calls, *dict.fromkeys(f"phrasing:{phrasing.id}" for phrasing in phrasings))

    def pick(self, tool: Tool, group: str) -> Phrasing:
        """The next phrasing of the tool that this pool may use."""
        key = (tool.name, group)
        if key not in self.decks:
            phrasings = getattr(tool, group)
            self.decks[key] = _Deck(self.wordings.own(phrasings, self.pool) or phrasings, self.rng)
        return self.decks[key].deal()

    def ask(self, tool: Tool, drawn: dict[str, list[str]]) -> tuple[str, dict[str, Any], Phrasing]:
        phrasing = self.pick(tool, "phrasings")
        text, calls = self.fill(tool, phrasing, drawn)
        return text, calls[0], phrasing

    def fill(
        self, tool: Tool, phrasing: Phrasing, drawn: dict[str, list[str]], calls: int = 1
    ) -> tuple[str, list[dict[str, Any]]]:
        """The phrasing with values in its slots, and the calls that it asks for.

        `drawn` collects what each pool gave to this request: no value comes twice, so that two
        arguments cannot be mistaken for each other.
        """
        arguments = [dict(phrasing.arguments) for _ in range(calls)]
        said: dict[str, str] = {}
        for name, number in phrasing.slots:
            slot = f"{{{name}.{number}}}" if number else f"{{{name}}}"
            if slot in said:
                continue
            pool = tool.pools[name]
            earlier = drawn.setdefault(pool.name, [])
            for _ in range(20):
                text, value = pool.draw(self.rng)
                if text not in earlier:
                    break
            else:
                raise _Repeat
            earlier.append(text)
            said[slot] = text
            for at, call in enumerate(arguments, 1):
                if number in (0, at):
                    call[name] = value
        text = SLOT.sub(lambda match: said[match.group()], _articles(phrasing.text, said))
        order = tool.definition["function"]["parameters"]["properties"]
        return text, [
            {"name": tool.name, "arguments": {name: call[name] for name in order if name in call}} for call in arguments
        ]

    def alone(self, text: str, phrasing: Phrasing) -> str:
        """A request of one phrasing."""
        if phrasing.order:
            return self.compose(ORDERS, [text])
        if self.rng.random() < 0.06 and text[-1] in ".?" and text.count(".") + text.count("?") == 1:
            return _lower(text[:-1], phrasing)  # in haste
        return text

    def joined(self, parts: list[tuple[str, Phrasing]]) -> str:
        """A request of several phrasings."""
        texts = [text for text, _ in parts]
        if all(phrasing.order for _, phrasing in parts):
            return self.compose(TWO_ORDERS if len(parts) == 2 else THREE_ORDERS, texts)
        whole = texts[0] + ("." if parts[0][1].order else "")
        links = list(NEXT_SENTENCE)
        for text, phrasing in parts[1:]:
            text += "." if phrasing.order else ""
            link = self.weighted(links)
            links = [other for other in links if other[0] != link]
            whole += link.format(b=_lower(text, phrasing), B=text)
        return whole

    def compose(self, frames: list[tuple[str, int]], orders: list[str]) -> str:
        frame = self.weighted(frames)
        words = dict(zip("ABC", orders, strict=False)) | dict(zip("abc", map(_lower, orders), strict=False))
        return frame.format(**words)

    def weighted(self, choices: list[tuple[str, int]]) -> str:
        return self.rng.choices([text for text, _ in choices], [weight for _, weight in choices])[0]

    def offer(self, right: list[Tool], around: Tool | None = None) -> list[Tool]:
        """The tools that the request comes with: the right ones and others that cannot serve it, shuffled.

        With `around`, a tool that is not offered, the others lie near it, and it and its like are left out.
        """
        near = right or ([around] if around else [])
        barred = {name for tool in near for name in (tool.name, *tool.similar)}
        barred |= {tool.name for tool in self.tools if any(other.name in tool.similar for other in near)}
        wanted = self.rng.choices(list(TOOLS_OFFERED), list(TOOLS_OFFERED.values()))[0]
        offered = list(right)
        candidates = [tool for tool in self.tools if tool.name not in barred]
        siblings = [tool for tool in candidates if tool.domain in {other.domain for other in near}]
        while candidates and (len(offered) < wanted or not offered):
            source = siblings if siblings and self.rng.random() < SAME_DOMAIN else candidates
            tool = self.rng.choice(source)
            offered.append(tool)
            candidates.remove(tool)
            if tool in siblings:
                siblings.remove(tool)
        if not offered:
            raise _Repeat
        self.rng.shuffle(offered)
        return offered


def apportion(shares: dict[str, float], count: int) -> dict[str, int]:
    """`count` divided by `shares` into whole numbers that sum up to it (largest remainders)."""
    total = sum(shares.values()) or 1.0
    exact = {key: count * share / total for key, share in shares.items()}
    parts = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(shares, key=lambda key: (parts[key] - exact[key], key))
    for key in by_remainder[: count - sum(parts.values())]:
        parts[key] += 1
    return parts


def _lower(text: str, phrasing: Phrasing | None = None) -> str:
    """The text with a small first letter, unless it begins with a slot's value, `I`, or capitals."""
    first = re.split(r"[ ']", text, maxsplit=1)[0]
    if (phrasing and phrasing.text.startswith("{")) or first == "I" or (len(first) > 1 and first.isupper()):
        return text
    return text[:1].lower() + text[1:]


def _articles(text: str, said: dict[str, str]) -> str:
    """`a/an {item}` with the article that fits the value."""

    def article(match: re.Match[str]) -> str:
        value = said[match.group(3)].lower()
        vowel = value[:1] in "aeiou" or value[:1] == "8" or re.match(r"(hour|honest|11\b|18\b)", value) is not None
        vowel = vowel and not re.match(r"(uni[^nm]|ura|uro|use|usual|eu|one\b|once\b|u[a-z]?-)", value)
        return f"{'An' if match.group(1) == 'A' and vowel else 'an' if vowel else match.group(1)} {match.group(3)}"

    return re.sub(r"\b([aA])/(an) (\{\w+(?:\.[12])?\})", article, text)
