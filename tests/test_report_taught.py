"""The report's section on corrections: counts, the held-back ones, and what else changed."""

from fixtures_corrections import TOOL

from callwright.data.records import Example
from callwright.report.taught import tables, taught

LEDGER = {
    "file": "c.jsonl", "repeat": 3, "trained": 2, "kept_back": 2,
    "rejected": [{"id": "x", "rule": "undone", "reason": ""}, {"id": "y", "rule": "undone", "reason": ""}],
    "corrections": [
        {"id": "1", "time": "2026-11-27T10:00:00+00:00", "used": "trained"},
        {"id": "2", "time": "2026-11-28T10:00:00+00:00", "used": "trained"},
        {"id": "3", "time": "2026-11-28T11:00:00+00:00", "used": "test"},
        {"id": "4", "time": "2026-11-28T12:00:00+00:00", "used": "test"},
    ],
}  # fmt: skip


def rows(*right):
    return [{"id": str(n), "ast": bool(found)} for n, found in enumerate(right)]


def items(count):
    call = {"name": "order", "arguments": {"drink": "tea"}}
    return [Example(str(n), [{"role": "user", "content": f"tea {n}"}], [TOOL], [call], "x") for n in range(count)]


def test_before_and_after_on_the_same_items():
    found = taught(
        LEDGER,
        examples={"test_corrections": items(2), "test_seen": items(6)},
        after={"test_corrections": rows(1, 1), "test_seen": rows(1, 1, 1, 0, 1, 0)},
        before={"test_corrections": rows(0), "test_seen": rows(1, 1, 0, 0, 1, 1)},
    )
    assert found["days"] == [{"day": "2026-11-27", "trained": 1}, {"day": "2026-11-28", "trained": 1, "test": 2}]
    assert found["rejected"] == {"undone": 2}
    assert found["kept_back"] == {"n": 2, "right": 2}
    assert found["before"] == {"n": 1, "right": 0, "right_now": 1}
    (other,) = found["others"]
    assert (other["suite"], other["n"], other["won"], other["lost"]) == ("test_seen", 6, 1, 1)
    shown = [[cell["cell"].text for cell in line["cells"]] for table in tables(found) for line in table.lines]
    assert ["2026-11-28", "1", "2", "0"] in shown
    assert ["now", "2 of 2"] in shown
    assert not [line for line in shown if line[1] == "0 of 2"], "what was not measured is no figure"
    (kept,) = [table for table in tables(found) if "never trained" in table.head[0]]
    assert "as who made it said; that was not measured" in kept.caption
    assert ["the same ones now", "1 of 1"] in shown
    assert shown[-1][:4] == ["test_seen", "6", "66.7 %", "66.7 %"]


def test_a_training_that_began_anew_compares_nothing():
    found = taught(LEDGER, {"test_seen": items(2)}, {"test_seen": rows(1, 0)}, {})
    assert (found["others"], found["kept_back"]["n"]) == ([], 0)
    assert len(tables(found)) == 2
    assert tables(None) == []
    assert tables({**found, "days": [], "rejected": {}}) == []
