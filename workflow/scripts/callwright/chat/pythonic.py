"""Calls written as Python: `f(x=1, y="a")`, alone, in a list, printed, in a `tool_code` block; and Python's literals.

Nothing is evaluated: a small reader takes literals and keyword arguments and nothing else.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

from callwright.chat.strict_json import MAX_DEPTH

# Prefixes that models put before a tool's name: Gemini's module, OpenAI's namespace.
_MODULE = re.compile(r"(?:default_api|functions|tools)\.")
_CALL = re.compile(r"(?<![\w.\-])([A-Za-z_][\w.\-]*+)[ \t]*+\(")
_OPENING = re.compile(r"[\[{]")
_TOKEN = re.compile(
    r"""\s*+(?:
      (?P<string>[rRuUbB]?(?:'''(?:[^'\\]|\\.|'(?!''))*+'''|\"""(?:[^"\\]|\\.|"(?!""))*+\"""
                           |'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+"))
    | (?P<number>[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?(?![\w.]))
    | (?P<name>[A-Za-z_][\w\-]*+)
    | (?P<sign>[()\[\]{},:=])
    )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
# Around a call without arguments, which elsewhere, in prose or in a program, is only a name: it is all there is, or
# in a list, printed, or first in a block of code.
_ALONE_BEFORE = re.compile(r"(?:^|[\[,]|print\(|```\w*+\n|<tool_code>)\s*$")
_ALONE_AFTER = re.compile(r"\s*+(?:$|[\],)]|```|</tool_code>|[A-Za-z_][\w.\-]*+\()")


class Work:
    """How much may still be done for one text, so that a hostile one takes no longer than others."""

    def __init__(self, units: int):
        self.left = units

    def spend(self, units: int) -> None:
        """Take units away; raises OutOfWork when none are left."""
        self.left -= units
        if self.left < 0:
            raise OutOfWork


class OutOfWork(Exception):
    """A text asked for more than any answer of a model needs."""


def python_calls(text: str, work: Work) -> list[dict[str, Any]]:
    """The calls with keyword arguments in `text`, in order; those found so far where the work is used up."""
    calls: list[dict[str, Any]] = []
    reader = _Reader(text, work)
    at = last = 0
    try:
        while found := _CALL.search(text, at):
            work.spend(4)
            at = found.end()
            try:
                arguments, end = reader.arguments(at)
            except ValueError:
                continue  # what stands inside may still be calls: print(f(x=1))
            gap = found.start() - last
            follows = bool(calls) and gap < 100 and not text[last : found.start()].strip()
            if arguments or _stands_alone(text, found.start(), end, follows):
                calls.append({"name": _MODULE.sub("", found[1], count=1), "arguments": arguments})
                at = last = end
    except OutOfWork:
        pass
    return calls


def python_literals(text: str, work: Work) -> Iterator[Any]:
    """The lists and dictionaries in `text` that are Python literals, JSON's words allowed too; the widest ones.

    Raises OutOfWork.
    """
    reader = _Reader(text, work)
    at = 0
    while found := _OPENING.search(text, at):
        work.spend(4)
        at = found.end()
        try:
            value, at = reader.value(found.start(), 0)
        except ValueError:
            continue
        yield value


def _stands_alone(text: str, start: int, end: int, follows: bool) -> bool:
    """True when the text from `start` to `end` is a call by its surroundings; `follows`: right after another one."""
    before = max(0, start - 40)
    opened = _ALONE_BEFORE.search(text[before:start]) if before == 0 or text[before:start].strip() else None
    return (follows or bool(opened)) and bool(_ALONE_AFTER.match(text, end))


class _Reader:
    """Reads literals from a position on; each method returns what it read and where it ended, or raises ValueError."""

    def __init__(self, text: str, work: Work):
        self.text, self.work = text, work

    def token(self, at: int) -> tuple[str, str, int]:
        found = _TOKEN.match(self.text, at)
        if not found:
            self.work.spend(2)
            raise ValueError("no literal")
        end = found.end()
        self.work.spend(3 + (end - at) // 64)
        return found.lastgroup or "", found[found.lastgroup or 0], end

    def arguments(self, at: int) -> tuple[dict[str, Any], int]:
        """Keyword arguments up to and including the closing parenthesis."""
        arguments: dict[str, Any] = {}
        while True:
            kind, name, at = self.token(at)
            if name == ")" and kind == "sign":
                return arguments, at
            if kind != "name" or name in arguments:
                raise ValueError("no keyword argument")
            kind, sign, at = self.token(at)
            if kind != "sign" or sign != "=":
                raise ValueError("no keyword argument")
            arguments[name], at = self.value(at, 0)
            _, sign, at = self.token(at)
            if sign == ")":
                return arguments, at
            if sign != ",":
                raise ValueError("no comma between the arguments")

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        kind, word, end = self.token(at)
        if kind == "string":
            return self.string(word), end
        if kind == "number":
            return _number(word), end
        if kind == "name":
            if word not in _WORDS:
                raise ValueError("a name is no literal")
            return _WORDS[word], end
        if depth >= MAX_DEPTH:
            raise ValueError("nested too deeply")
        if word in "[(":
            return self.sequence(end, "]" if word == "[" else ")", depth + 1)
        if word == "{":
            return self.mapping(end, depth + 1)
        raise ValueError("no literal")

    def sequence(self, at: int, close: str, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        while True:
            _, word, end = self.token(at)
            if word == close:
                return items, end
            if items:
                if word != ",":
                    raise ValueError("no comma between the items")
                _, word, after = self.token(end)
                if word == close:  # a comma after the last item
                    return items, after
                at = end
            item, at = self.value(at, depth)
            items.append(item)

    def mapping(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        items: dict[str, Any] = {}
        while True:
            kind, word, end = self.token(at)
            if word == "}" and kind == "sign":
                return items, end
            if items:
                if word != "," or kind != "sign":
                    raise ValueError("no comma between the items")
                kind, word, end = self.token(end)
                if word == "}" and kind == "sign":
                    return items, end
            if kind != "string":
                raise ValueError("a key is no text")
            key = self.string(word)
            kind, word, end = self.token(end)
            if word != ":" or kind != "sign":
                raise ValueError("no value after the key")
            items[key], at = self.value(end, depth)

    def string(self, word: str) -> str:
        """The value of a string literal; only one with a backslash has to be parsed."""
        quote = 3 if word[-3:] in ("'''", '"""') and len(word) >= 6 else 1
        if word[0] in "'\"" and "\\" not in word:
            return word[quote:-quote]
        self.work.spend(30 + len(word) // 16)
        try:
            value = ast.literal_eval(word)
        except (SyntaxError, ValueError, MemoryError) as error:
            raise ValueError("no string literal") from error
        if not isinstance(value, str) or not value.isascii() and re.search("[\ud800-\udfff]", value):
            raise ValueError("no text")
        return value


def _number(word: str) -> int | float:
    value = int(word) if word.lstrip("+-").isdigit() else float(word)
    if value in (float("inf"), float("-inf")):
        raise ValueError("not finite")
    return value
