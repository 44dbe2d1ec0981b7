"""The model that is served, and what a request becomes for it: prompt, limit, sampler and grammar."""

import logging
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlx.nn as nn

from callwright.chat.call_format import form_of
from callwright.chat.template import render_prompt
from callwright.chat.tokens import encode, turn_markers
from callwright.data.schema import parameters_by_name
from callwright.decoding import constrain
from callwright.decoding.decision import Decision, call_token
from callwright.decoding.engine import Processor, Request, Sampler
from callwright.decoding.name_preference import NamePreference
from callwright.evals import threshold
from callwright.evals.tool_reading import ToolReading, open_reading
from callwright.lora.adapted import open_model
from callwright.serve.answer import Assembler
from callwright.serve.errors import ApiError
from callwright.serve.limits import Limits
from callwright.serve.messages import escaped
from callwright.serve.protocol import ChatRequest
from callwright.serve.sampling import sampler

log = logging.getLogger(__name__)
# Folder names that say nothing of which model it is.
GENERIC = {"adapter", "fused", "mlx", "model", "package"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as the engine takes it, and the assembler of its answer."""

    prompt: list[int]
    max_tokens: int
    sampler: Sampler | None
    processor: Processor | None
    answer: Assembler
    decision: Decision | None = None
    preference: NamePreference | None = None

    def request(self) -> Request:
        """The answer as the engine generates it."""
        constrained = isinstance(self.processor, constrain.Constraint)
        return Request(
            self.prompt,
            self.max_tokens,
            constraint=self.processor if constrained else None,
            processor=None if constrained else self.processor,
            sampler=self.sampler,
            decision=self.decision,
            preference=self.preference,
        )


class ServedModel:
    """A model with its tokenizer and name. `grammar`: whether answers to requests with tools are constrained.

    decided: when to call, as `evals.threshold.fit` found it; None leaves it to the model. grounding: what becomes of a
    call with values that nobody said: `ask` for them, and fill in what was said, `flag` them, or `off`. style: the form
    of its calls as the run's `data.format` names it; hermes is the model's own where it has one. reading: joins in
    naming the tool and deciding whether to call.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        name: str,
        grammar: bool = True,
        temperature: float = 0.0,
        decided: dict[str, Any] | None = None,
        grounding: str = "off",
        style: str = "hermes",
        reading: ToolReading | None = None,
    ) -> None:
        self.decided, self.grounding, self.reading = decided, grounding, reading
        self._call_token, self.style = call_token(tokenizer, style), style
        self.model, self.tokenizer, self.name, self.temperature = model, tokenizer, name, temperature
        self.context: int | None = getattr(getattr(model, "args", None), "max_position_embeddings", None)
        self.stop_ids = set(tokenizer.eos_token_ids)
        self.form = form_of(tokenizer, style)
        if grammar and self.form.layout is None:
            log.warning("answers with calls are not constrained: %s", constrain.no_grammar(self.form))
        self.vocabulary = constrain.vocabulary(tokenizer) if grammar else None
        self._special = constrain.special_markers(self.vocabulary, self.form) if grammar else {}
        self._markers = turn_markers(tokenizer)
        self._lock = threading.Lock()  # tokenizers are used by one thread at a time

    @property
    def decides(self) -> bool:
        """Whether one token of its answers tells calls from words, so that a threshold can be set."""
        return self._call_token is not None

    def prepare(self, request: ChatRequest, limits: Limits) -> Prepared:
        """What to generate for a request; raises ApiError for one that this model cannot answer."""
        shown = self.shown(request)
        # Without a choice the tools are not shown: an answer in plain words is what the model then writes by itself.
        tools = [] if request.choice == "none" else shown.tools
        # What a model reads as the edge of a turn is none in what people and tools say.
        messages, tools = escaped(request.messages, self._markers), escaped(tools, self._markers)
        with self._lock:
            prompt = self.prompt(messages, tools)
        limit = self.room(len(prompt), request.max_tokens, limits.max_tokens)
        temperature = self.temperature if request.temperature is None else request.temperature
        decision = self.decision(request)
        # Who requires a call gets one, with what nobody said named in it.
        required = self.grounding == "ask" and request.choice not in ("auto", "none")
        return Prepared(
            prompt,
            limit,
            sampler(temperature, request.top_p, request.top_k, request.min_p, request.seed),
            self.processor(shown),
            Assembler(
                parameters_by_name(request.callable) if request.choice != "none" else None,
                request.stop,
                most=None if request.parallel else 1,
                form=self.form,
                confidence=lambda: self.confidence(decision),
                messages=request.messages if tools else (),
                grounding="flag" if required else self.grounding,
                questions=(self.decided or {}).get("questions") or {},
                likely=self.reading and self.reading.likely(request.messages, request.callable),
            ),
            decision,
            self.preference(shown),
        )

    def shown(self, request: ChatRequest) -> ChatRequest:
        """The request with the tools that stand in the prompt: where a tool encoder joins in, the likely ones.

        Who has chosen some of them (`tool_choice`) keeps all that were given.
        """
        if self.reading is None or request.choice not in ("auto", "required") or request.callable != request.tools:
            return request
        offered = self.reading.offered(request.messages, request.tools)
        return request if len(offered) == len(request.tools) else replace(request, tools=offered, callable=offered)

    def preference(self, request: ChatRequest) -> NamePreference | None:
        """What weighs the tools' names, where a tool encoder joins in and the model may choose."""
        if self.reading is None or request.choice not in ("auto", "required"):
            return None
        with self._lock:
            return self.reading.preference(request.messages, request.callable, self.form)

    def decision(self, request: ChatRequest) -> Decision | None:
        """The decision whether to call: by the threshold where the request leaves it to the model, else observed."""
        if not self.decides or not request.tools or request.choice == "none":
            return None
        least = self.decided["threshold"] if self.decided and request.choice == "auto" else None
        evidence = self.reading and self.reading.evidence(request.messages, request.callable)
        return self._call_token.decision(least, evidence)

    def confidence(self, decision: Decision | None) -> float | None:
        """How sure an answer is that something should be called, from 0 to 1, once it has begun."""
        if decision is None or decision.probability is None:
            return None
        return threshold.confidence(decision.probability, self.decided["temperature"] if self.decided else 1.0)

    def prompt(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[int]:
        """The token ids of the prompt: those of training and evaluation for the same conversation."""
        try:
            return encode(self.tokenizer, render_prompt(self.tokenizer, messages, tools))
        except Exception as error:  # a template may raise whatever it likes
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ApiError(
                f"the model's chat template refuses these messages: {reason}", param="messages", code="invalid_value"
            ) from error

    def room(self, prompt: int, wanted: int | None, default: int) -> int:
        """Tokens that the answer may have; raises ApiError when prompt and answer do not fit the context."""
        if self.context is None:
            return wanted or default
        free = self.context - prompt
        if free < (wanted or 1):
            asked = f"{prompt} in the messages and tools, {wanted or 'at least 1'} for the answer"
            raise ApiError(
                f"this model's context is {self.context} tokens, and the request needs more: {asked}",
                param="messages",
                code="context_length_exceeded",
            )
        return min(wanted or default, free)

    def processor(self, request: ChatRequest) -> Processor | None:
        """The grammar of the answer, at its start; None where anything may be written."""
        if not request.tools and request.json_schema is None:
            return None
        if self.vocabulary is None or (request.json_schema is None and self.form.layout is None):
            if request.choice == "required" or request.json_schema is not None:
                why = "runs without grammar" if self.vocabulary is None else "has no grammar for this model's calls"
                raise ApiError(
                    f"this server {why}: it can neither make sure of a call (tool_choice) nor of JSON "
                    "(response_format)",
                    param="response_format" if request.choice == "none" else "tool_choice",
                    code="unsupported_value",
                )
            return None
        try:
            return constrain.Constraint(self.vocabulary, self.grammar(request))
        except Exception as error:
            log.warning("no grammar for a request: %s", error)
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise ApiError(
                f"no grammar can be made of these schemas: {reason}",
                param="tools" if request.json_schema is None else "response_format",
                code="invalid_function_parameters",
            ) from error

    def grammar(self, request: ChatRequest) -> str:
        """What the answer may be: JSON, or words and calls as the request's choice allows."""
        if request.json_schema is not None:
            lead = self.form.layout.lead if self.form.layout else ""
            return constrain.json_grammar(request.json_schema or None, lead, self._special)
        return constrain.grammar(
            request.callable,
            calls=request.choice,
            style=self.form,
            free_words=True,
            parallel=request.parallel,
            special=self._special,
        )


def open_served(
    folder: str | Path,
    adapter: str | Path | None = None,
    name: str | None = None,
    grammar: bool = True,
    temperature: float = 0.0,
    grounding: str | None = None,
    style: str = "hermes",
    read: bool = True,
) -> ServedModel:
    """Load what `callwright serve` serves; raises CallwrightError when a folder is not what it should be.

    Where `decision.json` lies beside the adapter's or the model's weights, it says when to call, and what becomes of
    calls with values that nobody said where `grounding` is None. With `read`, and where that file says so, a tool
    encoder joins in.
    """
    model, tokenizer = open_model(folder, adapter)
    decided = threshold.stored(folder, adapter)
    grounding = grounding or (decided or {}).get("grounding") or "off"
    reading = open_reading(tokenizer, decided, threshold.stored_at(folder, adapter)) if read else None
    return ServedModel(
        model, tokenizer, name or name_of(adapter or folder), grammar, temperature, decided, grounding, style, reading
    )


@lru_cache
def name_of(folder: str | Path) -> str:
    """A model's name after its folder: `results/default/package/model` is `default`."""
    path = Path(folder).resolve()
    return next((part for part in reversed(path.parts) if part not in GENERIC and part != path.anchor), "model")
