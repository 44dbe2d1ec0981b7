"""Curation: each rule rejects what it says, and no record is lost or counted twice."""

import copy
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from callsmith.data.curate import curate
from callsmith.data.generate import generate
from callsmith.data.records import Example, RecordError
from callsmith.data.sources import open_records, read_records
from callsmith.data.toolset import load_toolset
from callsmith.runtime.errors import CallsmithError

from test_data_records import ROW, changed, deep, json_values, paths  # isort: skip


def configured(examples=1000, unseen_tools=0.1, **data):
    """The part of the configuration that curation and splitting read."""
    return {
        "toolset": "tools.yaml",
        "data": {
            "source": "examples",
            "path": "data.jsonl",
            "examples": examples,
            "max_tokens": 512,
            "seed": 42,
            **data,
        },
        "split": {"valid": 0.1, "test": 0.1, "unseen_tools": unseen_tools, "seed": 42},
    }


def example(number, query=None, city="Rome", **changes):
    """A record that differs from ROW in its id, its request and its argument."""
    row = copy.deepcopy(ROW)
    row["id"] = f"e{number}"
    row["messages"][0]["content"] = query or f"Weather in {city}, please, for the {number * 'very '}curious?"
    row["calls"][0]["arguments"]["city"] = city
    return Example.from_row({**row, **changes})


def named(examples):
    return [(f"data:{number}", record) for number, record in enumerate(examples, 1)]


def rules(rejections):
    return {row["id"]: row["rule"] for row in rejections}


def test_everything_is_kept_when_nothing_is_wrong(caplog):
    records = [example(number) for number in range(10)]
    kept, rejections, ledger = curate(named(records), configured(examples=10, unseen_tools=0.0))
    assert (kept, rejections) == (records, [])
    assert ledger == {"records_in": 10, "kept": 10, "rejected": {}}
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("duplicate", {"query": "weather in rome"}),
        ("duplicate_id", {"query": "Is it hot in Rome?", "id": "e1"}),
        (None, {"query": "Weather in Rome", "city": "Oslo"}),
        (None, {"query": "Weather in Rome", "calls": []}),
        (None, {"query": "Is it hot in Rome?"}),
    ],
)
def test_a_record_like_an_earlier_one_is_rejected(rule, other):
    records = [example(1, "Weather in Rome?"), example(2, **other)]
    _, rejections, _ = curate(named(records), configured())
    assert rules(rejections) == ({"data:2": rule} if rule else {})
    assert all(row["reason"] == "as in data:1" for row in rejections)


def test_requests_that_differ_in_numbers_and_quotes_alone_are_near_duplicates():
    records = [
        example(1, "Weather in 'Rome' at 10?"),
        example(2, "Weather in 'Rome' at 11?"),
        example(3, 'Weather in "Roma" at 9!'),
        example(4, "Weather in 'Oslo' at 10?", city="Oslo"),
    ]
    assert rules(curate(named(records), configured())[1]) == {"data:2": "near_duplicate", "data:3": "near_duplicate"}


def test_other_tools_or_earlier_messages_make_another_record():
    other_tool = copy.deepcopy(ROW["tools"])
    other_tool[0]["function"]["description"] = "Weather of the week."
    earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
    records = [
        example(1, "Weather in Rome?"),
        example(2, "Weather in Rome?", tools=other_tool),
        example(3, messages=[*earlier, {"role": "user", "content": "Weather in Rome?"}]),
    ]
    assert curate(named(records), configured(unseen_tools=0.0))[1] == []


def test_what_cannot_be_read_keeps_its_own_rule():
    broken = RecordError("invalid_json", "unexpected end")
    _, rejections, ledger = curate(named([broken, example(1)]), configured())
    assert rejections == [{"id": "data:1", "rule": "invalid_json", "reason": "unexpected end"}]
    assert ledger == {"records_in": 2, "kept": 1, "rejected": {"invalid_json": 1}}


def test_too_long_records_are_rejected_with_both_lengths():
    lengths = {"e1": 512, "e2": 513, "e3": 100}
    records = named([example(1), example(2), example(3)])
    kept, rejections, _ = curate(records, configured(), count_tokens=lambda e: lengths[e.id])
    assert [e.id for e in kept] == ["e1", "e3"]
    assert rejections == [{"id": "data:2", "rule": "too_long", "reason": "513 tokens, at most 512 (data.max_tokens)"}]


def test_what_the_chat_format_refuses_is_a_rejection_and_any_other_error_is_not():
    class TurnToken(Exception):
        rule, reason = "turn_token", "the request has <|im_end|>"

    def refuse(record):
        if record.id == "e2":
            raise TurnToken
        return 1

    _, rejections, _ = curate(named([example(1), example(2)]), configured(), refuse)
    assert rejections == [{"id": "data:2", "rule": "turn_token", "reason": "the request has <|im_end|>"}]
    with pytest.raises(ZeroDivisionError):
        curate(named([example(1)]), configured(), lambda record: 1 // 0)


def test_nothing_left_is_one_clear_message():
    broken = [("data:1", RecordError("no_tools", "the record lists no tool"))] * 3
    with pytest.raises(CallsmithError) as caught:
        curate([*broken, ("data:4", RecordError("schema", "city: 5"))], configured())
    assert str(caught.value) == (
        "data.jsonl: none of its 4 records is usable. Most often: no_tools 3 times (data:1: the record lists no tool); "
        "schema 1 times (data:4: city: 5). Check data.source and data.path"
    )
    with pytest.raises(CallsmithError, match=r"data\.jsonl holds no record: there is nothing to learn from"):
        curate([], configured())
    with pytest.raises(CallsmithError, match=r"tools\.yaml holds no record"):
        curate([], configured(source="toolset"))
    with pytest.raises(CallsmithError, match="the Hugging Face data set holds no record"):
        curate([], configured(source="xlam", path=None))


def test_too_few_records_are_a_warning(caplog):
    curate(named([example(1), example(2)]), configured(examples=20, unseen_tools=0.1))
    assert "2 examples are fewer than the 22 that were asked for" in caplog.text


def test_a_sample_keeps_the_shares_of_the_strata_and_the_order_of_the_records():
    records = [example(number) for number in range(60)]
    records += [example(number, calls=[], tags=["abstain:no_tool"]) for number in range(60, 90)]
    records += [example(number, calls=[], tags=["abstain:missing"]) for number in range(90, 100)]
    kept, rejections, ledger = curate(named(records), configured(examples=20, unseen_tools=0.0))
    assert Counter(e.stratum for e in kept) == {"one": 12, "abstain:no_tool": 6, "abstain:missing": 2}
    assert kept == sorted(kept, key=lambda e: int(e.id[1:]))
    assert ledger == {"records_in": 100, "kept": 20, "rejected": {"not_sampled": 80}}
    assert {row["id"] for row in rejections} | {f"data:{int(e.id[1:]) + 1}" for e in kept} == {
        i for i, _ in named(records)
    }
    other, _, _ = curate(named(records), configured(examples=20, unseen_tools=0.0, seed=43))
    assert other != kept


def test_a_sample_has_as_many_tools_as_can_be():
    def of(number, tool):
        tools = copy.deepcopy(ROW["tools"])
        tools[0]["function"]["name"] = tool
        return example(number, tools=tools, calls=[{"name": tool, "arguments": {"city": "Rome"}}])

    records = [of(number, "common") for number in range(50)] + [of(50 + number, f"rare{number}") for number in range(5)]
    kept, _, _ = curate(named(records), configured(examples=6, unseen_tools=0.0))
    assert {e.calls[0]["name"] for e in kept} == {"common", *(f"rare{number}" for number in range(5))}


rows = st.one_of(
    st.integers(0, 30).map(lambda number: example(number).to_row()),
    st.builds(changed, paths, json_values),
    json_values,
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows, max_size=12), st.integers(1, 8))
def test_records_in_are_kept_or_rejected(values, wanted):
    records = []
    for number, value in enumerate(values, 1):
        try:
            records.append((f"data:{number}", Example.from_row(value)))
        except RecordError as error:
            records.append((f"data:{number}", error))
    try:
        kept, rejections, ledger = curate(records, configured(examples=wanted))
    except CallsmithError:
        assert all(isinstance(record, RecordError) for _, record in records)
        return
    assert ledger["records_in"] == len(values) == len(kept) + len(rejections)
    assert ledger["kept"] == len(kept)
    assert ledger["rejected"] == Counter(row["rule"] for row in rejections)
    assert len({row["id"] for row in rejections}) == len(rejections)
    assert all(row["reason"] for row in rejections)
    assert len({e.id for e in kept}) == len(kept)


def test_a_file_of_every_broken_kind_leaves_the_good_records(tmp_path):
    lines = {
        "": json.dumps(example(1).to_row()).encode(),
        "invalid_utf8": b'{"id": "\xff"}',
        "invalid_json": b'{"id": "e1", "messages": [}',
        "not_finite": json.dumps(changed(["calls", 0, "arguments", "city"], float("nan"))).encode(),
        "wrong_type": json.dumps(changed(["tools"], "none")).encode(),
        "missing_field": json.dumps(changed(["calls"], ...)).encode(),
        "unknown_tool": json.dumps(changed(["calls", 0, "name"], "get_wether")).encode(),
        "missing_argument": json.dumps(changed(["calls", 0, "arguments"], {})).encode(),
        "schema": json.dumps(changed(["calls", 0, "arguments", "city"], 5)).encode(),
        "too_large": json.dumps(changed(["messages", 0, "content"], "x" * 10_000_000)).encode(),
        "too_deep": json.dumps(changed(["calls", 0, "arguments", "city"], deep(900))).encode(),
        "duplicate": json.dumps(example(1, id="e2").to_row()).encode(),
        "duplicate_id": json.dumps(example(1, "Is it cold in Rome?").to_row()).encode(),
    }
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join([*lines.values(), b"[" * 1000 + b"]" * 1000, json.dumps(ROW).encode()]))
    kept, rejections, ledger = curate(read_records(path, "examples"), configured(unseen_tools=0.0))
    assert [e.id for e in kept] == ["e1", "a"]
    assert list(rules(rejections).values()) == [rule for rule in lines if rule] + ["too_deep"]
    assert ledger == {"records_in": 15, "kept": 2, "rejected": dict.fromkeys(filter(None, lines), 1) | {"too_deep": 2}}
    assert all(len(row["reason"]) < 300 for row in rejections)


def test_the_generated_examples_pass_almost_all(root):
    settings = configured(source="toolset") | {"toolset": root / "config" / "toolsets" / "everyday.yaml"}
    kept, _, ledger = curate(open_records(settings), settings)
    assert ledger["kept"] == len(kept) == 1100
    assert ledger["records_in"] == 1155
    assert set(ledger["rejected"]) <= {"near_duplicate", "not_sampled"}
    assert Counter(tag for e in kept for tag in e.tags if tag.startswith("pool:")) == {
        "pool:train": 900, "pool:test": 100, "pool:unseen_tools": 100,
    }  # fmt: skip


def test_the_same_records_give_the_same_examples_whatever_the_hash_seed(root):
    path = root / "config" / "toolsets" / "everyday.yaml"
    code = (
        "import sys, hashlib, orjson\n"
        "from callsmith.data.curate import curate\n"
        "from callsmith.data.sources import open_records\n"
        "from callsmith.data.split import split\n"
        "settings = orjson.loads(sys.argv[1])\n"
        "kept, rejections, ledger = curate(open_records(settings), settings)\n"
        "manifest = split(kept, settings)[1]\n"
        "rows = [e.to_row() for e in kept]\n"
        "print(hashlib.sha256(orjson.dumps([rows, rejections, ledger, manifest])).hexdigest())\n"
    )
    settings = configured(examples=200, source="toolset") | {"toolset": str(path)}
    found = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(settings)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root / "workflow" / "scripts")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "5")
    }
    assert len(found) == 1


def test_the_pools_of_generated_examples_stay_in_any_order_of_the_records(root):
    made = generate(load_toolset(root / "config" / "toolsets" / "everyday.yaml"), examples=100)
    settings = configured(examples=100, source="toolset")
    pools = {e.id: e.tags for e in made}
    ahead, _, ledger = curate(named(made), settings)
    back, _, other_ledger = curate(named(reversed(made)), settings)
    assert ledger == other_ledger
    assert all(e.tags == pools[e.id] for e in (*ahead, *back))
    assert [int(e.id[-5:]) for e in back] == sorted((int(e.id[-5:]) for e in back), reverse=True)


def test_the_real_sample_is_curated_and_its_counts_add_up(xlam_sample):
    settings = configured(examples=200, source="xlam", path=str(xlam_sample))
    kept, rejections, ledger = curate(read_records(xlam_sample, "xlam"), settings)
    assert ledger["records_in"] == 400 == len(kept) + len(rejections)
    assert sum(ledger["rejected"].values()) == len(rejections)
    unseen = [e for e in kept if "pool:unseen_tools" in e.tags]
    assert len(kept) - len(unseen) == 200
    assert 10 <= len(unseen) <= 25
    seen_tools = {name for e in kept if "pool:unseen_tools" not in e.tags for name in e.tool_names}
    assert not seen_tools & {name for e in unseen for name in e.tool_names}
