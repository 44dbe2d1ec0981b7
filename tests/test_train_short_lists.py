"""Requests under short lists of tools that lie near each other."""

import random
from dataclasses import replace

from callwright.data.formats.requests import HELD_BACK
from callwright.data.records import POOL_TRAIN, Example
from callwright.train.short_lists import TOGETHER, short_lists, written

NAMES = [f"{kind}_{what}" for kind in ("alarm", "timer", "light") for what in ("set", "stop", "show")]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": name.replace("_", " "),
            "parameters": {
                "type": "object",
                "properties": {"at": {"type": "string"}},
                "required": ["at"][: "set" in name],
            },
        },
    }
    for name in NAMES
]


def request(number, *called, tags=()):
    calls = [{"name": name, "arguments": {"at": str(number)}} for name in called]
    said = [{"role": "user", "content": f"{called[0] if called else 'nothing'} {number}"}]
    return Example(f"r:{number}", said, TOOLS, calls, "test", tuple(tags))


def near(text, texts):
    """Texts are as near as they have letters at their beginning in common."""
    return [
        next((at for at, pair in enumerate(zip(text, other, strict=False)) if len(set(pair)) > 1), 99)
        for other in texts
    ]


def made(seed=0):
    requests = [request(n, NAMES[n % 9]) for n in range(180)]
    requests += [request(200 + n, NAMES[0], NAMES[8]) for n in range(6)]
    requests += [request(300 + n, tags=("calls:0", "abstain:no_tool")) for n in range(6)]
    requests += [request(400, tags=("calls:0", "abstain:missing", "needs:at"))]
    requests += [request(500, tags=("calls:0", "abstain:missing", "needs:elsewhere"))]
    return requests, short_lists(requests, near, random.Random(seed))


def test_requests_stand_under_few_tools_that_are_alike_and_hold_what_they_call():
    requests, groups = made()
    placed = [one for group in groups for one in group]
    assert {one.id for one in requests} - {one.id for one in placed} <= {"r:500"}, "no tool requires what that lacks"
    assert len(placed) > len(requests), "some are said in one breath"
    assert len(placed) == len({one.id for one in placed})
    assert max(map(len, groups)) <= TOGETHER
    for group in groups:
        assert len({str(one.tools) for one in group}) == 1
        assert all({call["name"] for call in one.calls} <= set(one.tool_names) for one in group)
    sizes = [len(group[0].tools) for group in groups]
    assert {2, 3, 4} & set(sizes)
    assert set(sizes) <= {2, 3, 4, 5, 9}, "four and a tool that was left over at most, or all"
    apart = [one for one in placed if len(one.calls) == 2 and len(one.tools) < 9]
    assert all(len(one.tools) <= 3 for one in apart if {NAMES[0], NAMES[8]} == {call["name"] for call in one.calls})


def test_some_do_without_the_tool_they_mean_and_nothing_fits_then():
    requests, groups = made()
    called = {one.id: one.calls for one in requests}
    absent = [one for group in groups for one in group if called.get(one.id) and not one.calls]
    assert 0.03 < len(absent) / 180 < 0.2
    for one in absent:
        assert called[one.id][0]["name"] not in one.tool_names
        assert one.tags == ("calls:0", "abstain:no_tool")


def test_rows_are_for_training_but_for_files_that_are_held_back():
    plain, held = request(1, NAMES[0]), request(2, NAMES[1], tags=(HELD_BACK,))
    rows = written([[plain], [held]], random.Random(0))
    assert {row["id"]: row["tags"] for row in rows} == {"r:1": [POOL_TRAIN], "r:2": [HELD_BACK]}
    assert made()[1] == made()[1]


def test_some_requests_are_said_in_one_breath_and_want_all_the_calls():
    requests, groups = made()
    said = {one.id: one for one in requests}
    assert all(one.calls for group in groups for one in group if "+" in one.id)
    spliced = [one for group in groups for one in group if "+" in one.id]
    assert 0.08 < len(spliced) / len(requests) < 0.16
    assert {len(one.id.split("+")) for one in spliced} == {2, 3}
    for one in spliced:
        parts = [said[part] for part in one.id.split("+")]
        assert one.calls == [call for part in parts for call in part.calls]
        places = [one.asked.index(part.asked) for part in parts]
        assert places == sorted(places)
        assert one.tags[0] == "calls:2+"


def test_what_is_held_back_is_not_spliced():
    requests, _ = made()
    held = [replace(one, tags=(*one.tags, HELD_BACK)) for one in requests]
    groups = short_lists(held, near, random.Random(0))
    assert all("+" not in one.id for group in groups for one in group)
