"""The suite `abstain`: requests in pairs, of which one wants a call and its twin none. When does a model call?

Half of the pairs differ in the tool (the same words, the right tool on offer or replaced by one like it), half in the
value (the same phrasing with and without what a required parameter needs; then a good answer asks for it). Scores
by `scoring.score.balanced_accuracy`, so that calling always, and never, are both worth 50 %, and by `asked_right`.
"""

import random
from collections.abc import Iterable
from dataclasses import replace

from callwright.data.records import POOL_TEST, POOL_UNSEEN, Example
from callwright.data.toolset import wording
from callwright.data.toolset.definitions import as_it_is
from callwright.data.toolset.generate import hold_out_tools
from callwright.data.toolset.phrasing import Toolset
from callwright.data.toolset.varied import VariedWriter
from callwright.data.toolset.variety import STANDARD
from callwright.data.toolset.writer import Repeat, Used, Wordings
from callwright.runtime.errors import CallwrightError

SUITE = "abstain"
ITEMS = 120
UNSEEN = 1 / 3  # share of the pairs about tools that training does not list
ATTEMPTS = 200
PAIR = "pair:"


def make_pairs(toolset: Toolset, seed: int, learned: Iterable[Example], items: int = ITEMS) -> list[Example]:
    """`items` examples, each pair side by side; its two have the tag `pair:<number>` in common.

    learned: the examples of training and validation, of whose requests none is repeated. In wordings that training has
    not used; the same arguments give the same items. Raises CallwrightError when the toolset has no questions to ask
    and no tool to leave out.
    """
    used = Used()
    for example in learned:
        used.take(example.query, new=False)
    held = hold_out_tools(toolset, seed)
    wordings = Wordings(toolset, seed)
    pairs: list[tuple[Example, Example]] = []
    unseen = round(items / 2 * UNSEEN) if held else 0
    for pool, count in ((POOL_TEST, items // 2 - unseen), (POOL_UNSEEN, unseen)):
        tools = [tool for tool in toolset.tools if (tool.name in held) == (pool == POOL_UNSEEN)]
        rng = random.Random(f"{seed}/{SUITE}/{pool}")
        writer = VariedWriter(toolset, tools, pool, wordings, used, rng, replace(STANDARD.for_tests(), context=0.0))
        pairs += _pairs(writer, count)
    if not pairs:
        raise CallwrightError(
            f"evaluation.suites has `{SUITE}`, but no pair can be made of the toolset {toolset.name!r}: it needs two "
            "tools, or questions under `ask`; leave the suite out"
        )
    random.Random(f"{seed}/{SUITE}/order").shuffle(pairs)
    return [
        replace(example, id=f"{SUITE}-{number:03d}-{side}", tags=(*example.tags, f"{PAIR}{number}"))
        for number, pair in enumerate(pairs)
        for side, example in zip(("call", "none"), pair, strict=True)
    ]


def _pairs(writer: VariedWriter, count: int) -> list[tuple[Example, Example]]:
    makers = [_without_tool, _without_value]
    found: list[tuple[Example, Example]] = []
    for _ in range(ATTEMPTS * count):
        if len(found) == count:
            break
        try:
            pair = makers[len(found) % 2](writer)
        except Repeat:
            continue
        if pair is not None:
            found.append(pair)
        else:
            makers.reverse()  # where one kind cannot be made, the other takes its place
    return found


def _without_tool(writer: VariedWriter) -> tuple[Example, Example] | None:
    """The same request with its tool on offer, and with a tool like it in the tool's place."""
    query, listed, calls, tags, _ = writer.one()
    (tool,) = (shown.tool for shown in listed if shown.tool is not None and shown.tool.name == calls[0]["name"])
    others = {shown.tool.name for shown in listed}
    like = [t for t in writer.akin[tool.name] if not t.could_serve(tool) and t.name not in others]
    if not like:
        like = [t for t in writer.tools if not t.could_serve(tool) and t.name not in others]
    instead = [as_it_is(writer.rng.choice(like))] if like else []
    rest = [entry for shown in listed for entry in ([shown] if shown.tool is not tool else instead)]
    if not rest or any(entry.tool.could_serve(tool) for entry in rest):
        return None
    if not writer.used.take(query, new=True):
        raise Repeat
    quiet = ("calls:0", *(tag for tag in tags if not tag.startswith("calls:")), "abstain:no_tool")
    return (
        writer.example("call", query, listed, calls, tags, None),
        writer.example("none", query, rest, [], quiet, writer.toolset.no_tool[0]),
    )


def _without_value(writer: VariedWriter) -> tuple[Example, Example] | None:
    """One phrasing with all that its tool needs, and without one required value."""
    tool = writer.draw("missing")
    found = writer.without(tool)
    if found is None:
        raise Repeat
    phrasing, shorter, name = found
    listed = writer.listed([tool])
    texts = []
    whole, state = phrasing.plain(writer.rng, writer.optional), writer.rng.getstate()
    for text in (whole, shorter):
        writer.rng.setstate(state)  # the same polite words around both
        filled, calls = writer.fill(tool, phrasing, text, {})
        writer.rng.setstate(state)
        texts.append((wording.alone(filled, phrasing, writer.rng), calls))
    (whole, calls), (lacking, _) = texts
    if not (writer.used.take(whole, new=False) and writer.used.take(lacking, new=False)):
        raise Repeat
    tags = writer.tags([tool], "calls:1", [phrasing])
    quiet = (*writer.tags([tool], "calls:0", [phrasing]), "abstain:missing", f"needs:{name}")
    return (
        writer.example("call", whole, listed, calls, tags, None),
        writer.example("none", lacking, listed, [], quiet, tool.ask[name]),
    )
