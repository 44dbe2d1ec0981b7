"""Curation: each rule rejects what it says, and no record is lost or counted twice."""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from callwright.data.curate import RULES, curate
from callwright.data.records import Example, RecordError
from callwright.data.sources import open_records, read_records
from callwright.data.text import damage
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.runtime.errors import CallwrightError

from fixtures_records import ROW, changed, deep, json_values, paths  # isort: skip
from fixtures_records import configured, example, named


def counts(ledger):
    return {key: ledger[key] for key in ("records_in", "kept", "rejected")}


def rules(rejections):
    return {row["id"]: row["rule"] for row in rejections}


def test_everything_is_kept_when_nothing_is_wrong(caplog):
    records = [example(number) for number in range(10)]
    kept, rejections, ledger = curate(named(records), configured(examples=10, unseen_tools=0.0))
    assert (kept, rejections) == (records, [])
    assert (ledger["records_in"], ledger["kept"], ledger["rejected"]) == (10, 10, {})
    assert ledger["rules"] == [{"rule": rule, "rejected": 0, "left": 10} for rule in RULES]
    assert ledger["before"] == ledger["after"]
    assert ledger["after"]["argument_types"] == {"string": 10}
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("duplicate", {"query": "weather in rome"}),
        ("duplicate_id", {"query": "Is it hot in Rome?", "id": "e1"}),
        ("near_duplicate", {"query": "Weather in Rome", "city": "Oslo"}),
        (None, {"query": "Weather in Rome", "calls": []}),
        (None, {"query": "Is it hot in Rome?"}),
    ],
)
def test_a_record_like_an_earlier_one_is_rejected(rule, other):
    records = [example(1, "Weather in Rome?"), example(2, **other)]
    _, rejections, _ = curate(named(records), configured())
    assert rules(rejections) == ({"data:2": rule} if rule else {})
    assert all(row["reason"].startswith("as in data:1") for row in rejections)


def test_requests_for_the_same_tools_in_nearly_the_same_words_are_near_duplicates():
    long = "Could you tell me what the weather will be like in {} on the day of our garden party?"
    other_tool = copy.deepcopy(ROW["tools"])
    other_tool[0]["function"]["name"] = "get_forecast"
    records = [
        example(1, long.format("Rome")),
        example(2, long.format("Roma")),
        example(
            3, long.format("Rome"), tools=other_tool, calls=[{"name": "get_forecast", "arguments": {"city": "Rome"}}]
        ),
        example(4, "Could you tell me what the weather is like in Rome today?"),
        example(5, long.format("Rome"), tags=["pool:test"], calls=[]),
    ]
    _, rejections, _ = curate(named(records), configured(unseen_tools=0.0))
    assert rules(rejections) == {"data:2": "near_duplicate", "data:5": "near_duplicate"}
    assert re.fullmatch(r"as in data:1: 8\d% of their 5-grams agree", rejections[0]["reason"])
    _, rejections, _ = curate(named(records), configured(unseen_tools=0.0, near_duplicates=None))
    assert rejections == []
    _, rejections, _ = curate(named(records), configured(unseen_tools=0.0, near_duplicates=1.0))
    assert rules(rejections) == {"data:5": "near_duplicate"}


def test_earlier_messages_make_another_record():
    def after(words):
        made = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
        earlier = [{"role": "user", "content": words}, {"role": "assistant", "content": "", "tool_calls": [made]}]
        return [*earlier, {"role": "tool", "content": "Rain"}, {"role": "user", "content": "And in Rome?"}]

    records = [
        example(1, "And in Rome?"),
        example(2, messages=after("What is the weather in Oslo?")),
        example(3, messages=after("I am in Oslo, should I take my umbrella with me today?")),
        example(4, messages=after("I am in Oslo, should I take my umbrella with me today?")),
    ]
    assert rules(curate(named(records), configured(unseen_tools=0.0))[1]) == {"data:4": "duplicate"}


def test_the_turns_of_a_conversation_are_no_duplicates_of_each_other():
    first = [{"role": "user", "content": "Compare Rome and Oslo"}]
    then = [*first, {"role": "assistant", "content": "Rome first."}, {"role": "tool", "content": "1"}]
    records = [example(1, messages=first, tags=["conversation:a"]), example(2, messages=then, tags=["conversation:a"])]
    kept, _, _ = curate(named(records), configured(unseen_tools=0.0))
    assert len(kept) == 2
    other = example(3, messages=then, tags=["conversation:b"])
    other = Example.from_row({**other.to_row(), "messages": [*then[:1], *then[:1], *then[1:]]})
    assert rules(curate(named([*records, other]), configured(unseen_tools=0.0))[1]) == {"data:3": "near_duplicate"}


def test_damaged_text_and_other_languages_are_rejected():
    records = [
        example(1),
        example(2, "What is the weather in ZÃ¼rich, please?"),
        example(3, "Weather\x00 in Rome and more words for it?"),
        example(4, "Wie ist das Wetter in der Stadt Rom, und wo scheint die Sonne?", city="Rom"),
        example(5, "Météo à Rome"),
        example(6, "Какая погода в Риме?"),
    ]
    _, rejections, _ = curate(named(records), configured(unseen_tools=0.0))
    assert rules(rejections) == {"data:2": "encoding", "data:3": "encoding"}
    _, rejections, _ = curate(named(records), configured(unseen_tools=0.0, languages=["en"]))
    assert rules(rejections) == {
        "data:2": "encoding", "data:3": "encoding", "data:4": "language", "data:6": "language",
    }  # fmt: skip


def test_arguments_that_nobody_said_are_flagged_and_counted():
    records = [example(1, city="Rome"), example(2, "Weather at our capital, please", city="Rome")]
    kept, rejections, ledger = curate(named(records), configured(unseen_tools=0.0))
    assert rejections == []
    assert [e.tags for e in kept] == [("calls:1",), ("calls:1", "flag:ungrounded")]
    assert ledger["flags"] == ledger["before"]["flags"] == {"ungrounded": 1}


def test_the_ledger_goes_from_rule_to_rule():
    broken = RecordError("invalid_json", "unexpected end")
    records = named([broken, example(1), example(1), example(2), example(3)])
    _, _, ledger = curate(records, configured(examples=2, unseen_tools=0.0))
    left = {step["rule"]: (step["rejected"], step["left"]) for step in ledger["rules"]}
    assert left["invalid_json"] == (1, 4)
    assert left["near_duplicate"] == (0, 3)
    assert left["duplicate"] == (1, 3)
    assert left["not_sampled"] == (1, 2)
    assert ledger["before"]["calls"] == {"1": 3}
    assert ledger["after"]["calls"] == {"1": 2}


def test_what_cannot_be_read_keeps_its_own_rule():
    broken = RecordError("invalid_json", "unexpected end")
    _, rejections, ledger = curate(named([broken, example(1)]), configured())
    assert rejections == [{"id": "data:1", "rule": "invalid_json", "reason": "unexpected end"}]
    assert counts(ledger) == {"records_in": 2, "kept": 1, "rejected": {"invalid_json": 1}}


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
    with pytest.raises(CallwrightError) as caught:
        curate([*broken, ("data:4", RecordError("schema", "city: 5"))], configured())
    assert str(caught.value) == (
        "data.jsonl: none of its 4 records is usable. Most often: no_tools 3 times (data:1: the record lists no tool); "
        "schema 1 times (data:4: city: 5). Check data.source and data.path"
    )
    with pytest.raises(CallwrightError, match=r"data\.jsonl holds no record: there is nothing to learn from"):
        curate([], configured())
    with pytest.raises(CallwrightError, match=r"tools\.yaml holds no record"):
        curate([], configured(source="toolset"))
    with pytest.raises(CallwrightError, match="the Hugging Face data set holds no record"):
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
    assert counts(ledger) == {"records_in": 100, "kept": 20, "rejected": {"not_sampled": 80}}
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
    except CallwrightError:
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
        "near_duplicate": json.dumps(example(3, example(1).query + "s").to_row()).encode(),
    }
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join([*lines.values(), b"[" * 1000 + b"]" * 1000, json.dumps(ROW).encode()]))
    kept, rejections, ledger = curate(read_records(path, "examples"), configured(unseen_tools=0.0))
    assert [e.id for e in kept] == ["e1", "a"]
    assert list(rules(rejections).values()) == [rule for rule in lines if rule] + ["too_deep"]
    assert counts(ledger) == {
        "records_in": 16,
        "kept": 2,
        "rejected": dict.fromkeys(filter(None, lines), 1) | {"too_deep": 2},
    }
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


def test_the_same_records_give_the_same_examples_whatever_the_hash_seed_and_locale(root, tmp_path):
    """Byte for byte, from a toolset and from a folder of files written in another order."""
    code = (
        "import sys, hashlib, orjson\n"
        "from callwright.data.curate import curate\n"
        "from callwright.data.sources import open_records\n"
        "from callwright.data.split import split\n"
        "for settings in orjson.loads(sys.argv[1]):\n"
        "    kept, rejections, ledger = curate(open_records(settings), settings)\n"
        "    sets, manifest = split(kept, settings)\n"
        "    rows = [e.to_row() for found in (kept, *sets.values()) for e in found]\n"
        "    print(hashlib.sha256(orjson.dumps([rows, rejections, ledger, manifest])).hexdigest())\n"
    )
    augment = {"shuffle_tools": True, "distractors": 2, "mask_names": 0.3}
    made = [example(number, city=f"City{number % 7}", tools=two_tools(number)).to_row() for number in range(120)]
    parts = {"b.jsonl": made[:40], "a.jsonl": made[40:80], "Ä.jsonl": made[80:]}

    def run(seed, locale, order):
        folder = tmp_path / seed
        folder.mkdir()
        for name in order:
            (folder / name).write_text("\n".join(map(json.dumps, parts[name])))
        files = configured(examples=80, source="files", path=str(folder), negatives=0.2, augment=augment)
        toolset = configured(examples=150, source="toolset") | {
            "toolset": str(root / "config" / "toolsets" / "everyday.yaml")
        }
        environment = {"PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONPATH": str(root / "workflow" / "scripts")}
        return subprocess.run(
            [sys.executable, "-c", code, json.dumps([files, toolset])],
            env={**os.environ, **environment}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    first = run("0", "C.UTF-8", ["b.jsonl", "a.jsonl", "Ä.jsonl"])
    assert len(set(first.split())) == 2
    assert run("5", "C", ["Ä.jsonl", "a.jsonl", "b.jsonl"]) == first


def two_tools(number):
    """ROW's tool and another one whose words are its own."""
    word = (
        hashlib.sha256(f"tool {number % 30}".encode()).hexdigest().translate(str.maketrans("0123456789", "ghijklmnop"))
    )
    other = copy.deepcopy(ROW["tools"][0])
    other["function"] |= {"name": word[:9], "description": word[9:20]}
    return [ROW["tools"][0], other]


file_parts = st.one_of(
    st.binary(max_size=30),
    rows.map(lambda value: json.dumps(value).encode()),
    st.text(alphabet='[]{}",:0a \t', max_size=15).map(str.encode),
)


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(file_parts, max_size=8), st.sampled_from([b"", b"[", b"\x1f\x8b", b"PAR1"]), st.integers(1, 6))
def test_no_bytes_crash_curation_or_lose_or_repeat_a_record(tmp_path, parts, start, wanted):
    path = tmp_path / "fuzz"
    path.write_bytes(start + b"\n".join(parts))
    read = [record_id for record_id, _ in read_records(path)]
    configuration = configured(examples=wanted, source="files", negatives=0.3)
    examples = [record for _, record in read_records(path) if isinstance(record, Example)]
    if all(damage(example.asked) for example in examples):  # as a control character in the one there is
        with pytest.raises(CallwrightError, match=r"holds no record|is usable"):
            curate(read_records(path), configuration)
        return
    kept, rejections, ledger = curate(read_records(path), configuration)
    assert ledger["records_in"] == len(read) == len(kept) + len(rejections)
    assert [step["left"] for step in ledger["rules"]][-1] == ledger["kept"] == len(kept)
    ids = [row["id"] for row in rejections]
    assert len(ids) == len(set(ids))
    assert set(ids) <= set(read)
    assert all(Example.from_row(json.loads(json.dumps(e.to_row()))) == e for e in kept)


def test_the_pools_of_generated_examples_stay_in_any_order_of_the_records(root):
    made = generate(load_toolset(root / "config" / "toolsets" / "everyday.yaml"), examples=100)
    settings = configured(examples=100, source="toolset")
    pools = {e.id: e.tags for e in made}
    ahead, _, ledger = curate(named(made), settings)
    back, _, other_ledger = curate(named(reversed(made)), settings)
    assert ledger == other_ledger
    assert all(tuple(t for t in e.tags if t != "flag:ungrounded") == pools[e.id] for e in (*ahead, *back))
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
