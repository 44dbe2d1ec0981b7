"""One normal form for the JSON Schemas that other people write.

Whatever the draft (3 to 2020-12, OpenAPI 3.0, Gemini's and Python's names of types), the normal form is draft 2020-12
and accepts the same values: references are put in their place, `allOf` is merged where that changes nothing, and what
is no JSON Schema but has one plain meaning (`OBJECT`, `dict`, an empty list for an empty object, `required: true` in a
property) is written as JSON Schema. A schema that is in the normal form already comes back as it is. Only what
contains itself keeps references, into `$defs` of the whole.

Files of tools, MCP servers, OpenAPI documents, records and the server all read schemas through this module, so that
a tool is written in the prompt of an answer as in the prompts of training.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import referencing
import referencing.jsonschema

from callwright.data import schema as types

MOST_PARTS = 20_000  # of a schema whose references are put in; references can double it at every step

JSON_TYPES = {"object", "number", "array", "boolean", "integer", "string", "null"}
# Names of types in other languages, beside those of `data.schema`; a value of None is no restriction.
OTHER_TYPES: dict[str, str | None] = {
    "any": None, "mixed": None, "type_unspecified": None, "unknown": None, "file": "string", "char": "string",
    "hashmap": "object", "map": "object", "struct": "object", "tuple": "array", "arraylist": "array",
    "short": "integer", "byte": "integer", "bigint": "integer", "int32": "integer", "int64": "integer",
    "float32": "number", "float64": "number",
}  # fmt: skip
ONE = (
    "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then", "unevaluatedItems",
    "unevaluatedProperties", "contentSchema",
)  # fmt: skip
MAPS = ("properties", "patternProperties", "dependentSchemas")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties", "maxContains",
          "minContains")  # fmt: skip
# What names a schema or parts of it; nothing refers to these when the references are put in.
NAMING = {
    "$anchor", "$comment", "$defs", "$dynamicAnchor", "$id", "$recursiveAnchor", "$schema", "$vocabulary",
    "definitions",
}  # fmt: skip
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# What says nothing about which values are right.
ANNOTATIONS = {
    "default", "deprecated", "description", "discriminator", "example", "examples", "externalDocs", "readOnly",
    "title", "writeOnly", "xml",
}  # fmt: skip
KEPT_ANNOTATIONS = {"default", "description"}  # also where others are left out
# Keywords that look at each other within one object: parts of `allOf` with the same group stay apart.
GROUPS = (
    ("properties", "patternProperties", "additionalProperties"),
    ("prefixItems", "items"),
    ("contains", "minContains", "maxContains"),
    ("if", "then", "else"),
)
_STRICTER = {
    "minimum": max, "exclusiveMinimum": max, "minLength": max, "minItems": max, "minProperties": max,
    "maximum": min, "exclusiveMaximum": min, "maxLength": min, "maxItems": min, "maxProperties": min,
}  # fmt: skip
_TRUTHS = {"true": True, "false": False}

Schema = dict[str, Any] | bool
Place = tuple[str, ...]


class SchemaError(ValueError):
    """A schema without a normal form: `place` is the path of keywords to the part at fault, `what` is wrong there."""

    def __init__(self, place: Place, what: str):
        super().__init__(f"{'.'.join(place)[:120]}: {what}" if place else what)
        self.place, self.what = place, what


def is_schema(parameters: Mapping[str, Any]) -> bool:
    """Whether a tool's `parameters` are a JSON Schema, and not a map of parameters by name as xLAM has them.

    In such a map each value describes a parameter; a parameter may be called `type` or `properties`.
    """
    if isinstance(parameters.get("type"), str | list) or any(isinstance(parameters.get(key), str) for key in ("$ref",)):
        return True
    if any(isinstance(parameters.get(key), list) for key in ("allOf", "anyOf", "oneOf", "required", "properties")):
        return True
    if "properties" in parameters:
        listed = parameters["properties"]
        described = isinstance(listed, dict) and isinstance(listed.get("type"), str)
        return listed is None or (isinstance(listed, dict) and not described)
    values = [value for value in parameters.values() if not isinstance(value, str)]
    return not parameters or not any(isinstance(value, dict) for value in values) and "$schema" in parameters


def normal_parameters(parameters: Any, annotations: bool = True) -> dict[str, Any]:
    """A tool's parameters as a schema of type object in the normal form; raises SchemaError.

    None and an empty list stand for no parameters. `annotations` False leaves out titles, examples and the like.
    """
    if parameters is None or parameters == []:
        parameters = {}
    if not isinstance(parameters, dict):
        raise SchemaError((), f"they are {_kind(parameters)}, expected a JSON Schema of type object")
    return Normalizer(parameters, annotations).parameters(parameters)


def normal_schema(schema: Any, annotations: bool = True) -> Schema:
    """Any schema in the normal form, with `$defs` where it contains itself; raises SchemaError."""
    normalizer = Normalizer(schema if isinstance(schema, dict) else {}, annotations)
    return normalizer.with_definitions(normalizer.root(schema))


class Normalizer:
    """Brings the schemas of one document into the normal form.

    document: where references lead to. annotations: whether titles, examples and the like are kept. requests:
    properties that are read only are left out, since nobody sends them (OpenAPI). `definitions` holds, by name, the
    schemas that contain themselves, to which `#/$defs/<name>` refers.
    """

    def __init__(self, document: dict[str, Any], annotations: bool = True, requests: bool = False):
        uri = document.get("$schema")
        known = referencing.jsonschema.DRAFT202012
        if isinstance(uri, str):
            known = referencing.jsonschema.specification_with(uri.rstrip("#") + "#" * ("draft-0" in uri), default=known)
        self.specification = known
        # Until 2019 whatever stood beside a reference was ignored.
        self.lone_references = isinstance(uri, str) and re.search(r"draft-0[3467]", uri) is not None
        resource = referencing.Resource(contents=document, specification=known)
        uri = document.get("$id") if isinstance(document.get("$id"), str) else document.get("id")
        uri = uri.rstrip("#") if isinstance(uri, str) and known.id_of(document) == uri else ""
        self.resolver = referencing.Registry().with_resource(uri, resource).resolver(base_uri=uri)
        self.annotations, self.requests = annotations, requests
        self.definitions: dict[str, Schema] = {}
        self._active: set[int] = set()  # the identities of the schemas that are being written out
        self._names: dict[int, str] = {}  # and the names of those that were met within themselves
        self._parts = 0

    def parameters(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema of type object, its `$defs` included; raises SchemaError."""
        found = self.root(schema)
        if isinstance(found, dict) and set(found) == {"$ref"}:
            found = self.definitions[found["$ref"].removeprefix("#/$defs/")]
        if found is True:
            found = {}
        if not isinstance(found, dict):
            raise SchemaError((), "they allow nothing, expected a JSON Schema of type object")
        kinds = found.get("type", "object")
        if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
            raise SchemaError(("type",), f"it is {kinds!r}, expected 'object'"[:120])
        return self.with_definitions({"type": "object", "properties": {}, **found, **{"type": "object"}})

    def with_definitions(self, schema: Schema) -> Schema:
        """The schema and the definitions that it, or another one, refers to."""
        if not self.definitions or not isinstance(schema, dict):
            return schema
        return {**schema, "$defs": dict(self.definitions)}

    def root(self, schema: Any) -> Schema:
        """The document's own schema."""
        self._active.add(id(schema))
        try:
            found = self.schema(schema, ())
        except RecursionError as error:
            raise SchemaError((), "it is nested too deeply") from error
        if name := self._names.get(id(schema)):
            if isinstance(found, dict) and found.get("$ref") == f"#/$defs/{name}":
                raise SchemaError((), "it refers to itself")
            self.definitions[name] = found
        return found

    def schema(self, value: Any, place: Place, resolver: Any = None) -> Schema:
        """A schema in the normal form, without `$defs`; raises SchemaError."""
        resolver = resolver or self.resolver
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise SchemaError(place[:4], f"it has more than {MOST_PARTS} parts when its references are put in")
        if isinstance(value, bool):
            return value
        if value is None or value == []:  # what an empty object becomes in PHP
            return {}
        if isinstance(value, str):
            return self._type(value, place)
        if not isinstance(value, dict):
            raise SchemaError(place, f"it is {_kind(value)}, expected a schema")
        if place and isinstance(value.get("$id"), str):
            resolver = resolver.in_subresource(self.specification.create_resource(value))
        for keyword in REFERENCES:
            if value.get(keyword) is not None:
                return self._reference(value, keyword, place, resolver)
        return self._keywords(value, place, resolver)

    def _reference(self, value: dict[str, Any], keyword: str, place: Place, resolver: Any) -> Schema:
        reference = value[keyword]
        if not isinstance(reference, str):
            raise SchemaError((*place, keyword), f"it is {_kind(reference)}, expected a reference")
        try:
            found = resolver.lookup(reference)
        except Exception as error:  # noqa: BLE001 (of several libraries, by what is wrong with the reference)
            raise SchemaError(
                place,
                f"the reference {reference[:80]!r} leads to nothing in this file; references to other files have to "
                "be put into it first",
            ) from error
        body = self._target(found, reference, place)
        beside = {key: part for key, part in value.items() if key != keyword}
        if self.lone_references:
            beside = {key: part for key, part in beside.items() if key in ANNOTATIONS}
        more = self._keywords(beside, place, resolver)
        if not more:
            return body
        if (
            isinstance(body, dict)
            and (not set(more) - ANNOTATIONS or not set(more) & set(body))
            and not _meet(body, more)
        ):
            return {**body, **more}
        return _merged({**more, "allOf": [body, *more.get("allOf", [])]})

    def _target(self, found: Any, reference: str, place: Place) -> Schema:
        target = found.contents
        identity = id(target)
        if identity in self._active or identity in self._names:
            return {"$ref": f"#/$defs/{self._name(identity, reference)}"}
        self._active.add(identity)
        body = self.schema(target, place, found.resolver)
        self._active.discard(identity)
        if identity not in self._names:
            return body
        name = self._names[identity]
        if isinstance(body, dict) and body.get("$ref") == f"#/$defs/{name}":
            raise SchemaError(place, f"the reference {reference[:80]!r} refers to itself")
        self.definitions[name] = body
        return {"$ref": f"#/$defs/{name}"}

    def _name(self, identity: int, reference: str) -> str:
        if identity not in self._names:
            plain = re.sub(r"\W+", "_", reference.rsplit("/", 1)[-1].rsplit("#", 1)[-1]).strip("_") or "root"
            name, number = plain, 2
            while name in self._names.values():
                name, number = f"{plain}_{number}", number + 1
            self._names[identity] = name
        return self._names[identity]

    def _keywords(self, value: dict[str, Any], place: Place, resolver: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, part in value.items():
            where = (*place, str(key))
            if key in NAMING or (part is None and key not in ("default", "const")):
                continue
            if key == "type":
                found |= {name: kind for name, kind in self._types(part, where, resolver).items() if name not in found}
            elif key == "properties":
                found[key] = self._properties(part, where, resolver)
            elif key in MAPS:
                found[key] = {name: self.schema(inner, (*where, name), resolver)
                              for name, inner in _object(part, where).items()}  # fmt: skip
            elif key in LISTS or (key == "items" and isinstance(part, list)):
                parts = part if isinstance(part, list) else [part]
                parts = [self.schema(inner, (*where, str(n)), resolver) for n, inner in enumerate(parts)]
                if parts:
                    found["prefixItems" if key == "items" else key] = parts
            elif key in ONE:
                found[key] = self.schema(part, where, resolver)
            elif (
                self.annotations
                or (key not in ANNOTATIONS and not str(key).startswith("x-"))
                or (key in KEPT_ANNOTATIONS)
            ):
                found[key] = part
        self._older_drafts(found, value, place, resolver)
        _plain_values(found, place)
        return _nullable(_merged(found), value.get("nullable"))

    def _properties(self, part: Any, place: Place, resolver: Any) -> dict[str, Any]:
        if (
            isinstance(part, list)
            and part
            and all(isinstance(p, dict) and isinstance(p.get("name"), str) for p in part)
        ):
            part = {p["name"]: {key: inner for key, inner in p.items() if key != "name"} for p in part}
        listed = {}
        for name, inner in _object(part, place).items():
            if inner is None or (self.requests and self._read_only(inner, resolver)):
                continue  # null: a table has the parameters of all tools in each
            listed[name] = self.schema(inner, (*place, str(name)), resolver)
        return listed

    def _read_only(self, value: Any, resolver: Any) -> bool:
        for _ in range(16):
            if not isinstance(value, dict):
                return False
            if value.get("readOnly") is True:
                return True
            if not isinstance(value.get("$ref"), str):
                return False
            try:
                found = resolver.lookup(value["$ref"])
            except Exception:  # noqa: BLE001 (said where the reference is put in)
                return False
            value, resolver = found.contents, found.resolver
        return False

    def _types(self, kinds: Any, place: Place, resolver: Any) -> dict[str, Any]:
        """What `type` says, as keywords."""
        if isinstance(kinds, str):
            return self._type(kinds, place)
        if not isinstance(kinds, list):
            raise SchemaError(place, f"it is {_kind(kinds)}, expected the name of a type")
        if all(isinstance(kind, str) and kind in JSON_TYPES for kind in kinds):
            return {"type": list(dict.fromkeys(kinds))} if kinds else {}
        if not all(isinstance(kind, str | dict) for kind in kinds):
            raise SchemaError(place, "it lists what is no name of a type")
        parts = [
            self._type(kind, place) if isinstance(kind, str) else self.schema(kind, place, resolver) for kind in kinds
        ]
        return types.any_of(parts)

    def _type(self, word: str, place: Place) -> dict[str, Any]:
        """The name of a type, in any of the usual languages."""
        name = word.strip().casefold()
        if word in JSON_TYPES or name in JSON_TYPES:
            return {"type": name}
        if name in OTHER_TYPES:
            return {} if OTHER_TYPES[name] is None else {"type": OTHER_TYPES[name]}
        try:
            found, _, default = types.json_schema(word)
        except types.TypeSyntaxError as error:
            raise SchemaError(place, f"unknown type {word[:60]!r}") from error
        return {**found, **default}

    def _older_drafts(self, found: dict[str, Any], value: dict[str, Any], place: Place, resolver: Any) -> None:
        """What earlier drafts, and OpenAPI 3.0, say in other words."""
        further = found.pop("additionalItems", None)
        if isinstance(value.get("items"), list) and further is not None and further is not True:
            found["items"] = self.schema(further, (*place, "additionalItems"), resolver)
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and bound in found:
                found[exclusive] = found.pop(bound)
        if "divisibleBy" in found:
            found.setdefault("multipleOf", found.pop("divisibleBy"))
        if "disallow" in found:
            found["not"] = self._types(found.pop("disallow"), (*place, "disallow"), resolver)
        if "extends" in found:
            bases = found.pop("extends")
            bases = bases if isinstance(bases, list) else [bases]
            found["allOf"] = [*found.get("allOf", []),
                              *(self.schema(base, (*place, "extends"), resolver) for base in bases)]  # fmt: skip
        for name, needs in _object(found.pop("dependencies", None), (*place, "dependencies")).items():
            if isinstance(needs, str | list):
                needed = [needs] if isinstance(needs, str) else needs
                found["dependentRequired"] = {**found.get("dependentRequired", {}), name: needed}
            else:
                part = self.schema(needs, (*place, "dependencies", name), resolver)
                found["dependentSchemas"] = {**found.get("dependentSchemas", {}), name: part}
        self._required(found, value, place)

    def _required(self, found: dict[str, Any], value: dict[str, Any], place: Place) -> None:
        """`required` as a list, also where properties say of themselves that they are."""
        listed = value.get("properties")
        if isinstance(listed, list):
            listed = {p["name"]: p for p in listed if isinstance(p, dict) and isinstance(p.get("name"), str)}
        listed = listed if isinstance(listed, dict) else {}
        own = [name for name, part in listed.items() if isinstance(part, dict) and _truth(part.get("required"))]
        gone = {name for name, part in listed.items() if part is None}
        required = found.get("required")
        if isinstance(required, list) and gone and _texts(required):
            required = found["required"] = [name for name in required if name not in gone]
        if _truth(required) is not None or required == {}:  # a word about the schema itself: said where it is listed
            found.pop("required")
            required = None
        if isinstance(required, str):
            required = [required]
        if isinstance(required, list):
            found["required"] = list(dict.fromkeys([*required, *own])) if _texts(required) else required
        elif required is not None:
            raise SchemaError((*place, "required"), f"it is {_kind(required)}, expected a list of names")
        elif own:
            found["required"] = own
        if self.requests and isinstance(found.get("required"), list):
            left_out = listed.keys() - found.get("properties", {}).keys()
            found["required"] = [name for name in found["required"] if name not in left_out]
        found.pop("nullable", None)


def _plain_values(found: dict[str, Any], place: Place) -> None:
    """Counts as numbers, patterns in Python's words; an empty enumeration is none."""
    for key in COUNTS:
        if isinstance(found.get(key), str) and found[key].strip().isdigit():
            found[key] = int(found[key])
    if found.get("enum") == []:
        found.pop("enum")
    if "const" in found and found["const"] is None and "null" not in _as_list(found.get("type", "null")):
        found.pop("const")  # one of the null fields of a dump
    if "pattern" in found and (pattern := _pattern(found["pattern"])) != found["pattern"]:
        found.pop("pattern")
        if pattern is not None:
            found["pattern"] = pattern
    if isinstance(found.get("patternProperties"), dict):
        found["patternProperties"] = {
            plain: part for name, part in found["patternProperties"].items() if (plain := _pattern(name)) is not None
        }


def _pattern(pattern: Any) -> Any:
    """A regular expression that Python compiles; None for one of JavaScript's that it cannot."""
    if not isinstance(pattern, str):
        return pattern
    for text in (pattern, re.sub(r"\(\?<(?![=!])", "(?P<", pattern).replace("[^]", r"[\s\S]")):
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError):
            continue
        return text
    return None


def _nullable(found: dict[str, Any], nullable: Any) -> dict[str, Any]:
    """A schema that also takes null, as OpenAPI 3.0 and Gemini say by `nullable`."""
    if nullable is not True or not set(found) - ANNOTATIONS:
        return found
    if "type" in found:
        kinds = _as_list(found["type"])
        if "null" not in kinds:
            found["type"] = [*kinds, "null"]
        if isinstance(found.get("enum"), list) and None not in found["enum"]:
            found["enum"] = [*found["enum"], None]
        if not {"allOf", "anyOf", "oneOf", "$ref", "not", "const", "if"} & set(found):
            return found
        return found if kinds == ["null"] else _or_null({**found, "type": kinds if len(kinds) > 1 else kinds[0]})
    return _or_null(found)


def _or_null(found: dict[str, Any]) -> dict[str, Any]:
    said = {key: part for key, part in found.items() if key in ANNOTATIONS}
    asserted = {key: part for key, part in found.items() if key not in ANNOTATIONS}
    cases = asserted["anyOf"] if set(asserted) == {"anyOf"} else [asserted]
    return {"anyOf": [*cases, {"type": "null"}], **said}


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without `allOf` where its parts can be written as one; else as it is."""
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    merged: dict[str, Any] | None = {}
    for part in [*parts, {key: part for key, part in schema.items() if key != "allOf"}]:
        if part is not True:
            merged = _together(merged, part) if isinstance(part, dict) else None
        if merged is None:
            return schema
    return merged


def _together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """Two schemas as one that accepts what both accept, described by `other` first; None where there is none."""
    if any(key.startswith("unevaluated") for key in one) or _meet(one, other):
        return None
    found = {**one, **other}
    for key in one.keys() & other.keys():
        first, second = one[key], other[key]
        if key in ANNOTATIONS or same(first, second):
            continue
        if key in _STRICTER and all(isinstance(v, int | float) and not isinstance(v, bool) for v in (first, second)):
            found[key] = _STRICTER[key](first, second)
        elif key == "required" and _texts(first) and _texts(second):
            found[key] = list(dict.fromkeys([*first, *second]))
        elif key == "properties":
            found[key] = {**first, **second}
            for name in first.keys() & second.keys():
                if not same(first[name], second[name]):
                    found[key][name] = _merged({"allOf": [first[name], second[name]]})
        elif key == "type" and isinstance(first, str) and isinstance(second, str) \
                and {first, second} == {"integer", "number"}:  # fmt: skip
            found[key] = "integer"
        else:
            return None
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; to Python 1, 1.0 and True are equal."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def _meet(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two schemas have keywords that would look at each other if they stood in one object."""
    for group in GROUPS:
        first, second = set(group) & set(one), set(group) & set(other)
        if first and second and not (first == second == {"properties"}):
            return True
    return any(key.startswith("unevaluated") for key in one) and bool(set(other) - ANNOTATIONS)


def _object(part: Any, place: Place) -> dict[str, Any]:
    """A part that holds others by name; an empty list is an empty one."""
    if part is None or part == []:
        return {}
    if not isinstance(part, dict):
        raise SchemaError(place, f"it is {_kind(part)}, expected an object")
    return part


def _truth(value: Any) -> bool | None:
    """A truth value, or the word for one; None for all else."""
    return value if isinstance(value, bool) else _TRUTHS.get(value.casefold()) if isinstance(value, str) else None


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
