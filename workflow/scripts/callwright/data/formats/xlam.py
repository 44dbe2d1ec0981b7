"""Records of Salesforce/xlam-function-calling-60k, and others written like them.

A row has `query`, `tools` and `answers`; the last two are lists, or the JSON text of lists:
    tools    {"name", "description", "parameters": {name: {"type", "description", "default"}}}
    answers  {"name", "arguments": {...}}
The types are Python-like (`callwright.data.schema`); parameters that are a JSON Schema already stay one.
"""

import logging
import os
from collections.abc import Iterator
from typing import Any

from callwright.data import schema
from callwright.data.formats.turns import call_of, value_of
from callwright.data.normal_schema import SchemaError, is_schema, normal_parameters, normal_schema
from callwright.data.records import Example, RecordError, check_json, kind, short
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

REPOSITORY = "Salesforce/xlam-function-calling-60k"
LICENSE = "CC BY 4.0"
# Where a tool's parameters stand.
PARAMETERS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema")
# What a parameter of xLAM's has when it is described by a JSON Schema, and not by the name of a type alone.
NESTED = {"items", "properties", "anyOf", "oneOf", "allOf", "$ref", "additionalProperties", "nullable"}


def to_example(record_id: str, row: Any) -> Example:
    """One row as an example with the id `record_id`, checked in full; raises RecordError with rule and reason."""
    check_json(row)
    if not isinstance(row, dict):
        raise RecordError("wrong_type", f"the record is {kind(row)}, expected an object")
    query = row.get("query")
    if query is None:
        raise RecordError("missing_field", "the field 'query' is missing")
    if not isinstance(query, str):
        raise RecordError("wrong_type", f"the field 'query' is {kind(query)}, expected text")
    calls = [_call(answer) for answer in _list(row, "answers")]
    count = "calls:2+" if len(calls) > 1 else f"calls:{len(calls)}"
    flags: set[str] = set()
    tools = [tool_definition(tool, flags) for tool in _list(row, "tools")]
    tags = [count] if calls else [count, "abstain:no_tool"]
    return Example.from_row(
        {
            "id": record_id,
            "messages": [{"role": "user", "content": query}],
            "tools": tools,
            "calls": calls,
            "source": "xlam",
            "tags": tags + [f"flag:{flag}" for flag in sorted(flags)],
        }
    )


def tool_definition(tool: Any, flags: set[str] | None = None, annotations: bool = True) -> dict[str, Any]:
    """A tool in anybody's form as an OpenAI tool object; raises RecordError (bad_tool, unknown_type).

    The forms: OpenAI's, Anthropic's and MCP's (`input_schema`, `inputSchema`), Bedrock's (`toolSpec`), or xLAM's, whose
    parameters stand by their names. `flags` collects `default_coerced` and `default_dropped`, where a default was not
    of its parameter's type. `annotations` False leaves titles, examples and the like out of JSON Schemas.
    """
    tool = value_of(tool)
    if not isinstance(tool, dict):
        raise RecordError("bad_tool", f"a tool is {kind(tool)}, expected an object")
    for wrapper in ("function", "toolSpec", "tool_spec"):
        inner = value_of(tool.get(wrapper), loose=False)
        if isinstance(inner, dict):
            tool = inner
    name = tool.get("name")
    parameters = next((tool[key] for key in PARAMETERS if tool.get(key) is not None), None)
    parameters = value_of(parameters, loose=False)
    if isinstance(parameters, dict) and parameters.keys() == {"json"}:  # Bedrock's
        parameters = value_of(parameters["json"])
    if parameters is None or parameters in ([], ""):
        parameters = {}
    if not isinstance(parameters, dict):
        raise RecordError("bad_tool", f"the parameters of {short(name)} are {kind(parameters)}, expected an object")
    if parameters and is_schema(parameters):
        try:
            converted = normal_parameters(parameters, annotations)
        except SchemaError as error:
            raise RecordError("bad_tool", f"the parameters of {short(name)}: {error}") from error
    else:
        converted = _parameters(name, parameters, set() if flags is None else flags)
    description = tool.get("description")
    function = {"name": name, "description": "" if description is None else description, "parameters": converted}
    return {"type": "function", "function": function}


def _parameters(tool: Any, parameters: dict[str, Any], flags: set[str]) -> dict[str, Any]:
    properties, required = {}, []
    for name, spec in parameters.items():
        if isinstance(spec, str):
            spec = {"type": spec}
        if not isinstance(spec, dict):
            raise RecordError("bad_tool", f"the parameter {short(name)} of {short(tool)} is {kind(spec)}")
        part, optional, default = _part(tool, name, spec)
        if "default" in spec:
            default = {"default": spec["default"]}
        needed = spec.get("required")
        if needed is True or (needed is not False and not optional and not default):
            required.append(name)
        if isinstance(spec.get("enum"), list) and spec["enum"]:
            part = {**part, "enum": spec["enum"]}
        if default:
            default = _fitting(default["default"], part, flags)
        description = spec.get("description")
        described = {"description": description} if isinstance(description, str) and description else {}
        properties[name] = {**part, **described, **default}
    return {"type": "object", "properties": properties, "required": required}


def _part(tool: Any, name: str, spec: dict[str, Any]) -> tuple[dict[str, Any], bool, dict[str, Any]]:
    """What a parameter's values are: its schema, whether it is optional, and its default in the type's text."""
    type_text = spec.get("type", "Any")
    if isinstance(type_text, str) and not set(spec) & NESTED:
        try:
            return schema.json_schema(type_text)
        except schema.TypeSyntaxError as error:
            raise RecordError("unknown_type", f"the parameter {short(name)} of {short(tool)}: {error}") from error
    own = {"default", "description", "enum", "required", "optional"}
    try:
        found = normal_schema({key: part for key, part in spec.items() if key not in own or
                               (key == "required" and isinstance(part, list))})  # fmt: skip
    except SchemaError as error:
        rule = "unknown_type" if error.place[:1] == ("type",) else "bad_tool"
        raise RecordError(rule, f"the parameter {short(name)} of {short(tool)}: {error}") from error
    return (found if isinstance(found, dict) else {}), spec.get("optional") is True, {}


def _fitting(value: Any, part: dict[str, Any], flags: set[str]) -> dict[str, Any]:
    """`{"default": value}` in the parameter's type; nothing where it has none there, since it would mislead."""
    fits, coerced = schema.coerce(value, part)
    if not fits:
        if value not in (None, ""):  # in xLAM these two stand for no default, whatever the type
            flags.add("default_dropped")
        return {}
    if coerced != value or type(coerced) is not type(value):
        flags.add("default_coerced")
    return {"default": coerced}


def _call(answer: Any) -> dict[str, Any]:
    call = call_of(answer)
    return {"name": call["name"], "arguments": call["arguments"]}


def _list(row: dict[str, Any], name: str) -> list[Any]:
    """A field that is a list or the JSON text of one."""
    value = row.get(name)
    if value is None:
        raise RecordError("missing_field", f"the field {name!r} is missing")
    try:
        value = value_of(value)
    except RecordError as error:
        raise RecordError(error.rule, f"the field {name!r}: {error.reason}") from error
    if not isinstance(value, list):
        raise RecordError("wrong_type", f"the field {name!r} is {kind(value)}, expected a list")
    return value


def read_hub(repository: str = REPOSITORY) -> Iterator[tuple[str, Any]]:
    """The rows of a data set on Hugging Face, streamed: `(record id, Example or RecordError)`.

    Raises CallwrightError, before the first record, when there is no access, no network or no such data set.
    A token is taken from HF_TOKEN or from `hf auth login`, by the `datasets` library, and never shown.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise CallwrightError(
            "loading from Hugging Face needs the package `datasets`: run `make run`, or pip install datasets, "
            "or name a local file by data.path"
        ) from error
    name = repository.rsplit("/", 1)[-1]
    try:
        rows = iter(load_dataset(repository, split="train", streaming=True))
        first = next(rows, None)
    except Exception as error:  # noqa: BLE001 (the library raises what its many parts raise)
        raise _hub_error(repository, error) from None  # a chained message could hold request headers

    def records() -> Iterator[tuple[str, Any]]:
        number, row = 0, first
        while row is not None:
            number += 1
            record_id = f"{name}:{number}"
            try:
                yield record_id, to_example(record_id, row)
            except RecordError as error:
                yield record_id, error
            try:
                row = next(rows, None)
            except Exception as error:  # noqa: BLE001
                raise _hub_error(repository, error, after=number) from None

    return records()


def _hub_error(repository: str, error: Exception, after: int = 0) -> CallwrightError:
    chain, link = [], error
    while link is not None and len(chain) < 10:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {type(item).__name__ for item in chain}
    text = " ".join(str(item) for item in chain).casefold()
    instead = "or name a local file of the same records by data.path"
    where = f"the data set {repository}" + (f", after {after} records," if after else "")
    if "GatedRepoError" in names or "gated" in text or "401" in text or "403" in text:
        token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
        return CallwrightError(
            f"{where} is gated and access was denied ({token}). Two steps: 1. sign in and accept its terms on "
            f"https://huggingface.co/datasets/{repository}; 2. set HF_TOKEN to a token of that account "
            f"(https://huggingface.co/settings/tokens); {instead}"
        )
    offline = ("offline", "connection", "connect", "resolve", "timed out", "timeout", "proxy", "network", "unreachable")
    if any(word in text for word in offline) or names & {"ConnectionError", "OfflineModeIsEnabled", "ConnectError"}:
        return CallwrightError(f"{where} cannot be reached: check the network (and HF_HUB_OFFLINE), {instead}")
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return CallwrightError(f"{where} does not exist on Hugging Face, or is hidden from this account; {instead}")
    return CallwrightError(f"{where} cannot be loaded ({type(error).__name__}); {instead}")
