"""Who answers: a model in this process, or a server that speaks OpenAI's protocol."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from callwright.chat.call_format import form_of
from callwright.data.grounded_calls import grounded
from callwright.data.schema import parameters_by_name
from callwright.runtime.chat_server import ChatServer
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """One turn of the model: its words, its calls, what could not be read as a call, and whether it was cut."""

    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cut: bool = False


class Model(Protocol):
    """What answers a conversation."""

    def answer(self, messages: list[Message], tools: list[dict[str, Any]], may_call: bool = True) -> Reply:
        """The next turn; messages and tools as OpenAI's protocol has them. `may_call` False asks for words."""


class LocalModel:
    """A model folder, maybe with an adapter; greedy answers under a grammar of the tools, as in evaluation.

    `grammar` False leaves answers unconstrained, `read` False leaves a tool encoder out. Where `decision.json` lies
    with the model, it says when to call, whether a tool encoder joins in, and whether calls are held against what was
    said.

    Raises CallwrightError when a folder is not what it should be, and
    from `answer` when a conversation does not fit the model's context.
    """

    def __init__(
        self, folder: str | Path, adapter: str | Path | None, max_tokens: int, grammar: bool = True, read: bool = True
    ):
        from callwright.decoding import constrain
        from callwright.decoding.beginnings import Beginnings
        from callwright.decoding.decision import call_token
        from callwright.evals import threshold
        from callwright.evals.tool_reading import open_reading
        from callwright.lora.adapted import open_model

        self.model, self.tokenizer = open_model(folder, adapter)
        self.max_tokens = max_tokens
        self.form = form_of(self.tokenizer)
        if grammar and self.form.layout is None:
            log.warning("answers are not constrained: %s", constrain.no_grammar(self.form))
        self.beginnings = Beginnings()  # each turn begins with what was said before
        self.vocabulary = constrain.vocabulary(self.tokenizer) if grammar else None
        self.decided, self.call_token = threshold.stored(folder, adapter), call_token(self.tokenizer)
        at = threshold.stored_at(folder, adapter)
        self.reading = open_reading(self.tokenizer, self.decided, at) if read else None

    def answer(self, messages: list[Message], tools: list[dict[str, Any]], may_call: bool = True) -> Reply:
        """The likeliest next turn."""
        from callwright.chat.tokens import prompt_ids
        from callwright.decoding.decode import greedy
        from callwright.decoding.limits import longest_prompt
        from callwright.models.cpu_math import fast_inference

        shown = self.reading.offered(messages, tools) if self.reading and may_call else tools
        prompt = prompt_ids(self.tokenizer, messages, shown)
        most = longest_prompt(self.model, self.max_tokens, None)
        if len(prompt) > most:
            raise CallwrightError(
                f"the conversation and the tools have {len(prompt)} tokens, but the model's context leaves {most:g} "
                f"beside an answer of {self.max_tokens}: give it fewer tools, or ask anew"
            )
        stop_ids, constraints = set(self.tokenizer.eos_token_ids), self._constraints(shown, may_call)
        with fast_inference(self.model):
            (found,) = greedy(
                self.model,
                [prompt],
                self.max_tokens,
                stop_ids,
                constraints=constraints,
                decisions=self._decisions(messages, tools, may_call),
                beginnings=self.beginnings,
                preferences=self._preferences(messages, shown, may_call),
            )
        parsed = self.form.read(self.tokenizer.decode(found.ids, clean_up_tokenization_spaces=False), tools)
        text, calls = parsed.content.strip(), parsed.calls
        if (self.decided or {}).get("grounding") == "ask":
            likely = self.reading and self.reading.likely(messages, tools)
            held = grounded(calls, parameters_by_name(tools), messages, self.decided.get("questions"), likely)
            text, calls = text or ("" if held.made else held.asked), held.made
        return Reply(text, calls, parsed.errors, found.finish_reason == "length")

    def _decisions(self, messages: list[Message], tools: list[dict[str, Any]], may_call: bool) -> list[Any] | None:
        """From the fitted confidence on to call, as the server does; None leaves it to the model."""
        if self.decided is None or self.call_token is None or not tools or not may_call:
            return None
        evidence = self.reading and self.reading.evidence(messages, tools)
        return [self.call_token.decision(self.decided["threshold"], evidence)]

    def _preferences(self, messages: list[Message], tools: list[dict[str, Any]], may_call: bool) -> list[Any] | None:
        """What a tool encoder says of the tools, as the server asks them."""
        if self.reading is None or not may_call:
            return None
        return [self.reading.preference(messages, tools, self.form)]

    def _constraints(self, tools: list[dict[str, Any]], may_call: bool) -> list[Any] | None:
        from callwright.decoding import constrain

        if self.vocabulary is None or self.form.layout is None:
            return None
        special = constrain.special_markers(self.vocabulary, self.form)
        grammar = constrain.grammar(tools, "auto" if may_call else "none", self.form, special=special)
        return [constrain.Constraint(self.vocabulary, grammar)]


class RemoteModel:
    """A model behind an OpenAI-compatible server. The key is read from OPENAI_API_KEY; local servers need none.

    Raises CallwrightError, here and from `answer`, when the server cannot be reached or refuses.
    """

    def __init__(self, url: str, name: str | None, max_tokens: int, timeout: float = 600.0):
        self.max_tokens = max_tokens
        self._server = ChatServer(url, timeout, retries=1)
        self.name = name or self._server.first_model()

    def answer(self, messages: list[Message], tools: list[dict[str, Any]], may_call: bool = True) -> Reply:
        """The next turn, at temperature 0."""
        found = self._server.complete(
            self.name,
            messages=messages,
            tools=tools,
            tool_choice="auto" if may_call else "none",
            temperature=0,
            max_tokens=self.max_tokens,
        )
        choice = found.choices[0]
        calls, problems = [], []
        for call in choice.message.tool_calls or []:
            try:
                calls.append({"name": call.function.name, "arguments": json.loads(call.function.arguments or "{}")})
            except (ValueError, AttributeError) as error:  # broken JSON; a call of another kind
                problems.append(f"{getattr(call, 'id', 'a call')}: {error}")
        return Reply((choice.message.content or "").strip(), calls, problems, choice.finish_reason == "length")
