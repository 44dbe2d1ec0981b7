"""The thread that generates all answers under way; new ones join between two tokens.

Everything of MLX happens in this thread, by the engine that evaluation uses (`decoding.engine`); others talk to it
through a queue and get each token by a callback.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from callwright.decoding.beginnings import LIMIT, Beginnings
from callwright.decoding.cpu_math import fast_inference
from callwright.decoding.engine import Engine as Decoder
from callwright.decoding.engine import Request
from callwright.decoding.engines import MlxLmEngine, engine_for

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
    """An answer to be generated: `deliver` is called in the engine's thread with each `Token`, until a `reason`."""

    request: Request
    deliver: Callable[[Token], None]
    submitted: bool = False
    cancelled: bool = False
    ended: bool = False


class Engine:
    """The thread. `running`: answers that grow at once, more wait inside for their turn; `kept`: bytes of keys and
    values of recent prompts, whose beginnings need not be read again."""

    def __init__(self, model: nn.Module, stop_ids: set[int], running: int, kept: int = LIMIT):
        self.model, self.stop_ids, self.running, self.kept = model, stop_ids, running, kept
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
            under_way: dict[Request, Ticket] = {}
            decoder = self._decoder()
            while True:
                try:
                    if not self._receive(decoder, under_way):
                        break
                    self._step(decoder, under_way)
                except Exception:  # which of the answers is at fault cannot be known: all end
                    log.exception("generating %d answers failed", len(under_way))
                    for ticket in under_way.values():
                        end(ticket, "error")
                    under_way = {}
                    decoder.close()
                    decoder = self._decoder()
            for ticket in under_way.values():
                end(ticket, "error")
            decoder.close()

    def _decoder(self) -> Decoder | MlxLmEngine:
        return engine_for(self.model, self.stop_ids, self.running, Beginnings(self.kept))

    def _receive(self, decoder: Decoder | MlxLmEngine, under_way: dict[Request, Ticket]) -> bool:
        """Take in new tickets and drop cancelled ones; waits when there is nothing to do. False: end the thread."""
        while True:
            try:
                ticket = self._inbox.get(block=not under_way)
            except queue.Empty:
                return True
            if ticket is None:
                return False
            if ticket.cancelled:
                if under_way.pop(ticket.request, None):
                    decoder.cancel(ticket.request)
                ticket.ended = True
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
                end(ticket, request.finish_reason)
        for request in [request for request, ticket in under_way.items() if ticket.cancelled]:
            decoder.cancel(request)
            under_way.pop(request).ended = True


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
