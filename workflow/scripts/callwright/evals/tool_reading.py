"""What a tool encoder reads in a conversation: which tool is meant, whether any fits, what is said of enumerations.

A fine-tuned model names a tool from its list, and takes the one whose name, words or place it likes. The encoder
(`evals.tool_encoder`) errs elsewhere. Its log-probabilities are added to those of the names in an answer's first call,
while they are written, token by token; its log-odds to those of the token that decides to call.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callwright.chat.call_format import CallFormat
from callwright.chat.formats import to_json
from callwright.chat.tokens import encode
from callwright.data.completed_calls import Likely, Said
from callwright.decoding.decision import Evidence
from callwright.decoding.name_preference import NamePreference
from callwright.evals.tool_encoder import FILE, ToolEncoder

TURNS = 3  # of a user that are read together,
WORDS = 80  # and words: an encoder reads the beginning of a text alone


class ToolReading:
    """A tool encoder for the answers of a model. `preference` uses the model's tokenizer; what it returns does not."""

    def __init__(self, tokenizer: Any, encoder: ToolEncoder):
        self.tokenizer, self.encoder = tokenizer, encoder

    @property
    def identity(self) -> list[Any]:
        """What decides about what it says."""
        return self.encoder.identity

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
        return NamePreference(candidates, lambda: self.encoder.preferred(functions, request))

    def evidence(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]]) -> Evidence | None:
        """What there is to say for a call in the answer to a conversation; None where there is nothing."""
        request = said_since_the_last_call(messages)
        if not request or not tools:
            return None
        return lambda: self.encoder.fitting([tool["function"] for tool in tools], request)

    def likely(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]]) -> Likely | None:
        """What is said of enumerations, for the answer to a conversation; None where there is nothing."""
        if not (request := said_since_the_last_call(messages)):
            return None
        functions = {tool["function"]["name"]: tool["function"] for tool in tools}

        def said(tool: str, name: str) -> Said | None:
            return self.encoder.said(functions[tool], name, request)

        return said


def said_since_the_last_call(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a user said, who was perhaps asked back: "Book me a table" and, two turns on, "at 8". Empty, if not last.

    The last TURNS turns of the user, fewer where they are long, and none from before a call was made.
    """
    if not messages or messages[-1].get("role") != "user" or not isinstance(messages[-1].get("content"), str):
        return ""
    said: list[str] = []
    for message in reversed(messages):
        if message.get("tool_calls") or message.get("role") == "tool" or len(said) == TURNS:
            break
        if message.get("role") == "user" and isinstance(message.get("content"), str):
            if said and len(" ".join([message["content"], *said]).split()) > WORDS:
                break
            said.insert(0, message["content"].strip())
    return "\n".join(filter(None, said)) if said and said[-1] else ""


def open_reading(tokenizer: Any, decided: Mapping[str, Any] | None, decision: str | Path | None) -> ToolReading | None:
    """The reading that a run's decision (`evals.threshold`) names, or None.

    decision: the file that it was read from, beside which the tool encoder lies. Raises CallwrightError where that is
    damaged, or cannot be read.
    """
    encoder = (decided or {}).get("tool_encoder")
    if not encoder or decision is None:
        return None
    return ToolReading(tokenizer, ToolEncoder.load(Path(decision).parent / FILE, encoder["weight"]))
