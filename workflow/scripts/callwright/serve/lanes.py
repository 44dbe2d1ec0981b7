"""The ways in which the playground answers a request: which model, with or without grammar, from which threshold on.

Beside each answer is kept what the model thought of it: the probability of the tokens that it chose, and at the first
token, where it is decided whether a tool is called, the probability of a call.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from callwright.chat.tokens import encode
from callwright.decoding.engine import Processor
from callwright.serve.engine import ServingEngine
from callwright.serve.limits import Limits
from callwright.serve.model import Prepared, ServedModel
from callwright.serve.protocol import ChatRequest

ABOUT = {
    "tuned": ("fine-tuned", "as it comes from the model"),
    "base": ("base", "the model before training"),
    "tuned_grammar": ("fine-tuned, grammar", "only calls that the schemas allow can be written"),
    "base_grammar": ("base, grammar", "the model before training, under the same grammar"),
    "tuned_threshold": ("fine-tuned, threshold", "calls a tool from a probability on that you choose"),
}


@dataclass(frozen=True, slots=True)
class Lane:
    """A way to answer: `served`, whose own setting says whether under a grammar, with its engine."""

    name: str
    served: ServedModel
    engine: ServingEngine
    threshold: bool = False

    def to_row(self) -> dict[str, Any]:
        """What the page is told of it."""
        title, about = ABOUT[self.name]
        return {"name": self.name, "title": title, "about": about, "threshold": self.threshold}


@dataclass(slots=True)
class Thought:
    """What the model gave its answer: `logprobs` of the chosen tokens, `call` the first token's for a call."""

    logprobs: list[float] = field(default_factory=list)
    call: float | None = None

    @property
    def confidence(self) -> float | None:
        """The geometric mean of the chosen tokens' probabilities."""
        return math.exp(sum(self.logprobs) / len(self.logprobs)) if self.logprobs else None


def lanes(tuned: tuple[ServedModel, ServingEngine], base: tuple[ServedModel, ServingEngine] | None) -> dict[str, Lane]:
    """The lanes that there are: those of the base model, and those under the grammar, where they can be had."""
    made = [Lane("tuned", free(tuned[0]), tuned[1])]
    if base is not None:
        made.append(Lane("base", free(base[0]), base[1]))
    if tuned[0].vocabulary is not None:
        made += [Lane("tuned_grammar", *tuned), Lane("tuned_threshold", *tuned, threshold=True)]
        if base is not None and base[0].vocabulary is not None:
            made.append(Lane("base_grammar", *base))
    return {lane.name: lane for lane in made}


def free(served: ServedModel) -> ServedModel:
    """The same model without grammar."""
    if served.vocabulary is None:
        return served
    return type(served)(served.model, served.tokenizer, served.name, grammar=False, temperature=served.temperature)


def prepare(lane: Lane, chat: ChatRequest, limits: Limits, threshold: float) -> tuple[Prepared, Thought]:
    """A request as the lane's engine takes it, and what will hold the model's thoughts; raises ApiError."""
    prepared = lane.served.prepare(chat, limits)
    thought = Thought()
    inner = prepared.processor
    opening = lane.served.form.opening
    begins = encode(lane.served.tokenizer, opening)[0] if chat.tools and opening else None
    decide = threshold if lane.threshold and chat.tools else None
    return dataclasses.replace(prepared, processor=watched(inner, thought, begins, decide)), thought


def watched(inner: Processor | None, thought: Thought, begins: int | None, threshold: float | None) -> Processor:
    """The processor `inner`, its answers noted in `thought`.

    begins: the first token of a call. threshold: the answer begins with it if its probability is at least this, and
    with another token if not. The probabilities are the model's own, before grammar and threshold.
    """

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        own = logits.astype(mx.float32).reshape(-1)  # (V,)
        total = mx.logsumexp(own)
        first = thought.call is None and not thought.logprobs
        if first and begins is not None:
            thought.call = float(mx.exp(own[begins] - total))
        allowed = logits if inner is None else inner(tokens, logits)
        if first and begins is not None and threshold is not None:
            at = mx.arange(logits.shape[-1]) == begins
            wanted = at if thought.call >= threshold else ~at
            allowed = mx.where(wanted, allowed, mx.array(-mx.inf, dtype=allowed.dtype))
        chosen = int(mx.argmax(allowed.reshape(-1)))
        thought.logprobs.append(float(own[chosen] - total))
        return allowed

    return process
