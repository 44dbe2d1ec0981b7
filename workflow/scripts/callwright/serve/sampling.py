"""How the next token of one answer is drawn, with a random state of its own."""

import secrets
from collections.abc import Callable

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p


def sampler(
    temperature: float, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0, seed: int | None = None
) -> Callable[[mx.array], mx.array] | None:
    """Draws from log-probabilities [1, vocabulary]; None at temperature 0 or top_p 0: the likeliest token.

    With a `seed` the draws do not depend on what else is generated at the time, as they would with mlx-lm's own
    sampler and its one random state for all.
    """
    if temperature == 0 or top_p == 0:
        return None
    key: list[mx.array] = []

    def draw(logprobs: mx.array) -> mx.array:
        if not key:  # made in the thread that uses it
            key.append(mx.random.key((secrets.randbits(63) if seed is None else seed) % 2**64))
        key[0], current = mx.random.split(key[0])
        if top_p < 1:
            logprobs = apply_top_p(logprobs, top_p)
        if min_p:
            logprobs = apply_min_p(logprobs, min_p)
        if 0 < top_k < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, top_k)
        return mx.random.categorical(logprobs / temperature, key=current)

    return draw
