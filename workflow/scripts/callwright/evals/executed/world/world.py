"""The world as a whole: its beginning, what a call does to it, and when two worlds are the same."""

import copy
import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from callwright.data import schema
from callwright.evals.executed.world import calendar, clock, files, messages, money, notes, shop, smart_home
from callwright.evals.executed.world.basics import Function, State, ToolError

MODULES = (calendar, clock, smart_home, messages, files, notes, money, shop)
FUNCTIONS: dict[str, Function] = {name: found for module in MODULES for name, found in module.FUNCTIONS.items()}

Call = dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """What calls led to.

    state    the world after them
    results  what each call that only reads returned
    log      for each call `{"name", "arguments"}` and its "result" or "error"
    """

    state: State
    results: list[Any] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """The errors of the calls that could not be done."""
        return [entry["error"] for entry in self.log if "error" in entry]


def start(calls: Iterable[Call] = ()) -> State:
    """A fresh world, arranged for a task whose right calls are `calls`: what these need is there."""
    state = copy.deepcopy({key: value for module in MODULES for key, value in module.START.items()})
    for call in calls:
        if arrange := FUNCTIONS[call["name"]].arrange:
            arrange(state, **copy.deepcopy(call["arguments"]))
    return state


def execute(state: State, calls: Sequence[Call], tools: Sequence[dict[str, Any]]) -> Outcome:
    """Make the calls one after the other, in a copy of `state`; tools: those on offer, as OpenAI tool objects.

    A call that cannot be done (a tool that is not on offer, arguments against its schema, a name that the world
    does not have) leaves the world as it is, and the calls after it are made all the same.
    """
    parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    outcome = Outcome(copy.deepcopy(state))
    for call in calls:
        entry = {"name": call["name"], "arguments": call["arguments"]}
        outcome.log.append(entry)
        attempt = copy.deepcopy(outcome.state)
        try:
            entry["result"] = run(attempt, call, parameters)
        except ToolError as error:
            entry["error"] = str(error)
            continue
        if FUNCTIONS[call["name"]].reads:
            outcome.results.append(entry["result"])
        else:
            outcome.state = attempt
    return outcome


def run(state: State, call: Call, parameters: dict[str, dict[str, Any]]) -> Any:
    """Make one call, which alters `state`; returns what the caller is told, as JSON. Raises ToolError."""
    name, arguments = call["name"], call["arguments"]
    if name not in parameters or name not in FUNCTIONS:
        raise ToolError(f"there is no tool {name!r}")
    if problem := schema.validate(arguments, parameters[name]):
        raise ToolError(problem)
    try:
        return copy.deepcopy(FUNCTIONS[name].run(state, **copy.deepcopy(arguments)))
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # a toolset of somebody's own: other types
        raise ToolError(f"the arguments do not fit: {error}") from error


def succeeded(began: State, wanted: Outcome, got: Outcome) -> bool:
    """Whether `got` is what a task wants: the same state, and each piece of information that was asked for.

    More information than asked for does no harm, but where nothing was to be done, not even that may be looked up:
    what was looked up then is made up.
    """
    if canonical(got.state) != canonical(wanted.state):
        return False
    if not wanted.log:
        return not got.results
    found = {canonical(result) for result in got.results}
    return all(canonical(result) in found for result in wanted.results)


def canonical(value: Any) -> str:
    """JSON in which equal worlds are equal texts: the order of lists and the case of letters do not count."""
    return json.dumps(_sorted(value), ensure_ascii=False, sort_keys=True)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.casefold(): _sorted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted(map(_sorted, value), key=lambda inner: json.dumps(inner, sort_keys=True))
    if isinstance(value, str):
        return value.casefold()
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def changes(before: State, after: State) -> dict[str, list[Any]]:
    """The parts of the world that differ: `{"part": [before, after]}`, entries that both have left out."""
    found = {}
    for part in before:
        old, new = before[part], after[part]
        if canonical(old) == canonical(new):
            continue
        if isinstance(old, list):
            found[part] = [[x for x in old if x not in new], [x for x in new if x not in old]]
        elif isinstance(old, dict):
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            found[part] = [{k: old[k] for k in keys if k in old}, {k: new[k] for k in keys if k in new}]
        else:
            found[part] = [old, new]
    return found


def knows(tool: dict[str, Any]) -> bool:
    """Whether the world has a function of this tool's name that takes its parameters, and needs no others."""
    function = tool["function"]
    if function["name"] not in FUNCTIONS:
        return False
    taken = list(inspect.signature(FUNCTIONS[function["name"]].run).parameters.values())[1:]
    parameters = function["parameters"]
    needed = {parameter.name for parameter in taken if parameter.default is parameter.empty}
    return needed <= set(parameters.get("required", [])) and set(parameters.get("properties", {})) <= {
        parameter.name for parameter in taken
    }
