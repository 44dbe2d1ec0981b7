"""One answer on its way from the engine's thread to a client's coroutine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from callwright.serve.answer import Delta
from callwright.serve.engine import ServingEngine, Ticket, Token
from callwright.serve.errors import failed
from callwright.serve.model import Prepared

Receive = Callable[[], Awaitable[dict[str, Any]]]


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Running:
    """An answer under way: `deltas` yields what is new for the client; leaving it early frees the engine."""

    def __init__(self, engine: ServingEngine, prepared: Prepared, tokenizer: Any, receive: Receive):
        self.engine, self.prepared, self.receive = engine, prepared, receive
        self.answer = prepared.answer
        self.detokenizer = tokenizer.detokenizer
        self.output_tokens = 0

    async def deltas(self) -> AsyncIterator[list[Delta]]:
        """What there is to pass on, as it comes; afterwards `answer` is complete.

        Raises ClientGone when the client hangs up, and ApiError when generating fails.
        """
        loop = asyncio.get_running_loop()
        tokens: asyncio.Queue[Token | None] = asyncio.Queue()
        ticket = Ticket(self.prepared.request(), lambda token: loop.call_soon_threadsafe(tokens.put_nowait, token))
        watch = asyncio.create_task(self._hung_up())
        watch.add_done_callback(lambda _: tokens.put_nowait(None))
        self.engine.submit(ticket)
        try:
            while self.answer.finish_reason is None:
                token = await tokens.get()
                if token is None:
                    raise ClientGone
                if token.reason == "error":
                    raise failed()
                yield self._read(token)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            self.engine.cancel(ticket)

    async def _hung_up(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def _read(self, token: Token) -> list[Delta]:
        if token.id is not None:
            self.output_tokens += 1
            self.detokenizer.add_token(token.id)
            return self.answer.feed(self.detokenizer.last_segment)
        self.detokenizer.finalize()
        deltas = self.answer.feed(self.detokenizer.last_segment)
        return deltas + self.answer.end(token.reason, self.prepared.max_tokens)
