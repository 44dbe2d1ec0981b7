"""What a tool encoder reads in a conversation: which tool is meant, whether any fits, what is said of enumerations.

A fine-tuned model names a tool from its list, and takes the one whose name, words or place it likes. The encoder
(`evals.tool_encoder`) errs elsewhere. It leaves the model the few tools that a request is likely about: those alone
stand in the prompt, as in tool retrieval (Qin et al., "ToolLLM", ICLR 2024, https://arxiv.org/abs/2307.16789). Its
log-probabilities are added to those of the names in an answer's first call, while they are written, token by token; its
log-odds to those of the token that decides to call, lowered where a value that the likeliest tool requires is not said.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callwright.chat.call_format import CallFormat
from callwright.chat.formats import to_json
from callwright.chat.tokens import encode
from callwright.data.completed_calls import LEAST, Likely, Said
from callwright.data.records import text_of
from callwright.data.said_values import required_of
from callwright.decoding.decision import Evidence
from callwright.decoding.name_preference import NamePreference
from callwright.evals.tool_encoder import FILE, ToolEncoder

LACKING = 2.0  # what a nat counts by which a required value is less likely said
BEHIND = 2.5  # nats that a tool may be less likely than the likeliest one, and be shown to the model
TURNS = 3  # of a user that are read together,
WORDS = 80  # and words: an encoder reads the beginning of a text alone
FEWEST, MOST = 3, 6  # words of a clause that is read by itself, and such clauses
_CLAUSES = re.compile(r"[.!?;:\n]+\s|[,\s]\s*(?:and|then|also|plus)\s|,\s")


class ToolReading:
    """A tool encoder for the answers of a model. `preference` uses the model's tokenizer; what it returns does not.

    most: so many tools the model is shown for each part of a request; None: all that are on offer.
    """

    def __init__(self, tokenizer: Any, encoder: ToolEncoder, most: int | None = None):
        self.tokenizer, self.encoder, self.most = tokenizer, encoder, most

    @property
    def identity(self) -> list[Any]:
        """What decides about what it says."""
        return [*self.encoder.identity, *([] if self.most is None else ["shown", self.most, BEHIND])]

    def offered(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The tools that the model is shown for the answer to a conversation, in their order.

        All of them where they are few, and in a conversation that goes on: what "yes, please" means is not read here.
        Those that the messages name are among them.
        """
        request = said_since_the_last_call(messages)
        turns = [message for message in messages if message.get("role") not in ("system", "developer")]
        if self.most is None or len(tools) <= self.most or not request or len(turns) > 1:
            return list(tools)
        functions, said = [tool["function"] for tool in tools], "\n".join(map(text_of, messages))
        kept = {one["name"] for one in functions if re.search(rf"(?<!\w){re.escape(one['name'])}(?!\w)", said)}
        read = parts(request)
        self.encoder.read_ahead(functions, read)
        for part in read:
            meant = self.encoder.meant(functions, part)
            likeliest = sorted(meant, key=meant.__getitem__, reverse=True)[: self.most]
            kept |= {name for name in likeliest if meant[name] >= meant[likeliest[0]] - BEHIND}
        return [tool for tool in tools if tool["function"]["name"] in kept]

    def preference(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]], form: CallFormat
    ) -> NamePreference | None:
        """The preference for the answer to a conversation; None where there is nothing to prefer."""
        layout, request = form.layout, said_since_the_last_call(messages)
        if len(tools) < 2 or layout is None or layout.lead or not request:
            return None
        functions, quoted = [tool["function"] for tool in tools], layout.first.endswith('"')
        candidates = {
            name: encode(self.tokenizer, layout.first + (to_json(name)[1:-1] if quoted else name) + layout.between)
            for name in (function["name"] for function in functions)
        }
        weight = self.encoder.weight
        return NamePreference(
            candidates, lambda: {name: weight * nats for name, nats in self.encoder.meant(functions, request).items()}
        )

    def evidence(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]]) -> Evidence | None:
        """What there is to say for a call in the answer to a conversation; None where there is nothing."""
        request, whole = _read_back(messages)
        if not request or not tools:
            return None
        functions = [tool["function"] for tool in tools]
        whole = whole and all(message.get("role") == "user" for message in messages)  # others may have said the rest

        def nats() -> float:
            fitting = self.encoder.fitting(functions, request)
            return fitting + LACKING * self._least_said(functions, request) if whole else fitting

        return nats

    def _least_said(self, functions: Sequence[dict[str, Any]], request: str) -> float:
        """The log-probability that a request says what it says least surely of all that its likeliest tool requires."""
        meant = self.encoder.meant(functions, request)
        function = max(functions, key=lambda one: meant[one["name"]])
        read = (self.encoder.said(function, name, request) for name in required_of(function.get("parameters") or {}))
        return min((math.log(max(1 - said.unsaid, LEAST)) for said in read if said is not None), default=0.0)

    def likely(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]]) -> Likely | None:
        """What is said of enumerations, for the answer to a conversation; None where there is nothing."""
        request, whole = _read_back(messages)
        if not (request and whole):  # what is not read is not therefore unsaid
            return None
        functions = {tool["function"]["name"]: tool["function"] for tool in tools}

        def said(tool: str, name: str) -> Said | None:
            return self.encoder.said(functions[tool], name, request)

        return said


def parts(request: str) -> list[str]:
    """A request, and its sentences and clauses where it has several: each may mean a tool of its own."""
    clauses = [one.strip() for one in _CLAUSES.split(request)]
    clauses = [one for one in clauses if len(one.split()) >= FEWEST]
    return list(dict.fromkeys([request, *(clauses[:MOST] if len(clauses) > 1 else ())]))


def said_since_the_last_call(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a user said, who was perhaps asked back: "Book me a table" and, two turns on, "at 8". Empty, if not last.

    The last TURNS turns of the user, fewer where they are long, and none from before a call was made.
    """
    return _read_back(messages)[0]


def _read_back(messages: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """What `said_since_the_last_call` gives, and whether that is all that was said since."""
    if not messages or messages[-1].get("role") != "user":
        return "", True
    said: list[str] = []
    whole = True
    for message in reversed(messages):
        if message.get("tool_calls") or message.get("role") == "tool":
            break
        if message.get("role") == "user" and (text := text_of(message).strip()):
            if len(said) == TURNS or (said and len(" ".join([text, *said]).split()) > WORDS):
                whole = False
                break
            said.insert(0, text)
    return ("\n".join(said), whole) if text_of(messages[-1]).strip() else ("", True)


def open_reading(tokenizer: Any, decided: Mapping[str, Any] | None, decision: str | Path | None) -> ToolReading | None:
    """The reading that a run's decision (`evals.threshold`) names, or None.

    decision: the file that it was read from, beside which the tool encoder lies. Raises CallwrightError where that is
    damaged, or cannot be read.
    """
    encoder = (decided or {}).get("tool_encoder")
    if not encoder or decision is None:
        return None
    return ToolReading(
        tokenizer, ToolEncoder.load(Path(decision).parent / FILE, encoder["weight"]), encoder.get("offered")
    )
