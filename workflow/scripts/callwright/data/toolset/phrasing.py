"""A toolset in memory: tools, the ways to ask for them, and the values of their slots."""

import random
import re
from dataclasses import dataclass, field
from typing import Any

from callwright.data.toolset.constraints import ArgumentConstraint
from callwright.data.toolset.values import Pool

SLOT = re.compile(r"\{(\w+)(?:\.([1-9]))?\}")
OPTIONAL = re.compile(r"\[([^\[\]]*)\]")

Slots = tuple[tuple[str, int], ...]


def slots_of(text: str) -> Slots:
    """(parameter, number of the call or 0 for all calls) of each slot, in order of the text."""
    return tuple((match.group(1), int(match.group(2) or 0)) for match in SLOT.finditer(text))


@dataclass(frozen=True, slots=True)
class Phrasing:
    """One way to ask. `text` may have optional parts in square brackets."""

    id: str
    text: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> bool:
        """True for an order, which has no mark at its end and may be joined to others; a need told is none."""
        return "/indirect/" not in self.id and self.text.rstrip("]")[-1:] not in (".", "?", "!")

    @property
    def slots(self) -> Slots:
        """All slots of the text, those of optional parts among them."""
        return slots_of(self.text)

    @property
    def certain(self) -> Slots:
        """The slots outside of optional parts."""
        return slots_of(OPTIONAL.sub("", self.text))

    def plain(self, rng: random.Random, kept: float = 0.5) -> str:
        """The text with each optional part kept, with a chance of `kept`, or dropped."""
        return OPTIONAL.sub(lambda match: match.group(1) if rng.random() < kept else "", self.text)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, its OpenAI definition, and how people ask for it."""

    name: str
    domain: str
    definition: dict[str, Any]
    pools: dict[str, Pool]
    phrasings: tuple[Phrasing, ...]
    twice: tuple[Phrasing, ...]
    missing: tuple[Phrasing, ...]
    ask: dict[str, str]
    similar: frozenset[str]
    constraints: tuple[ArgumentConstraint, ...] = ()
    indirect: tuple[Phrasing, ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the arguments."""
        return self.definition["function"]["parameters"]

    @property
    def required(self) -> list[str]:
        """Names of the required parameters."""
        return self.parameters["required"]

    def lacks(self, given: Any) -> list[str]:
        """The required parameters that are not among the names `given`."""
        return [name for name in self.required if name not in given]

    def could_serve(self, other: "Tool") -> bool:
        """True when a request for `other` could be meant for this tool too."""
        return self.name == other.name or self.name in other.similar or other.name in self.similar


@dataclass(frozen=True, slots=True)
class OwnExample:
    """A user's own request with its calls. `place` says where it stands; `answer` is said where there is no call."""

    messages: tuple[dict[str, Any], ...]
    calls: tuple[dict[str, Any], ...]
    answer: str | None
    place: str


@dataclass(frozen=True, slots=True)
class Toolset:
    """What `toolset.load_toolset` returns. `small_talk`: requests that no tool serves, and what to say, or None."""

    name: str
    tools: tuple[Tool, ...]
    small_talk: tuple[tuple[Phrasing, str | None], ...]
    no_tool: tuple[str, ...]
    mixture: dict[str, float]
    pools: dict[str, Pool]
    examples: tuple[OwnExample, ...] = ()

    @property
    def domains(self) -> list[str]:
        """Names of the domains, in the file's order."""
        return list(dict.fromkeys(tool.domain for tool in self.tools))
