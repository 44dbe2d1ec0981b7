"""Which words of a request say the value of an argument, read by a sentence encoder with heads for it.

The encoder reads what is asked about (the tool, the parameter and its description) and the request behind it as one
text, and scores every run of the request's words, and that none says it (`models.encoder_heads`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from callwright.data.completed_calls import Said
from callwright.data.spans import Span, is_read, said_in, values_of
from callwright.data.tool_texts import words
from callwright.models.encoder_heads import EncoderHeads
from callwright.models.sentence_encoder import SentenceEncoder, grouped, padded

ABOUT = 30  # words of a parameter that are read before the request: the first ones
LEAST = 1e-3  # how likely words must be, so as to be told


@dataclass(frozen=True)
class AskedRequest:
    """A request with what is asked about it, as the encoder reads them.

    ids: of the tokens; first: the number of the request's first one; places: of each token, the characters of the
    request that it stands for.
    """

    request: str
    ids: list[int]
    first: int
    places: list[Span]

    @property
    def capitals(self) -> list[int]:
        """1 for each token of the request that begins with a capital, else 0."""
        return [
            int(start >= 0 and self.request[start : start + 1].isupper() and end > start) for start, end in self.places
        ]

    @property
    def whole(self) -> bool:
        """Whether the request was read to its end."""
        return self.places[-2][1] >= len(self.request.rstrip()) if len(self.ids) > self.first else False

    def words(self, begin: int, end: int) -> str:
        """The words from a token to another."""
        return self.request[self.places[begin][0] : self.places[end][1]]

    def cuts(self, begin: int, end: int) -> bool:
        """Whether the words from a token to another begin or end within a word: 7 of 7C."""
        start, behind = self.places[begin][0], self.places[end][1]
        edges = (self.request[max(start - 1, 0) : start + 1], self.request[behind - 1 : behind + 1])
        return any(len(edge) == 2 and edge.isalnum() for edge in edges)

    def tokens(self, span: Span) -> Span | None:
        """The first and the last token of some characters; None where they are not read, or not whole tokens."""
        among = range(self.first, len(self.ids) - 1)
        begins = [number for number in among if self.places[number][0] == span[0]]
        ends = [number for number in among if self.places[number][1] == span[1]]
        return (begins[0], ends[-1]) if begins and ends and begins[0] <= ends[-1] else None


def asked_about(function: Mapping[str, Any], name: str) -> str:
    """What is asked about: a tool's parameter in plain words."""
    schema = function["parameters"]["properties"][name]
    return " ".join(f"{words(function['name'])}: {words(name)} {schema.get('description') or ''}".split()[:ABOUT])


def readable(function: Mapping[str, Any]) -> list[str]:
    """The names of a tool's parameters of which words say the value."""
    properties = (function.get("parameters") or {}).get("properties") or {}
    return [name for name, schema in properties.items() if is_read(schema)]


def ask(tokenizer: Any, about: str, request: str) -> AskedRequest:
    """A request with what is asked about it."""
    lead = f"{about}: "
    found = tokenizer.encode(lead + request)
    places = [(start - len(lead), end - len(lead)) for start, end in found.offsets]
    first = next((number for number, (start, end) in enumerate(places) if start >= 0 and end > start), len(places) - 1)
    return AskedRequest(request, found.ids, first, places)


def span_scores(encoder: SentenceEncoder, heads: EncoderHeads, asked: Sequence[AskedRequest]) -> mx.array:
    """The scores of `EncoderHeads` [texts, tokens * tokens + 1] of texts that are computed together."""
    ids, there = padded([one.ids for one in asked])
    capitals, _ = padded([one.capitals for one in asked])
    states = encoder.states(ids, there, capitals[..., None] * heads.capital)
    return heads(states, mx.array([one.first for one in asked]), mx.array([len(one.ids) for one in asked]))


def read(
    encoder: SentenceEncoder, heads: EncoderHeads, asked: Sequence[AskedRequest], schemas: Sequence[Mapping[str, Any]]
) -> list[Said]:
    """How likely a request says which value, for each of `asked` about a parameter of that schema."""
    found: dict[int, Said] = {}
    for group in grouped([one.ids for one in asked]):
        scores = np.array(span_scores(encoder, heads, [asked[number] for number in group]))
        scores = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
        for number, shares in zip(group, scores, strict=True):
            found[number] = _said(asked[number], shares, schemas[number])
    return [found[number] for number in range(len(asked))]


def _said(asked: AskedRequest, shares: np.ndarray, schema: Mapping[str, Any]) -> Said:
    """The values that spans say, each with what they are likely together."""
    width, values = int(np.sqrt(len(shares) - 1)), {}
    longer = said_in(asked.request, schema)
    for at in np.flatnonzero(shares[:-1] >= LEAST):
        begin, end = divmod(int(at), width)
        start, behind = asked.places[begin][0], asked.places[end][1]
        around = (found for place, found in longer if place[0] <= start and behind <= place[1])
        said = [] if asked.cuts(begin, end) else next(around, None) or values_of(asked.words(begin, end), schema)
        for place, value in enumerate(said):
            values[value] = values.get(value, 0.0) + float(shares[at]) / (1 + place)
    return Said(values, float(shares[-1]))
