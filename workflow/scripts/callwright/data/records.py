"""The canonical record: one request, the tools on offer, and the calls that answer it."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callwright.data import schema
from callwright.runtime.files import read_jsonl

ROLES = ("system", "user", "assistant", "tool")
MAX_DEPTH = 64  # levels of nesting in a record
MAX_STRING = 100_000  # characters of one string
MAX_INTEGER = 2**63 - 1  # what JSON writers and readers agree on
ANY_CALL = "expects:any_call"  # the tag of an item that expects some call, whichever; its `calls` are empty
# A record is told apart by these tags: which pool of a split it belongs to (`callwright.data.split`).
POOL_TRAIN, POOL_VALID, POOL_TEST, POOL_UNSEEN = "pool:train", "pool:valid", "pool:test", "pool:unseen_tools"

TOOL_NAME = re.compile(r"[\w.:/\-]{1,128}")  # that a server takes
NAMES = "a server takes names of up to 128 letters, digits and `_.:/-`"

_SURROGATE = re.compile("[\ud800-\udfff]")


class RecordError(Exception):
    """A record that cannot be used: `rule` names the check that it failed, `reason` says what was found."""

    def __init__(self, rule: str, reason: str):
        super().__init__(f"{rule}: {reason}")
        self.rule, self.reason = rule, reason


@dataclass(frozen=True, slots=True)
class Example:
    """A request and its answer.

    id        unique in its data set
    messages  OpenAI messages up to where the assistant answers: they end with a request of the user, or with
              the results of the calls before. One example trains one turn of the assistant, so that its
              prompt is what a server renders of the same messages; a conversation in which several turns
              call tools becomes as many examples, with the tag `conversation:<record id>` in common
    tools     OpenAI tool objects; `function.parameters` is a JSON Schema of type object
    calls     the calls to make, `{"name", "arguments"}` each; empty: abstain, and say `answer`
    source    where it comes from
    tags      what it is, for strata and counts: `domain:weather`, `calls:1`, `calls:2+`, `abstain:no_tool` ...
    answer    what to say when there is no call; None leaves it to the chat format
    possible  for each call the values that are right of each argument, "" if it may be left out, as BFCL lists
              them; None where the values of `calls` are the only ones
    """

    id: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    source: str
    tags: tuple[str, ...] = ()
    answer: str | None = None
    possible: list[dict[str, list[Any]]] | None = None

    @classmethod
    def from_row(cls, row: Any) -> "Example":
        """An example from a JSON value, checked in full; raises RecordError with rule and reason.

        Rules, in this order: too_deep, too_large, not_finite, invalid_utf8, wrong_type (these for any
        JSON value); missing_field, wrong_type, empty_query, no_tools, bad_tool, duplicate_tool;
        unknown_tool, missing_argument, schema. With `possible` the calls are not held against the tools' schemas:
        these answers decide, and some of BFCL's break its own schemas.
        """
        check_json(row)
        if not isinstance(row, dict):
            raise RecordError("wrong_type", f"the record is {kind(row)}, expected an object")
        example = cls(
            id=_field(row, "id", str),
            messages=_field(row, "messages", list),
            tools=_field(row, "tools", list),
            calls=_field(row, "calls", list),
            source=_field(row, "source", str, default=""),
            tags=tuple(_field(row, "tags", list, default=[])),
            answer=_field(row, "answer", str, default=None),
            possible=_field(row, "possible", list, default=None),
        )
        if not all(isinstance(tag, str) for tag in example.tags):
            raise RecordError("wrong_type", "a tag is not text")
        check_messages(example.messages)
        parameters = check_tools(example.tools)
        if example.possible is None:
            check_calls(example.calls, parameters)
        else:
            check_possible(example.calls, example.possible)
        return example

    @classmethod
    def trusted(cls, row: dict[str, Any]) -> "Example":
        """An example from a row that `to_row` made: nothing is checked again."""
        return cls(**{**row, "tags": tuple(row["tags"])})

    def to_row(self) -> dict[str, Any]:
        """The example as a JSON-able dict; `answer` and `possible` are left out when there are none."""
        row = {
            "id": self.id,
            "messages": self.messages,
            "tools": self.tools,
            "calls": self.calls,
            "answer": self.answer,
            "source": self.source,
            "tags": list(self.tags),
            "possible": self.possible,
        }
        return {key: value for key, value in row.items() if key not in ("answer", "possible") or value is not None}

    @property
    def query(self) -> str:
        """The user's request: the text of the user's last message."""
        return text_of(next(message for message in reversed(self.messages) if message["role"] == "user"))

    @property
    def asked(self) -> str:
        """What the assistant answers: all that the user said and that tools returned, in order."""
        return "\n".join(text_of(message) for message in self.messages if message["role"] in ("user", "tool"))

    @property
    def conversation(self) -> str | None:
        """The tag of the conversation that this example is one turn of; None for a record of its own."""
        return next((tag for tag in self.tags if tag.startswith("conversation:")), None)

    @property
    def tool_names(self) -> list[str]:
        """Names of the tools on offer, in their order."""
        return [tool["function"]["name"] for tool in self.tools]

    @property
    def kind(self) -> str:
        """`one`, `several` or `none`: how many calls answer the request."""
        return "none" if not self.calls else "one" if len(self.calls) == 1 else "several"

    @property
    def stratum(self) -> str:
        """`one`, `several`, or why there is no call (`abstain:missing` ...): what sampling and splits balance."""
        return next((tag for tag in self.tags if tag.startswith("abstain:")), self.kind)


def read_examples(*paths: str | Path) -> list[Example]:
    """The examples of files that the workflow wrote, in order.

    Foreign records are checked where they come in (`Example.from_row`), not again here.
    """
    return [Example.trusted(row) for path in paths for row in read_jsonl(path)]


def read_suites(paths: Iterable[str | Path]) -> dict[str, list[Example]]:
    """The examples of each of the workflow's files, by the file's name without its suffix."""
    return {Path(path).stem: read_examples(path) for path in paths}


def check_json(value: Any) -> None:
    """Raise RecordError unless `value` is JSON that any reader takes: finite, bounded, plain Unicode.

    Works level by level, without recursion, so depth cannot exhaust the stack.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item)
                inner.extend(item.values())
                if not all(isinstance(key, str) for key in item):
                    raise RecordError("wrong_type", "an object has a key that is not text")
            elif isinstance(item, list | tuple):
                inner.extend(item)
            elif isinstance(item, str):
                if len(item) > MAX_STRING:
                    raise RecordError("too_large", f"a string of {len(item)} characters, at most {MAX_STRING} allowed")
                if not item.isascii() and _SURROGATE.search(item):
                    raise RecordError("invalid_utf8", "a string has half a surrogate pair")
            elif isinstance(item, float):
                if not math.isfinite(item):
                    raise RecordError("not_finite", f"{item} is not a JSON number")
            elif isinstance(item, int) and not isinstance(item, bool):
                if abs(item) > MAX_INTEGER:
                    raise RecordError("wrong_type", "an integer of more than 64 bits")
            elif item is not None and not isinstance(item, bool):
                raise RecordError("wrong_type", f"{type(item).__name__} is not a JSON value")
        if not inner:
            return
        level = inner
    raise RecordError("too_deep", f"nested more than {MAX_DEPTH} levels deep")


def check_messages(messages: list[Any]) -> None:
    """Raise RecordError unless these are OpenAI messages after which it is the assistant's turn to answer."""
    for message in messages:
        if not isinstance(message, dict):
            raise RecordError("wrong_type", f"a message is {kind(message)}, expected an object")
        if message.get("role") not in ROLES:
            raise RecordError("wrong_type", f"a message's role is {short(message.get('role'))}, expected {ROLES}")
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if not isinstance(content, str | list | None) or not all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in parts
        ):
            raise RecordError("wrong_type", f"a message's content is {kind(content)}, expected text")
        made = message.get("tool_calls")
        if not isinstance(made, list | None):
            raise RecordError("wrong_type", "a message's tool_calls are not a list")
        for call in made or []:
            _check_made_call(call)
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise RecordError("empty_query", "the last message is neither a request of the user nor a tool's result")
    asking = [message for message in messages if message["role"] == "user"]
    if not asking or not text_of(asking[-1]).strip():
        raise RecordError("empty_query", "the last message is not a request of the user with some text")


def _check_made_call(call: Any) -> None:
    """Raise RecordError unless a call in the history is one that chat templates can write."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RecordError("wrong_type", "a call among a message's tool_calls is not an object with a `name`")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
            check_json(arguments)
        except (ValueError, RecursionError) as error:
            raise RecordError("wrong_type", f"the arguments of an earlier call are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise RecordError("wrong_type", f"the arguments of an earlier call are {kind(arguments)}, expected an object")


def check_tools(tools: list[Any]) -> dict[str, dict[str, Any]]:
    """Each tool's schema of parameters by name; raises RecordError unless these are OpenAI tool objects."""
    if not tools:
        raise RecordError("no_tools", "the record lists no tool")
    parameters: dict[str, dict[str, Any]] = {}
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise RecordError("bad_tool", "a tool is not an object with a `function`")
        name = function.get("name")
        if not isinstance(name, str) or not name.strip():
            raise RecordError("bad_tool", f"a tool's name is {short(name)}, expected text")
        if name in parameters:
            raise RecordError("duplicate_tool", f"the tool {short(name)} is listed twice")
        if not isinstance(function.get("description", ""), str):
            raise RecordError("bad_tool", f"the description of {short(name)} is not text")
        found = function.get("parameters")
        if not isinstance(found, dict) or found.get("type") != "object":
            raise RecordError("bad_tool", f"the parameters of {short(name)} are no JSON Schema of type object")
        if problem := schema.problem(found):
            raise RecordError("bad_tool", f"the parameters of {short(name)}: {problem}")
        parameters[name] = found
    return parameters


def check_calls(calls: list[Any], parameters: dict[str, dict[str, Any]]) -> None:
    """Raise RecordError unless every call is to a tool of `parameters` and satisfies its schema."""
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise RecordError("wrong_type", "a call is not an object with a `name`")
        name, arguments = call["name"], call.get("arguments")
        if name not in parameters:
            raise RecordError("unknown_tool", f"a call to {short(name)}, which is not listed")
        if not isinstance(arguments, dict):
            raise RecordError("wrong_type", f"the arguments of {short(name)} are {kind(arguments)}, expected an object")
        required = parameters[name].get("required", [])
        if missing := [argument for argument in required if argument not in arguments]:
            raise RecordError("missing_argument", f"the call to {short(name)} lacks {', '.join(map(short, missing))}")
        if problem := schema.validate(arguments, parameters[name]):
            raise RecordError("schema", f"the call to {short(name)}: {problem}")


def check_possible(calls: list[Any], possible: list[Any]) -> None:
    """Raise RecordError unless each call has a name, arguments, and lists of the values that are right for these."""
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise RecordError("wrong_type", "a call is not an object with a `name`")
        if not isinstance(call.get("arguments"), dict):
            raise RecordError("wrong_type", f"the arguments of {short(call['name'])} are not an object")
    if len(possible) != len(calls):
        raise RecordError("wrong_type", f"`possible` has {len(possible)} entries for {len(calls)} calls")
    for arguments in possible:
        if not isinstance(arguments, dict) or not all(isinstance(values, list) for values in arguments.values()):
            raise RecordError("wrong_type", "an entry of `possible` is not an object of lists")


def text_of(message: dict[str, Any]) -> str:
    """A message's text, be its content a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


def kind(value: Any) -> str:
    """A JSON value's type as a reader calls it."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def short(value: Any, limit: int = 60) -> str:
    """`repr` of a value, cut for a message."""
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit + 2 else text[:limit] + "…"


def normalize(query: str) -> str:
    """A request without case, punctuation and spacing: requests that agree in this are the same request."""
    return " ".join(re.findall(r"\w+", query.casefold())) or query.strip()


def skeleton(query: str) -> str:
    """A request without its quoted parts and numbers too: what near duplicates have in common."""
    # A single quotation mark opens before a word and closes after one: the apostrophes in What's and I'm do not quote.
    masked = re.sub(r"(?<!\w)'(?:[^']|'(?=\w)){0,200}'(?!\w)|\"[^\"]{0,200}\"|“[^”]{0,200}”", " Q ", query)
    return normalize(re.sub(r"\d+", "0", masked))


def _field(row: dict[str, Any], name: str, expected: type, default: Any = ...) -> Any:
    value = row.get(name)
    if value is None:
        if default is ...:
            raise RecordError("missing_field", f"the field {name!r} is missing")
        return default
    if not isinstance(value, expected):
        wanted = kind(expected())
        raise RecordError("wrong_type", f"the field {name!r} is {kind(value)}, expected {wanted}")
    return value
