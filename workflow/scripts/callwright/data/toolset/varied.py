"""Requests and lists of tools as varied as `data.variety` says: what `writer.Writer` writes, in more ways.

Lists of one to sixteen tools in other people's definitions, similar and foreign ones among them, the right one at
every place equally often; requests that tell a need, that want up to five calls, that say a value twice; and
requests without a call that stand beside their twins with one: the same words without the tool, the same phrasing
without the value.
"""

import random
import re
from typing import Any

from callwright.data.negatives import about, content_words
from callwright.data.toolset import serving_order, values, wording
from callwright.data.toolset.definitions import Shown, as_it_is, show
from callwright.data.toolset.foreign import foreign_tools, pick_foreign
from callwright.data.toolset.generators import Draw
from callwright.data.toolset.phrasing import SLOT, Phrasing, Tool, Toolset
from callwright.data.toolset.variety import Variety
from callwright.data.toolset.writer import Deck, Made, Repeat, Used, Wordings, Writer

CALLS = {2: 0.45, 3: 0.30, 4: 0.15, 5: 0.10}  # of the requests for several
SHAPES = {"same": 0.40, "different": 0.35, "mixed": 0.25}
# Of the requests that nothing on offer serves: what they stand beside.
BESIDE = {"similar": 0.60, "one": 0.25, "many": 0.15}
MANY = (5, 12)
RICH = 3  # how many times as often a tool with three parameters and more is asked for
FORMAL = {"integer", "number", "boolean", "array", "object"}
# A value that a phrase leads up to, with the unit that follows, at the end of a clause: the twin goes without.
_LEADS = "in|for|at|on|to|from|with|by|called|named|near|about|until|of"
_UNITS = (
    "minutes|nights|people|degrees|percent|stars|weeks|hours|dollars|kilos|kg|ml|cm|mm|questions|copies|times|lines|"
    "replicas"
)
_PHRASE = (
    r"\s(?:{leads})(?:\sthe|\sa/an|\sa|\smy)?\s\{{{slot}\}}(?:\s(?:{units}))?"
    r"(?=\s*(?:[.?!,]|$)|\s(?:{leads}|right|now|today|please|and)\b)"
)


class VariedWriter(Writer):
    """Writes the examples of one pool, varied."""

    def __init__(
        self,
        toolset: Toolset,
        tools: list[Tool],
        pool: str,
        wordings: Wordings,
        used: Used,
        rng: random.Random,
        variety: Variety,
    ):
        super().__init__(toolset, tools, pool, wordings, used, rng)
        self.variety, self.optional = variety, variety.optional
        asked = [tool for tool in tools if wordings.own((*tool.phrasings, *tool.indirect), pool)]
        self.strict = bool(asked)
        # Tools with three parameters and more are asked for more often: there is more to say of them.
        self.deck = Deck(
            [t for t in asked or tools for _ in range(RICH if len(t.parameters["properties"]) > 2 else 1)], rng
        )
        self.foreign = foreign_tools() if variety.foreign else []
        self.akin = {tool.name: self._akin(tool) for tool in tools}
        self.places: dict[int, Deck] = {}
        self.group: dict[str | None, Deck] = {}
        self.list: list[Shown] | None = None
        self.absent: list[Made] = []  # requests with calls that may come again without their tools
        self.present: list[tuple[Tool, Phrasing, list[Shown]]] = []  # phrasings that lacked a value and come again
        self.makers |= {"small_talk": self.small_talk}

    def _akin(self, tool: Tool) -> list[Tool]:
        """Other tools of its domain, and those that share a word or a kind of value with it."""
        words, pools = content_words(about(tool.definition)), {pool.name for pool in tool.pools.values()}
        return [
            other
            for other in self.tools
            if other.name != tool.name
            and (
                other.domain == tool.domain
                or words & content_words(about(other.definition))
                or pools & {pool.name for pool in other.pools.values()}
            )
        ]

    def feasible(self, mixture: dict[str, float]) -> dict[str, float]:
        """The mixture of `variety` without the kinds of request that these tools cannot make."""
        shares = dict(self.variety.mixture)
        if not self.able["missing"]:
            shares["one"] += shares.pop("missing")
        if not self.talk.cards:
            shares["one"] += shares.pop("small_talk")
        if len(self.tools) < 2 and not self.foreign:
            shares["one"] += shares.pop("no_tool")
        return shares

    # Lists of tools

    def begin_group(self) -> None:
        """A list of tools for the next requests."""
        self.list, self.group, self.present = None, {}, []
        self.list = self.listed([self.deck.deal()])
        self.shared = [shown.tool for shown in self.list if shown.tool is not None]

    def draw(self, group: str | None = None) -> Tool:
        """The next tool to ask for; in a group of requests each of its tools as often as the others."""
        if self.shared is None:
            return super().draw(group)
        if group not in self.group:
            self.group[group] = Deck([t for t in self.shared if group is None or t in self.able[group]], self.rng)
        if not self.group[group].cards:
            raise Repeat
        return self.group[group].deal()

    def offer(self, right: list[Tool], around: Tool | None = None, given: frozenset[str] = frozenset()) -> list[Shown]:
        """The tools that the request comes with; see `listed`. In a group of requests, the tools of the group."""
        return self.list if self.list is not None else self.listed(right, around, given)

    def listed(
        self, right: list[Tool], around: Tool | None = None, given: frozenset[str] = frozenset()
    ) -> list[Shown]:  # fmt: skip
        """The right tools among others that cannot serve the request, in their definitions.

        With `around`, a tool that is not offered, the others lie near it, and it and its like are left out. `given`:
        the parameters that the request gives values for; by these a tool may be told from one like it.
        """
        near = right or ([around] if around else [])
        if serving_order.whole(self.toolset, self.rng):  # a small toolset, as it will be served
            return plainly(serving_order.offered(self.toolset, self.tools, right, around)) or nothing()
        wanted, beside = self.size(), ""
        if around is not None:
            beside = self.rng.choices(list(BESIDE), list(BESIDE.values()))[0]
            wanted = 1 if beside == "one" else self.rng.randint(*MANY) if beside == "many" else max(wanted, 2)
        offered = list(right)
        candidates = [t for t in self.tools if t not in right and not any(self.alike(t, n, given) for n in near)]
        strangers: list[dict[str, Any]] = []
        words = {word for tool in near for word in content_words(about(tool.definition))}
        while len(offered) + len(strangers) < wanted:
            first = not offered and not strangers
            akin = [t for t in candidates if any(t in self.akin[n.name] for n in near)]
            if akin and (self.rng.random() < self.variety.similar or (first and beside == "similar")):
                tool = self.rng.choice(akin)
            elif self.foreign and (self.rng.random() < self.variety.foreign or not candidates):
                stranger = pick_foreign(self.foreign, 1, self.rng)[0]
                if not words & content_words(about(stranger)) and stranger not in strangers:
                    strangers.append(stranger)
                continue
            elif candidates:
                tool = self.rng.choice(candidates)
            else:
                break
            offered.append(tool)
            candidates = [other for other in candidates if other is not tool and not other.could_serve(tool)]
        if not offered and not strangers:
            raise Repeat
        shown = [*show(offered, self.variety, self.rng), *(Shown(None, tool) for tool in strangers)]
        names = [entry.name for entry in shown]
        if len(set(names)) < len(names):
            raise Repeat
        first, rest = shown[0], shown[1:]
        self.rng.shuffle(rest)
        if len(right) != 1:
            return self.rng.sample(shown, len(shown))
        rest.insert(self.place(len(shown)), first)  # the right one
        return rest

    def size(self) -> int:
        """How many tools are listed."""
        if self.variety.tools_on_offer is None:
            return len(self.tools)
        sizes = self.variety.tools_on_offer
        low, high, _ = self.rng.choices(sizes, [share for *_, share in sizes])[0]
        return self.rng.randint(low, high)

    def place(self, length: int) -> int:
        """Where the right tool stands in a list of this length: at each place equally often."""
        if length not in self.places:
            self.places[length] = Deck(range(length), self.rng)
        return self.places[length].deal()

    def alike(self, other: Tool, tool: Tool, given: frozenset[str]) -> bool:
        """Could the request be meant for `other`? Not when it says something formal that `other` has no place for."""
        if not tool.could_serve(other):
            return False
        said = {name for name in given if formal(tool, name)}
        lacks = [name for name in other.required if formal(other, name) and name not in given]
        return not (given and (said - other.parameters["properties"].keys() and lacks))

    # Requests

    def pick(self, tool: Tool, group: str) -> Phrasing:
        """The next phrasing of the tool that this pool may use; now and then one that tells a need."""
        if group == "phrasings" and tool.indirect and self.rng.random() < self.variety.indirect:
            own = self.wordings.own(tool.indirect, self.pool)
            if own:
                return super().pick(tool, "indirect")
        if group == "phrasings" and self.strict and not self.wordings.own(tool.phrasings, self.pool):
            group = "indirect"
        found = super().pick(tool, group)
        if group == "phrasings" and len(found.slots) < len(tool.parameters["properties"]) and self.rng.random() < 0.5:
            found = max(found, super().pick(tool, group), key=lambda phrasing: len(phrasing.slots))  # says more
        return found

    def said(self, text: str) -> str:
        """The phrasing as it is typed, now and then with a slip."""
        return wording.slip(text, self.rng) if self.rng.random() < self.variety.slips else text

    def value(self, tool: Tool, name: str) -> Draw:
        """A value of a parameter; now and then a free text that the file does not list."""
        schema, entries = tool.parameters["properties"][name], tool.pools[name].entries
        free = entries and schema.keys() <= {"type", "description"}
        spliced = free and self.variety.spliced and self.rng.random() < self.variety.spliced
        return (values.spliced(entries, self.rng) if spliced else None) or super().value(tool, name)

    def one(self) -> Made:
        if self.present:
            tool, phrasing, listed = self.present.pop()
            text, calls = self.fill(tool, phrasing, phrasing.plain(self.rng, self.optional), {})
            query = self.told(wording.alone(text, phrasing, self.rng))
            return query, listed, calls, (*self.tags([tool], "calls:1", [phrasing]), "twin:present"), None
        tool = self.draw()
        query, calls, phrasing = self.single(tool, "phrasings")
        query = self.told(query)
        listed = self.offer([tool], given=frozenset(calls[0]["arguments"]))
        made = (query, listed, calls, self.tags([tool], "calls:1", [phrasing]), None)
        if len(self.absent) < 200:
            self.absent.append(made)
        return made

    def told(self, query: str) -> str:
        """The request, now and then after a story that has nothing to do with it."""
        return f"{self.rng.choice(wording.STORIES)} {query}" if self.rng.random() < self.variety.context else query

    def several(self) -> Made:
        shape = self.rng.choices(list(SHAPES), list(SHAPES.values()))[0]
        count = self.rng.choices(list(CALLS), list(CALLS.values()))[0]
        if shape == "same" and self.able["twice"] and self.rng.random() < 0.7:
            tool = self.draw("twice")
            query, calls, phrasing = self.many(tool, count)
            return self.told(query), self.offer([tool]), calls, self.tags([tool], "calls:2+", [phrasing]), None
        if shape == "same":
            tools = [self.draw()] * min(count, 3)
        else:
            tools = self.different(count if shape == "different" else max(count - 1, 2))
            if shape == "mixed":
                tools.insert(self.rng.randrange(len(tools)), self.rng.choice(tools))
        drawn: dict[str, list[str]] = {}
        again: dict[str, Draw] | None = {} if self.rng.random() < self.variety.again else None
        parts = [self.ask(tool, drawn, again) for tool in tools]
        calls = [call for _, call, _ in parts]
        if any(call == other for at, call in enumerate(calls) for other in calls[:at]):
            raise Repeat
        query = wording.joined([(text, phrasing) for text, _, phrasing in parts], self.rng)
        unique = list({tool.name: tool for tool in tools}.values())
        tags = self.tags(unique, "calls:2+", [phrasing for _, _, phrasing in parts])
        return self.told(query), self.offer(unique), calls, tags, None

    def many(self, tool: Tool, count: int) -> tuple[str, list[dict[str, Any]], Phrasing]:
        """A request for `count` calls of one tool, where a phrasing for two can be drawn out to so many."""
        phrasing = self.pick(tool, "twice")
        text = phrasing.plain(self.rng, self.optional)
        longer = wording.drawn_out(text, count)
        count = count if longer else 2
        text, calls = self.fill(tool, phrasing, longer or text, {}, count)
        return wording.alone(text, phrasing, self.rng), calls, phrasing

    def no_tool(self) -> Made:
        answer = self.rng.choice(self.toolset.no_tool)
        if self.absent and self.rng.random() < self.variety.twins:
            query, _, calls, tags, _ = self.absent.pop(self.rng.randrange(len(self.absent)))
            tool = next(tool for tool in self.tools if tool.name == calls[0]["name"])
            if any(tool.could_serve(other) for other in self.shared or []):
                raise Repeat
            tags = tuple(tag for tag in tags if not tag.startswith("calls:"))
            return query, self.offer([], around=tool), [], ("calls:0", *tags, "abstain:no_tool", "twin:absent"), answer
        tool = self.deck.deal()
        if any(tool.could_serve(other) for other in self.shared or []):
            raise Repeat
        query, _, phrasing = self.single(tool, "phrasings")
        tags = self.tags([tool], "calls:0", [phrasing])
        return self.told(query), self.offer([], around=tool), [], (*tags, "abstain:no_tool"), answer

    def small_talk(self) -> Made:
        query, tags, answer = self.talked()
        return query, self.offer([]), [], tags, answer or self.rng.choice(self.toolset.no_tool)

    def lacking(self) -> Made:
        tool = self.draw("missing")
        if self.rng.random() < self.variety.twins and (found := self.without(tool)):
            phrasing, text, name = found
            text, _ = self.fill(tool, phrasing, text, {})
            query, listed = self.told(wording.alone(text, phrasing, self.rng)), self.offer([tool])
            self.present.append((tool, phrasing, listed))
            tags = (*self.tags([tool], "calls:0", [phrasing]), "abstain:missing", "twin:lacking", f"needs:{name}")
            return query, listed, [], tags, tool.ask[name]
        query, calls, phrasing = self.single(tool, "missing")
        lacks = tool.lacks(calls[0]["arguments"])
        tags = self.tags([tool], "calls:0", [phrasing])
        needs = tuple(f"needs:{name}" for name in lacks)
        return self.told(query), self.offer([tool]), [], (*tags, "abstain:missing", *needs), tool.ask[lacks[0]]

    def without(self, tool: Tool) -> tuple[Phrasing, str, str] | None:
        """A phrasing of the tool without the value of one required parameter: phrasing, text, parameter."""
        found = []
        for phrasing in self.wordings.own((*tool.phrasings, *tool.indirect), self.pool):
            text = phrasing.plain(self.rng, self.optional)
            for name, _ in phrasing.certain:
                if name not in tool.required or name not in tool.ask or text.count(f"{{{name}}}") != 1:
                    continue
                pattern = _PHRASE.format(leads=_LEADS, units=_UNITS, slot=name)
                shorter, count = re.subn(pattern, "", text)
                if count == 1 and len(SLOT.sub("X", shorter).split()) > 2:
                    found.append((phrasing, shorter, name))
        return self.rng.choice(found) if found else None


def formal(tool: Tool, name: str) -> bool:
    """Whether a parameter takes a number, a date, a time or one of a few words: what cannot be mistaken for a name."""
    part = tool.parameters["properties"].get(name, {})
    return part.get("type") in FORMAL or "enum" in part or bool(re.search("YYYY|HH:MM", part.get("description", "")))


def nothing() -> list[Shown]:
    """No tool can be listed: draw again."""
    raise Repeat


def plainly(tools: list[Tool]) -> list[Shown]:
    """The tools as the toolset defines them."""
    return [as_it_is(tool) for tool in tools]
