"""Training a dual encoder of tools (`evals.tool_encoder`): a LoRA adapter of a small sentence encoder, in minutes.

Each step takes requests of several lists of tools and draws every request towards the tool it means: away from the
others on its own list, and, half as an aid against learning the lists by heart, away from the tools of all lists of the
step (in-batch negatives: Karpukhin et al. 2020). A request that nothing on its list fits is drawn away from all of it.
In the same way a request is drawn towards the values of enumerations that its call has.
"""

import logging
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.data.records import Example
from callwright.data.tool_texts import described
from callwright.evals.tool_encoder import Scales, enumerations, log_softmax, token_ids
from callwright.lora.layers import adapter_parameters
from callwright.lora.optimizer import AdamW, clip
from callwright.lora.schedule import learning_rate
from callwright.models.sentence_encoder import SentenceEncoder
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_json
from callwright.runtime.logs import Progress

log = logging.getLogger(__name__)

EPOCHS, RATE, DECAY, NORM = 2.5, 1e-3, 0.01, 1.0
OF_VALUES = 0.5  # weight of their loss beside that of the tools
TOGETHER, EXAMPLES = 4, 24  # lists in a step, requests of each
BEGINNING = Scales(tools=20.0, nothing=7.0, values=20.0, unsaid=6.0)
LOGARITHMS = ("tools", "values")  # of the scales, whose logarithms are trained
TEMPERATURES = np.geomspace(0.25, 4.0, 41)
HELD_BACK = 8  # one list in so many is not trained: it measures what was learned, and how sure it may be
FAR = -1e9
BETTER = 1.5  # times what guessing gives, on lists that were held back: else it is left out
FEW = 8  # lists of tools: one, at least, is held back, and what is left says something about others
NOTHING_FITS = "abstain:no_tool"  # a tag of examples
NONE = -1  # in the place of a tool's or value's number: nothing fits, nothing was said


@dataclass(frozen=True)
class ValueChoice:
    """An enumeration that the call to a request could say.

    request: its number in a `ToolList`; asked: what is asked of it, as token ids; values, chosen: numbers of values.
    """

    request: int
    asked: list[int]
    values: list[int]
    chosen: int


@dataclass(frozen=True)
class ToolList:
    """Tools that are on offer together, and requests that mean one of them, or none.

    tools, requests, values: their token ids, the last of the values of enumerations. meant: the number of the tool that
    each request means, or NONE. choices: of the values that a request says.
    """

    tools: list[list[int]]
    requests: list[list[int]]
    meant: np.ndarray
    values: list[list[int]] = field(default_factory=list)
    choices: list[ValueChoice] = field(default_factory=list)


def lists_of(tokenizer: Any, examples: Iterable[Example]) -> list[ToolList]:
    """The examples that want one call, or that no tool fits, by the tools on offer; lists of one tool are left out.

    Raises CallwrightError where fewer than FEW lists are left.
    """
    found: dict[str, list[Example]] = {}
    for example in examples:
        turns = [message["role"] for message in example.messages if message["role"] != "system"]
        if turns != ["user"] or len(example.tools) < 2:
            continue
        if not example.calls and NOTHING_FITS not in example.tags:
            continue
        if len(example.calls) < 2 and {call["name"] for call in example.calls} <= set(example.tool_names):
            found.setdefault(sha256_json(example.tools), []).append(example)
    found = {tools: listed for tools, listed in found.items() if any(example.calls for example in listed)}
    if len(found) < FEW:
        raise CallwrightError(
            f"a tool encoder learns from requests for one call under {FEW} lists of tools or more: found {len(found)}"
        )
    return [_read(tokenizer, listed) for listed in found.values()]


def _read(tokenizer: Any, listed: Sequence[Example]) -> ToolList:
    functions = [tool["function"] for tool in listed[0].tools]
    numbers = {function["name"]: place for place, function in enumerate(functions)}
    texts: dict[str, int] = {}
    choices, meant = [], []
    for request, example in enumerate(listed):
        meant.append(numbers[example.calls[0]["name"]] if example.calls else NONE)
        for call in example.calls:
            for name, (about, options) in enumerations(functions[numbers[call["name"]]]).items():
                values = [texts.setdefault(text, len(texts)) for text, _ in options]
                said = call["arguments"].get(name)
                right = [number for number, (_, value) in zip(values, options, strict=True) if value == said]
                if right or name not in call["arguments"]:
                    (asked,) = token_ids(tokenizer, [f"{about}: {example.asked}"])
                    choices.append(ValueChoice(request, asked, values, right[0] if right else NONE))
    return ToolList(
        token_ids(tokenizer, [described(function) for function in functions]),
        token_ids(tokenizer, [example.asked for example in listed]),
        np.array(meant),
        token_ids(tokenizer, list(texts)) if texts else [],
        choices,
    )


def fit(
    encoder: SentenceEncoder, lists: Sequence[ToolList], seed: int = 0, epochs: float = EPOCHS
) -> tuple[Scales, dict[str, float]]:
    """Train the adapter on `encoder`, in place; (the scales, how it does on lists that were held back).

    One list in HELD_BACK is not trained and says how sure it may be, and `accuracy` (the share of requests for which
    the right tool comes first), `chance` (what guessing gives), `log_loss`, `value_accuracy` (the share of enumerations
    of which the right value, or none, comes first), and `decision` (the balanced accuracy of whether a tool fits).

    Raises CallwrightError where it does hardly better than guessing.
    """
    order = random.Random(f"{seed}/lists").sample(range(len(lists)), len(lists))
    held = {number for place, number in enumerate(order) if place % HELD_BACK == 0}
    tried = [one for number, one in enumerate(lists) if number in held]
    trained = [one for number, one in enumerate(lists) if number not in held]
    scales = train(encoder, trained, seed, epochs)
    tools, fits, values = _scored(encoder, tried, scales)
    softer = float(min(TEMPERATURES, key=lambda t: _log_loss(tools + fits, t)))
    calmer = float(min(TEMPERATURES, key=lambda t: _log_loss(values, t))) if values else 1.0
    scales = Scales(scales.tools / softer, scales.nothing / softer, scales.values / calmer, scales.unsaid / calmer)
    called = [scores[:-1].max() > scores[-1] for scores, _ in fits]
    wanted = [right < len(scores) - 1 for scores, right in fits]
    found = {
        "accuracy": _accuracy(tools),
        "chance": float(np.mean([1 / len(scores) for scores, _ in tools])),
        "log_loss": _log_loss(tools, softer),
        "value_accuracy": _accuracy(values),
        "decision": _balanced(called, wanted),
        "held_back_lists": len(tried),
        "held_back_requests": len(tools),
        "held_back_values": len(values),
        "lists": len(trained),
        "requests": sum(len(one.meant) for one in trained),
    }
    if found["accuracy"] < BETTER * found["chance"]:
        raise CallwrightError(
            f"nothing was learned of which tool a request is about: right for {found['accuracy']:.0%} under lists that "
            f"were held back, where guessing gives {found['chance']:.0%}: more requests, or other ones, are needed"
        )
    return scales, found


Scored = list[tuple[np.ndarray, int]]  # scores, and the number of the right one


def _scored(encoder: SentenceEncoder, lists: Sequence[ToolList], scales: Scales) -> tuple[Scored, Scored, Scored]:
    """Of tools for requests that mean one; of tools, and last of none, for all requests; and of values, likewise."""
    tools, fits, values = [], [], []
    for one in lists:
        texts = [*one.requests, *one.tools, *one.values, *(choice.asked for choice in one.choices)]
        requests, offered, said, asked = np.split(
            np.array(encoder.encode(texts)), np.cumsum([len(one.requests), len(one.tools), len(one.values)])
        )
        for vector, meant in zip(requests, one.meant, strict=True):
            scores = scales.tools * offered @ vector
            if meant != NONE:
                tools.append((scores, int(meant)))
            fits.append((np.append(scores, scales.nothing), int(meant) % (len(scores) + 1)))
        for choice, vector in zip(one.choices, asked, strict=True):
            scores = np.append(scales.values * said[choice.values] @ vector, scales.unsaid)
            right = len(choice.values) if choice.chosen == NONE else choice.values.index(choice.chosen)
            values.append((scores, right))
    return tools, fits, values


def _accuracy(scored: Scored) -> float:
    return float(np.mean([scores.argmax() == right for scores, right in scored])) if scored else 0.0


def _log_loss(scored: Scored, temperature: float) -> float:
    """The mean negative log-probability of what is right, in nats."""
    return -float(np.mean([log_softmax(scores / temperature)[right] for scores, right in scored]))


def _balanced(found: Sequence[bool], wanted: Sequence[bool]) -> float:
    found, wanted = np.array(found), np.array(wanted)
    return float(np.mean([(found[kind] == wanted[kind]).mean() for kind in (wanted, ~wanted) if kind.any()]))


def train(encoder: SentenceEncoder, lists: Sequence[ToolList], seed: int, epochs: float) -> Scales:
    """Train the adapter on `encoder` in place; each epoch takes as many requests as there are."""
    steps = max(1, round(epochs * sum(len(one.meant) for one in lists) / (TOGETHER * EXAMPLES)))
    scalars = asdict(BEGINNING) | {name: math.log(getattr(BEGINNING, name)) for name in LOGARITHMS}
    values = {**adapter_parameters(encoder), **{name: mx.array(value) for name, value in scalars.items()}}
    optimizer = AdamW(values, (0.9, 0.999), 1e-8, DECAY, undecayed=tuple(scalars))
    rng = np.random.default_rng(seed)
    progress, losses = Progress("tool encoder", steps, "steps", every=30), []
    for step, batch in enumerate(batches(lists, steps, rng), 1):
        loss, gradients = mx.value_and_grad(lambda values, batch: _loss(encoder, values, batch))(values, batch)
        gradients, _ = clip(gradients, NORM)
        values = optimizer.update(values, gradients, learning_rate(step, steps, RATE, max(1, steps // 10), "cosine"))
        mx.eval(values, *optimizer.state())
        losses.append(loss.item())
        progress.advance(1, f"loss {np.mean(losses[-20:]):.3f}")
    _put(encoder, values)
    found = {name: values[name].item() for name in scalars}
    return Scales(**found | {name: math.exp(found[name]) for name in LOGARITHMS})


@dataclass(frozen=True)
class ToolBatch:
    """What a step takes: texts as token ids, and what is right.

    meant [requests, 1]: a tool's number, or that behind the last for none; elsewhere [requests, tools + 1]: FAR for
    tools off a request's list, else 0. asking [choices]: what is asked of a request; chosen [choices, 1]: a value's
    number, or that behind the last for none; others [choices, values + 1]: FAR for values that are none of a choice's.
    """

    requests: list[list[int]]
    tools: list[list[int]]
    values: list[list[int]]
    asking: list[list[int]]
    meant: mx.array
    elsewhere: mx.array
    chosen: mx.array
    others: mx.array


def batches(lists: Sequence[ToolList], steps: int, rng: np.random.Generator) -> Iterator[ToolBatch]:
    """As many batches: lists and a list's requests come round once before any comes again."""
    waiting: list[int] = []
    left: list[list[int]] = [[] for _ in lists]
    for _ in range(steps):
        if len(waiting) < min(TOGETHER, len(lists)):
            waiting = list(rng.permutation(len(lists)))
        taken = []
        for number in [waiting.pop() for _ in range(min(TOGETHER, len(lists)))]:
            count = min(EXAMPLES, len(lists[number].meant))
            if len(left[number]) < count:
                left[number] = list(rng.permutation(len(lists[number].meant)))
            taken.append((lists[number], [left[number].pop() for _ in range(count)]))
        yield batch_of(taken)


def batch_of(taken: Sequence[tuple[ToolList, Sequence[int]]]) -> ToolBatch:
    """Some requests, by their numbers, of several lists."""
    requests, tools, values, meant, spans, asking, chosen, allowed = [], [], [], [], [], [], [], []
    for one, rows in taken:
        span, numbers, taking = (len(tools), len(tools) + len(one.tools)), {}, set(rows)
        for choice in [choice for choice in one.choices if choice.request in taking]:
            for value in choice.values:
                if value not in numbers:
                    numbers[value] = len(values)
                    values.append(one.values[value])
            asking.append(choice.asked)
            chosen.append(NONE if choice.chosen == NONE else numbers[choice.chosen])
            allowed.append([numbers[value] for value in choice.values])
        meant += [NONE if one.meant[row] == NONE else len(tools) + one.meant[row] for row in rows]
        requests += [one.requests[row] for row in rows]
        tools += one.tools
        spans += [span] * len(rows)
    elsewhere = np.full((len(requests), len(tools) + 1), FAR, np.float32)
    others = np.full((len(asking), len(values) + 1), FAR, np.float32)
    for row, (start, end) in enumerate(spans):
        elsewhere[row, start:end] = elsewhere[row, -1] = 0
    for row, numbers in enumerate(allowed):
        others[row, numbers] = others[row, -1] = 0
    return ToolBatch(
        requests, tools, values, asking, _column(meant, len(tools)), mx.array(elsewhere),
        _column(chosen, len(values)), mx.array(others),
    )  # fmt: skip


def _column(numbers: Sequence[int], none: int) -> mx.array:
    return mx.array(np.array([none if number == NONE else number for number in numbers], np.int32))[:, None]


def _put(encoder: nn.Module, values: dict[str, mx.array]) -> None:
    names = asdict(BEGINNING)
    encoder.load_weights([(name, value) for name, value in values.items() if name not in names], strict=False)


def _loss(encoder: SentenceEncoder, values: dict[str, mx.array], batch: ToolBatch) -> mx.array:
    _put(encoder, values)
    parts = (batch.requests, batch.tools, batch.values, batch.asking)
    ends = np.cumsum([len(part) for part in parts[:-1]]).tolist()
    requests, tools, said, asking = mx.split(encoder.encode([text for part in parts for text in part]), ends)
    scores = _with(requests @ tools.T * mx.exp(values["tools"]), values["nothing"])
    among_all, on_offer = mx.logsumexp(scores, axis=-1), mx.logsumexp(scores + batch.elsewhere, axis=-1)
    loss = ((among_all + on_offer) / 2 - _right(scores, batch.meant)).mean()
    if not batch.values:
        return loss
    scores = _with(asking @ said.T * mx.exp(values["values"]), values["unsaid"]) + batch.others
    return loss + OF_VALUES * (mx.logsumexp(scores, axis=-1) - _right(scores, batch.chosen)).mean()


def _with(scores: mx.array, none: mx.array) -> mx.array:
    return mx.concatenate([scores, mx.broadcast_to(none, (len(scores), 1))], axis=-1)


def _right(scores: mx.array, numbers: mx.array) -> mx.array:
    return mx.take_along_axis(scores, numbers, axis=-1)[:, 0]
