"""The playground's routes: a page at `/` to try a model, side by side with its base, and to say what was wrong.

The page is a few static files and speaks to `/playground/…` of its own server alone. Whoever may not use the API may
not use these routes: key, host, size, time and number of requests are held to the server's own rules, and a request of
another page's is refused by its `Origin`. A call is made only when a request says that a person confirmed it.
"""

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from callwright.data import schema
from callwright.data.corrections import CorrectionStore, read
from callwright.data.records import RecordError, check_json, kind
from callwright.data.toolset.lint import lint
from callwright.serve import wire
from callwright.serve.engine import ServingEngine
from callwright.serve.errors import ApiError
from callwright.serve.lanes import Lane, Thought, lanes, prepare
from callwright.serve.model import Prepared, ServedModel
from callwright.serve.pasted import PasteError, read_tools
from callwright.serve.protocol import read_body, read_request
from callwright.serve.running import ClientGone, Running

log = logging.getLogger(__name__)
FILES = Path(__file__).parent / "templates"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The report is a page of its own, with an inline script: it gets no access to this server.
REPORT_CSP = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"
)
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
STATIC = {
    "playground.css": "text/css",
    "playground.js": "text/javascript",
    "cards.js": "text/javascript",
    "correct.js": "text/javascript",
}
TICKET_SECONDS = 60.0  # in which the report can be opened
TICKETS = 32

RunCall = Callable[[dict[str, Any]], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the playground was started with.

    tools        the model's own tools, as OpenAI tool objects
    corrections  the file that corrections are appended to
    run_folder   results/<run> of the served model, if known
    run_call     makes a call that was confirmed; returns its result's text and whether it failed
    world        what `run_call` calls: "your functions" or "a built-in world"; None: nothing can be called
    watch        the run as `callwright watch` shows it, as text, and whether it is under way
    """

    tools: list[dict[str, Any]] = field(default_factory=list)
    corrections: Path = Path("corrections.jsonl")
    run_folder: Path | None = None
    run_call: RunCall | None = None
    world: str | None = None
    watch: Callable[[], tuple[str, bool]] | None = None


class Playground:
    """The routes; `service` is the server's (`serve.app.Service`), whose rules hold here too."""

    def __init__(self, service: Any, options: Options, base: ServedModel | None = None):
        self.service, self.options = service, options
        self.base = base
        self.base_engine = (
            ServingEngine(base.model, base.stop_ids, service.limits.running) if base is not None else None
        )
        self.lanes = lanes((service.model, service.engine), base and (base, self.base_engine))
        self.store = CorrectionStore(options.corrections)
        self.calling = asyncio.Lock()
        self.tickets: dict[str, float] = {}

    def close(self) -> None:
        """End the base model's engine."""
        if self.base_engine is not None:
            self.base_engine.close()

    def routes(self) -> list[Route]:
        """The page, its files, and what it asks."""
        return [
            Route("/", self.page),
            *(Route(f"/{name}", self.static) for name in STATIC),
            Route("/favicon.ico", self.no_icon),
            Route("/playground/state", self.state),
            Route("/playground/watch", self.watch),
            Route("/playground/report", self.report),
            Route("/playground/ticket", self.ticket, methods=["POST"]),
            Route("/playground/tools", self.read_tools, methods=["POST"]),
            Route("/playground/ask", self.ask, methods=["POST"]),
            Route("/playground/check", self.check, methods=["POST"]),
            Route("/playground/correct", self.correct, methods=["POST"]),
            Route("/playground/undo", self.undo, methods=["POST"]),
            Route("/playground/run", self.run, methods=["POST"]),
        ]

    # --- the page

    async def page(self, request: Request) -> Response:
        """The page: the same for everybody, without a secret; what it asks for needs the key."""
        self.service.check_host(request)
        headers = {**HEADERS, "content-security-policy": CSP}
        return FileResponse(FILES / "playground.html", media_type="text/html", headers=headers)

    async def static(self, request: Request) -> Response:
        """A file of the page."""
        self.service.check_host(request)
        name = request.url.path.removeprefix("/")
        return FileResponse(FILES / name, media_type=STATIC[name], headers=HEADERS)

    async def no_icon(self, request: Request) -> Response:
        """Browsers ask for one."""
        self.service.check_host(request)
        return Response(status_code=204, headers=HEADERS)

    async def report(self, request: Request) -> Response:
        """The last training's report, for a ticket of `ticket`: a link in a browser cannot send the key."""
        self.service.check_host(request)
        until = self.tickets.pop(request.query_params.get("ticket", ""), 0.0)
        path = self.report_path()
        if time.monotonic() > until:
            raise ApiError(
                "this link has been used or is too old: open the report from the page", 403, code="bad_ticket"
            )
        if path is None:
            raise ApiError("there is no report of a training", 404, code="no_report")
        return FileResponse(path, media_type="text/html", headers={**HEADERS, "content-security-policy": REPORT_CSP})

    async def ticket(self, request: Request) -> Response:
        """The address of the report, good once and for a minute."""
        await self.body(request)
        if self.report_path() is None:
            raise ApiError("there is no report of a training", 404, code="no_report")
        now = time.monotonic()
        self.tickets = dict(list({k: t for k, t in self.tickets.items() if t > now}.items())[-TICKETS:])
        made = secrets.token_urlsafe(24)
        self.tickets[made] = now + TICKET_SECONDS
        return answer({"url": f"/playground/report?ticket={made}"})

    # --- what the page asks

    async def state(self, request: Request) -> Response:
        """The model, the lanes, its own tools with hints, and what was taught."""
        self.check_origin(request)
        self.service.check(request)
        return answer(
            {
                "model": self.service.model.name,
                "lanes": [lane.to_row() for lane in self.lanes.values()],
                "tools": self.options.tools,
                "hints": hints(self.options.tools),
                "run": self.options.world,
                "report": self.report_path() is not None,
                "watch": self.options.watch is not None,
                "limits": {"body": self.service.limits.body_bytes, "tools": self.service.limits.tools},
                **await asyncio.to_thread(self.taught),
            }
        )

    async def watch(self, request: Request) -> Response:
        """The run as it goes."""
        self.check_origin(request)
        self.service.check(request)
        if self.options.watch is None:
            raise ApiError("this server does not know of a run", 404, code="no_run")
        text, active = await asyncio.to_thread(self.options.watch)
        return answer({"text": text, "active": active})

    async def read_tools(self, request: Request) -> Response:
        """Pasted text as tools, with hints, or its error and line."""
        body = await self.body(request)
        text = body.get("text")
        if not isinstance(text, str):
            raise ApiError(f"text is {kind(text)}, expected text", param="text", code="invalid_type")
        try:
            tools = await asyncio.to_thread(pasted, text)
        except PasteError as error:
            return answer({"error": error.message, "line": error.line})
        return answer({"tools": tools, "hints": hints(tools)})

    async def check(self, request: Request) -> Response:
        """What is wrong with the calls of an answer, each by its tool's schema."""
        body = await self.body(request)
        tools, calls = objects(body, "tools"), objects(body, "calls")
        return answer({"problems": await asyncio.to_thread(problems, calls, tools)})

    async def correct(self, request: Request) -> Response:
        """Append a correction."""
        row = await self.body(request)
        known = ("messages", "tools", "calls", "answer", "kind", "answered")
        wanted = {key: row[key] for key in known if row.get(key) is not None}
        try:
            check_json(wanted)
            made = await asyncio.to_thread(
                self.store.add, {**wanted, "model": self.service.model.name, "via": "playground"}
            )
        except RecordError as error:
            raise ApiError(
                f"the correction cannot be used: {error.reason}", param=error.rule, code="invalid_correction"
            ) from error
        return answer({"id": made.id, "held_back": made.held_back, **await asyncio.to_thread(self.taught)})

    async def undo(self, request: Request) -> Response:
        """Take a correction back."""
        body = await self.body(request)
        try:
            await asyncio.to_thread(self.store.undo, str(body.get("id")))
        except RecordError as error:
            raise ApiError(error.reason, 404, code="no_correction") from error
        return answer(await asyncio.to_thread(self.taught))

    async def run(self, request: Request) -> Response:
        """Make a call that a person has confirmed."""
        body = await self.body(request)
        if self.options.run_call is None:
            raise ApiError(
                "this server was started without functions: give --tools FILE or --world", 404, code="no_tools"
            )
        if body.get("confirmed") is not True:
            raise ApiError("a call is made when it was confirmed: `confirmed` must be true", param="confirmed")
        (call,) = objects({"calls": [body.get("call")]}, "calls")
        async with self.calling:  # one after the other: functions of a user need not be made for more
            text, failed = await asyncio.to_thread(self.options.run_call, call)
        return answer({"text": text, "failed": failed})

    async def ask(self, request: Request) -> Response:
        """Answer a request in one lane, as server-sent events: what is new, and at the end what became of it."""
        start = time.monotonic()
        body = await self.body(request)
        name, threshold = body.pop("lane", None), body.pop("threshold", 0.5)
        lane = self.lanes.get(name) if isinstance(name, str) else None
        if lane is None:
            raise ApiError(f"there is no lane {name!r:.60}; there are {', '.join(self.lanes)}", param="lane")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise ApiError(f"threshold is {threshold!r:.60}, expected a number from 0 to 1", param="threshold")
        with self.service.slot() as slot:
            loop = asyncio.get_running_loop()
            prepared, thought = await loop.run_in_executor(
                self.service.preparing, self.prepare, body, lane, float(threshold)
            )
            running = Running(lane.engine, prepared, lane.served.tokenizer, request.receive)
            return Answering(slot.pop_all(), running, thought, lane, start)

    def prepare(self, body: dict[str, Any], lane: Lane, threshold: float) -> tuple[Prepared, Thought]:
        """The request for the lane's engine; raises ApiError."""
        asked = {"messages": body.get("messages"), "tools": body.get("tools") or None, "model": lane.served.name}
        chat = read_request(orjson.dumps(asked), self.service.limits)
        return prepare(lane, chat, self.service.limits, threshold)

    # --- shared

    async def body(self, request: Request) -> dict[str, Any]:
        """The JSON object of a request that may be made; raises ApiError."""
        self.check_origin(request)
        self.service.check(request)
        return read_body(await self.service.body(request))

    def check_origin(self, request: Request) -> None:
        """Raise ApiError for a request that a page of another origin makes."""
        origin = request.headers.get("origin")
        other = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
        if other or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise ApiError("this comes from another page than the playground's own", 403, code="invalid_origin")

    def report_path(self) -> Path | None:
        """The report of the served model's run, if it is there."""
        path = self.options.run_folder and self.options.run_folder / "report.html"
        return path if path and path.is_file() else None

    def trained_at(self) -> float:
        """When the served model was trained, in seconds since 1970; 0 where that is not known."""
        folder = self.options.run_folder
        path = folder / "training" / "training.json" if folder else None
        return path.stat().st_mtime if path and path.is_file() else 0.0

    def taught(self) -> dict[str, Any]:
        """The corrections, the newest first, and how many were made since the last training."""
        found = read(self.options.corrections)
        trained = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.trained_at()))
        return {
            "taught": {
                "file": self.options.corrections.name,
                "count": len(found.corrections),
                "since": sum(made.time[:19] > trained for made in found.corrections),
                "broken": sum(row["rule"] not in ("undone", "replaced") for row in found.rejected),
                "recent": [
                    {"id": made.id, "kind": made.kind, "time": made.time, "request": made.example.query[:200],
                     "calls": made.example.calls, "answer": made.example.answer, "held_back": made.held_back}
                    for made in reversed(found.corrections[-20:])
                ],
            }
        }  # fmt: skip


class Answering(Response):
    """An answer on its way to the page; a page that is left ends it, and the engine is free again."""

    def __init__(
        self,
        held: contextlib.ExitStack,
        running: Running,
        thought: Thought,
        lane: Lane,
        start: float,
    ):
        self.held, self.running, self.thought, self.lane = held, running, thought, lane
        self.start = start
        self.status_code, self.background, self.media_type = 200, None, "text/event-stream"
        self.init_headers(HEADERS)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Send the stream."""

        async def write(value: dict[str, Any], more: bool = True) -> None:
            await send({"type": "http.response.body", "body": wire.event(value), "more_body": more})

        with self.held:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await write({"type": "begun", "prompt_tokens": len(self.running.prepared.prompt)})
                async with contextlib.aclosing(self.running.deltas()) as deltas:
                    async for found in deltas:
                        for delta in found:
                            await write({"type": "text", "text": delta.content} if delta.call is None else
                                        {"type": "call", "call": delta.call["function"]})  # fmt: skip
                        if not found:
                            await write({"type": "tokens", "tokens": self.running.output_tokens})
                await write(self.summary(), more=False)
            except ApiError as error:
                await write({"type": "error", "message": error.message}, more=False)
            except (ClientGone, OSError):
                log.info("playground: the page is gone after %d tokens", self.running.output_tokens)

    def summary(self) -> dict[str, Any]:
        """What became of it: calls with what the schemas say, and what the model thought."""
        made, thought = self.running.answer, self.thought
        calls = [
            {"name": call["function"]["name"], "arguments": orjson.loads(call["function"]["arguments"])}
            for call in made.calls
        ]
        log.info(
            "playground: %s, %d + %d tokens in %.2f s, %d calls",
            self.lane.name, len(self.running.prepared.prompt), self.running.output_tokens,
            time.monotonic() - self.start, len(calls),
        )  # fmt: skip
        return {
            "type": "done",
            "content": made.content,
            "calls": calls,
            "problems": [dataclasses.asdict(problem) for problem in made.problems],
            "finish_reason": made.finish_reason,
            "confidence": thought.confidence,
            "call_probability": thought.call,
            "threshold": thought.threshold,
            "prompt_tokens": len(self.running.prepared.prompt),
            "output_tokens": self.running.output_tokens,
            "seconds": time.monotonic() - self.start,
        }


def answer(value: dict[str, Any]) -> Response:
    """JSON for the page."""
    return JSONResponse(value, headers=HEADERS)


def hints(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What makes the tools hard to call."""
    return [hint.to_row() for hint in lint(tools)] if tools else []


def pasted(text: str) -> list[dict[str, Any]]:
    """The tools of a pasted text."""
    with tempfile.TemporaryDirectory() as folder:
        return read_tools(text, Path(folder) / "pasted")


def problems(calls: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[str | None]:
    """What is wrong with each call, or None."""
    parameters = {}
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, dict) and isinstance(function.get("parameters"), dict):
            parameters[function.get("name")] = function["parameters"]
    found: list[str | None] = []
    for call in calls:
        name, arguments = call.get("name"), call.get("arguments")
        if name not in parameters:
            found.append(f"there is no tool {name!r:.60}")
        elif not isinstance(arguments, dict):
            found.append("the arguments are no object")
        elif schema.problem(parameters[name]):
            found.append(f"the parameters of {name} are no JSON Schema")
        else:
            found.append(schema.validate(arguments, parameters[name]))
    return found


def objects(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A parameter that must be a list of objects."""
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ApiError(f"{name} is {kind(value)}, expected a list of objects", param=name, code="invalid_type")
    return value
