"""A small toolset is mostly trained whole, in one order, as whoever has it gives it with every request.

A model that has only seen lists of one to five tools in any order meets something new where it is shown all ten: where
no tool encoder chooses the likeliest of them (`evals.tool_reading`), and in a conversation that goes on.
"""

import random

from callwright.data.toolset.phrasing import Tool, Toolset

MOST = 16  # tools of a toolset that is offered whole
SHARE = 0.8  # of its requests; the others come with fewer tools, so that the list itself is read


def whole(toolset: Toolset, rng: random.Random) -> bool:
    """Whether the next request of the toolset comes with all of its tools; draws only where that is open."""
    return 1 < len(toolset.tools) <= MOST and rng.random() < SHARE


def offered(toolset: Toolset, known: list[Tool], right: list[Tool], around: Tool | None) -> list[Tool]:
    """All tools that the pool knows, in the toolset's order; without those that could serve in the place of another.

    `right`: the tools that are called, which stay. `around`: one that is asked for and must not be there.
    """
    taken = {tool.name for tool in right}
    near = right or ([around] if around else [])
    there = {tool.name for tool in known}
    return [
        tool
        for tool in toolset.tools
        if tool.name in there and (tool.name in taken or not any(tool.could_serve(other) for other in near))
    ]
