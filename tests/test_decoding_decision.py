"""To call or not: the probability is the model's own, and a threshold moves the choice and nothing else."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import llama
from transformers import AutoTokenizer

from callwright.chat.tokens import encode
from callwright.decoding.decision import Decision, after_evidence, call_token
from callwright.decoding.engine import Engine, Request
from callwright.decoding.engines import MlxLmEngine
from callwright.decoding.workers import answer_all

VOCABULARY = 61
PROMPTS = [list(range(2, 2 + length)) for length in (7, 1, 4, 12)]


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    mx.random.seed(5)
    model = llama.Model(
        llama.ModelArgs(
            model_type="llama", hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=VOCABULARY, tie_word_embeddings=False,
        )
    )  # fmt: skip
    model.set_dtype(mx.float32)
    model.lm_head.weight *= 12
    mx.eval(model.parameters())
    return model


def first_probabilities(model, prompt):
    return mx.softmax(model(mx.array([prompt]))[0, -1])


def answered(model, decisions, engine=Engine):
    """The answers to PROMPTS, each with its decision, by one of the two engines."""
    one = engine(model, {VOCABULARY - 1}, 3)
    requests = [Request(p, 5, decision=d) for p, d in zip(PROMPTS, decisions, strict=True)]
    for request in requests:
        one.submit(request)
    while one.busy:
        if one.read() is None:
            one.advance()
    one.close()
    return requests


@pytest.mark.parametrize("engine", [Engine, MlxLmEngine])
def test_the_probability_is_the_models_and_the_answers_stay(tiny, engine):
    plain = answered(tiny, [None] * 4, engine)
    token = 17
    watched = answered(tiny, [Decision(token) for _ in PROMPTS], engine)
    assert [request.ids for request in watched] == [request.ids for request in plain]
    for request in watched:
        expected = first_probabilities(tiny, request.prompt)[token].item()
        assert request.decision.probability == pytest.approx(expected, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("engine", [Engine, MlxLmEngine])
def test_a_threshold_decides_the_first_token_and_no_other(tiny, engine):
    plain = answered(tiny, [None] * 4, engine)
    token = plain[0].ids[0]  # the first prompt's own choice
    never = answered(tiny, [Decision(token, 1.1) for _ in PROMPTS], engine)
    always = answered(tiny, [Decision(token, 0.0) for _ in PROMPTS], engine)
    assert all(request.ids[0] != token for request in never)
    assert all(request.ids[0] == token for request in always)
    assert always[0].ids == plain[0].ids
    for request in never:
        probabilities = first_probabilities(tiny, request.prompt)
        probabilities[token] = 0
        assert request.ids[0] == mx.argmax(probabilities).item()
    p = always[0].decision.probability
    assert answered(tiny, [Decision(token, p * 1.01), *[None] * 3], engine)[0].ids[0] != token
    assert answered(tiny, [Decision(token, p * 0.99), *[None] * 3], engine)[0].ids[0] == token


@pytest.mark.parametrize("engine", [Engine, MlxLmEngine])
def test_a_decision_behind_a_token_waits_for_it(tiny, engine):
    plain = answered(tiny, [None] * 4, engine)[0].ids
    after, token = plain[1], plain[2]
    assert after not in plain[:1]
    other = next(candidate for candidate in range(VOCABULARY) if candidate not in plain)
    watched = answered(tiny, [Decision(token, None, after), Decision(token, None, other), None, None], engine)
    assert watched[0].ids == plain
    expected = first_probabilities(tiny, [*PROMPTS[0], *plain[:2]])[token].item()
    assert watched[0].decision.probability == pytest.approx(expected, rel=1e-3, abs=1e-7)
    if other not in watched[1].ids:
        assert watched[1].decision.probability is None
    never = answered(tiny, [Decision(token, 1.1, after), *[None] * 3], engine)[0].ids
    assert never[:2] == plain[:2]
    assert never[2] != token


def test_answers_of_many_workers_have_their_probabilities(tiny):
    token = 9
    found = dict(
        answer_all(tiny, PROMPTS, 2, {VOCABULARY - 1}, 2, workers=2, decision_of=lambda number: Decision(token))
    )
    for number, prompt in enumerate(PROMPTS):
        expected = first_probabilities(tiny, prompt)[token].item()
        assert found[number].call_probability == pytest.approx(expected, rel=1e-3, abs=1e-7)
    plain = dict(answer_all(tiny, PROMPTS, 2, {VOCABULARY - 1}, 2, workers=1))
    assert {answer.call_probability for answer in plain.values()} == {None}


def test_the_token_is_how_a_call_begins(model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    token = call_token(tokenizer)
    assert token.after is None
    assert token.token == encode(tokenizer, '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>')[0]
    assert token.token != encode(tokenizer, "I can't do that.")[0]


def test_evidence_moves_the_log_odds_and_is_asked_once():
    logits, asked = mx.log(mx.array([[0.5, 0.3, 0.2]])), []

    def evidence(nats):
        return lambda: asked.append(nats) or nats

    for nats, threshold, expected in [(0.0, 0.25, 1), (-2.0, 0.25, 0), (2.0, 0.7, 1), (2.0, 0.8, 0), (None, 0.31, 0)]:
        decision = Decision(1, threshold, evidence=None if nats is None else evidence(nats))
        assert int(mx.argmax(decision(logits)[0]).item()) == expected
        odds = np.log(0.3 / 0.7) + (nats or 0.0)
        assert decision.probability == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-6)
    assert asked == [0.0, -2.0, 2.0, 2.0]
    assert after_evidence(0.5, 1e6) == 1.0
    assert after_evidence(0.0, -1e6) == pytest.approx(0.0, abs=1e-100)
