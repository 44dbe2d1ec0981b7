"""Tools from Python functions: names, type hints and defaults give the schema, the docstring the descriptions.

Docstrings in the styles of Google, NumPy and Sphinx are read. The file is imported, as Python does it, so that
type hints mean what they mean there; no function of it is called.
"""

import dataclasses
import datetime
import decimal
import enum
import importlib.util
import inspect
import json
import pathlib
import re
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from callwright.data.schema import any_of
from callwright.data.tool_sources.openapi import inline
from callwright.runtime.errors import CallwrightError

PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"}, int: {"type": "integer"}, float: {"type": "number"}, bool: {"type": "boolean"},
    bytes: {"type": "string"}, type(None): {"type": "null"}, Any: {}, object: {}, inspect.Parameter.empty: {},
    list: {"type": "array"}, tuple: {"type": "array"}, set: {"type": "array"}, frozenset: {"type": "array"},
    dict: {"type": "object"}, decimal.Decimal: {"type": "number"}, pathlib.Path: {"type": "string"},
    datetime.date: {"type": "string", "format": "date"}, datetime.time: {"type": "string", "format": "time"},
    datetime.datetime: {"type": "string", "format": "date-time"}, uuid.UUID: {"type": "string", "format": "uuid"},
}  # fmt: skip
MAX_DEPTH = 12
_SECTION = re.compile(
    r"^\s*(args|arguments|parameters|params|returns?|yields?|raises|attributes|examples?|notes?|see also|warnings?|"
    r"references|keyword args|keyword arguments|other parameters|todo)\s*:?\s*$",
    re.I,
)
_LISTS = {"args", "arguments", "parameters", "params", "keyword args", "keyword arguments", "other parameters"}


class _Unclear(Exception):
    """A type hint that has no JSON Schema."""


def python_tools(path: Path) -> list[dict[str, Any]]:
    """The public functions of a Python file as OpenAI tool objects, in the file's order.

    Those named in `__all__`, or else those without an underscore that are defined in the file. Raises CallwrightError
    when the file cannot be imported, or a parameter has a type that has no JSON Schema.
    """
    return [describe(function, path) for function in python_functions(path)]


def python_functions(path: Path) -> list[Callable[..., Any]]:
    """The functions of a Python file that are tools, as `python_tools` describes them, in the file's order."""
    module = _imported(path)
    listed = getattr(module, "__all__", None)
    functions = [
        found
        for name, found in vars(module).items()
        if inspect.isfunction(found)
        and (name in listed if listed is not None else not name.startswith("_") and found.__module__ == module.__name__)
    ]
    return sorted(functions, key=lambda found: found.__code__.co_firstlineno)


def _imported(path: Path) -> types.ModuleType:
    """The file as a module, under a name of its own; what it imports from its folder is found."""
    name = f"_tools_of_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    without_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder stays as it is
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = next((frame.lineno for frame in reversed(inspect.getinnerframes(error.__traceback__) or [])
                     if frame.filename == str(path)), getattr(error, "lineno", None))  # fmt: skip
        where = f", line {line}" if line else ""
        raise CallwrightError(f"{path}{where}: cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
        sys.modules.pop(name, None)
        sys.dont_write_bytecode = without_bytecode
    return module


def describe(function: Callable[..., Any], path: Path) -> dict[str, Any]:
    """A function as an OpenAI tool object; raises CallwrightError as `python_tools` does."""
    where = f"{path}, line {function.__code__.co_firstlineno}, function {function.__name__}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 (a hint may be any expression)
        raise CallwrightError(f"{where}: the type hints cannot be read: {error}") from error
    about, described = read_docstring(inspect.getdoc(function) or "")
    properties, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            schema = schema_of(hints.get(name, parameter.empty), path)
        except _Unclear as error:
            raise CallwrightError(
                f"{where}: the parameter {name} has the type {error}, which has no JSON Schema; expected str, int, "
                "float, bool, list[…], dict[…], Literal[…], Optional[…], a dataclass, a TypedDict or the like"
            ) from error
        if name in described:
            schema = {**schema, "description": described[name]}
        if parameter.default is parameter.empty:
            required.append(name)
        elif parameter.default is not None and (default := _json(parameter.default)) is not None:
            schema = {**schema, "default": default}
        properties[name] = schema
    return {
        "type": "function",
        "function": {
            "name": function.__name__,
            "description": about,
            "parameters": {"type": "object", "properties": properties, "required": required},
        },
    }


def schema_of(hint: Any, path: Path = Path("tools.py"), depth: int = 0) -> dict[str, Any]:
    """The JSON Schema of a type hint; raises _Unclear when it has none."""
    if depth > MAX_DEPTH:
        return {}

    def inner(part: Any) -> dict[str, Any]:
        return schema_of(part, path, depth + 1)

    try:
        if hint in PLAIN:
            return dict(PLAIN[hint])
    except TypeError:  # a hint that cannot be hashed
        pass
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        texts = [note if isinstance(note, str) else getattr(note, "description", None) for note in arguments[1:]]
        about = next((text for text in texts if isinstance(text, str)), None)
        return {**inner(arguments[0]), **({"description": about} if about else {})}
    if origin is typing.Literal:
        return {"enum": [value for value in map(_json, arguments)]}
    if origin in (typing.Union, types.UnionType):
        return any_of([inner(part) for part in arguments])
    if origin in (typing.Required, typing.NotRequired, typing.Final, typing.ClassVar):
        return inner(arguments[0])
    if isinstance(hint, typing.NewType):
        return inner(hint.__supertype__)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"type": "object", **({"additionalProperties": values} if (values := inner(arguments[1])) else {})}
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [inner(part) for part in arguments],
                "minItems": len(arguments), "maxItems": len(arguments)}  # fmt: skip
    if inspect.isclass(origin) and issubclass(origin, typing.Iterable) and arguments:
        return {"type": "array", **({"items": items} if (items := inner(arguments[0])) else {})}
    if inspect.isclass(hint):
        if issubclass(hint, enum.Enum):
            return {"enum": [_json(member.value) for member in hint]}
        if callable(getattr(hint, "model_json_schema", None)):  # pydantic
            return inline(hint.model_json_schema(), path)
        if typing.is_typeddict(hint):
            fields = typing.get_type_hints(hint, include_extras=True)
            return _object({name: inner(part) for name, part in fields.items()}, hint.__required_keys__)
        if dataclasses.is_dataclass(hint):
            fields = typing.get_type_hints(hint, include_extras=True)
            empty = dataclasses.MISSING
            needed = {field.name for field in dataclasses.fields(hint)
                      if field.default is empty and field.default_factory is empty}  # fmt: skip
            return _object({field.name: inner(fields[field.name]) for field in dataclasses.fields(hint)}, needed)
    raise _Unclear(getattr(hint, "__name__", None) or str(hint))


def _object(properties: dict[str, Any], required: typing.Collection[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [name for name in properties if name in required]}


def _json(value: Any) -> Any:
    """A default or a literal as JSON has it; None when it has it not."""
    if isinstance(value, enum.Enum):
        value = value.value
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each parameter, in the style of Google, NumPy or Sphinx."""
    lines = text.expandtabs().splitlines()
    about, described, at = [], {}, 0
    while at < len(lines):
        line = lines[at]
        if match := re.match(r"\s*:(?:param|parameter|arg|argument)\s+(?:[^:]*\s)?(\*{0,2}\w+)\s*:\s*(.*)", line):
            at, more = _indented(lines, at + 1, _indent(line))
            described[match[1].lstrip("*")] = _joined([match[2], *more])
        elif re.match(r"\s*:\w+[^:]*:", line):
            at, _ = _indented(lines, at + 1, _indent(line))
        elif match := _SECTION.match(line):
            underlined = at + 1 < len(lines) and re.fullmatch(r"\s*[-=]{3,}\s*", lines[at + 1]) is not None
            if not underlined and not line.rstrip().endswith(":"):
                about.append(line)  # a word of the text
                at += 1
                continue
            end, body = _section(lines, at + 1 + underlined, _indent(line), underlined)
            if match[1].casefold() in _LISTS:
                described |= _numpy(body) if underlined else _google(body)
            at = end
        else:
            about.append(line)
            at += 1
    return _joined(about), described


def _section(lines: list[str], at: int, indent: int, underlined: bool) -> tuple[int, list[str]]:
    """The lines of a section from `at` on, and where it ends."""
    start = at
    while at < len(lines):
        line = lines[at]
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if underlined and line.strip() and re.fullmatch(r"\s*[-=]{3,}\s*", following):
            break
        if not underlined and line.strip() and _indent(line) <= indent:
            break
        at += 1
    return at, lines[start:at]


def _google(body: list[str]) -> dict[str, str]:
    """`name (type): description`, longer ones indented further."""
    found, first = {}, min((_indent(line) for line in body if line.strip()), default=0)
    at = 0
    while at < len(body):
        match = re.match(r"\s*\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)", body[at])
        if match and _indent(body[at]) == first:
            at, more = _indented(body, at + 1, first)
            found[match[1]] = _joined([match[2], *more])
        else:
            at += 1
    return found


def _numpy(body: list[str]) -> dict[str, str]:
    """`name : type` and, indented on the next lines, the description."""
    found, at = {}, 0
    while at < len(body):
        match = re.match(r"(\s*)(\*{0,2}\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$", body[at])
        if match and body[at].strip():
            at, more = _indented(body, at + 1, len(match[1]))
            found |= {name.strip().lstrip("*"): _joined(more) for name in match[2].split(",")}
        else:
            at += 1
    return {name: about for name, about in found.items() if about}


def _indented(lines: list[str], at: int, indent: int) -> tuple[int, list[str]]:
    """The lines from `at` on that are indented further, and where they end."""
    start = at
    while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > indent):
        at += 1
    return at, lines[start:at]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
