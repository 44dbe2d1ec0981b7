"""The loop of call, execute and answer.

A request is answered in rounds: the model calls tools, each call is checked, shown, approved and made, and the model
sees the results. It ends when the model calls nothing more or repeats only what it has called before; after the last
round the model is asked for words alone, or for nothing (`speak`). Whatever a model says of results may be wrong, so
each result is shown as it came.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from callwright.agent.models import Message, Model, Reply
from callwright.agent.toolbox import Call, Result, Toolbox

YES, NO, QUIT = "y", "n", "q"
DECLINED = "error: the user has declined this call"
REPEATED = "error: this call was made before; its result is above"
STOPPED = "error: the user has stopped here"


class ConversationView(Protocol):
    """Where it is seen what happens."""

    def call(self, call: Call) -> None:
        """A call that the model wants to make."""

    def result(self, result: Result) -> None:
        """What a call brought."""

    def says(self, text: str) -> None:
        """Words of the model."""

    def note(self, text: str) -> None:
        """What the agent itself has to say."""


@dataclass(slots=True)
class Ending:
    """How a request ended: `why` is answered, repeated, rounds, stopped or unreadable; `made` are the calls made."""

    why: str
    text: str = ""
    made: list[tuple[Call, Result]] = field(default_factory=list)


class Agent:
    """A model with tools. `approve(call)` says "y", "n" or "q" (stop here) before each call is made.

    A request follows on earlier ones as long as the model has only asked back; once calls were made, the next one
    begins anew, as in the data of single requests that small models are tuned on. `keep` keeps everything instead.
    `speak` False ends with the results of the last round, about which such a model has nothing sensible to say.
    """

    def __init__(
        self,
        model: Model,
        toolbox: Toolbox,
        approve: Callable[[Call], str],
        view: ConversationView,
        rounds: int = 1,
        keep: bool = False,
        speak: bool = True,
    ):
        self.model, self.toolbox, self.approve, self.view = model, toolbox, approve, view
        self.rounds, self.keep, self.speak = rounds, keep, speak
        self.messages: list[Message] = []

    def ask(self, request: str) -> Ending:
        """Answer a request."""
        if not self.keep and any(message["role"] == "tool" for message in self.messages):
            self.messages = []
        before = len(self.messages)
        self.messages.append({"role": "user", "content": request})
        try:
            return self._rounds()
        except BaseException:  # an error or Ctrl-C: the next request begins where this one did
            del self.messages[before:]
            raise

    def _rounds(self) -> Ending:
        ending, seen = Ending("answered"), set()
        for last in [False] * self.rounds + [True] * self.speak:
            reply = self.model.answer(self.messages, self.toolbox.definitions, may_call=not last)
            ending.text = reply.text
            self._show(reply)
            calls = [] if last else reply.calls
            if not calls:
                self.messages.append({"role": "assistant", "content": reply.text})
                if last and reply.calls:
                    self.view.note(f"the model wants to call more; {self.rounds} rounds are the limit (--rounds)")
                    ending.why = "rounds"
                elif reply.problems or reply.cut or not reply.text:
                    ending.why = "unreadable"
                return ending
            self.messages.append(assistant(reply.text, calls, len(self.messages)))
            if why := self._make_all(calls, seen, ending):
                ending.why = why
                return ending
        return ending  # with the results alone

    def _show(self, reply: Reply) -> None:
        if reply.text:
            self.view.says(reply.text)
        for problem in reply.problems:
            self.view.note(f"the model wrote a call that cannot be read: {problem}")
        if reply.cut:
            self.view.note("the answer was cut at the limit of tokens (--max-tokens)")
        if not (reply.text or reply.problems or reply.calls or reply.cut):
            self.view.note("the model said nothing")

    def _make_all(self, calls: list[Call], seen: set[str], ending: Ending) -> str | None:
        """Make a turn's calls and add the results to the conversation; why it ends with them, or None."""
        identifiers = [call["id"] for call in self.messages[-1]["tool_calls"]]
        new = any(key(call) not in seen for call in calls)
        stopped = False
        for call, identifier in zip(calls, identifiers, strict=True):
            text = None if stopped else self._make(call, seen, ending)
            stopped = text is None
            self.messages.append(tool_message(call, identifier, STOPPED if stopped else text))
        if stopped:
            return "stopped"
        if not new:
            self.view.note("the model only repeats calls that it has made: this ends here")
            return "repeated"
        return None

    def _make(self, call: Call, seen: set[str], ending: Ending) -> str | None:
        """What the model is told of a call; None when the user wants to stop."""
        if key(call) in seen:
            return REPEATED
        seen.add(key(call))
        self.view.call(call)
        if problem := self.toolbox.problem(call):
            result = Result(f"not made: {problem}", failed=True)
            self.view.result(result)
            return f"error: {problem}"
        decision = self.approve(call)
        if decision == QUIT:
            return None
        if decision != YES:
            self.view.note("not made")
            return DECLINED
        result = self.toolbox.run(call)
        ending.made.append((call, result))
        self.view.result(result)
        return f"error: {result.text}" if result.failed else result.text


def key(call: Call) -> str:
    """A text that is equal for equal calls."""
    return json.dumps(call, sort_keys=True)


def assistant(text: str, calls: list[Call], number: int) -> Message:
    """The model's turn with its calls, as OpenAI's protocol has it; ids are made from the message's number."""
    made = [
        {
            "id": f"call_{number}_{at}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
        }
        for at, call in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": made}


def tool_message(call: Call, identifier: str, text: str) -> Message:
    """What the model is told of a call."""
    return {"role": "tool", "tool_call_id": identifier, "name": call["name"], "content": text}
