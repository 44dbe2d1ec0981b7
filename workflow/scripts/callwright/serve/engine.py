"""The threads that generate all answers under way; new ones join between two tokens.

Everything of MLX happens in these threads, each with an engine as evaluation uses it (`decoding.engine`); others talk
to them through queues and get each token by a callback.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from callwright.decoding.beginnings import LIMIT, Beginnings
from callwright.decoding.engine import Engine as Decoder
from callwright.decoding.engine import Request
from callwright.decoding.engines import MlxLmEngine, engine_for
from callwright.decoding.workers import default_workers
from callwright.models.cpu_math import fast_inference
from callwright.runtime.threads import blas_threads

log = logging.getLogger(__name__)

# Tokens of prompts that are read between two tokens of the answers under way.
PROMPT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer: `id` None at the end, where `reason` is "stop", "length" or "error"."""

    id: int | None
    reason: str | None = None


@dataclass(eq=False, slots=True)
class Ticket:
    """An answer to be generated: `deliver` is called in an engine's thread with each `Token`, until a `reason`."""

    request: Request
    deliver: Callable[[Token], None]
    thread: int = 0
    submitted: bool = False
    cancelled: bool = False
    ended: bool = False


class ServingEngine:
    """The threads: on a CPU one for each core, so that none waits for another at every matrix product.

    running: answers that grow at once in all threads; more wait inside for their turn. kept: bytes of keys and values
    of recent prompts, whose beginnings need not be read again.
    """

    def __init__(self, model: nn.Module, stop_ids: set[int], running: int, kept: int = LIMIT):
        self.model, self.stop_ids = model, stop_ids
        count = min(default_workers(), running)
        self.running = -(-running // count)  # in each
        self.beginnings = Beginnings(kept)
        self._inboxes: list[queue.SimpleQueue[Ticket | None]] = [queue.SimpleQueue() for _ in range(count)]
        self._load = [0] * count  # answers under way
        self._lock = threading.Lock()
        # What the model computes once and keeps (rotary frequencies) must be there before another thread uses it.
        mx.eval(model(mx.array([[0]])))
        self._settings = contextlib.ExitStack()
        self._settings.enter_context(fast_inference(model))
        if count > 1:
            self._settings.enter_context(blas_threads(1))
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"engine-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether answers can be had."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, ticket: Ticket) -> None:
        """Start generating an answer, in the thread that has the fewest."""
        with self._lock:
            ticket.thread = min(range(len(self._load)), key=self._load.__getitem__)
            self._load[ticket.thread] += 1
        self._inboxes[ticket.thread].put(ticket)

    def cancel(self, ticket: Ticket) -> None:
        """End an answer that nobody waits for any more; nothing happens to one that has ended."""
        ticket.cancelled = True
        self._inboxes[ticket.thread].put(ticket)

    def close(self) -> None:
        """End the threads; answers under way end with an error."""
        for inbox in self._inboxes:
            inbox.put(None)
        for thread in self._threads:
            thread.join()
        self._settings.close()

    def _run(self, number: int) -> None:
        with mx.stream(mx.new_stream(mx.default_device())):
            under_way: dict[Request, Ticket] = {}
            decoder = self._decoder()
            while True:
                try:
                    if not self._receive(self._inboxes[number], decoder, under_way):
                        break
                    self._step(decoder, under_way)
                except Exception:  # which of the answers is at fault cannot be known: all of this thread end
                    log.exception("generating %d answers failed", len(under_way))
                    for ticket in under_way.values():
                        self._end(ticket, "error")
                    under_way = {}
                    decoder.close()
                    decoder = self._decoder()
            for ticket in under_way.values():
                self._end(ticket, "error")
            decoder.close()

    def _decoder(self) -> Decoder | MlxLmEngine:
        return engine_for(self.model, self.stop_ids, self.running, self.beginnings)

    def _receive(
        self,
        inbox: "queue.SimpleQueue[Ticket | None]",
        decoder: Decoder | MlxLmEngine,
        under_way: dict[Request, Ticket],
    ) -> bool:
        """Take in new tickets and drop cancelled ones; waits when there is nothing to do. False: end the thread."""
        while True:
            try:
                ticket = inbox.get(block=not under_way)
            except queue.Empty:
                return True
            if ticket is None:
                return False
            if ticket.cancelled:
                if under_way.pop(ticket.request, None):
                    decoder.cancel(ticket.request)
                self._gone(ticket)
            elif not ticket.submitted:
                ticket.submitted = True
                decoder.submit(ticket.request)
                under_way[ticket.request] = ticket

    def _step(self, decoder: Decoder | MlxLmEngine, under_way: dict[Request, Ticket]) -> None:
        """Some prompt tokens of those that wait, and one token of each answer that has its prompt behind it."""
        read = 0
        while read < PROMPT_TOKENS and (count := decoder.read()) is not None:
            read += max(count, 1)
        for request in decoder.advance():
            ticket = under_way[request]
            if request.finish_reason not in ("stop", "error"):
                deliver(ticket, Token(request.ids[-1]))
            if request.finish_reason:
                if request.error is not None:
                    log.error("the grammar of an answer failed: %r", request.error)
                del under_way[request]
                self._end(ticket, request.finish_reason)
        for request in [request for request, ticket in under_way.items() if ticket.cancelled]:
            decoder.cancel(request)
            self._gone(under_way.pop(request))

    def _end(self, ticket: Ticket, reason: str) -> None:
        """The last word about an answer."""
        if not ticket.ended:
            self._gone(ticket)
            deliver(ticket, Token(None, reason))

    def _gone(self, ticket: Ticket) -> None:
        if not ticket.ended:
            ticket.ended = True
            with self._lock:
                self._load[ticket.thread] -= 1


def deliver(ticket: Ticket, token: Token) -> None:
    """Hand a token over; a receiver that is gone (its event loop has ended) cancels the answer."""
    try:
        ticket.deliver(token)
    except RuntimeError:
        ticket.cancelled = True
