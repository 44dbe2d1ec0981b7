"""Our verdicts against BFCL's own checker on its own items, and what of these items is faulty."""

from itertools import permutations

import pytest
from bfcl_official import compare, fetched, items, official

from callwright.chat.formats import answer_text, encode_calls
from callwright.data.formats.bfcl import answers_beside
from callwright.data.formats.readers import read_values
from callwright.data.records import Example
from callwright.data.schema import parameters_by_name
from callwright.evals.scoring.failure_labels import schema_error
from callwright.evals.scoring.match import match_calls
from callwright.evals.scoring.score import score_item, summarize
from callwright.evals.suites import CATEGORIES, bfcl_records, build, file_name
from callwright.runtime.errors import CallwrightError

SIZES = {
    "simple_python": 400, "multiple": 200, "parallel": 200, "parallel_multiple": 200, "irrelevance": 240,
    "live_simple": 258, "live_multiple": 1053, "live_parallel": 16, "live_parallel_multiple": 24,
    "live_irrelevance": 884, "live_relevance": 16,
}  # fmt: skip
# Items that nobody can answer right, as docs/scoring.md explains one by one.
FAULTY = {
    "parallel_multiple_26", "live_simple_106-63-0", "live_simple_112-68-0", "live_multiple_862-181-3",
    "live_multiple_964-207-0",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(root):
    try:
        return fetched(root / ".cache" / "bfcl")
    except CallwrightError as error:
        if "not reachable" not in str(error):
            raise
        pytest.skip(f"the wheel with BFCL's items is not cached, and: {error}")


@pytest.fixture(scope="module")
def suites(folder):
    return {category: build(category, bfcl_records(folder / "data", category)) for category in CATEGORIES}


def scored(example, text, finish_reason="stop"):
    row = {"id": example.id, "suite": "s", "condition": "c", "finish_reason": finish_reason, "text": text}
    return score_item(example, row)


def test_every_item_is_there_or_said_to_be_left_out(folder, suites):
    for category, size in SIZES.items():
        examples, about = suites[category]
        ids = {row["id"] for _, row in read_values(folder / "data" / file_name(category))}
        left_out = [entry["id"] for entry in about["left_out"]]
        assert len(ids) == size
        assert {example.id for example in examples} | set(left_out) == ids
        assert about["items"] == len(examples) == size - len(left_out)
        # Four items of live_irrelevance offer no function at all.
        assert [entry["rule"] for entry in about["left_out"]] == ["no_tools"] * (
            4 if category == "live_irrelevance" else 0
        )


def test_items_survive_being_stored(suites):
    for examples, _ in suites.values():
        for example in examples:
            assert Example.from_row(example.to_row()) == example


def test_gold_answers_score_up_to_the_known_faults(suites):
    failed, forbidden, expecting = set(), set(), 0
    for examples, about in suites.values():
        for example in examples:
            if example.calls:
                expecting += 1
                row = scored(example, answer_text(example))
                schemas = parameters_by_name(example.tools)
                if any(schema_error(call, schemas[call["name"]]) for call in example.calls):
                    forbidden.add(example.id)
                if not row["exact"]:
                    failed.add(example.id)
        assert {example.id for example in examples} & FAULTY == set(about["faulty"])
    assert expecting == 2351
    assert failed == FAULTY
    assert len(forbidden - FAULTY) == 19, "right answers that BFCL's own schemas forbid"


def test_one_gold_answer_is_right_only_with_an_empty_string(suites):
    [example] = [example for example in suites["live_multiple"][0] if example.id == "live_multiple_507-149-4"]
    [call] = example.calls
    assert call["arguments"]["origin_airport"] == ""
    assert scored(example, encode_calls([call]))["ast"]
    better = {**call, "arguments": {**call["arguments"], "origin_airport": "JFK"}}
    assert scored(example, encode_calls([better]))["error"] == "wrong_value"


def test_verdicts_are_those_of_the_official_checker(folder):
    """Of every item's answer and of up to two changes of each kind, in values, types, names, number and order."""
    counts, disagreements = compare(folder, most=2)
    assert sum(sum(found.values()) for found in counts.values()) > 50_000
    assert {(item, kind) for item, kind, *_ in disagreements} <= {("parallel_178", "order")}
    for kind in ("value", "type", "int as float", "argument dropped", "optional added", "name", "list reversed"):
        assert counts[kind][True, True] > 0, kind
        assert counts[kind][False, False] > 100, kind
    assert counts["as it is"][True, True] == 2351 - len(FAULTY)


def test_the_official_checker_pairs_greedily_and_misses_right_orders(folder):
    """Its first expected call takes the first answer that fits, one that another expected call cannot do without."""
    verdict, missed = official(folder), {}
    for category, row, truth, example in items(folder):
        if 2 <= len(example.calls) <= 4 and example.id not in FAULTY:
            orders = list(map(list, permutations(example.calls)))
            assert all(match_calls(example.calls, order, example.tools, example.possible) for order in orders)
            wrong = sum(not verdict(row, truth, order, category) for order in orders)
            if wrong:
                missed[example.id] = (wrong, len(orders))
    assert missed == {"parallel_178": (12, 24)}


def test_items_without_a_right_answer(folder, suites):
    for category in ("irrelevance", "live_irrelevance"):
        assert answers_beside(folder / "data" / file_name(category)) == {}
        example = suites[category][0][0]
        assert scored(example, "None of these functions can do that.")["ast"]
        call = encode_calls([{"name": example.tool_names[0], "arguments": {}}])
        assert scored(example, call)["error"] == "called_when_should_abstain"


def test_where_some_call_is_right_any_is(suites):
    examples = suites["live_relevance"][0]
    call = encode_calls([{"name": "whatever", "arguments": {}}])
    rows = [scored(examples[0], call), scored(examples[1], "I cannot."), scored(examples[2], '<tool_call>{"name": ')]
    rows.append(scored(examples[3], call, "length"))
    assert [row["ast"] for row in rows] == [True, False, False, False]
    assert [row["lenient_ast"] for row in rows] == [True, False, False, True]
    assert [row["error"] for row in rows] == [None, "abstained_when_should_call", "unparseable", "truncated"]
    summary = summarize(rows)
    assert summary["kinds"]["any"]["n"] == 4
    assert summary["kinds"]["none"]["n"] == 0
