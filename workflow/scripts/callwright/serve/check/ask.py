"""Asking a server for the answers to test items, with OpenAI's own client, one by one or many at once."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import openai

from callwright.chat.formats import encode_calls
from callwright.chat.openai_messages import openai_messages
from callwright.runtime.chat_server import open_client
from callwright.runtime.errors import one_line

SECONDS = 1800.0  # for one answer: a check on a busy machine is slow, not failed


@dataclass(slots=True)
class Asked:
    """What came back for an item: its answer, `usage` [prompt, output], seconds; or the `failure` instead."""

    content: str = ""
    calls: list[dict[str, Any]] | None = None
    finish_reason: str = ""
    refusal: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    failure: str = ""

    @property
    def text(self) -> str:
        """The answer as the model writes it, for the scorer."""
        return "\n".join(filter(None, [self.content, encode_calls(self.calls or [])]))


class Asker:
    """A client of one server; `limit` is the most tokens of an answer."""

    def __init__(self, address: str, model: str, limit: int, key: str = "-"):
        self.client = open_client(f"{address}/v1", SECONDS, retries=0, key=key)
        self.model, self.limit = model, limit

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **options: Any) -> Asked:
        """One answer, whole or (`stream=True`) put together from its chunks; a failure is one of the results."""
        options = {"max_tokens": self.limit, "temperature": 0, **options}
        if tools:
            options["tools"] = tools
        start = time.monotonic()
        try:
            answer = self.client.chat.completions.create(model=self.model, messages=messages, **options)
            found = read_stream(answer) if options.get("stream") else read_whole(answer)
        except (openai.OpenAIError, ValueError) as error:
            found = Asked(failure=f"{type(error).__name__}: {one_line(error)}")
        found.seconds = time.monotonic() - start
        return found

    def ask_all(self, examples: Sequence[Any], clients: int) -> tuple[list[Asked], float]:
        """The answers to all items, `clients` of them asked for at a time; and the seconds of all together."""
        start = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            jobs = [pool.submit(self.ask, openai_messages(example.messages), example.tools) for example in examples]
            return [job.result() for job in jobs], time.monotonic() - start


def read_whole(answer: Any) -> Asked:
    """An answer that came at once."""
    choice = answer.choices[0]
    return Asked(
        choice.message.content or "",
        [read_call(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []],
        choice.finish_reason,
        choice.message.refusal,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )


def read_stream(chunks: Any) -> Asked:
    """An answer that came in chunks."""
    found, calls = Asked(), {}
    for chunk in chunks:
        for choice in chunk.choices:
            found.content += choice.delta.content or ""
            found.refusal = choice.delta.refusal or found.refusal
            found.finish_reason = choice.finish_reason or found.finish_reason
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, ["", ""])
                call[0] += part.function.name or ""
                call[1] += part.function.arguments or ""
    found.calls = [read_call(*calls[index]) for index in sorted(calls)]
    return found


def read_call(name: str, arguments: str) -> dict[str, Any]:
    """A call as examples hold it; raises ValueError for arguments that are no JSON."""
    return {"name": name, "arguments": json.loads(arguments)}


def timing(answers: Sequence[Asked], seconds: float) -> dict[str, Any]:
    """Latency in seconds at the median and the 95th percentile, and output tokens per second of all together."""
    good = [answer for answer in answers if not answer.failure]
    p50, p95 = np.percentile([answer.seconds for answer in good], [50, 95]).tolist() if good else (None, None)
    return {
        "requests": len(answers),
        "lost": len(answers) - len(good),
        "seconds": seconds,
        "latency_p50": p50,
        "latency_p95": p95,
        "tokens_per_second": sum(answer.output_tokens for answer in good) / seconds,
    }
