"""Learning a dual encoder: what lists of tools teach about lists that were not seen."""

import mlx.core as mx
import numpy as np
import pytest
from fixtures_encoder import Words, make_encoder

from callwright.data.records import Example
from callwright.evals.tool_encoder import LORA
from callwright.lora.layers import adapter_parameters, attach
from callwright.runtime.errors import CallwrightError
from callwright.train import tool_encoder
from callwright.train.tool_encoder import NONE, ToolList, ValueChoice, _loss, batch_of, batches, fit, lists_of


def made(rng, tools=4, requests=12, noise=2):
    """A list whose requests hold one of their tool's words, an odd number, between even ones of no meaning."""
    keys = rng.choice(np.arange(1, 50), size=(tools, 2), replace=False) * 2 - 1
    meant = rng.integers(tools, size=requests)

    def text(words):
        ids = [*words, *(2 * rng.integers(1, 49, size=noise))]
        return [int(one) for one in rng.permutation(ids)]

    return ToolList(
        [text(pair) for pair in keys],
        [text([rng.choice(keys[tool])]) for tool in meant],
        meant,
        [[int(one)] for one in np.arange(1, 8)],
        [ValueChoice(0, [1, 3], [1, 2, 3], 2), ValueChoice(1, [5], [4, 5], NONE)],
    )


@pytest.fixture(scope="module")
def lists():
    rng = np.random.default_rng(0)
    return [made(rng) for _ in range(40)]


def encoder():
    found = make_encoder()
    mx.random.seed(1)
    attach(found, LORA)
    return found


def test_tools_of_lists_that_were_not_seen_are_named(lists, monkeypatch):
    monkeypatch.setattr(tool_encoder, "RATE", 2e-2)
    one, other = encoder(), encoder()
    scales, found = fit(one, lists, seed=3, epochs=40)
    assert found["accuracy"] > 0.5
    assert found["chance"] == pytest.approx(1 / 4)
    assert (found["held_back_lists"], found["lists"]) == (5, 35)
    assert found["log_loss"] < np.log(4)
    assert fit(other, lists, seed=3, epochs=40) == (scales, found)
    for name, array in adapter_parameters(one).items():
        assert np.array_equal(array, adapter_parameters(other)[name])


def test_what_teaches_nothing_is_refused(lists, monkeypatch):
    rng = np.random.default_rng(2)
    random = [ToolList(one.tools, one.requests, rng.integers(4, size=len(one.meant))) for one in lists]
    with pytest.raises(CallwrightError, match="nothing was learned"):
        fit(encoder(), random, epochs=1)


def test_all_lists_and_requests_come_round_and_each_request_means_its_own_tool(lists):
    rng = np.random.default_rng(4)
    seen = []
    for batch in batches(lists[:8], 4, rng):
        assert len(batch.requests) == 4 * 12
        assert len(batch.tools) == 4 * 4
        for row, request in enumerate(batch.requests):
            meant, on_offer = int(batch.meant[row, 0]), np.flatnonzero(np.array(batch.elsewhere[row]) == 0)
            assert len(on_offer) == 5, "and none of them"
            assert meant in on_offer
            assert {one for one in batch.tools[meant] if one % 2} & {one for one in request if one % 2}
        seen += map(tuple, batch.requests)
    assert sorted(seen) == sorted(2 * [tuple(request) for one in lists[:8] for request in one.requests])
    (few,) = batches(lists[:2], 1, rng)
    assert len(few.tools) == 8


def test_the_loss_is_half_of_each_choice_and_that_of_the_values():
    one = encoder()
    values = {
        name: mx.array(value) for name, value in {"tools": 1.0, "nothing": 2.0, "values": 0.5, "unsaid": 1.0}.items()
    }
    values |= adapter_parameters(one)
    lists = [
        ToolList(
            [[3, 8], [9]],
            [[3, 4], [6, 6]],
            np.array([0, NONE]),
            [[11], [12], [13]],
            [ValueChoice(0, [8, 3], [0, 2], 2)],
        ),
        ToolList([[5, 7], [2]], [[1], [5]], np.array([0, 1]), [[14], [15]], [ValueChoice(1, [8, 5], [0, 1], NONE)]),
    ]
    batch = batch_of([(lists[0], [1, 0]), (lists[1], [1])])
    assert batch.requests == [[6, 6], [3, 4], [5]]
    assert batch.tools == [[3, 8], [9], [5, 7], [2]]
    assert batch.values == [[11], [13], [14], [15]]
    requests, tools, said = (np.array(one.encode(part)) for part in (batch.requests, batch.tools, batch.values))
    scores = np.concatenate([np.e * requests @ tools.T, np.full((3, 1), 2.0)], axis=1)
    expected = []
    for row, (meant, offered) in enumerate([(4, [0, 1, 4]), (0, [0, 1, 4]), (3, [2, 3, 4])]):
        among_all, on_offer = (np.log(np.exp(part).sum()) for part in (scores[row], scores[row, offered]))
        expected.append((among_all + on_offer) / 2 - scores[row, meant])
    options = [([0, 1], [8, 3], 1), ([2, 3], [8, 5], 2)]
    chosen = []
    for numbers, asked, right in options:
        some = np.append(np.exp(0.5) * said[numbers] @ np.array(one.encode([asked]))[0], 1.0)
        chosen.append(np.log(np.exp(some).sum()) - some[right])
    assert _loss(one, values, batch).item() == pytest.approx(np.mean(expected) + np.mean(chosen) / 2, abs=1e-4)
    alone = batch_of([(ToolList([[3], [4]], [[5]], np.array([1])), [0])])
    assert np.isfinite(_loss(one, values, alone).item())


def example(number, asked, called, names, *tags):
    tools = [
        {"type": "function", "function": {"name": name, "description": f"{name} things", "parameters": {}}}
        for name in names
    ]
    calls = [{"name": name, "arguments": {}} for name in called]
    return Example(
        id=f"e:{number}",
        tools=tools,
        messages=[{"role": "user", "content": asked}],
        calls=calls,
        source="test",
        tags=("calls:0", *tags) if tags else (),
    )


def test_requests_are_read_under_their_own_list(monkeypatch):
    examples = [
        example(1, "hi there", ["b"], ["a", "b"]), example(2, "more", ["a"], ["a", "b"]),
        example(3, "two things", ["a", "b"], ["a", "b"]), example(4, "a value lacks", [], ["a", "b"]),
        example(5, "other", ["d"], ["c", "d", "e"]), example(6, "one tool", ["x"], ["x"]),
        example(7, "a tool that is not there", ["z"], ["a", "b"]),
        example(8, "nothing fits", [], ["a", "b"], "abstain:no_tool"),
        example(9, "nothing fits here either", [], ["f", "g"], "abstain:no_tool"),
    ]  # fmt: skip
    monkeypatch.setattr(tool_encoder, "FEW", 2)
    first, second = lists_of(Words(), examples)
    assert (first.meant.tolist(), second.meant.tolist()) == ([1, 0, NONE], [1])
    assert (len(first.tools), len(first.requests), len(second.tools)) == (2, 3, 3)
    assert [len(ids) for ids in first.requests] == [2, 1, 2]
    with pytest.raises(CallwrightError, match="2 lists of tools or more: found 1"):
        lists_of(Words(), examples[:4])


def test_what_a_call_says_of_enumerations_is_chosen_and_what_it_leaves_out_is_none(monkeypatch):
    monkeypatch.setattr(tool_encoder, "FEW", 1)
    schema = {"type": "object", "properties": {"area": {"enum": ["box", "stalls"]}, "day": {"enum": ["sat", "sun"]}}}
    tools = [{"type": "function", "function": {"name": name, "description": "", "parameters": schema}} for name in "ab"]
    examples = [
        Example(id=f"e:{number}", tools=tools, messages=[{"role": "user", "content": "hi"}], source="test",
                calls=[{"name": "b", "arguments": arguments}])
        for number, arguments in enumerate([{"area": "stalls"}, {"day": "sun", "area": "balcony"}])
    ]  # fmt: skip
    (found,) = lists_of(Words(), examples)
    assert [len(ids) for ids in found.values] == [2, 2, 2, 2]  # as in "area: box"
    asked = [choice.asked for choice in found.choices]
    assert [len(ids) for ids in asked] == [3, 3, 3]  # as in "b: area: hi"
    assert found.choices == [
        ValueChoice(0, asked[0], [0, 1], 1), ValueChoice(0, asked[1], [2, 3], NONE), ValueChoice(1, asked[2], [2, 3], 3)
    ]  # fmt: skip
