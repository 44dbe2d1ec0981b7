"""Final norm, head and cross-entropy on the CPU, with the gradient for the hidden states.

Logits exist for one tile of the vocabulary at a time: each tile's exponentials are added up, and
multiplied with the tile's weights, as soon as they are there, and rescaled when a later tile has a
larger maximum. Each worker takes a part of the vocabulary. The head's weight is used in place.
"""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from callwright.lora.cpu import fast_math
from callwright.lora.cpu.sgemm import product
from callwright.lora.cpu.storage import Scratch
from callwright.runtime import threads

TILE = 2048  # tokens of the vocabulary


@dataclass
class Part:
    """What one part of the vocabulary adds, for n tokens."""

    highest: np.ndarray  # [n, 1] its largest logit
    sums: np.ndarray  # [n, 1] float64: sum of exp(logit - highest)
    picked: np.ndarray  # [n] the target's logit, 0 if it is in another part
    slopes: np.ndarray | None  # [n, D] exp(logits - highest) @ weight


class Head:
    """The head with `weight` [vocabulary, D] after a norm with weight `gain` [D].

    It holds no more logits at once than `chunk` tokens have.
    """

    def __init__(self, weight: mx.array, gain: mx.array, eps: float, chunk: int, workers: threads.ThreadPool):
        self.weight, self.gain, self.eps, self.chunk = np.asarray(weight), np.array(gain), eps, chunk
        self.workers = workers
        edges = np.linspace(0, self.weight.shape[0], workers.count + 1).astype(int).tolist()
        self.parts = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    @property
    def tokens(self) -> int:
        """How many tokens are computed together: with a tile of their logits each, more than a chunk of whole rows."""
        tiles = sum(min(TILE, part.stop - part.start) for part in self.parts)
        return max(1, self.chunk * self.weight.shape[0] // tiles)

    def loss(self, hidden: np.ndarray, targets: np.ndarray, gradient: bool, scratch: list[Scratch]) -> float:
        """The summed cross-entropy of `targets` [n]; with `gradient`, `hidden` [n, D] becomes its gradient."""
        total = 0.0
        for begin in range(0, targets.size, self.tokens):
            rows = slice(begin, begin + self.tokens)
            total += self._chunk(hidden[rows], targets[rows], gradient, scratch)
        return total

    def _chunk(self, hidden: np.ndarray, targets: np.ndarray, gradient: bool, scratch: list[Scratch]) -> float:
        normalized = scratch[0].get("normalized", *hidden.shape)
        scaled = scratch[0].get("scaled", *hidden.shape)
        inverse = fast_math.rms_normalize(hidden, normalized, self.eps)
        np.multiply(normalized, self.gain, out=scaled)
        found = self.workers.map(
            lambda worker: self._part(scaled, targets, self.parts[worker], gradient, scratch[worker]),
            range(self.workers.count),
        )
        highest = np.max([part.highest for part in found], axis=0)
        shares = [np.exp(part.highest - highest, dtype=np.float64) for part in found]
        sums = sum(share * part.sums for share, part in zip(shares, found, strict=True))
        picked = sum(part.picked for part in found)
        loss = float(np.sum(np.log(sums) + highest) - np.sum(picked, dtype=np.float64))
        if gradient:
            np.negative(self.weight[targets], out=hidden)
            for share, part in zip(shares, found, strict=True):
                part.slopes *= (share / sums).astype(np.float32)
                hidden += part.slopes
            hidden *= self.gain
            fast_math.rms_normalize_backward_(hidden, normalized, inverse)
        return loss

    def _part(self, hidden: np.ndarray, targets: np.ndarray, span: slice, gradient: bool, scratch: Scratch) -> Part:
        count = targets.size
        highest = np.full((count, 1), -np.inf, np.float32)
        sums = np.zeros((count, 1))
        picked = np.zeros(count, np.float32)
        slopes = scratch.get("head_slopes", *hidden.shape) if gradient else None
        for begin in range(span.start, span.stop, TILE):
            end = min(begin + TILE, span.stop)
            weight = self.weight[begin:end]
            logits = scratch.get("logits", count, end - begin)
            product(hidden, weight.T, logits)
            inside = np.flatnonzero((targets >= begin) & (targets < end))
            picked[inside] = logits[inside, targets[inside] - begin]
            higher = np.maximum(highest, logits.max(axis=-1, keepdims=True))
            with np.errstate(invalid="ignore"):
                shrink = np.exp(highest - higher)  # 0 for the first tile
            highest = higher
            logits -= highest
            np.exp(logits, out=logits)
            sums *= shrink
            sums += logits.sum(axis=-1, keepdims=True)
            if gradient:
                if begin > span.start:
                    changed = np.flatnonzero(shrink != 1)
                    slopes[changed] *= shrink[changed]
                product(logits, weight, slopes, add=begin > span.start)
        return Part(highest, sums, picked, slopes)
