"""A YAML file that knows the line of each of its values, so that a complaint can name it."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from callwright.runtime.errors import CallwrightError

SHOWN = 10  # faults that one message lists
_JSON = re.compile(r"\s*(\{\s*\"|\[\s*\{)")  # how JSON begins, and hardly any YAML


class YamlFault(Exception):
    """What is wrong at one place of the file: `line` (from 1; 0 where unknown) and a sentence."""

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line, self.message = line, message


class Document:
    """One YAML file: `value` as Python sees it, `fault`, which places a complaint, and the `faults` found so far.

    Words are those of YAML 1.2: only true and false are booleans; `on`, `7:30` and `2026-01-31` are text.
    Raises CallwrightError, with file and line, for a file that is not there, not UTF-8 or not YAML, and
    for a key that stands twice in one mapping. text: read in the place of what the file holds.
    """

    def __init__(self, path: Path, text: str | None = None):
        self.path = path
        self.faults: list[YamlFault] = []
        try:
            text = path.read_text(encoding="utf-8-sig") if text is None else text.removeprefix("\ufeff")
        except FileNotFoundError as error:
            raise CallwrightError(f"the toolset {path} does not exist: name a file by `toolset:`") from error
        except OSError as error:
            raise CallwrightError(f"the toolset {path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CallwrightError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
        try:
            self.node, self.value = _read(text, _Fast)
        except (yaml.YAMLError, RecursionError):
            self.node, self.value = self._read_again(text)

    def _read_again(self, text: str) -> tuple[Any, Any]:
        """Read with the slower parser, whose messages are the same on every machine; or say what is wrong as JSON."""
        if (self.path.suffix == ".json" or _JSON.match(text)) and (fault := _json_fault(text)):
            raise CallwrightError(f"{self.path}, {fault}")
        try:
            return _read(text, _Plain)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(self.path)
            what = f"not valid YAML: {error.problem or error.context}"
            if r"'\t'" in what:
                what += "; indent by spaces, not tabs"
            elif "mapping values are not allowed" in what:
                what += "; quote the text if it has a colon"
            elif "{" in _line(text, mark) and re.search(r"got '[{}]'|<block end>|',' or '[]}]'|<stream", what):
                what += '; quote a text with slots, as in `- "{city} tomorrow"`'
            elif "expected <block end>" in what:
                what += "; the indentation of this line fits none above it"
            raise CallwrightError(f"{where}: {what}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise CallwrightError(f"{self.path}: not valid YAML: {str(error).splitlines()[0]}") from error

    def line(self, where: Iterable[Any]) -> int:
        """The line, from 1, of the value at this path of keys and indices, or of the last step that is there."""
        node, mark = self.node, self.node.start_mark if self.node else None
        for step in where:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == str(step)), None)
                if pair is None:
                    break
                mark, node = pair[0].start_mark, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                break
        return mark.line + 1 if mark else 0

    def fault(self, where: tuple[Any, ...], message: str) -> YamlFault:
        """A complaint about the value at this path."""
        key = ".".join(map(str, where))
        return YamlFault(self.line(where), f"{key}: {message}" if key else message)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep a fault of this block among `faults`, and go on after it."""
        try:
            yield
        except YamlFault as fault:
            self.faults.append(fault)

    def error(self) -> CallwrightError:
        """One message for all faults, in the order of the file."""
        faults = self.faults
        lines = [(f"line {fault.line}: " if fault.line else "") + fault.message for fault in faults]
        if len(faults) == 1:
            return CallwrightError(f"{self.path}{', ' if faults[0].line else ': '}{lines[0]}")
        order = sorted(range(len(faults)), key=lambda index: (faults[index].line, index))
        shown = [lines[index] for index in order[:SHOWN]]
        if len(faults) > SHOWN:
            shown.append(f"and {len(faults) - SHOWN} more")
        return CallwrightError("\n  ".join([f"{self.path}: {len(faults)} faults", *shown]))

    def mapping(self, where: tuple[Any, ...], value: Any, keys: set[str] | None = None) -> dict[str, Any]:
        """`value` if it is a mapping with text keys, all of them in `keys`; raises YamlFault otherwise."""
        if not isinstance(value, dict):
            raise self.fault(where, f"found {value!r:.60}, expected a mapping (`key: value`)")
        for key in value:
            if not isinstance(key, str):
                raise self.fault(where, f"the key {key!r} is not text; put it in quotes")
            if keys is not None and key not in keys:
                raise self.fault((*where, key), f"this key is not known; known are {', '.join(sorted(keys))}")
        return value

    def texts(self, where: tuple[Any, ...], value: Any) -> list[str]:
        """`value` if it is a list of non-empty texts; raises YamlFault otherwise."""
        if not isinstance(value, list):
            raise self.fault(where, f"found {value!r:.60}, expected a list (`- text`)")
        for index, item in enumerate(value):
            if not isinstance(item, str) or not item.strip():
                raise self.fault((*where, index), f"found {item!r:.60}, expected text; quote it if it has a colon")
        return value


def tool_files(path: str | Path) -> list[str]:
    """The files that a toolset takes tools and examples from, as paths; none where the toolset cannot be read."""
    path = Path(path)
    try:
        if not re.search(r"^[\"']?(tools_from|examples)\b", path.read_text(encoding="utf-8-sig"), re.M):
            return []
        value = Document(path).value
        parts = [value.get("tools_from"), value.get("examples")]
        listed = [name for part in parts if isinstance(part, list) for name in part]
    except (OSError, ValueError, TypeError, AttributeError, CallwrightError):
        return []  # load_toolset says what is wrong
    return [str(path.parent / name) for name in listed if isinstance(name, str)]


def _json_fault(text: str) -> str | None:
    """Where a text is not valid JSON, and why."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return f"line {text.rstrip().count(chr(10)) + 1}: not valid JSON: it ends here, unfinished"
        return f"line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}"
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return None
    return None


def _line(text: str, mark: Any) -> str:
    """The line of a mark, and the one before it: a fault is often told where the next value begins."""
    lines = text.splitlines()
    return "\n".join(lines[max(0, mark.line - 1) : mark.line + 1]) if mark else ""


class _Plain(yaml.SafeLoader):
    pass


class _Fast(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    pass


for _loader in (_Plain, _Fast):
    _loader.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in [
        ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
        ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
        ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$", "-+0123456789"),
        ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ]:
        _loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _read(text: str, loader_type: Any) -> tuple[Any, Any]:
    loader = loader_type(text)
    try:
        node = loader.get_single_node()
        _reject_double_keys(node)
        return node, loader.construct_document(node) if node else None
    finally:
        loader.dispose()


def _reject_double_keys(node: Any) -> None:
    open_nodes, seen = [node], set()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in seen or node is None:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            open_nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                open_nodes.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark
                    )
                keys.add(key.value)
