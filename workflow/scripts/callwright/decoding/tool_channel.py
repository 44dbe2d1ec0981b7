"""Which tool is meant, by the noisy channel: how likely the request is from somebody who wants each of the tools.

The channel (`data.noisy_channel`) is of the base model, which fine-tuning did not narrow to the wordings of the
training.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import BatchKVCache

from callwright.chat.tokens import encode
from callwright.data.noisy_channel import prefix
from callwright.decoding.beginnings import Beginnings
from callwright.decoding.places import Prompt, windows

LONGEST = 256  # tokens of a request that are explained: the first ones
KEPT = 512 << 20  # bytes of keys and values of prefixes: 64 tools with the longest samples
MOST = 64  # tools; of more than that the model itself chooses, since each costs a pass over the request
LOGITS = 1 << 25  # that are computed at a time


class ToolChannel:
    """The noisy channel of a model. samples: requests that others made for a tool, by its name.

    weight: what a nat of the channel counts beside one of the model's own choice. What `prepared` returns uses the
    model alone, in any thread that has an MLX stream. Raises ValueError for a model that keeps more
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

    def prepared(self, functions: Sequence[dict[str, Any]], request: str) -> Callable[[], dict[str, float]] | None:
        """What gives, asked once, the weighted log-probability of the request behind each tool, by its name.

        None for more than MOST tools. Uses the tokenizer now.
        """
        if len(functions) > MOST:
            return None
        asked = encode(self.tokenizer, request)[:LONGEST]
        prefixes = {function["name"]: encode(self.tokenizer, self._prefix(function)) for function in functions}
        return lambda: self._scores(prefixes, asked)

    @property
    def identity(self) -> list[Any]:
        """What decides about its scores, beside the model."""
        return [self.samples, self.weight]

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
