"""Tools from what people already have: Python functions, an OpenAPI document, an MCP server's list, JSON Schema.

Which of them a file holds is told by its content (`tools_from`); all become OpenAI tool objects whose `parameters`
are a JSON Schema of type object without references.
"""

import logging
from pathlib import Path
from typing import Any

from callwright.data.formats.readers import parse
from callwright.data.formats.xlam import tool_definition
from callwright.data.normal_schema import is_schema
from callwright.data.records import NAMES, TOOL_NAME, RecordError, check_json, check_tools, kind, short
from callwright.data.tool_sources.openapi import openapi_tools
from callwright.data.tool_sources.python import python_tools
from callwright.data.toolset.yaml_lines import Document
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)
DECLARATIONS = ("functionDeclarations", "function_declarations")  # Gemini's lists of tools


def tools_from(path: str | Path, annotations: bool = False) -> list[dict[str, Any]]:
    """The tools that a file describes, in its order, as checked OpenAI tool objects.

    - Python (`.py`): its public functions, by type hints and docstrings; the file is imported, nothing else runs
    - OpenAPI 3 (JSON or YAML): its operations
    - MCP: the answer to `tools/list`, with or without the JSON-RPC around it
    - JSON or YAML: a list of OpenAI tools or functions, or of Anthropic's, Gemini's, xLAM's; one of them; JSON Schemas
      of type object with a `title`, which is the tool's name; or an object of such schemas by name

    A tool that cannot be used is left out with a warning that names it, and so is an OpenAPI parameter without a name;
    the others are taken. annotations: with titles, examples and the like in the schemas, which no model is shown.
    Raises CallwrightError that names the file and what is wrong when no tool is left.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder: name one file" if path.is_dir() else "does not exist"
        raise CallwrightError(f"the file of tools {path} {what}")
    problems: list[str] = []
    try:
        if path.suffix == ".py":
            found = [tool.definition for tool in python_tools(path, problems, annotations)]
        else:
            found = described(path, _document(path), problems, annotations)
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:  # a part is of another kind
        raise CallwrightError(f"{path} is not built as descriptions of tools are: {error}") from error
    if not found:
        raise CallwrightError(
            problems[0] + (f"; and {len(problems) - 1} more such problems" if len(problems) > 1 else "")
            if problems else
            f"{path} describes no tool: expected Python functions, an OpenAPI 3 document, the answer to an MCP "
            "server's tools/list, or a list of tools with JSON Schema"
        )  # fmt: skip
    for problem in problems:
        log.warning("left out: %s", problem)
    return found


def usable(path: Path, tools: list[dict[str, Any]], problems: list[str]) -> list[dict[str, Any]]:
    """Those of some tools that can be offered, each name once; `problems` gets a line for each of the others."""
    found: dict[str, dict[str, Any]] = {}
    for tool in tools:
        try:
            check_json(tool)
            [name] = check_tools([tool])
            if not TOOL_NAME.fullmatch(name):
                raise RecordError("bad_tool", f"the tool {short(name)}: {NAMES}")
            if name in found:
                raise RecordError("duplicate_tool", f"the tool {short(name)} is listed twice")
            found[name] = tool
        except RecordError as error:
            problems.append(f"{path}: {error.reason}")
    return list(found.values())


def _document(path: Path) -> Any:
    try:
        return parse(path.read_bytes())
    except RecordError:
        return Document(path).value  # YAML, or JSON with an error that it names by its line


def described(path: Path, value: Any, problems: list[str], annotations: bool = False) -> list[dict[str, Any]]:
    """The usable tools of a document that is read already, as OpenAI tool objects; `path` is for messages.

    `problems` gets a line for each tool that is left out. Raises CallwrightError for a document of another kind.
    """
    if value is None:
        raise CallwrightError(f"{path} is empty: expected tools")
    if isinstance(value, dict) and "openapi" in value:
        return usable(path, openapi_tools(value, path, problems, annotations), problems)
    if isinstance(value, dict) and "swagger" in value:
        raise CallwrightError(f"{path} is a Swagger {value['swagger']} document: convert it to OpenAPI 3")
    if isinstance(value, dict) and isinstance(value.get("runs"), list):
        raise CallwrightError(f"{path} holds a run's settings (`runs`), no tools")
    if isinstance(value, dict) and (isinstance(value.get("tools_from"), list) or _is_toolset(value.get("domains"))):
        raise CallwrightError(f"{path} is a toolset already: `toolset: {path}` in a run's settings names it")
    if isinstance(value, dict) and isinstance(value.get("result"), dict):
        value = value["result"]
    if isinstance(value, dict) and isinstance(value.get("tools"), list):
        value = value["tools"]
    elif isinstance(value, dict) and not _is_tool(value):
        value = [{"title": name, **schema} for name, schema in value.items() if isinstance(schema, dict)]
    items: list[Any] = []
    for item in value if isinstance(value, list) else [value]:
        declared = [item.get(key) for key in DECLARATIONS] if isinstance(item, dict) else []
        items += next((found for found in declared if isinstance(found, list)), [item])
    found = []
    for number, item in enumerate(items, 1):
        try:
            found.append(_tool(item, annotations))
        except RecordError as error:
            problems.append(f"{path}: tool {number}: {error.reason}")
    return usable(path, found, problems)


def _is_toolset(domains: Any) -> bool:
    return isinstance(domains, dict) and not is_schema(domains)


def _is_tool(value: dict[str, Any]) -> bool:
    named = isinstance(value.get("name"), str) or isinstance(value.get("title"), str)
    return named or isinstance(value.get("function"), dict)


def _tool(item: Any, annotations: bool) -> dict[str, Any]:
    """One description as an OpenAI tool object; raises RecordError."""
    if not isinstance(item, dict):
        raise RecordError("bad_tool", f"it is {kind(item)}, expected an object")
    if item.get("name") is None and not isinstance(item.get("function"), dict) and is_schema(item):
        left_out = ("title", "description")  # a JSON Schema by itself
        schema = {key: part for key, part in item.items() if key not in left_out}
        item = {"name": item.get("title"), "description": item.get("description"), "parameters": schema}
    return tool_definition(item, annotations=annotations)
