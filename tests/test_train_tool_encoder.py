"""Learning a dual encoder: what lists of tools teach about lists that were not seen."""

import re
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from fixtures_encoder import make_encoder, make_heads

from callwright.evals.tool_encoder import LORA, learned
from callwright.evals.value_spans import AskedRequest
from callwright.lora.layers import attach
from callwright.models.encoder_heads import LONGEST_SPAN
from callwright.runtime.errors import CallwrightError
from callwright.train import tool_encoder
from callwright.train.tool_encoder import BEGINNING, _gradients, _loss, _span_loss, batch_of, batches, fit
from callwright.train.tool_lists import NONE, SpanChoice, ToolList, ValueChoice


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
        [[int(tool)] for tool in meant],
        [[int(one)] for one in np.arange(1, 8)],
        [ValueChoice(0, [1, 3], [1, 2, 3], 2), ValueChoice(1, [5], [4, 5], NONE)],
        [span(rng, said) for said in (True, True, False)],
    )


def span(rng, said):
    """A value that is the word behind a 51, where there is one."""
    ids = [3, 3, *(2 * rng.integers(1, 49, size=4)).tolist(), 99]
    if said:
        ids[3] = 51
    request = " ".join(f"{'wW'[number % 4 // 2]}{number}" for number in ids[2:-1])
    places = [(0, 0), (0, 0), *(match.span() for match in re.finditer(r"\S+", request)), (0, 0)]
    return SpanChoice(
        AskedRequest(request, ids, 2, places), [(4, 4)] if said else [], {}, [request.split()[2]] if said else []
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
    one, other, heads, others = encoder(), encoder(), make_heads(), make_heads()
    scales, found = fit(one, heads, lists, seed=3, epochs=40)
    assert found["accuracy"] > 0.4
    assert found["chance"] == pytest.approx(1 / 4)
    assert (found["held_back_lists"], found["lists"]) == (5, 35)
    assert found["log_loss"] < np.log(4)
    assert found["span_accuracy"] > 0.9
    assert found["held_back_spans"] == 3 * 5
    assert fit(other, others, lists, seed=3, epochs=40) == (scales, found)
    for name, array in learned(one, heads).items():
        assert np.array_equal(array, learned(other, others)[name])


def test_lists_that_say_so_are_held_back_in_the_place_of_some(lists, monkeypatch):
    monkeypatch.setattr(tool_encoder, "BETTER", 0.0)
    seen = []
    monkeypatch.setattr(tool_encoder, "train", lambda model, heads, trained, *rest: seen.extend(trained) or BEGINNING)
    marked = [replace(one, held_back=number < 3) for number, one in enumerate(lists[:12])]
    _, found = fit(encoder(), make_heads(), marked)
    assert (found["held_back_lists"], found["lists"]) == (3, 9)
    assert all(one is other for one, other in zip(seen, marked[3:], strict=True))


def test_what_teaches_nothing_is_refused(lists, monkeypatch):
    rng = np.random.default_rng(2)
    random = [ToolList(one.tools, one.requests, [[int(rng.integers(4))] for _ in one.calls]) for one in lists]
    with pytest.raises(CallwrightError, match="nothing was learned"):
        fit(encoder(), make_heads(), random, epochs=1)


def test_all_lists_and_requests_come_round_and_each_request_means_its_own_tool(lists):
    rng = np.random.default_rng(4)
    seen = []
    for batch in batches(lists[:8], 4, rng):
        assert len(batch.requests) == 4 * 12
        assert len(batch.tools) == 4 * 4
        for row, request in enumerate(batch.requests):
            (meant,), on_offer = np.flatnonzero(batch.meant[row]), np.flatnonzero(np.array(batch.elsewhere[row]) == 0)
            assert len(on_offer) == 5, "and none of them"
            assert meant in on_offer
            assert {one for one in batch.tools[meant] if one % 2} & {one for one in request if one % 2}
        seen += map(tuple, batch.requests)
    assert sorted(seen) == sorted(2 * [tuple(request) for one in lists[:8] for request in one.requests])
    (few,) = batches(lists[:2], 1, rng)
    assert len(few.tools) == 8
    assert len(few.spans) == 2 * 3


def words_of(encoder, text):
    """The unit vectors of a text's tokens, the text read alone."""
    states = np.array(encoder.states(mx.array([text]), mx.ones((1, len(text)), mx.bool_)))[0]
    return states / np.linalg.norm(states, axis=-1, keepdims=True)


def test_the_loss_is_half_of_each_choice_that_of_the_values_and_of_spans():
    one, heads = encoder(), make_heads()
    values = {"tools": 1.0, "nothing": 2.0, "values": 0.5, "unsaid": 1.0}
    values |= {"whole": 0.1, "tool_words": 0.3, "request_words": -0.2}
    values = {name: mx.array(value) for name, value in values.items()}
    values |= learned(one, heads)
    words = [span(np.random.default_rng(seed), said) for seed, said in enumerate([True, False, True])]
    lists = [
        ToolList(
            [[3, 8], [9]],
            [[3, 4], [6, 6]],
            [[0, 1], []],
            [[11], [12], [13]],
            [ValueChoice(0, [8, 3], [0, 2], 2)],
            words,
        ),
        ToolList([[5, 7], [2]], [[1], [5]], [[0], [1]], [[14], [15]], [ValueChoice(1, [8, 5], [0, 1], NONE)]),
    ]
    batch = batch_of([(lists[0], [1, 0], [0, 1, 2]), (lists[1], [1], [])])
    assert batch.requests == [[6, 6], [3, 4], [5]]
    assert batch.tools == [[3, 8], [9], [5, 7], [2]]
    assert batch.values == [[11], [13], [14], [15]]
    requests, tools, said = (np.array(one.encode(part)) for part in (batch.requests, batch.tools, batch.values))
    scores, meaning = np.e * requests @ tools.T, np.exp(0.1) * requests @ tools.T
    for row, request in enumerate(batch.requests):
        for column, tool in enumerate(batch.tools):
            cosines = words_of(one, request) @ words_of(one, tool).T
            meaning[row, column] += np.exp(0.3) * cosines.max(0).mean() + np.exp(-0.2) * cosines.max(1).mean()
    scores = np.concatenate([scores, np.full((3, 1), 2.0)], axis=1)
    expected = []
    for row, (meant, offered) in enumerate([([4], [0, 1, 4]), ([0, 1], [0, 1, 4]), ([3], [2, 3, 4])]):
        among_all, on_offer = (np.log(np.exp(part).sum()) for part in (scores[row], scores[row, offered]))
        expected.append((among_all + on_offer) / 2 - scores[row, meant].mean())
        if meant != [4]:  # a request that nothing fits says nothing of which tool is meant
            among_all, on_offer = (np.log(np.exp(part).sum()) for part in (meaning[row], meaning[row, offered[:-1]]))
            expected[-1] += (among_all + on_offer) / 2 - meaning[row, meant].mean()
    options = [([0, 1], [8, 3], 1), ([2, 3], [8, 5], 2)]
    chosen = []
    for numbers, asked, right in options:
        some = np.append(np.exp(0.5) * said[numbers] @ np.array(one.encode([asked]))[0], 1.0)
        chosen.append(np.log(np.exp(some).sum()) - some[right])
    plain = np.mean(expected) + np.mean(chosen) / 2
    assert _loss(one, heads, values, batch).item() == pytest.approx(plain, abs=1e-4)
    read = np.mean([_span_twin(one, heads, choice) for choice in words])
    assert _span_loss(one, heads, values, words).item() == pytest.approx(read, abs=1e-4)
    loss, gradients = _gradients(one, heads, values, batch)
    assert loss == pytest.approx(plain + read, abs=1e-4)
    assert gradients.keys() == values.keys()
    alone = batch_of([(ToolList([[3], [4]], [[5]], [[1]]), [0], [])])
    assert np.isfinite(_gradients(one, heads, values, alone)[0])


def _span_twin(one, heads, choice):
    """The loss of one value, span by span."""
    ids = choice.asked.ids
    capital = (
        mx.array([0, 0, *(word[0].isupper() for word in choice.asked.request.split()), 0])[:, None] * heads.capital
    )
    ends = np.array(heads.ends(one.states(mx.array([ids]), mx.ones((1, len(ids)), dtype=mx.bool_), capital)[0]))
    scores = {
        (begin, end): ends[begin, 0] + ends[end, 1]
        for begin in range(choice.asked.first, len(ids) - 1)
        for end in range(begin, min(len(ids) - 1, begin + LONGEST_SPAN))
    }
    scores[None] = ends[0].sum() + float(heads.unsaid[0])
    right = [scores[tuple(place)] for place in choice.spans] or [scores[None]]
    return np.log(sum(map(np.exp, scores.values()))) - np.log(sum(map(np.exp, right)))
