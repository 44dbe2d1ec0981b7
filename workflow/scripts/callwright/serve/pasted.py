"""Tools from text that somebody pasted: JSON, an OpenAPI document, or Python functions, of which nothing is executed.

Python is read as syntax alone: names, docstrings, type hints made of the types below, and literal defaults. What needs
more (a class of one's own as a type) is refused with its line; `callwright serve --tools FILE` imports a file instead.
"""

import ast
import datetime
import decimal
import enum
import pathlib
import re
import typing
import uuid
from pathlib import Path
from typing import Any

from callwright.data.records import RecordError, check_json, check_tools
from callwright.data.tool_sources.python import describe
from callwright.data.tool_sources.sources import described
from callwright.data.toolset.yaml_lines import Document
from callwright.runtime.errors import CallwrightError

LONGEST = 200_000  # characters
TYPES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (str, int, float, bool, bytes, list, dict, tuple, set, frozenset, object)},
    **{name: getattr(typing, name) for name in ("Any", "List", "Dict", "Tuple", "Set", "Optional", "Union", "Literal")},
    **{name: getattr(typing, name) for name in ("Annotated", "Sequence", "Iterable", "Mapping")},
    "date": datetime.date, "time": datetime.time, "datetime": datetime.datetime, "Decimal": decimal.Decimal,
    "Path": pathlib.Path, "UUID": uuid.UUID, "None": None,
}  # fmt: skip


class PasteError(Exception):
    """What is wrong with the text: `line` from 1 (0 where unknown), and a sentence."""

    def __init__(self, message: str, line: int = 0):
        super().__init__(message)
        self.message, self.line = message, line


def read_tools(text: str, place: Path) -> list[dict[str, Any]]:
    """The tools of a text as checked OpenAI tool objects; raises PasteError with the line of what is wrong.

    place: a path in a folder of one's own, where the text may be written to so that its lines can be told.
    """
    if len(text) > LONGEST:
        raise PasteError(f"the text has {len(text)} characters, at most {LONGEST} are read")
    if not text.strip():
        raise PasteError("the text is empty: paste Python functions, a JSON list of tools, or an OpenAPI document")
    found = python_functions(text) if looks_like_python(text) else document(text, place)
    if not found:
        raise PasteError("there is no tool in it: expected Python functions, a JSON list of tools, or OpenAPI 3")
    try:
        check_json(found)
        check_tools(found)
    except RecordError as error:
        raise PasteError(error.reason) from error
    return found


def looks_like_python(text: str) -> bool:
    """Whether a text is rather Python than JSON or YAML."""
    return bool(re.search(r"^\s*(async\s+)?def\s+\w+\s*\(", text, re.M))


def document(text: str, place: Path) -> list[dict[str, Any]]:
    """The tools of JSON or YAML."""
    path = place.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    try:
        problems: list[str] = []
        found = described(Path("the text"), Document(path).value, problems)
        if problems:
            raise PasteError(problems[0].removeprefix("the text: "))
        return found
    except CallwrightError as error:
        message = str(error).replace(str(path), "the text")
        line = re.search(r"line (\d+)", message)
        raise PasteError(message, int(line.group(1)) if line else 0) from error
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        raise PasteError(f"it is not built as descriptions of tools are: {error}") from error
    finally:
        path.unlink(missing_ok=True)


def python_functions(text: str) -> list[dict[str, Any]]:
    """The public functions of Python source, by its syntax."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", str(error))
        raise PasteError(f"not valid Python: {reason}", getattr(error, "lineno", 0) or 0) from error
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            try:
                found.append(describe(node.name, stand_in(node)).definition)
            except PasteError:
                raise
            except Exception as error:  # noqa: BLE001 (a hint of known types may still make no schema)
                raise PasteError(f"{node.name} makes no tool: {str(error)[:200]}", node.lineno) from error
    return found


def stand_in(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Any:
    """A function with the name, parameters, hints and docstring of the source, and an empty body."""
    body: list[ast.stmt] = [ast.Pass()]
    if docstring := ast.get_docstring(node, clean=False):
        body.insert(0, ast.Expr(ast.Constant(docstring)))
    given = node.args
    for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]:
        if argument is not None and argument.annotation is not None:
            argument.annotation = hint(argument.annotation)
    given.defaults = [literal(default) for default in given.defaults]
    given.kw_defaults = [default and literal(default) for default in given.kw_defaults]
    plain = ast.FunctionDef(name=node.name, args=given, body=body, decorator_list=[], returns=None, type_params=[])
    module = ast.fix_missing_locations(ast.Module(body=[plain], type_ignores=[]))
    space: dict[str, Any] = {**TYPES, "__builtins__": {}}
    try:
        exec(compile(module, "the text", "exec"), space)  # a definition of names that were checked above; no body
    except Exception as error:  # noqa: BLE001 (a hint such as `dict[str]` may raise anything)
        raise PasteError(f"the type hints of {node.name} cannot be read: {error}", node.lineno) from error
    return space[node.name]


def hint(node: ast.expr) -> ast.expr:
    """A type hint made of known names alone; raises PasteError for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return hint(ast.parse(node.value, mode="eval").body)
        except PasteError as error:
            raise PasteError(error.message, node.lineno) from error
        except (SyntaxError, ValueError) as error:
            raise PasteError(f"the type hint {node.value!r:.60} cannot be read", node.lineno) from error
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in TYPES:  # typing.Any
        return hint(ast.Name(node.attr, ast.Load(), lineno=node.lineno, col_offset=node.col_offset))
    if isinstance(node, ast.Name):
        if node.id not in TYPES:
            raise PasteError(
                f"the type {node.id!r} is not known here: nothing of the text is executed. Start the server with "
                "--tools FILE, or paste the tools as JSON",
                node.lineno,
            )
        return node
    if isinstance(node, ast.Constant) and node.value is None:
        return node
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return ast.Subscript(
            ast.Name("Union", ast.Load()), ast.Tuple([hint(node.left), hint(node.right)], ast.Load()), ast.Load()
        )
    if isinstance(node, ast.Subscript):
        base = hint(node.value)
        if isinstance(base, ast.Name) and base.id == "Literal":
            return ast.Subscript(base, literal(node.slice), ast.Load())
        if isinstance(base, ast.Name) and base.id == "Annotated":
            inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
            return hint(inner)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        made = [part if isinstance(part, ast.Constant) and part.value is ... else hint(part) for part in parts]
        return ast.Subscript(base, made[0] if len(made) == 1 else ast.Tuple(made, ast.Load()), ast.Load())
    raise PasteError("a type hint is neither a known type nor made of some", getattr(node, "lineno", 0))


def literal(node: ast.expr) -> ast.expr:
    """A literal as it stands; a default that is anything else counts as None."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ast.Constant(None)
    return node if not isinstance(value, enum.Enum) else ast.Constant(None)
