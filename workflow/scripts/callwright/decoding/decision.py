"""To call or not to call: the one token at which an answer decides it, its probability, and a threshold for it.

An answer with calls begins with one certain token, words with any other. The probability of that token is the model's
confidence that something should be called; greedy decoding calls when it is the likeliest, which need not be the best
place to draw the line (`evals.threshold`).
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from callwright.chat.call_format import form_of
from callwright.chat.tokens import encode


@dataclass(slots=True, eq=False)
class Decision:
    """The decision of one answer, fresh.

    token        how an answer with calls begins
    threshold    from which probability on it is taken; None leaves the choice as it is
    probability  of the token, once the answer has begun
    """

    token: int
    threshold: float | None = None
    probability: float | None = None

    def __call__(self, logits: mx.array) -> mx.array:
        """Logits [1, vocabulary] of the first token, with the call's token allowed alone, or not at all."""
        self.probability = mx.softmax(logits.astype(mx.float32), axis=-1)[0, self.token].item()
        if self.threshold is None:
            return logits
        there = mx.arange(logits.shape[-1]) == self.token
        barred = there if self.probability < self.threshold else mx.logical_not(there)
        return mx.where(barred[None], mx.array(-mx.inf, dtype=logits.dtype), logits)


def call_token(tokenizer: Any, style: str = "hermes") -> int | None:
    """The token that an answer with calls begins with; None where words and calls begin alike (closed thinking)."""
    form = form_of(tokenizer, style)
    if form.layout is not None and form.layout.lead:
        return None
    opening = form.layout.first if form.layout is not None else form.opening
    return encode(tokenizer, opening)[0] if opening else None
