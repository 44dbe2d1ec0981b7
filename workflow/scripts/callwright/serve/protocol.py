"""A request for a chat completion: read, checked in full, and refused with the parameter that is at fault.

A parameter that this server does not know, or that asks for something it cannot do, is an error: none is
silently ignored but those that ask for nothing (`IGNORED`). null stands for a parameter that is not given.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from callwright.chat.strict_json import check_depth
from callwright.data import schema
from callwright.data.formats.xlam import tool_definition
from callwright.data.normal_schema import SchemaError, normal_schema
from callwright.data.records import TOOL_NAME, RecordError, check_tools, kind, short
from callwright.serve.errors import ApiError
from callwright.serve.limits import Limits
from callwright.serve.messages import read_messages

IGNORED = {
    "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user",
}  # fmt: skip
# Parameters that are taken with these values alone, which ask for what happens anyway.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "top_logprobs": (0,),
}
KNOWN = {
    "max_completion_tokens", "max_tokens", "messages", "min_p", "model", "parallel_tool_calls", "response_format",
    "seed", "stop", "stream", "stream_options", "temperature", "tool_choice", "tools", "top_k", "top_p",
}  # fmt: skip
MAX_STOPS = 4


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request.

    messages  OpenAI messages; results of tools in the order of their calls
    tools     OpenAI tool objects, as the prompt shows them
    choice    "none", "auto" or "required"
    callable  the tools of those that may be called
    parallel  whether an answer may hold more than one call
    json_schema  of the answer, `{}` for any object; None: the answer is no JSON
    max_tokens, temperature, seed: None where the request leaves them to the server
    """

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    choice: str
    callable: list[dict[str, Any]]
    parallel: bool
    stream: bool
    include_usage: bool
    max_tokens: int | None
    temperature: float | None
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: tuple[str, ...]
    json_schema: dict[str, Any] | None


def read_request(raw: bytes, limits: Limits) -> ChatRequest:
    """The request in the body `raw`; raises ApiError that names the parameter, what was found and what was expected."""
    body = read_body(raw)
    refuse_unknown(body)
    tools = read_tools(body.get("tools"), limits.tools)
    choice, callable_tools, named = read_choice(body.get("tool_choice"), tools)
    json_schema = read_format(body.get("response_format"))
    if json_schema is not None and choice != "none":
        raise ApiError(
            "response_format asks for JSON and tools may be called: this server does one of the two in an answer; "
            'give `tool_choice` as "none", or leave `response_format` out',
            param="response_format",
            code="unsupported_value",
        )
    options = {} if body.get("stream_options") is None else body["stream_options"]
    if not isinstance(options, dict):
        raise wrong("stream_options", options, "an object")
    limit = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    return ChatRequest(
        model=text(body, "model"),
        messages=read_messages(body.get("messages")),
        tools=tools,
        choice=choice,
        callable=callable_tools,
        parallel=flag(body, "parallel_tool_calls", True) and not named,
        stream=flag(body, "stream", False),
        include_usage=flag(options, "include_usage", False, "stream_options.include_usage"),
        max_tokens=whole(body, limit, 1, 2**31 - 1),
        temperature=number(body, "temperature", 0, 2),
        top_p=given(number(body, "top_p", 0, 1), 1.0),
        top_k=given(whole(body, "top_k", 0, 2**31 - 1), 0),
        min_p=given(number(body, "min_p", 0, 1), 0.0),
        seed=whole(body, "seed", -(2**63), 2**63 - 1),
        stop=read_stop(body.get("stop")),
        json_schema=json_schema,
    )


def given(value: Any, default: Any) -> Any:
    """A parameter's value, also where that is 0; the default where the request leaves it out."""
    return default if value is None else value


def read_body(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body; raises ApiError for anything else."""
    try:
        body = orjson.loads(raw)
        check_depth(body)
    except ValueError as error:
        raise ApiError(f"the body is not usable JSON: {str(error)[:200]}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise ApiError(f"the body is {kind(body)}, expected an object", code="invalid_type")
    return body


def refuse_unknown(body: dict[str, Any]) -> None:
    """Raise ApiError for a parameter that is unknown, or asks for what is not there."""
    for name, value in body.items():
        if name in KNOWN or name in IGNORED or value is None or value in NEUTRAL.get(name, ()):
            continue
        if name in NEUTRAL:
            hint = "; use `tools`" if name in ("functions", "function_call") else ""
            raise ApiError(
                f"{name}: {short(value)} is not supported by this server, which takes only "
                f"{' or '.join(map(json.dumps, NEUTRAL[name]))}{hint}",
                param=name,
                code="unsupported_value",
            )
        raise ApiError(f"unknown parameter: {short(name)}", param=name[:100], code="unknown_parameter")


def read_tools(tools: Any, most: int) -> list[dict[str, Any]]:
    """The tools as the prompt shows them, and as those of training: schemas in the normal form, nothing else beside."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise wrong("tools", tools, "a list")
    if len(tools) > most:
        raise ApiError(
            f"tools: {len(tools)} tools, at most {most} are taken", param="tools", code="array_above_max_length"
        )
    read, seen = [], set()
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise wrong(place, tool, 'an object with the type "function" and a `function`')
        function = tool["function"]
        name = function.get("name")
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise wrong(f"{place}.function.name", name, "up to 128 letters, digits and `_.:/-`")
        if name in seen:
            raise ApiError(f"tools: the name {short(name)} stands there twice", param=f"{place}.function.name")
        if not isinstance(function.get("description"), str | None):
            raise wrong(f"{place}.function.description", function["description"], "text")
        try:
            read.append(tool_definition(tool))
            check_tools(read[-1:])
        except RecordError as error:
            raise ApiError(
                f"{place}.function.parameters: {error.reason}"[:500],
                param=f"{place}.function.parameters",
                code="invalid_function_parameters",
            ) from error
        seen.add(name)
    return read


def read_choice(choice: Any, tools: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]], bool]:
    """What `tool_choice` asks for: "none", "auto" or "required"; the tools that may be called; is it one by name?"""
    if choice is None:
        choice = "auto" if tools else "none"
    names: Sequence[Any] | None = None
    named = False
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("function"), dict):
        names, choice, named = [choice["function"].get("name")], "required", True
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools")
        allowed = allowed if isinstance(allowed, dict) else {}
        listed = allowed.get("tools")
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise wrong("tool_choice.allowed_tools.tools", listed, "a list of objects")
        names = [entry["function"].get("name") if isinstance(entry.get("function"), dict) else None for entry in listed]
        choice = allowed.get("mode")
    if choice not in ("none", "auto", "required"):
        raise wrong("tool_choice", choice, '"none", "auto", "required" or a function by its name')
    if choice == "required" and not tools:
        raise ApiError("tool_choice asks for a call, but there are no `tools`", param="tool_choice")
    if not tools or choice == "none":
        return "none", [], False
    if names is None:
        return choice, tools, False
    there = {tool["function"]["name"]: tool for tool in tools}
    for name in names:
        if not isinstance(name, str) or name not in there:
            raise ApiError(f"tool_choice names {short(name)}, which is not among `tools`", param="tool_choice")
    if not names:
        raise wrong("tool_choice.allowed_tools.tools", names, "at least one tool")
    return choice, [tool for name, tool in there.items() if name in names], named


def read_format(wanted: Any) -> dict[str, Any] | None:
    """The JSON Schema that `response_format` asks for, `{}` for any object, None for text."""
    if wanted is None or wanted == {"type": "text"}:
        return None
    sort = wanted.get("type") if isinstance(wanted, dict) else None
    if sort == "json_object":
        return {}
    described = wanted.get("json_schema") if sort == "json_schema" else None
    found = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(found, dict):
        raise wrong("response_format", wanted, 'an object with the type "text", "json_object" or "json_schema"')
    place = "response_format.json_schema.schema"
    try:
        found = normal_schema(found)
        problem = schema.problem(found) if isinstance(found, dict) else "it is true or false, which says nothing"
    except SchemaError as error:
        problem = str(error)
    if problem:
        raise ApiError(f"{place} is no JSON Schema: {problem}", param=place, code="invalid_value")
    return found


def read_stop(stop: Any) -> tuple[str, ...]:
    """The texts before which an answer ends."""
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(item, str) and item for item in stops)
    ):
        raise wrong("stop", stop, f"a text, or a list of up to {MAX_STOPS} texts")
    return tuple(stops)


def text(body: dict[str, Any], name: str) -> str:
    """A parameter that must be there and be text."""
    value = body.get(name)
    if value is None:
        raise ApiError(f"you must give the parameter {name!r}", param=name, code="missing_required_parameter")
    if not isinstance(value, str):
        raise wrong(name, value, "text")
    return value


def flag(body: dict[str, Any], name: str, default: bool, place: str | None = None) -> bool:
    """A truth value."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(place or name, value, "true or false")
    return value


def number(body: dict[str, Any], name: str, low: float, high: float) -> float | None:
    """A number from `low` to `high`, or None."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(name, value, f"a number from {low} to {high}")
    if not low <= value <= high:
        raise wrong(name, value, f"a number from {low} to {high}", "value_out_of_range")
    return float(value)


def whole(body: dict[str, Any], name: str, low: int, high: int) -> int | None:
    """A whole number from `low` to `high`, or None."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(name, value, "a whole number")
    if not low <= value <= high:
        raise wrong(name, value, f"a whole number from {low} to {high}", "value_out_of_range")
    return value


def wrong(param: str, found: Any, expected: str, code: str = "invalid_type") -> ApiError:
    """The error of a parameter with a value that is not one of those expected."""
    return ApiError(f"{param} is {short(found)}, expected {expected}", param=param, code=code)
