"""Other sources in the training set: trained, never tested, and nothing that the tests ask."""

import json
from collections import Counter

import pytest

from callwright.data.mix import curate_all
from callwright.data.records import POOL_UNSEEN
from callwright.data.split import split
from callwright.runtime.errors import CallwrightError


def row(number, request="What does item number {} cost in shop {}?", tool="get_price"):
    return {
        "id": f"r{number}",
        "messages": [{"role": "user", "content": request.format(number, "ABCDEFGH"[number % 8] * (number % 7 + 3))}],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": tool,
                    "description": "Price of an item.",
                    "parameters": {"type": "object", "properties": {"item": {"type": "integer"}}, "required": ["item"]},
                },
            }
        ],
        "calls": [{"name": tool, "arguments": {"item": number}}],
        "source": "shop",
    }


@pytest.fixture
def settings(root, tmp_path):
    def made(rows, share=0.25):
        path = tmp_path / "shop.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
        return {
            "toolset": str(root / "config" / "toolsets" / "everyday.yaml"),
            "data": {
                "source": "toolset", "path": None, "examples": 200, "seed": 1, "max_tokens": 999, "negatives": 0.0,
                "near_duplicates": None, "variety": {}, "requests_per_tool_list": 1,
                "mix": [{"source": "examples", "path": str(path), "share": share}],
            },
            "split": {"valid": 0.1, "test": 0.1, "unseen_tools": 0.1, "seed": 1},
        }  # fmt: skip

    return made


def test_a_mixed_source_has_its_share_of_the_training_set_alone(settings):
    wanted = settings([row(number) for number in range(120)])
    examples, rejections, ledger = curate_all(wanted)
    assert ledger["records_in"] == len(examples) + len(rejections) == ledger["kept"] + sum(ledger["rejected"].values())
    assert Counter(entry["rule"] for entry in rejections) == ledger["rejected"]
    assert ledger["rules"][-1]["left"] == ledger["kept"]
    sets, _ = split(examples, wanted)
    mixed = {name: sum(example.source == "shop" for example in found) for name, found in sets.items()}
    assert mixed["train"] / len(sets["train"]) == pytest.approx(0.25, abs=0.02)
    assert mixed == {"train": mixed["train"], "valid": 0, "test_seen": 0, "test_unseen_tools": 0}
    assert ledger["mix"][0]["kept"] == mixed["train"]
    assert len({example.id for example in examples}) == len(examples)
    # shuffled among the others, not one after the other
    where = [at for at, example in enumerate(sets["train"]) if example.source == "shop"]
    assert max(b - a for a, b in zip(where, where[1:], strict=False)) < 40


def test_some_files_are_validated_and_not_trained(settings, tmp_path):
    wanted = settings([{**row(number), "id": f"shop:{number}"} for number in range(60)])
    other = [row(number, "Weigh item {} for shop {}, please", "get_weight") for number in range(60)]
    other = [{**entry, "id": f"weights:{number}"} for number, entry in enumerate(other)]
    (tmp_path / "weights.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in other), encoding="utf-8")
    files = [wanted["data"]["mix"][0]["path"], str(tmp_path / "weights.jsonl")]
    wanted["data"]["mix"] = [{"source": "examples", "path": files, "share": 0.3, "validated": 0.2}]
    examples, rejections, ledger = curate_all(wanted)
    assert ledger["records_in"] == len(examples) + len(rejections)
    sets, _ = split(examples, wanted)
    tools = {name: {e.tool_names[0] for e in found if e.source == "shop"} for name, found in sets.items()}
    assert len(tools["train"]) == len(tools["valid"]) == 1
    assert tools["train"] | tools["valid"] == {"get_price", "get_weight"}
    assert not tools["test_seen"] | tools["test_unseen_tools"]
    wanted["data"]["mix"][0]["path"] = files[0]  # of one file nothing is taken away
    sets, _ = split(curate_all(wanted)[0], wanted)
    assert not any(example.source == "shop" for example in sets["valid"])


REQUESTS = """
tools:
  - name: {tool}
    description: Do it.
    parameters: {{type: object, properties: {{item: {{type: string}}}}, required: [item]}}
requests:
"""


def test_requests_that_are_held_back_are_validated_or_left_out(settings, tmp_path):
    for tool, first in (("weigh", "held_back: true\n"), ("paint", "")):
        asked = [
            f'  - {{say: "Please {tool} box {n * 7919}", calls: [{{{tool}: {{item: box {n * 7919}}}}}]}}'
            for n in range(30)
        ]
        text = first + REQUESTS.format(tool=tool) + "\n".join(asked) + "\n"
        (tmp_path / "asked").mkdir(exist_ok=True)
        (tmp_path / "asked" / f"{tool}.yaml").write_text(text, encoding="utf-8")
    wanted = settings([row(1)])
    for share, valid in ((0.0, set()), (0.1, {"weigh"})):
        wanted["data"]["mix"] = [{"source": "files", "path": str(tmp_path / "asked"), "share": 0.3, "validated": share}]
        sets, _ = split(curate_all(wanted)[0], wanted)
        called = {name: {call["name"] for e in found for call in e.calls} for name, found in sets.items()}
        assert "paint" in called["train"]
        assert "weigh" not in called["train"]
        assert called["valid"] & {"weigh", "paint"} == valid


@pytest.mark.slow
def test_what_the_tests_ask_or_hold_out_is_not_mixed_in(settings):
    plain, *_ = curate_all(settings([row(1)]))
    held = next(name for example in plain if POOL_UNSEEN in example.tags for name in example.tool_names)
    asked = next(example.query for example in plain if "pool:test" in example.tags)
    rows = [row(1), row(2, tool=held), row(3, request=asked.replace("{", "").replace("}", ""))]
    examples, rejections, ledger = curate_all(settings(rows))
    assert {entry["rule"] for entry in rejections if entry["id"].startswith("mix1:")} == {
        "mixed_tools",
        "near_duplicate",
    }
    assert [example.id for example in examples if example.source == "shop"] == ["mix1:r1"]
    assert ledger["mix"][0]["rejected"] == {"mixed_tools": 1, "near_duplicate": 1}


def test_the_shares_leave_something_for_the_source(settings):
    wanted = settings([row(1)], share=0.5)
    wanted["data"]["mix"] *= 2
    with pytest.raises(CallwrightError, match=r"data\.mix.*sum up to 1"):
        curate_all(wanted)


def test_a_mixed_toolset_is_as_varied_as_the_defaults_whatever_the_run_says(settings, root):
    wanted = settings([row(number) for number in range(120)])
    wanted["data"]["variety"] = {"tools_on_offer": "all", "similar": 0.0}
    wanted["toolset"] = str(root / "config" / "toolsets" / "flats.yaml")
    path = str(root / "config" / "toolsets" / "everyday.yaml")
    wanted["data"]["mix"] = [{"source": "toolset", "path": path, "share": 0.3}]
    examples, _, _ = curate_all(wanted)
    mixed = [len(example.tools) for example in examples if example.id.startswith("mix1:")]
    assert min(mixed) == 1
    assert max(mixed) <= 16  # and not all of its more than hundred


@pytest.mark.slow
def test_requests_of_others_are_put_before_the_own_tools_to_be_refused(settings, root):
    wanted = settings([row(number) for number in range(60)])
    wanted["data"]["variety"] = {"tools_on_offer": "all"}
    wanted["toolset"] = str(root / "config" / "toolsets" / "flats.yaml")
    path = str(root / "config" / "toolsets" / "everyday.yaml")
    wanted["data"]["mix"] = [{"source": "toolset", "path": path, "share": 0.1, "refused": 0.2}]
    examples, rejections, ledger = curate_all(wanted)
    assert ledger["records_in"] == len(examples) + len(rejections)
    assert Counter(entry["rule"] for entry in rejections) == ledger["rejected"]
    sets, _ = split(examples, wanted)
    own = {name for example in sets["test_seen"] for name in example.tool_names}
    mixed = [example for example in sets["train"] if example.id.startswith("mix1:")]
    refused = [example for example in mixed if own & set(example.tool_names)]
    assert len(refused) / len(sets["train"]) == pytest.approx(0.2, abs=0.03)
    assert (len(mixed) - len(refused)) / len(sets["train"]) == pytest.approx(0.1, abs=0.03)
    for example in refused:
        assert not example.calls
        assert example.answer == "I can't do that with the tools I have."
        assert {"calls:0", "abstain:no_tool"} <= set(example.tags)
        assert "laundry" not in example.asked  # which an own tool books
    in_validation = [example for example in sets["valid"] if example.id.startswith("mix1:")]
    assert 0 < len(in_validation) <= 6
    assert not any(example.calls for example in in_validation)
    assert not any(example.id.startswith("mix1:") for example in sets["test_seen"])
