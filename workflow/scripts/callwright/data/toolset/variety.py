"""How varied the training requests of a toolset are: the settings of `data.variety`, and what they stand for.

| key | of what |
|---|---|
| mixture | shares of the kinds of request: one call, several, no tool fits, a value is missing, small talk |
| tools_on_offer | how many tools a request comes with: shares of sizes, or `all` for all tools of the toolset |
| similar | of the tools beside the right one: those that share a domain, words or parameters with it |
| foreign | of the others: tools that no request ever asks for (`foreign`) |
| definitions | of the tools listed: those that have other names, styles and descriptions than the file's |
| masked | of the lists: those whose names say nothing (`f_x7k2p`) |
| described | of the parameters without a description: those that get one |
| defaults | of the optional parameters: those that get a default |
| optional | of the parts of phrasings that may be left out: those that are said |
| indirect | of the requests: those that tell a need, where the tool has such phrasings |
| slips | of the requests: those with a slip of typing |
| spliced | of the values of free text: those that are made of two of the file's (Moby Garden, Jane Dick) |
| twins | of the requests without a call: those that stand beside their like with one |
| again | of the requests for several things: those that say the same value twice |
| context | of the requests: those that begin with a story |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from callwright.runtime.errors import CallwrightError

Sizes = tuple[tuple[int, int, float], ...]  # (from, to, share)


@dataclass(frozen=True, slots=True)
class Variety:
    """See the module; the defaults are what the built-in toolset is trained with."""

    mixture: Mapping[str, float] = field(
        default_factory=lambda: {"one": 0.46, "several": 0.24, "no_tool": 0.14, "missing": 0.11, "small_talk": 0.05}
    )
    tools_on_offer: Sizes | None = ((1, 1, 0.12), (2, 4, 0.45), (5, 8, 0.25), (9, 16, 0.18))
    similar: float = 0.5
    foreign: float = 0.25
    definitions: float = 0.75
    masked: float = 0.2
    described: float = 0.8
    defaults: float = 0.3
    optional: float = 0.65
    indirect: float = 0.4
    slips: float = 0.06
    spliced: float = 0.0
    twins: float = 0.5
    again: float = 0.4
    context: float = 0.08

    def for_tests(self) -> "Variety":
        """The same with the tools as the toolset defines them, and nothing misspelt: what is asked in a test."""
        return replace(
            self, definitions=0.0, masked=0.0, described=0.0, defaults=0.0, slips=0.0, spliced=0.0, foreign=0.0
        )

    def with_no_call(self, share: float | None) -> "Variety":
        """The same with this share of requests without a call; the kinds keep their proportions among themselves."""
        if share is None:
            return self
        quiet = sum(self.mixture[kind] for kind in QUIET)
        loud = sum(self.mixture.values()) - quiet
        scaled = {
            kind: part * (share / quiet if kind in QUIET else (1 - share) / loud) if (quiet and loud) else part
            for kind, part in self.mixture.items()
        }
        return replace(self, mixture=scaled)


QUIET = ("no_tool", "missing", "small_talk")
STANDARD = Variety()


def read_variety(settings: Mapping[str, Any] | None) -> Variety | None:
    """The variety of `data.variety`; None for null. Raises CallwrightError for a size of lists that is none."""
    if settings is None:
        return None
    known = {part.name for part in fields(Variety)}
    given = {key: value for key, value in settings.items() if key in known and value is not None}
    if "mixture" in given:
        given["mixture"] = {**STANDARD.mixture, **given["mixture"]}
    if "tools_on_offer" in given:
        given["tools_on_offer"] = read_sizes(given["tools_on_offer"])
    return replace(STANDARD, **given)


def read_sizes(found: Any) -> Sizes | None:
    """`{1: 0.12, 2-4: 0.45}` as (from, to, share); None for `all`."""
    if found == "all":
        return None
    sizes = []
    for name, share in found.items():
        low, _, high = str(name).partition("-")
        if not low.isdecimal() or (high and not high.isdecimal()) or not 1 <= int(low) <= int(high or low):
            raise CallwrightError(
                f"config key data.variety.tools_on_offer has the size {name!r}: expected a number, or two as in 2-4"
            )
        sizes.append((int(low), int(high or low), float(share)))
    if not sum(share for *_, share in sizes):
        raise CallwrightError("config key data.variety.tools_on_offer: its shares are all 0")
    return tuple(sizes)
