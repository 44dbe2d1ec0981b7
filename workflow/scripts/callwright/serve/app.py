"""The server's routes: `/v1/chat/completions`, `/v1/models`, `/health`, as an ASGI application."""

import asyncio
import contextlib
import hmac
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from callwright.serve import wire
from callwright.serve.engine import ServingEngine
from callwright.serve.errors import ApiError, busy, failed
from callwright.serve.limits import Limits
from callwright.serve.model import Prepared, ServedModel
from callwright.serve.protocol import ChatRequest, read_request
from callwright.serve.running import ClientGone, Running

log = logging.getLogger(__name__)

# A body that is too large is still read to its end up to here, and thrown away: a client that is cut off while it
# sends never sees why.
DRAIN = 64 << 20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
CHAT = "use POST /v1/chat/completions (in OpenAI's client: client.chat.completions.create)"
# Paths that clients of other interfaces ask for, and what there is instead.
INSTEAD = {
    "/v1/completions": f"this server has no completions of bare text: {CHAT}",
    "/v1/responses": f"this server has no responses API: {CHAT}",
    "/v1/embeddings": "this server makes no embeddings",
    "/v1/messages": f"this server does not speak Anthropic's API: {CHAT}",
    "/api/chat": f"this server does not speak Ollama's API: {CHAT}",
    "/api/generate": f"this server does not speak Ollama's API: {CHAT}",
    "/chat/completions": "the address ends in /v1: give http://HOST:PORT/v1 as base_url",
    "/v1/v1/chat/completions": "the address has /v1 twice: give http://HOST:PORT/v1 as base_url",
    "/completions": f"this server has no completions of bare text: {CHAT}",
    "/responses": f"this server has no responses API: {CHAT}",
    "/": "the API is below /v1",
}


class Service:
    """The application's state: model, engine, limits, and how many requests are under way."""

    def __init__(
        self,
        model: ServedModel,
        limits: Limits,
        key: str | None = None,
        loopback: bool = True,
        hosts: Iterable[str] = (),
    ):
        """`hosts`: names beside the loopback's under which the server answers, "*" for any; without these it answers,
        where it listens on more than the loopback, to any name."""
        self.model, self.limits, self.key = model, limits, key
        names = {plain_host(host) for host in hosts}
        self.hosts = None if "*" in names or not (loopback or names) else names | set(LOOPBACK)
        self.engine = ServingEngine(model.model, model.stop_ids, limits.running, limits.kept_bytes)
        self.created = int(time.time())
        self.active = 0
        self.playground: Any = None  # serve.playground.Playground, where there is one
        # One thread reads, renders and tokenizes: tokenizers are not made for several, and the engine needs the cores.
        self.preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")

    def close(self) -> None:
        """End the engine."""
        if self.playground is not None:
            self.playground.close()
        self.engine.close()
        self.preparing.shutdown(cancel_futures=True)

    def application(self) -> Starlette:
        """The ASGI application."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.close)

        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.one_model),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                *(self.playground.routes() if self.playground is not None else ()),
            ],
            exception_handlers={ApiError: on_api_error, HTTPException: on_http_error},
            lifespan=lifespan,
        )

    async def health(self, request: Request) -> Response:
        """Whether answers can be had; needs no key."""
        self.check_host(request)
        alive = self.engine.alive
        return JSONResponse(
            {"status": "ok" if alive else "unavailable", "active": self.active}, status_code=200 if alive else 503
        )

    async def models(self, request: Request) -> Response:
        """The list of models: the one that is served."""
        self.check(request)
        return JSONResponse({"object": "list", "data": [self.about_model()]})

    async def one_model(self, request: Request) -> Response:
        """What there is to say of a model."""
        self.check(request)
        self.check_name(request.path_params["name"])
        return JSONResponse(self.about_model())

    async def chat(self, request: Request) -> Response:
        """A chat completion, whole or as a stream."""
        try:
            return await self.answer(request)
        except (ClientGone, ClientDisconnect):
            log.info("chat: the client is gone")
            return Response(status_code=499)
        except ApiError:
            raise
        except Exception:
            log.exception("a request failed")
            raise failed() from None

    async def answer(self, request: Request) -> Response:
        """The response to a request for a chat completion; raises ApiError, and ClientGone."""
        start = time.monotonic()
        self.check(request)
        raw = await self.body(request)
        with self.slot() as slot:
            loop = asyncio.get_running_loop()
            chat, prepared = await loop.run_in_executor(self.preparing, self.prepare, raw)
            header = wire.Header(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), self.model.name)
            running = Running(self.engine, prepared, self.model.tokenizer, request.receive)
            if chat.stream:
                return EventStream(slot.pop_all(), header, running, chat.include_usage, start)
            async with contextlib.aclosing(running.deltas()) as deltas:
                async for _ in deltas:
                    pass
            note(running, start)
            counts = wire.usage(len(prepared.prompt), running.output_tokens)
            return JSONResponse(wire.completion(header, running.answer, counts), headers={"x-request-id": header.id})

    def prepare(self, raw: bytes) -> tuple[ChatRequest, Prepared]:
        """Read a body and make it ready for the engine; raises ApiError."""
        chat = read_request(raw, self.limits)
        self.check_name(chat.model)
        return chat, self.model.prepare(chat, self.limits)

    async def body(self, request: Request) -> bytes:
        """The request's body; raises ApiError when it is too large, too slow in coming, or not called JSON."""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise ApiError("the header `content-type` must be application/json", 415, code="unsupported_media_type")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size <= self.limits.body_bytes:
                        parts.append(part)
                    elif size > DRAIN:
                        break
        except TimeoutError as error:
            raise ApiError(
                f"the request did not arrive within {self.limits.body_seconds:g} seconds",
                408,
                code="request_timeout",
                headers={"connection": "close"},
            ) from error
        if size > self.limits.body_bytes:
            raise ApiError(
                f"the request has {'more than ' if size > DRAIN else ''}{size} bytes, at most "
                f"{self.limits.body_bytes} are taken",
                413,
                code="request_too_large",
                headers={"connection": "close"},
            )
        return b"".join(parts)

    @contextlib.contextmanager
    def slot(self) -> Iterator[contextlib.ExitStack]:
        """One of the places of requests under way; raises ApiError when all are taken."""
        if self.active >= self.limits.running + self.limits.waiting:
            raise busy(self.active)
        if not self.engine.alive:
            raise ApiError("the engine has ended", 503, code="server_error", kind="server_error")
        with contextlib.ExitStack() as stack:
            self.active += 1
            stack.callback(self._leave)
            yield stack

    def _leave(self) -> None:
        self.active -= 1

    def check(self, request: Request) -> None:
        """Raise ApiError for a request of somebody who may not ask."""
        self.check_host(request)
        if self.key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Both as bytes, in a time that says nothing of where they differ.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.key.encode()):
            raise ApiError(
                "the API key is missing or wrong: send `Authorization: Bearer KEY`",
                401,
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def check_host(self, request: Request) -> None:
        """Raise ApiError for a request under a name that is not allowed: that of a web page, by DNS rebinding."""
        name = plain_host(request.headers.get("host", ""))
        if self.hosts is not None and name not in self.hosts:
            raise ApiError(
                f"this server does not answer to the name {name[:100]!r}; start it with --allow-host {name[:100]}, if "
                "that is its name",
                403,
                code="invalid_host",
            )

    def check_name(self, name: str) -> None:
        """Raise ApiError for a model that is not the served one."""
        if name != self.model.name:
            raise ApiError(
                f"the model {name[:100]!r} does not exist here; this server has {self.model.name!r}",
                404,
                param="model",
                code="model_not_found",
            )

    def about_model(self) -> dict[str, Any]:
        """The model as OpenAI's list has it."""
        return {"id": self.model.name, "object": "model", "created": self.created, "owned_by": "callwright"}


def plain_host(host: str) -> str:
    """A host's name without port and brackets, in lower case."""
    host = host.strip().rstrip(".")
    name = host if host.endswith("]") or host.count(":") > 1 and "]" not in host else host.rpartition(":")[0] or host
    return name.strip("[]").rstrip(".").casefold()


class EventStream(Response):
    """The chunks of an answer as server-sent events; `held` is let go at the end, whatever happens."""

    media_type = "text/event-stream"

    def __init__(
        self, held: contextlib.ExitStack, header: wire.Header, running: Running, include_usage: bool, start: float
    ):
        self.held, self.header, self.running = held, header, running
        self.include_usage, self.start = include_usage, start
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-request-id": header.id})

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Send the stream; a client that hangs up ends it."""

        async def write(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        running, answer = self.running, self.running.answer
        with self.held:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await write(wire.first_chunk(self.header))
            try:
                async with contextlib.aclosing(running.deltas()) as deltas:
                    async for found in deltas:
                        if found:
                            await write(wire.chunks(self.header, found))
                counts = wire.usage(len(running.prepared.prompt), running.output_tokens)
                await write(wire.last_chunks(self.header, answer, counts if self.include_usage else None), more=False)
            except ApiError as error:  # the status is sent already: clients read the error from the stream
                await write(wire.event(error.body), more=False)
            except (ClientGone, OSError):
                log.info("chat: the client is gone after %d tokens", running.output_tokens)
                return
            note(running, self.start)


def note(running: Running, start: float) -> None:
    """A line in the log for an answer: sizes and times, never its text."""
    answer = running.answer
    log.info(
        "chat: %d + %d tokens in %.2f s, %d calls, %s%s",
        len(running.prepared.prompt), running.output_tokens, time.monotonic() - start, len(answer.calls),
        answer.finish_reason, "".join(f", {problem.code}" for problem in answer.problems),
    )  # fmt: skip


async def on_api_error(_: Request, error: Exception) -> Response:
    """An error that the client is told in full."""
    assert isinstance(error, ApiError)
    log.info("refused with %d: %s", error.status, error.message)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    instead = INSTEAD.get(path.rstrip("/") or "/") if error.status_code == 404 else None
    said = f"{error.detail}: {request.method} {path[:100]}" + (f"; {instead}" if instead else "")
    told = ApiError(said, error.status_code, code="unknown_url")
    return JSONResponse(told.body, status_code=told.status, headers=error.headers)
