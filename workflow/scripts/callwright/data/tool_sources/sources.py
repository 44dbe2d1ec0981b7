"""Tools from what people already have: Python functions, an OpenAPI document, an MCP server's list, JSON Schema.

Which of them a file holds is told by its content (`tools_from`); all become OpenAI tool objects whose `parameters`
are a JSON Schema of type object without references.
"""

from pathlib import Path
from typing import Any

from callwright.data.formats.readers import parse
from callwright.data.formats.xlam import tool_definition
from callwright.data.records import RecordError, check_json, check_tools, kind
from callwright.data.tool_sources.openapi import inline, openapi_tools
from callwright.data.tool_sources.python import python_tools
from callwright.data.toolset.yaml_lines import Document
from callwright.runtime.errors import CallwrightError


def tools_from(path: str | Path) -> list[dict[str, Any]]:
    """The tools that a file describes, in its order, as checked OpenAI tool objects.

    - Python (`.py`): its public functions, by type hints and docstrings; the file is imported, nothing else runs
    - OpenAPI 3 (JSON or YAML): its operations
    - MCP: the answer to `tools/list`, with or without the JSON-RPC around it
    - JSON or YAML: a list of OpenAI tools or functions, or of xLAM's; one of them; JSON Schemas of type object
      with a `title`, which is the tool's name; or an object of such schemas by name

    Raises CallwrightError that names the file and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise CallwrightError(f"the file of tools {path} does not exist")
    try:
        found = python_tools(path) if path.suffix == ".py" else described(path, _document(path))
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:  # a part is of another kind
        raise CallwrightError(f"{path} is not built as descriptions of tools are: {error}") from error
    if not found:
        raise CallwrightError(
            f"{path} describes no tool: expected Python functions, an OpenAPI 3 document, the answer to an MCP "
            "server's tools/list, or a list of tools with JSON Schema"
        )
    try:
        check_json(found)
        check_tools(found)
    except RecordError as error:
        raise CallwrightError(f"{path}: {error.reason}") from error
    return found


def _document(path: Path) -> Any:
    try:
        return parse(path.read_bytes())
    except RecordError:
        return Document(path).value  # YAML, or JSON with an error that it names by its line


def described(path: Path, value: Any) -> list[dict[str, Any]]:
    """The tools of a document that is read already, as OpenAI tool objects, unchecked; `path` is for messages."""
    if isinstance(value, dict) and "openapi" in value:
        return openapi_tools(value, path)
    if isinstance(value, dict) and "swagger" in value:
        raise CallwrightError(f"{path} is a Swagger {value['swagger']} document: convert it to OpenAPI 3")
    if isinstance(value, dict) and isinstance(value.get("result"), dict):
        value = value["result"]
    if isinstance(value, dict) and isinstance(value.get("tools"), list):
        value = value["tools"]
    elif isinstance(value, dict) and not _is_tool(value):
        value = [{"title": name, **schema} for name, schema in value.items() if isinstance(schema, dict)]
    items = value if isinstance(value, list) else [value]
    return [_tool(path, number, item) for number, item in enumerate(items, 1)]


def _is_tool(value: dict[str, Any]) -> bool:
    named = isinstance(value.get("name"), str) or isinstance(value.get("title"), str)
    return named or isinstance(value.get("function"), dict)


def _tool(path: Path, number: int, item: Any) -> dict[str, Any]:
    """One description as an OpenAI tool object."""
    if not isinstance(item, dict):
        raise CallwrightError(f"{path}: tool {number} is {kind(item)}, expected an object")
    if isinstance(item.get("function"), dict):
        item = item["function"]
    schema = item.get("inputSchema", item.get("input_schema", item.get("parameters")))
    name, about = item.get("name"), item.get("description")
    if name is None and item.get("type") == "object":  # a JSON Schema by itself
        name = item.get("title")
        schema = {key: part for key, part in item.items() if key not in ("title", "description", "$schema", "$id")}
    if isinstance(schema, dict) and schema.get("type") == "object":
        schema = inline(schema, path)
    try:
        return tool_definition({"name": name, "description": about, "parameters": schema})
    except RecordError as error:
        raise CallwrightError(f"{path}: tool {number}: {error.reason}") from error
