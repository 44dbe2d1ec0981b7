"""The tools that an agent has, from whichever source: checked calls in, texts out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from callwright.data import schema
from callwright.data.records import RecordError, check_json, check_tools
from callwright.runtime.errors import CallwrightError

LONGEST = 4_000  # characters of a result that the model is shown; small models have small contexts

Call = dict[str, Any]


class CallFailed(Exception):
    """A call that brought no result; the text is what the model is told instead."""


@dataclass(frozen=True, slots=True)
class AgentTool:
    """`definition`: an OpenAI tool object. `run(arguments)` returns the result's text or raises CallFailed."""

    definition: dict[str, Any]
    run: Callable[[dict[str, Any]], str]
    source: str

    @property
    def name(self) -> str:
        """The name that the model calls it by."""
        return self.definition["function"]["name"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a call brought: its text, whether it failed, and how long it took."""

    text: str
    failed: bool = False
    seconds: float = 0.0


class Toolbox:
    """Tools by name. One whose name is taken is called `<source>_<name>`, and `notes` says so.

    left_out: what is said of tools that could not be read, for `notes`, too.
    """

    def __init__(self, tools: Sequence[AgentTool], left_out: Sequence[str] = ()):
        self.tools: dict[str, AgentTool] = {}
        self.notes = [f"left out: {text}" for text in left_out]
        for tool in tools:
            self._add(tool)
        if not self.tools:
            why = f" that can be used: {left_out[0]}" if left_out else ""
            raise CallwrightError(f"there is no tool: the sources that --tools and --mcp name have none{why}")
        try:
            check_tools(self.definitions)
        except RecordError as error:
            raise CallwrightError(f"a tool cannot be used: {error.reason}") from error

    def _add(self, tool: AgentTool) -> None:
        name = unused(tool.name, tool.source, self.tools)
        if name != tool.name:
            self.notes.append(f"{tool.source} has a tool {tool.name!r} like {self.tools[tool.name].source}: "
                              f"it is called {name!r} here")  # fmt: skip
            function = {**tool.definition["function"], "name": name}
            tool = AgentTool({**tool.definition, "function": function}, tool.run, tool.source)
        self.tools[name] = tool

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """All tools as the model is shown them."""
        return [tool.definition for tool in self.tools.values()]

    def problem(self, call: Call) -> str | None:
        """Why a call may not be made, as one sentence; None when it may."""
        name, arguments = call["name"], call["arguments"]
        if name not in self.tools:
            return f"there is no tool {name!r}; the tools are {', '.join(self.tools)}"
        if not isinstance(arguments, dict):
            return "the arguments are no object"
        try:
            check_json(arguments)
        except RecordError as error:
            return error.reason
        return schema.validate(arguments, self.tools[name].definition["function"]["parameters"])

    def run(self, call: Call) -> Result:
        """Make a call that has no `problem`; never raises for what the tool does."""
        begun = time.monotonic()
        try:
            text, failed = self.tools[call["name"]].run(call["arguments"]), False
        except CallFailed as error:
            text, failed = str(error), True
        return Result(cut(text), failed, time.monotonic() - begun)


def unused(name: str, source: str, taken: Any) -> str:
    """`name`, or one made from it and its source that is not among the taken ones."""
    found, number = name, 1
    while found in taken:
        found = f"{source}_{name}" if number == 1 else f"{source}{number}_{name}"
        number += 1
    return found


def cut(text: str, longest: int = LONGEST) -> str:
    """A text, cut to a length; what is missing is said."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} more characters)"
