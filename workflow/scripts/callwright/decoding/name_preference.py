"""Which tool an answer's first call names: scores of the tools join what the model itself prefers."""

from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import numpy as np

FAR = 50.0  # nats


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
        """Logits [1, vocabulary] of the next token, each name's one lowered by how much worse its score is.

        The tokens of the best name that is left keep theirs. All others fall far behind: a piece of a name, or the
        beginning of one that is not there, would pass by the scores.
        """
        if self._scores is None:
            self._scores = self._ask()
        best: dict[int, float] = {}
        for name, token in self.begun(ids).items():
            best[token] = max(best.get(token, -np.inf), self._scores[name])
        most = max(best.values())
        lowered = np.full(logits.shape[-1], min(best.values()) - most - FAR, np.float32)
        for token, score in best.items():
            lowered[token] = score - most
        return logits + mx.array(lowered)[None].astype(logits.dtype)
