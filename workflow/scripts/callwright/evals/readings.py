"""Which tool is meant, read in other ways than the answering model's own.

A fine-tuned model names a tool from its list, and takes the one whose name, words or place it likes. What the base
model says of each tool, as a noisy channel (`decoding.tool_channel`) and as a dual encoder (`evals.tool_encoder`),
errs elsewhere. The log-probabilities are added: the names in an answer's first call are weighed while they are
written, token by token; nothing else changes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import mlx.nn as nn

from callwright.chat.call_format import CallFormat
from callwright.chat.formats import to_json
from callwright.chat.tokens import encode
from callwright.decoding.name_preference import NamePreference
from callwright.decoding.places import windows
from callwright.decoding.tool_channel import ToolChannel
from callwright.evals.tool_encoder import FILE, ToolEncoder, ToolProjection

log = logging.getLogger(__name__)

TURNS = 3  # of a user that are read together


class Reading(Protocol):
    """One way to say which tool a request is about."""

    identity: list[Any]  # what decides about its scores, beside the model, as JSON

    def prepared(self, functions: Sequence[dict[str, Any]], request: str) -> Callable[[], dict[str, float]] | None:
        """What gives, asked once, a score in nats for each tool by name; None where it has nothing to say."""
        ...


class Readings:
    """Several readings of one base model, added up. `preference` uses the tokenizer; what it returns does not."""

    def __init__(self, model: nn.Module, tokenizer: Any, readings: Sequence[Reading]):
        self.model, self.tokenizer, self.readings = model, tokenizer, list(readings)

    @property
    def identity(self) -> list[Any]:
        """What decides about their scores, beside the model."""
        return [reading.identity for reading in self.readings]

    def preference(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]], form: CallFormat
    ) -> NamePreference | None:
        """The preference for the answer to a conversation; None where there is nothing to prefer."""
        layout, request = form.layout, said_since_the_last_call(messages)
        if len(tools) < 2 or layout is None or layout.lead or not request:
            return None
        functions = [tool["function"] for tool in tools]
        asked = [found for reading in self.readings if (found := reading.prepared(functions, request))]
        if not asked:
            return None
        quoted = layout.first.endswith('"')
        candidates = {
            name: encode(self.tokenizer, layout.first + (to_json(name)[1:-1] if quoted else name) + layout.between)
            for name in (function["name"] for function in functions)
        }

        def scores() -> dict[str, float]:
            found = [one() for one in asked]
            return {name: sum(one[name] for one in found) for name in candidates}

        return NamePreference(candidates, scores)


def said_since_the_last_call(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a user said, who was perhaps asked back: "Book me a table" and, two turns on, "at 8". Empty, if not last.

    The last TURNS turns of the user, and none from before a call was made.
    """
    if not messages or messages[-1].get("role") != "user" or not isinstance(messages[-1].get("content"), str):
        return ""
    said: list[str] = []
    for message in reversed(messages):
        if message.get("tool_calls") or message.get("role") == "tool" or len(said) == TURNS:
            break
        if message.get("role") == "user" and isinstance(message.get("content"), str):
            said.insert(0, message["content"].strip())
    return "\n".join(filter(None, said)) if said and said[-1] else ""


def open_readings(
    base: nn.Module, tokenizer: Any, decided: Mapping[str, Any] | None, decision: str | Path | None = None
) -> Readings | None:
    """The readings that a run's decision (`evals.threshold`) names, of a model without its adapter; or None.

    decision: the file that it was read from, beside which the tool encoder lies. Raises CallwrightError where that is
    damaged or of another model.
    """
    found: list[Reading] = []
    channel, encoder = ((decided or {}).get(key) for key in ("noisy_channel", "tool_encoder"))
    if (channel or encoder) and windows(base) is None:
        log.warning("this kind of model names tools alone: it keeps more than keys and values")
        return None
    if channel:
        found.append(ToolChannel(base, tokenizer, channel["samples"], channel["weight"]))
    if encoder and decision is not None:
        projection = ToolProjection.load(Path(decision).parent / FILE)
        found.append(ToolEncoder(base, tokenizer, projection, encoder["weight"]))
    return Readings(base, tokenizer, found) if found else None
