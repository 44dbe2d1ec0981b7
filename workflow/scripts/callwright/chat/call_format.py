"""The form in which a model calls tools: how its answers are written, read and laid out for a grammar.

| form | calls are written by | and read by |
|---|---|---|
| hermes | us (`formats.encode_calls`), one `<tool_call>` block each | us, as `mlx_lm.server` reads them |
| fenced, fenced_ids | us, as a JSON list in a Markdown fence | us |
| a parser of mlx-lm (`mistral`, `pythonic`, `qwen3_coder`, …) | the model's own chat template | that parser |

Which one a model has is found once, when it is converted (`chat.own_form`), and stands in its `tokenizer_config.json`;
`form_of` takes it from there, so that whoever has the tokenizer has the form. Stored answers carry the form's name.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from callwright.chat import parse
from callwright.chat.formats import encode_calls, to_json
from callwright.chat.parse import Parsed
from callwright.chat.strict_json import read_json
from callwright.runtime.errors import CallwrightError

KEY = "call_format"  # in tokenizer_config.json and in stored answers
# After a parser's name: the prompt itself opens the model's thinking aloud, so that its answer only closes it.
THINKING = "+think"
# After that: a line of reasons is thought aloud before the calls; where nothing is called, it is what the model says.
REASONED = "+reasons"
REASONS = "call_reasons"  # in tokenizer_config.json: the model was taught to write a line of reasons before its calls
NUMBER, ID = "⟨number⟩", "⟨id⟩"  # in a layout: what differs from call to call

Call = dict[str, Any]
Tools = Sequence[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class CallLayout:
    """The text of an answer with calls: `lead first NAME between ARGUMENTS (join NAME between ARGUMENTS)* last`.

    lead       stands before words and calls alike (a closed `<think>`), mostly empty
    nothing    what stands in place of words where no tool is called: an empty list of calls; mostly empty, for words
    arguments  "json" with ", " and ": ", "compact" JSON without blanks, or "python" (`x=1, y='a'`)
    """

    first: str
    between: str
    join: str
    last: str
    arguments: str = "json"
    lead: str = ""
    nothing: str = ""


@dataclass(frozen=True, slots=True)
class CallFormat:
    """One form. `opening` and `closing` are around a block of calls; an empty `closing` is the end of the answer.

    own     the model's own chat template writes the answers
    layout  what a grammar may speak; None where there is no grammar for the form
    """

    name: str
    opening: str = parse.OPEN
    closing: str = parse.CLOSE
    own: bool = False
    layout: CallLayout | None = None

    @property
    def mark(self) -> dict[str, str]:
        """What a stored answer has beside its text, so that it can be read without the model."""
        return {KEY: self.name} if self.own else {}

    @property
    def opens_thinking(self) -> bool:
        """Whether the prompt opens the thinking that an answer closes."""
        return THINKING in self.name

    @property
    def reasons(self) -> bool:
        """Whether the model thinks aloud for a line before its calls: where their values come from."""
        return self.name.endswith(REASONED)

    def read_block(self, block: str, tools: Tools = None) -> list[Call]:
        """The calls of one block, the text between `opening` and `closing`; raises ValueError that says what is wrong.

        tools: OpenAI tool objects, by which some forms tell text from numbers.
        """
        parser = parser_of(self.name)
        if parser in ("fenced", "fenced_ids"):  # the list without its brackets
            items = [item.get("function", item) if isinstance(item, dict) else item for item in read_json(f"[{block}]")]
            return parse.calls_of(items)
        if not self.own or parser == "json_tools":
            return parse.read_block(block)
        try:
            value = mlx_parser(parser).parse_tool_call(block, list(tools) if tools else None)
        except Exception as error:  # whatever a text does to a parser that is not ours
            reason = (str(error).splitlines() or [""])[0][:200]
            raise ValueError(f"not a call of the form {parser}: {reason or type(error).__name__}") from error
        return [plain(call) for call in (value if isinstance(value, list) else [value])]

    def read(self, text: str, tools: Tools = None) -> Parsed:
        """The calls, words and errors of an answer, as a server reads it. Never raises."""
        if not self.own:
            return parse.parse_native(text)
        if (said := self.after_thinking(text)) is None:  # a call that it comes to is one all the same
            said = text[start:] if (start := text.find(self.opening)) >= 0 else None
        if said is None:
            return Parsed(errors=["the model never ends its thinking"])
        found = parse.parse_blocks(said, self.opening, self.closing, lambda block: self.read_block(block, tools))
        if self.reasons and not (found.calls or found.errors or found.content.strip()):
            found.content = parse.without_marks(text[: len(text) - len(said)])
        return found

    def after_thinking(self, text: str) -> str | None:
        """An answer without what the model thinks aloud before it; None where that has no end."""
        for opening, closing in parse.REASONING:
            start = text.lstrip()
            if start.startswith(opening) or (self.opens_thinking and closing in text):
                end = text.find(closing)
                return text[end + len(closing) :] if end >= 0 else None
        return None if self.opens_thinking else text


HERMES = CallFormat(
    "hermes",
    layout=CallLayout('<tool_call>\n{"name": "', '", "arguments": ', '}\n</tool_call>\n<tool_call>\n{"name": "',
                  "}\n</tool_call>"),
)  # fmt: skip
_IDS = f'{{"id": "call_{NUMBER}", "type": "function", "function": {{"name": "'
OURS = {
    "hermes": HERMES,
    "fenced": CallFormat("fenced", "```json\n[", "]\n```", layout=CallLayout(
        '```json\n[{"name": "', '", "arguments": ', '}, {"name": "', "}]\n```")),
    "fenced_ids": CallFormat("fenced_ids", "```json\n[", "]\n```", layout=CallLayout(
        f"```json\n[{_IDS}", '", "arguments": ', f"}}}}, {_IDS}", "}}]\n```")),
}  # fmt: skip


def form_of(tokenizer: Any, style: str = "hermes") -> CallFormat:
    """The form of a model's answers: a form of ours that the run asks for (`data.format`), else the model's own.

    Raises CallwrightError for a form that is not known here.
    """
    facts = (getattr(tokenizer, "init_kwargs", None) or {}).get(KEY)
    if style != "hermes" or not facts:
        if style not in OURS:
            raise ValueError(f"unknown style {style!r}, expected one of {tuple(OURS)}")
        return OURS[style]
    form = named(facts["name"])
    layout = facts.get("layout")
    return replace(form, layout=CallLayout(**layout)) if layout else form


@lru_cache
def named(name: str) -> CallFormat:
    """The form of a stored name, without its layout if it is a model's own; raises CallwrightError for another."""
    if name in OURS:
        return OURS[name]
    parser = mlx_parser(parser_of(name))
    return CallFormat(name, parser.tool_call_start, parser.tool_call_end, own=True)


def parser_of(name: str) -> str:
    """mlx-lm's name of the parser of a form."""
    return name.removesuffix(REASONED).removesuffix(THINKING)


@lru_cache
def mlx_parser(name: str) -> Any:
    """mlx-lm's parser of that name: a module with `parse_tool_call`, `tool_call_start` and `tool_call_end`."""
    try:
        return importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    except ImportError as error:
        raise CallwrightError(
            f"calls are in the form {name!r}, for which this mlx-lm has no parser (mlx_lm.tool_parsers): use a newer "
            "mlx-lm, or convert the model again with `model.call_format: hermes`"
        ) from error


def read_answer(row: dict[str, Any], tools: Tools = None) -> Parsed:
    """A stored answer (`text`, and `call_format` where it is not hermes), as a server reads it.

    The arguments of its calls are those of `completed`, where these are there. Calls that were held back (`held_back`,
    their places) are not in it; where none is left, its content is `question`.
    """
    parsed = named(row.get(KEY) or "hermes").read(row["text"], tools)
    if "completed" in row:
        pairs = zip(parsed.calls, row["completed"], strict=True)
        parsed = replace(parsed, calls=[{**call, "arguments": arguments} for call, arguments in pairs])
    if not row.get("held_back"):
        return parsed
    left = [call for place, call in enumerate(parsed.calls) if place not in row["held_back"]]
    return replace(parsed, calls=left, content=parsed.content if left else row["question"])


def answer_text(row: dict[str, Any], tools: Tools = None) -> str:
    """A stored answer as it was written; where code changed its calls, what a server passes on of it."""
    if not row.get("held_back") and "completed" not in row:
        return row["text"]
    return encode_calls(read_answer(row, tools).calls) or row["question"]


def plain(call: Any) -> Call:
    """A call as a parser of mlx-lm gives it: name and arguments alone, as proper JSON; raises ValueError if not."""
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        raise ValueError("a call must have a `name` that is a string")
    if not isinstance(call.get("arguments"), dict):
        raise ValueError("a call must have `arguments` that are an object")
    try:
        text = to_json({"name": call["name"], "arguments": call["arguments"]})
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the arguments are no JSON: {error}") from error
    return read_json(text)
