"""The audit asks the sets' content, and names an example of whatever they share."""

import copy
import dataclasses

import pytest

from callwright.data.audit import audit
from callwright.runtime.errors import CallwrightError

from fixtures_records import example  # isort: skip


def listing(number, *tools, query=None):
    """A record that lists these tools and calls none."""
    listed = []
    for name in tools:
        tool = copy.deepcopy(example(0).tools[0])
        tool["function"]["name"] = name
        listed.append(tool)
    return example(number, query, tools=listed, calls=[])


@pytest.fixture
def sets():
    return {
        "train": [listing(1, "a", "b"), listing(2, "b")],
        "valid": [listing(3, "a")],
        "test_seen": [listing(4, "b", "c")],
        "test_unseen_tools": [listing(5, "x"), listing(6, "x", "y")],
    }


def test_sets_that_share_nothing_pass_and_are_counted(sets):
    assert audit(sets) == {
        "shared_ids": 0,
        "shared_requests": 0,
        "shared_conversations": 0,
        "near_copies": 0,
        "shared_unseen_tools": 0,
        "shared_templates": {"valid": 0, "test_seen": 0, "test_unseen_tools": 0},
        "tools": {"train": 2, "valid": 1, "test_seen": 2, "test_unseen_tools": 2},
    }


def test_empty_sets_pass():
    assert audit({"train": [], "test_unseen_tools": []})["tools"] == {"train": 0, "test_unseen_tools": 0}
    assert audit({"train": [listing(1, "a")]})["tools"] == {"train": 1}


def test_an_id_twice_in_one_set_is_found(sets):
    sets["valid"].append(listing(3, "a", query="Something else"))
    with pytest.raises(CallwrightError, match="the id 'e3' stands in valid twice: ids must be unique"):
        audit(sets)


@pytest.mark.parametrize("other", ["valid", "test_seen", "test_unseen_tools"])
def test_an_id_in_two_sets_is_found(sets, other):
    sets[other].append(listing(1, "x" if other == "test_unseen_tools" else "a", query="Something else"))
    with pytest.raises(CallwrightError, match=f"the id of example 'e1' is in train and in {other}: 'e1'"):
        audit(sets)


@pytest.mark.parametrize("other", ["valid", "test_seen", "test_unseen_tools"])
def test_a_request_in_two_sets_is_found_whatever_its_case_and_punctuation(sets, other):
    tool = "x" if other == "test_unseen_tools" else "a"
    sets["train"].append(listing(7, "a", query="Is it raining in Rome?"))
    sets[other].append(listing(8, tool, query="is it RAINING, in Rome"))
    with pytest.raises(CallwrightError, match=f"the request of example 'e8' is in train and in {other}: 'is it rain"):
        audit(sets)


@pytest.mark.parametrize("other", ["train", "valid", "test_seen"])
def test_a_held_out_tool_in_another_set_is_found(sets, other):
    sets[other].append(listing(9, "a", "y"))
    with pytest.raises(CallwrightError, match=f"{other} lists the held-out tool 'y'"):
        audit(sets)


@pytest.mark.parametrize("other", ["valid", "test_seen", "test_unseen_tools"])
def test_a_near_copy_in_another_set_is_found(sets, other):
    tool = "x" if other == "test_unseen_tools" else "a"
    sets["train"].append(listing(7, "a", query="Will it be raining in the city of Rome tomorrow?"))
    sets[other].append(listing(8, tool, query="Will it be raining in the city of Rome tomorrow, then?"))
    with pytest.raises(CallwrightError, match=rf"'e8' of {other} is a near copy \(\d\d%\) of 'e7' of train"):
        audit(sets)


def test_a_conversation_in_two_sets_is_found(sets):
    for number, name in ((7, "train"), (8, "valid")):
        record = listing(number, "a")
        sets[name].append(dataclasses.replace(record, tags=(*record.tags, "conversation:c")))
    with pytest.raises(CallwrightError, match="the conversation of example 'e8' is in train and in valid"):
        audit(sets)


def test_wordings_that_training_has_are_counted_but_no_error(sets):
    sets["train"] += [
        example(10, "Is it sunny in Rome?"),
        dataclasses.replace(example(11), tags=("phrasing:weather/3",)),
    ]
    sets["valid"].append(example(12, "Is it sunny in Nuuk Town?", city="Nuuk Town"))
    sets["test_seen"] += [
        dataclasses.replace(example(13), tags=("phrasing:weather/3",)),
        dataclasses.replace(example(14, "Is it sunny in Bern?", city="Bern"), tags=("phrasing:weather/4",)),
    ]
    for name in ("train", "valid", "test_seen"):
        sets[name] = [e for e in sets[name] if e.id not in ("e1", "e2", "e3", "e4")]
    sets["test_unseen_tools"] = []
    assert audit(sets)["shared_templates"] == {"valid": 1, "test_seen": 1, "test_unseen_tools": 0}
