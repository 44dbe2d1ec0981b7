"""Tools from an OpenAPI 3 document: one for each operation, with its parameters and the fields of its body."""

import re
from pathlib import Path
from typing import Any

import referencing
import referencing.jsonschema

from callwright.runtime.errors import CallwrightError

METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
# Headers that the specification says are described elsewhere.
OWN_HEADERS = {"accept", "content-type", "authorization"}
# Keywords of OpenAPI that say nothing about which values are right.
DROPPED = {
    "example", "examples", "xml", "externalDocs", "discriminator", "readOnly", "writeOnly", "deprecated", "title",
    "nullable", "$defs", "definitions", "$schema", "$id",
}  # fmt: skip
MAX_NAME = 64  # what APIs of language models take


def openapi_tools(document: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The operations of an OpenAPI 3 document as OpenAI tool objects, in the document's order.

    A tool's name is the `operationId`, or method and path; its parameters are those of the path, the query and
    required headers, and the fields of a body that is an object (else `body`). References are resolved within the
    document; a schema that contains itself is cut there. Raises CallwrightError for a reference that leads nowhere.
    """
    refs = _References(document, path)
    paths = document.get("paths")
    if not isinstance(paths, dict):
        raise CallwrightError(f"{path} is an OpenAPI document without `paths`")
    tools: dict[str, dict[str, Any]] = {}
    for route, item in paths.items():
        item = refs.resolve(item)
        for method in METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if not isinstance(operation, dict):
                continue
            plain_route = re.sub(r"\W+", "_", str(route)).strip("_")
            name = _name(operation.get("operationId") or f"{method}_{plain_route}", tools)
            shared = item.get("parameters") or []
            tools[name] = {
                "type": "function",
                "function": {
                    "name": name,
                    "description": _about(operation) or _about(item),
                    "parameters": _parameters(operation, shared, refs),
                },
            }
    return list(tools.values())


def inline(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """A JSON Schema with its references to its own definitions put in their place."""
    return _References(schema, path).plain(schema)


class _References:
    """Resolves the references of one document."""

    def __init__(self, document: dict[str, Any], path: Path):
        resource = referencing.Resource.from_contents(document, referencing.jsonschema.DRAFT202012)
        self.resolver = referencing.Registry().with_resource("", resource).resolver()
        self.path = path

    def lookup(self, reference: Any) -> Any:
        """What a reference stands for; raises CallwrightError when it stands for nothing in this document."""
        try:
            return self.resolver.lookup(reference).contents
        except Exception as error:  # noqa: BLE001 (of several libraries, by what is wrong with the reference)
            raise CallwrightError(
                f"{self.path}: the reference {reference!r} leads to nothing in this file; references to other files "
                "have to be put into it first"
            ) from error

    def resolve(self, value: Any) -> Any:
        """A value, or what it refers to."""
        for _ in range(16):
            if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
                return value
            value = self.lookup(value["$ref"])
        raise CallwrightError(f"{self.path}: the reference {value['$ref']!r} refers to itself")

    def plain(self, schema: Any, inside: tuple[str, ...] = ()) -> Any:
        """A schema of what a caller sends as plain JSON Schema: without references and fields that are read only."""
        if not isinstance(schema, dict):
            return schema
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference in inside or len(inside) > 12:
                return {}
            beside = {key: part for key, part in schema.items() if key != "$ref"}
            return self.plain({**self.resolve({"$ref": reference}), **beside}, (*inside, reference))
        found: dict[str, Any] = {}
        for key, part in schema.items():
            if key in ("properties", "patternProperties") and isinstance(part, dict):
                found[key] = {
                    name: self.plain(inner, inside)
                    for name, inner in part.items()
                    if not (isinstance(inner, dict) and self.resolve(inner).get("readOnly") is True)
                }
            elif key in ("allOf", "anyOf", "oneOf", "prefixItems") and isinstance(part, list):
                found[key] = [self.plain(inner, inside) for inner in part]
            elif key in ("items", "additionalProperties", "not"):
                found[key] = self.plain(part, inside)
            elif key not in DROPPED and not str(key).startswith("x-"):
                found[key] = part
        _update_to_2020(found, schema)
        found = _merged(found)
        if isinstance(found.get("required"), list) and isinstance(schema.get("properties"), dict):
            left_out = schema["properties"].keys() - found["properties"].keys()
            found["required"] = [name for name in found["required"] if name not in left_out]
        return found


def _update_to_2020(found: dict[str, Any], schema: dict[str, Any]) -> None:
    """What OpenAPI 3.0 says in its own way: `nullable`, and truth values as exclusive bounds."""
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and bound in found:
            found[exclusive] = found.pop(bound)


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without `allOf`, where its parts are objects with properties or say only more about it."""
    parts = schema.get("allOf")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return schema
    if any({"anyOf", "oneOf", "not", "enum", "const"} & part.keys() for part in parts) and len(parts) > 1:
        return schema
    merged = {key: part for key, part in schema.items() if key != "allOf"}
    for part in parts:
        properties = {**part.get("properties", {}), **merged.get("properties", {})}
        required = list(dict.fromkeys([*part.get("required", []), *merged.get("required", [])]))
        merged = {**part, **merged}
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = required
    return merged


def _parameters(operation: dict[str, Any], shared: list[Any], refs: _References) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    own: dict[tuple[str, str], dict[str, Any]] = {}
    for given in [*shared, *(operation.get("parameters") or [])]:
        parameter = refs.resolve(given)
        if isinstance(parameter, dict) and isinstance(parameter.get("name"), str):
            own[parameter.get("in", "query"), parameter["name"]] = parameter
    for (place, name), parameter in own.items():
        needed = parameter.get("required") is True
        if place == "cookie" or (place == "header" and (not needed or name.casefold() in OWN_HEADERS)):
            continue
        schema = parameter.get("schema") or next(iter(_contents(parameter)), {})
        properties[name] = _described(refs.plain(schema), parameter.get("description"))
        if needed:
            required.append(name)
    body = refs.resolve(operation.get("requestBody"))
    if isinstance(body, dict) and (contents := _contents(body)):
        schema, needed = refs.plain(contents[0]), body.get("required") is True
        fields = schema.get("properties") if isinstance(schema, dict) else None
        if isinstance(fields, dict) and fields and not fields.keys() & properties.keys():
            properties |= fields
            required += [name for name in schema.get("required", []) if needed and name in fields]
        else:
            properties["body"] = _described(schema, body.get("description"))
            required += ["body"] * needed
    return {"type": "object", "properties": properties, "required": required}


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
