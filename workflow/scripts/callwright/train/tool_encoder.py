"""Training a dual encoder of tools (`evals.tool_encoder`): a LoRA adapter of a small sentence encoder, in minutes.

Each step takes requests of several lists of tools and draws every request towards the tools it means: away from the
others on its own list, and, half as an aid against learning the lists by heart, away from the tools of all lists of the
step (in-batch negatives: Karpukhin et al. 2020). A request that nothing on its list fits is drawn away from all of it.
In the same way a request is drawn towards the values of enumerations that its call has. Heads learn which of its words
are an argument's value (`evals.value_spans`).
"""

import logging
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from callwright.evals.scoring.match import same_text
from callwright.evals.tool_encoder import Scales, learned, log_softmax, put, tool_scores
from callwright.evals.value_spans import read, span_scores
from callwright.lora.optimizer import AdamW, clip
from callwright.lora.schedule import learning_rate
from callwright.models.encoder_heads import FAR, EncoderHeads
from callwright.models.sentence_encoder import SentenceEncoder, grouped
from callwright.runtime.errors import CallwrightError
from callwright.runtime.logs import Progress
from callwright.train.tool_lists import NONE, SpanChoice, ToolList

log = logging.getLogger(__name__)

EPOCHS, RATE, DECAY, NORM = 1.5, 1e-3, 0.01, 1.0
OF_VALUES, OF_SPANS = 0.5, 1.0  # weights of their losses beside that of the tools
TOGETHER, EXAMPLES, SPANS = 4, 24, 40  # lists in a step, requests of each, and values that their words say
BEGINNING = Scales(20.0, nothing=7.0, values=20.0, unsaid=6.0, whole=10.0, tool_words=20.0, request_words=10.0)
OF_MEANING, OF_FITTING, OF_SAYING = ("whole", "tool_words", "request_words"), ("tools", "nothing"), ("values", "unsaid")
LOGARITHMS = ("tools", "values", *OF_MEANING)  # of the scales, whose logarithms are trained
TEMPERATURES = np.geomspace(0.25, 4.0, 41)
HELD_BACK = 8  # where no list is marked, one in so many is not trained: it measures what was learned
BETTER = 1.5  # times what guessing gives, on lists that were held back: else it is left out
SURE = 0.7  # likely: how often such readings are right is told apart


def fit(
    encoder: SentenceEncoder, heads: EncoderHeads, lists: Sequence[ToolList], seed: int = 0, epochs: float = EPOCHS
) -> tuple[Scales, dict[str, float]]:
    """Train the adapter on `encoder` and the heads, in place; (the scales, how it does on lists that were held back).

    Lists that are held back, else one in HELD_BACK, are not trained and say how sure it may be, and `accuracy` (the
    share of requests for one call for which the right tool comes first), `chance` (what guessing gives), `log_loss`,
    `value_accuracy` (the share of enumerations of which the right value, or none, comes first), `span_accuracy` (of
    other arguments, likewise), `sure` and `sure_accuracy` (the share of them that are read as SURE, and the accuracy of
    these), and `decision` (the balanced accuracy of whether a tool fits).

    Raises CallwrightError where it does hardly better than guessing.
    """
    held = {number for number, one in enumerate(lists) if one.held_back}
    if not held:
        order = random.Random(f"{seed}/lists").sample(range(len(lists)), len(lists))
        held = set(order[::HELD_BACK])
    tried = [one for number, one in enumerate(lists) if number in held]
    trained = [one for number, one in enumerate(lists) if number not in held]
    scales = train(encoder, heads, trained, seed, epochs)
    tools, fits, values = _scored(encoder, tried, scales)
    temperatures = {OF_MEANING: _temperature(tools), OF_FITTING: _temperature(fits), OF_SAYING: _temperature(values)}
    for names, temperature in temperatures.items():
        scales = replace(scales, **{name: getattr(scales, name) / temperature for name in names})
    called = [scores[:-1].max() > scores[-1] for scores, _ in fits]
    wanted = [right < len(scores) - 1 for scores, right in fits]
    spans = [_judged(encoder, heads, choice) for one in tried for choice in one.spans]
    sure = [right for right, share in spans if share >= SURE]
    found = {
        "accuracy": _accuracy(tools),
        "chance": float(np.mean([1 / len(scores) for scores, _ in tools])),
        "log_loss": _log_loss(tools, temperatures[OF_MEANING]),
        "value_accuracy": _accuracy(values),
        "span_accuracy": _mean([right for right, _ in spans]),
        "sure": len(sure) / max(1, len(spans)),
        "sure_accuracy": _mean(sure),
        "decision": _balanced(called, wanted),
        "held_back_lists": len(tried),
        "held_back_requests": len(tools),
        "held_back_values": len(values),
        "held_back_spans": len(spans),
        "lists": len(trained),
        "requests": sum(len(one.calls) for one in trained),
        "spans": sum(len(one.spans) for one in trained),
    }
    if found["accuracy"] < BETTER * found["chance"]:
        raise CallwrightError(
            f"nothing was learned of which tool a request is about: right for {found['accuracy']:.0%} under lists that "
            f"were held back, where guessing gives {found['chance']:.0%}: more requests, or other ones, are needed"
        )
    return scales, found


Scored = list[tuple[np.ndarray, int]]  # scores, and the number of the right one


def _scored(encoder: SentenceEncoder, lists: Sequence[ToolList], scales: Scales) -> tuple[Scored, Scored, Scored]:
    """Of tools for requests that mean one; of tools, and last of none, for all but those that mean several; and of
    values, likewise.
    """
    tools, fits, values = [], [], []
    for one in lists:
        requests, offered = encoder.encode_tokens(one.requests), encoder.encode_tokens(one.tools)
        meant, whole = np.array(tool_scores(asdict(scales), requests, offered)), np.array(requests[0] @ offered[0].T)
        for scores, cosines, calls in zip(meant, whole, one.calls, strict=True):
            if len(calls) == 1:
                tools.append((scores, calls[0]))
            if len(calls) < 2:
                fits.append((np.append(scales.tools * cosines, scales.nothing), calls[0] if calls else len(cosines)))
        texts = [*one.values, *(choice.asked for choice in one.choices)]
        said, asked = np.split(np.array(encoder.encode(texts)), [len(one.values)]) if texts else ([], [])
        for choice, vector in zip(one.choices, asked, strict=True):
            scores = np.append(scales.values * said[choice.values] @ vector, scales.unsaid)
            right = len(choice.values) if choice.chosen == NONE else choice.values.index(choice.chosen)
            values.append((scores, right))
    return tools, fits, values


def _judged(encoder: SentenceEncoder, heads: EncoderHeads, choice: SpanChoice) -> tuple[bool, float]:
    """Whether what is likeliest said of an argument is right, and how likely it is."""
    (said,) = read(encoder, heads, [choice.asked], [choice.schema])
    if not said.values or said.unsaid >= said.values[said.value]:
        return not choice.right, said.unsaid
    return any(_same(one, said.value) for one in choice.right), said.values[said.value]


def _same(one: Any, other: Any) -> bool:
    return same_text(one, other) if isinstance(one, str) and isinstance(other, str) else one == other


def _mean(right: Sequence[bool]) -> float:
    return float(np.mean(right)) if right else 0.0


def _accuracy(scored: Scored) -> float:
    return _mean([scores.argmax() == right for scores, right in scored])


def _log_loss(scored: Scored, temperature: float) -> float:
    """The mean negative log-probability of what is right, in nats."""
    return -float(np.mean([log_softmax(scores / temperature)[right] for scores, right in scored]))


def _temperature(scored: Scored) -> float:
    """What scores are divided by, so that what is right is as likely as can be."""
    return float(min(TEMPERATURES, key=lambda t: _log_loss(scored, t))) if scored else 1.0


def _balanced(found: Sequence[bool], wanted: Sequence[bool]) -> float:
    found, wanted = np.array(found), np.array(wanted)
    return float(np.mean([(found[kind] == wanted[kind]).mean() for kind in (wanted, ~wanted) if kind.any()]))


def train(encoder: SentenceEncoder, heads: EncoderHeads, lists: Sequence[ToolList], seed: int, epochs: float) -> Scales:
    """Train the adapter on `encoder`, and the heads, in place; each epoch takes as many requests as there are."""
    steps = max(1, round(epochs * sum(len(one.calls) for one in lists) / (TOGETHER * EXAMPLES)))
    scalars = asdict(BEGINNING) | {name: math.log(getattr(BEGINNING, name)) for name in LOGARITHMS}
    values = {**learned(encoder, heads), **{name: mx.array(value) for name, value in scalars.items()}}
    optimizer = AdamW(values, (0.9, 0.999), 1e-8, DECAY, undecayed=tuple(scalars))
    rng = np.random.default_rng(seed)
    progress, losses = Progress("tool encoder", steps, "steps", every=30), []
    for step, batch in enumerate(batches(lists, steps, rng), 1):
        loss, gradients = _gradients(encoder, heads, values, batch)
        gradients, _ = clip(gradients, NORM)
        values = optimizer.update(values, gradients, learning_rate(step, steps, RATE, max(1, steps // 10), "cosine"))
        mx.eval(values, *optimizer.state())
        losses.append(loss)
        progress.advance(1, f"loss {np.mean(losses[-20:]):.3f}")
    _put(encoder, heads, values)
    found = {name: values[name].item() for name in scalars}
    return Scales(**found | {name: math.exp(found[name]) for name in LOGARITHMS})


@dataclass(frozen=True)
class ToolBatch:
    """What a step takes: texts as token ids, and what is right.

    meant [requests, tools + 1]: what share of a request's calls a tool has, the last of none; elsewhere [requests,
    tools + 1]: FAR for tools off a request's list, else 0. asking
    [choices]: what is asked of a request; chosen [choices, 1]: a value's number, or that behind the last for none;
    others [choices, values + 1]: FAR for values that are none of a choice's.
    """

    requests: list[list[int]]
    tools: list[list[int]]
    values: list[list[int]]
    asking: list[list[int]]
    meant: mx.array
    elsewhere: mx.array
    chosen: mx.array
    others: mx.array
    spans: list[SpanChoice]


def batches(lists: Sequence[ToolList], steps: int, rng: np.random.Generator) -> Iterator[ToolBatch]:
    """As many batches: lists, and a list's requests and spans, come round once before any comes again."""
    waiting: list[int] = []
    left: list[list[int]] = [[] for _ in lists]
    unread: list[list[int]] = [[] for _ in lists]
    for _ in range(steps):
        if len(waiting) < min(TOGETHER, len(lists)):
            waiting = list(rng.permutation(len(lists)))
        taken = []
        for number in [waiting.pop() for _ in range(min(TOGETHER, len(lists)))]:
            one = lists[number]
            rows = _drawn(left[number], len(one.calls), EXAMPLES, rng)
            taken.append((one, rows, _drawn(unread[number], len(one.spans), SPANS, rng)))
        yield batch_of(taken)


def _drawn(left: list[int], there: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """So many numbers below `there`, taken off what is `left` of them, in which all come round."""
    wanted = min(wanted, there)
    if len(left) < wanted:
        left[:] = rng.permutation(there).tolist()
    return [left.pop() for _ in range(wanted)]


def batch_of(taken: Sequence[tuple[ToolList, Sequence[int], Sequence[int]]]) -> ToolBatch:
    """Some requests and some spans, by their numbers, of several lists."""
    requests, tools, values, calls, listed, asking, chosen, allowed, spans = [], [], [], [], [], [], [], [], []
    for one, rows, words in taken:
        numbers, taking = {}, set(rows)
        for choice in [choice for choice in one.choices if choice.request in taking]:
            for value in choice.values:
                if value not in numbers:
                    numbers[value] = len(values)
                    values.append(one.values[value])
            asking.append(choice.asked)
            chosen.append(NONE if choice.chosen == NONE else numbers[choice.chosen])
            allowed.append([numbers[value] for value in choice.values])
        calls += [[len(tools) + tool for tool in one.calls[row]] for row in rows]
        listed += [(len(tools), len(tools) + len(one.tools))] * len(rows)
        requests += [one.requests[row] for row in rows]
        tools += one.tools
        spans += [one.spans[number] for number in words]
    meant = np.zeros((len(requests), len(tools) + 1), np.float32)
    elsewhere = np.full(meant.shape, FAR, np.float32)
    others = np.full((len(asking), len(values) + 1), FAR, np.float32)
    for row, (start, end) in enumerate(listed):
        elsewhere[row, start:end] = elsewhere[row, -1] = 0
        for tool in calls[row] or [-1]:
            meant[row, tool] += 1 / max(1, len(calls[row]))
    for row, numbers in enumerate(allowed):
        others[row, numbers] = others[row, -1] = 0
    right = np.array([len(values) if number == NONE else number for number in chosen], np.int32)[:, None]
    return ToolBatch(
        requests, tools, values, asking, mx.array(meant), mx.array(elsewhere), mx.array(right),
        mx.array(others), spans,
    )  # fmt: skip


def _put(encoder: SentenceEncoder, heads: EncoderHeads, values: dict[str, mx.array]) -> None:
    put(encoder, heads, {name: value for name, value in values.items() if name not in asdict(BEGINNING)})


def _gradients(
    encoder: SentenceEncoder, heads: EncoderHeads, values: dict[str, mx.array], batch: ToolBatch
) -> tuple[float, dict[str, mx.array]]:
    """The loss of a batch and its gradients; of spans a few at a time, so that they need less memory."""

    def part(loss_of: Any, taken: Any, share: float) -> tuple[float, dict[str, mx.array]]:
        def loss(values: dict[str, mx.array]) -> mx.array:
            _put(encoder, heads, values)
            return share * loss_of(encoder, heads, values, taken)

        found, gradients = mx.value_and_grad(loss)(values)
        mx.eval(found, gradients)
        return found.item(), gradients

    total, summed = part(_loss, batch, 1.0)
    for group in grouped([choice.asked.ids for choice in batch.spans]):
        chosen = [batch.spans[number] for number in group]
        loss, gradients = part(_span_loss, chosen, OF_SPANS * len(chosen) / len(batch.spans))
        total, summed = total + loss, {name: summed[name] + gradient for name, gradient in gradients.items()}
        mx.eval(summed)
    return total, summed


def _loss(encoder: SentenceEncoder, heads: EncoderHeads, values: dict[str, mx.array], batch: ToolBatch) -> mx.array:
    """Of the tools and of enumerations."""
    scales = {name: mx.exp(values[name]) if name in LOGARITHMS else values[name] for name in asdict(BEGINNING)}
    vectors, tokens = encoder.encode_tokens([*batch.requests, *batch.tools])
    count = len(batch.requests)
    whole = _with(scales["tools"] * vectors[:count] @ vectors[count:].T, scales["nothing"])
    words = tool_scores(scales, (vectors[:count], tokens[:count]), (vectors[count:], tokens[count:]))
    loss = _choice(whole, batch.meant, batch.elsewhere).mean()
    loss = loss + _choice(words, batch.meant[:, :-1], batch.elsewhere[:, :-1]).mean()
    if not batch.values:
        return loss
    said, asking = mx.split(encoder.encode([*batch.values, *batch.asking]), [len(batch.values)])
    scores = _with(scales["values"] * asking @ said.T, scales["unsaid"]) + batch.others
    right = mx.take_along_axis(scores, batch.chosen, axis=-1)[:, 0]
    return loss + OF_VALUES * (mx.logsumexp(scores, axis=-1) - right).mean()


def _choice(scores: mx.array, meant: mx.array, elsewhere: mx.array) -> mx.array:
    """The loss of each choice [choices]: half among all, half among what is on offer; 0 where none is right."""
    among_all, on_offer = mx.logsumexp(scores, axis=-1), mx.logsumexp(scores + elsewhere, axis=-1)
    return (among_all + on_offer) / 2 * meant.sum(axis=-1) - (scores * meant).sum(axis=-1)


def _span_loss(
    encoder: SentenceEncoder, heads: EncoderHeads, values: dict[str, mx.array], spans: Sequence[SpanChoice]
) -> mx.array:
    """The mean negative log-probability of all spans that are right together, or of none."""
    scores = span_scores(encoder, heads, [choice.asked for choice in spans])
    width, wrong = max(len(choice.asked.ids) for choice in spans), np.full(scores.shape, FAR, np.float32)
    for row, choice in enumerate(spans):
        wrong[row, [begin * width + end for begin, end in choice.spans] or [-1]] = 0
    return (mx.logsumexp(scores, axis=-1) - mx.logsumexp(scores + mx.array(wrong), axis=-1)).mean()


def _with(scores: mx.array, none: mx.array) -> mx.array:
    return mx.concatenate([scores, mx.broadcast_to(none, (len(scores), 1))], axis=-1)
