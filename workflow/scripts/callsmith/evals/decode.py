"""Greedy decoding of one batch of prompts.

mlx-lm's `BatchGenerator` serves changing requests; here the batch is known and only the likeliest
token matters, which saves the log-probabilities of the whole vocabulary at every step (on a CPU a
tenth of the time) and most of the cache copies. Text and stop rule are the same as its own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

# Tokens of all rows in one forward pass of the prompts. More need more memory and, on a CPU, spend
# more time on the masked upper half of the attention scores; fewer leave the matrix products small.
PREFILL_TOKENS = 2048
# Finished rows are computed on until they are this share of the batch: dropping one copies the cache.
IDLE_SHARE = 0.25


@dataclass(slots=True)
class Answer:
    """`ids` without the stop token, `finish_reason` "stop" or "length", `seconds` from the batch's start to its end."""

    ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    seconds: float = 0.0


class Interrupted(Exception):
    """The caller asked to stop."""


def greedy(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    stop_ids: set[int],
    stopped: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    """The likeliest continuation of each prompt (token ids, not empty), token by token.

    An answer ends before the first token of `stop_ids` ("stop") or after `max_tokens` ("length").
    `stopped` is asked at every token; when it says so, Interrupted is raised.
    """
    start = time.monotonic()
    caches = batch_caches(model, prompts)
    if caches is None:
        return greedy_by_mlx_lm(model, prompts, max_tokens, stop_ids, stopped)
    answers = [Answer() for _ in prompts]
    rows = list(range(len(prompts)))  # rows[r]: whose tokens stand in row r of the batch
    current = prefill(model, prompts, caches, stopped)
    mx.async_eval(current)
    while True:
        # The next step is queued before this one is read, so that an accelerator never waits for Python.
        following = step(model, current, caches)
        mx.async_eval(following)
        mx.eval(current)
        seconds = time.monotonic() - start
        for row, token in zip(rows, current[:, 0].tolist(), strict=True):
            answer = answers[row]
            if answer.finish_reason:
                continue
            if token in stop_ids:
                answer.finish_reason, answer.seconds = "stop", seconds
                continue
            answer.ids.append(token)
            if len(answer.ids) == max_tokens:
                answer.finish_reason, answer.seconds = "length", seconds
        alive = [r for r, row in enumerate(rows) if not answers[row].finish_reason]
        if not alive:
            return answers
        if stopped():
            raise Interrupted
        if len(rows) - len(alive) >= IDLE_SHARE * len(rows):
            keep = mx.array(alive)
            following = following[keep]
            for cache in caches:
                cache.filter(keep)
            rows = [rows[r] for r in alive]
        current = following


def batch_caches(model: nn.Module, prompts: Sequence[Sequence[int]]) -> list[Any] | None:
    """Empty key-value caches for left-padded prompts; None when the architecture keeps another kind of state."""
    single = make_prompt_cache(model)
    if not all(type(cache) in (KVCache, RotatingKVCache) for cache in single):
        return None
    width = max(map(len, prompts))
    caches = []
    for cache in single:
        batch = cache.merge([cache] * len(prompts))
        batch.prepare(left_padding=[width - len(prompt) for prompt in prompts])
        caches.append(batch)
    return caches


def prefill(
    model: nn.Module, prompts: Sequence[Sequence[int]], caches: list[Any], stopped: Callable[[], bool]
) -> mx.array:
    """Run the prompts through the model; returns each row's first new token [rows, 1].

    Only the last position's logits are computed: nothing asks for the others, and MLX is lazy.
    """
    width = max(map(len, prompts))
    tokens = mx.array([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    size = max(PREFILL_TOKENS // len(prompts), 1)
    for start in range(0, width - 1, size):
        if stopped():
            raise Interrupted
        model(tokens[:, start : min(start + size, width - 1)], cache=caches)
        mx.eval([cache.state for cache in caches])
        mx.clear_cache()
    return step(model, tokens[:, -1:], caches)


def step(model: nn.Module, tokens: mx.array, caches: list[Any]) -> mx.array:
    """The likeliest token after `tokens` [rows, 1], as [rows, 1]."""
    return mx.argmax(model(tokens, cache=caches)[:, -1, :], axis=-1, keepdims=True)


def greedy_by_mlx_lm(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    stop_ids: set[int],
    stopped: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    """The same through mlx-lm's own batch generator: any architecture, and the reference in the tests."""
    start = time.monotonic()
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in sorted(stop_ids)],
        completion_batch_size=len(prompts),
        prefill_batch_size=len(prompts),
    )
    uids = generator.insert([list(prompt) for prompt in prompts], [max_tokens] * len(prompts))
    answers = {uid: Answer() for uid in uids}
    try:
        while responses := generator.next_generated():
            for response in responses:
                answer = answers[response.uid]
                if response.finish_reason != "stop":
                    answer.ids.append(response.token)
                if response.finish_reason:
                    answer.finish_reason, answer.seconds = response.finish_reason, time.monotonic() - start
            if stopped():
                raise Interrupted
    finally:
        generator.close()
    return list(answers.values())
