"""Requests of several records under one list of tools: the union of what their own lists hold.

A record of a public data set brings a list of its own, which is two thirds of its tokens. Put together, several
requests are asked of the same list: training computes that list once for all of them (`lora.sharing`), and a model
chooses among as many tools as a user has.

    requests   at most so many requests under a list
    tools      at most so many tools in it
    tokens     [least, most]: what its tools may take, drawn for each list
    alone      share of the requests that keep the list that they had (0), drawn from those with at most SHORT tools:
               of short lists nearly none are left otherwise

A request keeps the tools that its answer calls; of the others that it had, as many stay as there is room. What it
gains are tools of other records that cannot serve it: a tool that shares a word of its name, or two of its
description, with the request and the tools that its answer calls stays away, since calling it might be right too.
So do records that name different tools alike. A request that no tool serves joins a list that does not serve it
either, without tools of its own.

Where more records than a list takes have the very same tools, more than SHORT, they are put together among themselves:
their requests differ in which of these tools is meant, and strangers would only make that easier to tell.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import orjson

from callwright.data.negatives import about, content_words
from callwright.data.records import Example

SHORT = 4  # tools of a list that is cheap to compute for one request
LOOKED_AT = 500  # waiting records that are looked at for a list, before it is closed
# Words of a foreign tool's description in common with a request and the tools that it needs, from which on it might
# serve the request as well; of its name, one is enough. One word alone is often `game` or `market`, and kept 27 % of
# 387 xLAM records from any list.
ALIKE = 2

Tool = dict[str, Any]


def put_together(
    examples: Sequence[Example],
    settings: dict[str, Any],
    seed: int,
    measure: Callable[[Tool], int],
    count_tokens: Callable[[Example], int],
    max_tokens: int,
) -> tuple[list[Example], dict[str, int]]:
    """The examples in their order, under lists of several, and counts.

    `settings` is config key `data.lists`, `measure` gives the tokens of one tool in a list and `count_tokens` those of
    an example, which stays within `max_tokens`. The counts: `lists` with several requests, `requests` under them,
    `alone` (requests that keep the list that they had), `tools` on all lists of several together. The same examples
    and seed give the same lists.
    """
    rng = random.Random(f"{seed}/lists")
    records = [_Record(example, measure, count_tokens) for example in examples]
    order = rng.sample(range(len(examples)), len(examples))
    short = [index for index in order if len(examples[index].tools) <= SHORT]
    alone = set(short[: round(settings.get("alone", 0.0) * len(examples))])
    result, lists = list(examples), []
    for together in _apart(examples, [index for index in order if index not in alone], settings["requests"]):
        waiting = deque(together)
        while waiting:
            offer = _List(settings["tools"], rng.randint(*settings["tokens"]), max_tokens)
            members = _joining(offer, waiting, records, settings["requests"])
            offer.fill(rng)
            tools = rng.sample(list(offer.tools.values()), len(offer.tools))
            changed = [replace(examples[index], tools=tools) for index in members]
            if len(members) > 1 and tools and all(count_tokens(example) <= max_tokens for example in changed):
                for index, example in zip(members, changed, strict=True):
                    result[index] = example
                lists.append((len(members), len(tools)))
    requests = sum(count for count, _ in lists)
    counts = {
        "lists": len(lists),
        "requests": requests,
        "alone": len(examples) - requests,
        "tools": sum(tools for _, tools in lists),
    }
    return result, counts


def _joining(offer: "_List", waiting: deque[int], records: Sequence["_Record"], requests: int) -> list[int]:
    """The first of those waiting and up to `requests` that may join it on a list; the others wait on in their order."""
    offer.join(records[first := waiting.popleft()])
    members, passed = [first], []
    while waiting and len(members) < requests and len(passed) < LOOKED_AT:
        index = waiting.popleft()
        (members if offer.join(records[index]) else passed).append(index)
    waiting.extendleft(reversed(passed))
    return members


def _apart(examples: Sequence[Example], order: Sequence[int], requests: int) -> list[list[int]]:
    """The indices in their order, divided: those of each list that fills several by itself, and all others."""
    of_list: dict[bytes, list[int]] = defaultdict(list)
    for index in order:
        of_list[orjson.dumps(examples[index].tools)].append(index)
    own, rest = [], set(order)
    for found in of_list.values():
        if len(examples[found[0]].tools) > SHORT and len(found) > requests:
            own.append(found)
            rest -= set(found)
    return [*own, [index for index in order if index in rest]]


def tool_counter(count_tokens: Callable[[Example], int]) -> Callable[[Tool], int]:
    """`measure` for `put_together`: what one tool more adds to a prompt, in whatever form the model's template has."""
    first = {"type": "function", "function": {"name": "first", "parameters": {"type": "object", "properties": {}}}}
    example = Example("", [{"role": "user", "content": "?"}], [first], [], "")
    alone = count_tokens(example)
    known: dict[bytes, int] = {}

    def measure(tool: Tool) -> int:
        key = orjson.dumps(tool)
        if key not in known:
            known[key] = count_tokens(replace(example, tools=[first, tool])) - alone
        return known[key]

    return measure


class _Record:
    """An example, the tools that it needs and those that it can do without, and what it speaks of."""

    def __init__(self, example: Example, measure: Callable[[Tool], int], count_tokens: Callable[[Example], int]):
        self.measure = measure
        self.without_tools = count_tokens(example) - sum(map(measure, example.tools))  # tokens
        self.own = {tool["function"]["name"]: tool for tool in example.tools}
        needed = {call["name"] for call in example.calls}
        if len(example.messages) > 1 or "abstain:missing" in example.tags:
            needed = set(self.own)  # an earlier turn called some, or the request is for one that is not named
        self.needed = {name: tool for name, tool in self.own.items() if name in needed}
        self.other = {name: tool for name, tool in self.own.items() if name not in needed and example.calls}
        self.words = content_words(example.asked).union(*(_words(about(tool)) for tool in self.needed.values()))

    def gets(self, name: str, tool: Tool) -> bool:
        """Whether a tool may be on its list: its own, or one of another name that cannot serve it."""
        if name in self.own:
            return self.own[name] == tool
        return self.words.isdisjoint(_words(name)) and len(self.words & _words(about(tool))) < ALIKE


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(content_words(text))


@dataclass
class _List:
    """A list of tools that is being made, and the records whose requests are to stand under it."""

    most: int  # tools
    budget: int  # tokens of the tools
    max_tokens: int  # of an example
    tools: dict[str, Tool] = field(default_factory=dict)
    size: int = 0
    records: list[_Record] = field(default_factory=list)
    longest: int = 0  # tokens of the longest example, without tools

    def join(self, record: _Record) -> bool:
        """Take the record, with the tools that it needs, unless that is wrong or too much for the list.

        The first one is taken as it is.
        """
        new = {name: tool for name, tool in record.needed.items() if name not in self.tools}
        size = self.size + sum(map(record.measure, new.values()))
        longest = max(self.longest, record.without_tools)
        if self.records:
            if len(self.tools) + len(new) > self.most or size > self.budget or longest + size > self.max_tokens:
                return False
            if not all(record.gets(name, tool) for name, tool in self.tools.items()):
                return False
            if not all(other.gets(name, tool) for name, tool in new.items() for other in self.records):
                return False
        self.tools |= new
        self.size, self.longest = size, longest
        self.records.append(record)
        return True

    def fill(self, rng: random.Random) -> None:
        """Add what the records had besides, as far as there is room and no request could be served by it."""
        others = [(record, name, tool) for record in self.records for name, tool in record.other.items()]
        for record, name, tool in rng.sample(others, len(others)):
            size = self.size + record.measure(tool)
            if (
                name not in self.tools
                and len(self.tools) < self.most
                and size <= self.budget
                and self.longest + size <= self.max_tokens
                and all(other.gets(name, tool) for other in self.records)
            ):
                self.tools[name] = tool
                self.size = size
