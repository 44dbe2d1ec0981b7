"""What a tool encoder learns from: requests by the tools that were on offer, as token ids, with what is right."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callwright.data.formats.requests import HELD_BACK, lacking
from callwright.data.records import Example
from callwright.data.spans import Span, spans_of
from callwright.data.tool_texts import described
from callwright.evals.tool_encoder import enumerations, token_ids
from callwright.evals.value_spans import AskedRequest, ask, asked_about, readable
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_json

FEW = 8  # lists of tools: one, at least, is held back, and what is left says something about others
NOTHING_FITS = "abstain:no_tool"  # a tag of examples
NONE = -1  # in the place of a value's number: it was not said


@dataclass(frozen=True)
class ValueChoice:
    """An enumeration that the call to a request could say.

    request: its number in a `ToolList`; asked: what is asked of it, as token ids; values, chosen: numbers of values.
    """

    request: int
    asked: list[int]
    values: list[int]
    chosen: int


@dataclass(frozen=True)
class SpanChoice:
    """An argument that the words of a request could say.

    spans: the tokens, from and to, each of which says it; none: it was not said. right: its values.
    """

    asked: AskedRequest
    spans: list[Span]
    schema: Mapping[str, Any] = field(default_factory=dict)
    right: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class ToolList:
    """Tools that are on offer together, and requests for some of them, or none.

    tools, requests, values: their token ids, the last of the values of enumerations. calls: the numbers of the tools
    that each request wants called; choices, spans: of what it says. held_back: for measuring alone.
    """

    tools: list[list[int]]
    requests: list[list[int]]
    calls: list[list[int]]
    values: list[list[int]] = field(default_factory=list)
    choices: list[ValueChoice] = field(default_factory=list)
    spans: list[SpanChoice] = field(default_factory=list)
    held_back: bool = False


def lists_of(tokenizer: Any, examples: Iterable[Example]) -> list[ToolList]:
    """The examples that want calls, or that no tool fits, by the tools on offer; lists of one tool are left out.

    Raises CallwrightError where fewer than FEW lists are left.
    """
    found: dict[str, list[Example]] = {}
    for example in examples:
        turns = [message["role"] for message in example.messages if message["role"] != "system"]
        if turns != ["user"] or len(example.tools) < 2:
            continue
        if {call["name"] for call in example.calls} <= set(example.tool_names):
            found.setdefault(sha256_json(example.tools), []).append(example)
    found = {tools: listed for tools, listed in found.items() if any(example.calls for example in listed)}
    if len(found) < FEW:
        raise CallwrightError(
            f"a tool encoder learns from requests with calls under {FEW} lists of tools or more: found {len(found)}"
        )
    return [_read(tokenizer, listed) for listed in found.values()]


def _read(tokenizer: Any, listed: Sequence[Example]) -> ToolList:
    functions = {tool["function"]["name"]: tool["function"] for tool in listed[0].tools}
    numbers = {name: place for place, name in enumerate(functions)}
    taken = [example for example in listed if example.calls or NOTHING_FITS in example.tags]
    texts: dict[str, int] = {}
    choices = [found for at, one in enumerate(taken) for found in _choices(tokenizer, functions, at, one, texts)]
    spans = [found for one in listed for found in (_spans if one.calls else _lacking)(tokenizer, functions, one)]
    return ToolList(
        token_ids(tokenizer, [described(function) for function in functions.values()]),
        token_ids(tokenizer, [example.asked for example in taken]),
        [[numbers[call["name"]] for call in example.calls] for example in taken],
        token_ids(tokenizer, list(texts)) if texts else [],
        choices,
        spans,
        any(HELD_BACK in example.tags for example in listed),
    )


def _choices(
    tokenizer: Any, functions: Mapping[str, Any], request: int, example: Example, texts: dict[str, int]
) -> Iterable[ValueChoice]:
    """The enumerations of a request's only call; texts: the numbers of values, by their text."""
    for call in example.calls if len(example.calls) == 1 else []:
        for name, (about, options) in enumerations(functions[call["name"]]).items():
            values = [texts.setdefault(text, len(texts)) for text, _ in options]
            said = call["arguments"].get(name)
            said = said if isinstance(said, list) else [said]
            right = [number for number, (_, value) in zip(values, options, strict=True) if value in said]
            if right or name not in call["arguments"]:
                (asked,) = token_ids(tokenizer, [f"{about}: {example.asked}"])
                yield from (ValueChoice(request, asked, values, number) for number in right or [NONE])


def _spans(tokenizer: Any, functions: Mapping[str, Any], example: Example) -> Iterable[SpanChoice]:
    """What the words of a request say for each call, where no tool is called twice."""
    if len({call["name"] for call in example.calls}) < len(example.calls):
        return
    for place, call in enumerate(example.calls):
        function = functions[call["name"]]
        for name in readable(function):
            schema = function["parameters"]["properties"][name]
            right = _right(example, place, name)
            asked = ask(tokenizer, asked_about(function, name), example.asked)
            found = [span for value in right for span in spans_of(value, schema, example.asked)]
            spans = [span for span in map(asked.tokens, dict.fromkeys(found)) if span is not None]
            if asked.whole and bool(spans) == bool(right):
                yield SpanChoice(asked, spans, schema, right)


def _lacking(tokenizer: Any, functions: Mapping[str, Any], example: Example) -> Iterable[SpanChoice]:
    """What a request that is to be asked back does not say, where only one tool requires it."""
    needs, fitting = lacking(functions, example)
    if needs and len(fitting) == 1:
        function = functions[fitting[0]]
        for name in [name for name in readable(function) if name in needs]:
            asked = ask(tokenizer, asked_about(function, name), example.asked)
            if asked.whole:
                yield SpanChoice(asked, [], function["parameters"]["properties"][name])


def _right(example: Example, place: int, name: str) -> list[Any]:
    """The values of an argument that are right; none where it was not said."""
    if example.possible is not None:
        return [value for value in example.possible[place].get(name, []) if value != ""]
    arguments = example.calls[place]["arguments"]
    return [arguments[name]] if name in arguments else []
