"""Continuous batching: one thread generates all answers under way, new ones join between two tokens.

Built on mlx-lm's `BatchGenerator` (`insert`, `next`, `remove`), with a sampler and a grammar of its own for each
answer. Everything of MLX happens in this thread; others talk to it through a queue and get each token by a callback.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator

from callwright.decoding.cpu_math import fast_inference

log = logging.getLogger(__name__)

# Tokens of a prompt in one forward pass: between two passes the answers under way go on.
PREFILL_TOKENS = 512

Processor = Callable[[mx.array, mx.array], mx.array]
Sampler = Callable[[mx.array], mx.array]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer: `id` None at the end, where `reason` is "stop", "length" or "error"."""

    id: int | None
    reason: str | None = None


@dataclass(eq=False, slots=True)
class Ticket:
    """An answer to be generated: `deliver` is called in the engine's thread with each `Token`, until a `reason`."""

    prompt: Sequence[int]
    max_tokens: int
    deliver: Callable[[Token], None]
    sampler: Sampler | None = None  # None: the likeliest token
    processor: Processor | None = None
    uid: int | None = None
    cancelled: bool = False
    ended: bool = False
    error: BaseException | None = field(default=None, repr=False)

    def process(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """The processor's logits; its error ends this answer and no other."""
        if self.error is None:
            try:
                return self.processor(tokens, logits)
            except Exception as error:
                self.error = error
        return logits


class Engine:
    """The thread that generates. `running`: answers in one batch; more wait inside for their turn."""

    def __init__(self, model: nn.Module, stop_ids: set[int], running: int):
        self.model, self.stop_ids, self.running = model, stop_ids, running
        self._inbox: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        # What the model computes once and keeps (rotary frequencies) must be there before another thread uses it.
        mx.eval(model(mx.array([[0]])))
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether answers can be had."""
        return self._thread.is_alive()

    def submit(self, ticket: Ticket) -> None:
        """Start generating an answer."""
        self._inbox.put(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """End an answer that nobody waits for any more; nothing happens to one that has ended."""
        ticket.cancelled = True
        self._inbox.put(ticket)

    def close(self) -> None:
        """End the thread; answers under way end with an error."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        with fast_inference(self.model):
            under_way: dict[int, Ticket] = {}
            generator = self._generator()
            while True:
                try:
                    if not self._receive(generator, under_way):
                        break
                    self._step(generator, under_way)
                except Exception as error:  # which of the answers is at fault cannot be known: all end
                    log.exception("generating %d answers failed", len(under_way))
                    for ticket in under_way.values():
                        ticket.error = error
                        end(ticket, "error")
                    under_way = {}
                    generator.close()
                    generator = self._generator()
            for ticket in under_way.values():
                end(ticket, "error")
            generator.close()

    def _generator(self) -> BatchGenerator:
        return BatchGenerator(
            self.model,
            stop_tokens=[[token] for token in sorted(self.stop_ids)],
            completion_batch_size=self.running,
            prefill_batch_size=min(8, self.running),
            prefill_step_size=PREFILL_TOKENS,
        )

    def _receive(self, generator: BatchGenerator, under_way: dict[int, Ticket]) -> bool:
        """Take in new tickets and drop cancelled ones; waits when there is nothing to do. False: end the thread."""
        while True:
            try:
                ticket = self._inbox.get(block=not under_way)
            except queue.Empty:
                return True
            if ticket is None:
                return False
            if ticket.cancelled:
                if ticket.uid is not None and under_way.pop(ticket.uid, None):
                    generator.remove([ticket.uid])
                ticket.ended = True
            elif ticket.uid is None:
                self._insert(generator, ticket, under_way)

    def _insert(self, generator: BatchGenerator, ticket: Ticket, under_way: dict[int, Ticket]) -> None:
        try:
            (ticket.uid,) = generator.insert(
                [list(ticket.prompt)],
                [ticket.max_tokens],
                samplers=[ticket.sampler],
                logits_processors=[[ticket.process] if ticket.processor else []],
            )
        except ValueError as error:
            ticket.error = error
            end(ticket, "error")
            return
        under_way[ticket.uid] = ticket

    def _step(self, generator: BatchGenerator, under_way: dict[int, Ticket]) -> None:
        """One token of each answer that has its prompt behind it, and some prompt tokens of the others."""
        _, responses = generator.next()
        for response in responses:
            ticket = under_way.get(response.uid)
            if ticket is None:
                continue
            if response.finish_reason != "stop":
                deliver(ticket, Token(response.token))
            if response.finish_reason:
                del under_way[response.uid]
                end(ticket, response.finish_reason)
        for uid, ticket in [item for item in under_way.items() if item[1].error is not None or item[1].cancelled]:
            if ticket.error is not None:
                log.error("the grammar of an answer failed: %r", ticket.error)
            del under_way[uid]
            generator.remove([uid])
            end(ticket, "error")


def deliver(ticket: Ticket, token: Token) -> None:
    """Hand a token over; a receiver that is gone (its event loop has ended) cancels the answer."""
    try:
        ticket.deliver(token)
    except RuntimeError:
        ticket.cancelled = True


def end(ticket: Ticket, reason: str) -> None:
    """The last word about an answer."""
    if not ticket.ended:
        ticket.ended = True
        deliver(ticket, Token(None, reason))
