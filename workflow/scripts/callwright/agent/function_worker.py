"""The process that runs a user's functions, started by `functions`: `python -m callwright.agent.function_worker FILE`.

Reads one JSON object a line: `{"id", "name", "arguments"}`, and answers `{"id", "result"}` or `{"id", "error"}`, each a
text; first `{"tools", "problems"}` or `{"error"}`. What the functions print goes to standard error. The process ends
with its input, whatever a function is doing then.
"""

import asyncio
import inspect
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from callwright.data.tool_sources.python import PythonTool

LONGEST = 100_000  # characters of a result that are handed on


def main(path: Path) -> None:
    """Serve the functions of a file until the input ends."""
    requests, answers = own_pipes()
    # Imports are below the redirection: what a module prints while it is imported is no answer.
    from callwright.data.tool_sources.python import python_tools
    from callwright.data.tool_sources.sources import usable
    from callwright.runtime.errors import CallwrightError

    sys.path.insert(0, str(path.resolve().parent))  # for what a function imports when it is called
    problems: list[str] = []
    try:
        found = python_tools(path, problems)
        tools = usable(path, [tool.definition for tool in found], problems)
        if problems and not tools:
            raise CallwrightError(problems[0])
    except CallwrightError as error:
        send(answers, {"error": str(error)})
        return
    by_name = {tool.name: tool for tool in reversed(found)}  # the first of a name
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=receive, args=(requests, waiting), daemon=True).start()
    send(answers, {"tools": tools, "problems": problems})
    while True:
        request = waiting.get()
        send(answers, {"id": request["id"], **outcome(by_name[request["name"]], request["arguments"])})


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for the protocol alone; the functions get an empty input, and print to stderr."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, answers


def receive(requests: BinaryIO, waiting: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Pass requests on; end the process when there are no more."""
    for line in requests:
        waiting.put(json.loads(line))
    os._exit(0)


def send(answers: BinaryIO, message: dict[str, Any]) -> None:
    """Write a message on one line."""
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def outcome(tool: "PythonTool", arguments: dict[str, Any]) -> dict[str, str]:
    """Call a function: its result as a text, or the exception that it raised."""
    try:
        value = tool.call(arguments)
        if inspect.isawaitable(value):
            value = asyncio.run(finish(value))
        return {"result": as_text(value)[:LONGEST]}
    except BaseException as error:  # SystemExit too: a function must not end the process of the others
        return {"error": f"{type(error).__name__}: {error}"[:LONGEST]}


async def finish(value: Any) -> Any:
    """Wait for an asynchronous function."""
    return await value


def as_text(value: Any) -> str:
    """A result as the model is told it: text as it is, all else as JSON."""
    import pydantic_core

    if isinstance(value, str):
        return value
    return pydantic_core.to_json(value, fallback=str, inf_nan_mode="strings").decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
