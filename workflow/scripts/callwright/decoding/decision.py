"""To call or not to call: the one token at which an answer decides it, its probability, and a threshold for it.

An answer with calls begins with one certain token, words with any other. The probability of that token is the model's
confidence that something should be called; greedy decoding calls when it is the likeliest, which need not be the best
place to draw the line (`evals.threshold`). A model that writes an empty list where it calls nothing decides behind the
mark that opens the list.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from callwright.chat.call_format import form_of
from callwright.chat.tokens import encode

Evidence = Callable[[], float]
SMALLEST = 1e-6  # probabilities are kept this far from 0 and 1: their log-odds stay finite
FAR = 500.0


@dataclass(slots=True, eq=False)
class Decision:
    """The decision of one answer, fresh.

    token        how an answer with calls begins
    threshold    from which probability on it is taken; None leaves the choice as it is
    after        the token behind which it is taken; None: at the beginning of the answer
    evidence     gives what others say for a call, in nats, asked once and added to the log-odds
    probability  of the token and after the evidence, once the answer has come so far
    """

    token: int
    threshold: float | None = None
    after: int | None = None
    evidence: Evidence | None = None
    probability: float | None = None

    def due(self, last: int | None) -> bool:
        """Whether the next token of an answer decides; `last` is the one before it, None at the beginning."""
        return self.probability is None and self.after in (None, last)

    def __call__(self, logits: mx.array) -> mx.array:
        """Logits [1, vocabulary] of the token that decides, with the call's token allowed alone, or not at all."""
        alone = mx.softmax(logits.astype(mx.float32), axis=-1)[0, self.token].item()
        self.probability = alone if self.evidence is None else after_evidence(alone, self.evidence())
        if self.threshold is None:
            return logits
        there = mx.arange(logits.shape[-1]) == self.token
        barred = there if self.probability < self.threshold else mx.logical_not(there)
        return mx.where(barred[None], mx.array(-mx.inf, dtype=logits.dtype), logits)


@dataclass(frozen=True, slots=True)
class CallToken:
    """Where the answers of a model decide, and the token that decides for calls; `Decision` has both."""

    token: int
    after: int | None = None

    def decision(self, threshold: float | None = None, evidence: Evidence | None = None) -> Decision:
        """A fresh decision for one answer."""
        return Decision(self.token, threshold, self.after, evidence)


def after_evidence(probability: float, nats: float) -> float:
    """A probability whose log-odds grow by the evidence `nats`."""
    return 1 / (1 + math.exp(min(-log_odds(probability) - nats, FAR)))


def log_odds(probability: float) -> float:
    """The log-odds of a probability, finite for 0 and 1 too."""
    p = min(max(probability, SMALLEST), 1 - SMALLEST)
    return math.log(p) - math.log1p(-p)


def call_token(tokenizer: Any, style: str = "hermes") -> CallToken | None:
    """The token that an answer with calls begins with; None where words and calls begin alike (closed thinking)."""
    form = form_of(tokenizer, style)
    layout = form.layout
    if layout is None:
        return CallToken(encode(tokenizer, form.opening)[0]) if form.opening else None
    if layout.lead:
        return None
    calls = encode(tokenizer, layout.first)
    if not layout.nothing:
        return CallToken(calls[0])
    nothing = encode(tokenizer, layout.nothing)
    same = next((at for at, (a, b) in enumerate(zip(calls, nothing, strict=False)) if a != b), 0)
    return CallToken(calls[same], nothing[same - 1]) if same else None
