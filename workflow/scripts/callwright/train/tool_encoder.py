"""Training a dual encoder of tools (`evals.tool_encoder`): a projection of a base model's states, in seconds.

The states of requests and tools are computed once. Each step takes the requests of several lists of tools and draws
every request towards the tool it means: away from the others on its own list, and, half as an aid against learning the
lists by heart, away from the tools of all lists of the step (in-batch negatives: Karpukhin et al. 2020).
"""

import dataclasses
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.data.records import Example
from callwright.data.tool_texts import described
from callwright.evals.tool_encoder import REQUESTS, TOOLS, ToolProjection, read
from callwright.lora.optimizer import AdamW
from callwright.lora.schedule import learning_rate
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_json

log = logging.getLogger(__name__)

WIDTH = 128  # of the vectors
STEPS, RATE, DECAY, DROPOUT = 400, 2e-3, 0.05, 0.3
TOGETHER = 6  # lists a step
EXAMPLES = 64  # requests of a list in a step
SCALES = np.geomspace(1.0, 64.0, 61)
HELD_BACK = 8  # one list in so many measures what a difference in the cosine is worth
WHITENED = 0.5  # of the directions' spread the beginning takes off
FAR = -1e9
NULL = 1e-3  # of the largest spread: where there is none
BETTER = 1.5  # times what guessing gives, on lists that were held back: else it is left out
FEW = 8  # lists of tools: one, at least, is held back, and what is left says something about others


@dataclass(frozen=True)
class ToolList:
    """Tools that are on offer together, and requests that mean one of them.

    tools [n, d] and requests [m, d]: their states; meant [m]: the number of the tool that each request means.
    """

    tools: np.ndarray
    requests: np.ndarray
    meant: np.ndarray


def blocks_to_read(count: int) -> tuple[int, int, int]:
    """Of a model with `count` blocks, those behind which its states are read: a fifth, three fifths and all of them."""
    return max(1, count // 5), max(1, count * 3 // 5), count


def lists_of(model: nn.Module, tokenizer: Any, examples: Iterable[Example], after: Sequence[int]) -> list[ToolList]:
    """The examples that want one call, by the tools on offer, read by a model; lists of one tool are left out.

    Raises CallwrightError where fewer than FEW lists are left.
    """
    found: dict[str, list[Example]] = {}
    for example in examples:
        turns = [message["role"] for message in example.messages if message["role"] != "system"]
        if turns != ["user"] or len(example.calls) != 1 or len(example.tools) < 2:
            continue
        if example.calls[0]["name"] in example.tool_names:
            found.setdefault(sha256_json(example.tools), []).append(example)
    if len(found) < FEW:
        raise CallwrightError(
            f"a tool encoder learns from requests for one call under {FEW} lists of tools or more: found {len(found)}"
        )
    lists = []
    for number, listed in enumerate(found.values(), 1):
        functions = [tool["function"] for tool in listed[0].tools]
        numbers = {function["name"]: place for place, function in enumerate(functions)}
        tools = read(model, tokenizer, [described(function) for function in functions], after)
        requests = read(model, tokenizer, [example.asked for example in listed], after)
        lists.append(ToolList(tools, requests, np.array([numbers[example.calls[0]["name"]] for example in listed])))
        if number % 10 == 0:
            log.info("tool encoder: %d of %d lists of tools read", number, len(found))
    return lists


def fit(
    lists: Sequence[ToolList], model: str, after: Sequence[int], seed: int = 0
) -> tuple[ToolProjection, dict[str, float]]:
    """A projection for tools and requests that it did not see, and how it does on lists that were held back.

    One list in HELD_BACK is kept from a first training, whose projection is asked about it: that gives `scale`, and
    `accuracy` (the share of requests for which the right tool comes first), `chance` (what guessing gives) and
    `log_loss`. Then all lists are trained. model, after: what was read (`ToolProjection`).

    Raises CallwrightError where it does hardly better than guessing.
    """
    order = random.Random(f"{seed}/lists").sample(range(len(lists)), len(lists))
    held = {number for place, number in enumerate(order) if place % HELD_BACK == 0}
    tried = [one for number, one in enumerate(lists) if number in held]
    first = trained([one for number, one in enumerate(lists) if number not in held], model, after, seed)
    scale = min(SCALES, key=lambda scale: log_loss(rescaled(first, scale), tried))
    found = {
        "accuracy": accuracy(first, tried),
        "chance": float(np.mean([1 / len(one.tools) for one in tried for _ in one.meant])),
        "log_loss": log_loss(rescaled(first, scale), tried),
        "held_back_lists": len(tried),
        "held_back_requests": sum(len(one.meant) for one in tried),
        "lists": len(lists),
        "requests": sum(len(one.meant) for one in lists),
    }
    if found["accuracy"] < BETTER * found["chance"]:
        raise CallwrightError(
            f"nothing was learned of which tool a request is about: right for {found['accuracy']:.0%} under lists that "
            f"were held back, where guessing gives {found['chance']:.0%}: more requests, or other ones, are needed"
        )
    return rescaled(trained(lists, model, after, seed), scale), found


def trained(
    lists: Sequence[ToolList], model: str, after: Sequence[int], seed: int, steps: int = STEPS
) -> ToolProjection:
    """A projection after `steps` steps on `lists`; its scale is that of the training."""
    sides = [np.concatenate([one.requests for one in lists]), np.concatenate([one.tools for one in lists])]
    center = np.stack([side.mean(axis=0) for side in sides])
    spread = np.stack([_floored(side.std(axis=0)) for side in sides])
    lists = [
        ToolList(
            (one.tools - center[TOOLS]) / spread[TOOLS],
            (one.requests - center[REQUESTS]) / spread[REQUESTS],
            one.meant,
        )
        for one in lists
    ]
    values = {"matrix": mx.array(_beginning(lists)), "scale": mx.array(2.0)}
    optimizer = AdamW(values, (0.9, 0.999), 1e-8, DECAY, undecayed=("scale",))
    rng, waiting = np.random.default_rng(seed), []
    for step in range(1, steps + 1):
        if len(waiting) < min(TOGETHER, len(lists)):
            waiting = list(rng.permutation(len(lists)))
        batch = _batch([lists[waiting.pop()] for _ in range(min(TOGETHER, len(lists)))], rng)
        loss, gradients = mx.value_and_grad(_loss)(values, *batch)
        values = optimizer.update(values, gradients, learning_rate(step, steps, RATE, 0, "cosine"))
        mx.eval(values, *optimizer.state())
        if step % 50 == 0:
            log.info("tool encoder: step %d of %d, loss %.3f", step, steps, loss.item())
    scale = float(mx.exp(values["scale"]).item())
    return ToolProjection(model, tuple(after), center, spread, np.array(values["matrix"]), scale)


def rescaled(projection: ToolProjection, scale: float) -> ToolProjection:
    """The same projection with another scale."""
    return dataclasses.replace(projection, scale=float(scale))


def accuracy(projection: ToolProjection, lists: Sequence[ToolList]) -> float:
    """The share of requests for which the right tool of their list comes first."""
    right = [projection.log_probabilities(one.requests, one.tools).argmax(axis=-1) == one.meant for one in lists]
    return float(np.concatenate(right).mean())


def log_loss(projection: ToolProjection, lists: Sequence[ToolList]) -> float:
    """The mean negative log-probability of the right tool of a request's list, in nats."""
    found = [
        projection.log_probabilities(one.requests, one.tools)[np.arange(len(one.meant)), one.meant] for one in lists
    ]
    return -float(np.concatenate(found).mean())


def _beginning(lists: Sequence[ToolList]) -> np.ndarray:
    """The main directions of all states [d, WIDTH], half whitened: what tells texts apart before any training."""
    states = np.concatenate([np.concatenate([one.tools, one.requests]) for one in lists])
    _, spread, directions = np.linalg.svd(states, full_matrices=False)
    some = np.flatnonzero(spread > NULL * spread[0])[:WIDTH]  # fewer, where there are hardly more states than these
    spread, directions = spread[some], directions[some]
    weights = (np.median(spread) / spread) ** WHITENED
    return (4 * directions.T * weights / np.sqrt(states.shape[1])).astype(np.float32)


def _floored(spread: np.ndarray) -> np.ndarray:
    """A standard deviation for each dimension, none of them next to nothing."""
    return np.maximum(spread, NULL * np.median(spread) + 1e-9)


def _batch(lists: Sequence[ToolList], rng: np.random.Generator) -> tuple[mx.array, ...]:
    """Requests [n, d], tools [m, d], the tool each means [n, 1], what is off its list [n, m], what is dropped [d]."""
    tools = np.concatenate([one.tools for one in lists])
    chosen = [rng.permutation(len(one.meant))[:EXAMPLES] for one in lists]
    starts = np.cumsum([0, *(len(one.tools) for one in lists)])[:-1]
    requests = np.concatenate([one.requests[rows] for one, rows in zip(lists, chosen, strict=True)])
    meant = np.concatenate([one.meant[rows] + start for one, rows, start in zip(lists, chosen, starts, strict=True)])
    whose_tool = np.repeat(np.arange(len(lists)), [len(one.tools) for one in lists])
    whose = np.repeat(np.arange(len(lists)), [len(rows) for rows in chosen])
    elsewhere = np.where(whose[:, None] == whose_tool[None], 0.0, FAR)
    kept = (rng.random(tools.shape[1]) >= DROPOUT) / (1 - DROPOUT)
    return tuple(mx.array(part.astype(np.float32)) for part in (requests, tools)) + (
        mx.array(meant.astype(np.int32))[:, None],
        mx.array(elsewhere.astype(np.float32)),
        mx.array(kept.astype(np.float32)),
    )


def _loss(
    values: dict[str, mx.array],
    requests: mx.array,
    tools: mx.array,
    meant: mx.array,
    elsewhere: mx.array,
    kept: mx.array,
) -> mx.array:
    vectors = [_unit((states * kept) @ values["matrix"]) for states in (requests, tools)]
    scores = vectors[0] @ vectors[1].T * mx.exp(values["scale"])
    right = mx.take_along_axis(scores, meant, axis=-1)[:, 0]
    among_all, on_offer = mx.logsumexp(scores, axis=-1), mx.logsumexp(scores + elsewhere, axis=-1)
    return ((among_all + on_offer) / 2 - right).mean()


def _unit(vectors: mx.array) -> mx.array:
    return vectors * mx.rsqrt((vectors * vectors).sum(axis=-1, keepdims=True) + 1e-12)
