"""Tools from Python functions: names, type hints and defaults give the schema, the docstring the descriptions.

Schemas, defaults and constraints are pydantic's, brought into the normal form (`data.normal_schema`); so is the
reading of arguments, so that a function gets the dates, enumerations and dataclasses that its hints say. The file is
imported, as Python does it, so that type hints mean what they mean there; no function of it is called before the
agent calls it.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pydantic_core
from pydantic.fields import FieldInfo

from callwright.data.normal_schema import SchemaError, normal_schema
from callwright.data.schema import any_of
from callwright.data.tool_sources.docstrings import read_docstring
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_json

DEFINITIONS = "#/$defs/"
LONGEST = 300  # characters of what an import says
_CACHED = type(functools.lru_cache(lambda: None))


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function: its name there, how it is given, what reads its values, and its default if any."""

    name: str
    kind: Any
    adapter: pydantic.TypeAdapter[Any]
    field: FieldInfo


@dataclasses.dataclass(frozen=True, slots=True)
class PythonTool:
    """A function and its definition, an OpenAI tool object; `parameters` by the names that the model gives."""

    definition: dict[str, Any]
    function: Callable[..., Any]
    parameters: dict[str, Parameter]

    @property
    def name(self) -> str:
        """The name that the model calls it by."""
        return self.definition["function"]["name"]

    def call(self, arguments: dict[str, Any]) -> Any:
        """Call the function with JSON's values, read as its hints say; raises what pydantic and the function raise."""
        given = {
            name: self.parameters[name].adapter.validate_json(json.dumps(value)) for name, value in arguments.items()
        }
        positional: list[Any] = []
        named: dict[str, Any] = {}
        missing = None
        for name, parameter in self.parameters.items():
            if name in given:
                value = given[name]
            elif not parameter.field.is_required():
                value = parameter.field.get_default(call_default_factory=True, validated_data={})
            else:
                missing = missing or name
                continue
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                named[parameter.name] = value
        if missing is not None:
            raise TypeError(f"the argument {missing!r} is missing")
        return self.function(*positional, **named)


class _Unclear(Exception):
    """What makes a function no tool."""


def python_tools(path: Path, problems: list[str], annotations: bool = False) -> list[PythonTool]:
    """The public functions of a Python file as tools, in the file's order.

    Those named in `__all__`, or else those without an underscore that the file defines: plain and asynchronous
    functions, decorated ones (whether or not the decorator keeps the signature), caches, partials, and methods of
    objects. `problems` gets a line for each that is left out. Raises CallwrightError when the file cannot be imported,
    and for a name in `__all__` that gives no tool.
    """
    module = _imported(path)
    listed = getattr(module, "__all__", None)
    if listed is not None and not (isinstance(listed, list | tuple) and all(isinstance(one, str) for one in listed)):
        raise CallwrightError(f"{path}: __all__ is {listed!r:.60}, expected a list of names")
    if listed is not None:
        listed = list(dict.fromkeys(map(str, listed)))
        if absent := next((name for name in listed if not hasattr(module, name)), None):
            raise CallwrightError(f"{path}: __all__ lists {absent!r}, which the file does not have")
    defined, assigned, decorators = _bound(path)
    tools, seen = [], set()
    for name, value in list(vars(module).items()):
        if (name not in listed) if listed is not None else name.startswith("_"):
            continue
        try:
            if listed is None and (not _is_function(value, name in defined) or id(value) in seen):
                continue
            seen.add(id(value))
            if listed is None and name in decorators:
                continue  # it makes functions; a tool it is none
            if listed is None and name not in defined and _base(value).__module__ != module.__name__:
                if name in assigned:
                    raise _Unclear(f"it comes from {_base(value).__module__}; name it in __all__ to take it")
                continue
            tools.append(describe(name, value, annotations))
        except _Unclear as error:
            line = getattr(getattr(_base(value), "__code__", None), "co_firstlineno", None)
            where = f"{path}, line {line}" if line and name in defined else f"{path}"
            if listed is not None:
                raise CallwrightError(f"{where}: __all__ lists {name!r}, which gives no tool: {error}") from error
            problems.append(f"{where}, function {name}: {error}")
    return tools


def _imported(path: Path) -> types.ModuleType:
    """The file as a module, under a name of its own; what it imports from its folder is found.

    It stays among the loaded modules: that is where annotations that are texts are looked up.
    """
    digest = sha256_json(str(path.resolve()))[:8]
    name = f"_tools_of_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise CallwrightError(f"{path} is no Python file: functions that can be called stand in one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    without_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder stays as it is
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        line = next((frame.lineno for frame in reversed(inspect.getinnerframes(error.__traceback__) or [])
                     if Path(frame.filename) == path.absolute()), getattr(error, "lineno", None))  # fmt: skip
        where, cure = f", line {line}" if line else "", ""
        what = " ".join(str(error).split())
        if isinstance(error, SyntaxError) and error.msg:
            of = Path(error.filename or path).absolute()
            elsewhere = "" if of == path.absolute() else f" ({of.name}, line {error.lineno})"
            what = error.msg + elsewhere + (f": `{error.text.strip()}`" if (error.text or "").strip() else "")
        if isinstance(error, ModuleNotFoundError):
            cure = f": install it beside callwright ({sys.executable} -m pip install …), or describe the tools as JSON"
        what = f"{type(error).__name__}: {what[:LONGEST]}".removesuffix(": ")
        raise CallwrightError(f"{path}{where}: cannot be imported: {what}{cure}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
        sys.dont_write_bytecode = without_bytecode
    return module


def _bound(path: Path) -> tuple[set[str], set[str], set[str]]:
    """The names that a file defines by `def` at its top level, those that it assigns to, and its decorators'."""
    defined: set[str] = set()
    assigned: set[str] = set()
    decorators: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(path.read_bytes()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
            used = [getattr(each, "func", each) for each in node.decorator_list]
            decorators |= {each.id for each in used if isinstance(each, ast.Name)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            assigned |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif not isinstance(node, ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return defined, assigned, decorators


def _is_function(value: Any, defined: bool) -> bool:
    """Whether a value is a function of some sort; a `def` may have been made any object that can be called."""
    if inspect.isclass(value) or not callable(value):
        return False
    return defined or inspect.isroutine(value) or isinstance(value, functools.partial | _CACHED)


def _base(value: Any) -> Any:
    """The function within partials, methods and wrappers that say what they wrap."""
    for _ in range(32):
        if isinstance(value, functools.partial):
            value = value.func
        elif inspect.ismethod(value):
            value = value.__func__
        elif (wrapped := getattr(value, "__wrapped__", None)) is not None:
            value = wrapped
        else:
            break
    if not inspect.isroutine(value) and not inspect.isclass(value) and callable(value):
        return type(value).__call__
    return value


def _seen_through(name: str, value: Any) -> Any:
    """What a value's parameters are those of: itself, or the function in a wrapper that takes anything."""
    for _ in range(16):
        kinds = [parameter.kind for parameter in _signature(value).parameters.values()]
        if not kinds or not set(kinds) <= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            return value
        held = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _filled(cell)]
        held += vars(value).values() if hasattr(value, "__dict__") else ()
        functions = [inner for inner in held if inspect.isroutine(inner) and hasattr(inner, "__code__")]
        named = [inner for inner in functions if inner.__name__ == name] or functions
        if len(named) != 1:
            raise _Unclear("it takes any arguments (*args, **kwargs), so that nobody knows which it wants; a decorator "
                           "keeps the signature with functools.wraps")  # fmt: skip
        value = named[0]
    return value


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (an empty cell raises)
    except ValueError:
        return False
    return True


def _signature(value: Any) -> inspect.Signature:
    try:
        return inspect.signature(value)
    except (TypeError, ValueError) as error:
        raise _Unclear(f"its parameters are unknown: {error}") from error


def describe(name: str, function: Callable[..., Any], annotations: bool = False) -> PythonTool:
    """A function as a tool; raises _Unclear. annotations: with titles, examples and the like in its schema."""
    if inspect.isclass(function) or not callable(function):
        raise _Unclear(f"it is {'a class' if inspect.isclass(function) else type(function).__name__}, not a function")
    shown = _seen_through(name, function)
    base = _base(shown)
    try:
        hints = typing.get_type_hints(base, include_extras=True)
    except Exception as error:  # noqa: BLE001 (a hint may be any expression)
        raise _Unclear(f"the type hints cannot be read: {error}") from error
    about, described = read_docstring(inspect.getdoc(base) or "")
    parameters: dict[str, Parameter] = {}
    schemas: dict[str, Any] = {}
    for parameter in _signature(shown).parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            hint = hints.get(parameter.name, Any)
            found = _parameter(parameter, hint)
            alias = found.field.validation_alias or found.field.alias
            key = alias if isinstance(alias, str) else parameter.name
            parameters[key] = found
            schemas[key] = {**_notes(hint), **_note(described.get(parameter.name)), **_default(found.field)}
    written = _schemas(parameters, annotations)
    properties = {key: {**written["properties"][key], **schemas[key]} for key in parameters}
    required = [key for key, found in parameters.items() if found.field.is_required()]
    schema = {**written, "properties": properties, "required": required}
    definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    return PythonTool(
        {"type": "function", "function": {"name": name, "description": about, "parameters": {**schema, **definitions}}},
        function,
        parameters,
    )


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    """What pydantic makes of a parameter; raises _Unclear for a type that has no JSON Schema."""
    default = parameter.default
    try:
        with _typed_dicts():
            if default is parameter.empty:
                field = FieldInfo.from_annotation(hint)
            else:
                field = FieldInfo.from_annotated_attribute(hint, default)
            adapter = pydantic.TypeAdapter(Annotated[hint, default] if isinstance(default, FieldInfo) else hint)
            adapter.json_schema()
    except (pydantic.errors.PydanticUserError, pydantic_core.SchemaError, TypeError, NameError, AttributeError,
            RecursionError) as error:  # fmt: skip
        name = getattr(hint, "__name__", None) or str(hint)
        raise _Unclear(
            f"the parameter {parameter.name} has the type {name}, which has no JSON Schema "
            f"({(str(error).splitlines() or [''])[0][:160]}); expected str, int, float, bool, list[…], dict[…], "
            "Literal[…], Optional[…], a dataclass, a TypedDict or the like"
        ) from error
    return Parameter(parameter.name, parameter.kind, adapter, field)


@contextlib.contextmanager
def _typed_dicts() -> Iterator[None]:
    """Let pydantic read `typing.TypedDict` before Python 3.12, too.

    It refuses these there, since generic ones cannot be told from others; they are as those of typing_extensions
    otherwise, and who writes tools need not know.
    """
    from pydantic._internal import _generate_schema

    before = getattr(_generate_schema, "_SUPPORTS_TYPEDDICT", None)
    if before is not None:
        _generate_schema._SUPPORTS_TYPEDDICT = True
    try:
        yield
    finally:
        if before is not None:
            _generate_schema._SUPPORTS_TYPEDDICT = before


def _schemas(parameters: dict[str, Parameter], annotations: bool) -> dict[str, Any]:
    """The schemas of all parameters as one of type object, in the normal form; raises _Unclear."""
    if not parameters:
        return {"type": "object", "properties": {}}
    inputs = [(key, "validation", parameter.adapter) for key, parameter in parameters.items()]
    try:
        with _typed_dicts():
            found, shared = pydantic.TypeAdapter.json_schemas(inputs, ref_template=DEFINITIONS + "{model}")
        properties = {key: found[key, "validation"] for key in parameters}
        whole = {"type": "object", "properties": properties, "$defs": shared.get("$defs", {})}
        return _compact(normal_schema(whole, annotations=annotations))
    except (pydantic.errors.PydanticUserError, SchemaError) as error:
        raise _Unclear(f"its parameters have no JSON Schema: {(str(error).splitlines() or [''])[0][:200]}") from error


def _compact(schema: Any, name: str = "") -> Any:
    """A schema without what says nothing, in fewer words where they say the same; `name`: the keyword it is under."""
    if isinstance(schema, list):
        return [_compact(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if name in ("properties", "$defs", "patternProperties", "dependentSchemas"):
        return {key: _compact(part) for key, part in schema.items()}
    found = {key: part if key in ("default", "enum", "const") else _compact(part, key) for key, part in schema.items()}
    found = {**({"type": found["type"]} if "type" in found else {}), **found}
    if found.get("default", ...) is None:
        found.pop("default")
    if found.get("items") in ({}, True):
        found.pop("items")
    if found.get("additionalProperties") in ({}, True) and "properties" not in found:
        found.pop("additionalProperties")
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "enum" in found and isinstance(found.get("type"), str) and all(_is(found["type"], v) for v in found["enum"]):
        found.pop("type")
    if "anyOf" in found and "type" not in found and "enum" not in found:
        cases = found.pop("anyOf")
        found = (
            {**any_of(cases), **found} if all(isinstance(case, dict) for case in cases) else {**found, "anyOf": cases}
        )
    return found


def _is(kind: str, value: Any) -> bool:
    kinds: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None)}
    return isinstance(value, kinds.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))


def _notes(hint: Any) -> dict[str, str]:
    """The description in `Annotated[str, "…"]`, or in typing_extensions' `Doc`."""
    if typing.get_origin(hint) is not Annotated:
        return {}
    notes = [note if isinstance(note, str) else getattr(note, "documentation", None) for note in hint.__metadata__]
    return _note(next((note for note in notes if isinstance(note, str)), None))


def _note(text: str | None) -> dict[str, str]:
    return {"description": text} if text else {}


def _default(field: FieldInfo) -> dict[str, Any]:
    """`{"default": …}` where there is one that JSON has, and that is not None."""
    if field.is_required() or field.default_factory is not None or field.default is None:
        return {}
    try:
        return {"default": json.loads(json.dumps(pydantic_core.to_jsonable_python(field.default), allow_nan=False))}
    except (pydantic_core.PydanticSerializationError, TypeError, ValueError):
        return {}
