"""A user's own requests: checked, split once and for all, and never trained where they are kept back."""

import json

import pytest
from fixtures_toolset import TOOLSET

from callwright.data.curate import curate
from callwright.data.held_back import held_back
from callwright.data.own_suites import add_own_suites
from callwright.data.records import Example, normalize
from callwright.data.sources import open_records
from callwright.data.toolset.own_examples import KEPT_BACK, POOL_KEPT, POOL_OWN, own_records
from callwright.data.toolset.toolset import load_toolset
from callwright.runtime.errors import CallwrightError

WORDS = "please thanks now soon today hot quickly kindly again later maybe outside upstairs inside"
ASKS = [f"Could somebody bring {n} cups of tea to desk {chr(65 + n)}{chr(97 + n)}, {word}"
        for n, word in enumerate(WORDS.split())]  # fmt: skip


def write(tmp_path, examples, more=""):
    path = tmp_path / "cafe.yaml"
    path.write_text(TOOLSET + more + "examples:\n" + "".join(f"  - {entry}\n" for entry in examples))
    return path


def inline(ask, calls="[{order: {drink: tea}}]"):
    return f"{{ask: {json.dumps(ask)}, calls: {calls}}}"


def settings(path):
    return {
        "toolset": str(path),
        "data": {"source": "toolset", "examples": 30, "max_tokens": 512, "seed": 42, "path": None},
        "split": {"test": 0.1, "unseen_tools": 0},
    }


def test_kept_back_ones_are_a_suite_and_the_others_are_trained(tmp_path):
    path = write(tmp_path, map(inline, ASKS))
    examples, rejections, _ = curate(open_records(settings(path)), settings(path))
    kept = {e.query for e in examples if POOL_KEPT in e.tags}
    trained = {e.query for e in examples if POOL_KEPT not in e.tags}
    assert kept == {ask for ask in ASKS if held_back(ask, KEPT_BACK)}
    assert {ask for ask in ASKS if ask not in kept} <= trained  # all of them, whatever data.examples says
    assert not kept & trained
    assert 2 <= len(kept) <= 8
    assert all(POOL_OWN in e.tags for e in examples if e.source == "own" and e.query in trained)


def test_few_tests_are_told_to_decide_little(tmp_path, caplog):
    def told(asks):
        caplog.clear()
        path = write(tmp_path, map(inline, asks))
        list(own_records(load_toolset(path), set()))
        return [record.message for record in caplog.records if "decide little" in record.message]

    few = sum(held_back(ask, KEPT_BACK) for ask in ASKS)
    assert told(ASKS) == [
        f"test_examples has {few} of the toolset's {len(ASKS)} examples: so few decide little; with some 60 examples "
        "it has 20"
    ]
    many = [f"Bring {word} tea {another}" for word in WORDS.split() for another in WORDS.split()]
    assert told(many) == []
    assert told([ask for ask in ASKS if not held_back(ask, KEPT_BACK)]) == []  # then there is no such test


def test_a_request_never_moves_between_the_parts(tmp_path):
    def kept(asks):
        path = write(tmp_path, map(inline, asks))
        return {e.query for _, e in open_records(settings(path)) if isinstance(e, Example) and POOL_KEPT in e.tags}

    assert kept(ASKS) & set(ASKS[:5]) == kept(ASKS[:5]) == kept(reversed(ASKS[:5]))
    assert held_back("Tea for 2!", 0.3) == held_back("tea for 7", 0.3)


def test_a_trained_request_like_a_kept_one_is_left_out(tmp_path):
    ask = next(text for text in ASKS if held_back(text, KEPT_BACK))
    near = next(text for text in (f"{ask} {letter}{letter}" for letter in "abcdefghi")
                if not held_back(text, KEPT_BACK))  # fmt: skip
    path = write(tmp_path, [inline(near), inline(ask)])
    examples, rejections, _ = curate(open_records(settings(path)), settings(path))
    assert ask in {e.query for e in examples}
    assert near not in {e.query for e in examples}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{ask: Tea, calls: [{order: {drnk: tea}}]}", r"line 10.*examples.0: the call to 'order' lacks 'drink'"),
        ("{ask: Tea, calls: [{brew: {drink: tea}}]}", "a call to 'brew', which is not listed"),
        ("{calls: []}", "expected `ask`"),
        ("{ask: Tea, call: order}", "this key is not known"),
        ("nothing.jsonl", "examples.0.*nothing.jsonl"),
        ("7", "found 7, expected a mapping"),
    ],
)
def test_a_wrong_example_is_named_with_its_line(tmp_path, entry, message):
    with pytest.raises(CallwrightError, match=message):
        load_toolset(write(tmp_path, [entry]))


def test_records_of_a_file_take_the_toolsets_tools(tmp_path):
    other = {"type": "function", "function": {"name": "order", "parameters": {"type": "object", "properties": {
        "drink": {"type": "string"}}}}}  # fmt: skip
    row = {"id": "1", "messages": [{"role": "user", "content": "A chai"}], "tools": [other],
           "calls": [{"name": "order", "arguments": {"drink": "chai"}}]}  # fmt: skip
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    toolset = load_toolset(write(tmp_path, ["mine.jsonl"]))
    assert toolset.examples[0].calls == ({"name": "order", "arguments": {"drink": "chai"}},)


def test_the_suite_is_added_and_is_the_headline(tmp_path):
    def run(path, suites=("test_seen",), aim="test_seen"):
        found = {"toolset": str(path), "data": {"source": "toolset"}, "corrections": None,
                 "evaluation": {"suites": list(suites), "primary": {"suite": aim, "metric": "ast"}}}  # fmt: skip
        add_own_suites(found)
        return found["evaluation"]

    path = write(tmp_path, map(inline, ASKS))
    assert run(path) == {
        "suites": ["test_examples", "test_seen"],
        "primary": {"suite": "test_examples", "metric": "ast"},
    }
    assert run(path, aim="executed")["primary"]["suite"] == "executed"
    plain = tmp_path / "plain.yaml"
    plain.write_text(TOOLSET + "examples: []\n")
    assert run(plain)["suites"] == ["test_seen"]
    with pytest.raises(CallwrightError, match="no `examples` of which one is kept back"):
        run(plain, ["test_examples"])


def test_normalized_queries_differ():
    assert len({normalize(ask) for ask in ASKS}) == len(ASKS)
