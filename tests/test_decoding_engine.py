"""The engine: requests of every kind at once, rows that come and go, ends, errors and cancellations."""

import mlx.core as mx
import pytest
from fixtures_tiny import VOCABULARY, make_tiny, one_by_one

from callwright.decoding import engine as engine_module
from callwright.decoding.beginnings import Beginnings
from callwright.decoding.engine import Engine, Request
from callwright.decoding.engines import MlxLmEngine
from callwright.runtime.threads import blas_threads

PROMPTS = [list(range(3, 3 + length)) for length in (9, 1, 40, 2, 9, 30, 17)]
LIMITS = (7, 20, 3, 12, 1, 9, 20)


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    with blas_threads(1):
        yield


@pytest.fixture(scope="module")
def tiny():
    return make_tiny()


@pytest.fixture(scope="module")
def alone(tiny):
    return one_by_one(tiny, PROMPTS, 20)


def run(engine) -> None:
    while engine.busy:
        if engine.read() is None:
            engine.advance()


@pytest.mark.parametrize("running", [1, 2, 3, 7])
@pytest.mark.parametrize("ahead", [False, True])
def test_rows_come_and_go_and_each_says_what_it_says_alone(tiny, alone, running, ahead):
    """`ahead` queues a step before the last one's tokens are known, as on an accelerator."""
    stop = {alone[1][11]}
    engine = Engine(tiny, stop, running, Beginnings(), ahead=ahead)
    requests = [Request(prompt, limit) for prompt, limit in zip(PROMPTS, LIMITS, strict=True)]
    for request in requests:
        engine.submit(request)
    run(engine)
    for request, ids, limit in zip(requests, alone, LIMITS, strict=True):
        cut = next((n for n, token in enumerate(ids[:limit]) if token in stop), None)
        assert request.ids == ids[:limit][:cut]
        assert request.finish_reason == ("length" if cut is None else "stop")
    assert engine.spent.read == sum(map(len, PROMPTS))
    assert engine.spent.written == sum(len(request.ids) for request in requests)


def test_requests_may_come_at_any_time(tiny, alone):
    for ahead in (False, True):
        engine = Engine(tiny, set(), 3, Beginnings(), ahead=ahead)
        requests = [Request(prompt, 20) for prompt in PROMPTS]
        for request in requests:
            engine.submit(request)
            engine.read()
            engine.advance()
        run(engine)
        assert [request.ids for request in requests] == alone


@pytest.mark.parametrize("tokens", [1, 5, 16])
def test_long_prompts_are_read_in_pieces_between_steps(tiny, alone, tokens, monkeypatch):
    monkeypatch.setattr(engine_module, "READ_TOKENS", tokens)
    engine = Engine(tiny, set(), 7, Beginnings())
    requests = [Request(prompt, 20) for prompt in PROMPTS]
    for request in requests:
        engine.submit(request)
    while engine.busy:
        assert (engine.read() or 0) <= tokens
        engine.advance()
    assert [request.ids for request in requests] == alone


def test_a_second_prompt_that_begins_alike_pays_for_its_own_tokens(tiny):
    known, list_of_tools = Beginnings(), [(7 * n) % 90 for n in range(300)]
    counts = []
    for words in ([1, 2, 3], [4, 5], [1, 2, 9]):
        engine = Engine(tiny, set(), 1, known)
        request = Request([*list_of_tools, *words], 6)
        engine.submit(request)
        counts.append(engine.read())
        run(engine)
        assert [request.ids] == one_by_one(tiny, [request.prompt], 6)
    assert counts == [302, 1, 0]


def test_a_cancelled_request_is_gone_and_the_others_say_what_they_say(tiny, alone):
    for ahead in (False, True):
        engine = Engine(tiny, set(), 3, ahead=ahead)
        requests = [Request(prompt, 20) for prompt in PROMPTS]
        for request in requests:
            engine.submit(request)
        for _ in range(3):
            engine.read()
        engine.advance()
        engine.advance()
        for number in (0, 5):  # one that grows, one that waits
            engine.cancel(requests[number])
        run(engine)
        for number, request in enumerate(requests):
            if number in (0, 5):
                assert request.finish_reason == ""
                assert len(request.ids) < 20
            else:
                assert request.ids == alone[number]


def test_a_prompt_may_be_cancelled_while_it_is_read(tiny, alone, monkeypatch):
    monkeypatch.setattr(engine_module, "READ_TOKENS", 4)
    engine = Engine(tiny, set(), 2)
    long, short = Request(PROMPTS[2], 5), Request(PROMPTS[0], 5)
    engine.submit(long)
    engine.submit(short)
    assert engine.read() == 4
    engine.cancel(long)
    run(engine)
    assert (long.ids, short.ids) == ([], alone[0][:5])


def test_a_failing_processor_ends_its_own_answer(tiny, alone):
    for make in (lambda: Engine(tiny, set(), 3), lambda: MlxLmEngine(tiny, set(), 3)):
        engine = make()
        good, bad = Request(PROMPTS[0], 6), Request(PROMPTS[1], 6, processor=lambda tokens, logits: 1 / 0)
        engine.submit(good)
        engine.submit(bad)
        run(engine)
        assert (good.ids, good.finish_reason) == (alone[0][:6], "length")
        assert bad.finish_reason == "error"
        assert isinstance(bad.error, ZeroDivisionError)


def test_a_failing_decision_or_preference_ends_its_own_answer(tiny, alone):
    class Failing:
        probability, longest = None, 9

        def due(self, _):
            return True

        def __call__(self, *_):
            raise ZeroDivisionError

    engine = Engine(tiny, set(), 3)
    good = Request(PROMPTS[0], 6)
    bad = [Request(PROMPTS[1], 6, decision=Failing()), Request(PROMPTS[2], 6, preference=Failing())]
    for request in (good, *bad):
        engine.submit(request)
    run(engine)
    assert (good.ids, good.finish_reason) == (alone[0][:6], "length")
    assert [(request.ids, request.finish_reason) for request in bad] == [([], "error")] * 2


def test_processors_see_all_tokens_and_samplers_draw(tiny, alone):
    """Beside a plain row; both engines alike."""
    outcomes = []
    for make in (lambda: Engine(tiny, set(), 3, ahead=True), lambda: MlxLmEngine(tiny, set(), 3)):
        engine, seen = make(), []

        def even(tokens, logits, seen=seen):
            seen.append(tokens.tolist())
            return mx.where(mx.arange(VOCABULARY) % 2 == 0, logits, -mx.inf)

        requests = [
            Request(PROMPTS[0], 6),
            Request(PROMPTS[3], 6, processor=even),
            Request(PROMPTS[5], 6, sampler=lambda logprobs: mx.argmin(logprobs, axis=-1)),
        ]
        for request in requests:
            engine.submit(request)
        run(engine)
        assert requests[0].ids == alone[0][:6]
        assert all(token % 2 == 0 for token in requests[1].ids)
        assert seen[5] == [*PROMPTS[3], *requests[1].ids[:5]]
        outcomes.append([request.ids for request in requests])
    assert outcomes[0] == outcomes[1]


def test_the_places_bound_the_memory(tiny, monkeypatch):
    monkeypatch.setattr(engine_module, "PLACE_TOKENS", 60)
    engine, most = Engine(tiny, set(), 7), []
    for prompt in PROMPTS:
        engine.submit(Request(prompt, 4))
    while engine.busy:
        if engine.read() is None:
            most.append((len(engine.rows), max(len(request.prompt) for request in engine.rows)))
            engine.advance()
    assert all(rows == 1 or rows * longest <= 60 for rows, longest in most)
    assert max(rows for rows, _ in most) > 1
