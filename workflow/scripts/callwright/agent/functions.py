"""A user's Python functions as tools, run in a process of their own that is ended when a call takes too long."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from callwright.agent.toolbox import AgentTool, CallFailed
from callwright.runtime.errors import CallwrightError

LOADING = 60.0  # seconds in which the file of functions must be imported
PACKAGE = Path(__file__).resolve().parents[2]


class Functions:
    """The functions of a Python file (`data.python_tools`), in a child process; a context manager.

    The process lives as long as no call hangs or ends it: what functions remember stays from call to call. After a
    call that took longer than `timeout` seconds it is killed with its own children, and the next call starts a new one.
    Its stdin is a pipe to this process, with which it ends, however this process ends.
    """

    def __init__(self, path: str | Path, timeout: float):
        self.path, self.timeout = Path(path), timeout
        self.process: subprocess.Popen[bytes] | None = None
        self.definitions: list[dict[str, Any]] = []
        self.problems: list[str] = []  # a line for each function that is left out
        self._calls, self._unread = 0, b""

    def __enter__(self) -> "Functions":
        if not self.path.is_file():
            raise CallwrightError(f"the file of tools {self.path} does not exist")
        try:
            self.definitions = self._start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def tools(self) -> list[AgentTool]:
        """The functions as tools."""
        return [
            AgentTool(definition, lambda arguments, name=definition["function"]["name"]: self.call(name, arguments),
                 self.path.stem)
            for definition in self.definitions
        ]  # fmt: skip

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a function; raises CallFailed for its exception, for one that hangs, or one that ends its process."""
        if self.process is None:
            try:
                self._start()
            except CallwrightError as error:
                raise CallFailed(str(error)) from error
        self._calls += 1
        try:
            answer = self._ask({"id": self._calls, "name": name, "arguments": arguments}, self.timeout)
        except BaseException:  # a time limit, or Ctrl-C
            self.end()
            raise
        if "error" in answer:
            raise CallFailed(answer["error"])
        return answer["result"]

    def _start(self) -> list[dict[str, Any]]:
        """Start the process; returns its tools."""
        self._unread = b""
        paths = [str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "callwright.agent.function_worker", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # a group of its own: it can be killed with what it has started
        )
        try:
            first = self._receive(LOADING)
        except CallFailed as error:
            self.end()
            raise CallwrightError(f"{self.path}: the file cannot be imported: {error}") from error
        if "error" in first:
            self.end()
            raise CallwrightError(first["error"])
        self.problems = first["problems"]
        return first["tools"]

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # it has ended: what it left is read below
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        return self._receive(seconds)

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next message; raises CallFailed when it does not come in time, or the process ends."""
        until = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise CallFailed(f"no result after {seconds:g} seconds: the function was ended")
            found = os.read(self.process.stdout.fileno(), 65536)
            if not found:
                status = self.process.wait()
                raise CallFailed(f"the process of the functions ended (status {status}) before there was a result")
            self._unread += found
        line, self._unread = self._unread.split(b"\n", 1)
        return json.loads(line)

    def end(self) -> None:
        """Kill the process and what it has started."""
        if self.process is None:
            return
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
