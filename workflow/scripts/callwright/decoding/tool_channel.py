"""Which tool is meant: how likely the request is from somebody who wants each tool joins what the model itself prefers.

A fine-tuned model names a tool from the list; the noisy channel (`data.noisy_channel`) of its base, which fine-tuning
did not narrow to the wordings of the training, says how well each tool explains the request. Their log-probabilities
are added: the names in an answer's first call are weighed while they are written, token by token; nothing else changes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import BatchKVCache

from callwright.chat.call_format import CallFormat
from callwright.chat.formats import to_json
from callwright.chat.tokens import encode
from callwright.data.noisy_channel import prefix
from callwright.decoding.beginnings import Beginnings
from callwright.decoding.places import Prompt, windows

log = logging.getLogger(__name__)

LONGEST = 256  # tokens of a request that are explained: the first ones
KEPT = 512 << 20  # bytes of keys and values of prefixes: 64 tools with the longest samples
MOST = 64  # tools; of more than that the model itself chooses, since each costs a pass over the request
LOGITS = 1 << 25  # that are computed at a time


class NamePreference:
    """Weighs the tools' names where an answer's first call names one. For one answer.

    candidates: the tokens of an answer up to and with each name; scores: log-probabilities by name, asked for once,
    when the first token in which names differ is due.
    """

    def __init__(self, candidates: Mapping[str, Sequence[int]], scores: Callable[[], Mapping[str, float]]):
        self.candidates = {name: list(ids) for name, ids in candidates.items()}
        self.longest = max(map(len, self.candidates.values()), default=0)
        self._ask, self._scores = scores, None

    def begun(self, ids: Sequence[int]) -> dict[str, int]:
        """The names that an answer may still become, with the next token of each."""
        n, ids = len(ids), list(ids)
        return {name: c[n] for name, c in self.candidates.items() if len(c) > n and c[:n] == ids}

    def due(self, ids: Sequence[int]) -> bool:
        """Whether the next token of an answer tells names apart."""
        return len(ids) < self.longest and len(set(self.begun(ids).values())) > 1

    def __call__(self, ids: Sequence[int], logits: mx.array) -> mx.array:
        """Logits [1, vocabulary] of the next token, each name's one lowered by how much worse it explains the request.

        The tokens of the best name that is left keep theirs.
        """
        if self._scores is None:
            self._scores = self._ask()
        best: dict[int, float] = {}
        for name, token in self.begun(ids).items():
            best[token] = max(best.get(token, -np.inf), self._scores[name])
        most = max(best.values())
        lowered = np.zeros(logits.shape[-1], np.float32)
        for token, score in best.items():
            lowered[token] = score - most
        return logits + mx.array(lowered)[None].astype(logits.dtype)


class ToolChannel:
    """The noisy channel of a model. samples: requests that others made for a tool, by its name.

    weight: what a nat of the channel counts beside one of the model's own choice. `preference` uses the tokenizer; what
    it returns uses the model alone, in any thread that has an MLX stream. Raises ValueError for a model that keeps more
    than keys and values.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, samples: Mapping[str, Sequence[str]], weight: float = 1.0):
        self.model, self.tokenizer, self.samples, self.weight = model, tokenizer, samples, weight
        self.windows = windows(model)
        if self.windows is None:
            raise ValueError("a model that keeps more than keys and values")
        self.beginnings = Beginnings(KEPT)
        # What the model computes once and keeps (rotary frequencies) must be there before threads share it.
        self.vocabulary = model(mx.array([[0]])).shape[-1]

    def preference(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[dict[str, Any]], form: CallFormat
    ) -> NamePreference | None:
        """The preference for the answer to a conversation; None where there is nothing to prefer."""
        layout, last = form.layout, messages[-1] if messages else {}
        if not 2 <= len(tools) <= MOST or layout is None or layout.lead or last.get("role") != "user":
            return None
        if not isinstance(last.get("content"), str) or not last["content"].strip():
            return None
        functions = [tool["function"] for tool in tools]
        quoted = layout.first.endswith('"')
        request = encode(self.tokenizer, last["content"].strip())[:LONGEST]
        prefixes = {f["name"]: encode(self.tokenizer, self._prefix(f)) for f in functions}
        candidates = {
            name: encode(self.tokenizer, layout.first + (to_json(name)[1:-1] if quoted else name) + layout.between)
            for name in prefixes
        }
        return NamePreference(candidates, lambda: self._scores(prefixes, request))

    def explained(self, prefixes: Sequence[Sequence[int]], request: Sequence[int]) -> list[float]:
        """The log-probability of a request's tokens behind each of several prefixes, which are of two tokens at least.

        Prefixes are computed once, then kept; the request is computed behind many of them together.
        """
        rows = max(1, LOGITS // (self.vocabulary * len(request)))
        return [
            score
            for start in range(0, len(prefixes), rows)
            for score in self._explained(prefixes[start : start + rows], request)
        ]

    def _explained(self, prefixes: Sequence[Sequence[int]], request: Sequence[int]) -> list[float]:
        known = [self._read(list(ids[:-1])) for ids in prefixes]
        caches = [BatchKVCache.merge(layer) for layer in zip(*known, strict=True)]
        fed = mx.array([[ids[-1], *request[:-1]] for ids in prefixes])
        logits = np.array(self.model(fed, cache=caches).astype(mx.float32))  # [prefixes, tokens, vocabulary]
        most = logits.max(axis=-1, keepdims=True)
        everything = np.log(np.exp(logits - most).sum(axis=-1)) + most[..., 0]
        return (logits[:, np.arange(len(request)), request] - everything).sum(axis=-1).tolist()

    def _read(self, ids: list[int]) -> list[Prompt]:
        prompt = [Prompt(window) for window in self.windows]
        if (known := self.beginnings.find(ids, prompt)) < len(ids):
            self.model(mx.array([ids[known:]]), cache=prompt)
            self.beginnings.keep(ids, prompt)
        return prompt

    def _scores(self, prefixes: Mapping[str, Sequence[int]], request: Sequence[int]) -> dict[str, float]:
        found = self.explained(list(prefixes.values()), request)
        return {name: self.weight * score for name, score in zip(prefixes, found, strict=True)}

    def _prefix(self, function: dict[str, Any]) -> str:
        return prefix(function, self.samples.get(function["name"], ()))


def open_channel(base: nn.Module, tokenizer: Any, decided: Mapping[str, Any] | None) -> ToolChannel | None:
    """The channel that a run's decision (`evals.threshold`) describes, of a model without its adapter; or None."""
    found = (decided or {}).get("noisy_channel")
    if not found:
        return None
    if windows(base) is None:
        log.warning("no noisy channel for this kind of model: it keeps more than keys and values")
        return None
    return ToolChannel(base, tokenizer, found["samples"], found["weight"])
