"""Greedy decoding of one batch of prompts, freely or each along a grammar of its own.

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
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import BatchKVCache, KVCache, RotatingKVCache, make_prompt_cache

from callwright.decoding.constrain import Constraint, masked

# Tokens of all rows in one forward pass of the prompts. More need more memory and, on a CPU, spend
# more time on the masked upper half of the attention scores; fewer leave the matrix products small.
PREFILL_TOKENS = 2048
# Finished rows are computed on until they are this share of the batch: dropping one copies the cache.
IDLE_SHARE = 0.25
# A common beginning of all prompts is computed once where it has so many tokens; below, the split costs what it saves.
SHARED_TOKENS = 256


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
    constraints: Sequence[Constraint] | None = None,
) -> list[Answer]:
    """The likeliest continuation of each prompt (token ids, not empty), token by token.

    An answer ends before the first token of `stop_ids` ("stop") or after `max_tokens` ("length").
    `stopped` is asked at every token; when it says so, Interrupted is raised. constraints: one for each prompt, fresh;
    of the tokens that it allows, the likeliest is taken.
    """
    start = time.monotonic()
    caches = batch_caches(model, prompts)
    if caches is None:
        return greedy_by_mlx_lm(model, prompts, max_tokens, stop_ids, stopped, constraints)
    batch = Batch(len(prompts), max_tokens, stop_ids, start)
    logits = prefill(model, prompts, caches, stopped)
    if constraints is not None:
        return along_grammars(model, logits, caches, batch, stopped, constraints)
    current = likeliest(logits)
    mx.async_eval(current)
    while True:
        # The next step is queued before this one is read, so that an accelerator never waits for Python.
        following = likeliest(step(model, current, caches))
        mx.async_eval(following)
        mx.eval(current)
        batch.take(current[:, 0].tolist())
        if not batch.alive():
            return batch.answers
        if stopped():
            raise Interrupted
        if (keep := batch.thin_out(caches)) is not None:
            following = following[keep]
        current = following


def along_grammars(
    model: nn.Module,
    logits: mx.array,
    caches: list[Any],
    batch: "Batch",
    stopped: Callable[[], bool],
    constraints: Sequence[Constraint],
) -> list[Answer]:
    """The rest of `greedy` where each row has a constraint; `logits` [rows, vocabulary] are those of the first tokens.

    The likeliest token of all is tried first: where the grammar allows it, it is the likeliest of those allowed too,
    and no mask is needed. So a row costs a mask only where the model would have left its grammar.
    """
    while True:
        tokens = likeliest(logits)[:, 0].tolist()
        alive = batch.alive()
        outside = [r for r in alive if not constraints[batch.rows[r]].accept(tokens[r])]
        if outside:
            words = np.stack([constraints[batch.rows[r]].mask() for r in outside])
            allowed = likeliest(masked(logits[mx.array(outside)], words))[:, 0].tolist()
            for r, token in zip(outside, allowed, strict=True):
                constraints[batch.rows[r]].accept(token)
                tokens[r] = token
        batch.take(tokens)
        if not batch.alive():
            return batch.answers
        if stopped():
            raise Interrupted
        current = mx.array(tokens)[:, None]
        if (keep := batch.thin_out(caches)) is not None:
            current = current[keep]
        logits = step(model, current, caches)


class Batch:
    """The answers of a batch as they grow; `rows[r]` is whose tokens stand in row r of the arrays."""

    def __init__(self, size: int, max_tokens: int, stop_ids: set[int], start: float):
        self.answers = [Answer() for _ in range(size)]
        self.rows = list(range(size))
        self.max_tokens, self.stop_ids, self.start = max_tokens, stop_ids, start

    def take(self, tokens: Sequence[int]) -> None:
        """The next token of each row; those of finished answers are passed over."""
        seconds = time.monotonic() - self.start
        for row, token in zip(self.rows, tokens, strict=True):
            answer = self.answers[row]
            if answer.finish_reason:
                continue
            if token in self.stop_ids:
                answer.finish_reason, answer.seconds = "stop", seconds
                continue
            answer.ids.append(token)
            if len(answer.ids) == self.max_tokens:
                answer.finish_reason, answer.seconds = "length", seconds

    def alive(self) -> list[int]:
        """The rows whose answers go on."""
        return [r for r, row in enumerate(self.rows) if not self.answers[row].finish_reason]

    def thin_out(self, caches: list[Any]) -> mx.array | None:
        """Drop finished rows from the caches where there are enough of them; returns the indices of the rows kept."""
        alive = self.alive()
        if len(self.rows) - len(alive) < IDLE_SHARE * len(self.rows):
            return None
        keep = mx.array(alive)
        for cache in caches:
            cache.filter(keep)
        self.rows = [self.rows[r] for r in alive]
        return keep


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
    """Run the prompts through the model; returns the logits [rows, vocabulary] of each row's first new token.

    Only the last position's logits are computed: nothing asks for the others, and MLX is lazy. What all prompts begin
    with is computed once, where it is long and every cache a plain one (Gemma's rotating ones are not).
    """
    width = max(map(len, prompts))
    tokens = mx.array([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    begin, shared = 0, common_length(prompts)
    if len(prompts) > 1 and shared >= SHARED_TOKENS and all(type(cache) is BatchKVCache for cache in caches):
        single = make_prompt_cache(model)
        read(model, mx.array([prompts[0][:shared]]), single, stopped)
        repeat(single, caches, shared)
        begin = shared
    read(model, tokens[:, begin : width - 1], caches, stopped)
    return step(model, tokens[:, -1:], caches)


def read(model: nn.Module, tokens: mx.array, caches: list[Any], stopped: Callable[[], bool]) -> None:
    """Add `tokens` [rows, columns] to the caches, PREFILL_TOKENS at a time."""
    size = max(PREFILL_TOKENS // tokens.shape[0], 1)
    for start in range(0, tokens.shape[1], size):
        if stopped():
            raise Interrupted
        model(tokens[:, start : start + size], cache=caches)
        mx.eval([cache.state for cache in caches])
        mx.clear_cache()


def common_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, the last token of each left out: its logits are wanted."""
    first, last = min(prompts), max(prompts)  # of all in lexicographic order: these two differ soonest
    most = min(map(len, prompts)) - 1
    return next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if n >= most or a != b), most)


def repeat(single: list[KVCache], caches: list[BatchKVCache], length: int) -> None:
    """Fill the first `length` columns of empty batch caches from those of one row without padding.

    Row r is padded on the left by p tokens, so that these columns hold the first length - p tokens; the columns that
    follow hold the others once more, which the caller computes row by row.
    """
    columns = mx.maximum(mx.arange(length) - caches[0].left_padding[:, None], 0)
    for one, cache in zip(single, caches, strict=True):
        keys, values = (part[0][:, columns].swapaxes(0, 1) for part in (one.keys, one.values))
        cache.state = (keys, values, cache.offset + length, cache.left_padding, length)


def step(model: nn.Module, tokens: mx.array, caches: list[Any]) -> mx.array:
    """The logits [rows, vocabulary] of what follows `tokens` [rows, 1]."""
    return model(tokens, cache=caches)[:, -1, :]


def likeliest(logits: mx.array) -> mx.array:
    """The likeliest token of each row of logits [rows, vocabulary], as [rows, 1]."""
    return mx.argmax(logits, axis=-1, keepdims=True)


def greedy_by_mlx_lm(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    stop_ids: set[int],
    stopped: Callable[[], bool] = lambda: False,
    constraints: Sequence[Constraint] | None = None,
) -> list[Answer]:
    """The same through mlx-lm's own batch generator: any architecture, and the reference in the tests."""
    start = time.monotonic()
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in sorted(stop_ids)],
        completion_batch_size=len(prompts),
        prefill_batch_size=len(prompts),
    )
    processors = None if constraints is None else [[constraint] for constraint in constraints]
    uids = generator.insert(
        [list(prompt) for prompt in prompts], [max_tokens] * len(prompts), logits_processors=processors
    )
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
