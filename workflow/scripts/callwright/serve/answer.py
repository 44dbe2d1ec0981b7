"""An answer as it comes: text to say, whole calls, and what was wrong with the rest.

Text is passed on as soon as it cannot be the beginning of a call or of a stop text. A call is passed on when it is
complete, its tool is on offer and its arguments satisfy the tool's schema; a client never sees part of one.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callwright.chat.call_format import HERMES, CallFormat
from callwright.chat.formats import to_json
from callwright.chat.parse import REASONING, without_marks
from callwright.data.completed_calls import Likely, completed_call
from callwright.data.grounding import Context, context_of, to_ask_for, unsaid
from callwright.data.negatives import question
from callwright.data.records import short
from callwright.data.schema import validate


@dataclass(slots=True)
class Problem:
    """A call that is not passed on: `code` is "cut_call" or "invalid_call", `text` what the model wrote of it."""

    code: str
    message: str
    text: str


@dataclass(slots=True)
class Delta:
    """What there is to add for the client: `content`, `reasoning` or a `call` (OpenAI's form, with its `index`)."""

    content: str = ""
    reasoning: str = ""
    call: dict[str, Any] | None = None


@dataclass(slots=True)
class Assembler:
    """Puts an answer together from its text, piece by piece.

    schemas: the parameters of the tools that may be called, by name; None: the text is passed on as it is.
    stop: texts before which the answer ends; not looked for within a call. most: calls after which it ends.
    form: how the model writes its calls. What a model with a form of its own thinks aloud first is `reasoning`; one
    that gives reasons for its calls says there why it makes none.
    confidence: gives the confidence that something should be called, which each call then carries.
    messages: the conversation, where calls are checked against it; grounding: "flag" names in `ungrounded` the
    arguments of a call that were not said; "ask" completes an answer's only call with what the request says
    (`data.said_values`), so that the first call is passed on when a second one or the end has come, and holds back a
    call with what was not said: it asks for that, by the tool's own `questions` where it has any. likely: what is said
    of an enumeration in other words.

    Blanks around calls are dropped; an answer without a call keeps every character.
    """

    schemas: dict[str, dict[str, Any]] | None = None
    stop: tuple[str, ...] = ()
    most: int | None = None
    form: CallFormat = HERMES
    confidence: Callable[[], float | None] = lambda: None
    messages: Sequence[Mapping[str, Any]] = ()
    grounding: str = "off"
    questions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    likely: Likely | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    _rest: str = ""  # read, but not decided yet
    _blank: str = ""  # said only if text follows
    _inside: bool = False
    _after_block: bool = False
    _blocks: int = 0
    _thinking: tuple[str, ...] = ()  # the marks of which one ends it
    _begun: bool = False
    _first: tuple[dict[str, Any], str] | None = None  # a call that may be the only one, and its text
    _taken: list[str] = field(default_factory=list)  # the tools of calls that were passed on, or not
    _said: Context | None = None

    def __post_init__(self) -> None:
        self._said = context_of(self.messages) if self.messages and self.schemas and self.grounding != "off" else None

    def feed(self, piece: str) -> list[Delta]:
        """Read on; returns what can be passed on now."""
        found: list[Delta] = []
        self._rest += piece
        if self.form.own and not self._after_thinking(found):
            return found
        while self.finish_reason is None and self._step(found):
            pass
        return found

    def end(self, reason: str, limit: int) -> list[Delta]:
        """The model has ended its answer (`reason` "stop") or the limit of `limit` tokens has ("length")."""
        found: list[Delta] = []
        if self.finish_reason is not None:
            return found
        opening = self.form.opening
        if self._thinking:  # it never came to more, but to a call perhaps
            start = self._rest.find(opening) if self.schemas is not None else -1
            start = len(self._rest) if start < 0 else start
            self._think(self._rest[:start], found)
            self._rest, self._thinking = self._rest[start:], ()
            while self.finish_reason is None and self._step(found):
                pass
            if self.finish_reason is not None:
                return found
        if self._inside and not self.form.closing and reason != "length":
            block, self._rest, self._inside = self._rest, "", False
            self._read(block, found)
        self._pass_first(found)
        cut = reason == "length" and self.schemas is not None and self._rest and opening.startswith(self._rest)
        if self._inside or cut:
            text = opening + self._rest if self._inside else self._rest
            why = f"the answer was cut at {limit} tokens" if reason == "length" else "the model did not end it"
            code = "cut_call" if reason == "length" else "invalid_call"
            self.problems.append(Problem(code, f"a tool call is incomplete and left out: {why}", text))
        else:
            self._say(self._rest, found)
        if not self._blocks and not cut:
            self._add(self._blank, found)
        if self.form.reasons and not (self.calls or self.problems or self.content.strip()):
            self._add(self.reasoning, found)  # its words are there where it calls nothing
        self.finish_reason = "length" if reason == "length" else "tool_calls" if self.calls else "stop"
        return found

    def _after_thinking(self, found: list[Delta]) -> bool:
        """Whether what the model thinks aloud is over, or there is none."""
        if not self._begun:
            start = self._rest.lstrip()
            marks = [opening for opening, _ in REASONING]
            if not self.form.opens_thinking:
                if not start or any(opening.startswith(start) and opening != start for opening in marks):
                    return False
                self._thinking = tuple(closing for opening, closing in REASONING if start.startswith(opening))
            else:
                self._thinking = tuple(closing for _, closing in REASONING)
            self._begun = True
        if self._thinking:
            ends = [(at, mark) for mark in self._thinking if (at := self._rest.find(mark)) >= 0]
            if not ends:
                return False
            at, mark = min(ends)
            self._think(self._rest[:at], found)
            self._rest, self._thinking, self._after_block = self._rest[at + len(mark) :], (), True
        return True

    def _think(self, text: str, found: list[Delta]) -> None:
        """Pass on what the model thinks aloud, without its marks."""
        if text := without_marks(text):
            self.reasoning = text
            found.append(Delta(reasoning=text))

    def _step(self, found: list[Delta]) -> bool:
        """Decide about one more part of the text; False when more must be read first."""
        if self._inside:
            closing = self.form.closing
            end = self._rest.find(closing) if closing else -1
            if end < 0:
                return False
            block, self._rest = self._rest[:end], self._rest[end + len(closing) :]
            self._inside, self._after_block = False, True
            self._read(block, found)
            return True
        marks = [*self.stop, *([] if self.schemas is None else [self.form.opening])]
        at, mark = min(((place, mark) for mark in marks if (place := self._rest.find(mark)) >= 0), default=(-1, ""))
        if at < 0:
            kept = max((begun(self._rest, mark) for mark in marks), default=0)
            self._say(self._rest[: len(self._rest) - kept], found)
            self._rest = self._rest[len(self._rest) - kept :]
            return False
        self._say(self._rest[:at], found)
        self._rest = self._rest[at + len(mark) :]
        if mark in self.stop:
            self._pass_first(found)
            if not self._blocks:
                self._add(self._blank, found)
            self.finish_reason = "tool_calls" if self.calls else "stop"
        else:
            self._blank, self._inside = "", True
            self._blocks += 1
        return True

    def _read(self, block: str, found: list[Delta]) -> None:
        """Pass on the calls of a block, or say what is wrong with them."""
        text = self.form.opening + block + self.form.closing
        tools = [
            {"type": "function", "function": {"name": name, "parameters": parameters}}
            for name, parameters in self.schemas.items()
        ]
        try:
            calls = self.form.read_block(block, tools)
        except ValueError as error:
            self.problems.append(Problem("invalid_call", f"a tool call cannot be read: {error}", text))
            return
        for call in calls:
            if not self._taken and self._first is None and self.most != 1 and self._completes:
                self._first = call, text
                continue
            self._pass_first(found, call["name"])
            self._take(call, text, found)
            if self.finish_reason is not None:
                return

    @property
    def _completes(self) -> bool:
        return self._said is not None and self.grounding == "ask"

    def _pass_first(self, found: list[Delta], behind: str | None = None) -> None:
        """The first call need not wait any more; behind: the tool of the second one."""
        if self._first is not None:
            (call, text), self._first = self._first, None
            self._take(call, text, found, behind)

    def _take(self, call: dict[str, Any], text: str, found: list[Delta], behind: str | None = None) -> None:
        """Pass on a call, or say what is wrong with it; behind: the tool of the call behind it, where it is known."""
        if self._completes:
            call = completed_call(call, self._taken, behind, self.schemas, self.messages, self.likely)
        self._taken.append(call["name"])
        name, missing = call["name"], self._unsaid(call)
        if missing and self.grounding == "ask":
            self.problems.append(Problem("ungrounded_call", f"held back: nobody said {', '.join(missing)}", text))
            if not self.content and not self.calls:
                self._add(question(missing[0], self.questions.get(name)), found)
        elif name not in self.schemas:
            wrong = f"a call to {short(name)}, which is not among the tools that may be called"
            self.problems.append(Problem("invalid_call", f"left out: {wrong}", text))
        elif problem := validate(call["arguments"], self.schemas[name]):
            wrong = f"a call to {short(name)} with arguments that break its schema: {problem}"
            self.problems.append(Problem("invalid_call", f"left out: {wrong}", text))
        else:
            self._call(call, found, missing)
            if self.most is not None and len(self.calls) >= self.most:
                self.finish_reason = "tool_calls"

    def _unsaid(self, call: dict[str, Any]) -> list[str]:
        """What is wrong with a call's values: what to ask for, or with `flag` the arguments that nobody said."""
        schema = self.schemas.get(call["name"])
        if self._said is None or schema is None:
            return []
        return (to_ask_for if self.grounding == "ask" else unsaid)(self._said, call["arguments"], schema)

    def _call(self, call: dict[str, Any], found: list[Delta], missing: list[str]) -> None:
        made = {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call["name"], "arguments": to_json(call["arguments"])},
        }
        if (sure := self.confidence()) is not None:
            made["confidence"] = round(sure, 4)
        if missing:
            made["ungrounded"] = missing
        found.append(Delta(call={"index": len(self.calls), **made}))
        self.calls.append(made)

    def _say(self, text: str, found: list[Delta]) -> None:
        """Pass text on, but for blanks at its end: nobody knows yet whether a call follows."""
        text = self._blank + text
        if self._after_block and (text := text.lstrip()):
            text, self._after_block = ("\n" if self.content else "") + text, False
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        self._add(shown, found)

    def _add(self, text: str, found: list[Delta]) -> None:
        if text:
            self.content += text
            found.append(Delta(content=text))


def begun(text: str, mark: str) -> int:
    """How many of the last characters of `text` may be the beginning of `mark`."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)
