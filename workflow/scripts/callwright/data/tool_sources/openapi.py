"""Tools from an OpenAPI 3 document: one for each operation, with its parameters and the fields of its body."""

import re
from pathlib import Path
from typing import Any

from callwright.data.normal_schema import Normalizer, SchemaError
from callwright.data.records import kind, short
from callwright.runtime.errors import CallwrightError

METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
# Headers that the specification says are described elsewhere.
OWN_HEADERS = {"accept", "content-type", "authorization"}
MAX_NAME = 64  # what APIs of language models take
OWN, SHARED = "own", "shared"  # where a parameter stands: in its operation, or in the path for all of its operations


def openapi_tools(
    document: dict[str, Any], path: Path, problems: list[str], annotations: bool = False
) -> list[dict[str, Any]]:
    """The operations of an OpenAPI 3 document as OpenAI tool objects, in the document's order.

    A tool's name is the `operationId`, or method and path; its parameters are those of the path, the query and
    required headers, and the fields of a body that is an object (else `body`). Of two with one name the later is
    called after its place too (`id_query`). An operation that cannot be read is left out, as is a parameter without a
    name, and `problems` gets a line that says where it stands and what is wrong. Raises CallwrightError for a document
    without `paths`.
    """
    paths = document.get("paths")
    if not isinstance(paths, dict):
        raise CallwrightError(f"{path} is an OpenAPI document without `paths`")
    tools: dict[str, dict[str, Any]] = {}
    for route, item in paths.items():
        try:
            item = _resolved(item, Normalizer(document))
        except SchemaError as error:
            problems.append(f"{path}: the path {route}: {error}")
            continue
        for method in METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if not isinstance(operation, dict):
                continue
            plain_route = re.sub(r"\W+", "_", str(route)).strip("_")
            name = _name(operation.get("operationId") or f"{method}_{plain_route}", tools)
            nameless: list[tuple[int, str, str]] = []
            try:
                parameters = _parameters(operation, item.get("parameters"), document, nameless, annotations)
            except SchemaError as error:
                problems.append(f"{path}: the operation {name} ({method} {route}): {error}")
                continue
            tools[name] = {
                "type": "function",
                "function": {
                    "name": name,
                    "description": _about(operation) or _about(item),
                    "parameters": parameters,
                },
            }
            places = {OWN: f"the operation {name} ({method} {route})", SHARED: f"the path {route}"}
            lines = [f"{path}: parameter {number} of {places[where]} {wrong}" for number, where, wrong in nameless]
            problems += [line for line in lines if line not in problems]  # a path's own, once for all its operations
    return list(tools.values())


def _resolved(value: Any, normalizer: Normalizer) -> Any:
    """A value, or what it refers to; raises SchemaError."""
    resolver = normalizer.resolver
    for _ in range(16):
        if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
            return value
        try:
            found = resolver.lookup(value["$ref"])
        except Exception as error:  # noqa: BLE001 (of several libraries, by what is wrong with the reference)
            raise SchemaError(
                (),
                f"the reference {value['$ref']!r} leads to nothing in this file; references to other files have to be "
                "put into it first",
            ) from error
        value, resolver = found.contents, found.resolver
    raise SchemaError((), f"the reference {value['$ref']!r} refers to itself")


def _parameters(
    operation: dict[str, Any],
    shared: Any,
    document: dict[str, Any],
    nameless: list[tuple[int, str, str]],
    annotations: bool = False,
) -> dict[str, Any]:
    """The parameters of an operation as a schema of type object; raises SchemaError.

    nameless: gets each parameter that has no name to pass it by: its number, from 1; OWN or SHARED; what is wrong.
    """
    normalizer = Normalizer(document, annotations, requests=True)
    properties: dict[str, Any] = {}
    required: list[str] = []
    own: dict[tuple[str, str], dict[str, Any]] = {}
    for where, listed in ((SHARED, shared), (OWN, operation.get("parameters"))):
        for number, given in enumerate(_listed(listed), 1):
            parameter = _resolved(given, normalizer)
            if wrong := _nameless(parameter):
                nameless.append((number, where, wrong))
            else:
                own[str(parameter.get("in", "query")), parameter["name"]] = parameter
    for (place, name), parameter in own.items():
        needed = parameter.get("required") is True
        if place == "cookie" or (place == "header" and (not needed or name.casefold() in OWN_HEADERS)):
            continue
        schema = parameter.get("schema") or next(iter(_contents(parameter)), {})
        key = _unused(name, place, properties)
        properties[key] = _described(normalizer.schema(schema, (place, name)), parameter.get("description"))
        if needed:
            required.append(key)
    body = _resolved(operation.get("requestBody"), normalizer)
    if isinstance(body, dict) and (contents := _contents(body)):
        schema, needed = normalizer.schema(contents[0], ("body",)), body.get("required")
        fields = schema.get("properties") if isinstance(schema, dict) else None
        if isinstance(fields, dict) and fields and not fields.keys() & properties.keys():
            properties |= fields
            # A body may be left out where `required` is not said; few who write a list of needed fields mean that.
            required += [name for name in schema.get("required", []) if needed is not False and name in fields]
        else:
            key = "body" if "body" not in properties else _unused("request_body", "body", properties)
            properties[key] = _described(schema, body.get("description"))
            required += [key] * (needed is True)
    return normalizer.with_definitions({"type": "object", "properties": properties, "required": required})


def _nameless(parameter: Any) -> str | None:
    """What is wrong with a parameter's name; None where it has one."""
    if not isinstance(parameter, dict):
        return f"is {kind(parameter)}, expected an object with a `name`"
    name = parameter.get("name")
    if isinstance(name, str) and name.strip():
        return None
    if name is None or isinstance(name, str):
        return "has no `name`"
    return f"has the `name` {short(name)}, which is {kind(name)}, expected text (in quotes)"


def _listed(parameters: Any) -> list[Any]:
    if parameters is None:
        return []
    if not isinstance(parameters, list):
        raise SchemaError(("parameters",), "they are no list: the operation is not built as descriptions of tools are")
    return parameters


def _unused(name: str, place: str, taken: dict[str, Any]) -> str:
    """`name`, or one made from it and its place that is not among the taken ones."""
    found, number = name, 1
    while found in taken:
        found, number = f"{name}_{place}" if number == 1 else f"{name}_{place}_{number}", number + 1
    return found


def _contents(value: dict[str, Any]) -> list[Any]:
    """The schemas of a body, JSON before others."""
    contents = value.get("content")
    if not isinstance(contents, dict):
        return []
    names = sorted(contents, key=lambda name: ("json" not in name, "form" not in name))
    return [contents[name]["schema"] for name in names
            if isinstance(contents[name], dict) and isinstance(contents[name].get("schema"), dict)]  # fmt: skip


def _described(schema: Any, description: Any) -> Any:
    if isinstance(schema, dict) and isinstance(description, str) and description.strip():
        return {**schema, "description": " ".join(description.split())}
    return schema


def _about(value: dict[str, Any]) -> str:
    """Summary and description; one of them where the other repeats it."""
    parts = [value.get("summary"), value.get("description")]
    parts = [" ".join(part.split()) for part in parts if isinstance(part, str) and part.strip()]
    if len(parts) == 2 and parts[0].casefold().rstrip(".") in parts[1].casefold():
        parts = parts[1:]
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)


def _name(text: str, taken: dict[str, Any]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", str(text)).strip("_")[:MAX_NAME] or "operation"
    name, number = plain, 2
    while name in taken:
        ending = f"_{number}"
        name, number = plain[: MAX_NAME - len(ending)] + ending, number + 1
    return name
