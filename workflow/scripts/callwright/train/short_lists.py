"""Requests under short lists of tools that lie near each other, as a model meets them where a tool encoder chose.

    python -m callwright.train.short_lists config/requests adapters/tool-encoder/tool_encoder.safetensors OUT.jsonl

Each file's tools are divided into parts of two to four, a tool with those whose descriptions lie nearest. A request
stands under the part that holds the tools it means, up to TOGETHER of them under one list, so that training computes
the list once; now and then under all tools (WHOLE), or under a part without the tool it means (ABSENT): nothing fits.
One that means tools of several parts gets a list of its own. Some requests for one call are also said in one breath
with others (SPLICED): to find several things in a request is what small models are worst at. Files that are held back
come out as validation examples. What it writes is read with `data.source: examples`.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from callwright.data.formats.requests import HELD_BACK, lacking
from callwright.data.records import POOL_TRAIN, Example
from callwright.data.tool_texts import described

TOGETHER = 12
SIZES = {2: 0.2, 3: 0.5, 4: 0.3}
WHOLE, ABSENT = 0.12, 0.09
SPLICED = 0.12  # requests made of two or three others, for each one that is there
AFTER_A_STOP = (" ", " ", "\n", " And ", " Also, ", " Oh, and ", " Then ", " One more thing: ")
AFTER_NONE = (", ", ", and ", " and ", "; ", ". ", ", also ", ", then ", " - and ", " plus ")
_SMALL_WORDS = (
    "a all an any are at can could did do does for from give has have how in is it let make may my no our please put "
    "send set she should show some take tell that the there they this turn we what when where which who why will would "
    "you your"
)
SMALL_WORDS = frozenset(_SMALL_WORDS.split())
BESIDE = (0, 1, 1)  # tools beside those that a request of several parts means

Near = Callable[[str, Sequence[str]], Sequence[float]]  # how near each of the texts lies to the first one


def short_lists(requests: Sequence[Example], near: Near, rng: random.Random) -> list[list[Example]]:
    """The requests of one list of tools by the short lists that they were put under."""
    tools = {tool["function"]["name"]: tool for tool in requests[0].tools}
    functions = {name: tool["function"] for name, tool in tools.items()}
    texts = {name: described(function) for name, function in functions.items()}
    alike = {one: dict(zip(texts, near(texts[one], list(texts.values())), strict=True)) for one in texts}
    parts = _parts(alike, rng)
    of = {name: number for number, part in enumerate(parts) for name in part}
    under: list[list[Example]] = [[] for _ in parts]
    whole: list[Example] = []
    across: list[Example] = []
    held_back = HELD_BACK in requests[0].tags
    for request in [*requests, *([] if held_back else _spliced(requests, rng))]:
        named = {call["name"] for call in request.calls}
        if rng.random() < WHOLE:
            whole.append(request)
        elif len({of[name] for name in named}) > 1:
            across.append(request)
        elif len(request.calls) == 1 and rng.random() < ABSENT:
            own = of[request.calls[0]["name"]]
            nearest = _nearest(request.asked, texts, near)
            elsewhere = next(of[name] for name in nearest if of[name] != own)
            nothing = {"calls": [], "possible": None, "answer": None, "tags": ("calls:0", "abstain:no_tool")}
            under[elsewhere].append(replace(request, **nothing))
        elif named:
            under[of[request.calls[0]["name"]]].append(request)
        elif fitting := lacking(functions, request)[1]:  # all tools, for a request that lacks nothing: none fits it
            candidates = {name: texts[name] for name in fitting}
            under[of[_nearest(request.asked, candidates, near)[0]]].append(request)
    groups = []
    for part, found in [*zip(parts, under, strict=True), (list(tools), whole)]:
        rng.shuffle(found)
        for at in range(0, len(found), TOGETHER):
            listed = [tools[name] for name in rng.sample(part, len(part))]
            groups.append([replace(one, tools=listed) for one in found[at : at + TOGETHER]])
    for request in across:
        named = list(dict.fromkeys(call["name"] for call in request.calls))
        others = sorted(set(tools) - set(named), key=lambda name: (-max(alike[one][name] for one in named), name))
        listed = [*named, *others[: rng.choice(BESIDE)]]
        groups.append([replace(request, tools=[tools[name] for name in rng.sample(listed, len(listed))])])
    return groups


def _spliced(requests: Sequence[Example], rng: random.Random) -> list[Example]:
    """Requests that say what two or three others say, each for one call."""
    single = [request for request in requests if len(request.calls) == 1]
    made = []
    for _ in range(round(SPLICED * len(requests)) if len(single) >= 3 else 0):
        parts = rng.sample(single, rng.choice((2, 2, 3)))
        made.append(
            replace(
                parts[0],
                id="+".join(part.id for part in parts),
                messages=[{"role": "user", "content": _in_one_breath([part.asked for part in parts], rng)}],
                calls=[call for part in parts for call in part.calls],
                possible=[values for part in parts for values in part.possible or []],
                tags=("calls:2+",),
            )
        )
    return made


def _in_one_breath(requests: Sequence[str], rng: random.Random) -> str:
    said = requests[0].strip()
    for request in requests[1:]:
        request = request.strip()
        between = rng.choice(AFTER_A_STOP if said[-1] in ".!?…" else AFTER_NONE)
        first, _, rest = request.partition(" ")
        if between not in (" ", "\n", ". ") and first.lower() in SMALL_WORDS:
            request = f"{first.lower()} {rest}".strip()
        said += between + request
    return said


def _parts(alike: Mapping[str, Mapping[str, float]], rng: random.Random) -> list[list[str]]:
    """The tools in parts, each of one and those nearest to it; none is left alone where there are others."""
    left, parts = rng.sample(list(alike), len(alike)), []
    while left:
        size = rng.choices(list(SIZES), list(SIZES.values()))[0]
        first = left.pop(0)
        nearest = sorted(left, key=lambda name: -alike[first][name])[: size - 1]
        left = [name for name in left if name not in nearest]
        parts.append([first, *nearest])
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] += last
    return parts


def _nearest(request: str, texts: Mapping[str, str], near: Near) -> list[str]:
    found = dict(zip(texts, near(request, list(texts.values())), strict=True))
    return sorted(found, key=lambda name: -found[name])


def written(groups: Iterable[Sequence[Example]], rng: random.Random) -> list[dict[str, Any]]:
    """The rows of all groups, in an order of groups that is drawn."""
    groups = list(groups)
    rng.shuffle(groups)
    rows = [one for group in groups for one in group]
    return [(one if HELD_BACK in one.tags else replace(one, tags=(*one.tags, POOL_TRAIN))).to_row() for one in rows]


def main() -> int:
    """Read requests, put them under short lists, and write them."""
    from callwright.runtime import device

    device.configure()

    from callwright.data.formats.requests import read_requests
    from callwright.evals.tool_encoder import ToolEncoder
    from callwright.runtime.files import write_jsonl

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("requests", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--requests", dest="most", type=int, help="write so many, under whole lists (default: all)")
    parser.add_argument("--after", type=int, default=0, help="leave out so many: those that were trained before")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    encoder, rng = ToolEncoder.load(options.encoder), random.Random(options.seed)
    lists = [[one for _, one in read_requests(path)] for path in sorted(options.requests.glob("*.yaml"))]
    groups = [group for requests in lists for group in short_lists(requests, encoder.nearness, rng)]
    rows = written(groups, rng)[options.after :][: options.most]
    write_jsonl(options.out, rows)
    print(f"{len(rows)} requests: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
