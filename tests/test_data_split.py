"""Sets that share nothing: no record, no request, no near copy of one, no held-out tool."""

import copy
import dataclasses
import json
import re
from collections import Counter

import orjson
import pytest

from callwright.data.audit import audit
from callwright.data.curate import curate
from callwright.data.records import Example, normalize, skeleton
from callwright.data.sources import read_records
from callwright.data.split import NAMES, hold_out, split
from callwright.data.toolset.generate import generate
from callwright.data.toolset.toolset import load_toolset
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file, write_jsonl

from fixtures_records import configured, example, named  # isort: skip


@pytest.fixture(scope="module")
def generated(root):
    return generate(load_toolset(root / "config" / "toolsets" / "everyday.yaml"), examples=1000)


def xlam_like(count, tools=400):
    """Untagged records, with one to three of `tools` tools each, as xLAM has them."""
    made = []
    for number in range(count):
        names = [f"tool_{(number * step + step) % tools}" for step in (1, 7, 13)[: number % 3 + 1]]
        listed = []
        for name in dict.fromkeys(names):
            tool = copy.deepcopy(example(0).tools[0])
            tool["function"]["name"] = name
            listed.append(tool)
        calls = [{"name": names[0], "arguments": {"city": f"City {number}"}}] * (1 + (number % 4 == 0))
        made.append(example(number, tools=listed, calls=calls))
    return made


def shared_keys(sets, key):
    """Keys that occur in two sets."""
    owners = Counter(found for examples in sets.values() for found in {key(e) for e in examples})
    return {found for found, count in owners.items() if count > 1}


def test_a_thousand_generated_examples_give_800_100_100(generated):
    sets, manifest = split(generated, configured(source="toolset"))
    assert list(sets) == list(NAMES)
    assert manifest["sizes"] == {"train": 800, "valid": 100, "test_seen": 100, "test_unseen_tools": 100}
    assert sum(map(len, sets.values())) == len(generated)
    assert all("pool:test" in e.tags for e in sets["test_seen"])
    assert all("pool:train" in e.tags for e in (*sets["train"], *sets["valid"]))
    assert all("pool:unseen_tools" in e.tags for e in sets["test_unseen_tools"])


def test_a_thousand_records_without_tags_give_800_100_100():
    records = xlam_like(1000)
    sets, manifest = split(records, configured(unseen_tools=0.0))
    assert manifest["sizes"] == {"train": 800, "valid": 100, "test_seen": 100, "test_unseen_tools": 0}
    assert {e.id for found in sets.values() for e in found} == {e.id for e in records}


@pytest.mark.slow
def test_records_without_tags_get_their_unseen_tools_from_curation():
    settings = configured(examples=1000)
    kept, _, ledger = curate(named(xlam_like(1300, tools=1200)), settings)
    assert ledger["records_in"] == 1300
    sets, manifest = split(kept, settings)
    assert manifest["sizes"] == {
        "train": 800, "valid": 100, "test_seen": 100, "test_unseen_tools": pytest.approx(100, abs=20),
    }  # fmt: skip
    unseen = {name for e in sets["test_unseen_tools"] for name in e.tool_names}
    assert manifest["held_out_tools"] == sorted(unseen)
    assert not unseen & {name for s in ("train", "valid", "test_seen") for e in sets[s] for name in e.tool_names}


@pytest.mark.parametrize("source", ["toolset", "untagged"])
def test_the_sets_share_no_id_no_request_and_no_near_copy(source, generated):
    examples = generated if source == "toolset" else xlam_like(400)
    if source == "untagged":  # families of near copies, scattered over the records
        examples += [
            example(1000 + n, f"Book {n} seats 'in row {n}' on the {'left' if n % 3 else 'right'} side")
            for n in range(60)
        ]
    sets, manifest = split(examples, configured(source=source))
    for key in (lambda e: e.id, lambda e: normalize(e.query), lambda e: skeleton(e.query)):
        assert not shared_keys(sets, key)
    assert manifest["audit"] == audit(sets)
    assert manifest["held_out_tools"] == sorted({name for e in sets["test_unseen_tools"] for name in e.tool_names})


def test_a_group_of_near_copies_is_never_divided():
    """A group that would make a set larger than wanted stays in train."""
    asked = [example(g).query for g in range(34)]
    groups = [[example(100 * g + n, f"{asked[g]} by {n}?") for n in range(3)] for g in range(1, 34)]
    records = [groups[at % 33][at // 33] for at in range(99)]
    sets, _ = split(records, configured(unseen_tools=0.0))
    assert {name: len(found) for name, found in sets.items() if found} == {"train": 81, "valid": 9, "test_seen": 9}
    assert not shared_keys(sets, lambda e: int(e.id[1:]) // 100)


def test_requests_that_differ_only_in_quotation_marks_stay_together():
    records = [
        example(1000 * quoted + n, f"Find {'so ' * n}{mark}lamps{mark} now")
        for n in range(50)
        for quoted, mark in ((0, ""), (1, "'"))
    ]
    sets, _ = split(records, configured(unseen_tools=0.0))
    assert not shared_keys(sets, lambda e: int(e.id[1:]) % 1000)


def test_the_strata_have_the_same_shares_in_each_set(generated):
    sets, manifest = split(generated, configured(source="toolset"))
    of = {name: Counter(e.stratum for e in found) for name, found in sets.items()}
    for stratum, count in of["train"].items():
        assert of["valid"][stratum] == pytest.approx(count / 8, abs=1.5), stratum
        assert of["test_seen"][stratum] == pytest.approx(count / 8, abs=3), stratum
    assert of["train"].keys() == {"one", "several", "abstain:no_tool", "abstain:missing"}
    assert manifest["kinds"]["train"] == Counter(e.kind for e in sets["train"])


def test_the_hashes_of_the_manifest_are_those_of_the_written_files(generated, tmp_path):
    sets, manifest = split(generated, configured(source="toolset"))
    for name, found in sets.items():
        write_jsonl(tmp_path / name, (e.to_row() for e in found))
        assert manifest["sha256"][name] == sha256_file(tmp_path / name)
    orjson.dumps(manifest)


def test_the_same_seed_gives_the_same_sets_and_another_seed_others(generated):
    settings = configured(source="toolset")
    first, again = split(generated, settings), split(list(generated), settings)
    assert first == again
    settings["split"]["seed"] = 43
    assert split(generated, settings)[1]["sha256"]["valid"] != first[1]["sha256"]["valid"]


def test_the_first_items_of_a_test_set_are_a_mixed_sample(generated):
    sets, _ = split(sorted(generated, key=lambda e: e.kind), configured(source="toolset"))
    for name in ("test_seen", "test_unseen_tools"):
        assert Counter(e.kind for e in sets[name][:30]).keys() == {"one", "several", "none"}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_examples_are_an_error_that_says_what_to_do(count):
    with pytest.raises(CallwrightError) as caught:
        split([example(number) for number in range(count)], configured(unseen_tools=0.0))
    assert str(caught.value) == (
        f"the split has no example for valid: {count} examples came from curation; raise data.examples, or give it "
        "more records"
    )


def test_only_unseen_tools_are_an_error_too():
    records = [example(number, tags=["pool:unseen_tools"]) for number in range(20)]
    with pytest.raises(CallwrightError, match="no example for train: 20 examples came from curation"):
        split(records, configured())


def test_holding_out_gives_up_few_records_and_keeps_enough():
    records = xlam_like(600, tools=500)
    chosen, mixed, held = hold_out(records, unseen=40, needed=450, seed=1)
    assert 20 <= len(chosen) <= 49
    assert len(mixed) <= 0.2 * 600
    assert 600 - len(chosen) - len(mixed) >= 450
    assert not chosen & mixed
    for index, record in enumerate(records):
        listed = set(record.tool_names)
        assert (index in chosen) == (listed <= held)
        assert (index in mixed) == (bool(listed & held) and not listed <= held)
    assert hold_out(records, 40, 450, 1) == (chosen, mixed, held)


def test_holding_out_never_costs_more_than_a_fifth_of_the_records():
    """Without that limit, 183 of these would be given up."""
    chosen, mixed, _ = hold_out(xlam_like(600, tools=130), unseen=120, needed=1, seed=1)
    assert len(chosen) >= 100
    assert 0.15 * 600 < len(mixed) <= 0.2 * 600


def test_a_tool_that_every_record_lists_is_not_held_out():
    chosen, mixed, held = hold_out([example(number) for number in range(50)], unseen=5, needed=20, seed=1)
    assert (chosen, mixed, held) == (set(), set(), set())


def test_a_held_out_request_that_is_known_from_training_is_given_up():
    alone = copy.deepcopy(example(0).tools)
    alone[0]["function"]["name"] = "alone"
    records = [example(number) for number in range(30)]
    records.append(example(30, "Where does it snow?", tools=alone, calls=[]))
    assert hold_out(records, unseen=1, needed=1, seed=1) == ({30}, set(), {"alone"})
    records[30] = example(30, records[7].query.upper(), tools=alone, calls=[])
    assert hold_out(records, unseen=1, needed=1, seed=1) == (set(), {30}, {"alone"})


def test_the_real_sample_is_split_and_its_counts_add_up(xlam_sample):
    settings = configured(examples=250, source="xlam", path=str(xlam_sample))
    kept, rejections, _ = curate(read_records(xlam_sample, "xlam"), settings)
    sets, manifest = split(kept, settings)
    assert sum(manifest["sizes"].values()) == len(kept) == 400 - len(rejections)
    assert manifest["sizes"]["valid"] == manifest["sizes"]["test_seen"] == 25
    assert manifest["sizes"]["train"] == 200
    assert manifest["sizes"]["test_unseen_tools"] >= 10
    for key in (lambda e: e.id, lambda e: normalize(e.query), lambda e: skeleton(e.query)):
        assert not shared_keys(sets, key)
    for found in sets.values():
        assert all(Example.from_row(e.to_row()) == e for e in found)


def test_the_turns_of_a_conversation_stay_together():
    records = [
        dataclasses.replace(example(number), tags=(f"conversation:{number // 3}",))
        for number in range(150)
    ]  # fmt: skip
    sets, manifest = split(records, configured(unseen_tools=0.0))
    assert manifest["sizes"] == {"train": 120, "valid": 15, "test_seen": 15, "test_unseen_tools": 0}
    assert not shared_keys(sets, lambda e: e.conversation)


def test_near_copies_stay_together_and_the_sizes_are_exact():
    records = [
        example(number, example(number // 2).query + "!" * (number % 2) + " ok" * (number % 2)) for number in range(100)
    ]
    sets, manifest = split(records, configured(unseen_tools=0.0))
    assert [manifest["sizes"][name] for name in ("train", "valid", "test_seen")] == [80, 10, 10]
    assert not shared_keys(sets, lambda e: int(e.id[1:]) // 2)


def test_only_the_training_set_is_augmented():
    records = []
    for record in xlam_like(300, tools=60):  # tools that may serve a request are no distractors, so give them own words
        text = json.dumps([record.tools, record.calls]).replace("Weather.", "It is.")
        tools, calls = json.loads(re.sub(r"tool_(\d+)", lambda m: example(int(m[1])).query[-8:-1], text))
        records.append(dataclasses.replace(record, tools=tools, calls=calls))
    settings = configured(unseen_tools=0.0)
    plain, _ = split(records, settings)
    settings["data"]["augment"] = {"shuffle_tools": True, "distractors": 3, "mask_names": 0.5}
    sets, manifest = split(records, settings, count_tokens=lambda e: 100 * len(e.tools))
    for name in ("valid", "test_seen", "test_unseen_tools"):
        assert sets[name] == plain[name]
    assert [e.id for e in sets["train"]] == [e.id for e in plain["train"]]
    assert max(len(e.tools) for e in sets["train"]) == 5  # data.max_tokens is 512
    assert sum(len(e.tools) for e in sets["train"]) > sum(len(e.tools) for e in plain["train"])
    assert manifest["augmented"]["shuffle_tools"] == len(sets["train"])
    assert all(Example.from_row(e.to_row()) == e for e in sets["train"])
