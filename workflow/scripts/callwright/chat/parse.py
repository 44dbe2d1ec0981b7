"""Calls out of a model's text: as a stock server would read it, and as leniently as can be."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from callwright.chat.marked import marked_calls
from callwright.chat.pythonic import OutOfWork, Work, python_calls, python_literals
from callwright.chat.strict_json import read_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"
# What bounds the reading of one text; an answer with a hundred calls needs a tenth of it.
BRACKETS = 8_000
BLOCKS = 2_000
WORK = 14_000
# Nothing shorter can hold a call without a label, and a text may have thousands of `{}`.
SHORTEST = len('{"name":"","args":{}}')
# How models name a call's parts, and what they wrap calls in.
NAMES = ("name", "function", "tool", "tool_name", "function_name", "action")
ARGUMENTS = ("arguments", "parameters", "args", "input", "tool_input", "action_input", "kwargs")
LISTS = ("tool_calls", "function_call", "tool_call", "calls", "function_calls")
# What may stand between a tool's name and the object of its arguments.
LABELS = ("<function=", "Action Input:", "[ARGS]", "tool▁sep", "argument_begin|>", "<|message|>")
_LABEL = re.compile(
    r"(?:(?:<function=|\bAction:[ \t]*+|\[TOOL_CALLS\]\s*+|tool▁sep｜>)([\w.\-]++)(?:\[CALL_ID\][\w\-]*+)?"
    r"(?:>|\[ARGS\])?\s*+(?:Action Input:\s*+)?(?:```(?:json)?\s*+)?"
    r"|call▁begin｜>([\w.\-]++)<｜tool▁sep｜>\s*+"  # DeepSeek 3.1
    r"|<\|tool_call_begin\|>\s*+(?:functions\.)?([\w.\-]++)(?::\d++)?\s*+<\|tool_call_argument_begin\|>\s*+"  # Kimi K2
    r"|\bto=(?:functions\.)?([\w.\-]++)[^{]{0,60}<\|message\|>\s*+)$"  # gpt-oss
)
# Between which marks models think aloud.
REASONING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel>thought", "<channel|>"))

_OPENING = re.compile(r"[\[{]")
_STRING = r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+["\n]?'
_INSIDE = re.compile(rf'[^\[\]{{}}"]*+(?:{_STRING}[^\[\]{{}}"]*+)*+[\[\]{{}}]', re.DOTALL)


@dataclass(slots=True)
class Parsed:
    """`calls` ({"name", "arguments"} each, in order), `content` (text outside blocks), `errors` (one per bad block)."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    content: str = ""
    errors: list[str] = field(default_factory=list)


def parse_native(text: str) -> Parsed:
    """Read `text` as `mlx_lm.server` does with its "json_tools" parser (mlx-lm 0.32.2).

    Text from `<tool_call>` to the next `</tool_call>` is one block and holds JSON: a call or a list
    of calls. Stricter than the server in what would break its client: a block must be closed, a
    call must have a string `name` and an object `arguments`, and its values must be JSON proper
    (no NaN, no lone surrogate, at most 64 levels). Never raises; time is linear in the text.
    """
    return parse_blocks(text, OPEN, CLOSE, read_block)


def parse_blocks(text: str, opening: str, closing: str, read: Callable[[str], list[dict[str, Any]]]) -> Parsed:
    """Read `text` with the calls of each block between two marks, as `read` has them, which may raise ValueError.

    Where `closing` is empty, a block goes on to the end of the text.
    """
    parsed = Parsed()
    content = []
    at = blocks = 0
    while (start := text.find(opening, at)) >= 0:
        content.append(text[at:start])
        start += len(opening)
        blocks += 1
        end = (text.find(closing, start) if closing else len(text)) if blocks <= BLOCKS else -1
        if end < 0:
            parsed.errors.append(f"{opening} is not closed" if blocks <= BLOCKS else f"more than {BLOCKS} blocks")
            at = len(text)
            break
        at = end + len(closing)
        try:
            parsed.calls += read(text[start:end])
        except ValueError as error:
            parsed.errors.append(str(error))
    content.append(text[at:])
    parsed.content = "".join(content)
    return parsed


def read_block(block: str) -> list[dict[str, Any]]:
    """The calls of one block; raises ValueError that says what is wrong with it."""
    value = read_json(block.strip())
    return calls_of(value if isinstance(value, list) else [value])


def calls_of(items: list[Any]) -> list[dict[str, Any]]:
    """Items as calls, nothing beside name and arguments; raises ValueError for one that is none."""
    for item in items:
        if not isinstance(item, dict):
            raise ValueError(f"a call must be an object, found {type(item).__name__}")
        if not isinstance(item.get("name"), str):
            raise ValueError("a call must have a `name` that is a string")
        if not isinstance(item.get("arguments"), dict):
            raise ValueError("a call must have `arguments` that are an object")
    return [{"name": item["name"], "arguments": item["arguments"]} for item in items]


def parse_lenient(text: str, tools: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The calls that a reader would see in `text`, whatever they are wrapped in.

    What a model thinks aloud before its answer is left out, unless nothing is called behind it. Calls in marks of a
    family's own first (`chat.marked`); `tools` (OpenAI tool objects), where they are given, say of which type a value
    without quotation marks is. Then JSON: tool-call blocks, Markdown fences, a bare object or list, prose around them,
    the OpenAI form (`function`, `tool_calls`, arguments as JSON text), other names of the same keys (`parameters`,
    `input`, `tool` ...), and arguments after a label (`<function=f>{...}`, `Action: f`, `[TOOL_CALLS]f[ARGS]{...}`). A
    list cut off at its end yields its complete calls. Where there is none, the same written as Python's literals, then
    calls written as Python (`chat.pythonic`). Never raises. The work for one text is bounded: by far more than an
    answer needs, and so that no text of 100 kB takes longer than about 10 ms; what lies behind is not read.
    """
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair, which no file could hold, becomes "?"
    work = Work(WORK)
    calls: list[dict[str, Any]] = []
    try:
        answer = answer_of(text)
        if answer:
            calls = read_leniently(answer, tools, work)
        if not calls:
            calls = read_leniently(text, tools, work, BRACKETS // 4 if answer else BRACKETS)
    except OutOfWork:
        pass
    return calls


def read_leniently(
    text: str, tools: Sequence[dict[str, Any]] | None, work: Work, brackets: int = BRACKETS
) -> list[dict[str, Any]]:
    """The calls of `parse_lenient`; those found so far where the work is used up while JSON is read."""
    if calls := marked_calls(text, tools, work):
        return calls
    try:
        for value, start in json_values(text, work, brackets):
            calls += labelled_call(value, text, start, work) or calls_in(value, work)
        if not calls:
            for value in python_literals(text, work):
                calls += calls_in(value, work)
    except OutOfWork:
        return calls
    return calls or python_calls(text, work)


def answer_of(text: str) -> str:
    """What follows a model's thinking aloud, "" where it has not done so; the opening mark may be in the prompt."""
    for opening, closing in REASONING:
        end = text.find(closing)
        if end >= 0 and (text.find(opening, 0, end) <= 0 or text[: text.find(opening)].isspace()):
            return text[end + len(closing) :]
    return ""


def without_marks(thought: str) -> str:
    """What a model thinks aloud, without the marks around it."""
    thought = thought.strip()
    for opening, closing in REASONING:
        thought = thought.removeprefix(opening).removesuffix(closing).strip()
    return thought


def json_values(text: str, work: Work, brackets: int) -> Iterator[tuple[Any, int]]:
    """The JSON values in `text` that may be or hold a call, and where each begins."""
    shortest = len("{}") if any(mark in text for mark in LABELS) else SHORTEST
    for start, end in json_spans(text, brackets):
        if end - start < shortest:
            continue
        work.spend(9 + (end - start) // 100)
        try:
            yield read_json(text[start:end]), start
        except ValueError:
            work.spend(6)


def labelled_call(value: Any, text: str, start: int, work: Work) -> list[dict[str, Any]]:
    """The call that an object at `start` is the arguments of, when the tool's name stands before it."""
    if not isinstance(value, dict) or not any(text.find(mark, max(0, start - 160), start) >= 0 for mark in LABELS):
        return []
    work.spend(40)
    label = _LABEL.search(text, max(0, start - 160), start)
    return [{"name": label[label.lastindex or 0], "arguments": value}] if label else []


def calls_in(value: Any, work: Work) -> list[dict[str, Any]]:
    """The calls in a JSON value: itself, its items, or what `tool_calls` and the like hold."""
    if isinstance(value, dict):
        if is_plain(value):
            return [{"name": value["name"], "arguments": value["arguments"]}]
        inner = next((value[key] for key in LISTS if isinstance(value.get(key), list | dict)), None)
        value = value if inner is None else inner
    found = []
    for item in [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]:
        if isinstance(item.get("function"), dict):
            item = item["function"]
        if is_plain(item):
            found.append({"name": item["name"], "arguments": item["arguments"]})
            continue
        name = next((item[key] for key in NAMES if isinstance(item.get(key), str)), None)
        arguments = next((item[key] for key in ARGUMENTS if key in item), None)
        if name is None or arguments is None:
            continue
        if isinstance(arguments, str):
            try:
                work.spend(5 + len(arguments) // 100)
                arguments = read_json(arguments) if arguments.strip() else {}
            except ValueError:
                continue
            except OutOfWork:  # what was read counts; the next value that is to be read ends it all
                break
        if isinstance(arguments, dict):
            found.append({"name": name, "arguments": arguments})
    return found


def is_plain(item: dict[str, Any]) -> bool:
    """True for a call as it should be written, and nothing else: what a text may hold by the thousand."""
    return len(item) == 2 and isinstance(item.get("name"), str) and isinstance(item.get("arguments"), dict)


def json_spans(text: str, most: int = BRACKETS) -> list[tuple[int, int]]:
    """The widest balanced `{…}` and `[…]` ranges of `text`, in order, found in one pass.

    Brackets inside JSON strings do not count. A line break ends a string (JSON has none inside),
    so a quotation mark in prose spoils its own line at most. After `most` brackets it stops.
    """
    spans: list[tuple[int, int]] = []
    open_at: list[int] = []
    at = 0
    for _ in range(most):
        found = _INSIDE.match(text, at) if open_at else _OPENING.search(text, at)
        if not found:
            break
        at = found.end()
        character = text[at - 1]
        if character in "[{":
            open_at.append(at - 1)
            continue
        start = open_at.pop()
        if text[start] + character not in ("[]", "{}"):
            open_at.clear()
            continue
        while spans and spans[-1][0] > start:
            spans.pop()
        spans.append((start, at))
    return spans
