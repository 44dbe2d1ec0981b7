"""What goes back to the client: a chat completion, or its chunks as server-sent events."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from callwright.serve.answer import Assembler, Delta

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Header:
    """What every chunk of an answer repeats."""

    id: str
    created: int
    model: str

    def fields(self, sort: str) -> dict[str, Any]:
        """The fields themselves; `sort` is the kind of object."""
        return {"id": self.id, "object": sort, "created": self.created, "model": self.model}


def usage(prompt: int, output: int) -> dict[str, int]:
    """Tokens of the prompt and of the answer; the token that ends the answer counts as none of it."""
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def completion(header: Header, answer: Assembler, counts: dict[str, int]) -> dict[str, Any]:
    """The whole answer.

    A call that is left out, because it was cut or (without grammar) wrong, stands in two places: as a sentence in
    `message.refusal`, the field that OpenAI's clients show to people, and with the model's text in `choice.error`.
    A cut one has the finish_reason "length" beside, on which `client.chat.completions.parse` raises.
    """
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.content or None if answer.calls or answer.problems else answer.content,
        "refusal": refusal(answer),
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = answer.calls
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
    return {**header.fields("chat.completion"), "choices": [choice | problem(answer)], "usage": counts}


def first_chunk(header: Header) -> bytes:
    """The chunk that names the role."""
    return _chunk(header, {"role": "assistant", "content": ""})


def chunks(header: Header, deltas: Iterable[Delta]) -> bytes:
    """Text and calls as they come."""
    return b"".join(_chunk(header, _delta(delta)) for delta in deltas)


def _delta(delta: Delta) -> dict[str, Any]:
    if delta.call is not None:
        return {"tool_calls": [delta.call]}
    return {"reasoning_content": delta.reasoning} if delta.reasoning else {"content": delta.content}


def last_chunks(header: Header, answer: Assembler, counts: dict[str, int] | None) -> bytes:
    """Why the answer ended, what was left out of it, and if asked for, how many tokens there were."""
    said = refusal(answer)
    end = _chunk(header, {"refusal": said} if said else {}, answer.finish_reason, problem(answer))
    if counts is not None:
        end += event({**header.fields("chat.completion.chunk"), "choices": [], "usage": counts})
    return end + DONE


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def refusal(answer: Assembler) -> str | None:
    """What was wrong, as one text for people."""
    return "; ".join(problem.message for problem in answer.problems) or None


def problem(answer: Assembler) -> dict[str, Any]:
    """`{"error": {"message", "type", "code", "text"}}` for an answer with calls that were left out, else nothing."""
    if not answer.problems:
        return {}
    first = answer.problems[0]
    return {
        "error": {
            "message": refusal(answer),
            "type": "tool_call_error",
            "param": None,
            "code": first.code,
            "text": "\n".join(problem.text for problem in answer.problems),
        }
    }


def _chunk(
    header: Header, delta: dict[str, Any], reason: str | None = None, more: dict[str, Any] | None = None
) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None, **(more or {})}
    return event({**header.fields("chat.completion.chunk"), "choices": [choice]})
