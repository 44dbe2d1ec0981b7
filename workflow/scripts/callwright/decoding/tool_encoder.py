"""Which tool is meant, by a dual encoder: the tool whose vector lies nearest to the request's.

A request and a tool in plain words (`data.tool_texts`) are each read once by the base model, as the means of its hidden
states (`decoding.pooled`); one learned projection puts both where a request lies near the tool that it means, as in
Karpukhin et al., "Dense Passage Retrieval for Open-Domain Question Answering" (EMNLP 2020,
https://arxiv.org/abs/2004.04906). The base stays as it is, and tools are read once: naming one of a hundred tools costs
one pass over the request.
"""

import copy
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.chat.tokens import encode
from callwright.data.tool_texts import described
from callwright.decoding.pooled import pooled
from callwright.lora.layers import save_arrays
from callwright.runtime.errors import CallwrightError

FILE = "tool_encoder.safetensors"  # beside decision.json
WEIGHT = 3.0  # of a nat of it beside one of the model's own choice of a tool
LONGEST = 128  # tokens of a request or a tool that are read: the first ones
KEPT = 4096  # tools whose states are kept
REQUESTS, TOOLS = 0, 1  # rows of `center` and `spread`


@dataclass(frozen=True)
class Projection:
    """What a dual encoder learned. d: the width of the states, blocks' means side by side; k: of the vectors.

    after: the blocks whose states are read. center, spread [2, d]: of requests' and of tools' states. matrix [d, k].
    scale: what a difference of one in the cosine counts in nats.
    """

    after: tuple[int, ...]
    center: np.ndarray
    spread: np.ndarray
    matrix: np.ndarray
    scale: float

    def vectors(self, states: np.ndarray, kind: int) -> np.ndarray:
        """Unit vectors [n, k] of the states [n, d] of requests (`kind` REQUESTS) or tools (TOOLS)."""
        found = (states - self.center[kind]) / self.spread[kind] @ self.matrix
        return found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-9)

    def log_probabilities(self, requests: np.ndarray, tools: np.ndarray) -> np.ndarray:
        """Of each tool [n, tools] for each request, from the states of both."""
        scores = self.scale * self.vectors(requests, REQUESTS) @ self.vectors(tools, TOOLS).T
        return scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)

    def save(self, path: str | Path) -> None:
        """Write it in half precision."""
        arrays = {name: mx.array(getattr(self, name)).astype(mx.float16) for name in ("center", "spread", "matrix")}
        about = {"after": ",".join(map(str, self.after)), "scale": repr(self.scale)}
        save_arrays(Path(path), arrays, about)

    @classmethod
    def load(cls, path: str | Path) -> "Projection":
        """Read what `save` wrote; raises CallwrightError for another or a damaged file."""
        try:
            arrays, about = mx.load(str(path), format="safetensors", return_metadata=True)
            center, spread, matrix = (
                np.array(arrays[name].astype(mx.float32)) for name in ("center", "spread", "matrix")
            )
            return cls(tuple(map(int, about["after"].split(","))), center, spread, matrix, float(about["scale"]))
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise CallwrightError(
                f"{path}: not a tool encoder ({str(error)[:120]}): make it again, or remove the file"
            ) from error


class ToolEncoder:
    """A dual encoder at work: the base model that reads, and the projection that was learned for it.

    weight: what a nat of it counts beside one of the model's own choice of a tool. Raises CallwrightError where the
    projection is of another model.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, projection: Projection, weight: float = 1.0):
        # A copy of the modules, not of the arrays: reading takes them apart while other threads use the model.
        self.model, self._lock = copy.deepcopy(model), threading.Lock()
        self.tokenizer, self.projection, self.weight = tokenizer, projection, weight
        self._known: dict[str, np.ndarray] = {}
        width = read(self.model, tokenizer, ["a"], projection.after).shape[1]
        if width != projection.matrix.shape[0]:
            raise CallwrightError(
                f"the tool encoder reads states of width {projection.matrix.shape[0]}, this model has {width}: "
                "it was made for another model"
            )

    @property
    def identity(self) -> list[Any]:
        """What decides about its scores, beside the model."""
        digest = hashlib.sha256(self.projection.matrix.tobytes() + self.projection.center.tobytes()).hexdigest()
        return [digest, list(self.projection.after), self.projection.scale, self.weight]

    def prepared(self, functions: Sequence[dict[str, Any]], request: str) -> Callable[[], dict[str, float]]:
        """What gives, asked once, the weighted log-probability of each tool by name; uses the tokenizer now."""
        texts = {function["name"]: described(function) for function in functions}
        known = {text: vector for text in texts.values() if (vector := self._known.get(text)) is not None}
        new = {text: _ids(self.tokenizer, text) for text in texts.values() if text not in known}
        asked = _ids(self.tokenizer, request)
        return lambda: self._scores(texts, known, new, asked)

    def _scores(
        self, texts: dict[str, str], known: dict[str, np.ndarray], new: dict[str, list[int]], asked: list[int]
    ) -> dict[str, float]:
        with self._lock:
            states = pooled(self.model, [asked, *new.values()], self.projection.after)
        read_now = dict(zip(new, states[1:], strict=True))
        if len(self._known) + len(read_now) > KEPT:
            self._known = {}
        self._known.update(read_now)
        tools = np.stack([(known | read_now)[text] for text in texts.values()])
        found = self.projection.log_probabilities(states[:1], tools)[0]
        return {name: self.weight * float(score) for name, score in zip(texts, found, strict=True)}


def read(model: nn.Module, tokenizer: Any, texts: Sequence[str], after: Sequence[int]) -> np.ndarray:
    """The states [texts, d] of texts, as `Projection` takes them."""
    return pooled(model, [_ids(tokenizer, text) for text in texts], after)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return encode(tokenizer, text.strip() or "-")[:LONGEST]
