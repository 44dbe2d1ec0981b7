"""The ways in which the playground answers a request: which model, by itself or as served, from which threshold on.

Beside each answer is kept what the model thought of it: the probability of the tokens that it chose, and where it is
decided whether a tool is called, the probability of a call.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from callwright.decoding.decision import SMALLEST, Decision
from callwright.decoding.engine import Processor
from callwright.serve.engine import ServingEngine
from callwright.serve.limits import Limits
from callwright.serve.model import Prepared, ServedModel
from callwright.serve.protocol import ChatRequest

ALONE = "no grammar, no threshold, no checks"
GRAMMAR = "only calls that the schemas allow can be written"
UNSAID = {"ask": "what nobody said is asked for", "flag": "values that nobody said are named"}


@dataclass(frozen=True, slots=True)
class Lane:
    """A way to answer: `served`, whose own settings say with what beside the model, with its engine.

    threshold: the page says from which probability on to call, whatever the model was stored with.
    """

    name: str
    served: ServedModel
    engine: ServingEngine
    threshold: bool = False

    def to_row(self) -> dict[str, Any]:
        """What the page is told of it."""
        title = "base" if self.name.startswith("base") else "fine-tuned"
        about = f"{'the model before training' if title == 'base' else 'the model by itself'}: {ALONE}"
        if self.threshold:
            title, about = f"{title}, threshold", "calls a tool from a probability on that you choose"
            if parts := beside(self.served, decided=False):
                about += "; " + ", ".join(parts)
        elif parts := beside(self.served):
            title += ", grammar" if parts == [GRAMMAR] else ", as served"
            about = ", ".join(parts)
        return {"name": self.name, "title": title, "about": about, "threshold": self.threshold}


@dataclass(slots=True)
class Thought:
    """What the model gave its answer: `logprobs` of the chosen tokens; `decision`: whether to call."""

    decision: Decision | None = None
    logprobs: list[float] = field(default_factory=list)
    _decided: bool = False

    @property
    def call(self) -> float | None:
        """The probability of a call where that was decided, before grammar and threshold."""
        return self.decision and self.decision.probability

    @property
    def threshold(self) -> float | None:
        """From which probability on the answer was a call; None where that was left to the model."""
        return self.decision and self.decision.threshold

    @property
    def confidence(self) -> float | None:
        """The geometric mean of the chosen tokens' probabilities."""
        return math.exp(sum(self.logprobs) / len(self.logprobs)) if self.logprobs else None

    def chose(self, logprob: float) -> None:
        """Note the log-probability of a token, among those that a threshold left at the place of the decision."""
        if self.call is not None and not self._decided:
            self._decided = True
            if self.threshold is not None:
                left = self.call if self.call >= self.threshold else 1 - self.call
                logprob += math.log(max(left, SMALLEST))
        self.logprobs.append(logprob)


def lanes(tuned: tuple[ServedModel, ServingEngine], base: tuple[ServedModel, ServingEngine] | None) -> dict[str, Lane]:
    """The lanes that there are: each model by itself and, where something has a say beside it, as served."""
    made = [Lane("tuned", alone(tuned[0]), tuned[1])]
    if base is not None:
        made.append(Lane("base", alone(base[0]), base[1]))
    if beside(tuned[0]):
        made.append(Lane("tuned_grammar", *tuned))
    if tuned[0].decides:
        made.append(Lane("tuned_threshold", *tuned, threshold=True))
    if base is not None and beside(base[0]):
        made.append(Lane("base_grammar", *base))
    return {lane.name: lane for lane in made}


def alone(served: ServedModel) -> ServedModel:
    """The same model without grammar, stored decision, checks and tool encoder."""
    return type(served)(
        served.model, served.tokenizer, served.name, grammar=False, temperature=served.temperature, style=served.style
    )


def beside(served: ServedModel, decided: bool = True) -> list[str]:
    """What has a say in the answers beside the model, in words; decided: its stored threshold among them."""
    return [
        *([GRAMMAR] if served.vocabulary is not None and served.form.layout is not None else []),
        *([f"calls from {served.decided['threshold']:.0%} on"] if served.decided and decided else []),
        *(["a tool encoder helps to choose"] if served.reading else []),
        *([UNSAID[served.grounding]] if served.grounding in UNSAID else []),
    ]


def prepare(lane: Lane, chat: ChatRequest, limits: Limits, threshold: float) -> tuple[Prepared, Thought]:
    """A request as the lane's engine takes it, and what will hold the model's thoughts; raises ApiError."""
    prepared = lane.served.prepare(chat, limits)
    if lane.threshold and prepared.decision is not None:
        prepared.decision.threshold = threshold  # in place: the confidence of its calls comes from this one, too
    thought = Thought(prepared.decision)
    return dataclasses.replace(prepared, processor=watched(prepared.processor, thought)), thought


def watched(inner: Processor | None, thought: Thought) -> Processor:
    """The processor `inner`, its answers noted in `thought` with their probabilities before it."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        own = logits.astype(mx.float32).reshape(-1)  # (V,)
        allowed = logits if inner is None else inner(tokens, logits)
        chosen = int(mx.argmax(allowed.reshape(-1)))
        thought.chose(float(own[chosen] - mx.logsumexp(own)))
        return allowed

    return process
