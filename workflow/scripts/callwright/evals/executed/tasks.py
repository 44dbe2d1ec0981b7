"""Tasks of the suite `executed`: requests for tools whose functions really run against the built-in world.

A task is an example like any other. What its world looks like at first, and what it shall look like in the end, follow
from its right calls (`world.start`, `world.execute`). Left out are requests whose calls depend on their order, or
of which one could be left out without a difference.
"""

import itertools
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from callwright.data.order import in_order
from callwright.data.records import POOL_TEST, POOL_UNSEEN, Example
from callwright.data.toolset.generate import apportion
from callwright.data.toolset.phrasing import Tool, Toolset
from callwright.data.toolset.writer import Used, Wordings, Writer
from callwright.evals.executed.world import world
from callwright.runtime.errors import CallwrightError

SUITE = "executed"
TASKS = 200  # so many are made; `evaluation.items` of them are answered, the first ones of a stratified order
FEWEST = 4  # tools that the world must know
# Whether a task's tools were listed in training.
TRAINED, UNSEEN = "tools:trained", "tools:unseen"


def make_tasks(toolset: Toolset, seed: int, learned: Iterable[Example], count: int = TASKS) -> list[Example]:
    """Up to `count` tasks of the tools that the world knows, in the order in which they are answered.

    learned: the examples of training and validation. Tools that they list and tools that they do not list never stand
    together in a task; those of the first kind are asked for in wordings that training has not used, and no request
    is one of theirs or a near copy. The same arguments give the same tasks. Raises CallwrightError
    when the world knows fewer than four of the toolset's tools.
    """
    known = [tool for tool in toolset.tools if world.knows(tool.definition)]
    if len(known) < FEWEST:
        raise CallwrightError(
            f"evaluation.suites has `{SUITE}`, but the built-in world has functions for only {len(known)} tools of the "
            f"toolset {toolset.name!r}, expected {FEWEST} at least: leave `{SUITE}` out, or use the built-in toolset "
            f"(config/toolsets/everyday.yaml). The world's tools: {', '.join(world.FUNCTIONS)}"
        )
    used, listed = Used(), set()
    for example in learned:
        used.take(example.query, new=False)
        listed.update(example.tool_names)  # and, where a list gives other names, those of the wordings
        listed.update(tag.split(":", 1)[1].split("/")[0] for tag in example.tags if tag.startswith("phrasing:"))
    wordings = Wordings(toolset, seed)
    groups = {
        TRAINED: [tool for tool in known if tool.name in listed],
        UNSEEN: [tool for tool in known if tool.name not in listed],
    }
    sizes = apportion({tag: float(len(tools)) for tag, tools in groups.items()}, count)
    tasks = []
    for tag, tools in groups.items():
        if len(tools) >= 2:
            tasks += write(toolset, tools, tag, wordings, used, sizes[tag], seed)
    tasks = in_order(tasks)
    return [replace(task, id=f"task-{number:04d}") for number, task in enumerate(tasks)]


def write(
    toolset: Toolset, tools: list[Tool], tag: str, wordings: Wordings, used: Used, count: int, seed: int
) -> list[Example]:
    """Tasks of some tools, `tag` among their tags."""
    rng = random.Random(f"{seed}/{SUITE}/{tag}")
    pool = POOL_TEST if tag == TRAINED else POOL_UNSEEN
    writer = Writer(toolset, tools, pool, wordings, used, rng)
    shares = writer.feasible(toolset.mixture)
    kinds = [kind for kind, number in apportion(shares, count).items() for _ in range(number)]
    rng.shuffle(kinds)
    written = [task for task in writer.write(kinds) if is_sound(task)]
    return [replace(task, id=f"{tag}/{number}", tags=(*task.tags, tag)) for number, task in enumerate(written)]


def is_sound(task: Example) -> bool:
    """Whether a task's calls can all be made, in any order with the same outcome, and each is needed for it."""
    began = world.start(task.calls)
    wanted = world.execute(began, task.calls, task.tools)
    for order in itertools.permutations(task.calls):
        got = world.execute(began, order, task.tools)
        if got.errors or not world.succeeded(began, wanted, got) or not world.succeeded(began, got, wanted):
            return False
    fewer = (task.calls[:at] + task.calls[at + 1 :] for at in range(len(task.calls)))
    return not any(world.succeeded(began, wanted, world.execute(began, calls, task.tools)) for calls in fewer)


def wants(calls: Sequence[dict[str, Any]]) -> str:
    """What a task wants: `change` of the world, only `information`, or `nothing` to be done."""
    if not calls:
        return "nothing"
    return "information" if all(world.FUNCTIONS[call["name"]].reads for call in calls) else "change"


def domains(tags: Collection[str]) -> list[str]:
    """The domains among an example's tags."""
    return [tag.removeprefix("domain:") for tag in tags if tag.startswith("domain:")]
