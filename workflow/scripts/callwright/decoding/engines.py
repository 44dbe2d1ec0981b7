"""Which engine a model gets: the one of `decoding.engine`, or mlx-lm's own batches for any other architecture."""

import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator

from callwright.decoding.beginnings import Beginnings
from callwright.decoding.engine import READ_TOKENS, Engine, Request, Spent
from callwright.decoding.places import windows

PROMPTS = 8  # that mlx-lm's generator reads in one batch


def engine_for(
    model: nn.Module, stop_ids: set[int], running: int, beginnings: Beginnings | None = None
) -> "Engine | MlxLmEngine":
    """An engine that answers up to `running` requests at once."""
    if windows(model) is None:
        return MlxLmEngine(model, stop_ids, running)
    return Engine(model, stop_ids, running, beginnings)


class MlxLmEngine:
    """`decoding.engine.Engine` by mlx-lm's `BatchGenerator`: whatever state a model keeps, no shared beginnings.

    Also the reference that the tests hold the other one against.
    """

    def __init__(self, model: nn.Module, stop_ids: set[int], running: int):
        self.running = running
        self.spent = Spent()
        self._requests: dict[int, Request] = {}
        self._generator = BatchGenerator(
            model,
            stop_tokens=[[token] for token in sorted(stop_ids)],
            completion_batch_size=running,
            prefill_batch_size=min(PROMPTS, running),
            prefill_step_size=READ_TOKENS,
        )

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._requests)

    @property
    def rows(self) -> list[Request]:
        """The requests that have a token at least."""
        return [request for request in self._requests.values() if request.ids]

    @property
    def hungry(self) -> bool:
        """Whether another request would be read at once."""
        return len(self._requests) < self.running

    def submit(self, request: Request) -> None:
        """Answer a request when its turn comes."""
        request.start()
        change = request.constraint or request.processor
        steps = [guarded(request, change)] if change else []
        if request.decision is not None:
            steps.insert(0, guarded(request, lambda tokens, logits: decided(request, tokens, logits)))
        (uid,) = self._generator.insert(
            [list(request.prompt)],
            [request.max_tokens],
            samplers=[request.sampler],
            logits_processors=[steps],
        )
        self._requests[uid] = request

    def cancel(self, request: Request) -> None:
        """Forget a request, wherever it is."""
        for uid in [uid for uid, found in self._requests.items() if found is request]:
            self._drop(uid)

    def read(self) -> None:
        """Nothing: `advance` reads prompts as well."""

    def advance(self) -> list[Request]:
        """One step; returns the requests that have a token more, or have ended."""
        moved, begun = [], time.monotonic()
        _, responses = self._generator.next()
        self.spent.steps += 1
        self.spent.written_seconds += time.monotonic() - begun  # prompts are read in there as well
        for response in responses:
            request = self._requests.get(response.uid)
            if request is None or request.error is not None:
                continue
            if not request.ids:
                self.spent.read += len(request.prompt)
            moved.append(request)
            if response.finish_reason != "stop":
                request.ids.append(response.token)
                self.spent.written += 1
            if response.finish_reason:
                del self._requests[response.uid]
                request.end(response.finish_reason)
        for uid, request in [item for item in self._requests.items() if item[1].error is not None]:
            self._drop(uid)
            request.end("error")
            moved.append(request)
        return moved

    def close(self) -> None:
        """Let go of what the generator holds."""
        self._generator.close()

    def _drop(self, uid: int) -> None:
        del self._requests[uid]
        self._generator.remove([uid])


def decided(request: Request, tokens: mx.array, logits: mx.array) -> mx.array:
    """The logits of what follows `tokens` [n], prompt and answer, after the request's decision where this is the place.

    The generator is a token ahead of the request's own ids.
    """
    if not request.deciding:
        return logits
    last = tokens[-1].item() if tokens.size > len(request.prompt) else None
    return request.decision(logits) if request.decision.due(last) else logits


def guarded(request: Request, change: Callable[..., Any]) -> Callable[..., Any]:
    """A processor whose error is noted in its request, and ends no other."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        if request.error is None:
            try:
                return change(tokens, logits)
            except Exception as error:
                request.error = error
        return logits

    return process
