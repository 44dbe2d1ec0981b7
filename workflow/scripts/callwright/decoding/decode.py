"""Greedy answers to a few prompts, freely or each along a grammar of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.nn as nn

from callwright.decoding.beginnings import Beginnings, shared_lengths
from callwright.decoding.constrain import Constraint
from callwright.decoding.decision import Decision
from callwright.decoding.engine import Engine, Request
from callwright.decoding.engines import MlxLmEngine, engine_for
from callwright.decoding.name_preference import NamePreference


@dataclass(slots=True)
class Answer:
    """`ids` without the stop token, `finish_reason` "stop" or "length", `seconds` from the prompt's turn to the end.

    `call_probability`: of the token that an answer with calls begins with, where a decision was asked for.
    """

    ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    seconds: float = 0.0
    call_probability: float | None = None


class Interrupted(Exception):
    """The caller asked to stop."""


def greedy(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    stop_ids: set[int],
    stopped: Callable[[], bool] = lambda: False,
    constraints: Sequence[Constraint] | None = None,
    decisions: Sequence[Decision] | None = None,
    beginnings: Beginnings | None = None,
    preferences: Sequence[NamePreference | None] | None = None,
) -> list[Answer]:
    """The likeliest continuation of each prompt (token ids, not empty), token by token.

    An answer ends before the first token of `stop_ids` ("stop") or after `max_tokens` ("length").
    `stopped` is asked at every token; when it says so, Interrupted is raised. constraints: one for each prompt, fresh;
    of the tokens that it allows, the likeliest is taken. decisions: one for each prompt, fresh. beginnings: of prompts
    from before, for a caller that asks again; these prompts are added. preferences: among tools, one for each prompt.
    """
    keep = [None] * len(prompts)
    if beginnings is None and len(prompts) > 1:
        beginnings, keep = Beginnings(), shared_lengths(prompts)
    nothing = [None] * len(prompts)
    given = zip(prompts, constraints or nothing, decisions or nothing, preferences or nothing, keep, strict=True)
    requests = [
        Request(prompt, max_tokens, constraint=constraint, decision=decision, preference=preference, keep=kept)
        for prompt, constraint, decision, preference, kept in given
    ]
    return drive(engine_for(model, stop_ids, len(prompts), beginnings), requests, stopped)


def drive(
    engine: Engine | MlxLmEngine, requests: Sequence[Request], stopped: Callable[[], bool] = lambda: False
) -> list[Answer]:
    """The answers of an engine to requests, in their order. The engine is closed at the end; see `greedy`."""
    try:
        for request in requests:
            engine.submit(request)
        while engine.busy:
            if stopped():
                raise Interrupted
            if engine.read() is None:
                engine.advance()
    finally:
        engine.close()
    for request in requests:
        if request.error is not None:
            raise request.error
    return [Answer(request.ids, request.finish_reason, request.seconds) for request in requests]
