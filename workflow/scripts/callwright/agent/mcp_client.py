"""The tools of MCP servers that are started as a command and spoken to over their standard input and output.

Each server is held by a task of its own in a background event loop: the `mcp` library wants a connection to be closed
by the task that opened it. What a server writes to standard error goes to a file, whose last line messages quote.
"""

import contextlib
import itertools
import json
import logging
import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, MCPError, StdioServerParameters, stdio_client

from callwright.agent.toolbox import AgentTool, CallFailed
from callwright.data.tool_sources.sources import described
from callwright.runtime.errors import CallwrightError

STARTING = 60.0  # seconds in which a server must have started and listed its tools
PAGES = 100  # of a list of tools
SKIPPED = {"python", "python3", "uvx", "uv", "npx", "node", "env", "run", "sh", "bash"}


@dataclass(slots=True)
class McpServer:
    """A server: its command, a short name made from it, its standard error and, while it runs, its connection."""

    command: list[str]
    name: str
    errors: IO[bytes]
    client: Client | None = None
    stop: anyio.Event | None = None
    definitions: list[dict[str, Any]] | None = None
    problems: list[str] = field(default_factory=list)  # a line for each tool that is left out

    def last_words(self) -> str:
        """The last line of its standard error, in brackets; nothing when there is none."""
        self.errors.seek(max(self.errors.seek(0, 2) - 2000, 0))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f" (it wrote: {lines[-1].strip()[:300]})" if lines else ""


class McpServers:
    """Some servers and their tools; a context manager, whose end ends them all.

    A server whose input closes is to end; one that does not within two seconds is killed with its children, by the
    `mcp` library. Raises CallwrightError when a command cannot be started, speaks no MCP, or lists no tool in time.
    """

    def __init__(self, commands: Sequence[str], timeout: float, starting: float = STARTING):
        self.commands, self.timeout, self.starting = commands, timeout, starting
        self.servers: list[McpServer] = []
        self._portal: BlockingPortal | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "McpServers":
        # What the library logs of broken servers is said here in other words.
        for name in ("mcp", "client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with contextlib.ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.callback(self._stop)  # before the portal's end, which waits for the servers' tasks
            for command in self.commands:
                self.servers.append(self._start(command, stack))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def tools(self) -> list[AgentTool]:
        """The tools of all servers."""
        return [
            AgentTool(definition, lambda arguments, server=server, name=definition["function"]["name"]: self.call(
                server, name, arguments), server.name)
            for server in self.servers
            for definition in server.definitions
        ]  # fmt: skip

    @property
    def problems(self) -> list[str]:
        """A line for each tool of the servers that cannot be used."""
        return [problem for server in self.servers for problem in server.problems]

    def call(self, server: McpServer, name: str, arguments: dict[str, Any]) -> str:
        """Call a tool; raises CallFailed for the server's error, its end, or no answer in time."""
        future = self._portal.start_task_soon(self._call, server, name, arguments)
        try:
            return future.result()
        except TimeoutError as error:
            raise CallFailed(f"no result after {self.timeout:g} seconds: the call was given up") from error
        except BaseException:
            future.cancel()  # Ctrl-C
            raise

    async def _call(self, server: McpServer, name: str, arguments: dict[str, Any]) -> str:
        if server.client is None:
            raise CallFailed(f"the MCP server {server.name} has ended{server.last_words()}")
        try:
            with anyio.fail_after(self.timeout):
                result = await server.client.call_tool(name, arguments)
        except MCPError as error:
            raise CallFailed(f"{error}{server.last_words() if 'losed' in str(error) else ''}") from error
        except TimeoutError:
            raise
        except Exception as error:  # an answer that is no MCP, a stream that broke
            raise CallFailed(f"the MCP server {server.name}: {first_cause(error)}{server.last_words()}") from error
        text = text_of(result)
        if result.is_error:
            raise CallFailed(text)
        return text

    def _start(self, command: str, stack: contextlib.ExitStack) -> McpServer:
        """Start a server; it runs in a task until `_stop`."""
        try:
            parts = shlex.split(command)
        except ValueError as error:
            raise CallwrightError(f"--mcp {command!r} is no command: {error}") from error
        if not parts:
            raise CallwrightError("--mcp needs the command that starts a server")
        errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
        name, names = short_name(parts), {server.name for server in self.servers}
        name = next(
            each
            for each in itertools.chain([name], (f"{name}{number}" for number in itertools.count(2)))
            if each not in names
        )
        server = McpServer(parts, name, errors)
        try:
            _, server.definitions = self._portal.start_task(self._serve, server)
        except (Exception, CancelledError, BaseExceptionGroup) as error:
            reason = first_cause(error)
            if isinstance(reason, TimeoutError):
                reason = f"it did not list its tools within {self.starting:g} seconds"
            raise CallwrightError(
                f"the MCP server {command!r} cannot be used: {reason}{server.last_words()}"
            ) from error
        return server

    async def _serve(self, server: McpServer, *, task_status: TaskStatus[list[dict[str, Any]]]) -> None:
        """Hold the connection of a server until it is to stop; the task has started when the tools are known."""
        server.stop = anyio.Event()
        started = False
        try:
            with anyio.CancelScope() as scope:
                scope.deadline = anyio.current_time() + self.starting
                parameters = StdioServerParameters(command=server.command[0], args=server.command[1:])
                async with Client(stdio_client(parameters, errlog=server.errors)) as client:
                    definitions = await list_tools(client, server.name, server.problems)
                    scope.deadline = float("inf")
                    server.client, started = client, True
                    task_status.started(definitions)
                    await server.stop.wait()
            if scope.cancelled_caught and not started:
                raise TimeoutError
        except BaseException:
            if not started:
                raise
            logging.getLogger(__name__).debug("an MCP server ended badly", exc_info=True)
        finally:
            server.client = None

    def _stop(self) -> None:
        for server in self.servers:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._portal.call(server.stop.set)


async def list_tools(client: Client, name: str, problems: list[str]) -> list[dict[str, Any]]:
    """All usable tools of a server as OpenAI tool objects; `problems` gets a line for each of the others."""
    found, cursor = [], None
    for _ in range(PAGES):
        page = await client.list_tools(cursor=cursor)
        found += [{"name": tool.name, "description": tool.description or "", "inputSchema": tool.input_schema}
                  for tool in page.tools]  # fmt: skip
        cursor = page.next_cursor
        if not cursor:
            break
    return described(Path(name), found, problems)


def text_of(result: Any) -> str:
    """What a result says: its texts, or else its structured content; other parts by their type."""
    texts = [part.text if part.type == "text" else f"[{part.type}]" for part in result.content]
    if not texts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(texts)


def short_name(command: Sequence[str]) -> str:
    """A server's name after its command: `time` for `python -m mcp_server_time`."""
    words = [re.sub(r"\.(py|js|mjs|exe)$", "", part.rsplit("/", 1)[-1]) for part in command if part[:1] != "-"]
    word = next((w for w in words if re.sub(r"[\d.]+$", "", w) not in SKIPPED and "=" not in w), words[0])
    word = re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_")
    return re.sub(r"^mcp_server_|^server_|_mcp_server$|_server$", "", word) or "mcp"


def first_cause(error: BaseException) -> BaseException:
    """The first exception within groups of them."""
    return next(causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions within groups, in their order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from causes(inner)
    else:
        yield error
