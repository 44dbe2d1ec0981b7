"""Which tool is meant, by a dual encoder: the tool whose vector lies nearest to the request's.

A request and a tool in plain words (`data.tool_texts`) are each read once by the base model, as the means of its hidden
states (`evals.pooled`); one learned projection puts both where a request lies near the tool that it means, as in
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
from callwright.evals.pooled import pooled
from callwright.lora.layers import save_arrays
from callwright.runtime.errors import CallwrightError

FILE = "tool_encoder.safetensors"  # beside decision.json
WEIGHT = 3.0  # of a nat of it beside one of the model's own choice of a tool
LONGEST = 128  # tokens of a request or a tool that are read: the first ones
KEPT = 4096  # tools whose states are kept
REQUESTS, TOOLS = 0, 1  # rows of `center` and `spread`
DTYPES = {"center": mx.float32, "spread": mx.float32, "matrix": mx.float16}  # of a file's arrays


@dataclass(frozen=True)
class ToolProjection:
    """What a dual encoder learned. d: the width of the states, blocks' means side by side; k: of the vectors.

    model: whose states, in words (`model_of`). after: the blocks whose states are read. center, spread [2, d]: of
    requests' and of tools' states. matrix [d, k]. scale: what a difference of one in the cosine counts in nats.
    """

    model: str
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
        """Write it, the matrix in half precision."""
        self.check()
        arrays = {name: mx.array(getattr(self, name)).astype(dtype) for name, dtype in DTYPES.items()}
        about = {"model": self.model, "after": ",".join(map(str, self.after)), "scale": repr(self.scale)}
        save_arrays(Path(path), arrays, about)

    def check(self) -> None:
        """Raise ValueError where parts do not fit together, or are no numbers."""
        d = self.center.shape[-1]
        if self.center.shape != (2, d) or self.spread.shape != (2, d) or self.matrix.shape[:1] != (d,):
            raise ValueError("its parts have different widths")
        if self.matrix.ndim != 2 or self.after != tuple(sorted({*self.after})) or not self.after or self.after[0] < 1:
            raise ValueError("no matrix, or no ascending numbers of blocks")
        if not all(np.isfinite(part).all() for part in (self.center, self.spread, self.matrix, self.scale)):
            raise ValueError("it holds what is not finite")
        if not (self.spread > 0).all():
            raise ValueError("a spread is not positive")

    @classmethod
    def load(cls, path: str | Path) -> "ToolProjection":
        """Read what `save` wrote; raises CallwrightError for a file that is missing, damaged or another."""
        if not Path(path).is_file():
            raise CallwrightError(
                f"{path}: the tool encoder that decision.json speaks of is not there: copy it from where that file "
                "comes from, or take `tool_encoder` out of it"
            )
        try:
            arrays, about = mx.load(str(path), format="safetensors", return_metadata=True)
            parts = [np.array(arrays[name].astype(mx.float32)) for name in DTYPES]
            after = tuple(map(int, about["after"].split(",")))
            found = cls(about["model"], after, *parts, float(about["scale"]))
            found.check()
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise CallwrightError(
                f"{path}: not a tool encoder ({str(error)[:120]}): make it again, or remove the file"
            ) from error
        return found


class ToolEncoder:
    """A dual encoder at work: the base model that reads, and the projection that was learned for it.

    weight: what a nat of it counts beside one of the model's own choice of a tool. Raises CallwrightError where the
    projection is of another kind of model.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, projection: ToolProjection, weight: float = 1.0):
        if projection.model != (found := model_of(model.args)):
            raise CallwrightError(f"the tool encoder was made for another model: {projection.model}; this is {found}")
        # A copy of the modules, not of the arrays: reading takes them apart while other threads use the model.
        self.model, self._lock = copy.deepcopy(model), threading.Lock()
        self.tokenizer, self.projection, self.weight = tokenizer, projection, weight
        self._known: dict[str, np.ndarray] = {}

    @property
    def identity(self) -> list[Any]:
        """What decides about its scores, beside the model."""
        digest = hashlib.sha256(self.projection.matrix.tobytes() + self.projection.center.tobytes()).hexdigest()
        return [digest, list(self.projection.after), self.projection.scale, self.weight]

    def prepared(self, functions: Sequence[dict[str, Any]], request: str) -> Callable[[], dict[str, float]]:
        """What gives, asked once, the weighted log-probability of each tool by name; uses the tokenizer now."""
        texts = {function["name"]: described(function) for function in functions}
        tokens = {text: _ids(self.tokenizer, text) for text in texts.values()}
        asked = _ids(self.tokenizer, request)
        return lambda: self._scores(texts, tokens, asked)

    def _scores(self, texts: dict[str, str], tokens: dict[str, list[int]], asked: list[int]) -> dict[str, float]:
        with self._lock:
            new = [text for text in tokens if text not in self._known]
            states = pooled(self.model, [asked, *(tokens[text] for text in new)], self.projection.after)
            if len(self._known) + len(new) > KEPT:
                self._known = {text: self._known[text] for text in tokens if text in self._known}
            self._known.update(zip(new, states[1:], strict=True))
            tools = np.stack([self._known[text] for text in texts.values()])
        found = self.projection.log_probabilities(states[:1], tools)[0]
        return {name: self.weight * float(score) for name, score in zip(texts, found, strict=True)}


def model_of(args: Any) -> str:
    """A model by its kind and size, as in `llama, 30 blocks, width 576, vocabulary 49152`.

    args: its architecture's, or the content of its `config.json` as an object.
    """
    return f"{args.model_type}, {args.num_hidden_layers} blocks, width {args.hidden_size}, vocabulary {args.vocab_size}"


def read(model: nn.Module, tokenizer: Any, texts: Sequence[str], after: Sequence[int]) -> np.ndarray:
    """The states [texts, d] of texts, as `ToolProjection` takes them."""
    return pooled(model, [_ids(tokenizer, text) for text in texts], after)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return encode(tokenizer, text.strip() or "-")[:LONGEST]
