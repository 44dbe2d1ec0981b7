"""Batched greedy decoding against mlx-lm, one prompt at a time and in its own batches, token by token."""

import itertools
import time

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from fixtures_tiny import greedy_by_mlx_lm, make_tiny, one_by_one
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache

from callwright.chat.parse import parse_native
from callwright.chat.tokens import prompt_ids
from callwright.data import schema
from callwright.decoding import engine as engine_module
from callwright.decoding.beginnings import Beginnings, shared_lengths
from callwright.decoding.constrain import Constraint, grammar, masked, vocabulary
from callwright.decoding.decode import Answer, Interrupted, greedy
from callwright.decoding.engine import Engine, Request
from callwright.decoding.engines import MlxLmEngine, engine_for
from callwright.decoding.places import Prompt, windows
from callwright.models.cpu_math import fast_inference
from callwright.models.load import load
from callwright.runtime.threads import blas_threads

RAGGED = [list(range(3, 3 + length)) for length in (9, 1, 4, 2, 9, 30)]


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    """Matrices are small here, and the threads of several processes would wait for one another."""
    with blas_threads(1):
        yield


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return make_tiny()


@pytest.fixture(scope="module")
def gemma(gemma_folder) -> nn.Module:
    """Gemma 3 with a sliding window of 64: every other layer's cache rotates."""
    model, _ = load(gemma_folder)
    for layer in model.layers:  # else the residual stream repeats the last token for ever
        layer.self_attn.o_proj.weight *= 8
        layer.mlp.down_proj.weight *= 8
    mx.eval(model.parameters())
    return model


def cut(found: list[list[int]], limit: int, stop_ids: set[int] = frozenset()) -> list[tuple[list[int], str]]:
    """(ids, finish reason) of such answers under a length limit and with stop tokens."""
    answers = []
    for ids in found:
        end = next((place for place, token in enumerate(ids[:limit]) if token in stop_ids), None)
        answers.append((ids[:limit], "length") if end is None else (ids[:end], "stop"))
    return answers


def answered(engine, requests: list[Request]) -> list[Request]:
    """The requests, answered to the end."""
    for request in requests:
        engine.submit(request)
    while engine.busy:
        if engine.read() is None:
            engine.advance()
    return requests


def outcome(answers: list[Answer]) -> list[tuple[list[int], str]]:
    return [(answer.ids, answer.finish_reason) for answer in answers]


@pytest.fixture(scope="module")
def alone(tiny) -> list[list[int]]:
    found = one_by_one(tiny, RAGGED, 20)
    assert len({token for ids in found for token in ids}) > 20  # else there would be little to tell apart
    return found


@pytest.fixture(scope="module")
def stop_ids(alone) -> set[int]:
    """Tokens within three of the answers: these rows end at different times, and the batch shrinks."""
    stop_ids = {alone[2][7], alone[5][4]}
    ends = cut(alone, 20, stop_ids)
    assert [reason for _, reason in ends] == ["length", "stop", "stop", "length", "length", "stop"]
    assert len({len(ids) for ids, _ in ends}) == 4
    return stop_ids


def test_a_ragged_batch_gives_what_each_prompt_gives_alone(tiny, alone):
    assert outcome(greedy(tiny, RAGGED, 20, set())) == cut(alone, 20)
    assert outcome(greedy_by_mlx_lm(tiny, RAGGED, 20, set())) == cut(alone, 20)


def test_answers_end_before_a_stop_token_and_the_others_go_on(tiny, alone, stop_ids):
    assert outcome(greedy(tiny, RAGGED, 20, stop_ids)) == cut(alone, 20, stop_ids)
    assert outcome(greedy_by_mlx_lm(tiny, RAGGED, 20, stop_ids)) == cut(alone, 20, stop_ids)


def test_a_stop_token_at_once_leaves_an_empty_answer(tiny, alone):
    for decoder in (greedy, greedy_by_mlx_lm):
        assert outcome(decoder(tiny, RAGGED[:1], 20, {alone[0][0]})) == [([], "stop")]


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_the_length_limit_is_met_exactly(tiny, alone, limit):
    for decoder in (greedy, greedy_by_mlx_lm):
        assert outcome(decoder(tiny, RAGGED, limit, set())) == [(ids[:limit], "length") for ids in alone]


def test_a_stop_token_in_the_last_place_counts_as_stopped(tiny, alone):
    ids = alone[3]
    assert ids[4] not in ids[:4]
    for decoder in (greedy, greedy_by_mlx_lm):
        assert outcome(decoder(tiny, RAGGED[3:4], 5, {ids[4]})) == [(ids[:4], "stop")]


@pytest.mark.parametrize("tokens", [1, 12, 60])
def test_the_prompts_may_be_read_in_pieces(tiny, alone, tokens, monkeypatch):
    monkeypatch.setattr(engine_module, "READ_TOKENS", tokens)
    assert outcome(greedy(tiny, RAGGED, 8, set())) == cut(alone, 8)


ALIKE = [list(range(5, 25)) + rest for rest in ([7, 8], [9], [30, 31, 32, 33, 34], [7, 9], [7, 8, 9, 10, 11, 12, 13])]


def test_what_several_prompts_begin_with_is_computed_once(tiny, monkeypatch):
    expected, read = one_by_one(tiny, ALIKE, 12), []
    assert shared_lengths(ALIKE) == [22, 20, 20, 21, 22]
    real = Engine.read
    monkeypatch.setattr(Engine, "read", lambda self: read.append(real(self)) or read[-1])
    assert outcome(greedy(tiny, ALIKE, 12, {expected[1][5]})) == cut(expected, 12, {expected[1][5]})
    # The last token of each is read with the answers.
    assert [n for n in read if n is not None] == [21, 0, 4, 0, 5]


def test_seconds_run_from_the_prompts_turn_to_the_end_of_its_answer(tiny, stop_ids):
    start = time.monotonic()
    answers = greedy(tiny, RAGGED, 20, stop_ids)
    taken = time.monotonic() - start
    ordered = sorted(answers, key=lambda answer: len(answer.ids))
    assert all(0 < answer.seconds <= taken for answer in answers)
    assert ordered[0].seconds < ordered[-1].seconds


def test_the_caller_can_interrupt_between_any_two_tokens(tiny):
    for decoder in (greedy, greedy_by_mlx_lm):
        asked = itertools.count(1)
        with pytest.raises(Interrupted):
            decoder(tiny, RAGGED, 1000, set(), lambda asked=asked: next(asked) == 5)
        assert next(asked) == 6  # it was not asked again


def test_the_caller_can_interrupt_while_a_long_prompt_is_read(tiny, monkeypatch):
    monkeypatch.setattr(engine_module, "READ_TOKENS", 4)
    monkeypatch.setattr(Engine, "advance", None)
    asked = itertools.count(1)
    with pytest.raises(Interrupted):
        greedy(tiny, [list(range(40))], 5, set(), lambda: next(asked) == 4)


def test_gemmas_beginnings_are_shared_beyond_the_sliding_window(gemma):
    begin = [(7 * place) % 500 + 50 for place in range(150)]
    prompts = [begin + rest for rest in ([60, 61], [70], [80, 81, 82] * 30, [90])]
    found = one_by_one(gemma, prompts, 12)
    assert len({tuple(ids) for ids in found}) > 2
    engine = Engine(gemma, set(), 2, Beginnings())
    requests = [Request(prompt, 12) for prompt in prompts]
    assert [(r.ids, r.finish_reason) for r in answered(engine, requests)] == cut(found, 12)
    assert engine.spent.read == sum(map(len, prompts))
    known = Beginnings()
    for prompt in prompts[:2]:
        answered(Engine(gemma, set(), 1, known), [Request(prompt, 1)])
    assert known.find(prompts[3], [Prompt(window) for window in windows(gemma)]) == 150


def test_gemmas_rotating_caches_with_prompts_beyond_the_sliding_window(gemma):
    assert any(type(cache) is RotatingKVCache for cache in make_prompt_cache(gemma))
    prompts = [[(7 * place + 3 * row) % 500 + 50 for place in range(n)] for row, n in enumerate((150, 5, 64, 90, 65))]
    found = one_by_one(gemma, prompts, 12)
    assert len({token for ids in found for token in ids}) > 10
    assert outcome(greedy(gemma, prompts, 12, set())) == cut(found, 12)
    assert outcome(greedy_by_mlx_lm(gemma, prompts, 12, set())) == cut(found, 12)


def test_gemmas_answers_that_grow_beyond_the_sliding_window(gemma):
    prompts = [[60, 70, 80], list(range(100, 140)), [400]]
    found = one_by_one(gemma, prompts, 70)
    stop_ids = {found[1][20]}
    assert outcome(greedy(gemma, prompts, 70, stop_ids)) == cut(found, 70, stop_ids)


class OtherState(nn.Module):
    """A model with a state of its own beside the cache, as recurrent architectures have."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    @property
    def layers(self):
        return self.inner.layers

    def make_cache(self):
        class Kept(RotatingKVCache):
            pass

        return [Kept(max_size=64) for _ in self.layers]

    def __call__(self, tokens, cache=None):
        return self.inner(tokens, cache=cache)


def test_an_architecture_with_another_kind_of_cache_goes_through_mlx_lm(tiny, alone):
    model = OtherState(tiny)
    assert windows(model) is None
    assert type(engine_for(model, {1}, 2)) is MlxLmEngine
    assert type(engine_for(tiny, {1}, 2)) is Engine
    with pytest.raises(ValueError, match="another way"):
        Engine(model, {1}, 2)
    assert outcome(greedy(model, RAGGED, 12, set())) == cut(alone, 12)


def test_the_real_model_answers_as_mlx_lm_does_one_by_one(model_folder):
    model, tokenizer = load(model_folder)
    asked = ["What is the capital of France?", "Hi.", "List the planets of the solar system, from the sun outwards."]
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": text}], None) for text in asked]
    assert len({len(prompt) for prompt in prompts}) == 3
    stop_ids = set(tokenizer.eos_token_ids)
    expected = cut(one_by_one(model, prompts, 9), 9, stop_ids)
    assert {reason for _, reason in expected} == {"stop", "length"}
    assert "Paris" in tokenizer.decode(expected[0][0])
    with fast_inference(model):
        assert outcome(greedy(model, prompts, 9, stop_ids)) == expected
        assert outcome(greedy_by_mlx_lm(model, prompts, 9, stop_ids)) == expected


# -- along grammars --------------------------------------------------------------------------------


class Only:
    """A constraint that allows some tokens until there were `length`, and then the stop token alone."""

    def __init__(self, allowed, length, stop):
        self.allowed, self.length, self.stop, self.taken, self.masks, self.seen = allowed, length, stop, 0, 0, None

    def now(self):
        return self.allowed if self.taken < self.length else {self.stop}

    def accept(self, token):
        allowed = token in self.now()
        self.taken += allowed
        return allowed

    def mask(self):
        self.masks += 1
        bits = np.zeros(128, dtype=np.uint8)
        bits[list(self.now())] = 1
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def __call__(self, tokens, logits):
        for token in tokens[self.seen :].tolist() if self.seen is not None else []:
            self.accept(token)
        self.seen = tokens.size
        return masked(logits, self.mask()[None])


def test_each_row_follows_its_own_constraint_also_when_rows_come_and_go(tiny, alone):
    """Masks at every token through mlx-lm's generator, and masks only where they are needed: the same text."""
    stop = 96
    rules = [(set(range(0, 90, 2)), 4), (set(range(1, 90, 2)), 9), ({5, 6, 7}, 2), (set(range(96)), 50), ({8}, 0),
             (set(range(40)), 12)]  # fmt: skip
    expected = outcome(greedy_by_mlx_lm(tiny, RAGGED, 20, {stop}, constraints=[Only(*r, stop) for r in rules]))
    for (allowed, length), (ids, reason) in zip(rules, expected, strict=True):
        assert set(ids) <= allowed
        assert (len(ids), reason) == ((length, "stop") if length < 20 else (20, "length"))
    assert expected[3][0] == alone[3], "a constraint that forbids nothing changes nothing"
    constraints = [Only(*rule, stop) for rule in rules]
    assert outcome(greedy(tiny, RAGGED, 20, {stop}, constraints=constraints)) == expected
    assert constraints[3].masks == 0
    assert 0 < constraints[1].masks <= 10
    for running in (1, 2, 3):  # rows come and go, with and without a constraint
        requests = [Request(prompt, 20, Only(*rule, stop) if rule[1] < 50 else None)
                    for prompt, rule in zip(RAGGED, rules, strict=True)]  # fmt: skip
        found = answered(Engine(tiny, {stop}, running, ahead=True), requests)
        assert [(r.ids, r.finish_reason) for r in found] == expected


def test_gemmas_answers_under_a_real_grammar(gemma_folder):
    """llguidance's constraints on a random model: what it says are calls of its tools, by both decoders."""
    model, tokenizer = load(gemma_folder)
    parameters = {
        "type": "object",
        "properties": {"n": {"enum": [1, 22, 333]}, "b": {"type": "boolean"}},
        "required": ["n"],
    }
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("one", "two")]
    words = vocabulary(tokenizer)
    modes = ("one", "two", "required")
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": text}], tools) for text in ("a", "b?", "Cc")]
    found = []
    for decoder in (greedy, greedy_by_mlx_lm):
        constraints = [Constraint(words, grammar(tools, mode, parallel=False)) for mode in modes]
        found.append(decoder(model, prompts, 200, set(tokenizer.eos_token_ids), constraints=constraints))
    assert outcome(found[0]) == outcome(found[1])
    for mode, answer in zip(modes, found[0], strict=True):
        assert answer.finish_reason == "stop"
        parsed = parse_native(tokenizer.decode(answer.ids))
        assert not parsed.errors
        assert [call["name"] for call in parsed.calls] == [mode] or mode == "required"
        assert schema.validate(parsed.calls[0]["arguments"], parameters) is None
